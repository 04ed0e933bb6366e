package access

// A Position is a place of the ladder control: scopes under the name that
// people choose them by.
type Position struct {
	Name  string   // as forms send it
	Title string   // as people read it
	Rungs []string // what it stores
	Asks  bool     // something of it waits for approval
}

// positions are those of each ladder, from the bottom up. Any other set of
// rungs shows as Custom.
var positions = map[Ladder][]Position{
	RecordLadder: {
		{Name: "none", Title: "No access"},
		{Name: "read", Title: "Read", Rungs: []string{"read"}},
		{Name: "write-approval", Title: "Write with approval", Rungs: []string{"write-approval"}, Asks: true},
		{Name: "all-approval", Title: "Write and delete with approval", Rungs: []string{"write-approval", "delete-approval"}, Asks: true},
		{Name: "write", Title: "Write automatically", Rungs: []string{"write"}},
		{Name: "delete-approval", Title: "Delete with approval", Rungs: []string{"write", "delete-approval"}, Asks: true},
		{Name: "delete", Title: "Delete automatically", Rungs: []string{"delete"}},
	},
	MessageLadder: {
		{Name: "none", Title: "No access"},
		{Name: "read", Title: "Read", Rungs: []string{"read"}},
		{Name: "send-approval", Title: "Send with approval", Rungs: []string{"send-approval"}, Asks: true},
		{Name: "send", Title: "Send automatically", Rungs: []string{"send"}},
	},
	AILadder: {
		{Name: "none", Title: "No access"},
		{Name: "use-approval", Title: "Use with approval", Rungs: []string{"use-approval"}, Asks: true},
		{Name: "use", Title: "Use automatically", Rungs: []string{"use"}},
	},
}

// Positions returns the places of the ladder from the bottom up. The caller
// must not change them.
func (l Ladder) Positions() []Position { return positions[l] }

// Levels returns what the position gives for each verb.
func (p Position) Levels() Levels {
	var of Levels
	for _, rung := range p.Rungs {
		of = of.max(levelsOf[rung])
	}
	return of
}

// Scopes returns the position's scopes on the resource.
func (p Position) Scopes(resource string) []Scope {
	scopes := make([]Scope, len(p.Rungs))
	for i, rung := range p.Rungs {
		scopes[i] = Scope{resource, rung}
	}
	return scopes
}

// Position returns the ladder's position that gives exactly these levels. There
// is one for whatever sets of scopes and their minima give.
func (l Ladder) Position(levels Levels) (Position, bool) {
	for _, p := range positions[l] {
		if p.Levels() == levels {
			return p, true
		}
	}
	return Position{}, false
}

// Levels returns what the rights allow on a resource.
func (r Rights) Levels(resource string) Levels {
	var of Levels
	for v := range verbs {
		of[v] = r.Level(resource, v)
	}
	return of
}

// Within reports whether no verb of l goes further than in most.
func (l Levels) Within(most Levels) bool { return l.Min(most) == l }

// Min returns the lower level of each verb.
func (l Levels) Min(o Levels) Levels {
	for v := range l {
		l[v] = min(l[v], o[v])
	}
	return l
}

func (l Levels) max(o Levels) Levels {
	for v := range l {
		l[v] = max(l[v], o[v])
	}
	return l
}

// On keeps the verbs that the ladder has.
func (l Levels) On(ladder Ladder) Levels {
	var of Levels
	for _, v := range ladder.Verbs() {
		of[v] = l[v]
	}
	return of
}
