package server_test

import (
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server"
	"trustpager/server/servertest"
)

// What a server remembers of those who call is bounded: after each of a thousand
// principals has called once, ninety-nine thousand more calls leave no more in its
// memory.
func TestMemoryIsFlatOverManyCallsOfManyPrincipals(t *testing.T) {
	const principals, rounds = 1_000, 99
	f := fixture{Server: servertest.New(t, t.TempDir()+"/memory.db", servertest.Options{Config: func(c *server.Config) { c.Now = nil }})}
	contact := f.Do("POST", "/v1/contacts", f.Full, `{"first_name":"Ada"}`).Want(t, 201).Text("data.id")
	scopes := []string{"contacts:write-approval", "deals:read"}
	limits := access.Limits{PerMinute: 1_000_000, PerDay: 1_000_000}
	keys := make([]string, principals)
	for i := range keys {
		keys[i], _ = f.AddKey(admin.KeyInput{Name: new(fmt.Sprintf("key %d", i)), Scopes: &scopes, Limits: &limits})
	}
	calls := []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_contact","arguments":{"id":"` + contact + `"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_contacts","arguments":{"limit":1}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`,
	}
	round := func(n int) {
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				for i := w; i < principals; i += 4 {
					r := httptest.NewRequest("POST", "/mcp", strings.NewReader(calls[(n+i)%len(calls)]))
					r.Host = "localhost"
					r.Header.Set("Authorization", "Bearer "+keys[i])
					r.Header.Set("Content-Type", "application/json")
					answer := httptest.NewRecorder()
					f.Handler().ServeHTTP(answer, r)
					if answer.Code != 200 {
						t.Errorf("got %d %s", answer.Code, answer.Body)
						return
					}
				}
			})
		}
		all.Wait()
	}
	heap := func() int64 {
		f.FlushUsage()
		for range 3 { // sync.Pool keeps things over one collection
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for n := range len(calls) {
		round(n)
	}
	before := heap()
	for n := range rounds - len(calls) + 1 {
		round(n)
	}
	after := heap()
	t.Logf("%d calls of %d principals: %.1f MB before, %.1f MB after", principals*(rounds+1), principals, float64(before)/1e6, float64(after)/1e6)
	if grown := after - before; grown > 1<<20 {
		t.Errorf("memory has grown by %d bytes, want it flat", grown)
	}
}
