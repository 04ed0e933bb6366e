package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"trustpager/access"
	"trustpager/problem"
)

// A function gives a further action of a resource what it does. It fails if
// the resource lacks what the function relies on.
type function func(c *Catalog, r *Resource, a *Action) error

// functions are what the actions of a catalog file may name.
var functions = map[string]function{
	"link_contact_to_customer":     update(nil, "customer_id"),
	"unlink_contact_from_customer": update(map[string]any{"customer_id": nil}),
	"move_deal":                    update(nil, "pipeline_id", "stage"),
	"complete_task":                update(map[string]any{"status": "done"}),
	"add_note":                     create(map[string]any{"type": "note"}, "subject", "body", "occurred_at", "contact_id", "deal_id"),
	"log_call":                     create(map[string]any{"type": "call"}, "subject", "body", "occurred_at", "contact_id", "deal_id"),
	"log_meeting":                  create(map[string]any{"type": "meeting"}, "subject", "body", "occurred_at", "contact_id", "deal_id"),
	"get_pipeline_summary":         pipelineSummary,
}

func functionNames() []string { return slices.Sorted(maps.Keys(functions)) }

// needs reports what stands against an action that sets the fixed values, and
// the fields from its input.
func needs(r *Resource, a *Action, target bool, fixed map[string]any, fields []string) error {
	if a.Target != target {
		return fmt.Errorf("the function needs target: %t", target)
	}
	if a.Verb != access.Write {
		return fmt.Errorf("the function needs verb: write")
	}
	for name, v := range sorted(fixed) {
		f, ok := r.Field(name)
		if !ok {
			return fmt.Errorf("the function needs the field %s, which %s lacks", name, r.Name)
		}
		if s, ok := v.(string); ok && f.Type == TypeEnum && !slices.Contains(f.Enum, s) {
			return fmt.Errorf("the function needs the word %q in the enum of %s", s, name)
		}
	}
	for i := range a.fields {
		in := &a.fields[i]
		if in.Name == "reason" || meta(in.Name) {
			continue
		}
		f, ok := r.Field(in.Name)
		switch {
		case !slices.Contains(fields, in.Name):
			return fmt.Errorf("the function takes no field %s; it takes %v", in.Name, fields)
		case !ok:
			return fmt.Errorf("the function needs the field %s, which %s lacks", in.Name, r.Name)
		case in.Type != f.Type || in.Ref != f.Ref || in.Max > f.Max:
			return fmt.Errorf("the field %s must be as in %s: type %s", in.Name, r.Name, f.Type)
		case in.Secret != f.Secret: // what is masked in one place is in all
			return fmt.Errorf("the field %s must be as in %s: secret: %t", in.Name, r.Name, f.Secret)
		}
	}
	return nil
}

// update returns a function that changes the target: it sets the fixed values,
// and what the input gives of the fields.
func update(fixed map[string]any, fields ...string) function {
	return func(_ *Catalog, r *Resource, a *Action) error {
		a.plan = func(ctx context.Context, s Store, c Call, lock bool) (plan, error) {
			changes := maps.Clone(c.Input.Values)
			maps.Copy(changes, fixed)
			return a.planUpdate(ctx, s, c, changes, lock)
		}
		return needs(r, a, true, fixed, fields)
	}
}

// create returns a function that makes a record of the fixed values, and of
// what the input gives of the fields. Other fields take their defaults.
func create(fixed map[string]any, fields ...string) function {
	return func(_ *Catalog, r *Resource, a *Action) error {
		a.plan = func(ctx context.Context, s Store, c Call, lock bool) (plan, error) {
			values := maps.Clone(c.Input.Values)
			for i := range r.Fields {
				if f := &r.Fields[i]; f.Default != nil && f.Default != any(now) && !has(values, f.Name) {
					values[f.Name] = f.Default
				}
			}
			maps.Copy(values, fixed)
			return a.planCreate(ctx, s, c, values, lock)
		}
		for i := range r.Fields {
			f := &r.Fields[i]
			if f.Required && !has(fixed, f.Name) && !slices.ContainsFunc(a.fields, func(in Field) bool { return in.Name == f.Name && in.Required }) {
				return fmt.Errorf("the function needs the required field %s among the action's required fields", f.Name)
			}
		}
		return needs(r, a, false, fixed, fields)
	}
}

// pipelineSummary counts the deals of a pipeline by stage and adds up their
// values. Values are not converted: they mean something only if the deals of a
// pipeline have one currency.
func pipelineSummary(c *Catalog, r *Resource, a *Action) error {
	stages, ok := r.Field("stages")
	if !ok || stages.Type != TypeList || !a.Target || a.Verb != access.Read || len(a.fields) > 0 {
		return fmt.Errorf("the function needs a list stages, target: true, verb: read and no fields")
	}
	deals, ok := c.byName["deals"]
	if !ok {
		return fmt.Errorf("the function needs the resource deals")
	}
	stage, hasStage := deals.Field("stage")
	pipeline, hasPipeline := deals.Field("pipeline_id")
	value, hasValue := deals.Field("value")
	if !hasStage || !stage.Filter || !hasPipeline || pipeline.Ref != r.Name || !hasValue || value.Type != TypeMoney {
		return fmt.Errorf("the function needs deals to have pipeline_id, stage (with the mark filter) and value (of type money)")
	}
	s := object("pipeline_id", "string", "count", "integer", "value", "integer", "stages", "array")
	s.Properties[3].schema.Items = object("stage", "string", "count", "integer", "value", "integer")
	a.Output = s.encode()
	a.plan = func(ctx context.Context, s Store, call Call, lock bool) (plan, error) {
		if call.Grant.Decide(deals.Name, access.Read) == access.Deny {
			return plan{}, problem.Errorf(problem.InsufficientScope, "%s needs the scope %s:read too", a.Name, deals.Name).
				WithFix("Ask an admin for the scope %s:read.", deals.Name)
		}
		rec, err := a.target(ctx, s, call, false)
		if err != nil {
			return plan{}, err
		}
		body, err := decodeObject(rec.Body)
		if err != nil {
			return plan{}, fmt.Errorf("decode record %s: %w", rec.ID, err)
		}
		p := plan{target: r.targetOf(rec, body)}
		p.run = func(ctx context.Context, s Store) (Result, error) {
			sums, err := s.SumByField(ctx, call.Grant.Workspace.ID, deals.Name, pipeline.Name, rec.ID, stage.Name, value.Name)
			if err != nil {
				return Result{}, err
			}
			return Result{Data: summary(rec.ID, itemNames(body["stages"]), sums), Target: p.target}, nil
		}
		return p, nil
	}
	return nil
}

// summary returns the sums in the order of the stages, empty stages included.
func summary(pipeline string, stages []string, sums []Sum) json.RawMessage {
	by := map[string]Sum{}
	for _, s := range sums {
		have := by[fold(s.Value)]
		by[fold(s.Value)] = Sum{Count: have.Count + s.Count, Total: have.Total + s.Total}
	}
	var count, total int64
	var rows []any
	for _, name := range stages {
		s := by[fold(name)]
		count += s.Count
		total += s.Total
		rows = append(rows, map[string]any{"stage": name, "count": number(s.Count), "value": number(s.Total)})
	}
	return appendJSON(nil, map[string]any{"pipeline_id": pipeline, "count": number(count), "value": number(total), "stages": rows})
}

func number(i int64) json.Number { return json.Number(strconv.FormatInt(i, 10)) }
