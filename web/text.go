package web

import (
	"fmt"
	"html/template"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

var approvalID = regexp.MustCompile(`^apr_[0-9a-z]{26}$`)

// visible returns text that others wrote as HTML: escaped, set apart from the
// direction of what stands around it, and with each hidden character as its
// code point.
func visible(s string) template.HTML {
	return markHidden(s, hidden)
}

// visibleHost is visible for host names, in which everything but ASCII is
// marked: letters of other scripts look like those of known names.
func visibleHost(s string) template.HTML {
	return markHidden(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func markHidden(s string, marked func(rune) bool) template.HTML {
	var b strings.Builder
	b.WriteString("<bdi>")
	for _, part := range splitHidden(s, marked) {
		if part.code != "" {
			fmt.Fprintf(&b, `<span class="hidden-char" title="a hidden or misleading character">%s</span>`, part.code)
			continue
		}
		b.WriteString(template.HTMLEscapeString(part.text))
	}
	b.WriteString("</bdi>")
	return template.HTML(b.String())
}

// visibleText is visible for titles and attributes, where no markup can stand.
func visibleText(s string) string {
	var b strings.Builder
	for _, part := range splitHidden(s, hidden) {
		b.WriteString(part.text)
		if part.code != "" {
			b.WriteString("<" + part.code + ">")
		}
	}
	return b.String()
}

// A textPart is text as it is, or the code point of a hidden character.
type textPart struct{ text, code string }

func splitHidden(s string, marked func(rune) bool) []textPart {
	var parts []textPart
	start := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !marked(r) {
			i += n
			continue
		}
		if start < i {
			parts = append(parts, textPart{text: s[start:i]})
		}
		parts = append(parts, textPart{code: fmt.Sprintf("U+%04X", r)})
		i += n
		start = i
	}
	if start < len(s) {
		parts = append(parts, textPart{text: s[start:]})
	}
	return parts
}

// hidden reports whether r is not seen, or changes how its neighbours are seen:
// everything but what has a shape of its own and the plain space.
func hidden(r rune) bool {
	switch {
	case r == ' ':
		return false
	case r == utf8.RuneError, r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0, r == 0x034f, r == 0x17b4, r == 0x17b5, r == 0x2800, // fillers, joiner, blank pattern
		unicode.Is(unicode.Variation_Selector, r):
		return true
	}
	return !unicode.IsGraphic(r) || unicode.In(r, unicode.Cf, unicode.Zs)
}

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

// A moment is a time as people read it: how long ago, and exactly.
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
