package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/problem"
)

// A Person is a user as they come to the pages, with all workspaces that they
// belong to.
type Person struct {
	User        access.User         // without a role
	Memberships []access.Membership // ordered by the workspace's name

	// Stamp changes with the password, so that sessions from before end.
	Stamp string
}

// logins says how often somebody may try a password: from one address at any
// account, at one account from one address, and at one account from anywhere.
// Strangers with many addresses can use up the last, and would lock the owner
// out: a browser that has logged in to the account before has tries of its own.
// A right password clears what counts for the two together.
type logins struct {
	once                          sync.Once
	address, both, account, known *access.Throttle
	forgotAddress, forgotAccount  *access.Throttle // of links for a new password
	inviteAddress, invited        *access.Throttle // of links of invitations: who opens them, and who is sent them
	inviting                      *access.Throttle // of the workspace that sends them
	hashing                       chan struct{}    // a place for each password that is checked at a time
	refused                       access.Tally     // by user, of the audit log
}

// maxRefusals is how many wrong passwords for an account are audited one by one
// within an hour.
const maxRefusals = 20

// maxHashing bounds the memory that checking passwords takes: 19 MiB each.
const maxHashing = 4

// maxEmail is in bytes: what is longer is nobody's e-mail address.
const maxEmail = 320

func (d *Desk) throttles() *logins {
	l := &d.logins
	l.once.Do(func() {
		l.both = &access.Throttle{PerMinute: 2, Burst: 10, Now: d.Now}
		l.account = &access.Throttle{PerMinute: 20, Burst: 100, Now: d.Now}
		l.address = &access.Throttle{PerMinute: 20, Burst: 60, Now: d.Now}
		l.known = &access.Throttle{PerMinute: 2, Burst: 10, Now: d.Now}
		l.forgotAddress = &access.Throttle{PerMinute: 5, Burst: 20, Now: d.Now}
		l.forgotAccount = &access.Throttle{PerMinute: 1, Burst: 5, Now: d.Now}
		l.inviteAddress = &access.Throttle{PerMinute: 20, Burst: 60, Now: d.Now}
		l.invited = &access.Throttle{PerMinute: 1, Burst: 5, Now: d.Now}
		l.inviting = &access.Throttle{PerMinute: 1, Burst: 2 * MaxInvitations, Now: d.Now}
		l.hashing = make(chan struct{}, maxHashing)
	})
	return l
}

type loginLimit struct {
	t   *access.Throttle
	key string
}

// allow counts a try. One that is refused for its address is not counted for
// the account, or a stranger with few addresses would use up what its owner may
// try from elsewhere.
func (l *logins) allow(try LoginTry) error {
	limits := []loginLimit{{l.address, try.Address}, {l.both, try.Email + " " + try.Address}, {l.account, try.Email}}
	if try.Known {
		limits = []loginLimit{{l.known, try.Email}}
	}
	return allow(limits, "too many tries to log in")
}

// allow counts a try at each limit in turn, until one refuses it.
func allow(limits []loginLimit, what string) error {
	for _, limit := range limits {
		if wait, ok := limit.t.Allow(limit.key); !ok {
			e := problem.Errorf(problem.RateLimited, "%s", what).
				WithFix("Wait %d seconds, then try again.", int64((wait+time.Second-1)/time.Second))
			e.RetryAfter = wait
			return e
		}
	}
	return nil
}

// A LoginTry is a try to log in.
type LoginTry struct {
	Email    string
	Password string
	Address  string // where it comes from
	Known    bool   // the browser has shown that it logged in to this account before
}

// Login returns the person who has that e-mail address and password. It fails
// with [problem.Unauthorized], with one text whatever is wrong and no sooner
// than after RefusalTime, and with [problem.RateLimited] after too many tries
// for the account or from the address.
func (d *Desk) Login(ctx context.Context, try LoginTry) (Person, error) {
	slowest := time.NewTimer(d.RefusalTime)
	defer slowest.Stop()
	try.Email = strings.ToLower(strings.TrimSpace(try.Email))
	p, err := d.login(ctx, try)
	if problem.Is(err, problem.Unauthorized) {
		// Whether there is such an account shows in what is written for it.
		select {
		case <-slowest.C:
		case <-ctx.Done():
		}
	}
	return p, err
}

func (d *Desk) login(ctx context.Context, try LoginTry) (Person, error) {
	refused := problem.Errorf(problem.Unauthorized, "the e-mail address or the password is not right").
		WithFix("Check both. If you have forgotten the password, you can have a link for a new one sent to you.")
	email, password := try.Email, try.Password
	if len(email) > maxEmail || len(password) > access.MaxPassword || !storable(email) {
		return Person{}, refused // nobody's, and too long to be counted
	}
	l := d.throttles()
	if err := l.allow(try); err != nil {
		return Person{}, err
	}
	u, hash, err := d.Store.UserByEmail(ctx, email)
	if err != nil && !problem.Is(err, problem.NotFound) {
		return Person{}, err
	}
	right, herr := d.checkPassword(ctx, hash, password)
	if herr != nil {
		return Person{}, herr
	}
	if err != nil {
		return Person{}, refused
	}
	p, err := d.Person(ctx, u.ID)
	if err != nil {
		return Person{}, err
	}
	right = right && p.Stamp == stamp(hash) // or the password was changed meanwhile
	detail := map[string]any{"address": try.Address}
	if !right {
		return Person{}, cmp.Or(d.recordRefusal(ctx, p, detail), error(refused))
	}
	if err := d.recordPerson(ctx, p, audit.PersonLogin, detail); err != nil {
		return Person{}, err
	}
	l.both.Forget(email + " " + try.Address)
	l.known.Forget(email)
	return p, nil
}

// recordRefusal audits a wrong password, of many only some.
func (d *Desk) recordRefusal(ctx context.Context, p Person, detail map[string]any) error {
	suppressed, tell := d.throttles().refused.Count(p.User.ID, maxRefusals, d.now())
	if !tell {
		return nil
	}
	if suppressed > 0 {
		detail["not_recorded_before"] = suppressed
	}
	return d.recordPerson(ctx, p, audit.PersonRefused, detail)
}

func storable(s string) bool { return strings.ToValidUTF8(s, "") == s && !strings.ContainsRune(s, 0) }

// checkPassword reports whether hash, which is "" for an account without a
// password, is that of the password.
func (d *Desk) checkPassword(ctx context.Context, hash, password string) (right bool, err error) {
	err = d.hashing(ctx, func() error {
		right, err = access.CheckPassword(hash, password)
		return err
	})
	return right, err
}

// hashing calls do, which hashes a password, when there is a place for it.
func (d *Desk) hashing(ctx context.Context, do func() error) error {
	l := d.throttles()
	select {
	case l.hashing <- struct{}{}:
		defer func() { <-l.hashing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return do()
}

// Logout records that the person has ended their session.
func (d *Desk) Logout(ctx context.Context, p Person) error {
	return d.recordPerson(ctx, p, audit.PersonLogout, nil)
}

// recordPerson audits what a person did at the door in each of their
// workspaces.
func (d *Desk) recordPerson(ctx context.Context, p Person, event audit.Event, detail any) error {
	return d.InTx(ctx, func(tx Store) error { return d.recordPersonIn(ctx, tx, p, event, detail) })
}

// recordPersonIn is recordPerson in the caller's transaction.
func (d *Desk) recordPersonIn(ctx context.Context, tx Store, p Person, event audit.Event, detail any) error {
	if event == audit.PersonLogin {
		if err := tx.NoteLogin(ctx, p.User.ID, d.now()); err != nil {
			return err
		}
	}
	for _, m := range p.Memberships {
		if err := d.record(ctx, tx, d.grantOf(p, m), event, p.User.ID, detail); err != nil {
			return err
		}
	}
	return nil
}

// Person returns the person behind a session. It fails with
// [problem.NotFound].
func (d *Desk) Person(ctx context.Context, user string) (Person, error) {
	u, hash, err := d.Store.UserByID(ctx, user)
	if err != nil {
		return Person{}, err
	}
	memberships, err := d.Store.Memberships(ctx, user)
	if err != nil {
		return Person{}, err
	}
	return Person{User: u, Memberships: memberships, Stamp: stamp(hash)}, nil
}

// stamp returns what tells the password of the hash from others.
func stamp(hash string) string {
	sum := sha256.Sum256([]byte(hash))
	return hex.EncodeToString(sum[:8])
}

// PersonGrant returns what the person may do in one of their workspaces in the
// browser. It fails with [problem.NotFound].
func (d *Desk) PersonGrant(p Person, workspace string) (access.Grant, error) {
	for _, m := range p.Memberships {
		if m.Workspace.ID == workspace {
			return d.grantOf(p, m), nil
		}
	}
	return access.Grant{}, problem.Errorf(problem.NotFound, "there is no workspace %.60q that you belong to", workspace).
		WithFix("Choose one of your workspaces, or ask its admin to add you.")
}

func (d *Desk) grantOf(p Person, m access.Membership) access.Grant {
	rights := d.Catalog.RoleRights(m.Role)
	return access.Grant{
		Principal: access.Principal{Kind: access.KindPerson, ID: p.User.ID, Name: p.User.Name, User: p.User.ID},
		Workspace: m.Workspace, Rights: rights, MayDecide: rights.Full(),
	}
}
