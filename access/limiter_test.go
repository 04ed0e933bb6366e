package access_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/problem"
	"trustpager/storage/storagetest"
)

// A meter is a limiter with a clock and a fixed count of what was used before.
type meter struct {
	*access.Limiter
	t     *testing.T
	clock *storagetest.Clock
	used  atomic.Int64
	asked atomic.Int64 // how often used was asked for
	since atomic.Value
}

func newMeter(t *testing.T) *meter {
	m := &meter{t: t, clock: storagetest.NewClock()}
	m.Limiter = &access.Limiter{Now: m.clock.Now, Used: func(_ context.Context, _, _ string, since time.Time) (int64, error) {
		m.asked.Add(1)
		m.since.Store(since)
		return m.used.Load(), nil
	}}
	return m
}

func limited(id string, perMinute, perDay int64) access.Grant {
	return access.Grant{Principal: access.Principal{Kind: access.KindKey, ID: id}, Limits: access.Limits{PerMinute: perMinute, PerDay: perDay}}
}

// allow checks that n requests pass.
func (m *meter) allow(g access.Grant, n int) access.Quota {
	m.t.Helper()
	var q access.Quota
	for i := range n {
		var err error
		if q, err = m.Allow(m.t.Context(), g); err != nil {
			m.t.Fatalf("request %d of %d: got %v, want it allowed", i+1, n, err)
		}
	}
	return q
}

// deny checks that a request is refused for that long.
func (m *meter) deny(g access.Grant, retry time.Duration, words string) access.Quota {
	m.t.Helper()
	q, err := m.Allow(m.t.Context(), g)
	if !problem.Is(err, problem.RateLimited) || !strings.Contains(err.Error(), words) {
		m.t.Fatalf("got %v, want %s with %q", err, problem.RateLimited, words)
	}
	if got := problem.Of(err).RetryAfter; got != retry {
		m.t.Errorf("retry after: got %v, want %v", got, retry)
	}
	if q.Remaining != 0 {
		m.t.Errorf("remaining: got %d, want 0", q.Remaining)
	}
	return q
}

func TestLimiterAllowsExactlyTheLimitAtOnce(t *testing.T) {
	m := newMeter(t)
	var allowed, refused atomic.Int64
	var wg sync.WaitGroup
	for range 800 {
		wg.Go(func() {
			if _, err := m.Allow(t.Context(), limited("key_1", 60, 0)); err == nil {
				allowed.Add(1)
			} else if problem.Is(err, problem.RateLimited) {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 60 || refused.Load() != 740 {
		t.Errorf("got %d allowed and %d refused, want 60 and 740", allowed.Load(), refused.Load())
	}
}

func TestLimiterAllowsExactlyTheDayAtOnce(t *testing.T) {
	m := newMeter(t)
	m.used.Store(40)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 800 {
		wg.Go(func() {
			if _, err := m.Allow(t.Context(), limited("key_1", 0, 100)); err == nil {
				allowed.Add(1)
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 60 || m.asked.Load() != 1 {
		t.Errorf("got %d allowed and %d look-ups, want 60 (100 less the 40 of before) and 1", allowed.Load(), m.asked.Load())
	}
}

func TestLimiterRefills(t *testing.T) {
	m := newMeter(t)
	g := limited("key_1", 60, 0)
	if q := m.allow(g, 1); q.Limit != 60 || q.Remaining != 59 || q.Reset != time.Second {
		t.Errorf("got %+v, want 59 of 60 left, whole again in 1s", q)
	}
	if q := m.allow(g, 59); q.Remaining != 0 || q.Reset != time.Minute {
		t.Errorf("got %+v, want none left, whole again in 1m", q)
	}
	m.deny(g, time.Second, "60 requests a minute")
	m.clock.Advance(time.Second - time.Nanosecond)
	m.deny(g, time.Nanosecond, "")
	m.clock.Advance(time.Nanosecond)
	m.allow(g, 1)
	m.deny(g, time.Second, "")
	m.clock.Advance(10 * time.Second)
	m.allow(g, 10)
	m.deny(g, time.Second, "")
	m.clock.Advance(time.Hour)
	m.allow(g, 60) // never more than the limit, however long it was idle
	m.deny(g, time.Second, "")
}

func TestLimiterKeepsCredentialsApart(t *testing.T) {
	m := newMeter(t)
	m.allow(limited("key_1", 1, 0), 1)
	m.deny(limited("key_1", 1, 0), time.Minute, "")
	m.allow(limited("key_2", 1, 0), 1)
}

func TestLimiterDayResetsAtMidnightUTC(t *testing.T) {
	m := newMeter(t) // 10:00
	g := limited("key_1", 0, 3)
	if q := m.allow(g, 1); q.Limit != 3 || q.Remaining != 2 || q.Reset != 14*time.Hour {
		t.Errorf("got %+v, want 2 of 3 left, whole again in 14h", q)
	}
	m.allow(g, 2)
	q := m.deny(g, 14*time.Hour, "00:00 UTC")
	if q.Limit != 3 || q.Reset != 14*time.Hour {
		t.Errorf("got %+v, want the day's limit and its reset", q)
	}
	m.clock.Advance(14*time.Hour - time.Millisecond)
	m.deny(g, time.Millisecond, "day")
	m.clock.Advance(time.Millisecond)
	m.allow(g, 3)
	m.deny(g, 24*time.Hour, "day")
	if got, want := m.since.Load().(time.Time), time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("used since: got %v, want %v", got, want)
	}
}

func TestLimiterRefusedRequestsDoNotCountForTheDay(t *testing.T) {
	m := newMeter(t)
	g := limited("key_1", 2, 3)
	m.allow(g, 2)
	for range 10 {
		m.deny(g, 30*time.Second, "minute")
	}
	m.clock.Advance(time.Minute)
	m.allow(g, 1)
	m.deny(g, time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC).Sub(m.clock.Now()), "day")
}

func TestLimiterGoesOnAfterARestart(t *testing.T) {
	m := newMeter(t)
	m.used.Store(10_000)
	m.deny(limited("key_1", 60, 10_000), 14*time.Hour, "day")
	m.used.Store(9_999)
	m.allow(limited("key_2", 60, 10_000), 1)
	m.deny(limited("key_2", 60, 10_000), 14*time.Hour, "day")
}

func TestLimiterFailsClosed(t *testing.T) {
	m := newMeter(t)
	m.Used = func(context.Context, string, string, time.Time) (int64, error) { return 0, errors.New("no database") }
	if _, err := m.Allow(t.Context(), limited("key_1", 60, 10)); problem.Of(err).Kind != problem.Internal {
		t.Errorf("got %v, want an internal error", err)
	}
}

func TestLimiterWithoutLimits(t *testing.T) {
	m := newMeter(t)
	q := m.allow(limited("key_1", 0, 0), 10_000)
	h := http.Header{}
	q.Header(h)
	if len(h) != 0 || m.asked.Load() != 0 {
		t.Errorf("got headers %v and %d look-ups, want none", h, m.asked.Load())
	}
}

func TestLimiterIsPreciseForAllLimits(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 7, 59, 61, 1000, 6000, 6007, 99_991, 999_983, 1_000_000} {
		m := newMeter(t)
		g := limited("key_1", n, 0)
		m.allow(g, int(n))
		if _, err := m.Allow(t.Context(), g); !problem.Is(err, problem.RateLimited) {
			t.Fatalf("limit %d, request %d: got %v, want it refused", n, n+1, err)
		}
		// Over a whole minute the refill is the limit, up to rounding.
		got := int64(0)
		for range 60 {
			m.clock.Advance(time.Second)
			for {
				if _, err := m.Allow(t.Context(), g); err != nil {
					break
				}
				got++
			}
		}
		if d := float64(got-n) / float64(n); d > 0.001 || d < -0.001 {
			t.Errorf("limit %d: got %d in the minute after the burst", n, got)
		}
	}
}

func TestLimiterWhenTheClockIsSetBack(t *testing.T) {
	m := newMeter(t)
	g := limited("key_1", 60, 0)
	m.allow(g, 30)
	m.clock.Advance(-24 * time.Hour)
	m.deny(g, time.Second, "minute") // the burst may be gone, but not the day
	m.clock.Advance(time.Second)
	m.allow(g, 1)
	m.clock.Advance(time.Minute)
	m.allow(g, 60)
}

func TestLimiterObeysANewLimitAtOnce(t *testing.T) {
	m := newMeter(t)
	m.allow(limited("key_1", 600, 0), 600)
	m.deny(limited("key_1", 6, 0), 10*time.Second, "6 requests")
	m.clock.Advance(time.Minute)
	m.allow(limited("key_1", 6, 0), 6)
	m.deny(limited("key_1", 6, 0), 10*time.Second, "6 requests")
	m.allow(limited("key_1", 0, 0), 100)
}

func TestLimiterTells(t *testing.T) {
	m := newMeter(t)
	g := limited("key_1", 7, 0)
	g.Workspace.Settings.SupportURL = "https://example.com/more"
	q := m.allow(g, 1)
	h := http.Header{}
	q.Header(h)
	for name, want := range map[string]string{"RateLimit-Limit": "7", "RateLimit-Remaining": "6", "RateLimit-Reset": "9"} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	m.allow(g, 6)
	_, err := m.Allow(t.Context(), g)
	if e := problem.Of(err); !strings.Contains(e.Hint, "https://example.com/more") || !strings.Contains(e.Fix, "9 seconds") {
		t.Errorf("got %+v, want the support URL and the wait", e)
	}
}

// Limits of different credentials never wait for each other's look-up.
func TestLimiterLookUpHoldsUpOnlyItsCredential(t *testing.T) {
	block := make(chan struct{})
	l := &access.Limiter{Now: time.Now, Used: func(_ context.Context, _, credential string, _ time.Time) (int64, error) {
		if credential == "slow" {
			<-block
		}
		return 0, nil
	}}
	var wg sync.WaitGroup
	wg.Go(func() { l.Allow(t.Context(), limited("slow", 1, 1)) })
	for i := range 100 {
		if _, err := l.Allow(t.Context(), limited(fmt.Sprint("key_", i), 1, 1)); err != nil {
			t.Error(err)
		}
	}
	close(block)
	wg.Wait()
}

// sharedMeters is a count of the minute that others use too.
type sharedMeters struct {
	mu    sync.Mutex
	asked int
	left  int64
	wait  time.Duration // until there is another one
	err   error
}

func (m *sharedMeters) Count(_ context.Context, _, _ string, l access.Limits) (access.Reading, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	r := access.Reading{Rest: time.Hour, Within: m.left > 0}
	if r.Within {
		m.left--
	} else {
		r.Ahead = 59*time.Second + m.wait // of 60 a minute, each a second
	}
	return r, m.err
}

func TestLimiterWithMetersRemembersARefusalForASecond(t *testing.T) {
	shared := &sharedMeters{left: 2, wait: 700 * time.Millisecond}
	m := newMeter(t)
	m.Meters = shared
	g := limited("key_1", 60, 0)
	asked := func(want int) {
		t.Helper()
		if shared.asked != want {
			t.Errorf("the meters were asked %d times, want %d", shared.asked, want)
		}
	}
	m.allow(g, 2)
	asked(2)
	m.deny(g, 700*time.Millisecond, "60 requests a minute")
	asked(3)
	shared.left = 1
	m.clock.Advance(500 * time.Millisecond)
	if q := m.deny(g, 200*time.Millisecond, "60 requests a minute"); q.Reset != 59*time.Second+200*time.Millisecond {
		t.Errorf("got %+v, want it whole in 59.2s", q)
	}
	asked(3)
	m.clock.Advance(200 * time.Millisecond)
	m.allow(g, 1) // the wait is over
	asked(4)
	shared.wait = time.Minute
	m.deny(g, time.Minute, "")
	asked(5)
	m.allow(limited("key_2", 60, 0), 0)
	m.deny(limited("key_1", 60, 7), time.Minute, "") // other limits
	asked(6)
	m.clock.Advance(time.Second)
	shared.left = 1
	m.allow(g, 1) // somebody has emptied the meters
	m.allow(limited("key_1", 0, 0), 100)
	asked(7)
}

func TestLimiterWithMetersLetsAFloodWaitForItsTurn(t *testing.T) {
	shared := &sharedMeters{left: 60, wait: time.Minute}
	m := newMeter(t)
	m.Meters = shared
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 800 {
		wg.Go(func() {
			if _, err := m.Allow(t.Context(), limited("key_1", 60, 0)); err == nil {
				allowed.Add(1)
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 60 || shared.asked > 60+4 {
		t.Errorf("got %d allowed and %d asked for, want 60 and at most 4 more", allowed.Load(), shared.asked)
	}
}

func TestLimiterWithMetersFailsClosed(t *testing.T) {
	m := newMeter(t)
	m.Meters = &sharedMeters{left: 5, err: errors.New("no database")}
	for range 2 {
		if q, err := m.Allow(t.Context(), limited("key_1", 60, 10)); err == nil || q != (access.Quota{}) {
			t.Errorf("got %+v, %v; want an error and nothing told of limits", q, err)
		}
	}
}
