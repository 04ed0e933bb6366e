package approvals_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
)

// card returns the card of the approval, as an admin sees it.
func (w *world) card(id string) approvals.Card {
	w.t.Helper()
	c, err := w.gate.Card(w.t.Context(), w.admin(), id)
	w.must(err)
	return c
}

// fact returns one field of the card as base|current|proposed, with marks.
func fact(c approvals.Card, name string) string {
	for _, f := range c.Facts {
		if f.Name == name {
			return fmt.Sprintf("%s|%s|%s changes=%t stale=%t", f.Base, f.Current, f.Proposed, f.Changes, f.Stale)
		}
	}
	return "no such fact"
}

// failing returns the names of the checks that do not hold.
func failing(c approvals.Card) string {
	var names []string
	for _, check := range c.Checks {
		if !check.OK {
			names = append(names, check.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestCardTellsFacts(t *testing.T) {
	eachWorld(t, func(w *world) {
		full, g := w.key("full"), w.key(agent)
		customer := w.run(full, "create_customer", "", `{"name":"Acme"}`)
		ada := w.run(full, "create_contact", "", `{"first_name":"Ada","city":"London"}`)

		update := w.ask(g, "update_contact", ada, `{"city":"Paris","customer_id":"`+customer+`","reason":"They moved."}`)
		c := w.card(update.ID)
		if got, want := fact(c, "city"), `"London"|"London"|"Paris" changes=true stale=false`; got != want {
			t.Errorf("city: got %s, want %s", got, want)
		}
		if got, want := fact(c, "first_name"), `"Ada"|"Ada"|"Ada" changes=false stale=false`; got != want {
			t.Errorf("first_name: got %s, want %s", got, want)
		}
		if c.Titles[customer] != "Acme" || !c.MayDecide || c.Blocked() || c.Stale || failing(c) != "" || c.Needed != 1 || !strings.Contains(c.Raw, "They moved.") {
			t.Errorf("got %+v", c)
		}
		create := w.card(w.ask(g, "create_contact", "", `{"first_name":"Grace"}`).ID)
		if got, want := fact(create, "first_name"), `||"Grace" changes=true stale=false`; got != want {
			t.Errorf("create: got %s, want %s", got, want)
		}
		remove := w.card(w.ask(g, "delete_contact", ada, ``).ID)
		if got, want := fact(remove, "city"), `"London"|"London"| changes=true stale=false`; got != want {
			t.Errorf("delete: got %s, want %s", got, want)
		}

		// A decided card tells what was decided about, whatever comes later.
		w.approved(update.ID, "approved done")
		w.run(full, "update_contact", ada, `{"city":"Rome"}`)
		if got, want := fact(w.card(update.ID), "city"), `"London"|"London"|"Paris" changes=true stale=false`; got != want {
			t.Errorf("decided: got %s, want %s", got, want)
		}
		// Secrets stay masked.
		secret := w.card(w.ask(g, "create_vault", "", `{"name":"Safe","pin":"4711"}`).ID)
		b, err := json.Marshal(secret)
		w.must(err)
		if strings.Contains(string(b), "4711") {
			t.Errorf("the card shows the secret: %s", b)
		}
	})
}

func TestChecksSayWhatStandsAgainstApproving(t *testing.T) {
	eachWorld(t, func(w *world) {
		full, g := w.key("full"), w.key(agent)
		customer := w.run(full, "create_customer", "", `{"name":"Acme"}`)
		one := func(do func(id string), want string) {
			t.Helper()
			ada := w.run(full, "create_contact", "", `{"first_name":"Ada"}`)
			a := w.ask(g, "update_contact", ada, `{"last_name":"Lovelace"}`)
			do(ada)
			c := w.card(a.ID)
			if failing(c) != want || !c.Blocked() {
				t.Errorf("got the checks %+v, want %q to fail", c.Checks, want)
			}
			// What a card says stands against it, approving refuses.
			if _, err := w.approve(w.admin(), a.ID); !problem.Is(err, problem.Conflict) {
				t.Errorf("approve although %s: got %v, want %s", want, err, problem.Conflict)
			}
		}
		one(func(id string) { w.run(full, "update_contact", id, `{"city":"Rome"}`) }, "target")
		one(func(id string) { w.run(full, "delete_contact", id, ``) }, "target")
		a := w.ask(g, "create_contact", "", `{"first_name":"Bob","customer_id":"`+customer+`"}`)
		w.run(full, "delete_customer", customer, ``)
		if c := w.card(a.ID); failing(c) != "values" {
			t.Errorf("a reference that is gone: got %+v", c.Checks)
		}
		_, err := w.desk.RevokeKey(t.Context(), w.op, g.Key.ID)
		w.must(err)
		if c := w.card(a.ID); failing(c) != "requester" {
			t.Errorf("a revoked key: got %+v", c.Checks)
		}
		w.clock.Advance(8 * 24 * time.Hour)
		if c := w.card(a.ID); !strings.HasPrefix(failing(c), "open") {
			t.Errorf("over: got %+v", c.Checks)
		}
	})
}

func TestHiddenCharactersAreFlagged(t *testing.T) {
	eachWorld(t, func(w *world) {
		g := w.key(agent)
		for value, want := range map[string]string{
			"a\u200bb": "U+200B", "a\u202eb": "U+202E", "a\U000E0041": "U+E0041", "a\u2066b": "U+2066", "p\u0430ypal": "p\u0430ypal", "Zoë 数据": "", "two\nlines": "",
		} {
			b, err := json.Marshal(map[string]string{"first_name": "Eve", "notes": value})
			w.must(err)
			c := w.card(w.ask(g, "create_contact", "", string(b)).ID)
			warned := ""
			for _, check := range c.Checks {
				if check.Name == "characters" {
					warned += check.Text
				}
			}
			if want == "" && warned != "" || !strings.Contains(warned, want) {
				t.Errorf("%q: got the warning %q, want %q", value, warned, want)
			}
			if c.Blocked() {
				t.Errorf("%q: it blocks approving", value)
			}
		}
	})
}

func TestStaleTargets(t *testing.T) {
	eachWorld(t, func(w *world) {
		full, g := w.key("full"), w.key(agent)
		stale := func() (ada string, c approvals.Card) {
			t.Helper()
			ada = w.run(full, "create_contact", "", `{"first_name":"Ada","city":"London","job_title":"Analyst"}`)
			a := w.ask(g, "update_contact", ada, `{"city":"Paris","job_title":"Countess","if_version":1}`)
			w.run(full, "update_contact", ada, `{"city":"Turin"}`)
			c = w.card(a.ID)
			if got, want := fact(c, "city"), `"London"|"Turin"|"Paris" changes=true stale=true`; got != want || !c.Stale || c.Untouched != 1 {
				t.Fatalf("the card: got %s, %+v", got, c)
			}
			return ada, c
		}
		try := func(c approvals.Card, seen approvals.Seen) (approvals.Approval, error) {
			seen.Digest = c.Digest
			return w.gate.Approve(t.Context(), w.admin(), c.ID, seen)
		}

		ada, c := stale()
		for _, seen := range []approvals.Seen{{}, {Stale: "other", TargetVersion: 2}, {Stale: approvals.Rebase}, {Stale: approvals.Rebase, TargetVersion: 1},
			{Stale: approvals.Untouched, TargetVersion: 2, Edited: json.RawMessage(`{}`)}} {
			if _, err := try(c, seen); err == nil {
				t.Errorf("%+v: got no error", seen)
			}
		}
		w.state(c.ID, "pending none")
		a, err := try(c, approvals.Seen{Stale: approvals.Untouched, TargetVersion: c.TargetVersion})
		w.must(err)
		if got := w.record("contacts", ada); got["city"] != "Turin" || got["job_title"] != "Countess" || a.Edited == nil {
			t.Errorf("untouched: got %v", got)
		}
		ada, c = stale()
		_, err = try(c, approvals.Seen{Stale: approvals.Rebase, TargetVersion: c.TargetVersion})
		w.must(err)
		if got := w.record("contacts", ada); got["city"] != "Paris" || got["job_title"] != "Countess" {
			t.Errorf("rebase: got %v", got)
		}
		ada, c = stale()
		_, err = try(c, approvals.Seen{Stale: approvals.Rebase, TargetVersion: c.TargetVersion, Edited: json.RawMessage(`{"city":"Rome"}`)})
		w.must(err)
		if got := w.record("contacts", ada); got["city"] != "Rome" || got["job_title"] != "Analyst" {
			t.Errorf("edited: got %v", got)
		}
		// It changes again between the look and the decision.
		ada, c = stale()
		w.run(full, "update_contact", ada, `{"last_name":"L"}`)
		if _, err := try(c, approvals.Seen{Stale: approvals.Rebase, TargetVersion: c.TargetVersion}); !problem.Is(err, problem.Conflict) {
			t.Errorf("changed again: got %v, want %s", err, problem.Conflict)
		}
		// Nothing is left that nobody has changed.
		w.run(full, "update_contact", ada, `{"job_title":"Queen"}`)
		c = w.card(c.ID)
		if _, err := try(c, approvals.Seen{Stale: approvals.Untouched, TargetVersion: c.TargetVersion}); !problem.Is(err, problem.Conflict) {
			t.Errorf("all changed: got %v, want %s", err, problem.Conflict)
		}
	})
}

// Of a thousand targets that others change after they were asked about, none is
// changed by an approval that was looked at before.
func TestAThousandChangedTargets(t *testing.T) {
	eachWorld(t, func(w *world) {
		full := w.key("full")
		n := 1000
		if testing.Short() {
			n = 50
		}
		var agents []access.Grant
		for range (n + approvals.MaxOpen - 1) / approvals.MaxOpen {
			agents = append(agents, w.key(agent))
		}
		executed := 0
		for i := range n {
			id := w.run(full, "create_contact", "", `{"first_name":"Ada"}`)
			a := w.ask(agents[i/approvals.MaxOpen], "update_contact", id, fmt.Sprintf(`{"last_name":"L%d"}`, i))
			w.run(full, "update_contact", id, fmt.Sprintf(`{"city":"C%d"}`, rand.IntN(1000)))
			if _, err := w.gate.Approve(t.Context(), w.admin(), a.ID, approvals.Seen{Digest: a.Digest}); err == nil {
				executed++
			}
		}
		if executed > 0 {
			t.Errorf("%d of %d changed targets were executed, want 0", executed, n)
		}
	})
}

func TestFourEyes(t *testing.T) {
	eachWorld(t, func(w *world) {
		full := w.key("full")
		w.settings(access.Settings{FourEyes: true})
		g := w.keyBy(w.op, agent)
		deciding := w.keyBy(w.op, "decide")
		w.join("usr_robin", "usr_tom", "usr_una")
		robin, tom := w.person("usr_robin", access.FullRights), w.person("usr_tom", access.FullRights)
		ada := w.run(full, "create_contact", "", `{"first_name":"Ada"}`)

		a := w.ask(g, "update_contact", ada, `{"city":"Paris"}`)
		_, err := w.approve(deciding, a.ID)
		w.denied(err, problem.InsufficientScope, "only people")
		got, err := w.approve(robin, a.ID)
		w.must(err)
		if got.Status != approvals.Pending || len(got.Votes) != 1 {
			t.Errorf("the first yes: got %s with %v, want it pending", got.Status, got.Votes)
		}
		if c := w.card(a.ID); c.Needed != 1 || len(c.ApprovedBy) != 1 || c.ApprovedBy[0].Name != "usr_robin" {
			t.Errorf("the card: got %+v", c.View)
		}
		got, err = w.approve(robin, a.ID) // the same person twice is one
		w.must(err)
		if got.Status != approvals.Pending {
			t.Errorf("twice by one: got %s", got.Status)
		}
		// The second edits: the first has not said yes to that.
		got, err = w.gate.Approve(t.Context(), tom, a.ID, approvals.Seen{Edited: json.RawMessage(`{"city":"Rome"}`)})
		w.must(err)
		if got.Status != approvals.Pending || len(got.Votes) != 1 || got.Votes[0].By.ID != "usr_tom" {
			t.Errorf("edited: got %s with %v", got.Status, got.Votes)
		}
		if _, err := w.gate.Approve(t.Context(), robin, a.ID, approvals.Seen{Digest: a.Digest}); !problem.Is(err, problem.Conflict) {
			t.Errorf("with the digest of what was asked: got %v, want %s", err, problem.Conflict)
		}
		got, err = w.gate.Approve(t.Context(), robin, a.ID, approvals.Seen{Digest: got.Digest})
		w.must(err)
		if got.Execution != approvals.Done || w.record("contacts", ada)["city"] != "Rome" {
			t.Errorf("the second yes: got %s, %v", got.Execution, w.record("contacts", ada))
		}
		if n := len(w.log(audit.ApprovalVoted)); n != 3 {
			t.Errorf("got %d votes in the log, want 3", n)
		}

		// Whom the requester acts for is none of the two.
		client := w.delegated("usr_robin", access.Owner, "contacts:write-approval", "contacts:write")
		b := w.ask(client, "create_contact", "", `{"first_name":"Bob"}`)
		_, err = w.approve(robin, b.ID)
		w.denied(err, problem.InsufficientScope, "in your name")
		// One rejects alone.
		_, err = w.gate.Reject(t.Context(), tom, b.ID, "No.")
		w.must(err)

		// Nor is who has registered a client that acts for itself, and so knows its secret.
		made, err := w.desk.CreateClient(t.Context(), robin, admin.ClientInput{Name: new("Sync"), ClientCredentials: new(true), Scopes: &[]string{"contacts:write-approval"}})
		w.must(err)
		gr, err := w.db.SaveGrant(t.Context(), oauth.Grant{ID: typeid.NewID("grt"), Workspace: w.ws.ID, Client: made.Client.ID, CreatedAt: w.clock.Now(), ConsentedAt: w.clock.Now()})
		w.must(err)
		_, err = w.approve(robin, w.ask(w.today(gr.ID), "create_contact", "", `{"first_name":"Cy"}`).ID)
		w.denied(err, problem.InsufficientScope, "in your name")

		// The yes of somebody who has left does not count any more.
		d := w.ask(g, "create_contact", "", `{"first_name":"Dee"}`)
		_, err = w.approve(w.person("usr_una", access.FullRights), d.ID)
		w.must(err)
		w.must(w.desk.RemoveUser(t.Context(), w.op, "usr_una@example.com"))
		if c := w.card(d.ID); c.Needed != 2 || len(c.ApprovedBy) != 0 {
			t.Errorf("after the first has left: got %d needed, %v", c.Needed, c.ApprovedBy)
		}
		_, err = w.approve(tom, d.ID)
		w.must(err)
		w.state(d.ID, "pending none")
	})
}

func TestFourEyesRace(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.settings(access.Settings{FourEyes: true})
		g := w.keyBy(w.op, agent)
		for i := range 16 {
			w.join(fmt.Sprintf("usr_%d", i))
		}
		for range 5 {
			a := w.ask(g, "create_contact", "", fmt.Sprintf(`{"first_name":"Eve","notes":"%d"}`, rand.Int64()))
			var done atomic.Int64
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					p := w.person(fmt.Sprintf("usr_%d", i), access.FullRights)
					for range 20 {
						got, err := w.approve(p, a.ID)
						if err == nil && got.Execution == approvals.Done {
							done.Add(1)
						}
						if err == nil {
							return
						}
					}
				})
			}
			wg.Wait()
			got := w.stored(a.ID)
			if got.Execution != approvals.Done || len(got.Votes) != 1 || got.Votes[0].By.ID == got.DecidedBy.ID || done.Load() != 1 {
				t.Errorf("got %s by %v after the votes %v, %d times done", got.Execution, got.DecidedBy.ID, got.Votes, done.Load())
			}
		}
	})
}

func TestAssign(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		g := w.key(agent)
		robin, err := w.desk.AddUser(ctx, w.op, "robin@example.com", "Robin", "", access.Admin)
		w.must(err)
		mia, err := w.desk.AddUser(ctx, w.op, "mia@example.com", "Mia", "", access.Member)
		w.must(err)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		_, err = w.gate.Assign(ctx, w.admin(), a.ID, mia.ID)
		w.denied(err, problem.InsufficientScope, "")
		_, err = w.gate.Assign(ctx, w.admin(), a.ID, "usr_nobody")
		w.denied(err, problem.NotFound, "")
		_, err = w.gate.Assign(ctx, g, a.ID, robin.ID)
		w.denied(err, problem.InsufficientScope, "")
		_, err = w.gate.Assign(ctx, w.admin(), a.ID, robin.ID)
		w.must(err)
		list, err := w.gate.Inbox(ctx, w.admin(), approvals.Query{Assignee: robin.ID, Limit: 10})
		w.must(err)
		if len(list) != 1 || list[0].ID != a.ID {
			t.Errorf("assigned: got %v", list)
		}
		_, err = w.gate.Assign(ctx, w.admin(), a.ID, "")
		w.must(err)
		w.approved(a.ID, "approved done")
		if _, err := w.gate.Assign(ctx, w.admin(), a.ID, robin.ID); !problem.Is(err, problem.Conflict) {
			t.Errorf("decided: got %v, want %s", err, problem.Conflict)
		}
	})
}

func TestWaitingCountsWhatOneCanDecide(t *testing.T) {
	eachWorld(t, func(w *world) {
		client := w.delegated("usr_mia", access.Member, "contacts:write-approval deals:write-approval", "contacts:write deals:write-approval")
		w.ask(client, "create_contact", "", `{"first_name":"Ada"}`) // only her consent holds it back
		w.ask(w.key(agent), "create_contact", "", `{"first_name":"Bob"}`)
		mia := w.person("usr_mia", w.gate.Catalog.RoleRights(access.Member))
		for _, tt := range []struct {
			name string
			g    access.Grant
			want int
		}{{"an admin", w.admin(), 2}, {"a member", mia, 1}, {"another member", w.person("usr_x", w.gate.Catalog.RoleRights(access.Member)), 0}, {"an agent", client, 0}} {
			if got, err := w.gate.Waiting(t.Context(), tt.g); err != nil || got != tt.want {
				t.Errorf("%s: got %d, %v; want %d", tt.name, got, err, tt.want)
			}
		}
		list, err := w.gate.Inbox(t.Context(), mia, approvals.Query{Limit: 10})
		if w.must(err); len(list) != 1 || list[0].By.User != "usr_mia" {
			t.Errorf("the member's inbox: got %v", list)
		}
	})
}

// What was paused is not run, whoever approves it, and can be rejected.
func TestApprovalsOfThePaused(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := t.Context()
		g := w.key(agent)
		a := w.ask(g, "create_contact", "", `{"first_name":"Ada"}`)
		w.must(w.desk.Pause(ctx, w.op, g.Principal.ID))
		if c := w.card(a.ID); failing(c) != "requester" || !c.Blocked() {
			t.Errorf("the card: got %+v", c.Checks)
		}
		_, err := w.approve(w.admin(), a.ID)
		w.denied(err, problem.Conflict, "paused")
		w.must(w.desk.Resume(ctx, w.op, g.Principal.ID))
		w.approved(a.ID, "approved done")
	})
}

// A credential that may not read the resource any more is told nothing of it.
func TestCardOfWhatMayNotBeRead(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.contact("Ada")
		g := w.key("contacts:write-approval")
		a := w.ask(g, "update_contact", ada, `{"notes":"x"}`)
		_, err := w.desk.UpdateKey(t.Context(), w.op, g.Principal.ID, admin.KeyInput{Scopes: &[]string{"deals:read"}})
		w.must(err)
		g, err = w.db.RequesterGrant(t.Context(), w.ws.ID, g.Principal.ID)
		w.must(err)
		w.run(w.op, "update_contact", ada, `{"first_name":"Grace","phone":"+4915112345678"}`)
		c, err := w.gate.Card(t.Context(), g, a.ID)
		w.must(err)
		shown, err := json.Marshal(c)
		w.must(err)
		for _, hidden := range []string{"Ada", "Grace", "4915112345678"} {
			if strings.Contains(string(shown), hidden) {
				t.Errorf("the card tells of %q: %s", hidden, shown)
			}
		}
		if c.MayDecide || c.WhyNot == "" || c.Status != approvals.Pending {
			t.Errorf("got %+v", c)
		}
	})
}

// The card of what was approved on a changed target tells what was there then.
func TestCardOfADecisionAboutAChangedTarget(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.contact("Ada")
		a := w.ask(w.key("contacts:write-approval"), "update_contact", ada, `{"city":"York"}`)
		w.run(w.op, "update_contact", ada, `{"city":"Hull"}`)
		c := w.card(a.ID)
		_, err := w.gate.Approve(t.Context(), w.admin(), a.ID, approvals.Seen{Digest: a.Digest, Stale: approvals.Rebase, TargetVersion: c.TargetVersion})
		w.must(err)
		for _, f := range w.card(a.ID).Facts {
			if f.Name == "city" && (string(f.Current) != `"Hull"` || string(f.Proposed) != `"York"`) {
				t.Errorf("got %s to %s, want Hull to York", f.Current, f.Proposed)
			}
		}
	})
}
