package mcp_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/problem"
)

var update = flag.Bool("update", false, "write the golden files anew")

// maxList is how long the list of all tools may be.
const maxList = 60_000

func TestToolsOfTheDefaultCatalogAreThoseOfTheGoldenFile(t *testing.T) {
	w := post{body: listBody}.do(newServer(t, &gate{}))
	if w.Code != http.StatusOK {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if n := w.Body.Len(); n > maxList {
		t.Errorf("the list for full access is %d bytes, want at most %d: it fills every client's context", n, maxList)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, bytes.TrimSpace(w.Body.Bytes()), "", "\t"); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	file := filepath.Join("testdata", "tools.golden.json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s is not what is listed (-want +got); run with -update if that is meant:\n%s", file, diff)
	}
}

func TestListShowsWhatTheCallerMayDoAndWhatWaits(t *testing.T) {
	s := newServer(t, &gate{})
	for _, tt := range []struct {
		token, query string
		listed       string // tools that are, + those that wait for approval
		hidden       string
	}{
		{"full", "", "list_contacts create_contact delete_contact list_deals search get_approval wait_for_approval withdraw_approval", ""},
		{"agent", "", "list_contacts +create_contact +update_contact get_deal search get_approval", "delete_contact create_deal delete_deal"},
		{"reader", "", "list_contacts get_contact search get_approval", "create_contact list_deals"},
		{"nobody", "", "get_approval wait_for_approval withdraw_approval", "list_contacts search"},
		{"full", "?toolsets=contacts", "list_contacts delete_contact get_approval", "list_deals search"},
		{"full", "?toolsets=deals,search", "list_deals search", "list_contacts"},
		{"full", "?read_only=true", "list_contacts list_deals search get_approval wait_for_approval", "create_contact delete_deal withdraw_approval"},
		{"agent", "?toolsets=contacts&read_only=1", "get_contact", "create_contact get_deal"},
	} {
		tools := listTools(t, s, tt.token, tt.query)
		for name := range strings.FieldsSeq(tt.listed) {
			name, waits := strings.CutPrefix(name, "+")
			tool, ok := tools[name]
			if !ok {
				t.Errorf("%s%s: %s is not listed", tt.token, tt.query, name)
			}
			if got := strings.Contains(tool.Description, "Waits for approval"); got != waits {
				t.Errorf("%s%s: %s says that it waits: %t, want %t", tt.token, tt.query, name, got, waits)
			}
			if scope := tool.Meta["scope"]; strings.HasSuffix(scope, "-approval") != waits {
				t.Errorf("%s%s: %s has the scope %q, want waits %t", tt.token, tt.query, name, scope, waits)
			}
		}
		for name := range strings.FieldsSeq(tt.hidden) {
			if _, ok := tools[name]; ok {
				t.Errorf("%s%s: %s is listed", tt.token, tt.query, name)
			}
		}
	}
	if got := listTools(t, s, "agent", "")["create_contact"].Meta["scope"]; got != "contacts:write-approval" {
		t.Errorf("scope of create_contact: got %q, want contacts:write-approval", got)
	}
}

func TestEveryToolIsOneThatClientsTake(t *testing.T) {
	cat := loadCatalog(t)
	for name, tool := range listTools(t, newServer(t, &gate{}), "full", "") {
		if title, _ := tool.Annotations["title"].(string); title == "" || len(tool.Description) < 12 {
			t.Errorf("%s: title %q, description %q", name, title, tool.Description)
		}
		hint := func(name string, without bool) bool {
			if v, ok := tool.Annotations[name].(bool); ok {
				return v
			}
			return without
		}
		reads, destroys, outside := hint("readOnlyHint", false), hint("destructiveHint", true), hint("openWorldHint", true)
		schemas := map[string]map[string]any{"input": tool.InputSchema}
		if !reads {
			schemas["output"] = tool.OutputSchema
		}
		for which, schema := range schemas {
			if schema["type"] != "object" || schema["oneOf"] != nil || schema["anyOf"] != nil || schema["allOf"] != nil {
				t.Errorf("%s: the %s schema is not a plain object: %v", name, which, schema)
			}
		}
		if a, ok := cat.Find(name); ok && (reads != (a.Verb == access.Read) || !reads && destroys != a.Destructive || outside != a.OpenWorld || hint("idempotentHint", false) != (a.Idempotent && !reads)) {
			t.Errorf("%s: the hints %v are not what it does", name, tool.Annotations)
		}
		if tool.Annotations["readOnlyHint"] == true && tool.Annotations["destructiveHint"] == true {
			t.Errorf("%s: reads and destroys", name)
		}
	}
}

func TestArgumentsReachTheGateByteForByte(t *testing.T) {
	for _, args := range []string{
		`{ "first_name" : "Ada\u00e9",	"metadata":{"n":12345678901234567890, "a":1.0,"A":2} }`,
		`{}`,
		`null`,
		`"text"`,
	} {
		g := &gate{}
		post{body: `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":` + args + `,"name":"create_contact"}}`}.do(newServer(t, g))
		if len(g.incoming) != 1 || string(g.incoming[0].Request.Body) != args || string(g.incoming[0].Input) != args {
			t.Errorf("%s: got %+v", args, g.incoming)
		}
	}
	g := &gate{}
	post{body: `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"list_contacts"}}`}.do(newServer(t, g))
	if in := g.incoming[0]; in.Request.Body != nil || string(in.Input) != `{}` || in.Request.Door != "mcp" || in.Request.Tool != "list_contacts" {
		t.Errorf("no arguments: got %+v, want the input {} and no body", in)
	}
}

func TestPendingIsNeitherSuccessNorFailure(t *testing.T) {
	r := callTool(t, newServer(t, &gate{}), "agent", "create_contact", `{"first_name":"Ada"}`)
	var got map[string]any
	json.Unmarshal(r.StructuredContent, &got)
	message, _ := got["message"].(string)
	want := map[string]any{"status": "pending_approval", "executed": false, "message": message,
		"approval": map[string]any{"id": "apr_1", "url": "https://crm.example.com/settings/api?tab=approvals&approval=apr_1", "status": "pending", "expires_at": "2033-05-18T03:33:20Z"}}
	if diff := cmp.Diff(want, got); diff != "" || r.IsError {
		t.Errorf("isError %t (-want +got):\n%s", r.IsError, diff)
	}
	for _, say := range []string{"NOT executed", "person must approve", "not retry", "not report it as done"} {
		if !strings.Contains(message, say) || !strings.Contains(r.Content[0].Text, say) {
			t.Errorf("%q is not said: %s; %s", say, message, r.Content[0].Text)
		}
	}
}

func TestEachEndOfAnApprovalIsToldApart(t *testing.T) {
	input, edited, result := json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`), json.RawMessage(`{"id":"con_1"}`)
	failure := problem.Errorf(problem.Conflict, "it has changed").WithFix("Look again.")
	for _, tt := range []struct {
		approval approvals.Approval
		status   string
		says     []string // in structured content and text
	}{
		{approvals.Approval{Status: approvals.Pending}, "pending_approval", []string{"NOT executed"}},
		{approvals.Approval{Status: approvals.Approved, Execution: approvals.Done, Result: result}, "executed", []string{"Executed", `"con_1"`}},
		{approvals.Approval{Status: approvals.Approved, Execution: approvals.Done, Result: result, Edited: edited}, "executed_with_edits", []string{`{"a":1}`, `{"a":2}`, `"con_1"`}},
		{approvals.Approval{Status: approvals.Approved, Execution: approvals.Failed, Error: failure}, "failed", []string{"NOT executed", "it has changed", "Look again."}},
		{approvals.Approval{Status: approvals.Approved, Execution: approvals.Dismissed, Error: failure}, "failed", []string{"final", "it has changed"}},
		{approvals.Approval{Status: approvals.Approved, Execution: approvals.NotExecuted}, "approved", []string{"NOT executed"}},
		{approvals.Approval{Status: approvals.Rejected, DecisionReason: "wrong person"}, "rejected", []string{"NOT executed", "wrong person", "final", "do not retry"}},
		{approvals.Approval{Status: approvals.Expired}, "expired", []string{"NOT executed", "nobody decided"}},
		{approvals.Approval{Status: approvals.Withdrawn}, "withdrawn", []string{"NOT executed"}},
	} {
		tt.approval.ID, tt.approval.Input = "apr_1", input
		s := newServer(t, &gate{approvals: map[string]approvals.Approval{"apr_1": tt.approval}})
		r := callTool(t, s, "agent", "get_approval", `{"id":"apr_1"}`)
		var got struct {
			Status   string
			Executed bool
		}
		json.Unmarshal(r.StructuredContent, &got)
		if got.Status != tt.status || got.Executed != strings.HasPrefix(tt.status, "executed") || r.IsError {
			t.Errorf("%s/%s: got %s, isError %t, want status %s", tt.approval.Status, tt.approval.Execution, r.StructuredContent, r.IsError, tt.status)
		}
		for _, say := range tt.says {
			if !strings.Contains(string(r.StructuredContent), say) || !strings.Contains(r.Content[0].Text, say) {
				t.Errorf("%s/%s: %q is not said in %s or %s", tt.approval.Status, tt.approval.Execution, say, r.StructuredContent, r.Content[0].Text)
			}
		}
	}
}

func TestManyUnknownArgumentsAreAnsweredShortly(t *testing.T) {
	s := newServer(t, &gate{})
	var args strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&args, `"x%d":1,`, i)
	}
	long := `"` + strings.Repeat("y", 100_000) + `":1`
	for _, name := range []string{"get_approval", "wait_for_approval", "withdraw_approval"} {
		r := callTool(t, s, "agent", name, `{`+args.String()+long+`}`)
		if n := len(r.StructuredContent); !r.IsError || n > 20_000 {
			t.Errorf("%s: got %d bytes about 5000 arguments, want an error of at most 20000", name, n)
		}
		if r = callTool(t, s, "agent", name, `{`+long+`}`); len(r.StructuredContent) > 1000 {
			t.Errorf("%s: got %d bytes about a long name, want at most 1000", name, len(r.StructuredContent))
		}
	}
}

func TestErrorOfAnActionIsAResultThatSaysHowToMendIt(t *testing.T) {
	s := newServer(t, &gate{})
	for _, tt := range []struct{ tool, args, code, says string }{
		{"get_approval", `{"id":"apr_none"}`, "NOT_FOUND", "Fix: Check the id."},
		{"get_approval", `{}`, "MISSING_FIELDS", "- id: the id of an approval"},
		{"get_approval", `{"id":"apr_1","timeout_seconds":3}`, "VALIDATION_ERROR", "- timeout_seconds: no such argument"},
		{"wait_for_approval", `{"id":"apr_1","timeout_seconds":51}`, "VALIDATION_ERROR", "from 1 to 50"},
		{"wait_for_approval", `{"id":"apr_1","timeout_seconds":1.5}`, "VALIDATION_ERROR", "got 1.5"},
		{"wait_for_approval", `{"id":7}`, "VALIDATION_ERROR", "- id: the id of an approval"},
		{"withdraw_approval", `[]`, "VALIDATION_ERROR", "an object"},
	} {
		r := callTool(t, s, "agent", tt.tool, tt.args)
		var got struct {
			Error struct{ Code, Message, Fix string }
		}
		json.Unmarshal(r.StructuredContent, &got)
		if !r.IsError || got.Error.Code != tt.code || got.Error.Fix == "" || !strings.HasPrefix(r.Content[0].Text, tt.code) || !strings.Contains(r.Content[0].Text, tt.says) {
			t.Errorf("%s(%s): got %+v, want %s and %q", tt.tool, tt.args, r, tt.code, tt.says)
		}
	}
}

func TestWaitAnswersPendingWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, &gate{approvals: map[string]approvals.Approval{"apr_1": {ID: "apr_1", Status: approvals.Pending}}})
		for args, want := range map[string]time.Duration{`{"id":"apr_1"}`: 50 * time.Second, `{"id":"apr_1","timeout_seconds":3}`: 3 * time.Second} {
			begun := time.Now()
			r := callTool(t, s, "agent", "wait_for_approval", args)
			if d := time.Since(begun); d != want || !strings.Contains(string(r.StructuredContent), "pending_approval") {
				t.Errorf("%s: got %+v after %v, want pending after %v", args, r, d, want)
			}
		}
	})
}

func TestFullAccessWaitsWhereTheWorkspaceAlwaysAsks(t *testing.T) {
	g := grants["full"]
	g.Workspace.Settings.AlwaysAsk = []access.Mark{{Resource: "contacts", Verb: "delete"}}
	grants["marked"] = g
	defer delete(grants, "marked")
	tools := listTools(t, newServer(t, &gate{}), "marked", "")
	for name, waits := range map[string]bool{"delete_contact": true, "create_contact": false, "delete_deal": false} {
		if got := strings.Contains(tools[name].Description, "Waits for approval"); got != waits {
			t.Errorf("%s of a full-access key where the workspace always asks: waits %t, want %t", name, got, waits)
		}
	}
}
