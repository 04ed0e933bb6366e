package admin_test

import (
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
)

// A pause of a key holds up what stems from it, a client that it has registered
// too, and resuming it all.
func TestPauseOfAFamily(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		root, g := w.make(w.op, rights("full"))
		child, cg := w.make(g, rights("full"))
		grandchild, _ := w.make(cg, rights("contacts:read"))
		other, _ := w.make(w.op, rights("contacts:read"))
		w.must(w.desk.Pause(ctx, w.op, grandchild.Key.ID)) // singly
		w.must(w.desk.Pause(ctx, w.op, root.Key.ID))
		paused := func(s access.Secret, want bool) {
			w.t.Helper()
			_, err := w.s.Auth.Authenticate(ctx, string(s), "")
			if problem.Is(err, problem.Paused) != want {
				w.t.Errorf("got %v, want paused: %v", err, want)
			}
		}
		for _, s := range []access.Secret{root.Secret, child.Secret, grandchild.Secret} {
			paused(s, true)
		}
		paused(other.Secret, false)

		// A child that was being made at that moment.
		g.Workspace, _ = w.db.Workspace(ctx, w.ws.ID)
		in := rights("contacts:read")
		in.Name = ptr("late")
		late, err := w.desk.CreateKey(ctx, g, in)
		w.must(err)
		paused(late.Secret, true)

		w.must(w.desk.Resume(ctx, w.op, root.Key.ID))
		paused(root.Secret, false)
		paused(child.Secret, false)
		paused(late.Secret, false)
		paused(grandchild.Secret, true)
		w.must(w.desk.Resume(ctx, w.op, grandchild.Key.ID))
		paused(grandchild.Secret, false)
	})
}

// What an admin has paused, an admin resumes, also if its user has paused it
// first.
func TestPauseOnTopOfAPause(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		mia := w.member("mia@example.com", access.Member)
		grant := w.grantOf(w.client(w.op, admin.ClientInput{Name: ptr("Mailbot")}).Client.ID, mia, "contacts:read").ID
		g := w.browser(mia.Email)
		w.must(w.desk.Pause(ctx, g, grant))
		w.must(w.desk.Pause(ctx, w.op, grant))
		w.must(w.desk.Resume(ctx, g, grant))
		if got, err := w.db.Workspace(ctx, w.ws.ID); err != nil || len(got.Settings.Paused) != 1 {
			w.t.Errorf("after the member's resume: got %+v, %v; want it paused", got.Settings.Paused, err)
		}
		w.must(w.desk.Resume(ctx, w.op, grant))
		w.must(w.desk.Pause(ctx, g, grant))
		w.must(w.desk.Resume(ctx, g, grant)) // their own they resume
		if got, err := w.db.Workspace(ctx, w.ws.ID); err != nil || len(got.Settings.Paused) != 0 {
			w.t.Errorf("got %+v, %v; want nothing paused", got.Settings.Paused, err)
		}
	})
}
