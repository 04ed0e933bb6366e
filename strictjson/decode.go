package strictjson

import (
	"bytes"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	v1 "github.com/go-json-experiment/json/v1"

	"trustpager/problem"
)

// Decode checks b as [Check] does and stores it in the struct that v points
// to. Names match exactly, also in case. Members that the struct does not have
// are refused, with the names that it has; null leaves a member as it is, or
// makes a pointer nil. An empty b is an empty object. Errors name the member,
// what it may hold and how to mend it.
func Decode(b []byte, v any) error {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return nil
	}
	if err := Check(b); err != nil {
		return err
	}
	if k := jsontext.Value(b).Kind(); k != '{' {
		return problem.Errorf(problem.InvalidBody, "the body is %s, and an object is expected", kindName(k)).WithFix("Send an object: {…}.")
	}
	err := json.Unmarshal(b, v, json.RejectUnknownMembers(true), v1.MergeWithLegacySemantics(true))
	if err == nil {
		return nil
	}
	e := problem.Errorf(problem.Validation, "the body is not what is expected here").WithFix("Correct the fields that are listed.")
	wrong, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return e.WithHint("%s", cut(err.Error())) // a syntax that Check accepts and json does not
	}
	f := problem.Field{Path: path(wrong.JSONPointer)}
	if errors.Is(wrong.Err, json.ErrUnknownName) {
		names := members(wrong.GoType)
		f.Expected, f.Got = "no fields at all", "an unknown field"
		if names != nil {
			f.Expected = "one of " + strings.Join(names, ", ")
		}
		if near := nearest(wrong.JSONPointer.LastToken(), names); near != "" {
			e.Hint = "Did you mean " + near + "?"
		}
	} else {
		f.Expected, f.Got = typeName(wrong.GoType), kindName(wrong.JSONKind)
		if len(wrong.JSONValue) > 0 {
			f.Got = cut(string(wrong.JSONValue))
		}
	}
	e.Message += ": " + f.Path
	e.Fields = []problem.Field{f}
	return e
}

// maxText is how many bytes of what was sent an error repeats.
const maxText = 100

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// path returns p as errors name members: stages.0.name.
func path(p jsontext.Pointer) string {
	var parts []string
	for t := range p.Tokens() {
		parts = append(parts, t)
	}
	return cut(strings.Join(parts, "."))
}

// members returns the names of the struct's JSON members.
func members(t reflect.Type) []string {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, strconv.Quote(name))
		}
	}
	return names
}

// nearest returns the name that s was perhaps meant to be, or "".
func nearest(s string, names []string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "", `"`, "").Replace(s))
	}
	if s = plain(s); len(s) > maxText {
		return ""
	}
	best, least := "", 3 // at most two edits away
	for _, name := range names {
		if d := distance(s, plain(name)); d < min(least, len(name)/2) {
			best, least = name, d
		}
	}
	return best
}

// distance returns the number of single-byte edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// typeName says in words what a Go type holds.
func typeName(t reflect.Type) string {
	if t == nil {
		return "another value"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[time.Time]() {
		return "a time as in 2026-03-02T10:00:00Z"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "an integer"
}
