package access_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"trustpager/access"
)

func TestThrottle(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	th := &access.Throttle{PerMinute: 6, Burst: 3, Now: func() time.Time { return now }}
	allowed := func(key string) (n int) {
		for range 10 {
			if _, ok := th.Allow(key); ok {
				n++
			}
		}
		return n
	}
	if n := allowed("a"); n != 3 {
		t.Errorf("%d tries at once, want the burst of 3", n)
	}
	if wait, ok := th.Allow("a"); ok || wait != 10*time.Second {
		t.Errorf("a fourth try: %v, wait %v; want 10s", ok, wait)
	}
	if n := allowed("b"); n != 3 {
		t.Errorf("another key had %d tries, want 3", n)
	}
	now = now.Add(10 * time.Second)
	if n := allowed("a"); n != 1 {
		t.Errorf("%d tries after the wait, want 1", n)
	}
	th.Forget("a")
	if n := allowed("a"); n != 3 {
		t.Errorf("%d tries after Forget, want 3", n)
	}
	now = now.Add(-24 * time.Hour) // the clock is set back
	th.Allow("a")
	now = now.Add(time.Minute)
	if n := allowed("a"); n == 0 {
		t.Error("a clock that was set back shuts a key out")
	}
}

func TestThrottleManyKeysAtOnce(t *testing.T) {
	th := &access.Throttle{PerMinute: 1, Burst: 1, Now: time.Now}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10_000 {
				th.Allow(strconv.Itoa(i*10_000 + j))
			}
		})
	}
	wg.Wait()
}

// Whoever has used up their tries does not get new ones because others come.
func TestThrottleKeepsThoseWhoWaitLongest(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	th := &access.Throttle{PerMinute: 1, Burst: 5, Now: func() time.Time { return now }}
	for range 5 {
		th.Allow("victim")
	}
	for i := range 120_000 {
		th.Allow(strconv.Itoa(i))
		if i%1000 == 0 {
			now = now.Add(time.Millisecond)
		}
	}
	if _, ok := th.Allow("victim"); ok {
		t.Error("a flood of others gives new tries")
	}
}
