package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"trustpager/storage/storagetest"
)

// A told is a webhook as its receiver got it.
type told struct {
	header http.Header
	body   []byte
}

// receiver listens for webhooks, outside of the server's process.
func receiver(t *testing.T) (url string, got <-chan told) {
	ch := make(chan told, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read webhook: %v", err)
		}
		ch <- told{r.Header, body}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, ch
}

// next returns the next webhook.
func next(t *testing.T, got <-chan told) told {
	t.Helper()
	select {
	case m := <-got:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no webhook came")
		return told{}
	}
}

type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// connect opens an MCP session with the official client.
func connect(ctx context.Context, p *process, key string) (*sdk.ClientSession, error) {
	return sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx,
		&sdk.StreamableClientTransport{Endpoint: p.info.MCPURL, HTTPClient: &http.Client{Transport: bearer(key)}, MaxRetries: -1}, nil)
}

// The whole story that a new user goes through, with the official MCP client
// for the agent, and a receiver that verifies with the independent library.
func TestDemoStoryOverMCP(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		p := demo(t, url)
		agent, full := p.info.Keys.Agent, p.info.Keys.FullAccess
		hook, got := receiver(t)
		me := p.must(200, "GET", "/v1/me", agent, "")
		keyID := text(me, "data", "key", "id")
		set := p.must(200, "PATCH", "/v1/keys/"+keyID, full, `{"webhook_url":"`+hook+`"}`)
		verifier, err := standardwebhooks.NewWebhook(text(set, "data", "webhook_secret"))
		if err != nil {
			t.Fatal(err)
		}

		session, err := connect(t.Context(), p, agent)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		tools, err := session.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(tools.Tools, func(tool *sdk.Tool) bool { return tool.Name == "create_contact" }) {
			t.Fatalf("create_contact is not among %d tools", len(tools.Tools))
		}
		call := func(name, args string) map[string]any {
			t.Helper()
			r, err := session.CallTool(t.Context(), &sdk.CallToolParams{Name: name, Arguments: json.RawMessage(args)})
			if err != nil {
				t.Fatalf("%s %s: %v", name, args, err)
			}
			m, _ := r.StructuredContent.(map[string]any)
			return m
		}
		if data, _ := call("list_contacts", `{"limit":5}`)["data"].([]any); len(data) != 5 {
			t.Errorf("list_contacts: got %d, want 5", len(data))
		}

		const ada = `{"first_name":"Ada","email":"ada@example.com"}`
		first := call("create_contact", ada)
		id := text(first, "approval", "id")
		if first["status"] != "pending_approval" || first["executed"] != false || id == "" {
			t.Fatalf("create_contact: got %v, want it to wait", first)
		}
		if again := call("create_contact", ada); text(again, "approval", "id") != id {
			t.Errorf("the same call again: got approval %q, want %q", text(again, "approval", "id"), id)
		}
		if status, v, err := p.send("POST", "/v1/approvals/"+id+"/approve", agent, "{}"); status != 403 {
			t.Errorf("the agent's own attempt to approve: got %d %v %v, want 403", status, v, err)
		}
		p.must(200, "POST", "/v1/approvals/"+id+"/approve", full, "{}")
		if n := len(p.list("/v1/contacts?email=ada@example.com", full)); n != 1 {
			t.Errorf("after approval: got %d contacts, want 1", n)
		}
		if done := call("get_approval", `{"id":"`+id+`"}`); done["status"] != "executed" || text(done, "data", "first_name") != "Ada" {
			t.Errorf("get_approval: got %v, want executed with the contact", done)
		}

		const eve = `{"first_name":"Eve",  "email":"eve@example.com", "notes":"caf\u00e9 \ud83d\ude00"}`
		second := text(call("create_contact", eve), "approval", "id")
		waited := make(chan map[string]any, 1)
		go func() {
			r, err := session.CallTool(t.Context(), &sdk.CallToolParams{Name: "wait_for_approval", Arguments: json.RawMessage(`{"id":"` + second + `"}`)})
			if err != nil {
				waited <- map[string]any{"error": err.Error()}
				return
			}
			m, _ := r.StructuredContent.(map[string]any)
			waited <- m
		}()
		p.must(200, "POST", "/v1/approvals/"+second+"/reject", full, `{"reason":"We have her already."}`)
		if w := <-waited; w["status"] != "rejected" || w["decision_reason"] != "We have her already." {
			t.Errorf("wait_for_approval: got %v, want rejected with the reason", w)
		}
		m := next(t, got)
		if err := verifier.Verify(m.body, m.header); err != nil {
			t.Errorf("the independent library refuses the webhook: %v", err)
		}
		var event map[string]any
		if err := json.Unmarshal(m.body, &event); err != nil {
			t.Fatal(err)
		}
		if event["type"] != "approval.rejected" || text(event, "data", "reason") != "We have her already." || text(event, "data", "approval", "id") != second {
			t.Errorf("webhook: got %s, want the rejection of %s", m.body, second)
		}
		// The client sends what it was given, white space apart.
		var sent bytes.Buffer
		if err := json.Compact(&sent, []byte(eve)); err != nil {
			t.Fatal(err)
		}
		original, err := base64.StdEncoding.DecodeString(text(event, "data", "request", "body_base64"))
		if err != nil || string(original) != sent.String() {
			t.Errorf("original request: got %q (%v), want %q", original, err, sent.String())
		}

		p.must(200, "POST", "/v1/keys/"+keyID+"/revoke", full, "{}")
		if _, err := session.ListTools(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "nauthorized") {
			t.Errorf("after the key was revoked: got %v, want Unauthorized", err)
		}
		p.must(200, "POST", "/v1/keys/"+keyID+"/activate", full, "{}")
		session, err = connect(t.Context(), p, agent)
		if err != nil {
			t.Fatalf("after the key was activated: %v", err)
		}
		defer session.Close()
		p.must(200, "PATCH", "/v1/keys/"+keyID, full, `{"scopes":["contacts:read"]}`)
		tools, err = session.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(tools.Tools, func(tool *sdk.Tool) bool { return tool.Name == "create_contact" }) {
			t.Error("create_contact is still listed after its scope was taken away")
		}
		if code := p.stop(); code != 0 {
			t.Errorf("exit status: got %d, want 0\n%s", code, p.stderr.String())
		}
	})
}

// The same over REST, where the bytes of the request are the caller's own.
func TestDemoStoryOverREST(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		p := demo(t, url)
		agent, full := p.info.Keys.Agent, p.info.Keys.FullAccess
		hook, got := receiver(t)
		keyID := text(p.must(200, "GET", "/v1/me", agent, ""), "data", "key", "id")
		set := p.must(200, "PATCH", "/v1/keys/"+keyID, full, `{"webhook_url":"`+hook+`"}`)
		verifier, err := standardwebhooks.NewWebhook(text(set, "data", "webhook_secret"))
		if err != nil {
			t.Fatal(err)
		}
		const odd = "{ \"first_name\" :\t\"Eve\",\r\n \"notes\":\"caf\\u00e9 é <b>\", \"reason\":\"She asked.\" }\n"
		id := text(p.must(202, "POST", "/v1/contacts", agent, odd), "approval", "id")
		p.must(200, "POST", "/v1/approvals/"+id+"/reject", full, `{"reason":"Not now."}`)
		m := next(t, got)
		if err := verifier.Verify(m.body, m.header); err != nil {
			t.Errorf("the independent library refuses the webhook: %v", err)
		}
		var event map[string]any
		if err := json.Unmarshal(m.body, &event); err != nil {
			t.Fatal(err)
		}
		original, err := base64.StdEncoding.DecodeString(text(event, "data", "request", "body_base64"))
		if err != nil || string(original) != odd {
			t.Errorf("original request: got %q (%v), want %q", original, err, odd)
		}
		before := len(p.list("/v1/contacts", full))
		id = text(p.must(202, "DELETE", "/v1/contacts/"+text(p.list("/v1/contacts?last_name=Malhotra", agent)[0], "id"), agent, ""), "approval", "id")
		p.must(200, "POST", "/v1/approvals/"+id+"/approve", full, "")
		if after := len(p.list("/v1/contacts", full)); after != before-1 {
			t.Errorf("after an approved deletion: got %d contacts, want %d", after, before-1)
		}
	})
}

func TestDemoOnExistingDatabaseGivesNewKeys(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		p := demo(t, url)
		old := p.info
		p.stop()
		q := demo(t, url)
		if q.info.Workspace != old.Workspace || q.info.Keys == old.Keys || q.info.Admin.Password == old.Admin.Password {
			t.Errorf("second start: got %+v, want the workspace of %+v with new secrets", q.info, old)
		}
		q.must(401, "GET", "/v1/me", old.Keys.Agent, "")
		q.must(200, "GET", "/v1/me", q.info.Keys.Agent, "")
		if n := len(q.list("/v1/approvals?status=pending", q.info.Keys.FullAccess)); n != 6 {
			t.Errorf("pending approvals: got %d, want the 6 of the first start", n)
		}
	})
}
