package messages_test

import (
	"encoding/json"
	"fmt"
	"net/mail"
	"os"
	"strings"
	"testing"

	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/jobs"
	"trustpager/jobs/jobstest"
	"trustpager/server"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Run(m)) }

// An office is a server whose workspace has outside services on this machine.
type office struct {
	*servertest.Server
	t      *testing.T
	sender string // a key that may send at once
}

// open starts a server on the database, in the network. With work it does its
// jobs by itself.
func open(t *testing.T, db string, n integrations.Network, work bool) *office {
	t.Helper()
	o := &office{t: t, Server: servertest.New(t, db, servertest.Options{Work: work, Config: func(c *server.Config) {
		c.Roots = n.Roots
		c.Mail.Outbox = t.TempDir()
	}})}
	scopes := []string{"email:send", "sms:send", "calls:send", "ai:use", "contacts:read"}
	o.sender, _ = o.AddKey(admin.KeyInput{Name: new("sender"), Scopes: &scopes})
	return o
}

// add connects a service.
func (o *office) add(kind integrations.Kind, s integrations.Settings, secrets integrations.Secrets) integrations.Account {
	o.t.Helper()
	a := integrations.Account{ID: typeid.NewID("int"), Workspace: o.Workspace.ID, Kind: kind, Name: "Test " + string(kind), Settings: s, Active: true,
		Version: 1, CreatedAt: o.Clock.Now(), UpdatedAt: o.Clock.Now()}
	var err error
	if a.Sealed, err = o.Accounts.Seal(a, secrets); err != nil {
		o.t.Fatal(err)
	}
	if err := o.DB.CreateAccount(o.t.Context(), a); err != nil {
		o.t.Fatal(err)
	}
	return a
}

// addMail connects the mail server, under the address.
func (o *office) addMail(m *integrationstest.Mail, address string) integrations.Account {
	return o.add(integrations.EmailKind, integrations.Settings{Address: address, SenderName: "Team",
		SMTPHost: m.SMTP.Host, SMTPPort: m.SMTP.Port, SMTPSecurity: string(m.SMTP.Security), SMTPUsername: m.SMTP.Username,
		IMAPHost: m.IMAP.Host, IMAPPort: m.IMAP.Port, IMAPSecurity: string(m.IMAP.Security), IMAPUsername: m.IMAP.Username},
		integrations.Secrets{SMTPPassword: m.SMTP.Password, IMAPPassword: m.IMAP.Password})
}

const ourNumber = "+4930555000"

func (o *office) addTwilio(x *integrationstest.Twilio) integrations.Account {
	a := x.Account()
	return o.add(integrations.TwilioKind, integrations.Settings{BaseURL: a.BaseURL, AccountSID: a.AccountSID, Numbers: []string{ourNumber}},
		integrations.Secrets{AuthToken: a.AuthToken})
}

// carry does the jobs of the resource that are due, and returns how they ended.
func (o *office) carry(resource string) []jobs.Ending {
	o.t.Helper()
	kind := resource + ".carry"
	return jobstest.Do(o.t, o.DB, o.Clock.Now, kind, o.Messages.Jobs()[kind])
}

// read reads the mailboxes.
func (o *office) read() {
	o.t.Helper()
	if err := o.Messages.Start(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	for _, kind := range []string{"email.watch", "email.read"} {
		for _, e := range jobstest.Do(o.t, o.DB, o.Clock.Now, kind, o.Messages.Jobs()[kind]) {
			if e.Err != nil {
				o.t.Fatalf("%s: %v", kind, e.Err)
			}
		}
	}
}

// send sends an e-mail with the key, which may do it at once.
func (o *office) send(to, subject, body string) servertest.Response {
	o.t.Helper()
	return o.Do("POST", "/v1/email/send", o.sender, object("to", []string{to}, "subject", subject, "body", body))
}

// failed returns the approvals that came back.
func (o *office) failed() []approvals.Approval {
	o.t.Helper()
	list, err := o.DB.ListApprovals(o.t.Context(), o.Workspace.ID, approvals.Query{Execution: approvals.Failed, Limit: 10})
	if err != nil {
		o.t.Fatal(err)
	}
	return list
}

// events returns which audited events name the target or the approval.
func (o *office) events(about string) string {
	o.t.Helper()
	got := o.Do("GET", "/v1/audit?limit=100", o.Full, "").Want(o.t, 200)
	var page struct {
		Data []struct{ Event, Target, Approval, Outcome string }
	}
	if err := json.Unmarshal(got.Body, &page); err != nil {
		o.t.Fatal(err)
	}
	var all []string
	for _, e := range page.Data {
		if e.Target == about || e.Approval == about {
			all = append(all, e.Event+" "+e.Outcome)
		}
	}
	return strings.Join(all, ", ")
}

// object returns an object of names and values in turn.
func object(pairs ...any) string {
	o := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		o[pairs[i].(string)] = pairs[i+1]
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// parse reads a letter that a mail server took.
func parse(t *testing.T, raw string) integrations.Received {
	t.Helper()
	m, err := integrations.ParseReceived([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// letter returns an e-mail as another server delivers it.
func letter(from mail.Address, subject, body string, headers ...string) string {
	all := append([]string{"From: " + from.String(), "To: " + integrationstest.MailUser, "Subject: " + subject, "Date: Fri, 27 Nov 2026 09:00:00 +0000",
		"Content-Type: text/plain; charset=utf-8"}, headers...)
	return strings.Join(all, "\r\n") + "\r\n\r\n" + body + "\r\n"
}

// eachMail runs the test on both databases with a mail server.
func eachMail(t *testing.T, test func(t *testing.T, o *office, m *integrationstest.Mail)) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		m := integrationstest.NewMail(t, integrations.TLS)
		o := open(t, db, m.Network(), false)
		test(t, o, m)
	})
}

// ada is somebody outside.
var ada = mail.Address{Name: "Ada Lovelace", Address: "ada@example.com"}

func id(n int) string { return fmt.Sprintf("<%d@example.com>", n) }
