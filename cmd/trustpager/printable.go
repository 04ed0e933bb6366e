package main

import (
	"strings"

	"trustpager/unseen"
)

// printable makes what people and agents wrote safe to look at in a terminal:
// control characters, and such as are invisible or change the direction of
// text, are shown as their code points.
func printable(s string) string { return unseen.Text(s) }

// printableLines is printable for text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = unseen.Text(line)
	}
	return strings.Join(lines, "\n")
}
