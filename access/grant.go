package access

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"trustpager/audit"
	"trustpager/problem"
)

// A Kind is what a [Principal] is.
type Kind string

// The kinds of principals.
const (
	KindKey      Kind = "key"      // an API key
	KindOAuth    Kind = "oauth"    // an OAuth client that acts for a user
	KindPerson   Kind = "person"   // a person in the browser
	KindOperator Kind = "operator" // somebody at the server's command line
	KindSystem   Kind = "system"   // the server itself, such as an expiry
)

// A Principal is who is asking. Its ID names the credential that limits,
// approvals and deliveries are counted by.
type Principal struct {
	Kind   Kind
	ID     string // of the credential: key_…, grt_…, or the user's for a person
	Name   string // as people know it
	User   string // the user behind it; "" for a key made by the operator
	Client string `json:",omitempty"` // of an OAuth credential: the client's id
}

// A Grant is what a principal may do in one workspace, as found for one
// request. The zero Grant may do nothing.
type Grant struct {
	Principal Principal
	Workspace Workspace
	Rights    Rights
	MayDecide bool   // may decide approvals that other credentials asked for
	Limits    Limits // how often it may ask
	Parent    string // the key that made this key, "" if none
	Key       *Key   // the key that was shown, nil if it was none
	Token     *Token // the access token that was shown, nil if it was none

	// Unnarrowed is what an OAuth credential could do if the user had not
	// narrowed it: what the client's ceiling and the user's role allow. It is
	// zero for all others.
	Unnarrowed Rights
}

// A Decider says who may decide what a grant queues.
type Decider string

// The deciders.
const (
	DeciderAdmin Decider = "admin" // owners, admins and deciding keys
	DeciderOwner Decider = "owner" // also the person whose own consent held it back
)

// Limits say how often a credential may ask. Zero means no limit.
type Limits struct {
	PerMinute int64 `json:"per_minute"`
	PerDay    int64 `json:"per_day"`
}

// DefaultLimits are those of a new key.
var DefaultLimits = Limits{PerMinute: 60, PerDay: 10_000}

// DeciderOf returns who may decide the verb of the resource if it is queued for
// g: also the user behind g, where nothing but their own consent holds it back.
func (g Grant) DeciderOf(resource string, v Verb) Decider {
	if g.Principal.Kind == KindOAuth && g.Principal.User != "" && g.Unnarrowed.Level(resource, v) == Run && !g.Workspace.AlwaysAsks(resource, v) {
		return DeciderOwner
	}
	return DeciderAdmin
}

// Decide returns the level at which g may apply the verb to the resource. It
// is the only decision about permissions in the program.
func (g Grant) Decide(resource string, v Verb) Level {
	l := g.Rights.Level(resource, v)
	if l == Run && g.Principal.Kind != KindPerson && g.Workspace.AlwaysAsks(resource, v) {
		return Queue
	}
	return l
}

// IsAdmin reports whether the grant may administer keys, clients and grants:
// a full-access key, an admin in person, or the operator.
func (g Grant) IsAdmin() bool { return g.Rights.Full() && g.Principal.Kind != KindOAuth }

// A Plan is what a workspace pays for.
type Plan string

// The plans. API access needs [Pro].
const (
	Free Plan = "free"
	Pro  Plan = "pro"
)

// A Workspace is one business: everything but users belongs to one.
type Workspace struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Plan      Plan      `json:"plan"`
	TimeZone  string    `json:"time_zone"` // IANA name
	Settings  Settings  `json:"settings"`
	CreatedAt time.Time `json:"created_at"`
}

// Settings are what a workspace's admins decide about approvals.
type Settings struct {
	ApprovalTTL time.Duration `json:"-"`           // how long an approval stays open; 1 hour to 30 days
	PeopleOnly  bool          `json:"people_only"` // keys never decide
	FourEyes    bool          `json:"four_eyes"`   // two people have to approve, neither of them the one whom the requester acts for
	AlwaysAsk   []Mark        `json:"always_ask"`  // verbs that wait for approval whatever a credential holds
	SupportURL  string        `json:"support_url"` // where to ask for higher limits

	// SendsPerDay is how many messages each credential may send a day; nil means
	// [DefaultSendsPerDay], and 0 that credentials send nothing. See SendCap.
	SendsPerDay *int64 `json:"sends_per_day,omitempty"`

	// Paused are the credentials whose requests are refused for now.
	Paused []Pause `json:"paused,omitempty"`

	// NoSelfRegistration lets people connect only the OAuth clients that an
	// admin has registered.
	NoSelfRegistration bool `json:"no_self_registration"`
	// ClientHosts are the hosts that self-registered clients may be of: of the
	// metadata document's URL, otherwise of every redirect URI. Empty means any.
	ClientHosts []string `json:"client_hosts"`
}

// settingsJSON is how Settings stand in JSON, where times are in seconds.
type settingsJSON struct {
	TTL int64 `json:"approval_ttl_seconds"`
	plainSettings
}

type plainSettings Settings

// MarshalJSON returns the settings, the approvals' life as
// approval_ttl_seconds.
func (s Settings) MarshalJSON() ([]byte, error) {
	return json.Marshal(settingsJSON{int64(s.ApprovalTTL / time.Second), plainSettings(s)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *Settings) UnmarshalJSON(b []byte) error {
	var j settingsJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*s = Settings(j.plainSettings)
	s.ApprovalTTL = time.Duration(j.TTL) * time.Second
	return nil
}

// DefaultApprovalTTL is how long an approval stays open if the workspace says
// nothing else.
const DefaultApprovalTTL = 7 * 24 * time.Hour

// The bounds of [Settings.SendsPerDay].
const (
	DefaultSendsPerDay = 200
	MaxSendsPerDay     = 10_000
)

// SendCap returns how many messages each credential may send a day. With 0 no
// credential sends any; people are not held by it.
func (s Settings) SendCap() int64 {
	if s.SendsPerDay == nil {
		return DefaultSendsPerDay
	}
	return min(max(*s.SendsPerDay, 0), MaxSendsPerDay)
}

// A Pause holds up one credential, all grants of an OAuth client, or everybody
// but people.
type Pause struct {
	Credential string    `json:"credential,omitempty"` // a key, a grant or a client; "" is all of them
	By         string    `json:"by"`                   // who has done it
	User       string    `json:"user,omitempty"`       // their id, if it is a user
	At         time.Time `json:"at"`
	With       string    `json:"with,omitempty"` // the key whose pause has paused this one, which it stems from
}

// AllPaused returns the pause that holds up everybody but people.
func (w Workspace) AllPaused() (Pause, bool) {
	return Grant{Workspace: w}.Paused()
}

// Paused returns the pause that holds up the credential: its own, its client's,
// or that of the key that it stems from. A client that acts for a user stems
// from no key.
func (g Grant) Paused() (Pause, bool) {
	id, client, parent := g.Principal.ID, g.Principal.Client, g.Parent
	if g.Principal.Kind == KindOAuth && g.Principal.User != "" {
		parent = ""
	}
	for _, p := range g.Workspace.Settings.Paused {
		switch p.Credential {
		case "", id, client, parent:
			return p, true
		}
	}
	return Pause{}, false
}

// Refusal is the error that a request meets during the pause.
func (p Pause) Refusal() error {
	what := "this credential is paused"
	if p.Credential == "" {
		what = "all agents of the workspace are paused"
	}
	return problem.Errorf(problem.Paused, "%s since %s, by %s", what, p.At.Format(time.RFC3339), p.By).
		WithFix("Do not try again in a loop. Tell the user; an admin of the workspace resumes it.")
}

// A Mark names one verb of one resource.
type Mark struct {
	Resource string `json:"resource"`
	Verb     string `json:"verb"`
}

// AlwaysAsks reports whether the workspace has marked the verb of the resource
// as one that always waits for approval.
func (w Workspace) AlwaysAsks(resource string, v Verb) bool {
	for _, m := range w.Settings.AlwaysAsk {
		if m.Resource == resource && m.Verb == v.String() {
			return true
		}
	}
	return false
}

// A Role is what a user is in a workspace.
type Role string

// The roles.
const (
	Owner  Role = "owner"
	Admin  Role = "admin"
	Member Role = "member"
)

// AtMost reports whether the role is one, and does not stand above most.
func (r Role) AtMost(most Role) bool {
	rank := map[Role]int{Member: 1, Admin: 2, Owner: 3}
	return rank[r] > 0 && rank[r] <= rank[most]
}

// A Membership is a workspace that a person belongs to.
type Membership struct {
	Workspace Workspace
	Role      Role
	Notice    Notice
}

// A Notice says when a member is told of approvals that wait for them.
type Notice string

// The notices. New members have [NoticeImmediately].
const (
	NoticeOff         Notice = "off"
	NoticeImmediately Notice = "immediately" // what is asked within a minute is told together
	NoticeHourly      Notice = "hourly"
	NoticeDaily       Notice = "daily" // at 08:00 in the workspace's time zone
)

// A User is a person who can log in. The same person may be in several
// workspaces, with a role in each.
type User struct {
	ID        string    `json:"id"`
	Email     string    `json:"email"`
	Name      string    `json:"name"`
	Role      Role      `json:"role"` // in the workspace that was asked about
	CreatedAt time.Time `json:"created_at"`
	LastLogin time.Time `json:"last_login,omitzero"`
}

type requestKey struct{}

// WithRequestID returns a context that carries the request's id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID returns the request's id, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

// LogValue keeps everything but the identity out of logs.
func (g Grant) LogValue() slog.Value {
	return slog.GroupValue(slog.String("workspace", g.Workspace.ID), slog.String("credential", g.Principal.ID))
}

// Actor returns the principal as the audit log names it.
func (p Principal) Actor() audit.Actor {
	return audit.Actor{Kind: string(p.Kind), ID: p.ID, Name: p.Name, User: p.User}
}

// Operator is the principal of the server's command line.
var Operator = Principal{Kind: KindOperator, ID: "operator", Name: "operator"}

// System is the principal of what the server does by itself.
var System = Principal{Kind: KindSystem, ID: "system", Name: "TrustPager"}
