package webhook_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/secret"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(storagetest.Run(m))
}

const (
	ws    = "wsp_1"
	owner = "key_1"
)

var loopback = &webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// A receipt is a request that the receiver got.
type receipt struct {
	path   string
	header http.Header
	body   []byte
}

// receiver is a server that behaves as the path says.
func receiver(t *testing.T) (url string, receipts chan receipt) {
	receipts = make(chan receipt, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		receipts <- receipt{r.URL.Path, r.Header.Clone(), body}
		switch r.URL.Path {
		case "/500":
			http.Error(w, "out of order \x00\xff"+strings.Repeat("€", 1000), http.StatusInternalServerError)
		case "/410":
			w.WriteHeader(http.StatusGone)
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
		case "/hang":
			<-r.Context().Done()
		case "/stream": // without end
			w.WriteHeader(http.StatusServiceUnavailable)
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		case "/close": // before the answer
			panic(http.ErrAbortHandler)
		case "/partial": // within the answer
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("thanks"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/garbage":
			c, _, _ := w.(http.Hijacker).Hijack()
			c.Write([]byte("SSH-2.0-OpenSSH_9\r\n"))
			c.Close()
		case "/hints": // informational answers without end
			for r.Context().Err() == nil {
				w.WriteHeader(http.StatusEarlyHints)
			}
		default:
			w.Write([]byte("thanks"))
		}
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL, receipts
}

// A world is a database with a running Deliverer.
type world struct {
	*webhook.Endpoints
	t      *testing.T
	db     *storage.DB
	inTx   func(context.Context, func(webhook.Store) error) error
	clock  *storagetest.Clock
	runner *jobs.Runner
	ended  chan jobs.Ending // of each attempt
}

func start(t *testing.T, db *storage.DB, change ...func(*webhook.Deliverer)) *world {
	clock := storagetest.NewClock()
	w := &world{t: t, db: db, inTx: storage.InTx[webhook.Store](db), clock: clock, ended: make(chan jobs.Ending, 1000)}
	w.Endpoints = &webhook.Endpoints{Guard: loopback, Sealer: storagetest.Key, Now: clock.Now}
	d := &webhook.Deliverer{Store: db, InTx: w.inTx, Sealer: storagetest.Key, Guard: loopback, Now: clock.Now, Timeout: 20 * time.Second}
	for _, c := range change {
		c(d)
	}
	kind := d.Jobs()
	end := kind.End
	kind.End = func(ctx context.Context, e jobs.Ending) error {
		err := end(ctx, e)
		w.ended <- e
		return err
	}
	changed, unwatch := db.Watch("jobs")
	w.runner = &jobs.Runner{Store: db, Kinds: map[string]jobs.Kind{webhook.Kind: kind}, Now: clock.Now, Changed: changed, Grace: time.Millisecond}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.runner.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		unwatch()
	})
	return w
}

// tx runs fn in a transaction, which must succeed.
func (w *world) tx(fn func(tx webhook.Store) error) {
	w.t.Helper()
	if err := w.inTx(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) set(owner, url string, events ...webhook.EventType) (e webhook.Endpoint, s webhook.Secret) {
	w.t.Helper()
	to, err := w.Check(w.t.Context(), url, events)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tx(func(tx webhook.Store) (err error) {
		e, s, err = w.Set(w.t.Context(), tx, ws, owner, to)
		return err
	})
	return e, s
}

var rejection = webhook.Event{
	Type: webhook.ApprovalRejected,
	Time: time.Date(2026, 3, 2, 11, 0, 0, 0, time.FixedZone("CET", 3600)),
	Approval: webhook.Approval{ID: "apr_1", Resource: "contacts", Action: "create_contact", Status: "rejected", Execution: "none",
		By: webhook.Actor{Kind: "oauth", ID: "grt_1", Name: "Claude for Ada"}},
	Reason:    "we know <her> already",
	DecidedBy: &webhook.Actor{Kind: "person", ID: "usr_1", Name: "Ada"},
	Request: webhook.Request{Door: "rest", Method: "POST", Path: "/v1/contacts",
		Body: []byte(" {\"name\":\"Zo\u00eb\",\n\t\"iban\":\"DE02\"} "), Parsed: json.RawMessage(`{"name":"Zoë","iban":"•••"}`)},
}

func (w *world) send(owner string, e webhook.Event) (d webhook.Delivery) {
	w.t.Helper()
	w.tx(func(tx webhook.Store) error {
		var ok bool
		var err error
		d, ok, err = w.Send(w.t.Context(), tx, ws, owner, e)
		if err == nil && !ok {
			w.t.Error("the event was not sent")
		}
		return err
	})
	return d
}

func (w *world) delivery(id string) webhook.Delivery {
	w.t.Helper()
	d, err := w.db.Delivery(w.t.Context(), ws, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestReceivers(t *testing.T) {
	for _, tt := range []struct {
		path     string
		state    jobs.State
		status   int
		err      string
		response string // its begin
	}{
		{"/ok", webhook.Done, 200, "", "thanks"},
		{"/partial", webhook.Done, 200, "", "thanks"},
		{"/500", jobs.Ready, 500, "answered 500", "out of order ??€€"},
		{"/410", jobs.Dead, 410, "answered 410", ""},
		{"/redirect", jobs.Ready, 307, "redirects are not followed", ""},
		{"/hang", jobs.Ready, 0, "no answer within 500ms", ""},
		{"/stream", jobs.Ready, 503, "answered 503", "???"},
		{"/close", jobs.Ready, 0, "EOF", ""},
		{"/garbage", jobs.Ready, 0, "malformed HTTP", ""},
		{"/hints", jobs.Ready, 0, "exceeded", ""},
	} {
		t.Run(tt.path[1:], func(t *testing.T) {
			db := storagetest.Open(t, t.TempDir()+"/test.db")
			w := start(t, db, func(d *webhook.Deliverer) {
				if tt.path == "/hang" {
					d.Timeout = 500 * time.Millisecond
				}
			})
			url, receipts := receiver(t)
			w.set(owner, url+tt.path)
			sent := w.send(owner, rejection)
			<-w.ended
			got := w.delivery(sent.ID)
			if got.State != tt.state || got.LastStatus != tt.status || !strings.Contains(got.LastError, tt.err) || got.Attempts != 1 {
				t.Errorf("delivery = state %s, status %d, error %q, %d attempts; want %s, %d, %q, 1",
					got.State, got.LastStatus, got.LastError, got.Attempts, tt.state, tt.status, tt.err)
			}
			if tt.err == "" && got.LastError != "" || got.DeliveredAt.IsZero() == (tt.state == webhook.Done) {
				t.Errorf("delivered at %v with error %q", got.DeliveredAt, got.LastError)
			}
			if !strings.HasPrefix(got.LastResponse, tt.response) || len(got.LastResponse) > 1024 {
				t.Errorf("response = %.50q of %d bytes, want it to begin with %q", got.LastResponse, len(got.LastResponse), tt.response)
			}
			if n := len(receipts); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			if tt.state == jobs.Ready && !got.NextAt.After(w.clock.Now()) {
				t.Errorf("next try at %v, want later", got.NextAt)
			}
		})
	}
}

func TestDeliveryIsExactAndSigned(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := start(t, db)
		url, receipts := receiver(t)
		_, s := w.set(owner, url+"/ok")
		d := w.send(owner, rejection)
		r := <-receipts
		if r.header.Get("webhook-id") != d.ID || !strings.HasPrefix(d.ID, "msg_") {
			t.Errorf("webhook-id = %q, want %q", r.header.Get("webhook-id"), d.ID)
		}
		if got := r.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("Content-Type = %q", got)
		}
		if got := r.header.Get("User-Agent"); !strings.HasPrefix(got, "TrustPager-Webhook/") {
			t.Errorf("User-Agent = %q", got)
		}
		want, _ := webhook.Body(rejection)
		if string(r.body) != string(want) {
			t.Errorf("body = %s, want %s", r.body, want)
		}
		theirs, err := standardwebhooks.NewWebhook(s.Text())
		if err != nil {
			t.Fatal(err)
		}
		if err := theirs.VerifyIgnoringTimestamp(r.body, r.header); err != nil {
			t.Errorf("the independent library: %v", err)
		}
		if err := webhook.VerifyRequest(s, r.header, r.body, w.clock.Now()); err != nil {
			t.Error(err)
		}
		<-w.ended
		if _, ok, _ := db.NextJobDue(t.Context(), webhook.Kind); ok {
			t.Error("a job is left after the delivery")
		}
	})
}

func TestRotationSignsWithBothSecrets(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := start(t, db)
		url, receipts := receiver(t)
		_, first := w.set(owner, url)
		var second webhook.Secret
		w.tx(func(tx webhook.Store) (err error) {
			_, second, err = w.Rotate(t.Context(), tx, ws, owner, time.Hour)
			return err
		})
		check := func(when string, firstHolds, secondHolds bool) {
			t.Helper()
			w.send(owner, rejection)
			r := <-receipts
			<-w.ended // or the clock goes on before it is noted, and it comes again
			for s, want := range map[string]bool{first.Text(): firstHolds, second.Text(): secondHolds} {
				theirs, _ := standardwebhooks.NewWebhook(s)
				if err := theirs.VerifyIgnoringTimestamp(r.body, r.header); (err == nil) != want {
					t.Errorf("%s: verified with the %v secret: %v, want ok: %v", when, s == first.Text(), err, want)
				}
			}
		}
		check("in the overlap", true, true)
		w.clock.Advance(time.Hour)
		check("after it", false, true)

		old := second
		_, second = w.set(owner, url) // the same URL again: a new secret, with an overlap
		first = old
		check("set again", true, true)
		w.clock.Advance(webhook.DefaultOverlap)
		check("a day later", false, true)
		first = second
		_, second = w.set(owner, url+"/other")
		check("set to another URL", false, true)

		err := w.inTx(t.Context(), func(tx webhook.Store) error {
			_, _, err := w.Rotate(t.Context(), tx, ws, owner, 8*24*time.Hour)
			return err
		})
		if !problem.Is(err, problem.Validation) {
			t.Errorf("Rotate with an overlap of 8 days = %v, want a validation error", err)
		}
	})
}

func TestRetriesLastThreeDays(t *testing.T) {
	retry := (&webhook.Deliverer{}).Jobs().Retry
	var sum time.Duration
	tries := 1
	for {
		d, more := retry(tries)
		if !more {
			break
		}
		sum += d
		tries++
	}
	if tries != 10 || sum < 68*time.Hour || sum > 84*time.Hour {
		t.Errorf("%d tries over %v, want 10 over about 75 h", tries, sum)
	}
}

func TestFailingReceiverIsTriedTenTimesAndCanBeResent(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := start(t, db)
		url, receipts := receiver(t)
		e, _ := w.set(owner, url+"/500")
		begin := w.clock.Now()
		d := w.send(owner, rejection)
		var body string
		for try := 1; try <= 10; try++ {
			r := <-receipts
			if r.header.Get("webhook-id") != d.ID || try > 1 && string(r.body) != body {
				t.Fatalf("try %d has another id or body", try)
			}
			body = string(r.body)
			ending := <-w.ended
			if try < 10 {
				if got := w.delivery(d.ID).NextAt; !got.Equal(ending.RunAt.Truncate(time.Millisecond)) {
					t.Errorf("next_at = %v, want %v", got, ending.RunAt)
				}
				w.clock.Advance(ending.RunAt.Sub(w.clock.Now()) + time.Millisecond)
				w.runner.Wake()
			}
		}
		if got := w.clock.Now().Sub(begin); got < 68*time.Hour || got > 84*time.Hour {
			t.Errorf("the last try was after %v, want about 75 h", got)
		}
		got := w.delivery(d.ID)
		if got.State != jobs.Dead || got.Attempts != 10 || got.LastError != "answered 500" || !got.NextAt.IsZero() {
			t.Errorf("delivery = %+v, want dead after 10 attempts", got)
		}
		if _, ok, _ := db.NextJobDue(t.Context(), webhook.Kind); ok {
			t.Error("a job is left of the dead delivery")
		}

		w.set(owner, url+"/ok")
		w.tx(func(tx webhook.Store) error {
			_, err := w.Resend(t.Context(), tx, ws, d.ID)
			return err
		})
		r := <-receipts
		<-w.ended
		if got := w.delivery(d.ID); got.State != webhook.Done || got.Attempts != 11 || r.header.Get("webhook-id") != d.ID || string(r.body) != body {
			t.Errorf("resent delivery = %+v, want done after 11 attempts with the same id and body", got)
		}
		if e2, _ := db.EndpointOf(t.Context(), ws, owner); e2.ID != e.ID {
			t.Errorf("the endpoint has the id %s after the URL was set again, want %s", e2.ID, e.ID)
		}
	})
}

func TestGoneDisablesTheEndpoint(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := start(t, db)
		url, receipts := receiver(t)
		e, _ := w.set(owner, url+"/410")
		first := w.send(owner, rejection)
		<-w.ended
		e, err := db.Endpoint(t.Context(), ws, e.ID)
		if err != nil || !e.DisabledAt.Equal(w.clock.Now()) || !strings.Contains(e.DisabledReason, "410") {
			t.Errorf("endpoint = %+v, %v; want it disabled", e, err)
		}
		second := w.send(owner, rejection) // is not lost, though nobody takes it
		if second.State != jobs.Dead || !strings.Contains(second.LastError, "disabled") {
			t.Errorf("delivery to a disabled endpoint = %+v, want it dead", second)
		}
		resend := func(id string) error {
			return w.inTx(t.Context(), func(tx webhook.Store) error {
				_, err := w.Resend(t.Context(), tx, ws, id)
				return err
			})
		}
		if err := resend(second.ID); !problem.Is(err, problem.Conflict) {
			t.Errorf("Resend to a disabled endpoint = %v, want a conflict", err)
		}
		if err := w.inTx(t.Context(), func(tx webhook.Store) error {
			_, err := w.SendTest(t.Context(), tx, ws, owner)
			return err
		}); !problem.Is(err, problem.Conflict) {
			t.Errorf("SendTest to a disabled endpoint = %v, want a conflict", err)
		}
		<-receipts
		w.set(owner, url+"/ok")
		for _, id := range []string{first.ID, second.ID} {
			if err := resend(id); err != nil {
				t.Fatal(err)
			}
			<-w.ended
			if got := w.delivery(id).State; got != webhook.Done {
				t.Errorf("state after the resend = %s, want done", got)
			}
		}
	})
}

func TestEndpointThatGoesAway(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := start(t, db)
		url, receipts := receiver(t)
		w.set(owner, url+"/500")
		d := w.send(owner, rejection)
		e := <-w.ended
		<-receipts
		w.tx(func(tx webhook.Store) error { return tx.RemoveEndpoint(t.Context(), ws, owner) })
		if got := w.delivery(d.ID); got.State != jobs.Dead || got.LastError != "the endpoint was removed" {
			t.Errorf("delivery of a removed endpoint = %+v, want it dead", got)
		}
		w.clock.Advance(e.RunAt.Sub(w.clock.Now()) + time.Second)
		w.runner.Wake()
		<-w.ended
		if len(receipts) > 0 {
			t.Error("a removed endpoint was still called")
		}

		w.set(owner, url+"/500")
		d = w.send(owner, rejection)
		e = <-w.ended
		<-receipts
		w.tx(func(tx webhook.Store) error { return tx.RetireEndpoint(t.Context(), ws, owner, w.clock.Now()) })
		w.tx(func(tx webhook.Store) error {
			if _, ok, err := w.Send(t.Context(), tx, ws, owner, rejection); ok || err != nil {
				t.Errorf("Send to a retired endpoint = %v, %v; want nothing sent", ok, err)
			}
			return nil
		})
		w.clock.Advance(e.RunAt.Sub(w.clock.Now()) + time.Second)
		w.runner.Wake()
		<-receipts // what waited is still delivered
		<-w.ended
		if got := w.delivery(d.ID).Attempts; got != 2 {
			t.Errorf("%d attempts, want 2", got)
		}
	})
}

func TestSendOnlyWhatIsWanted(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := start(t, db)
		url, receipts := receiver(t)
		e, _ := w.set(owner, url, webhook.ApprovalExecuted, webhook.ApprovalExecuted)
		if got := fmt.Sprint(e.Events); got != "[approval.executed approval.rejected]" {
			t.Errorf("events = %s", got)
		}
		for event, want := range map[webhook.EventType]bool{webhook.ApprovalRejected: true, webhook.ApprovalExecuted: true, webhook.ApprovalExpired: false} {
			w.tx(func(tx webhook.Store) error {
				ev := rejection
				ev.Type = event
				_, ok, err := w.Send(t.Context(), tx, ws, owner, ev)
				if ok != want {
					t.Errorf("Send(%s) = %v, want %v", event, ok, want)
				}
				return err
			})
		}
		w.tx(func(tx webhook.Store) error {
			_, ok, err := w.Send(t.Context(), tx, ws, "key_2", rejection)
			if ok {
				t.Error("sent for a credential without endpoint")
			}
			return err
		})
		<-receipts
		<-receipts
		w.tx(func(tx webhook.Store) error {
			_, err := w.SendTest(t.Context(), tx, ws, owner)
			return err
		})
		if r := <-receipts; !strings.Contains(string(r.body), `"type":"webhook.test"`) {
			t.Errorf("test = %s", r.body)
		}
		if _, err := w.Check(t.Context(), url, []webhook.EventType{"approval.eaten"}); !problem.Is(err, problem.Validation) {
			t.Errorf("Check of an unknown event = %v, want a validation error", err)
		}
		if _, err := w.Check(t.Context(), "https://10.0.0.1/", nil); !problem.Is(err, problem.Validation) || len(problem.Of(err).Fields) != 1 {
			t.Errorf("Check of a private address = %v, want a validation error with the field", err)
		}
	})
}

func TestHangingReceiverHoldsUpNobodyElse(t *testing.T) {
	db := storagetest.Open(t, t.TempDir()+"/test.db")
	w := start(t, db)
	url, receipts := receiver(t)
	w.set("key_bad", url+"/hang")
	w.set(owner, url+"/ok")
	w.tx(func(tx webhook.Store) error {
		for range 60 {
			if _, _, err := w.Send(t.Context(), tx, ws, "key_bad", rejection); err != nil {
				return err
			}
		}
		return nil
	})
	for range 8 {
		<-receipts // its share of the workers hangs now
	}
	w.send(owner, rejection)
	if r := <-receipts; r.path != "/ok" {
		t.Errorf("the next request went to %s, want /ok: one endpoint holds no more than its share", r.path)
	}
}

func TestGuardHoldsWhenDelivering(t *testing.T) {
	db := storagetest.Open(t, t.TempDir()+"/test.db")
	w := start(t, db, func(d *webhook.Deliverer) { d.Guard = &webhook.Guard{} }) // the operator allows it no more
	url, receipts := receiver(t)
	w.set(owner, url+"/ok")
	d := w.send(owner, rejection)
	<-w.ended
	got := w.delivery(d.ID)
	if got.State != jobs.Ready || !strings.Contains(got.LastError, "refused") || strings.Contains(got.LastError, url) {
		t.Errorf("delivery = %s, %q; want a refusal that does not repeat the URL", got.State, got.LastError)
	}
	if len(receipts) > 0 {
		t.Error("the receiver was reached")
	}
}

func TestSecretOfAnotherInstallationDoesNotDeliver(t *testing.T) {
	db := storagetest.Open(t, t.TempDir()+"/test.db")
	w := start(t, db, func(d *webhook.Deliverer) { d.Sealer = secret.NewKey() })
	url, receipts := receiver(t)
	w.set(owner, url)
	w.send(owner, rejection)
	if e := <-w.ended; e.State != jobs.Ready || len(receipts) > 0 {
		t.Errorf("ended as %q with %d requests, want a retry and none", e.State, len(receipts))
	}
}

func TestBody(t *testing.T) {
	got, err := webhook.Body(rejection)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"approval.rejected","timestamp":"2026-03-02T10:00:00Z","data":{` +
		`"approval":{"id":"apr_1","resource":"contacts","action":"create_contact","status":"rejected","execution":"none","requested_by":{"kind":"oauth","id":"grt_1","name":"Claude for Ada"}},` +
		`"reason":"we know \u003cher\u003e already","decided_by":{"kind":"person","id":"usr_1","name":"Ada"},` +
		`"request":{"door":"rest","method":"POST","path":"/v1/contacts","body_base64":"` +
		base64.StdEncoding.EncodeToString(rejection.Request.Body) + `","body":{"name":"Zoë","iban":"•••"}}}}`
	if string(got) != want {
		t.Errorf("Body = %s\nwant   %s", got, want)
	}
	empty := rejection
	empty.Request = webhook.Request{Door: "mcp", Tool: "delete_contact"}
	empty.DecidedBy = nil
	got, err = webhook.Body(empty)
	if err != nil || !strings.Contains(string(got), `"decided_by":null,"request":{"door":"mcp","tool":"delete_contact","body_base64":"","body":null}`) {
		t.Errorf("Body without a request body = %s, %v", got, err)
	}
}
