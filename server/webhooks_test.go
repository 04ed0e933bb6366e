package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"trustpager/jobs/jobstest"
	"trustpager/server/servertest"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

// subscribe has the receiver told of the events, and returns the webhook's id and
// its secret.
func subscribe(t testing.TB, s *servertest.Server, key, url string, events ...string) (id, secret string) {
	t.Helper()
	made := s.Do("POST", "/v1/webhooks", key, fmt.Sprintf(`{"url":%q,"events":["%s"]}`, url, strings.Join(events, `","`))).Want(t, 201)
	return made.Text("data.id"), made.Text("data.secret")
}

// verified checks the signature of a delivery with a library that is not ours, and
// returns its type and its data.
func verified(t *testing.T, d servertest.Delivery, secret string) (string, map[string]any) {
	t.Helper()
	theirs, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.VerifyIgnoringTimestamp(d.Body, d.Header); err != nil {
		t.Errorf("signature: %v of %s", err, d.Body)
	}
	var e struct {
		Type string
		Data map[string]any
	}
	if err := json.Unmarshal(d.Body, &e); err != nil {
		t.Fatal(err)
	}
	return e.Type, e.Data
}

// What happens at either door, and by an approval, reaches the subscriber's server.
func TestSubscriberIsToldOfAllDoors(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		hook := servertest.NewReceiver(t)
		id, secret := subscribe(t, s, s.Full, hook.URL, "contacts.*", "approval.requested")
		next := func(want string) map[string]any {
			t.Helper()
			got, data := verified(t, hook.Next(), secret)
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			return data
		}
		contact := s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada"}`).Want(t, 201).Text("data.id")
		if got := next("contacts.created"); got["record"].(map[string]any)["id"] != contact || got["actor"].(map[string]any)["id"] != s.FullID {
			t.Errorf("created: got %v", got)
		}
		s.Do("PATCH", "/v1/contacts/"+contact, s.Full, `{"first_name":"Grace"}`).Want(t, 200)
		if got := next("contacts.updated"); got["before"].(map[string]any)["first_name"] != "Ada" {
			t.Errorf("updated: got %v", got)
		}
		if status, text := call(t, s, s.Full, "update_contact", fmt.Sprintf(`{"id":%q,"city":"York"}`, contact)); status != 200 {
			t.Fatalf("MCP: got %d %s", status, text)
		}
		next("contacts.updated")
		waits := s.Do("DELETE", "/v1/contacts/"+contact, s.Agent, "").Want(t, 202).Text("approval.id")
		next("approval.requested")
		s.Do("POST", "/v1/approvals/"+waits+"/approve", s.Full, "{}").Want(t, 200)
		if got := next("contacts.deleted"); got["approval"] != waits || got["actor"].(map[string]any)["id"] != s.AgentID {
			t.Errorf("deleted: got %v", got)
		}

		// The secret changes, and both sign for a while.
		rotated := s.Do("POST", "/v1/webhooks/"+id+"/rotate", s.Full, `{"overlap_hours":1}`).Want(t, 200).Text("data.secret")
		s.Do("POST", "/v1/webhooks/"+id+"/test", s.Full, "{}").Want(t, 200)
		test := hook.Next()
		for _, each := range []string{secret, rotated} {
			if got, _ := verified(t, test, each); got != "webhook.test" {
				t.Errorf("got %s, want webhook.test", got)
			}
		}
		log := s.Do("GET", "/v1/webhooks/"+id+"/deliveries?limit=2", s.Full, "").Want(t, 200)
		if log.Len("data") != 2 || log.Text("data.0.event") != "webhook.test" || log.Get("pagination.has_more") != true {
			t.Errorf("deliveries: got %s", log.Body)
		}
		if rest := s.Do("GET", "/v1/webhooks/"+id+"/deliveries?cursor="+log.Text("pagination.next_cursor"), s.Full, "").Want(t, 200); rest.Len("data") != 4 {
			t.Errorf("older deliveries: got %s", rest.Body)
		}
		if all := s.Do("GET", "/v1/deliveries?owner="+id, s.Full, "").Want(t, 200); all.Len("data") != 6 {
			t.Errorf("/v1/deliveries: got %s", all.Body)
		}
		got := s.Do("GET", "/v1/webhooks/"+id, s.Full, "").Want(t, 200)
		if got.Text("data.state") != "active" || strings.Contains(string(got.Body), "whsec_") {
			t.Errorf("the webhook: got %s", got.Body)
		}
		s.Do("PATCH", "/v1/webhooks/"+id, s.Full, `{"active":false}`, "If-Match", `"1"`).Want(t, 412)
		s.Do("PATCH", "/v1/webhooks/"+id, s.Full, `{"active":false}`, "If-Match", got.Header.Get("ETag")).Want(t, 200)
		if list := s.Do("GET", "/v1/webhooks?limit=1", s.Full, "").Want(t, 200); list.Len("data") != 1 || list.Text("data.0.state") != "inactive" || list.Get("pagination.has_more") != false {
			t.Errorf("list: got %s", list.Body)
		}
		s.Do("DELETE", "/v1/webhooks/"+id, s.Full, "").Want(t, 200)
		s.Do("GET", "/v1/webhooks/"+id, s.Full, "").Want(t, 404)
	})
}

// An agent that needs approval for its webhook comes to the secret by itself, and
// over MCP too.
func TestAgentTakesTheSecretOfAnApprovedWebhook(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		hook := servertest.NewReceiver(t)
		key, _ := s.AddKey(keyWith("webhooks:write-approval", "contacts:read"))
		asked := s.Do("POST", "/v1/webhooks", key, fmt.Sprintf(`{"url":%q,"events":["contacts.created"]}`, hook.URL)).Want(t, 202).Text("approval.id")
		s.Do("POST", "/v1/approvals/"+asked+"/approve", s.Full, "{}").Want(t, 200)
		done := s.Do("GET", "/v1/approvals/"+asked, key, "").Want(t, 200)
		if strings.Contains(string(done.Body), "whsec_") {
			t.Errorf("the approval holds the secret: %s", done.Body)
		}
		id := done.Text("data.result.id")
		_, text := call(t, s, key, "take_webhook_secret", fmt.Sprintf(`{"id":%q}`, id))
		var taken struct{ Data struct{ Secret string } }
		if err := json.Unmarshal([]byte(text), &taken); err != nil || taken.Data.Secret == "" {
			t.Fatalf("take_webhook_secret: got %s", text)
		}
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada"}`).Want(t, 201)
		if got, _ := verified(t, hook.Next(), taken.Data.Secret); got != "contacts.created" {
			t.Errorf("got %s, want contacts.created", got)
		}
		s.Do("POST", "/v1/webhooks/"+id+"/secret", key, "{}").Want(t, 409)
	})
}

// A delivery that has to be tried again has the same id and body, and one that was
// begun when the server was killed is begun anew.
func TestRetriedDeliveryKeepsItsID(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		var got []servertest.Delivery
		r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if got = append(got, servertest.Delivery{Header: req.Header, Body: body}); len(got) < 3 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		defer r.Close()
		_, secret := subscribe(t, s, s.Full, r.URL, "contacts.created")
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada"}`).Want(t, 201)
		// Somebody claims the job and is killed.
		now := s.Clock.Now()
		if due, err := s.DB.ClaimJobs(t.Context(), webhook.Kind, now, now.Add(time.Minute), "dead", 10); err != nil || len(due) != 1 {
			t.Fatalf("jobs: got %v, %v; want the delivery", due, err)
		}
		d := &webhook.Deliverer{Store: s.DB, InTx: storage.InTx[webhook.Store](s.DB), Sealer: storagetest.Key, Now: s.Clock.Now,
			Guard: &webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
		for range 3 {
			s.Clock.Advance(time.Hour)
			jobstest.Do(t, s.DB, s.Clock.Now, webhook.Kind, d.Jobs())
		}
		if len(got) != 3 {
			t.Fatalf("got %d tries, want 3", len(got))
		}
		for _, each := range got {
			verified(t, each, secret)
			if each.Header.Get(webhook.HeaderID) != got[0].Header.Get(webhook.HeaderID) || string(each.Body) != string(got[0].Body) {
				t.Errorf("got another id or body: %v %s", each.Header, each.Body)
			}
		}
	})
}
