package mcp

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"trustpager/problem"
	"trustpager/strictjson"
)

// The methods that the gate itself knows.
const (
	methodToolsCall = "tools/call"
	methodToolsList = "tools/list"
	methodCancelled = "notifications/cancelled"
	methodListen    = "subscriptions/listen"

	methodTasksGet    = "tasks/get"
	methodTasksCancel = "tasks/cancel"
	methodTasksResult = "tasks/result" // until 2025-11-25
	methodTasksList   = "tasks/list"   // until 2025-11-25
	methodTasksUpdate = "tasks/update" // since 2026-07-28

	methodResourcesList = "resources/list"
	methodTemplatesList = "resources/templates/list"
	methodResourcesRead = "resources/read"
	methodPromptsList   = "prompts/list"
	methodPromptsGet    = "prompts/get"
	methodComplete      = "completion/complete"
)

// A message is what the gate reads of a JSON-RPC message. Its slices point
// into the body.
type message struct {
	id     json.RawMessage // nil if it has none
	method string          // "" of a response
	cursor bool            // the params ask for a later page
	meta   json.RawMessage // _meta

	longURI bool // the URI that resources/read asks for is longer than maxURI

	// Of tools/call:
	name      json.RawMessage // of the tool, as JSON
	arguments json.RawMessage // byte for byte, nil if there are none
	task      json.RawMessage // the client of 2025-11-25 wants a task
	responses json.RawMessage // inputResponses: what the user was asked
	state     json.RawMessage // requestState: what this server gave with the question

	// Of tasks/…, and of subscriptions/listen:
	taskID        json.RawMessage
	page          json.RawMessage // cursor
	notifications json.RawMessage
}

// envelopeNames are the members of a JSON-RPC message.
var envelopeNames = []string{"jsonrpc", "id", "method", "params", "result", "error"}

// parse reads the body strictly. If it fails, what it has read of m by then,
// such as the id, holds.
func (m *message) parse(body []byte) error {
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) > 0 && b[0] == '[' {
		return problem.Errorf(problem.InvalidBody, "JSON-RPC batches are not part of the protocol any more").
			WithFix("Send each message in a request of its own.")
	}
	if err := strictjson.CheckEnvelope(body); err != nil {
		return err
	}
	var params json.RawMessage
	version := false
	err := members(body, func(name string, value json.RawMessage) error {
		switch name {
		case "jsonrpc":
			version = string(value) == `"2.0"`
		case "id":
			if k := value[0]; k != '"' && k != '-' && (k < '0' || k > '9') {
				return problem.Errorf(problem.InvalidBody, "the message's id is neither a string nor a number").
					WithFix("Send a string or a number as id, and none at all with a notification.")
			}
			m.id = value
		case "method":
			if json.Unmarshal(value, &m.method) != nil || m.method == "" {
				return problem.Errorf(problem.InvalidBody, "the message's method is not a name").
					WithFix(`Send a method such as "tools/call".`)
			}
		case "params":
			params = value
		default:
			// mcp-go would take "METHOD" for "method".
			if !slices.Contains(envelopeNames, name) && slices.ContainsFunc(envelopeNames, func(n string) bool { return strings.EqualFold(n, name) }) {
				return problem.Errorf(problem.InvalidBody, "the message has a member %q", name).
					WithFix("Write it %q.", strings.ToLower(name))
			}
		}
		return nil
	})
	if err == nil && !version {
		err = problem.Errorf(problem.InvalidBody, "the message is not JSON-RPC 2.0").
			WithFix(`Send the member "jsonrpc": "2.0".`)
	}
	if err != nil || params == nil || params[0] != '{' {
		return err
	}
	return members(params, func(name string, value json.RawMessage) error {
		if p := m.param(name); p != nil {
			*p = value
		}
		switch m.method {
		case methodToolsList, methodResourcesList, methodTemplatesList, methodPromptsList:
			m.cursor = m.cursor || strings.EqualFold(name, "cursor") && string(value) != `""` && string(value) != "null"
		case methodResourcesRead:
			m.longURI = m.longURI || strings.EqualFold(name, "uri") && len(value) > maxURI
		}
		return nil
	})
}

// param returns where a member of the params is kept, nil if the gate does not
// need it.
func (m *message) param(name string) *json.RawMessage {
	if name == "_meta" {
		return &m.meta
	}
	switch m.method {
	case methodToolsCall:
		switch name {
		case "name":
			return &m.name
		case "arguments":
			return &m.arguments
		case "task":
			return &m.task
		case "inputResponses":
			return &m.responses
		case "requestState":
			return &m.state
		}
	case methodTasksGet, methodTasksCancel, methodTasksResult, methodTasksUpdate, methodTasksList:
		switch name {
		case "taskId":
			return &m.taskID
		case "cursor":
			return &m.page
		case "inputResponses":
			return &m.responses
		}
	case methodListen:
		if name == "notifications" {
			return &m.notifications
		}
	}
	return nil
}

// stripped returns the tools/call without what mcp-go needs for nothing, but would
// decode several times: the handler takes it from m. mcp-go needs the arguments of a
// tool whose schema has some of them repeated in headers, to compare them.
func (m *message) stripped(t *tool) []byte {
	b := make([]byte, 0, 96+len(m.id)+len(m.name)+len(m.meta))
	b = append(b, `{"jsonrpc":"2.0"`...)
	if m.id != nil {
		b = append(append(b, `,"id":`...), m.id...)
	}
	b = append(b, `,"method":"tools/call","params":{`...)
	if m.name != nil {
		b = append(append(b, `"name":`...), m.name...)
	}
	if t != nil && t.headers && m.arguments != nil {
		b = append(append(b, `,"arguments":`...), m.arguments...)
	}
	if m.meta != nil {
		if m.name != nil {
			b = append(b, ',')
		}
		b = append(append(b, `"_meta":`...), m.meta...)
	}
	return append(b, "}}"...)
}

// members calls visit for each member of the object b, which has been checked.
func members(b []byte, visit func(name string, value json.RawMessage) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		n := name.String()
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		end := d.InputOffset()
		if err := visit(n, b[end-int64(len(value)):end:end]); err != nil {
			return err
		}
	}
	return nil
}
