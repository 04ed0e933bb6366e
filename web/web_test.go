package web_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/origin"
	"trustpager/problem"
	"trustpager/web"
)

var (
	_ web.Desk       = (*admin.Desk)(nil)
	_ web.Authorizer = (*oauth.Server)(nil)
)

// A site is the pages over stand-ins for what they lead to, with a browser.
type site struct {
	t        *testing.T
	now      time.Time
	people   map[string]admin.Person // by password
	loginErr error

	request  oauth.AuthorizationRequest
	offer    oauth.Offer
	failure  error // of Authorize
	location string
	allowed  []access.Scope
	decision string

	grants       []oauth.Grant
	most         access.Rights
	logouts      int
	sessions     map[string]stored
	storeErr     error  // of sessions
	beforeUpdate func() // of a session, meanwhile
	known        bool   // what the last try to log in said of the browser
	forgotten    []string
	invited      string // the id of the account that the good token's address has

	cat    *catalog.Catalog
	server *httptest.Server
	client *http.Client
}

type stored struct {
	data    []byte
	expires time.Time
}

var (
	harbour = access.Workspace{ID: "ws_harbour", Name: "Harbour Fit-outs", TimeZone: "Europe/London"}
	quay    = access.Workspace{ID: "ws_quay", Name: "Quay Kitchens", TimeZone: "UTC"}
)

func newSite(t *testing.T) *site {
	t.Helper()
	cat, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, now: time.Date(2026, 3, 9, 10, 0, 0, 0, time.UTC), sessions: map[string]stored{}, cat: cat, location: "https://claude.ai/api/cb?code=c&state=s"}
	s.people = map[string]admin.Person{"right": {
		User:        access.User{ID: "usr_priya", Email: "priya@example.com", Name: "Priya"},
		Memberships: []access.Membership{{Workspace: harbour, Role: access.Member}}, Stamp: "1",
	}}
	s.request = oauth.AuthorizationRequest{Coarse: true, RedirectURI: "https://claude.ai/api/cb",
		Client: oauth.Client{ID: "https://claude.ai/oauth/client.json", Name: "Claude", Origin: oauth.Metadata}}
	s.bound(catalog.PresetAct, access.Member)
	mux := http.NewServeMux()
	s.server = httptest.NewServer(mux)
	t.Cleanup(s.server.Close)
	mux.Handle("/", s.pages(s.server.URL))
	s.client = &http.Client{Jar: newJar(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

func newJar() http.CookieJar {
	jar, _ := cookiejar.New(nil) // cannot fail
	return jar
}

// bound sets what the offer and the bounds of grants allow.
func (s *site) bound(ceiling catalog.Preset, role access.Role) {
	s.offer.Ceiling = access.RightsOf(s.cat.Scopes(ceiling))
	s.most = s.offer.Ceiling.Min(s.cat.RoleRights(role))
	s.offer.Most = s.most
}

func (s *site) pages(base string) http.Handler {
	s.t.Helper()
	guard, err := origin.New(base, []string{"example.com"}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := web.New(web.Config{OAuth: s, Desk: s, Admin: &admin.Desk{Store: noCalls{}}, Gate: &approvals.Gate{Store: noApprovals{}}, Catalog: s.cat, Sessions: s, BaseURL: base, Origin: guard,
		Address: func(*http.Request) string { return "192.0.2.1" }, Now: func() time.Time { return s.now }})
	if err != nil {
		s.t.Fatal(err)
	}
	return p.Handler()
}

// noCalls is a store of credentials that were never used.
type noCalls struct{ admin.Store }

func (noCalls) LastUse(context.Context, string, string) (access.LastUse, string, error) {
	return access.LastUse{}, "", nil
}

// noApprovals is a store in which nothing waits.
type noApprovals struct{ approvals.Store }

func (noApprovals) ListApprovals(context.Context, string, approvals.Query) ([]approvals.Approval, error) {
	return nil, nil
}

func (noApprovals) CountWaiting(context.Context, string, string) (int, error) { return 0, nil }

func (s *site) Authorize(_ context.Context, q url.Values, user string) (oauth.AuthorizationRequest, error) {
	if q.Has("workspace") {
		return s.request, errors.New("the choice of a workspace is not the client's")
	}
	return s.request, s.failure
}

func (s *site) Offer(_ context.Context, req oauth.AuthorizationRequest, w access.Workspace, u access.User) (oauth.Offer, error) {
	o := s.offer
	o.Request, o.Workspace, o.User = req, w, u
	if s.offer.Workspace.Settings.AlwaysAsk != nil {
		o.Workspace.Settings = s.offer.Workspace.Settings
	}
	return o, nil
}

func (s *site) Allow(_ context.Context, o oauth.Offer, scopes []access.Scope) (string, error) {
	s.decision, s.allowed = "allow "+o.Workspace.ID, scopes
	return s.location, nil
}

func (s *site) Deny(_ context.Context, o oauth.Offer) (string, error) {
	s.decision = "deny"
	return s.location, nil
}

func (s *site) Login(_ context.Context, try admin.LoginTry) (admin.Person, error) {
	s.known = try.Known
	if s.loginErr != nil {
		return admin.Person{}, s.loginErr
	}
	if p, ok := s.people[try.Password]; ok && p.User.Email == try.Email && try.Address == "192.0.2.1" {
		return p, nil
	}
	return admin.Person{}, problem.Errorf(problem.Unauthorized, "e-mail address or password are wrong").WithFix("Try again.")
}

func (s *site) Logout(context.Context, admin.Person) error { s.logouts++; return nil }

func (s *site) Person(_ context.Context, user string) (admin.Person, error) {
	for _, p := range s.people {
		if p.User.ID == user {
			return p, nil
		}
	}
	return admin.Person{}, problem.Errorf(problem.NotFound, "no such user")
}

func (s *site) PersonGrant(p admin.Person, workspace string) (access.Grant, error) {
	for _, m := range p.Memberships {
		if m.Workspace.ID == workspace {
			return access.Grant{Principal: access.Principal{Kind: access.KindPerson, ID: p.User.ID, User: p.User.ID}, Workspace: m.Workspace, Rights: s.cat.RoleRights(m.Role)}, nil
		}
	}
	return access.Grant{}, problem.Errorf(problem.NotFound, "no such workspace")
}

func (s *site) Grants(_ context.Context, g access.Grant, q oauth.GrantQuery) ([]oauth.Grant, error) {
	var of []oauth.Grant
	for _, gr := range s.grants {
		if gr.Workspace == g.Workspace.ID && gr.User == q.User && gr.RevokedAt.IsZero() {
			of = append(of, gr)
		}
	}
	return of, nil
}

func (s *site) stored(g access.Grant, id string) (*oauth.Grant, error) {
	for i, gr := range s.grants {
		if gr.ID == id && gr.Workspace == g.Workspace.ID {
			return &s.grants[i], nil
		}
	}
	return nil, problem.Errorf(problem.NotFound, "there is no grant %q", id)
}

func (s *site) Grant(_ context.Context, g access.Grant, id string) (oauth.Grant, error) {
	gr, err := s.stored(g, id)
	if err != nil {
		return oauth.Grant{}, err
	}
	return *gr, nil
}

func (s *site) GrantBounds(context.Context, access.Grant, string) (access.Rights, error) {
	return s.most, nil
}

func (s *site) GrantForecast(context.Context, access.Grant, string, []access.Scope) (admin.Forecast, error) {
	return admin.Forecast{}, nil
}

func (s *site) UpdateGrant(_ context.Context, g access.Grant, id string, scopes []access.Scope) (oauth.Grant, error) {
	gr, err := s.stored(g, id)
	if err != nil {
		return oauth.Grant{}, err
	}
	gr.Scopes = scopes
	return *gr, nil
}

func (s *site) RevokeGrant(_ context.Context, g access.Grant, id string) (oauth.Grant, error) {
	gr, err := s.stored(g, id)
	if err != nil {
		return oauth.Grant{}, err
	}
	gr.RevokedAt = s.now
	return *gr, nil
}

func (s *site) Session(_ context.Context, hash string) ([]byte, time.Time, error) {
	st, ok := s.sessions[hash]
	if s.storeErr != nil {
		return nil, time.Time{}, s.storeErr
	}
	if !ok {
		return nil, time.Time{}, problem.Errorf(problem.NotFound, "no session")
	}
	return st.data, st.expires, nil
}

func (s *site) CreateSession(_ context.Context, hash string, data []byte, expires time.Time) error {
	s.sessions[hash] = stored{data, expires}
	return s.storeErr
}

func (s *site) UpdateSession(_ context.Context, hash string, data []byte, expires time.Time) error {
	if s.beforeUpdate != nil {
		s.beforeUpdate()
	}
	if _, ok := s.sessions[hash]; ok {
		s.sessions[hash] = stored{data, expires}
	}
	return s.storeErr
}

func (s *site) DeleteSession(_ context.Context, hash string) error {
	delete(s.sessions, hash)
	return nil
}

// An answer is what the browser got.
type answer struct {
	*http.Response
	body string
}

func (a answer) location() string { return a.Header.Get("Location") }

func (s *site) do(method, path string, form url.Values, headers ...string) answer {
	s.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, s.server.URL+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp, string(b)}
}

func (s *site) get(path string) answer { s.t.Helper(); return s.do("GET", path, nil) }

func (s *site) login() {
	s.t.Helper()
	if a := s.do("POST", "/login", url.Values{"email": {"priya@example.com"}, "password": {"right"}}); a.StatusCode != 303 {
		s.t.Fatalf("login: got %d, want 303", a.StatusCode)
	}
}

func (s *site) cookie() string {
	u, _ := url.Parse(s.server.URL)
	for _, c := range s.client.Jar.Cookies(u) {
		if c.Name == "trustpager" {
			return c.Value
		}
	}
	return ""
}

// open returns how many sessions are stored. Known browsers are no sessions.
func (s *site) open() (n int) {
	for _, st := range s.sessions {
		if !strings.Contains(string(st.data), `"known":`) {
			n++
		}
	}
	return n
}

const authorize = oauth.AuthorizePath + "?client_id=c&redirect_uri=https%3A%2F%2Fclaude.ai%2Fapi%2Fcb&scope=workspace&state=s"

// The url of an approval leads to it by way of the login.
func TestApprovalsNeedALogin(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]string{
		"/settings/api?tab=approvals&approval=apr_01jz9q2n7yf3ktqw1v8h5m0xce": "/login?next=" + url.QueryEscape("/settings/api?tab=approvals&approval=apr_01jz9q2n7yf3ktqw1v8h5m0xce"),
		"/settings/api":         "/login?next=" + url.QueryEscape("/settings/api"),
		"/settings/api?tab=%0a": "/login?next=" + url.QueryEscape("/settings/api?tab=%0a"),
	} {
		if a := s.get(path); a.StatusCode != 303 || a.location() != want {
			t.Errorf("%s: got %d %q, want 303 to %q", path, a.StatusCode, a.location(), want)
		}
	}
	for _, path := range []string{"/settings/api/approvals/apr_1/approve", "/settings/api/approvals/batch", "/settings/api/keys/new", "/settings/api/keys/key_1/revoke"} {
		if a := s.do("POST", path, url.Values{"digest": {"d"}}); a.StatusCode != 303 || !strings.HasPrefix(a.location(), "/login") {
			t.Errorf("POST %s of nobody: got %d %q, want 303 to the login", path, a.StatusCode, a.location())
		}
	}
}

func TestMissingPages(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		method, url string
		want, not   string
	}{
		{"GET", "/nothing", "There is no such page", ""},
		{"POST", "/", "There is no such page", ""},
		{"GET", "/%3Cscript%3E", "There is no such page", "<script>"},
		{"GET", "/static/app.css", "", ""},
		{"GET", "/static/000000000000/app.css", "", ""},
	} {
		a := s.do(tt.method, tt.url, nil)
		if a.StatusCode != 404 || !strings.Contains(a.body, tt.want) || tt.not != "" && strings.Contains(a.body, tt.not) {
			t.Errorf("%s %s: got %d %s, want 404 with %q and without %q", tt.method, tt.url, a.StatusCode, a.body, tt.want, tt.not)
		}
	}
}

// Programs show the icon beside what they do here, without a login and for
// longer than one version of the pages.
func TestIconStandsAtAnAddressThatStays(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]string{"/icon.svg": "image/svg+xml", "/icon.png": "image/png"} {
		a := s.get(path)
		if a.StatusCode != 200 || a.Header.Get("Content-Type") != want || len(a.body) < 100 || !strings.Contains(a.Header.Get("Cache-Control"), "max-age=86400") {
			t.Errorf("GET %s: got %d %v and %d bytes, want %s", path, a.StatusCode, a.Header, len(a.body), want)
		}
	}
}

func TestLoginKeepsWhoIsThere(t *testing.T) {
	s := newSite(t)
	if a := s.get("/"); a.StatusCode != 303 || a.location() != "/login" {
		t.Errorf("GET / of nobody: got %d %q, want 303 to the login", a.StatusCode, a.location())
	}
	if a := s.get("/connections"); a.location() != "/login?next=%2Fconnections" {
		t.Errorf("GET /connections of nobody: got %q, want the login that leads on", a.location())
	}
	if s.cookie() != "" || s.open() != 0 {
		t.Errorf("a session began before the login: %q, %d stored", s.cookie(), s.open())
	}
	a := s.do("POST", "/login", url.Values{"email": {" priya@example.com "}, "password": {"right"}, "next": {"/connections"}})
	if a.StatusCode != 303 || a.location() != "/connections" {
		t.Fatalf("login: got %d %q, want 303 to next", a.StatusCode, a.location())
	}
	if a := s.get("/"); a.StatusCode != 200 || !strings.Contains(a.body, "Priya") || !strings.Contains(a.body, "Log out") {
		t.Errorf("GET / after login: got %d %s", a.StatusCode, a.body)
	}
	if a := s.get("/login?next=/connections"); a.location() != "/connections" {
		t.Errorf("GET /login when logged in: got %d %q, want on to next", a.StatusCode, a.location())
	}
	for hash := range s.sessions {
		if hash == s.cookie() || len(hash) != 64 {
			t.Errorf("session is stored under %q, want the SHA-256 of the token", hash)
		}
	}
	old := s.cookie()
	if a := s.do("POST", "/logout", url.Values{"next": {authorize}}); a.StatusCode != 303 || a.location() != "/login?next="+url.QueryEscape(authorize) {
		t.Errorf("logout: got %d %q", a.StatusCode, a.location())
	}
	if s.cookie() != "" || s.open() != 0 || s.logouts != 1 {
		t.Errorf("after logout: cookie %q, %d sessions, %d logouts told; want none, none, 1", s.cookie(), s.open(), s.logouts)
	}
	if a := s.do("GET", "/", nil, "Cookie", "trustpager="+old); a.location() != "/login" {
		t.Errorf("the old token after logout: got %d %q, want the login", a.StatusCode, a.location())
	}
}

func TestLoginRenewsTheToken(t *testing.T) {
	s := newSite(t)
	s.login()
	first := s.cookie()
	s.login()
	if s.cookie() == first || s.open() != 1 {
		t.Errorf("second login: token renewed %v, %d sessions; want true, 1", s.cookie() != first, s.open())
	}
	a := s.do("POST", "/login", url.Values{"email": {"priya@example.com"}, "password": {"right"}}, "Cookie", "trustpager=planted")
	if c := a.Cookies(); len(c) != 1 || c[0].Value == "planted" {
		t.Errorf("login with a planted token: got cookies %v, want a new token", c)
	}
}

func TestSessionsEnd(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*site)
	}{
		{"password changed", func(s *site) { p := s.people["right"]; p.Stamp = "2"; s.people["right"] = p }},
		{"user removed", func(s *site) { s.people = nil }},
		{"a day without use", func(s *site) { s.now = s.now.Add(24*time.Hour + time.Minute) }},
		{"expired in the store", func(s *site) { s.now = s.now.Add(15 * 24 * time.Hour) }},
		{"14 days in use", func(s *site) {
			for range 14*2 + 1 {
				s.now = s.now.Add(12 * time.Hour)
				s.get("/")
			}
		}},
	} {
		s := newSite(t)
		s.login()
		s.now = s.now.Add(23 * time.Hour)
		if a := s.get("/"); a.StatusCode != 200 {
			t.Fatalf("%s: got %d before, want 200", tt.name, a.StatusCode)
		}
		tt.change(s)
		if a := s.get("/"); a.location() != "/login" {
			t.Errorf("%s: got %d %q, want the login", tt.name, a.StatusCode, a.location())
		}
	}
}

func TestSessionInUseStays(t *testing.T) {
	s := newSite(t)
	s.login()
	for day := range 13 {
		s.now = s.now.Add(23 * time.Hour)
		if a := s.get("/"); a.StatusCode != 200 {
			t.Fatalf("day %d: got %d, want 200", day, a.StatusCode)
		}
	}
}

// A browser that has logged in to an account is known at that account, and at no
// other; its cookie is no session.
func TestKnownBrowser(t *testing.T) {
	s := newSite(t)
	var known *http.Cookie
	for _, c := range s.do("POST", "/login", url.Values{"email": {"priya@example.com"}, "password": {"right"}}).Cookies() {
		if strings.HasSuffix(c.Name, "-known") {
			known = c
		}
	}
	if s.known || known == nil {
		t.Fatalf("the first login: known %t, cookie %v", s.known, known)
	}
	if !known.HttpOnly || known.SameSite != http.SameSiteStrictMode || known.MaxAge < 300*24*3600 {
		t.Errorf("got %v, want a cookie for a year that scripts and other sites do not see", known)
	}
	s.client.Jar = nil
	try := func(email, token string) bool {
		s.known = false
		s.do("POST", "/login", url.Values{"email": {email}, "password": {"wrong"}}, "Cookie", known.Name+"="+token)
		return s.known
	}
	if !try("priya@example.com", known.Value) || !try("PRIYA@example.com", known.Value) {
		t.Error("the browser is not known")
	}
	if try("other@example.com", known.Value) || try("priya@example.com", "x"+known.Value) || try("priya@example.com", "") {
		t.Error("a browser is known that never logged in there")
	}
	session := strings.TrimSuffix(known.Name, "-known")
	if a := s.do("GET", "/connections", nil, "Cookie", session+"="+known.Value); a.StatusCode != 303 {
		t.Errorf("the cookie as a session: got %d, want the login", a.StatusCode)
	}
	s.now = s.now.Add(366 * 24 * time.Hour)
	if try("priya@example.com", known.Value) {
		t.Error("the browser is known after more than a year")
	}
}

// A request in flight does not bring back a session that was ended meanwhile.
func TestLogoutBeatsRequestsInFlight(t *testing.T) {
	s := newSite(t)
	s.login()
	s.now = s.now.Add(time.Hour) // so that the use is stored
	s.beforeUpdate = func() { clear(s.sessions) }
	if a := s.get("/connections"); a.StatusCode != 200 {
		t.Fatalf("got %d", a.StatusCode)
	}
	s.beforeUpdate = nil
	if s.open() != 0 {
		t.Error("the session is back")
	}
	if a := s.get("/connections"); a.StatusCode != 303 {
		t.Errorf("after the end: got %d, want the login", a.StatusCode)
	}
}

func TestSessionStoreThatFails(t *testing.T) {
	s := newSite(t)
	s.storeErr = errors.New("disk on fire")
	if a := s.do("POST", "/login", url.Values{"email": {"priya@example.com"}, "password": {"right"}}); a.StatusCode != 500 || strings.Count(a.body, "<html") != 1 || s.cookie() != "" || strings.Contains(a.body, "fire") {
		t.Errorf("login that cannot be kept: got %d %s, want one page with 500 and no cookie", a.StatusCode, a.body)
	}
	s.storeErr = nil
	s.login()
	s.storeErr = errors.New("disk on fire")
	if a := s.get("/"); a.StatusCode != 500 || s.cookie() == "" {
		t.Errorf("session that cannot be read: got %d, cookie kept %v; want 500, true", a.StatusCode, s.cookie() != "")
	}
}

func TestCookies(t *testing.T) {
	s := newSite(t)
	for base, want := range map[string][]string{
		"https://pager.example.com": {"__Host-trustpager=", "Path=/;", "HttpOnly", "Secure", "SameSite=Lax"},
		"http://localhost:8080":     {"trustpager=", "Path=/;", "HttpOnly", "SameSite=Lax"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", base+"/login", strings.NewReader("email=priya@example.com&password=right"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		s.pages(base).ServeHTTP(w, r)
		got := w.Header().Get("Set-Cookie")
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: Set-Cookie: got %q, want %q in it", base, got, part)
			}
		}
		if !strings.HasPrefix(got, want[0]) || strings.Contains(got, "Domain") || strings.Contains(got, "Secure") != strings.HasPrefix(base, "https") {
			t.Errorf("%s: Set-Cookie: got %q", base, got)
		}
	}
}

func TestRefusedLogin(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		name            string
		email, password string
		err             error
		status          int
		want            string
	}{
		{"wrong password", "priya@example.com", "wrong", nil, 422, "E-mail address or password are wrong."},
		{"unknown", "nobody@example.com", "right", nil, 422, "E-mail address or password are wrong."},
		{"no e-mail", "", "right", nil, 422, "Enter your e-mail address."},
		{"no password", "priya@example.com", "", nil, 422, "Enter your password."},
		{"throttled", "priya@example.com", "right", &problem.Error{Kind: problem.RateLimited, Message: "too many wrong passwords", Fix: "Wait 2 minutes.", RetryAfter: 90*time.Second + 1}, 429, "Wait 2 minutes."},
		{"fault", "priya@example.com", "right", errors.New("disk on fire"), 500, "Something went wrong here"},
	} {
		s.loginErr = tt.err
		a := s.do("POST", "/login", url.Values{"email": {tt.email}, "password": {tt.password}, "next": {"/connections"}})
		if a.StatusCode != tt.status || !strings.Contains(a.body, tt.want) || strings.Contains(a.body, "disk") || s.cookie() != "" {
			t.Errorf("%s: got %d %s, want %d with %q", tt.name, a.StatusCode, a.body, tt.status, tt.want)
		}
		if tt.status != 500 && (!strings.Contains(a.body, `role="alert"`) || tt.status == 422 && !strings.Contains(a.body, `aria-invalid="true"`) || !strings.Contains(a.body, `value="/connections"`)) {
			t.Errorf("%s: the error is not linked to the field, or next is lost: %s", tt.name, a.body)
		}
		if got := a.Header.Get("Retry-After"); (got == "91") != (tt.status == 429) {
			t.Errorf("%s: Retry-After: got %q", tt.name, got)
		}
		if strings.Contains(a.body, `value="wrong"`) {
			t.Errorf("%s: the page repeats the password", tt.name)
		}
	}
}

// hostileNext are values that some browser or proxy might take for another
// site, or for a way around.
var hostileNext = []string{
	"//evil.example", "///evil.example", "////evil.example/a", "/\\evil.example", "\\/evil.example", "\\\\evil.example",
	"/\\/evil.example", "https://evil.example", "HTTPS://evil.example", "http:evil.example", "https:/evil.example", "https:evil.example",
	"javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "//evil.example\\@pager.example.com",
	"/\t/evil.example", "/\n/evil.example", "/\r/evil.example", "\t//evil.example", " //evil.example", " /x", "/ /evil.example",
	"/\x00/evil.example", "/\x0b/evil.example", "\u2028//evil.example", "/\u2044evil.example", "/\uff0fevil.example", "\uff0f\uff0fevil.example",
	"/%2f/evil.example", "/%2Fevil.example", "/%2f%2fevil.example", "/%5cevil.example", "/%5C/evil.example", "/%09/evil.example", "/%0d%0aSet-Cookie:x=1",
	"/x\r\nSet-Cookie: x=1", "/..//evil.example", "/../evil.example", "/./evil.example", "/x/..//evil.example", "/x//evil.example", "/%2e%2e//evil.example",
	"evil.example", "@evil.example", ".evil.example", ":80", "?x", "#x", "/#//evil.example", "/x#y", "/login", "/login?next=/login", "/logout",
	"/%6cogout", "/x/", "//", "///", "//@evil.example", "//evil.example:80", "//[::1]/", "/%zz", "/x%", "/<script>", "/\"x", "/{x}", "/`x`", "/|x",
	"/" + strings.Repeat("a", 9000),
}

func TestNextStaysHere(t *testing.T) {
	s := newSite(t)
	if len(hostileNext) < 40 {
		t.Fatalf("only %d hostile values", len(hostileNext))
	}
	for _, next := range hostileNext {
		a := s.do("POST", "/login", url.Values{"email": {"priya@example.com"}, "password": {"right"}, "next": {next}})
		if a.StatusCode != 303 || a.location() != "/" {
			t.Errorf("next %q: got %d to %q, want the first page", next, a.StatusCode, a.location())
		}
		if a := s.get("/login?next=" + url.QueryEscape(next)); a.location() != "/" {
			t.Errorf("GET with next %q: got %q, want the first page", next, a.location())
		}
		if a := s.do("POST", "/logout", url.Values{"next": {next}}); a.location() != "/login" {
			t.Errorf("logout with next %q: got %q, want the login", next, a.location())
		}
	}
	for _, next := range []string{"/", "/connections", "/connections/grt_1", authorize, "/settings/api?tab=approvals&approval=apr_1", authorize + "&redirect_uri=http://[::1]:80/"} {
		a := s.do("POST", "/login", url.Values{"email": {"priya@example.com"}, "password": {"right"}, "next": {next}})
		if a.location() != next {
			t.Errorf("next %q: got %q, want it kept", next, a.location())
		}
	}
}

func TestHeadersOfEveryPage(t *testing.T) {
	s := newSite(t)
	check := func(path string, a answer) {
		for name, want := range map[string]string{
			"X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
			"Content-Type": "text/html; charset=utf-8",
		} {
			if got := a.Header.Get(name); got != want && (a.StatusCode != 303 || name != "Content-Type") {
				t.Errorf("%s: %s: got %q, want %q", path, name, got, want)
			}
		}
		if got := a.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control: got %q", path, got)
		}
		csp := a.Header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "style-src 'self'", "script-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: Content-Security-Policy: got %q, want %q in it", path, csp, part)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s: Content-Security-Policy: got %q", path, csp)
		}
	}
	paths := []string{"/nothing", authorize}
	for _, pattern := range web.Patterns() {
		if path, gets := strings.CutPrefix(pattern, "GET "); gets {
			paths = append(paths, strings.TrimSuffix(param.ReplaceAllString(path, "x"), "{$}"))
		}
	}
	for _, path := range paths {
		check(path, s.get(path))
	}
	s.login()
	s.grants = []oauth.Grant{{ID: "grt_1", Workspace: harbour.ID, User: "usr_priya", ClientName: "Claude", CreatedAt: s.now}}
	for _, path := range []string{"/", "/connections", "/connections/grt_1", "/connections/grt_1/disconnect", "/connections/grt_2", authorize} {
		check(path, s.get(path))
	}
	s.failure = errors.New("out of memory")
	check("fault", s.get(authorize))
}

func TestStylesheetIsKeptForGood(t *testing.T) {
	s := newSite(t)
	m := regexp.MustCompile(`href="(/static/[0-9a-f]+/app\.css)"`).FindStringSubmatch(s.get("/login").body)
	if m == nil {
		t.Fatal("the page names no stylesheet")
	}
	a := s.get(m[1])
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/css; charset=utf-8" || !strings.Contains(a.Header.Get("Cache-Control"), "immutable") || !strings.Contains(a.body, "light-dark(") {
		t.Errorf("%s: got %d, %v", m[1], a.StatusCode, a.Header)
	}
}

// param is a part of a pattern that stands for any.
var param = regexp.MustCompile(`\{\w+\}`)

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	s := newSite(t)
	s.login()
	s.grants = []oauth.Grant{{ID: "grt_1", Workspace: harbour.ID, User: "usr_priya", ClientName: "Claude"}}
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		for _, pattern := range web.Patterns() {
			path, posts := strings.CutPrefix(pattern, "POST ")
			if !posts {
				continue
			}
			path = strings.Replace(param.ReplaceAllString(path, "grt_1"), "/oauth/authorize", authorize, 1)
			a := s.do("POST", path, url.Values{"decision": {"allow"}, "preset": {"act"}}, headers...)
			if a.StatusCode != 403 || !strings.Contains(a.body, "another site") || a.Header.Get("X-Frame-Options") != "DENY" {
				t.Errorf("POST %s with %v: got %d %s, want a page with 403", path, headers, a.StatusCode, a.body)
			}
		}
	}
	if s.decision != "" || s.logouts != 0 || !s.grants[0].RevokedAt.IsZero() {
		t.Errorf("a refused form did something: %q, %d, %v", s.decision, s.logouts, s.grants)
	}
	if a := s.do("POST", authorize, url.Values{"decision": {"deny"}}, "Sec-Fetch-Site", "same-origin", "Origin", s.server.URL); a.StatusCode != 303 {
		t.Errorf("our own form: got %d, want 303", a.StatusCode)
	}
}

func TestForeignHostNamesAreRefused(t *testing.T) {
	s := newSite(t)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/login", nil)
	r.Host = "evil.test"
	s.pages("https://pager.example.com").ServeHTTP(w, r)
	if w.Code != 403 || !strings.Contains(w.Body.String(), "not called") {
		t.Errorf("Host evil.test: got %d %s, want 403", w.Code, w.Body)
	}
}

func TestHugeFormsAreRefused(t *testing.T) {
	s := newSite(t)
	if a := s.do("POST", "/login", url.Values{"email": {strings.Repeat("a", 100<<10)}}); a.StatusCode != 413 {
		t.Errorf("form of 100 kB: got %d, want 413", a.StatusCode)
	}
}

func TestConnections(t *testing.T) {
	s := newSite(t)
	s.people["right"] = admin.Person{User: s.people["right"].User, Stamp: "1", Memberships: []access.Membership{{Workspace: harbour, Role: access.Admin}, {Workspace: quay, Role: access.Member}}}
	s.login()
	if a := s.get("/connections"); !strings.Contains(a.body, "No app is connected yet") || !strings.Contains(a.body, s.server.URL+"/mcp") {
		t.Errorf("nothing connected: got %s", a.body)
	}
	s.grants = []oauth.Grant{
		{ID: "grt_1", Workspace: harbour.ID, User: "usr_priya", Client: "https://claude.ai/client.json", ClientName: "Claude", Scopes: s.cat.Scopes(catalog.PresetAct), ConsentedAt: s.now.Add(-3 * 24 * time.Hour), LastUsedAt: s.now.Add(-2 * time.Minute)},
		{ID: "grt_2", Workspace: quay.ID, User: "usr_priya", Client: "cli_1", ClientName: "Cursor", Scopes: s.cat.Scopes(catalog.PresetRead), ConsentedAt: s.now.Add(-40 * 24 * time.Hour)},
		{ID: "grt_3", Workspace: harbour.ID, User: "usr_other", ClientName: "Not mine"},
	}
	a := s.get("/connections")
	for _, want := range []string{"Claude", "claude.ai", "3 days ago", "2 min ago", "Cursor", "28 Jan 2026", "never", "Quay Kitchens", "Changes nothing.", "By itself it changes records and uses AI."} {
		if !strings.Contains(a.body, want) {
			t.Errorf("connections: want %q in %s", want, a.body)
		}
	}
	if strings.Contains(a.body, "Not mine") {
		t.Error("connections: shows somebody else's")
	}
	for _, path := range []string{"/connections/grt_3", "/connections/grt_3/disconnect", "/connections/grt_9"} {
		if a := s.get(path); a.StatusCode != 404 {
			t.Errorf("GET %s: got %d, want 404", path, a.StatusCode)
		}
		if a := s.do("POST", path, url.Values{"preset": {"read"}}); a.StatusCode != 404 {
			t.Errorf("POST %s: got %d, want 404", path, a.StatusCode)
		}
	}
	if a := s.get("/connections/grt_1"); a.StatusCode != 200 || checked(a.body, "preset") != "act" || !strings.Contains(a.body, "Disconnect") {
		t.Errorf("GET /connections/grt_1: got %d with preset %q", a.StatusCode, checked(a.body, "preset"))
	}
	if a := s.do("POST", "/connections/grt_1", url.Values{"preset": {"custom"}, "r.contacts": {"delete"}, "r.users": {"delete"}}); a.location() != "/connections/grt_1" {
		t.Fatalf("change: got %d %q", a.StatusCode, a.location())
	}
	if got, want := access.FormatScopes(s.grants[0].Scopes), "contacts:write contacts:delete-approval"; got != want {
		t.Errorf("change beyond the ceiling: got %q, want %q", got, want)
	}
	if a := s.get("/connections/grt_1"); !strings.Contains(a.body, "Saved.") || checked(a.body, "preset") != "custom" || checked(a.body, "r.contacts") != "delete-approval" {
		t.Errorf("after the change: got %s", a.body)
	}
	if a := s.get("/connections/grt_1"); strings.Contains(a.body, "Saved.") {
		t.Error("the notice shows twice")
	}
	if a := s.get("/connections/grt_1/disconnect"); a.StatusCode != 200 || !strings.Contains(a.body, "Keep it") {
		t.Errorf("confirmation: got %d", a.StatusCode)
	}
	if !s.grants[0].RevokedAt.IsZero() {
		t.Error("looking at the confirmation has disconnected")
	}
	if a := s.do("POST", "/connections/grt_1/disconnect", url.Values{}); a.location() != "/connections" || s.grants[0].RevokedAt.IsZero() {
		t.Errorf("disconnect: got %d %q", a.StatusCode, a.location())
	}
	if a := s.get("/connections"); !strings.Contains(a.body, "Disconnected.") || strings.Contains(a.body, "grt_1") {
		t.Errorf("after disconnecting: got %s", a.body)
	}
	if a := s.get("/connections/grt_1"); a.StatusCode != 404 {
		t.Errorf("ended connection: got %d, want 404", a.StatusCode)
	}
}

var (
	inline    = regexp.MustCompile(`(?i)<script(>|[^>]*[^"]>)|</script>[^\n]|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:`)
	labels    = regexp.MustCompile(`(?s)<label[^>]*>.*?</label>`)
	labelFor  = regexp.MustCompile(`<label for="([^"]+)"`)
	inputs    = regexp.MustCompile(`<(?:input|select|textarea)[^>]*>`)
	inputID   = regexp.MustCompile(` id="([^"]+)"`)
	headings  = regexp.MustCompile(`<h1[ >]`)
	described = regexp.MustCompile(` (?:aria-describedby|aria-labelledby)="([^"]+)"`)
	blanks    = regexp.MustCompile(`\w+ [.,]|\( |  \w`)
	ids       = regexp.MustCompile(` id="([^"]+)"`)
)

func TestTemplatesHaveNoInlineCode(t *testing.T) {
	files, err := filepath.Glob("pages/*.html")
	if err != nil || len(files) < 8 {
		t.Fatalf("got %d templates, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if m := inline.Find(b); m != nil {
			t.Errorf("%s has %q, which the Content-Security-Policy forbids", file, m)
		}
	}
}

func TestColoursStandInTheTokensOnly(t *testing.T) {
	b, err := os.ReadFile("static/app.css")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "}\n")
	if m := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b|rgb|hsl`).FindString(rest); !ok || m != "" {
		t.Errorf("the stylesheet names the colour %q outside of the tokens", m)
	}
}

func TestPagesAreAccessible(t *testing.T) {
	s := newSite(t)
	s.grants = []oauth.Grant{{ID: "grt_1", Workspace: harbour.ID, User: "usr_priya", ClientName: "Claude", Scopes: s.cat.Scopes(catalog.PresetAct)}}
	check := func(name string, a answer) {
		if n := len(headings.FindAllString(a.body, -1)); n != 1 {
			t.Errorf("%s: got %d h1, want 1", name, n)
		}
		for _, want := range []string{`<html lang="en">`, `<main id="main">`, `href="#main"`, "<title>", `name="viewport"`} {
			if !strings.Contains(a.body, want) {
				t.Errorf("%s: has no %s", name, want)
			}
		}
		named := map[string]bool{}
		for _, m := range labelFor.FindAllStringSubmatch(a.body, -1) {
			named[m[1]] = true
		}
		for _, input := range inputs.FindAllString(labels.ReplaceAllString(a.body, ""), -1) {
			id := inputID.FindStringSubmatch(input)
			if !strings.Contains(input, `type="hidden"`) && (id == nil || !named[id[1]]) {
				t.Errorf("%s: %s has no label", name, input)
			}
		}
		if m := blanks.FindString(a.body); m != "" {
			t.Errorf("%s: a sentence has a hole: %q", name, m)
		}
		known := map[string]bool{}
		for _, m := range ids.FindAllStringSubmatch(a.body, -1) {
			if known[m[1]] {
				t.Errorf("%s: id %q stands twice", name, m[1])
			}
			known[m[1]] = true
		}
		for _, m := range described.FindAllStringSubmatch(a.body, -1) {
			for id := range strings.FieldsSeq(m[1]) {
				if !known[id] {
					t.Errorf("%s: %q refers to nothing", name, m[0])
				}
			}
		}
	}
	check("login", s.get("/login"))
	check("refused login", s.do("POST", "/login", url.Values{"email": {"x@example.com"}, "password": {"wrong"}}))
	check("empty login", s.do("POST", "/login", url.Values{}))
	check("404", s.get("/nothing"))
	s.login()
	for _, path := range []string{"/", "/connections", "/connections/grt_1", "/connections/grt_1/disconnect", authorize} {
		check(path, s.get(path))
	}
	p := s.people["right"]
	p.Memberships = append(p.Memberships, access.Membership{Workspace: quay, Role: access.Owner})
	s.people["right"] = p
	check("workspaces", s.get(authorize))
	s.bound(catalog.PresetAct, access.Owner)
	check("consent of an owner", s.get(authorize+"&workspace="+quay.ID))
}

// checked returns the value of the radio that is checked.
func checked(body, name string) string {
	m := regexp.MustCompile(`<input type="radio" name="`+regexp.QuoteMeta(name)+`" value="([^"]*)"[^>]* checked>`).FindAllStringSubmatch(body, -1)
	if len(m) != 1 {
		return ""
	}
	return m[0][1]
}
