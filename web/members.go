package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
)

// usersPath is the page of who belongs to the workspace.
const usersPath = "/settings/users"

// A membersPage lists them, and who is invited.
type membersPage struct {
	Members     []memberRow
	Invitations []invitationRow
	Invite      inviteForm
	Mails       bool
}

// A memberRow is a member in the list, and on their own page.
type memberRow struct {
	ID, Name, Email string
	Role            string
	Me              bool
	Login           *moment
	Keys, Apps      int
}

// An invitationRow is an invitation that nobody has accepted.
type invitationRow struct {
	Email, Name, Role, By string
	Made, Until           *moment
	Over                  bool
	Mine                  bool // not above the reader's role
	Once                  string
}

// An inviteForm invites somebody.
type inviteForm struct {
	Email, Name, Role field
	Error             string
	Once              string
}

// roleTitles are the roles from the lowest, as people read them.
var roleTitles = []struct {
	role  access.Role
	title string
}{
	{access.Member, "Member"},
	{access.Admin, "Admin"},
	{access.Owner, "Owner"},
}

const roleHint = "Members have their own apps; admins also keys, approvals, members and settings; owners also decide about owners."

// roleOptions returns the roles that are not above most.
func roleOptions(most, chosen access.Role) []option {
	var all []option
	for _, r := range roleTitles {
		if r.role.AtMost(most) {
			all = append(all, option{string(r.role), r.title, r.role == chosen})
		}
	}
	return all
}

func newInviteForm(most access.Role, in admin.Invite) inviteForm {
	return inviteForm{
		Email: field{Name: "email", Label: "E-mail", Type: "email", Value: in.Email, Autocomplete: "off", Required: true},
		Name:  field{Name: "name", Label: "Name", Type: "text", Value: in.Name, Autocomplete: "off", Hint: "They can change it. Empty is fine."},
		Role:  field{Name: "role", Label: "Role", Hint: roleHint, Options: roleOptions(most, in.Role)},
		Once:  newOnce(),
	}
}

func (p *Pages) memberRow(m admin.MemberView, in room) memberRow {
	return memberRow{ID: m.ID, Name: m.Name, Email: m.Email, Role: string(m.Role), Me: m.ID == in.me.User.ID, Login: momentOf(m.LastLogin, p.Now(), in.zone()), Keys: m.Keys, Apps: m.Grants}
}

func (p *Pages) membersWith(r *http.Request, in room, f inviteForm, status int) (answer, error) {
	members, err := p.Admin.Members(r.Context(), in.grant)
	if err != nil {
		return answer{}, err
	}
	invitations, err := p.Admin.Invitations(r.Context(), in.grant)
	if err != nil {
		return answer{}, err
	}
	page := membersPage{Invite: f, Mails: p.Mails}
	for _, m := range members {
		page.Members = append(page.Members, p.memberRow(m, in))
	}
	now, zone := p.Now(), in.zone()
	for _, i := range invitations {
		page.Invitations = append(page.Invitations, invitationRow{Email: i.Email, Name: i.Name, Role: string(i.Role), By: i.By.Name, Made: momentOf(i.CreatedAt, now, zone),
			Until: momentOf(i.ExpiresAt, now, zone), Over: !now.Before(i.ExpiresAt), Mine: i.Role.AtMost(in.membership.Role), Once: newOnce()})
	}
	return answer{page: "members.html", title: "Members", status: status, data: page}, nil
}

func (p *Pages) members(r *http.Request, in room) (answer, error) {
	return p.membersWith(r, in, newInviteForm(in.membership.Role, admin.Invite{Role: access.Member}), http.StatusOK)
}

func (p *Pages) invite(r *http.Request, in room) (answer, error) {
	wish := admin.Invite{Email: strings.TrimSpace(r.PostForm.Get("email")), Name: strings.TrimSpace(r.PostForm.Get("name")), Role: access.Role(r.PostForm.Get("role"))}
	a, err := p.sendInvitation(r, in, wish)
	if err == nil {
		return a, nil
	}
	f := newInviteForm(in.membership.Role, wish)
	if blame(err, &f.Email, &f.Name, &f.Role) {
		return p.membersWith(r, in, f, http.StatusUnprocessableEntity)
	}
	e := problem.Of(err)
	if e.Status() >= http.StatusInternalServerError {
		return answer{}, err
	}
	f.Error = sentence(e.Message) + " " + e.Fix
	a, err = p.membersWith(r, in, f, e.Status())
	a.retry = e.RetryAfter
	return a, err
}

// sendInvitation invites somebody, and shows the link if no message brings it.
func (p *Pages) sendInvitation(r *http.Request, in room, wish admin.Invite) (answer, error) {
	if !p.takeOnce(r.Context(), r.PostForm.Get("once")) {
		p.tell(r.Context(), "The form was sent before. A link is shown only once; send the invitation again if it is lost.")
		return redirect(usersPath), nil
	}
	i, link, err := p.Admin.Invite(r.Context(), in.grant, wish)
	if err != nil {
		return answer{}, err
	}
	if link == "" {
		p.tell(r.Context(), fmt.Sprintf("A message with a link is on its way to %s.", visibleText(i.Email)))
		return redirect(usersPath), nil
	}
	title := "The invitation of " + visibleText(i.Email)
	return answer{page: "reveal.html", title: title, data: reveal{Title: title, Back: usersPath,
		Lead:    "This server has no mail server, so pass the link on to them yourself. It holds for 7 days and works once.",
		Secrets: []shownSecret{{"link", "Link", "It is shown only now. Whoever has it becomes " + roleWord(i.Role) + " of this workspace.", link}}}}, nil
}

// resendInvitation replaces the link of an invitation.
func (p *Pages) resendInvitation(r *http.Request, in room) (answer, error) {
	all, err := p.Admin.Invitations(r.Context(), in.grant)
	if err != nil {
		return answer{}, err
	}
	at := slices.IndexFunc(all, func(i admin.Invitation) bool { return i.Email == r.PostForm.Get("email") })
	if at < 0 {
		p.warn(r.Context(), "That invitation was accepted or cancelled meanwhile.")
		return redirect(usersPath), nil
	}
	return p.sendInvitation(r, in, admin.Invite{Email: all[at].Email, Name: all[at].Name, Role: all[at].Role})
}

func (p *Pages) cancelInvitation(r *http.Request, in room) (answer, error) {
	email := r.PostForm.Get("email")
	err := p.Admin.CancelInvitation(r.Context(), in.grant, email)
	if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Conflict) {
		p.warn(r.Context(), "That invitation was accepted or cancelled meanwhile.")
		return redirect(usersPath), nil
	}
	if err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), fmt.Sprintf("The invitation of %s is cancelled; its link does not hold any more.", visibleText(email)))
	return redirect(usersPath), nil
}

// A memberPage shows one member.
type memberPage struct {
	memberRow
	May    bool // the reader may change what they are
	Choice field
	Since  *moment
}

// memberOf returns the member of the request's path. It fails with
// [problem.NotFound].
func (p *Pages) memberOf(r *http.Request, in room) (admin.MemberView, error) {
	members, err := p.Admin.Members(r.Context(), in.grant)
	if err != nil {
		return admin.MemberView{}, err
	}
	id := r.PathValue("user")
	for _, m := range members {
		if m.ID == id {
			return m, nil
		}
	}
	return admin.MemberView{}, problem.Errorf(problem.NotFound, "nobody of this workspace has this page").WithFix("The page Members lists who belongs to it.")
}

func (p *Pages) member(r *http.Request, in room) (answer, error) {
	m, err := p.memberOf(r, in)
	if err != nil {
		return answer{}, err
	}
	page := memberPage{memberRow: p.memberRow(m, in), May: m.Role.AtMost(in.membership.Role), Since: momentOf(m.CreatedAt, p.Now(), in.zone()),
		Choice: field{Name: "role", Label: "Role", Hint: roleHint, Options: roleOptions(in.membership.Role, m.Role)}}
	return answer{page: "member.html", title: nameOf(m.User), data: page}, nil
}

// nameOf returns what people call the user, made visible.
func nameOf(u access.User) string {
	if u.Name == "" {
		return visibleText(u.Email)
	}
	return visibleText(u.Name)
}

// An endPage says what ends when somebody leaves, or becomes a member only.
type endPage struct {
	Title, Action, Back, Button string
	Role                        string // that they get, "" if they leave
	Says                        []string
	Keep                        []tick
	Apps                        []string
	Invited                     []string
	Records                     []string
}

// keepField names the ticks of what is kept.
const keepField = "keep"

func (p *Pages) endPage(m admin.Move, in room) answer {
	name := nameOf(m.User)
	base := usersPath + "/" + m.User.ID
	page := endPage{Title: "Remove " + name + " from the workspace?", Action: base + "/remove", Back: base, Button: "Remove " + name, Role: string(m.Role),
		Says: []string{"From their next request on they see nothing of " + visibleText(in.membership.Workspace.Name) + ". What they have done stays, and their account too."}}
	if m.Role != "" {
		page.Title, page.Action, page.Button = "Make "+name+" "+roleWord(m.Role)+"?", base+"/role", "Make "+name+" "+roleWord(m.Role)
		page.Says = []string{"From their next request on they can do less."}
	}
	for _, k := range m.Keys {
		may, _ := p.summary(k)
		page.Keep = append(page.Keep, tick{Name: keepField, Value: k.ID, Title: visibleText(k.Name), Says: may + ", tp_live_…" + k.Last4})
	}
	for _, gr := range m.Clients {
		page.Keep = append(page.Keep, tick{Name: keepField, Value: gr.ID, Title: visibleText(gr.ClientName), Says: "OAuth client that acts for itself"})
	}
	for _, gr := range m.Grants {
		page.Apps = append(page.Apps, visibleText(gr.ClientName))
	}
	for _, i := range m.Invitations {
		page.Invited = append(page.Invited, visibleText(i.Email))
	}
	for _, r := range m.Records {
		label := r.Resource
		if of, ok := p.Catalog.Resource(r.Resource); ok {
			label = of.Label
		}
		page.Records = append(page.Records, fmt.Sprintf("%s: %d, by %s", label, r.Count, strings.ToLower(labelOf(r.Field))))
	}
	return answer{page: "member_end.html", title: page.Title, data: page}
}

func (p *Pages) changeRole(r *http.Request, in room) (answer, error) {
	m, err := p.memberOf(r, in)
	if err != nil {
		return answer{}, err
	}
	role := access.Role(r.PostForm.Get("role"))
	if m.Role == role {
		return redirect(usersPath + "/" + m.ID), nil
	}
	if r.PostForm.Get("sure") != "yes" && role.AtMost(access.Owner) {
		move, err := p.Admin.Leaving(r.Context(), in.grant, m.ID, role)
		if err != nil {
			return p.refuseMove(r, m.User, err)
		}
		if move.Ends() {
			return p.endPage(move, in), nil
		}
	}
	if _, err := p.Admin.ChangeRole(r.Context(), in.grant, m.ID, role, r.PostForm[keepField]); err != nil {
		return p.refuseMove(r, m.User, err)
	}
	p.tell(r.Context(), fmt.Sprintf("%s is %s now.", nameOf(m.User), roleWord(role)))
	if m.ID == in.me.User.ID {
		return redirect("/"), nil // who may not see this page any more
	}
	return redirect(usersPath + "/" + m.ID), nil
}

// refuseMove tells on the member's page why it cannot be.
func (p *Pages) refuseMove(r *http.Request, u access.User, err error) (answer, error) {
	switch e := problem.Of(err); {
	case e.Kind == problem.Conflict, e.Kind == problem.InsufficientScope, isFault(err):
		text := sentence(e.Message)
		for _, f := range e.Fields {
			text += " " + sentence(f.Path+" must be "+f.Expected)
		}
		p.warn(r.Context(), text+" "+e.Fix)
		return redirect(usersPath + "/" + url.PathEscape(u.ID)), nil
	}
	return answer{}, err
}

func (p *Pages) confirmRemove(r *http.Request, in room) (answer, error) {
	m, err := p.memberOf(r, in)
	if err != nil {
		return answer{}, err
	}
	move, err := p.Admin.Leaving(r.Context(), in.grant, m.ID, "")
	if err != nil {
		return p.refuseMove(r, m.User, err)
	}
	return p.endPage(move, in), nil
}

func (p *Pages) removeMember(r *http.Request, in room) (answer, error) {
	m, err := p.memberOf(r, in)
	if err != nil {
		return answer{}, err
	}
	ended, err := p.Admin.RemoveMember(r.Context(), in.grant, m.ID, r.PostForm[keepField])
	if err != nil {
		return p.refuseMove(r, m.User, err)
	}
	says := nameOf(m.User) + " is removed."
	for _, part := range []struct {
		n          int
		what, with string
	}{{ended.Keys + ended.Clients, "credential", "ended"}, {ended.Grants, "app", "disconnected"}, {ended.Approvals, "request", "withdrawn"}} {
		if part.n > 0 {
			says += " " + plural(part.n, part.what) + " " + part.with + "."
		}
	}
	p.tell(r.Context(), says)
	if m.ID == in.me.User.ID {
		return redirect("/"), nil
	}
	return redirect(usersPath), nil
}
