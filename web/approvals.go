package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
)

// inboxPage is how many approvals the list shows.
const inboxPage = 50

// An inboxRow is an approval in the list.
type inboxRow struct {
	ID, Path      string
	Title, Object string // what is to be done, and to what
	Who           string
	When          *moment
	Asked         int64
	Badge         status
	Here          bool
	Waits         bool // it can be decided
	Mine          bool // it is assigned to the reader
}

// A rowGroup is the rows of one requester; without grouping there is one group.
type rowGroup struct {
	Name string
	Rows []inboxRow
}

// An inbox is the page about approvals: the list, and the card of one of them.
type inbox struct {
	Tabs    []tab
	Filters []tab
	Fields  []field // further filters
	Groups  []rowGroup
	Next    string // where older ones are, "" if there are none
	Empty   string // what to say if there are none
	Card    *card
	Shown   string // the query that shows this list, for the forms
	Member  bool   // the reader is no admin
	Batch   bool   // there is something to select
}

// shows are what the list can show.
var shows = []struct{ name, title string }{{"", "Waiting"}, {"mine", "Assigned to me"}, {"decided", "Decided"}, {"all", "All"}}

// A listQuery is the query of the list, of which the card's forms keep what
// brings back the same list.
type listQuery struct{ show, by, resource, group, before string }

func listQueryOf(q url.Values) listQuery {
	return listQuery{q.Get("show"), q.Get("by"), q.Get("resource"), q.Get("group"), q.Get("before")}
}

// path returns the list with an approval selected, none with "".
func (l listQuery) path(id string) string {
	q := url.Values{"tab": {"approvals"}}
	for name, v := range map[string]string{"show": l.show, "by": l.by, "resource": l.resource, "group": l.group, "before": l.before, "approval": id} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return apiPath + "?" + q.Encode()
}

func (p *Pages) approvals(r *http.Request, in room) (answer, error) {
	id := r.URL.Query().Get("approval")
	if id != "" {
		// A link leads to the approval, whichever of the person's workspaces it is in.
		there, err := p.roomOf(r.Context(), in, id)
		if err != nil {
			return answer{}, err
		}
		if there.membership.Workspace.ID != in.membership.Workspace.ID {
			p.sessions.Put(r.Context(), workspaceKey, there.membership.Workspace.ID)
			return redirect(r.URL.RequestURI()), nil
		}
	}
	l := listQueryOf(r.URL.Query())
	page := inbox{Member: !in.grant.IsAdmin(), Shown: strings.TrimPrefix(l.path(""), apiPath)}
	list, err := p.listed(r.Context(), in, l)
	if err != nil {
		return answer{}, err
	}
	if len(list) > inboxPage {
		list = list[:inboxPage]
		older := l
		older.before = list[inboxPage-1].ID
		page.Next = older.path("")
	}
	if id == "" && len(list) > 0 {
		id = list[0].ID
	}
	page.fill(p, in, l, list, id)
	if id != "" {
		c, err := p.Gate.Card(r.Context(), in.grant, id)
		if err == nil {
			err = p.Gate.Foresee(r.Context(), in.grant, &c)
		}
		if err != nil {
			return answer{}, err
		}
		users, err := p.deciders(r.Context(), in)
		if err != nil {
			return answer{}, err
		}
		page.Card = p.card(in, c, l, users)
		page.Card.Rejecting = r.URL.Query().Has(rejectingField)
		if page.Card.Lent, err = p.lent(r.Context(), in, c.RequestedBy.ID); err != nil {
			return answer{}, err
		}
	}
	page.Tabs, err = p.tabs(r, in, approvalsPath)
	a := answer{page: "approvals.html", title: "Approvals", data: &page}
	if page.Card != nil {
		a.title = page.Card.Fact
	}
	return a, err
}

// roomOf returns the room of the person's workspace that the approval is in. It
// fails with [problem.NotFound] if they see no such approval.
func (p *Pages) roomOf(ctx context.Context, in room, id string) (room, error) {
	_, err := p.Gate.Approval(ctx, in.grant, id)
	if err == nil || !problem.Is(err, problem.NotFound) {
		return in, err
	}
	for _, m := range in.me.Memberships {
		there, err := p.enter(in.me, m.Workspace.ID)
		if err != nil {
			return in, err
		}
		if _, err := p.Gate.Approval(ctx, there.grant, id); err == nil {
			return there, nil
		}
	}
	return in, problem.Errorf(problem.NotFound, "there is no approval that you may see under this address").
		WithFix("It may be in a workspace that you do not belong to. Approvals lists what waits for you.")
}

// listed returns the approvals that the query selects, one more than a page.
func (p *Pages) listed(ctx context.Context, in room, l listQuery) ([]approvals.Approval, error) {
	q := approvals.Query{Resource: l.resource, Before: l.before, Limit: inboxPage + 1}
	if strings.HasPrefix(l.by, "cli_") || strings.HasPrefix(l.by, "https://") {
		q.Client = l.by
	} else {
		q.Credential = l.by
	}
	switch l.show {
	case "mine":
		q.Assignee = in.me.User.ID
		return p.Gate.Inbox(ctx, in.grant, q)
	case "decided":
		q.Decided = true
		return p.Gate.List(ctx, in.grant, q)
	case "all":
		return p.Gate.List(ctx, in.grant, q)
	}
	return p.Gate.Inbox(ctx, in.grant, q)
}

// fill puts the list into the page.
func (page *inbox) fill(p *Pages, in room, l listQuery, list []approvals.Approval, selected string) {
	for _, s := range shows {
		at := l
		at.show, at.before = s.name, ""
		page.Filters = append(page.Filters, tab{Path: at.path(""), Title: s.title, Here: s.name == l.show})
	}
	resources := []option{{"", "All resources", l.resource == ""}}
	for _, res := range p.Catalog.Resources() {
		resources = append(resources, option{res.Name, res.Label, res.Name == l.resource})
	}
	agents := []option{{"", "All agents", l.by == ""}}
	for _, a := range list {
		id := a.By.ID
		if !slices.ContainsFunc(agents, func(o option) bool { return o.Value == id }) {
			agents = append(agents, option{id, visibleText(whoAsks(a.By)), id == l.by})
		}
	}
	if l.by != "" && !slices.ContainsFunc(agents, func(o option) bool { return o.Selected }) {
		agents = append(agents, option{l.by, "The one agent", true})
	}
	page.Fields = []field{
		{Name: "resource", Label: "Resource", Options: resources},
		{Name: "by", Label: "Agent", Options: agents},
		{Name: "group", Label: "Grouped", Options: []option{{"", "By time", l.group == ""}, {"agent", "By agent", l.group == "agent"}}},
	}
	for _, a := range list {
		row := p.inboxRow(in, a)
		row.Path, row.Here = l.path(a.ID), a.ID == selected
		page.Batch = page.Batch || row.Waits
		name := ""
		if l.group == "agent" {
			name = whoAsks(a.By)
		}
		i := slices.IndexFunc(page.Groups, func(g rowGroup) bool { return g.Name == name })
		if i < 0 {
			i = len(page.Groups)
			page.Groups = append(page.Groups, rowGroup{Name: name})
		}
		page.Groups[i].Rows = append(page.Groups[i].Rows, row)
	}
	switch {
	case len(list) > 0:
	case l.show == "" && l.by == "" && l.resource == "":
		page.Empty = "Nothing waits. What an agent may do only with approval stands here as soon as it asks, with what would change, until somebody decides."
	default:
		page.Empty = "Nothing here. Choose other filters to see more."
	}
}

// whoAsks names who asks: the credential, and whom it acts for.
func whoAsks(by access.Principal) string { return by.Name }

func (p *Pages) inboxRow(in room, a approvals.Approval) inboxRow {
	row := inboxRow{ID: a.ID, Title: p.actionTitle(a.Action), Object: a.Title, Who: whoAsks(a.By), When: momentOf(a.CreatedAt, p.Now(), in.zone()), Asked: a.Asked,
		Badge: p.badge(a.Status, a.Execution, a.ExpiresAt), Waits: a.Status == approvals.Pending, Mine: a.Assignee != "" && a.Assignee == in.me.User.ID}
	if row.Object == "" {
		row.Object = a.TargetID
	}
	if outside := p.Gate.Outside(a); outside != "" && a.Execution == approvals.Done {
		row.Badge = outsideStatus(outside)
	}
	return row
}

func (p *Pages) actionTitle(name string) string {
	if a, ok := p.Catalog.Find(name); ok {
		return a.Title
	}
	return name
}

// warnBefore is how long before its expiry a waiting approval stands out.
const warnBefore = 24 * time.Hour

// badge says in few words how an approval stands.
func (p *Pages) badge(s approvals.Status, e approvals.Execution, expires time.Time) status {
	switch s {
	case approvals.Pending:
		left := expires.Sub(p.Now())
		switch {
		case left <= 0:
			return status{"expired", "bad"}
		case left < time.Hour:
			return status{fmt.Sprintf("%d min left", max(1, int(left.Minutes()))), "bad"}
		case left < warnBefore:
			return status{fmt.Sprintf("%d h left", int(left.Hours())), "bad"}
		}
		return status{fmt.Sprintf("%d d left", int(left.Hours()/24)), "wait"}
	case approvals.Approved:
		switch e {
		case approvals.Done:
			return status{"done", "good"}
		case approvals.Failed:
			return status{"failed", "bad"}
		case approvals.Dismissed:
			return status{"failed, let be", ""}
		}
		return status{"approved", "wait"}
	case approvals.Rejected:
		return status{"rejected", "bad"}
	}
	return status{string(s), ""}
}

// deciders returns the members whom an approval can be assigned to.
func (p *Pages) deciders(ctx context.Context, in room) ([]access.User, error) {
	if !in.grant.IsAdmin() {
		return nil, nil
	}
	users, err := p.Gate.Store.Users(ctx, in.membership.Workspace.ID)
	return slices.DeleteFunc(users, func(u access.User) bool { return !p.Catalog.RoleRights(u.Role).Full() }), err
}

// decideAs is the beginning of every decision: the approval's room, whichever
// workspace the person is in.
func (p *Pages) decideAs(h func(r *http.Request, in room, id string) (answer, error)) handle {
	return p.room(func(r *http.Request, in room) (answer, error) {
		id := r.PathValue("approval")
		there, err := p.roomOf(r.Context(), in, id)
		if err != nil {
			return answer{}, err
		}
		return h(r, there, id)
	})
}

// backTo returns the list that the form came from, with the approval selected.
func backTo(r *http.Request, id string) answer {
	q, err := url.ParseQuery(strings.TrimPrefix(r.PostForm.Get("list"), "?"))
	if err != nil {
		q = nil
	}
	return redirect(listQueryOf(q).path(id))
}

// undecided tells why nothing was decided, on the card as it is now.
func (p *Pages) undecided(r *http.Request, id string, err error) (answer, error) {
	switch e := problem.Of(err); e.Kind {
	case problem.Conflict, problem.InsufficientScope, problem.Validation, problem.MissingFields:
		p.warn(r.Context(), "Nothing is decided: "+visibleText(strings.TrimSpace(e.Message+". "+e.Fix)))
		return backTo(r, id), nil
	}
	return answer{}, err
}

func (p *Pages) approve(r *http.Request, in room, id string) (answer, error) {
	form := r.PostForm
	version, _ := strconv.ParseInt(form.Get("target_version"), 10, 64) // 0 is refused where it counts
	seen := approvals.Seen{Digest: form.Get("digest"), Stale: approvals.Stale(form.Get("stale")), TargetVersion: version}
	if seen.Digest == "" {
		return p.undecided(r, id, problem.Errorf(problem.Validation, "the form does not say what was looked at"))
	}
	a, err := p.Gate.Approve(r.Context(), in.grant, id, seen)
	if err != nil {
		return p.undecided(r, id, err)
	}
	p.tellDecided(r.Context(), a)
	return backTo(r, id), nil
}

// tellDecided says what has happened, and what follows.
func (p *Pages) tellDecided(ctx context.Context, a approvals.Approval) {
	who := visibleText(a.By.Name)
	switch {
	case a.Status == approvals.Pending:
		p.tell(ctx, "Your yes is noted. One more person has to approve the same before it is done.")
	case a.Execution == approvals.Failed:
		p.warn(ctx, "Approved, but it failed: "+visibleText(sentence(a.Error.Message))+" Nothing was changed. You can try it again, or let it be.")
	case p.Gate.Outside(a) == catalog.Queued:
		p.tell(ctx, "Approved. It is on its way; the card tells how it ends.")
	case a.Edited != nil:
		p.tell(ctx, "Approved with changes, and done. "+who+" is told what was done instead.")
	default:
		p.tell(ctx, "Approved, and done. "+who+" is told when it asks.")
	}
}

func (p *Pages) reject(r *http.Request, in room, id string) (answer, error) {
	reason := reasonOf(r.PostForm)
	if reason == "" {
		a := backTo(r, id)
		a.location += "&" + rejectingField + "=yes"
		return a, nil
	}
	a, err := p.Gate.Reject(r.Context(), in.grant, id, reason)
	if err != nil {
		return p.undecided(r, id, err)
	}
	p.tell(r.Context(), p.rejected(r.Context(), in, a))
	return backTo(r, id), nil
}

// rejectingField, in the query, opens the form to reject, which lacked a reason.
const rejectingField = "rejecting"

// reasonOf reads the reason: what was typed, after the quick reason if both
// were given.
func reasonOf(form url.Values) string {
	return strings.TrimSpace(strings.TrimSpace(form.Get("quick")) + " " + strings.TrimSpace(form.Get("reason")))
}

// rejected says what follows a rejection.
func (p *Pages) rejected(ctx context.Context, in room, a approvals.Approval) string {
	who := visibleText(a.By.Name)
	owner := a.By.Client
	if owner == "" {
		owner = a.By.ID
	}
	if _, err := p.Gate.Store.EndpointOf(ctx, in.membership.Workspace.ID, owner); err == nil {
		return "Rejected. " + who + " is told the reason when it asks, and its webhook’s delivery is on its way."
	}
	return "Rejected. " + who + " is told the reason when it asks."
}

func (p *Pages) extend(r *http.Request, in room, id string) (answer, error) {
	hours, err := strconv.Atoi(r.PostForm.Get("hours"))
	if err != nil {
		return answer{}, wrongField("hours", "one of the choices", r.PostForm.Get("hours"))
	}
	a, err := p.Gate.Extend(r.Context(), in.grant, id, p.Now().Add(time.Duration(hours)*time.Hour))
	if err != nil {
		return p.undecided(r, id, err)
	}
	p.tell(r.Context(), "It stays open until "+momentOf(a.ExpiresAt, p.Now(), in.zone()).Exact+".")
	return backTo(r, id), nil
}

func (p *Pages) assign(r *http.Request, in room, id string) (answer, error) {
	a, err := p.Gate.Assign(r.Context(), in.grant, id, r.PostForm.Get("user"))
	if err != nil {
		return p.undecided(r, id, err)
	}
	p.tell(r.Context(), "It is nobody’s in particular now.")
	if a.Assignee != "" {
		p.tell(r.Context(), "It is assigned. It stands first under “Assigned to me” of that person.")
	}
	return backTo(r, id), nil
}

func (p *Pages) retry(r *http.Request, in room, id string) (answer, error) {
	a, err := p.Gate.Retry(r.Context(), in.grant, id)
	if err != nil {
		return p.undecided(r, id, err)
	}
	p.tellDecided(r.Context(), a)
	return backTo(r, id), nil
}

func (p *Pages) dismiss(r *http.Request, in room, id string) (answer, error) {
	if _, err := p.Gate.Dismiss(r.Context(), in.grant, id); err != nil {
		return p.undecided(r, id, err)
	}
	p.tell(r.Context(), "Let be: it is not done, and does not wait any more.")
	return backTo(r, id), nil
}

// A batchPage shows what a batch would decide, or what became of it.
type batchPage struct {
	Rows    []batchRow
	Reasons []radio
	Error   string
	Decided bool
	Done    int
}

// A batchRow is one approval of a batch.
type batchRow struct {
	inboxRow
	Digest   string
	Changes  []shownFact
	Warnings []string
	More     bool   // it does more than its input says
	Blocked  string // why it cannot be approved, "" if it can
	Outcome  status
	Error    string
}

// batch shows the selected approvals in one table, and decides them once that
// was confirmed.
func (p *Pages) batch(r *http.Request, in room) (answer, error) {
	ids := r.PostForm["id"]
	if len(ids) == 0 {
		p.warn(r.Context(), "Nothing is selected: tick the approvals that you want to decide together.")
		return backTo(r, ""), nil
	}
	if len(ids) > approvals.MaxBatch {
		return answer{}, problem.Errorf(problem.Validation, "more than %d approvals are selected", approvals.MaxBatch).WithFix("Go back and select fewer.")
	}
	var page batchPage
	decision := r.PostForm.Get("decision")
	reason := reasonOf(r.PostForm)
	if decision == "reject" && reason == "" {
		page.Error, decision = "Choose or type a reason: the agents are told it.", ""
	}
	if decision != "approve" && decision != "reject" {
		err := p.beforeBatch(r.Context(), in, &page, ids)
		return answer{page: "batch.html", title: "Decide together", data: page}, err
	}
	var items []approvals.BatchItem
	for i, id := range ids {
		item := approvals.BatchItem{ID: id}
		if digests := r.PostForm["digest"]; i < len(digests) {
			item.Digest = digests[i]
		}
		if item.Digest == "" {
			return answer{}, problem.Errorf(problem.Validation, "the form does not say what was looked at").WithFix("Go back and select again.")
		}
		items = append(items, item)
	}
	asked, err := p.asked(r.Context(), in, ids)
	if err != nil {
		return answer{}, err
	}
	results, err := p.Gate.Batch(r.Context(), in.grant, items, decision == "reject", reason)
	if err != nil {
		return answer{}, err
	}
	page.Decided = true
	for _, res := range results {
		row := batchRow{inboxRow: inboxRow{ID: res.ID}}
		if res.Err != nil {
			if a, ok := asked[res.ID]; ok {
				row.inboxRow = p.inboxRow(in, a)
			}
			why := strings.TrimPrefix(problem.Report(r.Context(), res.Err).Message, "approval "+res.ID+" ")
			row.Outcome, row.Error = status{"not decided", "bad"}, sentence("It "+why)+" Its card tells what can be done."
		} else {
			row.inboxRow = p.inboxRow(in, res.Approval)
			row.Outcome = row.Badge
			page.Done++
			if res.Approval.Error != nil {
				row.Error = sentence(res.Approval.Error.Message)
			}
		}
		row.Path = listQuery{}.path(res.ID)
		page.Rows = append(page.Rows, row)
	}
	return answer{page: "batch.html", title: "Decided together", data: page}, nil
}

// asked returns the approvals by their ids.
func (p *Pages) asked(ctx context.Context, in room, ids []string) (map[string]approvals.Approval, error) {
	list, err := p.Gate.List(ctx, in.grant, approvals.Query{IDs: ids, Limit: len(ids)})
	asked := map[string]approvals.Approval{}
	for _, a := range list {
		asked[a.ID] = a
	}
	return asked, err
}

// beforeBatch looks at what a batch would decide.
func (p *Pages) beforeBatch(ctx context.Context, in room, page *batchPage, ids []string) error {
	list, err := p.Gate.List(ctx, in.grant, approvals.Query{IDs: ids, Limit: len(ids)})
	if err != nil {
		return err
	}
	briefs, err := p.Gate.Briefs(ctx, in.grant, list)
	if err != nil {
		return err
	}
	for i, a := range list {
		shown := p.card(in, briefs[i], listQuery{}, nil)
		row := batchRow{inboxRow: p.inboxRow(in, a), Digest: a.Digest, Changes: shown.Changes}
		row.Path = listQuery{}.path(a.ID)
		for _, check := range shown.Checks { // of a brief, they are all warnings
			row.Warnings = append(row.Warnings, check.Text)
		}
		if action, ok := p.Catalog.Find(a.Action); ok {
			row.More = action.Op == catalog.OpOther
		}
		if a.Status != approvals.Pending {
			row.Blocked = "It is " + row.Badge.Word + " already."
		}
		page.Rows = append(page.Rows, row)
	}
	page.Reasons = quickReasons()
	return nil
}

func quickReasons() []radio {
	radios := []radio{{Name: "quick", Value: "", Title: "In your own words", Checked: true}}
	for _, reason := range approvals.QuickReasons {
		radios = append(radios, radio{Name: "quick", Value: reason, Title: reason})
	}
	return radios
}
