package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// called counts calls of the credential an hour ago.
func called(t *testing.T, s *servertest.Server, credential string, calls map[string]int64) {
	t.Helper()
	var counts []access.Count
	for action, n := range calls {
		counts = append(counts, access.Count{Workspace: s.Workspace.ID, Credential: credential, Hour: s.Clock.Now().Add(-time.Hour).Truncate(time.Hour),
			Action: action, Outcome: access.OutcomeQueued, N: n})
	}
	if err := s.DB.AddUsage(t.Context(), counts, nil); err != nil {
		t.Fatal(err)
	}
}

// told waits until the forecast of the page says the words.
func told(t *testing.T, b *browsertest.Browser, words string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		got := strings.Join(strings.Fields(b.Text("#forecast [role=status]")), " ")
		if strings.Contains(got, words) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the forecast says %q, want %q", got, words)
		}
	}
}

// scopesOf are those that the key has.
func scopesOf(t *testing.T, s *servertest.Server, key string) string {
	t.Helper()
	k, err := s.DB.Key(t.Context(), s.Workspace.ID, key, false)
	if err != nil {
		t.Fatal(err)
	}
	return access.FormatScopes(k.Scopes)
}

// Beside the ladders of a key stands what the calls of the last 30 days would
// become, with and without scripts, and nothing is saved by looking.
func TestForecastOfAKeyOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		scopes := []string{"contacts:write-approval", "deals:read"}
		_, id := s.AddKey(admin.KeyInput{Name: new("Night sync"), Scopes: &scopes})
		_, fresh := s.AddKey(admin.KeyInput{Name: new("Fresh"), Scopes: &scopes})
		called(t, s, id, map[string]int64{"list_contacts": 400, "list_deals": 10, "create_contact": 30, "update_contact": 4, "delete_contact": 2, "get_approval": 99})
		b := browsertest.New(t)
		page := s.URL + "/settings/api/keys/" + id
		logIn(b, s, "robin@example.com", "/settings/api/keys/new")
		if got := b.Text("main"); strings.Contains(got, "last 30 days") || strings.Contains(got, "Preview") {
			t.Errorf("a new key has a forecast: %q", got)
		}
		b.Do(browsertest.Open(s.URL+"/settings/api/keys/"+fresh), browsertest.See("#forecast"))
		told(t, b, "No calls yet")

		b.Do(browsertest.Open(page), browsertest.See("#forecast"))
		told(t, b, "With these rungs, of the 446 calls of this key in the last 30 days 410 would run, 34 would wait for a person and 2 would be refused.")
		if browsertest.Get(b, chromedp.Evaluate[bool](`!document.querySelector("[data-preview]").hidden`)) {
			t.Error("there is a button to look with, although it follows by itself")
		}
		b.Do(browsertest.Press("#forecast summary"), browsertest.Press(`input[name="r.contacts"][value=write]`))
		told(t, b, "444 would run and 2 would be refused. 34 fewer would wait for a person and 34 more would run than now.")
		if got := strings.Join(strings.Fields(b.Text("#forecast tbody tr:nth-of-type(2)")), " "); !browsertest.Get(b, chromedp.Evaluate[bool](`document.querySelector("#forecast details").open`)) || got != "Contacts: write 34 0 0 34 wait" {
			t.Errorf("the table has closed, or says %q", got)
		}
		if !browsertest.Get(b, chromedp.Evaluate[bool](`(r => r.top >= 0 && r.bottom <= innerHeight)(document.querySelector("#forecast").getBoundingClientRect())`)) {
			t.Error("the opened table is out of sight while rungs are chosen")
		}
		b.Do(chromedp.ScrollIntoView(chromedp.CSS("#forecast table")))
		b.Look("key-forecast")
		// A window that becomes narrow again shows what was chosen while it was wide.
		contacts := `input[name="r.contacts"]`
		b.Size(390, 844)
		b.Do(browsertest.See(".rung:has(" + contacts + ") select"))
		b.Size(1280, 900)
		b.Do(browsertest.Press(contacts + "[value=read]"))
		b.Size(390, 844)
		b.Do(browsertest.See(".rung:has(" + contacts + ") select"))
		if got := browsertest.Get(b, chromedp.Evaluate[string](`document.querySelector('.rung:has(input[name="r.contacts"]) select').value`)); got != "read" {
			t.Errorf("the list of a narrow window says %q, want read, which is chosen", got)
		}
		b.Size(1280, 900)
		b.Do(browsertest.Press("#forecast summary"), browsertest.Press(`input[name=mode][value=full]`))
		told(t, b, "all would run.")
		b.Do(browsertest.Press(`input[name=mode][value=scopes]`), browsertest.Press(`input[name=preset][value=read]`))
		told(t, b, "410 would run and 36 would be refused.")
		if got := scopesOf(t, s, id); got != "contacts:write-approval deals:read" {
			t.Errorf("looking has saved %s", got)
		}
		// What the workspace marks waits in the forecast too.
		s.Workspace.Settings.AlwaysAsk, s.Workspace.Settings.ApprovalTTL = []access.Mark{{Resource: "contacts", Verb: "write"}}, access.DefaultApprovalTTL
		if err := s.Desk.UpdateWorkspace(t.Context(), admin.OperatorGrant(s.Workspace), s.Workspace); err != nil {
			t.Fatal(err)
		}
		b.Do(browsertest.Press(`input[name=mode][value=full]`))
		told(t, b, "412 would run and 34 would wait for a person.")

		b.Scripts(false)
		b.Do(browsertest.Open(page), browsertest.See("#forecast"), browsertest.Press(`input[name="r.contacts"][value=delete]`), browsertest.Fill("name", " 2"))
		b.Follow("[data-preview]")
		told(t, b, "412 would run and 34 would wait for a person. 2 fewer would be refused and 2 more would run than now.")
		if got := browsertest.Get(b, chromedp.Evaluate[string](`document.querySelector('input[name="r.contacts"]:checked').value + " " + document.querySelector("[name=name]").value`)); got != "delete  2Night sync" {
			t.Errorf("what was chosen has become %q", got)
		}
		if got := scopesOf(t, s, id); got != "contacts:write-approval deals:read" {
			t.Errorf("looking has saved %s", got)
		}
		b.Do(browsertest.Open(page+"/preview"), browsertest.See("#forecast")) // as after a reload of its address
		if got := b.URL(); got != page {
			t.Errorf("got to %s, want %s", got, page)
		}
		b.Do(browsertest.Press(`input[name="r.contacts"][value=delete]`))
		b.Follow("form.keyform button.primary")
		if got := scopesOf(t, s, id); got != "contacts:delete deals:read" {
			t.Errorf("saved %s", got)
		}
		b.Behaved(s.URL + "/")
	})
}

// So it is with a client's ceiling, with a repeated consent, and where a person
// or an admin narrows what was granted.
func TestForecastOfAppsOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		addAdmin(t, s)
		priya := addPerson(t, s, "priya@example.com", "Priya Nair")
		a := newApp(t, s, "Mailbot")
		member, robin := browsertest.New(t), browsertest.New(t)
		logIn(member, s, "priya@example.com", "/connections")
		member.Do(browsertest.Open(a.authorize(s, "")), browsertest.See("button[value=allow]"))
		if got := member.Text("main"); strings.Contains(got, "30 days") || strings.Contains(got, "Preview") {
			t.Errorf("a first consent has a forecast: %q", got)
		}
		a.connect(t, s, member) // asks before every change
		gr, err := s.DB.GrantOf(t.Context(), s.Workspace.ID, a.id, priya.ID)
		if err != nil {
			t.Fatal(err)
		}
		called(t, s, gr.ID, map[string]int64{"list_contacts": 1200, "create_contact": 30, "delete_contact": 2, "list_webhooks": 1})
		granted := func() string {
			t.Helper()
			gr, err := s.DB.Grant(t.Context(), s.Workspace.ID, gr.ID, false)
			if err != nil {
				t.Fatal(err)
			}
			return access.FormatScopes(gr.Scopes)
		}
		before := granted()

		// Consent once more.
		member.Do(browsertest.Open(a.authorize(s, "")), browsertest.See("#forecast"))
		told(t, member, "With these rungs, of the 1,233 calls of this connection in the last 30 days 1,200 would run, 32 would wait for a person and 1 would be refused.")
		member.Do(browsertest.Press(`input[name=preset][value=act]`))
		told(t, member, "1,230 would run, 2 would wait for a person and 1 would be refused. 30 fewer would wait for a person and 30 more would run than now.")
		member.Look("consent-forecast")
		// Of a client that asks for certain scopes now, the others stay.
		member.Do(browsertest.Open(a.authorize(s, "deals:read")), browsertest.See("#forecast"))
		told(t, member, "1,200 would run, 32 would wait for a person and 1 would be refused.")
		member.Scripts(false)
		member.Do(browsertest.Open(a.authorize(s, "")), browsertest.See("#forecast"), browsertest.Press(`input[name=preset][value=read]`))
		member.Follow("[data-preview]")
		told(t, member, "1,200 would run and 33 would be refused.")
		if !browsertest.Get(member, chromedp.Evaluate[bool](`document.querySelector("input[name=preset][value=read]").checked`)) {
			t.Error("the form has lost what was chosen")
		}
		member.Scripts(true)

		// The person's own connection.
		member.Do(browsertest.Open(s.URL+"/connections/"+gr.ID), browsertest.See("#forecast"), browsertest.Press(`input[name=preset][value=read]`))
		told(t, member, "32 more would be refused and 32 fewer would wait for a person than now.")
		member.Look("connection-forecast")
		member.Scripts(false)
		member.Do(browsertest.Open(s.URL+"/connections/"+gr.ID), browsertest.See("#forecast"), browsertest.Press(`input[name=preset][value=custom]`), browsertest.Press(`input[name="r.contacts"][value=write]`))
		member.Follow("[data-preview]")
		told(t, member, "1,230 would run and 3 would be refused.")
		member.Scripts(true)

		// An admin: the ceiling, and this one connection.
		logIn(robin, s, "robin@example.com", "/settings/api/clients/"+url.PathEscape(a.id))
		told(t, robin, "of the 1,233 calls of its connections in the last 30 days 1,200 would run, 32 would wait for a person and 1 would be refused.")
		robin.Do(browsertest.Press(`input[name=preset][value=custom]`), browsertest.Press(`input[name="r.contacts"][value=read]`))
		told(t, robin, "1,200 would run and 33 would be refused. 32 more would be refused and 32 fewer would wait for a person than now.")
		robin.Look("client-forecast")
		robin.Do(browsertest.Open(s.URL+"/settings/api/grants/"+gr.ID), browsertest.See("#forecast"), browsertest.Press(`input[name=preset][value=read]`))
		told(t, robin, "1,200 would run and 33 would be refused.")
		robin.Look("token-forecast")
		robin.Scripts(false)
		for _, path := range []string{"/settings/api/clients/" + url.PathEscape(a.id), "/settings/api/grants/" + gr.ID} {
			robin.Do(browsertest.Open(s.URL+path), browsertest.See("#forecast"), browsertest.Press(`input[name=preset][value=read]`))
			robin.Follow("[data-preview]")
			told(t, robin, "1,200 would run and 33 would be refused.")
		}
		robin.Scripts(true)
		if got := granted(); got != before {
			t.Errorf("looking has changed the grant to %s, want %s", got, before)
		}

		// Who may not change it is not told.
		_, key := s.AddKey(admin.KeyInput{Name: new("Night sync"), Scopes: &[]string{"contacts:read"}})
		for path, want := range map[string]int{"/settings/api/keys/" + key: 403, "/settings/api/clients/" + a.id: 403, "/settings/api/grants/" + gr.ID: 403, "/connections/grt_01890a5dac96774bbcceb30209": 404} {
			post := `fetch("` + path + `/preview", {method: "POST", body: new URLSearchParams({fragment: "1", preset: "read"})}).then((r) => r.status)`
			if got := browsertest.Get(member, chromedp.Evaluate[int](post, chromedp.EvalAwaitPromise)); got != want {
				t.Errorf("%s: a member got %d, want %d", path, got, want)
			}
		}
		if got := browsertest.Get(robin, chromedp.Evaluate[int](`fetch("/connections/`+gr.ID+`/preview", {method: "POST", body: new URLSearchParams({fragment: "1"})}).then((r) => r.status)`, chromedp.EvalAwaitPromise)); got != http.StatusNotFound {
			t.Errorf("somebody else's connection: got %d, want 404", got)
		}
		for _, b := range []*browsertest.Browser{member, robin} {
			b.Behaved(s.URL+"/", strings.TrimSuffix(a.redirect, "callback"))
		}
	})
}
