package integrationstest

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"trustpager/integrations"
)

// The account of a [Twilio].
const (
	TwilioSID   = "AC0123456789abcdef0123456789abcdef"
	TwilioToken = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
)

// A Twilio is a phone provider with Twilio's API, which also heeds
// Idempotency-Key: the same key makes one message. Its methods may be called
// concurrently.
type Twilio struct {
	*peer
	mu    sync.Mutex
	taken []Taken
	news  chan Taken
}

// A Taken is a message or a call that a [Twilio] took.
type Taken struct {
	SID  string
	Key  string // Idempotency-Key
	Call bool
	Form url.Values
}

// NewTwilio starts a phone provider for as long as the test runs.
func NewTwilio(t testing.TB) *Twilio {
	t.Helper()
	s := &Twilio{peer: new(peer), news: make(chan Taken, 1000)}
	newPeer(t, s.peer, s.refuse, func(r *http.Request, body string) bool {
		_, ok := s.take(r, body)
		return ok
	}, s.answer)
	return s
}

// Account returns a good account.
func (s *Twilio) Account() integrations.Twilio {
	return integrations.Twilio{BaseURL: s.URL, AccountSID: TwilioSID, AuthToken: TwilioToken}
}

// Next waits for the next message or call and returns it.
func (s *Twilio) Next() Taken {
	s.t.Helper()
	select {
	case x := <-s.news:
		return x
	case <-s.t.Context().Done():
		s.t.Fatal("no message or call came")
		return Taken{}
	}
}

// Taken returns all messages and calls that were taken, each once.
func (s *Twilio) Taken() []Taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken)
}

// take keeps the message or call, and returns it or the one with the same key.
func (s *Twilio) take(r *http.Request, body string) (Taken, bool) {
	form, err := url.ParseQuery(body)
	if err != nil {
		s.t.Errorf("the form of %s is malformed: %v", r.URL, err)
		return Taken{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	call := strings.HasSuffix(r.URL.Path, "/Calls.json")
	key := r.Header.Get("Idempotency-Key")
	for _, old := range s.taken {
		if key != "" && old.Key == key {
			if old.Form.Encode() != form.Encode() {
				s.t.Errorf("the key %s came with another form: %v, before %v", key, form, old.Form)
			}
			return old, true
		}
	}
	prefix := "SM"
	if call {
		prefix = "CA"
	}
	x := Taken{SID: fmt.Sprintf("%s%032x", prefix, len(s.taken)+1), Key: key, Call: call, Form: form}
	s.taken = append(s.taken, x)
	s.news <- x
	return x, true
}

// refuse answers as Twilio does when something is wrong.
func (s *Twilio) refuse(w http.ResponseWriter, f Fault) bool {
	say := func(status, code int, message string) {
		document(w, status, `{"code": %d, "message": %q, "more_info": "https://www.twilio.com/docs/errors/%d", "status": %d}`, code, message, code, status)
	}
	switch f {
	case Broken:
		say(500, 20500, "Internal Server Error")
	case BadGateway:
		http.Error(w, "bad gateway", http.StatusBadGateway)
	case Overloaded:
		say(503, 20503, "Service unavailable")
	case BadLogin:
		say(401, 20003, "Authenticate")
	case TooMany:
		w.Header().Set("Retry-After", "7")
		say(429, 20429, "Too Many Requests")
	case Invalid:
		say(400, 21211, "The 'To' number +1 is not a valid phone number.")
	case RepeatsKey:
		say(400, 20001, "bad token "+TwilioToken)
	default:
		return false
	}
	return true
}

var (
	e164   = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	fields = map[string][]string{
		"Messages.json": {"Body", "From", "StatusCallback", "To"},
		"Calls.json":    {"From", "StatusCallback", "StatusCallbackEvent", "StatusCallbackMethod", "To", "Twiml"},
	}
)

// answer takes messages and calls.
func (s *Twilio) answer(w http.ResponseWriter, r *http.Request, body string) {
	user, password, _ := r.BasicAuth()
	if user != TwilioSID || password != TwilioToken {
		s.refuse(w, BadLogin)
		return
	}
	base := "/2010-04-01/Accounts/" + TwilioSID
	if r.URL.Path == base+".json" && r.Method == http.MethodGet {
		document(w, http.StatusOK, `{"sid": %q, "status": "active", "type": "Full"}`, TwilioSID)
		return
	}
	known, ok := fields[strings.TrimPrefix(r.URL.Path, base+"/")]
	switch {
	case !ok:
		s.wrong(w, "%s %s is no request of the API", r.Method, r.URL.Path)
		return
	case r.Method != http.MethodPost:
		s.wrong(w, "%s %s, want POST", r.Method, r.URL.Path)
		return
	case r.Header.Get("Content-Type") != "application/x-www-form-urlencoded":
		s.wrong(w, "the content type is %q", r.Header.Get("Content-Type"))
		return
	}
	form, err := url.ParseQuery(body)
	if err != nil {
		s.wrong(w, "the form is malformed: %v", err)
		return
	}
	for name := range form {
		if !slices.Contains(known, name) {
			s.wrong(w, "%s has the parameter %s, which there is not", r.URL.Path, name)
			return
		}
	}
	if !e164.MatchString(form.Get("To")) {
		s.refuse(w, Invalid)
		return
	}
	x, ok := s.take(r, body)
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	document(w, http.StatusCreated, `{"sid": %q, "status": "queued", "to": %q, "from": %q, "error_code": null}`, x.SID, form.Get("To"), form.Get("From"))
}

// Sign returns the signature of a request as Twilio documents it
// (https://www.twilio.com/docs/usage/webhooks/webhooks-security): base64 of the
// HMAC-SHA1, keyed with the token, of the URL and then of each parameter's name
// and value, sorted by name. It knows one value for each name.
func Sign(token, target string, form url.Values) string {
	var names []string
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	text := target
	for _, name := range names {
		text += name + form.Get(name)
	}
	mac := hmac.New(sha1.New, []byte(token))
	io.WriteString(mac, text)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Post posts a signed form to the server under test as Twilio does, and returns
// the status and the body of the answer. signedFor is the URL as the account
// knows it; "" means target.
func (s *Twilio) Post(target, signedFor string, form url.Values) (status int, body string) {
	s.t.Helper()
	if signedFor == "" {
		signedFor = target
	}
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	r.Header.Set("X-Twilio-Signature", Sign(TwilioToken, signedFor, form))
	r.Header.Set("I-Twilio-Idempotency-Token", "00000000-0000-4000-8000-000000000000")
	r.Header.Set("User-Agent", "TwilioProxy/1.1")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// StatusOf returns the form of a status call-back about x.
func (x Taken) StatusOf(status, errorCode string) url.Values {
	form := url.Values{"AccountSid": {TwilioSID}, "ApiVersion": {"2010-04-01"}, "From": x.Form["From"], "To": x.Form["To"]}
	if x.Call {
		form.Set("CallSid", x.SID)
		form.Set("CallStatus", status)
		form.Set("Direction", "outbound-api")
		if status == "completed" {
			form.Set("CallDuration", "42")
		}
		return form
	}
	form.Set("MessageSid", x.SID)
	form.Set("SmsSid", x.SID)
	form.Set("MessageStatus", status)
	form.Set("SmsStatus", status)
	if errorCode != "" {
		form.Set("ErrorCode", errorCode)
	}
	return form
}

// Inbound returns the form of a text message that comes in.
func Inbound(sid, from, to, body string) url.Values {
	return url.Values{"AccountSid": {TwilioSID}, "ApiVersion": {"2010-04-01"}, "MessageSid": {sid}, "SmsSid": {sid},
		"SmsMessageSid": {sid}, "From": {from}, "To": {to}, "Body": {body}, "NumMedia": {"0"}, "NumSegments": {"1"}, "SmsStatus": {"received"}}
}

// InboundCall returns the form of a call that comes in.
func InboundCall(sid, from, to string) url.Values {
	return url.Values{"AccountSid": {TwilioSID}, "ApiVersion": {"2010-04-01"}, "CallSid": {sid}, "From": {from}, "To": {to},
		"CallStatus": {"ringing"}, "Direction": {"inbound"}}
}
