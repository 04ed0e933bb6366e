package admin

import (
	"context"
	"strings"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
)

// isOwn reports whether g stands for the user whose grant it is: in the
// browser, or with a full-access key of theirs.
func isOwn(g access.Grant, gr oauth.Grant) bool {
	return gr.User != "" && gr.User == g.Principal.User && (g.Principal.Kind == access.KindPerson || g.Principal.Kind == access.KindKey && g.IsAdmin())
}

// seesGrants refuses credentials that are not an admin's. People see their own
// grants.
func seesGrants(g access.Grant) error {
	if g.Principal.Kind == access.KindPerson && g.Principal.User != "" {
		return nil
	}
	return requireAdmin(g)
}

// grant returns the grant if g may see it: an admin sees all, a person their
// own.
func (d *Desk) grant(ctx context.Context, s Store, g access.Grant, id string, forUpdate bool) (oauth.Grant, error) {
	if err := seesGrants(g); err != nil {
		return oauth.Grant{}, err
	}
	none := problem.Errorf(problem.NotFound, "there is no grant %.60q", id).WithFix("List the grants to find the right id.")
	if !typeid.ValidID("grt", id) {
		return oauth.Grant{}, none
	}
	gr, err := s.Grant(ctx, g.Workspace.ID, id, forUpdate)
	if err != nil {
		return gr, err
	}
	if !g.IsAdmin() && !isOwn(g, gr) {
		return oauth.Grant{}, none
	}
	return gr, nil
}

// Grant returns one grant that g may see.
func (d *Desk) Grant(ctx context.Context, g access.Grant, id string) (oauth.Grant, error) {
	return d.grant(ctx, d.Store, g, id, false)
}

// Grants returns a page of grants, newest first: all for admins, a person's own
// otherwise.
func (d *Desk) Grants(ctx context.Context, g access.Grant, q oauth.GrantQuery) ([]oauth.Grant, error) {
	if err := seesGrants(g); err != nil {
		return nil, err
	}
	if own := g.Principal.User; !g.IsAdmin() {
		if q.User != "" && q.User != own {
			return []oauth.Grant{}, nil
		}
		q.User = own
	}
	return d.Store.Grants(ctx, g.Workspace.ID, q)
}

// GrantBounds returns what the grant could give at most: the client's ceiling
// and the user's role.
func (d *Desk) GrantBounds(ctx context.Context, g access.Grant, id string) (access.Rights, error) {
	gr, err := d.Grant(ctx, g, id)
	if err != nil {
		return access.Rights{}, err
	}
	return d.bounds(ctx, d.Store, gr)
}

func (d *Desk) bounds(ctx context.Context, s Store, gr oauth.Grant) (access.Rights, error) {
	of, err := s.DelegationOf(ctx, gr.Workspace, gr.ID)
	if err != nil {
		return access.Rights{}, err
	}
	return access.RightsOf(of.Ceiling).Min(d.Catalog.RoleRights(of.User.Role)), nil
}

// ParseScopes reads scopes, each of which the catalog has. It fails with
// [problem.Validation].
func (d *Desk) ParseScopes(texts []string) ([]access.Scope, error) {
	var fields []problem.Field
	scopes := d.parseScopes(texts, func(path, expected, got string) {
		if len(fields) < maxFaults {
			fields = append(fields, problem.Field{Path: path, Expected: expected, Got: got})
		}
	})
	if len(fields) > 0 {
		return nil, &problem.Error{Kind: problem.Validation, Message: "some scopes do not exist", Fix: "Correct the scopes that are listed.", Fields: fields}
	}
	return scopes, nil
}

// UpdateGrant changes what a client may do for its user, from the next request
// on. The user may narrow and widen it within the client's ceiling and their
// role; an admin may only narrow what others have granted.
func (d *Desk) UpdateGrant(ctx context.Context, g access.Grant, id string, scopes []access.Scope) (oauth.Grant, error) {
	var after oauth.Grant
	err := d.InTx(ctx, func(tx Store) error {
		gr, err := d.grant(ctx, tx, g, id, true)
		if err != nil {
			return err
		}
		if gr.User == "" {
			return problem.Errorf(problem.Conflict, "the client acts for itself here: its ceiling says what it may do").
				WithFix("Change the scopes of the client %s.", gr.Client)
		}
		if !gr.RevokedAt.IsZero() {
			return problem.Errorf(problem.Conflict, "the grant %s is revoked", id).WithFix("The client has to be connected again.")
		}
		most, err := d.bounds(ctx, tx, gr)
		if err != nil {
			return err
		}
		if err := d.within(scopes, most, "the client's ceiling and the user's role"); err != nil {
			return err
		}
		if !isOwn(g, gr) {
			if err := d.within(scopes, access.RightsOf(gr.Scopes), "what the user has granted, which only they can widen"); err != nil {
				return err
			}
		}
		if err := tx.SetGrantScopes(ctx, gr.Workspace, id, scopes); err != nil {
			return err
		}
		after = gr
		after.Scopes = scopes
		if access.FormatScopes(scopes) == access.FormatScopes(gr.Scopes) {
			return nil
		}
		return d.record(ctx, tx, g, audit.GrantChanged, id, map[string]any{"client": gr.Client, "user": gr.User,
			"scopes": access.FormatScopes(scopes), "before": access.FormatScopes(gr.Scopes)})
	})
	return after, err
}

// within refuses scopes that go beyond most, naming them.
func (d *Desk) within(scopes []access.Scope, most access.Rights, bound string) error {
	var over []string
	for _, s := range scopes {
		if r, ok := d.Catalog.Resource(s.Resource); ok && !s.Levels().On(r.Ladder).Within(most.Levels(s.Resource)) {
			over = append(over, s.String())
		}
	}
	if over == nil {
		return nil
	}
	return problem.Errorf(problem.Validation, "these scopes go beyond %s: %s", bound, strings.Join(over, " ")).
		WithFix("Leave them out, or ask for a lower rung.")
}

// RevokeGrant ends the grant with all its tokens, from the next request on. Its
// pending approvals stay, and cannot be approved while it is revoked. Revoking
// twice is fine. The user can connect the client again; one that acts for itself
// is in force again with a new secret ([Desk.RotateClient]).
func (d *Desk) RevokeGrant(ctx context.Context, g access.Grant, id string) (oauth.Grant, error) {
	var gr oauth.Grant
	err := d.InTx(ctx, func(tx Store) error {
		var err error
		if gr, err = d.grant(ctx, tx, g, id, true); err != nil {
			return err
		}
		_, err = d.endGrant(ctx, tx, g, &gr, nil)
		return err
	})
	return gr, err
}

// RevokeGrants ends all grants of a client, of a user, or of both, and returns
// how many those were.
func (d *Desk) RevokeGrants(ctx context.Context, g access.Grant, clientID, user string) (int, error) {
	if err := requireAdmin(g); err != nil {
		return 0, err
	}
	if clientID == "" && user == "" {
		return 0, problem.Errorf(problem.MissingFields, "neither a client nor a user is given").
			WithFix(`Send {"client": "…"}, {"user": "…"} or both.`)
	}
	if !storable(clientID) || !storable(user) {
		return 0, nil
	}
	n := 0
	err := d.InTx(ctx, func(tx Store) error {
		n = 0
		return eachGrant(ctx, tx, g.Workspace.ID, oauth.GrantQuery{Client: clientID, User: user, InForce: true}, func(gr oauth.Grant) error {
			ended, err := d.endGrant(ctx, tx, g, &gr, nil)
			if ended {
				n++
			}
			return err
		})
	})
	return n, err
}

// endGrant revokes the grant and reports so, unless it is revoked already, or
// gone: of several who end it one does.
func (d *Desk) endGrant(ctx context.Context, tx Store, g access.Grant, gr *oauth.Grant, with any) (ended bool, err error) {
	locked, err := tx.Grant(ctx, gr.Workspace, gr.ID, true)
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if *gr = locked; !gr.RevokedAt.IsZero() {
		return false, nil
	}
	gr.RevokedAt = d.now()
	if err := tx.RevokeGrant(ctx, gr.Workspace, gr.ID, gr.RevokedAt); err != nil {
		return false, err
	}
	if err := d.Gate.EndLoans(ctx, tx, gr.Workspace, gr.ID, "the grant was revoked", g.Principal); err != nil {
		return false, err
	}
	return true, d.record(ctx, tx, g, audit.GrantRevoked, gr.ID, map[string]any{"client": gr.Client, "user": gr.User, "with": with})
}
