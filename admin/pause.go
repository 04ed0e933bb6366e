package admin

import (
	"context"
	"slices"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/typeid"
)

// Pause refuses the requests of a key and of those that stem from it, of a
// grant, of all grants of an OAuth client, or with "" of everything but people,
// from the next request on, and ends their loans. What they have asked for waits,
// and cannot be approved meanwhile. It can be resumed; revoking is for good or
// until somebody activates it. Doing it twice is fine.
//
// Stopping is safe, so a full-access key may do it too. Who is no admin may
// pause what acts for themselves; what an admin has paused, an admin resumes.
func (d *Desk) Pause(ctx context.Context, g access.Grant, credential string) error {
	return d.pause(ctx, g, credential, audit.AgentsPaused, func(tx Store, w *access.Workspace) ([]string, error) {
		pause := access.Pause{Credential: credential, By: g.Principal.Name, User: g.Principal.User, At: d.now()}
		held := slices.Clone(w.Settings.Paused)
		if i := slices.IndexFunc(held, func(p access.Pause) bool { return p.Credential == credential && p.With == "" }); i >= 0 {
			if !g.IsAdmin() || held[i].User == g.Principal.User {
				return nil, nil
			}
			held = slices.Delete(held, i, i+1) // it becomes this one's, to resume
		}
		held = slices.DeleteFunc(held, func(p access.Pause) bool { return p.With == credential && credential != "" })
		all := []string{credential}
		held = append(held, pause)
		if typeid.ValidID("key", credential) {
			children, err := descendants(ctx, tx, w.ID, credential)
			if err != nil {
				return nil, err
			}
			for _, c := range children {
				child := pause
				child.Credential, child.With = c.ID, credential
				held, all = append(held, child), append(all, c.ID)
			}
		}
		w.Settings.Paused = held
		return all, nil
	})
}

// Resume ends a pause, and for a key that of those that it stems were paused
// with. What was paused singly stays paused when all are resumed, and the other
// way round. Only people resume: a key that was paused could otherwise be resumed
// by another of its family.
func (d *Desk) Resume(ctx context.Context, g access.Grant, credential string) error {
	if k := g.Principal.Kind; k != access.KindPerson && k != access.KindOperator {
		return problem.Errorf(problem.InsufficientScope, "only people resume what was paused").
			WithFix("An admin does it under API and agents, or the operator: trustpager resume.")
	}
	return d.pause(ctx, g, credential, audit.AgentsResumed, func(_ Store, w *access.Workspace) ([]string, error) {
		before := len(w.Settings.Paused)
		w.Settings.Paused = slices.DeleteFunc(slices.Clone(w.Settings.Paused), func(p access.Pause) bool {
			return (p.Credential == credential || credential != "" && p.With == credential) && (g.IsAdmin() || p.User == g.Principal.User)
		})
		if len(w.Settings.Paused) == before {
			return nil, nil
		}
		return []string{credential}, nil
	})
}

// pause changes what is paused. change returns the credentials that it is about,
// none if nothing has changed.
func (d *Desk) pause(ctx context.Context, g access.Grant, credential string, event audit.Event, change func(tx Store, w *access.Workspace) ([]string, error)) error {
	return d.InTx(ctx, func(tx Store) error {
		if err := d.mayPause(ctx, tx, g, credential); err != nil {
			return err
		}
		w, err := tx.LockWorkspace(ctx, g.Workspace.ID)
		if err != nil {
			return err
		}
		changed, err := change(tx, &w)
		if err != nil || len(changed) == 0 {
			return err
		}
		if err := tx.UpdateWorkspace(ctx, w); err != nil {
			return err
		}
		for _, c := range changed {
			if event != audit.AgentsPaused {
				break
			}
			if err := d.Gate.EndLoans(ctx, tx, w.ID, c, "paused by "+g.Principal.Name, g.Principal); err != nil {
				return err
			}
		}
		return d.record(ctx, tx, g, event, credential, nil)
	})
}

// mayPause refuses g unless it may pause the credential, which has to be there.
func (d *Desk) mayPause(ctx context.Context, tx Store, g access.Grant, credential string) error {
	if typeid.ValidID("grt", credential) {
		_, err := d.grant(ctx, tx, g, credential, false) // admins see all, people their own
		return err
	}
	if err := requireAdmin(g); err != nil {
		return err
	}
	switch {
	case credential == "":
		return nil
	case typeid.ValidID("key", credential):
		_, err := tx.Key(ctx, g.Workspace.ID, credential, false)
		return err
	}
	_, _, err := client(ctx, tx, g.Workspace.ID, credential, false)
	if problem.Is(err, problem.NotFound) {
		return problem.Errorf(problem.NotFound, "there is no key, client or grant %.100q", credential).WithFix("List them to find the right id.")
	}
	return err
}
