package access_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"trustpager/access"
)

// failing is a usage store that fails while broken, and adds up what it gets.
type failing struct {
	mu     sync.Mutex
	broken bool
	n      map[string]int64
	last   map[string]access.LastUse
}

func (f *failing) AddUsage(_ context.Context, counts []access.Count, last []access.LastUse) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		return errors.New("no database")
	}
	for _, c := range counts {
		f.n[c.Credential+" "+c.Action+" "+string(c.Outcome)+" "+c.Hour.Format("15:04")] += c.N
	}
	for _, l := range last {
		f.last[l.Credential] = l
	}
	return nil
}

func (f *failing) breaks(broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

func TestUsageKeepsCountsWhenTheStoreFails(t *testing.T) {
	m := newMeter(t)
	store := &failing{broken: true, n: map[string]int64{}, last: map[string]access.LastUse{}}
	u := &access.Usage{Store: store, Now: m.clock.Now}
	g := limited("key_1", 0, 0)
	u.Add(g, "create_contact", access.OutcomeOK)
	u.Add(g, "create_contact", access.OutcomeOK)
	if err := u.Flush(t.Context()); err == nil {
		t.Error("got no error, want one")
	}
	m.clock.Advance(time.Hour)
	u.Add(g, "create_contact", access.OutcomeOK)
	u.Add(g, "delete_contact", access.OutcomeQueued)
	if err := u.Flush(t.Context()); err == nil {
		t.Error("got no error, want one")
	}
	store.breaks(false)
	for range 2 { // the second has nothing to add
		if err := u.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for what, want := range map[string]int64{"key_1 create_contact ok 10:00": 2, "key_1 create_contact ok 11:00": 1, "key_1 delete_contact queued 11:00": 1} {
		if got := store.n[what]; got != want {
			t.Errorf("%s: got %d, want %d", what, got, want)
		}
	}
	if got := store.last["key_1"]; got.Action != "delete_contact" || !got.At.Equal(m.clock.Now()) {
		t.Errorf("last use: got %+v, want delete_contact now", got)
	}
}

func TestUsageLosesNothing(t *testing.T) {
	store := &failing{n: map[string]int64{}, last: map[string]access.LastUse{}}
	m := newMeter(t)
	u := &access.Usage{Store: store, Now: m.clock.Now}
	ctx, stop := context.WithCancel(t.Context())
	var run, add sync.WaitGroup
	run.Go(func() { u.Run(ctx) })
	run.Go(func() {
		for i := range 200 {
			store.breaks(i%2 == 0)
			u.Flush(t.Context())
		}
		store.breaks(false)
	})
	for range 16 {
		add.Go(func() {
			for range 1000 {
				u.Add(limited("key_1", 0, 0), "get_contact", access.OutcomeOK)
			}
		})
	}
	add.Wait()
	stop() // the last flush comes after the end of ctx
	run.Wait()
	if err := u.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := store.n["key_1 get_contact ok 10:00"]; got != 16_000 {
		t.Errorf("got %d, want 16000", got)
	}
}

func TestUsageIsAddedUpInTheStore(t *testing.T) {
	eachWorld(t, func(w *world) {
		k, _ := w.key(nil)
		u := &access.Usage{Store: w.db, Now: w.clock.Now}
		g := k.Grant(w.workspace)
		for range 3 {
			u.Add(g, "get_contact", access.OutcomeOK)
			u.Add(g, "get_contact", access.OutcomeLimited)
			w.must(u.Flush(w.t.Context()))
		}
		w.clock.Advance(time.Hour)
		u.Add(g, "create_contact", access.OutcomeQueued)
		w.must(u.Flush(w.t.Context()))

		counts, err := w.db.UsageHistory(w.t.Context(), w.workspace.ID, k.ID, time.Time{})
		w.must(err)
		got := map[string]int64{}
		for _, c := range counts {
			got[c.Hour.Format("15:04 ")+c.Action+" "+string(c.Outcome)] = c.N
		}
		for what, want := range map[string]int64{"10:00 get_contact ok": 3, "10:00 get_contact limited": 3, "11:00 create_contact queued": 1} {
			if got[what] != want {
				w.t.Errorf("%s: got %d, want %d", what, got[what], want)
			}
		}
		// The limiter of another process goes on from here.
		l := &access.Limiter{Now: w.clock.Now, Used: w.db.UsedSince}
		g.Limits = access.Limits{PerDay: 5}
		q, err := l.Allow(w.t.Context(), g)
		w.must(err)
		if q.Remaining != 0 {
			w.t.Errorf("got %d left of 5 after 4 and this one, want 0", q.Remaining)
		}
		if _, err := l.Allow(w.t.Context(), g); err == nil {
			w.t.Error("got the sixth allowed, want it refused")
		}
		stored, err := w.db.Key(w.t.Context(), w.workspace.ID, k.ID, false)
		w.must(err)
		if stored.LastUsedFor != "create_contact" || !stored.LastUsedAt.Equal(w.clock.Now()) {
			w.t.Errorf("last use: got %q at %v, want create_contact at %v", stored.LastUsedFor, stored.LastUsedAt, w.clock.Now())
		}
	})
}
