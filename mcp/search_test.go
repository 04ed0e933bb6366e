package mcp_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestSearchModeOffersTwoTools(t *testing.T) {
	g := &gate{}
	s := newServer(t, g)
	tools := listTools(t, s, "agent", "?mode=search")
	if len(tools) != 2 || tools["search_tools"].Description == "" || tools["call_tool"].Description == "" {
		t.Errorf("got %v, want search_tools and call_tool", tools)
	}
	if _, ok := listTools(t, s, "agent", "")["search_tools"]; ok {
		t.Error("search_tools is listed without the mode")
	}
	call := func(token, name, arguments string) string {
		t.Helper()
		p := post{path: "/mcp?mode=search", token: token, body: callBody(name, arguments)}
		return p.do(s).Body.String()
	}
	found := func(token, query string) (names []string, text string) {
		t.Helper()
		var e struct {
			Result struct {
				Structured struct {
					Data []struct {
						Name  string
						Waits bool            `json:"waits_for_approval"`
						Input json.RawMessage `json:"input_schema"`
					}
					Names []string
				} `json:"structuredContent"`
			}
		}
		text = call(token, "search_tools", fmt.Sprintf(`{"query":%q}`, query))
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		for _, f := range e.Result.Structured.Data {
			names = append(names, f.Name)
		}
		return append(names, e.Result.Structured.Names...), text
	}
	for query, want := range map[string]string{
		"create contact": "create_contact", "make a new contact": "create_contact", "wait for approval": "wait_for_approval",
		"deal": "get_deal", "find contacts by words": "search_contacts",
	} {
		if names, text := found("agent", query); !strings.Contains(strings.Join(names[:min(3, len(names))], " "), want) {
			t.Errorf("%q: got %v, want %s among the first: %s", query, names, want, text)
		}
	}
	if names, text := found("agent", "frobnicate"); len(names) > 0 || !strings.Contains(text, "No tool has these words") {
		t.Errorf("got %v, want none, and what to do then: %s", names, text)
	}
	if names, _ := found("agent", ""); len(names) < 8 || strings.Contains(fmt.Sprint(names), "delete_contact") {
		t.Errorf("without words: got %v, want the names of all that the caller may use", names)
	}
	if names, _ := found("reader", "delete contact"); strings.Contains(fmt.Sprint(names), "delete_contact") {
		t.Errorf("got %v, want none that the caller may not use", names)
	}
	if _, text := found("agent", "create contact"); !strings.Contains(text, `\"waits_for_approval\":true`) || !strings.Contains(text, `maxLength`) {
		t.Errorf("got %s, want that it waits, and the whole schema", text)
	}

	if got := call("agent", "call_tool", `{"name":"create_contact","arguments":{ "first_name":"Ada" }}`); !strings.Contains(got, "pending_approval") {
		t.Errorf("got %s, want it to wait", got)
	}
	if in := g.incoming[0]; in.Request.Tool != "create_contact" || string(in.Request.Body) != `{ "first_name":"Ada" }` || string(in.Input) != `{ "first_name":"Ada" }` {
		t.Errorf("the gate got %+v, want the tool that is called, and its arguments byte for byte", in)
	}
	for arguments, want := range map[string]string{
		`{"name":"delete_contact","arguments":{"id":"con_1"}}`: "no tool of that name",
		`{"name":"call_tool","arguments":{}}`:                  "no tool of that name",
		`{"name":"no_such"}`:                                   "no tool of that name",
		`{}`:                                                   "name is missing",
		`{"name":7,"arguments":[]}`:                            "- arguments: an object",
	} {
		if got := call("agent", "call_tool", arguments); !strings.Contains(got, want) || !strings.Contains(got, `"isError":true`) {
			t.Errorf("%s: got %s, want %q", arguments, got, want)
		}
	}
	if len(g.incoming) != 1 {
		t.Errorf("the gate got %d calls, want one", len(g.incoming))
	}
	if got := call("agent", "create_contact", `{}`); !strings.Contains(got, "call_tool") {
		t.Errorf("a tool that the mode does not offer: got %s, want it not found, and how to call it", got)
	}
	w := post{path: "/mcp?mode=search", token: "fine", body: callBody("call_tool", `{"name":"create_deal","arguments":{}}`)}.do(s)
	if w.Code != 403 || !strings.Contains(w.Header().Get("WWW-Authenticate"), "deals:write-approval") {
		t.Errorf("a token without the scope: got %d %q, want the challenge", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	if w := (post{path: "/mcp?mode=x", body: listBody}).do(s); w.Code != 400 || !strings.Contains(w.Body.String(), "mode=search") {
		t.Errorf("another mode: got %d %s, want 400 and what there is", w.Code, w.Body)
	}
	// The mode and a choice of tools go together.
	p := post{path: "/mcp?mode=search&toolsets=deals&read_only=true", token: "full", body: callBody("search_tools", `{"query":"contact"}`)}
	if got := p.do(s).Body.String(); strings.Contains(got, "create_contact") {
		t.Errorf("got %s, want only what is chosen", got)
	}
	for arguments, want := range map[string]string{
		`{"name":"get_deal","arguments":{"id":"deal_1"}}`:                                        `"by":"key_full"`,
		`{"name":"update_deal","arguments":{"id":"deal_1"}}`:                                     "no tool of that name",
		`{"name":"get_contact","arguments":{"id":"con_1"}}`:                                      "no tool of that name",
		`{"name":"withdraw_approval","arguments":{"id":"apr_1"}}`:                                "no tool of that name",
		`{"name":"request_access","arguments":{"resource":"deals","verb":"write","minutes":15}}`: "no tool of that name",
		`{"name":"search_tools","arguments":{}}`:                                                 "no tool of that name",
		`{"name":"get_deal","arguments":{"id":"deal_1"},"Name":"update_deal"}`:                   "no such argument",
	} {
		p.body = callBody("call_tool", arguments)
		if got := p.do(s).Body.String(); !strings.Contains(got, strings.ReplaceAll(want, `"`, `\"`)) && !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %q", arguments, got, want)
		}
	}
}

// What each way costs a model: the bytes of the list by four.
func TestTokensOfTheList(t *testing.T) {
	s := newServer(t, &gate{})
	for _, tt := range []struct {
		token, query string
		most         int
	}{
		{"full", "", 15_000}, {"full", "?toolsets=contacts,deals", 2_900}, {"full", "?read_only=true", 6_500}, {"full", "?mode=search", 350},
	} {
		n := post{path: "/mcp" + tt.query, token: tt.token, body: listBody}.do(s).Body.Len() / 4
		t.Logf("%-30s %6d tokens", tt.token+tt.query, n)
		if n > tt.most {
			t.Errorf("%s%s: got %d tokens, want at most %d", tt.token, tt.query, n, tt.most)
		}
	}
}
