package admin_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/integrations"
	"trustpager/problem"
	"trustpager/storage/storagetest"
)

// mails takes the messages that wait to be sent.
func (w *world) mails() []integrations.Message {
	w.t.Helper()
	now := w.clock.Now()
	claimed, err := w.db.ClaimJobs(w.t.Context(), integrations.MailKind, now, now.Add(time.Minute), "test", 1000)
	w.must(err)
	var all []integrations.Message
	for _, j := range claimed {
		var sealed string
		w.must(json.Unmarshal(j.Payload, &sealed))
		plain, err := storagetest.Key.Open(sealed, "mail "+j.ID)
		w.must(err)
		var m integrations.Message
		w.must(json.Unmarshal(plain, &m))
		all = append(all, m)
		w.must(w.db.FinishJob(w.t.Context(), j))
	}
	return all
}

var resetLink = regexp.MustCompile(`https://crm\.example\.com/reset\?token=([A-Za-z0-9_-]{43})\n`)

// forgot asks for a link and returns its token, "" if no message was sent.
func (w *world) forgot(email, address string) string {
	w.t.Helper()
	w.must(w.desk.ForgotPassword(w.t.Context(), email, address))
	sent := w.mails()
	if len(sent) == 0 {
		return ""
	}
	m := resetLink.FindStringSubmatch(sent[0].Body)
	if len(sent) > 1 || m == nil {
		w.t.Fatalf("got %+v, want one message with a link", sent)
	}
	return m[1]
}

const fresh = "kitchen plumb orbit"

func TestForgottenPassword(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada := w.withPassword("ada@example.com", "right", access.Owner)
		before := w.login(ada.Email, "right", "")
		w.must(w.desk.ForgotPassword(ctx, " ADA@example.com", "192.0.2.1"))
		sent := w.mails()
		if len(sent) != 1 || sent[0].To != ada.Email || sent[0].Member != "" || !sent[0].Until.Equal(w.clock.Now().Add(time.Hour)) || !strings.Contains(sent[0].Body, "192.0.2.1") {
			w.t.Fatalf("got %+v, want one message to Ada that holds for an hour", sent)
		}
		token := resetLink.FindStringSubmatch(sent[0].Body)[1]
		if p, err := w.desk.ResetWith(ctx, token); err != nil || p.User.ID != ada.ID {
			w.t.Errorf("ResetWith = %+v, %v", p, err)
		}
		_, err := w.desk.ResetPassword(ctx, token, "ada@example.com")
		w.denied(err, problem.Validation, "cannot be like that")
		p, err := w.desk.ResetPassword(ctx, token, fresh)
		w.must(err)
		if p.Stamp == before.Stamp {
			w.t.Error("the stamp is the one of before, want the sessions to end")
		}
		w.refusedLogin(ada.Email, "right", "")
		w.login(ada.Email, fresh, "")
		_, err = w.desk.ResetPassword(ctx, token, fresh+" 2")
		w.denied(err, problem.NotFound, "does not hold")
		want(w.t, "events", w.events(ada.ID), "user.created person.login person.forgot user.changed person.login_refused person.login")

		for _, other := range []string{"nobody@example.com", "", "\x00", "\xff", strings.Repeat("x", 400)} {
			want(w.t, "message to "+other, w.forgot(other, "192.0.2.1"), "")
		}
	})
}

func TestResetLinkEnds(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada := w.withPassword("ada@example.com", "right", access.Member)
		hash, err := access.HashPassword("other")
		w.must(err)
		for name, end := range map[string]func(){
			"after an hour":             func() { w.clock.Advance(time.Hour) },
			"when the operator sets":    func() { w.must(w.desk.SetPassword(ctx, w.op, ada.Email, hash)) },
			"when another link is used": func() { _, err := w.desk.ResetPassword(ctx, w.forgot(ada.Email, ""), fresh); w.must(err) },
			"when the person changes": func() {
				w.must(w.desk.SetPassword(ctx, w.op, ada.Email, hash))
				token := w.forgot(ada.Email, "")
				p, err := w.desk.Person(ctx, ada.ID)
				w.must(err)
				_, err = w.desk.ChangePassword(ctx, p, admin.PasswordChange{Present: "other", New: fresh})
				w.must(err)
				_, err = w.desk.ResetWith(ctx, token)
				w.denied(err, problem.NotFound, "does not hold")
			},
		} {
			w.clock.Advance(2 * time.Hour)
			token := w.forgot(ada.Email, "")
			end()
			for _, do := range []func() error{
				func() error { _, err := w.desk.ResetWith(ctx, token); return err },
				func() error { _, err := w.desk.ResetPassword(ctx, token, fresh+" 3"); return err },
			} {
				if err := do(); !problem.Is(err, problem.NotFound) {
					w.t.Errorf("%s: got %v, want the link not to hold", name, err)
				}
			}
		}
		for _, bad := range []string{"", "x", strings.Repeat("A", 43), "\x00"} {
			_, err := w.desk.ResetPassword(ctx, bad, fresh)
			w.denied(err, problem.NotFound, "does not hold")
		}
	})
}

func TestOfManyResetsOneWins(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.withPassword("ada@example.com", "right", access.Member)
		one, two := w.forgot(ada.Email, ""), w.forgot(ada.Email, "")
		var won atomic.Int32
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				token := one
				if i%2 == 1 {
					token = two
				}
				_, err := w.desk.ResetPassword(w.t.Context(), token, fmt.Sprint(fresh, " ", i))
				if err == nil {
					won.Add(1)
				} else if !problem.Is(err, problem.NotFound) {
					w.t.Errorf("got %v, want the link not to hold", err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			w.t.Errorf("%d of 16 resets have won, want 1", won.Load())
		}
	})
}

func TestForgottenPasswordIsThrottled(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada := w.withPassword("ada@example.com", "right", access.Member)
		for i := range 5 {
			if sent := w.forgot(ada.Email, "192.0.2.1") != ""; sent != (i < 3) {
				w.t.Errorf("try %d: sent %v, want three messages an hour", i+1, sent)
			}
		}
		for _, email := range []string{ada.Email, "ADA@example.com"} {
			w.denied(w.desk.ForgotPassword(ctx, email, "192.0.2.2"), problem.RateLimited, "too many tries")
		}
		for range 5 { // who does not exist is throttled alike
			w.must(w.desk.ForgotPassword(ctx, "nobody@example.com", "192.0.2.3"))
		}
		w.denied(w.desk.ForgotPassword(ctx, "nobody@example.com", "192.0.2.4"), problem.RateLimited, "too many tries")
		for i := range 20 {
			w.must(w.desk.ForgotPassword(ctx, fmt.Sprintf("u%d@example.com", i), "192.0.2.5"))
		}
		w.denied(w.desk.ForgotPassword(ctx, "new@example.com", "192.0.2.5"), problem.RateLimited, "too many tries")
		w.must(w.desk.ForgotPassword(ctx, "new@example.com", "192.0.2.6"))
		w.clock.Advance(time.Hour)
		if w.forgot(ada.Email, "192.0.2.1") == "" {
			w.t.Error("an hour later: no message, want one")
		}
	})
}

func TestChangePassword(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada := w.withPassword("ada@example.com", "right", access.Member)
		p := w.login(ada.Email, "right", "")
		change := func(present, next string) (admin.Person, error) {
			return w.desk.ChangePassword(ctx, p, admin.PasswordChange{Present: present, New: next, Address: "192.0.2.1"})
		}
		for _, tt := range []struct{ present, next, paths string }{
			{"wrong", fresh, "present"}, {"", fresh, "present"}, {strings.Repeat("x", 2000), fresh, "present"},
			{"right", "short", "password"}, {"wrong", "short", "present password"}, {"right", "ada@example.com", "password"},
		} {
			_, err := change(tt.present, tt.next)
			w.denied(err, problem.Validation, "cannot be like that")
			var paths []string
			for _, f := range problem.Of(err).Fields {
				paths = append(paths, f.Path)
			}
			want(w.t, "fields", strings.Join(paths, " "), tt.paths)
		}
		after, err := change("right", fresh)
		w.must(err)
		if after.Stamp == p.Stamp || after.User.ID != ada.ID {
			w.t.Errorf("got %+v, want another stamp", after)
		}
		w.login(ada.Email, fresh, "")
		_, err = change("right", fresh+" 2") // from a session that has ended
		w.denied(err, problem.Validation, "cannot be like that")
		_, err = change(fresh, fresh+" 2")
		w.denied(err, problem.Conflict, "changed meanwhile")

		p = after
		for range 10 {
			_, err = change("wrong", fresh)
			w.denied(err, problem.Validation, "")
		}
		_, err = change(fresh, fresh+" 2")
		w.denied(err, problem.RateLimited, "too many wrong passwords")
	})
}

func TestRename(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada := w.withPassword("ada@example.com", "right", access.Member)
		p := w.login(ada.Email, "right", "")
		w.must(w.desk.Rename(ctx, p, " Ada King "))
		p, err := w.desk.Person(ctx, ada.ID)
		w.must(err)
		want(w.t, "name", p.User.Name, "Ada King")
		for _, bad := range []string{"", "  ", "a\nb", strings.Repeat("x", 101), "\xff"} {
			w.denied(w.desk.Rename(ctx, p, bad), problem.Validation, "the name cannot be like that")
		}
		want(w.t, "events", w.events(ada.ID), "user.created person.login user.changed")
	})
}
