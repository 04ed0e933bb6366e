package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/server"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// html returns the whole page.
func html(b *browsertest.Browser) string {
	return browsertest.Get(b, chromedp.OuterHTML(chromedp.CSS("html")))
}

// waitState waits until the page shows, by itself, the state of an integration:
// good, bad, or "" as long as nothing is known.
func waitState(class string) browsertest.Step {
	if class == "" {
		return browsertest.See("#state .badge:not(.good):not(.bad):not(.wait)")
	}
	return browsertest.See("#state .badge." + class)
}

// retype empties a field before it is filled.
func retype(name, text string) []browsertest.Step {
	return []browsertest.Step{chromedp.Clear(chromedp.CSS("[name=" + name + "]")), browsertest.Fill(name, text)}
}

// An admin connects a mailbox, tests it, moves it to another server, and deletes
// it.
func TestIntegrationsOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		peer := integrationstest.NewMail(t, integrations.TLS)
		s := servertest.New(t, db, servertest.Options{Work: true, Config: func(c *server.Config) { c.Roots = peer.Roots }})
		addAdmin(t, s)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/")
		b.Follow(`.side a[href="/settings/integrations"]`)
		if text := b.Text("main"); !strings.Contains(text, "No mail server and no outbox are set up") {
			t.Errorf("without a mailbox: got %q, want where mail goes", text)
		}
		b.Look("integrations-none")
		b.Follow(`main a[href="/settings/integrations/new?kind=email"]`)
		b.Look("integration-new")

		// What cannot be is marked, and no secret comes back.
		fill := func(host string) []browsertest.Step {
			return []browsertest.Step{browsertest.Fill("name", "Sales <b>"), browsertest.Fill("address", integrationstest.MailUser), browsertest.Fill("smtp_host", host),
				browsertest.Fill("smtp_port", fmt.Sprint(peer.SMTP.Port)), browsertest.Fill("smtp_password", integrationstest.MailPassword),
				browsertest.Fill("imap_host", "127.0.0.1"), browsertest.Fill("imap_port", fmt.Sprint(peer.IMAP.Port)), browsertest.Fill("imap_password", integrationstest.MailPassword)}
		}
		b.Do(fill("10.0.0.1")...)
		b.Follow("main button.primary")
		if text := b.Text("#f-smtp_host-error"); !strings.Contains(text, "private") {
			t.Errorf("a private address: got %q, want it refused", text)
		}
		b.Look("integration-refused")
		b.Do(retype("smtp_host", "127.0.0.1")...)
		b.Do(browsertest.Fill("smtp_password", integrationstest.MailPassword), browsertest.Fill("imap_password", integrationstest.MailPassword))
		b.Follow("main button.primary")
		b.Do(waitState(""))
		b.Look("integration")

		// The outcome of a test stands there by itself.
		b.Follow(`form[action$="/test"] button`)
		b.Do(browsertest.See("#state .badge:is(.good, .bad)"))
		letter := peer.Next()
		if len(letter.To) != 1 || letter.To[0] != "robin@example.com" || letter.User != integrationstest.MailUser || !strings.Contains(letter.Raw, "Nothing is to be done") {
			t.Errorf("the test message: got %+v", letter)
		}
		b.Do(waitState("good"))
		if page := html(b); strings.Contains(page, integrationstest.MailPassword) || strings.Contains(page, `p4ss`) {
			t.Error("the page holds the password")
		}
		b.Do(retype("to", "stranger@example.org")...)
		b.Follow(`form[action$="/test"] button`)
		if text := b.Text("#f-to-error"); !strings.Contains(text, "member") {
			t.Errorf("a stranger: got %q, want only members", text)
		}
		page := strings.TrimSuffix(b.URL(), "/test")
		b.Do(browsertest.Open(page))
		peer.Fail(integrationstest.Untrusted)
		b.Follow(`form[action$="/test"] button`)
		b.Do(waitState("bad"))
		b.Look("integration-fails")
		peer.Fail("")

		// The password does not go to another server.
		b.Do(retype("smtp_host", "localhost")...)
		b.Follow("form.keyform button.primary")
		if text := b.Text("main .notice.bad"); !strings.Contains(text, "smtp_password was removed") {
			t.Errorf("another server: got %q, want it said that the password is gone", text)
		}
		b.Do(waitState(""))
		if page := html(b); strings.Contains(page, `name="remove.smtp_password"`) || !strings.Contains(page, `name="remove.imap_password"`) {
			t.Error("want the IMAP password kept, and the SMTP password gone")
		}
		b.Do(append(retype("smtp_host", "127.0.0.1"), browsertest.Fill("smtp_password", integrationstest.MailPassword))...)
		b.Follow("form.keyform button.primary")

		// Another kind, and the list.
		b.Do(browsertest.Open(s.URL+"/settings/integrations/new?kind=anthropic"), browsertest.Fill("name", "Claude"), browsertest.Fill("model", "claude-sonnet-4-5"),
			browsertest.Fill("api_key", "sk-ant-0123456789-wxyz"))
		b.Look("integration-model")
		b.Follow("main button.primary")
		if text := b.Text("#f-api_key-hint"); !strings.Contains(text, "ends with wxyz") {
			t.Errorf("the key: got %q, want its end", text)
		}
		b.Follow(`.side a[href="/settings/integrations"]`)
		if text := b.Text("main"); !strings.Contains(text, "Sales <b>") || !strings.Contains(text, "Claude") || strings.Contains(text, "No mailbox of this workspace") {
			t.Errorf("the list: got %q", text)
		}
		b.Look("integrations")

		// Gone for good, once its name is typed.
		b.Do(browsertest.Open(page + "/delete"))
		b.Look("integration-delete")
		b.Do(browsertest.Fill("name", "Sales <b>"))
		b.Follow("main button.danger")
		if text := b.Text("main"); !strings.Contains(text, "is deleted") || !strings.Contains(text, "No mailbox of this workspace") {
			t.Errorf("deleted: got %q", text)
		}
		b.Behaved(s.URL)

		// Members have no such page.
		hash, err := access.HashPassword(pagesPassword)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), "tom@example.com", "Tom", hash, access.Member); err != nil {
			t.Fatal(err)
		}
		other := browsertest.New(t)
		logIn(other, s, "tom@example.com", "/settings/integrations")
		if text := other.Text("main"); !strings.Contains(text, "only owners and admins") && !strings.Contains(text, "Only owners and admins") {
			t.Errorf("a member: got %q", text)
		}
	})
}
