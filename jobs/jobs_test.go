package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"trustpager/jobs"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	m.Run()
}

// memory is a Store in memory. The tests in storage hold the real one to the
// same contract.
type memory struct {
	mu     sync.Mutex
	jobs   map[string]jobs.Job
	dead   []jobs.Job
	wake   func()
	looks  int
	paused bool
	fail   error // of every method that a Runner calls
}

func (m *memory) EnqueueJob(_ context.Context, j jobs.Job) error {
	m.mu.Lock()
	m.jobs[j.ID] = j
	m.mu.Unlock()
	if j.RunAt.Sub(j.CreatedAt) < jobs.Soon {
		m.wake()
	}
	return nil
}

func (m *memory) CancelJobs(context.Context, string, string, string) (bool, error) {
	return false, errors.ErrUnsupported
}

func (m *memory) ClaimJobs(_ context.Context, kind string, now, until time.Time, token string, limit int) ([]jobs.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []jobs.Job
	for _, j := range m.jobs {
		if j.Kind == kind && !j.RunAt.After(now) {
			due = append(due, j)
		}
	}
	slices.SortFunc(due, func(a, b jobs.Job) int { return a.RunAt.Compare(b.RunAt) })
	due = due[:min(limit, len(due))]
	for i, j := range due {
		j.State, j.RunAt, j.Token = jobs.Leased, until, token
		j.Attempts++
		m.jobs[j.ID], due[i] = j, j
	}
	return due, m.fail
}

// end calls change with the job if j's lease still holds.
func (m *memory) end(j jobs.Job, change func(*jobs.Job)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	have, ok := m.jobs[j.ID]
	if !ok || have.State != jobs.Leased || have.Token != j.Token {
		return jobs.ErrLeaseLost
	}
	if m.fail != nil {
		return m.fail
	}
	change(&have)
	if m.jobs[j.ID] = have; have.State != jobs.Ready {
		delete(m.jobs, j.ID)
	}
	return nil
}

func (m *memory) FinishJob(_ context.Context, j jobs.Job) error {
	return m.end(j, func(*jobs.Job) {})
}

func (m *memory) RetryJob(_ context.Context, j jobs.Job) error {
	return m.end(j, func(have *jobs.Job) {
		have.State, have.RunAt, have.Attempts, have.LastError = jobs.Ready, j.RunAt, j.Attempts, j.LastError
	})
}

func (m *memory) BuryJob(_ context.Context, j jobs.Job) error {
	return m.end(j, func(*jobs.Job) { m.dead = append(m.dead, j) })
}

func (m *memory) NextJobDue(_ context.Context, kind string) (next time.Time, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	for _, j := range m.jobs {
		if j.Kind == kind && (!ok || j.RunAt.Before(next)) {
			next, ok = j.RunAt, true
		}
	}
	return next, ok, m.fail
}

func (m *memory) JobsPaused(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.paused, m.fail
}

func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// world is a running Runner of the one kind "k", in a synctest bubble.
type world struct {
	*memory
	*jobs.Runner
	t    *testing.T
	stop func() error // and wait for the end
}

func start(t *testing.T, k jobs.Kind) *world {
	m := &memory{jobs: map[string]jobs.Job{}}
	r := &jobs.Runner{Store: m, Kinds: map[string]jobs.Kind{"k": k}, Now: time.Now}
	m.wake = r.Wake
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	synctest.Wait()
	return &world{m, r, t, func() error { cancel(); return <-ended }}
}

// enqueue adds a job that is due after d.
func (w *world) enqueue(d time.Duration) jobs.Job {
	j, err := jobs.New(time.Now(), "ws_1", "k", "", nil, time.Now().Add(d))
	if err != nil {
		w.t.Fatal(err)
	}
	w.EnqueueJob(w.t.Context(), j)
	return j
}

// check compares the number of live and dead jobs.
func (w *world) check(live, dead int) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.jobs) != live || len(w.dead) != dead {
		w.t.Errorf("%d live and %d dead jobs, want %d and %d", len(w.jobs), len(w.dead), live, dead)
	}
}

func TestRunnerRunsAJobWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var ran []time.Duration
		w := start(t, jobs.Kind{Handle: func(context.Context, jobs.Job) error {
			ran = append(ran, time.Since(begin))
			return nil
		}, Workers: 1})
		w.enqueue(0)
		w.enqueue(90 * time.Second)
		w.enqueue(50 * time.Hour) // nobody wakes the runner for it
		time.Sleep(60 * time.Hour)
		w.check(0, 0)
		if want := []time.Duration{0, 90 * time.Second, 50 * time.Hour}; !slices.Equal(ran, want) {
			t.Errorf("ran after %v, want %v", ran, want)
		}
		w.stop()
	})
}

func TestIdleRunnerLooksOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, jobs.Kind{Handle: func(context.Context, jobs.Job) error { return nil }})
		w.set(func() { w.looks = 0 })
		time.Sleep(time.Hour)
		w.set(func() {
			if w.looks > 60 {
				t.Errorf("an idle hour cost %d looks, want at most 60", w.looks)
			}
		})
		w.stop()
	})
}

func TestFailedJobIsRetriedAndThenDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []time.Time
		w := start(t, jobs.Kind{
			Handle: func(_ context.Context, j jobs.Job) error {
				ran = append(ran, time.Now())
				if len(ran) == 2 {
					panic("second time")
				}
				return fmt.Errorf("attempt %d", j.Attempts)
			},
			Retry: jobs.Delays(10*time.Second, 100*time.Second),
		})
		w.enqueue(0)
		time.Sleep(time.Hour)
		w.check(0, 1)
		if len(ran) != 3 {
			t.Fatalf("%d attempts, want 3", len(ran))
		}
		for i, want := range []time.Duration{10 * time.Second, 100 * time.Second} {
			if got := ran[i+1].Sub(ran[i]); got < want*9/10 || got > want*11/10 {
				t.Errorf("delay after attempt %d = %v, want %v give or take a tenth", i+1, got, want)
			}
		}
		if got := w.dead[0].LastError; got != "attempt 3" {
			t.Errorf("last error = %q, want that of attempt 3", got)
		}
		w.stop()
	})
}

func TestHandlersVerdicts(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name       string
		verdict    func() error // of the first attempt; later ones succeed
		live, dead int
		next       time.Duration
		attempts   int // when it runs again
	}{
		{"permanent", func() error { return jobs.Permanent(boom) }, 0, 1, 0, 0},
		{"wrapped permanent", func() error { return fmt.Errorf("send: %w", jobs.Permanent(boom)) }, 0, 1, 0, 0},
		{"retry at", func() error { return jobs.RetryAt(time.Now().Add(7*time.Minute), boom) }, 1, 0, 7 * time.Minute, 2},
		{"snooze", func() error { return jobs.Snooze(time.Now().Add(8*time.Minute), boom) }, 1, 0, 8 * time.Minute, 1},
		{"again", func() error { return jobs.Again(time.Now().Add(9 * time.Minute)) }, 1, 0, 9 * time.Minute, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var again jobs.Job
				var at time.Duration
				n := 0
				w := start(t, jobs.Kind{Handle: func(_ context.Context, j jobs.Job) error {
					if n++; n == 1 {
						return tt.verdict()
					}
					again, at = j, time.Since(begin)
					return nil
				}})
				w.enqueue(0)
				w.check(tt.live, tt.dead)
				time.Sleep(time.Hour)
				w.check(0, tt.dead)
				if at != tt.next || again.Attempts != tt.attempts {
					t.Errorf("ran again after %v as attempt %d, want %v and %d", at, again.Attempts, tt.next, tt.attempts)
				}
				w.stop()
			})
		})
	}
}

func TestWorkersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		w := start(t, jobs.Kind{Workers: 3, Handle: func(context.Context, jobs.Job) error {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		}})
		begin := time.Now()
		for range 30 {
			w.enqueue(0)
		}
		time.Sleep(10 * time.Second)
		w.check(0, 0)
		if most != 3 {
			t.Errorf("%d ran at a time, want 3", most)
		}
		if got := time.Since(begin); got != 10*time.Second {
			t.Errorf("30 jobs of 1 s on 3 workers took %v, want 10s", got)
		}
		w.stop()
	})
}

func TestHandlerThatHangsIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, jobs.Kind{Timeout: 20 * time.Second, Retry: jobs.Delays(), Handle: func(ctx context.Context, j jobs.Job) error {
			if until, ok := ctx.Deadline(); !ok || !until.Before(j.RunAt) {
				t.Errorf("the handler ends at %v, want before its lease does at %v", until, j.RunAt)
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		w.enqueue(0)
		time.Sleep(19 * time.Second)
		w.check(1, 0)
		time.Sleep(time.Second)
		w.check(0, 1)
		w.stop()
	})
}

func TestWorkerWithoutLeaseChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan struct{})
		var n atomic.Int64
		w := start(t, jobs.Kind{Handle: func(context.Context, jobs.Job) error {
			if n.Add(1) == 1 {
				<-late // ignores its context, beyond its lease
				return jobs.Permanent(errors.New("too late to say so"))
			}
			return nil
		}})
		w.enqueue(0)
		time.Sleep(5 * time.Minute)
		w.check(0, 0)
		if n.Load() != 2 {
			t.Errorf("ran %d times, want 2: again after the lease", n.Load())
		}
		close(late)
		w.check(0, 0)
		w.stop()
	})
}

func TestCrashLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := false
		w := start(t, jobs.Kind{Retry: jobs.Tries(3, time.Second, time.Second), Handle: func(context.Context, jobs.Job) error {
			ran = true
			return nil
		}})
		j, _ := jobs.New(time.Now(), "ws_1", "k", "", nil, time.Now())
		j.Attempts = 3 // three attempts took the process with them
		w.EnqueueJob(t.Context(), j)
		w.check(0, 1)
		if ran {
			t.Error("a job that had used up its attempts was run")
		}
		w.stop()
	})
}

func TestStopWaitsForRunningJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, jobs.Kind{Handle: func(ctx context.Context, _ jobs.Job) error {
			time.Sleep(3 * time.Second)
			return ctx.Err()
		}})
		w.enqueue(0)
		synctest.Wait()
		begin := time.Now()
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := time.Since(begin); got != 3*time.Second {
			t.Errorf("Run returned after %v, want 3s", got)
		}
		w.check(0, 0)
	})
}

func TestStopEndsWhatTakesLongerWithoutCountingIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, jobs.Kind{Handle: func(ctx context.Context, _ jobs.Job) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		w.Grace = time.Second
		j := w.enqueue(0)
		synctest.Wait()
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		w.check(1, 0)
		if got := w.jobs[j.ID]; got.Attempts != 0 || got.State != jobs.Ready || got.RunAt.After(time.Now()) {
			t.Errorf("job after the stop = %+v, want ready at once with no attempt counted", got)
		}
	})
}

func TestStoreThatFailsIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := start(t, jobs.Kind{Handle: func(context.Context, jobs.Job) error { n++; return nil }})
		w.set(func() { w.fail = errors.New("database away"); w.looks = 0 })
		w.enqueue(0)
		time.Sleep(time.Hour)
		w.set(func() {
			if w.looks < 60 || w.looks > 200 {
				t.Errorf("asked %d times in an hour, want every half a minute or so", w.looks)
			}
			w.fail = nil
		})
		time.Sleep(time.Minute)
		w.check(0, 0)
		w.stop()
	})
}

func TestEndingIsRetriedWhileTheLeaseLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		var w *world
		w = start(t, jobs.Kind{Handle: func(context.Context, jobs.Job) error {
			n++
			w.set(func() { w.fail = errors.New("database away") })
			return nil
		}})
		w.enqueue(0)
		time.Sleep(10 * time.Second)
		w.set(func() { w.fail = nil })
		time.Sleep(10 * time.Second)
		w.check(0, 0)
		if n != 1 {
			t.Errorf("ran %d times, want once: the result was stored when the database came back", n)
		}
		w.stop()
	})
}

func TestEndJoinsTheEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []jobs.State
		var w *world
		w = start(t, jobs.Kind{
			Handle: func(context.Context, jobs.Job) error { return errors.New("no") },
			Retry:  jobs.Delays(time.Second),
			End: func(ctx context.Context, e jobs.Ending) error {
				states = append(states, e.State)
				return e.Apply(ctx, w.memory)
			},
		})
		w.enqueue(0)
		time.Sleep(time.Minute)
		w.check(0, 1)
		if want := []jobs.State{jobs.Ready, jobs.Dead}; !slices.Equal(states, want) {
			t.Errorf("endings = %v, want %v", states, want)
		}
		w.stop()
	})
}

func TestPausedKindsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := start(t, jobs.Kind{Outgoing: true, Handle: func(context.Context, jobs.Job) error { n++; return nil }})
		w.set(func() { w.paused = true })
		w.enqueue(0)
		time.Sleep(time.Hour)
		w.check(1, 0)
		w.set(func() { w.paused = false })
		w.Wake()
		w.check(0, 0)
		w.stop()
	})
}

func TestTries(t *testing.T) {
	s := jobs.Tries(5, time.Second, 4*time.Second)
	for i, want := range []time.Duration{1, 2, 4, 4, 4} {
		d, more := s(i + 1)
		if want *= time.Second; d < want*9/10 || d > want*11/10 {
			t.Errorf("delay after attempt %d = %v, want about %v", i+1, d, want)
		}
		if more != (i < 4) {
			t.Errorf("more after attempt %d = %v", i+1, more)
		}
	}
}
