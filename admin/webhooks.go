package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

// webhooksResource is the resource of subscriptions to events.
const webhooksResource = "webhooks"

// A Webhook is a subscription as callers see it.
type Webhook struct {
	ID          string              `json:"id"`
	Version     int64               `json:"version"`
	URL         string              `json:"url"`
	Events      []webhook.EventType `json:"events"`
	Active      bool                `json:"active"`
	Description string              `json:"description,omitempty"`
	Creator     webhook.Actor       `json:"creator"`
	State       WebhookState        `json:"state"`
	StateReason string              `json:"state_reason,omitempty"` // why it is told nothing, or not all
	SecretWaits bool                `json:"secret_waits"`           // for its creator to take it
	CreatedAt   time.Time           `json:"created_at"`
	UpdatedAt   time.Time           `json:"updated_at"`

	Endpoint webhook.Endpoint `json:"-"`
}

// A WebhookState says whether a webhook is told of events.
type WebhookState string

// The states.
const (
	WebhookActive   WebhookState = "active"
	WebhookInactive WebhookState = "inactive" // it was switched off
	WebhookDisabled WebhookState = "disabled" // its server has answered 410 Gone
	WebhookSilent   WebhookState = "silent"   // its creator may not be told any more
)

// Name returns what people call the webhook: its description, or its host.
func (w Webhook) Name() string { return webhookName(w.Description, w.URL) }

func webhookName(description, address string) string {
	if description != "" {
		return description
	}
	if u, err := url.Parse(address); err == nil {
		return u.Host
	}
	return address
}

// looks returns subscriptions as callers see them. It asks once for each creator.
func (d *Desk) looks(ctx context.Context, s Store, all []approvals.Subscription) ([]Webhook, error) {
	type standing struct {
		g   access.Grant
		why string
	}
	creators := map[string]standing{}
	seen := make([]Webhook, len(all))
	for i, sub := range all {
		c, ok := creators[sub.Creator.ID]
		if !ok {
			var err error
			if c.g, c.why, err = d.Gate.Today(ctx, s, sub.Workspace, sub.Creator); err != nil {
				return nil, err
			}
			creators[sub.Creator.ID] = c
		}
		w := Webhook{ID: sub.ID, Version: sub.Version, URL: sub.Endpoint.URL, Events: sub.Endpoint.Events, Active: sub.Active, Description: sub.Description,
			Creator: webhook.Actor{Kind: string(sub.Creator.Kind), ID: sub.Creator.ID, Name: sub.Creator.Name}, State: WebhookActive,
			SecretWaits: sub.Taker != "", CreatedAt: sub.CreatedAt, UpdatedAt: sub.UpdatedAt, Endpoint: sub.Endpoint}
		untold := approvals.Untold(sub, c.g)
		switch {
		case !sub.Active:
			w.State = WebhookInactive
		case !sub.Endpoint.DisabledAt.IsZero():
			w.State, w.StateReason = WebhookDisabled, sub.Endpoint.DisabledReason
		case c.why != "":
			w.State, w.StateReason = WebhookSilent, c.why
		case len(untold) == len(sub.Endpoint.Events):
			w.State, w.StateReason = WebhookSilent, sub.Creator.Name+" may not read what its events are about any more"
		case len(untold) > 0:
			w.StateReason = fmt.Sprintf("%s may not read what %s is about any more", sub.Creator.Name, joinEvents(untold))
		}
		seen[i] = w
	}
	return seen, nil
}

func joinEvents(events []webhook.EventType) string {
	texts := make([]string, len(events))
	for i, e := range events {
		texts[i] = string(e)
	}
	return strings.Join(texts, ", ")
}

func (d *Desk) look(ctx context.Context, s Store, sub approvals.Subscription) (Webhook, error) {
	seen, err := d.looks(ctx, s, []approvals.Subscription{sub})
	if err != nil {
		return Webhook{}, err
	}
	return seen[0], nil
}

// AllWebhooks returns the webhooks of the workspace, the oldest first, and the
// newest delivery of each that has one.
func (d *Desk) AllWebhooks(ctx context.Context, g access.Grant) ([]Webhook, map[string]webhook.Delivery, error) {
	if err := requireAdmin(g); err != nil {
		return nil, nil, err
	}
	all, err := d.Store.Subscriptions(ctx, g.Workspace.ID)
	if err != nil {
		return nil, nil, err
	}
	ids := make([]string, len(all))
	for i, s := range all {
		ids[i] = s.ID
	}
	deliveries, err := d.Store.LastDeliveries(ctx, g.Workspace.ID, ids)
	if err != nil {
		return nil, nil, err
	}
	last := map[string]webhook.Delivery{}
	for _, each := range deliveries {
		last[each.Owner] = each
	}
	seen, err := d.looks(ctx, d.Store, all)
	return seen, last, err
}

// OneWebhook returns one webhook. It fails with [problem.NotFound].
func (d *Desk) OneWebhook(ctx context.Context, g access.Grant, id string) (Webhook, error) {
	if err := requireAdmin(g); err != nil {
		return Webhook{}, err
	}
	sub, err := subscription(ctx, d.Store, g.Workspace.ID, id, false)
	if err != nil {
		return Webhook{}, err
	}
	return d.look(ctx, d.Store, sub)
}

// subscription reads a subscription. What is no id is not looked up: it may hold
// what the database refuses.
func subscription(ctx context.Context, s Store, workspace, id string, forUpdate bool) (approvals.Subscription, error) {
	if !typeid.ValidID("whs", id) {
		return approvals.Subscription{}, problem.Errorf(problem.NotFound, "there is no webhook %.60q", id).WithFix("Find ids with list_webhooks.")
	}
	return s.Subscription(ctx, workspace, id, forUpdate)
}

// lookUpWebhook refuses a URL whose host cannot be found, or is none that may be
// told.
func (d *Desk) lookUpWebhook(ctx context.Context, _ *catalog.Action, c catalog.Call) error {
	if to, ok := c.Input.Values["url"].(string); ok {
		return d.Webhooks.CheckURL(ctx, to)
	}
	return nil
}

// planWebhook is the [catalog.Service] of subscriptions.
func (d *Desk) planWebhook(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	tx := catalog.As[Store](s)
	switch a.Name {
	case "list_webhooks":
		return d.planWebhooks(a, c), nil
	case "create_webhook":
		return d.planNewWebhook(ctx, tx, a, c, lock)
	}
	sub, err := subscription(ctx, tx, c.Grant.Workspace.ID, c.Input.ID, lock && a.Verb != access.Read)
	if problem.Is(err, problem.NotFound) {
		return catalog.Plan{}, a.Of().NotFound(c.Input.ID)
	}
	if err != nil {
		return catalog.Plan{}, err
	}
	if v := c.IfVersion; v != 0 && v != sub.Version {
		return catalog.Plan{Target: targetOf(sub)}, problem.Errorf(problem.VersionMismatch, "webhook %s has version %d, not %d: it was changed in between", sub.ID, sub.Version, v).
			WithFix("Read it again, see what has changed, and send the request with version %d if it still holds.", sub.Version)
	}
	p := catalog.Plan{Target: targetOf(sub), Before: valuesOf(sub)}
	switch a.Name {
	case "get_webhook":
		p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
			return d.answerWebhook(ctx, s, sub, nil)
		}
		return p, nil
	case "update_webhook":
		return d.planWebhookChange(ctx, a, c, sub, p)
	case "list_webhook_deliveries":
		p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
			return webhookDeliveries(ctx, s, a, c, sub)
		}
		return p, nil
	}
	run, ok := map[string]webhookRun{
		"delete_webhook":          d.deleteWebhook,
		"rotate_webhook_secret":   d.rotateWebhook,
		"take_webhook_secret":     d.takeWebhookSecret,
		"test_webhook":            d.testWebhook,
		"resend_webhook_delivery": d.resendToWebhook,
	}[a.Name]
	if !ok {
		return p, fmt.Errorf("nothing is known of the action %s", a.Name)
	}
	if a.Name == "rotate_webhook_secret" || a.Name == "resend_webhook_delivery" {
		if err := refuseStranger(c, sub); err != nil {
			return p, err
		}
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		return run(ctx, catalog.As[Store](s), a, c, sub)
	}
	return p, nil
}

// A webhookRun performs an action on a locked subscription.
type webhookRun func(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, sub approvals.Subscription) (catalog.Result, error)

func targetOf(sub approvals.Subscription) catalog.Target {
	return catalog.Target{ID: sub.ID, Version: sub.Version, Title: webhookName(sub.Description, sub.Endpoint.URL)}
}

// valuesOf returns what people decide about the subscription.
func valuesOf(sub approvals.Subscription) map[string]any {
	events := make([]any, len(sub.Endpoint.Events))
	for i, e := range sub.Endpoint.Events {
		events[i] = string(e)
	}
	v := map[string]any{"url": sub.Endpoint.URL, "events": events, "active": sub.Active}
	if sub.Description != "" {
		v["description"] = sub.Description
	}
	return v
}

// answerWebhook answers with the subscription as it is stored by now, and with a
// secret that is shown only in this answer, nil for none.
func (d *Desk) answerWebhook(ctx context.Context, s catalog.Store, sub approvals.Subscription, secret webhook.Secret) (catalog.Result, error) {
	w, err := d.look(ctx, catalog.As[Store](s), sub)
	if err != nil {
		return catalog.Result{}, err
	}
	r, err := answerJSON(w, secret)
	r.Target = targetOf(sub)
	return r, err
}

// answerJSON answers with v, and with a secret that is shown only in this answer.
func answerJSON(v any, secret webhook.Secret) (r catalog.Result, err error) {
	if r.Data, err = json.Marshal(v); err != nil {
		return r, fmt.Errorf("encode webhook: %w", err)
	}
	if secret != nil {
		r.Once, err = json.Marshal(map[string]string{"secret": secret.Text()})
	}
	return r, err
}

// planWebhooks pages through the subscriptions in memory: a workspace has few.
func (d *Desk) planWebhooks(a *catalog.Action, c catalog.Call) catalog.Plan {
	return catalog.Plan{Run: func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx := catalog.As[Store](s)
		all, err := tx.Subscriptions(ctx, c.Grant.Workspace.ID)
		if err != nil {
			return catalog.Result{}, err
		}
		limit, after := pageOf(c)
		if after != "" && !typeid.ValidID("whs", after) {
			return catalog.Result{}, a.Refuse("cursor", "next_cursor of the page before", "another text", "")
		}
		all = slices.DeleteFunc(slices.Clone(all), func(s approvals.Subscription) bool { return s.ID <= after })
		page := &catalog.Pagination{Limit: limit, HasMore: len(all) > limit}
		if page.HasMore {
			all = all[:limit]
			page.NextCursor = all[limit-1].ID
		}
		seen, err := d.looks(ctx, tx, all)
		if err != nil {
			return catalog.Result{}, err
		}
		r, err := answerJSON(seen, nil)
		r.Pagination = page
		return r, err
	}}
}

// pageOf returns how long a page is, and after which id it begins.
func pageOf(c catalog.Call) (limit int, after string) {
	n, _ := c.Input.Values["limit"].(json.Number) // normalized, with a default
	i, _ := n.Int64()
	after, _ = c.Input.Values["cursor"].(string)
	return int(i), after
}

// webhookDeliveries lists what was sent to a webhook.
func webhookDeliveries(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, sub approvals.Subscription) (catalog.Result, error) {
	limit, before := pageOf(c)
	if before != "" && !typeid.ValidID("msg", before) {
		return catalog.Result{}, a.Refuse("cursor", "next_cursor of the page before", "another text", "")
	}
	state, _ := c.Input.Values["status"].(string)
	list, err := catalog.As[Store](s).Deliveries(ctx, c.Grant.Workspace.ID, webhook.Query{Owner: c.Input.ID, State: jobs.State(state), Before: before, Limit: limit + 1})
	if err != nil {
		return catalog.Result{}, err
	}
	page := &catalog.Pagination{Limit: limit, HasMore: len(list) > limit}
	if page.HasMore {
		list = list[:limit]
		page.NextCursor = list[limit-1].ID
	}
	if !owns(c, sub) {
		for i, m := range list {
			list[i] = webhook.Delivery{ID: m.ID, Endpoint: m.Endpoint, Owner: m.Owner, State: m.State, Attempts: m.Attempts, LastStatus: m.LastStatus,
				NextAt: m.NextAt, CreatedAt: m.CreatedAt, DeliveredAt: m.DeliveredAt}
		}
	}
	r, err := answerJSON(list, nil)
	r.Pagination = page
	return r, err
}

// planNewWebhook plans a subscription that acts for the caller.
func (d *Desk) planNewWebhook(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	to, _ := c.Input.Values["url"].(string)
	events, err := d.eventsOf(a, c)
	if err != nil {
		return catalog.Plan{}, err
	}
	if err := d.Webhooks.CheckForm(to); err != nil {
		return catalog.Plan{}, err
	}
	if lock { // so that two do not each make the last one
		if _, err := tx.LockWorkspace(ctx, c.Grant.Workspace.ID); err != nil {
			return catalog.Plan{}, err
		}
	}
	all, err := tx.Subscriptions(ctx, c.Grant.Workspace.ID)
	if err != nil {
		return catalog.Plan{}, err
	}
	if len(all) >= approvals.MaxSubscriptions {
		return catalog.Plan{}, problem.Errorf(problem.Conflict, "the workspace has %d webhooks, which is the most there may be", len(all)).
			WithFix("Delete one that is not needed, or add the events to one that there is.")
	}
	sub := approvals.Subscription{Workspace: c.Grant.Workspace.ID, Version: 1, Creator: c.Grant.Principal, CreatedAt: d.now(), UpdatedAt: d.now(),
		Endpoint: webhook.Endpoint{URL: to, Events: events}}
	sub.Active, _ = c.Input.Values["active"].(bool)
	sub.Description, _ = c.Input.Values["description"].(string)
	p := catalog.Plan{Target: catalog.Target{Title: targetOf(sub).Title}, After: valuesOf(sub), Checks: actsFor(c.Grant)}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx := catalog.As[Store](s)
		sub := sub
		sub.ID, sub.Taker = typeid.NewID("whs"), taker(c)
		var secret webhook.Secret
		var err error
		if sub.Endpoint, secret, err = d.Webhooks.Open(ctx, tx, sub.Workspace, sub.ID, to, events); err != nil {
			return catalog.Result{}, err
		}
		if err := tx.CreateSubscription(ctx, sub); err != nil {
			return catalog.Result{}, err
		}
		if err := d.recordWebhook(ctx, tx, c, sub); err != nil {
			return catalog.Result{}, err
		}
		return d.answerWebhook(ctx, s, sub, shown(c, secret))
	}
	return p, nil
}

// actsFor tells a decider whose eyes the webhook has.
func actsFor(g access.Grant) []catalog.PlanCheck {
	return []catalog.PlanCheck{{Name: "creator", OK: true, Text: "It will be told what " + g.Principal.Name + " may read, and nothing else."}}
}

// taker returns who is to take a secret that the call has made: an approval's
// result is kept, so it holds none, and who asked comes for it.
func taker(c catalog.Call) string {
	if c.Approval == "" {
		return ""
	}
	return c.Grant.Principal.ID
}

// shown returns the secret if the call's answer may hold it.
func shown(c catalog.Call, secret webhook.Secret) webhook.Secret {
	if c.Approval != "" {
		return nil
	}
	return secret
}

func (d *Desk) recordWebhook(ctx context.Context, tx Store, c catalog.Call, sub approvals.Subscription) error {
	return d.record(ctx, tx, c.Grant, audit.WebhookSet, sub.ID, map[string]any{"url": sub.Endpoint.URL, "events": sub.Endpoint.Events,
		"active": sub.Active, "creator": sub.Creator.ID})
}

// planWebhookChange plans a change. Who sets the URL or the events takes the
// webhook over: it then acts for them. Otherwise somebody with few rights could
// turn one that acts for somebody with more to a server of their own.
func (d *Desk) planWebhookChange(ctx context.Context, a *catalog.Action, c catalog.Call, old approvals.Subscription, p catalog.Plan) (catalog.Plan, error) {
	sub, in := old, c.Input.Values
	for name, expected := range map[string]string{"url": "a web address", "events": "an array of events", "active": "true or false"} {
		if v, set := in[name]; set && v == nil {
			return p, a.Refuse(name, expected, "null", "Leave "+name+" out to keep it.")
		}
	}
	if v, set := in["description"]; set {
		sub.Description, _ = v.(string)
	}
	if v, ok := in["active"].(bool); ok {
		sub.Active = v
	}
	_, moved := in["url"]
	_, asked := in["events"]
	if moved {
		sub.Endpoint.URL, _ = in["url"].(string)
		if err := d.Webhooks.CheckForm(sub.Endpoint.URL); err != nil {
			return p, err
		}
	}
	if asked || moved {
		if !asked {
			c.Input.Values = map[string]any{"events": valuesOf(old)["events"]}
		}
		var err error
		if sub.Endpoint.Events, err = d.eventsOf(a, c); err != nil {
			return p, err
		}
		sub.Creator = c.Grant.Principal
		p.Checks = actsFor(c.Grant)
	}
	p.After = valuesOf(sub)
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx := catalog.As[Store](s)
		sub := sub
		sub.Version++
		sub.UpdatedAt = d.now()
		if moved || asked {
			if err := d.moveEndpoint(ctx, tx, c, old, &sub); err != nil {
				return catalog.Result{}, err
			}
		}
		if err := tx.UpdateSubscription(ctx, sub); err != nil {
			return catalog.Result{}, err
		}
		if err := d.recordWebhook(ctx, tx, c, sub); err != nil {
			return catalog.Result{}, err
		}
		now, err := tx.Subscription(ctx, sub.Workspace, sub.ID, false)
		if err != nil {
			return catalog.Result{}, err
		}
		return d.answerWebhook(ctx, s, now, nil)
	}
	return p, nil
}

// owns reports whether the caller may see and have what the subscription was told:
// it is what its creator may read.
func owns(c catalog.Call, sub approvals.Subscription) bool {
	return c.Grant.IsAdmin() || sub.Creator.ID == c.Grant.Principal.ID
}

// refuseStranger refuses what gives away what others were told.
func refuseStranger(c catalog.Call, sub approvals.Subscription) error {
	if owns(c, sub) {
		return nil
	}
	return problem.Errorf(problem.InsufficientScope, "the webhook acts for %s: only they and admins may do this", sub.Creator.Name).
		WithFix("Ask an admin, or set its URL or events: then it acts for you, begins anew, and tells what you may read.")
}

// moveEndpoint stores the URL and the events. What waits, and what could be sent
// again, was for the eyes of the old creator: if somebody else who is no admin
// takes it over, it is not delivered any more. They get an endpoint of their own,
// whose secret they have to take.
func (d *Desk) moveEndpoint(ctx context.Context, tx Store, c catalog.Call, old approvals.Subscription, sub *approvals.Subscription) error {
	if owns(c, old) {
		return tx.MoveEndpoint(ctx, sub.Workspace, sub.ID, sub.Endpoint.URL, sub.Endpoint.Events)
	}
	if err := tx.RemoveEndpoint(ctx, sub.Workspace, sub.ID); err != nil {
		return err
	}
	sub.Taker = c.Grant.Principal.ID
	_, _, err := d.Webhooks.Open(ctx, tx, sub.Workspace, sub.ID, sub.Endpoint.URL, sub.Endpoint.Events)
	return err
}

// eventsOf returns the events of the input, sorted, each once. It refuses events
// that there are not, and those of records that the caller may not read.
func (d *Desk) eventsOf(a *catalog.Action, c catalog.Call) ([]webhook.EventType, error) {
	list, _ := c.Input.Values["events"].([]any)
	if len(list) == 0 {
		return nil, a.Refuse("events", "at least one event", "none", "Send events, as in contacts.created.")
	}
	var events []webhook.EventType
	for i, v := range list {
		text, _ := v.(string)
		e := webhook.EventType(text)
		where := fmt.Sprintf("events.%d", i)
		kind, what := e.Split()
		if kind == approvals.ApprovalKind {
			if what != "*" && !slices.Contains(webhook.ApprovalEvents, e) {
				return nil, a.Refuse(where, "approval.* or one of "+joinEvents(webhook.ApprovalEvents), fmt.Sprintf("%.100q", text), "")
			}
		} else {
			r, ok := d.Catalog.Resource(string(kind))
			if known := what == "*" || slices.Contains(catalog.ChangeWords, what); !ok || !known || !r.Tells() {
				return nil, a.Refuse(where, "an event of a resource that keeps records, as in contacts.created, contacts.updated, contacts.deleted or contacts.*", fmt.Sprintf("%.100q", text), "")
			}
			if c.Grant.Decide(r.Name, access.Read) != access.Run {
				return nil, a.Refuse(where, "an event of records that you may read", fmt.Sprintf("%.100q", text), "Leave it out, or ask an admin for the scope "+r.Name+":read.")
			}
		}
		events = append(events, e)
	}
	slices.Sort(events)
	return slices.Compact(events), nil
}

func (d *Desk) deleteWebhook(ctx context.Context, tx Store, _ *catalog.Action, c catalog.Call, sub approvals.Subscription) (catalog.Result, error) {
	if err := tx.RemoveEndpoint(ctx, sub.Workspace, sub.ID); err != nil {
		return catalog.Result{}, err
	}
	if err := tx.DeleteSubscription(ctx, sub.Workspace, sub.ID); err != nil {
		return catalog.Result{}, err
	}
	r, err := answerJSON(map[string]any{"id": sub.ID, "deleted": true}, nil)
	if err != nil {
		return r, err
	}
	r.Target = targetOf(sub)
	return r, d.record(ctx, tx, c.Grant, audit.WebhookRemoved, sub.ID, map[string]any{"url": sub.Endpoint.URL})
}

func (d *Desk) rotateWebhook(ctx context.Context, tx Store, _ *catalog.Action, c catalog.Call, sub approvals.Subscription) (catalog.Result, error) {
	hours, _ := c.Input.Values["overlap_hours"].(json.Number) // normalized, with a default
	n, _ := hours.Int64()
	_, secret, err := d.Webhooks.Rotate(ctx, tx, sub.Workspace, sub.ID, time.Duration(n)*time.Hour)
	if err != nil {
		return catalog.Result{}, err
	}
	sub.Taker = taker(c)
	if sub, err = d.touch(ctx, tx, sub); err != nil {
		return catalog.Result{}, err
	}
	r, err := answerJSON(map[string]any{"id": sub.ID, "secret_waits": sub.Taker != ""}, shown(c, secret))
	if err != nil {
		return r, err
	}
	r.Target = targetOf(sub)
	return r, d.record(ctx, tx, c.Grant, audit.WebhookRotated, sub.ID, map[string]any{"overlap_hours": n})
}

// touch stores the subscription as its next version.
func (d *Desk) touch(ctx context.Context, tx Store, sub approvals.Subscription) (approvals.Subscription, error) {
	sub.Version++
	sub.UpdatedAt = d.now()
	return sub, tx.UpdateSubscription(ctx, sub)
}

// takeWebhookSecret shows the secret to who has asked for it, once.
func (d *Desk) takeWebhookSecret(ctx context.Context, tx Store, _ *catalog.Action, c catalog.Call, sub approvals.Subscription) (catalog.Result, error) {
	if sub.Taker == "" || sub.Taker != c.Grant.Principal.ID {
		return catalog.Result{}, problem.Errorf(problem.Conflict, "no secret of this webhook waits for you").
			WithFix("A secret is shown once, to who has asked for it. rotate_webhook_secret makes a new one.")
	}
	secret, err := d.Webhooks.Secret(sub.Endpoint)
	if err != nil {
		return catalog.Result{}, err
	}
	sub.Taker = ""
	if sub, err = d.touch(ctx, tx, sub); err != nil {
		return catalog.Result{}, err
	}
	r, err := answerJSON(map[string]any{"id": sub.ID}, secret)
	r.Target = targetOf(sub)
	return r, err
}

func (d *Desk) testWebhook(ctx context.Context, tx Store, _ *catalog.Action, c catalog.Call, sub approvals.Subscription) (catalog.Result, error) {
	sent, err := d.Webhooks.SendTest(ctx, tx, sub.Workspace, sub.ID)
	if err != nil {
		return catalog.Result{}, err
	}
	r, err := answerJSON(sent, nil)
	if err != nil {
		return r, err
	}
	r.Target = targetOf(sub)
	return r, d.record(ctx, tx, c.Grant, audit.WebhookTested, sub.ID, nil)
}

func (d *Desk) resendToWebhook(ctx context.Context, tx Store, _ *catalog.Action, c catalog.Call, sub approvals.Subscription) (catalog.Result, error) {
	id, _ := c.Input.Values["delivery"].(string)
	none := problem.Errorf(problem.NotFound, "there is no delivery %.60q of this webhook; deliveries are deleted after 30 days", id).
		WithFix("Find ids with list_webhook_deliveries.")
	if !typeid.ValidID("msg", id) {
		return catalog.Result{}, none
	}
	sent, err := tx.Delivery(ctx, sub.Workspace, id)
	if problem.Is(err, problem.NotFound) || err == nil && sent.Owner != sub.ID {
		return catalog.Result{}, none
	}
	if err != nil {
		return catalog.Result{}, err
	}
	if sent, err = d.Webhooks.Resend(ctx, tx, sub.Workspace, id); err != nil {
		return catalog.Result{}, err
	}
	r, err := answerJSON(sent, nil)
	if err != nil {
		return r, err
	}
	r.Target = targetOf(sub)
	return r, d.record(ctx, tx, c.Grant, audit.WebhookResent, id, nil)
}
