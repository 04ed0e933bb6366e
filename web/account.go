package web

import (
	"net/http"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
)

// accountPath is the page of what people decide about themselves.
const accountPath = "/account"

// An accountPage is that page.
type accountPage struct {
	newPassword
	Email   string
	Name    field
	Present field
	Error   string  // about the password
	Notices []field // one for each workspace
	Mails   bool
}

// noticeField names the choices of when one is told of approvals, with the
// workspace's id behind it.
const noticeField = "notice."

// notices are the choices of when a member is told.
var notices = []struct {
	notice access.Notice
	title  string
}{
	{access.NoticeImmediately, "Within about a minute"},
	{access.NoticeHourly, "Once an hour"},
	{access.NoticeDaily, "Once a day, at 08:00"},
	{access.NoticeOff, "Not by e-mail"},
}

func (p *Pages) accountOf(me *admin.Person) accountPage {
	page := accountPage{
		newPassword: chooseNew(), Email: me.User.Email, Mails: p.Mails,
		Name:    field{Name: "name", Label: "Name", Type: "text", Value: me.User.Name, Autocomplete: "name", Required: true},
		Present: field{Name: "present", Label: "Present password", Type: "password", Autocomplete: "current-password", Required: true},
	}
	for _, m := range me.Memberships {
		f := field{Name: noticeField + m.Workspace.ID, Label: visibleText(m.Workspace.Name)}
		for _, n := range notices {
			f.Options = append(f.Options, option{string(n.notice), n.title, n.notice == m.Notice})
		}
		page.Notices = append(page.Notices, f)
	}
	return page
}

func (f accountPage) page(status int) answer {
	return answer{page: "account.html", title: "Your account", status: status, data: f}
}

// mine is a handle of what only the person themselves sees: who is not logged
// in goes to the login.
func mine(h func(r *http.Request, me *admin.Person) (answer, error)) handle {
	return func(r *http.Request, me *admin.Person) (answer, error) {
		if me == nil {
			return redirect(loginFor(accountPath)), nil
		}
		return h(r, me)
	}
}

func (p *Pages) account(_ *http.Request, me *admin.Person) (answer, error) {
	return p.accountOf(me).page(http.StatusOK), nil
}

func (p *Pages) rename(r *http.Request, me *admin.Person) (answer, error) {
	f := p.accountOf(me)
	f.Name.Value = r.PostForm.Get("name")
	err := p.Desk.Rename(r.Context(), *me, f.Name.Value)
	if blame(err, &f.Name) {
		return f.page(http.StatusUnprocessableEntity), nil
	}
	if err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "Your name is changed.")
	return redirect(accountPath), nil
}

func (p *Pages) setNotices(r *http.Request, me *admin.Person) (answer, error) {
	for _, m := range me.Memberships {
		n := access.Notice(r.PostForm.Get(noticeField + m.Workspace.ID))
		if n == "" || n == m.Notice {
			continue
		}
		if err := p.Desk.SetNotice(r.Context(), *me, m.Workspace.ID, n); err != nil {
			return answer{}, err
		}
	}
	p.tell(r.Context(), "Saved. It holds from the next message on.")
	return redirect(accountPath), nil
}

func (p *Pages) changePassword(r *http.Request, me *admin.Person) (answer, error) {
	f := p.accountOf(me)
	if f.differ(r) {
		return f.page(http.StatusUnprocessableEntity), nil
	}
	changed, err := p.Desk.ChangePassword(r.Context(), *me,
		admin.PasswordChange{Present: r.PostForm.Get("present"), New: r.PostForm.Get("password"), Address: p.Address(r)})
	switch e := problem.Of(err); {
	case err == nil:
		p.tell(r.Context(), "Your password is changed. Your sessions in other browsers have ended.")
		return redirect(accountPath), p.begin(r.Context(), changed)
	case blame(err, &f.Present, &f.Password):
		return f.page(http.StatusUnprocessableEntity), nil
	case e.Kind == problem.RateLimited:
		f.Error = sentence(e.Message) + " " + e.Fix
		a := f.page(http.StatusTooManyRequests)
		a.retry = e.RetryAfter
		return a, nil
	default:
		return answer{}, err
	}
}
