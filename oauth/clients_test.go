package oauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/storage"
)

// Clients as they behave in public threads, from registration to a refresh.
func TestOAuth_3_ClientsAsTheyBehave(t *testing.T) {
	f := one(t)
	for _, tt := range []struct {
		name, registration, redirect string
		scope                        string
		wantScope                    string
	}{
		{"Claude", `{"client_name":"Claude","redirect_uris":["https://claude.ai/api/mcp/auth_callback"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none"}`,
			"https://claude.ai/api/mcp/auth_callback", "workspace", "workspace"},
		{"ChatGPT", `{"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector/oauth/abc"],"token_endpoint_auth_method":"client_secret_post"}`,
			"https://chatgpt.com/connector/oauth/abc", "workspace offline_access", "workspace offline_access"},
		{"VS Code", `{"client_name":"Visual Studio Code","redirect_uris":["https://insiders.vscode.dev/redirect","https://vscode.dev/redirect","http://127.0.0.1/","http://127.0.0.1:33418/"],"grant_types":["authorization_code","refresh_token","urn:ietf:params:oauth:grant-type:device_code"],"token_endpoint_auth_method":"none"}`,
			"http://127.0.0.1:51234/", "", "workspace"},
		{"Cursor", `{"client_name":"Cursor","redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback","https://www.cursor.com/agents/mcp/oauth/callback","http://localhost:8787/callback"],"token_endpoint_auth_method":"none"}`,
			"cursor://anysphere.cursor-mcp/oauth/callback", "", "workspace"},
		{"Claude Code", `{"client_name":"Claude Code","redirect_uris":["http://localhost/callback"]}`,
			"http://localhost:53124/callback", "offline_access", "workspace offline_access"},
		{"one that asks for everything", `{"redirect_uris":["http://127.0.0.1:9/cb"],"scope":"workspace offline_access"}`,
			"http://127.0.0.1:9/cb", "workspace offline_access", "workspace offline_access"},
		{"one that asks for fine scopes", `{"redirect_uris":["http://127.0.0.1:9/cb"]}`,
			"http://127.0.0.1:9/cb", "contacts:read", "contacts:read"},
	} {
		c := register(f, tt.registration)
		want(t, c, 201, "")
		id, secret := c.str("client_id"), c.str("client_secret")
		code := f.consent("contacts:read", "client_id", id, "redirect_uri", tt.redirect, "scope", tt.scope)
		form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {tt.redirect}, "code_verifier": {verifier}, "resource": {mcp}}
		var basic []string
		if secret != "" {
			basic = []string{id, secret} // though it registered for post
		} else {
			form.Set("client_id", id)
		}
		r := f.postForm(oauth.TokenPath, form, basic)
		if r.status != 200 || r.str("scope") != tt.wantScope {
			t.Errorf("%s: got %d %s", tt.name, r.status, r.body)
			continue
		}
		g, err := f.s.Verify(f.ctx, r.str("access_token"), mcp)
		if err != nil || g.Decide("contacts", access.Read) != access.Run || g.Decide("contacts", access.Write) != access.Deny {
			t.Errorf("%s: the token gives %v, %v", tt.name, g, err)
		}
		again := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.str("refresh_token")}}
		if basic == nil {
			again.Set("client_id", id)
		}
		want(t, f.postForm(oauth.TokenPath, again, basic), 200, "")
	}
}

func TestOAuth_2_8_FaultsOfTheServerRollBack(t *testing.T) {
	var fail error
	f := one(t, func(c *oauth.Config) {
		inTx := c.InTx
		c.InTx = func(ctx context.Context, fn func(tx oauth.Store) error) error {
			return inTx(ctx, func(tx oauth.Store) error {
				if err := fn(tx); err != nil {
					return err
				}
				return fail
			})
		}
	})
	code := f.consent("contacts:read")
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{errors.New("disk on fire"), 500, "server_error"},
		{problem.Errorf(problem.Unavailable, "disk full"), 503, "temporarily_unavailable"},
	} {
		fail = tt.err
		r := f.exchange(code)
		want(t, r, tt.status, tt.code)
		if strings.Contains(r.body, "disk") {
			t.Errorf("the client is told %s", r.body)
		}
	}
	fail = nil
	want(t, f.exchange(code), 200, "") // nothing of it has happened
}

// Also one that would be the caller's fault elsewhere.
func TestEveryFaultIsLogged(t *testing.T) {
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)
	f := one(t, func(c *oauth.Config) {
		c.InTx = func(context.Context, func(tx oauth.Store) error) error {
			return problem.Errorf(problem.NotFound, "the unexpected")
		}
	})
	want(t, f.exchange("x"), 500, "server_error")
	if !strings.Contains(log.String(), "the unexpected") {
		t.Errorf("got the log %q, want what failed", log.String())
	}
}

func TestNewMakesOneKeyForManyNodes(t *testing.T) {
	f := one(t)
	first, _ := f.s.PublicKey(f.ctx)
	for range 3 {
		if id, _ := f.server().PublicKey(f.ctx); id != first {
			t.Errorf("another node signs with %s, want %s", id, first)
		}
	}
	// A key that another installation sealed is no key.
	_, err := oauth.New(f.ctx, oauth.Config{Store: f.db, InTx: storage.InTx[oauth.Store](f.db), Sealer: otherSealer{}, Issuer: issuer, Now: f.now})
	if err == nil {
		t.Error("a server starts with keys that it cannot open")
	}
}

type otherSealer struct{}

func (otherSealer) Seal([]byte, string) (string, error) { return "", errors.New("cannot seal") }
func (otherSealer) Open(string, string) ([]byte, error) { return nil, errors.New("cannot open") }

func TestClientSecretStaysOutOfLogsAndJSON(t *testing.T) {
	s := oauth.NewClientSecret()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "secret", s)
	b, err := json.Marshal(map[string]any{"secret": s})
	must(t, err)
	for _, out := range []string{log.String(), string(b)} {
		if strings.Contains(out, string(s)) || !strings.Contains(out, "[secret]") {
			t.Errorf("got %s", out)
		}
	}
}
