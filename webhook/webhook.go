// Package webhook tells a credential's own server what became of its requests,
// above all that an approval was rejected and why, with the request exactly as
// it was sent; and other servers what happens in a workspace.
//
// What is to be told becomes a [Delivery] and a job in the transaction of the
// event, so it is never lost and nobody waits for the receiver:
//
//	Endpoints.Send,
//	Endpoints.Deliver ─▶ Delivery ready ─▶ Deliverer: POST ──▶ 2xx: done
//	 (event's tx)            ▲                         ├────▶ 410: dead, endpoint disabled
//	                         └──── again, see Retries ─┴────▶ dead after the last try
//
// Deliveries follow Standard Webhooks (https://www.standardwebhooks.com): the
// webhook-id is the delivery's and stays the same over retries and resends, the
// signature is an HMAC-SHA256 over id, time and body, and while a secret is
// rotated there are two signatures. A [Guard] keeps them away from addresses
// inside the network.
package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/jobs"
	"trustpager/problem"
)

// An EventType names what happened.
type EventType string

// The events. Every credential's endpoint gets ApprovalRejected; the others are
// asked for.
const (
	ApprovalRequested EventType = "approval.requested" // not for a credential's own
	ApprovalRejected  EventType = "approval.rejected"
	ApprovalApproved  EventType = "approval.approved"
	ApprovalExecuted  EventType = "approval.executed"
	ApprovalFailed    EventType = "approval.failed"
	ApprovalExpired   EventType = "approval.expired"
	ApprovalWithdrawn EventType = "approval.withdrawn" // not for a credential's own
	Test              EventType = "webhook.test"       // sent on request only
)

// ApprovalEvents are all events of approvals, in the order of an approval's life.
var ApprovalEvents = []EventType{ApprovalRequested, ApprovalApproved, ApprovalRejected, ApprovalExecuted, ApprovalFailed, ApprovalExpired, ApprovalWithdrawn}

// EventTypes are the events that a credential's endpoint may ask for.
var EventTypes = []EventType{ApprovalRejected, ApprovalApproved, ApprovalExecuted, ApprovalFailed, ApprovalExpired}

// An Event is what a delivery tells.
type Event struct {
	Type      EventType
	Time      time.Time
	Approval  Approval
	Reason    string // the decider's words
	DecidedBy *Actor // nil if nobody decided
	Request   Request
	Result    json.RawMessage // of an executed action, nil otherwise
	Error     *problem.Error  // of a failed action, nil otherwise
}

// An Approval is the approval that an event is about.
type Approval struct {
	ID        string    `json:"id"`
	Resource  string    `json:"resource"`
	Action    string    `json:"action"`
	Status    string    `json:"status"`
	Execution string    `json:"execution"`
	TargetID  string    `json:"target_id,omitempty"`
	By        Actor     `json:"requested_by"`
	URL       string    `json:"url,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
}

// An Actor is who asked or decided.
type Actor struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// A Request is the request that the approval came from.
type Request struct {
	Door           string
	Tool           string          // of MCP
	Method, Path   string          // of REST
	IdempotencyKey string          // the caller's own, "" if none
	Body           []byte          // byte for byte as it was sent, nil if there was none
	Parsed         json.RawMessage // the body with secret fields masked, nil if there was none
}

// Body returns the body of a delivery that tells e.
func Body(e Event) ([]byte, error) {
	type request struct {
		Door           string          `json:"door"`
		Tool           string          `json:"tool,omitempty"`
		Method         string          `json:"method,omitempty"`
		Path           string          `json:"path,omitempty"`
		IdempotencyKey string          `json:"idempotency_key,omitempty"`
		Base64         []byte          `json:"body_base64"` // encoding/json writes standard base64
		Parsed         json.RawMessage `json:"body"`
	}
	r := e.Request
	if r.Body == nil {
		r.Body = []byte{} // "" and not null
	}
	e.Approval.CreatedAt, e.Approval.DecidedAt = e.Approval.CreatedAt.UTC(), e.Approval.DecidedAt.UTC()
	return Envelope(e.Type, e.Time, struct {
		Approval  Approval        `json:"approval"`
		Reason    string          `json:"reason"`
		DecidedBy *Actor          `json:"decided_by"`
		Request   request         `json:"request"`
		Result    json.RawMessage `json:"result,omitempty"`
		Error     *problem.Error  `json:"error,omitempty"`
	}{e.Approval, e.Reason, e.DecidedBy,
		request{r.Door, r.Tool, r.Method, r.Path, r.IdempotencyKey, r.Body, r.Parsed}, e.Result, e.Error})
}

// Envelope returns the body of a delivery that tells the data.
func Envelope(t EventType, at time.Time, data any) ([]byte, error) {
	b, err := json.Marshal(struct {
		Type      EventType `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      any       `json:"data"`
	}{t, at.UTC(), data})
	if err != nil {
		return nil, fmt.Errorf("body of %s: %w", t, err)
	}
	return b, nil
}

// An Endpoint is where the events of a credential, or of a subscription, go. Each
// has one at most.
type Endpoint struct {
	ID             string      `json:"id"` // wh_…
	Workspace      string      `json:"-"`
	Owner          string      `json:"owner"` // the id of the credential or the subscription
	URL            string      `json:"url"`
	Events         []EventType `json:"events"` // sorted; ApprovalRejected is always among those of a credential
	Secret         string      `json:"-"`      // sealed
	OldSecret      string      `json:"-"`      // sealed; "" if there is none
	OldSecretUntil time.Time   `json:"old_secret_until,omitzero"`
	DisabledAt     time.Time   `json:"disabled_at,omitzero"`
	DisabledReason string      `json:"disabled_reason,omitempty"`
	RetiredAt      time.Time   `json:"-"` // the owner is gone: it gets no new events
	CreatedAt      time.Time   `json:"created_at"`
}

// Wants reports whether the endpoint is told events of the type: it has asked for
// it, or for all of its kind, as contacts.* does.
func (e Endpoint) Wants(t EventType) bool {
	kind, _ := t.Split()
	return t == Test || slices.Contains(e.Events, t) || slices.Contains(e.Events, kind+".*")
}

// Split returns what the event is about, a resource or approval, and what became
// of it.
func (t EventType) Split() (kind EventType, what string) {
	before, after, _ := strings.Cut(string(t), ".")
	return EventType(before), after
}

// A Delivery is one event on its way to one endpoint. Its state is that of the
// job that delivers it, except that it is never Leased.
type Delivery struct {
	ID           string     `json:"id"` // msg_…, the webhook-id
	Workspace    string     `json:"-"`
	Endpoint     string     `json:"endpoint"`
	Owner        string     `json:"owner"` // the endpoint's
	URL          string     `json:"url"`   // the endpoint's when it was last tried
	Event        EventType  `json:"event"`
	Approval     string     `json:"approval,omitempty"`
	Body         []byte     `json:"-"`      // left out of lists
	State        jobs.State `json:"status"` // Ready, Done or Dead
	Attempts     int        `json:"attempts"`
	LastStatus   int        `json:"last_status,omitempty"`   // HTTP status, 0 if there was no response
	LastResponse string     `json:"last_response,omitempty"` // the first 1 kB of its body
	LastError    string     `json:"last_error,omitempty"`
	NextAt       time.Time  `json:"next_at,omitzero"` // of the next try while Ready
	CreatedAt    time.Time  `json:"created_at"`
	DeliveredAt  time.Time  `json:"delivered_at,omitzero"`
}

// Done is the state of a delivery that its receiver has accepted.
const Done jobs.State = "done"

// An Attempt is what came of one try.
type Attempt struct {
	At       time.Time
	URL      string
	Status   int    // HTTP status, 0 if there was no response
	Response string // the first 1 kB of the body
	Error    string // "" if it was accepted
}

// A Query chooses deliveries of a workspace. Empty fields choose all.
type Query struct {
	Owner    string
	Endpoint string
	Approval string
	State    jobs.State
	Before   string // a delivery's id: only older ones
	Limit    int
}

// An Outbox is what a transaction needs to tell an event.
type Outbox interface {
	jobs.Enqueuer

	// EndpointOf returns the owner's endpoint. It fails with
	// [problem.NotFound] if there is none or if it is retired.
	EndpointOf(ctx context.Context, workspace, owner string) (Endpoint, error)

	// InsertDelivery stores a new delivery.
	InsertDelivery(ctx context.Context, d Delivery) error
}

// A Store keeps endpoints and deliveries. Each method is atomic, and joins the
// transaction if the Store is one. Those that name an endpoint or a delivery
// which the workspace does not have fail with [problem.NotFound].
type Store interface {
	jobs.Store
	Outbox

	// SetEndpoint stores the owner's endpoint, enabled. If the owner has one,
	// that keeps its ID and CreatedAt, and the secret that it had stays valid
	// until e.OldSecretUntil, unless the URL has changed or the time is zero.
	// It returns the endpoint as stored.
	SetEndpoint(ctx context.Context, e Endpoint) (Endpoint, error)

	// MoveEndpoint gives the owner's endpoint another URL and other events, and
	// enables it.
	MoveEndpoint(ctx context.Context, workspace, owner, url string, events []EventType) error

	// RotateEndpoint gives the owner's endpoint a new sealed secret. The one
	// that it had stays valid until the given time.
	RotateEndpoint(ctx context.Context, workspace, owner, sealed string, oldUntil time.Time) (Endpoint, error)

	Endpoint(ctx context.Context, workspace, id string) (Endpoint, error)

	// DisableEndpoint stops deliveries to the endpoint; those that wait become
	// dead when they are due, and can be resent once it is enabled.
	DisableEndpoint(ctx context.Context, workspace, id, reason string, at time.Time) error

	// EnableEndpoint undoes DisableEndpoint.
	EnableEndpoint(ctx context.Context, workspace, id string) error

	// RetireEndpoint gives the owner's endpoint no new events, because the
	// owner is gone; what waits is still delivered. No endpoint is no error.
	RetireEndpoint(ctx context.Context, workspace, owner string, at time.Time) error

	// RemoveEndpoint deletes the owner's endpoint. What waits becomes dead.
	RemoveEndpoint(ctx context.Context, workspace, owner string) error

	Delivery(ctx context.Context, workspace, id string) (Delivery, error)

	// Deliveries returns deliveries without their bodies, newest first.
	Deliveries(ctx context.Context, workspace string, q Query) ([]Delivery, error)

	// LastDeliveries returns the newest delivery of each owner that has one,
	// without its body.
	LastDeliveries(ctx context.Context, workspace string, owners []string) ([]Delivery, error)

	// RecordAttempt stores what came of a try of a Ready delivery, which is
	// Done if a.Error is "". Deliveries in other states stay as they are.
	RecordAttempt(ctx context.Context, workspace, id string, a Attempt) error

	// PutOffDelivery stores when a Ready delivery is tried next.
	PutOffDelivery(ctx context.Context, workspace, id string, next time.Time) error

	// BuryDelivery makes a Ready delivery Dead. A reason "" leaves LastError.
	BuryDelivery(ctx context.Context, workspace, id, reason string) error

	// ReviveDelivery makes a Done or Dead delivery Ready again, due at the
	// given time. It fails with [problem.Conflict] if it is Ready already.
	ReviveDelivery(ctx context.Context, workspace, id string, at time.Time) (Delivery, error)

	// PurgeDeliveries deletes deliveries of all workspaces that were created
	// before the given time, with their bodies, and retired endpoints that
	// have none left. Ready ones stay. It returns how many deliveries it
	// deleted, at most 1000, so that no transaction is long.
	PurgeDeliveries(ctx context.Context, before time.Time) (int64, error)
}

// A Sealer keeps secrets safe at rest. A sealed text opens only with the same
// context.
type Sealer interface {
	Seal(plain []byte, context string) (string, error)
	Open(sealed, context string) ([]byte, error)
}

// Place is the context that the secrets of an owner's endpoint are sealed for.
func Place(workspace, owner string) string { return "webhook " + workspace + " " + owner }
