package storage_test

import (
	"errors"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

func invitation(workspace, id, email string) admin.Invitation {
	return admin.Invitation{ID: id, Workspace: workspace, Email: email, Name: "Grace", Role: access.Member,
		By: access.Principal{Kind: access.KindPerson, ID: "usr_1", Name: "Ada", User: "usr_1"}, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
}

func TestInvitationsAreOneForEachAddress(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		workspace(t, db, "wsp_2")
		first := invitation("wsp_1", "inv_1", "grace@example.com")
		if got, err := db.SaveInvitation(ctx, first, "one"); err != nil || got != first {
			t.Errorf("saved: got %+v, %v, want %+v", got, err, first)
		}
		again := first
		again.ID, again.Email, again.Role, again.ExpiresAt = "inv_2", "GRACE@example.com", access.Admin, now.Add(2*time.Hour)
		got, err := db.SaveInvitation(ctx, again, "two")
		if err != nil || got.ID != "inv_1" || got.Role != access.Admin || got.Email != first.Email {
			t.Errorf("again: got %+v, %v, want the same with another role", got, err)
		}
		_, err = db.SaveInvitation(ctx, invitation("wsp_2", "inv_3", first.Email), "three")
		must(t, err)
		if all, err := db.Invitations(ctx, "wsp_1"); err != nil || len(all) != 1 {
			t.Errorf("got %+v, %v, want one", all, err)
		}
		for hash, at := range map[string]time.Time{"one": now, "two": now.Add(2 * time.Hour), "": now, "x\x00"[:1]: now} {
			if _, err := db.InvitationByHash(ctx, hash, at); !problem.Is(err, problem.NotFound) {
				t.Errorf("%q at %s: got %v, want %s", hash, at, err, problem.NotFound)
			}
			if _, err := db.TakeInvitation(ctx, hash, at); !problem.Is(err, problem.NotFound) {
				t.Errorf("take %q at %s: got %v, want %s", hash, at, err, problem.NotFound)
			}
		}
		wins := 0
		race(8, func(int) {
			switch got, err := db.TakeInvitation(ctx, "two", now); {
			case err == nil && got.ID == "inv_1":
				wins++ // only one comes here
			case !problem.Is(err, problem.NotFound):
				t.Errorf("got %v, %v", got, err)
			}
		})
		if wins != 1 {
			t.Errorf("%d have taken one invitation", wins)
		}
		if n, err := db.PurgeInvitations(ctx, now.Add(time.Hour)); err != nil || n != 0 {
			t.Errorf("purged %d before the end: %v", n, err)
		}
		if n, err := db.PurgeInvitations(ctx, now.Add(time.Hour+1e6)); err != nil || n != 1 {
			t.Errorf("purged %d after the end: %v, want 1", n, err)
		}
	})
}

// Two owners who go at once, each in a process of their own, leave one.
func TestLastOwnerStaysWithTwoProcesses(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		ctx := t.Context()
		dbs := []*storage.DB{storagetest.Open(t, url), storagetest.Open(t, url)}
		workspace(t, dbs[0], "wsp_1")
		users := []string{"usr_1", "usr_2"}
		for _, u := range users {
			must(t, dbs[0].CreateUser(ctx, access.User{ID: u, Email: u + "@example.com", CreatedAt: now}, ""))
		}
		for round := range 10 {
			for _, u := range users {
				must(t, dbs[0].SetMember(ctx, "wsp_1", u, access.Owner, now))
			}
			errs := make([]error, 2)
			race(2, func(i int) {
				if (round+i)%2 == 0 {
					errs[i] = dbs[i].RemoveMember(ctx, "wsp_1", users[i])
				} else {
					errs[i] = dbs[i].SetMember(ctx, "wsp_1", users[i], access.Member, now)
				}
			})
			all, err := dbs[0].Users(ctx, "wsp_1")
			must(t, err)
			owners := 0
			for _, u := range all {
				if u.Role == access.Owner {
					owners++
				}
			}
			if owners != 1 || !problem.Is(errors.Join(errs...), problem.Conflict) {
				t.Fatalf("round %d: got %d owners, %v, want one and a refusal", round, owners, errs)
			}
		}
	})
}
