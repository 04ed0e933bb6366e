package web_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
)

// The stand-ins know one token, "good", and one person.

const good = "good"

func deadLink() error {
	return problem.Errorf(problem.NotFound, "the link does not hold, or not any more").WithFix("Get a new one.")
}

func wrongField(path, expected string) error {
	return &problem.Error{Kind: problem.Validation, Message: "that will not do", Fields: []problem.Field{{Path: path, Expected: expected}}}
}

func (s *site) Unclaimed(context.Context) (bool, error) { return len(s.people) == 0, nil }

func (s *site) SetUpWith(_ context.Context, token string) (access.Workspace, error) {
	if token != good {
		return access.Workspace{}, deadLink()
	}
	return harbour, nil
}

func (s *site) SetUp(_ context.Context, in admin.SetUp) (admin.Person, error) {
	switch {
	case in.Token != good:
		return admin.Person{}, deadLink()
	case in.TimeZone != "UTC":
		return admin.Person{}, wrongField("time_zone", "an IANA time zone, as in Europe/Berlin")
	}
	return s.people["right"], nil
}

func (s *site) InvitedWith(_ context.Context, token, _ string) (admin.Invited, error) {
	if token != good {
		return admin.Invited{}, deadLink()
	}
	i := admin.Invitation{Email: "new@example.com", Role: access.Member, By: access.Principal{Name: "<b>Mallory\u202e"}}
	return admin.Invited{Invitation: i, In: harbour, User: s.invited}, s.loginErr
}

func (s *site) Accept(_ context.Context, in admin.Acceptance) (admin.Person, error) {
	if in.Password == "weak" {
		return admin.Person{}, wrongField("password", "at least 12 characters")
	}
	return s.people["right"], nil
}

func (s *site) AcceptAs(_ context.Context, p admin.Person, token, address string) (admin.Invited, error) {
	return s.InvitedWith(context.Background(), token, address)
}

func (s *site) ForgotPassword(_ context.Context, email, address string) error {
	s.forgotten = append(s.forgotten, email+" "+address)
	return s.loginErr
}

func (s *site) ResetWith(_ context.Context, token string) (admin.Person, error) {
	if token != good {
		return admin.Person{}, deadLink()
	}
	return s.people["right"], nil
}

func (s *site) ResetPassword(_ context.Context, token, password string) (admin.Person, error) {
	if password == "weak" {
		return admin.Person{}, wrongField("password", "at least 12 characters long")
	}
	return s.setPassword(password), nil
}

func (s *site) ChangePassword(_ context.Context, p admin.Person, c admin.PasswordChange) (admin.Person, error) {
	if s.loginErr != nil {
		return p, s.loginErr
	}
	if s.people[c.Present].User.ID != p.User.ID {
		return p, wrongField("present", "your present password")
	}
	return s.setPassword(c.New), nil
}

// setPassword gives the one person a password and so another stamp.
func (s *site) setPassword(password string) admin.Person {
	for old, p := range s.people {
		delete(s.people, old)
		p.Stamp += "+"
		s.people[password] = p
		return p
	}
	return admin.Person{}
}

func (s *site) SetNotice(_ context.Context, _ admin.Person, workspace string, n access.Notice) error {
	for password, p := range s.people {
		for i := range p.Memberships {
			if p.Memberships[i].Workspace.ID == workspace {
				p.Memberships[i].Notice = n
			}
		}
		s.people[password] = p
	}
	return nil
}

func (s *site) Rename(_ context.Context, p admin.Person, name string) error {
	if name == "" {
		return wrongField("name", "1 to 100 characters")
	}
	p.User.Name = name
	for password := range s.people {
		s.people[password] = p
	}
	return nil
}

// page checks an answer's status and that it has all the texts, except those
// that begin with "!".
func (s *site) page(a answer, status int, texts ...string) {
	s.t.Helper()
	if a.StatusCode != status {
		s.t.Errorf("%s %s: got %d, want %d", a.Request.Method, a.Request.URL.Path, a.StatusCode, status)
	}
	for _, text := range texts {
		not, unwanted := strings.CutPrefix(text, "!")
		if unwanted && strings.Contains(a.body, not) || !unwanted && !strings.Contains(a.body, text) {
			s.t.Errorf("%s %s: want %q in\n%s", a.Request.Method, a.Request.URL.Path, text, a.body)
		}
	}
}

func TestSetUpPage(t *testing.T) {
	s := newSite(t)
	s.page(s.get("/setup?token=good"), 200, `value="good"`, "Harbour Fit-outs", "Europe/London", `list="zones"`, `<option value="Asia/Kolkata">`, `autocomplete="new-password"`)
	for _, dead := range []string{"/setup", "/setup?token=", "/setup?token=other", "/setup?token=%00"} {
		s.page(s.get(dead), 404, "This link does not hold", "Get a new one.", "!<form method")
	}
	form := url.Values{"token": {good}, "workspace": {"<b>Acme</b>"}, "time_zone": {"Mars"}, "name": {"Ada"}, "email": {"ada@example.com"}, "password": {"kitchen plumb orbit"}}
	s.page(s.do("POST", "/setup", form), 422, "It must be an IANA time zone", "&lt;b&gt;Acme", `aria-invalid="true" aria-describedby="f-time_zone-hint f-time_zone-error"`, "!kitchen")
	if s.open() != 0 {
		t.Error("a session was begun with a form that will not do")
	}
	form.Set("time_zone", "UTC")
	if a := s.do("POST", "/setup", form); a.StatusCode != 303 || a.location() != "/" {
		t.Errorf("set up: got %d to %q, want 303 to /", a.StatusCode, a.location())
	}
	s.page(s.get("/"), 200, "Priya")
	s.page(s.do("POST", "/setup", url.Values{"token": {"other"}}), 404, "This link does not hold")
	if a := s.do("POST", "/setup", form, "Sec-Fetch-Site", "cross-site"); a.StatusCode != 403 {
		t.Errorf("from another site: got %d, want 403", a.StatusCode)
	}
}

func TestForgotPage(t *testing.T) {
	s := newSite(t)
	s.page(s.get("/login"), 200, `<a class="alone" href="/forgot">`)
	s.page(s.get("/forgot"), 200, "finds the message in the outbox", "trustpager user password")
	s.page(s.do("POST", "/forgot", url.Values{"email": {" "}}), 422, "Enter your e-mail address.")
	s.page(s.do("POST", "/forgot", url.Values{"email": {" who@example.com "}}), 200, "If there is an account", "who@example.com")
	if len(s.forgotten) != 1 || s.forgotten[0] != "who@example.com 192.0.2.1" {
		t.Errorf("asked for %q", s.forgotten)
	}
	e := problem.Errorf(problem.RateLimited, "too many tries").WithFix("Wait 12 seconds.")
	e.RetryAfter = 12 * time.Second
	s.loginErr = e
	a := s.do("POST", "/forgot", url.Values{"email": {"who@example.com"}})
	s.page(a, 429, "Too many tries. Wait 12 seconds.")
	if got := a.Header.Get("Retry-After"); got != "12" {
		t.Errorf("Retry-After = %q, want 12", got)
	}
}

func TestResetPage(t *testing.T) {
	s := newSite(t)
	s.login()
	a := s.get("/reset?token=good")
	s.page(a, 200, `value="good"`, "priya@example.com")
	if a.Header.Get("Set-Cookie") != "" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "same-origin" {
		t.Errorf("headers of a page with a token: %v", a.Header)
	}
	s.page(s.get("/reset?token=other"), 404, "This link does not hold", `<a class="alone" href="/forgot">`)
	post := func(token, password, again string) answer {
		return s.do("POST", "/reset", url.Values{"token": {token}, "password": {password}, "again": {again}})
	}
	s.page(post("other", "x", "x"), 404, "This link does not hold")
	s.page(post(good, "kitchen plumb", "kitchen orbit"), 422, "This is not the same as above.", "!kitchen plumb")
	s.page(post(good, "weak", "weak"), 422, "It must be at least 12 characters long.")
	if a := post(good, "kitchen plumb orbit", "kitchen plumb orbit"); a.StatusCode != 303 || a.location() != "/login" {
		t.Errorf("reset: got %d to %q, want 303 to /login", a.StatusCode, a.location())
	}
	if a := s.get("/account"); a.StatusCode != 303 {
		t.Errorf("the session from before: got %d, want the login", a.StatusCode)
	}
}

func TestAccountPage(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/account", "/account/name", "/account/notices", "/account/password"} {
		method := "GET"
		if path != "/account" {
			method = "POST"
		}
		if a := s.do(method, path, nil); a.location() != "/login?next=%2Faccount" {
			t.Errorf("%s without a login: got %d to %q, want the login", path, a.StatusCode, a.location())
		}
	}
	s.login()
	elsewhere := newBrowser(s)
	s.page(s.get("/account"), 200, "priya@example.com", `value="Priya"`)
	s.page(s.do("POST", "/account/name", url.Values{"name": {""}}), 422, "It must be 1 to 100 characters.")
	if a := s.do("POST", "/account/name", url.Values{"name": {"Priya Nair"}}); a.location() != "/account" {
		t.Errorf("rename: got %d to %q", a.StatusCode, a.location())
	}
	s.page(s.get("/account"), 200, "Your name is changed.", "Priya Nair")

	if a := s.do("POST", "/account/notices", url.Values{"notice." + harbour.ID: {"daily"}}); a.location() != "/account" {
		t.Errorf("notices: got %d to %q", a.StatusCode, a.location())
	}
	s.page(s.get("/account"), 200, `<option value="daily" selected>Once a day, at 08:00`, "no mail server yet")

	change := func(present, password, again string) answer {
		return s.do("POST", "/account/password", url.Values{"present": {present}, "password": {password}, "again": {again}})
	}
	s.page(change("wrong", "kitchen plumb orbit", "kitchen plumb orbit"), 422, "It must be your present password.", "!kitchen")
	s.page(change("right", "kitchen plumb orbit", "other"), 422, "This is not the same as above.")
	token := s.cookie()
	if a := change("right", "kitchen plumb orbit", "kitchen plumb orbit"); a.location() != "/account" {
		t.Fatalf("change: got %d to %q", a.StatusCode, a.location())
	}
	if s.cookie() == token {
		t.Error("the session has the token of before")
	}
	s.page(s.get("/account"), 200, "Your password is changed.")
	s.client = elsewhere
	if a := s.get("/account"); a.StatusCode != 303 {
		t.Errorf("another browser's session: got %d, want the login", a.StatusCode)
	}
}

// newBrowser logs the person in with another browser.
func newBrowser(s *site) *http.Client {
	first := s.client
	other := *first
	other.Jar = newJar()
	s.client = &other
	s.login()
	s.client = first
	return &other
}

func TestInvitePage(t *testing.T) {
	s := newSite(t)
	for _, dead := range []string{"/invite", "/invite?token=", "/invite?token=other", "/invite?token=%00"} {
		s.page(s.get(dead), 404, "This link does not hold", "Get a new one.", "!<form method=\"post\" action=\"/invite\"")
	}
	a := s.get("/invite?token=good")
	s.page(a, 200, "Join <bdi>Harbour Fit-outs", "new@example.com", "a member", "&lt;b&gt;Mallory", "U+202E", `name="password"`, "!<b>Mallory")
	if a.Header.Get("Set-Cookie") != "" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "same-origin" {
		t.Errorf("headers of a page with a token: %v", a.Header)
	}
	post := func(token, name, password, again string) answer {
		return s.do("POST", "/invite", url.Values{"token": {token}, "name": {name}, "password": {password}, "again": {again}})
	}
	s.page(post("other", "New", "x", "x"), 404, "This link does not hold")
	s.page(post(good, "<i>New", "kitchen plumb", "kitchen orbit"), 422, "This is not the same as above.", "&lt;i&gt;New", "!kitchen plumb")
	s.page(post(good, "New", "weak", "weak"), 422, "It must be at least 12 characters.")
	if s.open() != 0 {
		t.Error("a session was begun with a form that will not do")
	}
	if a := s.do("POST", "/invite", url.Values{"token": {good}, "name": {"New"}, "password": {"fine"}, "again": {"fine"}}, "Sec-Fetch-Site", "cross-site"); a.StatusCode != 403 {
		t.Errorf("from another site: got %d, want 403", a.StatusCode)
	}
	if a := post(good, "New", "kitchen plumb orbit", "kitchen plumb orbit"); a.StatusCode != 303 || a.location() != "/" {
		t.Errorf("accepted: got %d to %q, want 303 to /", a.StatusCode, a.location())
	}
	s.page(s.get("/"), 200, "You belong to Harbour Fit-outs now.")

	// The address has an account: only who is logged in to it is offered to join.
	s = newSite(t)
	s.invited = "usr_other"
	s.page(s.get("/invite?token=good"), 200, `href="/login?next=%2finvite%3ftoken%3dgood"`, "!name=\"password\"")
	if a := post(good, "New", "kitchen plumb orbit", "kitchen plumb orbit"); a.StatusCode != 303 || a.location() != "/invite?token=good" {
		t.Errorf("without a login: got %d to %q, want the page again", a.StatusCode, a.location())
	}
	s.login()
	s.page(s.get("/invite?token=good"), 200, "for another account", `action="/logout"`, "!action=\"/invite\"")
	s.invited = s.people["right"].User.ID
	s.page(s.get("/invite?token=good"), 200, `action="/invite"`, "!name=\"password\"")
	if a := s.do("POST", "/invite", url.Values{"token": {good}}); a.StatusCode != 303 || a.location() != "/" {
		t.Errorf("joined: got %d to %q, want 303 to /", a.StatusCode, a.location())
	}
	e := problem.Errorf(problem.RateLimited, "too many tries").WithFix("Wait 12 seconds.")
	s.loginErr = e
	s.page(s.get("/invite?token=good"), 429, "Too many tries")
}
