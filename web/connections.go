package web

import (
	"context"
	"fmt"
	"net/http"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/oauth"
	"trustpager/problem"
)

// maxConnections bounds the list of one workspace.
const maxConnections = 100

// A connection is one app that the person has connected.
type connection struct {
	ID, Client, Host   string
	Workspace          string
	Granted, Used, End *moment
	Facts              []string // what it was granted
}

func (p *Pages) connectionOf(g oauth.Grant, m access.Membership) connection {
	role := p.Catalog.RoleRights(m.Role)
	now, zone := p.Now(), m.Workspace.TimeZone
	return connection{
		ID: g.ID, Client: g.ClientName, Host: documentHost(g.Client), Workspace: m.Workspace.Name,
		Granted: momentOf(g.ConsentedAt, now, zone), Used: momentOf(g.LastUsedAt, now, zone),
		Facts: bounds{catalog: p.Catalog, most: role, own: role, workspace: m.Workspace}.facts(g.Scopes),
	}
}

// A connectionsPage lists what the person has connected, in all of their
// workspaces.
type connectionsPage struct {
	Connections []connection
	Several     bool // workspaces
	MCP         string
}

func (p *Pages) connections(r *http.Request, me *admin.Person) (answer, error) {
	if me == nil {
		return redirect(loginFor(r.URL.Path)), nil
	}
	page := connectionsPage{Several: len(me.Memberships) > 1, MCP: p.BaseURL + "/mcp"}
	for _, m := range me.Memberships {
		g, err := p.Desk.PersonGrant(*me, m.Workspace.ID)
		if err != nil {
			return answer{}, err
		}
		grants, err := p.Desk.Grants(r.Context(), g, oauth.GrantQuery{User: me.User.ID, InForce: true, Limit: maxConnections})
		if err != nil {
			return answer{}, err
		}
		for _, grant := range grants {
			page.Connections = append(page.Connections, p.connectionOf(grant, m))
		}
	}
	return answer{page: "connections.html", title: "Connected apps", data: page}, nil
}

// A found is one connection of the person, with what they may do about it.
type found struct {
	oauth.Grant
	as         access.Grant
	membership access.Membership
}

// find returns the person's own connection of the id. An admin finds those of
// others elsewhere. It fails with [problem.NotFound], also if the connection
// has ended.
func (p *Pages) find(ctx context.Context, me *admin.Person, id string) (found, error) {
	for _, m := range me.Memberships {
		as, err := p.Desk.PersonGrant(*me, m.Workspace.ID)
		if err != nil {
			return found{}, err
		}
		g, err := p.Desk.Grant(ctx, as, id)
		if problem.Is(err, problem.NotFound) {
			continue
		}
		if err != nil {
			return found{}, err
		}
		if g.User == me.User.ID && g.RevokedAt.IsZero() {
			return found{g, as, m}, nil
		}
	}
	return found{}, problem.Errorf(problem.NotFound, "you have no such connection, or it has ended").
		WithFix("Connected apps lists those that you have.")
}

// found is the beginning of all pages about one connection: who is not logged
// in goes to the login.
func (p *Pages) found(r *http.Request, me *admin.Person) (found, answer, error) {
	if me == nil {
		return found{}, redirect(loginFor(safeNext(r.URL.EscapedPath()))), nil
	}
	f, err := p.find(r.Context(), me, r.PathValue("grant"))
	return f, answer{}, err
}

// bounded is found with what the person may grant the app.
func (p *Pages) bounded(r *http.Request, me *admin.Person) (found, bounds, answer, error) {
	f, then, err := p.found(r, me)
	if err != nil || then.location != "" {
		return f, bounds{}, then, err
	}
	most, err := p.Desk.GrantBounds(r.Context(), f.as, f.ID)
	return f, bounds{catalog: p.Catalog, most: most, own: most, workspace: f.membership.Workspace, admin: f.as.IsAdmin()}, answer{}, err
}

// A connectionPage shows one connection and lets the person narrow or widen it.
type connectionPage struct {
	connection
	Role     string
	Choice   choice
	Forecast *forecast
}

func (p *Pages) connection(r *http.Request, me *admin.Person) (answer, error) {
	f, b, then, err := p.bounded(r, me)
	if err != nil || then.location != "" {
		return then, err
	}
	return p.connectionPage(r, f, b, f.Scopes, false)
}

// connectionPage shows a connection with the scopes selected.
func (p *Pages) connectionPage(r *http.Request, f found, b bounds, selected []access.Scope, custom bool) (answer, error) {
	says, err := p.grantForecast(r.Context(), f.as, f.ID, selected, "/connections/"+f.ID)
	if err != nil {
		return answer{}, err
	}
	page := connectionPage{p.connectionOf(f.Grant, f.membership), roleWord(f.membership.Role), b.choice(selected, custom), says}
	return answer{page: "connection.html", title: visibleText(f.ClientName) + " in " + visibleText(f.membership.Workspace.Name), data: page}, nil
}

// previewConnection shows what the form would mean, and saves nothing.
func (p *Pages) previewConnection(r *http.Request, me *admin.Person) (answer, error) {
	f, b, then, err := p.bounded(r, me)
	if err != nil || then.location != "" {
		return then, err
	}
	a, err := p.connectionPage(r, f, b, b.scopes(r.PostForm), r.PostForm.Get(presetField) == customPreset)
	if err != nil {
		return answer{}, err
	}
	return previewed(r, a.data.(connectionPage).Forecast, a), nil
}

func (p *Pages) changeConnection(r *http.Request, me *admin.Person) (answer, error) {
	f, b, then, err := p.bounded(r, me)
	if err != nil || then.location != "" {
		return then, err
	}
	if _, err := p.Desk.UpdateGrant(r.Context(), f.as, f.ID, b.scopes(r.PostForm)); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), fmt.Sprintf("Saved. It holds from %s’s next request on.", visibleText(f.ClientName)))
	return redirect("/connections/" + f.ID), nil
}

func (p *Pages) confirmDisconnect(r *http.Request, me *admin.Person) (answer, error) {
	f, then, err := p.found(r, me)
	if err != nil || then.location != "" {
		return then, err
	}
	return answer{page: "disconnect.html", title: "Disconnect " + visibleText(f.ClientName), data: p.connectionOf(f.Grant, f.membership)}, nil
}

func (p *Pages) disconnect(r *http.Request, me *admin.Person) (answer, error) {
	f, then, err := p.found(r, me)
	if err != nil || then.location != "" {
		return then, err
	}
	if _, err := p.Desk.RevokeGrant(r.Context(), f.as, f.ID); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), fmt.Sprintf("Disconnected. %s can do nothing in %s any more.", visibleText(f.ClientName), visibleText(f.membership.Workspace.Name)))
	return redirect("/connections"), nil
}
