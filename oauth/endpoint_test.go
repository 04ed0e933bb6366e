package oauth_test

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/oauth"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func request(method, path, body string) *http.Request {
	return httptest.NewRequest(method, path, strings.NewReader(body))
}

func one(t *testing.T, options ...option) *fixture {
	return newFixture(t, storagetest.Open(t, t.TempDir()+"/test.db"), options...)
}

func TestOAuth_1_1_ResourceMetadata(t *testing.T) {
	f := one(t)
	for path, resource := range map[string]string{
		"":                  issuer,
		"/mcp":              mcp,
		"/mcp/" + f.ws.ID:   mcp + "/" + f.ws.ID,
		"/mcp/ws_x":         "",
		"/mcp/" + f.user.ID: "",
	} {
		r := f.do(request("GET", "/.well-known/oauth-protected-resource"+path, ""))
		if resource == "" {
			want(t, r, 404, "invalid_request")
			continue
		}
		if r.status != 200 || r.str("resource") != resource || !reflect.DeepEqual(r.m["authorization_servers"], []any{issuer}) ||
			!reflect.DeepEqual(r.m["scopes_supported"], []any{"workspace"}) || strings.Contains(r.body, "null") || strings.Contains(r.body, "offline") {
			t.Errorf("%q: got %d %s", path, r.status, r.body)
		}
	}
}

func TestOAuth_1_2_Challenges(t *testing.T) {
	ws := typeid.NewID("ws")
	for _, tt := range []struct{ got, want string }{
		{oauth.Challenge(issuer, "/mcp", false), `Bearer resource_metadata="https://tp.example/.well-known/oauth-protected-resource/mcp", scope="workspace"`},
		{oauth.ResourceMetadataURL(issuer, "/mcp/"+ws), issuer + "/.well-known/oauth-protected-resource/mcp/" + ws},
		{oauth.ResourceMetadataURL(issuer, "/v1/contacts"), issuer + "/.well-known/oauth-protected-resource"},
		{oauth.ResourceMetadataURL(issuer, `/mcp/x", evil="`), issuer + "/.well-known/oauth-protected-resource"},
		{oauth.InsufficientScope(issuer, "/mcp", "contacts:read"), `Bearer error="insufficient_scope", scope="contacts:read", resource_metadata="https://tp.example/.well-known/oauth-protected-resource/mcp", error_description="The access token does not have the scopes that this needs"`},
	} {
		if tt.got != tt.want {
			t.Errorf("got  %s\nwant %s", tt.got, tt.want)
		}
	}
	if c := oauth.Challenge(issuer, "/mcp", true); !strings.Contains(c, `error="invalid_token"`) {
		t.Errorf("with a token: got %s", c)
	}
}

func TestOAuth_1_4_And_1_5_HostsAndBrowsers(t *testing.T) {
	f := one(t)
	r := request("GET", "/.well-known/oauth-authorization-server", "")
	r.Host = "evil.example"
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, r)
	if w.Code != 403 {
		t.Errorf("another host's name: got %d, want 403", w.Code)
	}
	for _, path := range []string{oauth.TokenPath, oauth.RegisterPath, oauth.RevokePath, "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server"} {
		pre := request("OPTIONS", path, "")
		pre.Header.Set("Origin", "https://inspector.example")
		pre.Header.Set("Access-Control-Request-Method", "POST")
		got := f.do(pre)
		if got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("preflight of %s: got %d %v", path, got.status, got.header)
		}
		for _, h := range []string{"Authorization", "Content-Type", "Accept", "Mcp-Protocol-Version", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name", "Last-Event-ID"} {
			if !strings.Contains(got.header.Get("Access-Control-Allow-Headers"), h) {
				t.Errorf("preflight of %s does not allow %s", path, h)
			}
		}
	}
	call := request("GET", "/.well-known/oauth-authorization-server", "")
	call.Header.Set("Origin", "https://inspector.example")
	if got := f.do(call); got.status != 200 || !strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "WWW-Authenticate") {
		t.Errorf("a page's call: got %d %v", got.status, got.header)
	}
}

func TestOAuth_2_1_Metadata(t *testing.T) {
	f := one(t)
	for _, path := range []string{
		"/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/mcp", "/.well-known/oauth-authorization-server/mcp/" + f.ws.ID,
		"/.well-known/openid-configuration", "/.well-known/openid-configuration/mcp", "/mcp/.well-known/openid-configuration", "/mcp/" + f.ws.ID + "/.well-known/openid-configuration",
	} {
		r := f.do(request("GET", path, ""))
		if r.status != 200 || r.header.Get("Content-Type") != "application/json" || r.str("issuer") != issuer || strings.Contains(r.body, "null") {
			t.Errorf("%s: got %d %s", path, r.status, r.body)
		}
		if r.m["client_id_metadata_document_supported"] != true || r.m["authorization_response_iss_parameter_supported"] != true {
			t.Errorf("%s: got %s", path, r.body)
		}
		for name, values := range map[string][]any{
			"code_challenge_methods_supported":      {"S256"},
			"grant_types_supported":                 {"authorization_code", "refresh_token", "client_credentials"},
			"token_endpoint_auth_methods_supported": {"none", "client_secret_basic", "client_secret_post"},
			"scopes_supported":                      {"workspace", "offline_access"},
			"response_types_supported":              {"code"},
		} {
			if !reflect.DeepEqual(r.m[name], any(values)) {
				t.Errorf("%s: %s is %v, want %v", path, name, r.m[name], values)
			}
		}
		for _, name := range []string{"authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint", "introspection_endpoint", "jwks_uri"} {
			if !strings.HasPrefix(r.str(name), issuer+"/oauth/") {
				t.Errorf("%s: %s is %q", path, name, r.str(name))
			}
		}
	}
	want(t, f.do(request("POST", "/.well-known/oauth-authorization-server", "")), 405, "invalid_request")
	jwks := f.do(request("GET", oauth.KeysPath, ""))
	if jwks.status != 200 || strings.Contains(jwks.body, `"d"`) || !strings.Contains(jwks.body, `"crv":"Ed25519"`) {
		t.Errorf("keys: got %d %s", jwks.status, jwks.body)
	}
}

func TestOAuth_2_7_ClientAuthentication(t *testing.T) {
	f := one(t)
	c, secret := f.confidential(oauth.GrantCredentials, oauth.GrantCode)
	form := func(changes ...string) url.Values {
		q := url.Values{"grant_type": {"client_credentials"}}
		set(q, changes)
		return q
	}
	for _, tt := range []struct {
		name   string
		form   url.Values
		basic  []string
		status int
		code   string
	}{
		{"basic", form(), []string{c.ID, secret}, 200, ""},
		{"post", form("client_id", c.ID, "client_secret", secret), nil, 200, ""},
		{"basic, with its id in the body", form("client_id", c.ID), []string{c.ID, secret}, 200, ""},
		{"basic and post", form("client_id", c.ID, "client_secret", secret), []string{c.ID, secret}, 400, "invalid_request"},
		{"basic, with another id in the body", form("client_id", f.client.ID), []string{c.ID, secret}, 400, "invalid_request"},
		{"wrong secret, basic", form(), []string{c.ID, secret + "x"}, 401, "invalid_client"},
		{"wrong secret, post", form("client_id", c.ID, "client_secret", "x"), nil, 401, "invalid_client"},
		{"no secret", form("client_id", c.ID), nil, 401, "invalid_client"},
		{"empty secret, basic", form(), []string{c.ID, ""}, 401, "invalid_client"},
		{"unknown client", form("client_id", "cli_x", "client_secret", secret), nil, 401, "invalid_client"},
		{"unknown client, basic", form(), []string{"cli_x", secret}, 401, "invalid_client"},
		{"nobody", form(), nil, 401, "invalid_client"},
		{"the hash as secret", form("client_id", c.ID, "client_secret", c.SecretHash), nil, 401, "invalid_client"},
		{"public client with a secret", form("client_id", f.client.ID, "client_secret", "x"), nil, 401, "invalid_client"},
		{"public client with a secret, basic", form(), []string{f.client.ID, "x"}, 401, "invalid_client"},
		{"public client with an empty secret, basic", form("grant_type", "refresh_token", "refresh_token", "x"), []string{f.client.ID, ""}, 400, "invalid_grant"},
	} {
		r := f.postForm(oauth.TokenPath, tt.form, tt.basic)
		if r.status != tt.status || r.str("error") != tt.code || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, r.status, r.body, tt.status, tt.code)
		}
		if basic := strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Basic realm="); basic != (r.status == 401 && tt.basic != nil) {
			t.Errorf("%s: WWW-Authenticate is %q", tt.name, r.header.Get("WWW-Authenticate"))
		}
	}
	// A rotated secret works until its overlap is over.
	next := oauth.NewClientSecret()
	c.OldSecretHash, c.OldUntil, c.SecretHash = c.SecretHash, f.now().Add(time.Hour), next.Hash()
	must(t, f.db.UpdateClient(f.ctx, c))
	want(t, f.postForm(oauth.TokenPath, form(), []string{c.ID, secret}), 200, "")
	want(t, f.postForm(oauth.TokenPath, form(), []string{c.ID, string(next)}), 200, "")
	f.pass(time.Hour)
	want(t, f.postForm(oauth.TokenPath, form(), []string{c.ID, secret}), 401, "invalid_client")
	must(t, f.db.RemoveClient(f.ctx, f.ws.ID, c.ID))
	want(t, f.postForm(oauth.TokenPath, form(), []string{c.ID, string(next)}), 401, "invalid_client")
}

func TestOAuth_2_8_Errors(t *testing.T) {
	f := one(t)
	form := func(path, body, contentType string) reply {
		r := request("POST", path, body)
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("X-Test-Address", typeid.NewID("addr"))
		return f.do(r)
	}
	const encoded = "application/x-www-form-urlencoded"
	id := "client_id=" + f.client.ID
	for _, path := range []string{oauth.TokenPath, oauth.RevokePath, oauth.IntrospectPath, oauth.RegisterPath} {
		r := f.do(request("GET", path+"?"+id, ""))
		want(t, r, 405, "invalid_request")
		if r.header.Get("Allow") == "" {
			t.Errorf("GET %s names no method", path)
		}
	}
	for _, tt := range []struct {
		name, body, contentType string
		status                  int
		code                    string
	}{
		{"JSON", `{}`, "application/json", 415, "invalid_request"},
		{"nothing", "", "", 415, "invalid_request"},
		{"multipart", "", "multipart/form-data; boundary=x", 415, "invalid_request"},
		{"huge", id + "&x=" + strings.Repeat("x", 100_000), encoded, 413, "invalid_request"},
		{"malformed", id + "&x=%zz", encoded, 400, "invalid_request"},
		{"repeated", id + "&grant_type=refresh_token&grant_type=refresh_token", encoded, 400, "invalid_request"},
		{"repeated resource", id + "&resource=a&resource=b", encoded, 400, "invalid_target"},
		{"NUL", id + "&grant_type=a%00", encoded, 400, "invalid_request"},
		{"no text", id + "&grant_type=%ff", encoded, 400, "invalid_request"},
		{"no grant type", id, encoded, 400, "invalid_request"},
		{"empty grant type", id + "&grant_type=", encoded, 400, "invalid_request"},
		{"password", id + "&grant_type=password&username=a&password=b", encoded, 400, "unsupported_grant_type"},
		{"device", id + "&grant_type=urn:ietf:params:oauth:grant-type:device_code", encoded, 400, "unsupported_grant_type"},
		{"no code", id + "&grant_type=authorization_code&code_verifier=x", encoded, 400, "invalid_request"},
		{"unknown code", id + "&grant_type=authorization_code&code=x&code_verifier=x", encoded, 400, "invalid_grant"},
		{"no refresh token", id + "&grant_type=refresh_token", encoded, 400, "invalid_request"},
		{"unknown refresh token", id + "&grant_type=refresh_token&refresh_token=x", encoded, 400, "invalid_grant"},
		{"unknown resource", id + "&grant_type=refresh_token&refresh_token=x&resource=https://evil.example", encoded, 400, "invalid_target"},
		{"a public client for itself", id + "&grant_type=client_credentials", encoded, 400, "unauthorized_client"},
	} {
		r := form(oauth.TokenPath, tt.body, tt.contentType)
		if r.status != tt.status || r.str("error") != tt.code || r.header.Get("Cache-Control") != "no-store" || r.header.Get("Content-Type") != "application/json" || r.str("error_description") == "" {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, r.status, r.body, tt.status, tt.code)
		}
	}
}

func register(f *fixture, body string) reply {
	r := request("POST", oauth.RegisterPath, body)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Test-Address", typeid.NewID("addr"))
	return f.do(r)
}

func TestOAuth_2_9_Registration(t *testing.T) {
	f := one(t)
	r := register(f, `{"redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback","https://www.cursor.com/agents/mcp/oauth/callback","http://localhost:8787/callback"],
		"client_name":"Cursor\u202e","logo_uri":"https://evil.example/logo","contacts":[],"software_id":null,"token_endpoint_auth_method":"none"}`)
	want(t, r, 201, "")
	if r.str("client_name") != "Cursor" || r.str("token_endpoint_auth_method") != "none" || strings.Contains(r.body, "secret") || strings.Contains(r.body, "logo") || strings.Contains(r.body, "null") {
		t.Errorf("public: got %s", r.body)
	}
	if !reflect.DeepEqual(r.m["grant_types"], []any{"authorization_code", "refresh_token"}) || len(r.m["redirect_uris"].([]any)) != 3 {
		t.Errorf("public: got %s", r.body)
	}
	if r := register(f, `{"redirect_uris":["https://claude.ai/api/mcp/auth_callback"]}`); r.status != 201 || r.str("token_endpoint_auth_method") != "none" || r.str("client_name") != "Unnamed client" {
		t.Errorf("nothing asked: got %d %s", r.status, r.body)
	}
	r = register(f, `{"redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"client_secret_post","grant_types":["authorization_code","client_credentials"]}`)
	if r.status != 201 || !strings.HasPrefix(r.str("client_secret"), "tpcs_") || r.m["client_secret_expires_at"] != 0.0 || !reflect.DeepEqual(r.m["grant_types"], []any{"authorization_code"}) {
		t.Errorf("with a secret: got %d %s", r.status, r.body)
	}
	want(t, f.postForm(oauth.TokenPath, url.Values{"grant_type": {"client_credentials"}}, []string{r.str("client_id"), r.str("client_secret")}), 400, "unauthorized_client")
	for body, code := range map[string]string{
		`{}`:                       "invalid_redirect_uri",
		`{"redirect_uris":[]}`:     "invalid_redirect_uri",
		`{"redirect_uris":[null]}`: "invalid_redirect_uri",
		`{"redirect_uris":"x"}`:    "invalid_client_metadata",
		`{"redirect_uris":["javascript:alert(1)"]}`:                                                                                                               "invalid_redirect_uri",
		`{"redirect_uris":["https://a.example/cb","http://evil.example/"]}`:                                                                                       "invalid_redirect_uri",
		`{"redirect_uris":["https://a.example/` + strings.Repeat("x", 3000) + `"]}`:                                                                               "invalid_redirect_uri",
		`{"redirect_uris":[` + strings.Repeat(`"https://a.example/cb",`, 20) + `"app.x:/cb"]}`:                                                                    "invalid_redirect_uri",
		`{"redirect_uris":[` + strings.Repeat(`"https://a.example/`+strings.Repeat("x", 1900)+`",`, 4) + `"https://a.example/` + strings.Repeat("x", 700) + `"]}`: "invalid_redirect_uri",
		`{"redirect_uris":["https://a.example/cb"],"grant_types":["client_credentials"]}`:                                                                         "invalid_client_metadata",
		`{"redirect_uris":["https://a.example/cb"],"response_types":["token"]}`:                                                                                   "invalid_client_metadata",
		`{"redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"private_key_jwt"}`:                                                               "invalid_client_metadata",
		`{"redirect_uris":["https://a.example/cb"],"redirect_uris":["https://b.example/cb"]}`:                                                                     "invalid_client_metadata",
		`{"redirect_uris":["https://a.example/cb"],"client_name":"a\u0000b"}`:                                                                                     "invalid_client_metadata",
		`{"redirect_uris":["https://a.example/cb"],"scope":"a\nb"}`:                                                                                               "invalid_client_metadata",
		`[]`:     "invalid_client_metadata",
		`"x"`:    "invalid_client_metadata",
		`{"a":}`: "invalid_client_metadata",
		``:       "invalid_client_metadata",
		`{} {}`:  "invalid_client_metadata",
	} {
		if r := register(f, body); r.status != 400 || r.str("error") != code {
			t.Errorf("%.120s: got %d %s, want %s", body, r.status, r.body, code)
		}
	}
	// Limits are per address.
	status := []int{}
	for range 40 {
		r := request("POST", oauth.RegisterPath, `{"redirect_uris":["https://a.example/cb"]}`)
		r.Header.Set("Content-Type", "application/json")
		got := f.do(r)
		status = append(status, got.status)
		if got.status == 429 && got.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if status[0] != 201 || status[39] != 429 {
		t.Errorf("forty registrations from one address: got %v", status)
	}
}

func TestRegistrationsAreLoggedBriefly(t *testing.T) {
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)
	f := one(t)
	uris := []string{`"app.x:/cb"`, `"https://one.example/` + strings.Repeat("x", 1900) + `"`, `"https://one.example/cb"`, `"app.y://` + strings.Repeat("y", 1900) + `/cb"`}
	for i := range 10 {
		uris = append(uris, fmt.Sprintf(`"https://h%d.example/cb"`, i))
	}
	r := register(f, `{"client_name":"Agent","redirect_uris":[`+strings.Join(uris, ",")+`]}`)
	want(t, r, 201, "")
	line := log.String()
	if len(line) > 500 || strings.Contains(line, "/cb") {
		t.Errorf("the log has %d bytes: %s", len(line), line)
	}
	for _, part := range []string{r.str("client_id"), "Agent", "app.x:", "one.example"} {
		if !strings.Contains(line, part) {
			t.Errorf("the log does not say %s: %s", part, line)
		}
	}
}

func TestOAuth_2_12_LimitsAreNotShared(t *testing.T) {
	f := one(t)
	other := f.add(oauth.Client{})
	post := func(client, grant, address string) int {
		r := request("POST", oauth.TokenPath, url.Values{"client_id": {client}, "grant_type": {grant}, "refresh_token": {"x"}, "code": {"x"}, "code_verifier": {"x"}}.Encode())
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Test-Address", address)
		return f.do(r).status
	}
	for range 200 {
		post(f.client.ID, "authorization_code", "192.0.2.1")
	}
	for _, tt := range []struct {
		client, grant, address string
		want                   int
	}{
		{f.client.ID, "authorization_code", "192.0.2.1", 429},
		{f.client.ID, "refresh_token", "192.0.2.1", 400},
		{other.ID, "authorization_code", "192.0.2.1", 400},
		{f.client.ID, "authorization_code", "192.0.2.2", 400},
	} {
		if got := post(tt.client, tt.grant, tt.address); got != tt.want {
			t.Errorf("%s of %s from %s: got %d, want %d", tt.grant, tt.client, tt.address, got, tt.want)
		}
	}
}

func TestOnlyTwoFilesKnowTheLibrary(t *testing.T) {
	files, err := os.ReadDir(".")
	must(t, err)
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, parser.ImportsOnly)
		must(t, err)
		for _, i := range f.Imports {
			if strings.Contains(i.Path.Value, "go-oauth2") && !slices.Contains([]string{"library.go", "tokens.go"}, file.Name()) {
				t.Errorf("%s imports %s", file.Name(), i.Path.Value)
			}
		}
	}
}
