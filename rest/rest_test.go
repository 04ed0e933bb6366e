package rest_test

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server/servertest"
)

func contact(t *testing.T, s *servertest.Server, body string) (id string) {
	t.Helper()
	return s.Do("POST", "/v1/contacts", s.Full, body).Want(t, 201).Text("data.id")
}

func TestLimitsAreToldAndKept(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		s.Pass(0)
		key, _ := s.AddKey(admin.KeyInput{Name: new("slow"), Scopes: &[]string{"contacts:read"}, Limits: &access.Limits{PerMinute: 3, PerDay: 5}})
		for i, want := range []string{"2", "1", "0"} {
			got := s.Do("GET", "/v1/contacts", key, "").Want(t, 200).Header
			if got.Get("RateLimit-Limit") != "3" || got.Get("RateLimit-Remaining") != want || got.Get("RateLimit-Reset") == "" {
				t.Errorf("request %d: got limit %q, remaining %q, reset %q, want 3, %s and a reset", i, got.Get("RateLimit-Limit"), got.Get("RateLimit-Remaining"), got.Get("RateLimit-Reset"), want)
			}
		}
		over := s.Do("GET", "/v1/contacts", key, "").Want(t, 429)
		if over.Text("error.code") != "RATE_LIMITED" || over.Header.Get("Retry-After") != "20" || !strings.Contains(over.Text("error.message"), "minute") {
			t.Errorf("above the minute's limit: got %s, Retry-After %q, want 20", over.Body, over.Header.Get("Retry-After"))
		}
		s.Pass(time.Hour)
		s.Do("GET", "/v1/contacts", key, "").Want(t, 200)
		s.Do("GET", "/v1/contacts", key, "").Want(t, 200)
		over = s.Do("GET", "/v1/contacts", key, "").Want(t, 429)
		if over.Header.Get("Retry-After") != "46800" || !strings.Contains(over.Text("error.message"), "00:00 UTC") {
			t.Errorf("above the day's limit: got %s, Retry-After %q, want 46800", over.Body, over.Header.Get("Retry-After"))
		}
	})
}

func TestHeaders(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		for _, r := range []servertest.Response{
			s.Do("GET", "/v1/me", s.Agent, "").Want(t, 200),
			s.Do("GET", "/v1/contacts/"+contact(t, s, `{"first_name":"Ada"}`), s.Full, "").Want(t, 200),
			s.Do("GET", "/v1/me", "", "").Want(t, 401),
			s.Do("GET", "/v1/nothing", s.Full, "").Want(t, 404),
			s.Do("PUT", "/v1/me", s.Full, "").Want(t, 405),
		} {
			if got := r.Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("%s: Cache-Control: got %q, want no-store", r.Body, got)
			}
			if got := r.Header.Get("X-Request-Id"); !strings.HasPrefix(got, "req_") {
				t.Errorf("%s: X-Request-Id: got %q, want an id", r.Body, got)
			}
			if got := r.Header.Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("%s: X-Content-Type-Options: got %q, want nosniff", r.Body, got)
			}
		}
	})
}

func TestAuthorization(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		bearer := `Bearer resource_metadata="` + s.URL + `/.well-known/oauth-protected-resource", scope="workspace"`
		invalid := bearer + `, error="invalid_token", error_description="The access token is expired, revoked, or not valid here"`
		for _, tt := range []struct {
			name      string
			values    []string
			status    int
			challenge string
		}{
			{"none", nil, 401, bearer},
			{"empty", []string{""}, 401, bearer},
			{"another scheme", []string{"Basic dXNlcjpwYXNz"}, 401, bearer},
			{"no token", []string{"Bearer "}, 401, bearer},
			{"nonsense", []string{"Bearer nonsense"}, 401, invalid},
			{"well-formed, unknown", []string{"Bearer " + string(access.NewSecret())}, 401, invalid},
			{"typing error", []string{"Bearer " + s.Agent[:len(s.Agent)-1] + "!"}, 401, invalid},
			{"lower case", []string{"bearer " + s.Agent}, 200, ""},
			{"two", []string{"Bearer " + s.Agent, "Bearer " + s.Full}, 401, invalid},
			{"two equal ones", []string{"Bearer " + s.Agent, "Bearer " + s.Agent}, 401, invalid},
			{"two in one", []string{"Bearer " + s.Agent + ", Bearer " + s.Full}, 401, invalid},
			{"long", []string{"Bearer " + strings.Repeat("x", 60_000)}, 401, invalid},
		} {
			r, err := http.NewRequest("GET", s.URL+"/v1/me", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header["Authorization"] = tt.values
			got := s.Send(r)
			if got.Status != tt.status || got.Header.Get("WWW-Authenticate") != tt.challenge {
				t.Errorf("%s: got %d %s, challenge %q, want %d and %q", tt.name, got.Status, got.Body, got.Header.Get("WWW-Authenticate"), tt.status, tt.challenge)
			}
			if tt.status == 401 && (got.Text("error.message") == "" || got.Text("error.fix") == "") {
				t.Errorf("%s: got %s, want a message and a fix", tt.name, got.Body)
			}
		}
		s.Do("GET", "/v1/me?access_token="+s.Agent, "", "").Want(t, 401)
	})
}

func TestVersions(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		id := contact(t, s, `{"first_name":"Ada"}`)
		if got := s.Do("GET", "/v1/contacts/"+id, s.Full, "").Want(t, 200).Header.Get("ETag"); got != `"1"` {
			t.Errorf(`ETag: got %s, want "1"`, got)
		}
		if got := s.Do("PATCH", "/v1/contacts/"+id, s.Full, `{"last_name":"King"}`, "If-Match", `"1"`).Want(t, 200).Header.Get("ETag"); got != `"2"` {
			t.Errorf(`ETag after a change: got %s, want "2"`, got)
		}
		stale := s.Do("PATCH", "/v1/contacts/"+id, s.Full, `{"last_name":"Byron"}`, "If-Match", `"1"`).Want(t, 412)
		if stale.Text("error.code") != "VERSION_MISMATCH" || stale.Text("error.fix") == "" {
			t.Errorf("a stale version: got %s, want VERSION_MISMATCH with a fix", stale.Body)
		}
		s.Do("DELETE", "/v1/contacts/"+id, s.Full, "", "If-Match", `"1"`).Want(t, 412)
		s.Do("PATCH", "/v1/contacts/"+id, s.Agent, `{"last_name":"Byron"}`, "If-Match", `"1"`).Want(t, 412) // nothing is queued
		for _, tag := range []string{`1`, `W/"2"`, `"x"`, `"0"`, `"-1"`, `"1", "2"`, `"99999999999999999999"`} {
			if got := s.Do("PATCH", "/v1/contacts/"+id, s.Full, `{"last_name":"Byron"}`, "If-Match", tag).Want(t, 400); got.Text("error.fix") == "" {
				t.Errorf("If-Match: %s: got %s, want a fix", tag, got.Body)
			}
		}
		s.Do("PATCH", "/v1/contacts/"+id, s.Full, `{"last_name":"Byron"}`, "If-Match", "*").Want(t, 200)
		s.Do("DELETE", "/v1/contacts/"+id, s.Full, "", "If-Match", `"3"`).Want(t, 200)
		s.Do("GET", "/v1/contacts/"+id, s.Full, "").Want(t, 404)
	})
}

// The checker compares each answer with the OpenAPI document.
func TestDryRun(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		id := contact(t, s, `{"first_name":"Ada"}`)
		path := "/v1/contacts/" + id
		tried := func(method, path, key, body, would string) servertest.Response {
			t.Helper()
			got := s.Do(method, path, key, body).Want(t, 200)
			if got.Text("status") != "dry_run" || got.Get("executed") != false || got.Text("would") != would || !strings.HasPrefix(got.Text("message"), "NOT executed") || got.Header.Get("Location") != "" {
				t.Errorf("%s %s: got %s, want a dry run of what would %s", method, path, got.Body, would)
			}
			return got
		}
		if got := tried("POST", "/v1/contacts", s.Full, `{"first_name":"Eve","dry_run":true}`, "run"); got.Text("changes.0.title") != "Eve" || got.Text("changes.0.id") != "" {
			t.Errorf("got %s", got.Body)
		}
		tried("POST", "/v1/contacts", s.Agent, `{"first_name":"Eve","dry_run":true}`, "wait")
		tried("PATCH", path, s.Full, `{"first_name":"Eve","dry_run":true}`, "run")
		tried("DELETE", path+"?dry_run=true", s.Full, "", "run")
		tried("DELETE", path+"?dry_run=true", s.Agent, `{"reason":"double"}`, "wait")
		tried("DELETE", path, s.Full, `{"dry_run":true}`, "run")
		s.Do("PATCH", path, s.Full, `{"first_name":"Eve","dry_run":true}`, "If-Match", `"7"`).Want(t, 412)
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Eve","dry_run":true}`, "Idempotency-Key", "one").Want(t, 400)
		// Whoever believes that it is a dry run must not be wrong.
		for _, r := range [][3]string{
			{"DELETE", path + "?dry_run=yes", ""}, {"DELETE", path + "?dry_run=", ""}, {"DELETE", path + "?dry_run=true&dry_run=false", ""},
			{"DELETE", path + "?dryrun=true", ""}, {"DELETE", path + "?dry_run=true&x=1", ""}, {"DELETE", path, `{"dry_run":"true"}`},
			{"PATCH", path + "?dry_run=true", `{"first_name":"Eve"}`}, {"POST", "/v1/contacts?dry_run=true", `{"first_name":"Eve"}`},
			{"DELETE", "/v1/keys/" + s.AgentID + "?dry_run=true", ""}, {"POST", "/v1/keys/" + s.AgentID + "/revoke", `{"dry_run":true}`},
			{"POST", "/v1/pause", `{"dry_run":true}`},
		} {
			if got := s.Do(r[0], r[1], s.Full, r[2]); got.Status != 400 || got.Text("error.fix") == "" {
				t.Errorf("%v: got %d %s, want 400 with a fix", r, got.Status, got.Body)
			}
		}
		if got := s.Do("GET", "/v1/contacts", s.Full, "").Want(t, 200); got.Len("data") != 1 || got.Text("data.0.first_name") != "Ada" || got.Get("data.0.version") != 1.0 {
			t.Errorf("got %s, want the contact as it was", got.Body)
		}
		if got := s.Do("GET", "/v1/approvals", s.Full, "").Want(t, 200); got.Len("data") != 0 {
			t.Errorf("got %s, want no approval", got.Body)
		}
		asked := s.Do("DELETE", path+"?dry_run=false", s.Agent, "").Want(t, 202).Text("approval.id")
		card := s.Do("GET", "/v1/approvals/"+asked+"/card", s.Full, "").Want(t, 200)
		if card.Text("data.effects.changes.0.change") != "deleted" || card.Text("data.effects.changes.0.id") != id {
			t.Errorf("got the card %s", card.Body)
		}
		if got := tried("DELETE", path+"?dry_run=true", s.Agent, "", "wait"); got.Text("approval.id") != asked {
			t.Errorf("got %s, want the approval that waits", got.Body)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		create := func(key, body, idempotency string) servertest.Response {
			return s.Do("POST", "/v1/contacts", key, body, "Idempotency-Key", idempotency)
		}
		first := create(s.Full, `{"first_name":"Ada <&> Löwe"}`, "one").Want(t, 201)
		again := create(s.Full, `{"first_name":"Ada <&> Löwe"}`, "one").Want(t, 201)
		if again.Text("data.id") != first.Text("data.id") || again.Text("data.first_name") != "Ada <&> Löwe" || again.Header.Get("Location") != first.Header.Get("Location") || again.Header.Get("ETag") != first.Header.Get("ETag") {
			t.Errorf("again: got %s, want %s", again.Body, first.Body)
		}
		if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("Idempotency-Replayed: got %q, then %q, want it only the second time", first.Header.Get("Idempotency-Replayed"), again.Header.Get("Idempotency-Replayed"))
		}
		if got := create(s.Full, `{"first_name":"Bob"}`, "one").Want(t, 409); got.Text("error.fix") == "" {
			t.Errorf("another body: got %s, want a fix", got.Body)
		}
		create(s.Full, `{"first_name":"Bob"}`, "two").Want(t, 201)
		if got := s.Do("GET", "/v1/contacts", s.Full, "").Len("data"); got != 2 {
			t.Errorf("contacts: got %d, want 2", got)
		}

		queued := create(s.Agent, `{"first_name":"Carl"}`, "one").Want(t, 202) // another credential's key is another key
		id := queued.Text("approval.id")
		if got := create(s.Agent, `{"first_name":"Carl"}`, "one").Want(t, 202); got.Text("approval.id") != id || got.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("a queued request again: got %s, want approval %s, replayed", got.Body, id)
		}
		if got := create(s.Agent, `{"first_name":"Carl"}`, "other").Want(t, 202).Text("approval.id"); got == id {
			t.Errorf("the same under another key: got the same approval, want a new one")
		}
		s.Do("POST", "/v1/approvals/"+id+"/approve", s.Full, "").Want(t, 200)
		if got := create(s.Agent, `{"first_name":"Carl"}`, "one").Want(t, 200); got.Text("status") != "executed" {
			t.Errorf("a queued request again, after its approval: got %s, want it as it stands now", got.Body)
		}

		for _, bad := range []string{strings.Repeat("x", 256), "ü"} {
			create(s.Full, `{"first_name":"Dora"}`, bad).Want(t, 400)
		}
		s.Do("POST", "/v1/keys", s.Full, `{"name":"x"}`, "Idempotency-Key", "three").Want(t, 400)
		s.Clock.Advance(25 * time.Hour)
		create(s.Full, `{"first_name":"Bob again"}`, "one").Want(t, 201)
	})
}

func TestPlanWithoutAccess(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		w := s.Workspace
		w.Plan = access.Free
		if err := s.Desk.UpdateWorkspace(t.Context(), admin.OperatorGrant(s.Workspace), w); err != nil {
			t.Fatal(err)
		}
		got := s.Do("GET", "/v1/contacts", s.Full, "").Want(t, 403)
		if got.Text("error.code") != "PLAN_REQUIRED" || !strings.Contains(got.Text("error.fix"), "pro") {
			t.Errorf("REST: got %s, want PLAN_REQUIRED with a fix", got.Body)
		}
		got = s.Do("POST", "/mcp", s.Full, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "Accept", "application/json, text/event-stream").Want(t, 403)
		if !strings.Contains(string(got.Body), "PLAN_REQUIRED") {
			t.Errorf("MCP: got %s, want PLAN_REQUIRED", got.Body)
		}
	})
}

func TestLists(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		var all []string
		for i := range 7 {
			all = append(all, contact(t, s, fmt.Sprintf(`{"first_name":"Name %d","last_name":"%s","email":"n%d@example.com"}`, i, []string{"odd", "even"}[i%2], i)))
			s.Clock.Advance(time.Minute)
		}
		for _, tt := range []struct{ query, want string }{
			{"?last_name=even&sort=first_name", "Name 1,Name 3,Name 5"},
			{"?last_name=even&sort=-first_name", "Name 5,Name 3,Name 1"},
			{"?email=n4@example.com", "Name 4"},
			{"?email=nobody@example.com", ""},
			{"?search=odd&sort=first_name", "Name 0,Name 2,Name 4,Name 6"},
			{"?created_after=2026-03-02T10:05:00Z&sort=first_name", "Name 5,Name 6"},
			{"?created_before=2026-03-02T10:02:00Z&sort=first_name", "Name 0,Name 1"},
			{"?limit=2&sort=first_name", "Name 0,Name 1"},
		} {
			got := s.Do("GET", "/v1/contacts"+tt.query, s.Agent, "").Want(t, 200)
			var names []string
			for i := range got.Len("data") {
				names = append(names, got.Text(fmt.Sprintf("data.%d.first_name", i)))
			}
			if strings.Join(names, ",") != tt.want {
				t.Errorf("%s: got %v, want %s", tt.query, names, tt.want)
			}
		}
		if got := s.Do("GET", "/v1/contacts?fields=email&limit=1", s.Agent, "").Want(t, 200); got.Text("data.0.email") == "" || got.Text("data.0.id") == "" || got.Get("data.0.first_name") != nil {
			t.Errorf("fields=email: got %s, want id and email", got.Body)
		}
		pages(t, s, s.Agent, "/v1/contacts", 3, len(all))
		for _, tt := range []struct{ query, path, expected string }{
			{"?colour=red", "colour", "email"},
			{"?limit=0", "limit", "100"}, {"?limit=101", "limit", "100"}, {"?limit=x", "limit", ""},
			{"?limit=1&limit=2", "limit", "one value"},
			{"?sort=colour", "sort", "first_name"},
			{"?cursor=nonsense", "cursor", ""},
			{"?created_after=yesterday", "created_after", ""},
			{"?email=%00", "email", "NUL"}, {"?email=%ff", "email", "UTF-8"},
		} {
			got := s.Do("GET", "/v1/contacts"+tt.query, s.Agent, "").Want(t, 400)
			if got.Text("error.fields.0.path") != tt.path || !strings.Contains(got.Text("error.fields.0.expected"), tt.expected) || got.Text("error.fix") == "" {
				t.Errorf("%s: got %s, want %s named, with %q and a fix", tt.query, got.Body, tt.path, tt.expected)
			}
		}
		for _, query := range []string{"?a=%zz", "?a;b", "?%ff=1"} {
			s.Do("GET", "/v1/contacts"+query, s.Agent, "").Want(t, 400)
		}
	})
}

// pages walks a list by its cursors, and fails unless each of want things is
// on exactly one page of the limit. Then it asks wrongly.
func pages(t *testing.T, s *servertest.Server, key, path string, limit, want int) {
	t.Helper()
	seen := map[string]bool{}
	cursor, n := "", 0
	for {
		r := s.Do("GET", fmt.Sprintf("%s?limit=%d%s", path, limit, cursor), key, "").Want(t, 200)
		items := r.Len("data")
		for i := range items {
			id := fmt.Sprint(r.Get(fmt.Sprintf("data.%d.id", i)), r.Get(fmt.Sprintf("data.%d.seq", i)))
			if seen[id] {
				t.Fatalf("%s: %s is on two pages", path, id)
			}
			seen[id] = true
		}
		n++
		if r.Get("pagination.has_more") != true {
			if r.Text("pagination.next_cursor") != "" {
				t.Errorf("%s: the last page has a next_cursor", path)
			}
			break
		}
		if items != limit {
			t.Fatalf("%s: got a page of %d with more to come, want %d", path, items, limit)
		}
		cursor = "&cursor=" + r.Text("pagination.next_cursor")
	}
	if len(seen) != want || n != (want+limit-1)/limit {
		t.Errorf("%s: got %d on %d pages, want %d on pages of %d", path, len(seen), n, want, limit)
	}
	for _, query := range []string{"colour=red", "limit=0", "limit=101", "cursor=nonsense", "cursor=%00", "limit=1&limit=2"} {
		if got := s.Do("GET", path+"?"+query, key, "").Want(t, 400); got.Get("error.fields.0.path") != strings.Split(query, "=")[0] {
			t.Errorf("%s?%s: got %s, want the parameter named", path, query, got.Body)
		}
	}
	if got := s.Do("GET", path+"?colour=red", key, ""); !strings.Contains(got.Text("error.fields.0.expected"), "limit") {
		t.Errorf("%s?colour=red: got %s, want the known parameters", path, got.Body)
	}
}

func TestApprovals(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		ask := func(name string) string {
			t.Helper()
			return s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"`+name+`","reason":"because"}`).Want(t, 202).Text("approval.id")
		}
		of := func(id, action string) string { return "/v1/approvals/" + id + "/" + action }

		// What was looked at must be what is approved.
		id := ask("Ada")
		digest := s.Do("GET", "/v1/approvals/"+id, s.Full, "").Want(t, 200).Text("data.digest")
		s.Do("POST", of(id, "approve"), s.Full, `{"digest":"`+strings.Repeat("0", 64)+`"}`).Want(t, 409)
		s.Do("POST", of(id, "approve"), s.Full, `{"digest":"`+digest+`","edited":null}`).Want(t, 200)

		// A person may change the values.
		id = ask("Bob")
		s.Do("POST", of(id, "approve"), s.Full, `{"edited":{"first_nam":"Bert"}}`).Want(t, 400)
		s.Do("POST", of(id, "approve"), s.Full, `{"edited":[]}`).Want(t, 400)
		got := s.Do("POST", of(id, "approve"), s.Full, `{"edited":{"first_name":"Bert"}}`).Want(t, 200)
		if got.Text("data.input.first_name") != "Bob" || got.Text("data.edited_input.first_name") != "Bert" {
			t.Errorf("approve with edits: got %s, want both versions", got.Body)
		}
		if got := s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Bob"}`).Want(t, 200); got.Text("status") != "executed_with_edits" || got.Text("data.first_name") != "Bert" {
			t.Errorf("the request after its edit: got %s, want executed_with_edits", got.Body)
		}

		// The requester takes it back, and nobody else can.
		id = ask("Carl")
		s.Do("POST", of(id, "withdraw"), s.Full, "").Want(t, 404)
		if got := s.Do("POST", of(id, "withdraw"), s.Agent, "{}").Want(t, 200).Text("data.status"); got != "withdrawn" {
			t.Errorf("withdraw: got %q, want withdrawn", got)
		}
		s.Do("POST", of(id, "withdraw"), s.Agent, "{}").Want(t, 409)

		// More time.
		id = ask("Dora")
		until := s.Clock.Now().Add(20 * 24 * time.Hour).Format(time.RFC3339)
		if got := s.Do("POST", of(id, "extend"), s.Full, `{"until":"`+until+`"}`).Want(t, 200).Text("data.expires_at"); got != until {
			t.Errorf("extend: got %s, want %s", got, until)
		}
		for _, body := range []string{"", `{}`, `{"until":null}`, `{"until":"2026-03-02T10:00:01Z"}`, `{"until":"2027-03-02T10:00:01Z"}`, `{"until":"soon"}`} {
			if got := s.Do("POST", of(id, "extend"), s.Full, body).Want(t, 400); got.Text("error.fields.0.path") != "until" {
				t.Errorf("extend with %s: got %s, want until named", body, got.Body)
			}
		}

		// Several at once, each for itself.
		first, second := ask("Ella"), ask("Finn")
		got = s.Do("POST", "/v1/approvals/batch", s.Full, `{"decision":"approve","ids":["`+first+`","`+first+`","apr_none","`+second+`"]}`).Want(t, 200)
		for i, want := range []string{"done", "CONFLICT", "NOT_FOUND", "done"} {
			if is := got.Text(fmt.Sprintf("data.%d.approval.execution", i)) + got.Text(fmt.Sprintf("data.%d.error.code", i)); is != want {
				t.Errorf("batch, result %d: got %q, want %s", i, is, want)
			}
		}
		if got := s.Do("POST", "/v1/approvals/batch", s.Full, `{"decision":"reject","reason":"no","ids":["`+id+`"]}`).Want(t, 200).Text("data.0.approval.decision_reason"); got != "no" {
			t.Errorf("batch: got reason %q, want no", got)
		}
		for _, body := range []string{`{}`, `{"decision":"maybe","ids":["x"]}`, `{"decision":"approve","ids":[]}`, `{"decision":"approve","ids":["` + strings.Repeat(`x","`, 100) + `x"]}`} {
			s.Do("POST", "/v1/approvals/batch", s.Full, body).Want(t, 400)
		}
		if got := s.Do("POST", "/v1/approvals/batch", s.Agent, `{"decision":"approve","ids":["`+ask("Gwen")+`"]}`).Want(t, 200).Text("data.0.error.code"); got != "INSUFFICIENT_SCOPE" {
			t.Errorf("batch by the requester: got %q, want INSUFFICIENT_SCOPE", got)
		}

		// An execution that fails comes back.
		products := func(sku string) string {
			return s.Do("POST", "/v1/products", s.Agent, `{"name":"`+sku+`","sku":"S"}`).Want(t, 202).Text("approval.id")
		}
		one, two := products("one"), products("two")
		made := s.Do("POST", "/v1/products", s.Full, `{"name":"first","sku":"S"}`).Want(t, 201).Text("data.id")
		failed := s.Do("POST", of(one, "approve"), s.Full, "").Want(t, 200)
		if failed.Text("data.status") != "approved" || failed.Text("data.execution") != "failed" || failed.Text("data.error.code") != "CONFLICT" || failed.Get("data.executed") != false {
			t.Errorf("approve what fails: got %s, want it approved and failed", failed.Body)
		}
		s.Do("POST", of(one, "dismiss"), s.Agent, "").Want(t, 403)
		if got := s.Do("POST", of(one, "dismiss"), s.Full, "").Want(t, 200).Text("data.execution"); got != "dismissed" {
			t.Errorf("dismiss: got %q, want dismissed", got)
		}
		s.Do("POST", of(one, "retry"), s.Full, "").Want(t, 409)
		s.Do("POST", of(two, "approve"), s.Full, "").Want(t, 200)
		s.Do("DELETE", "/v1/products/"+made, s.Full, "").Want(t, 200)
		if got := s.Do("POST", of(two, "retry"), s.Full, "").Want(t, 200); got.Text("data.execution") != "done" {
			t.Errorf("retry: got %s, want it done", got.Body)
		}

		// Lists.
		for query, want := range map[string]int{"": 9, "?status=pending": 1, "?status=approved": 6, "?status=rejected": 1, "?status=withdrawn": 1, "?execution=done": 5, "?execution=dismissed": 1,
			"?requested_by=" + s.AgentID: 9, "?requested_by=" + s.FullID: 0, "?resource=products": 2, "?resource=nothing": 0} {
			if got := s.Do("GET", "/v1/approvals"+query, s.Full, "").Want(t, 200).Len("data"); got != want {
				t.Errorf("approvals%s: got %d, want %d", query, got, want)
			}
		}
		pages(t, s, s.Full, "/v1/approvals", 2, 9)
		other, _ := s.AddKey(admin.KeyInput{Name: new("other"), Scopes: &[]string{"contacts:read"}})
		if got := s.Do("GET", "/v1/approvals", other, "").Want(t, 200); got.Len("data") != 0 || !strings.Contains(string(got.Body), `"data":[]`) {
			t.Errorf("approvals of another credential: got %s, want []", got.Body)
		}
		s.Do("GET", "/v1/approvals?status=done", s.Full, "").Want(t, 400)
		s.Do("GET", "/v1/approvals/"+id+"?verbose=1", s.Full, "").Want(t, 400)

		// Nobody decides: it expires by itself.
		id = ask("Hugo")
		s.Clock.Advance(8 * 24 * time.Hour)
		s.Do("POST", of(id, "approve"), s.Full, "").Want(t, 409)
	})
}

func TestKeys(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		receiver := servertest.NewReceiver(t)
		made := s.Do("POST", "/v1/keys", s.Full, `{"name":"Hooked","scopes":["contacts:write-approval"],"limits":{"per_minute":7},"webhook_url":"`+receiver.URL+`","webhook_events":["approval.executed"],"expires_at":"2027-01-01T00:00:00Z"}`).Want(t, 201)
		id, key := made.Text("data.id"), made.Text("data.secret")
		if made.Get("data.limits.per_minute") != 7.0 || made.Get("data.limits.per_day") != 10000.0 {
			t.Errorf("limits: got %s, want 7 a minute, and as many a day as any new key", made.Body)
		}
		if got := s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"limits":{"per_day":9}}`).Want(t, 200); got.Get("data.limits.per_minute") != 7.0 || got.Get("data.limits.per_day") != 9.0 {
			t.Errorf("change one limit: got %s, want the other as it was", got.Body)
		}
		if got := s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"expires_at":null}`).Want(t, 200); got.Get("data.expires_at") != nil || got.Get("data.webhook.url") != receiver.URL {
			t.Errorf("take the expiry away: got %s, want none, and the webhook as it was", got.Body)
		}

		// The webhook.
		if got := s.Do("POST", "/v1/keys/"+id+"/webhook/test", s.Full, "").Want(t, 202).Text("data.event"); got != "webhook.test" {
			t.Errorf("test: got event %q", got)
		}
		if d := receiver.Next(); !strings.Contains(string(d.Body), "webhook.test") {
			t.Errorf("test: got %s", d.Body)
		}
		secret := s.Do("POST", "/v1/keys/"+id+"/webhook/rotate", s.Full, `{"overlap_hours":null}`).Want(t, 200).Text("data.webhook_secret")
		if !strings.HasPrefix(secret, "whsec_") || secret == made.Text("data.webhook_secret") {
			t.Errorf("rotate the webhook: got %q, want a new secret", secret)
		}
		s.Do("POST", "/v1/keys/"+id+"/webhook/test", s.Full, "").Want(t, 202)
		d := receiver.Next()
		if n := len(strings.Fields(d.Header.Get("Webhook-Signature"))); n != 2 {
			t.Errorf("signatures in the overlap: got %d, want 2", n)
		}
		list := s.Do("GET", "/v1/deliveries?owner="+id, s.Full, "").Want(t, 200)
		if list.Len("data") != 2 {
			t.Errorf("deliveries: got %s, want 2", list.Body)
		}
		delivery := d.Header.Get("Webhook-Id")
		for s.Do("GET", "/v1/deliveries?status=done", s.Full, "").Len("data") < 2 { // the receiver answers before its answer is stored
			runtime.Gosched()
		}
		s.Do("POST", "/v1/deliveries/"+delivery+"/resend", s.Full, "").Want(t, 202)
		if got := receiver.Next().Header.Get("Webhook-Id"); got != delivery {
			t.Errorf("resend: got webhook-id %s, want %s", got, delivery)
		}
		s.Do("POST", "/v1/deliveries/"+delivery+"/resend", s.Agent, "").Want(t, 403)
		s.Do("POST", "/v1/deliveries/msg_none/resend", s.Full, "").Want(t, 404)
		pages(t, s, s.Full, "/v1/deliveries", 1, 2)
		if got := s.Do("GET", "/v1/deliveries", s.Agent, "").Want(t, 200); !strings.Contains(string(got.Body), `"data":[]`) {
			t.Errorf("deliveries of another credential: got %s, want []", got.Body)
		}
		if got := s.Do("PATCH", "/v1/keys/"+id, s.Full, `{"webhook_url":null}`).Want(t, 200).Get("data.webhook"); got != nil {
			t.Errorf("remove the webhook: got %v, want none", got)
		}
		s.Do("POST", "/v1/keys/"+id+"/webhook/test", s.Full, "").Want(t, 404)
		s.Do("POST", "/v1/keys/"+id+"/webhook/rotate", s.Full, "").Want(t, 404)

		// Usage.
		if got := s.Do("GET", "/v1/keys/"+id+"/usage", s.Full, "").Want(t, 200); !strings.Contains(string(got.Body), `"data":[]`) {
			t.Errorf("usage of an unused key: got %s, want []", got.Body)
		}
		s.Do("GET", "/v1/contacts", key, "").Want(t, 200)
		s.Do("POST", "/v1/contacts", key, `{"first_name":"Ada"}`).Want(t, 202)
		s.Do("DELETE", "/v1/contacts/con_none", key, "").Want(t, 403)
		s.FlushUsage()
		usage := s.Do("GET", "/v1/keys/"+id+"/usage?since=2026-03-01T00:00:00Z", s.Full, "").Want(t, 200)
		var counts []string
		for i := range usage.Len("data") {
			at := fmt.Sprintf("data.%d.", i)
			counts = append(counts, usage.Text(at+"action")+" "+usage.Text(at+"outcome"))
		}
		slices.Sort(counts)
		if want := []string{"create_contact queued", "delete_contact denied", "list_contacts ok"}; !slices.Equal(counts, want) {
			t.Errorf("usage: got %v, want %v", counts, want)
		}
		s.Do("GET", "/v1/keys/"+id+"/usage?since=monday", s.Full, "").Want(t, 400)

		// The list, and who may see it.
		pages(t, s, s.Full, "/v1/keys", 2, 3)
		for _, r := range [][2]string{{"GET", "/v1/keys"}, {"POST", "/v1/keys"}, {"GET", "/v1/keys/" + id}, {"PATCH", "/v1/keys/" + s.AgentID}, {"DELETE", "/v1/keys/" + id},
			{"POST", "/v1/keys/" + id + "/revoke"}, {"POST", "/v1/keys/" + s.AgentID + "/rotate"}, {"GET", "/v1/keys/" + id + "/usage"}, {"GET", "/v1/audit"}, {"GET", "/v1/audit/verify"}} {
			body := ""
			if r[0] == "POST" || r[0] == "PATCH" {
				body = `{}`
			}
			if got := s.Do(r[0], r[1], s.Agent, body).Want(t, 403); got.Text("error.fix") == "" {
				t.Errorf("%v by an agent: got %s, want a fix", r, got.Body)
			}
		}
		for _, r := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"POST", "/revoke"}, {"POST", "/activate"}, {"POST", "/rotate"}, {"GET", "/usage"}} {
			body := ""
			if r[0] == "PATCH" {
				body = `{"name":"x"}`
			}
			s.Do(r[0], "/v1/keys/key_none"+r[1], s.Full, body).Want(t, 404)
		}
		for _, body := range []string{`{}`, `{"name":""}`, `{"name":"x","scopes":["contacts:fly"]}`, `{"name":"x","may_decide":true}`, `{"name":"x","full_access":true,"scopes":["contacts:read"]}`,
			`{"name":"x","limits":{"per_minute":-1}}`, `{"name":"x","expires_at":"2020-01-01T00:00:00Z"}`, `{"name":"x","webhook_url":"http://192.168.0.1/"}`, `{"name":"x","webhook_events":["approval.executed"]}`,
			`{"name":"x","webhook_url":"` + receiver.URL + `","webhook_events":["nothing"]}`, `{"name":"x","FULL_ACCESS":true}`} {
			if got := s.Do("POST", "/v1/keys", s.Full, body).Want(t, 400); got.Text("error.fix") == "" || got.Len("error.fields") == 0 {
				t.Errorf("create a key with %s: got %s, want fields and a fix", body, got.Body)
			}
		}

		// The log.
		if got := s.Do("GET", "/v1/audit?event=key.created&target="+id, s.Full, "").Want(t, 200); got.Len("data") != 1 || got.Text("data.0.actor.id") != s.FullID {
			t.Errorf("audit of the key: got %s, want one entry by %s", got.Body, s.FullID)
		}
		total := s.Do("GET", "/v1/audit?limit=100", s.Full, "").Want(t, 200).Len("data")
		pages(t, s, s.Full, "/v1/audit", 4, total)
		for _, query := range []string{"?cursor=0", "?cursor=-1", "?since=x", "?verbose=1"} {
			s.Do("GET", "/v1/audit"+query, s.Full, "").Want(t, 400)
		}
		if got := s.Do("GET", "/v1/audit?since=2030-01-01T00:00:00Z", s.Full, "").Want(t, 200); !strings.Contains(string(got.Body), `"data":[]`) {
			t.Errorf("audit since later: got %s, want []", got.Body)
		}
	})
}

func TestMe(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		got := s.Do("GET", "/v1/me", s.Agent, "").Want(t, 200)
		if got.Text("data.kind") != "key" || got.Text("data.key.id") != s.AgentID || got.Text("data.workspace.id") != s.Workspace.ID || got.Get("data.full_access") != false || got.Len("data.scopes") == 0 {
			t.Errorf("me: got %s", got.Body)
		}
		s.Do("GET", "/v1/me?x=1", s.Agent, "").Want(t, 400)
	})
}

func TestMethods(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		for _, tt := range []struct {
			method, path string
			status       int
			allow        string
		}{
			{"HEAD", "/v1/contacts", 200, ""},
			{"HEAD", "/v1/me", 200, ""},
			{"HEAD", "/openapi.json", 200, ""},
			{"HEAD", "/v1/approvals/batch", 404, ""}, // no approval has that id
			{"HEAD", "/v1/nothing", 404, ""},
			{"OPTIONS", "/v1/contacts", 204, "GET, HEAD, POST, OPTIONS"},
			{"OPTIONS", "/v1/keys/key_x", 204, "GET, HEAD, PATCH, DELETE, OPTIONS"},
			{"OPTIONS", "/v1/nothing", 404, ""},
			{"PUT", "/v1/contacts", 405, "GET, HEAD, POST, OPTIONS"},
			{"DELETE", "/v1/approvals/batch", 405, "GET, HEAD, POST, OPTIONS"},
			{"POST", "/openapi.json", 405, "GET, HEAD, OPTIONS"},
			{"NONSENSE", "/v1/contacts", 405, "GET, HEAD, POST, OPTIONS"},
		} {
			got := s.Do(tt.method, tt.path, s.Full, "")
			if got.Status != tt.status || got.Header.Get("Allow") != tt.allow {
				t.Errorf("%s %s: got %d, Allow %q, want %d, %q", tt.method, tt.path, got.Status, got.Header.Get("Allow"), tt.status, tt.allow)
			}
		}
		s.Do("POST", "/v1/contacts?first_name=Ada", s.Full, `{"first_name":"Ada"}`).Want(t, 400)
	})
}

func TestPathsThatAreNone(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		for _, path := range []string{"/v1", "/v1/", "/v1/contacts/", "/v1//contacts", "//v1/contacts", "/v1/contacts//", "/v1/./contacts", "/v1/x/../contacts", "/v1/%2e%2e/v1/contacts",
			"/v1/contacts/..%2fme", "/v1/contacts/a%2Fb", "/v1/contacts/%00", "/v1/contacts/%ff", "/v1/approvals/%00", "/v1/approvals/%ff", "/v1/approvals/a%2Fb", "/v1/keys/%00", "/v1/keys/%ff/usage",
			"/v1/contacts/con_%E2%80%AE", "/v1/contacts/" + strings.Repeat("x", 5000), "/v1/" + strings.Repeat("%ff", 5000), "/v1/contacts/' OR 1=1 --", "/v1/approvals/%27%20OR%201=1", "/v2/contacts", "/v1/Contacts"} {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				got := s.Do(method, strings.ReplaceAll(path, " ", "%20"), s.Full, "")
				if path == "/v2/contacts" {
					continue // a page
				}
				if got.Status != 404 && (got.Status != 405 || method == "GET") {
					t.Errorf("%s %.100s: got %d %.300s, want 404", method, path, got.Status, got.Body)
				}
				if got.Text("error.message") == "" || got.Text("error.fix") == "" || len(got.Body) > 2000 {
					t.Errorf("%s %.100s: got %.300s, want a short message with a fix", method, path, got.Body)
				}
			}
		}
	})
}
