package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/server"
)

// demoCmd serves a workspace with data to play with.
type demoCmd struct {
	serveFlags
	JSON bool `help:"Print one line of JSON when it listens, and nothing else."`
}

// The names by which a demo finds its own things again.
const (
	demoWorkspace = "Harbour & Pine Interiors"
	demoAdmin     = "admin@demo.example"
	demoAgent     = "Demo agent"
	demoFull      = "Demo full access"
)

// demoLimits let a load generator at a demo.
var demoLimits = access.Limits{PerMinute: 6000}

// demoInfo is what one needs to use a demo.
type demoInfo struct {
	BaseURL   string `json:"base_url"`
	MCPURL    string `json:"mcp_url"`
	Workspace string `json:"workspace"`
	Admin     struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	} `json:"admin"`
	Keys struct {
		Agent      string `json:"agent"`
		FullAccess string `json:"full_access"`
	} `json:"keys"`
}

// Run serves the demo until it is told to stop.
func (c *demoCmd) Run(e *env) error {
	l, s, config, err := c.start(e)
	if err != nil {
		return err
	}
	defer s.DB.Close()
	info, err := setUpDemo(e.ctx, s, config.BaseURL)
	if err != nil {
		l.Close()
		return fmt.Errorf("set up the demo: %w", err)
	}
	if err := c.print(e, s, info); err != nil {
		l.Close()
		return err
	}
	return s.Serve(e.ctx, l)
}

// print tells how to use the demo.
func (c *demoCmd) print(e *env, s *server.Server, info demoInfo) error {
	if c.JSON {
		return e.printJSON(info)
	}
	waiting, err := s.DB.ListApprovals(e.ctx, info.Workspace, approvals.Query{Status: approvals.Pending, Limit: 2})
	if err != nil {
		return err
	}
	text, err := info.guide(e.Database, waiting)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(e.stdout, text)
	return err
}

// guide tells what to try next, as commands to paste.
func (d demoInfo) guide(database string, waiting []approvals.Approval) (string, error) {
	ids := []string{"apr_…", "apr_…"} // none waits any more
	for i := range min(len(ids), len(waiting)) {
		ids[i] = waiting[i].ID
	}
	var b strings.Builder
	err := guide.Execute(&b, struct {
		demoInfo
		Name, Database, Approve, Reject string
	}{d, demoWorkspace, database, ids[0], ids[1]})
	return b.String(), err
}

var guide = template.Must(template.New("guide").Parse(`
TrustPager demo · {{.Name}} · {{.BaseURL}}

  Agent key        {{.Keys.Agent}}
                   reads; writes and deletes wait for approval
  Full-access key  {{.Keys.FullAccess}}
                   does everything at once, and may decide approvals
  Admin            {{.Admin.Email}} / {{.Admin.Password}}
                   logs in at {{.BaseURL}}/login

In a browser: log in as the admin. What agents have asked for waits under
Approvals; keys, connected apps and the switch that pauses all agents are under
API and agents; Connect tells how to connect Claude and others.

Or paste these into another terminal:

  export AGENT={{.Keys.Agent}}
  export FULL={{.Keys.FullAccess}}

  # The agent reads contacts.
  curl -s "{{.BaseURL}}/v1/contacts?limit=3" -H "Authorization: Bearer $AGENT"

  # It creates one: that waits for a person (202, status pending_approval).
  curl -s {{.BaseURL}}/v1/contacts -H "Authorization: Bearer $AGENT" -H "Content-Type: application/json" \
    -d '{"first_name":"Ada","email":"ada@example.com","reason":"She asked for an offer."}'

  # What waits, and two decisions.
  curl -s "{{.BaseURL}}/v1/approvals?status=pending" -H "Authorization: Bearer $FULL"
  curl -s -X POST {{.BaseURL}}/v1/approvals/{{.Approve}}/approve -H "Authorization: Bearer $FULL"
  curl -s -X POST {{.BaseURL}}/v1/approvals/{{.Reject}}/reject -H "Authorization: Bearer $FULL" \
    -H "Content-Type: application/json" -d '{"reason":"Ask her first."}'

  # The same from the terminal of the server.
  go run ./cmd/trustpager approvals list --database {{.Database}}

  # Connect an MCP client, here Claude Code, for the admin: its /mcp opens a page
  # where the admin logs in and chooses what it may do.
  claude mcp add --transport http trustpager {{.MCPURL}}

  # Or with the agent's key.
  claude mcp add --transport http trustpager {{.MCPURL}} --header "Authorization: Bearer $AGENT"

The whole API: {{.BaseURL}}/openapi.json. Stop with Ctrl-C; the data stays in {{.Database}}.

`))

// setUpDemo makes the demo's workspace, or finds it, and gives its keys and its
// admin new secrets.
func setUpDemo(ctx context.Context, s *server.Server, baseURL string) (demoInfo, error) {
	info := demoInfo{BaseURL: baseURL, MCPURL: baseURL + "/mcp"}
	all, err := s.DB.Workspaces(ctx)
	if err != nil {
		return info, err
	}
	var w access.Workspace
	for _, each := range all {
		if each.Name == demoWorkspace {
			w = each
		}
	}
	fresh := w.ID == ""
	if fresh {
		if w, err = s.Desk.CreateWorkspace(ctx, demoWorkspace, "Europe/London"); err != nil {
			return info, err
		}
	}
	info.Workspace = w.ID
	g := admin.OperatorGrant(w)

	info.Admin.Email, info.Admin.Password = demoAdmin, rand.Text()
	hash, err := access.HashPassword(info.Admin.Password)
	if err != nil {
		return info, err
	}
	if _, _, err := s.DB.UserByEmail(ctx, demoAdmin); err == nil {
		err = s.Desk.SetPassword(ctx, g, demoAdmin, hash)
		if err != nil {
			return info, err
		}
	}
	owner, err := s.Desk.AddUser(ctx, g, demoAdmin, "Robin Hale", hash, access.Owner)
	if err != nil {
		return info, err
	}
	made := map[string]string{"owner": owner.ID}
	if fresh {
		if err := seed(ctx, s, g, made); err != nil {
			return info, err
		}
	}
	yes := true
	agentScopes := make([]string, 0)
	for _, scope := range s.Catalog.Scopes(catalog.PresetRecommended) {
		agentScopes = append(agentScopes, scope.String())
	}
	agent, err := demoKey(ctx, s, g, demoAgent, admin.KeyInput{Scopes: &agentScopes})
	if err != nil {
		return info, err
	}
	full, err := demoKey(ctx, s, g, demoFull, admin.KeyInput{FullAccess: &yes, MayDecide: &yes})
	if err != nil {
		return info, err
	}
	info.Keys.Agent, info.Keys.FullAccess = string(agent.Secret), string(full.Secret)
	if fresh {
		err = ask(ctx, s, agent.Key.Grant(w), made)
	}
	return info, err
}

// demoKey makes the key of the given name, or gives it another secret.
func demoKey(ctx context.Context, s *server.Server, g access.Grant, name string, in admin.KeyInput) (admin.MadeKey, error) {
	for after := ""; ; {
		keys, err := s.Desk.Keys(ctx, g, after, 100)
		if err != nil {
			return admin.MadeKey{}, err
		}
		for _, k := range keys {
			if k.Name == name && k.RevokedAt.IsZero() {
				return s.Desk.RotateKey(ctx, g, k.ID, 0)
			}
		}
		if len(keys) < 100 {
			break
		}
		after = keys[len(keys)-1].ID
	}
	in.Name, in.Limits = &name, &demoLimits
	return s.Desk.CreateKey(ctx, g, in)
}

//go:embed demo.json
var demoData []byte

// A demoStep is one action of the demo's making. In its input "$name" stands
// for the id of what the step of that name has made, "$owner" for the admin,
// and "+3d" for three days from now ("-2d" for two days ago).
type demoStep struct {
	Name   string         `json:"name"`
	Action string         `json:"action"`
	ID     string         `json:"id"`
	Input  map[string]any `json:"input"`
}

type demoScript struct {
	Seed []demoStep `json:"seed"` // by the operator, at once
	Ask  []demoStep `json:"ask"`  // by the agent: these wait for approval
}

// seed fills the workspace through the gate, as any caller would, and notes in
// made the ids of what has a name.
func seed(ctx context.Context, s *server.Server, g access.Grant, made map[string]string) error {
	script, err := readScript()
	if err != nil {
		return err
	}
	for i, step := range script.Seed {
		out, err := perform(ctx, s, g, step, made)
		if err != nil {
			return fmt.Errorf("seed %d (%s): %w", i, step.Action, err)
		}
		if step.Name != "" {
			made[step.Name] = out.Result.Target.ID
		}
	}
	return nil
}

// ask lets the agent ask for some things, so that there is something to decide.
func ask(ctx context.Context, s *server.Server, g access.Grant, made map[string]string) error {
	script, err := readScript()
	if err != nil {
		return err
	}
	for i, step := range script.Ask {
		if _, err := perform(ctx, s, g, step, made); err != nil {
			return fmt.Errorf("ask %d (%s): %w", i, step.Action, err)
		}
	}
	return nil
}

func readScript() (demoScript, error) {
	var script demoScript
	err := json.Unmarshal(demoData, &script)
	return script, err
}

func perform(ctx context.Context, s *server.Server, g access.Grant, step demoStep, made map[string]string) (approvals.Outcome, error) {
	a, ok := s.Catalog.Find(step.Action)
	if !ok {
		return approvals.Outcome{}, fmt.Errorf("there is no action %s", step.Action)
	}
	raw, err := json.Marshal(fill(step.Input, made))
	if err != nil {
		return approvals.Outcome{}, err
	}
	id := strings.TrimPrefix(step.ID, "$")
	return s.Gate.Do(ctx, g, a, approvals.Incoming{ID: made[id], Input: raw, Request: approvals.Request{Door: "cli", Tool: a.Name, Body: raw}})
}

// fill puts ids and times into the values of a step.
func fill(v any, made map[string]string) any {
	switch v := v.(type) {
	case map[string]any:
		filled := make(map[string]any, len(v))
		for name, each := range v {
			filled[name] = fill(each, made)
		}
		return filled
	case string:
		if name, ok := strings.CutPrefix(v, "$"); ok && made[name] != "" {
			return made[name]
		}
		var days int
		if _, err := fmt.Sscanf(v, "%dd", &days); err == nil && (v[0] == '+' || v[0] == '-') {
			return time.Now().UTC().AddDate(0, 0, days).Truncate(time.Hour).Format(time.RFC3339)
		}
		if _, err := fmt.Sscanf(v, "date%dd", &days); err == nil {
			return time.Now().UTC().AddDate(0, 0, days).Format(time.DateOnly)
		}
	}
	return v
}
