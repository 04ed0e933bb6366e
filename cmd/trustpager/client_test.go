package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

// wrong runs the program and fails the test unless it says that the command
// line is wrong, with the text.
func wrong(t *testing.T, url, want string, args ...string) {
	t.Helper()
	out, errs, code := command(t, url, "", args...)
	if code != 2 || !strings.Contains(errs, want) {
		t.Errorf("trustpager %s: got exit status %d, %q%q, want 2 and %q", strings.Join(args, " "), code, out, errs, want)
	}
}

// decoded runs the program with --json and decodes what it prints.
func decoded[T any](t *testing.T, url string, args ...string) T {
	t.Helper()
	var v T
	out := ok(t, url, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("trustpager %s: got %q: %v", strings.Join(args, " "), out, err)
	}
	return v
}

type printedClient struct {
	ID, Name     string
	Secret       string   `json:"client_secret"`
	Webhook      string   `json:"webhook_secret"`
	MCP          string   `json:"mcp_url"`
	RedirectURIs []string `json:"redirect_uris"`
}

func TestOperatorRegistersClients(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ok(t, url, "migrate")
		ok(t, url, "workspace", "create", "Acme")
		if out := ok(t, url, "client", "list", "--json"); out != "[]\n" {
			t.Errorf("client list: got %q, want an empty array", out)
		}
		const first, second = "https://a.example.com/cb?x=1,2", "http://127.0.0.1/cb"
		made := decoded[printedClient](t, url, "client", "create", "--name", "Agent", "--redirect-uri", first, "--redirect-uri", second)
		if !slices.Equal(made.RedirectURIs, []string{first, second}) {
			t.Errorf("got the redirect URIs %q, want each whole", made.RedirectURIs)
		}
		if !strings.HasPrefix(made.ID, "cli_") || !strings.HasPrefix(made.Secret, oauth.ClientSecretPrefix) || made.Webhook != "" {
			t.Errorf("got %+v, want an id and a secret", made)
		}
		claude := ok(t, url, "client", "create", "--name", "Claude\u202e", "--for", "claude", "--public", "--preset", "read")
		if strings.Contains(claude, "secret") || strings.Contains(claude, "\u202e") || !strings.Contains(claude, "client id:") {
			t.Errorf("a public client: got %q, want no secret and nothing hidden", claude)
		}

		p := serveBeside(t, url)
		shown := ok(t, url, "client", "create", "--name", "Sync", "--client-credentials", "--scopes", "contacts:read,deals:write", "--per-minute", "5",
			"--webhook-url", "http://127.0.0.1:65000/", "--webhook-events", "approval.expired", "--allow-webhook-net", "127.0.0.0/8")
		if strings.Count(shown, oauth.ClientSecretPrefix) != 1 || strings.Count(shown, "whsec_") != 1 || strings.Count(shown, "shown only now") != 2 || !strings.Contains(shown, p.info.BaseURL+"/mcp") {
			t.Errorf("got %q, want both secrets once, and the MCP URL", shown)
		}

		out := ok(t, url, "client", "list", "--json")
		if strings.Contains(strings.ToLower(out), "secret") || strings.Contains(out, oauth.ClientSecret(made.Secret).Hash()) {
			t.Errorf("client list: got %q, want no secret", out)
		}
		listed := decoded[[]struct {
			ID, Name, Origin, Scopes string
			RedirectURIs             []string `json:"redirect_uris"`
			Public                   bool
			Credentials              bool `json:"client_credentials"`
			Limits                   access.Limits
			Grants                   int
		}](t, url, "client", "list")
		if len(listed) != 3 {
			t.Fatalf("got %+v, want 3 clients", listed)
		}
		if s := listed[0]; s.Name != "Sync" || !s.Credentials || s.Scopes != "contacts:read deals:write" || s.Limits != (access.Limits{PerMinute: 5, PerDay: access.DefaultLimits.PerDay}) || s.Origin != "registered" {
			t.Errorf("got %+v", s)
		}
		if c := listed[1]; !c.Public || !slices.Equal(c.RedirectURIs, oauth.KnownRedirects("claude")) || strings.Contains(c.Scopes, "write") {
			t.Errorf("got %+v, want the URIs of Claude, and the preset read", c)
		}
		if table := ok(t, url, "client", "list"); strings.Contains(table, "\u202e") || !strings.Contains(table, "Claude<U+202E>") || !strings.Contains(table, "registered") {
			t.Errorf("client list: got %q", table)
		}
		ok(t, url, "audit", "verify")
	})
}

func TestOperatorChangesClients(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ok(t, url, "migrate")
		ok(t, url, "workspace", "create", "Acme")
		const own = "https://a.example.com/cb"
		made := decoded[printedClient](t, url, "client", "create", "--name", "Agent", "--redirect-uri", own)
		edit := func(args ...string) printedClient {
			t.Helper()
			return decoded[printedClient](t, url, append([]string{"client", "edit", made.ID}, args...)...)
		}
		if c := edit("--name", "Other", "--per-day", "7"); c.Name != "Other" || c.Secret != "" || !slices.Equal(c.RedirectURIs, []string{own}) {
			t.Errorf("got %+v, want only the name changed", c)
		}
		if c := edit("--for", "vscode"); !slices.Equal(c.RedirectURIs, append([]string{own}, oauth.KnownRedirects("vscode")...)) {
			t.Errorf("got %q, want those of VS Code added", c.RedirectURIs)
		}
		if c := edit("--for", "vscode"); len(c.RedirectURIs) != 1+len(oauth.KnownRedirects("vscode")) {
			t.Errorf("got %q, want none twice", c.RedirectURIs)
		}
		if c := edit("--redirect-uri", own, "--for", "cursor"); !slices.Equal(c.RedirectURIs, append([]string{own}, oauth.KnownRedirects("cursor")...)) {
			t.Errorf("got %q, want them replaced", c.RedirectURIs)
		}
		if c := edit("--redirect-uri", "", "--client-credentials"); len(c.RedirectURIs) != 0 {
			t.Errorf("got %q, want none", c.RedirectURIs)
		}
		edit("--redirect-uri", own, "--no-client-credentials")
		if c := edit("--public"); c.Secret != "" {
			t.Errorf("got a secret of a public client")
		}
		refused(t, url, "has no secret", "client", "rotate", made.ID)
		again := edit("--no-public")
		if again.Secret == "" || again.Secret == made.Secret {
			t.Errorf("got the secret %q, want another", again.Secret)
		}
		rotated := ok(t, url, "client", "rotate", made.ID, "--overlap", "24h")
		if strings.Count(rotated, oauth.ClientSecretPrefix) != 1 || strings.Contains(rotated, again.Secret) {
			t.Errorf("got %q, want another secret once", rotated)
		}
		refused(t, url, "0 to 168", "client", "rotate", made.ID, "--overlap", "169h")
		listed := decoded[[]struct{ Limits access.Limits }](t, url, "client", "list")
		if len(listed) != 1 || listed[0].Limits != (access.Limits{PerMinute: access.DefaultLimits.PerMinute, PerDay: 7}) {
			t.Errorf("got %+v, want the day's limit changed only", listed)
		}
		if out := ok(t, url, "client", "delete", made.ID); out != "" {
			t.Errorf("client delete: got %q, want nothing", out)
		}
		refused(t, url, "there is no client", "client", "delete", made.ID)
	})
}

func TestOperatorEndsGrants(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ok(t, url, "migrate")
		ok(t, url, "workspace", "create", "Acme")
		for _, email := range []string{"ada@example.com", "bob@example.com", "cy@example.com"} {
			ok(t, url, "user", "add", email, "--role", "member")
		}
		client := decoded[printedClient](t, url, "client", "create", "--name", "Agent", "--for", "claude", "--client-credentials").ID
		users := connectAll(t, url, client)

		type grant struct{ ID, Status, Client, User, Email, Scopes string }
		list := func(args ...string) []grant {
			t.Helper()
			return decoded[[]grant](t, url, append([]string{"client", "grants"}, args...)...)
		}
		all := list()
		if len(all) != 4 || len(list("--client", client)) != 4 || len(list("--client", "cli_x")) != 0 || len(list("--user", users["ada@example.com"])) != 1 {
			t.Fatalf("got %+v, want one for each user and one for the client itself", all)
		}
		if g := list("--user", users["ada@example.com"])[0]; g.Email != "ada@example.com" || g.Status != "active" || g.Client != client || g.Scopes != "contacts:read" {
			t.Errorf("got %+v", g)
		}
		if g := list("--user", users["bob@example.com"])[0]; g.Status != "expired" {
			t.Errorf("got %+v, want it expired", g)
		}
		if out := ok(t, url, "client", "grants"); !strings.Contains(out, "(the client itself)") || !strings.Contains(out, "expired") || !strings.Contains(out, "ada@example.com") {
			t.Errorf("client grants: got %q", out)
		}
		refused(t, url, "say what to end", "client", "revoke")
		refused(t, url, "say what to end", "client", "revoke", all[0].ID, "--client", client)
		refused(t, url, "there is no grant", "client", "revoke", "grt_x")
		ada := list("--user", users["ada@example.com"])[0].ID
		ok(t, url, "client", "revoke", ada)
		ok(t, url, "client", "revoke", ada) // twice is fine
		if g := list("--user", users["ada@example.com"])[0]; g.Status != "revoked" {
			t.Errorf("got %+v, want it revoked", g)
		}
		if out := ok(t, url, "client", "revoke", "--user", users["bob@example.com"], "--client", client); out != "Revoked 1.\n" {
			t.Errorf("got %q", out)
		}
		if out := ok(t, url, "client", "revoke", "--client", client); out != "Revoked 2.\n" {
			t.Errorf("got %q, want the other two", out)
		}
		if out := ok(t, url, "client", "revoke", "--client", client); out != "Revoked 0.\n" {
			t.Errorf("got %q, want none left", out)
		}
	})
}

// connectAll stores a grant of each user of the only workspace, and one of the
// client itself; that of Bob is expired. It returns the users' ids by e-mail
// address.
func connectAll(t *testing.T, url, client string) map[string]string {
	t.Helper()
	e := &env{cli: &cli{Database: url, SecretKeyFile: keyFileOf(url, t)}, ctx: t.Context(), now: time.Now}
	s, err := e.desk()
	if err != nil {
		t.Fatal(err)
	}
	defer s.DB.Close()
	g, err := in(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	users, err := s.DB.Users(t.Context(), g.Workspace.ID)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{"": ""}
	for _, u := range users {
		ids[u.Email] = u.ID
	}
	for email, user := range ids {
		gr := oauth.Grant{ID: typeid.NewID("grt"), Workspace: g.Workspace.ID, Client: client, User: user,
			Scopes: []access.Scope{{Resource: "contacts", Rung: "read"}}, CreatedAt: time.Now(), ConsentedAt: time.Now()}
		if email == "bob@example.com" {
			gr.ExpiresAt = time.Now().Add(-time.Hour)
		}
		if _, err := s.DB.SaveGrant(t.Context(), gr); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func TestWrongClientCommands(t *testing.T) {
	url := t.TempDir() + "/test.db"
	ok(t, url, "workspace", "create", "Acme")
	wrong(t, url, "--name", "client", "create")
	wrong(t, url, "claude", "client", "create", "--name", "x", "--for", "netscape")
	wrong(t, url, "recommended", "client", "create", "--name", "x", "--preset", "all")
	wrong(t, url, "per-minute", "client", "create", "--name", "x", "--per-minute", "many")
	wrong(t, url, "<id>", "client", "edit")
	wrong(t, url, "overlap", "client", "rotate", "cli_x", "--overlap", "a day")
	wrong(t, url, "unexpected argument", "client", "frobnicate")
	for name, tt := range map[string]struct {
		says []string
		args []string
	}{
		"no way back":    {[]string{"redirect_uris", "at least one"}, []string{"create", "--name", "x"}},
		"all at once":    {[]string{"redirect_uris.0", "https", "scopes.0", "contacts:fly", "limits.per_minute"}, []string{"create", "--name", "x", "--redirect-uri", "http://example.com", "--scopes", "contacts:fly", "--per-minute=-1"}},
		"both":           {[]string{"client_credentials", "only for a client with a secret"}, []string{"create", "--name", "x", "--for", "claude", "--public", "--client-credentials"}},
		"private hook":   {[]string{"webhook_url"}, []string{"create", "--name", "x", "--for", "claude", "--webhook-url", "http://127.0.0.1/"}},
		"no such client": {[]string{"there is no client", "List the clients"}, []string{"edit", "cli_x", "--name", "y"}},
		"other space":    {[]string{"there is no workspace", "workspace list"}, []string{"list", "--workspace", "Nowhere"}},
	} {
		out, errs, code := command(t, url, "", append([]string{"client"}, tt.args...)...)
		if code != 1 || out != "" || slices.ContainsFunc(tt.says, func(s string) bool { return !strings.Contains(errs, s) }) {
			t.Errorf("%s: got exit status %d, %q%q, want 1 and %q", name, code, out, errs, tt.says)
		}
	}
	if out := ok(t, url, "client", "list", "--json"); out != "[]\n" {
		t.Errorf("got %q, want nothing registered", out)
	}
}

func TestClientHelp(t *testing.T) {
	url := t.TempDir() + "/test.db"
	help := ok(t, url, "client", "--help")
	for _, name := range []string{"client list", "client create", "client edit", "client rotate", "client delete", "client grants", "client revoke"} {
		if !strings.Contains(help, name) {
			t.Errorf("client --help: got %q, want %s", help, name)
		}
	}
	if create := ok(t, url, "client", "create", "--help"); !strings.Contains(create, "several times") || !strings.Contains(create, "--[no-]public") || !strings.Contains(create, "vscode") {
		t.Errorf("client create --help: got %q", create)
	}
}

func TestOperatorSaysWhichClientsMayConnect(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ok(t, url, "migrate")
		ok(t, url, "workspace", "create", "Acme")
		check := func(none bool, hosts ...string) {
			t.Helper()
			type workspace struct {
				Settings struct {
					None  bool     `json:"no_self_registration"`
					Hosts []string `json:"client_hosts"`
				}
			}
			all := decoded[[]workspace](t, url, "workspace", "list")
			if len(all) != 1 || all[0].Settings.None != none || !slices.Equal(all[0].Settings.Hosts, hosts) {
				t.Errorf("got %+v, want %v and %q", all, none, hosts)
			}
		}
		set := func(args ...string) { t.Helper(); ok(t, url, append([]string{"workspace", "set", "Acme"}, args...)...) }
		check(false)
		set("--no-self-registration", "--client-hosts", "claude.ai,cursor.com")
		check(true, "claude.ai", "cursor.com")
		set("--client-hosts", "claude.ai", "--client-hosts", "cursor.com") // or one by one
		set("--people-only")
		check(true, "claude.ai", "cursor.com")
		set("--self-registration")
		check(false, "claude.ai", "cursor.com")
		for _, bad := range []string{"Claude.ai", "https://claude.ai", "claude.ai/x", "claude ai", "a@claude.ai"} {
			refused(t, url, "a host name in lower case", "workspace", "set", "Acme", "--client-hosts", bad)
		}
		check(false, "claude.ai", "cursor.com")
		set("--client-hosts", "")
		check(false)
	})
}
