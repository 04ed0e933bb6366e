package oauth_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

// requestError returns the error of a request, and where it leads.
func requestError(t testing.TB, err error) *oauth.RequestError {
	t.Helper()
	e, ok := errors.AsType[*oauth.RequestError](err)
	if !ok {
		t.Fatalf("got %v, want a RequestError", err)
	}
	return e
}

func TestOAuth_2_2_ErrorsBeforeTheRedirectURIAreAPage(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	two := f.add(oauth.Client{RedirectURIs: []string{callback, callback + "2"}})
	for _, tt := range []struct {
		name string
		q    url.Values
	}{
		{"no client", f.query("client_id", "")},
		{"unknown client", f.query("client_id", "cli_unknown")},
		{"two clients", url.Values{"client_id": {f.client.ID, f.client.ID}, "redirect_uri": {callback}}},
		{"NUL in the client", f.query("client_id", "cli\x00")},
		{"bytes that are no text in the client", f.query("client_id", "cli\xff")},
		{"other redirect URI", f.query("redirect_uri", "https://evil.example/")},
		{"two redirect URIs", url.Values{"client_id": {f.client.ID}, "redirect_uri": {callback, callback}}},
		{"none of two redirect URIs", f.query("client_id", two.ID, "redirect_uri", "")},
		{"both wrong, and all else", url.Values{"client_id": {"x"}, "redirect_uri": {"javascript:alert(1)"}, "response_type": {"token"}}},
		{"a client id that is a bad URL", f.query("client_id", "https://evil.example/a/../b")},
	} {
		_, err := f.s.Authorize(f.ctx, tt.q, f.user.ID)
		if e := requestError(t, err); e.Location != "" || e.Fix == "" || e.Message == "" {
			t.Errorf("%s: got %+v, want a page", tt.name, e)
		}
	}
}

func TestOAuth_2_2_ErrorsAfterTheRedirectURIGoBack(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	twice := func(name string) url.Values {
		q := f.query()
		q[name] = []string{q.Get(name), q.Get(name)}
		return q
	}
	for _, tt := range []struct {
		name string
		q    url.Values
		code string
	}{
		{"no PKCE", f.query("code_challenge", ""), "invalid_request"},
		{"plain PKCE", f.query("code_challenge_method", "plain"), "invalid_request"},
		{"PKCE without method, which means plain", f.query("code_challenge_method", ""), "invalid_request"},
		{"short challenge", f.query("code_challenge", "abc"), "invalid_request"},
		{"padded challenge", f.query("code_challenge", challenge(verifier)+"="), "invalid_request"},
		{"no response type", f.query("response_type", ""), "invalid_request"},
		{"implicit", f.query("response_type", "token"), "unsupported_response_type"},
		{"hybrid", f.query("response_type", "code token"), "unsupported_response_type"},
		{"fragment", f.query("response_mode", "fragment"), "invalid_request"},
		{"unknown scope", f.query("scope", "openid"), "invalid_scope"},
		{"unknown resource in scope", f.query("scope", "unicorns:read"), "invalid_scope"},
		{"rung of another ladder", f.query("scope", "contacts:send"), "invalid_scope"},
		{"endless scope", f.query("scope", strings.Repeat("contacts:read ", 1000)), "invalid_scope"},
		{"other resource", f.query("resource", "https://other.example/mcp"), "invalid_target"},
		{"resource with two slashes", f.query("resource", mcp+"//"), "invalid_target"},
		{"resource of no workspace", f.query("resource", mcp+"/ws_x"), "invalid_target"},
		{"two resources", twice("resource"), "invalid_target"},
		{"two scopes", func() url.Values { q := twice("scope"); q["scope"] = []string{"workspace", "workspace"}; return q }(), "invalid_request"},
		{"two challenges", twice("code_challenge"), "invalid_request"},
		{"two response types", twice("response_type"), "invalid_request"},
		{"two of what is not known", func() url.Values { q := f.query(); q["x"] = []string{"1", "2"}; return q }(), "invalid_request"},
		{"request object", f.query("request", "eyJ"), "request_not_supported"},
		{"request URI", f.query("request_uri", "https://evil.example/"), "request_uri_not_supported"},
		{"nobody to ask", f.query("prompt", "none"), "interaction_required"},
		{"NUL", f.query("nonce", "a\x00"), "invalid_request"},
		{"no text", f.query("nonce", "a\xff"), "invalid_request"},
	} {
		_, err := f.s.Authorize(f.ctx, tt.q, "")
		e := requestError(t, err)
		u, err := url.Parse(e.Location)
		must(t, err)
		if q := u.Query(); !strings.HasPrefix(e.Location, callback+"?") || q.Get("error") != tt.code || e.Code != tt.code || q.Get("state") != "st" || q.Get("iss") != issuer || q.Has("code") {
			t.Errorf("%s: got %q, want %s with state and iss", tt.name, e.Location, tt.code)
		}
	}
	_, err := f.s.Authorize(f.ctx, f.query("state", strings.Repeat("s", 5000)), "")
	if e := requestError(t, err); e.Code != "invalid_request" || strings.Contains(e.Location, "state=") {
		t.Errorf("a huge state: got %.200q, want invalid_request without it", e.Location)
	}
	q := f.query()
	q["state"] = []string{"a", "b"}
	_, err = f.s.Authorize(f.ctx, q, "")
	if e := requestError(t, err); e.Code != "invalid_request" || strings.Contains(e.Location, "state=") {
		t.Errorf("two states: got %q, want invalid_request without one", e.Location)
	}
}

func TestOAuth_2_2_GoodRequests(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	reg, _ := f.confidential(oauth.GrantCode)
	for _, tt := range []struct {
		name                string
		q                   url.Values
		resource, workspace string
		coarse, offline     bool
		fine                string
	}{
		{"plain", f.query(), mcp, "", true, false, ""},
		{"no resource", f.query("resource", ""), mcp, "", true, false, ""},
		{"origin", f.query("resource", issuer), issuer, "", true, false, ""},
		{"origin as URL parsers write it", f.query("resource", issuer+"/"), issuer, "", true, false, ""},
		{"the endpoint with a slash, as some clients write it", f.query("resource", mcp+"/"), mcp, "", true, false, ""},
		{"a workspace's endpoint", f.query("resource", mcp+"/"+f.ws.ID), mcp + "/" + f.ws.ID, f.ws.ID, true, false, ""},
		{"the only redirect URI", f.query("redirect_uri", ""), mcp, "", true, false, ""},
		{"coarse scope", f.query("scope", "workspace"), mcp, "", true, false, ""},
		{"offline only", f.query("scope", "offline_access"), mcp, "", true, true, ""},
		{"everything", f.query("scope", "workspace offline_access contacts:read"), mcp, "", true, true, ""},
		{"fine", f.query("scope", "contacts:read deals:write offline_access"), mcp, "", false, true, "contacts:read deals:write"},
		{"registered client", f.query("client_id", reg.ID), mcp, f.ws.ID, true, false, ""},
		{"what is not known", f.query("nonce", "x", "prompt", "consent"), mcp, "", true, false, ""},
	} {
		req, err := f.s.Authorize(f.ctx, tt.q, "")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if req.Resource != tt.resource || req.Workspace != tt.workspace || req.Coarse != tt.coarse || req.Offline != tt.offline ||
			access.FormatScopes(req.Scopes) != tt.fine || req.State != "st" || req.RedirectURI != callback {
			t.Errorf("%s: got %+v", tt.name, req)
		}
	}
	other := typeid.NewID("ws")
	_, err := f.s.Authorize(f.ctx, f.query("client_id", reg.ID, "resource", mcp+"/"+other), f.user.ID)
	if e := requestError(t, err); e.Code != "invalid_target" {
		t.Errorf("a registered client at another workspace's endpoint: got %v, want invalid_target", e)
	}
}

func TestOAuth_2_11_OfferIsTheMinimum(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	offer := func(role access.Role, scope string) oauth.Offer {
		req, err := f.s.Authorize(f.ctx, f.query("scope", scope), f.user.ID)
		must(t, err)
		u := f.user
		u.Role = role
		o, err := f.s.Offer(f.ctx, req, f.ws, u)
		must(t, err)
		return o
	}
	o := offer(access.Admin, "")
	if o.Grant != nil || o.Changed || o.Most.Level("contacts", access.Write) != access.Run || o.Most.Level("contacts", access.Delete) != access.Queue {
		t.Errorf("coarse: got %+v", o)
	}
	if o := offer(access.Member, ""); o.Most.Level("users", access.Read) != access.Deny || o.Ceiling.Level("users", access.Read) != access.Run {
		t.Error("a member's role does not narrow the offer")
	}
	if o := offer(access.Admin, "contacts:delete"); o.Most.Level("contacts", access.Delete) != access.Queue || o.Most.Level("deals", access.Read) != access.Deny {
		t.Error("a fine request is not bounded by itself and the ceiling")
	}
	f.connect("contacts:read")
	if o := offer(access.Admin, ""); o.Grant == nil || access.FormatScopes(o.Grant.Scopes) != "contacts:read" {
		t.Errorf("the consent so far: got %+v", o.Grant)
	}
	must(t, f.db.RevokeGrant(f.ctx, f.ws.ID, offer(access.Admin, "").Grant.ID, f.now()))
	if o := offer(access.Admin, ""); o.Grant != nil {
		t.Error("a revoked consent is offered")
	}
}

func TestOAuth_2_11_WorkspacesRefuseClients(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	reg, _ := f.confidential(oauth.GrantCode)
	for _, tt := range []struct {
		name   string
		change func(w *access.Workspace, u *access.User)
		client string
		ok     bool
	}{
		{"nothing special", func(*access.Workspace, *access.User) {}, f.client.ID, true},
		{"free plan", func(w *access.Workspace, _ *access.User) { w.Plan = access.Free }, f.client.ID, false},
		{"no self-registration", func(w *access.Workspace, _ *access.User) { w.Settings.NoSelfRegistration = true }, f.client.ID, false},
		{"no self-registration, registered", func(w *access.Workspace, _ *access.User) { w.Settings.NoSelfRegistration = true }, reg.ID, true},
		{"other hosts", func(w *access.Workspace, _ *access.User) { w.Settings.ClientHosts = []string{"claude.ai"} }, f.client.ID, false},
		{"its host", func(w *access.Workspace, _ *access.User) {
			w.Settings.ClientHosts = []string{"claude.ai", "Client.example"}
		}, f.client.ID, true},
		{"other hosts, registered", func(w *access.Workspace, _ *access.User) { w.Settings.ClientHosts = []string{"claude.ai"} }, reg.ID, true},
		{"another workspace's client", func(w *access.Workspace, _ *access.User) { w.ID = typeid.NewID("ws") }, reg.ID, false},
		{"no member", func(_ *access.Workspace, u *access.User) { u.Role = "" }, f.client.ID, false},
	} {
		req, err := f.s.Authorize(f.ctx, f.query("client_id", tt.client), f.user.ID)
		must(t, err)
		w, u := f.ws, f.user
		tt.change(&w, &u)
		_, err = f.s.Offer(f.ctx, req, w, u)
		if tt.ok && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !tt.ok {
			if e := requestError(t, err); e.Location != "" || e.Fix == "" {
				t.Errorf("%s: got %+v, want a page with a fix", tt.name, e)
			}
		}
	}
	req, err := f.s.Authorize(f.ctx, f.query("resource", mcp+"/"+typeid.NewID("ws")), f.user.ID)
	must(t, err)
	if _, err := f.s.Offer(f.ctx, req, f.ws, f.user); err == nil {
		t.Error("a request for another workspace is offered here")
	}
}

func TestOAuth_2_11_ConsentIsCutAndKeepsTheRest(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		f := newFixture(t, db)
		scopes := func() string {
			g, err := db.GrantOf(f.ctx, f.ws.ID, f.client.ID, f.user.ID)
			must(t, err)
			return access.FormatScopes(g.Scopes)
		}
		f.consent("contacts:delete deals:read")
		if got := scopes(); got != "contacts:write contacts:delete-approval deals:read" {
			t.Errorf("the ceiling does not cut: got %q", got)
		}
		r := f.connect("contacts:delete deals:delete", "scope", "contacts:read offline_access")
		if got := scopes(); got != "contacts:read deals:read" {
			t.Errorf("a fine request: got %q, want contacts:read and what was there", got)
		}
		if r.str("scope") != "contacts:read offline_access" {
			t.Errorf("the token's scope is %q", r.str("scope"))
		}
		if f.events(audit.ClientConnected) != 1 || f.events(audit.ConsentGiven) != 2 || f.events(audit.TokenIssued) != 1 {
			t.Error("the log does not say what happened")
		}
		// What was shown is not what holds: the ceiling fell meanwhile.
		req, err := f.s.Authorize(f.ctx, f.query(), f.user.ID)
		must(t, err)
		o, err := f.s.Offer(f.ctx, req, f.ws, f.user)
		must(t, err)
		must(t, db.UpdatePolicy(f.ctx, oauth.Policy{Workspace: f.ws.ID, Client: f.client.ID, Ceiling: []access.Scope{{Resource: "deals", Rung: "read"}}}))
		_, err = f.s.Allow(f.ctx, o, cat().Scopes(catalog.PresetAct))
		must(t, err)
		if got := scopes(); got != "deals:read" {
			t.Errorf("the ceiling of this moment does not cut: got %q", got)
		}
		if _, err := f.s.Allow(f.ctx, o, []access.Scope{{Resource: "unicorns", Rung: "read"}}); err == nil {
			t.Error("a scope that is not in the catalog is granted")
		}
		// Nothing left of a fine request is a no.
		req, err = f.s.Authorize(f.ctx, f.query("scope", "contacts:read"), f.user.ID)
		must(t, err)
		o, err = f.s.Offer(f.ctx, req, f.ws, f.user)
		must(t, err)
		loc, err := f.s.Allow(f.ctx, o, []access.Scope{{Resource: "contacts", Rung: "read"}})
		must(t, err)
		if !strings.Contains(loc, "error=access_denied") || strings.Contains(loc, "code=") {
			t.Errorf("nothing granted leads to %q", loc)
		}
	})
}

func TestOAuth_2_2_DenyAndAllowNameTheIssuer(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	req, err := f.s.Authorize(f.ctx, f.query("state", "a&b=c"), f.user.ID)
	must(t, err)
	o, err := f.s.Offer(f.ctx, req, f.ws, f.user)
	must(t, err)
	no, err := f.s.Deny(f.ctx, o)
	must(t, err)
	yes, err := f.s.Allow(f.ctx, o, nil)
	must(t, err)
	for loc, name := range map[string]string{no: "error", yes: "code"} {
		u, err := url.Parse(loc)
		must(t, err)
		if q := u.Query(); q.Get("iss") != issuer || q.Get("state") != "a&b=c" || q.Get(name) == "" || !strings.HasPrefix(loc, callback+"?") {
			t.Errorf("got %q, want %s, state and iss", loc, name)
		}
	}
	if f.events(audit.ConsentDenied) != 1 {
		t.Error("the no is not in the log")
	}
}

func TestOAuth_2_11_ClientGoneMeanwhile(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	c, _ := f.confidential(oauth.GrantCode)
	req, err := f.s.Authorize(f.ctx, f.query("client_id", c.ID), f.user.ID)
	must(t, err)
	o, err := f.s.Offer(f.ctx, req, f.ws, f.user)
	must(t, err)
	must(t, f.db.RemoveClient(f.ctx, f.ws.ID, c.ID))
	if _, err := f.s.Allow(f.ctx, o, nil); requestError(t, err).Location != "" {
		t.Error("a client that is gone is answered by redirect")
	}
}

func TestOAuth_2_6_NarrowIsASubset(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	for _, tt := range []struct{ original, asked, want string }{
		{"workspace", "", "workspace"},
		{"workspace offline_access", "  ", "workspace offline_access"},
		{"workspace offline_access", "workspace", "workspace"},
		{"workspace", "contacts:read", "contacts:read"},
		{"workspace", "contacts:read contacts:read", "contacts:read"},
		{"workspace", "workspace contacts:read", "workspace contacts:read"},
		{"contacts:write", "contacts:read", "contacts:read"},
		{"contacts:write", "contacts:write-approval", "contacts:write-approval"},
		{"contacts:write contacts:delete-approval", "contacts:delete-approval", "contacts:delete-approval"},
		{"contacts:delete", "contacts:write contacts:delete-approval", "contacts:write contacts:delete-approval"},
		{"contacts:read", "workspace", ""},
		{"contacts:read", "offline_access", ""},
		{"contacts:read", "contacts:write-approval", ""},
		{"contacts:write", "contacts:delete-approval", ""},
		{"contacts:write-approval", "contacts:write", ""},
		{"contacts:delete-approval", "contacts:delete", ""},
		{"contacts:read", "deals:read", ""},
		{"contacts:read", "contacts:read deals:read", ""},
		{"workspace", "unicorns:read", ""},
		{"workspace", "contacts:send", ""},
		{"workspace", "openid", ""},
		{"contacts:read", "contacts", ""},
	} {
		got, err := f.s.Narrow(tt.original, tt.asked)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("Narrow(%q, %q) = %q, %v, want %q", tt.original, tt.asked, got, err, tt.want)
		}
	}
}

func TestPatternsAreServed(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"))
	for _, p := range oauth.Patterns() {
		path := strings.ReplaceAll(p, "{workspace}", f.ws.ID)
		if r := f.do(request("OPTIONS", path, "")); r.status != 204 {
			t.Errorf("OPTIONS %s: %d", path, r.status)
		}
	}
	if !slices.Contains(oauth.Patterns(), "/.well-known/oauth-protected-resource/mcp/{workspace}") {
		t.Errorf("got %q", oauth.Patterns())
	}
}
