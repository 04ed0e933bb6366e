package approvals

import (
	"context"
	"encoding/json"
	"time"

	"trustpager/access"
	"trustpager/problem"
	"trustpager/webhook"
)

// A View is an approval as callers see it, with secret fields masked.
type View struct {
	ID        string    `json:"id"`
	URL       string    `json:"url"` // the page for people
	Status    Status    `json:"status"`
	Execution Execution `json:"execution"`
	Executed  bool      `json:"executed"` // Execution is done, also outside
	Message   string    `json:"message"`  // what the status means for the agent
	ExpiresAt time.Time `json:"expires_at"`

	Action      string          `json:"action"`
	Resource    string          `json:"resource"`
	Verb        string          `json:"verb"`
	TargetID    string          `json:"target_id,omitempty"`
	Title       string          `json:"title,omitempty"` // what people call the target
	Input       json.RawMessage `json:"input"`
	Edited      json.RawMessage `json:"edited_input,omitempty"` // what ran instead of the input
	Reason      string          `json:"reason,omitempty"`       // the agent's own words, unverified
	Digest      string          `json:"digest"`
	Asked       int64           `json:"asked"` // how often the same was asked
	RequestedBy Who             `json:"requested_by"`
	Decider     access.Decider  `json:"decider"` // who may decide: admin, or also the owner of the request
	Assignee    string          `json:"assignee,omitempty"`
	ApprovedBy  []Who           `json:"approved_by,omitempty"` // while more have to
	Request     ViewRequest     `json:"request"`

	DecidedBy      *Who            `json:"decided_by,omitempty"`
	DecisionReason string          `json:"decision_reason,omitempty"`
	Result         json.RawMessage `json:"result,omitempty"`
	Error          *problem.Error  `json:"error,omitempty"`
	Outside        string          `json:"outside,omitempty"` // the status of what it has set going outside: queued, sent, failed …

	CreatedAt  time.Time `json:"created_at"`
	DecidedAt  time.Time `json:"decided_at,omitzero"`
	ExecutedAt time.Time `json:"executed_at,omitzero"`
}

// Who is a principal as callers see it.
type Who struct {
	Kind access.Kind `json:"kind"`
	ID   string      `json:"id"`
	Name string      `json:"name"`
	User string      `json:"user,omitempty"`

	Client string `json:"client,omitempty"` // the id of the OAuth client
}

// ViewRequest is how the request arrived.
type ViewRequest struct {
	Door   string `json:"door"`
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	Tool   string `json:"tool,omitempty"`
}

// View returns the approval as callers see it.
func (gate *Gate) View(a Approval) View {
	ans := gate.Answer(a)
	v := View{
		ID: a.ID, URL: gate.URL(a), Status: a.Status, Execution: a.Execution, Executed: ans.Executed, Message: ans.Message, ExpiresAt: a.ExpiresAt,
		Action: a.Action, Resource: a.Resource, Verb: a.Verb.String(), TargetID: a.TargetID, Title: a.Title,
		Input: gate.mask(a, a.Input), Edited: gate.mask(a, a.Edited), Reason: a.Reason, Digest: a.Digest, Asked: a.Asked,
		RequestedBy: who(a.By), Decider: a.Decider, Assignee: a.Assignee, Request: ViewRequest{a.Request.Door, a.Request.Method, a.Request.Path, a.Request.Tool},
		DecisionReason: a.DecisionReason, Result: a.Result, Error: a.Error, Outside: gate.Outside(a),
		CreatedAt: a.CreatedAt, DecidedAt: a.DecidedAt, ExecutedAt: a.ExecutedAt,
	}
	if a.Status != Pending {
		w := who(a.DecidedBy)
		v.DecidedBy = &w
		return v
	}
	for _, vote := range a.Votes {
		v.ApprovedBy = append(v.ApprovedBy, who(vote.By))
	}
	return v
}

func who(p access.Principal) Who { return Who{p.Kind, p.ID, p.Name, p.User, p.Client} }

// mask hides the secret fields of an action's input.
func (gate *Gate) mask(a Approval, input json.RawMessage) json.RawMessage {
	action, ok := gate.Catalog.Find(a.Action)
	if !ok || input == nil {
		return input
	}
	return action.Mask(input)
}

// emit tells the requester's webhook, and the subscriptions of the workspace.
func (gate *Gate) emit(ctx context.Context, tx Store, a Approval, event webhook.EventType, now time.Time) error {
	e := webhook.Event{
		Type: event, Time: now,
		Approval: webhook.Approval{ID: a.ID, Resource: a.Resource, Action: a.Action, Status: string(a.Status), Execution: string(a.Execution),
			TargetID: a.TargetID, By: actor(a.By), URL: gate.URL(a), CreatedAt: a.CreatedAt, DecidedAt: a.DecidedAt},
		Reason: a.DecisionReason,
		Request: webhook.Request{Door: a.Request.Door, Tool: a.Request.Tool, Method: a.Request.Method, Path: a.Request.Path,
			Body: a.Request.Body},
		Result: a.Result, Error: a.Error,
	}
	if json.Valid(a.Request.Body) { // a body of nothing but spaces is allowed, and is no JSON
		e.Request.Parsed = gate.mask(a, a.Request.Body)
	}
	if a.Status != Pending {
		by := actor(a.DecidedBy)
		e.DecidedBy = &by
	}
	owner := a.By.ID
	if a.By.Client != "" {
		owner = a.By.Client // a client has one webhook for all its users
	}
	if _, _, err := gate.Webhooks.Send(ctx, tx, a.Workspace, owner, e); err != nil {
		return err
	}
	return gate.tellApproval(ctx, tx, a, event, now)
}

func actor(p access.Principal) webhook.Actor {
	return webhook.Actor{Kind: string(p.Kind), ID: p.ID, Name: p.Name}
}
