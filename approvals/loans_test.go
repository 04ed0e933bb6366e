package approvals_test

import (
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
	"trustpager/problem"
)

func TestLoans(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin")
		g := w.key(agent)
		lend := func(by access.Grant, id string) (approvals.Loan, error) { return w.gate.Lend(ctx, by, id, time.Hour) }
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		_, err := w.gate.Lend(ctx, w.admin(), a.ID, 2*time.Hour)
		w.denied(err, problem.Validation, "")
		_, err = lend(g, a.ID)
		w.denied(err, problem.InsufficientScope, "")
		l, err := lend(w.admin(), a.ID)
		w.must(err)
		if l.Remaining != approvals.LoanUses || !l.ExpiresAt.Equal(w.clock.Now().Add(time.Hour)) {
			t.Errorf("got %+v", l)
		}
		w.state(a.ID, "pending none") // lending decides nothing

		// It runs at once, that verb of that resource only, and the log names the loan.
		w.run(g, "create_contact", "", `{"first_name":"Bob"}`)
		w.ask(g, "delete_contact", w.contact("Eve"), ``)
		w.ask(g, "create_customer", "", `{"name":"Acme"}`)
		w.ask(w.key(agent), "create_contact", "", `{"first_name":"Other"}`)
		runs := w.log(audit.ActionRun)
		named := 0
		for _, e := range runs {
			if strings.Contains(string(e.Detail), l.ID) {
				named++
			}
		}
		if named != 1 {
			t.Errorf("the loan is named %d times in the log, want once", named)
		}

		// Sixteen at once use it no more often than it can be used.
		var ran atomic.Int64
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 3 {
					out, err := w.do(g, "create_contact", "", fmt.Sprintf(`{"first_name":"N%d-%d"}`, i, j))
					if err == nil && out.Approval == nil {
						ran.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if got := ran.Load(); got != approvals.LoanUses-1 {
			t.Errorf("%d more uses, want %d", got, approvals.LoanUses-1)
		}
	})
}

func TestWhatEndsALoan(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin")
		for name, end := range map[string]func(g access.Grant, l approvals.Loan){
			"its time": func(access.Grant, approvals.Loan) { w.clock.Advance(time.Hour) },
			"a click":  func(_ access.Grant, l approvals.Loan) { _, err := w.gate.EndLoan(ctx, w.admin(), l.ID); w.must(err) },
			"a rejection": func(g access.Grant, _ approvals.Loan) {
				_, err := w.gate.Reject(ctx, w.admin(), w.ask(g, "create_customer", "", `{"name":"Acme"}`).ID, "No.")
				w.must(err)
			},
			"the panic switch": func(access.Grant, approvals.Loan) {
				w.must(w.desk.Pause(ctx, w.op, ""))
				w.must(w.desk.Resume(ctx, w.op, ""))
			},
			"a pause": func(g access.Grant, _ approvals.Loan) {
				w.must(w.desk.Pause(ctx, w.op, g.Principal.ID))
				w.must(w.desk.Resume(ctx, w.op, g.Principal.ID))
			},
			"revocation": func(g access.Grant, _ approvals.Loan) {
				_, err := w.desk.RevokeKey(ctx, w.op, g.Principal.ID)
				w.must(err)
				_, err = w.desk.ActivateKey(ctx, w.op, g.Principal.ID)
				w.must(err)
			},
			"the lender's leaving": func(access.Grant, approvals.Loan) {
				w.must(w.desk.RemoveUser(ctx, w.op, "usr_admin@example.com"))
			},
			"the lender's fall": func(access.Grant, approvals.Loan) {
				w.must(w.db.SetMember(ctx, w.ws.ID, "usr_admin", access.Member, w.clock.Now()))
			},
			"a mark": func(access.Grant, approvals.Loan) {
				w.settings(access.Settings{AlwaysAsk: []access.Mark{{Resource: "contacts", Verb: "write"}}})
			},
		} {
			w.settings(access.Settings{})
			w.join("usr_admin")
			g := w.keyBy(w.op, agent)
			l, err := w.gate.Lend(ctx, w.admin(), w.ask(g, "create_contact", "", `{"first_name":"Ada"}`).ID, time.Hour)
			w.must(err)
			w.run(g, "create_contact", "", `{"first_name":"Bob"}`)
			end(g, l)
			g, err = w.db.RequesterGrant(ctx, w.ws.ID, g.Principal.ID)
			w.must(err)
			if out, err := w.do(g, "create_contact", "", `{"first_name":"Cy"}`); err != nil || out.Approval == nil {
				t.Errorf("after %s: got %+v, %v; want it queued", name, out.Result, err)
			}
		}
	})
}

func TestWhatCannotBeLent(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		lend := func(by access.Grant, id string, kind problem.Kind, words string) {
			t.Helper()
			_, err := w.gate.Lend(ctx, by, id, time.Hour)
			w.denied(err, kind, words)
		}
		w.settings(access.Settings{AlwaysAsk: []access.Mark{{Resource: "contacts", Verb: "write"}}})
		lend(w.admin(), a.ID, problem.Conflict, "always asking")
		w.settings(access.Settings{FourEyes: true})
		lend(w.admin(), a.ID, problem.Conflict, "two people")
		w.settings(access.Settings{})
		// A member lends to their own client, as far as they may act themselves.
		client := w.delegated("usr_mia", access.Member, "contacts:write-approval", "contacts:write")
		own := w.ask(client, "create_contact", "", `{"first_name":"Bob"}`)
		mia := w.person("usr_mia", w.gate.Catalog.RoleRights(access.Member))
		if _, err := w.gate.Lend(ctx, mia, own.ID, time.Hour); err != nil {
			t.Errorf("a member to their own client: got %v", err)
		}
		lend(mia, a.ID, problem.NotFound, "")
		// Never where it has lost the right to ask.
		scopes := []string{"contacts:read"}
		_, err := w.desk.UpdateKey(ctx, w.op, g.Key.ID, admin.KeyInput{Scopes: &scopes})
		w.must(err)
		lend(w.admin(), a.ID, problem.Conflict, "may not do this any more")
	})
}

// A loan of a key ends with the key, and where only people decide; one of a
// member to their own client where an admin has lowered the ceiling.
func TestALoanIsNoMoreThanItsLender(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		asks := func(g access.Grant, after string) {
			t.Helper()
			if out, err := w.do(g, "create_contact", "", fmt.Sprintf(`{"first_name":"Cy","notes":%q}`, after)); err != nil || out.Approval == nil {
				t.Errorf("after %s: got %+v, %v; want it queued", after, out.Result, err)
			}
		}
		for after, end := range map[string]func(lender access.Grant){
			"revocation":              func(l access.Grant) { _, err := w.desk.RevokeKey(ctx, w.op, l.Principal.ID); w.must(err) },
			"a pause":                 func(l access.Grant) { w.must(w.desk.Pause(ctx, w.op, l.Principal.ID)) },
			"a change to people only": func(access.Grant) { w.settings(access.Settings{PeopleOnly: true}) },
			"a cut": func(l access.Grant) {
				_, err := w.desk.UpdateKey(ctx, w.op, l.Principal.ID, admin.KeyInput{FullAccess: new(false), MayDecide: new(false), Scopes: &[]string{"contacts:read"}})
				w.must(err)
			},
		} {
			w.settings(access.Settings{})
			lender, g := w.keyBy(w.op, "decide"), w.keyBy(w.op, agent)
			_, err := w.gate.Lend(ctx, lender, w.ask(g, "create_contact", "", `{"first_name":"Ada"}`).ID, time.Hour)
			w.must(err)
			w.run(g, "create_contact", "", `{"first_name":"Bob"}`)
			end(lender)
			g, err = w.db.RequesterGrant(ctx, w.ws.ID, g.Principal.ID)
			w.must(err)
			asks(g, after)
		}
		w.settings(access.Settings{})
		g := w.delegated("usr_mia", access.Member, agent, "contacts:delete")
		mia := w.person("usr_mia", w.gate.Catalog.RoleRights(access.Member))
		_, err := w.gate.Lend(ctx, mia, w.ask(g, "create_contact", "", `{"first_name":"Ada"}`).ID, 8*time.Hour)
		w.must(err)
		w.run(g, "create_contact", "", `{"first_name":"Bob"}`)
		_, err = w.desk.UpdateClient(ctx, w.op, g.Principal.Client, admin.ClientInput{Scopes: &[]string{"contacts:write-approval"}})
		w.must(err)
		asks(w.today(g.Principal.ID), "a lower ceiling")
		if n := len(w.log(audit.LoanEnded)); n != 5 {
			t.Errorf("%d ends of loans in the log, want 5", n)
		}
	})
}

// What waits already is not done twice, and lending twice lends once.
func TestLendingTwice(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.join("usr_admin")
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		for range 3 {
			_, err := w.gate.Lend(t.Context(), w.admin(), a.ID, time.Hour)
			w.must(err)
		}
		if again := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`); again.ID != a.ID {
			t.Errorf("the same once more: got %s, want the approval %s", again.ID, a.ID)
		}
		loans, err := w.gate.Loans(t.Context(), w.admin(), approvals.LoanQuery{Credential: g.Principal.ID, InForceAt: w.clock.Now(), Limit: 10})
		w.must(err)
		if len(loans) != 1 || loans[0].Remaining != approvals.LoanUses {
			t.Errorf("got %+v, want one loan, unused", loans)
		}
		w.approved(a.ID, "approved done")
		if n := w.named("Ada"); n != 1 {
			t.Errorf("%d contacts, want 1", n)
		}
	})
}

// Lending at the moment of a rejection, a pause or a revocation leaves nothing
// lent.
func TestLoanRaces(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		w.join("usr_admin")
		for name, end := range map[string]func(g access.Grant, a approvals.Approval) error{
			"reject": func(_ access.Grant, a approvals.Approval) error {
				_, err := w.gate.Reject(ctx, w.admin(), a.ID, "No.")
				return err
			},
			"pause": func(g access.Grant, _ approvals.Approval) error { return w.desk.Pause(ctx, w.op, g.Principal.ID) },
			"revoke": func(g access.Grant, _ approvals.Approval) error {
				_, err := w.desk.RevokeKey(ctx, w.op, g.Principal.ID)
				return err
			},
		} {
			for range 20 {
				g := w.keyBy(w.op, agent)
				a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
				var both sync.WaitGroup
				for range 3 {
					both.Go(func() { w.gate.Lend(ctx, w.admin(), a.ID, time.Hour) })
				}
				both.Go(func() {
					if err := end(g, a); err != nil {
						t.Error(err)
					}
				})
				both.Wait()
				loans, err := w.gate.Loans(ctx, w.admin(), approvals.LoanQuery{Credential: g.Principal.ID, InForceAt: w.clock.Now(), Limit: 10})
				w.must(err)
				if len(loans) > 0 {
					t.Fatalf("%s: %d loans in force after it", name, len(loans))
				}
			}
		}
	})
}
