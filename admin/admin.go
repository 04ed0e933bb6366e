// Package admin is what admins decide about everybody else: workspaces, users,
// API keys and OAuth clients with their webhooks, grants, pauses, and the
// settings of approvals. It is also how people come in: the set-up, logins and
// passwords; and what they are told of approvals. What people decide is audited
// in the transaction that changes it.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/unseen"
	"trustpager/webhook"
)

// A Store keeps what admins decide. Each method sees and touches only the rows
// of the workspace that it is given.
type Store interface {
	approvals.Store
	webhook.Store
	jobs.Enqueuer
	integrations.AccountStore

	CreateWorkspace(ctx context.Context, w access.Workspace) error
	UpdateWorkspace(ctx context.Context, w access.Workspace) error
	Workspace(ctx context.Context, id string) (access.Workspace, error)
	// LockWorkspace is Workspace that keeps others from changing it until the
	// transaction ends.
	LockWorkspace(ctx context.Context, id string) (access.Workspace, error)

	CreateUser(ctx context.Context, u access.User, passwordHash string) error
	UserByEmail(ctx context.Context, email string) (u access.User, passwordHash string, err error)
	UserByID(ctx context.Context, id string) (u access.User, passwordHash string, err error)
	// Memberships returns the workspaces that the user belongs to, by name.
	Memberships(ctx context.Context, user string) ([]access.Membership, error)
	SetPassword(ctx context.Context, user, passwordHash string) error
	SetUserName(ctx context.Context, user, name string) error

	// CanLogIn reports whether any member of a workspace has a password.
	CanLogIn(ctx context.Context) (bool, error)
	Workspaces(ctx context.Context) ([]access.Workspace, error)
	// OfferSetUp stores the hash of a set-up token. The one before it ends.
	OfferSetUp(ctx context.Context, hash string) error
	IsSetUpToken(ctx context.Context, hash string) (bool, error)
	// TakeSetUpToken ends the set-up token with the hash. It reports false if that
	// is not the token, or not any more: of several calls one is told true.
	TakeSetUpToken(ctx context.Context, hash string) (bool, error)

	// ReplacePassword stores a new hash if the present one is old, and ends the
	// links for a new password. It fails with [problem.Conflict] if the password
	// has changed.
	ReplacePassword(ctx context.Context, user, old, passwordHash string) error
	// CreateResetLink stores the hash of a link by which the user gives a new
	// password instead of the one with the stamp, unless most links of theirs are
	// in force at now. It reports whether it did.
	CreateResetLink(ctx context.Context, hash, user, stamp string, now, expires time.Time, most int) (bool, error)
	// ResetLink returns whose link has the hash, and for which password it was
	// made. It fails with [problem.NotFound], also if the link has ended.
	ResetLink(ctx context.Context, hash string, now time.Time) (user, stamp string, err error)
	// TakeResetLink is ResetLink, and ends the link: of several calls one gets it.
	TakeResetLink(ctx context.Context, hash string, now time.Time) (user, stamp string, err error)

	// SetMember gives the user a role in the workspace. It fails with
	// [problem.Conflict] if that would take away its last owner.
	SetMember(ctx context.Context, workspace, user string, role access.Role, now time.Time) error
	// RemoveMember ends a membership. It fails with [problem.Conflict] if there is
	// none, or if it is the last owner's.
	RemoveMember(ctx context.Context, workspace, user string) error
	// NoteLogin notes when the user has logged in.
	NoteLogin(ctx context.Context, user string, now time.Time) error

	// SaveInvitation stores an invitation with the hash of its link's token, in
	// place of the one that the address has in the workspace, whose id it keeps.
	SaveInvitation(ctx context.Context, i Invitation, hash string) (Invitation, error)
	// Invitations returns those of the workspace, the newest first, those that are
	// over too.
	Invitations(ctx context.Context, workspace string) ([]Invitation, error)
	// InvitationByHash returns the invitation whose link's token has the hash. It
	// fails with [problem.NotFound], also if it is over.
	InvitationByHash(ctx context.Context, hash string, now time.Time) (Invitation, error)
	// TakeInvitation is InvitationByHash, and ends the invitation: of several calls
	// one gets it.
	TakeInvitation(ctx context.Context, hash string, now time.Time) (Invitation, error)
	// CancelInvitation ends the invitation of the address. It fails with
	// [problem.NotFound].
	CancelInvitation(ctx context.Context, workspace, email string) (Invitation, error)

	// Stock counts what the workspace has at now.
	Stock(ctx context.Context, workspace string, now time.Time) (Stock, error)
	// Consumption returns what credentials in force use of their limits, the
	// busiest first.
	Consumption(ctx context.Context, workspace string, since, now time.Time, most int) ([]Consumption, error)

	// Tallies returns what is counted of a kind in the period, by owner.
	Tallies(ctx context.Context, workspace, what, period string) (map[string]int64, error)

	SetNotice(ctx context.Context, workspace, user string, n access.Notice) error
	// PendingWorkspaces returns the workspaces in which approvals are pending.
	PendingWorkspaces(ctx context.Context) ([]string, error)
	// PendingApprovals returns the approvals that are pending and not over at now,
	// the oldest first, with what a notice tells of them.
	PendingApprovals(ctx context.Context, workspace string, now time.Time) ([]approvals.Approval, error)
	// Readers returns the members that want to be told of approvals.
	Readers(ctx context.Context, workspace string) ([]Reader, error)
	// TellReader notes of what the member has been told at now, unless that has moved on
	// from r or they do not want to be told any more. It reports whether it did: of
	// several calls one is told true.
	TellReader(ctx context.Context, workspace string, r Reader, told string, warned, now time.Time) (bool, error)
	// NextJobDue returns when the next job of the kind is due, false if there is
	// none.
	NextJobDue(ctx context.Context, kind string) (time.Time, bool, error)

	// Key returns one key, with forUpdate locked until the transaction ends. It
	// fails with [problem.NotFound].
	Key(ctx context.Context, workspace, id string, forUpdate bool) (access.Key, error)
	Keys(ctx context.Context, workspace, after string, limit int) ([]access.Key, error)

	// ChildKeys returns the ids of the keys that the key has made, directly or
	// through others, in order.
	ChildKeys(ctx context.Context, workspace, id string) ([]string, error)

	CreateKey(ctx context.Context, k access.Key, secretHash string) error
	UpdateKey(ctx context.Context, k access.Key) error
	RotateKey(ctx context.Context, k access.Key, secretHash string, oldUntil, now time.Time) error
	EndOldSecrets(ctx context.Context, workspace, id string, now time.Time) error
	DeleteKey(ctx context.Context, workspace, id string) error
	UsageHistory(ctx context.Context, workspace, credential string, since time.Time) ([]access.Count, error)
	DailyUsage(ctx context.Context, workspace string, credentials []string, since time.Time) ([]access.DayCount, error)
	PastCalls(ctx context.Context, workspace, credential string, since time.Time) ([]access.PastCalls, error)
	PastCallsOfClient(ctx context.Context, workspace, client string, since time.Time, most int) ([]access.PastCalls, error)
	WorkspaceUsage(ctx context.Context, workspace string, since time.Time) ([]access.DayCount, error)
	LastUse(ctx context.Context, workspace, user string) (use access.LastUse, name string, err error)

	// Subscription returns one subscription, with forUpdate locked until the
	// transaction ends. It fails with [problem.NotFound].
	Subscription(ctx context.Context, workspace, id string, forUpdate bool) (approvals.Subscription, error)
	// CreateSubscription adds a subscription, but for its endpoint.
	CreateSubscription(ctx context.Context, s approvals.Subscription) error
	// UpdateSubscription replaces a subscription, but for its endpoint, if its stored
	// version is s.Version-1. It fails with [problem.Conflict] otherwise.
	UpdateSubscription(ctx context.Context, s approvals.Subscription) error
	// DeleteSubscription removes a subscription, but for its endpoint.
	DeleteSubscription(ctx context.Context, workspace, id string) error

	CreateClient(ctx context.Context, c oauth.Client) error
	UpdateClient(ctx context.Context, c oauth.Client) error
	EnsurePolicy(ctx context.Context, p oauth.Policy) (oauth.Policy, error)
	UpdatePolicy(ctx context.Context, p oauth.Policy) error
	// ClientOf returns a client of the workspace with its policy, with forUpdate
	// locked until the transaction ends. It fails with [problem.NotFound].
	ClientOf(ctx context.Context, workspace, id string, forUpdate bool) (oauth.Client, oauth.Policy, error)
	// Clients returns a page, the newest in the workspace first, after the client
	// of the given id.
	Clients(ctx context.Context, workspace, after string, limit int) ([]oauth.ClientInWorkspace, error)
	// RemoveClient takes the client from the workspace with its grants, tokens and
	// their usage history; a client that the workspace has registered is gone.
	RemoveClient(ctx context.Context, workspace, client string) error
	// Grant returns one grant, with forUpdate locked until the transaction ends.
	// It fails with [problem.NotFound].
	Grant(ctx context.Context, workspace, id string, forUpdate bool) (oauth.Grant, error)
	Grants(ctx context.Context, workspace string, q oauth.GrantQuery) ([]oauth.Grant, error)
	SetGrantScopes(ctx context.Context, workspace, id string, scopes []access.Scope) error
	// GrantOf returns the grant of a client and a user, "" for the client itself,
	// also a revoked one. It fails with [problem.NotFound].
	GrantOf(ctx context.Context, workspace, client, user string) (oauth.Grant, error)
	// SaveGrant puts a grant in force, again if it was revoked.
	SaveGrant(ctx context.Context, g oauth.Grant) (oauth.Grant, error)
	// RevokeGrant ends the grant with all its tokens. Doing it twice is fine.
	RevokeGrant(ctx context.Context, workspace, id string, now time.Time) error
}

// A Desk is where admins do their work. It is safe for concurrent use.
type Desk struct {
	Store    Store // for reads
	InTx     func(ctx context.Context, fn func(tx Store) error) error
	Catalog  *catalog.Catalog
	Gate     *approvals.Gate
	Webhooks *webhook.Endpoints
	Mail     *integrations.Mailer
	Accounts *integrations.Accounts
	Now      func() time.Time

	// RefusalTime is how long a refused login takes at least, so that it does not
	// show which accounts exist.
	RefusalTime time.Duration

	logins logins
}

func (d *Desk) now() time.Time { return d.Now().UTC().Truncate(time.Millisecond) }

// record audits an event about a thing of the workspace.
func (d *Desk) record(ctx context.Context, tx Store, by access.Grant, event audit.Event, target string, detail any) error {
	e := audit.Entry{Workspace: by.Workspace.ID, Time: d.now(), Actor: by.Principal.Actor(), Event: event, Target: target, Request: access.RequestID(ctx)}
	if detail != nil {
		var err error
		if e.Detail, err = json.Marshal(detail); err != nil {
			return fmt.Errorf("audit %s: %w", event, err)
		}
	}
	return tx.Audit(ctx, e)
}

// OperatorGrant is what the server's command line may do in the workspace:
// everything, audited as the operator.
func OperatorGrant(w access.Workspace) access.Grant {
	return access.Grant{Principal: access.Operator, Workspace: w, Rights: access.FullRights, MayDecide: true}
}

// requireAdmin refuses everybody but admins and full-access keys.
func requireAdmin(g access.Grant) error {
	if g.IsAdmin() {
		return nil
	}
	return problem.Errorf(problem.InsufficientScope, "only admins and full-access keys manage keys, clients and grants").
		WithFix("Use a full-access key, or ask an admin of the workspace.")
}

// requirePerson refuses everybody but admins in person and the operator. A key
// that made users could log in as one of them, and decide what it has asked
// for itself.
func requirePerson(g access.Grant, what string) error {
	if g.IsAdmin() && (g.Principal.Kind == access.KindPerson || g.Principal.Kind == access.KindOperator) {
		return nil
	}
	return problem.Errorf(problem.InsufficientScope, "only a person %s: an admin of the workspace, or the operator", what).
		WithFix("Ask an admin of the workspace.")
}

// CreateWorkspace makes a workspace on the Pro plan.
func (d *Desk) CreateWorkspace(ctx context.Context, name, timeZone string) (access.Workspace, error) {
	w := d.newWorkspace(name, timeZone)
	if err := checkWorkspace(d.Catalog, w); err != nil {
		return w, err
	}
	return w, d.InTx(ctx, func(tx Store) error { return d.createWorkspace(ctx, tx, w) })
}

func (d *Desk) newWorkspace(name, timeZone string) access.Workspace {
	return access.Workspace{ID: typeid.NewID("ws"), Name: strings.TrimSpace(name), Plan: access.Pro, TimeZone: timeZone,
		Settings: access.Settings{ApprovalTTL: access.DefaultApprovalTTL}, CreatedAt: d.now()}
}

func (d *Desk) createWorkspace(ctx context.Context, tx Store, w access.Workspace) error {
	if err := tx.CreateWorkspace(ctx, w); err != nil {
		return err
	}
	return d.record(ctx, tx, OperatorGrant(w), audit.WorkspaceCreated, w.ID, map[string]any{"name": w.Name, "plan": w.Plan})
}

// UpdateWorkspace stores the name, plan, time zone and settings of the grant's
// workspace. A key cannot change the plan, nor the rules that hold for keys:
// who decides and what always waits for approval.
func (d *Desk) UpdateWorkspace(ctx context.Context, g access.Grant, w access.Workspace) error {
	if err := requireAdmin(g); err != nil {
		return err
	}
	if w.ID != g.Workspace.ID {
		return problem.Errorf(problem.NotFound, "there is no workspace %q that you may change", w.ID).
			WithFix("Log in to that workspace first.")
	}
	if err := checkWorkspace(d.Catalog, w); err != nil {
		return err
	}
	return d.InTx(ctx, func(tx Store) error {
		old, err := tx.LockWorkspace(ctx, w.ID)
		if err != nil {
			return err
		}
		w.Settings.Paused = old.Settings.Paused // that is for Pause and Resume
		if w.Plan != old.Plan || !sameRules(w.Settings, old.Settings) {
			if err := requirePerson(g, "changes the plan and the rules of approvals"); err != nil {
				return err
			}
		}
		if err := tx.UpdateWorkspace(ctx, w); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.WorkspaceChanged, w.ID, w)
	})
}

// sameRules reports whether both settings bind keys and OAuth clients alike.
func sameRules(a, b access.Settings) bool {
	return a.ApprovalTTL == b.ApprovalTTL && a.SendCap() == b.SendCap() && a.PeopleOnly == b.PeopleOnly && a.FourEyes == b.FourEyes && slices.Equal(a.AlwaysAsk, b.AlwaysAsk) &&
		a.NoSelfRegistration == b.NoSelfRegistration && slices.Equal(a.ClientHosts, b.ClientHosts)
}

// nameForm is what people may call things.
const nameForm = "1 to 100 characters, no control characters"

func validName(s string) bool {
	n := utf8.RuneCountInString(s)
	return n >= 1 && n <= 100 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func checkWorkspace(c *catalog.Catalog, w access.Workspace) error {
	var fields []problem.Field
	bad := func(path, expected, got string) {
		fields = append(fields, problem.Field{Path: path, Expected: expected, Got: got})
	}
	if !validName(w.Name) {
		bad("name", nameForm, fmt.Sprintf("%.120q", w.Name))
	}
	if u := w.Settings.SupportURL; u != "" {
		if parsed, err := url.Parse(u); err != nil || len(u) > 500 || !slices.Contains([]string{"https", "http", "mailto"}, parsed.Scheme) {
			bad("support_url", "an https, http or mailto URL", fmt.Sprintf("%.100q", u))
		}
	}
	if w.Plan != access.Free && w.Plan != access.Pro {
		bad("plan", "free or pro", string(w.Plan))
	}
	if _, err := time.LoadLocation(w.TimeZone); err != nil || w.TimeZone == "" || w.TimeZone == "Local" {
		bad("time_zone", "an IANA time zone, as in Europe/Berlin", w.TimeZone)
	}
	if ttl := w.Settings.ApprovalTTL; ttl < approvals.MinTTL || ttl > approvals.MaxTTL {
		bad("approval_ttl", "1 hour to 30 days", ttl.String())
	}
	if n := w.Settings.SendsPerDay; n != nil && (*n < 0 || *n > access.MaxSendsPerDay) {
		bad("sends_per_day", fmt.Sprintf("0 to %d", access.MaxSendsPerDay), fmt.Sprint(*n))
	}
	for _, m := range w.Settings.AlwaysAsk {
		r, ok := c.Resource(m.Resource)
		v, err := access.ParseVerb(m.Verb)
		if !ok || err != nil || v == access.Read || !slices.Contains(r.Ladder.Verbs(), v) {
			bad("always_ask", "resource:verb, with a verb of the resource other than read", m.Resource+":"+m.Verb)
		}
	}
	for i, h := range w.Settings.ClientHosts {
		if u, err := url.Parse("https://" + h + "/"); err != nil || u.Hostname() != h || u.Port() != "" || !hostName.MatchString(h) {
			bad(fmt.Sprintf("client_hosts.%d", i), "a host name in lower case, as in claude.ai", fmt.Sprintf("%.100q", h))
		}
	}
	return refuseFields("the workspace", fields)
}

// hostName is a name as DNS has it, in lower case.
var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// refuseFields says what is wrong with a thing, nil if nothing is.
func refuseFields(what string, fields []problem.Field) error {
	if len(fields) == 0 {
		return nil
	}
	return &problem.Error{Kind: problem.Validation, Message: what + " cannot be like that", Fix: "Correct the fields that are listed.", Fields: fields}
}

// personFields says what is wrong with a person's e-mail address and name, which
// may be empty.
func personFields(email, name string) []problem.Field {
	var fields []problem.Field
	if a, err := mail.ParseAddress(email); err != nil || a.Address != email || len(email) > maxEmail || strings.ContainsFunc(email, unseen.Hidden) {
		fields = append(fields, problem.Field{Path: "email", Expected: "an e-mail address, as in ada@example.com", Got: fmt.Sprintf("%.100q", email)})
	}
	if name != "" && !validName(name) {
		fields = append(fields, problem.Field{Path: "name", Expected: nameForm, Got: fmt.Sprintf("%.120q", name)})
	}
	return fields
}

// SetPassword gives a person a new password, as its hash. Only the operator
// and the person may: whoever is in several workspaces has one password for
// all, so an admin of one who set it could enter the others.
func (d *Desk) SetPassword(ctx context.Context, g access.Grant, email, passwordHash string) error {
	self := g.Principal.Kind == access.KindPerson && g.Principal.User != ""
	if !self && g.Principal.Kind != access.KindOperator {
		return notYourPassword()
	}
	return d.InTx(ctx, func(tx Store) error {
		u, _, err := tx.UserByEmail(ctx, email)
		if self && (problem.Is(err, problem.NotFound) || err == nil && u.ID != g.Principal.User) {
			return notYourPassword()
		}
		if err != nil {
			return err
		}
		if err := tx.SetPassword(ctx, u.ID, passwordHash); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.UserChanged, u.ID, map[string]any{"password": "changed"})
	})
}

func notYourPassword() error {
	return problem.Errorf(problem.InsufficientScope, "a password is changed only by the person whose it is, and by the operator").
		WithFix("Ask the operator of the server: trustpager user password.")
}
