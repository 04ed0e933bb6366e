package admin

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/catalog"
)

// ForecastDays is how far back a [Forecast] looks.
const ForecastDays = 30

// forecastGrants is how many grants of a client, those that were used last, a
// forecast is about: each has a month of hours to add up.
const forecastGrants = 200

// A Split is calls by how far they go: refused, queued, run.
type Split [access.Run + 1]int64

// Calls returns how many those are.
func (s Split) Calls() int64 { return s[access.Deny] + s[access.Queue] + s[access.Run] }

// A Forecast tells what would become of the calls of the last [ForecastDays] with
// other rights, and with those of today. Both are worked out from the rights, not
// from what came of the calls then: loans, and rights of that time, do not count.
type Forecast struct {
	Then, Now Split
	Rows      []ForecastRow // most calls first
}

// A ForecastRow is the part of a [Forecast] that is about one verb of one
// resource.
type ForecastRow struct {
	Resource  string // "" for the search across resources
	Verb      access.Verb
	Then, Now Split
}

// ForecastOf decides the calls as the Gate would, for the grants that they came
// from: as they are now, and as they would be then. What is no action of the
// catalog any more is left out, and so is asking for loans, of which a person
// decides in any case.
func ForecastOf(c *catalog.Catalog, past []access.PastCalls, now, then func(access.PastCalls) access.Grant) Forecast {
	var f Forecast
	for _, p := range past {
		a, ok := c.Find(p.Action)
		if !ok || a.Lends() {
			continue
		}
		i := slices.IndexFunc(f.Rows, func(r ForecastRow) bool { return r.Resource == a.Resource && r.Verb == a.Verb })
		if i < 0 {
			i = len(f.Rows)
			f.Rows = append(f.Rows, ForecastRow{Resource: a.Resource, Verb: a.Verb})
		}
		was, is := a.Level(now(p)), a.Level(then(p))
		f.Rows[i].Now[was] += p.N
		f.Rows[i].Then[is] += p.N
		f.Now[was] += p.N
		f.Then[is] += p.N
	}
	slices.SortFunc(f.Rows, func(a, b ForecastRow) int {
		return cmp.Or(cmp.Compare(b.Then.Calls(), a.Then.Calls()), strings.Compare(a.Resource, b.Resource), cmp.Compare(a.Verb, b.Verb))
	})
	return f
}

// forecastSince is the first hour that a forecast looks at.
func (d *Desk) forecastSince() time.Time {
	return d.Now().Add(-ForecastDays * 24 * time.Hour).Truncate(time.Hour)
}

// same is one grant for all calls.
func same(g access.Grant) func(access.PastCalls) access.Grant {
	return func(access.PastCalls) access.Grant { return g }
}

// KeyForecast returns what would become of the key's calls if it had full access,
// or the scopes. Only admins may ask.
func (d *Desk) KeyForecast(ctx context.Context, g access.Grant, id string, full bool, scopes []access.Scope) (Forecast, error) {
	k, err := d.Key(ctx, g, id)
	if err != nil {
		return Forecast{}, err
	}
	past, err := d.Store.PastCalls(ctx, g.Workspace.ID, k.ID, d.forecastSince())
	if err != nil {
		return Forecast{}, err
	}
	then := k
	then.FullAccess, then.Scopes = full, scopes
	return ForecastOf(d.Catalog, past, same(k.Grant(g.Workspace)), same(then.Grant(g.Workspace))), nil
}

// ClientForecast returns what would become of the calls of the client's grants
// that are in force, of the 200 that were used last, if its ceiling were the
// scopes. Only admins may ask.
func (d *Desk) ClientForecast(ctx context.Context, g access.Grant, id string, ceiling []access.Scope) (Forecast, error) {
	c, err := d.Client(ctx, g, id)
	if err != nil {
		return Forecast{}, err
	}
	past, err := d.Store.PastCallsOfClient(ctx, g.Workspace.ID, c.Client.ID, d.forecastSince(), forecastGrants)
	if err != nil {
		return Forecast{}, err
	}
	under := func(ceiling []access.Scope) func(access.PastCalls) access.Grant {
		return func(p access.PastCalls) access.Grant {
			of := access.Delegation{Client: c.Client.ID, Workspace: g.Workspace, Scopes: p.Scopes, Ceiling: ceiling}
			if !p.Itself {
				of.User = access.User{ID: "usr", Role: p.Role} // anybody in the role
			}
			return of.Grant(nil, d.Catalog.RoleRights)
		}
	}
	return ForecastOf(d.Catalog, past, under(c.Policy.Ceiling), under(ceiling)), nil
}

// GrantForecast returns what would become of the grant's calls if the scopes were
// granted. It fails as [Desk.Grant] does.
func (d *Desk) GrantForecast(ctx context.Context, g access.Grant, id string, scopes []access.Scope) (Forecast, error) {
	gr, err := d.Grant(ctx, g, id)
	if err != nil {
		return Forecast{}, err
	}
	now, err := d.Store.DelegationOf(ctx, gr.Workspace, gr.ID)
	if err != nil {
		return Forecast{}, err
	}
	past, err := d.Store.PastCalls(ctx, gr.Workspace, gr.ID, d.forecastSince())
	if err != nil {
		return Forecast{}, err
	}
	then := now
	then.Scopes = scopes
	return ForecastOf(d.Catalog, past, same(now.Grant(nil, d.Catalog.RoleRights)), same(then.Grant(nil, d.Catalog.RoleRights))), nil
}
