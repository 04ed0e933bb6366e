package mcp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// modern returns a request of 2026-07-28 with the params; client is what it says
// of its capabilities, "" for none.
func modern(token string, id any, method, params, client string) post {
	if params != "" {
		params += ","
	}
	if client == "" {
		client = "{}"
	}
	p := post{token: token, header: map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Accept": "application/json, text/event-stream"},
		body: fmt.Sprintf(`{"jsonrpc":"2.0","id":%v,"method":%q,"params":{%s"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":%s}}}`,
			id, method, params, client)}
	var named struct {
		Params struct{ Name, TaskID string }
	}
	if json.Unmarshal([]byte(p.body), &named) == nil && named.Params.Name+named.Params.TaskID != "" {
		p.header["Mcp-Name"] = named.Params.Name + named.Params.TaskID
	}
	return p
}

// What clients of 2026-07-28 say that they can do.
const (
	takesTasks = `{"extensions":{"io.modelcontextprotocol/tasks":{}}}`
	opensURLs  = `{"elicitation":{"url":{}}}`
)

func modernCall(token string, name, arguments, client string) post {
	return modern(token, 1, "tools/call", fmt.Sprintf(`"name":%q,"arguments":%s`, name, arguments), client)
}

// old returns a request of 2025-11-25.
func old(token string, method, params string) post {
	return post{token: token, header: map[string]string{"Mcp-Protocol-Version": "2025-11-25"},
		body: fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":{%s}}`, method, params)}
}

// over sends the request over the network and returns the answer.
func (p post) over(t *testing.T, url string) (int, envelope) {
	t.Helper()
	body, status := p.read(t, url)
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	return status, e
}

func (p post) read(t *testing.T, url string) ([]byte, int) {
	t.Helper()
	resp := p.send(t, t.Context(), url)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body, resp.StatusCode
}

// client keeps no connection, of which the end of a test would wait for the end.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (p post) send(t *testing.T, ctx context.Context, url string) *http.Response {
	t.Helper()
	r := p.request()
	out, err := http.NewRequestWithContext(ctx, r.Method, url+r.URL.RequestURI(), strings.NewReader(p.body))
	if err != nil {
		t.Fatal(err)
	}
	out.Header, out.Host = r.Header, r.Host
	resp, err := client.Do(out)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// result returns the members of a result.
func result(t *testing.T, e envelope) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(e.Result, &m); err != nil || e.Error != nil {
		t.Fatalf("got %s %+v, want a result", e.Result, e.Error)
	}
	return m
}

// A listener reads the messages of a stream.
type listener struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

func (p post) listen(t *testing.T, url string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	resp := p.send(t, ctx, url)
	l := &listener{t, bufio.NewScanner(resp.Body), func() { cancel(); resp.Body.Close() }}
	t.Cleanup(l.close)
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("got %s %s, want a stream", got, body)
	}
	return l
}

// next returns the next message, nil if the stream has ended.
func (l *listener) next() map[string]any {
	l.t.Helper()
	for l.lines.Scan() {
		data, ok := strings.CutPrefix(l.lines.Text(), "data: ")
		if !ok {
			continue
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			l.t.Fatalf("%s: %v", data, err)
		}
		return m
	}
	return nil
}

// method returns the method of the next message, "" if it is none.
func (l *listener) method() string {
	l.t.Helper()
	m, _ := l.next()["method"].(string)
	return m
}
