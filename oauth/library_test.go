package oauth_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"trustpager/oauth"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// Each test here is named for a defect of go-oauth2 v4.5.4 that this package
// must not inherit.

func TestNotLikeTheLibrary_NoOpenRedirect(t *testing.T) {
	f := one(t)
	for _, uri := range []string{"https://evil.example/", "https://client.example.evil.example/callback", "javascript://client.example/", callback + "/../evil"} {
		for _, q := range []url.Values{f.query("redirect_uri", uri), f.query("client_id", "cli_x", "redirect_uri", uri), f.query("redirect_uri", uri, "response_type", "token")} {
			_, err := f.s.Authorize(f.ctx, q, f.user.ID)
			if e := requestError(t, err); e.Location != "" {
				t.Errorf("%v leads to %s", q, e.Location)
			}
		}
	}
	// A no, too, goes only where the client is.
	req, err := f.s.Authorize(f.ctx, f.query(), f.user.ID)
	must(t, err)
	o, err := f.s.Offer(f.ctx, req, f.ws, f.user)
	must(t, err)
	o.Request.RedirectURI = "https://evil.example/"
	if loc, err := f.s.Deny(f.ctx, o); err == nil {
		t.Errorf("the denial leads to %s", loc)
	}
	if loc, err := f.s.Allow(f.ctx, o, nil); err == nil {
		t.Errorf("the consent leads to %s", loc)
	}
}

func TestNotLikeTheLibrary_RefreshAuthenticatesAndBindsTheClient(t *testing.T) {
	f := one(t)
	c, secret := f.confidential(oauth.GrantCode, oauth.GrantRefresh)
	r := f.exchange(f.consent("contacts:read", "client_id", c.ID), "client_id", c.ID, "client_secret", secret)
	token := r.str("refresh_token")
	want(t, f.refresh(token, "client_id", c.ID), 401, "invalid_client")
	want(t, f.refresh(token, "client_id", c.ID, "client_secret", "wrong"), 401, "invalid_client")
	want(t, f.refresh(token), 400, "invalid_grant") // another client
	want(t, f.refresh(token, "client_id", ""), 401, "invalid_client")
}

func TestNotLikeTheLibrary_RefreshTakesNoRaisedScope(t *testing.T) {
	f := one(t)
	token := f.connect("contacts:write", "scope", "contacts:read").str("refresh_token")
	for _, scope := range []string{"workspace", "contacts:write", "contacts:read contacts:write", "deals:read", "contacts:read offline_access"} {
		want(t, f.refresh(token, "scope", scope), 400, "invalid_scope")
	}
	if r := f.refresh(token); r.str("scope") != "contacts:read" {
		t.Errorf("got %s", r.body)
	}
}

func TestNotLikeTheLibrary_CodeIsTakenInOneStep(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		for range 4 {
			code, won := f.consent("contacts:read"), 0
			for _, r := range together(4, func() reply { return f.exchange(code) }) {
				if r.status == 200 {
					won++
				}
			}
			if won != 1 {
				t.Fatalf("%d redeemers won", won)
			}
		}
	})
}

func TestNotLikeTheLibrary_ReplayRevokes(t *testing.T) {
	f := one(t)
	code := f.consent("contacts:read")
	r := f.exchange(code)
	r = f.refresh(r.str("refresh_token"))
	want(t, r, 200, "")
	f.pass(10 * time.Minute) // long after the code's own end
	want(t, f.exchange(code), 400, "invalid_grant")
	f.works(r.str("access_token"), mcp, false)
	want(t, f.refresh(r.str("refresh_token")), 400, "invalid_grant")
}

func TestNotLikeTheLibrary_ReplayByAnotherClientRevokesNothing(t *testing.T) {
	f := one(t)
	other := f.add(oauth.Client{})
	code := f.consent("contacts:read")
	r := f.exchange(code)
	want(t, f.exchange(code, "client_id", other.ID), 400, "invalid_grant")
	f.works(r.str("access_token"), mcp, true)
}

func TestNotLikeTheLibrary_ReuseOfARefreshTokenIsDetected(t *testing.T) {
	f := one(t)
	first := f.connect("contacts:read").str("refresh_token")
	r := f.refresh(first)
	f.pass(oauth.RefreshGrace)
	for range 7 {
		want(t, f.refresh(first), 400, "invalid_grant")
	}
	want(t, f.refresh(r.str("refresh_token")), 400, "invalid_grant")
}

func TestNotLikeTheLibrary_RedirectIsNoSuffixMatch(t *testing.T) {
	for _, uri := range []string{"http://client.example/callback", "javascript://client.example/callback", "https://sub.client.example/callback", "https://client.example/other", "https://evilclient.example/callback"} {
		if oauth.MatchRedirect([]string{callback}, uri) {
			t.Errorf("%q is accepted", uri)
		}
	}
}

func TestNotLikeTheLibrary_ManyURIsPerClient(t *testing.T) {
	f := one(t)
	c := f.add(oauth.Client{RedirectURIs: []string{callback, "http://localhost/cb", "cursor://anysphere.cursor-mcp/oauth/callback"}})
	for _, uri := range []string{callback, "http://localhost:3118/cb", "cursor://anysphere.cursor-mcp/oauth/callback"} {
		code := f.consent("contacts:read", "client_id", c.ID, "redirect_uri", uri)
		want(t, f.exchange(code, "client_id", c.ID, "redirect_uri", uri), 200, "")
	}
}

func TestNotLikeTheLibrary_RedirectURIIsNotDemandedAtToken(t *testing.T) {
	f := one(t)
	want(t, f.exchange(f.consent("contacts:read"), "redirect_uri", ""), 200, "")
}

func TestNotLikeTheLibrary_ErrorsHaveTheirStatus(t *testing.T) {
	f := one(t)
	want(t, f.exchange("unknown"), 400, "invalid_grant")
	want(t, f.exchange(f.consent("contacts:read"), "code_verifier", ""), 400, "invalid_request")
	r := f.exchange(f.consent("contacts:read"), "client_id", "cli_unknown")
	want(t, r, 401, "invalid_client")
	r = f.postForm(oauth.TokenPath, url.Values{"grant_type": {"authorization_code"}}, []string{"cli_unknown", "x"})
	want(t, r, 401, "invalid_client")
	if r.header.Get("WWW-Authenticate") == "" {
		t.Error("no WWW-Authenticate")
	}
}

func TestNotLikeTheLibrary_NothingIsReadFromTheQuery(t *testing.T) {
	f := one(t)
	c, secret := f.confidential(oauth.GrantCredentials)
	q := url.Values{"client_id": {c.ID}, "client_secret": {secret}, "grant_type": {"client_credentials"}}
	want(t, f.postForm(oauth.TokenPath+"?"+q.Encode(), url.Values{}, nil), 401, "invalid_client")
	want(t, f.postForm(oauth.TokenPath+"?grant_type=client_credentials", url.Values{}, []string{c.ID, secret}), 400, "invalid_request")
	want(t, f.postForm(oauth.TokenPath+"?client_secret="+secret, url.Values{"client_id": {c.ID}, "grant_type": {"client_credentials"}}, nil), 401, "invalid_client")
	// The body's values are not mixed with the query's either.
	r := f.postForm(oauth.TokenPath+"?scope=contacts:delete&resource=x", url.Values{"scope": {"contacts:read"}, "grant_type": {"client_credentials"}}, []string{c.ID, secret})
	if want(t, r, 200, ""); r.str("scope") != "contacts:read" {
		t.Errorf("the scope is %q", r.str("scope"))
	}
}

func TestNotLikeTheLibrary_ClientCredentialsDoNotPanic(t *testing.T) {
	f := one(t)
	c, secret := f.confidential(oauth.GrantCredentials)
	for _, scope := range []string{"", "workspace", "contacts:read", "offline_access", "x", strings.Repeat("a", 9000)} {
		if r := f.postForm(oauth.TokenPath, url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}, []string{c.ID, secret}); r.status >= 500 {
			t.Errorf("scope %.20q: got %d", scope, r.status)
		}
	}
}

func TestNotLikeTheLibrary_PKCEIsRequiredAndOtherFlowsAreOff(t *testing.T) {
	f := one(t)
	for _, q := range []url.Values{f.query("code_challenge", ""), f.query("code_challenge_method", "plain"), f.query("code_challenge_method", ""), f.query("response_type", "token")} {
		if _, err := f.s.Authorize(f.ctx, q, f.user.ID); err == nil {
			t.Errorf("%v is accepted", q)
		}
	}
	want(t, f.post(oauth.TokenPath, "grant_type", "password", "username", "ada@example.com", "password", "x"), 400, "unsupported_grant_type")
	want(t, f.post(oauth.TokenPath, "grant_type", "__implicit"), 400, "unsupported_grant_type")
}

func TestNotLikeTheLibrary_AudienceIsTheResource(t *testing.T) {
	f := one(t)
	for _, resource := range []string{issuer, mcp, mcp + "/" + f.ws.ID} {
		token := f.connect("contacts:read", "resource", resource).str("access_token")
		if aud := oauth.Claims(token)["aud"]; aud != resource {
			t.Errorf("aud is %v, want %s", aud, resource)
		}
		f.works(token, resource, true)
	}
}

// A wrapped error of the library's is still told as what it is, and an unknown
// one is a fault of the server.
func TestNotLikeTheLibrary_WrappedErrorsKeepTheirStatus(t *testing.T) {
	for _, r := range oauth.Refusals {
		err := oauth.RefusalOf(fmt.Errorf("wrapped: %w", r.Err()))
		if !strings.HasPrefix(err.Error(), r.Code()+": ") {
			t.Errorf("%v is told as %v, want %s", r.Err(), err, r.Code())
		}
	}
	if err := oauth.RefusalOf(errors.New("disk full")); err.Error() != "disk full" {
		t.Errorf("an unknown error is told as %v", err)
	}
}

// Secrets are compared as hashes, which is shown by what is stored.
func TestNotLikeTheLibrary_SecretsAreStoredHashed(t *testing.T) {
	f := one(t)
	_, secret := f.confidential(oauth.GrantCode)
	code := f.consent("contacts:read")
	r := f.exchange(code)
	for name, text := range map[string]string{"secret": secret, "code": code, "refresh token": r.str("refresh_token")} {
		if n := f.holds(text); n != 0 {
			t.Errorf("the %s stands in %d rows", name, n)
		}
	}
}
