package oauth_test

import (
	"context"
	"database/sql"
	"net/url"
	"runtime"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// waiting returns a function that waits until a statement waits for a lock of
// the PostgreSQL database.
func waiting(t *testing.T, dsn string) func() {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return func() {
		for end := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
			var n int
			if err := db.QueryRow(`SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n); err != nil || n > 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if time.Now().After(end) {
				t.Error("nobody waits for the lock")
				return
			}
		}
	}
}

// holding is what the tests do in a transaction that others wait for.
type holding interface {
	oauth.Store
	Grant(ctx context.Context, workspace, id string, forUpdate bool) (oauth.Grant, error)
	SetGrantScopes(ctx context.Context, workspace, id string, scopes []access.Scope) error
	RevokeGrant(ctx context.Context, workspace, id string, now time.Time) error
	RemoveClient(ctx context.Context, workspace, client string) error
}

// A consent to some resources keeps what it is not about as it is when it is
// stored, not as it was when somebody looked.
func TestOAuth_2_11_AConsentUndoesNothing(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(f *fixture, tx holding, g oauth.Grant) error
	}{
		{"narrow", "contacts:read deals:read", func(f *fixture, tx holding, g oauth.Grant) error {
			return tx.SetGrantScopes(f.ctx, f.ws.ID, g.ID, []access.Scope{{Resource: "contacts", Rung: "read"}, {Resource: "deals", Rung: "read"}})
		}},
		{"revoke", "contacts:read", func(f *fixture, tx holding, g oauth.Grant) error {
			return tx.RevokeGrant(f.ctx, f.ws.ID, g.ID, f.now())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storagetest.EachURL(t, func(t *testing.T, dsn string) {
				f := newFixture(t, storagetest.Open(t, dsn))
				f.consent("contacts:read deals:write")
				g, err := f.db.GrantOf(f.ctx, f.ws.ID, f.client.ID, f.user.ID)
				must(t, err)
				req, err := f.s.Authorize(f.ctx, f.query("scope", "contacts:read"), f.user.ID)
				must(t, err)
				o, err := f.s.Offer(f.ctx, req, f.ws, f.user)
				must(t, err)
				wait := func() {}
				if storage.IsPostgres(dsn) {
					wait = waiting(t, dsn)
				}
				var wg sync.WaitGroup
				must(t, storage.InTx[holding](f.db)(f.ctx, func(tx holding) error {
					if _, err := tx.Grant(f.ctx, f.ws.ID, g.ID, true); err != nil {
						return err
					}
					wg.Go(func() {
						if _, err := f.s.Allow(f.ctx, o, []access.Scope{{Resource: "contacts", Rung: "read"}}); err != nil {
							t.Errorf("Allow: %v", err)
						}
					})
					wait()
					return tt.change(f, tx, g)
				}))
				wg.Wait()
				g, err = f.db.GrantOf(f.ctx, f.ws.ID, f.client.ID, f.user.ID)
				must(t, err)
				if got := access.FormatScopes(g.Scopes); got != tt.want || !g.RevokedAt.IsZero() {
					t.Errorf("the grant has %q, revoked %v; want %q in force", got, g.RevokedAt, tt.want)
				}
			})
		})
	}
}

// Two first consents of a user at once both count.
func TestOAuth_2_11_FirstConsentsTakeTurns(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		for range 8 {
			c := f.add(oauth.Client{})
			var wg sync.WaitGroup
			for _, scope := range []string{"contacts:read", "deals:read"} {
				wg.Go(func() { f.consent(scope, "scope", scope, "client_id", c.ID) })
			}
			wg.Wait()
			g, err := db.GrantOf(f.ctx, f.ws.ID, c.ID, f.user.ID)
			must(t, err)
			if len(g.Scopes) != 2 {
				t.Fatalf("the grant has %v, want both", g.Scopes)
			}
		}
	})
}

// While a grant is revoked or a client removed, token requests are refused or
// served, and never fail.
func TestOAuth_2_8_EndsDuringARequestAreRefusals(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, dsn string) {
		f := newFixture(t, storagetest.Open(t, dsn))
		wait := func() {}
		if storage.IsPostgres(dsn) {
			wait = waiting(t, dsn)
		}
		c, secret := f.confidential(oauth.GrantCredentials)
		code := f.consent("contacts:read")
		g, err := f.db.GrantOf(f.ctx, f.ws.ID, f.client.ID, f.user.ID)
		must(t, err)
		// during asks while end runs in a transaction that has its locks.
		during := func(end func(tx holding) error, ask func() reply) reply {
			t.Helper()
			var r reply
			var wg sync.WaitGroup
			must(t, storage.InTx[holding](f.db)(f.ctx, func(tx holding) error {
				if err := end(tx); err != nil {
					return err
				}
				wg.Go(func() { r = ask() })
				wait()
				return nil
			}))
			wg.Wait()
			return r
		}
		r := during(func(tx holding) error { return tx.RevokeGrant(f.ctx, f.ws.ID, g.ID, f.now()) }, func() reply { return f.exchange(code) })
		want(t, r, 400, "invalid_grant")
		r = during(func(tx holding) error { return tx.RemoveClient(f.ctx, f.ws.ID, c.ID) }, func() reply {
			return f.postForm(oauth.TokenPath, url.Values{"grant_type": {"client_credentials"}}, []string{c.ID, secret})
		})
		want(t, r, 401, "invalid_client")
		if r.header.Get("WWW-Authenticate") == "" {
			t.Error("no challenge for a client that came with Basic")
		}
	})
}

func TestOAuth_2_8_RacesWithRemovals(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		for round := range 40 {
			c, secret := f.confidential(oauth.GrantCode, oauth.GrantRefresh, oauth.GrantCredentials)
			auth := []string{"client_id", c.ID, "client_secret", secret}
			code := f.consent("contacts:read", "client_id", c.ID)
			used := f.consent("contacts:read", "client_id", c.ID)
			tokens := f.exchange(used, auth...)
			want(t, tokens, 200, "")
			ask := []func() reply{
				func() reply { return f.post(oauth.TokenPath, append(auth, "grant_type", "client_credentials")...) },
				func() reply { return f.exchange(code, auth...) },
				func() reply { return f.exchange(used, auth...) },
				func() reply { return f.refresh(tokens.str("refresh_token"), auth...) },
				func() reply { return f.post(oauth.RevokePath, append(auth, "token", tokens.str("access_token"))...) },
				func() reply {
					return f.post(oauth.IntrospectPath, append(auth, "token", tokens.str("refresh_token"))...)
				},
			}[round%6]
			var r reply
			var wg sync.WaitGroup
			wg.Go(func() { r = ask() })
			wg.Go(func() {
				g, err := db.GrantOf(f.ctx, f.ws.ID, c.ID, f.user.ID)
				if err == nil && round%12 < 6 {
					err = db.RevokeGrant(f.ctx, f.ws.ID, g.ID, f.now())
				} else if err == nil {
					err = db.RemoveClient(f.ctx, f.ws.ID, c.ID)
				}
				if err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			if r.status != 200 && r.status != 400 && r.status != 401 {
				t.Errorf("round %d: got %d %s", round, r.status, r.body)
			}
		}
	})
}

// Whom nobody has consented to yet may be purged while they do.
func TestOAuth_2_11_PurgeDuringConsent(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		req, err := f.s.Authorize(f.ctx, f.query(), f.user.ID)
		must(t, err)
		o, err := f.s.Offer(f.ctx, req, f.ws, f.user)
		must(t, err)
		if n, err := db.PurgeUnconsented(f.ctx, f.now().Add(time.Second)); n != 1 || err != nil {
			t.Fatalf("PurgeUnconsented: got %d, %v; want one", n, err)
		}
		_, err = f.s.Allow(f.ctx, o, cat().Scopes(catalog.PresetAct))
		if e := requestError(t, err); e.Location != "" {
			t.Errorf("got %+v, want a page", e)
		}
	})
}
