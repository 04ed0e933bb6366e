package storage_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// scopes parses scopes.
func scopes(t testing.TB, text string) []access.Scope {
	t.Helper()
	s, err := access.ParseScopes(text)
	must(t, err)
	return s
}

// person makes a user, with a role in the workspace unless that is "".
func person(t testing.TB, db *storage.DB, workspace, id string, role access.Role) {
	t.Helper()
	must(t, db.CreateUser(t.Context(), access.User{ID: id, Email: id + "@example.com", Name: "Name of " + id, CreatedAt: now}, "hash of "+id))
	if role != "" {
		must(t, db.SetMember(t.Context(), workspace, id, role, now))
	}
}

// client makes a client, which has registered itself if workspace is "".
func client(t testing.TB, db *storage.DB, workspace, id string, maker access.Principal) oauth.Client {
	t.Helper()
	c := oauth.Client{ID: id, Workspace: workspace, Origin: oauth.Registered, Name: "Name of " + id, URI: "https://" + id + ".example/",
		RedirectURIs: []string{"https://a.example/cb", "http://localhost/cb"}, AuthMethod: oauth.AuthBasic,
		GrantTypes: []string{oauth.GrantCode, oauth.GrantRefresh}, Scope: "workspace", SecretHash: "secret", OldSecretHash: "old",
		OldUntil: now.Add(time.Hour), Maker: maker, CreatedAt: now}
	if workspace == "" {
		c.Origin = oauth.Dynamic
	}
	must(t, db.CreateClient(t.Context(), c))
	return c
}

// consent stores a policy and a grant.
func consent(t testing.TB, db *storage.DB, workspace, client, user, id string) oauth.Grant {
	t.Helper()
	_, err := db.EnsurePolicy(t.Context(), oauth.Policy{Workspace: workspace, Client: client, Ceiling: scopes(t, "contacts:delete deals:write"),
		Limits: access.Limits{PerMinute: 7, PerDay: 70}, CreatedAt: now})
	must(t, err)
	g, err := db.SaveGrant(t.Context(), oauth.Grant{ID: id, Workspace: workspace, Client: client, User: user, Scopes: scopes(t, "contacts:write"),
		ClientDigest: "digest", CreatedAt: now, ConsentedAt: now})
	must(t, err)
	return g
}

func family(g oauth.Grant, id string) oauth.Family {
	return oauth.Family{ID: id, Workspace: g.Workspace, Grant: g.ID, Client: g.Client, User: g.User, Resource: "https://tp.example/mcp",
		Scope: "workspace", CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
}

func code(g oauth.Grant, hash string) oauth.AuthorizationCode {
	return oauth.AuthorizationCode{Hash: hash, Workspace: g.Workspace, Client: g.Client, User: g.User, Grant: g.ID, RedirectURI: "https://a.example/cb",
		Challenge: "challenge", Resource: "https://tp.example/mcp", Scope: "workspace", CreatedAt: now, ExpiresAt: now.Add(time.Minute)}
}

// connect makes a client of the workspace with a consent, a code and tokens,
// whose ids end with n.
func connect(t testing.TB, db *storage.DB, workspace, id, user, n string) oauth.Grant {
	t.Helper()
	client(t, db, workspace, id, access.Operator)
	g := consent(t, db, workspace, id, user, "grt_"+n)
	issue(t, db, g, n)
	return g
}

// issue makes a code, a family and a refresh token of the grant, whose ids end
// with n.
func issue(t testing.TB, db *storage.DB, g oauth.Grant, n string) {
	t.Helper()
	must(t, db.CreateCode(t.Context(), code(g, "code_"+n)))
	must(t, db.CreateFamily(t.Context(), family(g, "fam_"+n)))
	must(t, db.CreateRefreshToken(t.Context(), oauth.RefreshToken{Hash: "token_" + n, Workspace: g.Workspace, Family: "fam_" + n,
		CreatedAt: now, ExpiresAt: now.Add(24 * time.Hour)}))
}

// wantKind checks the kind of an error.
func wantKind(t testing.TB, what string, err error, kind problem.Kind) {
	t.Helper()
	if !problem.Is(err, kind) {
		t.Errorf("%s: got %v, want %s", what, err, kind)
	}
}

// same compares what was read with what is wanted.
func same[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got\n%+v, want\n%+v", what, got, want)
	}
}

func TestClientsAreStored(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		workspace(t, db, "wsp_2")
		want := client(t, db, "wsp_1", "cli_1", access.Principal{Kind: access.KindKey, ID: "key_1", Name: "k"})
		got, err := db.Client(ctx, "cli_1")
		must(t, err)
		same(t, "Client", got, want)
		wantKind(t, "CreateClient with its id", db.CreateClient(ctx, want), problem.Conflict)
		wantKind(t, "SaveDocumentClient with its id", db.SaveDocumentClient(ctx, want), problem.Conflict)
		_, err = db.Client(ctx, "cli_none")
		wantKind(t, "Client of another id", err, problem.NotFound)

		want.Name, want.RedirectURIs, want.AuthMethod, want.GrantTypes = "New", []string{"https://b.example/"}, oauth.AuthPost, []string{oauth.GrantCredentials}
		want.SecretHash, want.OldSecretHash, want.OldUntil = "s2", "secret", now.Add(2*time.Hour)
		must(t, db.UpdateClient(ctx, want))
		got, err = db.Client(ctx, "cli_1")
		must(t, err)
		same(t, "Client after UpdateClient", got, want)
		other := want
		other.Workspace = "wsp_2"
		wantKind(t, "UpdateClient of another workspace", db.UpdateClient(ctx, other), problem.NotFound)

		doc := oauth.Client{ID: "https://app.example/client.json", Origin: oauth.Metadata, Name: "App", RedirectURIs: []string{"https://app.example/cb"},
			AuthMethod: oauth.AuthNone, GrantTypes: []string{oauth.GrantCode},
			Document:  oauth.Document{Digest: "d1", FetchedAt: now, FreshTill: now.Add(time.Hour), ETag: `"1"`},
			CreatedAt: now}
		must(t, db.SaveDocumentClient(ctx, doc))
		doc.Name, doc.Document = "App 2", oauth.Document{Digest: "d2", FetchedAt: now.Add(time.Hour), FreshTill: now.Add(2 * time.Hour)}
		again := doc
		again.CreatedAt = now.Add(time.Hour)
		must(t, db.SaveDocumentClient(ctx, again))
		got, err = db.Client(ctx, doc.ID)
		must(t, err)
		same(t, "Client of a document, fetched again", got, doc)
	})
}

func TestPoliciesHold(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		workspace(t, db, "wsp_2")
		c := client(t, db, "", "cli_1", access.Principal{})
		client(t, db, "wsp_2", "cli_2", access.Operator)
		var first atomic.Int64
		race(8, func(i int) {
			p, err := dbs[i%len(dbs)].EnsurePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: "cli_1", Ceiling: scopes(t, "contacts:read"),
				Limits: access.Limits{PerMinute: int64(i + 1)}, CreatedAt: now})
			if err != nil {
				t.Errorf("EnsurePolicy: %v", err)
			}
			if n := p.Limits.PerMinute; !first.CompareAndSwap(0, n) && first.Load() != n {
				t.Errorf("EnsurePolicy: got the policy of %d, another got that of %d", n, first.Load())
			}
		})
		for _, id := range []string{"cli_2", "cli_none"} {
			_, err := db.EnsurePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: id})
			wantKind(t, "EnsurePolicy for "+id, err, problem.NotFound)
		}
		want := oauth.Policy{Workspace: "wsp_1", Client: "cli_1", Ceiling: scopes(t, "deals:read"), Limits: access.Limits{PerMinute: 9, PerDay: 90}, CreatedAt: now}
		must(t, db.UpdatePolicy(ctx, want))
		p, err := db.Policy(ctx, "wsp_1", "cli_1")
		must(t, err)
		same(t, "Policy", p, want)
		gotClient, gotPolicy, err := db.ClientOf(ctx, "wsp_1", "cli_1", true)
		must(t, err)
		same(t, "ClientOf", gotClient, c)
		same(t, "ClientOf", gotPolicy, want)
		_, _, err = db.ClientOf(ctx, "wsp_2", "cli_1", false)
		wantKind(t, "ClientOf of another workspace", err, problem.NotFound)
		_, err = db.Policy(ctx, "wsp_2", "cli_1")
		wantKind(t, "Policy of another workspace", err, problem.NotFound)
		want.Workspace = "wsp_2"
		wantKind(t, "UpdatePolicy of another workspace", db.UpdatePolicy(ctx, want), problem.NotFound)
	})
}

func TestClientsAreListedByTheirPolicies(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		for i, id := range []string{"cli_c", "cli_a", "cli_b", "cli_d"} {
			client(t, db, "", id, access.Principal{})
			_, err := db.EnsurePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: id, CreatedAt: now.Add(time.Duration(i/2) * time.Hour)})
			must(t, err)
		}
		for i, user := range []string{"usr_1", "usr_2", "usr_3"} {
			g := consent(t, db, "wsp_1", "cli_a", user, fmt.Sprint("grt_", i))
			must(t, db.AddUsage(ctx, nil, []access.LastUse{{Workspace: "wsp_1", Credential: g.ID, At: now.Add(time.Duration(i) * time.Minute), Action: "a"}}))
		}
		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_2", now))
		var got []string
		for after := ""; ; {
			page, err := db.Clients(ctx, "wsp_1", after, 3)
			must(t, err)
			for _, c := range page {
				got = append(got, c.Client.ID)
				after = c.Policy.Client
				if want := int64(2); c.Client.ID == "cli_a" && (c.Grants != want || !c.LastUsedAt.Equal(now.Add(2*time.Minute))) {
					t.Errorf("cli_a: got %d grants, last used at %v; want %d and the latest", c.Grants, c.LastUsedAt, want)
				}
			}
			if len(page) < 3 {
				break
			}
		}
		if want := "cli_d cli_b cli_c cli_a"; strings.Join(got, " ") != want {
			t.Errorf("Clients: got %v, want %s", got, want)
		}
		if page, err := db.Clients(ctx, "wsp_1", "cli_a", 3); len(page) != 0 || err != nil {
			t.Errorf("Clients after the last: got %v, %v; want none", page, err)
		}
		_, err := db.Clients(ctx, "wsp_1", "cli_gone", 3)
		wantKind(t, "Clients after one that is gone", err, problem.NotFound)
	})
}

func TestRemovedClientLeavesNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		for i, w := range []string{"wsp_1", "wsp_2"} {
			workspace(t, db, w)
			person(t, db, w, fmt.Sprint("usr_", i), access.Admin)
		}
		before := dump(t, db, "")
		client(t, db, "", "cli_all", access.Principal{})
		elsewhere := consent(t, db, "wsp_2", "cli_all", "usr_1", "grt_2")
		issue(t, db, elsewhere, "2")
		others := dump(t, db, "")
		use := func(credential string) {
			must(t, db.AddUsage(ctx, []access.Count{{Workspace: "wsp_1", Credential: credential, Hour: now, Action: "a", Outcome: access.OutcomeOK, N: 1}}, nil))
		}
		issue(t, db, consent(t, db, "wsp_1", "cli_all", "usr_0", "grt_3"), "3")
		use("grt_3")
		must(t, db.RemoveClient(ctx, "wsp_1", "cli_all"))
		if after := dump(t, db, ""); after != others {
			t.Errorf("RemoveClient of one that registered itself:\n%s", changedLines(others, after))
		}
		wantKind(t, "RemoveClient twice", db.RemoveClient(ctx, "wsp_1", "cli_all"), problem.NotFound)
		connect(t, db, "wsp_1", "cli_own", "usr_0", "4")
		use("grt_4")
		wantKind(t, "RemoveClient of another workspace", db.RemoveClient(ctx, "wsp_2", "cli_own"), problem.NotFound)
		must(t, db.RemoveClient(ctx, "wsp_1", "cli_own"))
		must(t, db.RemoveClient(ctx, "wsp_2", "cli_all"))
		if n, err := db.PurgeClients(ctx, now.Add(time.Hour)); n != 1 || err != nil {
			t.Errorf("PurgeClients: got %d, %v; want cli_all", n, err)
		}
		if after := dump(t, db, ""); after != before {
			t.Errorf("after all are gone:\n%s", changedLines(before, after))
		}
	})
}

func TestGrantsAreStored(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		person(t, db, "wsp_1", "usr_1", access.Owner)
		c := client(t, db, "", "cli_1", access.Principal{})
		g := consent(t, db, "wsp_1", "cli_1", "usr_1", "grt_1")
		want := oauth.Grant{ID: "grt_1", Workspace: "wsp_1", Client: "cli_1", ClientName: c.Name, User: "usr_1", UserEmail: "usr_1@example.com",
			UserName: "Name of usr_1", Scopes: scopes(t, "contacts:write"), ClientDigest: "digest", CreatedAt: now, ConsentedAt: now}
		same(t, "SaveGrant", g, want)
		issue(t, db, g, "1")
		must(t, db.AddUsage(ctx, nil, []access.LastUse{{Workspace: "wsp_1", Credential: "grt_1", At: now.Add(time.Minute), Action: "get_contact"}}))
		want.ExpiresAt, want.LastUsedAt, want.LastUsedFor = now.Add(24*time.Hour), now.Add(time.Minute), "get_contact"
		must(t, db.SetGrantScopes(ctx, "wsp_1", "grt_1", scopes(t, "contacts:read")))
		want.Scopes = scopes(t, "contacts:read")
		read := func(what string) {
			t.Helper()
			for _, lock := range []bool{false, true} {
				got, err := db.Grant(ctx, "wsp_1", "grt_1", lock)
				must(t, err)
				same(t, what, got, want)
			}
			got, err := db.GrantOf(ctx, "wsp_1", "cli_1", "usr_1")
			must(t, err)
			same(t, what, got, want)
		}
		read("Grant")

		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_1", now.Add(time.Hour)))
		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_1", now.Add(2*time.Hour)))
		want.RevokedAt = now.Add(time.Hour)
		read("a revoked grant")
		_, err := db.Code(ctx, "code_1")
		wantKind(t, "an unused code of a revoked grant", err, problem.NotFound)
		if f, err := db.Family(ctx, "wsp_1", "fam_1"); err != nil || !f.RevokedAt.Equal(now.Add(time.Hour)) {
			t.Errorf("a family of a revoked grant: got %+v, %v; want it revoked", f, err)
		}
		wantKind(t, "CreateCode of a revoked grant", db.CreateCode(ctx, code(g, "code_2")), problem.NotFound)
		wantKind(t, "CreateFamily of a revoked grant", db.CreateFamily(ctx, family(g, "fam_2")), problem.NotFound)
		wantKind(t, "CreateRefreshToken of a revoked family", db.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: "h", Workspace: "wsp_1", Family: "fam_1"}), problem.NotFound)

		again, err := db.SaveGrant(ctx, oauth.Grant{ID: "grt_9", Workspace: "wsp_1", Client: "cli_1", User: "usr_1", Scopes: scopes(t, "deals:read"),
			ClientDigest: "digest 2", CreatedAt: now.Add(3 * time.Hour), ConsentedAt: now.Add(3 * time.Hour)})
		must(t, err)
		want.Scopes, want.ClientDigest, want.ConsentedAt, want.RevokedAt, want.ExpiresAt = scopes(t, "deals:read"), "digest 2", now.Add(3*time.Hour), time.Time{}, time.Time{}
		same(t, "SaveGrant again", again, want)
		if _, alive, err := db.Delegation(ctx, "wsp_1", "fam_1"); alive || err != nil {
			t.Errorf("a family from before the grant was revoked: got %t, %v; want it dead", alive, err)
		}

		own, err := db.SaveGrant(ctx, oauth.Grant{ID: "grt_0", Workspace: "wsp_1", Client: "cli_1", CreatedAt: now, ConsentedAt: now})
		must(t, err)
		same(t, "a grant without a user", own, oauth.Grant{ID: "grt_0", Workspace: "wsp_1", Client: "cli_1", ClientName: c.Name, CreatedAt: now, ConsentedAt: now})
		_, err = db.SaveGrant(ctx, oauth.Grant{ID: "grt_x", Workspace: "wsp_1", Client: "cli_none"})
		wantKind(t, "SaveGrant for no client", err, problem.NotFound)
		for what, err := range map[string]error{
			"SetGrantScopes": db.SetGrantScopes(ctx, "wsp_1", "grt_x", nil),
			"RevokeGrant":    db.RevokeGrant(ctx, "wsp_1", "grt_x", now),
		} {
			wantKind(t, what+" of no grant", err, problem.NotFound)
		}
	})
}

func TestGrantsAreListedNewestFirst(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		for i := range 6 {
			id := fmt.Sprint("cli_", i%2)
			if i < 2 {
				client(t, db, "", id, access.Principal{})
			}
			consent(t, db, "wsp_1", id, fmt.Sprint("usr_", i/2), fmt.Sprint("grt_", i))
		}
		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_4", now))
		for _, tt := range []struct {
			q    oauth.GrantQuery
			want string
		}{
			{oauth.GrantQuery{Limit: 10}, "grt_5 grt_4 grt_3 grt_2 grt_1 grt_0"},
			{oauth.GrantQuery{Limit: 2}, "grt_5 grt_4"},
			{oauth.GrantQuery{Limit: 2, Before: "grt_4"}, "grt_3 grt_2"},
			{oauth.GrantQuery{InForce: true, Limit: 10}, "grt_5 grt_3 grt_2 grt_1 grt_0"},
			{oauth.GrantQuery{Client: "cli_0", Limit: 10}, "grt_4 grt_2 grt_0"},
			{oauth.GrantQuery{User: "usr_1", Limit: 10}, "grt_3 grt_2"},
			{oauth.GrantQuery{User: "usr_1", Client: "cli_0", InForce: true, Before: "grt_3", Limit: 10}, "grt_2"},
			{oauth.GrantQuery{User: "usr_9", Limit: 10}, ""},
		} {
			page, err := db.Grants(ctx, "wsp_1", tt.q)
			must(t, err)
			var got []string
			for _, g := range page {
				got = append(got, g.ID)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("Grants(%+v): got %v, want %s", tt.q, got, tt.want)
			}
		}
	})
}

func TestCodesAndTokensAreStored(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		g := connect(t, db, "wsp_1", "cli_1", "usr_1", "1")
		want := code(g, "code_1")
		c, err := db.Code(ctx, "code_1")
		must(t, err)
		same(t, "Code", c, want)
		must(t, db.TakeCode(ctx, "code_1", "fam_1", now.Add(time.Second)))
		wantKind(t, "TakeCode twice", db.TakeCode(ctx, "code_1", "fam_2", now), problem.Conflict)
		wantKind(t, "TakeCode of none", db.TakeCode(ctx, "code_9", "fam_2", now), problem.NotFound)
		want.UsedAt, want.Family = now.Add(time.Second), "fam_1"
		c, err = db.Code(ctx, "code_1")
		must(t, err)
		same(t, "Code after it was taken", c, want)

		f := family(g, "fam_1")
		f.ExpiresAt = now.Add(24 * time.Hour) // its token's
		token := oauth.RefreshToken{Hash: "token_1", Workspace: "wsp_1", Family: "fam_1", CreatedAt: now, ExpiresAt: now.Add(24 * time.Hour)}
		tokens := func(what string) {
			t.Helper()
			gotToken, gotFamily, err := db.RefreshToken(ctx, "token_1")
			must(t, err)
			same(t, what, gotToken, token)
			same(t, what, gotFamily, f)
			gotFamily, err = db.Family(ctx, "wsp_1", "fam_1")
			must(t, err)
			same(t, what, gotFamily, f)
			if g, err := db.Grant(ctx, "wsp_1", "grt_1", false); err != nil || !g.ExpiresAt.Equal(f.ExpiresAt) {
				t.Errorf("%s: the grant ends at %v, %v; want %v", what, g.ExpiresAt, err, f.ExpiresAt)
			}
		}
		tokens("RefreshToken")
		must(t, db.ProlongRefreshToken(ctx, "token_1", now.Add(time.Hour)))
		tokens("RefreshToken prolonged by less")
		f.ExpiresAt, token.ExpiresAt = now.Add(48*time.Hour), now.Add(48*time.Hour)
		must(t, db.ProlongRefreshToken(ctx, "token_1", token.ExpiresAt))
		tokens("RefreshToken prolonged")
		must(t, db.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: "token_2", Workspace: "wsp_1", Family: "fam_1", ExpiresAt: now}))
		tokens("RefreshToken beside a shorter one")
		must(t, db.SpendRefreshToken(ctx, "token_1", now.Add(time.Minute)))
		wantKind(t, "SpendRefreshToken twice", db.SpendRefreshToken(ctx, "token_1", now), problem.Conflict)
		token.SpentAt = now.Add(time.Minute)
		for range 2 {
			must(t, db.CountSibling(ctx, "token_1", 2))
		}
		wantKind(t, "CountSibling beyond the most", db.CountSibling(ctx, "token_1", 2), problem.Conflict)
		wantKind(t, "CountSibling of a current token", db.CountSibling(ctx, "token_2", 2), problem.Conflict)
		must(t, db.RevokeFamily(ctx, "wsp_1", "fam_1", now.Add(time.Hour)))
		must(t, db.RevokeFamily(ctx, "wsp_1", "fam_1", now.Add(2*time.Hour)))
		f.RevokedAt = now.Add(time.Hour)
		tokens("RefreshToken, spent, of a revoked family")

		_, _, err = db.RefreshToken(ctx, "token_9")
		_, none := db.Family(ctx, "wsp_1", "fam_9")
		_, noCode := db.Code(ctx, "code_9")
		for what, err := range map[string]error{"RefreshToken": err, "Family": none, "Code": noCode,
			"SpendRefreshToken":     db.SpendRefreshToken(ctx, "token_9", now),
			"ProlongRefreshToken":   db.ProlongRefreshToken(ctx, "token_9", now),
			"ProlongRefreshToken 2": db.ProlongRefreshToken(ctx, "token_1", now.Add(99*time.Hour)), // of a revoked family
			"RevokeFamily":          db.RevokeFamily(ctx, "wsp_1", "fam_9", now),
		} {
			wantKind(t, what+" of none", err, problem.NotFound)
		}
	})
}

// won counts who got no error, and wants the others refused.
func won(t *testing.T, errs []error) {
	t.Helper()
	n := 0
	for _, err := range errs {
		if err == nil {
			n++
		} else if !problem.Is(err, problem.Conflict) {
			t.Errorf("got %v, want %s", err, problem.Conflict)
		}
	}
	if n != 1 {
		t.Errorf("%d have won, want 1", n)
	}
}

func TestOneOfManyWins(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		ctx := t.Context()
		workspace(t, dbs[0], "wsp_1")
		g := connect(t, dbs[0], "wsp_1", "cli_1", "usr_1", "1")
		errs := make([]error, 16)
		race(16, func(i int) {
			// As an exchange does, so that locks taken after the code's are too.
			errs[i] = storage.InTx[oauth.Store](dbs[i%len(dbs)])(ctx, func(tx oauth.Store) error {
				f := family(g, fmt.Sprint("fam_race", i))
				if err := tx.TakeCode(ctx, "code_1", f.ID, now); err != nil {
					return err
				}
				if err := tx.CreateFamily(ctx, f); err != nil {
					return err
				}
				return tx.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: f.ID, Workspace: f.Workspace, Family: f.ID, ExpiresAt: now.Add(time.Hour)})
			})
		})
		won(t, errs)
		race(16, func(i int) {
			errs[i] = storage.InTx[oauth.Store](dbs[i%len(dbs)])(ctx, func(tx oauth.Store) error {
				token, f, err := tx.RefreshToken(ctx, "token_1")
				if err != nil {
					return err
				}
				err = tx.SpendRefreshToken(ctx, token.Hash, now)
				if (err == nil) != token.SpentAt.IsZero() {
					t.Errorf("SpendRefreshToken of a locked token that was spent at %v: got %v", token.SpentAt, err)
				}
				if err != nil {
					return err
				}
				return tx.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: fmt.Sprint("next", i), Workspace: f.Workspace, Family: f.ID, ExpiresAt: now.Add(time.Hour)})
			})
		})
		won(t, errs)
		issue(t, dbs[0], g, "2")
		race(16, func(i int) { errs[i] = dbs[i%len(dbs)].TakeCode(ctx, "code_2", fmt.Sprint(i), now) })
		won(t, errs)
		race(16, func(i int) { errs[i] = dbs[i%len(dbs)].SpendRefreshToken(ctx, "token_2", now) })
		won(t, errs)
	})
}

// What is exchanged while the grant is revoked is either refused, or revoked
// with it: nothing of it comes back with a later consent.
func TestNothingIsIssuedPastARevocation(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		client(t, db, "", "cli_1", access.Principal{})
		for round := range 20 {
			g := consent(t, db, "wsp_1", "cli_1", fmt.Sprint("usr_", round), fmt.Sprint("grt_", round))
			n := fmt.Sprint(round)
			issue(t, db, g, n)
			race(4, func(i int) {
				db := dbs[i%len(dbs)]
				var err error
				switch i {
				case 0:
					err = db.RevokeGrant(ctx, "wsp_1", g.ID, now)
				case 1:
					err = storage.InTx[oauth.Store](db)(ctx, func(tx oauth.Store) error {
						if err := tx.TakeCode(ctx, "code_"+n, "fam_new"+n, now); err != nil {
							return err
						}
						return tx.CreateFamily(ctx, family(g, "fam_new"+n))
					})
				case 2:
					err = storage.InTx[oauth.Store](db)(ctx, func(tx oauth.Store) error {
						_, f, err := tx.RefreshToken(ctx, "token_"+n)
						if err != nil {
							return err
						}
						if err := tx.SpendRefreshToken(ctx, "token_"+n, now); err != nil {
							return err
						}
						return tx.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: "next_" + n, Workspace: "wsp_1", Family: f.ID, ExpiresAt: now.Add(time.Hour)})
					})
				case 3:
					err = db.CreateCode(ctx, code(g, "late_"+n))
				}
				if err != nil && (i == 0 || !problem.Is(err, problem.NotFound)) {
					t.Errorf("round %d, %d: %v", round, i, err)
				}
			})
			for _, id := range []string{"fam_", "fam_new"} {
				if f, err := db.Family(ctx, "wsp_1", id+n); err == nil && f.RevokedAt.IsZero() {
					t.Errorf("round %d: %s is in force after the grant was revoked", round, f.ID)
				}
			}
			for _, hash := range []string{"code_", "late_"} {
				if c, err := db.Code(ctx, hash+n); err == nil && c.UsedAt.IsZero() {
					t.Errorf("round %d: %s can be exchanged after the grant was revoked", round, c.Hash)
				}
			}
		}
	})
}

func TestOneGrantForClientAndUser(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		ctx := t.Context()
		workspace(t, dbs[0], "wsp_1")
		client(t, dbs[0], "", "cli_1", access.Principal{})
		ids := make([]string, 8)
		race(8, func(i int) {
			g, err := dbs[i%len(dbs)].SaveGrant(ctx, oauth.Grant{ID: fmt.Sprint("grt_", i), Workspace: "wsp_1", Client: "cli_1", User: "usr_1", ConsentedAt: now})
			if err != nil {
				t.Errorf("SaveGrant: %v", err)
			}
			ids[i] = g.ID
		})
		if ids = slices.Compact(ids); len(ids) != 1 {
			t.Errorf("SaveGrant by 8 at once: got the ids %v, want one", ids)
		}
		if all, err := dbs[0].Grants(ctx, "wsp_1", oauth.GrantQuery{Limit: 10}); err != nil || len(all) != 1 || all[0].ID != ids[0] {
			t.Errorf("Grants: got %+v, %v; want one with the id %s", all, err, ids[0])
		}
	})
}

func TestSigningKeysHaveOneSuccessor(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		after := ""
		for round := range 3 {
			start := now.Add(time.Duration(round) * time.Hour)
			added := make([]bool, 8)
			race(8, func(i int) {
				k := oauth.SigningKey{ID: fmt.Sprint("key", round, i), Private: "sealed", Public: []byte{0, byte(round), 0xff}, CreatedAt: start, ActiveAt: start.Add(time.Minute)}
				var err error
				if added[i], err = dbs[i%len(dbs)].AddSigningKey(ctx, k, after, start.Add(90*time.Minute)); err != nil {
					t.Errorf("AddSigningKey: %v", err)
				}
			})
			winner := slices.Index(added, true)
			if winner < 0 || slices.Contains(added[winner+1:], true) {
				t.Fatalf("AddSigningKey by 8 at once: got %v, want one", added)
			}
			after = fmt.Sprint("key", round, winner)
		}
		// The first ended with the second, at 1:00 + 1:30, the second at 3:30.
		for hours, want := range map[float64]int{1: 3, 2.5: 2, 3: 2, 3.5: 1, 99: 1} {
			got, err := db.SigningKeys(ctx, now.Add(time.Duration(hours*float64(time.Hour))))
			must(t, err)
			if len(got) != want {
				t.Errorf("SigningKeys %v hours later: got %d, want %d", hours, len(got), want)
			}
			last := got[len(got)-1]
			same(t, "the newest key", last, oauth.SigningKey{ID: after, Private: "sealed", Public: []byte{0, 2, 0xff}, CreatedAt: now.Add(2 * time.Hour), ActiveAt: now.Add(2*time.Hour + time.Minute)})
		}
		_, err := db.AddSigningKey(ctx, oauth.SigningKey{ID: "k"}, "none", now)
		wantKind(t, "AddSigningKey after none", err, problem.NotFound)
		if n, err := db.PurgeTokens(ctx, now.Add(3*time.Hour)); n != 1 || err != nil {
			t.Errorf("PurgeTokens: got %d, %v; want the first key gone", n, err)
		}
		if got, err := db.SigningKeys(ctx, now); err != nil || len(got) != 2 || got[1].ID != after {
			t.Errorf("SigningKeys after the purge: got %+v, %v; want two", got, err)
		}
	})
}

func TestDelegationIsWhatHoldsNow(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		clock := storagetest.NewClock()
		db := storagetest.OpenAt(t, url, clock.Now)
		ctx := t.Context()
		w := workspace(t, db, "wsp_1")
		person(t, db, "wsp_1", "usr_0", access.Owner)
		person(t, db, "wsp_1", "usr_1", access.Admin)
		c := client(t, db, "wsp_1", "cli_1", access.Principal{Kind: access.KindKey, ID: "key_gone"}) // the user's consent outlives the key
		g := consent(t, db, "wsp_1", "cli_1", "usr_1", "grt_1")
		issue(t, db, g, "1")
		want := access.Delegation{ID: "grt_1", Client: "cli_1", ClientName: c.Name,
			User:      access.User{ID: "usr_1", Email: "usr_1@example.com", Name: "Name of usr_1", Role: access.Admin, CreatedAt: now},
			Workspace: w, Scopes: scopes(t, "contacts:write"), Ceiling: scopes(t, "contacts:delete deals:write"), Limits: access.Limits{PerMinute: 7, PerDay: 70}, Parent: "key_gone"}
		alive := true
		// Each is read twice before the change, so that it is remembered.
		check := func(what string) {
			t.Helper()
			for range 2 {
				got, on, err := db.Delegation(ctx, "wsp_1", "fam_1")
				must(t, err)
				same(t, what, got, want)
				if on != alive {
					t.Errorf("%s: alive is %t, want %t", what, on, alive)
				}
				got, err = db.DelegationOf(ctx, "wsp_1", "grt_1")
				must(t, err)
				same(t, what, got, want)
			}
		}
		check("Delegation")

		want.Scopes = scopes(t, "contacts:read")
		must(t, db.SetGrantScopes(ctx, "wsp_1", "grt_1", want.Scopes))
		check("a narrower grant")
		want.Ceiling, want.Limits = scopes(t, "contacts:write-approval"), access.Limits{PerMinute: 1}
		must(t, db.UpdatePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: "cli_1", Ceiling: want.Ceiling, Limits: want.Limits}))
		check("another policy")
		want.ClientName, c.Name = "Other name", "Other name"
		must(t, db.UpdateClient(ctx, c))
		check("another name")
		want.User.Role = access.Member
		must(t, db.SetMember(ctx, "wsp_1", "usr_1", access.Member, now))
		check("another role")
		want.User.Role = ""
		must(t, db.RemoveMember(ctx, "wsp_1", "usr_1"))
		check("no member any more")
		want.Workspace.Plan = access.Free
		must(t, db.UpdateWorkspace(ctx, want.Workspace))
		check("another plan")
		alive = false
		must(t, db.RevokeFamily(ctx, "wsp_1", "fam_1", now))
		check("a revoked family")
		want.RevokedAt = now.Add(time.Minute)
		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_1", want.RevokedAt))
		check("a revoked grant")
		want.RevokedAt = time.Time{}
		_, err := db.SaveGrant(ctx, oauth.Grant{ID: "grt_2", Workspace: "wsp_1", Client: "cli_1", User: "usr_1", Scopes: want.Scopes, ConsentedAt: now})
		must(t, err)
		check("another consent")

		// What a transaction sees may be undone.
		undo := errors.New("undo")
		if err := storage.InTx[oauthTx](db)(ctx, func(tx oauthTx) error {
			if err := tx.SetGrantScopes(ctx, "wsp_1", "grt_1", nil); err != nil {
				return err
			}
			if d, err := tx.DelegationOf(ctx, "wsp_1", "grt_1"); err != nil || len(d.Scopes) > 0 {
				t.Errorf("within the transaction: got %v, %v; want no scopes", d.Scopes, err)
			}
			return undo
		}); !errors.Is(err, undo) {
			t.Fatal(err)
		}
		check("undone")

		must(t, db.RemoveClient(ctx, "wsp_1", "cli_1"))
		_, _, err = db.Delegation(ctx, "wsp_1", "fam_1")
		wantKind(t, "Delegation of a client that is gone", err, problem.NotFound)
		_, err = db.DelegationOf(ctx, "wsp_1", "grt_1")
		wantKind(t, "DelegationOf a client that is gone", err, problem.NotFound)
	})
}

// oauthTx is what the tests need of a transaction.
type oauthTx interface {
	SetGrantScopes(ctx context.Context, workspace, id string, scopes []access.Scope) error
	DelegationOf(ctx context.Context, workspace, grant string) (access.Delegation, error)
}

func TestClientThatActsForItselfEndsWithItsKey(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		clock := storagetest.NewClock()
		db := storagetest.OpenAt(t, url, clock.Now)
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		k, _ := key(t, db, "wsp_1", "key_1")
		k.FullAccess = true
		must(t, db.UpdateKey(ctx, k))
		client(t, db, "wsp_1", "cli_1", access.Principal{Kind: access.KindKey, ID: k.ID, Name: k.Name})
		issue(t, db, consent(t, db, "wsp_1", "cli_1", "", "grt_1"), "1")
		check := func(what string, revoked time.Time) {
			t.Helper()
			d, alive, err := db.Delegation(ctx, "wsp_1", "fam_1")
			must(t, err)
			of, err := db.DelegationOf(ctx, "wsp_1", "grt_1")
			must(t, err)
			same(t, what, of, d)
			if d.Parent != "key_1" || d.User != (access.User{}) || alive != revoked.IsZero() || !d.RevokedAt.Equal(revoked) {
				t.Errorf("%s: got %+v, alive %t; want it revoked at %v", what, d, alive, revoked)
			}
		}
		check("an active key", time.Time{})
		k.RevokedAt = now.Add(-time.Hour)
		must(t, db.UpdateKey(ctx, k))
		check("a revoked key", k.RevokedAt)
		k.RevokedAt, k.ExpiresAt = time.Time{}, now.Add(time.Hour)
		must(t, db.UpdateKey(ctx, k))
		check("a key that will expire", time.Time{})
		k.FullAccess = false
		must(t, db.UpdateKey(ctx, k))
		check("a key without full access", clock.Now())
		k.FullAccess = true
		must(t, db.UpdateKey(ctx, k))
		clock.Advance(time.Hour)
		check("an expired key", k.ExpiresAt)
		must(t, db.DeleteKey(ctx, "wsp_1", "key_1"))
		check("a key that is gone", clock.Now())
	})
}

func TestUnusedClientsArePurged(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		person(t, db, "wsp_1", "usr_1", access.Owner)
		for _, id := range []string{"cli_live", "cli_edited"} {
			client(t, db, "", id, access.Principal{})
			issue(t, db, consent(t, db, "wsp_1", id, "usr_1", "grt_"+id), id)
		}
		must(t, db.UpdatePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: "cli_edited"}))
		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_cli_edited", now))
		client(t, db, "wsp_1", "cli_registered", access.Operator)
		young := oauth.Client{ID: "cli_young", Origin: oauth.Dynamic, CreatedAt: now.Add(time.Hour)}
		must(t, db.CreateClient(ctx, young))
		want := dump(t, db, "")
		client(t, db, "", "cli_unused", access.Principal{})
		client(t, db, "", "cli_expired", access.Principal{}) // its refresh token has long ended
		consent(t, db, "wsp_1", "cli_expired", "usr_1", "grt_e")
		client(t, db, "", "cli_revoked", access.Principal{})
		issue(t, db, consent(t, db, "wsp_1", "cli_revoked", "usr_1", "grt_r"), "r")
		must(t, db.TakeCode(ctx, "code_r", "fam_r", now))
		must(t, db.AddUsage(ctx, []access.Count{{Workspace: "wsp_1", Credential: "grt_r", Hour: now, Action: "a", Outcome: access.OutcomeOK, N: 1}}, nil))
		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_r", now))
		if n, err := db.PurgeClients(ctx, now.Add(time.Minute)); n != 3 || err != nil {
			t.Errorf("PurgeClients: got %d, %v; want 3", n, err)
		}
		if got := dump(t, db, ""); got != want {
			t.Errorf("after PurgeClients:\n%s", changedLines(want, got))
		}
		if n, err := db.PurgeClients(ctx, now.Add(time.Minute)); n != 0 || err != nil {
			t.Errorf("PurgeClients again: got %d, %v; want none", n, err)
		}
	})
}

func TestClientsWithoutConsentArePurged(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		client(t, db, "wsp_1", "cli_registered", access.Operator)
		for _, id := range []string{"cli_consented", "cli_left"} {
			client(t, db, "", id, access.Principal{})
			consent(t, db, "wsp_1", id, "usr_1", "grt_"+id)
		}
		must(t, db.RemoveClient(ctx, "wsp_1", "cli_left")) // somebody had consented
		document := func(id string, created, fetched time.Time) {
			must(t, db.SaveDocumentClient(ctx, oauth.Client{ID: id, Origin: oauth.Metadata, CreatedAt: created, Document: oauth.Document{FetchedAt: fetched}}))
		}
		document("https://fresh.example/c", now, now.Add(time.Hour))
		must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_young", Origin: oauth.Dynamic, CreatedAt: now.Add(time.Hour)}))
		want := dump(t, db, "")
		client(t, db, "", "cli_never", access.Principal{})
		document("https://stale.example/c", now, now)
		for _, n := range []int64{2, 0} {
			if got, err := db.PurgeUnconsented(ctx, now.Add(time.Hour)); got != n || err != nil {
				t.Errorf("PurgeUnconsented: got %d, %v; want %d", got, err, n)
			}
		}
		if got := dump(t, db, ""); got != want {
			t.Errorf("after PurgeUnconsented:\n%s", changedLines(want, got))
		}
	})
}

// fillClients makes n clients that nobody has consented to, a second apart.
func fillClients(t *testing.T, db *storage.DB, n int) {
	t.Helper()
	must(t, db.Raw(t.Context(), fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO oauth_clients (id, workspace, origin, name, uri, redirect_uris, auth_method, grant_types, scope, secret, old_secret,
			old_until, doc_digest, doc_fetched, doc_fresh, doc_etag, maker, parent, created)
		SELECT 'cli_fill' || i, '', 'dynamic', '', '', '[]', 'none', '', '', '', '', 0, '', 0, 0, '', '', '', %d + i * 1000 FROM n`, n, now.UnixMilli())))
}

func TestClientsWithoutConsentMakeRoom(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		client(t, db, "", "cli_consented", access.Principal{}) // older than all, and stays
		consent(t, db, "wsp_1", "cli_consented", "usr_1", "grt_1")
		client(t, db, "wsp_1", "cli_registered", access.Operator)
		fillClients(t, db, oauth.MaxUnconsented-1)
		late := now.Add(oauth.MaxUnconsented * time.Second)
		gone := func(id string) bool {
			_, err := db.Client(ctx, id)
			return problem.Is(err, problem.NotFound)
		}
		must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_a", Origin: oauth.Dynamic, CreatedAt: late}))
		client(t, db, "wsp_1", "cli_registered2", access.Operator)
		if gone("cli_fill1") {
			t.Error("a client goes while there is room")
		}
		must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_b", Origin: oauth.Dynamic, CreatedAt: late}))
		must(t, db.SaveDocumentClient(ctx, oauth.Client{ID: "https://app.example/c", Origin: oauth.Metadata, CreatedAt: late}))
		if !gone("cli_fill1") || !gone("cli_fill2") || gone("cli_fill3") {
			t.Error("two more than there is room for: want the two oldest gone")
		}
		// One whose clock is behind does not remove itself, and the others go on.
		must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_c", Origin: oauth.Dynamic, CreatedAt: now}))
		if gone("cli_c") {
			t.Error("the new client is gone at once")
		}
		consent(t, db, "wsp_1", "cli_c", "usr_1", "grt_c")
		// Registrations and consents at once, on all nodes, wait for nobody for long.
		race(16, func(i int) {
			db := dbs[i%len(dbs)]
			if i%4 == 0 {
				_, err := db.EnsurePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: fmt.Sprint("cli_fill", 3+i), CreatedAt: now})
				if err != nil && !problem.Is(err, problem.NotFound) {
					t.Errorf("EnsurePolicy: %v", err)
				}
				return
			}
			if err := db.CreateClient(ctx, oauth.Client{ID: fmt.Sprint("cli_race", i), Origin: oauth.Dynamic, CreatedAt: late.Add(time.Second)}); err != nil {
				t.Errorf("CreateClient: %v", err)
			}
		})
		must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_last", Origin: oauth.Dynamic, CreatedAt: late.Add(time.Minute)}))
		rows, err := db.Rows(ctx, `SELECT COUNT(*) FROM oauth_clients WHERE workspace = '' AND NOT consented`)
		must(t, err)
		defer rows.Close()
		var n int
		if rows.Next() {
			must(t, rows.Scan(&n))
		}
		if n > oauth.MaxUnconsented || n < oauth.MaxUnconsented-16 {
			t.Errorf("%d clients are left without consent, want at most %d", n, oauth.MaxUnconsented)
		}
		for _, id := range []string{"cli_consented", "cli_c", "cli_registered", "cli_race1", "cli_last"} {
			if gone(id) {
				t.Errorf("%s is gone", id)
			}
		}
	})
}

func TestPurgeLeavesNoGrantWithoutClient(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		db, ctx := dbs[0], t.Context()
		workspace(t, db, "wsp_1")
		const rounds = 30
		for i := range rounds {
			id := fmt.Sprint("cli_", i)
			client(t, db, "", id, access.Principal{})
			if i%2 == 0 { // one that was revoked comes back
				g := consent(t, db, "wsp_1", id, "usr_1", "grt_"+id)
				must(t, db.RevokeGrant(ctx, "wsp_1", g.ID, now))
			}
		}
		saved := make([]error, rounds)
		race(4, func(who int) {
			if who == 0 {
				for range 5 {
					if _, err := dbs[len(dbs)-1].PurgeClients(ctx, now.Add(time.Hour)); err != nil {
						t.Errorf("PurgeClients: %v", err)
					}
				}
				return
			}
			for i := who - 1; i < rounds; i += 3 {
				id := fmt.Sprint("cli_", i)
				saved[i] = storage.InTx[oauth.Store](dbs[who%len(dbs)])(ctx, func(tx oauth.Store) error {
					if _, err := tx.EnsurePolicy(ctx, oauth.Policy{Workspace: "wsp_1", Client: id, CreatedAt: now}); err != nil {
						return err
					}
					g, err := tx.SaveGrant(ctx, oauth.Grant{ID: "grt_new" + id, Workspace: "wsp_1", Client: id, User: "usr_1", ConsentedAt: now.Add(2 * time.Hour)})
					if err != nil {
						return err
					}
					return tx.CreateFamily(ctx, family(g, "fam_"+id))
				})
			}
		})
		for i, err := range saved {
			id := fmt.Sprint("cli_", i)
			_, alive, derr := db.Delegation(ctx, "wsp_1", "fam_"+id)
			if err == nil && (derr != nil || !alive) {
				t.Errorf("%s: consent was stored, and then Delegation: got %t, %v", id, alive, derr)
			}
			if err != nil {
				wantKind(t, id+": consent", err, problem.NotFound)
			}
		}
		rows, err := db.Rows(ctx, `SELECT COUNT(*) FROM oauth_grants g WHERE NOT EXISTS (SELECT 1 FROM oauth_clients c WHERE c.id = g.client)`)
		must(t, err)
		defer rows.Close()
		var orphans int
		if rows.Next() {
			must(t, rows.Scan(&orphans))
		}
		if orphans != 0 {
			t.Errorf("%d grants have no client", orphans)
		}
	})
}

// A consent that commits between the purge's look and its locks is seen.
func TestPurgeLooksAgainAtWhatItHasLocked(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		workspace(t, db, "wsp_1")
		client(t, db, "", "cli_1", access.Principal{})
		consent(t, db, "wsp_1", "cli_1", "usr_1", "grt_1")
		if gone, err := db.PurgeLocked(t.Context(), "cli_1", now); gone || err != nil {
			t.Errorf("a client with a grant in force: got %t, %v; want it kept", gone, err)
		}
	})
}

func TestExpiredTokensArePurged(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		g := connect(t, db, "wsp_1", "cli_1", "usr_1", "1") // a code for a minute, tokens for a day
		must(t, db.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: "spent", Workspace: "wsp_1", Family: "fam_1", ExpiresAt: now.Add(time.Hour), SpentAt: now}))
		must(t, db.CreateFamily(ctx, family(g, "fam_2"))) // for an hour
		must(t, db.RevokeFamily(ctx, "wsp_1", "fam_2", now))
		for _, step := range []struct {
			hours, want int64
			left        string
		}{
			{0, 0, "code fam_1 fam_2 spent token"},
			{1, 1, "fam_1 fam_2 spent token"},
			{2, 2, "fam_1 token"},
			{24, 0, "fam_1 token"}, // until, and not before
			{25, 2, ""},
		} {
			if n, err := db.PurgeTokens(ctx, now.Add(time.Duration(step.hours)*time.Hour)); n != step.want || err != nil {
				t.Errorf("PurgeTokens %d hours later: got %d, %v; want %d", step.hours, n, err, step.want)
			}
			var left []string
			note := func(name string, err error) {
				if err == nil {
					left = append(left, name)
				}
			}
			_, err := db.Code(ctx, "code_1")
			note("code", err)
			for _, id := range []string{"fam_1", "fam_2"} {
				_, err = db.Family(ctx, "wsp_1", id)
				note(id, err)
			}
			_, _, err = db.RefreshToken(ctx, "spent")
			note("spent", err)
			_, _, err = db.RefreshToken(ctx, "token_1")
			note("token", err)
			if strings.Join(left, " ") != step.left {
				t.Errorf("%d hours later: %v are left, want %s", step.hours, left, step.left)
			}
		}
	})
}

func TestPurgeIsBounded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		g := connect(t, db, "wsp_1", "cli_1", "usr_1", "1")
		must(t, storage.InTx[oauth.Store](db)(ctx, func(tx oauth.Store) error {
			for i := range storage.PurgeBatch {
				if err := tx.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: fmt.Sprint(i), Workspace: "wsp_1", Family: "fam_1", ExpiresAt: now}); err != nil {
					return err
				}
				if err := tx.CreateClient(ctx, oauth.Client{ID: fmt.Sprint("cli_x", i), Origin: oauth.Dynamic, CreatedAt: now}); err != nil {
					return err
				}
			}
			return tx.CreateClient(ctx, oauth.Client{ID: "cli_last", Origin: oauth.Dynamic, CreatedAt: now})
		}))
		must(t, db.RevokeGrant(ctx, "wsp_1", g.ID, now))
		late := now.Add(99 * time.Hour)
		for _, want := range []int64{storage.PurgeBatch, 2, 0} { // the last token and the family
			if n, err := db.PurgeTokens(ctx, late); n != want || err != nil {
				t.Errorf("PurgeTokens: got %d, %v; want %d", n, err, want)
			}
		}
		for _, want := range []int64{storage.PurgeBatch, 1, 0} {
			if n, err := db.PurgeClients(ctx, late); n != want || err != nil {
				t.Errorf("PurgeClients: got %d, %v; want %d", n, err, want)
			}
		}
	})
}

func TestSessions(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		end := now.Add(time.Hour)
		must(t, db.CreateSession(ctx, "h1", []byte{0, 1, 0xff}, now))
		must(t, db.UpdateSession(ctx, "h1", []byte{0, 2, 0xff}, end))
		must(t, db.CreateSession(ctx, "h2", nil, now))
		must(t, db.UpdateSession(ctx, "h3", nil, end))
		_, _, err := db.Session(ctx, "h3")
		wantKind(t, "Session that was only changed", err, problem.NotFound)
		if data, expires, err := db.Session(ctx, "h1"); string(data) != "\x00\x02\xff" || !expires.Equal(end) || err != nil {
			t.Errorf("Session: got %x until %v, %v; want what was saved last", data, expires, err)
		}
		if n, err := db.PurgeSessions(ctx, end); n != 1 || err != nil {
			t.Errorf("PurgeSessions: got %d, %v; want 1", n, err)
		}
		_, _, err = db.Session(ctx, "h2")
		wantKind(t, "Session that was purged", err, problem.NotFound)
		must(t, db.DeleteSession(ctx, "h1"))
		must(t, db.DeleteSession(ctx, "h1"))
		_, _, err = db.Session(ctx, "h1")
		wantKind(t, "Session that was deleted", err, problem.NotFound)
	})
}

func TestPeopleAndTheirWorkspaces(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		person(t, db, "", "usr_1", "")
		u, hash, err := db.UserByID(ctx, "usr_1")
		must(t, err)
		if want := (access.User{ID: "usr_1", Email: "usr_1@example.com", Name: "Name of usr_1", CreatedAt: now}); u != want || hash != "hash of usr_1" {
			t.Errorf("UserByID: got %+v with %q, want %+v", u, hash, want)
		}
		_, _, err = db.UserByID(ctx, "usr_9")
		wantKind(t, "UserByID of nobody", err, problem.NotFound)
		want := []access.Membership{}
		for _, id := range []string{"wsp_a", "wsp_b", "wsp_c"} {
			want = append(want, access.Membership{Workspace: workspace(t, db, id), Role: access.Owner, Notice: access.NoticeImmediately})
		}
		want[0].Workspace.Name, want[1].Workspace.Name, want[2].Workspace.Name = "Zoo", "Acme", "Acme"
		for _, m := range want {
			must(t, db.UpdateWorkspace(ctx, m.Workspace))
			must(t, db.SetMember(ctx, m.Workspace.ID, "usr_1", m.Role, now))
		}
		got, err := db.Memberships(ctx, "usr_1")
		must(t, err)
		same(t, "Memberships", got, []access.Membership{want[1], want[2], want[0]})
		if got, err := db.Memberships(ctx, "usr_9"); len(got) != 0 || err != nil {
			t.Errorf("Memberships of nobody: got %v, %v; want none", got, err)
		}
	})
}
