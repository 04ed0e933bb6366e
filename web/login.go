package web

import (
	"net/http"
	"net/url"
	"path"
	"strings"

	"trustpager/admin"
	"trustpager/oauth"
	"trustpager/problem"
)

// A loginForm is the login page.
type loginForm struct {
	Email, Password field
	Next            string // where the browser goes afterwards
	Error           string
	Unclaimed       bool // nobody can log in yet
	Connecting      bool // the browser comes from an app that wants to connect
}

func newLoginForm(email, next string) loginForm {
	return loginForm{
		Email:      field{Name: "email", Label: "E-mail", Type: "email", Value: email, Autocomplete: "username", Required: true},
		Password:   field{Name: "password", Label: "Password", Type: "password", Autocomplete: "current-password", Required: true},
		Next:       next,
		Connecting: strings.HasPrefix(next, oauth.AuthorizePath+"?"),
	}
}

// page shows the form. Its redirects may lead on to an app: the login sends the
// browser to the request for consent, and that back to the app if it is wrong.
func (f loginForm) page(status int) answer {
	a := answer{page: "login.html", title: "Log in", status: status, data: f}
	if u, err := url.Parse(f.Next); err == nil && f.Connecting {
		a.forms = formSources(u.Query().Get("redirect_uri"))
	}
	return a
}

func (p *Pages) loginForm(r *http.Request, me *admin.Person) (answer, error) {
	next := safeNext(r.URL.Query().Get("next"))
	if me != nil {
		return redirect(next), nil
	}
	f := newLoginForm("", next)
	var err error
	f.Unclaimed, err = p.Desk.Unclaimed(r.Context())
	return f.page(http.StatusOK), err
}

func (p *Pages) login(r *http.Request, _ *admin.Person) (answer, error) {
	f := newLoginForm(strings.TrimSpace(r.PostForm.Get("email")), safeNext(r.FormValue("next")))
	password := r.PostForm.Get("password")
	if f.Email.Value == "" {
		f.Email.Error = "Enter your e-mail address."
	}
	if password == "" {
		f.Password.Error = "Enter your password."
	}
	if f.Email.Error+f.Password.Error != "" {
		return f.page(http.StatusUnprocessableEntity), nil
	}
	known, err := p.knows(r, f.Email.Value)
	if err != nil {
		return answer{}, err
	}
	me, err := p.Desk.Login(r.Context(), admin.LoginTry{Email: f.Email.Value, Password: password, Address: p.Address(r), Known: known})
	switch e := problem.Of(err); {
	case err == nil:
		a := redirect(f.Next)
		if !known {
			if a.cookie, err = p.remember(r.Context(), me); err != nil {
				return answer{}, err
			}
		}
		return a, p.begin(r.Context(), me)
	case e.Kind == problem.Unauthorized:
		f.Error = sentence(e.Message) + " " + e.Fix
		f.Email.Blame, f.Password.Blame = "form-error", "form-error"
		return f.page(http.StatusUnprocessableEntity), nil
	case e.Kind == problem.RateLimited:
		f.Error = sentence(e.Message) + " " + e.Fix
		a := f.page(http.StatusTooManyRequests)
		a.retry = e.RetryAfter
		return a, nil
	default:
		return answer{}, err
	}
}

func (p *Pages) logout(r *http.Request, me *admin.Person) (answer, error) {
	to := "/login"
	if next := safeNext(r.FormValue("next")); next != "/" {
		to = loginFor(next)
	}
	if me == nil {
		return redirect(to), nil
	}
	if err := p.Desk.Logout(r.Context(), *me); err != nil {
		return answer{}, err
	}
	return redirect(to), p.sessions.Destroy(r.Context())
}

// loginFor returns the login that leads on to next.
func loginFor(next string) string { return "/login?next=" + url.QueryEscape(next) }

// safeNext returns next if it is a path of this site, otherwise the first page.
// It takes less than browsers would: printable ASCII, nothing that any of them
// reads as another site, and no way back to login or logout.
func safeNext(next string) string {
	const first = "/"
	if len(next) > 8<<10 || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") {
		return first
	}
	for _, b := range []byte(next) {
		if b <= ' ' || b > '~' || strings.IndexByte("\\#\"<>^`{|}", b) >= 0 {
			return first
		}
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return first
	}
	// The path is looked at decoded too, as a proxy in between may do.
	if path.Clean(u.Path) != u.Path || strings.ContainsFunc(u.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
		return first
	}
	if u.Path == "/login" || u.Path == "/logout" {
		return first
	}
	return next
}
