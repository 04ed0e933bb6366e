package storage_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// eachBench runs bench on both engines, with 2,000 contacts. PostgreSQL's server
// is the tests' own, which does not wait for its disk.
func eachBench(b *testing.B, bench func(b *testing.B, db *storage.DB)) {
	for engine, url := range map[string]func(b *testing.B) string{
		"sqlite":   func(b *testing.B) string { return filepath.Join(b.TempDir(), "bench.db") },
		"postgres": func(b *testing.B) string { return storagetest.Postgres(b) },
	} {
		b.Run(engine, func(b *testing.B) {
			db := storagetest.Open(b, url(b))
			cat := defaultCatalog(b)
			workspace(b, db, "wsp_1")
			must(b, storage.InTx[catalog.Store](db)(b.Context(), func(tx catalog.Store) error {
				for i := range 2000 {
					r, entries, terms := record(b, cat, "contacts", fmt.Sprintf("con_%05d", i), contactBody(i))
					if err := tx.InsertRecord(b.Context(), "wsp_1", r, entries, terms); err != nil {
						return err
					}
				}
				return nil
			}))
			must(b, db.Raw(b.Context(), "ANALYZE"))
			b.ResetTimer()
			bench(b, db)
		})
	}
}

func contactBody(i int) string {
	return fmt.Sprintf(`{"city":"City %d","country":"DE","email":"ada%d@example.com","first_name":"Ada","last_name":"Lovelace %d","notes":"The first to write a program for a machine that was never built."}`, i%50, i, i)
}

func BenchmarkKeyBySecret(b *testing.B) {
	eachBench(b, func(b *testing.B, db *storage.DB) {
		_, s := key(b, db, "wsp_1", "key_1")
		for b.Loop() {
			if _, err := db.KeyBySecret(b.Context(), s.Hash()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDelegation(b *testing.B) {
	eachBench(b, func(b *testing.B, db *storage.DB) {
		person(b, db, "wsp_1", "usr_1", access.Owner)
		connect(b, db, "wsp_1", "cli_1", "usr_1", "1")
		for b.Loop() {
			if _, _, err := db.Delegation(b.Context(), "wsp_1", "fam_1"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	eachBench(b, func(b *testing.B, db *storage.DB) {
		for b.Loop() {
			if _, err := db.Record(b.Context(), "wsp_1", "contacts", "con_01000", false); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkListRecords20(b *testing.B) {
	for name, q := range map[string]catalog.Query{
		"newest":   {Desc: true},
		"sorted":   {SortField: "city", AfterValue: "city 30", AfterID: "con_00000"},
		"filtered": {Desc: true, Filters: []catalog.Filter{{Field: "country", Op: catalog.Equal, Value: "de"}}},
		"searched": {Desc: true, Terms: []string{"lovelace", "7"}},
	} {
		q.Limit = 20
		b.Run(name, func(b *testing.B) {
			eachBench(b, func(b *testing.B, db *storage.DB) {
				for b.Loop() {
					if recs, _, err := db.ListRecords(b.Context(), "wsp_1", "contacts", q); err != nil || len(recs) != 20 {
						b.Fatal(len(recs), err)
					}
				}
			})
		})
	}
}

func BenchmarkInsertRecord(b *testing.B) {
	cat := defaultCatalog(b)
	eachBench(b, func(b *testing.B, db *storage.DB) {
		var n atomic.Int64
		b.SetParallelism(16) // what waits shares a commit
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := int(n.Add(1)) + 2000
				r, entries, terms := record(b, cat, "contacts", fmt.Sprintf("con_%08d", i), contactBody(i))
				if err := db.InsertRecord(b.Context(), "wsp_1", r, entries, terms); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkCreateApproval(b *testing.B) {
	eachBench(b, func(b *testing.B, db *storage.DB) {
		var n atomic.Int64
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			credential := fmt.Sprint("key_", n.Add(1))
			for pb.Next() {
				if _, _, err := db.CreateApproval(b.Context(), approval("wsp_1", credential), now, 1<<30); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkDecideApproval(b *testing.B) {
	eachBench(b, func(b *testing.B, db *storage.DB) {
		ids := make(chan string, b.N)
		must(b, storage.InTx[approvals.Store](db)(b.Context(), func(tx approvals.Store) error {
			for i := range b.N {
				a, _, err := tx.CreateApproval(b.Context(), approval("wsp_1", fmt.Sprint("key_", i%100)), now, 1<<30)
				if err != nil {
					return err
				}
				ids <- a.ID
			}
			return nil
		}))
		b.ResetTimer()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := db.DecideApproval(b.Context(), "wsp_1", <-ids, approvals.Decision{Status: approvals.Rejected, At: now}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
