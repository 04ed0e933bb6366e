package oauth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func TestOAuth_2_4_CodeSingleUse(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		code := f.consent("contacts:read")
		r := f.exchange(code)
		want(t, r, 200, "")
		if r.str("token_type") != "Bearer" || r.m["expires_in"] != 3600.0 || r.str("scope") != "workspace" || r.str("refresh_token") == "" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("got %s", r.body)
		}
		f.works(r.str("access_token"), mcp, true)
		want(t, f.exchange(code), 400, "invalid_grant")
		f.works(r.str("access_token"), mcp, false)
		want(t, f.refresh(r.str("refresh_token")), 400, "invalid_grant")
		if n := f.events(audit.TokenReused); n != 1 {
			t.Errorf("the replay is %d times in the log", n)
		}
	})
}

func TestOAuth_2_4_CodeIsBound(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		other := f.add(oauth.Client{RedirectURIs: []string{callback}})
		good := func(code string) { t.Helper(); want(t, f.exchange(code), 200, "") }
		code := f.consent("contacts:read")
		want(t, f.exchange(code, "client_id", other.ID), 400, "invalid_grant")
		want(t, f.exchange(code, "redirect_uri", callback+"/"), 400, "invalid_grant")
		want(t, f.exchange(code, "resource", issuer), 400, "invalid_target")
		good(code)
		good(f.consent("contacts:read"))
		want(t, f.exchange(f.consent("contacts:read"), "resource", mcp, "redirect_uri", ""), 200, "") // OAuth 2.1 has no redirect_uri here

		code = f.consent("contacts:read")
		want(t, f.exchange(code, "code_verifier", strings.Repeat("x", 43)), 400, "invalid_grant")
		want(t, f.exchange(code), 400, "invalid_grant") // one guess is all there is
		want(t, f.exchange(f.consent("contacts:read"), "code_verifier", ""), 400, "invalid_request")
		want(t, f.exchange(f.consent("contacts:read"), "code_verifier", challenge(verifier)), 400, "invalid_grant")

		code = f.consent("contacts:read")
		f.pass(oauth.CodeTTL - time.Second)
		good(code)
		code = f.consent("contacts:read")
		f.pass(oauth.CodeTTL)
		want(t, f.exchange(code), 400, "invalid_grant")

		code = f.consent("contacts:read")
		g, err := db.GrantOf(f.ctx, f.ws.ID, f.client.ID, f.user.ID)
		must(t, err)
		must(t, db.RevokeGrant(f.ctx, f.ws.ID, g.ID, f.now()))
		want(t, f.exchange(code), 400, "invalid_grant")

		code = f.consent("contacts:read")
		must(t, db.RemoveMember(f.ctx, f.ws.ID, f.user.ID))
		want(t, f.exchange(code), 400, "invalid_grant")
	})
}

func TestOAuth_2_4_OneOfSixteenRedeemersWins(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		code := f.consent("contacts:read")
		replies := together(16, func() reply { return f.exchange(code) })
		won := 0
		for _, r := range replies {
			if r.status == 200 {
				won++
				f.works(r.str("access_token"), mcp, false) // the others were replays
			} else {
				want(t, r, 400, "invalid_grant")
			}
		}
		if won != 1 {
			t.Errorf("%d redeemers won", won)
		}
	})
}

// together calls do n times at once.
func together(n int, do func() reply) []reply {
	replies := make([]reply, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range replies {
		wg.Go(func() { <-start; replies[i] = do() })
	}
	close(start)
	wg.Wait()
	return replies
}

func TestOAuth_2_5_AccessTokensAreJWTs(t *testing.T) {
	f := one(t)
	r := f.connect("contacts:read")
	head, err := base64.RawURLEncoding.DecodeString(strings.SplitN(r.str("access_token"), ".", 2)[0])
	must(t, err)
	var header map[string]any
	must(t, json.Unmarshal(head, &header))
	kid, _ := f.s.PublicKey(f.ctx)
	if want := map[string]any{"alg": "EdDSA", "typ": "at+jwt", "kid": kid}; !maps.Equal(header, want) {
		t.Errorf("header: got %v, want %v", header, want)
	}
	c := oauth.Claims(r.str("access_token"))
	now := float64(f.now().Unix())
	for name, v := range map[string]any{"iss": issuer, "aud": mcp, "sub": f.user.ID, "client_id": f.client.ID, "scope": "workspace",
		"workspace": f.ws.ID, "iat": now, "exp": now + 3600} {
		if c[name] != v {
			t.Errorf("%s is %v, want %v", name, c[name], v)
		}
	}
	for _, name := range []string{"jti", "grant", "family"} {
		if s, _ := c[name].(string); s == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestOAuth_1_3_HostileTokens(t *testing.T) {
	f := one(t)
	good := f.connect("contacts:read").str("access_token")
	f.works(good, mcp, true)
	kid, public := f.s.PublicKey(f.ctx)
	encode := func(v any) string {
		b, err := json.Marshal(v)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	claims := func(change map[string]any) map[string]any {
		c := maps.Clone(oauth.Claims(good))
		maps.Copy(c, change)
		return c
	}
	sign := func(header, change map[string]any) string {
		token, err := f.s.Sign(f.ctx, header, claims(change))
		must(t, err)
		return token
	}
	hs256 := func(typ string) string {
		text := encode(map[string]any{"alg": "HS256", "typ": typ, "kid": kid}) + "." + encode(claims(nil))
		m := hmac.New(sha256.New, public)
		m.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
	parts := strings.Split(good, ".")
	otherWorkspace := mcp + "/" + typeid.NewID("ws")
	for name, token := range map[string]string{
		"empty":                        "",
		"dots":                         "..",
		"garbage":                      "a.b.c",
		"huge":                         strings.Repeat("a", 1<<20),
		"no signature":                 parts[0] + "." + parts[1] + ".",
		"two parts":                    parts[0] + "." + parts[1],
		"four parts":                   good + ".x",
		"padded":                       good + "=",
		"space":                        good + " ",
		"alg none":                     encode(map[string]any{"alg": "none", "typ": "at+jwt", "kid": kid}) + "." + parts[1] + ".",
		"alg None":                     encode(map[string]any{"alg": "None", "typ": "at+jwt", "kid": kid}) + "." + parts[1] + "." + parts[2],
		"no alg":                       encode(map[string]any{"typ": "at+jwt", "kid": kid}) + "." + parts[1] + "." + parts[2],
		"HS256 with the public key":    hs256("at+jwt"),
		"other claims":                 parts[0] + "." + encode(claims(map[string]any{"scope": "contacts:delete"})) + "." + parts[2],
		"other header":                 encode(map[string]any{"alg": "EdDSA", "typ": "at+jwt", "kid": kid, "x": 1}) + "." + parts[1] + "." + parts[2],
		"tampered signature":           parts[0] + "." + parts[1] + "." + flip(parts[2]),
		"typ JWT":                      sign(map[string]any{"typ": "JWT"}, nil),
		"no typ":                       sign(map[string]any{"typ": nil}, nil),
		"typ in capitals":              sign(map[string]any{"typ": "AT+JWT"}, nil),
		"unknown kid":                  sign(map[string]any{"kid": "other"}, nil),
		"no kid":                       sign(map[string]any{"kid": nil}, nil),
		"kid that is no text":          sign(map[string]any{"kid": []string{kid}}, nil),
		"critical header":              sign(map[string]any{"crit": []string{"exp"}}, nil),
		"other issuer":                 sign(nil, map[string]any{"iss": "https://evil.example"}),
		"issuer with slash":            sign(nil, map[string]any{"iss": issuer + "/"}),
		"no issuer":                    sign(nil, map[string]any{"iss": nil}),
		"other aud":                    sign(nil, map[string]any{"aud": "https://evil.example/mcp"}),
		"aud of the origin":            sign(nil, map[string]any{"aud": issuer}),
		"aud of another workspace":     sign(nil, map[string]any{"aud": otherWorkspace}),
		"aud with slash":               sign(nil, map[string]any{"aud": mcp + "/"}),
		"aud is the client":            sign(nil, map[string]any{"aud": f.client.ID}),
		"aud list of one":              sign(nil, map[string]any{"aud": []string{mcp}}),
		"aud list":                     sign(nil, map[string]any{"aud": []string{"https://evil.example", mcp}}),
		"nested aud":                   sign(nil, map[string]any{"aud": [][]string{{mcp}}}),
		"no aud":                       sign(nil, map[string]any{"aud": nil}),
		"expired":                      sign(nil, map[string]any{"exp": f.now().Unix()}),
		"long expired":                 sign(nil, map[string]any{"exp": 1}),
		"negative exp":                 sign(nil, map[string]any{"exp": -1}),
		"no exp":                       sign(nil, map[string]any{"exp": nil}),
		"exp as text":                  sign(nil, map[string]any{"exp": "9999999999"}),
		"other grant":                  sign(nil, map[string]any{"grant": typeid.NewID("grt")}),
		"other family":                 sign(nil, map[string]any{"family": typeid.NewID("fam")}),
		"other workspace":              sign(nil, map[string]any{"workspace": typeid.NewID("ws")}),
		"other user":                   sign(nil, map[string]any{"sub": typeid.NewID("usr")}),
		"the client instead of a user": sign(nil, map[string]any{"sub": f.client.ID}),
		"other client":                 sign(nil, map[string]any{"client_id": "cli_x"}),
		"the refresh token":            f.connect("contacts:read").str("refresh_token"),
	} {
		g, err := f.s.Verify(f.ctx, token, mcp)
		if !problem.Is(err, problem.Unauthorized) || g.Decide("contacts", access.Read) != access.Deny {
			t.Errorf("%s: got %v, %v, want Unauthorized", name, g, err)
		}
	}
	for _, resource := range []string{issuer, mcp + "/", mcp + "/" + f.ws.ID, otherWorkspace, "", "https://evil.example/mcp"} {
		f.works(good, resource, false)
	}
	f.works(good, mcp, true)
}

// flip changes a character in the middle of a signature.
func flip(s string) string {
	b := []byte(s)
	if b[20] == 'A' {
		b[20] = 'B'
	} else {
		b[20] = 'A'
	}
	return string(b)
}

func TestOAuth_1_3_TheGrantIsReadEachTime(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		token := f.connect("contacts:write").str("access_token")
		level := func(v access.Verb) access.Level {
			g, err := f.s.Verify(f.ctx, token, mcp)
			must(t, err)
			return g.Decide("contacts", v)
		}
		g, err := db.GrantOf(f.ctx, f.ws.ID, f.client.ID, f.user.ID)
		must(t, err)
		if level(access.Write) != access.Run {
			t.Error("write does not run")
		}
		must(t, db.SetGrantScopes(f.ctx, f.ws.ID, g.ID, []access.Scope{{Resource: "contacts", Rung: "read"}}))
		if level(access.Write) != access.Deny || level(access.Read) != access.Run {
			t.Error("an edit of the grant is not immediate")
		}
		must(t, db.UpdatePolicy(f.ctx, oauth.Policy{Workspace: f.ws.ID, Client: f.client.ID}))
		if level(access.Read) != access.Deny {
			t.Error("an edit of the ceiling is not immediate")
		}
		w := f.ws
		w.Plan = access.Free
		must(t, db.UpdateWorkspace(f.ctx, w))
		if _, err := f.s.Verify(f.ctx, token, mcp); !problem.Is(err, problem.PlanRequired) {
			t.Errorf("on the free plan: got %v", err)
		}
		must(t, db.UpdateWorkspace(f.ctx, f.ws))
		must(t, db.RemoveMember(f.ctx, f.ws.ID, f.user.ID))
		f.works(token, mcp, false)
		must(t, db.SetMember(f.ctx, f.ws.ID, f.user.ID, access.Member, f.now()))
		must(t, db.RevokeGrant(f.ctx, f.ws.ID, g.ID, f.now()))
		f.works(token, mcp, false)
		f.consent("contacts:read")
		f.works(token, mcp, false) // a new consent does not wake old tokens
		token = f.connect("contacts:read").str("access_token")
		f.pass(oauth.AccessTTL - time.Second)
		f.works(token, mcp, true)
		f.pass(time.Second)
		f.works(token, mcp, false)
	})
}

func TestOAuth_2_5_KeysRotateWithOverlap(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		second := f.server()
		keys := func() int {
			r := f.do(request("GET", oauth.KeysPath, ""))
			return strings.Count(r.body, `"kid"`)
		}
		first, _ := f.s.PublicKey(f.ctx)
		if other, _ := second.PublicKey(f.ctx); other != first || keys() != 1 {
			t.Fatalf("two nodes have the keys %s and %s", first, other)
		}
		f.pass(88 * 24 * time.Hour)
		must(t, f.s.RotateKeys(f.ctx))
		if keys() != 1 {
			t.Error("the key is rotated early")
		}
		f.pass(24 * time.Hour)
		must(t, f.s.RotateKeys(f.ctx))
		must(t, second.RotateKeys(f.ctx))
		if id, _ := f.s.PublicKey(f.ctx); keys() != 2 || id != first {
			t.Errorf("%d keys, and %s signs; want two, and the first signs for a day", keys(), id)
		}
		f.pass(24 * time.Hour)
		token := f.connect("contacts:read").str("access_token") // by the successor
		if id, _ := f.s.PublicKey(f.ctx); id == first {
			t.Error("the successor does not sign")
		}
		if _, err := second.Verify(f.ctx, token, mcp); err != nil {
			t.Errorf("the other node: %v", err)
		}
		old, err := f.s.Sign(f.ctx, map[string]any{"kid": first}, oauth.Claims(token))
		must(t, err)
		f.works(old, mcp, false) // the first key's id, and the second one's signature
		f.pass(3 * time.Hour)
		if keys() != 1 {
			t.Error("the retired key is still published")
		}
	})
}

func TestOAuth_2_5_TokensOfARetiredKey(t *testing.T) {
	f := one(t)
	r := f.connect("contacts:read")
	claims := oauth.Claims(r.str("access_token"))
	claims["exp"] = f.now().Add(365 * 24 * time.Hour).Unix()
	var tokens [3]string // none of which is remembered before it is shown
	for i := range tokens {
		claims["jti"] = fmt.Sprint(i)
		var err error
		tokens[i], err = f.s.Sign(f.ctx, nil, claims)
		must(t, err)
	}
	f.pass(89 * 24 * time.Hour)
	must(t, f.s.RotateKeys(f.ctx))
	f.pass(26*time.Hour - time.Minute)
	f.works(tokens[0], mcp, true)
	f.pass(time.Minute)
	f.works(tokens[1], mcp, false) // though the keys were read a minute ago
	token := tokens[2]
	if _, err := f.server().Verify(f.ctx, token, mcp); !problem.Is(err, problem.Unauthorized) {
		t.Errorf("a token of a retired key: got %v", err)
	}
}

func TestOAuth_2_6_Rotation(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		first := f.connect("contacts:read").str("refresh_token")
		r := f.refresh(first)
		want(t, r, 200, "")
		second := r.str("refresh_token")
		if second == "" || second == first || r.str("scope") != "workspace" {
			t.Errorf("got %s", r.body)
		}
		f.works(r.str("access_token"), mcp, true)
		sibling := f.refresh(first) // another window, at the same time
		want(t, sibling, 200, "")
		if sibling.str("refresh_token") == second {
			t.Error("the sibling is the same token")
		}
		f.pass(oauth.RefreshGrace - time.Second)
		want(t, f.refresh(first), 200, "")
		f.pass(time.Second)
		want(t, f.refresh(first), 400, "invalid_grant")
		for _, token := range []string{second, sibling.str("refresh_token")} {
			want(t, f.refresh(token), 400, "invalid_grant")
		}
		f.works(r.str("access_token"), mcp, false)
		if f.events(audit.TokenReused) != 1 || f.events(audit.TokenRefreshed) != 3 {
			t.Error("the log does not say what happened")
		}
	})
}

func TestOAuth_2_6_RefreshIsBound(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		other := f.add(oauth.Client{})
		reg, secret := f.confidential(oauth.GrantCode, oauth.GrantRefresh)
		r := f.connect("contacts:write", "scope", "contacts:write offline_access")
		token := r.str("refresh_token")
		want(t, f.refresh(token, "client_id", other.ID), 400, "invalid_grant")
		want(t, f.postForm(oauth.TokenPath, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, []string{reg.ID, secret}), 400, "invalid_grant")
		want(t, f.refresh(token, "resource", issuer), 400, "invalid_target")
		want(t, f.refresh(token, "scope", "contacts:delete"), 400, "invalid_scope")
		want(t, f.refresh(token, "scope", "workspace"), 400, "invalid_scope")
		f.works(r.str("access_token"), mcp, true) // none of that has ended anything

		r = f.refresh(token, "scope", "contacts:read", "resource", mcp)
		want(t, r, 200, "")
		if r.str("scope") != "contacts:read" {
			t.Errorf("the scope is %q", r.str("scope"))
		}
		r = f.refresh(r.str("refresh_token"))
		if r.str("scope") != "contacts:write offline_access" {
			t.Errorf("the family's scope is %q, want the original one", r.str("scope"))
		}
		token = r.str("refresh_token")
		f.pass(oauth.RefreshTTL)
		want(t, f.refresh(token), 400, "invalid_grant")

		token = f.connect("contacts:write").str("refresh_token")
		must(t, db.RemoveMember(f.ctx, f.ws.ID, f.user.ID))
		want(t, f.refresh(token), 400, "invalid_grant")
		must(t, db.SetMember(f.ctx, f.ws.ID, f.user.ID, access.Member, f.now()))
		want(t, f.refresh(token), 200, "")
	})
}

func TestOAuth_2_6_RevokedGrantIsNotRefreshed(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		token := f.connect("contacts:write").str("refresh_token")
		g, err := db.GrantOf(f.ctx, f.ws.ID, f.client.ID, f.user.ID)
		must(t, err)
		must(t, db.RevokeGrant(f.ctx, f.ws.ID, g.ID, f.now()))
		want(t, f.refresh(token), 400, "invalid_grant")
		f.consent("contacts:read")
		want(t, f.refresh(token), 400, "invalid_grant")
	})
}

func TestOAuth_2_6_ConfidentialClientsKeepTheirs(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		c, secret := f.confidential(oauth.GrantCode, oauth.GrantRefresh)
		auth := []string{"client_id", c.ID, "client_secret", secret}
		r := f.exchange(f.consent("contacts:read", "client_id", c.ID), auth...)
		want(t, r, 200, "")
		token := r.str("refresh_token")
		want(t, f.refresh(token, "client_id", c.ID), 401, "invalid_client")
		for range 3 {
			f.pass(oauth.RefreshTTL - time.Hour)
			r := f.refresh(token, auth...)
			want(t, r, 200, "")
			if r.str("refresh_token") != token {
				t.Error("the token has changed")
			}
		}
	})
}

func TestOAuth_2_6_RefreshOnlyIfRegistered(t *testing.T) {
	f := one(t)
	c := f.add(oauth.Client{GrantTypes: []string{oauth.GrantCode}})
	r := f.exchange(f.consent("contacts:read", "client_id", c.ID), "client_id", c.ID)
	want(t, r, 200, "")
	if r.str("refresh_token") != "" {
		t.Error("there is a refresh token")
	}
	want(t, f.refresh("x", "client_id", c.ID), 400, "unauthorized_client")
}

func TestOAuth_2_6_SixteenRefreshersWithoutGrace(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db, grace(-1))
		token := f.connect("contacts:read").str("refresh_token")
		won := 0
		for _, r := range together(16, func() reply { return f.refresh(token) }) {
			if r.status != 200 {
				want(t, r, 400, "invalid_grant")
				continue
			}
			won++
			want(t, f.refresh(r.str("refresh_token")), 400, "invalid_grant")
			f.works(r.str("access_token"), mcp, false)
		}
		if won != 1 {
			t.Errorf("%d refreshers won", won)
		}
	})
}

func TestOAuth_2_6_SixteenRefreshersWithinGrace(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		token := f.connect("contacts:read").str("refresh_token")
		seen := map[string]bool{}
		for _, r := range together(16, func() reply { return f.refresh(token) }) {
			if r.status != 200 {
				want(t, r, 400, "invalid_grant")
				continue
			}
			seen[r.str("refresh_token")] = true
			f.works(r.str("access_token"), mcp, true)
		}
		if len(seen) != 1+10 {
			t.Errorf("%d distinct tokens, want the winner's and ten siblings", len(seen))
		}
		want(t, f.refresh(token), 400, "invalid_grant")
		if f.events(audit.TokenReused) != 0 {
			t.Error("too many siblings count as a theft")
		}
		for next := range seen {
			want(t, f.refresh(next), 200, "")
		}
	})
}

func TestOAuth_2_12_ClientCredentials(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		c, secret := f.confidential(oauth.GrantCredentials)
		ask := func(changes ...string) reply {
			form := url.Values{"grant_type": {"client_credentials"}}
			set(form, changes)
			return f.postForm(oauth.TokenPath, form, []string{c.ID, secret})
		}
		r := ask()
		want(t, r, 200, "")
		if r.str("refresh_token") != "" || r.str("scope") != "workspace" || oauth.Claims(r.str("access_token"))["sub"] != c.ID {
			t.Errorf("got %s", r.body)
		}
		g, err := f.s.Verify(f.ctx, r.str("access_token"), mcp)
		must(t, err)
		if g.Principal.User != "" || g.Workspace.ID != f.ws.ID || g.Decide("contacts", access.Write) != access.Run || g.Decide("contacts", access.Delete) != access.Queue {
			t.Errorf("the grant is %+v", g)
		}
		fine := ask("scope", "contacts:read offline_access", "resource", mcp+"/"+f.ws.ID)
		want(t, fine, 200, "")
		if fine.str("scope") != "contacts:read" {
			t.Errorf("the scope is %q", fine.str("scope"))
		}
		f.works(fine.str("access_token"), mcp+"/"+f.ws.ID, true)
		want(t, ask("scope", "unicorns:read"), 400, "invalid_scope")
		want(t, ask("resource", mcp+"/"+typeid.NewID("ws")), 400, "invalid_target")
		want(t, ask("resource", issuer), 200, "")
		stored, err := db.GrantOf(f.ctx, f.ws.ID, c.ID, "")
		must(t, err)
		must(t, db.RevokeGrant(f.ctx, f.ws.ID, stored.ID, f.now()))
		want(t, ask(), 400, "unauthorized_client")
		f.works(r.str("access_token"), mcp, false)

		// Not for one that has registered itself, whatever its row says.
		own := oauth.NewClientSecret()
		dynamic := f.add(oauth.Client{AuthMethod: oauth.AuthPost, SecretHash: own.Hash(), GrantTypes: []string{oauth.GrantCredentials}})
		want(t, f.postForm(oauth.TokenPath, url.Values{"grant_type": {"client_credentials"}}, []string{dynamic.ID, string(own)}), 400, "unauthorized_client")
		if _, err := db.GrantOf(f.ctx, "", dynamic.ID, ""); !problem.Is(err, problem.NotFound) {
			t.Errorf("it has a grant: %v", err)
		}
	})
}

func TestOAuth_2_12_Revocation(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		other := f.add(oauth.Client{})
		for _, kind := range []string{"access_token", "refresh_token"} {
			r := f.connect("contacts:read")
			want(t, f.post(oauth.RevokePath, "token", r.str(kind), "client_id", other.ID), 200, "")
			f.works(r.str("access_token"), mcp, true)
			want(t, f.post(oauth.RevokePath, "token", r.str(kind), "token_type_hint", "nonsense"), 200, "")
			f.works(r.str("access_token"), mcp, false)
			want(t, f.refresh(r.str("refresh_token")), 400, "invalid_grant")
			want(t, f.post(oauth.RevokePath, "token", r.str(kind)), 200, "")
		}
		want(t, f.post(oauth.RevokePath, "token", "unknown"), 200, "")
		want(t, f.post(oauth.RevokePath), 400, "invalid_request")
		want(t, f.post(oauth.RevokePath, "token", "x", "client_id", "cli_x"), 401, "invalid_client")
		if n := f.events(audit.TokenRevoked); n != 2 {
			t.Errorf("%d revocations in the log", n)
		}
	})
}

func TestOAuth_2_12_Introspection(t *testing.T) {
	f := one(t)
	c, secret := f.confidential(oauth.GrantCode, oauth.GrantRefresh)
	r := f.exchange(f.consent("contacts:read", "client_id", c.ID), "client_id", c.ID, "client_secret", secret)
	want(t, r, 200, "")
	foreign := f.connect("contacts:read")
	ask := func(token string) reply {
		got := f.postForm(oauth.IntrospectPath, url.Values{"token": {token}}, []string{c.ID, secret})
		want(t, got, 200, "")
		return got
	}
	a := ask(r.str("access_token"))
	if a.m["active"] != true || a.str("client_id") != c.ID || a.str("sub") != f.user.ID || a.str("aud") != mcp || a.str("iss") != issuer || a.str("scope") != "workspace" {
		t.Errorf("access token: got %s", a.body)
	}
	if got := ask(r.str("refresh_token")); got.m["active"] != true || got.str("token_type") != "refresh_token" {
		t.Errorf("refresh token: got %s", got.body)
	}
	for name, token := range map[string]string{"garbage": "x", "another client's": foreign.str("access_token"), "another client's refresh token": foreign.str("refresh_token")} {
		if got := ask(token); strings.TrimSpace(got.body) != `{"active":false}` {
			t.Errorf("%s: got %s", name, got.body)
		}
	}
	want(t, f.post(oauth.IntrospectPath, "token", foreign.str("access_token")), 401, "invalid_client")
	f.pass(oauth.AccessTTL)
	if got := ask(r.str("access_token")); got.m["active"] != false {
		t.Errorf("expired: got %s", got.body)
	}
	want(t, f.postForm(oauth.RevokePath, url.Values{"token": {r.str("refresh_token")}}, []string{c.ID, secret}), 200, "")
	if got := ask(r.str("refresh_token")); got.m["active"] != false {
		t.Errorf("revoked: got %s", got.body)
	}
}

func TestRefreshRacesWithRevocation(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		for i := range 8 {
			token := f.connect("contacts:read").str("refresh_token")
			var r reply
			var wg sync.WaitGroup
			wg.Go(func() { r = f.refresh(token) })
			wg.Go(func() { f.post(oauth.RevokePath, "token", token) })
			wg.Wait()
			if r.status == 200 {
				f.works(r.str("access_token"), mcp, false)
			} else {
				want(t, r, 400, "invalid_grant")
			}
			if t.Failed() {
				t.Fatal(fmt.Sprint("round ", i))
			}
		}
	})
}
