package approvals_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/webhook"
)

// wanting is the body with which write of contacts is asked for.
func wanting(minutes int) string {
	return fmt.Sprintf(`{"resource":"contacts","verb":"write","minutes":%d,"why":"300 contacts are to be cleaned."}`, minutes)
}

// queued does a write of contacts and reports whether it waits.
func (w *world) queued(g access.Grant, first string) bool {
	w.t.Helper()
	out, err := w.do(g, "create_contact", "", fmt.Sprintf(`{"first_name":%q}`, first))
	w.must(err)
	return out.Approval != nil
}

func TestAccessIsAskedForAndLent(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin")
		g := w.key(agent)
		w.hook(g, webhook.ApprovalExecuted)
		a := w.ask(g, "request_access", "", wanting(60))
		if a.Resource != "contacts" || a.Verb != access.Write || a.Reason != "300 contacts are to be cleaned." || a.Title != "write of contacts" ||
			a.Request.Path != "/v1/access/request" || strings.Contains(string(a.Input), "why") || !a.ExpiresAt.Equal(w.clock.Now().Add(approvals.MinTTL*7*24)) {
			t.Errorf("got %+v", a)
		}
		if !w.queued(g, "Early") {
			t.Error("it runs before anybody has lent it")
		}
		if again := w.ask(g, "request_access", "", strings.Replace(wanting(60), "300", "Many", 1)); again.ID != a.ID || again.Asked != 2 {
			t.Errorf("the same in other words: got %s, asked %d times; want %s, twice", again.ID, again.Asked, a.ID)
		}

		c, err := w.gate.Card(ctx, w.admin(), a.ID)
		w.must(err)
		facts := map[string]string{}
		for _, f := range c.Facts {
			facts[f.Name] = string(f.Proposed)
		}
		if facts["lent_to"] != `"key contacts:write-approval"` || facts["resource"] != `"contacts"` || facts["verb"] != `"write"` || facts["minutes"] != "60" || facts["uses_at_most"] != "25" ||
			facts["runs_at_once"] != `["create_contact","update_contact","link_contact_to_customer","unlink_contact_from_customer"]` {
			t.Errorf("the card says %v", facts)
		}
		if c.Blocked() || !c.MayDecide || c.MayLend || !slices.ContainsFunc(c.Checks, func(k approvals.Check) bool { return k.Name == "loan" && k.OK }) {
			t.Errorf("got %+v", c)
		}
		_, err = w.gate.Lend(ctx, w.admin(), a.ID, time.Hour)
		w.denied(err, problem.Conflict, "asks for a loan itself")

		done := w.approved(a.ID, "approved done")
		ans := w.gate.Answer(done)
		var told struct {
			Loan      string    `json:"loan_id"`
			ExpiresAt time.Time `json:"expires_at"`
			Uses      int64
		}
		w.must(json.Unmarshal(ans.Data, &told))
		if !ans.Executed || !strings.HasPrefix(ans.Message, "Lent:") || told.Uses != approvals.LoanUses || !told.ExpiresAt.Equal(w.clock.Now().Add(time.Hour).Truncate(time.Second)) {
			t.Errorf("the agent is told %+v", ans)
		}
		loans, err := w.gate.Loans(ctx, g, approvals.LoanQuery{InForceAt: w.clock.Now(), Limit: 10})
		w.must(err)
		if len(loans) != 1 || loans[0].ID != told.Loan || loans[0].By.User != "usr_admin" || loans[0].Approval != a.ID {
			t.Errorf("got %+v", loans)
		}
		if n := len(w.log(audit.LoanMade)); n != 1 {
			t.Errorf("%d loans in the log, want 1", n)
		}
		if d := w.deliveries(g); len(d) != 1 || d[0].Type != webhook.ApprovalExecuted || !strings.Contains(string(d[0].Data.Result), told.Loan) {
			t.Errorf("the webhook was told %+v", d)
		}

		// Asking again while it is lent is answered with the loan, with other minutes
		// refused; nothing is queued.
		if out, err := w.do(g, "request_access", "", wanting(60)); err != nil || out.Approval == nil || out.Approval.ID != a.ID {
			t.Errorf("the same again: got %+v, %v", out.Approval, err)
		}
		_, err = w.do(g, "request_access", "", wanting(480))
		w.denied(err, problem.Conflict, "lent to this credential already")

		for i := range approvals.LoanUses {
			if w.queued(g, fmt.Sprintf("N%d", i)) {
				t.Fatalf("use %d waits", i+1)
			}
		}
		if !w.queued(g, "Over") {
			t.Error("one use too many")
		}
		// Now it is a new question, although the same was approved a moment ago.
		next := w.ask(g, "request_access", "", wanting(60))
		if next.ID == a.ID {
			t.Error("the answer is a loan that is over")
		}
		w.approved(next.ID, "approved done")
		if w.queued(g, "Second") {
			t.Error("the second loan lends nothing")
		}
		w.clock.Advance(time.Hour)
		if !w.queued(g, "Late") {
			t.Error("it runs after its time")
		}
	})
}

func TestLoanRequestsThatAreRefused(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.join("usr_admin")
		body := func(resource, verb string) string {
			return fmt.Sprintf(`{"resource":%q,"verb":%q,"minutes":15,"why":"Much to do."}`, resource, verb)
		}
		g, full, reader := w.key(agent+" deals:write"), w.key("full"), w.key("contacts:read")
		for name, tt := range map[string]struct {
			g     access.Grant
			body  string
			kind  problem.Kind
			words string
		}{
			"at once anyway":            {g, body("deals", "write"), problem.Conflict, "at once"},
			"full access":               {full, body("contacts", "write"), problem.Conflict, "at once"},
			"not even after approval":   {g, body("deals", "delete"), problem.InsufficientScope, "not even after approval"},
			"unknown to it":             {g, body("tasks", "write"), problem.InsufficientScope, "not even after approval"},
			"a key that only reads":     {reader, body("contacts", "write"), problem.InsufficientScope, "nothing but read"},
			"Admin Only":                {w.key("webhooks:write-approval"), body("webhooks", "write"), problem.Conflict, "Admin Only"},
			"people":                    {full, body("users", "write"), problem.Conflict, "Admin Only"},
			"a verb of another ladder":  {g, body("contacts", "send"), problem.Conflict, "no such verb"},
			"read":                      {g, body("contacts", "read"), problem.Validation, "verb"},
			"no resource":               {g, body("vehicles", "write"), problem.Validation, "resource"},
			"another time":              {g, strings.Replace(body("contacts", "write"), "15", "30", 1), problem.Validation, "one of the integers 15, 60, 480"},
			"time as text":              {g, strings.Replace(body("contacts", "write"), "15", `"15"`, 1), problem.Validation, "minutes"},
			"no reason":                 {g, `{"resource":"contacts","verb":"write","minutes":15}`, problem.MissingFields, "why is missing"},
			"a reason of nothing":       {g, strings.Replace(body("contacts", "write"), "Much to do.", " ", 1), problem.Validation, "why"},
			"another member for reason": {g, strings.Replace(body("contacts", "write"), "why", "reason", 1), problem.Validation, "reason"},
		} {
			if _, err := w.do(tt.g, "request_access", "", tt.body); !problem.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.words) || problem.Of(err).Fix == "" {
				t.Errorf("%s: got %v (fix %q), want %s with %q", name, err, problem.Of(err).Fix, tt.kind, tt.words)
			}
		}
		w.settings(access.Settings{AlwaysAsk: []access.Mark{{Resource: "contacts", Verb: "write"}}})
		for _, id := range []string{g.Principal.ID, full.Principal.ID} {
			marked, err := w.db.RequesterGrant(t.Context(), w.ws.ID, id)
			w.must(err)
			_, err = w.do(marked, "request_access", "", wanting(15))
			w.denied(err, problem.Conflict, "always asking")
		}
		w.settings(access.Settings{FourEyes: true})
		eyes, err := w.db.RequesterGrant(t.Context(), w.ws.ID, g.Principal.ID)
		w.must(err)
		_, err = w.do(eyes, "request_access", "", wanting(15))
		w.denied(err, problem.Conflict, "two people")
		list, err := w.gate.List(t.Context(), w.admin(), approvals.Query{Limit: 10})
		w.must(err)
		if len(list) != 0 {
			t.Errorf("%d were queued", len(list))
		}
	})
}

func TestWhoLendsWhatWasAskedFor(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin")
		decides, g := w.key("decide"), w.key(agent)
		a := w.ask(g, "request_access", "", wanting(60))
		_, err := w.approve(decides, a.ID)
		w.denied(err, problem.InsufficientScope, "only people lend")
		_, err = w.gate.Reject(ctx, decides, a.ID, "No.")
		w.denied(err, problem.InsufficientScope, "only people lend")
		_, err = w.gate.Lend(ctx, decides, a.ID, time.Hour)
		w.denied(err, problem.InsufficientScope, "only people lend")
		_, err = w.approve(g, a.ID)
		w.denied(err, problem.InsufficientScope, "")
		if c, err := w.gate.Card(ctx, decides, a.ID); err != nil || c.MayDecide {
			t.Errorf("the card of a deciding key: %+v, %v", c, err)
		}
		_, err = w.approve(w.op, a.ID) // the operator may
		w.must(err)
		if w.queued(g, "Bob") {
			t.Error("what the operator has lent waits")
		}

		// A user lends to their own app what nothing but their consent holds back.
		mine := w.delegated("usr_mia", access.Member, "contacts:write-approval deals:write-approval", "contacts:write deals:write-approval")
		mia := w.person("usr_mia", w.gate.Catalog.RoleRights(access.Member))
		own := w.ask(mine, "request_access", "", wanting(15))
		if own.Decider != access.DeciderOwner {
			t.Errorf("got the decider %s", own.Decider)
		}
		_, err = w.approve(mia, own.ID)
		w.must(err)
		if w.queued(mine, "Cy") {
			t.Error("what the user has lent waits")
		}
		held := w.ask(mine, "request_access", "", strings.Replace(wanting(15), "contacts\",", "deals\",", 1))
		if held.Decider != access.DeciderAdmin {
			t.Errorf("what the ceiling holds back: got the decider %s", held.Decider)
		}
		_, err = w.approve(mia, held.ID)
		w.denied(err, problem.InsufficientScope, "only with an admin's approval")
		_, err = w.approve(w.person("usr_max", w.gate.Catalog.RoleRights(access.Member)), held.ID)
		w.denied(err, problem.NotFound, "")
		w.approved(held.ID, "approved done")

		// Once an admin holds it back too, the user lends it no more, and what they
		// have lent ends.
		_, err = w.desk.UpdateClient(ctx, w.op, mine.Principal.Client, admin.ClientInput{Scopes: &[]string{"contacts:write-approval", "deals:write-approval"}})
		w.must(err)
		if !w.queued(w.today(mine.Principal.ID), "Dora") {
			t.Error("a loan that its lender could not make any more")
		}
	})
}

// Only the time can be edited, and what is looked at again blocks.
func TestLendingDiffersFromWhatWasAsked(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin")
		g := w.key(agent)
		a := w.ask(g, "request_access", "", wanting(480))
		edit := func(body string) (approvals.Approval, error) {
			return w.gate.Approve(ctx, w.admin(), a.ID, approvals.Seen{Digest: a.Digest, Edited: json.RawMessage(body)})
		}
		for _, body := range []string{`{"resource":"customers","verb":"write","minutes":15}`, `{"resource":"contacts","verb":"delete","minutes":15}`} {
			_, err := edit(body)
			w.denied(err, problem.Validation, "only that can be lent")
		}
		_, err := edit(`{"resource":"contacts","verb":"write","minutes":20}`)
		w.denied(err, problem.Validation, "minutes")
		w.state(a.ID, "pending none")
		done, err := edit(`{"resource":"contacts","verb":"write","minutes":15}`)
		w.must(err)
		if ans := w.gate.Answer(done); ans.Status != "executed_with_edits" || !strings.Contains(string(ans.Data), w.clock.Now().Add(15*time.Minute).Format(time.RFC3339)) {
			t.Errorf("got %+v", ans)
		}
		w.clock.Advance(15 * time.Minute)
		if !w.queued(g, "Late") {
			t.Error("it lasts as long as was asked for")
		}

		// What changes between the question and the answer blocks.
		for name, change := range map[string]func(id string){
			"at once": func(id string) {
				_, err := w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{Scopes: &[]string{"contacts:write"}})
				w.must(err)
			},
			"not even after approval": func(id string) {
				_, err := w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{Scopes: &[]string{"deals:write-approval"}})
				w.must(err)
			},
			"always asking": func(string) {
				w.settings(access.Settings{AlwaysAsk: []access.Mark{{Resource: "contacts", Verb: "write"}}})
			},
			"two people": func(string) { w.settings(access.Settings{FourEyes: true}) },
			"paused":     func(id string) { w.must(w.desk.Pause(ctx, w.op, id)) },
			"revoked":    func(id string) { _, err := w.desk.RevokeKey(ctx, w.op, id); w.must(err) },
		} {
			w.settings(access.Settings{})
			g := w.keyBy(w.op, agent)
			a := w.ask(g, "request_access", "", wanting(60))
			change(g.Principal.ID)
			who := w.admin()
			if name == "paused" {
				ws, err := w.db.Workspace(ctx, w.ws.ID)
				w.must(err)
				who.Workspace = ws
			}
			c, err := w.gate.Card(ctx, who, a.ID)
			w.must(err)
			if !c.Blocked() || !slices.ContainsFunc(c.Checks, func(k approvals.Check) bool { return !k.OK && k.Blocks && strings.Contains(k.Text, name) }) {
				t.Errorf("%s: the checks are %+v", name, c.Checks)
			}
			_, err = w.approve(who, a.ID)
			w.denied(err, problem.Conflict, name)
			w.state(a.ID, "pending none")
		}
	})
}

// Of several who decide at once one lends, and once; a rejection ends nothing
// but what rejections end.
func TestLoanRequestRaces(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin", "usr_other")
		for range 10 {
			g := w.keyBy(w.op, agent)
			a := w.ask(g, "request_access", "", wanting(60))
			var yes, no atomic.Int64
			var all sync.WaitGroup
			for _, by := range []access.Grant{w.admin(), w.person("usr_other", access.FullRights), w.op} {
				all.Go(func() {
					if _, err := w.approve(by, a.ID); err == nil {
						yes.Add(1)
					} else if !problem.Is(err, problem.Conflict) {
						t.Error(err)
					}
				})
			}
			all.Go(func() {
				if _, err := w.gate.Reject(ctx, w.op, a.ID, "No."); err == nil {
					no.Add(1)
				} else if !problem.Is(err, problem.Conflict) {
					t.Error(err)
				}
			})
			all.Wait()
			loans, err := w.gate.Loans(ctx, w.admin(), approvals.LoanQuery{Credential: g.Principal.ID, InForceAt: w.clock.Now(), Limit: 10})
			w.must(err)
			if yes.Load()+no.Load() != 1 || int64(len(loans)) != yes.Load() {
				t.Fatalf("%d lent, %d rejected, %d loans", yes.Load(), no.Load(), len(loans))
			}
		}
		// Asked twice at once there is one approval.
		g := w.keyBy(w.op, agent)
		var ids sync.Map
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				out, err := w.do(g, "request_access", "", wanting(60))
				if err != nil || out.Approval == nil {
					t.Errorf("got %+v, %v", out, err)
					return
				}
				ids.Store(out.Approval.ID, true)
			})
		}
		all.Wait()
		n := 0
		ids.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Errorf("%d approvals, want 1", n)
		}
	})
}

// A rejection is final for a while, and what is withdrawn or expires lends
// nothing.
func TestLoanRequestsEnd(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin")
		g := w.key(agent)
		a := w.ask(g, "request_access", "", wanting(60))
		_, err := w.gate.Reject(ctx, w.admin(), a.ID, "One by one, please.")
		w.must(err)
		if again := w.ask(g, "request_access", "", wanting(60)); again.ID != a.ID || again.DecisionReason != "One by one, please." {
			t.Errorf("asked again: got %+v", again)
		}
		w.clock.Advance(approvals.SameAsk + time.Second)
		b := w.ask(g, "request_access", "", wanting(60))
		_, err = w.gate.Withdraw(ctx, g, b.ID)
		w.must(err)
		c := w.ask(g, "request_access", "", wanting(60))
		w.clock.Advance(8 * 24 * time.Hour)
		w.expire()
		w.state(c.ID, "expired none")
		if !w.queued(g, "Bob") {
			t.Error("nothing was lent, and it runs")
		}
	})
}
