package mcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/mcp"
	"trustpager/origin"
	"trustpager/problem"
)

// A gate stands in for the approvals package where a test is about the door.
type gate struct {
	do func(ctx context.Context, g access.Grant, a *catalog.Action, in approvals.Incoming) (approvals.Outcome, error)

	mu        sync.Mutex
	denied    []approvals.Denial
	incoming  []approvals.Incoming
	kept      []approvals.Task
	approvals map[string]approvals.Approval
}

func (f *gate) Do(ctx context.Context, g access.Grant, a *catalog.Action, in approvals.Incoming) (approvals.Outcome, error) {
	f.mu.Lock()
	f.incoming = append(f.incoming, in)
	f.mu.Unlock()
	if f.do != nil {
		return f.do(ctx, g, a, in)
	}
	if a.Resource != "" && g.Decide(a.Resource, a.Verb) == access.Queue {
		return approvals.Outcome{Approval: &approvals.Approval{ID: "apr_1", Status: approvals.Pending, ExpiresAt: time.Unix(2e9, 0)}}, nil
	}
	return approvals.Outcome{Result: catalog.Result{Data: json.RawMessage(`{"id":"con_1","by":"` + g.Principal.ID + `"}`)}}, nil
}

func (f *gate) Approval(_ context.Context, _ access.Grant, id string) (approvals.Approval, error) {
	if a, ok := f.approvals[id]; ok {
		return a, nil
	}
	return approvals.Approval{}, problem.Errorf(problem.NotFound, "there is no approval %q", id).WithFix("Check the id.")
}

func (f *gate) Wait(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
	a, err := f.Approval(ctx, g, id)
	if a.Status == approvals.Pending {
		<-ctx.Done()
	}
	return a, err
}

func (f *gate) Withdraw(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
	a, err := f.Approval(ctx, g, id)
	a.Status = approvals.Withdrawn
	return a, err
}

func (f *gate) Over(a approvals.Approval) bool { return a.Status != approvals.Pending }

func (f *gate) Own(context.Context, access.Grant, approvals.Query) ([]approvals.Approval, error) {
	var list []approvals.Approval
	for _, a := range f.approvals {
		list = append(list, a)
	}
	return list, nil
}

func (f *gate) News(context.Context, access.Grant) (approvals.News, error) {
	return approvals.News{}, nil
}
func (f *gate) Told(context.Context, access.Grant, ...approvals.Approval) error { return nil }
func (f *gate) KeepTask(_ context.Context, t approvals.Task) error {
	f.kept = append(f.kept, t)
	return nil
}
func (f *gate) Task(context.Context, access.Grant, string) (approvals.Task, error) {
	return approvals.Task{}, problem.Errorf(problem.NotFound, "there is no task")
}
func (f *gate) Tasks(context.Context, access.Grant, string, int) ([]approvals.Task, error) {
	return nil, nil
}

func (f *gate) Answer(a approvals.Approval) approvals.Answer {
	return (&approvals.Gate{BaseURL: "https://crm.example.com", Catalog: &catalog.Catalog{}}).Answer(a)
}

// The credentials of the tests, by their token.
var grants = map[string]access.Grant{
	"full": {Principal: access.Principal{Kind: access.KindKey, ID: "key_full"}, Workspace: access.Workspace{ID: "ws_1"},
		Rights: access.FullRights, Limits: access.Limits{PerMinute: 1_000_000}},
	"bench":    {Principal: access.Principal{Kind: access.KindKey, ID: "key_bench"}, Workspace: access.Workspace{ID: "ws_1"}, Rights: access.FullRights},
	"agent":    grantOf("key_agent", "contacts:write-approval deals:read"),
	"reader":   grantOf("key_reader", "contacts:read"),
	"nobody":   grantOf("key_nobody", ""),
	"coarse":   delegated("contacts:read deals:write", "workspace"),
	"fine":     delegated("contacts:write deals:write", "contacts:read offline_access"),
	"owner":    delegated("contacts:write-approval", "workspace"),
	"narrowed": delegated("contacts:read", "contacts:write"),
	"once":     limited(grantOf("key_once", "contacts:read"), 1),
	"elsewise": {Principal: access.Principal{ID: "key_else"}, Workspace: access.Workspace{ID: "ws_2"}, Rights: access.FullRights},
}

// delegated is what an OAuth client may do for a user who granted it the
// scopes, with a token of the scope.
func delegated(granted, scope string) access.Grant {
	g := grantOf("grt_1", granted)
	g.Principal = access.Principal{Kind: access.KindOAuth, ID: "grt_1", User: "usr_1", Client: "cli_1"}
	g.Token = &access.Token{Scope: scope}
	g.Rights = g.Rights.Min(g.Token.Rights())
	return g
}

func grantOf(id, scopes string) access.Grant {
	s, err := access.ParseScopes(scopes)
	if err != nil {
		panic(err)
	}
	return access.Grant{Principal: access.Principal{Kind: access.KindKey, ID: id}, Workspace: access.Workspace{ID: "ws_1"}, Rights: access.RightsOf(s)}
}

func limited(g access.Grant, perMinute int64) access.Grant {
	g.Limits.PerMinute = perMinute
	return g
}

func authenticate(_ context.Context, bearer, _ string) (access.Grant, error) {
	if bearer == "free" {
		return access.Grant{}, problem.Errorf(problem.PlanRequired, "API access needs the Pro plan").WithFix("Upgrade.")
	}
	g, ok := grants[bearer]
	if !ok {
		return access.Grant{}, problem.Errorf(problem.Unauthorized, "the API key is not valid").WithFix("Send a current key.")
	}
	return g, nil
}

// counts keeps the usage counters.
type counts struct{ got []access.Count }

func (c *counts) AddUsage(_ context.Context, n []access.Count, _ []access.LastUse) error {
	c.got = append(c.got, n...)
	return nil
}

func loadCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newServer(t testing.TB, g mcp.Gate) *mcp.Server {
	t.Helper()
	s, err := mcp.New(mcp.Config{
		Catalog:      loadCatalog(t),
		Gate:         g,
		Authenticate: authenticate,
		Limiter:      &access.Limiter{Now: time.Now},
		Watch:        func(string) (<-chan struct{}, func()) { return nil, func() {} },
		StateKey:     []byte("key"),
		Now:          time.Now,
		BaseURL:      "https://crm.example.com",
		Origin:       newOrigin(t),
		Version:      "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// A post is one request to the gate. Its zero value but for the body is a
// request that passes.
type post struct {
	method, path, host, token, body string
	header                          map[string]string
}

func (p post) request() *http.Request {
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	r := httptest.NewRequest(or(p.method, http.MethodPost), or(p.path, "/mcp"), strings.NewReader(p.body))
	r.Host = or(p.host, "crm.example.com")
	r.Header.Set("Content-Type", "application/json")
	if p.token != "-" {
		r.Header.Set("Authorization", "Bearer "+or(p.token, "full"))
	}
	for k, v := range p.header {
		if v == "" {
			r.Header.Del(k)
		} else {
			r.Header.Set(k, v)
		}
	}
	return r
}

func (p post) do(h http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, p.request())
	return w
}

// An envelope is a JSON-RPC answer.
type envelope struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    struct {
			Code, Message, Fix string
			Status             int
		} `json:"data"`
	} `json:"error"`
}

func envelopeOf(t testing.TB, w *httptest.ResponseRecorder) envelope {
	t.Helper()
	var e envelope
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.JSONRPC != "2.0" {
		t.Fatalf("the answer is no JSON-RPC: %v, %d %s", err, w.Code, w.Body)
	}
	return e
}

// A toolResult is the result of tools/call.
type toolResult struct {
	Content           []struct{ Type, Text string }
	StructuredContent json.RawMessage
	IsError           bool
}

func callBody(name, arguments string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, name, arguments)
}

func callTool(t testing.TB, h http.Handler, token, name, arguments string) toolResult {
	t.Helper()
	w := post{token: token, body: callBody(name, arguments)}.do(h)
	e := envelopeOf(t, w)
	if e.Error != nil || w.Code != http.StatusOK {
		t.Fatalf("%s(%s): got %d %s, want a result", name, arguments, w.Code, w.Body)
	}
	var r toolResult
	if err := json.Unmarshal(e.Result, &r); err != nil || len(r.Content) != 1 {
		t.Fatalf("%s(%s): got result %s, %v", name, arguments, e.Result, err)
	}
	return r
}

// A listedTool is an entry of tools/list.
type listedTool struct {
	Name, Description string
	InputSchema       map[string]any
	OutputSchema      map[string]any
	Annotations       map[string]any
	Meta              map[string]string `json:"_meta"`
}

const listBody = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`

func listTools(t testing.TB, h http.Handler, token, query string) map[string]listedTool {
	t.Helper()
	w := post{token: token, path: "/mcp" + query, body: listBody}.do(h)
	var res struct{ Tools []listedTool }
	if err := json.Unmarshal(envelopeOf(t, w).Result, &res); err != nil {
		t.Fatalf("tools/list: %v, %d %s", err, w.Code, w.Body)
	}
	m := make(map[string]listedTool)
	for _, tool := range res.Tools {
		m[tool.Name] = tool
	}
	return m
}

// compact returns b without white space.
func compact(t testing.TB, b []byte) string {
	t.Helper()
	var buf bytes.Buffer
	if err := json.Compact(&buf, b); err != nil {
		t.Fatalf("not JSON: %s", b)
	}
	return buf.String()
}

func bodyOf(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A waitGate tells when somebody waits.
type waitGate struct {
	*gate
	waiting chan<- struct{}
}

func (w waitGate) Wait(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
	w.waiting <- struct{}{}
	return w.gate.Wait(ctx, g, id)
}

func (f *gate) AuditDenial(_ context.Context, _ access.Grant, d approvals.Denial) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied = append(f.denied, d)
}

// A benchGate answers and keeps nothing.
type benchGate struct{ gate }

func (*benchGate) Do(context.Context, access.Grant, *catalog.Action, approvals.Incoming) (approvals.Outcome, error) {
	return approvals.Outcome{Result: catalog.Result{Data: json.RawMessage(`{"id":"con_01890a5d-ac96-774b-bcce-b302099a8057","first_name":"Ada","last_name":"Lovelace","email":"ada@example.com","created_at":"2026-01-01T00:00:00Z"}`)}}, nil
}

// newOrigin returns the names and origins of the tests' servers.
func newOrigin(t testing.TB) *origin.Guard {
	t.Helper()
	g, err := origin.New("https://crm.example.com", []string{"crm.internal"}, []string{"https://inspector.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}
