package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// txStore is what the tests of transactions need of a store.
type txStore interface {
	AddUsage(ctx context.Context, counts []access.Count, last []access.LastUse) error
	UsedSince(ctx context.Context, workspace, credential string, since time.Time) (int64, error)
	Audit(ctx context.Context, e audit.Entry) error
	EnqueueJob(ctx context.Context, j jobs.Job) error
	Savepoint(ctx context.Context, fn func() error) error
}

// count adds one to a counter, which every test can read back.
func count(ctx context.Context, tx txStore, name string) error {
	return tx.AddUsage(ctx, []access.Count{{Workspace: "wsp_1", Credential: name, Hour: now, Action: "a", Outcome: access.OutcomeOK, N: 1}}, nil)
}

func counted(t *testing.T, db txStore, name string) int64 {
	t.Helper()
	n, err := db.UsedSince(context.WithoutCancel(t.Context()), "wsp_1", name, time.Time{})
	must(t, err)
	return n
}

// together runs the members so that, on SQLite, all of them wait for the writer
// and then share one commit. It returns their errors.
func together(t *testing.T, db *storage.DB, members ...func(tx txStore) error) []error {
	t.Helper()
	inTx := storage.InTx[txStore](db)
	errs := make([]error, len(members))
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var once sync.Once
		start := func() { once.Do(func() { close(started) }) }
		defer start() // also if it fails
		// It shares the others' commit, and so their fate.
		inTx(t.Context(), func(txStore) error { start(); <-release; return nil })
	})
	<-started
	var waiting sync.WaitGroup
	for i, m := range members {
		waiting.Add(1)
		wg.Go(func() {
			waiting.Done()
			errs[i] = inTx(t.Context(), m)
		})
	}
	waiting.Wait()
	db.WaitQueued(t, len(members))
	close(release)
	wg.Wait()
	return errs
}

func TestTransactionsThatWaitShareACommitAndKeepTheirOwnFate(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		boom := errors.New("boom")
		var members []func(tx txStore) error
		for i := range 60 {
			members = append(members, func(tx txStore) error {
				if err := count(ctx, tx, fmt.Sprint("own", i)); err != nil {
					return err
				}
				if err := tx.Audit(ctx, audit.Entry{Workspace: "wsp_1", Time: now, Event: audit.ActionRun, Target: fmt.Sprint(i)}); err != nil {
					return err
				}
				switch i % 3 {
				case 1:
					return boom
				case 2:
					panic("aargh")
				}
				return nil
			})
		}
		errs := together(t, db, members...)
		for i, err := range errs {
			want := int64(0)
			switch i % 3 {
			case 0:
				want = 1
				if err != nil {
					t.Errorf("member %d: got %v, want it done", i, err)
				}
			case 1:
				if !errors.Is(err, boom) {
					t.Errorf("member %d: got %v, want its own error", i, err)
				}
			case 2:
				if err == nil || !strings.Contains(err.Error(), "aargh") {
					t.Errorf("member %d: got %v, want its panic as an error", i, err)
				}
			}
			if got := counted(t, db, fmt.Sprint("own", i)); got != want {
				t.Errorf("member %d: counted %d, want %d", i, got, want)
			}
		}
		if n, err := db.VerifyAudit(ctx, "wsp_1"); n != 20 || err != nil {
			t.Errorf("VerifyAudit: got %d entries, %v; want 20", n, err)
		}
	})
}

func TestNestedTransactionIsASavepoint(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		woken, stop := db.Watch(storage.JobsTopic)
		defer stop()
		drain(woken)
		boom := errors.New("boom")
		write := func(tx txStore, name string) {
			must(t, count(ctx, tx, name))
			must(t, tx.Audit(ctx, audit.Entry{Workspace: "wsp_1", Time: now, Event: audit.ActionRun, Target: name}))
		}
		err := storage.InTx[txStore](db)(ctx, func(tx txStore) error {
			write(tx, "outer")
			nested := storage.InTx[txStore](tx.(*storage.DB))
			if err := nested(ctx, func(tx txStore) error { write(tx, "kept"); return nil }); err != nil {
				return err
			}
			for name, fail := range map[string]func() error{"undone": func() error { return boom }, "panicked": func() error { panic(boom) }} {
				err := nested(ctx, func(tx txStore) error {
					write(tx, name)
					j, _ := jobs.New(now, "wsp_1", "k", "", nil, now)
					must(t, tx.EnqueueJob(ctx, j))
					err := tx.Savepoint(ctx, func() error { write(tx, name+" deeper"); return nil })
					if err != nil {
						return err
					}
					return fail()
				})
				if err == nil || !strings.Contains(err.Error(), "boom") {
					t.Errorf("nested transaction: got %v, want boom", err)
				}
			}
			// A statement that the database refuses must not spoil the rest.
			err := tx.Savepoint(ctx, func() error {
				w := access.Workspace{ID: "wsp_1"}
				return tx.(*storage.DB).CreateWorkspace(ctx, w)
			})
			if err == nil {
				t.Error("the same workspace twice: got no error")
			}
			write(tx, "after")
			return nil
		})
		must(t, err)
		for name, want := range map[string]int64{"outer": 1, "kept": 1, "undone": 0, "undone deeper": 0, "panicked": 0, "panicked deeper": 0, "after": 1} {
			if got := counted(t, db, name); got != want {
				t.Errorf("%s: counted %d, want %d", name, got, want)
			}
		}
		entries, err := db.AuditEntries(ctx, "wsp_1", audit.Query{Limit: 10})
		must(t, err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Target)
		}
		if want := "after kept outer"; strings.Join(got, " ") != want {
			t.Errorf("audit entries: got %q, want %q", got, want)
		}
		checkDue(t, db, "k", -1)
		if db.Engine() == "sqlite" { // told synchronously, so silence can be seen
			select {
			case <-woken:
				t.Error("the watchers were told of a job that was undone")
			default:
			}
		}
	})
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func TestCancelledTransactionIsNotRun(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		workspace(t, db, "wsp_1")
		inTx := storage.InTx[txStore](db)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := inTx(ctx, func(txStore) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("InTx with a cancelled context: got %v, want it cancelled", err)
		}

		// One that gives up while it waits does not run; one that has begun goes
		// on, and harms nobody.
		ctx, cancel = context.WithCancel(t.Context())
		errs := together(t, db,
			func(tx txStore) error {
				cancel()
				return count(ctx, tx, "begun")
			},
			func(tx txStore) error { return count(t.Context(), tx, "other") })
		for i, err := range errs {
			if err != nil {
				t.Errorf("member %d: got %v, want it done", i, err)
			}
		}
		if a, b := counted(t, db, "begun"), counted(t, db, "other"); a != 1 || b != 1 {
			t.Errorf("counted %d and %d, want 1 and 1", a, b)
		}
		if db.Engine() != "sqlite" {
			return
		}
		ctx, cancel = context.WithCancel(t.Context())
		started, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 2)
		go func() {
			ended <- inTx(t.Context(), func(txStore) error { close(started); <-release; return nil })
		}()
		<-started
		waited := make(chan error, 1)
		go func() { waited <- inTx(ctx, func(txStore) error { t.Error("it ran"); return nil }) }()
		db.WaitQueued(t, 1)
		cancel()
		close(release)
		if err := <-waited; !errors.Is(err, context.Canceled) {
			t.Errorf("one that gave up while it waited: got %v, want it cancelled", err)
		}
		must(t, <-ended)
	})
}

func TestClosedDatabaseIsUnavailable(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		db, err := storage.Open(t.Context(), url, storage.Options{Key: storagetest.Key})
		must(t, err)
		workspace(t, db, "wsp_1")
		// What was accepted before is still done.
		started, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			done <- storage.InTx[txStore](db)(t.Context(), func(tx txStore) error {
				close(started)
				<-release
				return count(t.Context(), tx, "last")
			})
		}()
		<-started
		closed := make(chan error, 1)
		go func() { closed <- db.Close() }()
		close(release)
		if err := <-done; err != nil {
			t.Errorf("a transaction that ran when the database was closed: got %v, want it done", err)
		}
		must(t, <-closed)
		if err := count(t.Context(), db, "late"); !problem.Is(err, problem.Unavailable) {
			t.Errorf("a write after Close: got %v, want %s", err, problem.Unavailable)
		}
		again := storagetest.Open(t, url)
		if a, b := counted(t, again, "last"), counted(t, again, "late"); a != 1 || b != 0 {
			t.Errorf("counted %d and %d, want 1 and 0", a, b)
		}
	})
}

func TestLostTransactionFailsAllItsMembers(t *testing.T) {
	db := storagetest.Open(t, t.TempDir()+"/test.db")
	ctx := t.Context()
	workspace(t, db, "wsp_1")
	write := func(name string, bytes int) func(tx txStore) error {
		return func(tx txStore) error {
			if err := count(ctx, tx, name); err != nil {
				return err
			}
			return tx.EnqueueJob(ctx, jobs.Job{ID: name, Workspace: "wsp_1", Kind: "k", Payload: []byte(strings.Repeat("x", bytes)), RunAt: now, CreatedAt: now})
		}
	}
	check := func(what string, errs []error, names ...string) {
		t.Helper()
		for i, err := range errs {
			if !problem.Is(err, problem.Unavailable) && !problem.Is(err, problem.Unknown) {
				t.Errorf("%s: member %d got %v, want the database's trouble", what, i, err)
			}
		}
		for _, name := range names {
			if got := counted(t, db, name); got != 0 {
				t.Errorf("%s: %s was done, want nothing done", what, name)
			}
		}
		must(t, storage.InTx[txStore](db)(ctx, write("after "+what, 10)))
		if got := counted(t, db, "after "+what); got != 1 {
			t.Errorf("%s: a write afterwards counted %d, want 1", what, got)
		}
	}

	// The disk is full: the big one fails, and takes the others with it.
	must(t, db.Raw(ctx, "PRAGMA max_page_count = 120"))
	errs := together(t, db, write("small", 10), write("big", 4<<20), write("small2", 10))
	var lost int
	for _, err := range errs {
		if err != nil {
			lost++
		}
	}
	if errs[1] == nil || lost == 0 {
		t.Fatalf("a full disk: got %v, want at least the big one to fail", errs)
	}
	// Those in the same commit as the big one failed; a later group may have done.
	for i, name := range []string{"small", "big", "small2"} {
		if got, want := counted(t, db, name), int64(0); errs[i] != nil && got != want {
			t.Errorf("a full disk: %s got %v, but it was done", name, errs[i])
		} else if errs[i] == nil && got != 1 {
			t.Errorf("a full disk: %s was acknowledged, but it is not there", name)
		}
	}
	check("a full disk", errs[1:2], "big")

	// The connection is gone.
	must(t, db.CutWriter(ctx))
	errs = together(t, db, write("cut", 10))
	for _, err := range errs {
		if err != nil {
			t.Errorf("a lost connection: got %v, want the writer to open another", err)
		}
	}

	// The connection goes away in the middle of a group.
	errs = together(t, db, write("m1", 10), func(tx txStore) error {
		db.CutNow()
		return count(ctx, tx, "m2")
	})
	if errs[1] == nil {
		t.Error("a connection cut in a transaction: got no error")
	}
	check("a connection cut in a transaction", errs[1:], "m2")
	for i, name := range []string{"m1"} {
		if acknowledged, done := errs[i] == nil, counted(t, db, name) == 1; acknowledged != done {
			t.Errorf("a connection cut: %s acknowledged %t, done %t; want both the same", name, acknowledged, done)
		}
	}
}

func TestLostConnectionToPostgresIsUnavailable(t *testing.T) {
	db := storagetest.Open(t, storagetest.Postgres(t))
	ctx := t.Context()
	workspace(t, db, "wsp_1")
	err := storage.InTx[txStore](db)(ctx, func(tx txStore) error {
		must(t, count(ctx, tx, "lost"))
		must(t, db.Raw(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"))
		return count(ctx, tx, "lost2")
	})
	if !problem.Is(err, problem.Unavailable) {
		t.Errorf("a connection cut in a transaction: got %v, want %s", err, problem.Unavailable)
	}
	must(t, storage.InTx[txStore](db)(ctx, func(tx txStore) error { return count(ctx, tx, "after") }))
	if a, b := counted(t, db, "lost"), counted(t, db, "after"); a != 0 || b != 1 {
		t.Errorf("counted %d and %d, want 0 and 1", a, b)
	}

	// All idle connections are cut: the next transactions find new ones.
	must(t, db.Raw(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"))
	for i := range 20 {
		if err := storage.InTx[txStore](db)(ctx, func(tx txStore) error { return count(ctx, tx, "again") }); err != nil {
			t.Errorf("transaction %d after a restart: got %v, want it done", i, err)
		}
	}
}

func TestDeadlockIsTriedAgain(t *testing.T) {
	db := storagetest.Open(t, storagetest.Postgres(t))
	ctx := t.Context()
	workspace(t, db, "wsp_1")
	cat := defaultCatalog(t)
	for _, id := range []string{"con_a", "con_b"} {
		insert(t, db, cat, "wsp_1", "contacts", id, `{"first_name":"Ada"}`)
	}
	type recordStore interface {
		txStore
		Touch(ctx context.Context, workspace, resource, id string) error
	}
	var both sync.WaitGroup
	both.Add(2)
	var once [2]sync.Once
	var wg sync.WaitGroup
	for i, order := range [][]string{{"con_a", "con_b"}, {"con_b", "con_a"}} {
		wg.Go(func() {
			err := storage.InTx[recordStore](db)(ctx, func(tx recordStore) error {
				if err := tx.Touch(ctx, "wsp_1", "contacts", order[0]); err != nil {
					return err
				}
				once[i].Do(func() { both.Done(); both.Wait() })
				return tx.Touch(ctx, "wsp_1", "contacts", order[1])
			})
			if err != nil {
				t.Errorf("a transaction in a deadlock: got %v, want it done at the second try", err)
			}
		})
	}
	wg.Wait()
	for _, id := range []string{"con_a", "con_b"} {
		r, err := db.Record(ctx, "wsp_1", "contacts", id, false)
		if err != nil || r.Version != 3 {
			t.Errorf("%s: got version %d, %v; want 3", id, r.Version, err)
		}
	}
}

// What a transaction says that it has done is what has not been undone.
func TestDoings(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, w := t.Context(), workspace(t, db, "wsp_1")
		undone := errors.New("undone")
		add := func(tx approvals.Store, kind string) {
			t.Helper()
			j, err := jobs.New(now, w.ID, kind, "", nil, now)
			err = errors.Join(err, tx.EnqueueJob(ctx, j), tx.Audit(ctx, audit.Entry{Workspace: w.ID, Event: audit.Event(kind)}))
			if err != nil {
				t.Fatal(err)
			}
		}
		got := ""
		err := storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
			add(tx, "one")
			if err := tx.Savepoint(ctx, func() error { add(tx, "two"); return undone }); !errors.Is(err, undone) {
				return err
			}
			add(tx, "three")
			enqueued, entries := tx.Doings(w.ID)
			for i, j := range enqueued {
				got += j.Kind + " " + string(entries[i].Event) + " "
			}
			return undone
		})
		if got != "one one three three " || !errors.Is(err, undone) {
			t.Errorf("got %q, %v", got, err)
		}
		err = storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
			if enqueued, entries := tx.Doings(w.ID); len(enqueued)+len(entries) > 0 {
				t.Errorf("another transaction has %v, %v", enqueued, entries)
			}
			return nil
		})
		if enqueued, entries := db.Doings(w.ID); err != nil || enqueued != nil || entries != nil {
			t.Errorf("got %v, %v, %v outside of transactions", enqueued, entries, err)
		}
	})
}
