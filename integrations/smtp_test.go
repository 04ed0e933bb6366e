package integrations_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
)

// letter returns a letter as an agent may write it.
func letter() integrations.Letter {
	return integrations.Letter{
		MessageID: "msg_01hx@pager.example.com", Date: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		From: mail.Address{Name: "Jürgen vom Team", Address: "team@example.com"},
		To:   []string{"Ada Lovelace <ada@example.org>"}, CC: []string{"carl@example.org"}, BCC: []string{"secret@example.org"},
		Subject: "Grüße", Text: "Hello Ada,\nhow are you?\n",
		InReplyTo: "abc@example.org", References: []string{"first@example.org", "abc@example.org"},
	}
}

// text returns the header and the text of a letter, as a mail program reads it.
func text(t *testing.T, raw string) (mail.Header, string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	body := m.Body
	switch enc := m.Header.Get("Content-Transfer-Encoding"); enc {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "8bit", "7bit":
	default:
		t.Fatalf("encoding %q", enc)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return m.Header, strings.ReplaceAll(string(b), "\r\n", "\n")
}

func TestLetterArrivesAsItWasWritten(t *testing.T) {
	for _, security := range []integrations.Security{integrations.TLS, integrations.STARTTLS, integrations.NoTLS} {
		peer := integrationstest.NewMail(t, security)
		for _, tt := range []struct{ name, subject, text string }{
			{"plain", "Hello", "Hello Ada,\n\nhow are you?\n"},
			{"umlauts and emoji", "Grüße 👩‍👩‍👧 aus Köln", "Schöne Grüße 👩‍👩‍👧\nمرحبا\n"},
			{"dots", ".", ".\n..\n.leading\nend.\n.\n"},
			{"long line", strings.Repeat("long subject ", 20), strings.Repeat("a very long line ", 500) + "\n"},
			{"long word", strings.Repeat("x", 500), strings.Repeat("y", 5000) + "\n"},
			{"spaces", "two  spaces   and more  at the fold of the header, which is quite long  ok", "trailing space \n\ttab\t\n  two\n \n"},
			{"looks like a header", "=?utf-8?q?hidden?=", "From: somebody\nBcc: x@example.com\n\nFrom the start\n"},
			{"hidden characters stay", "zero\u200bwidth", "a\u200bb \u202eevil\u202c \u00a0\u00ad\n"},
			{"equals signs", "a=b", "a=3D=\n=20\n"},
			{"CRLF", "x", "one\r\ntwo\r\n"},
			{"no end", "x", "no line end"},
			{"empty", "", ""},
		} {
			t.Run(string(security)+"/"+tt.name, func(t *testing.T) {
				l := letter()
				l.Subject, l.Text = tt.subject, tt.text
				if err := peer.SMTP.Send(t.Context(), peer.Network(), l); err != nil {
					t.Fatal(err)
				}
				got := peer.Next()
				if got.From != "team@example.com" || strings.Join(got.To, " ") != "ada@example.org carl@example.org secret@example.org" ||
					got.User != integrationstest.MailUser || got.TLS != (security != integrations.NoTLS) {
					t.Errorf("envelope = %+v", got)
				}
				h, body := text(t, got.Raw)
				want := strings.ReplaceAll(tt.text, "\r\n", "\n")
				if !strings.HasSuffix(want, "\n") {
					want += "\n"
				}
				if body != want {
					t.Errorf("text = %q, want %q", body, want)
				}
				subject, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
				if err != nil || subject != tt.subject {
					t.Errorf("subject = %q (%v), want %q", subject, err, tt.subject)
				}
				for name, want := range map[string]string{
					"Message-Id": "<msg_01hx@pager.example.com>", "In-Reply-To": "<abc@example.org>", "References": "<first@example.org> <abc@example.org>",
					"To": `"Ada Lovelace" <ada@example.org>`, "Cc": "<carl@example.org>", "Bcc": "", "Auto-Submitted": "", "User-Agent": "", "X-Mailer": "",
					"Date": "Wed, 04 Mar 2026 05:06:07 +0000", "Content-Type": "text/plain; charset=UTF-8",
				} {
					if got := strings.Join(h[name], "|"); got != want {
						t.Errorf("%s = %q, want %q", name, got, want)
					}
				}
				if from, err := mail.ParseAddress(h.Get("From")); err != nil || *from != l.From {
					t.Errorf("From = %q (%v), want %v", h.Get("From"), err, l.From)
				}
				if strings.Contains(got.Raw, "secret@") {
					t.Errorf("the letter names who gets it in secret:\n%s", got.Raw)
				}
				for line := range strings.SplitSeq(got.Raw, "\r\n") {
					if len(line) > 998 || strings.ContainsAny(line, "\r\n") { // RFC 5322 §2.1.1
						t.Errorf("a line of %d bytes, or a bare CR or LF", len(line))
					}
				}
			})
		}
	}
}

func TestLetterThatCannotBeWrittenIsRefusedAndNotSent(t *testing.T) {
	peer := integrationstest.NewMail(t, integrations.TLS)
	for _, tt := range []struct {
		name   string
		change func(*integrations.Letter)
	}{
		{"line break in the subject", func(l *integrations.Letter) { l.Subject = "x\r\nBcc: evil@example.com" }},
		{"LF in the subject", func(l *integrations.Letter) { l.Subject = "x\nBcc: evil@example.com" }},
		{"NUL in the subject", func(l *integrations.Letter) { l.Subject = "x\x00" }},
		{"invalid subject", func(l *integrations.Letter) { l.Subject = "\xff" }},
		{"line break in a receiver", func(l *integrations.Letter) { l.To = []string{"ada@example.org>\r\nRCPT TO:<evil@example.com"} }},
		{"folded receiver", func(l *integrations.Letter) { l.To = []string{"Ada\r\n <ada@example.org>"} }},
		{"line break in a copy", func(l *integrations.Letter) { l.CC = []string{"\"a\nb\" <ada@example.org>"} }},
		{"two receivers in one", func(l *integrations.Letter) { l.BCC = []string{"a@example.org, b@example.org"} }},
		{"quoted local part with spaces", func(l *integrations.Letter) { l.To = []string{`"a b"@example.org`} }},
		{"encoded word as a name", func(l *integrations.Letter) { l.To = []string{"\"=?utf-8?q?Bob?=\" <ada@example.org>"} }},
		{"line break in the sender", func(l *integrations.Letter) { l.From.Name = "x\r\nX-Evil: 1" }},
		{"line break in the message id", func(l *integrations.Letter) { l.MessageID = "a@b\r\nX-Evil: 1" }},
		{"no message id", func(l *integrations.Letter) { l.MessageID = "" }},
		{"brackets in the message id", func(l *integrations.Letter) { l.MessageID = "<a@b>" }},
		{"line break in the reply", func(l *integrations.Letter) { l.InReplyTo = "a@b\nX: 1" }},
		{"space in the references", func(l *integrations.Letter) { l.References = []string{"a@b> <c@d"} }},
		{"no receiver", func(l *integrations.Letter) { l.To, l.CC, l.BCC = nil, nil, nil }},
		{"too many receivers", func(l *integrations.Letter) { l.To = make([]string, 101) }},
		{"carriage return in the text", func(l *integrations.Letter) { l.Text = "a\rb" }},
		{"NUL in the text", func(l *integrations.Letter) { l.Text = "a\x00b" }},
	} {
		l := letter()
		tt.change(&l)
		err := peer.SMTP.Send(t.Context(), peer.Network(), l)
		if integrations.OutcomeOf(err) != integrations.Refused {
			t.Errorf("%s: got %v, want it refused", tt.name, err)
		}
		if _, err := (integrations.Outbox{Folder: t.TempDir()}).Write(l); integrations.OutcomeOf(err) != integrations.Refused {
			t.Errorf("%s, to the outbox: got %v, want it refused", tt.name, err)
		}
	}
	if got := peer.Letters(); len(got) > 0 {
		t.Errorf("got %d letters, want none", len(got))
	}
}

// What a mail server says, or does not say, decides whether a letter is sent
// again.
func TestOutcomeOfALetter(t *testing.T) {
	for _, tt := range []struct {
		fault integrationstest.Fault
		want  integrations.Outcome
		code  string
		text  string
		kept  int // letters that the server has
	}{
		{"", "", "", "", 1},
		{integrationstest.NoAuth, "", "", "", 1},
		{integrationstest.NoSuchReceiver, integrations.Refused, "550", "no such user", 0},
		{integrationstest.MailboxFull, integrations.Refused, "552", "over quota", 0},
		{integrationstest.Greylist, integrations.Temporary, "451", "greylisted", 0},
		{integrationstest.NotThisSender, integrations.Temporary, "553", "not your address", 0},
		{integrationstest.BadLogin, integrations.Temporary, "535", "wrong user", 0},
		{integrationstest.OtherName, integrations.Temporary, "", "certificate", 0},
		{integrationstest.Untrusted, integrations.Temporary, "", "certificate", 0},
		{integrationstest.Hang, integrations.Temporary, "", "timeout", 0},
		{integrationstest.HangAfterData, integrations.Unknown, "", "no answer to the message", 1},
		{integrationstest.Drop, integrations.Unknown, "", "no answer to the message", 1},
	} {
		for _, security := range []integrations.Security{integrations.TLS, integrations.STARTTLS} {
			t.Run(string(security)+"/"+string(tt.fault), func(t *testing.T) {
				peer := integrationstest.NewMail(t, security)
				peer.Fail(tt.fault)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					select {
					case <-peer.Held(): // the client would wait for long
						cancel()
					case <-ctx.Done():
					}
				}()
				err := peer.SMTP.Send(ctx, peer.Network(), letter())
				check(t, err, tt.want, tt.code, tt.text)
				if got := len(peer.Letters()); got != tt.kept {
					t.Errorf("the server has %d letters, want %d", got, tt.kept)
				}
			})
		}
	}
}

// check compares what became of a call with what ought to, and looks for
// secrets in the error.
func check(t *testing.T, err error, want integrations.Outcome, code, text string) {
	t.Helper()
	if got := integrations.OutcomeOf(err); got != want {
		t.Fatalf("got %q: %v; want %q", got, err, want)
	}
	if err == nil {
		return
	}
	f, ok := err.(*integrations.Failure)
	if !ok {
		t.Fatalf("got a %T, want a *Failure", err)
	}
	if f.Code != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got code %q, %q; want code %q and %q", f.Code, err, code, text)
	}
	for _, secret := range []string{integrationstest.MailPassword, integrationstest.TwilioToken, integrationstest.ModelKey,
		base64.StdEncoding.EncodeToString([]byte("\x00" + integrationstest.MailUser + "\x00" + integrationstest.MailPassword)),
		base64.StdEncoding.EncodeToString([]byte(integrationstest.MailPassword)),
		base64.StdEncoding.EncodeToString([]byte(integrationstest.TwilioSID + ":" + integrationstest.TwilioToken))} {
		for e := error(f); e != nil; e = unwrapped(e) {
			if strings.Contains(e.Error(), secret) {
				t.Errorf("a secret shows in %q", e)
			}
		}
	}
}

func unwrapped(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

func TestMailServerThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	n := integrations.Network{Guard: integrationstest.Loopback()}
	account := integrations.SMTPAccount{Host: "127.0.0.1", Port: port, Security: integrations.TLS}
	check(t, account.Send(t.Context(), n, letter()), integrations.Temporary, "", "refused")
	check(t, integrations.IMAPAccount{Host: "127.0.0.1", Port: port, Security: integrations.TLS}.Check(t.Context(), n), integrations.Temporary, "", "refused")
}

func TestAccountsAreChecked(t *testing.T) {
	for _, security := range []integrations.Security{integrations.TLS, integrations.STARTTLS, integrations.NoTLS} {
		peer := integrationstest.NewMail(t, security)
		n := peer.Network()
		if err := peer.SMTP.Check(t.Context(), n); err != nil {
			t.Errorf("%s: SMTP: %v", security, err)
		}
		if err := peer.IMAP.Check(t.Context(), n); err != nil {
			t.Errorf("%s: IMAP: %v", security, err)
		}
		bad := peer.SMTP
		bad.Password = "wrong"
		check(t, bad.Check(t.Context(), n), integrations.Temporary, "535", "login as team@example.com")
		mailbox := peer.IMAP
		mailbox.Mailbox = "Nowhere"
		check(t, mailbox.Check(t.Context(), n), integrations.Temporary, "NONEXISTENT", "mailbox Nowhere")
		peer.Fail(integrationstest.BadLogin)
		check(t, peer.SMTP.Check(t.Context(), n), integrations.Temporary, "535", "wrong user or password [password]")
		check(t, peer.IMAP.Check(t.Context(), n), integrations.Temporary, "AUTHENTICATIONFAILED", "wrong password [password]")
		if len(peer.Letters()) > 0 {
			t.Errorf("%s: a check sent a letter", security)
		}
	}
}

// A server that does not speak TLS, or no longer does because somebody stands in
// between, never sees the password.
func TestPasswordNeverTravelsInPlainText(t *testing.T) {
	peer := integrationstest.NewMail(t, integrations.NoTLS)
	n := peer.Network()
	for _, security := range []integrations.Security{integrations.STARTTLS, integrations.TLS, "", "ssl"} {
		account, mailbox := peer.SMTP, peer.IMAP
		account.Security, mailbox.Security = security, security
		for _, err := range []error{account.Check(t.Context(), n), account.Send(t.Context(), n, letter()), mailbox.Check(t.Context(), n)} {
			if integrations.OutcomeOf(err) != integrations.Temporary {
				t.Errorf("%q: got %v, want a temporary failure", security, err)
			}
		}
	}
	account, mailbox := peer.SMTP, peer.IMAP
	account.Host, mailbox.Host = "mail.example.com", "mail.example.com"
	check(t, account.Check(t.Context(), n), integrations.Temporary, "", "without TLS the password could be read")
	check(t, mailbox.Check(t.Context(), n), integrations.Temporary, "", "without TLS the password could be read")
}

func TestLetterToTheOutboxIsWrittenOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "outbox")
	o := integrations.Outbox{Folder: dir}
	l := letter()
	l.Text = "Grüße\n.\n" + strings.Repeat("long ", 100) + "\n"
	path, err := o.Write(l)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if h, body := text(t, string(raw)); body != l.Text || h.Get("Message-Id") != "<"+l.MessageID+">" || bytes.Contains(raw, []byte("secret@")) {
		t.Errorf("got %v, %q", h, body)
	}
	again := l
	again.Text = "another"
	if p, err := o.Write(again); err != nil || p != path {
		t.Errorf("the second time: got %q, %v; want %q", p, err, path)
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, raw) {
		t.Error("the second letter with the id replaced the first")
	}
	for _, id := range []string{"../../evil@x", "a/b@x", ".hidden@x", "ABC@x", "abc@x", strings.Repeat("x", 400) + "@x"} {
		l.MessageID = id
		p, err := o.Write(l)
		if err != nil || filepath.Dir(p) != dir {
			t.Errorf("%q: got %q, %v; want a file in %s", id, p, err, dir)
		}
	}
	if all, _ := os.ReadDir(dir); len(all) != 7 {
		t.Errorf("%d files, want 7", len(all))
	}
}
