package catalog

import (
	"slices"

	"trustpager/access"
	"trustpager/problem"
)

// RequestAccess is the name of the action with which a credential asks for a
// loan. It belongs to no resource: what it asks for says whose rung decides, see
// [Action.About]. Its service is bound by its name.
const RequestAccess = "request_access"

// accessAction returns the action with which a credential asks to be lent a
// verb of a resource.
func accessAction(c *Catalog) *Action {
	var names, verbs []string
	for _, r := range c.resources {
		names = append(names, r.Name)
		for _, v := range r.Ladder.Verbs() {
			if v != access.Read && !slices.Contains(verbs, v.String()) {
				verbs = append(verbs, v.String())
			}
		}
	}
	a := &Action{Name: RequestAccess, Verb: access.Write, Op: OpOther, Title: "Request access",
		Description: "Ask a person to let calls of one verb of a resource run without approval for a time, 25 at most. Ask before many like calls; write is to create and change.",
		Method:      "POST", Path: "/access/request", PeopleDecide: true,
		Output: object("loan_id", "string", "resource", "string", "verb", "string", "expires_at", "string", "uses", "integer").encode(),
		fields: []Field{
			{Name: "resource", Type: TypeEnum, Enum: names, Required: true, terse: true, Description: "As in contacts."},
			{Name: "verb", Type: TypeEnum, Enum: verbs, Required: true},
			{Name: "minutes", Type: TypeInteger, Enum: []string{"15", "60", "480"}, Required: true, Min: 15, Max: 480},
			{Name: "why", Type: TypeText, Max: maxReason, Required: true},
			dryRunField(),
		},
		reason: "why", lends: c.resources, code: true}
	a.plan = a.unbound
	return a
}

// Lends reports whether the action asks for a loan.
func (a *Action) Lends() bool { return a.lends != nil }

// About returns the resource and the verb that a call is about: those of the
// action, or those that it asks to be lent.
func (a *Action) About(in Input) (resource string, v access.Verb) {
	if !a.Lends() {
		return a.Resource, a.Verb
	}
	resource, _ = in.Values["resource"].(string)
	verb, _ := in.Values["verb"].(string)
	v, err := access.ParseVerb(verb)
	if err != nil {
		return "", access.Read // Decode lets none pass
	}
	return resource, v
}

// MustSay refuses input without the reason that the action requires. Decode does
// not: what is kept of an input is without it.
func (a *Action) MustSay(in Input) error {
	var fs faults
	for i := range a.fields {
		if f := &a.fields[i]; f.Required && f.Name == a.reason && in.Reason == "" {
			fs.lack(f.Name, f)
		}
	}
	return fs.err(a.Name)
}

// Lent returns the names of the actions that run at once where the verb of the
// resource is lent.
func (c *Catalog) Lent(resource string, v access.Verb) []string {
	var names []string
	for _, a := range c.ActionsOf(resource) {
		if a.Verb == v && !a.own && !a.PeopleDecide {
			names = append(names, a.Name)
		}
	}
	return names
}

// Lendable refuses what can be lent to nobody in the workspace.
func (c *Catalog) Lendable(w access.Workspace, resource string, v access.Verb) error {
	refuse := func(why string) error {
		return problem.Errorf(problem.Conflict, "%s of %s cannot be lent: %s", v, resource, why).WithFix("Each request is decided for itself.")
	}
	r, ok := c.Resource(resource)
	switch {
	case !ok:
		return refuse("there is no such resource any more")
	case !slices.Contains(r.Ladder.Verbs(), v):
		return refuse(resource + " has no such verb")
	case r.Group == AdminOnly:
		return refuse("it belongs to the group Admin Only")
	case w.AlwaysAsks(resource, v):
		return refuse("the workspace marks it as always asking")
	case w.Settings.FourEyes:
		return refuse("in this workspace two people decide")
	}
	return nil
}
