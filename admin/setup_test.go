package admin_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/problem"
)

// offer returns a new set-up token.
func (w *world) offer() string {
	w.t.Helper()
	token, err := w.desk.OfferSetUp(w.t.Context())
	w.must(err)
	return token
}

// first is a set-up that does.
func first(token string) admin.SetUp {
	return admin.SetUp{Token: token, Workspace: " Harbour & Pine ", TimeZone: "Europe/Berlin", Name: "Ada Lovelace", Email: " Ada@Example.com ", Password: "kitchen plumb orbit"}
}

func TestSetUp(t *testing.T) {
	eachEmptyWorld(t, func(w *world) {
		ctx := w.t.Context()
		token := w.offer()
		if len(token) != 43 {
			w.t.Errorf("the token is %q, want 256 bits in base64url", token)
		}
		if ws, err := w.desk.SetUpWith(ctx, token); err != nil || ws.ID != "" {
			w.t.Errorf("SetUpWith = %+v, %v; want no workspace yet", ws, err)
		}
		p, err := w.desk.SetUp(ctx, first(token))
		w.must(err)
		if p.User.Email != "ada@example.com" || p.User.Name != "Ada Lovelace" || len(p.Memberships) != 1 || p.Memberships[0].Role != access.Owner || p.Stamp == "" {
			w.t.Errorf("got %+v, want the owner", p)
		}
		w.ws = p.Memberships[0].Workspace
		if w.ws.Name != "Harbour & Pine" || w.ws.TimeZone != "Europe/Berlin" || w.ws.Plan != access.Pro {
			w.t.Errorf("got the workspace %+v", w.ws)
		}
		if again := w.login("ada@example.com", "kitchen plumb orbit", ""); again.Stamp != p.Stamp {
			w.t.Error("the login has another stamp than the session of the set-up")
		}
		want(w.t, "events", w.events(p.User.ID), "user.created person.login person.login")
		want(w.t, "events", w.events(w.ws.ID), "workspace.created")

		_, err = w.desk.SetUp(ctx, first(token))
		w.denied(err, problem.NotFound, "does not hold")
		_, err = w.desk.SetUpWith(ctx, token)
		w.denied(err, problem.NotFound, "does not hold")
		want(w.t, "token after the set-up", w.offer(), "")
	})
}

func TestSetUpTakesTheWorkspaceThatIsThere(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.member("ada@example.com", access.Member) // by a key or an admin: has no password
		token := w.offer()
		if ws, err := w.desk.SetUpWith(ctx, token); err != nil || ws.ID != w.ws.ID {
			w.t.Errorf("SetUpWith = %+v, %v; want the workspace", ws, err)
		}
		in := first(token)
		in.Workspace = "One"
		p, err := w.desk.SetUp(ctx, in)
		w.must(err)
		if len(p.Memberships) != 1 || p.Memberships[0].Workspace.ID != w.ws.ID || p.Memberships[0].Role != access.Owner || p.User.Name != "Ada Lovelace" {
			w.t.Errorf("got %+v, want Ada to own the workspace that is there", p)
		}
		all, err := w.db.Workspaces(ctx)
		w.must(err)
		if len(all) != 1 {
			w.t.Errorf("%d workspaces, want 1", len(all))
		}
	})
}

func TestNobodyIsOfferedASetUpThatIsOver(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		token := w.offer()
		w.withPassword("op@example.com", "right", access.Admin) // by the operator, meanwhile
		_, err := w.desk.SetUp(ctx, first(token))
		w.denied(err, problem.NotFound, "does not hold")
		want(w.t, "token where somebody can log in", w.offer(), "")
	})
	eachWorld(t, func(w *world) {
		_, err := w.desk.CreateWorkspace(w.t.Context(), "Two", "UTC")
		w.must(err)
		want(w.t, "token where there are two workspaces", w.offer(), "")
	})
}

func TestOnlyTheLastSetUpTokenHolds(t *testing.T) {
	eachEmptyWorld(t, func(w *world) {
		old, token := w.offer(), w.offer()
		for _, bad := range []string{old, "", "x", strings.Repeat("A", 43), token + "=", "\x00\xff"} {
			_, err := w.desk.SetUp(w.t.Context(), first(bad))
			w.denied(err, problem.NotFound, "does not hold")
		}
		_, err := w.desk.SetUp(w.t.Context(), first(token))
		w.must(err)
	})
}

func TestSetUpSaysWhatIsWrong(t *testing.T) {
	eachEmptyWorld(t, func(w *world) {
		token := w.offer()
		for path, change := range map[string]func(*admin.SetUp){
			"workspace": func(in *admin.SetUp) { in.Workspace = "  " },
			"time_zone": func(in *admin.SetUp) { in.TimeZone = "Mars/Base" },
			"name":      func(in *admin.SetUp) { in.Name = "" },
			"email":     func(in *admin.SetUp) { in.Email = "Ada <ada@example.com>" },
			"password":  func(in *admin.SetUp) { in.Password = "lovelace1815" },
		} {
			in := first(token)
			in.Name = "Lovelace"
			change(&in)
			_, err := w.desk.SetUp(w.t.Context(), in)
			w.denied(err, problem.Validation, "cannot be like that")
			if f := problem.Of(err).Fields; len(f) != 1 || f[0].Path != path || strings.Contains(fmt.Sprint(f), "lovelace1815") {
				w.t.Errorf("%s: got the fields %+v", path, f)
			}
		}
		_, err := w.desk.SetUp(w.t.Context(), admin.SetUp{Token: token})
		if n := len(problem.Of(err).Fields); n != 5 {
			w.t.Errorf("an empty form: got %d fields, want all 5", n)
		}
		_, err = w.desk.SetUp(w.t.Context(), first(token)) // what was wrong has not used the token up
		w.must(err)
	})
}

func TestOfManySetUpsOneWins(t *testing.T) {
	eachEmptyWorld(t, func(w *world) {
		token := w.offer()
		var won atomic.Int32
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				in := first(token)
				in.Email = fmt.Sprintf("u%d@example.com", i)
				_, err := w.desk.SetUp(w.t.Context(), in)
				if err == nil {
					won.Add(1)
				} else if !problem.Is(err, problem.NotFound) {
					w.t.Errorf("got %v, want the link not to hold", err)
				}
			})
		}
		all.Wait()
		spaces, err := w.db.Workspaces(w.t.Context())
		w.must(err)
		if won.Load() != 1 || len(spaces) != 1 {
			w.t.Fatalf("%d have won, and %d workspaces were made, want 1 each", won.Load(), len(spaces))
		}
		if users, err := w.db.Users(w.t.Context(), spaces[0].ID); err != nil || len(users) != 1 || users[0].Role != access.Owner {
			w.t.Errorf("got %+v (%v), want one owner", users, err)
		}
	})
}
