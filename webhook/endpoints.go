package webhook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/typeid"
)

// Kind is the kind of the jobs that deliver.
const Kind = "webhook.deliver"

// DefaultOverlap is how long an old secret goes on signing after a rotation
// that says nothing else, and MaxOverlap the longest that it may.
const (
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 7 * 24 * time.Hour
)

// Endpoints sets up endpoints and sends events to them. Except for Check, its
// methods work in the caller's transaction and do nothing outside of it; the
// caller also writes the audit log. Everything else is done on the [Store].
type Endpoints struct {
	Guard  *Guard
	Sealer Sealer
	Now    func() time.Time
}

// A Target is a checked URL with the events that are to go there. Only
// [Endpoints.Check] makes one.
type Target struct {
	url    string
	events []EventType
}

// Check returns the URL and the further events as a Target. It fails with
// [problem.Validation] if they cannot be used. It resolves the URL's host, so
// it is called before the transaction.
func (s *Endpoints) Check(ctx context.Context, url string, events []EventType) (Target, error) {
	for _, e := range events {
		if !slices.Contains(EventTypes, e) {
			err := problem.Errorf(problem.Validation, "there is no event %.50q", string(e)).
				WithFix("Use some of: %s.", join(EventTypes))
			err.Fields = []problem.Field{{Path: "webhook_events", Expected: "one of " + join(EventTypes), Got: fmt.Sprintf("%.50q", string(e))}}
			return Target{}, err
		}
	}
	if err := badURL(s.Guard.CheckURL(ctx, url), "webhook_url", url); err != nil {
		return Target{}, err
	}
	all := append([]EventType{ApprovalRejected}, events...)
	slices.Sort(all)
	return Target{url, slices.Compact(all)}, nil
}

// badURL names the field that holds the URL in the error about it.
func badURL(err error, path, url string) error {
	if err == nil {
		return nil
	}
	e := problem.Of(err)
	e.Fields = []problem.Field{{Path: path, Expected: "the https URL of a public server", Got: fmt.Sprintf("%.100q", url)}}
	return e
}

// CheckURL fails with [problem.Validation], about the field url, if the URL cannot
// be used. It resolves the URL's host, so it is called before the transaction.
func (s *Endpoints) CheckURL(ctx context.Context, url string) error {
	return badURL(s.Guard.CheckURL(ctx, url), "url", url)
}

// CheckForm is CheckURL without asking the resolver.
func (s *Endpoints) CheckForm(url string) error { return badURL(s.Guard.CheckForm(url), "url", url) }

func join(events []EventType) string {
	var b strings.Builder
	for i, e := range events {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(e))
	}
	return b.String()
}

// Set makes to the owner's endpoint, in place of the one that it may have, and
// returns it with its new secret, which is shown now and never again. If only
// the secret is new, the old one goes on signing for [DefaultOverlap].
func (s *Endpoints) Set(ctx context.Context, tx Store, workspace, owner string, to Target) (Endpoint, Secret, error) {
	if to.url == "" {
		return Endpoint{}, nil, fmt.Errorf("set webhook endpoint: the target was not checked")
	}
	secret, sealed, err := s.newSecret(workspace, owner)
	if err != nil {
		return Endpoint{}, nil, err
	}
	now := s.Now()
	e, err := tx.SetEndpoint(ctx, Endpoint{ID: typeid.NewID("wh"), Workspace: workspace, Owner: owner,
		URL: to.url, Events: to.events, Secret: sealed, OldSecretUntil: now.Add(DefaultOverlap), CreatedAt: now})
	return e, secret, err
}

// Open makes an endpoint that gets the events and no others, for an owner that has
// none, and returns it with its secret. The URL has passed CheckForm at least.
func (s *Endpoints) Open(ctx context.Context, tx Store, workspace, owner, url string, events []EventType) (Endpoint, Secret, error) {
	return s.Set(ctx, tx, workspace, owner, Target{url, events})
}

// Secret returns the secret of the endpoint.
func (s *Endpoints) Secret(e Endpoint) (Secret, error) {
	secret, err := s.Sealer.Open(e.Secret, Place(e.Workspace, e.Owner))
	if err != nil {
		return nil, fmt.Errorf("secret of endpoint %s: %w", e.ID, err)
	}
	return secret, nil
}

// Rotate gives the owner's endpoint a new secret, which is shown now and never
// again. Both sign for the overlap, so that the receiver can change over;
// after a leak the overlap is 0.
func (s *Endpoints) Rotate(ctx context.Context, tx Store, workspace, owner string, overlap time.Duration) (Endpoint, Secret, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Endpoint{}, nil, problem.Errorf(problem.Validation, "the overlap of two secrets is between 0 and %d hours", int(MaxOverlap.Hours()))
	}
	secret, sealed, err := s.newSecret(workspace, owner)
	if err != nil {
		return Endpoint{}, nil, err
	}
	e, err := tx.RotateEndpoint(ctx, workspace, owner, sealed, s.Now().Add(overlap))
	return e, secret, err
}

func (s *Endpoints) newSecret(workspace, owner string) (Secret, string, error) {
	secret := NewSecret()
	sealed, err := s.Sealer.Seal(secret, Place(workspace, owner))
	if err != nil {
		return nil, "", fmt.Errorf("webhook secret: %w", err)
	}
	return secret, sealed, nil
}

// Send tells the event to the owner's endpoint. It reports false if the owner
// has none or the endpoint does not want the event. To a disabled endpoint the
// delivery is dead from the begin, so that it can be resent.
func (s *Endpoints) Send(ctx context.Context, tx Outbox, workspace, owner string, e Event) (Delivery, bool, error) {
	to, err := tx.EndpointOf(ctx, workspace, owner)
	if problem.Is(err, problem.NotFound) || err == nil && !to.Wants(e.Type) {
		return Delivery{}, false, nil
	}
	if err != nil {
		return Delivery{}, false, err
	}
	body, err := Body(e)
	if err != nil {
		return Delivery{}, false, err
	}
	d, err := s.insert(ctx, tx, to, Delivery{Event: e.Type, Approval: e.Approval.ID, Body: body})
	return d, err == nil, err
}

// Deliver sends the body of an event to an endpoint that wants it and is enabled.
// approval is the one that the event comes from, "" if none.
func (s *Endpoints) Deliver(ctx context.Context, tx Outbox, to Endpoint, event EventType, approval string, body []byte) error {
	_, err := s.insert(ctx, tx, to, Delivery{Event: event, Approval: approval, Body: body})
	return err
}

// SendTest sends the event webhook.test to the owner's endpoint. It fails with
// [problem.NotFound] if the owner has none, and with [problem.Conflict] if it
// is disabled.
func (s *Endpoints) SendTest(ctx context.Context, tx Outbox, workspace, owner string) (Delivery, error) {
	to, err := tx.EndpointOf(ctx, workspace, owner)
	if err != nil {
		return Delivery{}, err
	}
	if !to.DisabledAt.IsZero() {
		return Delivery{}, disabled(to)
	}
	body, err := Envelope(Test, s.Now(), map[string]string{"endpoint": to.ID, "owner": to.Owner, "message": "This is a test."})
	if err != nil {
		return Delivery{}, err
	}
	return s.insert(ctx, tx, to, Delivery{Event: Test, Body: body})
}

func (s *Endpoints) insert(ctx context.Context, tx Outbox, to Endpoint, d Delivery) (Delivery, error) {
	now := s.Now()
	d.ID, d.Workspace, d.Endpoint, d.Owner, d.URL = typeid.NewID("msg"), to.Workspace, to.ID, to.Owner, to.URL
	d.CreatedAt, d.State, d.NextAt = now, jobs.Ready, now
	if !to.DisabledAt.IsZero() {
		d.State, d.NextAt, d.LastError = jobs.Dead, time.Time{}, "the endpoint was disabled: "+to.DisabledReason
		return d, tx.InsertDelivery(ctx, d)
	}
	if err := tx.InsertDelivery(ctx, d); err != nil {
		return Delivery{}, err
	}
	return d, enqueue(ctx, tx, d, now)
}

// Resend delivers once more what was delivered or is dead, with the same
// webhook-id and body, and with all tries before it. It fails with
// [problem.Conflict] if the delivery is still on its way, or if the endpoint
// is disabled or removed.
func (s *Endpoints) Resend(ctx context.Context, tx Store, workspace, id string) (Delivery, error) {
	now := s.Now()
	d, err := tx.ReviveDelivery(ctx, workspace, id, now)
	if err != nil {
		return Delivery{}, err
	}
	to, err := tx.Endpoint(ctx, workspace, d.Endpoint)
	if problem.Is(err, problem.NotFound) {
		return Delivery{}, problem.Errorf(problem.Conflict, "the endpoint of this delivery was removed").
			WithFix("What it tells can be read over the API.")
	}
	if err != nil {
		return Delivery{}, err
	}
	if !to.DisabledAt.IsZero() {
		return Delivery{}, disabled(to)
	}
	return d, enqueue(ctx, tx, d, now)
}

func disabled(e Endpoint) error {
	return problem.Errorf(problem.Conflict, "the endpoint is disabled: %s", e.DisabledReason).
		WithFix("Set its URL again to enable it.")
}

// payload is that of the job.
type payload struct {
	Delivery string `json:"delivery"`
	Endpoint string `json:"endpoint"`
}

func enqueue(ctx context.Context, tx jobs.Enqueuer, d Delivery, now time.Time) error {
	j, err := jobs.New(now, d.Workspace, Kind, d.ID, payload{d.ID, d.Endpoint}, now)
	if err != nil {
		return err
	}
	return tx.EnqueueJob(ctx, j)
}
