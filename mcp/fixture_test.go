package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/origin"
	"trustpager/problem"
	"trustpager/typeid"
)

// A fixture is a server that has, behind the gate, what the official conformance
// suite calls: its tools, resources, prompts and tasks in place of a catalog.
type fixture struct {
	*Server
	tasks    *fixtureTasks
	topics   topics
	narrowed atomic.Bool // the credential has lost a right
}

// fixtureToken is the credential of the fixture.
const fixtureToken = "fixture"

// newFixture returns the URL of a fixture of its own.
func newFixture(t testing.TB) string {
	t.Helper()
	f := &fixture{tasks: &fixtureTasks{byID: map[string]*fixtureTask{}}}
	f.tasks.changed = f.topics.touch
	h := httptest.NewUnstartedServer(nil)
	base := "http://" + h.Listener.Addr().String()
	names, err := origin.New(base, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Server, err = New(Config{
		Catalog: &catalog.Catalog{}, Gate: quiet{}, Authenticate: f.authenticate, Watch: f.topics.watch, Limiter: &access.Limiter{Now: time.Now},
		StateKey: []byte("key"), BaseURL: base, Origin: names, Version: "test", Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Server.tasks = f.tasks
	f.mount(t)
	h.Config.Handler = f.Server
	h.Start()
	t.Cleanup(h.Close)
	t.Cleanup(f.Close)
	return base
}

func (f *fixture) authenticate(_ context.Context, bearer, _ string) (access.Grant, error) {
	if bearer != fixtureToken {
		return access.Grant{}, problem.Errorf(problem.Unauthorized, "there is no such token").WithFix("Send %s.", fixtureToken)
	}
	g := access.Grant{Principal: access.Principal{Kind: access.KindKey, ID: "key_fixture"}, Workspace: access.Workspace{ID: "ws_fixture"},
		Limits: access.Limits{PerMinute: 1_000_000}}
	if !f.narrowed.Load() {
		g.Rights = access.FullRights
	}
	return g, nil
}

// topics tell who watches that something has changed.
type topics struct {
	mu      sync.Mutex
	watched map[string][]chan struct{}
}

func (p *topics) watch(topic string) (<-chan struct{}, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched == nil {
		p.watched = map[string][]chan struct{}{}
	}
	c := make(chan struct{}, 1)
	p.watched[topic] = append(p.watched[topic], c)
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.watched[topic] = slices.DeleteFunc(p.watched[topic], func(other chan struct{}) bool { return other == c })
	}
}

func (p *topics) touch(topic string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.watched[topic] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// mount adds what the suite calls to the same servers that the product has.
func (f *fixture) mount(t testing.TB) {
	t.Helper()
	n := len(f.tools)
	for _, d := range f.fixtures() {
		if d.schema == "" {
			d.schema = `{"type":"object"}`
		}
		form := mcpgo.NewToolWithRawSchema(d.name, "A fixture of the conformance suite.", json.RawMessage(d.schema))
		tl := &tool{name: d.name, action: d.action, run: d.run}
		tl.forms[access.Queue], tl.forms[access.Run] = form, form
		if err := f.addTool(f.calls, tl); err != nil {
			t.Fatal(err)
		}
	}
	f.Server.tools = slices.Concat(f.tools[n:], f.tools[:n])

	always := &tool{name: "always"}
	add := func(entry any, k *kind, listed *[]byte) {
		b, err := encodeEntry(entry)
		if err != nil {
			t.Fatal(err)
		}
		*listed = b
		f.kinds = append(f.kinds, k)
	}
	for _, c := range []mcpgo.ResourceContents{
		mcpgo.TextResourceContents{URI: "test://static-text", MIMEType: "text/plain", Text: "This is the content of the static text resource."},
		mcpgo.BlobResourceContents{URI: "test://static-binary", MIMEType: "image/png", Blob: pixel},
		mcpgo.TextResourceContents{URI: "test://watched-resource", MIMEType: "text/plain", Text: "It does not change."},
	} {
		uri, mime := "", ""
		switch c := c.(type) {
		case mcpgo.TextResourceContents:
			uri, mime = c.URI, c.MIMEType
		case mcpgo.BlobResourceContents:
			uri, mime = c.URI, c.MIMEType
		}
		r := mcpgo.NewResource(uri, uri, mcpgo.WithResourceDescription("A fixture."), mcpgo.WithMIMEType(mime))
		k := &kind{resource: &catalog.Resource{Name: uri}, all: always}
		add(r, k, &k.listed)
		f.reads.AddResource(r, func(context.Context, mcpgo.ReadResourceRequest) ([]mcpgo.ResourceContents, error) {
			return []mcpgo.ResourceContents{c}, nil
		})
	}
	template := mcpgo.NewResourceTemplate("test://template/{id}/data", "template", mcpgo.WithTemplateDescription("A fixture."), mcpgo.WithTemplateMIMEType(mimeJSON))
	k := &kind{resource: &catalog.Resource{Name: "template"}, one: always}
	add(template, k, &k.template)
	f.reads.AddResourceTemplate(template, func(_ context.Context, r mcpgo.ReadResourceRequest) ([]mcpgo.ResourceContents, error) {
		id, _ := r.Params.Arguments["id"].([]string)
		if len(id) != 1 {
			return nil, fmt.Errorf("%s names %v", r.Params.URI, r.Params.Arguments)
		}
		return []mcpgo.ResourceContents{mcpgo.TextResourceContents{URI: r.Params.URI, MIMEType: mimeJSON,
			Text: fmt.Sprintf(`{"id":%q,"templateTest":true,"data":"Data for ID: %s"}`, id[0], id[0])}}, nil
	})

	for _, d := range fixturePrompts {
		p := &prompt{name: d.name, description: "A fixture of the conformance suite."}
		for _, a := range d.arguments {
			p.arguments = append(p.arguments, argument{PromptArgument: mcpgo.PromptArgument{Name: a, Description: "A fixture.", Required: true}})
		}
		f.prompts = append(f.prompts, p)
		f.reads.AddPrompt(p.form(p.arguments), func(_ context.Context, r mcpgo.GetPromptRequest) (*mcpgo.GetPromptResult, error) {
			return d.get(r), nil
		})
	}
}

// pixel is a PNG of one red pixel, and silence a WAV of no samples.
const (
	pixel   = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
	silence = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
)

var fixturePrompts = []struct {
	name      string
	arguments []string
	get       func(r mcpgo.GetPromptRequest) *mcpgo.GetPromptResult
}{
	{"test_simple_prompt", nil, func(mcpgo.GetPromptRequest) *mcpgo.GetPromptResult {
		return messages(mcpgo.NewTextContent("This is a simple prompt for testing."))
	}},
	{"test_prompt_with_arguments", []string{"arg1", "arg2"}, func(r mcpgo.GetPromptRequest) *mcpgo.GetPromptResult {
		a := r.Params.Arguments
		return messages(mcpgo.NewTextContent(fmt.Sprintf("Prompt with arguments: arg1='%s', arg2='%s'", a["arg1"], a["arg2"])))
	}},
	{"test_prompt_with_embedded_resource", []string{"resourceUri"}, func(r mcpgo.GetPromptRequest) *mcpgo.GetPromptResult {
		return messages(mcpgo.NewEmbeddedResource(mcpgo.TextResourceContents{URI: r.Params.Arguments["resourceUri"], MIMEType: "text/plain",
			Text: "Embedded resource content for testing."}), mcpgo.NewTextContent("Please process the embedded resource above."))
	}},
	{"test_prompt_with_image", nil, func(mcpgo.GetPromptRequest) *mcpgo.GetPromptResult {
		return messages(mcpgo.NewImageContent(pixel, "image/png"), mcpgo.NewTextContent("Please analyze the image above."))
	}},
	{"test_input_required_result_prompt", nil, func(r mcpgo.GetPromptRequest) *mcpgo.GetPromptResult {
		said := server.ElicitationResponse(r.Params.InputResponses, "user_context")
		if said == nil || said.Action != mcpgo.ElicitationResponseActionAccept {
			return server.NewInputRequestBuilder("").Elicit("user_context", mcpgo.ElicitationParams{
				Message: "What context should the prompt use?", RequestedSchema: json.RawMessage(oneMember("context", "string")),
			}).PromptResult()
		}
		context, _ := json.Marshal(said.Content)
		return messages(mcpgo.NewTextContent("The context is " + string(context)))
	}},
}

func messages(contents ...mcpgo.Content) *mcpgo.GetPromptResult {
	r := &mcpgo.GetPromptResult{}
	for _, c := range contents {
		r.Messages = append(r.Messages, mcpgo.NewPromptMessage(mcpgo.RoleUser, c))
	}
	return r
}

// A definition is a tool of the fixture.
type definition struct {
	name   string
	schema string          // "" for no arguments
	action *catalog.Action // nil if everybody has it
	run    func(ctx context.Context, c *call) (answer, error)
}

// The tools, with the names and results that the descriptions of the suite's
// scenarios give.
func (f *fixture) fixtures() []definition {
	says := func(a answer) func(context.Context, *call) (answer, error) {
		return func(context.Context, *call) (answer, error) { return a, nil }
	}
	encoded := func(content string) func(context.Context, *call) (answer, error) {
		return says(answer{encoded: json.RawMessage(`{"content":[` + content + `]}`)})
	}
	const image = `{"type":"image","data":"` + pixel + `","mimeType":"image/png"}`
	return []definition{
		{name: "test_simple_text", run: says(answer{text: "This is a simple text response for testing."})},
		{name: "test_image_content", run: encoded(image)},
		{name: "test_audio_content", run: encoded(`{"type":"audio","data":"` + silence + `","mimeType":"audio/wav"}`)},
		{name: "test_embedded_resource", run: encoded(`{"type":"resource","resource":{"uri":"test://embedded-resource","mimeType":"text/plain","text":"This is an embedded resource content."}}`)},
		{name: "test_multiple_content_types", run: encoded(`{"type":"text","text":"Multiple content types test:"},` + image +
			`,{"type":"resource","resource":{"uri":"test://mixed-content-resource","mimeType":"application/json","text":"{\"test\":\"data\",\"value\":123}"}}`)},
		{name: "test_error_handling", run: func(context.Context, *call) (answer, error) {
			return answer{}, problem.Errorf(problem.Conflict, "This tool intentionally returns an error for testing").WithFix("Expect it.")
		}},
		{name: "json_schema_2020_12_tool", run: says(answer{text: "It was read."}), schema: `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
			"$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
			"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},
			"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],
			"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},"then":{"required":["phone"]},"else":{"required":["email"]},"additionalProperties":false}`},
		{name: "test_x_mcp_header", run: says(answer{text: "The header agrees."}),
			schema: `{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}`},

		// What only a session, or a stream of the server's, could do.
		{name: "test_tool_with_logging", run: func(ctx context.Context, _ *call) (answer, error) {
			for _, what := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
				f.notify(ctx, "notifications/message", map[string]any{"level": "info", "data": what})
			}
			return answer{text: "It was logged."}, nil
		}},
		{name: "test_tool_with_progress", run: func(ctx context.Context, c *call) (answer, error) {
			var meta struct{ ProgressToken any }
			if json.Unmarshal(c.meta, &meta) == nil && meta.ProgressToken != nil {
				for done := 0; done <= 100; done += 50 {
					f.notify(ctx, "notifications/progress", map[string]any{"progressToken": meta.ProgressToken, "progress": done, "total": 100})
				}
			}
			return answer{text: "It has come to its end."}, nil
		}},
		{name: "test_sampling", schema: `{"type":"object","properties":{"prompt":{"type":"string"}},"required":["prompt"]}`, run: func(ctx context.Context, c *call) (answer, error) {
			var in struct{ Prompt string }
			if err := json.Unmarshal(c.arguments, &in); err != nil {
				return answer{}, err
			}
			//lint:ignore SA1019 the suite has a scenario for it
			r, err := f.calls.RequestSampling(ctx, mcpgo.CreateMessageRequest{CreateMessageParams: mcpgo.CreateMessageParams{
				Messages: []mcpgo.SamplingMessage{{Role: mcpgo.RoleUser, Content: mcpgo.NewTextContent(in.Prompt)}}, MaxTokens: 100}})
			if err != nil {
				return answer{}, problem.Errorf(problem.Conflict, "the client cannot be asked: %v", err).WithFix("Use the protocol 2026-07-28.")
			}
			return answer{text: fmt.Sprintf("LLM response: %v", r.Content)}, nil
		}},
		{name: "test_elicitation", run: f.elicits},
		{name: "test_elicitation_sep1034_defaults", run: f.elicits},
		{name: "test_elicitation_sep1330_enums", run: f.elicits},
		{name: "test_reconnection", run: says(answer{text: "It stays connected."})},

		// What a client must be able to do, and what it is told without being asked.
		{name: "test_missing_capability", run: func(_ context.Context, c *call) (answer, error) {
			if _, ok := capabilities(c)["sampling"]; !ok {
				return answer{}, &fault{status: http.StatusBadRequest, code: mcpgo.MISSING_REQUIRED_CLIENT_CAPABILITY, message: "this needs sampling",
					data: map[string]any{"requiredCapabilities": map[string]any{"sampling": struct{}{}}}}
			}
			return answer{text: "The client samples."}, nil
		}},
		{name: "test_streaming_elicitation", run: asking(asks("user_name"))},
		{name: "test_logging_tool", run: func(ctx context.Context, _ *call) (answer, error) {
			f.notify(ctx, "notifications/message", map[string]any{"level": "info", "data": "It is called."})
			return answer{text: "It was logged."}, nil
		}},
		{name: "test_trigger_tool_change", run: func(context.Context, *call) (answer, error) {
			f.narrowed.Store(!f.narrowed.Load())
			f.topics.touch(access.RightsTopic("ws_fixture"))
			return answer{text: "The rights have changed."}, nil
		}},
		{name: "test_right", action: &catalog.Action{Name: "test_right", Resource: "contacts", Verb: access.Read}, run: says(answer{text: "It is there."})},

		// Questions to the user, or to the client.
		{name: "test_input_required_result_elicitation", run: asking(asks("user_name"))},
		{name: "test_input_required_result_sampling", run: asking(asks("capital_question"))},
		{name: "test_input_required_result_list_roots", run: asking(asks("client_roots"))},
		{name: "test_input_required_result_multiple_inputs", run: f.stating(asks("user_name", "greeting", "client_roots"))},
		{name: "test_input_required_result_request_state", run: f.stating(asks("confirm"))},
		{name: "test_input_required_result_tampered_state", run: f.stating(asks("confirm"))},
		{name: "test_input_required_result_multi_round", run: f.stating(asks("step1"), asks("step2"))},
		{name: "test_input_required_result_capabilities", run: func(ctx context.Context, c *call) (answer, error) {
			able := capabilities(c)
			var names []string
			for name, capability := range map[string]string{"user_name": "elicitation", "greeting": "sampling", "client_roots": "roots"} {
				if _, ok := able[capability]; ok {
					names = append(names, name)
				}
			}
			return asking(asks(names...))(ctx, c)
		}},

		// Tasks.
		{name: "greet", schema: `{"type":"object","properties":{"name":{"type":"string"}}}`, run: func(_ context.Context, c *call) (answer, error) {
			var in struct{ Name string }
			err := json.Unmarshal(c.arguments, &in)
			return answer{text: "Hello, " + in.Name + "!"}, err
		}},
		{name: "slow_compute", schema: `{"type":"object","properties":{"seconds":{"type":"number"},"label":{"type":"string"}}}`, run: func(ctx context.Context, c *call) (answer, error) {
			var in struct {
				Seconds float64
				Label   string
			}
			if err := json.Unmarshal(c.arguments, &in); err != nil {
				return answer{}, err
			}
			t := f.tasks.add(c, nil)
			f.tasks.end(t.id, time.Duration(in.Seconds*float64(time.Second)), task{status: taskCompleted, result: &answer{text: "Computed " + in.Label}})
			if c.client.tasks {
				return answer{task: &t}, nil
			}
			t, err := f.tasks.wait(ctx, c.grant, t.id)
			if err != nil || t.result == nil {
				return answer{}, err
			}
			return *t.result, nil
		}},
		{name: "failing_job", run: f.jobs(task{status: taskCompleted, result: &answer{text: "The job has failed.", failed: true}})},
		{name: "protocol_error_job", run: f.jobs(task{status: taskFailed, fault: &fault{code: mcpgo.INTERNAL_ERROR, message: "The job has crashed."}})},
		{name: "confirm_delete", schema: `{"type":"object","properties":{"filename":{"type":"string"}}}`, run: f.pending(asks("confirm"))},
		{name: "multi_input", run: f.pending(asks("user_name", "confirm"))},
		{name: "test_tool_with_task", run: func(ctx context.Context, c *call) (answer, error) {
			if !c.client.tasks {
				return answer{}, missingTasks()
			}
			a, err := asking(asks("user_name"))(ctx, c)
			if err != nil || a.ask != nil {
				return a, err
			}
			t := f.tasks.add(c, nil)
			f.tasks.end(t.id, 0, task{status: taskCompleted, result: &a})
			return answer{task: &t}, nil
		}},
	}
}

// notify has mcp-go tell the client something, as tools of mcp-go's do.
func (f *fixture) notify(ctx context.Context, method string, params map[string]any) {
	_ = f.calls.SendNotificationToClient(ctx, method, params) // to whom it may reach
}

// elicits has mcp-go ask the client of before 2026-07-28, as tools of mcp-go's do.
func (f *fixture) elicits(ctx context.Context, _ *call) (answer, error) {
	r, err := f.calls.RequestElicitation(ctx, mcpgo.ElicitationRequest{Params: mcpgo.ElicitationParams{Message: "Who are you?", RequestedSchema: json.RawMessage(oneMember("username", "string"))}})
	if err != nil {
		return answer{}, problem.Errorf(problem.Conflict, "the client cannot be asked: %v", err).WithFix("Use the protocol 2026-07-28.")
	}
	return answer{text: fmt.Sprintf("User response: %v", r)}, nil
}

// capabilities returns what a request of 2026-07-28 says that its client can do.
func capabilities(c *call) map[string]json.RawMessage {
	var meta struct {
		Capabilities map[string]json.RawMessage `json:"io.modelcontextprotocol/clientCapabilities"`
	}
	_ = json.Unmarshal(c.meta, &meta) // what cannot be read is missing
	return meta.Capabilities
}

// oneMember returns the schema of an object with one member.
func oneMember(name, kind string) string {
	return fmt.Sprintf(`{"type":"object","properties":{%q:{"type":%q}},"required":[%q]}`, name, kind, name)
}

// requests are what clients are asked, by their keys.
type requests map[string]json.RawMessage

// asks returns the requests of the keys, as the suite wants them.
func asks(keys ...string) requests {
	elicit := func(message, member, kind string) string {
		return fmt.Sprintf(`{"method":"elicitation/create","params":{"mode":"form","message":%q,"requestedSchema":%s}}`, message, oneMember(member, kind))
	}
	sample := func(text string) string {
		return fmt.Sprintf(`{"method":"sampling/createMessage","params":{"messages":[{"role":"user","content":{"type":"text","text":%q}}],"maxTokens":100}}`, text)
	}
	all := map[string]string{
		"user_name":        elicit("What is your name?", "name", "string"),
		"confirm":          elicit("Please confirm", "ok", "boolean"),
		"step1":            elicit("Step 1: What is your name?", "name", "string"),
		"step2":            elicit("Step 2: What is your favorite color?", "color", "string"),
		"capital_question": sample("What is the capital of France?"),
		"greeting":         sample("Generate a greeting"),
		"client_roots":     `{"method":"roots/list","params":{}}`,
	}
	r := requests{}
	for _, key := range keys {
		r[key] = json.RawMessage(all[key])
	}
	return r
}

func (r requests) encode() json.RawMessage {
	b, _ := json.Marshal(r) // cannot fail: it is JSON
	return b
}

// answered reports whether all that was asked has an object for its answer.
func (r requests) answered(sent json.RawMessage) bool {
	var responses map[string]json.RawMessage
	_ = json.Unmarshal(sent, &responses) // what cannot be read is no answer
	for key := range r {
		if b := responses[key]; len(b) == 0 || b[0] != '{' {
			return false
		}
	}
	return true
}

// asking returns a tool that asks before it answers, and keeps nothing between.
func asking(r requests) func(context.Context, *call) (answer, error) {
	return func(_ context.Context, c *call) (answer, error) {
		if c.responses == nil || !r.answered(c.responses) {
			return answer{ask: fmt.Appendf(nil, `"resultType":"input_required","inputRequests":%s`, r.encode())}, nil
		}
		return answer{text: "The answers are " + string(c.responses)}, nil
	}
}

// stating returns a tool that asks in rounds, and has the client keep where it is.
func (f *fixture) stating(rounds ...requests) func(context.Context, *call) (answer, error) {
	return func(_ context.Context, c *call) (answer, error) {
		round := 0
		if c.state != nil {
			id, err := f.stated(c)
			if err != nil {
				return answer{}, err
			}
			if _, err := fmt.Sscanf(id, "round%d", &round); err != nil {
				return answer{}, err
			}
			if rounds[round].answered(c.responses) {
				round++
			}
		}
		if round == len(rounds) {
			return answer{text: "state-ok"}, nil
		}
		b := fmt.Appendf(nil, `"resultType":"input_required","inputRequests":%s,"requestState":`, rounds[round].encode())
		return answer{ask: appendString(b, f.signState(c, fmt.Sprintf("round%d", round), f.Now().Add(stateTime)))}, nil
	}
}

// jobs returns a tool that is nothing but a task, which ends after a second.
func (f *fixture) jobs(end task) func(context.Context, *call) (answer, error) {
	return func(_ context.Context, c *call) (answer, error) {
		if !c.client.tasks {
			return answer{}, missingTasks()
		}
		t := f.tasks.add(c, nil)
		f.tasks.end(t.id, time.Second, end)
		return answer{task: &t}, nil
	}
}

// pending returns a tool whose task asks the client.
func (f *fixture) pending(r requests) func(context.Context, *call) (answer, error) {
	return func(_ context.Context, c *call) (answer, error) {
		if !c.client.tasks {
			return answer{}, missingTasks()
		}
		t := f.tasks.add(c, r)
		return answer{task: &t}, nil
	}
}

// fixtureTasks keeps tasks in memory.
type fixtureTasks struct {
	changed func(id string)

	mu   sync.Mutex
	byID map[string]*fixtureTask
}

type fixtureTask struct {
	task
	of      string // credential
	pending requests
	done    chan struct{}
}

// add makes a task, which works or asks.
func (s *fixtureTasks) add(c *call, r requests) task {
	now := time.Now()
	t := &fixtureTask{task: task{id: typeid.NewID("tsk"), status: taskWorking, created: now, updated: now, ttl: time.Hour},
		of: c.grant.Principal.ID, pending: maps.Clone(r), done: make(chan struct{})}
	if r != nil {
		t.status, t.requests = taskInput, r.encode()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[t.id] = t
	return t.task
}

// end ends the task after the time, unless it is over by then.
func (s *fixtureTasks) end(id string, after time.Duration, as task) {
	time.AfterFunc(after, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finish(s.byID[id], as)
	})
}

// finish is called with the lock.
func (s *fixtureTasks) finish(t *fixtureTask, as task) {
	if t.over() {
		return
	}
	t.status, t.result, t.fault, t.updated, t.requests = as.status, as.result, as.fault, time.Now(), nil
	close(t.done)
	s.changed(t.id)
}

// find is called with the lock.
func (s *fixtureTasks) find(g access.Grant, id string) (*fixtureTask, error) {
	t := s.byID[id]
	if t == nil || t.of != g.Principal.ID {
		return nil, problem.Errorf(problem.NotFound, "there is no such task")
	}
	return t, nil
}

func (s *fixtureTasks) get(_ context.Context, g access.Grant, id string) (task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(g, id)
	if err != nil {
		return task{}, err
	}
	return t.task, nil
}

func (s *fixtureTasks) wait(ctx context.Context, g access.Grant, id string) (task, error) {
	s.mu.Lock()
	t, err := s.find(g, id)
	s.mu.Unlock()
	if err != nil {
		return task{}, err
	}
	select {
	case <-ctx.Done():
	case <-t.done:
	}
	return s.get(ctx, g, id)
}

func (s *fixtureTasks) cancel(_ context.Context, g access.Grant, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(g, id)
	if err != nil {
		return err
	}
	if t.over() {
		return problem.Errorf(problem.Conflict, "the task is over: it is %s", t.status)
	}
	s.finish(t, task{status: taskCancelled})
	return nil
}

func (s *fixtureTasks) update(_ context.Context, g access.Grant, id string, responses map[string]json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(g, id)
	if err != nil || t.status != taskInput {
		return err
	}
	for key := range responses {
		delete(t.pending, key)
	}
	t.requests = t.pending.encode()
	if len(t.pending) == 0 {
		s.finish(t, task{status: taskCompleted, result: &answer{text: "It was answered."}})
	}
	return nil
}

func (s *fixtureTasks) list(_ context.Context, g access.Grant, _ string, limit int) ([]task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []task
	for _, t := range s.byID {
		if t.of == g.Principal.ID && len(list) < limit {
			list = append(list, t.task)
		}
	}
	return list, nil
}
