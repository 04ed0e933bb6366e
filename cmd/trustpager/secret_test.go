package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"trustpager/secret"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// does runs the program to its end, and returns what it printed and its exit
// status.
func does(t *testing.T, url string, args ...string) (string, int) {
	t.Helper()
	out, err := program(t, url, args...).CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	code := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	}
	return string(out), code
}

// keysIn returns the keys in the file of the database.
func keysIn(t *testing.T, url string) []secret.Key {
	t.Helper()
	keys, err := secret.LoadKeys(keyFileOf(url, t))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The secret key is rotated, killed at every step, and each time the database
// opens and the next rotation goes through. What was sealed before still signs
// webhooks.
func TestSecretRotate(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		hook, got := receiver(t)
		p := demo(t, url)
		full := p.info.Keys.FullAccess
		keyID := text(p.must(200, "GET", "/v1/me", p.info.Keys.Agent, ""), "data", "key", "id")
		p.must(200, "PATCH", "/v1/keys/"+keyID, full, `{"webhook_url":"`+hook+`"}`)
		first := keysIn(t, url)[0]

		// Not while a server runs.
		if out, code := does(t, url, "secret", "rotate"); code != 1 || !strings.Contains(out, "in use by another process") {
			t.Errorf("beside a server: got %d, %s", code, out)
		}
		if keys := keysIn(t, url); len(keys) != 1 || keys[0] != first {
			t.Error("a refused rotation has changed the key file")
		}
		p.must(200, "GET", "/v1/me", full, "")
		p.kill()

		works := func(what string) {
			t.Helper()
			if out, code := does(t, url, "audit", "verify"); code != 0 {
				t.Fatalf("%s: the audit log: got %d, %s", what, code, out)
			}
		}
		rotated := func(what, words string) {
			t.Helper()
			before := keysIn(t, url)
			out, code := does(t, url, "secret", "rotate")
			if code != 0 || !strings.Contains(out, words) {
				t.Fatalf("%s: got %d, %s; want %q", what, code, out, words)
			}
			if keys := keysIn(t, url); len(keys) != 1 || strings.Contains(words, "finished") != (keys[0] == before[0]) {
				t.Errorf("%s: the file holds %d keys, or the wrong one", what, len(keys))
			}
			works(what)
		}
		rotated("rotated", "sealed anew: 1 webhook secrets")

		// Killed when the file holds both keys, before the database has changed.
		old := keysIn(t, url)[0]
		must(t, secret.ReplaceKeys(keyFileOf(url, t), secret.NewKey(), old))
		works("both keys, the old one in use")
		if out, _ := does(t, url, "workspace", "list"); !strings.Contains(out, "a rotation of the secret key was interrupted") {
			t.Errorf("an interrupted rotation: got %s, want a warning", out)
		}
		rotated("again after the file", "The secret key is changed")

		// Killed when the database has changed, before the file holds the new key only.
		old = keysIn(t, url)[0]
		fresh := secret.NewKey()
		must(t, secret.ReplaceKeys(keyFileOf(url, t), fresh, old))
		_, err := storage.Rotate(t.Context(), url, storage.Rotation{Old: old, New: fresh, Now: time.Now, Prepare: func() error { return nil }})
		must(t, err)
		works("both keys, the new one in use")
		rotated("again after the database", "interrupted is finished")
		if keys := keysIn(t, url); keys[0] != fresh {
			t.Error("the finished rotation has another key than the one that was begun")
		}

		// Killed somewhere.
		for range 8 {
			cmd := program(t, url, "secret", "rotate")
			must(t, cmd.Start())
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			select {
			case <-done:
			case <-time.After(rand.N(300 * time.Millisecond)):
				cmd.Process.Kill()
				<-done
			}
			works("killed")
		}
		if len(keysIn(t, url)) == 2 {
			does(t, url, "secret", "rotate")
		}
		rotated("after all that", "The secret key is changed")

		// The first key opens nothing.
		if db, err := storage.Open(t.Context(), url, storage.Options{Key: first}); !errors.Is(err, storage.ErrWrongKey) {
			t.Errorf("the first key: got %v, want %v", err, storage.ErrWrongKey)
			if err == nil {
				db.Close()
			}
		}
		p = demo(t, url)
		p.must(202, "POST", "/v1/keys/"+keyID+"/webhook/test", p.info.Keys.FullAccess, "")
		if m := next(t, got); m.header.Get("webhook-signature") == "" {
			t.Errorf("the webhook is not signed: %v", m.header)
		}
		p.kill()

		// A link to the key file, and none.
		file := keyFileOf(url, t)
		must(t, os.Rename(file, file+".moved"))
		defer os.Remove(file + ".moved")
		must(t, os.Symlink(file+".moved", file))
		if out, code := does(t, url, "secret", "rotate"); code != 1 || !strings.Contains(out, "not a regular file") {
			t.Errorf("a link: got %d, %s", code, out)
		}
		works("a refused link")
		must(t, os.Remove(file))
		if out, code := does(t, url, "secret", "rotate"); code != 1 || !strings.Contains(out, "is not in") {
			t.Errorf("without its file: got %d, %s", code, out)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("a key was made where there was none")
		}
		must(t, os.Rename(file+".moved", file))
	})
}

// must fails the test at once if err is not nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
