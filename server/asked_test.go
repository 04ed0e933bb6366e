package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// callModern calls a tool as a client of 2026-07-28 that can open a page for its
// user.
func callModern(s *servertest.Server, token, tool, arguments, further string) servertest.Response {
	return s.Do("POST", "/mcp", token, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s%s,"_meta":{`+
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},`+
		`"io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}}}}}`, tool, arguments, further),
		"Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", tool)
}

// The app of a user who wants to be asked leads them to the card, and waits there
// for what they decide.
func TestAppLeadsItsUserToTheCard(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		addPerson(t, s, "priya@example.com", "Priya Nair")
		a := newApp(t, s, "Mailbot")
		member := browsertest.New(t)
		logIn(member, s, "priya@example.com", "/connections")
		token, _ := a.connect(t, s, member) // the default: ask me before every change

		const arguments = `{"first_name":"Ada","email":"ada@example.com"}`
		asked := callModern(s, token, "create_contact", arguments, "").Want(t, 200)
		page, state := asked.Text("result.inputRequests.approval.params.url"), asked.Text("result.requestState")
		if asked.Text("result.resultType") != "input_required" || !strings.HasPrefix(page, s.URL) || state == "" {
			t.Fatalf("got %s, want to be led to the card", asked.Body)
		}
		back := fmt.Sprintf(`,"requestState":%q,"inputResponses":{"approval":{"action":"accept"}}`, state)
		answer := make(chan servertest.Response, 1)
		member.Do(browsertest.Open(page), browsertest.See("#card"))
		go func() { answer <- callModern(s, token, "create_contact", arguments, back) }()
		member.Do(chromedp.KeyEvent("a"), browsertest.See(".notice.good"))
		got := (<-answer).Want(t, 200)
		if got.Text("result.structuredContent.status") != "executed" || got.Text("result.resultType") != "complete" {
			t.Errorf("approved: got %s, want it executed", got.Body)
		}
		if n := strings.Count(string(s.Do("GET", "/v1/contacts?email=ada@example.com", s.Full, "").Want(t, 200).Body), `"id":"con_`); n != 1 {
			t.Errorf("got %d contacts, want one", n)
		}
		if got := callModern(s, token, "create_contact", `{"first_name":"Eve"}`, back).Want(t, 400); !strings.Contains(got.Text("error.message"), "requestState") {
			t.Errorf("the state for other arguments: got %s, want it refused", got.Body)
		}
		member.Behaved(s.URL+"/", strings.TrimSuffix(a.redirect, "callback"))
	})
}
