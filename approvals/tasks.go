package approvals

import (
	"context"
	"encoding/json"
	"time"

	"trustpager/access"
)

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
