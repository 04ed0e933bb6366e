package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"trustpager/access"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/webhook"
)

// The log of what was sent to the webhook of a key or a client, or to one of the
// workspace.

const deliveriesOnPage = 50

// A deliveryRow is one delivery.
type deliveryRow struct {
	ID, Event, Approval string
	Made, Done, Next    *moment
	Attempts, Status    int
	State               status
	Error, Response     string
}

// A deliveriesPage lists deliveries.
type deliveriesPage struct {
	Title      string
	Name, Back string
	Log        string     // path of this page
	Hook       *hookState // nil if the webhook was taken away
	Once       string
	Overlap    []option
	Rows       []deliveryRow
	Next       string
}

// An owner is a key or a client whose webhook pages are about, or a webhook of
// the workspace.
type owner struct {
	id, name string
	title    string // of the page of its deliveries
	base     string // path of its page
	log      string // path of its deliveries
	hook     *webhook.Endpoint
	test     func(ctx context.Context, g access.Grant, id string) error
	rotate   func(ctx context.Context, g access.Grant, id string, overlap time.Duration) (secret string, err error)
}

// ownerAt returns the owner that the path names.
func (p *Pages) ownerAt(r *http.Request, in room) (owner, error) {
	if r.PathValue("hook") != "" {
		return p.webhookOwner(r, in)
	}
	if r.PathValue("client") != "" {
		return p.clientOwner(r, in)
	}
	k, hook, err := p.keyAt(r, in)
	base := apiPath + "/keys/" + k.ID
	return owner{k.ID, k.Name, hookTitle(k.Name), base, base + "/webhook", hook, tested(p.Admin.TestWebhook), rotated(p.Admin.RotateWebhook)}, err
}

func hookTitle(name string) string { return "Webhook of " + visibleText(name) }

// tested is a test of which only the failure counts.
func tested(test func(context.Context, access.Grant, string) (webhook.Delivery, error)) func(context.Context, access.Grant, string) error {
	return func(ctx context.Context, g access.Grant, id string) error {
		_, err := test(ctx, g, id)
		return err
	}
}

// rotated is a rotation with the secret as it is shown.
func rotated(rotate func(context.Context, access.Grant, string, time.Duration) (webhook.Secret, error)) func(context.Context, access.Grant, string, time.Duration) (string, error) {
	return func(ctx context.Context, g access.Grant, id string, overlap time.Duration) (string, error) {
		secret, err := rotate(ctx, g, id, overlap)
		return secret.Text(), err
	}
}

func (p *Pages) clientOwner(r *http.Request, in room) (owner, error) {
	c, err := p.Admin.Client(r.Context(), in.grant, r.PathValue("client"))
	if err != nil {
		return owner{}, err
	}
	hook, err := optional(p.Admin.ClientWebhook(r.Context(), in.grant, c.Client.ID))
	base := clientPath(c.Client.ID)
	return owner{c.Client.ID, c.Client.Name, hookTitle(c.Client.Name), base, base + "/webhook", hook, tested(p.Admin.TestClientWebhook), rotated(p.Admin.RotateClientWebhook)}, err
}

// clientPath returns the page of a client, whose id may be a URL.
func clientPath(id string) string { return apiPath + "/clients/" + url.PathEscape(id) }

// deliveryStates are the states as people read them.
var deliveryStates = map[jobs.State]status{
	jobs.Ready:   {"On its way", "wait"},
	webhook.Done: {"Delivered", "good"},
	jobs.Dead:    {"Given up", "bad"},
}

func (p *Pages) deliveries(r *http.Request, in room) (answer, error) {
	o, err := p.ownerAt(r, in)
	if err != nil {
		return answer{}, err
	}
	before := r.URL.Query().Get("before")
	list, err := p.Admin.Deliveries(r.Context(), in.grant, webhook.Query{Owner: o.id, Before: before, Limit: deliveriesOnPage + 1})
	if err != nil {
		return answer{}, err
	}
	page := deliveriesPage{Title: o.title, Name: o.name, Back: o.base, Log: o.log, Hook: p.hookState(o.hook, in, o.log), Once: newOnce(), Overlap: overlapOptions}
	if len(list) > deliveriesOnPage {
		list = list[:deliveriesOnPage]
		page.Next = list[deliveriesOnPage-1].ID
	}
	now, zone := p.Now(), in.zone()
	for _, d := range list {
		page.Rows = append(page.Rows, deliveryRow{ID: d.ID, Event: eventWord(d.Event), Approval: d.Approval,
			Made: momentOf(d.CreatedAt, now, zone), Done: momentOf(d.DeliveredAt, now, zone), Next: momentOf(d.NextAt, now, zone),
			Attempts: d.Attempts, Status: d.LastStatus, State: deliveryStates[d.State], Error: d.LastError, Response: d.LastResponse})
	}
	return answer{page: "deliveries.html", title: o.title, data: page}, nil
}

func eventWord(e webhook.EventType) string {
	if e == webhook.Test {
		return "Test"
	}
	if e == webhook.ApprovalRejected {
		return "Rejected"
	}
	if word, ok := eventWords[e]; ok {
		return word
	}
	return string(e)
}

func (p *Pages) testWebhook(r *http.Request, in room) (answer, error) {
	o, err := p.ownerAt(r, in)
	if err != nil {
		return answer{}, err
	}
	if err := o.test(r.Context(), in.grant, o.id); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "A test event is on its way. Its delivery is the first of the list.")
	return redirect(o.log), nil
}

func (p *Pages) rotateWebhook(r *http.Request, in room) (answer, error) {
	o, err := p.ownerAt(r, in)
	if err != nil {
		return answer{}, err
	}
	if !p.takeOnce(r.Context(), r.PostForm.Get("once")) {
		p.tell(r.Context(), "The form was sent before, and the secret was changed then. Change it again if you have not kept it.")
		return redirect(o.log), nil
	}
	secret, err := o.rotate(r.Context(), in.grant, o.id, overlapOf(r))
	if err != nil {
		return answer{}, err
	}
	title := "The webhook of “" + visibleText(o.name) + "” has a new secret"
	return answer{page: "reveal.html", title: title, data: reveal{Title: title, Back: o.log, Secrets: []shownSecret{
		{"webhook-secret", "Webhook secret", "Until the overlap ends each event is signed with both. " + keepIt, secret}}}}, nil
}

func (p *Pages) resend(r *http.Request, in room) (answer, error) {
	o, err := p.ownerAt(r, in)
	if err != nil {
		return answer{}, err
	}
	d, err := p.Admin.Resend(r.Context(), in.grant, r.PathValue("delivery"))
	switch {
	case problem.Is(err, problem.Conflict):
		p.tell(r.Context(), sentence(problem.Of(err).Message))
	case err != nil:
		return answer{}, err
	default:
		p.tell(r.Context(), fmt.Sprintf("%s is on its way once more, under the same webhook-id.", d.ID))
	}
	return redirect(o.log), nil
}
