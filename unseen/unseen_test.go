package unseen_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"trustpager/unseen"
)

func TestHidden(t *testing.T) {
	for _, s := range []string{"\u202e", "\u200b", "\u2066", "\U000E0041", "\x00", "\n", "\u00a0", "\u3164", "\u2800", "\ufe0f", "\ufffd", "\ue000", "\u00ad", "\u034f"} {
		r, _ := utf8.DecodeRuneInString(s)
		if !unseen.Hidden(r) {
			t.Errorf("%U: got seen, want hidden", r)
		}
	}
	for _, r := range "a Z é 数 ا — ! 7 €" {
		if unseen.Hidden(r) {
			t.Errorf("%U: got hidden, want seen", r)
		}
	}
}

func TestCodes(t *testing.T) {
	if got := unseen.Codes("a\u200bb\u202ec\u200b\nd\t"); !slices.Equal(got, []string{"U+200B", "U+202E"}) {
		t.Errorf("got %v", got)
	}
}

func TestMixedWords(t *testing.T) {
	for text, want := range map[string][]string{
		"plain words": nil, "Привет мир": nil, "p\u0430ypal and \u0391lpha": {"p\u0430ypal", "\u0391lpha"}, "数据base": nil, "Zoë": nil,
	} {
		if got := unseen.MixedWords(text, 5); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Nothing of a text gets lost, and nothing hidden stays as it is.
func FuzzText(f *testing.F) {
	f.Add("a\u202eb\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if got := unseen.Text(s); strings.ContainsFunc(got, unseen.Hidden) {
			t.Errorf("%q: got %q, which holds hidden characters", s, got)
		}
		var b strings.Builder
		for _, p := range unseen.Split(s, unseen.Hidden) {
			b.WriteString(p.Text)
		}
		if plain := strings.Map(func(r rune) rune {
			if unseen.Hidden(r) {
				return -1
			}
			return r
		}, s); b.String() != plain {
			t.Errorf("%q: got the parts %q, want %q", s, b.String(), plain)
		}
	})
}
