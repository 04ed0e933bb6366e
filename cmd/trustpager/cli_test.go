package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trustpager/storage/storagetest"
)

// ok runs the program and fails the test unless it succeeds.
func ok(t *testing.T, url string, args ...string) string {
	t.Helper()
	out, errs, code := command(t, url, "", args...)
	if code != 0 {
		t.Fatalf("trustpager %s: got exit status %d, want 0\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// refused runs the program and fails the test unless it fails with the text.
func refused(t *testing.T, url, want string, args ...string) {
	t.Helper()
	out, errs, code := command(t, url, "", args...)
	if code == 0 || !strings.Contains(errs, want) {
		t.Errorf("trustpager %s: got exit status %d, %q%q, want a failure that says %q", strings.Join(args, " "), code, out, errs, want)
	}
}

// An operator sets a workspace up, makes a key and decides from the terminal.
func TestOperatorWorksFromTheTerminal(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ok(t, url, "migrate")
		refused(t, url, "there is no workspace yet", "key", "list")
		ok(t, url, "workspace", "create", "Acme", "--time-zone", "Europe/Berlin")
		refused(t, url, "an IANA time zone", "workspace", "create", "Other", "--time-zone", "Mars/Base")
		if out := ok(t, url, "workspace", "list"); !strings.Contains(out, "Acme") || strings.Contains(out, "Other") {
			t.Errorf("workspace list: got %q, want Acme only", out)
		}
		ok(t, url, "user", "add", "ada@example.com", "--name", "Ada", "--role", "owner")
		refused(t, url, "last owner", "user", "remove", "ada@example.com")
		refused(t, url, "last owner", "user", "role", "ada@example.com", "member")
		if out := ok(t, url, "user", "invite", "grace@example.com", "--role", "admin"); !strings.Contains(out, "/invite?token=") {
			t.Errorf("invited: got %q, want the link", out)
		}
		refused(t, url, "already", "user", "invite", "ada@example.com")
		ok(t, url, "user", "add", "mo@example.com")
		if out := ok(t, url, "user", "role", "mo@example.com", "admin"); !strings.Contains(out, "an admin now") {
			t.Errorf("another role: got %q", out)
		}
		refused(t, url, "kept", "user", "remove", "mo@example.com", "--keep", "key_x")
		ok(t, url, "user", "remove", "mo@example.com")
		refused(t, url, "say what the key may do", "key", "create", "--name", "x")
		refused(t, url, "there is no rung", "key", "create", "--name", "x", "--scopes", "contacts:fly")

		var made struct{ ID, Secret string }
		if err := json.Unmarshal([]byte(ok(t, url, "key", "create", "--name", "agent", "--preset", "recommended", "--json")), &made); err != nil {
			t.Fatal(err)
		}
		refused(t, url, "the secret key of the database", "key", "list", "--secret-key-file", filepath.Join(t.TempDir(), "other.key"))
		p := serveBeside(t, url)
		id := text(p.must(202, "POST", "/v1/contacts", made.Secret, `{"first_name":"Zoe\u202e"}`), "approval", "id")
		if out := ok(t, url, "approvals", "list"); !strings.Contains(out, id) {
			t.Errorf("approvals list: got %q, want %s", out, id)
		}
		out := ok(t, url, "approvals", "show", id)
		if strings.Contains(out, "\u202e") || !strings.Contains(out, "<U+202E>") {
			t.Errorf("approvals show: got %q, want the hidden character to be visible", out)
		}
		refused(t, url, "missing flags: --reason", "approvals", "reject", id)
		if out := ok(t, url, "approvals", "show", id, "--json"); !strings.Contains(out, p.info.BaseURL) {
			t.Errorf("approvals show: got %q, want the url to be the server's, %s", out, p.info.BaseURL)
		}
		if out := ok(t, url, "approvals", "approve", id); !strings.Contains(out, "done") {
			t.Errorf("approvals approve: got %q, want it done", out)
		}
		refused(t, url, "is not pending any more", "approvals", "reject", id, "--reason", "late")
		if n := len(p.list("/v1/contacts", made.Secret)); n != 1 {
			t.Errorf("contacts: got %d, want 1", n)
		}
		ok(t, url, "key", "revoke", made.ID)
		p.must(401, "GET", "/v1/me", made.Secret, "")
		ok(t, url, "key", "activate", made.ID)
		p.must(200, "GET", "/v1/me", made.Secret, "")
		ok(t, url, "key", "edit", made.ID, "--scopes", "contacts:read")
		p.must(403, "POST", "/v1/contacts", made.Secret, `{"first_name":"No"}`)
		ok(t, url, "workspace", "plan", "Acme", "free")
		p.must(403, "GET", "/v1/me", made.Secret, "")
		ok(t, url, "workspace", "plan", "Acme", "pro")
		refused(t, url, "the key's name is", "key", "delete", made.ID, "--confirm", "agnet")
		ok(t, url, "key", "delete", made.ID, "--confirm", "agent")
		p.must(401, "GET", "/v1/me", made.Secret, "")
		if out := ok(t, url, "audit", "verify"); !strings.Contains(out, "as they were written") {
			t.Errorf("audit verify: got %q, want all sound", out)
		}
		refused(t, url, "unexpected argument", "frobnicate")
	})
}

func TestBackupOfARunningServerRestores(t *testing.T) {
	dir := t.TempDir()
	url := filepath.Join(dir, "live.db")
	p := demo(t, url)
	backup := filepath.Join(dir, "backup.tar")
	ok(t, url, "backup", backup)
	refused(t, url, "exists", "backup", backup)
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup: got %v (%v), want mode 0600", info, err)
	}
	wrote := p.must(201, "POST", "/v1/contacts", p.info.Keys.FullAccess, `{"first_name":"After"}`)
	p.stop()

	restored := filepath.Join(dir, "restored.db")
	refused(t, url, "exists already", "restore", backup)
	if out := ok(t, restored, "restore", backup); !strings.Contains(out, "paused") {
		t.Errorf("restore: got %q, want it to say that jobs are paused", out)
	}
	q := serveBeside(t, restored)
	full := p.info.Keys.FullAccess // the restored server has the keys of the backup
	q.must(404, "GET", "/v1/contacts/"+text(wrote, "data", "id"), full, "")
	if n := len(q.list("/v1/contacts", full)); n != 13 {
		t.Errorf("contacts: got %d, want the demo's 13", n)
	}
	if v := q.must(200, "GET", "/v1/audit/verify", full, ""); member(v, "data", "sound") != true {
		t.Errorf("audit log with the restored key: got %v, want it sound", v)
	}
	refused(t, restored, "pg_dump", "--database", "postgres:///x?host=/nowhere", "restore", backup)
}
