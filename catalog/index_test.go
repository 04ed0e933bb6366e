package catalog

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestIndexKeysAreInTheOrderOfTheirValues(t *testing.T) {
	number := Field{Type: TypeNumber}
	integer := Field{Type: TypeInteger}
	instant := Field{Type: TypeDateTime}
	rapid.Check(t, func(t *rapid.T) {
		x, y := rapid.Float64().Draw(t, "x"), rapid.Float64().Draw(t, "y")
		if got, want := cmp.Compare(number.IndexKey(formatNumber(x)), number.IndexKey(formatNumber(y))), cmp.Compare(x+0, y+0); got != want {
			t.Errorf("numbers %v and %v: got the order %d, want %d", x, y, got, want)
		}
		i, j := rapid.Int64().Draw(t, "i"), rapid.Int64().Draw(t, "j")
		key := func(i int64) string { return integer.IndexKey(json.Number(fmt.Sprint(i))) }
		if got, want := cmp.Compare(key(i), key(j)), cmp.Compare(i, j); got != want {
			t.Errorf("integers %d and %d: got the order %d, want %d", i, j, got, want)
		}
		moment := func(label string) time.Time {
			return time.UnixMilli(rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, label))
		}
		a, b := moment("a"), moment("b")
		at := func(m time.Time) string {
			s, ok := dateTime(m.UTC().Format(time.RFC3339Nano))
			if !ok {
				t.Fatalf("dateTime(%v): got refused", m)
			}
			return instant.IndexKey(s)
		}
		if got, want := cmp.Compare(at(a), at(b)), a.Compare(b); got != want {
			t.Errorf("times %v and %v: got the order %d, want %d", a, b, got, want)
		}
	})
}

func TestIndexKeysOfTextAreFoldedAndBounded(t *testing.T) {
	f := Field{Type: TypeString}
	for _, pair := range [][2]string{{"ADA", "ada"}, {"Müller", "MÜLLER"}, {"Straße", "STRASSE"}, {"ﬁx", "fix"}} {
		if got, want := f.IndexKey(pair[0]), f.IndexKey(pair[1]); got != want {
			t.Errorf("IndexKey(%q): got %q, want %q as of %q", pair[0], got, want, pair[1])
		}
	}
	if f.IndexKey("Muller") == f.IndexKey("Müller") {
		t.Error("IndexKey: got the same key with and without an accent, want two")
	}
	rapid.Check(t, func(t *rapid.T) {
		x, y := rapid.String().Draw(t, "x"), rapid.String().Draw(t, "y")
		if rapid.Bool().Draw(t, "long") {
			x, y = strings.Repeat("ä", 150)+x, strings.Repeat("ä", 150)+y
		}
		kx, ky := f.IndexKey(x), f.IndexKey(y)
		if (kx == ky) != (fold(x) == fold(y)) {
			t.Errorf("%q and %q: got the keys %q and %q, want them equal only with equal texts", x, y, kx, ky)
		}
		if len(kx) > maxKey+33 || !utf8.ValidString(kx) {
			t.Errorf("IndexKey(%q): got %d bytes, want at most %d of valid UTF-8", x, len(kx), maxKey+33)
		}
		if len(fold(x)) <= maxKey && len(fold(y)) <= maxKey && cmp.Compare(kx, ky) != cmp.Compare(fold(x), fold(y)) {
			t.Errorf("%q and %q: got another order than that of the folded texts", x, y)
		}
	})
}

func TestTerms(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string
	}{
		{"", ""},
		{"Ada Lovelace, ada", "ada lovelace"},
		{"ada.l@example.com", "ada l example com"},
		{"Crème Brûlée Straße", "creme brulee strasse"},
		{"ΑΘΗΝΑ Москва İstanbul", "αθηνα москва istanbul"},
		{"+49 30/123-456", "49 30 123 456"},
		{"ﬁne ① ｗｉｄｅ", "fine 1 wide"},
		{"新東京駅", "新東 東京 京駅 駅"},
		{"GoでDB", "go て db"},
		{"서울시", "서울 울시 시"},
		{"!!! ¿?", ""},
	} {
		if got := strings.Join(Terms(tt.text), " "); got != tt.want {
			t.Errorf("Terms(%q): got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestTermsOfEveryPartFindTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom([]rune("abÄß東京駅のカ서울ไทย 1.-"))).Draw(t, "text")
		query := text
		if words := strings.Fields(text); len(words) > 0 {
			query = rapid.SampledFrom(words).Draw(t, "word")
		}
		if !matches(Terms(text), Terms(query)) {
			t.Errorf("Terms(%q) = %q does not find Terms(%q) = %q", query, Terms(query), text, Terms(text))
		}
	})
}

func TestTermsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, "w%d ", i)
	}
	if got := len(Terms(b.String())); got != maxTerms {
		t.Errorf("Terms of 3000 words: got %d, want %d", got, maxTerms)
	}
	long := Terms(strings.Repeat("жx", 100))
	if len(long) != 1 || len(long[0]) > maxTerm || !utf8.ValidString(long[0]) {
		t.Errorf("Terms of a long word: got %q, want one of at most %d bytes", long, maxTerm)
	}
}

func TestIndexOfRebuildsWhatACreateIndexes(t *testing.T) {
	c := testCatalog(t, everyType)
	entries, terms, err := c.IndexOf("things", json.RawMessage(`{"code":"X1","level":1,"name":"Big Thing","parent_id":"thi_01h455vb4pex5vsknk084sn02q","password":"p"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{{Field: "name", Value: "big thing"}, {Field: "code", Value: "x1", Unique: true},
		{Field: "weight"}, {Field: "level", Value: "09223372036854775809"}, {Field: "made_at"}, {Field: "made_on"}, {Field: "parent_id", Value: "thi_01h455vb4pex5vsknk084sn02q"}}
	if !slices.Equal(entries, want) {
		t.Errorf("entries: got %v, want %v", entries, want)
	}
	if want := []string{"big", "thing"}; !slices.Equal(terms, want) {
		t.Errorf("terms: got %v, want %v", terms, want)
	}
	if _, _, err := c.IndexOf("nothing", json.RawMessage(`{}`)); err == nil {
		t.Error("IndexOf an unknown resource: got no error")
	}
}

func TestCanonicalJSONIsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		b := appendJSON(nil, map[string]any{s: []any{s, nil, true}})
		var back map[string][]any
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("appendJSON: got %s, which is no JSON: %v", b, err)
		}
		if got := back[s]; len(got) != 3 || got[0] != any(s) {
			t.Errorf("appendJSON(%q): got %s, want it to read back", s, b)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(cursor{"abc", "1700000000000", aContact}.String())
	f.Add("WyIiLCIiLCIiXQ")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := parseCursor(s)
		if ok && c.String() != s {
			t.Errorf("parseCursor(%q): got %+v, which prints as %q", s, c, c.String())
		}
		if ok && (strings.ContainsRune(c.value, 0) || !utf8.ValidString(c.value)) {
			t.Errorf("parseCursor(%q): got the value %q, which a database refuses", s, c.value)
		}
		again, ok := parseCursor(cursor{"q", strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), ""), "id"}.String())
		if len(s) < 500 && (!ok || again.id != "id") {
			t.Errorf("a cursor of %q: got %+v, %t, want it back", s, again, ok)
		}
	})
}
