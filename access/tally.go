package access

import (
	"sync"
	"time"
)

// A Tally bounds how much of one kind is told of somebody, so that a flood of
// refusals does not flood the audit log: beyond a number an hour it is only
// counted. It counts within one process. The zero Tally is ready, and safe for
// concurrent use.
type Tally struct {
	mu   sync.Mutex
	hour time.Time
	n    map[string]int64
	over map[string]int64 // counted in earlier hours and not yet told
}

// Count counts one more of the key, and reports whether it is to be told, being
// one of the first most in the hour, and how many were not since the last one
// that was.
func (t *Tally) Count(key string, most int64, now time.Time) (suppressed int64, tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if hour := now.Truncate(time.Hour); t.n == nil || !hour.Equal(t.hour) {
		if t.over == nil {
			t.over = map[string]int64{}
		}
		for k, n := range t.n {
			if n > most {
				t.over[k] += n - most
			}
		}
		t.hour, t.n = hour, map[string]int64{}
	}
	t.n[key]++
	if t.n[key] > most {
		return 0, false
	}
	suppressed = t.over[key]
	delete(t.over, key)
	return suppressed, true
}
