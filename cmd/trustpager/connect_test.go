package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdkauth "github.com/modelcontextprotocol/go-sdk/auth"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"

	"trustpager/server/browsertest"
	"trustpager/server/conformance"
	"trustpager/storage/storagetest"
)

// consent opens the URL as the demo's admin, who logs in and allows what the
// page offers.
func (p *process) consent(b *browsertest.Browser, authorize string) {
	p.t.Helper()
	b.Do(browsertest.Open(authorize))
	if at, err := url.Parse(b.URL()); err == nil && at.Path == "/login" {
		b.Do(
			browsertest.Fill("email", p.info.Admin.Email),
			browsertest.Fill("password", p.info.Admin.Password),
			browsertest.Press("main button.primary"),
		)
	}
	b.Do(browsertest.See("button[value=allow]"))
	b.Shot("consent")
	b.Do(browsertest.Press("button[value=allow]"), browsertest.Leave("button[value=allow]"))
}

// callback listens where the browser returns to.
func callback(t *testing.T) (redirectURL string, returned <-chan url.Values) {
	ch := make(chan url.Values, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/callback" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>Connected</title><h1>Connected</h1>")
		ch <- r.URL.Query()
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/callback", ch
}

// document serves a client's metadata document over https on this machine, and
// returns its URL and a file with the certificate that has to be trusted. The
// redirect URI has no port: a native client chooses one each time.
func document(t *testing.T, name string) (clientID, certificate string) {
	var srv *httptest.Server
	srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"client_id": srv.URL + "/client.json", "client_name": name, "redirect_uris": []string{"http://127.0.0.1/callback"},
			"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "token_endpoint_auth_method": "none",
		})
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return srv.URL + "/client.json", file
}

// connections runs fn for both ways in which an unknown client becomes known,
// on both databases.
func connections(t *testing.T, fn func(t *testing.T, p *process, clientID string)) {
	for _, way := range []string{"registration", "metadata document"} {
		t.Run(way, func(t *testing.T) {
			storagetest.EachURL(t, func(t *testing.T, db string) {
				clientID := ""
				if way != "registration" {
					var certificate string
					clientID, certificate = document(t, "Documented client")
					t.Setenv("SSL_CERT_FILE", certificate) // of the server's process
				}
				fn(t, demo(t, db), clientID)
			})
		})
	}
}

// From nothing but the MCP URL to a tool call, as the official Go SDK does it:
// 401, metadata, registration, login and consent in a browser, token, a write
// that waits, refresh, revocation, 401.
func TestConnectGoSDK(t *testing.T) {
	connections(t, func(t *testing.T, p *process, clientID string) {
		browser := browsertest.New(t)
		redirect, returned := callback(t)
		var token *oauth2.Token // the one in use
		var issued string       // the first refresh token
		config := &sdkauth.AuthorizationCodeHandlerConfig{
			RedirectURL:         redirect,
			RequestRefreshToken: true,
			AuthorizationCodeFetcher: func(_ context.Context, args *sdkauth.AuthorizationArgs) (*sdkauth.AuthorizationResult, error) {
				p.consent(browser, args.URL)
				q := <-returned
				return &sdkauth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}, nil
			},
			NewTokenSource: func(ctx context.Context, c *oauth2.Config, first *oauth2.Token) (oauth2.TokenSource, error) {
				clientID = c.ClientID
				token, issued = first, first.RefreshToken
				expired := *first
				expired.Expiry = time.Now().Add(-time.Hour) // so that it refreshes before its next request
				return noted{c.TokenSource(ctx, &expired), &token}, nil
			},
		}
		if clientID != "" {
			config.ClientIDMetadataDocumentConfig = &sdkauth.ClientIDMetadataDocumentConfig{URL: clientID}
		} else {
			config.DynamicClientRegistrationConfig = &sdkauth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
				ClientName: "Go SDK client", RedirectURIs: []string{redirect}, GrantTypes: []string{"authorization_code", "refresh_token"}}}
		}
		handler, err := sdkauth.NewAuthorizationCodeHandler(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		session, err := sdk.NewClient(&sdk.Implementation{Name: "go-sdk", Version: "1"}, nil).
			Connect(ctx, &sdk.StreamableClientTransport{Endpoint: p.info.MCPURL, OAuthHandler: handler}, nil)
		if err != nil {
			t.Fatalf("connect: %v\n%s", err, p.stderr.String())
		}
		defer session.Close()

		tools, err := session.ListTools(ctx, nil)
		if err != nil || len(tools.Tools) < 50 {
			t.Fatalf("tools/list: got %d tools (%v), want all", len(tools.Tools), err)
		}
		result, err := session.CallTool(ctx, &sdk.CallToolParams{Name: "create_contact", Arguments: map[string]any{"first_name": "Gina", "last_name": "Go"}})
		if err != nil {
			t.Fatal(err)
		}
		p.checkQueued(result.StructuredContent)
		if token.RefreshToken == issued || token.RefreshToken == "" {
			t.Errorf("after the refresh: the refresh token is %q, want another than the first", token.RefreshToken)
		}

		res, err := http.PostForm(p.info.BaseURL+"/oauth/revoke", url.Values{"token": {token.AccessToken}, "client_id": {clientID}})
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("revoke: got %v (%v), want 200", res.Status, err)
		}
		res.Body.Close()
		p.mustRefuse(token.AccessToken)
	})
}

// noted keeps the token that a source has given last.
type noted struct {
	source oauth2.TokenSource
	last   **oauth2.Token
}

func (n noted) Token() (*oauth2.Token, error) {
	t, err := n.source.Token()
	if err == nil {
		*n.last = t
	}
	return t, err
}

// mustRefuse checks that the MCP endpoint challenges the token's bearer.
func (p *process) mustRefuse(token string) {
	p.t.Helper()
	r, err := http.NewRequest("POST", p.info.MCPURL, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	res, err := client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	res.Body.Close()
	if challenge := res.Header.Get("WWW-Authenticate"); res.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, "resource_metadata=") || !strings.Contains(challenge, "invalid_token") {
		p.t.Errorf("a revoked token: got %s, %q; want 401 with a challenge", res.Status, challenge)
	}
}

// checkQueued checks what a client was told of a write, and that the approval
// names it and lets the user decide.
func (p *process) checkQueued(told any) {
	p.t.Helper()
	if text(told, "status") != "pending_approval" || member(told, "executed") != false {
		p.t.Fatalf("the write: got %v, want pending_approval", told)
	}
	a := p.must(200, "GET", "/v1/approvals/"+text(told, "approval", "id"), p.info.Keys.FullAccess, "")
	if text(a, "data", "decider") != "owner" || text(a, "data", "requested_by", "kind") != "oauth" || text(a, "data", "requested_by", "user") == "" {
		p.t.Errorf("the approval: got %v, want one by an OAuth client that its user may decide", a["data"])
	}
}

// The same with the npm package that Claude Code, Cursor, the Inspector and
// mcp-remote are built on.
func TestConnectNpmSDK(t *testing.T) {
	connections(t, func(t *testing.T, p *process, clientID string) {
		args := []string{"connect.mjs", p.info.MCPURL}
		if clientID != "" {
			args = append(args, clientID)
		}
		browser := browsertest.New(t)
		steps := p.node(t, args, func(step map[string]any) {
			if u := text(step, "authorize"); u != "" {
				p.consent(browser, u)
			}
		})
		if text(steps, "returned", "state") != "npm-state" || text(steps, "returned", "iss") != p.info.BaseURL {
			t.Errorf("the authorization response: got %v, want the state and the issuer", steps["returned"])
		}
		if n, _ := steps["tools"].(float64); n < 50 {
			t.Errorf("got %v tools, want all", steps["tools"])
		}
		p.checkQueued(steps["queued"])
		if steps["refreshed"] != 1.0 || steps["revoked"] != 200.0 || steps["refused"] != "unauthorized" || steps["asked_again"] != true {
			t.Errorf("refresh and revocation: got %v", steps)
		}
		if clientID != "" && steps["client_id"] != clientID {
			t.Errorf("client_id: got %v, want the document's URL", steps["client_id"])
		}
	})
}

// node runs a script of testdata/npm to its end. It gives each line of JSON
// that the script prints to step, and returns their members together.
func (p *process) node(t *testing.T, args []string, step func(map[string]any)) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	runtime, dir := conformance.Node(t)
	cmd := exec.CommandContext(ctx, runtime, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var one map[string]any
		if json.Unmarshal(lines.Bytes(), &one) != nil {
			continue
		}
		for name, value := range one {
			all[name] = value
		}
		step(one)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%v\n%s\n%s", args, err, all, stderr.String(), p.stderr.String())
	}
	return all
}

// The official conformance suite against the authorization server: all three
// of its scenarios pass, with consent given on the real pages.
func TestConformanceAuthorization(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		conformance.Node(t)
		browser := browsertest.New(t)
		p := demo(t, db)
		out, stderr, code := command(t, db, "", "client", "create", "--name", "Conformance suite", "--public", "--redirect-uri", "http://127.0.0.1/callback", "--json")
		var made struct{ ID string }
		if err := json.Unmarshal([]byte(out), &made); err != nil || code != 0 {
			t.Fatalf("client create: %v\n%s%s", err, out, stderr)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()

		cmd := conformance.Command(t, "authorization", "--url", p.info.BaseURL, "--client-id", made.ID, "--port", fmt.Sprint(port), "--resource", p.info.MCPURL)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var printed strings.Builder
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			line := lines.Text()
			printed.WriteString(line + "\n")
			if strings.HasPrefix(line, p.info.BaseURL+"/oauth/authorize?") {
				p.consent(browser, line)
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("conformance: %v\n%s", err, printed.String())
		}
		// A scenario that lacks something is skipped, and the exit status is 0 all
		// the same.
		if !strings.Contains(printed.String(), "Total: 3 passed, 0 failed") {
			t.Errorf("conformance: want 3 passed, got\n%s", printed.String())
		}
	})
}
