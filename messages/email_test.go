package messages_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/messages"
	"trustpager/server"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

func TestEmailGoesOutAsItWasWritten(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		account := o.addMail(m, integrationstest.MailUser)
		o.Do("POST", "/v1/contacts", o.Full, `{"first_name":"Ada","email":"ada@example.com"}`).Want(t, 201)
		body := "Grüße 😀,\n.\n..zwei Punkte\n" + strings.Repeat("lang ", 400) + "\n\nBis bald"
		got := o.Do("POST", "/v1/email/send", o.sender, object("to", []string{"ada@Example.com", "grace@example.com"}, "bcc", []string{"audit@example.com"},
			"subject", "Angebot für Ä", "body", body)).Want(t, 200)
		if got.Text("data.status") != "queued" || got.Text("data.from") != integrationstest.MailUser || got.Text("data.account_id") != account.ID || got.Text("data.contact_id") == "" {
			t.Fatalf("sent: got %s", got.Body)
		}
		o.carry("email")
		l := m.Next()
		read := parse(t, l.Raw)
		if want := []string{"ada@example.com", "grace@example.com", "audit@example.com"}; l.From != integrationstest.MailUser || fmt.Sprint(l.To) != fmt.Sprint(want) || l.User != m.SMTP.Username || !l.TLS {
			t.Errorf("envelope: got %+v", l)
		}
		if read.Subject != "Angebot für Ä" || strings.TrimRight(read.Text, "\n") != body || strings.Contains(l.Raw, "audit@example.com") {
			t.Errorf("letter: got subject %q and %q", read.Subject, read.Text)
		}
		id := got.Text("data.id")
		now := o.Do("GET", "/v1/email/"+id, o.sender, "").Want(t, 200)
		if now.Text("data.status") != "sent" || now.Text("data.message_id") != read.MessageID || now.Text("data.sent_at") == "" {
			t.Errorf("afterwards: got %s", now.Body)
		}
		if got := o.events(id); got != "effect.done done, action.run done" {
			t.Errorf("audit: got %q", got)
		}
		if found := o.Do("GET", "/v1/search?query=punkte", o.sender, "").Want(t, 200); found.Len("data") != 1 {
			t.Errorf("search: got %s", found.Body)
		}
	})
}

// The story of an agent that only proposes: card, edit, approval, outcome.
func TestProposedEmailIsEditedAndSent(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		asked := o.Do("POST", "/v1/email/send", o.Agent, object("to", []string{"ada@example.com"}, "subject", "Offer", "body", "It costs 10.", "reason", "She asked.")).Want(t, 202)
		id := asked.Text("approval.id")
		card := o.Do("GET", "/v1/approvals/"+id+"/card", o.Full, "").Want(t, 200)
		facts := map[string]string{}
		for i := range card.Len("data.facts") {
			at := fmt.Sprintf("data.facts.%d.", i)
			facts[card.Text(at+"name")] = fmt.Sprint(card.Get(at + "proposed"))
		}
		if facts["from"] != integrationstest.MailUser || facts["to"] != "[ada@example.com]" || facts["body"] != "It costs 10." {
			t.Errorf("facts: got %v", facts)
		}
		if checks := string(card.Body); !strings.Contains(checks, "The sender team@example.com is connected.") || !strings.Contains(checks, "No contact has the address ada@example.com.") ||
			!strings.Contains(checks, "0 of the 200 messages") {
			t.Errorf("checks: got %s", checks)
		}
		if len(o.carry("email")) > 0 {
			t.Error("something was sent before anybody approved it")
		}
		done := o.Do("POST", "/v1/approvals/"+id+"/approve", o.Full, object("edited", map[string]any{"to": []string{"ada@example.com"}, "subject": "Offer", "body": "It costs 12."})).Want(t, 200)
		if done.Get("data.executed") != false || done.Text("data.outside") != "queued" {
			t.Errorf("approved: got %s, want it on its way", done.Body)
		}
		o.carry("email")
		if got := parse(t, m.Next().Raw); got.Text != "It costs 12." {
			t.Errorf("letter: got %q", got.Text)
		}
		told := o.Do("GET", "/v1/approvals/"+id, o.Agent, "").Want(t, 200)
		if told.Get("data.executed") != true || told.Text("data.outside") != "sent" || !strings.HasPrefix(told.Text("data.message"), "Executed with edits") {
			t.Errorf("the agent is told %s", told.Body)
		}
	})
}

func TestUnconnectedSenderBlocksApproval(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		account := o.addMail(m, integrationstest.MailUser)
		o.addMail(m, "sales@example.com")
		wrong := o.Do("POST", "/v1/email/send", o.Agent, object("to", []string{"ada@example.com"}, "subject", "a", "body", "b", "sender", "boss@example.com")).Want(t, 409)
		if text := wrong.Text("error.message"); !strings.Contains(text, "boss@example.com is not connected") || !strings.Contains(text, "sales@example.com") {
			t.Errorf("a sender that is none: got %q", text)
		}
		o.Do("POST", "/v1/email/send", o.Agent, object("to", []string{"ada@example.com"}, "subject", "a", "body", "b")).Want(t, 409) // none of two is the default
		id := o.Do("POST", "/v1/email/send", o.Agent, object("to", []string{"ada@example.com"}, "subject", "a", "body", "b", "sender", "TEAM@example.com")).Want(t, 202).Text("approval.id")
		if err := o.DB.DeleteAccount(t.Context(), o.Workspace.ID, account.ID, 1); err != nil {
			t.Fatal(err)
		}
		o.Do("POST", "/v1/approvals/"+id+"/approve", o.Full, "{}").Want(t, 409)
		card := o.Do("GET", "/v1/approvals/"+id+"/card", o.Full, "").Want(t, 200)
		if !strings.Contains(string(card.Body), "not connected") {
			t.Errorf("card: got %s", card.Body)
		}
		if got := o.Do("GET", "/v1/approvals/"+id, o.Full, "").Text("data.status"); got != "pending" {
			t.Errorf("approval: got %s, want it pending", got)
		}
	})
}

// patience is how long a test waits for a peer that holds its answer.
const patience = 300 * time.Millisecond

func TestSendFailuresEndVisibly(t *testing.T) {
	for _, tt := range []struct {
		fault  integrationstest.Fault
		status string // after the first try
		end    string // after the last one
		code   string
		kept   int // letters that the server took
	}{
		{integrationstest.NoSuchReceiver, "failed", "failed", "OUTSIDE_FAILED", 0},
		{integrationstest.MailboxFull, "failed", "failed", "OUTSIDE_FAILED", 0},
		{integrationstest.Greylist, "queued", "failed", "OUTSIDE_FAILED", 0},
		{integrationstest.BadLogin, "queued", "failed", "OUTSIDE_FAILED", 0},
		{integrationstest.OtherName, "queued", "failed", "OUTSIDE_FAILED", 0},
		{integrationstest.Untrusted, "queued", "failed", "OUTSIDE_FAILED", 0},
		{integrationstest.Hang, "queued", "failed", "OUTSIDE_FAILED", 0},
		{integrationstest.HangAfterData, "unknown", "unknown", "OUTCOME_UNKNOWN", 1},
		{integrationstest.Drop, "unknown", "unknown", "OUTCOME_UNKNOWN", 1},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			m := integrationstest.NewMail(t, integrations.TLS)
			o := open(t, filepath.Join(t.TempDir(), "test.db"), m.Network(), false)
			o.addMail(m, integrationstest.MailUser)
			o.Messages.Accounts.Network.Timeout = patience
			m.Fail(tt.fault)
			id := o.send("ada@example.com", "Hello", "Hello").Want(t, 200).Text("data.id")
			o.carry("email")
			got := o.Do("GET", "/v1/email/"+id, o.sender, "").Want(t, 200)
			if got.Text("data.status") != tt.status || got.Text("data.error") == "" || strings.Contains(string(got.Body), integrationstest.MailPassword) {
				t.Fatalf("after one try: got %s", got.Body)
			}
			for range 12 {
				o.Clock.Advance(10 * time.Hour)
				o.carry("email")
			}
			got = o.Do("GET", "/v1/email/"+id, o.sender, "").Want(t, 200)
			if got.Text("data.status") != tt.end {
				t.Errorf("in the end: got %s", got.Body)
			}
			back := o.failed()
			if len(back) != 1 || string(back[0].Error.Kind) != tt.code || back[0].By.Name != "sender" || back[0].Status != approvals.Approved {
				t.Fatalf("what came back: got %+v", back)
			}
			if n := len(m.Letters()); n != tt.kept {
				t.Errorf("the server took %d letters, want %d", n, tt.kept)
			}
			if got := o.events(id); !strings.Contains(got, "effect.failed failed") {
				t.Errorf("audit: got %q", got)
			}
			// A person tries it again: the same message, under the same id.
			m.Fail("")
			m.Release()
			o.Messages.Accounts.Network.Timeout = 0
			again := o.Do("POST", "/v1/approvals/"+back[0].ID+"/retry", o.Full, "").Want(t, 200)
			if again.Text("data.result.id") != id || again.Text("data.outside") != "queued" {
				t.Errorf("retried: got %s", again.Body)
			}
			o.carry("email")
			letters := m.Letters()
			if len(letters) != tt.kept+1 || len(o.failed()) != 0 {
				t.Fatalf("retried: the server has %d letters, and %d came back", len(letters), len(o.failed()))
			}
			if want := o.Do("GET", "/v1/email/"+id, o.sender, "").Text("data.message_id"); parse(t, letters[tt.kept].Raw).MessageID != want {
				t.Errorf("retried: got the message id %s, want %s", parse(t, letters[tt.kept].Raw).MessageID, want)
			}
			if n := o.Do("GET", "/v1/email", o.sender, "").Len("data"); n != 1 {
				t.Errorf("got %d records, want one", n)
			}
		})
	}
}

// A failed send of an approval comes back as that approval.
func TestFailedSendReturnsToItsApproval(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		m.Fail(integrationstest.NoSuchReceiver)
		id := o.Do("POST", "/v1/email/send", o.Agent, object("to", []string{"ada@example.com"}, "subject", "a", "body", "b")).Want(t, 202).Text("approval.id")
		o.Do("POST", "/v1/approvals/"+id+"/approve", o.Full, "{}").Want(t, 200)
		o.carry("email")
		back := o.failed()
		if len(back) != 1 || back[0].ID != id {
			t.Fatalf("got %+v, want the approval", back)
		}
		told := o.Do("GET", "/v1/approvals/"+id, o.Agent, "").Want(t, 200)
		if told.Text("data.execution") != "failed" || !strings.Contains(told.Text("data.error.message"), "550") {
			t.Errorf("the agent is told %s", told.Body)
		}
		o.Do("POST", "/v1/approvals/"+id+"/dismiss", o.Full, "").Want(t, 200)
		if n := len(o.failed()); n != 0 {
			t.Errorf("dismissed: %d still wait", n)
		}
	})
}

func TestReplyArrivesInItsThread(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		o.read() // begins at what is there
		contact := o.Do("POST", "/v1/contacts", o.Full, `{"first_name":"Ada","email":"ada@example.com"}`).Want(t, 201).Text("data.id")
		first := o.send("ada@example.com", "Offer", "It costs 10.").Want(t, 200)
		o.carry("email")
		sent := parse(t, m.Next().Raw)
		m.Deliver(letter(ada, "Re: Offer", "Too much.", "Message-ID: "+id(1), "In-Reply-To: <"+sent.MessageID+">"))
		m.Deliver(letter(ada, "Re: Offer", "Another matter.", "Message-ID: "+id(2)))
		o.Clock.Advance(2 * time.Minute)
		o.read()
		thread := o.Do("GET", "/v1/email?sort=created_at&thread_id="+first.Text("data.thread_id"), o.sender, "").Want(t, 200)
		if thread.Len("data") != 2 || thread.Text("data.1.body") != "Too much." || thread.Text("data.1.status") != "received" ||
			thread.Text("data.1.contact_id") != contact || thread.Text("data.1.from_name") != "Ada Lovelace" || thread.Get("data.1.thread_count") != 2.0 {
			t.Fatalf("thread: got %s", thread.Body)
		}
		if latest := o.Do("GET", "/v1/email?latest=true", o.sender, "").Want(t, 200); latest.Len("data") != 2 {
			t.Errorf("threads: got %s, want two", latest.Body)
		}
		o.Clock.Advance(2 * time.Minute)
		o.read()
		if all := o.Do("GET", "/v1/email", o.sender, "").Want(t, 200); all.Len("data") != 3 {
			t.Errorf("read again: got %d messages, want the three", all.Len("data"))
		}
		// The answer goes to her, in the thread, and the proposal of another one is
		// stale once somebody has answered.
		in := thread.Text("data.1.id")
		proposed := o.Do("POST", "/v1/email/"+in+"/reply", o.Agent, object("body", "No.")).Want(t, 202).Text("approval.id")
		reply := o.Do("POST", "/v1/email/"+in+"/reply", o.sender, object("body", "Then 8.")).Want(t, 200)
		if reply.Text("data.subject") != "Re: Offer" || reply.Text("data.thread_id") != first.Text("data.thread_id") {
			t.Errorf("reply: got %s", reply.Body)
		}
		o.carry("email")
		l := m.Next()
		if got := parse(t, l.Raw); got.InReplyTo != "1@example.com" || fmt.Sprint(l.To) != "[ada@example.com]" {
			t.Errorf("letter: got %+v to %v", got, l.To)
		}
		o.Do("POST", "/v1/approvals/"+proposed+"/approve", o.Full, "{}").Want(t, 409)
	})
}

func TestBounceComesBack(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		o.read()
		sent := o.send("nobody@example.com", "Offer", "It costs 10.").Want(t, 200)
		o.carry("email")
		m.Next()
		m.Deliver("From: MAILER-DAEMON@example.com\r\nTo: team@example.com\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n" +
			"--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; example.com\r\n\r\nFinal-Recipient: rfc822; nobody@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 no such user\r\n\r\n" +
			"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <" + sent.Text("data.message_id") + ">\r\n\r\n--b--\r\n")
		for range 2 { // the second time it is known
			o.Clock.Advance(2 * time.Minute)
			o.read()
		}
		got := o.Do("GET", "/v1/email/"+sent.Text("data.id"), o.sender, "").Want(t, 200)
		if got.Text("data.status") != "bounced" || !strings.Contains(got.Text("data.error"), "5.1.1") || strings.Contains(got.Text("data.error"), "no such user") {
			t.Errorf("message: got %s", got.Body)
		}
		if back := o.failed(); len(back) != 1 || back[0].Action != "send_email" || back[0].By.Name != "sender" || !strings.Contains(string(back[0].Input), "nobody@example.com") {
			t.Errorf("came back: got %+v", back)
		}
	})
}

func TestMailboxThatCannotBeReadShowsOnItsAccount(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		a := o.addMail(m, integrationstest.MailUser)
		m.Fail(integrationstest.BadLogin)
		o.read()
		got, err := o.DB.Account(t.Context(), o.Workspace.ID, a.ID, false)
		if err != nil || got.State != integrations.Failing || !strings.Contains(got.StateText, "could not be read") || strings.Contains(got.StateText, integrationstest.MailPassword) {
			t.Fatalf("got %+v, %v", got, err)
		}
		m.Fail("")
		o.Clock.Advance(2 * time.Minute)
		o.read()
		if got, err = o.DB.Account(t.Context(), o.Workspace.ID, a.ID, false); err != nil || got.State != integrations.Working {
			t.Errorf("mended: got %+v, %v", got, err)
		}
	})
}

func TestWithoutMailServerItIsWrittenAndSaysSo(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		outbox := t.TempDir()
		o := &office{t: t, Server: servertest.New(t, db, servertest.Options{Config: func(c *server.Config) { c.Mail.Outbox = outbox }})}
		scopes := []string{"email:send"}
		o.sender, _ = o.AddKey(admin.KeyInput{Name: new("sender"), Scopes: &scopes})
		tried := o.Do("POST", "/v1/email/send", o.sender, `{"to":["ada@example.com"],"subject":"Hello","body":"Hi","dry_run":true}`).Want(t, 200)
		if !strings.Contains(string(tried.Body), `"outbox":true`) {
			t.Errorf("a dry run: got %s, want that it goes nowhere", tried.Body)
		}
		id := o.send("ada@example.com", "Hello", "Hällo").Want(t, 200).Text("data.id")
		o.carry("email")
		got := o.Do("GET", "/v1/email/"+id, o.sender, "").Want(t, 200)
		if got.Text("data.status") != "written" || !strings.Contains(got.Text("data.warning"), "gone nowhere") {
			t.Errorf("got %s", got.Body)
		}
		files, _ := filepath.Glob(filepath.Join(outbox, "*.eml"))
		if len(files) != 1 {
			t.Fatalf("outbox: got %v", files)
		}
		raw, err := os.ReadFile(files[0])
		if err != nil || parse(t, string(raw)).Text != "Hällo" {
			t.Errorf("file: got %q, %v", raw, err)
		}
	})
}

func TestDailyCapHoldsWhateverIsApproved(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		most := int64(2)
		w := o.Workspace
		w.Settings.SendsPerDay = &most
		if err := o.Desk.UpdateWorkspace(t.Context(), admin.OperatorGrant(w), w); err != nil {
			t.Fatal(err)
		}
		var asked []string
		for i := range 3 {
			asked = append(asked, o.Do("POST", "/v1/email/send", o.Agent, object("to", []string{"ada@example.com"}, "subject", fmt.Sprint(i), "body", "b")).Want(t, 202).Text("approval.id"))
		}
		for _, id := range asked[:2] {
			o.Do("POST", "/v1/approvals/"+id+"/approve", o.Full, "{}").Want(t, 200)
		}
		refused := o.Do("POST", "/v1/approvals/"+asked[2]+"/approve", o.Full, "{}").Want(t, 409)
		if !strings.Contains(refused.Text("error.message"), "no approval lifts that") {
			t.Errorf("the third: got %s", refused.Body)
		}
		o.Do("POST", "/v1/email/send", o.Agent, object("to", []string{"ada@example.com"}, "subject", "4", "body", "b")).Want(t, 409)
		if bill := o.Do("GET", "/v1/billing", o.Full, "").Want(t, 200); !strings.Contains(string(bill.Body), `"sends_today":2`) {
			t.Errorf("billing: got %s, want two sent", bill.Body)
		}
		o.Clock.Advance(24 * time.Hour)
		o.Do("POST", "/v1/approvals/"+asked[2]+"/approve", o.Full, "{}").Want(t, 200)
	})
}

// Many calls at once of a credential that may send do not exceed its cap.
func TestDailyCapIsExactUnderConcurrency(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		most := int64(5)
		w := o.Workspace
		w.Settings.SendsPerDay = &most
		if err := o.Desk.UpdateWorkspace(t.Context(), admin.OperatorGrant(w), w); err != nil {
			t.Fatal(err)
		}
		statuses := make(chan int, 20)
		for i := range 20 {
			go func() { statuses <- o.send("ada@example.com", fmt.Sprint(i), "b").Status }()
		}
		n := 0
		for range 20 {
			if <-statuses == 200 {
				n++
			}
		}
		if n != 5 {
			t.Errorf("got %d sent, want 5", n)
		}
	})
}

// What dies between the hand-over and the record goes out again under the same
// id, and is one record.
func TestAttemptThatLosesItsRecordGoesOutAsTheSame(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		id := o.send("ada@example.com", "Hello", "Hello").Want(t, 200).Text("data.id")
		kind := o.Messages.Jobs()["email.carry"]
		lost, err := o.DB.ClaimJobs(t.Context(), "email.carry", o.Clock.Now(), o.Clock.Now().Add(time.Minute), "token", 1)
		if err != nil || len(lost) != 1 {
			t.Fatal(lost, err)
		}
		// The process dies here: the server has the letter, nobody has noted it.
		o.Messages.InTx = func(context.Context, func(messages.Store) error) error { return errors.New("the process died") }
		if err := kind.Handle(t.Context(), lost[0]); err == nil {
			t.Fatal("the first attempt was to die")
		}
		fresh := servertest.Join(t, o.Server, servertest.Options{})
		o.Server = fresh
		o.Messages.Accounts.Network.Roots = m.Roots
		o.Clock.Advance(2 * time.Minute)
		o.carry("email")
		letters := m.Letters()
		if len(letters) != 2 || parse(t, letters[0].Raw).MessageID != parse(t, letters[1].Raw).MessageID {
			t.Fatalf("got %d letters, want two of the same id", len(letters))
		}
		if got := o.Do("GET", "/v1/email/"+id, o.sender, "").Want(t, 200); got.Text("data.status") != "sent" {
			t.Errorf("got %s", got.Body)
		}
		if n := o.Do("GET", "/v1/email", o.sender, "").Len("data"); n != 1 {
			t.Errorf("got %d records, want one", n)
		}
	})
}

func TestSendRefusesBadInput(t *testing.T) {
	eachMail(t, func(t *testing.T, o *office, m *integrationstest.Mail) {
		o.addMail(m, integrationstest.MailUser)
		many := make([]string, 20)
		for i := range many {
			many[i] = fmt.Sprintf("a%d@example.com", i)
		}
		for name, body := range map[string]string{
			"a name with the address": object("to", []string{"Ada <ada@example.com>"}, "subject", "a", "body", "b"),
			"no address":              object("to", []string{}, "subject", "a", "body", "b"),
			"a header in the subject": object("to", []string{"ada@example.com"}, "subject", "a\r\nBcc: x@example.com", "body", "b"),
			"a header in the address": object("to", []string{"ada@example.com\r\nBcc: x@example.com"}, "subject", "a", "body", "b"),
			"too many":                object("to", many, "cc", []string{"one@example.com"}, "subject", "a", "body", "b"),
			"a contact that is none":  object("to", []string{"ada@example.com"}, "subject", "a", "body", "b", "contact_id", "con_01m835y52cf25s0gjx2k6dm298"),
			"an unknown member":       object("to", []string{"ada@example.com"}, "subject", "a", "body", "b", "html", "<b>"),
		} {
			if got := o.Do("POST", "/v1/email/send", o.sender, body); got.Status != 400 {
				t.Errorf("%s: got %d %s, want 400", name, got.Status, got.Body)
			}
		}
		if n := len(o.carry("email")); n != 0 {
			t.Errorf("%d were sent", n)
		}
		o.Do("POST", "/v1/email/eml_01m835y52cf25s0gjx2k6dm298/reply", o.sender, object("body", "b")).Want(t, 404)
	})
}
