package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"trustpager/storage/storagetest"
)

// asProgram in the environment makes the test binary the program itself, so
// that tests start, stop and kill real processes.
const asProgram = "TRUSTPAGER_TEST_AS_PROGRAM"

// clockAhead in the environment sets the program's clock ahead.
const clockAhead = "TRUSTPAGER_TEST_CLOCK_AHEAD"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		ahead, _ := time.ParseDuration(os.Getenv(clockAhead))
		code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, func() time.Time { return time.Now().Add(ahead) })
		stop()
		os.Exit(code)
	}
	os.Exit(storagetest.Run(m))
}

// A process is a running server.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	info   printed
	stderr bytes.Buffer
	done   chan struct{}
}

// printed is what serve or demo prints when it listens.
type printed struct {
	demoInfo
	SetUpURL string `json:"setup_url"`
}

// program returns the command that runs the program with the arguments.
func program(t *testing.T, url string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TRUSTPAGER_DATABASE="+url, "TRUSTPAGER_SECRET_KEY_FILE="+keyFileOf(url, t), "TRUSTPAGER_LOG_LEVEL=warn",
		"TRUSTPAGER_MAIL_OUTBOX="+filepath.Join(t.TempDir(), "outbox"))
	return cmd
}

// keyFileOf returns where a test's secret key is: the same for all processes on
// one database.
func keyFileOf(url string, t *testing.T) string {
	if strings.HasPrefix(url, "postgres") {
		name := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, url)
		return filepath.Join(os.TempDir(), "tp-test-"+name+".key")
	}
	return url + ".key"
}

// demo starts a demo on the database and waits until it listens. args come
// after "demo".
func demo(t *testing.T, url string, args ...string) *process {
	t.Helper()
	p := launch(t, url, append([]string{"demo", "--json", "--listen", "127.0.0.1:0", "--allow-webhook-net", "127.0.0.0/8"}, args...)...)
	return p
}

// launch starts the program, which is to print one line of JSON when it
// listens.
func launch(t *testing.T, url string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: program(t, url, args...), done: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if strings.HasPrefix(url, "postgres") {
			os.Remove(keyFileOf(url, t))
		}
	})
	r := bufio.NewReader(out)
	line, err := r.ReadBytes('\n')
	if err != nil {
		p.cmd.Wait()
		close(p.done)
		t.Fatalf("start %v: %v\n%s", args, err, p.stderr.String())
	}
	decoded := json.Unmarshal(line, &p.info)
	go func() {
		rest, _ := io.ReadAll(r)
		if len(rest) > 0 {
			t.Errorf("standard output after the first line: got %q, want nothing", rest)
		}
		p.cmd.Wait()
		close(p.done)
	}()
	if decoded != nil {
		t.Fatalf("start %v: got %q: %v", args, line, decoded)
	}
	return p
}

// kill ends the process at once, as a crash does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end, and returns its exit status.
func (p *process) stop() int {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.t.Fatalf("the server had not ended 10 seconds after SIGTERM\n%s", p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// client has no keep-alive between processes that come and go.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// send makes one request and returns the status and the decoded answer. An
// error means that nobody knows what became of the request.
func (p *process) send(method, path, key, body string) (int, map[string]any, error) {
	r, err := http.NewRequest(method, p.info.BaseURL+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	var v map[string]any
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return 0, nil, fmt.Errorf("answer to %s %s: %w", method, path, err)
	}
	return res.StatusCode, v, nil
}

// must is send for requests that have to be answered, with the status that is
// wanted.
func (p *process) must(want int, method, path, key, body string) map[string]any {
	p.t.Helper()
	got, v, err := p.send(method, path, key, body)
	if err != nil || got != want {
		p.t.Fatalf("%s %s %s: got %d %v (%v), want %d\n%s", method, path, body, got, v, err, want, p.stderr.String())
	}
	return v
}

// member follows names into nested objects.
func member(v any, names ...string) any {
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

func text(v any, names ...string) string {
	s, _ := member(v, names...).(string)
	return s
}

// list returns the data of all pages of a list.
func (p *process) list(path, key string) []map[string]any {
	p.t.Helper()
	var all []map[string]any
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	for cursor := ""; ; {
		page := p.must(200, "GET", path+sep+"limit=100"+cursor, key, "")
		for _, item := range page["data"].([]any) {
			all = append(all, item.(map[string]any))
		}
		next := text(page, "pagination", "next_cursor")
		if next == "" {
			return all
		}
		cursor = "&cursor=" + next
	}
}

// command runs the program to its end, and returns what it printed.
func command(t *testing.T, url, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(t, url, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
