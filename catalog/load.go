package catalog

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"trustpager/access"
	"trustpager/unseen"
)

//go:embed catalog.yaml
var embedded []byte

// A Source is a catalog file.
type Source struct {
	Name string // for messages: catalog.yaml
	Data []byte
}

// Load reads the default catalog, which is part of the program, and then the
// sources on top of it. In a source, a resource of an existing name replaces
// that resource, resources named in the list remove go, and "replace: true"
// drops all record resources that came before. Resources that are part of the
// program stay whatever a source says.
//
// The error names all that is wrong, each with file and line.
func Load(sources ...Source) (*Catalog, error) {
	l := loader{}
	l.file = "catalog.yaml"
	l.source(embedded, true)
	for _, s := range sources {
		l.file = s.Name
		l.source(s.Data, false)
	}
	c := &Catalog{byName: map[string]*Resource{}, byAction: map[string]*Action{}, resources: l.resources}
	for _, r := range c.resources {
		c.byName[r.Name] = r
	}
	l.link(c)
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return c, nil
}

// A position is a line of a catalog file.
type position struct {
	file string
	line int
}

// A loader reads catalog files and collects what is wrong with them.
type loader struct {
	file      string
	resources []*Resource
	errs      []error
}

// An actionSpec is a further action as the YAML declares it.
type actionSpec struct {
	name, function, title, description, method, path string
	verb                                             access.Verb
	op                                               Op
	target, destructive, idempotent, openWorld, own  bool
	peopleDecide                                     bool
	refused                                          []refusal
	fields                                           []Field
	output                                           *schema // nil for that of a record
	at                                               position
}

func (l *loader) fail(at position, format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf("%s:%d: %s", at.file, at.line, fmt.Sprintf(format, args...)))
}

func (l *loader) failAt(n *yaml.Node, format string, args ...any) {
	l.fail(position{l.file, n.Line}, format, args...)
}

// source reads one file into l.resources.
func (l *loader) source(data []byte, builtIn bool) {
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", l.file, err))
		return
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if !l.plain(root, 0) {
		return
	}
	top := l.mapping(root, "the catalog", "replace", "remove", "resources")
	if n := top["replace"]; n != nil && l.boolean(n, "replace") {
		l.resources = slices.DeleteFunc(l.resources, func(r *Resource) bool { return !r.Code })
	}
	for _, n := range l.sequence(top["remove"], "remove") {
		name := l.text(n, "remove")
		i := slices.IndexFunc(l.resources, func(r *Resource) bool { return r.Name == name })
		switch {
		case i < 0:
			l.failAt(n, "remove: there is no resource %q", name)
		case l.resources[i].Code:
			l.failAt(n, "remove: %s is part of the program", name)
		default:
			l.resources = slices.Delete(l.resources, i, i+1)
		}
	}
	for _, p := range l.pairs(top["resources"], "resources") {
		r := l.resource(p.key, p.value, builtIn)
		i := slices.IndexFunc(l.resources, func(o *Resource) bool { return o.Name == r.Name })
		switch {
		case i < 0:
			l.resources = append(l.resources, r)
		case l.resources[i].Code:
			l.failAt(p.key, "%s is part of the program and cannot be replaced", r.Name)
		default:
			l.resources[i] = r
		}
	}
}

// plain refuses what a catalog does not need and what could deceive its
// reader: aliases, and characters that are not seen. The texts of a catalog
// reach models as descriptions of tools.
func (l *loader) plain(n *yaml.Node, depth int) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		l.failAt(n, "aliases and anchors are not supported; write the value again")
		return false
	}
	if depth > 20 {
		l.failAt(n, "the file is nested too deep")
		return false
	}
	ok := true
	for _, r := range n.Value {
		if r != '\n' && r != '\t' && unseen.Hidden(r) {
			l.failAt(n, "the text holds the hidden character %U; remove it", r)
			ok = false
			break
		}
	}
	for _, m := range n.Content {
		ok = l.plain(m, depth+1) && ok
	}
	return ok
}

// A pair is one member of a mapping.
type pair struct{ key, value *yaml.Node }

// pairs returns the members of a mapping in their order. A nil node has none.
func (l *loader) pairs(n *yaml.Node, where string) []pair {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		l.failAt(n, "%s: a mapping (name: value) is expected", where)
		return nil
	}
	var all []pair
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			l.failAt(k, "%s: a name is expected", where)
			continue
		}
		if line, twice := seen[k.Value]; twice {
			l.failAt(k, "%s: %s stands here for the second time; the first is in line %d", where, k.Value, line)
			continue
		}
		seen[k.Value] = k.Line
		all = append(all, pair{k, v})
	}
	return all
}

// mapping returns the members of a mapping by name, and reports those that are
// not known.
func (l *loader) mapping(n *yaml.Node, where string, known ...string) map[string]*yaml.Node {
	m := map[string]*yaml.Node{}
	for _, p := range l.pairs(n, where) {
		if !slices.Contains(known, p.key.Value) {
			l.failAt(p.key, "%s: there is no setting %q%s", where, p.key.Value, l.near(p.key.Value, known, "settings"))
			continue
		}
		m[p.key.Value] = p.value
	}
	return m
}

// near ends a message about an unknown word.
func (l *loader) near(word string, all []string, kind string) string {
	var b strings.Builder
	if d := didYouMean(word, all); d != "" {
		b.WriteString("; " + strings.ToLower(d[:1]) + d[1:])
		b.WriteString(" The " + kind + " are " + strings.Join(all, ", "))
		return b.String()
	}
	return "; the " + kind + " are " + strings.Join(all, ", ")
}

func (l *loader) sequence(n *yaml.Node, where string) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		l.failAt(n, "%s: a list is expected", where)
		return nil
	}
	return n.Content
}

func (l *loader) text(n *yaml.Node, where string) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		l.failAt(n, "%s: text is expected; put it in quotes if it looks like something else", where)
		return ""
	}
	return strings.TrimSpace(n.Value)
}

func (l *loader) boolean(n *yaml.Node, where string) bool {
	if n == nil {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
		l.failAt(n, "%s: true or false is expected", where)
		return false
	}
	return n.Value == "true"
}

func (l *loader) integer(n *yaml.Node, where string, otherwise int64) int64 {
	if n == nil {
		return otherwise
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil {
		l.failAt(n, "%s: an integer is expected", where)
		return otherwise
	}
	return i
}

// value returns n as JSON would hold it.
func (l *loader) value(n *yaml.Node, where string) any {
	switch n.Kind {
	case yaml.SequenceNode:
		list := []any{}
		for _, m := range n.Content {
			list = append(list, l.value(m, where))
		}
		return list
	case yaml.MappingNode:
		o := map[string]any{}
		for _, p := range l.pairs(n, where) {
			o[p.key.Value] = l.value(p.value, where)
		}
		return o
	}
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return n.Value
	case "!!bool":
		if n.Value == "true" || n.Value == "false" {
			return n.Value == "true"
		}
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
	}
	l.failAt(n, "%s: %q is no value that JSON has", where, n.Value)
	return ""
}

// The forms of names.
var (
	resourceName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	fieldName    = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	prefixForm   = regexp.MustCompile(`^[a-z]{2,8}$`)
	toolName     = regexp.MustCompile(`^[A-Za-z0-9_./-]{1,64}$`)
	pathSegment  = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	titleField   = regexp.MustCompile(`\{([^{}]*)\}`)
)

// takenNames are the resource names that the API uses for itself, and
// takenPrefixes the id prefixes.
var (
	// Events are named after resources, and those of the program after approval and webhook.
	takenNames    = []string{"approvals", "approval", "webhook", "keys", "me", "clients", "grants", "deliveries", "audit", "search", "access"}
	takenPrefixes = []string{"apr", "key", "ws", "wh", "usr", "cli", "gra", "del", "dlv", "job", "req", "aud", "ses", "inv", "msg", "whsec", "whs", "tp", "int"}
	// takenFields are the members of records and of list inputs that every
	// resource has.
	takenFields = []string{"id", "version", "created_at", "updated_at", "created_after", "created_before",
		"if_version", "dry_run", "limit", "cursor", "sort", "search", "fields", "query"}
)

func (l *loader) resource(key, n *yaml.Node, builtIn bool) *Resource {
	r := &Resource{Name: key.Value, at: position{l.file, key.Line}}
	where := r.Name
	if !resourceName.MatchString(r.Name) || len(r.Name) > 40 {
		l.fail(r.at, "resource name %q: a name has at most 40 characters: words of small letters and digits, joined by single hyphens", r.Name)
	}
	if slices.Contains(takenNames, r.Name) {
		l.fail(r.at, "resource name %q is taken by the API itself", r.Name)
	}
	m := l.mapping(n, where, "singular", "label", "prefix", "group", "ladder", "description", "code", "records", "title", "fields", "actions")
	r.Singular = l.text(m["singular"], where+".singular")
	r.Label = l.text(m["label"], where+".label")
	r.Prefix = l.text(m["prefix"], where+".prefix")
	r.Group = l.text(m["group"], where+".group")
	r.Description = l.text(m["description"], where+".description")
	r.Code = l.boolean(m["code"], where+".code")
	r.Keeps = !r.Code || l.boolean(m["records"], where+".records")
	if m["records"] != nil && !r.Code {
		l.failAt(m["records"], "%s.records: what is not part of the program keeps records anyway", where)
	}
	if r.Label == "" && r.Name != "" {
		r.Label = strings.ToUpper(r.Name[:1]) + strings.ReplaceAll(r.Name[1:], "-", " ")
	}
	if r.Code && !builtIn {
		l.failAt(m["code"], "%s.code: only the program itself has resources that are code", where)
	}
	r.Ladder = access.RecordLadder
	if ladder := m["ladder"]; ladder != nil {
		ladders := []string{string(access.RecordLadder), string(access.MessageLadder), string(access.AILadder)}
		switch t := l.text(ladder, where+".ladder"); {
		case !slices.Contains(ladders, t):
			l.failAt(ladder, "%s.ladder: there is no ladder %q%s", where, t, l.near(t, ladders, "ladders"))
		case t != ladders[0] && !r.Code:
			l.failAt(ladder, "%s.ladder: records stand on the ladder record", where)
		default:
			r.Ladder = access.Ladder(t)
		}
	}
	if r.Group == "" {
		l.fail(r.at, "%s: group is missing", where)
	}
	if !resourceName.MatchString(r.Singular) {
		l.fail(r.at, "%s.singular: %q is no name; it is what one of them is called, as in work-order", where, r.Singular)
	}
	if r.Prefix != "" || !r.Code {
		if !prefixForm.MatchString(r.Prefix) {
			l.fail(r.at, "%s.prefix: %q is no prefix of ids; it has 2 to 8 small letters, as in con", where, r.Prefix)
		} else if slices.Contains(takenPrefixes, r.Prefix) && !builtIn {
			l.fail(r.at, "%s.prefix: %q is taken by the program itself", where, r.Prefix)
		}
	}
	if r.Keeps && len(l.pairs(m["fields"], where+".fields")) == 0 {
		l.fail(r.at, "%s: fields are missing", where)
	}
	for _, p := range l.pairs(m["fields"], where+".fields") {
		f := l.field(p.key, p.value, where+"."+p.key.Value, false)
		if slices.Contains(takenFields, f.Name) {
			l.fail(f.at, "%s.%s: the name is taken: every resource has it", where, f.Name)
		}
		f.Filter = f.Filter || f.Type == TypeRef // they are indexed anyway
		r.Fields = append(r.Fields, f)
	}
	if m["title"] == nil && r.Keeps {
		l.fail(r.at, "%s: title is missing; it is what people call a record, as in \"{name}\"", where)
	} else if m["title"] != nil {
		l.title(r, m["title"])
	}
	for _, p := range l.pairs(m["actions"], where+".actions") {
		r.specs = append(r.specs, l.action(r, p.key, p.value, where+"."+p.key.Value))
	}
	return r
}

// title reads the title's template: text with the names of fields in braces.
func (l *loader) title(r *Resource, n *yaml.Node) {
	t := l.text(n, r.Name+".title")
	last := 0
	for _, m := range titleField.FindAllStringSubmatchIndex(t, -1) {
		r.title = append(r.title, titlePart{text: t[last:m[0]]})
		name := t[m[2]:m[3]]
		if f, ok := r.Field(name); !ok {
			l.failAt(n, "%s.title: there is no field %q%s", r.Name, name, l.near(name, fieldNames(r.Fields), "fields"))
		} else if f.Secret {
			l.failAt(n, "%s.title: %s is secret", r.Name, name)
		} else if f.Type == TypeObject || f.Type == TypeList {
			l.failAt(n, "%s.title: %s is no text", r.Name, name)
		}
		r.title = append(r.title, titlePart{text: name, field: true})
		last = m[1]
	}
	r.title = append(r.title, titlePart{text: t[last:]})
	if last == 0 {
		l.failAt(n, "%s.title: %q names no field; write it as in \"{name}\"", r.Name, t)
	}
	if strings.ContainsAny(titleField.ReplaceAllString(t, ""), "{}") {
		l.failAt(n, "%s.title: a brace stands alone", r.Name)
	}
}

// kinds of types, for the marks that they take.
var (
	indexable  = []Type{TypeString, TypeEmail, TypePhone, TypeURL, TypeInteger, TypeNumber, TypeMoney, TypeCurrency, TypeDate, TypeDateTime, TypeBoolean, TypeEnum, TypeRef}
	uniqueable = []Type{TypeString, TypeEmail, TypePhone, TypeURL, TypeInteger}
	searchable = []Type{TypeString, TypeText, TypeEmail, TypePhone, TypeURL, TypeEnum, TypeTags, TypeCurrency, TypeDate}
	listable   = []Type{TypeString, TypeText, TypeInteger, TypeNumber, TypeMoney, TypeCurrency, TypeDate, TypeDateTime, TypeBoolean, TypeEnum, TypeEmail, TypePhone, TypeURL}
)

// field reads one field; inList says that it belongs to the items of a list.
func (l *loader) field(key, n *yaml.Node, where string, inList bool) Field {
	f := Field{Name: key.Value, at: position{l.file, key.Line}, null: true}
	if !fieldName.MatchString(f.Name) || len(f.Name) > 63 {
		l.fail(f.at, "%s: %q is no field name; it has at most 63 characters: words of small letters and digits, joined by single underscores", where, f.Name)
	}
	m := l.mapping(n, where, "type", "description", "required", "filter", "lookup", "sort", "search", "unique", "secret",
		"ref", "choices", "enum", "default", "min", "max", "fields")
	f.Description = l.text(m["description"], where+".description")
	f.Required = l.boolean(m["required"], where+".required")
	f.Filter = l.boolean(m["filter"], where+".filter")
	f.Lookup = l.boolean(m["lookup"], where+".lookup")
	f.Sort = l.boolean(m["sort"], where+".sort")
	f.Search = l.boolean(m["search"], where+".search")
	f.Unique = l.boolean(m["unique"], where+".unique")
	f.Secret = l.boolean(m["secret"], where+".secret")
	f.Ref = l.text(m["ref"], where+".ref")
	f.Choices = l.text(m["choices"], where+".choices")
	f.Type = Type(l.text(m["type"], where+".type"))
	if m["type"] == nil {
		l.fail(f.at, "%s: type is missing; the types are %s", where, joinTypes(types))
		return f
	}
	if !slices.Contains(types, f.Type) {
		all := make([]string, len(types))
		for i, t := range types {
			all[i] = string(t)
		}
		l.failAt(m["type"], "%s: type %q is unknown%s", where, f.Type, l.near(string(f.Type), all, "types"))
		return f
	}
	mark := func(set bool, name string, allowed []Type) {
		if set && !slices.Contains(allowed, f.Type) {
			l.failAt(m[name], "%s.%s: a field of type %s cannot have it; those that can are %s", where, name, f.Type, joinTypes(allowed))
		}
	}
	mark(m["filter"] != nil, "filter", indexable)
	mark(f.Lookup, "lookup", indexable)
	mark(f.Sort, "sort", indexable)
	mark(f.Unique, "unique", uniqueable)
	mark(f.Search, "search", searchable)
	mark(m["ref"] != nil, "ref", []Type{TypeRef})
	mark(m["choices"] != nil, "choices", []Type{TypeString})
	mark(m["enum"] != nil, "enum", []Type{TypeEnum, TypeTags})
	mark(m["fields"] != nil, "fields", []Type{TypeList})
	mark(m["min"] != nil, "min", []Type{TypeInteger, TypeNumber, TypeMoney})
	mark(m["max"] != nil, "max", []Type{TypeString, TypeText, TypeInteger, TypeNumber, TypeMoney, TypeTags, TypeList})
	if f.Secret && (f.Filter || f.Lookup || f.Sort || f.Search || f.Unique) {
		l.fail(f.at, "%s: a secret field cannot be marked filter, sort, search or unique", where)
	}
	if inList && (f.Filter || f.Lookup || f.Sort || f.Search || f.Secret || f.Choices != "" || !slices.Contains(listable, f.Type)) {
		l.fail(f.at, "%s: an item of a list has only fields of the types %s, without filter, sort, search, secret and choices", where, joinTypes(listable))
	}
	if f.Type == TypeRef && f.Ref == "" {
		l.fail(f.at, "%s: ref is missing; it names the resource that the field points to", where)
	}
	if f.Choices != "" && !f.Filter {
		l.fail(f.at, "%s: a field with choices needs the mark filter", where)
	}
	l.enum(&f, m["enum"], where)
	l.bounds(&f, m, where)
	for _, p := range l.pairs(m["fields"], where+".fields") {
		f.Fields = append(f.Fields, l.field(p.key, p.value, where+"."+p.key.Value, true))
	}
	if f.Type == TypeList && len(f.Fields) == 0 {
		l.fail(f.at, "%s: fields are missing; they say what the items of the list hold", where)
	}
	if d := m["default"]; d != nil {
		l.defaultValue(&f, d, where)
	}
	return f
}

func (l *loader) enum(f *Field, n *yaml.Node, where string) {
	for _, w := range l.sequence(n, where+".enum") {
		word := l.text(w, where+".enum")
		switch {
		case word == "" || len(word) > maxTag:
			l.failAt(w, "%s.enum: a word has 1 to %d bytes", where, maxTag)
		case slices.Contains(f.Enum, word):
			l.failAt(w, "%s.enum: %q stands here twice", where, word)
		default:
			f.Enum = append(f.Enum, word)
		}
	}
	if f.Type == TypeEnum && len(f.Enum) == 0 {
		l.fail(f.at, "%s: enum is missing; it lists the words that the field takes", where)
	}
}

// bounds sets Min and Max, within what the type allows.
func (l *loader) bounds(f *Field, m map[string]*yaml.Node, where string) {
	low, high, otherwise := int64(0), int64(math.MaxInt64), int64(0)
	switch f.Type {
	case TypeString:
		low, high, otherwise = 1, maxText, maxString
	case TypeText:
		low, high, otherwise = 1, maxText, maxText
	case TypeInteger, TypeNumber, TypeMoney:
		low, high, otherwise = -maxSafe, maxSafe, maxSafe
	case TypeTags:
		low, high, otherwise = 1, maxTags, maxTags
	case TypeList:
		low, high, otherwise = 1, maxListItems, maxListItems
	}
	f.Max = l.integer(m["max"], where+".max", otherwise)
	if f.Type.numeric() {
		f.Min = l.integer(m["min"], where+".min", -maxSafe)
	}
	if m["max"] != nil && (f.Max < low || f.Max > high) || f.Min < -maxSafe || f.Type.numeric() && f.Min > f.Max {
		l.fail(f.at, "%s: min and max must lie between %d and %d, and min must not exceed max", where, low, high)
	}
}

func (l *loader) defaultValue(f *Field, n *yaml.Node, where string) {
	v := l.value(n, where+".default")
	switch {
	case f.Required:
		l.failAt(n, "%s.default: a required field needs no default", where)
	case f.Choices != "":
		l.failAt(n, "%s.default: the default of a field with choices is the first of them", where)
	case f.Unique:
		l.failAt(n, "%s.default: a unique field cannot have a default", where)
	case f.Secret, f.Type == TypeRef:
		l.failAt(n, "%s.default: a field of this kind cannot have a default", where)
	case f.Type == TypeDateTime && v == now:
		f.Default = now
	default:
		var fs faults
		d, ok := f.check("default", v, &fs)
		if !ok || d == nil {
			l.failAt(n, "%s.default: the field does not take it; it takes %s", where, f.expected())
			return
		}
		f.Default = d
	}
}

func joinTypes(ts []Type) string {
	all := make([]string, len(ts))
	for i, t := range ts {
		all[i] = string(t)
	}
	return strings.Join(all, ", ")
}

// codeSettings are what only an action of the program itself can have.
var codeSettings = []string{"op", "open_world", "own", "output", "people_decide", "refused"}

func (l *loader) action(r *Resource, key, n *yaml.Node, where string) actionSpec {
	s := actionSpec{name: key.Value, op: OpOther, at: position{l.file, key.Line}}
	known := []string{"function", "title", "description", "method", "path", "verb", "target", "destructive", "idempotent", "fields"}
	if r.Code {
		known = append(known, codeSettings...)
	}
	m := l.mapping(n, where, known...)
	s.function = l.text(m["function"], where+".function")
	if s.function == "" {
		s.function = s.name
	}
	s.title = l.text(m["title"], where+".title")
	s.description = l.text(m["description"], where+".description")
	s.path = l.text(m["path"], where+".path")
	s.target = l.boolean(m["target"], where+".target")
	s.destructive = l.boolean(m["destructive"], where+".destructive")
	s.idempotent = l.boolean(m["idempotent"], where+".idempotent")
	s.openWorld = l.boolean(m["open_world"], where+".open_world")
	s.own = l.boolean(m["own"], where+".own")
	s.peopleDecide = l.boolean(m["people_decide"], where+".people_decide")
	for _, p := range l.pairs(m["refused"], where+".refused") {
		s.refused = append(s.refused, refusal{p.key.Value, l.text(p.value, where+".refused")})
	}
	if o := m["op"]; o != nil {
		s.op = Op(l.text(o, where+".op"))
		if !slices.Contains([]Op{OpList, OpGet, OpCreate, OpUpdate, OpDelete, OpOther}, s.op) {
			l.failAt(o, "%s.op: it is one of list, get, create, update, delete, other", where)
		}
	}
	if o := m["output"]; o != nil {
		s.output = l.output(o, where+".output")
	}
	if s.title == "" || s.description == "" || s.path == "" || m["verb"] == nil {
		l.fail(s.at, "%s: title, description, path and verb are needed", where)
	}
	if v := m["verb"]; v != nil {
		verb, err := access.ParseVerb(l.text(v, where+".verb"))
		if verbs := r.Ladder.Verbs(); err != nil || !slices.Contains(verbs, verb) && !(s.own && verb == access.Read) {
			l.failAt(v, "%s.verb: it is one of %s", where, joinVerbs(verbs))
		}
		s.verb = verb
	}
	s.method = l.text(m["method"], where+".method")
	switch {
	case s.method == "":
		s.method = "POST"
	case r.Code && (s.method == "PATCH" || s.method == "DELETE"):
	case s.method != "GET" && s.method != "POST":
		l.failAt(m["method"], "%s.method: it is GET or POST", where)
	case s.method == "GET" && s.verb != access.Read:
		l.failAt(m["method"], "%s.method: only an action of the verb read can be a GET", where)
	}
	for _, p := range l.pairs(m["fields"], where+".fields") {
		f := l.field(p.key, p.value, where+"."+p.key.Value, false)
		if f.Name == "id" || f.Name == "reason" || meta(f.Name) {
			l.fail(f.at, "%s.%s: the name is taken: actions have it anyway", where, f.Name)
		}
		if f.Filter || f.Lookup || f.Sort || f.Search || f.Unique || f.Choices != "" {
			l.fail(f.at, "%s.%s: filter, lookup, sort, search, unique and choices are marks of records", where, f.Name)
		}
		if s.op == OpUpdate {
			f.null = true
		}
		s.fields = append(s.fields, f)
	}
	return s
}

// output reads the members of an answer, each with its JSON type.
func (l *loader) output(n *yaml.Node, where string) *schema {
	s := &schema{Type: "object"}
	for _, p := range l.pairs(n, where) {
		t := l.text(p.value, where+"."+p.key.Value)
		if !slices.Contains([]string{"string", "integer", "number", "boolean", "object", "array"}, t) {
			l.failAt(p.value, "%s.%s: %q is no JSON type", where, p.key.Value, t)
		}
		s.Properties = append(s.Properties, property{p.key.Value, &schema{Type: t}})
	}
	return s
}

func joinVerbs(verbs []access.Verb) string {
	all := make([]string, len(verbs))
	for i, v := range verbs {
		all[i] = v.String()
	}
	return strings.Join(all, ", ")
}
