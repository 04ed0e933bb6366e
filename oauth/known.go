package oauth

// KnownClients are MCP clients with the redirect URIs that they are known to
// use, for who registers one by hand.
var KnownClients = []struct {
	Name, Title  string
	RedirectURIs []string
	Public       bool // it runs on people's machines, and has no secret
}{
	{"claude", "Claude.ai and Claude Desktop", []string{"https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback"}, false},
	{"vscode", "VS Code", []string{"https://vscode.dev/redirect", "https://insiders.vscode.dev/redirect", "http://127.0.0.1/", "http://127.0.0.1:33418/"}, true},
	{"cursor", "Cursor", []string{"cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/mcp/oauth/callback", "http://localhost:8787/callback"}, true},
}

// KnownRedirects returns the redirect URIs of a known client, nil for others.
func KnownRedirects(name string) []string {
	for _, c := range KnownClients {
		if c.Name == name {
			return c.RedirectURIs
		}
	}
	return nil
}
