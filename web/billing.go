package web

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
)

// A billingPage shows the plan, and what is used of it.
type billingPage struct {
	Plan, Workspace, ID string
	Free                bool
	Support             string
	Calls, Failed       int64
	Chart               chart
	Plans               []planRow
	Used                []usedRow
	Credentials         []consumerRow
	Sends               int64 // that each credential may send a day
}

// A usedRow is how much there is of something, and how much there may be.
type usedRow struct {
	What string
	N    int64
	Most string // "" if there is no limit
}

// A consumerRow is what a credential uses of its limits.
type consumerRow struct {
	Name, Path  string
	Calls, Most string
	Open        int64
	MostOpen    int
	Near        bool // one of the limits is nearly used up
}

// used fills what is used, of what the program limits.
func (page *billingPage) used(b admin.Bill, w access.Workspace) {
	s := b.Stock
	page.Sends = w.Settings.SendCap()
	page.Used = []usedRow{
		{"Members", s.Members, ""},
		{"Invitations that wait", s.Invitations, fmt.Sprint(admin.MaxInvitations)},
		{"API keys in force", s.Keys, ""},
		{"Connected apps", s.Connections, ""},
		{"Records", s.Records, ""},
		{"Approvals that wait", s.OpenApprovals, fmt.Sprintf("%d of each credential", approvals.MaxOpen)},
		{"Calls today", b.CallsToday, "by each credential’s own limits"},
	}
	for _, c := range b.Credentials {
		row := consumerRow{Name: c.Name, Path: apiPath + "/keys/" + c.ID, Calls: fmt.Sprint(c.CallsToday), Most: "no limit", Open: c.OpenApprovals, MostOpen: approvals.MaxOpen}
		if strings.HasPrefix(c.ID, "grt_") {
			row.Path = apiPath + "/grants/" + c.ID
		}
		if c.CallsPerDay > 0 {
			row.Most = fmt.Sprint(c.CallsPerDay)
		}
		row.Near = c.CallsPerDay > 0 && c.CallsToday*10 >= c.CallsPerDay*9 || c.OpenApprovals*10 >= approvals.MaxOpen*9
		page.Credentials = append(page.Credentials, row)
	}
}

// A planRow is one plan.
type planRow struct {
	Name, Says string
	Here       bool
}

func (p *Pages) billing(r *http.Request, in room) (answer, error) {
	w := in.membership.Workspace
	page := billingPage{Plan: string(w.Plan), Workspace: w.Name, ID: w.ID, Free: isFree(in), Support: w.Settings.SupportURL, Plans: []planRow{
		{"Free", "The pages, and nothing from outside: keys and apps are kept, their calls are refused.", w.Plan == access.Free},
		{"Pro", "API and MCP for keys and connected apps, approvals, webhooks.", w.Plan == access.Pro},
	}}
	bill, err := p.Admin.Bill(r.Context(), in.grant)
	if err != nil {
		return answer{}, err
	}
	end := p.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	first := end.AddDate(0, 0, -admin.BillDays)
	bars := make([]chartBar, admin.BillDays)
	for _, d := range bill.Days {
		if i := int(d.Day.Sub(first) / (24 * time.Hour)); i >= 0 && i < len(bars) {
			bars[i].Calls, bars[i].Errors = d.Calls, d.Errors
		}
	}
	page.Calls, page.Failed = bill.Calls, bill.Fail
	page.used(bill, w)
	page.Chart = chart{Title: "Calls by day, the last 30 days", Width: chartWidth}
	page.Chart.draw(bars, first, 24*time.Hour, "2 Jan", 7)
	return answer{page: "billing.html", title: "Billing", data: page}, nil
}
