package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"trustpager/jobs"
	"trustpager/problem"
)

// retries are the delays between the ten tries of a delivery:
//
//	try      1   2   3    4    5    6    7    8    9    10
//	delay      5s  5m  30m  2h   5h   10h  14h  20h  24h
//	since    0   5s  5m  35m  2.6h 7.6h 18h  32h  52h  76h   (with jitter, 68 to 83 h)
var retries = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	defaultTimeout = 15 * time.Second
	maxResponse    = 1 << 10 // bytes of a response that are kept
	workers        = 32      // deliveries at a time in this process
	perEndpoint    = 8       // of these, to one endpoint
)

// A Deliverer posts deliveries to their endpoints. It is the handler of the
// jobs of [Kind].
type Deliverer struct {
	Store   Store
	InTx    func(ctx context.Context, fn func(tx Store) error) error // all of fn, or none of it
	Sealer  Sealer
	Guard   *Guard
	Now     func() time.Time
	Timeout time.Duration // of one try; 0 means 15 seconds
	Version string        // of the program, for the User-Agent

	once   sync.Once
	client *http.Client
	turns  turns
}

// Jobs returns how jobs of [Kind] are run.
func (d *Deliverer) Jobs() jobs.Kind {
	return jobs.Kind{
		Handle:   d.deliver,
		End:      d.end,
		Retry:    jobs.Delays(retries...),
		Timeout:  d.timeout() + 15*time.Second,
		Workers:  workers,
		Outgoing: true,
	}
}

func (d *Deliverer) timeout() time.Duration {
	if d.Timeout == 0 {
		return defaultTimeout
	}
	return d.Timeout
}

// deliver makes one try.
func (d *Deliverer) deliver(ctx context.Context, j jobs.Job) error {
	var p payload
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return jobs.Permanent(fmt.Errorf("payload: %w", err))
	}
	release, later := d.turns.take(ctx, p.Endpoint)
	if release == nil {
		return jobs.Snooze(d.Now().Add(later), errors.New("the endpoint is busy with other deliveries"))
	}
	defer release()
	m, err := d.Store.Delivery(ctx, j.Workspace, p.Delivery)
	if problem.Is(err, problem.NotFound) || err == nil && m.State != jobs.Ready {
		return nil // purged, or it has arrived and only the job did not learn of it
	}
	if err != nil {
		return err
	}
	to, err := d.Store.Endpoint(ctx, j.Workspace, p.Endpoint)
	if problem.Is(err, problem.NotFound) {
		return jobs.Permanent(errors.New("the endpoint was removed"))
	}
	if err != nil {
		return err
	}
	if !to.DisabledAt.IsZero() {
		return jobs.Permanent(fmt.Errorf("the endpoint was disabled: %s", to.DisabledReason))
	}
	a, err := d.post(ctx, to, m)
	if err != nil {
		return err
	}
	gone := a.Status == http.StatusGone
	// What came of the try is worth storing even while the server stops.
	ctx = context.WithoutCancel(ctx)
	err = d.InTx(ctx, func(tx Store) error {
		if err := tx.RecordAttempt(ctx, m.Workspace, m.ID, a); err != nil {
			return err
		}
		if !gone {
			return nil
		}
		err := tx.DisableEndpoint(ctx, to.Workspace, to.ID, "its server answered 410 Gone", a.At)
		if problem.Is(err, problem.NotFound) {
			return nil // removed meanwhile
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("record attempt: %w", err)
	case gone:
		return jobs.Permanent(errors.New(a.Error))
	case a.Error != "":
		return errors.New(a.Error)
	}
	return nil
}

// end makes the delivery follow its job.
func (d *Deliverer) end(ctx context.Context, e jobs.Ending) error {
	var p payload
	if err := json.Unmarshal(e.Job.Payload, &p); err != nil {
		return e.Apply(ctx, d.Store) // no delivery is known by it
	}
	return d.InTx(ctx, func(tx Store) error {
		switch e.State {
		case jobs.Ready:
			if err := tx.PutOffDelivery(ctx, e.Job.Workspace, p.Delivery, e.RunAt); err != nil {
				return err
			}
		case jobs.Dead:
			if err := tx.BuryDelivery(ctx, e.Job.Workspace, p.Delivery, e.Job.LastError); err != nil {
				return err
			}
			e.State = "" // the dead delivery says it all; the job need not stay
		}
		return e.Apply(ctx, tx)
	})
}

// post sends the delivery and returns what came of it. It fails only if the
// try says nothing about the receiver.
func (d *Deliverer) post(ctx context.Context, to Endpoint, m Delivery) (Attempt, error) {
	now := d.Now()
	signatures, err := d.sign(to, m, now)
	if err != nil {
		return Attempt{}, err
	}
	d.once.Do(func() { d.client = d.Guard.Client(d.timeout()) })
	a := Attempt{At: now, URL: to.URL}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(m.Body))
	if err != nil {
		return Attempt{}, jobs.Permanent(err) // the URL was checked when it was set
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "TrustPager-Webhook/"+d.version())
	req.Header.Set(HeaderID, m.ID)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(HeaderSignature, signatures)
	resp, err := d.client.Do(req)
	if ctx.Err() != nil && err != nil {
		return Attempt{}, context.Cause(ctx) // we gave up, not the receiver
	}
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, whose query may be a secret
			if e.Timeout() {
				err = fmt.Errorf("no answer within %v", d.timeout())
			}
		}
		a.Error = text([]byte(err.Error()))
		return a, nil
	}
	defer resp.Body.Close() // without reading on: the body may have no end
	a.Status = resp.StatusCode
	head, _ := io.ReadAll(io.LimitReader(resp.Body, maxResponse)) // the status counts, even if the body breaks off
	a.Response = text(head)
	switch {
	case a.Status/100 == 2:
	case a.Status/100 == 3:
		a.Error = fmt.Sprintf("answered %d, and redirects are not followed: set the URL that it leads to", a.Status)
	default:
		a.Error = fmt.Sprintf("answered %d", a.Status)
	}
	return a, nil
}

func (d *Deliverer) version() string {
	if d.Version == "" {
		return "1"
	}
	return d.Version
}

// sign returns the signatures of a try: of the secret, and of the old one
// while it is valid.
func (d *Deliverer) sign(to Endpoint, m Delivery, now time.Time) (string, error) {
	sealed := []string{to.Secret}
	if to.OldSecret != "" && now.Before(to.OldSecretUntil) {
		sealed = append(sealed, to.OldSecret)
	}
	var signatures []string
	for _, s := range sealed {
		secret, err := d.Sealer.Open(s, Place(to.Workspace, to.Owner))
		if err != nil {
			return "", fmt.Errorf("secret of endpoint %s: %w", to.ID, err)
		}
		signatures = append(signatures, Sign(secret, m.ID, now, m.Body))
	}
	return strings.Join(signatures, " "), nil
}

// text returns b as text that every database takes, at most 1 kB of it.
func text(b []byte) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(b[:min(len(b), maxResponse)]), "?"), "\x00", "?")
}

// turns bounds how many workers one endpoint may hold, so that a receiver that
// hangs does not hold up the others. It measures by the process's own clock.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

type turn struct {
	slots    chan struct{}
	users    int           // that run or wait
	took     time.Duration // by the last delivery
	progress time.Time     // when the last one ended, or the first began
	next     time.Time     // until when others have been put off
}

// patience is how long a delivery waits for its turn before it is put off, and
// maxPutOff the longest that it is put off.
const (
	patience  = time.Second
	maxPutOff = time.Hour
)

// take waits for the endpoint's turn and returns what ends it. If the turn
// does not come soon it returns nil and how long to put the delivery off:
// those that wait are spread over the time that their receiver seems to need.
func (t *turns) take(ctx context.Context, endpoint string) (release func(), later time.Duration) {
	t.mu.Lock()
	if t.of == nil {
		t.of = map[string]*turn{}
	}
	e := t.of[endpoint]
	if e == nil {
		e = &turn{slots: make(chan struct{}, perEndpoint), progress: time.Now()}
		t.of[endpoint] = e
	}
	e.users++
	slow := e.pace() >= patience
	t.mu.Unlock()

	if !slow || len(e.slots) < cap(e.slots) {
		wait := time.NewTimer(patience)
		defer wait.Stop()
		select {
		case e.slots <- struct{}{}:
			begin := time.Now()
			return func() {
				<-e.slots
				t.mu.Lock()
				defer t.mu.Unlock()
				e.progress = time.Now()
				e.took = e.progress.Sub(begin)
				t.leave(endpoint, e)
			}, 0
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if e.next.Before(now) {
		e.next = now
	}
	e.next = e.next.Add(max(e.pace(), 100*time.Millisecond) / perEndpoint)
	if latest := now.Add(maxPutOff); e.next.After(latest) {
		e.next = latest
	}
	later = e.next.Sub(now)
	t.leave(endpoint, e)
	return nil, later
}

// pace is how long the endpoint seems to need for a delivery.
func (e *turn) pace() time.Duration {
	if len(e.slots) < cap(e.slots) {
		return e.took
	}
	return max(e.took, time.Since(e.progress))
}

// leave forgets an endpoint that nobody uses any more.
func (t *turns) leave(endpoint string, e *turn) {
	if e.users--; e.users == 0 && e.next.Before(time.Now()) {
		delete(t.of, endpoint)
	}
}
