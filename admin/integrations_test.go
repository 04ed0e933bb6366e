package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/integrations"
	"trustpager/jobs/jobstest"
	"trustpager/problem"
)

// tryService does an action on integrations.
func (w *world) tryService(g access.Grant, action, id, input string) (approvals.Outcome, error) {
	w.t.Helper()
	a, ok := w.s.Catalog.Find(action)
	if !ok {
		w.t.Fatalf("there is no action %s", action)
	}
	return w.s.Gate.Do(w.t.Context(), g, a, approvals.Incoming{ID: id, Input: json.RawMessage(input),
		Request: approvals.Request{Door: "rest", Method: "POST", Path: "/v1/integrations", Body: []byte(input)}})
}

// serves is tryService that has to succeed, and returns the answer.
func (w *world) serves(g access.Grant, action, id, input string) map[string]any {
	w.t.Helper()
	out, err := w.tryService(g, action, id, input)
	w.must(err)
	if out.Approval != nil {
		w.t.Fatalf("%s %s waits for approval", action, input)
	}
	var data map[string]any
	w.must(json.Unmarshal(out.Result.Data, &data))
	return data
}

const (
	mailboxInput = `{"kind":"email","name":"Sales","address":"sales@example.com","smtp_host":"smtp.example.com","smtp_password":"pass-alpha","imap_host":"imap.example.com","imap_password":"pass-beta"}`
	modelInput   = `{"kind":"anthropic","name":"Claude","api_key":"sk-ant-0123456789-wxyz","model":"claude-sonnet-4-5","input_price":300,"output_price":1500,"currency":"USD","monthly_limit":5000}`
	twilioInput  = `{"kind":"twilio","name":"Phone","account_sid":"AC0123","auth_token":"token-gamma","numbers":["+4930123456"]%s}`
)

// secretWords are the secrets of the inputs above.
var secretWords = []string{"pass-alpha", "pass-beta", "sk-ant-0123456789", "token-gamma"}

// stored returns the account as it is kept, with its secrets.
func (w *world) storedAccount(id string) (integrations.Account, integrations.Secrets) {
	w.t.Helper()
	a, err := w.db.Account(w.t.Context(), w.ws.ID, id, false)
	w.must(err)
	s, err := w.s.Accounts.Open(a)
	w.must(err)
	return a, s
}

func TestIntegrationIsConnectedAndChanged(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.member("ada@example.com", access.Owner)
		ada := w.browser("ada@example.com")
		made := w.serves(ada, "create_integration", "", mailboxInput)
		id, _ := made["id"].(string)
		for name, want := range map[string]any{"smtp_port": 465.0, "smtp_security": "tls", "imap_port": 993.0, "imap_mailbox": "INBOX", "default": true, "active": true,
			"state": "unchecked", "smtp_password_set": true, "imap_password_set": true, "version": 1.0} {
			if made[name] != want {
				w.t.Errorf("made: %s is %v, want %v", name, made[name], want)
			}
		}
		if _, s := w.storedAccount(id); s.SMTPPassword != "pass-alpha" || s.IMAPPassword != "pass-beta" {
			w.t.Error("the secrets are not kept")
		}
		second := w.serves(ada, "create_integration", "", strings.Replace(mailboxInput, "Sales", "Support", 1))
		if second["default"] != false {
			w.t.Error("the second mailbox is the default, want the first")
		}
		model := w.serves(ada, "create_integration", "", modelInput)
		if model["api_key_last4"] != "wxyz" || model["base_url"] != "https://api.anthropic.com" || model["default"] != true {
			w.t.Errorf("model: got %v", model)
		}

		// What is absent stays.
		w.must(w.db.SetAccountCursor(w.t.Context(), w.ws.ID, id, 1, json.RawMessage(`{"uid":5}`)))
		w.must(w.db.SetAccountState(w.t.Context(), w.ws.ID, id, integrations.Working, "fine", w.clock.Now()))
		got := w.serves(ada, "update_integration", id, `{"name":"Sales team","sender_name":"Sales"}`)
		a, s := w.storedAccount(id)
		if got["warning"] != nil || s.SMTPPassword != "pass-alpha" || s.IMAPPassword != "pass-beta" || string(a.Cursor) != `{"uid":5}` || a.State != integrations.Working {
			w.t.Errorf("renamed: got %v, %v, %s, state %q", got["warning"], s.SMTPPassword != "", a.Cursor, a.State)
		}
		// A secret is given for one server and user.
		got = w.serves(ada, "update_integration", id, `{"imap_host":"evil.example.net"}`)
		a, s = w.storedAccount(id)
		if s.SMTPPassword != "pass-alpha" || s.IMAPPassword != "" || got["imap_password_set"] != false || a.Cursor != nil || a.State != integrations.Unchecked {
			w.t.Errorf("another IMAP host: got %v, cursor %s, state %q", got, a.Cursor, a.State)
		}
		if text, _ := got["warning"].(string); !strings.Contains(text, "imap_password was removed") {
			w.t.Errorf("warning: got %q", text)
		}
		got = w.serves(ada, "update_integration", id, `{"imap_host":"imap.example.org","imap_password":"pass-beta"}`)
		if _, s = w.storedAccount(id); s.IMAPPassword != "pass-beta" || got["warning"] != nil {
			w.t.Errorf("sent again: got %v", got["warning"])
		}
		w.serves(ada, "update_integration", id, `{"imap_host":null,"imap_password":null}`)
		if a, s = w.storedAccount(id); s.IMAPPassword != "" || a.Settings.IMAPPort != 0 {
			w.t.Errorf("no IMAP: got %+v", a.Settings)
		}
		// The default moves.
		w.serves(ada, "update_integration", second["id"].(string), `{"default":true}`)
		if a, _ = w.storedAccount(id); a.Default {
			w.t.Error("both mailboxes are the default")
		}

		w.serves(ada, "delete_integration", id, `{}`)
		_, err := w.tryService(ada, "get_integration", id, "")
		w.denied(err, problem.NotFound, "there is no integration")
		if got := w.events(id); !strings.HasPrefix(got, "integration.created action.run integration.changed action.run") || !strings.HasSuffix(got, "integration.deleted action.run") {
			w.t.Errorf("audit: got %s", got)
		}
		entries, err := w.db.AuditEntries(w.t.Context(), w.ws.ID, audit.Query{Limit: 1000})
		w.must(err)
		log, err := json.Marshal(entries)
		w.must(err)
		out, err := w.tryService(ada, "list_integrations", "", "")
		w.must(err)
		for _, word := range secretWords {
			if strings.Contains(string(log), word) || strings.Contains(string(out.Result.Data), word) {
				w.t.Errorf("the secret %q shows in the log or in the list", word)
			}
		}
	})
}

func TestNoSecretFollowsToAnotherServer(t *testing.T) {
	eachWorld(t, func(w *world) {
		for name, tt := range map[string]struct{ made, change, secret string }{
			"SMTP host":      {mailboxInput, `{"smtp_host":"evil.example.net"}`, "smtp_password"},
			"SMTP port":      {mailboxInput, `{"smtp_port":2525}`, "smtp_password"},
			"SMTP security":  {mailboxInput, `{"smtp_security":"starttls"}`, "smtp_password"},
			"SMTP user":      {mailboxInput, `{"smtp_username":"eve"}`, "smtp_password"},
			"address":        {mailboxInput, `{"address":"eve@example.com"}`, "smtp_password"},
			"IMAP user":      {mailboxInput, `{"imap_username":"eve"}`, "imap_password"},
			"IMAP security":  {mailboxInput, `{"imap_security":"starttls"}`, "imap_password"},
			"Twilio's URL":   {fmt.Sprintf(twilioInput, ""), `{"base_url":"https://evil.example.net"}`, "auth_token"},
			"Twilio account": {fmt.Sprintf(twilioInput, ""), `{"account_sid":"AC99"}`, "auth_token"},
			"model's URL":    {modelInput, `{"base_url":"https://evil.example.net"}`, "api_key"},
			"model's path":   {modelInput, `{"base_url":"https://api.anthropic.com/evil"}`, "api_key"},
		} {
			id, _ := w.serves(w.op, "create_integration", "", tt.made)["id"].(string)
			got := w.serves(w.op, "update_integration", id, tt.change)
			if _, s := w.storedAccount(id); *s.At(tt.secret) != "" || got[tt.secret+"_set"] != false || got["warning"] == nil {
				w.t.Errorf("%s: %s is kept", name, tt.secret)
			}
		}
	})
}

func TestIntegrationsFaultsAreTold(t *testing.T) {
	eachWorld(t, func(w *world) {
		twilio := fmt.Sprintf(twilioInput, "")
		for _, tt := range []struct{ input, paths string }{
			{`{"kind":"email","name":"x"}`, "address smtp_host"},
			{strings.Replace(mailboxInput, "smtp.example.com", "10.0.0.1", 1), "smtp_host"},
			{strings.Replace(mailboxInput, "smtp.example.com", "127.1", 1), "smtp_host"},
			{strings.Replace(mailboxInput, "smtp.example.com", "a b", 1), "smtp_host"},
			{strings.Replace(mailboxInput, "smtp.example.com", "smtp.example.com:25", 1), "smtp_host"},
			{strings.Replace(mailboxInput, `"smtp_host"`, `"smtp_port":0,"smtp_host"`, 1), "smtp_port"},
			{strings.Replace(mailboxInput, `"smtp_host"`, `"smtp_port":65536,"smtp_host"`, 1), "smtp_port"},
			{strings.Replace(mailboxInput, `"smtp_host"`, `"smtp_security":"none","smtp_host"`, 1), "smtp_security"},
			{strings.Replace(mailboxInput, `"smtp_host"`, `"api_key":"k","model":"m","smtp_host"`, 1), "api_key model"},
			{strings.Replace(mailboxInput, `"imap_host":"imap.example.com",`, "", 1), "imap_password"},
			{strings.Replace(twilio, "+4930123456", "030123456", 1), "numbers.0"},
			{strings.Replace(twilio, `["+4930123456"]`, `[]`, 1), "numbers"},
			{strings.Replace(twilio, "token-gamma", "token gamma", 1), "auth_token"},
			{strings.Replace(twilio, "AC0123", "AC/../x", 1), "account_sid"},
			{fmt.Sprintf(twilioInput, `,"base_url":"http://api.example.com"`), "base_url"},
			{fmt.Sprintf(twilioInput, `,"base_url":"http://10.1.1.1"`), "base_url"},
			{fmt.Sprintf(twilioInput, `,"base_url":"https://169.254.169.254"`), "base_url"},
			{fmt.Sprintf(twilioInput, `,"base_url":"https://user:pw@example.com"`), "base_url"},
			{fmt.Sprintf(twilioInput, `,"base_url":"https://example.com?x=1"`), "base_url"},
			{strings.Replace(modelInput, "claude-sonnet-4-5", "", 1), "model"},
			{strings.Replace(modelInput, "claude-sonnet-4-5", "a b", 1), "model"},
			{strings.Replace(modelInput, `,"currency":"USD"`, "", 1), "currency"},
			{`{"kind":"openai","name":"x","model":"gpt","currency":"EUR","monthly_limit":5}`, "monthly_limit"},
			{strings.Replace(modelInput, "Claude", `a\u0007`, 1), "name"},
			{strings.Replace(modelInput, `"name"`, `"active":false,"default":true,"name"`, 1), "default"},
		} {
			_, err := w.tryService(w.op, "create_integration", "", tt.input)
			w.faults(err, strings.Fields(tt.paths)...)
			for _, word := range secretWords {
				if err != nil && strings.Contains(err.Error(), word) {
					w.t.Errorf("%s: the error %v tells the secret", tt.input, err)
				}
			}
		}
		// An address that the operator allows, and plain HTTP to it.
		w.serves(w.op, "create_integration", "", fmt.Sprintf(twilioInput, `,"base_url":"http://127.0.0.1:4000/twilio"`))
	})
}

func TestWhoManagesIntegrations(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.member("ada@example.com", access.Owner)
		w.member("tom@example.com", access.Member)
		ada, tom := w.browser("ada@example.com"), w.browser("tom@example.com")
		_, full := w.key("full")
		_, reads := w.key("integrations:read contacts:delete")
		_, asks := w.key("integrations:write-approval")
		_, nothing := w.key("contacts:delete email:send")
		id, _ := w.serves(full, "create_integration", "", mailboxInput)["id"].(string)

		for name, g := range map[string]access.Grant{"member": tom, "another key": nothing} {
			for _, action := range []string{"list_integrations", "create_integration"} {
				if _, err := w.tryService(g, action, "", mailboxInput); !problem.Is(err, problem.InsufficientScope) {
					w.t.Errorf("%s, %s: got %v, want %s", name, action, err, problem.InsufficientScope)
				}
			}
			for _, action := range []string{"get_integration", "test_integration", "delete_integration"} {
				if _, err := w.tryService(g, action, id, ""); !problem.Is(err, problem.InsufficientScope) {
					w.t.Errorf("%s, %s: got %v, want %s", name, action, err, problem.InsufficientScope)
				}
			}
		}
		seen := w.serves(reads, "get_integration", id, "")
		if all := fmt.Sprint(seen); strings.Contains(all, "pass-") || strings.Contains(all, "v1.") || seen["smtp_password_set"] != true {
			w.t.Errorf("a reader sees %s", all)
		}
		if _, err := w.tryService(reads, "update_integration", id, `{"name":"x"}`); !problem.Is(err, problem.InsufficientScope) {
			w.t.Errorf("a reader changes: got %v", err)
		}

		// Who asks proposes all but secrets.
		_, err := w.tryService(asks, "create_integration", "", mailboxInput)
		w.denied(err, problem.Validation, "a secret cannot wait")
		proposed := `{"kind":"email","name":"Orders","address":"orders@example.com","smtp_host":"smtp.example.com"}`
		out, err := w.tryService(asks, "create_integration", "", proposed)
		w.must(err)
		_, err = w.s.Gate.Approve(w.t.Context(), ada, out.Approval.ID, approvals.Seen{Edited: json.RawMessage(strings.Replace(proposed, `"smtp_host"`, `"smtp_password":"pass-alpha","smtp_host"`, 1))})
		w.denied(err, problem.Validation, "a secret cannot wait")
		if c, err := w.s.Gate.Card(w.t.Context(), ada, out.Approval.ID); err != nil || c.Blocked() || len(c.Facts) < 5 {
			w.t.Errorf("card: got %+v, %v", c, err)
		}
		_, err = w.s.Gate.Approve(w.t.Context(), tom, out.Approval.ID, approvals.Seen{})
		if err == nil {
			w.t.Error("a member has approved it")
		}
		done, err := w.s.Gate.Approve(w.t.Context(), ada, out.Approval.ID, approvals.Seen{})
		w.must(err)
		if done.Execution != approvals.Done || !strings.Contains(string(done.Result), "orders@example.com") {
			w.t.Errorf("approved: got %+v", done)
		}

		// A change of the server says on the card that the password goes.
		out, err = w.tryService(asks, "update_integration", id, `{"smtp_host":"mail.example.org"}`)
		w.must(err)
		c, err := w.s.Gate.Card(w.t.Context(), ada, out.Approval.ID)
		w.must(err)
		if !strings.Contains(fmt.Sprint(c.Checks), "smtp_password will be removed") {
			w.t.Errorf("checks: got %+v", c.Checks)
		}
		// It has changed since: refused, then rebased by who has looked.
		w.serves(ada, "update_integration", id, `{"name":"Renamed"}`)
		_, err = w.s.Gate.Approve(w.t.Context(), ada, out.Approval.ID, approvals.Seen{})
		w.denied(err, problem.Conflict, "was changed since")
		c, err = w.s.Gate.Card(w.t.Context(), ada, out.Approval.ID)
		w.must(err)
		if !c.Stale {
			w.t.Error("the card of a changed integration is not stale")
		}
		_, err = w.s.Gate.Approve(w.t.Context(), ada, out.Approval.ID, approvals.Seen{Stale: approvals.Rebase, TargetVersion: c.TargetVersion})
		w.must(err)
		if a, s := w.storedAccount(id); a.Settings.SMTPHost != "mail.example.org" || a.Name != "Renamed" || s.SMTPPassword != "" || s.IMAPPassword == "" {
			w.t.Errorf("rebased: got %+v", a.Settings)
		}

		// Another workspace sees nothing of it.
		other, err := w.desk.CreateWorkspace(w.t.Context(), "Two", "UTC")
		w.must(err)
		if _, err := w.tryService(admin.OperatorGrant(other), "get_integration", id, ""); !problem.Is(err, problem.NotFound) {
			w.t.Errorf("from another workspace: got %v, want not found", err)
		}
	})
}

func TestIntegrationIsTested(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.member("ada@example.com", access.Owner)
		ada := w.browser("ada@example.com")
		var asked atomic.Int32
		status := http.StatusOK
		before := func() {}
		peer := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			before()
			if _, token, _ := r.BasicAuth(); token != "token-gamma" {
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			rw.WriteHeader(status)
			fmt.Fprint(rw, `{"sid":"AC0123","status":"active","message":"token-gamma is no good"}`)
		}))
		defer peer.Close()
		id, _ := w.serves(ada, "create_integration", "", fmt.Sprintf(twilioInput, `,"base_url":"`+peer.URL+`"`))["id"].(string)
		test := func(wantState, words string) {
			w.t.Helper()
			if got := w.serves(ada, "test_integration", id, `{}`); got["state"] != "checking" {
				w.t.Errorf("asked: got the state %v, want checking", got["state"])
			}
			jobstest.Do(w.t, w.db, w.clock.Now, admin.IntegrationTestKind, w.desk.IntegrationTests())
			got := w.serves(ada, "get_integration", id, "")
			if text, _ := got["state_text"].(string); got["state"] != wantState || !strings.Contains(text, words) || strings.Contains(text, "token-gamma") {
				w.t.Errorf("tested: got %v, %q; want %s, %q", got["state"], text, wantState, words)
			}
		}
		test("ok", "takes the login")
		status = http.StatusForbidden
		test("failed", "403")
		before = func() {
			before = func() {}
			w.serves(ada, "update_integration", id, `{"auth_token":"token-delta"}`)
		}
		test("unchecked", "") // what was found was about the settings before
		test("failed", "401")
		asks := asked.Load()
		w.serves(ada, "test_integration", id, `{}`)
		w.serves(ada, "delete_integration", id, `{}`)
		jobstest.Do(w.t, w.db, w.clock.Now, admin.IntegrationTestKind, w.desk.IntegrationTests())
		if asked.Load() != asks {
			w.t.Error("a deleted integration was tested")
		}
		if got := w.events(id); strings.Count(got, "integration.tested") != 5 {
			w.t.Errorf("audit: got %s", got)
		}

		// A test message goes to members only.
		id, _ = w.serves(ada, "create_integration", "", mailboxInput)["id"].(string)
		_, err := w.tryService(ada, "test_integration", id, `{"to":"stranger@example.org"}`)
		w.faults(err, "to")
		w.serves(ada, "test_integration", id, `{"to":"ADA@example.com"}`)
	})
}
