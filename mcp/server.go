package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/origin"
	"trustpager/problem"
	"trustpager/strictjson"
)

// maxBody is how long a message may be.
const maxBody = 1 << 20

// A Gate is what every action passes; see package approvals. The grant is who
// asks: an approval that is neither its own nor one that it may decide is
// [problem.NotFound].
type Gate interface {
	// Do performs the action: it refuses it, runs it, or queues it.
	Do(ctx context.Context, g access.Grant, a *catalog.Action, in approvals.Incoming) (approvals.Outcome, error)

	// Approval returns the approval as it stands.
	Approval(ctx context.Context, g access.Grant, id string) (approvals.Approval, error)

	// Wait returns the approval when it is decided and, if approved, executed,
	// or as it stands when ctx ends.
	Wait(ctx context.Context, g access.Grant, id string) (approvals.Approval, error)

	// Withdraw takes the caller's own pending request back.
	Withdraw(ctx context.Context, g access.Grant, id string) (approvals.Approval, error)

	// Over reports whether nothing more becomes of the approval by itself.
	Over(a approvals.Approval) bool

	// Own returns what the caller has asked for itself, newest first.
	Own(ctx context.Context, g access.Grant, q approvals.Query) ([]approvals.Approval, error)

	// News returns what the caller asked for and does not know the end of. What has
	// ended is told once.
	News(ctx context.Context, g access.Grant) (approvals.News, error)

	// Told notes that the caller has just been told how the approvals stand.
	Told(ctx context.Context, g access.Grant, list ...approvals.Approval) error

	// KeepTask stores the answer of a call that ran at once, for a client that comes
	// back for it.
	KeepTask(ctx context.Context, t approvals.Task) error

	// Task and Tasks return what was kept for the caller.
	Task(ctx context.Context, g access.Grant, id string) (approvals.Task, error)
	Tasks(ctx context.Context, g access.Grant, before string, limit int) ([]approvals.Task, error)

	// Answer tells whoever asked for an action how its approval stands.
	Answer(a approvals.Approval) approvals.Answer

	// AuditDenial records that g asked for what it may not do.
	AuditDenial(ctx context.Context, g access.Grant, d approvals.Denial)
}

// A Config is what a [Server] needs. Without a Limiter nothing is limited, and
// without Usage nothing is counted.
type Config struct {
	Catalog *catalog.Catalog
	Gate    Gate

	// Authenticate returns whose bearer token it is, with the rights of this
	// moment at a resource, the URL that the client has called. It fails with
	// [problem.Unauthorized], or with [problem.PlanRequired] if the workspace's
	// plan has no API access.
	Authenticate func(ctx context.Context, bearer, resource string) (access.Grant, error)

	// Watch returns a channel that receives after each change of the topic:
	// [access.RightsTopic], [approvals.Topic], or the id of an approval.
	Watch func(topic string) (changed <-chan struct{}, stop func())

	Limiter *access.Limiter
	Usage   *access.Usage

	StateKey []byte // signs what clients bring back; all nodes have the same

	BaseURL string        // of this server, as people and clients write it, without a slash at the end
	Origin  *origin.Guard // names of this server, and pages that may call it
	Version string        // of the program
	Now     func() time.Time
}

// A Server is the handler of /mcp and /mcp/{workspace}.
type Server struct {
	Config
	tools     []*tool // in the order in which they are listed
	byName    map[string]*tool
	searching []*tool // what ?mode=search offers instead
	toolsets  []string
	calls     *server.MCPServer // has the tools, and answers tools/call
	callsHTTP http.Handler      // its transport
	rest      eras              // of servers that have none, and answer all else
	tasks     taskSource
	memory    memory

	kinds     []*kind // that can be read as resources, in the order of the catalog
	prompts   []*prompt
	reads     *server.MCPServer // has the resources, prompts and completions
	readsHTTP http.Handler      // its transport

	closing context.Context
	close   context.CancelFunc

	streamsMu sync.Mutex
	streams   map[string]int // open, by credential
}

// eras are the transports of two servers that are the same but for what they say
// they can: before 2026-07-28 tasks were part of the protocol, and a change of the
// list of tools could be told only to sessions.
type eras struct{ old, modern http.Handler }

func (e eras) of(c *call) http.Handler {
	if c.client.modern {
		return e.modern
	}
	return e.old
}

// New returns a server of the catalog's actions. It fails if a tool cannot be
// listed as it should.
func New(c Config) (*Server, error) {
	s := &Server{Config: c, byName: make(map[string]*tool), streams: map[string]int{}}
	s.tasks = approvalTasks{s}
	s.closing, s.close = context.WithCancel(context.Background())

	s.calls, s.callsHTTP = s.newServer(server.WithToolFilter(s.filter))
	if err := s.addTools(s.calls); err != nil {
		return nil, fmt.Errorf("mcp: %w", err)
	}
	_, s.rest.old = s.newServer(append(s.identity(), server.WithToolCapabilities(false), server.WithTaskCapabilities(true, true, true))...)
	_, s.rest.modern = s.newServer(append(s.identity(), server.WithToolCapabilities(true), server.WithExtensions(map[string]any{tasksExtension: struct{}{}}))...)
	if err := s.addReads(); err != nil {
		return nil, fmt.Errorf("mcp: %w", err)
	}
	return s, nil
}

// newServer returns a server of mcp-go's without what this package does itself
// or does not offer: sessions, streams, tasks, list changes, validation of
// inputs and outputs, recovery from panics.
func (s *Server) newServer(opts ...server.ServerOption) (*server.MCPServer, http.Handler) {
	m := server.NewMCPServer("trustpager", s.Version, append(opts, server.WithInstructions(instructions))...)
	return m, server.NewStreamableHTTPServer(m,
		server.WithStateLess(true),
		server.WithDisableStreaming(true),
		server.WithDisableLocalhostProtection(true)) // package origin does it
}

// Close ends what waits for a person, so that the HTTP server can shut down at
// once. Each wait is answered with the approval as it stands.
func (s *Server) Close() { s.close() }

// instructions tell a model about approvals, in five sentences, and about what many
// tools have in common.
const instructions = "Some tools wait for a person's approval; their descriptions say so. " +
	"Such a call answers with the status pending_approval and executed false: nothing has happened yet, so do not retry it and do not report it as done. " +
	"Tell the user what is waiting and give them the approval's url, where a person approves, edits or rejects it. " +
	"Learn the outcome with wait_for_approval or get_approval, list what you have asked for with list_my_approvals, and take a request back with withdraw_approval. " +
	"A rejection, an expiry and a withdrawal are final: read the reason before you ask for anything similar.\n\n" +
	"Of the arguments that many tools have: reason says why, and whoever approves reads it; with dry_run true a call does nothing, and answers with the status dry_run and what it would do; " +
	"if_version refuses a change if the record has another version by now; sort takes a field, with - before it for descending; " +
	"created_after and its like take RFC 3339 times, and after means at or after; search takes words, all of which must be in a record, and beginnings match; " +
	"fields takes the names of the members to return, with commas; limit is at most 100 and 25 if absent; cursor is the next_cursor of the page before. " +
	"Telephone numbers are E.164, as +4930123456; money is in minor units, so that 1250 is 12.50; dates are YYYY-MM-DD."

// A call is one request on its way through mcp-go.
type call struct {
	message
	client    client
	bearer    string
	resource  string // the URL that was called
	grant     access.Grant
	selection selection
	tool      *tool          // that was called, nil if none
	said      *answer        // by the tool
	fault     error          // what the tool ended with instead, nil if nothing
	outcome   access.Outcome // for the counters
	failed    error          // of a resource, a prompt or a completion
}

type callKey struct{}

// callFrom returns the request that ctx belongs to, nil if it is none.
func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// ServeHTTP answers one request, in the order that the package comment gives.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{outcome: access.OutcomeOK}
	if err := s.serve(w, r, c); err != nil {
		refuse(w, r, c.id, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, c *call) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	workspace, err := workspaceOf(r.URL.Path)
	if err != nil {
		return err
	}
	if done, err := s.Origin.Check(w, r, cors); done || err != nil {
		return err
	}
	switch r.Method {
	case http.MethodPost:
	case http.MethodOptions:
		h.Set("Allow", "POST, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		h.Set("Allow", http.MethodPost)
		return problem.Errorf(problem.MethodNotAllowed, "%s is not offered here: there are no sessions, and only subscriptions/listen streams", r.Method).
			WithFix("Send each message with POST.")
	}
	if err = s.authenticate(h, r, c); err != nil {
		return err
	}
	if workspace != "" && workspace != c.grant.Workspace.ID {
		return problem.Errorf(problem.NotFound, "there is no workspace %q for this credential", workspace).
			WithFix("Use %s/mcp.", s.BaseURL)
	}
	begun := s.Now()
	body, err := strictjson.ReadBody(r, maxBody)
	if err == nil && s.Now().Sub(begun) > access.SlowBody {
		err = s.authenticate(h, r, c)
	}
	if err != nil {
		return err
	}
	if err := c.parse(body); err != nil {
		return err
	}
	c.client = clientOf(r.Header, &c.message)
	if err := s.limit(r.Context(), h, c); err != nil {
		return err
	}
	err = c.faulty(w, s.dispatch(w, r, c, body))
	if err != nil {
		c.outcome = outcomeOf(err)
	}
	s.count(c, c.outcome)
	return err
}

// dispatch answers a message that has passed the gate.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, c *call, body []byte) (err error) {
	if c.selection, err = s.selectionOf(r.URL.RawQuery); err != nil {
		return err
	}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	switch c.method {
	case methodCancelled:
		// mcp-go keys calls in flight by the JSON-RPC id alone, which another
		// caller may use as well. A client that is gone cancels by itself.
		w.WriteHeader(http.StatusAccepted)
		return nil
	case methodListen:
		return s.listen(w, r, c)
	case methodTasksGet, methodTasksCancel, methodTasksResult, methodTasksUpdate, methodTasksList:
		return s.answerTasks(w, r, c)
	case methodToolsList:
		return s.list(w, r, c, body)
	case methodResourcesList, methodTemplatesList, methodPromptsList:
		return s.listReads(w, r, c, body)
	case methodResourcesRead, methodPromptsGet, methodComplete:
		return s.read(w, r, c, body)
	case methodToolsCall:
		return s.call(w, r, c)
	}
	s.rest.of(c).ServeHTTP(w, forward(r, body))
	return nil
}

// call answers tools/call.
func (s *Server) call(w http.ResponseWriter, r *http.Request, c *call) error {
	t := s.called(c)
	body := c.stripped(t)
	if done, err := s.lacks(w, r, c, t); done || err != nil {
		return err
	}
	if c.asTask() && t != nil && (t.reads || t.action == nil) {
		return c.faultOf(http.StatusNotFound, mcpgo.METHOD_NOT_FOUND, t.name+" answers at once, and cannot be called as a task: leave task out")
	}
	if err := s.missing(c); err != nil {
		return err
	}
	c.outcome = access.OutcomeInvalid // unless the tool is found and says otherwise
	if c.state != nil || t != nil && t.waits || string(c.name) == `"call_tool"` {
		// The HTTP server's timeout is for answers that come at once. Where w
		// cannot do that, the client asks again.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(maxWait + 10*time.Second))
	}
	if c.plain(r) {
		return s.answerCall(w, r, c, t, body)
	}
	rec := &recorder{header: w.Header(), status: http.StatusOK}
	s.callsHTTP.ServeHTTP(rec, forward(r, body))
	if done, err := s.answerSaid(w, r, c); done || err != nil {
		return err
	}
	w.WriteHeader(rec.status)
	w.Write(rec.body.Bytes()) // fails only if the client has gone
	return nil
}

// missing says that the caller has no tool of the name that the call gives, and
// where to look. What is no name is left to mcp-go.
func (s *Server) missing(c *call) error {
	var name string
	if c.id == nil || json.Unmarshal(c.name, &name) != nil || name == "" {
		return nil
	}
	if t := s.byName[name]; t != nil && s.level(c.grant, c.selection, t) != access.Deny {
		return nil
	}
	fix := "tools/list has those that this credential may use at this URL."
	if c.selection.search {
		fix = "Find tools with search_tools, and call them with call_tool."
	}
	return c.faultOf(http.StatusBadRequest, mcpgo.INVALID_PARAMS, fmt.Sprintf("tool %q not found. %s", shown(name), fix))
}

// called returns the tool that the call names, nil if there is none.
func (s *Server) called(c *call) *tool {
	var name string
	json.Unmarshal(c.name, &name) // what is no string is no tool's name
	return s.byName[name]
}

// answerSaid answers a call whose tool has said something that mcp-go cannot: a
// fault, a task, a question to the user.
func (s *Server) answerSaid(w http.ResponseWriter, r *http.Request, c *call) (done bool, err error) {
	switch {
	case c.id == nil:
		return false, nil
	case c.fault != nil:
		if problem.Is(c.fault, problem.Unauthorized) {
			w.Header().Set("WWW-Authenticate", oauth.Challenge(s.BaseURL, r.URL.Path, true))
		}
		return true, c.fault
	case c.said == nil:
		return false, nil
	case c.asTask() && !c.said.once:
		t, err := s.becomeTask(r.Context(), c)
		if err != nil { // it is done, so its answer is better than an error
			if !problem.Is(err, problem.QueueFull) {
				slog.WarnContext(r.Context(), "a call became no task", "err", err)
			}
			return false, nil
		}
		c.answerTask(w, t)
		return true, nil
	case c.said.ask != nil:
		b := append(append([]byte(`{"jsonrpc":"2.0","id":`), c.id...), `,"result":{`...)
		w.Header().Set("Content-Type", "application/json")
		w.Write(append(append(b, c.said.ask...), "}}\n"...)) // fails only if the client has gone
		return true, nil
	case c.said.task != nil && c.client.modern:
		c.answerTask(w, *c.said.task)
		return true, nil
	}
	return false, nil
}

// plain reports whether the call is of a protocol version before 2026-07-28,
// of which HTTP has nothing more to say than the gate has checked.
func (c *call) plain(r *http.Request) bool {
	v := r.Header.Get("Mcp-Protocol-Version")
	return (v == "" || mcpgo.IsValidProtocolVersion(v) && !mcpgo.IsModernProtocol(v)) &&
		!bytes.Contains(c.meta, []byte("modelcontextprotocol")) && !bytes.Contains(c.meta, []byte(`\`))
}

// answerCall answers a plain tools/call. Of a tool that the caller may use, mcp-go
// would do nothing but call it, and encode three times over what it says: the gate
// does both itself, which halves the cost. All else mcp-go answers, though without
// its HTTP transport, which makes a session, two queues and a goroutine for each
// message.
func (s *Server) answerCall(w http.ResponseWriter, r *http.Request, c *call, t *tool, body []byte) error {
	var out []byte
	if t != nil && c.id != nil && (c.meta == nil || c.meta[0] == '{') && s.level(c.grant, c.selection, t) != access.Deny {
		s.use(r.Context(), c, t)
		if done, err := s.answerSaid(w, r, c); done || err != nil {
			return err
		}
		out = c.encode()
	} else {
		response := s.calls.HandleMessage(r.Context(), body)
		if response == nil { // a notification, which calls nothing
			w.WriteHeader(http.StatusAccepted)
			return nil
		}
		var err error
		if out, err = json.Marshal(response); err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(out) // fails only if the client has gone
	return nil
}

// encode returns the response that carries what the tool said.
func (c *call) encode() []byte {
	b := make([]byte, 0, 2*len(c.said.structured)+len(c.said.text)+160)
	b = append(append(b, `{"jsonrpc":"2.0","id":`...), c.id...)
	return append(c.said.appendResult(append(b, `,"result":`...), ""), "}\n"...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	if out, err := jsontext.AppendQuote(b, s); err == nil {
		return out
	}
	quoted, _ := json.Marshal(s) // cannot fail: what is no UTF-8 it replaces
	return append(b, quoted...)
}

// forward returns r as mcp-go shall see it: with the body that the gate has
// read, and without what belongs to sessions.
func forward(r *http.Request, body []byte) *http.Request {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	if r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Mcp-Session-Id") != "" {
		r.Header = r.Header.Clone()
		r.Header.Set("Content-Type", "application/json")
		r.Header.Del("Mcp-Session-Id")
	}
	return r
}

// workspaceOf returns the workspace that the path names, "" if it names none.
func workspaceOf(path string) (string, error) {
	if path == "/mcp" {
		return "", nil
	}
	id, ok := strings.CutPrefix(path, "/mcp/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", problem.Errorf(problem.NotFound, "there is nothing at %q", path).WithFix("Use /mcp.")
	}
	return id, nil
}

// cors says what web pages may send, with the headers that the protocol and its
// authorization use.
var cors = origin.CORS{
	Methods: http.MethodPost,
	Headers: "Authorization, Content-Type, Accept, Mcp-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID",
	Expose:  "WWW-Authenticate, Mcp-Session-Id, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset",
}

// authenticate finds the grant of the bearer token in the Authorization
// header. Nothing else is looked at: a token in a URL ends up in logs.
func (s *Server) authenticate(h http.Header, r *http.Request, c *call) error {
	values := r.Header.Values("Authorization")
	token, err := access.BearerToken(strings.Join(values, ", ")) // two of them are none
	if err != nil {
		h.Set("WWW-Authenticate", oauth.Challenge(s.BaseURL, r.URL.Path, len(values) > 0))
		return err
	}
	c.bearer, c.resource = token, s.BaseURL+r.URL.Path
	c.grant, err = s.Authenticate(r.Context(), token, c.resource)
	if problem.Is(err, problem.Unauthorized) {
		h.Set("WWW-Authenticate", oauth.Challenge(s.BaseURL, r.URL.Path, true))
	}
	return err
}

// again finds the grant anew, for a call that has waited. The client may have gone.
func (s *Server) again(ctx context.Context, c *call) error {
	g, err := s.Authenticate(context.WithoutCancel(ctx), c.bearer, c.resource)
	if err == nil {
		c.grant = g
	}
	return err
}

// limit counts the request against the credential's limits, and tells the
// client what is left.
func (s *Server) limit(ctx context.Context, h http.Header, c *call) error {
	if s.Limiter == nil {
		return nil
	}
	quota, err := s.Limiter.Allow(ctx, c.grant)
	quota.Header(h)
	switch {
	case problem.Is(err, problem.RateLimited):
		s.count(c, access.OutcomeLimited)
	case err != nil:
		s.count(c, access.OutcomeFailed)
	}
	return err
}

// count notes the request and how it ended.
func (s *Server) count(c *call, o access.Outcome) {
	if s.Usage != nil {
		s.Usage.Add(c.grant, c.action(), o)
	}
}

// action returns what the request asks for, in words of ours only: what
// callers make up must not fill the counters.
func (c *call) action() string {
	if c.tool != nil {
		return c.tool.name
	}
	switch c.method {
	case "initialize", "ping", "server/discover", methodToolsList, methodToolsCall, methodListen,
		methodTasksGet, methodTasksCancel, methodTasksResult, methodTasksUpdate, methodTasksList,
		methodResourcesList, methodTemplatesList, methodResourcesRead, methodPromptsList, methodPromptsGet, methodComplete:
		return c.method
	}
	return "mcp/other"
}

// outcomeOf returns how a request that ended with err is counted.
func outcomeOf(err error) access.Outcome {
	if err == nil {
		return access.OutcomeOK
	}
	if _, ok := errors.AsType[*fault](err); ok {
		return access.OutcomeInvalid
	}
	e := problem.Of(err)
	switch {
	case e.Kind == problem.InsufficientScope:
		return access.OutcomeDenied
	case e.Kind == problem.RateLimited, e.Kind == problem.QueueFull:
		return access.OutcomeLimited
	case e.Status() >= http.StatusInternalServerError:
		return access.OutcomeFailed
	}
	return access.OutcomeInvalid
}

// refuse answers with err as a JSON-RPC error.
func refuse(w http.ResponseWriter, r *http.Request, id json.RawMessage, err error) {
	body := refusalOf(r.Context(), id, err)
	e := problem.Of(err)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(e.Status())
	w.Write(body) // fails only if the client has gone
}

// refusalOf returns err as a JSON-RPC error, and reports it if it is the server's.
func refusalOf(ctx context.Context, id json.RawMessage, err error) []byte {
	e := problem.Report(ctx, err)
	return encodeError(id, e.Code(), withFix(e), e)
}

// withFix returns what the error says to who reads only its message.
func withFix(e *problem.Error) string {
	if e.Fix == "" {
		return e.Message
	}
	return e.Message + ". " + e.Fix
}

// encodeError returns a JSON-RPC error. data is nil, or what can be encoded.
func encodeError(id json.RawMessage, code int, message string, data any) []byte {
	if id == nil {
		id = json.RawMessage("null")
	}
	type rpcError struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    any    `json:"data,omitempty"`
	}
	body, _ := json.Marshal(struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpcError        `json:"error"`
	}{"2.0", id, rpcError{code, message, data}}) // cannot fail: id is checked JSON
	return body
}
