package admin_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/jobs/jobstest"
	"trustpager/problem"
)

// tell lets time pass, does what tells people of approvals as often as it is
// due, and returns the messages.
func (w *world) tell(d time.Duration) []integrations.Message {
	w.t.Helper()
	w.clock.Advance(d)
	for _, e := range jobstest.Do(w.t, w.db, w.clock.Now, admin.NoticeKind, w.desk.Notices()) {
		w.must(e.Err)
	}
	return w.mails()
}

func to(mails []integrations.Message) string {
	var all []string
	for _, m := range mails {
		all = append(all, m.To)
	}
	return strings.Join(all, " ")
}

func (w *world) notice(u access.User, n access.Notice) {
	w.t.Helper()
	p, err := w.desk.Person(w.t.Context(), u.ID)
	w.must(err)
	w.must(w.desk.SetNotice(w.t.Context(), p, w.ws.ID, n))
}

// asked is what a key asks for, with the server told of it.
func (w *world) asked(g access.Grant, first string) approvals.Approval {
	w.t.Helper()
	a := w.ask(g, first)
	w.must(w.desk.ExpectNotices(w.t.Context()))
	return a
}

func TestPeopleAreToldOfApprovals(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.withPassword("ada@example.com", "right", access.Owner)
		bob := w.withPassword("bob@example.com", "right", access.Admin)
		w.withPassword("cy@example.com", "right", access.Member) // decides nothing of a key
		w.notice(bob, access.NoticeOff)
		_, key := w.key("contacts:write-approval")
		if got := w.tell(0); len(got) > 0 {
			w.t.Fatalf("got %+v before anything was asked", got)
		}

		// A burst is one message.
		var all []approvals.Approval
		for i := range 23 {
			all = append(all, w.asked(key, fmt.Sprintf("P%02d\u202egnp.exe", i)))
		}
		if got := w.tell(30 * time.Second); len(got) > 0 {
			w.t.Errorf("got %s after half a minute, want what comes within a minute gathered", to(got))
		}
		sent := w.tell(40 * time.Second)
		if to(sent) != "ada@example.com" {
			w.t.Fatalf("told %q, want Ada alone", to(sent))
		}
		m := sent[0]
		if m.Subject != "23 approvals wait for you" || m.Member != ada.ID || !m.Until.Equal(all[22].ExpiresAt) {
			w.t.Errorf("got %+v", m)
		}
		for i, a := range all {
			if listed := strings.Contains(m.Body, "https://crm.example.com/settings/api/approvals/"+a.ID) ||
				strings.Contains(m.Body, w.s.Gate.URL(a)); listed != (i < 20) {
				w.t.Errorf("approval %d is listed: %v", i, listed)
			}
		}
		if !strings.Contains(m.Body, "… and 3 more") || strings.Contains(m.Body, "\u202e") || !strings.Contains(m.Body, "create_contact") {
			w.t.Errorf("body = %s", m.Body)
		}
		if got := w.tell(time.Hour); len(got) > 0 {
			w.t.Errorf("told again: %+v", got)
		}

		// One who joins late is told of what waits; who is off is not.
		w.notice(bob, access.NoticeImmediately)
		if got := w.tell(time.Minute); to(got) != "bob@example.com" {
			w.t.Errorf("told %q, want Bob", to(got))
		}

		// What was decided in time is nobody's message.
		a := w.asked(key, "Gone")
		_, err := w.s.Gate.Reject(w.t.Context(), w.person(ada.ID), a.ID, "no")
		w.must(err)
		if got := w.tell(2 * time.Minute); len(got) > 0 {
			w.t.Errorf("told of what is decided: %+v", got)
		}
	})
}

func TestDigests(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.withPassword("ada@example.com", "right", access.Owner)
		bob := w.withPassword("bob@example.com", "right", access.Admin)
		w.notice(ada, access.NoticeHourly)
		w.notice(bob, access.NoticeDaily)
		_, key := w.key("contacts:write-approval")
		berlin, err := time.LoadLocation(w.ws.TimeZone)
		w.must(err)
		begin := w.clock.Now()
		eight := time.Date(begin.In(berlin).Year(), begin.In(berlin).Month(), begin.In(berlin).Day()+1, 8, 0, 0, 0, berlin)

		w.asked(key, "One")
		var got []string
		for w.clock.Now().Before(eight.Add(2 * time.Hour)) {
			if w.clock.Now().Sub(begin) == 30*time.Minute {
				w.asked(key, "Two")
			}
			for _, m := range w.tell(5 * time.Minute) {
				got = append(got, m.To[:3]+" "+m.Subject)
				switch after := w.clock.Now().Sub(begin); {
				case m.To == ada.Email && (after < time.Hour || after > 70*time.Minute):
					w.t.Errorf("Ada is told after %v, want about an hour", after)
				case m.To == bob.Email && (w.clock.Now().Before(eight) || w.clock.Now().After(eight.Add(10*time.Minute))):
					w.t.Errorf("Bob is told at %v, want %v", w.clock.Now().In(berlin), eight)
				}
			}
		}
		want(w.t, "messages", strings.Join(got, "; "), "ada 2 approvals wait for you; bob 2 approvals wait for you")
	})
}

func TestPeopleAreWarnedBeforeTheEnd(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		_, key := w.key("contacts:write-approval")
		a := w.asked(key, "Slow")
		if got := w.tell(2 * time.Minute); len(got) != 1 {
			w.t.Fatalf("got %+v, want one message", got)
		}
		if got := w.tell(a.ExpiresAt.Add(-24*time.Hour - time.Minute).Sub(w.clock.Now())); len(got) > 0 {
			w.t.Errorf("warned too early: %+v", got)
		}
		got := w.tell(5 * time.Minute)
		if len(got) != 1 || got[0].Subject != "An approval waits for you, and soon no more" || !strings.Contains(got[0].Body, "Expires within 24 hours") || !strings.Contains(got[0].Body, w.s.Gate.URL(a)) {
			w.t.Fatalf("got %+v, want a warning", got)
		}
		if got := w.tell(23 * time.Hour); len(got) > 0 {
			w.t.Errorf("warned twice: %+v", got)
		}
	})
}

// Who asks and withdraws all the time does not fill mailboxes, and who may see
// less by the time of sending gets nothing.
func TestFloodOfNotices(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.withPassword("ada@example.com", "right", access.Owner)
		bob := w.withPassword("bob@example.com", "right", access.Admin)
		w.notice(ada, access.NoticeOff)
		_, key := w.key("contacts:write-approval")
		sent := 0
		for i := range 60 {
			a := w.asked(key, fmt.Sprint("P", i))
			sent += len(w.tell(70 * time.Second))
			_, err := w.s.Gate.Withdraw(w.t.Context(), key, a.ID)
			w.must(err)
		}
		if sent < 2 || sent > 14 {
			w.t.Errorf("%d messages in 70 minutes, want at most one in 5", sent)
		}
		w.asked(key, "Secret")
		w.clock.Advance(10 * time.Minute)
		jobstest.Do(w.t, w.db, w.clock.Now, admin.NoticeKind, w.desk.Notices())
		w.must(w.db.SetMember(w.t.Context(), w.ws.ID, bob.ID, access.Member, w.clock.Now()))
		if ok, err := w.s.Mail.IsMember(w.t.Context(), w.ws.ID, bob.ID, w.mails()[0].Role); ok || err != nil {
			w.t.Errorf("got %v, %v: who is no admin any more would be told", ok, err)
		}
	})
}

// Two nodes that look at the same moment send one message.
func TestOneNodeTells(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		_, key := w.key("contacts:write-approval")
		w.ask(key, "One")
		w.clock.Advance(2 * time.Minute)
		var both sync.WaitGroup
		for range 8 {
			both.Go(func() { w.desk.Notices().Handle(w.t.Context(), jobs.Job{}) })
		}
		both.Wait()
		if got := w.mails(); len(got) != 1 {
			w.t.Errorf("%d messages, want 1", len(got))
		}
	})
}

func TestNoticeOfAnotherKindIsRefused(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.withPassword("ada@example.com", "right", access.Owner)
		p, err := w.desk.Person(w.t.Context(), ada.ID)
		w.must(err)
		w.denied(w.desk.SetNotice(w.t.Context(), p, w.ws.ID, "weekly"), problem.Validation, "notice")
		w.denied(w.desk.SetNotice(w.t.Context(), p, "ws_other", access.NoticeOff), problem.NotFound, "ws_other")
	})
}
