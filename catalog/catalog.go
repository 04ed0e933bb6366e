// Package catalog says what can be acted on: the resources of a workspace,
// their fields, and the actions on them. Record resources are declared in
// YAML; the REST routes, the MCP tools, the scopes and the documentation all
// come from the one [Catalog], and each performance of an [Action] is decoded,
// checked and run here.
package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"trustpager/access"
)

// AdminOnly is the group of the resources that steer the workspace itself.
const AdminOnly = "Admin Only"

// A Catalog is the set of resources and actions of a server. It does not
// change once loaded, so it may be shared.
type Catalog struct {
	resources []*Resource
	byName    map[string]*Resource
	actions   []*Action
	byAction  map[string]*Action
}

// A Resource is a kind of thing that scopes are granted on.
type Resource struct {
	Name        string        // as in scopes and paths: work-orders
	Singular    string        // work-order
	Label       string        // for people: Work orders
	Prefix      string        // of ids: wor
	Group       string        // CRM Data
	Ladder      access.Ladder // the rungs that it stands on
	Description string
	Code        bool // its actions are part of the program; see [Catalog.Bind]
	Keeps       bool // it keeps records; if it is code, only the program writes them
	Fields      []Field

	title []titlePart
	specs []actionSpec // further actions as declared
	lends []foreign    // fields of others whose choices are lists of this resource
	refs  []foreign    // fields of others that refer to this resource
	at    position
}

// A titlePart is literal text, or the name of a field whose value stands there.
type titlePart struct {
	text  string
	field bool
}

// A foreign is a field of another resource.
type foreign struct {
	resource *Resource
	field    *Field
}

// Field returns the field of the given name.
func (r *Resource) Field(name string) (*Field, bool) {
	i := slices.IndexFunc(r.Fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return nil, false
	}
	return &r.Fields[i], true
}

// noun returns what one thing of the resource is called: work order.
func (r *Resource) noun() string { return strings.ReplaceAll(r.Singular, "-", " ") }

// findHint says where ids of the resource are found.
func (r *Resource) findHint() string {
	if !slices.Contains(r.Ladder.Verbs(), access.Read) { // nothing lists them
		return "The answer to the call that made it had its id."
	}
	return fmt.Sprintf("Find ids with list_%s.", strings.ReplaceAll(r.Name, "-", "_"))
}

// TitleOf returns what people call the record of the given body.
func (r *Resource) TitleOf(body json.RawMessage) string {
	values, err := decodeObject(body)
	if err != nil {
		return ""
	}
	return r.titleOf(values)
}

// titleOf returns what people call the record of the given values.
func (r *Resource) titleOf(values map[string]any) string {
	var b strings.Builder
	for _, p := range r.title {
		if !p.field {
			b.WriteString(p.text)
		} else if t := text(values[p.text]); len(t) > 0 {
			b.WriteString(t[0])
		}
	}
	t := strings.Join(strings.Fields(b.String()), " ")
	if !strings.ContainsFunc(t, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }) {
		return "" // only the literal text between unset fields
	}
	return t
}

// Resources returns all resources in the order in which they were declared.
// The caller must not change them.
func (c *Catalog) Resources() []*Resource { return c.resources }

// Resource returns the resource of the given name.
func (c *Catalog) Resource(name string) (*Resource, bool) {
	r, ok := c.byName[name]
	return r, ok
}

// Actions returns all actions, ordered by resource and then as they are
// declared, with the search across resources last. The caller must not change
// them.
func (c *Catalog) Actions() []*Action { return c.actions }

// ActionsOf returns the actions of one resource.
func (c *Catalog) ActionsOf(resource string) []*Action {
	var of []*Action
	for _, a := range c.actions {
		if a.Resource == resource {
			of = append(of, a)
		}
	}
	return of
}

// Find returns the action of the given name.
func (c *Catalog) Find(name string) (*Action, bool) {
	a, ok := c.byAction[name]
	return a, ok
}

// CheckScopes reports the scopes whose resource the catalog does not have, or
// whose rung is not on its ladder.
func (c *Catalog) CheckScopes(scopes []access.Scope) error {
	var wrong []string
	for _, s := range scopes {
		r, ok := c.byName[s.Resource]
		switch {
		case !ok:
			all := make([]string, len(c.resources))
			for i, r := range c.resources {
				all[i] = r.Name
			}
			wrong = append(wrong, fmt.Sprintf("scope %q: there is no resource %q; the resources are %s", s, s.Resource, strings.Join(all, ", ")))
		case !s.On(r.Ladder):
			wrong = append(wrong, fmt.Sprintf("scope %q: %s has no rung %q; its rungs are %s", s, r.Name, s.Rung, strings.Join(r.Ladder.Rungs(), ", ")))
		}
	}
	if wrong == nil {
		return nil
	}
	return errors.New(strings.Join(wrong, "\n"))
}

// A Preset is a named choice of rungs for all resources.
type Preset string

// The presets. In each, the Admin Only group is at most read.
const (
	PresetRead        Preset = "read"        // read everything, change nothing
	PresetRecommended Preset = "recommended" // for agents: write, delete, send and use with approval
	PresetAct         Preset = "act"         // write at once; delete and send with approval
)

// Title returns the preset's name as people read it.
func (p Preset) Title() string {
	return map[Preset]string{
		PresetRead:        "Read only",
		PresetRecommended: "Recommended for AI agents",
		PresetAct:         "Act, ask before delete and send",
	}[p]
}

// presets holds the rungs of each preset on each ladder.
var presets = map[Preset]map[access.Ladder][]string{
	PresetRead: {
		access.RecordLadder:  {"read"},
		access.MessageLadder: {"read"},
	},
	PresetRecommended: {
		access.RecordLadder:  {"write-approval", "delete-approval"},
		access.MessageLadder: {"send-approval"},
		access.AILadder:      {"use-approval"},
	},
	PresetAct: {
		access.RecordLadder:  {"write", "delete-approval"},
		access.MessageLadder: {"send-approval"},
		access.AILadder:      {"use"},
	},
}

// Scopes returns the scopes of the preset, or nil if there is no such preset.
func (c *Catalog) Scopes(p Preset) []access.Scope {
	of, ok := presets[p]
	if !ok {
		return nil
	}
	var scopes []access.Scope
	for _, r := range c.resources {
		rungs := of[r.Ladder]
		if r.Group == AdminOnly {
			rungs = []string{"read"}
		}
		for _, rung := range rungs {
			scopes = append(scopes, access.Scope{Resource: r.Name, Rung: rung})
		}
	}
	return scopes
}

// ScopesOf returns the rights as scopes of the catalog's resources.
func (c *Catalog) ScopesOf(r access.Rights) []access.Scope {
	var scopes []access.Scope
	for _, res := range c.resources {
		if p, ok := res.Ladder.Position(r.Levels(res.Name).On(res.Ladder)); ok {
			scopes = append(scopes, p.Scopes(res.Name)...)
		}
	}
	return scopes
}

// Cut returns the scopes without what goes beyond most: each resource on the
// highest position that both allow.
func (c *Catalog) Cut(scopes []access.Scope, most access.Rights) []access.Scope {
	return c.ScopesOf(access.RightsOf(scopes).Min(most))
}

// RoleRights returns what a person in the role may do: owners and admins
// everything, members everything but the Admin Only group. Any other role may
// do nothing.
func (c *Catalog) RoleRights(role access.Role) access.Rights {
	switch role {
	case access.Owner, access.Admin:
		return access.FullRights
	case access.Member:
	default:
		return access.Rights{}
	}
	var scopes []access.Scope
	for _, r := range c.resources {
		if r.Group == AdminOnly {
			continue
		}
		rungs := r.Ladder.Rungs()
		scopes = append(scopes, access.Scope{Resource: r.Name, Rung: rungs[len(rungs)-1]}) // the highest gives all
	}
	return access.RightsOf(scopes)
}
