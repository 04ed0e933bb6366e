package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/problem"
	"trustpager/typeid"
)

// The size of a page.
const (
	defaultLimit = 25
	maxLimit     = 100
)

// recordActions returns the actions that every record resource has.
func recordActions(r *Resource) []*Action {
	one, many := strings.ReplaceAll(r.Singular, "-", "_"), strings.ReplaceAll(r.Name, "-", "_")
	noun, plural := r.noun(), strings.ReplaceAll(r.Name, "-", " ")
	base, item := "/"+r.Name, "/"+r.Name+"/{id}"

	create := slices.Clone(r.Fields)
	update := slices.Clone(r.Fields)
	replaces := ""
	if slices.ContainsFunc(r.Fields, func(f Field) bool { return f.Type == TypeTags || f.Type == TypeList }) {
		replaces = ", a list replaces the old one"
	}
	for i := range update {
		f := &update[i]
		f.null, f.filled = !f.Required, f.Required
		f.Required, f.Default = false, nil
	}
	list := &Action{Name: "list_" + many, Verb: access.Read, Op: OpList, Title: "List " + plural,
		Description: strings.TrimSpace("List " + plural + ". " + r.Description),
		Method:      "GET", Path: base, Idempotent: true, fields: r.listFields()}
	list.plan = list.planList
	search := &Action{Name: "search_" + many, Verb: access.Read, Op: OpSearch, Title: "Search " + plural,
		Description: "Find " + plural + " with all words; beginnings match.",
		Method:      "GET", Path: base + "/search", Idempotent: true,
		fields: []Field{
			{Name: "query", Type: TypeString, Required: true, Max: maxString},
			limitField(), cursorField(),
		}}
	search.plan = search.planList
	get := &Action{Name: "get_" + one, Verb: access.Read, Op: OpGet, Title: "Get " + noun,
		Description: "Get " + article(noun) + " by its id.",
		Method:      "GET", Path: item, Target: true, Idempotent: true}
	get.plan = get.planGet
	made := &Action{Name: "create_" + one, Verb: access.Write, Op: OpCreate, Title: "Create " + noun,
		Description: "Create " + article(noun) + ".",
		Method:      "POST", Path: base, fields: create}
	made.plan = func(ctx context.Context, s Store, c Call, lock bool) (plan, error) {
		return made.planCreate(ctx, s, c, c.Input.Values, lock)
	}
	changed := &Action{Name: "update_" + one, Verb: access.Write, Op: OpUpdate, Title: "Update " + noun,
		Description: "Change " + article(noun) + "; null clears a field" + replaces + ".",
		Method:      "PATCH", Path: item, Target: true, Destructive: true, Idempotent: true, fields: update}
	changed.plan = func(ctx context.Context, s Store, c Call, lock bool) (plan, error) {
		return changed.planUpdate(ctx, s, c, c.Input.Values, lock)
	}
	removed := &Action{Name: "delete_" + one, Verb: access.Delete, Op: OpDelete, Title: "Delete " + noun,
		Description: "Delete " + article(noun) + " for good, unless records refer to it.",
		Method:      "DELETE", Path: item, Target: true, Destructive: true, Idempotent: true}
	removed.plan = removed.planDelete

	list.Output = (&schema{Type: "array", Items: r.recordSchema(true)}).encode()
	search.Output = (&schema{Type: "array", Items: r.recordSchema(false)}).encode()
	record := r.recordSchema(false).encode()
	get.Output, made.Output, changed.Output = record, record, record
	removed.Output = object("id", "string", "deleted", "boolean").encode()

	actions := []*Action{list, search, get, made, changed, removed}
	for _, a := range actions {
		a.Resource, a.resource = r.Name, r
		a.addMeta()
	}
	return actions
}

func limitField() Field {
	return Field{Name: "limit", Type: TypeInteger, Min: 1, Max: maxLimit, Default: json.Number(strconv.Itoa(defaultLimit)), null: true, told: true}
}

func cursorField() Field {
	return Field{Name: "cursor", Type: TypeString, Max: maxCursor, null: true, bare: true, told: true, Description: "next_cursor of the last page."}
}

// listFields returns what a list can be asked for.
func (r *Resource) listFields() []Field {
	var fields []Field
	order := []string{"created_at", "-created_at", "updated_at", "-updated_at"}
	for _, f := range r.Fields {
		if f.Sort {
			order = append(order, f.Name, "-"+f.Name)
		}
		if !f.Filter {
			continue
		}
		by := Field{Name: f.Name, Type: f.Type, Enum: f.Enum, Ref: f.Ref, Min: f.Min, Max: f.Max, target: f.target, filled: true, bare: true}
		if f.Type != TypeDateTime {
			fields = append(fields, by)
		}
		if f.Type == TypeDate || f.Type == TypeDateTime {
			after, before := by, by
			after.Name, before.Name, after.told, before.told = f.Name+"_after", f.Name+"_before", true, true
			after.Description, before.Description = "At or after.", "Before."
			fields = append(fields, after, before)
		}
	}
	return append(fields,
		Field{Name: "created_after", Type: TypeDateTime, told: true},
		Field{Name: "created_before", Type: TypeDateTime, told: true},
		Field{Name: "search", Type: TypeString, Max: maxString, filled: true, bare: true, told: true, Description: "Words; beginnings match."},
		Field{Name: "sort", Type: TypeEnum, Enum: order, Default: "-created_at", null: true, told: true},
		Field{Name: "fields", Type: TypeTags, Max: maxTags, null: true, bare: true, told: true, Description: "Members to return."},
		limitField(), cursorField())
}

// planList plans a list or a search of one resource.
func (a *Action) planList(_ context.Context, _ Store, c Call, _ bool) (plan, error) {
	r, values := a.resource, c.Input.Values
	var q Query
	var fs faults
	for i := range r.Fields {
		f := &r.Fields[i]
		if v, ok := values[f.Name]; ok && f.Filter && a.Op == OpList {
			q.Filters = append(q.Filters, Filter{f.Name, Equal, f.IndexKey(v)})
		}
		if v, ok := values[f.Name+"_after"]; ok && f.Filter {
			q.Filters = append(q.Filters, Filter{f.Name, After, f.IndexKey(v)})
		}
		if v, ok := values[f.Name+"_before"]; ok && f.Filter {
			q.Filters = append(q.Filters, Filter{f.Name, Before, f.IndexKey(v)})
		}
	}
	q.CreatedAfter = timeOf(values["created_after"])
	q.CreatedBefore = timeOf(values["created_before"])
	for _, name := range []string{"search", "query"} {
		if words, ok := values[name].(string); ok {
			if q.Terms = Terms(words); len(q.Terms) == 0 {
				fs.put(name, "at least one letter or digit", shorten(words), "")
			}
		}
	}
	q.SortField, q.Desc = "", true
	if order, ok := values["sort"].(string); ok {
		q.SortField, q.Desc = strings.CutPrefix(order, "-")
		if q.SortField == "created_at" {
			q.SortField = ""
		}
	}
	var chosen []string
	if list, ok := values["fields"].([]any); ok {
		all := slices.Concat(serverFields, fieldNames(r.Fields))
		for i, v := range list {
			name := v.(string)
			if !slices.Contains(all, name) {
				fs.put("fields."+strconv.Itoa(i), unknownField(name, all), shorten(name), "")
			}
			chosen = append(chosen, name)
		}
		if chosen == nil {
			chosen = []string{"id"}
		}
	}
	if err := fs.err(a.Name); err != nil {
		return plan{}, err
	}
	cur, err := a.cursorOf(values, q.SortField == "" || q.SortField == "updated_at")
	if err != nil {
		return plan{}, err
	}
	q.AfterValue, q.AfterID = cur.value, cur.id
	limit := limitOf(values)
	q.Limit = limit + 1 // one more tells whether there are more
	return plan{run: func(ctx context.Context, s Store) (Result, error) {
		recs, keys, err := s.ListRecords(ctx, c.Grant.Workspace.ID, r.Name, q)
		if err != nil {
			return Result{}, err
		}
		page := &Pagination{Limit: limit, HasMore: len(recs) > limit}
		if page.HasMore {
			recs = recs[:limit]
			page.NextCursor = cursor{a.queryDigest(values), keys[limit-1], recs[limit-1].ID}.String()
		}
		data := []byte{'['}
		for i, rec := range recs {
			if i > 0 {
				data = append(data, ',')
			}
			if data, err = r.appendRecord(data, rec, chosen); err != nil {
				return Result{}, err
			}
		}
		return Result{Data: append(data, ']'), Pagination: page}, nil
	}}, nil
}

func limitOf(values map[string]any) int {
	if n, ok := values["limit"].(json.Number); ok {
		i, _ := n.Int64() // normalized
		return int(i)
	}
	return defaultLimit
}

// timeOf returns the time that a normalized datetime is, or zero.
func timeOf(v any) time.Time {
	s, _ := v.(string)
	t, _ := time.Parse(timeLayout, s) // normalized or absent
	return t
}

// appendRecord appends the record as callers see it. The stored body is
// copied and not decoded, unless only some members are chosen or some are
// secret.
func (r *Resource) appendRecord(b []byte, rec Record, chosen []string) ([]byte, error) {
	secret := slices.ContainsFunc(r.Fields, func(f Field) bool { return f.Secret })
	if chosen == nil && !secret {
		b = appendHead(b, rec)
		if len(rec.Body) > 2 { // more than {}
			b = append(b, ',')
			b = append(b, rec.Body[1:]...)
			return b, nil
		}
		return append(b, '}'), nil
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(rec.Body, &body); err != nil {
		return nil, fmt.Errorf("decode record %s: %w", rec.ID, err)
	}
	for i := range r.Fields {
		if _, ok := body[r.Fields[i].Name]; ok && r.Fields[i].Secret {
			body[r.Fields[i].Name] = json.RawMessage(`"` + Masked + `"`)
		}
	}
	if chosen == nil {
		b = appendHead(b, rec)
		for name, v := range sorted(body) {
			b = append(appendString(append(b, ','), name), ':')
			b = append(b, v...)
		}
		return append(b, '}'), nil
	}
	b = appendString(append(b, `{"id":`...), rec.ID)
	for _, name := range chosen {
		v, ok := body[name]
		switch name {
		case "id":
			continue
		case "version":
			v, ok = strconv.AppendInt(nil, rec.Version, 10), true
		case "created_at":
			v, ok = appendString(nil, formatTime(rec.CreatedAt)), true
		case "updated_at":
			v, ok = appendString(nil, formatTime(rec.UpdatedAt)), true
		}
		if ok {
			b = append(appendString(append(b, ','), name), ':')
			b = append(b, v...)
		}
	}
	return append(b, '}'), nil
}

// appendHead appends the members that every record has, and leaves the object
// open.
func appendHead(b []byte, rec Record) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, rec.ID...)
	b = append(b, `","version":`...)
	b = strconv.AppendInt(b, rec.Version, 10)
	b = append(b, `,"created_at":"`...)
	b = rec.CreatedAt.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","updated_at":"`...)
	b = rec.UpdatedAt.UTC().AppendFormat(b, timeLayout)
	return append(b, '"')
}

// notFound returns the error for an id that names no record, or none that the
// caller may see: the two read the same.
func (r *Resource) notFound(id string) error {
	return problem.Errorf(problem.NotFound, "there is no %s with the id %s", r.noun(), shorten(id)).
		WithFix("Check the id. %s", r.findHint())
}

// target reads the record that the call is about.
func (a *Action) target(ctx context.Context, s Store, c Call, lock bool) (Record, error) {
	r := a.resource
	rec, err := s.Record(ctx, c.Grant.Workspace.ID, r.Name, c.Input.ID, lock)
	if problem.Is(err, problem.NotFound) {
		return Record{}, r.notFound(c.Input.ID)
	}
	if err != nil {
		return Record{}, err
	}
	wanted := []int64{c.IfVersion}
	if n, ok := c.Input.Values["if_version"].(json.Number); ok {
		v, _ := n.Int64() // normalized
		wanted = append(wanted, v)
	}
	for _, v := range wanted {
		if v != 0 && v != rec.Version {
			return Record{}, problem.Errorf(problem.VersionMismatch, "%s %s has version %d, not %d: it was changed in between", r.noun(), rec.ID, rec.Version, v).
				WithFix("Read it again, see what has changed, and send the request with version %d if it still holds.", rec.Version)
		}
	}
	return rec, nil
}

// targetOf returns the record as the target of an action.
func (r *Resource) targetOf(rec Record, values map[string]any) Target {
	return Target{ID: rec.ID, Version: rec.Version, Title: r.titleOf(values)}
}

func (a *Action) planGet(ctx context.Context, s Store, c Call, lock bool) (plan, error) {
	rec, err := a.target(ctx, s, c, false)
	if err != nil {
		return plan{}, err
	}
	p := plan{target: Target{ID: rec.ID, Version: rec.Version}}
	if !lock { // a page or a card wants the title; a caller wants the record, fast
		values, err := decodeObject(rec.Body)
		if err != nil {
			return plan{}, fmt.Errorf("decode record %s: %w", rec.ID, err)
		}
		p.target.Title = a.resource.titleOf(values)
	}
	p.run = func(context.Context, Store) (Result, error) {
		data, err := a.resource.appendRecord(nil, rec, nil)
		return Result{Data: data, Target: p.target}, err
	}
	return p, nil
}

// planCreate plans a new record of the given values.
func (a *Action) planCreate(ctx context.Context, s Store, c Call, values map[string]any, lock bool) (plan, error) {
	r := a.resource
	values = maps.Clone(values)
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Default == any(now) && values[f.Name] == nil {
			values[f.Name] = formatTime(c.Now)
		}
	}
	settled, err := a.settle(ctx, s, c, nil, values, lock)
	if err != nil {
		return plan{}, err
	}
	return plan{
		target: Target{Title: r.titleOf(settled)}, after: settled,
		run: func(ctx context.Context, s Store) (Result, error) {
			at := c.Now.UTC().Truncate(time.Millisecond)
			rec := Record{Resource: r.Name, ID: typeid.NewID(r.Prefix), Version: 1, Body: appendJSON(nil, settled), CreatedAt: at, UpdatedAt: at}
			entries, terms := r.index(settled)
			if err := s.InsertRecord(ctx, c.Grant.Workspace.ID, rec, entries, terms); err != nil {
				return Result{}, err
			}
			s.NoteChange(c.Grant.Workspace.ID, Change{Op: OpCreate, Record: rec})
			data, err := r.appendRecord(nil, rec, nil)
			return Result{Data: data, Target: r.targetOf(rec, settled)}, err
		},
	}, nil
}

// planUpdate plans to change the target as a merge patch says. What changes
// nothing leaves the record and its version alone.
func (a *Action) planUpdate(ctx context.Context, s Store, c Call, changes map[string]any, lock bool) (plan, error) {
	r := a.resource
	rec, err := a.target(ctx, s, c, lock)
	if err != nil {
		return plan{}, err
	}
	old, err := decodeObject(rec.Body)
	if err != nil {
		return plan{}, fmt.Errorf("decode record %s: %w", rec.ID, err)
	}
	changes = maps.Clone(changes)
	delete(changes, "if_version")
	settled, err := a.settle(ctx, s, c, old, changes, lock)
	if err != nil {
		return plan{}, err
	}
	if err := a.keepChosen(ctx, s, c, rec, old, settled); err != nil {
		return plan{}, err
	}
	return plan{
		target: r.targetOf(rec, old), before: old, after: settled,
		run: func(ctx context.Context, s Store) (Result, error) {
			if body := appendJSON(nil, settled); !bytes.Equal(body, rec.Body) {
				before := rec.Body
				rec.Body = body
				rec.Version++
				rec.UpdatedAt = c.Now.UTC().Truncate(time.Millisecond)
				entries, terms := r.index(settled)
				if err := s.UpdateRecord(ctx, c.Grant.Workspace.ID, rec, entries, terms); err != nil {
					return Result{}, err
				}
				s.NoteChange(c.Grant.Workspace.ID, Change{Op: OpUpdate, Record: rec, Before: before})
			}
			data, err := r.appendRecord(nil, rec, nil)
			return Result{Data: data, Target: r.targetOf(rec, settled)}, err
		},
	}, nil
}

// settle returns the values that the record will have: the old ones with the
// changes merged in. It checks what the changes alone cannot tell: merged
// objects, references, and choices. A nil old means a new record.
func (a *Action) settle(ctx context.Context, s Store, c Call, old, changes map[string]any, lock bool) (map[string]any, error) {
	r := a.resource
	values := mergePatch(old, changes).(map[string]any)
	var fs faults
	var refs []Ref
	for i := range r.Fields {
		f := &r.Fields[i]
		v, set := values[f.Name]
		if !set {
			continue
		}
		switch {
		case f.Type == TypeObject && changes[f.Name] != nil:
			f.check(f.Name, v, &fs)
		case f.Type == TypeRef && v != old[f.Name]: // an unchanged one reveals nothing
			if c.Grant.Decide(f.Ref, access.Read) == access.Deny {
				f.dangling(v, &fs)
			} else {
				refs = append(refs, Ref{Field: f.Name, Resource: f.Ref, ID: v.(string)})
			}
		}
	}
	if len(refs) > 0 {
		missing, err := s.MissingRefs(ctx, c.Grant.Workspace.ID, refs)
		if err != nil {
			return nil, err
		}
		for _, m := range missing {
			if f, ok := r.Field(m.Field); ok {
				f.dangling(m.ID, &fs)
			}
		}
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.choice == nil || len(fs.fields) > 0 {
			continue
		}
		if old != nil && changes[f.Name] == nil && !has(changes, f.Name) && !has(changes, f.choice.ref.Name) {
			continue
		}
		if err := a.choose(ctx, s, c, f, values, &fs, lock); err != nil {
			return nil, err
		}
	}
	if err := fs.err(a.Name); err != nil {
		return nil, err
	}
	return values, nil
}

func has(m map[string]any, k string) bool { _, ok := m[k]; return ok }

// dangling says that the reference points at nothing that the caller may see.
func (f *Field) dangling(v any, fs *faults) {
	fs.put(f.Name, "the id of an existing "+f.target.noun(), "no "+f.target.noun()+" with the id "+f.got(v), f.target.findHint())
}

// choose sees to it that the value of f is one of its choices, and takes the
// first if it has none. The record that holds them is locked, so that the
// choice cannot vanish before the transaction ends. Who may not read that
// record is not told what the choices are.
func (a *Action) choose(ctx context.Context, s Store, c Call, f *Field, values map[string]any, fs *faults, lock bool) error {
	holder, _ := values[f.choice.ref.Name].(string)
	if holder == "" {
		if v, ok := values[f.Name]; ok {
			fs.put(f.Name, "nothing while "+f.choice.ref.Name+" is unset", f.got(v), "Set "+f.choice.ref.Name+" too.")
		}
		return nil
	}
	rec, err := s.Record(ctx, c.Grant.Workspace.ID, f.choice.ref.Ref, holder, lock)
	if problem.Is(err, problem.NotFound) {
		f.choice.ref.dangling(holder, fs)
		return nil
	}
	if err != nil {
		return err
	}
	body, err := decodeObject(rec.Body)
	if err != nil {
		return fmt.Errorf("decode record %s: %w", rec.ID, err)
	}
	all := itemNames(body[f.choice.list.Name])
	v, ok := values[f.Name].(string)
	if !ok {
		if len(all) > 0 {
			values[f.Name] = all[0]
		}
		return nil
	}
	if i := slices.IndexFunc(all, func(n string) bool { return fold(n) == fold(v) }); i >= 0 {
		values[f.Name] = all[i] // spelled as in the list
		return nil
	}
	if c.Grant.Decide(f.choice.ref.Ref, access.Read) == access.Deny {
		fs.put(f.Name, fmt.Sprintf("one of the %s of %s", f.choice.list.Name, holder), f.got(v), "")
		return nil
	}
	fs.put(f.Name, fmt.Sprintf("one of %s, which are the %s of %s", strings.Join(all, ", "), f.choice.list.Name, holder), f.got(v), didYouMean(v, all))
	return nil
}

// itemNames returns the names of a list's items.
func itemNames(list any) []string {
	var all []string
	items, _ := list.([]any)
	for _, item := range items {
		o, _ := item.(map[string]any)
		if n, ok := o["name"].(string); ok {
			all = append(all, n)
		}
	}
	return all
}

// keepChosen refuses to take away list items that other records have chosen.
func (a *Action) keepChosen(ctx context.Context, s Store, c Call, rec Record, old, values map[string]any) error {
	for _, l := range a.resource.lends {
		list := l.field.choice.list.Name
		kept := itemNames(values[list])
		gone := slices.DeleteFunc(itemNames(old[list]), func(n string) bool {
			return slices.ContainsFunc(kept, func(k string) bool { return fold(k) == fold(n) })
		})
		if len(gone) == 0 {
			continue
		}
		sums, err := s.SumByField(ctx, c.Grant.Workspace.ID, l.resource.Name, l.field.choice.ref.Name, rec.ID, l.field.Name, l.resource.sumField())
		if err != nil {
			return err
		}
		for _, sum := range sums {
			if sum.Count > 0 && slices.ContainsFunc(gone, func(n string) bool { return fold(n) == fold(sum.Value) }) {
				return problem.Errorf(problem.Conflict, "%s: %s: %q cannot go: %s stand on it", a.Name, list, sum.Value, l.resource.count(sum.Count, c.Grant)).
					WithFix("Give them another %s first, or keep %q.", l.field.Name, sum.Value)
			}
		}
	}
	return nil
}

// sumField returns the name of the resource's first amount of money, or "".
func (r *Resource) sumField() string {
	for i := range r.Fields {
		if r.Fields[i].Type == TypeMoney {
			return r.Fields[i].Name
		}
	}
	return ""
}

// count says how many records there are of the resource, without its name if
// the grant may not read it.
func (r *Resource) count(n int64, g access.Grant) string {
	readable := g.Decide(r.Name, access.Read) != access.Deny
	switch {
	case readable && n == 1:
		return "1 " + r.noun()
	case readable:
		return fmt.Sprintf("%d %s", n, strings.ReplaceAll(r.Name, "-", " "))
	case n == 1:
		return "1 other record"
	}
	return fmt.Sprintf("%d other records", n)
}

// planDelete plans to delete the target, which is refused while other records
// refer to it. The record is locked before the referrers are counted: from
// then on nobody can add one.
func (a *Action) planDelete(ctx context.Context, s Store, c Call, lock bool) (plan, error) {
	r := a.resource
	rec, err := a.target(ctx, s, c, lock)
	if err != nil {
		return plan{}, err
	}
	values, err := decodeObject(rec.Body)
	if err != nil {
		return plan{}, fmt.Errorf("decode record %s: %w", rec.ID, err)
	}
	if err := a.referrers(ctx, s, c, rec); err != nil {
		return plan{}, err
	}
	p := plan{target: r.targetOf(rec, values), before: values}
	p.run = func(ctx context.Context, s Store) (Result, error) {
		if err := s.DeleteRecord(ctx, c.Grant.Workspace.ID, r.Name, rec.ID, rec.Version); err != nil {
			return Result{}, err
		}
		s.NoteChange(c.Grant.Workspace.ID, Change{Op: OpDelete, Record: rec})
		data := append(appendString([]byte(`{"id":`), rec.ID), `,"deleted":true}`...)
		return Result{Data: data, Target: p.target}, nil
	}
	return p, nil
}

// ReferTo says how many records refer to the one of the id, by each field that
// can.
func (r *Resource) ReferTo(ctx context.Context, s Store, workspace, id string) ([]Referrer, error) {
	if len(r.refs) == 0 {
		return nil, nil
	}
	from := make([]Ref, len(r.refs))
	for i, f := range r.refs {
		from[i] = Ref{Resource: f.resource.Name, Field: f.field.Name}
	}
	return s.Referrers(ctx, workspace, id, from)
}

// referrers returns the error that says what refers to the record, if anything
// does. Of kinds that the caller may not read it tells only that they exist.
func (a *Action) referrers(ctx context.Context, s Store, c Call, rec Record) error {
	all, err := a.resource.ReferTo(ctx, s, c.Grant.Workspace.ID, rec.ID)
	if err != nil {
		return err
	}
	var kinds []*Resource
	var ways []string
	counts := map[*Resource]int64{}
	var others int64
	for _, ref := range all {
		i := slices.IndexFunc(a.resource.refs, func(f foreign) bool { return f.resource.Name == ref.Resource })
		if i < 0 || ref.Count == 0 {
			continue
		}
		if c.Grant.Decide(ref.Resource, access.Read) == access.Deny {
			others += ref.Count
			continue
		}
		r := a.resource.refs[i].resource
		if counts[r] == 0 {
			kinds = append(kinds, r)
		}
		counts[r] += ref.Count
		ways = append(ways, fmt.Sprintf("list_%s with %s=%s", strings.ReplaceAll(ref.Resource, "-", "_"), ref.Field, rec.ID))
	}
	var parts []string
	for _, k := range kinds {
		parts = append(parts, k.count(counts[k], c.Grant))
	}
	if others > 0 {
		parts = append(parts, a.resource.count(others, access.Grant{}))
	}
	if parts == nil {
		return nil
	}
	verb := "refer"
	if len(parts) == 1 && strings.HasPrefix(parts[0], "1 ") {
		verb = "refers"
	}
	e := problem.Errorf(problem.Conflict, "%s %s cannot be deleted: %s %s to it", a.resource.noun(), rec.ID, strings.Join(parts, " and "), verb)
	e.Fix = "Delete them or clear their reference first."
	if ways != nil {
		e.Fix += " Find them with " + strings.Join(ways, ", ") + "."
	}
	return e
}
