package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/unseen"
)

// A tool is one entry of the list, as each caller sees it.
type tool struct {
	name   string
	action *catalog.Action // nil for the tools about approvals
	reads  bool            // it changes nothing
	forms  [access.Run + 1]mcpgo.Tool
	listed [access.Run + 1][]byte // forms, encoded; nil at Deny
}

// toolName is what clients accept as a name; see [addTools].
var toolName = regexp.MustCompile(`^[A-Za-z0-9_./-]{1,64}$`)

// addTools makes the tools of the catalog, those about approvals after them,
// and registers them with m. It fails if one of them could not be listed as it
// should: clients drop, or choke on, a whole list for one bad tool.
func (s *Server) addTools(m *server.MCPServer) error {
	for _, a := range s.Catalog.Actions() {
		t := &tool{name: a.Name, action: a, reads: a.Verb == access.Read}
		for _, l := range []access.Level{access.Queue, access.Run} {
			t.forms[l] = formOf(a, l)
		}
		if err := s.addTool(m, t, s.act(t)); err != nil {
			return err
		}
		if name := toolsetOf(a); !a.Lends() && !slices.Contains(s.toolsets, name) {
			s.toolsets = append(s.toolsets, name)
		}
	}
	for _, at := range s.approvalTools() {
		t := &tool{name: at.form.Name, reads: at.reads}
		t.forms[access.Queue], t.forms[access.Run] = at.form, at.form
		if err := s.addTool(m, t, s.handler(t, at.run)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) addTool(m *server.MCPServer, t *tool, handler server.ToolHandlerFunc) error {
	if !toolName.MatchString(t.name) {
		return fmt.Errorf("tool name %q does not match %s", t.name, toolName)
	}
	if s.byName[t.name] != nil {
		return fmt.Errorf("there are two tools %q", t.name)
	}
	for _, l := range []access.Level{access.Queue, access.Run} {
		b, err := json.Marshal(t.forms[l])
		if err != nil {
			return fmt.Errorf("encode tool %s: %w", t.name, err)
		}
		if err := lint(b); err != nil {
			return fmt.Errorf("tool %s: %w", t.name, err)
		}
		t.listed[l] = b
	}
	s.tools = append(s.tools, t)
	s.byName[t.name] = t
	m.AddTool(t.forms[access.Run], handler)
	return nil
}

// lint refuses text that people do not see and models do: control, format
// (zero-width, bidirectional, tag) and private-use characters and variation
// selectors in the strings of an encoded tool.
func lint(b []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(b))
	for {
		tok, err := d.ReadToken()
		if err != nil {
			return nil // encoded by us: it has come to its end
		}
		if tok.Kind() != '"' {
			continue
		}
		for _, r := range tok.String() {
			if r != '\n' && unseen.Hidden(r) {
				return fmt.Errorf("hidden character %U at %s", r, d.StackPointer())
			}
		}
	}
}

// waits is added to the description of a tool whose calls queue.
const waits = " Waits for approval: the call is queued for a person, answers pending_approval, and nothing is done until they approve."

// formOf returns the tool of the action for a caller who stands at the level.
// Its schemas are raw: mcp-go answers tools/list with nothing at all if one
// tool has both forms.
func formOf(a *catalog.Action, l access.Level) mcpgo.Tool {
	description := a.Description
	if l == access.Queue {
		description += waits
	}
	t := mcpgo.NewToolWithRawSchema(a.Name, description, json.RawMessage(a.Input))
	t.RawOutputSchema = json.RawMessage(catalog.ToolOutput(a))
	t.Annotations = annotations(a.Title, a.Verb == access.Read, a.Destructive, a.Idempotent, a.OpenWorld)
	if a.Resource != "" {
		t.Meta = mcpgo.NewMetaFromMap(map[string]any{"trustpager/scope": rung(a, l)})
	}
	return t
}

// annotations returns the hints, each said outright, for what is left out has
// defaults that frighten. Of a tool that only reads, two mean nothing.
func annotations(title string, readOnly, destructive, idempotent, openWorld bool) mcpgo.ToolAnnotation {
	h := mcpgo.ToolAnnotation{Title: title, ReadOnlyHint: &readOnly, OpenWorldHint: &openWorld}
	if !readOnly {
		h.DestructiveHint, h.IdempotentHint = &destructive, &idempotent
	}
	return h
}

// rung returns the lowest scope that gives the action's verb that level.
func rung(a *catalog.Action, l access.Level) string {
	if a.Own() {
		return a.Scope().String() // any rung that lets the caller ask at all
	}
	s := access.Scope{Resource: a.Resource, Rung: a.Verb.String()}
	if l == access.Queue {
		s.Rung += "-approval"
	}
	return s.String()
}

// level returns how far the caller may go with the tool. What its URL does not
// select is denied, except asking for a loan. The tools about approvals are for everybody: rights may
// have changed since something was asked for.
func (s *Server) level(g access.Grant, sel selection, t *tool) access.Level {
	switch {
	case sel.readOnly && !t.reads:
		return access.Deny
	case t.action == nil:
		return access.Run
	case sel.toolsets != nil && !slices.Contains(sel.toolsets, toolsetOf(t.action)) && !t.action.Lends():
		return access.Deny
	}
	return t.action.Level(g)
}

// filter hides from mcp-go, when a tool is called, what the caller may not use.
func (s *Server) filter(ctx context.Context, tools []mcpgo.Tool) []mcpgo.Tool {
	c := callFrom(ctx)
	return slices.DeleteFunc(tools, func(t mcpgo.Tool) bool {
		return c == nil || s.level(c.grant, c.selection, s.byName[t.Name]) == access.Deny
	})
}

// list answers tools/list: mcp-go's answer with the caller's tools in place of
// the empty list: the server that is asked has no tools.
func (s *Server) list(w http.ResponseWriter, r *http.Request, c *call, body []byte) error {
	if c.cursor {
		return problem.Errorf(problem.Validation, "there is no such cursor: the list of tools has one page").
			WithFix("Leave cursor out.")
	}
	rec := &recorder{header: w.Header(), status: http.StatusOK}
	s.restHTTP.ServeHTTP(rec, forward(r, body))
	answer := rec.body.Bytes()
	before, after, ok := bytes.Cut(answer, []byte(`"tools":[]`))
	if !ok { // an error, or a notification
		w.WriteHeader(rec.status)
		w.Write(answer) // fails only if the client has gone
		return nil
	}
	out := lists.Get().(*bytes.Buffer)
	defer lists.Put(out)
	out.Reset()
	out.Write(before)
	out.WriteString(`"tools":`)
	separator := byte('[')
	for _, t := range s.tools {
		if b := t.listed[s.level(c.grant, c.selection, t)]; b != nil {
			out.WriteByte(separator)
			out.Write(b)
			separator = ','
		}
	}
	if separator == '[' {
		out.WriteByte('[')
	}
	out.WriteByte(']')
	out.Write(after)
	w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	w.WriteHeader(rec.status)
	w.Write(out.Bytes())
	return nil
}

// lists holds the buffers of [Server.list].
var lists = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// A recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// A selection is what the URL asks for: ?toolsets=contacts,deals&read_only=true.
// The zero selection is everything.
type selection struct {
	toolsets []string // nil means all
	readOnly bool
}

// toolsetOf returns the toolset of an action: its resource, or its own name if
// it has none.
func toolsetOf(a *catalog.Action) string {
	if a.Resource == "" {
		return a.Name
	}
	return a.Resource
}

func (s *Server) selectionOf(rawQuery string) (selection, error) {
	var sel selection
	if rawQuery == "" {
		return sel, nil
	}
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return sel, problem.Errorf(problem.Validation, "the URL's query cannot be read").WithFix("Use a query like ?toolsets=contacts,deals.")
	}
	for _, list := range q["toolsets"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if !slices.Contains(s.toolsets, name) {
				return sel, problem.Errorf(problem.Validation, "there is no toolset %q", name).
					WithFix("The toolsets are %s.", strings.Join(s.toolsets, ", "))
			}
			sel.toolsets = append(sel.toolsets, name)
		}
	}
	if v := q.Get("read_only"); v != "" {
		if sel.readOnly, err = strconv.ParseBool(v); err != nil {
			return sel, problem.Errorf(problem.Validation, "read_only=%q is neither true nor false", v).
				WithFix("Write ?read_only=true.")
		}
	}
	return sel, nil
}

var errNoCall = errors.New("tool called without the gate")

// handler returns run as mcp-go calls it. An error becomes a result that says
// what was wrong and how to mend it; a panic is the server's fault, of which
// the caller learns no more than that.
func (s *Server) handler(t *tool, run func(ctx context.Context, c *call) (answer, error)) server.ToolHandlerFunc {
	return func(ctx context.Context, _ mcpgo.CallToolRequest) (*mcpgo.CallToolResult, error) {
		c := callFrom(ctx)
		if c == nil {
			return nil, errNoCall
		}
		c.tool = t
		a := s.run(ctx, c, run)
		c.said, c.outcome = &a, a.outcome
		return a.result(), nil
	}
}

func (s *Server) run(ctx context.Context, c *call, run func(ctx context.Context, c *call) (answer, error)) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = errorAnswer(ctx, panicked(c.tool.name, p))
		}
	}()
	a, err := run(ctx, c)
	if err != nil {
		return errorAnswer(ctx, err)
	}
	return a
}

// act returns the handler of an action's tool: what was sent, byte for byte,
// goes to the gate, and the outcome comes back.
func (s *Server) act(t *tool) server.ToolHandlerFunc {
	return s.handler(t, func(ctx context.Context, c *call) (answer, error) {
		input := c.arguments
		if input == nil {
			input = json.RawMessage("{}")
		}
		out, err := s.Gate.Do(ctx, c.grant, t.action, approvals.Incoming{
			Input:   input,
			Request: approvals.Request{Door: "mcp", Tool: t.name, Body: c.arguments},
		})
		if err != nil {
			return answer{}, err
		}
		if out.Approval != nil {
			return s.approvalAnswer(*out.Approval)
		}
		return resultAnswer(t, out.Result), nil
	})
}
