package web

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/unseen"
)

// An editPage changes the values of a request before it is approved. What is
// done, and to what, cannot be changed.
type editPage struct {
	Fact   string
	Path   string // of the approval
	Action string
	List   string
	Digest string
	Error  string
	Fields []editedField // those that the agent gave
	More   []editedField // those that it left out
	Open   bool          // what the agent left out, as something is wrong there
	Says   string
	Stale  approvals.Stale
	Target int64 // the target's version as it is shown
}

// An editedField is the input of one value, with what the record holds now.
type editedField struct {
	field
	Now    shown
	Hidden template.HTML // the value with its hidden characters as code points, "" if it has none
}

// valuePrefix begins the names of the form's values.
const valuePrefix = "v."

// editable reports whether people change the field: not which version the agent
// has seen, nor what it says of itself, nor whether it was in earnest; of a loan
// only for how long it is.
func editable(a *catalog.Action, f catalog.Field) bool {
	if a.Lends() {
		return f.Name == "minutes"
	}
	return f.Name != "if_version" && f.Name != "reason" && f.Name != "dry_run"
}

// edits reports whether there is something to edit in requests for the action.
func (p *Pages) edits(action string) bool {
	a, ok := p.Catalog.Find(action)
	return ok && slices.ContainsFunc(a.Fields(), func(f catalog.Field) bool { return editable(a, f) })
}

// toEdit returns the approval's card and action, with the values that would
// run.
func (p *Pages) toEdit(r *http.Request, in room, id string) (approvals.Card, *catalog.Action, map[string]json.RawMessage, error) {
	c, err := p.Gate.Card(r.Context(), in.grant, id)
	if err != nil {
		return c, nil, nil, err
	}
	action, ok := p.Catalog.Find(c.Action)
	if !ok {
		return c, nil, nil, problem.Errorf(problem.Conflict, "the action %s no longer exists", c.Action).WithFix("Reject the approval.")
	}
	runs := c.Input
	if c.Edited != nil {
		runs = c.Edited
	}
	var values map[string]json.RawMessage
	err = json.Unmarshal(runs, &values)
	return c, action, values, err
}

func (p *Pages) edit(r *http.Request, in room, id string) (answer, error) {
	c, action, values, err := p.toEdit(r, in, id)
	if err != nil {
		return answer{}, err
	}
	return p.editPage(in, c, action, values, listQueryOf(r.URL.Query())).page(http.StatusOK), nil
}

func (page editPage) page(status int) answer {
	return answer{page: "edit.html", title: "Edit: " + page.Fact, status: status, data: page}
}

func (p *Pages) editPage(in room, c approvals.Card, action *catalog.Action, values map[string]json.RawMessage, l listQuery) editPage {
	shown := p.card(in, c, l, nil)
	page := editPage{Fact: shown.Fact, Path: l.path(c.ID), Action: apiPath + "/approvals/" + c.ID + "/edit", List: shown.List, Digest: c.Digest, Says: c.View.Reason}
	if c.Stale {
		page.Stale, page.Target = approvals.Rebase, c.TargetVersion
	}
	facts := slices.Concat(shown.Changes, shown.Others)
	for _, f := range action.Fields() {
		if !editable(action, f) || f.Secret && action.Of() != nil && action.Of().Code {
			continue // the program's own secrets do not wait for approval
		}
		raw, given := values[f.Name]
		in := editedField{field: editField(f, raw), Now: presentOf(facts, f.Name)}
		in.reveal()
		if given {
			page.Fields = append(page.Fields, in)
		} else {
			page.More = append(page.More, in)
		}
	}
	return page
}

// reveal shows the characters of the value that are not seen.
func (f *editedField) reveal() {
	f.Hidden = ""
	if unseen.Codes(f.Value) != nil {
		f.Hidden = visibleLines(f.Value)
	}
}

// presentOf returns what the record holds in the field, which may be nothing.
func presentOf(facts []shownFact, name string) shown {
	for _, f := range facts {
		if f.Name == name {
			return f.Current
		}
	}
	return shown{Empty: true}
}

// editField returns the input of one value.
func editField(f catalog.Field, raw json.RawMessage) field {
	in := field{Name: valuePrefix + f.Name, Label: labelOf(f.Name), Type: "text", Autocomplete: "off", Hint: f.Description}
	text, isText := textOf(raw)
	if !isText && raw != nil && string(raw) != "null" {
		text = string(raw)
	}
	in.Value = text
	switch f.Type {
	case catalog.TypeText:
		in.Lines = 8
	case catalog.TypeTags:
		var tags []string
		if json.Unmarshal(raw, &tags) == nil {
			in.Value = strings.Join(tags, ", ")
		}
		in.Hint = strings.TrimSpace(in.Hint + " Separated by commas.")
	case catalog.TypeObject, catalog.TypeList:
		in.Lines = 8
		if raw != nil {
			in.Value = indent(raw)
		}
		in.Hint = strings.TrimSpace(in.Hint + " As JSON.")
	case catalog.TypeMoney:
		in.Hint = strings.TrimSpace(in.Hint + " In minor units, such as cents.")
	case catalog.TypeBoolean, catalog.TypeEnum:
		words := f.Enum
		if f.Type == catalog.TypeBoolean {
			words = []string{"true", "false"}
		}
		in.Options = []option{{"", "(unset)", text == ""}}
		in.choose(words, text)
	case catalog.TypeInteger:
		in.choose(f.Enum, text)
	}
	return in
}

// choose offers the words.
func (f *field) choose(words []string, chosen string) {
	for _, w := range words {
		f.Options = append(f.Options, option{w, w, w == chosen})
	}
}

// edited reads the values of the form: those that were given before, and of the
// others those that are not empty. An emptied value is cleared.
func edited(form url.Values, action *catalog.Action, before map[string]json.RawMessage) (json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	for name, raw := range before {
		values[name] = raw // such as the id
	}
	delete(values, "if_version")
	for _, f := range action.Fields() {
		name := valuePrefix + f.Name
		if !form.Has(name) {
			continue
		}
		text := form.Get(name)
		_, given := before[f.Name]
		if text == "" {
			delete(values, f.Name)
			if given && action.Op == catalog.OpUpdate {
				values[f.Name] = json.RawMessage("null")
			}
			continue
		}
		if old, ok := textOf(before[f.Name]); ok && strings.ReplaceAll(text, "\r\n", "\n") == strings.ReplaceAll(old, "\r\n", "\n") {
			continue // browsers change line ends
		}
		raw, err := valueOf(f, text)
		if err != nil {
			return nil, wrongField(f.Name, "JSON", text)
		}
		values[f.Name] = raw
	}
	return json.Marshal(values)
}

// valueOf returns the text of a form as the field's value.
func valueOf(f catalog.Field, text string) (json.RawMessage, error) {
	switch f.Type {
	case catalog.TypeInteger, catalog.TypeNumber, catalog.TypeMoney, catalog.TypeBoolean:
		if text = strings.TrimSpace(text); json.Valid([]byte(text)) {
			return json.RawMessage(text), nil
		}
	case catalog.TypeTags:
		var tags []string
		for tag := range strings.SplitSeq(text, ",") {
			if tag = strings.TrimSpace(tag); tag != "" {
				tags = append(tags, tag)
			}
		}
		return json.Marshal(tags)
	case catalog.TypeObject, catalog.TypeList:
		if !json.Valid([]byte(text)) {
			return nil, fmt.Errorf("%s is no JSON", f.Name)
		}
		return json.RawMessage(text), nil
	}
	return json.Marshal(strings.ReplaceAll(text, "\r\n", "\n")) // for the gate to judge
}

func (p *Pages) editAndApprove(r *http.Request, in room, id string) (answer, error) {
	c, action, before, err := p.toEdit(r, in, id)
	if err != nil {
		return answer{}, err
	}
	form := r.PostForm
	seen := approvals.Seen{Digest: form.Get("digest"), Stale: approvals.Stale(form.Get("stale"))}
	if seen.Digest == "" {
		return p.undecided(r, id, problem.Errorf(problem.Validation, "the form does not say what was looked at"))
	}
	if _, err := fmt.Sscan(form.Get("target_version"), &seen.TargetVersion); err != nil {
		seen.TargetVersion = 0 // refused where it counts
	}
	seen.Edited, err = edited(form, action, before)
	if err == nil {
		a, aerr := p.Gate.Approve(r.Context(), in.grant, id, seen)
		if aerr == nil {
			p.tellDecided(r.Context(), a)
			return backTo(r, id), nil
		}
		err = aerr
	}
	if !isFault(err) {
		return p.undecided(r, id, err)
	}
	q, qerr := url.ParseQuery(strings.TrimPrefix(form.Get("list"), "?"))
	if qerr != nil {
		q = nil
	}
	page := p.editPage(in, c, action, before, listQueryOf(q))
	// It goes on being about what was looked at, whatever has changed since.
	page.Digest, page.Stale, page.Target = seen.Digest, seen.Stale, seen.TargetVersion
	page.refused(form, err)
	return page.page(http.StatusUnprocessableEntity), nil
}

// refused shows what was sent and what is wrong with it.
func (page *editPage) refused(form url.Values, err error) {
	var names []string
	for _, f := range slices.Concat(page.Fields, page.More) {
		names = append(names, strings.TrimPrefix(f.Name, valuePrefix))
	}
	wrong, other := faults(err, names...)
	page.Error = other
	if page.Error == "" {
		page.Error = "Nothing is decided yet: correct what is marked."
	}
	for i := range page.More {
		page.Open = page.Open || wrong[strings.TrimPrefix(page.More[i].Name, valuePrefix)] != ""
	}
	for _, fields := range [][]editedField{page.Fields, page.More} {
		for i := range fields {
			f := &fields[i]
			f.Value, f.Error = form.Get(f.Name), wrong[strings.TrimPrefix(f.Name, valuePrefix)]
			f.reveal()
			for j := range f.Options {
				f.Options[j].Selected = f.Options[j].Value == f.Value
			}
		}
	}
}
