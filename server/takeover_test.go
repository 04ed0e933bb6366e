package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/server"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// The mailbox of somebody who can log in is connected. Whoever may read its
// messages finds no link there by which they come in as them.
func TestLinksThatLetSomebodyInAreNotAmongTheMessages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		m := integrationstest.NewMail(t, integrations.TLS)
		outbox := t.TempDir()
		s := servertest.New(t, db, servertest.Options{Config: func(c *server.Config) { c.Roots, c.Mail.Outbox = m.Roots, outbox }})
		connectMail(t, s, m)
		addAdmin(t, s)
		readMail(t, s)
		if err := s.Desk.ForgotPassword(t.Context(), "robin@example.com", "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		mails := sendMail(t, s, outbox)
		if len(mails) != 1 || !strings.Contains(mails[0], "/reset?token=") {
			t.Fatalf("got %q, want the message with its link", mails)
		}
		_, rest, _ := strings.Cut(mails[0], "/reset?token=")
		token := strings.Fields(rest)[0]
		m.Deliver(strings.ReplaceAll(mails[0], "\n", "\r\n"))
		plain := func(n int, body string) {
			m.Deliver(fmt.Sprintf("From: robin@example.com\r\nTo: team@example.com\r\nSubject: Fwd\r\nMessage-ID: <%d@example.com>\r\nContent-Type: text/plain\r\n\r\n%s\r\n", n, body))
		}
		plain(1, "Look: "+s.URL+"/reset?token="+token+"\r\nBye")
		plain(2, "> "+s.URL+"/invite?token="+token[:20]+"=\r\n> "+token[20:]+"\r\n> Bye")
		plain(3, "https://links.example.net/?u=http%3A%2F%2Fx%2Fsetup%3Ftoken%3D"+token+"&s=1")
		m.Deliver("From: robin@example.com\r\nTo: team@example.com\r\nSubject: Fwd\r\nMessage-ID: <4@example.com>\r\nContent-Type: text/html\r\n\r\n<p>" + s.URL + "/reset?token=" + token + "</p><p>Bye</p>\r\n")
		readMail(t, s)
		got := s.Do("GET", "/v1/email?limit=100", s.Agent, "").Want(t, 200)
		if got.Len("data") != 4 || strings.Contains(string(got.Body), token[:20]) || strings.Contains(string(got.Body), token[20:]) || !strings.Contains(string(got.Body), "[link taken out]") {
			t.Errorf("got %s, want the four copies without the link, and not the message itself", got.Body)
		}
	})
}

// Whoever takes a webhook over sees nothing of what it was told before, whatever
// they change first, and nobody else gets its secret.
func TestWebhookThatIsTakenOverBeginsAnew(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		hook := servertest.NewReceiver(t)
		id := s.Do("POST", "/v1/webhooks", s.Full, `{"url":"`+hook.URL+`/?token=hidden","events":["contacts.*"]}`).Want(t, 201).Text("data.id")
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada"}`).Want(t, 201)
		scopes := []string{"webhooks:write", "deals:read"}
		stranger, _ := s.AddKey(admin.KeyInput{Name: new("stranger"), Scopes: &scopes})
		log := s.Do("GET", "/v1/webhooks/"+id+"/deliveries", stranger, "").Want(t, 200)
		delivery := log.Text("data.0.id")
		if delivery == "" || strings.Contains(string(log.Body), "hidden") || strings.Contains(string(log.Body), "contacts.created") {
			t.Errorf("the log of others: got %s", log.Body)
		}
		s.Do("POST", "/v1/webhooks/"+id+"/rotate", stranger, `{"overlap_hours":0}`).Want(t, 403)
		resend := `{"delivery":"` + delivery + `"}`
		s.Do("POST", "/v1/webhooks/"+id+"/resend", stranger, resend).Want(t, 403)
		s.Do("PATCH", "/v1/webhooks/"+id, stranger, `{"events":["deals.created"]}`).Want(t, 200)
		s.Do("PATCH", "/v1/webhooks/"+id, stranger, `{"url":"`+hook.URL+`/theirs"}`).Want(t, 200)
		all := s.Do("GET", "/v1/deliveries?limit=100", s.Full, "").Want(t, 200)
		for i := range all.Len("data") {
			at := fmt.Sprintf("data.%d.", i)
			if all.Text(at+"event") == "contacts.created" && (all.Text(at+"status") == "ready" && strings.Contains(all.Text(at+"url"), "/theirs")) {
				t.Errorf("what others were told waits for the stranger: %s", all.Body)
			}
		}
		if got := s.Do("POST", "/v1/webhooks/"+id+"/resend", stranger, resend); got.Status == 200 {
			// It goes to the endpoint that is gone, and so nowhere.
			if again := s.Do("GET", "/v1/deliveries?limit=100", s.Full, "").Want(t, 200); strings.Contains(string(again.Body), "/theirs") {
				t.Errorf("sent again: got %s", again.Body)
			}
		}
	})
}

// person returns the grant of a new member.
func person(t *testing.T, s *servertest.Server, email string, role access.Role) (access.User, access.Grant) {
	t.Helper()
	u, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), email, "Bob", "", role)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Desk.Person(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Desk.PersonGrant(p, s.Workspace.ID)
	if err != nil {
		t.Fatal(err)
	}
	return u, g
}

// Who was removed since their request came decides nothing any more, and what
// they have said yes to ends with them.
func TestDecidersAreWhoTheyAreNow(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		ctx, operator := t.Context(), admin.OperatorGrant(s.Workspace)
		addAdmin(t, s)
		bob, grant := person(t, s, "bob@example.com", access.Admin)
		ask := func(email string) string {
			return s.Do("POST", "/v1/users/invitations", s.Full, `{"email":"`+email+`","role":"member"}`).Want(t, 202).Text("approval.id")
		}
		first, second := ask("new@example.com"), ask("late@example.com")
		edited := []byte(`{"email":"bob2@example.com","role":"admin"}`)
		if _, err := s.Gate.Approve(ctx, grant, first, approvals.Seen{Edited: edited}); err != nil {
			t.Fatal(err)
		}
		all, err := s.DB.Invitations(ctx, s.Workspace.ID)
		if err != nil || len(all) != 1 || all[0].By.User != bob.ID {
			t.Fatalf("invitations: got %+v, %v, want one that Bob answers for", all, err)
		}
		if _, err := s.Desk.RemoveMember(ctx, operator, bob.ID, nil); err != nil {
			t.Fatal(err)
		}
		if all, err := s.DB.Invitations(ctx, s.Workspace.ID); err != nil || len(all) != 0 {
			t.Errorf("after he has left: got %+v, %v, want none", all, err)
		}
		for name, err := range map[string]error{
			"approve": onlyError(s.Gate.Approve(ctx, grant, second, approvals.Seen{})),
			"reject":  onlyError(s.Gate.Reject(ctx, grant, second, "no")),
			"extend":  onlyError(s.Gate.Extend(ctx, grant, second, s.Clock.Now().Add(48*time.Hour))),
		} {
			if err == nil {
				t.Errorf("%s by who has left: it was done", name)
			}
		}
	})
}

// onlyError drops a result.
func onlyError[T any](_ T, err error) error { return err }
