package mcp

import (
	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// identity returns what a server of mcp-go's needs to say who it is and what it
// offers besides tools. mcp-go puts it into each answer of the protocol 2026-07-28,
// so the server that is called for tools goes without.
//
// Nothing of it is told to have changed: no list of resources or prompts is
// watched, and no resource can be subscribed to.
func (s *Server) identity() []server.ServerOption {
	return []server.ServerOption{
		server.WithTitle("TrustPager"),
		server.WithWebsiteURL(s.BaseURL),
		server.WithIcons(
			mcpgo.Icon{Src: s.BaseURL + "/icon.png", MIMEType: "image/png", Sizes: []string{"128x128"}},
			mcpgo.Icon{Src: s.BaseURL + "/icon.svg", MIMEType: "image/svg+xml", Sizes: []string{"any"}}),
		server.WithResourceCapabilities(false, false),
		server.WithPromptCapabilities(false),
		server.WithCompletions(),
		server.WithCacheHints(0, mcpgo.CacheScopePrivate), // rights hold from the next request on
	}
}
