// Package unseen finds characters in text that people do not see as what they
// are: those that have no shape, that change how their neighbours are seen, and
// letters that look like those of another script.
package unseen

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Hidden reports whether r is not seen, or changes how its neighbours are seen:
// everything but what has a shape of its own and the plain space.
func Hidden(r rune) bool {
	switch {
	case r == ' ':
		return false
	case r == utf8.RuneError, r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0, r == 0x034f, r == 0x17b4, r == 0x17b5, r == 0x2800, // fillers, joiner, blank pattern
		unicode.Is(unicode.Variation_Selector, r):
		return true
	}
	return !unicode.IsGraphic(r) || unicode.In(r, unicode.Cf, unicode.Zs)
}

// Name returns the code point of a character, as in U+202E.
func Name(r rune) string { return fmt.Sprintf("U+%04X", r) }

// A Part is text as it is, or the code point of a character that was marked.
type Part struct{ Text, Code string }

// Split cuts s before and after each character that is marked.
func Split(s string, marked func(rune) bool) []Part {
	var parts []Part
	start := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !marked(r) {
			i += n
			continue
		}
		if start < i {
			parts = append(parts, Part{Text: s[start:i]})
		}
		parts = append(parts, Part{Code: Name(r)})
		i += n
		start = i
	}
	if start < len(s) {
		parts = append(parts, Part{Text: s[start:]})
	}
	return parts
}

// Text returns s with its hidden characters as code points, for where no markup
// can stand.
func Text(s string) string {
	var b strings.Builder
	for _, part := range Split(s, Hidden) {
		b.WriteString(part.Text)
		if part.Code != "" {
			b.WriteString("<" + part.Code + ">")
		}
	}
	return b.String()
}

// Codes returns the code points of the characters in s that are hidden, once
// each, in their order. Line ends and tabs are none here: they are seen in text
// of several lines.
func Codes(s string) []string {
	var codes []string
	seen := map[rune]bool{'\n': true, '\r': true, '\t': true}
	for _, r := range s {
		if !seen[r] && Hidden(r) {
			seen[r] = true
			codes = append(codes, Name(r))
		}
	}
	return codes
}

// lookalikes are the scripts whose letters are taken for each other.
var lookalikes = []*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee}

// MixedWords returns the words of s whose letters are of more than one script
// that looks like Latin, as "pаypal" with a Cyrillic letter: at most most of
// them.
func MixedWords(s string, most int) []string {
	var words []string
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) }) {
		scripts := 0
		for _, script := range lookalikes {
			if strings.ContainsFunc(word, func(r rune) bool { return unicode.Is(script, r) }) {
				scripts++
			}
		}
		if scripts > 1 {
			if words = append(words, word); len(words) == most {
				break
			}
		}
	}
	return words
}
