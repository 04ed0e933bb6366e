package catalog

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/currency"

	"trustpager/typeid"
)

// A Type says which values a field takes.
type Type string

// The types of fields.
const (
	TypeString   Type = "string"   // one line; white space around it is dropped
	TypeText     Type = "text"     // several lines, kept as they are
	TypeEmail    Type = "email"    // an address; its domain is kept in lower case
	TypePhone    Type = "phone"    // E.164
	TypeURL      Type = "url"      // http or https
	TypeInteger  Type = "integer"  // exact in every JSON reader: at most 2^53-1
	TypeNumber   Type = "number"   // a finite number, within the same bounds
	TypeMoney    Type = "money"    // an integer of minor units, such as cents
	TypeCurrency Type = "currency" // ISO 4217
	TypeDate     Type = "date"     // YYYY-MM-DD
	TypeDateTime Type = "datetime" // RFC 3339; kept in UTC with milliseconds
	TypeBoolean  Type = "boolean"
	TypeEnum     Type = "enum"   // one of a few words
	TypeTags     Type = "tags"   // distinct words; repetitions are dropped
	TypeObject   Type = "object" // JSON of the caller's own
	TypeList     Type = "list"   // objects with fields of their own
	TypeRef      Type = "ref"    // the id of a record or user
)

// types lists the types in the order in which messages name them.
var types = []Type{TypeString, TypeText, TypeEmail, TypePhone, TypeURL, TypeInteger, TypeNumber,
	TypeMoney, TypeCurrency, TypeDate, TypeDateTime, TypeBoolean, TypeEnum, TypeTags, TypeObject,
	TypeList, TypeRef}

// The bounds of values.
const (
	maxString      = 500     // runes, unless the field says otherwise
	maxText        = 100_000 // runes
	maxEmail       = 254     // RFC 5321, section 4.5.3.1.3, without the angle brackets
	maxURL         = 2048
	maxSafe        = 1<<53 - 1 // RFC 7493, section 2.2
	maxTags        = 50
	maxTag         = 100 // runes
	maxListItems   = 100
	maxObjectDepth = 5
	maxObjectBytes = 16 << 10
)

// timeLayout is how times stand in records: their byte order is their order.
const timeLayout = "2006-01-02T15:04:05.000Z"

// now is the default of a datetime field that takes the time of execution. It
// is not a value that a caller can send.
const now = "now"

// A Field is one member of a resource's records, or of an action's input.
type Field struct {
	Name        string
	Type        Type
	Description string
	Required    bool
	Filter      bool     // lists can select by it
	Lookup      bool     // the program finds records by it; lists do not offer it
	Sort        bool     // lists can be ordered by it
	Search      bool     // its words are found by searches
	Unique      bool     // no two records share a value; in a list, no two items
	Secret      bool     // masked wherever it is shown
	Ref         string   // the resource that a ref points to
	Choices     string   // "ref.list": the names in that list of the record that ref points to
	Enum        []string // the words of an enum; of an integer, the only values that it takes
	Default     any      // normalized, nil if there is none
	Min, Max    int64    // bounds of the number, or of the length or count
	Fields      []Field  // of a list's items

	target *Resource // what Ref names
	at     position  // where it was declared
	choice *choice   // what Choices names
	filled bool      // it may be absent but not empty, as a filter, or a required field in an update
	bare   bool      // the schema leaves lengths out, as for filters
	terse  bool      // the schema leaves the words out
	null   bool      // null is taken, as "absent" or "clear"
	told   bool      // many actions have it, and the MCP server's instructions tell what it is
}

// Indexed reports whether records can be found by the field's value.
func (f *Field) Indexed() bool {
	return f.Filter || f.Lookup || f.Sort || f.Unique || f.Type == TypeRef
}

// nonEmpty reports whether the field refuses empty text and empty arrays.
func (f *Field) nonEmpty() bool { return f.Required || f.filled }

// A choice is where the values that a field may have are found: the names of
// the items of a list, in the record that a ref field of the same record
// points to.
type choice struct {
	ref  *Field
	list *Field
}

// ChosenFrom returns the resource whose records say what values the field may
// have, nil if none does.
func (f *Field) ChosenFrom() *Resource {
	if f.choice == nil {
		return nil
	}
	return f.choice.ref.target
}

// numeric reports whether the field's values are numbers.
func (t Type) numeric() bool { return t == TypeInteger || t == TypeNumber || t == TypeMoney }

// check returns the normalized form of v, which came as JSON. It adds what is
// wrong to fs and returns false if v cannot be taken. A nil result with true
// means that the field is to be unset.
func (f *Field) check(path string, v any, fs *faults) (any, bool) {
	if v == nil {
		if f.Required || !f.null {
			fs.add(f, path, v, "")
			return nil, false
		}
		return nil, true
	}
	switch f.Type {
	case TypeTags:
		return f.checkTags(path, v, fs)
	case TypeList:
		return f.checkList(path, v, fs)
	case TypeObject:
		o, ok := v.(map[string]any)
		if !ok || !boundedJSON(o, 1) || len(appendJSON(nil, o)) > maxObjectBytes {
			fs.add(f, path, v, "")
			return nil, false
		}
		return o, true
	}
	n, fix, ok := f.scalar(v)
	if !ok {
		fs.add(f, path, v, fix)
		return nil, false
	}
	return n, true
}

// scalar normalizes v, and says how to mend it if it cannot be taken and there
// is more to say than what the field expects.
func (f *Field) scalar(v any) (n any, fix string, ok bool) {
	switch f.Type {
	case TypeBoolean:
		b, ok := v.(bool)
		return b, "", ok
	case TypeInteger, TypeMoney:
		i, ok := integer(v)
		word := strconv.FormatInt(i, 10)
		if !ok || i < f.Min || i > f.Max || f.Enum != nil && !slices.Contains(f.Enum, word) {
			return nil, "", false
		}
		return json.Number(word), "", true
	case TypeNumber:
		l, ok := v.(json.Number)
		if !ok {
			return nil, "", false
		}
		x, err := strconv.ParseFloat(string(l), 64)
		if err != nil || x < float64(f.Min) || x > float64(f.Max) {
			return nil, "", false
		}
		return formatNumber(x), "", true
	}
	s, ok := v.(string)
	if !ok {
		return nil, "", false
	}
	switch f.Type {
	case TypeString, TypeText:
		// The length counts before trimming, so that the schema's maxLength,
		// which knows nothing of trimming, means the same.
		if !f.fits(s) || !printable(s, f.Type == TypeText) {
			return nil, "", false
		}
		if f.Type == TypeString {
			s = strings.TrimSpace(s)
		}
		if strings.TrimSpace(s) == "" {
			return nil, "", !f.nonEmpty()
		}
		return s, "", true
	case TypeEmail:
		s, ok = email(s)
		return s, "", ok
	case TypePhone:
		if !phone(s) {
			return nil, phoneFix(s), false
		}
		return s, "", true
	case TypeURL:
		return s, "", webURL(s)
	case TypeCurrency:
		if len(s) != 3 || s != strings.ToUpper(s) {
			return nil, "", false
		}
		_, err := currency.ParseISO(s)
		return s, "", err == nil
	case TypeDate:
		_, err := time.Parse(time.DateOnly, s)
		return s, "", err == nil && len(s) == len(time.DateOnly)
	case TypeDateTime:
		s, ok = dateTime(s)
		return s, "", ok
	case TypeEnum:
		if !slices.Contains(f.Enum, s) {
			return nil, didYouMean(s, f.Enum), false
		}
		return s, "", true
	case TypeRef:
		if f.target.Prefix == "" || typeid.ValidID(f.target.Prefix, s) {
			return s, "", true
		}
		return nil, fmt.Sprintf("Send the id of %s, which begins with %s_. %s", article(f.target.noun()), f.target.Prefix, f.target.findHint()), false
	}
	return nil, "", false
}

// fits reports whether s has at most as many runes as the field takes.
func (f *Field) fits(s string) bool {
	return int64(len(s)) <= f.Max || int64(utf8.RuneCountInString(s)) <= f.Max
}

func (f *Field) checkTags(path string, v any, fs *faults) (any, bool) {
	list, ok := v.([]any)
	if !ok || int64(len(list)) > f.Max || f.nonEmpty() && len(list) == 0 {
		fix := ""
		if text, ok := v.(string); ok && text != "" && !f.Secret {
			fix = "Send an array, for one text too: [" + shorten(text) + "]."
		}
		fs.add(f, path, v, fix)
		return nil, false
	}
	tags := make([]any, 0, len(list))
	for i, item := range list {
		s, isText := item.(string)
		trimmed := strings.TrimSpace(s)
		switch {
		case !isText || trimmed == "" || utf8.RuneCountInString(s) > maxTag || !printable(s, false):
			fs.put(path+"."+strconv.Itoa(i), fmt.Sprintf("text of 1 to %d characters on one line", maxTag), f.got(item), "")
			ok = false
		case f.Enum != nil && !slices.Contains(f.Enum, trimmed):
			fs.put(path+"."+strconv.Itoa(i), "one of "+strings.Join(f.Enum, ", "), f.got(item), didYouMean(trimmed, f.Enum))
			ok = false
		case !slices.Contains(tags, any(trimmed)):
			tags = append(tags, trimmed)
		}
	}
	return tags, ok
}

func (f *Field) checkList(path string, v any, fs *faults) (any, bool) {
	list, ok := v.([]any)
	if !ok || int64(len(list)) > f.Max || f.nonEmpty() && len(list) == 0 {
		fs.add(f, path, v, "")
		return nil, false
	}
	items := make([]any, 0, len(list))
	seen := map[string]int{}
	for i, item := range list {
		at := path + "." + strconv.Itoa(i)
		o, isObject := item.(map[string]any)
		if !isObject {
			fs.put(at, "an object with "+names(f.Fields), f.got(item), "")
			ok = false
			continue
		}
		for name := range sorted(o) {
			if !slices.ContainsFunc(f.Fields, func(s Field) bool { return s.Name == name }) {
				fs.put(at+"."+name, unknownField(name, fieldNames(f.Fields)), f.got(o[name]), "")
				ok = false
			}
		}
		out := make(map[string]any, len(f.Fields))
		for k := range f.Fields {
			sub := &f.Fields[k]
			got, sent := o[sub.Name]
			if !sent || got == nil {
				if sub.Required {
					fs.lack(at+"."+sub.Name, sub)
					ok = false
				} else if sub.Default != nil {
					out[sub.Name] = sub.Default
				}
				continue
			}
			n, good := sub.check(at+"."+sub.Name, got, fs)
			if !good {
				ok = false
				continue
			}
			if n == nil {
				continue
			}
			out[sub.Name] = n
			if !sub.Unique {
				continue
			}
			key := sub.Name + "\x00" + sub.IndexKey(n)
			if first, twice := seen[key]; twice {
				fs.put(at+"."+sub.Name, fmt.Sprintf("another value than that of %s.%d", path, first), f.got(got), "")
				ok = false
			} else {
				seen[key] = i
			}
		}
		items = append(items, out)
	}
	return items, ok
}

// expected says what the field takes, for messages.
func (f *Field) expected() string {
	switch f.Type {
	case TypeString:
		if f.nonEmpty() {
			return fmt.Sprintf("text of 1 to %d characters on one line", f.Max)
		}
		return fmt.Sprintf("text of at most %d characters on one line", f.Max)
	case TypeText:
		if f.nonEmpty() {
			return fmt.Sprintf("text of 1 to %d characters", f.Max)
		}
		return fmt.Sprintf("text of at most %d characters", f.Max)
	case TypeEmail:
		return `an e-mail address such as "ada@example.com"`
	case TypePhone:
		return `a phone number in E.164 form such as "+4930123456"`
	case TypeURL:
		return `a web address such as "https://example.com"`
	case TypeInteger:
		if f.Enum != nil {
			return "one of the integers " + strings.Join(f.Enum, ", ")
		}
		return "an integer" + f.bounds()
	case TypeNumber:
		return "a number" + f.bounds()
	case TypeMoney:
		return "an integer of minor units (1250 means 12.50)" + f.bounds()
	case TypeCurrency:
		return `an ISO 4217 currency in capitals such as "EUR"`
	case TypeDate:
		return `a date such as "2026-01-31"`
	case TypeDateTime:
		return `an RFC 3339 time such as "2026-01-31T14:30:00Z"`
	case TypeBoolean:
		return "true or false"
	case TypeEnum:
		return "one of " + strings.Join(f.Enum, ", ")
	case TypeTags:
		if f.nonEmpty() {
			return fmt.Sprintf("an array of 1 to %d texts", f.Max)
		}
		return fmt.Sprintf("an array of at most %d texts", f.Max)
	case TypeObject:
		return fmt.Sprintf("an object, nested at most %d deep and of at most %d kB", maxObjectDepth, maxObjectBytes>>10)
	case TypeList:
		if f.nonEmpty() {
			return fmt.Sprintf("an array of 1 to %d objects with %s", f.Max, names(f.Fields))
		}
		return fmt.Sprintf("an array of at most %d objects with %s", f.Max, names(f.Fields))
	case TypeRef:
		return "the id of " + article(f.target.noun())
	}
	return string(f.Type)
}

func (f *Field) bounds() string {
	switch {
	case f.Min > -maxSafe && f.Max < maxSafe:
		return fmt.Sprintf(" from %d to %d", f.Min, f.Max)
	case f.Min > -maxSafe:
		return fmt.Sprintf(" of at least %d", f.Min)
	case f.Max < maxSafe:
		return fmt.Sprintf(" of at most %d", f.Max)
	}
	return ""
}

// got returns v as messages show it: shortened, and masked if it is secret.
func (f *Field) got(v any) string {
	if f.Secret {
		return "(secret)"
	}
	return shorten(v)
}

// shorten returns v as JSON of at most 80 runes.
func shorten(v any) string {
	const most = 80
	if s, ok := v.(string); ok && len(s) > 4*most {
		v = s[:4*most] // most runes need no more, and the rest is not worth encoding
	}
	b := appendJSON(nil, v)
	if utf8.RuneCount(b) <= most {
		return string(b)
	}
	return string([]rune(string(b))[:most-1]) + "…"
}

// integer returns the integer that v is. Like JSON Schema, it takes 1.0 and
// 1e3 for integers.
func integer(v any) (int64, bool) {
	l, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(string(l), 10, 64)
	if err == nil {
		return i, true
	}
	// A Rat of a long exponent would take any amount of memory.
	if _, exp, ok := strings.Cut(strings.ToLower(string(l)), "e"); len(l) > 64 || ok && len(exp) > 3 {
		return 0, false
	}
	r, ok := new(big.Rat).SetString(string(l))
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	return r.Num().Int64(), true
}

// formatNumber returns x as encoding/json writes it, and never as -0.
func formatNumber(x float64) json.Number {
	if x == 0 {
		x = 0
	}
	b, _ := json.Marshal(x) // cannot fail: x is finite
	return json.Number(b)
}

// email reports whether s is a mailbox of RFC 5321 in its dot-atom form with a
// domain name, and returns it with the domain in lower case. The local part is
// kept: only the receiving host knows what its case means.
func email(s string) (string, bool) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > maxEmail {
		return "", false
	}
	for atom := range strings.SplitSeq(s[:at], ".") {
		if atom == "" {
			return "", false
		}
		for i := range len(atom) {
			c := atom[i]
			if !isAlnum(c) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", rune(c)) {
				return "", false
			}
		}
	}
	domain := strings.ToLower(s[at+1:])
	if !strings.Contains(domain, ".") {
		return "", false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for i := range len(label) {
			if !isAlnum(label[i]) && label[i] != '-' {
				return "", false
			}
		}
	}
	return s[:at+1] + domain, true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// phone reports whether s is an E.164 number with its plus sign.
func phone(s string) bool {
	if len(s) < 8 || len(s) > 16 || s[0] != '+' || s[1] == '0' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// phoneFix proposes the number that was probably meant. It guesses no country:
// a wrong number is worse than none.
func phoneFix(s string) string {
	meant := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -./()\u00a0", r) {
			return -1
		}
		return r
	}, strings.Replace(s, "(0)", "", 1))
	if rest, ok := strings.CutPrefix(meant, "00"); ok {
		meant = "+" + rest
	}
	if phone(meant) {
		return fmt.Sprintf("Write it as %q.", meant)
	}
	return `Write it with a plus sign, the country's code and digits only, as in "+4930123456".`
}

// webURL reports whether s is an absolute http or https address with a host
// and without a password.
func webURL(s string) bool {
	if len(s) > maxURL || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return false
	}
	if !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && u.Hostname() != "" && u.User == nil
}

// dateTime returns the RFC 3339 time s in UTC with milliseconds.
func dateTime(s string) (string, bool) {
	var t time.Time
	if err := t.UnmarshalText([]byte(s)); err != nil { // stricter than time.Parse
		return "", false
	}
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return "", false // the zone has moved it out of what the layout can hold
	}
	return t.Format(timeLayout), true
}

// formatTime returns t as records show times.
func formatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// printable reports whether s holds no control characters, apart from those
// that separate lines and columns if it may have several lines.
func printable(s string, lines bool) bool {
	for _, r := range s {
		if unicode.IsControl(r) && !(lines && (r == '\n' || r == '\r' || r == '\t')) {
			return false
		}
	}
	return true
}

// boundedJSON reports whether v, at the given depth, is not nested too deep
// and holds only numbers and text that every reader can take.
func boundedJSON(v any, depth int) bool {
	switch v := v.(type) {
	case map[string]any:
		if depth > maxObjectDepth {
			return false
		}
		for k, m := range v {
			if len(k) > 200 || !printable(k, false) || !boundedJSON(m, depth+1) {
				return false
			}
		}
	case []any:
		if depth > maxObjectDepth {
			return false
		}
		for _, m := range v {
			if !boundedJSON(m, depth+1) {
				return false
			}
		}
	case string:
		return printable(v, true)
	case json.Number:
		_, err := strconv.ParseFloat(string(v), 64)
		return err == nil
	}
	return true
}
