package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/webhook"
)

// The webhooks of the workspace: which servers are told of which events.

const webhooksPath = "/settings/webhooks"

// A webhookRow is a webhook in the list.
type webhookRow struct {
	ID, Name, URL string
	Events        []string
	More          int // events that are not shown
	Creator       string
	State         status
	Reason        string
	Last          *moment // its newest delivery, nil if there is none
	LastState     status
}

// A webhooksPage lists the webhooks.
type webhooksPage struct {
	Free bool
	Rows []webhookRow
	Full string // that there may be no more, "" while there may
}

// eventsInRow is how many events a row shows.
const eventsInRow = 4

// webhookStates are the states as people read them.
var webhookStates = map[admin.WebhookState]status{
	admin.WebhookActive:   {"Active", "good"},
	admin.WebhookInactive: {"Switched off", "wait"},
	admin.WebhookDisabled: {"Stopped by its server", "bad"},
	admin.WebhookSilent:   {"Told nothing", "bad"},
}

func (p *Pages) webhooks(r *http.Request, in room) (answer, error) {
	all, last, err := p.Admin.AllWebhooks(r.Context(), in.grant)
	if err != nil {
		return answer{}, err
	}
	page := webhooksPage{Free: isFree(in)}
	if len(all) >= approvals.MaxSubscriptions {
		page.Full = fmt.Sprintf("There are %d, which is the most there may be. Delete one before you add another, or add events to one that there is.", len(all))
	}
	now, zone := p.Now(), in.zone()
	for _, w := range all {
		row := p.webhookRow(w)
		if d, ok := last[w.ID]; ok {
			row.Last, row.LastState = momentOf(d.CreatedAt, now, zone), deliveryStates[d.State]
		}
		page.Rows = append(page.Rows, row)
	}
	return answer{page: "webhooks.html", title: "Webhooks", data: page}, nil
}

func (p *Pages) webhookRow(w admin.Webhook) webhookRow {
	row := webhookRow{ID: w.ID, Name: w.Name(), URL: w.URL, Creator: w.Creator.Name, State: webhookStates[w.State], Reason: sentence(w.StateReason)}
	for _, e := range w.Events[:min(len(w.Events), eventsInRow)] {
		row.Events = append(row.Events, string(e))
	}
	row.More = len(w.Events) - len(row.Events)
	return row
}

// A webhookForm creates or edits a webhook.
type webhookForm struct {
	ID, Title string // ID is "" for a new one
	Action    string
	Once      string
	Error     string
	URL       field
	Says      field
	Active    tick
	Groups    []markGroup
	EventsBad string
}

// eventField names the ticks of the events.
const eventField = "events"

// approvalWords are the events of approvals as people read them.
var approvalWords = map[webhook.EventType]string{
	webhook.ApprovalRequested: "Requested",
	webhook.ApprovalApproved:  "Approved",
	webhook.ApprovalRejected:  "Rejected",
	webhook.ApprovalExecuted:  "Executed",
	webhook.ApprovalFailed:    "Failed",
	webhook.ApprovalExpired:   "Expired",
	webhook.ApprovalWithdrawn: "Withdrawn",
}

// newWebhookForm returns the form with what w has.
func (p *Pages) newWebhookForm(w admin.Webhook) webhookForm {
	f := webhookForm{ID: w.ID, Title: "Add a webhook", Action: webhooksPath + "/new",
		URL: field{Name: "url", Label: "Address", Type: "url", Value: w.URL, Autocomplete: "off", Placeholder: "https://", Required: true,
			Hint: "Each event is posted there as JSON, signed. It has to be a public https address."},
		Says: field{Name: "description", Label: "What it is for", Type: "text", Value: w.Description, Autocomplete: "off", Hint: "So that others know it: “Data warehouse”. It may be empty."},
	}
	if w.ID != "" {
		f.Title, f.Action = visibleText(w.Name()), webhooksPath+"/"+w.ID
		f.Active = tick{Name: "active", Value: "yes", Title: "Active", Says: "Without it nothing is sent, and what happens meanwhile is not sent later.", Checked: w.Active}
	}
	p.tickEvents(&f, w.Events)
	return f
}

// tickEvents offers all events, with those ticked that are chosen.
func (p *Pages) tickEvents(f *webhookForm, chosen []webhook.EventType) {
	wanted := webhook.Endpoint{Events: chosen}
	requests := markRow{Label: "Requests"}
	for _, e := range webhook.ApprovalEvents {
		requests.Marks = append(requests.Marks, tick{Name: eventField, Value: string(e), Title: approvalWords[e], Checked: wanted.Wants(e)})
	}
	f.Groups = []markGroup{{Name: "Approvals", Rows: []markRow{requests}}}
	for _, r := range p.Catalog.Resources() {
		if !r.Tells() {
			continue
		}
		row := markRow{Label: r.Label}
		for _, word := range catalog.ChangeWords {
			e := webhook.EventType(r.Name + "." + word)
			row.Marks = append(row.Marks, tick{Name: eventField, Value: string(e), Title: strings.ToUpper(word[:1]) + word[1:], Checked: wanted.Wants(e)})
		}
		addMark(&f.Groups, r, row)
	}
}

// tickedEvents reads the events of the form. Of what all is ticked it makes one,
// as in contacts.*.
func (p *Pages) tickedEvents(form url.Values) []webhook.EventType {
	ticked := map[string]bool{}
	for _, e := range form[eventField] {
		ticked[e] = true
	}
	var events []webhook.EventType
	add := func(kind string, all []webhook.EventType) {
		some := slices.DeleteFunc(all, func(e webhook.EventType) bool { return !ticked[string(e)] })
		if len(some) == cap(all) {
			some = []webhook.EventType{webhook.EventType(kind + ".*")}
		}
		events = append(events, some...)
	}
	for _, r := range p.Catalog.Resources() {
		if !r.Tells() {
			continue
		}
		all := make([]webhook.EventType, 0, len(catalog.ChangeWords))
		for _, word := range catalog.ChangeWords {
			all = append(all, webhook.EventType(r.Name+"."+word))
		}
		add(r.Name, all)
	}
	add(approvals.ApprovalKind, slices.Clip(slices.Clone(webhook.ApprovalEvents)))
	slices.Sort(events)
	return events
}

// refused shows the form again with what was sent and what is wrong with it.
func (f webhookForm) refused(p *Pages, form url.Values, err error) webhookForm {
	wrong, other := faults(err, "url", eventField, "description")
	f.Error, f.EventsBad = other, wrong[eventField]
	if f.EventsBad != "" && len(p.tickedEvents(form)) == 0 {
		f.EventsBad = "Tick at least one event."
	}
	f.URL.Value, f.URL.Error = form.Get("url"), wrong["url"]
	if e := problem.Of(err); f.URL.Error != "" && len(e.Fields) == 1 {
		f.URL.Error = sentence(e.Message) + " " + e.Fix
	}
	f.Says.Value, f.Says.Error = form.Get("description"), wrong["description"]
	f.Active.Checked = form.Get("active") == "yes"
	p.tickEvents(&f, p.tickedEvents(form))
	if f.Error == "" {
		f.Error = "Nothing is saved yet: correct what is marked."
	}
	return f
}

// secretOf returns the secret that the result shows once.
func secretOf(r catalog.Result) string {
	var once struct{ Secret string }
	json.Unmarshal(r.Once, &once) // nothing is no secret
	return once.Secret
}

func (p *Pages) newWebhook(*http.Request, room) (answer, error) {
	f := p.newWebhookForm(admin.Webhook{})
	f.Once = newOnce()
	return answer{page: "webhook_form.html", title: f.Title, data: f}, nil
}

func (p *Pages) createWebhook(r *http.Request, in room) (answer, error) {
	if !p.takeOnce(r.Context(), r.PostForm.Get("once")) {
		p.tell(r.Context(), "The form was sent before, and its webhook was added then. Secrets are shown only once.")
		return redirect(webhooksPath), nil
	}
	input := map[string]any{"url": strings.TrimSpace(r.PostForm.Get("url")), "events": p.tickedEvents(r.PostForm)}
	if says := strings.TrimSpace(r.PostForm.Get("description")); says != "" {
		input["description"] = says
	}
	made, err := p.act(r.Context(), in, "create_webhook", "", 0, input)
	if err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		f := p.newWebhookForm(admin.Webhook{}).refused(p, r.PostForm, err)
		f.Once = newOnce()
		return answer{page: "webhook_form.html", title: f.Title, status: http.StatusUnprocessableEntity, data: f}, nil
	}
	return revealHook(made.Target.Title, webhooksPath+"/"+made.Target.ID, secretOf(made)), nil
}

// revealHook shows the secret of a webhook that was added.
func revealHook(name, back, secret string) answer {
	title := "“" + visibleText(name) + "” is added"
	return answer{page: "reveal.html", title: title, data: reveal{Title: title, Back: back, Secrets: []shownSecret{
		{"webhook-secret", "Webhook secret", "The receiver checks signatures with it. " + keepIt, secret}}}}
}

// A webhookPage shows one webhook.
type webhookPage struct {
	webhookRow
	Form     webhookForm
	Hook     *hookState
	Waits    bool // its secret, for its creator
	Mine     bool // it acts for whoever looks at it
	Made     *moment
	Changed  *moment
	TakeOver []string // the events, to be taken over as they are; nil if there is nothing to mend by it
}

func (p *Pages) webhook(r *http.Request, in room) (answer, error) {
	w, err := p.Admin.OneWebhook(r.Context(), in.grant, r.PathValue("hook"))
	if err != nil {
		return answer{}, err
	}
	return p.webhookPage(in, w, p.newWebhookForm(w), http.StatusOK), nil
}

func (p *Pages) webhookPage(in room, w admin.Webhook, f webhookForm, status int) answer {
	now, zone := p.Now(), in.zone()
	page := webhookPage{webhookRow: p.webhookRow(w), Form: f, Hook: p.hookState(&w.Endpoint, in, webhooksPath+"/"+w.ID+"/deliveries"), Waits: w.SecretWaits,
		Mine: w.Creator.ID == in.grant.Principal.ID, Made: momentOf(w.CreatedAt, now, zone), Changed: momentOf(w.UpdatedAt, now, zone)}
	if w.State == admin.WebhookDisabled || !page.Mine && w.StateReason != "" {
		for _, e := range w.Events {
			page.TakeOver = append(page.TakeOver, string(e))
		}
	}
	return answer{page: "webhook.html", title: visibleText(w.Name()), status: status, data: page}
}

func (p *Pages) updateWebhook(r *http.Request, in room) (answer, error) {
	w, err := p.Admin.OneWebhook(r.Context(), in.grant, r.PathValue("hook"))
	if err != nil {
		return answer{}, err
	}
	input := p.webhookChanges(r.PostForm, w)
	if len(input) == 0 {
		p.tell(r.Context(), "Nothing was changed.")
		return redirect(webhooksPath + "/" + w.ID), nil
	}
	if _, err := p.act(r.Context(), in, "update_webhook", w.ID, 0, input); err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		return p.webhookPage(in, w, p.newWebhookForm(w).refused(p, r.PostForm, err), http.StatusUnprocessableEntity), nil
	}
	says := "Saved. It holds from the next event on."
	if _, moved := input["url"]; moved || input["events"] != nil {
		says += " The webhook acts for you now."
	}
	p.tell(r.Context(), says)
	return redirect(webhooksPath + "/" + w.ID), nil
}

// webhookChanges returns what the form changes of the webhook: whoever names the
// URL or the events takes it over.
func (p *Pages) webhookChanges(form url.Values, w admin.Webhook) map[string]any {
	if form.Get("take_over") == "yes" {
		return map[string]any{"url": w.URL, "events": w.Events}
	}
	input := map[string]any{}
	if to := strings.TrimSpace(form.Get("url")); to != w.URL {
		input["url"] = to
	}
	// A webhook that REST has set may name each event of a kind singly.
	now := p.newWebhookForm(w)
	then := now
	p.tickEvents(&then, p.tickedEvents(form))
	if !slices.EqualFunc(now.Groups, then.Groups, func(a, b markGroup) bool {
		return slices.EqualFunc(a.Rows, b.Rows, func(a, b markRow) bool { return slices.Equal(a.Marks, b.Marks) })
	}) {
		input["events"] = p.tickedEvents(form)
	}
	if active := form.Get("active") == "yes"; active != w.Active {
		input["active"] = active
	}
	if says := strings.TrimSpace(form.Get("description")); says != w.Description {
		input["description"] = says
		if says == "" {
			input["description"] = nil
		}
	}
	return input
}

func webhookDeletion(w admin.Webhook, wrong bool) answer {
	base := webhooksPath + "/" + w.ID
	return confirmDelete(typedDelete{Title: "Delete the webhook “" + visibleText(w.Name()) + "”", Name: w.Name(), Action: base + "/delete", Back: base,
		Says: []string{"What waits to be delivered is not sent any more.", "To stop it for a while, switch it off instead."}}, wrong)
}

func (p *Pages) confirmDeleteWebhook(r *http.Request, in room) (answer, error) {
	w, err := p.Admin.OneWebhook(r.Context(), in.grant, r.PathValue("hook"))
	return webhookDeletion(w, false), err
}

func (p *Pages) deleteWebhook(r *http.Request, in room) (answer, error) {
	w, err := p.Admin.OneWebhook(r.Context(), in.grant, r.PathValue("hook"))
	if err != nil {
		return answer{}, err
	}
	if !typed(r, w.Name()) {
		return webhookDeletion(w, true), nil
	}
	if _, err := p.act(r.Context(), in, "delete_webhook", w.ID, 0, map[string]any{}); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "The webhook “"+visibleText(w.Name())+"” is deleted.")
	return redirect(webhooksPath), nil
}

// webhookOwner is a webhook of the workspace for the pages of deliveries.
func (p *Pages) webhookOwner(r *http.Request, in room) (owner, error) {
	w, err := p.Admin.OneWebhook(r.Context(), in.grant, r.PathValue("hook"))
	if err != nil {
		return owner{}, err
	}
	base := webhooksPath + "/" + w.ID
	return owner{id: w.ID, name: w.Name(), title: "Deliveries to " + visibleText(w.Name()), base: base, log: base + "/deliveries", hook: &w.Endpoint,
		test: func(ctx context.Context, g access.Grant, id string) error {
			_, err := p.act(ctx, in, "test_webhook", id, 0, map[string]any{})
			return err
		},
		rotate: func(ctx context.Context, g access.Grant, id string, overlap time.Duration) (string, error) {
			r, err := p.act(ctx, in, "rotate_webhook_secret", id, 0, map[string]any{"overlap_hours": int(overlap.Hours())})
			return secretOf(r), err
		}}, nil
}
