package integrations_test

import (
	"strings"
	"testing"

	"trustpager/integrations"
)

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"Sales agent":                `"Sales agent"`,
		`say "yes" now`:              `"say 'yes' now"`,
		"https://evil.example/login": `"https[:]//evil[.]example/logi…"`,
		"Ltd. 3.5":                   `"Ltd. 3[.]5"`,
		"a\nb":                       `"a<U+000A>b"`,
		"\u202egnp":                  `"<U+202E>gnp"`,
		"\xff":                       `"<U+FFFD>"`,
		strings.Repeat("é", 40):      `"` + strings.Repeat("é", 25) + `…"`,
	} {
		if got := integrations.Quote(in, 25); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
	}
}
