package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"trustpager/access"
)

// searchAction returns the search across all record resources. It belongs to
// no resource: [Action.Level] allows it to whoever may read any, and it looks
// only into the resources that the grant reads without asking anybody.
func searchAction(c *Catalog) *Action {
	var searched []*Resource
	var names []string
	for _, r := range c.resources {
		if r.Keeps && r.Ladder != access.AILadder && slices.ContainsFunc(r.Fields, func(f Field) bool { return f.Search }) {
			searched = append(searched, r)
			names = append(names, r.Name)
		}
	}
	hit := object("resource", "string", "id", "string", "title", "string", "created_at", "string", "updated_at", "string")
	a := &Action{Name: "search", Verb: access.Read, Op: OpSearch, Title: "Search everything",
		Description: "Find records of all kinds with all words, newest first; beginnings match. Answers resource, id and title.",
		Method:      "GET", Path: "/search", Idempotent: true,
		Output: (&schema{Type: "array", Items: hit}).encode(),
		fields: []Field{
			{Name: "query", Type: TypeString, Required: true, Max: maxString},
			{Name: "resources", Type: TypeTags, Enum: names, Max: maxTags, null: true, Description: "Only these, as in contacts."},
			limitField(),
		},
		readable: names}
	if names == nil {
		a.fields = slices.DeleteFunc(a.fields, func(f Field) bool { return f.Name == "resources" })
	}
	a.plan = func(_ context.Context, _ Store, call Call, _ bool) (plan, error) {
		return a.planSearch(call, searched)
	}
	return a
}

func (a *Action) planSearch(c Call, searched []*Resource) (plan, error) {
	words, _ := c.Input.Values["query"].(string)
	terms := Terms(words)
	if len(terms) == 0 {
		var fs faults
		fs.put("query", "at least one letter or digit", shorten(words), "")
		return plan{}, fs.err(a.Name)
	}
	only, _ := c.Input.Values["resources"].([]any)
	limit := limitOf(c.Input.Values)
	return plan{run: func(ctx context.Context, s Store) (Result, error) {
		var hits []Record
		for _, r := range searched {
			if c.Grant.Decide(r.Name, access.Read) != access.Run || len(only) > 0 && !slices.Contains(only, any(r.Name)) {
				continue
			}
			recs, _, err := s.ListRecords(ctx, c.Grant.Workspace.ID, r.Name, Query{Terms: terms, Desc: true, Limit: limit + 1})
			if err != nil {
				return Result{}, err
			}
			hits = append(hits, recs...)
		}
		slices.SortStableFunc(hits, func(a, b Record) int {
			if d := b.CreatedAt.Compare(a.CreatedAt); d != 0 {
				return d
			}
			return strings.Compare(b.ID, a.ID)
		})
		page := &Pagination{Limit: limit, HasMore: len(hits) > limit}
		data := []any{}
		for _, rec := range hits[:min(limit, len(hits))] {
			i := slices.IndexFunc(searched, func(r *Resource) bool { return r.Name == rec.Resource })
			values, err := decodeObject(rec.Body)
			if err != nil || i < 0 {
				return Result{}, fmt.Errorf("decode record %s of %q: %w", rec.ID, rec.Resource, err)
			}
			data = append(data, map[string]any{
				"resource": rec.Resource, "id": rec.ID, "title": searched[i].titleOf(values),
				"created_at": formatTime(rec.CreatedAt), "updated_at": formatTime(rec.UpdatedAt),
			})
		}
		return Result{Data: appendJSON(nil, data), Pagination: page}, nil
	}}, nil
}
