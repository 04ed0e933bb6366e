package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
)

const pingBody = `{"jsonrpc":"2.0","id":7,"method":"ping"}`

func TestGateRefuses(t *testing.T) {
	s := newServer(t, &gate{})
	for _, tt := range []struct {
		name string
		post post
		want int
		code string // of the problem
		id   string // that the error carries
	}{
		{"nothing", post{}, 400, "INVALID_BODY", "null"},
		{"GET", post{method: "GET"}, 405, "METHOD_NOT_ALLOWED", "null"},
		{"DELETE", post{method: "DELETE"}, 405, "METHOD_NOT_ALLOWED", "null"},
		{"PUT", post{method: "PUT", body: pingBody}, 405, "METHOD_NOT_ALLOWED", "null"},
		{"another path", post{path: "/mcp/", body: pingBody}, 404, "NOT_FOUND", "null"},
		{"a deeper path", post{path: "/mcp/ws_1/x", body: pingBody}, 404, "NOT_FOUND", "null"},
		{"another workspace", post{path: "/mcp/ws_2", body: pingBody}, 404, "NOT_FOUND", "null"},
		{"another's workspace", post{path: "/mcp/ws_1", token: "elsewise", body: pingBody}, 404, "NOT_FOUND", "null"},
		{"foreign host", post{host: "evil.example", body: pingBody}, 403, "FORBIDDEN", "null"},
		{"foreign host with our name in front", post{host: "crm.example.com.evil.example", body: pingBody}, 403, "FORBIDDEN", "null"},
		{"foreign origin", post{header: map[string]string{"Origin": "https://evil.example"}, body: pingBody}, 403, "FORBIDDEN", "null"},
		{"null origin", post{header: map[string]string{"Origin": "null"}, body: pingBody}, 403, "FORBIDDEN", "null"},
		{"no token", post{token: "-", body: pingBody}, 401, "UNAUTHORIZED", "null"},
		{"unknown token", post{token: "x", body: pingBody}, 401, "UNAUTHORIZED", "null"},
		{"token in the query", post{token: "-", path: "/mcp?access_token=full&token=full", body: pingBody}, 401, "UNAUTHORIZED", "null"},
		{"Basic", post{header: map[string]string{"Authorization": "Basic ZnVsbDo="}, body: pingBody}, 401, "UNAUTHORIZED", "null"},
		{"free plan", post{token: "free", body: pingBody}, 403, "PLAN_REQUIRED", "null"},
		{"form", post{header: map[string]string{"Content-Type": "text/plain"}, body: pingBody}, 415, "UNSUPPORTED_MEDIA", "null"},
		{"too large", post{body: pingBody + strings.Repeat(" ", 1<<20)}, 413, "PAYLOAD_TOO_LARGE", "null"},
		{"no JSON", post{body: `{"jsonrpc"`}, 400, "INVALID_BODY", "null"},
		{"batch", post{body: " \n[" + pingBody + "]"}, 400, "INVALID_BODY", "null"},
		{"empty batch", post{body: "[]"}, 400, "INVALID_BODY", "null"},
		{"a string", post{body: `"ping"`}, 400, "INVALID_BODY", "null"},
		{"no version", post{body: `{"id":7,"method":"ping"}`}, 400, "INVALID_BODY", "7"},
		{"version 1", post{body: `{"jsonrpc":"1.0","id":7,"method":"ping"}`}, 400, "INVALID_BODY", "7"},
		{"null id", post{body: `{"jsonrpc":"2.0","id":null,"method":"ping"}`}, 400, "INVALID_BODY", "null"},
		{"object id", post{body: `{"jsonrpc":"2.0","id":{"tools":[]},"method":"tools/list"}`}, 400, "INVALID_BODY", "null"},
		{"NUL", post{body: callBody("create_contact", `{"first_name":"a\u0000"}`)}, 400, "INVALID_BODY", "null"},
		{"unknown toolset", post{path: "/mcp?toolsets=contacts,nonsense", body: pingBody}, 400, "VALIDATION_ERROR", "7"},
		{"misspelt read_only", post{path: "/mcp?readonly=true", body: pingBody}, 400, "VALIDATION_ERROR", "7"},
		{"odd read_only", post{path: "/mcp?read_only=perhaps", body: pingBody}, 400, "VALIDATION_ERROR", "7"},
		{"empty read_only", post{path: "/mcp?read_only", body: pingBody}, 400, "VALIDATION_ERROR", "7"},
		{"read_only twice", post{path: "/mcp?read_only=false&read_only=true", body: pingBody}, 400, "VALIDATION_ERROR", "7"},
		{"cursor", post{body: `{"jsonrpc":"2.0","id":"x","method":"tools/list","params":{"cursor":"YQ=="}}`}, 400, "VALIDATION_ERROR", `"x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.post.do(s)
			e := envelopeOf(t, w)
			if w.Code != tt.want || e.Error == nil || e.Error.Data.Code != tt.code || string(e.ID) != tt.id {
				t.Fatalf("got %d %s, want %d %s with id %s", w.Code, w.Body, tt.want, tt.code, tt.id)
			}
			if e.Error.Data.Fix == "" || e.Error.Code == 0 {
				t.Errorf("got %s, want a fix and a code", w.Body)
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control: got %q, want no-store", w.Header().Get("Cache-Control"))
			}
		})
	}
}

func TestGateAccepts(t *testing.T) {
	s := newServer(t, &gate{})
	for _, p := range []post{
		{},
		{path: "/mcp/ws_1"},
		{host: "CRM.example.com:8443"},
		{host: "localhost:8080"},
		{host: "127.0.0.1:8080"},
		{host: "[::1]:8080"},
		{host: "[::1]"},
		{host: "crm.internal"},
		{header: map[string]string{"Origin": "https://crm.example.com"}},
		{header: map[string]string{"Origin": "https://inspector.example.com"}},
		{host: "localhost:8080", header: map[string]string{"Origin": "http://localhost:8080"}},
		{header: map[string]string{"Authorization": "bearer  full"}},
		{header: map[string]string{"Authorization": "BEARER full"}},
		{header: map[string]string{"Content-Type": "application/json; charset=utf-8"}},
		{header: map[string]string{"Content-Type": ""}},
	} {
		p.body = pingBody
		if w := p.do(s); w.Code != http.StatusOK || compact(t, w.Body.Bytes()) != `{"jsonrpc":"2.0","id":7,"result":{}}` {
			t.Errorf("%+v: got %d %s, want an empty result", p, w.Code, w.Body)
		}
	}
}

func TestUnauthorizedNamesTheScheme(t *testing.T) {
	s := newServer(t, &gate{})
	for token, want := range map[string]string{
		"-": `Bearer resource_metadata="https://crm.example.com/.well-known/oauth-protected-resource/mcp", scope="workspace"`,
		"x": `Bearer resource_metadata="https://crm.example.com/.well-known/oauth-protected-resource/mcp", scope="workspace", error="invalid_token"`,
	} {
		w := post{token: token, body: pingBody}.do(s)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || !strings.HasPrefix(got, want) || strings.Contains(got, "error") != (token == "x") {
			t.Errorf("token %q: got %d %q, want 401 %q", token, w.Code, got, want)
		}
	}
	r := post{body: pingBody}.request()
	r.Header.Add("Authorization", "Bearer agent")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 401 {
		t.Errorf("two Authorization headers: got %d, want 401", w.Code)
	}
}

func TestPreflightNeedsNoCredential(t *testing.T) {
	s := newServer(t, &gate{})
	p := post{method: "OPTIONS", token: "-", header: map[string]string{"Origin": "https://inspector.example.com", "Access-Control-Request-Method": "POST"}}
	w := p.do(s)
	h := w.Header()
	if w.Code != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "https://inspector.example.com" ||
		!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Mcp-Protocol-Version") || h.Get("Vary") != "Origin" {
		t.Errorf("allowed origin: got %d %v, want 204 and what it may send", w.Code, h)
	}
	p.header["Origin"] = "https://evil.example"
	if w := p.do(s); w.Code != http.StatusForbidden || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("foreign origin: got %d %v, want 403 without Access-Control-Allow-Origin", w.Code, w.Header())
	}
	// A page must be able to read why it was refused.
	p = post{token: "-", body: pingBody, header: map[string]string{"Origin": "https://inspector.example.com"}}
	if w := p.do(s); w.Code != 401 || w.Header().Get("Access-Control-Allow-Origin") == "" || !strings.Contains(w.Header().Get("Access-Control-Expose-Headers"), "WWW-Authenticate") {
		t.Errorf("401: got %d %v, want it readable by the page", w.Code, w.Header())
	}
}

func TestRateLimitIsToldAndKept(t *testing.T) {
	s := newServer(t, &gate{})
	p := post{token: "once", body: pingBody}
	if w := p.do(s); w.Code != 200 || w.Header().Get("RateLimit-Limit") != "1" || w.Header().Get("RateLimit-Remaining") != "0" {
		t.Fatalf("first: got %d %v, want 200 and RateLimit-*", w.Code, w.Header())
	}
	w := p.do(s)
	e := envelopeOf(t, w)
	if w.Code != 429 || w.Header().Get("Retry-After") == "" || w.Header().Get("RateLimit-Reset") == "" || string(e.ID) != "7" || e.Error.Data.Code != "RATE_LIMITED" {
		t.Errorf("second: got %d %v %s, want 429 with Retry-After and the id", w.Code, w.Header(), w.Body)
	}
}

func TestUsageCountsToolsAndOutcomesInWordsOfOurs(t *testing.T) {
	var stored counts
	usage := &access.Usage{Store: &stored, Now: time.Now}
	s := newServer(t, &gate{})
	s.Usage = usage
	for _, p := range []post{
		{body: callBody("get_contact", `{"id":"con_1"}`)},
		{token: "agent", body: callBody("create_contact", `{"first_name":"Ada"}`)},
		{token: "reader", body: callBody("create_contact", `{"first_name":"Ada"}`)},
		{body: callBody("no_such_tool_at_all", `{}`)},
		{body: `{"jsonrpc":"2.0","id":7,"method":"made/up"}`},
		{token: "once", body: pingBody},
		{token: "once", body: pingBody},
	} {
		p.do(s)
	}
	if err := usage.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range stored.got {
		got = append(got, fmt.Sprint(c.Credential, " ", c.Action, " ", c.Outcome, " ", c.N))
	}
	slices.Sort(got)
	want := []string{"key_agent create_contact queued 1", "key_full get_contact ok 1", "key_full mcp/other ok 1", "key_full tools/call invalid 1",
		"key_once ping limited 1", "key_once ping ok 1", "key_reader tools/call invalid 1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The traps of mcp-go, by the name of what would go wrong.

func TestTrapOneCallersStreamShowsAnothersProgress(t *testing.T) {
	s := newServer(t, &gate{})
	for _, method := range []string{"GET", "DELETE", "HEAD"} {
		w := post{method: method, header: map[string]string{"Accept": "text/event-stream"}}.do(s)
		if w.Code != 405 || w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: got %d, Allow %q, want 405, POST", method, w.Code, w.Header().Get("Allow"))
		}
	}
}

func TestTrapOneCallersCancellationEndsAnothersCall(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	s := newServer(t, &gate{do: func(ctx context.Context, _ access.Grant, _ *catalog.Action, _ approvals.Incoming) (approvals.Outcome, error) {
		close(started)
		<-finish
		return approvals.Outcome{Result: catalog.Result{Data: json.RawMessage(`{}`)}}, ctx.Err()
	}})
	done := make(chan toolResult)
	go func() { done <- callTool(t, s, "full", "get_contact", `{"id":"con_1"}`) }()
	<-started
	w := post{token: "reader", body: `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`}.do(s)
	if w.Code != http.StatusAccepted || w.Body.Len() > 0 {
		t.Errorf("notifications/cancelled: got %d %s, want 202 and nothing", w.Code, w.Body)
	}
	close(finish)
	if r := <-done; r.IsError {
		t.Errorf("the other's call: got %+v, want its result", r)
	}
}

func TestTrapSessionsAreKeptForEver(t *testing.T) {
	s := newServer(t, &gate{})
	init := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
	if w := (post{body: init}).do(s); w.Code != 200 || w.Header().Get("Mcp-Session-Id") != "" {
		t.Errorf("initialize: got %d %v, want no session", w.Code, w.Header())
	}
}

func TestTrapForgedSessionIsAccepted(t *testing.T) {
	// Two callers with the same forged session and id do not meet.
	s := newServer(t, &gate{})
	for _, token := range []string{"full", "agent"} {
		w := post{token: token, body: callBody("get_contact", `{"id":"con_1"}`), header: map[string]string{"Mcp-Session-Id": "forged"}}.do(s)
		if w.Code != 200 || !strings.Contains(w.Body.String(), "key_"+token) || w.Header().Get("Mcp-Session-Id") != "" {
			t.Errorf("%s: got %d %v %s, want the caller's own answer and no session", token, w.Code, w.Header(), w.Body)
		}
	}
}

func TestTrapSecondSpellingOfMethodIsDispatched(t *testing.T) {
	s := newServer(t, &gate{})
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","METHOD":"tools/list","params":{"name":"get_contact","arguments":{"id":"con_1"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/list","params":{"name":"get_contact","arguments":{"id":"con_1"}}}`,
		`{"jsonrpc":"2.0","id":1,"METHOD":"tools/list"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_contact","Name":"delete_contact","arguments":{"id":"con_1"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_contact","arguments":{"id":"con_1"}},"Params":{"name":"delete_contact"}}`,
	} {
		if w := (post{body: body}).do(s); w.Code != 400 || envelopeOf(t, w).Error == nil {
			t.Errorf("%s: got %d %s, want 400", body, w.Code, w.Body)
		}
	}
	// Data of the caller's may hold such names.
	if r := callTool(t, s, "full", "create_contact", `{"first_name":"Ada","metadata":{"a":1,"A":2}}`); r.IsError {
		t.Errorf("metadata with a and A: got %+v, want it accepted", r)
	}
}

func TestTrapListenHoldsShutdown(t *testing.T) {
	s := newServer(t, &gate{})
	s.Close()
	w := modern("full", 1, "subscriptions/listen", `"notifications":{"toolsListChanged":true}`, "").do(s)
	if !strings.Contains(w.Body.String(), `"result":{"resultType":"complete"`) {
		t.Errorf("got %d %s, want the stream to end at once", w.Code, w.Body)
	}
}

func TestTrapPanicTextReachesTheClient(t *testing.T) {
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))
	for name, do := range map[string]func() error{
		"panic": func() error { panic("secret of the server") },
		"error": func() error { return fmt.Errorf("secret of the server") },
	} {
		s := newServer(t, &gate{do: func(context.Context, access.Grant, *catalog.Action, approvals.Incoming) (approvals.Outcome, error) {
			return approvals.Outcome{}, do()
		}})
		w := post{body: callBody("get_contact", `{"id":"con_1"}`)}.do(s)
		if w.Code != 200 || strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), "INTERNAL_ERROR") {
			t.Errorf("%s: got %d %s, want INTERNAL_ERROR and no more", name, w.Code, w.Body)
		}
	}
}

func TestTrapHiddenToolCanBeCalled(t *testing.T) {
	g := &gate{}
	s := newServer(t, g)
	unknown := post{token: "reader", body: callBody("no_such_tool", `{}`)}.do(s)
	for _, p := range []post{
		{token: "reader", body: callBody("delete_contact", `{"id":"con_1"}`)},
		{token: "nobody", body: callBody("get_contact", `{"id":"con_1"}`)},
		{token: "nobody", body: callBody("search", `{"query":"x"}`)},
		{path: "/mcp?read_only=true", body: callBody("delete_contact", `{"id":"con_1"}`)},
		{path: "/mcp?toolsets=deals", body: callBody("get_contact", `{"id":"con_1"}`)},
	} {
		w := p.do(s)
		var name struct{ Params struct{ Name string } }
		json.Unmarshal([]byte(p.body), &name)
		if want := strings.ReplaceAll(unknown.Body.String(), "no_such_tool", name.Params.Name); w.Code != unknown.Code || w.Body.String() != want {
			t.Errorf("%+v: got %d %s, want the answer for a tool that does not exist: %s", p, w.Code, w.Body, want)
		}
	}
	if len(g.incoming) > 0 {
		t.Errorf("hidden tools reached the gate: %+v", g.incoming)
	}
}

func TestTrapInFlightCallsMeet(t *testing.T) {
	// Calls under one id at the same time get their own answers.
	s := newServer(t, &gate{})
	done := make(chan string)
	for i := range 40 {
		token := []string{"full", "agent"}[i%2]
		go func() {
			w := post{token: token, body: callBody("get_contact", `{"id":"con_1"}`)}.do(s)
			if !strings.Contains(w.Body.String(), "key_"+token) {
				done <- token + " got " + w.Body.String()
			}
			done <- ""
		}()
	}
	for range 40 {
		if wrong := <-done; wrong != "" {
			t.Error(wrong)
		}
	}
}

func TestCloseEndsWaitingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, &gate{approvals: map[string]approvals.Approval{"apr_1": {ID: "apr_1", Status: approvals.Pending}}})
		begun := time.Now()
		done := make(chan toolResult)
		go func() { done <- callTool(t, s, "agent", "wait_for_approval", `{"id":"apr_1"}`) }()
		synctest.Wait()
		s.Close()
		if r := <-done; r.IsError || !strings.Contains(string(r.StructuredContent), `"pending_approval"`) || time.Since(begun) > 0 {
			t.Errorf("got %+v after %v, want pending at once", r, time.Since(begun))
		}
	})
}

func TestNotificationCallsNothing(t *testing.T) {
	g := &gate{}
	w := post{body: `{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete_contact","arguments":{"id":"con_1"}}}`}.do(newServer(t, g))
	if w.Code != http.StatusAccepted || w.Body.Len() > 0 || len(g.incoming) > 0 {
		t.Errorf("got %d %s and the calls %+v, want 202 and nothing", w.Code, w.Body, g.incoming)
	}
}

func TestWaitOutlivesTheServersWriteTimeout(t *testing.T) {
	s := newServer(t, &gate{approvals: map[string]approvals.Approval{"apr_1": {ID: "apr_1", Status: approvals.Pending}}})
	srv := httptest.NewUnstartedServer(s)
	srv.Config.WriteTimeout = 100 * time.Millisecond
	srv.Start()
	defer srv.Close()
	r := post{body: callBody("wait_for_approval", `{"id":"apr_1","timeout_seconds":1}`)}.request()
	r.RequestURI, r.URL.Scheme, r.URL.Host, r.Host = "", "http", srv.Listener.Addr().String(), ""
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := bodyOf(t, res); !strings.Contains(got, "pending_approval") {
		t.Errorf("got %s, want it pending", got)
	}
}
