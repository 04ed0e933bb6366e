package integrations

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Twilio is an account at Twilio, or at a provider whose API is the same, for
// text messages and calls. It may be used concurrently.
type Twilio struct {
	BaseURL    string // "" means https://api.twilio.com
	AccountSID string
	AuthToken  string
}

// An SMS is a text message to a phone.
type SMS struct {
	ID             string // the same at each try; sent as Idempotency-Key, which Twilio itself does not heed
	From           string // E.164, or what else the account may send as
	To             string // E.164
	Body           string // up to 1600 characters
	StatusCallback string // URL that is told what becomes of it, or ""
}

// A PhoneCall is a call in which a voice reads a text.
type PhoneCall struct {
	ID             string // the same at each try; sent as Idempotency-Key, which Twilio itself does not heed
	From           string // E.164
	To             string // E.164
	Say            string // what is read out, in plain text
	StatusCallback string // URL that is told what becomes of it, or ""
}

// A Handle is what a provider calls something that it has taken.
type Handle struct {
	SID    string
	Status string // in the provider's words, as in "queued"
}

// Check asks for the account itself, which costs nothing. Its error is a
// [Failure].
func (t Twilio) Check(ctx context.Context, n Network) error {
	_, err := t.do(ctx, n, http.MethodGet, ".json", "", nil)
	return err
}

// SendSMS has the message sent. An error is a [Failure]; where it is [Unknown],
// the message may be on its way.
func (t Twilio) SendSMS(ctx context.Context, n Network, m SMS) (Handle, error) {
	return t.create(ctx, n, "/Messages.json", m.ID, m.StatusCallback, url.Values{"From": {m.From}, "To": {m.To}, "Body": {m.Body}})
}

// StartCall has the call made. An error is a [Failure]; where it is [Unknown],
// the phone may ring.
func (t Twilio) StartCall(ctx context.Context, n Network, c PhoneCall) (Handle, error) {
	form := url.Values{"From": {c.From}, "To": {c.To}, "Twiml": {TwiML(c.Say)}}
	if c.StatusCallback != "" {
		form.Set("StatusCallbackMethod", http.MethodPost)
		form["StatusCallbackEvent"] = []string{"initiated", "ringing", "answered", "completed"}
	}
	return t.create(ctx, n, "/Calls.json", c.ID, c.StatusCallback, form)
}

// TwiML returns the document (text/xml) that has the text read out in a call;
// with "" it hangs up.
func TwiML(text string) string {
	if text == "" {
		return "<Response><Hangup/></Response>"
	}
	var b strings.Builder
	b.WriteString("<Response><Say>")
	xml.EscapeText(&b, []byte(text)) // never fails on a Builder
	b.WriteString("</Say></Response>")
	return b.String()
}

// create makes a resource, and returns its handle.
func (t Twilio) create(ctx context.Context, n Network, path, id, callback string, form url.Values) (Handle, error) {
	if callback != "" {
		form.Set("StatusCallback", callback)
	}
	body, err := t.do(ctx, n, http.MethodPost, path, id, form)
	if err != nil {
		return Handle{}, err
	}
	var h struct {
		SID    string `json:"sid"`
		Status string `json:"status"`
	}
	if err := json.Unmarshal(body, &h); err != nil || h.SID == "" || !isSID(h.SID) {
		return Handle{}, failure(Unknown, "phone provider", errors.New("its answer names no id"))
	}
	return Handle{SID: h.SID, Status: limit(cleanLine(h.Status), 50)}, nil
}

// isSID reports whether s may be an id that a provider gives.
func isSID(s string) bool {
	return s != "" && len(s) <= 100 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// do makes one request about the account.
func (t Twilio) do(ctx context.Context, n Network, method, path, id string, form url.Values) ([]byte, error) {
	const tried = "phone provider"
	if !isSID(t.AccountSID) || t.AuthToken == "" {
		return nil, failure(Temporary, tried, errors.New("the account's SID or token is missing or malformed"))
	}
	target, err := endpoint(cmp.Or(t.BaseURL, "https://api.twilio.com"), "/2010-04-01/Accounts/"+t.AccountSID+path)
	if err != nil {
		return nil, failure(Temporary, tried, err)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, failure(Temporary, tried, err, t.AuthToken)
	}
	r.SetBasicAuth(t.AccountSID, t.AuthToken)
	r.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if id != "" {
			r.Header.Set("Idempotency-Key", id)
		}
	}
	x := exchange{network: n, tried: tried, secrets: []string{t.AuthToken, t.AccountSID + ":" + t.AuthToken},
		effect: method == http.MethodPost, explain: explainTwilio}
	return x.roundTrip(r)
}

// explainTwilio reads Twilio's error document.
func explainTwilio(_ int, body []byte) (code, message string) {
	var e struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &e) != nil {
		return "", ""
	}
	if e.Code != 0 {
		code = strconv.Itoa(e.Code)
	}
	return code, e.Message
}

// Verify reports whether a request with the form, posted to the URL as the
// provider knows it, bears the signature of the account: the header
// X-Twilio-Signature, an HMAC-SHA1 over the URL and the sorted parameters. As
// Twilio's own libraries do, it takes the URL with or without the usual port of
// its scheme. Without a token nothing is genuine.
func (t Twilio) Verify(target string, form url.Values, signature string) bool {
	got, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || t.AuthToken == "" {
		return false
	}
	ok := false
	for _, u := range withAndWithoutPort(target) {
		ok = hmac.Equal(got, t.sum(u, form)) || ok
	}
	return ok
}

// Sign returns the signature that [Twilio.Verify] wants, as the peers of tests
// make it.
func (t Twilio) Sign(target string, form url.Values) string {
	return base64.StdEncoding.EncodeToString(t.sum(target, form))
}

func (t Twilio) sum(target string, form url.Values) []byte {
	h := hmac.New(sha1.New, []byte(t.AuthToken))
	h.Write([]byte(target))
	for _, name := range slices.Sorted(maps.Keys(form)) {
		values := slices.Compact(slices.Sorted(slices.Values(form[name])))
		for _, v := range values {
			h.Write([]byte(name + v))
		}
	}
	return h.Sum(nil)
}

// withAndWithoutPort returns the URL, and the same with the usual port of its
// scheme added or left out.
func withAndWithoutPort(target string) []string {
	scheme, rest, ok := strings.Cut(target, "://")
	port := map[string]string{"https": "443", "http": "80"}[scheme]
	if !ok || port == "" {
		return []string{target}
	}
	host, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	if bare, has := strings.CutSuffix(host, ":"+port); has {
		return []string{target, scheme + "://" + bare + path}
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return []string{target}
	}
	return []string{target, scheme + "://" + host + ":" + port + path}
}

// A StatusUpdate is what a provider tells about a message or a call that it has
// taken.
type StatusUpdate struct {
	SID          string
	Status       string        // in the provider's words: "delivered", "undelivered", "failed", "completed", "no-answer" …
	ErrorCode    string        // as in "30003", or ""
	ErrorMessage string        // or ""
	Duration     time.Duration // of a call that has ended, in whole seconds
	Call         bool          // it is about a call
	From, To     string
}

// ParseStatus reads a status call-back. The form must have been verified.
func ParseStatus(form url.Values) (StatusUpdate, error) {
	u := StatusUpdate{Call: form.Has("CallSid"), From: field(form, "From"), To: field(form, "To"),
		ErrorCode: field(form, "ErrorCode"), ErrorMessage: field(form, "ErrorMessage")}
	if u.Call {
		u.SID, u.Status = field(form, "CallSid"), field(form, "CallStatus")
	} else {
		u.SID, u.Status = field(form, "MessageSid", "SmsSid"), field(form, "MessageStatus", "SmsStatus")
	}
	if !isSID(u.SID) || u.Status == "" {
		return StatusUpdate{}, errors.New("this is no status call-back: it names no message or call, or no status")
	}
	if text := field(form, "CallDuration"); text != "" {
		s, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return StatusUpdate{}, fmt.Errorf("the duration %.20q is no number of seconds", text)
		}
		u.Duration = time.Duration(s) * time.Second
	}
	return u, nil
}

// An InboundSMS is a text message that came in.
type InboundSMS struct {
	SID      string
	From, To string
	Body     string // valid UTF-8, lines ending with LF; "" if it has only media
}

// ParseInboundSMS reads a text message that a provider posts. The form must have
// been verified.
func ParseInboundSMS(form url.Values) (InboundSMS, error) {
	m := InboundSMS{SID: field(form, "MessageSid", "SmsSid"), From: field(form, "From"), To: field(form, "To"),
		Body: cleanText(limit(form.Get("Body"), 64<<10))}
	if !isSID(m.SID) || m.From == "" || m.To == "" {
		return InboundSMS{}, errors.New("this is no message: it has no id, sender or receiver")
	}
	return m, nil
}

// An InboundCall is a call that came in.
type InboundCall struct {
	SID      string
	From, To string
	Status   string // in the provider's words, as in "ringing"
}

// ParseInboundCall reads a call that a provider posts. The form must have been
// verified.
func ParseInboundCall(form url.Values) (InboundCall, error) {
	c := InboundCall{SID: field(form, "CallSid"), From: field(form, "From"), To: field(form, "To"), Status: field(form, "CallStatus")}
	if !isSID(c.SID) || c.From == "" || c.To == "" {
		return InboundCall{}, errors.New("this is no call: it has no id, caller or receiver")
	}
	return c, nil
}

// field returns the first of the named parameters that is there, on one line.
func field(form url.Values, names ...string) string {
	for _, name := range names {
		if v := cleanLine(form.Get(name)); v != "" {
			return v
		}
	}
	return ""
}
