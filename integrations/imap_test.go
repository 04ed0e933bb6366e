package integrations_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/mail"
	"strings"
	"testing"
	"time"

	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
)

// answer returns a message that answers a letter.
func answer(n int) string {
	return fmt.Sprintf("From: Ada <ada@example.org>\nTo: team@example.com\nSubject: Re: %d\nMessage-ID: <answer-%d@example.org>\n"+
		"In-Reply-To: <msg_01hx@pager.example.com>\nDate: Thu, 05 Mar 2026 06:07:08 +0100\nContent-Type: text/plain; charset=utf-8\n\nAnswer %d.\n", n, n, n)
}

// fetch fetches, and fails the test if that fails.
func fetch(t *testing.T, peer *integrationstest.Mail, after integrations.Cursor, most int) (ids []string, next integrations.Cursor, more bool) {
	t.Helper()
	got, next, more, err := peer.IMAP.Fetch(t.Context(), peer.Network(), after, most)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		ids = append(ids, strings.TrimSuffix(r.MessageID, "@example.org"))
	}
	return ids, next, more
}

func TestMailboxIsReadOnFromItsNewestMessage(t *testing.T) {
	for _, security := range []integrations.Security{integrations.TLS, integrations.STARTTLS, integrations.NoTLS} {
		peer := integrationstest.NewMail(t, security)
		peer.Deliver(answer(1))
		peer.Deliver(answer(2))
		ids, cursor, more := fetch(t, peer, integrations.Cursor{}, 10)
		if len(ids) > 0 || more || cursor.Validity == 0 || cursor.UID != 2 {
			t.Fatalf("%s, the first time: got %v, %+v, %v; want nothing, up to message 2", security, ids, cursor, more)
		}
		if ids, next, more := fetch(t, peer, cursor, 10); len(ids) > 0 || more || next != cursor {
			t.Errorf("with nothing new: got %v, %+v, %v; want nothing", ids, next, more)
		}
		for n := 3; n <= 7; n++ {
			peer.Deliver(answer(n))
		}
		stored, err := json.Marshal(cursor)
		if err != nil {
			t.Fatal(err)
		}
		cursor = integrations.Cursor{}
		if err := json.Unmarshal(stored, &cursor); err != nil {
			t.Fatal(err)
		}
		ids, cursor, more = fetch(t, peer, cursor, 3)
		if strings.Join(ids, " ") != "answer-3 answer-4 answer-5" || !more {
			t.Errorf("got %v, %v; want 3 to 5 and more", ids, more)
		}
		ids, cursor, more = fetch(t, peer, cursor, 3)
		if strings.Join(ids, " ") != "answer-6 answer-7" || more || cursor.UID != 7 {
			t.Errorf("got %v, %+v, %v; want 6 and 7", ids, cursor, more)
		}
	}
}

func TestEmptyMailboxIsReadFromTheStart(t *testing.T) {
	peer := integrationstest.NewMail(t, integrations.TLS)
	ids, cursor, _ := fetch(t, peer, integrations.Cursor{}, 10)
	if len(ids) > 0 || cursor.Validity == 0 {
		t.Fatalf("got %v, %+v", ids, cursor)
	}
	peer.Deliver(answer(1))
	if ids, _, _ = fetch(t, peer, cursor, 10); strings.Join(ids, " ") != "answer-1" {
		t.Errorf("got %v, want answer-1", ids)
	}
}

func TestReceivedMessageIsWhole(t *testing.T) {
	peer := integrationstest.NewMail(t, integrations.TLS)
	_, cursor, _ := fetch(t, peer, integrations.Cursor{}, 10)
	peer.Deliver(answer(1))
	got, _, _, err := peer.IMAP.Fetch(t.Context(), peer.Network(), cursor, 10)
	if err != nil || len(got) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	r := got[0]
	if r.UID != 1 || r.MessageID != "answer-1@example.org" || r.InReplyTo != "msg_01hx@pager.example.com" || r.From != (mail.Address{Name: "Ada", Address: "ada@example.org"}) ||
		r.Subject != "Re: 1" || r.Text != "Answer 1." || !r.Date.Equal(time.Date(2026, 3, 5, 5, 7, 8, 0, time.UTC)) || r.Truncated || r.Automatic || r.Bounce != nil {
		t.Errorf("got %+v", r)
	}
}

// When the server numbers its messages anew, nothing that came in between is
// lost, and the past is not imported.
func TestMailboxIsRenumbered(t *testing.T) {
	peer := integrationstest.NewMail(t, integrations.TLS)
	noon := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	peer.DeliverAt(answer(1), noon.Add(-48*time.Hour))
	peer.DeliverAt(answer(2), noon.Add(-time.Hour))
	peer.DeliverAt(answer(3), noon)
	_, cursor, _ := fetch(t, peer, integrations.Cursor{}, 10)
	peer.Renumber()
	peer.DeliverAt(answer(1), noon.Add(-48*time.Hour))
	peer.DeliverAt(answer(2), noon.Add(-time.Hour))
	peer.DeliverAt(answer(3), noon)
	peer.DeliverAt(answer(4), noon.Add(time.Minute))
	ids, next, _ := fetch(t, peer, cursor, 10)
	if strings.Join(ids, " ") != "answer-3 answer-4" || next.Validity == cursor.Validity || next.UID != 4 {
		t.Errorf("got %v, %+v; want answer-3, which is the last that was read, and answer-4", ids, next)
	}
	if ids, _, _ = fetch(t, peer, next, 10); len(ids) > 0 {
		t.Errorf("once more: got %v, want nothing", ids)
	}
}

func TestHugeMessageIsCut(t *testing.T) {
	peer := integrationstest.NewMail(t, integrations.TLS)
	_, cursor, _ := fetch(t, peer, integrations.Cursor{}, 10)
	head := "From: ada@example.org\nMessage-ID: <huge@example.org>\n"
	peer.Deliver(head + "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nSee the file.\n--b\n" +
		"Content-Type: application/pdf\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat(strings.Repeat("QUJD", 19)+"\n", 140_000) + "--b--\n")
	peer.Deliver(head + "\n" + strings.Repeat("all text ", 300_000))
	peer.Deliver(answer(1))
	got, _, more, err := peer.IMAP.Fetch(t.Context(), peer.Network(), cursor, 10)
	if err != nil || len(got) != 3 || more {
		t.Fatalf("got %d messages, more %v, %v; want 3", len(got), more, err)
	}
	if r := got[0]; r.Text != "See the file." || !r.Truncated || r.MessageID != "huge@example.org" {
		t.Errorf("got %.100q, truncated %v", r.Text, r.Truncated)
	}
	if r := got[1]; len(r.Text) > 1<<20 || len(r.Text) < 1<<20-1000 || !r.Truncated {
		t.Errorf("got %d bytes, truncated %v; want 1 MiB of it", len(r.Text), r.Truncated)
	}
	if r := got[2]; r.Truncated || r.Text != "Answer 1." {
		t.Errorf("got %+v", r)
	}
}

func TestMailboxThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct {
		fault integrationstest.Fault
		code  string
		text  string
	}{
		{integrationstest.BadLogin, "AUTHENTICATIONFAILED", "login as"},
		{integrationstest.OtherName, "", "certificate"},
		{integrationstest.Untrusted, "", "certificate"},
		{integrationstest.Hang, "", ""},
		{integrationstest.Drop, "", ""},
	} {
		for _, security := range []integrations.Security{integrations.TLS, integrations.STARTTLS} {
			t.Run(string(security)+"/"+string(tt.fault), func(t *testing.T) {
				peer := integrationstest.NewMail(t, security)
				_, cursor, _ := fetch(t, peer, integrations.Cursor{}, 10)
				peer.Deliver(answer(1))
				peer.Fail(tt.fault)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					select {
					case <-peer.Held():
						cancel()
					case <-ctx.Done():
					}
				}()
				got, next, more, err := peer.IMAP.Fetch(ctx, peer.Network(), cursor, 10)
				code := tt.code
				if f, ok := err.(*integrations.Failure); ok && tt.fault == integrationstest.Drop {
					code = f.Code
				}
				check(t, err, integrations.Temporary, code, tt.text)
				if len(got) > 0 || next != cursor || more {
					t.Errorf("got %v, %+v, %v; want the cursor as it was", got, next, more)
				}
				peer.Fail("")
				peer.Release()
				if ids, _, _ := fetch(t, peer, cursor, 10); strings.Join(ids, " ") != "answer-1" {
					t.Errorf("afterwards: got %v, want the message", ids)
				}
			})
		}
	}
}
