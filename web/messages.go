package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/typeid"
)

// The pages about messages: what the workspace says to the outside and hears
// from it.

const messagesPath = "/messages"

// messagesOnPage is how many messages a list shows.
const messagesOnPage = 25

// threadOnPage is how many messages of a thread its page shows, the last ones.
const threadOnPage = 100

// messageKinds are the resources of the tabs.
var messageKinds = []string{"email", "sms", "calls"}

// A message is a record of one of these resources, as its actions answer it.
type message struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Direction string    `json:"direction"`
	Status    string    `json:"status"`
	From      string    `json:"from"`
	FromName  string    `json:"from_name"`
	To        addressed `json:"to"`
	CC        addressed `json:"cc"`
	BCC       addressed `json:"bcc"`
	Subject   string    `json:"subject"`
	Body      string    `json:"body"`
	Say       string    `json:"say"`
	Thread    string    `json:"thread_id"`
	Count     int64     `json:"thread_count"`
	Contact   string    `json:"contact_id"`
	Approval  string    `json:"approval_id"`
	Error     string    `json:"error"`
	Warning   string    `json:"warning"`
	Duration  int64     `json:"duration"`
	SentAt    time.Time `json:"sent_at"`
}

// addressed is one or several addresses.
type addressed []string

// UnmarshalJSON reads a text or an array of them.
func (a *addressed) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = addressed{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// with is whom the message is to or from.
func (m message) with() string {
	if m.Direction != "in" {
		return strings.Join(m.To, ", ")
	}
	if m.FromName != "" {
		return m.FromName
	}
	return m.From
}

// messageStatuses are the statuses as people read them.
var messageStatuses = map[string]status{
	"queued": {"On its way", "wait"}, "sent": {"Sent", "good"}, "written": {"Not sent: in the outbox", "wait"}, "delivered": {"Delivered", "good"},
	"bounced": {"Came back", "bad"}, "failed": {"Failed", "bad"}, "unknown": {"Nobody knows whether it went out", "bad"}, "received": {"Received", ""},
	"ringing": {"Ringing", "wait"}, "in_progress": {"Talking", "wait"}, "completed": {"Ended", "good"}, "busy": {"Busy", "bad"},
	"no_answer": {"No answer", "bad"}, "cancelled": {"Cancelled", "bad"}, "done": {"Done", "good"},
}

// outsideStatus returns the status as people read it.
func outsideStatus(s string) status {
	if known, ok := messageStatuses[s]; ok {
		return known
	}
	return status{s, ""}
}

// A messageRow is one thread, or one call, in a list.
type messageRow struct {
	Path, With, Subject string
	In                  bool
	Count               int64
	When                *moment
	Status              status
}

// A messagesPage lists the threads of one kind.
type messagesPage struct {
	Tabs  []tab
	Rows  []messageRow
	Next  string
	Empty string
}

// A shownMessage is one message of a thread.
type shownMessage struct {
	ID, From, To, CC, BCC string
	In                    bool
	When                  *moment
	Status                status
	Body                  shown
	Error, Warning        string
	Approval, Duration    string
}

// A threadPage shows a thread.
type threadPage struct {
	Back, Title, Contact string
	Messages             []shownMessage
	More                 bool // there are earlier ones
}

// read does a reading action for the person, and decodes what it answers.
func (p *Pages) read(ctx context.Context, in room, action, id string, input, to any) (*catalog.Pagination, error) {
	res, err := p.act(ctx, in, action, id, 0, input)
	if err != nil {
		return nil, err
	}
	return res.Pagination, json.Unmarshal(res.Data, to)
}

func (p *Pages) messages(r *http.Request, in room) (answer, error) {
	kind := r.URL.Query().Get("kind")
	if kind == "" {
		kind = messageKinds[0]
	}
	page := messagesPage{}
	var resource *catalog.Resource
	for _, name := range messageKinds {
		each, ok := p.Catalog.Resource(name)
		if !ok || in.grant.Decide(name, access.Read) == access.Deny {
			continue
		}
		page.Tabs = append(page.Tabs, tab{Path: messagesPath + "?kind=" + name, Title: each.Label, Here: name == kind})
		if name == kind {
			resource = each
		}
	}
	if resource == nil {
		return answer{}, problem.Errorf(problem.NotFound, "there are no messages of the kind %.40q that you may read", kind)
	}
	input := map[string]any{"limit": messagesOnPage}
	if kind != "calls" {
		input["latest"] = true
	}
	if cursor := r.URL.Query().Get("cursor"); cursor != "" {
		input["cursor"] = cursor
	}
	var list []message
	pages, err := p.read(r.Context(), in, "list_"+kind, "", input, &list)
	if err != nil {
		return answer{}, err
	}
	now, zone := p.Now(), in.zone()
	for _, m := range list {
		subject := m.Subject
		for _, text := range []string{m.Body, m.Say} {
			if subject == "" {
				subject = text
			}
		}
		page.Rows = append(page.Rows, messageRow{Path: messagesPath + "/" + m.ID, With: m.with(), Subject: clipLine(subject), In: m.Direction == "in", Count: m.Count,
			When: momentOf(m.CreatedAt, now, zone), Status: outsideStatus(m.Status)})
	}
	if pages != nil && pages.NextCursor != "" {
		page.Next = messagesPath + "?" + url.Values{"kind": {kind}, "cursor": {pages.NextCursor}}.Encode()
	}
	page.Empty = "Nothing was sent or received yet."
	return answer{page: "messages.html", title: "Messages", data: page}, nil
}

// clipLine returns the beginning of a text on one line.
func clipLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 90 {
		return string(r[:89]) + "…"
	}
	return s
}

// resourceOfID returns the resource whose ids are like the id.
func (p *Pages) resourceOfID(id string) (*catalog.Resource, bool) {
	for _, name := range messageKinds {
		if r, ok := p.Catalog.Resource(name); ok && typeid.ValidID(r.Prefix, id) {
			return r, true
		}
	}
	return nil, false
}

func (p *Pages) thread(r *http.Request, in room) (answer, error) {
	id := r.PathValue("message")
	resource, ok := p.resourceOfID(id)
	if !ok {
		return answer{}, problem.Errorf(problem.NotFound, "there is no such message").WithFix("Choose one from the list.")
	}
	var m message
	if _, err := p.read(r.Context(), in, "get_"+resource.Singular, id, struct{}{}, &m); err != nil {
		return answer{}, err
	}
	list := []message{m}
	page := threadPage{Back: messagesPath + "?kind=" + resource.Name, Title: m.Subject}
	if m.Thread != "" {
		list = nil
		pages, err := p.read(r.Context(), in, "list_"+resource.Name, "", map[string]any{"thread_id": m.Thread, "limit": threadOnPage}, &list)
		if err != nil {
			return answer{}, err
		}
		page.More = pages != nil && pages.HasMore
	}
	if page.Title == "" {
		page.Title = resource.Label + " with " + m.with()
	}
	now, zone := p.Now(), in.zone()
	for i := len(list) - 1; i >= 0; i-- { // the oldest first
		m := list[i]
		body := m.Body
		if body == "" {
			body = m.Say
		}
		s := shownMessage{ID: m.ID, From: m.From, To: strings.Join(m.To, ", "), CC: strings.Join(m.CC, ", "), BCC: strings.Join(m.BCC, ", "), In: m.Direction == "in",
			When: momentOf(m.CreatedAt, now, zone), Status: outsideStatus(m.Status), Body: fold(body), Error: m.Error, Warning: m.Warning, Approval: m.Approval}
		if m.FromName != "" {
			s.From = m.FromName + " <" + m.From + ">"
		}
		if m.Duration > 0 {
			s.Duration = (time.Duration(m.Duration) * time.Second).String()
		}
		page.Messages = append(page.Messages, s)
	}
	if contacts, ok := p.Catalog.Resource("contacts"); ok && m.Contact != "" {
		res, err := p.act(r.Context(), in, "get_"+strings.ReplaceAll(contacts.Singular, "-", "_"), m.Contact, 0, struct{}{})
		if err == nil {
			page.Contact = contacts.TitleOf(res.Data)
		} else if !problem.Is(err, problem.NotFound) && !problem.Is(err, problem.InsufficientScope) {
			return answer{}, err
		}
	}
	return answer{page: "thread.html", title: visibleText(page.Title), data: page}, nil
}
