package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/typeid"
)

// maxFaults is how many wrong arguments are told.
const maxFaults = 50

// maxWait is how long wait_for_approval waits. Clients give up after a minute.
const maxWait = 50 * time.Second

// approvalTools returns the tools with which an agent follows what it asked for.
func (s *Server) approvalTools() []*tool {
	const id = `"id":{"type":"string","description":"apr_…"}`
	return []*tool{
		plainTool("get_approval", "Get approval",
			"Tells how an approval stands: pending_approval, executed or executed_with_edits (with the result), rejected (with the reason), expired, withdrawn, failed.",
			`{"type":"object","properties":{`+id+`},"required":["id"]}`, annotations("Get approval", true, false, true, false), s.getApproval),
		plainTool("list_my_approvals", "List my approvals",
			"Lists what you have asked for that had to wait for approval, newest first, and how it stands. The status approved finds what was executed or failed.",
			`{"type":"object","properties":{"status":{"type":"string","enum":["pending","approved","rejected","expired","withdrawn"]},"limit":{"type":"integer"},"cursor":{"type":"string"}}}`,
			annotations("List my approvals", true, false, true, false), s.listApprovals),
		plainTool("wait_for_approval", "Wait for approval",
			"Waits until a person has decided an approval and it was executed, at most 50 seconds, and tells how it stands. Call it again while it is pending.",
			`{"type":"object","properties":{`+id+`,"timeout_seconds":{"type":"integer"}},"required":["id"]}`,
			annotations("Wait for approval", true, false, true, false), s.wait),
		plainTool("withdraw_approval", "Withdraw approval",
			"Takes back a request of yours that still waits for approval. It cannot be undone.",
			`{"type":"object","properties":{`+id+`},"required":["id"]}`, annotations("Withdraw approval", false, true, true, false), s.withdraw),
	}
}

// plainTool returns a tool that looks the same at each level.
func plainTool(name, title, description, input string, hints mcpgo.ToolAnnotation, run func(context.Context, *call) (answer, error)) *tool {
	form := mcpgo.NewToolWithRawSchema(name, description, json.RawMessage(input))
	form.Annotations = hints
	t := &tool{name: name, reads: hints.ReadOnlyHint != nil, waits: name == "wait_for_approval", run: run}
	if !t.reads {
		form.RawOutputSchema = output
	}
	t.forms[access.Queue], t.forms[access.Run] = form, form
	return t
}

func (s *Server) getApproval(ctx context.Context, c *call) (answer, error) {
	id, err := idArgument(c.arguments)
	if err != nil {
		return answer{}, err
	}
	a, err := s.Gate.Approval(ctx, c.grant, id)
	return s.told(ctx, c, a, err)
}

func (s *Server) withdraw(ctx context.Context, c *call) (answer, error) {
	id, err := idArgument(c.arguments)
	if err != nil {
		return answer{}, err
	}
	a, err := s.Gate.Withdraw(ctx, c.grant, id)
	return s.told(ctx, c, a, err)
}

// wait waits for a decision. It ends early, with the approval as it stands, when
// the server closes.
func (s *Server) wait(ctx context.Context, c *call) (answer, error) {
	var id string
	timeout := maxWait
	err := arguments(c.arguments, map[string]toolArgument{
		"id": idOf(&id),
		"timeout_seconds": {fmt.Sprintf("a whole number from 1 to %d", maxWait/time.Second), func(v json.RawMessage) bool {
			n, err := strconv.Atoi(string(v))
			timeout = time.Duration(n) * time.Second
			return err == nil && n >= 1 && timeout <= maxWait
		}},
	}, "id")
	if err != nil {
		return answer{}, err
	}
	a, err := s.waitFor(ctx, c, id, timeout)
	return s.told(ctx, c, a, err)
}

func (s *Server) waitFor(ctx context.Context, c *call, id string, timeout time.Duration) (approvals.Approval, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	a, err := s.Gate.Wait(ctx, c.grant, id)
	if err == nil { // whoever waits may have lost its rights meanwhile
		err = s.again(ctx, c)
	}
	if err != nil {
		return a, err
	}
	return s.Gate.Approval(context.WithoutCancel(ctx), c.grant, id)
}

// told answers a question about an approval, which succeeds however the approval
// stands.
func (s *Server) told(ctx context.Context, c *call, a approvals.Approval, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	if err := s.Gate.Told(context.WithoutCancel(ctx), c.grant, a); err != nil {
		return answer{}, err
	}
	t, err := s.approvalAnswer(a)
	t.outcome = access.OutcomeOK
	return t, err
}

// An asked approval is one line of list_my_approvals.
type askedApproval struct {
	ID        string    `json:"id"`
	Status    string    `json:"status"` // as get_approval tells it
	Executed  bool      `json:"executed"`
	Tool      string    `json:"tool"`
	Target    string    `json:"target_id,omitempty"`
	Title     string    `json:"title,omitempty"`
	Reason    string    `json:"decision_reason,omitempty"`
	URL       string    `json:"url"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

func (s *Server) listApprovals(ctx context.Context, c *call) (answer, error) {
	q := approvals.Query{Limit: 25}
	statuses := []approvals.Status{approvals.Pending, approvals.Approved, approvals.Rejected, approvals.Expired, approvals.Withdrawn}
	err := arguments(c.arguments, map[string]toolArgument{
		"status": {"pending, approved (which are executed, or failed), rejected, expired or withdrawn", func(v json.RawMessage) bool {
			for _, known := range statuses {
				if string(v) == strconv.Quote(string(known)) {
					q.Status = known
				}
			}
			return q.Status != "" || string(v) == "null"
		}},
		"limit": {"a whole number from 1 to 100", func(v json.RawMessage) bool {
			n, err := strconv.Atoi(string(v))
			q.Limit = n
			return err == nil && n >= 1 && n <= 100
		}},
		"cursor": {"the next_cursor of the page before", func(v json.RawMessage) bool {
			return json.Unmarshal(v, &q.Before) == nil && (q.Before == "" || typeid.ValidID("apr", q.Before))
		}},
	})
	if err != nil {
		return answer{}, err
	}
	page := catalog.Pagination{Limit: q.Limit}
	q.Limit++ // one more tells whether there are more
	list, err := s.Gate.Own(ctx, c.grant, q)
	if err != nil {
		return answer{}, err
	}
	if page.HasMore = len(list) > page.Limit; page.HasMore {
		list = list[:page.Limit]
		page.NextCursor = list[page.Limit-1].ID
	}
	lines := make([]askedApproval, len(list))
	for i, a := range list {
		ans := s.Gate.Answer(a)
		lines[i] = askedApproval{a.ID, ans.Status, ans.Executed, a.Action, a.TargetID, a.Title, ans.Reason, ans.Approval.URL, a.CreatedAt, a.ExpiresAt}
	}
	if err := s.Gate.Told(context.WithoutCancel(ctx), c.grant, list...); err != nil {
		return answer{}, err
	}
	return dataAnswer(struct {
		Data       []askedApproval    `json:"data"`
		Pagination catalog.Pagination `json:"pagination"`
	}{lines, page})
}

// A toolArgument is one that a tool of the gate's own takes: what is expected, and
// what takes it and reports whether it was that.
type toolArgument struct {
	expected string
	take     func(v json.RawMessage) bool
}

func idOf(id *string) toolArgument {
	return toolArgument{"the id of an approval, as in apr_…", func(v json.RawMessage) bool { return json.Unmarshal(v, id) == nil && *id != "" }}
}

func idArgument(raw json.RawMessage) (id string, err error) {
	return id, arguments(raw, map[string]toolArgument{"id": idOf(&id)}, "id")
}

// arguments reads the arguments of a tool of the gate's own. All that is wrong is
// told at once.
func arguments(raw json.RawMessage, known map[string]toolArgument, required ...string) error {
	var fields []problem.Field
	wrong := func(path, expected string, got json.RawMessage) {
		if len(fields) == maxFaults {
			return // thousands need no complete list
		}
		if len(path) > 100 {
			path = strings.ToValidUTF8(path[:100], "") + "…"
		}
		if len(got) > 60 {
			got = append(bytes.Clone(got[:57]), "..."...)
		}
		fields = append(fields, problem.Field{Path: path, Expected: expected, Got: string(bytes.ToValidUTF8(got, nil))})
	}
	sent := map[string]bool{}
	if len(raw) > 0 && raw[0] != '{' {
		wrong("arguments", "an object", raw)
	} else if len(raw) > 0 {
		err := members(raw, func(name string, value json.RawMessage) error {
			if a, ok := known[name]; !ok {
				wrong(name, "no such argument; there are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "), value)
			} else if sent[name] = true; !a.take(value) {
				wrong(name, a.expected, value)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(fields) > 0 {
		e := problem.Errorf(problem.Validation, "an argument is wrong: %s", fields[0].Path).WithFix("Send what is expected.")
		e.Fields = fields
		return e
	}
	for _, name := range required {
		if !sent[name] {
			wrong(name, known[name].expected, json.RawMessage("nothing"))
		}
	}
	if len(fields) > 0 {
		e := problem.Errorf(problem.MissingFields, "%s is missing", fields[0].Path).WithFix("Send %s.", fields[0].Expected)
		e.Fields = fields
		return e
	}
	return nil
}
