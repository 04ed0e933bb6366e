package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"trustpager/bridge"
)

// A posted message is what the server was sent.
type posted struct {
	header http.Header
	body   string
}

// A line is a client on a bridge to a server that answers as the test says.
type line struct {
	t      *testing.T
	in     *io.PipeWriter
	out    *bufio.Reader
	outEnd *io.PipeReader
	stop   context.CancelFunc
	ended  chan error
	log    bytes.Buffer

	mu   sync.Mutex
	sent []posted
}

func connect(t *testing.T, answer http.HandlerFunc) *line {
	l := &line{t: t, ended: make(chan error, 1)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		l.sent = append(l.sent, posted{r.Header.Clone(), string(body)})
		l.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	l.open(srv.URL)
	return l
}

func (l *line) open(url string) {
	l.t.Helper()
	b, err := bridge.New(url, "tp_live_x", "test/1", slog.New(slog.NewTextHandler(&l.log, nil)))
	if err != nil {
		l.t.Fatal(err)
	}
	in, inWriter := io.Pipe()
	outReader, out := io.Pipe()
	ctx, stop := context.WithCancel(l.t.Context())
	l.in, l.outEnd, l.out, l.stop = inWriter, outReader, bufio.NewReaderSize(outReader, 1<<20), stop
	go func() { l.ended <- b.Run(ctx, in, out); out.Close() }()
	l.t.Cleanup(func() { stop(); inWriter.Close(); outReader.Close() })
}

func (l *line) send(message string) {
	l.t.Helper()
	if _, err := io.WriteString(l.in, message+"\n"); err != nil {
		l.t.Fatal(err)
	}
}

// next returns the next line.
func (l *line) next() string {
	l.t.Helper()
	got, err := l.out.ReadString('\n')
	if err != nil {
		l.t.Fatalf("read a line: got %q, %v", got, err)
	}
	return strings.TrimSuffix(got, "\n")
}

// failed checks that the next line is an error of the request with the id.
func (l *line) failed(id string, code int, words ...string) {
	l.t.Helper()
	text := l.next()
	var got struct {
		JSONRPC string
		ID      json.RawMessage
		Error   struct {
			Code    int
			Message string
		}
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || got.JSONRPC != "2.0" || string(got.ID) != id || got.Error.Code != code {
		l.t.Fatalf("got %s, want the error %d of %s", text, code, id)
	}
	for _, w := range words {
		if !strings.Contains(got.Error.Message, w) {
			l.t.Errorf("got %q, want it to say %q", got.Error.Message, w)
		}
	}
}

// end closes the bridge's input, and checks that it ends with nothing more said.
func (l *line) end() {
	l.t.Helper()
	l.in.Close()
	if rest, err := io.ReadAll(l.out); err != nil || len(rest) > 0 {
		l.t.Errorf("at the end: got %q, %v; want nothing", rest, err)
	}
	if err := <-l.ended; err != nil {
		l.t.Errorf("the end: got %v, want nil", err)
	}
}

// echo answers each request with its method and id.
func echo(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ID     json.RawMessage
		Method string
	}
	json.NewDecoder(r.Body).Decode(&m)
	if m.ID == nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "{\n  \"jsonrpc\": \"2.0\", \"id\": %s,\n  \"result\": {\"protocolVersion\": \"2025-06-18\", \"method\": %q}\n}\n", m.ID, m.Method)
}

func TestMessagesAreForwardedAsTheyAre(t *testing.T) {
	l := connect(t, echo)
	l.send(`{"jsonrpc":"2.0","id":"a","method":"initialize","params":{ "protocolVersion":"2025-11-25"}}`)
	if got, want := l.next(), `{"jsonrpc":"2.0","id":"a","result":{"protocolVersion":"2025-06-18","method":"initialize"}}`; got != want {
		t.Errorf("got %s, want %s: on one line", got, want)
	}
	l.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	l.send("\r")
	l.send(`{"params":{"name":"get_contact","arguments":{"b":1,"a":12345678901234567890}},"method":"tools/call","jsonrpc":"2.0","id":2}` + "\r")
	if got := l.next(); !strings.Contains(got, `"id":2`) || !strings.Contains(got, "tools/call") {
		t.Errorf("got %s, want the answer of 2", got)
	}
	l.end()
	if len(l.sent) != 3 {
		t.Fatalf("got %d posts, want 3", len(l.sent))
	}
	for _, p := range l.sent {
		if p.header.Get("Authorization") != "Bearer tp_live_x" || p.header.Get("Content-Type") != "application/json" || p.header.Get("User-Agent") != "test/1" || p.header.Get("Mcp-Method") != "" {
			t.Errorf("got headers %v", p.header)
		}
		want := "2025-06-18" // what the server has chosen
		if strings.Contains(p.body, "initialize\"") {
			want = ""
		}
		if got := p.header.Get("Mcp-Protocol-Version"); got != want {
			t.Errorf("%s: got version %q, want %q", p.body, got, want)
		}
		if strings.Contains(p.body, "tools/call") && p.body != `{"params":{"name":"get_contact","arguments":{"b":1,"a":12345678901234567890}},"method":"tools/call","jsonrpc":"2.0","id":2}` {
			t.Errorf("got %s, want it byte for byte", p.body)
		}
	}
}

func TestModernRequestsHaveHeaders(t *testing.T) {
	for _, tt := range []struct{ method, params, wantName string }{
		{"tools/call", `"name":"get_contact"`, "get_contact"},
		{"prompts/get", `"name":"grüße"`, "=?base64?Z3LDvMOfZQ==?="},
		{"resources/read", `"uri":"trustpager://contacts/1"`, "trustpager://contacts/1"},
		{"tools/list", `"name":"x"`, ""},
	} {
		l := connect(t, echo)
		l.send(`{"jsonrpc":"2.0","id":1,"method":"` + tt.method + `","params":{` + tt.params + `,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`)
		l.next()
		l.end()
		h := l.sent[0].header
		if h.Get("Mcp-Protocol-Version") != "2026-07-28" || h.Get("Mcp-Method") != tt.method || h.Get("Mcp-Name") != tt.wantName {
			t.Errorf("%s: got %v, want the version, the method and the name %q", tt.method, h, tt.wantName)
		}
	}
}

func TestEventsBecomeLines(t *testing.T) {
	more := make(chan struct{})
	l := connect(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "listen") {
			for range 2 {
				fmt.Fprint(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n")
				w.(http.Flusher).Flush()
				select {
				case <-more:
				case <-r.Context().Done():
					return
				}
			}
			<-r.Context().Done() // it stays open
			return
		}
		fmt.Fprint(w, ": hello\r\n\r\nid: 1\r\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\r\ndata:  \"method\":\"notifications/progress\"}\r\n\r\n")
		fmt.Fprint(w, "data:\n\ndata: no JSON\n\ndata:{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"cut off")
	})
	l.send(`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}`)
	changed := `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`
	if got := l.next(); got != changed {
		t.Errorf("got %s, want %s", got, changed)
	}
	l.send(`{"jsonrpc":"2.0","id":2,"method":"tools/call"}`)
	for _, want := range []string{`{"jsonrpc":"2.0","method":"notifications/progress"}`, `{"jsonrpc":"2.0","id":2,"result":{}}`} {
		if got := l.next(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	more <- struct{}{}
	if got := l.next(); got != changed {
		t.Errorf("got %s, want %s", got, changed)
	}
	l.end() // although the stream is open
}

func TestAnswersThatAreNone(t *testing.T) {
	say := func(status int, kind, body string, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	refused := `{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"no such key","data":{"x":1}}}`
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		code   int
		words  []string
	}{
		"401":            {say(401, "application/json", refused), -32001, []string{"no such key. ", "TRUSTPAGER_KEY", "--key-file"}},
		"401 of a proxy": {say(401, "text/html", "<h1>no</h1>"), -32001, []string{"answers 401", "TRUSTPAGER_KEY"}},
		"403":            {say(403, "application/json", `{"jsonrpc":"2.0","id":null,"error":{"code":-32003,"message":"paused"}}`), -32003, []string{"paused. ", "admin"}},
		"404":            {say(404, "text/plain", "nothing here"), -32600, []string{"404", "/mcp"}},
		"413":            {say(413, "application/json", `{"error":{"code":-32600,"message":"too large"}}`), -32600, []string{"too large"}},
		"429":            {say(429, "text/plain", "", "Retry-After", "7"), -32029, []string{"429", "Wait 7 seconds"}},
		"500":            {say(500, "text/plain", ""), -32603, []string{"500", "It may have been done or not"}},
		"503":            {say(503, "text/plain", ""), -32603, []string{"503", "Try again in a moment"}},
		"redirect":       {say(308, "text/plain", "", "Location", "https://other.example.com/mcp"), -32603, []string{"https://other.example.com/mcp", "--url"}},
		"a page":         {say(200, "text/html", "<h1>Welcome</h1>"), -32603, []string{"200", "MCP endpoint"}},
		"nothing":        {say(202, "", ""), -32603, []string{"202"}},
		"another's":      {say(200, "application/json", `{"jsonrpc":"2.0","id":8,"result":{}}`), -32603, []string{"200"}},
		"cut off":        {say(200, "application/json", `{"jsonrpc":"2.0","id":1`, "Content-Length", "500"), -32603, []string{"It may have been done or not"}},
		"empty stream":   {say(200, "text/event-stream", ": bye\n\n"), -32603, []string{"It may have been done or not"}},
		"gone":           {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, -32603, []string{"EOF", "It may have been done or not"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := connect(t, tt.answer)
			l.send(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
			l.failed("1", tt.code, tt.words...)
			l.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`) // and of these nothing is said
			l.send(`{"jsonrpc":"2.0","id":5,"result":{}}`)
			l.end()
		})
	}
}

func TestErrorsOfTheServerGoThroughAsTheyAre(t *testing.T) {
	answer := `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"not offered"}}`
	l := connect(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, answer)
	})
	l.send(`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}`)
	if got := l.next(); got != answer {
		t.Errorf("got %s, want %s", got, answer)
	}
	l.end()
}

func TestServerDown(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	l := &line{t: t, ended: make(chan error, 1)}
	l.open(srv.URL)
	for range 2 {
		l.send(`{"jsonrpc":"2.0","id":"x","method":"tools/list"}`)
		l.failed(`"x"`, -32603, srv.URL+"/mcp", "cannot be reached", "nothing was done")
	}
	l.end()
}

func TestWhatIsNoMessage(t *testing.T) {
	l := connect(t, echo)
	for _, tt := range []struct {
		line string
		id   string
		code int
		word string
	}{
		{`{"jsonrpc":"2.0",`, "null", -32700, "not JSON"},
		{"\x00\xff", "null", -32700, "not JSON"},
		{`[{"jsonrpc":"2.0","id":1,"method":"ping"}]`, "null", -32600, "batches"},
		{`{"jsonrpc":"2.0","id":1,"METHOD":"ping"}`, "1", -32600, "neither a method"},
		{`{"jsonrpc":"2.0","id":2,"method":7}`, "2", -32600, "method is not a name"},
		{`{"method":"tools/call","params":{"x":"` + strings.Repeat("x", 1<<20) + `"},"jsonrpc":"2.0","id":3}`, "3", -32600, "1048576 at most"},
		{`{"method":"tools/call","params":{"x":"` + strings.Repeat("x", 17<<20) + `"},"jsonrpc":"2.0","id":3}`, "null", -32600, "1048576 at most"},
	} {
		l.send(tt.line)
		l.failed(tt.id, tt.code, tt.word)
	}
	l.send(`{"method":"notifications/x","params":{"x":"` + strings.Repeat("x", 1<<20) + `"},"jsonrpc":"2.0"}`)
	start, end := `{"id":4,"method":"x","params":{"x":"`, `"}}`
	l.send(start + strings.Repeat("x", 1<<20-len(start)-len(end)) + end) // the largest that there may be
	if got := l.next(); !strings.Contains(got, `"id":4`) {
		t.Errorf("got %s, want the answer of 4", got)
	}
	l.end()
	if len(l.sent) != 1 {
		t.Errorf("got %d posts, want only the last", len(l.sent))
	}
}

func TestCancelledRequestsEndWithoutAnAnswer(t *testing.T) {
	begun, gone := make(chan struct{}, 100), make(chan struct{}, 100)
	l := connect(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); !strings.Contains(string(body), "wait") {
			r.Body = io.NopCloser(bytes.NewReader(body))
			echo(w, r)
			return
		}
		begun <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	})
	l.send(`{"jsonrpc":"2.0","id":"w","method":"wait"}`)
	<-begun
	l.send(`{"jsonrpc":"2.0","id":"\u0077","method":"ping"}`)
	l.failed(`"w"`, -32600, "has no answer yet")
	l.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"other"}}`)
	l.send(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	l.next()
	l.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\u0077"}}`)
	<-gone
	l.send(`{"jsonrpc":"2.0","id":2,"method":"ping"}`)
	l.next()
	// Far more than are posted at a time: they wait, and can be cancelled too.
	for i := range 100 {
		l.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"wait"}`, 100+i))
	}
	for range 32 {
		<-begun
	}
	for i := range 100 {
		l.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`, 100+i))
	}
	l.send(`{"jsonrpc":"2.0","id":3,"method":"ping"}`)
	if got := l.next(); !strings.Contains(got, `"id":3`) {
		t.Errorf("got %s, want the answer of 3", got)
	}
	l.end()
}

func TestTheEndOfInputWaitsForAnswers(t *testing.T) {
	release := make(chan struct{})
	l := connect(t, func(w http.ResponseWriter, r *http.Request) { <-release; echo(w, r) })
	for i := range 3 {
		l.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"ping"}`, i))
	}
	if _, err := io.WriteString(l.in, `{"jsonrpc":"2.0","id":3,"method":"ping"}`); err != nil { // without a line's end
		t.Fatal(err)
	}
	l.in.Close()
	close(release)
	for range 4 {
		l.next()
	}
	l.end()
}

func TestItEndsAtOnceWhenToldTo(t *testing.T) {
	begun := make(chan struct{})
	l := connect(t, func(w http.ResponseWriter, r *http.Request) { close(begun); <-r.Context().Done() })
	l.send(`{"jsonrpc":"2.0","id":1,"method":"wait"}`)
	<-begun
	l.stop()
	if err := <-l.ended; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestItEndsWhenTheClientReadsNoMore(t *testing.T) {
	l := connect(t, echo)
	l.outEnd.Close()
	l.send(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	if err := <-l.ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want it to tell of the closed pipe", err)
	}
}

func TestURLsAndKeys(t *testing.T) {
	for _, tt := range [][2]string{{"", "k"}, {"pager.example.com", "k"}, {"ftp://x/", "k"}, {"https://user:password@x/", "k"}, {"https://x/#y", "k"},
		{"https://x", ""}, {"https://x", "a b"}, {"https://x", "k\nInjected: 1"}} {
		if _, err := bridge.New(tt[0], tt[1], "", slog.Default()); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: got %v, want it refused with what was expected", tt, err)
		}
	}
	var log bytes.Buffer
	for url, warned := range map[string]bool{"http://127.0.0.1:1/mcp": false, "http://localhost": false, "https://x": false, "http://x": true} {
		log.Reset()
		if _, err := bridge.New(url, "k", "", slog.New(slog.NewTextHandler(&log, nil))); err != nil || (log.Len() > 0) != warned {
			t.Errorf("%s: got %v and the log %q, want a warning: %v", url, err, &log, warned)
		}
	}
	paths := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { paths <- r.URL.String(); echo(w, r) }))
	defer srv.Close()
	for suffix, want := range map[string]string{"": "/mcp", "/": "/mcp", "/?toolsets=contacts": "/mcp?toolsets=contacts", "/mcp/ws_1": "/mcp/ws_1"} {
		l := &line{t: t, ended: make(chan error, 1)}
		l.open(srv.URL + suffix)
		l.send(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
		l.next()
		if got := <-paths; got != want {
			t.Errorf("%q: got %s, want %s", suffix, got, want)
		}
		l.end()
	}
}
