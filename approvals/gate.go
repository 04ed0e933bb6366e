package approvals

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

// MaxOpen is how many approvals of one credential may be open at a time.
const MaxOpen = 50

// SameAsk is how long after a decision the same request is answered with that
// decision instead of becoming a second approval.
const SameAsk = 10 * time.Minute

// IdempotencyTTL is how long an Idempotency-Key is remembered.
const IdempotencyTTL = 24 * time.Hour

// A Store keeps approvals and what they act on. Each method sees and touches
// only the rows of the workspace that it is given.
type Store interface {
	catalog.Store
	webhook.Outbox

	// Audit records e with the transaction.
	Audit(ctx context.Context, e audit.Entry) error

	// LockName keeps others from locking the name until the transaction ends.
	LockName(ctx context.Context, name string) error

	// Savepoint calls fn and undoes what it did to the store if it fails.
	Savepoint(ctx context.Context, fn func() error) error

	// RequesterGrant returns what the key may do today. It fails with
	// [problem.NotFound] if the key is gone.
	RequesterGrant(ctx context.Context, workspace, key string) (access.Grant, error)

	// DelegationOf returns what holds today of an OAuth credential. It fails with
	// [problem.NotFound] if the credential is gone.
	DelegationOf(ctx context.Context, workspace, grant string) (access.Delegation, error)

	// Workspace returns the workspace. It fails with [problem.NotFound].
	Workspace(ctx context.Context, id string) (access.Workspace, error)

	// TakeChanges returns what the transaction has done to records of the workspace
	// and nobody has taken yet, in order. What was undone is not among it.
	TakeChanges(workspace string) []catalog.Change

	// Doings returns what else the transaction has done in the workspace: the jobs
	// that it has enqueued, and the entries of the log, in order. What was undone is
	// not among it.
	Doings(workspace string) ([]jobs.Job, []audit.Entry)

	// Subscriptions returns the subscriptions of the workspace, the oldest first. A
	// transaction looks once, unless it changes one itself, and not at all if a write
	// of a record has told that there are none.
	Subscriptions(ctx context.Context, workspace string) ([]Subscription, error)

	// CreateApproval stores a, unless the credential has asked the same and that
	// approval is pending and not over, or was approved or rejected at or after
	// since, and its target is still as it was asked about or as the execution has
	// left it: then it counts the asking and returns that approval and false. It
	// fails with [problem.QueueFull] if open approvals of the credential would
	// exceed most. Concurrent calls for one credential take their turns.
	CreateApproval(ctx context.Context, a Approval, since time.Time, most int) (Approval, bool, error)

	// Records returns those of the records that there are.
	Records(ctx context.Context, workspace, resource string, ids []string) ([]catalog.Record, error)

	// SupersededBy returns the pending approvals by which the credential of a
	// asked for the same earlier.
	SupersededBy(ctx context.Context, a Approval) ([]string, error)

	// Approval returns one approval. It fails with [problem.NotFound].
	Approval(ctx context.Context, workspace, id string) (Approval, error)

	// CountWaiting returns how many approvals are pending or have failed: of the
	// workspace, or if user is not "" those that they may decide themselves.
	CountWaiting(ctx context.Context, workspace, user string) (int, error)

	// VoteApproval stores the votes of a pending approval with what they are for,
	// and returns it as it then is. It fails with [problem.Conflict] if it is not
	// pending, or if its votes are not before any more.
	VoteApproval(ctx context.Context, workspace, id string, before []Vote, v Voted) (Approval, error)

	// AssignApproval names who is to decide a pending or failed approval, "" for
	// nobody. It fails with [problem.Conflict] if there is nothing to decide.
	AssignApproval(ctx context.Context, workspace, id, user string) (Approval, error)

	// ListApprovals returns a page, newest first.
	ListApprovals(ctx context.Context, workspace string, q Query) ([]Approval, error)

	// UntoldApprovals returns what the credential has asked for and has not been
	// told the end of, the oldest first. What ended before since is not among it.
	UntoldApprovals(ctx context.Context, workspace, credential string, since time.Time, limit int) ([]Approval, error)

	// TellApprovals notes that the credential has been told how its approvals ended,
	// and returns the ids of those of which it had not been. Of concurrent calls one
	// gets each id.
	TellApprovals(ctx context.Context, workspace, credential string, ids []string) ([]string, error)

	// SaveTask stores the task. It fails with [problem.QueueFull] if the credential
	// has most of them that were made at or after since.
	SaveTask(ctx context.Context, t Task, since time.Time, most int) error

	// Task returns a task of the credential that was made at or after since. It
	// fails with [problem.NotFound].
	Task(ctx context.Context, workspace, credential, id string, since time.Time) (Task, error)

	// Tasks returns a page of the credential's tasks that were made at or after
	// since and before the one with the id, newest first.
	Tasks(ctx context.Context, workspace, credential, before string, since time.Time, limit int) ([]Task, error)

	// DecideApproval moves the approval from pending to d.Status, and returns it
	// as it then is. It fails with [problem.Conflict] if the approval is not
	// pending, so that of several concurrent decisions one wins, and with
	// [problem.NotFound].
	DecideApproval(ctx context.Context, workspace, id string, d Decision) (Approval, error)

	// MoveExecution moves the execution of an approved approval from one state to
	// another, storing its result or error, and returns the approval as it then
	// is. It fails with [problem.Conflict] if the execution is not in from.
	MoveExecution(ctx context.Context, workspace, id string, from Execution, to Ran) (Approval, error)

	// ExtendApproval moves the expiry of a pending approval. It fails with
	// [problem.Conflict] if it is not pending.
	ExtendApproval(ctx context.Context, workspace, id string, until time.Time) (Approval, error)

	CreateLoan(ctx context.Context, l Loan) error

	// Loan returns one loan. It fails with [problem.NotFound].
	Loan(ctx context.Context, workspace, id string) (Loan, error)

	// UseLoan counts one use of a loan that the credential has in force, and
	// reports false if it has none. Of concurrent calls no more succeed than the
	// loan has uses left.
	UseLoan(ctx context.Context, workspace, credential, resource string, v access.Verb, now time.Time) (Loan, bool, error)

	// ReturnLoan takes back one use that was counted in the same transaction.
	ReturnLoan(ctx context.Context, workspace, id string) error

	// LockWorkspace returns the workspace, and keeps others from changing it and
	// from locking it until the transaction ends. It fails with
	// [problem.NotFound].
	LockWorkspace(ctx context.Context, id string) (access.Workspace, error)

	// Loans returns a page, newest first.
	Loans(ctx context.Context, workspace string, q LoanQuery) ([]Loan, error)

	// EndLoans ends the loans in force of a credential or an OAuth client, of
	// everybody with "", or only the one of the id, and returns them.
	EndLoans(ctx context.Context, workspace, credential, id, why string, now time.Time) ([]Loan, error)

	// TakeIdempotencyKey reserves the key for this transaction, or returns what
	// it stands for since. Concurrent calls take their turns.
	TakeIdempotencyKey(ctx context.Context, workspace string, k IdempotencyKey) (Replay, bool, error)

	// FinishIdempotencyKey stores the answer that a later use of the key gets.
	FinishIdempotencyKey(ctx context.Context, workspace string, k IdempotencyKey, r Replay) error
}

// An IdempotencyKey is a caller's own name for one request.
type IdempotencyKey struct {
	Credential  string
	Key         string
	Fingerprint string    // SHA-256 over method, path and body, hex
	Now         time.Time // when it was used
	Since       time.Time // uses before that are forgotten
}

// A Replay is what an Idempotency-Key stands for: an answer, or an approval.
type Replay struct {
	Fingerprint string
	Response    json.RawMessage
	Approval    string // "" if the action ran
}

// A Decision moves an approval out of pending.
type Decision struct {
	Status Status
	By     access.Principal
	Reason string
	Edited json.RawMessage
	At     time.Time

	TargetVer int64           // the target's version that was decided about; 0 leaves that of the request
	Base      json.RawMessage // the target as it was decided about; nil leaves what it was when it was asked
}

// Voted is what the votes of an approval are for.
type Voted struct {
	Votes     []Vote
	Edited    json.RawMessage
	Digest    string
	TargetVer int64
}

// Topic is what is touched when an approval of the workspace is made, decided,
// moved or assigned.
func Topic(workspace string) string { return "approvals:" + workspace }

// Ran is the outcome of an execution.
type Ran struct {
	Execution Execution
	Result    json.RawMessage
	TargetVer int64 // the target's version afterwards, 0 if nothing ran
	Error     *problem.Error
	At        time.Time
}

// A Query selects approvals. Its zero members mean any.
type Query struct {
	Status     Status
	Execution  Execution
	Credential string
	Client     string // of an OAuth client, all its grants
	User       string // whom the requester acts for
	Assignee   string
	IDs        []string // one of these
	Decided    bool     // not pending
	Resource   string
	Before     string // only approvals made before the one with this id
	Limit      int
}

// A Gate is what every action passes. It is safe for concurrent use.
type Gate struct {
	Store    Store                                                    // for reads
	InTx     func(ctx context.Context, fn func(tx Store) error) error // all of fn, or none of it
	Watch    func(topic string) (changed <-chan struct{}, stop func())
	Catalog  *catalog.Catalog
	Webhooks *webhook.Endpoints
	Now      func() time.Time
	BaseURL  string // of the pages for people, without a slash at the end

	// Lookups are what calls need from outside of the database, such as an answer of
	// the resolver, by resource. They are called before the transaction of an action
	// that is no read, and may refuse it.
	Lookups map[string]func(ctx context.Context, a *catalog.Action, c catalog.Call) error

	// Outgoing say what a job that an action has enqueued would take outside, by the
	// kinds of jobs that do. They read the transaction, and nothing else.
	Outgoing map[string]func(ctx context.Context, tx Store, j jobs.Job) (Sending, error)

	denials access.Tally
}

// Incoming is an action as it arrives at a door.
type Incoming struct {
	ID        string // the target, if the door knows it; otherwise it is in the input
	IfVersion int64  // the target's version must be this one; 0 means any
	Input     json.RawMessage
	DryRun    bool // only try it, as if the input said so
	Request   Request
}

// An Outcome is what became of an action: a result, or an approval, or of one that
// was only tried what would become of it.
type Outcome struct {
	Result   catalog.Result
	DryRun   *DryRun   // set if the action was only tried
	Approval *Approval // set if the action waits, or has waited, for a person
	Created  bool      // the approval is new; otherwise the same was asked before
	Replayed bool      // the answer of an earlier request with the same Idempotency-Key
}

// Do performs the action on behalf of g: it refuses it, runs it, or queues it, or
// only tries it.
// It fails with [problem.InsufficientScope] if g may not do it even after
// approval, and with what the action's Decode, Check and Run fail with. Nothing
// is queued that could not run now.
func (gate *Gate) Do(ctx context.Context, g access.Grant, a *catalog.Action, in Incoming) (Outcome, error) {
	level := a.Level(g)
	if level == access.Deny {
		gate.AuditDenial(ctx, g, Denial{Action: a.Name, Resource: a.Resource, Target: in.ID, Door: in.Request.Door})
		return Outcome{}, refusal(a)
	}
	input, err := a.Decode(in.ID, in.Input)
	if err != nil {
		return Outcome{}, err
	}
	call := catalog.Call{Grant: g, Input: input, IfVersion: in.IfVersion, Now: gate.now()}
	if a.Verb == access.Read && level == access.Run {
		result, err := a.Run(ctx, gate.Store, call)
		return Outcome{Result: result}, err
	}
	if in.DryRun || input.DryRun {
		d, err := gate.dryRun(ctx, a, call, in, level)
		return Outcome{DryRun: d}, err
	}
	if look := gate.Lookups[a.Resource]; look != nil {
		if err := look(ctx, a, call); err != nil {
			return Outcome{}, err
		}
	}
	var out Outcome
	err = gate.InTx(ctx, func(tx Store) error {
		var err error
		out, err = gate.once(ctx, tx, g, a, in, call.Now, func() (Outcome, error) {
			if level == access.Run {
				return gate.run(ctx, tx, a, call, in, "")
			}
			loan, lent, err := gate.loan(ctx, tx, g, a, call, in)
			if err != nil {
				return Outcome{}, err
			}
			if lent {
				return gate.run(ctx, tx, a, call, in, loan.ID)
			}
			return gate.queue(ctx, tx, a, call, in)
		})
		return err
	})
	if err == nil && out.Approval == nil && a.Awaited() && catalog.Unsettled(out.Result.Data) {
		ctx, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		out.Result.Data, err = gate.Settle(ctx, g.Workspace.ID, a.Of(), out.Result.Target.ID)
	}
	return out, err
}

// settleTime is how long who asks a model waits for what it writes. Then they
// are answered that it is still queued.
const settleTime = 45 * time.Second

// refusal says what the caller lacks.
func refusal(a *catalog.Action) error {
	if a.Lends() {
		return problem.Errorf(problem.InsufficientScope, "%s: this credential may do nothing but read, not even after approval, so there is nothing to lend it", a.Name).
			WithFix("Ask an admin of the workspace to give this credential a right that waits for approval, as contacts:write-approval.")
	}
	if a.Resource == "" {
		return problem.Errorf(problem.InsufficientScope, "%s needs the right to read some resource, which this credential does not have", a.Name).
			WithFix("Ask an admin of the workspace to let this credential read what it is to find, as with contacts:read.")
	}
	scope := a.Scope()
	e := problem.Errorf(problem.InsufficientScope, "%s needs the scope %s or higher, which this credential does not have", a.Name, scope)
	if a.Verb == access.Read {
		return e.WithFix("Ask an admin of the workspace to give this credential %s.", scope)
	}
	return e.WithFix("Ask an admin of the workspace to give this credential %s (each use waits for a person) or a higher rung.", scope)
}

// once runs do, or answers as it did the first time that the caller used the
// same Idempotency-Key.
func (gate *Gate) once(ctx context.Context, tx Store, g access.Grant, a *catalog.Action, in Incoming, now time.Time, do func() (Outcome, error)) (Outcome, error) {
	if in.Request.IdempotencyKey == "" {
		return do()
	}
	// Secrets stay out of the fingerprint: it is kept, and could be guessed against.
	k := IdempotencyKey{Credential: g.Principal.ID, Key: in.Request.IdempotencyKey,
		Fingerprint: digest(a.Name, in.Request.Method, in.Request.Path, string(a.Mask(in.Request.Body))), Now: now, Since: now.Add(-IdempotencyTTL)}
	replay, used, err := tx.TakeIdempotencyKey(ctx, g.Workspace.ID, k)
	if err != nil {
		return Outcome{}, err
	}
	if used {
		if replay.Fingerprint != k.Fingerprint {
			return Outcome{}, problem.Errorf(problem.Conflict, "the Idempotency-Key %q was used for another request within the last 24 hours", k.Key).
				WithFix("Use a new key for a new request, and the same body for a repeated one.")
		}
		if replay.Approval != "" {
			a, err := tx.Approval(ctx, g.Workspace.ID, replay.Approval)
			return Outcome{Approval: &a, Replayed: true}, err
		}
		out := Outcome{Replayed: true}
		err := json.Unmarshal(replay.Response, &out.Result)
		return out, err
	}
	out, err := do()
	if err != nil {
		return out, err
	}
	if out.Approval != nil {
		replay.Approval = out.Approval.ID
	} else if replay.Response, err = json.Marshal(out.Result); err != nil {
		return out, fmt.Errorf("store the answer: %w", err)
	}
	return out, tx.FinishIdempotencyKey(ctx, g.Workspace.ID, k, replay)
}

// run performs the action at once, by a loan if one is named.
func (gate *Gate) run(ctx context.Context, tx Store, a *catalog.Action, call catalog.Call, in Incoming, loan string) (Outcome, error) {
	result, err := a.Run(ctx, tx, call)
	if err != nil {
		return Outcome{}, err
	}
	e := gate.entry(ctx, call.Grant.Workspace.ID, call.Grant.Principal, audit.ActionRun, call.Now)
	e.Action, e.Resource, e.Target, e.Level, e.Outcome, e.Door = a.Name, a.Resource, result.Target.ID, access.Run.String(), string(Done), in.Request.Door
	if loan != "" {
		e.Detail, _ = json.Marshal(map[string]string{"loan": loan}) // cannot fail: a string
	}
	if err := tx.Audit(ctx, e); err != nil {
		return Outcome{}, err
	}
	return Outcome{Result: result}, gate.Tell(ctx, tx, call.Grant.Workspace.ID, call.Grant.Principal, "")
}

// queue makes the action an approval.
func (gate *Gate) queue(ctx context.Context, tx Store, a *catalog.Action, call catalog.Call, in Incoming) (Outcome, error) {
	g, most := call.Grant, MaxOpen
	if name := a.SecretIn(call.Input); name != "" {
		return Outcome{}, secretRefused(a, name)
	}
	if err := a.MustSay(call.Input); err != nil {
		return Outcome{}, err
	}
	preview, cannot := a.Preview(ctx, tx, call)
	target := preview.Target
	last := "" // the loan of the same before
	if a.Lends() && cannot == nil {
		last, cannot = gate.lentBefore(ctx, tx, a, call)
	} else if a.Lends() {
		return Outcome{}, cannot // how it was decided before does not matter any more
	}
	if cannot != nil {
		if e, ok := errors.AsType[*problem.Error](cannot); !ok || e.Kind == problem.Unavailable {
			return Outcome{}, cannot
		}
		// What was asked before may have done it already: a repeated delete finds
		// nothing to delete, and is answered with the approval. Nothing new is
		// queued.
		most = 0
	}
	ttl := g.Workspace.Settings.ApprovalTTL
	if ttl <= 0 {
		ttl = access.DefaultApprovalTTL
	}
	resource, verb := a.About(call.Input)
	p := Approval{
		ID: typeid.NewID("apr"), Workspace: g.Workspace.ID, Status: Pending, Execution: NotExecuted,
		Action: a.Name, Resource: resource, Verb: verb, TargetID: target.ID, TargetVer: target.Version, Title: target.Title,
		Base: preview.Before, Input: call.Input.Pin(preview.Pinned), Reason: call.Input.Reason,
		Request: in.Request, By: g.Principal, Parent: g.Parent, Decider: g.DeciderOf(resource, verb), Asked: 1,
		CreatedAt: call.Now, ExpiresAt: call.Now.Add(ttl),
		DedupeKey: dedupeKey(a, call, in),
	}
	switch {
	case a.Lends():
		p.DedupeKey = digest(p.DedupeKey, last)
	case a.PeopleDecide:
		p.Decider = access.DeciderAdmin
	}
	p.Digest = p.digest()
	stored, created, err := tx.CreateApproval(ctx, p, call.Now.Add(-SameAsk), most)
	if cannot != nil && problem.Is(err, problem.QueueFull) {
		return Outcome{}, cannot
	}
	if err != nil {
		return Outcome{}, err
	}
	if !created {
		return Outcome{Approval: &stored}, nil
	}
	if target.Version > 0 {
		if err := gate.supersede(ctx, tx, p); err != nil {
			return Outcome{}, err
		}
	}
	expiry, err := jobs.New(call.Now, p.Workspace, ExpireKind, p.ID, expirePayload{p.ID}, p.ExpiresAt)
	if err != nil {
		return Outcome{}, err
	}
	if err := tx.EnqueueJob(ctx, expiry); err != nil {
		return Outcome{}, err
	}
	if err := gate.tellApproval(ctx, tx, stored, webhook.ApprovalRequested, call.Now); err != nil {
		return Outcome{}, err
	}
	e := gate.entry(ctx, p.Workspace, g.Principal, audit.ActionQueued, call.Now)
	e.Action, e.Resource, e.Target, e.Level, e.Approval, e.Door = a.Name, p.Resource, target.ID, access.Queue.String(), p.ID, in.Request.Door
	return Outcome{Approval: &stored, Created: true}, tx.Audit(ctx, e)
}

// secretRefused refuses a secret in what waits for approval, or in what a decider
// has made of it: approvals are kept as they are.
func secretRefused(a *catalog.Action, name string) error {
	return problem.Errorf(problem.Validation, "%s: a secret cannot wait for approval, as it would be kept where it waits", a.Name).
		WithFix("Leave %s out, and let an admin enter it on the page of the settings.", name)
}

// dedupeKey is the same for the same request of a credential.
func dedupeKey(a *catalog.Action, call catalog.Call, in Incoming) string {
	return digest(a.Name, string(call.Input.Canonical), in.Request.IdempotencyKey)
}

// supersede withdraws what the requester of a asked for before the target moved
// on. It is never put to the new version: somebody may have looked at it
// already, and would approve what they have not seen.
func (gate *Gate) supersede(ctx context.Context, tx Store, a Approval) error {
	old, err := tx.SupersededBy(ctx, a)
	if err != nil {
		return err
	}
	for _, id := range old {
		d := Decision{Status: Withdrawn, By: a.By, Reason: "the target has changed, and the same was asked again as " + a.ID, At: a.CreatedAt}
		o, err := tx.DecideApproval(ctx, a.Workspace, id, d)
		if err != nil {
			return err
		}
		if err := gate.decided(ctx, tx, &o, audit.ApprovalWithdrawn); err != nil {
			return err
		}
		if err := gate.auditDecision(ctx, tx, o, audit.ApprovalWithdrawn, a.By, a.CreatedAt); err != nil {
			return err
		}
	}
	return nil
}

// digest hashes what a decider of the approval sees of the action.
func (a *Approval) digest() string {
	runs := a.Input
	if a.Edited != nil {
		runs = a.Edited
	}
	return digest(a.Action, a.TargetID, strconv.FormatInt(a.TargetVer, 10), string(runs))
}

// digest returns the hex SHA-256 of the parts, each with its length, so that
// no two lists of parts are the same bytes.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		io.WriteString(h, strconv.Itoa(len(p)))
		io.WriteString(h, ":")
		io.WriteString(h, p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// entry begins an audit entry.
func (gate *Gate) entry(ctx context.Context, workspace string, by access.Principal, event audit.Event, now time.Time) audit.Entry {
	return audit.Entry{Workspace: workspace, Time: now, Actor: by.Actor(), Event: event, Request: access.RequestID(ctx)}
}

// maxDenials is how many refusals of a credential are audited one by one
// within an hour. A flood beyond that is only counted.
const maxDenials = 60

// A Denial is what somebody asked for and may not do.
type Denial struct {
	Action   string
	Resource string // "" for what is about no resource, as a decision
	Target   string // as it was sent
	Door     string
}

// AuditDenial records that g asked for what it may not do, up to maxDenials in
// an hour. Do records its own refusals; the doors record those of what is no
// action. The refusal stands whether or not it can be recorded.
func (gate *Gate) AuditDenial(ctx context.Context, g access.Grant, d Denial) {
	if g.Workspace.ID == "" {
		return // nobody's: there is no log to write to
	}
	now := gate.now()
	suppressed, tell := gate.denials.Count(g.Principal.ID, maxDenials, now)
	if !tell {
		return
	}
	e := gate.entry(ctx, g.Workspace.ID, g.Principal, audit.ActionDenied, now)
	e.Action, e.Resource, e.Level, e.Door = d.Action, d.Resource, access.Deny.String(), d.Door
	e.Target = printable(d.Target)
	if suppressed > 0 {
		e.Detail = json.RawMessage(fmt.Sprintf(`{"not_recorded_before":%d}`, suppressed))
	}
	if err := gate.InTx(ctx, func(tx Store) error { return tx.Audit(ctx, e) }); err != nil {
		problem.Report(ctx, fmt.Errorf("audit a refusal: %w", err))
	}
}

// printable returns s, which nobody has looked at yet, as text that the log
// takes: a target that cannot be stored must not hide the refusal.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxTarget)], "?")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?' // control characters of terminals, and what nobody sees
		}
		return r
	}, s)
}

const maxTarget = 100

// URL returns the address of the approval's page for people.
func (gate *Gate) URL(a Approval) string {
	return gate.BaseURL + "/settings/api?tab=approvals&approval=" + a.ID
}

// requireReason checks a person's reason for rejecting.
func requireReason(reason string) (string, error) {
	reason = strings.TrimSpace(strings.ReplaceAll(strings.ToValidUTF8(reason, "\ufffd"), "\x00", "\ufffd"))
	if reason == "" {
		return "", &problem.Error{Kind: problem.MissingFields, Message: "a rejection needs a reason",
			Fix:    `Send {"reason": "…"}: the agent is told it, so that it can do better.`,
			Fields: []problem.Field{{Path: "reason", Expected: "text that says why", Got: "nothing"}}}
	}
	if n := len([]rune(reason)); n > maxReason {
		return "", &problem.Error{Kind: problem.Validation, Message: "the reason is too long", Fix: fmt.Sprintf("Say it in at most %d characters.", maxReason),
			Fields: []problem.Field{{Path: "reason", Expected: fmt.Sprintf("at most %d characters", maxReason), Got: fmt.Sprintf("%d characters", n)}}}
	}
	return reason, nil
}

const maxReason = 2000
