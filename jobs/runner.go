package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// slack is how much longer a lease is than its handler's timeout. It covers a
// handler that returns late, the storing of the result, and clocks of nodes
// that differ.
const slack = time.Minute

// A Runner runs jobs. Each kind has workers of its own, so that one kind whose
// work hangs holds up no other. Several Runners, on several nodes, may share a
// store.
type Runner struct {
	Store   Store
	Kinds   map[string]Kind // jobs of other kinds are left to other runners
	Now     func() time.Time
	Changed <-chan struct{} // wakes the Runner, nil for none; see Wake
	Grace   time.Duration   // how long running jobs may go on after a stop; 0 means 5 seconds

	mu    sync.Mutex
	lanes []*lane
}

// A lane runs the jobs of one kind.
type lane struct {
	*Runner
	name string
	kind Kind
	wake chan struct{} // holds one wake-up

	running chan struct{} // one element for each running attempt
	work    sync.WaitGroup
	fails   int // of the store, in a row
}

// errStopping is the cause of the context of attempts that a stop ends.
var errStopping = errors.New("the server is stopping")

// Wake makes the Runner look for jobs now. It never blocks.
func (r *Runner) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		l.look()
	}
}

// Run runs jobs until ctx is done. Then it starts no more, waits up to Grace
// for those that run, ends the contexts of the rest, and waits for these up to
// Grace once more. Attempts that a stop ended do not count. What is still
// running after that is an error; its leases run out, and it is done again.
func (r *Runner) Run(ctx context.Context) error {
	grace := r.Grace
	if grace == 0 {
		grace = 5 * time.Second
	}
	attempts, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(errStopping)

	var lanes sync.WaitGroup
	for name, k := range r.Kinds {
		if k.Retry == nil {
			k.Retry = Tries(10, 5*time.Second, time.Hour)
		}
		if k.Timeout == 0 {
			k.Timeout = 30 * time.Second
		}
		if k.Workers == 0 {
			k.Workers = 4
		}
		l := &lane{Runner: r, name: name, kind: k, wake: make(chan struct{}, 1), running: make(chan struct{}, k.Workers)}
		r.mu.Lock()
		r.lanes = append(r.lanes, l)
		r.mu.Unlock()
		lanes.Go(func() { l.run(ctx, attempts) })
	}
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-r.Changed:
			r.Wake()
		}
	}
	lanes.Wait()

	r.mu.Lock()
	stopped := r.lanes
	r.lanes = nil
	r.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		for _, l := range stopped {
			l.work.Wait()
		}
	}()
	if waitFor(idle, grace) {
		return nil
	}
	kill(errStopping)
	if waitFor(idle, grace) {
		return nil
	}
	return errors.New("stop jobs: some did not return when their context was done")
}

func waitFor(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

func (l *lane) look() {
	select {
	case l.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// run starts jobs as they come due, until ctx is done. The attempts run under
// the other context.
func (l *lane) run(ctx, attempts context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		timer.Reset(min(l.pass(ctx, attempts), look))
	}
}

// pass starts what is due, and returns how long to sleep then.
func (l *lane) pass(ctx, attempts context.Context) time.Duration {
	sleep, err := l.start(ctx, attempts)
	if err == nil {
		l.fails = 0
		return sleep
	}
	if ctx.Err() != nil {
		return look
	}
	slog.ErrorContext(ctx, "look for jobs", "kind", l.name, "err", err)
	l.fails++
	return Jitter(min(time.Second<<min(l.fails-1, 5), 30*time.Second))
}

func (l *lane) start(ctx, attempts context.Context) (time.Duration, error) {
	if l.kind.Outgoing {
		if paused, err := l.Store.JobsPaused(ctx); err != nil {
			return 0, err
		} else if paused {
			return look, nil // resuming wakes the lane
		}
	}
	for ctx.Err() == nil {
		free := cap(l.running) - len(l.running)
		if free == 0 {
			return look, nil // the first to end wakes the lane
		}
		due, ok, err := l.Store.NextJobDue(ctx, l.name)
		if err != nil || !ok {
			return look, err
		}
		now := l.Now()
		if due.After(now) {
			return due.Sub(now), nil
		}
		claimed, err := l.Store.ClaimJobs(ctx, l.name, now, now.Add(l.kind.Timeout+slack), rand.Text(), free)
		if err != nil {
			return 0, err
		}
		for _, j := range claimed {
			l.running <- struct{}{}
			l.work.Go(func() {
				l.attempt(attempts, j)
				<-l.running
				l.look()
			})
		}
		if len(claimed) == 0 {
			return Jitter(100 * time.Millisecond), nil // another node is just claiming them
		}
	}
	return look, nil
}

// attempt runs the handler once and ends the job.
func (l *lane) attempt(ctx context.Context, j Job) {
	log := slog.With("job", j.ID, "kind", j.Kind, "workspace", j.Workspace, "attempt", j.Attempts)
	err := l.handle(ctx, j)
	if err != nil && context.Cause(ctx) == errStopping {
		err = Snooze(l.Now(), errStopping)
	}
	e := l.kind.end(j, l.Now(), err)
	switch {
	case e.State == Dead:
		log.WarnContext(ctx, "job failed for good", "err", e.Err)
	case e.Err != nil:
		log.InfoContext(ctx, "job will be tried again", "at", e.RunAt, "err", e.Err)
	}
	end := l.kind.End
	if end == nil {
		end = func(ctx context.Context, e Ending) error { return e.Apply(ctx, l.Store) }
	}
	// What the handler did is worth storing even while the server stops, and
	// while the database is away for a moment.
	stop := context.WithoutCancel(ctx)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := end(stop, e)
		if err == nil {
			return
		}
		if errors.Is(err, ErrLeaseLost) {
			log.WarnContext(ctx, "job took longer than its lease; the result of this attempt is dropped")
			return
		}
		log.ErrorContext(ctx, "end job", "err", err)
		if l.Now().Add(wait).After(j.RunAt) || !pause(ctx, wait) {
			return // the lease runs out, and the job is done again
		}
	}
}

// pause waits for d, and reports false if ctx is done before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// handle calls the handler, and returns its panic as an error.
func (l *lane) handle(ctx context.Context, j Job) (err error) {
	if j.Attempts > 1 {
		// The attempts before this one ended without a word, or there would be
		// no such job any more: they took the process with them.
		if _, more := l.kind.Retry(j.Attempts - 1); !more {
			return Permanent(errors.New("the server was stopped during the last attempt"))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, l.kind.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			slog.ErrorContext(ctx, "job panicked", "job", j.ID, "kind", j.Kind, "err", err, "stack", string(debug.Stack()))
		}
	}()
	return l.kind.Handle(ctx, j)
}

// clip returns s as text that every database takes, at most n bytes long.
func clip(s string, n int) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s[:min(len(s), n)], "?"), "\x00", "?")
}
