package storage_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/messages"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

func TestTallyNeverExceedsItsBound(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		day := messages.Tally{Owner: "key_1", What: "sends", Period: "2026-01-31"}
		var added atomic.Int64
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() {
				for range 20 {
					_, ok, err := db.AddTally(t.Context(), "wsp_1", day, 1, 100, now)
					if err != nil {
						t.Error(err)
					}
					if ok {
						added.Add(1)
					}
				}
			})
		}
		done.Wait()
		if n, err := db.Tally(t.Context(), "wsp_1", day); err != nil || n != 100 || added.Load() != 100 {
			t.Errorf("160 calls at once with a bound of 100: counted %d, told %d that they were, err %v; want 100 of each", n, added.Load(), err)
		}
		if n, ok, err := db.AddTally(t.Context(), "wsp_1", messages.Tally{Owner: "key_1", What: "sends", Period: "2026-02-01"}, 3, 2, now); n != 0 || ok || err != nil {
			t.Errorf("more than the bound at once, on a new day: got %d, %v, %v; want it refused", n, ok, err)
		}
		if n, err := db.PurgeTallies(t.Context(), now.Add(time.Second)); n != 1 || err != nil {
			t.Errorf("purge: got %d, %v, want the one row gone", n, err)
		}
	})
}
