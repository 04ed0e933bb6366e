package rest

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"trustpager/problem"
	"trustpager/typeid"
)

// The bounds of a page.
const (
	defaultLimit = 25
	maxLimit     = 100
)

// A query reads a query string. It remembers what is wrong, so that all of it
// is told at once.
type query struct {
	values url.Values
	known  []string
	fields []problem.Field
}

func (c *call) query() *query { return &query{values: c.values} }

func (q *query) bad(name, expected string) {
	q.fields = append(q.fields, problem.Field{Path: short(name), Expected: expected, Got: short(strings.Join(q.values[name], ", "))})
}

// maxFaults is how many unknown parameters are told at most.
const maxFaults = 50

// short returns what was sent as an error repeats it.
func short(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// text returns the parameter, "" if it is absent.
func (q *query) text(name string) string {
	q.known = append(q.known, name)
	if len(q.values[name]) > 1 {
		q.bad(name, "one value")
	}
	v := q.values.Get(name)
	if !storable(v) {
		q.bad(name, "valid UTF-8 without NUL")
		return ""
	}
	return v
}

// cursor returns the id that the page begins after, "" for the first page.
func (q *query) cursor(prefix string) string {
	v := q.text("cursor")
	if v != "" && !typeid.ValidID(prefix, v) {
		q.bad("cursor", "the next_cursor of an earlier answer")
	}
	return v
}

// oneOf returns the parameter, which must be one of the given words or absent.
func (q *query) oneOf(name string, words ...string) string {
	v := q.text(name)
	if v != "" && !slices.Contains(words, v) {
		q.bad(name, "one of "+strings.Join(words, ", "))
	}
	return v
}

// boolean returns the parameter, false if it is absent. An empty one is refused:
// it looks like yes.
func (q *query) boolean(name string) bool {
	v := q.text(name)
	if v != "true" && v != "false" && q.values.Has(name) {
		q.bad(name, "true or false")
	}
	return v == "true"
}

func (q *query) time(name string) time.Time {
	v := q.text(name)
	if v == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		q.bad(name, "a time as in 2026-03-02T10:00:00Z")
	}
	return t
}

func (q *query) limit() int {
	v := q.text("limit")
	if v == "" {
		return defaultLimit
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maxLimit {
		q.bad("limit", fmt.Sprintf("1 to %d", maxLimit))
	}
	return n
}

// err returns what was wrong, also parameters that nobody has asked for.
func (q *query) err() error {
	for name := range q.values {
		if len(q.fields) >= maxFaults {
			break // thousands need no complete list
		}
		if !slices.Contains(q.known, name) {
			q.bad(name, "no such parameter; "+q.all())
		}
	}
	if q.fields == nil {
		return nil
	}
	slices.SortFunc(q.fields, func(a, b problem.Field) int { return strings.Compare(a.Path, b.Path) })
	return &problem.Error{Kind: problem.Validation, Message: "the query string is not what is expected here", Fix: "Correct the parameters that are listed.", Fields: q.fields}
}

// all names the parameters that there are.
func (q *query) all() string {
	if len(q.known) == 0 {
		return "there are none here"
	}
	return "the parameters are " + strings.Join(q.known, ", ")
}
