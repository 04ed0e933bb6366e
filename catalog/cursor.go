package catalog

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"trustpager/problem"
)

// maxCursor is how many bytes a cursor may have.
const maxCursor = 2000

// A cursor says where a list goes on: after the record of the id, whose sort
// value it carries. It belongs to one query.
type cursor struct {
	query string // see queryDigest
	value string
	id    string
}

// String returns the cursor as callers see it: text without meaning to them.
func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString(appendJSON(nil, []any{c.query, c.value, c.id}))
}

// parseCursor reads what [cursor.String] returns, and nothing else.
func parseCursor(s string) (cursor, bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(s) > maxCursor || !utf8.Valid(raw) {
		return cursor{}, false
	}
	var parts []string
	if json.Unmarshal(raw, &parts) != nil || len(parts) != 3 || strings.Contains(parts[1]+parts[2], "\x00") {
		return cursor{}, false
	}
	c := cursor{parts[0], parts[1], parts[2]}
	return c, c.String() == s
}

// queryDigest returns what a cursor of the call is bound to: the action, the
// filters and the order, but not the size of the page and the chosen fields.
func (a *Action) queryDigest(values map[string]any) string {
	v := maps.Clone(values)
	delete(v, "limit")
	delete(v, "cursor")
	delete(v, "fields")
	sum := sha256.Sum256(appendJSON([]byte(a.Name), v))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// cursorOf returns the cursor in the values, or the zero cursor if there is
// none. A cursor of another query is refused: it would silently skip records.
// If millis is set, the sort value must be a decimal number.
func (a *Action) cursorOf(values map[string]any, millis bool) (cursor, error) {
	s, ok := values["cursor"].(string)
	if !ok {
		return cursor{}, nil
	}
	c, ok := parseCursor(s)
	switch {
	case !ok, !idForm(c.id), millis && !decimal(c.value):
		e := problem.Errorf(problem.Validation, "%s: cursor: it is no cursor of this server", a.Name).
			WithFix("Send next_cursor of the page before as it is, or leave cursor out to start anew.")
		e.Fields = []problem.Field{{Path: "cursor", Expected: "next_cursor of the page before", Got: shorten(s)}}
		return cursor{}, e
	case c.query != a.queryDigest(values):
		e := problem.Errorf(problem.Validation, "%s: cursor: it belongs to a list with other filters or another sort", a.Name).
			WithFix("Repeat the filters, search and sort of the page before, or leave cursor out to start anew.")
		e.Fields = []problem.Field{{Path: "cursor", Expected: "next_cursor of the same list", Got: shorten(s)}}
		return cursor{}, e
	}
	return c, nil
}

func decimal(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil
}

func idForm(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
