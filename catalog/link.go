package catalog

import (
	"slices"
	"strings"

	"trustpager/access"
)

// link resolves what the resources name in each other and makes the actions.
// It goes on after faults, so that all are told at once.
func (l *loader) link(c *Catalog) {
	prefixes := map[string]*Resource{}
	for _, r := range c.resources {
		if r.Code {
			c.withoutGone(r)
		}
		if first, twice := prefixes[r.Prefix]; twice && r.Prefix != "" {
			l.fail(r.at, "%s.prefix: %q is that of %s too", r.Name, r.Prefix, first.Name)
		} else {
			prefixes[r.Prefix] = r
		}
		l.refs(c, r.Name, r.Fields)
		for i := range r.specs {
			l.refs(c, r.Name+"."+r.specs[i].name, r.specs[i].fields)
		}
	}
	for _, r := range c.resources {
		for i := range r.Fields {
			f := &r.Fields[i]
			l.choices(r, f)
			if f.Type != TypeRef || r.Code {
				continue // what happened stays, also if what it was about goes
			}
			f.target.refs = append(f.target.refs, foreign{r, f})
		}
	}
	routes := map[string]string{}
	for _, r := range c.resources {
		for _, a := range l.actionsOf(c, r) {
			l.add(c, routes, r.at, a)
		}
	}
	l.add(c, routes, position{}, accessAction(c))
	l.add(c, routes, position{}, searchAction(c))
}

// withoutGone takes from a resource of the program the references to records
// that a source has removed.
func (c *Catalog) withoutGone(r *Resource) {
	gone := func(f Field) bool { return f.Type == TypeRef && f.Ref != usersResource && c.byName[f.Ref] == nil }
	r.Fields = slices.DeleteFunc(r.Fields, gone)
	for i := range r.specs {
		r.specs[i].fields = slices.DeleteFunc(r.specs[i].fields, gone)
	}
}

// refs resolves the targets of reference fields.
func (l *loader) refs(c *Catalog, where string, fields []Field) {
	for i := range fields {
		f := &fields[i]
		if f.Type != TypeRef {
			continue
		}
		var targets []string
		for _, r := range c.resources {
			if r.Keeps || r.Name == usersResource {
				targets = append(targets, r.Name)
			}
		}
		if !slices.Contains(targets, f.Ref) {
			if f.Ref != "" {
				l.fail(f.at, "%s.%s.ref: there are no records %q%s", where, f.Name, f.Ref, l.near(f.Ref, targets, "targets"))
			}
			f.target = &Resource{Name: f.Ref, Singular: "record"} // so that linking can go on
			continue
		}
		f.target = c.byName[f.Ref]
	}
}

// choices resolves where the values of f are found.
func (l *loader) choices(r *Resource, f *Field) {
	if f.Choices == "" {
		return
	}
	where := r.Name + "." + f.Name + ".choices"
	refName, listName, _ := strings.Cut(f.Choices, ".")
	ref, ok := r.Field(refName)
	if !ok || ref.Type != TypeRef {
		l.fail(f.at, "%s: %q must begin with a ref field of %s, as in pipeline_id.stages", where, f.Choices, r.Name)
		return
	}
	list, ok := ref.target.Field(listName)
	if !ok || list.Type != TypeList {
		l.fail(f.at, "%s: %s has no list %q", where, ref.target.Name, listName)
		return
	}
	if !slices.ContainsFunc(list.Fields, func(s Field) bool {
		return s.Name == "name" && s.Type == TypeString && s.Required && s.Unique
	}) {
		l.fail(f.at, "%s: the items of %s.%s need a field name that is a required, unique string", where, ref.target.Name, listName)
		return
	}
	f.choice = &choice{ref, list}
	ref.target.lends = append(ref.target.lends, foreign{r, f})
}

// add puts the action into the catalog.
func (l *loader) add(c *Catalog, routes map[string]string, at position, a *Action) {
	if !toolName.MatchString(a.Name) {
		l.fail(at, "action name %q: a name has 1 to 64 letters, digits, dots, slashes, hyphens and underscores", a.Name)
	}
	if other, twice := c.byAction[a.Name]; twice {
		l.fail(at, "%s: the action %s exists twice; the other belongs to %s", a.Resource, a.Name, other.Resource)
		return
	}
	route := a.Method + " " + a.Path
	if other, twice := routes[route]; twice {
		l.fail(at, "%s: the actions %s and %s have the same route %s", a.Resource, other, a.Name, route)
		return
	}
	routes[route] = a.Name
	seen := map[string]bool{}
	for _, f := range a.fields {
		if seen[f.Name] {
			l.fail(at, "%s: the input of %s has two members named %s", a.Resource, a.Name, f.Name)
		}
		seen[f.Name] = true
	}
	a.Input = a.input()
	c.actions = append(c.actions, a)
	c.byAction[a.Name] = a
}

// actionsOf makes the actions of one resource.
func (l *loader) actionsOf(c *Catalog, r *Resource) []*Action {
	var actions []*Action
	switch {
	case r.Name == usersResource:
		actions = userActions(r)
	case r.Keeps:
		actions = recordActions(r)
	}
	if r.Code {
		// The program writes its own records, and who may not read them has no
		// action that does.
		actions = slices.DeleteFunc(actions, func(a *Action) bool {
			return a.Verb != access.Read || !slices.Contains(r.Ladder.Verbs(), access.Read)
		})
		return append(actions, l.codeActions(r)...)
	}
	for _, s := range r.specs {
		where := r.Name + "." + s.name
		rest, ok := strings.CutPrefix(s.path, "/"+r.Name+"/")
		if s.target && ok {
			rest, ok = strings.CutPrefix(rest, "{id}/")
		}
		if (!ok || !pathSegment.MatchString(rest)) && s.path != "" {
			form := "/" + r.Name + "/name"
			if s.target {
				form = "/" + r.Name + "/{id}/name"
			}
			l.fail(s.at, "%s.path: %q must have the form %s", where, s.path, form)
		}
		a := &Action{
			Name: s.name, Resource: r.Name, Verb: s.verb, Op: OpOther, Title: s.title, Description: s.description,
			Method: s.method, Path: s.path, Target: s.target, Destructive: s.destructive, Idempotent: s.idempotent || s.verb == access.Read,
			resource: r, fields: slices.Clone(s.fields),
		}
		a.addMeta()
		a.Output = r.recordSchema(false).encode()
		f, ok := functions[s.function]
		if !ok {
			l.fail(s.at, "%s.function: the program has no function %q%s", where, s.function, l.near(s.function, functionNames(), "functions"))
		} else if err := f(c, r, a); err != nil {
			l.fail(s.at, "%s: %v", where, err)
		}
		actions = append(actions, a)
	}
	return actions
}

// codeActions makes the further actions of a resource that is code: what they
// do comes with [Catalog.Bind].
func (l *loader) codeActions(r *Resource) []*Action {
	var actions []*Action
	for _, s := range r.specs {
		where := r.Name + "." + s.name
		rest := strings.TrimPrefix(s.path, "/"+r.Name)
		if s.target {
			rest = strings.TrimPrefix(rest, "/{id}")
		}
		if rest == s.path || rest != "" && !pathSegment.MatchString(strings.TrimPrefix(rest, "/")) {
			l.fail(s.at, "%s.path: %q must begin with /%s, or /%s/{id} with a target, and have at most one segment more", where, s.path, r.Name, r.Name)
		}
		a := &Action{
			Name: s.name, Resource: r.Name, Verb: s.verb, Op: s.op, Title: s.title, Description: s.description,
			Method: s.method, Path: s.path, Target: s.target, Destructive: s.destructive, Idempotent: s.idempotent || s.verb == access.Read,
			OpenWorld: s.openWorld, PeopleDecide: s.peopleDecide, resource: r, fields: slices.Clone(s.fields), refused: s.refused, own: s.own, code: true,
		}
		a.plan = a.unbound
		a.addMeta()
		out := s.output
		if out == nil {
			out = r.recordSchema(!r.Keeps)
		}
		if s.op == OpList {
			a.fields = append(a.fields, limitField(), cursorField())
			out = &schema{Type: "array", Items: out}
		}
		a.Output = out.encode()
		actions = append(actions, a)
	}
	return actions
}

// addMeta adds the members that all changing actions take.
func (a *Action) addMeta() {
	if a.Verb == access.Read {
		return
	}
	if a.Target && a.resource.Keeps {
		a.fields = append(a.fields, Field{Name: "if_version", Type: TypeInteger, Min: 1, Max: maxSafe, null: true, told: true,
			Description: "Refuse if it has changed since this version."})
	}
	if !slices.ContainsFunc(a.fields, func(f Field) bool { return f.Name == "reason" }) {
		a.fields = append(a.fields, Field{Name: "reason", Type: TypeText, Max: maxReason, null: true, told: true,
			Description: "Why; the approver sees it."})
		a.reason = "reason"
	}
	a.fields = append(a.fields, dryRunField())
}

func dryRunField() Field { return Field{Name: "dry_run", Type: TypeBoolean} }
