package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

const pagesPassword = "correct horse battery staple"

// addPerson makes a member of the server's workspace who can log in.
func addPerson(t *testing.T, s *servertest.Server, email, name string) access.User {
	t.Helper()
	hash, err := access.HashPassword(pagesPassword)
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), email, name, hash, access.Member)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// An app is an OAuth client outside of the server, that has registered itself.
type app struct {
	id, redirect string
	returned     chan url.Values // what the browser came back with
}

func newApp(t *testing.T, s *servertest.Server, name string) *app {
	t.Helper()
	a := &app{returned: make(chan url.Values, 10)}
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/callback" {
			a.returned <- r.URL.Query()
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><h1>Connected</h1>`)
	}))
	t.Cleanup(home.Close)
	a.redirect = home.URL + "/callback"
	body, err := json.Marshal(map[string]any{"client_name": name, "redirect_uris": []string{a.redirect}, "token_endpoint_auth_method": "none"})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(s.URL+"/oauth/register", "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var made struct {
		ID string `json:"client_id"`
	}
	if err := json.NewDecoder(res.Body).Decode(&made); err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("register: got %s (%v), want 201", res.Status, err)
	}
	a.id = made.ID
	return a
}

// authorize is where the app sends the browser.
func (a *app) authorize(s *servertest.Server, scope string) string {
	q := url.Values{"response_type": {"code"}, "client_id": {a.id}, "redirect_uri": {a.redirect}, "state": {"st"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}, "resource": {s.URL + "/mcp"}}
	if scope != "" {
		q.Set("scope", scope)
	}
	return s.URL + "/oauth/authorize?" + q.Encode()
}

// inSight reports whether all of what the selector finds is in the window.
const inSight = `(() => { const r = document.querySelector('button[value=deny]').getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight; })()`

// The pages as people meet them, in a browser: login, choice of a workspace,
// consent, connected apps.
func TestPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		priya := addPerson(t, s, "priya@example.com", "Priya Nair")
		second, err := s.Desk.CreateWorkspace(t.Context(), "Second workspace", "Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(second), "priya@example.com", "", "", access.Admin); err != nil {
			t.Fatal(err)
		}
		a := newApp(t, s, "Mail\u202ebot <b>x</b>")
		b := browsertest.New(t)
		inReach := func(window string) {
			t.Helper()
			if !browsertest.Get(b, chromedp.Evaluate[bool](inSight)) {
				t.Errorf("%s: Allow and Deny are not in sight", window)
			}
		}

		b.Do(browsertest.Open(a.authorize(s, "")), browsertest.See("input[name=password]"))
		b.Look("login")
		b.Do(browsertest.Fill("email", "priya@example.com"), browsertest.Fill("password", "wrong"), browsertest.Press("main button.primary"), browsertest.See("[role=alert]"))
		if got := b.Text("[role=alert]"); !strings.Contains(got, "not right") {
			t.Errorf("a wrong password: got %q", got)
		}
		b.Look("login-wrong")
		b.Do(browsertest.Fill("password", pagesPassword), browsertest.Press("main button.primary"), browsertest.See(`input[name=workspace]`))
		b.Look("workspaces")
		b.Do(browsertest.Press(`input[name=workspace][value="`+s.Workspace.ID+`"]`), browsertest.Press("main button.primary"), browsertest.See("button[value=allow]"))
		if got := b.Text("h1"); strings.Contains(got, "\u202e") || !strings.Contains(got, "Mailbot <b>x</b>") {
			t.Errorf("the client's name: got %q, want it without hidden characters, as text", got)
		}
		b.Look("consent", inReach)
		b.Do(browsertest.Press(`input[name=preset][value=custom]`), browsertest.See(`input[name="r.contacts"]`))
		b.Look("consent-custom", inReach)
		b.Do(browsertest.Press(`input[name="r.contacts"][value=write]`), browsertest.Press("button[value=deny]"), browsertest.See("h1"), browsertest.Leave("button[value=deny]"))
		if got := <-a.returned; got.Get("error") != "access_denied" || got.Get("state") != "st" || got.Get("iss") != s.URL || got.Get("code") != "" {
			t.Errorf("denied: got %v", got)
		}

		allow := func(scope, preset string, steps ...browsertest.Step) url.Values {
			t.Helper()
			b.Do(browsertest.Open(a.authorize(s, scope)+"&workspace="+s.Workspace.ID), browsertest.See("button[value=allow]"), browsertest.Press(`input[name=preset][value=`+preset+`]`))
			b.Do(steps...)
			b.Look("consent-"+preset, inReach)
			b.Do(browsertest.Press("button[value=allow]"), browsertest.Leave("button[value=allow]"))
			return <-a.returned
		}
		if got := allow("", "custom", browsertest.Press(`input[name="r.contacts"][value=write]`)); got.Get("code") == "" || got.Get("iss") != s.URL {
			t.Errorf("allowed: got %v, want a code", got)
		}
		grant := grantOf(t, s, priya.ID, a.id)
		if !slices.Contains(grant, "contacts:write") || !slices.Contains(grant, "deals:write-approval") {
			t.Errorf("got %v, want contacts at once and deals with approval", grant)
		}
		allow("", "read") // once more: it is narrowed
		if grant := grantOf(t, s, priya.ID, a.id); slices.Contains(grant, "contacts:write") || !slices.Contains(grant, "contacts:read") {
			t.Errorf("consented to again: got %v, want read only", grant)
		}

		b.Do(browsertest.Open(s.URL+"/connections"), browsertest.See("table"))
		b.Look("connections")
		b.Do(browsertest.Press("tbody th a"), browsertest.See("form"))
		b.Look("connection")
		b.Do(browsertest.Press(`input[name=preset][value=recommended]`), browsertest.Press("main button.primary"), browsertest.See(".notice.good"))
		if grant := grantOf(t, s, priya.ID, a.id); !slices.Contains(grant, "contacts:write-approval") {
			t.Errorf("changed under connected apps: got %v, want write with approval", grant)
		}
		b.Do(browsertest.Press(`main a.danger`), browsertest.See("main button.danger"))
		b.Look("disconnect")
		b.Do(browsertest.Press("main button.danger"), browsertest.See(".notice.good"))
		if grant := grantOf(t, s, priya.ID, a.id); grant != nil {
			t.Errorf("disconnected: got %v, want nothing in force", grant)
		}
		b.Do(browsertest.Open(s.URL + "/oauth/authorize?client_id=cli_unknown"))
		b.Look("error")
		b.Do(browsertest.Open(s.URL+"/"), browsertest.See("header button.quiet"))
		b.Look("home")
		b.Do(browsertest.Press("header button.quiet"), browsertest.See("input[name=password]"))
		b.Behaved(s.URL+"/", strings.TrimSuffix(a.redirect, "callback"))
	})
}

// grantOf returns the scopes of the user's grant to the client, nil if none is
// in force.
func grantOf(t *testing.T, s *servertest.Server, user, client string) []string {
	t.Helper()
	answer := s.Do("GET", "/v1/grants?status=active&user="+user+"&client="+client, s.Full, "").Want(t, 200)
	if answer.Len("data") == 0 {
		return nil
	}
	var scopes []string
	for _, name := range answer.Get("data.0.scopes").([]any) {
		scopes = append(scopes, name.(string))
	}
	return scopes
}
