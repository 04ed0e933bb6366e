package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// A connectPage tells how to connect one program.
type connectPage struct {
	Tabs     []tab
	Title    string
	Steps    []connectStep
	Calls    lastCall
	Admin    bool
	Free     bool
	Insecure bool // clients in the cloud do not reach this server by https
}

// A connectStep is a sentence, perhaps with something to paste.
type connectStep struct{ ID, Says, Paste string }

// guides tell how to connect each program; {mcp} and {base} are this server's
// addresses, {name} is what the connection is called.
var guides = []struct {
	name, title string
	cloud       bool // it connects from the internet
	steps       []connectStep
}{
	{"claude", "Claude.ai", true, []connectStep{
		{Says: "In Claude, open Settings → Connectors and choose Add custom connector."},
		{Says: "Paste this address, add it, and press Connect:", Paste: "{mcp}"},
		{Says: "A page of this server opens. Choose what Claude may do for you, and press Allow."},
	}},
	{"claude-code", "Claude Code", false, []connectStep{
		{Says: "In a terminal:", Paste: "claude mcp add --transport http trustpager {mcp}"},
		{Says: "Then type /mcp in a session and choose trustpager: the browser opens this server’s consent page. With an API key no browser is needed:",
			Paste: "claude mcp add --transport http trustpager {mcp} --header \"Authorization: Bearer tp_live_…\""},
	}},
	{"cursor", "Cursor", false, []connectStep{
		{Says: "Put this into .cursor/mcp.json of the project, or into ~/.cursor/mcp.json:", Paste: `{"mcpServers": {"trustpager": {"url": {mcp-json}}}}`},
		{Says: "Cursor shows Needs login; follow it to this server’s consent page."},
	}},
	{"vscode", "VS Code", false, []connectStep{
		{Says: "Put this into .vscode/mcp.json:", Paste: `{"servers": {"trustpager": {"type": "http", "url": {mcp-json}}}}`},
		{Says: "Start the server from that file; VS Code asks whether it may log in."},
	}},
	{"chatgpt", "ChatGPT", true, []connectStep{
		{Says: "In Settings → Apps → Advanced settings turn on Developer mode, then choose Create app."},
		{Says: "Paste this address, with OAuth as the authentication:", Paste: "{mcp}"},
	}},
	{"stdio", "Other programs", false, []connectStep{
		{Says: "Some programs only talk to servers that they start themselves on this computer (stdio), as Claude Desktop does with its configuration file. For them there is the command trustpager mcp. Install trustpager here, and take an API key, which an admin makes under API and agents. In Claude Desktop choose Settings → Developer → Edit Config, and put in:",
			Paste: `{"mcpServers": {"trustpager": {"command": "trustpager", "args": ["mcp"], "env": {"TRUSTPAGER_URL": {mcp-json}, "TRUSTPAGER_KEY": "tp_live_…"}}}}`},
		{Says: "If it does not find the program, write its whole path as the command. Then start the program anew."},
	}},
	{"curl", "curl and scripts", false, []connectStep{
		{Says: "Scripts use an API key. An admin makes one under API and agents; it is shown once. Then:",
			Paste: "curl -s {base}/v1/me -H \"Authorization: Bearer tp_live_…\""},
		{Says: "The whole API is described here:", Paste: "{base}/openapi.json"},
	}},
}

func (p *Pages) connect(r *http.Request, in room) (answer, error) {
	calls, err := p.lastCall(r, in)
	if err != nil {
		return answer{}, err
	}
	at := guides[0]
	for _, g := range guides {
		if g.name == r.URL.Query().Get("client") {
			at = g
		}
	}
	page := connectPage{Title: at.title, Calls: calls, Admin: in.grant.IsAdmin(), Free: isFree(in), Insecure: at.cloud && !strings.HasPrefix(p.BaseURL, "https://")}
	for _, g := range guides {
		page.Tabs = append(page.Tabs, tab{Path: "/connect?client=" + g.name, Title: g.title, Here: g.name == at.name})
	}
	mcp := p.BaseURL + "/mcp"
	if len(in.me.Memberships) > 1 {
		mcp += "/" + in.membership.Workspace.ID // so that no choice is left
	}
	quoted, err := json.Marshal(mcp)
	if err != nil {
		return answer{}, err
	}
	fill := strings.NewReplacer("{mcp}", mcp, "{mcp-json}", string(quoted), "{base}", p.BaseURL)
	for i, s := range at.steps {
		page.Steps = append(page.Steps, connectStep{ID: "step-" + string(rune('1'+i)), Says: s.Says, Paste: fill.Replace(s.Paste)})
	}
	return answer{page: "connect.html", title: "Connect " + at.title, data: page}, nil
}

// A lastCall says which credential was used last.
type lastCall struct {
	Name, Action string
	At           *moment // nil if none was ever used
	Fresh        bool    // within the last minutes
}

// fresh is how long a call shows as one that has just come.
const fresh = 5 * time.Minute

// lastCall returns the last call of the workspace; for who is no admin, that of
// their own apps.
func (p *Pages) lastCall(r *http.Request, in room) (lastCall, error) {
	user := in.me.User.ID
	if in.grant.IsAdmin() {
		user = ""
	}
	use, name, err := p.Admin.LastUse(r.Context(), in.grant, user)
	if err != nil || use.At.IsZero() {
		return lastCall{}, err
	}
	return lastCall{name, use.Action, momentOf(use.At, p.Now(), in.zone()), p.Now().Sub(use.At) < fresh}, nil
}
