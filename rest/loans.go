package rest

import (
	"context"
	"net/http"
	"time"

	"trustpager/access"
	"trustpager/approvals"
)

// The bodies and answers of requests about loans and pauses.
type (
	lendBody struct {
		Minutes int64 `json:"minutes"` // 15, 60 or 480
	}

	pauseBody struct {
		Credential string `json:"credential,omitempty"` // a key, a grant or a client; all without it
	}

	paused struct {
		Credential string `json:"credential,omitempty"`
		Paused     bool   `json:"paused"`
	}
)

func (api *API) lend(c *call) error {
	var in lendBody
	if err := c.decode(&in); err != nil {
		return err
	}
	l, err := api.Gate.Lend(c.r.Context(), c.g, c.r.PathValue("id"), time.Duration(in.Minutes)*time.Minute)
	if err != nil {
		return err
	}
	return data(c, http.StatusCreated, l)
}

func (api *API) listLoans(c *call) error {
	q := c.query()
	query := approvals.LoanQuery{Credential: q.text("credential"), Before: q.cursor("loan"), Limit: q.limit()}
	if q.oneOf("status", "active") != "" {
		query.InForceAt = api.Now()
	}
	if err := q.err(); err != nil {
		return err
	}
	limit := query.Limit
	query.Limit++
	list, err := api.Gate.Loans(c.r.Context(), c.g, query)
	if err != nil {
		return err
	}
	list, next := cut(list, limit, func(l approvals.Loan) string { return l.ID })
	return page(c, orEmpty(list), limit, next)
}

func (api *API) endLoan(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	l, err := api.Gate.EndLoan(c.r.Context(), c.g, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return data(c, http.StatusOK, l)
}

func (api *API) pause(c *call) error  { return c.paused(api.Desk.Pause, true) }
func (api *API) resume(c *call) error { return c.paused(api.Desk.Resume, false) }

func (c *call) paused(do func(context.Context, access.Grant, string) error, to bool) error {
	var in pauseBody
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := do(c.r.Context(), c.g, in.Credential); err != nil {
		return err
	}
	return data(c, http.StatusOK, paused{in.Credential, to})
}
