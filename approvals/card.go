package approvals

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/unseen"
)

// A Card is an approval with what a person needs to know to decide it. The
// facts come from the database, not from the agent.
type Card struct {
	View
	Facts     []Fact  `json:"facts"`
	Checks    []Check `json:"checks"`
	MayDecide bool    `json:"may_decide"` // whoever asked for the card
	WhyNot    string  `json:"why_not,omitempty"`
	MayLend   bool    `json:"may_lend"`         // whoever asked for the card, to the credential that asked for the approval
	Needed    int     `json:"approvals_needed"` // how many more have to approve; 0 once it is decided

	Raw string `json:"raw,omitempty"` // the request's body as it was sent, secrets masked; "" once it is forgotten

	TargetTitle   string            `json:"target_title,omitempty"`   // as it is called now
	TargetVersion int64             `json:"target_version,omitempty"` // as it is now; 0 if there is none, or it is gone
	Stale         bool              `json:"stale"`                    // the target has changed since it was asked
	Untouched     int               `json:"untouched,omitempty"`      // of a stale update: how many of the proposed fields nobody has changed since
	Titles        map[string]string `json:"titles,omitempty"`         // what the ids in the facts name, as far as the reader may know

	Effects *Effects `json:"effects,omitempty"` // of approving it now; see [Gate.Foresee]
}

// A Fact is one field of the record that the action is about.
type Fact struct {
	Name     string          `json:"name"`
	Type     catalog.Type    `json:"type"`
	Ref      string          `json:"ref,omitempty"`      // the resource that its ids name
	Base     json.RawMessage `json:"base,omitempty"`     // when it was asked
	Current  json.RawMessage `json:"current,omitempty"`  // now
	Proposed json.RawMessage `json:"proposed,omitempty"` // after the action
	Changes  bool            `json:"changes"`            // the action changes it
	Stale    bool            `json:"stale,omitempty"`    // others have changed it since it was asked
}

// A Check is one thing that has to hold, or is worth a look.
type Check struct {
	Name   string `json:"name"` // requester, open, target, values or characters
	OK     bool   `json:"ok"`
	Blocks bool   `json:"blocks"` // if it does not hold, approving is refused
	Text   string `json:"text"`
}

// Blocked reports whether a check stands against approving.
func (c *Card) Blocked() bool {
	return slices.ContainsFunc(c.Checks, func(k Check) bool { return !k.OK && k.Blocks })
}

// QuickReasons are reasons to reject that people often have.
var QuickReasons = []string{
	"This is not needed.",
	"The values are not right; check them and ask again with the right ones.",
	"This is a duplicate of what there is already.",
	"Ask the person concerned first.",
	"This is not for an agent to do; a person will do it.",
}

// Card returns the approval with what there is to know for deciding it, as g
// may see it. It fails with [problem.NotFound] as [Gate.Approval] does. How many
// queries it makes depends on the action's fields, not on how much there is.
func (gate *Gate) Card(ctx context.Context, g access.Grant, id string) (Card, error) {
	a, err := gate.Approval(ctx, g, id)
	if err != nil {
		return Card{}, err
	}
	s := gate.Store
	c := Card{View: gate.View(a), Raw: string(gate.mask(a, a.Request.Body))}
	if a.Status == Pending {
		standing, err := gate.standing(ctx, s, g.Workspace, a)
		if err != nil {
			return c, err
		}
		c.ApprovedBy = nil
		for _, v := range standing {
			c.ApprovedBy = append(c.ApprovedBy, who(v.By))
		}
		c.Needed = max(1, needed(g)-len(standing))
	}
	switch err := gate.mayDecide(ctx, s, g, a); {
	case err == nil:
		c.MayDecide = true
	case problem.Is(err, problem.InsufficientScope):
		c.WhyNot = strings.TrimPrefix(problem.Of(err).Message, "this credential may not decide approval "+a.ID+": ")
	default:
		return c, err
	}
	if !gate.mayRead(g, a) {
		c.Facts, c.Checks, c.WhyNot = []Fact{}, []Check{}, "this credential may not read "+a.Resource+" any more"
		return c, nil
	}
	action, err := gate.action(a)
	if err != nil {
		c.Checks = []Check{{"requester", false, true, problem.Of(err).Message}}
		return c, nil
	}
	effective := a.Input
	if a.Edited != nil {
		effective = a.Edited
	}
	preview, err := gate.look(ctx, s, &c, a, action)
	if err != nil {
		return c, err
	}
	if c.MayDecide && a.Status == Pending {
		switch err := gate.lendable(ctx, s, g, a); {
		case err == nil:
			c.MayLend = true
		case !problem.Is(err, problem.Conflict) && !problem.Is(err, problem.InsufficientScope) && !problem.Is(err, problem.Validation):
			return c, err
		}
	}
	c.facts(gate.Catalog, action, a, effective, preview)
	c.warnings(a, effective)
	return c, gate.titles(ctx, g, []*Card{&c})
}

// Briefs returns of the cards what the approvals themselves tell: what was asked,
// over what there was then, the warnings about characters, and what the ids in
// them name. How many queries it makes does not depend on how many approvals
// there are, so it does not tell what an action does beyond its input.
func (gate *Gate) Briefs(ctx context.Context, g access.Grant, list []Approval) ([]Card, error) {
	cards := make([]Card, len(list))
	all := make([]*Card, len(list))
	for i, a := range list {
		c := &cards[i]
		c.View, all[i] = gate.View(a), c
		action, err := gate.action(a)
		if err != nil {
			continue
		}
		effective := a.Input
		if a.Edited != nil {
			effective = a.Edited
		}
		c.facts(gate.Catalog, action, a, effective, catalog.Preview{Before: a.Base})
		c.warnings(a, effective)
	}
	return cards, gate.titles(ctx, g, all)
}

// look tries what approving would check, and says what it finds. It returns
// what the action would do, as far as that can be told.
func (gate *Gate) look(ctx context.Context, s Store, c *Card, a Approval, action *catalog.Action) (catalog.Preview, error) {
	now := gate.now()
	waits := a.Status == Pending || a.Execution == Failed
	if a.Status == Pending {
		open := Check{"open", now.Before(a.ExpiresAt), true, "It is still open."}
		if !open.OK {
			open.Text = "It has expired: the agent has to ask again."
		}
		c.Checks = append(c.Checks, open)
	}
	call, err := gate.callOf(ctx, s, a, action, nil, now)
	switch {
	case problem.Is(err, problem.Conflict) && waits:
		c.Checks = append(c.Checks, Check{"requester", false, true, sentence(strings.TrimPrefix(problem.Of(err).Message, "approval "+a.ID+" cannot run: "))})
		return gate.present(ctx, s, c, a, action), nil
	case problem.Is(err, problem.Conflict):
		return gate.present(ctx, s, c, a, action), nil
	case err != nil:
		return catalog.Preview{}, err
	}
	call.IfVersion = 0 // whether it has changed is a check of its own
	call.Input.Values = withoutVersion(call.Input.Values)
	preview, err := action.Preview(ctx, s, call)
	if e, ok := errors.AsType[*problem.Error](err); err != nil && (!ok || e.Kind == problem.Unavailable || e.Kind == problem.Internal) {
		return preview, err
	}
	gone := a.TargetID != "" && problem.Is(err, problem.NotFound)
	checks, blocked := serviceChecks(preview)
	if err != nil && !blocked {
		preview = gate.present(ctx, s, c, a, action)
	}
	c.TargetTitle, c.TargetVersion = preview.Target.Title, preview.Target.Version
	if !waits {
		return preview, nil
	}
	c.Checks = append(c.Checks, Check{"requester", true, true, fmt.Sprintf("%s may still ask for this.", unseen.Text(a.By.Name))})
	if a.TargetID != "" {
		c.Stale = !gone && a.TargetVer != 0 && preview.Target.Version != 0 && preview.Target.Version != a.TargetVer
		check := Check{"target", !gone && !c.Stale, true, "It is unchanged since it was asked."}
		switch {
		case gone:
			check.Text = "What it is about is gone."
		case c.Stale:
			check.Text = "What it is about has changed since it was asked."
		}
		c.Checks = append(c.Checks, check)
	}
	if !gone && !blocked {
		check := Check{"values", err == nil, true, "The values are valid, and what they refer to exists."}
		if err != nil {
			check.Text = explain(problem.Of(err))
		}
		c.Checks = append(c.Checks, check)
	}
	c.Checks = append(c.Checks, checks...)
	return preview, nil
}

// serviceChecks are those of the service that the action belongs to. What
// stands against the values is told by them, and not a second time.
func serviceChecks(p catalog.Preview) (checks []Check, blocked bool) {
	for _, k := range p.Checks {
		checks = append(checks, Check{k.Name, k.OK, k.Blocks, k.Text})
		blocked = blocked || !k.OK && k.Blocks
	}
	return checks, blocked
}

// present returns the target as it is, if there is one to be seen.
func (gate *Gate) present(ctx context.Context, s Store, c *Card, a Approval, action *catalog.Action) catalog.Preview {
	r, ok := gate.Catalog.Resource(a.Resource)
	if a.TargetID == "" || !ok {
		return catalog.Preview{}
	}
	rec, err := s.Record(ctx, a.Workspace, a.Resource, a.TargetID, false)
	if err != nil {
		return catalog.Preview{}
	}
	p := catalog.Preview{Target: catalog.Target{ID: rec.ID, Version: rec.Version, Title: r.TitleOf(rec.Body)}, Before: rec.Body}
	if action.Op != catalog.OpDelete {
		p.After = rec.Body
	}
	c.TargetTitle, c.TargetVersion = p.Target.Title, p.Target.Version
	return p
}

// explain says what is wrong with the values.
func explain(e *problem.Error) string {
	if len(e.Fields) == 0 {
		return sentence(e.Message)
	}
	var parts []string
	for _, f := range e.Fields {
		parts = append(parts, fmt.Sprintf("%s has to be %s, and is %s", f.Path, f.Expected, f.Got))
	}
	return sentence(strings.Join(parts, "; "))
}

// sentence makes a sentence of an error's message.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func withoutVersion(values map[string]any) map[string]any {
	rest := map[string]any{}
	for name, v := range values {
		if name != versionMember {
			rest[name] = v
		}
	}
	return rest
}

// versionMember is the member by which an agent names the version of the target
// that it has seen.
const versionMember = "if_version"

// members returns the members of an object, none of what is no object.
func members(object json.RawMessage) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(object, &m) != nil {
		return nil
	}
	return m
}

// facts tells each field of the record: as it was, as it is, and as it would
// be. Of a decided approval it tells what was decided about.
func (c *Card) facts(cat *catalog.Catalog, action *catalog.Action, a Approval, effective json.RawMessage, p catalog.Preview) {
	r, ok := cat.Resource(a.Resource)
	if !ok {
		return
	}
	if action.Lends() {
		c.loanFacts(cat, a, effective)
		return
	}
	waits := a.Status == Pending || a.Execution == Failed
	base, current, input := members(a.Base), members(p.Before), members(effective)
	proposed := members(p.After)
	if !waits || p.After == nil && action.Op != catalog.OpDelete {
		// What was asked, over what there was.
		current = base
		proposed = map[string]json.RawMessage{}
		for name, v := range base {
			proposed[name] = v
		}
		for name, v := range input {
			proposed[name] = v
		}
		if action.Op == catalog.OpDelete {
			proposed = nil
		}
	}
	if base == nil {
		base = current
	}
	asked := members(a.Input)
	fields := slices.Clone(r.Fields)
	for _, f := range action.Fields() { // those that are not kept
		if _, kept := r.Field(f.Name); !kept && f.Name != versionMember && input[f.Name] != nil && !saidAlready(proposed, input[f.Name]) {
			fields = append(fields, f)
			if proposed == nil {
				proposed = map[string]json.RawMessage{}
			}
			proposed[f.Name] = input[f.Name]
		}
	}
	for _, f := range fields {
		fact := Fact{Name: f.Name, Type: f.Type, Ref: f.Ref, Base: value(base, f), Current: value(current, f), Proposed: value(proposed, f)}
		fact.Changes = !bytes.Equal(fact.Current, fact.Proposed)
		if fact.Base == nil && fact.Current == nil && fact.Proposed == nil {
			continue
		}
		if waits && c.Stale {
			fact.Stale = !bytes.Equal(fact.Base, fact.Current)
			if _, wanted := asked[f.Name]; wanted && !fact.Stale {
				c.Untouched++
			}
		}
		c.Facts = append(c.Facts, fact)
	}
	if action.Op != catalog.OpUpdate || !r.Keeps {
		c.Untouched = 0
	}
}

// saidAlready reports whether a text stands among the values, as a sender does that
// the plan has taken over.
func saidAlready(values map[string]json.RawMessage, text json.RawMessage) bool {
	for _, v := range values {
		if len(text) > 2 && text[0] == '"' && bytes.Equal(v, text) {
			return true
		}
	}
	return false
}

// value returns the field's value, masked if it is secret, nil if it is unset.
func value(of map[string]json.RawMessage, f catalog.Field) json.RawMessage {
	v := of[f.Name]
	if v == nil || string(v) == "null" {
		return nil
	}
	if f.Secret {
		return json.RawMessage(`"` + catalog.Masked + `"`)
	}
	return v
}

// mostWarnings bounds the warnings about characters.
const mostWarnings = 20

// warnings tells of characters that the decider would not see as what they are.
func (c *Card) warnings(a Approval, effective json.RawMessage) {
	warn := func(where, text string) {
		if len(c.Checks) >= mostWarnings {
			return
		}
		if codes := unseen.Codes(text); codes != nil {
			c.Checks = append(c.Checks, Check{"characters", false, false, fmt.Sprintf("%s holds hidden characters, which are shown as their code points: %s.", where, strings.Join(codes[:min(len(codes), 8)], ", "))})
		}
		if words := unseen.MixedWords(text, 3); words != nil {
			c.Checks = append(c.Checks, Check{"characters", false, false, fmt.Sprintf("%s mixes letters of scripts that look alike: %s.", where, unseen.Text(strings.Join(words, ", ")))})
		}
	}
	in := members(effective)
	names := make([]string, 0, len(in))
	for name := range in {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		var v any
		if json.Unmarshal(in[name], &v) == nil {
			warn("The field "+name, texts(v))
		}
	}
	warn("What the agent says", a.Reason)
}

// texts joins all texts in a value, names of members too.
func texts(v any) string {
	var b strings.Builder
	var add func(v any)
	add = func(v any) {
		switch v := v.(type) {
		case string:
			b.WriteString(v + "\n")
		case []any:
			for _, item := range v {
				add(item)
			}
		case map[string]any:
			for name, item := range v {
				add(name)
				add(item)
			}
		}
	}
	add(v)
	return b.String()
}

// titles finds what the ids in the facts name, of what g may read.
func (gate *Gate) titles(ctx context.Context, g access.Grant, cards []*Card) error {
	wanted := map[string][]string{} // ids by resource
	titles := map[string]string{}
	for _, c := range cards {
		c.Titles = titles
		for _, f := range c.Facts {
			if f.Ref == "" || g.Decide(f.Ref, access.Read) == access.Deny {
				continue
			}
			for _, v := range []json.RawMessage{f.Base, f.Current, f.Proposed} {
				var id string
				if json.Unmarshal(v, &id) == nil && !slices.Contains(wanted[f.Ref], id) {
					wanted[f.Ref] = append(wanted[f.Ref], id)
				}
			}
		}
	}
	for resource, ids := range wanted {
		r, ok := gate.Catalog.Resource(resource)
		if !ok {
			continue
		}
		if r.Ladder != access.RecordLadder || resource == "users" {
			users, err := gate.Store.Users(ctx, g.Workspace.ID)
			if err != nil {
				return err
			}
			for _, u := range users {
				if slices.Contains(ids, u.ID) {
					titles[u.ID] = u.Name
				}
			}
			continue
		}
		records, err := gate.Store.Records(ctx, g.Workspace.ID, resource, ids)
		if err != nil {
			return err
		}
		for _, rec := range records {
			titles[rec.ID] = r.TitleOf(rec.Body)
		}
	}
	return nil
}

// Stale says what to do about a target that has changed since the approval was
// asked for.
type Stale string

// What to do about it.
const (
	Refuse    Stale = ""          // approve nothing that has changed
	Rebase    Stale = "rebase"    // do what was asked to the target as it is now
	Untouched Stale = "untouched" // change only the fields that nobody else has changed
)

// rebase returns the input, and the version of the target, that an approval of
// a changed target stands for. The decider has looked at the target as it is
// now, and says so.
func (gate *Gate) rebase(ctx context.Context, tx Store, a Approval, action *catalog.Action, seen Seen) (edited json.RawMessage, version int64, err error) {
	wrong := func(path, expected, got string) error {
		return &problem.Error{Kind: problem.Validation, Message: "a changed target cannot be approved like that", Fix: "Read the approval's card, and send what it says.",
			Fields: []problem.Field{{Path: path, Expected: expected, Got: got}}}
	}
	edited = seen.Edited
	switch {
	case seen.Stale == Refuse:
		return edited, a.TargetVer, nil
	case seen.Stale != Rebase && seen.Stale != Untouched:
		return nil, 0, wrong("stale", "rebase or untouched", fmt.Sprintf("%.40q", string(seen.Stale)))
	case a.TargetID == "":
		return nil, 0, wrong("stale", "nothing: the action has no target", string(seen.Stale))
	case seen.TargetVersion <= 0:
		return nil, 0, wrong("target_version", "the target_version of the card", fmt.Sprint(seen.TargetVersion))
	case seen.Stale == Untouched && (action.Op != catalog.OpUpdate || a.Base == nil || !action.Of().Keeps):
		return nil, 0, wrong("stale", "rebase: only the fields of an update can be taken one by one", string(seen.Stale))
	case seen.Stale == Untouched && seen.Edited != nil:
		return nil, 0, wrong("edited", "nothing with untouched; edit what is to remain, with rebase", "an input")
	}
	input := members(edited)
	if edited == nil {
		if input = members(a.Input); a.Edited != nil {
			input = members(a.Edited)
		}
	}
	delete(input, versionMember)
	if seen.Stale == Untouched {
		rec, err := tx.Record(ctx, a.Workspace, a.Resource, a.TargetID, true)
		if problem.Is(err, problem.NotFound) {
			return nil, 0, blocked(a, err)
		}
		if err != nil {
			return nil, 0, err
		}
		base, current := members(a.Base), members(rec.Body)
		left := 0
		for name := range input {
			if name == "id" {
				continue
			}
			if !bytes.Equal(base[name], current[name]) {
				delete(input, name)
				continue
			}
			left++
		}
		if left == 0 {
			return nil, 0, problem.Errorf(problem.Conflict, "approval %s: others have changed every field that it would change", a.ID).
				WithFix("Reject it, or apply it all to the target as it is now with rebase.")
		}
	}
	edited, err = json.Marshal(input)
	return edited, seen.TargetVersion, err
}

// A Vote is one of several yeses that an approval needs.
type Vote struct {
	By     access.Principal `json:"by"`
	Digest string           `json:"digest"` // of what they have said yes to
	At     time.Time        `json:"at"`
}

// Needed is how many people have to approve where the workspace wants four
// eyes.
const Needed = 2

// needed returns how many have to say yes if g is one of them.
func needed(g access.Grant) int {
	if g.Workspace.Settings.FourEyes && g.Principal.Kind != access.KindOperator {
		return Needed
	}
	return 1
}
