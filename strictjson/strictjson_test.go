package strictjson_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"trustpager/problem"
	"trustpager/strictjson"
)

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestCheckAccepts(t *testing.T) {
	for _, in := range []string{
		`{}`, `[]`, `null`, `"x"`, `-1.5e3`, " \n{\"a\":1} \n",
		`{"a":1,"A":2}`,
		`{"a":{"b":1},"c":{"b":2}}`,
		`{"emoji":"😀","escaped":"\ud83d\ude00","backslash":"\\u0000"}`,
		nested(strictjson.MaxDepth),
		`[` + strings.Repeat(`0,`, strictjson.MaxTokens-3) + `0]`,
	} {
		if err := strictjson.Check([]byte(in)); err != nil {
			t.Errorf("Check(%s) = %v, want nil", in, err)
		}
	}
}

func TestCheckRefusesAndSaysWhere(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "empty"},
		{"only space", " \n", "empty"},
		{"cut off", `{"a":1`, "too early"},
		{"cut off in a string", `{"a":"`, "too early"},
		{"syntax", "{\n  \"a\": 1,\n  b: 2}", "line 3, column 3"},
		{"trailing value", `{} {}`, "follows the end"},
		{"trailing garbage", `{} x`, "column 4"},
		{"duplicate", `{"x":{"name":1,"name":2}}`, `"x.name" stands twice`},
		{"duplicate by escape", `{"name":1,"\u006eame":2}`, "stands twice"},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", "UTF-8"},
		{"lone surrogate", `{"a":"\ud800"}`, "surrogate"},
		{"NUL in a value", `{"a":{"b":"x\u0000y"}}`, `"a.b" holds the character NUL`},
		{"NUL in a name", `{"a\u0000":1}`, "NUL"},
		{"raw NUL", "{\"a\":\"\x00\"}", "not valid JSON"},
		{"too deep", `{"a":` + nested(strictjson.MaxDepth) + `}`, "nested deeper than 32"},
		{"too many values", `[` + strings.Repeat(`0,`, strictjson.MaxTokens) + `0]`, "more than 20000"},
		{"NaN", `{"a":NaN}`, "column 6"},
		{"comment", `{/* */}`, "column 2"},
		{"trailing comma", `[1,]`, "column 3"},
		{"leading zero", `[01]`, "column 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := strictjson.Check([]byte(tt.in))
			e, ok := errors.AsType[*problem.Error](err)
			if !ok || e.Kind != problem.InvalidBody {
				t.Fatalf("Check(%q) = %v, want an INVALID_BODY", tt.in, err)
			}
			if !strings.Contains(e.Message, tt.want) || e.Fix == "" {
				t.Errorf("Check(%q): got %q (fix %q), want %q", tt.in, e.Message, e.Fix, tt.want)
			}
			if !utf8.ValidString(e.Message) {
				t.Errorf("Check(%q): message %q is not UTF-8", tt.in, e.Message)
			}
		})
	}
}

func TestCheckEnvelopeRefusesNamesThatDifferOnlyInCase(t *testing.T) {
	many := `{`
	for i := range 70 {
		many += `"` + strings.Repeat("a", i+1) + `":1,`
	}
	many = many[:len(many)-1] + `}`
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{`{"method":"tools/call","params":{"name":"x","arguments":{"a":1,"A":2}}}`, true},
		{`{"result":{"a":1,"A":2}}`, true},
		{`{"method":"tools/call","METHOD":"tools/list"}`, false},
		{`{"params":{"name":"x","Name":"y"}}`, false},
		{`{"params":{"arguments":{},"argumentſ":{}}}`, false}, // U+017F folds to s
		{`{"params":{"tasK":1,"tasK":2}}`, false},             // U+212A folds to k
		{`{"params":["name","NAME"]}`, true},
		{`{"params":{"a":"x","b":"X"}}`, true},
		{many, false},
		{`[]`, false},
		{`"x"`, false},
		{``, false},
	} {
		if err := strictjson.CheckEnvelope([]byte(tt.in)); (err == nil) != tt.ok {
			t.Errorf("CheckEnvelope(%s) = %v, want ok %v", tt.in, err, tt.ok)
		}
	}
}

func TestReadBody(t *testing.T) {
	for _, tt := range []struct {
		name, contentType, body string
		chunked                 bool
		want                    problem.Kind
	}{
		{"plain", "application/json", `{}`, false, ""},
		{"charset", "application/json; charset=UTF-8", `{}`, false, ""},
		{"no type", "", `{}`, false, ""},
		{"at the limit", "", `0123456789`, false, ""},
		{"above the limit", "", `0123456789x`, false, problem.TooLarge},
		{"above the limit, chunked", "", `0123456789x`, true, problem.TooLarge},
		{"form", "application/x-www-form-urlencoded", `a=b`, false, problem.UnsupportedType},
		{"other charset", "application/json; charset=latin1", `{}`, false, problem.UnsupportedType},
		{"nonsense", ";", `{}`, false, problem.UnsupportedType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var body io.Reader = strings.NewReader(tt.body)
			if tt.chunked {
				body = io.MultiReader(body)
			}
			r := httptest.NewRequest(http.MethodPost, "/", body)
			r.Header.Set("Content-Type", tt.contentType)
			got, err := strictjson.ReadBody(r, 10)
			if tt.want == "" {
				if err != nil || string(got) != tt.body {
					t.Errorf("got %q, %v, want %q", got, err, tt.body)
				}
				return
			}
			if !problem.Is(err, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestReadBodyHoldsNoMemoryForWhatIsOnlyAnnounced(t *testing.T) {
	const clients = 50
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range clients {
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{`))
		r.ContentLength = 1 << 20
		if _, err := strictjson.ReadBody(r, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / clients; each > 256<<10 {
		t.Errorf("a body of 1 byte that announces 1 MiB: got %d bytes of memory, want at most 256 KiB", each)
	}
}

func TestReadBodyRefusesCompressedBodies(t *testing.T) {
	for encoding, ok := range map[string]bool{"identity": true, "Identity": true, "gzip": false, "br": false, "gzip, identity": false, "": false} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{}`))
		r.Header.Set("Content-Encoding", encoding)
		_, err := strictjson.ReadBody(r, 10)
		if ok != (err == nil) || !ok && !problem.Is(err, problem.UnsupportedType) {
			t.Errorf("Content-Encoding %q: got %v, want ok %v", encoding, err, ok)
		}
	}
}

// What Check accepts, encoding/json accepts too, and its text is one the
// database can keep.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":"\u0000"}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, nested(33), `[1,2`, `{"method":"x","params":{"A":1,"a":2}}`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := strictjson.Check(b)
		if envelope := strictjson.CheckEnvelope(b); err != nil && envelope == nil {
			t.Errorf("CheckEnvelope accepts %q, which Check refuses: %v", b, err)
		}
		if err != nil {
			if !problem.Is(err, problem.InvalidBody) {
				t.Errorf("Check(%q) = %v, want an INVALID_BODY", b, err)
			}
			return
		}
		if !utf8.Valid(b) {
			t.Errorf("Check accepts %q, which is not UTF-8", b)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Errorf("Check accepts %q, encoding/json does not: %v", b, err)
		}
		var walk func(v any)
		walk = func(v any) {
			switch v := v.(type) {
			case string:
				if strings.ContainsAny(v, "\x00\uFFFD") && !strings.Contains(string(b), "\uFFFD") && !strings.Contains(strings.ToLower(string(b)), `\ufffd`) {
					t.Errorf("Check accepts %q, which holds %q", b, v)
				}
			case []any:
				for _, e := range v {
					walk(e)
				}
			case map[string]any:
				for k, e := range v {
					walk(k)
					walk(e)
				}
			}
		}
		walk(v)
	})
}

func BenchmarkCheckEnvelope(b *testing.B) {
	in := []byte(`{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"create_contact","arguments":{"first_name":"Ada","last_name":"Lovelace","email":"ada@example.com","phone":"+441234567890","notes":"Met at the analytical engine demo; wants a quote.","metadata":{"source":"fair","score":7}},"_meta":{"progressToken":1}}}`)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if err := strictjson.CheckEnvelope(in); err != nil {
			b.Fatal(err)
		}
	}
}
