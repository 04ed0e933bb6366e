package web

import (
	"net/http"
	"net/url"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
)

// invitePath is where the link of an invitation leads.
const invitePath = "/invite"

// An inviteePage is the page of somebody who has the link of an invitation.
type inviteePage struct {
	newPassword
	Token           string // "" if it does not hold
	Dead            string // what to do then
	Workspace, Host string
	By, Role, Email string
	Name            field
	Error           string

	New    bool   // they have no account: they make one here
	Mine   bool   // who is logged in is invited
	Locked bool   // the account has no password, which only its e-mail address gets
	Me     string // who is logged in as somebody else, "" if nobody is
	Here   string // this page, for the way back from the login
}

func (f inviteePage) page(status int) answer {
	return answer{page: "invite.html", title: "Invitation", status: status, data: f}
}

// invitee returns the page of the token, or the one that says that it does not
// hold.
func (p *Pages) invitee(r *http.Request, me *admin.Person, token string) (f inviteePage, v admin.Invited, dead answer, err error) {
	v, err = p.Desk.InvitedWith(r.Context(), token, p.Address(r))
	if problem.Is(err, problem.NotFound) {
		return f, v, inviteePage{Dead: problem.Of(err).Fix}.page(http.StatusNotFound), nil
	}
	if err != nil {
		return f, v, answer{}, err
	}
	f = inviteePage{newPassword: chooseNew(), Token: token, Workspace: v.In.Name, By: v.By.Name, Role: roleWord(v.Role), Email: v.Email, New: v.User == "", Locked: v.Locked,
		Name: field{Name: "name", Label: "Your name", Type: "text", Value: v.Name, Autocomplete: "name", Required: true},
		Here: invitePath + "?token=" + url.QueryEscape(token)}
	f.Password.Label, f.Again.Label = "Password", "Password, again"
	if me != nil {
		if f.Mine = me.User.ID == v.User; !f.Mine {
			f.Me = me.User.Email
		}
	}
	return f, v, answer{}, nil
}

func (p *Pages) inviteForm(r *http.Request, me *admin.Person) (answer, error) {
	f, _, dead, err := p.invitee(r, me, r.URL.Query().Get("token"))
	if err != nil || dead.page != "" {
		return dead, err
	}
	return f.page(http.StatusOK), nil
}

func (p *Pages) acceptInvitation(r *http.Request, me *admin.Person) (answer, error) {
	f, v, dead, err := p.invitee(r, me, r.PostForm.Get("token"))
	switch {
	case err != nil || dead.page != "":
		return dead, err
	case f.Mine:
		v, err = p.Desk.AcceptAs(r.Context(), *me, f.Token, p.Address(r))
		if err == nil {
			p.arrive(r, v.In)
			return redirect("/"), nil
		}
	case !f.New:
		return redirect(f.Here), nil // the page says who has to log in
	default:
		f.Name.Value = r.PostForm.Get("name")
		if f.differ(r) {
			return f.page(http.StatusUnprocessableEntity), nil
		}
		var who admin.Person
		who, err = p.Desk.Accept(r.Context(), admin.Acceptance{Token: f.Token, Name: f.Name.Value, Password: r.PostForm.Get("password"), Address: p.Address(r)})
		if blame(err, &f.Name, &f.Password) {
			return f.page(http.StatusUnprocessableEntity), nil
		}
		if err == nil {
			a, err := p.welcome(r, who, "/")
			p.arrive(r, v.In)
			return a, err
		}
	}
	switch {
	case problem.Is(err, problem.NotFound): // ended meanwhile
		return inviteePage{Dead: problem.Of(err).Fix}.page(http.StatusNotFound), nil
	case problem.Is(err, problem.Conflict): // somebody has made the account meanwhile
		return redirect(f.Here), nil
	}
	return answer{}, err
}

// arrive has the person's next page be about the workspace.
func (p *Pages) arrive(r *http.Request, w access.Workspace) {
	p.sessions.Put(r.Context(), workspaceKey, w.ID)
	p.tell(r.Context(), "You belong to "+visibleText(w.Name)+" now.")
}
