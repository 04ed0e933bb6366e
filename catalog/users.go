package catalog

import (
	"context"
	"slices"
	"strings"

	"trustpager/access"
)

// usersResource is the one resource of the program that records may refer to.
const usersResource = "users"

// userActions returns the actions on the members of the workspace: who sets an
// owner or an assignee must be able to find ids.
func userActions(r *Resource) []*Action {
	one := object("id", "string", "email", "string", "name", "string", "role", "string", "created_at", "string")
	list := &Action{Name: "list_users", Verb: access.Read, Op: OpList, Title: "List users",
		Description: "List the members of the workspace, by name; their ids are owners and assignees.",
		Method:      "GET", Path: "/users", Idempotent: true,
		fields: []Field{
			{Name: "search", Type: TypeString, Max: maxString, filled: true},
			limitField(), cursorField(),
		},
		Output: (&schema{Type: "array", Items: one}).encode()}
	list.plan = list.planUsers
	get := &Action{Name: "get_user", Verb: access.Read, Op: OpGet, Title: "Get user",
		Description: "Get a member of the workspace by id.",
		Method:      "GET", Path: "/users/{id}", Target: true, Idempotent: true,
		Output: one.encode()}
	get.plan = get.planUser
	for _, a := range []*Action{list, get} {
		a.Resource, a.resource = r.Name, r
	}
	return []*Action{list, get}
}

func appendUser(b []byte, u access.User) []byte {
	return appendJSON(b, map[string]any{"id": u.ID, "email": u.Email, "name": u.Name, "role": string(u.Role), "created_at": formatTime(u.CreatedAt)})
}

// planUsers pages through the members in memory: a workspace has few.
func (a *Action) planUsers(_ context.Context, _ Store, c Call, _ bool) (plan, error) {
	values := c.Input.Values
	cur, err := a.cursorOf(values, false)
	if err != nil {
		return plan{}, err
	}
	var terms []string
	if words, ok := values["search"].(string); ok {
		if terms = Terms(words); len(terms) == 0 {
			var fs faults
			fs.put("search", "at least one letter or digit", shorten(words), "")
			return plan{}, fs.err(a.Name)
		}
	}
	limit := limitOf(values)
	return plan{run: func(ctx context.Context, s Store) (Result, error) {
		users, err := s.Users(ctx, c.Grant.Workspace.ID)
		if err != nil {
			return Result{}, err
		}
		if cur.id != "" {
			// The store orders by name and id; a removed user's place is kept
			// by what the cursor says of it.
			i := slices.IndexFunc(users, func(u access.User) bool { return u.ID == cur.id })
			if i < 0 {
				i = slices.IndexFunc(users, func(u access.User) bool {
					return u.Name > cur.value || u.Name == cur.value && u.ID > cur.id
				}) - 1
				if i < -1 {
					i = len(users) - 1
				}
			}
			users = users[i+1:]
		}
		page := &Pagination{Limit: limit}
		data := []byte{'['}
		var last access.User
		n := 0
		for _, u := range users {
			if !matches(Terms(u.Name+"\n"+u.Email), terms) {
				continue
			}
			if n == limit {
				page.HasMore = true
				page.NextCursor = cursor{a.queryDigest(values), last.Name, last.ID}.String()
				break
			}
			if n > 0 {
				data = append(data, ',')
			}
			data = appendUser(data, u)
			last = u
			n++
		}
		return Result{Data: append(data, ']'), Pagination: page}, nil
	}}, nil
}

// matches reports whether each term of the query begins some word.
func matches(words, query []string) bool {
	for _, q := range query {
		if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, q) }) {
			return false
		}
	}
	return true
}

func (a *Action) planUser(ctx context.Context, s Store, c Call, _ bool) (plan, error) {
	users, err := s.Users(ctx, c.Grant.Workspace.ID)
	if err != nil {
		return plan{}, err
	}
	i := slices.IndexFunc(users, func(u access.User) bool { return u.ID == c.Input.ID })
	if i < 0 {
		return plan{}, a.resource.notFound(c.Input.ID)
	}
	u := users[i]
	p := plan{target: Target{ID: u.ID, Title: u.Name}}
	p.run = func(context.Context, Store) (Result, error) {
		return Result{Data: appendUser(nil, u), Target: p.target}, nil
	}
	return p, nil
}
