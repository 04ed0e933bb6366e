package approvals

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

// Seen is what a decider says of an approval besides yes.
type Seen struct {
	Digest string          // of what the decider has looked at, "" if it is not known
	Edited json.RawMessage // what to run instead of the input; nil means as it was asked

	Stale         Stale // what to do about a target that has changed
	TargetVersion int64 // of the target as the decider has seen it, with Stale
}

// Approve decides the approval for g with yes, and runs its action in the same
// transaction. An execution that fails is undone and leaves the approval
// approved and failed. Where the workspace wants four eyes, the first yes leaves
// the approval pending, and a second person has to say yes to the same. Approve
// fails, deciding nothing, with
//
//   - [problem.NotFound] if g may not see the approval,
//   - [problem.InsufficientScope] if g may not decide it,
//   - [problem.Conflict] if it is not pending any more, is not what was seen,
//     or can no longer run: its target has changed, or its requester has lost
//     the right to ask,
//   - what the action's Decode fails with, if it was edited.
func (gate *Gate) Approve(ctx context.Context, g access.Grant, id string, seen Seen) (Approval, error) {
	now := gate.now()
	var a Approval
	err := gate.InTx(ctx, func(tx Store) error {
		var err error
		if a, err = gate.pending(ctx, tx, g, id); err != nil {
			return err
		}
		action, err := gate.action(a)
		if err != nil {
			return err
		}
		if seen.Digest != "" && seen.Digest != a.Digest {
			return problem.Errorf(problem.Conflict, "approval %s is not what you have looked at", a.ID).
				WithFix("Read the approval again, and decide with its present digest.")
		}
		edited, version, err := gate.rebase(ctx, tx, a, action, seen)
		if err != nil {
			return err
		}
		call, err := gate.callOf(ctx, tx, a, action, edited, now)
		if err != nil {
			return err
		}
		call.IfVersion, call.Decider = version, g.Principal
		if name := action.SecretIn(call.Input); name != "" {
			return secretRefused(action, name)
		}
		preview, err := action.Preview(ctx, tx, call)
		if err != nil {
			return blocked(a, err)
		}
		d := Decision{Status: Approved, By: g.Principal, At: now, TargetVer: version}
		if !bytes.Equal(call.Input.Canonical, a.Input) {
			d.Edited = call.Input.Canonical
		}
		if version != a.TargetVer {
			d.Base = preview.Before
		}
		standing, err := gate.standing(ctx, tx, g.Workspace, a)
		if err != nil {
			return err
		}
		if voted, enough := vote(g, a, standing, d); !enough {
			return gate.vote(ctx, tx, g, &a, voted, now)
		}
		if a, err = tx.DecideApproval(ctx, g.Workspace.ID, id, d); err != nil {
			return err
		}
		if err := gate.decided(ctx, tx, &a, audit.ApprovalApproved); err != nil {
			return err
		}
		return gate.execute(ctx, tx, &a, action, call, audit.ApprovalApproved)
	})
	if problem.Is(err, problem.Unknown) {
		// Nobody answered whether the commit happened: the state tells.
		stored, rerr := gate.Store.Approval(context.WithoutCancel(ctx), g.Workspace.ID, id)
		if rerr == nil && stored.Status == Approved && stored.DecidedBy == g.Principal && stored.DecidedAt.Equal(now) {
			return stored, nil
		}
		return Approval{}, errors.Join(err, rerr)
	}
	return a, err
}

// standing returns the votes of those who may still decide the approval.
func (gate *Gate) standing(ctx context.Context, tx Store, w access.Workspace, a Approval) ([]Vote, error) {
	var votes []Vote
	for _, v := range a.Votes {
		voter, err := gate.personGrant(ctx, tx, w, v.By.User)
		if err == nil {
			err = gate.mayDecide(ctx, tx, voter, a)
		}
		switch {
		case err == nil:
			votes = append(votes, v)
		case !problem.Is(err, problem.NotFound) && !problem.Is(err, problem.InsufficientScope):
			return nil, err
		}
	}
	return votes, nil
}

// vote returns the standing votes with that of g for what d would run, and
// whether they are enough. Votes for something else do not count any more.
func vote(g access.Grant, a Approval, standing []Vote, d Decision) (Voted, bool) {
	runs := a
	runs.Edited, runs.TargetVer = d.Edited, d.TargetVer
	v := Voted{Edited: d.Edited, TargetVer: d.TargetVer, Digest: runs.digest()}
	for _, each := range standing {
		if each.Digest == v.Digest && each.By.ID != g.Principal.ID {
			v.Votes = append(v.Votes, each)
		}
	}
	v.Votes = append(v.Votes, Vote{g.Principal, v.Digest, d.At})
	return v, len(v.Votes) >= needed(g)
}

// vote stores a yes that is not enough.
func (gate *Gate) vote(ctx context.Context, tx Store, g access.Grant, a *Approval, v Voted, now time.Time) error {
	stored, err := tx.VoteApproval(ctx, g.Workspace.ID, a.ID, a.Votes, v)
	if err != nil {
		return err
	}
	*a = stored
	return gate.auditDecision(ctx, tx, stored, audit.ApprovalVoted, g.Principal, now)
}

// Assign names the user who is to decide the approval, "" for nobody in
// particular. Who may decide it may assign it, to somebody who may decide it
// too. It fails with [problem.Conflict] if there is nothing to decide.
func (gate *Gate) Assign(ctx context.Context, g access.Grant, id, user string) (Approval, error) {
	var a Approval
	err := gate.InTx(ctx, func(tx Store) error {
		var err error
		if a, err = gate.decidable(ctx, tx, g, id); err != nil {
			return err
		}
		if user != "" {
			if err := gate.mayBeAssigned(ctx, tx, g.Workspace, a, user); err != nil {
				return err
			}
		}
		if a, err = tx.AssignApproval(ctx, g.Workspace.ID, id, user); err != nil {
			return err
		}
		e := gate.decisionEntry(ctx, a, audit.ApprovalAssigned, g.Principal, gate.now())
		e.Detail, _ = json.Marshal(map[string]string{"assignee": user}) // cannot fail: a string
		return tx.Audit(ctx, e)
	})
	return a, err
}

// mayBeAssigned refuses a user who could not decide the approval.
func (gate *Gate) mayBeAssigned(ctx context.Context, tx Store, w access.Workspace, a Approval, user string) error {
	g, err := gate.personGrant(ctx, tx, w, user)
	if err != nil {
		return err
	}
	return gate.mayDecide(ctx, tx, g, a)
}

// personGrant returns what the member may do today. It fails with
// [problem.NotFound] if the user is none.
func (gate *Gate) personGrant(ctx context.Context, tx Store, w access.Workspace, user string) (access.Grant, error) {
	users, err := tx.Users(ctx, w.ID)
	if err != nil {
		return access.Grant{}, err
	}
	for _, u := range users {
		if u.ID != user {
			continue
		}
		rights := gate.Catalog.RoleRights(u.Role)
		return access.Grant{Principal: access.Principal{Kind: access.KindPerson, ID: u.ID, Name: u.Name, User: u.ID},
			Workspace: w, Rights: rights, MayDecide: rights.Full()}, nil
	}
	return access.Grant{}, problem.Errorf(problem.NotFound, "there is no member %.60q of the workspace", user).WithFix("Use the id of a member; list_users finds it.")
}

// Reject decides the approval for g with no. The reason is required: the agent
// is told it. It fails as Approve does.
func (gate *Gate) Reject(ctx context.Context, g access.Grant, id, reason string) (Approval, error) {
	reason, err := requireReason(reason)
	if err != nil {
		return Approval{}, err
	}
	return gate.end(ctx, g.Workspace.ID, id, Decision{Status: Rejected, By: g.Principal, Reason: reason}, audit.ApprovalRejected,
		func(tx Store) error {
			_, err := gate.pending(ctx, tx, g, id)
			return err
		})
}

// Withdraw takes back what the grant's own credential has asked for. It fails
// with [problem.NotFound] for the approvals of others, and with
// [problem.Conflict] if it is decided already.
func (gate *Gate) Withdraw(ctx context.Context, g access.Grant, id string) (Approval, error) {
	return gate.end(ctx, g.Workspace.ID, id, Decision{Status: Withdrawn, By: g.Principal}, audit.ApprovalWithdrawn,
		func(tx Store) error {
			a, err := approval(ctx, tx, g.Workspace.ID, id)
			if err == nil && a.By.ID != g.Principal.ID {
				return notFound(id)
			}
			return err
		})
}

// end moves a pending approval to a status in which its action never runs.
func (gate *Gate) end(ctx context.Context, workspace, id string, d Decision, event audit.Event, allowed func(tx Store) error) (Approval, error) {
	d.At = gate.now()
	var a Approval
	err := gate.InTx(ctx, func(tx Store) error {
		if err := allowed(tx); err != nil {
			return err
		}
		var err error
		a, err = gate.endIn(ctx, tx, workspace, id, d, event)
		return err
	})
	return a, err
}

// endIn is end in a transaction, for a decision that is allowed.
func (gate *Gate) endIn(ctx context.Context, tx Store, workspace, id string, d Decision, event audit.Event) (Approval, error) {
	a, err := tx.DecideApproval(ctx, workspace, id, d)
	if err != nil {
		return a, err
	}
	if err := gate.decided(ctx, tx, &a, event); err != nil {
		return a, err
	}
	if event == audit.ApprovalRejected {
		// Whoever rejects one request does not want the others to pass unseen.
		if err := gate.EndLoans(ctx, tx, workspace, a.By.ID, "a request was rejected", d.By); err != nil {
			return a, err
		}
	}
	return a, gate.auditDecision(ctx, tx, a, event, d.By, d.At)
}

// WithdrawAll withdraws the pending approvals of a credential that is being
// removed, and ends its loans, in the caller's transaction. by is who removes
// it.
func (gate *Gate) WithdrawAll(ctx context.Context, tx Store, workspace, credential string, by access.Principal) (int, error) {
	n := 0
	if err := gate.EndLoans(ctx, tx, workspace, credential, "the credential was removed", by); err != nil {
		return n, err
	}
	for {
		open, err := tx.ListApprovals(ctx, workspace, Query{Status: Pending, Credential: credential, Limit: MaxOpen})
		if err != nil || len(open) == 0 {
			return n, err
		}
		for _, o := range open {
			_, err := gate.endIn(ctx, tx, workspace, o.ID, Decision{Status: Withdrawn, By: by, At: gate.now()}, audit.ApprovalWithdrawn)
			if problem.Is(err, problem.Conflict) {
				continue // somebody has decided it since it was listed
			}
			if err != nil {
				return n, err
			}
			n++
		}
	}
}

// Retry runs a failed execution once more. It fails as Approve does.
func (gate *Gate) Retry(ctx context.Context, g access.Grant, id string) (Approval, error) {
	var a Approval
	err := gate.InTx(ctx, func(tx Store) error {
		var err error
		if a, err = gate.failed(ctx, tx, g, id); err != nil {
			return err
		}
		action, err := gate.action(a)
		if err != nil {
			return err
		}
		now := gate.now()
		call, err := gate.callOf(ctx, tx, a, action, nil, now)
		if err != nil {
			return err
		}
		call.Decider = g.Principal
		if _, err := action.Check(ctx, tx, call); err != nil {
			return blocked(a, err)
		}
		if a, err = tx.MoveExecution(ctx, g.Workspace.ID, id, Failed, Ran{Execution: NotExecuted}); err != nil {
			return err
		}
		a.DecidedBy = g.Principal // for the audit of this run
		return gate.execute(ctx, tx, &a, action, call, audit.ApprovalRetried)
	})
	return a, err
}

// Dismiss lets a failed execution be. It fails as Approve does.
func (gate *Gate) Dismiss(ctx context.Context, g access.Grant, id string) (Approval, error) {
	var a Approval
	err := gate.InTx(ctx, func(tx Store) error {
		var err error
		if a, err = gate.failed(ctx, tx, g, id); err != nil {
			return err
		}
		if a, err = tx.MoveExecution(ctx, g.Workspace.ID, id, Failed, Ran{Execution: Dismissed, Error: a.Error, At: a.ExecutedAt}); err != nil {
			return err
		}
		return gate.auditDecision(ctx, tx, a, audit.ApprovalDismissed, g.Principal, gate.now())
	})
	return a, err
}

// The bounds of an approval's life from now on, for Extend.
const (
	MinTTL = time.Hour
	MaxTTL = 30 * 24 * time.Hour
)

// Extend moves the expiry of a pending approval to until, at least an hour and
// at most 30 days from now.
func (gate *Gate) Extend(ctx context.Context, g access.Grant, id string, until time.Time) (Approval, error) {
	now := gate.now()
	until = until.UTC().Truncate(time.Millisecond)
	if until.Before(now.Add(MinTTL)) || until.After(now.Add(MaxTTL)) {
		return Approval{}, &problem.Error{Kind: problem.Validation, Message: "an approval can be extended to between 1 hour and 30 days from now",
			Fix:    fmt.Sprintf("Send a time from %s to %s.", now.Add(MinTTL).Format(time.RFC3339), now.Add(MaxTTL).Format(time.RFC3339)),
			Fields: []problem.Field{{Path: "until", Expected: "1 hour to 30 days from now", Got: until.Format(time.RFC3339)}}}
	}
	var a Approval
	err := gate.InTx(ctx, func(tx Store) error {
		if _, err := gate.pending(ctx, tx, g, id); err != nil {
			return err
		}
		var err error
		if a, err = tx.ExtendApproval(ctx, g.Workspace.ID, id, until); err != nil {
			return err
		}
		expiry, err := jobs.New(now, a.Workspace, ExpireKind, a.ID, expirePayload{a.ID}, a.ExpiresAt)
		if err != nil {
			return err
		}
		if err := tx.EnqueueJob(ctx, expiry); err != nil {
			return err
		}
		return gate.auditDecision(ctx, tx, a, audit.ApprovalExtended, g.Principal, now)
	})
	return a, err
}

// ExpireKind is the kind of the jobs that end approvals nobody has decided.
const ExpireKind = "approval.expire"

type expirePayload struct {
	Approval string `json:"approval"`
}

// Expire is the handler of jobs of [ExpireKind].
func (gate *Gate) Expire(ctx context.Context, j jobs.Job) error {
	var p expirePayload
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return jobs.Permanent(fmt.Errorf("expire an approval: %w", err))
	}
	d := Decision{Status: Expired, By: access.System, At: gate.now()}
	err := gate.InTx(ctx, func(tx Store) error {
		a, err := gate.endIn(ctx, tx, j.Workspace, p.Approval, d, audit.ApprovalExpired)
		if err == nil && d.At.Before(a.ExpiresAt) {
			// Looked at after the update, which waits for whoever extends it.
			return jobs.Snooze(a.ExpiresAt, errors.New("the approval was extended"))
		}
		return err
	})
	if problem.Is(err, problem.Conflict) || problem.Is(err, problem.NotFound) {
		return nil // nothing left to do
	}
	return err
}

// Approval returns an approval that g may see: its own, or any if g may decide
// or administer. It fails with [problem.NotFound] otherwise.
func (gate *Gate) Approval(ctx context.Context, g access.Grant, id string) (Approval, error) {
	a, err := approval(ctx, gate.Store, g.Workspace.ID, id)
	if err != nil {
		return a, err
	}
	if !sees(g, a) {
		return Approval{}, notFound(id)
	}
	return gate.readable(g, a), nil
}

// readable returns what g may read of an approval that it sees: what it asked
// for shows what it knew, but a credential that may not read the resource any
// more is not shown what it holds.
func (gate *Gate) readable(g access.Grant, a Approval) Approval {
	if gate.mayRead(g, a) {
		return a
	}
	a.Input, a.Edited, a.Result, a.Error, a.Title = json.RawMessage("{}"), nil, nil, nil, ""
	a.Base, a.Request.Body = nil, nil
	return a
}

// mayRead reports whether g, who sees the approval, may read what it is about.
func (gate *Gate) mayRead(g access.Grant, a Approval) bool {
	r, ok := gate.Catalog.Resource(a.Resource)
	return seesAll(g) || g.Principal.Kind == access.KindPerson || !ok || !slices.Contains(r.Ladder.Verbs(), access.Read) || g.Decide(a.Resource, access.Read) == access.Run
}

// List returns the approvals that g may see, newest first.
func (gate *Gate) List(ctx context.Context, g access.Grant, q Query) ([]Approval, error) {
	switch {
	case seesAll(g):
	case g.Principal.Kind == access.KindPerson:
		q.User = g.Principal.User
	default:
		q.Credential = g.Principal.ID
	}
	list, err := gate.Store.ListApprovals(ctx, g.Workspace.ID, q)
	for i, a := range list {
		list[i] = gate.readable(g, a)
	}
	return list, err
}

// Inbox returns what needs attention of what g may see: approvals that are
// pending, and such that have failed and nobody has dismissed, newest first.
func (gate *Gate) Inbox(ctx context.Context, g access.Grant, q Query) ([]Approval, error) {
	q.Status, q.Execution = Pending, ""
	list, err := gate.List(ctx, g, q)
	if err != nil {
		return nil, err
	}
	q.Status, q.Execution = "", Failed
	failed, err := gate.List(ctx, g, q)
	if err != nil {
		return nil, err
	}
	list = append(list, failed...)
	slices.SortFunc(list, func(a, b Approval) int { return strings.Compare(b.ID, a.ID) }) // ids are in the order of their making
	return list[:min(len(list), q.Limit)], nil
}

// Waiting returns how many approvals wait for g: those that are pending or have
// failed, and that it may decide.
func (gate *Gate) Waiting(ctx context.Context, g access.Grant) (int, error) {
	if seesAll(g) {
		return gate.Store.CountWaiting(ctx, g.Workspace.ID, "")
	}
	if g.Principal.Kind != access.KindPerson {
		return 0, nil
	}
	return gate.Store.CountWaiting(ctx, g.Workspace.ID, g.Principal.User)
}

// MaxBatch is how many approvals one batch decides at most.
const MaxBatch = 100

// A BatchItem is one approval of a batch.
type BatchItem struct {
	ID     string `json:"id"`
	Digest string `json:"digest,omitempty"` // of what was looked at, "" if it is not known
}

// A BatchResult is what became of one approval of a batch.
type BatchResult struct {
	ID       string
	Approval Approval
	Err      error
}

// Batch decides up to [MaxBatch] approvals, each for itself: with a reason it
// rejects them, without one it approves.
func (gate *Gate) Batch(ctx context.Context, g access.Grant, items []BatchItem, reject bool, reason string) ([]BatchResult, error) {
	if n := len(items); n == 0 || n > MaxBatch {
		return nil, &problem.Error{Kind: problem.Validation, Message: "a batch decides 1 to 100 approvals", Fix: "Send their ids, at most 100 at a time.",
			Fields: []problem.Field{{Path: "ids", Expected: "1 to 100 ids", Got: strconv.Itoa(n)}}}
	}
	results := make([]BatchResult, len(items))
	for i, item := range items {
		r := &results[i]
		r.ID = item.ID
		if reject {
			r.Approval, r.Err = gate.Reject(ctx, g, item.ID, reason)
		} else {
			r.Approval, r.Err = gate.Approve(ctx, g, item.ID, Seen{Digest: item.Digest})
		}
	}
	return results, nil
}

// Wait returns the approval once it is decided and its execution is over, also
// outside, or as it stands when ctx ends.
func (gate *Gate) Wait(ctx context.Context, g access.Grant, id string) (Approval, error) {
	changed, stop := gate.Watch(id)
	defer stop()
	for {
		a, err := gate.Approval(context.WithoutCancel(ctx), g, id)
		if err != nil || gate.Over(a) {
			return a, err
		}
		select {
		case <-ctx.Done():
			// Once more, in case the notice got lost on its way.
			return gate.Approval(context.WithoutCancel(ctx), g, id)
		case <-changed:
		}
	}
}

// approval reads an approval. What is no id is not looked up: it may hold what
// the database refuses. One that does not exist reads as one that the caller
// may not see.
func approval(ctx context.Context, s Store, workspace, id string) (Approval, error) {
	if !typeid.ValidID("apr", id) {
		return Approval{}, notFound(printable(id))
	}
	a, err := s.Approval(ctx, workspace, id)
	if problem.Is(err, problem.NotFound) {
		return a, notFound(id)
	}
	return a, err
}

// seesAll reports whether g may see what other credentials have asked for.
func seesAll(g access.Grant) bool { return g.IsAdmin() }

func sees(g access.Grant, a Approval) bool {
	return seesAll(g) || a.By.ID == g.Principal.ID || a.By.User != "" && a.By.User == g.Principal.User && g.Principal.Kind == access.KindPerson
}

func notFound(id string) error {
	return problem.Errorf(problem.NotFound, "there is no approval %q", id).
		WithFix("List the approvals, over MCP with list_my_approvals, to find the right id. Credentials that are no admin's see only what they have asked for.")
}

// decidable returns the approval if g may decide it.
func (gate *Gate) decidable(ctx context.Context, tx Store, g access.Grant, id string) (Approval, error) {
	a, err := approval(ctx, tx, g.Workspace.ID, id)
	if err != nil {
		return a, err
	}
	if !sees(g, a) {
		return a, notFound(id)
	}
	if g, err = gate.today(ctx, tx, g, a); err != nil {
		return a, err
	}
	return a, gate.mayDecide(ctx, tx, g, a)
}

// today returns what a person who decides may do now: they may have been removed
// or demoted since their request came, and while others came before them. Of what
// decides over people nobody else changes who is what before this is done.
func (gate *Gate) today(ctx context.Context, tx Store, g access.Grant, a Approval) (access.Grant, error) {
	if gate.peopleDecide(a) {
		if _, err := tx.LockWorkspace(ctx, g.Workspace.ID); err != nil {
			return g, err
		}
	}
	if g.Principal.Kind != access.KindPerson {
		return g, nil
	}
	now, err := gate.personGrant(ctx, tx, g.Workspace, g.Principal.User)
	if problem.Is(err, problem.NotFound) {
		return access.Grant{}, problem.Errorf(problem.InsufficientScope, "you do not belong to the workspace any more").WithFix("Ask an admin of the workspace.")
	}
	return now, err
}

// pending returns the approval if g may decide it and nobody has. Once its
// time is over nobody may, even before the expiry is stored.
func (gate *Gate) pending(ctx context.Context, tx Store, g access.Grant, id string) (Approval, error) {
	a, err := gate.decidable(ctx, tx, g, id)
	switch {
	case err != nil:
		return a, err
	case a.Status != Pending:
		return a, NotPending(a)
	case !gate.now().Before(a.ExpiresAt):
		return a, problem.Errorf(problem.Conflict, "approval %s expired at %s", a.ID, a.ExpiresAt.Format(time.RFC3339)).
			WithFix("The agent has to ask again.")
	}
	return a, nil
}

// failed returns the approval if g may decide it and its execution has failed.
func (gate *Gate) failed(ctx context.Context, tx Store, g access.Grant, id string) (Approval, error) {
	a, err := gate.decidable(ctx, tx, g, id)
	if err == nil && a.Execution != Failed {
		return a, problem.Errorf(problem.Conflict, "approval %s is %s, and its execution is %q", a.ID, a.Status, a.Execution).
			WithFix("Only an execution that has failed can be tried again or dismissed.")
	}
	return a, err
}

// NotPending says that somebody has decided the approval already.
func NotPending(a Approval) error {
	return problem.Errorf(problem.Conflict, "approval %s is not pending any more: it is %s", a.ID, a.Status).
		WithFix("Read the approval to see how it ended.")
}

// mayDecide refuses g unless it may decide a: admins and owners, the operator,
// keys with "may decide" for what others asked, and, where only a person's own
// consent held the action back, that person. OAuth clients never decide.
//
// A key never decides its own requests, nor those of its family: all keys that
// stem from the same key, whichever made which. Who made one of them has seen
// the secrets of all that came of it, so it could ask with one and decide with
// another.
func (gate *Gate) mayDecide(ctx context.Context, tx Store, g access.Grant, a Approval) error {
	refuse := func(why, fix string) error {
		return problem.Errorf(problem.InsufficientScope, "this credential may not decide approval %s: %s", a.ID, why).WithFix("%s", fix)
	}
	const people = "A person decides it: the approval's url leads there."
	switch g.Principal.Kind {
	case access.KindOperator:
		return nil
	case access.KindPerson:
		if g.Workspace.Settings.FourEyes {
			mine, err := gate.madeBy(ctx, tx, a, g.Principal.User)
			if err != nil {
				return err
			}
			if mine {
				return refuse("the request is made in your name, and in this workspace two others decide", "Ask two other admins of the workspace.")
			}
		}
		if g.Rights.Full() {
			return nil
		}
		if a.By.User == "" || a.By.User != g.Principal.User {
			return refuse("only an owner or an admin may", "Ask an admin of the workspace.")
		}
		return gate.mayAnswer(ctx, tx, a)
	case access.KindKey:
	default:
		return refuse("OAuth clients never decide", people)
	}
	switch {
	case a.By.ID == g.Principal.ID:
		return refuse("it has asked for it itself", people)
	case g.Workspace.Settings.PeopleOnly || g.Workspace.Settings.FourEyes:
		return refuse("in this workspace only people decide", people)
	case gate.asksForLoan(a):
		return refuse("it asks for a loan, and only people lend what was asked for", people)
	case gate.peopleDecide(a):
		return refuse("it decides over people, which only people do", people)
	case !g.MayDecide:
		return refuse(`it has not the right "may decide"`, people)
	}
	mine, err := Founder(ctx, tx, g.Workspace.ID, g.Principal.ID, g.Parent)
	if err != nil {
		return err
	}
	theirs, err := Founder(ctx, tx, g.Workspace.ID, a.By.ID, a.Parent)
	if err != nil {
		return err
	}
	if mine == theirs {
		return refuse("a key of its own family asked for it: one has made the other, or the same key has made both", people)
	}
	return nil
}

// peopleDecide reports whether the approval's action is one that only people
// decide.
func (gate *Gate) peopleDecide(a Approval) bool {
	action, ok := gate.Catalog.Find(a.Action)
	return ok && action.PeopleDecide
}

// asksForLoan reports whether approving a lends what it asks for.
func (gate *Gate) asksForLoan(a Approval) bool {
	action, ok := gate.Catalog.Find(a.Action)
	return ok && action.Lends()
}

// madeBy reports whether the user is behind the credential that asked for a: it
// acts for them, or they have made it and so have seen its secret.
func (gate *Gate) madeBy(ctx context.Context, tx Store, a Approval, user string) (bool, error) {
	if a.By.User != "" || a.By.Kind != access.KindOAuth {
		return a.By.User == user, nil
	}
	d, err := tx.DelegationOf(ctx, a.Workspace, a.By.ID)
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	return d.Maker != "" && d.Maker == user, err
}

// MayDecide reports whether g may decide the approval today, of which it need not
// know what is asked for exactly.
func (gate *Gate) MayDecide(ctx context.Context, g access.Grant, a Approval) (bool, error) {
	err := gate.mayDecide(ctx, gate.Store, g, a)
	if problem.Is(err, problem.InsufficientScope) {
		return false, nil
	}
	return err == nil, err
}

// mayAnswer refuses the user whose OAuth client asked for a, unless it was and
// still is nothing but their own consent that holds the client back: then they
// put the question, and may answer it.
func (gate *Gate) mayAnswer(ctx context.Context, tx Store, a Approval) error {
	today := access.DeciderAdmin
	if a.Decider == access.DeciderOwner {
		asker, err := gate.requester(ctx, tx, a)
		if err != nil && !problem.Is(err, problem.NotFound) {
			return err
		}
		if err == nil {
			today = asker.DeciderOf(a.Resource, a.Verb)
		}
	}
	if today != access.DeciderOwner {
		return problem.Errorf(problem.InsufficientScope, "you may not decide approval %s: your client may do this only with an admin's approval", a.ID).
			WithFix("Ask an admin of the workspace.")
	}
	return nil
}

// requester returns what the credential that asked for a may do today. It fails
// with [problem.NotFound] if the credential is gone.
func (gate *Gate) requester(ctx context.Context, tx Store, a Approval) (access.Grant, error) {
	return gate.Requester(ctx, tx, a.Workspace, a.By)
}

// Requester returns what the credential of the principal may do today. It fails
// with [problem.NotFound] if the credential is gone.
func (gate *Gate) Requester(ctx context.Context, tx Store, workspace string, by access.Principal) (access.Grant, error) {
	if by.Kind != access.KindOAuth {
		return tx.RequesterGrant(ctx, workspace, by.ID)
	}
	d, err := tx.DelegationOf(ctx, workspace, by.ID)
	if err != nil {
		return access.Grant{}, err
	}
	return d.Grant(nil, gate.Catalog.RoleRights), nil
}

// Founder returns the key that the family of a credential began with.
func Founder(ctx context.Context, tx Store, workspace, id, parent string) (string, error) {
	for parent != "" {
		id = parent
		g, err := tx.RequesterGrant(ctx, workspace, id)
		if problem.Is(err, problem.NotFound) {
			return id, nil
		}
		if err != nil {
			return "", err
		}
		parent = g.Parent
	}
	return id, nil
}

func (gate *Gate) now() time.Time { return gate.Now().UTC().Truncate(time.Millisecond) }

func (gate *Gate) action(a Approval) (*catalog.Action, error) {
	action, ok := gate.Catalog.Find(a.Action)
	if !ok {
		return nil, problem.Errorf(problem.Conflict, "the action %s no longer exists", a.Action).WithFix("Reject the approval.")
	}
	return action, nil
}

// callOf rebuilds the call that the approval stands for, on behalf of its
// requester as it may act today.
func (gate *Gate) callOf(ctx context.Context, tx Store, a Approval, action *catalog.Action, edited json.RawMessage, now time.Time) (catalog.Call, error) {
	gone := func(why string) error {
		return problem.Errorf(problem.Conflict, "approval %s cannot run: %s", a.ID, why).
			WithFix("Give the credential its right back, or %s.", map[bool]string{true: "reject the approval", false: "let it be"}[a.Status == Pending])
	}
	g, err := gate.requester(ctx, tx, a)
	if problem.Is(err, problem.NotFound) {
		return catalog.Call{}, gone("the credential that asked for it is gone")
	}
	if err != nil {
		return catalog.Call{}, err
	}
	if ended := ended(g, now); ended != "" {
		return catalog.Call{}, gone("the key that asked for it " + ended)
	}
	if _, paused := g.Paused(); paused {
		return catalog.Call{}, gone("the credential that asked for it is paused")
	}
	if action.Level(g) == access.Deny {
		return catalog.Call{}, gone("the credential that asked for it may not do this any more, not even after approval")
	}
	raw := a.Input
	switch {
	case edited != nil:
		raw = unmask(action, edited, a.Input)
	case a.Edited != nil:
		raw = a.Edited
	}
	in, err := action.Decode(a.TargetID, raw)
	if err != nil {
		if edited != nil {
			return catalog.Call{}, err
		}
		return catalog.Call{}, blocked(a, err)
	}
	if in.DryRun {
		return catalog.Call{}, problem.Errorf(problem.Validation, "what is approved is done, and not only tried").WithFix("Leave dry_run out of what you have edited.")
	}
	if resource, v := action.About(in); action.Lends() && (resource != a.Resource || v != a.Verb) {
		return catalog.Call{}, problem.Errorf(problem.Validation, "%s of %s was asked for, and only that can be lent", a.Verb, a.Resource).
			WithFix("Leave resource and verb as they are, or reject the approval.")
	}
	return catalog.Call{Grant: g, Input: in, IfVersion: a.TargetVer, Now: now, Approval: a.ID, Earlier: a.Result}, nil
}

// ended says how the key has ended, "" if it has not, or g is no key's.
func ended(g access.Grant, now time.Time) string {
	switch k := g.Key; {
	case k == nil:
	case !k.RevokedAt.IsZero():
		return "is revoked"
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return "has expired"
	}
	return ""
}

// unmask puts the secret values of the input back where the edited one holds
// their masks, which are all that an editor gets to see.
func unmask(action *catalog.Action, edited, input json.RawMessage) json.RawMessage {
	if !slices.ContainsFunc(action.Fields(), func(f catalog.Field) bool { return f.Secret }) {
		return edited
	}
	var values, masks, sent map[string]json.RawMessage
	if json.Unmarshal(input, &values) != nil || json.Unmarshal(action.Mask(input), &masks) != nil || json.Unmarshal(edited, &sent) != nil {
		return edited // for Decode to refuse
	}
	for _, f := range action.Fields() {
		v, ok := sent[f.Name]
		if f.Secret && ok && values[f.Name] != nil && bytes.Equal(bytes.TrimSpace(v), masks[f.Name]) {
			sent[f.Name] = values[f.Name]
		}
	}
	whole, err := json.Marshal(sent)
	if err != nil {
		return edited
	}
	return whole
}

// blocked turns what a check found into a conflict: the request was fine when
// it was made, and the world has changed since.
func blocked(a Approval, err error) error {
	e, ok := errors.AsType[*problem.Error](err)
	if !ok || e.Kind == problem.Internal {
		return err
	}
	c := problem.Errorf(problem.Conflict, "approval %s cannot run any more: %s", a.ID, e.Message).
		WithFix("Nothing was decided. Reject it with a reason, so that the agent asks again for what still applies.")
	if a.Status != Pending {
		c.Fix = "Let it be, and have the agent ask again for what still applies."
	}
	if e.Kind == problem.VersionMismatch {
		c.Message = fmt.Sprintf("approval %s cannot run as it is: %s was changed since it was asked for", a.ID, a.TargetID)
	}
	c.Hint, c.Fields = e.Fix, e.Fields
	return c
}

// execute runs the action of an approval that was just approved, and stores
// what became of it.
func (gate *Gate) execute(ctx context.Context, tx Store, a *Approval, action *catalog.Action, call catalog.Call, event audit.Event) error {
	ran := Ran{Execution: Done, At: call.Now}
	target := a.TargetID
	err := tx.Savepoint(ctx, func() error {
		result, err := action.Run(ctx, tx, call)
		ran.Result, ran.TargetVer, target = result.Data, cmp.Or(result.After, result.Target.Version), result.Target.ID
		return err
	})
	switch {
	case problem.Is(err, problem.Unavailable):
		return err // the database's trouble, not the action's: nothing is decided
	case problem.Is(err, problem.VersionMismatch), problem.Is(err, problem.NotFound):
		return blocked(*a, err) // the target was changed since the check: nothing is decided
	}
	if err != nil {
		ran = Ran{Execution: Failed, Result: call.Earlier, Error: problem.Report(ctx, err), At: call.Now}
		target = a.TargetID
	}
	if err := gate.Tell(ctx, tx, a.Workspace, call.Grant.Principal, a.ID); err != nil {
		return err
	}
	by := a.DecidedBy
	stored, err := tx.MoveExecution(ctx, a.Workspace, a.ID, NotExecuted, ran)
	if err != nil {
		return err
	}
	*a = stored
	outcome := webhook.ApprovalExecuted
	if ran.Execution == Failed {
		outcome = webhook.ApprovalFailed
	}
	if err := gate.emit(ctx, tx, *a, outcome, call.Now); err != nil {
		return err
	}
	e := gate.decisionEntry(ctx, *a, event, by, call.Now)
	e.Target, e.Outcome = target, string(ran.Execution)
	return tx.Audit(ctx, e)
}

// decided does what follows every decision: the expiry is called off and the
// webhooks are told.
func (gate *Gate) decided(ctx context.Context, tx Store, a *Approval, event audit.Event) error {
	if event != audit.ApprovalExpired {
		if _, err := tx.CancelJobs(ctx, a.Workspace, ExpireKind, a.ID); err != nil {
			return err
		}
	}
	switch event {
	case audit.ApprovalApproved:
		return gate.emit(ctx, tx, *a, webhook.ApprovalApproved, a.DecidedAt)
	case audit.ApprovalRejected:
		return gate.emit(ctx, tx, *a, webhook.ApprovalRejected, a.DecidedAt)
	case audit.ApprovalExpired:
		return gate.emit(ctx, tx, *a, webhook.ApprovalExpired, a.DecidedAt)
	case audit.ApprovalWithdrawn:
		return gate.tellApproval(ctx, tx, *a, webhook.ApprovalWithdrawn, a.DecidedAt)
	}
	return nil
}

func (gate *Gate) decisionEntry(ctx context.Context, a Approval, event audit.Event, by access.Principal, now time.Time) audit.Entry {
	e := gate.entry(ctx, a.Workspace, by, event, now)
	e.Action, e.Resource, e.Target, e.Approval, e.Asker = a.Action, a.Resource, a.TargetID, a.ID, a.By.ID
	if a.DecisionReason != "" {
		e.Detail, _ = json.Marshal(map[string]string{"reason": a.DecisionReason}) // cannot fail: a string
	}
	return e
}

func (gate *Gate) auditDecision(ctx context.Context, tx Store, a Approval, event audit.Event, by access.Principal, now time.Time) error {
	return tx.Audit(ctx, gate.decisionEntry(ctx, a, event, by, now))
}
