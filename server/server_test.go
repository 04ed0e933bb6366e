package server_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/jobs"
	"trustpager/server"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// each runs test on a server without background work, on both engines.
func each(t *testing.T, test func(t *testing.T, s *servertest.Server)) {
	t.Helper()
	storagetest.EachURL(t, func(t *testing.T, url string) { test(t, servertest.New(t, url, servertest.Options{})) })
}

// Each action of the catalog is offered at both doors, needs a scope that can
// be granted, and stands on a ladder; and nothing else is offered.
func TestEachActionIsEverywhere(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Scope       string `json:"x-scope"`
		}
	}
	if err := json.Unmarshal(s.Do("GET", "/openapi.json", "", "").Want(t, 200).Body, &doc); err != nil {
		t.Fatal(err)
	}
	operations, scopes := map[string]string{}, map[string]string{}
	for path, of := range doc.Paths {
		for method, op := range of {
			operations[op.OperationID], scopes[op.OperationID] = strings.ToUpper(method)+" "+path, op.Scope
		}
	}
	listed := s.Do("POST", "/mcp", s.Full, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "Accept", "application/json, text/event-stream").Want(t, 200)
	var tools []string
	for i := range listed.Len("result.tools") {
		tools = append(tools, listed.Text(fmt.Sprintf("result.tools.%d.name", i)))
	}
	for _, a := range s.Catalog.Actions() {
		if got, want := operations[a.Name], a.Method+" /v1"+a.Path; got != want {
			t.Errorf("%s: got operation %q, want %q", a.Name, got, want)
		}
		if !slices.Contains(tools, a.Name) {
			t.Errorf("%s: there is no tool", a.Name)
		}
		tools = slices.DeleteFunc(tools, func(name string) bool { return name == a.Name })
		if r := s.Do(a.Method, "/v1"+strings.ReplaceAll(a.Path, "{id}", "x"), "", ""); r.Status != http.StatusUnauthorized {
			t.Errorf("%s: got %d without a key, want 401 from its route", a.Name, r.Status)
		}
		if a.Resource == "" {
			continue // the search across resources has no scope of its own
		}
		resource, ok := s.Catalog.Resource(a.Resource)
		if !ok || !slices.Contains(resource.Ladder.Verbs(), a.Verb) && !a.Own() {
			t.Errorf("%s: the ladder of %s has no rung for it", a.Name, a.Resource)
		}
		if err := s.Catalog.CheckScopes([]access.Scope{a.Scope()}); err != nil || scopes[a.Name] != a.Scope().String() {
			t.Errorf("%s: scope %s (%v), in the OpenAPI document %q", a.Name, a.Scope(), err, scopes[a.Name])
		}
	}
	// The actions of the program itself are told of one by one; those of records
	// follow from their fields.
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("docs: got %v, %v", pages, err)
	}
	var docs strings.Builder
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		docs.Write(text)
	}
	for _, a := range s.Catalog.Actions() {
		if r, ok := s.Catalog.Resource(a.Resource); ok && r.Code && a.Op != catalog.OpList && a.Op != catalog.OpGet && a.Op != catalog.OpSearch && !strings.Contains(docs.String(), "`"+a.Name+"`") {
			t.Errorf("%s: no document names it", a.Name)
		}
	}
	for _, name := range tools {
		if !strings.Contains(name, "approval") {
			t.Errorf("the tool %s is no action of the catalog", name)
		}
	}
	for name, operation := range operations {
		if _, ok := s.Catalog.Find(name); !ok && scopes[name] != "" {
			t.Errorf("%s (%s) has a scope and is no action of the catalog", name, operation)
		}
	}
}

// serve lets s serve on an address of its own until stop is called, which
// returns what Serve has returned.
func serve(t *testing.T, s *servertest.Server) (address string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	return l.Addr().String(), func() error {
		cancel()
		select {
		case err := <-served:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("Serve did not return within 20 s")
		}
	}
}

func TestStopLetsRequestsInFlightFinish(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		running := goleak.IgnoreCurrent()
		address, stop := serve(t, s)
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		const body = `{"first_name":"Ada"}`
		fmt.Fprintf(conn, "POST /v1/contacts HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", address, s.Full, len(body))
		in := bufio.NewReader(conn)
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
			t.Fatalf("got %q, %v, want 100 Continue: the handler reads the body", line, err)
		}
		in.ReadString('\n')

		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		for { // until it takes no more
			c, err := net.Dial("tcp", address)
			if err != nil {
				break
			}
			c.Close()
		}
		io.WriteString(conn, body)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if answer, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 201 {
			t.Errorf("the request in flight: got %d %s (%v), want 201", res.StatusCode, answer, err)
		}
		if err := <-stopped; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
		if err := goleak.Find(running); err != nil {
			t.Errorf("after the stop: %v", err)
		}
	})
}

func TestStopAnswersThoseWhoWaitForAnApproval(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		id := s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Ada"}`).Want(t, 202).Text("approval.id")
		address, stop := serve(t, s)
		answered := make(chan string, 1)
		go func() {
			r, _ := http.NewRequest("POST", "http://"+address+"/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wait_for_approval","arguments":{"id":"`+id+`"}}}`))
			r.Header.Set("Authorization", "Bearer "+s.Agent)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			r.Close = true
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				answered <- err.Error()
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			answered <- string(body)
		}()
		for { // until it waits
			var stacks bytes.Buffer
			pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			if strings.Contains(stacks.String(), "approvals.(*Gate).Wait") {
				break
			}
			runtime.Gosched()
		}
		start := time.Now()
		if err := stop(); err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("the stop took %v, want it at once", took)
		}
		if got := <-answered; !strings.Contains(got, "pending") || !strings.Contains(got, id) {
			t.Errorf("who waits: got %s, want the approval, pending", got)
		}
	})
}

func TestStopBeforeTheWorkHasBegun(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Work(ctx); err != nil {
			t.Errorf("Work: got %v, want nil", err)
		}
	})
}

func TestSlowAndGreedyClientsAreCutOff(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	h := s.HTTP()
	for name, d := range map[string]time.Duration{"ReadHeaderTimeout": h.ReadHeaderTimeout, "ReadTimeout": h.ReadTimeout, "WriteTimeout": h.WriteTimeout, "IdleTimeout": h.IdleTimeout} {
		if d <= 0 || d > 3*time.Minute {
			t.Errorf("%s: got %v, want a bound", name, d)
		}
	}
	address, stop := serve(t, s)
	r, err := http.NewRequest("GET", "http://"+address+"/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.Repeat("x", 100<<10))
	r.Close = true
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("headers of 100 kB: got %d, want 431", res.StatusCode)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// logs makes slog write to the returned buffer until the test ends.
func logs(t *testing.T) *buffer {
	old := slog.Default()
	t.Cleanup(func() { slog.SetDefault(old) })
	b := &buffer{}
	slog.SetDefault(slog.New(server.LogHandler{Handler: slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})}))
	return b
}

// A buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestPanicIsAnsweredWithoutDetails(t *testing.T) {
	out := logs(t)
	h := server.Outer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the cat is on the table") }))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/me", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), "INTERNAL_ERROR") || strings.Contains(w.Body.String(), "cat") || strings.Contains(w.Body.String(), ".go") {
		t.Errorf("got %d %s, want INTERNAL_ERROR without details", w.Code, w.Body)
	}
	id := w.Header().Get("X-Request-Id")
	if text := out.String(); id == "" || !strings.Contains(text, `"request_id":"`+id+`"`) || !strings.Contains(text, "the cat is on the table") {
		t.Errorf("log: got %s, want the panic with the request id %s", text, id)
	}

	w = httptest.NewRecorder()
	h = server.Outer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("half")); panic("late") }))
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/me", nil))
	if w.Body.String() != "half" {
		t.Errorf("a panic after the answer had begun: got %q, want nothing more than half", w.Body)
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("http.ErrAbortHandler was swallowed")
		}
	}()
	server.Outer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

func TestLogsHoldNoSecrets(t *testing.T) {
	out := logs(t)
	storagetest.EachURL(t, func(t *testing.T, url string) {
		s := servertest.New(t, url, servertest.Options{Work: true})
		receiver := servertest.NewReceiver(t)
		if _, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), "ada@example.com", "Ada", "$argon2id$password-hash", access.Owner); err != nil {
			t.Fatal(err)
		}
		made := s.Do("POST", "/v1/keys", s.Full, `{"name":"x","scopes":["contacts:write"],"webhook_url":"`+receiver.URL+`"}`).Want(t, 201)
		webhook := made.Text("data.webhook_secret")
		s.Do("PATCH", "/v1/keys/"+s.AgentID, s.Full, `{"webhook_url":"`+receiver.URL+`"}`).Want(t, 200)
		id := s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Ada"}`).Want(t, 202).Text("approval.id")
		s.Do("POST", "/v1/approvals/"+id+"/reject", s.Full, `{"reason":"no"}`).Want(t, 200)
		receiver.Next()
		s.Do("POST", "/v1/keys/"+made.Text("data.id")+"/webhook/test", s.Full, "").Want(t, 202)
		receiver.Next()
		s.Do("POST", "/v1/keys/"+made.Text("data.id")+"/rotate", s.Full, `{"overlap_hours":1}`).Want(t, 200)
		for _, secret := range []string{s.Full, webhook} { // where none belongs
			s.Do("GET", "/v1/contacts/"+strings.ReplaceAll(secret, "/", ""), s.Full, "")
			s.Do("GET", "/v1/"+strings.ReplaceAll(secret, "/", "")+"/x", s.Full, "")
			s.Do("GET", "/mcp/"+strings.ReplaceAll(secret, "/", ""), s.Full, "")
			s.Do("GET", "/v1/contacts?password="+secret, s.Full, "")
			s.Do("POST", "/v1/contacts", s.Full, `{"`+secret+`":"password","first_name":`)
			s.Do("POST", "/v1/contacts", "x"+secret, `{}`)
			s.Do("GET", "/settings/api?approval="+secret, "", "")
		}
	})
	text := out.String()
	if !strings.Contains(text, `"path":"/v1/keys"`) || !strings.Contains(text, "request_id") {
		t.Fatalf("log: got %.2000s, want a line for each request", text)
	}
	for _, secret := range []string{"tp_live_", "whsec_", "password", "argon2id"} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, secret) {
				t.Errorf("the log holds %s: %s", secret, line)
			}
		}
	}
}

func TestOperationalPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		s := servertest.New(t, url, servertest.Options{Alone: true}) // metrics are of a process, and it loses its database
		for _, path := range []string{"/healthz", "/readyz"} {
			if got := s.Do("GET", path, "", "").Want(t, 200); string(got.Body) != "ok\n" {
				t.Errorf("%s: got %q, want ok", path, got.Body)
			}
		}
		s.Do("GET", "/v1/me", s.Full, "").Want(t, 200) // besides, the client reads /openapi.json
		s.Do("GET", "/v1/me", "", "").Want(t, 401)
		got := string(s.Do("GET", "/metrics", "", "").Want(t, 200).Body)
		for _, want := range []string{`trustpager_http_requests_total{door="rest",status="2xx"} 2`, `trustpager_http_requests_total{door="rest",status="4xx"} 1`, `trustpager_http_request_seconds_count{door="rest"} 3`, "go_goroutines"} {
			if !strings.Contains(got, want) {
				t.Errorf("metrics: got %s, want %s", got[max(strings.Index(got, "# HELP trustpager"), 0):], want)
			}
		}
		if strings.Contains(got, s.Workspace.ID) || strings.Contains(got, s.FullID) {
			t.Error("metrics name a workspace or a credential")
		}
		if err := s.DB.Close(); err != nil {
			t.Fatal(err)
		}
		s.Do("GET", "/healthz", "", "").Want(t, 200)
		s.Do("GET", "/readyz", "", "").Want(t, 503)
		if got := s.Do("GET", "/v1/me", s.Full, ""); got.Status < 500 || strings.Contains(string(got.Body), "sql") {
			t.Errorf("without a database: got %d %s, want a 5xx without details", got.Status, got.Body)
		}
	})
}

func TestOtherNamesAndPagesAreRefused(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{Config: func(c *server.Config) {
		c.Hosts, c.Origins = []string{"pager.example.com"}, []string{"https://app.example.com"}
	}})
	for _, path := range []string{"/v1/me", "/mcp", "/openapi.json"} {
		for _, tt := range []struct {
			host, origin string
			ok           bool
		}{
			{"", "", true},
			{"localhost:1234", "", true},
			{"[::1]:1234", "", true},
			{"pager.example.com", "", true},
			{"PAGER.example.com:443", "", true},
			{"evil.example.com", "", false},
			{"localhost.evil.example.com", "", false},
			{"127.0.0.1.evil.example.com:80", "", false},
			{"", "https://app.example.com", true},
			{"", "https://APP.example.com", true},
			{"", "http://app.example.com", false},
			{"", "https://app.example.com.evil.com", false},
			{"", "https://app.example.com:444", false},
			{"", "null", false},
			{"", s.URL, true},
			{"pager.example.com", "https://pager.example.com", true},
		} {
			method := "GET"
			if path == "/mcp" {
				method = "POST"
			}
			r, err := http.NewRequest(method, s.URL+path, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Host = tt.host
			r.Header.Set("Authorization", "Bearer "+s.Full)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			got := s.Send(r)
			if ok := got.Status == 200; ok != tt.ok || !ok && got.Status != 403 {
				t.Errorf("%s as %q from %q: got %d %s, want ok %v", path, tt.host, tt.origin, got.Status, got.Body, tt.ok)
			}
			if allowed := got.Header.Get("Access-Control-Allow-Origin"); tt.ok && allowed != tt.origin || !tt.ok && allowed != "" {
				t.Errorf("%s from %q: got Access-Control-Allow-Origin %q", path, tt.origin, allowed)
			}
		}
	}
	preflight := s.Do("OPTIONS", "/v1/contacts", "", "", "Origin", "https://app.example.com", "Access-Control-Request-Method", "POST").Want(t, 204)
	if h := preflight.Header; !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PATCH") || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: got %v, want what the API uses, and no cookies", h)
	}
	s.Do("OPTIONS", "/v1/contacts", "", "", "Origin", "https://evil.example.com", "Access-Control-Request-Method", "POST").Want(t, 403)
}

func TestPurgeForgetsAllThatIsOld(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		driver := "sqlite"
		if strings.HasPrefix(s.Database, "postgres") {
			driver = "pgx"
		}
		db, err := sql.Open(driver, s.Database)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(`INSERT INTO idempotency_keys (workspace, credential, idem_key, fingerprint, response, approval, created)
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
			SELECT $1, $2, 'k' || i, '', '', '', 1000 FROM n`, s.Workspace.ID, s.AgentID); err != nil {
			t.Fatal(err)
		}
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada"}`, "Idempotency-Key", "fresh").Want(t, 201)
		if got, want := s.Purge(t.Context()), jobs.Again(s.Clock.Now().Add(time.Hour)); !reflect.DeepEqual(got, want) {
			t.Errorf("purge: got %v, want %v", got, want)
		}
		var left int
		if err := db.QueryRow(`SELECT COUNT(*) FROM idempotency_keys`).Scan(&left); err != nil || left != 1 {
			t.Errorf("idempotency keys left: got %d (%v), want the fresh one", left, err)
		}
	})
}

func TestBaseURLMustBeOne(t *testing.T) {
	for _, base := range []string{"", "localhost:8080", "/x", "ftp://example.com", "https://", "://"} {
		if _, err := server.New(t.Context(), nil, storagetest.Key, nil, server.Config{BaseURL: base}); err == nil {
			t.Errorf("base URL %q: got nil, want an error", base)
		}
	}
}

// Whoever holds a request open does not act after a pause or a revocation.
func TestHeldRequestsAreLookedAtAgain(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		const create = `{"first_name":"Held"}`
		calls := map[string]string{
			"/v1/contacts": create,
			"/mcp":         `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_contact","arguments":` + create + `}}`,
		}
		op := admin.OperatorGrant(s.Workspace)
		for end, do := range map[string]func(id string) error{
			"pause":  func(id string) error { return s.Desk.Pause(t.Context(), op, id) },
			"revoke": func(id string) error { _, err := s.Desk.RevokeKey(t.Context(), op, id); return err },
		} {
			for path, body := range calls {
				yes := true
				key, id := s.AddKey(admin.KeyInput{Name: new("held"), FullAccess: &yes})
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
					path, strings.TrimPrefix(s.URL, "http://"), key, len(body))
				answers := bufio.NewReader(conn)
				// The server asks for the body when it has looked at the credential.
				if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
					t.Fatalf("got %q, %v", line, err)
				}
				answers.ReadString('\n')
				if err := do(id); err != nil {
					t.Fatal(err)
				}
				s.Clock.Advance(2 * time.Second)
				io.WriteString(conn, body)
				res, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if res.StatusCode != 401 && res.StatusCode != 403 {
					t.Errorf("%s, held over a %s: got %d, want it refused", path, end, res.StatusCode)
				}
			}
		}
		if got := s.Do("GET", "/v1/contacts", s.Full, "").Want(t, 200); got.Len("data") != 0 {
			t.Errorf("got %s, want no contact", got.Body)
		}
	})
}
