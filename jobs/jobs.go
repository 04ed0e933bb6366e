// Package jobs does durable work later: what a transaction enqueues is done at
// least once, however often the server is killed in between.
//
// A job is a row. A [Runner] leases the rows that are due and calls the
// [Handler] of their kind:
//
//	        enqueue                claim                  success
//	(none) ────────▶ ready ──────────────────▶ leased ─────────────▶ (gone)
//	                  ▲  ▲                      │ │ │
//	                  │  └── failure, again at ─┘ │ └─ last failure ─▶ dead
//	                  └──── the lease ran out ────┘
//
// A done job is deleted: what it did shows in what it changed. A dead one is
// kept until somebody looks at it; whoever enqueued it is told in the same
// transaction (see [Kind]).
//
// The lease makes the work safe against crashes, the lease's token against
// workers that come back late: a step that ends a job names the token, and
// changes nothing if another worker has the job by now. So the outside may see
// the same work twice, and handlers give it a stable id to recognise it by.
//
// The Runner does not poll while it is idle. It sleeps until the next job is
// due, until [Runner.Wake], or for a minute, whichever comes first.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"trustpager/typeid"
)

// A State is where a job stands. There is no state for done jobs: they are gone.
type State string

// The states.
const (
	Ready  State = "ready"  // waits until RunAt
	Leased State = "leased" // a worker has it until RunAt
	Dead   State = "dead"   // failed for good
)

// A Job is a piece of work that outlives the process.
type Job struct {
	ID        string // job_…
	Workspace string // "" for work of the whole server
	Kind      string // names the handler, as in "webhook.deliver"
	Key       string // at most one live job of the workspace and kind has it; "" is no key
	Payload   json.RawMessage
	State     State
	RunAt     time.Time // when it is due next; while leased, when the lease ends
	Attempts  int       // how often it was claimed, this time included
	LastError string
	Token     string // of the lease
	CreatedAt time.Time
}

// New returns a job that is due at runAt. The payload is encoded as JSON.
func New(now time.Time, workspace, kind, key string, payload any, runAt time.Time) (Job, error) {
	b, err := json.Marshal(payload)
	if err != nil {
		return Job{}, fmt.Errorf("payload of job %s: %w", kind, err)
	}
	return Job{ID: typeid.NewID("job"), Workspace: workspace, Kind: kind, Key: key, Payload: b,
		State: Ready, RunAt: runAt, CreatedAt: now}, nil
}

// Soon is how far ahead of now a job may be due and still be worth waking the
// Runner for when it is enqueued. The Runner looks at least twice as often, so
// it learns of later ones in time.
const Soon = 2 * look

// look is how often a Runner looks even if nobody wakes it: for jobs that are
// enqueued far ahead, for other nodes whose notice was lost, and for clocks
// that were set.
const look = time.Minute

// ErrLeaseLost says that the job is no longer leased under the token: the
// lease ran out, and another worker has the job or has ended it.
var ErrLeaseLost = errors.New("the job's lease is lost")

// An Enqueuer takes jobs. Packages that only enqueue embed it in their Store.
type Enqueuer interface {
	// EnqueueJob stores the job, and wakes the runners once the caller's
	// transaction commits. If a live job has the same workspace, kind and key,
	// that one takes the new payload and RunAt and starts its attempts anew,
	// so the last word holds; if it is just running, it runs once more after
	// that.
	EnqueueJob(ctx context.Context, j Job) error

	// CancelJobs removes the job with the key unless it is running. It reports
	// whether it removed one.
	CancelJobs(ctx context.Context, workspace, kind, key string) (bool, error)
}

// A Store keeps jobs. Its methods are safe for concurrent use, by many
// processes. Each is atomic, and joins the transaction if the Store is one.
type Store interface {
	Enqueuer

	// ClaimJobs leases up to limit jobs of the kind that are due at now, the
	// longest due first, until the given time, and counts an attempt. A job
	// whose lease has run out is due. No two calls claim the same job unless
	// the first lease has ended.
	ClaimJobs(ctx context.Context, kind string, now, until time.Time, token string, limit int) ([]Job, error)

	// FinishJob removes the job. It fails with [ErrLeaseLost] if the job is
	// not leased under j.Token, and so do RetryJob and BuryJob.
	FinishJob(ctx context.Context, j Job) error

	// RetryJob makes the job ready at j.RunAt, and stores j.Attempts and
	// j.LastError.
	RetryJob(ctx context.Context, j Job) error

	// BuryJob makes the job dead, and stores j.LastError.
	BuryJob(ctx context.Context, j Job) error

	// NextJobDue returns when the next live job of the kind is due: ready, or
	// at the end of its lease. It reports false if there is none.
	NextJobDue(ctx context.Context, kind string) (time.Time, bool, error)

	// JobsPaused reports whether outgoing jobs are paused.
	JobsPaused(ctx context.Context) (bool, error)
}

// A Handler does the work of a job. It returns nil if the work is done for
// good; [Permanent], [RetryAt], [Snooze] and [Again] say otherwise; after any
// other error, and after a panic, the job is retried as its kind's schedule
// says.
//
// It may be called again for work that was done before, by this process or
// another. It must return soon after ctx is done.
type Handler func(ctx context.Context, j Job) error

// A Schedule says how long to wait after the given attempt, the first being 1,
// has failed. It reports false if that was the last one.
type Schedule func(attempt int) (time.Duration, bool)

// A Kind says how jobs of one kind are run.
type Kind struct {
	Handle   Handler
	Retry    Schedule      // nil means Tries(10, 5*time.Second, time.Hour)
	Timeout  time.Duration // of one attempt; 0 means 30 seconds
	Workers  int           // attempts at a time in this process; 0 means 4
	Outgoing bool          // reaches outside of the server, so it can be paused

	// End, if not nil, ends an attempt in place of the Runner, so that what
	// depends on the job changes with it: in one transaction it changes that
	// and calls e.Apply. If End fails it is tried again while the lease lasts.
	End func(ctx context.Context, e Ending) error
}

// An Ending is what becomes of a job after an attempt.
type Ending struct {
	Job   Job       // Attempts, LastError and RunAt as they will be
	State State     // Ready or Dead; "" means done
	RunAt time.Time // when Ready
	Err   error     // what the attempt returned, nil if it succeeded
}

// Apply stores the ending. It fails with [ErrLeaseLost] if another worker has
// the job by now; then nothing else may be stored either.
func (e Ending) Apply(ctx context.Context, tx Store) error {
	switch e.State {
	case Dead:
		return tx.BuryJob(ctx, e.Job)
	case Ready:
		return tx.RetryJob(ctx, e.Job)
	}
	return tx.FinishJob(ctx, e.Job)
}

// A verdict is an error by which a handler says what becomes of its job.
type verdict struct {
	err       error
	permanent bool
	uncounted bool      // the attempt does not count
	anew      bool      // all attempts are forgotten
	at        time.Time // zero means as the schedule says
}

func (v *verdict) Error() string {
	if v.err == nil {
		return "again at " + v.at.UTC().Format(time.RFC3339)
	}
	return v.err.Error()
}

func (v *verdict) Unwrap() error { return v.err }

// Permanent returns an error that makes the job dead at once, because of err.
func Permanent(err error) error { return &verdict{err: err, permanent: true} }

// RetryAt returns an error that retries the job at the given time instead of
// when its schedule says. The attempt counts, and the schedule's last one is
// still the last.
func RetryAt(at time.Time, err error) error { return &verdict{err: err, at: at} }

// Snooze returns an error that puts the job off without counting the attempt:
// it could not be made.
func Snooze(at time.Time, err error) error { return &verdict{err: err, at: at, uncounted: true} }

// Again returns an error that is none: the work is done, and is to be done
// again at the given time, as by a job that recurs.
func Again(at time.Time) error { return &verdict{at: at, anew: true} }

// Tries returns a schedule of n attempts. The delay is first after the first
// one, doubles each time up to most, and is spread by a tenth.
func Tries(n int, first, most time.Duration) Schedule {
	return func(attempt int) (time.Duration, bool) {
		d := first
		for i := 1; i < attempt && d < most; i++ {
			d *= 2
		}
		return Jitter(min(d, most)), attempt < n
	}
}

// Delays returns a schedule of one attempt more than there are delays. Each is
// spread by a tenth.
func Delays(delays ...time.Duration) Schedule {
	return func(attempt int) (time.Duration, bool) {
		if attempt > len(delays) {
			return 0, false
		}
		return Jitter(delays[max(attempt, 1)-1]), true
	}
}

// Jitter returns a random duration within a tenth of d, so that what failed
// together does not come back together.
func Jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// end decides what becomes of j after its attempt returned err.
func (k Kind) end(j Job, now time.Time, err error) Ending {
	e := Ending{Job: j, Err: err}
	if err == nil {
		return e
	}
	v, _ := errors.AsType[*verdict](err)
	if v == nil {
		v = &verdict{err: err}
	}
	e.Job.LastError = clip(err.Error(), 1000)
	delay, more := k.Retry(j.Attempts)
	switch {
	case v.anew:
		e.State, e.RunAt, e.Err = Ready, v.at, nil
		e.Job.Attempts, e.Job.LastError = 0, ""
	case v.uncounted:
		e.State, e.RunAt = Ready, v.at
		e.Job.Attempts--
	case v.permanent || !more:
		e.State = Dead
	case v.at.IsZero():
		e.State, e.RunAt = Ready, now.Add(delay)
	default:
		e.State, e.RunAt = Ready, v.at
	}
	e.Job.RunAt = e.RunAt
	return e
}

// Stopped reports whether the attempt ended because the server stops, and so
// says nothing about the work.
func (e Ending) Stopped() bool { return errors.Is(e.Err, errStopping) }
