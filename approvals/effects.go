package approvals

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

// An Origin is the run of an action that has set something going outside: a
// message, a call, a question to a model. Whoever carries it out keeps the
// Origin beside it, and tells the gate what became of it.
type Origin struct {
	Action   string           `json:"action"`
	Approval string           `json:"approval,omitempty"` // from which the action ran; "" if it ran at once
	Input    json.RawMessage  `json:"input"`
	Target   string           `json:"target,omitempty"` // of the action, "" if it has none
	By       access.Principal `json:"by"`
	Parent   string           `json:"parent,omitempty"` // the key that made that key
}

// OriginOf returns the origin of what the call sets going.
func OriginOf(a *catalog.Action, c catalog.Call) Origin {
	return Origin{Action: a.Name, Approval: c.Approval, Input: c.Input.Canonical, Target: c.Input.ID, By: c.Grant.Principal, Parent: c.Grant.Parent}
}

// An Effect is what became, outside, of what an action has set going.
type Effect struct {
	Origin
	ID      string          // of the record that stands for it
	Title   string          // what people call it
	Result  json.RawMessage // the action's answer, as it is now
	Settled bool            // it is done, or Failure says why it is not
	Failure *problem.Error  // it has failed for good, or nobody can know; nil otherwise
}

// StoreEffect stores what became of an effect, in the caller's transaction: the
// approval that it came from shows it. What has failed for good, or what nobody
// can know, comes back to a person: the execution of its approval has failed,
// and if the action ran without one there is one now, which a person retries or
// dismisses. It returns the id of the approval that shows it, "" if none does.
func (gate *Gate) StoreEffect(ctx context.Context, tx Store, workspace string, e Effect) (approval string, err error) {
	now := gate.now()
	a, err := gate.effectOf(ctx, tx, workspace, e, now)
	if err != nil {
		return "", err
	}
	if e.Settled {
		if err := gate.auditEffect(ctx, tx, workspace, e, a.ID, now); err != nil {
			return "", err
		}
	}
	for range 5 {
		if a.ID == "" || a.Execution != Done && (e.Failure != nil && a.Execution == Dismissed || !e.Settled) {
			return a.ID, nil // a word that comes too late to change anything
		}
		ran := Ran{Execution: Done, Result: e.Result, TargetVer: a.AfterVer, At: a.ExecutedAt}
		if e.Failure != nil {
			ran = Ran{Execution: Failed, Result: e.Result, TargetVer: a.AfterVer, Error: e.Failure, At: now}
		}
		before := a.Execution
		moved, err := tx.MoveExecution(ctx, workspace, a.ID, before, ran)
		if problem.Is(err, problem.Conflict) { // a person was faster: what is heard outside counts all the same
			if a, err = tx.Approval(ctx, workspace, a.ID); err != nil {
				return "", err
			}
			continue
		}
		if err != nil {
			return "", err
		}
		switch {
		case moved.Execution == Failed && before != Failed:
			err = gate.emit(ctx, tx, moved, webhook.ApprovalFailed, now)
		case moved.Execution == Done && before != Done:
			err = gate.emit(ctx, tx, moved, webhook.ApprovalExecuted, now)
		}
		return a.ID, err
	}
	return "", problem.Errorf(problem.Conflict, "approval %s is being decided", a.ID).WithFix("Try again.")
}

// effectOf returns the approval that shows the effect, a new one if it failed
// and came from none, and the zero Approval if there is nothing to show.
func (gate *Gate) effectOf(ctx context.Context, tx Store, workspace string, e Effect, now time.Time) (Approval, error) {
	if e.Approval != "" {
		a, err := tx.Approval(ctx, workspace, e.Approval)
		if problem.Is(err, problem.NotFound) {
			return Approval{}, nil // deleted with its key
		}
		return a, err
	}
	if e.Failure == nil {
		return Approval{}, nil
	}
	action, ok := gate.Catalog.Find(e.Action)
	if !ok || action.Awaited() {
		return Approval{}, nil // who has asked a model has been told what came of it
	}
	returned, err := tx.ListApprovals(ctx, workspace, Query{Execution: Failed, Credential: e.By.ID, Limit: MaxOpen})
	if err != nil || len(returned) == MaxOpen {
		return Approval{}, err // the log and the record tell the rest of a flood
	}
	p := Approval{
		ID: typeid.NewID("apr"), Workspace: workspace, Status: Pending, Execution: NotExecuted,
		Action: e.Action, Resource: action.Resource, Verb: action.Verb, TargetID: e.Target, Title: e.Title,
		Input: e.Input, By: e.By, Parent: e.Parent, Decider: access.DeciderAdmin, Asked: 1,
		Request: Request{Door: "effect"}, CreatedAt: now, ExpiresAt: now.Add(access.DefaultApprovalTTL), DedupeKey: "effect " + e.ID,
	}
	p.Digest = p.digest()
	if _, _, err := tx.CreateApproval(ctx, p, now, math.MaxInt); err != nil {
		return p, err
	}
	_, err = tx.DecideApproval(ctx, workspace, p.ID, Decision{Status: Approved, By: access.System, Reason: ranAtOnce, At: now})
	if err != nil {
		return p, err
	}
	return tx.MoveExecution(ctx, workspace, p.ID, NotExecuted, Ran{Execution: Done, Result: e.Result, At: now})
}

// ranAtOnce is why an approval exists that nobody was asked for.
const ranAtOnce = "It ran at once, as the credential may do that without approval, and then failed outside."

// auditEffect records how an effect has ended.
func (gate *Gate) auditEffect(ctx context.Context, tx Store, workspace string, e Effect, approval string, now time.Time) error {
	event, outcome := audit.EffectDone, string(Done)
	if e.Failure != nil {
		event, outcome = audit.EffectFailed, string(Failed)
	}
	entry := gate.entry(ctx, workspace, access.System, event, now)
	entry.Action, entry.Target, entry.Approval, entry.Asker, entry.Outcome = e.Action, e.ID, approval, e.By.ID, outcome
	if a, ok := gate.Catalog.Find(e.Action); ok {
		entry.Resource = a.Resource
	}
	if e.Failure != nil {
		entry.Detail, _ = json.Marshal(map[string]string{"error": e.Failure.Message, "code": string(e.Failure.Kind)}) // cannot fail: texts
	}
	return tx.Audit(ctx, entry)
}

// Outside returns the status of what the approval has set going outside, "" if it
// has nothing to do there: a record may have a status of its own.
func (gate *Gate) Outside(a Approval) string {
	if action, ok := gate.Catalog.Find(a.Action); ok && action.OpenWorld {
		return catalog.Outside(a.Result)
	}
	return ""
}

// settling reports whether what the approval has set going outside has not come
// to rest.
func (gate *Gate) settling(a Approval) bool {
	return a.Status == Approved && a.Execution == Done && gate.Outside(a) == catalog.Queued
}

// Settle waits until what a run has set going outside has come to rest, or until
// ctx ends, and returns the record of it as it then is.
func (gate *Gate) Settle(ctx context.Context, workspace string, r *catalog.Resource, id string) (json.RawMessage, error) {
	changed, stop := gate.Watch(catalog.Topic(id))
	defer stop()
	for {
		rec, err := gate.Store.Record(context.WithoutCancel(ctx), workspace, r.Name, id, false)
		if err != nil {
			return nil, err
		}
		data, err := r.Answer(rec)
		if err != nil || !catalog.Unsettled(data) || ctx.Err() != nil {
			return data, err
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}
