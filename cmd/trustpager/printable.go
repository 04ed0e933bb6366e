package main

import (
	"fmt"
	"strings"
	"unicode"
)

// printable makes what people and agents wrote safe to look at in a terminal:
// control characters, and such as are invisible or change the direction of
// text, are shown as their code points.
func printable(s string) string { return visible(s, false) }

// printableLines is printable for text of several lines.
func printableLines(s string) string { return visible(s, true) }

func visible(s string, lines bool) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' && lines:
			b.WriteRune(r)
		case r == ' ' || unicode.IsGraphic(r) && !unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Zs, r) && !hiddenLetter(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "<U+%04X>", r)
		}
	}
	return b.String()
}

// hiddenLetter reports whether r counts as a letter or mark but shows nothing.
func hiddenLetter(r rune) bool {
	switch {
	case r == 0x115F, r == 0x1160, r == 0x3164, r == 0xFFA0, r == 0x034F, r == 0x2800, // fillers, joiner, blank pattern
		r >= 0xFE00 && r <= 0xFE0F, r >= 0xE0100 && r <= 0xE01EF: // variation selectors
		return true
	}
	return false
}
