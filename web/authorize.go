package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/problem"
)

// workspaceField names the chosen workspace, in the query and in the form.
const workspaceField = "workspace"

// A request is a request for consent, as far as it is known who is asked about
// what.
type request struct {
	oauth.AuthorizationRequest
	me    *admin.Person
	query url.Values // as the client sent it, without the choice of a workspace
}

// here returns the page's own URL, with the workspace if one is chosen.
func (q request) here(workspace string) string {
	query := q.query
	if workspace != "" {
		query = url.Values{workspaceField: {workspace}}
		for name, values := range q.query {
			query[name] = values
		}
	}
	return oauth.AuthorizePath + "?" + query.Encode()
}

// request reads the request for consent. If the browser has to go elsewhere
// first, elsewhere says where.
func (p *Pages) request(r *http.Request, me *admin.Person) (q request, elsewhere string, err error) {
	q = request{me: me, query: r.URL.Query()}
	q.query.Del(workspaceField) // ours, not the client's
	user := ""
	if me != nil {
		user = me.User.ID
	}
	q.AuthorizationRequest, err = p.OAuth.Authorize(r.Context(), q.query, user)
	elsewhere, failed := backToClient(err)
	if me == nil && (failed == nil || errors.Is(err, oauth.ErrLoginFirst)) {
		// Also before an error goes to a client: anybody can register one, and
		// would have this server lead strangers to wherever they like (RFC 9700
		// §4.11.2).
		return q, loginFor(q.here("")), nil
	}
	if elsewhere != "" && q.Client.Origin != oauth.Registered {
		// The person is told, and goes there if they like.
		return q, "", err
	}
	return q, elsewhere, failed
}

// backToClient returns where the browser takes the error, if the client is to
// hear of it.
func backToClient(err error) (string, error) {
	if e, ok := errors.AsType[*oauth.RequestError](err); ok && e.Location != "" {
		return e.Location, nil
	}
	return "", err
}

// membership returns the membership that the request is about: of the workspace
// that client or resource fix, of the only one, or of the chosen one. It is
// false if there is a choice to make.
func (q request) membership(chosen string) (access.Membership, bool, error) {
	of := q.me.Memberships
	if len(of) == 0 {
		return access.Membership{}, false, problem.Errorf(problem.Forbidden, "you do not belong to any workspace").
			WithFix("Ask an admin to add you to theirs, or log out and in as somebody else. Then start again in the app.")
	}
	if q.Workspace != "" {
		i := slices.IndexFunc(of, func(m access.Membership) bool { return m.Workspace.ID == q.Workspace })
		if i < 0 {
			return access.Membership{}, false, problem.Errorf(problem.Forbidden, "the app connects to a workspace that you do not belong to").
				WithFix("Log out and in as somebody who does, or ask an admin of that workspace to add you.")
		}
		return of[i], true, nil
	}
	if len(of) == 1 {
		return of[0], true, nil
	}
	i := slices.IndexFunc(of, func(m access.Membership) bool { return m.Workspace.ID == chosen })
	if i < 0 {
		return access.Membership{}, false, nil
	}
	return of[i], true, nil
}

// offer returns what the person may let the client do in the chosen workspace.
// If there is something else to show first, then is that.
func (p *Pages) offer(r *http.Request, me *admin.Person, chosen string) (q request, o oauth.Offer, then answer, err error) {
	q, elsewhere, err := p.request(r, me)
	if err != nil || elsewhere != "" {
		return q, o, redirect(elsewhere), err
	}
	m, ok, err := q.membership(chosen)
	if err != nil {
		return q, o, then, err
	}
	if !ok {
		return q, o, q.workspaces(), nil
	}
	user := me.User
	user.Role = m.Role
	o, err = p.OAuth.Offer(r.Context(), q.AuthorizationRequest, m.Workspace, user)
	elsewhere, err = backToClient(err)
	return q, o, redirect(elsewhere), err
}

// consent shows the request for consent.
func (p *Pages) consent(r *http.Request, me *admin.Person) (answer, error) {
	q, o, then, err := p.offer(r, me, r.URL.Query().Get(workspaceField))
	if err != nil || then.page != "" || then.location != "" {
		return then, err
	}
	return p.consentPage(r.Context(), q, o, "")
}

// decide takes the person's decision. Everything is checked again: what the
// form names is only a wish.
func (p *Pages) decide(r *http.Request, me *admin.Person) (answer, error) {
	chosen := r.PostForm.Get(workspaceField)
	if chosen == "" {
		chosen = r.URL.Query().Get(workspaceField)
	}
	q, o, then, err := p.offer(r, me, chosen)
	if err != nil || then.page != "" || then.location != "" {
		return then, err
	}
	if r.PostForm.Get("decision") == "preview" {
		return p.previewConsent(r, q, o)
	}
	if shown := r.PostForm.Get("shown"); shown != "" && shown != fingerprint(o) {
		return p.consentPage(r.Context(), q, o, "What this page says has changed while you were reading. Look again before you decide.")
	}
	var location string
	switch r.PostForm.Get("decision") {
	case "allow":
		location, err = p.OAuth.Allow(r.Context(), o, p.offered(o).scopes(r.PostForm))
	case "deny":
		location, err = p.OAuth.Deny(r.Context(), o)
	default:
		return p.consentPage(r.Context(), q, o, "Nothing is decided yet: choose Allow or Deny.")
	}
	if err == nil {
		return redirect(location), nil
	}
	location, err = backToClient(err)
	return redirect(location), err
}

// offered returns the bounds of an offer.
func (p *Pages) offered(o oauth.Offer) bounds {
	role := p.Catalog.RoleRights(o.User.Role)
	return bounds{catalog: p.Catalog, most: o.Most, own: o.Ceiling.Min(role), workspace: o.Workspace, admin: role.Full()}
}

// fingerprint identifies what the person must have seen to decide: who they
// are, which workspace, and what the client is and where it leads.
func fingerprint(o oauth.Offer) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{o.User.ID, o.Workspace.ID, o.Request.Client.ID, o.Request.Client.Name,
		o.Request.Client.Document.Digest, o.Request.RedirectURI}))
	return hex.EncodeToString(sum[:8])
}

// A workspacesPage asks which workspace the client shall have.
type workspacesPage struct {
	Client string
	Hidden []hiddenField // the client's request
	Radios []radio
	Who    who
}

// roleWord returns the role as a sentence has it.
func roleWord(r access.Role) string {
	if r == access.Member {
		return "a member"
	}
	return "an " + string(r) // owner, admin
}

// A hiddenField goes along with a form.
type hiddenField struct{ Name, Value string }

// who says who is logged in, and lets them be somebody else.
type who struct {
	Name, Email, Role string
	Next              string // where the browser goes after they have logged in again
}

func (q request) who(role access.Role) who {
	return who{q.me.User.Name, q.me.User.Email, string(role), q.here("")}
}

func (q request) workspaces() answer {
	page := workspacesPage{Client: q.Client.Name, Who: q.who("")}
	for name, values := range q.query {
		page.Hidden = append(page.Hidden, hiddenField{name, values[0]}) // repetitions were refused
	}
	slices.SortFunc(page.Hidden, func(a, b hiddenField) int { return strings.Compare(a.Name, b.Name) })
	for i, m := range q.me.Memberships {
		page.Radios = append(page.Radios, radio{Name: workspaceField, Value: m.Workspace.ID, Title: visibleText(m.Workspace.Name),
			Says: "You are " + roleWord(m.Role) + " there.", Checked: i == 0})
	}
	return answer{page: "workspaces.html", title: "Choose a workspace for " + visibleText(q.Client.Name), data: page, forms: formSources(q.RedirectURI)}
}

// A consentPage asks for consent.
type consentPage struct {
	Client    string
	Workspace string
	Who       who
	Other     string // the page that lets choose another workspace, "" if there is none
	Return    destination
	Verified  string // host of the client's own page, "" if there is none
	Admins    bool   // an admin has registered the client
	Key       string // the API key that has registered it, "" if none
	Changed   bool   // the client is not what the person consented to
	Again     *again // nil at the first consent
	Notice    string

	Action   string
	Chosen   string // workspace
	Shown    string // fingerprint
	Choice   choice
	Forecast *forecast // nil at the first consent
}

// again is what a repeated consent changes.
type again struct {
	Since   *moment
	Changes []change
	Partly  bool // it is about certain resources only
}

// makerKey returns the name of the API key that has registered the client, ""
// if none has: who holds the key knows the client's secret.
func makerKey(c oauth.Client) string {
	if c.Parent() == "" {
		return ""
	}
	return c.Maker.Name
}

// consentPage asks for consent. It selects what the client asked for if it said
// so, otherwise what the person had chosen before, otherwise that they are asked
// before every change.
func (p *Pages) consentPage(ctx context.Context, q request, o oauth.Offer, notice string) (answer, error) {
	selected := p.Catalog.Scopes(catalog.PresetRecommended)
	switch {
	case !q.Coarse:
		selected = q.Scopes
	case o.Grant != nil:
		selected = o.Grant.Scopes
	}
	return p.consentWith(ctx, q, o, notice, p.offered(o).cut(selected), !q.Coarse)
}

// previewConsent shows what the form would mean, and decides nothing.
func (p *Pages) previewConsent(r *http.Request, q request, o oauth.Offer) (answer, error) {
	a, err := p.consentWith(r.Context(), q, o, "", p.offered(o).scopes(r.PostForm), r.PostForm.Get(presetField) == customPreset)
	if err != nil {
		return answer{}, err
	}
	return previewed(r, a.data.(consentPage).Forecast, a), nil
}

// consentWith asks for consent with the scopes selected.
func (p *Pages) consentWith(ctx context.Context, q request, o oauth.Offer, notice string, selected []access.Scope, custom bool) (answer, error) {
	c := q.Client
	page := consentPage{
		Client: c.Name, Workspace: o.Workspace.Name, Who: q.who(o.User.Role),
		Return: destinationOf(q.RedirectURI), Verified: documentHost(c.ID), Admins: c.Origin == oauth.Registered, Key: makerKey(c),
		Changed: o.Changed, Notice: notice,
		Action: q.here(o.Workspace.ID), Chosen: o.Workspace.ID, Shown: fingerprint(o),
	}
	if q.Workspace == "" && len(q.me.Memberships) > 1 {
		page.Other = q.here("")
	}
	b := p.offered(o)
	page.Choice = b.choice(selected, custom)
	var err error
	if page.Forecast, err = p.consentForecast(ctx, q, o, selected); err != nil {
		return answer{}, err
	}
	if o.Grant != nil {
		page.Again = &again{momentOf(o.Grant.ConsentedAt, p.Now(), o.Workspace.TimeZone), b.changes(o.Grant.Scopes, selected, q.Scopes), !q.Coarse}
	}
	title := "Connect " + visibleText(c.Name) + " to " + visibleText(o.Workspace.Name)
	return answer{page: "consent.html", title: title, data: page, forms: formSources(q.RedirectURI)}, nil
}

// documentHost returns the host of the metadata document that the client is
// known by, "" if it is known otherwise.
func documentHost(client string) string {
	if u, err := url.Parse(client); err == nil && u.Scheme == "https" {
		return u.Host
	}
	return ""
}
