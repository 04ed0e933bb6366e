package approvals_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/storage/storagetest"
)

// BenchmarkDo measures the gate alone: a read, an action that runs, and one
// that is queued. SQLite is durable (FULL); PostgreSQL is the tests' cluster,
// which does not wait for the disk.
func BenchmarkDo(b *testing.B) {
	for engine, url := range map[string]func(b *testing.B) string{
		"sqlite":   func(b *testing.B) string { return filepath.Join(b.TempDir(), "bench.db") },
		"postgres": func(b *testing.B) string { return storagetest.Postgres(b) },
	} {
		b.Run(engine, func(b *testing.B) {
			w := newWorld(b, storagetest.Open(b, url(b)))
			runs := w.key("contacts:delete")
			id := w.contact("Ada")
			var n atomic.Int64
			do := func(b *testing.B, g access.Grant, action, id string, body func() string) {
				a, _ := w.s.Catalog.Find(action)
				b.ReportAllocs()
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						raw := json.RawMessage(body())
						if _, err := w.gate.Do(b.Context(), g, a, approvals.Incoming{ID: id, Input: raw, Request: approvals.Request{Door: "rest", Body: raw}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			b.Run("read", func(b *testing.B) { do(b, runs, "get_contact", id, func() string { return "" }) })
			b.Run("run", func(b *testing.B) {
				do(b, runs, "create_contact", "", func() string { return fmt.Sprintf(`{"first_name":"n%d"}`, n.Add(1)) })
			})
			b.Run("queue", func(b *testing.B) {
				// Each asks for what is asked for already once 50 are open, so that
				// the benchmark does not stop at the cap.
				g := w.key(agent)
				do(b, g, "create_contact", "", func() string { return fmt.Sprintf(`{"first_name":"q%d"}`, n.Add(1)%50) })
			})
			b.Run("approve", func(b *testing.B) {
				g := w.key(agent)
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					a := w.ask(g, "create_contact", "", fmt.Sprintf(`{"first_name":"a%d"}`, n.Add(1)))
					b.StartTimer()
					if _, err := w.approve(w.admin(), a.ID); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
