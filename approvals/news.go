package approvals

import (
	"context"
	"slices"
	"time"

	"trustpager/access"
)

// News is what a credential asked for earlier and may think is done: what is not
// over, and what has ended since it was last told.
type News struct {
	Open  []Approval // pending, or on their way outside
	Ended []Approval // told now, and not again
	More  bool       // there is more than was looked at, which the next call finds
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
	n := News{More: len(list) == mostNews}
	var ended []string
	for _, a := range list {
		if gate.Over(a) {
			ended = append(ended, a.ID)
		} else {
			n.Open = append(n.Open, a)
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

// Told notes that the credential of g has just been told how the approvals stand:
// those that it has asked for and that are over.
func (gate *Gate) Told(ctx context.Context, g access.Grant, list ...Approval) error {
	var over []string
	for _, a := range list {
		if !a.Told && a.By.ID == g.Principal.ID && gate.Over(a) {
			over = append(over, a.ID)
		}
	}
	if over == nil {
		return nil
	}
	_, err := gate.Store.TellApprovals(ctx, g.Workspace.ID, g.Principal.ID, over)
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
