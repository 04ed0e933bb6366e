package approvals_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/webhook"
)

func TestApproveExecutesOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		w.clock.Advance(time.Minute)
		got := w.approved(a.ID, "approved done")
		if got.DecidedBy != w.admin().Principal || !got.DecidedAt.Equal(w.clock.Now()) || !got.ExecutedAt.Equal(w.clock.Now()) || got.Edited != nil {
			w.t.Errorf("got %+v", got)
		}
		var made struct{ ID string }
		w.must(json.Unmarshal(got.Result, &made))
		if r := w.record("contacts", made.ID); r["first_name"] != "Ada" {
			w.t.Errorf("got the contact %v, want Ada", r)
		}
		for name, decide := range map[string]func() error{
			"approve": func() error { _, err := w.approve(w.admin(), a.ID); return err },
			"reject":  func() error { _, err := w.gate.Reject(w.t.Context(), w.admin(), a.ID, "late"); return err },
			"retry":   func() error { _, err := w.gate.Retry(w.t.Context(), w.admin(), a.ID); return err },
			"dismiss": func() error { _, err := w.gate.Dismiss(w.t.Context(), w.admin(), a.ID); return err },
			"extend": func() error {
				_, err := w.gate.Extend(w.t.Context(), w.admin(), a.ID, w.clock.Now().Add(2*time.Hour))
				return err
			},
			"withdraw": func() error { _, err := w.gate.Withdraw(w.t.Context(), g, a.ID); return err },
		} {
			if err := decide(); !problem.Is(err, problem.Conflict) {
				w.t.Errorf("%s: got %v, want %s", name, err, problem.Conflict)
			}
		}
		w.state(a.ID, "approved done")
		if n := w.named("Ada"); n != 1 {
			w.t.Errorf("got %d contacts, want 1", n)
		}
		entries := w.log(audit.ApprovalApproved)
		if len(entries) != 1 || entries[0].Asker != g.Principal.ID || entries[0].Actor.ID != "usr_admin" || entries[0].Outcome != "done" ||
			entries[0].Target != made.ID || entries[0].Approval != a.ID {
			w.t.Errorf("got the audit entries %+v", entries)
		}
	})
}

func TestSixteenDecidersOneExecution(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		w.hook(g, webhook.ApprovalExecuted)
		for round := range 5 {
			name := fmt.Sprint("n", round)
			a := w.ask(g, "create_contact", "", fmt.Sprintf(`{"first_name":%q}`, name))
			var won atomic.Int64
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					switch _, err := w.approve(w.admin(), a.ID); {
					case err == nil:
						won.Add(1)
					case !problem.Is(err, problem.Conflict):
						w.t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := w.named(name); won.Load() != 1 || n != 1 {
				w.t.Errorf("got %d winners and %d contacts, want 1 and 1", won.Load(), n)
			}
		}
		if n := len(w.deliveries(g)); n != 5 {
			w.t.Errorf("got %d deliveries, want 5", n)
		}
	})
}

func TestApproveChecksWhatWasSeen(t *testing.T) {
	eachWorld(t, func(w *world) {
		a := w.ask(w.key(agent), "create_contact", "", `{"first_name":"Ada"}`)
		b := w.ask(w.key(agent), "create_contact", "", `{"first_name":"Eve"}`)
		for _, digest := range []string{b.Digest, "x", strings.ToUpper(a.Digest)} {
			_, err := w.gate.Approve(w.t.Context(), w.admin(), a.ID, approvals.Seen{Digest: digest})
			w.denied(err, problem.Conflict, "not what you have looked at")
			w.state(a.ID, "pending none")
		}
		if _, err := w.gate.Approve(w.t.Context(), w.admin(), a.ID, approvals.Seen{Digest: a.Digest}); err != nil {
			w.t.Error(err)
		}
	})
}

func TestApproveRefusesAChangedTarget(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		id := w.contact("Ada")
		update := w.ask(g, "update_contact", id, `{"last_name":"L"}`)
		remove := w.ask(g, "delete_contact", id, ``)
		w.run(w.op, "update_contact", id, `{"job_title":"Countess"}`)
		for _, a := range []approvals.Approval{update, remove} {
			_, err := w.approve(w.admin(), a.ID)
			w.denied(err, problem.Conflict, "changed since")
			// Not with edits either, nor with the version that it has now.
			_, err = w.gate.Approve(w.t.Context(), w.admin(), update.ID, approvals.Seen{Edited: json.RawMessage(`{"last_name":"M","if_version":2}`)})
			w.denied(err, problem.Conflict, "changed since")
			w.state(a.ID, "pending none")
		}
		w.run(w.op, "delete_contact", id, ``)
		for _, a := range []approvals.Approval{update, remove} {
			_, err := w.approve(w.admin(), a.ID)
			w.denied(err, problem.Conflict, id)
			w.state(a.ID, "pending none")
		}
		if n := len(w.log(audit.ApprovalApproved)); n != 0 {
			w.t.Errorf("got %d approvals in the log, want none", n)
		}
		_, err := w.gate.Reject(w.t.Context(), w.admin(), update.ID, "it is gone")
		w.must(err)
	})
}

func TestApproveNeedsTheRequestersRightsOfToday(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		id := g.Principal.ID
		edit := func(in admin.KeyInput) {
			w.t.Helper()
			_, err := w.desk.UpdateKey(w.t.Context(), w.op, id, in)
			w.must(err)
		}
		refused := func(words string) {
			w.t.Helper()
			_, err := w.approve(w.admin(), a.ID)
			w.denied(err, problem.Conflict, words)
			w.state(a.ID, "pending none")
		}
		_, err := w.desk.RevokeKey(w.t.Context(), w.op, id)
		w.must(err)
		refused("revoked")
		_, err = w.desk.ActivateKey(w.t.Context(), w.op, id)
		w.must(err)

		soon := w.clock.Now().Add(time.Hour)
		edit(admin.KeyInput{ExpiresAt: &soon})
		w.clock.Advance(time.Hour)
		refused("expired")
		edit(admin.KeyInput{ExpiresAt: &time.Time{}})

		edit(admin.KeyInput{Scopes: &[]string{"contacts:read", "deals:delete"}})
		refused("may not do this any more")
		edit(admin.KeyInput{Scopes: &[]string{"contacts:write-approval"}})
		w.approved(a.ID, "approved done")

		b := w.ask(g, "create_contact", "", `{"first_name":"Eve"}`)
		edit(admin.KeyInput{Scopes: &[]string{"contacts:write"}}) // more is fine
		w.approved(b.ID, "approved done")

		// Who may not see customers any more cannot point at one.
		cus := w.run(w.op, "create_customer", "", `{"name":"Acme"}`)
		edit(admin.KeyInput{Scopes: &[]string{"contacts:write-approval", "customers:read"}})
		c := w.ask(g, "create_contact", "", fmt.Sprintf(`{"first_name":"Bob","customer_id":%q}`, cus))
		edit(admin.KeyInput{Scopes: &[]string{"contacts:write-approval"}})
		_, err = w.approve(w.admin(), c.ID)
		w.denied(err, problem.Conflict, "customer_id")

		w.must(w.desk.DeleteKey(w.t.Context(), w.op, id))
		w.state(c.ID, "withdrawn none")
		_, err = w.approve(w.admin(), c.ID)
		w.denied(err, problem.Conflict, "withdrawn")
	})
}

func TestEditAndApprove(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		id, other := w.contact("Ada"), w.contact("Eve")
		a := w.ask(g, "update_contact", id, `{"last_name":"L"}`)
		edit := func(text string) (approvals.Approval, error) {
			return w.gate.Approve(w.t.Context(), w.admin(), a.ID, approvals.Seen{Digest: a.Digest, Edited: json.RawMessage(text)})
		}
		for text, words := range map[string]string{
			`{"last_name":7}`: "last_name", `{"lost_name":"M"}`: "lost_name", `{}`: "nothing to change", `[]`: "JSON object", `null`: "JSON object",
			`{"last_name":"M","id":"` + other + `"}`:                                  "id",
			`{"last_name":"M","customer_id":"cus_00000000000000000000000000"}`:        "customer_id",
			`{"id":"` + strings.ToUpper(id) + `","last_name":"M"}`:                    "id",
			`{"id":null,"last_name":"M"}`:                                             "id",
			`{"last_name":"M","action":"delete_contact","target_id":"` + other + `"}`: "action",
		} {
			_, err := edit(text)
			if err == nil || !strings.Contains(err.Error(), words) {
				w.t.Errorf("%s: got %v, want an error with %q", text, err, words)
			}
			w.state(a.ID, "pending none")
		}
		got, err := edit(`{"last_name":"M","id":"` + id + `"}`)
		w.must(err)
		w.state(a.ID, "approved done")
		if r := w.record("contacts", id); r["last_name"] != "M" || w.record("contacts", other)["last_name"] != nil {
			w.t.Errorf("got %v, want the edited name there and nowhere else", r)
		}
		ans := w.gate.Answer(got)
		if ans.Status != "executed_with_edits" || !ans.Executed || !strings.Contains(string(ans.Input), `"L"`) || !strings.Contains(string(ans.Edited), `"M"`) {
			w.t.Errorf("got the answer %+v", ans)
		}
		if v := w.gate.View(w.stored(a.ID)); string(v.Input) != string(a.Input) || !strings.Contains(string(v.Edited), `"M"`) {
			w.t.Errorf("got the view %+v, want both inputs", v)
		}

		// An edit that changes nothing is none.
		b := w.ask(g, "update_contact", id, `{"last_name":"N"}`)
		got, err = w.gate.Approve(w.t.Context(), w.admin(), b.ID, approvals.Seen{Edited: json.RawMessage(` { "last_name" : "N" } `)})
		w.must(err)
		if s := w.gate.Answer(got).Status; s != "executed" || got.Edited != nil {
			w.t.Errorf("got %s, want executed", s)
		}
	})
}

func TestAFailedExecutionComesBack(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		a := w.ask(g, "create_product", "", `{"name":"Pen","sku":"P1"}`)
		taken := w.run(w.op, "create_product", "", `{"name":"Pencil","sku":"P1"}`)
		before := w.products()
		got := w.approved(a.ID, "approved failed")
		if got.Error == nil || got.Error.Kind != problem.Conflict || !strings.Contains(fmt.Sprint(got.Error, got.Error.Fields), "sku") {
			w.t.Errorf("got the error %v, want the sku taken", got.Error)
		}
		if ans := w.gate.Answer(w.stored(a.ID)); ans.Status != "failed" || ans.Executed || ans.Error == nil || !strings.Contains(ans.Message, "may retry") {
			w.t.Errorf("got the answer %+v", ans)
		}
		if after := w.products(); after != before {
			w.t.Errorf("got %d products, want %d as before", after, before)
		}
		// Still taken: it fails again.
		got, err := w.gate.Retry(w.t.Context(), w.admin(), a.ID)
		w.must(err)
		w.state(a.ID, "approved failed")
		if got.Error == nil {
			w.t.Error("got no error after the second failure")
		}
		w.run(w.op, "delete_product", taken, ``)
		w.clock.Advance(time.Hour)
		got, err = w.gate.Retry(w.t.Context(), w.person("usr_2", access.FullRights), a.ID)
		w.must(err)
		w.state(a.ID, "approved done")
		if got.Error != nil || got.Result == nil || got.DecidedBy != w.admin().Principal || !got.ExecutedAt.Equal(w.clock.Now()) {
			w.t.Errorf("got %+v, want the result, and the first decider", got)
		}
		for _, again := range []func(context.Context, access.Grant, string) (approvals.Approval, error){w.gate.Retry, w.gate.Dismiss} {
			_, err = again(w.t.Context(), w.admin(), a.ID)
			w.denied(err, problem.Conflict, `"done"`)
		}
		if e := w.log(audit.ApprovalRetried); len(e) != 2 || e[0].Outcome != "failed" || e[1].Outcome != "done" || e[1].Actor.ID != "usr_2" {
			w.t.Errorf("got the audit entries %+v", e)
		}

		b := w.ask(g, "create_product", "", `{"name":"Pen","sku":"P1","description":"b"}`)
		at := w.approved(b.ID, "approved failed").ExecutedAt
		w.clock.Advance(time.Hour)
		got, err = w.gate.Dismiss(w.t.Context(), w.admin(), b.ID)
		w.must(err)
		if got.Execution != approvals.Dismissed || got.Error == nil || !got.ExecutedAt.Equal(at) || !strings.Contains(w.gate.Answer(got).Message, "final") {
			w.t.Errorf("got %+v, want it dismissed, with its error", got)
		}
		_, err = w.gate.Retry(w.t.Context(), w.admin(), b.ID)
		w.denied(err, problem.Conflict, `"dismissed"`)

		c := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		_, err = w.gate.Retry(w.t.Context(), w.admin(), c.ID)
		w.denied(err, problem.Conflict, "pending")
	})
}

func (w *world) products() int {
	w.t.Helper()
	out, err := w.do(w.admin(), "list_products", "", `{"limit":100}`)
	w.must(err)
	var list []any
	w.must(json.Unmarshal(out.Result.Data, &list))
	return len(list)
}

func TestSixteenRetriesOneExecution(t *testing.T) {
	eachWorld(t, func(w *world) {
		a := w.ask(w.key(agent), "create_product", "", `{"name":"Pen","sku":"P1"}`)
		taken := w.run(w.op, "create_product", "", `{"name":"Pencil","sku":"P1"}`)
		w.approved(a.ID, "approved failed")
		w.run(w.op, "update_product", taken, `{"sku":null}`)
		var won atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := w.gate.Retry(w.t.Context(), w.admin(), a.ID); err == nil {
					won.Add(1)
				} else if !problem.Is(err, problem.Conflict) {
					w.t.Error(err)
				}
			})
		}
		wg.Wait()
		w.state(a.ID, "approved done")
		if n := w.products(); won.Load() != 1 || n != 2 {
			w.t.Errorf("got %d winners and %d products, want 1 and 2", won.Load(), n)
		}
	})
}

func TestExpiry(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.settings(access.Settings{ApprovalTTL: 2 * time.Hour})
		g := w.key(agent)
		w.hook(g, webhook.ApprovalExpired)
		ask := func(name string) approvals.Approval {
			return w.ask(g, "create_contact", "", fmt.Sprintf(`{"first_name":%q}`, name))
		}
		a, extended, decided := ask("a"), ask("b"), ask("c")
		_, err := w.gate.Reject(w.t.Context(), w.admin(), decided.ID, "no")
		w.must(err)
		for _, until := range []time.Duration{time.Hour - time.Millisecond, 30*24*time.Hour + time.Millisecond, -time.Hour} {
			_, err := w.gate.Extend(w.t.Context(), w.admin(), extended.ID, w.clock.Now().Add(until))
			w.denied(err, problem.Validation, "1 hour")
		}
		until := w.clock.Now().Add(5 * time.Hour)
		b, err := w.gate.Extend(w.t.Context(), w.admin(), extended.ID, until)
		w.must(err)
		if !b.ExpiresAt.Equal(until) {
			w.t.Errorf("got %v, want %v", b.ExpiresAt, until)
		}

		w.clock.Advance(2*time.Hour - time.Millisecond)
		w.expire()
		w.state(a.ID, "pending none")
		w.clock.Advance(time.Millisecond)

		// Its time is over, even before the job has come round.
		_, err = w.approve(w.admin(), a.ID)
		w.denied(err, problem.Conflict, "expired")
		_, err = w.gate.Reject(w.t.Context(), w.admin(), a.ID, "no")
		w.denied(err, problem.Conflict, "expired")
		_, err = w.gate.Extend(w.t.Context(), w.admin(), a.ID, w.clock.Now().Add(3*time.Hour))
		w.denied(err, problem.Conflict, "expired")
		w.state(a.ID, "pending none")

		w.expire()
		got := w.state(a.ID, "expired none")
		w.state(extended.ID, "pending none")
		w.state(decided.ID, "rejected none")
		if got.DecidedBy != access.System || w.gate.Answer(got).Status != "expired" {
			w.t.Errorf("got %+v", got)
		}
		if e := w.log(audit.ApprovalExpired); len(e) != 1 || e[0].Approval != a.ID || e[0].Actor.Kind != "system" {
			w.t.Errorf("got the audit entries %+v", e)
		}
		if e := w.log(audit.ApprovalExtended); len(e) != 1 || e[0].Approval != extended.ID {
			w.t.Errorf("got the audit entries %+v", e)
		}
		sent := w.deliveries(g)
		if n := len(sent); n != 2 || sent[1].Type != webhook.ApprovalExpired || sent[1].Data.Approval.Status != "expired" {
			w.t.Errorf("got the deliveries %+v, want the rejection and the expiry", sent)
		}
		w.clock.Advance(3 * time.Hour)
		w.expire()
		w.state(extended.ID, "expired none")
	})
}

// The job of an approval that was extended while the job ran comes back.
func TestExpireComesTooEarly(t *testing.T) {
	eachWorld(t, func(w *world) {
		a := w.ask(w.key(agent), "create_contact", "", `{"first_name":"Ada"}`)
		j, err := jobs.New(w.clock.Now(), w.ws.ID, approvals.ExpireKind, a.ID, map[string]string{"approval": a.ID}, w.clock.Now())
		w.must(err)
		if err := w.gate.Expire(w.t.Context(), j); err == nil || !strings.Contains(err.Error(), "extended") {
			w.t.Errorf("got %v, want it put off", err)
		}
		w.state(a.ID, "pending none")
		if n := len(w.log(audit.ApprovalExpired)); n != 0 {
			w.t.Errorf("got %d audit entries, want none", n)
		}
		_, err = w.approve(w.admin(), a.ID)
		w.must(err)
		w.must(w.gate.Expire(w.t.Context(), j))
		j.Payload = json.RawMessage(`{"approval":"apr_gone"}`)
		w.must(w.gate.Expire(w.t.Context(), j))
		w.state(a.ID, "approved done")
	})
}

func TestTheRunnerExpires(t *testing.T) {
	eachWorld(t, func(w *world) {
		a := w.ask(w.key(agent), "create_contact", "", `{"first_name":"Ada"}`)
		w.clock.Advance(access.DefaultApprovalTTL)
		r := &jobs.Runner{Store: w.db, Now: w.clock.Now, Kinds: map[string]jobs.Kind{approvals.ExpireKind: {Handle: w.gate.Expire}}}
		ctx, stop := context.WithCancel(w.t.Context())
		var run sync.WaitGroup
		run.Go(func() { r.Run(ctx) })
		got, err := w.gate.Wait(w.t.Context(), w.admin(), a.ID)
		stop()
		run.Wait()
		if err != nil || got.Status != approvals.Expired {
			w.t.Errorf("got %s, %v, want it expired", got.Status, err)
		}
	})
}

func TestRejectNeedsAReason(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		for _, reason := range []string{"", " \n\t"} {
			_, err := w.gate.Reject(w.t.Context(), w.admin(), a.ID, reason)
			w.denied(err, problem.MissingFields, "reason")
		}
		_, err := w.gate.Reject(w.t.Context(), w.admin(), a.ID, strings.Repeat("é", 2001))
		w.denied(err, problem.Validation, "too long")
		w.state(a.ID, "pending none")
		got, err := w.gate.Reject(w.t.Context(), w.admin(), a.ID, " not <now> \x00\xff ")
		w.must(err)
		if got.DecisionReason != "not <now> ��" {
			w.t.Errorf("got the reason %q", got.DecisionReason)
		}
		w.state(a.ID, "rejected none")
		e := w.log(audit.ApprovalRejected)
		if len(e) != 1 || !strings.Contains(string(e[0].Detail), "not") || e[0].Asker != g.Principal.ID {
			w.t.Errorf("got the audit entries %+v", e)
		}
		if w.named("Ada") != 0 {
			w.t.Error("a rejected contact was made")
		}
	})
}

func TestWithdrawOnlyOnesOwn(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		for _, other := range []access.Grant{w.key(agent), w.key("full"), w.key("decide"), w.admin(), w.op} {
			_, err := w.gate.Withdraw(w.t.Context(), other, a.ID)
			w.denied(err, problem.NotFound, a.ID)
		}
		// Another's approval reads as one that does not exist.
		const none = "apr_00000000000000000000000000"
		_, theirs := w.gate.Approval(w.t.Context(), w.key(agent), a.ID)
		_, nobodys := w.gate.Approval(w.t.Context(), w.key(agent), none)
		w.denied(theirs, problem.NotFound, a.ID)
		if got, want := strings.ReplaceAll(problem.Of(theirs).Message, a.ID, none), problem.Of(nobodys); got != want.Message || problem.Of(theirs).Fix != want.Fix {
			w.t.Errorf("another's approval: got %+v, want it to read as one that does not exist, %+v", problem.Of(theirs), want)
		}
		for _, id := range []string{"", "x", "apr_\x00", "apr_00000000000000000000000000", "apr_'; DROP TABLE approvals; --"} {
			_, err := w.gate.Withdraw(w.t.Context(), g, id)
			w.denied(err, problem.NotFound, "no approval")
			_, err = w.approve(w.admin(), id)
			w.denied(err, problem.NotFound, "no approval")
			_, err = w.gate.Approval(w.t.Context(), w.admin(), id)
			w.denied(err, problem.NotFound, "no approval")
		}
		got, err := w.gate.Withdraw(w.t.Context(), g, a.ID)
		w.must(err)
		w.state(a.ID, "withdrawn none")
		if ans := w.gate.Answer(got); ans.Status != "withdrawn" || ans.Executed {
			w.t.Errorf("got %+v", ans)
		}
		_, err = w.gate.Withdraw(w.t.Context(), g, a.ID)
		w.denied(err, problem.Conflict, "withdrawn")
		if e := w.log(audit.ApprovalWithdrawn); len(e) != 1 || e[0].Actor.ID != g.Principal.ID {
			w.t.Errorf("got the audit entries %+v", e)
		}
	})
}

// Who decides, and who sees. Each row is a grant, and what comes of its yes, of
// its no, and of reading the approval. A pending approval and a failed one are
// treated alike.
func TestWhoDecides(t *testing.T) {
	eachWorld(t, func(w *world) {
		top := w.key("decide")             // made by the operator
		parent := w.keyBy(top, "decide")   // made by top
		asker := w.keyBy(parent, agent)    // made by parent: the one who asks
		asker.Principal.User = "usr_asker" // somebody's
		child := w.keyBy(parent, "decide") // a sibling of the asker
		niece := w.keyBy(child, "decide")  //
		aunt := w.keyBy(top, "decide")     // a sibling of parent
		oauth := func(user string) access.Grant {
			return access.Grant{Principal: access.Principal{Kind: access.KindOAuth, ID: "grt_1", User: user}, Workspace: w.ws, Rights: access.FullRights, MayDecide: true}
		}
		everything := "contacts:delete products:delete"
		narrowed := w.delegated("usr_asker", access.Member, agent, everything) // its user asks to be asked
		capped := w.delegated("usr_asker", access.Member, everything, agent)   // the admins do
		itself := w.delegated("", "", "", agent)
		member := grantOf("contacts:delete deals:delete")
		scoped := w.key(agent)
		scopedDecider := scoped
		scopedDecider.MayDecide = true // no key can be so, and it would not help
		own := asker
		own.MayDecide, own.Rights = true, access.FullRights
		peopleOnly := w.ws
		peopleOnly.Settings.PeopleOnly = true
		loner := w.key("decide")
		noKey := loner
		noKey.Workspace, noKey.MayDecide = peopleOnly, true
		otherWorkspace := w.keyBy(admin.OperatorGrant(w.workspace("Two")), "decide")

		const ok, forbidden, hidden = problem.Kind(""), problem.InsufficientScope, problem.NotFound
		for _, tt := range []struct {
			name  string
			g     access.Grant
			asker access.Grant
			want  problem.Kind
			sees  bool
		}{
			{"admin in person", w.admin(), asker, ok, true},
			{"operator", w.op, asker, ok, true},
			{"key that may decide", loner, asker, ok, true},
			{"key that asked", asker, asker, forbidden, true},
			{"key that asked, had it all rights", own, asker, forbidden, true},
			{"another agent's key", scoped, asker, hidden, false},
			{"a scoped key that may decide", scopedDecider, asker, hidden, false},
			{"full key that may not decide", w.key("full"), asker, forbidden, true},
			{"the key that made the asker", parent, asker, forbidden, true},
			{"the key that made that key", top, asker, forbidden, true},
			{"a key that the asker's maker made too", child, asker, forbidden, true},
			{"a key that such a key made", niece, asker, forbidden, true},
			{"a key further off in the family", aunt, asker, forbidden, true},
			{"where only people decide", noKey, asker, forbidden, true},
			{"member, not theirs", w.person("usr_x", member), narrowed, hidden, false},
			{"member, their own key", w.person("usr_asker", member), asker, forbidden, true},
			{"member, their own client, an admin is to decide", w.person("usr_asker", member), capped, forbidden, true},
			{"member, their own, they put the question", w.person("usr_asker", member), narrowed, ok, true},
			{"nobody in person", w.person("", member), itself, hidden, false},
			{"OAuth client of the same user", oauth("usr_asker"), narrowed, hidden, false},
			{"OAuth client of an admin", oauth("usr_admin"), narrowed, hidden, false},
			{"that very client", narrowed, narrowed, forbidden, true},
			{"admin in person, a client's", w.admin(), narrowed, ok, true},
			{"key that may decide, a client's", loner, narrowed, ok, true},
			{"key that may decide, of a client that acts for itself", loner, itself, ok, true},
			{"key of another workspace", otherWorkspace, asker, hidden, false},
			{"system", access.Grant{Principal: access.System, Workspace: w.ws, Rights: access.FullRights}, asker, forbidden, true},
			{"nobody", access.Grant{Workspace: w.ws}, asker, hidden, false},
		} {
			asker := tt.asker
			check := func(what string, err error, want problem.Kind) {
				w.t.Helper()
				if want == ok && err != nil || want != ok && !problem.Is(err, want) {
					w.t.Errorf("%s, %s: got %v, want %q", tt.name, what, err, want)
				}
			}
			ask := func() approvals.Approval {
				w.clock.Advance(time.Hour)
				return w.ask(asker, "create_contact", "", `{"first_name":"Ada"}`)
			}
			a := ask()
			_, err := w.gate.Approval(w.t.Context(), tt.g, a.ID)
			check("see", err, map[bool]problem.Kind{true: ok, false: hidden}[tt.sees])
			_, err = w.gate.Extend(w.t.Context(), tt.g, a.ID, w.clock.Now().Add(access.DefaultApprovalTTL))
			check("extend", err, tt.want)
			_, err = w.gate.Reject(w.t.Context(), tt.g, a.ID, "no")
			check("reject", err, tt.want)
			if tt.want != ok {
				w.state(a.ID, "pending none")
				_, err = w.gate.Withdraw(w.t.Context(), asker, a.ID)
				w.must(err)
			}
			a = ask()
			_, err = w.approve(tt.g, a.ID)
			check("approve", err, tt.want)
			if tt.want != ok {
				w.state(a.ID, "pending none")
				w.approved(a.ID, "approved done")
			}

			for what, act := range map[string]func(context.Context, access.Grant, string) (approvals.Approval, error){"retry": w.gate.Retry, "dismiss": w.gate.Dismiss} {
				w.clock.Advance(time.Hour)
				taken := w.run(w.op, "create_product", "", `{"name":"x","sku":"S"}`)
				f := w.ask(asker, "create_product", "", `{"name":"y","sku":"S"}`)
				w.approved(f.ID, "approved failed")
				w.run(w.op, "delete_product", taken, ``)
				_, err = act(w.t.Context(), tt.g, f.ID)
				check(what, err, tt.want)
				if tt.want != ok {
					w.state(f.ID, "approved failed")
				} else if done := w.stored(f.ID); done.Execution == approvals.Done {
					var made struct{ ID string }
					w.must(json.Unmarshal(done.Result, &made))
					w.run(w.op, "delete_product", made.ID, ``)
				}
			}
		}

		// The family does not depend on which of them is still there.
		w.must(w.desk.DeleteKey(w.t.Context(), w.op, child.Principal.ID))
		a := w.ask(asker, "create_contact", "", `{"first_name":"Bob"}`)
		_, err := w.approve(aunt, a.ID)
		w.denied(err, forbidden, "family")
	})
}

func grantOf(scopes string) access.Rights {
	s, err := access.ParseScopes(scopes)
	if err != nil {
		panic(err)
	}
	return access.RightsOf(s)
}

func TestListShowsOnlyWhatOneMaySee(t *testing.T) {
	eachWorld(t, func(w *world) {
		one, two := w.key(agent), w.key(agent)
		w.ask(one, "create_contact", "", `{"first_name":"a"}`)
		w.ask(one, "create_contact", "", `{"first_name":"b"}`)
		w.ask(two, "create_customer", "", `{"name":"c"}`)
		for _, tt := range []struct {
			name string
			g    access.Grant
			q    approvals.Query
			want int
		}{
			{"own", one, approvals.Query{}, 2},
			{"own, asking for another's", one, approvals.Query{Credential: two.Principal.ID}, 2},
			{"admin", w.admin(), approvals.Query{}, 3},
			{"full key", w.key("full"), approvals.Query{}, 3},
			{"admin, of one", w.admin(), approvals.Query{Credential: two.Principal.ID}, 1},
			{"admin, of a resource", w.admin(), approvals.Query{Resource: "contacts"}, 2},
			{"admin, decided", w.admin(), approvals.Query{Status: approvals.Approved}, 0},
		} {
			tt.q.Limit = 100
			list, err := w.gate.List(w.t.Context(), tt.g, tt.q)
			w.must(err)
			if len(list) != tt.want {
				w.t.Errorf("%s: got %d, want %d", tt.name, len(list), tt.want)
			}
		}
	})
}

func TestWebhookEvents(t *testing.T) {
	eachWorld(t, func(w *world) {
		quiet, loud, none := w.key(agent), w.key(agent), w.key(agent)
		w.hook(quiet)
		w.hook(loud, webhook.EventTypes...)
		types := func(g access.Grant) string {
			var s []string
			for _, d := range w.deliveries(g) {
				s = append(s, strings.TrimPrefix(string(d.Type), "approval."))
			}
			return strings.Join(s, " ")
		}
		body := "{\"first_name\" :\t\"Zo\\u00eb <&>\", \"reason\":\"\\\"x\\\"\"}\r\n "
		for _, g := range []access.Grant{quiet, loud, none} {
			a := w.ask(g, "create_contact", "", body)
			_, err := w.gate.Reject(w.t.Context(), w.admin(), a.ID, "wrong <person>")
			w.must(err)
		}
		for _, g := range []access.Grant{quiet, loud} {
			d := w.deliveries(g)
			if len(d) != 1 || d[0].Type != webhook.ApprovalRejected {
				w.t.Fatalf("got %+v, want one rejection", d)
			}
			if got := string(d[0].Data.Request.Base64); got != body {
				w.t.Errorf("body: got %q, want %q", got, body)
			}
			if d[0].Data.Reason != "wrong <person>" || d[0].Data.DecidedBy == nil || d[0].Data.DecidedBy.ID != "usr_admin" ||
				d[0].Data.Request.Path != "/v1/contacts" || d[0].Data.Approval.Status != "rejected" {
				w.t.Errorf("got %+v", d[0].Data)
			}
		}
		if s := types(none); s != "" {
			w.t.Errorf("without a webhook: got %q", s)
		}

		for _, g := range []access.Grant{quiet, loud} {
			a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
			w.approved(a.ID, "approved done")
			taken := w.run(w.op, "create_product", "", `{"name":"x","sku":"S"}`)
			b := w.ask(g, "create_product", "", `{"name":"y","sku":"S"}`)
			w.approved(b.ID, "approved failed")
			w.run(w.op, "delete_product", taken, ``)
			_, err := w.gate.Retry(w.t.Context(), w.admin(), b.ID)
			w.must(err)
			w.run(w.op, "update_product", w.made(b.ID), `{"sku":null}`)
			c := w.ask(g, "create_contact", "", `{"first_name":"Withdrawn"}`)
			_, err = w.gate.Withdraw(w.t.Context(), g, c.ID)
			w.must(err)
		}
		if got := types(quiet); got != "rejected" {
			w.t.Errorf("without further events: got %q, want only the rejection", got)
		}
		if got, want := types(loud), "rejected approved executed approved failed executed"; got != want {
			w.t.Errorf("with all events: got %q, want %q", got, want)
		}
		d := w.deliveries(loud)
		if d[2].Data.Result == nil || d[4].Data.Error == nil || d[4].Data.Error.Code != problem.Conflict {
			w.t.Errorf("got %s and %+v, want a result and an error", d[2].Data.Result, d[4].Data.Error)
		}
	})
}

// made returns the id of what the approval has made.
func (w *world) made(approval string) string {
	w.t.Helper()
	var made struct{ ID string }
	w.must(json.Unmarshal(w.stored(approval).Result, &made))
	return made.ID
}

// A body of nothing but spaces is as good as none, for an action without
// required input, and is told as it was.
func TestWebhookTellsABodyThatIsNoJSON(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		w.hook(g)
		for _, body := range []string{"", " \n"} {
			a := w.ask(g, "delete_contact", w.contact("Ada"), body)
			_, err := w.gate.Reject(w.t.Context(), w.admin(), a.ID, "no")
			w.must(err)
			d := w.deliveries(g)
			if got := d[len(d)-1].Data.Request; string(got.Base64) != body || string(got.Parsed) != "null" {
				w.t.Errorf("body %q: got %q and %s, want it as it was, and null", body, got.Base64, got.Parsed)
			}
		}
	})
}

func TestARejectionThatFailsTellsNobody(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		w.hook(g)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		for range 2 {
			_, err := w.gate.Reject(w.t.Context(), w.key(agent), a.ID, "mine")
			w.denied(err, problem.NotFound, a.ID)
		}
		if n := len(w.deliveries(g)); n != 0 {
			w.t.Errorf("got %d deliveries, want none", n)
		}
	})
}

func TestSecretFieldsAreMasked(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		w.hook(g, webhook.EventTypes...)
		const body = `{"name":"Safe","pin":"4711-x"}`
		a := w.ask(g, "create_vault", "", body)
		leaks := func(what string, v any) {
			w.t.Helper()
			b, err := json.Marshal(v)
			w.must(err)
			if strings.Contains(string(b), "4711-x") {
				w.t.Errorf("%s shows the secret: %s", what, b)
			}
		}
		leaks("view", w.gate.View(a))
		leaks("answer", w.gate.Answer(a))

		// Whoever edits sees only the mask, and keeps the secret by leaving it.
		v := w.gate.View(a)
		edited := strings.Replace(string(v.Input), "Safe", "Strongbox", 1)
		got, err := w.gate.Approve(w.t.Context(), w.admin(), a.ID, approvals.Seen{Edited: json.RawMessage(edited)})
		w.must(err)
		r := w.record("vaults", w.made(a.ID))
		if r["pin"] != "4711-x" || r["name"] != "Strongbox" {
			w.t.Errorf("got %v, want the edited name and the pin that was sent", r)
		}
		leaks("view of what is done", w.gate.View(got))
		leaks("answer with edits", w.gate.Answer(got))
		for _, d := range w.deliveries(g) {
			if string(d.Data.Request.Base64) != body {
				w.t.Errorf("%s: got the body %q, want it as it was sent", d.Type, d.Data.Request.Base64)
			}
			d.Data.Request.Base64 = nil
			leaks("parsed copy of "+string(d.Type), d)
		}
		entries, err := w.db.AuditEntries(w.t.Context(), w.ws.ID, audit.Query{Limit: 100})
		w.must(err)
		leaks("audit log", entries)

		// Another secret can be set, and one can be taken away.
		for text, want := range map[string]any{`{"name":"S","pin":"0815"}`: "0815", `{"name":"S"}`: nil} {
			w.clock.Advance(time.Hour)
			b := w.ask(g, "create_vault", "", body)
			_, err := w.gate.Approve(w.t.Context(), w.admin(), b.ID, approvals.Seen{Edited: json.RawMessage(text)})
			w.must(err)
			if r := w.record("vaults", w.made(b.ID)); r["pin"] != want {
				w.t.Errorf("%s: got the pin %v, want %v", text, r["pin"], want)
			}
		}
	})
}

func TestWait(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		ctx, stop := context.WithCancel(w.t.Context())
		stop()
		if got, err := w.gate.Wait(ctx, g, a.ID); err != nil || got.Status != approvals.Pending {
			w.t.Errorf("at the end of ctx: got %s, %v, want it pending", got.Status, err)
		}
		_, err := w.gate.Wait(w.t.Context(), w.key(agent), a.ID)
		w.denied(err, problem.NotFound, a.ID)

		// Whoever waits is woken by the decision; nobody is missed.
		results := make(chan approvals.Approval)
		for range 4 {
			go func() {
				got, err := w.gate.Wait(w.t.Context(), g, a.ID)
				if err != nil {
					w.t.Error(err)
				}
				results <- got
			}()
		}
		w.approved(a.ID, "approved done")
		for range 4 {
			if got := <-results; got.Status != approvals.Approved || got.Execution != approvals.Done {
				w.t.Errorf("got %s %s, want it approved and done", got.Status, got.Execution)
			}
		}
	})
}

// A notice that got lost is made up for at the end of the wait.
func TestWaitLooksOnceMore(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		watching := make(chan struct{})
		w.gate.Watch = func(string) (<-chan struct{}, func()) { close(watching); return nil, func() {} }
		ctx, stop := context.WithCancel(w.t.Context())
		go func() {
			<-watching
			w.approve(w.admin(), a.ID)
			stop()
		}()
		if got, err := w.gate.Wait(ctx, g, a.ID); err != nil || got.Status != approvals.Approved {
			w.t.Errorf("got %s, %v, want it approved", got.Status, err)
		}
	})
}

// Whichever comes first, the approval never runs over a change that nobody saw.
func TestAnApprovalRacesWithAChange(t *testing.T) {
	eachWorld(t, func(w *world) {
		const n = 100
		g := w.key(agent)
		for i := range n {
			id := w.contact("Ada")
			a := w.ask(g, "update_contact", id, `{"first_name":"Approved"}`)
			var approveErr, updateErr error
			var wg sync.WaitGroup
			wg.Go(func() { _, approveErr = w.approve(w.admin(), a.ID) })
			wg.Go(func() { _, updateErr = w.do(w.op, "update_contact", id, `{"last_name":"Changed"}`) })
			wg.Wait()
			w.must(updateErr)
			got := w.stored(a.ID)
			name := w.record("contacts", id)["first_name"]
			switch {
			case approveErr == nil && got.Execution == approvals.Done && name == "Approved":
			case problem.Is(approveErr, problem.Conflict) && got.Status == approvals.Pending && name == "Ada":
				_, err := w.gate.Withdraw(w.t.Context(), g, a.ID)
				w.must(err)
			default:
				w.t.Fatalf("round %d: got %v, %s %s, name %v; want it done before the change, or pending", i, approveErr, got.Status, got.Execution, name)
			}
		}
	})
}
