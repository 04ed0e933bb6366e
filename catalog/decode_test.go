package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"trustpager/problem"
)

const (
	aContact  = "con_01h455vb4pex5vsknk084sn02q"
	aCustomer = "cus_01h455vb4pex5vsknk084sn02q"
	aDeal     = "dea_01h455vb4pex5vsknk084sn02q"
	aPipeline = "pip_01h455vb4pex5vsknk084sn02q"
)

// everyType is a resource with a field of each type and mark that the default
// catalog does not have.
const everyType = `
resources:
  things:
    singular: thing
    prefix: thi
    group: Test
    description: Things.
    title: "{name}"
    fields:
      name: {type: string, required: true, search: true, sort: true, filter: true}
      code: {type: string, unique: true, max: 10}
      reason: {type: text}
      weight: {type: number, min: 0, max: 100, filter: true, sort: true}
      level: {type: integer, min: -5, max: 5, filter: true, sort: true, default: 1}
      site: {type: url}
      big: {type: boolean, filter: true}
      made_at: {type: datetime, filter: true, sort: true}
      made_on: {type: date, filter: true, sort: true, search: true}
      password: {type: string, secret: true}
      labels: {type: tags, enum: [red, green], max: 2}
      parts: {type: list, max: 3, fields: {name: {type: string, required: true, unique: true}, share: {type: number, default: 0.5}}}
      parent_id: {type: ref, ref: things}
      extra: {type: object}
`

func testCatalog(t testing.TB, sources ...string) *Catalog {
	t.Helper()
	var s []Source
	for i, text := range sources {
		s = append(s, Source{fmt.Sprintf("test%d.yaml", i+1), []byte(text)})
	}
	c, err := Load(s...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func action(t testing.TB, c *Catalog, name string) *Action {
	t.Helper()
	a, ok := c.Find(name)
	if !ok {
		t.Fatalf("Find(%q): got nothing, want an action", name)
	}
	return a
}

// A sample is an input as it is sent over MCP.
type sample struct{ action, input string }

// accepted are inputs that Decode takes, with what becomes of them.
var accepted = []struct {
	sample
	canonical string
}{
	{sample{"create_contact", `{"first_name":" Ada ","email":"Ada.L@EXAMPLE.com","phone":"+4930123456"}`},
		`{"email":"Ada.L@example.com","first_name":"Ada","phone":"+4930123456"}`},
	{sample{"create_contact", `{"first_name":"A<b>&\u2028","last_name":null,"notes":"one\n\ttwo","metadata":{"b":1.50,"a":[null,true]}}`},
		"{\"first_name\":\"A<b>&\",\"metadata\":{\"a\":[null,true],\"b\":1.50},\"notes\":\"one\\n\\ttwo\"}"},
	{sample{"create_contact", `{"first_name":"Ada","last_name":"  ","reason":"because"}`}, `{"first_name":"Ada"}`},
	{sample{"create_deal", `{"title":"Big","value":1.25e3,"currency":"EUR","pipeline_id":"` + aPipeline + `","tags":["a"," b ","a"]}`},
		`{"currency":"EUR","pipeline_id":"` + aPipeline + `","status":"open","tags":["a","b"],"title":"Big","value":1250}`},
	{sample{"create_pipeline", `{"name":"P","stages":[{"name":"New","probability":10.0},{"name":"Won"}]}`},
		`{"name":"P","stages":[{"name":"New","probability":10},{"name":"Won"}]}`},
	{sample{"create_task", `{"title":"T","due_at":"2026-03-01T12:00:00.123456+02:00"}`},
		`{"due_at":"2026-03-01T10:00:00.123Z","priority":"normal","status":"open","title":"T"}`},
	{sample{"update_contact", `{"id":"` + aContact + `","last_name":null,"city":"","if_version":3,"reason":null}`},
		`{"city":null,"id":"` + aContact + `","if_version":3,"last_name":null}`},
	{sample{"delete_contact", `{"id":"` + aContact + `","if_version":2}`}, `{"id":"` + aContact + `","if_version":2}`},
	{sample{"get_contact", `{"id":"` + aContact + `"}`}, `{"id":"` + aContact + `"}`},
	{sample{"list_contacts", ``}, `{"limit":25,"sort":"-created_at"}`},
	{sample{"list_contacts", `{"limit":100,"sort":"last_name","fields":["email"],"created_after":"2026-01-01T00:00:00Z","cursor":null}`},
		`{"created_after":"2026-01-01T00:00:00.000Z","fields":["email"],"limit":100,"sort":"last_name"}`},
	{sample{"search_contacts", `{"query":"ada"}`}, `{"limit":25,"query":"ada"}`},
	{sample{"move_deal", `{"id":"` + aDeal + `","stage":"Won","pipeline_id":null}`}, `{"id":"` + aDeal + `","stage":"Won"}`},
	{sample{"add_note", `{"body":"Hello","contact_id":"` + aContact + `"}`}, `{"body":"Hello","contact_id":"` + aContact + `"}`},
	{sample{"search", `{"query":"x","resources":["deals"]}`}, `{"limit":25,"query":"x","resources":["deals"]}`},
	{sample{"create_thing", `{"name":"N","reason":"mine","weight":0.1,"labels":["red"],"parts":[{"name":"a"}],"extra":{"a":{"b":{"c":{"d":1}}}},"big":false}`},
		`{"big":false,"extra":{"a":{"b":{"c":{"d":1}}}},"labels":["red"],"level":1,"name":"N","parts":[{"name":"a","share":0.5}],"reason":"mine","weight":0.1}`},
	{sample{"list_things", `{"weight":1e1,"big":true,"made_on_after":"2026-01-01"}`},
		`{"big":true,"limit":25,"made_on_after":"2026-01-01","sort":"-created_at","weight":10}`},
}

func TestDecodeNormalizes(t *testing.T) {
	c := testCatalog(t, everyType)
	for _, tt := range accepted {
		in, err := action(t, c, tt.action).Decode("", json.RawMessage(tt.input))
		if err != nil {
			t.Errorf("Decode %s %s: got %v, want no error", tt.action, tt.input, explain(err))
			continue
		}
		if got := string(in.Canonical); got != tt.canonical {
			t.Errorf("Decode %s %s:\n got %s\nwant %s", tt.action, tt.input, got, tt.canonical)
		}
	}
}

func TestDecodeTakesItsCanonicalFormAgain(t *testing.T) {
	c := testCatalog(t, everyType)
	for _, tt := range accepted {
		a := action(t, c, tt.action)
		first, err := a.Decode("", json.RawMessage(tt.input))
		if err != nil {
			t.Fatal(explain(err))
		}
		again, err := a.Decode("", first.Canonical)
		if err != nil {
			t.Errorf("Decode %s %s again: got %v, want no error", tt.action, first.Canonical, explain(err))
			continue
		}
		first.Reason = "" // which is not part of it
		if d := cmp.Diff(first, again); d != "" {
			t.Errorf("Decode %s again: got another input (-first +again):\n%s", tt.action, d)
		}
	}
}

func explain(err error) string {
	b, _ := json.MarshalIndent(problem.Of(err), "", " ")
	return err.Error() + "\n" + string(b)
}

// refused are inputs that Decode does not take, with the paths at fault. Those
// with form are also against the schema.
var refused = []struct {
	sample
	kind  problem.Kind
	paths string
	form  bool
}{
	{sample{"create_contact", `{}`}, problem.MissingFields, "first_name", true},
	{sample{"create_deal", `{"value":1}`}, problem.MissingFields, "title pipeline_id", true},
	{sample{"create_contact", `{"first_name":null}`}, problem.Validation, "first_name", true},
	{sample{"create_contact", `{"first_name":""}`}, problem.Validation, "first_name", true},
	{sample{"create_contact", `{"first_name":"  "}`}, problem.Validation, "first_name", false},
	{sample{"create_contact", `{"first_name":7}`}, problem.Validation, "first_name", true},
	{sample{"create_contact", `{"first_name":"two\nlines"}`}, problem.Validation, "first_name", false},
	{sample{"create_contact", `{"first_name":"` + strings.Repeat("ä", 101) + `"}`}, problem.Validation, "first_name", true},
	{sample{"create_contact", `{"first_name":"A","emial":"a@b.de"}`}, problem.Validation, "emial", true},
	{sample{"create_contact", `{"first_name":"A","email":"nobody"}`}, problem.Validation, "email", true},
	{sample{"create_contact", `{"first_name":"A","email":"a@localhost"}`}, problem.Validation, "email", false},
	{sample{"create_contact", `{"first_name":"A","email":"Ada <a@b.de>"}`}, problem.Validation, "email", true},
	{sample{"create_contact", `{"first_name":"A","phone":"030 123456"}`}, problem.Validation, "phone", true},
	{sample{"create_contact", `{"first_name":"A","phone":"+4930123456789012"}`}, problem.Validation, "phone", true},
	{sample{"create_contact", `{"first_name":"A","date_of_birth":"2026-02-30"}`}, problem.Validation, "date_of_birth", true},
	{sample{"create_contact", `{"first_name":"A","customer_id":"` + aDeal + `"}`}, problem.Validation, "customer_id", true},
	{sample{"create_contact", `{"first_name":"A","metadata":[]}`}, problem.Validation, "metadata", true},
	{sample{"create_contact", `{"first_name":"A","metadata":{"a":{"b":{"c":{"d":{"e":{}}}}}}}`}, problem.Validation, "metadata", false},
	{sample{"create_contact", `{"first_name":"A","metadata":{"a":"` + strings.Repeat("x", 17<<10) + `"}}`}, problem.Validation, "metadata", false},
	{sample{"create_contact", `{"first_name":"A","metadata":{"a":1e999}}`}, problem.Validation, "metadata", false},
	{sample{"create_contact", `{"first_name":"A","id":"` + aContact + `"}`}, problem.Validation, "id", true},
	{sample{"create_customer", `{"name":"A","website":"ftp://a.de"}`}, problem.Validation, "website", true},
	{sample{"create_customer", `{"name":"A","website":"https://u:p@a.de"}`}, problem.Validation, "website", false},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","value":1.5}`}, problem.Validation, "value", true},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","value":"1"}`}, problem.Validation, "value", true},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","value":-1}`}, problem.Validation, "value", true},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","value":1e999999999}`}, problem.Validation, "value", false},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","currency":"eur"}`}, problem.Validation, "currency", true},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","currency":"ZZZ"}`}, problem.Validation, "currency", false},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","status":"opne"}`}, problem.Validation, "status", true},
	{sample{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","tags":["a",7,""]}`}, problem.Validation, "tags.1 tags.2", true},
	{sample{"create_deal", `{"title":7,"status":"x","nme":1}`}, problem.Validation, "title pipeline_id status nme", true},
	{sample{"create_pipeline", `{"name":"P","stages":[]}`}, problem.Validation, "stages", true},
	{sample{"create_pipeline", `{"name":"P","stages":[{"name":"A"},{"name":"a"}]}`}, problem.Validation, "stages.1.name", false},
	{sample{"create_pipeline", `{"name":"P","stages":[{"probability":101,"nam":"A"},3]}`}, problem.Validation,
		"stages.0.nam stages.0.name stages.0.probability stages.1", true},
	{sample{"update_pipeline", `{"id":"` + aPipeline + `","stages":[]}`}, problem.Validation, "stages", true},
	{sample{"create_task", `{"title":"T","due_at":"2026-03-01"}`}, problem.Validation, "due_at", true},
	{sample{"create_task", `{"title":"T","due_at":"0001-01-01T00:00:00+14:00"}`}, problem.Validation, "due_at", false},
	{sample{"update_contact", `{"first_name":"A"}`}, problem.MissingFields, "id", true},
	{sample{"update_contact", `{"id":"` + aContact + `","first_name":null}`}, problem.Validation, "first_name", true},
	{sample{"update_contact", `{"id":"` + aContact + `"}`}, problem.Validation, "", false},
	{sample{"update_contact", `{"id":"` + aContact + `","if_version":0,"city":"B"}`}, problem.Validation, "if_version", true},
	{sample{"update_contact", `{"id":"` + aContact + `","version":3}`}, problem.Validation, "version", true},
	{sample{"get_contact", `{"id":"` + aCustomer + `"}`}, problem.Validation, "id", true},
	{sample{"get_contact", `{"id":"` + aContact + `","reason":"x"}`}, problem.Validation, "reason", true},
	{sample{"list_contacts", `{"limit":101}`}, problem.Validation, "limit", true},
	{sample{"list_contacts", `{"limit":0}`}, problem.Validation, "limit", true},
	{sample{"list_contacts", `{"sort":"notes"}`}, problem.Validation, "sort", true},
	{sample{"list_contacts", `{"email":null}`}, problem.Validation, "email", true},
	{sample{"list_contacts", `{"city":""}`}, problem.Validation, "city", false},
	{sample{"search_contacts", `{}`}, problem.MissingFields, "query", true},
	{sample{"search", `{"query":"a","resources":["users"]}`}, problem.Validation, "resources.0", true},
	{sample{"create_thing", `{"name":"N","labels":["red","blue"]}`}, problem.Validation, "labels.1", true},
	{sample{"create_thing", `{"name":"N","weight":100.5}`}, problem.Validation, "weight", true},
	{sample{"create_thing", `{"name":"N","big":"true"}`}, problem.Validation, "big", true},
}

func TestDecodeTellsAllFaultsAtOnce(t *testing.T) {
	c := testCatalog(t, everyType)
	for _, tt := range refused {
		_, err := action(t, c, tt.action).Decode("", json.RawMessage(tt.input))
		if err == nil {
			t.Errorf("Decode %s %.200s: got no error, want %s", tt.action, tt.input, tt.kind)
			continue
		}
		e := problem.Of(err)
		var paths []string
		for _, f := range e.Fields {
			paths = append(paths, f.Path)
			if f.Expected == "" || f.Got == "" || len([]rune(f.Got)) > 80 {
				t.Errorf("Decode %s %.200s: got the field %+v, want expected and a short got", tt.action, tt.input, f)
			}
		}
		if got := strings.Join(paths, " "); got != tt.paths || e.Kind != tt.kind {
			t.Errorf("Decode %s %.200s: got %s at %q, want %s at %q", tt.action, tt.input, e.Kind, got, tt.kind, tt.paths)
		}
		if e.Fix == "" {
			t.Errorf("Decode %s %.200s: got no fix: %v", tt.action, tt.input, err)
		}
	}
}

func TestSchemasAgreeWithDecode(t *testing.T) {
	c := testCatalog(t, everyType)
	schemas, tools := map[string]*jsonschema.Schema{}, map[string]*jsonschema.Schema{}
	for _, a := range c.Actions() {
		schemas[a.Name] = compile(t, a.Name+"/input", a.Input)
		compile(t, a.Name+"/output", a.Output)
		tools[a.Name] = compile(t, a.Name+"/tool", ToolInput(a, true))
	}
	validate := func(schemas map[string]*jsonschema.Schema, s sample) error {
		text := s.input
		if text == "" {
			text = "{}"
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return schemas[s.action].Validate(v)
	}
	for _, tt := range accepted {
		if err := validate(schemas, tt.sample); err != nil {
			t.Errorf("schema of %s for %s: got %v, want no error", tt.action, tt.input, err)
		}
		if err := validate(schemas, sample{tt.action, tt.canonical}); err != nil {
			t.Errorf("schema of %s for the canonical %s: got %v, want no error", tt.action, tt.canonical, err)
		}
		if strings.Contains(tt.input, "null") {
			continue // only words tell of it in the tool's short schema
		}
		if err := validate(tools, tt.sample); err != nil {
			t.Errorf("schema of the tool %s for %s: got %v, want no error", tt.action, tt.input, err)
		}
	}
	for _, tt := range refused {
		if len(tt.input) > 1<<10 || strings.Contains(tt.input, "1e9") {
			continue // beyond what the schema says, and costly for its library
		}
		if err := validate(schemas, tt.sample); (err != nil) != tt.form {
			t.Errorf("schema of %s for %.200s: got %v, want an error: %t", tt.action, tt.input, err, tt.form)
		}
	}
}

// The short schema of tools has fields as text with commas.
func TestDecodeTakesTheFieldsOfAListAsText(t *testing.T) {
	a := action(t, testCatalog(t, everyType), "list_contacts")
	const text = `{"fields":"email, phone"}`
	v, _ := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err := compile(t, "tool", ToolInput(a, false)).Validate(v); err != nil {
		t.Errorf("schema of the tool: got %v, want no error", err)
	}
	in, err := a.Decode("", json.RawMessage(text))
	if want := `{"fields":["email","phone"],"limit":25,"sort":"-created_at"}`; err != nil || string(in.Canonical) != want {
		t.Errorf("Decode %s: got %s, %v, want %s", text, in.Canonical, err, want)
	}
}

func TestErrorsSayHowToMendWhatCallersOftenGetWrong(t *testing.T) {
	c := testCatalog(t, everyType)
	for _, tt := range []struct{ action, input, want string }{
		{"send_email", `{"to":"ada@example.com","subject":"S","body":"B"}`, `["ada@example.com"]`},
		{"add_note", `{"body":"B","customer_id":"x"}`, "Leave customer_id out"},
		{"create_deal", `{"title":"T"}`, "the id of a pipeline. Find ids with list_pipelines."},
		{"get_ai_result", `{"id":"Ada"}`, "The answer to the call that made it had its id."},
		{"create_task", `{"title":"T","assignee_id":"Ada"}`, "the id of a user, which begins with usr_"},
	} {
		_, err := action(t, c, tt.action).Decode("", json.RawMessage(tt.input))
		if e := problem.Of(err); !strings.Contains(e.Fix, tt.want) {
			t.Errorf("%s %s: got %q and the fix %q, want in it %q", tt.action, tt.input, e.Message, e.Fix, tt.want)
		}
	}
}

func compile(t testing.TB, name string, s Schema) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(s))
	if err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("test:"+name, doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("test:" + name)
	if err != nil {
		t.Fatalf("schema %s: %v\n%s", name, err, s)
	}
	return compiled
}

func TestDecodeTakesTheIDOfThePath(t *testing.T) {
	c := testCatalog(t)
	a := action(t, c, "update_contact")
	in, err := a.Decode(aContact, json.RawMessage(`{"city":"Berlin","id":"`+aContact+`"}`))
	if err != nil || in.ID != aContact {
		t.Errorf("Decode with the same id: got %q, %v, want %q", in.ID, err, aContact)
	}
	if _, err := a.Decode(aContact, json.RawMessage(`{"city":"Berlin","id":"con_01h455vb4pex5vsknk084sn02r"}`)); !problem.Is(err, problem.Validation) {
		t.Errorf("Decode with another id: got %v, want %s", err, problem.Validation)
	}
	if _, err := a.Decode("nonsense", json.RawMessage(`{"city":"Berlin"}`)); !problem.Is(err, problem.NotFound) {
		t.Errorf("Decode with a malformed id: got %v, want %s", err, problem.NotFound)
	}
}

func TestDecodeSeparatesTheReason(t *testing.T) {
	c := testCatalog(t, everyType)
	in, err := action(t, c, "delete_contact").Decode(aContact, json.RawMessage(`{"reason":"a duplicate"}`))
	if err != nil || in.Reason != "a duplicate" || strings.Contains(string(in.Canonical), "duplicate") {
		t.Errorf("Decode: got reason %q, canonical %s, %v, want the reason apart", in.Reason, in.Canonical, err)
	}
	in, err = action(t, c, "create_thing").Decode("", json.RawMessage(`{"name":"N","reason":"a field"}`))
	if err != nil || in.Reason != "" || in.Values["reason"] != "a field" {
		t.Errorf("Decode with a field named reason: got reason %q, values %v, %v, want the field", in.Reason, in.Values, err)
	}
}

func TestDecodeRefusesWhatIsNoObject(t *testing.T) {
	a := action(t, testCatalog(t), "create_contact")
	for _, raw := range []string{`[]`, `null`, `"x"`, `{`, `{}{}`, `{"first_name":"A"} x`} {
		if _, err := a.Decode("", json.RawMessage(raw)); !problem.Is(err, problem.InvalidBody) {
			t.Errorf("Decode %s: got %v, want %s", raw, err, problem.InvalidBody)
		}
	}
}

func TestDecodeProposesWhatWasMeant(t *testing.T) {
	c := testCatalog(t)
	for _, tt := range []struct{ action, input, want string }{
		{"create_contact", `{"first_name":"A","emial":"x"}`, `did you mean "email"?`},
		{"create_contact", `{"first_name":"A","lastName":"x"}`, `did you mean "last_name"?`},
		{"create_contact", `{"first_name":"A","phone":"0049 (30) 123-456"}`, `Write it as "+4930123456".`},
		{"create_contact", `{"first_name":"A","phone":"030123456"}`, `+4930123456`},
		{"create_deal", `{"title":"A","pipeline_id":"` + aPipeline + `","status":"opne"}`, `Did you mean "open"?`},
		{"create_contact", `{"first_name":"A","version":3}`, `only the server sets it`},
		{"create_contact", `{"first_name":"A","customer_id":"Acme"}`, `list_customers`},
	} {
		_, err := action(t, c, tt.action).Decode("", json.RawMessage(tt.input))
		if got := explain(err); !strings.Contains(strings.ReplaceAll(got, `\"`, `"`), tt.want) {
			t.Errorf("Decode %s %s: got %s, want %q in it", tt.action, tt.input, got, tt.want)
		}
	}
}

func TestSecretsAreMasked(t *testing.T) {
	c := testCatalog(t, everyType)
	a := action(t, c, "create_thing")
	_, err := a.Decode("", json.RawMessage(`{"name":"N","password":["hunter2"]}`))
	if got := explain(err); strings.Contains(got, "hunter2") {
		t.Errorf("Decode: got %s, want the secret masked", got)
	}
	got := string(a.Mask(json.RawMessage(`{"password":"hunter2","name":"N"}`)))
	if want := `{"name":"N","password":"********"}`; got != want {
		t.Errorf("Mask: got %s, want %s", got, want)
	}
	r, _ := c.Resource("things")
	out, err := r.appendRecord(nil, Record{ID: "thi_x", Body: json.RawMessage(`{"name":"N","password":"hunter2"}`)}, nil)
	if err != nil || bytes.Contains(out, []byte("hunter2")) || !json.Valid(out) {
		t.Errorf("appendRecord: got %s, %v, want the secret masked", out, err)
	}
}

func TestDecodeQueryMakesTheSameObject(t *testing.T) {
	c := testCatalog(t, everyType)
	for _, tt := range []struct{ action, query, want string }{
		{"list_contacts", "", `{}`},
		{"list_contacts", "limit=5&email=a%40b.de&sort=-last_name&fields=email,phone", `{"email":"a@b.de","fields":["email","phone"],"limit":5,"sort":"-last_name"}`},
		{"list_contacts", "limit=ten", `{"limit":"ten"}`}, // for Decode to refuse
		{"list_contacts", "limit=", `{"limit":""}`},
		{"list_contacts", "nme=x", `{"nme":"x"}`},
		{"list_things", "big=true&weight=1.5&level=-3", `{"big":true,"level":-3,"weight":1.5}`},
		{"list_things", "big=yes", `{"big":"yes"}`},
	} {
		q, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := action(t, c, tt.action).DecodeQuery(q)
		if err != nil || string(got) != tt.want {
			t.Errorf("DecodeQuery(%q): got %s, %v, want %s", tt.query, got, err, tt.want)
		}
	}
	for _, query := range []string{"limit=1&limit=2", "email=%ff", "email=%00"} {
		q, _ := url.ParseQuery(query)
		if _, err := action(t, c, "list_contacts").DecodeQuery(q); !problem.Is(err, problem.Validation) {
			t.Errorf("DecodeQuery(%q): got %v, want %s", query, err, problem.Validation)
		}
	}
}

func TestRoutesFitTogether(t *testing.T) {
	mux := http.NewServeMux()
	for _, a := range testCatalog(t, everyType).Actions() {
		mux.HandleFunc(a.Method+" "+a.Path, func(http.ResponseWriter, *http.Request) {}) // panics on a conflict
		if a.Target != strings.Contains(a.Path, "{id}") {
			t.Errorf("%s: got the path %s, want an id in it: %t", a.Name, a.Path, a.Target)
		}
		if a.Title == "" || a.Description == "" || a.Input == nil || a.Output == nil || a.plan == nil {
			t.Errorf("%s: got %+v, want title, description, schemas and a plan", a.Name, a)
		}
	}
}

func TestEveryRefusalIsFoundAgainInTheSchemaOrder(t *testing.T) {
	a := action(t, testCatalog(t), "create_deal")
	_, err := a.Decode("", json.RawMessage(`{"tags":3,"value":"x","title":3,"zzz":1,"aaa":2}`))
	var got []string
	for _, f := range problem.Of(err).Fields {
		got = append(got, f.Path)
	}
	if want := []string{"title", "value", "pipeline_id", "tags", "aaa", "zzz"}; !slices.Equal(got, want) {
		t.Errorf("paths: got %v, want %v", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	for _, tt := range accepted {
		f.Add(tt.action, tt.input)
	}
	for _, tt := range refused {
		f.Add(tt.action, tt.input)
	}
	c := testCatalog(f, everyType)
	f.Fuzz(func(t *testing.T, name, raw string) {
		a, ok := c.Find(name)
		if !ok {
			return
		}
		in, err := a.Decode("", json.RawMessage(raw))
		if err != nil {
			if problem.Of(err).Kind == problem.Internal {
				t.Fatalf("Decode: got %v, want an error for the caller", err)
			}
			return
		}
		again, err := a.Decode("", in.Canonical)
		if err != nil || !bytes.Equal(again.Canonical, in.Canonical) {
			t.Errorf("Decode %s again: got %s, %v, want the same", in.Canonical, again.Canonical, err)
		}
	})
}

func BenchmarkDecodeCreate(b *testing.B) {
	a := action(b, testCatalog(b), "create_contact")
	raw := json.RawMessage(`{"first_name":"Ada","last_name":"Lovelace","email":"ada@example.com","phone":"+4930123456",` +
		`"job_title":"Analyst","city":"London","customer_id":"` + aCustomer + `","reason":"She asked to be called back."}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Decode("", raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	c := testCatalog(b)
	r, _ := c.Resource("contacts")
	values := map[string]any{"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "city": "London", "notes": "Met at the fair, wants a call in March."}
	b.ReportAllocs()
	for b.Loop() {
		r.index(values)
	}
}
