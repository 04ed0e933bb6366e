package messages

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/problem"
)

// A Tally names what is counted: the messages of a credential on a day, the cost
// of an account in a month.
type Tally struct {
	Owner  string // a credential or an account
	What   string
	Period string // as in 2026-01-31 or 2026-01, UTC
}

// Sends is the tally of a credential's messages on a [Day]. Beside it stands
// [integrations.CostTally].
const Sends = "sends"

// A Store keeps messages. Each method sees and touches only the rows of the
// workspace that it is given.
type Store interface {
	approvals.Store
	jobs.Store
	integrations.AccountStore

	// AddTally counts n more, unless that would make it more than most, and
	// returns what is counted then. Of concurrent calls no more succeed than there
	// is room for.
	AddTally(ctx context.Context, workspace string, t Tally, n, most int64, now time.Time) (total int64, added bool, err error)
	Tally(ctx context.Context, workspace string, t Tally) (int64, error)

	// Notify tells the watchers of the topic once the transaction commits.
	Notify(topic string)

	// Workspace returns one workspace. It fails with [problem.NotFound].
	Workspace(ctx context.Context, id string) (access.Workspace, error)
}

// A Carrier takes messages out and brings answers in. It is safe for concurrent
// use.
type Carrier struct {
	Store    Store // for reads
	InTx     func(ctx context.Context, fn func(tx Store) error) error
	Gate     *approvals.Gate
	Catalog  *catalog.Catalog
	Accounts *integrations.Accounts
	Mail     *integrations.Mailer // for workspaces without a mail account
	BaseURL  string               // of this server, for the calls of providers
	Now      func() time.Time
}

// Services returns what performs the actions of the resources that reach
// outside, by resource.
func (cr *Carrier) Services() map[string]catalog.Service {
	return map[string]catalog.Service{
		emailResource: cr.email,
		smsResource:   cr.phone,
		callsResource: cr.phone,
		aiResource:    cr.ai,
	}
}

// The resources.
const (
	emailResource = "email"
	smsResource   = "sms"
	callsResource = "calls"
	aiResource    = "ai"
)

// The statuses that messages share. That of what is on its way is
// [catalog.Queued].
const (
	statusSent     = "sent"
	statusWritten  = catalog.Written
	statusBounced  = catalog.Bounced
	statusFailed   = catalog.Failed
	statusUnknown  = catalog.Unknown
	statusReceived = "received"
	statusDone     = "done"
)

func (cr *Carrier) now() time.Time { return cr.Now().UTC().Truncate(time.Millisecond) }

func (cr *Carrier) resource(name string) *catalog.Resource {
	r, ok := cr.Catalog.Resource(name)
	if !ok {
		panic("the catalog has no resource " + name) // it is part of the program
	}
	return r
}

// A carry is the payload of a job: what is to be taken out, and where it came
// from.
type carry struct {
	ID     string               `json:"id"` // of the record
	Origin approvals.Origin     `json:"origin"`
	Prompt *integrations.Prompt `json:"prompt,omitempty"` // for a model
}

// jobKind is the kind of the jobs that take records of the resource out.
func jobKind(resource string) string { return resource + ".carry" }

// enqueue has the record taken out once the transaction commits.
func (cr *Carrier) enqueue(ctx context.Context, tx Store, workspace, resource string, p carry, now time.Time) error {
	j, err := jobs.New(now, workspace, jobKind(resource), p.ID, p, now)
	if err != nil {
		return err
	}
	return tx.EnqueueJob(ctx, j)
}

// earlier returns what an earlier run of the same approval has made, nil if there
// is nothing.
func (cr *Carrier) earlier(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (*catalog.Record, error) {
	var made struct {
		ID string `json:"id"`
	}
	if c.Earlier == nil || json.Unmarshal(c.Earlier, &made) != nil || made.ID == "" {
		return nil, nil
	}
	rec, err := s.Record(ctx, c.Grant.Workspace.ID, a.Resource, made.ID, lock)
	if problem.Is(err, problem.NotFound) {
		return nil, nil
	}
	return &rec, err
}

// again takes out once more what an earlier run has made, as the same message,
// with the changes. Only if somebody outside had taken it already, and then could
// not deliver it, it gets another key: under the old one it would be answered as
// before.
func (cr *Carrier) again(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, rec catalog.Record, changes map[string]any, prompt *integrations.Prompt) (catalog.Result, error) {
	r, w := a.Of(), c.Grant.Workspace.ID
	values, err := rec.Values()
	if err != nil {
		return catalog.Result{}, err
	}
	attempt := max(integer(values["attempt"]), 1) + 1
	fresh := map[string]any{"status": catalog.Queued, "error": nil, "tries": nil, "approval_id": c.Approval, "attempt": number(attempt)}
	if values["provider_id"] != nil {
		fresh["provider_id"] = nil
		if values["status"] == statusFailed {
			fresh["sent_as"] = fmt.Sprintf("%s-%d", rec.ID, attempt)
		}
	}
	for name, v := range changes {
		fresh[name] = v
	}
	if rec, err = r.Change(ctx, tx, w, rec, fresh, c.Now); err != nil {
		return catalog.Result{}, err
	}
	if err := cr.enqueue(ctx, tx, w, r.Name, carry{rec.ID, approvals.OriginOf(a, c), prompt}, c.Now); err != nil {
		return catalog.Result{}, err
	}
	return result(r, rec)
}

func result(r *catalog.Resource, rec catalog.Record) (catalog.Result, error) {
	data, err := r.Answer(rec)
	return catalog.Result{Data: data, Target: r.TargetOf(rec)}, err
}

// Day names the period of [Sends] at t.
func Day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// sendsOf names the messages of the caller today. Keys that stem from the same
// key, and clients that act for themselves and were registered by one of them,
// count together: otherwise whoever makes keys has no cap.
func sendsOf(ctx context.Context, s Store, c catalog.Call) (Tally, error) {
	p := c.Grant.Principal
	owner := p.ID
	if p.Kind == access.KindKey || p.User == "" {
		var err error
		if owner, err = approvals.Founder(ctx, s, c.Grant.Workspace.ID, p.ID, c.Grant.Parent); err != nil {
			return Tally{}, err
		}
	}
	return Tally{owner, Sends, Day(c.Now)}, nil
}

// capCheck says how many of the day's messages the credential has sent. People
// are not held by the cap.
func (cr *Carrier) capCheck(ctx context.Context, s Store, c catalog.Call) (catalog.PlanCheck, error) {
	if !capped(c) {
		return catalog.PlanCheck{Name: "cap", OK: true, Text: "People are not held by the daily cap on sending."}, nil
	}
	day, err := sendsOf(ctx, s, c)
	if err != nil {
		return catalog.PlanCheck{}, err
	}
	n, err := s.Tally(ctx, c.Grant.Workspace.ID, day)
	most := c.Grant.Workspace.Settings.SendCap()
	check := catalog.PlanCheck{Name: "cap", OK: n < most, Blocks: true, Text: fmt.Sprintf("The credential has sent %d of the %d messages that it may send a day.", n, most)}
	if !check.OK {
		check.Text = capText(most)
	}
	return check, err
}

func capped(c catalog.Call) bool {
	k := c.Grant.Principal.Kind
	return k == access.KindKey || k == access.KindOAuth
}

func capText(most int64) string {
	return fmt.Sprintf("The credential has sent the %d messages that it may send a day; no approval lifts that. The next day begins at 00:00 UTC", most)
}

// count takes one of the day's messages, and refuses if there is none left.
func (cr *Carrier) count(ctx context.Context, tx Store, c catalog.Call) error {
	if !capped(c) {
		return nil
	}
	most := c.Grant.Workspace.Settings.SendCap()
	day, err := sendsOf(ctx, tx, c)
	if err != nil {
		return err
	}
	_, added, err := tx.AddTally(ctx, c.Grant.Workspace.ID, day, 1, most, c.Now)
	if err != nil || added {
		return err
	}
	e := problem.Errorf(problem.RateLimited, "%s", capText(most)).WithFix("Wait for the next day, or ask an admin of the workspace for a higher daily cap on sending.")
	e.RetryAfter = c.Now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(c.Now)
	return e
}

// join makes the next message the newest of its thread, and returns how many
// there are then. Of concurrent calls for one thread each waits for the one
// before.
func (cr *Carrier) join(ctx context.Context, tx Store, workspace string, r *catalog.Resource, thread string, now time.Time) (int64, error) {
	if err := tx.LockName(ctx, "thread "+workspace+" "+thread); err != nil {
		return 0, err
	}
	for range 5 {
		latest, err := cr.find(ctx, tx, workspace, r, r.Lookup("thread_id", thread), r.Lookup("latest", true))
		if err != nil || latest == nil {
			return 1, err
		}
		rec, err := tx.Record(ctx, workspace, r.Name, latest.ID, true)
		if err != nil {
			return 0, err
		}
		values, err := rec.Values()
		if err != nil {
			return 0, err
		}
		if values["latest"] != true {
			continue // another one was faster
		}
		n := integer(values["thread_count"])
		_, err = r.Change(ctx, tx, workspace, rec, map[string]any{"latest": nil, "thread_count": nil}, now)
		return max(n, 1) + 1, err
	}
	return 0, problem.Errorf(problem.Conflict, "the thread is busy").WithFix("Try again.")
}

// find returns the newest record that passes all filters, nil if there is none.
func (cr *Carrier) find(ctx context.Context, s catalog.Store, workspace string, r *catalog.Resource, filters ...catalog.Filter) (*catalog.Record, error) {
	recs, _, err := s.ListRecords(ctx, workspace, r.Name, catalog.Query{Filters: filters, Desc: true, Limit: 1})
	if err != nil || len(recs) == 0 {
		return nil, err
	}
	return &recs[0], nil
}

// contactBy returns the id of the contact whose field has the value, "" if there
// is none, or if the catalog has no such contacts.
func (cr *Carrier) contactBy(ctx context.Context, s catalog.Store, workspace, field, value string) (id, name string, err error) {
	r, ok := cr.Catalog.Resource("contacts")
	if !ok || r.Code {
		return "", "", nil
	}
	if f, ok := r.Field(field); !ok || !f.Indexed() {
		return "", "", nil
	}
	rec, err := cr.find(ctx, s, workspace, r, r.Lookup(field, value))
	if err != nil || rec == nil {
		return "", "", err
	}
	return rec.ID, r.TitleOf(rec.Body), nil
}

// mayReadContacts reports whether the caller may be told who is meant.
func mayReadContacts(g access.Grant) bool { return g.Decide("contacts", access.Read) == access.Run }

// set puts the value under the name unless it is empty.
func set(values map[string]any, name string, v any) {
	switch v := v.(type) {
	case nil:
	case string:
		if v != "" {
			values[name] = v
		}
	case []any:
		if len(v) > 0 {
			values[name] = v
		}
	default:
		values[name] = v
	}
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

func integer(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := strconv.ParseInt(string(n), 10, 64)
	return i
}

func number(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

// texts returns the items of a field of type tags.
func texts(v any) []string {
	items, _ := v.([]any)
	var all []string
	for _, item := range items {
		all = append(all, str(item))
	}
	return all
}

func tags(all []string) []any {
	items := make([]any, len(all))
	for i, s := range all {
		items[i] = s
	}
	return items
}

// timestamp returns t as records keep times.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// clip returns s as text of at most n characters that every database takes.
func clip(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// maxCost bounds sums of money.
const maxCost = math.MaxInt64 / 2
