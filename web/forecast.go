package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/oauth"
)

// A forecast says beside the ladders what the rungs that are chosen there would
// mean for the calls of the last days. It is counted here only: with JavaScript
// the form is posted to Path as one chooses, without it by a button, and both show
// what comes back. Nothing is saved by that.
type forecast struct {
	Path    string // where the form is posted to be counted
	Decides bool   // Path is where the form is decided too: the button says that it is not
	Says    string
	Than    string // how it differs from today, "" if it does not
	Rows    []forecastRow
	Change  bool // some rows differ from today
}

// A forecastRow is what becomes of one verb of one resource.
type forecastRow struct {
	What             string
	Run, Queue, Deny string
	Now              string // if it is otherwise today
}

// fragmentField is in the form if only the forecast is wanted, not its page.
const fragmentField = "fragment"

// forecastPart is the template of a forecast, which every page has.
const forecastPart = "forecast"

// levelWords are what becomes of calls, from the best on.
var levelWords = []struct {
	level access.Level
	would string
}{
	{access.Run, "run"},
	{access.Queue, "wait for a person"},
	{access.Deny, "be refused"},
}

// forecastOf words f; whose says whose calls those are.
func (p *Pages) forecastOf(f admin.Forecast, whose, path string) *forecast {
	v := &forecast{Path: path}
	calls := f.Then.Calls()
	if calls == 0 {
		v.Says = fmt.Sprintf("No calls yet that these rungs decide, in the last %d days.", admin.ForecastDays)
		return v
	}
	v.Says = fmt.Sprintf("With these rungs, of the %s %s in the last %d days %s.", counted(calls, "call"), whose, admin.ForecastDays, wouldBecome(f.Then, calls))
	v.Than = differs(f.Now, f.Then)
	for _, r := range f.Rows {
		row := forecastRow{What: "Search across resources", Run: number(r.Then[access.Run]), Queue: number(r.Then[access.Queue]), Deny: number(r.Then[access.Deny])}
		if res, ok := p.Catalog.Resource(r.Resource); ok {
			row.What = res.Label + ": " + r.Verb.String()
		}
		if r.Now != r.Then {
			row.Now, v.Change = splitWords(r.Now), true
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

// wouldBecome says what becomes of the calls.
func wouldBecome(s admin.Split, calls int64) string {
	var parts []string
	for _, w := range levelWords {
		switch s[w.level] {
		case 0:
		case calls:
			if calls == 1 {
				return "it would " + w.would
			}
			return "all would " + w.would
		default:
			parts = append(parts, number(s[w.level])+" would "+w.would)
		}
	}
	return enumerate(parts, "and")
}

// differs says how many more and fewer would become what, "" if it is as today.
func differs(now, then admin.Split) string {
	var parts []string
	for _, w := range slices.Backward(levelWords) {
		switch d := then[w.level] - now[w.level]; {
		case d > 0:
			parts = append(parts, number(d)+" more would "+w.would)
		case d < 0:
			parts = append(parts, number(-d)+" fewer would "+w.would)
		}
	}
	if parts == nil {
		return ""
	}
	return enumerate(parts, "and") + " than now."
}

// splitWords says in few words what becomes of calls.
func splitWords(s admin.Split) string {
	var parts []string
	for _, w := range []struct {
		level access.Level
		word  string
	}{{access.Run, "run"}, {access.Queue, "wait"}, {access.Deny, "refused"}} {
		if s[w.level] > 0 {
			parts = append(parts, number(s[w.level])+" "+w.word)
		}
	}
	return enumerate(parts, "and")
}

// number returns n with commas.
func number(n int64) string { return grouped(strconv.FormatInt(n, 10)) }

// counted is plural with commas.
func counted(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}

// previewed answers with the forecast alone if that is what was asked for, and
// otherwise with the whole page, which shows it.
func previewed(r *http.Request, f *forecast, page answer) answer {
	if r.PostForm.Has(fragmentField) {
		return answer{page: page.page, part: forecastPart, data: f}
	}
	return page
}

// keyForecast returns the forecast of a key's calls with full access or the
// scopes.
func (p *Pages) keyForecast(ctx context.Context, in room, id string, full bool, scopes []access.Scope) (*forecast, error) {
	f, err := p.Admin.KeyForecast(ctx, in.grant, id, full, scopes)
	return p.forecastOf(f, "of this key", apiPath+"/keys/"+id+"/preview"), err
}

// previewKey shows what the form would mean, and saves nothing.
func (p *Pages) previewKey(r *http.Request, in room) (answer, error) {
	k, hook, err := p.keyAt(r, in)
	if err != nil {
		return answer{}, err
	}
	form := p.newKeyForm(in, k, hook).sent(r, p, in, nil)
	if form.Forecast, err = p.keyForecast(r.Context(), in, k.ID, r.PostForm.Get("mode") == modeFull, p.keyBounds(in).scopes(r.PostForm)); err != nil {
		return answer{}, err
	}
	return previewed(r, form.Forecast, p.keyPage(in, k, hook, form).page(http.StatusOK)), nil
}

// clientForecast returns the forecast of all calls of a client under the ceiling.
func (p *Pages) clientForecast(ctx context.Context, in room, id string, ceiling []access.Scope) (*forecast, error) {
	f, err := p.Admin.ClientForecast(ctx, in.grant, id, ceiling)
	return p.forecastOf(f, "of its connections", clientPath(id)+"/preview"), err
}

// previewClient shows what the form would mean, and saves nothing.
func (p *Pages) previewClient(r *http.Request, in room) (answer, error) {
	c, hook, err := p.clientAt(r, in)
	if err != nil {
		return answer{}, err
	}
	page := p.clientPage(in, c.Client, c.Policy, hook)
	form := p.newClientForm(in, c.Client, c.Policy, hook).sent(p, in, r.PostForm, nil)
	if form.Forecast, err = p.clientForecast(r.Context(), in, c.Client.ID, p.keyBounds(in).scopes(r.PostForm)); err != nil {
		return answer{}, err
	}
	page.Form = &form
	return previewed(r, form.Forecast, page.page(http.StatusOK)), nil
}

// grantForecast returns the forecast of a connection's calls with the scopes.
// path is that of the page.
func (p *Pages) grantForecast(ctx context.Context, as access.Grant, id string, scopes []access.Scope, path string) (*forecast, error) {
	f, err := p.Desk.GrantForecast(ctx, as, id, scopes)
	return p.forecastOf(f, "of this connection", path+"/preview"), err
}

// consentForecast returns the forecast of what the person's app has called with
// the consent so far, nil at the first consent.
func (p *Pages) consentForecast(ctx context.Context, q request, o oauth.Offer, chosen []access.Scope) (*forecast, error) {
	if o.Grant == nil {
		return nil, nil
	}
	as, err := p.Desk.PersonGrant(*q.me, o.Workspace.ID)
	if err != nil {
		return nil, err
	}
	f, err := p.grantForecast(ctx, as, o.Grant.ID, o.Granted(chosen), "")
	if err != nil {
		return nil, err
	}
	f.Path, f.Decides = q.here(o.Workspace.ID), true
	return f, nil
}
