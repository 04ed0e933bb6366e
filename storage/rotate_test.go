package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/oauth"
	"trustpager/secret"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

// sealedText finds what is sealed in a dump.
var sealedText = regexp.MustCompile(`v1\.[A-Za-z0-9_-]{38,}`)

// openWith opens the database with the key.
func openWith(t *testing.T, url string, key secret.Key) *storage.DB {
	t.Helper()
	db, err := storage.Open(t.Context(), url, storage.Options{Key: key})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// rotate rotates the key of the database, which nobody has open.
func rotate(t *testing.T, url string, old, next secret.Key) (storage.Rotated, error) {
	t.Helper()
	return storage.Rotate(t.Context(), url, storage.Rotation{Old: old, New: next, Now: func() time.Time { return now }, Prepare: func() error { return nil }})
}

// fillSealed stores a sealed value of each kind, and some audit entries. It
// returns what opens them.
func fillSealed(t *testing.T, db *storage.DB, key secret.Key) (open func(t *testing.T, db *storage.DB, key secret.Key) error) {
	t.Helper()
	ctx := t.Context()
	seal := func(plain, place string) string {
		sealed, err := key.Seal([]byte(plain), place)
		must(t, err)
		return sealed
	}
	workspace(t, db, "wsp_1")
	workspace(t, db, "wsp_2") // without entries
	setEndpoint(t, db, "wh_1", "wsp_1", "key_1", "https://alpha/", seal("old", webhook.Place("wsp_1", "key_1")))
	_, err := db.RotateEndpoint(ctx, "wsp_1", "key_1", seal("new", webhook.Place("wsp_1", "key_1")), now)
	must(t, err)
	_, err = db.AddSigningKey(ctx, oauth.SigningKey{ID: "kid_1", Private: seal("seed", oauth.KeyPlace("kid_1")), CreatedAt: now, ActiveAt: now}, "", now)
	must(t, err)
	j, err := jobs.New(now, "wsp_1", integrations.MailKind, "", nil, now.Add(24*time.Hour))
	must(t, err)
	j.Payload, err = json.Marshal(seal("message", integrations.MessagePlace(j.ID)))
	must(t, err)
	must(t, db.EnqueueJob(ctx, j))
	a := mailbox("int_1", "wsp_1")
	a.Sealed = seal("password", integrations.AccountPlace("wsp_1", "int_1"))
	must(t, db.CreateAccount(ctx, a))
	for range 3 {
		must(t, db.Audit(ctx, audit.Entry{Workspace: "wsp_1", Time: now, Event: audit.ActionRun, Target: "con_1"}))
	}
	return func(t *testing.T, db *storage.DB, key secret.Key) error {
		t.Helper()
		opens := func(sealed, place, want string) error {
			plain, err := key.Open(sealed, place)
			if err == nil && string(plain) != want {
				t.Errorf("%s: got %q, want %q", place, plain, want)
			}
			return err
		}
		e, err := db.EndpointOf(ctx, "wsp_1", "key_1")
		must(t, err)
		keys, err := db.SigningKeys(ctx, time.Time{})
		must(t, err)
		a, err := db.Account(ctx, "wsp_1", "int_1", false)
		must(t, err)
		var payload string
		rows, err := db.Rows(ctx, `SELECT payload FROM jobs WHERE id = $1`, j.ID)
		must(t, err)
		for rows.Next() {
			var text string
			must(t, rows.Scan(&text))
			must(t, json.Unmarshal([]byte(text), &payload))
		}
		must(t, rows.Close())
		results := []error{
			opens(e.Secret, webhook.Place("wsp_1", "key_1"), "new"), opens(e.OldSecret, webhook.Place("wsp_1", "key_1"), "old"),
			opens(keys[0].Private, oauth.KeyPlace("kid_1"), "seed"), opens(payload, integrations.MessagePlace(j.ID), "message"),
			opens(a.Sealed, integrations.AccountPlace("wsp_1", "int_1"), "password"),
		}
		if opened := slices.Contains(results, nil); opened && slices.ContainsFunc(results, func(err error) bool { return err != nil }) {
			t.Errorf("some values open and some do not: %v", results)
		}
		return results[0]
	}
}

func TestRotationSealsEverythingAnew(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ctx := t.Context()
		keys := []secret.Key{storagetest.Key, secret.NewKey(), secret.NewKey()}
		db := openWith(t, url, keys[0])
		opens := fillSealed(t, db, keys[0])
		if err := opens(t, db, keys[0]); err != nil {
			t.Fatalf("before the rotation: %v", err)
		}
		for i, next := range keys[1:] {
			old := keys[i]
			before := sealedText.FindAllString(dump(t, db, ""), -1)
			if len(before) < 5 {
				t.Fatalf("got %d sealed values, want some to prove something", len(before))
			}
			must(t, db.Close())
			done, err := rotate(t, url, old, next)
			must(t, err)
			if len(done.Lost) > 0 || done.Sealed["webhook secrets"] != 2 || done.Sealed["OAuth signing keys"] != 1 || done.Sealed["messages on their way"] != 1 || done.Sealed["integrations"] != 1 {
				t.Errorf("rotation %d: got %+v", i, done)
			}
			if _, err := storage.Open(ctx, url, storage.Options{Key: old}); !errors.Is(err, storage.ErrWrongKey) {
				t.Errorf("the old key opens the database: got %v, want %v", err, storage.ErrWrongKey)
			}
			if !storage.IsPostgres(url) {
				for _, file := range []string{url, url + "-wal", url + "-journal"} {
					raw, err := os.ReadFile(file)
					if err != nil && !os.IsNotExist(err) {
						t.Fatal(err)
					}
					for _, text := range before {
						if strings.Contains(string(raw), text) {
							t.Errorf("%s still holds a value that the old key opens", file)
						}
					}
				}
			}
			db = openWith(t, url, next)
			after := dump(t, db, "")
			for _, text := range before {
				if strings.Contains(after, text) {
					t.Errorf("rotation %d: %s is as it was: a column is not in the list of what is sealed", i, text)
				}
			}
			if err := opens(t, db, next); err != nil {
				t.Errorf("the new key: %v", err)
			}
			if err := opens(t, db, old); err == nil {
				t.Error("the old key still opens secrets")
			}
			// The log goes on, and its earlier parts can be verified.
			must(t, db.Audit(ctx, audit.Entry{Workspace: "wsp_1", Time: now, Event: audit.ActionRun, Target: "con_2"}))
			for w, want := range map[string]int64{"wsp_1": 3 + int64(i+1)*2, "wsp_2": int64(i + 1)} {
				if n, err := db.VerifyAudit(ctx, w); err != nil || n != want {
					t.Errorf("rotation %d: the log of %s: got %d entries, %v; want %d", i, w, n, err, want)
				}
			}
			entries, err := db.AuditEntries(ctx, "wsp_1", audit.Query{Event: audit.KeyFileRotated, Limit: 10})
			if err != nil || len(entries) != i+1 || entries[0].Actor != access.Operator.Actor() {
				t.Errorf("the log tells of %d rotations, %v; want %d", len(entries), err, i+1)
			}
		}
	})
}

func TestOldKeyCannotForgeTheLog(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ctx := t.Context()
		next := secret.NewKey()
		db := openWith(t, url, storagetest.Key)
		fillSealed(t, db, storagetest.Key)
		must(t, db.Close())
		_, err := rotate(t, url, storagetest.Key, next)
		must(t, err)
		db = openWith(t, url, next)
		// With the old key and the database, all seals up to the rotation can be made
		// anew; the first one after it tells.
		drop := []string{"DROP TRIGGER audit_entries_no_update"}
		if storage.IsPostgres(url) {
			drop = []string{"DROP TRIGGER audit_entries_append_only ON audit_entries"}
		}
		for _, q := range drop {
			must(t, db.Raw(ctx, q))
		}
		rows, err := db.Rows(ctx, `SELECT seq, stored FROM audit_entries WHERE workspace = 'wsp_1' ORDER BY seq`)
		must(t, err)
		prev, forged := "", map[int64][2]string{}
		for rows.Next() {
			var seq int64
			var stored string
			must(t, rows.Scan(&seq, &stored))
			if seq > 3 {
				break
			}
			stored = strings.Replace(stored, "con_1", "con_9", 1)
			prev = audit.Seal(storagetest.Key.Derive("audit"), prev, []byte(stored))
			forged[seq] = [2]string{stored, prev}
		}
		must(t, rows.Close())
		for seq, f := range forged {
			must(t, db.Raw(ctx, `UPDATE audit_entries SET stored = $2, seal = $3 WHERE workspace = 'wsp_1' AND seq = $1`, seq, f[0], f[1]))
		}
		if n, err := db.VerifyAudit(ctx, "wsp_1"); err == nil || n != 3 || !strings.Contains(err.Error(), "entry 4 was changed") {
			t.Errorf("forged with the old key: got %d, %v; want the first entry after the rotation to tell", n, err)
		}
		// Nor can the end of a part be moved.
		must(t, db.Raw(ctx, `UPDATE audit_epochs SET seq = 2 WHERE workspace = 'wsp_1'`))
		if _, err := db.VerifyAudit(ctx, "wsp_1"); err == nil || !strings.Contains(err.Error(), "up to 2 was changed") {
			t.Errorf("a moved end: got %v", err)
		}
	})
}

func TestRotationIsRefused(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ctx := t.Context()
		db := openWith(t, url, storagetest.Key)
		opens := fillSealed(t, db, storagetest.Key)
		before := dump(t, db, "")
		same := func(what string) {
			t.Helper()
			db = openWith(t, url, storagetest.Key)
			if after := dump(t, db, ""); after != before {
				t.Errorf("%s: the rows have changed:\n%s", what, changedLines(before, after))
			}
			must(t, opens(t, db, storagetest.Key))
		}
		if _, err := rotate(t, url, storagetest.Key, secret.NewKey()); !errors.Is(err, storage.ErrInUse) {
			t.Errorf("while it is open: got %v, want %v", err, storage.ErrInUse)
		}
		must(t, db.Audit(ctx, audit.Entry{Workspace: "wsp_2", Time: now, Event: audit.ActionRun})) // who has it open goes on
		before = dump(t, db, "")
		must(t, db.Close())
		if _, err := rotate(t, url, secret.NewKey(), secret.NewKey()); !errors.Is(err, storage.ErrWrongKey) {
			t.Errorf("with another key: got %v, want %v", err, storage.ErrWrongKey)
		}
		same("with another key")
		must(t, db.Close())

		// Killed, or failed, before anything was changed.
		failed := errors.New("the disk is full")
		_, err := storage.Rotate(ctx, url, storage.Rotation{Old: storagetest.Key, New: secret.NewKey(), Now: time.Now, Prepare: func() error { return failed }})
		if !errors.Is(err, failed) {
			t.Errorf("the new key is not kept: got %v, want %v", err, failed)
		}
		same("the new key is not kept")
		must(t, db.Close())

		// Nobody opens it while it is being rotated.
		_, err = storage.Rotate(ctx, url, storage.Rotation{Old: storagetest.Key, New: secret.NewKey(), Now: time.Now, Prepare: func() error {
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			if other, err := storage.Open(short, url, storage.Options{Key: storagetest.Key}); err == nil {
				t.Error("the database was opened in the middle of a rotation")
				other.Close()
			}
			return failed
		}})
		if !errors.Is(err, failed) {
			t.Errorf("in the middle: got %v", err)
		}

		// A log that is not sound.
		db = openWith(t, url, storagetest.Key)
		must(t, db.Raw(ctx, `UPDATE audit_heads SET mac = 'x' WHERE workspace = 'wsp_1'`))
		must(t, db.Close())
		if _, err := rotate(t, url, storagetest.Key, secret.NewKey()); err == nil || !strings.Contains(err.Error(), "not sound") {
			t.Errorf("a broken log: got %v, want it refused", err)
		}
		next := secret.NewKey()
		done, err := storage.Rotate(ctx, url, storage.Rotation{Old: storagetest.Key, New: next, Now: time.Now, BrokenLogs: true, Prepare: func() error { return nil }})
		if err != nil || !slices.Equal(done.Broken, []string{"wsp_1"}) {
			t.Errorf("despite the broken log: got %+v, %v", done, err)
		}
		must(t, opens(t, openWith(t, url, next), next))
	})
}

// A server whose connections have all ended does not hold up a rotation. It
// notices, and writes nothing with the old key.
func TestIdleServerNoticesTheRotation(t *testing.T) {
	url := storagetest.Postgres(t)
	db := openWith(t, url, storagetest.Key)
	opens := fillSealed(t, db, storagetest.Key)
	db.DropIdle()
	next := secret.NewKey()
	_, err := rotate(t, url, storagetest.Key, next)
	must(t, err)
	if err := db.Audit(t.Context(), audit.Entry{Workspace: "wsp_1", Time: now, Event: audit.ActionRun}); !errors.Is(err, storage.ErrWrongKey) {
		t.Errorf("a write with the old key: got %v, want %v", err, storage.ErrWrongKey)
	}
	if _, err := db.Accounts(t.Context(), "wsp_1", ""); !errors.Is(err, storage.ErrWrongKey) {
		t.Errorf("a read with the old key: got %v, want %v", err, storage.ErrWrongKey)
	}
	other := openWith(t, url, next)
	must(t, opens(t, other, next))
	if n, err := other.VerifyAudit(t.Context(), "wsp_1"); err != nil || n != 4 {
		t.Errorf("the log: got %d entries, %v; want 4", n, err)
	}
}
