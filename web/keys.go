package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/webhook"
)

// keysOnPage is how many keys, or clients, one page lists.
const keysOnPage = 50

// A keyRow is a key in the list.
type keyRow struct {
	ID, Name, Last4 string
	By              string
	Made            *moment
	May             string // what it may do, in a few words
	Resources       string
	Spark           spark
	Used            *moment
	UsedFor         string
	Expires         *moment
	Status          status
	OldUntil        *moment // until when the secret before works too, nil if it does not
	Hints           []string
}

// A status is a word with its colour.
type status struct{ Word, Class string }

// A keysPage lists the keys.
type keysPage struct {
	Tabs  []tab
	Free  bool
	Keys  []keyRow
	Next  string // the id after which the next page begins, "" if this is the last
	Later bool   // this is not the first page
	Curl  string
}

func (p *Pages) keys(r *http.Request, in room) (answer, error) {
	after := r.URL.Query().Get("after")
	keys, err := p.Admin.Keys(r.Context(), in.grant, after, keysOnPage+1)
	if err != nil {
		return answer{}, err
	}
	page := keysPage{Free: isFree(in), Later: after != ""}
	if len(keys) > keysOnPage {
		keys = keys[:keysOnPage]
		page.Next = keys[keysOnPage-1].ID
	}
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	sparks, err := p.sparks(r, in, ids)
	if err != nil {
		return answer{}, err
	}
	for _, k := range keys {
		row := p.keyRow(k, in)
		row.Spark = sparks[k.ID]
		page.Keys = append(page.Keys, row)
	}
	a := answer{page: "keys.html", title: "API keys", data: &page}
	page.Tabs, err = p.tabs(r, in, keysPath)
	return a, err
}

// tabs returns the tabs, with how many approvals wait.
func (p *Pages) tabs(r *http.Request, in room, here string) ([]tab, error) {
	waiting, err := p.Gate.Waiting(r.Context(), in.grant)
	return apiTabs(in, here, waiting), err
}

// unusedDays is after how many days without use a key is worth a hint.
const unusedDays = 90

func (p *Pages) keyRow(k access.Key, in room) keyRow {
	now, zone := p.Now(), in.zone()
	row := keyRow{ID: k.ID, Name: k.Name, Last4: k.Last4, By: k.CreatedBy.Name, Made: momentOf(k.CreatedAt, now, zone),
		OldUntil: p.ahead(k.OldSecretUntil, zone), Used: momentOf(k.LastUsedAt, now, zone), UsedFor: k.LastUsedFor, Expires: momentOf(k.ExpiresAt, now, zone), Status: statusOf(k, now)}
	if _, paused := k.Grant(in.membership.Workspace).Paused(); paused && row.Status.Word == "Active" {
		row.Status = status{"Paused", "wait"}
	}
	row.May, row.Resources = p.summary(k)
	since := k.LastUsedAt
	if since.IsZero() {
		since = k.CreatedAt
	}
	if row.Status.Word == "Active" {
		if now.Sub(since) > unusedDays*24*time.Hour {
			row.Hints = append(row.Hints, fmt.Sprintf("Unused for %d days: revoke it if nobody needs it.", int(now.Sub(since).Hours()/24)))
		}
		if k.FullAccess && k.ExpiresAt.IsZero() {
			row.Hints = append(row.Hints, "Full access without an expiry.")
		} else if k.ExpiresAt.IsZero() {
			row.Hints = append(row.Hints, "No expiry.")
		}
	}
	return row
}

func statusOf(k access.Key, now time.Time) status {
	switch {
	case !k.RevokedAt.IsZero():
		return status{"Revoked", "bad"}
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return status{"Expired", "bad"}
	}
	return status{"Active", "good"}
}

// summary says in a few words what the key may do, and on how much.
func (p *Pages) summary(k access.Key) (may, resources string) {
	switch {
	case k.MayDecide:
		return "Full access, may decide", ""
	case k.FullAccess:
		return "Full access", ""
	}
	return p.summaryOf(k.Scopes)
}

func (p *Pages) summaryOf(scopes []access.Scope) (may, resources string) {
	b := bounds{catalog: p.Catalog, most: access.FullRights}
	held := access.FormatScopes(b.cut(scopes))
	for _, c := range presetChoices {
		if access.FormatScopes(b.cut(p.Catalog.Scopes(c.preset))) == held {
			return c.preset.Title(), ""
		}
	}
	rights := access.RightsOf(scopes)
	var names, titles []string
	for _, res := range p.Catalog.Resources() {
		if at := positionOf(res, rights); at.Name != "" && at.Name != res.Ladder.Positions()[0].Name {
			names, titles = append(names, res.Label), append(titles, at.Title)
		}
	}
	switch {
	case len(names) == 0:
		return "Nothing", ""
	case len(names) == 1:
		return names[0] + ": " + inSentence(titles[0]), ""
	case len(slices.Compact(slices.Clone(titles))) == 1:
		return titles[0], plural(len(names), "resource")
	}
	return "Custom", plural(len(names), "resource")
}

// A keyForm creates or edits a key.
type keyForm struct {
	ID, Title string // ID is "" for a new key
	Action    string
	Once      string // names the form, so that sending it twice makes one key
	Error     string
	Name      field
	Modes     []radio
	Decide    tick
	Choice    choice
	Limits    []field
	Expiry    field
	Until     field
	Hook      field
	Events    []tick
	Tools     toolCount
	Forecast  *forecast // nil for a new key
	Rules     []string  // what always waits in the workspace
}

// A toolCount says what the key sees, for the stored scopes; the page's module
// counts anew as they are chosen.
type toolCount struct {
	Base, Search, Ask      int // those that every key has, that any resource brings with it, and that any right beyond reading does: these wait
	AllTools, AllWaits     int // with full access
	ShownTools, ShownWaits int
}

// The values of the form's fields.
const (
	modeFull, modeScopes = "full", "scopes"
	expiryNever          = "never"
	expiryUntil          = "until"
	dayForm              = "2006-01-02"
)

// expiryDays are the lives of a key that the form offers.
var expiryDays = []int{30, 90, 365}

// keyPresets are the presets as keys have them: who is asked is an admin.
var keyPresets = map[string]radio{
	string(catalog.PresetRead):        {Title: "Read only", Says: "It sees all records and messages, and changes nothing."},
	string(catalog.PresetRecommended): {Title: catalog.PresetRecommended.Title(), Says: "It reads by itself. Writing, deleting, sending and AI wait for a person."},
	string(catalog.PresetAct):         {Title: catalog.PresetAct.Title(), Says: "It reads and writes by itself. Deleting and sending wait for a person."},
	customPreset:                      {Title: "Custom", Says: "Choose a position for each resource."},
}

// keyBounds are what an admin can give a key: everything.
func (p *Pages) keyBounds(in room) bounds {
	return bounds{catalog: p.Catalog, most: access.FullRights, own: access.FullRights, workspace: in.membership.Workspace, admin: true}
}

// ceilingChoice returns the form of scopes that an admin gives.
func (p *Pages) ceilingChoice(in room, scopes []access.Scope, custom bool) choice {
	c := p.keyBounds(in).choice(scopes, custom)
	for i, r := range c.Presets {
		c.Presets[i].Title, c.Presets[i].Says = keyPresets[r.Value].Title, keyPresets[r.Value].Says
	}
	return c
}

// approvalTools is how many tools follow up approvals; every credential has
// them.
const approvalTools = 3

// toolsOf counts the tools that the scopes give.
func (p *Pages) toolsOf(in room, scopes []access.Scope, full bool) toolCount {
	w := in.membership.Workspace
	c := toolCount{Base: approvalTools, Search: 1, Ask: 1}
	c.AllTools, c.AllWaits = countTools(p.Catalog.Actions(), access.Grant{Workspace: w, Rights: access.FullRights})
	c.ShownTools, c.ShownWaits = countTools(p.Catalog.Actions(), access.Grant{Workspace: w, Rights: access.RightsOf(scopes)})
	c.AllTools, c.ShownTools = c.AllTools+c.Base, c.ShownTools+c.Base
	if full {
		c.ShownTools, c.ShownWaits = c.AllTools, c.AllWaits
	}
	return c
}

// alwaysAsks says what waits in the workspace whatever a credential holds.
func (p *Pages) alwaysAsks(w access.Workspace) []string {
	var says []string
	for _, m := range w.Settings.AlwaysAsk {
		if res, ok := p.Catalog.Resource(m.Resource); ok {
			says = append(says, res.Label+": "+m.Verb)
		}
	}
	return says
}

// newKeyForm returns the form with what k has.
func (p *Pages) newKeyForm(in room, k access.Key, hook *webhook.Endpoint) keyForm {
	f := keyForm{ID: k.ID, Name: field{Name: "name", Label: "Name", Type: "text", Value: k.Name, Autocomplete: "off", Required: true,
		Hint: "What uses it, as people will see it on approvals: “Night sync”, “Sales agent”."},
		Title: "Create an API key", Action: apiPath + "/keys/new",
		Modes: []radio{
			{Name: "mode", Value: modeScopes, Title: "Custom scopes", Says: "A position on the ladder for each resource.", Checked: !k.FullAccess},
			{Name: "mode", Value: modeFull, Title: "Full access (admin)", Says: "Everything that an admin can do, keys included. Only for what you fully trust.", Checked: k.FullAccess},
		},
		Decide: tick{Name: "may_decide", Value: "yes", Title: "May decide approvals", Says: "It may approve and reject what other credentials asked for, never its own requests.", Checked: k.MayDecide},
		Choice: p.ceilingChoice(in, k.Scopes, false),
		Limits: limitFields(limitText(k.Limits.PerMinute), limitText(k.Limits.PerDay), nil),
		Hook: field{Name: "webhook_url", Label: "Rejection webhook", Type: "url", Autocomplete: "off", Placeholder: "https://",
			Hint: "When a person rejects a request, its reason and the request are sent there, signed. Empty means none."},
		Tools: p.toolsOf(in, k.Scopes, k.FullAccess), Rules: p.alwaysAsks(in.membership.Workspace),
	}
	if k.ID != "" {
		f.Title, f.Action = "Edit "+visibleText(k.Name), apiPath+"/keys/"+k.ID
	}
	f.Expiry, f.Until = p.expiryFields(in, k)
	f.Events = eventTicks(hook)
	if hook != nil {
		f.Hook.Value = hook.URL
	}
	return f
}

// expiryFields returns the choice of an expiry, and of its day.
func (p *Pages) expiryFields(in room, k access.Key) (choice, until field) {
	choice = field{Name: "expiry", Label: "Expires", Options: []option{{expiryNever, "Never", k.ExpiresAt.IsZero()}}}
	for _, d := range expiryDays {
		choice.Options = append(choice.Options, option{Value: fmt.Sprint(d), Title: fmt.Sprintf("In %d days", d)})
	}
	choice.Options = append(choice.Options, option{expiryUntil, "At the end of a day…", !k.ExpiresAt.IsZero()})
	until = field{Name: "expires_at", Label: "Last day", Type: "date", Hint: "Only with “At the end of a day”, in the workspace’s time zone."}
	if !k.ExpiresAt.IsZero() {
		until.Value = k.ExpiresAt.Add(-time.Second).In(location(in.zone())).Format(dayForm)
	}
	return choice, until
}

// eventWords are the events as people read them.
var eventWords = map[webhook.EventType]string{
	webhook.ApprovalRejected: "Rejected (always)",
	webhook.ApprovalApproved: "Approved",
	webhook.ApprovalExecuted: "Executed",
	webhook.ApprovalFailed:   "Approved, but failed",
	webhook.ApprovalExpired:  "Expired undecided",
}

func eventTicks(hook *webhook.Endpoint) []tick {
	var ticks []tick
	for _, e := range webhook.EventTypes {
		always := e == webhook.ApprovalRejected
		ticks = append(ticks, tick{Name: "webhook_events", Value: string(e), Title: eventWords[e],
			Checked: always || hook != nil && slices.Contains(hook.Events, e), Disabled: always})
	}
	return ticks
}

// eventsOf reads the ticked events.
func eventsOf(form url.Values) []webhook.EventType {
	events := []webhook.EventType{}
	for _, e := range form["webhook_events"] {
		events = append(events, webhook.EventType(e))
	}
	return events
}

// keyInput reads the form. The webhook is only named if it differs from the one
// that there is, because naming it gives it a new secret.
func (p *Pages) keyInput(r *http.Request, in room, hook *webhook.Endpoint, old access.Key) (admin.KeyInput, error) {
	form := r.PostForm
	name, full := form.Get("name"), form.Get("mode") == modeFull
	decide := full && form.Get("may_decide") == "yes"
	input := admin.KeyInput{Name: &name, FullAccess: &full, MayDecide: &decide, Limits: limitsOf(form), Scopes: new([]string)}
	if !full {
		input.Scopes = scopeTexts(p.keyBounds(in).scopes(form))
	}
	expires, err := p.expiryOf(form, in.zone())
	if err != nil {
		return input, err
	}
	if form.Has("expiry") && !expires.Equal(old.ExpiresAt) {
		input.ExpiresAt = &expires
	}
	input.WebhookURL, input.WebhookEvents = hookInput(form, hook)
	return input, nil
}

// hookInput returns what the form changes about the webhook, nil if nothing.
func hookInput(form url.Values, hook *webhook.Endpoint) (*string, *[]webhook.EventType) {
	if !form.Has("webhook_url") {
		return nil, nil
	}
	to, events := strings.TrimSpace(form.Get("webhook_url")), eventsOf(form)
	if hook == nil && to == "" {
		return nil, nil
	}
	if hook != nil && hook.URL == to && hook.DisabledAt.IsZero() {
		all := append(slices.Clone(events), webhook.ApprovalRejected)
		slices.Sort(all)
		if slices.Equal(slices.Compact(all), hook.Events) {
			return nil, nil
		}
	}
	if to == "" {
		return &to, nil
	}
	return &to, &events
}

// expiryOf reads the expiry; the zero time is never.
func (p *Pages) expiryOf(form url.Values, zone string) (time.Time, error) {
	switch choice := form.Get("expiry"); choice {
	case expiryNever, "":
		return time.Time{}, nil
	case expiryUntil:
		day, err := time.ParseInLocation(dayForm, strings.TrimSpace(form.Get("expires_at")), location(zone))
		if err != nil {
			return time.Time{}, wrongField("expires_at", "a day, as in 2027-03-31", form.Get("expires_at"))
		}
		return day.AddDate(0, 0, 1), nil
	default:
		for _, d := range expiryDays {
			if choice == fmt.Sprint(d) {
				return p.Now().AddDate(0, 0, d), nil
			}
		}
		return time.Time{}, wrongField("expiry", "one of the choices", choice)
	}
}

// wrongField says what is wrong with one field of a form.
func wrongField(name, expected, got string) error {
	return &problem.Error{Kind: problem.Validation, Message: "the form cannot be taken like that", Fix: "Correct the fields that are marked.",
		Fields: []problem.Field{{Path: name, Expected: expected, Got: fmt.Sprintf("%.100q", got)}}}
}

// location returns the zone, UTC if there is no such zone.
func location(zone string) *time.Location {
	at, err := time.LoadLocation(zone)
	if err != nil {
		return time.UTC
	}
	return at
}

// hookFault says what is wrong with the webhook's URL: the cause, where it is the
// only fault.
func hookFault(err error, wrong map[string]string) string {
	if e := problem.Of(err); wrong["webhook_url"] != "" && len(e.Fields) == 1 {
		return sentence(e.Message) + " " + e.Fix
	}
	return wrong["webhook_url"]
}

// refused shows the form again with what was sent and what is wrong with it.
func (f keyForm) refused(r *http.Request, p *Pages, in room, err error) answer {
	f = f.sent(r, p, in, err)
	if f.Error == "" {
		f.Error = "Nothing is saved yet: correct what is marked."
	}
	return f.page(http.StatusUnprocessableEntity)
}

// sent returns the form with what was sent, and with what is wrong with it.
func (f keyForm) sent(r *http.Request, p *Pages, in room, err error) keyForm {
	wrong, other := faults(err, "name", perMinuteField, perDayField, "webhook_url", "expires_at", "expiry")
	form := r.PostForm
	f.Error = other
	f.Name.Value, f.Name.Error = form.Get("name"), wrong["name"]
	for i := range f.Modes {
		f.Modes[i].Checked = f.Modes[i].Value == form.Get("mode")
	}
	f.Decide.Checked = form.Get("may_decide") == "yes"
	f.Choice = p.ceilingChoice(in, p.keyBounds(in).scopes(form), form.Get(presetField) == customPreset)
	f.Limits = limitFields(form.Get(perMinuteField), form.Get(perDayField), wrong)
	f.Hook.Value, f.Hook.Error = form.Get("webhook_url"), hookFault(err, wrong)
	for i := range f.Events {
		f.Events[i].Checked = f.Events[i].Disabled || slices.Contains(form["webhook_events"], f.Events[i].Value)
	}
	for i := range f.Expiry.Options {
		f.Expiry.Options[i].Selected = f.Expiry.Options[i].Value == form.Get("expiry")
	}
	f.Until.Value, f.Until.Error, f.Expiry.Error = form.Get("expires_at"), wrong["expires_at"], wrong["expiry"]
	return f
}

func (f keyForm) page(status int) answer {
	return answer{page: "key_form.html", title: f.Title, status: status, data: f}
}

func (p *Pages) newKey(r *http.Request, in room) (answer, error) {
	f := p.newKeyForm(in, access.Key{Limits: access.DefaultLimits, Scopes: p.Catalog.Scopes(catalog.PresetRecommended)}, nil)
	f.Once = newOnce()
	return f.page(http.StatusOK), nil
}

// A reveal shows secrets, once.
type reveal struct {
	Title, Back string
	Lead        string
	Secrets     []shownSecret
	Claude      string // the command that connects Claude Code with it
	Curl        string // a command that uses the first secret, "" if there is none
	MCP         string // the MCP URL, where it belongs to the secret
	Client      string // the client's id, where it belongs to the secret
}

// A shownSecret is a secret with what it is for.
type shownSecret struct{ ID, Label, Says, Value string }

const keepIt = "It is shown only now. Keep it in a password manager or a vault; if it is lost, rotate it."

func (p *Pages) revealKey(made admin.MadeKey, title string) answer {
	page := reveal{Title: title, Back: apiPath + "/keys/" + made.Key.ID}
	if s := string(made.Secret); s != "" {
		page.Secrets = append(page.Secrets, shownSecret{"secret", "API key", keepIt, s})
		page.Claude = "claude mcp add --transport http trustpager " + p.BaseURL + "/mcp --header \"Authorization: Bearer " + s + "\""
		page.Curl = "curl -s " + p.BaseURL + "/v1/me -H \"Authorization: Bearer " + s + "\""
	}
	if s := made.WebhookSecret.Text(); s != "" {
		page.Secrets = append(page.Secrets, shownSecret{"webhook-secret", "Webhook secret", "The receiver checks signatures with it. " + keepIt, s})
	}
	return answer{page: "reveal.html", title: title, data: page}
}

func (p *Pages) createKey(r *http.Request, in room) (answer, error) {
	f := p.newKeyForm(in, access.Key{Limits: access.DefaultLimits}, nil)
	f.Once = r.PostForm.Get("once")
	input, err := p.keyInput(r, in, nil, access.Key{})
	if err == nil && !p.takeOnce(r.Context(), f.Once) {
		p.tell(r.Context(), "The form was sent before, and its key was made then. Secrets are shown only once.")
		return redirect(keysPath), nil
	}
	var made admin.MadeKey
	if err == nil {
		made, err = p.Admin.CreateKey(r.Context(), in.grant, input)
	}
	if err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		f.Once = newOnce()
		return f.refused(r, p, in, err), nil
	}
	return p.revealKey(made, "“"+visibleText(made.Key.Name)+"” is made"), nil
}

// A keyPage shows one key.
type keyPage struct {
	keyRow
	Form    keyForm
	Overlap []option
	Once    string
	Hook    *hookState
	Usage   string
	Active  bool
	Parent  string // the key that made it
	Lent    []loanRow
	Pausing pausing
}

// pausing is the form that pauses or resumes one credential.
type pausing struct {
	Credential, Next string
	Paused           bool
	With             string // the key with which it was paused, and resumes
}

func pausingOf(in room, credential, next string) pausing {
	p := pausing{Credential: credential, Next: next}
	for _, pause := range in.membership.Workspace.Settings.Paused {
		if pause.Credential != credential {
			continue
		}
		p.Paused = true
		if p.With = pause.With; p.With == "" {
			break
		}
	}
	return p
}

// A hookState is how a webhook stands.
type hookState struct {
	URL      string
	Disabled string // why it is disabled, "" if it is not
	Base     string // where its pages are
	OldUntil *moment
}

func (p *Pages) hookState(e *webhook.Endpoint, in room, base string) *hookState {
	if e == nil {
		return nil
	}
	return &hookState{e.URL, e.DisabledReason, base, p.ahead(e.OldSecretUntil, in.zone())}
}

// keyAt returns the key that the path names, with its webhook, nil if it has
// none.
func (p *Pages) keyAt(r *http.Request, in room) (access.Key, *webhook.Endpoint, error) {
	k, err := p.Admin.Key(r.Context(), in.grant, r.PathValue("key"))
	if err != nil {
		return k, nil, err
	}
	hook, err := optional(p.Admin.Webhook(r.Context(), in.grant, k.ID))
	return k, hook, err
}

// optional is nil for what is not found.
func optional[T any](v T, err error) (*T, error) {
	if problem.Is(err, problem.NotFound) {
		return nil, nil
	}
	return &v, err
}

func (p *Pages) key(r *http.Request, in room) (answer, error) {
	k, hook, err := p.keyAt(r, in)
	if err != nil {
		return answer{}, err
	}
	form := p.newKeyForm(in, k, hook)
	if form.Forecast, err = p.keyForecast(r.Context(), in, k.ID, k.FullAccess, k.Scopes); err != nil {
		return answer{}, err
	}
	page := p.keyPage(in, k, hook, form)
	page.Lent, err = p.lent(r.Context(), in, k.ID)
	return page.page(http.StatusOK), err
}

func (p *Pages) keyPage(in room, k access.Key, hook *webhook.Endpoint, f keyForm) keyPage {
	base := apiPath + "/keys/" + k.ID
	return keyPage{keyRow: p.keyRow(k, in), Form: f, Overlap: overlapOptions, Hook: p.hookState(hook, in, base+"/webhook"), Usage: base + "/usage",
		Active: statusOf(k, p.Now()).Word == "Active", Once: newOnce(), Parent: k.Parent, Pausing: pausingOf(in, k.ID, base)}
}

func (page keyPage) page(status int) answer {
	return answer{page: "key.html", title: visibleText(page.Name), status: status, data: page}
}

func (p *Pages) updateKey(r *http.Request, in room) (answer, error) {
	k, hook, err := p.keyAt(r, in)
	if err != nil {
		return answer{}, err
	}
	input, err := p.keyInput(r, in, hook, k)
	var made admin.MadeKey
	if err == nil {
		made, err = p.Admin.UpdateKey(r.Context(), in.grant, k.ID, input)
	}
	if err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		f := p.newKeyForm(in, k, hook)
		var ferr error
		if f.Forecast, ferr = p.keyForecast(r.Context(), in, k.ID, r.PostForm.Get("mode") == modeFull, p.keyBounds(in).scopes(r.PostForm)); ferr != nil {
			return answer{}, ferr
		}
		a := f.refused(r, p, in, err)
		return p.keyPage(in, k, hook, a.data.(keyForm)).page(a.status), nil
	}
	if made.WebhookSecret != nil {
		return p.revealKey(made, "The webhook of “"+visibleText(made.Key.Name)+"” is set"), nil
	}
	p.tell(r.Context(), "Saved. It holds from the next request of “"+visibleText(made.Key.Name)+"” on.")
	return redirect(apiPath + "/keys/" + k.ID), nil
}

// ahead is the moment of a time that is still to come, nil for others.
func (p *Pages) ahead(t time.Time, zone string) *moment {
	if !t.After(p.Now()) {
		return nil
	}
	return momentOf(t, p.Now(), zone)
}

func (p *Pages) revokeKey(r *http.Request, in room) (answer, error) {
	k, err := p.Admin.RevokeKey(r.Context(), in.grant, r.PathValue("key"))
	if err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "“"+visibleText(k.Name)+"” is revoked: its next request is refused with 401, and so are those of the keys that it has made. What it asked for cannot be approved any more.")
	return redirect(apiPath + "/keys/" + k.ID), nil
}

func (p *Pages) activateKey(r *http.Request, in room) (answer, error) {
	k, err := p.Admin.ActivateKey(r.Context(), in.grant, r.PathValue("key"))
	if err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "“"+visibleText(k.Name)+"” is active again.")
	return redirect(apiPath + "/keys/" + k.ID), nil
}

func (p *Pages) rotateKey(r *http.Request, in room) (answer, error) {
	if !p.takeOnce(r.Context(), r.PostForm.Get("once")) {
		p.tell(r.Context(), "The form was sent before, and the key was rotated then. Rotate it again if you have not kept the secret.")
		return redirect(apiPath + "/keys/" + r.PathValue("key")), nil
	}
	made, err := p.Admin.RotateKey(r.Context(), in.grant, r.PathValue("key"), overlapOf(r))
	if err != nil {
		return answer{}, err
	}
	return p.revealKey(made, "“"+visibleText(made.Key.Name)+"” has a new secret"), nil
}

func (p *Pages) endOverlap(r *http.Request, in room) (answer, error) {
	k, err := p.Admin.EndOverlap(r.Context(), in.grant, r.PathValue("key"))
	if err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "The old secret of “"+visibleText(k.Name)+"” is refused from now on.")
	return redirect(apiPath + "/keys/" + k.ID), nil
}

func (p *Pages) keyDeletion(k access.Key, wrong bool) answer {
	base := apiPath + "/keys/" + k.ID
	return confirmDelete(typedDelete{Title: "Delete “" + visibleText(k.Name) + "” for good", Name: k.Name, Action: base + "/delete", Back: base,
		Says: []string{"Its usage history goes with it, and so do the keys that it has made.",
			"What it has asked for and nobody has decided is withdrawn.",
			"To stop it and keep the record, revoke it instead."}}, wrong)
}

func (p *Pages) confirmDeleteKey(r *http.Request, in room) (answer, error) {
	k, _, err := p.keyAt(r, in)
	return p.keyDeletion(k, false), err
}

func (p *Pages) deleteKey(r *http.Request, in room) (answer, error) {
	k, _, err := p.keyAt(r, in)
	if err != nil {
		return answer{}, err
	}
	if !typed(r, k.Name) {
		return p.keyDeletion(k, true), nil
	}
	if err := p.Admin.DeleteKey(r.Context(), in.grant, k.ID); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "“"+visibleText(k.Name)+"” is deleted.")
	return redirect(keysPath), nil
}
