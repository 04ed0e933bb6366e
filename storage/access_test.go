package storage_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

func TestUsageAddsUp(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		ctx := t.Context()
		workspace(t, dbs[0], "wsp_1")
		for i := range 5 {
			key(t, dbs[0], "wsp_1", fmt.Sprint("key_", i))
		}
		hour := now.Truncate(time.Hour)
		race(20, func(i int) {
			var counts []access.Count
			var last []access.LastUse
			for j := range 250 { // more than one statement holds
				j = (j + i*37) % 250
				counts = append(counts, access.Count{Workspace: "wsp_1", Credential: fmt.Sprint("key_", j%5), Hour: hour, Action: fmt.Sprint("a", j), Outcome: access.OutcomeOK, N: 2})
			}
			counts = append(counts, access.Count{Workspace: "wsp_1", Credential: "key_0", Hour: hour, Action: "a", Outcome: access.OutcomeLimited, N: 1000},
				access.Count{Workspace: "wsp_1", Credential: "key_0", Hour: hour.Add(-time.Hour), Action: "a", Outcome: access.OutcomeDenied, N: 1})
			for j := range 5 {
				last = append(last, access.LastUse{Workspace: "wsp_1", Credential: fmt.Sprint("key_", (j+i)%5), At: now.Add(time.Second), Action: "a"})
			}
			if err := dbs[i%len(dbs)].AddUsage(ctx, counts, last); err != nil {
				t.Errorf("AddUsage: %v", err)
			}
		})
		for _, tt := range []struct {
			credential string
			hours      int
			want       int64
		}{{"key_0", 0, 2000}, {"key_0", 1, 2020}, {"key_1", 0, 2000}, {"key_9", 1, 0}} {
			got, err := dbs[0].UsedSince(ctx, "wsp_1", tt.credential, hour.Add(-time.Duration(tt.hours)*time.Hour))
			if got != tt.want || err != nil {
				t.Errorf("UsedSince(%s, %d hours ago): got %d, %v; want %d without what was limited", tt.credential, tt.hours, got, err, tt.want)
			}
		}
		history, err := dbs[0].UsageHistory(ctx, "wsp_1", "key_0", hour.Add(-time.Hour))
		if err != nil || len(history) != 52 || history[0].Outcome != access.OutcomeDenied || history[0].N != 20 {
			t.Errorf("UsageHistory: got %d rows, %v; want 52, the oldest first", len(history), err)
		}
		// An earlier use that is told later changes nothing.
		must(t, dbs[0].AddUsage(ctx, nil, []access.LastUse{{Workspace: "wsp_1", Credential: "key_0", At: now, Action: "b"}}))
		if k, err := dbs[0].Key(ctx, "wsp_1", "key_0", false); err != nil || !k.LastUsedAt.Equal(now.Add(time.Second)) || k.LastUsedFor != "a" {
			t.Errorf("last use: got %v for %q, %v; want the latest", k.LastUsedAt, k.LastUsedFor, err)
		}
	})
}

// Past calls are those that were decided about, by action; of a client, those of
// its grants that are in force, by what their users have granted and are.
func TestPastCalls(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		hour := now.Truncate(time.Hour)
		workspace(t, db, "wsp_1")
		must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_1", Workspace: "wsp_1", Origin: oauth.Registered, Name: "App", CreatedAt: now}))
		must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_2", Workspace: "wsp_1", Origin: oauth.Registered, Name: "Other", CreatedAt: now}))
		scopes := []access.Scope{{Resource: "contacts", Rung: "write"}}
		grant := func(id, client, user string, role access.Role) {
			if user != "" {
				must(t, db.CreateUser(ctx, access.User{ID: user, Email: user + "@example.com", CreatedAt: now}, ""))
			}
			if role != "" {
				must(t, db.SetMember(ctx, "wsp_1", user, role, now))
			}
			g := oauth.Grant{ID: id, Workspace: "wsp_1", Client: client, User: user, Scopes: scopes, CreatedAt: now, ConsentedAt: now}
			if user == "" {
				g.Scopes = nil
			}
			if _, err := db.SaveGrant(ctx, g); err != nil {
				t.Fatal(err)
			}
		}
		grant("grt_1", "cli_1", "usr_1", access.Member)
		grant("grt_2", "cli_1", "usr_2", access.Member)
		grant("grt_3", "cli_1", "usr_3", access.Owner)
		grant("grt_4", "cli_1", "", "")
		grant("grt_5", "cli_1", "usr_5", access.Member)
		must(t, db.RevokeGrant(ctx, "wsp_1", "grt_5", now))
		grant("grt_6", "cli_2", "usr_6", access.Member)
		grant("grt_7", "cli_1", "usr_7", "")
		var counts []access.Count
		for i := range 8 {
			credential := fmt.Sprint("grt_", i)
			for h, o := range []access.Outcome{access.OutcomeOK, access.OutcomeQueued, access.OutcomeDenied, access.OutcomeInvalid, access.OutcomeLimited, access.OutcomeFailed} {
				counts = append(counts, access.Count{Workspace: "wsp_1", Credential: credential, Hour: hour.Add(time.Duration(h%2) * time.Hour), Action: "a", Outcome: o, N: 1})
			}
			counts = append(counts, access.Count{Workspace: "wsp_1", Credential: credential, Hour: hour, Action: "b", Outcome: access.OutcomeOK, N: 5},
				access.Count{Workspace: "wsp_1", Credential: credential, Hour: hour.Add(-time.Hour), Action: "b", Outcome: access.OutcomeOK, N: 1000})
		}
		must(t, db.AddUsage(ctx, counts, nil))
		got, err := db.PastCalls(ctx, "wsp_1", "grt_1", hour)
		if want := []access.PastCalls{{Action: "a", N: 3}, {Action: "b", N: 5}}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("of a credential: got %+v, %v; want %+v", got, err, want)
		}
		got, err = db.PastCallsOfClient(ctx, "wsp_1", "cli_1", hour, 10)
		want := []access.PastCalls{{Action: "a", N: 3, Itself: true}, {Action: "b", N: 5, Itself: true},
			{Action: "a", N: 3, Scopes: scopes}, {Action: "b", N: 5, Scopes: scopes},
			{Action: "a", N: 6, Scopes: scopes, Role: access.Member}, {Action: "b", N: 10, Scopes: scopes, Role: access.Member},
			{Action: "a", N: 3, Scopes: scopes, Role: access.Owner}, {Action: "b", N: 5, Scopes: scopes, Role: access.Owner}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("of a client: got %+v, %v; want %+v", got, err, want)
		}
		must(t, db.AddUsage(ctx, nil, []access.LastUse{{Workspace: "wsp_1", Credential: "grt_3", At: now, Action: "a"}}))
		got, err = db.PastCallsOfClient(ctx, "wsp_1", "cli_1", hour, 1)
		if want := want[6:]; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("of the one that was used last: got %+v, %v; want %+v", got, err, want)
		}
		for _, none := range []func() ([]access.PastCalls, error){
			func() ([]access.PastCalls, error) { return db.PastCalls(ctx, "wsp_1", "grt_9", hour) },
			func() ([]access.PastCalls, error) { return db.PastCallsOfClient(ctx, "wsp_1", "cli_9", hour, 10) },
		} {
			if got, err := none(); err != nil || len(got) != 0 {
				t.Errorf("of nobody: got %+v, %v", got, err)
			}
		}
	})
}

func TestWorkspaceKeepsAnOwner(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		ctx := t.Context()
		for round := range 5 {
			ws := workspace(t, dbs[0], fmt.Sprint("wsp_", round)).ID
			for i := range 2 {
				id := fmt.Sprint("usr_", round, i)
				must(t, dbs[0].CreateUser(ctx, access.User{ID: id, Email: id + "@example.com", CreatedAt: now}, ""))
				must(t, dbs[0].SetMember(ctx, ws, id, access.Owner, now))
			}
			errs := make([]error, 2)
			race(2, func(i int) {
				id := fmt.Sprint("usr_", round, i)
				if round%2 == 0 {
					errs[i] = dbs[i%len(dbs)].RemoveMember(ctx, ws, id)
				} else {
					errs[i] = dbs[i%len(dbs)].SetMember(ctx, ws, id, access.Member, now)
				}
			})
			if ok := slices.Index(errs, nil); ok < 0 || !problem.Is(errs[1-ok], problem.Conflict) {
				t.Errorf("both owners at once: got %v, want one done and one refused", errs)
			}
			users, err := dbs[0].Users(ctx, ws)
			must(t, err)
			if n := len(slices.DeleteFunc(users, func(u access.User) bool { return u.Role != access.Owner })); n != 1 {
				t.Errorf("%d owners are left, want 1", n)
			}
		}
	})
}

func TestKeysAreListedNewestFirst(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		for _, id := range []string{"key_0a", "key_01", "key_zz", "key_z1", "key_10"} {
			key(t, db, "wsp_1", id)
		}
		var got []string
		for after := ""; ; {
			page, err := db.Keys(ctx, "wsp_1", after, 2)
			must(t, err)
			for _, k := range page {
				got = append(got, k.ID)
				after = k.ID
			}
			if len(page) < 2 {
				break
			}
		}
		if want := "key_zz key_z1 key_10 key_0a key_01"; strings.Join(got, " ") != want {
			t.Errorf("Keys: got %v, want %s", got, want)
		}
	})
}

func TestUsersAreListedByteByByte(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		for i, name := range []string{"ada", "Zoe", "Öl", "Bob", "_x"} {
			id := fmt.Sprint("usr_", i)
			must(t, db.CreateUser(ctx, access.User{ID: id, Email: id + "@example.com", Name: name, CreatedAt: now}, ""))
			must(t, db.SetMember(ctx, "wsp_1", id, access.Member, now))
		}
		users, err := db.Users(ctx, "wsp_1")
		must(t, err)
		var got []string
		for _, u := range users {
			got = append(got, u.Name)
		}
		if want := "Bob Zoe _x ada Öl"; strings.Join(got, " ") != want {
			t.Errorf("Users: got %v, want %s, the order of bytes that cursors rely on", got, want)
		}
	})
}

func TestKeyIsFoundByItsSecretsUntilItIsDeleted(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		k, first := key(t, db, "wsp_1", "key_1")
		shown := func(s access.Secret) access.Shown {
			t.Helper()
			got, err := db.KeyBySecret(ctx, s.Hash())
			if err != nil || got.Key.ID != "key_1" || got.Workspace.ID != "wsp_1" || access.FormatScopes(got.Key.Scopes) != access.FormatScopes(k.Scopes) || got.Key.CreatedBy != access.Operator {
				t.Errorf("KeyBySecret: got %+v, %v", got, err)
			}
			return got
		}
		shown(first)
		second := access.NewSecret()
		k.Last4 = second.Last4()
		until := now.Add(time.Hour)
		must(t, db.RotateKey(ctx, k, second.Hash(), until, now))
		if got := shown(first).Superseded; !got.Equal(until) {
			t.Errorf("the first secret ends at %v, want %v", got, until)
		}
		if got := shown(second); !got.Superseded.IsZero() || got.Key.Last4 != second.Last4() {
			t.Errorf("the second secret: got %+v, want the current one", got)
		}
		third := access.NewSecret()
		must(t, db.RotateKey(ctx, k, third.Hash(), now.Add(9*time.Hour), now))
		if got := shown(first).Superseded; !got.Equal(until) {
			t.Errorf("the first secret after another rotation ends at %v, want %v still", got, until)
		}
		child, grandchild := k, k
		child.ID, child.Parent = "key_2", "key_1"
		grandchild.ID, grandchild.Parent = "key_3", "key_2"
		must(t, db.CreateKey(ctx, child, "h2"))
		must(t, db.CreateKey(ctx, grandchild, "h3"))
		if got, err := db.ChildKeys(ctx, "wsp_1", "key_1"); err != nil || !slices.Equal(got, []string{"key_2", "key_3"}) {
			t.Errorf("ChildKeys: got %v, %v; want key_2 and key_3", got, err)
		}
		if got, err := db.ChildKeys(ctx, "wsp_1", ""); err != nil || len(got) != 0 {
			t.Errorf("ChildKeys of nobody: got %v, %v; want none", got, err)
		}
		must(t, db.DeleteKey(ctx, "wsp_1", "key_1"))
		for _, s := range []access.Secret{first, second, third} {
			if _, err := db.KeyBySecret(ctx, s.Hash()); !problem.Is(err, problem.NotFound) {
				t.Errorf("KeyBySecret of a deleted key: got %v, want %s", err, problem.NotFound)
			}
		}
	})
}
