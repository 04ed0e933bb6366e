package server_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// eachEngine runs a benchmark on a server with a workspace, two keys without
// limits and some contacts, on both engines.
func eachEngine(b *testing.B, run func(b *testing.B, f fixture)) {
	b.Run("sqlite", func(b *testing.B) { run(b, newFixture(b, b.TempDir()+"/bench.db")) })
	b.Run("postgres", func(b *testing.B) { run(b, newFixture(b, storagetest.Postgres(b))) })
}

// A fixture is a server with something in it.
type fixture struct {
	*servertest.Server
	contact string // an id
}

func newFixture(tb testing.TB, url string) fixture {
	tb.Helper()
	f := fixture{Server: servertest.New(tb, url, servertest.Options{Alone: true, Config: func(c *server.Config) { c.Now = nil }})}
	for i := range 40 {
		r := f.Do("POST", "/v1/contacts", f.Full, fmt.Sprintf(`{"first_name":"Contact %d","last_name":"Bench","email":"c%d@example.com","phone":"+447700900233"}`, i, i))
		f.contact = r.Want(tb, http.StatusCreated).Text("data.id")
	}
	return f
}

// do sends a request past the network, straight to the handler.
func (f fixture) do(method, path, key, body string) (int, []byte) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "localhost"
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("Mcp-Protocol-Version", "2025-06-18")
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, r)
	answer, _ := io.ReadAll(w.Body)
	return w.Code, answer
}

// parallel measures requests from 16 callers at a time.
func (f fixture) parallel(b *testing.B, method, path, key string, want int, body func(n int64) string) {
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if status, answer := f.do(method, path, key, body(n.Add(1))); status != want {
				b.Errorf("%s %s: got %d %s, want %d", method, path, status, answer, want)
				return
			}
		}
	})
}

func nothing(int64) string { return "" }

func (f fixture) getContact(int64) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_contact","arguments":{"id":"` + f.contact + `"}}}`
}

// limited returns the secret of a key with high limits.
func (f fixture) limited() string {
	secret, _ := f.AddKey(admin.KeyInput{Name: new("limited"), FullAccess: new(true), Limits: &access.Limits{PerMinute: 1_000_000, PerDay: 1_000_000_000}})
	return secret
}

func BenchmarkMe(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) { f.parallel(b, "GET", "/v1/me", f.Agent, 200, nothing) })
}

// BenchmarkMeLimited is the same with limits that are never reached.
func BenchmarkMeLimited(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) {
		f.parallel(b, "GET", "/v1/me", f.limited(), 200, nothing)
	})
}

func BenchmarkGet(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) { f.parallel(b, "GET", "/v1/contacts/"+f.contact, f.Agent, 200, nothing) })
}

func BenchmarkList20(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) { f.parallel(b, "GET", "/v1/contacts?limit=20", f.Agent, 200, nothing) })
}

func BenchmarkCreate(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) {
		f.parallel(b, "POST", "/v1/contacts", f.Full, 201, func(n int64) string {
			return fmt.Sprintf(`{"first_name":"Load %d","last_name":"Test","email":"l%d@example.com","phone":"+447700900233"}`, n, n)
		})
	})
}

func BenchmarkToolsCall(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) {
		f.parallel(b, "POST", "/mcp", f.Agent, 200, f.getContact)
	})
}

func BenchmarkToolsCallLimited(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) {
		f.parallel(b, "POST", "/mcp", f.limited(), 200, f.getContact)
	})
}

func BenchmarkToolsList(b *testing.B) {
	eachEngine(b, func(b *testing.B, f fixture) {
		f.parallel(b, "POST", "/mcp", f.Agent, 200, func(int64) string { return `{"jsonrpc":"2.0","id":1,"method":"tools/list"}` })
	})
}
