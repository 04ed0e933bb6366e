package mcp

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"trustpager/access"
	"trustpager/approvals"
)

func TestTrapToolWithTwoSchemasEmptiesTheList(t *testing.T) {
	bad := mcpgo.NewTool("bad", mcpgo.WithString("x"))
	bad.RawInputSchema = json.RawMessage(`{"type":"object"}`)

	// mcp-go: 200 and nothing.
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))
	m := server.NewMCPServer("x", "1")
	m.AddTool(bad, nil)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`))
	r.Header.Set("Content-Type", "application/json")
	server.NewStreamableHTTPServer(m, server.WithStateLess(true), server.WithDisableLocalhostProtection(true)).ServeHTTP(w, r)
	if w.Code != 200 || strings.Contains(w.Body.String(), "inputSchema") {
		t.Errorf("mcp-go has mended the trap (%d %s): addTool need not look for it any more", w.Code, w.Body)
	}

	s := &Server{byName: map[string]*tool{}}
	good := mcpgo.NewToolWithRawSchema("good", "Does good.", json.RawMessage(`{"type":"object"}`))
	for name, form := range map[string]mcpgo.Tool{
		"two schemas":      bad,
		"broken schema":    mcpgo.NewToolWithRawSchema("broken", "", json.RawMessage(`{`)),
		"colon in name":    mcpgo.NewToolWithRawSchema("a:b", "", json.RawMessage(`{}`)),
		"no name":          mcpgo.NewToolWithRawSchema("", "", json.RawMessage(`{}`)),
		"hidden character": mcpgo.NewToolWithRawSchema("hidden", "Does\u200b good.", json.RawMessage(`{}`)),
		"tag in schema":    mcpgo.NewToolWithRawSchema("tag", "", json.RawMessage(`{"description":"x\udb40\udc41"}`)),
		"bidi in schema":   mcpgo.NewToolWithRawSchema("bidi", "", json.RawMessage(`{"description":"x\u202e"}`)),
	} {
		if err := s.addTool(server.NewMCPServer("x", "1"), &tool{name: form.Name, forms: [3]mcpgo.Tool{1: form, 2: form}}); err == nil {
			t.Errorf("%s: the server would start", name)
		}
	}
	for i, want := range []bool{true, false} {
		err := s.addTool(server.NewMCPServer("x", "1"), &tool{name: "good", forms: [3]mcpgo.Tool{1: good, 2: good}})
		if (err == nil) != want {
			t.Errorf("good tool, time %d: got %v, want accepted %t", i+1, err, want)
		}
	}
}

// The list that the gate puts together is the one that mcp-go would send.
func TestTrapListCostsTenCalls(t *testing.T) {
	m := server.NewMCPServer("x", "1", server.WithToolCapabilities(false))
	s := &Server{byName: map[string]*tool{}}
	for _, name := range []string{"a", "b", "c"} {
		form := mcpgo.NewToolWithRawSchema(name, "Does <"+name+"> & more.", json.RawMessage(`{"type":"object"}`))
		form.Meta = mcpgo.NewMetaFromMap(map[string]any{"scope": "contacts:read"})
		form.RawOutputSchema = json.RawMessage(`{ "type": "object" }`)
		form.Annotations = annotations(name, true, false, true, false)
		if err := s.addTool(m, &tool{name: name, reads: true, forms: [3]mcpgo.Tool{1: form, 2: form}}); err != nil {
			t.Fatal(err)
		}
	}
	request := func() *httptest.ResponseRecorder { return httptest.NewRecorder() }
	const body = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	own, theirs := request(), request()
	r := httptest.NewRequest("POST", "/mcp", nil)
	server.NewStreamableHTTPServer(m, server.WithStateLess(true), server.WithDisableLocalhostProtection(true)).ServeHTTP(theirs, forward(r, []byte(body)))
	empty := server.NewMCPServer("x", "1", server.WithToolCapabilities(false))
	s.rest.old = server.NewStreamableHTTPServer(empty, server.WithStateLess(true), server.WithDisableLocalhostProtection(true))
	if err := s.list(own, httptest.NewRequest("POST", "/mcp", nil), &call{message: message{method: methodToolsList}}, []byte(body)); err != nil {
		t.Fatal(err)
	}
	if own.Body.String() != theirs.Body.String() || own.Code != theirs.Code || own.Header().Get("Content-Type") != theirs.Header().Get("Content-Type") {
		t.Errorf("got %d %v\n%s\nwant %d %v\n%s", own.Code, own.Header(), own.Body, theirs.Code, theirs.Header(), theirs.Body)
	}
}

// What a plain call answers is what mcp-go would have sent.
func TestPlainCallIsAnsweredAsMCPGoWould(t *testing.T) {
	m := server.NewMCPServer("x", "1", server.WithToolCapabilities(false))
	s := &Server{byName: map[string]*tool{}, calls: m, Config: Config{Gate: quiet{}, Watch: unwatched}}
	s.callsHTTP = server.NewStreamableHTTPServer(m, server.WithStateLess(true), server.WithDisableLocalhostProtection(true))
	var said answer
	form := mcpgo.NewToolWithRawSchema("a", "Does.", json.RawMessage(`{"type":"object"}`))
	tl := &tool{name: "a", forms: [3]mcpgo.Tool{1: form, 2: form}, run: func(context.Context, *call) (answer, error) { return said, nil }}
	if err := s.addTool(m, tl); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		id, tool string
		said     answer
	}{
		{`7`, "a", answer{structured: json.RawMessage(`{"data":{"name":"<Ada> & \"é\" \u2028"}}`)}},
		{`"x\"y"`, "a", answer{structured: json.RawMessage(`{ "data" : [1.50, 12345678901234567890] }`), text: "a\nb\t\u2028<b>"}},
		{`-1.5`, "a", answer{structured: json.RawMessage(`{"error":{}}`), text: "no", failed: true}},
		{`1`, "a", answer{structured: json.RawMessage(`{}`), text: "broken \xff"}},
		{`1`, "b", answer{}},
	} {
		said = tt.said
		c := &call{message: message{id: json.RawMessage(tt.id), method: methodToolsCall, name: json.RawMessage(`"` + tt.tool + `"`)}}
		request := func() *http.Request {
			r := httptest.NewRequest("POST", "/mcp", nil)
			return forward(r.WithContext(context.WithValue(r.Context(), callKey{}, c)), c.stripped(nil))
		}
		own, theirs := httptest.NewRecorder(), httptest.NewRecorder()
		s.callsHTTP.ServeHTTP(theirs, request())
		if err := s.answerCall(own, request(), c, s.called(c), c.stripped(nil)); err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(own.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", own.Body, err)
		}
		json.Unmarshal(theirs.Body.Bytes(), &want)
		if diff := cmp.Diff(want, got); diff != "" || own.Code != theirs.Code {
			t.Errorf("%s (-mcp-go +ours):\n%s", tt.id, diff)
		}
	}
}

// quiet is a gate of which nobody has asked for anything.
type quiet struct{ Gate }

func (quiet) News(context.Context, access.Grant) (approvals.News, error) {
	return approvals.News{}, nil
}

func unwatched(string) (<-chan struct{}, func()) { return nil, func() {} }

// mcp-go, which reads with encoding/json, takes what the gate lets through for
// what the gate takes it for.
func FuzzParseReadsWhatMCPGoReads(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"a":1,"A":2},"_meta":{"progressToken":1}}}`,
		`{"jsonrpc":"2.0","method":"tools/call","METHOD":"tools/list"}`,
		`{"jsonrpc":"2.0","id":"\u0061","\u006dethod":"ping"}`,
		`{"jsonrpc":"2.0","id":-1.5e3,"method":"tools/list","params":{"Cursor":"x"}}`,
		`{"jsonrpc":"2.0","id":1,"result":{}}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m message
		if m.parse(body) != nil {
			return
		}
		var theirs struct {
			JSONRPC string          `json:"jsonrpc"`
			ID      json.RawMessage `json:"id"`
			Method  string          `json:"method"`
			Params  struct {
				Name      json.RawMessage `json:"name"`
				Arguments json.RawMessage `json:"arguments"`
			} `json:"params"`
		}
		read := body
		if m.method == methodToolsCall {
			read = m.stripped(nil)
		}
		if err := json.Unmarshal(read, &theirs); err != nil && m.method == methodToolsCall {
			t.Fatalf("%s: %v", read, err)
		}
		if theirs.Method != m.method || theirs.JSONRPC != "2.0" || string(theirs.ID) != string(m.id) {
			t.Errorf("%s: got method %q and id %s, mcp-go %q and %s", body, m.method, m.id, theirs.Method, theirs.ID)
		}
		if m.method == methodToolsCall && (string(theirs.Params.Name) != string(m.name) || theirs.Params.Arguments != nil) {
			t.Errorf("%s: got name %s, mcp-go %s with arguments %s", body, m.name, theirs.Params.Name, theirs.Params.Arguments)
		}
	})
}

// A tool whose schema has an argument repeated in a header is not called if the two
// differ.
func TestHeadersOfArgumentsAreCompared(t *testing.T) {
	base := newFixture(t)
	for _, tt := range []struct {
		arguments string
		headers   []string // values of Mcp-Param-Region
		want      int
	}{
		{`{"region":"eu"}`, []string{"eu"}, 200},
		{`{"region":"eu"}`, []string{"=?base64?ZXU=?="}, 200},
		{`{}`, nil, 200},
		{`{"region":"eu"}`, []string{"us"}, 400},
		{`{"region":"eu"}`, nil, 400},
		{`{}`, []string{"eu"}, 400},
	} {
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"test_x_mcp_header","arguments":` + tt.arguments +
			`,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/mcp", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + fixtureToken},
			"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"test_x_mcp_header"}, "Mcp-Param-Region": tt.headers}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tt.want || (tt.want == 400) != strings.Contains(string(got), "-32020") {
			t.Errorf("%s with %q: got %d %s (%v), want %d", tt.arguments, tt.headers, resp.StatusCode, got, err, tt.want)
		}
	}
}

// A call that looked before something changed does not undo what a later one knows.
func TestTrailerForgetsWhatWasLookedUpBeforeAChange(t *testing.T) {
	changed := make(chan struct{}, 1)
	s := &Server{Config: Config{Watch: func(string) (<-chan struct{}, func()) { return changed, func() {} }}}
	_, _, slow := s.recall("ws_1", "key_1")
	changed <- struct{}{}
	_, _, fast := s.recall("ws_1", "key_1")
	fast(nil)
	slow([]approvals.Approval{{ID: "apr_1"}})
	if open, known, _ := s.recall("ws_1", "key_1"); !known || open != nil {
		t.Errorf("got %v, known %t, want that nothing is open", open, known)
	}
}
