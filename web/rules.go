package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
)

// A rulesPage is the workspace's rules about approvals.
type rulesPage struct {
	Error  string
	Alone  string // why two people cannot decide, "" if they can
	Life   field
	People tick
	Eyes   tick
	Groups []markGroup
}

// A markGroup is the always-ask marks of one group of resources.
type markGroup struct {
	Name string
	Rows []markRow
}

// A markRow is the marks of one resource.
type markRow struct {
	Label string
	Marks []tick
}

// markField names the marks; their values are resource:verb.
const markField = "always_ask"

// lives are how long an approval may stay open, in hours.
var lives = []int{1, 4, 24, 72, 168, 336, 720}

func hoursTitle(h int) string {
	if h < 24 {
		return plural(h, "hour")
	}
	return plural(h/24, "day")
}

// verbTitles are what the marks are called.
var verbTitles = map[access.Verb]string{access.Write: "Write", access.Delete: "Delete", access.Send: "Send", access.Use: "Use"}

func (p *Pages) rulesPage(s access.Settings) rulesPage {
	page := rulesPage{
		Life: field{Name: "life", Label: "An approval stays open for", Hint: "Then it expires, which is no rejection. It holds for what is asked from now on."},
		People: tick{Name: "people_only", Value: "yes", Title: "Only people decide", Checked: s.PeopleOnly,
			Says: "Also keys with “may decide” cannot."},
		Eyes: tick{Name: "four_eyes", Value: "yes", Title: "Two people decide", Checked: s.FourEyes,
			Says: "An approval needs the yes of two, neither of them the one in whose name it was asked. One can reject. Keys do not decide, and nothing is lent."},
	}
	hours := int(s.ApprovalTTL.Hours())
	choices := lives
	if !slices.Contains(lives, hours) {
		choices = append([]int{hours}, lives...)
	}
	for _, h := range choices {
		page.Life.Options = append(page.Life.Options, option{strconv.Itoa(h), hoursTitle(h), h == hours})
	}
	w := access.Workspace{Settings: s}
	for _, r := range p.Catalog.Resources() {
		row := markRow{Label: r.Label}
		for _, v := range r.Ladder.Verbs() {
			if v != access.Read {
				row.Marks = append(row.Marks, tick{Name: markField, Value: r.Name + ":" + v.String(), Title: verbTitles[v], Checked: w.AlwaysAsks(r.Name, v)})
			}
		}
		addMark(&page.Groups, r, row)
	}
	return page
}

func addMark(groups *[]markGroup, r *catalog.Resource, row markRow) {
	i := slices.IndexFunc(*groups, func(g markGroup) bool { return g.Name == r.Group })
	if i < 0 {
		i = len(*groups)
		*groups = append(*groups, markGroup{Name: r.Group})
	}
	(*groups)[i].Rows = append((*groups)[i].Rows, row)
}

func (p *Pages) rules(r *http.Request, in room) (answer, error) {
	page := p.rulesPage(in.membership.Workspace.Settings)
	users, err := p.deciders(r.Context(), in)
	if err != nil {
		return answer{}, err
	}
	if len(users) < approvals.Needed {
		page.Alone = "Only one person can decide in this workspace. Before two are wanted, invite another owner or admin on the page Members."
	}
	return answer{page: "rules.html", title: "Approval rules", data: page}, nil
}

func (p *Pages) changeRules(r *http.Request, in room) (answer, error) {
	w := in.membership.Workspace
	form := r.PostForm
	hours, err := strconv.Atoi(form.Get("life"))
	if err != nil {
		return answer{}, wrongField("life", "one of the choices", form.Get("life"))
	}
	w.Settings.ApprovalTTL = time.Duration(hours) * time.Hour
	w.Settings.PeopleOnly = form.Get("people_only") == "yes"
	w.Settings.FourEyes = form.Get("four_eyes") == "yes"
	w.Settings.AlwaysAsk = nil
	for _, m := range form[markField] {
		resource, verb, _ := strings.Cut(m, ":")
		w.Settings.AlwaysAsk = append(w.Settings.AlwaysAsk, access.Mark{Resource: resource, Verb: verb})
	}
	if err := p.Admin.UpdateWorkspace(r.Context(), in.grant, w); err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		page := p.rulesPage(w.Settings)
		wrong, other := faults(err, "approval_ttl")
		page.Life.Error, page.Error = wrong["approval_ttl"], other
		if page.Error == "" {
			page.Error = "Nothing is saved yet: correct what is marked."
		}
		return answer{page: "rules.html", title: "Approval rules", status: http.StatusUnprocessableEntity, data: page}, nil
	}
	p.tell(r.Context(), fmt.Sprintf("Saved. %s marked as always asking; it holds from the next request on.", plural(len(w.Settings.AlwaysAsk), "verb")))
	return redirect("/settings/approvals"), nil
}
