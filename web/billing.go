package web

import (
	"net/http"
	"time"

	"trustpager/access"
)

// A billingPage shows the plan, and what is used of it.
type billingPage struct {
	Plan, Workspace, ID string
	Free                bool
	Support             string
	Calls, Failed       int64
	Chart               chart
	Plans               []planRow
}

// A planRow is one plan.
type planRow struct {
	Name, Says string
	Here       bool
}

const billingDays = 30

func (p *Pages) billing(r *http.Request, in room) (answer, error) {
	w := in.membership.Workspace
	page := billingPage{Plan: string(w.Plan), Workspace: w.Name, ID: w.ID, Free: isFree(in), Support: w.Settings.SupportURL, Plans: []planRow{
		{"Free", "The pages, and nothing from outside: keys and apps are kept, their calls are refused.", w.Plan == access.Free},
		{"Pro", "API and MCP for keys and connected apps, approvals, webhooks.", w.Plan == access.Pro},
	}}
	end := p.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	first := end.AddDate(0, 0, -billingDays)
	days, err := p.Admin.WorkspaceUsage(r.Context(), in.grant, first)
	if err != nil {
		return answer{}, err
	}
	bars := make([]chartBar, billingDays)
	for _, d := range days {
		if i := int(d.Day.Sub(first) / (24 * time.Hour)); i >= 0 && i < len(bars) {
			bars[i].Calls, bars[i].Errors = d.Calls, d.Errors
			page.Calls, page.Failed = page.Calls+d.Calls, page.Failed+d.Errors
		}
	}
	page.Chart = chart{Title: "Calls by day, the last 30 days", Width: chartWidth}
	page.Chart.draw(bars, first, 24*time.Hour, "2 Jan", 7)
	return answer{page: "billing.html", title: "Billing", data: page}, nil
}
