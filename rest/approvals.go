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
	}

	rejectBody struct {
		Reason string `json:"reason"`
	}

	extendBody struct {
		Until time.Time `json:"until"`
	}

	batchBody struct {
		Decision string   `json:"decision"`         // approve or reject
		Reason   string   `json:"reason,omitempty"` // of a rejection
		IDs      []string `json:"ids"`
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
		return api.Gate.Approve(ctx, g, id, approvals.Seen{Digest: in.Digest, Edited: in.Edited})
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

// maxBatch is how many approvals one request may decide.
const maxBatch = 100

// batch decides many approvals, each for itself, and says what became of each.
func (api *API) batch(c *call) error {
	var in batchBody
	if err := c.decode(&in); err != nil {
		return err
	}
	var do decide
	switch in.Decision {
	case "approve":
		do = func(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
			return api.Gate.Approve(ctx, g, id, approvals.Seen{})
		}
	case "reject":
		do = func(ctx context.Context, g access.Grant, id string) (approvals.Approval, error) {
			return api.Gate.Reject(ctx, g, id, in.Reason)
		}
	default:
		return &problem.Error{Kind: problem.Validation, Message: "the batch has no decision", Fix: `Send {"decision": "approve" or "reject", "ids": […]}.`,
			Fields: []problem.Field{{Path: "decision", Expected: "approve or reject", Got: in.Decision}}}
	}
	if n := len(in.IDs); n == 0 || n > maxBatch {
		return &problem.Error{Kind: problem.Validation, Message: "a batch decides 1 to 100 approvals", Fix: "Send their ids, at most 100 at a time.",
			Fields: []problem.Field{{Path: "ids", Expected: "1 to 100 ids", Got: itoa(n)}}}
	}
	results := make([]batchResult, len(in.IDs))
	for i, id := range in.IDs {
		results[i].ID = id
		a, err := do(c.r.Context(), c.g, id)
		if err != nil {
			results[i].Error = problem.Report(c.r.Context(), err)
			continue
		}
		v := api.Gate.View(a)
		results[i].Approval = &v
	}
	return data(c, http.StatusOK, results)
}
