package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/problem"
	"trustpager/typeid"
)

// InvitationLife is how long the link of an invitation holds.
const InvitationLife = 7 * 24 * time.Hour

// MaxInvitations is how many invitations of a workspace may be in force at a
// time.
const MaxInvitations = 100

// An Invitation is an offer to somebody to become a member of a workspace. It
// is theirs who has the link in the message, and the e-mail address.
type Invitation struct {
	ID        string // inv_…
	Workspace string
	Email     string // lower case
	Name      string // as the inviter calls them, may be ""
	Role      access.Role
	By        access.Principal
	CreatedAt time.Time
	ExpiresAt time.Time
}

// An Invite is somebody's wish to invite a person.
type Invite struct {
	Email, Name string
	Role        access.Role
}

// Invite sends somebody a link by which they become a member, or another one in
// place of that. Where there is no mail server the link is returned too, for the
// inviter to pass on; it is nowhere else but in the outbox. Nobody invites above
// their own role.
//
// It fails with [problem.Validation], naming the fields email, name and role,
// with [problem.Conflict] if the address is a member's, and with
// [problem.RateLimited] if it was invited too often.
func (d *Desk) Invite(ctx context.Context, g access.Grant, in Invite) (i Invitation, link string, err error) {
	if err := requirePerson(g, "invites people"); err != nil {
		return Invitation{}, "", err
	}
	in = in.normal()
	if err := allow([]loginLimit{{d.throttles().invited, g.Workspace.ID + " " + in.Email}}, "too many messages to this address"); err != nil {
		return Invitation{}, "", err
	}
	if err := allow([]loginLimit{{d.throttles().inviting, g.Workspace.ID}}, "too many invitations of this workspace"); err != nil {
		return Invitation{}, "", err
	}
	err = d.InTx(ctx, func(tx Store) error {
		if err := d.mayInvite(ctx, tx, g, in, true); err != nil {
			return err
		}
		i, link, err = d.invite(ctx, tx, g, in, g.Principal)
		return err
	})
	return i, link, err
}

// normal returns the wish with its texts as they are stored.
func (in Invite) normal() Invite {
	in.Email, in.Name = strings.ToLower(strings.TrimSpace(in.Email)), strings.TrimSpace(in.Name)
	return in
}

// mayInvite refuses what g cannot invite. With lock nobody changes who belongs
// to the workspace until the transaction ends.
func (d *Desk) mayInvite(ctx context.Context, s Store, g access.Grant, in Invite, lock bool) error {
	fields := personFields(in.Email, in.Name)
	if !in.Role.AtMost(access.Owner) {
		fields = append(fields, problem.Field{Path: "role", Expected: "owner, admin or member", Got: fmt.Sprintf("%.50q", string(in.Role))})
	}
	if err := refuseFields("the invitation", fields); err != nil {
		return err
	}
	if lock {
		if _, err := s.LockWorkspace(ctx, g.Workspace.ID); err != nil {
			return err
		}
	}
	users, err := s.Users(ctx, g.Workspace.ID)
	if err != nil {
		return err
	}
	if err := within(g, users, in.Role); err != nil {
		return err
	}
	if slices.ContainsFunc(users, func(u access.User) bool { return u.Email == in.Email }) {
		return problem.Errorf(problem.Conflict, "%s is a member of the workspace already", in.Email).
			WithFix("Change their role instead, if that is what is wanted.")
	}
	all, err := s.Invitations(ctx, g.Workspace.ID)
	if err != nil {
		return err
	}
	now := d.now()
	others := 0
	for _, i := range all {
		if i.Email == in.Email && !i.Role.AtMost(actingRole(g, users)) && now.Before(i.ExpiresAt) {
			return problem.Errorf(problem.InsufficientScope, "%s is invited as an owner, which only owners change", in.Email).WithFix("Ask an owner of the workspace.")
		}
		if i.Email != in.Email && now.Before(i.ExpiresAt) {
			others++
		}
	}
	if others >= MaxInvitations {
		return problem.Errorf(problem.Conflict, "%d invitations wait to be accepted, which is the most there can be", MaxInvitations).
			WithFix("Cancel some that are not needed any more.")
	}
	return nil
}

// actingRole returns the role in which g decides about people: a person's own as
// it stands, the operator's an owner's, and for credentials never more than an
// admin's, whoever is behind them. It is "" for who is none of these.
func actingRole(g access.Grant, users []access.User) access.Role {
	own := func() access.Role {
		for _, u := range users {
			if u.ID == g.Principal.User && u.ID != "" {
				return u.Role
			}
		}
		return ""
	}
	switch g.Principal.Kind {
	case access.KindOperator:
		return access.Owner
	case access.KindPerson:
		if r := own(); r == access.Owner || r == access.Admin {
			return r
		}
	case access.KindOAuth:
		if g.Principal.User != "" && !access.Admin.AtMost(own()) {
			return ""
		}
		return access.Admin
	case access.KindKey:
		return access.Admin
	}
	return ""
}

// within refuses g the roles above its own: it neither gives them nor touches
// who has them.
func within(g access.Grant, users []access.User, roles ...access.Role) error {
	mine := actingRole(g, users)
	for _, r := range roles {
		if r.AtMost(mine) {
			continue
		}
		if mine == "" {
			return problem.Errorf(problem.InsufficientScope, "only owners and admins decide who belongs to the workspace").WithFix("Ask one of them.")
		}
		return problem.Errorf(problem.InsufficientScope, "only an owner in person decides who is an owner").
			WithFix("Ask an owner of the workspace to do it on the page Members.")
	}
	return nil
}

// invite stores an invitation that may be made, and has its message sent.
func (d *Desk) invite(ctx context.Context, tx Store, g access.Grant, in Invite, by access.Principal) (Invitation, string, error) {
	w, err := tx.Workspace(ctx, g.Workspace.ID)
	if err != nil {
		return Invitation{}, "", err
	}
	token, hash := newToken()
	now := d.now()
	i, err := tx.SaveInvitation(ctx, Invitation{ID: typeid.NewID("inv"), Workspace: w.ID, Email: in.Email, Name: in.Name, Role: in.Role,
		By: by, CreatedAt: now, ExpiresAt: now.Add(InvitationLife)}, hash)
	if err != nil {
		return i, "", err
	}
	if err := d.record(ctx, tx, g, audit.UserInvited, i.ID, map[string]any{"email": i.Email, "role": i.Role}); err != nil {
		return i, "", err
	}
	link := d.Gate.BaseURL + "/invite?token=" + url.QueryEscape(token)
	if err := d.Mail.Enqueue(ctx, tx, w.ID, integrations.Message{To: i.Email, Name: i.Name, Subject: "Invitation to " + w.Name,
		Body: invitationBody(i, w, d.Gate.BaseURL, link), Until: i.ExpiresAt}); err != nil {
		return i, "", err
	}
	if d.Mail.Sends() {
		link = "" // whoever has it gets it by e-mail, and so has shown that the address is theirs
	}
	return i, link, nil
}

// RoleName returns what people call the role, with its article.
func RoleName(r access.Role) string {
	if r == access.Member {
		return "a member"
	}
	return "an " + string(r)
}

// invitationBody is the message that holds the link.
func invitationBody(i Invitation, w access.Workspace, baseURL, link string) string {
	return fmt.Sprintf(`Hello %s,

%s invites you to the workspace %s
at %s, as %s.

To accept, open this link. It holds for 7 days and works once:

%s

If you do not know what this is about, you need not do anything.
`, cmp.Or(i.Name, i.Email), i.By.Name, w.Name, baseURL, RoleName(i.Role), link)
}

// Invitations returns the invitations of the grant's workspace that nobody has
// accepted, the newest first, those that are over too.
func (d *Desk) Invitations(ctx context.Context, g access.Grant) ([]Invitation, error) {
	if err := requireAdmin(g); err != nil {
		return nil, err
	}
	return d.Store.Invitations(ctx, g.Workspace.ID)
}

// CancelInvitation takes back an invitation. It fails with [problem.NotFound].
func (d *Desk) CancelInvitation(ctx context.Context, g access.Grant, email string) error {
	if err := requireAdmin(g); err != nil {
		return err
	}
	return d.InTx(ctx, func(tx Store) error {
		i, err := d.invitationOf(ctx, tx, g, email)
		if err == nil {
			err = d.cancel(ctx, tx, g, i)
		}
		return err
	})
}

// invitationOf returns the invitation of the address that g may cancel.
func (d *Desk) invitationOf(ctx context.Context, s Store, g access.Grant, email string) (Invitation, error) {
	all, err := s.Invitations(ctx, g.Workspace.ID)
	if err != nil {
		return Invitation{}, err
	}
	users, err := s.Users(ctx, g.Workspace.ID)
	if err != nil {
		return Invitation{}, err
	}
	for _, i := range all {
		if i.Email == strings.ToLower(strings.TrimSpace(email)) {
			return i, within(g, users, i.Role)
		}
	}
	return Invitation{}, problem.Errorf(problem.NotFound, "nobody is invited with the e-mail address %.100q", email).WithFix("List the invitations to see who is.")
}

func (d *Desk) cancel(ctx context.Context, tx Store, g access.Grant, i Invitation) error {
	if _, err := tx.CancelInvitation(ctx, g.Workspace.ID, i.Email); err != nil {
		if problem.Is(err, problem.NotFound) {
			return problem.Errorf(problem.Conflict, "the invitation of %s has ended meanwhile", i.Email).WithFix("There is nothing left to cancel.")
		}
		return err
	}
	return d.record(ctx, tx, g, audit.InvitationCancelled, i.ID, map[string]any{"email": i.Email, "role": i.Role})
}

// An Invited is an invitation as the holder of its link meets it.
type Invited struct {
	Invitation
	In access.Workspace

	// User is the id of the account that the address has, "" if it has none yet:
	// then accepting makes it.
	User string
	// Locked says that the account has no password and belongs to other
	// workspaces: whoever passes the link on must not be able to choose one.
	Locked bool
}

// noInvitation says that a link does not hold.
func noInvitation() error {
	return problem.Errorf(problem.NotFound, "the link does not hold, or not any more").
		WithFix("Ask who invited you for another one. A link holds for 7 days, works once, and ends when it is replaced or cancelled.")
}

// InvitedWith returns what the holder of the token is invited to. address is
// where they come from. It fails with [problem.NotFound] unless the token holds,
// and with [problem.RateLimited] after too many tries.
func (d *Desk) InvitedWith(ctx context.Context, token, address string) (Invited, error) {
	if err := allow([]loginLimit{{d.throttles().inviteAddress, address}}, "too many tries"); err != nil {
		return Invited{}, err
	}
	i, err := d.Store.InvitationByHash(ctx, tokenHash(token), d.now())
	if problem.Is(err, problem.NotFound) {
		return Invited{}, noInvitation()
	}
	if err != nil {
		return Invited{}, err
	}
	return d.invited(ctx, d.Store, i)
}

func (d *Desk) invited(ctx context.Context, s Store, i Invitation) (Invited, error) {
	w, err := s.Workspace(ctx, i.Workspace)
	if err != nil {
		return Invited{}, err
	}
	v := Invited{Invitation: i, In: w}
	u, hash, err := s.UserByEmail(ctx, i.Email)
	switch {
	case problem.Is(err, problem.NotFound):
		return v, nil
	case err != nil:
		return v, err
	case hash != "":
		v.User = u.ID
		return v, nil
	}
	elsewhere, err := s.Memberships(ctx, u.ID)
	if len(elsewhere) > 0 {
		v.User, v.Locked = u.ID, true
	}
	return v, err
}

// An Acceptance is what somebody says who accepts an invitation without having
// an account.
type Acceptance struct {
	Token, Name, Password string
	Address               string // where it comes from
}

// Accept makes the person and their membership, and returns them as logged in.
// It fails with [problem.NotFound] unless the token holds, with
// [problem.Validation], naming the fields name and password, and with
// [problem.Conflict] if there is an account, whose owner has to log in.
func (d *Desk) Accept(ctx context.Context, in Acceptance) (Person, error) {
	v, err := d.InvitedWith(ctx, in.Token, in.Address)
	if err != nil {
		return Person{}, err
	}
	if v.User != "" {
		return Person{}, haveAccount()
	}
	in.Name = strings.TrimSpace(in.Name)
	var fields []problem.Field
	if !validName(in.Name) {
		fields = append(fields, problem.Field{Path: "name", Expected: nameForm, Got: fmt.Sprintf("%.120q", in.Name)})
	}
	fields = append(fields, passwordFields(in.Password, in.Name, v.Email, v.In.Name)...)
	if err := refuseFields("the account", fields); err != nil {
		return Person{}, err
	}
	hash, err := d.hashPassword(ctx, in.Password)
	if err != nil {
		return Person{}, err
	}
	u := access.User{ID: typeid.NewID("usr"), Email: v.Email, Name: in.Name, CreatedAt: d.now()}
	err = d.InTx(ctx, func(tx Store) error {
		i, err := d.take(ctx, tx, v, in.Token)
		if err != nil {
			return err
		}
		now, err := d.invited(ctx, tx, i)
		if err != nil {
			return err
		}
		if now.User != "" {
			return haveAccount()
		}
		found, _, err := tx.UserByEmail(ctx, u.Email)
		switch {
		case err == nil: // without a password, and of no workspace
			u.ID = found.ID
			err = errors.Join(tx.SetUserName(ctx, u.ID, u.Name), tx.SetPassword(ctx, u.ID, hash))
		case problem.Is(err, problem.NotFound):
			err = tx.CreateUser(ctx, u, hash)
		}
		if err != nil {
			return err
		}
		if err := d.join(ctx, tx, v.In, u, i); err != nil {
			return err
		}
		me := Person{User: u, Memberships: []access.Membership{{Workspace: v.In, Role: i.Role}}}
		return d.recordPersonIn(ctx, tx, me, audit.PersonLogin, map[string]any{"address": in.Address})
	})
	if err != nil {
		return Person{}, err
	}
	return d.Person(ctx, u.ID)
}

func haveAccount() error {
	return problem.Errorf(problem.Conflict, "there is an account with this e-mail address").WithFix("Log in with it, and open the link again.")
}

// take ends the invitation, while nobody else changes who belongs to the
// workspace.
func (d *Desk) take(ctx context.Context, tx Store, v Invited, token string) (Invitation, error) {
	if _, err := tx.LockWorkspace(ctx, v.Workspace); err != nil {
		return Invitation{}, err
	}
	i, err := tx.TakeInvitation(ctx, tokenHash(token), d.now())
	if problem.Is(err, problem.NotFound) {
		return i, noInvitation() // used, replaced or cancelled since it was looked up
	}
	return i, err
}

// join makes the user a member as they were invited. Who is one already keeps
// their role.
func (d *Desk) join(ctx context.Context, tx Store, w access.Workspace, u access.User, i Invitation) error {
	before, _, err := d.roleOf(ctx, tx, w.ID, u.ID)
	if err != nil || before != "" {
		return err
	}
	if err := tx.SetMember(ctx, w.ID, u.ID, i.Role, d.now()); err != nil {
		return err
	}
	me := d.grantOf(Person{User: u}, access.Membership{Workspace: w, Role: i.Role})
	return d.record(ctx, tx, me, audit.UserJoined, u.ID, map[string]any{"email": u.Email, "role": i.Role, "invitation": i.ID, "invited_by": i.By.ID})
}

// AcceptAs makes the person a member by an invitation to their own e-mail
// address. It fails as InvitedWith does, and with [problem.Forbidden] if the
// address is another's.
func (d *Desk) AcceptAs(ctx context.Context, p Person, token, address string) (Invited, error) {
	v, err := d.InvitedWith(ctx, token, address)
	if err != nil {
		return v, err
	}
	if p.User.Email != v.Email || p.User.ID != v.User {
		return v, problem.Errorf(problem.Forbidden, "the invitation is for another e-mail address than yours").
			WithFix("Log in as %s.", v.Email)
	}
	return v, d.InTx(ctx, func(tx Store) error {
		i, err := d.take(ctx, tx, v, token)
		if err != nil {
			return err
		}
		return d.join(ctx, tx, v.In, p.User, i)
	})
}

// An invitationView is an invitation as the API shows it.
type invitationView struct {
	ID        string      `json:"id"`
	Email     string      `json:"email"`
	Name      string      `json:"name"`
	Role      access.Role `json:"role"`
	InvitedBy string      `json:"invited_by"`
	CreatedAt time.Time   `json:"created_at"`
	ExpiresAt time.Time   `json:"expires_at"`
}

func viewOf(i Invitation) invitationView {
	return invitationView{i.ID, i.Email, i.Name, i.Role, i.By.Name, i.CreatedAt, i.ExpiresAt}
}

// inviteUser plans the action invite_user.
func (d *Desk) inviteUser(ctx context.Context, s Store, c catalog.Call, lock bool) (catalog.Plan, error) {
	text := func(name string) string { v, _ := c.Input.Values[name].(string); return v }
	in := Invite{Email: text("email"), Name: text("name"), Role: access.Role(text("role"))}.normal()
	p := catalog.Plan{Target: catalog.Target{Title: in.Email}, After: map[string]any{"email": in.Email, "role": string(in.Role)}}
	if in.Name != "" {
		p.After["name"] = in.Name
	}
	if err := d.mayInvite(ctx, s, c.Grant, in, lock); err != nil {
		return p, err
	}
	if in.Role == access.Admin {
		p.Checks = append(p.Checks, catalog.PlanCheck{Name: "role", Text: "An admin manages keys, decides approvals and invites others."})
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		by := c.Grant.Principal
		if c.Decider.ID != "" {
			by = c.Decider // whoever has said yes answers for it, and with them it ends
		}
		i, _, err := d.invite(ctx, catalog.As[Store](s), c.Grant, in, by)
		return catalog.Result{Data: encoded(viewOf(i)), Target: catalog.Target{ID: i.ID, Title: i.Email}}, err
	}
	return p, nil
}

// cancelInvitation plans the action cancel_invitation.
func (d *Desk) cancelInvitation(ctx context.Context, s Store, c catalog.Call) (catalog.Plan, error) {
	email, _ := c.Input.Values["email"].(string)
	p := catalog.Plan{Target: catalog.Target{Title: email}}
	i, err := d.invitationOf(ctx, s, c.Grant, email)
	if err != nil {
		return p, err
	}
	p.Before = map[string]any{"email": i.Email, "role": string(i.Role), "name": i.Name}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		err := d.cancel(ctx, catalog.As[Store](s), c.Grant, i)
		return catalog.Result{Data: encoded(map[string]any{"id": i.ID, "email": i.Email, "cancelled": true}), Target: catalog.Target{ID: i.ID, Title: i.Email}}, err
	}
	return p, nil
}

// listInvitations plans the action list_invitations. There are few, so that they
// are paged in memory; the cursor is the id of the last one seen.
func (d *Desk) listInvitations(ctx context.Context, s Store, a *catalog.Action, c catalog.Call) (catalog.Plan, error) {
	limit, after, err := pageIn(a, c.Input)
	if err != nil {
		return catalog.Plan{}, err
	}
	return catalog.Plan{Run: func(ctx context.Context, _ catalog.Store) (catalog.Result, error) {
		all, err := s.Invitations(ctx, c.Grant.Workspace.ID)
		if err != nil {
			return catalog.Result{}, err
		}
		slices.SortFunc(all, func(a, b Invitation) int { return strings.Compare(b.ID, a.ID) })
		if after != "" {
			all = slices.DeleteFunc(all, func(i Invitation) bool { return i.ID >= after })
		}
		page := &catalog.Pagination{Limit: limit, HasMore: len(all) > limit}
		if page.HasMore {
			all = all[:limit]
			page.NextCursor = all[limit-1].ID
		}
		views := make([]invitationView, len(all))
		for k, i := range all {
			views[k] = viewOf(i)
		}
		return catalog.Result{Data: encoded(views), Pagination: page}, nil
	}}, nil
}

// defaultPage is how many items a list has unless the caller says.
const defaultPage = 25

// pageIn returns how many items a list is to have, and after which id.
func pageIn(a *catalog.Action, in catalog.Input) (limit int, after string, err error) {
	limit = defaultPage
	if n, ok := in.Values["limit"].(json.Number); ok {
		of, _ := n.Int64() // normalized
		limit = int(of)
	}
	after, _ = in.Values["cursor"].(string)
	if after != "" && !typeid.ValidID("inv", after) {
		return 0, "", a.Refuse("cursor", "next_cursor of the page before", "another text", "Leave cursor out to begin anew.")
	}
	return limit, after, nil
}
