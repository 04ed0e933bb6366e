package storage_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"trustpager/audit"
	"trustpager/secret"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

func TestConcurrentWritersKeepOneChain(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		ctx := t.Context()
		for _, id := range []string{"wsp_1", "wsp_2"} {
			workspace(t, dbs[0], id)
		}
		race(100, func(i int) {
			err := storage.InTx[txStore](dbs[i%len(dbs)])(ctx, func(tx txStore) error {
				for j := range 3 {
					e := audit.Entry{Workspace: fmt.Sprint("wsp_", (i+j)%2+1), Time: now, Event: audit.ActionRun, Target: fmt.Sprint(i, " ", j), Actor: audit.Actor{ID: fmt.Sprint(i)}}
					if err := tx.Audit(ctx, e); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("transaction %d: %v", i, err)
			}
		})
		for _, id := range []string{"wsp_1", "wsp_2"} {
			if n, err := dbs[0].VerifyAudit(ctx, id); n != 150 || err != nil {
				t.Errorf("VerifyAudit(%s): got %d entries, %v; want 150", id, n, err)
			}
		}
		page, err := dbs[0].AuditEntries(ctx, "wsp_1", audit.Query{Before: 101, Limit: 10})
		if err != nil || len(page) != 10 || page[0].Seq != 100 || page[9].Seq != 91 {
			t.Errorf("AuditEntries before 101: got %d entries, %v; want 100 to 91", len(page), err)
		}
		page, err = dbs[0].AuditEntries(ctx, "wsp_1", audit.Query{Actor: "7", Event: audit.ActionRun, Since: now, Until: now.Add(1e9), Limit: 10})
		if err != nil || len(page) == 0 || page[0].Actor.ID != "7" {
			t.Errorf("AuditEntries of an actor: got %v, %v", page, err)
		}
	})
}

func TestAuditLogIsAppendOnly(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		must(t, db.Audit(ctx, audit.Entry{Workspace: "wsp_1", Time: now, Event: audit.ActionRun}))
		statements := []string{
			"UPDATE audit_entries SET actor = 'x'",
			"UPDATE audit_entries SET seq = 7 WHERE seq = 1",
			"DELETE FROM audit_entries",
			"DELETE FROM audit_entries WHERE seq = 1",
		}
		if db.Engine() == "postgres" {
			statements = append(statements, "TRUNCATE audit_entries", "TRUNCATE audit_entries CASCADE")
		} else {
			statements = append(statements, "INSERT OR REPLACE INTO audit_entries SELECT workspace, seq, at, 'x', event, target, stored, seal FROM audit_entries")
		}
		for _, q := range statements {
			if err := db.Raw(ctx, q); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: got %v, want it refused", q, err)
			}
		}
		if n, err := db.VerifyAudit(ctx, "wsp_1"); n != 1 || err != nil {
			t.Errorf("VerifyAudit: got %d, %v; want 1", n, err)
		}
	})
}

func TestTamperingWithTheAuditLogShows(t *testing.T) {
	for _, tt := range []struct {
		name       string
		statements []string
		want       string // in the error
		sound      int64  // entries before it
	}{
		{"untouched", nil, "", 5},
		{"changed", []string{"UPDATE audit_entries SET stored = replace(stored, 'Target 3', 'Target X') WHERE seq = 3"}, "entry 3 was changed", 2},
		{"resealed by guess", []string{"UPDATE audit_entries SET seal = 'ab' WHERE seq = 3"}, "entry 3 was changed", 2},
		{"removed", []string{"DELETE FROM audit_entries WHERE seq = 3"}, "removed or reordered", 2},
		{"removed and closed up", []string{"DELETE FROM audit_entries WHERE seq = 3", "UPDATE audit_entries SET seq = 3 WHERE seq = 4", "UPDATE audit_entries SET seq = 4 WHERE seq = 5"}, "entry 3 was changed", 2},
		{"reordered", []string{"UPDATE audit_entries SET seq = 99 WHERE seq = 2", "UPDATE audit_entries SET seq = 2 WHERE seq = 4", "UPDATE audit_entries SET seq = 4 WHERE seq = 99"}, "entry 2 was changed", 1},
		{"cut off at the end", []string{"DELETE FROM audit_entries WHERE seq = 5"}, "removed at the end", 4},
		{"cut off, with the head set back", []string{"DELETE FROM audit_entries WHERE seq = 5",
			"UPDATE audit_heads SET seq = 4, seal = (SELECT seal FROM audit_entries e WHERE e.workspace = 'wsp_1' AND e.seq = 4) WHERE workspace = 'wsp_1'"}, "head was changed", 4},
		{"emptied", []string{"DELETE FROM audit_entries", "UPDATE audit_heads SET seq = 0, seal = ''"}, "head was changed", 0},
		{"emptied, with another workspace's head", []string{"DELETE FROM audit_entries", "UPDATE audit_heads SET seq = 0, seal = '', mac = (SELECT h.mac FROM audit_heads h WHERE h.workspace = 'wsp_2')"}, "head was changed", 0},
		{"without its head", []string{"DELETE FROM audit_heads WHERE workspace = 'wsp_1'"}, "no head", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storagetest.Each(t, func(t *testing.T, db *storage.DB) {
				ctx := t.Context()
				workspace(t, db, "wsp_1")
				workspace(t, db, "wsp_2")
				for i := range 5 {
					must(t, db.Audit(ctx, audit.Entry{Workspace: "wsp_1", Time: now, Event: audit.ActionRun, Target: fmt.Sprint("Target ", i+1)}))
				}
				drop := []string{"DROP TRIGGER audit_entries_no_update", "DROP TRIGGER audit_entries_no_delete"}
				if db.Engine() == "postgres" {
					drop = []string{"DROP TRIGGER audit_entries_append_only ON audit_entries"}
				}
				for _, q := range append(drop, tt.statements...) {
					must(t, db.Raw(ctx, q))
				}
				n, err := db.VerifyAudit(ctx, "wsp_1")
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("VerifyAudit: got %v, want %q", err, tt.want)
				}
				if n != tt.sound {
					t.Errorf("VerifyAudit: got %d sound entries, want %d", n, tt.sound)
				}
			})
		})
	}
}

func TestDatabaseOfAnotherKeyIsRefused(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		storagetest.Open(t, url)
		if _, err := storage.Open(t.Context(), url, storage.Options{Key: secret.NewKey()}); !errors.Is(err, storage.ErrWrongKey) {
			t.Errorf("open with another key: got %v, want ErrWrongKey", err)
		}
		storagetest.Open(t, url) // the right one still does
	})
}
