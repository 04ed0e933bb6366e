package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
)

// An answer is what a tool says.
type answer struct {
	structured json.RawMessage // an object
	text       string          // the same for who reads only text; "" means structured as it is
	trailer    string          // further text: how earlier requests stand
	failed     bool
	outcome    access.Outcome // for the counters

	once    bool            // it holds what is shown now and kept nowhere
	about   string          // the approval that it tells of, "" if none
	task    *task           // the same as a task, nil if nothing is waited for
	ask     json.RawMessage // the result that asks the user instead, nil if there is nothing to ask
	encoded json.RawMessage // the whole result, such as it was stored, instead of structured, text and trailer
}

func (a answer) result() *mcpgo.CallToolResult {
	if a.encoded != nil {
		r := &mcpgo.CallToolResult{}
		_ = json.Unmarshal(a.encoded, r) // cannot fail: it is a result
		return r
	}
	if a.text == "" {
		a.text = string(a.structured)
	}
	r := &mcpgo.CallToolResult{
		Content:              []mcpgo.Content{mcpgo.TextContent{Type: mcpgo.ContentTypeText, Text: a.text}},
		RawStructuredContent: a.structured,
		IsError:              a.failed,
	}
	if a.trailer != "" {
		r.Content = append(r.Content, mcpgo.TextContent{Type: mcpgo.ContentTypeText, Text: a.trailer})
	}
	return r
}

// appendResult appends the result of the call with further members, if any are
// given.
func (a *answer) appendResult(b []byte, further string) []byte {
	b = append(b, '{')
	if further != "" {
		b = append(append(b, further...), ',')
	}
	if a.encoded != nil {
		return append(b, a.encoded[1:]...)
	}
	text := a.text
	if text == "" {
		text = string(a.structured)
	}
	b = append(b, `"content":[{"type":"text","text":`...)
	b = append(appendString(b, text), '}')
	if a.trailer != "" {
		b = append(appendString(append(b, `,{"type":"text","text":`...), a.trailer), '}')
	}
	b = append(b, ']')
	if a.failed {
		b = append(b, `,"isError":true`...)
	}
	if a.structured != nil {
		b = append(append(b, `,"structuredContent":`...), a.structured...)
	}
	return append(b, '}')
}

// errorAnswer returns the error of an action as an answer, so that the model
// reads how to mend it.
func errorAnswer(ctx context.Context, err error) answer {
	e := problem.Report(ctx, err)
	structured, _ := json.Marshal(map[string]any{"error": e}) // cannot fail: e holds only strings
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Kind, e.Message)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "\n- %s: %s (got %s)", f.Path, f.Expected, f.Got)
	}
	if e.Fix != "" {
		b.WriteString("\nFix: " + e.Fix)
	}
	if e.Hint != "" {
		b.WriteString("\nHint: " + e.Hint)
	}
	return answer{structured: structured, text: b.String(), failed: true, outcome: outcomeOf(err)}
}

func panicked(what string, p any) error {
	return fmt.Errorf("panic in %s: %v\n%s", what, p, debug.Stack())
}

// outsideWords say what it means that an action that ran has not, or not yet,
// come to pass outside.
var outsideWords = map[string]string{
	catalog.Queued:  "NOT done yet: it is on its way outside, where nobody has taken it so far. Do not do it again; read it by its id to see how it ends.",
	catalog.Written: "NOT sent: nothing is connected that it could go out by. Tell the user; an admin connects it.",
	catalog.Failed:  "NOT done: it failed with the error given.",
	catalog.Unknown: "OUTCOME UNKNOWN: it may have been done. Do not do it again, and do not report it as done.",
	catalog.Bounced: "It was handed over, and came back.",
}

// resultAnswer says what an action that ran has answered.
func resultAnswer(t *tool, r catalog.Result) answer {
	shown := r.Shown()
	once := len(shown) > len(r.Data)
	r.Data = shown
	b := make([]byte, 0, len(r.Data)+96)
	failed := false
	switch {
	case t.reads:
		b = append(b, `{"data":`...)
	case t.action.OpenWorld && outsideWords[catalog.Outside(r.Data)] != "":
		status := catalog.Outside(r.Data)
		failed = status == catalog.Failed || status == catalog.Unknown
		told := status
		if status == catalog.Queued {
			told = "sending"
		}
		b = append(b, `{"status":"`+told+`","executed":false,"message":"`+outsideWords[status]+`","data":`...)
	default:
		b = append(b, `{"status":"executed","executed":true,"data":`...)
	}
	if len(r.Data) == 0 {
		r.Data = json.RawMessage("null")
	}
	b = append(b, r.Data...)
	if r.Pagination != nil {
		p, _ := json.Marshal(r.Pagination) // cannot fail
		b = append(append(b, `,"pagination":`...), p...)
	}
	return answer{structured: append(b, '}'), failed: failed, outcome: access.OutcomeOK, once: once}
}

// tried says what would become of an action.
func tried(d *approvals.DryRun) (answer, error) {
	b, err := plain(d)
	return answer{structured: b, outcome: access.OutcomeOK}, err
}

// plain returns v as JSON that models copy as it is written.
func plain(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// approvalAnswer says how the approval stands.
func (s *Server) approvalAnswer(a approvals.Approval) (answer, error) {
	ans := s.Gate.Answer(a)
	outcome := access.OutcomeOK
	if a.Status == approvals.Pending {
		outcome = access.OutcomeQueued
	}
	b, err := plain(ans)
	return answer{structured: b, text: ans.Text(), outcome: outcome, about: a.ID}, err
}
