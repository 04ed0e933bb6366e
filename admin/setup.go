package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/typeid"
)

// newToken returns 256 random bits for a link that works once, and the hash
// under which they are stored.
func newToken() (token, hash string) {
	var b [32]byte
	rand.Read(b[:]) // never fails
	token = base64.RawURLEncoding.EncodeToString(b[:])
	return token, tokenHash(token)
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// OfferSetUp returns a new token for [Desk.SetUp], "" if nobody needs one:
// because somebody can log in, or because there are several workspaces, so that
// nobody can tell whose owner is to be made. The token before it ends: of
// several nodes that start, the last one's works.
func (d *Desk) OfferSetUp(ctx context.Context) (token string, err error) {
	token, hash := newToken()
	err = d.InTx(ctx, func(tx Store) error {
		_, err := d.unclaimed(ctx, tx)
		if err != nil {
			return err
		}
		return tx.OfferSetUp(ctx, hash)
	})
	if problem.Is(err, problem.NotFound) {
		return "", nil
	}
	return token, err
}

// unclaimed returns the workspace that has nobody to log in yet, the zero one
// if there is none at all. It fails with [problem.NotFound] if set-up is over.
func (d *Desk) unclaimed(ctx context.Context, tx Store) (access.Workspace, error) {
	can, err := tx.CanLogIn(ctx)
	if err != nil {
		return access.Workspace{}, err
	}
	all, err := tx.Workspaces(ctx)
	switch {
	case err != nil:
		return access.Workspace{}, err
	case can, len(all) > 1:
		return access.Workspace{}, noSetUp()
	case len(all) == 1:
		return all[0], nil
	}
	return access.Workspace{}, nil
}

func noSetUp() error {
	return problem.Errorf(problem.NotFound, "the link does not hold, or not any more").
		WithFix("If nobody can log in yet, restart the server: it prints a new link. Otherwise the operator adds people: trustpager user add.")
}

// Unclaimed reports whether nobody can log in, as the set-up has not been done.
func (d *Desk) Unclaimed(ctx context.Context) (bool, error) {
	can, err := d.Store.CanLogIn(ctx)
	return !can, err
}

// SetUpWith returns the workspace that the holder of the token would come to
// own, the zero one if it is still to be made. It fails with [problem.NotFound]
// unless the token holds.
func (d *Desk) SetUpWith(ctx context.Context, token string) (access.Workspace, error) {
	if ok, err := d.Store.IsSetUpToken(ctx, tokenHash(token)); err != nil || !ok {
		return access.Workspace{}, errors.Join(err, noSetUp())
	}
	return d.unclaimed(ctx, d.Store)
}

// A SetUp is what the first person says of themselves and their workspace.
type SetUp struct {
	Token     string
	Workspace string // what people call it
	TimeZone  string // IANA name
	Name      string // the person's
	Email     string
	Password  string
}

// SetUp makes the workspace, unless there is one, and its owner, and returns
// them as logged in. The token is of one use. It fails with [problem.NotFound]
// unless the token holds, and with [problem.Validation], naming the fields
// workspace, time_zone, name, email and password.
func (d *Desk) SetUp(ctx context.Context, in SetUp) (Person, error) {
	w, err := d.SetUpWith(ctx, in.Token)
	if err != nil {
		return Person{}, err
	}
	if w.ID == "" {
		w = d.newWorkspace("", "")
	}
	w.Name, w.TimeZone = strings.TrimSpace(in.Workspace), strings.TrimSpace(in.TimeZone)
	name, email := strings.TrimSpace(in.Name), strings.ToLower(strings.TrimSpace(in.Email))
	var fields []problem.Field
	if e, ok := errors.AsType[*problem.Error](checkWorkspace(d.Catalog, w)); ok {
		fields = e.Fields
		for i, f := range fields {
			if f.Path == "name" {
				fields[i].Path = "workspace"
			}
		}
	}
	fields = append(fields, personFields(email, name)...)
	if name == "" {
		fields = append(fields, problem.Field{Path: "name", Expected: nameForm, Got: "nothing"})
	}
	fields = append(fields, passwordFields(in.Password, name, email, w.Name)...)
	if err := refuseFields("the set-up", fields); err != nil {
		return Person{}, err
	}
	hash, err := d.hashPassword(ctx, in.Password)
	if err != nil {
		return Person{}, err
	}
	u := access.User{ID: typeid.NewID("usr"), Email: email, Name: name, CreatedAt: d.now()}
	err = d.InTx(ctx, func(tx Store) error {
		if ok, err := tx.TakeSetUpToken(ctx, tokenHash(in.Token)); err != nil || !ok {
			return errors.Join(err, noSetUp())
		}
		there, err := d.unclaimed(ctx, tx)
		if err != nil {
			return err
		}
		if err := d.claim(ctx, tx, there, w); err != nil {
			return err
		}
		return d.firstOwner(ctx, tx, w, &u, hash)
	})
	if err != nil {
		return Person{}, err
	}
	return d.Person(ctx, u.ID)
}

// claim stores the workspace of the set-up, over the one that is there.
func (d *Desk) claim(ctx context.Context, tx Store, there, w access.Workspace) error {
	switch {
	case there.ID == "":
		return d.createWorkspace(ctx, tx, w)
	case there.ID != w.ID:
		return noSetUp() // made meanwhile
	case there.Name == w.Name && there.TimeZone == w.TimeZone:
		return nil
	}
	if err := tx.UpdateWorkspace(ctx, w); err != nil {
		return err
	}
	return d.record(ctx, tx, OperatorGrant(w), audit.WorkspaceChanged, w.ID, w)
}

// firstOwner makes u the owner of the workspace. Somebody of that address who
// is there already, and has no password, becomes it.
func (d *Desk) firstOwner(ctx context.Context, tx Store, w access.Workspace, u *access.User, hash string) error {
	found, _, err := tx.UserByEmail(ctx, u.Email)
	switch {
	case err == nil:
		u.ID = found.ID
		if err := tx.SetUserName(ctx, u.ID, u.Name); err != nil {
			return err
		}
		if err := tx.SetPassword(ctx, u.ID, hash); err != nil {
			return err
		}
	case problem.Is(err, problem.NotFound):
		if err := tx.CreateUser(ctx, *u, hash); err != nil {
			return err
		}
	default:
		return err
	}
	if err := tx.SetMember(ctx, w.ID, u.ID, access.Owner, d.now()); err != nil {
		return err
	}
	if err := d.record(ctx, tx, OperatorGrant(w), audit.UserCreated, u.ID, map[string]any{"email": u.Email, "role": access.Owner, "by": "set-up link"}); err != nil {
		return err
	}
	me := d.grantOf(Person{User: *u}, access.Membership{Workspace: w, Role: access.Owner})
	if err := tx.NoteLogin(ctx, u.ID, d.now()); err != nil {
		return err
	}
	return d.record(ctx, tx, me, audit.PersonLogin, u.ID, nil)
}
