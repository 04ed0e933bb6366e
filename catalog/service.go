package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"trustpager/access"
	"trustpager/problem"
)

// A Service plans the actions of a resource that is code: it works out what the
// call would do, and refuses with a [problem.Error] what cannot be done. It
// changes nothing; with lock it reads for update what the plan relies on. The
// references in the input have been checked.
//
// The store is the transaction of the call, or the database for reads and
// previews; a service that needs more than [Store] declares its own interface
// and asks the value for it with [As].
type Service func(ctx context.Context, s Store, a *Action, c Call, lock bool) (Plan, error)

// A Plan is an action that has been found possible.
type Plan struct {
	Target Target         // of an action that makes something: its title, without an id
	Before map[string]any // what a card shows as it is, nil for nothing
	After  map[string]any // and as it will be

	// Checks are what has to hold besides, and what a decider should know. One
	// that does not hold and Blocks refuses the run with its Text.
	Checks []PlanCheck

	// Pinned are members of the input that it lacks and that the plan has chosen a
	// value for. An approval keeps them: what runs is what was looked at.
	Pinned map[string]any

	Run func(ctx context.Context, s Store) (Result, error)
}

// A PlanCheck is one thing that has to hold, or is worth a look.
type PlanCheck struct {
	Name   string // sender, recipient …
	OK     bool
	Blocks bool
	Text   string // one sentence
}

// As returns the store as the interface that a service needs.
func As[S any](s Store) S {
	v, ok := s.(S)
	if !ok {
		panic(fmt.Sprintf("the store %T lacks the methods of a service", s)) // wired wrongly
	}
	return v
}

// Bind returns the catalog with services for its resources that are code. It
// fails if one of them has actions and no service, and the other way round.
func (c *Catalog) Bind(services map[string]Service) (*Catalog, error) {
	bound := &Catalog{resources: c.resources, byName: c.byName, byAction: maps.Clone(c.byAction)}
	wanted := map[string]bool{}
	for _, a := range c.actions {
		if a.code {
			name := cmp.Or(a.Resource, a.Name)
			wanted[name] = true
			serve, ok := services[name]
			if !ok {
				return nil, fmt.Errorf("the action %s has no service", a.Name)
			}
			served := *a
			served.plan = served.by(serve)
			a = &served
			bound.byAction[a.Name] = a
		}
		bound.actions = append(bound.actions, a)
	}
	for name := range services {
		if !wanted[name] {
			return nil, fmt.Errorf("the service %s has no actions in the catalog", name)
		}
	}
	return bound, nil
}

// by returns the planner that asks the service.
func (a *Action) by(serve Service) planner {
	return func(ctx context.Context, s Store, c Call, lock bool) (plan, error) {
		if err := a.checkRefs(ctx, s, c); err != nil {
			return plan{}, err
		}
		p, err := serve(ctx, s, a, c, lock)
		if err != nil {
			return plan{target: p.Target}, err
		}
		return plan{target: p.Target, before: p.Before, after: p.After, checks: p.Checks, pinned: p.Pinned, run: p.Run}, p.blocked()
	}
}

// blocked returns the first check that stands against the plan.
func (p Plan) blocked() error {
	for _, c := range p.Checks {
		if !c.OK && c.Blocks {
			return problem.Errorf(problem.Conflict, "%s", c.Text)
		}
	}
	return nil
}

// checkRefs refuses references in the input that point at nothing that the
// caller may see.
func (a *Action) checkRefs(ctx context.Context, s Store, c Call) error {
	var fs faults
	var refs []Ref
	for i := range a.fields {
		f := &a.fields[i]
		id, ok := c.Input.Values[f.Name].(string)
		switch {
		case f.Type != TypeRef || !ok:
		case c.Grant.Decide(f.Ref, access.Read) == access.Deny:
			f.dangling(id, &fs)
		default:
			refs = append(refs, Ref{Field: f.Name, Resource: f.Ref, ID: id})
		}
	}
	if len(refs) > 0 {
		missing, err := s.MissingRefs(ctx, c.Grant.Workspace.ID, refs)
		if err != nil {
			return err
		}
		for _, m := range missing {
			for i := range a.fields {
				if f := &a.fields[i]; f.Name == m.Field {
					f.dangling(m.ID, &fs)
				}
			}
		}
	}
	return fs.err(a.Name)
}

// unbound plans nothing: the catalog has no services.
func (a *Action) unbound(context.Context, Store, Call, bool) (plan, error) {
	return plan{}, fmt.Errorf("no service is bound to %s", a.Name)
}

// Values returns the record's fields as the catalog decodes JSON: numbers are
// [json.Number].
func (rec Record) Values() (map[string]any, error) {
	v, err := decodeObject(rec.Body)
	if err != nil {
		return nil, fmt.Errorf("decode record %s: %w", rec.ID, err)
	}
	return v, nil
}

// Insert stores a new record of a resource that is code. The values must be
// such as the fields take, in their normalized form; nothing else checks them.
func (r *Resource) Insert(ctx context.Context, s Store, workspace, id string, values map[string]any, now time.Time) (Record, error) {
	now = now.UTC().Truncate(time.Millisecond)
	rec := Record{Resource: r.Name, ID: id, Version: 1, Body: appendJSON(nil, values), CreatedAt: now, UpdatedAt: now}
	entries, terms := r.index(values)
	if err := s.InsertRecord(ctx, workspace, rec, entries, terms); err != nil {
		return rec, err
	}
	s.NoteChange(workspace, Change{Op: OpCreate, Record: rec})
	return rec, nil
}

// Change stores changes of a record of a resource that is code, as Insert takes
// them; null clears a field. It fails as [Store.UpdateRecord] does.
func (r *Resource) Change(ctx context.Context, s Store, workspace string, rec Record, changes map[string]any, now time.Time) (Record, error) {
	values, err := rec.Values()
	if err != nil {
		return rec, err
	}
	for name, v := range changes {
		if v == nil {
			delete(values, name)
		} else {
			values[name] = v
		}
	}
	before := rec.Body
	rec.Body = appendJSON(nil, values)
	rec.Version++
	rec.UpdatedAt = now.UTC().Truncate(time.Millisecond)
	entries, terms := r.index(values)
	if err := s.UpdateRecord(ctx, workspace, rec, entries, terms); err != nil {
		return rec, err
	}
	s.NoteChange(workspace, Change{Op: OpUpdate, Record: rec, Before: before})
	return rec, nil
}

// Answer returns the record as callers see it.
func (r *Resource) Answer(rec Record) (json.RawMessage, error) { return r.appendRecord(nil, rec, nil) }

// TargetOf returns the record as the target of an action.
func (r *Resource) TargetOf(rec Record) Target {
	return Target{ID: rec.ID, Version: rec.Version, Title: r.TitleOf(rec.Body)}
}

// NotFound returns the error for an id that names nothing of the resource, or
// nothing that the caller may see: the two read the same.
func (r *Resource) NotFound(id string) error { return r.notFound(id) }

// Pin returns the input with the members that a plan has chosen values for.
func (in Input) Pin(pinned map[string]any) json.RawMessage {
	if len(pinned) == 0 {
		return in.Canonical
	}
	values := maps.Clone(in.Values)
	maps.Copy(values, pinned)
	return canonical(in.ID, values)
}

// Find reads the record that the call is about, and refuses a version that the
// caller does not want.
func (a *Action) Find(ctx context.Context, s Store, c Call, lock bool) (Record, error) {
	return a.target(ctx, s, c, lock)
}

// Of returns the resource that the action belongs to, nil for the search across
// resources.
func (a *Action) Of() *Resource { return a.resource }

// JSON returns values in their canonical form: sorted keys, no escapes that
// JSON does not ask for.
func JSON(values any) json.RawMessage { return appendJSON(nil, values) }

// Refuse returns the error that says of one member of the action's input what
// is wrong with it.
func (a *Action) Refuse(field, expected, got, fix string) error {
	var fs faults
	fs.put(field, expected, got, fix)
	return fs.err(a.Name)
}

// SecretIn returns the name of a secret member that the input of an action of
// the program holds, "" if there is none. Records with secret fields keep them
// as they are; the program's own secrets are sealed.
func (a *Action) SecretIn(in Input) string {
	for i := range a.fields {
		if f := &a.fields[i]; a.code && f.Secret && in.Values[f.Name] != nil {
			return f.Name
		}
	}
	return ""
}

// Lookup returns the filter for the records whose indexed field has the value.
func (r *Resource) Lookup(field string, value any) Filter {
	f, ok := r.Field(field)
	if !ok || !f.Indexed() {
		panic(fmt.Sprintf("%s has no indexed field %s", r.Name, field)) // the program's own catalog
	}
	return Filter{Field: field, Op: Equal, Value: f.IndexKey(value)}
}

// Email returns the e-mail address as fields of [TypeEmail] keep it, and whether
// it is one.
func Email(s string) (string, bool) { return email(s) }

// Topic is what is touched when the record of something outside changes.
func Topic(record string) string { return "record:" + record }

// Unsettled reports whether the answer of an action is about something outside
// that has not come to rest: its status is queued.
func Unsettled(answer json.RawMessage) bool { return outside(answer).Status == Queued }

// Outside returns the status of what an action has set going outside, "" if
// nothing.
func Outside(answer json.RawMessage) string { return outside(answer).Status }

// Warning returns what there is to know about what came to pass outside, "" if
// nothing.
func Warning(answer json.RawMessage) string { return outside(answer).Warning }

// outsideAnswer is what the answers of actions that reach outside have in common.
type outsideAnswer struct {
	Status  string `json:"status"`
	Warning string `json:"warning"`
}

func outside(answer json.RawMessage) (a outsideAnswer) {
	if json.Unmarshal(answer, &a) != nil {
		return outsideAnswer{} // nothing of the kind
	}
	return a
}

// The statuses of what is outside that say something to whoever asked for it.
const (
	Queued  = "queued"  // it is to happen, and has not
	Written = "written" // it has gone nowhere: there is nothing connected that it could go out by
	Bounced = "bounced" // it was handed over, and came back
	Failed  = "failed"
	Unknown = "unknown" // it may have happened
)
