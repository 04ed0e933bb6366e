package messages_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"trustpager/integrations/integrationstest"
	"trustpager/storage/storagetest"
)

// eachPhone runs the test on both databases with a telephone service.
func eachPhone(t *testing.T, test func(t *testing.T, o *office, x *integrationstest.Twilio, account string)) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		x := integrationstest.NewTwilio(t)
		o := open(t, db, x.Network(), false)
		test(t, o, x, o.addTwilio(x).ID)
	})
}

const theirNumber = "+4930123456"

func TestSMSGoesOutAndItsStatusComesBack(t *testing.T) {
	eachPhone(t, func(t *testing.T, o *office, x *integrationstest.Twilio, account string) {
		sent := o.Do("POST", "/v1/sms/send", o.sender, object("to", theirNumber, "body", "Grüße 😀")).Want(t, 200)
		id := sent.Text("data.id")
		o.carry("sms")
		got := x.Next()
		back := o.URL + "/callbacks/twilio/" + account + "/status?id=" + id + "&try=1"
		if got.Key != id || got.Form.Get("To") != theirNumber || got.Form.Get("From") != ourNumber || got.Form.Get("Body") != "Grüße 😀" || got.Form.Get("StatusCallback") != back {
			t.Errorf("taken: got %+v", got)
		}
		state := func() string { return o.Do("GET", "/v1/sms/"+id, o.sender, "").Want(t, 200).Text("data.status") }
		if got := state(); got != "sent" {
			t.Errorf("handed over: got %s", got)
		}
		for _, tt := range []struct{ told, want string }{{"delivered", "delivered"}, {"sent", "delivered"}, {"failed", "delivered"}, {"queued", "delivered"}} {
			if status, body := x.Post(back, "", got.StatusOf(tt.told, "")); status != 200 || !strings.Contains(body, "<Response>") {
				t.Fatalf("call-back: got %d %s", status, body)
			}
			if got := state(); got != tt.want {
				t.Errorf("told %s: got %s, want %s", tt.told, got, tt.want)
			}
		}
	})
}

func TestUndeliveredSMSComesBack(t *testing.T) {
	eachPhone(t, func(t *testing.T, o *office, x *integrationstest.Twilio, account string) {
		id := o.Do("POST", "/v1/sms/send", o.sender, object("to", theirNumber, "body", "Hello")).Want(t, 200).Text("data.id")
		o.carry("sms")
		got := x.Next()
		x.Post(o.URL+"/callbacks/twilio/"+account+"/status?id="+id, "", got.StatusOf("undelivered", "30003"))
		if back := o.failed(); len(back) != 1 || back[0].Action != "send_sms" || !strings.Contains(back[0].Error.Message, "30003") {
			t.Fatalf("came back: got %+v", back)
		}
		// Later it turns out to have arrived.
		x.Post(o.URL+"/callbacks/twilio/"+account+"/status?id="+id, "", got.StatusOf("delivered", ""))
		if got := o.Do("GET", "/v1/sms/"+id, o.sender, "").Text("data.status"); got != "delivered" {
			t.Errorf("got %s, want delivered", got)
		}
		if n := len(o.failed()); n != 0 {
			t.Errorf("%d still wait for a person", n)
		}
	})
}

// The answer to a message got lost: nobody knows whether it went out, until the
// provider says so.
func TestSMSOfUnknownOutcomeIsKnownLater(t *testing.T) {
	eachPhone(t, func(t *testing.T, o *office, x *integrationstest.Twilio, account string) {
		asked := o.Do("POST", "/v1/sms/send", o.Agent, object("to", theirNumber, "body", "Hello")).Want(t, 202).Text("approval.id")
		x.Fail(integrationstest.Drop)
		id := o.Do("POST", "/v1/approvals/"+asked+"/approve", o.Full, "{}").Want(t, 200).Text("data.result.id")
		o.carry("sms")
		got := x.Next()
		told := o.Do("GET", "/v1/approvals/"+asked, o.Agent, "").Want(t, 200)
		if told.Text("data.outside") != "unknown" || told.Text("data.error.code") != "OUTCOME_UNKNOWN" || !strings.Contains(told.Text("data.message"), "OUTCOME UNKNOWN") {
			t.Fatalf("the agent is told %s", told.Body)
		}
		o.Clock.Advance(48 * time.Hour)
		if n := len(o.carry("sms")); n != 0 || len(x.Taken()) != 1 {
			t.Errorf("it was tried %d times more by itself", n)
		}
		x.Fail("")
		x.Post(o.URL+"/callbacks/twilio/"+account+"/status?id="+id, "", got.StatusOf("sent", ""))
		told = o.Do("GET", "/v1/approvals/"+asked, o.Agent, "").Want(t, 200)
		if told.Text("data.execution") != "done" || told.Text("data.outside") != "sent" || told.Get("data.error") != nil {
			t.Errorf("afterwards: got %s", told.Body)
		}
	})
}

func TestCallIsMadeAndLogged(t *testing.T) {
	eachPhone(t, func(t *testing.T, o *office, x *integrationstest.Twilio, account string) {
		id := o.Do("POST", "/v1/calls/initiate", o.sender, object("to", theirNumber, "say", "Your order <1> & 2 is ready.")).Want(t, 200).Text("data.id")
		o.carry("calls")
		got := x.Next()
		if !got.Call || got.Key != id || !strings.Contains(got.Form.Get("Twiml"), "Your order &lt;1&gt; &amp; 2 is ready.") {
			t.Errorf("taken: got %+v", got)
		}
		back := o.URL + "/callbacks/twilio/" + account + "/status?id=" + id
		for _, told := range []string{"ringing", "in-progress", "completed"} {
			x.Post(back, "", got.StatusOf(told, ""))
		}
		call := o.Do("GET", "/v1/calls/"+id, o.sender, "").Want(t, 200)
		if call.Text("data.status") != "completed" || call.Get("data.duration") != 42.0 {
			t.Errorf("got %s", call.Body)
		}
		if status, body := x.Post(o.URL+"/callbacks/twilio/"+account+"/call", "", integrationstest.InboundCall("CA00000000000000000000000000000099", theirNumber, ourNumber)); status != 200 {
			t.Errorf("call-back: got %d %s", status, body)
		}
		log := o.Do("GET", "/v1/calls?direction=in", o.sender, "").Want(t, 200)
		if log.Len("data") != 1 || log.Text("data.0.from") != theirNumber {
			t.Errorf("call log: got %s", log.Body)
		}
		ended := integrationstest.InboundCall("CA00000000000000000000000000000099", theirNumber, ourNumber)
		ended.Set("CallStatus", "completed")
		ended.Set("CallDuration", "7")
		x.Post(o.URL+"/callbacks/twilio/"+account+"/status", "", ended)
		if log = o.Do("GET", "/v1/calls?direction=in", o.sender, "").Want(t, 200); log.Text("data.0.status") != "completed" || log.Get("data.0.duration") != 7.0 {
			t.Errorf("call log, once it has ended: got %s", log.Body)
		}
	})
}

func TestInboundSMSJoinsItsConversationOnce(t *testing.T) {
	eachPhone(t, func(t *testing.T, o *office, x *integrationstest.Twilio, account string) {
		contact := o.Do("POST", "/v1/contacts", o.Full, object("first_name", "Ada", "phone", theirNumber)).Want(t, 201).Text("data.id")
		sent := o.Do("POST", "/v1/sms/send", o.sender, object("to", theirNumber, "body", "Hello")).Want(t, 200)
		form := integrationstest.Inbound("SM00000000000000000000000000000099", theirNumber, ourNumber, "Hi!\u0000")
		statuses := make(chan int, 4)
		for range 4 {
			go func() {
				status, _ := x.Post(o.URL+"/callbacks/twilio/"+account+"/sms", "", form)
				statuses <- status
			}()
		}
		for range 4 {
			if got := <-statuses; got != 200 {
				t.Errorf("call-back: got %d", got)
			}
		}
		list := o.Do("GET", "/v1/sms?sort=created_at&thread_id="+sent.Text("data.thread_id"), o.sender, "").Want(t, 200)
		if list.Len("data") != 2 || list.Text("data.1.direction") != "in" || list.Text("data.1.contact_id") != contact || !strings.HasPrefix(list.Text("data.1.body"), "Hi!") {
			t.Errorf("conversation: got %s", list.Body)
		}
	})
}

func TestCallBacksNeedTheAccountsSignature(t *testing.T) {
	eachPhone(t, func(t *testing.T, o *office, x *integrationstest.Twilio, account string) {
		id := o.Do("POST", "/v1/sms/send", o.sender, object("to", theirNumber, "body", "Hello")).Want(t, 200).Text("data.id")
		o.carry("sms")
		got := x.Next()
		back := o.URL + "/callbacks/twilio/" + account + "/status?id=" + id
		form := got.StatusOf("failed", "")
		for name, target := range map[string][2]string{
			"signed for another URL":     {back, back + "1"},
			"an account that is none":    {strings.Replace(back, account, "int_01m835y52cf25s0gjx2k6dm298", 1), ""},
			"no account id":              {strings.Replace(back, account, "x", 1), ""},
			"signed without the message": {back, o.URL + "/callbacks/twilio/" + account + "/status"},
		} {
			if status, body := x.Post(target[0], target[1], form); status != 403 {
				t.Errorf("%s: got %d %s, want 403", name, status, body)
			}
		}
		// A good signature about what is another account's.
		other := o.addTwilio(x).ID
		if status, _ := x.Post(o.URL+"/callbacks/twilio/"+other+"/status?id="+id, "", form); status != 200 {
			t.Errorf("got %d", status)
		}
		// The provider's id of another message.
		odd := url.Values{}
		for name, v := range form {
			odd[name] = v
		}
		odd.Set("MessageSid", "SM00000000000000000000000000000009")
		odd.Set("SmsSid", "SM00000000000000000000000000000009")
		x.Post(back, "", odd)
		if got := o.Do("GET", "/v1/sms/"+id, o.sender, "").Text("data.status"); got != "sent" {
			t.Errorf("got %s, want it as it was", got)
		}
		if got := o.Do("GET", "/callbacks/twilio/"+account+"/sms", "", ""); got.Status != 405 {
			t.Errorf("GET: got %d, want 405", got.Status)
		}
	})
}

func TestPhoneFailuresEndVisibly(t *testing.T) {
	for _, tt := range []struct {
		fault  integrationstest.Fault
		first  string
		last   string
		tries  int
		reason string
	}{
		{integrationstest.Invalid, "failed", "failed", 1, "21211"},
		{integrationstest.BadLogin, "queued", "failed", 6, "401"},
		{integrationstest.TooMany, "queued", "failed", 6, "429"},
		{integrationstest.Overloaded, "queued", "failed", 6, "503"},
		{integrationstest.Broken, "unknown", "unknown", 1, "500"},
		{integrationstest.Hang, "unknown", "unknown", 1, ""},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			x := integrationstest.NewTwilio(t)
			o := open(t, t.TempDir()+"/test.db", x.Network(), false)
			o.addTwilio(x)
			o.Messages.Accounts.Network.Timeout = patience
			x.Fail(tt.fault)
			id := o.Do("POST", "/v1/sms/send", o.sender, object("to", theirNumber, "body", "Hello")).Want(t, 200).Text("data.id")
			tries := len(o.carry("sms"))
			got := o.Do("GET", "/v1/sms/"+id, o.sender, "").Want(t, 200)
			if got.Text("data.status") != tt.first || !strings.Contains(got.Text("data.error"), tt.reason) || strings.Contains(string(got.Body), integrationstest.TwilioToken) {
				t.Errorf("after one try: got %s", got.Body)
			}
			for range 8 {
				o.Clock.Advance(time.Hour)
				tries += len(o.carry("sms"))
			}
			if got := o.Do("GET", "/v1/sms/"+id, o.sender, "").Text("data.status"); got != tt.last || tries != tt.tries || len(o.failed()) != 1 {
				t.Errorf("in the end: got %s after %d tries, %d came back; want %s after %d", got, tries, len(o.failed()), tt.last, tt.tries)
			}
		})
	}
}

func TestPhoneRefusesWhatIsNoNumber(t *testing.T) {
	eachPhone(t, func(t *testing.T, o *office, x *integrationstest.Twilio, _ string) {
		for _, to := range []string{"030 123456", "0049301234567", "+49 30 123456", "+0123456789", "112", "", "+4930123456;+4930123457"} {
			if got := o.Do("POST", "/v1/sms/send", o.sender, object("to", to, "body", "Hello")); got.Status != 400 {
				t.Errorf("%q: got %d %s, want 400", to, got.Status, got.Body)
			}
		}
		o.Do("POST", "/v1/sms/send", o.sender, object("to", theirNumber, "body", "Hello", "sender", "+4930999999")).Want(t, 409)
		if n := len(x.Taken()); n != 0 {
			t.Errorf("%d went out", n)
		}
	})
}
