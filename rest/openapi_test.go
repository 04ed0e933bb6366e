package rest_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"trustpager/server/servertest"
)

var update = flag.Bool("update", false, "write the golden files")

// document returns the OpenAPI document as the server gives it to everybody.
func document(t *testing.T) []byte {
	t.Helper()
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	r := s.Do("GET", "/openapi.json", "", "").Want(t, 200)
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: got %q, want application/json", got)
	}
	return r.Body
}

func TestOpenAPIChangesOnlyOnPurpose(t *testing.T) {
	const golden = "testdata/openapi.golden.json"
	got := document(t)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the OpenAPI document is not %s; see what changed with: go test ./rest -run OpenAPI -update && git diff %s", golden, golden)
	}
}

func TestOpenAPIDocumentIsValid(t *testing.T) {
	loaded, err := openapi3.NewLoader().LoadFromData(document(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOpenAPIOperationsAreComplete(t *testing.T) {
	raw := document(t)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Summary     string
			Tags        []string
			Parameters  []struct{ In, Name string }
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if other, ok := seen[op.OperationID]; ok || op.OperationID == "" {
				t.Errorf("%s %s: operationId %q is also that of %s", method, path, op.OperationID, other)
			}
			seen[op.OperationID] = method + " " + path
			if op.Summary == "" {
				t.Errorf("%s: no summary", op.OperationID)
			}
			if op.Responses["default"] == nil || len(op.Responses) < 2 {
				t.Errorf("%s: got responses %v, want a success and the errors", op.OperationID, op.Responses)
			}
			declared := map[string]bool{}
			for _, p := range op.Parameters {
				if p.In == "path" {
					declared["{"+p.Name+"}"] = true
				}
			}
			for part := range strings.SplitSeq(path, "/") {
				if strings.HasPrefix(part, "{") && !declared[part] {
					t.Errorf("%s: path parameter %s is not declared", op.OperationID, part)
				}
				delete(declared, part)
			}
			if len(declared) > 0 {
				t.Errorf("%s: parameters %v are not in the path %s", op.OperationID, declared, path)
			}
		}
	}
}

func TestOpenAPISchemasCompileAndReferencesResolve(t *testing.T) {
	raw := document(t)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("https://openapi.test/", doc); err != nil {
		t.Fatal(err)
	}
	schemas := 0
	resolve := func(pointer string) bool {
		v := doc
		for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "#/"), "/") {
			o, ok := v.(map[string]any)
			if !ok {
				return false
			}
			if v, ok = o[strings.ReplaceAll(part, "~1", "/")]; !ok {
				return false
			}
		}
		return true
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(at+"/?", e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && !resolve(ref) {
				t.Errorf("%s: %s does not resolve", at, ref)
			}
			for name, member := range v {
				here := at + "/" + strings.ReplaceAll(name, "/", "~1")
				if name == "schema" && !strings.Contains(here, "?") {
					schemas++
					if _, err := c.Compile("https://openapi.test/#" + here); err != nil {
						t.Errorf("%s: %v", here, err)
					}
				}
				walk(here, member)
			}
		}
	}
	walk("", doc)
	if schemas < 100 {
		t.Errorf("got %d schemas, want those of all operations", schemas)
	}
}
