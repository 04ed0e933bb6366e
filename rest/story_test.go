package rest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"trustpager/admin"
	"trustpager/server/servertest"
)

// The whole way of an agent's requests: what it may only ask for waits for
// somebody who may decide, happens once or not at all, and its owner is told.
func TestStory(t *testing.T) { each(t, story) }

func story(t *testing.T, s *servertest.Server) {
	receiver := servertest.NewReceiver(t)
	agent, id := s.AddKey(admin.KeyInput{Name: new("Sales agent"), Scopes: &[]string{"contacts:write-approval", "contacts:delete-approval"}})
	webhookSecret := s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"webhook_url":"`+receiver.URL+`/hook"}`).Want(t, 200).Text("data.webhook_secret")
	if again := s.Do("GET", "/v1/keys/"+id, s.Full, "").Want(t, 200); bytes.Contains(again.Body, []byte(agent)) || bytes.Contains(again.Body, []byte("whsec_")) {
		t.Errorf("read a key: got %s, want no secret", again.Body)
	}

	if got := s.Do("GET", "/v1/contacts", agent, "").Want(t, 200).Len("data"); got != 0 {
		t.Errorf("contacts before: got %d, want 0", got)
	}

	// Asking, and asking again.
	const body = `{"first_name":"Ada","last_name":"Lovelace","email":"ada@example.com"}`
	asked := s.Do("POST", "/v1/contacts", agent, body).Want(t, 202)
	approval := asked.Text("approval.id")
	if asked.Text("status") != "pending_approval" || asked.Get("executed") != false || asked.Header.Get("Location") != "/v1/approvals/"+approval {
		t.Errorf("create as an agent: got %s at %q, want a pending approval and its address", asked.Body, asked.Header.Get("Location"))
	}
	if !strings.HasPrefix(asked.Text("approval.url"), s.URL+"/settings/api") {
		t.Errorf("url of the approval: got %q, want a page of %s", asked.Text("approval.url"), s.URL)
	}
	again := s.Do("POST", "/v1/contacts", agent, `{ "email":"ada@example.com","last_name":"Lovelace", "first_name":"Ada", "reason":"she asked"}`).Want(t, 202)
	if got := again.Text("approval.id"); got != approval {
		t.Errorf("the same request again: got approval %s, want %s", got, approval)
	}
	if got := s.Do("GET", "/v1/approvals/"+approval, agent, "").Want(t, 200).Get("data.asked"); got != 2.0 {
		t.Errorf("asked: got %v, want 2", got)
	}

	// Only who may decide decides.
	if got := s.Do("POST", "/v1/approvals/"+approval+"/approve", agent, `{}`).Want(t, 403); got.Text("error.code") != "INSUFFICIENT_SCOPE" || got.Text("error.fix") == "" {
		t.Errorf("approve one's own request: got %s, want INSUFFICIENT_SCOPE with a fix", got.Body)
	}
	s.Do("POST", "/v1/approvals/"+approval+"/approve", s.Agent, `{}`).Want(t, 404) // another's are hidden
	done := s.Do("POST", "/v1/approvals/"+approval+"/approve", s.Full, `{}`).Want(t, 200)
	if done.Text("data.status") != "approved" || done.Text("data.execution") != "done" || done.Text("data.decided_by.id") != s.FullID {
		t.Errorf("approve: got %s, want it approved and done by %s", done.Body, s.FullID)
	}
	s.Do("POST", "/v1/approvals/"+approval+"/approve", s.Full, `{}`).Want(t, 409)
	s.Do("POST", "/v1/approvals/"+approval+"/reject", s.Full, `{"reason":"too late"}`).Want(t, 409)
	contacts := s.Do("GET", "/v1/contacts?email=ada@example.com", agent, "").Want(t, 200)
	if contacts.Len("data") != 1 {
		t.Errorf("contacts after the approval: got %s, want one", contacts.Body)
	}
	contact := contacts.Text("data.0.id")
	if got := s.Do("POST", "/v1/contacts", agent, body).Want(t, 200); got.Text("status") != "executed" || got.Text("data.id") != contact {
		t.Errorf("the same request after the approval: got %s, want executed with contact %s", got.Body, contact)
	}
	if got := s.Do("GET", "/v1/contacts", agent, "").Want(t, 200).Len("data"); got != 1 {
		t.Errorf("contacts: got %d, want 1", got)
	}

	// A rejection reaches the agent's own server, with what it had sent.
	odd := "\n\t{ \"last_name\" : \"L\\u00f6w\\u0065\\/\",\r\n   \"first_name\":\"Z\u00eb\",\"notes\":\"<b>&amp;\\ud83d\\ude00</b>\"  , \"email\":\"zoe@example.com\" } \n"
	rejected := s.Do("POST", "/v1/contacts", agent, odd).Want(t, 202).Text("approval.id")
	if got := s.Do("POST", "/v1/approvals/"+rejected+"/reject", s.Full, `{}`).Want(t, 400); got.Text("error.code") != "MISSING_FIELDS" {
		t.Errorf("reject without a reason: got %s, want MISSING_FIELDS", got.Body)
	}
	s.Do("POST", "/v1/approvals/"+rejected+"/reject", s.Full, `{"reason":"She is a customer's employee: <ask> \u0022Bob\u0022 first"}`).Want(t, 200)
	d := receiver.Next()
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.VerifyIgnoringTimestamp(d.Body, d.Header); err != nil {
		t.Errorf("signature of the webhook: %v", err)
	}
	var event struct {
		Type string
		Data struct {
			Reason   string
			Approval struct{ ID, Status string }
			Request  struct {
				Method, Path string
				Base64       string `json:"body_base64"`
				Body         map[string]any
			}
		}
	}
	if err := json.Unmarshal(d.Body, &event); err != nil {
		t.Fatal(err)
	}
	sent, err := base64.StdEncoding.DecodeString(event.Data.Request.Base64)
	if err != nil || string(sent) != odd {
		t.Errorf("body_base64: got %q (%v), want the bytes that were sent, %q", sent, err, odd)
	}
	if event.Type != "approval.rejected" || event.Data.Reason != `She is a customer's employee: <ask> "Bob" first` || event.Data.Approval.ID != rejected ||
		event.Data.Request.Method != "POST" || event.Data.Request.Path != "/v1/contacts" || event.Data.Request.Body["first_name"] != "Zë" {
		t.Errorf("webhook: got %s", d.Body)
	}
	if got := s.Do("POST", "/v1/contacts", agent, odd).Want(t, 202); got.Text("status") != "rejected" || !strings.Contains(got.Text("decision_reason"), "Bob") {
		t.Errorf("the rejected request again: got %s, want the rejection", got.Body)
	}

	// A key is revoked, and comes back.
	s.Do("POST", "/v1/keys/"+id+"/revoke", s.Full, "").Want(t, 200)
	revoked := s.Do("GET", "/v1/contacts", agent, "").Want(t, 401)
	if revoked.Text("error.code") != "UNAUTHORIZED" || !strings.Contains(revoked.Text("error.message"), "revoked") || !strings.Contains(revoked.Header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("a revoked key: got %s, challenge %q", revoked.Body, revoked.Header.Get("WWW-Authenticate"))
	}
	s.Do("POST", "/v1/keys/"+id+"/activate", s.Full, "{}").Want(t, 200)
	s.Do("GET", "/v1/contacts", agent, "").Want(t, 200)

	// A change of its scopes holds from the next request on.
	s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"scopes":["contacts:read"]}`).Want(t, 200)
	s.Do("POST", "/v1/contacts", agent, `{"first_name":"Bob"}`).Want(t, 403)
	s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"scopes":["contacts:write"]}`).Want(t, 200)
	s.Do("POST", "/v1/contacts", agent, `{"first_name":"Bob"}`).Want(t, 201)
	s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"scopes":null}`).Want(t, 200)
	s.Do("GET", "/v1/contacts", agent, "").Want(t, 403)
	s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"scopes":["contacts:read"]}`).Want(t, 200)

	// Deletion: the key is unknown, and what it has asked for is withdrawn.
	s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"scopes":["contacts:write-approval"]}`).Want(t, 200)
	open := s.Do("POST", "/v1/contacts", agent, `{"first_name":"Carl"}`).Want(t, 202).Text("approval.id")
	if got := s.Do("DELETE", "/v1/keys/"+id, s.Full, "").Want(t, 200); got.Get("data.deleted") != true {
		t.Errorf("delete a key: got %s", got.Body)
	}
	if got := s.Do("GET", "/v1/contacts", agent, "").Want(t, 401); strings.Contains(got.Text("error.message"), "Sales agent") {
		t.Errorf("a deleted key: got %s, want nothing about it", got.Body)
	}
	s.Do("GET", "/v1/keys/"+id, s.Full, "").Want(t, 404)
	if got := s.Do("GET", "/v1/approvals/"+open, s.Full, "").Want(t, 200).Text("data.status"); got != "withdrawn" {
		t.Errorf("an approval of a deleted key: got %q, want withdrawn", got)
	}
	if got := s.Do("GET", "/v1/audit/verify", s.Full, "").Want(t, 200); got.Get("data.sound") != true {
		t.Errorf("audit log: got %s, want it sound", got.Body)
	}
}

// Both secrets of a rotated key work until the overlap ends.
func TestRotateKey(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		made := s.Do("POST", "/v1/keys", s.Full, `{"name":"Rotated","scopes":["contacts:read"]}`).Want(t, 201)
		first, id := made.Text("data.secret"), made.Text("data.id")
		if !strings.HasPrefix(first, "tp_live_") || made.Header.Get("Location") != "/v1/keys/"+id {
			t.Fatalf("create a key: got %s at %q, want its secret and its address", made.Body, made.Header.Get("Location"))
		}
		if made.Get("data.limits.per_minute") != 60.0 || made.Get("data.limits.per_day") != 10000.0 {
			t.Errorf("limits of a new key: got %s, want 60 and 10000", made.Body)
		}
		second := s.Do("POST", "/v1/keys/"+id+"/rotate", s.Full, `{"overlap_hours":2}`).Want(t, 200).Text("data.secret")
		s.Do("GET", "/v1/contacts", first, "").Want(t, 200)
		s.Do("GET", "/v1/contacts", second, "").Want(t, 200)
		s.Clock.Advance(2 * time.Hour)
		if got := s.Do("GET", "/v1/contacts", first, "").Want(t, 401); !strings.Contains(got.Text("error.message"), "rotated") {
			t.Errorf("a replaced secret: got %s, want it to say so", got.Body)
		}
		s.Do("GET", "/v1/contacts", second, "").Want(t, 200)
		third := s.Do("POST", "/v1/keys/"+id+"/rotate", s.Full, "").Want(t, 200).Text("data.secret")
		s.Do("GET", "/v1/contacts", second, "").Want(t, 401)
		s.Do("GET", "/v1/contacts", third, "").Want(t, 200)
		for _, hours := range []string{"-1", "168.1", "1e300", "-1e300"} {
			got := s.Do("POST", "/v1/keys/"+id+"/rotate", s.Full, `{"overlap_hours":`+hours+`}`).Want(t, 400)
			if got.Text("error.fields.0.path") != "overlap_hours" {
				t.Errorf("overlap of %s hours: got %s, want the field named", hours, got.Body)
			}
		}
		s.Do("POST", "/v1/keys/"+s.AgentID+"/rotate", s.Full, "").Want(t, 403) // not of its making
	})
}

// Who asks to decide or to manage keys and may not leaves a trace.
func TestRefusedDecisionsAndKeyCallsAreAudited(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		id := s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Ada"}`).Want(t, 202).Text("approval.id")
		s.Do("POST", "/v1/approvals/"+id+"/approve", s.Agent, "").Want(t, 403)
		s.Do("POST", "/v1/keys", s.Agent, `{"name":"more","full_access":true}`).Want(t, 403)
		log := s.Do("GET", "/v1/audit?event=action.denied", s.Full, "").Want(t, 200)
		if n := log.Len("data"); n != 2 {
			t.Fatalf("refusals in the audit log: got %d, want 2", n)
		}
		if got := log.Text("data.0.action"); got != "create_key" {
			t.Errorf("the last refusal: got %q, want create_key", got)
		}
		if action, target := log.Text("data.1.action"), log.Text("data.1.target"); action != "approve" || target != id {
			t.Errorf("the first refusal: got %s of %s, want approve of %s", action, target, id)
		}
	})
}
