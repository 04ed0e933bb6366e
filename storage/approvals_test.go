package storage_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// nodes opens the database as several server processes would; SQLite is for one.
func nodes(t *testing.T, url string) []*storage.DB {
	db := storagetest.Open(t, url)
	if !storage.IsPostgres(url) {
		return []*storage.DB{db}
	}
	return []*storage.DB{db, storagetest.Open(t, url)}
}

// race runs fn n times at once.
func race(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() { <-start; fn(i) })
	}
	close(start)
	wg.Wait()
}

func TestDecideApprovalOnlyOneWins(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		workspace(t, dbs[0], "wsp_1")
		for range 10 {
			a := ask(t, dbs[0], approval("wsp_1", "key_1"))
			var wins atomic.Int64
			race(16, func(i int) {
				status := []approvals.Status{approvals.Approved, approvals.Rejected, approvals.Expired, approvals.Withdrawn}[i%4]
				d := approvals.Decision{Status: status, By: access.Principal{Kind: access.KindPerson, ID: fmt.Sprint(i)}, Reason: fmt.Sprint(i), At: now}
				got, err := dbs[i%len(dbs)].DecideApproval(t.Context(), "wsp_1", a.ID, d)
				switch {
				case err == nil:
					wins.Add(1)
					if got.Status != status || got.DecidedBy.ID != fmt.Sprint(i) || got.DecisionReason != fmt.Sprint(i) || !got.DecidedAt.Equal(now) || string(got.Request.Body) != string(a.Request.Body) {
						t.Errorf("DecideApproval: got %+v, want it %s by %d", got, status, i)
					}
				case !problem.Is(err, problem.Conflict):
					t.Errorf("DecideApproval: got %v, want a conflict", err)
				}
			})
			if wins.Load() != 1 {
				t.Errorf("%d of 16 deciders won, want 1", wins.Load())
			}
		}
		if _, err := dbs[0].DecideApproval(t.Context(), "wsp_1", "apr_none", approvals.Decision{Status: approvals.Approved}); !problem.Is(err, problem.NotFound) {
			t.Errorf("DecideApproval of none: got %v, want %s", err, problem.NotFound)
		}
	})
}

func TestMoveExecution(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		a := ask(t, db, approval("wsp_1", "key_1"))
		if _, err := db.MoveExecution(ctx, "wsp_1", a.ID, approvals.NotExecuted, approvals.Ran{Execution: approvals.Done}); !problem.Is(err, problem.Conflict) {
			t.Errorf("MoveExecution of a pending one: got %v, want a conflict", err)
		}
		_, err := db.DecideApproval(ctx, "wsp_1", a.ID, approvals.Decision{Status: approvals.Approved, At: now, Edited: []byte(`{"x":1}`)})
		must(t, err)
		failure := problem.Errorf(problem.Validation, "no").WithFix("fix").WithHint("hint")
		failure.Fields = []problem.Field{{Path: "p", Expected: "e", Got: "g"}}
		got, err := db.MoveExecution(ctx, "wsp_1", a.ID, approvals.NotExecuted, approvals.Ran{Execution: approvals.Failed, Error: failure, At: now})
		if err != nil || got.Execution != approvals.Failed || fmt.Sprintf("%+v", *got.Error) != fmt.Sprintf("%+v", *failure) || string(got.Edited) != `{"x":1}` {
			t.Errorf("MoveExecution: got %+v, %v; want it failed with the error", got, err)
		}
		var wins atomic.Int64
		race(16, func(i int) {
			to := []approvals.Execution{approvals.NotExecuted, approvals.Dismissed}[i%2]
			_, err := dbs[i%len(dbs)].MoveExecution(ctx, "wsp_1", a.ID, approvals.Failed, approvals.Ran{Execution: to, At: now})
			if err == nil {
				wins.Add(1)
			} else if !problem.Is(err, problem.Conflict) {
				t.Errorf("MoveExecution: got %v, want a conflict", err)
			}
		})
		if wins.Load() != 1 {
			t.Errorf("%d of 16 moved the execution, want 1", wins.Load())
		}
	})
}

func TestCreateApprovalCapIsExact(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		workspace(t, dbs[0], "wsp_1")
		var made, full atomic.Int64
		race(100, func(i int) {
			_, created, err := dbs[i%len(dbs)].CreateApproval(t.Context(), approval("wsp_1", "key_1"), now, 30)
			switch {
			case err == nil && created:
				made.Add(1)
			case problem.Is(err, problem.QueueFull):
				full.Add(1)
			default:
				t.Errorf("CreateApproval: got created %t, %v", created, err)
			}
		})
		if made.Load() != 30 || full.Load() != 70 {
			t.Errorf("%d were made and %d refused, want 30 and 70", made.Load(), full.Load())
		}
		if _, _, err := dbs[0].CreateApproval(t.Context(), approval("wsp_1", "key_2"), now, 30); err != nil {
			t.Errorf("another credential: got %v, want its own cap", err)
		}
	})
}

func TestSameRequestIsAskedOnce(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		same := func(at time.Time) approvals.Approval {
			a := approval("wsp_1", "key_1")
			a.DedupeKey, a.CreatedAt, a.ExpiresAt = "same", at, at.Add(time.Hour)
			return a
		}
		var made atomic.Int64
		var ids sync.Map
		race(100, func(i int) {
			a, created, err := dbs[i%len(dbs)].CreateApproval(ctx, same(now), now.Add(-approvals.SameAsk), 50)
			if err != nil {
				t.Errorf("CreateApproval: %v", err)
			}
			if created {
				made.Add(1)
			}
			ids.Store(a.ID, true)
		})
		var n int
		var id string
		ids.Range(func(k, _ any) bool { n++; id = k.(string); return true })
		if a, err := db.Approval(ctx, "wsp_1", id); made.Load() != 1 || n != 1 || err != nil || a.Asked != 100 {
			t.Errorf("100 same requests: made %d of %d ids, asked %d times, %v; want one, 100 times", made.Load(), n, a.Asked, err)
		}
		create := func(at time.Time) (string, bool) {
			t.Helper()
			a, created, err := db.CreateApproval(ctx, same(at), at.Add(-approvals.SameAsk), 50)
			must(t, err)
			return a.ID, created
		}
		decide := func(id string, s approvals.Status, at time.Time) {
			t.Helper()
			_, err := db.DecideApproval(ctx, "wsp_1", id, approvals.Decision{Status: s, At: at})
			must(t, err)
		}
		decide(id, approvals.Rejected, now)
		if got, created := create(now.Add(approvals.SameAsk)); created || got != id {
			t.Errorf("just after the rejection: got %s, created %t; want the rejected one", got, created)
		}
		second, created := create(now.Add(approvals.SameAsk + time.Millisecond))
		if !created {
			t.Error("later: got the rejected one, want a new one")
		}
		decide(second, approvals.Withdrawn, now.Add(time.Hour))
		third, created := create(now.Add(time.Hour))
		if !created {
			t.Error("after it was withdrawn: got an old one, want a new one")
		}
		if _, created := create(now.Add(2 * time.Hour)); !created {
			t.Errorf("when %s is over, though still pending: got it, want a new one", third)
		}
	})
}

func TestExtendApproval(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		a := ask(t, db, approval("wsp_1", "key_1"))
		until := now.Add(5 * time.Hour)
		if got, err := db.ExtendApproval(ctx, "wsp_1", a.ID, until); err != nil || !got.ExpiresAt.Equal(until) {
			t.Errorf("ExtendApproval: got %v, %v; want %v", got.ExpiresAt, err, until)
		}
		for _, s := range []approvals.Status{approvals.Approved, approvals.Rejected} {
			a := ask(t, db, approval("wsp_1", "key_1"))
			_, err := db.DecideApproval(ctx, "wsp_1", a.ID, approvals.Decision{Status: s, At: now})
			must(t, err)
			if _, err := db.ExtendApproval(ctx, "wsp_1", a.ID, until); !problem.Is(err, problem.Conflict) {
				t.Errorf("ExtendApproval of a %s one: got %v, want a conflict", s, err)
			}
		}
	})
}

func TestIdempotencyKeyIsTakenOnce(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		k := approvals.IdempotencyKey{Credential: "key_1", Key: "k", Fingerprint: "f", Now: now, Since: now.Add(-approvals.IdempotencyTTL)}
		boom := errors.New("boom")
		take := func(db *storage.DB, k approvals.IdempotencyKey, answer string, fail error) (r approvals.Replay, used bool, err error) {
			err = storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
				if r, used, err = tx.TakeIdempotencyKey(ctx, "wsp_1", k); err != nil || used {
					return err
				}
				if err := tx.FinishIdempotencyKey(ctx, "wsp_1", k, approvals.Replay{Response: []byte(answer)}); err != nil {
					return err
				}
				return fail
			})
			return r, used, err
		}
		if _, _, err := take(db, k, `"failed"`, boom); !errors.Is(err, boom) {
			t.Errorf("a request that failed: got %v, want its error", err)
		}
		var first atomic.Int64
		var answers sync.Map
		race(32, func(i int) {
			answer := fmt.Sprint(i)
			r, used, err := take(dbs[i%len(dbs)], k, answer, nil)
			if err != nil {
				t.Errorf("take: %v", err)
			}
			if used {
				answer = string(r.Response)
				if r.Fingerprint != "f" {
					t.Errorf("fingerprint: got %q, want f", r.Fingerprint)
				}
			} else {
				first.Add(1)
			}
			answers.Store(answer, true)
		})
		var n int
		answers.Range(func(any, any) bool { n++; return true })
		if first.Load() != 1 || n != 1 {
			t.Errorf("%d were first, and there were %d answers; want 1 and 1", first.Load(), n)
		}
		late := k
		late.Now = now.Add(approvals.IdempotencyTTL + time.Millisecond)
		late.Since, late.Fingerprint = late.Now.Add(-approvals.IdempotencyTTL), "g"
		if _, used, err := take(db, late, `1`, nil); used || err != nil {
			t.Errorf("after a day: got used %t, %v; want it free", used, err)
		}
	})
}

func TestPurgesAreBounded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		const n = storage.PurgeBatch + 5
		must(t, storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
			for i := range n {
				a, _, err := tx.CreateApproval(ctx, approval("wsp_1", "key_1"), now, n)
				if err != nil {
					return err
				}
				if i < n-2 { // two stay open
					if _, err := tx.DecideApproval(ctx, "wsp_1", a.ID, approvals.Decision{Status: approvals.Rejected, At: now}); err != nil {
						return err
					}
				}
				k := approvals.IdempotencyKey{Credential: "key_1", Key: a.ID, Now: now}
				if _, _, err := tx.TakeIdempotencyKey(ctx, "wsp_1", k); err != nil {
					return err
				}
			}
			return nil
		}))
		for _, tt := range []struct {
			name  string
			at    time.Time
			purge func() (int64, error)
			want  []int64
		}{
			{"request bodies too young", now, func() (int64, error) { return db.PurgeRequests(ctx, now) }, []int64{0}},
			{"request bodies", now, func() (int64, error) { return db.PurgeRequests(ctx, now.Add(1e9)) }, []int64{storage.PurgeBatch, 3, 0}},
			{"idempotency keys", now, func() (int64, error) { return db.PurgeIdempotencyKeys(ctx, now.Add(1e9)) }, []int64{storage.PurgeBatch, 5, 0}},
		} {
			for i, want := range tt.want {
				if got, err := tt.purge(); got != want || err != nil {
					t.Errorf("%s, call %d: got %d, %v; want %d", tt.name, i, got, err, want)
				}
			}
		}
		open, err := db.ListApprovals(ctx, "wsp_1", approvals.Query{Status: approvals.Pending, Limit: 10})
		if err != nil || len(open) != 2 || len(open[0].Request.Body) == 0 {
			t.Errorf("open approvals: got %d, %v; want 2 with their bodies", len(open), err)
		}
	})
}
