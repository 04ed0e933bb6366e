package catalog

import (
	"bytes"
	"encoding/json"
	"strings"
)

// A schema is a JSON Schema 2020-12 under construction. Its members are
// encoded in the order of the struct, so equal catalogs have equal bytes.
type schema struct {
	Type                 any        `json:"type,omitempty"`
	Description          string     `json:"description,omitempty"`
	Enum                 []any      `json:"enum,omitempty"`
	Format               string     `json:"format,omitempty"`
	Pattern              string     `json:"pattern,omitempty"`
	MinLength            int64      `json:"minLength,omitempty"`
	MaxLength            int64      `json:"maxLength,omitempty"`
	Minimum              *int64     `json:"minimum,omitempty"`
	Maximum              *int64     `json:"maximum,omitempty"`
	MinItems             int64      `json:"minItems,omitempty"`
	MaxItems             int64      `json:"maxItems,omitempty"`
	Default              any        `json:"default,omitempty"`
	Items                *schema    `json:"items,omitempty"`
	Properties           properties `json:"properties,omitempty"`
	Required             []string   `json:"required,omitempty"`
	AdditionalProperties *bool      `json:"additionalProperties,omitempty"`
}

// properties are the members of an object in the order in which they are
// shown.
type properties []property

type property struct {
	name   string
	schema *schema
}

// MarshalJSON returns the properties as an object.
func (ps properties) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, p := range ps {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, p.name), ':')
		b = append(b, p.schema.encode()...)
	}
	return append(b, '}'), nil
}

// encode returns the schema as JSON.
func (s *schema) encode() Schema {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a schema holds nothing that JSON does not
	}
	return bytes.TrimSpace(b.Bytes())
}

var closed = new(bool) // false, for additionalProperties

// input returns the schema of an object with the fields, preceded by the
// target's id if the action has a target.
func (a *Action) input() Schema {
	s := &schema{Type: "object", AdditionalProperties: closed, Properties: properties{}}
	if a.Target {
		f := a.idField()
		s.Properties = append(s.Properties, property{"id", f.schema()})
		s.Required = append(s.Required, "id")
	}
	for i := range a.fields {
		f := &a.fields[i]
		s.Properties = append(s.Properties, property{f.Name, f.schema()})
		if f.Required {
			s.Required = append(s.Required, f.Name)
		}
	}
	return s.encode()
}

// schema returns what the field takes as input: it accepts all that check accepts,
// while check also looks at what the words mean.
func (f *Field) schema() *schema {
	s := &schema{Description: f.Description}
	if f.Default != nil && f.Default != any(now) {
		s.Default = f.Default
	}
	s.Type = jsonType(f.Type)
	switch f.Type {
	case TypeString, TypeText:
		if f.bare {
			break
		}
		if f.Max < maxText {
			s.MaxLength = f.Max
		}
		if f.nonEmpty() {
			s.MinLength = 1
		}
	case TypeEmail:
		s.Format = "email"
	case TypePhone:
		s.Pattern = `^\+[1-9]\d{6,14}$`
	case TypeURL:
		s.Pattern = `^https?://\S+$`
	case TypeCurrency:
		s.Pattern = `^[A-Z]{3}$`
	case TypeDate:
		s.Format = "date"
	case TypeDateTime:
		s.Format = "date-time"
	case TypeInteger, TypeNumber, TypeMoney:
		if s.Enum = f.choices(); s.Enum != nil {
			break
		}
		if f.Min > -maxSafe {
			s.Minimum = &f.Min
		}
		if f.Max < maxSafe {
			s.Maximum = &f.Max
		}
	case TypeEnum:
		s.Enum = f.choices()
	case TypeTags:
		s.Items = &schema{Type: "string"}
		if f.bare {
			break
		}
		s.MaxItems = f.Max
		if f.Enum != nil {
			for _, w := range f.Enum {
				s.Items.Enum = append(s.Items.Enum, w)
			}
		} else {
			s.Items.MinLength, s.Items.MaxLength = 1, maxTag
		}
		if f.nonEmpty() {
			s.MinItems = 1
		}
	case TypeList:
		item := &schema{Type: "object", AdditionalProperties: closed}
		for i := range f.Fields {
			sub := &f.Fields[i]
			item.Properties = append(item.Properties, property{sub.Name, sub.schema()})
			if sub.Required {
				item.Required = append(item.Required, sub.Name)
			}
		}
		s.Items, s.MaxItems = item, f.Max
		if f.nonEmpty() {
			s.MinItems = 1
		}
	case TypeRef:
		if p := f.target.Prefix; p != "" {
			s.Pattern = "^" + p + `_\w{26}$`
		}
	}
	if f.null && !f.Required {
		s.Type = []any{s.Type, "null"}
		if s.Enum != nil {
			s.Enum = append(s.Enum, nil)
		}
	}
	return s
}

// choices returns the words, or numbers, that the schema offers for the field.
func (f *Field) choices() []any {
	if f.terse {
		return nil
	}
	var list []any
	for _, w := range f.Enum {
		if f.Type == TypeEnum {
			list = append(list, w)
		} else {
			list = append(list, json.Number(w))
		}
	}
	return list
}

// jsonType returns the JSON type of the values of t.
func jsonType(t Type) string {
	switch t {
	case TypeInteger, TypeMoney:
		return "integer"
	case TypeNumber:
		return "number"
	case TypeBoolean:
		return "boolean"
	case TypeTags, TypeList:
		return "array"
	case TypeObject:
		return "object"
	}
	return "string"
}

// output returns the schema of the field's values in answers. It names types
// only: who reads an answer has it before him.
func (f *Field) output() *schema {
	s := &schema{Type: jsonType(f.Type)}
	switch f.Type {
	case TypeTags:
		s.Items = &schema{Type: "string"}
	case TypeList:
		s.Items = &schema{Type: "object"}
		for i := range f.Fields {
			s.Items.Properties = append(s.Items.Properties, property{f.Fields[i].Name, f.Fields[i].output()})
		}
	}
	if f.Secret {
		s.Type = "string" // the mask
	}
	return s
}

// recordSchema returns the schema of a record of the resource in answers. In
// a part of a record, which the caller has chosen, only the id is certain.
func (r *Resource) recordSchema(part bool) *schema {
	s := object("id", "string", "version", "integer", "created_at", "string", "updated_at", "string")
	if part {
		s.Required = []string{"id"}
	}
	for i := range r.Fields {
		s.Properties = append(s.Properties, property{r.Fields[i].Name, r.Fields[i].output()})
	}
	return s
}

// object returns the schema of an object whose members are all required; pairs
// holds names and types in turn.
func object(pairs ...string) *schema {
	s := &schema{Type: "object"}
	for i := 0; i < len(pairs); i += 2 {
		s.Properties = append(s.Properties, property{pairs[i], &schema{Type: pairs[i+1]}})
		s.Required = append(s.Required, pairs[i])
	}
	return s
}

// ToolInput returns the schema of what the action's MCP tool takes. It is short,
// for it is sent with every list of tools: names, types, choices and what
// descriptions say, without bounds and patterns, which [Action.Input] has and
// the error of a wrong value tells. Null, which clears a field, is in the words of
// an update only, and what create_… says of a field update_… does not repeat.
//
// A reason belongs to it only if the call waits: nobody reads that of one that
// runs at once.
func ToolInput(a *Action, waits bool) Schema {
	s := &schema{Type: "object", Properties: properties{}}
	if a.Target {
		s.Properties = append(s.Properties, property{"id", &schema{Type: "string"}})
		s.Required = append(s.Required, "id")
	}
	for i := range a.fields {
		f := &a.fields[i]
		if f.told && f.Name == a.reason && !waits {
			continue
		}
		s.Properties = append(s.Properties, property{f.Name, f.short(a.Op == OpUpdate)})
		if f.Required {
			s.Required = append(s.Required, f.Name)
		}
	}
	return s.encode()
}

// short returns the schema of the field in a tool's input.
func (f *Field) short(repeated bool) *schema {
	s := &schema{Type: jsonType(f.Type)}
	if !repeated && !f.told {
		s.Description = f.Description
	}
	if f.told {
		switch f.Type {
		case TypeEnum: // the order of a list: each name twice
			s.Description = ordersOf(f.Enum)
		case TypeTags: // which Decode takes as text with commas
			s.Type = "string"
		}
		return s
	}
	switch f.Type {
	case TypeDate:
		s.Format = "date"
	case TypeDateTime:
		s.Format = "date-time"
	case TypeInteger, TypeEnum:
		s.Enum = f.choices()
	case TypeTags:
		s.Items = &schema{Type: "string"}
	case TypeList:
		s.Items = &schema{Type: "object"}
		for i := range f.Fields {
			sub := &f.Fields[i]
			s.Items.Properties = append(s.Items.Properties, property{sub.Name, sub.short(repeated)})
			if sub.Required {
				s.Items.Required = append(s.Items.Required, sub.Name)
			}
		}
	case TypeRef:
		if !repeated && !f.bare && f.Description == "" && f.Name != strings.ReplaceAll(f.target.Singular, "-", "_")+"_id" {
			s.Description = f.target.Prefix + "_…"
		}
	}
	return s
}

// ordersOf says which orders a list has.
func ordersOf(orders []string) string {
	var names []string
	for _, o := range orders {
		if !strings.HasPrefix(o, "-") && o != "updated_at" {
			names = append(names, o)
		}
	}
	return strings.Join(names, ", ") + "; - descends"
}

// article returns the noun with its indefinite article.
func article(noun string) string {
	if !strings.ContainsAny(noun[:min(1, len(noun))], "aeiou") || strings.HasPrefix(noun, "us") || strings.HasPrefix(noun, "uni") {
		return "a " + noun
	}
	return "an " + noun
}
