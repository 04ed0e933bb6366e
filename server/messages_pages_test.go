package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/jobs/jobstest"
	"trustpager/server"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

// connectMail connects the mail server to the workspace.
func connectMail(t *testing.T, s *servertest.Server, m *integrationstest.Mail) {
	t.Helper()
	a := integrations.Account{ID: typeid.NewID("int"), Workspace: s.Workspace.ID, Kind: integrations.EmailKind, Name: "Team", Active: true, Default: true, Version: 1,
		CreatedAt: s.Clock.Now(), UpdatedAt: s.Clock.Now(), Settings: integrations.Settings{Address: integrationstest.MailUser, SenderName: "Team",
			SMTPHost: m.SMTP.Host, SMTPPort: m.SMTP.Port, SMTPSecurity: string(m.SMTP.Security), SMTPUsername: m.SMTP.Username,
			IMAPHost: m.IMAP.Host, IMAPPort: m.IMAP.Port, IMAPSecurity: string(m.IMAP.Security), IMAPUsername: m.IMAP.Username}}
	var err error
	if a.Sealed, err = s.Accounts.Seal(a, integrations.Secrets{SMTPPassword: m.SMTP.Password, IMAPPassword: m.IMAP.Password}); err != nil {
		t.Fatal(err)
	}
	if err := s.DB.CreateAccount(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

// work does the jobs of the kinds that are due.
func work(t *testing.T, s *servertest.Server, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		jobstest.Do(t, s.DB, s.Clock.Now, kind, s.Messages.Jobs()[kind])
	}
}

// readMail reads the mailboxes.
func readMail(t *testing.T, s *servertest.Server) {
	t.Helper()
	s.Clock.Advance(2 * time.Minute)
	if err := s.Messages.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	work(t, s, "email.watch", "email.read")
}

// An agent drafts an e-mail over MCP, a person edits and approves it in the
// browser, the mail server has it, the agent is told of the edits, and the answer
// stands in the thread, for the agent and on the page.
func TestEmailStory(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		m := integrationstest.NewMail(t, integrations.TLS)
		s := servertest.New(t, db, servertest.Options{Config: func(c *server.Config) { c.Roots = m.Roots }})
		connectMail(t, s, m)
		addAdmin(t, s)
		readMail(t, s)
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada","last_name":"Lovelace","email":"ada@example.com"}`).Want(t, 201)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/messages")
		b.Look("messages-empty")

		status, text := call(t, s, s.Agent, "send_email", `{"to":["ada@example.com"],"subject":"Your offer","body":"Dear Ada,\n\nit costs <b>10</b>.\n\nTeam","reason":"She asked for it."}`)
		if status != 200 || !strings.Contains(text, "pending_approval") {
			t.Fatalf("send_email: got %d %s", status, text)
		}
		list := s.Do("GET", "/v1/approvals?status=pending", s.Agent, "").Want(t, 200)
		id := list.Text("data.0.id")
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("#card"))
		card := b.Text("#card")
		for _, want := range []string{"team@example.com", "ada@example.com", "it costs <b>10</b>.", "The sender team@example.com is connected", "ada@example.com is the contact Ada Lovelace",
			"0 of the 200 messages", "She asked for it."} {
			if !strings.Contains(card, want) {
				t.Errorf("the card lacks %q: %q", want, card)
			}
		}
		b.Look("card-email")
		b.Follow(`#card a[data-key=e]`)
		b.Do(chromedp.SetValue(chromedp.CSS(`textarea[name="v.body"]`), "Dear Ada,\n\nit costs 12.\n\nTeam"))
		b.Look("edit-email")
		b.Do(browsertest.Press("main button.primary"), browsertest.See("#card .notice"))
		if got := b.Text("#card .notice"); !strings.Contains(got, "On its way") {
			t.Errorf("approved: got %q", got)
		}
		work(t, s, "email.carry")
		l := m.Next()
		if fmt.Sprint(l.To) != "[ada@example.com]" || !strings.Contains(l.Raw, "it costs 12.") || strings.Contains(l.Raw, "<b>") {
			t.Errorf("the mail server has %+v", l)
		}
		b.Do(browsertest.Open(s.URL+inbox+"&approval="+id), browsertest.See("#card .notice.good"))
		if got := b.Text("#card .notice"); !strings.Contains(got, "Approved with changes") || !strings.Contains(got, "Sent.") {
			t.Errorf("sent: got %q", got)
		}
		if got := b.Text("#card"); !strings.Contains(got, "The agent had asked for") || !strings.Contains(got, "<b>10</b>") {
			t.Errorf("edited: got %q, want both versions", got)
		}
		b.Look("card-email-sent")
		status, text = call(t, s, s.Agent, "wait_for_approval", `{"id":"`+id+`","timeout_seconds":1}`)
		if status != 200 || !strings.Contains(text, "Executed with edits") || !strings.Contains(text, "it costs 12.") || !strings.Contains(text, `"status":"sent"`) {
			t.Errorf("the agent is told %d %s", status, text)
		}

		sent, err := integrations.ParseReceived([]byte(l.Raw))
		if err != nil {
			t.Fatal(err)
		}
		m.Deliver("From: Ada Lovelace <ada@example.com>\r\nTo: team@example.com\r\nSubject: Re: Your offer\r\nMessage-ID: <1@example.com>\r\nIn-Reply-To: <" + sent.MessageID +
			">\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThank you <script>alert(1)</script>\u202e!\r\n")
		readMail(t, s)
		b.Do(browsertest.Open(s.URL+"/messages"), browsertest.See("tbody tr"))
		if got := b.Text("tbody"); !strings.Contains(got, "From Ada Lovelace") || !strings.Contains(got, "2 messages") {
			t.Errorf("the list: %q", got)
		}
		b.Look("messages")
		b.Follow("tbody a")
		if got := b.Text("main"); !strings.Contains(got, "it costs 12.") || !strings.Contains(got, "Thank you <script>") || !strings.Contains(got, "U+202E") {
			t.Errorf("the thread: %q", got)
		}
		b.Look("thread")
		status, text = call(t, s, s.Agent, "list_email", `{"latest":true}`)
		var told struct {
			Data []struct {
				ID, Body, Status string
			}
		}
		if err := json.Unmarshal([]byte(text), &told); status != 200 || err != nil || len(told.Data) != 1 || !strings.Contains(told.Data[0].Body, "Thank you") {
			t.Errorf("the agent reads %d %s", status, text)
		}
		b.Behaved(s.URL + "/")
	})
}

// What could not be sent comes back to the inbox, with its error.
func TestFailedSendOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		m := integrationstest.NewMail(t, integrations.TLS)
		s := servertest.New(t, db, servertest.Options{Config: func(c *server.Config) { c.Roots = m.Roots }})
		connectMail(t, s, m)
		addAdmin(t, s)
		b := browsertest.New(t)
		m.Fail(integrationstest.NoSuchReceiver)
		// It ran at once, so nobody was asked; it comes back all the same.
		sent := s.Do("POST", "/v1/email/send", s.Full, `{"to":["nobody@example.com"],"subject":"Hello","body":"Hello"}`).Want(t, 200)
		work(t, s, "email.carry")
		logIn(b, s, "robin@example.com", inbox)
		b.Do(browsertest.See("#inbox li a"))
		b.Follow("#inbox li a")
		if got := b.Text("#card"); !strings.Contains(got, "550") || !strings.Contains(got, "nobody@example.com") {
			t.Errorf("the card: %q", got)
		}
		b.Look("card-email-failed")
		m.Fail("")
		b.Do(browsertest.Press(`#card form[action$="/retry"] button`), browsertest.Leave("#card .notice.bad"))
		work(t, s, "email.carry")
		if got := s.Do("GET", "/v1/email/"+sent.Text("data.id"), s.Full, "").Want(t, 200); got.Text("data.status") != "sent" || len(m.Letters()) != 1 {
			t.Errorf("retried: got %s, and the server has %d", got.Body, len(m.Letters()))
		}
		b.Behaved(s.URL + "/")
	})
}
