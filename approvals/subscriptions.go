package approvals

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/webhook"
)

// A Subscription tells a server of what happens in the workspace: of changes of
// records, and of approvals. It acts for its creator, with what they may read at
// the moment of the event: what they may not read any more is not told, and a
// creator who is gone, revoked, expired or paused is told nothing.
type Subscription struct {
	ID          string // whs_…
	Workspace   string
	Version     int64 // 1 when made, one more with each change
	Description string
	Active      bool
	Creator     access.Principal // who has last set its URL or its events
	Taker       string           // the credential that may take the secret, which nobody was shown; "" if none
	CreatedAt   time.Time
	UpdatedAt   time.Time

	Endpoint webhook.Endpoint // whose owner it is: its URL, its events, its secret
}

// MaxSubscriptions is how many subscriptions a workspace has at most.
const MaxSubscriptions = 20

// Tell tells the subscriptions of the workspace what the transaction has done to
// records since it was last asked. by is who has done it, approval the approval
// that it comes from, "" if none. The Gate calls it for every action; who changes
// records past it, as jobs do, calls it at the end of the transaction.
//
// Where nobody has subscribed it costs nothing, elsewhere one query if records were
// changed.
func (gate *Gate) Tell(ctx context.Context, s catalog.Store, workspace string, by access.Principal, approval string) error {
	tx := catalog.As[Store](s)
	return gate.tellChanges(ctx, tx, workspace, by, approval, tx.TakeChanges(workspace))
}

func (gate *Gate) tellChanges(ctx context.Context, tx Store, workspace string, by access.Principal, approval string, changes []catalog.Change) error {
	if len(changes) == 0 {
		return nil
	}
	l, err := gate.listeners(ctx, tx, workspace)
	if err != nil {
		return err
	}
	for _, c := range changes {
		r, ok := gate.Catalog.Resource(c.Record.Resource)
		if !ok || !r.Tells() {
			continue
		}
		event := webhook.EventType(c.Event())
		var body []byte
		err := l.each(ctx, event, approval, func(g access.Grant) ([]byte, error) {
			if g.Decide(r.Name, access.Read) != access.Run {
				return nil, nil
			}
			if body == nil {
				var err error
				if body, err = changeBody(r, c, event, gate.now(), by, approval); err != nil {
					return nil, err
				}
			}
			return body, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// changeBody returns what is told of a change.
func changeBody(r *catalog.Resource, c catalog.Change, event webhook.EventType, now time.Time, by access.Principal, approval string) ([]byte, error) {
	var data struct {
		Resource string                     `json:"resource"`
		Record   json.RawMessage            `json:"record"` // as a read of it answers; a deleted one as it was
		Changed  []string                   `json:"changed,omitempty"`
		Before   map[string]json.RawMessage `json:"before,omitempty"`
		Actor    webhook.Actor              `json:"actor"`
		Approval string                     `json:"approval,omitempty"`
	}
	var err error
	data.Resource, data.Actor, data.Approval = r.Name, actor(by), approval
	if data.Record, err = r.Answer(c.Record); err != nil {
		return nil, err
	}
	if c.Op == catalog.OpUpdate {
		if data.Changed, data.Before, err = r.Differences(c); err != nil {
			return nil, err
		}
	}
	return webhook.Envelope(event, now, data)
}

// tellApproval tells the subscriptions of the workspace of an approval: those of
// creators that see it, and as much as they may read of it.
func (gate *Gate) tellApproval(ctx context.Context, tx Store, a Approval, event webhook.EventType, now time.Time) error {
	l, err := gate.listeners(ctx, tx, a.Workspace)
	if err != nil {
		return err
	}
	return l.each(ctx, event, a.ID, func(g access.Grant) ([]byte, error) {
		if !sees(g, a) {
			return nil, nil
		}
		return webhook.Envelope(event, now, map[string]any{"approval": gate.View(gate.readable(g, a))})
	})
}

// listeners are the subscriptions of a workspace, in one transaction.
type listeners struct {
	gate   *Gate
	tx     Store
	all    []Subscription
	grants map[string]access.Grant // of creators; the zero Grant of those who are told nothing
}

func (gate *Gate) listeners(ctx context.Context, tx Store, workspace string) (*listeners, error) {
	all, err := tx.Subscriptions(ctx, workspace)
	return &listeners{gate: gate, tx: tx, all: all, grants: map[string]access.Grant{}}, err
}

// each sends what body makes of the event to the subscriptions that want it; nil
// is nothing. body is given what the creator may do now.
func (l *listeners) each(ctx context.Context, event webhook.EventType, approval string, body func(access.Grant) ([]byte, error)) error {
	for _, s := range l.all {
		if !s.Active || !s.Endpoint.DisabledAt.IsZero() || !s.Endpoint.Wants(event) {
			continue
		}
		g, ok := l.grants[s.Creator.ID]
		if !ok {
			var why string
			var err error
			if g, why, err = l.gate.Today(ctx, l.tx, s.Workspace, s.Creator); err != nil {
				return fmt.Errorf("tell webhook %s: %w", s.ID, err)
			}
			if why != "" {
				g = access.Grant{}
			}
			l.grants[s.Creator.ID] = g
		}
		b, err := body(g)
		if err != nil {
			return fmt.Errorf("tell webhook %s of %s: %w", s.ID, event, err)
		}
		if b == nil {
			continue
		}
		if err := l.gate.Webhooks.Deliver(ctx, l.tx, s.Endpoint, event, approval, b); err != nil {
			return fmt.Errorf("tell webhook %s of %s: %w", s.ID, event, err)
		}
	}
	return nil
}

// Today returns what the principal may do in the workspace by now, or why it may
// do nothing there: it is gone, revoked, expired or paused, or the workspace's
// plan has no API.
func (gate *Gate) Today(ctx context.Context, s Store, workspace string, p access.Principal) (g access.Grant, why string, err error) {
	switch p.Kind {
	case access.KindKey, access.KindOAuth:
		g, err = gate.requester(ctx, s, Approval{Workspace: workspace, By: p})
	case access.KindPerson, access.KindOperator:
		var w access.Workspace
		if w, err = s.Workspace(ctx, workspace); err != nil {
			return g, "", err
		}
		if p.Kind == access.KindOperator {
			g = access.Grant{Principal: p, Workspace: w, Rights: access.FullRights, MayDecide: true}
			break
		}
		g, err = gate.personGrant(ctx, s, w, p.User)
	default:
		return g, "it is nobody's", nil
	}
	switch {
	case problem.Is(err, problem.NotFound):
		return access.Grant{}, p.Name + " is gone", nil
	case err != nil:
		return g, "", err
	case g.Workspace.Plan != access.Pro:
		return g, "the workspace's plan has no API", nil
	}
	if ended := ended(g, gate.now()); ended != "" {
		return g, p.Name + " " + ended, nil
	}
	person := p.Kind == access.KindPerson || p.Kind == access.KindOperator
	if _, paused := g.Paused(); paused && !person {
		return g, p.Name + " is paused", nil
	}
	return g, "", nil
}

// Untold returns the events of the subscription of which nothing is told, as its
// creator, who may do what g says, may not read what they are about.
func Untold(s Subscription, g access.Grant) []webhook.EventType {
	return slices.DeleteFunc(slices.Clone(s.Endpoint.Events), func(e webhook.EventType) bool {
		kind, _ := e.Split()
		return kind == ApprovalKind || g.Decide(string(kind), access.Read) == access.Run
	})
}

// ApprovalKind is what the names of events of approvals begin with.
const ApprovalKind = "approval"
