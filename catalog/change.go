package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"trustpager/access"
)

// A Change is what a transaction has done to one record.
type Change struct {
	Op     Op              // [OpCreate], [OpUpdate] or [OpDelete]
	Record Record          // as it is now; a deleted one as it was
	Before json.RawMessage // the body before an update
}

// ChangeWords are what events call the changes of records, in the order of a
// record's life.
var ChangeWords = []string{"created", "updated", "deleted"}

// Event returns the name of the change among events, as in contacts.created.
func (c Change) Event() string { return c.Record.Resource + "." + c.Word() }

// Word returns what has become of the record, one of [ChangeWords].
func (c Change) Word() string {
	return map[Op]string{OpCreate: "created", OpUpdate: "updated", OpDelete: "deleted"}[c.Op]
}

// Tells reports whether changes of the resource's records can be told: it keeps
// records, and who may read them can be said.
func (r *Resource) Tells() bool {
	return r.Keeps && slices.Contains(r.Ladder.Verbs(), access.Read)
}

// Differences returns the names of the fields that an update has changed, sorted,
// and the values that they had; a field that was not set has none. Secret values
// are masked.
func (r *Resource) Differences(c Change) (changed []string, before map[string]json.RawMessage, err error) {
	var was, is map[string]json.RawMessage
	if err := json.Unmarshal(c.Before, &was); err != nil {
		return nil, nil, fmt.Errorf("decode record %s: %w", c.Record.ID, err)
	}
	if err := json.Unmarshal(c.Record.Body, &is); err != nil {
		return nil, nil, fmt.Errorf("decode record %s: %w", c.Record.ID, err)
	}
	changed, before = []string{}, map[string]json.RawMessage{}
	for i := range r.Fields {
		f := &r.Fields[i]
		old, set := was[f.Name]
		if bytes.Equal(old, is[f.Name]) {
			continue
		}
		changed = append(changed, f.Name)
		switch {
		case !set:
		case f.Secret:
			before[f.Name] = json.RawMessage(`"` + Masked + `"`)
		default:
			before[f.Name] = old
		}
	}
	slices.Sort(changed)
	return changed, before, nil
}
