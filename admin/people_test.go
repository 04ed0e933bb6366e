package admin_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/storage"
)

// withPassword makes a person who can log in.
func (w *world) withPassword(email, password string, role access.Role) access.User {
	w.t.Helper()
	hash, err := access.HashPassword(password)
	w.must(err)
	u, err := w.desk.AddUser(w.t.Context(), w.op, email, "", hash, role)
	w.must(err)
	return u
}

// refusedLogin checks that the login is refused with the one text.
func (w *world) refusedLogin(email, password, address string) {
	w.t.Helper()
	p, err := w.desk.Login(w.t.Context(), admin.LoginTry{Email: email, Password: password, Address: address})
	w.denied(err, problem.Unauthorized, "the e-mail address or the password is not right")
	if p.User.ID != "" || p.Memberships != nil || p.Stamp != "" {
		w.t.Errorf("got %+v with the refusal, want nobody", p)
	}
}

// throttled checks that the login is not even tried, and returns when to try
// again.
func (w *world) throttled(email, password, address string) time.Duration {
	w.t.Helper()
	_, err := w.desk.Login(w.t.Context(), admin.LoginTry{Email: email, Password: password, Address: address})
	w.denied(err, problem.RateLimited, "too many tries")
	if err == nil {
		return 0
	}
	wait := problem.Of(err).RetryAfter
	if wait <= 0 {
		w.t.Errorf("got Retry-After %v, want a time", wait)
	}
	return wait
}

func (w *world) login(email, password, address string) admin.Person {
	w.t.Helper()
	p, err := w.desk.Login(w.t.Context(), admin.LoginTry{Email: email, Password: password, Address: address})
	w.must(err)
	return p
}

func TestLogin(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada := w.withPassword("ada@example.com", "right", access.Owner)
		w.member("none@example.com", access.Member) // has no password
		two, err := w.desk.CreateWorkspace(ctx, "Another", "UTC")
		w.must(err)
		_, err = w.desk.AddUser(ctx, admin.OperatorGrant(two), ada.Email, "", "", access.Member)
		w.must(err)

		p := w.login(" ADA@example.com\n", "right", "192.0.2.1")
		if p.User.ID != ada.ID || p.User.Role != "" || len(p.Memberships) != 2 || p.Memberships[0].Workspace.ID != two.ID || p.Memberships[1].Role != access.Owner || p.Stamp == "" {
			w.t.Errorf("got %+v, want Ada with both workspaces by name", p)
		}
		w.refusedLogin(ada.Email, "wrong", "192.0.2.1")
		w.refusedLogin(ada.Email, "", "192.0.2.1")
		w.refusedLogin(ada.Email, "Right", "192.0.2.1")
		w.refusedLogin(ada.Email, "right ", "192.0.2.1")
		w.refusedLogin("nobody@example.com", "right", "192.0.2.1")
		w.refusedLogin("none@example.com", "right", "192.0.2.1")
		w.refusedLogin("none@example.com", "", "192.0.2.1")
		w.refusedLogin("", "", "192.0.2.1")
		w.must(w.desk.Logout(ctx, p))

		for _, ws := range []access.Workspace{w.ws, two} {
			_, err := w.db.VerifyAudit(ctx, ws.ID)
			w.must(err)
			entries, err := w.db.AuditEntries(ctx, ws.ID, audit.Query{Target: ada.ID, Limit: 100})
			w.must(err)
			count := map[audit.Event]int{}
			for _, e := range entries {
				count[e.Event]++
				if strings.Contains(string(e.Detail), "right") || strings.Contains(string(e.Detail), "wrong") {
					w.t.Errorf("%s: got the detail %s, want no password", e.Event, e.Detail)
				}
				if e.Event == audit.PersonRefused && !strings.Contains(string(e.Detail), "192.0.2.1") {
					w.t.Errorf("got the detail %s, want the address", e.Detail)
				}
			}
			if count[audit.PersonLogin] != 1 || count[audit.PersonRefused] != 4 || count[audit.PersonLogout] != 1 {
				w.t.Errorf("%s: got %v, want a login, 4 refusals and a logout", ws.Name, count)
			}
		}
	})
}

func TestStrangeLogins(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		long := strings.Repeat("x", 1<<20)
		for i, tt := range [][2]string{
			{long, "right"}, {"ada@example.com", long}, {"ada@example.com\x00", "right"}, {"\x00", ""}, {"ada@example.com", "right\x00"},
			{"ada\xff@example.com", "right"}, {"\xff\xfe", "\xff"}, {"ada@example.com", "\xff"}, {strings.Repeat("x", 321), ""},
		} {
			w.refusedLogin(tt[0], tt[1], fmt.Sprint("192.0.2.", i))
		}
		w.login("ada@example.com", "right", "")
	})
}

func TestTriesAtAnAccountAreThrottled(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		const here, there = "192.0.2.1", "192.0.2.2"
		for range 9 {
			w.refusedLogin("ada@example.com", "wrong", here)
		}
		w.login("ada@example.com", "right", here) // clears what was wrong
		for range 10 {
			w.refusedLogin("ada@example.com", "wrong", here)
		}
		wait := w.throttled("ADA@example.com ", "right", here) // the right password too
		w.login("ada@example.com", "right", there)
		w.refusedLogin("bob@example.com", "wrong", here)
		w.clock.Advance(wait - time.Second)
		w.throttled("ada@example.com", "right", here)
		w.clock.Advance(time.Second)
		w.login("ada@example.com", "right", here)
		w.login("ada@example.com", "right", here)
	})
}

// Accounts that do not exist are throttled as others are: the throttle does not
// tell which there are.
func TestTriesAtUnknownAccountsAreThrottled(t *testing.T) {
	eachWorld(t, func(w *world) {
		for range 10 {
			w.refusedLogin("nobody@example.com", "wrong", "192.0.2.1")
		}
		w.throttled("nobody@example.com", "wrong", "192.0.2.1")
	})
}

func TestTriesFromAnAddressAreThrottled(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		const here = "192.0.2.1"
		for i := range 60 {
			w.refusedLogin(fmt.Sprintf("u%d@example.com", i), "wrong", here)
		}
		wait := w.throttled("ada@example.com", "right", here)
		w.login("ada@example.com", "right", "192.0.2.2")
		w.clock.Advance(wait)
		w.login("ada@example.com", "right", here)
	})
}

// One address that goes on trying an account does not use up what its owner may
// try from elsewhere.
func TestStrangerDoesNotLockAnAccount(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		for range 10 {
			for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
				w.refusedLogin("ada@example.com", "wrong", address)
			}
		}
		for range 200 {
			for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
				w.throttled("ada@example.com", "wrong", address)
			}
		}
		w.login("ada@example.com", "right", "192.0.2.9")
	})
}

func TestStampChangesWithThePassword(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada := w.withPassword("ada@example.com", "right", access.Member)
		p := w.login(ada.Email, "right", "")
		if again := w.login(ada.Email, "right", ""); again.Stamp != p.Stamp {
			w.t.Errorf("got the stamps %q and %q, want them equal", p.Stamp, again.Stamp)
		}
		same, err := access.HashPassword("right")
		w.must(err)
		w.must(w.desk.SetPassword(ctx, w.op, ada.Email, same))
		today, err := w.desk.Person(ctx, ada.ID)
		w.must(err)
		if today.Stamp == p.Stamp {
			w.t.Error("the stamp is the one of before, want sessions to end also if the same password was set")
		}
		other, err := access.HashPassword("other")
		w.must(err)
		w.must(w.desk.SetPassword(ctx, w.op, ada.Email, other))
		w.refusedLogin(ada.Email, "right", "")
		w.login(ada.Email, "other", "")
		_, err = w.desk.Person(ctx, "usr_x")
		if !problem.Is(err, problem.NotFound) {
			w.t.Errorf("unknown: got %v, want %s", err, problem.NotFound)
		}
	})
}

// A password that is changed while it is checked opens no session that outlives
// the change.
func TestPasswordChangedDuringLogin(t *testing.T) {
	eachWorld(t, func(w *world) {
		ada := w.withPassword("ada@example.com", "right", access.Member)
		other, err := access.HashPassword("other")
		w.must(err)
		w.desk.Store = changingStore{w.db, func() { w.must(w.db.SetPassword(w.t.Context(), ada.ID, other)) }}
		w.refusedLogin(ada.Email, "right", "")
		want(w.t, "events", w.events(ada.ID), "user.created person.login_refused")
	})
}

// A changingStore calls change right after it has found a user.
type changingStore struct {
	*storage.DB
	change func()
}

func (s changingStore) UserByEmail(ctx context.Context, email string) (access.User, string, error) {
	u, hash, err := s.DB.UserByEmail(ctx, email)
	s.change()
	return u, hash, err
}

func TestWhatAPersonMayDo(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		ada, mo := w.member("ada@example.com", access.Owner), w.member("mo@example.com", access.Member)
		owner, member := w.browser(ada.Email), w.browser(mo.Email)
		if !owner.IsAdmin() || !owner.MayDecide || owner.Principal.Kind != access.KindPerson || owner.Principal.User != ada.ID || owner.Workspace.ID != w.ws.ID || owner.Key != nil {
			w.t.Errorf("owner: got %+v", owner)
		}
		if member.IsAdmin() || member.MayDecide || member.Decide("contacts", access.Write) == access.Deny || member.Decide("company", access.Write) != access.Deny {
			w.t.Errorf("member: got %+v", member)
		}
		p, err := w.desk.Person(ctx, mo.ID)
		w.must(err)
		other, err := w.desk.CreateWorkspace(ctx, "Two", "UTC")
		w.must(err)
		for _, id := range []string{other.ID, "", "ws_\x00"} {
			g, err := w.desk.PersonGrant(p, id)
			w.denied(err, problem.NotFound, "that you belong to")
			if g.Decide("contacts", access.Read) != access.Deny {
				w.t.Errorf("%q: got rights with the error", id)
			}
		}
		w.must(w.desk.RemoveUser(ctx, w.op, mo.Email))
		p, err = w.desk.Person(ctx, mo.ID)
		w.must(err)
		if _, err := w.desk.PersonGrant(p, w.ws.ID); !problem.Is(err, problem.NotFound) {
			w.t.Errorf("removed: got %v, want %s", err, problem.NotFound)
		}
	})
}

func TestManyLogInAtOnce(t *testing.T) {
	eachWorld(t, func(w *world) {
		for i := range 4 {
			w.withPassword(fmt.Sprintf("u%d@example.com", i), "right", access.Member)
		}
		var in, out, limited atomic.Int64
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				password := []string{"right", "wrong"}[i/4%2]
				_, err := w.desk.Login(w.t.Context(), admin.LoginTry{Email: fmt.Sprintf("u%d@example.com", i%4), Password: password, Address: fmt.Sprint("192.0.2.", i%2)})
				switch {
				case err == nil:
					in.Add(1)
				case problem.Is(err, problem.Unauthorized):
					out.Add(1)
				case problem.Is(err, problem.RateLimited):
					limited.Add(1)
				default:
					w.t.Error(err)
				}
			})
		}
		wg.Wait()
		if in.Load() != 20 || out.Load() != 20 || limited.Load() != 0 {
			w.t.Errorf("got %d in, %d refused, %d throttled, want 20, 20 and none", in.Load(), out.Load(), limited.Load())
		}
		limitedNow := w.raceOneAccount()
		if limitedNow != 10 {
			w.t.Errorf("20 at once at one account: got %d throttled, want 10", limitedNow)
		}
	})
}

// raceOneAccount tries one account 20 times at once, and returns how many tries
// were throttled.
func (w *world) raceOneAccount() int64 {
	var limited atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := w.desk.Login(w.t.Context(), admin.LoginTry{Email: "victim@example.com", Password: "guess", Address: "198.51.100.1"}); problem.Is(err, problem.RateLimited) {
				limited.Add(1)
			}
		})
	}
	wg.Wait()
	return limited.Load()
}

// Strangers with many addresses use up the tries of an account, and its owner
// still gets in from a browser that has been there before. That one has tries of
// its own, and not more than others.
func TestKnownBrowserGetsIn(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		for i := 0; ; i++ {
			_, err := w.desk.Login(w.t.Context(), admin.LoginTry{Email: "ada@example.com", Password: "guess", Address: fmt.Sprint("192.0.2.", i)})
			if problem.Is(err, problem.RateLimited) {
				break
			}
			w.denied(err, problem.Unauthorized, "not right")
			if i > 200 {
				w.t.Fatal("the account has no limit")
			}
		}
		w.throttled("ada@example.com", "right", "198.51.100.1")
		known := admin.LoginTry{Email: "ada@example.com", Password: "right", Address: "198.51.100.1", Known: true}
		_, err := w.desk.Login(w.t.Context(), known)
		w.must(err)
		wrong := known
		wrong.Password = "guess"
		for range 10 {
			_, err = w.desk.Login(w.t.Context(), wrong)
			w.denied(err, problem.Unauthorized, "not right")
		}
		_, err = w.desk.Login(w.t.Context(), known)
		w.denied(err, problem.RateLimited, "too many tries")

		// A flood of wrong passwords does not flood the log.
		refusals := func() []audit.Entry {
			entries, err := w.db.AuditEntries(w.t.Context(), w.ws.ID, audit.Query{Event: audit.PersonRefused, Limit: 100})
			w.must(err)
			return entries
		}
		if n := len(refusals()); n != 20 {
			w.t.Errorf("got %d refusals in the log, want 20", n)
		}
		w.clock.Advance(time.Hour)
		w.refusedLogin("ada@example.com", "guess", "203.0.113.1")
		if log := refusals(); len(log) != 21 || !strings.Contains(string(log[0].Detail), "not_recorded_before") {
			w.t.Errorf("an hour later: got %d refusals, want one more that tells of the others", len(log))
		}
	})
}

// A refused login takes as long whether or not there is such an account.
func TestRefusedLoginsTakeTheirTime(t *testing.T) {
	eachWorld(t, func(w *world) {
		w.withPassword("ada@example.com", "right", access.Owner)
		w.desk.RefusalTime = 150 * time.Millisecond
		for _, email := range []string{"ada@example.com", "nobody@example.com", strings.Repeat("x", 400)} {
			start := time.Now()
			w.refusedLogin(email, "guess", "192.0.2.1")
			if took := time.Since(start); took < w.desk.RefusalTime {
				w.t.Errorf("%.20s: refused after %v, want at least %v", email, took, w.desk.RefusalTime)
			}
		}
	})
}
