package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// theirs is a server of mcp-go's over HTTP with one tool, without sessions.
func theirs(t *testing.T, run func(ctx context.Context, m *server.MCPServer) string) (url string) {
	t.Helper()
	m := server.NewMCPServer("x", "1")
	m.AddTool(mcpgo.NewToolWithRawSchema("a", "Does.", json.RawMessage(`{"type":"object"}`)), func(ctx context.Context, _ mcpgo.CallToolRequest) (*mcpgo.CallToolResult, error) {
		return mcpgo.NewToolResultText(run(ctx, m)), nil
	})
	h := httptest.NewServer(server.NewStreamableHTTPServer(m, server.WithStateLess(true), server.WithDisableStreaming(true),
		server.WithStreamableHTTPLogger(slog.New(slog.DiscardHandler))))
	t.Cleanup(h.Close)
	return h.URL
}

func send(t *testing.T, url, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

const callOfA = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}`

// The suite's tools-call-with-progress ends with a notification at once before the
// result. If mcp-go delivers all of them, the gate can let them through.
func TestTrapNotificationsBeforeTheResultAreLost(t *testing.T) {
	const sent = 3
	url := theirs(t, func(ctx context.Context, m *server.MCPServer) string {
		for range sent {
			m.SendNotificationToClient(ctx, "notifications/progress", map[string]any{"progressToken": 1, "progress": 1})
		}
		return "done"
	})
	const calls = 2000
	for range calls {
		resp := send(t, url, callOfA)
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(body, []byte("done")) {
			t.Fatalf("got %s, want a result", body)
		}
		if bytes.Count(body, []byte("notifications/progress")) < sent {
			return
		}
	}
	t.Errorf("mcp-go has mended the trap (none of %d calls lost a notification): tools-call-with-progress could pass", calls)
}

// A question to the client of before 2026-07-28 reaches it, but what it answers is
// refused for want of a session.
func TestTrapNothingCanBeAskedWithoutSession(t *testing.T) {
	url := theirs(t, func(ctx context.Context, m *server.MCPServer) string {
		_, err := m.RequestElicitation(ctx, mcpgo.ElicitationRequest{Params: mcpgo.ElicitationParams{Message: "Who?", RequestedSchema: json.RawMessage(`{"type":"object"}`)}})
		return err.Error()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(callOfA))
	r.Header.Set("Content-Type", "application/json")
	asked, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Body.Close()
	event := make([]byte, 4096)
	n, err := asked.Body.Read(event)
	if err != nil || !bytes.Contains(event[:n], []byte("elicitation/create")) {
		t.Fatalf("got %s (%v), want a question", event[:n], err)
	}
	resp := send(t, url, `{"jsonrpc":"2.0","id":1,"result":{"action":"accept","content":{}}}`)
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !bytes.Contains(body, []byte("session")) {
		t.Errorf("mcp-go has mended the trap (%d %s): clients of before 2026-07-28 could be asked", resp.StatusCode, body)
	}
}
