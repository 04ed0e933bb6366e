package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/problem"
)

// maxFaults is how many wrong arguments are told.
const maxFaults = 50

// maxWait is how long wait_for_approval waits. Clients give up after a minute.
const maxWait = 50 * time.Second

// An approvalTool is a tool about approvals.
type approvalTool struct {
	form  mcpgo.Tool
	reads bool
	run   func(ctx context.Context, c *call) (answer, error)
}

// approvalTools returns the tools with which an agent follows what it asked
// for.
func (s *Server) approvalTools() []approvalTool {
	const (
		id      = `"id":{"type":"string","description":"The approval's id, as in apr_…"}`
		timeout = `"timeout_seconds":{"type":"integer","minimum":1,"maximum":50,"default":50,"description":"How long to wait at most"}`
		output  = `{"type":"object","properties":{"status":{"type":"string"},"executed":{"type":"boolean"},"message":{"type":"string"}}}`
	)
	form := func(name, title, description, properties string, readOnly, destructive, idempotent bool) mcpgo.Tool {
		t := mcpgo.NewToolWithRawSchema(name, description, json.RawMessage(
			`{"type":"object","properties":{`+properties+`},"required":["id"],"additionalProperties":false}`))
		t.RawOutputSchema = json.RawMessage(output)
		t.Annotations = annotations(title, readOnly, destructive, idempotent, false)
		return t
	}
	return []approvalTool{
		{form("get_approval", "Get approval",
			"Tells how an approval stands: pending, executed (with the result), executed with edits, rejected (with the reason), expired, withdrawn or failed.",
			id, true, false, true), true,
			s.approval(s.Gate.Approval)},
		{form("wait_for_approval", "Wait for approval",
			"Waits until a person has decided an approval and it was executed, at most 50 seconds, and tells how it stands then. Call it again while it is still pending and worth waiting for.",
			id+","+timeout, true, false, true), true,
			s.wait},
		{form("withdraw_approval", "Withdraw approval",
			"Takes back a request of yours that still waits for approval, when it is no longer wanted. It cannot be undone.",
			id, false, true, true), false,
			s.approval(s.Gate.Withdraw)},
	}
}

// approval returns the run of a tool that takes only an id.
func (s *Server) approval(do func(context.Context, access.Grant, string) (approvals.Approval, error)) func(context.Context, *call) (answer, error) {
	return func(ctx context.Context, c *call) (answer, error) {
		id, _, err := waitArguments(c.arguments, false)
		if err != nil {
			return answer{}, err
		}
		a, err := do(ctx, c.grant, id)
		if err != nil {
			return answer{}, err
		}
		return s.told(a)
	}
}

// wait waits for a decision. It ends early, with the approval as it stands,
// when the server closes.
func (s *Server) wait(ctx context.Context, c *call) (answer, error) {
	id, timeout, err := waitArguments(c.arguments, true)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	a, err := s.Gate.Wait(ctx, c.grant, id)
	if err != nil {
		return answer{}, err
	}
	return s.told(a)
}

// told is approvalAnswer for a question about an approval, which succeeds
// however the approval stands.
func (s *Server) told(a approvals.Approval) (answer, error) {
	t, err := s.approvalAnswer(a)
	t.outcome = access.OutcomeOK
	return t, err
}

// waitArguments reads the arguments of a tool about approvals.
func waitArguments(raw json.RawMessage, timed bool) (id string, timeout time.Duration, err error) {
	timeout = maxWait
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
	if len(raw) > 0 && raw[0] != '{' {
		wrong("arguments", "an object", raw)
	} else if len(raw) > 0 {
		err = members(raw, func(name string, value json.RawMessage) error {
			switch {
			case name == "id":
				if json.Unmarshal(value, &id) != nil || id == "" {
					wrong(name, "the id of an approval, as in apr_…", value)
					id = "?"
				}
			case name == "timeout_seconds" && timed:
				n, err := strconv.Atoi(string(value))
				if err != nil || n < 1 || n > int(maxWait/time.Second) {
					wrong(name, fmt.Sprintf("a whole number from 1 to %d", maxWait/time.Second), value)
				}
				timeout = time.Duration(n) * time.Second
			default:
				wrong(name, "no such argument", value)
			}
			return nil
		})
	}
	switch {
	case err != nil:
		return "", 0, err
	case len(fields) > 0:
		e := problem.Errorf(problem.Validation, "an argument is wrong").WithFix("Send what is expected.")
		e.Fields = fields
		return "", 0, e
	case id == "":
		e := problem.Errorf(problem.MissingFields, "id is missing").WithFix("Send the approval's id, which the pending answer gave.")
		e.Fields = []problem.Field{{Path: "id", Expected: "the id of an approval, as in apr_…", Got: "nothing"}}
		return "", 0, e
	}
	return id, timeout, nil
}
