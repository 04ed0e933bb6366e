package messages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/problem"
)

// A way is how the records of one resource get outside.
type way struct {
	resource string
	// take makes one try, and returns what is to be stored of its success. An
	// error that is an [integrations.Failure] says what is known.
	take    func(ctx context.Context, workspace string, values map[string]any, p carry) (changes map[string]any, err error)
	retry   jobs.Schedule
	timeout time.Duration
}

// Jobs returns the kinds of jobs by which messages go out and come in.
func (cr *Carrier) Jobs() map[string]jobs.Kind {
	kinds := map[string]jobs.Kind{
		readKind:  {Handle: cr.read, Retry: jobs.Tries(1, time.Minute, time.Minute), Timeout: 5 * time.Minute, Outgoing: true},
		watchKind: {Handle: cr.watch, Workers: 1},
	}
	for _, w := range []way{
		{emailResource, cr.takeEmail, mailRetries, 75 * time.Second},
		{smsResource, cr.takeSMS, phoneRetries, 75 * time.Second},
		{callsResource, cr.takeCall, jobs.Delays(20*time.Second, time.Minute), 75 * time.Second},
		{aiResource, cr.takeAI, jobs.Delays(2*time.Second, 10*time.Second, 30*time.Second), 3 * time.Minute},
	} {
		kinds[jobKind(w.resource)] = jobs.Kind{
			Handle:   func(ctx context.Context, j jobs.Job) error { return cr.carry(ctx, j, w) },
			End:      func(ctx context.Context, e jobs.Ending) error { return cr.end(ctx, e, w.resource) },
			Retry:    w.retry,
			Timeout:  w.timeout,
			Workers:  8,
			Outgoing: true,
		}
	}
	return kinds
}

// Outgoing says what the jobs of these kinds take outside; see [approvals.Gate].
func (cr *Carrier) Outgoing() map[string]func(ctx context.Context, tx approvals.Store, j jobs.Job) (approvals.Sending, error) {
	kinds := map[string]func(ctx context.Context, tx approvals.Store, j jobs.Job) (approvals.Sending, error){}
	for _, resource := range []string{emailResource, smsResource, callsResource, aiResource} {
		kinds[jobKind(resource)] = func(ctx context.Context, tx approvals.Store, j jobs.Job) (approvals.Sending, error) {
			s := approvals.Sending{Kind: cr.resource(resource).Singular}
			rec, err := tx.Record(ctx, j.Workspace, resource, j.Key, false)
			if err != nil {
				return s, err
			}
			values, err := rec.Values()
			if err != nil || resource == aiResource {
				return s, err
			}
			s.Subject = str(values["subject"])
			s.Outbox = resource == emailResource && str(values["account_id"]) == "" && !cr.Mail.Sends()
			if to := str(values["to"]); to != "" {
				s.To = []string{to}
				return s, nil
			}
			s.To = slices.Concat(texts(values["to"]), texts(values["cc"]), texts(values["bcc"]))
			return s, nil
		}
	}
	return kinds
}

// The delays between the tries of e-mail, over a day, and of text messages, over
// an hour: who waits for a code or a notice has no use for it later.
var (
	mailRetries = jobs.Delays(30*time.Second, 2*time.Minute, 10*time.Minute, 30*time.Minute,
		time.Hour, 2*time.Hour, 4*time.Hour, 8*time.Hour, 8*time.Hour)
	phoneRetries = jobs.Delays(10*time.Second, time.Minute, 5*time.Minute, 15*time.Minute, 40*time.Minute)
)

// refused is a failure that this side knows to be for good.
func refused(format string, args ...any) error {
	return &integrations.Failure{Outcome: integrations.Refused, Err: fmt.Errorf(format, args...)}
}

// carry makes one try to take a record out.
func (cr *Carrier) carry(ctx context.Context, j jobs.Job, w way) error {
	var p carry
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return jobs.Permanent(fmt.Errorf("payload: %w", err))
	}
	rec, err := cr.Store.Record(ctx, j.Workspace, w.resource, p.ID, false)
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	values, err := rec.Values()
	if err != nil {
		return jobs.Permanent(err)
	}
	if values["status"] != catalog.Queued {
		return nil // it went out, and only the job did not learn of it
	}
	if err := cr.held(ctx, j.Workspace, p.Origin); err != nil {
		return err
	}
	changes, err := w.take(ctx, j.Workspace, values, p)
	if err != nil {
		switch f, _ := errors.AsType[*integrations.Failure](err); {
		case f == nil:
			return err
		case f.Outcome != integrations.Temporary:
			return jobs.Permanent(err)
		case f.RetryAfter > 0:
			return jobs.RetryAt(cr.now().Add(f.RetryAfter), err)
		}
		return err
	}
	// What has gone out is worth storing even while the server stops.
	return cr.store(context.WithoutCancel(ctx), j.Workspace, w.resource, p, func(map[string]any) (map[string]any, *problem.Error) {
		changes["error"] = nil
		return changes, nil
	})
}

// errPaused says that a message waits because who has sent it is paused.
var errPaused = errors.New("its sender is paused")

// held puts a message off while who has sent it is paused. What was sent without
// anybody's approval does not go out any more once the credential is revoked.
func (cr *Carrier) held(ctx context.Context, workspace string, o approvals.Origin) error {
	if o.By.Kind != access.KindKey && o.By.Kind != access.KindOAuth {
		return nil
	}
	g, err := cr.Gate.Requester(ctx, cr.Store, workspace, o.By)
	gone := problem.Is(err, problem.NotFound)
	if err != nil && !gone {
		return err
	}
	if _, paused := g.Paused(); paused && !gone {
		return jobs.Snooze(cr.now().Add(time.Minute), errPaused)
	}
	if o.Approval == "" && (gone || g.Key != nil && !g.Key.RevokedAt.IsZero()) {
		return jobs.Permanent(refused("the credential that has sent it was revoked before it went out"))
	}
	return nil
}

// store changes the record, if it is still queued, and tells the gate what
// became of it.
func (cr *Carrier) store(ctx context.Context, workspace, resource string, p carry, change func(values map[string]any) (changes map[string]any, failure *problem.Error)) error {
	return cr.InTx(ctx, func(tx Store) error { return cr.storeIn(ctx, tx, workspace, resource, p, change) })
}

func (cr *Carrier) storeIn(ctx context.Context, tx Store, workspace, resource string, p carry, change func(values map[string]any) (changes map[string]any, failure *problem.Error)) error {
	r := cr.resource(resource)
	rec, err := tx.Record(ctx, workspace, resource, p.ID, true)
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	values, err := rec.Values()
	if err != nil {
		return err
	}
	if values["status"] != catalog.Queued {
		return nil
	}
	changes, failure := change(values)
	return cr.tell(ctx, tx, workspace, r, rec, p.Origin, changes, failure)
}

// tell changes the record and lets everybody know.
func (cr *Carrier) tell(ctx context.Context, tx Store, workspace string, r *catalog.Resource, rec catalog.Record, o approvals.Origin, changes map[string]any, failure *problem.Error) error {
	rec, err := r.Change(ctx, tx, workspace, rec, changes, cr.now())
	if err != nil {
		return err
	}
	data, err := r.Answer(rec)
	if err != nil {
		return err
	}
	tx.Notify(catalog.Topic(rec.ID))
	shown, err := cr.Gate.StoreEffect(ctx, tx, workspace, approvals.Effect{Origin: o, ID: rec.ID, Title: r.TitleOf(rec.Body), Result: data,
		Settled: !catalog.Unsettled(data), Failure: failure})
	if err != nil {
		return err
	}
	if shown != "" && o.Approval == "" {
		// It came back: what is heard of it later is about that approval.
		if _, err := r.Change(ctx, tx, workspace, rec, map[string]any{"approval_id": shown}, cr.now()); err != nil {
			return err
		}
	}
	return cr.Gate.Tell(ctx, tx, workspace, access.System, o.Approval)
}

// end makes the record follow its job: what is tried again shows why, and what
// has failed for good comes back to a person.
func (cr *Carrier) end(ctx context.Context, e jobs.Ending, resource string) error {
	var p carry
	if err := json.Unmarshal(e.Job.Payload, &p); err != nil {
		return e.Apply(ctx, cr.Store)
	}
	return cr.InTx(ctx, func(tx Store) error {
		if e.Err != nil && !e.Stopped() && !errors.Is(e.Err, errPaused) {
			err := cr.storeIn(ctx, tx, e.Job.Workspace, resource, p, func(values map[string]any) (map[string]any, *problem.Error) {
				changes := map[string]any{"tries": number(integer(values["tries"]) + 1), "error": clip(e.Err.Error(), 1000)}
				if e.State != jobs.Dead {
					return changes, nil
				}
				failure := failureOf(e.Err)
				changes["status"] = statusFailed
				if failure.Kind == problem.Unknown && resource != aiResource {
					changes["status"] = statusUnknown
				}
				return changes, failure
			})
			if err != nil {
				return err
			}
		}
		if e.State == jobs.Dead {
			e.State = "" // the record says it all; the job need not stay
		}
		return e.Apply(ctx, tx)
	})
}

// failureOf says, to the person to whom it comes back, what is known of what did
// not succeed. An error of our own after the last try says nothing about the
// outside.
func failureOf(err error) *problem.Error {
	f, ok := errors.AsType[*integrations.Failure](err)
	switch {
	case ok && f.Outcome == integrations.Refused:
		return problem.Errorf(problem.Outside, "it was refused: %s", clip(f.Error(), 600)).
			WithFix("A person tries it again as it is, or lets it be; with other values it is asked for anew.")
	case ok && f.Outcome == integrations.Temporary:
		return problem.Errorf(problem.Outside, "it could not be handed over, and is not tried any more: %s", clip(f.Error(), 600)).
			WithFix("A person sees under Integrations whether the account works, and tries it again or lets it be.")
	}
	return problem.Errorf(problem.Unknown, "nobody can know whether it went out: %s", clip(err.Error(), 600)).
		WithFix("A person looks outside whether it has arrived. If not, they try it again, under the same id; otherwise they let it be.")
}
