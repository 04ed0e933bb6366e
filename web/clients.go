package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/oauth"
	"trustpager/webhook"
)

// A clientRow is an OAuth client in the list.
type clientRow struct {
	ID, Name, Path string
	Origin         string // how it came to be
	Host           string // of its metadata document, "" if it has none
	Ceiling        string
	Resources      string
	Grants         int64
	Used           *moment
	Made           *moment
	Unused         bool // nobody's grant is in force
}

// A clientsPage lists the clients of the workspace.
type clientsPage struct {
	Tabs    []tab
	Free    bool
	Clients []clientRow
	Next    string
	Later   bool
	MCP     string
	Closed  bool // clients may not register themselves
	Hosts   string
	Closing tick
	Allowed field
}

// origins say how a client came to be.
var origins = map[oauth.Origin]string{
	oauth.Registered: "Registered by an admin",
	oauth.Metadata:   "Verified by its own page",
	oauth.Dynamic:    "Registered itself",
}

func (p *Pages) clients(r *http.Request, in room) (answer, error) {
	page, err := p.clientsPage(r, in)
	return answer{page: "clients.html", title: "OAuth clients", data: &page}, err
}

func (p *Pages) clientsPage(r *http.Request, in room) (clientsPage, error) {
	after := r.URL.Query().Get("after")
	clients, err := p.Admin.Clients(r.Context(), in.grant, after, keysOnPage+1)
	if err != nil {
		return clientsPage{}, err
	}
	settings := in.membership.Workspace.Settings
	page := clientsPage{Free: isFree(in), Later: after != "", MCP: p.BaseURL + "/mcp", Closed: settings.NoSelfRegistration, Hosts: strings.Join(settings.ClientHosts, "\n"),
		Closing: tick{Name: "no_self_registration", Value: "yes", Title: "Only clients that an admin has registered", Checked: settings.NoSelfRegistration,
			Says: "People can connect nothing else. What is connected already goes on."},
		Allowed: field{Name: "client_hosts", Label: "Or only clients of these hosts", Lines: 3, Value: strings.Join(settings.ClientHosts, "\n"),
			Hint: "One host a line, as in claude.ai. Empty means any."}}
	if len(clients) > keysOnPage {
		clients = clients[:keysOnPage]
		page.Next = clients[keysOnPage-1].Client.ID
	}
	for _, c := range clients {
		page.Clients = append(page.Clients, p.clientRow(c, in))
	}
	page.Tabs, err = p.tabs(r, in, clientsPath)
	return page, err
}

func (p *Pages) clientRow(c oauth.ClientInWorkspace, in room) clientRow {
	row := clientRow{ID: c.Client.ID, Name: c.Client.Name, Path: clientPath(c.Client.ID), Origin: origins[c.Client.Origin], Host: documentHost(c.Client.ID),
		Grants: c.Grants, Used: momentOf(c.LastUsedAt, p.Now(), in.zone()), Made: momentOf(c.Policy.CreatedAt, p.Now(), in.zone()), Unused: c.Grants == 0}
	if key := makerKey(c.Client); key != "" {
		row.Origin = "Registered with the key " + visibleText(key)
	}
	row.Ceiling, row.Resources = p.summaryOf(c.Policy.Ceiling)
	return row
}

// registration stores who may connect clients that no admin has registered.
func (p *Pages) registration(r *http.Request, in room) (answer, error) {
	w := in.membership.Workspace
	w.Settings.NoSelfRegistration = r.PostForm.Get("no_self_registration") == "yes"
	w.Settings.ClientHosts = strings.Fields(strings.ToLower(strings.ReplaceAll(r.PostForm.Get("client_hosts"), ",", " ")))
	err := p.Admin.UpdateWorkspace(r.Context(), in.grant, w)
	if err == nil {
		p.tell(r.Context(), "Saved. It holds for whoever connects from now on.")
		return redirect(clientsPath), nil
	}
	if !isFault(err) {
		return answer{}, err
	}
	page, perr := p.clientsPage(r, in)
	page.Closing.Checked, page.Allowed.Value = w.Settings.NoSelfRegistration, r.PostForm.Get("client_hosts")
	wrong, other := faults(err, "client_hosts")
	page.Allowed.Error = strings.TrimSpace(wrong["client_hosts"] + " " + other)
	return answer{page: "clients.html", title: "OAuth clients", status: http.StatusUnprocessableEntity, data: &page}, perr
}

// A clientForm registers or edits a client.
type clientForm struct {
	ID, Title, Action string
	Once              string
	Error             string
	Registers         bool // the admin says who it is; otherwise it said so itself
	Name              field
	Known             field
	Redirects         field
	Public, Itself    tick
	Choice            choice
	Tools             toolCount
	Forecast          *forecast // nil for a new client
	Rules             []string
	Limits            []field
	Hook              field
	Events            []tick
}

func (p *Pages) newClientForm(in room, c oauth.Client, policy oauth.Policy, hook *webhook.Endpoint) clientForm {
	f := clientForm{ID: c.ID, Title: "Register an OAuth client", Action: apiPath + "/clients/new", Registers: c.ID == "" || c.Origin == oauth.Registered,
		Name: field{Name: "name", Label: "Name", Type: "text", Value: c.Name, Autocomplete: "off", Required: true, Hint: "As people will see it when they are asked for consent."},
		Redirects: field{Name: "redirect_uris", Label: "Redirect URIs", Lines: 4, Value: strings.Join(c.RedirectURIs, "\n"),
			Hint: "One a line: where the browser returns to. They have to be exactly what the client uses; for localhost any port will do."},
		Public: tick{Name: "public", Value: "yes", Title: "Public: it has no secret", Says: "For programs on people’s own machines, which cannot keep one.", Checked: c.ID != "" && c.Public()},
		Itself: tick{Name: "client_credentials", Value: "yes", Title: "It may act for itself, without a person", Says: "Client credentials, within what is chosen below. Only with a secret.",
			Checked: slices.Contains(c.GrantTypes, oauth.GrantCredentials)},
		Choice: p.ceilingChoice(in, policy.Ceiling, false), Tools: p.toolsOf(in, policy.Ceiling, false), Rules: p.alwaysAsks(in.membership.Workspace),
		Limits: limitFields(limitText(policy.Limits.PerMinute), limitText(policy.Limits.PerDay), nil),
		Hook: field{Name: "webhook_url", Label: "Rejection webhook", Type: "url", Autocomplete: "off", Placeholder: "https://",
			Hint: "One for all its users: the reason and the request are sent there, signed. Empty means none."},
		Events: eventTicks(hook),
	}
	if c.ID != "" {
		f.Title, f.Action = visibleText(c.Name), clientPath(c.ID)
	} else {
		f.Known = field{Name: "known", Label: "Which client it is", Options: []option{{"", "Another one", true}},
			Hint: "Adds the redirect URIs that it is known to use."}
		for _, k := range oauth.KnownClients {
			f.Known.Options = append(f.Known.Options, option{Value: k.Name, Title: k.Title})
		}
	}
	if hook != nil {
		f.Hook.Value = hook.URL
	}
	return f
}

func (f clientForm) page(status int) answer {
	return answer{page: "client_form.html", title: f.Title, status: status, data: f}
}

// clientInput reads the form. Who a client is, is asked only of those that an
// admin registers.
func (p *Pages) clientInput(r *http.Request, in room, registers bool, hook *webhook.Endpoint) admin.ClientInput {
	form := r.PostForm
	input := admin.ClientInput{Scopes: scopeTexts(p.keyBounds(in).scopes(form)), Limits: limitsOf(form)}
	if registers {
		name, public, itself := form.Get("name"), form.Get("public") == "yes", form.Get("client_credentials") == "yes"
		redirects := strings.Fields(form.Get("redirect_uris"))
		for _, uri := range oauth.KnownRedirects(form.Get("known")) {
			if !slices.Contains(redirects, uri) {
				redirects = append(redirects, uri)
			}
		}
		input.Name, input.Public, input.ClientCredentials, input.RedirectURIs = &name, &public, &itself, &redirects
	}
	input.WebhookURL, input.WebhookEvents = hookInput(form, hook)
	return input
}

// refused shows the form again with what was sent and what is wrong with it.
func (f clientForm) refused(p *Pages, in room, form url.Values, err error) clientForm {
	f = f.sent(p, in, form, err)
	if f.Error == "" {
		f.Error = "Nothing is saved yet: correct what is marked."
	}
	return f
}

// sent returns the form with what was sent, and with what is wrong with it.
func (f clientForm) sent(p *Pages, in room, form url.Values, err error) clientForm {
	wrong, other := faults(err, "name", "redirect_uris", "client_credentials", perMinuteField, perDayField, "webhook_url")
	f.Error = strings.TrimSpace(other + " " + wrong["client_credentials"])
	f.Name.Value, f.Name.Error = form.Get("name"), wrong["name"]
	f.Redirects.Value, f.Redirects.Error = form.Get("redirect_uris"), wrong["redirect_uris"]
	f.Public.Checked, f.Itself.Checked = form.Get("public") == "yes", form.Get("client_credentials") == "yes"
	for i := range f.Known.Options {
		f.Known.Options[i].Selected = f.Known.Options[i].Value == form.Get("known")
	}
	f.Choice = p.ceilingChoice(in, p.keyBounds(in).scopes(form), form.Get(presetField) == customPreset)
	f.Limits = limitFields(form.Get(perMinuteField), form.Get(perDayField), wrong)
	f.Hook.Value, f.Hook.Error = form.Get("webhook_url"), hookFault(err, wrong)
	for i := range f.Events {
		f.Events[i].Checked = f.Events[i].Disabled || slices.Contains(form["webhook_events"], f.Events[i].Value)
	}
	return f
}

func (p *Pages) newClient(r *http.Request, in room) (answer, error) {
	f := p.newClientForm(in, oauth.Client{}, oauth.Policy{Ceiling: admin.DefaultCeiling(p.Catalog), Limits: access.DefaultLimits}, nil)
	f.Once = newOnce()
	return f.page(http.StatusOK), nil
}

func (p *Pages) revealClient(made admin.MadeClient, title string) answer {
	page := reveal{Title: title, Back: clientPath(made.Client.ID)}
	if s := string(made.Secret); s != "" {
		page.Secrets = append(page.Secrets, shownSecret{"secret", "Client secret", keepIt, s})
	}
	if made.Secret != "" || made.Client.Public() {
		page.Client, page.MCP = made.Client.ID, p.BaseURL+"/mcp"
	}
	if s := made.WebhookSecret.Text(); s != "" {
		page.Secrets = append(page.Secrets, shownSecret{"webhook-secret", "Webhook secret", "The receiver checks signatures with it. " + keepIt, s})
	}
	return answer{page: "reveal.html", title: title, data: page}
}

func (p *Pages) createClient(r *http.Request, in room) (answer, error) {
	once := r.PostForm.Get("once")
	if !p.takeOnce(r.Context(), once) {
		p.tell(r.Context(), "The form was sent before, and its client was registered then. Secrets are shown only once.")
		return redirect(clientsPath), nil
	}
	made, err := p.Admin.CreateClient(r.Context(), in.grant, p.clientInput(r, in, true, nil))
	if err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		f := p.newClientForm(in, oauth.Client{}, oauth.Policy{Limits: access.DefaultLimits}, nil).refused(p, in, r.PostForm, err)
		f.Once = newOnce()
		return f.page(http.StatusUnprocessableEntity), nil
	}
	return p.revealClient(made, "“"+visibleText(made.Client.Name)+"” is registered"), nil
}

// A clientPage shows one client, in one of two tabs.
type clientPage struct {
	Client    oauth.Client
	Origin    string
	Host      string
	Made      *moment
	Path      string
	Tabs      []tab
	Form      *clientForm // of the tab Scopes
	Tokens    []tokenRow  // of the tab Tokens
	Next      string
	OldUntil  *moment
	Hook      *hookState
	HasSecret bool
	Pausing   pausing
	Once      string
	Overlap   []option
}

// A tokenRow is what one user has granted the client.
type tokenRow struct {
	ID, User, Email     string
	Granted, Used, Ends *moment
	UsedFor             string
	May, Resources      string
	Revoked             bool
}

// clientAt returns the client that the path names, with its webhook, nil if it
// has none.
func (p *Pages) clientAt(r *http.Request, in room) (admin.MadeClient, *webhook.Endpoint, error) {
	c, err := p.Admin.Client(r.Context(), in.grant, r.PathValue("client"))
	if err != nil {
		return c, nil, err
	}
	hook, err := optional(p.Admin.ClientWebhook(r.Context(), in.grant, c.Client.ID))
	return c, hook, err
}

func (p *Pages) client(r *http.Request, in room) (answer, error) {
	c, hook, err := p.clientAt(r, in)
	if err != nil {
		return answer{}, err
	}
	page := p.clientPage(in, c.Client, c.Policy, hook)
	if r.URL.Query().Get("tab") != "tokens" {
		f := p.newClientForm(in, c.Client, c.Policy, hook)
		f.Forecast, err = p.clientForecast(r.Context(), in, c.Client.ID, c.Policy.Ceiling)
		page.Form = &f
		return page.page(http.StatusOK), err
	}
	page.Tabs[0].Here, page.Tabs[1].Here = false, true
	grants, err := p.Admin.Grants(r.Context(), in.grant, oauth.GrantQuery{Client: c.Client.ID, Before: r.URL.Query().Get("before"), Limit: keysOnPage + 1})
	if err != nil {
		return answer{}, err
	}
	if len(grants) > keysOnPage {
		grants = grants[:keysOnPage]
		page.Next = grants[keysOnPage-1].ID
	}
	for _, g := range grants {
		page.Tokens = append(page.Tokens, p.tokenRow(g, c.Policy, in))
	}
	return page.page(http.StatusOK), nil
}

func (p *Pages) tokenRow(g oauth.Grant, policy oauth.Policy, in room) tokenRow {
	now, zone := p.Now(), in.zone()
	row := tokenRow{ID: g.ID, User: g.UserName, Email: g.UserEmail, Granted: momentOf(g.ConsentedAt, now, zone), Used: momentOf(g.LastUsedAt, now, zone),
		UsedFor: g.LastUsedFor, Ends: momentOf(g.ExpiresAt, now, zone), Revoked: !g.RevokedAt.IsZero()}
	scopes := g.Scopes
	if g.User == "" {
		row.User, scopes = "The client for itself", policy.Ceiling
	}
	row.May, row.Resources = p.summaryOf(p.Catalog.Cut(scopes, access.RightsOf(policy.Ceiling)))
	return row
}

func (p *Pages) clientPage(in room, c oauth.Client, policy oauth.Policy, hook *webhook.Endpoint) clientPage {
	path := clientPath(c.ID)
	return clientPage{Client: c, Origin: origins[c.Origin], Host: documentHost(c.ID), Made: momentOf(policy.CreatedAt, p.Now(), in.zone()), Path: path,
		Tabs:     []tab{{Path: path, Title: "Scopes", Here: true}, {Path: path + "?tab=tokens", Title: "Tokens"}},
		OldUntil: p.ahead(c.OldUntil, in.zone()), Hook: p.hookState(hook, in, path+"/webhook"),
		Pausing: pausingOf(in, c.ID, path), HasSecret: c.Origin == oauth.Registered && !c.Public(), Once: newOnce(), Overlap: overlapOptions}
}

func (page clientPage) page(status int) answer {
	return answer{page: "client.html", title: visibleText(page.Client.Name), status: status, data: page}
}

func (p *Pages) updateClient(r *http.Request, in room) (answer, error) {
	c, hook, err := p.clientAt(r, in)
	if err != nil {
		return answer{}, err
	}
	registers := c.Client.Origin == oauth.Registered
	made, err := p.Admin.UpdateClient(r.Context(), in.grant, c.Client.ID, p.clientInput(r, in, registers, hook))
	if err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		page := p.clientPage(in, c.Client, c.Policy, hook)
		f := p.newClientForm(in, c.Client, c.Policy, hook).refused(p, in, r.PostForm, err)
		var ferr error
		if f.Forecast, ferr = p.clientForecast(r.Context(), in, c.Client.ID, p.keyBounds(in).scopes(r.PostForm)); ferr != nil {
			return answer{}, ferr
		}
		page.Form = &f
		return page.page(http.StatusUnprocessableEntity), nil
	}
	if made.WebhookSecret != nil || made.Secret != "" {
		return p.revealClient(made, "“"+visibleText(made.Client.Name)+"” is saved"), nil
	}
	p.tell(r.Context(), "Saved. It holds from the next request of each of its users on.")
	return redirect(clientPath(c.Client.ID)), nil
}

func (p *Pages) rotateClient(r *http.Request, in room) (answer, error) {
	id := r.PathValue("client")
	if !p.takeOnce(r.Context(), r.PostForm.Get("once")) {
		p.tell(r.Context(), "The form was sent before, and the secret was changed then. Rotate it again if you have not kept it.")
		return redirect(clientPath(id)), nil
	}
	made, err := p.Admin.RotateClient(r.Context(), in.grant, id, overlapOf(r))
	if err != nil {
		return answer{}, err
	}
	return p.revealClient(made, "“"+visibleText(made.Client.Name)+"” has a new secret"), nil
}

func clientDeletion(c oauth.Client, wrong bool) answer {
	base := clientPath(c.ID)
	return confirmDelete(typedDelete{Title: "Remove “" + visibleText(c.Name) + "” from the workspace", Name: c.Name, Action: base + "/delete", Back: base,
		Says: []string{"All its grants and tokens end with it: its next request is refused with 401, for everybody who has connected it.",
			"What it has asked for and nobody has decided is withdrawn."}}, wrong)
}

func (p *Pages) confirmDeleteClient(r *http.Request, in room) (answer, error) {
	c, _, err := p.clientAt(r, in)
	return clientDeletion(c.Client, false), err
}

func (p *Pages) deleteClient(r *http.Request, in room) (answer, error) {
	c, _, err := p.clientAt(r, in)
	if err != nil {
		return answer{}, err
	}
	if !typed(r, c.Client.Name) {
		return clientDeletion(c.Client, true), nil
	}
	if err := p.Admin.DeleteClient(r.Context(), in.grant, c.Client.ID); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "“"+visibleText(c.Client.Name)+"” is removed, with all its tokens.")
	return redirect(clientsPath), nil
}

// revokeToken ends one user's grant to the client.
func (p *Pages) revokeToken(r *http.Request, in room) (answer, error) {
	g, err := p.Admin.RevokeGrant(r.Context(), in.grant, r.PathValue("grant"))
	if err != nil {
		return answer{}, err
	}
	who := visibleText(g.UserName)
	if g.User == "" {
		who = "the client itself"
	}
	p.tell(r.Context(), "The tokens for "+who+" are revoked: the next request is refused with 401.")
	return redirect(clientPath(g.Client) + "?tab=tokens"), nil
}

// revokeTokens ends all grants to the client.
func (p *Pages) revokeTokens(r *http.Request, in room) (answer, error) {
	id := r.PathValue("client")
	n, err := p.Admin.RevokeGrants(r.Context(), in.grant, id, "")
	if err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), plural(n, "grant")+" revoked. People can connect it again unless you remove it.")
	return redirect(clientPath(id) + "?tab=tokens"), nil
}

// A tokenPage narrows one user's grant.
type tokenPage struct {
	tokenRow
	Client, Back, Action string
	Choice               choice
	Forecast             *forecast
}

// narrowing returns the bounds within which an admin changes a user's grant:
// what there is.
func (p *Pages) narrowing(r *http.Request, in room) (oauth.Grant, bounds, error) {
	g, err := p.Admin.Grant(r.Context(), in.grant, r.PathValue("grant"))
	if err != nil {
		return g, bounds{}, err
	}
	most, err := p.Admin.GrantBounds(r.Context(), in.grant, g.ID)
	if g.User != in.me.User.ID {
		most = most.Min(access.RightsOf(g.Scopes))
	}
	return g, bounds{catalog: p.Catalog, most: most, own: most, workspace: in.membership.Workspace, admin: true}, err
}

func (p *Pages) token(r *http.Request, in room) (answer, error) {
	g, b, err := p.narrowing(r, in)
	if err != nil {
		return answer{}, err
	}
	return p.tokenPage(r, in, g, b, g.Scopes, false)
}

// tokenPage shows a user's grant with the scopes selected.
func (p *Pages) tokenPage(r *http.Request, in room, g oauth.Grant, b bounds, selected []access.Scope, custom bool) (answer, error) {
	c := b.choice(selected, custom)
	for i, r := range c.Presets {
		c.Presets[i].Title = keyPresets[r.Value].Title // what it says is of what is left of it
	}
	page := tokenPage{tokenRow: p.tokenRow(g, oauth.Policy{Ceiling: g.Scopes}, in), Client: g.ClientName, Back: clientPath(g.Client) + "?tab=tokens",
		Action: apiPath + "/grants/" + g.ID, Choice: c}
	var err error
	if page.Forecast, err = p.grantForecast(r.Context(), in.grant, g.ID, selected, page.Action); err != nil {
		return answer{}, err
	}
	return answer{page: "token.html", title: visibleText(g.ClientName) + " for " + page.User, data: page}, nil
}

// previewToken shows what the form would mean, and saves nothing.
func (p *Pages) previewToken(r *http.Request, in room) (answer, error) {
	g, b, err := p.narrowing(r, in)
	if err != nil {
		return answer{}, err
	}
	a, err := p.tokenPage(r, in, g, b, b.scopes(r.PostForm), r.PostForm.Get(presetField) == customPreset)
	if err != nil {
		return answer{}, err
	}
	return previewed(r, a.data.(tokenPage).Forecast, a), nil
}

func (p *Pages) narrowToken(r *http.Request, in room) (answer, error) {
	g, b, err := p.narrowing(r, in)
	if err != nil {
		return answer{}, err
	}
	if _, err := p.Admin.UpdateGrant(r.Context(), in.grant, g.ID, b.scopes(r.PostForm)); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "Saved. It holds from the next request on.")
	return redirect(clientPath(g.Client) + "?tab=tokens"), nil
}
