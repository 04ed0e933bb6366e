package catalog

import (
	"testing"

	"pgregory.net/rapid"

	"trustpager/access"
)

// What decides over people never runs for a credential, whatever it holds, and
// goes no further for it than any other action of the verb; for people and the
// operator the mark changes nothing.
func TestPeopleDecideHoldsForEveryGrant(t *testing.T) {
	cat, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	marked := 0
	var scopes []access.Scope
	for _, r := range cat.Resources() {
		for _, rung := range r.Ladder.Rungs() {
			scopes = append(scopes, access.Scope{Resource: r.Name, Rung: rung})
		}
	}
	for _, a := range cat.Actions() {
		if a.PeopleDecide && !a.Lends() {
			marked++
		}
	}
	if marked != 3 {
		t.Fatalf("%d actions have the mark, want invite_user, update_user_role and remove_user", marked)
	}
	rapid.Check(t, func(rt *rapid.T) {
		g := access.Grant{Principal: access.Principal{Kind: rapid.SampledFrom([]access.Kind{"", access.KindKey, access.KindOAuth, access.KindPerson, access.KindOperator, access.KindSystem}).Draw(rt, "kind"),
			User: rapid.SampledFrom([]string{"", "usr_1"}).Draw(rt, "user")}, MayDecide: rapid.Bool().Draw(rt, "decide")}
		g.Rights = access.RightsOf(rapid.SliceOfN(rapid.SampledFrom(scopes), 0, 8).Draw(rt, "scopes"))
		if rapid.Bool().Draw(rt, "full") {
			g.Rights = access.FullRights
		}
		g.Unnarrowed = g.Rights
		if rapid.Bool().Draw(rt, "asks") {
			g.Workspace.Settings.AlwaysAsk = []access.Mark{{Resource: "users", Verb: "write"}}
		}
		a := rapid.SampledFrom(cat.Actions()).Draw(rt, "action")
		if a.Resource == "" || a.own {
			return
		}
		plain := g.Decide(a.Resource, a.Verb)
		want := plain
		if a.PeopleDecide && g.Principal.Kind != access.KindPerson && g.Principal.Kind != access.KindOperator {
			want = min(plain, access.Queue)
		}
		if got := a.Level(g); got != want {
			rt.Errorf("%s for a %s: got %s, want %s", a.Name, g.Principal.Kind, got, want)
		}
	})
}

// The plan and the rules are refused by name, in the description of no tool.
func TestRefusedMembersSayWhoSetsThem(t *testing.T) {
	cat, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := cat.Find("update_company")
	for _, r := range a.refused {
		for _, f := range a.Fields() {
			if f.Name == r.name {
				t.Errorf("%s is both a field and refused", r.name)
			}
		}
		if _, err := a.Decode("", []byte(`{"name":"x","`+r.name+`":1}`)); err == nil {
			t.Errorf("%s is taken", r.name)
		}
	}
	if len(a.refused) != 8 {
		t.Errorf("%d members are refused, want 8", len(a.refused))
	}
}
