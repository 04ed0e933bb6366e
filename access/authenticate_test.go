package access_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Run(m)) }

// A world is a workspace, and keys in it.
type world struct {
	t         *testing.T
	db        *storage.DB
	clock     *storagetest.Clock
	workspace access.Workspace
	auth      *access.Authenticator
}

func eachWorld(t *testing.T, test func(w *world)) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := &world{t: t, db: db, clock: storagetest.NewClock()}
		w.workspace = access.Workspace{ID: typeid.NewID("ws"), Name: "One", Plan: access.Pro, TimeZone: "UTC", CreatedAt: w.clock.Now()}
		w.must(db.CreateWorkspace(t.Context(), w.workspace))
		w.auth = &access.Authenticator{Store: db, Now: w.clock.Now}
		test(w)
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// key makes a key, changed by edit.
func (w *world) key(edit func(k *access.Key)) (access.Key, access.Secret) {
	w.t.Helper()
	secret := access.NewSecret()
	k := access.Key{ID: typeid.NewID("key"), Workspace: w.workspace.ID, Name: "agent", Last4: secret.Last4(), Limits: access.DefaultLimits,
		CreatedBy: access.Operator, CreatedAt: w.clock.Now()}
	if edit != nil {
		edit(&k)
	}
	w.must(w.db.CreateKey(w.t.Context(), k, secret.Hash()))
	if !k.RevokedAt.IsZero() {
		w.must(w.db.UpdateKey(w.t.Context(), k))
	}
	return k, secret
}

// allow checks that the secret is accepted, and returns its grant.
func (w *world) allow(s access.Secret) access.Grant {
	w.t.Helper()
	g, err := w.auth.Authenticate(w.t.Context(), string(s), "")
	if err != nil {
		w.t.Fatalf("got %v, want a grant", err)
	}
	return g
}

// deny checks that the secret is refused with the kind and the words.
func (w *world) deny(s access.Secret, kind problem.Kind, words string) {
	w.t.Helper()
	g, err := w.auth.Authenticate(w.t.Context(), string(s), "")
	if !problem.Is(err, kind) || !strings.Contains(err.Error(), words) {
		w.t.Errorf("got %v, want %s with %q", err, kind, words)
	}
	if g.Rights.Full() || g.Principal != (access.Principal{}) {
		w.t.Errorf("got the grant %v with an error", g)
	}
}

func TestAuthenticate(t *testing.T) {
	eachWorld(t, func(w *world) {
		_, plain := w.key(nil)
		_, revoked := w.key(func(k *access.Key) { k.RevokedAt = w.clock.Now() })
		_, expiring := w.key(func(k *access.Key) { k.ExpiresAt = w.clock.Now().Add(time.Hour) })
		rotated, old := w.key(nil)
		fresh := access.NewSecret()
		rotated.Last4 = fresh.Last4()
		w.must(w.db.RotateKey(w.t.Context(), rotated, fresh.Hash(), w.clock.Now().Add(time.Hour), w.clock.Now()))

		w.allow(plain)
		w.allow(expiring)
		w.allow(old)
		w.allow(fresh)
		w.deny(revoked, problem.Unauthorized, "revoked")

		w.clock.Advance(time.Hour - time.Millisecond)
		w.allow(expiring)
		w.allow(old)
		w.clock.Advance(time.Millisecond)
		w.deny(expiring, problem.Unauthorized, "expired at 2026-03-02T11:00:00Z")
		w.deny(old, problem.Unauthorized, "replaced")
		w.allow(fresh)

		// Only the owner of a real secret is told more than this.
		_, err := w.auth.Authenticate(w.t.Context(), string(access.NewSecret()), "")
		unknown := *problem.Of(err)
		for _, s := range []string{"", "x", "tp_live_", string(plain)[:len(plain)-1] + "!", "Bearer " + string(plain), string(plain) + "x",
			strings.Repeat("a", 57), strings.Repeat("x", 100_000)} {
			_, err := w.auth.Authenticate(w.t.Context(), s, "")
			if got := *problem.Of(err); got.Message != unknown.Message || got.Fix != unknown.Fix || got.Hint != unknown.Hint || got.Kind != unknown.Kind {
				w.t.Errorf("%.60q: got %+v, want %+v as for an unknown key", s, got, unknown)
			}
		}

		w.workspace.Plan = access.Free
		w.must(w.db.UpdateWorkspace(w.t.Context(), w.workspace))
		w.deny(plain, problem.PlanRequired, "Pro plan")
		w.deny(revoked, problem.Unauthorized, "revoked")
	})
}

func TestRightsHoldFromTheNextRequest(t *testing.T) {
	eachWorld(t, func(w *world) {
		k, secret := w.key(func(k *access.Key) { k.Scopes = []access.Scope{{Resource: "contacts", Rung: "read"}} })
		check := func(v access.Verb, want access.Level) {
			w.t.Helper()
			if got := w.allow(secret).Decide("contacts", v); got != want {
				w.t.Errorf("%s: got %s, want %s", v, got, want)
			}
		}
		check(access.Write, access.Deny)
		k.Scopes = []access.Scope{{Resource: "contacts", Rung: "write"}}
		w.must(w.db.UpdateKey(w.t.Context(), k))
		check(access.Write, access.Run)
		w.workspace.Settings.AlwaysAsk = []access.Mark{{Resource: "contacts", Verb: "write"}}
		w.must(w.db.UpdateWorkspace(w.t.Context(), w.workspace))
		check(access.Write, access.Queue)
		k.RevokedAt = w.clock.Now()
		w.must(w.db.UpdateKey(w.t.Context(), k))
		w.deny(secret, problem.Unauthorized, "revoked")
		k.RevokedAt = time.Time{}
		w.must(w.db.UpdateKey(w.t.Context(), k))
		check(access.Write, access.Queue)
		w.must(w.db.DeleteKey(w.t.Context(), k.Workspace, k.ID))
		w.deny(secret, problem.Unauthorized, "not valid")
	})
}

func TestGrantOfKey(t *testing.T) {
	w := access.Workspace{ID: "ws_1"}
	only := access.Workspace{ID: "ws_1", Settings: access.Settings{PeopleOnly: true}}
	scoped := []access.Scope{{Resource: "contacts", Rung: "write-approval"}}
	for _, tt := range []struct {
		name   string
		key    access.Key
		in     access.Workspace
		admin  bool
		decide bool
		write  access.Level
	}{
		{"nothing", access.Key{}, w, false, false, access.Deny},
		{"scoped", access.Key{Scopes: scoped}, w, false, false, access.Queue},
		{"full", access.Key{FullAccess: true}, w, true, false, access.Run},
		{"full that may decide", access.Key{FullAccess: true, MayDecide: true}, w, true, true, access.Run},
		{"where only people decide", access.Key{FullAccess: true, MayDecide: true}, only, true, false, access.Run},
		{"may decide without full access", access.Key{MayDecide: true, Scopes: scoped}, w, false, false, access.Queue},
	} {
		g := tt.key.Grant(tt.in)
		if g.IsAdmin() != tt.admin || g.MayDecide != tt.decide || g.Decide("contacts", access.Write) != tt.write {
			t.Errorf("%s: got admin %t, may decide %t, write %s; want %t, %t, %s", tt.name,
				g.IsAdmin(), g.MayDecide, g.Decide("contacts", access.Write), tt.admin, tt.decide, tt.write)
		}
	}
}

type brokenStore struct{}

func (brokenStore) KeyBySecret(context.Context, string) (access.Shown, error) {
	return access.Shown{}, errors.New("disk on fire")
}

func TestAuthenticateFailsClosed(t *testing.T) {
	auth := access.Authenticator{Store: brokenStore{}, Now: time.Now}
	g, err := auth.Authenticate(t.Context(), string(access.NewSecret()), "")
	if problem.Of(err).Kind != problem.Internal || g.Principal.ID != "" {
		t.Errorf("got %v, %v, want an internal error and no grant", g, err)
	}
}

func TestBearerToken(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer abc": "abc", "BEARER   abc ": "abc",
		"": "", "abc": "", "Bearer": "", "Bearer ": "", "Basic abc": "", "Bearerabc": "", " Bearer abc": "",
	} {
		got, err := access.BearerToken(header)
		if got != want || (err == nil) != (want != "") || err != nil && !problem.Is(err, problem.Unauthorized) {
			t.Errorf("%q: got %q, %v, want %q", header, got, err, want)
		}
	}
}
