package access_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trustpager/access"
)

var ladders = map[string]access.Ladder{"contacts": access.RecordLadder, "email": access.MessageLadder, "ai": access.AILadder}

// someScopes draws a set of scopes on the ladders.
func someScopes(t *rapid.T, label string) []access.Scope {
	var all []access.Scope
	for _, resource := range []string{"ai", "contacts", "email"} {
		for _, rung := range ladders[resource].Rungs() {
			all = append(all, access.Scope{Resource: resource, Rung: rung})
		}
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 6, func(s access.Scope) string { return s.String() }).Draw(t, label)
}

// A delegation never allows more than each of token, grant, ceiling and role,
// and exactly the least of them.
func TestDelegationGivesTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		role := access.RightsOf(someScopes(t, "role"))
		if rapid.Bool().Draw(t, "owner") {
			role = access.FullRights
		}
		d := access.Delegation{ID: "grt_x", Client: "cli_x", ClientName: "Client", User: access.User{ID: "usr_x", Name: "Priya", Role: access.Member},
			Scopes: someScopes(t, "granted"), Ceiling: someScopes(t, "ceiling")}
		var token *access.Token
		switch rapid.IntRange(0, 2).Draw(t, "token") {
		case 1:
			token = &access.Token{Scope: "workspace offline_access"}
		case 2:
			token = &access.Token{Scope: access.FormatScopes(someScopes(t, "scope")) + " offline_access"}
		}
		g := d.Grant(token, func(access.Role) access.Rights { return role })
		if g.Rights.Full() || g.IsAdmin() || g.MayDecide {
			t.Fatal("an OAuth client administers or decides")
		}
		for resource, ladder := range ladders {
			for _, v := range ladder.Verbs() {
				unnarrowed := min(access.RightsOf(d.Ceiling).Level(resource, v), role.Level(resource, v))
				want := min(unnarrowed, access.RightsOf(d.Scopes).Level(resource, v))
				if token != nil && !token.Coarse() {
					want = min(want, access.RightsOf(token.FineScopes()).Level(resource, v))
				}
				if got := g.Decide(resource, v); got != want {
					t.Fatalf("%s %s: got %v, want %v", resource, v, got, want)
				}
				decider := access.DeciderAdmin
				if unnarrowed == access.Run {
					decider = access.DeciderOwner
				}
				if got := g.DeciderOf(resource, v); got != decider {
					t.Fatalf("%s %s: %v decides, want %v", resource, v, got, decider)
				}
			}
		}
		d.RevokedAt = time.Unix(1, 0)
		if g := d.Grant(token, func(access.Role) access.Rights { return role }); g.Decide("contacts", access.Read) != access.Deny || g.DeciderOf("contacts", access.Read) != access.DeciderAdmin {
			t.Fatal("a revoked delegation still allows something")
		}
	})
}

// Without a user there is no consent and no role: the ceiling and the token say
// it all, and an admin decides.
func TestDelegationOfAClientItself(t *testing.T) {
	ceiling := []access.Scope{{Resource: "contacts", Rung: "write"}, {Resource: "deals", Rung: "write-approval"}}
	d := access.Delegation{ID: "grt_x", Client: "cli_x", ClientName: "Sync", Ceiling: ceiling, Parent: "key_x"}
	g := d.Grant(&access.Token{Scope: "workspace"}, func(access.Role) access.Rights { t.Error("it has no role"); return access.FullRights })
	if g.Decide("contacts", access.Write) != access.Run || g.Decide("deals", access.Write) != access.Queue || g.Decide("tasks", access.Read) != access.Deny {
		t.Errorf("got %v, want what the ceiling says", g.Rights)
	}
	if g.DeciderOf("contacts", access.Write) != access.DeciderAdmin || g.Principal.Name != "Sync" || g.Parent != "key_x" {
		t.Errorf("got %+v, want a client that acts for itself", g)
	}
}

// What the workspace always asks about is the admins' to decide.
func TestAlwaysAskIsDecidedByAdmins(t *testing.T) {
	d := access.Delegation{User: access.User{ID: "usr_x", Role: access.Member}, Ceiling: []access.Scope{{Resource: "contacts", Rung: "delete"}},
		Scopes: []access.Scope{{Resource: "contacts", Rung: "delete"}}}
	d.Workspace.Settings.AlwaysAsk = []access.Mark{{Resource: "contacts", Verb: "delete"}}
	g := d.Grant(nil, func(access.Role) access.Rights { return access.FullRights })
	if g.Decide("contacts", access.Delete) != access.Queue || g.DeciderOf("contacts", access.Delete) != access.DeciderAdmin {
		t.Error("what is always asked about is run, or decided by its user")
	}
}

// Whatever combination of authorities there is, the ladder control shows it.
func TestEveryMinimumHasAPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := access.RightsOf(someScopes(t, "a")).Min(access.RightsOf(someScopes(t, "b"))).Min(access.RightsOf(someScopes(t, "c")))
		for resource, ladder := range ladders {
			levels := r.Levels(resource).On(ladder)
			p, ok := ladder.Position(levels)
			if !ok {
				t.Fatalf("%s: no position gives %v", resource, levels)
			}
			if got := access.RightsOf(p.Scopes(resource)).Levels(resource); got != levels {
				t.Fatalf("%s: %s stores %v, which gives %v, want %v", resource, p.Title, p.Scopes(resource), got, levels)
			}
		}
	})
}

func TestPositions(t *testing.T) {
	for ladder := range map[access.Ladder]bool{access.RecordLadder: true, access.MessageLadder: true, access.AILadder: true} {
		last := access.Levels{}
		for i, p := range ladder.Positions() {
			if i > 0 && p.Levels() == last {
				t.Errorf("%s: %s gives as much as the position below it", ladder, p.Title)
			}
			last = p.Levels()
			if asks := slices.Contains(last[:], access.Queue); asks != p.Asks {
				t.Errorf("%s: %s asks: %v, want %v", ladder, p.Title, p.Asks, asks)
			}
			if !last.Within(last) || i > 0 && last.Within(access.Levels{}) {
				t.Errorf("%s: Within is wrong for %s", ladder, p.Title)
			}
		}
	}
}

// A client is told to ask for more only where asking again changes something.
func TestStepUp(t *testing.T) {
	write := access.Scope{Resource: "contacts", Rung: "write-approval"}
	for scope, want := range map[string]string{
		"workspace":                    "",
		"workspace contacts:read":      "",
		"contacts:read":                "contacts:read contacts:write-approval",
		"contacts:read offline_access": "contacts:read offline_access contacts:write-approval",
		"contacts:write":               "", // the grant lacks it, not the token
		"contacts:delete-approval":     "",
		"":                             "contacts:write-approval",
		"deals:delete":                 "deals:delete contacts:write-approval",
	} {
		if got := (&access.Token{Scope: scope}).StepUp(write); got != want {
			t.Errorf("a token with %q: got %q, want %q", scope, got, want)
		}
	}
}
