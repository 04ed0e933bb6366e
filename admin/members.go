package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
)

// AddUser makes a person who can log in, or finds the one with that e-mail
// address, and gives them a role in the workspace, without asking them; others
// than the operator invite people. passwordHash is ignored for a person who
// exists; only the operator may give one, because the person may come to be in
// other workspaces too. Who is there already gets the role as by ChangeRole.
func (d *Desk) AddUser(ctx context.Context, g access.Grant, email, name, passwordHash string, role access.Role) (access.User, error) {
	if err := requirePerson(g, "manages users"); err != nil {
		return access.User{}, err
	}
	if passwordHash != "" && g.Principal.Kind != access.KindOperator {
		return access.User{}, problem.Errorf(problem.InsufficientScope, "only the operator gives passwords to others").
			WithFix("Leave the password out.")
	}
	fields := personFields(email, name)
	if !role.AtMost(access.Owner) {
		fields = append(fields, problem.Field{Path: "role", Expected: "owner, admin or member", Got: fmt.Sprintf("%.50q", string(role))})
	}
	if err := refuseFields("the user", fields); err != nil {
		return access.User{}, err
	}
	var u access.User
	err := d.InTx(ctx, func(tx Store) error {
		if _, err := tx.LockWorkspace(ctx, g.Workspace.ID); err != nil {
			return err
		}
		found, _, err := tx.UserByEmail(ctx, email)
		switch {
		case err == nil:
			u = found
		case problem.Is(err, problem.NotFound):
			u = access.User{ID: typeid.NewID("usr"), Email: strings.ToLower(email), Name: name, CreatedAt: d.now()}
			if err := tx.CreateUser(ctx, u, passwordHash); err != nil {
				return err
			}
		default:
			return err
		}
		before, _, err := d.roleOf(ctx, tx, g.Workspace.ID, u.ID)
		if err != nil {
			return err
		}
		u.Role = role
		if before != "" {
			m, err := d.move(ctx, tx, g, u.ID, role, nil, true)
			if err != nil {
				return err
			}
			_, err = d.carryOut(ctx, tx, g, m)
			return err
		}
		users, err := tx.Users(ctx, g.Workspace.ID)
		if err != nil {
			return err
		}
		if err := within(g, users, role); err != nil {
			return err
		}
		if err := tx.SetMember(ctx, g.Workspace.ID, u.ID, role, d.now()); err != nil {
			return err
		}
		if _, err := tx.CancelInvitation(ctx, g.Workspace.ID, u.Email); err != nil && !problem.Is(err, problem.NotFound) {
			return err
		}
		return d.record(ctx, tx, g, audit.UserCreated, u.ID, map[string]any{"email": u.Email, "role": role})
	})
	return u, err
}

// roleOf returns the user's role in the workspace, "" if they have none, and
// how many owners it has.
func (d *Desk) roleOf(ctx context.Context, tx Store, workspace, user string) (role access.Role, owners int, err error) {
	users, err := tx.Users(ctx, workspace)
	for _, u := range users {
		if u.ID == user {
			role = u.Role
		}
		if u.Role == access.Owner {
			owners++
		}
	}
	return role, owners, err
}

// RemoveUser is RemoveMember of the person with the e-mail address.
func (d *Desk) RemoveUser(ctx context.Context, g access.Grant, email string, keep ...string) error {
	if err := requirePerson(g, "manages users"); err != nil {
		return err
	}
	u, _, err := d.Store.UserByEmail(ctx, email)
	if err != nil {
		return err
	}
	_, err = d.RemoveMember(ctx, g, u.ID, keep)
	return err
}

// RemoveMember ends a person's membership of the workspace. What they granted to
// OAuth clients ends, and the keys that they have made with those that came of
// them, and the clients that act for themselves which they registered: all of
// these know secrets that the person has seen. What these asked for is withdrawn.
// keep names keys, and grants of such clients, that stay in force. Invitations
// that the person made are cancelled. Records that name the person keep their id.
//
// Nobody removes who stands above them. It fails with [problem.NotFound] if the
// user is no member, and with [problem.Conflict] if they are the last owner.
func (d *Desk) RemoveMember(ctx context.Context, g access.Grant, user string, keep []string) (Ended, error) {
	return d.moved(ctx, g, user, "", keep)
}

// ChangeRole changes what a member of the workspace is. Who becomes a member
// only loses what RemoveMember ends but for the apps that they have connected,
// which then can do less. Nobody gives a role above their own, nor takes one.
func (d *Desk) ChangeRole(ctx context.Context, g access.Grant, user string, role access.Role, keep []string) (Ended, error) {
	if !role.AtMost(access.Owner) {
		return Ended{}, refuseFields("the user", []problem.Field{{Path: "role", Expected: "owner, admin or member", Got: fmt.Sprintf("%.50q", string(role))}})
	}
	return d.moved(ctx, g, user, role, keep)
}

func (d *Desk) moved(ctx context.Context, g access.Grant, user string, role access.Role, keep []string) (e Ended, err error) {
	if err := requirePerson(g, "decides who belongs to the workspace"); err != nil {
		return Ended{}, err
	}
	err = d.InTx(ctx, func(tx Store) error {
		m, err := d.move(ctx, tx, g, user, role, keep, true)
		if err != nil {
			return err
		}
		e, err = d.carryOut(ctx, tx, g, m)
		return err
	})
	return e, err
}

// Leaving returns what would end with a member's removal, or for a role other
// than "" with their getting it. It fails as that does.
func (d *Desk) Leaving(ctx context.Context, g access.Grant, user string, role access.Role) (Move, error) {
	if err := requireAdmin(g); err != nil {
		return Move{}, err
	}
	return d.move(ctx, d.Store, g, user, role, nil, false)
}

// A Move is a member's way to another role, or out of the workspace, that has
// been found possible.
type Move struct {
	User access.User // with the role that they have
	Role access.Role // that they get, "" if they leave

	Keys        []access.Key  // that they have made, or that came of those; not those that are revoked already
	Clients     []oauth.Grant // of OAuth clients that act for themselves, which they registered
	Grants      []oauth.Grant // what they have connected
	Invitations []Invitation  // that they have made, and could not any more
	Records     []catalog.Referrer

	keep []string
}

// Ends reports whether it ends anything but the membership itself.
func (m Move) Ends() bool { return len(m.Keys)+len(m.Clients)+len(m.Grants)+len(m.Invitations) > 0 }

// An Ended says how much a move has ended.
type Ended struct {
	Keys        int `json:"keys"`
	Clients     int `json:"clients"` // that act for themselves
	Grants      int `json:"grants"`
	Approvals   int `json:"approvals"` // withdrawn
	Invitations int `json:"invitations"`
}

// move finds out whether g can give the member the role, "" to remove them, and
// what ends with it. With lock nobody changes who belongs to the workspace until
// the transaction ends.
func (d *Desk) move(ctx context.Context, s Store, g access.Grant, user string, role access.Role, keep []string, lock bool) (Move, error) {
	workspace := g.Workspace.ID
	if lock {
		if _, err := s.LockWorkspace(ctx, workspace); err != nil {
			return Move{}, err
		}
	}
	users, err := s.Users(ctx, workspace)
	if err != nil {
		return Move{}, err
	}
	at := slices.IndexFunc(users, func(u access.User) bool { return u.ID == user })
	if at < 0 {
		return Move{}, problem.Errorf(problem.NotFound, "the user %.60q is not a member of the workspace", user).WithFix("List the users to find the right id.")
	}
	m := Move{User: users[at], Role: role, keep: keep}
	roles := []access.Role{m.User.Role}
	if role != "" {
		roles = append(roles, role)
	}
	if err := within(g, users, roles...); err != nil {
		return m, err
	}
	owners := 0
	for _, u := range users {
		if u.Role == access.Owner {
			owners++
		}
	}
	if m.User.Role == access.Owner && role != access.Owner && owners == 1 {
		return m, problem.Errorf(problem.Conflict, "%s is the last owner of the workspace", m.User.Email).WithFix("Make somebody else an owner first.")
	}
	if err := d.ends(ctx, s, workspace, &m); err != nil {
		return m, err
	}
	return m, m.checkKeep()
}

// ends finds what ends with the move.
func (d *Desk) ends(ctx context.Context, s Store, workspace string, m *Move) error {
	invitations, err := s.Invitations(ctx, workspace)
	if err != nil {
		return err
	}
	for _, i := range invitations {
		made := i.By.User == m.User.ID && (!access.Admin.AtMost(m.Role) || !i.Role.AtMost(m.Role))
		if made || i.Email == m.User.Email { // a link of their own would bring them back
			m.Invitations = append(m.Invitations, i)
		}
	}
	if access.Admin.AtMost(m.Role) || m.Role == m.User.Role {
		return nil
	}
	if m.Keys, err = keysOf(ctx, s, workspace, m.User.ID); err != nil {
		return err
	}
	if err := eachGrant(ctx, s, workspace, oauth.GrantQuery{InForce: true}, func(gr oauth.Grant) error {
		if gr.User == m.User.ID && m.Role == "" {
			m.Grants = append(m.Grants, gr)
		}
		if gr.User != "" {
			return nil
		}
		of, err := s.DelegationOf(ctx, workspace, gr.ID)
		if err != nil && !problem.Is(err, problem.NotFound) {
			return err
		}
		if err == nil && of.Maker == m.User.ID {
			m.Clients = append(m.Clients, gr)
		}
		return nil
	}); err != nil || m.Role != "" {
		return err
	}
	resource, ok := d.Catalog.Resource("users")
	if !ok {
		return nil
	}
	m.Records, err = resource.ReferTo(ctx, s, workspace, m.User.ID)
	return err
}

// keysOf returns the keys in force that the user has made, and those that these
// have made, which name the same user.
func keysOf(ctx context.Context, s Store, workspace, user string) (keys []access.Key, err error) {
	err = eachKey(ctx, s, workspace, func(k access.Key) {
		if k.CreatedBy.User == user && k.RevokedAt.IsZero() {
			keys = append(keys, k)
		}
	})
	return keys, err
}

// eachKey calls do for each key of the workspace, the newest first.
func eachKey(ctx context.Context, s Store, workspace string, do func(access.Key)) error {
	for after := ""; ; {
		keys, err := s.Keys(ctx, workspace, after, keyPage)
		if err != nil {
			return err
		}
		for _, k := range keys {
			after = k.ID
			do(k)
		}
		if len(keys) < keyPage {
			return nil
		}
	}
}

const keyPage = 100

// checkKeep refuses to keep what does not end, and a key whose maker ends.
func (m Move) checkKeep() error {
	var fields []problem.Field
	for i, id := range m.keep {
		bad := func(expected string) {
			fields = append(fields, problem.Field{Path: fmt.Sprintf("keep.%d", i), Expected: expected, Got: fmt.Sprintf("%.60q", id)})
		}
		at := slices.IndexFunc(m.Keys, func(k access.Key) bool { return k.ID == id })
		switch {
		case at >= 0 && m.Keys[at].Parent != "" && m.endsKey(m.Keys[at].Parent):
			bad("no key that came of another which ends: keep " + m.Keys[at].Parent + " too")
		case at < 0 && !slices.ContainsFunc(m.Clients, func(gr oauth.Grant) bool { return gr.ID == id }):
			bad("the id of a key in force that this person has made")
		}
	}
	return refuseFields("what is kept", fields)
}

// endsKey reports whether the key is among those that end.
func (m Move) endsKey(id string) bool {
	return slices.ContainsFunc(m.Keys, func(k access.Key) bool { return k.ID == id }) && !slices.Contains(m.keep, id)
}

// carryOut does what was found possible in the same transaction.
func (d *Desk) carryOut(ctx context.Context, tx Store, g access.Grant, m Move) (e Ended, err error) {
	workspace, detail := g.Workspace.ID, map[string]any{"email": m.User.Email}
	if len(m.keep) > 0 {
		detail["kept"] = m.keep
	}
	event := audit.UserRemoved
	if m.Role == "" {
		err = tx.RemoveMember(ctx, workspace, m.User.ID)
	} else {
		event, detail["role"], detail["before"] = audit.UserChanged, m.Role, m.User.Role
		err = tx.SetMember(ctx, workspace, m.User.ID, m.Role, d.now())
	}
	if err != nil {
		return e, err
	}
	if err := d.record(ctx, tx, g, event, m.User.ID, detail); err != nil {
		return e, err
	}
	for _, i := range m.Invitations {
		if err := d.cancel(ctx, tx, g, i); err != nil {
			return e, err
		}
		e.Invitations++
	}
	for _, gr := range slices.Concat(m.Grants, m.Clients) {
		if slices.Contains(m.keep, gr.ID) {
			continue
		}
		ended, err := d.endGrant(ctx, tx, g, &gr, m.User.ID)
		if err != nil {
			return e, err
		}
		if ended && gr.User == "" {
			e.Clients++
		} else if ended {
			e.Grants++
		}
		if err := d.withdraw(ctx, tx, g, gr.ID, &e); err != nil {
			return e, err
		}
	}
	for _, k := range m.Keys {
		if slices.Contains(m.keep, k.ID) {
			continue
		}
		if k, err = tx.Key(ctx, workspace, k.ID, true); err != nil {
			return e, err
		}
		if err := d.revoke(ctx, tx, g, k, map[string]any{"with": m.User.ID}); err != nil {
			return e, err
		}
		e.Keys++
		if err := d.withdraw(ctx, tx, g, k.ID, &e); err != nil {
			return e, err
		}
	}
	if m.Role == "" {
		err = d.unassign(ctx, tx, workspace, m.User.ID)
	}
	return e, err
}

// withdraw takes back what the credential has asked for.
func (d *Desk) withdraw(ctx context.Context, tx Store, g access.Grant, credential string, e *Ended) error {
	n, err := d.Gate.WithdrawAll(ctx, tx, g.Workspace.ID, credential, g.Principal)
	e.Approvals += n
	return err
}

// unassign takes the approvals off whom was to decide them: nobody looks at them
// there any more.
func (d *Desk) unassign(ctx context.Context, tx Store, workspace, user string) error {
	for _, q := range []approvals.Query{{Status: approvals.Pending}, {Execution: approvals.Failed}} {
		q.Assignee, q.Limit = user, approvals.MaxBatch
		for {
			open, err := tx.ListApprovals(ctx, workspace, q)
			if err != nil {
				return err
			}
			for _, a := range open {
				if _, err := tx.AssignApproval(ctx, workspace, a.ID, ""); err != nil && !problem.Is(err, problem.Conflict) {
					return err
				}
				q.Before = a.ID
			}
			if len(open) < q.Limit {
				break
			}
		}
	}
	return nil
}

// A MemberView is a member with what they have.
type MemberView struct {
	access.User
	Keys, Grants int // in force
}

// Members returns the members of the grant's workspace, by name.
func (d *Desk) Members(ctx context.Context, g access.Grant) ([]MemberView, error) {
	if err := requireAdmin(g); err != nil {
		return nil, err
	}
	users, err := d.Store.Users(ctx, g.Workspace.ID)
	if err != nil {
		return nil, err
	}
	keys, grants := map[string]int{}, map[string]int{}
	now := d.now()
	if err := eachKey(ctx, d.Store, g.Workspace.ID, func(k access.Key) {
		if k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt)) {
			keys[k.CreatedBy.User]++
		}
	}); err != nil {
		return nil, err
	}
	if err := eachGrant(ctx, d.Store, g.Workspace.ID, oauth.GrantQuery{InForce: true}, func(gr oauth.Grant) error {
		grants[gr.User]++
		return nil
	}); err != nil {
		return nil, err
	}
	all := make([]MemberView, len(users))
	for i, u := range users {
		all[i] = MemberView{u, keys[u.ID], grants[u.ID]}
	}
	return all, nil
}

// users plans the actions of the resource users that change who belongs to the
// workspace.
func (d *Desk) users(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	store := catalog.As[Store](s)
	if k := c.Grant.Principal.Kind; a.PeopleDecide && lock && c.Approval == "" && k != access.KindPerson && k != access.KindOperator {
		// Action.Level has seen to it; whoever changes that finds this.
		return catalog.Plan{}, problem.Errorf(problem.InsufficientScope, "%s waits for a person, whatever a credential holds", a.Name).WithFix("Ask an admin of the workspace.")
	}
	switch a.Name {
	case "invite_user":
		return d.inviteUser(ctx, store, c, lock)
	case "list_invitations":
		return d.listInvitations(ctx, store, a, c)
	case "cancel_invitation":
		return d.cancelInvitation(ctx, store, c)
	}
	role, _ := c.Input.Values["role"].(string)
	var keep []string
	tags, _ := c.Input.Values["keep"].([]any)
	for _, t := range tags {
		keep = append(keep, fmt.Sprint(t))
	}
	m, err := d.move(ctx, store, c.Grant, c.Input.ID, access.Role(role), keep, lock)
	p := catalog.Plan{Target: catalog.Target{ID: m.User.ID, Title: m.User.Name}}
	if p.Target.Title == "" {
		p.Target.Title = m.User.Email
	}
	if m.User.ID == "" {
		return catalog.Plan{}, err
	}
	values := func(r access.Role) map[string]any {
		v := map[string]any{"email": m.User.Email, "role": string(r)}
		if m.User.Name != "" {
			v["name"] = m.User.Name
		}
		return v
	}
	if p.Before = values(m.User.Role); m.Role != "" {
		p.After = values(m.Role)
	}
	if err != nil {
		return p, err
	}
	if text := m.says(); text != "" {
		p.Checks = append(p.Checks, catalog.PlanCheck{Name: "ends", Text: text})
	}
	if text := m.keeps(c.Grant.Principal.ID); text != "" {
		p.Checks = append(p.Checks, catalog.PlanCheck{Name: "keeps", Text: text})
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		e, err := d.carryOut(ctx, catalog.As[Store](s), c.Grant, m)
		answer := map[string]any{"id": m.User.ID, "ended": e}
		if m.Role == "" {
			answer["removed"], answer["records"] = true, recordsOf(m.Records)
		} else {
			answer["email"], answer["name"], answer["role"] = m.User.Email, m.User.Name, m.Role
		}
		return catalog.Result{Data: encoded(answer), Target: p.Target}, err
	}
	return p, nil
}

// recordsOf are the records that name a person, as the API shows them.
func recordsOf(all []catalog.Referrer) []map[string]any {
	views := []map[string]any{}
	for _, r := range all {
		views = append(views, map[string]any{"resource": r.Resource, "field": r.Field, "count": r.Count})
	}
	return views
}

// keeps tells in a sentence what of theirs stays in force, "" if nothing does. asker
// is the credential that wants it so.
func (m Move) keeps(asker string) string {
	var names []string
	for _, k := range m.Keys {
		if slices.Contains(m.keep, k.ID) {
			name := fmt.Sprintf("the key %q", k.Name)
			if k.ID == asker {
				name += ", which is the one that asks"
			}
			names = append(names, name)
		}
	}
	for _, g := range m.Clients {
		if slices.Contains(m.keep, g.ID) {
			name := "the client " + g.Client
			if g.ID == asker {
				name += ", which is the one that asks"
			}
			names = append(names, name)
		}
	}
	if names == nil {
		return ""
	}
	return "Of what is theirs stays in force: " + strings.Join(names, "; ") + "."
}

// says tells in a sentence what ends, "" if nothing does.
func (m Move) says() string {
	var parts []string
	count := func(n int, one, many string) {
		switch {
		case n == 1:
			parts = append(parts, "1 "+one)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, many))
		}
	}
	kept := 0
	for _, id := range m.keep {
		if strings.HasPrefix(id, "key_") {
			kept++
		}
	}
	count(len(m.Keys)-kept, "API key of theirs", "API keys of theirs")
	count(len(m.Clients)-(len(m.keep)-kept), "client that acts for itself", "clients that act for themselves")
	count(len(m.Grants), "connected app", "connected apps")
	count(len(m.Invitations), "invitation of or by them", "invitations of or by them")
	var text string
	if len(parts) > 0 {
		text = "With it end " + strings.Join(parts, ", ") + "."
	}
	var records int64
	for _, r := range m.Records {
		records += r.Count
	}
	if records > 0 {
		text = strings.TrimSpace(fmt.Sprintf("%s The records that name them keep their id: %d.", text, records))
	}
	return text
}
