package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"trustpager/approvals"
)

// A bearer adds the token to each request.
type bearer struct {
	token string
	seen  func(*http.Request, *http.Response)
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	res, err := http.DefaultTransport.RoundTrip(r)
	if b.seen != nil && err == nil {
		b.seen(r, res)
	}
	return res, err
}

func connect(t *testing.T, url, version string, b bearer) *sdk.ClientSession {
	t.Helper()
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{
		Endpoint: url + "/mcp", HTTPClient: &http.Client{Transport: b}, MaxRetries: -1}, &sdk.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

func TestOfficialClientActsQueuesAndFollows(t *testing.T) {
	g := &gate{approvals: map[string]approvals.Approval{"apr_1": {ID: "apr_1", Status: approvals.Rejected, DecisionReason: "not now"}}}
	srv := httptest.NewServer(newServer(t, g))
	defer srv.Close()
	for _, version := range []string{"2025-06-18", "2025-11-25", "2026-07-28"} {
		t.Run(version, func(t *testing.T) { actAndFollow(t, connect(t, srv.URL, version, bearer{token: "agent"}), version) })
	}
}

func actAndFollow(t *testing.T, session *sdk.ClientSession, version string) {
	if got := session.InitializeResult(); got == nil || got.ProtocolVersion != version || !strings.Contains(got.Instructions, "pending_approval") {
		t.Errorf("instructions: got %+v, want version %s, and them to explain approvals", got, version)
	}
	tools, err := session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(tools.Tools, func(tool *sdk.Tool) bool { return tool.Name == "create_contact" }) {
		t.Errorf("create_contact is not among %d tools", len(tools.Tools))
	}
	call := func(name string, args map[string]any) (*sdk.CallToolResult, map[string]any) {
		t.Helper()
		r, err := session.CallTool(t.Context(), &sdk.CallToolParams{Name: name, Arguments: args})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		structured, _ := r.StructuredContent.(map[string]any)
		return r, structured
	}
	if _, got := call("list_contacts", nil); got["data"] == nil {
		t.Errorf("list_contacts: got %v, want data", got)
	}
	if _, got := call("create_contact", map[string]any{"first_name": "Ada"}); got["status"] != "pending_approval" || got["executed"] != false {
		t.Errorf("create_contact: got %v, want it to wait", got)
	}
	if _, got := call("wait_for_approval", map[string]any{"id": "apr_1"}); got["status"] != "rejected" || got["decision_reason"] != "not now" {
		t.Errorf("wait_for_approval: got %v, want rejected with the reason", got)
	}
	if r, _ := call("get_approval", map[string]any{"id": "apr_2"}); !r.IsError {
		t.Errorf("get_approval of another's: got %+v, want an error", r)
	}
	if _, err := session.CallTool(t.Context(), &sdk.CallToolParams{Name: "delete_contact"}); err == nil || !strings.Contains(err.Error(), "not found. tools/list has") {
		t.Errorf("hidden tool: got %v, want not found", err)
	}
}

func TestServerNeedsNoSession(t *testing.T) {
	var sessions []string
	srv := httptest.NewServer(newServer(t, &gate{}))
	defer srv.Close()
	session := connect(t, srv.URL, "", bearer{token: "full", seen: func(_ *http.Request, res *http.Response) {
		sessions = append(sessions, res.Header.Values("Mcp-Session-Id")...)
	}})
	if _, err := session.ListTools(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if len(sessions) > 0 || session.ID() != "" {
		t.Errorf("sessions: got %v, want none", sessions)
	}
}

func TestEveryProtocolVersionWorksOnOneEndpoint(t *testing.T) {
	s := newServer(t, &gate{})
	for _, version := range []string{"2025-03-26", "2025-06-18", "2025-11-25"} {
		w := post{body: fmt.Sprintf(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`, version)}.do(s)
		var got struct {
			ProtocolVersion, Instructions string
			Capabilities                  map[string]any
		}
		json.Unmarshal(envelopeOf(t, w).Result, &got)
		if got.ProtocolVersion != version || got.Capabilities["tools"] == nil || got.Instructions == "" {
			t.Errorf("%s: got %s", version, w.Body)
		}
		header := map[string]string{"Mcp-Protocol-Version": version}
		if w := (post{body: `{"jsonrpc":"2.0","method":"notifications/initialized"}`, header: header}).do(s); w.Code != 202 || w.Body.Len() > 0 {
			t.Errorf("%s: initialized: got %d %s, want 202", version, w.Code, w.Body)
		}
		for _, body := range []string{listBody, callBody("list_contacts", `{}`)} {
			if w := (post{body: body, header: header}).do(s); w.Code != 200 || envelopeOf(t, w).Error != nil {
				t.Errorf("%s: %s: got %d %s", version, body, w.Code, w.Body)
			}
		}
	}

	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`
	modern := func(method, name, params string) post {
		h := map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method}
		if name != "" {
			h["Mcp-Name"] = name
		}
		return post{header: h, body: `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + params + meta + `}}`}
	}
	for method, want := range map[string]string{"server/discover": `"2026-07-28"`, "tools/list": `"create_contact"`} {
		w := modern(method, "", "").do(s)
		if w.Code != 200 || envelopeOf(t, w).Error != nil || !strings.Contains(w.Body.String(), want) || !strings.Contains(w.Body.String(), `"cacheScope":"private"`) {
			t.Errorf("%s: got %d %.300s, want %s and a private cache", method, w.Code, w.Body, want)
		}
	}
	w := modern("tools/call", "get_contact", `"name":"get_contact","arguments":{"id":"con_1"},`).do(s)
	if w.Code != 200 || !strings.Contains(w.Body.String(), "key_full") || !strings.Contains(w.Body.String(), `"resultType":"complete"`) {
		t.Errorf("tools/call: got %d %s", w.Code, w.Body)
	}
	for name, p := range map[string]post{
		"another name in the header":   modern("tools/call", "list_contacts", `"name":"get_contact","arguments":{"id":"con_1"},`),
		"another method in the header": {header: modern("ping", "", "").header, body: modern("tools/list", "", "").body},
		"no header":                    {body: modern("tools/list", "", "").body},
	} {
		if w := p.do(s); w.Code != 400 || envelopeOf(t, w).Error == nil {
			t.Errorf("2026-07-28, %s: got %d %.300s, want 400", name, w.Code, w.Body)
		}
	}
	if w := (post{body: listBody, header: map[string]string{"Mcp-Protocol-Version": "1999-01-01"}}).do(s); w.Code != 400 {
		t.Errorf("unknown version: got %d %s, want 400", w.Code, w.Body)
	}
}

func TestShutdownDoesNotWaitForWaitingCalls(t *testing.T) {
	waiting := make(chan struct{}, 1)
	s := newServer(t, waitGate{&gate{approvals: map[string]approvals.Approval{"apr_1": {ID: "apr_1", Status: approvals.Pending}}}, waiting})
	srv := httptest.NewServer(s)
	defer srv.Close()
	session := connect(t, srv.URL, "", bearer{token: "agent"})
	done := make(chan string, 1)
	go func() {
		r, err := session.CallTool(context.Background(), &sdk.CallToolParams{Name: "wait_for_approval", Arguments: map[string]any{"id": "apr_1"}})
		if err != nil {
			done <- err.Error()
			return
		}
		structured, _ := r.StructuredContent.(map[string]any)
		done <- fmt.Sprint(structured["status"])
	}()
	<-waiting
	begun := time.Now()
	s.Close()
	if err := srv.Config.Shutdown(t.Context()); err != nil || time.Since(begun) > 5*time.Second {
		t.Errorf("Shutdown: %v after %v, want at once", err, time.Since(begun))
	}
	if got := <-done; got != "pending_approval" {
		t.Errorf("the waiting call: got %q, want pending_approval", got)
	}
}
