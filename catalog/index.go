package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// maxKey is how many bytes of a text an index key holds before the hash.
const maxKey = 200

// IndexKey encodes a normalized value of the field so that byte order is the
// order of the values, and equal keys mean equal values. Text is folded, so
// that case makes no difference, and what is longer than 200 bytes is cut and
// followed by a hash: beyond that length only equality is exact.
func (f *Field) IndexKey(v any) string {
	switch v := v.(type) {
	case bool:
		if v {
			return "1"
		}
		return "0"
	case json.Number:
		if f.Type == TypeNumber {
			x, _ := v.Float64() // normalized, so it parses
			bits := math.Float64bits(x)
			if bits>>63 == 1 {
				bits = ^bits
			} else {
				bits |= 1 << 63
			}
			return fmt.Sprintf("%016x", bits)
		}
		i, _ := v.Int64()
		s := strconv.FormatUint(uint64(i)^1<<63, 10)
		return "00000000000000000000"[len(s):] + s
	case string:
		if f.Type == TypeString || f.Type == TypeEmail || f.Type == TypeURL {
			return cutKey(fold(v))
		}
		return cutKey(v)
	}
	return ""
}

func cutKey(s string) string {
	if len(s) <= maxKey {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return cutRunes(s, maxKey) + "~" + hex.EncodeToString(sum[:16])
}

// cutRunes returns the longest beginning of s of at most n bytes that does not
// split a rune.
func cutRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// fold returns s without the differences of case and of compatible forms.
func fold(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return norm.NFKC.String(cases.Fold().String(norm.NFKC.String(s)))
		}
	}
	return strings.ToLower(s)
}

// index returns what makes a record of the resource findable: the entries of
// its indexed fields, and the words of its searched ones. A field that is unset
// has no entry, unless lists are sorted by it: then the record stands before
// those that have a value.
func (r *Resource) index(values map[string]any) ([]Entry, []string) {
	var entries []Entry
	var words []string
	for i := range r.Fields {
		f := &r.Fields[i]
		v, ok := values[f.Name]
		switch {
		case ok && f.Indexed():
			entries = append(entries, Entry{Field: f.Name, Value: f.IndexKey(v), Unique: f.Unique})
		case f.Sort:
			entries = append(entries, Entry{Field: f.Name})
		}
		if ok && f.Search {
			words = append(words, text(v)...)
		}
	}
	return entries, Terms(strings.Join(words, "\n"))
}

// text returns the texts in v.
func text(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case json.Number:
		return []string{string(v)}
	case []any:
		var all []string
		for _, m := range v {
			all = append(all, text(m)...)
		}
		return all
	case map[string]any:
		var all []string
		for _, m := range sorted(v) {
			all = append(all, text(m)...)
		}
		return all
	}
	return nil
}

// IndexOf returns the entries and terms of a stored record's body, so that an
// index can be built anew after the marks have changed.
func (c *Catalog) IndexOf(resource string, body json.RawMessage) ([]Entry, []string, error) {
	r, ok := c.byName[resource]
	if !ok || !r.Keeps {
		return nil, nil, fmt.Errorf("index a record of %s: no such resource in the catalog", resource)
	}
	values, err := decodeObject(body)
	if err != nil {
		return nil, nil, fmt.Errorf("index a record of %s: %w", resource, err)
	}
	entries, terms := r.index(values)
	return entries, terms, nil
}

// indexFormat changes whenever the same value is indexed in another way.
const indexFormat = 2

// MarksDigest returns a hash of all that decides how records are indexed. An
// index that was built under another digest must be built anew.
func (c *Catalog) MarksDigest() string {
	var lines []string
	for _, r := range c.resources {
		for _, f := range r.Fields {
			if f.Indexed() || f.Search {
				lines = append(lines, fmt.Sprintf("%s.%s %s filter=%t sort=%t unique=%t search=%t",
					r.Name, f.Name, f.Type, f.Filter, f.Sort, f.Unique, f.Search))
			}
		}
	}
	slices.Sort(lines)
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\n%s", indexFormat, strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}
