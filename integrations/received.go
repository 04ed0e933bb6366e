package integrations

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/charset" // also makes go-message read the usual charsets
)

// A Received is an e-mail that came in, as far as it matters here. All of it was
// written by others, the addresses included. Its texts are valid UTF-8 without
// control characters; those of headers are on one line.
type Received struct {
	UID        uint32 // of the mailbox it was fetched from, or 0
	MessageID  string // without angle brackets; "" if it has none
	InReplyTo  string // without angle brackets
	References []string
	From       mail.Address
	To, CC     []mail.Address
	Subject    string
	Date       time.Time // as the sender says, or else when it arrived; zero if unknown
	Text       string    // the text for people, lines ending with LF; of HTML only what is seen
	Truncated  bool      // there is more than was read
	HTMLOnly   bool      // Text was made of HTML
	Automatic  bool      // a program sent it, so that no program should answer (RFC 3834)
	Bounce     *Bounce   // what it reports about a letter, or nil
}

// A Bounce is what a mail server reports about a letter that it could not
// deliver, or not yet (RFC 3464).
type Bounce struct {
	MessageID  string // of the letter, without angle brackets; "" if the report does not say
	Recipient  string // address
	Status     string // as in "5.1.1" (RFC 3463)
	Diagnostic string // what the other server said
	Final      bool   // it has been given up; otherwise it is still tried
}

// The bounds of what is read of a message.
const (
	maxText       = 1 << 20 // bytes of text
	maxLine       = 1000    // bytes of a header's text
	maxAddresses  = 100
	maxDepth      = 10  // multiparts in multiparts
	maxParts      = 200 // of all depths
	maxMIMEHeader = 256 << 10
)

// errNoMail says that there is nothing to read.
var errNoMail = errors.New("this is no e-mail: it is empty")

// ParseReceived reads an e-mail (RFC 5322, MIME). It takes nearly everything for
// one: what cannot be decoded stands in the text as far as it is text. It fails
// only if there is nothing at all. Of a raw message longer than 25 MiB the rest
// is not looked at.
func ParseReceived(raw []byte) (Received, error) {
	const most = 25 << 20
	r := Received{Truncated: len(raw) > most}
	raw = raw[:min(len(raw), most)]
	if len(bytes.TrimSpace(raw)) == 0 {
		return Received{}, errNoMail
	}
	p := parser{received: &r}
	e, err := message.ReadWithOptions(bytes.NewReader(raw), &message.ReadOptions{MaxHeaderBytes: maxMIMEHeader})
	if e == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
		r.Text, r.Truncated = limit(cleanText(limit(string(raw), maxText)), maxText), r.Truncated || len(raw) > maxText
		return r, nil
	}
	p.header(e.Header)
	c := p.part(e, 0)
	r.Text, r.HTMLOnly = limit(c.text, maxText), c.html
	if r.Bounce != nil {
		r.Automatic = true
		if r.Bounce.MessageID == "" {
			r.Bounce.MessageID = p.returned
		}
		if r.Bounce.MessageID == "" {
			r.Bounce.MessageID = r.InReplyTo
		}
	}
	return r, nil
}

// A parser reads one message.
type parser struct {
	received *Received
	parts    int
	size     int    // bytes of text so far
	returned string // message id of the letter that a report returns
}

// header reads what stands in the header of the message.
func (p *parser) header(h message.Header) {
	r := p.received
	r.MessageID = first(messageIDs(h.Get("Message-Id")))
	r.InReplyTo = first(messageIDs(h.Get("In-Reply-To")))
	r.References = messageIDs(h.Get("References"))
	if n := len(r.References); n > maxReferences {
		r.References = append(r.References[:1:1], r.References[n-maxReferences+1:]...)
	}
	if from := addresses(h.Get("From")); len(from) > 0 {
		r.From = from[0]
	}
	r.To, r.CC = addresses(h.Get("To")), addresses(h.Get("Cc"))
	r.Subject = decodeLine(h.Get("Subject"))
	if date, err := mail.ParseDate(h.Get("Date")); err == nil && date.Year() >= 1970 && date.Year() <= 9999 {
		r.Date = date.UTC()
	}
	word := func(name string) string {
		w, _, _ := strings.Cut(strings.ToLower(h.Get(name)), ";")
		return strings.TrimSpace(w)
	}
	auto := word("Auto-Submitted") // RFC 3834 §5
	r.Automatic = auto != "" && auto != "no" ||
		slices.Contains([]string{"bulk", "junk", "list", "auto_reply"}, word("Precedence")) ||
		h.Has("X-Autoreply") || h.Has("X-Autorespond") || word("Return-Path") == "<>"
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// messageIDs returns the message ids of a header, without angle brackets. An id
// may stand without them, as some programs write it, if it is alone.
func messageIDs(s string) []string {
	var ids []string
	rest := s
	for {
		_, after, ok := strings.Cut(rest, "<")
		if !ok {
			break
		}
		id, next, ok := strings.Cut(after, ">")
		if !ok {
			break
		}
		if id = strings.Join(strings.Fields(id), ""); isMessageID(id) { // folded within
			ids = append(ids, id)
		}
		rest = next
	}
	if id := strings.TrimSpace(s); ids == nil && strings.Contains(id, "@") && isMessageID(id) {
		ids = append(ids, id)
	}
	return ids
}

// words decodes encoded words (RFC 2047) of every usual charset.
var words = mime.WordDecoder{CharsetReader: charset.Reader}

// decodeLine returns the text of a header on one line.
func decodeLine(s string) string {
	s = limit(s, 16*maxLine)
	if d, err := words.DecodeHeader(s); err == nil {
		s = d
	}
	return cleanLine(s)
}

// cleanLine returns s as valid UTF-8 on one line.
func cleanLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), r == '\u2028', r == '\u2029':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(limit(strings.TrimSpace(s), maxLine))
}

// cleanText returns s as valid UTF-8 whose lines end with LF and which holds no
// other control character than the tab.
func cleanText(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r == '\r':
			return '\n'
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
}

// limit returns the first most bytes of s, and no part of a character.
func limit(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// addresses returns the addresses of a header. If the header is not written as
// it ought to be, what looks like addresses in it.
func addresses(s string) []mail.Address {
	s = limit(s, 64<<10)
	parser := mail.AddressParser{WordDecoder: &words}
	var all []mail.Address
	if list, err := parser.ParseList(s); err == nil {
		for _, a := range list {
			all = append(all, *a)
		}
	} else {
		for part := range strings.SplitSeq(s, ",") {
			if a, err := parser.Parse(part); err == nil {
				all = append(all, *a)
				continue
			}
			name, address, ok := strings.Cut(part, "<")
			if !ok {
				name, address = "", part
			}
			address, _, _ = strings.Cut(address, ">")
			all = append(all, mail.Address{Name: decodeLine(name), Address: strings.TrimSpace(address)})
		}
	}
	var kept []mail.Address
	for _, a := range all {
		a.Name, a.Address = cleanLine(a.Name), cleanLine(a.Address)
		if at := strings.LastIndexByte(a.Address, '@'); at < 1 || at == len(a.Address)-1 || len(a.Address) > 320 || strings.ContainsAny(a.Address, "<>") {
			continue
		}
		if kept = append(kept, a); len(kept) == maxAddresses {
			break
		}
	}
	return kept
}

// A content is the text of a part.
type content struct {
	text string
	html bool // it was made of HTML
}

func (c content) blank() bool { return strings.TrimSpace(c.text) == "" }

// part reads a part of the message with all parts in it.
func (p *parser) part(e *message.Entity, depth int) content {
	if p.parts++; p.parts > maxParts {
		p.received.Truncated = true
		return content{}
	}
	kind, params, err := e.Header.ContentType()
	if err != nil && kind == "" {
		kind = "text/plain" // RFC 2045 §5.2
	}
	if disposition, _, _ := e.Header.ContentDisposition(); strings.EqualFold(disposition, "attachment") && depth > 0 {
		return content{}
	}
	switch kind = strings.ToLower(kind); {
	case strings.HasPrefix(kind, "multipart/") && params["boundary"] == "": // no parts can be told apart
		return content{text: strings.TrimRight(cleanText(p.read(e.Body)), " \t\n")}
	case strings.HasPrefix(kind, "multipart/"):
		if depth >= maxDepth {
			p.received.Truncated = true
			return content{}
		}
		return p.multipart(e, kind, params, depth)
	case kind == "message/delivery-status", kind == "message/global-delivery-status": // RFC 6533
		p.status(e.Body)
		return content{}
	case kind == "message/rfc822", kind == "message/global", kind == "text/rfc822-headers", kind == "message/global-headers":
		if p.returned == "" && depth > 0 {
			p.returned = returnedID(e.Body)
		}
		return content{}
	case kind == "text/html":
		return content{text: plainText(p.read(e.Body)), html: true}
	case strings.HasPrefix(kind, "text/") && (kind == "text/plain" || depth == 0), kind == "text/enriched":
		return content{text: strings.TrimRight(cleanText(p.read(e.Body)), " \t\n")}
	}
	return content{}
}

// multipart reads the parts of a multipart: the best one of alternatives, and
// otherwise one after the other.
func (p *parser) multipart(e *message.Entity, kind string, params map[string]string, depth int) content {
	reader := e.MultipartReader()
	if reader == nil {
		return content{}
	}
	var all []content
	for {
		child, err := reader.NextPart()
		if child == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
			if err != io.EOF {
				p.received.Truncated = true // it ends too early, or is broken
			}
			break
		}
		c := p.part(child, depth+1)
		if !c.blank() {
			all = append(all, c)
		}
		if p.parts > maxParts {
			break
		}
	}
	if len(all) == 0 {
		return content{}
	}
	if kind == "multipart/alternative" { // RFC 2046 §5.1.4: the same in other forms
		for _, c := range all {
			if !c.html {
				return c
			}
		}
		return all[0]
	}
	whole := content{html: true}
	var texts []string
	for _, c := range all {
		whole.html = whole.html && c.html
		texts = append(texts, c.text)
	}
	whole.text = strings.Join(texts, "\n\n")
	if len(whole.text) > maxText {
		whole.text, p.received.Truncated = limit(whole.text, maxText), true
	}
	return whole
}

// read reads the text of a part, as far as the bound of the whole message
// allows. What cannot be decoded ends it.
func (p *parser) read(body io.Reader) string {
	left := maxText - p.size
	b, err := io.ReadAll(io.LimitReader(body, int64(left)+1))
	if len(b) > left || err != nil && !errors.Is(err, io.EOF) {
		p.received.Truncated = true
	}
	text := limit(string(b), left)
	p.size += len(text)
	return text
}

// status reads a report on deliveries (RFC 3464 §2): a group of fields about
// the message and one about each receiver. The first receiver that the letter
// did not reach counts.
func (p *parser) status(body io.Reader) {
	r := textproto.NewReader(bufio.NewReader(io.LimitReader(body, 256<<10)))
	for group := 0; group < 200; group++ {
		h, err := r.ReadMIMEHeader()
		if action := strings.ToLower(strings.TrimSpace(h.Get("Action"))); action == "failed" || action == "delayed" {
			b := Bounce{Final: action == "failed", Status: statusCode(h.Get("Status")), Diagnostic: typed(h.Get("Diagnostic-Code"))}
			if b.Recipient = typed(h.Get("Original-Recipient")); b.Recipient == "" {
				b.Recipient = typed(h.Get("Final-Recipient"))
			}
			b.Recipient = strings.Trim(b.Recipient, "<>")
			if old := p.received.Bounce; old == nil || b.Final && !old.Final {
				p.received.Bounce = &b
			}
		}
		if err != nil {
			return
		}
	}
}

// typed returns the value of a field such as "rfc822; ada@example.com" (RFC
// 3464 §2.1.2).
func typed(s string) string {
	if _, value, ok := strings.Cut(s, ";"); ok {
		s = value
	}
	return cleanLine(s)
}

// statusCode returns the code of a Status field, which may be followed by a
// comment.
func statusCode(s string) string {
	fields := strings.Fields(s)
	if len(fields) == 0 {
		return ""
	}
	code := fields[0]
	if len(code) > 11 || strings.Count(code, ".") != 2 || strings.Trim(code, "0123456789.") != "" {
		return ""
	}
	return code
}

// returnedID returns the message id in the header of a returned message.
func returnedID(body io.Reader) string {
	h, _ := textproto.NewReader(bufio.NewReader(io.LimitReader(body, maxMIMEHeader))).ReadMIMEHeader()
	return first(messageIDs(h.Get("Message-Id")))
}
