package approvals

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"trustpager/access"
)

// News is what a credential asked for earlier and may think is done: what is not
// over, and what has ended since it was last told.
type News struct {
	Open  []Approval // pending, or on their way outside
	Ended []Approval // told now, and not again
}

// The bounds of [News].
const (
	newsAge  = 7 * 24 * time.Hour // what ended before that is told no more
	mostNews = MaxOpen + 50
)

// News returns what the credential of g has asked for and does not know the end
// of, the oldest first. What has ended is told once, by whichever node is asked
// first.
func (gate *Gate) News(ctx context.Context, g access.Grant) (News, error) {
	list, err := gate.Store.UntoldApprovals(ctx, g.Workspace.ID, g.Principal.ID, gate.now().Add(-newsAge), mostNews)
	if err != nil || len(list) == 0 {
		return News{}, err
	}
	var n News
	var ended []string
	for _, a := range list {
		if a.Status == Pending || gate.settling(a) {
			n.Open = append(n.Open, a)
		} else {
			ended = append(ended, a.ID)
		}
	}
	if len(ended) == 0 {
		return n, nil
	}
	told, err := gate.Store.TellApprovals(ctx, g.Workspace.ID, g.Principal.ID, ended)
	for _, a := range list {
		if slices.Contains(told, a.ID) {
			n.Ended = append(n.Ended, a)
		}
	}
	return n, err
}

// Told notes that the credential of g has just been told how the approval stands,
// if it has asked for it and it is over.
func (gate *Gate) Told(ctx context.Context, g access.Grant, a Approval) error {
	if a.Told || a.By.ID != g.Principal.ID || a.Status == Pending || gate.settling(a) {
		return nil
	}
	_, err := gate.Store.TellApprovals(ctx, g.Workspace.ID, g.Principal.ID, []string{a.ID})
	return err
}

// Over reports whether nothing more becomes of the approval by itself: it is
// decided, and what it has set going has come to rest.
func (gate *Gate) Over(a Approval) bool {
	return a.Status != Pending && !gate.settling(a)
}

// Own returns what the credential of g has asked for itself, newest first.
func (gate *Gate) Own(ctx context.Context, g access.Grant, q Query) ([]Approval, error) {
	q.Credential = g.Principal.ID
	list, err := gate.Store.ListApprovals(ctx, g.Workspace.ID, q)
	for i, a := range list {
		list[i] = gate.readable(g, a)
	}
	return list, err
}

// A Task is a call that ran at once for a client that follows its calls as tasks:
// its answer is kept, because the client comes back for it, to any node.
type Task struct {
	ID         string // tsk_…
	Workspace  string
	Credential string // whose call it was
	Action     string
	Answer     json.RawMessage // the result of the call, as its door gives it; nil for who may not read it any more
	Failed     bool            // the answer tells of an error
	CreatedAt  time.Time
}

// The bounds of a [Task].
const (
	TaskTTL  = 24 * time.Hour // how long its answer is kept
	MaxTasks = 100            // of a credential that are kept at a time
)

// KeepTask stores the task. It fails with [problem.QueueFull] if the credential has
// [MaxTasks].
func (gate *Gate) KeepTask(ctx context.Context, t Task) error {
	return gate.Store.SaveTask(ctx, t, gate.now().Add(-TaskTTL), MaxTasks)
}

// Task returns a task of the grant's own, as far as it may read it now. It fails
// with [problem.NotFound].
func (gate *Gate) Task(ctx context.Context, g access.Grant, id string) (Task, error) {
	t, err := gate.Store.Task(ctx, g.Workspace.ID, g.Principal.ID, id, gate.now().Add(-TaskTTL))
	if a, ok := gate.Catalog.Find(t.Action); err == nil && (!ok || !gate.mayRead(g, Approval{Resource: a.Resource})) {
		t.Answer = nil
	}
	return t, err
}

// Tasks returns the tasks of the grant's own that were made before the one with
// the id, newest first.
func (gate *Gate) Tasks(ctx context.Context, g access.Grant, before string, limit int) ([]Task, error) {
	return gate.Store.Tasks(ctx, g.Workspace.ID, g.Principal.ID, before, gate.now().Add(-TaskTTL), limit)
}
