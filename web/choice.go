package web

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"trustpager/access"
	"trustpager/catalog"
)

// The fields of the form by which people say how far an app may go: a preset,
// and for the preset custom a position on the ladder of each resource.
const (
	presetField   = "preset"
	customPreset  = "custom"
	resourceField = "r." // and the resource's name
)

// A presetChoice is a preset as the form offers it.
type presetChoice struct {
	preset catalog.Preset
	title  string
}

// presetChoices are the presets from the most careful one on. The first is what
// a form that cannot be read falls to.
var presetChoices = []presetChoice{
	{catalog.PresetRead, "Read only"},
	{catalog.PresetRecommended, "Ask me before every change"},
	{catalog.PresetAct, "Act, but ask before deleting and sending"},
}

// bounds say what a form can give at most, and who is asked about what it holds
// back.
type bounds struct {
	catalog   *catalog.Catalog
	most      access.Rights
	own       access.Rights // what the app may do where only the person holds it back: ceiling and role
	workspace access.Workspace
	admin     bool // the person decides everything
}

// cut returns the scopes as far as the bounds allow them.
func (b bounds) cut(scopes []access.Scope) []access.Scope { return b.catalog.Cut(scopes, b.most) }

// positionOf returns the position on the resource's ladder that the rights
// amount to; no access if there is none.
func positionOf(r *catalog.Resource, rights access.Rights) access.Position {
	p, _ := r.Ladder.Position(rights.Levels(r.Name).On(r.Ladder))
	return p
}

// scopes returns what the form asks for, within the bounds. A form that says
// nothing, or what no page of ours says, asks to read only.
func (b bounds) scopes(form url.Values) []access.Scope {
	careful := b.cut(b.catalog.Scopes(presetChoices[0].preset))
	preset := form[presetField]
	if len(preset) != 1 {
		return careful
	}
	if preset[0] != customPreset {
		if slices.ContainsFunc(presetChoices, func(c presetChoice) bool { return string(c.preset) == preset[0] }) {
			return b.cut(b.catalog.Scopes(catalog.Preset(preset[0])))
		}
		return careful
	}
	scopes, ok := b.custom(form)
	if !ok {
		return careful
	}
	return b.cut(scopes)
}

// custom returns the scopes of the form's ladders. It fails if there are none,
// or any that the catalog does not have.
func (b bounds) custom(form url.Values) (scopes []access.Scope, ok bool) {
	for name, values := range form {
		name, isLadder := strings.CutPrefix(name, resourceField)
		if !isLadder {
			continue
		}
		r, known := b.catalog.Resource(name)
		if !known || len(values) != 1 {
			return nil, false
		}
		i := slices.IndexFunc(r.Ladder.Positions(), func(p access.Position) bool { return p.Name == values[0] })
		if i < 0 {
			return nil, false
		}
		scopes = append(scopes, r.Ladder.Positions()[i].Scopes(name)...)
		ok = true
	}
	return scopes, ok
}

// A choice is the form: presets, and ladders by groups of resources.
type choice struct {
	Presets []radio
	Groups  []ladderGroup
}

// A ladderGroup is the ladders of one group of the catalog.
type ladderGroup struct {
	Name    string
	Admin   bool
	Hint    string // what holds for all of its ladders
	Ladders []ladder
	Closed  string // the resources whose ladders offer nothing
}

// choice returns the form with the scopes selected: as the preset that they
// are, if custom does not insist on the ladders. Presets that come to the same
// within the bounds are offered once, and a preset is never more than the
// bounds.
func (b bounds) choice(selected []access.Scope, custom bool) choice {
	selected = b.cut(selected)
	want := access.FormatScopes(selected)
	var c choice
	offered := map[string]bool{}
	checked := custom
	for _, p := range presetChoices {
		scopes := b.cut(b.catalog.Scopes(p.preset))
		key := access.FormatScopes(scopes)
		if offered[key] {
			continue
		}
		offered[key] = true
		is := !checked && key == want
		checked = checked || is
		c.Presets = append(c.Presets, radio{Name: presetField, Value: string(p.preset), Title: p.title, Says: b.says(scopes, p.preset == catalog.PresetRead), Checked: is})
	}
	c.Presets = append(c.Presets, radio{Name: presetField, Value: customPreset, Title: "Custom", Says: "Choose for each resource.", Checked: custom || !checked})
	c.Groups = b.groups(access.RightsOf(selected))
	return c
}

func (b bounds) groups(selected access.Rights) []ladderGroup {
	var groups []ladderGroup
	for _, r := range b.catalog.Resources() {
		i := slices.IndexFunc(groups, func(g ladderGroup) bool { return g.Name == r.Group })
		if i < 0 {
			i = len(groups)
			groups = append(groups, ladderGroup{Name: r.Group, Admin: r.Group == catalog.AdminOnly})
		}
		g := &groups[i]
		l := b.ladder(r, positionOf(r, selected))
		if len(l.Steps) > 1 {
			g.Ladders = append(g.Ladders, l)
			continue
		}
		if g.Closed != "" {
			g.Closed += ", "
		}
		g.Closed += r.Label
	}
	for i := range groups {
		groups[i].shareHint()
	}
	return groups
}

// shareHint says once what would stand with each ladder.
func (g *ladderGroup) shareHint() {
	if len(g.Ladders) < 2 || slices.ContainsFunc(g.Ladders, func(l ladder) bool { return l.Hint != g.Ladders[0].Hint }) {
		return
	}
	g.Hint = g.Ladders[0].Hint
	for i := range g.Ladders {
		g.Ladders[i].Hint = ""
	}
}

// ladder returns the control of one resource, with the positions that the
// bounds allow.
func (b bounds) ladder(r *catalog.Resource, at access.Position) ladder {
	most := b.most.Levels(r.Name)
	l := ladder{Name: resourceField + r.Name, Label: r.Label}
	for i, p := range r.Ladder.Positions() {
		if p.Levels().Within(most) {
			s := step{Value: p.Name, Title: p.Title, Asks: p.Asks, Checked: p.Name == at.Name || at.Name == "" && i == 0, Presets: b.presetsOf(r, p)}
			s.Tools, s.Waits = countTools(b.catalog.ActionsOf(r.Name), access.Grant{Workspace: b.workspace, Rights: access.RightsOf(p.Scopes(r.Name))})
			s.Acts = slices.ContainsFunc(r.Ladder.Verbs(), func(v access.Verb) bool { return v != access.Read && p.Levels()[v] > access.Deny })
			l.Steps = append(l.Steps, s)
		}
	}
	var admins []string
	for _, v := range r.Ladder.Verbs() {
		words, changing := verbWords[v]
		if changing && most[v] > access.Deny && b.asks(r.Name, v, access.Queue) == asksAdmin {
			admins = append(admins, words.does)
		}
	}
	if admins != nil {
		l.Hint = "An admin is asked before it " + enumerate(admins, "or") + "."
	}
	return l
}

// presetsOf returns the presets that choose the position of the resource.
func (b bounds) presetsOf(r *catalog.Resource, p access.Position) string {
	var names []string
	for _, c := range presetChoices {
		if positionOf(r, access.RightsOf(b.cut(b.catalog.Scopes(c.preset)))).Name == p.Name {
			names = append(names, string(c.preset))
		}
	}
	return strings.Join(names, " ")
}

// countTools returns how many of the actions the grant has as tools, and how
// many of these wait for a person.
func countTools(actions []*catalog.Action, g access.Grant) (tools, waits int) {
	for _, a := range actions {
		switch a.Level(g) {
		case access.Queue:
			waits++
			fallthrough
		case access.Run:
			tools++
		}
	}
	return tools, waits
}

// Who is asked before something is done.
const (
	asksNobody = iota
	asksMe
	asksAdmin
)

// asks says who is asked before the verb is applied, if it is granted at the
// level.
func (b bounds) asks(resource string, v access.Verb, l access.Level) int {
	always := b.workspace.AlwaysAsks(resource, v)
	switch {
	case l == access.Run && !always:
		return asksNobody
	case b.admin, b.own.Level(resource, v) == access.Run && !always:
		return asksMe
	default:
		return asksAdmin
	}
}

// verbWords are the verbs besides read as sentences have them, and what they
// are done to.
var verbWords = map[access.Verb]struct{ does, all string }{
	access.Write:  {"changes", "records"},
	access.Delete: {"deletes", "records"},
	access.Send:   {"sends", "messages"},
	access.Use:    {"uses", "AI"},
}

// A share is what is done of one verb in one way.
type share struct {
	verb  access.Verb
	names []string // the resources
	rest  []string // those where it is done in another way, or not, although they are seen
}

// shares sorts what the rights allow by who is asked, each in the order of the
// verbs, and names what is read.
func (b bounds) shares(rights access.Rights) (sees []string, by [asksAdmin + 1][]share) {
	for _, v := range []access.Verb{access.Write, access.Delete, access.Send, access.Use} {
		var names [asksAdmin + 1][]string
		var all []string
		for _, r := range b.catalog.Resources() {
			l := rights.Level(r.Name, v)
			seen := slices.Contains(r.Ladder.Verbs(), v) && r.Group != catalog.AdminOnly && rights.Level(r.Name, access.Read) == access.Run
			if l > access.Deny || seen {
				all = append(all, inSentence(r.Label))
			}
			if l > access.Deny {
				who := b.asks(r.Name, v, l)
				names[who] = append(names[who], inSentence(r.Label))
			}
		}
		for who, names := range names {
			if names != nil {
				rest := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(names, name) })
				by[who] = append(by[who], share{v, names, rest})
			}
		}
	}
	for _, r := range b.catalog.Resources() {
		if rights.Level(r.Name, access.Read) == access.Run {
			sees = append(sees, inSentence(r.Label))
		}
	}
	return sees, by
}

// says tells what the scopes mean here: what the app does by itself, what the
// person is asked about, and what an admin is.
func (b bounds) says(scopes []access.Scope, withReading bool) string {
	sees, by := b.shares(access.RightsOf(scopes).Min(b.most))
	var s []string
	if withReading {
		s = append(s, seesWords(sees))
	}
	if by[asksNobody] != nil {
		s = append(s, "By itself it "+words(by[asksNobody], "and")+".")
	}
	if by[asksMe] != nil {
		s = append(s, "You are asked before it "+words(by[asksMe], "or")+".")
	}
	if by[asksAdmin] != nil {
		s = append(s, "An admin of the workspace will be asked before it "+words(by[asksAdmin], "or")+".")
	}
	if by[asksNobody] == nil && by[asksMe] == nil && by[asksAdmin] == nil {
		s = append(s, "Changes nothing.")
	}
	return strings.Join(s, " ")
}

// facts tells what the scopes allow, without saying who is asked.
func (b bounds) facts(scopes []access.Scope) []string {
	b.admin = true // one kind of asking
	sees, by := b.shares(access.RightsOf(scopes).Min(b.most))
	facts := []string{seesWords(sees)}
	if by[asksNobody] != nil {
		facts = append(facts, "By itself it "+words(by[asksNobody], "and")+".")
	}
	if by[asksMe] != nil {
		facts = append(facts, "Somebody is asked before it "+words(by[asksMe], "or")+".")
	}
	if len(facts) == 1 {
		facts = append(facts, "Changes nothing.")
	}
	return facts
}

func seesWords(sees []string) string {
	if sees == nil {
		return "Sees nothing."
	}
	return "Sees " + shortList(sees) + "."
}

// words enumerates what is done, with the resources where all would be too much
// to say.
func words(shares []share, last string) string {
	all := make([]string, len(shares))
	for i, s := range shares {
		things := verbWords[s.verb].all
		switch {
		case len(s.rest) == 0:
		case len(s.rest) <= 2 && len(s.rest) < len(s.names):
			things += " (but not " + enumerate(s.rest, "or") + ")"
		default:
			things = shortList(s.names)
		}
		all[i] = verbWords[s.verb].does + " " + things
	}
	return enumerate(all, last)
}

// inSentence returns a label as it stands within a sentence.
func inSentence(label string) string {
	first, n := utf8.DecodeRuneInString(label)
	second, _ := utf8.DecodeRuneInString(label[n:])
	if unicode.IsUpper(second) {
		return label // SMS, AI
	}
	return string(unicode.ToLower(first)) + label[n:]
}

// A change is how a consent differs from the one before on one resource.
type change struct {
	Label, From, To string
	More, Less      bool // goes further, less far; neither if it does both
}

// changes returns the differences between what was granted and what is now
// selected. If the client asks for certain scopes, consent is about their
// resources only, and the others stay as they are.
func (b bounds) changes(before, now, asked []access.Scope) []change {
	old, selected := access.RightsOf(before).Min(b.own), access.RightsOf(now)
	var changes []change
	for _, r := range b.catalog.Resources() {
		was, is := positionOf(r, old), positionOf(r, selected)
		concerned := asked == nil || slices.ContainsFunc(asked, func(s access.Scope) bool { return s.Resource == r.Name })
		if !concerned || was.Levels() == is.Levels() {
			continue
		}
		changes = append(changes, change{Label: r.Label, From: titleOf(r, was), To: titleOf(r, is),
			More: was.Levels().Within(is.Levels()), Less: is.Levels().Within(was.Levels())})
	}
	return changes
}

// titleOf returns the position's title; that of the lowest for none.
func titleOf(r *catalog.Resource, p access.Position) string {
	if p.Name == "" {
		return r.Ladder.Positions()[0].Title
	}
	return p.Title
}
