package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"trustpager/jobs"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

var jobsNow = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

// enqueue adds a job that is due after d.
func enqueue(t *testing.T, db *storage.DB, kind, key string, payload any, d time.Duration) jobs.Job {
	t.Helper()
	j, err := jobs.New(jobsNow, "wsp_1", kind, key, payload, jobsNow.Add(d))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.EnqueueJob(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	return j
}

// claim claims all that is due after d, with a lease of a minute.
func claim(t *testing.T, db *storage.DB, kind, token string, d time.Duration) []jobs.Job {
	t.Helper()
	now := jobsNow.Add(d)
	got, err := db.ClaimJobs(t.Context(), kind, now, now.Add(time.Minute), token, 100)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func claimOne(t *testing.T, db *storage.DB, kind, token string, d time.Duration) jobs.Job {
	t.Helper()
	got := claim(t, db, kind, token, d)
	if len(got) != 1 {
		t.Fatalf("claimed %d jobs, want 1", len(got))
	}
	return got[0]
}

// checkDue compares when the next job of the kind is due; -1 means never.
func checkDue(t *testing.T, db *storage.DB, kind string, want time.Duration) {
	t.Helper()
	due, ok, err := db.NextJobDue(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	got := due.Sub(jobsNow)
	if !ok {
		got = -1
	}
	if got != want {
		t.Errorf("the next %s is due after %v, want %v", kind, got, want)
	}
}

func TestJobIsLeasedUntilItEnds(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		checkDue(t, db, "k", -1)
		want := enqueue(t, db, "k", "", map[string]int{"n": 1}, time.Second)
		enqueue(t, db, "other", "", nil, 0)
		checkDue(t, db, "k", time.Second)
		if got := claim(t, db, "k", "a", 0); len(got) != 0 {
			t.Errorf("claimed %d jobs before they were due", len(got))
		}
		j := claimOne(t, db, "k", "a", time.Second)
		if j.ID != want.ID || j.Workspace != "wsp_1" || string(j.Payload) != `{"n":1}` || j.State != jobs.Leased || j.Attempts != 1 || j.Token != "a" {
			t.Errorf("claimed %+v", j)
		}
		if got := claim(t, db, "k", "b", 2*time.Second); len(got) != 0 {
			t.Error("claimed a leased job")
		}
		checkDue(t, db, "k", 61*time.Second)

		j.RunAt, j.Attempts, j.LastError = jobsNow.Add(time.Hour), 1, "no luck"
		if err := db.RetryJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		checkDue(t, db, "k", time.Hour)
		j = claimOne(t, db, "k", "b", time.Hour)
		if j.Attempts != 2 || j.LastError != "no luck" {
			t.Errorf("claimed again as attempt %d after %q, want 2 after no luck", j.Attempts, j.LastError)
		}
		if err := db.FinishJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		checkDue(t, db, "k", -1)
		checkDue(t, db, "other", 0)
	})
}

func TestExpiredLeaseIsClaimedAndFencesTheFirst(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		enqueue(t, db, "k", "", nil, 0)
		first := claimOne(t, db, "k", "a", 0)
		second := claimOne(t, db, "k", "b", time.Minute)
		if second.ID != first.ID || second.Attempts != 2 {
			t.Errorf("claimed %+v, want the same job as attempt 2", second)
		}
		for name, end := range map[string]func(context.Context, jobs.Job) error{"Finish": db.FinishJob, "Retry": db.RetryJob, "Bury": db.BuryJob} {
			if err := end(ctx, first); !errors.Is(err, jobs.ErrLeaseLost) {
				t.Errorf("%sJob with a lost lease = %v, want ErrLeaseLost", name, err)
			}
		}
		checkDue(t, db, "k", 2*time.Minute)
		if err := db.FinishJob(ctx, second); err != nil {
			t.Error(err)
		}
		if err := db.FinishJob(ctx, second); !errors.Is(err, jobs.ErrLeaseLost) {
			t.Errorf("FinishJob of a job that is gone = %v, want ErrLeaseLost", err)
		}
	})
}

func TestManyClaimantsShareTheJobs(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		db := storagetest.Open(t, url)
		nodes := []*storage.DB{db, db}
		if storage.IsPostgres(url) {
			nodes[1] = storagetest.Open(t, url)
		}
		const n = 300
		for range n {
			enqueue(t, db, "k", "", nil, 0)
		}
		var mu sync.Mutex
		claimed := map[string]int{}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for {
					got, err := nodes[i%2].ClaimJobs(t.Context(), "k", jobsNow, jobsNow.Add(time.Minute), fmt.Sprint(i), 7)
					if err != nil {
						t.Error(err)
						return
					}
					if len(got) > 7 {
						t.Errorf("claimed %d jobs, want 7 at most", len(got))
					}
					mu.Lock()
					for _, j := range got {
						claimed[j.ID]++
					}
					done := len(claimed) == n
					mu.Unlock()
					if done || len(got) == 0 && !storage.IsPostgres(url) {
						return
					}
				}
			})
		}
		wg.Wait()
		if len(claimed) != n {
			t.Errorf("%d of %d jobs were claimed", len(claimed), n)
		}
		for id, times := range claimed {
			if times != 1 {
				t.Errorf("job %s was claimed %d times", id, times)
			}
		}
	})
}

func TestKeyIsUniqueWhileLive(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		first := enqueue(t, db, "k", "apr_1", 1, time.Hour)
		enqueue(t, db, "k", "apr_1", 2, 2*time.Hour) // moves it
		enqueue(t, db, "k", "apr_2", 3, 9*time.Hour)
		enqueue(t, db, "k2", "apr_1", 4, 0)
		checkDue(t, db, "k", 2*time.Hour)
		j := claimOne(t, db, "k", "a", 2*time.Hour)
		if j.ID != first.ID || string(j.Payload) != "2" {
			t.Errorf("claimed %+v, want the first job with the second payload", j)
		}

		enqueue(t, db, "k", "apr_1", 5, 3*time.Hour) // while it runs
		if got := claim(t, db, "k", "b", 2*time.Hour); len(got) != 0 {
			t.Error("a running job was claimed because it was enqueued")
		}
		if err := db.FinishJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		checkDue(t, db, "k", 3*time.Hour)
		j = claimOne(t, db, "k", "c", 3*time.Hour)
		if string(j.Payload) != "5" || j.Attempts != 1 {
			t.Errorf("claimed %+v, want the third payload as attempt 1", j)
		}

		enqueue(t, db, "k", "apr_1", 6, 4*time.Hour)
		j.RunAt = jobsNow.Add(8 * time.Hour)
		if err := db.RetryJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		checkDue(t, db, "k", 4*time.Hour) // the sooner of both

		j = claimOne(t, db, "k", "d", 4*time.Hour)
		enqueue(t, db, "k", "apr_1", 7, 5*time.Hour)
		if err := db.BuryJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		j = claimOne(t, db, "k", "e", 5*time.Hour)
		if j.Attempts != 1 {
			t.Errorf("attempt %d of a job that was enqueued anew as it failed, want 1", j.Attempts)
		}
		if err := db.BuryJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		second := enqueue(t, db, "k", "apr_1", 8, 6*time.Hour) // a dead job's key is free
		if j = claimOne(t, db, "k", "f", 6*time.Hour); j.ID != second.ID {
			t.Errorf("claimed %s, want %s", j.ID, second.ID)
		}
	})
}

func TestCancelJobs(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		enqueue(t, db, "k", "apr_1", nil, 0)
		for _, tt := range []struct {
			workspace, kind, key string
			want                 bool
		}{
			{"wsp_2", "k", "apr_1", false}, {"wsp_1", "k2", "apr_1", false}, {"wsp_1", "k", "", false},
			{"wsp_1", "k", "apr_1", true}, {"wsp_1", "k", "apr_1", false},
		} {
			if got, err := db.CancelJobs(ctx, tt.workspace, tt.kind, tt.key); got != tt.want || err != nil {
				t.Errorf("CancelJobs(%q, %q, %q) = %v, %v; want %v", tt.workspace, tt.kind, tt.key, got, err, tt.want)
			}
		}
		checkDue(t, db, "k", -1)

		enqueue(t, db, "k", "apr_1", nil, 0)
		j := claimOne(t, db, "k", "a", 0)
		enqueue(t, db, "k", "apr_1", nil, time.Hour)
		if got, err := db.CancelJobs(ctx, "wsp_1", "k", "apr_1"); got || err != nil {
			t.Errorf("CancelJobs of a running job = %v, %v; want false", got, err)
		}
		if err := db.FinishJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		checkDue(t, db, "k", -1) // it does not run once more
	})
}

func TestJobsOfAFailedTransactionAreNotEnqueued(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		boom := errors.New("boom")
		err := storage.InTx[jobs.Store](db)(t.Context(), func(tx jobs.Store) error {
			j, _ := jobs.New(jobsNow, "wsp_1", "k", "", nil, jobsNow)
			if err := tx.EnqueueJob(t.Context(), j); err != nil {
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) {
			t.Errorf("InTx = %v, want boom", err)
		}
		checkDue(t, db, "k", -1)
	})
}

func TestEnqueuedJobWakesTheWatchers(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		db := storagetest.Open(t, url)
		node := db
		if storage.IsPostgres(url) {
			node = storagetest.Open(t, url)
		}
		changed, stop := node.Watch("jobs")
		defer stop()
		// Another node's connection may still be on its way to listening, so
		// the job is enqueued until it is heard of.
		for range 100 {
			enqueue(t, db, "k", "", nil, 0)
			select {
			case <-changed:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		t.Error("no watcher woke")
	})
}

func TestPauseIsRemembered(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		db := storagetest.Open(t, url)
		check := func(db *storage.DB, want bool) {
			t.Helper()
			if got, err := db.JobsPaused(t.Context()); got != want || err != nil {
				t.Errorf("JobsPaused = %v, %v; want %v", got, err, want)
			}
		}
		check(db, false)
		for range 2 {
			if err := db.PauseJobs(t.Context(), jobsNow); err != nil {
				t.Fatal(err)
			}
		}
		check(db, true)
		check(storagetest.Open(t, url), true)
		if err := db.ResumeJobs(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(db, false)
	})
}

func TestDeadJobsAreKeptForTheOperator(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		enqueue(t, db, "k", "", json.RawMessage(`{}`), 0)
		j := claimOne(t, db, "k", "a", 0)
		j.LastError = "no such thing"
		if err := db.BuryJob(ctx, j); err != nil {
			t.Fatal(err)
		}
		checkDue(t, db, "k", -1)
		dead, err := db.DeadJobs(ctx, 10)
		if err != nil || len(dead) != 1 || dead[0].ID != j.ID || dead[0].LastError != "no such thing" || dead[0].State != jobs.Dead {
			t.Errorf("DeadJobs = %+v, %v", dead, err)
		}
		if n, err := db.PurgeDeadJobs(ctx, jobsNow); n != 0 || err != nil {
			t.Errorf("PurgeDeadJobs = %d, %v; want 0 as it is not that old", n, err)
		}
		if n, err := db.PurgeDeadJobs(ctx, jobsNow.Add(time.Hour)); n != 1 || err != nil {
			t.Errorf("PurgeDeadJobs = %d, %v; want 1", n, err)
		}
	})
}
