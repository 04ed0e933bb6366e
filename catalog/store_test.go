package catalog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Run(m)) }

// A world is a workspace with one member, and the catalog's actions on it.
type world struct {
	t       *testing.T
	db      *storage.DB
	catalog *catalog.Catalog
	grant   access.Grant
	clock   *storagetest.Clock
}

const extra = `
resources:
  vaults:
    singular: vault
    prefix: vau
    group: Test
    title: "{name}"
    fields:
      name: {type: string, required: true, search: true}
      pin: {type: string, secret: true}
      contact_id: {type: ref, ref: contacts}
`

func eachWorld(t *testing.T, test func(w *world)) {
	c, err := catalog.Load(catalog.Source{Name: "extra.yaml", Data: []byte(extra)})
	if err != nil {
		t.Fatal(err)
	}
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := &world{t: t, db: db, catalog: c, clock: storagetest.NewClock()}
		w.grant = access.Grant{Rights: access.FullRights, Workspace: w.workspace("One")}
		test(w)
	})
}

func (w *world) workspace(name string) access.Workspace {
	ws := access.Workspace{ID: typeid.NewID("wsp"), Name: name, Plan: access.Pro, TimeZone: "UTC", CreatedAt: w.clock.Now()}
	if err := w.db.CreateWorkspace(w.t.Context(), ws); err != nil {
		w.t.Fatal(err)
	}
	return ws
}

func (w *world) user(name string) string {
	u := access.User{ID: typeid.NewID("usr"), Name: name, Email: strings.ToLower(name) + "@example.com", CreatedAt: w.clock.Now()}
	if err := w.db.CreateUser(w.t.Context(), u, ""); err != nil {
		w.t.Fatal(err)
	}
	if err := w.db.SetMember(w.t.Context(), w.grant.Workspace.ID, u.ID, access.Member, w.clock.Now()); err != nil {
		w.t.Fatal(err)
	}
	return u.ID
}

// as returns the world as seen with the scopes only.
func (w *world) as(scopes string) *world {
	parsed, err := access.ParseScopes(scopes)
	if err != nil {
		w.t.Fatal(err)
	}
	o := *w
	o.grant.Rights = access.RightsOf(parsed)
	return &o
}

func (w *world) action(name string) *catalog.Action {
	w.t.Helper()
	a, ok := w.catalog.Find(name)
	if !ok {
		w.t.Fatalf("Find(%q): got nothing, want an action", name)
	}
	return a
}

// do checks and runs the action in a transaction, as the gate does. The input
// is a format with its arguments.
func (w *world) do(name, format string, args ...any) (catalog.Result, error) {
	w.t.Helper()
	a := w.action(name)
	w.clock.Advance(time.Second)
	in, err := a.Decode("", json.RawMessage(fmt.Sprintf(format, args...)))
	if err != nil {
		return catalog.Result{}, err
	}
	call := catalog.Call{Grant: w.grant, Input: in, Now: w.clock.Now()}
	_, checked := a.Check(w.t.Context(), w.db, call)
	var res catalog.Result
	err = storage.InTx[catalog.Store](w.db)(w.t.Context(), func(tx catalog.Store) error {
		res, err = a.Run(w.t.Context(), tx, call)
		return err
	})
	if checked != nil && (err == nil || checked.Error() != err.Error()) || checked == nil && err != nil && !strings.Contains(err.Error(), "unique") {
		w.t.Errorf("%s: Check got %v, Run got %v, want them to agree", name, checked, err)
	}
	if err == nil {
		w.conforms(a, res)
	}
	return res, err
}

// conforms compares the result with the action's schema.
func (w *world) conforms(a *catalog.Action, res catalog.Result) {
	w.t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.Output))
	if err != nil {
		w.t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("test:"+a.Name, doc); err != nil {
		w.t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(res.Data))
	if err != nil {
		w.t.Fatalf("%s: got %s, which is no JSON: %v", a.Name, res.Data, err)
	}
	if err := c.MustCompile("test:" + a.Name).Validate(v); err != nil {
		w.t.Errorf("%s: got %s, which its schema refuses: %v", a.Name, res.Data, err)
	}
}

// must is do for what has to succeed; it returns the data.
func (w *world) must(name, format string, args ...any) map[string]any {
	w.t.Helper()
	res, err := w.do(name, format, args...)
	if err != nil {
		w.t.Fatalf("%s: got %v %+v, want no error", name, err, problem.Of(err).Fields)
	}
	var data map[string]any
	if err := json.Unmarshal(res.Data, &data); err != nil {
		w.t.Fatalf("%s: got %s: %v", name, res.Data, err)
	}
	return data
}

// list is must for lists.
func (w *world) list(name, format string, args ...any) ([]map[string]any, *catalog.Pagination) {
	w.t.Helper()
	res, err := w.do(name, format, args...)
	if err != nil {
		w.t.Fatalf("%s: got %v, want no error", name, err)
	}
	var data []map[string]any
	if err := json.Unmarshal(res.Data, &data); err != nil || data == nil {
		w.t.Fatalf("%s: got %s: %v", name, res.Data, err)
	}
	return data, res.Pagination
}

// refused does what must fail with the kind and the text in it.
func (w *world) refused(kind problem.Kind, text, name, format string, args ...any) {
	w.t.Helper()
	_, err := w.do(name, format, args...)
	e := problem.Of(err)
	if err == nil || e.Kind != kind || !strings.Contains(e.Message+e.Fix, text) {
		w.t.Errorf("%s: got %v (fix %q), want %s with %q", name, err, e.Fix, kind, text)
	}
}

func members(data []map[string]any, name string) []string {
	var all []string
	for _, d := range data {
		s, _ := d[name].(string)
		all = append(all, s)
	}
	return all
}

func TestARecordIsCreatedReadChangedAndDeleted(t *testing.T) {
	eachWorld(t, func(w *world) {
		made := w.must("create_contact", `{"first_name":"Ada","email":"ada@EXAMPLE.com","metadata":{"a":{"b":1,"c":2},"n":null}}`)
		id := made["id"].(string)
		if !typeid.ValidID("con", id) || made["version"] != 1.0 || made["email"] != "ada@example.com" {
			t.Errorf("create: got %v, want an id, version 1 and the values", made)
		}
		changed := w.must("update_contact", `{"id":%q,"last_name":"Lovelace","email":null,"metadata":{"a":{"b":null,"d":3}}}`, id)
		meta, _ := json.Marshal(changed["metadata"])
		if _, ok := changed["email"]; ok || changed["version"] != 2.0 || string(meta) != `{"a":{"c":2,"d":3}}` {
			t.Errorf("update: got %v, want version 2, no e-mail and merged metadata", changed)
		}
		if changed["updated_at"].(string) <= changed["created_at"].(string) {
			t.Errorf("update: got %v, want it updated after it was created", changed)
		}
		if same := w.must("update_contact", `{"id":%q,"last_name":"Lovelace"}`, id); same["version"] != 2.0 {
			t.Errorf("update that changes nothing: got version %v, want 2", same["version"])
		}
		got := w.must("get_contact", `{"id":%q}`, id)
		if fmt.Sprint(got) != fmt.Sprint(changed) {
			t.Errorf("get: got %v, want %v", got, changed)
		}
		if gone := w.must("delete_contact", `{"id":%q}`, id); gone["deleted"] != true || gone["id"] != id {
			t.Errorf("delete: got %v, want the id and deleted", gone)
		}
		w.refused(problem.NotFound, "list_contacts", "get_contact", `{"id":%q}`, id)
		w.refused(problem.NotFound, "there is no contact", "delete_contact", `{"id":%q}`, id)
	})
}

func TestAWrongVersionIsRefused(t *testing.T) {
	eachWorld(t, func(w *world) {
		id := w.must("create_contact", `{"first_name":"Ada"}`)["id"]
		w.must("update_contact", `{"id":%q,"city":"London","if_version":1}`, id)
		for _, name := range []string{"update_contact", "delete_contact"} {
			input := `{"id":%q,"if_version":1}`
			if name == "update_contact" {
				input = `{"id":%q,"if_version":1,"city":"Paris"}`
			}
			w.refused(problem.VersionMismatch, "version 2", name, input, id)
		}
		a := w.action("delete_contact")
		in, err := a.Decode(id.(string), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Check(t.Context(), w.db, catalog.Call{Grant: w.grant, Input: in, IfVersion: 1}); !problem.Is(err, problem.VersionMismatch) {
			t.Errorf("Check with If-Match 1: got %v, want %s", err, problem.VersionMismatch)
		}
	})
}

func TestReferencesMustExistAndBeReadable(t *testing.T) {
	eachWorld(t, func(w *world) {
		customer := w.must("create_customer", `{"name":"Acme"}`)["id"]
		contact := w.must("create_contact", `{"first_name":"Ada","customer_id":%q}`, customer)["id"]
		w.refused(problem.Validation, "customer_id", "create_contact", `{"first_name":"Bob","customer_id":%q}`, typeid.NewID("cus"))

		limited := w.as("contacts:write")
		_, hidden := limited.do("create_contact", `{"first_name":"Bob","customer_id":%q}`, customer)
		missing := typeid.NewID("cus")
		_, absent := limited.do("create_contact", `{"first_name":"Bob","customer_id":%q}`, missing)
		if h, a := fmt.Sprint(problem.Of(hidden)), strings.ReplaceAll(fmt.Sprint(problem.Of(absent)), missing, customer.(string)); h != a || hidden == nil {
			t.Errorf("a hidden customer reads %q, an absent one %q, want the same", h, a)
		}
		// What stands there already reveals nothing.
		limited.must("update_contact", `{"id":%q,"city":"London","customer_id":%q}`, contact, customer)

		user := w.user("Zoe")
		w.must("create_task", `{"title":"Call","assignee_id":%q}`, user)
		w.refused(problem.Validation, "list_users", "create_task", `{"title":"Call","assignee_id":%q}`, typeid.NewID("usr"))
		w.as("tasks:write").refused(problem.Validation, "assignee_id", "create_task", `{"title":"Call","assignee_id":%q}`, user)
	})
}

func TestDeletionSaysWhatRefers(t *testing.T) {
	eachWorld(t, func(w *world) {
		contact := w.must("create_contact", `{"first_name":"Ada"}`)["id"]
		vault := w.must("create_vault", `{"name":"V","contact_id":%q}`, contact)["id"]
		w.must("create_task", `{"title":"A","contact_id":%q}`, contact)
		w.must("create_task", `{"title":"B","contact_id":%q}`, contact)
		w.refused(problem.Conflict, "2 tasks and 1 vault refer to it", "delete_contact", `{"id":%q}`, contact)
		w.as("contacts:delete tasks:read").refused(problem.Conflict, "2 tasks and 1 other record refer to it", "delete_contact", `{"id":%q}`, contact)
		w.as("contacts:delete").refused(problem.Conflict, ": 3 other records refer to it", "delete_contact", `{"id":%q}`, contact)
		tasks, _ := w.list("list_tasks", `{"contact_id":%q}`, contact)
		for _, task := range tasks {
			w.must("delete_task", `{"id":%q}`, task["id"])
		}
		w.must("update_vault", `{"id":%q,"contact_id":null}`, vault)
		w.must("delete_contact", `{"id":%q}`, contact)
	})
}

func TestDealsStandOnStagesOfTheirPipeline(t *testing.T) {
	eachWorld(t, func(w *world) {
		sales := w.must("create_pipeline", `{"name":"Sales","stages":[{"name":"New","probability":10},{"name":"Offer"},{"name":"Won"}]}`)["id"]
		other := w.must("create_pipeline", `{"name":"Other","stages":[{"name":"Start"}]}`)["id"]
		deal := w.must("create_deal", `{"title":"Big","pipeline_id":%q,"value":1000}`, sales)
		id := deal["id"]
		if deal["stage"] != "New" || deal["status"] != "open" {
			t.Errorf("create: got %v, want the first stage and open", deal)
		}
		w.refused(problem.Validation, "one of New, Offer, Won", "create_deal", `{"title":"X","pipeline_id":%q,"stage":"Nowhere"}`, sales)
		w.refused(problem.Validation, "stage", "update_deal", `{"id":%q,"stage":"Start"}`, id)
		w.refused(problem.Validation, "stage", "update_deal", `{"id":%q,"pipeline_id":%q}`, id, other)
		w.refused(problem.Validation, "stage", "move_deal", `{"id":%q,"stage":"Start"}`, id)
		if moved := w.must("move_deal", `{"id":%q,"stage":"offer"}`, id); moved["stage"] != "Offer" {
			t.Errorf("move: got the stage %v, want Offer as the pipeline spells it", moved["stage"])
		}
		w.must("create_deal", `{"title":"Small","pipeline_id":%q,"value":5,"stage":"Won"}`, sales)
		w.must("create_deal", `{"title":"None","pipeline_id":%q,"stage":"Won"}`, sales)

		sum, _ := json.Marshal(w.must("get_pipeline_summary", `{"id":%q}`, sales)["stages"])
		if want := `[{"count":0,"stage":"New","value":0},{"count":1,"stage":"Offer","value":1000},{"count":2,"stage":"Won","value":5}]`; string(sum) != want {
			t.Errorf("summary: got %s, want %s", sum, want)
		}
		w.as("pipelines:read").refused(problem.InsufficientScope, "deals:read", "get_pipeline_summary", `{"id":%q}`, sales)
		for _, action := range []string{"update_deal", "move_deal"} {
			_, err := w.as("deals:write").do(action, `{"id":%q,"stage":"Wonn"}`, id)
			if e := problem.Of(err); e.Kind != problem.Validation || strings.Contains(fmt.Sprintf("%+v", *e), "Offer") || strings.Contains(e.Fix, "Won") {
				w.t.Errorf("%s without pipelines:read: got %+v, want the stages untold", action, *e)
			}
		}

		w.refused(problem.Conflict, `"Won" cannot go: 2 deals`, "update_pipeline", `{"id":%q,"stages":[{"name":"New"},{"name":"Offer"}]}`, sales)
		w.must("update_pipeline", `{"id":%q,"stages":[{"name":"Won"},{"name":"Offer"}]}`, sales)
		if moved := w.must("move_deal", `{"id":%q,"stage":"Start","pipeline_id":%q}`, id, other); moved["pipeline_id"] != other {
			t.Errorf("move to another pipeline: got %v, want %s", moved, other)
		}
	})
}

func TestFurtherActions(t *testing.T) {
	eachWorld(t, func(w *world) {
		customer := w.must("create_customer", `{"name":"Acme"}`)["id"]
		contact := w.must("create_contact", `{"first_name":"Ada"}`)["id"]
		if got := w.must("link_contact_to_customer", `{"id":%q,"customer_id":%q,"reason":"r"}`, contact, customer); got["customer_id"] != customer {
			t.Errorf("link: got %v, want the customer", got)
		}
		got := w.must("unlink_contact_from_customer", `{"id":%q}`, contact)
		if _, ok := got["customer_id"]; ok {
			t.Errorf("unlink: got %v, want no customer", got)
		}
		w.refused(problem.Validation, "customer_id", "link_contact_to_customer", `{"id":%q,"customer_id":%q}`, contact, typeid.NewID("cus"))
		task := w.must("create_task", `{"title":"Call"}`)["id"]
		if got := w.must("complete_task", `{"id":%q}`, task); got["status"] != "done" {
			t.Errorf("complete: got %v, want done", got)
		}
		for name, kind := range map[string]string{"add_note": "note", "log_call": "call", "log_meeting": "meeting"} {
			got := w.must(name, `{"subject":"S","body":"B","contact_id":%q}`, contact)
			if got["type"] != kind || got["occurred_at"] == nil || !typeid.ValidID("act", got["id"].(string)) {
				t.Errorf("%s: got %v, want an activity of the type %s, now", name, got, kind)
			}
		}
	})
}

func TestListsFilterSortPageAndSelect(t *testing.T) {
	eachWorld(t, func(w *world) {
		for i, name := range []string{"Eve", "bob", "Ada", "Dan", "Cyd"} {
			city := ""
			if i%2 == 0 {
				city = `,"city":"Köln"`
			}
			w.must("create_contact", `{"first_name":%q,"date_of_birth":"200%d-01-01"%s}`, name, i, city)
		}
		page := func(input string) []string {
			t.Helper()
			var all []string
			cur := ""
			for range 10 {
				data, p := w.list("list_contacts", `{%s,"limit":2%s}`, input, cur)
				all = append(all, members(data, "first_name")...)
				if p.HasMore != (p.NextCursor != "") || len(data) > 2 {
					t.Errorf("page: got %+v with %d records, want a cursor if there are more", p, len(data))
				}
				if !p.HasMore {
					break
				}
				cur = fmt.Sprintf(`,"cursor":%q`, p.NextCursor)
			}
			return all
		}
		for _, tt := range []struct {
			input string
			want  []string
		}{
			{`"sort":"-created_at"`, []string{"Cyd", "Dan", "Ada", "bob", "Eve"}},
			{`"sort":"created_at"`, []string{"Eve", "bob", "Ada", "Dan", "Cyd"}},
			{`"sort":"-updated_at"`, []string{"Cyd", "Dan", "Ada", "bob", "Eve"}},
			{`"sort":"first_name"`, []string{"Ada", "bob", "Cyd", "Dan", "Eve"}},
			{`"sort":"city","city":"köln"`, []string{"Eve", "Ada", "Cyd"}},
			{`"sort":"city","date_of_birth_after":"2001-01-01","date_of_birth_before":"2004-01-01"`, []string{"bob", "Dan", "Ada"}},
			{`"search":"kol","sort":"-first_name"`, []string{"Eve", "Cyd", "Ada"}},
			{`"first_name":"EVE"`, []string{"Eve"}},
			{`"email":"no@body.de"`, nil},
		} {
			if got := page(tt.input); !slices.Equal(got, tt.want) {
				t.Errorf("list {%s}: got %v, want %v", tt.input, got, tt.want)
			}
		}
		data, p := w.list("list_contacts", `{"limit":2,"sort":"first_name","fields":["first_name","version"]}`)
		if len(data[0]) != 3 || data[0]["id"] == nil || data[0]["version"] != 1.0 {
			t.Errorf("fields: got %v, want id, first_name and version only", data[0])
		}
		w.refused(problem.Validation, "other filters or another sort", "list_contacts", `{"cursor":%q,"sort":"last_name"}`, p.NextCursor)
		w.refused(problem.Validation, "no cursor of this server", "list_contacts", `{"cursor":"abc","sort":"last_name"}`)
		w.refused(problem.Validation, "fields.0", "list_contacts", `{"fields":["frist_name"]}`)
		w.refused(problem.Validation, "letter or digit", "search_contacts", `{"query":"?!"}`)
		found, _ := w.list("search_contacts", `{"query":"KÖLN a"}`)
		if got := members(found, "first_name"); !slices.Equal(got, []string{"Ada"}) {
			t.Errorf("search: got %v, want Ada", got)
		}
	})
}

func TestTheSearchFindsOnlyWhatMayBeRead(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.must("create_contact", `{"first_name":"Ada","last_name":"Stone"}`)
		w.must("create_customer", `{"name":"Stone Ltd"}`)
		w.must("create_task", `{"title":"Call Stone"}`)
		hits, _ := w.list("search", `{"query":"stone"}`)
		if got, want := members(hits, "title"), []string{"Call Stone", "Stone Ltd", "Ada Stone"}; !slices.Equal(got, want) {
			t.Errorf("search: got %v, want %v", got, want)
		}
		hits, _ = w.as("contacts:read tasks:read").list("search", `{"query":"stone"}`)
		if got, want := members(hits, "resource"), []string{"tasks", "contacts"}; !slices.Equal(got, want) {
			t.Errorf("search with two scopes: got %v, want %v", got, want)
		}
		hits, p := w.list("search", `{"query":"stone","resources":["customers","contacts"],"limit":1}`)
		if got, want := members(hits, "title"), []string{"Stone Ltd"}; !slices.Equal(got, want) || !p.HasMore {
			t.Errorf("search of two kinds, one hit: got %v, %+v, want %v and more", got, p, want)
		}
		elsewhere := *w
		elsewhere.grant.Workspace = w.workspace("Two")
		if hits, _ := elsewhere.list("search", `{"query":"stone"}`); len(hits) != 0 {
			t.Errorf("search in another workspace: got %v, want nothing", hits)
		}
	})
}

func TestUniqueValuesAreTakenOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		id := w.must("create_product", `{"name":"Nut","sku":"N-1"}`)["id"]
		other := w.must("create_product", `{"name":"Bolt","sku":"B-1"}`)["id"]
		w.refused(problem.Conflict, "unique", "create_product", `{"name":"Nut","sku":"n-1"}`)
		w.refused(problem.Conflict, "unique", "update_product", `{"id":%q,"sku":"N-1"}`, other)
		w.must("update_product", `{"id":%q,"sku":"N-2"}`, id)
		w.must("create_product", `{"name":"Nut","sku":"N-1"}`)
		w.must("create_product", `{"name":"No number"}`)
		w.must("create_product", `{"name":"None either"}`)
	})
}

func TestSecretsAreNeverAnswered(t *testing.T) {
	eachWorld(t, func(w *world) {
		made := w.must("create_vault", `{"name":"V","pin":"4711"}`)
		got := w.must("get_vault", `{"id":%q}`, made["id"])
		all, _ := w.list("list_vaults", `{"fields":["pin"]}`)
		if s := fmt.Sprint(made, got, all); strings.Contains(s, "4711") || !strings.Contains(s, "****") {
			t.Errorf("create, get and list: got %s, want the pin masked", s)
		}
		if hits, _ := w.list("search", `{"query":"4711"}`); len(hits) != 0 {
			t.Errorf("search of a secret: got %v, want nothing", hits)
		}
	})
}

func TestUsersAreListedAndPaged(t *testing.T) {
	eachWorld(t, func(w *world) {
		var ids []string
		for _, name := range []string{"Ann", "Bea", "Cem", "Dov", "Eli"} {
			ids = append(ids, w.user(name))
		}
		var names []string
		cur := ""
		for range 5 {
			data, p := w.list("list_users", `{"limit":2%s}`, cur)
			names = append(names, members(data, "name")...)
			if !p.HasMore {
				break
			}
			cur = fmt.Sprintf(`,"cursor":%q`, p.NextCursor)
		}
		if want := []string{"Ann", "Bea", "Cem", "Dov", "Eli"}; !slices.Equal(names, want) {
			t.Errorf("list_users: got %v, want %v", names, want)
		}
		if got := w.must("get_user", `{"id":%q}`, ids[1]); got["email"] != "bea@example.com" || got["role"] != "member" {
			t.Errorf("get_user: got %v, want Bea", got)
		}
		if data, _ := w.list("list_users", `{"search":"ce"}`); len(data) != 1 {
			t.Errorf("list_users with a search: got %v, want Cem", data)
		}
		w.refused(problem.NotFound, "list_users", "get_user", `{"id":%q}`, typeid.NewID("usr"))
	})
}

func TestCheckKnowsWhatAnActionIsAbout(t *testing.T) {
	eachWorld(t, func(w *world) {
		id := w.must("create_contact", `{"first_name":"Ada","last_name":"Stone"}`)["id"].(string)
		check := func(name, input string) catalog.Target {
			t.Helper()
			a := w.action(name)
			in, err := a.Decode("", json.RawMessage(input))
			if err != nil {
				t.Fatal(err)
			}
			target, err := a.Check(context.Background(), w.db, catalog.Call{Grant: w.grant, Input: in, Now: w.clock.Now()})
			if err != nil {
				t.Fatal(err)
			}
			return target
		}
		want := catalog.Target{ID: id, Version: 1, Title: "Ada Stone"}
		for _, name := range []string{"get_contact", "delete_contact", "unlink_contact_from_customer"} {
			if got := check(name, fmt.Sprintf(`{"id":%q}`, id)); got != want {
				t.Errorf("Check %s: got %+v, want %+v", name, got, want)
			}
		}
		if got, want := check("create_contact", `{"first_name":"Bob"}`), (catalog.Target{Title: "Bob"}); got != want {
			t.Errorf("Check create_contact: got %+v, want %+v", got, want)
		}
	})
}
