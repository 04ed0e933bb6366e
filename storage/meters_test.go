package storage_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// A counter counts requests on a PostgreSQL database whose clock the test sets.
type counter struct {
	t   *testing.T
	url string
	db  *storage.DB
	now time.Time
}

func newCounter(t *testing.T) *counter {
	c := &counter{t: t, url: storagetest.Postgres(t)}
	c.db = storagetest.Open(t, c.url)
	c.at(time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC))
	workspace(t, c.db, "wsp_1")
	return c
}

// at sets the clock of the database.
func (c *counter) at(now time.Time) {
	c.t.Helper()
	c.now = now
	storagetest.SetClock(c.t, c.url, now)
}

func (c *counter) count(workspace, credential string, l access.Limits) access.Reading {
	c.t.Helper()
	r, err := c.db.Meters().Count(c.t.Context(), workspace, credential, l)
	must(c.t, err)
	return r
}

// allow checks that n requests are within the limits and the next one is not.
func (c *counter) allow(n int, l access.Limits) access.Reading {
	c.t.Helper()
	for i := range n {
		if r := c.count("wsp_1", "key_1", l); !r.Within {
			c.t.Fatalf("request %d of %d: got %+v, want it within %+v", i+1, n, r, l)
		}
	}
	r := c.count("wsp_1", "key_1", l)
	if r.Within {
		c.t.Fatalf("request %d: got %+v, want it over %+v", n+1, r, l)
	}
	return r
}

func (c *counter) used(hour time.Time, n int64, o access.Outcome) {
	c.t.Helper()
	must(c.t, c.db.AddUsage(c.t.Context(), []access.Count{{Workspace: "wsp_1", Credential: "key_1", Hour: hour, Action: "a", Outcome: o, N: n}}, nil))
}

func TestOnlyPostgresHasMeters(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		if got, want := db.Meters() != nil, db.Engine() == "postgres"; got != want {
			t.Errorf("got meters: %v, want %v", got, want)
		}
		_, err := db.PurgeMeters(t.Context())
		must(t, err)
	})
}

func TestMetersRefill(t *testing.T) {
	c := newCounter(t)
	l := access.Limits{PerMinute: 60}
	if r := c.count("wsp_1", "key_1", l); r.Ahead != time.Second || r.Used != 1 || r.Rest != 14*time.Hour {
		t.Errorf("got %+v, want 1s ahead, 1 used, 14h left of the day", r)
	}
	if r := c.allow(59, l); r.Ahead != time.Minute || r.Used != 60 {
		t.Errorf("got %+v, want 1m ahead and 60 used: what is refused is not counted", r)
	}
	c.at(c.now.Add(time.Second - time.Microsecond))
	c.allow(0, l)
	c.at(c.now.Add(time.Microsecond))
	c.allow(1, l)
	c.at(c.now.Add(10 * time.Second))
	c.allow(10, l)
	c.at(c.now.Add(time.Hour))
	c.allow(60, l)
	if r := c.count("wsp_1", "key_2", l); !r.Within || r.Used != 1 {
		t.Errorf("another key: got %+v, want it within", r)
	}
	if r := c.count("wsp_2", "key_1", l); !r.Within || r.Used != 1 {
		t.Errorf("another workspace: got %+v, want it within", r)
	}
}

func TestMetersObeyNewLimitsAtOnce(t *testing.T) {
	c := newCounter(t)
	c.allow(600, access.Limits{PerMinute: 600})
	c.allow(0, access.Limits{PerMinute: 6})
	c.allow(0, access.Limits{PerDay: 600})
	c.allow(5, access.Limits{PerDay: 605})
	c.at(c.now.Add(time.Minute))
	c.allow(6, access.Limits{PerMinute: 6})
}

func TestMetersOfTheDay(t *testing.T) {
	c := newCounter(t)
	l := access.Limits{PerMinute: 2, PerDay: 3}
	c.allow(2, l)
	c.at(c.now.Add(time.Hour))
	if r := c.allow(1, l); r.Used != 3 || r.Rest != 13*time.Hour {
		t.Errorf("got %+v, want 3 used and 13h left of the day", r)
	}
	c.at(time.Date(2026, 3, 2, 23, 59, 59, 999_999_000, time.UTC))
	c.allow(0, l)
	c.at(c.now.Add(time.Microsecond))
	c.allow(2, l)
	c.at(c.now.Add(24 * time.Hour))
	c.at(c.now.Add(time.Hour))
	c.allow(2, l)
	c.at(c.now.Add(time.Hour))
	c.allow(1, l)
}

func TestMetersWhenTheClockIsSetBack(t *testing.T) {
	c := newCounter(t)
	l := access.Limits{PerMinute: 60}
	c.allow(60, l)
	c.at(c.now.Add(-48 * time.Hour))
	if r := c.allow(0, l); r.Ahead != time.Minute {
		t.Errorf("got %+v, want it no more than a minute ahead", r)
	}
	c.at(c.now.Add(time.Second))
	c.allow(1, l)
	c.at(c.now.Add(time.Minute))
	c.allow(60, l)
}

// What is in key_usage goes on to count when there is no row: at the first
// sight, and after a crash, which empties the table.
func TestMetersBeginWithWhatWasUsedToday(t *testing.T) {
	c := newCounter(t)
	midnight := c.now.Truncate(24 * time.Hour)
	c.used(midnight.Add(-time.Hour), 1000, access.OutcomeOK)
	c.used(midnight, 30, access.OutcomeOK)
	c.used(midnight.Add(9*time.Hour), 10, access.OutcomeDenied)
	c.used(midnight.Add(9*time.Hour), 500, access.OutcomeLimited)
	l := access.Limits{PerMinute: 1000, PerDay: 100}
	c.allow(60, l)
	c.used(midnight.Add(10*time.Hour), 50, access.OutcomeOK) // all but what the last second had
	must(t, c.db.Raw(t.Context(), "TRUNCATE meters"))
	c.allow(10, l)
	var persistence string
	rows, err := c.db.Rows(t.Context(), "SELECT relpersistence::text FROM pg_class WHERE relname = 'meters'")
	must(t, err)
	defer rows.Close()
	if rows.Next(); rows.Scan(&persistence) != nil || persistence != "u" {
		t.Errorf("got a table of persistence %q, want u (unlogged)", persistence)
	}
}

// While a key or client has no limits its requests are not counted here, so the
// day's count is taken from key_usage when it has some again.
func TestMetersAfterATimeWithoutLimits(t *testing.T) {
	c := newCounter(t)
	ctx := t.Context()
	l := access.Limits{PerDay: 100}
	k, _ := key(t, c.db, "wsp_1", "key_1")
	k.Limits = l
	must(t, c.db.UpdateKey(ctx, k))
	c.count("wsp_1", "key_1", l)
	c.used(c.now, 41, access.OutcomeOK) // that one, and 40 of the time without
	must(t, c.db.UpdateKey(ctx, k))
	if r := c.count("wsp_1", "key_1", l); r.Used != 2 {
		t.Errorf("limits stayed: got %d used, want 2", r.Used)
	}
	k.Limits = access.Limits{}
	must(t, c.db.UpdateKey(ctx, k))
	k.Limits = l
	must(t, c.db.UpdateKey(ctx, k))
	if r := c.count("wsp_1", "key_1", l); r.Used != 42 {
		t.Errorf("limits again: got %d used, want the 41 and this one", r.Used)
	}

	person(t, c.db, "wsp_1", "usr_1", access.Owner)
	grant := connect(t, c.db, "wsp_1", "cli_1", "usr_1", "1").ID
	p, err := c.db.Policy(ctx, "wsp_1", "cli_1")
	must(t, err)
	for _, limits := range []access.Limits{l, {}, l} {
		c.count("wsp_1", grant, l)
		must(t, c.db.UpdatePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: "cli_1", Ceiling: p.Ceiling, Limits: limits}))
	}
	if r := c.count("wsp_1", grant, l); r.Used != 1 {
		t.Errorf("a client: got %d used, want it to begin with what is in key_usage, 0", r.Used)
	}
}

func TestMetersAreExactAcrossConnections(t *testing.T) {
	c := newCounter(t)
	dbs := []*storage.DB{c.db, storagetest.Open(t, c.url), storagetest.Open(t, c.url)}
	for _, l := range []access.Limits{{PerMinute: 70}, {PerMinute: 1000, PerDay: 170}} {
		want := int64(70)
		if l.PerDay > 0 {
			want = 100
		}
		var within atomic.Int64
		race(400, func(i int) {
			r, err := dbs[i%len(dbs)].Meters().Count(t.Context(), "wsp_1", "key_1", l)
			if err != nil {
				t.Error(err)
			}
			if r.Within {
				within.Add(1)
			}
		})
		if within.Load() != want {
			t.Errorf("%+v: got %d within, want %d", l, within.Load(), want)
		}
		c.at(c.now.Add(time.Minute))
	}
}

func TestMetersArePurged(t *testing.T) {
	c := newCounter(t)
	l := access.Limits{PerDay: 5}
	for i := range storage.PurgeBatch + 5 {
		must(t, c.db.Raw(t.Context(), fmt.Sprintf("INSERT INTO meters VALUES ('wsp_1', 'key_old_%d', 0, %d, 3)", i, c.now.Unix()/86400-2)))
	}
	c.count("wsp_1", "key_1", l)
	c.at(c.now.Add(24 * time.Hour))
	c.count("wsp_1", "key_2", l)
	for _, want := range []int64{storage.PurgeBatch, 5, 0} {
		if n, err := c.db.PurgeMeters(t.Context()); n != want || err != nil {
			t.Errorf("got %d, %v; want %d", n, err, want)
		}
	}
	c.at(c.now.Add(24 * time.Hour))
	if n, err := c.db.PurgeMeters(t.Context()); n != 1 || err != nil {
		t.Errorf("two days later: got %d, %v; want that of key_1", n, err)
	}
}

func TestMetersFailClosed(t *testing.T) {
	c := newCounter(t)
	must(t, c.db.Raw(t.Context(), "DROP TABLE meters"))
	r, err := c.db.Meters().Count(t.Context(), "wsp_1", "key_1", access.Limits{PerDay: 5})
	if r.Within || !problem.Is(err, problem.Unavailable) {
		t.Errorf("got %+v, %v; want %s", r, err, problem.Unavailable)
	}
}

// A caller that goes away costs no connection and is no trouble of the database.
func TestMetersOutliveTheirCaller(t *testing.T) {
	c := newCounter(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := c.db.Meters().Count(ctx, "wsp_1", "key_1", access.Limits{PerDay: 5}); !r.Within || err != nil {
		t.Errorf("got %+v, %v; want it counted", r, err)
	}
}

// Only the meters may lose what a crash of the database takes.
func TestOnlyMetersDoNotWaitForTheDisk(t *testing.T) {
	db := storagetest.Open(t, storagetest.Postgres(t)+"&synchronous_commit=remote_apply")
	for want, pool := range map[string]*sql.DB{"remote_apply": db.Pool(), "off": db.Quick()} {
		var got string
		if err := pool.QueryRowContext(t.Context(), "SHOW synchronous_commit").Scan(&got); got != want || err != nil {
			t.Errorf("got synchronous_commit %q, %v; want %s", got, err, want)
		}
	}
}

func BenchmarkMeters(b *testing.B) {
	url := storagetest.Postgres(b)
	db := storagetest.Open(b, url)
	for name, keys := range map[string]int64{"one key": 1, "many keys": 1000} {
		b.Run(name, func(b *testing.B) {
			var n atomic.Int64
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := db.Meters().Count(b.Context(), "wsp_1", fmt.Sprint("key_", n.Add(1)%keys), access.Limits{PerMinute: 1_000_000, PerDay: 1_000_000_000})
					if err != nil || !r.Within {
						b.Error(r, err)
						return
					}
				}
			})
		})
	}
}
