package integrationstest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"trustpager/integrations"
)

// The key and the model of the model providers.
const (
	ModelKey  = "sk-test-0123456789abcdefghijklmnopqrstuvwxyz"
	ModelName = "test-model-1"
)

// A models is what the model providers have in common.
type models struct {
	*peer
	mu       sync.Mutex
	text     string
	in, out  int64
	asked    []Asked
	requests chan Asked
}

// An Asked is what a model was asked.
type Asked struct {
	Key       string // Idempotency-Key
	Model     string
	System    string
	User      string
	MaxTokens int64
	Raw       string // the body
}

// Says makes the model answer with the text, and count the tokens.
func (m *models) Says(text string, input, output int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text, m.in, m.out = text, input, output
}

// Next waits for the next request and returns it.
func (m *models) Next() Asked {
	m.t.Helper()
	select {
	case a := <-m.requests:
		return a
	case <-m.t.Context().Done():
		m.t.Fatal("nothing was asked")
		return Asked{}
	}
}

// Asked returns all that was asked and taken.
func (m *models) Asked() []Asked {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

func (m *models) keep(a Asked) (text string, in, out int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, a)
	m.requests <- a
	return m.text, m.in, m.out
}

func newModels() models {
	return models{peer: new(peer), text: "Hello.", in: 12, out: 3, requests: make(chan Asked, 1000)}
}

// An Anthropic is the Messages API of Anthropic. Its methods may be called
// concurrently.
type Anthropic struct{ models }

// NewAnthropic starts a provider for as long as the test runs.
func NewAnthropic(t testing.TB) *Anthropic {
	t.Helper()
	s := &Anthropic{newModels()}
	newPeer(t, s.peer, s.refuse, func(*http.Request, string) bool { return true }, s.answer)
	return s
}

// Account returns a good account.
func (s *Anthropic) Account() integrations.Anthropic {
	return integrations.Anthropic{BaseURL: s.URL, APIKey: ModelKey, Model: ModelName, Network: s.Network()}
}

func (s *Anthropic) refuse(w http.ResponseWriter, f Fault) bool {
	say := func(status int, kind, message string) {
		document(w, status, `{"type": "error", "error": {"type": %q, "message": %q}, "request_id": "req_1"}`, kind, message)
	}
	switch f {
	case Broken:
		say(500, "api_error", "Internal server error")
	case BadGateway:
		http.Error(w, "bad gateway", http.StatusBadGateway)
	case Overloaded:
		say(529, "overloaded_error", "Overloaded")
	case BadLogin:
		say(401, "authentication_error", "invalid x-api-key")
	case TooMany:
		w.Header().Set("Retry-After", "7")
		say(429, "rate_limit_error", "This request would exceed your rate limit")
	case NoQuota:
		say(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")
	case Invalid:
		say(400, "invalid_request_error", "max_tokens: too many")
	case RepeatsKey:
		say(400, "invalid_request_error", "bad key "+ModelKey)
	default:
		return false
	}
	return true
}

func (s *Anthropic) answer(w http.ResponseWriter, r *http.Request, body string) {
	switch {
	case r.Header.Get("X-Api-Key") != ModelKey, r.Header.Get("Authorization") != "":
		s.refuse(w, BadLogin)
		return
	case r.Header.Get("Anthropic-Version") != "2023-06-01":
		s.wrong(w, "anthropic-version is %q", r.Header.Get("Anthropic-Version"))
		return
	}
	if r.Method == http.MethodGet && r.URL.Path == "/v1/models" {
		document(w, http.StatusOK, `{"data": [{"type": "model", "id": %q, "display_name": "Test", "created_at": "2025-01-01T00:00:00Z"}], "has_more": false, "first_id": %q, "last_id": %q}`, ModelName, ModelName, ModelName)
		return
	}
	var q struct {
		Model     string
		MaxTokens int64 `json:"max_tokens"`
		System    []struct{ Type, Text string }
		Messages  []struct {
			Role    string
			Content []struct{ Type, Text string }
		}
		Tools  []any
		Stream bool
	}
	if s.isPost(w, r, "/v1/messages", body, &q) {
		return
	}
	if len(q.Messages) != 1 || q.Messages[0].Role != "user" || len(q.Messages[0].Content) != 1 || q.Messages[0].Content[0].Type != "text" || q.MaxTokens < 1 || len(q.Tools) > 0 || q.Stream {
		s.wrong(w, "the request is not one message of text without tools: %s", body)
		return
	}
	a := Asked{Key: r.Header.Get("Idempotency-Key"), Model: q.Model, User: q.Messages[0].Content[0].Text, MaxTokens: q.MaxTokens, Raw: body}
	for _, t := range q.System {
		a.System += t.Text
	}
	text, in, out := s.keep(a)
	stop := "end_turn"
	switch s.now() {
	case Refuses:
		stop, text = "refusal", ""
	case EndsByLimit:
		stop = "max_tokens"
	}
	quoted, _ := json.Marshal(text)
	document(w, http.StatusOK, `{"id": "msg_1", "type": "message", "role": "assistant", "model": %q, "content": [{"type": "text", "text": %s}], "stop_reason": %q, "stop_sequence": null, "usage": {"input_tokens": %d, "output_tokens": %d, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}}`,
		ModelName, quoted, stop, in, out)
}

// isPost reads the request into q, or answers it if it is not what it ought to
// be, and reports whether it has.
func (m *models) isPost(w http.ResponseWriter, r *http.Request, path, body string, q any) (answered bool) {
	switch {
	case r.Method != http.MethodPost || r.URL.Path != path:
		m.wrong(w, "%s %s is no request of the API", r.Method, r.URL.Path)
	case !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json"):
		m.wrong(w, "the content type is %q", r.Header.Get("Content-Type"))
	case json.Unmarshal([]byte(body), q) != nil:
		m.wrong(w, "the body is not what the API takes: %s", body)
	default:
		return false
	}
	return true
}

// An OpenAI is the chat completions of OpenAI, under the path /v1. Its methods
// may be called concurrently.
type OpenAI struct{ models }

// NewOpenAI starts a provider for as long as the test runs.
func NewOpenAI(t testing.TB) *OpenAI {
	t.Helper()
	s := &OpenAI{newModels()}
	newPeer(t, s.peer, s.refuse, func(*http.Request, string) bool { return true }, s.answer)
	return s
}

// Account returns a good account.
func (s *OpenAI) Account() integrations.OpenAI {
	return integrations.OpenAI{BaseURL: s.URL + "/v1", APIKey: ModelKey, Model: ModelName, Network: s.Network()}
}

func (s *OpenAI) refuse(w http.ResponseWriter, f Fault) bool {
	say := func(status int, kind, code, message string) {
		document(w, status, `{"error": {"message": %q, "type": %q, "param": null, "code": %q}}`, message, kind, code)
	}
	switch f {
	case Broken:
		say(500, "server_error", "", "The server had an error")
	case BadGateway:
		http.Error(w, "bad gateway", http.StatusBadGateway)
	case Overloaded:
		say(503, "server_error", "", "The engine is currently overloaded")
	case BadLogin:
		say(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided")
	case TooMany:
		w.Header().Set("Retry-After", "7")
		say(429, "requests", "rate_limit_exceeded", "Rate limit reached")
	case NoQuota:
		say(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota")
	case Invalid:
		say(400, "invalid_request_error", "context_length_exceeded", "too long")
	case RepeatsKey:
		say(400, "invalid_request_error", "", "bad key "+ModelKey)
	default:
		return false
	}
	return true
}

func (s *OpenAI) answer(w http.ResponseWriter, r *http.Request, body string) {
	if r.Header.Get("Authorization") != "Bearer "+ModelKey || r.Header.Get("Openai-Organization") != "" {
		s.refuse(w, BadLogin)
		return
	}
	if r.Method == http.MethodGet && r.URL.Path == "/v1/models" {
		document(w, http.StatusOK, `{"object": "list", "data": [{"id": %q, "object": "model", "created": 1700000000, "owned_by": "test"}]}`, ModelName)
		return
	}
	var q struct {
		Model     string
		MaxTokens int64 `json:"max_tokens"`
		Newer     int64 `json:"max_completion_tokens"`
		Messages  []struct{ Role, Content string }
		Tools     []any
		Stream    bool
	}
	if s.isPost(w, r, "/v1/chat/completions", body, &q) {
		return
	}
	a := Asked{Key: r.Header.Get("Idempotency-Key"), Model: q.Model, MaxTokens: max(q.MaxTokens, q.Newer), Raw: body}
	for i, m := range q.Messages {
		switch {
		case m.Role == "system" && i == 0:
			a.System = m.Content
		case m.Role == "user" && i == len(q.Messages)-1:
			a.User = m.Content
		default:
			s.wrong(w, "message %d is of %q", i, m.Role)
			return
		}
	}
	if a.User == "" || a.MaxTokens < 1 || len(q.Tools) > 0 || q.Stream {
		s.wrong(w, "the request is not one message without tools: %s", body)
		return
	}
	text, in, out := s.keep(a)
	finish, refusal := "stop", []byte("null")
	switch s.now() {
	case Refuses:
		text, refusal = "", []byte(`"I cannot help with that."`)
	case EndsByLimit:
		finish = "length"
	}
	quoted, _ := json.Marshal(text)
	document(w, http.StatusOK, `{"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": %q, "choices": [{"index": 0, "message": {"role": "assistant", "content": %s, "refusal": %s}, "logprobs": null, "finish_reason": %q}], "usage": {"prompt_tokens": %d, "completion_tokens": %d, "total_tokens": %d}}`,
		ModelName, quoted, refusal, finish, in, out, in+out)
}
