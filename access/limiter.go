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
// UTC. Limits are exact within one process. It is safe for concurrent use.
type Limiter struct {
	Now func() time.Time

	// Used returns how many requests of the credential were counted since the
	// given time; it is asked once a day for each credential, so that a restart
	// does not give a new day.
	Used func(ctx context.Context, workspace, credential string, since time.Time) (int64, error)

	mu   sync.Mutex
	seen map[string]*meter
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
// a request that it refuses is not counted.
func (l *Limiter) Allow(ctx context.Context, g Grant) (Quota, error) {
	m := l.meter(g.Principal.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := l.Now()
	q := Quota{Limit: g.Limits.PerMinute}

	if g.Limits.PerDay > 0 {
		today := now.Unix() / int64(day/time.Second)
		midnight := func(d int64) time.Time { return time.Unix(d*int64(day/time.Second), 0).UTC() }
		if m.day != today {
			used, err := l.Used(ctx, g.Workspace.ID, g.Principal.ID, midnight(today))
			if err != nil {
				return q, fmt.Errorf("count the day's requests: %w", err)
			}
			m.day, m.used = today, used
		}
		left := Quota{Limit: g.Limits.PerDay, Remaining: max(0, g.Limits.PerDay-m.used), Reset: midnight(today + 1).Sub(now)}
		if left.Remaining == 0 {
			return left, limited(g, fmt.Sprintf("the day's limit of %d requests is used up; it starts anew at 00:00 UTC", g.Limits.PerDay), left.Reset)
		}
		if q.Limit == 0 {
			left.Remaining-- // this one
			q = left
		}
	}
	if n := g.Limits.PerMinute; n > 0 {
		gap := max(1, time.Minute/time.Duration(n))
		burst := gap * time.Duration(n) // n requests, each worth one gap
		var over time.Duration
		if m.tat, over = gcra(m.tat, now, gap, burst); over > 0 {
			q.Reset = m.tat.Sub(now)
			return q, limited(g, fmt.Sprintf("the limit of %d requests a minute is used up", n), over)
		}
		q.Reset = m.tat.Sub(now)
		q.Remaining = int64((burst - q.Reset) / gap)
	}
	m.used++
	return q, nil
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
