package access_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"trustpager/access"
)

// The table of design §2, and the positions of the ladder control, which are
// sets of scopes. What is not named is denied.
func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		scopes string
		want   string // verb=level of the resource r
	}{
		{"", ""},
		{"r:read", "read=run"},
		{"r:write-approval", "read=run write=queue"},
		{"r:write", "read=run write=run"},
		{"r:delete-approval", "read=run write=queue delete=queue"},
		{"r:delete", "read=run write=run delete=run"},
		{"r:send-approval", "read=run send=queue"},
		{"r:send", "read=run send=run"},
		{"r:use-approval", "use=queue"},
		{"r:use", "use=run"},

		// Write and delete with approval, write automatically, delete with
		// approval, delete automatically.
		{"r:write-approval r:delete-approval", "read=run write=queue delete=queue"},
		{"r:write r:delete-approval", "read=run write=run delete=queue"},
		{"r:read r:delete", "read=run write=run delete=run"},

		// Custom sets take the maximum of each verb.
		{"r:use r:send-approval", "read=run send=queue use=run"},
		{"r:write r:write-approval", "read=run write=run"},

		// Rights on one resource say nothing of another.
		{"s:delete rr:delete r-:read", ""},
	} {
		t.Run(tt.scopes, func(t *testing.T) {
			g := grantOf(t, tt.scopes)
			for _, v := range verbs {
				want := "deny"
				for _, w := range strings.Fields(tt.want) {
					if name, level, _ := strings.Cut(w, "="); name == v.String() {
						want = level
					}
				}
				if got := g.Decide("r", v).String(); got != want {
					t.Errorf("%s: got %s, want %s", v, got, want)
				}
			}
		})
	}
}

var verbs = []access.Verb{access.Read, access.Write, access.Delete, access.Send, access.Use}

func grantOf(t testing.TB, scopes string) access.Grant {
	t.Helper()
	s, err := access.ParseScopes(scopes)
	if err != nil {
		t.Fatal(err)
	}
	return access.Grant{Rights: access.RightsOf(s)}
}

func TestZeroGrantDeniesAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		resource := rapid.String().Draw(t, "resource")
		for _, v := range verbs {
			if got := (access.Grant{}).Decide(resource, v); got != access.Deny {
				t.Errorf("%s of %q: got %s, want deny", v, resource, got)
			}
		}
	})
	if (access.Grant{}).IsAdmin() || (access.Grant{}).MayDecide {
		t.Error("the zero Grant is an admin or may decide, want neither")
	}
}

func TestAlwaysAskQueuesWhatWouldRun(t *testing.T) {
	w := access.Workspace{Settings: access.Settings{AlwaysAsk: []access.Mark{{Resource: "contacts", Verb: "delete"}}}}
	for _, tt := range []struct {
		kind access.Kind
		want access.Level
	}{
		{access.KindKey, access.Queue},
		{access.KindOAuth, access.Queue},
		{access.KindOperator, access.Queue},
		{access.KindSystem, access.Queue},
		{"", access.Queue},
		{access.KindPerson, access.Run},
	} {
		g := access.Grant{Principal: access.Principal{Kind: tt.kind}, Workspace: w, Rights: access.FullRights}
		if got := g.Decide("contacts", access.Delete); got != tt.want {
			t.Errorf("kind %q: got %s, want %s", tt.kind, got, tt.want)
		}
		if got := g.Decide("contacts", access.Write); got != access.Run {
			t.Errorf("kind %q, a verb without the mark: got %s, want run", tt.kind, got)
		}
		if got := g.Decide("deals", access.Delete); got != access.Run {
			t.Errorf("kind %q, a resource without the mark: got %s, want run", tt.kind, got)
		}
		g.Rights = access.Rights{}
		if got := g.Decide("contacts", access.Delete); got != access.Deny {
			t.Errorf("kind %q: a mark raised deny to %s", tt.kind, got)
		}
	}
}

func TestIsAdmin(t *testing.T) {
	for _, tt := range []struct {
		kind   access.Kind
		rights access.Rights
		want   bool
	}{
		{access.KindKey, access.FullRights, true},
		{access.KindPerson, access.FullRights, true},
		{access.KindOperator, access.FullRights, true},
		{access.KindOAuth, access.FullRights, false},
		{access.KindKey, grantOf(t, "company:delete users:delete billing:delete").Rights, false},
		{access.KindKey, access.Rights{}, false},
	} {
		g := access.Grant{Principal: access.Principal{Kind: tt.kind}, Rights: tt.rights}
		if got := g.IsAdmin(); got != tt.want {
			t.Errorf("%s with full rights %t: got %t, want %t", tt.kind, tt.rights.Full(), got, tt.want)
		}
	}
}

func TestParseScopeRefuses(t *testing.T) {
	for _, text := range []string{"", ":", "contacts", "contacts:", ":read", "contacts:Read", "Contacts:read", "contacts:reed", "contacts:read:write",
		"1contacts:read", "-contacts:read", "con tacts:read", "contacts: read", "kontäkte:read", "contacts:read\x00", "contacts:admin",
		strings.Repeat("c", 41) + ":read", "con\xfftacts:read", "*:read", "contacts:*"} {
		if s, err := access.ParseScope(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, s)
		}
	}
}

var rungs = []string{"read", "write-approval", "write", "delete-approval", "delete", "send-approval", "send", "use-approval", "use"}

var scope = rapid.Custom(func(t *rapid.T) access.Scope {
	return access.Scope{
		Resource: rapid.SampledFrom([]string{"contacts", "deals", "email", "ai", "work-orders"}).Draw(t, "resource"),
		Rung:     rapid.SampledFrom(rungs).Draw(t, "rung"),
	}
})

func TestScopesPrintAndParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scopes := rapid.SliceOf(scope).Draw(t, "scopes")
		text := access.FormatScopes(scopes)
		parsed, err := access.ParseScopes(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := access.FormatScopes(parsed); got != text {
			t.Errorf("parsed and printed: got %q, want %q", got, text)
		}
		for _, s := range scopes {
			if !slices.Contains(parsed, s) {
				t.Errorf("%s is missing in %q", s, text)
			}
		}
		sameRights(t, access.RightsOf(parsed), access.RightsOf(scopes))
	})
}

// each calls fn for every verb of the resources that are drawn, and of one
// that is not.
func each(fn func(resource string, v access.Verb)) {
	for _, r := range []string{"contacts", "deals", "email", "ai", "work-orders", "nothing"} {
		for _, v := range verbs {
			fn(r, v)
		}
	}
}

func sameRights(t *rapid.T, got, want access.Rights) {
	each(func(r string, v access.Verb) {
		if g, w := got.Level(r, v), want.Level(r, v); g != w {
			t.Errorf("%s of %s: got %s, want %s", v, r, g, w)
		}
	})
}

func TestAddingAScopeNeverLowersAndRemovingNeverRaises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		more := rapid.SliceOfN(scope, 1, 12).Draw(t, "scopes")
		i := rapid.IntRange(0, len(more)-1).Draw(t, "removed")
		less := slices.Delete(slices.Clone(more), i, i+1)
		each(func(r string, v access.Verb) {
			if a, b := access.RightsOf(more).Level(r, v), access.RightsOf(less).Level(r, v); a < b {
				t.Errorf("%s of %s: %s with %s, %s without it", v, r, a, more[i], b)
			}
		})
	})
}

// rights draws rights of all kinds.
var rights = rapid.Custom(func(t *rapid.T) access.Rights {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return access.FullRights
	case 1:
		return access.Rights{}
	}
	return access.RightsOf(rapid.SliceOf(scope).Draw(t, "scopes"))
})

func TestMinIsTheMinimumOfEachVerb(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := rights.Draw(t, "a"), rights.Draw(t, "b"), rights.Draw(t, "c")
		each(func(r string, v access.Verb) {
			if got, want := a.Min(b).Level(r, v), min(a.Level(r, v), b.Level(r, v)); got != want {
				t.Errorf("%s of %s: got %s, want %s", v, r, got, want)
			}
		})
		sameRights(t, a.Min(b), b.Min(a))
		sameRights(t, a.Min(b).Min(c), a.Min(b.Min(c)))
		sameRights(t, a.Min(a), a)
		sameRights(t, a.Min(access.FullRights), a)
		if a.Min(b).Full() != (a.Full() && b.Full()) {
			t.Errorf("full: got %t of %t and %t", a.Min(b).Full(), a.Full(), b.Full())
		}
	})
}

func TestMinChangesNeitherSide(t *testing.T) {
	a, b := grantOf(t, "contacts:delete").Rights, grantOf(t, "contacts:read").Rights
	a.Min(b)
	if a.Level("contacts", access.Delete) != access.Run || b.Level("contacts", access.Delete) != access.Deny {
		t.Error("Min changed what it was made of")
	}
}

func TestLaddersAndTheirRungs(t *testing.T) {
	for _, tt := range []struct {
		ladder access.Ladder
		rungs  string
		lowest map[access.Verb]string
	}{
		{access.RecordLadder, "read write-approval write delete-approval delete",
			map[access.Verb]string{access.Read: "read", access.Write: "write-approval", access.Delete: "delete-approval", access.Send: ""}},
		{access.MessageLadder, "read send-approval send", map[access.Verb]string{access.Read: "read", access.Send: "send-approval", access.Write: ""}},
		{access.AILadder, "use-approval use", map[access.Verb]string{access.Use: "use-approval", access.Read: ""}},
		{"none", "", map[access.Verb]string{access.Read: ""}},
	} {
		if got := strings.Join(tt.ladder.Rungs(), " "); got != tt.rungs {
			t.Errorf("%s: got rungs %q, want %q", tt.ladder, got, tt.rungs)
		}
		for v, want := range tt.lowest {
			if got := access.LowestRung(tt.ladder, v); got != want {
				t.Errorf("%s, %s: got lowest rung %q, want %q", tt.ladder, v, got, want)
			}
		}
		for _, r := range rungs {
			if got, want := (access.Scope{Resource: "r", Rung: r}).On(tt.ladder), slices.Contains(strings.Fields(tt.rungs), r); got != want {
				t.Errorf("%s on %s: got %t, want %t", r, tt.ladder, got, want)
			}
		}
	}
}

func FuzzParseScope(f *testing.F) {
	for _, s := range []string{"contacts:read", "work-orders:delete-approval", "a:use", ":", "a:b:c", "ä:read", "contacts:read contacts:write"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := access.ParseScope(text)
		if err != nil {
			if s != (access.Scope{}) {
				t.Errorf("%q: got %v with an error", text, s)
			}
			return
		}
		if s.String() != text {
			t.Errorf("printed: got %q, want %q", s, text)
		}
		if s.Levels() == (access.Levels{}) {
			t.Errorf("%q gives nothing", text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return !(r == ':' || r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9') }) {
			t.Errorf("%q was accepted", text)
		}
		if many, err := access.ParseScopes(" " + text + "\n" + text); err != nil || len(many) != 1 || many[0] != s {
			t.Errorf("%q twice: got %v, %v", text, many, err)
		}
	})
}
