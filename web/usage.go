package web

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"trustpager/access"
)

// A spark is the calls of a week as a small chart: for each day a bar, of which
// the upper part is what failed.
type spark struct {
	Bars  []sparkBar
	Label string // the same in words
	None  bool   // there were no calls
}

type sparkBar struct{ X, Y, H, ErrY, ErrH int }

const (
	sparkDays   = 7
	sparkHeight = 20
	sparkStep   = 10 // pixels from bar to bar
)

// sparks returns the charts of the credentials, by one query.
func (p *Pages) sparks(r *http.Request, in room, credentials []string) (map[string]spark, error) {
	today := p.Now().UTC().Truncate(24 * time.Hour)
	first := today.AddDate(0, 0, 1-sparkDays)
	counts, err := p.Admin.DailyUsage(r.Context(), in.grant, credentials, first)
	if err != nil {
		return nil, err
	}
	days := map[string]*[sparkDays]access.DayCount{}
	for _, c := range counts {
		if days[c.Credential] == nil {
			days[c.Credential] = new([sparkDays]access.DayCount)
		}
		if i := int(c.Day.Sub(first) / (24 * time.Hour)); i >= 0 && i < sparkDays {
			days[c.Credential][i] = c
		}
	}
	sparks := map[string]spark{}
	for _, credential := range credentials {
		sparks[credential] = sparkOf(days[credential])
	}
	return sparks, nil
}

func sparkOf(days *[sparkDays]access.DayCount) spark {
	if days == nil {
		return spark{None: true, Label: "no calls in the last 7 days"}
	}
	most := slices.MaxFunc(days[:], func(a, b access.DayCount) int { return cmp.Compare(a.Calls, b.Calls) }).Calls
	var s spark
	var calls []string
	var failed int64
	for i, d := range days {
		b := sparkBar{X: i * sparkStep, H: height(d.Calls, most, sparkHeight), ErrH: height(d.Errors, most, sparkHeight)}
		b.Y = sparkHeight - b.H
		b.ErrY = b.Y
		s.Bars = append(s.Bars, b)
		calls = append(calls, fmt.Sprint(d.Calls))
		failed += d.Errors
	}
	s.Label = fmt.Sprintf("calls in the last 7 days: %s; %d of them failed or were refused", strings.Join(calls, ", "), failed)
	return s
}

// height returns how high the bar of n is if that of most is full; what is not
// nothing is seen.
func height(n, most int64, full int) int {
	if n == 0 || most == 0 {
		return 0
	}
	return max(2, int(n*int64(full)/most))
}

// A usagePage shows how a credential was used, as charts and as tables.
type usagePage struct {
	Name, Back, Here string
	Tabs             []tab // the periods
	Chart            chart
	Rows             []usageRow // by action
	Total, Failed    int64
}

// A usageRow is one action with its outcomes.
type usageRow struct {
	Action               string
	OK, Queued, Refused  int64
	Invalid, Limited, Ko int64
	Total                int64
}

// A chart is bars over time, with the same as a table.
type chart struct {
	Title  string
	Width  int
	Bars   []chartBar
	Most   int64
	Labels []chartLabel
}

type chartBar struct {
	X, Y, W, H, ErrH int
	Time             string
	Calls, Errors    int64
}

type chartLabel struct {
	X    int
	Text string
}

const (
	chartHeight = 120
	chartWidth  = 720
)

// usagePeriods are the charts that there are.
var usagePeriods = []struct {
	name, title string
	bars        int
	each        time.Duration
	form        string
	label       int // every how many bars one has a label
}{
	{"day", "By hour, the last 24 hours", 24, time.Hour, "15:04", 6},
	{"month", "By day, the last 30 days", 30, 24 * time.Hour, "2 Jan", 7},
}

func (p *Pages) keyUsage(r *http.Request, in room) (answer, error) {
	k, _, err := p.keyAt(r, in)
	if err != nil {
		return answer{}, err
	}
	base := apiPath + "/keys/" + k.ID
	period := usagePeriods[0]
	if r.URL.Query().Get("by") == usagePeriods[1].name {
		period = usagePeriods[1]
	}
	end := p.Now().UTC().Truncate(period.each).Add(period.each)
	first := end.Add(-time.Duration(period.bars) * period.each)
	counts, err := p.Admin.Usage(r.Context(), in.grant, k.ID, first)
	if err != nil {
		return answer{}, err
	}
	page := usagePage{Name: k.Name, Back: base, Chart: chart{Title: period.title, Width: chartWidth}}
	for _, each := range usagePeriods {
		page.Tabs = append(page.Tabs, tab{Path: base + "/usage?by=" + each.name, Title: each.title, Here: each.name == period.name})
	}
	bars := make([]chartBar, period.bars)
	rows := map[string]*usageRow{}
	for _, c := range counts {
		i := int(c.Hour.Sub(first) / period.each)
		if i < 0 || i >= len(bars) {
			continue
		}
		bars[i].Calls += c.N
		row := rows[c.Action]
		if row == nil {
			row = &usageRow{Action: c.Action}
			rows[c.Action] = row
		}
		row.Total += c.N
		page.Total += c.N
		switch c.Outcome {
		case access.OutcomeOK:
			row.OK += c.N
			continue
		case access.OutcomeQueued:
			row.Queued += c.N
			continue
		case access.OutcomeDenied:
			row.Refused += c.N
		case access.OutcomeInvalid:
			row.Invalid += c.N
		case access.OutcomeLimited:
			row.Limited += c.N
		default:
			row.Ko += c.N
		}
		bars[i].Errors += c.N
		page.Failed += c.N
	}
	page.Chart.draw(bars, first, period.each, period.form, period.label)
	for _, row := range rows {
		page.Rows = append(page.Rows, *row)
	}
	slices.SortFunc(page.Rows, func(a, b usageRow) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), strings.Compare(a.Action, b.Action))
	})
	return answer{page: "usage.html", title: "Usage of " + visibleText(k.Name), data: page}, nil
}

// draw places the bars.
func (c *chart) draw(bars []chartBar, first time.Time, each time.Duration, form string, label int) {
	for _, b := range bars {
		c.Most = max(c.Most, b.Calls)
	}
	step := chartWidth / len(bars)
	for i := range bars {
		b := &bars[i]
		b.X, b.W, b.H, b.ErrH = i*step, step-3, height(b.Calls, c.Most, chartHeight), height(b.Errors, c.Most, chartHeight)
		b.Y = chartHeight - b.H
		b.Time = first.Add(time.Duration(i) * each).Format(form)
		if i%label == 0 {
			c.Labels = append(c.Labels, chartLabel{b.X, b.Time})
		}
	}
	c.Bars = bars
}
