package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"trustpager/storage/storagetest"
)

// scenarios are those of the official conformance suite that a product can be
// held to, by the protocol version at which they run. The others call tools and
// prompts that only a test server has.
var scenarios = map[string][]string{
	"2025-11-25": {
		"server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection", // server-sse-multiple-streams wants a session there
	},
	"2026-07-28": {
		"server-stateless", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection", "caching", "http-header-validation",
		"sep-2164-resource-not-found", "server-sse-multiple-streams", "input-required-result-unsupported-methods",
		"input-required-result-ignore-extra-params",
	},
}

// passing are the checks of which there must be at least as many as this in a
// scenario: one that finds nothing to check passes as well.
var passing = map[string]int{"server-stateless": 20, "caching": 8, "http-header-validation": 14}

// skipped are the checks that the suite leaves out: the list of prompts is not
// told to have changed.
var skipped = []string{"sep-2575-server-sends-prompts-list-changed-on-subscription"}

// bearing returns the URL of a proxy on this machine before the server. The
// suite can send no token: the proxy adds it, and leaves Host and Origin alone.
func bearing(t *testing.T, base, token string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Authorization", "Bearer "+token)
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// net/http closes the body once it writes a long answer. If the server has
		// been faster than the proxy was in seeing the body's end, the answer would
		// be cut off.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// The official conformance suite against the MCP server, with full access.
func TestConformanceServer(t *testing.T) {
	runtime := node(t)
	storagetest.EachURL(t, func(t *testing.T, db string) {
		p := demo(t, db)
		target := bearing(t, p.info.BaseURL, p.info.Keys.FullAccess) + "/mcp"
		for version, names := range scenarios {
			for _, name := range names {
				t.Run(version+"/"+name, func(t *testing.T) { conform(t, runtime, target, version, name) })
			}
		}
	})
}

// conform runs one scenario. What fails or is warned of must be among the
// expected failures, of which none may pass; the suite sees to that, but it
// takes what it skips for a success.
func conform(t *testing.T, runtime, target, version, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results := t.TempDir()
	cmd := exec.CommandContext(ctx, runtime, "node_modules/@modelcontextprotocol/conformance/dist/index.js", "server", "--url", target,
		"--scenario", name, "--spec-version", version, "--expected-failures", "expected-failures.yml", "--output-dir", results)
	cmd.Dir = "testdata/npm"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(results, "*", "checks.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the scenario was not run: got %v (%v)\n%s", files, err, out)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var checks []struct{ ID, Status, ErrorMessage string }
	if err := json.Unmarshal(b, &checks); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	passed := 0
	for _, c := range checks {
		switch {
		case c.Status == "SUCCESS" && !slices.Contains(skipped, c.ID):
			passed++
		case c.Status == "SKIPPED" && !slices.Contains(skipped, c.ID):
			t.Errorf("%s was skipped: %s", c.ID, c.ErrorMessage)
		case c.Status != "SKIPPED" && slices.Contains(skipped, c.ID):
			t.Errorf("%s is no longer skipped, but %s: take it off the list", c.ID, c.Status)
		}
	}
	if passed < max(1, passing[name]) {
		t.Errorf("got %d checks that passed, want at least %d\n%s", passed, max(1, passing[name]), out)
	}
}
