package admin_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/audit"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

const callback = "https://client.example.com/callback"

// client registers a client as g: with a name and a redirect URI unless in has
// some.
func (w *world) client(g access.Grant, in admin.ClientInput) admin.MadeClient {
	w.t.Helper()
	if in.Name == nil {
		in.Name = ptr("Client")
	}
	if in.RedirectURIs == nil {
		in.RedirectURIs = &[]string{callback}
	}
	made, err := w.desk.CreateClient(w.t.Context(), g, in)
	w.must(err)
	return made
}

// selfRegistered stores a client of the origin that the workspace knows.
func (w *world) selfRegistered(id string, origin oauth.Origin) string {
	w.t.Helper()
	ctx, now := w.t.Context(), w.clock.Now()
	c := oauth.Client{ID: id, Origin: origin, Name: "Itself", RedirectURIs: []string{callback}, AuthMethod: oauth.AuthNone,
		GrantTypes: []string{oauth.GrantCode, oauth.GrantRefresh}, CreatedAt: now}
	if origin == oauth.Metadata {
		w.must(w.db.SaveDocumentClient(ctx, c))
	} else {
		w.must(w.db.CreateClient(ctx, c))
	}
	_, err := w.db.EnsurePolicy(ctx, oauth.Policy{Workspace: w.ws.ID, Client: id, Ceiling: admin.DefaultCeiling(w.desk.Catalog), Limits: access.DefaultLimits, CreatedAt: now})
	w.must(err)
	return id
}

func (w *world) storedClient(id string) (oauth.Client, oauth.Policy) {
	w.t.Helper()
	c, p, err := w.db.ClientOf(w.t.Context(), w.ws.ID, id, false)
	w.must(err)
	return c, p
}

// faults checks that err is about these fields, each of which says what would be
// right.
func (w *world) faults(err error, paths ...string) {
	w.t.Helper()
	if !problem.Is(err, problem.Validation) {
		w.t.Errorf("got %v, want %s", err, problem.Validation)
		return
	}
	var got []string
	for _, f := range problem.Of(err).Fields {
		got = append(got, f.Path)
		if f.Expected == "" || f.Got == "" {
			w.t.Errorf("%s: got %+v, want it to say what is expected and what it got", f.Path, f)
		}
	}
	if !slices.Equal(got, paths) {
		w.t.Errorf("faults: got %q, want %q", got, paths)
	}
}

func TestNewClient(t *testing.T) {
	eachWorld(t, func(w *world) {
		made := w.client(w.op, admin.ClientInput{Name: ptr(" Claude ")})
		c, p := w.storedClient(made.Client.ID)
		if c.Name != "Claude" || c.Origin != oauth.Registered || c.Workspace != w.ws.ID || c.Public() || !slices.Equal(c.RedirectURIs, []string{callback}) ||
			!slices.Equal(c.GrantTypes, []string{oauth.GrantCode, oauth.GrantRefresh}) || c.Maker.Kind != access.KindOperator || !c.CreatedAt.Equal(w.clock.Now().Truncate(time.Millisecond)) {
			w.t.Errorf("got %+v", c)
		}
		if !reflect.DeepEqual(access.FormatScopes(p.Ceiling), access.FormatScopes(w.desk.Catalog.Scopes("act"))) || p.Limits != access.DefaultLimits {
			w.t.Errorf("got the policy %+v, want the act preset and the usual limits", p)
		}
		if made.Secret == "" || c.SecretHash != made.Secret.Hash() || strings.Contains(c.SecretHash, string(made.Secret)) || made.WebhookSecret != nil {
			w.t.Errorf("got the secret's hash %q, want that of the one in the answer", c.SecretHash)
		}
		read, err := w.desk.Client(w.t.Context(), w.op, c.ID)
		w.must(err)
		if read.Secret != "" || read.WebhookSecret != nil {
			w.t.Error("reading the client shows a secret")
		}
		if public := w.client(w.op, admin.ClientInput{Public: ptr(true)}); public.Secret != "" || public.Client.SecretHash != "" || !public.Client.Public() {
			w.t.Errorf("got %+v, want a client without a secret", public.Client)
		}
		alone, err := w.desk.CreateClient(w.t.Context(), w.op, admin.ClientInput{Name: ptr("Sync"), ClientCredentials: ptr(true), Scopes: &[]string{"contacts:read", "contacts:read"},
			Limits: &access.Limits{PerMinute: 5}})
		w.must(err)
		if c, p := w.storedClient(alone.Client.ID); !slices.Contains(c.GrantTypes, oauth.GrantCredentials) || access.FormatScopes(p.Ceiling) != "contacts:read" || p.Limits != (access.Limits{PerMinute: 5}) {
			w.t.Errorf("got %+v with %+v", c, p)
		}
		if got := w.events(c.ID); got != "client.created" {
			w.t.Errorf("got the events %q, want its making only", got)
		}
		entries, err := w.db.AuditEntries(w.t.Context(), w.ws.ID, audit.Query{Target: c.ID, Limit: 1})
		w.must(err)
		if detail := string(entries[0].Detail); strings.Contains(detail, string(made.Secret)) || strings.Contains(detail, c.SecretHash) || !strings.Contains(detail, callback) {
			w.t.Errorf("got the detail %s, want no secret", detail)
		}
	})
}

func TestAllThatIsWrongWithAClientIsToldAtOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		create := func(in admin.ClientInput) error {
			_, err := w.desk.CreateClient(ctx, w.op, in)
			return err
		}
		w.faults(create(admin.ClientInput{
			Name: ptr("a\x00b"), Public: ptr(true), ClientCredentials: ptr(true),
			RedirectURIs: &[]string{callback, "http://client.example.com/", "javascript:alert(1)"},
			Scopes:       &[]string{"contacts:fly", "nothing:read", "contacts:read"},
			Limits:       &access.Limits{PerMinute: -1, PerDay: 1 << 40},
			WebhookURL:   ptr("ftp://x"),
		}), "name", "client_credentials", "redirect_uris.1", "redirect_uris.2", "scopes.0", "scopes.1", "limits.per_minute", "limits.per_day", "webhook_url")
		w.faults(create(admin.ClientInput{}), "name", "redirect_uris")
		w.faults(create(admin.ClientInput{Name: ptr("x"), RedirectURIs: &[]string{}}), "redirect_uris")
		w.faults(create(admin.ClientInput{Name: ptr(strings.Repeat("x", 101)), RedirectURIs: &[]string{callback}}), "name")
		w.faults(create(admin.ClientInput{Name: ptr("a\xff"), RedirectURIs: &[]string{callback}}), "name")
		w.faults(create(admin.ClientInput{Name: ptr("x"), RedirectURIs: ptr(slices.Repeat([]string{callback}, 21))}), "redirect_uris")
		w.denied(create(admin.ClientInput{Name: ptr("x"), RedirectURIs: &[]string{callback}, WebhookEvents: &[]webhook.EventType{webhook.ApprovalRejected}}),
			problem.MissingFields, "webhook_events needs webhook_url")
		many := problem.Of(create(admin.ClientInput{Name: ptr("x"), RedirectURIs: &[]string{callback}, Scopes: ptr(slices.Repeat([]string{"?"}, 1000))})).Fields
		if len(many) != 50 {
			w.t.Errorf("got %d faults, want 50 at most", len(many))
		}
		clients, err := w.desk.Clients(ctx, w.op, "", 10)
		w.must(err)
		if len(clients) != 0 {
			w.t.Errorf("got %d clients, want none", len(clients))
		}

		id := w.client(w.op, admin.ClientInput{}).Client.ID
		before, _ := w.storedClient(id)
		_, err = w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{Name: ptr(""), RedirectURIs: &[]string{}, WebhookURL: ptr("ftp://x")})
		w.faults(err, "name", "redirect_uris", "webhook_url")
		_, err = w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{ClientCredentials: ptr(true), Public: ptr(true)})
		w.faults(err, "client_credentials")
		if after, _ := w.storedClient(id); !reflect.DeepEqual(after, before) {
			w.t.Errorf("got %+v, want nothing changed", after)
		}
		if got := w.events(id); got != "client.created" {
			w.t.Errorf("got the events %q", got)
		}
	})
}

func TestRedirectURIsOfAClient(t *testing.T) {
	eachWorld(t, func(w *world) {
		for uri, good := range map[string]bool{
			callback:                     true,
			"http://localhost/callback":  true,
			"http://127.0.0.1:33418/":    true,
			"http://[::1]/cb":            true,
			"cursor://anysphere/oauth":   true,
			"com.example.app:/callback":  true,
			"http://example.com/":        false,
			"http://localhost.evil.com/": false,
			"https://*.example.com/":     false,
			"https://a@example.com/":     false,
			"https://example.com/#x":     false,
			"https://example.com/a/../b": false,
			"data:text/html,x":           false,
			"javascript:alert(1)":        false,
			"callback":                   false,
			"":                           false,
			"https://example.com/\x00":   false,
			"https://example.com/" + strings.Repeat("x", 2000): false,
		} {
			_, err := w.desk.CreateClient(w.t.Context(), w.op, admin.ClientInput{Name: ptr("x"), RedirectURIs: &[]string{uri}})
			if good {
				w.must(err)
				continue
			}
			w.faults(err, "redirect_uris.0")
		}
	})
}

func TestClientGetsAndLosesItsSecret(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		made := w.client(w.op, admin.ClientInput{Public: ptr(true)})
		id := made.Client.ID
		update := func(in admin.ClientInput) admin.MadeClient {
			w.t.Helper()
			made, err := w.desk.UpdateClient(ctx, w.op, id, in)
			w.must(err)
			return made
		}
		_, err := w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{ClientCredentials: ptr(true)})
		w.faults(err, "client_credentials")

		first := update(admin.ClientInput{Public: ptr(false), ClientCredentials: ptr(true), RedirectURIs: &[]string{}})
		if c, _ := w.storedClient(id); first.Secret == "" || c.SecretHash != first.Secret.Hash() || c.AuthMethod != oauth.AuthBasic {
			w.t.Errorf("got %+v, want the secret of the answer", c)
		}
		if again := update(admin.ClientInput{Public: ptr(false), Name: ptr("Renamed")}); again.Secret != "" {
			w.t.Error("a client that has a secret got another")
		}
		_, err = w.desk.RotateClient(ctx, w.op, id, time.Hour)
		w.must(err)
		_, err = w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{Public: ptr(true)})
		w.faults(err, "client_credentials")
		_, err = w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{ClientCredentials: ptr(false)})
		w.faults(err, "redirect_uris")
		update(admin.ClientInput{Public: ptr(true), ClientCredentials: ptr(false), RedirectURIs: &[]string{callback}})
		if c, _ := w.storedClient(id); c.SecretHash != "" || c.OldSecretHash != "" || !c.Public() || slices.Contains(c.GrantTypes, oauth.GrantCredentials) {
			w.t.Errorf("got %+v, want no secret left", c)
		}
		_, err = w.desk.RotateClient(ctx, w.op, id, 0)
		w.denied(err, problem.Conflict, "has no secret")
		second := update(admin.ClientInput{Public: ptr(false)})
		if second.Secret == "" || second.Secret == first.Secret {
			w.t.Errorf("got the secret of before again, want a new one")
		}
		if got, want := w.events(id), "client.created client.changed client.changed client.rotated client.changed client.changed"; got != want {
			w.t.Errorf("got the events %q, want %q", got, want)
		}
	})
}

func TestClientThatRegisteredItself(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		for _, id := range []string{
			w.selfRegistered(typeid.NewID("cli"), oauth.Dynamic),
			w.selfRegistered("https://agent.example.com/client.json", oauth.Metadata),
		} {
			before, _ := w.storedClient(id)
			for name, in := range map[string]admin.ClientInput{
				"name":        {Name: ptr("Other")},
				"uris":        {RedirectURIs: &[]string{callback}},
				"public":      {Public: ptr(false)},
				"credentials": {ClientCredentials: ptr(true)},
			} {
				_, err := w.desk.UpdateClient(ctx, w.op, id, in)
				w.denied(err, problem.Conflict, "registered itself")
				if w.t.Failed() {
					w.t.Fatal(name)
				}
			}
			_, err := w.desk.RotateClient(ctx, w.op, id, 0)
			w.denied(err, problem.Conflict, "no secret of this workspace")
			_, full := w.key("full")
			_, err = w.desk.UpdateClient(ctx, full, id, admin.ClientInput{Scopes: &[]string{"contacts:read"}, Limits: &access.Limits{PerMinute: 3, PerDay: 3}, WebhookURL: ptr("http://127.0.0.1:9999/")})
			w.must(err)
			after, p := w.storedClient(id)
			if !reflect.DeepEqual(after, before) || access.FormatScopes(p.Ceiling) != "contacts:read" || p.Limits.PerMinute != 3 {
				w.t.Errorf("got %+v with %+v, want only the policy changed", after, p)
			}
			w.must(w.desk.DeleteClient(ctx, full, id))
			_, err = w.desk.Client(ctx, w.op, id)
			w.denied(err, problem.NotFound, "")
			if _, err := w.db.Client(ctx, id); err != nil {
				w.t.Errorf("got %v, want the client to be there for other workspaces", err)
			}
			if got, want := w.events(id), "webhook.set client.changed client.deleted"; got != want {
				w.t.Errorf("got the events %q, want %q", got, want)
			}
		}
	})
}

func TestRotatedClientSecret(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		made := w.client(w.op, admin.ClientInput{})
		id := made.Client.ID
		rotated, err := w.desk.RotateClient(ctx, w.op, id, 24*time.Hour)
		w.must(err)
		c, _ := w.storedClient(id)
		if c.SecretHash != rotated.Secret.Hash() || c.OldSecretHash != made.Secret.Hash() || !c.OldUntil.Equal(w.clock.Now().Add(24*time.Hour).Truncate(time.Millisecond)) {
			w.t.Errorf("got %+v, want both secrets for a day", c)
		}
		w.must(func() error {
			_, err := w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{Name: ptr("Renamed")})
			return err
		}())
		if c, _ := w.storedClient(id); c.OldSecretHash != made.Secret.Hash() {
			w.t.Error("an edit ends the overlap")
		}
		again, err := w.desk.RotateClient(ctx, w.op, id, 0)
		w.must(err)
		if c, _ := w.storedClient(id); c.SecretHash != again.Secret.Hash() || c.OldSecretHash != rotated.Secret.Hash() || c.OldUntil.After(w.clock.Now()) {
			w.t.Errorf("got %+v, want no overlap", c)
		}
		for _, overlap := range []time.Duration{-1, admin.MaxOverlap + 1} {
			_, err := w.desk.RotateClient(ctx, w.op, id, overlap)
			w.faults(err, "overlap_hours")
		}
	})
}

func TestClientsWebhook(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		made := w.client(w.op, admin.ClientInput{WebhookURL: ptr("http://127.0.0.1:9999/hook"), WebhookEvents: &[]webhook.EventType{webhook.ApprovalExpired}})
		id := made.Client.ID
		if made.WebhookSecret == nil {
			w.t.Fatal("no secret of the webhook")
		}
		e, err := w.desk.ClientWebhook(ctx, w.op, id)
		w.must(err)
		if e.URL != "http://127.0.0.1:9999/hook" || !slices.Contains(e.Events, webhook.ApprovalExpired) {
			w.t.Errorf("got %+v", e)
		}
		secret, err := w.desk.RotateClientWebhook(ctx, w.op, id, time.Hour)
		w.must(err)
		if secret.Text() == made.WebhookSecret.Text() {
			w.t.Error("got the same secret again")
		}
		sent, err := w.desk.TestClientWebhook(ctx, w.op, id)
		w.must(err)
		if sent.ID == "" {
			w.t.Errorf("got %+v, want a delivery", sent)
		}
		set, err := w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{WebhookURL: ptr("http://127.0.0.1:9998/")})
		w.must(err)
		if set.WebhookSecret == nil {
			w.t.Error("a webhook that was set anew has no secret in the answer")
		}
		removed, err := w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{WebhookURL: ptr("")})
		w.must(err)
		if removed.WebhookSecret != nil {
			w.t.Error("removing it answers with a secret")
		}
		_, err = w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{WebhookURL: ptr("")}) // nothing to remove
		w.must(err)
		_, err = w.desk.ClientWebhook(ctx, w.op, id)
		w.denied(err, problem.NotFound, "")
		_, err = w.desk.TestClientWebhook(ctx, w.op, id)
		w.denied(err, problem.NotFound, "")
		_, err = w.desk.RotateClientWebhook(ctx, w.op, id, 0)
		w.denied(err, problem.NotFound, "")
		if got, want := w.events(id), "webhook.set client.created webhook.rotated webhook.tested webhook.set webhook.removed"; got != want {
			w.t.Errorf("got the events %q, want %q", got, want)
		}
	})
}

func TestDeletedClientTakesItsGrantsAlong(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		made := w.client(w.op, admin.ClientInput{WebhookURL: ptr("http://127.0.0.1:9999/hook")})
		id := made.Client.ID
		var grants, asked []string
		for i := range 3 {
			u := w.member(fmt.Sprintf("u%d@example.com", i), access.Member)
			gr := w.grantOf(id, u, "contacts:write-approval")
			grants = append(grants, gr.ID)
			asked = append(asked, w.ask(w.today(gr.ID), fmt.Sprint("Ada ", i)).ID)
		}
		_, err := w.desk.RevokeGrant(ctx, w.op, grants[2]) // whose approval stays
		w.must(err)
		sent, err := w.desk.TestClientWebhook(ctx, w.op, id)
		w.must(err)
		w.must(w.db.AddUsage(ctx, []access.Count{{Workspace: w.ws.ID, Credential: grants[0], Hour: w.clock.Now().Truncate(time.Hour), Action: "list_contacts", Outcome: access.OutcomeOK, N: 3}}, nil))

		w.must(w.desk.DeleteClient(ctx, w.op, id))
		_, err = w.desk.Client(ctx, w.op, id)
		w.denied(err, problem.NotFound, id)
		w.denied(w.desk.DeleteClient(ctx, w.op, id), problem.NotFound, id)
		for i, gr := range grants {
			if _, err := w.db.DelegationOf(ctx, w.ws.ID, gr); !problem.Is(err, problem.NotFound) {
				w.t.Errorf("grant %d: got %v, want it gone", i, err)
			}
			a, err := w.s.Gate.Approval(ctx, w.op, asked[i])
			w.must(err)
			if a.Status != "withdrawn" {
				w.t.Errorf("approval %d: got %s, want it withdrawn", i, a.Status)
			}
		}
		counts, err := w.db.UsageHistory(ctx, w.ws.ID, grants[0], time.Time{})
		w.must(err)
		if len(counts) != 0 {
			w.t.Errorf("got %v, want the usage gone", counts)
		}
		deliveries, err := w.desk.Deliveries(ctx, w.op, webhook.Query{Limit: 10})
		w.must(err)
		if len(deliveries) != 1 || deliveries[0].ID != sent.ID {
			w.t.Errorf("got %+v, want the delivery to go on", deliveries)
		}
		_, err = w.db.EndpointOf(ctx, w.ws.ID, id)
		if !problem.Is(err, problem.NotFound) {
			w.t.Errorf("webhook: got %v, want it retired", err)
		}
		if got, want := w.events(id), "webhook.set client.created webhook.tested client.deleted"; got != want {
			w.t.Errorf("got the events %q, want %q", got, want)
		}
	})
}

// outsiders are those who manage neither clients nor grants.
func (w *world) outsiders() map[string]access.Grant {
	w.t.Helper()
	_, agent := w.key("contacts:delete company:delete users:delete")
	return map[string]access.Grant{
		"agent's key":  agent,
		"OAuth client": {Principal: access.Principal{Kind: access.KindOAuth, ID: typeid.NewID("grt"), User: "usr_x", Client: "cli_x"}, Workspace: w.ws, Rights: access.FullRights},
		"nobody":       {Workspace: w.ws},
	}
}

func TestOnlyAdminsManageClients(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		id := w.client(w.op, admin.ClientInput{WebhookURL: ptr("http://127.0.0.1:9999/")}).Client.ID
		all := w.outsiders()
		u := w.member("m@example.com", access.Member)
		all["member"] = w.browser(u.Email)
		for who, g := range all {
			for name, do := range map[string]func() error{
				"create":  func() error { _, err := w.desk.CreateClient(ctx, g, admin.ClientInput{}); return err },
				"update":  func() error { _, err := w.desk.UpdateClient(ctx, g, id, admin.ClientInput{}); return err },
				"client":  func() error { _, err := w.desk.Client(ctx, g, id); return err },
				"clients": func() error { _, err := w.desk.Clients(ctx, g, "", 10); return err },
				"rotate":  func() error { _, err := w.desk.RotateClient(ctx, g, id, 0); return err },
				"delete":  func() error { return w.desk.DeleteClient(ctx, g, id) },
				"webhook": func() error { _, err := w.desk.ClientWebhook(ctx, g, id); return err },
				"secret":  func() error { _, err := w.desk.RotateClientWebhook(ctx, g, id, 0); return err },
				"test":    func() error { _, err := w.desk.TestClientWebhook(ctx, g, id); return err },
				"revoke":  func() error { _, err := w.desk.RevokeGrants(ctx, g, id, ""); return err },
			} {
				err := do()
				if !problem.Is(err, problem.InsufficientScope) || problem.Of(err).Fix == "" {
					w.t.Errorf("%s, %s: got %v, want %s", who, name, err, problem.InsufficientScope)
				}
			}
		}
		owner := w.member("o@example.com", access.Owner)
		_, full := w.key("full")
		for _, g := range []access.Grant{w.browser(owner.Email), full} {
			mine := w.client(g, admin.ClientInput{})
			_, err := w.desk.RotateClient(ctx, g, mine.Client.ID, 0)
			w.must(err)
			w.must(w.desk.DeleteClient(ctx, g, mine.Client.ID))
		}
		if got := w.events(id); got != "webhook.set client.created" {
			w.t.Errorf("got the events %q, want only its making", got)
		}
	})
}

func TestClientsOfAnotherWorkspaceAreNotFound(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		id := w.client(w.op, admin.ClientInput{}).Client.ID
		gr := w.grantOf(id, w.member("m@example.com", access.Member), "contacts:read")
		other, err := w.desk.CreateWorkspace(ctx, "Two", "UTC")
		w.must(err)
		g := admin.OperatorGrant(other)
		ids := []string{id, "cli_00000000000000000000000000", "cli_\x00", "https://a.example/\x00", "https://a.example/\xff", "https://" + strings.Repeat("x", 100_000), "", "x"}
		for _, id := range ids {
			for name, do := range map[string]func() error{
				"update":  func() error { _, err := w.desk.UpdateClient(ctx, g, id, admin.ClientInput{}); return err },
				"client":  func() error { _, err := w.desk.Client(ctx, g, id); return err },
				"rotate":  func() error { _, err := w.desk.RotateClient(ctx, g, id, 0); return err },
				"delete":  func() error { return w.desk.DeleteClient(ctx, g, id) },
				"webhook": func() error { _, err := w.desk.ClientWebhook(ctx, g, id); return err },
				"secret":  func() error { _, err := w.desk.RotateClientWebhook(ctx, g, id, 0); return err },
				"test":    func() error { _, err := w.desk.TestClientWebhook(ctx, g, id); return err },
			} {
				if err := do(); !problem.Is(err, problem.NotFound) || problem.Of(err).Fix == "" || len(problem.Of(err).Message) > 500 {
					w.t.Errorf("%s %.40q: got %v, want %s", name, id, err, problem.NotFound)
				}
			}
		}
		for _, id := range []string{gr.ID, "grt_00000000000000000000000000", "grt_\x00", "", "x"} {
			for name, do := range map[string]func() error{
				"grant":  func() error { _, err := w.desk.Grant(ctx, g, id); return err },
				"bounds": func() error { _, err := w.desk.GrantBounds(ctx, g, id); return err },
				"update": func() error { _, err := w.desk.UpdateGrant(ctx, g, id, nil); return err },
				"revoke": func() error { _, err := w.desk.RevokeGrant(ctx, g, id); return err },
			} {
				if err := do(); !problem.Is(err, problem.NotFound) || problem.Of(err).Fix == "" {
					w.t.Errorf("%s %q: got %v, want %s", name, id, err, problem.NotFound)
				}
			}
		}
		for _, choice := range [][2]string{{id, ""}, {"", gr.User}, {id, gr.User}, {"\x00", ""}, {"", "\xff"}} {
			if n, err := w.desk.RevokeGrants(ctx, g, choice[0], choice[1]); n != 0 || err != nil {
				w.t.Errorf("revoke %q: got %d (%v), want none", choice, n, err)
			}
		}
		clients, err := w.desk.Clients(ctx, g, "", 10)
		w.must(err)
		grants, err := w.desk.Grants(ctx, g, oauth.GrantQuery{Limit: 10})
		w.must(err)
		if len(clients)+len(grants) != 0 {
			w.t.Errorf("got %v and %v, want another workspace's hidden", clients, grants)
		}
	})
}

func TestKeyRegistersOnlyItsOwnClients(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		makerID, maker := w.key("decide")
		_, other := w.key("decide")
		for name, in := range map[string]admin.ClientInput{
			"name":        {Name: ptr("Other")},
			"uris":        {RedirectURIs: &[]string{callback + "/evil"}},
			"public":      {Public: ptr(true)},
			"credentials": {ClientCredentials: ptr(true)},
		} {
			mine, operators := w.client(maker, admin.ClientInput{}).Client, w.client(w.op, admin.ClientInput{}).Client
			if mine.Parent() != makerID || operators.Parent() != "" {
				w.t.Errorf("got the makers %+v and %+v", mine.Maker, operators.Maker)
			}
			for who, try := range map[string]func() error{
				"another's":  func() error { _, err := w.desk.UpdateClient(ctx, other, mine.ID, in); return err },
				"operator's": func() error { _, err := w.desk.UpdateClient(ctx, other, operators.ID, in); return err },
				"secret":     func() error { _, err := w.desk.RotateClient(ctx, other, mine.ID, 0); return err },
			} {
				if err := try(); !problem.Is(err, problem.InsufficientScope) {
					w.t.Errorf("%s of the %s client: got %v, want %s", name, who, err, problem.InsufficientScope)
				}
			}
			if after, _ := w.storedClient(mine.ID); after.SecretHash != mine.SecretHash || after.Name != mine.Name {
				w.t.Errorf("%s: got %+v, want nothing changed", name, after)
			}
			_, err := w.desk.UpdateClient(ctx, maker, mine.ID, in)
			w.must(err)
			_, err = w.desk.UpdateClient(ctx, w.browser(w.member("boss@example.com", access.Owner).Email), mine.ID, in) // people may all
			w.must(err)
			_, err = w.desk.UpdateClient(ctx, other, mine.ID, admin.ClientInput{Scopes: &[]string{}, Limits: &access.Limits{PerMinute: 1, PerDay: 1}})
			w.must(err) // what it may do is every admin's
		}
	})
}

func TestKeyGivesClientsNoHigherLimitsThanItsOwn(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		in := rights("full")
		in.Limits = &access.Limits{PerMinute: 30, PerDay: 20_000}
		made, slow := w.make(w.op, in)
		create := func(l *access.Limits) (admin.MadeClient, error) {
			return w.desk.CreateClient(ctx, slow, admin.ClientInput{Name: ptr("Sync"), ClientCredentials: ptr(true), Limits: l})
		}
		mine, err := create(nil)
		w.must(err)
		if want := (access.Limits{PerMinute: 30, PerDay: access.DefaultLimits.PerDay}); mine.Policy.Limits != want {
			w.t.Errorf("by default: got %+v, want %+v", mine.Policy.Limits, want)
		}
		for _, l := range []access.Limits{{}, {PerMinute: 31, PerDay: 1}, {PerMinute: 1, PerDay: 20_001}, {PerMinute: 1}} {
			_, err := create(&l)
			w.denied(err, problem.InsufficientScope, "cannot give more than it has")
			_, err = w.desk.UpdateClient(ctx, slow, mine.Client.ID, admin.ClientInput{Limits: &l})
			w.denied(err, problem.InsufficientScope, "cannot give more than it has")
		}
		_, err = create(&access.Limits{PerMinute: 30, PerDay: 20_000})
		w.must(err)
		fast := w.client(w.op, admin.ClientInput{Limits: &access.Limits{}})
		_, err = w.desk.UpdateClient(ctx, slow, fast.Client.ID, admin.ClientInput{Scopes: &[]string{}}) // it had more before
		w.must(err)

		// What the key has today counts, not what it had when it asked.
		_, err = w.desk.UpdateKey(ctx, w.op, made.Key.ID, admin.KeyInput{Limits: &access.Limits{PerMinute: 20}})
		w.must(err)
		_, err = create(&access.Limits{PerMinute: 30, PerDay: 20_000})
		w.denied(err, problem.InsufficientScope, "limit of 20 requests a minute")
	})
}

func TestKeyRevokedMeanwhileRegistersNoClient(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		try := func(g access.Grant) error {
			_, err := w.desk.CreateClient(ctx, g, admin.ClientInput{Name: ptr("x"), RedirectURIs: &[]string{callback}})
			return err
		}
		for name, end := range map[string]func(id string) error{
			"revoked": func(id string) error { _, err := w.desk.RevokeKey(ctx, w.op, id); return err },
			"deleted": func(id string) error { return w.desk.DeleteKey(ctx, w.op, id) },
			"demoted": func(id string) error {
				_, err := w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{FullAccess: ptr(false), Scopes: &[]string{"contacts:read"}})
				return err
			},
		} {
			id, g := w.key("full")
			w.must(try(g))
			w.must(end(id))
			err := try(g)
			w.denied(err, problem.InsufficientScope, "not register clients any more")
			if err == nil {
				w.t.Errorf("%s: the key still registers clients", name)
			}
		}
	})
}

func TestChangesOfAClientAreAuditedOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		made := w.client(w.op, admin.ClientInput{ClientCredentials: ptr(true)})
		id := made.Client.ID
		for _, in := range []admin.ClientInput{
			{},
			{Name: ptr("Client"), Public: ptr(false), ClientCredentials: ptr(true), RedirectURIs: &[]string{callback}},
			{Limits: ptr(access.DefaultLimits)},
		} {
			_, err := w.desk.UpdateClient(ctx, w.op, id, in)
			w.must(err)
		}
		if got := w.events(id); got != "client.created" {
			w.t.Errorf("got the events %q, want none of what changed nothing", got)
		}
		_, err := w.desk.UpdateClient(ctx, w.op, id, admin.ClientInput{Scopes: &[]string{"contacts:read"}, Limits: &access.Limits{}, Name: ptr("Other")})
		w.must(err)
		if got := w.events(id); got != "client.created client.changed" {
			w.t.Errorf("got the events %q, want one of the change", got)
		}
	})
}

func TestClientsAreListedInPages(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		var want []string
		for range 5 {
			want = append(want, w.client(w.op, admin.ClientInput{}).Client.ID)
			w.clock.Advance(time.Second)
		}
		want = append(want, w.selfRegistered("https://agent.example.com/client.json", oauth.Metadata))
		slices.Reverse(want)
		gr := w.grantOf(want[1], w.member("m@example.com", access.Member), "contacts:read")
		gone := w.grantOf(want[1], w.member("n@example.com", access.Member), "contacts:read")
		_, err := w.desk.RevokeGrant(ctx, w.op, gone.ID)
		w.must(err)
		used := w.clock.Now().Truncate(time.Millisecond)
		w.must(w.db.AddUsage(ctx, nil, []access.LastUse{{Workspace: w.ws.ID, Credential: gr.ID, At: used, Action: "list_contacts"}}))
		var got []string
		for after := ""; ; {
			page, err := w.desk.Clients(ctx, w.op, after, 2)
			w.must(err)
			for _, c := range page {
				got = append(got, c.Client.ID)
				after = c.Client.ID
				if connected := c.Client.ID == want[1]; connected != (c.Grants == 1) || connected != c.LastUsedAt.Equal(used) {
					w.t.Errorf("%s: got %d grants, used at %v", c.Client.ID, c.Grants, c.LastUsedAt)
				}
			}
			if len(page) < 2 {
				break
			}
		}
		if !slices.Equal(got, want) {
			w.t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestClientIsRotatedByOneAtATime(t *testing.T) {
	eachWorld(t, func(w *world) {
		id := w.client(w.op, admin.ClientInput{}).Client.ID
		var mu sync.Mutex
		secrets := map[string]bool{}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				made, err := w.desk.RotateClient(w.t.Context(), w.op, id, time.Hour)
				if err != nil {
					w.t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				secrets[made.Secret.Hash()] = true
			})
		}
		wg.Wait()
		c, _ := w.storedClient(id)
		if !secrets[c.SecretHash] || !secrets[c.OldSecretHash] || c.SecretHash == c.OldSecretHash || len(secrets) != 8 {
			w.t.Errorf("got %+v, want the last two of 8 secrets", c)
		}
		if got := strings.Count(w.events(id), "client.rotated"); got != 8 {
			w.t.Errorf("got %d entries, want 8", got)
		}
	})
}
