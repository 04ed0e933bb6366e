package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/mcp"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
	"trustpager/webhook"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Run(m)) }

// A world is a server on a real database; on PostgreSQL two, with connections of
// their own, which answer at random. What tests call directly is of the first.
type world struct {
	t         *testing.T
	db        *storage.DB
	gate      *approvals.Gate
	server    *mcp.Server
	url       string
	workspace access.Workspace
	database  string
	more      []catalog.Source
}

// newWorld makes a world on the database that url names, with more in its catalog.
// On PostgreSQL it has two nodes, and each request goes to one at random.
func newWorld(t *testing.T, url string, more ...catalog.Source) *world {
	w := &world{t: t, database: url, more: more,
		workspace: access.Workspace{ID: typeid.NewID("ws"), Name: "Acme", Plan: access.Pro, TimeZone: "UTC", CreatedAt: time.Now()}}
	db, gate, first := w.newNode()
	w.db, w.gate, w.server = db, gate, first
	second := first
	if storage.IsPostgres(url) {
		_, _, second = w.newNode()
	}
	if err := db.CreateWorkspace(t.Context(), w.workspace); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		[]*mcp.Server{first, second}[rand.IntN(2)].ServeHTTP(rw, r)
	}))
	t.Cleanup(func() { first.Close(); second.Close(); srv.Close() })
	w.url = srv.URL
	return w
}

// newNode starts a further server of the world's database.
func (w *world) newNode() (*storage.DB, *approvals.Gate, *mcp.Server) {
	t := w.t
	t.Helper()
	db := storagetest.Open(t, w.database)
	c, err := catalog.Load(w.more...)
	if err != nil {
		t.Fatal(err)
	}
	gate := &approvals.Gate{Store: db, InTx: storage.InTx[approvals.Store](db), Watch: db.Watch, Catalog: c,
		Webhooks: &webhook.Endpoints{Now: time.Now}, Now: time.Now, BaseURL: "https://crm.example.com"}
	auth := &access.Authenticator{Store: db, Now: time.Now}
	s, err := mcp.New(mcp.Config{Catalog: c, Gate: gate, Authenticate: auth.Authenticate, Watch: db.Watch, StateKey: []byte("key"), BaseURL: "https://crm.example.com", Origin: newOrigin(t),
		Limiter: &access.Limiter{Now: time.Now, Used: db.UsedSince, Meters: db.Meters()}, Usage: &access.Usage{Store: db, Now: time.Now}, Version: "test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return db, gate, s
}

// key makes a key and returns its secret and its grant.
func (w *world) key(k access.Key, scopes string) (string, access.Grant) {
	w.t.Helper()
	secret := access.NewSecret()
	var err error
	if k.Scopes, err = access.ParseScopes(scopes); err != nil {
		w.t.Fatal(err)
	}
	k.ID, k.Workspace, k.Last4, k.CreatedAt = typeid.NewID("key"), w.workspace.ID, secret.Last4(), time.Now()
	k.Name = "Key " + scopes
	if err := w.db.CreateKey(w.t.Context(), k, secret.Hash()); err != nil {
		w.t.Fatal(err)
	}
	return string(secret), k.Grant(w.workspace)
}

// An agent calls tools.
type agent struct {
	t       *testing.T
	session *sdk.ClientSession
}

func (a agent) call(name, arguments string) map[string]any {
	a.t.Helper()
	r, err := a.session.CallTool(a.t.Context(), &sdk.CallToolParams{Name: name, Arguments: json.RawMessage(arguments)})
	if err != nil {
		a.t.Fatalf("%s(%s): %v", name, arguments, err)
	}
	structured, ok := r.StructuredContent.(map[string]any)
	if !ok || r.IsError != (structured["error"] != nil && structured["status"] == nil) {
		a.t.Fatalf("%s(%s): got %+v", name, arguments, r)
	}
	return structured
}

// want fails the test unless got has the members.
func want(t *testing.T, got map[string]any, members map[string]any) {
	t.Helper()
	for k, v := range members {
		if fmt.Sprint(got[k]) != fmt.Sprint(v) {
			t.Errorf("got %s %v, want %v, in %v", k, got[k], v, got)
		}
	}
}

func idOf(t *testing.T, got map[string]any) string {
	t.Helper()
	a, _ := got["approval"].(map[string]any)
	id, _ := a["id"].(string)
	if id == "" {
		t.Fatalf("there is no approval in %v", got)
	}
	return id
}

func TestAgentAsksAndAPersonDecides(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		secret, _ := w.key(access.Key{}, "contacts:write-approval")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		a := agent{t, connect(t, w.url, "", bearer{token: secret})}

		want(t, a.call("create_contact", `{"first_name":"Ada","email":"ada@example.com","dry_run":true}`), map[string]any{"status": "dry_run", "executed": false, "would": "wait"})
		asked := a.call("create_contact", `{ "first_name":"Ada",  "email":"ada@example.com","reason":"she wrote" }`)
		want(t, asked, map[string]any{"status": "pending_approval", "executed": false})
		id := idOf(t, asked)
		if again := a.call("create_contact", `{"email":"ada@example.com","first_name":"Ada"}`); idOf(t, again) != id {
			t.Errorf("the same again: got another approval, %v", again)
		}
		want(t, a.call("get_approval", `{"id":"`+id+`"}`), map[string]any{"status": "pending_approval", "executed": false})
		if got := a.call("list_contacts", `{}`); len(got["data"].([]any)) != 0 {
			t.Errorf("before the decision: got %v, want no contact", got)
		}
		stored, err := w.db.Approval(t.Context(), w.workspace.ID, id)
		if err != nil {
			t.Fatal(err)
		}
		// The official client writes the arguments without the white space.
		if r := stored.Request; r.Door != "mcp" || r.Tool != "create_contact" || string(r.Body) != `{"first_name":"Ada","email":"ada@example.com","reason":"she wrote"}` {
			t.Errorf("the request is kept as %+v, %s", r, r.Body)
		}

		decided := make(chan error, 1)
		go func() {
			_, err := w.gate.Approve(context.Background(), decider, id, approvals.Seen{})
			decided <- err
		}()
		done := a.call("wait_for_approval", `{"id":"`+id+`"}`)
		if err := <-decided; err != nil {
			t.Fatal(err)
		}
		want(t, done, map[string]any{"status": "executed", "executed": true})
		contact, _ := done["data"].(map[string]any)
		want(t, contact, map[string]any{"first_name": "Ada"})
		got := a.call("get_contact", fmt.Sprintf(`{"id":%q}`, contact["id"]))
		want(t, got["data"].(map[string]any), map[string]any{"first_name": "Ada", "email": "ada@example.com"})

		edit := idOf(t, a.call("create_contact", `{"first_name":"Bob"}`))
		if _, err := w.gate.Approve(t.Context(), decider, edit, approvals.Seen{Edited: json.RawMessage(`{"first_name":"Robert"}`)}); err != nil {
			t.Fatal(err)
		}
		done = a.call("get_approval", `{"id":"`+edit+`"}`)
		want(t, done, map[string]any{"status": "executed_with_edits", "executed": true})
		want(t, done["input"].(map[string]any), map[string]any{"first_name": "Bob"})
		want(t, done["edited_input"].(map[string]any), map[string]any{"first_name": "Robert"})

		no := idOf(t, a.call("create_contact", `{"first_name":"Eve"}`))
		if _, err := w.gate.Reject(t.Context(), decider, no, "not a customer"); err != nil {
			t.Fatal(err)
		}
		want(t, a.call("wait_for_approval", `{"id":"`+no+`"}`), map[string]any{"status": "rejected", "executed": false, "decision_reason": "not a customer"})
		want(t, a.call("create_contact", `{"first_name":"Eve"}`), map[string]any{"status": "rejected", "executed": false})

		back := idOf(t, a.call("create_contact", `{"first_name":"Mallory"}`))
		want(t, a.call("withdraw_approval", `{"id":"`+back+`"}`), map[string]any{"status": "withdrawn", "executed": false})
		want(t, a.call("withdraw_approval", `{"id":"`+back+`"}`)["error"].(map[string]any), map[string]any{"code": "CONFLICT"})
	})
}

func TestAgentSeesNothingOfOthers(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		mine, _ := w.key(access.Key{}, "contacts:write-approval")
		theirs, _ := w.key(access.Key{}, "contacts:write-approval")
		id := idOf(t, agent{t, connect(t, w.url, "", bearer{token: theirs})}.call("create_contact", `{"first_name":"Ada"}`))
		a := agent{t, connect(t, w.url, "", bearer{token: mine})}
		for _, tool := range []string{"get_approval", "wait_for_approval", "withdraw_approval"} {
			want(t, a.call(tool, `{"id":"`+id+`"}`)["error"].(map[string]any), map[string]any{"code": "NOT_FOUND"})
		}
	})
}

func TestFullAccessActsAtOnce(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		secret, _ := w.key(access.Key{FullAccess: true}, "")
		a := agent{t, connect(t, w.url, "", bearer{token: secret})}
		made := a.call("create_contact", `{"first_name":"Ada","metadata":{"a":1,"A":2}}`)
		want(t, made, map[string]any{"status": "executed", "executed": true})
		id := made["data"].(map[string]any)["id"].(string)
		want(t, a.call("update_contact", `{"id":"`+id+`","last_name":"Lovelace"}`), map[string]any{"status": "executed"})
		found := a.call("search", `{"query":"lovel"}`)
		if data, _ := found["data"].([]any); len(data) != 1 {
			t.Errorf("search: got %v, want the contact", found)
		}
		list := a.call("list_contacts", `{"limit":1}`)
		if data, _ := list["data"].([]any); len(data) != 1 || list["pagination"] == nil {
			t.Errorf("list: got %v, want the contact and where to go on", list)
		}
		bad := a.call("create_contact", `{"first_name":7,"surname":"x"}`)["error"].(map[string]any)
		if fields, _ := bad["fields"].([]any); len(fields) < 2 || bad["fix"] == "" {
			t.Errorf("wrong arguments: got %v, want each named with a fix", bad)
		}
		want(t, a.call("delete_contact", `{"id":"`+id+`"}`), map[string]any{"status": "executed", "executed": true})
		want(t, a.call("get_contact", `{"id":"`+id+`"}`)["error"].(map[string]any), map[string]any{"code": "NOT_FOUND"})
	})
}

func TestRightsHoldFromTheNextRequest(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		secret, g := w.key(access.Key{}, "contacts:read")
		session := connect(t, w.url, "", bearer{token: secret})
		waits := func() (listed, waits bool) {
			t.Helper()
			tools, err := session.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, tool := range tools.Tools {
				if tool.Name == "create_contact" {
					return true, strings.Contains(tool.Description, "Waits for approval")
				}
			}
			return false, false
		}
		for scopes, want := range map[string][2]bool{"contacts:read": {false, false}, "contacts:write-approval": {true, true}, "contacts:write": {true, false}} {
			k := *g.Key
			k.Scopes, _ = access.ParseScopes(scopes)
			if err := w.db.UpdateKey(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			if listed, queued := waits(); listed != want[0] || queued != want[1] {
				t.Errorf("%s: create_contact listed %t, waits %t, want %v", scopes, listed, queued, want)
			}
		}
		k := *g.Key
		k.RevokedAt = time.Now()
		if err := w.db.UpdateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if _, err := session.ListTools(t.Context(), nil); err == nil {
			t.Error("a revoked key still lists tools")
		}
	})
}
