package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// An Outcome is how a request ended, as the usage counters know it.
type Outcome string

// The outcomes.
const (
	OutcomeOK      Outcome = "ok"
	OutcomeQueued  Outcome = "queued"
	OutcomeDenied  Outcome = "denied"  // the credential may not do it
	OutcomeInvalid Outcome = "invalid" // the caller's fault
	OutcomeLimited Outcome = "limited" // too many requests; not counted against the day
	OutcomeFailed  Outcome = "failed"  // the server's fault
)

// A Count is how often a credential did something in one hour.
type Count struct {
	Workspace  string    `json:"-"`
	Credential string    `json:"-"`
	Hour       time.Time `json:"hour"`
	Action     string    `json:"action"`
	Outcome    Outcome   `json:"outcome"`
	N          int64     `json:"count"`
}

// A DayCount is how often a credential was used on one day in UTC.
type DayCount struct {
	Credential string
	Day        time.Time // its beginning
	Calls      int64
	Errors     int64 // of the calls, those that were not done and not queued
}

// PastCalls is how often an action was called, and decided about: it was done,
// queued or refused. What was wrong in itself, beyond a limit or failed here is
// not among it.
type PastCalls struct {
	Action string
	N      int64

	// Of the calls of an OAuth client: what the users who were behind them have
	// granted, and their role. Itself is what it called for itself.
	Scopes []Scope
	Role   Role
	Itself bool
}

// CallsTopic is what is touched, at most once a second, when credentials of the
// workspace were used.
func CallsTopic(workspace string) string { return "calls:" + workspace }

// RightsTopic is what is touched when what credentials of the workspace may do may
// have changed, or one has ended.
func RightsTopic(workspace string) string { return "rights:" + workspace }

// A LastUse is when a credential was last used, and for what.
type LastUse struct {
	Workspace  string
	Credential string
	At         time.Time
	Action     string
}

// A UsageStore keeps the counters.
type UsageStore interface {
	// AddUsage adds the counts to what is stored, and notes the last uses.
	AddUsage(ctx context.Context, counts []Count, last []LastUse) error
}

// Usage counts requests in memory and stores the counts once a second. A crash
// loses the last second. It is safe for concurrent use.
type Usage struct {
	Store UsageStore
	Now   func() time.Time

	mu     sync.Mutex
	counts map[Count]int64 // Count with N = 0
	last   map[string]LastUse
}

// Add counts one request of g.
func (u *Usage) Add(g Grant, action string, o Outcome) {
	now := u.Now()
	c := Count{Workspace: g.Workspace.ID, Credential: g.Principal.ID, Hour: now.Truncate(time.Hour).UTC(), Action: action, Outcome: o}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts == nil {
		u.counts, u.last = map[Count]int64{}, map[string]LastUse{}
	}
	u.counts[c]++
	u.last[c.Credential] = LastUse{c.Workspace, c.Credential, now, action}
}

// Flush stores what was counted. If it fails, the counts are kept for the next
// time.
func (u *Usage) Flush(ctx context.Context) error {
	u.mu.Lock()
	counts, last := u.counts, u.last
	u.counts, u.last = nil, nil
	u.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	rows := make([]Count, 0, len(counts))
	for c, n := range counts {
		c.N = n
		rows = append(rows, c)
	}
	uses := make([]LastUse, 0, len(last))
	for _, l := range last {
		uses = append(uses, l)
	}
	err := u.Store.AddUsage(ctx, rows, uses)
	if err == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts == nil {
		u.counts, u.last = map[Count]int64{}, map[string]LastUse{}
	}
	for c, n := range counts {
		u.counts[c] += n
	}
	for id, l := range last {
		if _, newer := u.last[id]; !newer {
			u.last[id] = l
		}
	}
	return fmt.Errorf("store usage: %w", err)
}

// Run stores the counts once a second until ctx ends, and then once more.
func (u *Usage) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err := u.Flush(context.WithoutCancel(ctx)); err != nil {
				slog.Error("usage counters lost", "err", err)
			}
			return
		}
		if err := u.Flush(ctx); err != nil {
			slog.Warn("usage counters not stored; trying again", "err", err)
		}
	}
}
