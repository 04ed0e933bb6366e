package storage_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// open opens the database and returns the error.
func open(t *testing.T, url string, opts storage.Options) (*storage.DB, error) {
	opts.Key = storagetest.Key
	db, err := storage.Open(t.Context(), url, opts)
	if err == nil {
		t.Cleanup(func() { db.Close() })
	}
	return db, err
}

// empty runs test on a database without tables.
func empty(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "odd name? #1%41.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, storagetest.EmptyPostgres(t)) })
}

func TestTablesAreMadeFromNothing(t *testing.T) {
	empty(t, func(t *testing.T, url string) {
		db, err := open(t, url, storage.Options{})
		must(t, err)
		fill(t, db, "wsp_1")
		want := dump(t, db, "")
		must(t, db.Close())
		db, err = open(t, url, storage.Options{NoMigrate: true})
		must(t, err)
		if got := dump(t, db, ""); got != want {
			t.Errorf("opened again: the rows have changed:\n%s", changedLines(want, got))
		}
	})
}

func TestManyProcessesMakeTheTablesAtOnce(t *testing.T) {
	empty(t, func(t *testing.T, url string) {
		race(4, func(i int) {
			db, err := storage.Open(t.Context(), url, storage.Options{Key: storagetest.Key})
			if err != nil {
				t.Errorf("process %d: %v", i, err)
				return
			}
			db.Close()
		})
	})
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		db := storagetest.Open(t, url)
		must(t, db.Raw(t.Context(), fmt.Sprintf("INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, TRUE)", storage.Versions+1)))
		_, err := open(t, url, storage.Options{})
		if want := fmt.Sprintf("has version %d, newer than this program's %d", storage.Versions+1, storage.Versions); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open: got %v, want %q", err, want)
		}
	})
}

func TestOlderFileIsCopiedBeforeItIsMigrated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := storagetest.Open(t, path)
	ctx := t.Context()
	workspace(t, db, "wsp_1")
	// As it was before the migrations from 7 on.
	for _, column := range []string{"base", "votes", "assignee", "client", "owner_decides", "user_id", "told"} {
		if column == "base" {
			must(t, db.Raw(ctx, "DROP INDEX approvals_bodies"))
			must(t, db.Raw(ctx, "DROP INDEX approvals_user"))
			must(t, db.Raw(ctx, "DROP INDEX approvals_assignee"))
			must(t, db.Raw(ctx, "DROP INDEX approvals_all"))
			must(t, db.Raw(ctx, "DROP INDEX approvals_untold"))
		}
		must(t, db.Raw(ctx, "ALTER TABLE approvals DROP COLUMN "+column))
	}
	for _, table := range []string{"loans", "oauth_refresh_tokens", "oauth_families", "oauth_codes", "oauth_grants", "oauth_policies", "oauth_clients", "oauth_signing_keys", "sessions", "reset_links", "integrations", "audit_epochs", "tallies", "invitations", "subscriptions", "tasks"} {
		must(t, db.Raw(ctx, "DROP TABLE "+table))
	}
	for _, q := range []string{"DROP INDEX members_user", "DROP TABLE settings", "DROP INDEX records_updated", "DROP TRIGGER audit_entries_no_replace",
		"ALTER TABLE audit_heads DROP COLUMN mac", "ALTER TABLE members DROP COLUMN notice", "ALTER TABLE members DROP COLUMN told", "ALTER TABLE members DROP COLUMN told_at",
		"ALTER TABLE members DROP COLUMN warned", "ALTER TABLE users DROP COLUMN last_login", "DELETE FROM goose_db_version WHERE version_id >= 7"} {
		must(t, db.Raw(ctx, q))
	}
	must(t, db.Close())
	if _, err := open(t, path, storage.Options{NoMigrate: true}); err == nil || !strings.Contains(err.Error(), "trustpager migrate") {
		t.Errorf("open without migrating: got %v, want it to name the command", err)
	}
	copied := path + ".before-0006"
	if _, err := os.Stat(copied); err == nil {
		t.Error("a copy was made although nothing was migrated")
	}
	_, err := open(t, path, storage.Options{})
	must(t, err)
	info, err := os.Stat(copied)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the copy: got %v, %v; want a file of mode 0600", info, err)
	}
	old, err := sql.Open("sqlite", copied)
	must(t, err)
	defer old.Close()
	var version int
	var name string
	must(t, old.QueryRow("SELECT MAX(version_id) FROM goose_db_version").Scan(&version))
	must(t, old.QueryRow("SELECT name FROM workspaces").Scan(&name))
	if version != 6 || name != "wsp_1" {
		t.Errorf("the copy has version %d and the workspace %q, want 6 and wsp_1", version, name)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".copy-*"))
	if len(left) != 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
