package admin_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/typeid"
)

var inviteLink = regexp.MustCompile(`https://crm\.example\.com/invite\?token=([A-Za-z0-9_-]{43})\n`)

// invite invites somebody and returns the token of the message.
func (w *world) invite(g access.Grant, email string, role access.Role) string {
	w.t.Helper()
	w.mails()
	_, link, err := w.desk.Invite(w.t.Context(), g, admin.Invite{Email: email, Role: role})
	w.must(err)
	sent := w.mails()
	if len(sent) != 1 || sent[0].To != strings.ToLower(email) {
		w.t.Fatalf("got %+v, want one message to %s", sent, email)
	}
	m := inviteLink.FindStringSubmatch(sent[0].Body)
	if m == nil || link != strings.TrimSpace(m[0]) { // there is no mail server, so the inviter is shown it too
		w.t.Fatalf("got the link %q and the message %q", link, sent[0].Body)
	}
	return m[1]
}

// proposes has the credential ask for an action of the catalog, which has to wait.
func (w *world) proposes(g access.Grant, action, id, input string) approvals.Approval {
	w.t.Helper()
	out, err := w.through(g, action, id, input)
	w.must(err)
	if out.Approval == nil {
		w.t.Fatalf("%s by %s ran at once", action, g.Principal.Name)
	}
	return *out.Approval
}

func (w *world) through(g access.Grant, action, id, input string) (approvals.Outcome, error) {
	a, ok := w.s.Catalog.Find(action)
	if !ok {
		w.t.Fatalf("there is no action %s", action)
	}
	return w.s.Gate.Do(w.t.Context(), g, a, approvals.Incoming{ID: id, Input: []byte(input), Request: approvals.Request{Door: "rest"}})
}

// roles are those of the workspace by the beginning of the e-mail address.
func (w *world) roles() string {
	w.t.Helper()
	users, err := w.db.Users(w.t.Context(), w.ws.ID)
	w.must(err)
	var all []string
	for _, u := range users {
		name, _, _ := strings.Cut(u.Email, "@")
		all = append(all, name+":"+string(u.Role))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestInvitation(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.member("olga@example.com", access.Owner)
		olga := w.browser("olga@example.com")
		token := w.invite(olga, "Grace@Example.com", access.Member)
		v, err := w.desk.InvitedWith(ctx, token, "192.0.2.1")
		w.must(err)
		if v.Email != "grace@example.com" || v.Role != access.Member || v.In.ID != w.ws.ID || v.User != "" || v.Locked || v.By.Name != "O" {
			w.t.Errorf("got %+v", v)
		}
		raw, err := w.db.Invitations(ctx, w.ws.ID)
		w.must(err)
		if len(raw) != 1 || strings.Contains(fmt.Sprint(raw), token) {
			w.t.Errorf("stored: got %v, want one invitation without its token", raw)
		}
		accept := func(token, name, password string) (admin.Person, error) {
			return w.desk.Accept(ctx, admin.Acceptance{Token: token, Name: name, Password: password, Address: "192.0.2.1"})
		}
		_, err = accept(token, "", "grace@example.com")
		w.faults(err, "name", "password")

		// Another invitation replaces the link.
		again := w.invite(olga, "grace@example.com", access.Admin)
		_, err = accept(token, "Grace", fresh)
		w.denied(err, problem.NotFound, "does not hold")
		p, err := accept(again, " Grace Hopper ", fresh)
		w.must(err)
		if p.User.Email != "grace@example.com" || p.User.Name != "Grace Hopper" || len(p.Memberships) != 1 || p.Memberships[0].Role != access.Admin {
			w.t.Errorf("got %+v, want an admin", p)
		}
		_, err = accept(again, "Mallory", fresh)
		w.denied(err, problem.NotFound, "does not hold")
		w.login("grace@example.com", fresh, "192.0.2.2")
		users, err := w.db.Users(ctx, w.ws.ID)
		w.must(err)
		for _, u := range users {
			if u.LastLogin.IsZero() == (u.Email == "grace@example.com") {
				w.t.Errorf("%s: got the last login %v", u.Email, u.LastLogin)
			}
		}
		if got := w.events(p.User.ID); got != "user.joined person.login person.login" {
			w.t.Errorf("got the events %q", got)
		}

		// A member needs no invitation; over is over; cancelled is cancelled.
		_, _, err = w.desk.Invite(ctx, olga, admin.Invite{Email: "GRACE@example.com", Role: access.Member})
		w.denied(err, problem.Conflict, "already")
		token = w.invite(olga, "mia@example.com", access.Member)
		w.clock.Advance(admin.InvitationLife)
		_, err = w.desk.InvitedWith(ctx, token, "192.0.2.1")
		w.denied(err, problem.NotFound, "does not hold")
		token = w.invite(olga, "mia@example.com", access.Member)
		w.must(w.desk.CancelInvitation(ctx, olga, "MIA@example.com"))
		_, err = accept(token, "Mia", fresh)
		w.denied(err, problem.NotFound, "does not hold")
		w.denied(w.desk.CancelInvitation(ctx, olga, "mia@example.com"), problem.NotFound, "nobody is invited")

		// What is no invitation.
		for _, email := range []string{"", "x", "Ada <ada@example.com>", "ada@example.com\n", "a\u202e@example.com", strings.Repeat("a", 330) + "@example.com"} {
			_, _, err := w.desk.Invite(ctx, olga, admin.Invite{Email: email + "\x00", Role: access.Member})
			w.faults(err, "email")
		}
		_, _, err = w.desk.Invite(ctx, olga, admin.Invite{Email: "x@example.com", Role: "king"})
		w.faults(err, "role")
		for _, token := range []string{"", "x", "\x00", strings.Repeat("x", 1<<16), "\xff"} {
			_, err := w.desk.InvitedWith(ctx, token, "192.0.2.3")
			w.denied(err, problem.NotFound, "does not hold")
		}
	})
}

// Who has an account accepts as themselves, and only to their own address.
func TestInvitationOfSomebodyWithAnAccount(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		two, err := w.desk.CreateWorkspace(ctx, "Two", "UTC")
		w.must(err)
		there := admin.OperatorGrant(two)
		hash, err := access.HashPassword(fresh)
		w.must(err)
		vic, err := w.desk.AddUser(ctx, there, "vic@example.com", "Vic", hash, access.Owner)
		w.must(err)
		_, err = w.desk.AddUser(ctx, there, "none@example.com", "", "", access.Member) // without a password
		w.must(err)
		w.member("olga@example.com", access.Owner)
		olga := w.browser("olga@example.com")
		token := w.invite(olga, "vic@example.com", access.Member)
		v, err := w.desk.InvitedWith(ctx, token, "")
		w.must(err)
		if v.User != vic.ID || v.Locked {
			w.t.Errorf("got %+v, want the account", v)
		}
		// Whoever has the link cannot give the account another password.
		_, err = w.desk.Accept(ctx, admin.Acceptance{Token: token, Name: "Mallory", Password: "mallory was here first"})
		w.denied(err, problem.Conflict, "there is an account")
		mallory := w.withPassword("mallory@example.com", "right", access.Member)
		p, err := w.desk.Person(ctx, mallory.ID)
		w.must(err)
		_, err = w.desk.AcceptAs(ctx, p, token, "")
		w.denied(err, problem.Forbidden, "another e-mail address")
		me, err := w.desk.Person(ctx, vic.ID)
		w.must(err)
		_, err = w.desk.AcceptAs(ctx, me, token, "")
		w.must(err)
		_, err = w.desk.AcceptAs(ctx, me, token, "")
		w.denied(err, problem.NotFound, "does not hold")
		if g := w.browser("vic@example.com"); g.IsAdmin() || g.Workspace.ID != w.ws.ID {
			w.t.Errorf("got %+v, want a member", g)
		}
		w.login("vic@example.com", fresh, "")

		token = w.invite(olga, "none@example.com", access.Member)
		v, err = w.desk.InvitedWith(ctx, token, "")
		w.must(err)
		if v.User == "" || !v.Locked {
			w.t.Errorf("an account without a password: got %+v, want it locked", v)
		}
		_, err = w.desk.Accept(ctx, admin.Acceptance{Token: token, Name: "Mallory", Password: fresh})
		w.denied(err, problem.Conflict, "there is an account")
	})
}

// Of many who use one link at once, one comes in.
func TestInvitationIsUsedOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.member("olga@example.com", access.Owner)
		token := w.invite(w.browser("olga@example.com"), "grace@example.com", access.Member)
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = w.desk.Accept(w.t.Context(), admin.Acceptance{Token: token, Name: fmt.Sprint("Grace ", i), Password: fresh})
			})
		}
		wg.Wait()
		in := 0
		for _, err := range errs {
			switch {
			case err == nil:
				in++
			case !problem.Is(err, problem.NotFound) && !problem.Is(err, problem.Conflict):
				w.t.Errorf("got %v, want %s", err, problem.NotFound)
			}
		}
		if got := w.roles(); in != 1 || got != "grace:member olga:owner" {
			w.t.Errorf("%d came in: %s", in, got)
		}
	})
}

func TestInvitationsAreBounded(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.member("olga@example.com", access.Owner)
		olga := w.browser("olga@example.com")
		for i := range admin.MaxInvitations {
			_, _, err := w.desk.Invite(ctx, olga, admin.Invite{Email: fmt.Sprintf("u%d@example.com", i), Role: access.Member})
			w.must(err)
		}
		_, _, err := w.desk.Invite(ctx, olga, admin.Invite{Email: "more@example.com", Role: access.Member})
		w.denied(err, problem.Conflict, "the most there can be")
		limited := false
		for range 6 {
			_, _, err := w.desk.Invite(ctx, olga, admin.Invite{Email: "u1@example.com", Role: access.Member})
			limited = limited || problem.Is(err, problem.RateLimited)
		}
		if !limited {
			w.t.Error("one address was sent 7 messages at once, want it limited")
		}
		// Cancelling gives a place, and not another message.
		sent := 0
		for i := range 300 {
			email := fmt.Sprintf("n%d@example.com", i)
			w.must(w.desk.CancelInvitation(ctx, olga, fmt.Sprintf("u%d@example.com", i%100)))
			_, _, err := w.desk.Invite(ctx, olga, admin.Invite{Email: email, Role: access.Member})
			if problem.Is(err, problem.RateLimited) {
				break
			}
			w.must(err)
			sent++
			w.must(w.desk.CancelInvitation(ctx, olga, email))
			_, _, err = w.desk.Invite(ctx, olga, admin.Invite{Email: fmt.Sprintf("u%d@example.com", i%100), Role: access.Member})
			if problem.Is(err, problem.RateLimited) {
				break
			}
			w.must(err)
			sent++
		}
		if sent > 100 {
			w.t.Errorf("%d further messages were sent, want them limited", sent)
		}
	})
}

// What somebody has made or seen the secret of ends with their membership,
// unless it is kept.
func TestRemovingEndsWhatTheyHave(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.member("olga@example.com", access.Owner)
		ada := w.member("ada@example.com", access.Admin)
		olga, hers := w.browser("olga@example.com"), w.browser("ada@example.com")
		first, firstGrant := w.make(hers, rights("full"))
		child, childGrant := w.make(firstGrant, rights("contacts:write-approval"))
		second, secondGrant := w.make(hers, rights("contacts:write-approval"))
		other, _ := w.make(olga, rights("full"))
		asked, kept := w.ask(childGrant, "Ended"), w.ask(secondGrant, "Kept")
		app := w.selfRegistered("cli_"+typeid.NewID("x")[2:], oauth.Dynamic)
		consent := w.grantOf(app, ada, "contacts:read")
		service := w.client(hers, admin.ClientInput{Name: ptr("Night"), ClientCredentials: ptr(true)})
		self := w.grantOf(service.Client.ID, access.User{}, "contacts:read")
		link := w.invite(hers, "friend@example.com", access.Admin)
		_, err := w.s.Gate.Assign(ctx, olga, kept.ID, ada.ID)
		w.must(err)
		task, err := w.through(olga, "create_task", "", `{"title":"Call","assignee_id":"`+ada.ID+`"}`)
		w.must(err)

		m, err := w.desk.Leaving(ctx, olga, ada.ID, "")
		w.must(err)
		if len(m.Keys) != 3 || len(m.Grants) != 1 || len(m.Clients) != 1 || len(m.Invitations) != 1 || len(m.Records) != 1 || m.Records[0].Count != 1 {
			w.t.Errorf("what would end: got %+v", m)
		}
		for _, keep := range [][]string{{other.Key.ID}, {"key_x"}, {child.Key.ID}, {"\x00"}, {consent.ID}} {
			_, err := w.desk.RemoveMember(ctx, olga, ada.ID, keep)
			w.denied(err, problem.Validation, "kept")
		}
		e, err := w.desk.RemoveMember(ctx, olga, ada.ID, []string{second.Key.ID})
		w.must(err)
		if e.Keys != 2 || e.Clients != 1 || e.Grants != 1 || e.Approvals != 1 || e.Invitations != 1 {
			w.t.Errorf("ended: got %+v", e)
		}
		w.refused(first.Secret, "revoked")
		w.refused(child.Secret, "revoked")
		w.allow(second.Secret)
		w.allow(other.Secret)
		for _, id := range []string{consent.ID, self.ID} {
			if gr, err := w.db.Grant(ctx, w.ws.ID, id, false); err != nil || gr.RevokedAt.IsZero() {
				w.t.Errorf("grant %s: got %+v, %v, want it revoked", id, gr, err)
			}
		}
		for id, want := range map[string]approvals.Status{asked.ID: approvals.Withdrawn, kept.ID: approvals.Pending} {
			if a, err := w.db.Approval(ctx, w.ws.ID, id); err != nil || a.Status != want || a.Assignee != "" {
				w.t.Errorf("approval %s: got %s assigned to %q, %v, want %s and nobody", id, a.Status, a.Assignee, err, want)
			}
		}
		_, err = w.desk.InvitedWith(ctx, link, "")
		w.denied(err, problem.NotFound, "does not hold")
		if p, err := w.desk.Person(ctx, ada.ID); err != nil || len(p.Memberships) != 0 {
			w.t.Errorf("got %+v, %v, want no membership", p, err)
		}
		// The record keeps the id, can be changed otherwise, and takes it no more.
		_, err = w.through(olga, "update_task", task.Result.Target.ID, `{"title":"Call soon"}`)
		w.must(err)
		_, err = w.through(olga, "create_task", "", `{"title":"Call","assignee_id":"`+ada.ID+`"}`)
		w.denied(err, problem.Validation, "assignee_id")
		if out, err := w.through(olga, "list_tasks", "", `{"assignee_id":"`+ada.ID+`"}`); err != nil || !strings.Contains(string(out.Result.Data), "Call soon") {
			w.t.Errorf("got %s, %v, want the record found by whom it names", out.Result.Data, err)
		}
		_, err = w.desk.RemoveMember(ctx, olga, ada.ID, nil)
		w.denied(err, problem.NotFound, "not a member")
		_, err = w.desk.RemoveMember(ctx, olga, "usr_\x00", nil)
		w.denied(err, problem.NotFound, "not a member")
	})
}

func TestWhoBecomesAMemberLosesKeys(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.member("olga@example.com", access.Owner)
		w.member("oscar@example.com", access.Owner)
		olga, oscar := w.browser("olga@example.com"), w.browser("oscar@example.com")
		key, _ := w.make(oscar, rights("full"))
		kept, _ := w.make(oscar, rights("full"))
		owners, members := w.invite(oscar, "own@example.com", access.Owner), w.invite(oscar, "mem@example.com", access.Member)
		// An admin keeps what an admin may have.
		_, err := w.desk.ChangeRole(ctx, olga, oscar.Principal.User, access.Admin, nil)
		w.must(err)
		w.allow(key.Secret)
		_, err = w.desk.InvitedWith(ctx, owners, "")
		w.denied(err, problem.NotFound, "does not hold")
		_, err = w.desk.InvitedWith(ctx, members, "")
		w.must(err)
		// Who was an owner at the last request is an admin now.
		_, err = w.desk.ChangeRole(ctx, oscar, oscar.Principal.User, access.Owner, nil)
		w.denied(err, problem.InsufficientScope, "only an owner")
		_, err = w.desk.ChangeRole(ctx, oscar, olga.Principal.User, access.Member, nil)
		w.denied(err, problem.InsufficientScope, "only an owner")
		_, err = w.desk.RemoveMember(ctx, oscar, olga.Principal.User, nil)
		w.denied(err, problem.InsufficientScope, "only an owner")
		_, _, err = w.desk.Invite(ctx, oscar, admin.Invite{Email: "x@example.com", Role: access.Owner})
		w.denied(err, problem.InsufficientScope, "only an owner")

		_, err = w.desk.ChangeRole(ctx, olga, oscar.Principal.User, access.Member, []string{kept.Key.ID})
		w.must(err)
		w.refused(key.Secret, "revoked")
		w.allow(kept.Secret)
		_, err = w.desk.InvitedWith(ctx, members, "")
		w.denied(err, problem.NotFound, "does not hold")
		_, err = w.desk.RemoveMember(ctx, oscar, olga.Principal.User, nil)
		w.denied(err, problem.InsufficientScope, "only owners and admins")
	})
}

// Two owners who remove or demote each other at once leave one.
func TestLastOwnerStaysInARace(t *testing.T) {
	for name, do := range map[string]func(w *world, g access.Grant, user string) error{
		"remove": func(w *world, g access.Grant, user string) error {
			_, err := w.desk.RemoveMember(w.t.Context(), g, user, nil)
			return err
		},
		"demote": func(w *world, g access.Grant, user string) error {
			_, err := w.desk.ChangeRole(w.t.Context(), g, user, access.Member, nil)
			return err
		},
		"leave": func(w *world, g access.Grant, user string) error {
			_, err := w.desk.RemoveMember(w.t.Context(), g, g.Principal.User, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachWorld(t, func(w *world) {
				for range 4 {
					a, b := w.member("a@example.com", access.Owner), w.member("b@example.com", access.Owner)
					ga, gb := w.browser(a.Email), w.browser(b.Email)
					var errs [2]error
					var wg sync.WaitGroup
					wg.Go(func() { errs[0] = do(w, ga, b.ID) })
					wg.Go(func() { errs[1] = do(w, gb, a.ID) })
					wg.Wait()
					users, err := w.db.Users(w.t.Context(), w.ws.ID)
					w.must(err)
					owners := 0
					for _, u := range users {
						if u.Role == access.Owner {
							owners++
						}
					}
					if owners != 1 || errs[0] == nil && errs[1] == nil {
						w.t.Fatalf("got %d owners, %v and %v, want one owner and one refusal", owners, errs[0], errs[1])
					}
				}
			})
		})
	}
}

// Whatever a credential holds, it only asks: a person decides over people, and no
// key does.
func TestPeopleDecideOverPeople(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.member("olga@example.com", access.Owner)
		mo := w.member("mo@example.com", access.Member)
		adam := w.member("adam@example.com", access.Admin)
		olga := w.browser("olga@example.com")
		_, agent := w.make(olga, rights("full"))
		_, decider := w.make(w.op, rights("decide"))
		_, scoped := w.make(olga, rights("users:delete"))
		app := w.selfRegistered("cli_"+typeid.NewID("x")[2:], oauth.Dynamic)
		_, err := w.desk.UpdateClient(ctx, olga, app, admin.ClientInput{Scopes: ptr([]string{"users:delete", "company:write"})})
		w.must(err)
		client := w.today(w.grantOf(app, access.User{ID: olga.Principal.User}, "users:delete company:write").ID)
		for i, g := range []access.Grant{agent, decider, scoped, client} {
			w.mails()
			email := fmt.Sprintf("new%d@example.com", i)
			invited := w.proposes(g, "invite_user", "", `{"email":"`+email+`","role":"admin","reason":"They start on Monday."}`)
			promoted := w.proposes(g, "update_user_role", mo.ID, `{"role":"admin"}`)
			removed := w.proposes(g, "remove_user", adam.ID, `{}`)
			if n := len(w.mails()); n != 0 {
				w.t.Errorf("%d messages were sent before anybody has decided", n)
			}
			for _, a := range []approvals.Approval{invited, promoted, removed} {
				for _, key := range []access.Grant{agent, decider, scoped, client} {
					if _, err := w.s.Gate.Approve(ctx, key, a.ID, approvals.Seen{}); !problem.Is(err, problem.InsufficientScope) && !problem.Is(err, problem.NotFound) {
						w.t.Errorf("%s decides %s: got %v, want it refused", key.Principal.Name, a.Action, err)
					}
				}
				if _, err := w.s.Gate.Approve(ctx, w.browser("mo@example.com"), a.ID, approvals.Seen{}); err == nil {
					w.t.Errorf("a member decides %s", a.Action)
				}
			}
			// None of them touches an owner, or makes one, with whosever approval.
			for action, input := range map[string]string{"update_user_role": `{"role":"member"}`, "remove_user": `{}`} {
				_, err := w.through(g, action, olga.Principal.User, input)
				w.denied(err, problem.InsufficientScope, "only an owner in person")
			}
			_, err := w.through(g, "update_user_role", mo.ID, `{"role":"owner"}`)
			w.denied(err, problem.InsufficientScope, "only an owner in person")
			_, err = w.through(g, "invite_user", "", `{"email":"boss@example.com","role":"owner"}`)
			w.denied(err, problem.InsufficientScope, "only an owner in person")

			// Nor does an edit make more of it.
			_, err = w.s.Gate.Approve(ctx, olga, invited.ID, approvals.Seen{Edited: []byte(`{"email":"` + email + `","role":"owner"}`)})
			if err == nil {
				w.t.Error("an edit made a key's invitation one of an owner")
			}
			card, err := w.s.Gate.Card(ctx, olga, removed.ID)
			w.must(err)
			if len(card.Facts) < 2 || card.Facts[0].Proposed != nil || card.Blocked() || !card.MayDecide || card.MayLend {
				w.t.Errorf("the card of a removal: got %+v", card.Facts)
			}
			a, err := w.s.Gate.Approve(ctx, olga, invited.ID, approvals.Seen{})
			w.must(err)
			sent := w.mails()
			if a.Execution != approvals.Done || len(sent) != 1 || sent[0].To != email || strings.Contains(string(a.Result), "token") {
				w.t.Errorf("approved: got %s %s and %d messages", a.Execution, a.Result, len(sent))
			}
			_, err = w.s.Gate.Reject(ctx, olga, promoted.ID, "No.")
			w.must(err)
			_, err = w.s.Gate.Reject(ctx, olga, removed.ID, "No.")
			w.must(err)
		}
		a, err := w.s.Gate.Approve(ctx, olga, w.proposes(agent, "update_user_role", adam.ID, `{"role":"member"}`).ID, approvals.Seen{})
		w.must(err)
		b, err := w.s.Gate.Approve(ctx, olga, w.proposes(agent, "remove_user", mo.ID, `{}`).ID, approvals.Seen{})
		w.must(err)
		if a.Execution != approvals.Done || b.Execution != approvals.Done || w.roles() != "adam:member olga:owner" {
			w.t.Errorf("got %v %v: %s", a.Error, b.Error, w.roles())
		}
		// Taking an invitation back and reading need nobody.
		if out, err := w.through(agent, "cancel_invitation", "", `{"email":"new1@example.com"}`); err != nil || out.Approval != nil {
			w.t.Errorf("cancel: got %+v, %v", out.Approval, err)
		}
		seen := map[string]bool{}
		for cursor := ""; ; {
			input := `{"limit":1}`
			if cursor != "" {
				input = `{"limit":1,"cursor":"` + cursor + `"}`
			}
			out, err := w.through(agent, "list_invitations", "", input)
			w.must(err)
			seen[string(out.Result.Data)] = true
			if cursor = out.Result.Pagination.NextCursor; cursor == "" {
				break
			}
		}
		if len(seen) != 3 {
			w.t.Errorf("got %d pages of one invitation each, want 3", len(seen))
		}
	})
}

// A person who asks through the Gate, should there be such a door, and a service
// that is called without it, are held by the same rule.
func TestPeopleDecideHoldsBehindTheGate(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.member("olga@example.com", access.Owner)
		_, agent := w.make(w.op, rights("full"))
		a, _ := w.s.Catalog.Find("invite_user")
		in, err := a.Decode("", []byte(`{"email":"x@example.com"}`))
		w.must(err)
		err = storage.InTx[catalog.Store](w.db)(w.t.Context(), func(tx catalog.Store) error {
			_, err := a.Run(w.t.Context(), tx, catalog.Call{Grant: agent, Input: in, Now: w.clock.Now()})
			return err
		})
		w.denied(err, problem.InsufficientScope, "waits for a person")
	})
}

// Nobody gets above their own role, whatever people, keys and links do in
// whatever order, and there is always an owner.
func TestNobodyRisesAboveTheirRole(t *testing.T) {
	eachEmptyWorld(t, func(w *world) {
		ctx := w.t.Context()
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			n++
			var err error
			w.ws, err = w.desk.CreateWorkspace(ctx, fmt.Sprint("W", n), "UTC")
			w.must(err)
			w.op = admin.OperatorGrant(w.ws)
			names := []string{"a", "b", "c", "d"}
			email := func(name string) string { return fmt.Sprintf("%s%d@example.com", name, n) }
			w.member(email("a"), access.Owner)
			w.member(email("b"), access.Admin)
			w.member(email("c"), access.Member)
			_, key := w.make(w.op, rights("full"))
			var links []string
			role := rapid.SampledFrom([]access.Role{access.Owner, access.Admin, access.Member})
			state := func() (map[string]access.Role, int) {
				users, err := w.db.Users(ctx, w.ws.ID)
				w.must(err)
				of, owners := map[string]access.Role{}, 0
				for _, u := range users {
					of[u.ID] = u.Role
					if u.Role == access.Owner {
						owners++
					}
				}
				return of, owners
			}
			for range rapid.IntRange(1, 8).Draw(rt, "steps") {
				before, _ := state()
				actor := access.Grant{}
				mine := access.Role("")
				if who := rapid.SampledFrom(append(names, "key")).Draw(rt, "actor"); who == "key" {
					actor, mine = key, access.Admin
				} else {
					u, _, err := w.db.UserByEmail(ctx, email(who))
					if err != nil || before[u.ID] == "" {
						continue
					}
					actor, mine = w.browser(u.Email), before[u.ID]
				}
				target, _, _ := w.db.UserByEmail(ctx, email(rapid.SampledFrom(names).Draw(rt, "target")))
				r := role.Draw(rt, "role")
				approved := func(action, id, input string) error {
					out, err := w.through(actor, action, id, input)
					if err != nil || out.Approval == nil {
						return errors.Join(err, fmt.Errorf("%s ran at once", action))
					}
					_, err = w.s.Gate.Approve(ctx, w.op, out.Approval.ID, approvals.Seen{})
					return err
				}
				op := rapid.SampledFrom([]string{"role", "remove", "invite", "accept"}).Draw(rt, "op")
				switch isKey := actor.Key != nil; {
				case op == "role" && isKey:
					approved("update_user_role", target.ID, `{"role":"`+string(r)+`"}`)
				case op == "role":
					w.desk.ChangeRole(ctx, actor, target.ID, r, nil)
				case op == "remove" && isKey:
					approved("remove_user", target.ID, `{}`)
				case op == "remove":
					w.desk.RemoveMember(ctx, actor, target.ID, nil)
				case op == "invite" && isKey:
					approved("invite_user", "", `{"email":"`+email("d")+`","role":"`+string(r)+`"}`)
				case op == "invite":
					if _, link, err := w.desk.Invite(ctx, actor, admin.Invite{Email: email("d"), Role: r}); err == nil {
						if !r.AtMost(mine) {
							rt.Fatalf("%s has invited somebody as %s", mine, r)
						}
						links = append(links, strings.TrimPrefix(link, "https://crm.example.com/invite?token="))
					}
				case len(links) > 0:
					link := links[len(links)-1]
					v, err := w.desk.InvitedWith(ctx, link, fmt.Sprint(time.Now().UnixNano()))
					if err != nil {
						continue
					}
					if v.User != "" {
						p, err := w.desk.Person(ctx, v.User)
						w.must(err)
						w.desk.AcceptAs(ctx, p, link, "")
					} else {
						w.desk.Accept(ctx, admin.Acceptance{Token: link, Name: "D", Password: fresh, Address: fmt.Sprint(time.Now().UnixNano())})
					}
					mine = v.Role // as far as the one who gave it
				}
				after, owners := state()
				if owners == 0 {
					rt.Fatalf("%s by %s: no owner is left", op, mine)
				}
				waiting, err := w.db.Invitations(ctx, w.ws.ID)
				w.must(err)
				for _, i := range waiting {
					if inviter := after[i.By.User]; i.By.Kind == access.KindPerson && (!access.Admin.AtMost(inviter) || !i.Role.AtMost(inviter)) {
						rt.Fatalf("after %s a link of %s, by somebody who is %q now, still holds", op, i.Role, inviter)
					}
				}
				for id, was := range before {
					if now := after[id]; now != was && (!was.AtMost(mine) || now != "" && !now.AtMost(mine)) {
						rt.Fatalf("%s by %s: %s became %q", op, mine, was, now)
					}
				}
				for id, now := range after {
					if before[id] == "" && !now.AtMost(mine) {
						rt.Fatalf("%s by %s: somebody new is %s", op, mine, now)
					}
				}
			}
		})
	})
}

func TestCompanyAndBilling(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.member("olga@example.com", access.Owner)
		olga := w.browser("olga@example.com")
		_, agent := w.make(olga, rights("full"))
		_, asking := w.make(olga, rights("company:write-approval billing:read"))
		out, err := w.through(agent, "update_company", "", `{"name":" Harbour ","time_zone":"Asia/Tokyo","support_url":"mailto:help@example.com"}`)
		w.must(err)
		if got := string(out.Result.Data); !strings.Contains(got, `"name":"Harbour"`) || !strings.Contains(got, `"sends_per_day":200`) || !strings.Contains(got, `"approval_hours":168`) {
			w.t.Errorf("got %s", got)
		}
		// The rules that bind credentials are not for them, and not after approval.
		for _, g := range []access.Grant{agent, asking} {
			for _, member := range []string{"plan", "approval_hours", "people_only", "four_eyes", "always_ask", "sends_per_day", "self_registration", "client_hosts"} {
				_, err := w.through(g, "update_company", "", `{"name":"x","`+member+`":null}`)
				w.denied(err, problem.Validation, member)
				if !strings.Contains(err.Error(), "change") {
					w.t.Errorf("%s: got %v, want it to say who changes it", member, err)
				}
			}
		}
		a := w.proposes(asking, "update_company", "", `{"name":"Pine"}`)
		if _, err := w.s.Gate.Approve(ctx, olga, a.ID, approvals.Seen{Edited: []byte(`{"name":"Pine","people_only":false}`)}); !problem.Is(err, problem.Validation) {
			w.t.Errorf("an edit with a rule: got %v, want %s", err, problem.Validation)
		}
		card, err := w.s.Gate.Card(ctx, olga, a.ID)
		w.must(err)
		if len(card.Facts) == 0 || string(card.Facts[0].Current) != `"Harbour"` || string(card.Facts[0].Proposed) != `"Pine"` {
			w.t.Errorf("the card: got %+v", card.Facts)
		}
		_, err = w.s.Gate.Approve(ctx, olga, a.ID, approvals.Seen{})
		w.must(err)
		for _, wrong := range []string{`{"name":"\u0007"}`, `{"time_zone":"Mars"}`, `{"time_zone":"../etc/passwd"}`, `{"support_url":"javascript:alert(1)"}`, `{"name":null}`, `{}`, `{"time_zone":null}`} {
			if _, err := w.through(agent, "update_company", "", wrong); !problem.Is(err, problem.Validation) {
				w.t.Errorf("%s: got %v, want %s", wrong, err, problem.Validation)
			}
		}
		_, err = w.through(agent, "update_company", "", `{"support_url":null}`)
		w.must(err)

		change := func(g access.Grant, sends int64) error {
			_, err := w.desk.ChangeCompany(ctx, g, admin.CompanyChange{SendsPerDay: &sends})
			return err
		}
		w.must(change(olga, 0))
		w.denied(change(agent, 5), problem.InsufficientScope, "only a person")
		w.denied(change(olga, -1), problem.Validation, "")
		w.denied(change(olga, access.MaxSendsPerDay+1), problem.Validation, "")
		got, err := w.db.Workspace(ctx, w.ws.ID)
		w.must(err)
		if got.Name != "Pine" || got.TimeZone != "Asia/Tokyo" || got.Settings.SupportURL != "" || got.Settings.SendCap() != 0 {
			w.t.Errorf("got %+v", got)
		}

		w.must(w.db.AddUsage(ctx, []access.Count{{Workspace: w.ws.ID, Credential: agent.Principal.ID, Hour: w.clock.Now().Truncate(time.Hour), Action: "x", Outcome: access.OutcomeOK, N: 7}}, nil))
		out, err = w.through(asking, "get_billing", "", `{}`)
		w.must(err)
		for _, want := range []string{`"plan":"pro"`, `"calls_today":7`, `"calls_30_days":7`, `"members":1`, `"keys":2`, `"calls_per_day":10000`, `"sends_per_day_of_a_credential":0`} {
			if !strings.Contains(string(out.Result.Data), want) {
				w.t.Errorf("billing: got %s, want %s in it", out.Result.Data, want)
			}
		}
		_, err = w.through(asking, "list_users", "", `{}`)
		w.denied(err, problem.InsufficientScope, "users:read")
	})
}
