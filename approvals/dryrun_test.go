package approvals_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
	"trustpager/webhook"
)

// dry returns the input as that of a dry run.
func dry(body string) string {
	if strings.TrimSpace(body) == "" || body == "{}" {
		return `{"dry_run":true}`
	}
	return `{"dry_run":true,` + strings.TrimSpace(body)[1:]
}

// try tries the action, and returns what it is told.
func (w *world) try(g access.Grant, action, id, body string) approvals.DryRun {
	w.t.Helper()
	out, err := w.do(g, action, id, dry(body))
	w.must(err)
	if out.DryRun == nil || out.Approval != nil || out.Result.Data != nil {
		w.t.Fatalf("%s: got %+v, want a dry run", action, out)
	}
	d := *out.DryRun
	if d.Status != "dry_run" || d.Executed || !strings.HasPrefix(d.Message, "NOT executed") {
		w.t.Errorf("%s: got %q, executed %t, %q", action, d.Status, d.Executed, d.Message)
	}
	return d
}

// text returns what a dry run tells, as JSON.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// wants checks what a dry run tells of changes.
func (w *world) wants(d approvals.DryRun, would approvals.Would, hidden int, changes string) {
	w.t.Helper()
	if got := text(d.Changes); d.Would != would || got != changes || d.Hidden != hidden {
		w.t.Errorf("got %s, %d hidden, %s\nwant %s, %d hidden, %s", d.Would, d.Hidden, got, would, hidden, changes)
	}
}

// busy is a workspace in which each action of the catalog has something to do.
// queue may ask for everything, and do nothing at once.
type busy struct {
	*world
	full, queue access.Grant
	inputs      map[string][2]string // id of the target, and input
	fails       map[string]string    // "who action", and what a run fails with
}

func newBusy(w *world) busy {
	ctx := w.t.Context()
	scopes := []string{"contacts:read"}
	for _, r := range w.gate.Catalog.Resources() {
		switch r.Ladder {
		case access.MessageLadder:
			scopes = append(scopes, r.Name+":send-approval")
		case access.AILadder:
			scopes = append(scopes, r.Name+":use-approval")
		default:
			scopes = append(scopes, r.Name+":write-approval", r.Name+":delete-approval")
		}
	}
	b := busy{world: w, full: w.key("full"), queue: w.key(strings.Join(scopes, " ")), inputs: map[string][2]string{}}
	made := func(action, input string) string { w.t.Helper(); return w.run(b.full, action, "", input) }
	in := func(action, id, input string) { b.inputs[action] = [2]string{id, input} }
	for _, each := range []struct{ singular, input, change string }{
		{"contact", `{"first_name":"Ada"}`, `{"last_name":"Lovelace"}`},
		{"customer", `{"name":"Acme"}`, `{"name":"Acme Ltd"}`},
		{"product", `{"name":"Engine"}`, `{"active":false}`},
		{"task", `{"title":"Call"}`, `{"title":"Write"}`},
		{"activity", `{"type":"note","subject":"Hello"}`, `{"subject":"Bye"}`},
		{"work_order", `{"title":"Mend"}`, `{"title":"Mend it"}`},
		{"notepad", `{"title":"Ideas"}`, `{"body":"More"}`},
		{"document", `{"title":"Offer"}`, `{"body":"More"}`},
		{"pipeline", `{"name":"Sales","stages":[{"name":"Lead"},{"name":"Won"}]}`, `{"name":"Sale"}`},
		{"vault", `{"name":"Safe","pin":"1234"}`, `{"pin":"1234"}`},
	} {
		id := made("create_"+each.singular, each.input)
		in("create_"+each.singular, "", each.input)
		in("update_"+each.singular, id, each.change)
		in("delete_"+each.singular, id, ``)
	}
	contact, pipeline := b.inputs["update_contact"][0], made("create_pipeline", `{"name":"Other","stages":[{"name":"Lead"},{"name":"Won"}]}`)
	deal := made("create_deal", `{"title":"Big","pipeline_id":"`+pipeline+`"}`)
	in("create_deal", "", `{"title":"Bigger","pipeline_id":"`+pipeline+`"}`)
	in("update_deal", deal, `{"value":5}`)
	in("delete_deal", deal, ``)
	in("move_deal", deal, `{"stage":"Won"}`)
	in("complete_task", b.inputs["update_task"][0], ``)
	in("link_contact_to_customer", contact, `{"customer_id":"`+made("create_customer", `{"name":"Linked"}`)+`"}`)
	linked := made("create_contact", `{"first_name":"Linked"}`)
	w.run(b.full, "update_contact", linked, `{"customer_id":"`+made("create_customer", `{"name":"Unlinked"}`)+`"}`)
	in("unlink_contact_from_customer", linked, ``)
	for _, action := range []string{"add_note", "log_call", "log_meeting"} {
		in(action, "", `{"subject":"Hello","body":"Hello"}`)
	}
	mailbox := made("create_integration", `{"kind":"email","name":"Box","address":"sales@example.com","smtp_host":"smtp.example.com","smtp_password":"hush-hush"}`)
	made("create_integration", `{"kind":"twilio","name":"Phone","account_sid":"AC1","auth_token":"hush-hush","numbers":["+4930123456"]}`)
	model := made("create_integration", `{"kind":"anthropic","name":"Model","api_key":"sk-hush-hush-0123456789","model":"m"}`)
	in("create_integration", "", `{"kind":"email","name":"Second","address":"second@example.com","smtp_host":"smtp.example.com"}`)
	in("update_integration", mailbox, `{"sender_name":"Sales"}`)
	in("delete_integration", model, ``)
	in("test_integration", mailbox, ``)
	in("send_email", "", `{"to":["ada@example.com"],"subject":"Your offer","body":"Dear Ada"}`)
	in("reply_to_email", made("send_email", `{"to":["ada@example.com"],"subject":"First","body":"Dear Ada"}`), `{"body":"Once more"}`)
	in("send_sms", "", `{"to":"+4930999999","body":"Hello"}`)
	in("initiate_call", "", `{"to":"+4930999999","say":"Hello"}`)
	in("ai_draft_email", "", `{"instructions":"Say hello","contact_id":"`+contact+`"}`)
	in("ai_summarize_record", "", `{"resource":"contacts","record_id":"`+contact+`"}`)
	in("ai_edit_text", "", `{"text":"Helo","instructions":"Mend it"}`)
	in("update_company", "", `{"name":"Other Ltd"}`)
	leaves := typeid.NewID("usr")
	w.join("usr_admin", leaves)
	w.approved(w.ask(b.full, "invite_user", "", `{"email":"new@example.com"}`).ID, "approved done")
	in("invite_user", "", `{"email":"newer@example.com"}`)
	in("cancel_invitation", "", `{"email":"new@example.com"}`)
	in("update_user_role", leaves, `{"role":"member"}`)
	in("remove_user", leaves, ``)
	w.keyBy(w.person(leaves, access.FullRights), "full")
	hook := w.approved(w.ask(b.queue, "create_webhook", "", `{"url":"http://127.0.0.1:9999/events","events":["contacts.*","approval.*"]}`).ID, "approved done")
	var wh struct{ ID string }
	w.must(json.Unmarshal(hook.Result, &wh))
	in("create_webhook", "", `{"url":"https://nobody.invalid/hook","events":["deals.*"]}`)
	in("update_webhook", wh.ID, `{"events":["deals.*"]}`)
	for _, action := range []string{"delete_webhook", "rotate_webhook_secret", "take_webhook_secret", "test_webhook"} {
		in(action, wh.ID, ``)
	}
	sent, err := w.db.Deliveries(ctx, w.ws.ID, webhook.Query{Owner: wh.ID, Limit: 10})
	w.must(err)
	if len(sent) == 0 {
		w.t.Fatal("nothing was told")
	}
	w.must(w.db.BuryDelivery(ctx, w.ws.ID, sent[0].ID, "test"))
	in("resend_webhook_delivery", wh.ID, `{"delivery":"`+sent[0].ID+`"}`)
	in("request_access", "", `{"resource":"contacts","verb":"write","minutes":15,"why":"Much to do."}`)
	b.fails = map[string]string{
		"full request_access":      "at once",
		"full take_webhook_secret": "no secret of this webhook waits for you",
	}
	return b
}

// Whatever an action does, nothing of a dry run stays but its entry in the log,
// whether it would run or wait; nothing is looked up outside, and nobody is woken.
func TestADryRunOfEachActionLeavesNothing(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		db := storagetest.Open(t, url)
		b := newBusy(newWorld(t, db))
		ctx := t.Context()
		fence, stopFence := db.Watch("fence")
		defer stopFence()
		raise := func() {
			b.must(storage.InTx[interface{ Notify(string) }](db)(ctx, func(tx interface{ Notify(string) }) error {
				tx.Notify("fence")
				return nil
			}))
			<-fence
		}
		var topics []<-chan struct{}
		for _, topic := range []string{storage.JobsTopic, approvals.Topic(b.ws.ID)} {
			woken, stop := db.Watch(topic)
			defer stop()
			topics = append(topics, woken)
		}
		raise()
		for _, woken := range topics { // by what was made ready
			select {
			case <-woken:
			default:
			}
		}
		for _, a := range b.gate.Catalog.Actions() {
			if a.Verb == access.Read {
				continue
			}
			in, ok := b.inputs[a.Name]
			if !ok {
				t.Errorf("nothing is known to try %s with", a.Name)
				continue
			}
			for who, g := range map[string]access.Grant{"full": b.full, "queue": b.queue} {
				before, tried := storagetest.Rows(t, url), len(b.log(audit.ActionTried))
				out, err := b.do(g, a.Name, in[0], dry(in[1]))
				if want := b.fails[who+" "+a.Name]; want != "" {
					b.denied(err, problem.Conflict, want)
				} else if err != nil || out.DryRun == nil {
					t.Errorf("%s by %s: got %+v, %v", a.Name, who, out, err)
				} else if would := map[bool]approvals.Would{true: approvals.WouldRun, false: approvals.WouldWait}[a.Level(g) == access.Run]; out.DryRun.Would != would || out.DryRun.Error != nil {
					t.Errorf("%s by %s: got %s, %v; want %s", a.Name, who, out.DryRun.Would, out.DryRun.Error, would)
				} else if s := text(out.DryRun); strings.Contains(s, "hush") || strings.Contains(s, "whsec") || strings.Contains(s, `"1234"`) {
					t.Errorf("%s by %s tells a secret: %s", a.Name, who, s)
				} else if d := out.DryRun; len(d.Changes)+len(d.Messages)+len(d.Events)+len(d.Notes)+d.Hidden == 0 && (d.Webhooks == nil || *d.Webhooks == 0) {
					t.Errorf("%s by %s tells of nothing: %s", a.Name, who, s)
				}
				for _, table := range storagetest.Differs(before, storagetest.Rows(t, url)) {
					if !strings.HasPrefix(table, "audit_") {
						t.Errorf("%s by %s has left something in %s", a.Name, who, table)
					}
				}
				entries := b.log(audit.ActionTried)
				if n := len(entries) - tried; err == nil && n != 1 {
					t.Errorf("%s by %s: got %d entries, want one", a.Name, who, n)
				}
				if e := entries[max(0, len(entries)-1)]; err == nil && (e.Action != a.Name || e.Actor.ID != g.Principal.ID || e.Target != in[0] || e.Outcome != string(out.DryRun.Would)) {
					t.Errorf("%s by %s: got the entry %+v", a.Name, who, e)
				}
			}
		}
		raise()
		for i, woken := range topics {
			select {
			case <-woken:
				t.Errorf("topic %d was touched", i)
			default:
			}
		}
		// The secret that was not shown can still be taken.
		out, err := b.do(b.queue, "take_webhook_secret", b.inputs["take_webhook_secret"][0], ``)
		b.must(err)
		if !strings.Contains(string(out.Result.Once), "whsec_") {
			t.Errorf("got %+v, want the secret", out.Result)
		}
	})
}

func TestADryRunTellsWhatWouldBeDone(t *testing.T) {
	eachWorld(t, func(w *world) {
		full, g := w.key("full"), w.key(agent)
		id := w.contact("Ada")

		d := w.try(full, "create_contact", "", `{"first_name":"Eve","email":"eve@example.com"}`)
		w.wants(d, approvals.WouldRun, 0, `[{"change":"created","resource":"contacts","title":"Eve","fields":[{"name":"first_name","after":"Eve"},{"name":"email","after":"eve@example.com"}]}]`)
		d = w.try(full, "update_contact", id, `{"first_name":"Adah","last_name":"L"}`)
		update := `[{"change":"updated","resource":"contacts","id":"` + id + `","title":"Adah L","fields":[{"name":"first_name","before":"Ada","after":"Adah"},{"name":"last_name","after":"L"}]}]`
		w.wants(d, approvals.WouldRun, 0, update)
		w.wants(w.try(full, "delete_contact", id, ``), approvals.WouldRun, 0,
			`[{"change":"deleted","resource":"contacts","id":"`+id+`","title":"Ada","fields":[{"name":"first_name","before":"Ada"}]}]`)
		w.wants(w.try(full, "update_contact", id, `{"first_name":"Ada"}`), approvals.WouldRun, 0, `[]`)

		// What waits is told as it would be after an approval.
		d = w.try(g, "update_contact", id, `{"first_name":"Adah","last_name":"L"}`)
		w.wants(d, approvals.WouldWait, 0, update)
		if d.Approval != nil || d.Webhooks != nil {
			t.Errorf("got %+v, want no approval, and nothing about webhooks", d)
		}
		a := w.ask(g, "update_contact", id, `{"last_name":"L","first_name":"Adah"}`)
		for range 2 {
			d = w.try(g, "update_contact", id, `{"first_name":"Adah","last_name":"L","reason":"again"}`)
			if d.Would != approvals.WouldWait || d.Approval == nil || d.Approval.ID != a.ID {
				t.Errorf("got %+v, want the approval %s named", d, a.ID)
			}
		}
		if got := w.stored(a.ID); got.Asked != 1 || strings.Contains(string(got.Input), "dry_run") {
			t.Errorf("asked %d times with %s, want once", got.Asked, got.Input)
		}
		w.approved(a.ID, "approved done")
		d = w.try(g, "update_contact", id, `{"first_name":"Adah","last_name":"L"}`)
		w.wants(d, approvals.WouldAnswer, 0, `[]`)
		if d.Approval == nil || d.Approval.ID != a.ID || d.Approval.Status != approvals.Approved {
			t.Errorf("got %+v", d.Approval)
		}

		// Webhooks are counted for who may read them.
		w.subscribe(full, "contacts.*")
		w.subscribe(full, "contacts.created", "deals.*")
		if d = w.try(full, "create_contact", "", `{"first_name":"Eve"}`); d.Webhooks == nil || *d.Webhooks != 2 {
			t.Errorf("got %v deliveries, want 2", d.Webhooks)
		}
	})
}

// What a call would be refused with, a dry run is refused with too.
func TestADryRunFailsAsTheCallWould(t *testing.T) {
	eachWorld(t, func(w *world) {
		g, full := w.key(agent), w.key("full")
		id, other := w.contact("Ada"), w.contact("Bob")
		cus := w.run(full, "create_customer", "", `{"name":"Acme"}`)
		w.run(full, "update_contact", other, `{"customer_id":"`+cus+`"}`)
		for _, tt := range []struct{ action, id, body string }{
			{"create_deal", "", `{"title":"x"}`},
			{"create_contact", "", `{"last_name":"x"}`},
			{"update_contact", id, `{"frist_name":"x"}`},
			{"update_contact", id, `{}`},
			{"update_contact", id, `{"first_name":"b","if_version":7}`},
			{"update_contact", strings.Replace(id, "con_", "con_0", 1)[:30], `{"first_name":"b"}`},
			{"delete_customer", cus, ``},
			{"create_contact", "", `{"first_name":"b","dry_run":"yes"}`},
			{"create_contact", "", `{"first_name":"b","dry_run":null}`},
			{"list_contacts", "", `{"dry_run":true}`},
		} {
			for _, by := range []access.Grant{g, full} {
				body := dry(tt.body)
				if strings.Contains(tt.body, "dry_run") {
					body = tt.body
				}
				_, got := w.do(by, tt.action, tt.id, body)
				_, want := w.do(by, tt.action, tt.id, tt.body)
				if strings.Contains(tt.body, "dry_run") && got != nil {
					continue
				}
				if got == nil || want == nil || got.Error() != want.Error() {
					t.Errorf("%s %s: got %v, want %v", tt.action, tt.body, got, want)
				}
			}
		}
		// A denial is audited as any.
		n := len(w.log(audit.ActionDenied))
		_, err := w.do(g, "create_deal", "", `{"title":"x","dry_run":true}`)
		w.denied(err, problem.InsufficientScope, "deals:write-approval")
		if got := len(w.log(audit.ActionDenied)); got != n+1 {
			t.Errorf("got %d entries, want one more than %d", got, n)
		}
		_, err = w.do(g, "create_contact", "", `{"first_name":"Eve","dry_run":true}`, "key-1")
		w.denied(err, problem.Validation, "Idempotency-Key")
		w.ask(g, "create_contact", "", `{"first_name":"Eve"}`, "key-1") // it is free

		// A full queue refuses both.
		for i := range approvals.MaxOpen - 1 {
			w.ask(g, "create_contact", "", fmt.Sprintf(`{"first_name":"N%d"}`, i))
		}
		_, err = w.do(g, "create_contact", "", `{"first_name":"Last","dry_run":true}`)
		w.denied(err, problem.QueueFull, "")

		// false is in earnest.
		w.run(full, "create_contact", "", `{"first_name":"Zoe","dry_run":false}`)
		if w.named("Zoe") != 1 {
			t.Error("dry_run false has done nothing")
		}
	})
}

func TestADryRunUsesNoLoan(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.join("usr_admin")
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		l, err := w.gate.Lend(t.Context(), w.admin(), a.ID, time.Hour)
		w.must(err)
		for range approvals.LoanUses + 5 {
			if d := w.try(g, "create_contact", "", `{"first_name":"Bob"}`); d.Would != approvals.WouldRun || d.Loan != l.ID {
				t.Fatalf("got %+v, want it to run by the loan", d)
			}
		}
		if d := w.try(g, "create_contact", "", `{"first_name":"Ada"}`); d.Would != approvals.WouldWait || d.Loan != "" {
			t.Errorf("got %+v, want what waits to go on waiting", d)
		}
		got, err := w.db.Loan(t.Context(), w.ws.ID, l.ID)
		w.must(err)
		if got.Uses != 0 || got.Remaining != approvals.LoanUses {
			t.Errorf("got %d uses, %d remaining", got.Uses, got.Remaining)
		}
		// A loan that its lender could not lend any more is not ended by a look.
		w.must(w.db.SetMember(t.Context(), w.ws.ID, "usr_admin", access.Member, w.clock.Now()))
		if d := w.try(g, "create_contact", "", `{"first_name":"Bob"}`); d.Would != approvals.WouldWait || len(d.Events) != 0 {
			t.Errorf("got %+v, want it to wait", d)
		}
		if got, err = w.db.Loan(t.Context(), w.ws.ID, l.ID); err != nil || !got.EndedAt.IsZero() {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// A dry run tells nothing that its caller may not read.
func TestADryRunTellsNoMoreThanTheCallerMayRead(t *testing.T) {
	eachWorld(t, func(w *world) {
		full := w.key("full")
		id := w.contact("Ada")
		// Secrets are neither told nor can they be guessed.
		vault := w.run(full, "create_vault", "", `{"name":"Safe","pin":"1234"}`)
		w.subscribe(full, "vaults.*")
		for _, g := range []access.Grant{full, w.key("vaults:write-approval"), w.key("vaults:write")} {
			right, wrong := text(w.try(g, "update_vault", vault, `{"pin":"1234"}`)), text(w.try(g, "update_vault", vault, `{"pin":"9999"}`))
			if right != wrong || !strings.Contains(right, `{"name":"pin","before":"********","after":"********"}`) {
				t.Errorf("got %s for the right pin, %s for a wrong one", right, wrong)
			}
		}

		// Where reading waits for a person too, only the verdict is told: not even
		// whether it would fail.
		g := w.key("contacts:write-approval")
		g.Workspace.Settings.AlwaysAsk = []access.Mark{{Resource: "contacts", Verb: "read"}} // no rung of today does that
		d := w.try(g, "update_contact", id, `{"first_name":"Eve"}`)
		w.wants(d, approvals.WouldWait, 0, `[]`)
		if s := text(d); strings.Contains(s, "Ada") || d.Error != nil || len(d.Notes) != 1 {
			t.Errorf("got %s", s)
		}
		// Who may write at once, and read only with approval, learns that a row changes.
		g = w.key("contacts:write")
		g.Workspace.Settings.AlwaysAsk = []access.Mark{{Resource: "contacts", Verb: "read"}}
		d = w.try(g, "update_contact", id, `{"first_name":"Eve"}`)
		w.wants(d, approvals.WouldRun, 1, `[]`)
		if s := text(d); strings.Contains(s, "Ada") {
			t.Errorf("got %s", s)
		}

		// A stage that the server chooses from a pipeline is one of its values.
		pipeline := w.run(full, "create_pipeline", "", `{"name":"P","stages":[{"name":"Secret stage"},{"name":"Won"}]}`)
		deal := w.run(full, "create_deal", "", `{"title":"Big","pipeline_id":"`+pipeline+`","stage":"Won"}`)
		for scopes, told := range map[string]bool{"deals:write-approval": false, "deals:write-approval pipelines:read": true} {
			if s := text(w.try(w.key(scopes), "update_deal", deal, `{"stage":null}`)); strings.Contains(s, "Secret stage") != told {
				t.Errorf("%s: got %s", scopes, s)
			}
		}

		// Records that the caller may not see are not found, and not told of.
		_, err := w.do(w.key("deals:write-approval"), "update_deal", deal, `{"dry_run":true,"contact_id":"`+id+`"}`)
		w.denied(err, problem.Validation, "contact_id")
		one := w.workspace("Two")
		stranger := w.keyBy(admin.OperatorGrant(one), "full")
		_, err = w.do(stranger, "update_contact", id, `{"dry_run":true,"first_name":"x"}`)
		w.denied(err, problem.NotFound, id)
	})
}

func TestAnEditIsNoDryRun(t *testing.T) {
	eachWorld(t, func(w *world) {
		a := w.ask(w.key(agent), "create_contact", "", `{"first_name":"Ada","dry_run":false}`)
		if strings.Contains(string(a.Input), "dry_run") {
			t.Errorf("got the input %s", a.Input)
		}
		_, err := w.gate.Approve(t.Context(), w.admin(), a.ID, approvals.Seen{Edited: json.RawMessage(`{"first_name":"Eve","dry_run":true}`)})
		w.denied(err, problem.Validation, "not only tried")
		w.state(a.ID, "pending none")
	})
}

// An execution that would fail after an approval is told, and the call would wait.
func TestADryRunTellsOfAFailureAfterApproval(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.run(w.key("full"), "create_product", "", `{"name":"Engine","sku":"E-1"}`)
		d := w.try(w.key(agent), "create_product", "", `{"name":"Other","sku":"E-1"}`)
		w.wants(d, approvals.WouldWait, 0, `[]`)
		if d.Error == nil || d.Error.Kind != problem.Conflict || !strings.HasSuffix(d.Message, "It would fail with the error given.") {
			t.Errorf("got %+v", d)
		}
		_, err := w.do(w.key("full"), "create_product", "", `{"name":"Other","sku":"E-1","dry_run":true}`)
		w.denied(err, problem.Conflict, "unique")
	})
}

func TestACardForesees(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, storagetest.Open(t, url))
		ctx := t.Context()
		w.join("usr_admin")
		full := w.key("full")
		id := w.contact("Ada")
		foresee := func(g access.Grant, approval string) *approvals.Effects {
			t.Helper()
			before := storagetest.Rows(t, url)
			c, err := w.gate.Card(ctx, g, approval)
			w.must(err)
			w.must(w.gate.Foresee(ctx, g, &c))
			if tables := storagetest.Differs(before, storagetest.Rows(t, url)); tables != nil {
				t.Errorf("looking at the card has changed %v", tables)
			}
			return c.Effects
		}
		w.subscribe(full, "contacts.*")
		a := w.ask(w.key(agent), "update_contact", id, `{"first_name":"Eve"}`)
		e := foresee(w.admin(), a.ID)
		if e == nil || e.Webhooks == nil || *e.Webhooks != 1 || text(e.Changes) != `[{"change":"updated","resource":"contacts","id":"`+id+`","title":"Eve","fields":[{"name":"first_name","before":"Ada","after":"Eve"}]}]` {
			t.Errorf("got %s", text(e))
		}
		// A member sees of what their own app has asked what they may read.
		client := w.delegated("usr_mia", access.Member, "contacts:write-approval", "contacts:write")
		own := w.ask(client, "update_contact", id, `{"first_name":"Zoe"}`)
		if e = foresee(w.person("usr_mia", w.gate.Catalog.RoleRights(access.Member)), own.ID); e == nil || e.Webhooks != nil || len(e.Changes) != 1 {
			t.Errorf("got %s, want the change, and nothing about webhooks", text(e))
		}
		// What decides over people tells what ends with it.
		leaves := typeid.NewID("usr")
		w.join(leaves)
		w.keyBy(w.person(leaves, access.FullRights), "full")
		if e = foresee(w.admin(), w.ask(full, "remove_user", leaves, ``).ID); e == nil || e.Events["user.removed"] != 1 || e.Events["key.revoked"] != 1 || len(e.Changes) != 1 {
			t.Errorf("got %s", text(e))
		}
		// What stands against it the checks tell.
		w.run(full, "update_contact", id, `{"first_name":"Bob"}`)
		if e = foresee(w.admin(), a.ID); e != nil {
			t.Errorf("got %s, where a check stands against it", text(e))
		}
		_, err := w.desk.RevokeKey(ctx, w.op, a.By.ID)
		w.must(err)
		if e = foresee(w.admin(), a.ID); e != nil {
			t.Errorf("got %s, where a check stands against it", text(e))
		}
		// What no check finds is told: a unique value that somebody else has by now.
		sku := w.ask(w.key(agent), "create_product", "", `{"name":"Engine","sku":"E-1"}`)
		w.run(full, "create_product", "", `{"name":"Other","sku":"E-1"}`)
		if e = foresee(w.admin(), sku.ID); e == nil || e.Error == nil || e.Error.Kind != problem.Conflict || len(e.Changes) != 0 {
			t.Errorf("got %s", text(e))
		}
		_, err = w.gate.Reject(ctx, w.admin(), a.ID, "No.")
		w.must(err)
		if e = foresee(w.admin(), a.ID); e != nil {
			t.Errorf("got %s of what is decided", text(e))
		}
	})
}

// Dry runs among others' calls, who share commits, take nothing from them and
// give nothing to them.
func TestDryRunsBesideOthers(t *testing.T) {
	eachWorld(t, func(w *world) {
		full := w.key("full")
		hook := w.subscribe(full, "contacts.created")
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 4 {
					if i%2 == 0 {
						w.run(full, "create_contact", "", fmt.Sprintf(`{"first_name":"R%d-%d"}`, i, j))
						continue
					}
					d := w.try(full, "create_contact", "", `{"first_name":"Dry"}`)
					if len(d.Changes) != 1 || d.Webhooks == nil || *d.Webhooks != 1 {
						t.Errorf("got %s, want the one change of its own", text(d))
					}
				}
			})
		}
		wg.Wait()
		told := w.told(hook)
		if len(told) != 32 || slices.ContainsFunc(told, func(e toldEvent) bool { return e.Data.Record["first_name"] == "Dry" }) || w.named("Dry") != 0 {
			t.Errorf("got %d events, want the 32 of what was done", len(told))
		}
	})
}
