package web

import (
	"strings"
	"testing"

	"trustpager/approvals"
	"trustpager/catalog"
)

// What others have written stays within its quotes, and does not pass for what
// would happen.
func TestForeseenQuotesWhatOthersHaveWritten(t *testing.T) {
	p := &Pages{}
	p.Catalog = &catalog.Catalog{}
	says := p.foreseen(&approvals.Effects{
		Changes:  []approvals.RowChange{{Change: "deleted", Resource: "contacts", Title: "Ada”, and nothing else“"}},
		Messages: []approvals.Sending{{Kind: "email", Subject: "Hi” to nobody“ <b>"}},
	})
	if len(says) != 2 {
		t.Fatalf("got %q", says)
	}
	for _, s := range says {
		if s := string(s); strings.Count(s, "“") != 1 || strings.Count(s, "”") != 1 || strings.Contains(s, "<b>") {
			t.Errorf("got %s, want one pair of quotes and no HTML", s)
		}
	}
}
