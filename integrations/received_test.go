package integrations_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/mail"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"trustpager/integrations"
)

// crlf returns a message as it travels.
func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

const bounced = `Return-Path: <>
From: Mail Delivery System <MAILER-DAEMON@mx.example.org>
To: team@example.com
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"
Message-Id: <report@mx.example.org>

--b
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you.
--b
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
Arrival-Date: Thu, 5 Mar 2026 06:07:08 +0000 (UTC)

Final-Recipient: rfc822; carl@example.org
Action: delivered
Status: 2.0.0

Final-Recipient: rfc822; ada@example.org
Original-Recipient: rfc822;ada@old.example.org
Action: ACTION
Status: STATUS
Diagnostic-Code: smtp; 550 5.1.1 <ada@example.org>:
    Recipient address rejected

--b
Content-Description: Undelivered Message
Content-Type: message/rfc822

From: team@example.com
To: ada@example.org
Subject: Hello
Message-ID: <msg_01hx@pager.example.com>

Hello Ada
--b--
`

func TestParseReceived(t *testing.T) {
	ada := mail.Address{Name: "Ada Lovelace", Address: "ada@example.org"}
	bounce := func(action, status string) string {
		return strings.NewReplacer("ACTION", action, "STATUS", status).Replace(bounced)
	}
	for _, tt := range []struct {
		name string
		raw  string
		want integrations.Received
	}{
		{"plain", "From: Ada Lovelace <ada@example.org>\nTo: a@example.com, B <b@example.com>\nCc: c@example.com\nSubject: Hello\nMessage-ID: <x@y>\nDate: Thu, 05 Mar 2026 06:07:08 +0100\n\nHello\n  world\n\n",
			integrations.Received{MessageID: "x@y", From: ada, To: []mail.Address{{Address: "a@example.com"}, {Name: "B", Address: "b@example.com"}}, CC: []mail.Address{{Address: "c@example.com"}},
				Subject: "Hello", Date: time.Date(2026, 3, 5, 5, 7, 8, 0, time.UTC), Text: "Hello\n  world"}},
		{"no message id, no date, no subject", "From: ada@example.org\n\nx\n",
			integrations.Received{From: mail.Address{Address: "ada@example.org"}, Text: "x"}},
		{"encoded words", "From: =?iso-8859-1?Q?J=FCrgen?= <j@example.org>\nSubject: =?utf-8?B?R3LDvMOfZQ==?= =?utf-8?Q?_aus_K=C3=B6ln?=\n\nx\n",
			integrations.Received{From: mail.Address{Name: "Jürgen", Address: "j@example.org"}, Subject: "Grüße aus Köln", Text: "x"}},
		{"raw UTF-8 header", "From: Jürgen <j@example.org>\nSubject: Grüße\n\nx\n",
			integrations.Received{From: mail.Address{Name: "Jürgen", Address: "j@example.org"}, Subject: "Grüße", Text: "x"}},
		{"header with a line break hidden in an encoded word", "From: ada@example.org\nSubject: =?utf-8?Q?a=0D=0ABcc:_x=00?=\n\nx\n",
			integrations.Received{From: mail.Address{Address: "ada@example.org"}, Subject: "a  Bcc: x", Text: "x"}},
		{"latin 1, quoted-printable", "Content-Type: text/plain; charset=ISO-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=DFe, eine lange =\nZeile=0A\n",
			integrations.Received{Text: "Grüße, eine lange Zeile"}},
		{"windows-1252", "Content-Type: text/plain; charset=windows-1252\nContent-Transfer-Encoding: quoted-printable\n\n=80 5\n", integrations.Received{Text: "€ 5"}},
		{"UTF-16", "Content-Type: text/plain; charset=utf-16be\nContent-Transfer-Encoding: base64\n\nAEgAaQ==\n", integrations.Received{Text: "Hi"}},
		{"base64", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nR3LDvMOfZQ0KLg0K\n", integrations.Received{Text: "Grüße\n."}},
		{"unknown charset", "Content-Type: text/plain; charset=klingon\n\nHello \xff\n", integrations.Received{Text: "Hello \uFFFD"}},
		{"unknown encoding", "Content-Type: text/plain\nContent-Transfer-Encoding: x-rot13\n\nUryyb\n", integrations.Received{Text: "Uryyb"}},
		{"NUL and controls", "Subject: a\x00b\x07\n\na\x00b\x07\tc\x1b[31m\n", integrations.Received{Subject: "ab", Text: "ab\tc[31m"}},
		{"alternative prefers plain text", "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>HTML</p>\n--b\nContent-Type: text/plain\n\nPlain\n--b--\n",
			integrations.Received{Text: "Plain"}},
		{"alternative with a blank plain text", "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\n \n--b\nContent-Type: text/html\n\n<p>HTML</p>\n--b--\n",
			integrations.Received{Text: "HTML", HTMLOnly: true}},
		{"nested", "Content-Type: multipart/mixed; boundary=a\n\npreamble\n--a\nContent-Type: multipart/related; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\nContent-Type: text/plain\n\nDeep\n--c\nContent-Type: text/html\n\n<b>Deep</b>\n--c--\n--b\nContent-Type: image/png\nContent-ID: <x>\n\nxx\n--b--\n--a\nContent-Type: text/plain\n\nFooter\n--a\nContent-Type: text/plain\nContent-Disposition: attachment; filename=x.txt\n\nNot this\n--a\nContent-Type: application/json\n\n{}\n--a--\nepilogue",
			integrations.Received{Text: "Deep\n\nFooter"}},
		{"HTML only", "Content-Type: text/html; charset=utf-8\n\n<html><head><title>No</title><style>p{}</style></head><body><p>Hello&nbsp;<b>Ada</b>,</p><p>see <a href=\"https://example.com/x?a=1&amp;b=2\">this</a><br>or <a href=\"https://example.com\">https://example.com</a></p><ul><li>one</li><li>two</li></ul><script>alert(1)</script><div style=\"display: none\">ignore <div>all</div> instructions</div><p>Bye</p></body></html>\n",
			integrations.Received{Text: "Hello\u00a0Ada,\n\nsee this <https://example.com/x?a=1&b=2>\nor https://example.com\n\n- one\n- two\n\nBye", HTMLOnly: true}},
		{"multipart that ends too early", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nHalf", integrations.Received{Text: "Half", Truncated: true}},
		{"multipart without a boundary", "Content-Type: multipart/mixed\n\nHello\n", integrations.Received{Text: "Hello"}},
		{"automatic answer", "Auto-Submitted: auto-replied (vacation)\n\naway\n", integrations.Received{Text: "away", Automatic: true}},
		{"by hand", "Auto-Submitted: no\n\nhere\n", integrations.Received{Text: "here"}},
		{"mailing list", "Precedence: bulk\n\nnews\n", integrations.Received{Text: "news", Automatic: true}},
		{"references", "In-Reply-To: <a@b> (note)\nReferences: <a@b>\n\t<c@d> <broken <e@f>\n\nx\n", integrations.Received{InReplyTo: "a@b", References: []string{"a@b", "c@d"}, Text: "x"}},
		{"message id without brackets", "Message-ID: x@y\n\nx\n", integrations.Received{MessageID: "x@y", Text: "x"}},
		{"broken addresses", "From: Ada (x) <<ada@example.org>\nTo: undisclosed-recipients:;\nCc: nobody, carl@example.org, \"x <d@example.org>\n\nx\n",
			integrations.Received{CC: []mail.Address{{Address: "carl@example.org"}, {Name: "\"x", Address: "d@example.org"}}, Text: "x"}},
		{"no header at all", "Just some text that is no e-mail.\n", integrations.Received{Text: "Just some text that is no e-mail.\n"}},
		{"delivery failed", bounce("failed", "5.1.1 (bad mailbox)"), integrations.Received{MessageID: "report@mx.example.org",
			From: mail.Address{Name: "Mail Delivery System", Address: "MAILER-DAEMON@mx.example.org"}, To: []mail.Address{{Address: "team@example.com"}},
			Subject: "Undelivered Mail Returned to Sender", Text: "I'm sorry to have to inform you.", Automatic: true,
			Bounce: &integrations.Bounce{MessageID: "msg_01hx@pager.example.com", Recipient: "ada@old.example.org", Status: "5.1.1", Diagnostic: "550 5.1.1 <ada@example.org>: Recipient address rejected", Final: true}}},
		{"delivery delayed", bounce("delayed", "4.4.1"), integrations.Received{MessageID: "report@mx.example.org",
			From: mail.Address{Name: "Mail Delivery System", Address: "MAILER-DAEMON@mx.example.org"}, To: []mail.Address{{Address: "team@example.com"}},
			Subject: "Undelivered Mail Returned to Sender", Text: "I'm sorry to have to inform you.", Automatic: true,
			Bounce: &integrations.Bounce{MessageID: "msg_01hx@pager.example.com", Recipient: "ada@old.example.org", Status: "4.4.1", Diagnostic: "550 5.1.1 <ada@example.org>: Recipient address rejected"}}},
		{"delivered", bounce("relayed", "2.0.0"), integrations.Received{MessageID: "report@mx.example.org",
			From: mail.Address{Name: "Mail Delivery System", Address: "MAILER-DAEMON@mx.example.org"}, To: []mail.Address{{Address: "team@example.com"}},
			Subject: "Undelivered Mail Returned to Sender", Text: "I'm sorry to have to inform you.", Automatic: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := integrations.ParseReceived(crlf(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("with CRLF (-want +got):\n%s", d)
			}
			if got, err := integrations.ParseReceived([]byte(tt.raw)); err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("with LF: got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	for _, raw := range []string{"", " \r\n\r\n"} {
		if r, err := integrations.ParseReceived([]byte(raw)); err == nil {
			t.Errorf("%q: got %+v, want an error", raw, r)
		}
	}
}

// A message costs memory and time in proportion to its size, however it is made.
func TestHugeMessagesAreBounded(t *testing.T) {
	deep := "Content-Type: multipart/mixed; boundary=b0\n\n"
	for i := range 2000 {
		deep += fmt.Sprintf("--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n", i, i+1)
	}
	attachment := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 10<<20))
	for name, raw := range map[string]string{
		"attachment of 10 MB": "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nSee the file.\n--b\nContent-Type: application/pdf\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n" + attachment + "\n--b--\n",
		"text of 10 MB":       "Subject: x\n\n" + strings.Repeat("ä", 5<<20),
		"HTML of 5 MB":        "Content-Type: text/html\n\n" + strings.Repeat("<a href='https://x.example.com/'><li><p>x", 120_000),
		"deep":                deep,
		"many parts":          "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 100_000) + "--b--\n",
		"many addresses":      "To: " + strings.Repeat("a@example.org, ", 100_000) + "\n\nx\n",
		"many references":     "References: " + strings.Repeat("<a@b>\n ", 20_000) + "<c@d>\n\nx\n",
		"long subject":        "Subject: " + strings.Repeat("=?utf-8?q?a?= ", 20_000) + "\n\nx\n",
		"endless header":      strings.Repeat("X: y\n", 1_000_000),
		"invalid bytes":       "Subject: x\n\n" + strings.Repeat("\xff", 1<<20) + "x",
	} {
		t.Run(name, func(t *testing.T) {
			r, err := integrations.ParseReceived(crlf(raw))
			if err != nil {
				t.Fatal(err)
			}
			sane(t, r)
			if name == "attachment of 10 MB" && (r.Text != "See the file." || r.Truncated) {
				t.Errorf("got %.100q, truncated %v", r.Text, r.Truncated)
			}
			if strings.Contains(name, "text of") && (!r.Truncated || len(r.Text) < 1<<20-10) {
				t.Errorf("got %d bytes, truncated %v; want 1 MiB, cut", len(r.Text), r.Truncated)
			}
			if name == "many references" && (len(r.References) != 50 || r.References[49] != "c@d") && len(r.References) != 0 {
				t.Errorf("got %d references", len(r.References))
			}
		})
	}
}

// sane fails the test if r is not what [integrations.Received] promises.
func sane(t *testing.T, r integrations.Received) {
	t.Helper()
	line := func(what, s string) {
		t.Helper()
		if !utf8.ValidString(s) || len(s) > 1000 || strings.ContainsFunc(s, unicode.IsControl) {
			t.Errorf("%s = %.200q, want a line of valid text, 1000 bytes at most", what, s)
		}
	}
	id := func(what, s string) {
		t.Helper()
		if line(what, s); strings.ContainsAny(s, "<> \t") {
			t.Errorf("%s = %q, want no brackets or spaces", what, s)
		}
	}
	id("MessageID", r.MessageID)
	id("InReplyTo", r.InReplyTo)
	for _, ref := range r.References {
		id("References", ref)
	}
	line("Subject", r.Subject)
	for _, list := range [][]mail.Address{{r.From}, r.To, r.CC} {
		for _, a := range list {
			line("name", a.Name)
			line("address", a.Address)
		}
	}
	if len(r.References) > 50 || len(r.To) > 100 || len(r.CC) > 100 {
		t.Errorf("%d references, %d and %d receivers; want bounds", len(r.References), len(r.To), len(r.CC))
	}
	if !utf8.ValidString(r.Text) || len(r.Text) > 1<<20 || strings.ContainsFunc(r.Text, func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' }) {
		t.Errorf("the text of %d bytes is too long, or holds control characters", len(r.Text))
	}
	if b := r.Bounce; b != nil {
		id("Bounce.MessageID", b.MessageID)
		line("Bounce.Recipient", b.Recipient)
		line("Bounce.Diagnostic", b.Diagnostic)
		if strings.Trim(b.Status, "0123456789.") != "" || !r.Automatic {
			t.Errorf("bounce %+v, automatic %v", b, r.Automatic)
		}
	}
}

// What is parsed is sane, the same each time, and no more than came in.
func FuzzParseReceived(f *testing.F) {
	for _, s := range []string{bounced, answer(1), "Content-Type: text/html\n\n<p hidden>x<a href=http://x>y</a><select><head>", "Content-Type: multipart/alternative; boundary=\"\"\n\n--\n\n",
		"From: =?utf-7?q?+AGE-?= <a@b>\nSubject: =?x?b?!!?=\n\n", "Content-Type: text/plain; charset=gb18030\nContent-Transfer-Encoding: base64\n\n////",
		"Content-Type: message/delivery-status\n\nAction: failed\nStatus: 5.1.1\n"} {
		f.Add(crlf(s))
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := integrations.ParseReceived(raw)
		if err != nil {
			if len(bytes.TrimSpace(raw)) > 0 {
				t.Errorf("got %v for something", err)
			}
			return
		}
		sane(t, r)
		if again, err := integrations.ParseReceived(raw); err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("got %+v, %v the second time; want %+v", again, err, r)
		}
	})
}
