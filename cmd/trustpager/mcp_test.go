package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// bridged returns the command that connects a client that only speaks stdio.
func bridged(t *testing.T, url, key string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"mcp"}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	for name, value := range map[string]string{"TRUSTPAGER_URL": url, "TRUSTPAGER_KEY": key} {
		if value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// soon is how long what ends by itself may take.
const soon = 4 * time.Second

func TestStdioGoSDK(t *testing.T) {
	p := demo(t, filepath.Join(t.TempDir(), "test.db"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := bridged(t, p.info.BaseURL, p.info.Keys.Agent)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	session, err := sdk.NewClient(&sdk.Implementation{Name: "go-sdk", Version: "1"}, nil).
		Connect(ctx, &sdk.CommandTransport{Command: cmd, TerminateDuration: 20 * time.Second}, nil)
	if err != nil {
		t.Fatalf("connect: %v\n%s", err, stderr.String())
	}
	tools, err := session.ListTools(ctx, nil)
	if err != nil || len(tools.Tools) < 50 {
		t.Fatalf("tools/list: got %d tools (%v), want all", len(tools.Tools), err)
	}
	queued, err := session.CallTool(ctx, &sdk.CallToolParams{Name: "create_contact", Arguments: map[string]any{"first_name": "Gina", "last_name": "Stdio"}})
	if err != nil || text(queued.StructuredContent, "status") != "pending_approval" {
		t.Fatalf("a write: got %+v, %v; want it queued", queued, err)
	}
	id := text(queued.StructuredContent, "approval", "id")
	wait, giveUp := context.WithCancel(ctx)
	waited := make(chan error, 1)
	go func() {
		_, err := session.CallTool(wait, &sdk.CallToolParams{Name: "wait_for_approval", Arguments: map[string]any{"id": id}})
		waited <- err
	}()
	if _, err := session.CallTool(ctx, &sdk.CallToolParams{Name: "get_approval", Arguments: map[string]any{"id": id}}); err != nil {
		t.Errorf("while it waits: %v", err)
	}
	giveUp()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was given up: got %v, want %v", err, context.Canceled)
	}
	if _, err := session.ListTools(ctx, nil); err != nil {
		t.Errorf("after that: %v", err)
	}
	// If the wait went on at the server, the bridge would wait for its answer.
	begun := time.Now()
	if err := session.Close(); err != nil || cmd.ProcessState.ExitCode() != 0 || time.Since(begun) > soon {
		t.Errorf("the end: got %v, %v after %v; want exit 0 at once\n%s", err, cmd.ProcessState, time.Since(begun), stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error: got %s, want nothing", stderr.String())
	}
}

func TestStdioNpmSDK(t *testing.T) {
	p := demo(t, filepath.Join(t.TempDir(), "test.db"))
	t.Setenv(asProgram, "1")
	t.Setenv("TRUSTPAGER_URL", p.info.BaseURL+"/mcp")
	t.Setenv("TRUSTPAGER_KEY", p.info.Keys.Agent)
	steps := p.node(t, []string{"stdio.mjs", os.Args[0], "mcp"}, func(map[string]any) {})
	if n, _ := steps["tools"].(float64); n < 50 || steps["server"] != "trustpager" || steps["many"] != 40.0 || steps["waited"] != "given up" {
		t.Errorf("got %v", steps)
	}
	if text(steps["queued"], "status") != "pending_approval" {
		t.Errorf("a write: got %v, want it queued", steps["queued"])
	}
	if took, _ := steps["closed"].(float64); took > 1900 || fmt.Sprint(steps["faults"]) != "[]" {
		t.Errorf("closed after %v ms with the faults %v, want it at once without any", steps["closed"], steps["faults"])
	}

	t.Setenv("TRUSTPAGER_KEY", "tp_live_wrong")
	steps = p.node(t, []string{"stdio.mjs", os.Args[0], "mcp"}, func(map[string]any) {})
	if said := text(steps, "refused"); !strings.Contains(said, "TRUSTPAGER_KEY") {
		t.Errorf("a wrong key: got %v, want to be told what to do", steps)
	}
}

func TestStdioIsRefused(t *testing.T) {
	p := demo(t, filepath.Join(t.TempDir(), "test.db"))
	for name, tt := range map[string]struct{ url, key, said string }{
		"server down": {"http://127.0.0.1:1", p.info.Keys.Agent, "cannot be reached"},
		"wrong key":   {p.info.BaseURL, "tp_live_wrong", "TRUSTPAGER_KEY"},
		"no endpoint": {p.info.BaseURL + "/none", p.info.Keys.Agent, "/mcp"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sdk.NewClient(&sdk.Implementation{Name: "go-sdk", Version: "1"}, nil).
				Connect(t.Context(), &sdk.CommandTransport{Command: bridged(t, tt.url, tt.key)}, nil)
			if e, ok := errors.AsType[*jsonrpc.Error](err); !ok || !strings.Contains(e.Message, tt.said) {
				t.Errorf("got %v, want the answer that it %s", err, tt.said)
			}
		})
	}
}

func TestStdioCommandLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("tp_live_x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		url, key string
		args     []string
		exit     int
		said     string
	}{
		{"", "tp_live_x", nil, 1, "TRUSTPAGER_URL"},
		{"pager.example.com", "tp_live_x", nil, 1, "https://pager.example.com/mcp"},
		{"http://127.0.0.1:1", "", nil, 1, "TRUSTPAGER_KEY"},
		{"http://127.0.0.1:1", "", []string{"--key-file", file + "none"}, 1, "no such file"},
		{"http://127.0.0.1:1", "tp_live_x", []string{"--key-file", file}, 1, "only one"},
		{"http://127.0.0.1:1", "", []string{"--key-file", file}, 0, ""},
		{"", "", []string{"--url", "http://127.0.0.1:1", "--key", "tp_live_x"}, 0, ""},
	} {
		cmd := bridged(t, tt.url, tt.key, tt.args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run()
		if cmd.ProcessState.ExitCode() != tt.exit || !strings.Contains(stderr.String(), tt.said) || tt.exit == 0 && stdout.Len() > 0 {
			t.Errorf("%+v: got %d, %q, %q; want %d and %q", tt, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), tt.exit, tt.said)
		}
	}
}

// What pipes do: a client that reads no more, one that writes on without reading,
// and a signal while the bridge waits for input, an answer, and a full pipe.
func TestStdioPipes(t *testing.T) {
	p := demo(t, filepath.Join(t.TempDir(), "test.db"))
	queued := p.must(202, "POST", "/v1/contacts", p.info.Keys.Agent, `{"first_name":"Ada"}`)
	wait := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wait_for_approval","arguments":{"id":"` + text(queued, "approval", "id") + `"}}}` + "\n"
	list := `{"jsonrpc":"2.0","id":2,"method":"tools/list"}` + "\n"

	start := func(t *testing.T) (cmd *exec.Cmd, in io.WriteCloser, out io.ReadCloser, stderr *bytes.Buffer) {
		t.Helper()
		cmd, stderr = bridged(t, p.info.BaseURL, p.info.Keys.FullAccess), new(bytes.Buffer)
		cmd.Stderr = stderr
		in, err := cmd.StdinPipe()
		if err == nil {
			out, err = cmd.StdoutPipe()
		}
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		return cmd, in, out, stderr
	}
	ends := func(t *testing.T, cmd *exec.Cmd, exit int, stderr *bytes.Buffer) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
		case <-time.After(soon):
			t.Fatal("it has not ended")
		}
		if got := cmd.ProcessState.ExitCode(); got != exit {
			t.Errorf("got %v, want exit %d\n%s", cmd.ProcessState, exit, stderr.String())
		}
	}

	t.Run("reads no more", func(t *testing.T) {
		cmd, in, out, stderr := start(t)
		out.Close()
		io.WriteString(in, list)
		ends(t, cmd, 1, stderr)
		if !strings.Contains(stderr.String(), "broken pipe") {
			t.Errorf("got %q, want it to tell of the broken pipe", stderr.String())
		}
	})
	t.Run("signal while idle", func(t *testing.T) {
		cmd, in, out, stderr := start(t)
		io.WriteString(in, list)
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		ends(t, cmd, 0, stderr)
	})
	t.Run("signal while it waits", func(t *testing.T) {
		cmd, in, out, stderr := start(t)
		io.WriteString(in, wait+list)
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		ends(t, cmd, 0, stderr)
	})
	t.Run("writes on without reading", func(t *testing.T) {
		cmd, in, out, stderr := start(t)
		const n = 40 // answers of some 100 kB fill every pipe on the way
		for i := range n {
			fmt.Fprintf(in, `{"jsonrpc":"2.0","id":%d,"method":"tools/list"}`+"\n", i)
		}
		in.Close()
		lines := bufio.NewReader(out)
		for i := range n {
			if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"jsonrpc":"2.0","id":`) {
				t.Fatalf("answer %d: got %.100s, %v", i, line, err)
			}
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("at the end: got %q, %v", rest, err)
		}
		ends(t, cmd, 0, stderr)
	})
	t.Run("signal with a full pipe", func(t *testing.T) {
		cmd, in, out, stderr := start(t)
		for range 40 {
			io.WriteString(in, strings.Replace(list, "2,", fmt.Sprint(time.Now().UnixNano(), ","), 1))
		}
		if _, err := bufio.NewReaderSize(out, 16).ReadByte(); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		ends(t, cmd, 0, stderr)
	})
}
