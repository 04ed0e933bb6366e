package mcp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

func benchmark(b *testing.B, h http.Handler, p post) {
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, p.request())
		if w.Code != http.StatusOK {
			b.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
}

var benchCall = callBody("get_contact", `{"id":"con_01890a5d-ac96-774b-bcce-b302099a8057","fields":"first_name,last_name,email"}`)

// What mcp-go alone costs, with one tool that does nothing.
func BenchmarkBareCall(b *testing.B) {
	m := server.NewMCPServer("bench", "1", server.WithToolCapabilities(false))
	m.AddTool(mcpgo.NewTool("get_contact"), func(context.Context, mcpgo.CallToolRequest) (*mcpgo.CallToolResult, error) {
		return mcpgo.NewToolResultText("x"), nil
	})
	benchmark(b, server.NewStreamableHTTPServer(m, server.WithStateLess(true), server.WithDisableLocalhostProtection(true)), post{body: benchCall})
}

func BenchmarkCall(b *testing.B) {
	benchmark(b, newServer(b, &benchGate{}), post{token: "bench", body: benchCall})
}

func BenchmarkList(b *testing.B) {
	benchmark(b, newServer(b, &benchGate{}), post{token: "bench", body: listBody})
}
