package integrations_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
)

var sms = integrations.SMS{ID: "msg_1", From: "+15550100001", To: "+491701234567", Body: "Grüße & <b>Küsse</b> 👋\n100 % + mehr", StatusCallback: "https://pager.example.com/in/twilio?x=1&y=2"}

var call = integrations.PhoneCall{ID: "call_1", From: "+15550100001", To: "+491701234567",
	Say: `Tom & Jerry say "hi" </Say><Play>https://evil.example.com/x.mp3</Play>`, StatusCallback: "https://pager.example.com/in/twilio"}

func TestProviderGetsWhatWasWritten(t *testing.T) {
	peer := integrationstest.NewTwilio(t)
	account, n := peer.Account(), peer.Network()
	h, err := account.SendSMS(t.Context(), n, sms)
	if err != nil {
		t.Fatal(err)
	}
	got := peer.Next()
	want := url.Values{"From": {sms.From}, "To": {sms.To}, "Body": {sms.Body}, "StatusCallback": {sms.StatusCallback}}
	if d := cmp.Diff(want, got.Form); d != "" || got.Key != sms.ID || h.SID != got.SID || h.Status != "queued" {
		t.Errorf("got key %q, handle %+v, form (-want +got):\n%s", got.Key, h, d)
	}
	c, err := account.StartCall(t.Context(), n, call)
	if err != nil {
		t.Fatal(err)
	}
	got = peer.Next()
	twiml := `<Response><Say>Tom &amp; Jerry say &#34;hi&#34; &lt;/Say&gt;&lt;Play&gt;https://evil.example.com/x.mp3&lt;/Play&gt;</Say></Response>`
	if got.Form.Get("Twiml") != twiml || got.Form.Get("From") != call.From || got.Form.Get("To") != call.To || c.SID != got.SID || !got.Call || got.Key != call.ID {
		t.Errorf("got %+v, handle %+v; want %s", got, c, twiml)
	}
	if again, err := account.SendSMS(t.Context(), n, sms); err != nil || again.SID != h.SID || len(peer.Taken()) != 2 {
		t.Errorf("with the same id: got %+v, %v, %d in all; want the same message", again, err, len(peer.Taken()))
	}
	if err := account.Check(t.Context(), n); err != nil {
		t.Error(err)
	}
}

func TestOutcomeOfAnSMS(t *testing.T) {
	for _, tt := range []struct {
		fault integrationstest.Fault
		want  integrations.Outcome
		check integrations.Outcome // of asking for the account, which changes nothing
		code  string
		text  string
		retry time.Duration
		kept  int
	}{
		{"", "", "", "", "", 0, 1},
		{integrationstest.Invalid, integrations.Refused, integrations.Refused, "21211", "not a valid phone number", 0, 0},
		{integrationstest.RepeatsKey, integrations.Refused, integrations.Refused, "20001", "bad token [password]", 0, 0},
		{integrationstest.BadLogin, integrations.Temporary, integrations.Temporary, "20003", "401 Unauthorized: Authenticate", 0, 0},
		{integrationstest.TooMany, integrations.Temporary, integrations.Temporary, "20429", "429", 7 * time.Second, 0},
		{integrationstest.Overloaded, integrations.Temporary, integrations.Temporary, "20503", "503", 0, 0},
		{integrationstest.Broken, integrations.Unknown, integrations.Temporary, "20500", "500", 0, 0},
		{integrationstest.BadGateway, integrations.Unknown, integrations.Temporary, "502", "502", 0, 0},
		{integrationstest.Elsewhere, integrations.Temporary, integrations.Temporary, "302", "leads elsewhere", 0, 0},
		{integrationstest.Endless, integrations.Unknown, integrations.Temporary, "", "too long", 0, 0},
		{integrationstest.Garbage, integrations.Unknown, "", "", "names no id", 0, 0},
		{integrationstest.CutOff, integrations.Unknown, integrations.Temporary, "", "EOF", 0, 0},
		{integrationstest.Hang, integrations.Unknown, integrations.Temporary, "", "", 0, 1},
		{integrationstest.Drop, integrations.Unknown, integrations.Temporary, "", "EOF", 0, 1},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			peer := integrationstest.NewTwilio(t)
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
			_, err := peer.Account().SendSMS(ctx, peer.Network(), sms)
			check(t, err, tt.want, tt.code, tt.text)
			if f, ok := err.(*integrations.Failure); ok && f.RetryAfter != tt.retry {
				t.Errorf("RetryAfter = %v, want %v", f.RetryAfter, tt.retry)
			}
			if got := len(peer.Taken()); got != tt.kept {
				t.Errorf("the provider has %d messages, want %d", got, tt.kept)
			}
			if tt.fault == integrationstest.Hang {
				return
			}
			if tt.fault == integrationstest.Drop {
				peer.Fail(integrationstest.CutOff) // it drops only what it can keep
			}
			if err := peer.Account().Check(t.Context(), peer.Network()); integrations.OutcomeOf(err) != tt.check {
				t.Errorf("Check: got %v, want %q", err, tt.check)
			}
		})
	}
}

// An answer that was lost can be asked for again where the provider heeds the
// key: then one message was sent.
func TestLostAnswerIsFoundByItsKey(t *testing.T) {
	peer := integrationstest.NewTwilio(t)
	peer.Fail(integrationstest.Drop)
	_, err := peer.Account().SendSMS(t.Context(), peer.Network(), sms)
	check(t, err, integrations.Unknown, "", "")
	peer.Fail("")
	h, err := peer.Account().SendSMS(t.Context(), peer.Network(), sms)
	if err != nil || len(peer.Taken()) != 1 || peer.Taken()[0].SID != h.SID {
		t.Errorf("got %+v, %v, and %d messages; want the one", h, err, len(peer.Taken()))
	}
}

func TestWrongAccountIsSaid(t *testing.T) {
	peer := integrationstest.NewTwilio(t)
	for name, change := range map[string]func(*integrations.Twilio){
		"wrong token":      func(a *integrations.Twilio) { a.AuthToken = "x" },
		"no token":         func(a *integrations.Twilio) { a.AuthToken = "" },
		"SID with a path":  func(a *integrations.Twilio) { a.AccountSID = "AC1/../AC2" },
		"URL with a login": func(a *integrations.Twilio) { a.BaseURL = "https://user:pass@127.0.0.1/" },
		"URL of a file":    func(a *integrations.Twilio) { a.BaseURL = "file:///etc/passwd" },
		"URL with a query": func(a *integrations.Twilio) { a.BaseURL += "/?x=" },
	} {
		account := peer.Account()
		change(&account)
		if _, err := account.SendSMS(t.Context(), peer.Network(), sms); integrations.OutcomeOf(err) != integrations.Temporary {
			t.Errorf("%s: got %v, want a temporary failure", name, err)
		}
	}
}

// The vectors were made with openssl: printf '%s' TEXT | openssl dgst -sha1 -hmac 12345 -binary | base64.
func TestSignatures(t *testing.T) {
	account := integrations.Twilio{AuthToken: "12345"}
	form := url.Values{"CallSid": {"CA1234567890ABCDE"}, "Caller": {"+12349013030"}, "Digits": {"1234"}, "From": {"+12349013030"}, "To": {"+18005551212"}}
	const target, signature = "https://mycompany.com/myapp.php?foo=1&bar=2", "0/KCTR6DLpKmkAf8muzZqo1nDgQ="
	without := func(name string) url.Values {
		f := url.Values{}
		for k, v := range form {
			if k != name {
				f[k] = v
			}
		}
		return f
	}
	with := func(name string, values ...string) url.Values {
		f := without(name)
		f[name] = values
		return f
	}
	for _, tt := range []struct {
		name      string
		account   integrations.Twilio
		target    string
		form      url.Values
		signature string
		want      bool
	}{
		{"genuine", account, target, form, signature, true},
		{"with the usual port", account, "https://mycompany.com:443/myapp.php?foo=1&bar=2", form, signature, true},
		{"with another port", account, "https://mycompany.com:8443/myapp.php?foo=1&bar=2", form, signature, false},
		{"other scheme", account, "http://mycompany.com/myapp.php?foo=1&bar=2", form, signature, false},
		{"other host", account, "https://mycompany.org/myapp.php?foo=1&bar=2", form, signature, false},
		{"query changed", account, "https://mycompany.com/myapp.php?foo=1&bar=3", form, signature, false},
		{"parameter changed", account, target, with("Digits", "1235"), signature, false},
		{"parameter added", account, target, with("Extra", ""), signature, false},
		{"parameter removed", account, target, without("Digits"), signature, false},
		{"parameter twice", account, target, with("Digits", "1234", "5678"), signature, false},
		{"no signature", account, target, form, "", false},
		{"no base64", account, target, form, "!" + signature, false},
		{"half of it", account, target, form, "0/KCTR6DLpKm", false},
		{"other token", integrations.Twilio{AuthToken: "12346"}, target, form, signature, false},
		{"no token", integrations.Twilio{}, target, form, integrations.Twilio{}.Sign(target, form), false},
		{"no parameters", account, "https://example.com/", nil, "TXuZJhjWZUJzE+PO8qGu+QD2va0=", true},
	} {
		if got := tt.account.Verify(tt.target, tt.form, tt.signature); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestWhatAProviderPosts(t *testing.T) {
	peer := integrationstest.NewTwilio(t)
	account := peer.Account()
	var target string
	posted := make(chan url.Values, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		if !account.Verify(target, r.PostForm, r.Header.Get("X-Twilio-Signature")) {
			http.Error(w, "forged", http.StatusForbidden)
			return
		}
		posted <- r.PostForm
	}))
	defer server.Close()
	target = server.URL + "/in?workspace=1"
	post := func(form url.Values) url.Values {
		t.Helper()
		if status, body := peer.Post(target, "", form); status != http.StatusOK {
			t.Fatalf("got %d %s", status, body)
		}
		return <-posted
	}
	if _, err := account.SendSMS(t.Context(), peer.Network(), sms); err != nil {
		t.Fatal(err)
	}
	x := peer.Next()
	got, err := integrations.ParseStatus(post(x.StatusOf("undelivered", "30003")))
	if want := (integrations.StatusUpdate{SID: x.SID, Status: "undelivered", ErrorCode: "30003", From: sms.From, To: sms.To}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := account.StartCall(t.Context(), peer.Network(), call); err != nil {
		t.Fatal(err)
	}
	x = peer.Next()
	got, err = integrations.ParseStatus(post(x.StatusOf("completed", "")))
	if want := (integrations.StatusUpdate{SID: x.SID, Status: "completed", Duration: 42 * time.Second, Call: true, From: call.From, To: call.To}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	in, err := integrations.ParseInboundSMS(post(integrationstest.Inbound("SM1", "+15550100002", "+15550100001", "Grüße\r\nzwei\x00")))
	if want := (integrations.InboundSMS{SID: "SM1", From: "+15550100002", To: "+15550100001", Body: "Grüße\nzwei"}); err != nil || in != want {
		t.Errorf("got %+v, %v; want %+v", in, err, want)
	}
	rings, err := integrations.ParseInboundCall(post(integrationstest.InboundCall("CA1", "+15550100002", "+15550100001")))
	if want := (integrations.InboundCall{SID: "CA1", From: "+15550100002", To: "+15550100001", Status: "ringing"}); err != nil || rings != want {
		t.Errorf("got %+v, %v; want %+v", rings, err, want)
	}
	if status, _ := peer.Post(target, "https://other.example.com/in", integrationstest.Inbound("SM1", "+1", "+2", "x")); status != http.StatusForbidden {
		t.Errorf("signed for another URL: got %d, want 403", status)
	}
	for _, form := range []url.Values{nil, {"MessageSid": {"SM1"}}, {"MessageSid": {"../x"}, "MessageStatus": {"sent"}}, {"CallSid": {"CA1"}, "CallStatus": {"completed"}, "CallDuration": {"-1"}}} {
		if u, err := integrations.ParseStatus(form); err == nil {
			t.Errorf("ParseStatus(%v) = %+v, want an error", form, u)
		}
	}
}

func TestTwiMLHoldsTextOnly(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "<Response><Hangup/></Response>",
		"Hello":             "<Response><Say>Hello</Say></Response>",
		"</Say><Dial>1":     "<Response><Say>&lt;/Say&gt;&lt;Dial&gt;1</Say></Response>",
		"]]>\x00\xff&amp;ü": "<Response><Say>]]&gt;\uFFFD\uFFFD&amp;amp;ü</Say></Response>",
	} {
		if got := integrations.TwiML(in); got != want {
			t.Errorf("TwiML(%q) = %q, want %q", in, got, want)
		}
	}
}
