package mcp_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
)

// A client that can open a page for its user is told to, where the user may decide;
// it comes back with what this server has signed.
func TestUserIsLedToThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pending := approvals.Approval{ID: "apr_1", Status: approvals.Pending, Action: "create_contact", Decider: access.DeciderOwner}
		g := &gate{approvals: map[string]approvals.Approval{"apr_1": pending},
			do: func(context.Context, access.Grant, *catalog.Action, approvals.Incoming) (approvals.Outcome, error) {
				return approvals.Outcome{Approval: &pending}, nil
			}}
		s := newServer(t, g)
		const arguments = `{"first_name":"Ada"}`
		call := func(token, arguments, further string) envelope {
			t.Helper()
			p := modern(token, 1, "tools/call", `"name":"create_contact","arguments":`+arguments+further, `{"elicitation":{"url":{}}}`)
			return envelopeOf(t, p.do(s))
		}
		asked := result(t, call("owner", arguments, ""))
		state, _ := asked["requestState"].(string)
		text := fmt.Sprint(asked["inputRequests"])
		if asked["resultType"] != "input_required" || state == "" || !strings.Contains(text, "mode:url") || !strings.Contains(text, "approval=apr_1") || asked["content"] != nil {
			t.Fatalf("got %v, want to be led to the page", asked)
		}

		back := func(state, action string) string {
			return fmt.Sprintf(`,"requestState":%q,"inputResponses":{"approval":{"action":%q}}`, state, action)
		}
		begun := time.Now()
		got := result(t, call("owner", arguments, back(state, "accept")))
		if structured, _ := got["structuredContent"].(map[string]any); structured["status"] != "pending_approval" || got["resultType"] != "complete" || time.Since(begun) != 50*time.Second {
			t.Errorf("undecided: got %v after %v, want it pending after a while", got, time.Since(begun))
		}
		begun = time.Now()
		got = result(t, call("owner", arguments, back(state, "decline")))
		if structured, _ := got["structuredContent"].(map[string]any); structured["status"] != "pending_approval" || time.Since(begun) != 0 {
			t.Errorf("declined to go there: got %v after %v, want it pending at once", got, time.Since(begun))
		}
		g.approvals["apr_1"] = approvals.Approval{ID: "apr_1", Status: approvals.Rejected, Action: "create_contact", DecisionReason: "No."}
		got = result(t, call("owner", arguments, back(state, "accept")))
		if structured, _ := got["structuredContent"].(map[string]any); structured["status"] != "rejected" {
			t.Errorf("rejected: got %v, want the outcome", got)
		}
		if len(g.incoming) != 1 {
			t.Errorf("the gate got %d requests, want the first only", len(g.incoming))
		}

		search := func(tool, further string) envelope {
			t.Helper()
			p := modern("owner", 1, "tools/call", fmt.Sprintf(`"name":"call_tool","arguments":{"name":%q,"arguments":%s}`, tool, arguments)+further, `{"elicitation":{"url":{}}}`)
			p.path = "/mcp?mode=search"
			return envelopeOf(t, p.do(s))
		}
		found, _ := result(t, search("create_contact", ""))["requestState"].(string)
		if e := search("update_contact", back(found, "decline")); e.Error == nil || e.Error.Code != -32602 {
			t.Errorf("another tool, by call_tool: got %s, want invalid params", e.Result)
		}
		if got := result(t, search("create_contact", back(found, "decline"))); got["resultType"] != "complete" {
			t.Errorf("by call_tool: got %v, want how it stands", got)
		}

		head, mac, _ := strings.Cut(state, ".")
		for name, e := range map[string]envelope{
			"another's":       call("agent", arguments, back(state, "accept")),
			"other arguments": call("owner", `{"first_name":"Eve"}`, back(state, "accept")),
			"another one":     call("owner", arguments, back("apr_2."+mac, "accept")),
			"made up":         call("owner", arguments, back(head+".zzzz.AAAA", "accept")),
			"no text":         call("owner", arguments, `,"requestState":7,"inputResponses":{"approval":{"action":"accept"}}`),
			"no answer":       call("owner", arguments, fmt.Sprintf(`,"requestState":%q`, state)),
			"odd answer":      call("owner", arguments, fmt.Sprintf(`,"requestState":%q,"inputResponses":[1]`, state)),
		} {
			if e.Error == nil || e.Error.Code != -32602 {
				t.Errorf("%s: got %s, want invalid params", name, e.Result)
			}
		}
		time.Sleep(2 * time.Hour)
		if e := call("owner", arguments, back(state, "accept")); e.Error == nil || !strings.Contains(e.Error.Message, "over") {
			t.Errorf("two hours later: got %s, want it over", e.Result)
		}

		// Whoever cannot open a page, or may not decide there, gets the usual answer.
		for name, p := range map[string]post{
			"no page":  modernCall("owner", "create_contact", arguments, `{"elicitation":{"form":{}}}`),
			"too old":  old("owner", "tools/call", `"name":"create_contact","arguments":`+arguments),
			"not even": modernCall("owner", "create_contact", arguments, ""),
		} {
			if got := result(t, envelopeOf(t, p.do(s))); got["inputRequests"] != nil || got["content"] == nil {
				t.Errorf("%s: got %v, want the usual answer", name, got)
			}
		}
		pending.Decider = access.DeciderAdmin
		if got := result(t, call("owner", arguments, "")); got["inputRequests"] != nil {
			t.Errorf("an admin decides: got %v, want no question to the user", got)
		}
	})
}
