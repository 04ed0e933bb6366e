package storage_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// winners calls do n times at once, and returns how often it was told true.
func winners(n int, do func(i int) bool) int32 {
	var won atomic.Int32
	race(n, func(i int) {
		if do(i) {
			won.Add(1)
		}
	})
	return won.Load()
}

func TestSetUpToken(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs, ctx := nodes(t, url), t.Context()
		db := dbs[0]
		is := func(hash string, want bool) {
			t.Helper()
			if got, err := db.IsSetUpToken(ctx, hash); err != nil || got != want {
				t.Errorf("IsSetUpToken(%q) = %v, %v; want %v", hash, got, err, want)
			}
		}
		is("", false)
		is("one", false)
		must(t, db.OfferSetUp(ctx, "one"))
		is("one", true)
		is("", false)
		must(t, db.OfferSetUp(ctx, "two"))
		is("one", false)
		if taken, err := db.TakeSetUpToken(ctx, "one"); taken || err != nil {
			t.Errorf("TakeSetUpToken of the old one = %v, %v; want false", taken, err)
		}
		if won := winners(16, func(i int) bool {
			taken, err := dbs[i%len(dbs)].TakeSetUpToken(ctx, "two")
			return taken && err == nil
		}); won != 1 {
			t.Errorf("%d of 16 have taken the token, want 1", won)
		}
		is("two", false)
	})
}

func TestCanLogIn(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		can := func(what string, want bool) {
			t.Helper()
			if got, err := db.CanLogIn(ctx); err != nil || got != want {
				t.Errorf("%s: CanLogIn = %v, %v; want %v", what, got, err, want)
			}
		}
		can("an empty database", false)
		workspace(t, db, "ws_1")
		must(t, db.CreateUser(ctx, access.User{ID: "usr_1", Email: "a@example.com", CreatedAt: now}, ""))
		must(t, db.SetMember(ctx, "ws_1", "usr_1", access.Owner, now))
		can("a member without a password", false)
		must(t, db.CreateUser(ctx, access.User{ID: "usr_2", Email: "b@example.com", CreatedAt: now}, "hash"))
		can("a password without a workspace", false)
		must(t, db.SetMember(ctx, "ws_1", "usr_2", access.Member, now))
		can("a member with a password", true)
	})
}

func TestResetLinks(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs, ctx := nodes(t, url), t.Context()
		db := dbs[0]
		for i := range 3 {
			must(t, db.CreateUser(ctx, access.User{ID: fmt.Sprint("usr_", i), Email: fmt.Sprint(i, "@example.com"), CreatedAt: now}, "hash"))
		}
		until := now.Add(time.Hour)
		create := func(hash, user string, at time.Time) bool {
			t.Helper()
			ok, err := db.CreateResetLink(ctx, hash, user, "stamp", at, until, 2)
			must(t, err)
			return ok
		}
		if !create("a", "usr_0", now) || !create("b", "usr_0", now) || create("c", "usr_0", now) || !create("d", "usr_1", now) {
			t.Error("want two links for each person, and no third")
		}
		if user, stamp, err := db.ResetLink(ctx, "a", until.Add(-time.Millisecond)); err != nil || user != "usr_0" || stamp != "stamp" {
			t.Errorf("ResetLink = %q, %q, %v", user, stamp, err)
		}
		for hash, at := range map[string]time.Time{"a": until, "c": now, "": now} {
			if _, _, err := db.ResetLink(ctx, hash, at); !problem.Is(err, problem.NotFound) {
				t.Errorf("ResetLink(%q) at %v = %v, want not found", hash, at, err)
			}
			if _, _, err := db.TakeResetLink(ctx, hash, at); !problem.Is(err, problem.NotFound) {
				t.Errorf("TakeResetLink(%q) at %v = %v, want not found", hash, at, err)
			}
		}
		if won := winners(16, func(i int) bool {
			user, _, err := dbs[i%len(dbs)].TakeResetLink(ctx, "a", now)
			return err == nil && user == "usr_0"
		}); won != 1 {
			t.Errorf("%d of 16 have taken the link, want 1", won)
		}
		if won := winners(16, func(i int) bool {
			ok, err := dbs[i%len(dbs)].CreateResetLink(ctx, fmt.Sprint("r", i), "usr_2", "s", now, until, 3)
			return ok && err == nil
		}); won != 3 {
			t.Errorf("%d links at once, want 3", won)
		}
		must(t, db.SetPassword(ctx, "usr_0", "hash 2"))
		if _, _, err := db.ResetLink(ctx, "b", now); !problem.Is(err, problem.NotFound) {
			t.Errorf("after the password was set: got %v, want the link ended", err)
		}
		if err := db.ReplacePassword(ctx, "usr_1", "other", "hash 2"); !problem.Is(err, problem.Conflict) {
			t.Errorf("ReplacePassword of another = %v, want a conflict", err)
		}
		if _, _, err := db.ResetLink(ctx, "d", now); err != nil {
			t.Errorf("after a change that failed: %v", err)
		}
		must(t, db.ReplacePassword(ctx, "usr_1", "hash", "hash 2"))
		if _, _, err := db.ResetLink(ctx, "d", now); !problem.Is(err, problem.NotFound) {
			t.Errorf("after the password was replaced: got %v, want the link ended", err)
		}
		if n, err := db.PurgeResetLinks(ctx, until); err != nil || n != 0 {
			t.Errorf("PurgeResetLinks = %d, %v; want 0", n, err)
		}
		if n, err := db.PurgeResetLinks(ctx, until.Add(time.Millisecond)); err != nil || n != 3 {
			t.Errorf("PurgeResetLinks = %d, %v; want 3", n, err)
		}
	})
}

// A grant bears its user's name, which is remembered with it.
func TestRenamingShowsInDelegations(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		fill(t, db, "ws_1")
		name := func() string {
			t.Helper()
			d, err := db.DelegationOf(t.Context(), "ws_1", "grt_1")
			must(t, err)
			return d.User.Name
		}
		if got := name(); got != "alpha" {
			t.Fatalf("name = %q, want alpha", got)
		}
		must(t, db.SetUserName(t.Context(), "usr_1", "beta"))
		if got := name(); got != "beta" {
			t.Errorf("name = %q, want beta", got)
		}
	})
}
