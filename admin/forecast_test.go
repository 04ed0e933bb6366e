package admin_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/problem"
)

// split writes a split as run/wait/refused.
func split(s admin.Split) string {
	return fmt.Sprintf("%d/%d/%d", s[access.Run], s[access.Queue], s[access.Deny])
}

// calls is what was called so often.
func calls(of map[string]int64) []access.PastCalls {
	var past []access.PastCalls
	for action, n := range of {
		past = append(past, access.PastCalls{Action: action, N: n})
	}
	return past
}

// Each rung and each verb of its ladder.
func TestForecastOfEachRung(t *testing.T) {
	cat, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	read, write, del := "list_contacts", "update_contact", "delete_contact"
	for _, tt := range []struct{ scopes, action, want string }{
		{"", read, "deny"}, {"", write, "deny"}, {"", del, "deny"},
		{"contacts:read", read, "run"}, {"contacts:read", write, "deny"}, {"contacts:read", del, "deny"},
		{"contacts:write-approval", read, "run"}, {"contacts:write-approval", write, "queue"}, {"contacts:write-approval", del, "deny"},
		{"contacts:write", read, "run"}, {"contacts:write", write, "run"}, {"contacts:write", del, "deny"},
		{"contacts:delete-approval", read, "run"}, {"contacts:delete-approval", write, "queue"}, {"contacts:delete-approval", del, "queue"},
		{"contacts:write contacts:delete-approval", write, "run"}, {"contacts:write contacts:delete-approval", del, "queue"},
		{"contacts:delete", read, "run"}, {"contacts:delete", write, "run"}, {"contacts:delete", del, "run"},
		{"deals:delete", read, "deny"}, {"deals:delete", write, "deny"}, {"deals:delete", del, "deny"},
		{"", "send_email", "deny"}, {"email:read", "send_email", "deny"}, {"email:read", "list_email", "run"},
		{"email:send-approval", "send_email", "queue"}, {"email:send-approval", "list_email", "run"},
		{"email:send", "send_email", "run"}, {"email:send", "list_email", "run"},
		{"", "ai_edit_text", "deny"}, {"ai:use-approval", "ai_edit_text", "queue"}, {"ai:use", "ai_edit_text", "run"},
		{"ai:use-approval", "get_ai_result", "run"}, {"", "get_ai_result", "deny"}, // its own results
		{"users:write", "invite_user", "queue"}, {"users:delete", "remove_user", "queue"}, // people decide
		{"", "search", "deny"}, {"deals:read", "search", "run"},
	} {
		scopes, err := access.ParseScopes(tt.scopes)
		if err != nil {
			t.Fatal(err)
		}
		then := access.Key{ID: "key", Scopes: scopes}.Grant(access.Workspace{})
		f := admin.ForecastOf(cat, calls(map[string]int64{tt.action: 3}), func(access.PastCalls) access.Grant { return access.Grant{} }, func(access.PastCalls) access.Grant { return then })
		want := map[string]string{"run": "3/0/0", "queue": "0/3/0", "deny": "0/0/3"}[tt.want]
		if got := split(f.Then); got != want || len(f.Rows) != 1 || split(f.Rows[0].Then) != want || split(f.Now) != "0/0/3" {
			t.Errorf("%q, %s: got %s, want %s (%+v)", tt.scopes, tt.action, got, want, f)
		}
	}
}

// What combines with the rungs: full access, marks, ceiling and role. What is no
// action does not count.
func TestForecastCombinesAuthorities(t *testing.T) {
	cat, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	scopes := func(text string) []access.Scope {
		all, err := access.ParseScopes(text)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	marked := access.Workspace{Settings: access.Settings{AlwaysAsk: []access.Mark{{Resource: "contacts", Verb: "write"}}}}
	delegated := func(granted, ceiling string, role access.Role) access.Grant {
		d := access.Delegation{ID: "grt", Scopes: scopes(granted), Ceiling: scopes(ceiling)}
		if role != "" {
			d.User = access.User{ID: "usr", Role: role}
		}
		return d.Grant(nil, cat.RoleRights)
	}
	past := calls(map[string]int64{"list_contacts": 100, "create_contact": 10, "update_contact": 2, "delete_contact": 1, "list_webhooks": 5,
		"get_approval": 1000, "tools/list": 1000, "request_access": 1000, "list_gone": 1000})
	for name, tt := range map[string]struct {
		then access.Grant
		want string
	}{
		"nothing":                      {access.Grant{}, "0/0/118"},
		"full access":                  {access.Key{FullAccess: true}.Grant(access.Workspace{}), "118/0/0"},
		"full access under a mark":     {access.Key{FullAccess: true}.Grant(marked), "106/12/0"},
		"a rung under a mark":          {access.Key{Scopes: scopes("contacts:write")}.Grant(marked), "100/12/6"},
		"within the ceiling":           {delegated("contacts:delete", "contacts:write-approval", access.Owner), "100/12/6"},
		"within the consent":           {delegated("contacts:write-approval", "contacts:delete", access.Owner), "100/12/6"},
		"a member and Admin Only":      {delegated("contacts:delete webhooks:read", "contacts:delete webhooks:read", access.Member), "113/0/5"},
		"an admin and Admin Only":      {delegated("contacts:delete webhooks:read", "contacts:delete webhooks:read", access.Admin), "118/0/0"},
		"somebody who is no member":    {delegated("contacts:delete", "contacts:delete", "gone"), "0/0/118"},
		"a client that acts by itself": {delegated("", "contacts:delete-approval", ""), "100/13/5"},
	} {
		f := admin.ForecastOf(cat, past, func(access.PastCalls) access.Grant {
			return access.Key{Scopes: scopes("contacts:write")}.Grant(access.Workspace{})
		},
			func(access.PastCalls) access.Grant { return tt.then })
		if got := split(f.Then); got != tt.want || split(f.Now) != "112/0/6" || f.Then.Calls() != f.Now.Calls() {
			t.Errorf("%s: got %s, now %s; want %s, now 112/0/6", name, got, split(f.Now), tt.want)
		}
		var rows admin.Split
		var order []string
		for _, r := range f.Rows {
			order = append(order, r.Resource+" "+r.Verb.String())
			for l, n := range r.Then {
				rows[l] += n
			}
		}
		if rows != f.Then || strings.Join(order, ", ") != "contacts read, contacts write, webhooks read, contacts delete" {
			t.Errorf("%s: the rows are %v and sum up to %v, want %v", name, order, rows, f.Then)
		}
	}
}

// The Desk tells what was counted, to whom it may.
func TestForecasts(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		now := w.clock.Now()
		var counts []access.Count
		count := func(credential, action string, o access.Outcome, n int64, ago time.Duration) {
			counts = append(counts, access.Count{Workspace: w.ws.ID, Credential: credential, Hour: now.Add(-ago).Truncate(time.Hour), Action: action, Outcome: o, N: n})
		}
		made, key := w.make(w.op, rights("contacts:write-approval"))
		id := made.Key.ID
		for _, o := range []access.Outcome{access.OutcomeOK, access.OutcomeQueued, access.OutcomeDenied, access.OutcomeInvalid, access.OutcomeLimited, access.OutcomeFailed} {
			count(id, "create_contact", o, 1, 0)
		}
		count(id, "create_contact", access.OutcomeQueued, 10, 29*24*time.Hour)
		count(id, "create_contact", access.OutcomeQueued, 100, 31*24*time.Hour)
		count(id, "delete_contact", access.OutcomeDenied, 4, time.Hour)
		client := w.client(w.op, admin.ClientInput{Scopes: &[]string{"contacts:delete"}}).Client.ID
		ada, mia, max := w.member("ada@example.com", access.Admin), w.member("mia@example.com", access.Member), w.member("max@example.com", access.Member)
		wide, narrow, ended := w.grantOf(client, ada, "contacts:delete"), w.grantOf(client, mia, "contacts:write-approval"), w.grantOf(client, max, "contacts:delete")
		for _, gr := range []string{wide.ID, narrow.ID, ended.ID} {
			count(gr, "create_contact", access.OutcomeOK, 1, 0)
			count(gr, "create_contact", access.OutcomeOK, 6, 48*time.Hour)
		}
		w.must(w.db.AddUsage(ctx, counts, nil))
		_, err := w.desk.RevokeGrant(ctx, w.op, ended.ID)
		w.must(err)

		f, err := w.desk.KeyForecast(ctx, w.op, id, false, w.scopes("contacts:write contacts:delete-approval"))
		w.must(err)
		want(w.t, "the key", split(f.Now)+" → "+split(f.Then), "0/13/4 → 13/4/0")
		f, err = w.desk.KeyForecast(ctx, w.op, id, true, nil)
		w.must(err)
		want(w.t, "with full access", split(f.Then), "17/0/0")
		f, err = w.desk.ClientForecast(ctx, w.op, client, w.scopes("contacts:read"))
		w.must(err)
		want(w.t, "the client's ceiling", split(f.Now)+" → "+split(f.Then), "7/7/0 → 0/0/14")
		f, err = w.desk.GrantForecast(ctx, w.browser(mia.Email), narrow.ID, w.scopes("contacts:write"))
		w.must(err)
		want(w.t, "mia's own", split(f.Now)+" → "+split(f.Then), "0/7/0 → 7/0/0")
		f, err = w.desk.GrantForecast(ctx, w.browser(ada.Email), narrow.ID, nil)
		w.must(err)
		want(w.t, "narrowed by an admin", split(f.Then), "0/0/7")

		_, err = w.desk.GrantForecast(ctx, w.browser(mia.Email), wide.ID, nil)
		w.denied(err, problem.NotFound, "")
		_, err = w.desk.KeyForecast(ctx, w.browser(mia.Email), id, true, nil)
		w.denied(err, problem.InsufficientScope, "")
		_, err = w.desk.ClientForecast(ctx, w.browser(mia.Email), client, nil)
		w.denied(err, problem.InsufficientScope, "")
		_, err = w.desk.KeyForecast(ctx, key, id, true, nil)
		w.denied(err, problem.InsufficientScope, "")

		k, err := w.db.Key(ctx, w.ws.ID, id, false) // nothing is saved
		w.must(err)
		want(w.t, "the key then", access.FormatScopes(k.Scopes), "contacts:write-approval")
	})
}
