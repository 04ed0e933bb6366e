package admin

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/integrations"
)

// A CompanyChange is what somebody says of the workspace itself. A nil member
// is left as it is. The plan and the rules of approvals are not among them:
// those are [Desk.UpdateWorkspace]'s.
type CompanyChange struct {
	Name        *string
	TimeZone    *string // IANA name
	SupportURL  *string // "" for none
	SendsPerDay *int64  // of each credential; only people change it
}

// apply returns the workspace with the change.
func (in CompanyChange) apply(w access.Workspace) access.Workspace {
	if in.Name != nil {
		w.Name = strings.TrimSpace(*in.Name)
	}
	if in.TimeZone != nil {
		w.TimeZone = strings.TrimSpace(*in.TimeZone)
	}
	if in.SupportURL != nil {
		w.Settings.SupportURL = strings.TrimSpace(*in.SupportURL)
	}
	if in.SendsPerDay != nil {
		w.Settings.SendsPerDay = in.SendsPerDay
	}
	return w
}

// ChangeCompany changes the grant's workspace, and nothing of it that the change
// does not speak of. It fails with [problem.Validation], naming the fields name,
// time_zone, support_url and sends_per_day.
func (d *Desk) ChangeCompany(ctx context.Context, g access.Grant, in CompanyChange) (access.Workspace, error) {
	if err := requireAdmin(g); err != nil {
		return access.Workspace{}, err
	}
	var w access.Workspace
	err := d.InTx(ctx, func(tx Store) error {
		old, err := tx.LockWorkspace(ctx, g.Workspace.ID)
		if err != nil {
			return err
		}
		w = in.apply(old)
		if err := checkWorkspace(d.Catalog, w); err != nil {
			return err
		}
		if !sameRules(w.Settings, old.Settings) {
			if err := requirePerson(g, "changes the rules that bind credentials"); err != nil {
				return err
			}
		}
		return d.storeCompany(ctx, tx, g, w)
	})
	return w, err
}

func (d *Desk) storeCompany(ctx context.Context, tx Store, g access.Grant, w access.Workspace) error {
	if err := tx.UpdateWorkspace(ctx, w); err != nil {
		return err
	}
	return d.record(ctx, tx, g, audit.WorkspaceChanged, w.ID, w)
}

// company plans the actions of the resource company. What they can change binds
// no credential: the catalog refuses the plan and the rules by name, so they
// cannot wait for approval either, nor come in by an edit.
func (d *Desk) company(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	store := catalog.As[Store](s)
	read := store.Workspace
	if lock {
		read = store.LockWorkspace
	}
	w, err := read(ctx, c.Grant.Workspace.ID)
	if err != nil {
		return catalog.Plan{}, err
	}
	p := catalog.Plan{Target: catalog.Target{Title: w.Name}}
	if a.Name == "get_company" {
		p.Run = func(context.Context, catalog.Store) (catalog.Result, error) {
			return catalog.Result{Data: companyAnswer(w), Target: catalog.Target{ID: w.ID, Title: w.Name}}, nil
		}
		return p, nil
	}
	in := CompanyChange{Name: textIn(c.Input, "name"), TimeZone: textIn(c.Input, "time_zone"), SupportURL: textIn(c.Input, "support_url")}
	after := in.apply(w)
	if err := checkWorkspace(d.Catalog, after); err != nil {
		return p, err
	}
	p.Before, p.After = companyValues(w), companyValues(after)
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		err := d.storeCompany(ctx, catalog.As[Store](s), c.Grant, after)
		return catalog.Result{Data: companyAnswer(after), Target: catalog.Target{ID: w.ID, Title: after.Name}}, err
	}
	return p, nil
}

// textIn returns a text of the input, "" for one that is to be cleared, and nil
// if the input does not speak of it.
func textIn(in catalog.Input, name string) *string {
	v, ok := in.Values[name]
	if !ok {
		return nil
	}
	text, _ := v.(string)
	return &text
}

// companyValues are what a card shows of the workspace.
func companyValues(w access.Workspace) map[string]any {
	v := map[string]any{"name": w.Name, "time_zone": w.TimeZone}
	if w.Settings.SupportURL != "" {
		v["support_url"] = w.Settings.SupportURL
	}
	return v
}

// A companyView is the workspace as the API shows it.
type companyView struct {
	ID               string    `json:"id"`
	Name             string    `json:"name"`
	TimeZone         string    `json:"time_zone"`
	SupportURL       string    `json:"support_url"`
	Plan             string    `json:"plan"`
	ApprovalHours    int64     `json:"approval_hours"`
	PeopleOnly       bool      `json:"people_only"`
	FourEyes         bool      `json:"four_eyes"`
	AlwaysAsk        []string  `json:"always_ask"` // as resource:verb
	SendsPerDay      int64     `json:"sends_per_day"`
	SelfRegistration bool      `json:"self_registration"`
	ClientHosts      []string  `json:"client_hosts"`
	CreatedAt        time.Time `json:"created_at"`
}

func companyAnswer(w access.Workspace) json.RawMessage {
	s := w.Settings
	v := companyView{ID: w.ID, Name: w.Name, TimeZone: w.TimeZone, SupportURL: s.SupportURL, Plan: string(w.Plan), ApprovalHours: int64(s.ApprovalTTL / time.Hour),
		PeopleOnly: s.PeopleOnly, FourEyes: s.FourEyes, AlwaysAsk: []string{}, SendsPerDay: s.SendCap(), SelfRegistration: !s.NoSelfRegistration,
		ClientHosts: append([]string{}, s.ClientHosts...), CreatedAt: w.CreatedAt}
	for _, m := range s.AlwaysAsk {
		v.AlwaysAsk = append(v.AlwaysAsk, m.Resource+":"+m.Verb)
	}
	slices.Sort(v.AlwaysAsk)
	return encoded(v)
}

// encoded returns v, which can be encoded, as JSON.
func encoded(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a type that JSON does not take
	}
	return b
}

// Stock is what a workspace has.
type Stock struct {
	Members, Invitations int64
	Keys                 int64 // in force
	Connections          int64 // grants in force
	Records              int64
	OpenApprovals        int64
}

// A Consumption is what a credential uses of its limits.
type Consumption struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	CallsToday    int64  `json:"calls_today"`
	CallsPerDay   int64  `json:"calls_per_day"` // 0 means no limit
	OpenApprovals int64  `json:"open_approvals"`
	SendsToday    int64  `json:"sends_today"` // messages and calls, with those of the keys that stem from it
}

// A Cost is what a language model has cost this month.
type Cost struct {
	ID       string `json:"id"` // of the integration
	Name     string `json:"name"`
	Spent    int64  `json:"spent"` // minor units of the currency, rounded up
	Limit    int64  `json:"limit"` // 0 means none
	Currency string `json:"currency"`
}

// mostConsumers is how many credentials are told of.
const mostConsumers = 20

// A Bill is what a workspace pays for and uses.
type Bill struct {
	Plan                    access.Plan
	Days                    []access.DayCount // of the last 30 days, those with calls
	CallsToday, Calls, Fail int64             // today and in the 30 days, in UTC
	Stock                   Stock
	Credentials             []Consumption // that have called or sent today or have approvals open, the busiest first
	Models                  []Cost        // in this month, UTC
}

// BillDays is of how many days a bill tells the calls.
const BillDays = 30

// Bill returns what the grant's workspace uses.
func (d *Desk) Bill(ctx context.Context, g access.Grant) (Bill, error) {
	if err := requireAdmin(g); err != nil {
		return Bill{}, err
	}
	w, err := d.Store.Workspace(ctx, g.Workspace.ID)
	if err != nil {
		return Bill{}, err
	}
	return d.bill(ctx, d.Store, w)
}

func (d *Desk) bill(ctx context.Context, s Store, w access.Workspace) (b Bill, err error) {
	now := d.now()
	today := now.Truncate(24 * time.Hour)
	b.Plan = w.Plan
	if b.Days, err = s.WorkspaceUsage(ctx, w.ID, today.AddDate(0, 0, 1-BillDays)); err != nil {
		return b, err
	}
	for _, day := range b.Days {
		b.Calls, b.Fail = b.Calls+day.Calls, b.Fail+day.Errors
		if !day.Day.Before(today) {
			b.CallsToday += day.Calls
		}
	}
	if b.Stock, err = s.Stock(ctx, w.ID, now); err != nil {
		return b, err
	}
	if b.Credentials, err = s.Consumption(ctx, w.ID, today, now, mostConsumers); err != nil {
		return b, err
	}
	b.Models, err = costs(ctx, s, w.ID, now)
	return b, err
}

// costs returns what each language model has cost this month.
func costs(ctx context.Context, s Store, workspace string, now time.Time) ([]Cost, error) {
	spent, err := s.Tallies(ctx, workspace, integrations.CostTally, integrations.Month(now))
	if err != nil {
		return nil, err
	}
	accounts, err := s.Accounts(ctx, workspace, "")
	if err != nil {
		return nil, err
	}
	all := []Cost{}
	for _, a := range accounts {
		if a.Kind.Purpose() == integrations.ModelPurpose {
			all = append(all, Cost{a.ID, a.Name, (spent[a.ID] + integrations.CostParts - 1) / integrations.CostParts, a.Settings.MonthlyLimit, a.Settings.Currency})
		}
	}
	return all, nil
}

// billing plans the action of the resource billing.
func (d *Desk) billing(_ context.Context, _ catalog.Store, _ *catalog.Action, c catalog.Call, _ bool) (catalog.Plan, error) {
	w := c.Grant.Workspace
	return catalog.Plan{Target: catalog.Target{Title: w.Name}, Run: func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		store := catalog.As[Store](s)
		w, err := store.Workspace(ctx, w.ID)
		if err != nil {
			return catalog.Result{}, err
		}
		b, err := d.bill(ctx, store, w)
		return catalog.Result{Data: billAnswer(b, w)}, err
	}}, nil
}

func billAnswer(b Bill, w access.Workspace) json.RawMessage {
	return encoded(map[string]any{
		"plan": b.Plan, "calls_today": b.CallsToday, "calls_30_days": b.Calls, "failed_30_days": b.Fail,
		"members": b.Stock.Members, "invitations": b.Stock.Invitations, "keys": b.Stock.Keys, "connections": b.Stock.Connections,
		"records": b.Stock.Records, "open_approvals": b.Stock.OpenApprovals,
		"limits": map[string]any{"invitations": MaxInvitations, "open_approvals_of_a_credential": approvals.MaxOpen,
			"sends_per_day_of_a_credential": w.Settings.SendCap()},
		"credentials": b.Credentials, "models": b.Models,
	})
}
