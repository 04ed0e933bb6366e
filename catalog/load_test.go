package catalog

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"trustpager/access"
	"trustpager/unseen"
)

// minimal is a catalog file with one resource, to be completed by its fields.
const minimal = `resources:
  things:
    singular: thing
    prefix: thi
    group: Test
    title: "{name}"
    fields:
      name: {type: string, required: true}
`

func TestLoadNamesFileAndLineOfEachFault(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown type", minimal + `      mail: {type: emial}`, `test.yaml:9: things.mail: type "emial" is unknown; did you mean "email"? The types are string, text,`},
		{"missing type", minimal + `      mail: {filter: true}`, `test.yaml:9: things.mail: type is missing`},
		{"unknown mark", minimal + `      mail: {type: email, fliter: true}`, `test.yaml:9: things.mail: there is no setting "fliter"; did you mean "filter"?`},
		{"mark of another type", minimal + `      mail: {type: text, sort: true}`, `test.yaml:9: things.mail.sort: a field of type text cannot have it`},
		{"missing target", minimal + `      x_id: {type: ref, ref: thingz}`, `test.yaml:9: things.x_id.ref: there are no records "thingz"; did you mean "things"?`},
		{"target without records", minimal + `      x_id: {type: ref, ref: billing}`, `there are no records "billing"`},
		{"no enum", minimal + `      kind: {type: enum}`, `test.yaml:9: things.kind: enum is missing`},
		{"empty enum", minimal + `      kind: {type: enum, enum: []}`, `test.yaml:9: things.kind: enum is missing`},
		{"enum that is no text", minimal + `      kind: {type: enum, enum: [yes, 1]}`, `things.kind.enum: text is expected`},
		{"wrong default", minimal + `      n: {type: integer, max: 3, default: 4}`, `test.yaml:9: things.n.default: the field does not take it; it takes an integer of at most 3`},
		{"bounds", minimal + `      n: {type: string, max: 1000000}`, `things.n: min and max must lie between 1 and 100000`},
		{"taken field", minimal + `      version: {type: integer}`, `things.version: the name is taken`},
		{"field name", minimal + `      Name2: {type: integer}`, `"Name2" is no field name`},
		{"field twice", minimal + `      name: {type: integer}`, `test.yaml:9: things.fields: name stands here for the second time; the first is in line 8`},
		{"secret search", minimal + `      pw: {type: string, secret: true, search: true}`, `a secret field cannot be marked`},
		{"choices", minimal + `      stage: {type: string, filter: true, choices: pipeline.stages}`, `things.stage.choices: "pipeline.stages" must begin with a ref field`},
		{"filter names collide", minimal + "      at: {type: datetime, filter: true}\n      at_after: {type: string, filter: true}", `the input of list_things has two members named at_after`},
		{"resource name", strings.Replace(minimal, "things:", "Things:", 1), `resource name "Things"`},
		{"taken resource", strings.Replace(minimal, "things:", "approvals:", 1), `resource name "approvals" is taken`},
		{"prefix twice", strings.Replace(minimal, "prefix: thi", "prefix: con", 1), `test.yaml:2: things.prefix: "con" is that of contacts too`},
		{"prefix form", strings.Replace(minimal, "prefix: thi", "prefix: T", 1), `things.prefix: "T" is no prefix`},
		{"tool twice", strings.Replace(minimal, "singular: thing", "singular: contact", 1), `the action get_contact exists twice`},
		{"tool name", strings.Replace(minimal, "singular: thing", "singular: "+strings.Repeat("t", 60), 1), `a name has 1 to 64 letters`},
		{"title", strings.Replace(minimal, `"{name}"`, `"{nmae}"`, 1), `test.yaml:6: things.title: there is no field "nmae"; did you mean "name"?`},
		{"title without field", strings.Replace(minimal, `"{name}"`, `name`, 1), `names no field`},
		{"ladder", strings.Replace(minimal, "group: Test", "group: Test\n    ladder: message", 1), `records stand on the ladder record`},
		{"code", "resources:\n  things: {code: true, singular: thing, group: Test}", `only the program itself has resources that are code`},
		{"program's own", strings.Replace(minimal, "things:", "users:", 1), `users is part of the program and cannot be replaced`},
		{"function", minimal + "    actions:\n      do_it: {title: T, description: D, verb: write, path: /things/do-it, function: do_nothing}", `test.yaml:10: things.do_it.function: the program has no function "do_nothing"`},
		{"function needs", minimal + "    actions:\n      do_it: {title: T, description: D, verb: write, target: true, path: '/things/{id}/do-it', function: complete_task}", `test.yaml:10: things.do_it: the function needs the field status, which things lacks`},
		{"function bares a secret", strings.ReplaceAll(minimal, "name", "subject") + "      type: {type: enum, enum: [note]}\n      body: {type: text, secret: true}\n" +
			"    actions:\n      do_it: {title: T, description: D, verb: write, path: /things/do-it, function: add_note, fields: {subject: {type: string, required: true, max: 10}, body: {type: text}}}",
			`things.do_it: the field body must be as in things: secret: true`},
		{"path", minimal + "    actions:\n      do_it: {title: T, description: D, verb: write, target: true, path: /things/do-it, function: complete_task}", `must have the form /things/{id}/name`},
		{"verb", minimal + "    actions:\n      do_it: {title: T, description: D, verb: send, path: /things/do-it, function: add_note}", `it is one of read, write, delete`},
		{"hidden character", strings.Replace(minimal, "group: Test", "group: Test\n    description: \"a\\u202Eb\"", 1), `test.yaml:6: the text holds the hidden character U+202E`},
		{"tag character", strings.Replace(minimal, "group: Test", "group: Test\n    description: \"a\\U000E0041b\"", 1), `hidden character U+E0041`},
		{"alias", "a: &x 1\nb: *x", `aliases and anchors are not supported`},
		{"no mapping", "[]", `test.yaml:1: the catalog: a mapping (name: value) is expected`},
		{"no YAML", "a: [", `test.yaml: `},
		{"top level", "resource: {}", `there is no setting "resource"; did you mean "resources"?`},
		{"remove", "remove: [contact]", `test.yaml:1: remove: there is no resource "contact"`},
		{"removed target", "remove: [customers]", `there are no records "customers"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(Source{"test.yaml", []byte(tt.text)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load: got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestLoadTellsAllFaultsAtOnce(t *testing.T) {
	_, err := Load(Source{"one.yaml", []byte(minimal + "      a: {type: x}\n      b: {type: enum}")}, Source{"two.yaml", []byte("remove: [nothing]")})
	for _, want := range []string{"one.yaml:9:", "one.yaml:10:", "two.yaml:1:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load: got %v, want %q in it", err, want)
		}
	}
}

func TestLoadExtendsReplacesAndRemoves(t *testing.T) {
	c := testCatalog(t, minimal)
	if _, ok := c.Find("create_thing"); !ok {
		t.Error("a further resource: got no create_thing, want it")
	}
	if _, ok := c.Find("create_contact"); !ok {
		t.Error("a further resource: got no create_contact, want the default catalog kept")
	}

	c = testCatalog(t, strings.NewReplacer("things", "notepads", "thing", "notepad", "thi", "not").Replace(minimal))
	r, _ := c.Resource("notepads")
	if got := len(r.Fields); got != 1 {
		t.Errorf("a resource of an existing name: got %d fields, want the new one only", got)
	}

	c = testCatalog(t, "replace: true\n"+minimal)
	if _, ok := c.Resource("contacts"); ok {
		t.Error("replace: got contacts, want them gone")
	}
	if _, ok := c.Resource("users"); !ok {
		t.Error("replace: got no users, want what is part of the program kept")
	}

	c = testCatalog(t, "remove: [work-orders]")
	if _, ok := c.Resource("work-orders"); ok {
		t.Error("remove: got work-orders, want them gone")
	}
}

func TestDefaultCatalogHasTheActionsOfTheProduct(t *testing.T) {
	c := testCatalog(t)
	for _, r := range []string{"contact", "customer", "deal", "pipeline", "product", "task", "activity", "work_order", "notepad", "document"} {
		for _, op := range []string{"get", "create", "update", "delete"} {
			action(t, c, op+"_"+r)
		}
	}
	for _, name := range []string{"list_work_orders", "search_activities", "link_contact_to_customer", "unlink_contact_from_customer",
		"move_deal", "get_pipeline_summary", "complete_task", "add_note", "log_call", "log_meeting", "list_users", "get_user", "search"} {
		action(t, c, name)
	}
}

func TestLoadIsStable(t *testing.T) {
	one, two := testCatalog(t, everyType), testCatalog(t, everyType)
	for i, a := range one.Actions() {
		b := two.Actions()[i]
		if a.Name != b.Name || !bytes.Equal(a.Input, b.Input) || !bytes.Equal(a.Output, b.Output) {
			t.Errorf("action %d: got %s and %s, or other schemas, want the same", i, a.Name, b.Name)
		}
	}
	if one.MarksDigest() != two.MarksDigest() {
		t.Error("MarksDigest: got two digests of one catalog")
	}
	if one.MarksDigest() == testCatalog(t).MarksDigest() {
		t.Error("MarksDigest: got the same digest for other marks")
	}
}

func TestScopesOfPresetsAreOnTheirLadders(t *testing.T) {
	c := testCatalog(t)
	for _, p := range []Preset{PresetRead, PresetRecommended, PresetAct} {
		scopes := c.Scopes(p)
		if err := c.CheckScopes(scopes); err != nil || len(scopes) == 0 || p.Title() == "" {
			t.Errorf("Scopes(%s): got %v, %v, want valid scopes and a title", p, scopes, err)
		}
		rights := access.RightsOf(scopes)
		for _, r := range c.Resources() {
			if r.Group == AdminOnly && rights.Level(r.Name, access.Write) != access.Deny {
				t.Errorf("Scopes(%s): got write for %s, want at most read", p, r.Name)
			}
		}
	}
	rights := access.RightsOf(c.Scopes(PresetRecommended))
	if got := rights.Level("contacts", access.Delete); got != access.Queue {
		t.Errorf("recommended, delete contacts: got %v, want %v", got, access.Queue)
	}
	if c.Scopes("nothing") != nil {
		t.Error("Scopes of no preset: got some, want none")
	}
}

func TestCheckScopesNamesWhatIsValid(t *testing.T) {
	c := testCatalog(t)
	for _, tt := range []struct {
		scope access.Scope
		want  string
	}{
		{access.Scope{Resource: "contact", Rung: "read"}, "the resources are contacts, customers,"},
		{access.Scope{Resource: "email", Rung: "write"}, "its rungs are read, send-approval, send"},
		{access.Scope{Resource: "ai", Rung: "read"}, "its rungs are use-approval, use"},
	} {
		err := c.CheckScopes([]access.Scope{{Resource: "contacts", Rung: "read"}, tt.scope})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("CheckScopes(%s): got %v, want %q in it", tt.scope, err, tt.want)
		}
	}
}

func TestScopeIsTheLowestThatAllows(t *testing.T) {
	c := testCatalog(t)
	for name, want := range map[string]string{
		"list_contacts": "contacts:read", "create_contact": "contacts:write-approval", "delete_contact": "contacts:delete-approval",
		"move_deal": "deals:write-approval", "get_pipeline_summary": "pipelines:read",
	} {
		if got := action(t, c, name).Scope().String(); got != want {
			t.Errorf("%s: got the scope %s, want %s", name, got, want)
		}
	}
}

func TestLevelOfTheSearchNeedsAnyReadableResource(t *testing.T) {
	a := action(t, testCatalog(t), "search")
	for _, tt := range []struct {
		scopes string
		want   access.Level
	}{{"", access.Deny}, {"users:read", access.Deny}, {"deals:read", access.Run}} {
		scopes, err := access.ParseScopes(tt.scopes)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Level(access.Grant{Rights: access.RightsOf(scopes)}); got != tt.want {
			t.Errorf("Level with %q: got %v, want %v", tt.scopes, got, tt.want)
		}
	}
}

// FuzzLoad wants -fuzzminimizetime 5x: a catalog takes milliseconds to load, so
// that minimizing each find would take up all the time.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(everyType))
	f.Add(embedded)
	f.Add([]byte("replace: true\nremove: [contacts]\nresources: {}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Load(Source{"fuzz.yaml", data})
		if err != nil {
			return
		}
		mux := http.NewServeMux()
		for _, a := range c.Actions() {
			if !toolName.MatchString(a.Name) || a.plan == nil {
				t.Errorf("action %q: got a bad name or no plan", a.Name)
			}
			mux.HandleFunc(a.Method+" /v1"+a.Path, func(http.ResponseWriter, *http.Request) {})
			if _, err := a.Decode("", []byte(`{"zzz":1}`)); err == nil && !slices.Contains(fieldNames(a.fields), "zzz") {
				t.Errorf("%s: got no error for an unknown field", a.Name)
			}
			if strings.ContainsFunc(a.Description, unseen.Hidden) {
				t.Errorf("%s: got hidden characters in %q", a.Name, a.Description)
			}
		}
	})
}

func TestRolesMayWhatTheDesignSays(t *testing.T) {
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Resources() {
		for _, v := range r.Ladder.Verbs() {
			for role, want := range map[access.Role]bool{access.Owner: true, access.Admin: true, access.Member: r.Group != AdminOnly, "guest": false} {
				if got := c.RoleRights(role).Level(r.Name, v) == access.Run; got != want {
					t.Errorf("%s may %s %s: got %v, want %v", role, v, r.Name, got, want)
				}
			}
		}
	}
}
