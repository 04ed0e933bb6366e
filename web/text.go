package web

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"trustpager/unseen"
)

// visible returns text that others wrote as HTML: escaped, set apart from the
// direction of what stands around it, and with each hidden character as its
// code point.
func visible(s string) template.HTML {
	return markHidden(s, unseen.Hidden)
}

// visibleHost is visible for host names, in which everything but ASCII is
// marked: letters of other scripts look like those of known names.
func visibleHost(s string) template.HTML {
	return markHidden(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func markHidden(s string, marked func(rune) bool) template.HTML {
	var b strings.Builder
	b.WriteString("<bdi>")
	for _, part := range unseen.Split(s, marked) {
		if part.Code != "" {
			fmt.Fprintf(&b, `<span class="hidden-char" title="a hidden or misleading character">%s</span>`, part.Code)
			continue
		}
		b.WriteString(template.HTMLEscapeString(part.Text))
	}
	b.WriteString("</bdi>")
	return template.HTML(b.String())
}

// visibleText is visible for titles and attributes, where no markup can stand.
func visibleText(s string) string { return unseen.Text(s) }

// sentence makes a sentence of an error's message.
func sentence(s string) string {
	if s == "" {
		return s
	}
	r, n := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(r)) + s[n:]
	if strings.ContainsAny(s[len(s)-1:], ".!?") {
		return s
	}
	return s + "."
}

// enumerate joins words as a sentence does.
func enumerate(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

// shortList enumerates the first names and counts the rest.
func shortList(names []string) string {
	const shown = 3
	if len(names) > shown+1 {
		names = append(names[:shown:shown], fmt.Sprintf("%d more", len(names)-shown))
	}
	return enumerate(names, "and")
}

// A moment is a time as people read it: how long ago or ahead, and exactly.
type moment struct {
	Ago, Exact, Machine string
}

// momentOf returns t as seen from now, exactly in the zone. It is nil for the
// zero time.
func momentOf(t, now time.Time, zone string) *moment {
	if t.IsZero() {
		return nil
	}
	at, err := time.LoadLocation(zone)
	if err != nil {
		at = time.UTC
	}
	m := &moment{Exact: t.In(at).Format("2 January 2006, 15:04 MST"), Machine: t.UTC().Format(time.RFC3339)}
	switch d := now.Sub(t); {
	case d < -14*24*time.Hour:
		m.Ago = t.In(at).Format("2 Jan 2006")
	case d < -48*time.Hour:
		m.Ago = "in " + plural(int(-d.Hours()/24), "day")
	case d < -90*time.Minute:
		m.Ago = fmt.Sprintf("in %d h", int(-d.Hours()))
	case d < -time.Minute:
		m.Ago = fmt.Sprintf("in %d min", int(-d.Minutes()))
	case d < time.Minute:
		m.Ago = "just now"
	case d < time.Hour:
		m.Ago = fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 24*time.Hour:
		m.Ago = fmt.Sprintf("%d h ago", int(d.Hours()))
	case d < 14*24*time.Hour:
		m.Ago = plural(int(d.Hours()/24), "day") + " ago"
	default:
		m.Ago = t.In(at).Format("2 Jan 2006")
	}
	return m
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// seconds rounds up, so that nobody comes back too early.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
