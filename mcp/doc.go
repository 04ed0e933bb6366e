// Package mcp offers the catalog's actions as tools to AI agents, and what they
// read as resources and prompts, over the Streamable HTTP transport of the Model
// Context Protocol.
//
// The protocol is spoken by mcp-go, which this package keeps behind a gate of
// its own: [Server.ServeHTTP] refuses what mcp-go would let through, and hands
// it only messages that it has read strictly itself. What a request passes, in
// order:
//
//	path and method   /mcp or /mcp/{workspace}; POST, and OPTIONS for browsers
//	Host, Origin      names of this server; origins that are allowed
//	credential        Authorization: Bearer …, and the path's workspace is its own
//	body              at most 1 MiB, one JSON-RPC message, read strictly
//	rate limit        of the credential
//	mcp-go            stateless: no sessions, nothing kept
//
// Every refusal is a JSON-RPC error under the HTTP status that fits, with the
// request's id where it is known by then and null where it is not. An error of
// an action is not a refusal: it is the tool's result, marked isError, so that
// the model reads how to mend it.
//
// A tool call goes through the Gate of package approvals, which decides whether
// it runs, waits for a person or is refused. A tool that the caller may not use
// at all is not listed, and calling it reads as "not found".
//
// tools/list is answered by a server of mcp-go's that has no tools, and the gate
// puts the caller's tools into its empty list, encoded once at start for each
// level. The arguments of a tools/call stay with the gate, byte for byte. A plain
// call of a tool that the caller may use is run by the gate itself, which answers
// what mcp-go would; all other calls pass mcp-go. So neither costs more than mcp-go
// alone. The lists of resources and prompts are made as that of the tools. What is
// read of them passes the Gate as the tools that it is named after do, so that
// nobody sees more by one way than by another.
//
// What waits for a person is followed by what the gate answers itself, from the
// store, on any node: tasks in both eras, subscriptions/listen, a question to the
// user of a client that can open a page, and a word at the end of later results.
package mcp
