package web_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/oauth"
)

func scopes(t *testing.T, text string) []access.Scope {
	t.Helper()
	s, err := access.ParseScopes(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConsentAsksForLoginFirst(t *testing.T) {
	s := newSite(t)
	for _, s.failure = range []error{nil, oauth.ErrLoginFirst} {
		a := s.get(authorize)
		u, err := url.Parse(a.location())
		if a.StatusCode != 303 || err != nil || u.Path != "/login" {
			t.Fatalf("failure %v: got %d %q, want the login", s.failure, a.StatusCode, a.location())
		}
		back, err := url.Parse(u.Query().Get("next"))
		if err != nil || back.Path != oauth.AuthorizePath || back.Query().Get("redirect_uri") != "https://claude.ai/api/cb" || back.Query().Get("state") != "s" {
			t.Errorf("failure %v: next is %q, want the request", s.failure, back)
		}
		page := s.get(a.location())
		if got := page.Header.Get("Content-Security-Policy"); !strings.Contains(got, "form-action 'self' https:;") {
			t.Errorf("the login's form may not lead on to the client: %q", got)
		}
		if a := s.do("POST", authorize, url.Values{"decision": {"allow"}}); a.StatusCode != 303 || !strings.HasPrefix(a.location(), "/login?") || s.decision != "" {
			t.Errorf("a decision of nobody: got %d %q, %q", a.StatusCode, a.location(), s.decision)
		}
	}
}

func TestWrongRequests(t *testing.T) {
	s := newSite(t)
	s.failure = &oauth.RequestError{Code: "invalid_request", Message: "the redirect URI <b> is not registered", Fix: "Connect again in the app."}
	if a := s.get(authorize); a.StatusCode != 400 || !strings.Contains(a.body, "redirect URI &lt;b&gt; is not") || !strings.Contains(a.body, "Connect again in the app.") || a.location() != "" {
		t.Errorf("untrusted: got %d %q %s, want a page", a.StatusCode, a.location(), a.body)
	}
	s.failure = &oauth.RequestError{Code: "invalid_scope", Location: "https://claude.ai/api/cb?error=invalid_scope"}
	if a := s.get(authorize); a.StatusCode != 303 || !strings.HasPrefix(a.location(), "/login?") {
		t.Errorf("nobody is there: got %d %q, want the login first", a.StatusCode, a.location())
	}
	s.login()
	if a := s.get(authorize); a.StatusCode != 400 || a.location() != "" || !strings.Contains(a.body, `<a href="https://claude.ai/api/cb?error=invalid_scope">Return to <bdi>claude.ai</bdi></a>`) {
		t.Errorf("a client that anybody can be: got %d %q %s, want a page that leads back", a.StatusCode, a.location(), a.body)
	}
	s.request.Client.Origin = oauth.Registered
	if a := s.get(authorize); a.StatusCode != 303 || a.location() != "https://claude.ai/api/cb?error=invalid_scope" {
		t.Errorf("a client of the admins': got %d %q, want back to the client", a.StatusCode, a.location())
	}
	s.failure = &oauth.RequestError{Code: "invalid_scope", Location: "cursor://anysphere.cursor-mcp/cb?error=invalid_scope"}
	s.request.Client.Origin = oauth.Dynamic
	if a := s.get(authorize); !strings.Contains(a.body, `<a href="cursor://anysphere.cursor-mcp/cb?error=invalid_scope">Return to the app that handles`) {
		t.Errorf("an app: got %s, want a link to it", a.body)
	}
}

func TestConsentPage(t *testing.T) {
	s := newSite(t)
	s.login()
	a := s.get(authorize)
	for _, want := range []string{"Connect <bdi>Claude</bdi> to <bdi>Harbour Fit-outs</bdi>?", "priya@example.com", "member", "<b><bdi>claude.ai</bdi></b>",
		"Verified: its own page at", "Not you?", ">Allow<", ">Deny<", "<title>Connect Claude to Harbour Fit-outs · TrustPager</title>",
		"Sees contacts, customers, deals and", "Changes nothing.",
		"You are asked before it changes records or uses AI. An admin of the workspace will be asked before it deletes records or sends messages.",
		"By itself it changes records and uses AI. An admin of the workspace will be asked before it deletes records or sends messages.", "Not on offer to this app: Webhooks, Company, Users, Integrations, Billing."} {
		if !strings.Contains(a.body, want) {
			t.Errorf("want %q in %s", want, a.body)
		}
	}
	if got := checked(a.body, "preset"); got != "recommended" {
		t.Errorf("preset: got %q, want recommended", got)
	}
	if strings.Contains(a.body, `value="delete"`) {
		t.Error("the page offers a position above the ceiling")
	}
}

func TestWhoIsAskedIsTold(t *testing.T) {
	s := newSite(t)
	s.login()
	s.offer.Ceiling = access.FullRights
	s.offer.Most = s.cat.RoleRights(access.Member)
	if a := s.get(authorize); !strings.Contains(a.body, "You are asked before it changes records, deletes records, sends messages or uses AI.") {
		t.Errorf("with no ceiling the member decides all: %s", a.body)
	}
	s.offer.Workspace.Settings.AlwaysAsk = []access.Mark{{Resource: "deals", Verb: "delete"}, {Resource: "contacts", Verb: "write"}}
	a := s.get(authorize)
	if want := "An admin of the workspace will be asked before it changes contacts or deletes deals."; strings.Count(a.body, want) != 2 {
		t.Errorf("marks that always ask: want %q twice in %s", want, a.body)
	}
	if want := "By itself it changes records (but not contacts) and uses AI."; !strings.Contains(a.body, want) {
		t.Errorf("marks that always ask: want %q in %s", want, a.body)
	}
	s.bound(catalog.PresetAct, access.Owner)
	p := s.people["right"]
	p.Memberships = []access.Membership{{Workspace: harbour, Role: access.Owner}}
	s.people["right"] = p
	if a := s.get(authorize); strings.Contains(a.body, "An admin") {
		t.Errorf("an owner decides all: %s", a.body)
	}
}

func TestWhereTheBrowserReturns(t *testing.T) {
	s := newSite(t)
	s.login()
	for _, tt := range []struct{ uri, says, action string }{
		{"https://claude.ai/cb", "<b><bdi>claude.ai</bdi></b>", "'self' https:"},
		{"https://app.example.com:8443/cb", "app.example.com:8443", "'self' https:"},
		{"http://localhost:33418/", "a program on this computer (<b><bdi>localhost:33418</bdi></b>)", "'self' http://localhost:33418"},
		{"http://127.0.0.1:8000/cb", "127.0.0.1:8000", "'self' http://127.0.0.1:8000"},
		{"http://[::1]:8000/cb", "a program on this computer (<b><bdi>[::1]:8000", "'self' http:"},
		{"cursor://anysphere.cursor-mcp/oauth/callback", "the app that handles <b><bdi>cursor://</bdi></b>", "'self' cursor:"},
		{"com.example.app:/cb", "the app that handles <b><bdi>com.example.app:</bdi></b>", "'self' com.example.app:"},
		{"https://сlaude.ai/cb", `U+0441</span>laude.ai`, "'self'"},
		{"https://x.example;default-src *//cb", "x.example", "'self'"},
		{"javascript:alert(1)", "", "'self'"},
		{"data:text/html,x", "", "'self'"},
		{"http://evil.example/", "evil.example", "'self'"},
	} {
		s.request.RedirectURI = tt.uri
		a := s.get(authorize)
		csp := a.Header.Get("Content-Security-Policy")
		_, action, _ := strings.Cut(csp, "form-action ")
		action, _, _ = strings.Cut(action, "; ")
		if a.StatusCode != 200 || !strings.Contains(a.body, tt.says) || action != tt.action || strings.Count(csp, "default-src") != 1 {
			t.Errorf("%s: got %d, form-action %s; want %s and %q in %s", tt.uri, a.StatusCode, action, tt.action, tt.says, a.body)
		}
		anonymous := newSite(t)
		login := anonymous.get("/login?next=" + url.QueryEscape(oauth.AuthorizePath+"?"+url.Values{"redirect_uri": {tt.uri}}.Encode()))
		if got := login.Header.Get("Content-Security-Policy"); !strings.Contains(got, "form-action "+tt.action+"; ") {
			t.Errorf("login for %s: got %s, want form-action %s", tt.uri, got, tt.action)
		}
	}
}

func TestChoiceOfWorkspace(t *testing.T) {
	s := newSite(t)
	p := s.people["right"]
	p.Memberships = append(p.Memberships, access.Membership{Workspace: quay, Role: access.Owner})
	s.people["right"] = p
	s.login()
	a := s.get(authorize)
	if a.StatusCode != 200 || !strings.Contains(a.body, "Which workspace shall") || checked(a.body, "workspace") != harbour.ID || !strings.Contains(a.body, `name="redirect_uri" value="https://claude.ai/api/cb"`) {
		t.Fatalf("several workspaces: got %d %s, want the choice", a.StatusCode, a.body)
	}
	for _, chosen := range []string{"ws_other", "", "ws_harbour'"} {
		if a := s.get(authorize + "&workspace=" + url.QueryEscape(chosen)); !strings.Contains(a.body, "Which workspace shall") {
			t.Errorf("workspace %q: got %s, want the choice again", chosen, a.body)
		}
		if a := s.do("POST", authorize, url.Values{"decision": {"allow"}, "workspace": {chosen}}); a.StatusCode != 200 || s.decision != "" {
			t.Errorf("decision for workspace %q: got %d, %q; want nothing decided", chosen, a.StatusCode, s.decision)
		}
	}
	a = s.get(authorize + "&workspace=" + quay.ID)
	if !strings.Contains(a.body, "to <bdi>Quay Kitchens</bdi>?") || !strings.Contains(a.body, "Choose another workspace") {
		t.Errorf("chosen: got %s", a.body)
	}
	if a := s.do("POST", authorize, url.Values{"decision": {"allow"}, "workspace": {quay.ID}}); a.location() != s.location || s.decision != "allow ws_quay" {
		t.Errorf("allow: got %q, %q", a.location(), s.decision)
	}
	s.request.Workspace = harbour.ID
	if a := s.get(authorize + "&workspace=" + quay.ID); !strings.Contains(a.body, "to <bdi>Harbour Fit-outs</bdi>?") || strings.Contains(a.body, "Choose another") {
		t.Errorf("fixed by the client: got %s", a.body)
	}
	s.request.Workspace = "ws_other"
	if a := s.get(authorize); a.StatusCode != 403 || !strings.Contains(a.body, "do not belong to") {
		t.Errorf("fixed to a foreign one: got %d %s", a.StatusCode, a.body)
	}
	s.request.Workspace = ""
	s.people["right"] = admin.Person{User: p.User, Stamp: "1"}
	if a := s.get(authorize); a.StatusCode != 403 || !strings.Contains(a.body, "do not belong to any workspace") {
		t.Errorf("no workspace: got %d %s", a.StatusCode, a.body)
	}
}

// The form's words and what they store.
func TestWhatIsAllowed(t *testing.T) {
	s := newSite(t)
	s.login()
	read := access.FormatScopes(slices.DeleteFunc(s.cat.Scopes(catalog.PresetRead), s.isAdmin))
	recommended := access.FormatScopes(slices.DeleteFunc(s.cat.Scopes(catalog.PresetRecommended), s.isAdmin))
	act := access.FormatScopes(slices.DeleteFunc(s.cat.Scopes(catalog.PresetAct), s.isAdmin))
	for _, tt := range []struct{ name, form, want string }{
		{"read", "preset=read", read},
		{"recommended", "preset=recommended", recommended},
		{"act", "preset=act", act},
		{"nothing", "", read},
		{"unknown preset", "preset=full", read},
		{"empty preset", "preset=", read},
		{"preset twice", "preset=act&preset=read", read},
		{"custom without ladders", "preset=custom", read},
		{"ladders without custom", "r.contacts=write", read},
		{"ladders with a preset", "preset=read&r.contacts=write", read},
		{"custom", "preset=custom&r.contacts=write&r.deals=read&r.email=none", "contacts:write deals:read"},
		{"nothing at all", "preset=custom&r.contacts=none", ""},
		{"all of a ladder", "preset=custom&r.contacts=all-approval&r.email=send-approval&r.ai=use", "ai:use contacts:write-approval contacts:delete-approval email:send-approval"},
		{"above the ceiling", "preset=custom&r.contacts=delete&r.email=send", "contacts:write contacts:delete-approval email:send-approval"},
		{"above the role", "preset=custom&r.contacts=read&r.users=read", "contacts:read"},
		{"unknown position", "preset=custom&r.contacts=read&r.deals=everything", read},
		{"position of another ladder", "preset=custom&r.contacts=send", read},
		{"unknown resource", "preset=custom&r.contacts=read&r.gold=read", read},
		{"position twice", "preset=custom&r.contacts=read&r.contacts=write", read},
		{"stray field", "preset=custom&r.contacts=read&scope=contacts:delete", "contacts:read"},
	} {
		form, err := url.ParseQuery(tt.form)
		if err != nil {
			t.Fatal(err)
		}
		form.Set("decision", "allow")
		s.decision, s.allowed = "", nil
		a := s.do("POST", authorize, form)
		got := access.FormatScopes(s.allowed)
		if want, err := access.ParseScopes(tt.want); err != nil || a.location() != s.location || s.decision != "allow ws_harbour" || s.amount(got) != s.amount(access.FormatScopes(want)) {
			t.Errorf("%s: got %d, %q, scopes %q; want %q", tt.name, a.StatusCode, s.decision, got, tt.want)
		}
	}
	s.decision = ""
	if a := s.do("POST", authorize, url.Values{"decision": {"deny"}, "preset": {"act"}}); a.StatusCode != 303 || a.location() != s.location || s.decision != "deny" {
		t.Errorf("deny: got %d %q, %q", a.StatusCode, a.location(), s.decision)
	}
	s.decision = ""
	for _, decision := range []string{"", "ALLOW", "yes"} {
		if a := s.do("POST", authorize, url.Values{"decision": {decision}, "preset": {"act"}}); a.StatusCode != 200 || !strings.Contains(a.body, "Nothing is decided yet") || s.decision != "" {
			t.Errorf("decision %q: got %d, %q; want the page again", decision, a.StatusCode, s.decision)
		}
	}
}

// isAdmin reports whether the scope is of the Admin Only group.
func (s *site) isAdmin(scope access.Scope) bool {
	r, _ := s.cat.Resource(scope.Resource)
	return r.Group == catalog.AdminOnly
}

// amount returns what scopes come to, resource by resource, so that two ways to
// write the same compare equal.
func (s *site) amount(text string) string {
	parsed, _ := access.ParseScopes(text)
	rights := access.RightsOf(parsed)
	var all []string
	for _, r := range s.cat.Resources() {
		p, _ := r.Ladder.Position(rights.Levels(r.Name).On(r.Ladder))
		all = append(all, r.Name+"="+p.Name)
	}
	return strings.Join(all, " ")
}

func TestWhatIsSelected(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fine    string // scopes asked for, "" for the coarse one
		before  string // scopes granted, "" for a first consent
		preset  string
		ladders map[string]string
		want    []string
		not     string
	}{
		{name: "coarse", preset: "recommended"},
		{name: "fine", fine: "contacts:write deals:read", preset: "custom", ladders: map[string]string{"r.contacts": "write", "r.deals": "read"}},
		{name: "fine above the ceiling", fine: "contacts:delete", preset: "custom", ladders: map[string]string{"r.contacts": "delete-approval"}},
		{name: "again", before: "contacts:write", preset: "custom", ladders: map[string]string{"r.contacts": "write", "r.deals": "none"}, want: []string{"You said yes to it before", "What you chose then is selected."}},
		{name: "again, as a preset", before: "PRESET read", preset: "read", want: []string{"What you chose then is selected."}},
		{name: "again, more and less", fine: "contacts:write deals:read", before: "contacts:read deals:write tasks:read", preset: "custom",
			want: []string{"More</b> Contacts: Read → Write automatically", "Less</b> Deals: Write automatically → Read", "What it does not ask for now stays"}, not: "Tasks: Read"},
		{name: "again, the same", fine: "contacts:read", before: "contacts:read tasks:read", preset: "custom", want: []string{"It asks for nothing more."}, not: "What you chose then"},
		{name: "again, with a lower ceiling", before: "contacts:delete", preset: "custom", ladders: map[string]string{"r.contacts": "delete-approval"}, want: []string{"What you chose then is selected."}},
	} {
		s := newSite(t)
		s.login()
		if tt.fine != "" {
			s.request.Coarse, s.request.Scopes = false, scopes(t, tt.fine)
			s.offer.Most = s.offer.Most.Min(access.RightsOf(s.request.Scopes))
		}
		if tt.before != "" {
			s.offer.Grant = &oauth.Grant{ConsentedAt: s.now.Add(-48 * time.Hour)}
			if preset, ok := strings.CutPrefix(tt.before, "PRESET "); ok {
				s.offer.Grant.Scopes = s.cat.Scopes(catalog.Preset(preset))
			} else {
				s.offer.Grant.Scopes = scopes(t, tt.before)
			}
		}
		a := s.get(authorize)
		if got := checked(a.body, "preset"); got != tt.preset {
			t.Errorf("%s: preset: got %q, want %q", tt.name, got, tt.preset)
		}
		for name, want := range tt.ladders {
			if got := checked(a.body, name); got != want && (got != "" || want != "none") {
				t.Errorf("%s: %s: got %q, want %q", tt.name, name, got, want)
			}
		}
		if tt.not != "" && strings.Contains(a.body, tt.not) {
			t.Errorf("%s: want no %q in %s", tt.name, tt.not, a.body)
		}
		for _, want := range tt.want {
			if !strings.Contains(a.body, want) {
				t.Errorf("%s: want %q in %s", tt.name, want, a.body)
			}
		}
	}
}

func TestChangedClientsAreMarked(t *testing.T) {
	s := newSite(t)
	s.login()
	s.offer.Changed, s.offer.Grant = true, &oauth.Grant{ConsentedAt: s.now}
	if a := s.get(authorize); !strings.Contains(a.body, "has changed its name, its addresses or its keys") {
		t.Errorf("changed client: no notice in %s", a.body)
	}
	s.request.Client.Origin, s.request.Client.ID = oauth.Dynamic, "cli_1"
	if a := s.get(authorize); !strings.Contains(a.body, "It registered itself; its name is not verified") {
		t.Errorf("dynamic client: %s", a.body)
	}
	s.request.Client.Origin = oauth.Registered
	if a := s.get(authorize); !strings.Contains(a.body, "Registered by an admin of the workspace") {
		t.Errorf("registered client: %s", a.body)
	}
}

// What was shown must be what is decided about.
func TestDecisionIsAboutWhatWasShown(t *testing.T) {
	s := newSite(t)
	s.login()
	_, shown, _ := strings.Cut(s.get(authorize).body, `name="shown" value="`)
	shown, _, _ = strings.Cut(shown, `"`)
	form := url.Values{"decision": {"allow"}, "preset": {"act"}, "shown": {shown}}
	s.request.Client.Name = "Your bank"
	if a := s.do("POST", authorize, form); a.StatusCode != 200 || s.decision != "" || !strings.Contains(a.body, "has changed while you were reading") {
		t.Errorf("the client changed in between: got %d, %q; want the page again", a.StatusCode, s.decision)
	}
	s.request.Client.Name = "Claude"
	if a := s.do("POST", authorize, form); a.StatusCode != 303 || s.decision == "" {
		t.Errorf("unchanged: got %d, %q; want it decided", a.StatusCode, s.decision)
	}
}

func TestHostileNames(t *testing.T) {
	s := newSite(t)
	s.login()
	s.offer.Grant = &oauth.Grant{ConsentedAt: s.now}
	for name, want := range map[string]string{
		`<script>alert(1)</script>`:             "&lt;script&gt;alert(1)&lt;/script&gt;",
		`"><img src=x onerror=alert(1)>`:        "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;",
		"Claude\u202egpj.exe":                   `Claude<span class="hidden-char" title="a hidden or misleading character">U+202E</span>gpj.exe`,
		"Cl\u200baude":                          "U+200B</span>aude",
		"Claude\u2066 x\u2069":                  "U+2066",
		"tag\U000E0041\U000E007F":               "U+E0041",
		"nul\x00":                               "U+0000",
		"new\nline":                             "U+000A",
		"no-break\u00a0space":                   "U+00A0",
		"filler\u3164":                          "U+3164",
		"blank\u2800":                           "U+2800",
		"variation\ufe0f":                       "U+FE0F",
		"bad\xffbyte":                           "U+FFFD",
		"private\ue000":                         "U+E000",
		"soft\u00adhyphen":                      "U+00AD",
		"Zoë 数据 — plain":                        "<bdi>Zoë 数据 — plain</bdi>",
		"{{.Me}} ${x} %s":                       "{{.Me}} ${x} %s",
		"</title><script>x</script>":            "&lt;/title&gt;",
		strings.Repeat("A very long name ", 20): "A very long name A very long name",
	} {
		s.request.Client.Name = name
		s.grants = []oauth.Grant{{ID: "grt_1", Workspace: harbour.ID, User: "usr_priya", ClientName: name}}
		for _, path := range []string{authorize, "/connections", "/connections/grt_1", "/connections/grt_1/disconnect"} {
			a := s.get(path)
			if a.StatusCode != 200 || !strings.Contains(a.body, want) {
				t.Errorf("%q on %s: got %d, want %q in %s", name, path, a.StatusCode, want, a.body)
			}
			if strings.Count(a.body, "<script") > 1 || strings.Contains(a.body, "<img") || strings.ContainsAny(a.body, "\u202e\u200b\u2066\u2069\x00\U000E0041\u00a0\u3164") {
				t.Errorf("%q on %s: gets through as it is", name, path)
			}
		}
	}
}
