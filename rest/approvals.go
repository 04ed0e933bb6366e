package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/problem"
)

// decide says how an approval is moved, for one id and for many.
type decide func(ctx context.Context, g access.Grant, id string) (approvals.Approval, error)

// The bodies of requests about approvals.
type (
	empty struct{}

	approveBody struct {
		Digest string          `json:"digest,omitempty"` // of what was looked at
		Edited json.RawMessage `json:"edited,omitempty"` // what to run instead of the input

		Stale         approvals.Stale `json:"stale,omitempty"`          // of a changed target: rebase or untouched
		TargetVersion int64           `json:"target_version,omitempty"` // of the card, with stale
	}

	assignBody struct {
		User string `json:"user"` // "" takes the assignment away
	}

	rejectBody struct {
		Reason string `json:"reason"`
	}

	extendBody struct {
		Until time.Time `json:"until"`
	}

	batchBody struct {
		Decision string                `json:"decision"`         // approve or reject
		Reason   string                `json:"reason,omitempty"` // of a rejection
		IDs      []string              `json:"ids,omitempty"`
		Items    []approvals.BatchItem `json:"items,omitempty"` // instead of ids: with the digests of what was looked at
	}

	batchResult struct {
		ID       string          `json:"id"`
		Approval *approvals.View `json:"approval,omitempty"`
		Error    *problem.Error  `json:"error,omitempty"`
	}
)

// What lists of approvals are filtered by.
var (
	statuses   = []string{string(approvals.Pending), string(approvals.Approved), string(approvals.Rejected), string(approvals.Expired), string(approvals.Withdrawn)}
	executions = []string{string(approvals.NotExecuted), string(approvals.Done), string(approvals.Failed), string(approvals.Dismissed)}
)

func (api *API) listApprovals(c *call) error {
	q := c.query()
	query := approvals.Query{
		Status:     approvals.Status(q.oneOf("status", statuses...)),
		Execution:  approvals.Execution(q.oneOf("execution", executions...)),
		Credential: q.text("requested_by"),
		Client:     q.text("client"),
		Assignee:   q.text("assignee"),
		Resource:   q.text("resource"),
		Before:     q.cursor("apr"),
		Limit:      q.limit(),
	}
	if err := q.err(); err != nil {
		return err
	}
	limit := query.Limit
	query.Limit++ // one more tells whether there are more
	list, err := api.Gate.List(c.r.Context(), c.g, query)
	if err != nil {
		return err
	}
	list, next := cut(list, limit, func(a approvals.Approval) string { return a.ID })
	views := make([]approvals.View, len(list))
	for i, a := range list {
		views[i] = api.Gate.View(a)
	}
	return page(c, views, limit, next)
}

// one answers with the approval that do returns. The body may be {}.
func (api *API) one(do decide) func(*call) error {
	return func(c *call) error {
		if err := c.empty(); err != nil {
			return err
		}
		return api.answer(c, do)
	}
}

func (api *API) answer(c *call, do decide) error {
	a, err := do(c.r.Context(), c.g, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return data(c, http.StatusOK, api.Gate.View(a))
}

func (api *API) approve(c *call) error {
	var in approveBody
	if err := c.decode(&in); err != nil {
		return err
	}
	return api.answer(c, func(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
		if string(in.Edited) == "null" {
			in.Edited = nil
		}
		return api.Gate.Approve(ctx, g, id, approvals.Seen{Digest: in.Digest, Edited: in.Edited, Stale: in.Stale, TargetVersion: in.TargetVersion})
	})
}

func (api *API) reject(c *call) error {
	var in rejectBody
	if err := c.decode(&in); err != nil {
		return err
	}
	return api.answer(c, func(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
		return api.Gate.Reject(ctx, g, id, in.Reason)
	})
}

func (api *API) extend(c *call) error {
	var in extendBody
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Until.IsZero() {
		return &problem.Error{Kind: problem.MissingFields, Message: "until is missing", Fix: `Send {"until": "2026-03-02T10:00:00Z"}, with a time 1 hour to 30 days from now.`,
			Fields: []problem.Field{{Path: "until", Expected: "1 hour to 30 days from now", Got: "nothing"}}}
	}
	return api.answer(c, func(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
		return api.Gate.Extend(ctx, g, id, in.Until)
	})
}

// batch decides many approvals, each for itself, and says what became of each.
func (api *API) batch(c *call) error {
	var in batchBody
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Decision != "approve" && in.Decision != "reject" {
		return &problem.Error{Kind: problem.Validation, Message: "the batch has no decision", Fix: `Send {"decision": "approve" or "reject", "ids": […]}.`,
			Fields: []problem.Field{{Path: "decision", Expected: "approve or reject", Got: in.Decision}}}
	}
	items := in.Items
	for _, id := range in.IDs {
		items = append(items, approvals.BatchItem{ID: id})
	}
	decided, err := api.Gate.Batch(c.r.Context(), c.g, items, in.Decision == "reject", in.Reason)
	if err != nil {
		return err
	}
	results := make([]batchResult, len(decided))
	for i, d := range decided {
		results[i].ID = d.ID
		if d.Err != nil {
			results[i].Error = problem.Report(c.r.Context(), d.Err)
			continue
		}
		v := api.Gate.View(d.Approval)
		results[i].Approval = &v
	}
	return data(c, http.StatusOK, results)
}

// card answers with what there is to know for deciding an approval.
func (api *API) card(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	card, err := api.Gate.Card(c.r.Context(), c.g, c.r.PathValue("id"))
	if err == nil {
		err = api.Gate.Foresee(c.r.Context(), c.g, &card)
	}
	if err != nil {
		return err
	}
	return data(c, http.StatusOK, card)
}

func (api *API) assign(c *call) error {
	var in assignBody
	if err := c.decode(&in); err != nil {
		return err
	}
	return api.answer(c, func(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
		return api.Gate.Assign(ctx, g, id, in.User)
	})
}
