package approvals

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/typeid"
)

// A Loan lets one credential apply one verb to one resource at once, which
// otherwise waits for approval, until its time or its uses are over. It is lent
// on the card of an approval by somebody who may decide that approval, and holds
// only as long as they may do so: at each use the lender's rights of that moment
// count. It never gives what the credential may not do even after approval, nor
// what the workspace marks as always asking. A request that already waits as an
// approval goes on waiting, or it would be done twice.
type Loan struct {
	ID         string           `json:"id"` // loan_…
	Workspace  string           `json:"-"`
	Credential string           `json:"credential"` // who has it
	Client     string           `json:"client,omitempty"`
	Name       string           `json:"name"` // what people call the credential
	Resource   string           `json:"resource"`
	Verb       access.Verb      `json:"-"`
	VerbName   string           `json:"verb"`
	Approval   string           `json:"approval"`
	By         access.Principal `json:"-"`
	LentBy     Who              `json:"lent_by"`
	CreatedAt  time.Time        `json:"created_at"`
	ExpiresAt  time.Time        `json:"expires_at"`
	Uses       int64            `json:"uses"`
	Remaining  int64            `json:"remaining"`
	EndedAt    time.Time        `json:"ended_at,omitzero"` // before its time and its uses were over
	Why        string           `json:"why,omitempty"`     // it was ended
}

// InForce reports whether the loan still lends.
func (l Loan) InForce(now time.Time) bool {
	return l.EndedAt.IsZero() && now.Before(l.ExpiresAt) && l.Remaining > 0
}

// LoanUses is how often a loan can be used.
const LoanUses = 25

// LoanTimes are how long a loan can last.
var LoanTimes = []time.Duration{15 * time.Minute, time.Hour, 8 * time.Hour}

// A LoanQuery selects loans. Its zero members mean any.
type LoanQuery struct {
	Credential string
	Resource   string
	Verb       string
	InForceAt  time.Time // only those that lend at that time
	Before     string    // only loans made before the one with this id
	Limit      int
}

// Lend lends the credential that asked for the approval what it asked for, for
// a time of [LoanTimes]. The approval itself is not decided by it. It fails as
// [Gate.Approve] does, and with [problem.Conflict] if that cannot be lent.
func (gate *Gate) Lend(ctx context.Context, g access.Grant, approval string, lasts time.Duration) (Loan, error) {
	if !slices.Contains(LoanTimes, lasts) {
		return Loan{}, &problem.Error{Kind: problem.Validation, Message: "a loan lasts 15 minutes, an hour or 8 hours", Fix: "Send minutes as 15, 60 or 480.",
			Fields: []problem.Field{{Path: "minutes", Expected: "15, 60 or 480", Got: fmt.Sprint(lasts.Minutes())}}}
	}
	now := gate.now()
	var l Loan
	err := gate.InTx(ctx, func(tx Store) error {
		// Whoever rejects, pauses or revokes ends loans under the same lock: before
		// this one, which is then refused, or after it.
		var err error
		if g.Workspace, err = tx.LockWorkspace(ctx, g.Workspace.ID); err != nil {
			return err
		}
		a, err := gate.pending(ctx, tx, g, approval)
		if err != nil {
			return err
		}
		if err := gate.lendable(ctx, tx, g, a); err != nil {
			return err
		}
		l, err = gate.makeLoan(ctx, tx, Loan{Workspace: g.Workspace.ID, Resource: a.Resource, Verb: a.Verb, Approval: a.ID, By: g.Principal,
			CreatedAt: now, ExpiresAt: now.Add(lasts)}, a.By)
		return err
	})
	return l, err
}

// makeLoan lends l to the principal, in place of what it has of the same: lending
// twice lends no more uses than once.
func (gate *Gate) makeLoan(ctx context.Context, tx Store, l Loan, to access.Principal) (Loan, error) {
	l.ID, l.Credential, l.Client, l.Name = typeid.NewID("loan"), to.ID, to.Client, to.Name
	l.VerbName, l.LentBy, l.Remaining = l.Verb.String(), who(l.By), LoanUses
	before, err := tx.Loans(ctx, l.Workspace, LoanQuery{Credential: l.Credential, Resource: l.Resource, Verb: l.VerbName, InForceAt: l.CreatedAt, Limit: 1})
	if err != nil {
		return l, err
	}
	for _, b := range before {
		ended, err := tx.EndLoans(ctx, l.Workspace, "", b.ID, "lent anew", l.CreatedAt)
		if err != nil {
			return l, err
		}
		if err := gate.auditEnds(ctx, tx, ended, l.By); err != nil {
			return l, err
		}
	}
	if err := tx.CreateLoan(ctx, l); err != nil {
		return l, err
	}
	return l, gate.auditLoan(ctx, tx, l, audit.LoanMade, l.By, map[string]any{"expires_at": l.ExpiresAt, "uses": l.Remaining, "approval": l.Approval})
}

// notYours refuses what the lender may not do at once themselves.
var notYours = problem.Errorf(problem.InsufficientScope, "you may not do this yourself, so you cannot lend it").WithFix("Ask an admin of the workspace.")

// lendable refuses what cannot be lent.
func (gate *Gate) lendable(ctx context.Context, tx Store, g access.Grant, a Approval) error {
	if err := gate.Catalog.Lendable(g.Workspace, a.Resource, a.Verb); err != nil {
		return err
	}
	if g.Decide(a.Resource, a.Verb) != access.Run {
		return notYours
	}
	action, err := gate.action(a)
	if err != nil {
		return err
	}
	if action.Lends() {
		return problem.Errorf(problem.Conflict, "this asks for a loan itself").WithFix("Approve it: that lends what it asks for.")
	}
	call, err := gate.callOf(ctx, tx, a, action, nil, gate.now())
	if err != nil {
		return err
	}
	if action.Level(call.Grant) != access.Queue {
		return problem.Errorf(problem.Conflict, "%s of %s cannot be lent: the credential does not have to ask for it any more", a.Verb, a.Resource).
			WithFix("Decide each request for itself.")
	}
	return nil
}

// loan uses a loan of the credential for the action, if it has one and does not
// wait for an approval of the same already. A loan whose lender could not lend it
// any more ends.
func (gate *Gate) loan(ctx context.Context, tx Store, g access.Grant, a *catalog.Action, call catalog.Call, in Incoming) (Loan, bool, error) {
	if a.Resource == "" || a.PeopleDecide || g.Workspace.AlwaysAsks(a.Resource, a.Verb) || g.Workspace.Settings.FourEyes {
		return Loan{}, false, nil
	}
	l, lent, err := tx.UseLoan(ctx, g.Workspace.ID, g.Principal.ID, a.Resource, a.Verb, call.Now)
	if err != nil || !lent {
		return l, false, err
	}
	asked, err := tx.SupersededBy(ctx, Approval{Workspace: g.Workspace.ID, By: g.Principal, DedupeKey: dedupeKey(a, call, in)})
	if err != nil {
		return l, false, err
	}
	if len(asked) > 0 {
		return l, false, tx.ReturnLoan(ctx, g.Workspace.ID, l.ID)
	}
	why, err := gate.lapsed(ctx, tx, g, l)
	if err != nil || why == "" {
		return l, err == nil, err
	}
	ended, err := tx.EndLoans(ctx, g.Workspace.ID, "", l.ID, why, call.Now)
	if err != nil {
		return l, false, err
	}
	return l, false, gate.auditEnds(ctx, tx, ended, access.System)
}

// lapsed says why the lender could not lend l to g any more, "" if they could.
func (gate *Gate) lapsed(ctx context.Context, tx Store, g access.Grant, l Loan) (why string, err error) {
	var lender access.Grant
	switch l.By.Kind {
	case access.KindOperator:
		return "", nil
	case access.KindPerson:
		lender, err = gate.personGrant(ctx, tx, g.Workspace, l.By.User)
	case access.KindKey:
		lender, err = tx.RequesterGrant(ctx, g.Workspace.ID, l.By.ID)
		if why := ended(lender, gate.now()); err == nil && why != "" {
			return "the key that has lent it " + why, nil
		}
		if _, paused := lender.Paused(); err == nil && paused {
			return "the key that has lent it is paused", nil
		}
	default:
		return "its lender may not decide this", nil // nobody else lends
	}
	if problem.Is(err, problem.NotFound) {
		return "its lender is gone", nil
	}
	if err != nil {
		return "", err
	}
	if lender.Decide(l.Resource, l.Verb) != access.Run {
		return "its lender may not do this any more", nil
	}
	err = gate.mayDecide(ctx, tx, lender, Approval{Workspace: g.Workspace.ID, Resource: l.Resource, Verb: l.Verb, By: g.Principal, Parent: g.Parent,
		Decider: g.DeciderOf(l.Resource, l.Verb)})
	if problem.Is(err, problem.InsufficientScope) {
		return "its lender may not decide this any more", nil
	}
	return "", err
}

// Loans returns loans, newest first: all of them to who may administer, to
// others what their own credential, or an app of theirs, has.
func (gate *Gate) Loans(ctx context.Context, g access.Grant, q LoanQuery) ([]Loan, error) {
	if !seesAll(g) {
		if g.Principal.Kind == access.KindPerson && q.Credential != "" {
			d, err := gate.Store.DelegationOf(ctx, g.Workspace.ID, q.Credential)
			if problem.Is(err, problem.NotFound) || err == nil && d.User.ID != g.Principal.User {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
		} else {
			q.Credential = g.Principal.ID
		}
	}
	return gate.Store.Loans(ctx, g.Workspace.ID, q)
}

// EndLoan ends a loan before its time. Whoever may administer may end each, its
// lender and the user whom the credential acts for too. It fails with
// [problem.NotFound], and with [problem.Conflict] if it has ended.
func (gate *Gate) EndLoan(ctx context.Context, g access.Grant, id string) (Loan, error) {
	var l Loan
	err := gate.InTx(ctx, func(tx Store) error {
		if !typeid.ValidID("loan", id) {
			return noLoan(printable(id))
		}
		var err error
		if l, err = tx.Loan(ctx, g.Workspace.ID, id); err != nil {
			return err
		}
		if !seesAll(g) && l.By.ID != g.Principal.ID && l.Credential != g.Principal.ID {
			d, err := tx.DelegationOf(ctx, g.Workspace.ID, l.Credential)
			if err != nil && !problem.Is(err, problem.NotFound) {
				return err
			}
			if err != nil || d.User.ID == "" || d.User.ID != g.Principal.User {
				return noLoan(id)
			}
		}
		now := gate.now()
		if !l.InForce(now) {
			return problem.Errorf(problem.Conflict, "the loan %s has ended", id).WithFix("There is nothing left to end.")
		}
		ended, err := tx.EndLoans(ctx, g.Workspace.ID, "", id, "ended by "+g.Principal.Name, now)
		if err != nil {
			return err
		}
		return gate.auditEnds(ctx, tx, ended, g.Principal)
	})
	if err == nil {
		l.EndedAt, l.Why = gate.now(), "ended by "+g.Principal.Name
	}
	return l, err
}

func noLoan(id string) error {
	return problem.Errorf(problem.NotFound, "there is no loan %q", id).WithFix("List the loans to find the right id.")
}

// EndLoans ends the loans of a credential, or of an OAuth client, or with "" all
// of the workspace, in the caller's transaction. by is who has caused it.
func (gate *Gate) EndLoans(ctx context.Context, tx Store, workspace, credential, why string, by access.Principal) error {
	if _, err := tx.LockWorkspace(ctx, workspace); err != nil { // see Lend
		return err
	}
	ended, err := tx.EndLoans(ctx, workspace, credential, "", why, gate.now())
	if err != nil {
		return err
	}
	return gate.auditEnds(ctx, tx, ended, by)
}

func (gate *Gate) auditEnds(ctx context.Context, tx Store, ended []Loan, by access.Principal) error {
	for _, l := range ended {
		if err := gate.auditLoan(ctx, tx, l, audit.LoanEnded, by, map[string]any{"why": l.Why, "uses": l.Uses}); err != nil {
			return err
		}
	}
	return nil
}

func (gate *Gate) auditLoan(ctx context.Context, tx Store, l Loan, event audit.Event, by access.Principal, detail map[string]any) error {
	e := gate.entry(ctx, l.Workspace, by, event, gate.now())
	detail["verb"], detail["loan"] = l.Verb.String(), l.ID
	e.Resource, e.Target, e.Asker, e.Approval = l.Resource, l.ID, l.Credential, l.Approval
	var err error
	if e.Detail, err = json.Marshal(detail); err != nil {
		return err
	}
	return tx.Audit(ctx, e)
}
