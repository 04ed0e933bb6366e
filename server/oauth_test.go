package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"trustpager/admin"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// A service is an OAuth client that acts for itself.
type service struct {
	s          *servertest.Server
	id, secret string
}

func newService(t *testing.T, s *servertest.Server, scopes ...string) *service {
	t.Helper()
	in := admin.ClientInput{Name: new("Service"), ClientCredentials: new(true)}
	if scopes != nil {
		in.Scopes = &scopes
	}
	made, err := s.Desk.CreateClient(t.Context(), admin.OperatorGrant(s.Workspace), in)
	if err != nil {
		t.Fatal(err)
	}
	return &service{s, made.Client.ID, string(made.Secret)}
}

// token gets an access token for the resource.
func (c *service) token(t *testing.T, resource string) string {
	t.Helper()
	return c.ask(t, resource).Want(t, 200).Text("access_token")
}

// ask sends a token request for the resource.
func (c *service) ask(t *testing.T, resource string) servertest.Response {
	t.Helper()
	r, err := http.NewRequest("POST", c.s.URL+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "resource": {resource}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(c.id, c.secret)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.s.Send(r)
}

// doors are the protected resources, each with a request to it.
func doors(s *servertest.Server) map[string]func() *http.Request {
	request := func(method, path, body string) func() *http.Request {
		return func() *http.Request {
			r, _ := http.NewRequest(method, s.URL+path, strings.NewReader(body)) // cannot fail: the URLs are ours
			if body != "" {
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Accept", "application/json, text/event-stream")
			}
			return r
		}
	}
	const list = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	return map[string]func() *http.Request{
		s.URL:                            request("GET", "/v1/me", ""),
		s.URL + "/mcp":                   request("POST", "/mcp", list),
		s.URL + "/mcp/" + s.Workspace.ID: request("POST", "/mcp/"+s.Workspace.ID, list),
	}
}

// A token is good for the resource that it is for, and for no other.
func TestOAuth_1_3_TokenOfAnotherDoor(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		c := newService(t, s)
		for resource := range doors(s) {
			token := c.token(t, resource)
			for door, request := range doors(s) {
				r := request()
				r.Header.Set("Authorization", "bEaReR "+token)
				got := s.Send(r)
				want := 401
				if door == resource {
					want = 200
				}
				challenge := got.Header.Get("WWW-Authenticate")
				if got.Status != want || want == 401 != strings.Contains(challenge, `error="invalid_token"`) || want == 401 != strings.Contains(challenge, "resource_metadata=") {
					t.Errorf("a token for %s at %s: got %d %q, want %d", resource, door, got.Status, challenge, want)
				}
			}
		}
	})
}

// A token in the URL or in the body of a form is none.
func TestOAuth_1_3_TokenFromTheHeaderOnly(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	c := newService(t, s)
	for door, request := range doors(s) {
		token := c.token(t, door)
		inURL := request()
		inURL.URL.RawQuery = "access_token=" + token
		if got := s.Send(inURL); got.Status != 401 {
			t.Errorf("%s: a token in the URL: got %d, want 401", door, got.Status)
		}
		twice := request()
		twice.Header["Authorization"] = []string{"Bearer " + token, "Bearer " + token}
		if got := s.Send(twice); got.Status != 401 {
			t.Errorf("%s: two Authorization headers: got %d, want 401", door, got.Status)
		}
		basic := request()
		basic.SetBasicAuth(c.id, c.secret)
		if got := s.Send(basic); got.Status != 401 {
			t.Errorf("%s: the client's secret: got %d, want 401", door, got.Status)
		}
	}
}

// Web pages may ask for metadata and tokens from anywhere, because these doors
// know no cookies; at the resources only allowed pages may call. Preflights are
// answered before anybody is asked for a credential.
func TestOAuth_1_4_And_1_5_OriginsAtEachDoor(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	for path, open := range map[string]bool{
		"/.well-known/oauth-protected-resource/mcp":   true,
		"/.well-known/oauth-authorization-server":     true,
		"/.well-known/oauth-authorization-server/mcp": true,
		"/.well-known/openid-configuration":           true,
		"/oauth/jwks.json":                            true,
		"/oauth/token":                                true,
		"/oauth/register":                             true,
		"/oauth/revoke":                               true,
		"/mcp":                                        false,
		"/mcp/" + s.Workspace.ID:                      false,
		"/v1/me":                                      false,
	} {
		for origin, allowed := range map[string]bool{s.URL: true, "https://inspector.example": open} {
			r, err := http.NewRequest("OPTIONS", s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", origin)
			r.Header.Set("Access-Control-Request-Method", "POST")
			got := s.Send(r)
			if allowed {
				headers := got.Header.Get("Access-Control-Allow-Headers")
				if got.Status != 204 || got.Header.Get("Access-Control-Allow-Origin") == "" || !strings.Contains(headers, "Authorization") || !strings.Contains(headers, "Content-Type") ||
					!strings.Contains(got.Header.Get("Access-Control-Expose-Headers"), "WWW-Authenticate") {
					t.Errorf("%s for %s: got %d %v, want an answered preflight", path, origin, got.Status, got.Header)
				}
			} else if got.Status != 403 || got.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s for %s: got %d, want 403", path, origin, got.Status)
			}
		}
		r, err := http.NewRequest("GET", s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example"
		if strings.HasPrefix(path, "/oauth/") && path != "/oauth/jwks.json" {
			r.Method = "POST"
		}
		if got := s.Send(r); got.Status != 403 {
			t.Errorf("%s under another name: got %d, want 403", path, got.Status)
		}
	}
}

// What takes a client's rights away holds from its next request on, at every
// door.
func TestOAuth_1_3_ChangesHoldAtOnce(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		op := admin.OperatorGrant(s.Workspace)
		c := newService(t, s, "contacts:write")
		token := c.token(t, s.URL)
		s.Do("POST", "/v1/contacts", token, `{"first_name":"Ada"}`).Want(t, 201)
		edit := func(scopes ...string) {
			t.Helper()
			if _, err := s.Desk.UpdateClient(t.Context(), op, c.id, admin.ClientInput{Scopes: &scopes}); err != nil {
				t.Fatal(err)
			}
		}
		edit("contacts:write-approval")
		s.Do("POST", "/v1/contacts", token, `{"first_name":"Bob"}`).Want(t, 202)
		edit("contacts:read")
		refused := s.Do("POST", "/v1/contacts", token, `{"first_name":"Cleo"}`).Want(t, 403)
		if refused.Header.Get("WWW-Authenticate") != "" || !strings.Contains(refused.Text("error.fix"), "An admin of the workspace can change") {
			t.Errorf("the coarse scope: got %v %s, want no challenge and the way to more", refused.Header, refused.Body)
		}
		if _, err := s.Desk.RevokeGrants(t.Context(), op, c.id, ""); err != nil {
			t.Fatal(err)
		}
		s.Do("GET", "/v1/contacts", token, "").Want(t, 401)
	})
}

// A client that acts for itself, and whose access was revoked, gets it back with
// a new secret, and not with the old one.
func TestServiceIsRevivedByANewSecret(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		op := admin.OperatorGrant(s.Workspace)
		c := newService(t, s)
		before := c.token(t, s.URL)
		if _, err := s.Desk.RevokeGrants(t.Context(), op, c.id, ""); err != nil {
			t.Fatal(err)
		}
		refused := c.ask(t, s.URL).Want(t, 400)
		if refused.Text("error") != "unauthorized_client" {
			t.Errorf("after the revocation: got %s, want unauthorized_client", refused.Body)
		}
		made, err := s.Desk.RotateClient(t.Context(), op, c.id, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.ask(t, s.URL).Want(t, 401)
		c.secret = string(made.Secret)
		s.Do("GET", "/v1/me", c.token(t, s.URL), "").Want(t, 200)
		s.Do("GET", "/v1/me", before, "").Want(t, 401)
	})
}

// A client that may not act for itself any more does not, from the next request
// on; it may again when an admin says so.
func TestServiceEndsWithItsGrantType(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{})
		c := newService(t, s)
		token := c.token(t, s.URL)
		edit := func(may bool) {
			t.Helper()
			in := admin.ClientInput{ClientCredentials: &may, RedirectURIs: &[]string{"https://app.example.com/callback"}}
			if _, err := s.Desk.UpdateClient(t.Context(), admin.OperatorGrant(s.Workspace), c.id, in); err != nil {
				t.Fatal(err)
			}
		}
		s.Do("GET", "/v1/me", token, "").Want(t, 200)
		edit(false)
		s.Do("GET", "/v1/me", token, "").Want(t, 401)
		c.ask(t, s.URL).Want(t, 400)
		edit(true)
		s.Do("GET", "/v1/me", c.token(t, s.URL), "").Want(t, 200)
		s.Do("GET", "/v1/me", token, "").Want(t, 401)
	})
}
