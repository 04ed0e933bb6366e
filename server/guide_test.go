package server_test

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"trustpager/admin"
	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/server"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
)

var update = flag.Bool("update", false, "take the pictures of docs/admin.md anew")

// pictures is where those of docs/admin.md are.
var pictures = filepath.Join("..", "docs", "images")

// takePicture notes the name among those taken, and with -update takes the
// picture of what the browser shows.
func takePicture(t *testing.T, b *browsertest.Browser, name string, taken *[]string) {
	t.Helper()
	*taken = append(*taken, name+".png")
	if !*update {
		return
	}
	if err := os.MkdirAll(pictures, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pictures, name+".png"), b.Picture(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The walk of docs/admin.md: each step leads where the guide says, and each
// picture of it is there. With -update the pictures are taken anew.
func TestAdminGuide(t *testing.T) {
	m := integrationstest.NewMail(t, integrations.TLS)
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{Work: true, Config: func(c *server.Config) { c.Roots = m.Roots }})
	var taken []string
	b := browsertest.New(t)
	b.Size(1280, 800)
	picture := func(name string) {
		t.Helper()
		takePicture(t, b, name, &taken)
	}

	// Set-up.
	token, err := s.Desk.OfferSetUp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Do(browsertest.Open(s.URL+"/setup?token="+url.QueryEscape(token)), chromedp.Clear(chromedp.CSS("[name=workspace]")), browsertest.Fill("workspace", "Harbour & Pine Interiors"),
		browsertest.Fill("name", "Ada Lovelace"), browsertest.Fill("email", "ada@example.com"), browsertest.Fill("password", pagesPassword))
	picture("setup")
	b.Follow("main button.primary")
	picture("home")

	// A key.
	hook := servertest.NewReceiver(t)
	b.Do(browsertest.Open(s.URL+"/settings/api/keys/new"), browsertest.Fill("name", "Support assistant"), browsertest.Press("input[name=preset][value=custom]"),
		browsertest.Press(`input[name="r.contacts"][value=write-approval]`), browsertest.Press(`input[name="r.deals"][value=read]`), browsertest.Press(`input[name="r.tasks"][value=write]`))
	b.Do(chromedp.ScrollIntoView(chromedp.CSS(`input[name="r.contacts"]`)))
	picture("key-new")
	b.Do(browsertest.Fill("webhook_url", hook.URL))
	b.Follow("main button.primary")
	picture("key-secret")
	key := b.Text("#secret")

	// What it does, over a week.
	customer := s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Robin","last_name":"Hale","job_title":"Buyer","email":"robin@example.com","phone":"+447700900233","city":"Leeds"}`).Want(t, 201).Text("data.id")
	for day := range 6 {
		for range 3 + 4*day%7 {
			s.Do("GET", "/v1/contacts", key, "").Want(t, 200)
		}
		s.Do("GET", "/v1/products", key, "")
		s.Clock.Advance(24 * time.Hour)
	}
	rejected := queued(t, s, key, "POST", "/v1/contacts", `{"first_name":"Test","last_name":"Test"}`)
	s.Do("POST", "/v1/approvals/"+rejected+"/reject", s.Full, `{"reason":"This is a duplicate of what there is already."}`).Want(t, 200)
	hook.Next()
	s.Clock.Advance(time.Hour)
	changed := queued(t, s, key, "PATCH", "/v1/contacts/"+customer, `{"job_title":"Head of purchasing","city":"York","reason":"Her signature says so since last week."}`)
	for _, name := range []string{"Grace", "Katherine", "Hedy"} {
		queued(t, s, key, "POST", "/v1/contacts", fmt.Sprintf(`{"first_name":%q,"email":"%s@example.com","reason":"She wrote to us for the first time."}`, name, strings.ToLower(name)))
	}

	logIn(b, s, "ada@example.com", inbox+"&approval="+changed) // the session has ended
	b.Do(browsertest.See("#card"))
	picture("card")
	b.Follow("a[data-key=e]")
	picture("edit")
	b.Do(browsertest.Open(s.URL+inbox+"&approval="+changed), browsertest.Press("#rejecting summary"))
	picture("reject")
	s.Do("PATCH", "/v1/contacts/"+customer, s.Full, `{"city":"Hull"}`).Want(t, 200)
	b.Do(browsertest.Open(s.URL+inbox+"&approval="+changed), browsertest.See(".staleness"))
	picture("stale")
	b.Size(390, 844)
	b.Dark(true)
	picture("phone")
	b.Dark(false)
	b.Size(1280, 800)
	b.Do(browsertest.Open(s.URL+inbox), browsertest.See(".pick input"),
		browsertest.Press(".list li:nth-child(1) .pick input"), browsertest.Press(".list li:nth-child(2) .pick input"))
	b.Follow(".batchbar button")
	picture("batch")

	// Keys, their use and their webhooks.
	b.Do(browsertest.Open(s.URL+"/settings/api?tab=keys"), browsertest.See("tbody tr"))
	picture("keys")
	b.Follow("tbody tr:first-child th a", "a[href$='/usage']")
	picture("usage")
	b.Do(browsertest.Open(strings.TrimSuffix(b.URL(), "/usage")+"/webhook"), browsertest.See("tbody tr"))
	picture("webhook")

	// Connected apps.
	a := newApp(t, s, "Mailbot")
	access, _ := a.connect(t, s, b, browsertest.Press(`input[name=preset][value=recommended]`))
	if status, text := call(t, s, access, "list_contacts", `{}`); status != 200 {
		t.Errorf("the app: got %d %s", status, text)
	}
	b.Do(browsertest.Open(s.URL+"/settings/api?tab=clients"), browsertest.See("tbody tr"))
	picture("clients")
	b.Follow("tbody th a", `a[href*="tab=tokens"]`)
	picture("tokens")
	b.Do(browsertest.Open(s.URL+"/connect"), browsertest.See("#last-call.now"))
	picture("connect")

	// Webhooks of the workspace.
	for _, each := range []struct{ url, says, event string }{{hook.URL + "/warehouse", "Data warehouse", "contacts.created"}, {hook.URL + "/alerts", "Alerts", "approval.rejected"}} {
		b.Do(browsertest.Open(s.URL+"/settings/webhooks/new"), browsertest.Fill("url", each.url), browsertest.Fill("description", each.says), tickEvent(each.event))
		b.Follow("main button.primary")
	}
	s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Emmy"}`).Want(t, 201)
	hook.Next()
	b.Do(browsertest.Open(s.URL+"/settings/webhooks"), browsertest.See("tbody tr"))
	picture("webhooks")

	// Members and company.
	b.Do(browsertest.Open(s.URL+"/settings/users"), browsertest.Fill("email", "grace@example.com"), browsertest.Fill("name", "Grace Hopper"))
	b.Follow("form[action='/settings/users/invite'] button")
	link := b.Text("#link")
	picture("invite-link")
	b.Follow(`main a[href="/settings/users"]`)
	picture("members")
	grace := browsertest.New(t)
	grace.Size(1280, 800)
	grace.Do(browsertest.Open(link), browsertest.See("input[name=again]"))
	takePicture(t, grace, "invite", &taken)
	grace.Do(browsertest.Fill("password", pagesPassword), browsertest.Fill("again", pagesPassword))
	grace.Follow("main button.primary")
	b.Do(browsertest.Open(s.URL + "/settings/users"))
	b.Do(browsertest.Press(memberLink(b, "Grace")), browsertest.See("select[name=role]"))
	b.Do(choose("role", "admin"))
	b.Follow("form[action$='/role'] button")
	graceAt := b.URL()
	gracePerson, err := s.Desk.Person(t.Context(), graceAt[strings.LastIndex(graceAt, "/")+1:])
	if err != nil {
		t.Fatal(err)
	}
	graceGrant, err := s.Desk.PersonGrant(gracePerson, s.Workspace.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Desk.CreateKey(t.Context(), graceGrant, admin.KeyInput{Name: new("Night sync"), FullAccess: new(true)}); err != nil {
		t.Fatal(err)
	}
	b.Do(browsertest.Open(graceAt+"/remove"), browsertest.See("input[name=keep]"))
	picture("member-remove")

	// Integrations.
	b.Do(browsertest.Open(s.URL+"/settings/integrations/new?kind=anthropic"), browsertest.Fill("name", "Drafts"), browsertest.Fill("api_key", "sk-ant-0123456789-wxyz"),
		browsertest.Fill("model", "claude-sonnet-4-5"))
	b.Follow("main button.primary")
	b.Do(browsertest.Open(s.URL+"/settings/integrations/new?kind=email"), browsertest.Fill("name", "Orders"), browsertest.Fill("address", "orders@example.com"),
		browsertest.Fill("smtp_host", "smtp.example.com"), browsertest.Fill("smtp_password", "a password"))
	b.Follow("main button.primary")
	b.Do(browsertest.Open(b.URL()), browsertest.See("#state .badge")) // without the notice
	picture("integration")
	b.Do(browsertest.Open(s.URL+"/settings/integrations"), browsertest.See("tbody tr"))
	picture("integrations")

	// Messages.
	connectMail(t, s, m)
	send := func(subject, body string) string {
		t.Helper()
		return s.Do("POST", "/v1/email/send", s.Full, `{"to":["grace@example.com"],"subject":"`+subject+`","body":"`+body+`","sender":"`+integrationstest.MailUser+`"}`).Want(t, 200).Text("data.id")
	}
	first := send("Your curtains", "Dear Grace,\\n\\nthey are ready. You can fetch them from Tuesday on.\\n\\nHarbour & Pine")
	email, _ := s.Catalog.Resource("email")
	if _, err := s.Gate.Settle(t.Context(), s.Workspace.ID, email, first); err != nil {
		t.Fatal(err)
	}
	m.Fail(integrationstest.Greylist)
	send("Your invoice", "Dear Grace,\\n\\nit is attached to the curtains.")
	b.Do(browsertest.Open(s.URL+"/messages/"+first), browsertest.See("article .badge.good"))
	picture("message")
	b.Do(browsertest.Open(s.URL+"/messages"), browsertest.See("tbody tr"))
	picture("messages")

	// Company, rules, pause, billing, account.
	for name, path := range map[string]string{"company": "/settings/company", "rules": "/settings/approvals", "pause": "/settings/pause", "billing": "/settings/billing", "account": "/account"} {
		b.Do(browsertest.Open(s.URL+path), browsertest.See("main h1"))
		picture(name)
	}
	b.Behaved(s.URL+"/", strings.TrimSuffix(a.redirect, "callback"))

	guide, err := os.ReadFile(filepath.Join("..", "docs", "admin.md"))
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, m := range regexp.MustCompile(`\]\(images/([^)]+)\)`).FindAllStringSubmatch(string(guide), -1) {
		named = append(named, m[1])
	}
	slices.Sort(named)
	slices.Sort(taken)
	var there []string
	files, err := os.ReadDir(pictures)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		there = append(there, f.Name())
	}
	if !slices.Equal(named, taken) || !slices.Equal(there, taken) {
		t.Errorf("docs/admin.md shows %v, there are %v, and the walk takes %v", named, there, taken)
	}
}
