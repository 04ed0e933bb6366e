package oauth_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/typeid"
)

// A model is what a client and its user have agreed on, kept beside the server.
type model struct {
	*fixture
	t       *rapid.T
	scopes  []access.Scope // of the grant, nil before the first consent
	ceiling []access.Scope
	role    access.Role
	live    []issued
}

// issued are the tokens of one family.
type issued struct {
	original string // scope
	scope    string // of the last access token
	access   string
	refresh  string
	ended    bool
}

// drawScopes draws scopes of a few resources of every ladder and group.
func drawScopes(t *rapid.T, label string) []access.Scope {
	var all []string
	for _, name := range []string{"contacts", "deals", "users", "webhooks", "email", "ai"} {
		r, ok := cat().Resource(name)
		if !ok {
			continue
		}
		for _, rung := range r.Ladder.Rungs() {
			all = append(all, name+":"+rung)
		}
	}
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 6, rapid.ID).Draw(t, label)
	scopes, err := access.ParseScopes(strings.Join(names, " "))
	if err != nil {
		t.Fatal(err)
	}
	return scopes
}

// level is the rung's meaning, without the code under test: the highest of the
// set's.
func level(scopes []access.Scope, resource string, v access.Verb) access.Level {
	most := access.Deny
	for _, s := range scopes {
		if s.Resource == resource {
			most = max(most, s.Levels()[v])
		}
	}
	return most
}

// scopeLevel is level for the scope of a token.
func scopeLevel(scope, resource string, v access.Verb) access.Level {
	if slices.Contains(strings.Fields(scope), access.ScopeWorkspace) {
		return access.Run
	}
	token := access.Token{Scope: scope}
	return level(token.FineScopes(), resource, v)
}

func (m *model) roleLevel(resource string, v access.Verb) access.Level {
	switch m.role {
	case access.Owner, access.Admin:
		return access.Run
	case access.Member:
		return cat().RoleRights(access.Member).Level(resource, v)
	}
	return access.Deny
}

// check compares what each token may do with the minimum of what the model says.
func (m *model) check() {
	for _, i := range m.live {
		g, err := m.s.Verify(m.ctx, i.access, mcp)
		if accepted := err == nil; accepted == (i.ended || m.role == "") {
			m.t.Fatalf("accepted: %v, ended: %v, role %q: %v", accepted, i.ended, m.role, err)
		}
		for _, r := range cat().Resources() {
			for _, v := range r.Ladder.Verbs() {
				most := min(scopeLevel(i.scope, r.Name, v), level(m.scopes, r.Name, v), level(m.ceiling, r.Name, v), m.roleLevel(r.Name, v))
				if got := g.Decide(r.Name, v); got > most || err == nil && got != most {
					m.t.Fatalf("%s of %s: got %v, want %v; token %q, grant %v, ceiling %v, role %s", v, r.Name, got, most, i.scope, m.scopes, m.ceiling, m.role)
				}
				if scopeLevel(i.scope, r.Name, v) > scopeLevel(i.original, r.Name, v) {
					m.t.Fatalf("refreshing has raised %q to %q", i.original, i.scope)
				}
			}
		}
	}
}

func (m *model) consents() {
	asked := ""
	if rapid.Bool().Draw(m.t, "fine") {
		asked = access.FormatScopes(drawScopes(m.t, "asked"))
	}
	req, err := m.s.Authorize(m.ctx, m.query("scope", asked), m.user.ID)
	must(m, err)
	u := m.user
	u.Role = m.role
	o, err := m.s.Offer(m.ctx, req, m.ws, u)
	if m.role == "" {
		if err == nil {
			m.t.Fatal("somebody else is offered access")
		}
		return
	}
	must(m, err)
	chosen := drawScopes(m.t, "chosen")
	loc, err := m.s.Allow(m.ctx, o, chosen)
	must(m, err)
	g, err := m.db.GrantOf(m.ctx, m.ws.ID, m.client.ID, m.user.ID)
	if err == nil {
		for _, r := range cat().Resources() {
			for _, v := range r.Ladder.Verbs() {
				most := max(level(chosen, r.Name, v), level(m.scopes, r.Name, v))
				if got := level(g.Scopes, r.Name, v); got > most {
					m.t.Fatalf("%s of %s is granted up to %v, and was never chosen", v, r.Name, got)
				}
			}
		}
		m.scopes = g.Scopes
	}
	_, code, ok := strings.Cut(loc, "?code=")
	if !ok {
		return // a no
	}
	code, _, _ = strings.Cut(code, "&")
	r := m.exchange(code)
	want(m, r, 200, "")
	m.live = append(m.live, issued{original: r.str("scope"), scope: r.str("scope"), access: r.str("access_token"), refresh: r.str("refresh_token")})
	if len(m.live) > 4 {
		m.live = m.live[1:]
	}
}

func (m *model) refreshes() {
	if len(m.live) == 0 {
		return
	}
	i := &m.live[rapid.IntRange(0, len(m.live)-1).Draw(m.t, "family")]
	asked := rapid.SampledFrom([]string{"", access.ScopeWorkspace, access.FormatScopes(drawScopes(m.t, "asked"))}).Draw(m.t, "scope")
	r := m.refresh(i.refresh, "scope", asked)
	if r.status != 200 {
		if code := r.str("error"); code != "invalid_scope" && !(code == "invalid_grant" && (i.ended || m.role == "")) {
			m.t.Fatalf("got %s", r.body)
		}
		return
	}
	if i.ended || m.role == "" {
		m.t.Fatal("what has ended is refreshed")
	}
	i.scope, i.access, i.refresh = r.str("scope"), r.str("access_token"), r.str("refresh_token")
}

func (m *model) edits() {
	if m.scopes == nil {
		return
	}
	g, err := m.db.GrantOf(m.ctx, m.ws.ID, m.client.ID, m.user.ID)
	must(m, err)
	m.scopes = drawScopes(m.t, "grant")
	must(m, m.db.SetGrantScopes(m.ctx, m.ws.ID, g.ID, m.scopes))
}

func (m *model) narrows() {
	m.ceiling = drawScopes(m.t, "ceiling")
	p := oauth.Policy{Workspace: m.ws.ID, Client: m.client.ID, Ceiling: m.ceiling, CreatedAt: m.now()}
	_, err := m.db.EnsurePolicy(m.ctx, p)
	must(m, err)
	must(m, m.db.UpdatePolicy(m.ctx, p))
}

func (m *model) promotes() {
	m.role = rapid.SampledFrom([]access.Role{access.Admin, access.Member, ""}).Draw(m.t, "role")
	if m.role == "" {
		m.db.RemoveMember(m.ctx, m.ws.ID, m.user.ID) // who may be gone already
		return
	}
	must(m, m.db.SetMember(m.ctx, m.ws.ID, m.user.ID, m.role, m.now()))
}

func (m *model) revokes() {
	g, err := m.db.GrantOf(m.ctx, m.ws.ID, m.client.ID, m.user.ID)
	if err != nil {
		return
	}
	must(m, m.db.RevokeGrant(m.ctx, m.ws.ID, g.ID, m.now()))
	for i := range m.live {
		m.live[i].ended = true
	}
}

// Whatever happens in whatever order, no token gives more than the minimum of
// its scope, the live grant, the ceiling and the role, and refreshing never
// raises it.
//
// A plain run takes 1,000 sequences, one that leaves nothing out 10,000.
func TestOAuth_1_3_NoTokenExceedsTheMinimum(t *testing.T) {
	sequences := 1_000
	if os.Getenv("TRUSTPAGER_TEST_REQUIRE") == "all" && !testing.Short() {
		sequences = 10_000
	}
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	must(t, checks.Value.Set(strconv.Itoa(sequences)))
	defer checks.Value.Set(before)
	f := one(t)
	taken := 0
	rapid.Check(t, func(rt *rapid.T) {
		own := &fixture{TB: t, ctx: t.Context(), db: f.db, s: f.s, h: f.h, clock: f.clock}
		own.ws = access.Workspace{ID: typeid.NewID("ws"), Name: "Acme", Plan: access.Pro, TimeZone: "UTC", CreatedAt: own.clock,
			Settings: access.Settings{ApprovalTTL: access.DefaultApprovalTTL}}
		must(t, f.db.CreateWorkspace(own.ctx, own.ws))
		own.user = access.User{ID: typeid.NewID("usr"), Email: fmt.Sprint(typeid.NewID("mail"), "@example.com"), Name: "Ada", CreatedAt: own.clock}
		must(t, f.db.CreateUser(own.ctx, own.user, "hash"))
		must(t, f.db.SetMember(own.ctx, own.ws.ID, own.user.ID, access.Admin, own.clock))
		own.client = own.add(oauth.Client{})
		m := &model{fixture: own, t: rt, ceiling: cat().Scopes("act"), role: access.Admin}
		taken++
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			switch rapid.IntRange(0, 11).Draw(rt, "step") {
			case 0, 1, 2:
				m.consents()
			case 3, 4, 5, 6, 7:
				m.refreshes()
			case 8:
				m.edits()
			case 9:
				m.narrows()
			case 10:
				m.promotes()
			case 11:
				if rapid.IntRange(0, 3).Draw(rt, "really") == 0 {
					m.revokes()
				}
			}
			m.check()
		}
	})
	if taken < sequences && !testing.Short() { // of which rapid takes a fifth
		t.Errorf("only %d sequences were taken", taken)
	}
}
