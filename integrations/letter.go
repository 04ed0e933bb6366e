package integrations

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"
	"golang.org/x/net/idna"

	"trustpager/jobs"
)

// A Letter is an e-mail in plain text that somebody wrote to somebody, by hand
// or with an agent. It goes out as it is: unlike in a [Message], nothing in it
// is made visible or replaced.
type Letter struct {
	MessageID string // as in "id@host", without angle brackets; the same at each try
	Date      time.Time
	From      mail.Address
	To        []string // addresses, perhaps with names
	CC        []string
	BCC       []string // get the letter, and stand nowhere in it
	Subject   string
	// Text is the body. Its lines may end with LF or CRLF, and go out with CRLF;
	// the last one gets an end if it has none.
	Text       string
	InReplyTo  string   // message id without angle brackets, or ""
	References []string // message ids without angle brackets, the oldest first
}

const (
	maxReceivers  = 100
	maxReferences = 50
	maxLetter     = 10 << 20 // bytes of text
)

// build returns the letter as it goes out, or says what in it cannot be
// written. What could begin a further header is refused, not mended: the letter
// would not be what somebody has approved.
func (l Letter) build(options ...gomail.MsgOption) (*gomail.Msg, error) {
	m := gomail.NewMsg(append(options, gomail.WithNoDefaultUserAgent())...)
	if l.From.Address == "" {
		return nil, errors.New("there is no sender")
	}
	from, err := checkAddress(l.From)
	if err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	m.FromMailAddress(from)
	if n := len(l.To) + len(l.CC) + len(l.BCC); n == 0 || n > maxReceivers {
		return nil, fmt.Errorf("there are %d receivers; want 1 to %d", n, maxReceivers)
	}
	for _, list := range []struct {
		name string
		from []string
		set  func(...*mail.Address)
	}{
		{"to", l.To, m.ToMailAddress}, {"cc", l.CC, m.CcMailAddress}, {"bcc", l.BCC, m.BccMailAddress},
	} {
		var all []*mail.Address
		for _, text := range list.from {
			a, err := parseAddress(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", list.name, err)
			}
			all = append(all, a)
		}
		if len(all) > 0 {
			list.set(all...)
		}
	}
	if !isMessageID(l.MessageID) {
		return nil, fmt.Errorf("%.100q is no message id", l.MessageID)
	}
	m.SetMessageIDWithValue(l.MessageID)
	if l.InReplyTo != "" {
		if !isMessageID(l.InReplyTo) {
			return nil, fmt.Errorf("in reply to: %.100q is no message id", l.InReplyTo)
		}
		m.SetGenHeaderPreformatted(gomail.HeaderInReplyTo, "<"+l.InReplyTo+">")
	}
	if len(l.References) > 0 {
		for _, id := range l.References {
			if !isMessageID(id) {
				return nil, fmt.Errorf("references: %.100q is no message id", id)
			}
		}
		ids := l.References
		if len(ids) > maxReferences { // RFC 5537 §3.4.4 keeps the first, too
			ids = append([]string{ids[0]}, ids[len(ids)-maxReferences+1:]...)
		}
		m.SetGenHeaderPreformatted(gomail.HeaderReferences, "<"+strings.Join(ids, ">\r\n <")+">")
	}
	subject, err := encodeSubject(l.Subject)
	if err != nil {
		return nil, err
	}
	m.SetGenHeaderPreformatted(gomail.HeaderSubject, subject)
	m.SetDateWithValue(l.Date)
	if len(l.Text) > maxLetter || !utf8.ValidString(l.Text) {
		return nil, fmt.Errorf("the text is no UTF-8, or longer than %d bytes", maxLetter)
	}
	text := strings.ReplaceAll(l.Text, "\r\n", "\n")
	if strings.Contains(text, "\r") || strings.Contains(text, "\x00") {
		return nil, errors.New("the text holds a carriage return alone or a NUL, which mail cannot hold")
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	m.SetBodyString(gomail.TypeTextPlain, text)
	return m, nil
}

// parseAddress reads an address that may have a name.
func parseAddress(text string) (*mail.Address, error) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return nil, fmt.Errorf("%.100q is not an e-mail address", text)
	}
	a, err := mail.ParseAddress(text)
	if err != nil {
		return nil, fmt.Errorf("%.100q is not an e-mail address", text)
	}
	return checkAddress(*a)
}

// checkAddress refuses addresses that cannot stand in a header, and returns the
// address with its domain as the DNS knows it (RFC 5891).
func checkAddress(a mail.Address) (*mail.Address, error) {
	at := strings.LastIndexByte(a.Address, '@')
	whole := a.Name + a.Address
	if at < 1 || len(a.Address) > 254 || len(a.Name) > 500 || !utf8.ValidString(whole) || strings.Contains(a.Name, "=?") ||
		strings.ContainsFunc(whole, unicode.IsControl) || strings.ContainsFunc(a.Address, unicode.IsSpace) || strings.ContainsAny(a.Address, "<>") {
		return nil, fmt.Errorf("%.200q is not an e-mail address that can be written to", a.String())
	}
	host := a.Address[at+1:]
	if strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return nil, fmt.Errorf("%.100q is no domain", host)
		}
		a.Address = a.Address[:at+1] + ascii
	}
	return &a, nil
}

// isMessageID reports whether s can stand between the angle brackets of a
// message id. It takes what RFC 5322 §3.6.4 allows and the other printable
// characters that are seen in the wild.
func isMessageID(s string) bool {
	return s != "" && len(s) <= 500 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' })
}

// encodeSubject returns the text for a Subject header. Whatever a reader might
// not show as it was written, because of spaces, length, script or what looks
// like an encoded word, goes as encoded words (RFC 2047 §2, at most 75
// characters each).
func encodeSubject(s string) (string, error) {
	if strings.ContainsFunc(s, unicode.IsControl) || !utf8.ValidString(s) || len(s) > 2000 {
		return "", errors.New("the subject holds a line break or another control character, or is longer than 2000 bytes")
	}
	plain := len(s) <= 60 && !strings.Contains(s, "=?") && !strings.Contains(s, "  ") && strings.TrimSpace(s) == s &&
		!strings.ContainsFunc(s, func(r rune) bool { return r >= 0x7f })
	if plain {
		return s, nil
	}
	var words []string
	for s != "" {
		n := 0
		for n < len(s) {
			_, size := utf8.DecodeRuneInString(s[n:])
			if n+size > 45 { // 60 characters of base64
				break
			}
			n += size
		}
		words = append(words, "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, "\r\n "), nil
}

// An Outbox is a folder in which mail waits for the operator, where there is no
// mail server. It may be used concurrently.
type Outbox struct {
	Folder string
}

// Write writes the letter to the folder, which is made if there is none, and
// returns where it is. The file is there as a whole or not at all, and a second
// letter with the same MessageID changes nothing. The names of those in BCC
// stand in no file. A letter that cannot be written at all is a [Failure] with
// [Refused].
func (o Outbox) Write(l Letter) (path string, err error) {
	built, err := l.build(gomail.WithEncoding(gomail.NoEncoding)) // people read the file
	if err != nil {
		return "", failure(Refused, "letter", err)
	}
	return o.write(built, fileName(l.MessageID))
}

// fileName returns the name of a file that the id, and no other, has.
func fileName(id string) string {
	strange := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._@-", r) // some file systems fold case
	}
	if len(id) > 200 || id == "" || id[0] == '.' || strings.ContainsFunc(id, strange) {
		sum := sha256.Sum256([]byte(id))
		return "sha256~" + hex.EncodeToString(sum[:])
	}
	return id
}

// write writes the message as name.eml unless there is such a file.
func (o Outbox) write(built *gomail.Msg, name string) (path string, err error) {
	if o.Folder == "" {
		return "", jobs.Permanent(errNowhere)
	}
	if err := os.MkdirAll(o.Folder, 0o700); err != nil {
		return "", fmt.Errorf("outbox: %w", err)
	}
	path = filepath.Join(o.Folder, name+".eml")
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	f, err := os.CreateTemp(o.Folder, ".*.eml") // mode 0600
	if err != nil {
		return "", fmt.Errorf("outbox: %w", err)
	}
	defer os.Remove(f.Name()) // gone already if it was renamed
	_, err = built.WriteTo(f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("outbox: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("outbox: %w", err)
	}
	return path, syncFolder(o.Folder)
}

// errNowhere says that the operator has set up nothing that mail could go to.
var errNowhere = errors.New("there is no mail server and no outbox")

// syncFolder makes the names in the folder survive a power cut.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}
