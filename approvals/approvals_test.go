package approvals_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/server"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
	"trustpager/webhook"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(storagetest.Run(m))
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
      status: {type: string}
`

// A world is the whole server on a fresh database, with one workspace.
type world struct {
	t     testing.TB
	db    *storage.DB
	clock *storagetest.Clock
	s     *server.Server
	gate  *approvals.Gate
	desk  *admin.Desk
	ws    access.Workspace
	op    access.Grant // the operator's
}

func newWorld(t testing.TB, db *storage.DB) *world {
	t.Helper()
	cat, err := catalog.Load(catalog.Source{Name: "extra.yaml", Data: []byte(extra)})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, db: db, clock: storagetest.NewClock()}
	w.s, err = server.New(t.Context(), db, storagetest.Key, cat, server.Config{BaseURL: "https://crm.example.com",
		WebhookNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Now: w.clock.Now})
	w.must(err)
	w.gate, w.desk = w.s.Gate, w.s.Desk
	w.ws = w.workspace("One")
	w.op = admin.OperatorGrant(w.ws)
	return w
}

func eachWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) { test(newWorld(t, db)) })
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) workspace(name string) access.Workspace {
	w.t.Helper()
	ws, err := w.desk.CreateWorkspace(w.t.Context(), name, "UTC")
	w.must(err)
	return ws
}

// agent is what a key may that stands on the preset recommended for agents.
const agent = "contacts:write-approval contacts:delete-approval customers:write-approval customers:delete-approval " +
	"products:write-approval products:delete-approval vaults:write-approval deals:read"

// key makes a key: "full", "decide" (full, may decide) or scopes, made by g.
func (w *world) keyBy(g access.Grant, rights string) access.Grant {
	w.t.Helper()
	name, yes := "key "+strings.Fields(rights)[0], true
	in := admin.KeyInput{Name: &name, Limits: &access.Limits{}}
	switch rights {
	case "full":
		in.FullAccess = &yes
	case "decide":
		in.FullAccess, in.MayDecide = &yes, &yes
	default:
		scopes := strings.Fields(rights)
		in.Scopes = &scopes
	}
	made, err := w.desk.CreateKey(w.t.Context(), g, in)
	w.must(err)
	return made.Key.Grant(g.Workspace)
}

func (w *world) key(rights string) access.Grant { w.t.Helper(); return w.keyBy(w.op, rights) }

// settings changes the workspace's, for grants that are made from now on.
func (w *world) settings(s access.Settings) {
	w.t.Helper()
	s.ApprovalTTL = max(s.ApprovalTTL, approvals.MinTTL)
	w.ws.Settings = s
	w.op = admin.OperatorGrant(w.ws)
	w.must(w.desk.UpdateWorkspace(w.t.Context(), w.op, w.ws))
}

// delegated is an OAuth client that acts for a user in the role, who is made if
// needed. "" for the user is a client that acts for itself.
func (w *world) delegated(user string, role access.Role, granted, ceiling string) access.Grant {
	w.t.Helper()
	ctx, now := w.t.Context(), w.clock.Now()
	if user != "" {
		if _, _, err := w.db.UserByID(ctx, user); problem.Is(err, problem.NotFound) {
			w.must(w.db.CreateUser(ctx, access.User{ID: user, Email: user + "@example.com", Name: user, CreatedAt: now}, ""))
		}
		w.must(w.db.SetMember(ctx, w.ws.ID, user, role, now))
	}
	c := oauth.Client{ID: typeid.NewID("cli"), Workspace: w.ws.ID, Origin: oauth.Registered, Name: "Client", AuthMethod: oauth.AuthBasic,
		RedirectURIs: []string{"https://client.example.com/callback"}, CreatedAt: now}
	w.must(w.db.CreateClient(ctx, c))
	_, err := w.db.EnsurePolicy(ctx, oauth.Policy{Workspace: w.ws.ID, Client: c.ID, Ceiling: scopes(w.t, ceiling), CreatedAt: now})
	w.must(err)
	gr, err := w.db.SaveGrant(ctx, oauth.Grant{ID: typeid.NewID("grt"), Workspace: w.ws.ID, Client: c.ID, User: user, Scopes: scopes(w.t, granted), CreatedAt: now, ConsentedAt: now})
	w.must(err)
	return w.today(gr.ID)
}

// today is what the OAuth credential may do now.
func (w *world) today(grant string) access.Grant {
	w.t.Helper()
	d, err := w.db.DelegationOf(w.t.Context(), w.ws.ID, grant)
	w.must(err)
	return d.Grant(nil, w.gate.Catalog.RoleRights)
}

func scopes(t testing.TB, text string) []access.Scope {
	t.Helper()
	all, err := access.ParseScopes(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// joining keeps tests with many people at once from seeing one who is no member
// yet.
var joining sync.Mutex

// person is somebody in the browser.
func (w *world) person(user string, rights access.Rights) access.Grant {
	w.t.Helper()
	role := access.Member
	if rights.Full() {
		role = access.Admin
	}
	// Who was there before may have left since, and stays away.
	joining.Lock()
	defer joining.Unlock()
	err := w.db.CreateUser(w.t.Context(), access.User{ID: user, Email: user + "@example.com", Name: user, CreatedAt: w.clock.Now()}, "")
	if err == nil {
		w.must(w.db.SetMember(w.t.Context(), w.ws.ID, user, role, w.clock.Now()))
	} else if !problem.Is(err, problem.Conflict) {
		w.t.Fatal(err)
	}
	return access.Grant{Principal: access.Principal{Kind: access.KindPerson, ID: user, Name: user, User: user}, Workspace: w.ws, Rights: rights}
}

// join makes the users admins of the workspace, for what looks at who decides.
func (w *world) join(users ...string) {
	w.t.Helper()
	for _, id := range users {
		err := w.db.CreateUser(w.t.Context(), access.User{ID: id, Email: id + "@example.com", Name: id, CreatedAt: w.clock.Now()}, "")
		if !problem.Is(err, problem.Conflict) {
			w.must(err)
		}
		w.must(w.db.SetMember(w.t.Context(), w.ws.ID, id, access.Admin, w.clock.Now()))
	}
}

func (w *world) admin() access.Grant { return w.person("usr_admin", access.FullRights) }

// do asks for the action over REST with the body, as a request with the
// further headers: an Idempotency-Key.
func (w *world) do(g access.Grant, action, id, body string, key ...string) (approvals.Outcome, error) {
	w.t.Helper()
	a, ok := w.s.Catalog.Find(action)
	if !ok {
		w.t.Fatalf("no action %s", action)
	}
	in := approvals.Incoming{ID: id, Input: json.RawMessage(body),
		Request: approvals.Request{Door: "rest", Method: a.Method, Path: "/v1" + strings.Replace(a.Path, "{id}", id, 1), Body: []byte(body)}}
	if len(key) > 0 {
		in.Request.IdempotencyKey = key[0]
	}
	return w.gate.Do(w.t.Context(), g, a, in)
}

// run does the action, which must run at once, and returns the target's id.
func (w *world) run(g access.Grant, action, id, body string, key ...string) string {
	w.t.Helper()
	out, err := w.do(g, action, id, body, key...)
	w.must(err)
	if out.Approval != nil {
		w.t.Fatalf("%s: got approval %s, want it run", action, out.Approval.ID)
	}
	return out.Result.Target.ID
}

// ask does the action, which must be queued.
func (w *world) ask(g access.Grant, action, id, body string, key ...string) approvals.Approval {
	w.t.Helper()
	out, err := w.do(g, action, id, body, key...)
	w.must(err)
	if out.Approval == nil {
		w.t.Fatalf("%s: got it run, want it queued", action)
	}
	return *out.Approval
}

// contact makes a contact and returns its id.
func (w *world) contact(first string) string {
	w.t.Helper()
	return w.run(w.op, "create_contact", "", fmt.Sprintf(`{"first_name":%q}`, first))
}

// exists reports whether the record is there, and its first name.
func (w *world) record(resource, id string) map[string]any {
	w.t.Helper()
	rec, err := w.db.Record(w.t.Context(), w.ws.ID, resource, id, false)
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	w.must(err)
	var body map[string]any
	w.must(json.Unmarshal(rec.Body, &body))
	return body
}

// named counts the contacts of a first name.
func (w *world) named(first string) int {
	w.t.Helper()
	out, err := w.do(w.admin(), "list_contacts", "", fmt.Sprintf(`{"first_name":%q,"limit":100}`, first))
	w.must(err)
	var list []any
	w.must(json.Unmarshal(out.Result.Data, &list))
	return len(list)
}

func (w *world) stored(id string) approvals.Approval {
	w.t.Helper()
	a, err := w.db.Approval(w.t.Context(), w.ws.ID, id)
	w.must(err)
	return a
}

// state checks where the approval stands, as "status execution".
func (w *world) state(id, want string) approvals.Approval {
	w.t.Helper()
	a := w.stored(id)
	if got := fmt.Sprintf("%s %s", a.Status, a.Execution); got != want {
		w.t.Errorf("state of %s: got %q, want %q (error: %v)", a.Action, got, want, a.Error)
	}
	return a
}

func (w *world) approve(g access.Grant, id string) (approvals.Approval, error) {
	return w.gate.Approve(w.t.Context(), g, id, approvals.Seen{})
}

// approved approves as an admin and checks the state.
func (w *world) approved(id, want string) approvals.Approval {
	w.t.Helper()
	a, err := w.approve(w.admin(), id)
	w.must(err)
	w.state(id, want)
	return a
}

// denied checks that err is of the kind and says the words.
func (w *world) denied(err error, kind problem.Kind, words string) {
	w.t.Helper()
	if !problem.Is(err, kind) || !strings.Contains(err.Error(), words) {
		w.t.Errorf("got %v, want %s with %q", err, kind, words)
	}
	if problem.Of(err).Fix == "" {
		w.t.Errorf("%v has no fix", err)
	}
}

// log returns the workspace's audit entries of the event, oldest first, and
// checks that the chain is sound.
func (w *world) log(event audit.Event) []audit.Entry {
	w.t.Helper()
	_, err := w.db.VerifyAudit(w.t.Context(), w.ws.ID)
	w.must(err)
	entries, err := w.db.AuditEntries(w.t.Context(), w.ws.ID, audit.Query{Event: event, Limit: 1000})
	w.must(err)
	for i, j := 0, len(entries)-1; i < j; i, j = i+1, j-1 {
		entries[i], entries[j] = entries[j], entries[i]
	}
	return entries
}

// hook gives the credential a webhook with the events.
func (w *world) hook(g access.Grant, events ...webhook.EventType) {
	w.t.Helper()
	url := "http://127.0.0.1:9999/hook"
	_, err := w.desk.UpdateKey(w.t.Context(), w.op, g.Principal.ID, admin.KeyInput{WebhookURL: &url, WebhookEvents: &events})
	w.must(err)
}

// A sent is the body of a delivery.
type sent struct {
	Type webhook.EventType `json:"type"`
	Data struct {
		Reason   string           `json:"reason"`
		Approval webhook.Approval `json:"approval"`
		Request  struct {
			Base64 []byte          `json:"body_base64"`
			Parsed json.RawMessage `json:"body"`
			Path   string          `json:"path"`
			Tool   string          `json:"tool"`
		} `json:"request"`
		DecidedBy *webhook.Actor  `json:"decided_by"`
		Result    json.RawMessage `json:"result"`
		Error     *struct {
			Code problem.Kind `json:"code"`
		} `json:"error"`
	} `json:"data"`
}

// deliveries returns what was sent to the credential's webhook, oldest first.
func (w *world) deliveries(g access.Grant) []sent {
	w.t.Helper()
	list, err := w.db.Deliveries(w.t.Context(), w.ws.ID, webhook.Query{Owner: g.Principal.ID, Limit: 100})
	w.must(err)
	var all []sent
	for i := len(list) - 1; i >= 0; i-- {
		d, err := w.db.Delivery(w.t.Context(), w.ws.ID, list[i].ID)
		w.must(err)
		var s sent
		w.must(json.Unmarshal(d.Body, &s))
		all = append(all, s)
	}
	return all
}

// expire does the expiry jobs that are due.
func (w *world) expire() {
	w.t.Helper()
	for {
		now := w.clock.Now()
		due, err := w.db.ClaimJobs(w.t.Context(), approvals.ExpireKind, now, now.Add(time.Minute), "test", 10)
		w.must(err)
		if len(due) == 0 {
			return
		}
		for _, j := range due {
			w.must(w.gate.Expire(w.t.Context(), j))
			w.must(w.db.FinishJob(w.t.Context(), j))
		}
	}
}
