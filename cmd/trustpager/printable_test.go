package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"trustpager/problem"
)

// What agents and people wrote does not steer the operator's terminal, nor
// hide from the operator.
func TestTerminalShowsWhatIsHidden(t *testing.T) {
	const hostile = "a\x1b[31m\u009b31m\u202e\u200b\U000e0041\u2028\tz"
	const seen = "a<U+001B>[31m<U+009B>31m<U+202E><U+200B><U+E0041><U+2028><U+0009>z"
	for name, print := range map[string]func(*bytes.Buffer){
		"table": func(b *bytes.Buffer) {
			e := &env{stdout: b}
			if err := e.table("ID\tNAME", [][]string{{"1", hostile}}); err != nil {
				t.Fatal(err)
			}
		},
		"error":   func(b *bytes.Buffer) { tell(b, errors.New(hostile)) },
		"problem": func(b *bytes.Buffer) { tell(b, problem.Errorf(problem.Conflict, "%s", hostile)) },
		"fields": func(b *bytes.Buffer) {
			tell(b, &problem.Error{Kind: problem.Validation, Message: "m", Fix: hostile, Hint: hostile,
				Fields: []problem.Field{{Path: hostile, Expected: hostile, Got: hostile}}})
		},
	} {
		var b bytes.Buffer
		print(&b)
		if got := b.String(); !strings.Contains(got, seen) || strings.ContainsAny(got, "\x1b\u009b\u202e\u200b\U000e0041\u2028\t") {
			t.Errorf("%s: got %q, want it to hold %q and nothing hidden", name, got, seen)
		}
	}
}
