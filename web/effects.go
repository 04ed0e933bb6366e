package web

import (
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"trustpager/approvals"
)

// foreseen tells in sentences what approving would do.
func (p *Pages) foreseen(e *approvals.Effects) []template.HTML {
	if e == nil {
		return nil
	}
	var says []template.HTML
	say := func(format string, args ...any) { says = append(says, visible(fmt.Sprintf(format, args...))) }
	if e.Error != nil {
		say("It would fail: %s. %s", e.Error.Message, e.Error.Hint)
		return says
	}
	for _, c := range e.Changes {
		what := c.Resource
		if r, ok := p.Catalog.Resource(c.Resource); ok {
			what = strings.ToLower(labelOf(strings.ReplaceAll(r.Singular, "-", "_")))
		}
		if c.Title != "" {
			what += " " + quoted(c.Title)
		}
		switch c.Change {
		case "created":
			say("Creates the %s", what)
		case "deleted":
			say("Deletes the %s", what)
		default:
			names := make([]string, len(c.Fields))
			for i, f := range c.Fields {
				names[i] = strings.ToLower(labelOf(f.Name))
			}
			say("Changes the %s: %s", what, strings.Join(names, ", "))
		}
	}
	if e.Hidden > 0 {
		say("Changes what you may not read: %d more", e.Hidden)
	}
	for _, m := range e.Messages {
		say("%s", sendingText(m))
	}
	if n := e.Webhooks; n != nil && *n > 0 {
		say("Tells webhooks: %d", *n)
	}
	var events []string
	for _, name := range slices.Sorted(maps.Keys(e.Events)) {
		words := strings.NewReplacer(".", " ", "_", " ").Replace(name)
		if n := e.Events[name]; n > 1 {
			words = fmt.Sprintf("%s, %d times", words, n)
		}
		events = append(events, words)
	}
	if events != nil {
		say("Is logged as: %s", strings.Join(events, "; "))
	}
	for _, n := range e.Notes {
		say("%s", n)
	}
	if says == nil {
		say("Nothing changes.")
	}
	return says
}

// sendingText says what goes outside.
func sendingText(m approvals.Sending) string {
	words := map[string]string{"email": "Sends an e-mail", "sms": "Sends a text message", "call": "Makes a call", "ai": "Asks a language model", "test": "Tests the integration"}[m.Kind]
	if words == "" {
		words = "Sends something: " + m.Kind
	}
	if len(m.To) > 0 {
		words += " to " + strings.Join(m.To, ", ")
	}
	if m.Subject != "" {
		words += ": " + quoted(m.Subject)
	}
	if m.Outbox {
		words += ". No mail server is connected: it is only written to the outbox"
	}
	return words
}

// quoted returns what others have written in quotes that it cannot close.
func quoted(s string) string {
	return "“" + strings.NewReplacer("“", "'", "”", "'").Replace(s) + "”"
}
