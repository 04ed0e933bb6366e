package mcp

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
)

// The bounds of search_tools.
const (
	foundTools = 5
	mostFound  = 20
)

// searchTools returns the two tools of the mode for long catalogs: the list of all
// tools costs a model tens of thousands of tokens, these some hundreds.
func (s *Server) searchTools() []*tool {
	return []*tool{
		plainTool("search_tools", "Search tools",
			"Finds the tools that do what you want, with the arguments that each takes. Search before you say that something cannot be done. Without query it lists all names.",
			`{"type":"object","properties":{"query":{"type":"string","description":"Words of what you want to do, as in: create contact, send sms, log call."},"limit":{"type":"integer","maximum":20,"default":5}}}`,
			annotations("Search tools", true, false, true, false), s.searchFor),
		plainTool("call_tool", "Call tool",
			"Calls a tool that search_tools has found. Some wait for approval by a person: their description says so, and their answer.",
			`{"type":"object","properties":{"name":{"type":"string"},"arguments":{"type":"object","description":"As the tool's input_schema says."}},"required":["name"]}`,
			annotations("Call tool", false, true, false, true), s.callTool),
	}
}

// A found tool is one that search_tools has found. It has the whole schema, with
// bounds and patterns: it is one of few.
type foundTool struct {
	Name        string          `json:"name"`
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Input       json.RawMessage `json:"input_schema"`
	Scope       string          `json:"scope,omitempty"`
	ReadOnly    bool            `json:"read_only"`
	Waits       bool            `json:"waits_for_approval"`
}

// usable returns the tools that the call may use, whether the mode offers them or
// they are called by call_tool.
func (s *Server) usable(c *call) []*tool {
	return slices.DeleteFunc(slices.Clone(s.tools), func(t *tool) bool { return s.level(c.grant, c.selection.whole(), t) == access.Deny })
}

func (s *Server) searchFor(_ context.Context, c *call) (answer, error) {
	var query string
	limit := foundTools
	err := arguments(c.arguments, map[string]toolArgument{
		"query": {"words", func(v json.RawMessage) bool { return json.Unmarshal(v, &query) == nil && len(query) <= 500 }},
		"limit": {"a whole number from 1 to 20", func(v json.RawMessage) bool {
			n, err := strconv.Atoi(string(v))
			limit = n
			return err == nil && n >= 1 && n <= mostFound
		}},
	})
	if err != nil {
		return answer{}, err
	}
	usable := s.usable(c)
	words := catalog.Terms(query)
	if len(words) == 0 {
		names := make([]string, len(usable))
		for i, t := range usable {
			names[i] = t.name
		}
		return dataAnswer(map[string]any{"data": []foundTool{}, "names": names})
	}
	type scored struct {
		tool  *tool
		score int
	}
	var found []scored
	for _, t := range usable {
		if n := t.matches(words); n > 0 {
			found = append(found, scored{t, n})
		}
	}
	slices.SortStableFunc(found, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	if len(found) == 0 {
		return dataAnswer(map[string]any{"data": []foundTool{}, "more": false, "hint": "No tool has these words. Try others, such as contact or send; without query all names are listed."})
	}
	list := []foundTool{}
	for _, f := range found[:min(limit, len(found))] {
		list = append(list, s.found(c, f.tool))
	}
	return dataAnswer(map[string]any{"data": list, "more": len(found) > limit})
}

func dataAnswer(v any) (answer, error) {
	b, err := plain(v)
	return answer{structured: b, outcome: access.OutcomeOK}, err
}

func (s *Server) found(c *call, t *tool) foundTool {
	l := access.Run
	if t.action != nil {
		l = t.action.Level(c.grant)
	}
	form := t.forms[l]
	f := foundTool{Name: t.name, Title: form.Annotations.Title, Description: form.Description, Input: form.RawInputSchema, ReadOnly: t.reads, Waits: l == access.Queue}
	if t.action != nil {
		f.Input = json.RawMessage(t.action.Input)
		if t.action.Resource != "" {
			f.Scope = rung(t.action, l)
		}
	}
	return f
}

// matches returns how well the tool fits the folded words, 0 if it does not: a word
// of its name counts more than one of its title and description.
func (t *tool) matches(words []string) int {
	form := t.forms[access.Run]
	name := catalog.Terms(strings.ReplaceAll(t.name, "_", " "))
	text := catalog.Terms(form.Annotations.Title + " " + form.Description)
	n := 0
	for _, w := range words {
		switch {
		case slices.Contains(name, w):
			n += 8
		case slices.ContainsFunc(name, func(s string) bool { return alike(s, w) }):
			n += 5
		case slices.Contains(text, w):
			n += 2
		case slices.ContainsFunc(text, func(s string) bool { return alike(s, w) }):
			n++
		}
	}
	return n
}

// alike reports whether one word begins with the other, as deals with deal.
func alike(a, b string) bool {
	return min(len(a), len(b)) >= 3 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a))
}

// callTool calls the tool that is named, as if it had been called itself.
func (s *Server) callTool(ctx context.Context, c *call) (answer, error) {
	t, inner, err := s.inner(c)
	if err != nil {
		return answer{}, err
	}
	if t == nil || s.level(c.grant, c.selection.whole(), t) == access.Deny {
		return answer{}, problem.Errorf(problem.NotFound, "there is no tool of that name for you").WithFix("Find it with search_tools, and send its name as it is written there.")
	}
	c.tool, c.arguments = t, inner
	return t.run(ctx, c)
}

// inner returns what call_tool is to call, nil if there is no such tool.
func (s *Server) inner(c *call) (t *tool, args json.RawMessage, err error) {
	var name string
	err = arguments(c.arguments, map[string]toolArgument{
		"name":      {"the name of a tool", func(v json.RawMessage) bool { return json.Unmarshal(v, &name) == nil && name != "" }},
		"arguments": {"an object", func(v json.RawMessage) bool { args = v; return v[0] == '{' }},
	}, "name")
	if t = s.byName[name]; t != nil && t.search {
		t = nil
	}
	return t, args, err
}
