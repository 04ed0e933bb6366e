package mcp

import (
	"encoding/json"
	"errors"
	"net/http"

	jsonv2 "github.com/go-json-experiment/json"
	mcpgo "github.com/mark3labs/mcp-go/mcp"
)

// tasksExtension is the name of the extension by which clients of 2026-07-28 take
// a task in place of a result.
const tasksExtension = "io.modelcontextprotocol/tasks"

// A client is what a request says of the one that sent it. Since 2026-07-28 each
// request says it in _meta, before that only initialize did.
type client struct {
	modern  bool   // the request is of 2026-07-28 or later
	version string // of the protocol, as _meta says it
	tasks   bool   // it takes a task in place of this call's result
	urls    bool   // it can ask its user to open a URL
}

// clientOf reads what the request says of its client.
func clientOf(h http.Header, m *message) client {
	var meta struct {
		Version      string `json:"io.modelcontextprotocol/protocolVersion"`
		Capabilities struct {
			Extensions  map[string]json.RawMessage `json:"extensions"`
			Elicitation struct {
				URL *struct{} `json:"url"`
			} `json:"elicitation"`
		} `json:"io.modelcontextprotocol/clientCapabilities"`
	}
	if m.meta != nil {
		_ = jsonv2.Unmarshal(m.meta, &meta) // what cannot be read is missing: mcp-go, or the check of the headers, says so
	}
	header := h.Get(mcpgo.HeaderProtocolVersion)
	c := client{modern: mcpgo.IsModernProtocol(header) || mcpgo.IsModernProtocol(meta.Version), version: meta.Version}
	if c.modern {
		_, c.tasks = meta.Capabilities.Extensions[tasksExtension]
		c.urls = meta.Capabilities.Elicitation.URL != nil
	} else { // older versions know no tasks, and what their clients send is no wish
		c.tasks = header == "2025-11-25" && m.task != nil && string(m.task) != "null"
	}
	return c
}

// A fault is an error of the protocol, with a code that only it has.
type fault struct {
	status  int // HTTP status
	code    int
	message string
	data    any // nil if there is none
}

func (f *fault) Error() string { return f.message }

// write answers the request with the fault.
func (f *fault) write(w http.ResponseWriter, id json.RawMessage) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	w.Write(encodeError(id, f.code, f.message, f.data)) // fails only if the client has gone
}

// invalidParams is the fault of params that cannot be taken. Clients of before
// 2026-07-28 read JSON-RPC errors only under 200.
func (c *call) invalidParams(message string) *fault {
	return c.faultOf(http.StatusBadRequest, mcpgo.INVALID_PARAMS, message)
}

func (c *call) faultOf(status, code int, message string) *fault {
	if !c.client.modern {
		status = http.StatusOK
	}
	return &fault{status: status, code: code, message: message}
}

// checkHeaders checks a request that the gate answers itself, as mcp-go checks
// all others: since 2026-07-28 the headers repeat what the body says, and the two
// agree. name is what Mcp-Name repeats, "" if the method has no such thing.
func (c *call) checkHeaders(h http.Header, name string) error {
	if !c.client.modern {
		return nil
	}
	mismatch := func(message string) error {
		return &fault{status: http.StatusBadRequest, code: mcpgo.HEADER_MISMATCH, message: message}
	}
	version := h.Get(mcpgo.HeaderProtocolVersion)
	switch {
	case h.Get(mcpgo.HeaderLastEventID) != "":
		return mismatch("Last-Event-ID has no meaning here: streams are not resumed. Send the request anew, with a new id.")
	case version == "":
		return mismatch("the header Mcp-Protocol-Version is missing; repeat in it the protocolVersion of _meta")
	case c.client.version == "":
		return c.invalidParams("_meta lacks io.modelcontextprotocol/protocolVersion")
	case version != c.client.version:
		return mismatch("the header Mcp-Protocol-Version is not the protocolVersion of _meta")
	case !mcpgo.IsValidProtocolVersion(version):
		e := mcpgo.UnsupportedProtocolVersionError{Version: version, Supported: mcpgo.ValidProtocolVersions}.JSONRPCError().Error
		return &fault{status: http.StatusBadRequest, code: e.Code, message: e.Message, data: e.Data}
	}
	if err := mcpgo.ValidateStandardHeaders(h.Get, version, mcpgo.MCPMethod(c.method), nil); err != nil {
		return mismatch(err.Error())
	}
	if name == "" {
		return nil
	}
	// Some clients leave it out with methods of an extension.
	if sent, ok := mcpgo.DecodeHeaderValue(h.Get(mcpgo.HeaderName)); h.Get(mcpgo.HeaderName) != "" && (!ok || sent != name) {
		return mismatch("the header Mcp-Name is not what the body names")
	}
	return nil
}

// faulty answers with err if it is a fault, and returns it otherwise.
func (c *call) faulty(w http.ResponseWriter, err error) error {
	if f, ok := errors.AsType[*fault](err); ok {
		c.outcome = outcomeOf(f)
		f.write(w, c.id)
		return nil
	}
	return err
}
