package web

import (
	"fmt"
	"net/http"
	"net/url"

	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/webhook"
)

// The log of what was sent to the webhook of a key or a client.

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
	Name, Back string
	Hook       *hookState // nil if the webhook was taken away
	Once       string
	Overlap    []option
	Rows       []deliveryRow
	Next       string
}

// An owner is a key or a client, whose webhook pages are about.
type owner struct {
	id, name string
	base     string // path of its page
	hook     *webhook.Endpoint
}

// ownerAt returns the key or the client that the path names.
func (p *Pages) ownerAt(r *http.Request, in room) (owner, error) {
	if r.PathValue("client") != "" {
		return p.clientOwner(r, in)
	}
	k, hook, err := p.keyAt(r, in)
	return owner{k.ID, k.Name, apiPath + "/keys/" + k.ID, hook}, err
}

func (p *Pages) clientOwner(r *http.Request, in room) (owner, error) {
	c, err := p.Admin.Client(r.Context(), in.grant, r.PathValue("client"))
	if err != nil {
		return owner{}, err
	}
	hook, err := optional(p.Admin.ClientWebhook(r.Context(), in.grant, c.Client.ID))
	return owner{c.Client.ID, c.Client.Name, clientPath(c.Client.ID), hook}, err
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
	page := deliveriesPage{Name: o.name, Back: o.base, Hook: p.hookState(o.hook, in, o.base+"/webhook"), Once: newOnce(), Overlap: overlapOptions}
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
	return answer{page: "deliveries.html", title: "Webhook of " + visibleText(o.name), data: page}, nil
}

func eventWord(e webhook.EventType) string {
	if e == webhook.Test {
		return "Test"
	}
	if e == webhook.ApprovalRejected {
		return "Rejected"
	}
	return eventWords[e]
}

func (p *Pages) testWebhook(r *http.Request, in room) (answer, error) {
	o, err := p.ownerAt(r, in)
	if err != nil {
		return answer{}, err
	}
	test := p.Admin.TestWebhook
	if r.PathValue("client") != "" {
		test = p.Admin.TestClientWebhook
	}
	if _, err := test(r.Context(), in.grant, o.id); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "A test event is on its way. Its delivery is the first of the list.")
	return redirect(o.base + "/webhook"), nil
}

func (p *Pages) rotateWebhook(r *http.Request, in room) (answer, error) {
	o, err := p.ownerAt(r, in)
	if err != nil {
		return answer{}, err
	}
	if !p.takeOnce(r.Context(), r.PostForm.Get("once")) {
		p.tell(r.Context(), "The form was sent before, and the secret was changed then. Change it again if you have not kept it.")
		return redirect(o.base + "/webhook"), nil
	}
	rotate := p.Admin.RotateWebhook
	if r.PathValue("client") != "" {
		rotate = p.Admin.RotateClientWebhook
	}
	secret, err := rotate(r.Context(), in.grant, o.id, overlapOf(r))
	if err != nil {
		return answer{}, err
	}
	title := "The webhook of “" + visibleText(o.name) + "” has a new secret"
	return answer{page: "reveal.html", title: title, data: reveal{Title: title, Back: o.base + "/webhook", Secrets: []shownSecret{
		{"webhook-secret", "Webhook secret", "Until the overlap ends each event is signed with both. " + keepIt, secret.Text()}}}}, nil
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
	return redirect(o.base + "/webhook"), nil
}
