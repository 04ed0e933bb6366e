package approvals_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/webhook"
)

// A told event is the body of a delivery to a subscription.
type toldEvent struct {
	Type webhook.EventType
	Data struct {
		Resource string
		Record   map[string]any
		Changed  []string
		Before   map[string]any
		Actor    webhook.Actor
		Approval json.RawMessage // an id, or an approval
	}
	raw []byte
}

// subscribe makes a webhook of g with the events.
func (w *world) subscribe(g access.Grant, events ...string) string {
	w.t.Helper()
	return w.run(g, "create_webhook", "", fmt.Sprintf(`{"url":"http://127.0.0.1:9999/events","events":["%s"]}`, strings.Join(events, `","`)))
}

// told returns what was sent to the webhook, oldest first.
func (w *world) told(id string) []toldEvent {
	w.t.Helper()
	list, err := w.db.Deliveries(w.t.Context(), w.ws.ID, webhook.Query{Owner: id, Limit: 100})
	w.must(err)
	var all []toldEvent
	for _, each := range slices.Backward(list) {
		d, err := w.db.Delivery(w.t.Context(), w.ws.ID, each.ID)
		w.must(err)
		e := toldEvent{raw: d.Body}
		w.must(json.Unmarshal(d.Body, &e))
		if e.Type != d.Event {
			w.t.Errorf("the body of %s says %s", d.Event, e.Type)
		}
		all = append(all, e)
	}
	return all
}

// types returns the types of what was sent to the webhook.
func (w *world) types(id string) string {
	w.t.Helper()
	var all []string
	for _, e := range w.told(id) {
		all = append(all, string(e.Type))
	}
	return strings.Join(all, " ")
}

// wantTypes checks the types of what was sent to the webhook.
func (w *world) wantTypes(id, want string) {
	w.t.Helper()
	if got := w.types(id); got != want {
		w.t.Errorf("got %q, want %q", got, want)
	}
}

func TestSubscriptionsAreToldOfRecords(t *testing.T) {
	eachWorld(t, func(w *world) {
		full := w.key("full")
		all, some := w.subscribe(full, "contacts.*"), w.subscribe(full, "contacts.updated", "deals.*")
		id := w.run(full, "create_contact", "", `{"first_name":"Ada","email":"ada@example.com"}`)
		w.run(full, "update_contact", id, `{"first_name":"Grace","email":null,"city":"York"}`)
		w.run(full, "update_contact", id, `{"city":"York"}`) // changes nothing
		customer := w.run(full, "create_customer", "", `{"name":"Babbage Ltd"}`)
		w.run(full, "link_contact_to_customer", id, fmt.Sprintf(`{"customer_id":%q}`, customer)) // a further action
		w.run(full, "delete_contact", id, ``)
		w.wantTypes(all, "contacts.created contacts.updated contacts.updated contacts.deleted")
		w.wantTypes(some, "contacts.updated contacts.updated")

		events := w.told(all)
		made, changed, linked, gone := events[0].Data, events[1].Data, events[2].Data, events[3].Data
		if made.Resource != "contacts" || made.Record["id"] != id || made.Record["version"] != 1.0 || made.Record["first_name"] != "Ada" || made.Changed != nil || made.Before != nil {
			w.t.Errorf("created: got %s", events[0].raw)
		}
		if want := (webhook.Actor{Kind: "key", ID: full.Principal.ID, Name: "key full"}); made.Actor != want || made.Approval != nil {
			w.t.Errorf("actor: got %+v and approval %s, want %+v and none", made.Actor, made.Approval, want)
		}
		if !slices.Equal(changed.Changed, []string{"city", "email", "first_name"}) || changed.Record["first_name"] != "Grace" ||
			len(changed.Before) != 2 || changed.Before["first_name"] != "Ada" || changed.Before["email"] != "ada@example.com" {
			w.t.Errorf("updated: got %s", events[1].raw)
		}
		if !slices.Equal(linked.Changed, []string{"customer_id"}) || linked.Record["customer_id"] != customer {
			w.t.Errorf("linked: got %s", events[2].raw)
		}
		if gone.Record["first_name"] != "Grace" || gone.Record["version"] != 3.0 {
			w.t.Errorf("deleted: got %s, want it as it was", events[3].raw)
		}
	})
}

func TestSubscriptionsAreToldOfApprovalsAndWhatTheyDo(t *testing.T) {
	eachWorld(t, func(w *world) {
		id := w.subscribe(w.key("full"), "approval.*", "contacts.*", "vaults.*")
		asker := w.key(agent)
		a := w.ask(asker, "create_contact", "", `{"first_name":"Ada"}`)
		w.ask(asker, "create_contact", "", `{"first_name":"Ada"}`) // the same: nothing new
		w.approved(a.ID, "approved done")
		w.wantTypes(id, "approval.requested approval.approved contacts.created approval.executed")
		events := w.told(id)
		var asked, executed struct {
			Approval approvals.View `json:"approval"`
		}
		w.must(json.Unmarshal(wrapData(events[0].raw), &asked))
		w.must(json.Unmarshal(wrapData(events[3].raw), &executed))
		if asked.Approval.ID != a.ID || asked.Approval.Status != approvals.Pending || asked.Approval.RequestedBy.ID != asker.Principal.ID {
			w.t.Errorf("requested: got %s", events[0].raw)
		}
		if executed.Approval.Execution != approvals.Done || executed.Approval.DecidedBy == nil {
			w.t.Errorf("executed: got %s", events[3].raw)
		}
		record := events[2].Data
		if string(record.Approval) != `"`+a.ID+`"` || record.Actor.ID != asker.Principal.ID {
			w.t.Errorf("the record: got %s, want the asker and the approval", events[2].raw)
		}

		rejected, withdrawn, over := w.ask(asker, "create_contact", "", `{"first_name":"B"}`), w.ask(asker, "create_contact", "", `{"first_name":"C"}`), w.ask(asker, "create_contact", "", `{"first_name":"D"}`)
		_, err := w.gate.Reject(w.t.Context(), w.admin(), rejected.ID, "no")
		w.must(err)
		_, err = w.gate.Withdraw(w.t.Context(), asker, withdrawn.ID)
		w.must(err)
		w.clock.Advance(access.DefaultApprovalTTL + time.Minute)
		w.expire()
		_ = over
		if got, want := strings.Join(strings.Fields(w.types(id))[4:], " "), "approval.requested approval.requested approval.requested approval.rejected approval.withdrawn approval.expired"; got != want {
			w.t.Errorf("got %q, want %q", got, want)
		}

		// What fails tells of the failure, and of no record.
		product := w.run(w.op, "create_product", "", `{"name":"Card","sku":"S1"}`)
		other := w.subscribe(w.key("full"), "products.*", "approval.failed", "approval.executed")
		taken := w.ask(asker, "create_product", "", `{"name":"Other","sku":"S2"}`)
		w.run(w.op, "update_product", product, `{"sku":"S2"}`)
		w.approved(taken.ID, "approved failed")
		w.wantTypes(other, "products.updated approval.failed")
	})
}

// wrapData returns the data of an event.
func wrapData(raw []byte) json.RawMessage {
	var e struct{ Data json.RawMessage }
	json.Unmarshal(raw, &e)
	return e.Data
}

func TestSubscriptionsMaskSecretFields(t *testing.T) {
	eachWorld(t, func(w *world) {
		full, asker := w.key("full"), w.key(agent)
		id := w.subscribe(full, "vaults.*", "approval.*")
		vault := w.run(full, "create_vault", "", `{"name":"Safe","pin":"1234-secret"}`)
		w.run(full, "update_vault", vault, `{"pin":"5678-secret"}`)
		a := w.ask(asker, "create_vault", "", `{"name":"Other","pin":"9999-secret"}`)
		w.approved(a.ID, "approved done")
		w.run(full, "delete_vault", vault, ``)
		events := w.told(id)
		if len(events) != 7 {
			w.t.Fatalf("got %d events, want 7: %s", len(events), w.types(id))
		}
		for _, e := range events {
			if strings.Contains(string(e.raw), "-secret") {
				w.t.Errorf("%s shows the secret: %s", e.Type, e.raw)
			}
		}
		if changed := events[1].Data; !slices.Equal(changed.Changed, []string{"pin"}) || changed.Before["pin"] != "********" || changed.Record["pin"] != "********" {
			w.t.Errorf("updated: got %s", events[1].raw)
		}
	})
}

// What is undone tells nobody: a call that fails late, and one that is refused.
func TestWhatIsUndoneTellsNobody(t *testing.T) {
	eachWorld(t, func(w *world) {
		full := w.key("full")
		id := w.subscribe(full, "products.*")
		w.run(full, "create_product", "", `{"name":"Card","sku":"S1"}`)
		for range 3 {
			_, err := w.do(full, "create_product", "", `{"name":"Other","sku":"S1"}`)
			w.denied(err, problem.Conflict, "unique")
		}
		w.run(full, "create_product", "", `{"name":"Third"}`, "k")
		out, err := w.do(full, "create_product", "", `{"name":"Third"}`, "k")
		if err != nil || !out.Replayed {
			w.t.Errorf("repeated: got %+v, %v", out, err)
		}
		w.wantTypes(id, "products.created products.created")
	})
}

// Only what its creator may read at the moment of the event is told.
func TestSubscriptionsFollowTheRightsOfTheirCreator(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key("webhooks:write contacts:read deals:read")
		id := w.subscribe(g, "contacts.created", "deals.created")
		_, err := w.do(g, "create_webhook", "", `{"url":"http://127.0.0.1:9999/","events":["contacts.created","products.created"]}`)
		w.denied(err, problem.Validation, "events.1")
		contact := func() { w.t.Helper(); w.contact("Ada") }
		contact()
		change := func(in admin.KeyInput) {
			w.t.Helper()
			_, err := w.desk.UpdateKey(w.t.Context(), w.op, g.Principal.ID, in)
			w.must(err)
		}
		told := 1
		quiet := func(what, reason string) {
			w.t.Helper()
			contact()
			if got := len(w.told(id)); got != told {
				w.t.Errorf("%s: got %d deliveries, want %d", what, got, told)
			}
			hook, err := w.desk.OneWebhook(w.t.Context(), w.op, id)
			if err != nil || !strings.Contains(hook.StateReason, reason) {
				w.t.Errorf("%s: got state %q because of %q (%v), want %q", what, hook.State, hook.StateReason, err, reason)
			}
		}
		loud := func(what string) {
			w.t.Helper()
			contact()
			told++
			if got := len(w.told(id)); got != told {
				w.t.Errorf("%s: got %d deliveries, want %d", what, got, told)
			}
		}
		change(admin.KeyInput{Scopes: &[]string{"webhooks:write", "deals:read"}})
		quiet("narrowed", "may not read what contacts.created")
		change(admin.KeyInput{Scopes: &[]string{"contacts:read"}}) // it need not manage webhooks any more
		loud("widened")
		_, err = w.desk.RevokeKey(w.t.Context(), w.op, g.Principal.ID)
		w.must(err)
		quiet("revoked", "revoked")
		_, err = w.desk.ActivateKey(w.t.Context(), w.op, g.Principal.ID)
		w.must(err)
		loud("activated")
		w.must(w.desk.Pause(w.t.Context(), w.op, g.Principal.ID))
		quiet("paused", "paused")
		w.must(w.desk.Resume(w.t.Context(), w.op, g.Principal.ID))
		w.must(w.desk.Pause(w.t.Context(), w.op, ""))
		quiet("all paused", "paused")
		w.must(w.desk.Resume(w.t.Context(), w.op, ""))
		loud("resumed")
		soon := w.clock.Now().Add(time.Hour)
		change(admin.KeyInput{ExpiresAt: &soon})
		w.clock.Advance(2 * time.Hour)
		quiet("expired", "expired")
		never := time.Time{}
		change(admin.KeyInput{ExpiresAt: &never})
		loud("not expired")
		free := w.ws
		free.Plan = access.Free
		w.must(w.desk.UpdateWorkspace(w.t.Context(), w.op, free))
		quiet("on the plan Free", "plan")
		w.must(w.desk.UpdateWorkspace(w.t.Context(), w.op, w.ws))
		w.run(w.op, "update_webhook", id, `{"active":false}`)
		quiet("switched off", "")
		w.run(w.op, "update_webhook", id, `{"active":true}`)
		loud("switched on")
		w.must(w.desk.DeleteKey(w.t.Context(), w.op, g.Principal.ID))
		quiet("deleted", "is gone")
	})
}

func TestSubscriptionsOfPeopleAndApps(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.join("usr_boss", "usr_other")
		boss := w.person("usr_boss", access.FullRights)
		app := w.delegated("usr_boss", access.Admin, "webhooks:write contacts:read", "webhooks:delete contacts:delete deals:read")
		mine, apps := w.subscribe(boss, "contacts.created"), w.subscribe(app, "contacts.created", "approval.requested")
		w.contact("Ada")
		w.wantTypes(mine, "contacts.created")
		w.wantTypes(apps, "contacts.created")

		// Of approvals an app is told of its own, an admin of all.
		all := w.subscribe(boss, "approval.requested")
		asking := w.delegated("usr_boss", access.Admin, "contacts:write-approval webhooks:write", "contacts:delete webhooks:delete")
		own := w.subscribe(asking, "approval.requested")
		w.ask(asking, "create_contact", "", `{"first_name":"B"}`)
		w.ask(w.key(agent), "create_contact", "", `{"first_name":"C"}`)
		w.wantTypes(all, "approval.requested approval.requested")
		w.wantTypes(own, "approval.requested")
		w.wantTypes(apps, "contacts.created")

		// A member reads contacts, and manages no webhooks; what an admin set goes on
		// as the member that they are now.
		w.must(w.db.SetMember(w.t.Context(), w.ws.ID, "usr_boss", access.Member, w.clock.Now()))
		w.contact("D")
		w.ask(w.key(agent), "create_contact", "", `{"first_name":"E"}`)
		w.wantTypes(mine, "contacts.created contacts.created")
		w.wantTypes(all, "approval.requested approval.requested")
		w.wantTypes(apps, "contacts.created contacts.created")
		w.must(w.db.RemoveMember(w.t.Context(), w.ws.ID, "usr_boss"))
		w.contact("F")
		w.wantTypes(mine, "contacts.created contacts.created")
		w.wantTypes(apps, "contacts.created contacts.created")
	})
}

// A credential that may manage webhooks, and read little, does not come to what
// others may read by way of their webhooks.
func TestWhoMovesAWebhookTakesItOver(t *testing.T) {
	eachWorld(t, func(w *world) {
		full, low := w.key("full"), w.key("webhooks:delete deals:read")
		id := w.subscribe(full, "contacts.created")
		w.contact("Ada") // on its way to the first address
		first := w.told(id)
		_, err := w.do(low, "update_webhook", id, `{"url":"http://127.0.0.1:9998/theirs"}`)
		w.denied(err, problem.Validation, "events.0")
		w.run(low, "update_webhook", id, `{"description":"mine","active":true}`) // takes nothing over
		w.run(low, "update_webhook", id, `{"url":"http://127.0.0.1:9998/theirs","events":["deals.created"]}`)
		w.contact("Grace")
		if got := w.told(id); len(got) != len(first) {
			w.t.Errorf("got %d deliveries, want %d: it acts for somebody else now", len(got), len(first))
		}
		list, err := w.db.Deliveries(w.t.Context(), w.ws.ID, webhook.Query{Owner: id, Limit: 10})
		w.must(err)
		if list[0].State != "dead" {
			w.t.Errorf("what waited for the first address: got %s, want dead", list[0].State)
		}
		_, err = w.do(low, "resend_webhook_delivery", id, fmt.Sprintf(`{"delivery":%q}`, list[0].ID))
		w.denied(err, problem.Conflict, "removed")
		hook, err := w.desk.OneWebhook(w.t.Context(), w.op, id)
		if err != nil || hook.Creator.ID != low.Principal.ID || !hook.SecretWaits {
			w.t.Errorf("got %+v, %v; want it to act for the other key, with a secret of its own", hook, err)
		}
		// An admin who mends the address keeps what waits.
		mended := w.subscribe(full, "contacts.created")
		w.contact("Hedy")
		w.run(w.admin(), "update_webhook", mended, `{"url":"http://127.0.0.1:9999/mended"}`)
		list, err = w.db.Deliveries(w.t.Context(), w.ws.ID, webhook.Query{Owner: mended, Limit: 10})
		if err != nil || list[0].State != "ready" {
			w.t.Errorf("got %+v, %v; want it on its way", list, err)
		}
	})
}

func secretIn(t *testing.T, once json.RawMessage) string {
	t.Helper()
	var v struct{ Secret string }
	if once != nil {
		if err := json.Unmarshal(once, &v); err != nil {
			t.Fatal(err)
		}
	}
	return v.Secret
}

// The secret is in the first answer, and nowhere else.
func TestWebhookSecretIsShownOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		t := w.t.(*testing.T)
		g := w.key("webhooks:write contacts:read")
		body := `{"url":"http://127.0.0.1:9999/","events":["contacts.*"]}`
		out, err := w.do(g, "create_webhook", "", body, "k")
		w.must(err)
		secret := secretIn(t, out.Result.Once)
		if _, err := webhook.ParseSecret(secret); err != nil || strings.Contains(string(out.Result.Data), "whsec_") || !strings.Contains(string(out.Result.Shown()), secret) {
			t.Errorf("created: got %s with %s (%v)", out.Result.Data, out.Result.Once, err)
		}
		id := out.Result.Target.ID
		again, err := w.do(g, "create_webhook", "", body, "k")
		if err != nil || !again.Replayed || again.Result.Target.ID != id || again.Result.Once != nil || strings.Contains(string(again.Result.Shown()), "whsec_") {
			t.Errorf("repeated: got %+v, %v; want the answer without the secret", again, err)
		}
		_, err = w.do(g, "take_webhook_secret", id, "")
		w.denied(err, problem.Conflict, "no secret")

		// With approval nothing that is kept holds it; who asked takes it, once.
		asker, other := w.key("webhooks:write-approval contacts:read"), w.key("webhooks:write contacts:read")
		a := w.ask(asker, "create_webhook", "", body)
		stored := w.approved(a.ID, "approved done")
		if strings.Contains(string(stored.Result), "whsec_") || !strings.Contains(string(stored.Result), `"secret_waits":true`) {
			t.Errorf("the approval's result: got %s", stored.Result)
		}
		var made struct{ ID string }
		w.must(json.Unmarshal(stored.Result, &made))
		for _, g := range []access.Grant{other, w.key("full"), w.admin()} {
			_, err := w.do(g, "take_webhook_secret", made.ID, "")
			w.denied(err, problem.Conflict, "no secret")
		}
		out, err = w.do(asker, "take_webhook_secret", made.ID, "", "t")
		w.must(err)
		taken := secretIn(t, out.Result.Once)
		endpoint, err := w.db.EndpointOf(t.Context(), w.ws.ID, made.ID)
		w.must(err)
		if real, err := w.s.Webhooks.Secret(endpoint); err != nil || real.Text() != taken {
			t.Errorf("taken: got %q, want the endpoint's (%v)", taken, err)
		}
		if again, err := w.do(asker, "take_webhook_secret", made.ID, "", "t"); err != nil || again.Result.Once != nil {
			t.Errorf("repeated: got %+v, %v; want no secret", again, err)
		}
		_, err = w.do(asker, "take_webhook_secret", made.ID, "")
		w.denied(err, problem.Conflict, "no secret")

		// Rotated: the old one signs for the overlap.
		rotation := w.ask(asker, "rotate_webhook_secret", made.ID, `{"overlap_hours":1}`)
		w.approved(rotation.ID, "approved done")
		endpoint, err = w.db.EndpointOf(t.Context(), w.ws.ID, made.ID)
		if err != nil || endpoint.OldSecret == "" || !endpoint.OldSecretUntil.Equal(w.clock.Now().Add(time.Hour)) {
			t.Errorf("rotated: got %+v, %v", endpoint, err)
		}
		out, err = w.do(asker, "take_webhook_secret", made.ID, "")
		w.must(err)
		if s := secretIn(t, out.Result.Once); s == taken || s == "" {
			t.Errorf("rotated: got %q, want another", s)
		}
		_, err = w.do(other, "rotate_webhook_secret", made.ID, "{}")
		w.denied(err, problem.InsufficientScope, "the webhook acts for")
		out, err = w.do(w.key("full"), "rotate_webhook_secret", made.ID, "{}")
		w.must(err)
		if secretIn(t, out.Result.Once) == "" {
			t.Error("rotated at once: got no secret")
		}
		for _, e := range w.log(audit.ActionRun) {
			if strings.Contains(string(e.Detail), "whsec_") {
				t.Errorf("the log holds the secret: %s", e.Detail)
			}
		}
	})
}

func TestWebhookInputIsChecked(t *testing.T) {
	eachWorld(t, func(w *world) {
		full := w.key("full")
		for body, words := range map[string]string{
			`{"url":"http://127.0.0.1:9999/","events":[]}`:                                       "events",
			`{"url":"http://127.0.0.1:9999/","events":["contacts"]}`:                             "events.0",
			`{"url":"http://127.0.0.1:9999/","events":["*"]}`:                                    "events.0",
			`{"url":"http://127.0.0.1:9999/","events":["nothings.created"]}`:                     "events.0",
			`{"url":"http://127.0.0.1:9999/","events":["contacts.created","contacts.read"]}`:     "events.1",
			`{"url":"http://127.0.0.1:9999/","events":["users.created"]}`:                        "events.0",
			`{"url":"http://127.0.0.1:9999/","events":["approval.created"]}`:                     "events.0",
			`{"url":"http://127.0.0.1:9999/","events":["webhook.test"]}`:                         "events.0",
			`{"url":"https://user:word@example.com/","events":["contacts.*"]}`:                   "url",
			`{"url":"https://10.0.0.1/","events":["contacts.*"]}`:                                "URL",
			`{"url":"http://93.184.216.34/","events":["contacts.*"]}`:                            "URL",
			`{"url":"https://no-such-host.invalid/","events":["contacts.*"]}`:                    "URL",
			`{"url":"https://169.254.169.254/latest/meta-data","events":["contacts.*"]}`:         "URL",
			`{"url":"http://127.0.0.1:9999/","events":["contacts.*"],"secret":"whsec_mychoice"}`: "secret",
		} {
			_, err := w.do(full, "create_webhook", "", body)
			w.denied(err, problem.Validation, words)
		}
		id := w.subscribe(full, "contacts.*")
		for body, words := range map[string]string{`{"url":null}`: "url", `{"events":null}`: "events", `{"active":null}`: "active", `{"events":[]}`: "events", `{"url":"https://127.1/"}`: "URL"} {
			_, err := w.do(full, "update_webhook", id, body)
			w.denied(err, problem.Validation, words)
		}
		for range approvals.MaxSubscriptions - 1 {
			w.subscribe(full, "contacts.*")
		}
		_, err := w.do(full, "create_webhook", "", `{"url":"http://127.0.0.1:9999/","events":["contacts.*"]}`)
		w.denied(err, problem.Conflict, "20 webhooks")
		w.run(full, "delete_webhook", id, "")
		w.subscribe(full, "contacts.*")
		_, err = w.do(full, "get_webhook", id, "")
		w.denied(err, problem.NotFound, id)
	})
}

// A webhook that was changed since an approval was asked for blocks it, and can be
// approved as it is now.
func TestStaleWebhookApproval(t *testing.T) {
	eachWorld(t, func(w *world) {
		asker := w.key("webhooks:write-approval contacts:read deals:read")
		id := w.subscribe(w.key("full"), "contacts.*")
		a := w.ask(asker, "update_webhook", id, `{"events":["deals.*"]}`)
		card, err := w.gate.Card(w.t.Context(), w.admin(), a.ID)
		if err != nil || card.Blocked() || card.Stale {
			w.t.Errorf("got %+v, %v; want nothing against it", card.Checks, err)
		}
		facts := map[string]string{}
		for _, f := range card.Facts {
			facts[f.Name] = string(f.Current) + " " + string(f.Proposed)
		}
		if got, want := facts["events"], `["contacts.*"] ["deals.*"]`; got != want {
			w.t.Errorf("events: got %s, want %s", got, want)
		}
		w.run(w.op, "update_webhook", id, `{"description":"for the warehouse"}`)
		_, err = w.approve(w.admin(), a.ID)
		w.denied(err, problem.Conflict, "changed since")
		card, err = w.gate.Card(w.t.Context(), w.admin(), a.ID)
		if err != nil || !card.Stale || card.Untouched != 0 {
			w.t.Errorf("got stale %t, untouched %d, %v; want it stale", card.Stale, card.Untouched, err)
		}
		_, err = w.gate.Approve(w.t.Context(), w.admin(), a.ID, approvals.Seen{Stale: approvals.Rebase, TargetVersion: card.TargetVersion})
		w.must(err)
		if got := w.state(a.ID, "approved done"); !strings.Contains(string(got.Base), "for the warehouse") {
			w.t.Errorf("base: got %s, want what was decided about", got.Base)
		}
	})
}

func TestSubscriptionsOfTwoWorkspaces(t *testing.T) {
	eachWorld(t, func(w *world) {
		one := w.subscribe(w.key("full"), "contacts.*", "approval.*")
		two := w.workspace("Two")
		g := w.keyBy(admin.OperatorGrant(two), "full")
		out, err := w.do(g, "create_webhook", "", `{"url":"http://127.0.0.1:9999/","events":["contacts.*","approval.*"]}`)
		w.must(err)
		other := out.Result.Target.ID
		w.contact("Ada")
		w.ask(w.key(agent), "create_contact", "", `{"first_name":"B"}`)
		w.wantTypes(one, "contacts.created approval.requested")
		if list, err := w.db.Deliveries(w.t.Context(), two.ID, webhook.Query{Limit: 10}); err != nil || len(list) != 0 {
			w.t.Errorf("the other workspace was told %+v, %v", list, err)
		}
		for action, body := range map[string]string{"get_webhook": "", "update_webhook": `{"active":false}`, "delete_webhook": "", "rotate_webhook_secret": "{}", "test_webhook": "{}", "list_webhook_deliveries": "", "take_webhook_secret": ""} {
			_, err := w.do(w.key("full"), action, other, body)
			w.denied(err, problem.NotFound, other)
		}
	})
}

// A workspace that nobody has subscribed in pays no statement for a write nor a
// read; one that somebody has pays one for a write.
func TestWithoutSubscriptionsAWriteCostsNoStatement(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx, full := w.t.Context(), w.key("full")
		id := w.contact("Ada")
		n, others := 0, int64(0)
		look := func() {
			count := func(do func()) int64 {
				do() // what is prepared and remembered is so by now
				before := w.db.Statements()
				do()
				return w.db.Statements() - before
			}
			for _, tt := range []struct {
				action, id string
				more       int64
			}{{"get_contact", id, 0}, {"create_contact", "", others}, {"update_contact", id, others}} {
				a, _ := w.s.Catalog.Find(tt.action)
				body := func() string {
					if n++; a.Verb == access.Read {
						return ""
					}
					return fmt.Sprintf(`{"first_name":"c%d"}`, n)
				}
				got := count(func() { _, err := w.do(full, tt.action, tt.id, body()); w.must(err) })
				bare := count(func() {
					run := func(s approvals.Store) error {
						in, err := a.Decode(tt.id, json.RawMessage(body()))
						w.must(err)
						_, err = a.Run(ctx, s, catalog.Call{Grant: full, Input: in, Now: w.clock.Now()})
						if err != nil || a.Verb == access.Read {
							return err
						}
						return s.Audit(ctx, audit.Entry{Workspace: w.ws.ID, Time: w.clock.Now(), Event: audit.ActionRun})
					}
					if a.Verb == access.Read {
						w.must(run(w.gate.Store))
						return
					}
					w.must(w.gate.InTx(ctx, run))
				})
				if got != bare+tt.more {
					w.t.Errorf("%s: got %d statements, want %d and %d more", tt.action, got, bare, tt.more)
				}
			}
		}
		look()
		w.subscribe(full, "deals.*") // which is about something else
		others = 1
		look()
	})
}

// Jobs change records past the Gate, and tell it.
func TestTellOfWhatJobsDo(t *testing.T) {
	eachWorld(t, func(w *world) {
		id := w.subscribe(w.key("full"), "contacts.*")
		r, _ := w.s.Catalog.Resource("contacts")
		w.must(w.gate.InTx(w.t.Context(), func(tx approvals.Store) error {
			rec, err := r.Insert(w.t.Context(), tx, w.ws.ID, "con_01m835y52cf25s0gjx2k6dm298", map[string]any{"first_name": "Ada"}, w.clock.Now())
			if err != nil {
				return err
			}
			if _, err := r.Change(w.t.Context(), tx, w.ws.ID, rec, map[string]any{"first_name": "Grace"}, w.clock.Now()); err != nil {
				return err
			}
			return w.gate.Tell(w.t.Context(), tx, w.ws.ID, access.System, "")
		}))
		w.wantTypes(id, "contacts.created contacts.updated")
		if e := w.told(id)[1]; e.Data.Actor.Kind != "system" || e.Data.Before["first_name"] != "Ada" {
			w.t.Errorf("got %s", e.raw)
		}
	})
}
