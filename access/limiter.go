package access

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"trustpager/problem"
)

const day = 24 * time.Hour

// A Limiter says how often a credential may ask. The minute's limit is GCRA
// with a burst of the whole limit, the day's a count that starts anew at 00:00
// UTC. It is exact within one process, and with Meters across all that share
// them. It is safe for concurrent use.
type Limiter struct {
	Now func() time.Time

	// Used returns how many requests of the credential were counted since the
	// given time; it is asked once a day for each credential, so that a restart
	// does not give a new day.
	Used func(ctx context.Context, workspace, credential string, since time.Time) (int64, error)

	// Meters count instead, if there are any. Then the limiter only remembers for
	// recheck what they have refused, and Used is not asked.
	Meters Meters

	mu   sync.Mutex
	seen map[string]*meter
	gate map[string]*turnstile
}

// Meters count the requests of credentials by a clock of their own. They are
// safe for concurrent use.
type Meters interface {
	// Count counts one request of the credential, unless it is over one of the
	// limits. Of concurrent calls no more are within than there is room for. It
	// fails with [problem.Unavailable] if it cannot tell.
	Count(ctx context.Context, workspace, credential string, l Limits) (Reading, error)
}

// A Reading is what a meter shows after a request.
type Reading struct {
	Within bool          // the limits: it was counted
	Ahead  time.Duration // from now to GCRA's theoretical arrival time
	Used   int64         // requests of the day
	Rest   time.Duration // of the day
}

type meter struct {
	mu   sync.Mutex
	tat  time.Time // GCRA's theoretical arrival time
	day  int64     // days since 1970, of used; 0 before the first request
	used int64
}

// A Quota is what is left after a request: of the minute, or of the day if
// there is no limit of the minute or if the day's is what is used up.
type Quota struct {
	Limit     int64         // 0 if there is none
	Remaining int64         // requests
	Reset     time.Duration // until the limit is whole again
}

// Header sets the RateLimit-* header fields.
func (q Quota) Header(h http.Header) {
	if q.Limit == 0 {
		return
	}
	h["Ratelimit-Limit"] = []string{strconv.FormatInt(q.Limit, 10)}
	h["Ratelimit-Remaining"] = []string{strconv.FormatInt(q.Remaining, 10)}
	h["Ratelimit-Reset"] = []string{strconv.FormatInt(int64((q.Reset+time.Second-1)/time.Second), 10)}
}

// Allow counts one request of the grant's credential. It fails with
// [problem.RateLimited], saying which limit is used up and when to come back;
// a request that it refuses is not counted. If it cannot count, it fails too.
func (l *Limiter) Allow(ctx context.Context, g Grant) (Quota, error) {
	count := l.count
	if l.Meters != nil {
		count = l.ask
	}
	r, err := count(ctx, g)
	if err != nil {
		return Quota{}, err
	}
	return r.quota(g)
}

// count counts in the memory of this process.
func (l *Limiter) count(ctx context.Context, g Grant) (Reading, error) {
	m := l.meter(g.Principal.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := l.Now()
	today := now.Unix() / int64(day/time.Second)
	midnight := func(d int64) time.Time { return time.Unix(d*int64(day/time.Second), 0).UTC() }
	if g.Limits.PerDay > 0 && m.day != today {
		used, err := l.Used(ctx, g.Workspace.ID, g.Principal.ID, midnight(today))
		if err != nil {
			return Reading{}, fmt.Errorf("count the day's requests: %w", err)
		}
		m.day, m.used = today, used
	}
	r := Reading{Within: g.Limits.PerDay <= 0 || m.used < g.Limits.PerDay, Used: m.used, Rest: midnight(today + 1).Sub(now)}
	if gap, burst := g.Limits.GCRA(); r.Within && gap > 0 {
		var over time.Duration
		m.tat, over = gcra(m.tat, now, gap, burst)
		r.Within, r.Ahead = over <= 0, m.tat.Sub(now)
	}
	if r.Within {
		m.used++
		r.Used++
	}
	return r, nil
}

// gcra counts one request, worth a gap, against a burst, after the theoretical
// arrival time of the last one. It returns the next such time, and how long to
// wait if the request is one too many: then it is not counted.
func gcra(tat, now time.Time, gap, burst time.Duration) (next time.Time, over time.Duration) {
	if tat.Before(now) {
		tat = now
	}
	if most := now.Add(burst); tat.After(most) {
		tat = most // the clock was set back: nobody waits for it to come round again
	}
	if over := tat.Add(gap).Sub(now) - burst; over > 0 {
		return tat, over
	}
	return tat.Add(gap), 0
}

// ask has the meters count, unless they have just said that a limit is used up.
func (l *Limiter) ask(ctx context.Context, g Grant) (Reading, error) {
	if g.Limits == (Limits{}) {
		return Reading{Within: true}, nil
	}
	t := l.turnstile(g.Principal.ID)
	if r, ok := t.refuses(g.Limits, l.Now()); ok {
		return r, nil
	}
	select {
	case t.turns <- struct{}{}:
		defer func() { <-t.turns }()
	case <-ctx.Done():
		return Reading{}, ctx.Err()
	}
	if r, ok := t.refuses(g.Limits, l.Now()); ok { // those before it have used up the limit
		return r, nil
	}
	r, err := l.Meters.Count(ctx, g.Workspace.ID, g.Principal.ID, g.Limits)
	if err == nil && !r.Within {
		t.note(r, g.Limits, l.Now())
	}
	return r, err
}

// A turnstile is what a limiter with meters remembers of a credential.
type turnstile struct {
	turns chan struct{} // taken by who asks the meters

	mu      sync.Mutex
	refused Reading // the last one that was not within
	limits  Limits  // then
	at      time.Time
}

const (
	// maxTurns is how many requests of one credential ask the meters at a time, so
	// that a flood of it does not hold up the others.
	maxTurns = 4

	// recheck is how long a refusal is remembered, so that the meters are asked
	// once a second about what a flood wants, and what they say then holds.
	recheck = time.Second

	// maxTurnstiles bounds how many credentials are remembered; then it begins anew.
	maxTurnstiles = 20_000
)

func (l *Limiter) turnstile(credential string) *turnstile {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.gate[credential]
	if t == nil {
		if l.gate == nil || len(l.gate) >= maxTurnstiles {
			l.gate = map[string]*turnstile{}
		}
		t = &turnstile{turns: make(chan struct{}, maxTurns)}
		l.gate[credential] = t
	}
	return t
}

func (t *turnstile) note(r Reading, l Limits, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused, t.limits, t.at = r, l, now
}

// refuses returns what the meters would show if it is known that they would
// refuse. It goes by the time that has passed here since they have, and by no
// hour of day, so the clocks of several nodes may differ.
func (t *turnstile) refuses(l Limits, now time.Time) (Reading, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	passed := now.Sub(t.at)
	if t.limits != l || passed < 0 || passed >= recheck {
		return Reading{}, false
	}
	r := t.refused
	r.Ahead, r.Rest = r.Ahead-passed, r.Rest-passed
	return r, r.Rest > 0 && !r.Fits(l)
}

// GCRA returns what one request costs of the minute, and how far ahead of now
// the theoretical arrival time may be after it; 0 and 0 without a limit.
func (l Limits) GCRA() (gap, burst time.Duration) {
	if l.PerMinute <= 0 {
		return 0, 0
	}
	gap = max(1, time.Minute/time.Duration(l.PerMinute))
	return gap, gap * time.Duration(l.PerMinute)
}

// Fits reports whether one more request is within the limits.
func (r Reading) Fits(l Limits) bool {
	gap, burst := l.GCRA()
	return (l.PerDay <= 0 || r.Used < l.PerDay) && r.Ahead+gap <= burst
}

// quota tells what the reading leaves of the grant's limits. It fails with
// [problem.RateLimited] if the request was not within.
func (r Reading) quota(g Grant) (Quota, error) {
	l := g.Limits
	ofDay := Quota{Limit: l.PerDay, Remaining: max(0, l.PerDay-r.Used), Reset: r.Rest}
	if !r.Within && l.PerDay > 0 && ofDay.Remaining == 0 {
		return ofDay, limited(g, fmt.Sprintf("the day's limit of %d requests is used up; it starts anew at 00:00 UTC", l.PerDay), r.Rest)
	}
	if l.PerMinute <= 0 {
		if l.PerDay <= 0 {
			return Quota{}, nil
		}
		return ofDay, nil
	}
	gap, burst := l.GCRA()
	q := Quota{Limit: l.PerMinute, Reset: r.Ahead}
	if !r.Within {
		return q, limited(g, fmt.Sprintf("the limit of %d requests a minute is used up", l.PerMinute), r.Ahead+gap-burst)
	}
	q.Remaining = int64((burst - r.Ahead) / gap)
	return q, nil
}

func limited(g Grant, message string, after time.Duration) error {
	e := problem.Errorf(problem.RateLimited, "%s", message).
		WithFix("Wait %d seconds (Retry-After) before the next request.", int64((after+time.Second-1)/time.Second))
	e.RetryAfter = after
	if u := g.Workspace.Settings.SupportURL; u != "" {
		return e.WithHint("A higher limit can be asked for at %s", u)
	}
	return e.WithHint("An admin of the workspace can raise the limits of this credential.")
}

func (l *Limiter) meter(credential string) *meter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[string]*meter{}
	}
	m := l.seen[credential]
	if m == nil {
		m = &meter{}
		l.seen[credential] = m
	}
	return m
}
