package approvals

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

// A DryRun tells what would become of an action. Nothing of it was done: it was
// tried in a transaction that never commits.
type DryRun struct {
	Status   string   `json:"status"`             // dry_run
	Executed bool     `json:"executed"`           // false
	Message  string   `json:"message"`            // says so once more
	Would    Would    `json:"would"`              // what would become of the same in earnest
	Loan     string   `json:"loan,omitempty"`     // by which it would run
	Approval *Pointer `json:"approval,omitempty"` // which the same request has already
	Effects
}

// Would is what would become of an action.
type Would string

// What would become of it.
const (
	WouldRun    Would = "run"
	WouldWait   Would = "wait"   // for a person
	WouldAnswer Would = "answer" // as the same request was answered before
)

// Effects are what an action would do, as far as the reader may know it.
type Effects struct {
	Changes  []RowChange    `json:"changes"`            // of what the reader may read
	Hidden   int            `json:"hidden"`             // how many more there are
	Messages []Sending      `json:"messages"`           // that would go out
	Webhooks *int           `json:"webhooks,omitempty"` // how many deliveries would follow the changes; nil for who may not read webhooks
	Events   map[string]int `json:"events,omitempty"`   // what the log would tell besides, and how often
	Notes    []string       `json:"notes,omitempty"`
	Error    *problem.Error `json:"error,omitempty"` // with which it would fail; then there are no effects
}

// A RowChange is what would become of one record, or of another thing that an
// action is about.
type RowChange struct {
	Change   string        `json:"change"` // created, updated or deleted
	Resource string        `json:"resource"`
	ID       string        `json:"id,omitempty"` // what is yet to be made has none
	Title    string        `json:"title,omitempty"`
	Fields   []FieldChange `json:"fields"`
}

// A FieldChange is a field before and after; a value that is not set is absent.
type FieldChange struct {
	Name   string          `json:"name"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// A Sending is what would go outside.
type Sending struct {
	Kind    string   `json:"kind"` // email, sms, call; ai is a question to a model, test the test of an integration
	To      []string `json:"to,omitempty"`
	Subject string   `json:"subject,omitempty"`
	Outbox  bool     `json:"outbox,omitempty"` // nothing is connected that it could go out by: it would be written to a file
}

// The fixed sentences of dry runs.
const (
	triedMessage = "NOT executed: this was a dry run. Nothing was done, sent or queued; do not report it as done."
	wouldRun     = " Without dry_run it would run at once."
	wouldWait    = " Without dry_run it would wait for a person; what it tells is what would follow their approval."
	wouldAnswer  = " Without dry_run it would not be done either: the same was asked before, and the answer would be how that approval stands."
	wouldFail    = " It would fail with the error given."
)

// errUndone rolls back what was only tried.
var errUndone = errors.New("a dry run is undone")

// undone calls fn with a transaction that never commits.
func (gate *Gate) undone(ctx context.Context, fn func(tx Store) error) error {
	err := gate.InTx(ctx, func(tx Store) error {
		if err := fn(tx); err != nil {
			return err
		}
		return errUndone
	})
	switch {
	case errors.Is(err, errUndone):
		return nil
	case problem.Is(err, problem.Unknown): // of others, who shared the commit: nothing of this was in it
		return problem.Errorf(problem.Unavailable, "the database was lost during the dry run, of which nothing was to be done").WithFix("Try it again.")
	}
	return err
}

// dryRun works out what would become of the call, whose level is not Deny, and
// records that somebody has looked. It fails as the call would.
func (gate *Gate) dryRun(ctx context.Context, a *catalog.Action, call catalog.Call, in Incoming, level access.Level) (*DryRun, error) {
	if in.Request.IdempotencyKey != "" {
		return nil, problem.Errorf(problem.Validation, "a dry run takes no Idempotency-Key").
			WithFix("Leave the header out: a dry run does nothing, so that it can be repeated.")
	}
	g := call.Grant
	var d DryRun
	var t trial
	err := gate.undone(ctx, func(tx Store) (err error) {
		d, t = DryRun{Status: "dry_run", Message: triedMessage, Would: WouldRun}, trial{} // it may be done again
		if level != access.Run {
			if err := gate.fate(ctx, tx, a, call, in, &d); err != nil {
				return err
			}
		}
		if d.Would == WouldAnswer || a.Lends() || d.Would == WouldWait && !mayReadOf(g, a.Of()) {
			return nil
		}
		tried := call
		tried.Input.Values = veiled(a, call.Input.Values)
		if d.Would == WouldWait {
			tried.Approval = typeid.NewID("apr")
		}
		t, err = gate.try(ctx, tx, a, tried)
		return err
	})
	if err == nil && t.err != nil && d.Would == WouldRun {
		err = t.err
	}
	if err != nil {
		return nil, err
	}
	d.Effects = gate.effects(g, t)
	if a.Lends() {
		d.Notes = append(d.Notes, "Whoever approves it lends what is asked for, or for another of the times there are.")
	}
	switch d.Would {
	case WouldRun:
		d.Message += wouldRun
	case WouldAnswer:
		d.Message += wouldAnswer
	case WouldWait:
		d.Message += wouldWait
		if !mayReadOf(g, a.Of()) {
			d.Notes = append(d.Notes, "What it would do is not told to who may not read "+a.Resource+".")
		}
	}
	if d.Error != nil {
		d.Message += wouldFail
	}
	if gate.Lookups[a.Resource] != nil && call.Input.Values["url"] != nil {
		d.Notes = append(d.Notes, "A dry run does not look up web addresses; one that cannot be found is refused in earnest.")
	}
	e := gate.entry(ctx, g.Workspace.ID, g.Principal, audit.ActionTried, call.Now)
	e.Action, e.Resource, e.Target, e.Level, e.Outcome, e.Door = a.Name, a.Resource, call.Input.ID, level.String(), string(d.Would), in.Request.Door
	if err := gate.InTx(ctx, func(tx Store) error { return tx.Audit(ctx, e) }); err != nil {
		return nil, err
	}
	return &d, nil
}

// fate finds out what would become of a call that does not run at once by right:
// it would use a loan, wait, or be answered as before. What it does to find out
// is undone before the action is tried.
func (gate *Gate) fate(ctx context.Context, tx Store, a *catalog.Action, call catalog.Call, in Incoming, d *DryRun) error {
	err := tx.Savepoint(ctx, func() error {
		loan, lent, err := gate.loan(ctx, tx, call.Grant, a, call, in)
		if err != nil {
			return err
		}
		if lent {
			d.Loan = loan.ID
			return errUndone
		}
		out, err := gate.queue(ctx, tx, a, call, in)
		if err != nil {
			return err
		}
		d.Would = WouldWait
		if p := out.Approval; !out.Created {
			d.Approval = &Pointer{p.ID, gate.URL(*p), p.ExpiresAt, p.Status}
			if p.Status != Pending {
				d.Would = WouldAnswer
			}
		}
		return errUndone
	})
	if errors.Is(err, errUndone) {
		return nil
	}
	return err
}

// veiled returns the values with others in place of the secrets of a record, so
// that it cannot be told from what would change whether a secret was guessed.
func veiled(a *catalog.Action, values map[string]any) map[string]any {
	if a.Of().Code {
		return values // its secrets are sealed, and compared with nothing
	}
	values = maps.Clone(values)
	for _, f := range a.Fields() {
		switch {
		case !f.Secret || values[f.Name] == nil || f.Type == catalog.TypeRef:
		case f.Type == catalog.TypeObject:
			values[f.Name] = map[string]any{"veiled": typeid.NewID("sec")}
		default:
			values[f.Name] = typeid.NewID("sec")
		}
	}
	return values
}

// A trial is what a run of an action has done before it was undone.
type trial struct {
	action   *catalog.Action
	call     catalog.Call
	preview  catalog.Preview
	result   catalog.Result
	changes  []catalog.Change
	sendings []Sending
	webhooks int
	events   map[string]int
	err      error // of the action; then the rest is empty
}

// try runs the action in a transaction that is to be undone. It fails only for
// what is the server's fault; what the action fails with is in the trial.
func (gate *Gate) try(ctx context.Context, tx Store, a *catalog.Action, call catalog.Call) (trial, error) {
	t := trial{action: a, call: call, events: map[string]int{}}
	workspace := call.Grant.Workspace.ID
	err := tx.Savepoint(ctx, func() (err error) {
		t.preview, t.result, err = a.Try(ctx, tx, call)
		return err
	})
	if e, ok := errors.AsType[*problem.Error](err); ok && e.Kind != problem.Internal && e.Kind != problem.Unavailable {
		return trial{action: a, call: call, err: err}, nil
	}
	if err != nil {
		return t, err
	}
	t.changes = tx.TakeChanges(workspace)
	if err := gate.tellChanges(ctx, tx, workspace, call.Grant.Principal, call.Approval, t.changes); err != nil {
		return t, err
	}
	enqueued, entries := tx.Doings(workspace)
	for _, e := range entries {
		t.events[string(e.Event)]++
	}
	return t, gate.sendings(ctx, tx, enqueued, &t)
}

// sendings finds out what the jobs would take outside.
func (gate *Gate) sendings(ctx context.Context, tx Store, enqueued []jobs.Job, t *trial) error {
	for _, j := range enqueued {
		if j.Kind == webhook.Kind {
			t.webhooks++
			continue
		}
		tells, ok := gate.Outgoing[j.Kind]
		if !ok {
			continue // it stays in the house
		}
		s, err := tells(ctx, tx, j)
		if err != nil {
			return fmt.Errorf("what job %s would send: %w", j.Kind, err)
		}
		t.sendings = append(t.sendings, s)
	}
	return nil
}

// effects returns of the trial what g may know.
func (gate *Gate) effects(g access.Grant, t trial) Effects {
	e := Effects{Changes: []RowChange{}, Messages: []Sending{}, Events: t.events}
	if t.err != nil {
		e.Error = problem.Of(t.err)
	}
	if t.action == nil || t.err != nil {
		return e
	}
	made := []string{t.result.Target.ID}
	if t.action.Op != catalog.OpCreate {
		made = nil
	}
	if g.Principal.ID == t.call.Grant.Principal.ID {
		made = append(made, t.call.Approval) // there is none yet
	}
	rows := folded(t.changes)
	for _, c := range rows {
		if c.Op == catalog.OpCreate {
			made = append(made, c.Record.ID)
		}
	}
	for _, c := range rows {
		r, ok := gate.Catalog.Resource(c.Record.Resource)
		if !ok || !mayReadOf(g, r) {
			e.Hidden++
			continue
		}
		before, after := c.Before, c.Record.Body
		switch c.Op {
		case catalog.OpCreate:
			before = nil
		case catalog.OpDelete:
			before, after = c.Record.Body, nil
		}
		e.add(g, r, RowChange{Change: c.Word(), Resource: r.Name, ID: c.Record.ID, Title: r.TitleOf(c.Record.Body)}, before, after, t.call.Input, made)
	}
	of := t.action.Of()
	readable := mayReadOf(g, of)
	if row, ok := planned(t); ok && !readable {
		e.Hidden++
	} else if ok {
		e.add(g, of, row, t.preview.Before, t.preview.After, t.call.Input, made)
	}
	for _, s := range t.sendings {
		if !readable {
			s = Sending{Kind: s.Kind}
		}
		e.Messages = append(e.Messages, s)
	}
	if hooks, ok := gate.Catalog.Resource("webhooks"); ok && mayReadOf(g, hooks) {
		e.Webhooks = &t.webhooks
	}
	if len(t.result.Once) > len("{}") {
		e.Notes = append(e.Notes, "The answer would hold a secret, once. A dry run does not show it.")
	}
	return e
}

// mayReadOf reports whether g may read what there is of the resource. What nobody
// reads by a right of its own belongs to who has asked for it.
func mayReadOf(g access.Grant, r *catalog.Resource) bool {
	return r == nil || !slices.Contains(r.Ladder.Verbs(), access.Read) || g.Decide(r.Name, access.Read) == access.Run
}

// folded returns the changes with one for each record, from its first state to
// its last, and none for what came and went.
func folded(changes []catalog.Change) []catalog.Change {
	var rows []catalog.Change
	for _, c := range changes {
		i := slices.IndexFunc(rows, func(r catalog.Change) bool {
			return r.Record.ID == c.Record.ID && r.Record.Resource == c.Record.Resource
		})
		switch {
		case i < 0:
			rows = append(rows, c)
		case rows[i].Op == catalog.OpCreate && c.Op == catalog.OpDelete:
			rows = slices.Delete(rows, i, i+1)
		case c.Op == catalog.OpDelete:
			if rows[i].Op == catalog.OpUpdate {
				c.Record.Body = rows[i].Before
			}
			rows[i] = c
		default:
			rows[i].Record = c.Record
		}
	}
	return rows
}

// planned returns what the plan says of a thing that is no record; what else it
// does is among the events.
func planned(t trial) (RowChange, bool) {
	row := RowChange{Resource: t.action.Resource, ID: t.result.Target.ID, Title: t.preview.Target.Title}
	if t.action.Of().Keeps {
		return row, false
	}
	switch before, after := t.preview.Before != nil, t.preview.After != nil; {
	case t.action.Op == catalog.OpCreate && after:
		row.Change = "created"
	case t.action.Op == catalog.OpDelete && before:
		row.Change = "deleted"
	case before && after && !bytes.Equal(t.preview.Before, t.preview.After):
		row.Change = "updated"
	default:
		return row, false
	}
	return row, true
}

// add adds a row with the fields that change.
func (e *Effects) add(g access.Grant, r *catalog.Resource, row RowChange, before, after json.RawMessage, in catalog.Input, made []string) {
	if row.Change == "created" {
		row.ID = ""
	}
	was, is := members(before), members(after)
	row.Fields = []FieldChange{}
	for i := range r.Fields {
		f := &r.Fields[i]
		if bytes.Equal(was[f.Name], is[f.Name]) || names(is[f.Name], made) {
			continue
		}
		if from := f.ChosenFrom(); from != nil && !mayReadOf(g, from) && in.Values[f.Name] == nil {
			continue // it would tell what the other record offers
		}
		row.Fields = append(row.Fields, FieldChange{f.Name, value(was, *f), value(is, *f)})
	}
	if row.Change == "updated" && len(row.Fields) == 0 {
		return
	}
	e.Changes = append(e.Changes, row)
}

// names reports whether the value holds one of the ids, which are those of
// nothing.
func names(value json.RawMessage, made []string) bool {
	return slices.ContainsFunc(made, func(id string) bool { return id != "" && bytes.Contains(value, []byte(id)) })
}

// Foresee puts on the card of an approval that waits what approving it would do
// now, as far as g may know it. If a check stands against it, that says enough.
// It asks for a transaction, so it is for one card and no list.
func (gate *Gate) Foresee(ctx context.Context, g access.Grant, c *Card) error {
	a, err := gate.Approval(ctx, g, c.ID)
	if err != nil || a.Status != Pending || c.Blocked() || !gate.mayRead(g, a) {
		return err
	}
	action, err := gate.action(a)
	if err != nil || action.Lends() {
		return nil // the checks say so, and the facts what would be lent
	}
	var t trial
	err = gate.undone(ctx, func(tx Store) error {
		call, err := gate.callOf(ctx, tx, a, action, nil, gate.now())
		if problem.Is(err, problem.Conflict) {
			t = trial{action: action, err: err}
			return nil
		}
		if err != nil {
			return err
		}
		call.Decider = g.Principal
		t, err = gate.try(ctx, tx, action, call)
		if t.err != nil {
			t.err = blocked(a, t.err)
		}
		return err
	})
	e := gate.effects(g, t)
	if err != nil {
		e.Error = problem.Report(ctx, err) // the card is worth showing all the same
	}
	c.Effects = &e
	return nil
}
