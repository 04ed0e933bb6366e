package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"trustpager/problem"
	"trustpager/typeid"
)

// maxReason is how many runes an agent's reason may have.
const maxReason = 2000

// Decode reads the input of the action from a JSON object and normalizes it.
// All that is wrong is told at once.
//
// Over REST the id of the target is in the path; over MCP it is the member id
// of the object, and id is "". Decoding the canonical form of an input again,
// without an id, yields an equal input.
func (a *Action) Decode(id string, raw json.RawMessage) (Input, error) {
	var sent map[string]any
	if len(bytes.TrimSpace(raw)) > 0 {
		var err error
		if sent, err = decodeObject(raw); err != nil {
			return Input{}, problem.Errorf(problem.InvalidBody, "the input of %s is not a JSON object: %v", a.Name, err).
				WithFix("Send one JSON object, such as {}.")
		}
	}
	in := Input{Values: make(map[string]any, len(a.fields))}
	var fs faults
	known := 0
	if a.Target {
		v, has := sent["id"]
		if has {
			known++
		}
		switch {
		case id != "":
			if has && v != id {
				fs.put("id", "no id, or that of the path", shorten(v), "Leave id out of the body: the path names it.")
			}
			if p := a.resource.Prefix; p != "" && !typeid.ValidID(p, id) {
				return Input{}, a.resource.notFound(id)
			}
		default:
			f := a.idField()
			if !has {
				fs.lack("id", &f)
			} else if n, ok := f.check("id", v, &fs); ok {
				id = n.(string)
			}
		}
		in.ID = id
	}
	for i := range a.fields {
		f := &a.fields[i]
		v, has := sent[f.Name]
		if has {
			known++
			if text, ok := v.(string); ok && f.told && f.Type == TypeTags {
				v = splitAtCommas(text) // as the short schema of tools has it
			}
			n, ok := f.check(f.Name, v, &fs)
			switch {
			case !ok:
				continue
			case n != nil:
				switch f.Name {
				case a.reason:
					in.Reason = n.(string)
				case "dry_run":
					in.DryRun = n.(bool)
				default:
					in.Values[f.Name] = n
				}
				continue
			case a.Op == OpUpdate && !meta(f.Name) && f.Name != a.reason:
				in.Values[f.Name] = nil
				continue
			}
		}
		switch {
		case f.Required && !has && f.Name == a.reason: // see MustSay
		case f.Required && has:
			fs.add(f, f.Name, v, "")
		case f.Required:
			fs.lack(f.Name, f)
		case f.Default != nil && f.Default != any(now):
			in.Values[f.Name] = f.Default
		}
	}
	if known < len(sent) {
		a.unknown(sent, &fs)
	}
	if err := fs.err(a.Name); err != nil {
		return Input{}, err
	}
	if a.Op == OpUpdate && !slices.ContainsFunc(a.fields, func(f Field) bool {
		_, ok := in.Values[f.Name]
		return ok && !meta(f.Name)
	}) {
		return Input{}, problem.Errorf(problem.Validation, "%s: there is nothing to change", a.Name).
			WithFix("Send at least one field with its new value, or null to clear it.")
	}
	in.Canonical = canonical(in.ID, in.Values)
	return in, nil
}

// meta reports whether the name is that of a member of inputs that is no field
// of the record. No record has a field of these names.
func meta(name string) bool { return name == "if_version" || name == "dry_run" }

// canonical returns the values, with the id if there is one, as an object with
// sorted keys.
func canonical(id string, values map[string]any) json.RawMessage {
	if id != "" {
		values = maps.Clone(values)
		values["id"] = id
	}
	return appendJSON(make([]byte, 0, 256), values)
}

// idField returns the member id of an action with a target.
func (a *Action) idField() Field {
	return Field{Name: "id", Type: TypeRef, Required: true, Ref: a.Resource, target: a.resource}
}

// serverFields are the members of records that only the server sets.
var serverFields = []string{"id", "version", "created_at", "updated_at"}

// unknown adds the members of sent that the action does not have.
func (a *Action) unknown(sent map[string]any, fs *faults) {
	var all []string
	if a.Target {
		all = append(all, "id")
	}
	all = append(all, fieldNames(a.fields)...)
	for name, v := range sorted(sent) {
		if slices.Contains(all, name) {
			continue
		}
		if fs.full() {
			return // nor is it worth looking what each of thousands was meant to be
		}
		expected, fix := unknownField(name, all), ""
		if i := slices.IndexFunc(a.refused, func(r refusal) bool { return r.name == name }); i >= 0 {
			expected, fix = a.refused[i].expected, "Leave "+name+" out."
		} else if slices.Contains(serverFields, name) && a.Verb.String() == "write" {
			expected, fix = "nothing: only the server sets it", "Leave "+name+" out."
		}
		fs.put(cutRunes(name, 100), expected, shorten(v), fix)
	}
}

const noSuchField = "no such field"

// unknownField says that there is no field of the name, and which was perhaps
// meant.
func unknownField(name string, all []string) string {
	if near := didYouMean(name, all); near != "" {
		return noSuchField + "; " + strings.ToLower(near[:1]) + near[1:]
	}
	if len(all) == 0 {
		return noSuchField + "; there are none"
	}
	return noSuchField + "; the fields are " + strings.Join(all, ", ")
}

// didYouMean proposes those of all that are near to s, or returns "".
func didYouMean(s string, all []string) string {
	var near []string
	s = strings.ToLower(strings.NewReplacer("-", "_", " ", "_").Replace(s))
	if len(s) > 100 {
		return ""
	}
	for _, c := range all {
		d := distance(s, strings.ToLower(c))
		if d <= 1+len(c)/5 || len(s) >= 4 && (strings.HasPrefix(c, s) || strings.HasSuffix(c, "_"+s)) ||
			strings.ReplaceAll(s, "_", "") == strings.ReplaceAll(c, "_", "") {
			near = append(near, fmt.Sprintf("%q", c))
		}
	}
	if len(near) == 0 || len(near) > 4 {
		return ""
	}
	return "Did you mean " + strings.Join(near, " or ") + "?"
}

// distance returns the number of single-byte edits between a and b, where
// swapping two neighbours is one edit.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// DecodeQuery turns the query of a REST address into the JSON object that
// Decode takes, so that both doors share one validation. Members that are no
// text in the schema are taken from their text, and arrays from text with
// commas.
func (a *Action) DecodeQuery(q url.Values) (json.RawMessage, error) {
	var fs faults
	o := make(map[string]any, len(q))
	for name, values := range sorted(q) {
		if len(values) != 1 {
			fs.put(cutRunes(name, 100), "at most one value", fmt.Sprintf("%d values", len(values)), "Send "+cutRunes(name, 100)+" once.")
			continue
		}
		v := values[0]
		if !utf8.ValidString(v) || !utf8.ValidString(name) || strings.ContainsRune(v, 0) {
			fs.put(strings.ToValidUTF8(cutRunes(name, 100), "\ufffd"), "valid UTF-8 without NUL", "other bytes", "")
			continue
		}
		o[name] = v
		i := slices.IndexFunc(a.fields, func(f Field) bool { return f.Name == name })
		if i < 0 {
			continue // Decode says what it thinks of it
		}
		switch t := a.fields[i].Type; {
		case t.numeric():
			if json.Valid([]byte(v)) && strings.Trim(v, "-+.0123456789eE") == "" && v != "" {
				o[name] = json.Number(v)
			}
		case t == TypeBoolean && (v == "true" || v == "false"):
			o[name] = v == "true"
		case t == TypeTags:
			o[name] = splitAtCommas(v)
		}
	}
	if err := fs.err(a.Name); err != nil {
		return nil, err
	}
	return appendJSON(nil, o), nil
}

func splitAtCommas(text string) []any {
	var items []any
	for item := range strings.SplitSeq(text, ",") {
		items = append(items, item)
	}
	return items
}

// Mask returns the input, an object as Decode takes or yields it, with the
// values of secret fields hidden, for eyes and logs. It returns what is no
// object unchanged.
func (a *Action) Mask(input json.RawMessage) json.RawMessage {
	if !slices.ContainsFunc(a.fields, func(f Field) bool { return f.Secret }) {
		return input
	}
	o, err := decodeObject(input)
	if err != nil {
		return input
	}
	for i := range a.fields {
		if _, ok := o[a.fields[i].Name]; ok && a.fields[i].Secret {
			o[a.fields[i].Name] = Masked
		}
	}
	return appendJSON(nil, o)
}

// Masked stands for the value of a secret field.
const Masked = "********"

// faults collects what is wrong with an input.
type faults struct {
	fields  []problem.Field
	fix     string // of the first that has one
	missing int
}

// maxFaults is how many faults are told: a caller that sends thousands of
// wrong members needs no complete list.
const maxFaults = 50

// full reports whether no more faults are told.
func (fs *faults) full() bool { return len(fs.fields) >= maxFaults }

func (fs *faults) put(path, expected, got, fix string) {
	if fs.full() {
		return
	}
	fs.fields = append(fs.fields, problem.Field{Path: path, Expected: expected, Got: got})
	if fs.fix == "" {
		fs.fix = fix
	}
}

// add says that v is not what f takes.
func (fs *faults) add(f *Field, path string, v any, fix string) {
	fs.put(path, f.expected(), f.got(v), fix)
}

// lack says that a required field is missing.
func (fs *faults) lack(path string, f *Field) {
	fix := ""
	if f.target != nil {
		fix = f.target.findHint()
	}
	fs.put(path, f.expected(), "nothing", fix)
	fs.missing++
}

// err returns the error that tells the faults, or nil if there are none.
func (fs *faults) err(action string) error {
	n := len(fs.fields)
	if n == 0 {
		return nil
	}
	paths := make([]string, n)
	for i, f := range fs.fields {
		paths[i] = f.Path
	}
	list := strings.Join(paths, ", ")
	var e *problem.Error
	switch first := fs.fields[0]; {
	case fs.missing == n && n == 1:
		e = problem.Errorf(problem.MissingFields, "%s: %s is missing", action, list).
			WithFix("%s", strings.TrimSpace("Add "+list+": "+first.Expected+". "+fs.fix))
	case fs.missing == n:
		e = problem.Errorf(problem.MissingFields, "%s: %d required fields are missing: %s", action, n, list).
			WithFix("Add %s and send the request again.", list)
		e.Hint = fs.fix
	case n == 1 && strings.HasPrefix(first.Expected, noSuchField):
		e = problem.Errorf(problem.Validation, "%s: %s: %s", action, list, first.Expected).
			WithFix("Leave %s out, or send a field that there is instead.", list)
	case n == 1:
		e = problem.Errorf(problem.Validation, "%s: %s: expected %s, got %s", action, list, first.Expected, first.Got)
		e.Fix = fs.fix
		if e.Fix == "" {
			e.Fix = "Correct " + list + " and send the request again."
		}
	default:
		e = problem.Errorf(problem.Validation, "%s: %d fields are wrong or missing: %s", action, n, list).
			WithFix("Correct all of them as the list of fields says, and send the request again.")
		e.Hint = fs.fix
	}
	e.Fields = fs.fields
	return e
}

// fieldNames returns the names of the fields.
func fieldNames(fields []Field) []string {
	all := make([]string, len(fields))
	for i := range fields {
		all[i] = fields[i].Name
	}
	return all
}

// names lists the fields for a message.
func names(fields []Field) string { return strings.Join(fieldNames(fields), ", ") }
