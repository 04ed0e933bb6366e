package server_test

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// post sends a form to the path as the browser's person would by hand, and
// returns the status of the page that it leads to.
func post(b *browsertest.Browser, path, form string) int {
	return browsertest.Get(b, chromedp.Evaluate[int](fmt.Sprintf(`fetch(%q, {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: %q}).then(r => r.status)`,
		path, form), chromedp.EvalAwaitPromise))
}

// An admin invites two people, one of whom has an account; they come in by their
// links; one becomes an admin, and is removed with what they have made.
func TestUsersOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		outbox := filepath.Join(t.TempDir(), "outbox")
		s := servertest.New(t, db, servertest.Options{Config: func(c *server.Config) { c.Mail.Outbox = outbox }})
		addAdmin(t, s)
		other, err := s.Desk.CreateWorkspace(t.Context(), "Other", "UTC")
		if err != nil {
			t.Fatal(err)
		}
		hash, err := access.HashPassword(pagesPassword)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(other), "priya@example.com", "Priya Nair", hash, access.Member); err != nil {
			t.Fatal(err)
		}
		robin, grace, priya := browsertest.New(t), browsertest.New(t), browsertest.New(t)
		linkIn := regexp.MustCompile(regexp.QuoteMeta(s.URL) + `/invite\?token=\S+`)

		logIn(robin, s, "robin@example.com", "/settings/users")
		robin.Look("members")
		robin.Do(browsertest.Fill("email", "robin@example.com"))
		robin.Follow("form[action='/settings/users/invite'] button")
		if got := robin.Text("main [role=alert]"); !strings.Contains(got, "already") {
			t.Errorf("a member invited: got %q", got)
		}
		robin.Look("members-refused")
		robin.Do(chromedp.Clear(chromedp.CSS("[name=email]")), browsertest.Fill("email", "grace@example.com"), browsertest.Fill("name", "Grace"))
		robin.Follow("form[action='/settings/users/invite'] button")
		robin.Look("member-link")
		shown := robin.Text("#link")
		sent := sendMail(t, s, outbox)
		if len(sent) != 1 || linkIn.FindString(sent[0]) != shown || !strings.Contains(sent[0], "Robin Hale invites you") || !strings.Contains(sent[0], "grace@example.com") {
			t.Fatalf("got %q, want one message with the link %s", sent, shown)
		}
		robin.Follow(`main a[href="/settings/users"]`)
		robin.Look("members-invited")

		// Whoever is new chooses a name and a password.
		grace.Do(browsertest.Open(shown), browsertest.See("input[name=again]"))
		grace.Look("invite")
		if got := grace.Text("main"); !strings.Contains(got, "Robin Hale invites you") || !strings.Contains(got, "a member") {
			t.Errorf("the invitation: got %q", got)
		}
		grace.Do(chromedp.Clear(chromedp.CSS("[name=name]")), browsertest.Fill("name", "Grace Hopper"), browsertest.Fill("password", "short"), browsertest.Fill("again", "short"))
		grace.Follow("main button.primary")
		grace.Look("invite-weak")
		grace.Do(browsertest.Fill("password", pagesPassword), browsertest.Fill("again", pagesPassword))
		grace.Follow("main button.primary")
		if got := grace.Text("body"); !strings.Contains(got, "You belong to Test now.") || !strings.Contains(got, "Grace Hopper") || strings.Contains(got, "Members") {
			t.Errorf("after joining: got %q, want a member's page", got)
		}
		grace.Do(browsertest.Open(shown), browsertest.See(`main a[href="/login"]`))
		grace.Look("invite-used")
		for _, path := range []string{"/settings/users/invite", "/settings/users/cancel", "/settings/company", "/settings/users/x/remove"} {
			if status := post(grace, path, "email=x@example.com&role=owner"); status != 403 {
				t.Errorf("POST %s by a member: got %d, want 403", path, status)
			}
		}

		// Who has an account logs in first.
		robin.Do(browsertest.Open(s.URL+"/settings/users"), browsertest.Fill("email", "priya@example.com"))
		robin.Follow("form[action='/settings/users/invite'] button")
		link := linkIn.FindString(sendMail(t, s, outbox)[0])
		priya.Do(browsertest.Open(link), browsertest.See(`main a[href^="/login"]`))
		priya.Look("invite-known")
		priya.Do(browsertest.Press(`main a[href^="/login"]`), browsertest.See("input[name=password]"), browsertest.Fill("email", "priya@example.com"), browsertest.Fill("password", pagesPassword),
			browsertest.Press("main button.primary"), browsertest.See("form[action='/invite']"))
		priya.Look("invite-join")
		// Grace, who is logged in as somebody else, cannot take it.
		grace.Do(browsertest.Open(link), browsertest.See("main form[action='/logout']"))
		grace.Look("invite-other")
		token := strings.TrimPrefix(link, s.URL+"/invite?token=")
		post(grace, "/invite", "token="+token)
		priya.Follow("main form[action='/invite'] button")
		if got := priya.Text(".side .brand"); got != "Test" {
			t.Errorf("after joining: in %q, want Test", got)
		}

		// Priya becomes an admin, makes keys, and is removed.
		robin.Do(browsertest.Open(s.URL + "/settings/users"))
		robin.Look("members-three")
		robin.Do(browsertest.Press(memberLink(robin, "Priya")), browsertest.See("select[name=role]"))
		robin.Look("member")
		page := robin.URL()
		robin.Do(choose("role", "admin"))
		robin.Follow("form[action$='/role'] button")
		if got := robin.Text(".notice.good"); !strings.Contains(got, "an admin now") {
			t.Errorf("another role: got %q", got)
		}
		person, err := s.Desk.Person(t.Context(), page[strings.LastIndex(page, "/")+1:])
		if err != nil {
			t.Fatal(err)
		}
		hers, err := s.Desk.PersonGrant(person, s.Workspace.ID)
		if err != nil {
			t.Fatal(err)
		}
		key := func(name string) (secret, id string) {
			made, err := s.Desk.CreateKey(t.Context(), hers, admin.KeyInput{Name: &name, FullAccess: new(true), Limits: &access.Limits{}})
			if err != nil {
				t.Fatal(err)
			}
			return string(made.Secret), made.Key.ID
		}
		ends, _ := key("Ends <b>\u202e")
		kept, keptID := key("Goes on")
		a := newApp(t, s, "Mailbot")
		priya.Do(browsertest.Open(a.authorize(s, "")+"&workspace="+s.Workspace.ID), browsertest.See("button[value=allow]"), browsertest.Press(`input[name=preset][value=read]`),
			browsertest.Press("button[value=allow]"), browsertest.Leave("button[value=allow]"))
		app := a.token(t, s, url.Values{"grant_type": {"authorization_code"}, "code": {(<-a.returned).Get("code")}, "redirect_uri": {a.redirect},
			"code_verifier": {"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}}).Want(t, 200).Text("access_token")
		s.Do("POST", "/v1/tasks", s.Full, `{"title":"Call","assignee_id":"`+person.User.ID+`"}`).Want(t, 201)

		robin.Do(browsertest.Open(page), choose("role", "member"))
		robin.Follow("form[action$='/role'] button")
		if got := robin.Text("main"); !strings.Contains(got, "Goes on") || !strings.Contains(got, "a member?") {
			t.Errorf("before it ends something: got %q", got)
		}
		robin.Look("member-demote")
		robin.Do(browsertest.Open(page+"/remove"), browsertest.See("input[name=keep]"))
		robin.Look("member-remove")
		if got := robin.Text("main"); !strings.Contains(got, "U+202E") || !strings.Contains(got, "Mailbot") || !strings.Contains(got, "Tasks: 1") {
			t.Errorf("what ends: got %q", got)
		}
		s.Do("GET", "/v1/me", ends, "").Want(t, 200)
		if status, text := call(t, s, app, "list_contacts", `{}`); status != 200 {
			t.Errorf("her app before: got %d %s", status, text)
		}
		robin.Do(browsertest.Press(`input[name=keep][value="` + keptID + `"]`))
		robin.Follow("button.danger")
		if got := robin.Text(".notice.good"); !strings.Contains(got, "Priya Nair is removed") || !strings.Contains(got, "1 credential ended") || !strings.Contains(got, "1 app disconnected") {
			t.Errorf("removed: got %q", got)
		}
		s.Do("GET", "/v1/me", ends, "").Want(t, 401)
		s.Do("GET", "/v1/me", kept, "").Want(t, 200)
		if status, _ := call(t, s, app, "list_contacts", `{}`); status != 401 {
			t.Errorf("her app: got %d, want 401", status)
		}
		// Her next request is about the workspace that she still has, and reaches
		// nothing of the one that she has left.
		priya.Do(browsertest.Open(s.URL + "/settings/users"))
		if got := priya.Text("body"); !strings.Contains(got, "Only owners and admins") || strings.Contains(got, "Grace") {
			t.Errorf("the removed person's next request: got %q", got)
		}
		if status := post(priya, "/settings/users/invite", "in="+s.Workspace.ID+"&email=again@example.com&role=admin&once=x"); status != 403 {
			t.Errorf("a form about the workspace that she has left: got %d, want 403", status)
		}

		// The last owner stays, and links that are taken back do not hold.
		robin.Do(browsertest.Open(s.URL + "/settings/users"))
		robin.Do(browsertest.Press(memberLink(robin, "Robin")), browsertest.See("select[name=role]"))
		robin.Follow(`a[href$="/remove"]`)
		if got := robin.Text(".notice.bad"); !strings.Contains(got, "last owner") {
			t.Errorf("the last owner leaves: got %q", got)
		}
		robin.Do(browsertest.Open(s.URL+"/settings/users"), browsertest.Fill("email", "late@example.com"))
		robin.Follow("form[action='/settings/users/invite'] button")
		first := robin.Text("#link")
		robin.Follow(`main a[href="/settings/users"]`, "form[action='/settings/users/resend'] button")
		second := robin.Text("#link")
		grace.Do(browsertest.Open(first), browsertest.See(`main a[href="/login"]`), browsertest.Open(second), browsertest.See("input[name=again]"))
		robin.Follow(`main a[href="/settings/users"]`, "form[action='/settings/users/cancel'] button")
		grace.Do(browsertest.Open(second), browsertest.See(`main a[href="/login"]`))

		// Forms that no page has.
		for _, form := range []string{"", "email=&role=", "email=%00&role=admin", "email=a@example.com&role=king", "email=a@example.com&name=a%07b&role=member", "email=" + strings.Repeat("a", 400) + "@example.com&role=member"} {
			if status := post(robin, "/settings/users/invite", form+"&once="+url.QueryEscape("o"+form[:min(len(form), 40)])); status != 422 {
				t.Errorf("the form %.60q: got %d, want 422", form, status)
			}
		}
		for _, path := range []string{"/settings/users/usr_x", "/settings/users/%00", "/settings/users/" + strings.Repeat("x", 2000)} {
			if status := browsertest.Get(robin, chromedp.Evaluate[int](fmt.Sprintf(`fetch(%q).then(r => r.status)`, path), chromedp.EvalAwaitPromise)); status != 404 {
				t.Errorf("GET %.60s: got %d, want 404", path, status)
			}
		}
		if users, err := s.DB.Users(t.Context(), s.Workspace.ID); err != nil || len(users) != 2 {
			t.Errorf("after all that: got %v, %v, want Robin and Grace", users, err)
		}
		for _, b := range []*browsertest.Browser{robin, grace, priya} {
			b.Behaved(s.URL+"/", strings.TrimSuffix(a.redirect, "callback"))
		}
	})
}

// memberLink is the link of the member whose name begins so.
func memberLink(b *browsertest.Browser, name string) string {
	path := browsertest.Get(b, chromedp.Evaluate[string](fmt.Sprintf(`[...document.querySelectorAll("tbody th a")].find(a => a.textContent.startsWith(%q)).getAttribute("href")`, name)))
	return `main a[href="` + path + `"]`
}

// An owner changes name, time zone and cap; what an agent proposes of it shows on
// a card; and Billing tells what is used.
func TestCompanyOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/settings/company")
		b.Look("company")
		fill := func(name, value string) browsertest.Step {
			return chromedp.SetValue(chromedp.CSS(`main [name="`+name+`"]`), value)
		}
		b.Do(fill("name", "Harbour & Pine"), fill("time_zone", "Mars/Olympus"), fill("sends_per_day", "20"))
		b.Follow("main button.primary")
		if got := b.Text("main"); !strings.Contains(got, "correct what is marked") || !strings.Contains(got, "IANA") {
			t.Errorf("a time zone that is none: got %q", got)
		}
		b.Look("company-refused")
		b.Do(fill("time_zone", "Asia/Tokyo"), fill("support_url", "https://example.com/help"))
		b.Follow("main button.primary")
		got := s.Do("GET", "/v1/company", s.Full, "").Want(t, 200)
		if got.Text("data.name") != "Harbour & Pine" || got.Text("data.time_zone") != "Asia/Tokyo" || got.Get("data.sends_per_day") != float64(20) || got.Text("data.support_url") != "https://example.com/help" {
			t.Errorf("saved: got %s", got.Body)
		}
		for _, form := range []string{"", "name=&time_zone=UTC&sends_per_day=1", "name=x&time_zone=UTC&sends_per_day=-1", "name=x&time_zone=UTC&sends_per_day=10001", "name=x&time_zone=UTC&sends_per_day=1e3",
			"name=x&time_zone=../x&sends_per_day=1", "name=x&time_zone=UTC&sends_per_day=1&support_url=javascript:alert(1)", "name=%00&time_zone=UTC&sends_per_day=1"} {
			if status := post(b, "/settings/company", form); status != 422 {
				t.Errorf("the form %q: got %d, want 422", form, status)
			}
		}

		// An agent's proposal.
		scopes := []string{"company:write-approval", "billing:read"}
		agent, _ := s.AddKey(admin.KeyInput{Name: new("Clerk"), Scopes: &scopes})
		if refused := s.Do("PATCH", "/v1/company", agent, `{"people_only":false}`).Want(t, 400); !strings.Contains(refused.Text("error.message"), "people change it") {
			t.Errorf("a rule: got %s", refused.Body)
		}
		id := queued(t, s, agent, "PATCH", "/v1/company", `{"name":"Pine","reason":"So it is on the invoices."}`)
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("#card"))
		if got := b.Text("#card"); !strings.Contains(got, "Harbour & Pine") || !strings.Contains(got, "Update company") {
			t.Errorf("the card: got %q", got)
		}
		b.Look("card-company")
		b.Follow("#card button[data-key=a]")
		if got := s.Do("GET", "/v1/company", s.Full, "").Want(t, 200); got.Text("data.name") != "Pine" || got.Text("data.time_zone") != "Asia/Tokyo" {
			t.Errorf("approved: got %s", got.Body)
		}
		// A card about a person.
		mo := addPerson(t, s, "mo@example.com", "Mo Farah")
		removal := queued(t, s, s.Full, "DELETE", "/v1/users/"+mo.ID, `{"reason":"He has left."}`)
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+removal), browsertest.See("#card"))
		b.Look("card-remove")
		if got := b.Text("#card"); !strings.Contains(got, "Remove user “Mo Farah”") || !strings.Contains(got, "mo@example.com") {
			t.Errorf("the card: got %q", got)
		}
		s.Do("POST", "/v1/approvals/"+removal+"/approve", s.Full, "").Want(t, 403)
		other, _ := s.AddKey(admin.KeyInput{Name: new("Decider"), FullAccess: new(true), MayDecide: new(true)})
		if got := s.Do("POST", "/v1/approvals/"+removal+"/approve", other, "").Want(t, 403); !strings.Contains(got.Text("error.message"), "people") {
			t.Errorf("a key that may decide: got %s", got.Body)
		}
		b.Follow("#card button[data-key=a]")
		s.Do("GET", "/v1/users/"+mo.ID, s.Full, "").Want(t, 404)

		b.Do(browsertest.Open(s.URL+"/settings/billing"), browsertest.See("main table"))
		b.Look("billing-used")
		if got := b.Text("main"); !strings.Contains(got, "Usage against limits") || !strings.Contains(got, "20 messages a day") {
			t.Errorf("billing: got %q", got)
		}
		if got := s.Do("GET", "/v1/billing", agent, "").Want(t, 200); got.Text("data.plan") != "pro" || got.Get("data.members") != float64(1) {
			t.Errorf("billing: got %s", got.Body)
		}
		b.Behaved(s.URL + "/")
	})
}

// Each kind of credential at each of the actions.
func TestWhoMaySteerTheWorkspace(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		mo := addPerson(t, s, "mo@example.com", "Mo")
		secret := func(scopes ...string) string {
			key, _ := s.AddKey(admin.KeyInput{Name: new("key"), Scopes: &scopes})
			return key
		}
		keys := map[string]string{"none": secret("contacts:delete"), "read": secret("company:read", "users:read", "billing:read"),
			"ask": secret("company:write-approval", "users:delete-approval", "billing:read"), "act": secret("company:write", "users:delete", "billing:read"),
			"agent": s.Agent, "full": s.Full}
		for _, tt := range []struct {
			method, path, body string
			want               map[string]int
		}{
			{"GET", "/v1/company", "", map[string]int{"none": 403, "read": 200, "ask": 200, "act": 200, "agent": 200, "full": 200}},
			{"PATCH", "/v1/company", `{"time_zone":"UTC"}`, map[string]int{"none": 403, "read": 403, "ask": 202, "act": 200, "agent": 403, "full": 200}},
			{"GET", "/v1/billing", "", map[string]int{"none": 403, "read": 200, "ask": 200, "act": 200, "agent": 200, "full": 200}},
			{"GET", "/v1/users", "", map[string]int{"none": 403, "read": 200, "ask": 200, "act": 200, "agent": 200, "full": 200}},
			{"GET", "/v1/users/invitations", "", map[string]int{"none": 403, "read": 200, "ask": 200, "act": 200, "agent": 200, "full": 200}},
			{"POST", "/v1/users/invitations", `{"email":"x@example.com"}`, map[string]int{"none": 403, "read": 403, "ask": 202, "act": 202, "agent": 403, "full": 202}},
			{"POST", "/v1/users/" + mo.ID + "/role", `{"role":"admin"}`, map[string]int{"none": 403, "read": 403, "ask": 202, "act": 202, "agent": 403, "full": 202}},
			{"DELETE", "/v1/users/" + mo.ID, "", map[string]int{"none": 403, "read": 403, "ask": 202, "act": 202, "agent": 403, "full": 202}},
			{"POST", "/v1/users/cancel-invitation", `{"email":"x@example.com"}`, map[string]int{"none": 403, "read": 403, "ask": 404, "act": 404, "agent": 403, "full": 404}},
		} {
			for who, want := range tt.want {
				if got := s.Do(tt.method, tt.path, keys[who], tt.body); got.Status != want {
					t.Errorf("%s %s by %s: got %d %s, want %d", tt.method, tt.path, who, got.Status, got.Body, want)
				}
			}
		}
	})
}
