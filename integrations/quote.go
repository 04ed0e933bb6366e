package integrations

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"trustpager/unseen"
)

// Quote returns the first most characters of what others wrote in quotation
// marks, for a message: hidden characters are visible, and as mail programs make
// links of what looks like an address, "://" and a dot within a word are broken
// by brackets.
func Quote(s string, most int) string {
	s = strings.ReplaceAll(unseen.Text(clip(s, most)), "://", "[:]//")
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range s {
		next, _ := utf8.DecodeRuneInString(s[i+utf8.RuneLen(r):])
		switch {
		case r == '.' && (unicode.IsLetter(next) || unicode.IsDigit(next)):
			b.WriteString("[.]")
		case r == '"':
			b.WriteByte('\'')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// clip returns the first most characters of s.
func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
