package access

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// A Throttle says how often somebody may try who has no credential yet, such as
// a client address: PerMinute times a minute on average, Burst times at once.
// It counts within one process. It is safe for concurrent use.
type Throttle struct {
	PerMinute int
	Burst     int
	Now       func() time.Time

	mu   sync.Mutex
	tats map[string]time.Time // GCRA's theoretical arrival times
}

// maxThrottled bounds how many keys are remembered: a flood from very many
// addresses is not to fill the memory. When there are more, those that have
// waited long enough are forgotten, and if there are none, the half that has the
// least to wait.
const maxThrottled = 50_000

// Allow counts one try under the key. If it is one too many it is not counted,
// and retryAfter says when the next one is allowed.
func (t *Throttle) Allow(key string) (retryAfter time.Duration, ok bool) {
	gap := time.Minute / time.Duration(t.PerMinute)
	now := t.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	next, over := gcra(t.tats[key], now, gap, gap*time.Duration(t.Burst))
	t.put(key, next, now)
	if over > 0 {
		return over, false
	}
	return 0, true
}

// Forget takes back all tries under the key, as after a right password.
func (t *Throttle) Forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tats, key)
}

func (t *Throttle) put(key string, tat, now time.Time) {
	if len(t.tats) >= maxThrottled {
		maps.DeleteFunc(t.tats, func(_ string, v time.Time) bool { return !v.After(now) })
	}
	if len(t.tats) >= maxThrottled {
		latest := slices.SortedFunc(maps.Values(t.tats), time.Time.Compare)[len(t.tats)/2]
		maps.DeleteFunc(t.tats, func(_ string, v time.Time) bool { return v.Before(latest) })
	}
	if t.tats == nil || len(t.tats) >= maxThrottled { // all of them wait equally long
		t.tats = map[string]time.Time{}
	}
	t.tats[key] = tat
}
