package server_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// addAdmin makes an owner of the server's workspace who can log in.
func addAdmin(t testing.TB, s *servertest.Server) access.User {
	t.Helper()
	hash, err := access.HashPassword(pagesPassword)
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), "robin@example.com", "Robin Hale", hash, access.Owner)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// logIn logs the browser in and opens the path.
func logIn(b *browsertest.Browser, s *servertest.Server, email, path string) {
	b.Do(browsertest.Open(s.URL+path), browsertest.See("input[name=password]"), browsertest.Fill("email", email), browsertest.Fill("password", pagesPassword),
		browsertest.Press("main button.primary"), browsertest.See(".frame"))
}

// An admin makes a key, uses it, changes, rotates, revokes and deletes it.
func TestAdminKeys(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/settings/api")
		b.Look("keys")
		b.Do(browsertest.Press(`a[href="/settings/api/keys/new"]`), browsertest.See("[data-count=tools]"))
		b.Look("key-new")
		count := func() string { return b.Text(".count") }
		recommended := count()
		b.Do(browsertest.Press("input[name=preset][value=read]"))
		if got := count(); got == recommended || !strings.Contains(got, "0 of them wait") {
			t.Errorf("read only: got %q, want no tool that waits", got)
		}
		b.Do(browsertest.Press("input[name=preset][value=custom]"), browsertest.See(`input[name="r.contacts"]`))
		b.Look("key-custom")
		b.Do(browsertest.Press(`input[name="r.contacts"][value=write-approval]`), browsertest.Fill("name", "Night sync"),
			browsertest.Fill("webhook_url", "https://10.0.0.1/hook"), browsertest.Press("main button.primary"), browsertest.See("main [role=alert]"))
		b.Look("key-refused")
		b.Do(chromedp.Clear(chromedp.CSS("[name=webhook_url]")), browsertest.Press("main button.primary"), browsertest.See("#secret"))
		b.Look("key-reveal")
		secret := b.Text("#secret")
		if !regexp.MustCompile(`^tp_live_[0-9A-Za-z]{49}$`).MatchString(secret) {
			t.Fatalf("the secret: got %q", secret)
		}
		s.Do("GET", "/v1/me", secret, "").Want(t, 200)
		s.Do("POST", "/v1/contacts", secret, `{"first_name":"Ada"}`).Want(t, 202)
		s.Do("DELETE", "/v1/contacts/con_01m835y52cf25s0gjx2k6dm298", secret, "").Want(t, 403)

		b.Do(browsertest.Press(`main a[href^="/settings/api/keys/"]`), browsertest.See("form.keyform"))
		b.Look("key")
		page := b.URL()
		b.Do(browsertest.Press("a[href$='/usage']"), browsertest.See("svg.chart"))
		b.Look("usage")
		b.Do(browsertest.Open(page), browsertest.Press("form[action$='/rotate'] button"), browsertest.See("#secret"))
		rotated := b.Text("#secret")
		s.Do("GET", "/v1/me", secret, "").Want(t, 200)
		s.Do("GET", "/v1/me", rotated, "").Want(t, 200)
		b.Do(browsertest.Open(page), browsertest.Press("form[action$='/end-overlap'] button"), browsertest.See(".notice.good"))
		s.Do("GET", "/v1/me", secret, "").Want(t, 401)
		b.Do(browsertest.Press("form[action$='/revoke'] button"), browsertest.See("form[action$='/activate']"))
		b.Look("key-revoked")
		s.Do("GET", "/v1/me", rotated, "").Want(t, 401)
		b.Do(browsertest.Press("form[action$='/activate'] button"), browsertest.See("form[action$='/revoke']"))
		s.Do("GET", "/v1/me", rotated, "").Want(t, 200)
		b.Do(browsertest.Press("a[href$='/delete']"), browsertest.See("input[name=name]"), browsertest.Fill("name", "Night"), browsertest.Press("button.danger"), browsertest.See("main .error"))
		b.Look("key-delete")
		b.Do(browsertest.Fill("name", "Night sync"), browsertest.Press("button.danger"), browsertest.See("table"))
		s.Do("GET", "/v1/me", rotated, "").Want(t, 401)
		b.Behaved(s.URL + "/")
	})
}

// An agent asks, and an admin decides in the inbox: approve, reject, edit,
// stale targets, batch.
func TestAdminApprovals(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		ada := s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada","last_name":"Lovelace","email":"ada@example.com","notes":"Met in London."}`).Want(t, 201).Text("data.id")
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/settings/api?tab=approvals")
		b.Look("approvals-empty")
		badge := `.side [data-live=waiting]`

		// The agent asks while the page is open: the badge and the list come by themselves.
		ask := func(method, path, body string) string {
			t.Helper()
			return s.Do(method, path, s.Agent, body).Want(t, 202).Text("approval.id")
		}
		created := ask("POST", "/v1/contacts", `{"first_name":"Grace","email":"grace@example.com","notes":"A\u200bB\u202e <img src=x onerror=alert(1)>","reason":"She wrote to us."}`)
		b.Do(browsertest.See(badge), browsertest.See(`.list a[href*="`+created+`"]`))
		b.Do(browsertest.Press(`.list a[href*="`+created+`"]`), browsertest.See("#card"))
		b.Look("approvals-card")
		text := b.Text("#card")
		for _, want := range []string{"Create contact", "Grace", "U+200B", "U+202E", "<img src=x onerror=alert(1)>", "The agent says", "She wrote to us.", "not verified"} {
			if !strings.Contains(text, want) {
				t.Errorf("the card: got %q, want %q in it", text, want)
			}
		}
		b.Do(browsertest.Press("body"), chromedp.KeyEvent("a"), browsertest.See(".notice.good"))
		b.Look("approvals-approved")
		if got := s.Do("GET", "/v1/approvals/"+created, s.Agent, "").Want(t, 200); got.Text("data.execution") != "done" || got.Text("data.decided_by.name") != "Robin Hale" {
			t.Errorf("approved by key: got %s", got.Body)
		}
		b.Do(browsertest.Leave(badge + ":not([hidden])"))

		rejected := ask("DELETE", "/v1/contacts/"+ada, "")
		b.Do(browsertest.Open(s.URL+"/settings/api?tab=approvals&approval="+rejected), browsertest.See("#rejecting"), browsertest.Press("#rejecting summary"), browsertest.See("#reason"))
		b.Look("approvals-reject")
		b.Follow("#rejecting button")
		if got := b.Text("#rejecting[open] .error"); !strings.Contains(got, "choose or type a reason") {
			t.Errorf("without a reason: got %q", got)
		}
		b.Look("approvals-reject-empty")
		// By the keys alone: the panel opens with the focus in it.
		b.Do(browsertest.Open(s.URL+"/settings/api?tab=approvals&approval="+rejected), browsertest.See("#rejecting"), chromedp.KeyEvent("r"))
		if got := browsertest.Get(b, chromedp.Evaluate[string](`document.activeElement.id`)); got != "reason" {
			t.Errorf("after the key r the focus is in %q, want the reason", got)
		}
		// The driver sends the character apart from the key, so that it comes although the key was taken.
		b.Do(chromedp.SetValue(chromedp.CSS("#reason"), "She is a customer."))
		b.Follow("#rejecting button")
		if got := s.Do("GET", "/v1/approvals/"+rejected, s.Agent, ""); got.Text("data.decision_reason") != "She is a customer." {
			t.Errorf("rejected: got %s", got.Body)
		}

		edited := ask("PATCH", "/v1/contacts/"+ada, `{"job_title":"Analist","city":"London"}`)
		b.Do(browsertest.Open(s.URL+"/settings/api?tab=approvals&approval="+edited), browsertest.Press(`a[data-key=e]`), browsertest.See(`[name="v.job_title"]`))
		b.Look("approvals-edit")
		b.Do(chromedp.Clear(chromedp.CSS(`[name="v.job_title"]`)), browsertest.Fill("v.job_title", "Analyst"), browsertest.Press("button.primary"), browsertest.See(".notice.good"))
		if got := s.Do("GET", "/v1/contacts/"+ada, s.Agent, ""); got.Text("data.job_title") != "Analyst" || got.Text("data.city") != "London" {
			t.Errorf("edited: got %s", got.Body)
		}

		stale := ask("PATCH", "/v1/contacts/"+ada, `{"job_title":"Countess","city":"Paris"}`)
		s.Do("PATCH", "/v1/contacts/"+ada, s.Full, `{"city":"Turin"}`).Want(t, 200)
		b.Do(browsertest.Open(s.URL+"/settings/api?tab=approvals&approval="+stale), browsertest.See(".staleness"))
		b.Look("approvals-stale")
		b.Do(browsertest.Press(`.staleness form:first-child button`), browsertest.See(".notice.good"))
		if got := s.Do("GET", "/v1/contacts/"+ada, s.Agent, ""); got.Text("data.job_title") != "Countess" || got.Text("data.city") != "Turin" {
			t.Errorf("only what is untouched: got %s", got.Body)
		}

		// A list that is not empty follows too.
		first := ask("POST", "/v1/tasks", `{"title":"Call Ada"}`)
		b.Do(browsertest.Open(s.URL+"/settings/api?tab=approvals"), browsertest.See(`input[name=id][value="`+first+`"]`))
		second := ask("POST", "/v1/tasks", `{"title":"Write to Ada"}`)
		b.Do(browsertest.See(`input[name=id][value="` + second + `"]`))
		if got := b.Text(".tabs .badge"); !strings.HasPrefix(got, "2") {
			t.Errorf("the tab's badge: got %q, want 2", got)
		}
		b.Do(browsertest.Open(s.URL+"/settings/api?tab=approvals"), browsertest.Press(`input[name=id][value="`+first+`"]`), browsertest.Press(`input[name=id][value="`+second+`"]`),
			browsertest.Press(".batchbar button"), browsertest.See("button[value=approve]"))
		b.Look("approvals-batch")
		b.Do(browsertest.Press("button[value=approve]"), browsertest.Leave("button[value=approve]"))
		b.Look("approvals-batch-done")
		if got := b.Text("h1"); got != "2 of 2 decided" {
			t.Errorf("batch: got %q", got)
		}
		b.Do(browsertest.Open(s.URL + "/settings/api?tab=approvals&show=decided&group=agent"))
		b.Look("approvals-decided")
		b.Behaved(s.URL + "/")
	})
}
