package catalog

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"trustpager/access"
)

// An Action is one thing that can be done to a resource. The REST route, the
// MCP tool, the OpenAPI entry, the scope and the documentation all come from
// it, so that none of them can say something else than the others.
type Action struct {
	Name        string      // also the tool's name: create_contact
	Resource    string      // whose rung decides: contacts; "" for the search across resources and for asking for a loan, see Level
	Verb        access.Verb // what it does to the resource
	Op          Op
	Title       string // for people: "Create contact"
	Description string // for models and the API's reader
	Method      string // HTTP method
	Path        string // of the REST route below /v1, as in /contacts/{id}
	Target      bool   // it acts on one existing record, named by id
	Destructive bool   // it removes or overwrites what was there
	Idempotent  bool   // doing it again changes nothing more
	OpenWorld   bool   // it reaches outside the workspace

	// PeopleDecide marks what decides over people: whatever a credential holds,
	// it waits, and only people decide it. A credential that could add people
	// could log in as one of them, and decide what it has asked for itself. Loans
	// are asked for in the same way: only people lend what was asked for.
	PeopleDecide bool

	Input  Schema // of the input, with id and reason where they apply
	Output Schema // of the result

	resource *Resource   // nil for the search across resources
	readable []string    // the resources that count if Resource is ""
	fields   []Field     // of the input, in the order of the schema
	refused  []refusal   // members that the input cannot have, and why
	reason   string      // the member of the input that holds the caller's reason, "" if none does
	lends    []*Resource // what it asks to be lent is of one of these; nil for all other actions
	own      bool        // it is only about what the caller's own credential has made
	code     bool        // a service plans it
	plan     planner
}

// A refusal says of a member that callers expect in an input who sets it
// instead.
type refusal struct{ name, expected string }

// A planner works out what the call would do, and refuses what cannot be done.
// It changes nothing. With lock it reads for update what the plan relies on.
type planner func(ctx context.Context, s Store, c Call, lock bool) (plan, error)

// A plan is an action that has been found possible.
type plan struct {
	target Target
	before map[string]any // the target's values, nil if there is no target
	after  map[string]any // the values that the record will have, nil if there will be none
	checks []PlanCheck
	pinned map[string]any
	run    func(ctx context.Context, s Store) (Result, error)
}

// A Preview is what a call would do to one record.
type Preview struct {
	Target Target
	Before json.RawMessage // the target's body, nil if there is no target
	After  json.RawMessage // the body that the record will have, nil if there will be none
	Checks []PlanCheck     // of a service
	Pinned map[string]any  // see [Plan]
}

// Check finds out all that stands against the call, and changes nothing: the
// target exists and has the wanted version, the references point at records
// that the caller may read, nothing refers to what is to be deleted. Only
// unique values are left to Run, where the store decides the race.
//
// For an action that makes a record, the target has a title but no id.
func (a *Action) Check(ctx context.Context, s Store, c Call) (Target, error) {
	p, err := a.plan(ctx, s, c, false)
	return p.target, err
}

// Preview is Check that also tells what would become of the record.
func (a *Action) Preview(ctx context.Context, s Store, c Call) (Preview, error) {
	p, err := a.plan(ctx, s, c, false)
	if err != nil && p.run == nil {
		p.before, p.after = nil, nil
	}
	return p.preview(), err
}

func (p plan) preview() Preview {
	v := Preview{Target: p.target, Checks: p.checks, Pinned: p.pinned}
	if p.before != nil {
		v.Before = appendJSON(nil, p.before)
	}
	if p.after != nil {
		v.After = appendJSON(nil, p.after)
	}
	return v
}

// Run checks the call as Check does, and performs it. The store should be a
// transaction if the action is no read.
func (a *Action) Run(ctx context.Context, s Store, c Call) (Result, error) {
	_, result, err := a.run(ctx, s, c)
	return result, err
}

// Try is Run that also tells what Preview does. The caller undoes it.
func (a *Action) Try(ctx context.Context, s Store, c Call) (Preview, Result, error) {
	p, result, err := a.run(ctx, s, c)
	return p.preview(), result, err
}

func (a *Action) run(ctx context.Context, s Store, c Call) (plan, Result, error) {
	p, err := a.plan(ctx, s, c, true)
	if err != nil {
		return plan{}, Result{}, err
	}
	result, err := p.run(ctx, s)
	return p, result, err
}

// Level returns how far the grant lets the action go. Of the actions without a
// resource, the search across resources is allowed if any resource may be read,
// and leaves out what the grant may not read; a loan may be asked for if anything
// but reading is allowed.
func (a *Action) Level(g access.Grant) access.Level {
	if a.own {
		for _, v := range a.resource.Ladder.Verbs() {
			if g.Decide(a.Resource, v) != access.Deny {
				return access.Run
			}
		}
		return access.Deny
	}
	if a.Resource != "" {
		l := g.Decide(a.Resource, a.Verb)
		if a.PeopleDecide && g.Principal.Kind != access.KindPerson && g.Principal.Kind != access.KindOperator {
			l = min(l, access.Queue)
		}
		return l
	}
	if a.Lends() {
		return a.asks(g)
	}
	level := access.Deny
	for _, r := range a.readable {
		level = max(level, g.Decide(r, a.Verb))
	}
	return level
}

// asks returns how far the action that asks for a loan goes: it waits, for who
// does anything but read.
func (a *Action) asks(g access.Grant) access.Level {
	for _, r := range a.lends {
		for _, v := range r.Ladder.Verbs() {
			if v != access.Read && g.Decide(r.Name, v) != access.Deny {
				return access.Queue
			}
		}
	}
	return access.Deny
}

// Scope returns the lowest scope that allows the action, if only after
// approval: what a refused caller should ask for. An action without a resource
// has none.
func (a *Action) Scope() access.Scope {
	if a.resource == nil {
		return access.Scope{}
	}
	verb := a.Verb
	if a.own {
		verb = a.resource.Ladder.Verbs()[0]
	}
	return access.Scope{Resource: a.Resource, Rung: access.LowestRung(a.resource.Ladder, verb)}
}

// Own reports whether the action is about what the caller's own credential has
// made, and allowed to whom any verb of the resource is.
func (a *Action) Own() bool { return a.own }

// Awaited reports whether who asks for the action wants what comes of it
// outside, as what a model writes, and not only that it is on its way.
func (a *Action) Awaited() bool { return a.Verb == access.Use }

// Fields returns the members of the input other than id, in the order of the
// schema. The caller must not change them.
func (a *Action) Fields() []Field { return a.fields }

// An Op is the general shape of an action.
type Op string

// The shapes. Further actions of the catalog are [OpOther].
const (
	OpList   Op = "list"
	OpSearch Op = "search"
	OpGet    Op = "get"
	OpCreate Op = "create"
	OpUpdate Op = "update"
	OpDelete Op = "delete"
	OpOther  Op = "other"
)

// A Schema is a JSON Schema 2020-12 as it is sent to clients.
type Schema = json.RawMessage

// An Input is validated input of an action.
type Input struct {
	ID        string          // of the target, "" if the action has none
	Values    map[string]any  // normalized, with if_version if it was sent; numbers are json.Number, absent members absent, null means "clear"
	Canonical json.RawMessage // id and values with sorted keys, without reason and dry_run: equal inputs have equal bytes
	Reason    string          // the agent's own words about why, "" if none
	DryRun    bool            // the action is only to be tried
}

// A Call is one performance of an action.
type Call struct {
	Grant     access.Grant // on whose behalf: what it may not read is not found
	Input     Input
	IfVersion int64     // the target's version must be this one; 0 means any
	Now       time.Time // the time that records are stamped with

	Decider  access.Principal // who has approved it, the zero Principal if it runs at once
	Approval string           // the approval that the call comes from, "" if it runs at once
	Earlier  json.RawMessage  // what an earlier run of the same approval has answered, nil if there was none
}

// A Target is the record that an action is about, as it stands.
type Target struct {
	ID      string
	Version int64  // 0 if there is no target
	Title   string // what people call it: a contact's name, a deal's title
}

// A Result is what an action answers.
type Result struct {
	Data       json.RawMessage // an object, or an array for lists
	Pagination *Pagination     // of lists
	Target     Target          // what was acted on, or made
	After      int64           // the version of the action's target afterwards, if Target is another record; 0 otherwise

	// Once holds further members of the data that are shown now and kept nowhere,
	// such as a new secret. Neither a repeated request nor an approval tells them.
	Once json.RawMessage `json:"-"`
}

// Shown returns the data with what is shown only now.
func (r Result) Shown() json.RawMessage {
	if len(r.Once) <= len("{}") || len(r.Data) <= len("{}") {
		return r.Data
	}
	shown := append(slices.Clone(r.Data[:len(r.Data)-1]), ',')
	return append(shown, r.Once[1:]...)
}

// Pagination says where a list goes on.
type Pagination struct {
	Limit      int    `json:"limit"`
	HasMore    bool   `json:"has_more"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// A Record is one stored thing.
type Record struct {
	Resource  string
	ID        string
	Version   int64           // 1 when made, one more with each change
	Body      json.RawMessage // an object of its set fields, keys sorted
	CreatedAt time.Time
	UpdatedAt time.Time
}

// An Entry makes a record findable by the value of one field.
type Entry struct {
	Field  string
	Value  string // see [Field.IndexKey]: byte order is the order of the values
	Unique bool   // no two records of the resource may have the same value
}

// A Ref points from a field to a record.
type Ref struct {
	Field    string
	Resource string
	ID       string
}

// A Referrer says how many records of a resource point at something.
type Referrer struct {
	Resource string
	Field    string
	Count    int64
}

// A Filter selects records by one indexed field.
type Filter struct {
	Field string
	Op    FilterOp
	Value string // as of [Field.IndexKey]
}

// A FilterOp compares an indexed value with the filter's.
type FilterOp string

// The comparisons.
const (
	Equal  FilterOp = "eq"
	After  FilterOp = "after"  // greater or equal
	Before FilterOp = "before" // less
)

// A Query selects a page of a resource's records.
type Query struct {
	Filters       []Filter
	CreatedAfter  time.Time // zero means any
	CreatedBefore time.Time // zero means any
	Terms         []string  // folded words; each must begin some word of the record
	SortField     string    // an indexed field, or "" for the time of creation, or "updated_at"
	Desc          bool
	Limit         int    // how many to return at most
	AfterValue    string // keyset: sort value and id of the last record seen
	AfterID       string // "" means from the start
}

// A Store keeps records. Each method sees and touches only the rows of the
// workspace that it is given. In a transaction, what Record has read with
// forUpdate, and what MissingRefs has found, is not removed by others before
// the transaction ends.
type Store interface {
	// Record returns one record. It fails with [problem.NotFound].
	Record(ctx context.Context, workspace, resource, id string, forUpdate bool) (Record, error)

	// ListRecords returns one page, with the sort values that a cursor needs
	// (for the default order it is the creation time, as decimal milliseconds).
	ListRecords(ctx context.Context, workspace, resource string, q Query) (recs []Record, sortValues []string, err error)

	// MissingRefs returns those of refs that point at no record. Targets of
	// references that are no records ("users") are members of the workspace.
	MissingRefs(ctx context.Context, workspace string, refs []Ref) ([]Ref, error)

	// Referrers says how many records point at id, for each of the given pairs
	// of Resource and Field; pairs without any are left out.
	Referrers(ctx context.Context, workspace, id string, from []Ref) ([]Referrer, error)

	// InsertRecord adds a record. It fails with [problem.Conflict] naming the
	// field if a unique value is taken.
	InsertRecord(ctx context.Context, workspace string, r Record, entries []Entry, terms []string) error

	// UpdateRecord replaces the record's body if its stored version is
	// r.Version-1, and fails with [problem.Conflict] otherwise, and as
	// InsertRecord does.
	UpdateRecord(ctx context.Context, workspace string, r Record, entries []Entry, terms []string) error

	// DeleteRecord removes the record if its stored version is version, and
	// fails with [problem.Conflict] otherwise.
	DeleteRecord(ctx context.Context, workspace, resource, id string, version int64) error

	// NoteChange notes what the transaction has just done to a record, for those who
	// want to be told. It forgets it if that is undone, and outside of transactions.
	NoteChange(workspace string, c Change)

	// SumByField returns, for the records whose field by refers to id, how many
	// have each value of the indexed field of, and the sum of their integer
	// member sum.
	SumByField(ctx context.Context, workspace, resource, by, id, of, sum string) ([]Sum, error)

	// Users returns the members of the workspace, ordered by name and id.
	Users(ctx context.Context, workspace string) ([]access.User, error)
}

// A Sum is one row of a summary.
type Sum struct {
	Value string // the field's value as people wrote it
	Count int64
	Total int64
}
