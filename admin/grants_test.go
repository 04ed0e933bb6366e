package admin_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
)

// member makes a person with the role in the workspace.
func (w *world) member(email string, role access.Role) access.User {
	w.t.Helper()
	u, err := w.desk.AddUser(w.t.Context(), w.op, email, strings.ToUpper(email[:1]), "", role)
	w.must(err)
	return u
}

// browser is what the person may do on the pages today.
func (w *world) browser(email string) access.Grant {
	w.t.Helper()
	u, _, err := w.db.UserByEmail(w.t.Context(), email)
	w.must(err)
	p, err := w.desk.Person(w.t.Context(), u.ID)
	w.must(err)
	g, err := w.desk.PersonGrant(p, w.ws.ID)
	w.must(err)
	return g
}

// keyOf makes a full-access key as the person, in the browser.
func (w *world) keyOf(email string) access.Grant {
	w.t.Helper()
	_, g := w.make(w.browser(email), rights("full"))
	return g
}

func (w *world) scopes(text string) []access.Scope {
	w.t.Helper()
	all, err := w.desk.ParseScopes(strings.Fields(text))
	w.must(err)
	return all
}

// grantOf stores a consent of the user; of nobody, the client acts for itself.
func (w *world) grantOf(client string, u access.User, scopes string) oauth.Grant {
	w.t.Helper()
	now := w.clock.Now()
	gr, err := w.db.SaveGrant(w.t.Context(), oauth.Grant{ID: typeid.NewID("grt"), Workspace: w.ws.ID, Client: client, User: u.ID,
		Scopes: w.scopes(scopes), CreatedAt: now, ConsentedAt: now})
	w.must(err)
	return gr
}

// today is what the grant lets its client do at its next request.
func (w *world) today(grant string) access.Grant {
	w.t.Helper()
	d, err := w.db.DelegationOf(w.t.Context(), w.ws.ID, grant)
	w.must(err)
	return d.Grant(nil, w.desk.Catalog.RoleRights)
}

// levels are what the grant allows at its next request, as contacts read, write
// and delete.
func (w *world) levels(grant string) string {
	w.t.Helper()
	g := w.today(grant)
	return fmt.Sprint(g.Decide("contacts", access.Read), g.Decide("contacts", access.Write), g.Decide("contacts", access.Delete))
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestAdminNarrowsButNeverWidens(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		client := w.client(w.op, admin.ClientInput{Scopes: &[]string{"contacts:delete", "deals:write"}}).Client.ID
		ada := w.member("ada@example.com", access.Admin)
		boss := w.member("boss@example.com", access.Owner)
		id := w.grantOf(client, ada, "contacts:write").ID
		_, full := w.key("full")
		for who, g := range map[string]access.Grant{"operator": w.op, "owner": w.browser(boss.Email), "owner's key": w.keyOf(boss.Email), "operator's key": full} {
			for _, wider := range []string{"contacts:delete-approval", "contacts:delete", "contacts:write deals:read"} {
				_, err := w.desk.UpdateGrant(ctx, g, id, w.scopes(wider))
				w.denied(err, problem.Validation, "which only they can widen")
				if err == nil {
					w.t.Errorf("%s widens to %s", who, wider)
				}
			}
		}
		want(w.t, "before", w.levels(id), fmt.Sprint(access.Run, access.Run, access.Deny))
		after, err := w.desk.UpdateGrant(ctx, full, id, w.scopes("contacts:write-approval"))
		w.must(err)
		want(w.t, "answer", access.FormatScopes(after.Scopes), "contacts:write-approval")
		want(w.t, "narrowed", w.levels(id), fmt.Sprint(access.Run, access.Queue, access.Deny))
		_, err = w.desk.UpdateGrant(ctx, w.op, id, w.scopes("contacts:write"))
		w.denied(err, problem.Validation, "contacts:write")
		_, err = w.desk.UpdateGrant(ctx, w.op, id, nil)
		w.must(err)
		want(w.t, "without any right", w.levels(id), fmt.Sprint(access.Deny, access.Deny, access.Deny))
		_, err = w.desk.UpdateGrant(ctx, w.op, id, nil) // nothing changes
		w.must(err)
		want(w.t, "events", w.events(id), "grant.changed grant.changed")
	})
}

func TestPersonWidensWithinCeilingAndRole(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		client := w.client(w.op, admin.ClientInput{Scopes: &[]string{"contacts:write", "company:write"}}).Client.ID
		ada := w.member("ada@example.com", access.Admin)
		mo := w.member("mo@example.com", access.Member)
		hers, his := w.grantOf(client, ada, "contacts:read").ID, w.grantOf(client, mo, "contacts:read").ID

		for who, g := range map[string]access.Grant{"in the browser": w.browser(ada.Email), "with a key": w.keyOf(ada.Email)} {
			_, err := w.desk.UpdateGrant(ctx, g, hers, w.scopes("contacts:read"))
			w.must(err)
			_, err = w.desk.UpdateGrant(ctx, g, hers, w.scopes("contacts:write company:write"))
			w.must(err)
			want(w.t, who, w.levels(hers), fmt.Sprint(access.Run, access.Run, access.Deny))
			for _, beyond := range []string{"contacts:delete-approval", "deals:read"} {
				_, err = w.desk.UpdateGrant(ctx, g, hers, w.scopes("contacts:read "+beyond))
				w.denied(err, problem.Validation, "role: "+beyond)
			}
			_, err = w.desk.UpdateGrant(ctx, g, his, w.scopes("contacts:write"))
			w.denied(err, problem.Validation, "which only they can widen")
		}
		member := w.browser(mo.Email)
		_, err := w.desk.UpdateGrant(ctx, member, his, w.scopes("contacts:write"))
		w.must(err)
		_, err = w.desk.UpdateGrant(ctx, member, his, w.scopes("company:write")) // within the ceiling, beyond the role
		w.denied(err, problem.Validation, "company:write")
		most, err := w.desk.GrantBounds(ctx, member, his)
		w.must(err)
		if most.Level("contacts", access.Write) != access.Run || most.Level("contacts", access.Delete) != access.Deny || most.Level("company", access.Write) != access.Deny {
			w.t.Errorf("bounds: got %v", most)
		}

		// What the admin takes from the client later is taken at the next request.
		_, err = w.desk.UpdateClient(ctx, w.op, client, admin.ClientInput{Scopes: &[]string{"contacts:write-approval"}})
		w.must(err)
		want(w.t, "a lower ceiling", w.levels(hers), fmt.Sprint(access.Run, access.Queue, access.Deny))
		_, err = w.desk.UpdateGrant(ctx, w.browser(ada.Email), hers, w.scopes("contacts:write"))
		w.denied(err, problem.Validation, "ceiling")
		_, err = w.desk.UpdateClient(ctx, w.op, client, admin.ClientInput{Scopes: &[]string{}})
		w.must(err)
		want(w.t, "no ceiling", w.levels(hers), fmt.Sprint(access.Deny, access.Deny, access.Deny))
	})
}

func TestMemberSeesAndEndsOnlyTheirOwnGrants(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		client := w.client(w.op, admin.ClientInput{}).Client.ID
		ada, mo := w.member("ada@example.com", access.Member), w.member("mo@example.com", access.Member)
		hers, his := w.grantOf(client, ada, "contacts:read").ID, w.grantOf(client, mo, "contacts:read").ID
		g := w.browser(mo.Email)
		for name, do := range map[string]func() error{
			"grant":  func() error { _, err := w.desk.Grant(ctx, g, hers); return err },
			"bounds": func() error { _, err := w.desk.GrantBounds(ctx, g, hers); return err },
			"update": func() error { _, err := w.desk.UpdateGrant(ctx, g, hers, nil); return err },
			"revoke": func() error { _, err := w.desk.RevokeGrant(ctx, g, hers); return err },
		} {
			if err := do(); !problem.Is(err, problem.NotFound) {
				w.t.Errorf("%s: got %v, want %s", name, err, problem.NotFound)
			}
		}
		for _, q := range []oauth.GrantQuery{{}, {User: mo.ID}, {Client: client}, {User: ada.ID}} {
			q.Limit = 10
			found, err := w.desk.Grants(ctx, g, q)
			w.must(err)
			if q.User == ada.ID {
				if len(found) != 0 {
					w.t.Errorf("of somebody else: got %v, want none", found)
				}
			} else if len(found) != 1 || found[0].ID != his {
				w.t.Errorf("%+v: got %v, want only his", q, found)
			}
		}
		ended, err := w.desk.RevokeGrant(ctx, g, his)
		w.must(err)
		if ended.RevokedAt.IsZero() {
			w.t.Error("the grant is not revoked")
		}
		want(w.t, "his", w.levels(his), fmt.Sprint(access.Deny, access.Deny, access.Deny))
		want(w.t, "hers", w.events(hers), "")

		for who, g := range w.outsiders() {
			for name, do := range map[string]func() error{
				"grants": func() error { _, err := w.desk.Grants(ctx, g, oauth.GrantQuery{Limit: 10}); return err },
				"grant":  func() error { _, err := w.desk.Grant(ctx, g, hers); return err },
				"bounds": func() error { _, err := w.desk.GrantBounds(ctx, g, hers); return err },
				"update": func() error { _, err := w.desk.UpdateGrant(ctx, g, hers, nil); return err },
				"revoke": func() error { _, err := w.desk.RevokeGrant(ctx, g, hers); return err },
			} {
				if err := do(); !problem.Is(err, problem.InsufficientScope) {
					w.t.Errorf("%s, %s: got %v, want %s", who, name, err, problem.InsufficientScope)
				}
			}
		}
	})
}

func TestGrantsAreFilteredAndPaged(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		one, two := w.client(w.op, admin.ClientInput{}).Client.ID, w.client(w.op, admin.ClientInput{}).Client.ID
		ada, mo := w.member("ada@example.com", access.Member), w.member("mo@example.com", access.Member)
		ids := []string{w.grantOf(one, ada, "").ID, w.grantOf(one, mo, "").ID, w.grantOf(two, ada, "").ID, w.grantOf(two, access.User{}, "").ID}
		_, err := w.desk.RevokeGrant(ctx, w.op, ids[0])
		w.must(err)
		slices.Reverse(ids) // newest first: two, two of ada, one of mo, one of ada
		for name, tt := range map[string]struct {
			q    oauth.GrantQuery
			want []string
		}{
			"all":      {oauth.GrantQuery{}, ids},
			"client":   {oauth.GrantQuery{Client: one}, ids[2:]},
			"user":     {oauth.GrantQuery{User: ada.ID}, []string{ids[1], ids[3]}},
			"both":     {oauth.GrantQuery{User: ada.ID, Client: two}, ids[1:2]},
			"in force": {oauth.GrantQuery{InForce: true}, ids[:3]},
			"none":     {oauth.GrantQuery{User: "usr_x"}, nil},
		} {
			var got []string
			tt.q.Limit = 1
			for {
				page, err := w.desk.Grants(ctx, w.op, tt.q)
				w.must(err)
				if len(page) == 0 {
					break
				}
				got, tt.q.Before = append(got, page[0].ID), page[0].ID
			}
			if !slices.Equal(got, tt.want) {
				w.t.Errorf("%s: got %q, want %q", name, got, tt.want)
			}
		}
		found, err := w.desk.Grant(ctx, w.op, ids[1])
		w.must(err)
		if found.UserEmail != ada.Email || found.ClientName != "Client" {
			w.t.Errorf("got %+v, want the names of client and user", found)
		}
	})
}

func TestClientThatActsForItselfHasNoScopesOfItsOwn(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		client := w.client(w.op, admin.ClientInput{ClientCredentials: ptr(true), Scopes: &[]string{"contacts:write"}}).Client.ID
		id := w.grantOf(client, access.User{}, "").ID
		_, err := w.desk.UpdateGrant(ctx, w.op, id, w.scopes("contacts:read"))
		w.denied(err, problem.Conflict, "acts for itself")
		want(w.t, "may", w.levels(id), fmt.Sprint(access.Run, access.Run, access.Deny))
		most, err := w.desk.GrantBounds(ctx, w.op, id)
		w.must(err)
		if most.Level("company", access.Read) != access.Deny {
			w.t.Errorf("bounds: got %v", most)
		}
		_, err = w.desk.UpdateClient(ctx, w.op, client, admin.ClientInput{Scopes: &[]string{"contacts:read"}})
		w.must(err)
		want(w.t, "with a lower ceiling", w.levels(id), fmt.Sprint(access.Run, access.Deny, access.Deny))
		_, err = w.desk.RevokeGrant(ctx, w.op, id)
		w.must(err)
		want(w.t, "revoked", w.levels(id), fmt.Sprint(access.Deny, access.Deny, access.Deny))
	})
}

func TestRevokedGrantEndsAndComesBackWithAnotherConsent(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		client := w.client(w.op, admin.ClientInput{}).Client.ID
		ada := w.member("ada@example.com", access.Member)
		id := w.grantOf(client, ada, "contacts:write-approval").ID
		family := oauth.Family{ID: typeid.NewID("fam"), Workspace: w.ws.ID, Grant: id, Client: client, User: ada.ID, Resource: "https://crm.example.com/mcp",
			Scope: access.ScopeWorkspace, CreatedAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(time.Hour)}
		w.must(w.db.CreateFamily(ctx, family))
		asked := w.ask(w.today(id), "Zoe")
		alive := func() bool {
			w.t.Helper()
			d, alive, err := w.db.Delegation(ctx, w.ws.ID, family.ID)
			w.must(err)
			return alive && d.RevokedAt.IsZero()
		}
		if !alive() {
			w.t.Fatal("the tokens are not in force")
		}
		first, err := w.desk.RevokeGrant(ctx, w.op, id)
		w.must(err)
		w.clock.Advance(time.Hour)
		again, err := w.desk.RevokeGrant(ctx, w.op, id)
		w.must(err)
		if !again.RevokedAt.Equal(first.RevokedAt) || first.RevokedAt.IsZero() {
			w.t.Errorf("revoked twice: got %v, want %v", again.RevokedAt, first.RevokedAt)
		}
		if alive() {
			w.t.Error("the tokens are still in force")
		}
		_, err = w.desk.UpdateGrant(ctx, w.op, id, nil)
		w.denied(err, problem.Conflict, "is revoked")
		pending, err := w.s.Gate.Approval(ctx, w.op, asked.ID)
		w.must(err)
		want(w.t, "approval", string(pending.Status), "pending")

		back := w.grantOf(client, ada, "contacts:read")
		if back.ID != id || !back.RevokedAt.IsZero() {
			w.t.Errorf("got %+v, want the grant %s in force", back, id)
		}
		want(w.t, "connected again", w.levels(id), fmt.Sprint(access.Run, access.Deny, access.Deny))
		if alive() {
			w.t.Error("a new consent revives the old tokens")
		}
		_, err = w.desk.RevokeGrant(ctx, w.op, id)
		w.must(err)
		want(w.t, "events", w.events(id), "grant.revoked grant.revoked")
	})
}

func TestRevokeManyGrants(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		_, err := w.desk.RevokeGrants(ctx, w.op, "", "")
		w.denied(err, problem.MissingFields, "neither a client nor a user")
		one, two := w.client(w.op, admin.ClientInput{}).Client.ID, w.client(w.op, admin.ClientInput{}).Client.ID
		ada, mo := w.member("ada@example.com", access.Member), w.member("mo@example.com", access.Member)
		var ids []string
		connect := func() {
			ids = nil
			for _, c := range []string{one, two} {
				for _, u := range []access.User{ada, mo} {
					ids = append(ids, w.grantOf(c, u, "contacts:read").ID)
				}
			}
		}
		standing := func() (s string) {
			for _, id := range ids {
				s += fmt.Sprint(min(int(w.today(id).Decide("contacts", access.Read)), 1))
			}
			return s
		}
		for _, tt := range []struct {
			client, user string
			n            int
			left         string
		}{
			{one, "", 2, "0011"}, {"", ada.ID, 2, "0101"}, {two, mo.ID, 1, "1110"}, {"cli_x", "", 0, "1111"}, {"", "usr_x", 0, "1111"},
		} {
			connect()
			want(w.t, "connected", standing(), "1111")
			n, err := w.desk.RevokeGrants(ctx, w.op, tt.client, tt.user)
			w.must(err)
			if n != tt.n {
				w.t.Errorf("%+v: got %d", tt, n)
			}
			want(w.t, fmt.Sprint(tt), standing(), tt.left)
			if n, err = w.desk.RevokeGrants(ctx, w.op, tt.client, tt.user); n != 0 || err != nil {
				w.t.Errorf("%+v again: got %d (%v), want none", tt, n, err)
			}
		}
		want(w.t, "events", w.events(ids[0]), "grant.revoked grant.revoked") // of one and of ada

		many := w.client(w.op, admin.ClientInput{}).Client.ID
		for i := range 103 { // more than a page
			w.grantOf(many, w.member(fmt.Sprintf("u%d@example.com", i), access.Member), "contacts:read")
		}
		if n, err := w.desk.RevokeGrants(ctx, w.op, many, ""); n != 103 || err != nil {
			w.t.Errorf("got %d (%v), want 103", n, err)
		}
	})
}

func TestOfManyWhoEndAGrantOneDoes(t *testing.T) {
	eachWorld(t, func(w *world) {
		client := w.client(w.op, admin.ClientInput{}).Client.ID
		ada := w.member("ada@example.com", access.Member)
		id := w.grantOf(client, ada, "contacts:read").ID
		var total atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if i%2 == 0 {
					n, err := w.desk.RevokeGrants(w.t.Context(), w.op, client, "")
					total.Add(int64(n))
					if err != nil {
						w.t.Error(err)
					}
					return
				}
				if _, err := w.desk.RevokeGrant(w.t.Context(), w.browser(ada.Email), id); err != nil {
					w.t.Error(err)
				}
			})
		}
		wg.Wait()
		want(w.t, "events", w.events(id), "grant.revoked")
		if total.Load() > 1 {
			w.t.Errorf("got %d as ended, want it counted once", total.Load())
		}
	})
}

func TestRemovedUserLosesTheirGrants(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		client := w.client(w.op, admin.ClientInput{}).Client.ID
		ada, mo := w.member("ada@example.com", access.Member), w.member("mo@example.com", access.Member)
		hers, his := w.grantOf(client, ada, "contacts:read").ID, w.grantOf(client, mo, "contacts:read").ID
		w.must(w.desk.RemoveUser(ctx, w.op, ada.Email))
		want(w.t, "hers", w.levels(hers), fmt.Sprint(access.Deny, access.Deny, access.Deny))
		want(w.t, "his", w.levels(his), fmt.Sprint(access.Run, access.Deny, access.Deny))
		want(w.t, "events", w.events(hers), "grant.revoked")
		gr, err := w.desk.Grant(ctx, w.op, hers)
		w.must(err)
		if gr.RevokedAt.IsZero() {
			w.t.Error("the grant is in force")
		}
		w.member(ada.Email, access.Member) // invited again
		want(w.t, "invited again", w.levels(hers), fmt.Sprint(access.Deny, access.Deny, access.Deny))
	})
}

func TestRoleOfTodayCounts(t *testing.T) {
	eachWorld(t, func(w *world) {
		client := w.client(w.op, admin.ClientInput{Scopes: &[]string{"company:write"}}).Client.ID
		ada := w.member("ada@example.com", access.Admin)
		id := w.grantOf(client, ada, "company:write").ID
		if got := w.today(id).Decide("company", access.Write); got != access.Run {
			w.t.Errorf("as an admin: got %v, want it run", got)
		}
		w.member(ada.Email, access.Member)
		if got := w.today(id).Decide("company", access.Write); got != access.Deny {
			w.t.Errorf("as a member: got %v, want it denied", got)
		}
	})
}

func TestParseScopes(t *testing.T) {
	eachWorld(t, func(w *world) {
		_, err := w.desk.ParseScopes([]string{"contacts:read", "contacts:fly", "x", "nothing:read"})
		w.faults(err, "scopes.1", "scopes.2", "scopes.3")
		_, err = w.desk.ParseScopes(slices.Repeat([]string{"x"}, 1000))
		if n := len(problem.Of(err).Fields); n != 50 {
			w.t.Errorf("got %d faults, want 50 at most", n)
		}
		got, err := w.desk.ParseScopes([]string{"deals:read", "contacts:read", "deals:read"})
		w.must(err)
		want(w.t, "scopes", access.FormatScopes(got), "contacts:read deals:read")
	})
}
