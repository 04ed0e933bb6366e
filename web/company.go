package web

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"trustpager/access"
	"trustpager/admin"
)

// companyPath is the page of the workspace itself.
const companyPath = "/settings/company"

// A companyPage is that page.
type companyPage struct {
	ID       string
	Plan     string
	Made     *moment
	Error    string
	Name     field
	TimeZone field
	Support  field
	Sends    field
	Zones    []string
}

func (p *Pages) companyPage(w access.Workspace, sends string) companyPage {
	return companyPage{
		ID: w.ID, Plan: map[access.Plan]string{access.Free: "Free", access.Pro: "Pro"}[w.Plan], Made: momentOf(w.CreatedAt, p.Now(), w.TimeZone), Zones: zones,
		Name: field{Name: "name", Label: "Name", Type: "text", Value: w.Name, Autocomplete: "organization", Required: true, Hint: "What people call the workspace."},
		TimeZone: field{Name: "time_zone", Label: "Time zone", Type: "text", Value: w.TimeZone, List: "zones", Required: true,
			Hint: "As in Europe/Berlin. Daily messages come at 08:00 there."},
		Support: field{Name: "support_url", Label: "Where to ask for higher limits", Type: "url", Value: w.Settings.SupportURL, Placeholder: "https://",
			Hint: "It stands in the answer to who is over the limit, and under Billing. Empty means none."},
		Sends: field{Name: "sends_per_day", Label: "Messages that each key or app may send a day", Type: "number", Value: sends, Required: true,
			Hint: fmt.Sprintf("0 to %d. With 0 none sends any; people are not held by it.", access.MaxSendsPerDay)},
	}
}

func (c companyPage) page(status int) answer {
	return answer{page: "company.html", title: "Company", status: status, data: c}
}

func (p *Pages) company(_ *http.Request, in room) (answer, error) {
	w := in.membership.Workspace
	return p.companyPage(w, strconv.FormatInt(w.Settings.SendCap(), 10)).page(http.StatusOK), nil
}

func (p *Pages) changeCompany(r *http.Request, in room) (answer, error) {
	form := r.PostForm
	text := func(name string) *string { v := strings.TrimSpace(form.Get(name)); return &v }
	change := admin.CompanyChange{Name: text("name"), TimeZone: text("time_zone"), SupportURL: text("support_url")}
	sends, wrong := strconv.ParseInt(*text("sends_per_day"), 10, 64)
	var err error
	if wrong != nil {
		err = wrongField("sends_per_day", fmt.Sprintf("0 to %d", access.MaxSendsPerDay), form.Get("sends_per_day"))
	} else {
		change.SendsPerDay = &sends
		_, err = p.Admin.ChangeCompany(r.Context(), in.grant, change)
	}
	if err != nil && !isFault(err) {
		return answer{}, err
	}
	if err != nil {
		w := in.membership.Workspace
		w.Name, w.Settings.SupportURL = *change.Name, *change.SupportURL
		page := p.companyPage(w, form.Get("sends_per_day"))
		page.TimeZone.Value = *change.TimeZone
		of, other := faults(err, "name", "time_zone", "support_url", "sends_per_day")
		page.Name.Error, page.TimeZone.Error, page.Support.Error, page.Sends.Error, page.Error = of["name"], of["time_zone"], of["support_url"], of["sends_per_day"], other
		if page.Error == "" {
			page.Error = "Nothing is saved yet: correct what is marked."
		}
		return page.page(http.StatusUnprocessableEntity), nil
	}
	p.tell(r.Context(), "Saved.")
	return redirect(companyPath), nil
}
