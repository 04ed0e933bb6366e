package access

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Verb is what an action does to its resource.
type Verb uint8

// The verbs. Write covers creating and updating.
const (
	Read Verb = iota
	Write
	Delete
	Send
	Use
	verbs // their number
)

var verbNames = [verbs]string{"read", "write", "delete", "send", "use"}

// String returns the verb's name as it stands in scopes and pages.
func (v Verb) String() string { return verbNames[v] }

// ParseVerb returns the verb of the given name.
func ParseVerb(s string) (Verb, error) {
	if i := slices.Index(verbNames[:], s); i >= 0 {
		return Verb(i), nil
	}
	return 0, fmt.Errorf("verb %q is none of %s", s, strings.Join(verbNames[:], ", "))
}

// A Level is how far a right goes. The zero Level is [Deny].
type Level uint8

// The levels, ordered: combining rights takes their maximum or minimum.
const (
	Deny  Level = iota // refused
	Queue              // held until a person approves it
	Run                // performed at once
)

// String returns "deny", "queue" or "run".
func (l Level) String() string { return [...]string{"deny", "queue", "run"}[l] }

// Levels holds the level of each verb. The zero Levels denies all.
type Levels [verbs]Level

// A Ladder is the kind of rungs that a resource has.
type Ladder string

// The ladders.
const (
	RecordLadder  Ladder = "record"  // read, write, delete
	MessageLadder Ladder = "message" // read, send
	AILadder      Ladder = "ai"      // use
)

// rungs holds, for each ladder, what each rung gives. It is the only table of
// rights in the program.
var rungs = map[Ladder]map[string]Levels{
	RecordLadder: {
		"read":            {Read: Run},
		"write-approval":  {Read: Run, Write: Queue},
		"write":           {Read: Run, Write: Run},
		"delete-approval": {Read: Run, Write: Queue, Delete: Queue},
		"delete":          {Read: Run, Write: Run, Delete: Run},
	},
	MessageLadder: {
		"read":          {Read: Run},
		"send-approval": {Read: Run, Send: Queue},
		"send":          {Read: Run, Send: Run},
	},
	AILadder: {
		"use-approval": {Use: Queue},
		"use":          {Use: Run},
	},
}

// rungOrder is the order in which rungs are printed and explained.
var rungOrder = []string{"read", "write-approval", "write", "delete-approval", "delete",
	"send-approval", "send", "use-approval", "use"}

// Rungs returns the names of the ladder's rungs from the bottom up.
func (l Ladder) Rungs() []string {
	var names []string
	for _, r := range rungOrder {
		if _, ok := rungs[l][r]; ok {
			names = append(names, r)
		}
	}
	return names
}

// Verbs returns the verbs that the ladder knows.
func (l Ladder) Verbs() []Verb {
	switch l {
	case RecordLadder:
		return []Verb{Read, Write, Delete}
	case MessageLadder:
		return []Verb{Read, Send}
	case AILadder:
		return []Verb{Use}
	}
	return nil
}

// A Scope is a right as it is stored and shown: a rung of a resource.
type Scope struct {
	Resource string
	Rung     string
}

// String returns the scope as "resource:rung".
func (s Scope) String() string { return s.Resource + ":" + s.Rung }

// ParseScope reads a scope of the form "resource:rung". It checks the form and
// that some ladder has the rung; that the resource exists and stands on that
// ladder is for the catalog to say.
func ParseScope(text string) (Scope, error) {
	resource, rung, ok := strings.Cut(text, ":")
	if !ok || !validResource(resource) {
		return Scope{}, fmt.Errorf("scope %q is not of the form resource:rung, as in contacts:read", text)
	}
	if !slices.Contains(rungOrder, rung) {
		return Scope{}, fmt.Errorf("scope %q: there is no rung %q; the rungs are %s", text, rung, strings.Join(rungOrder, ", "))
	}
	return Scope{resource, rung}, nil
}

func validResource(s string) bool {
	for i, r := range s {
		if r >= 'a' && r <= 'z' || i > 0 && (r == '-' || r >= '0' && r <= '9') {
			continue
		}
		return false
	}
	return s != "" && len(s) <= 40
}

// ParseScopes reads scopes that are separated by spaces, sorts them and drops
// repetitions.
func ParseScopes(text string) ([]Scope, error) {
	var scopes []Scope
	for _, f := range strings.Fields(text) {
		s, err := ParseScope(f)
		if err != nil {
			return nil, err
		}
		scopes = append(scopes, s)
	}
	return sortScopes(scopes), nil
}

// FormatScopes prints scopes so that [ParseScopes] reads them back.
func FormatScopes(scopes []Scope) string {
	var b strings.Builder
	for i, s := range sortScopes(slices.Clone(scopes)) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.String())
	}
	return b.String()
}

func sortScopes(scopes []Scope) []Scope {
	slices.SortFunc(scopes, func(a, b Scope) int {
		if c := strings.Compare(a.Resource, b.Resource); c != 0 {
			return c
		}
		return slices.Index(rungOrder, a.Rung) - slices.Index(rungOrder, b.Rung)
	})
	return slices.Compact(scopes)
}

// levelsOf holds what each rung gives. A rung's name means the same on every
// ladder that has it.
var levelsOf = func() map[string]Levels {
	of := map[string]Levels{}
	for _, ladder := range rungs {
		maps.Copy(of, ladder)
	}
	return of
}()

// Levels returns what the scope alone gives.
func (s Scope) Levels() Levels { return levelsOf[s.Rung] }

// On reports whether the scope's rung is one of the ladder's.
func (s Scope) On(l Ladder) bool {
	_, ok := rungs[l][s.Rung]
	return ok
}

// Rights say how far each verb of each resource may go: as far as each of some
// authorities allows, one for each set of scopes. The zero Rights deny all. A
// Rights value is never changed once made, so it may be shared.
type Rights struct {
	full   bool      // an authority allows everything
	limits [][]Scope // those that do not
}

// FullRights runs everything.
var FullRights = Rights{full: true}

// RightsOf returns the rights that a set of scopes gives: the maximum for each
// verb. The slice must not be changed afterwards.
func RightsOf(scopes []Scope) Rights { return Rights{limits: [][]Scope{scopes}} }

// Min returns the rights that both authorities allow: the minimum for each
// verb.
func (r Rights) Min(o Rights) Rights {
	none := func(r Rights) bool { return !r.full && len(r.limits) == 0 }
	if none(r) || none(o) {
		return Rights{}
	}
	return Rights{full: r.full || o.full, limits: slices.Concat(r.limits, o.limits)}
}

// Level returns how far the verb of the resource may go.
func (r Rights) Level(resource string, v Verb) Level {
	if len(r.limits) == 0 && !r.full {
		return Deny
	}
	level := Run
	for _, scopes := range r.limits {
		most := Deny
		for i := range scopes {
			if scopes[i].Resource == resource {
				most = max(most, scopes[i].Levels()[v])
			}
		}
		level = min(level, most)
	}
	return level
}

// Full reports whether the rights are full access.
func (r Rights) Full() bool { return r.full && len(r.limits) == 0 }

// LowestRung returns the lowest rung of the ladder that allows the verb at
// least after approval: what a refused caller should ask for.
func LowestRung(l Ladder, v Verb) string {
	for _, r := range l.Rungs() {
		if rungs[l][r][v] > Deny {
			return r
		}
	}
	return ""
}
