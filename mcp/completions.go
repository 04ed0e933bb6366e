package mcp

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"trustpager/catalog"
	"trustpager/problem"
)

// The bounds of completions.
const (
	maxValues = 100 // that the protocol allows
	maxTyped  = 200 // characters; more complete to nothing
)

// completions answers completion/complete for mcp-go: ids of records that the
// caller may read.
type completions struct{ s *Server }

func (p completions) CompleteResourceArgument(ctx context.Context, uri string, a mcpgo.CompleteArgument, within mcpgo.CompleteContext) (done *mcpgo.Completion, err error) {
	err = guarded(ctx, func(c *call) error {
		name, id, _ := strings.Cut(strings.TrimPrefix(uri, scheme), "/")
		k := p.s.kindOf(name)
		if k == nil || uri != scheme+name+"/{id}" || id != "{id}" || !p.s.readable(c, k.one) {
			return problem.Errorf(problem.Validation, "there is no resource template %q", shown(uri)).
				WithFix("resources/templates/list says what there is.")
		}
		if a.Name != "id" {
			return problem.Errorf(problem.Validation, "the template %s has no argument %q", uri, shown(a.Name)).WithFix("Its argument is id.")
		}
		var err error
		done, err = p.s.ids(ctx, c, k, a.Value, within.Arguments)
		return err
	})
	return done, err
}

func (p completions) CompletePromptArgument(ctx context.Context, name string, a mcpgo.CompleteArgument, within mcpgo.CompleteContext) (done *mcpgo.Completion, err error) {
	err = guarded(ctx, func(c *call) error {
		of := p.s.promptOf(c, name)
		if of == nil {
			return p.s.noPrompt(c, name)
		}
		args := p.s.argumentsOf(c, of)
		i := slices.IndexFunc(args, func(b argument) bool { return b.Name == a.Name })
		if i < 0 {
			return problem.Errorf(problem.Validation, "the prompt %s has no argument %q", of.name, shown(a.Name)).WithFix("%s", argumentNames(args))
		}
		var err error
		switch b := args[i]; {
		case b.kind != "":
			done, err = p.s.ids(ctx, c, p.s.kindOf(b.kind), a.Value, within.Arguments)
		case b.complete != nil:
			var values []string
			for _, v := range b.complete(p.s.now(c)) {
				if strings.HasPrefix(strings.ToLower(v), strings.ToLower(strings.TrimSpace(a.Value))) {
					values = append(values, v)
				}
			}
			done = &mcpgo.Completion{Values: values, Total: len(values)}
		}
		return err
	})
	return done, err
}

// ids returns the ids of the kind's records that hold the typed words, or
// begin with what was typed, the newest first. Arguments that are known already
// narrow them where the kind refers to such records. Total is left out where
// there are more than are told.
func (s *Server) ids(ctx context.Context, c *call, k *kind, typed string, within map[string]string) (*mcpgo.Completion, error) {
	typed = strings.TrimSpace(typed)
	if !s.readable(c, k.all) || utf8.RuneCountInString(typed) > maxTyped {
		return &mcpgo.Completion{}, nil
	}
	takes := func(name string) *catalog.Field {
		fields := k.all.action.Fields()
		if i := slices.IndexFunc(fields, func(f catalog.Field) bool { return f.Name == name }); i >= 0 {
			return &fields[i]
		}
		return nil
	}
	input := map[string]any{"limit": maxValues}
	if takes("fields") != nil {
		input["fields"] = []string{"id"}
	}
	beginning := strings.HasPrefix(typed, k.resource.Prefix+"_")
	if typed != "" && !beginning {
		if takes("search") == nil || len(catalog.Terms(typed)) == 0 {
			return &mcpgo.Completion{}, nil
		}
		input["search"] = typed
	}
	for name, id := range within {
		if f := takes(name); f != nil && f.Type == catalog.TypeRef && id != "" {
			input[name] = id
		}
	}
	in, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	r, err := s.fetch(ctx, c, k.all, "", string(in))
	if err != nil {
		return nil, err
	}
	var found []struct{ ID string }
	if err := json.Unmarshal(r.Data, &found); err != nil {
		return nil, err
	}
	done := &mcpgo.Completion{HasMore: r.Pagination != nil && r.Pagination.HasMore}
	for _, rec := range found {
		if !beginning || strings.HasPrefix(rec.ID, typed) {
			done.Values = append(done.Values, rec.ID)
		}
	}
	if !done.HasMore {
		done.Total = len(done.Values)
	}
	return done, nil
}
