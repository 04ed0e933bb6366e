package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

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
	name    string
	action  *catalog.Action // nil for the tools about approvals
	reads   bool            // it changes nothing
	waits   bool            // its answer may take up to maxWait
	search  bool            // ?mode=search offers it, and nothing else does
	headers bool            // clients of 2026-07-28 repeat some of its arguments in headers
	run     func(ctx context.Context, c *call) (answer, error)
	forms   [access.Run + 1]mcpgo.Tool
	listed  [access.Run + 1][]byte // forms, encoded; nil at Deny
}

// toolName is what clients accept as a name; see [addTools].
var toolName = regexp.MustCompile(`^[A-Za-z0-9_./-]{1,64}$`)

// addTools makes the tools of the catalog, those about approvals after them, and
// those of the search mode, and registers them with m. It fails if one of them
// could not be listed as it should: clients drop, or choke on, a whole list for one
// bad tool.
func (s *Server) addTools(m *server.MCPServer) error {
	for _, a := range s.Catalog.Actions() {
		t := &tool{name: a.Name, action: a, reads: a.Verb == access.Read}
		t.run = func(ctx context.Context, c *call) (answer, error) { return s.act(ctx, c, t) }
		for _, l := range []access.Level{access.Queue, access.Run} {
			t.forms[l] = formOf(a, l)
		}
		if err := s.addTool(m, t); err != nil {
			return err
		}
		if name := toolsetOf(a); !a.Lends() && !slices.Contains(s.toolsets, name) {
			s.toolsets = append(s.toolsets, name)
		}
	}
	for _, t := range s.approvalTools() {
		if err := s.addTool(m, t); err != nil {
			return err
		}
	}
	n := len(s.tools)
	for _, t := range s.searchTools() {
		t.search = true
		if err := s.addTool(m, t); err != nil {
			return err
		}
	}
	s.tools, s.searching = s.tools[:n:n], s.tools[n:]
	return nil
}

func (s *Server) addTool(m *server.MCPServer, t *tool) error {
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
	t.headers = len(mcpgo.ExtractParamHeaderBindings(&t.forms[access.Run])) > 0
	s.tools = append(s.tools, t)
	s.byName[t.name] = t
	m.AddTool(t.forms[access.Run], s.handler(t))
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
const waits = " Waits for approval by a person."

// output is the schema of what each tool that changes something answers: an
// object, which says whether it was executed, or that it waits. It is short, for
// it stands in the list many times; the OpenAPI document has the members. A oneOf
// at its root would make clients drop every tool.
var output = json.RawMessage(`{"type":"object"}`)

// formOf returns the tool of the action for a caller who stands at the level.
// Its schemas are raw: mcp-go answers tools/list with nothing at all if one
// tool has both forms.
func formOf(a *catalog.Action, l access.Level) mcpgo.Tool {
	description := a.Description
	if l == access.Queue {
		description += waits
	}
	t := mcpgo.NewToolWithRawSchema(a.Name, description, json.RawMessage(catalog.ToolInput(a, l == access.Queue)))
	if a.Verb != access.Read {
		t.RawOutputSchema = output
	}
	if l == access.Queue {
		t.Execution = &mcpgo.ToolExecution{TaskSupport: mcpgo.TaskSupportOptional}
	}
	t.Annotations = annotations(a.Title, a.Verb == access.Read, a.Destructive, a.Idempotent, a.OpenWorld)
	if a.Resource != "" {
		t.Meta = mcpgo.NewMetaFromMap(map[string]any{"scope": rung(a, l)})
	}
	return t
}

// annotations returns the hints, each where it is not what the protocol takes for
// granted: a tool that writes, destroys, is not idempotent, and reaches outside.
func annotations(title string, readOnly, destructive, idempotent, openWorld bool) mcpgo.ToolAnnotation {
	h := mcpgo.ToolAnnotation{Title: title}
	yes, no := true, false
	if readOnly {
		h.ReadOnlyHint = &yes
	} else {
		if !destructive {
			h.DestructiveHint = &no
		}
		if idempotent {
			h.IdempotentHint = &yes
		}
	}
	if !openWorld {
		h.OpenWorldHint = &no
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
	case sel.readOnly && !t.reads && !t.search, sel.search != t.search: // what call_tool calls is looked at for itself
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

// list answers tools/list.
func (s *Server) list(w http.ResponseWriter, r *http.Request, c *call, body []byte) error {
	return s.splice(w, r, c, body, "tools", func(yield func([]byte) bool) {
		for _, t := range s.offered(c.selection) {
			if b := t.listed[s.level(c.grant, c.selection, t)]; b != nil && !yield(b) {
				return
			}
		}
	})
}

// offered returns the tools among which the selection chooses.
func (s *Server) offered(sel selection) []*tool {
	if sel.search {
		return s.searching
	}
	return s.tools
}

// A selection is what the URL asks for: ?toolsets=contacts,deals&read_only=true,
// and ?mode=search for the tools that find and call the others. The zero selection
// is everything.
type selection struct {
	toolsets []string // nil means all
	readOnly bool
	search   bool
}

// whole returns what the selection chooses from, whichever mode offers it.
func (sel selection) whole() selection {
	sel.search = false
	return sel
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
	for name, values := range q { // one that is not understood may be meant to narrow
		if name != "toolsets" && name != "read_only" && name != "mode" || name != "toolsets" && len(values) > 1 {
			return sel, problem.Errorf(problem.Validation, "the URL's query holds %.40q, which is not known or stands there twice", name).
				WithFix("Use ?toolsets=…, read_only=true and mode=search, each once, and nothing else.")
		}
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
	if v := q.Get("read_only"); q.Has("read_only") {
		if sel.readOnly, err = strconv.ParseBool(v); err != nil {
			return sel, problem.Errorf(problem.Validation, "read_only=%q is neither true nor false", v).
				WithFix("Write ?read_only=true.")
		}
	}
	switch v := q.Get("mode"); v {
	case "":
	case "search":
		sel.search = true
	default:
		return sel, problem.Errorf(problem.Validation, "there is no mode %.40q", v).WithFix("Write ?mode=search, or leave it out.")
	}
	return sel, nil
}

var errNoCall = errors.New("tool called without the gate")

// handler returns the tool as mcp-go calls it.
func (s *Server) handler(t *tool) server.ToolHandlerFunc {
	return func(ctx context.Context, _ mcpgo.CallToolRequest) (*mcpgo.CallToolResult, error) {
		c := callFrom(ctx)
		if c == nil {
			return nil, errNoCall
		}
		s.use(ctx, c, t)
		if c.fault != nil {
			return nil, c.fault // answerSaid answers
		}
		return c.said.result(), nil
	}
}

// use runs the tool, and notes in the call what it has said. An error becomes a
// result that says what was wrong and how to mend it, unless it is a fault of the
// protocol; a panic is the server's fault, of which the caller learns no more than
// that.
func (s *Server) use(ctx context.Context, c *call, t *tool) {
	c.tool = t
	a, err := s.run(ctx, c, t)
	if err != nil {
		c.fault = err
		return
	}
	c.said, c.outcome = &a, a.outcome
}

// run runs the tool. Its error is a fault, or that the credential has ended while it
// waited, of which the client is told as of any other request.
func (s *Server) run(ctx context.Context, c *call, t *tool) (answer, error) {
	a, err := s.try(ctx, c, t)
	if _, ok := errors.AsType[*fault](err); ok || problem.Is(err, problem.Unauthorized) || problem.Is(err, problem.PlanRequired) {
		return a, err
	}
	if err != nil {
		a = errorAnswer(ctx, err)
	}
	if a.ask != nil || a.task != nil {
		return a, nil // which have no room for a trailer: what has ended is told with another answer
	}
	if err := s.trail(ctx, c, &a); err != nil {
		slog.WarnContext(ctx, "a tool's answer does not say how earlier requests stand", "err", err)
	}
	return a, nil
}

func (s *Server) try(ctx context.Context, c *call, t *tool) (a answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(t.name, p)
		}
	}()
	return t.run(ctx, c)
}

// act runs an action's tool: what was sent, byte for byte, goes to the gate, and
// the outcome comes back.
func (s *Server) act(ctx context.Context, c *call, t *tool) (answer, error) {
	if c.state != nil {
		a, err := s.answered(ctx, c)
		if err != nil {
			return answer{}, err
		}
		return s.waiting(ctx, c, a)
	}
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
	switch {
	case out.DryRun != nil:
		return tried(out.DryRun)
	case out.Approval != nil:
		return s.waiting(ctx, c, *out.Approval)
	}
	return resultAnswer(t, out.Result), nil
}

// waiting answers a call that has become an approval, in as many forms as the
// client may take.
func (s *Server) waiting(ctx context.Context, c *call, p approvals.Approval) (answer, error) {
	a, err := s.approvalAnswer(p)
	if err != nil {
		return a, err
	}
	if s.Gate.Over(p) {
		return a, s.Gate.Told(context.WithoutCancel(ctx), c.grant, p)
	}
	if c.asks(p) {
		a.ask = s.ask(c, p)
	}
	if !c.client.tasks {
		return a, nil
	}
	t, err := s.taskOf(p)
	a.task = &t
	return a, err
}
