package web

import (
	"net/http"
	"strings"

	"trustpager/admin"
	"trustpager/problem"
)

// A forgotForm is the page on which somebody asks for a link for a new password.
type forgotForm struct {
	Email field
	Error string
	Sent  bool // the answer, whether or not there is such an account
	Mails bool // messages are sent, and do not wait for the operator
}

func (p *Pages) newForgotForm(email string) forgotForm {
	return forgotForm{Mails: p.Mails,
		Email: field{Name: "email", Label: "E-mail", Type: "email", Value: email, Autocomplete: "username", Required: true}}
}

func (f forgotForm) page(status int) answer {
	return answer{page: "forgot.html", title: "Forgotten password", status: status, data: f}
}

func (p *Pages) forgotForm(*http.Request, *admin.Person) (answer, error) {
	return p.newForgotForm("").page(http.StatusOK), nil
}

func (p *Pages) forgot(r *http.Request, _ *admin.Person) (answer, error) {
	f := p.newForgotForm(strings.TrimSpace(r.PostForm.Get("email")))
	if f.Email.Value == "" {
		f.Email.Error = "Enter your e-mail address."
		return f.page(http.StatusUnprocessableEntity), nil
	}
	err := p.Desk.ForgotPassword(r.Context(), f.Email.Value, p.Address(r))
	if problem.Is(err, problem.RateLimited) {
		return f.limited(problem.Of(err)), nil
	}
	f.Sent = true
	return f.page(http.StatusOK), err
}

func (f forgotForm) limited(e *problem.Error) answer {
	f.Error = sentence(e.Message) + " " + e.Fix
	a := f.page(http.StatusTooManyRequests)
	a.retry = e.RetryAfter
	return a
}

// A newPassword is a password that somebody chooses, twice.
type newPassword struct{ Password, Again field }

func chooseNew() newPassword {
	return newPassword{
		Password: field{Name: "password", Label: "New password", Type: "password", Autocomplete: "new-password", Required: true, Hint: passwordHint},
		Again:    field{Name: "again", Label: "New password, again", Type: "password", Autocomplete: "new-password", Required: true},
	}
}

// differ reports whether the form has two different passwords, and says so.
func (n *newPassword) differ(r *http.Request) bool {
	if r.PostForm.Get(n.Password.Name) == r.PostForm.Get(n.Again.Name) {
		return false
	}
	n.Again.Error = "This is not the same as above."
	return true
}

// A resetForm is the page to which a link for a new password leads.
type resetForm struct {
	newPassword
	Token string // "" if it does not hold
	Dead  string // what to do then
	Email string // whose password it is
}

func (f resetForm) page(status int) answer {
	return answer{page: "reset.html", title: "New password", status: status, data: f}
}

// resetOf returns the form of the token, or the page that says that it does not
// hold.
func (p *Pages) resetOf(r *http.Request, token string) (f resetForm, dead answer, err error) {
	f = resetForm{newPassword: chooseNew(), Token: token}
	owner, err := p.Desk.ResetWith(r.Context(), token)
	if problem.Is(err, problem.NotFound) {
		return f, resetForm{Dead: problem.Of(err).Fix}.page(http.StatusNotFound), nil
	}
	f.Email = owner.User.Email
	return f, answer{}, err
}

func (p *Pages) resetForm(r *http.Request, _ *admin.Person) (answer, error) {
	f, dead, err := p.resetOf(r, r.URL.Query().Get("token"))
	if err != nil || dead.page != "" {
		return dead, err
	}
	return f.page(http.StatusOK), nil
}

func (p *Pages) reset(r *http.Request, _ *admin.Person) (answer, error) {
	f, dead, err := p.resetOf(r, r.PostForm.Get("token"))
	if err != nil || dead.page != "" {
		return dead, err
	}
	if f.differ(r) {
		return f.page(http.StatusUnprocessableEntity), nil
	}
	_, err = p.Desk.ResetPassword(r.Context(), f.Token, r.PostForm.Get("password"))
	switch {
	case blame(err, &f.Password):
		return f.page(http.StatusUnprocessableEntity), nil
	case problem.Is(err, problem.NotFound): // ended meanwhile
		return resetForm{Dead: problem.Of(err).Fix}.page(http.StatusNotFound), nil
	case err != nil:
		return answer{}, err
	}
	p.tell(r.Context(), "Your password is changed. Log in with the new one.")
	return redirect("/login"), nil
}
