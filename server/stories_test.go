package server_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/jobs/jobstest"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// The approvals list, and an approval's card in it.
const inbox = "/settings/api?tab=approvals"

// choose gives the select of the name a value.
func choose(name, value string) browsertest.Step {
	return chromedp.SetValue(chromedp.CSS(`select[name="`+name+`"]`), value)
}

// queued asks for a write with the key, and returns the approval's id.
func queued(t *testing.T, s *servertest.Server, key, method, path, body string) string {
	t.Helper()
	return s.Do(method, path, key, body).Want(t, 202).Text("approval.id")
}

// connect lets the browser's person allow the app what the steps choose, and
// returns the access and the refresh token.
func (a *app) connect(t *testing.T, s *servertest.Server, b *browsertest.Browser, steps ...browsertest.Step) (token, refresh string) {
	t.Helper()
	b.Do(browsertest.Open(a.authorize(s, "")), browsertest.See("button[value=allow]"))
	b.Do(steps...)
	b.Do(browsertest.Press("button[value=allow]"), browsertest.Leave("button[value=allow]"))
	got := a.token(t, s, url.Values{"grant_type": {"authorization_code"}, "code": {(<-a.returned).Get("code")}, "redirect_uri": {a.redirect},
		"code_verifier": {"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}}).Want(t, 200)
	return got.Text("access_token"), got.Text("refresh_token")
}

// token asks for a token.
func (a *app) token(t *testing.T, s *servertest.Server, form url.Values) servertest.Response {
	t.Helper()
	form.Set("client_id", a.id)
	return s.Do("POST", "/oauth/token", "", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// call calls a tool, and returns what it says: its status, and its text.
func call(t *testing.T, s *servertest.Server, token, tool, arguments string) (int, string) {
	t.Helper()
	got := s.Do("POST", "/mcp", token, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, tool, arguments),
		"Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2025-11-25")
	return got.Status, got.Text("result.content.0.text") + got.Text("error.message")
}

// tellPeople does the job that tells people of approvals, which is due.
func tellPeople(t *testing.T, s *servertest.Server) {
	t.Helper()
	if err := s.Desk.ExpectNotices(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(2 * time.Minute)
	for _, e := range jobstest.Do(t, s.DB, s.Clock.Now, admin.NoticeKind, s.Desk.Notices()) {
		if e.Err != nil {
			t.Fatal(e.Err)
		}
	}
}

// From an empty server to a record that an agent has made: set-up, key, the
// agent's call, the badge, the e-mail, the card, Approve.
func TestFirstDay(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s, outbox, token := newcomer(t, db)
		b := browsertest.New(t)
		b.Do(browsertest.Open(s.URL+"/setup?token="+url.QueryEscape(token)), browsertest.Fill("name", "Ada Lovelace"), browsertest.Fill("email", "ada@example.com"),
			browsertest.Fill("password", pagesPassword), browsertest.Press("main button.primary"), browsertest.See(".frame"))
		b.Look("home-first")
		b.Follow(`.side a[href="/settings/api?tab=keys"]`, `main a[href="/settings/api/keys/new"]`)
		b.Do(browsertest.Fill("name", "First agent"))
		b.Follow("main button.primary")
		key := b.Text("#secret")
		b.Follow(`main a[href^="/settings/api/keys/"]`, `.side a[href="/"]`)
		b.Do(browsertest.See("#home-waiting"))

		id := queued(t, s, key, "POST", "/v1/contacts", `{"first_name":"Grace","last_name":"Hopper","reason":"She asked for an offer."}`)
		b.Do(browsertest.See(`.side [data-live=waiting]`), browsertest.See("#home-waiting a.primary")) // without a reload
		b.Look("home-waiting")

		tellPeople(t, s)
		mail := strings.Join(sendMail(t, s, outbox), "\n")
		link := regexp.MustCompile(regexp.QuoteMeta(s.URL) + `/\S*` + id).FindString(mail)
		if link == "" || !strings.Contains(mail, "ada@example.com") || !strings.Contains(mail, "Grace Hopper") {
			t.Fatalf("got %s, want a link to the card", mail)
		}
		// Who is logged out comes to the card by the login.
		b.Do(browsertest.Press("form[action='/logout'] button"), browsertest.See("input[name=password]"), browsertest.Open(link), browsertest.See("input[name=password]"),
			browsertest.Fill("email", "ada@example.com"), browsertest.Fill("password", pagesPassword), browsertest.Press("main button.primary"), browsertest.See("#card"))
		if got := b.Text("#card"); !strings.Contains(got, "Grace") || !strings.Contains(got, "She asked for an offer.") || !strings.Contains(got, "Creates the contact “Grace Hopper”") || !strings.Contains(got, "First agent") {
			t.Errorf("the card: %q", got)
		}
		b.Do(browsertest.Press(`#card button[data-key=a]`), browsertest.See(".notice.good"), browsertest.Leave(`.side [data-live=waiting]:not([hidden])`))
		done := s.Do("GET", "/v1/approvals/"+id, key, "").Want(t, 200)
		if done.Text("data.execution") != "done" || done.Text("data.decided_by.name") != "Ada Lovelace" {
			t.Errorf("approved: got %s", done.Body)
		}
		if got := s.Do("GET", "/v1/contacts", key, "").Want(t, 200); got.Len("data") != 1 || got.Text("data.0.last_name") != "Hopper" {
			t.Errorf("contacts: got %s", got.Body)
		}
		b.Behaved(s.URL + "/")
	})
}

// A rejection reaches the agent's webhook, and the log on the page tells of it.
func TestWebhookOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		hook := servertest.NewReceiver(t)
		scopes := []string{"contacts:write-approval"}
		key, keyID := s.AddKey(admin.KeyInput{Name: new("Night sync"), Scopes: &scopes, WebhookURL: &hook.URL})
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/settings/api/keys/"+keyID)
		b.Do(browsertest.Press(`a[href$="/webhook"]`), browsertest.See("form[action$='/test']"))
		b.Look("deliveries-empty")
		id := queued(t, s, key, "POST", "/v1/contacts", `{"first_name":"Grace"}`)
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.Press("#rejecting summary"), browsertest.Press(`#rejecting .quick label:nth-of-type(1)`),
			browsertest.Fill("reason", "\"Grace\" <is> known\u200b already."), browsertest.Press("#rejecting button"), browsertest.See(".notice.good"))
		first := hook.Next()
		var told struct {
			Type string
			Data struct{ Reason string }
		}
		if err := json.Unmarshal(first.Body, &told); err != nil || told.Type != "approval.rejected" || !strings.Contains(told.Data.Reason, "\"Grace\" <is> known") {
			t.Errorf("got %s (%v), want the rejection", first.Body, err)
		}
		delivered := fmt.Sprintf("%s/settings/api/keys/%s/webhook", s.URL, keyID)
		b.Do(browsertest.Open(delivered), browsertest.See("tbody tr"))
		for got := b.Text("tbody"); !strings.Contains(got, "200"); got = b.Text("tbody") { // the answer is stored after it came
			b.Do(browsertest.Open(delivered), browsertest.See("tbody tr"))
		}
		b.Look("deliveries")
		b.Do(browsertest.Press("tbody form[action$='/resend'] button"), browsertest.See(".notice.good"))
		if again := hook.Next(); string(again.Body) != string(first.Body) {
			t.Errorf("sent again: got %s, want %s", again.Body, first.Body)
		}
		b.Do(browsertest.Press("form[action$='/test'] button"), browsertest.See(".notice.good"))
		if test := hook.Next(); !strings.Contains(string(test.Body), `"webhook.test"`) && !strings.Contains(string(test.Body), "test") {
			t.Errorf("test event: got %s", test.Body)
		}
		b.Do(browsertest.Press("form[action$='/rotate'] button"), browsertest.See("#secret, .secret code"))
		b.Look("webhook-secret")
		b.Behaved(s.URL + "/")
	})
}

// What is lent runs without asking, until it is taken back.
func TestLoanOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		b := browsertest.New(t)
		id := queued(t, s, s.Agent, "POST", "/v1/contacts", `{"first_name":"One"}`)
		logIn(b, s, "robin@example.com", inbox+"&approval="+id)
		b.Do(choose("minutes", "15"), browsertest.Press("form[action$='/lend'] button"), browsertest.See(".notice.good"))
		b.Look("lent")
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Two"}`).Want(t, 201)
		s.Do("POST", "/v1/tasks", s.Agent, `{"title":"Other"}`).Want(t, 202) // is not lent
		b.Do(browsertest.Open(s.URL+"/settings/api/keys/"+s.AgentID), browsertest.See(".lent"))
		if got := b.Text(".lent"); !strings.Contains(got, "Robin Hale") || !strings.Contains(got, "2 of 25") && !strings.Contains(got, "1 of 25") {
			t.Errorf("lent: got %q", got)
		}
		b.Look("key-lent")
		b.Do(browsertest.Press(".lent button"), browsertest.See(".notice.good"))
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Three"}`).Want(t, 202)

		// It ends by itself too.
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+queued(t, s, s.Agent, "POST", "/v1/contacts", `{"first_name":"Four"}`)), choose("minutes", "15"),
			browsertest.Press("form[action$='/lend'] button"), browsertest.See(".notice.good"))
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Five"}`).Want(t, 201)
		s.Clock.Advance(16 * time.Minute)
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Six"}`).Want(t, 202)
		b.Behaved(s.URL + "/")
	})
}

// An agent asks for a loan, a person lends for a shorter time, and it ends by
// itself: with its uses, and with its time.
func TestLoanRequestOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		addPerson(t, s, "priya@example.com", "Priya Nair")
		b := browsertest.New(t)
		ask := func(token, resource string) string {
			t.Helper()
			status, text := call(t, s, token, "request_access", `{"resource":"`+resource+`","verb":"write","minutes":480,"why":"300 contacts are to be cleaned."}`)
			id := regexp.MustCompile(`apr_\w+`).FindString(text)
			if status != 200 || id == "" || !strings.Contains(text, "pending_approval") {
				t.Fatalf("asked for a loan: got %d %s, want an approval", status, text)
			}
			return id
		}
		id := ask(s.Agent, "contacts")
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Early"}`).Want(t, 202)
		logIn(b, s, "robin@example.com", inbox+"&approval="+id)
		if got := b.Text("#card"); !strings.Contains(got, "Lend “write of contacts”") || !strings.Contains(got, "create_contact, update_contact") ||
			!strings.Contains(got, "25") || !strings.Contains(got, "480") || !strings.Contains(got, "300 contacts are to be cleaned.") || strings.Contains(got, "Edit") && !strings.Contains(got, "Lend a") {
			t.Errorf("the card says %q", got)
		}
		b.Look("card-loan")
		b.Do(chromedp.KeyEvent("e"), browsertest.See("select[name='v.minutes']"))
		if got := b.Text("main"); strings.Contains(got, "Verb") || strings.Contains(got, "Why") {
			t.Errorf("the form to edit says %q, want only the minutes", got)
		}
		b.Look("edit-loan")
		b.Do(choose("v.minutes", "15"))
		b.Follow("main button.primary")
		b.Look("card-loan-lent")
		if got := b.Text("#card"); !strings.Contains(got, "until") || !strings.Contains(got, "Approved with changes, and done") {
			t.Errorf("the card then says %q", got)
		}
		if _, text := call(t, s, s.Agent, "get_approval", `{"id":"`+id+`"}`); !strings.Contains(text, "executed_with_edits") || !strings.Contains(text, `"uses":25`) || !strings.Contains(text, s.Clock.Now().Add(15*time.Minute).UTC().Format("2006-01-02T15:04")) {
			t.Errorf("the agent is told %s", text)
		}
		for i := range 25 {
			s.Do("POST", "/v1/contacts", s.Agent, fmt.Sprintf(`{"first_name":"N%d"}`, i)).Want(t, 201)
		}
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Over"}`).Want(t, 202)
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+ask(s.Agent, "contacts")), browsertest.See("#card"), chromedp.KeyEvent("a"), browsertest.See(".notice.good"))
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Again"}`).Want(t, 201)
		s.Clock.Advance(8*time.Hour + time.Second)
		s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Late"}`).Want(t, 202)

		// A member lends to their own app what only their own consent holds back.
		member := browsertest.New(t)
		logIn(member, s, "priya@example.com", "/connections")
		token, _ := newApp(t, s, "Mailbot").connect(t, s, member)
		own := ask(token, "contacts")
		member.Do(browsertest.Open(s.URL+inbox+"&approval="+own), browsertest.See("#card"), chromedp.KeyEvent("a"), browsertest.See(".notice.good"))
		if status, text := call(t, s, token, "create_contact", `{"first_name":"Grace"}`); status != 200 || !strings.Contains(text, `"executed"`) {
			t.Errorf("lent: got %d %s", status, text)
		}
		b.Behaved(s.URL + "/")
	})
}

// A member connects an app, an admin narrows it, the member decides what it asks
// for then, and the admin ends it.
func TestAppOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		addPerson(t, s, "priya@example.com", "Priya Nair")
		a := newApp(t, s, "Mailbot")
		member, robin := browsertest.New(t), browsertest.New(t)
		logIn(robin, s, "robin@example.com", "/settings/api?tab=clients")
		logIn(member, s, "priya@example.com", "/connections")
		token, refresh := a.connect(t, s, member, browsertest.Press(`input[name=preset][value=custom]`), browsertest.Press(`input[name="r.contacts"][value=write]`))
		member.Do(browsertest.Open(s.URL+"/connect"), browsertest.See("#last-call:not(.now)"))
		if status, text := call(t, s, token, "create_contact", `{"first_name":"Ada"}`); status != 200 || strings.Contains(text, "apr_") {
			t.Fatalf("within the consent: got %d %s", status, text)
		}
		member.Do(browsertest.See("#last-call.now"))
		member.Look("connect")

		robin.Do(browsertest.Open(s.URL+"/settings/api?tab=clients"), browsertest.See("tbody tr"))
		robin.Look("clients")
		robin.Do(browsertest.Press("tbody th a"), browsertest.See("form.keyform"))
		robin.Look("client")
		robin.Do(browsertest.Press(`a[href*="tab=tokens"]`), browsertest.See("tbody tr"))
		if got := robin.Text("tbody"); !strings.Contains(got, "Priya Nair") || !strings.Contains(got, "create_contact") {
			t.Errorf("tokens: got %q", got)
		}
		robin.Look("tokens")
		robin.Follow(`a[href^="/settings/api/grants/"]`)
		robin.Look("token")
		robin.Do(browsertest.Press("input[name=preset][value=custom]"), browsertest.Press(`input[name="r.contacts"][value=write-approval]`))
		robin.Follow("main button.primary")

		status, text := call(t, s, token, "create_contact", `{"first_name":"Grace"}`)
		id := regexp.MustCompile(`apr_\w+`).FindString(text)
		if status != 200 || id == "" {
			t.Fatalf("narrowed: got %d %s, want an approval", status, text)
		}
		member.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("#card"))
		member.Look("card-own")
		member.Do(chromedp.KeyEvent("a"), browsertest.See(".notice.good"))
		if _, text := call(t, s, token, "get_approval", `{"id":"`+id+`"}`); !strings.Contains(text, "status: executed") || !strings.Contains(text, "Grace") {
			t.Errorf("decided: got %s, want it done", text)
		}

		robin.Do(browsertest.Press(`form[action$="/revoke"] button`), browsertest.See(".badge.bad"))
		robin.Look("tokens-revoked")
		if status, _ := call(t, s, token, "create_contact", `{"first_name":"No"}`); status != 401 {
			t.Errorf("revoked: got %d, want 401", status)
		}
		if got := a.token(t, s, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}); got.Status != 400 {
			t.Errorf("refresh after the revocation: got %d, want 400", got.Status)
		}
		for _, b := range []*browsertest.Browser{member, robin} {
			b.Behaved(s.URL+"/", strings.TrimSuffix(a.redirect, "callback"))
		}
	})
}

// An admin registers a client, which gets its secret once.
func TestClientOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/settings/api?tab=clients")
		b.Look("clients-empty")
		b.Do(browsertest.Press(`a[href="/settings/api/clients/new"]`), browsertest.See("form.keyform"))
		b.Look("client-new")
		b.Do(browsertest.Fill("name", "Night service"), browsertest.Press("input[name=client_credentials], input[name=itself]"), browsertest.Press("main button.primary"), browsertest.See("#secret, [role=alert]"))
		b.Look("client-reveal")
		c := &service{s, b.Text("#client-id"), b.Text("#secret")}
		token := c.token(t, s.URL)
		s.Do("GET", "/v1/me", token, "").Want(t, 200)
		b.Do(browsertest.Press(`main a[href^="/settings/api/clients/"]`), browsertest.See("form[action$='/rotate']"), browsertest.Press("a[href$='/delete']"), browsertest.See("button.danger"))
		b.Look("client-delete")
		b.Do(browsertest.Fill("name", "Night service"), browsertest.Press("button.danger"), browsertest.See(".notice.good"))
		s.Do("GET", "/v1/me", token, "").Want(t, 401)
		b.Behaved(s.URL + "/")
	})
}

// The switch that stops all agents holds on another server too, at both doors,
// and people see it on every page.
func TestPauseOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		other := servertest.Join(t, s, servertest.Options{})
		addAdmin(t, s)
		b := browsertest.New(t)
		id := queued(t, s, s.Agent, "POST", "/v1/contacts", `{"first_name":"One"}`)
		logIn(b, s, "robin@example.com", "/settings/api?tab=keys")
		b.Do(browsertest.Press(`a[href="/settings/pause"]`), browsertest.See("main button.danger"))
		b.Look("pause")
		b.Do(browsertest.Press("main button.danger"), browsertest.See("main form[action='/settings/resume']"))
		b.Look("paused")
		for _, at := range []*servertest.Server{s, other} {
			if got := at.Do("GET", "/v1/contacts", s.Agent, "").Want(t, 403); got.Text("error.code") != "PAUSED" {
				t.Errorf("REST: got %s", got.Body)
			}
			if status, text := call(t, at, s.Agent, "list_contacts", `{}`); status != 403 && !strings.Contains(text, "pause") {
				t.Errorf("MCP: got %d %s, want it refused", status, text)
			}
		}
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("#card"))
		if got := b.Text("body"); !strings.Contains(got, "All agents are paused by Robin Hale") {
			t.Errorf("the frame does not say that agents are paused: %q", got)
		}
		b.Look("card-paused")
		b.Do(browsertest.See("#card button[data-key=a][disabled]"))
		if got := s.Do("GET", "/v1/approvals/"+id, s.Full, ""); got.Status != 403 {
			t.Errorf("a full key reads while all are paused: got %d", got.Status)
		}
		b.Follow(".paused a", "form[action='/settings/resume'] button")
		other.Do("GET", "/v1/contacts", s.Agent, "").Want(t, 200)
		if got := s.Do("GET", "/v1/approvals/"+id, s.Agent, "").Want(t, 200); got.Text("data.status") != "pending" {
			t.Errorf("what was asked: got %s, want it to wait still", got.Body)
		}

		// One key alone.
		b.Do(browsertest.Open(s.URL+"/settings/api/keys/"+s.AgentID), browsertest.Press("form[action='/settings/pause'] button"), browsertest.See("form[action='/settings/resume']"))
		other.Do("GET", "/v1/contacts", s.Agent, "").Want(t, 403)
		other.Do("GET", "/v1/contacts", s.Full, "").Want(t, 200)
		b.Do(browsertest.Open(s.URL+"/settings/pause"), browsertest.See("main table"))
		b.Look("paused-singly")
		b.Do(browsertest.Press("main table button"), browsertest.See(".notice.good"))
		other.Do("GET", "/v1/contacts", s.Agent, "").Want(t, 200)
		b.Behaved(s.URL + "/")
	})
}

// A member sees what is theirs, and is told who may do the rest.
func TestMemberOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		robin := addAdmin(t, s)
		addPerson(t, s, "priya@example.com", "Priya Nair")
		id := queued(t, s, s.Agent, "POST", "/v1/contacts", `{"first_name":"Secret Person"}`)
		b := browsertest.New(t)
		logIn(b, s, "priya@example.com", "/")
		b.Look("home-member")
		if got := b.Text(".side"); strings.Contains(got, "API and agents") || strings.Contains(got, "Billing") {
			t.Errorf("navigation: got %q, want nothing of the admins'", got)
		}
		b.Do(browsertest.Open(s.URL+inbox), browsertest.See("#inbox"))
		b.Look("approvals-member")
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("main"))
		if got := b.Text("body"); strings.Contains(got, "Secret Person") {
			t.Errorf("a member sees what is not theirs: %q", got)
		}
		b.Do(browsertest.Open(s.URL+"/settings/api/keys/"+s.AgentID), browsertest.See("h1"))
		if got := b.Text("main"); !strings.Contains(got, "Only owners and admins") {
			t.Errorf("an admin's page: got %q", got)
		}
		b.Look("not-allowed")
		// Nor by a form that is sent by hand.
		for _, path := range []string{"/settings/pause", "/settings/approvals", "/settings/api/keys/" + s.AgentID + "/revoke", "/settings/api/approvals/" + id + "/approve",
			"/settings/api/approvals/" + id + "/lend", "/settings/api/approvals/" + id + "/assign", "/settings/api/clients/new", "/settings/api/registration"} {
			status := browsertest.Get(b, chromedp.Evaluate[int](fmt.Sprintf(`fetch(%q, {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: "user=%s&minutes=15"}).then(r => r.status)`,
				path, robin.ID), chromedp.EvalAwaitPromise))
			if status != 403 && status != 404 {
				t.Errorf("POST %s by a member: got %d, want it refused", path, status)
			}
		}
		if got := s.Do("GET", "/v1/approvals/"+id, s.Agent, "").Want(t, 200); got.Text("data.status") != "pending" {
			t.Errorf("after all that: got %s", got.Body)
		}
		b.Behaved(s.URL + "/")
	})
}

// On the Free plan the pages say why nothing works, and lead to the plans.
func TestFreePlanOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		w := s.Workspace
		w.Plan = access.Free
		if err := s.Desk.UpdateWorkspace(t.Context(), admin.OperatorGrant(w), w); err != nil {
			t.Fatal(err)
		}
		if got := s.Do("GET", "/v1/me", s.Agent, "").Want(t, 403); got.Text("error.code") != "PLAN_REQUIRED" {
			t.Errorf("got %s", got.Body)
		}
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/settings/api?tab=keys")
		b.Look("keys-free")
		b.Do(browsertest.Press(`main a[href="/settings/billing"]`), browsertest.See("#plan"))
		b.Look("billing-free")
		command := strings.Fields(b.Text("#plan"))
		if want := "trustpager workspace plan " + w.ID + " pro"; strings.Join(command, " ") != want {
			t.Errorf("the command: got %q, want %q", command, want)
		}
		addPerson(t, s, "priya@example.com", "Priya Nair")
		member := browsertest.New(t)
		logIn(member, s, "priya@example.com", "/")
		if got := member.Text("main"); !strings.Contains(got, "Ask an admin of the workspace") || strings.Contains(got, "See the plans") {
			t.Errorf("a member on the Free plan: got %q", got)
		}
		w.Plan = access.Pro
		if err := s.Desk.UpdateWorkspace(t.Context(), admin.OperatorGrant(w), w); err != nil {
			t.Fatal(err)
		}
		s.Do("GET", "/v1/me", s.Agent, "").Want(t, 200)
		b.Do(browsertest.Open(s.URL+"/settings/billing"), browsertest.Leave("#plan"))
		b.Look("billing")
		b.Behaved(s.URL + "/")
	})
}

// Two admins decide together, one is asked by name, and what always asks is set.
func TestRulesOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		hash, err := access.HashPassword(pagesPassword)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), "sam@example.com", "Sam Okoro", hash, access.Admin); err != nil {
			t.Fatal(err)
		}
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"At once"}`).Want(t, 201)
		robin, sam := browsertest.New(t), browsertest.New(t)
		logIn(robin, s, "robin@example.com", "/settings/approvals")
		robin.Look("rules")
		robin.Do(browsertest.Press("input[name=four_eyes]"), browsertest.Press(`input[name=always_ask][value="contacts:write"]`), browsertest.Press("main button.primary"), browsertest.See(".notice.good"))
		id := queued(t, s, s.Full, "POST", "/v1/contacts", `{"first_name":"Marked"}`)
		robin.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("#card"))
		robin.Do(choose("user", optionOf(robin, "select[name=user]", "Sam")))
		robin.Follow("form[action$='/assign'] button")
		logIn(sam, s, "sam@example.com", inbox)
		if got := sam.Text("#inbox"); !strings.Contains(got, "yours") {
			t.Errorf("the list of whom it is assigned to: got %q", got)
		}
		robin.Follow("#card button[data-key=a]")
		if got := s.Do("GET", "/v1/approvals/"+id, s.Full, "").Want(t, 200); got.Text("data.status") != "pending" {
			t.Errorf("after one yes: got %s, want it to wait", got.Body)
		}
		sam.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("#card .notice.wait"))
		sam.Look("card-second")
		sam.Do(choose("hours", optionOf(sam, "select[name=hours]", "")))
		sam.Follow("form[action$='/extend'] button", "#card button[data-key=a]")
		if got := s.Do("GET", "/v1/approvals/"+id, s.Full, "").Want(t, 200); got.Text("data.execution") != "done" {
			t.Errorf("after two: got %s, want it done", got.Body)
		}
		robin.Behaved(s.URL + "/")
		sam.Behaved(s.URL + "/")
	})
}

// optionOf returns the value of the last option whose title has the words.
func optionOf(b *browsertest.Browser, selector, words string) string {
	return browsertest.Get(b, chromedp.Evaluate[string](fmt.Sprintf(`[...document.querySelector(%q).options].filter(o => o.text.includes(%q)).at(-1).value`, selector, words)))
}

// The line on the page that tells how to connect turns green at the first call.
func TestConnectOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/connect")
		b.Do(browsertest.See("#last-call:not(.now)"))
		b.Look("connect-quiet")
		for _, client := range []string{"claude", "claude-code", "cursor", "vscode", "chatgpt", "stdio", "curl"} {
			b.Do(browsertest.Press(`main a[href="/connect?client=`+client+`"]`), browsertest.See(`main a[href="/connect?client=`+client+`"][aria-current]`))
			if got := b.Text("main"); !strings.Contains(got, s.URL) {
				t.Errorf("%s: got %q, want this server's address", client, got)
			}
			if client == "stdio" { // what is to be pasted is longest there
				b.Look("connect-stdio")
			}
		}
		s.Do("GET", "/v1/contacts", s.Agent, "").Want(t, 200)
		b.Do(browsertest.See("#last-call.now"))
		if got := b.Text("#last-call"); !strings.Contains(got, "agent") || !strings.Contains(got, "list_contacts") {
			t.Errorf("the line: got %q", got)
		}
		b.Behaved(s.URL + "/")
	})
}

// A form acts in the workspace that its page was about, whatever workspace its
// person has gone to meanwhile.
func TestFormsActWhereTheyWereShown(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		robin := addAdmin(t, s)
		second, err := s.Desk.CreateWorkspace(t.Context(), "Second", "UTC")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(second), robin.Email, "", "", access.Admin); err != nil {
			t.Fatal(err)
		}
		id := queued(t, s, s.Agent, "POST", "/v1/contacts", `{"first_name":"One"}`)
		b := browsertest.New(t)
		logIn(b, s, robin.Email, "/")
		for _, to := range []string{s.Workspace.ID, second.ID} { // the first was the second, by its name
			b.Do(browsertest.Press(".switch summary"))
			b.Follow(".switch button[value='" + to + "']")
		}
		b.Do(browsertest.Open(s.URL+"/settings/pause"), browsertest.See("main button.danger"))
		b.Look("pause-second")
		// Another window goes to an approval of the first workspace.
		elsewhere := browsertest.Get(b, chromedp.Evaluate[string](fmt.Sprintf(`fetch(%q).then(r => r.text())`, inbox+"&approval="+id), chromedp.EvalAwaitPromise))
		if !strings.Contains(elsewhere, `data-in="`+s.Workspace.ID+`"`) {
			t.Error("the link does not lead into the approval's workspace")
		}
		b.Follow("main button.danger")
		for workspace, want := range map[string]bool{s.Workspace.ID: false, second.ID: true} {
			w, err := s.DB.Workspace(t.Context(), workspace)
			if err != nil {
				t.Fatal(err)
			}
			if _, paused := w.AllPaused(); paused != want {
				t.Errorf("%s is paused: %v, want %v", w.Name, paused, want)
			}
		}
		if got := b.Text(".side .brand"); got != "Second" {
			t.Errorf("after the form: in %q, want Second", got)
		}
		// Who has left the workspace of the page changes nothing.
		b.Do(browsertest.See("main form[action='/settings/resume']"))
		if err := s.Desk.RemoveUser(t.Context(), admin.OperatorGrant(second), robin.Email); err != nil {
			t.Fatal(err)
		}
		b.Follow("main form[action='/settings/resume'] button")
		if got := b.Text("main"); !strings.Contains(got, "do not belong to the workspace of this page") {
			t.Errorf("after leaving: got %q", got)
		}
		b.Behaved(s.URL + "/")
	})
}

// Who edits is shown what there is now and what is not seen, and goes on deciding
// about what they were shown.
func TestEditStaysWithWhatWasSeen(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		ada := s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada","job_title":"Countess"}`).Want(t, 201).Text("data.id")
		id := queued(t, s, s.Agent, "PATCH", "/v1/contacts/"+ada, `{"job_title":"Ana\u202elyst","email":"ada@example.com"}`)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", inbox+"&approval="+id)
		b.Follow("a[data-key=e]")
		if got := b.Text("main"); !strings.Contains(got, "Now: Countess") || !strings.Contains(got, "U+202E") {
			t.Errorf("the form: got %q", got)
		}
		b.Look("edit-hidden")
		s.Do("PATCH", "/v1/contacts/"+ada, s.Full, `{"first_name":"Mallory"}`).Want(t, 200)
		b.Do(chromedp.Clear(chromedp.CSS(`[name="v.email"]`)), browsertest.Fill("v.email", "no address"))
		b.Follow("button.primary")
		b.Look("edit-refused")
		b.Do(chromedp.Clear(chromedp.CSS(`[name="v.email"]`)), browsertest.Fill("v.email", "ada@example.org"))
		b.Follow("button.primary")
		if got := b.Text("main"); !strings.Contains(got, "has changed since") {
			t.Errorf("after the target has changed: got %q", got)
		}
		if got := s.Do("GET", "/v1/approvals/"+id, s.Agent, "").Want(t, 200); got.Text("data.status") != "pending" {
			t.Errorf("got %s, want it to wait still", got.Body)
		}
		b.Behaved(s.URL + "/")
	})
}
