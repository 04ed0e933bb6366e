package storage_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"trustpager/access"
	"trustpager/secret"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

func checkMode(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: got %v, %v; want mode 0600", path, info, err)
	}
}

func TestBackupHoldsAllWhileItIsWritten(t *testing.T) {
	dir := t.TempDir()
	path, keyFile, archive := filepath.Join(dir, "test.db"), filepath.Join(dir, "test.key"), filepath.Join(dir, "backup.tar")
	_, err := secret.LoadKeys(keyFile)
	must(t, err)
	db := storagetest.Open(t, path)
	ctx := t.Context()
	fill(t, db, "wsp_1")
	// Others write meanwhile; each transaction adds to two counters.
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := storage.InTx[txStore](db)(ctx, func(tx txStore) error {
					return errors.Join(count(ctx, tx, "left"), count(ctx, tx, "right"))
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	must(t, storage.Backup(ctx, path, archive, keyFile))
	close(stop)
	writers.Wait()
	checkMode(t, archive)
	for _, f := range []string{path, path + "-wal", path + "-shm"} {
		checkMode(t, f)
	}
	if err := storage.Backup(ctx, path, archive, keyFile); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second backup to the same file: got %v, want it refused", err)
	}

	restored, restoredKey := filepath.Join(dir, "restored.db"), filepath.Join(dir, "restored.key")
	must(t, storage.Restore(archive, restored, restoredKey))
	checkMode(t, restored)
	checkMode(t, restoredKey)
	want, err := os.ReadFile(keyFile)
	must(t, err)
	if got, err := os.ReadFile(restoredKey); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the restored key: got another one, %v", err)
	}
	again := storagetest.Open(t, restored)
	if a, b := counted(t, again, "left"), counted(t, again, "right"); a != b {
		t.Errorf("restored counters: got %d and %d, want the same, as each transaction is there whole or not", a, b)
	}
	without := func(dump string) string {
		var lines []string
		for line := range strings.Lines(dump) {
			if !strings.HasPrefix(line, "key_usage") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	if got, want := without(dump(t, again, "")), without(dump(t, db, "")); got != want {
		t.Errorf("the restored rows differ:\n%s", changedLines(want, got))
	}
	if n, err := again.VerifyAudit(ctx, "wsp_1"); n != 1 || err != nil {
		t.Errorf("VerifyAudit of what was restored: got %d, %v; want 1", n, err)
	}
	if got := pages(t, again, "wsp_1", "contacts", listOf("alpha")); len(got) != 1 {
		t.Errorf("search in what was restored: got %v, want the contact", got)
	}
	if err := storage.Restore(archive, restored, filepath.Join(dir, "third.key")); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("restore over a database: got %v, want it refused", err)
	}
	if err := storage.Restore(archive, filepath.Join(dir, "third.db"), restoredKey); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("restore over a key: got %v, want it refused", err)
	}
}

func TestDamagedBackupRestoresNothing(t *testing.T) {
	dir := t.TempDir()
	keyFile, archive := filepath.Join(dir, "test.key"), filepath.Join(dir, "backup.tar")
	_, err := secret.LoadKeys(keyFile)
	must(t, err)
	path := filepath.Join(dir, "test.db")
	storagetest.Open(t, path)
	must(t, storage.Backup(t.Context(), path, archive, keyFile))
	whole, err := os.ReadFile(archive)
	must(t, err)
	for name, b := range map[string][]byte{"cut": whole[:len(whole)/2], "only the key": whole[:1024], "empty": nil, "no archive": bytes.Repeat([]byte("no"), 5000)} {
		out := t.TempDir()
		bad := filepath.Join(dir, "bad.tar")
		must(t, os.WriteFile(bad, b, 0o600))
		if err := storage.Restore(bad, filepath.Join(out, "x.db"), filepath.Join(out, "x.key")); err == nil {
			t.Errorf("%s: restored, want an error", name)
		}
		if left, err := os.ReadDir(out); len(left) != 0 || err != nil {
			t.Errorf("%s: left behind %v, %v; want nothing", name, left, err)
		}
	}
}

func TestBackupIsNotForPostgres(t *testing.T) {
	if err := storage.Backup(t.Context(), "postgres:///x", filepath.Join(t.TempDir(), "b.tar"), "none"); !errors.Is(err, storage.ErrNotSQLite) {
		t.Errorf("Backup: got %v, want it to name pg_dump", err)
	}
}

func TestDatabaseHoldsNoUsableSecret(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		db := storagetest.Open(t, url)
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		var secrets []string
		k, first := key(t, db, "wsp_1", "key_1")
		second := access.NewSecret()
		k.Last4 = second.Last4()
		must(t, db.RotateKey(ctx, k, second.Hash(), now, now))
		secrets = append(secrets, string(first), string(second))
		e := &webhook.Endpoints{Guard: &webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, Sealer: storagetest.Key, Now: storagetest.NewClock().Now}
		to, err := e.Check(ctx, "https://192.0.2.1/", nil)
		must(t, err)
		for range 2 { // the second time it keeps the first one's secret as the old one
			must(t, storage.InTx[webhook.Store](db)(ctx, func(tx webhook.Store) error {
				_, s, err := e.Set(ctx, tx, "wsp_1", "key_1", to)
				secrets = append(secrets, s.Text(), string(s))
				return err
			}))
		}
		all := dump(t, db, "")
		if !storage.IsPostgres(url) {
			must(t, db.Close())
			b, err := os.ReadFile(url)
			must(t, err)
			all += string(b)
		}
		if !strings.Contains(all, "https://192.0.2.1/") || !strings.Contains(all, first.Hash()) {
			t.Error("the dump does not hold the endpoint and the key's hash, so nothing is proved")
		}
		for _, s := range secrets {
			for _, form := range []string{s, strings.TrimPrefix(s, access.SecretPrefix), strings.TrimPrefix(s, "whsec_")} {
				if strings.Contains(all, form) {
					t.Errorf("the database holds the secret %q", form)
				}
			}
		}
	})
}
