package catalog

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

// The bounds of search terms.
const (
	maxTerms = 2000 // of one text
	maxTerm  = 64   // bytes
)

// Terms cuts text into the distinct words that searches compare: folded
// (compatible forms, accents, the voicing marks of kana, and case make no
// difference) and made of letters and digits only.
//
// A query matches a record if each term of the query begins some term of the
// record. Scripts that put no spaces between words (Han, Hiragana, Katakana,
// Hangul, Thai, Lao, Khmer, Myanmar) are therefore cut into overlapping pairs
// of characters, and the last character of a run alone: 東京駅 gives 東京, 京駅
// and 駅, so that 東京, 京駅 and 京 all find it.
func Terms(text string) []string {
	text = foldWords(text)
	var terms []string
	seen := map[string]bool{}
	add := func(s string) bool {
		s = cutRunes(s, maxTerm)
		if !seen[s] {
			seen[s] = true
			terms = append(terms, s)
		}
		return len(terms) < maxTerms
	}
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case !inWord(r):
			i += n
		case unspaced(r):
			pair := text[i : i+n]
			if next, m := utf8.DecodeRuneInString(text[i+n:]); unspaced(next) {
				pair = text[i : i+n+m]
			}
			if !add(pair) {
				return terms
			}
			i += n
		default:
			end := i + n
			for end < len(text) {
				next, m := utf8.DecodeRuneInString(text[end:])
				if !inWord(next) || unspaced(next) {
					break
				}
				end += m
			}
			if !add(text[i:end]) {
				return terms
			}
			i = end
		}
	}
	return terms
}

func inWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.Is(unicode.Mc, r))
}

// unspaced reports whether r belongs to a script that puts no spaces between
// words, or none that searches could rely on.
func unspaced(r rune) bool {
	return r >= 0x0e00 && unicode.IsLetter(r) && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana,
		unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// foldWords returns s without marks and without the differences of case and of
// compatible forms.
func foldWords(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			// Decompose, drop the marks, fold, and compose again: Hangul is
			// made of syllables only when composed. Folding can bring marks
			// (İ becomes i and a dot), hence the second pass.
			strip := transform.Chain(norm.NFKD, runes.Remove(runes.In(unicode.Mn)), cases.Fold(),
				norm.NFKD, runes.Remove(runes.In(unicode.Mn)), norm.NFC)
			out, _, err := transform.String(strip, s)
			if err != nil {
				return strings.ToLower(s)
			}
			return out
		}
	}
	return strings.ToLower(s)
}
