package rest_test

import (
	"bytes"
	"compress/gzip"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// samples are bodies that make one record of each resource; PIPELINE stands for
// the id of the pipeline.
var samples = []struct{ resource, body string }{
	{"contacts", `{"first_name":"Ada"}`},
	{"customers", `{"name":"Babbage Ltd"}`},
	{"pipelines", `{"name":"Sales","stages":[{"name":"New"}]}`},
	{"deals", `{"title":"Engine","pipeline_id":"PIPELINE"}`},
	{"products", `{"name":"Card"}`},
	{"tasks", `{"title":"Call"}`},
	{"activities", `{"type":"note"}`},
	{"work-orders", `{"title":"Repair"}`},
	{"notepads", `{"title":"Notes"}`},
	{"documents", `{"title":"Offer"}`},
	{"webhooks", `{"url":"http://127.0.0.1:65000/","events":["deals.created"]}`},
}

// A target is a route that writes, with the ids of things that exist.
type target struct {
	name, method, path string
	members            map[string]json.RawMessage // of the body: their schemas
}

// targets returns all routes that write, of a server in which there is one of
// each thing.
func targets(t *testing.T, s *servertest.Server) []target {
	t.Helper()
	ids := map[string]string{}
	for _, sample := range samples {
		r := s.Do("POST", "/v1/"+sample.resource, s.Full, strings.ReplaceAll(sample.body, "PIPELINE", ids["pipelines"])).Want(t, 201)
		ids[sample.resource] = r.Text("data.id")
	}
	ids["keys"] = s.AgentID
	ids["approvals"] = s.Do("POST", "/v1/contacts", s.Agent, `{"first_name":"Waiting"}`).Want(t, 202).Text("approval.id")
	ids["loans"] = s.Do("POST", "/v1/approvals/"+ids["approvals"]+"/lend", s.Full, `{"minutes":60}`).Want(t, 201).Text("data.id")
	s.Do("PATCH", "/v1/keys/"+s.AgentID, s.Full, `{"webhook_url":"http://127.0.0.1:65000/"}`).Want(t, 200)
	ids["clients"] = s.Do("POST", "/v1/clients", s.Full, `{"name":"Agent","redirect_uris":["https://client.example.com/callback"],"webhook_url":"http://127.0.0.1:65000/"}`).Want(t, 201).Text("data.id")
	ids["grants"] = consent(t, s, ids["clients"], "ada@example.com", "contacts:read")
	ids["deliveries"] = s.Do("POST", "/v1/keys/"+s.AgentID+"/webhook/test", s.Full, "").Want(t, 202).Text("data.id")

	u, err := s.Desk.AddUser(t.Context(), admin.OperatorGrant(s.Workspace), "grace@example.com", "Grace", "", access.Member)
	if err != nil {
		t.Fatal(err)
	}
	ids["users"] = u.ID

	ids["email"] = s.Do("POST", "/v1/email/send", s.Full, `{"to":["ada@example.com"],"subject":"Hello","body":"Hello"}`).Want(t, 200).Text("data.id")
	ids["integrations"] = s.Do("POST", "/v1/integrations", s.Full, `{"kind":"twilio","name":"Telephone","account_sid":"AC00000000000000000000000000000000","numbers":["+4930123456"]}`).Want(t, 201).Text("data.id")

	type schema struct {
		Ref        string `json:"$ref"`
		Properties map[string]json.RawMessage
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			RequestBody struct {
				Content map[string]struct{ Schema schema }
			}
		}
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(s.Do("GET", "/openapi.json", "", "").Want(t, 200).Body, &doc); err != nil {
		t.Fatal(err)
	}
	var all []target
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if method == "get" {
				continue
			}
			body := op.RequestBody.Content["application/json"].Schema
			if name, ok := strings.CutPrefix(body.Ref, "#/components/schemas/"); ok {
				body = doc.Components.Schemas[name]
			}
			resource := strings.Split(path, "/")[2]
			if strings.Contains(path, "{id}") && ids[resource] == "" {
				t.Fatalf("%s: there is no sample of %s", path, resource)
			}
			all = append(all, target{op.OperationID, strings.ToUpper(method), strings.ReplaceAll(path, "{id}", ids[resource]), body.Properties})
		}
	}
	slices.SortFunc(all, func(a, b target) int { return strings.Compare(a.name, b.name) })
	if len(all) < 40 {
		t.Fatalf("got %d writing routes, want all", len(all))
	}
	return all
}

// badBodies are wrong whatever the route.
var badBodies = map[string]string{
	"not JSON":                  `first_name=Ada`,
	"XML":                       `<contact><first_name>Ada</first_name></contact>`,
	"cut off":                   `{"first_name":"Ada"`,
	"trailing value":            `{} {}`,
	"trailing comma":            `{"first_name":"Ada",}`,
	"duplicate name":            `{"reason":"x","reason":"y"}`,
	"duplicate name by escape":  `{"reason":"x","\u0072eason":"y"}`,
	"duplicate name, nested":    `{"metadata":{"a":1,"\u0061":2}}`,
	"array":                     `[{"first_name":"Ada"}]`,
	"string":                    `"Ada"`,
	"number":                    `1`,
	"true":                      `true`,
	"null":                      `null`,
	"unknown member":            `{"no_such_member":1}`,
	"other case":                `{"REASON":"x","Reason":"y"}`,
	"prototype":                 `{"__proto__":{"admin":true}}`,
	"depth of 10,000":           strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat(`}`, 10_000),
	"depth of 10,000, cut off":  strings.Repeat(`[`, 10_000),
	"escaped NUL":               `{"reason":"a\u0000b"}`,
	"NUL":                       "{\"reason\":\"a\x00b\"}",
	"invalid UTF-8":             "{\"reason\":\"a\xff\xfeb\"}",
	"overlong UTF-8":            "{\"reason\":\"\xc0\xaf\"}",
	"lone surrogate":            `{"reason":"\ud800"}`,
	"lone surrogate, low first": `{"reason":"\udc00\ud800"}`,
	"name with a surrogate":     `{"\ud800":1}`,
	"byte order mark":           "\ufeff{}",
	"UTF-16":                    "\xff\xfe{\x00}\x00",
	"number with 400 digits":    `{"no_such_member":1` + strings.Repeat("0", 400) + `}`,
	"above 1 MiB":               `{"reason":"` + strings.Repeat("x", 1<<20) + `"}`,
	"1 MiB of space":            strings.Repeat(" ", 1<<20+1),
	"50,000 members":            manyMembers(50_000),
	"comment":                   `{/* nothing */}`,
	"NaN":                       `{"no_such_member":NaN}`,
}

func manyMembers(n int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		fmt.Fprintf(&b, `"m%d":1,`, i)
	}
	return b.String() + `"last":1}`
}

func TestBadBodiesAreRefusedEverywhereAndNothingIsStored(t *testing.T) {
	eachIdle(t, func(t *testing.T, s *servertest.Server) {
		all := targets(t, s)
		before := rows(t, s.Database)
		for _, to := range all {
			for name, body := range badBodies {
				refused(t, to, name, s.Do(to.method, to.path, s.Full, body))
			}
			for name, headers := range map[string][]string{
				"form":         {"Content-Type", "application/x-www-form-urlencoded"},
				"text":         {"Content-Type", "text/plain"},
				"nonsense":     {"Content-Type", ";"},
				"other JSON":   {"Content-Type", "application/merge-patch+xml"},
				"latin-1":      {"Content-Type", "application/json; charset=iso-8859-1"},
				"gzip":         {"Content-Encoding", "gzip"},
				"gzip, really": {"Content-Encoding", "gzip", "X-Compressed", "yes"},
				"br":           {"Content-Encoding", "br, identity"},
			} {
				body := `{}`
				if len(headers) > 2 {
					body = zipped(body)
				}
				if got := refused(t, to, name, s.Do(to.method, to.path, s.Full, body, headers...)); got.Status != 415 {
					t.Errorf("%s, %s: got %d %s, want 415", to.name, name, got.Status, got.Body)
				}
			}
		}
		if after := rows(t, s.Database); !maps.Equal(before, after) {
			t.Errorf("rows: got %v, want %v as before", after, before)
		}
	})
}

func TestMembersOfAWrongTypeAreRefusedEverywhereAndNothingIsStored(t *testing.T) {
	eachIdle(t, func(t *testing.T, s *servertest.Server) {
		all := targets(t, s)
		before := rows(t, s.Database)
		tried := 0
		for _, to := range all {
			for member, schema := range to.members {
				for _, value := range wrongFor(schema) {
					tried++
					r := refused(t, to, member, s.Do(to.method, to.path, s.Full, `{"`+member+`":`+value+`}`))
					named := false
					for i := range r.Len("error.fields") {
						path := r.Text(fmt.Sprintf("error.fields.%d.path", i))
						named = named || path == member || strings.HasPrefix(path, member+".")
					}
					if !named {
						t.Errorf("%s with %s of %.60s: got %.300s, want the member named", to.name, member, value, r.Body)
					}
				}
			}
		}
		if tried < 500 {
			t.Errorf("got %d wrong values, want those of all members", tried)
		}
		if after := rows(t, s.Database); !maps.Equal(before, after) {
			t.Errorf("rows: got %v, want %v as before", after, before)
		}
	})
}

// wrongFor returns values that the schema of a member does not allow.
func wrongFor(schema json.RawMessage) []string {
	var s struct{ Type any }
	if json.Unmarshal(schema, &s) != nil || s.Type == nil {
		return nil // anything goes
	}
	wrong := map[string]string{"string": `"\u202e\ud83d\ude00 no such value"`, "array": `[[[1]]]`, "object": `{"a":{"b":1}}`, "boolean": `true`, "number": `1.5`, "big": `1` + strings.Repeat("0", 400), "huge": `1e999`, "tiny": `-1e-999`}
	types, ok := s.Type.([]any)
	if !ok {
		types = []any{s.Type}
	}
	for _, allowed := range types {
		switch allowed {
		case "number", "integer":
			if allowed == "number" {
				delete(wrong, "number")
				delete(wrong, "tiny")
			}
		case "null":
		default:
			delete(wrong, allowed.(string))
		}
	}
	return slices.Collect(maps.Values(wrong))
}

// refused fails the test unless the answer says clearly that the caller is at
// fault.
func refused(t *testing.T, to target, what string, r servertest.Response) servertest.Response {
	t.Helper()
	if r.Status < 400 || r.Status >= 500 || r.Text("error.message") == "" || r.Text("error.fix") == "" || len(r.Body) > 30_000 {
		t.Errorf("%s, %s: got %d %.500s, want a 4xx with a message and a fix", to.name, what, r.Status, r.Body)
	}
	return r
}

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

// eachIdle is each without background work, so that nothing but the requests
// changes the database.
func eachIdle(t *testing.T, test func(t *testing.T, s *servertest.Server)) {
	t.Helper()
	storagetest.EachURL(t, func(t *testing.T, url string) { test(t, servertest.New(t, url, servertest.Options{})) })
}

// rows counts the rows of all tables, except those that also tell of refusals.
func rows(t *testing.T, url string) map[string]int64 {
	t.Helper()
	driver, tables := "sqlite", `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'record_search%' AND name NOT LIKE 'sqlite%'`
	if strings.HasPrefix(url, "postgres") {
		driver, tables = "pgx", `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`
	}
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	names, err := db.Query(tables)
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	counts := map[string]int64{}
	for names.Next() {
		var name string
		if err := names.Scan(&name); err != nil {
			t.Fatal(err)
		}
		counts[name] = 0
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	delete(counts, "audit_entries")
	delete(counts, "key_usage")
	for name := range counts {
		var n int64
		if err := db.QueryRow(`SELECT COUNT(*) FROM ` + name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		counts[name] = n
	}
	if counts["records"] == 0 || counts["approvals"] == 0 {
		t.Fatalf("rows: got %v, want records and approvals", counts)
	}
	return counts
}

func TestUnknownIDsAreNotFound(t *testing.T) {
	eachIdle(t, func(t *testing.T, s *servertest.Server) {
		for _, to := range targets(t, s) {
			parts := strings.Split(to.path, "/")
			if len(parts) < 4 || !strings.Contains(parts[3], "_") {
				continue
			}
			prefix, _, _ := strings.Cut(parts[3], "_")
			for _, id := range []string{prefix + "_00000000000000000000000000", prefix + "_x", "x", "0", "null", "..%2f", "%00", "%f0%9f%98%80", strings.Repeat("x", 3000)} {
				parts[3] = id
				body := map[string]string{"reject": `{"reason":"no"}`, "lend": `{"minutes":60}`, "extend_approval": `{"until":"2026-03-05T10:00:00Z"}`, "move_deal": `{"stage":"New"}`, "update_user_role": `{"role":"admin"}`, "reply_to_email": `{"body":"x"}`,
					"link_contact_to_customer": `{"customer_id":"cus_00000000000000000000000000"}`, "resend_webhook_delivery": `{"delivery":"msg_00000000000000000000000000"}`}[to.name]
				if to.name == "update_grant" {
					body = `{"scopes":[]}`
				} else if to.method == "PATCH" {
					body = `{"name":"x"}`
					for _, sample := range samples {
						if sample.resource == parts[2] {
							body = strings.ReplaceAll(sample.body, "PIPELINE", "pip_00000000000000000000000000")
						}
					}
				}
				r := s.Do(to.method, strings.Join(parts, "/"), s.Full, body)
				if r.Status != 404 || r.Text("error.message") == "" {
					t.Errorf("%s of %.50q: got %d %.300s, want 404", to.name, id, r.Status, r.Body)
				}
			}
		}
	})
}

func TestTextIsKeptAsItIs(t *testing.T) {
	eachIdle(t, func(t *testing.T, s *servertest.Server) {
		for _, text := range []string{`'; DROP TABLE records; --`, `" OR ""="`, `\'; SELECT pg_sleep(9) --`, `$1 $2 ? :name @x`, `<script>alert(1)</script>`, `<img src=x onerror=alert(1)>`, `{{.Secret}} ${7*7} #{7*7}`, `%s%n%x%d`,
			`../../etc/passwd`, "a\tb\nc", "\u200bzero\u200dwidth\ufeff", "\u202eevil\u202c", "\U000E0041tag", "e\u0301 \u00e9", "😀👩‍👩‍👧", "\u2028line\u2029", "\uffff\ufffe", "=1+1", "日本語"} {
			sent, err := json.Marshal(map[string]any{"first_name": "x", "notes": text, "metadata": map[string]any{"list": []any{text, nil, 1e2, true}}})
			if err != nil {
				t.Fatal(err)
			}
			made := s.Do("POST", "/v1/contacts", s.Full, string(sent)).Want(t, 201)
			got := s.Do("GET", "/v1/contacts/"+made.Text("data.id"), s.Full, "").Want(t, 200)
			metadata, _ := got.Get("data.metadata").(map[string]any)
			list, _ := metadata["list"].([]any)
			if got.Text("data.notes") != text || len(list) != 4 || list[0] != text {
				t.Errorf("%q: got %s", text, got.Body)
			}
		}
	})
}

func TestLargeBodiesCostLittleMemory(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	const requests, size = 20, 10 << 20
	answered := 0
	send := func(length int64) {
		r, err := http.NewRequest("POST", s.URL+"/v1/contacts", io.LimitReader(spaces{}, size))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+s.Full)
		res, err := s.Client.Do(r)
		if err != nil {
			return // the server has closed the connection before the client had read the answer
		}
		defer res.Body.Close()
		answered++
		if res.StatusCode != 413 {
			t.Errorf("10 MiB: got %d, want 413", res.StatusCode)
		}
	}
	send(size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range requests {
		send([]int64{size, -1}[i%2]) // -1: chunked, of unknown length
	}
	runtime.ReadMemStats(&after)
	if answered < requests/2 {
		t.Errorf("got %d answers to %d bodies of 10 MiB, want most of them", answered, requests)
	}
	if each := (after.TotalAlloc - before.TotalAlloc) / requests; each > 6<<20 {
		t.Errorf("each of %d bodies of 10 MiB cost %d bytes of memory, want at most 6 MiB", requests, each)
	}
	if got := s.Do("GET", "/v1/contacts", s.Full, "").Want(t, 200).Len("data"); got != 0 {
		t.Errorf("contacts: got %d, want 0", got)
	}
}

func TestManyUnknownParametersAreAnsweredShortly(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	var query strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&query, "&x%d=1", i)
	}
	for _, path := range []string{"/v1/me", "/v1/approvals", "/v1/keys", "/v1/deliveries", "/v1/audit", "/v1/contacts"} {
		r := s.Do("GET", path+"?"+query.String()[1:], s.Full, "").Want(t, 400)
		if len(r.Body) > 20_000 {
			t.Errorf("%s: got %d bytes about 5000 parameters, want at most 20000", path, len(r.Body))
		}
	}
}

// spaces never ends.
type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func TestChunkedBodyIsReadToItsEnd(t *testing.T) {
	eachIdle(t, func(t *testing.T, s *servertest.Server) {
		r, err := http.NewRequest("POST", s.URL+"/v1/contacts", io.MultiReader(strings.NewReader(`{"first_`), strings.NewReader(`name":"Ada"}`)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.Full)
		if got := s.Send(r).Want(t, 201); got.Text("data.first_name") != "Ada" {
			t.Errorf("got %s, want Ada", got.Body)
		}
	})
}
