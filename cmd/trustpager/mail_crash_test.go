package main

import (
	"strconv"
	"testing"
	"time"

	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/storage/storagetest"
)

// The server is killed while a mail server has taken a message and has not
// answered yet. The message goes out again under the same id, and is recorded
// once, as sent.
func TestKilledWhileSendingSendsTheSameAgain(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		m := integrationstest.NewMail(t, integrations.NoTLS)
		p := demo(t, url)
		full, agent := p.info.Keys.FullAccess, p.info.Keys.Agent
		p.must(201, "POST", "/v1/integrations", full, `{"kind":"email","name":"Team","address":"team@example.com","smtp_host":"127.0.0.1","smtp_port":`+
			strconv.Itoa(m.SMTP.Port)+`,"smtp_security":"none","smtp_username":"`+m.SMTP.Username+`","smtp_password":`+strconv.Quote(m.SMTP.Password)+`}`)
		asked := p.must(202, "POST", "/v1/email/send", agent, `{"to":["ada@example.com"],"subject":"Hello","body":"Hello","sender":"team@example.com"}`)
		approval := text(asked, "approval", "id")
		m.Fail(integrationstest.HangAfterData)
		p.must(200, "POST", "/v1/approvals/"+approval+"/approve", full, "{}")
		first := m.Next()
		p.kill()
		m.Fail("")
		m.Release()

		t.Setenv(clockAhead, "10m") // the lease of the killed has run out
		p = demo(t, url)
		full = p.info.Keys.FullAccess
		second := m.Next()
		ids := map[string]bool{}
		for _, l := range []integrationstest.Letter{first, second} {
			read, err := integrations.ParseReceived([]byte(l.Raw))
			if err != nil {
				t.Fatal(err)
			}
			ids[read.MessageID] = true
		}
		if len(ids) != 1 {
			t.Errorf("the two letters have the ids %v, want one", ids)
		}
		var state string
		for until := time.Now().Add(20 * time.Second); time.Now().Before(until) && state != "sent"; {
			// The record follows the answer of the mail server, on the other side.
			state = text(p.must(200, "GET", "/v1/approvals/"+approval, full, ""), "data", "outside")
		}
		if state != "sent" {
			t.Errorf("the approval: got %q, want sent", state)
		}
		if list := p.list("/v1/email", full); len(list) != 1 || text(list[0], "status") != "sent" {
			t.Errorf("records: got %v, want one that is sent", list)
		}
		if n := len(m.Letters()); n != 2 {
			t.Errorf("the mail server took %d letters, want the two", n)
		}
	})
}
