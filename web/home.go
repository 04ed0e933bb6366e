package web

import (
	"net/http"

	"trustpager/admin"
)

// A homePage says what waits and what there is.
type homePage struct {
	Name, Workspace string
	Role            string
	Waiting         int
	Admin, Free     bool
	MCP             string
	Calls           lastCall
}

// home is the first page. Who belongs to no workspace is told what to do.
func (p *Pages) home(r *http.Request, me *admin.Person) (answer, error) {
	if me == nil {
		return redirect("/login"), nil
	}
	if len(me.Memberships) == 0 {
		return answer{page: "nowhere.html", title: "Home", data: me}, nil
	}
	return p.room(p.roomHome)(r, me)
}

func (p *Pages) roomHome(r *http.Request, in room) (answer, error) {
	waiting, err := p.Gate.Waiting(r.Context(), in.grant)
	if err != nil {
		return answer{}, err
	}
	calls, err := p.lastCall(r, in)
	return answer{page: "home.html", title: "Home", data: homePage{in.me.User.Name, in.membership.Workspace.Name, roleWord(in.membership.Role), waiting,
		in.grant.IsAdmin(), isFree(in), p.BaseURL + "/mcp", calls}}, err
}
