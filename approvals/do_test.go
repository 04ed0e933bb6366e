package approvals_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/problem"
)

func TestRefusalNamesTheScopeAndIsAudited(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key("deals:read")
		id := w.contact("Ada")
		for action, scope := range map[string]string{
			"get_contact": "contacts:read", "create_contact": "contacts:write-approval", "update_contact": "contacts:write-approval",
			"delete_contact": "contacts:delete-approval", "create_deal": "deals:write-approval",
		} {
			before := len(w.log(audit.ActionDenied))
			_, err := w.do(g, action, id, `not even JSON`)
			w.denied(err, problem.InsufficientScope, scope)
			entries := w.log(audit.ActionDenied)
			if len(entries) != before+1 {
				w.t.Fatalf("%s: got %d new audit entries, want 1", action, len(entries)-before)
			}
			if e := entries[before]; e.Action != action || e.Actor.ID != g.Principal.ID || e.Level != "deny" || e.Target != id || e.Door != "rest" {
				w.t.Errorf("%s: got the audit entry %+v", action, e)
			}
		}
		_, err := w.do(access.Grant{Workspace: w.ws}, "search", "", `{"query":"x"}`)
		w.denied(err, problem.InsufficientScope, "read some resource")
		// A grant of nobody is refused too, and has no log to be written to.
		_, err = w.do(access.Grant{}, "create_contact", "", `{}`)
		w.denied(err, problem.InsufficientScope, "contacts:write-approval")
		// A target that no database takes does not keep the refusal out of the log.
		before := len(w.log(audit.ActionDenied))
		_, err = w.do(g, "delete_contact", "con_\x00\xff\n\u009b31m\u202e\u200b"+strings.Repeat("x", 100_000), ``)
		w.denied(err, problem.InsufficientScope, "contacts:delete-approval")
		if entries := w.log(audit.ActionDenied); len(entries) != before+1 || len(entries[before].Target) > 110 || !strings.HasPrefix(entries[before].Target, "con_????31m??x") {
			w.t.Errorf("got %d new entries, the last %+v, want 1 with a short target without hidden characters", len(entries)-before, entries[len(entries)-1])
		}
	})
}

func TestAFloodOfRefusalsIsCounted(t *testing.T) {
	eachWorld(t, func(w *world) {
		g, other := w.key("deals:read"), w.key("deals:read")
		refuse := func(g access.Grant, n int) {
			for range n {
				_, err := w.do(g, "delete_contact", "", ``)
				w.denied(err, problem.InsufficientScope, "")
			}
		}
		check := func(want int) []audit.Entry {
			w.t.Helper()
			entries := w.log(audit.ActionDenied)
			if len(entries) != want {
				w.t.Fatalf("got %d entries, want %d", len(entries), want)
			}
			return entries
		}
		refuse(g, 60)
		check(60)
		refuse(g, 15)
		check(60)
		refuse(other, 1) // another's flood hides nobody
		check(61)
		w.clock.Advance(2 * time.Hour)
		refuse(other, 1)
		w.clock.Advance(time.Hour)
		refuse(g, 1)
		if e := check(63)[62]; string(e.Detail) != `{"not_recorded_before":15}` {
			w.t.Errorf("got the detail %s, want that 15 were not recorded", e.Detail)
		}
		refuse(g, 1)
		if e := check(64)[63]; e.Detail != nil {
			w.t.Errorf("got the detail %s, want none", e.Detail)
		}
	})
}

func TestRunIsAudited(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key("contacts:delete")
		id := w.run(g, "create_contact", "", `{"first_name":"Ada"}`)
		w.run(g, "update_contact", id, `{"first_name":"Eve"}`)
		w.run(g, "delete_contact", id, ``)
		var got []string
		for _, e := range w.log(audit.ActionRun) {
			if e.Actor.ID == g.Principal.ID && e.Target == id && e.Level == "run" && e.Outcome == "done" && e.Resource == "contacts" {
				got = append(got, e.Action)
			}
		}
		if s := strings.Join(got, " "); s != "create_contact update_contact delete_contact" {
			w.t.Errorf("got %q, want the three actions in order", s)
		}
		// What fails is not done, and not said to be.
		_, err := w.do(g, "create_contact", "", `{}`)
		w.denied(err, problem.MissingFields, "first_name")
		if n := len(w.log(audit.ActionRun)); n != 3 {
			w.t.Errorf("got %d entries after a failure, want 3", n)
		}
	})
}

func TestNothingIsQueuedThatCannotSucceed(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		id := w.contact("Ada")
		gone := w.contact("Gone")
		w.run(w.op, "delete_contact", gone, ``)
		cus := w.run(w.op, "create_customer", "", `{"name":"Acme"}`)
		w.run(w.op, "update_contact", id, fmt.Sprintf(`{"customer_id":%q}`, cus))
		for _, tt := range []struct {
			action, id, body string
			kind             problem.Kind
			words            string
		}{
			{"create_contact", "", ``, problem.MissingFields, "first_name"},
			{"create_contact", "", `{`, problem.InvalidBody, "JSON"},
			{"create_contact", "", `{"first_name":"a","frist_name":"b"}`, problem.Validation, "frist_name"},
			{"create_contact", "", `{"first_name":"a","customer_id":"` + strings.Replace(gone, "con", "cus", 1) + `"}`, problem.Validation, "customer_id"},
			{"update_contact", gone, `{"first_name":"b"}`, problem.NotFound, gone},
			{"update_contact", "con_nonsense", `{"first_name":"b"}`, problem.NotFound, "con_nonsense"},
			{"update_contact", "con_\x00", `{"first_name":"b"}`, problem.NotFound, ""},
			{"update_contact", id, `{}`, problem.Validation, "nothing to change"},
			{"update_contact", id, `{"first_name":"b","if_version":1}`, problem.VersionMismatch, "version 2"},
			{"delete_contact", gone, ``, problem.NotFound, gone},
			{"delete_customer", cus, ``, problem.Conflict, "1 contact refers"},
		} {
			_, err := w.do(g, tt.action, tt.id, tt.body)
			w.denied(err, tt.kind, tt.words)
		}
		list, err := w.gate.List(w.t.Context(), w.admin(), approvals.Query{Limit: 100})
		w.must(err)
		if len(list) != 0 {
			w.t.Errorf("got %d approvals, want none", len(list))
		}
		if n := len(w.log(audit.ActionQueued)); n != 0 {
			w.t.Errorf("got %d entries, want none", n)
		}
	})
}

func TestQueueStoresTheRequest(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		id := w.contact("Ada")
		body := "{ \"first_name\" : \"Eve\",\t\"reason\":\"she <asked>\" }\n"
		a := w.ask(g, "update_contact", id, body)
		for name, ok := range map[string]bool{
			"by":       a.By == g.Principal,
			"target":   a.TargetID == id && a.TargetVer == 1 && a.Title == "Ada",
			"input":    string(a.Input) == fmt.Sprintf(`{"first_name":"Eve","id":%q}`, id),
			"reason":   a.Reason == "she <asked>",
			"body":     string(a.Request.Body) == body,
			"expiry":   a.ExpiresAt.Equal(w.clock.Now().Add(access.DefaultApprovalTTL)),
			"digest":   len(a.Digest) == 64,
			"pending":  a.Status == approvals.Pending && a.Execution == approvals.NotExecuted,
			"the same": fmt.Sprint(w.stored(a.ID).Request.Body, w.stored(a.ID).Digest) == fmt.Sprint(a.Request.Body, a.Digest),
			"undone":   w.record("contacts", id)["first_name"] == "Ada",
		} {
			if !ok {
				w.t.Errorf("%s: got %+v", name, a)
			}
		}
		entries := w.log(audit.ActionQueued)
		if len(entries) != 1 || entries[0].Approval != a.ID || entries[0].Target != id || entries[0].Level != "queue" {
			w.t.Errorf("got the audit entries %+v", entries)
		}
		ans := w.gate.Answer(a)
		if ans.Status != "pending_approval" || ans.Executed || !strings.HasPrefix(ans.Message, "NOT executed") ||
			ans.Approval.URL != "https://crm.example.com/settings/api?tab=approvals&approval="+a.ID {
			w.t.Errorf("got the answer %+v", ans)
		}
	})
}

func TestTheSameAskIsOneApproval(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		first := w.ask(g, "create_contact", "", `{"first_name":"Ada","last_name":"L","reason":"one"}`)
		for i, body := range []string{
			`{"first_name":"Ada","last_name":"L","reason":"one"}`,
			`{"last_name":"L","first_name":"Ada"}`,
			"\n{ \"last_name\" : \"\\u004c\", \"reason\" : \"two\",\t\"first_name\":\"Ada\" }",
		} {
			a := w.ask(g, "create_contact", "", body)
			if a.ID != first.ID || a.Asked != int64(i+2) {
				w.t.Errorf("%s: got %s asked %d times, want %s asked %d times", body, a.ID, a.Asked, first.ID, i+2)
			}
			if string(a.Request.Body) != string(first.Request.Body) || a.Reason != "one" {
				w.t.Errorf("got the body %q, want the first one's", a.Request.Body)
			}
		}
		for name, other := range map[string]approvals.Approval{
			"another value":            w.ask(g, "create_contact", "", `{"first_name":"Ada","last_name":"M"}`),
			"another action":           w.ask(g, "create_customer", "", `{"name":"Ada"}`),
			"another credential":       w.ask(w.key(agent), "create_contact", "", `{"first_name":"Ada","last_name":"L"}`),
			"an own Idempotency-Key":   w.ask(g, "create_contact", "", `{"first_name":"Ada","last_name":"L"}`, "k1"),
			"another Idempotency-Key":  w.ask(g, "create_contact", "", `{"first_name":"Ada","last_name":"L"}`, "k2"),
			"the first without reason": w.ask(g, "create_customer", "", `{"name":"Ada2"}`),
		} {
			if other.ID == first.ID || other.Asked != 1 {
				w.t.Errorf("%s: got %s asked %d times, want a new approval", name, other.ID, other.Asked)
			}
		}
	})
}

func TestADecisionAnswersTheSameAskForTenMinutes(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		const body = `{"first_name":"Ada"}`
		again := func(than approvals.Approval, same bool) approvals.Approval {
			w.t.Helper()
			a := w.ask(g, "create_contact", "", body)
			if (a.ID == than.ID) != same {
				w.t.Errorf("got the same approval: %t, want %t (it is %s)", a.ID == than.ID, same, than.Status)
			}
			return a
		}
		a := w.ask(g, "create_contact", "", body)
		_, err := w.gate.Reject(w.t.Context(), w.admin(), a.ID, "no")
		w.must(err)
		w.clock.Advance(approvals.SameAsk)
		if ans := w.gate.Answer(again(a, true)); ans.Status != "rejected" || ans.Reason != "no" || ans.Executed {
			w.t.Errorf("got %+v, want the rejection", ans)
		}
		w.clock.Advance(time.Millisecond)
		b := again(a, false)
		w.approved(b.ID, "approved done")
		if ans := w.gate.Answer(again(b, true)); ans.Status != "executed" || !ans.Executed || ans.Data == nil {
			w.t.Errorf("got %+v, want it executed", ans)
		}
		if n := w.named("Ada"); n != 1 {
			w.t.Errorf("got %d contacts, want 1", n)
		}
		w.clock.Advance(approvals.SameAsk + time.Millisecond)
		c := again(b, false)
		_, err = w.gate.Withdraw(w.t.Context(), g, c.ID)
		w.must(err)
		d := again(c, false)
		w.clock.Advance(access.DefaultApprovalTTL)
		e := again(d, false) // its time is over, though the expiry is not stored yet
		w.expire()
		w.state(d.ID, "expired none")
		again(e, true)
	})
}

// A client that did not get the answer asks again, when what it asked for is
// done and could not be done once more.
func TestTheSameAskAfterItWasDone(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		id := w.contact("Ada")
		a := w.ask(g, "delete_contact", id, ` `)
		w.approved(a.ID, "approved done")
		if b := w.ask(g, "delete_contact", id, ``); b.ID != a.ID || w.gate.Answer(b).Status != "executed" {
			w.t.Errorf("got %s, want the approval %s, executed", b.ID, a.ID)
		}
		w.clock.Advance(approvals.SameAsk + time.Millisecond)
		_, err := w.do(g, "delete_contact", id, ``)
		w.denied(err, problem.NotFound, id)
		_, err = w.do(w.key(agent), "delete_contact", id, ``) // nor is another told
		w.denied(err, problem.NotFound, id)
	})
}

func TestTheSameAskAtOnceIsOneApproval(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		ids := make([]string, 16)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				out, err := w.do(g, "create_contact", "", `{"first_name":"Ada"}`)
				if err == nil {
					ids[i] = out.Approval.ID
				} else {
					w.t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				w.t.Fatalf("got the approvals %v, want one", ids)
			}
		}
		if a := w.stored(ids[0]); a.Asked != 16 {
			w.t.Errorf("got asked %d times, want 16", a.Asked)
		}
	})
}

func TestTheFiftyFirstIsRefused(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		var wg sync.WaitGroup
		errs := make([]error, 70)
		for i := range errs {
			wg.Go(func() { _, errs[i] = w.do(g, "create_contact", "", fmt.Sprintf(`{"first_name":"n%d"}`, i)) })
		}
		wg.Wait()
		full := 0
		for _, err := range errs {
			if problem.Is(err, problem.QueueFull) {
				full++
			} else {
				w.must(err)
			}
		}
		if full != 20 {
			w.t.Errorf("got %d refused of 70, want 20", full)
		}
		_, err := w.do(g, "create_contact", "", `{"first_name":"late"}`)
		w.denied(err, problem.QueueFull, "50")
		list, err := w.gate.List(w.t.Context(), g, approvals.Query{Status: approvals.Pending, Limit: 100})
		w.must(err)
		w.ask(g, "create_contact", "", string(list[0].Request.Body)) // the same is no further one
		w.ask(w.key(agent), "create_contact", "", `{"first_name":"late"}`)
		_, err = w.gate.Withdraw(w.t.Context(), g, list[0].ID)
		w.must(err)
		w.ask(g, "create_contact", "", `{"first_name":"late"}`)
	})
}

func TestIdempotencyKey(t *testing.T) {
	eachWorld(t, func(w *world) {
		runs, asks := w.key("contacts:delete customers:write"), w.key(agent)
		replayed := func(g access.Grant, action, id, body, key string) approvals.Outcome {
			w.t.Helper()
			out, err := w.do(g, action, id, body, key)
			w.must(err)
			if !out.Replayed {
				w.t.Errorf("%s %s: got it done again, want the first answer", action, body)
			}
			return out
		}
		id := w.run(runs, "create_contact", "", `{"first_name":"<Ada>"}`, "k")
		out := replayed(runs, "create_contact", "", `{"first_name":"<Ada>"}`, "k")
		if out.Result.Target.ID != id || !strings.Contains(string(out.Result.Data), id) {
			w.t.Errorf("got %s, want the first answer with %s", out.Result.Data, id)
		}
		for _, tt := range []struct{ action, id, body string }{
			{"create_contact", "", `{"first_name":"Eve"}`},
			{"create_contact", "", `{"first_name":"<Ada>"} `},
			{"update_contact", id, `{"first_name":"<Ada>"}`},
		} {
			_, err := w.do(runs, tt.action, tt.id, tt.body, "k")
			w.denied(err, problem.Conflict, `"k"`)
		}
		if n := w.named("<Ada>"); n != 1 {
			w.t.Errorf("got %d contacts, want 1", n)
		}

		a := w.ask(asks, "create_contact", "", `{"first_name":"Bob"}`, "k") // another credential's key is another key
		if out := replayed(asks, "create_contact", "", `{"first_name":"Bob"}`, "k"); out.Approval.ID != a.ID || out.Approval.Status != approvals.Pending || out.Approval.Asked != 1 {
			w.t.Errorf("got %+v, want the approval as it stands", out.Approval)
		}
		_, err := w.do(asks, "create_contact", "", `{"first_name":"Eve"}`, "k")
		w.denied(err, problem.Conflict, `"k"`)
		w.approved(a.ID, "approved done")
		w.clock.Advance(24 * time.Hour)
		if out := replayed(asks, "create_contact", "", `{"first_name":"Bob"}`, "k"); out.Approval.ID != a.ID || out.Approval.Execution != approvals.Done {
			w.t.Errorf("got %+v, want the approval as it stands", out.Approval)
		}
		w.clock.Advance(time.Millisecond)
		if b := w.ask(asks, "create_contact", "", `{"first_name":"Bob"}`, "k"); b.ID == a.ID {
			w.t.Error("got the old approval after 24 hours, want a new one")
		}
		if again := w.run(runs, "create_contact", "", `{"first_name":"<Ada>"}`, "k"); again == id {
			w.t.Error("got the old answer after 24 hours, want a new contact")
		}

		// What failed leaves the key free.
		_, err = w.do(runs, "create_contact", "", `{"first_name":"C","customer_id":"cus_00000000000000000000000000"}`, "free")
		w.denied(err, problem.Validation, "customer_id")
		w.run(runs, "create_contact", "", `{"first_name":"C"}`, "free")

		// Nobody gets an answer that they may not have any more.
		less := runs
		less.Rights = access.Rights{}
		_, err = w.do(less, "create_contact", "", `{"first_name":"C"}`, "free")
		w.denied(err, problem.InsufficientScope, "contacts")
	})
}

// Two tools may take the same arguments: the key stands for one of them.
func TestIdempotencyKeyOverMCP(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key("contacts:delete customers:delete")
		id := w.contact("Ada")
		do := func(tool string) error {
			a, _ := w.s.Catalog.Find(tool)
			body := []byte(fmt.Sprintf(`{"id":%q}`, id))
			_, err := w.gate.Do(w.t.Context(), g, a, approvals.Incoming{Input: body,
				Request: approvals.Request{Door: "mcp", Tool: tool, Body: body, IdempotencyKey: "k"}})
			return err
		}
		w.must(do("unlink_contact_from_customer"))
		w.denied(do("delete_contact"), problem.Conflict, `"k"`)
		if w.record("contacts", id) == nil {
			w.t.Error("the contact is gone, want it there")
		}
	})
}

func TestIdempotencyKeyAtOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key("contacts:write")
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := w.do(g, "create_contact", "", `{"first_name":"Ada"}`, "k"); err != nil {
					w.t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.named("Ada"); n != 1 {
			w.t.Errorf("got %d contacts, want 1", n)
		}
	})
}

func TestAlwaysAskQueuesFullAccessKeysToo(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.settings(access.Settings{AlwaysAsk: []access.Mark{{Resource: "contacts", Verb: "delete"}}})
		id := w.contact("Ada")
		g := w.key("decide")
		w.run(g, "update_contact", id, `{"first_name":"Eve"}`)
		a := w.ask(g, "delete_contact", id, ``)
		_, err := w.approve(g, a.ID)
		w.denied(err, problem.InsufficientScope, "asked for it itself")
		w.state(a.ID, "pending none")
		if got, err := w.approve(w.key("decide"), a.ID); err != nil || got.Execution != approvals.Done {
			w.t.Errorf("got %v, %v, want it done", got.Execution, err)
		}
		w.run(w.admin(), "delete_contact", w.run(w.admin(), "create_contact", "", `{"first_name":"Bob"}`), ``) // people are not asked
	})
}

func TestAPanicInAnActionDoesNoHarm(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key("contacts:write")
		in := w.gate.InTx
		w.gate.InTx = func(ctx context.Context, fn func(tx approvals.Store) error) error {
			return in(ctx, func(tx approvals.Store) error { return fn(panicky{tx}) })
		}
		_, err := w.do(g, "create_contact", "", `{"first_name":"panic"}`)
		if problem.Of(err).Kind != problem.Internal {
			w.t.Errorf("got %v, want an internal error", err)
		}
		w.run(g, "create_contact", "", `{"first_name":"Ada"}`)

		a := w.ask(w.key(agent), "create_contact", "", `{"first_name":"panic"}`)
		got := w.approved(a.ID, "approved failed")
		if got.Error == nil || got.Error.Kind != problem.Internal || strings.Contains(got.Error.Message, "aargh") {
			w.t.Errorf("got %v, want an internal error without its inside", got.Error)
		}
		w.gate.InTx = in
		_, err = w.gate.Retry(w.t.Context(), w.admin(), a.ID)
		w.must(err)
		w.state(a.ID, "approved done")
		if w.named("panic") != 1 || w.named("Ada") != 1 {
			w.t.Error("want one contact of each name")
		}
	})
}

// panicky is a store that panics when a record named panic is made.
type panicky struct{ approvals.Store }

func (p panicky) InsertRecord(ctx context.Context, workspace string, r catalog.Record, entries []catalog.Entry, terms []string) error {
	if err := p.Store.InsertRecord(ctx, workspace, r, entries, terms); err != nil {
		return err
	}
	if strings.Contains(string(r.Body), `"panic"`) {
		panic("aargh")
	}
	return nil
}

func TestAStoreThatIsAwayDecidesNothing(t *testing.T) {
	eachWorld(t, func(w *world) {
		a := w.ask(w.key(agent), "create_contact", "", `{"first_name":"Ada"}`)
		in := w.gate.InTx
		w.gate.InTx = func(ctx context.Context, fn func(tx approvals.Store) error) error {
			return in(ctx, func(tx approvals.Store) error { return fn(away{tx}) })
		}
		_, err := w.approve(w.admin(), a.ID)
		if !problem.Is(err, problem.Unavailable) {
			w.t.Errorf("got %v, want %s", err, problem.Unavailable)
		}
		w.gate.InTx = in
		w.state(a.ID, "pending none")
		w.approved(a.ID, "approved done")
	})
}

type away struct{ approvals.Store }

func (away) InsertRecord(context.Context, string, catalog.Record, []catalog.Entry, []string) error {
	return errors.Join(errors.New("disk full"), problem.Errorf(problem.Unavailable, "not now"))
}

// A commit whose answer was lost is looked up: approved is said only if it is.
func TestApproveWhenNobodyKnowsTheOutcome(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		done, undone := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`), w.ask(g, "create_contact", "", `{"first_name":"Eve"}`)
		in := w.gate.InTx
		lost := problem.Errorf(problem.Unknown, "lost")
		w.gate.InTx = func(ctx context.Context, fn func(tx approvals.Store) error) error {
			if err := in(ctx, fn); err != nil {
				return err
			}
			return lost
		}
		if a, err := w.approve(w.admin(), done.ID); err != nil || a.Execution != approvals.Done {
			w.t.Errorf("committed: got %v, %v, want it done", a.Execution, err)
		}
		w.gate.InTx = func(ctx context.Context, fn func(tx approvals.Store) error) error {
			return in(ctx, func(tx approvals.Store) error {
				if err := fn(tx); err != nil {
					return err
				}
				return lost
			})
		}
		_, err := w.approve(w.admin(), undone.ID)
		if !problem.Is(err, problem.Unknown) {
			w.t.Errorf("not committed: got %v, want %s", err, problem.Unknown)
		}
		w.state(undone.ID, "pending none")
	})
}

func TestAWorkspaceIsAWorld(t *testing.T) {
	eachWorld(t, func(w *world) {
		a := w.ask(w.key(agent), "create_contact", "", `{"first_name":"Ada"}`)
		other := admin.OperatorGrant(w.workspace("Two"))
		for _, g := range []access.Grant{other, w.keyBy(other, "decide"), {Principal: w.admin().Principal, Workspace: other.Workspace, Rights: access.FullRights}} {
			_, err := w.gate.Approval(w.t.Context(), g, a.ID)
			w.denied(err, problem.NotFound, a.ID)
			_, err = w.approve(g, a.ID)
			w.denied(err, problem.NotFound, a.ID)
			list, err := w.gate.List(w.t.Context(), g, approvals.Query{Limit: 10})
			w.must(err)
			if len(list) != 0 {
				w.t.Errorf("%s: got %d approvals, want none", g.Principal.Kind, len(list))
			}
		}
		w.state(a.ID, "pending none")
	})
}

// What a person has changed since makes the same request a new one: the answer
// to the old one would not be true any more. A pending one is withdrawn, never
// put to a version that its decider has not seen.
func TestSameAskAfterTheTargetMovedOnIsNew(t *testing.T) {
	eachWorld(t, func(w *world) {
		ag := w.key(agent)
		run := func(g access.Grant, action, id, body string) approvals.Outcome {
			w.t.Helper()
			out, err := w.do(g, action, id, body)
			w.must(err)
			return out
		}
		con := run(w.op, "create_contact", "", `{"first_name":"Ada","city":"Bath"}`).Result.Target.ID
		ask := func() approvals.Outcome { return run(ag, "update_contact", con, `{"city":"York"}`) }
		set := func(city string) { run(w.op, "update_contact", con, `{"city":"`+city+`"}`) }

		first := ask()
		set("Leeds")
		again := ask()
		if !again.Created || again.Approval.ID == first.Approval.ID {
			w.t.Fatalf("asked again about a target that moved on: got %+v, want a new approval", again.Approval)
		}
		if old := w.stored(first.Approval.ID); old.Status != approvals.Withdrawn || !strings.Contains(old.DecisionReason, again.Approval.ID) {
			w.t.Errorf("the first approval: got %s because %q, want it withdrawn for the second", old.Status, old.DecisionReason)
		}
		if _, err := w.gate.Approve(w.t.Context(), w.admin(), first.Approval.ID, approvals.Seen{}); !problem.Is(err, problem.Conflict) {
			w.t.Errorf("approve the first, which somebody may have looked at: got %v, want Conflict", err)
		}
		_, err := w.gate.Approve(w.t.Context(), w.admin(), again.Approval.ID, approvals.Seen{})
		w.must(err)
		if done := ask(); done.Created || done.Approval.Execution != approvals.Done {
			w.t.Errorf("asked again while York holds: got %+v, want the executed approval", done.Approval)
		}
		set("Leeds")
		if anew := ask(); !anew.Created {
			w.t.Errorf("asked again after Leeds: got %+v, want a new approval", anew.Approval)
		}
	})
}
