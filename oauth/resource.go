package oauth

import (
	"strings"

	"trustpager/access"
	"trustpager/typeid"
)

// The protected resources (RFC 8707, RFC 9728) are the MCP endpoint, the MCP
// endpoint of one workspace, and the origin, which is that of the REST API.

const mcpPath = "/mcp"

// resource reads a resource indicator. "" is the MCP endpoint. Parsers of URLs
// add a slash to the origin, and some clients to any URL, so the form with one
// is taken for the form without, which is the audience of tokens.
func (s *Server) resource(indicator string) (resource, workspace string, ok bool) {
	indicator = strings.TrimSuffix(indicator, "/")
	switch indicator {
	case "", s.Issuer + mcpPath:
		return s.Issuer + mcpPath, "", true
	case s.Issuer:
		return s.Issuer, "", true
	}
	workspace, ok = strings.CutPrefix(indicator, s.Issuer+mcpPath+"/")
	if !ok || !typeid.ValidID("ws", workspace) {
		return "", "", false
	}
	return indicator, workspace, true
}

// ResourceMetadataURL returns where the metadata of the resource at the path
// is (RFC 9728 §3.1).
func ResourceMetadataURL(issuer, path string) string {
	workspace, _ := strings.CutPrefix(path, mcpPath+"/")
	if path == mcpPath || typeid.ValidID("ws", workspace) {
		return issuer + resourcePath + path
	}
	return issuer + resourcePath
}

// Challenge returns the WWW-Authenticate header of a 401 at the path (RFC 6750
// §3, RFC 9728 §5.1). tokenSent says that the request had a token, which was
// not accepted.
func Challenge(issuer, path string, tokenSent bool) string {
	c := `Bearer resource_metadata="` + ResourceMetadataURL(issuer, path) + `", scope="` + access.ScopeWorkspace + `"`
	if tokenSent {
		c += `, error="invalid_token", error_description="The access token is expired, revoked, or not valid here"`
	}
	return c
}

// InsufficientScope returns the WWW-Authenticate header of a 403 at the path:
// the token would have to have the scopes, names separated by spaces.
func InsufficientScope(issuer, path string, scopes string) string {
	return `Bearer error="insufficient_scope", scope="` + scopes + `", resource_metadata="` + ResourceMetadataURL(issuer, path) +
		`", error_description="The access token does not have the scopes that this needs"`
}
