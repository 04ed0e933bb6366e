package web

import (
	"bytes"
	"html"
	"net/http"
	"strings"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
)

// A room is a workspace as one of its members sees it: the pages of one request
// are about it.
type room struct {
	me         admin.Person
	membership access.Membership
	grant      access.Grant // what the person may do there
}

// zone returns the workspace's time zone.
func (in room) zone() string { return in.membership.Workspace.TimeZone }

// A roomHandle answers a request of a person in a workspace.
type roomHandle func(r *http.Request, in room) (answer, error)

// roomField names the workspace that a form, or the stream of a page, is about.
// Each form of a page has it: what is sent acts where the page was about,
// whatever workspace the person has gone to meanwhile in another window.
const roomField = "in"

// roomName returns the workspace that a request is about: the form's, or the one
// that the person has chosen.
func (p *Pages) roomName(r *http.Request) string {
	if named := r.Form.Get(roomField); named != "" {
		return named
	}
	return p.sessions.GetString(r.Context(), workspaceKey)
}

// room lets h answer in the workspace that the request is about: the form's, the
// one that the person has chosen, or their first. Who is not logged in goes to
// the login.
func (p *Pages) room(h roomHandle) handle {
	return func(r *http.Request, me *admin.Person) (answer, error) {
		if me == nil {
			return redirect(loginFor(safeNext(r.URL.RequestURI()))), nil
		}
		in, err := p.enter(*me, p.roomName(r))
		if err != nil {
			return answer{}, err
		}
		if named := r.PostForm.Get(roomField); named != "" && named != in.membership.Workspace.ID {
			return answer{}, problem.Errorf(problem.Forbidden, "you do not belong to the workspace of this page any more").
				WithFix("Nothing was changed. The first page shows where you belong.")
		} else if named != "" && named != p.sessions.GetString(r.Context(), workspaceKey) {
			p.sessions.Put(r.Context(), workspaceKey, named) // where the next page goes on
		}
		a, err := h(r, in)
		if err == nil && a.page != "" && a.part == "" {
			a.frame, err = p.frame(r, in)
		}
		return a, err
	}
}

// framed puts the frame of the workspace that the person is in around the pages
// of h, which are about the person themselves.
func (p *Pages) framed(h handle) handle {
	return func(r *http.Request, me *admin.Person) (answer, error) {
		a, err := h(r, me)
		if err != nil || a.page == "" || a.part != "" || a.frame != nil || me == nil || len(me.Memberships) == 0 {
			return a, err
		}
		in, err := p.enter(*me, p.roomName(r))
		if err == nil {
			a.frame, err = p.frame(r, in)
		}
		return a, err
	}
}

// adminRoom is room for pages that only owners and admins have.
func (p *Pages) adminRoom(h roomHandle) handle {
	return p.room(func(r *http.Request, in room) (answer, error) {
		if !in.grant.IsAdmin() {
			return answer{}, problem.Errorf(problem.Forbidden, "only owners and admins of the workspace have this page").
				WithFix("Ask one of them. Your own apps are under Connected apps.")
		}
		return h(r, in)
	})
}

// enter returns the person's workspace of the id, or their first if they have
// none of that id.
func (p *Pages) enter(me admin.Person, workspace string) (room, error) {
	if len(me.Memberships) == 0 {
		return room{}, problem.Errorf(problem.Forbidden, "you do not belong to any workspace").
			WithFix("Ask an admin of a workspace to add you, with the e-mail address %s.", me.User.Email)
	}
	m := me.Memberships[0]
	for _, each := range me.Memberships {
		if each.Workspace.ID == workspace {
			m = each
		}
	}
	grant, err := p.Desk.PersonGrant(me, m.Workspace.ID)
	return room{me, m, grant}, err
}

// switchWorkspace changes the workspace that the person's pages are about.
func (p *Pages) switchWorkspace(r *http.Request, in room) (answer, error) {
	to, err := p.enter(in.me, r.PostForm.Get(workspaceField))
	if err != nil {
		return answer{}, err
	}
	p.sessions.Put(r.Context(), workspaceKey, to.membership.Workspace.ID)
	p.tell(r.Context(), "You are in "+visibleText(to.membership.Workspace.Name)+" now.")
	return redirect("/"), nil
}

// A frame is what stands around the pages of a workspace.
type frame struct {
	ID        string // of the workspace
	Workspace string
	Others    []access.Membership // the person's other workspaces
	Groups    []navGroup
	Paused    string // that all agents are paused, "" while they are not
	MayResume bool
}

// A navGroup is links under one heading.
type navGroup struct {
	Name  string
	Links []navLink
}

// A navLink leads to a page.
type navLink struct {
	Path, Title string
	Here        bool // the page, or one below it
	Badge       int  // how many wait for the person; 0 shows none
	Live        string
}

// navigation lists the links of the frame. What only admins have, members do
// not see.
var navigation = []struct {
	group string
	admin bool
	path  string
	title string
}{
	{"", false, "/", "Home"},
	{"", false, messagesPath, "Messages"},
	{"Agents", false, approvalsPath, "Approvals"},
	{"Agents", true, keysPath, "API and agents"},
	{"Agents", false, "/connect", "Connect"},
	{"Agents", false, "/connections", "Connected apps"},
	{"Workspace", true, companyPath, "Company"},
	{"Workspace", true, usersPath, "Members"},
	{"Workspace", true, "/settings/approvals", "Approval rules"},
	{"Workspace", true, webhooksPath, "Webhooks"},
	{"Workspace", true, integrationsPath, "Integrations"},
	{"Workspace", true, "/settings/billing", "Billing"},
}

// Where the tabs of the page about keys, clients and approvals are.
const (
	apiPath       = "/settings/api"
	keysPath      = apiPath + "?tab=keys"
	clientsPath   = apiPath + "?tab=clients"
	approvalsPath = apiPath + "?tab=approvals"
)

func (p *Pages) frame(r *http.Request, in room) (*frame, error) {
	f := &frame{ID: in.membership.Workspace.ID, Workspace: in.membership.Workspace.Name}
	for _, m := range in.me.Memberships {
		if m.Workspace.ID != in.membership.Workspace.ID {
			f.Others = append(f.Others, m)
		}
	}
	waiting, err := p.Gate.Waiting(r.Context(), in.grant)
	if err != nil {
		return nil, err
	}
	if pause, paused := in.membership.Workspace.AllPaused(); paused {
		f.Paused = "All agents are paused by " + visibleText(pause.By) + ", since " + momentOf(pause.At, p.Now(), in.zone()).Exact + "."
		f.MayResume = in.grant.IsAdmin()
	}
	here := hereOf(r)
	for _, n := range navigation {
		if n.admin && !in.grant.IsAdmin() {
			continue
		}
		l := navLink{Path: n.path, Title: n.title, Here: n.path == here}
		if n.path == approvalsPath {
			l.Badge, l.Live = waiting, "waiting"
		}
		if len(f.Groups) == 0 || f.Groups[len(f.Groups)-1].Name != n.group {
			f.Groups = append(f.Groups, navGroup{Name: n.group})
		}
		last := &f.Groups[len(f.Groups)-1]
		last.Links = append(last.Links, l)
	}
	return f, nil
}

// bind names the workspace in each form of a page that changes something. All
// tags are of our templates: what others wrote is escaped, a > in an attribute
// too.
func bind(page []byte, workspace string) []byte {
	field := `<input type="hidden" name="` + roomField + `" value="` + html.EscapeString(workspace) + `">`
	var b bytes.Buffer
	for {
		i := bytes.Index(page, []byte("<form "))
		if i < 0 {
			b.Write(page)
			return b.Bytes()
		}
		end := i + bytes.IndexByte(page[i:], '>') + 1
		b.Write(page[:end])
		if bytes.Contains(page[i:end], []byte(`method="post"`)) {
			b.WriteString(field)
		}
		page = page[end:]
	}
}

// hereOf returns the link of the navigation that the page belongs to.
func hereOf(r *http.Request) string {
	path := r.URL.Path
	switch {
	case path == apiPath && r.URL.Query().Get("tab") == "approvals", strings.HasPrefix(path, apiPath+"/approvals"):
		return approvalsPath
	case path == apiPath, strings.HasPrefix(path, apiPath+"/"):
		return keysPath
	case strings.HasPrefix(path, messagesPath+"/"):
		return messagesPath
	case strings.HasPrefix(path, usersPath+"/"):
		return usersPath
	case strings.HasPrefix(path, "/connections/"):
		return "/connections"
	case strings.HasPrefix(path, webhooksPath+"/"):
		return webhooksPath
	case strings.HasPrefix(path, integrationsPath+"/"):
		return integrationsPath
	}
	return path
}
