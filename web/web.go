// Package web is the pages that people see: set-up, login, consent to OAuth
// clients, the apps that a person has connected, approvals, and their account;
// invitations; and for owners and admins keys, clients, deliveries, the rules of
// approvals, the pause, company, members and billing.
//
// Everything is rendered here and works as plain HTML forms; what JavaScript
// adds is live numbers and lists, keys and buttons that copy. Most pages are
// about one workspace, a room: each of their forms names it, and acts there.
//
// Who is there is known by a session: a random token in a cookie, whose hash
// names a row with the user's id and the stamp of their password. A session
// gets a new token at login, ends 14 days later, after a day without use, at
// logout, and when the password changes. Forms are safe from other sites by the
// SameSite cookie and by [http.CrossOriginProtection], and no page can be
// framed.
//
// What others wrote, their names above all, is shown with its hidden characters
// as code points.
package web

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"

	"github.com/alexedwards/scs/v2"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/problem"
)

// An Authorizer is the part of the authorization server that people meet;
// [oauth.Server] is one.
type Authorizer interface {
	Authorize(ctx context.Context, query url.Values, user string) (oauth.AuthorizationRequest, error)
	Offer(ctx context.Context, req oauth.AuthorizationRequest, w access.Workspace, u access.User) (oauth.Offer, error)
	Allow(ctx context.Context, o oauth.Offer, scopes []access.Scope) (location string, err error)
	Deny(ctx context.Context, o oauth.Offer) (location string, err error)
}

// A Desk knows people and what they have connected; [admin.Desk] is one.
type Desk interface {
	Login(ctx context.Context, try admin.LoginTry) (admin.Person, error)
	Logout(ctx context.Context, p admin.Person) error
	Person(ctx context.Context, user string) (admin.Person, error)
	PersonGrant(p admin.Person, workspace string) (access.Grant, error)

	// Unclaimed reports whether nobody can log in, as the set-up has not been done.
	Unclaimed(ctx context.Context) (bool, error)
	SetUpWith(ctx context.Context, token string) (access.Workspace, error)
	SetUp(ctx context.Context, in admin.SetUp) (admin.Person, error)
	ForgotPassword(ctx context.Context, email, address string) error
	ResetWith(ctx context.Context, token string) (admin.Person, error)
	ResetPassword(ctx context.Context, token, password string) (admin.Person, error)
	InvitedWith(ctx context.Context, token, address string) (admin.Invited, error)
	Accept(ctx context.Context, in admin.Acceptance) (admin.Person, error)
	AcceptAs(ctx context.Context, p admin.Person, token, address string) (admin.Invited, error)
	ChangePassword(ctx context.Context, p admin.Person, c admin.PasswordChange) (admin.Person, error)
	Rename(ctx context.Context, p admin.Person, name string) error
	SetNotice(ctx context.Context, p admin.Person, workspace string, n access.Notice) error

	Grants(ctx context.Context, g access.Grant, q oauth.GrantQuery) ([]oauth.Grant, error)
	Grant(ctx context.Context, g access.Grant, id string) (oauth.Grant, error)
	// GrantBounds returns the most that a consent can give: the client's ceiling
	// and the user's role.
	GrantBounds(ctx context.Context, g access.Grant, id string) (access.Rights, error)
	GrantForecast(ctx context.Context, g access.Grant, id string, scopes []access.Scope) (admin.Forecast, error)
	UpdateGrant(ctx context.Context, g access.Grant, id string, scopes []access.Scope) (oauth.Grant, error)
	RevokeGrant(ctx context.Context, g access.Grant, id string) (oauth.Grant, error)
}

// A HostChecker refuses requests under names that are not this server's.
type HostChecker interface {
	CheckHost(r *http.Request) error
}

// A Config is what the pages need.
type Config struct {
	OAuth    Authorizer
	Desk     Desk        // what people do for themselves
	Admin    *admin.Desk // what admins do
	Gate     *approvals.Gate
	Catalog  *catalog.Catalog
	Sessions Sessions
	BaseURL  string // of this server, without a slash at the end
	Origin   HostChecker
	Address  func(*http.Request) string // of the browser, for throttling
	Mails    bool                       // messages are sent, and do not wait for the operator
	Now      func() time.Time
}

// Pages serves the pages. It is safe for concurrent use.
type Pages struct {
	Config
	sessions *scs.SessionManager
	cross    *http.CrossOriginProtection
	streams  streams
	closed   <-chan struct{} // when no page is live any more
	close    func()
}

// New returns the pages. It fails if the base URL is not one.
func New(c Config) (*Pages, error) {
	base, err := url.Parse(c.BaseURL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("the base URL %q is not of the form https://host", c.BaseURL)
	}
	closing, stop := context.WithCancel(context.Background())
	p := &Pages{Config: c, sessions: newSessions(c.Sessions, c.Now, base.Scheme == "https"), cross: http.NewCrossOriginProtection(),
		closed: closing.Done(), close: stop}
	// A proxy may change the Host, so that Origin and Host differ on our own pages.
	if err := p.cross.AddTrustedOrigin(base.Scheme + "://" + base.Host); err != nil {
		return nil, fmt.Errorf("the base URL %q is no origin: %w", c.BaseURL, err)
	}
	return p, nil
}

// Handler returns the pages.
func (p *Pages) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range p.routes() {
		mux.Handle(pattern, p.serve(h))
	}
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("GET /static/{version}/{name}", static)
	for _, name := range []string{"icon.svg", "icon.png"} {
		mux.HandleFunc("GET /"+name, icon(name))
	}
	return p.guard(mux)
}

// routes returns the pages by their patterns.
func (p *Pages) routes() map[string]handle {
	routes := map[string]handle{
		"GET /{$}":                             p.home,
		"GET /login":                           p.loginForm,
		"POST /login":                          p.login,
		"POST /logout":                         p.logout,
		"GET /setup":                           p.setUpForm,
		"POST /setup":                          p.setUp,
		"GET /forgot":                          p.forgotForm,
		"POST /forgot":                         p.forgot,
		"GET /reset":                           p.resetForm,
		"POST /reset":                          p.reset,
		"GET /account":                         p.framed(mine(p.account)),
		"POST /account/name":                   p.framed(mine(p.rename)),
		"POST /account/notices":                p.framed(mine(p.setNotices)),
		"POST /account/password":               p.framed(mine(p.changePassword)),
		"GET " + oauth.AuthorizePath:           p.consent,
		"POST " + oauth.AuthorizePath:          p.decide,
		"GET /connections":                     p.framed(p.connections),
		"GET /connections/{grant}":             p.framed(p.connection),
		"POST /connections/{grant}":            p.changeConnection,
		"POST /connections/{grant}/preview":    p.framed(p.previewConnection),
		"GET /connections/{grant}/disconnect":  p.framed(p.confirmDisconnect),
		"POST /connections/{grant}/disconnect": p.disconnect,
		"POST /workspace":                      p.room(p.switchWorkspace),
		"GET /connect":                         p.room(p.connect),
		"POST /loans/{loan}/end":               p.room(p.endLoan),
		"GET " + messagesPath:                  p.room(p.messages),
		"GET " + messagesPath + "/{message}":   p.room(p.thread),
		"GET /settings/pause":                  p.adminRoom(p.pausePage),
		"POST /settings/pause":                 p.adminRoom(p.pause),
		"POST /settings/resume":                p.adminRoom(p.resume),
		"GET " + invitePath:                    p.inviteForm,
		"POST " + invitePath:                   p.acceptInvitation,
		"GET " + companyPath:                   p.adminRoom(p.company),
		"POST " + companyPath:                  p.adminRoom(p.changeCompany),
		"GET " + usersPath:                     p.adminRoom(p.members),
		"GET " + usersPath + "/{user}":         p.adminRoom(p.member),
		"POST " + usersPath + "/invite":        p.adminRoom(p.invite),
		"POST " + usersPath + "/resend":        p.adminRoom(p.resendInvitation),
		"POST " + usersPath + "/cancel":        p.adminRoom(p.cancelInvitation),
		"POST " + usersPath + "/{user}/role":   p.adminRoom(p.changeRole),
		"GET " + usersPath + "/{user}/remove":  p.adminRoom(p.confirmRemove),
		"POST " + usersPath + "/{user}/remove": p.adminRoom(p.removeMember),
		"GET /settings/billing":                p.adminRoom(p.billing),
		"GET /settings/approvals":              p.adminRoom(p.rules),
		"POST /settings/approvals":             p.adminRoom(p.changeRules),

		"GET " + webhooksPath:                     p.adminRoom(p.webhooks),
		"GET " + webhooksPath + "/new":            p.adminRoom(p.newWebhook),
		"POST " + webhooksPath + "/new":           p.adminRoom(p.createWebhook),
		"GET " + webhooksPath + "/{hook}":         p.adminRoom(p.webhook),
		"POST " + webhooksPath + "/{hook}":        p.adminRoom(p.updateWebhook),
		"GET " + webhooksPath + "/{hook}/delete":  p.adminRoom(p.confirmDeleteWebhook),
		"POST " + webhooksPath + "/{hook}/delete": p.adminRoom(p.deleteWebhook),

		"GET " + apiPath:                              p.room(p.api),
		"GET " + apiPath + "/keys/new":                p.adminRoom(p.newKey),
		"POST " + apiPath + "/keys/new":               p.adminRoom(p.createKey),
		"GET " + apiPath + "/keys/{key}":              p.adminRoom(p.key),
		"POST " + apiPath + "/keys/{key}":             p.adminRoom(p.updateKey),
		"POST " + apiPath + "/keys/{key}/preview":     p.adminRoom(p.previewKey),
		"GET " + apiPath + "/keys/{key}/usage":        p.adminRoom(p.keyUsage),
		"POST " + apiPath + "/keys/{key}/revoke":      p.adminRoom(p.revokeKey),
		"POST " + apiPath + "/keys/{key}/activate":    p.adminRoom(p.activateKey),
		"POST " + apiPath + "/keys/{key}/rotate":      p.adminRoom(p.rotateKey),
		"POST " + apiPath + "/keys/{key}/end-overlap": p.adminRoom(p.endOverlap),
		"GET " + apiPath + "/keys/{key}/delete":       p.adminRoom(p.confirmDeleteKey),
		"POST " + apiPath + "/keys/{key}/delete":      p.adminRoom(p.deleteKey),

		"POST " + apiPath + "/registration":             p.adminRoom(p.registration),
		"GET " + apiPath + "/clients/new":               p.adminRoom(p.newClient),
		"POST " + apiPath + "/clients/new":              p.adminRoom(p.createClient),
		"GET " + apiPath + "/clients/{client}":          p.adminRoom(p.client),
		"POST " + apiPath + "/clients/{client}":         p.adminRoom(p.updateClient),
		"POST " + apiPath + "/clients/{client}/preview": p.adminRoom(p.previewClient),
		"POST " + apiPath + "/clients/{client}/rotate":  p.adminRoom(p.rotateClient),
		"GET " + apiPath + "/clients/{client}/delete":   p.adminRoom(p.confirmDeleteClient),
		"POST " + apiPath + "/clients/{client}/delete":  p.adminRoom(p.deleteClient),
		"POST " + apiPath + "/clients/{client}/revoke":  p.adminRoom(p.revokeTokens),
		"GET " + apiPath + "/grants/{grant}":            p.adminRoom(p.token),
		"POST " + apiPath + "/grants/{grant}":           p.adminRoom(p.narrowToken),
		"POST " + apiPath + "/grants/{grant}/preview":   p.adminRoom(p.previewToken),
		"POST " + apiPath + "/grants/{grant}/revoke":    p.adminRoom(p.revokeToken),
		"GET " + apiPath + "/approvals/{approval}/edit": p.decideAs(p.edit),
		"POST " + apiPath + "/approvals/batch":          p.room(p.batch),

		"GET " + integrationsPath:                            p.adminRoom(p.integrations),
		"GET " + integrationsPath + "/new":                   p.adminRoom(p.newIntegration),
		"POST " + integrationsPath + "/new":                  p.adminRoom(p.createIntegration),
		"GET " + integrationsPath + "/{integration}":         p.adminRoom(p.integration),
		"POST " + integrationsPath + "/{integration}":        p.adminRoom(p.updateIntegration),
		"POST " + integrationsPath + "/{integration}/test":   p.adminRoom(p.testIntegration),
		"GET " + integrationsPath + "/{integration}/test":    p.adminRoom(upwards),
		"GET " + integrationsPath + "/{integration}/delete":  p.adminRoom(p.confirmDeleteIntegration),
		"POST " + integrationsPath + "/{integration}/delete": p.adminRoom(p.deleteIntegration),

		// Where a page that a form has led to stays in the browser's address.
		"GET /connections/{grant}/preview":             func(r *http.Request, _ *admin.Person) (answer, error) { return upwards(r, room{}) },
		"GET " + apiPath + "/keys/{key}/preview":       p.adminRoom(upwards),
		"GET " + apiPath + "/clients/{client}/preview": p.adminRoom(upwards),
		"GET " + apiPath + "/grants/{grant}/preview":   p.adminRoom(upwards),
		"GET " + apiPath + "/keys/{key}/rotate":        p.adminRoom(upwards),
		"GET " + apiPath + "/clients/{client}/rotate":  p.adminRoom(upwards),
		"GET " + usersPath + "/{user}/role":            p.adminRoom(upwards),
		"GET " + usersPath + "/invite":                 p.adminRoom(upwards),
		"GET " + usersPath + "/resend":                 p.adminRoom(upwards),
		"GET " + apiPath + "/approvals/batch":          p.room(func(*http.Request, room) (answer, error) { return redirect(approvalsPath), nil }),

		"/": missing,
	}
	for action, h := range map[string]func(*http.Request, room, string) (answer, error){
		"approve": p.approve, "reject": p.reject, "edit": p.editAndApprove, "extend": p.extend, "assign": p.assign, "retry": p.retry, "dismiss": p.dismiss, "lend": p.lend,
	} {
		routes["POST "+apiPath+"/approvals/{approval}/"+action] = p.decideAs(h)
	}
	for _, base := range []string{apiPath + "/keys/{key}/webhook", apiPath + "/clients/{client}/webhook", webhooksPath + "/{hook}/deliveries"} {
		routes["GET "+base] = p.adminRoom(p.deliveries)
		routes["POST "+base+"/test"] = p.adminRoom(p.testWebhook)
		routes["POST "+base+"/rotate"] = p.adminRoom(p.rotateWebhook)
		routes["GET "+base+"/rotate"] = p.adminRoom(upwards)
		routes["POST "+base+"/{delivery}/resend"] = p.adminRoom(p.resend)
	}
	return routes
}

// guard sets the headers of all answers, and refuses requests under foreign
// names and forms that other sites send.
func (p *Pages) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy(nil))
		header.Set("X-Frame-Options", "DENY")
		header.Set("X-Content-Type-Options", "nosniff")
		// Not no-referrer: with it browsers send "Origin: null" with our own forms.
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		if err := p.Origin.CheckHost(r); err != nil {
			p.write(w, r, nil, failure(r, err))
			return
		}
		if err := p.cross.Check(r); err != nil {
			p.write(w, r, nil, failure(r, problem.Errorf(problem.Forbidden, "the form came from another site").
				WithFix("Open the page here and send it again.")))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// An answer is a page, or the place where the browser goes instead.
type answer struct {
	location string

	page   string // its file in pages
	part   string // the template of the page that is all of the answer, "" for the whole page
	title  string // a fact, for the browser's tab
	status int    // 0 means 200
	data   any
	forms  []string      // where else its forms may lead (CSP form-action)
	frame  *frame        // around the page, nil if it stands alone
	retry  time.Duration // 0 means unsaid
	notice string        // what has just happened
	bad    string        // what has just not worked
	cookie *http.Cookie  // to set, nil if none
}

// redirect sends the browser to a location by GET.
func redirect(location string) answer { return answer{location: location} }

// A handle answers a request of me, who is nil if nobody is logged in.
type handle func(r *http.Request, me *admin.Person) (answer, error)

// maxForm bounds what a form may send.
const maxForm = 64 << 10

func (p *Pages) serve(h handle) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		w.Header().Add("Vary", "Cookie")
		// The form comes first: it may come slowly, and who is there and what they
		// may do is as of the answer.
		if err := readForm(r); err != nil {
			p.write(w, r, nil, failure(r, err))
			return
		}
		r, me, err := p.visitor(r)
		if err != nil {
			p.write(w, r, nil, failure(r, err))
			return
		}
		a, err := h(r, me)
		if err == nil {
			// A page that is fetched to refresh another is not read as a whole.
			if dest := r.Header.Get("Sec-Fetch-Dest"); a.location == "" && (dest == "" || dest == "document") {
				a.notice, a.bad = p.sessions.PopString(r.Context(), noticeKey), p.sessions.PopString(r.Context(), badKey)
			}
			err = p.saveSession(w, r.Context())
		}
		if err != nil {
			a = p.refuse(r, me, err)
		}
		p.write(w, r, me, a)
	})
}

func readForm(r *http.Request) error {
	err := r.ParseForm()
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.Errorf(problem.TooLarge, "the form is larger than %d bytes", maxForm)
	}
	if err != nil && r.Method == http.MethodPost {
		return problem.Errorf(problem.InvalidBody, "the form cannot be read").WithFix("Go back, reload the page and send it again.")
	}
	return nil
}

//go:embed pages
var pageFiles embed.FS

// pages holds each page's file with the layout and the parts of forms.
var pages = func() map[string]*template.Template {
	shared := template.Must(template.New("").Funcs(template.FuncMap{
		"visible": visible, "lines": visibleLines, "plain": visibleText, "host": visibleHost, "sentence": sentence,
		"static": staticPath,
	}).ParseFS(pageFiles, "pages/layout.html", "pages/forms.html", "pages/parts.html"))
	entries, err := pageFiles.ReadDir("pages")
	if err != nil {
		panic(err)
	}
	of := map[string]*template.Template{}
	for _, e := range entries {
		of[e.Name()] = template.Must(template.Must(shared.Clone()).ParseFS(pageFiles, "pages/"+e.Name()))
	}
	return of
}()

// A view is what the layout shows.
type view struct {
	Title  string
	Me     *admin.Person
	Frame  *frame
	Notice string
	Bad    string
	Path   string // of the page, to mark it in the navigation
	Data   any
}

// write sends the answer. The page is rendered before anything is sent, so that
// a fault can still become a proper answer.
func (p *Pages) write(w http.ResponseWriter, r *http.Request, me *admin.Person, a answer) {
	header := w.Header()
	if a.cookie != nil {
		http.SetCookie(w, a.cookie)
	}
	if a.location != "" {
		header.Set("Location", a.location)
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	var b bytes.Buffer
	name, data := "layout", any(view{a.title, me, a.frame, a.notice, a.bad, r.URL.Path, a.data})
	if a.part != "" {
		name, data = a.part, a.data
	}
	if err := pages[a.page].ExecuteTemplate(&b, name, data); err != nil {
		slog.ErrorContext(r.Context(), "page failed", "page", a.page, "err", err)
		http.Error(w, "The page cannot be shown. The fault is logged.", http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", policy(a.forms))
	if a.retry > 0 {
		header.Set("Retry-After", strconv.Itoa(seconds(a.retry)))
	}
	w.WriteHeader(cmp.Or(a.status, http.StatusOK))
	page := b.Bytes()
	if a.frame != nil {
		page = bind(page, a.frame.ID)
	}
	w.Write(page) // fails only if the client has gone
}

// A fault is what the error page shows.
type fault struct {
	Title, Message, Fix string
	Request             string // id, of faults of the server

	Return   *destination // where the client takes errors, nil if it does not
	Location template.URL
}

// titles are those of error pages, by status.
var titles = map[int]string{
	http.StatusForbidden:           "This is not allowed",
	http.StatusNotFound:            "There is no such page",
	http.StatusTooManyRequests:     "Too many tries",
	http.StatusInternalServerError: "Something went wrong here",
}

// failure is the page that tells of err. It logs a fault of the server.
func failure(r *http.Request, err error) answer {
	if e, ok := errors.AsType[*oauth.RequestError](err); ok {
		f := fault{Title: "The app cannot be connected", Message: e.Message, Fix: e.Fix}
		if e.Location != "" {
			to := destinationOf(e.Location)
			f.Return = &to
			f.Location = template.URL(e.Location) // where the client has registered, which is no script
		}
		return answer{page: "error.html", title: f.Title, status: http.StatusBadRequest, data: f}
	}
	e := problem.Report(r.Context(), err)
	f := fault{Title: titles[e.Status()], Message: e.Message, Fix: e.Fix}
	if f.Title == "" {
		f.Title = "That did not work"
	}
	if e.Kind == problem.Internal {
		f.Message, f.Request = "The fault is ours, and it is in the server's log", access.RequestID(r.Context())
		f.Fix = "Try again. If it stays, tell the operator of this server."
	}
	return answer{page: "error.html", title: f.Title, status: e.Status(), data: f, retry: e.RetryAfter}
}

// refuse is the page that tells me of err, within the frame if that can be made.
func (p *Pages) refuse(r *http.Request, me *admin.Person, err error) answer {
	a := failure(r, err)
	if a.status >= http.StatusInternalServerError {
		return a
	}
	framed, ferr := p.framed(func(*http.Request, *admin.Person) (answer, error) { return a, nil })(r, me)
	if ferr != nil {
		return a
	}
	return framed
}

// upwards leads to the page whose form was sent to this address.
func upwards(r *http.Request, _ room) (answer, error) { return redirect(path.Dir(r.URL.Path)), nil }

func missing(*http.Request, *admin.Person) (answer, error) {
	return answer{}, problem.Errorf(problem.NotFound, "nothing is served at this address").WithFix("The first page says what there is.")
}
