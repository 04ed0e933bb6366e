package storage_test

import (
	"errors"
	"testing"
	"time"

	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/jobs"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

func listOf(term string) catalog.Query { return catalog.Query{Terms: []string{term}, Limit: 10} }

// heard waits for the watcher to be told.
func heard(t *testing.T, what string, changed <-chan struct{}) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Errorf("%s: the watcher was not told", what)
	}
}

func TestWatchersAreToldAfterTheCommit(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		a, b := ask(t, db, approval("wsp_1", "key_1")), ask(t, db, approval("wsp_1", "key_1"))
		decide := func(tx approvals.Store, id string) error {
			_, err := tx.DecideApproval(ctx, "wsp_1", id, approvals.Decision{Status: approvals.Rejected, At: now})
			return err
		}
		for _, node := range dbs {
			// The node may still be on its way to listening, which wakes all
			// watchers once: wait for that first.
			if storage.IsPostgres(url) {
				ready, stop := node.Watch("ready")
				deadline := time.After(20 * time.Second)
				for waiting := true; waiting; {
					must(t, db.Raw(ctx, "SELECT pg_notify('trustpager', 'ready')"))
					select {
					case <-ready:
						waiting = false
					case <-deadline:
						t.Fatal("the node does not listen")
					case <-time.After(50 * time.Millisecond):
					}
				}
				stop()
			}
		}
		last := dbs[len(dbs)-1]
		changed, stop := last.Watch(a.ID)
		defer stop()
		other, stopOther := last.Watch(b.ID)
		defer stopOther()
		boom := errors.New("boom")
		if err := storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
			if err := decide(tx, b.ID); err != nil {
				return err
			}
			return boom
		}); !errors.Is(err, boom) {
			t.Errorf("InTx: got %v, want boom", err)
		}
		must(t, storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
			if err := decide(tx, a.ID); err != nil {
				return err
			}
			select {
			case <-changed:
				t.Error("told before the commit")
			default:
			}
			return nil
		}))
		heard(t, "a commit", changed)
		// What comes through one channel comes in order, so silence is certain.
		select {
		case <-other:
			t.Error("told of what was rolled back")
		default:
		}
		stop()
		if got, err := last.Approval(ctx, "wsp_1", a.ID); err != nil || got.Status != approvals.Rejected {
			t.Errorf("when told: got %s, %v; want the decision to be there", got.Status, err)
		}
	})
}

func TestAnotherProcessOnTheFileIsNoticed(t *testing.T) {
	url := t.TempDir() + "/test.db"
	server := storagetest.Open(t, url)
	changed, stop := server.Watch(storage.JobsTopic)
	defer stop()
	commandLine := storagetest.Open(t, url)
	workspace(t, commandLine, "wsp_1")
	j, err := jobs.New(now, "wsp_1", "k", "", nil, now)
	must(t, err)
	must(t, commandLine.EnqueueJob(t.Context(), j))
	heard(t, "another process's commit", changed)
}
