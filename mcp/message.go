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

	longURI bool // the URI that resources/read asks for is longer than maxURI

	// Of tools/call:
	name      json.RawMessage // of the tool, as JSON
	arguments json.RawMessage // byte for byte, nil if there are none
	meta      json.RawMessage // _meta
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
	switch m.method {
	case methodToolsCall:
		return members(params, func(name string, value json.RawMessage) error {
			switch name {
			case "name":
				m.name = value
			case "arguments":
				m.arguments = value
			case "_meta":
				m.meta = value
			}
			return nil
		})
	case methodToolsList, methodResourcesList, methodTemplatesList, methodPromptsList:
		return members(params, func(name string, value json.RawMessage) error {
			m.cursor = m.cursor || strings.EqualFold(name, "cursor") && string(value) != `""` && string(value) != "null"
			return nil
		})
	case methodResourcesRead:
		return members(params, func(name string, value json.RawMessage) error {
			m.longURI = m.longURI || strings.EqualFold(name, "uri") && len(value) > maxURI
			return nil
		})
	}
	return nil
}

// stripped returns the tools/call without its arguments, which mcp-go would
// decode several times and needs for nothing: the handler takes them from m.
func (m *message) stripped() []byte {
	b := make([]byte, 0, 96+len(m.id)+len(m.name)+len(m.meta))
	b = append(b, `{"jsonrpc":"2.0"`...)
	if m.id != nil {
		b = append(append(b, `,"id":`...), m.id...)
	}
	b = append(b, `,"method":"tools/call","params":{`...)
	if m.name != nil {
		b = append(append(b, `"name":`...), m.name...)
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
