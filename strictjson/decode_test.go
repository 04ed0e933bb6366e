package strictjson_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"trustpager/problem"
	"trustpager/strictjson"
)

type key struct {
	Name    string     `json:"name"`
	Full    bool       `json:"full_access"`
	Scopes  *[]string  `json:"scopes,omitempty"`
	Limits  limits     `json:"limits"`
	Expires *time.Time `json:"expires_at,omitempty"`
	Hours   float64    `json:"hours"`
	Hidden  string     `json:"-"`
}

type limits struct {
	Minute int64 `json:"per_minute"`
	Day    int64 `json:"per_day"`
}

func TestDecode(t *testing.T) {
	at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	start := key{Name: "before", Limits: limits{60, 10_000}, Hours: 24}
	with := func(change func(*key)) key { k := start; change(&k); return k }
	for _, tt := range []struct {
		in   string
		want key
	}{
		{"", start},
		{" \n", start},
		{`{}`, start},
		{`{"name":"x","scopes":["a","b"],"expires_at":"2026-03-02T11:00:00+01:00"}`, with(func(k *key) {
			k.Name, k.Scopes, k.Expires = "x", &[]string{"a", "b"}, &at
		})},
		{`{"limits":{"per_minute":5}}`, with(func(k *key) { k.Limits.Minute = 5 })},
		{`{"name":null,"scopes":null,"limits":null,"expires_at":null,"hours":null,"full_access":null}`, start},
		{`{"hours":1e2}`, with(func(k *key) { k.Hours = 100 })},
	} {
		got := start
		if err := strictjson.Decode([]byte(tt.in), &got); err != nil {
			t.Errorf("Decode(%s) = %v, want nil", tt.in, err)
			continue
		}
		if got.Expires != nil {
			utc := got.Expires.UTC()
			got.Expires = &utc
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Decode(%s): got %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestDecodeRefusesAndNamesTheMember(t *testing.T) {
	for _, tt := range []struct {
		in, path, expected, got, hint string
	}{
		{`{"name":1}`, "name", "a string", "a number", ""},
		{`{"name":["x"]}`, "name", "a string", "an array", ""},
		{`{"full_access":"yes"}`, "full_access", "true or false", "a string", ""},
		{`{"full_access":1}`, "full_access", "true or false", "a number", ""},
		{`{"scopes":"a"}`, "scopes", "an array", "a string", ""},
		{`{"scopes":["a",2]}`, "scopes.1", "a string", "a number", ""},
		{`{"limits":5}`, "limits", "an object", "a number", ""},
		{`{"limits":{"per_minute":1.5}}`, "limits.per_minute", "an integer", "1.5", ""},
		{`{"limits":{"per_minute":1e999}}`, "limits.per_minute", "an integer", "1e999", ""},
		{`{"limits":{"per_minute":99999999999999999999}}`, "limits.per_minute", "an integer", "99999999999999999999", ""},
		{`{"limits":{"perMinutes":1}}`, "limits.perMinutes", `one of "per_minute", "per_day"`, "an unknown field", `Did you mean "per_minute"?`},
		{`{"hours":1e999}`, "hours", "a number", "1e999", ""},
		{`{"hours":"1"}`, "hours", "a number", "a string", ""},
		{`{"expires_at":"tomorrow"}`, "expires_at", "a time as in 2026-03-02T10:00:00Z", "a string", ""},
		{`{"expires_at":"2026-02-30T10:00:00Z"}`, "expires_at", "a time as in 2026-03-02T10:00:00Z", "a string", ""},
		{`{"expires_at":17}`, "expires_at", "a time as in 2026-03-02T10:00:00Z", "a number", ""},
		{`{"full_access":false,"FULL_ACCESS":true}`, "FULL_ACCESS", `"full_access"`, "an unknown field", `Did you mean "full_access"?`},
		{`{"fullAccess":true}`, "fullAccess", `"full_access"`, "an unknown field", `Did you mean "full_access"?`},
		{`{"nmae":"x"}`, "nmae", `"name"`, "an unknown field", `Did you mean "name"?`},
		{`{"Hidden":"x"}`, "Hidden", `"name"`, "an unknown field", ""},
		{`{"-":"x"}`, "-", `"name"`, "an unknown field", ""},
		{`{"a/b~c":1}`, "a/b~c", `"name"`, "an unknown field", ""},
	} {
		var k key
		err := strictjson.Decode([]byte(tt.in), &k)
		e, ok := errors.AsType[*problem.Error](err)
		if !ok || e.Kind != problem.Validation || len(e.Fields) != 1 {
			t.Errorf("Decode(%s) = %v, want a VALIDATION_ERROR with one field", tt.in, err)
			continue
		}
		f := e.Fields[0]
		if f.Path != tt.path || !strings.Contains(f.Expected, tt.expected) || f.Got != tt.got {
			t.Errorf("Decode(%s): got field %+v, want %s: %s, not %s", tt.in, f, tt.path, tt.expected, tt.got)
		}
		if e.Hint != tt.hint || e.Fix == "" || !strings.Contains(e.Message, tt.path) {
			t.Errorf("Decode(%s): got %q, fix %q, hint %q, want hint %q", tt.in, e.Message, e.Fix, e.Hint, tt.hint)
		}
	}
}

func TestDecodeRefusesWhatIsNoObject(t *testing.T) {
	for in, want := range map[string]string{
		`[]`: "an array", `null`: "null", `"x"`: "a string", `1`: "a number", `true`: "true",
		`{"name":"x","name":"y"}`: "twice", `{"name":"x","\u006eame":"y"}`: "twice", `{} {}`: "follows", `{`: "too early",
	} {
		var k key
		err := strictjson.Decode([]byte(in), &k)
		if !problem.Is(err, problem.InvalidBody) || !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%s) = %v, want an INVALID_BODY that says %q", in, err, want)
		}
	}
}

func TestDecodeRepeatsLittleOfWhatWasSent(t *testing.T) {
	for _, in := range []string{
		`{"` + strings.Repeat("ü", 5000) + `":1}`,
		`{"full_access":"` + strings.Repeat("ü", 5000) + `"}`,
		`{"hours":1` + strings.Repeat("0", 5000) + `}`,
	} {
		var k key
		e, ok := errors.AsType[*problem.Error](strictjson.Decode([]byte(in), &k))
		if !ok {
			t.Errorf("Decode of %d bytes: got nil, want an error", len(in))
			continue
		}
		f := e.Fields[0]
		if n := len(e.Message) + len(f.Path) + len(f.Got); n > 500 || !utf8.ValidString(e.Message+f.Path+f.Got) {
			t.Errorf("got %d bytes of error, want at most 500 of UTF-8: %v", n, e)
		}
	}
}

// What Decode takes it has read exactly: encoding what it has read, and
// decoding that, changes nothing more. What it refuses it explains.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, ``, `null`, `{"name":"x","full_access":true,"scopes":["a"],"limits":{"per_minute":1,"per_day":2},"expires_at":"2026-03-02T10:00:00Z","hours":0.5}`,
		`{"FULL_ACCESS":true}`, `{"name":null}`, `{"hours":1e999}`, `{"expires_at":"9999-12-31T23:59:60Z"}`, `{"a":{"b":[1]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var k key
		err := strictjson.Decode(b, &k)
		if err == nil {
			if strings.Contains(strings.ToUpper(string(b)), "FULL_ACCESS") && k.Full && !strings.Contains(string(b), `full_access`) && !strings.Contains(string(b), `\u`) {
				t.Errorf("Decode(%q) took another name for full_access", b)
			}
			return
		}
		e, ok := errors.AsType[*problem.Error](err)
		if !ok || e.Status() != 400 || e.Message == "" || e.Fix == "" {
			t.Errorf("Decode(%q) = %v, want a problem with a fix", b, err)
		}
		if ok && !utf8.ValidString(e.Message+e.Hint) {
			t.Errorf("Decode(%q): message %q is not UTF-8", b, e.Message)
		}
	})
}
