package approvals_test

import (
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/oauth"
	"trustpager/problem"
)

// What a client asked for runs only while its user's grant is in force.
func TestClientsRequestNeedsItsGrant(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.delegated("usr_asker", access.Member, agent, "contacts:delete")
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		if a.By.Client == "" || a.By.User != "usr_asker" || a.Decider != access.DeciderOwner {
			t.Errorf("got %+v, want one by the client, for its user", a)
		}
		w.must(w.db.RevokeGrant(t.Context(), w.ws.ID, g.Principal.ID, w.clock.Now()))
		_, err := w.approve(w.admin(), a.ID)
		w.denied(err, problem.Conflict, "cannot run")
		w.state(a.ID, "pending none")

		gr, err := w.db.Grant(t.Context(), w.ws.ID, g.Principal.ID, false)
		w.must(err)
		_, err = w.db.SaveGrant(t.Context(), gr) // connected again
		w.must(err)
		w.approved(a.ID, "approved done")

		w.must(w.db.RemoveMember(t.Context(), w.ws.ID, "usr_asker"))
		if g := w.today(g.Principal.ID); g.Decide("contacts", access.Read) != access.Deny {
			t.Error("the client of a person who is no member any more still may read")
		}
	})
}

// Once the admins hold it back too, the user may not decide any more.
func TestUserDecidesOnlyWhatTheirConsentHoldsBack(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.delegated("usr_asker", access.Member, agent, "contacts:delete")
		member := w.person("usr_asker", w.gate.Catalog.RoleRights(access.Member))
		first := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		second := w.ask(g, "create_contact", "", `{"first_name":"Bob"}`)
		_, err := w.approve(member, first.ID)
		w.must(err)
		w.state(first.ID, "approved done")

		w.must(w.db.UpdatePolicy(t.Context(), oauth.Policy{Workspace: w.ws.ID, Client: g.Principal.Client, Ceiling: scopes(t, "contacts:write-approval")}))
		_, err = w.approve(member, second.ID)
		w.denied(err, problem.InsufficientScope, "only with an admin's approval")
		w.approved(second.ID, "approved done")

		marked := w.delegated("usr_asker", access.Member, "contacts:delete", "contacts:delete")
		settings := w.ws.Settings
		settings.AlwaysAsk = []access.Mark{{Resource: "contacts", Verb: "write"}}
		w.settings(settings)
		third := w.ask(w.today(marked.Principal.ID), "create_contact", "", `{"first_name":"Cleo"}`)
		_, err = w.approve(member, third.ID)
		w.denied(err, problem.InsufficientScope, "only with an admin's approval")
	})
}

// A key that has registered a client does not decide what the client asks for,
// nor does its family: it knows the client's secret.
func TestKeyDoesNotDecideForItsClient(t *testing.T) {
	eachWorld(t, func(w *world) {
		maker, loner := w.key("decide"), w.key("decide")
		child := w.keyBy(maker, "decide")
		made, err := w.desk.CreateClient(t.Context(), maker, admin.ClientInput{Name: new("Sync"), ClientCredentials: new(true), Scopes: &[]string{"contacts:write-approval"}})
		w.must(err)
		gr, err := w.db.SaveGrant(t.Context(), oauth.Grant{ID: "grt_01890a5dac96774bbcceb30209", Workspace: w.ws.ID, Client: made.Client.ID, CreatedAt: w.clock.Now(), ConsentedAt: w.clock.Now()})
		w.must(err)
		g := w.today(gr.ID)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		for name, key := range map[string]access.Grant{"maker": maker, "child": child} {
			_, err := w.approve(key, a.ID)
			w.denied(err, problem.InsufficientScope, "family")
			if t.Failed() {
				t.Fatalf("the %s decides", name)
			}
		}
		_, err = w.approve(loner, a.ID)
		w.must(err)

		_, err = w.desk.RevokeKey(t.Context(), w.op, maker.Principal.ID)
		w.must(err)
		if g := w.today(gr.ID); g.Decide("contacts", access.Read) != access.Deny {
			t.Error("the client goes on after the key that registered it was revoked")
		}
	})
}

// Nor does it decide what the client asks for on behalf of somebody: the key
// knows the client's secret, and may have their tokens.
func TestKeyDoesNotDecideForUsersOfItsClient(t *testing.T) {
	eachWorld(t, func(w *world) {
		maker, loner := w.key("decide"), w.key("decide")
		made, err := w.desk.CreateClient(t.Context(), maker, admin.ClientInput{Name: new("App"), RedirectURIs: &[]string{"https://app.example.com/cb"}, Scopes: &[]string{"contacts:delete"}})
		w.must(err)
		w.must(w.db.CreateUser(t.Context(), access.User{ID: "usr_asker", Email: "asker@example.com", Name: "Asker", CreatedAt: w.clock.Now()}, ""))
		w.must(w.db.SetMember(t.Context(), w.ws.ID, "usr_asker", access.Member, w.clock.Now()))
		gr, err := w.db.SaveGrant(t.Context(), oauth.Grant{ID: "grt_01890a5dac96774bbcceb30210", Workspace: w.ws.ID, Client: made.Client.ID, User: "usr_asker",
			Scopes: scopes(t, "contacts:write-approval"), CreatedAt: w.clock.Now(), ConsentedAt: w.clock.Now()})
		w.must(err)
		a := w.ask(w.today(gr.ID), "create_contact", "", `{"first_name":"Ada"}`)
		_, err = w.approve(maker, a.ID)
		w.denied(err, problem.InsufficientScope, "family")
		_, err = w.approve(loner, a.ID)
		w.must(err)

		_, err = w.desk.RevokeKey(t.Context(), w.op, maker.Principal.ID)
		w.must(err)
		if g := w.today(gr.ID); g.Decide("contacts", access.Read) != access.Run {
			t.Error("what a user granted ends with the key that registered the client")
		}
	})
}

// A client that may not read a resource any more is not shown what it asked
// for there.
func TestNarrowedClientReadsNoInputs(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.delegated("usr_asker", access.Member, agent, "contacts:delete deals:delete")
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		w.approved(a.ID, "approved done")
		w.must(w.db.SetGrantScopes(t.Context(), w.ws.ID, g.Principal.ID, scopes(t, "deals:read")))
		narrowed := w.today(g.Principal.ID)
		got, err := w.gate.Approval(t.Context(), narrowed, a.ID)
		w.must(err)
		list, err := w.gate.List(t.Context(), narrowed, approvals.Query{Limit: 10})
		w.must(err)
		for _, got := range append(list, got) {
			if string(got.Input) != "{}" || got.Result != nil || got.Status != approvals.Approved {
				t.Errorf("got %s, result %s; want neither", got.Input, got.Result)
			}
		}
		if got, err := w.gate.Approval(t.Context(), w.admin(), a.ID); err != nil || string(got.Input) == "{}" {
			t.Errorf("an admin: got %s (%v), want the input", got.Input, err)
		}
	})
}

// A client has one webhook: it is told what became of all its users' requests.
func TestClientsWebhook(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.delegated("usr_asker", access.Member, agent, "contacts:delete")
		_, err := w.desk.UpdateClient(t.Context(), w.op, g.Principal.Client, admin.ClientInput{WebhookURL: new("http://127.0.0.1:9999/hook")})
		w.must(err)
		owner := g
		owner.Principal.ID = g.Principal.Client
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		_, err = w.gate.Reject(t.Context(), w.admin(), a.ID, "we have her")
		w.must(err)
		told := w.deliveries(owner)
		if len(told) != 1 {
			t.Fatalf("got %d deliveries, want 1", len(told))
		}
		if rejected := w.stored(a.ID); rejected.Status != approvals.Rejected {
			t.Errorf("got %s", rejected.Status)
		}
	})
}
