package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/problem"
)

// The page about API keys, OAuth clients and approvals has a tab for each.

// A tab is one of several pages under one heading.
type tab struct {
	Path, Title string
	Here        bool
	Badge       int    // how many wait; 0 shows none
	Live        string // what the badge follows, "" if there is none
}

// apiTabs are the tabs that the person has.
func apiTabs(in room, here string, waiting int) []tab {
	tabs := []tab{{Path: keysPath, Title: "API keys", Here: here == keysPath}, {Path: clientsPath, Title: "OAuth clients", Here: here == clientsPath},
		{approvalsPath, "Approvals", here == approvalsPath, waiting, "waiting"}}
	if !in.grant.IsAdmin() {
		return tabs[2:]
	}
	return tabs
}

// api shows the tab that the query names.
func (p *Pages) api(r *http.Request, in room) (answer, error) {
	q := r.URL.Query()
	switch tab := q.Get("tab"); {
	case tab == "approvals", q.Has("approval"), !in.grant.IsAdmin():
		return p.approvals(r, in)
	case tab == "clients":
		return p.clients(r, in)
	default:
		return p.keys(r, in)
	}
}

// isFree reports whether the workspace's plan has no API access, so that its
// admins see what to do about that.
func isFree(in room) bool { return in.membership.Workspace.Plan == access.Free }

// faults sorts what is wrong with a form by its fields, of which the form has
// those that are named. What belongs to none of them is one message.
func faults(err error, names ...string) (of map[string]string, other string) {
	of = map[string]string{}
	if err == nil {
		return of, ""
	}
	e := problem.Of(err)
	var rest []string
	for _, f := range e.Fields {
		name := ""
		for _, n := range names {
			if f.Path == n || strings.HasPrefix(f.Path, n+".") {
				name = n
			}
		}
		text := "It has to be " + f.Expected + "."
		if f.Got == "nothing" || f.Got == `""` {
			text = "It is missing: " + f.Expected + "."
		}
		switch {
		case name == "":
			rest = append(rest, f.Path+": "+text)
		case of[name] == "":
			of[name] = text
		}
	}
	if len(e.Fields) == 0 || len(rest) > 0 {
		other = strings.Join(append([]string{sentence(e.Message), e.Fix}, rest...), " ")
	}
	return of, other
}

// isFault reports whether the person can mend what they have sent.
func isFault(err error) bool {
	switch problem.Of(err).Kind {
	case problem.Validation, problem.MissingFields, problem.InvalidBody:
		return true
	}
	return false
}

// Limits as a form has them.
const (
	perMinuteField = "limits.per_minute"
	perDayField    = "limits.per_day"
)

// limitFields returns the fields of limits, with the texts that the form held.
func limitFields(perMinute, perDay string, wrong map[string]string) []field {
	return []field{
		{Name: perMinuteField, Label: "Requests a minute", Type: "number", Value: perMinute, Hint: "0 means no limit.", Error: wrong[perMinuteField]},
		{Name: perDayField, Label: "Requests a day", Type: "number", Value: perDay, Hint: "Counted anew at 00:00 UTC. 0 means no limit.", Error: wrong[perDayField]},
	}
}

// limitsOf reads the fields of limits. What is no number becomes -1, which no
// limit can be. A form without them says nothing.
func limitsOf(form url.Values) *access.Limits {
	if !form.Has(perMinuteField) && !form.Has(perDayField) {
		return nil
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(form.Get(name)), 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	return &access.Limits{PerMinute: number(perMinuteField), PerDay: number(perDayField)}
}

func limitText(n int64) string { return strconv.FormatInt(n, 10) }

// scopeTexts returns the scopes as inputs have them.
func scopeTexts(scopes []access.Scope) *[]string {
	texts := make([]string, len(scopes))
	for i, s := range scopes {
		texts[i] = s.String()
	}
	return &texts
}

// A typedDelete asks for a name before it deletes what has it.
type typedDelete struct {
	Title, Name string
	Says        []string
	Action      string // where the form goes
	Back        string
	Field       field
}

// confirmDelete is the page of d. With wrong the name was not typed right.
func confirmDelete(d typedDelete, wrong bool) answer {
	d.Field = field{Name: "name", Label: "Type the name to confirm", Type: "text", Autocomplete: "off", Required: true}
	status := http.StatusOK
	if wrong {
		d.Field.Error, status = "That is not the name.", http.StatusUnprocessableEntity
	}
	return answer{page: "delete.html", title: d.Title, status: status, data: d}
}

// typed reports whether the form holds the name.
func typed(r *http.Request, name string) bool {
	return strings.TrimSpace(r.PostForm.Get("name")) == strings.TrimSpace(name)
}

// overlapOptions are how long the old secret works after a rotation.
var overlapOptions = []option{{"0", "Stop the old one now", false}, {"1", "1 hour", false}, {"24", "24 hours", true}, {"72", "3 days", false}, {"168", "7 days", false}}

// overlapOf reads how long an old secret is to work.
func overlapOf(r *http.Request) time.Duration {
	hours, err := strconv.Atoi(r.PostForm.Get("overlap"))
	if err != nil {
		return 0
	}
	return time.Duration(hours) * time.Hour
}
