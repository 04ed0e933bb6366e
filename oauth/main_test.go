package oauth_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/origin"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError)
	os.Exit(storagetest.Run(m))
}

const (
	issuer   = "https://tp.example"
	mcp      = issuer + "/mcp"
	callback = "https://client.example/callback"
	verifier = "a-verifier-of-at-least-forty-three-characters-0123456789"
)

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

var cat = sync.OnceValue(func() *catalog.Catalog {
	c, err := catalog.Load()
	if err != nil {
		panic(err)
	}
	return c
})

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A fixture is a server with a workspace, a user and a public client.
type fixture struct {
	testing.TB
	ctx    context.Context
	db     *storage.DB
	s      *oauth.Server
	h      http.Handler
	ws     access.Workspace
	user   access.User
	client oauth.Client

	mu    sync.Mutex
	clock time.Time
}

func (f *fixture) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clock
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock = f.clock.Add(d)
}

// option changes a fixture's configuration.
type option func(*oauth.Config)

func grace(d time.Duration) option { return func(c *oauth.Config) { c.Grace = d } }

func newFixture(t testing.TB, db *storage.DB, options ...option) *fixture {
	t.Helper()
	f := &fixture{TB: t, ctx: t.Context(), db: db, clock: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)}
	f.s = f.server(options...)
	f.h = f.s.Handler()
	f.ws = access.Workspace{ID: typeid.NewID("ws"), Name: "Acme", Plan: access.Pro, TimeZone: "UTC", CreatedAt: f.clock,
		Settings: access.Settings{ApprovalTTL: access.DefaultApprovalTTL}}
	must(t, db.CreateWorkspace(f.ctx, f.ws))
	f.user = access.User{ID: typeid.NewID("usr"), Email: "ada@example.com", Name: "Ada", CreatedAt: f.clock}
	must(t, db.CreateUser(f.ctx, f.user, "hash"))
	must(t, db.SetMember(f.ctx, f.ws.ID, f.user.ID, access.Admin, f.clock))
	f.user.Role = access.Admin
	f.client = f.add(oauth.Client{})
	return f
}

// server returns one more server on the fixture's database.
func (f *fixture) server(options ...option) *oauth.Server {
	f.Helper()
	guard, err := origin.New(issuer, nil, nil)
	must(f, err)
	c := oauth.Config{
		Store: f.db, InTx: storage.InTx[oauth.Store](f.db), Sealer: storagetest.Key, Issuer: issuer, Origin: guard, Now: f.now,
		RoleRights: cat().RoleRights, CheckScopes: cat().CheckScopes, Cut: cat().Cut, DefaultCeiling: cat().Scopes(catalog.PresetAct),
		Documents: http.DefaultClient, CheckURL: func(context.Context, string) error { return nil },
		Address: func(r *http.Request) string { return r.Header.Get("X-Test-Address") },
	}
	for _, o := range options {
		o(&c)
	}
	s, err := oauth.New(f.ctx, c)
	must(f, err)
	return s
}

// add stores a client, completed to a public one that registered itself.
func (f *fixture) add(c oauth.Client) oauth.Client {
	f.Helper()
	c.ID, c.CreatedAt = typeid.NewID("cli"), f.now()
	if c.Origin == "" {
		c.Origin = oauth.Dynamic
	}
	if c.Name == "" {
		c.Name = "Agent"
	}
	if c.RedirectURIs == nil {
		c.RedirectURIs = []string{callback}
	}
	if c.AuthMethod == "" {
		c.AuthMethod = oauth.AuthNone
	}
	if c.GrantTypes == nil {
		c.GrantTypes = []string{oauth.GrantCode, oauth.GrantRefresh}
	}
	must(f, f.db.CreateClient(f.ctx, c))
	return c
}

// confidential stores a client that an admin registered, with its secret.
func (f *fixture) confidential(grantTypes ...string) (oauth.Client, string) {
	f.Helper()
	secret := oauth.NewClientSecret()
	c := f.add(oauth.Client{Origin: oauth.Registered, Workspace: f.ws.ID, AuthMethod: oauth.AuthBasic, SecretHash: secret.Hash(), GrantTypes: grantTypes, Maker: access.Operator})
	_, err := f.db.EnsurePolicy(f.ctx, oauth.Policy{Workspace: f.ws.ID, Client: c.ID, Ceiling: cat().Scopes(catalog.PresetAct), CreatedAt: f.now()})
	must(f, err)
	return c, string(secret)
}

// query returns a good authorization request, changed by pairs of name and
// value; a value of "" leaves the parameter out.
func (f *fixture) query(changes ...string) url.Values {
	q := url.Values{"client_id": {f.client.ID}, "redirect_uri": {callback}, "response_type": {"code"}, "state": {"st"},
		"code_challenge": {challenge(verifier)}, "code_challenge_method": {"S256"}, "resource": {mcp}}
	set(q, changes)
	return q
}

func set(q url.Values, changes []string) {
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			q.Del(changes[i])
			continue
		}
		q.Set(changes[i], changes[i+1])
	}
}

// consent walks a request through to a code.
func (f *fixture) consent(scopes string, changes ...string) string {
	f.Helper()
	req, err := f.s.Authorize(f.ctx, f.query(changes...), f.user.ID)
	must(f, err)
	o, err := f.s.Offer(f.ctx, req, f.ws, f.user)
	must(f, err)
	chosen, err := access.ParseScopes(scopes)
	must(f, err)
	loc, err := f.s.Allow(f.ctx, o, chosen)
	must(f, err)
	u, err := url.Parse(loc)
	must(f, err)
	code := u.Query().Get("code")
	if code == "" {
		f.Fatalf("no code in %s", loc)
	}
	return code
}

// A reply is an answer of an endpoint.
type reply struct {
	status int
	header http.Header
	body   string
	m      map[string]any
}

func (r reply) str(name string) string { s, _ := r.m[name].(string); return s }

func (f *fixture) do(r *http.Request) reply {
	f.Helper()
	r.Host = "tp.example"
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, r)
	out := reply{status: w.Code, header: w.Header(), body: w.Body.String()}
	json.Unmarshal(w.Body.Bytes(), &out.m)
	return out
}

// post posts a form as the public client unless it says otherwise.
func (f *fixture) post(path string, params ...string) reply {
	f.Helper()
	form := url.Values{"client_id": {f.client.ID}}
	set(form, params)
	return f.postForm(path, form, nil)
}

func (f *fixture) postForm(path string, form url.Values, basic []string) reply {
	f.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Test-Address", typeid.NewID("addr")) // nobody shares a limit
	if basic != nil {
		r.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
	}
	return f.do(r)
}

func (f *fixture) exchange(code string, changes ...string) reply {
	f.Helper()
	return f.post(oauth.TokenPath, append([]string{"grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier}, changes...)...)
}

func (f *fixture) refresh(token string, changes ...string) reply {
	f.Helper()
	return f.post(oauth.TokenPath, append([]string{"grant_type", "refresh_token", "refresh_token", token}, changes...)...)
}

// connect returns the tokens of a new authorization.
func (f *fixture) connect(scopes string, changes ...string) reply {
	f.Helper()
	r := f.exchange(f.consent(scopes, changes...))
	want(f, r, 200, "")
	return r
}

// works checks whether an access token is accepted.
func (f *fixture) works(token, resource string, yes bool) {
	f.Helper()
	if _, err := f.s.Verify(f.ctx, token, resource); (err == nil) != yes {
		f.Errorf("Verify at %s: got %v, want accepted: %v", resource, err, yes)
	}
}

// events counts the entries of the workspace's log.
func (f *fixture) events(e audit.Event) int {
	f.Helper()
	found, err := f.db.AuditEntries(f.ctx, f.ws.ID, audit.Query{Event: e, Limit: 100})
	must(f, err)
	return len(found)
}

// want checks status and error code.
func want(t testing.TB, r reply, status int, code string) {
	t.Helper()
	if r.status != status || r.str("error") != code {
		t.Fatalf("got %d %s, want %d %q", r.status, r.body, status, code)
	}
}

// holds counts the rows of the tables of secrets that hold the text.
func (f *fixture) holds(text string) int {
	f.Helper()
	if c, err := f.db.Code(f.ctx, text); err == nil {
		f.Logf("code %s", c.Grant)
		return 1
	}
	if _, fam, err := f.db.RefreshToken(f.ctx, text); err == nil {
		f.Logf("refresh token of %s", fam.ID)
		return 1
	}
	all, err := f.db.Clients(f.ctx, f.ws.ID, "", 100)
	must(f, err)
	n := 0
	for _, c := range all {
		if c.Client.SecretHash == text || c.Client.OldSecretHash == text {
			n++
		}
	}
	return n
}
