package rest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
)

// object is a JSON object of the document. encoding/json sorts its members, so
// equal catalogs give equal bytes.
type object = map[string]any

// wire are the schemas of types that do not encode as their fields.
var wire = map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[json.RawMessage](): {},
	reflect.TypeFor[problem.Error](): {Type: "object", Required: []string{"code", "message", "status"}, Properties: map[string]*jsonschema.Schema{
		"code":    {Type: "string", Description: "what went wrong, for programs"},
		"message": {Type: "string", Description: "what went wrong, for people and models"},
		"fix":     {Type: "string", Description: "how to mend it"},
		"hint":    {Type: "string", Description: "what else may help"},
		"status":  {Type: "integer", Description: "the HTTP status"},
		"fields": {Type: "array", Description: "what is wrong with each field", Items: &jsonschema.Schema{Type: "object",
			Required: []string{"path", "expected", "got"}, Properties: map[string]*jsonschema.Schema{
				"path": {Type: "string"}, "expected": {Type: "string"}, "got": {Type: "string"}}}},
	}},
}

// OpenAPI returns the API's description, as of OpenAPI 3.1. It fails only if a
// type of an answer has no schema.
func (api *API) OpenAPI() ([]byte, error) {
	paths := map[string]object{}
	add := func(path, method string, operation object) {
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][strings.ToLower(method)] = operation
	}
	var tags []object
	for _, r := range api.Catalog.Resources() {
		if len(api.Catalog.ActionsOf(r.Name)) > 0 {
			tags = append(tags, object{"name": r.Name, "description": r.Group})
		}
	}
	for _, a := range api.Catalog.Actions() {
		add("/v1"+a.Path, a.Method, actionOperation(a))
	}
	schemas := object{}
	component := func(v any, answer bool) (object, error) {
		t := reflect.TypeOf(v)
		list := t.Kind() == reflect.Slice
		if list {
			t = t.Elem()
		}
		s, err := schemaOf(t)
		if err != nil {
			return nil, err
		}
		if answer {
			noNull(s)
		}
		name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		schemas[name] = s
		if list {
			return object{"type": "array", "items": ref(name)}, nil
		}
		return ref(name), nil
	}
	for _, r := range api.routes() {
		op, err := routeOperation(r, component)
		if err != nil {
			return nil, err
		}
		add("/v1"+r.Path, r.Method, op)
	}
	for name, v := range map[string]any{"Problem": problem.Error{}, "Answer": approvals.Answer{}, "DryRun": approvals.DryRun{}, "Pagination": catalog.Pagination{}} {
		s, err := schemaOf(reflect.TypeOf(v))
		if err != nil {
			return nil, err
		}
		noNull(s)
		schemas[name] = s
	}
	tags = append(tags, object{"name": "approvals"}, object{"name": "keys"}, object{"name": "audit"})
	document, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{"title": "TrustPager", "version": "1", "summary": "A business workspace for people and their agents.",
			"description": "Every action passes one gate: it is refused, performed, or held until a person approves it. What is held answers 202 with status pending_approval."},
		"servers":  []object{{"url": "/"}},
		"security": []object{{"key": []string{}}},
		"tags":     tags,
		"paths":    paths,
		"components": object{
			"schemas": schemas,
			"securitySchemes": object{"key": object{"type": "http", "scheme": "bearer", "bearerFormat": access.SecretPrefix + "…",
				"description": "An API key."}},
			"responses": object{"Problem": object{"description": "The request was refused, or failed.",
				"content": content(object{"type": "object", "required": []string{"error"}, "properties": object{"error": ref("Problem")}})}},
		},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	return append(document, '\n'), nil
}

// schemaOf returns the schema of what t encodes as.
func schemaOf(t reflect.Type) (*jsonschema.Schema, error) {
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: wire})
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", t, err)
	}
	return s, nil
}

// noNull takes back that arrays may be null, as Go's encoding would have it:
// no answer holds such a one.
func noNull(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if slices.Equal(s.Types, []string{"null", "array"}) {
		s.Type, s.Types = "array", nil
	}
	noNull(s.Items)
	for _, p := range s.Properties {
		noNull(p)
	}
}

// text is the schema of most parameters.
var text = object{"type": "string"}

// querySchemas are those of the query parameters that are not any text.
var querySchemas = map[string]object{
	"limit":      {"type": "integer", "minimum": 1, "maximum": maxLimit, "default": defaultLimit},
	"cursor":     {"type": "string", "description": "next_cursor of the page before"},
	"since":      {"type": "string", "format": "date-time"},
	"until":      {"type": "string", "format": "date-time"},
	"execution":  {"type": "string", "enum": executions},
	"approvals":  {"type": "string", "enum": statuses},
	"deliveries": {"type": "string", "enum": deliveryStates},
}

// querySchema returns the schema of the parameter of a route; status has other
// words on each.
func querySchema(tag, name string) object {
	if name == "status" {
		name = tag
	}
	if s, ok := querySchemas[name]; ok {
		return s
	}
	return text
}

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

func content(schema any) object { return object{"application/json": object{"schema": schema}} }

// envelope returns the schema of an answer with the given data.
func envelope(data any, list bool) object {
	s := object{"type": "object", "required": []string{"data"}, "properties": object{"data": data}}
	if list {
		s["properties"] = object{"data": data, "pagination": ref("Pagination")}
		s["required"] = []string{"data", "pagination"}
	}
	return s
}

func responses(status int, description string, schema object) object {
	return object{strconv.Itoa(status): object{"description": description, "content": content(schema)},
		"default": object{"$ref": "#/components/responses/Problem"}}
}

func parameter(in, name string, required bool, schema any) object {
	return object{"in": in, "name": name, "required": required, "schema": schema}
}

func pathParameters(path string) []object {
	var ps []object
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			ps = append(ps, parameter("path", strings.TrimSuffix(name, "}"), true, text))
		}
	}
	return ps
}

// actionOperation describes an action of the catalog.
func actionOperation(a *catalog.Action) object {
	parameters := pathParameters(a.Path)
	op := object{"operationId": a.Name, "summary": a.Title, "description": a.Description, "tags": []string{a.Resource}}
	if a.Resource == "" {
		delete(op, "tags")
	} else {
		op["x-scope"] = a.Scope().String()
	}
	var input struct {
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
	}
	if err := json.Unmarshal(a.Input, &input); err != nil {
		panic(err) // the catalog has made it
	}
	if a.Target {
		delete(input.Properties, "id") // it is in the path
		input.Required = slices.DeleteFunc(input.Required, func(n string) bool { return n == "id" })
	}
	if a.Method == http.MethodGet {
		for _, name := range slices.Sorted(maps.Keys(input.Properties)) {
			parameters = append(parameters, parameter("query", name, slices.Contains(input.Required, name), input.Properties[name]))
		}
	} else {
		body := object{"type": "object", "properties": input.Properties, "additionalProperties": false}
		if len(input.Required) > 0 {
			body["required"] = input.Required
		}
		op["requestBody"] = object{"required": len(input.Required) > 0, "content": content(body)}
		if a.Method == http.MethodDelete {
			parameters = append(parameters, parameter("query", dryRunParameter, false, object{"type": "boolean"}))
		}
		parameters = append(parameters, parameter("header", "Idempotency-Key", false, object{"type": "string", "maxLength": 255}))
		if a.Target {
			parameters = append(parameters, parameter("header", "If-Match", false, object{"type": "string", "description": `The version that the record must have, as in "3".`}))
		}
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	list := a.Op == catalog.OpList || a.Op == catalog.OpSearch
	done := http.StatusOK
	if a.Op == catalog.OpCreate {
		done = http.StatusCreated
	}
	rs := responses(done, "Done.", envelope(a.Output, list))
	if a.Verb != access.Read {
		rs[strconv.Itoa(http.StatusAccepted)] = object{"description": "Not executed: a person must approve it first, or has decided against it.", "content": content(ref("Answer"))}
		if done == http.StatusCreated {
			rs[strconv.Itoa(http.StatusOK)] = object{"description": "The same was asked before, approved and executed; or it was a dry run.",
				"content": content(object{"anyOf": []any{ref("Answer"), ref("DryRun")}})}
		} else {
			rs[strconv.Itoa(http.StatusOK)] = object{"description": "Done; or the same was asked before, approved and executed; or it was a dry run.",
				"content": content(object{"anyOf": []any{envelope(a.Output, list), ref("Answer"), ref("DryRun")}})}
		}
	}
	op["responses"] = rs
	return op
}

// routeOperation describes a route that is no action of the catalog.
func routeOperation(r route, component func(v any, answer bool) (object, error)) (object, error) {
	tag, _, _ := strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
	first := tag
	if tag == "me" || tag == "deliveries" {
		tag = "keys"
	}
	op := object{"operationId": r.Name, "summary": r.Summary, "tags": []string{tag}}
	parameters := pathParameters(r.Path)
	for _, q := range r.query {
		parameters = append(parameters, parameter("query", q, false, querySchema(first, q)))
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if r.in != nil {
		s, err := component(r.in, false)
		if err != nil {
			return nil, err
		}
		op["requestBody"] = object{"required": false, "content": content(s)}
	}
	s, err := component(r.out, true)
	if err != nil {
		return nil, err
	}
	if r.list {
		s = object{"type": "array", "items": s}
	}
	op["responses"] = responses(max(r.status, http.StatusOK), "Done.", envelope(s, r.list))
	return op, nil
}
