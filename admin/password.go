package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/integrations"
	"trustpager/problem"
)

// ResetLife is how long a link for a new password holds.
const ResetLife = time.Hour

// maxResetLinks is how many links for a new password somebody may have at a
// time, and so how many messages an hour strangers can have sent to them.
const maxResetLinks = 3

// passwordFields says what is wrong with a password that a person has chosen.
func passwordFields(password string, own ...string) []problem.Field {
	if weak := access.WeakPassword(password, own...); weak != "" {
		return []problem.Field{{Path: "password", Expected: weak, Got: fmt.Sprintf("%d characters", len([]rune(password)))}}
	}
	return nil
}

// ownWords are what others know of a person, which no password may be made of.
func ownWords(p Person) []string {
	own := []string{p.User.Name, p.User.Email}
	for _, m := range p.Memberships {
		own = append(own, m.Workspace.Name)
	}
	return own
}

// ForgotPassword has a link for a new password sent to the person with that
// e-mail address, if there is one and they have not been sent several already.
// The answer is the same, and takes as long, whether or not. It fails with
// [problem.RateLimited] after too many tries for the address of e-mail or from
// the address.
func (d *Desk) ForgotPassword(ctx context.Context, email, address string) error {
	slowest := time.NewTimer(d.RefusalTime)
	defer slowest.Stop()
	email = strings.ToLower(strings.TrimSpace(email))
	if len(email) > maxEmail || !storable(email) {
		email = "" // nobody's, and too long to be counted
	}
	if err := d.throttles().allowForgot(email, address); err != nil {
		return err
	}
	err := d.sendResetLink(ctx, email, address)
	select {
	case <-slowest.C:
	case <-ctx.Done():
	}
	return err
}

// allowForgot counts a try.
func (l *logins) allowForgot(email, address string) error {
	return allow([]loginLimit{{l.forgotAddress, address}, {l.forgotAccount, email}}, "too many tries to get a link for a new password")
}

func (d *Desk) sendResetLink(ctx context.Context, email, address string) error {
	if email == "" {
		return nil
	}
	u, _, err := d.Store.UserByEmail(ctx, email)
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := d.Person(ctx, u.ID)
	if err != nil {
		return err
	}
	token, hash := newToken()
	now := d.now()
	return d.InTx(ctx, func(tx Store) error {
		ok, err := tx.CreateResetLink(ctx, hash, p.User.ID, p.Stamp, now, now.Add(ResetLife), maxResetLinks)
		if err != nil || !ok {
			return err
		}
		if err := d.recordPersonIn(ctx, tx, p, audit.PersonForgot, map[string]any{"address": address}); err != nil {
			return err
		}
		return d.Mail.Enqueue(ctx, tx, "", integrations.Message{To: p.User.Email, Name: p.User.Name, Subject: "A new password for TrustPager",
			Body: resetBody(p, d.Gate.BaseURL, token, address), Until: now.Add(ResetLife)})
	})
}

// resetBody is the message that holds the link.
func resetBody(p Person, baseURL, token, address string) string {
	return fmt.Sprintf(`Hello %s,

somebody asked for a new password for your account at
%s (from the address %s).

If it was you, choose one here. The link holds for an hour and works once:

%s/reset?token=%s

If it was not you, you need not do anything: your password stays as it is.
`, cmp.Or(p.User.Name, p.User.Email), baseURL, address, baseURL, url.QueryEscape(token))
}

// noReset says that a link for a new password does not hold.
func noReset() error {
	return problem.Errorf(problem.NotFound, "the link does not hold, or not any more").
		WithFix("Ask for a new one. A link holds for an hour, works once, and ends when the password changes.")
}

// ResetWith returns whose password the holder of the token may change. It fails
// with [problem.NotFound] unless the token holds.
func (d *Desk) ResetWith(ctx context.Context, token string) (Person, error) {
	user, made, err := d.Store.ResetLink(ctx, tokenHash(token), d.now())
	return d.resetOf(ctx, user, made, err)
}

// resetOf returns the person of a link that was found, unless their password
// has changed since the link was made.
func (d *Desk) resetOf(ctx context.Context, user, made string, err error) (Person, error) {
	if problem.Is(err, problem.NotFound) {
		return Person{}, noReset()
	}
	if err != nil {
		return Person{}, err
	}
	p, err := d.Person(ctx, user)
	if err == nil && p.Stamp != made {
		return Person{}, noReset()
	}
	return p, err
}

// ResetPassword gives the person of the token a new password, and ends their
// sessions and links. The token is of one use. It fails with [problem.NotFound]
// unless the token holds, and with [problem.Validation], naming the field
// password, if the password will not do.
func (d *Desk) ResetPassword(ctx context.Context, token, password string) (Person, error) {
	p, err := d.ResetWith(ctx, token)
	if err != nil {
		return Person{}, err
	}
	if err := refuseFields("the password", passwordFields(password, ownWords(p)...)); err != nil {
		return Person{}, err
	}
	hash, err := d.hashPassword(ctx, password)
	if err != nil {
		return Person{}, err
	}
	err = d.InTx(ctx, func(tx Store) error {
		if _, _, err := tx.TakeResetLink(ctx, tokenHash(token), d.now()); err != nil {
			if problem.Is(err, problem.NotFound) {
				return noReset()
			}
			return err
		}
		return d.replacePassword(ctx, tx, p, hash, "reset by a link")
	})
	if problem.Is(err, problem.Conflict) {
		return Person{}, noReset() // the password has changed, which ends the link
	}
	if err != nil {
		return Person{}, err
	}
	return d.Person(ctx, p.User.ID)
}

// replacePassword gives the person a new password instead of the one of their
// stamp. It fails with [problem.Conflict] if that has changed.
func (d *Desk) replacePassword(ctx context.Context, tx Store, p Person, hash, how string) error {
	_, old, err := tx.UserByID(ctx, p.User.ID)
	if err != nil {
		return err
	}
	if stamp(old) != p.Stamp {
		return problem.Errorf(problem.Conflict, "the password was changed meanwhile").WithFix("Log in with the new one.")
	}
	if err := tx.ReplacePassword(ctx, p.User.ID, old, hash); err != nil {
		return err
	}
	return d.recordPersonIn(ctx, tx, p, audit.UserChanged, map[string]any{"password": how})
}

// A PasswordChange is a person's wish for a new password.
type PasswordChange struct {
	Present, New string
	Address      string // where it comes from
}

// ChangePassword gives the person a new password, and ends their sessions and
// links; it returns them as they then are, for the session that goes on. It
// fails with [problem.Validation], naming the fields present and password, and
// with [problem.RateLimited] after too many wrong ones.
func (d *Desk) ChangePassword(ctx context.Context, p Person, c PasswordChange) (Person, error) {
	l := d.throttles()
	try := p.User.Email + " " + c.Address
	if err := allow([]loginLimit{{l.both, try}, {l.known, p.User.Email}}, "too many wrong passwords"); err != nil {
		return Person{}, err
	}
	_, old, err := d.Store.UserByID(ctx, p.User.ID)
	if err != nil {
		return Person{}, err
	}
	right := false
	if len(c.Present) <= access.MaxPassword {
		if right, err = d.checkPassword(ctx, old, c.Present); err != nil {
			return Person{}, err
		}
	}
	var fields []problem.Field
	if !right {
		if err := d.recordRefusal(ctx, p, map[string]any{"address": c.Address, "for": "a new password"}); err != nil {
			return Person{}, err
		}
		fields = append(fields, problem.Field{Path: "present", Expected: "your present password", Got: "another one"})
	} else {
		l.both.Forget(try)
		l.known.Forget(p.User.Email)
	}
	fields = append(fields, passwordFields(c.New, ownWords(p)...)...)
	if err := refuseFields("the password", fields); err != nil {
		return Person{}, err
	}
	hash, err := d.hashPassword(ctx, c.New)
	if err != nil {
		return Person{}, err
	}
	if err := d.InTx(ctx, func(tx Store) error { return d.replacePassword(ctx, tx, p, hash, "changed") }); err != nil {
		return Person{}, err
	}
	return d.Person(ctx, p.User.ID)
}

// Rename changes what others call the person. It fails with
// [problem.Validation], naming the field name.
func (d *Desk) Rename(ctx context.Context, p Person, name string) error {
	name = strings.TrimSpace(name)
	if !validName(name) {
		return refuseFields("the name", []problem.Field{{Path: "name", Expected: nameForm, Got: fmt.Sprintf("%.120q", name)}})
	}
	return d.InTx(ctx, func(tx Store) error {
		if err := tx.SetUserName(ctx, p.User.ID, name); err != nil {
			return err
		}
		return d.recordPersonIn(ctx, tx, p, audit.UserChanged, map[string]any{"name": name})
	})
}

// hashPassword returns the hash of a password, as soon as there is a place for
// the memory that it takes.
func (d *Desk) hashPassword(ctx context.Context, password string) (hash string, err error) {
	err = d.hashing(ctx, func() error {
		hash, err = access.HashPassword(password)
		return err
	})
	return hash, err
}
