package rest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/oauth"
	"trustpager/server/servertest"
	"trustpager/typeid"
)

const callback = "https://client.example.com/callback"

// consent stores what a user, who is made a member, grants to the client, and
// returns the grant's id.
func consent(t *testing.T, s *servertest.Server, client, email, scopes string) string {
	t.Helper()
	u, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), email, "Ada", "", access.Member)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := access.ParseScopes(scopes)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.DB.SaveGrant(t.Context(), oauth.Grant{ID: typeid.NewID("grt"), Workspace: s.Workspace.ID, Client: client, User: u.ID,
		Scopes: granted, CreatedAt: s.Clock.Now(), ConsentedAt: s.Clock.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return g.ID
}

// token asks for an access token of a client that acts for itself.
func token(t *testing.T, s *servertest.Server, id, secret, resource, scope string) servertest.Response {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {resource}}
	if scope != "" {
		form.Set("scope", scope)
	}
	r, err := http.NewRequest("POST", s.URL+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(id, secret)
	return s.Send(r)
}

// A robot is a client that acts for itself, with its secret.
type robot struct{ id, secret string }

// newRobot registers a client that acts for itself within the scopes.
func newRobot(t *testing.T, s *servertest.Server, scopes string) robot {
	t.Helper()
	ceiling, err := json.Marshal(strings.Fields(scopes))
	if err != nil {
		t.Fatal(err)
	}
	r := s.Do("POST", "/v1/clients", s.Full, `{"name":"Robot","client_credentials":true,"scopes":`+string(ceiling)+`}`).Want(t, 201)
	return robot{r.Text("data.id"), r.Text("data.client_secret")}
}

// token returns an access token for the API.
func (c robot) token(t *testing.T, s *servertest.Server, scope string) string {
	t.Helper()
	return token(t, s, c.id, c.secret, s.URL, scope).Want(t, 200).Text("access_token")
}

func TestClientOverREST(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		made := s.Do("POST", "/v1/clients", s.Full, `{"name":"Claude","redirect_uris":["`+callback+`"],"limits":{"per_minute":7},"webhook_url":"http://127.0.0.1:65000/"}`).Want(t, 201)
		id, secret := made.Text("data.id"), made.Text("data.client_secret")
		if !strings.HasPrefix(id, "cli_") || !strings.HasPrefix(secret, oauth.ClientSecretPrefix) || !strings.HasPrefix(made.Text("data.webhook_secret"), "whsec_") ||
			made.Header.Get("Location") != "/v1/clients/"+id || made.Text("data.origin") != "registered" || made.Get("data.public") != false ||
			made.Get("data.limits.per_minute") != 7.0 || made.Get("data.limits.per_day") != 10000.0 || made.Text("data.mcp_url") != s.URL+"/mcp" ||
			made.Text("data.created_by.id") != s.FullID || made.Text("data.webhook.url") != "http://127.0.0.1:65000/" {
			t.Errorf("got %s at %q", made.Body, made.Header.Get("Location"))
		}
		shown := func(r servertest.Response) {
			t.Helper()
			if strings.Contains(string(r.Body), "_secret\":\"") || bytes.Contains(r.Body, []byte(secret)) || bytes.Contains(r.Body, []byte(sha256Hex(secret))) {
				t.Errorf("got %s, want no secret", r.Body)
			}
		}
		path := "/v1/clients/" + id
		read := s.Do("GET", path, s.Full, "").Want(t, 200)
		shown(read)
		if read.Text("data.name") != "Claude" || read.Text("data.redirect_uris.0") != callback || read.Len("data.scopes") == 0 {
			t.Errorf("got %s", read.Body)
		}
		listed := s.Do("GET", "/v1/clients", s.Full, "").Want(t, 200)
		shown(listed)
		if listed.Len("data") != 1 || listed.Get("data.0.grants") != 0.0 {
			t.Errorf("got %s, want the one client without grants", listed.Body)
		}

		patched := s.Do("PATCH", path, s.Full, `{"limits":{"per_day":9},"scopes":["contacts:read"]}`).Want(t, 200)
		shown(patched)
		if patched.Get("data.limits.per_minute") != 7.0 || patched.Get("data.limits.per_day") != 9.0 || patched.Text("data.scopes.0") != "contacts:read" || patched.Text("data.name") != "Claude" {
			t.Errorf("got %s, want only what was sent changed", patched.Body)
		}
		cleared := s.Do("PATCH", path, s.Full, `{"webhook_url":null,"scopes":null,"name":null,"limits":null,"public":null}`).Want(t, 200)
		if cleared.Get("data.webhook") != nil || cleared.Get("data.scopes") == nil || cleared.Len("data.scopes") != 0 || cleared.Get("data.limits.per_day") != 9.0 || cleared.Text("data.name") != "Claude" {
			t.Errorf("got %s, want webhook and scopes gone", cleared.Body)
		}
		if r := s.Do("PATCH", path, s.Full, `{"redirect_uris":null}`).Want(t, 400); r.Text("error.fields.0.path") != "redirect_uris" {
			t.Errorf("got %s", r.Body)
		}
		s.Do("PATCH", path, s.Full, "").Want(t, 200) // changes nothing

		public := s.Do("PATCH", path, s.Full, `{"public":true}`).Want(t, 200)
		shown(public)
		s.Do("POST", path+"/rotate", s.Full, "").Want(t, 409)
		if again := s.Do("PATCH", path, s.Full, `{"public":false}`).Want(t, 200).Text("data.client_secret"); again == "" || again == secret {
			t.Errorf("got the secret %q, want another", again)
		}
		rotated := s.Do("POST", path+"/rotate", s.Full, `{"overlap_hours":2}`).Want(t, 200)
		if rotated.Text("data.client_secret") == "" || rotated.Text("data.old_secret_until") != s.Clock.Now().UTC().Add(2*time.Hour).Truncate(time.Millisecond).Format(time.RFC3339Nano) {
			t.Errorf("got %s, want the end of the old secret", rotated.Body)
		}
		s.Clock.Advance(2 * time.Hour)
		if r := s.Do("GET", path, s.Full, "").Want(t, 200); r.Get("data.old_secret_until") != nil {
			t.Errorf("got %s, want the overlap over", r.Body)
		}

		s.Do("POST", path+"/webhook/test", s.Full, "").Want(t, 404)
		s.Do("PATCH", path, s.Full, `{"webhook_url":"http://127.0.0.1:65000/"}`).Want(t, 200)
		s.Do("POST", path+"/webhook/test", s.Full, "").Want(t, 202)
		if got := s.Do("POST", path+"/webhook/rotate", s.Full, `{"overlap_hours":1}`).Want(t, 200).Text("data.webhook_secret"); !strings.HasPrefix(got, "whsec_") {
			t.Errorf("got the webhook secret %q", got)
		}
		if got := s.Do("DELETE", path, s.Full, "").Want(t, 200); got.Text("data.id") != id || got.Get("data.deleted") != true {
			t.Errorf("got %s", got.Body)
		}
		s.Do("GET", path, s.Full, "").Want(t, 404)
		s.Do("DELETE", path, s.Full, "").Want(t, 404)
	})
}

func TestFaultsOfAClientOverREST(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		r := s.Do("POST", "/v1/clients", s.Full, `{"name":"","redirect_uris":["http://example.com/","`+callback+`","javascript:x"],"public":true,"client_credentials":true,"scopes":["contacts:fly"],"limits":{"per_minute":-1}}`).Want(t, 400)
		var paths []string
		for i := range r.Len("error.fields") {
			paths = append(paths, r.Text("error.fields."+string(rune('0'+i))+".path"))
		}
		if want := []string{"name", "client_credentials", "redirect_uris.0", "redirect_uris.2", "scopes.0", "limits.per_minute"}; !slices.Equal(paths, want) || r.Text("error.fix") == "" {
			t.Errorf("got %s, want the faults %q", r.Body, want)
		}
		id := s.Do("POST", "/v1/clients", s.Full, `{"name":"x","redirect_uris":["`+callback+`"]}`).Want(t, 201).Text("data.id")
		for _, tt := range []struct{ method, path, body string }{
			{"POST", "/v1/clients", `{"name":"x","redirect_uris":["` + callback + `"]}`},
			{"PATCH", "/v1/clients/" + id, `{"public":false}`},
			{"POST", "/v1/clients/" + id + "/rotate", ""},
			{"POST", "/v1/clients/" + id + "/webhook/rotate", ""},
		} {
			if r := s.Do(tt.method, tt.path, s.Full, tt.body, "Idempotency-Key", "one").Want(t, 400); !strings.Contains(r.Text("error.message"), "secret") {
				t.Errorf("%s %s with an Idempotency-Key: got %s", tt.method, tt.path, r.Body)
			}
		}
		s.Do("POST", "/v1/clients/"+id+"/rotate", s.Full, `{"overlap_hours":169}`).Want(t, 400)
		s.Do("POST", "/v1/clients/"+id+"/rotate", s.Full, `{"overlap_hours":-1}`).Want(t, 400)
		s.Do("POST", "/v1/clients", s.Full, `{"name":"x","client_secret":"mine"}`).Want(t, 400)
		s.Do("GET", "/v1/clients?cursor=%00", s.Full, "").Want(t, 400)
		s.Do("GET", "/v1/clients?cursor=cli_gone", s.Full, "").Want(t, 404)
		s.Do("GET", "/v1/clients?limit=101", s.Full, "").Want(t, 400)
		s.Do("GET", "/v1/clients?client=x", s.Full, "").Want(t, 400)
		s.Do("GET", "/v1/grants?status=revoked", s.Full, "").Want(t, 400)
		s.Do("GET", "/v1/grants?cursor=x", s.Full, "").Want(t, 400)
		s.Do("GET", "/v1/grants?user=%00", s.Full, "").Want(t, 400)
		s.Do("PUT", "/v1/clients/"+id, s.Full, "{}").Want(t, 405)
		s.Do("GET", "/v1/grants/revoke", s.Full, "").Want(t, 404) // no grant's id
	})
}

// The id of a client that has a metadata document is a URL, percent-encoded in
// the path.
func TestClientWhoseIDIsAURL(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		const id = "https://agent.example.com/oauth/client.json?v=1"
		c := oauth.Client{ID: id, Origin: oauth.Metadata, Name: "Agent", RedirectURIs: []string{callback}, AuthMethod: oauth.AuthNone,
			GrantTypes: []string{oauth.GrantCode, oauth.GrantRefresh}, CreatedAt: s.Clock.Now()}
		if err := s.DB.SaveDocumentClient(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		path := "/v1/clients/" + url.PathEscape(id)
		s.Do("GET", path, s.Full, "").Want(t, 404) // the workspace does not know it
		if _, err := s.DB.EnsurePolicy(t.Context(), oauth.Policy{Workspace: s.Workspace.ID, Client: id, Limits: access.DefaultLimits, CreatedAt: s.Clock.Now()}); err != nil {
			t.Fatal(err)
		}
		if got := s.Do("GET", path, s.Full, "").Want(t, 200).Text("data.id"); got != id {
			t.Errorf("got %q, want %q", got, id)
		}
		s.Do("PATCH", path, s.Full, `{"scopes":["contacts:read"],"webhook_url":"http://127.0.0.1:65000/"}`).Want(t, 200)
		if r := s.Do("PATCH", path, s.Full, `{"name":"Mine"}`).Want(t, 409); r.Text("error.fix") == "" {
			t.Errorf("got %s, want a fix", r.Body)
		}
		s.Do("POST", path+"/rotate", s.Full, "").Want(t, 409)
		s.Do("POST", path+"/webhook/test", s.Full, "").Want(t, 202)
		grant := consent(t, s, id, "ada@example.com", "contacts:read")
		if r := s.Do("GET", "/v1/grants?client="+url.QueryEscape(id), s.Full, "").Want(t, 200); r.Len("data") != 1 || r.Text("data.0.id") != grant {
			t.Errorf("got %s, want the grant %s", r.Body, grant)
		}
		if got := s.Do("GET", "/v1/clients?limit=1&cursor="+url.QueryEscape(id), s.Full, "").Want(t, 200).Len("data"); got != 0 {
			t.Errorf("after the last one: got %d, want none", got)
		}
		s.Do("DELETE", path, s.Full, "").Want(t, 200)
		s.Do("GET", "/v1/grants/"+grant, s.Full, "").Want(t, 404)
	})
}

func TestGrantsOverREST(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		client := s.Do("POST", "/v1/clients", s.Full, `{"name":"Claude","redirect_uris":["`+callback+`"]}`).Want(t, 201).Text("data.id")
		one, two := consent(t, s, client, "ada@example.com", "contacts:write deals:read"), consent(t, s, client, "bob@example.com", "contacts:read")
		path := "/v1/grants/" + one
		read := s.Do("GET", path, s.Full, "").Want(t, 200)
		if read.Text("data.status") != "active" || read.Text("data.client.id") != client || read.Text("data.client.name") != "Claude" || read.Text("data.user.email") != "ada@example.com" || read.Len("data.scopes") != 2 {
			t.Errorf("got %s", read.Body)
		}
		first := s.Do("GET", "/v1/grants?limit=1", s.Full, "").Want(t, 200)
		second := s.Do("GET", "/v1/grants?limit=1&cursor="+first.Text("pagination.next_cursor"), s.Full, "").Want(t, 200)
		if first.Text("data.0.id") != two || second.Text("data.0.id") != one || second.Get("pagination.has_more") != false {
			t.Errorf("got %s, then %s, want the newest first", first.Body, second.Body)
		}

		if r := s.Do("PATCH", path, s.Full, `{"scopes":["contacts:read"]}`).Want(t, 200); r.Text("data.scopes.0") != "contacts:read" || r.Len("data.scopes") != 1 {
			t.Errorf("got %s", r.Body)
		}
		if r := s.Do("PATCH", path, s.Full, `{"scopes":["contacts:write"]}`).Want(t, 400); !strings.Contains(r.Text("error.message"), "only they can widen") {
			t.Errorf("got %s", r.Body)
		}
		for _, body := range []string{"", "{}", `{"scopes":null}`} {
			if r := s.Do("PATCH", path, s.Full, body).Want(t, 400); r.Text("error.code") != "MISSING_FIELDS" {
				t.Errorf("%q: got %s", body, r.Body)
			}
		}
		if r := s.Do("PATCH", path, s.Full, `{"scopes":["contacts:fly","x"]}`).Want(t, 400); r.Len("error.fields") != 2 {
			t.Errorf("got %s", r.Body)
		}
		s.Do("PATCH", path, s.Full, `{"scopes":[]}`).Want(t, 200)

		for range 2 {
			if r := s.Do("POST", path+"/revoke", s.Full, "").Want(t, 200); r.Text("data.status") != "revoked" || r.Text("data.revoked_at") == "" {
				t.Errorf("got %s", r.Body)
			}
		}
		s.Do("PATCH", path, s.Full, `{"scopes":[]}`).Want(t, 409)
		if r := s.Do("GET", "/v1/grants?status=active", s.Full, "").Want(t, 200); r.Len("data") != 1 || r.Text("data.0.id") != two {
			t.Errorf("got %s, want only %s", r.Body, two)
		}
		if r := s.Do("POST", "/v1/grants/revoke", s.Full, "{}").Want(t, 400); r.Text("error.code") != "MISSING_FIELDS" || r.Text("error.fix") == "" {
			t.Errorf("got %s", r.Body)
		}
		if got := s.Do("POST", "/v1/grants/revoke", s.Full, `{"client":"`+client+`"}`).Want(t, 200).Get("data.revoked"); got != 1.0 {
			t.Errorf("got %v, want 1", got)
		}
		if got := s.Do("POST", "/v1/grants/revoke", s.Full, `{"client":"`+client+`","user":"usr_x"}`).Want(t, 200).Get("data.revoked"); got != 0.0 {
			t.Errorf("got %v, want 0", got)
		}
	})
}

// routesOf are the routes of clients and grants.
func routesOf(client, grant string) [][3]string {
	return [][3]string{
		{"GET", "/v1/clients", ""},
		{"POST", "/v1/clients", `{"name":"x","redirect_uris":["` + callback + `"]}`},
		{"GET", "/v1/clients/" + client, ""},
		{"PATCH", "/v1/clients/" + client, `{"scopes":[]}`},
		{"POST", "/v1/clients/" + client + "/rotate", ""},
		{"POST", "/v1/clients/" + client + "/webhook/rotate", ""},
		{"POST", "/v1/clients/" + client + "/webhook/test", ""},
		{"GET", "/v1/grants", ""},
		{"GET", "/v1/grants/" + grant, ""},
		{"PATCH", "/v1/grants/" + grant, `{"scopes":[]}`},
		{"POST", "/v1/grants/" + grant + "/revoke", ""},
		{"POST", "/v1/grants/revoke", `{"client":"` + client + `"}`},
		{"DELETE", "/v1/clients/" + client, ""},
	}
}

func TestAgentsManageNeitherClientsNorGrants(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		bot := newRobot(t, s, "contacts:delete company:write users:delete")
		grant := consent(t, s, bot.id, "ada@example.com", "contacts:read")
		for who, key := range map[string]string{"an agent's key": s.Agent, "an OAuth client": bot.token(t, s, "")} {
			for _, r := range routesOf(bot.id, grant) {
				got := s.Do(r[0], r[1], key, r[2])
				if got.Status != 403 || got.Text("error.code") != "INSUFFICIENT_SCOPE" || got.Text("error.fix") == "" || got.Header.Get("WWW-Authenticate") != "" {
					t.Errorf("%s, %s %s: got %d %s, challenge %q, want 403 without one", who, r[0], r[1], got.Status, got.Body, got.Header.Get("WWW-Authenticate"))
				}
			}
		}
		if got := s.Do("GET", "/v1/audit?event=action.denied&limit=100", s.Full, "").Want(t, 200).Len("data"); got != 2*len(routesOf("", "")) {
			t.Errorf("audit log: got %d refusals, want %d", got, 2*len(routesOf("", "")))
		}
	})
}

func TestOtherWorkspacesClientsAreNotFound(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		client := s.Do("POST", "/v1/clients", s.Full, `{"name":"Claude","redirect_uris":["`+callback+`"]}`).Want(t, 201).Text("data.id")
		grant := consent(t, s, client, "ada@example.com", "contacts:read")
		other, err := s.Desk.CreateWorkspace(context.Background(), "Other", "UTC")
		if err != nil {
			t.Fatal(err)
		}
		yes := true
		made, err := s.Desk.CreateKey(context.Background(), admin.OperatorGrant(other), admin.KeyInput{Name: new("full"), FullAccess: &yes})
		if err != nil {
			t.Fatal(err)
		}
		key := string(made.Secret)
		for _, r := range routesOf(client, grant) {
			got := s.Do(r[0], r[1], key, r[2])
			switch {
			case strings.Contains(r[1], client) || strings.Contains(r[1], grant):
				if got.Status != 404 {
					t.Errorf("%s %s: got %d %s, want 404", r[0], r[1], got.Status, got.Body)
				}
			case r[0] == "GET" && got.Len("data") > 1 || strings.Contains(string(got.Body), grant):
				t.Errorf("%s %s: got %s, want another workspace's hidden", r[0], r[1], got.Body)
			case r[1] == "/v1/grants/revoke" && got.Get("data.revoked") != 0.0:
				t.Errorf("got %s, want none revoked", got.Body)
			}
		}
		if got := s.Do("GET", "/v1/grants/"+grant, s.Full, "").Want(t, 200).Text("data.status"); got != "active" {
			t.Errorf("got %q, want the grant as it was", got)
		}
	})
}

func TestMeOfAnOAuthClient(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		bot := newRobot(t, s, "contacts:write deals:read")
		me := s.Do("GET", "/v1/me", bot.token(t, s, "contacts:read"), "").Want(t, 200)
		if me.Text("data.kind") != "oauth" || me.Text("data.client.id") != bot.id || me.Text("data.client.name") != "Robot" || !strings.HasPrefix(me.Text("data.client.grant"), "grt_") ||
			me.Get("data.key") != nil || me.Get("data.user") != nil || me.Get("data.full_access") != false || me.Get("data.may_decide") != false ||
			me.Text("data.workspace.id") != s.Workspace.ID || me.Len("data.scopes") != 1 || me.Text("data.scopes.0") != "contacts:read" || me.Get("data.limits.per_minute") != 60.0 {
			t.Errorf("got %s", me.Body)
		}
		if coarse := s.Do("GET", "/v1/me", bot.token(t, s, ""), "").Want(t, 200); coarse.Len("data.scopes") != 2 {
			t.Errorf("with the coarse scope: got %s, want the ceiling", coarse.Body)
		}
		if key := s.Do("GET", "/v1/me", s.Agent, "").Want(t, 200); key.Text("data.kind") != "key" || key.Text("data.key.id") != s.AgentID || key.Get("data.client") != nil {
			t.Errorf("of a key: got %s", key.Body)
		}
	})
}

func TestStepUp(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		bot := newRobot(t, s, "contacts:write deals:read")
		fine := bot.token(t, s, "contacts:read")
		s.Do("GET", "/v1/contacts", fine, "").Want(t, 200)
		refused := s.Do("POST", "/v1/contacts", fine, `{"first_name":"Ada"}`).Want(t, 403)
		if want := oauth.InsufficientScope(s.URL, "", "contacts:read contacts:write-approval"); refused.Header.Get("WWW-Authenticate") != want || refused.Text("error.code") != "INSUFFICIENT_SCOPE" {
			t.Errorf("got %s, challenge %q, want %q", refused.Body, refused.Header.Get("WWW-Authenticate"), want)
		}
		if !strings.Contains(refused.Header.Get("WWW-Authenticate"), `scope="contacts:read contacts:write-approval"`) {
			t.Errorf("got the challenge %q", refused.Header.Get("WWW-Authenticate"))
		}

		// What the token has, and the ceiling has not, is no matter of scopes.
		coarse := bot.token(t, s, "")
		s.Do("POST", "/v1/contacts", coarse, `{"first_name":"Ada"}`).Want(t, 201)
		for name, token := range map[string]string{"coarse": coarse, "fine": bot.token(t, s, "deals:write")} {
			r := s.Do("POST", "/v1/deals", token, `{"title":"x","pipeline_id":"pip_x"}`).Want(t, 403)
			if r.Header.Get("WWW-Authenticate") != "" || !strings.Contains(r.Text("error.fix"), bot.id) {
				t.Errorf("%s: got %s, challenge %q, want a fix that names the client, and no challenge", name, r.Body, r.Header.Get("WWW-Authenticate"))
			}
		}
		if r := s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Eve"}`).Want(t, 202); r.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("got the challenge %q for a key", r.Header.Get("WWW-Authenticate"))
		}
		// Approvals are no action: asking for scopes would not help.
		waiting := s.Do("POST", "/v1/contacts", bot.token(t, s, "contacts:write-approval"), `{"first_name":"Zoe"}`).Want(t, 202).Text("approval.id")
		if r := s.Do("POST", "/v1/approvals/"+waiting+"/approve", fine, "").Want(t, 403); r.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("approve: got the challenge %q, want none", r.Header.Get("WWW-Authenticate"))
		}
	})
}

// A client that acts for a user is led to the grant, where the user changes it.
func TestStepUpLeadsToTheGrant(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		client := s.Do("POST", "/v1/clients", s.Full, `{"name":"Claude","redirect_uris":["`+callback+`"]}`).Want(t, 201)
		grant := consent(t, s, client.Text("data.id"), "ada@example.com", "contacts:read")
		user := s.Do("GET", "/v1/grants/"+grant, s.Full, "").Text("data.user.id")
		held := signIn(t, s, client.Text("data.id"), client.Text("data.client_secret"), grant, user)
		if me := s.Do("GET", "/v1/me", held, "").Want(t, 200); me.Text("data.user.id") != user || me.Text("data.client.grant") != grant {
			t.Errorf("got %s, want the user", me.Body)
		}
		r := s.Do("POST", "/v1/contacts", held, `{"first_name":"Ada"}`).Want(t, 403)
		if !strings.Contains(r.Text("error.fix"), s.URL+"/connections/"+grant) || r.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("got %s, challenge %q, want a link to the grant", r.Body, r.Header.Get("WWW-Authenticate"))
		}
		s.Do("POST", "/v1/grants/"+grant+"/revoke", s.Full, "").Want(t, 200)
		s.Do("GET", "/v1/me", held, "").Want(t, 401)
	})
}

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// challengeOf returns the S256 challenge of the verifier (RFC 7636 §4.2).
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// signIn exchanges a code of the user, and returns an access token for the API.
func signIn(t *testing.T, s *servertest.Server, client, secret, grant, user string) string {
	t.Helper()
	const verifier = "a-verifier-of-at-least-forty-three-characters-0123456789"
	const code = "a-code-that-the-user-has-consented-to"
	now := s.Clock.Now()
	err := s.DB.CreateCode(t.Context(), oauth.AuthorizationCode{Hash: sha256Hex(code), Workspace: s.Workspace.ID, Client: client, User: user, Grant: grant,
		RedirectURI: callback, Challenge: challengeOf(verifier), Resource: s.URL, Scope: access.ScopeWorkspace, CreatedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("POST", s.URL+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(client, secret)
	return s.Send(r).Want(t, 200).Text("access_token")
}

func TestTokenOfAnotherResourceIsRefused(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		bot := newRobot(t, s, "contacts:read")
		challenge := oauth.Challenge(s.URL, "", true)
		for _, resource := range []string{s.URL + "/mcp", s.URL + "/mcp/" + s.Workspace.ID} {
			foreign := token(t, s, bot.id, bot.secret, resource, "").Want(t, 200).Text("access_token")
			r := s.Do("GET", "/v1/contacts", foreign, "").Want(t, 401)
			if r.Header.Get("WWW-Authenticate") != challenge || !strings.Contains(challenge, `resource_metadata="`+s.URL+`/.well-known/oauth-protected-resource"`) {
				t.Errorf("%s: got %s, challenge %q, want %q", resource, r.Body, r.Header.Get("WWW-Authenticate"), challenge)
			}
		}
		own := bot.token(t, s, "")
		s.Do("GET", "/v1/contacts?access_token="+own, "", "").Want(t, 401)
		s.Clock.Advance(oauth.AccessTTL)
		if r := s.Do("GET", "/v1/contacts", own, "").Want(t, 401); r.Header.Get("WWW-Authenticate") != challenge {
			t.Errorf("expired: got the challenge %q", r.Header.Get("WWW-Authenticate"))
		}
		if r := token(t, s, bot.id, bot.secret, "https://elsewhere.example.com", "").Want(t, 400); r.Text("error") != "invalid_target" {
			t.Errorf("got %s", r.Body)
		}
	})
}

func TestWhatAdminsChangeHoldsAtTheNextRequest(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		bot := newRobot(t, s, "contacts:write")
		token1 := bot.token(t, s, "")
		path := "/v1/clients/" + bot.id
		s.Do("POST", "/v1/contacts", token1, `{"first_name":"Ada"}`).Want(t, 201)
		s.Do("PATCH", path, s.Full, `{"scopes":["contacts:write-approval"]}`).Want(t, 200)
		s.Do("POST", "/v1/contacts", token1, `{"first_name":"Bob"}`).Want(t, 202)
		s.Do("PATCH", path, s.Full, `{"scopes":["contacts:read"]}`).Want(t, 200)
		s.Do("POST", "/v1/contacts", token1, `{"first_name":"Carl"}`).Want(t, 403)
		s.Do("GET", "/v1/contacts", token1, "").Want(t, 200)
		s.Do("PATCH", path, s.Full, `{"scopes":[]}`).Want(t, 200)
		s.Do("GET", "/v1/contacts", token1, "").Want(t, 403)
		s.Do("PATCH", path, s.Full, `{"scopes":["contacts:read"]}`).Want(t, 200)
		s.Do("GET", "/v1/contacts", token1, "").Want(t, 200)

		grant := s.Do("GET", "/v1/me", token1, "").Text("data.client.grant")
		listed := s.Do("GET", "/v1/grants/"+grant, s.Full, "").Want(t, 200)
		if listed.Get("data.user") != nil || listed.Text("data.status") != "active" {
			t.Errorf("got %s, want a grant of nobody", listed.Body)
		}
		s.Do("PATCH", "/v1/grants/"+grant, s.Full, `{"scopes":[]}`).Want(t, 409)
		s.Do("POST", "/v1/grants/"+grant+"/revoke", s.Full, "").Want(t, 200)
		if r := s.Do("GET", "/v1/contacts", token1, "").Want(t, 401); r.Header.Get("WWW-Authenticate") == "" {
			t.Error("no challenge for a token of a revoked grant")
		}
		if r := token(t, s, bot.id, bot.secret, s.URL, "").Want(t, 400); r.Text("error") != "unauthorized_client" {
			t.Errorf("got %s, want no new token", r.Body)
		}
	})
}

func TestLimitsOfAClientHoldForEachGrant(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		made := s.Do("POST", "/v1/clients", s.Full, `{"name":"Robot","client_credentials":true,"redirect_uris":["`+callback+`"],"limits":{"per_minute":2}}`).Want(t, 201)
		bot := robot{made.Text("data.id"), made.Text("data.client_secret")}
		grant := consent(t, s, bot.id, "ada@example.com", "contacts:read")
		user := s.Do("GET", "/v1/grants/"+grant, s.Full, "").Text("data.user.id")
		own, hers := []string{bot.token(t, s, ""), bot.token(t, s, "contacts:read")}, signIn(t, s, bot.id, bot.secret, grant, user)
		s.Do("GET", "/v1/contacts", own[0], "").Want(t, 200)
		s.Do("GET", "/v1/contacts", own[1], "").Want(t, 200) // another token of the same grant
		if r := s.Do("GET", "/v1/contacts", own[0], "").Want(t, 429); r.Header.Get("Retry-After") == "" || r.Header.Get("RateLimit-Limit") != "2" {
			t.Errorf("got %s, Retry-After %q", r.Body, r.Header.Get("Retry-After"))
		}
		s.Do("GET", "/v1/contacts", hers, "").Want(t, 200)
		s.Do("PATCH", "/v1/clients/"+bot.id, s.Full, `{"limits":{"per_minute":0}}`).Want(t, 200)
		s.Do("GET", "/v1/contacts", own[0], "").Want(t, 200)
	})
}

func TestSecretsOfAClientAtTheTokenEndpoint(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		bot := newRobot(t, s, "contacts:read")
		held := bot.token(t, s, "")
		path := "/v1/clients/" + bot.id
		next := s.Do("POST", path+"/rotate", s.Full, `{"overlap_hours":1}`).Want(t, 200).Text("data.client_secret")
		invalid := func(secret string) {
			t.Helper()
			r := token(t, s, bot.id, secret, s.URL, "").Want(t, 401)
			if r.Text("error") != "invalid_client" || !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic") {
				t.Errorf("got %s, challenge %q, want invalid_client", r.Body, r.Header.Get("WWW-Authenticate"))
			}
		}
		bot.token(t, s, "")
		robot{bot.id, next}.token(t, s, "")
		invalid("wrong")
		s.Do("GET", "/v1/contacts", held, "").Want(t, 200) // another secret ends no token
		s.Clock.Advance(time.Hour)
		invalid(bot.secret)
		robot{bot.id, next}.token(t, s, "")
		last := s.Do("POST", path+"/rotate", s.Full, "").Want(t, 200).Text("data.client_secret")
		invalid(next)
		held = robot{bot.id, last}.token(t, s, "")

		s.Do("DELETE", path, s.Full, "").Want(t, 200)
		invalid(last)
		s.Do("GET", "/v1/contacts", held, "").Want(t, 401)
	})
}

func TestClientEndsWithTheKeyThatRegisteredIt(t *testing.T) {
	each(t, func(t *testing.T, s *servertest.Server) {
		yes := true
		key, id := s.AddKey(admin.KeyInput{Name: new("maker"), FullAccess: &yes})
		made := s.Do("POST", "/v1/clients", key, `{"name":"Robot","client_credentials":true}`).Want(t, 201)
		bot := robot{made.Text("data.id"), made.Text("data.client_secret")}
		held := bot.token(t, s, "")
		s.Do("GET", "/v1/contacts", held, "").Want(t, 200)
		s.Do("POST", "/v1/clients/"+bot.id+"/rotate", s.Full, "").Want(t, 403) // another key's
		s.Do("POST", "/v1/keys/"+id+"/revoke", s.Full, "").Want(t, 200)
		s.Do("GET", "/v1/contacts", held, "").Want(t, 401)
		if r := token(t, s, bot.id, bot.secret, s.URL, "").Want(t, 400); r.Text("error") != "unauthorized_client" {
			t.Errorf("got %s", r.Body)
		}
	})
}
