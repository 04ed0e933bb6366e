package servertest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A checker is a transport that compares each answer under /v1 with what the
// server's OpenAPI document says of it, and fails the test if they differ.
type checker struct {
	tb   testing.TB
	base string
	next http.RoundTripper

	mu       sync.Mutex
	document map[string]any
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by their pointers
}

func newChecker(tb testing.TB, base string, next http.RoundTripper) *checker {
	return &checker{tb: tb, base: base, next: next, schemas: map[string]*jsonschema.Schema{}}
}

// RoundTrip sends the request, and checks the answer.
func (c *checker) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.next.RoundTrip(r)
	if err != nil || !strings.HasPrefix(r.URL.Path, "/v1") {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	if r.Method == http.MethodHead || res.StatusCode == http.StatusNoContent {
		if len(body) > 0 {
			c.tb.Errorf("%s %s: got a body of %d bytes, want none", r.Method, r.URL.Path, len(body))
		}
		return res, nil
	}
	c.check(r, res, body)
	return res, nil
}

func (c *checker) check(r *http.Request, res *http.Response, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.document == nil {
		c.load()
	}
	pointer, known := c.pointer(r.Method, r.URL.EscapedPath(), res.StatusCode)
	if !known && res.StatusCode < 400 {
		c.tb.Errorf("%s %s: got %d, want the answer to be in the OpenAPI document", r.Method, r.URL.Path, res.StatusCode)
		return
	}
	if t := res.Header.Get("Content-Type"); t != "application/json" {
		c.tb.Errorf("%s %s: got Content-Type %q for %d, want application/json", r.Method, r.URL.Path, t, res.StatusCode)
		return
	}
	schema := c.schemas[pointer]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile(documentURL + "#" + pointer); err != nil {
			c.tb.Errorf("OpenAPI schema %s: %v", pointer, err)
			return
		}
		c.schemas[pointer] = schema
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		c.tb.Errorf("%s %s: the answer %d is not as the OpenAPI document says: %v\n%s", r.Method, r.URL.Path, res.StatusCode, err, body)
	}
}

const documentURL = "https://openapi.test/"

// load reads the server's document.
func (c *checker) load() {
	r, err := http.NewRequest(http.MethodGet, c.base+"/openapi.json", nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	res, err := c.next.RoundTrip(r)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&c.document); err != nil {
		c.tb.Fatalf("OpenAPI document: %v", err)
	}
	c.compiler = jsonschema.NewCompiler()
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(documentURL, c.document); err != nil {
		c.tb.Fatalf("OpenAPI document: %v", err)
	}
}

// problemPointer is where the schema of errors is.
const problemPointer = "/components/responses/Problem/content/application~1json/schema"

// pointer returns where the schema of the answer is, and whether the document
// names the operation.
func (c *checker) pointer(method, path string, status int) (string, bool) {
	template := c.template(strings.ToLower(method), path)
	if template == "" {
		return problemPointer, false
	}
	responses := at(c.document, "paths", template, strings.ToLower(method), "responses")
	if _, ok := responses[strconv.Itoa(status)]; !ok {
		return problemPointer, status >= 400
	}
	return "/paths/" + strings.ReplaceAll(template, "/", "~1") + "/" + strings.ToLower(method) + "/responses/" + strconv.Itoa(status) + "/content/application~1json/schema", true
}

// template returns the path of the document that the path is of, "" if none.
func (c *checker) template(method, path string) string {
	best, most := "", -1
	parts := strings.Split(path, "/")
	for t, operations := range at(c.document, "paths") {
		if _, ok := operations.(map[string]any)[method]; !ok {
			continue
		}
		want := strings.Split(t, "/")
		if len(want) != len(parts) {
			continue
		}
		literal := 0
		for i, w := range want {
			switch {
			case w == parts[i]:
				literal++
			case !strings.HasPrefix(w, "{") || parts[i] == "":
				literal = -len(parts)
			}
		}
		if literal > most {
			best, most = t, literal
		}
	}
	return best
}

// at returns the object at the path of names in o, nil if there is none.
func at(o map[string]any, names ...string) map[string]any {
	for _, name := range names {
		o, _ = o[name].(map[string]any)
	}
	return o
}
