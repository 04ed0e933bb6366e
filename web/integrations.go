package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/problem"
	"trustpager/typeid"
)

// The pages about the outside services that a workspace uses. What they change
// goes through the gate, as it does for agents.

const integrationsPath = "/settings/integrations"

// A serviceKind is a kind of outside service as people read it.
type serviceKind struct {
	Kind                   integrations.Kind
	Title, Says, Connected string
}

// serviceKinds are the kinds in the order of the page.
var serviceKinds = []serviceKind{
	{integrations.EmailKind, "Mailbox", "Sends e-mail by SMTP, and reads the answers by IMAP.", "the mailbox"},
	{integrations.TwilioKind, "Twilio", "Sends and receives text messages, and makes calls.", "Twilio"},
	{integrations.AnthropicKind, "Anthropic", "A language model for drafts and summaries.", "Anthropic"},
	{integrations.OpenAIKind, "OpenAI or compatible", "A language model for drafts and summaries; also one on your own server.", "the model"},
}

func serviceKindOf(k integrations.Kind) (serviceKind, bool) {
	i := slices.IndexFunc(serviceKinds, func(s serviceKind) bool { return s.Kind == k })
	if i < 0 {
		return serviceKind{}, false
	}
	return serviceKinds[i], true
}

// A serviceRow is an integration in the list.
type serviceRow struct {
	ID, Name, Kind, Reach string
	Default               bool
	State                 status
	Says                  string
	Checked               *moment
}

// A servicesPage lists the integrations.
type servicesPage struct {
	Rows   []serviceRow
	Kinds  []serviceKind
	Mailer string // where the server's own messages go
	NoMail bool   // no mailbox is active
}

// serviceStates are the states as people read them.
var serviceStates = map[string]status{
	integrations.Unchecked: {"Not tested", ""},
	integrations.Checking:  {"Being tested", "wait"},
	integrations.Working:   {"Works", "good"},
	integrations.Failing:   {"Fails", "bad"},
}

func (p *Pages) serviceRow(a integrations.Account, in room) serviceRow {
	row := serviceRow{ID: a.ID, Name: a.Name, Default: a.Default, State: serviceStates[a.State], Says: a.StateText, Checked: momentOf(a.CheckedAt, p.Now(), in.zone())}
	if k, ok := serviceKindOf(a.Kind); ok {
		row.Kind = k.Title
	}
	switch {
	case !a.Active:
		row.State = status{"Switched off", ""}
	case a.Sealed == "" && a.Kind != integrations.EmailKind: // taken away with a change of its server, say
		row.State, row.Says = status{"Secret missing", "bad"}, "Enter it below: without it nothing can be asked."
	}
	switch s := a.Settings; a.Kind {
	case integrations.EmailKind:
		row.Reach = s.Address
	case integrations.TwilioKind:
		row.Reach = strings.Join(s.Numbers, ", ")
	default:
		row.Reach = s.Model
	}
	return row
}

func (p *Pages) integrations(r *http.Request, in room) (answer, error) {
	accounts, err := p.Admin.Store.Accounts(r.Context(), in.grant.Workspace.ID, "")
	if err != nil {
		return answer{}, err
	}
	page := servicesPage{Kinds: serviceKinds, Mailer: p.Admin.Mail.Describe(), NoMail: true}
	for _, a := range accounts {
		page.Rows = append(page.Rows, p.serviceRow(a, in))
		page.NoMail = page.NoMail && !(a.Active && a.Kind == integrations.EmailKind)
	}
	return answer{page: "integrations.html", title: "Integrations", data: page}, nil
}

// An inputType says how a field of the form is read.
type inputType int

const (
	textInput inputType = iota
	numberInput
	listInput
	secretInput
	securityInput
)

// A serviceInput is one field of the form.
type serviceInput struct {
	name, label, hint string
	kind              inputType
	required          bool
}

// A serviceGroup is a part of the form.
type serviceGroup struct {
	title, hint string
	inputs      []serviceInput
}

// serviceForms are the fields of each kind, besides name, active and default.
var serviceForms = map[integrations.Kind][]serviceGroup{
	integrations.EmailKind: {
		{"Sender", "", []serviceInput{
			{name: "address", label: "E-mail address", required: true},
			{name: "sender_name", label: "Name beside the address"},
		}},
		{"Sending by SMTP", "", []serviceInput{
			{name: "smtp_host", label: "SMTP server", required: true, hint: "As in smtp.example.com."},
			{name: "smtp_security", label: "SMTP encryption", kind: securityInput},
			{name: "smtp_port", label: "SMTP port", kind: numberInput, hint: "Empty: 465 with TLS, 587 with STARTTLS."},
			{name: "smtp_username", label: "SMTP user name", hint: "Empty: the e-mail address."},
		}},
		{"Reading by IMAP", "Without a server nothing is read, and answers stay in the mailbox. What is read stays unread there, and nothing is deleted.", []serviceInput{
			{name: "imap_host", label: "IMAP server", hint: "As in imap.example.com."},
			{name: "imap_security", label: "IMAP encryption", kind: securityInput},
			{name: "imap_port", label: "IMAP port", kind: numberInput, hint: "Empty: 993 with TLS, 143 with STARTTLS."},
			{name: "imap_username", label: "IMAP user name", hint: "Empty: the e-mail address."},
			{name: "imap_mailbox", label: "Folder", hint: "Empty: INBOX."},
		}},
		// Together, as browsers take a form with passwords here and there for several.
		{"Passwords", "", []serviceInput{
			{name: integrations.SMTPPassword, label: "SMTP password", kind: secretInput},
			{name: integrations.IMAPPassword, label: "IMAP password", kind: secretInput, hint: "Also if it is the same: a password goes only to the server that it was given for."},
		}},
	},
	integrations.TwilioKind: {
		{"Account", "", []serviceInput{
			{name: "account_sid", label: "Account SID", required: true, hint: "It begins with AC."},
			{name: integrations.AuthToken, label: "Auth token", kind: secretInput},
			{name: "numbers", label: "Numbers", kind: listInput, required: true, hint: "That messages and calls come from, in the form +4930123456, separated by commas. The first is the usual one."},
			{name: "base_url", label: "API address", hint: "Empty: Twilio’s own."},
		}},
	},
	integrations.AnthropicKind: modelForm,
	integrations.OpenAIKind:    modelForm,
}

var modelForm = []serviceGroup{
	{"Model", "", []serviceInput{
		{name: integrations.APIKey, label: "API key", kind: secretInput},
		{name: "model", label: "Model", required: true, hint: "Its name, as the provider writes it."},
		{name: "max_tokens", label: "Longest answer, in tokens", kind: numberInput, hint: "Empty: 1024."},
		{name: "base_url", label: "API address", hint: "Empty: the provider’s own."},
	}},
	{"What it may cost", "Without prices nothing is counted. Amounts are in minor units, such as cents.", []serviceInput{
		{name: "currency", label: "Currency", hint: "As in EUR."},
		{name: "input_price", label: "Price of a million tokens that it reads", kind: numberInput},
		{name: "output_price", label: "Price of a million tokens that it writes", kind: numberInput},
		{name: "monthly_limit", label: "Most that a month may cost", kind: numberInput, hint: "Empty: no limit. Beyond it AI is refused until the next month."},
	}},
}

// A fieldGroup is a part of the form as it is shown.
type fieldGroup struct {
	Title, Hint string
	Fields      []field
	Ticks       []tick
}

// A serviceForm creates or edits an integration.
type serviceForm struct {
	ID, Title, Action string
	Version           int64
	Error             string
	Name              field
	Active, Default   tick
	Groups            []fieldGroup

	Row  serviceRow // of one that there is
	To   field      // who gets the test message, of a mailbox
	Mail bool
}

// removeField begins the names of the ticks that remove a secret.
const removeField = "remove."

// newServiceForm returns the form with what the account has.
func (p *Pages) newServiceForm(a integrations.Account, k serviceKind, in room) serviceForm {
	f := serviceForm{ID: a.ID, Title: "Connect " + k.Connected, Action: integrationsPath + "/new?kind=" + string(k.Kind), Version: a.Version,
		Name:    field{Name: "name", Label: "Name", Type: "text", Value: a.Name, Autocomplete: "off", Required: true, Hint: "What people call it here: “Sales”, “Support line”."},
		Active:  tick{Name: "active", Value: "yes", Title: "In use", Says: "Otherwise it is kept, and nothing is sent, read or asked by it.", Checked: a.Active},
		Default: tick{Name: "default", Value: "yes", Title: "The default", Says: "It is used where none is named.", Checked: a.Default},
		Mail:    k.Kind == integrations.EmailKind,
	}
	if a.ID != "" {
		f.Title, f.Action = visibleText(a.Name), integrationsPath+"/"+a.ID
		f.Row = p.serviceRow(a, in)
		f.To = field{Name: "to", Label: "Test message to", Type: "email", Value: in.me.User.Email, Autocomplete: "off", Hint: "A member of the workspace."}
	}
	secrets, err := p.Admin.Accounts.Open(a)
	if err != nil {
		f.Error = "The secrets cannot be opened with the server’s secret key. Enter them again."
	}
	values := a.Settings.Values()
	for _, g := range serviceForms[k.Kind] {
		group := fieldGroup{Title: g.title, Hint: g.hint}
		for _, i := range g.inputs {
			shown := i.field(values[i.name], k.Kind)
			if i.kind == secretInput && *secrets.At(i.name) != "" {
				shown.Hint = strings.TrimSpace(setText(i.name, secrets) + " " + i.hint)
				group.Ticks = append(group.Ticks, tick{Name: removeField + i.name, Value: "yes", Title: "Remove the " + i.label})
			}
			group.Fields = append(group.Fields, shown)
		}
		f.Groups = append(f.Groups, group)
	}
	return f
}

// setText says that a secret is set.
func setText(name string, s integrations.Secrets) string {
	if key := s.APIKey; name == integrations.APIKey && len(key) >= 16 {
		return "Set, ends with " + key[len(key)-4:] + ". Leave it empty to keep it."
	}
	return "Set. Leave it empty to keep it."
}

// field returns the input with the value.
func (i serviceInput) field(v any, k integrations.Kind) field {
	f := field{Name: i.name, Label: i.label, Type: "text", Hint: i.hint, Required: i.required, Autocomplete: "off"}
	switch i.kind {
	case secretInput:
		f.Type, f.Autocomplete = "password", "new-password"
		return f
	case securityInput:
		text, _ := v.(string)
		for _, o := range []option{{string(integrations.TLS), "TLS", false}, {string(integrations.STARTTLS), "STARTTLS", false}, {string(integrations.NoTLS), "None, without a password", false}} {
			o.Selected = o.Value == text
			f.Options = append(f.Options, o)
		}
		return f
	case listInput:
		if list, ok := v.([]any); ok {
			texts := make([]string, len(list))
			for n, item := range list {
				texts[n] = fmt.Sprint(item)
			}
			f.Value = strings.Join(texts, ", ")
		}
		return f
	}
	if v != nil {
		f.Value = fmt.Sprint(v)
	}
	if i.name == "base_url" {
		f.Type, f.Placeholder = "url", k.BaseURL()
	}
	return f
}

// serviceValues reads the form as the input of an action; update says that what
// is empty is cleared.
func serviceValues(r *http.Request, k integrations.Kind, update bool) (json.RawMessage, error) {
	form := r.PostForm
	values := map[string]any{"name": form.Get("name"), "active": form.Get("active") == "yes"}
	if form.Get("default") == "yes" || update {
		values["default"] = form.Get("default") == "yes"
	}
	if !update {
		values["kind"] = string(k)
	}
	for _, g := range serviceForms[k] {
		for _, i := range g.inputs {
			text := strings.TrimSpace(form.Get(i.name))
			switch {
			case i.kind == secretInput && text == "":
				if update && form.Get(removeField+i.name) == "yes" {
					values[i.name] = nil
				}
			case text == "" && update && form.Has(i.name):
				values[i.name] = nil
			case text == "":
			case i.kind == numberInput && json.Valid([]byte(text)):
				values[i.name] = json.RawMessage(text)
			case i.kind == listInput:
				items := strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == '\n' || c == '\r' })
				list := []string{}
				for _, item := range items {
					if item = strings.TrimSpace(item); item != "" {
						list = append(list, item)
					}
				}
				values[i.name] = list
			default:
				values[i.name] = text
			}
		}
	}
	return json.Marshal(values)
}

func (p *Pages) newIntegration(r *http.Request, in room) (answer, error) {
	k, err := serviceKindAt(r)
	if err != nil {
		return answer{}, err
	}
	fresh := integrations.Account{Kind: k.Kind, Active: true}
	return serviceAnswer(p.newServiceForm(fresh, k, in), http.StatusOK), nil
}

func serviceKindAt(r *http.Request) (serviceKind, error) {
	k, ok := serviceKindOf(integrations.Kind(r.URL.Query().Get("kind")))
	if !ok {
		return k, problem.Errorf(problem.NotFound, "there is no such kind of integration").WithFix("The page of the integrations shows what can be connected.")
	}
	return k, nil
}

func serviceAnswer(f serviceForm, status int) answer {
	return answer{page: "integration.html", title: f.Title, status: status, data: f}
}

func (p *Pages) createIntegration(r *http.Request, in room) (answer, error) {
	k, err := serviceKindAt(r)
	if err != nil {
		return answer{}, err
	}
	input, err := serviceValues(r, k.Kind, false)
	if err != nil {
		return answer{}, err
	}
	made, err := p.act(r.Context(), in, "create_integration", "", 0, input)
	if err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		fresh := integrations.Account{Kind: k.Kind, Active: true}
		return serviceAnswer(p.newServiceForm(fresh, k, in).refused(r, err), http.StatusUnprocessableEntity), nil
	}
	p.tell(r.Context(), "Connected. Test it now, to see whether it works.")
	return redirect(integrationsPath + "/" + made.Target.ID), nil
}

// refused shows the form again with what was sent, but for secrets, and what is
// wrong with it.
func (f serviceForm) refused(r *http.Request, err error) serviceForm {
	form := r.PostForm
	names := []string{"name", "default"}
	for _, g := range f.Groups {
		for _, i := range g.Fields {
			names = append(names, i.Name)
		}
	}
	wrong, other := faults(err, names...)
	f.Error = other
	if f.Error == "" {
		f.Error = "Nothing is saved yet: correct what is marked. Secrets have to be entered once more."
	}
	f.Name.Value, f.Name.Error = form.Get("name"), wrong["name"]
	f.Active.Checked, f.Default.Checked = form.Get("active") == "yes", form.Get("default") == "yes"
	if wrong["default"] != "" {
		f.Error = "What is not in use cannot be the default. " + f.Error
	}
	for _, g := range f.Groups {
		for n := range g.Fields {
			i := &g.Fields[n]
			i.Error = wrong[i.Name]
			if i.Type != "password" {
				i.Value = form.Get(i.Name)
			}
			for o := range i.Options {
				i.Options[o].Selected = i.Options[o].Value == form.Get(i.Name)
			}
		}
	}
	return f
}

// serviceAt returns the integration that the path names.
func (p *Pages) serviceAt(r *http.Request, in room) (integrations.Account, serviceKind, error) {
	id := r.PathValue("integration")
	if !typeid.ValidID("int", id) { // it may hold what the database refuses
		return integrations.Account{}, serviceKind{}, problem.Errorf(problem.NotFound, "there is no such integration").WithFix("Choose one from the list.")
	}
	a, err := p.Admin.Store.Account(r.Context(), in.grant.Workspace.ID, id, false)
	if err != nil {
		return a, serviceKind{}, err
	}
	k, ok := serviceKindOf(a.Kind)
	if !ok {
		return a, k, fmt.Errorf("the integration %s is of the unknown kind %q", a.ID, a.Kind)
	}
	return a, k, nil
}

func (p *Pages) integration(r *http.Request, in room) (answer, error) {
	a, k, err := p.serviceAt(r, in)
	if err != nil {
		return answer{}, err
	}
	return serviceAnswer(p.newServiceForm(a, k, in), http.StatusOK), nil
}

func (p *Pages) updateIntegration(r *http.Request, in room) (answer, error) {
	a, k, err := p.serviceAt(r, in)
	if err != nil {
		return answer{}, err
	}
	input, err := serviceValues(r, k.Kind, true)
	if err != nil {
		return answer{}, err
	}
	var version int64
	if _, err := fmt.Sscan(r.PostForm.Get("version"), &version); err != nil {
		return answer{}, wrongField("version", "that of the page", r.PostForm.Get("version"))
	}
	got, err := p.act(r.Context(), in, "update_integration", a.ID, version, input)
	switch {
	case problem.Is(err, problem.VersionMismatch):
		p.warn(r.Context(), "Nothing is saved: somebody else has changed it meanwhile. This is how it is now.")
		return redirect(integrationsPath + "/" + a.ID), nil
	case err != nil && isFault(err):
		f := p.newServiceForm(a, k, in).refused(r, err)
		f.Version = version
		return serviceAnswer(f, http.StatusUnprocessableEntity), nil
	case err != nil:
		return answer{}, err
	}
	if warning := catalog.Warning(got.Data); warning != "" {
		p.warn(r.Context(), "Saved. "+warning)
	} else {
		p.tell(r.Context(), "Saved.")
	}
	return redirect(integrationsPath + "/" + a.ID), nil
}

func (p *Pages) testIntegration(r *http.Request, in room) (answer, error) {
	a, k, err := p.serviceAt(r, in)
	if err != nil {
		return answer{}, err
	}
	input := map[string]string{}
	if to := strings.TrimSpace(r.PostForm.Get("to")); to != "" && a.Kind == integrations.EmailKind {
		input["to"] = to
	}
	if _, err := p.act(r.Context(), in, "test_integration", a.ID, 0, input); err != nil {
		if !isFault(err) {
			return answer{}, err
		}
		f := p.newServiceForm(a, k, in)
		wrong, other := faults(err, "to")
		f.To.Value, f.To.Error, f.Error = r.PostForm.Get("to"), wrong["to"], other
		return serviceAnswer(f, http.StatusUnprocessableEntity), nil
	}
	p.tell(r.Context(), "The test is on its way. What it finds stands here in a moment.")
	return redirect(integrationsPath + "/" + a.ID), nil
}

func (p *Pages) integrationDeletion(a integrations.Account, wrong bool) answer {
	base := integrationsPath + "/" + a.ID
	says := []string{"Its secrets go with it. What was sent and received by it stays."}
	if a.Default {
		says = append(says, "It is the default: without it, another has to be made the default.")
	}
	return confirmDelete(typedDelete{Title: "Delete “" + visibleText(a.Name) + "” for good", Name: a.Name, Action: base + "/delete", Back: base, Says: says}, wrong)
}

func (p *Pages) confirmDeleteIntegration(r *http.Request, in room) (answer, error) {
	a, _, err := p.serviceAt(r, in)
	return p.integrationDeletion(a, false), err
}

func (p *Pages) deleteIntegration(r *http.Request, in room) (answer, error) {
	a, _, err := p.serviceAt(r, in)
	if err != nil {
		return answer{}, err
	}
	if !typed(r, a.Name) {
		return p.integrationDeletion(a, true), nil
	}
	if _, err := p.act(r.Context(), in, "delete_integration", a.ID, 0, struct{}{}); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), "“"+visibleText(a.Name)+"” is deleted.")
	return redirect(integrationsPath), nil
}
