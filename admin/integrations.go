package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/typeid"
)

// maxIntegrations is how many integrations a workspace has at most.
const maxIntegrations = 50

// integrationStates are the states as callers see them.
var integrationStates = map[string]string{integrations.Unchecked: "unchecked"}

// secretNames are the members of an input that are secrets.
var secretNames = []string{integrations.SMTPPassword, integrations.IMAPPassword, integrations.AuthToken, integrations.APIKey}

// ownMembers are the members of an input that are no settings of a kind.
var ownMembers = []string{"kind", "name", "active", "default", "if_version"}

// integrations plans the actions on the outside services of a workspace.
func (d *Desk) integrations(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	tx := catalog.As[Store](s)
	switch a.Name {
	case "list_integrations":
		return d.listIntegrations(tx, a, c)
	case "create_integration":
		return d.createIntegration(ctx, tx, a, c, lock)
	}
	account, err := findIntegration(ctx, tx, a, c, lock)
	if err != nil {
		return catalog.Plan{}, err
	}
	switch a.Name {
	case "get_integration":
		return catalog.Plan{Target: accountTarget(account), Run: func(context.Context, catalog.Store) (catalog.Result, error) {
			return d.answerIntegration(account, "")
		}}, nil
	case "update_integration":
		return d.updateIntegration(a, c, account)
	case "delete_integration":
		return d.deleteIntegration(c, account)
	case "test_integration":
		return d.testIntegration(ctx, tx, a, c, account)
	}
	return catalog.Plan{}, fmt.Errorf("no service for %s", a.Name)
}

func findIntegration(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, lock bool) (integrations.Account, error) {
	account, err := tx.Account(ctx, c.Grant.Workspace.ID, c.Input.ID, lock && a.Verb != access.Read)
	switch {
	case problem.Is(err, problem.NotFound):
		return account, a.Of().NotFound(c.Input.ID)
	case err == nil && c.IfVersion != 0 && c.IfVersion != account.Version:
		return account, problem.Errorf(problem.VersionMismatch, "integration %s has version %d, not %d: it was changed in between", account.ID, account.Version, c.IfVersion).
			WithFix("Read it again, see what has changed, and send the request with version %d if it still holds.", account.Version)
	}
	return account, err
}

func accountTarget(a integrations.Account) catalog.Target {
	return catalog.Target{ID: a.ID, Version: a.Version, Title: a.Name}
}

func (d *Desk) listIntegrations(tx Store, a *catalog.Action, c catalog.Call) (catalog.Plan, error) {
	kind, _ := c.Input.Values["kind"].(string)
	after, _ := c.Input.Values["cursor"].(string)
	if after != "" && !typeid.ValidID("int", after) {
		return catalog.Plan{}, a.Refuse("cursor", "next_cursor of the page before", "something else", "Leave cursor out to begin anew.")
	}
	limit := limitOf(c.Input.Values)
	return catalog.Plan{Run: func(ctx context.Context, _ catalog.Store) (catalog.Result, error) {
		accounts, err := tx.Accounts(ctx, c.Grant.Workspace.ID, integrations.Kind(kind))
		if err != nil {
			return catalog.Result{}, err
		}
		accounts = slices.DeleteFunc(accounts, func(a integrations.Account) bool { return a.ID <= after })
		page := &catalog.Pagination{Limit: limit}
		if len(accounts) > limit {
			accounts = accounts[:limit]
			page.HasMore, page.NextCursor = true, accounts[limit-1].ID
		}
		all := make([]any, len(accounts))
		for i, each := range accounts {
			all[i] = d.integrationValues(each)
		}
		return catalog.Result{Data: catalog.JSON(all), Pagination: page}, nil
	}}, nil
}

// limitOf returns how many a page of a list has at most.
func limitOf(values map[string]any) int {
	limit, _ := values["limit"].(json.Number)
	n, err := limit.Int64()
	if err != nil {
		return 25
	}
	return int(n)
}

// integrationValues returns the integration as callers see it: without secrets.
func (d *Desk) integrationValues(a integrations.Account) map[string]any {
	values := d.integrationFields(a)
	values["id"], values["version"] = a.ID, json.Number(fmt.Sprint(a.Version))
	values["created_at"], values["updated_at"] = timeText(a.CreatedAt), timeText(a.UpdatedAt)
	values["state"] = stateOf(a)
	if a.StateText != "" {
		values["state_text"] = a.StateText
	}
	if !a.CheckedAt.IsZero() {
		values["checked_at"] = timeText(a.CheckedAt)
	}
	return values
}

func stateOf(a integrations.Account) string {
	if s, ok := integrationStates[a.State]; ok {
		return s
	}
	return a.State
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// integrationFields returns what people decide about an integration, and of its
// secrets whether they are set.
func (d *Desk) integrationFields(a integrations.Account) map[string]any {
	values := a.Settings.Values()
	values["kind"], values["name"], values["active"], values["default"] = string(a.Kind), a.Name, a.Active, a.Default
	secrets, err := d.Accounts.Open(a)
	maps.Copy(values, secretFields(a.Kind, secrets))
	if err != nil {
		// It shows without them, so that it can be given new ones.
		values["warning"] = "The secrets cannot be opened with the server's secret key. Enter them again."
	}
	return values
}

// secretFields tells which secrets of the kind are set.
func secretFields(k integrations.Kind, s integrations.Secrets) map[string]any {
	values := map[string]any{}
	for _, name := range secretNames {
		if slices.Contains(k.Takes(), name) {
			values[name+"_set"] = *s.At(name) != ""
		}
	}
	if n := len(s.APIKey); n >= 16 { // four characters tell nothing of what is long
		values["api_key_last4"] = s.APIKey[n-4:]
	}
	return values
}

func (d *Desk) answerIntegration(a integrations.Account, warning string) (catalog.Result, error) {
	values := d.integrationValues(a)
	if warning != "" {
		values["warning"] = warning
	}
	return catalog.Result{Data: catalog.JSON(values), Target: accountTarget(a)}, nil
}

// An accountChange is what an input makes of an account.
type accountChange struct {
	account integrations.Account
	secrets integrations.Secrets
	dropped []string // secrets that do not go with the new settings
	entered []string // secrets that were sent
}

// changed returns the account with what the input says of it.
func (d *Desk) changed(a *catalog.Action, c catalog.Call, account integrations.Account) (accountChange, error) {
	next := accountChange{account: account}
	var fields []problem.Field
	takes, given := account.Kind.Takes(), map[string]any{}
	for name, v := range c.Input.Values {
		switch {
		case slices.Contains(ownMembers, name):
		case !slices.Contains(takes, name) && v != nil:
			fields = append(fields, problem.Field{Path: name, Expected: fmt.Sprintf("nothing: an integration of the kind %s has no %s", account.Kind, name), Got: "a value"})
		case !slices.Contains(secretNames, name):
			given[name] = v
		}
	}
	var err error
	if next.account.Settings, err = account.Settings.With(account.Kind, given); err != nil {
		return next, err
	}
	old, err := d.Accounts.Open(account)
	if err != nil {
		old = integrations.Secrets{} // lost with their key, so they cannot be kept
	}
	next.secrets, next.dropped = next.account.Settings.Follow(account.Settings, old)
	for _, name := range secretNames {
		v, sent := c.Input.Values[name]
		if !sent || !slices.Contains(takes, name) {
			continue
		}
		text, _ := v.(string)
		*next.secrets.At(name) = text
		next.entered = append(next.entered, name)
		next.dropped = slices.DeleteFunc(next.dropped, func(d string) bool { return d == name })
	}
	for _, m := range []struct {
		name string
		to   *bool
	}{{"active", &next.account.Active}, {"default", &next.account.Default}} {
		switch v := c.Input.Values[m.name].(type) {
		case bool:
			*m.to = v
		case nil:
			if _, sent := c.Input.Values[m.name]; sent {
				fields = append(fields, problem.Field{Path: m.name, Expected: "true or false", Got: "null"})
			}
		}
	}
	if v, sent := c.Input.Values["name"]; sent {
		next.account.Name, _ = v.(string)
	}
	if !validName(next.account.Name) {
		fields = append(fields, problem.Field{Path: "name", Expected: nameForm, Got: fmt.Sprintf("%.120q", next.account.Name)})
	}
	if next.account.Default && !next.account.Active {
		fields = append(fields, problem.Field{Path: "default", Expected: "false for an integration that is not active", Got: "true"})
	}
	fields = append(fields, next.account.Settings.Faults(account.Kind, next.secrets, d.Accounts.Network.Guard)...)
	slices.SortStableFunc(fields, func(a, b problem.Field) int { return strings.Compare(a.Path, b.Path) })
	return next, refuseFields(a.Name+": the integration", fields)
}

// after returns what the account will be, as a card shows it.
func (n accountChange) after() map[string]any {
	values := n.account.Settings.Values()
	values["kind"], values["name"], values["active"], values["default"] = string(n.account.Kind), n.account.Name, n.account.Active, n.account.Default
	maps.Copy(values, secretFields(n.account.Kind, n.secrets))
	return values
}

// droppedText says which secrets were removed, "" if none.
func droppedText(dropped []string, will bool) string {
	if len(dropped) == 0 {
		return ""
	}
	was, fix := "was removed", "Send it again."
	if will {
		was, fix = "will be removed", "It has to be entered again."
	}
	return fmt.Sprintf("The stored %s %s: it was given for another server, port, security or user, and is not sent elsewhere. %s",
		strings.Join(dropped, " and "), was, fix)
}

func (d *Desk) createIntegration(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	if lock { // so that two do not each make the last one
		if _, err := tx.LockWorkspace(ctx, c.Grant.Workspace.ID); err != nil {
			return catalog.Plan{}, err
		}
	}
	kind, _ := c.Input.Values["kind"].(string)
	account := integrations.Account{Workspace: c.Grant.Workspace.ID, Kind: integrations.Kind(kind), Active: true}
	title := catalog.Target{}
	title.Title, _ = c.Input.Values["name"].(string)
	others, err := tx.Accounts(ctx, c.Grant.Workspace.ID, "")
	if err != nil {
		return catalog.Plan{}, err
	}
	if len(others) >= maxIntegrations {
		return catalog.Plan{Target: title}, problem.Errorf(problem.Conflict, "the workspace has %d integrations already, which is the most", len(others)).
			WithFix("Delete one that is not used any more.")
	}
	next, err := d.changed(a, c, account)
	if err != nil {
		return catalog.Plan{Target: title}, err
	}
	if next.account.Active && !slices.ContainsFunc(others, func(o integrations.Account) bool {
		return o.Active && o.Kind.Purpose() == account.Kind.Purpose()
	}) {
		next.account.Default = true
	}
	p := catalog.Plan{Target: title, After: next.after()}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx, made := catalog.As[Store](s), next.account
		made.ID, made.Version, made.CreatedAt, made.UpdatedAt = typeid.NewID("int"), 1, c.Now, c.Now
		sealed, err := d.Accounts.Seal(made, next.secrets)
		if err != nil {
			return catalog.Result{}, err
		}
		made.Sealed = sealed
		if err := tx.CreateAccount(ctx, made); err != nil {
			return catalog.Result{}, err
		}
		if err := d.record(ctx, tx, c.Grant, audit.IntegrationCreated, made.ID, next.detail()); err != nil {
			return catalog.Result{}, err
		}
		return d.answerIntegration(made, "")
	}
	return p, nil
}

func (d *Desk) updateIntegration(a *catalog.Action, c catalog.Call, account integrations.Account) (catalog.Plan, error) {
	p := catalog.Plan{Target: accountTarget(account), Before: d.integrationFields(account)}
	next, err := d.changed(a, c, account)
	if err != nil {
		return p, err
	}
	p.After = next.after()
	if text := droppedText(next.dropped, true); text != "" {
		p.Checks = append(p.Checks, catalog.PlanCheck{Name: "secrets", Text: text})
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx, to := catalog.As[Store](s), next.account
		to.Version, to.UpdatedAt = account.Version+1, c.Now
		sealed, err := d.Accounts.Seal(to, next.secrets)
		if err != nil {
			return catalog.Result{}, err
		}
		to.Sealed = sealed
		if reaches(account, to, next) {
			to.State, to.StateText, to.CheckedAt = integrations.Unchecked, "", time.Time{}
		}
		if err := tx.UpdateAccount(ctx, to); err != nil {
			return catalog.Result{}, err
		}
		if !to.Settings.SameMailbox(account.Settings) {
			if err := tx.SetAccountCursor(ctx, to.Workspace, to.ID, to.Version, nil); err != nil {
				return catalog.Result{}, err
			}
		}
		if err := d.record(ctx, tx, c.Grant, audit.IntegrationChanged, to.ID, next.detail()); err != nil {
			return catalog.Result{}, err
		}
		return d.answerIntegration(to, droppedText(next.dropped, false))
	}
	return p, nil
}

// reaches reports whether what was found out about the account may not hold any
// more: it is reached, or asked, in another way.
func reaches(old, to integrations.Account, next accountChange) bool {
	if len(next.dropped) > 0 || len(next.entered) > 0 {
		return true
	}
	before, after := old.Settings.Values(), to.Settings.Values()
	for _, name := range []string{"sender_name", "input_price", "output_price", "currency", "monthly_limit", "max_tokens", "numbers"} {
		delete(before, name)
		delete(after, name)
	}
	return string(catalog.JSON(before)) != string(catalog.JSON(after))
}

func (d *Desk) deleteIntegration(c catalog.Call, account integrations.Account) (catalog.Plan, error) {
	p := catalog.Plan{Target: accountTarget(account), Before: d.integrationFields(account)}
	if account.Default {
		p.Checks = append(p.Checks, catalog.PlanCheck{Name: "default", Text: "It is used where none is named. Without it, another has to be made the default."})
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx := catalog.As[Store](s)
		if err := tx.DeleteAccount(ctx, account.Workspace, account.ID, account.Version); err != nil {
			return catalog.Result{}, err
		}
		if _, err := tx.CancelJobs(ctx, account.Workspace, IntegrationTestKind, account.ID); err != nil {
			return catalog.Result{}, err
		}
		if err := d.record(ctx, tx, c.Grant, audit.IntegrationDeleted, account.ID, map[string]any{"kind": account.Kind, "name": account.Name}); err != nil {
			return catalog.Result{}, err
		}
		return d.answerIntegration(account, "")
	}
	return p, nil
}

// detail is what the log keeps of a change: the settings without the secrets,
// and which secrets were entered.
func (n accountChange) detail() map[string]any {
	detail := map[string]any{"settings": n.after()}
	if n.entered != nil {
		detail["entered"] = n.entered
	}
	return detail
}

// IntegrationTestKind is the kind of the jobs that test integrations.
const IntegrationTestKind = "integration.test"

// integrationTestTime is how long one test takes at most.
const integrationTestTime = 75 * time.Second

// An integrationTest is the payload of such a job.
type integrationTest struct {
	Version int64  `json:"version"` // of the integration, as it is to be tested
	To      string `json:"to,omitempty"`
	By      string `json:"by"` // who asked, as people know them
}

func (d *Desk) testIntegration(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, account integrations.Account) (catalog.Plan, error) {
	test := integrationTest{Version: account.Version, By: c.Grant.Principal.Name}
	to, named := c.Input.Values["to"].(string)
	switch {
	case named && account.Kind != integrations.EmailKind:
		return catalog.Plan{Target: accountTarget(account)}, a.Refuse("to", "nothing: only a mailbox sends a test message", fmt.Sprintf("%.100q", to), "Leave to out.")
	case account.Kind == integrations.EmailKind && (named || c.Grant.Principal.Kind == access.KindPerson):
		members, err := tx.Users(ctx, account.Workspace)
		if err != nil {
			return catalog.Plan{}, err
		}
		i := slices.IndexFunc(members, func(u access.User) bool {
			return named && strings.EqualFold(u.Email, to) || !named && u.ID == c.Grant.Principal.User
		})
		if i < 0 && named {
			return catalog.Plan{Target: accountTarget(account)}, a.Refuse("to", "the address of a member of the workspace", fmt.Sprintf("%.100q", to), "Name a member: list_users shows them.")
		}
		if i >= 0 {
			test.To = members[i].Email
		}
	}
	values := d.integrationFields(account)
	p := catalog.Plan{Target: accountTarget(account), Before: values, After: values}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx := catalog.As[Store](s)
		account.State, account.StateText, account.CheckedAt = integrations.Checking, "The test is on its way.", c.Now
		if err := tx.SetAccountState(ctx, account.Workspace, account.ID, account.State, account.StateText, c.Now); err != nil {
			return catalog.Result{}, err
		}
		j, err := jobs.New(c.Now, account.Workspace, IntegrationTestKind, account.ID, test, c.Now)
		if err != nil {
			return catalog.Result{}, err
		}
		if err := tx.EnqueueJob(ctx, j); err != nil {
			return catalog.Result{}, err
		}
		detail := map[string]any{}
		if test.To != "" {
			detail["to"] = test.To
		}
		if err := d.record(ctx, tx, c.Grant, audit.IntegrationTested, account.ID, detail); err != nil {
			return catalog.Result{}, err
		}
		return d.answerIntegration(account, "")
	}
	return p, nil
}

// IntegrationTests returns how jobs of [IntegrationTestKind] are run.
func (d *Desk) IntegrationTests() jobs.Kind {
	return jobs.Kind{Handle: d.runIntegrationTest, Timeout: integrationTestTime + 15*time.Second, Workers: 2, Outgoing: true,
		Retry: jobs.Tries(3, 5*time.Second, time.Minute)} // of the database's faults; the outcome of a test is no fault
}

// runIntegrationTest tests an integration as it was when the test was asked for.
// If it has changed meanwhile, nothing is known of it.
func (d *Desk) runIntegrationTest(ctx context.Context, j jobs.Job) error {
	var test integrationTest
	if err := json.Unmarshal(j.Payload, &test); err != nil {
		return jobs.Permanent(fmt.Errorf("payload: %w", err))
	}
	account, err := d.Store.Account(ctx, j.Workspace, j.Key, false)
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var state, text string
	if account.Version == test.Version {
		bound, cancel := context.WithTimeout(ctx, integrationTestTime)
		state, text = d.tryIntegration(bound, j, account, test)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err() // the server stops, which says nothing of the integration
		}
	}
	return d.InTx(ctx, func(tx Store) error {
		now, err := tx.Account(ctx, j.Workspace, j.Key, true)
		switch {
		case problem.Is(err, problem.NotFound):
			return nil
		case err != nil:
			return err
		case now.Version == test.Version && state != "":
			return tx.SetAccountState(ctx, j.Workspace, j.Key, state, text, d.now())
		case now.State == integrations.Checking:
			return tx.SetAccountState(ctx, j.Workspace, j.Key, integrations.Unchecked, "", time.Time{})
		}
		return nil
	})
}

// tryIntegration makes the test, and returns what it has found.
func (d *Desk) tryIntegration(ctx context.Context, j jobs.Job, account integrations.Account, test integrationTest) (state, text string) {
	err := d.Accounts.Check(ctx, account)
	if err != nil {
		return integrations.Failing, failureText(err)
	}
	if test.To == "" {
		return integrations.Working, "It answers, and takes the login."
	}
	err = d.Accounts.SendTest(ctx, account, j.ID, integrations.Letter{Date: j.CreatedAt, To: []string{test.To}, Subject: "Test of " + account.Name,
		Text: fmt.Sprintf("This is a test of the integration %q of TrustPager.\nIt was asked for by %s. Nothing is to be done.\n", account.Name, test.By)})
	if err != nil {
		return integrations.Failing, "The login works, but the test message was not sent. " + failureText(err)
	}
	return integrations.Working, "It takes the login, and has sent a test message to " + test.To + "."
}

// failureText returns what people are told of a failed test.
func failureText(err error) string {
	if _, ok := errors.AsType[*integrations.Failure](err); ok {
		return sentenceOf(err.Error())
	}
	return "Its secrets cannot be opened with the server's secret key. Enter them again."
}

// sentenceOf makes a sentence of an error's text.
func sentenceOf(s string) string {
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
