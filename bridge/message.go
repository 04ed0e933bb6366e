package bridge

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// The methods that the bridge itself knows.
const (
	methodCancelled = "notifications/cancelled"
	methodListen    = "subscriptions/listen"
)

// JSON-RPC error codes.
const (
	codeParse          = -32700
	codeInvalidRequest = -32600
	codeInternal       = -32603
	codeUnauthorized   = -32001
	codeForbidden      = -32003
	codeLimited        = -32029
)

// versionKey is the member of _meta that names the protocol version of one
// request, since modern, which also wants more headers.
const (
	versionKey = "io.modelcontextprotocol/protocolVersion"
	modern     = "2026-07-28"
)

// A message is what the bridge reads of a JSON-RPC message.
type message struct {
	id      json.RawMessage // nil if there is none, or null
	method  string          // "" of an answer
	version string          // that _meta names
	name    string          // of the tool or prompt, or the URI of the resource
	cancels json.RawMessage // the id of the request that it cancels
	result  json.RawMessage
	failure json.RawMessage // the member error
}

// asks reports whether the message is a request, which wants an answer.
func (m message) asks() bool { return m.method != "" && m.id != nil }

// answers reports whether the message is the answer to the request.
func (m message) answers(request message) bool {
	return request.asks() && m.method == "" && bytes.Equal(m.id, request.id) && (m.result != nil || m.failure != nil)
}

// parse reads a message. Names are compared byte for byte; the rest is left to
// the server. If it fails, an id that it has found holds.
func parse(b []byte) (m message, err error) {
	var envelope, params, meta map[string]json.RawMessage
	if err := json.Unmarshal(b, &envelope); err != nil {
		if _, ok := errors.AsType[*json.SyntaxError](err); ok {
			return m, fmt.Errorf("this is not JSON: %w. Send one JSON-RPC message on each line, without line breaks in it", err)
		}
		return m, errors.New("this is not a JSON-RPC message: expected an object on each line; batches are not part of the protocol any more")
	}
	m.id, m.result, m.failure = identifier(envelope["id"]), present(envelope["result"]), present(envelope["error"])
	if raw, ok := envelope["method"]; ok && (json.Unmarshal(raw, &m.method) != nil || m.method == "") {
		return m, errors.New(`the message's method is not a name: expected one such as "tools/call"`)
	}
	if m.method == "" && m.result == nil && m.failure == nil {
		return m, errors.New("the message has neither a method nor a result or an error: expected JSON-RPC 2.0")
	}
	if json.Unmarshal(envelope["params"], &params) != nil {
		return m, nil
	}
	text := func(raw json.RawMessage) (s string) {
		json.Unmarshal(raw, &s) // what is no text is none
		return s
	}
	if json.Unmarshal(params["_meta"], &meta) == nil {
		m.version = text(meta[versionKey])
	}
	switch m.method {
	case "tools/call", "prompts/get":
		m.name = text(params["name"])
	case "resources/read":
		m.name = text(params["uri"])
	case methodCancelled:
		m.cancels = identifier(params["requestId"])
	}
	return m, nil
}

// identifier returns an id as bytes that can be compared, nil if there is none.
func identifier(raw json.RawMessage) json.RawMessage {
	if raw = present(raw); raw == nil || raw[0] != '"' {
		return raw
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return raw
	}
	quoted, _ := json.Marshal(s) // a string
	return quoted
}

// present returns nil for null.
func present(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" || len(raw) == 0 {
		return nil
	}
	return raw
}

// headers sets what HTTP has to say of the message: the protocol version, which
// is that of the message itself or else the one that was agreed on, and with
// modern versions what it is about.
func (m message) headers(h http.Header, agreed *string) {
	version := m.version
	if version == "" && agreed != nil && m.method != "initialize" {
		version = *agreed
	}
	if version == "" {
		return
	}
	h.Set("Mcp-Protocol-Version", headerValue(version))
	if version < modern || m.method == "" {
		return
	}
	h.Set("Mcp-Method", headerValue(m.method))
	if m.name != "" {
		h.Set("Mcp-Name", headerValue(m.name))
	}
}

// headerValue returns the text as a header holds it: what is not printable ASCII,
// or would be trimmed or taken for an encoded one, is encoded (SEP-2243).
func headerValue(s string) string {
	const prefix, suffix = "=?base64?", "?="
	plain := !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
	if plain && strings.TrimSpace(s) == s && !(strings.HasPrefix(s, prefix) && strings.HasSuffix(s, suffix)) {
		return s
	}
	return prefix + base64.StdEncoding.EncodeToString([]byte(s)) + suffix
}

// events calls fn with the data of each server-sent event.
func events(r io.Reader, fn func(data []byte) error) error {
	var data []byte
	some := false
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, size, err := readLine(lines)
		if size > maxLine || len(data) > maxAnswer {
			return fmt.Errorf("an event of the server has more than %d bytes", maxAnswer)
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if field, ok := bytes.CutPrefix(line, []byte("data")); ok && (len(field) == 0 || field[0] == ':') {
			if some {
				data = append(data, '\n')
			}
			field, _ = bytes.CutPrefix(field, []byte(":"))
			field, _ = bytes.CutPrefix(field, []byte(" "))
			data, some = append(data, field...), true
		}
		// An event ends with an empty line; one that is cut off is none.
		if err == nil && len(line) == 0 && some {
			if len(bytes.TrimSpace(data)) > 0 {
				if err := fn(data); err != nil {
					return err
				}
			}
			data, some = nil, false
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A fault is an error that the client is told.
type fault struct {
	code    int
	message string
	data    json.RawMessage
}

func (f *fault) Error() string { return f.message }

// refusal says what to do about an answer that is none to the request. What the
// server has said of it is kept.
func (b *Bridge) refusal(res *http.Response, got message) error {
	var said struct {
		Code    int
		Message string
		Data    json.RawMessage
	}
	json.Unmarshal(got.failure, &said) // a proxy may have said something else, or nothing
	f := &fault{code: said.Code, message: said.Message, data: said.Data}
	advice := ""
	code := codeInternal
	switch status := res.StatusCode; {
	case status == http.StatusUnauthorized:
		code, advice = codeUnauthorized, "The bridge's key is unknown, revoked or expired: put a valid one into TRUSTPAGER_KEY or the file of --key-file, and restart this MCP server."
	case status == http.StatusForbidden:
		code, advice = codeForbidden, "The key may not do this now: ask an admin of the workspace."
	case status == http.StatusTooManyRequests:
		code, advice = codeLimited, fmt.Sprintf("Wait %s seconds, then try again.", cmp.Or(res.Header.Get("Retry-After"), "some"))
	case status >= 500:
		advice = "Try again in a moment; if it goes on, tell the operator of the server."
		if status != http.StatusServiceUnavailable {
			advice = look + " " + advice
		}
	case status >= 300 && status < 400:
		advice = fmt.Sprintf("It redirects to %s: if that is right, give it to the bridge with --url.", cmp.Or(res.Header.Get("Location"), "nowhere"))
	default:
		code, advice = codeInvalidRequest, "Check the URL, which ends with /mcp."
		if said.Message != "" {
			advice = "" // it says what is wrong with the message
		}
	}
	if f.code == 0 {
		f.code = code
	}
	f.message = strings.TrimSuffix(cmp.Or(f.message, fmt.Sprintf("the server at %s answers %s", b.url, res.Status)), ".") + "."
	if advice != "" {
		f.message += " " + advice
	}
	return f
}
