package web

import (
	"net/http"
	"slices"

	"trustpager/admin"
	"trustpager/problem"
)

// A setUpForm is the page on which the first person sets the server up. Without
// a token that holds it says how to get one.
type setUpForm struct {
	Token     string // "" if it does not hold
	Dead      string // how to get one that does
	Workspace field
	TimeZone  field
	Name      field
	Email     field
	Password  field
	Zones     []string
}

// zones are the time zones that the page suggests; any other IANA name does too.
var zones = []string{
	"Africa/Cairo", "Africa/Johannesburg", "Africa/Lagos", "Africa/Nairobi", "America/Anchorage", "America/Argentina/Buenos_Aires",
	"America/Bogota", "America/Chicago", "America/Denver", "America/Halifax", "America/Lima", "America/Los_Angeles", "America/Mexico_City",
	"America/New_York", "America/Phoenix", "America/Santiago", "America/Sao_Paulo", "America/St_Johns", "America/Toronto", "America/Vancouver",
	"Asia/Bangkok", "Asia/Dhaka", "Asia/Dubai", "Asia/Ho_Chi_Minh", "Asia/Hong_Kong", "Asia/Jakarta", "Asia/Jerusalem", "Asia/Karachi",
	"Asia/Kathmandu", "Asia/Kolkata", "Asia/Kuala_Lumpur", "Asia/Manila", "Asia/Riyadh", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore",
	"Asia/Taipei", "Asia/Tashkent", "Asia/Tehran", "Asia/Tokyo", "Atlantic/Reykjavik", "Australia/Adelaide", "Australia/Brisbane",
	"Australia/Melbourne", "Australia/Perth", "Australia/Sydney", "Europe/Amsterdam", "Europe/Athens", "Europe/Berlin", "Europe/Brussels",
	"Europe/Bucharest", "Europe/Copenhagen", "Europe/Dublin", "Europe/Helsinki", "Europe/Istanbul", "Europe/Kyiv", "Europe/Lisbon",
	"Europe/London", "Europe/Madrid", "Europe/Oslo", "Europe/Paris", "Europe/Prague", "Europe/Rome", "Europe/Stockholm", "Europe/Vienna",
	"Europe/Warsaw", "Europe/Zurich", "Pacific/Auckland", "Pacific/Honolulu", "UTC",
}

func newSetUpForm(in admin.SetUp) setUpForm {
	return setUpForm{
		Token: in.Token,
		Workspace: field{Name: "workspace", Label: "Workspace", Type: "text", Value: in.Workspace, Autocomplete: "organization", Required: true,
			Hint: "What people call it, such as your company."},
		TimeZone: field{Name: "time_zone", Label: "Time zone", Type: "text", Value: in.TimeZone, List: "zones", Required: true,
			Hint: "As in Europe/Berlin."},
		Name:  field{Name: "name", Label: "Your name", Type: "text", Value: in.Name, Autocomplete: "name", Required: true},
		Email: field{Name: "email", Label: "Your e-mail", Type: "email", Value: in.Email, Autocomplete: "username", Required: true},
		Password: field{Name: "password", Label: "Password", Type: "password", Autocomplete: "new-password", Required: true,
			Hint: passwordHint},
		Zones: zones,
	}
}

// passwordHint stands with every password that somebody chooses.
const passwordHint = "At least 12 characters. Four words that have nothing to do with each other are good."

func (f setUpForm) page(status int) answer {
	return answer{page: "setup.html", title: "Set up", status: status, data: f}
}

// dead returns the page of a token that does not hold, if that is what err says.
func (f setUpForm) dead(err error) (answer, error) {
	if !problem.Is(err, problem.NotFound) {
		return answer{}, err
	}
	return setUpForm{Dead: problem.Of(err).Fix}.page(http.StatusNotFound), nil
}

func (p *Pages) setUpForm(r *http.Request, _ *admin.Person) (answer, error) {
	f := newSetUpForm(admin.SetUp{Token: r.URL.Query().Get("token"), TimeZone: "UTC"})
	w, err := p.Desk.SetUpWith(r.Context(), f.Token)
	if err != nil {
		return f.dead(err)
	}
	if w.ID != "" {
		f.Workspace.Value, f.TimeZone.Value = w.Name, w.TimeZone
	}
	return f.page(http.StatusOK), nil
}

func (p *Pages) setUp(r *http.Request, _ *admin.Person) (answer, error) {
	form := r.PostForm
	in := admin.SetUp{Token: form.Get("token"), Workspace: form.Get("workspace"), TimeZone: form.Get("time_zone"),
		Name: form.Get("name"), Email: form.Get("email"), Password: form.Get("password")}
	f := newSetUpForm(in)
	me, err := p.Desk.SetUp(r.Context(), in)
	if blame(err, &f.Workspace, &f.TimeZone, &f.Name, &f.Email, &f.Password) {
		return f.page(http.StatusUnprocessableEntity), nil
	}
	if err != nil {
		return f.dead(err)
	}
	return p.welcome(r, me, "/")
}

// welcome logs the person in, in a browser that is known from then on.
func (p *Pages) welcome(r *http.Request, me admin.Person, to string) (answer, error) {
	a := redirect(to)
	var err error
	if a.cookie, err = p.remember(r.Context(), me); err != nil {
		return answer{}, err
	}
	return a, p.begin(r.Context(), me)
}

// blame shows at each of the fields what err says of it. It reports whether err
// is about fields of the form.
func blame(err error, fields ...*field) bool {
	if !problem.Is(err, problem.Validation) {
		return false
	}
	told := false
	for _, wrong := range problem.Of(err).Fields {
		if i := slices.IndexFunc(fields, func(f *field) bool { return f.Name == wrong.Path }); i >= 0 {
			fields[i].Error, told = sentence("it must be "+wrong.Expected), true
		}
	}
	return told
}
