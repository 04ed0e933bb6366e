package admin_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/server"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(storagetest.Run(m))
}

// A world is the whole server on a fresh database, with one workspace.
type world struct {
	t     testing.TB
	db    *storage.DB
	clock *storagetest.Clock
	s     *server.Server
	desk  *admin.Desk
	ws    access.Workspace
	op    access.Grant // the operator's
}

func eachWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	eachEmptyWorld(t, func(w *world) {
		var err error
		w.ws, err = w.desk.CreateWorkspace(w.t.Context(), "One", "Europe/Berlin")
		w.must(err)
		w.op = admin.OperatorGrant(w.ws)
		test(w)
	})
}

// eachEmptyWorld is eachWorld without the workspace.
func eachEmptyWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		cat, err := catalog.Load()
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, db: db, clock: storagetest.NewClock()}
		w.s, err = server.New(t.Context(), db, storagetest.Key, cat, server.Config{BaseURL: "https://crm.example.com",
			WebhookNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Now: w.clock.Now})
		w.must(err)
		w.desk = w.s.Desk
		w.desk.RefusalTime = 0 // where it does not matter it only takes time
		test(w)
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// denied checks that err is of the kind and says the words.
func (w *world) denied(err error, kind problem.Kind, words string) {
	w.t.Helper()
	if !problem.Is(err, kind) || !strings.Contains(err.Error(), words) {
		w.t.Errorf("got %v, want %s with %q", err, kind, words)
	}
	if err != nil && problem.Of(err).Fix == "" {
		w.t.Errorf("%v has no fix", err)
	}
}

func ptr[T any](v T) *T { return &v }

// rights returns the input for "full", "decide" (full, may decide) or scopes.
func rights(text string) admin.KeyInput {
	switch text {
	case "full":
		return admin.KeyInput{FullAccess: ptr(true)}
	case "decide":
		return admin.KeyInput{FullAccess: ptr(true), MayDecide: ptr(true)}
	}
	return admin.KeyInput{Scopes: ptr(strings.Fields(text))}
}

// make makes a key as g, and returns it with what its secret gives.
func (w *world) make(g access.Grant, in admin.KeyInput) (admin.MadeKey, access.Grant) {
	w.t.Helper()
	if in.Name == nil {
		in.Name = ptr("key")
	}
	made, err := w.desk.CreateKey(w.t.Context(), g, in)
	w.must(err)
	return made, w.allow(made.Secret)
}

// key makes a key as the operator, and returns its id and grant.
func (w *world) key(text string) (string, access.Grant) {
	w.t.Helper()
	made, g := w.make(w.op, rights(text))
	return made.Key.ID, g
}

// allow checks that the secret is accepted.
func (w *world) allow(s access.Secret) access.Grant {
	w.t.Helper()
	g, err := w.s.Auth.Authenticate(w.t.Context(), string(s), "")
	if err != nil {
		w.t.Fatalf("got %v, want the key accepted", err)
	}
	return g
}

// refused checks that the secret is refused with the words.
func (w *world) refused(s access.Secret, words string) {
	w.t.Helper()
	_, err := w.s.Auth.Authenticate(w.t.Context(), string(s), "")
	w.denied(err, problem.Unauthorized, words)
}

func (w *world) person(user string) access.Grant {
	return access.Grant{Principal: access.Principal{Kind: access.KindPerson, ID: user, Name: user, User: user}, Workspace: w.ws, Rights: access.FullRights}
}

// events returns the audit events of the target, oldest first.
func (w *world) events(target string) string {
	w.t.Helper()
	_, err := w.db.VerifyAudit(w.t.Context(), w.ws.ID)
	w.must(err)
	entries, err := w.db.AuditEntries(w.t.Context(), w.ws.ID, audit.Query{Target: target, Limit: 1000})
	w.must(err)
	var all []string
	for _, e := range slices.Backward(entries) {
		all = append(all, string(e.Event))
	}
	return strings.Join(all, " ")
}

func (w *world) ask(g access.Grant, first string) approvals.Approval {
	w.t.Helper()
	a, _ := w.s.Catalog.Find("create_contact")
	body := fmt.Appendf(nil, `{"first_name":%q}`, first)
	out, err := w.s.Gate.Do(w.t.Context(), g, a, approvals.Incoming{Input: body, Request: approvals.Request{Door: "rest", Method: "POST", Path: "/v1/contacts", Body: body}})
	w.must(err)
	return *out.Approval
}

func TestNobodyGivesMoreThanTheyMay(t *testing.T) {
	eachWorld(t, func(w *world) {
		_, full := w.key("full")
		decideID, decide := w.key("decide")
		plainID, _ := w.key("contacts:read")
		in := func(k admin.KeyInput) admin.KeyInput { k.Name = ptr("new"); return k }
		create := func(g access.Grant, k admin.KeyInput) error {
			_, err := w.desk.CreateKey(w.t.Context(), g, in(k))
			return err
		}
		update := func(g access.Grant, id string, k admin.KeyInput) error {
			_, err := w.desk.UpdateKey(w.t.Context(), g, id, k)
			return err
		}
		do := func(_ any, err error) error { return err }

		for name, err := range map[string]error{
			"create":        create(full, rights("decide")),
			"edit into":     update(full, plainID, admin.KeyInput{FullAccess: ptr(true), MayDecide: ptr(true), Scopes: &[]string{}}),
			"edit itself":   update(full, full.Principal.ID, admin.KeyInput{MayDecide: ptr(true)}),
			"edit such a":   update(full, decideID, admin.KeyInput{WebhookURL: ptr("http://127.0.0.1:9999/")}),
			"rotate such a": do(w.desk.RotateKey(w.t.Context(), full, decideID, 0)),
		} {
			if !problem.Is(err, problem.InsufficientScope) {
				w.t.Errorf("full key that may not decide, %s: got %v, want %s", name, err, problem.InsufficientScope)
			}
		}
		w.must(do(w.desk.RevokeKey(w.t.Context(), full, decideID)))
		if err := do(w.desk.ActivateKey(w.t.Context(), full, decideID)); !problem.Is(err, problem.InsufficientScope) {
			w.t.Errorf("activate: got %v, want %s", err, problem.InsufficientScope)
		}
		w.must(do(w.desk.ActivateKey(w.t.Context(), w.person("usr_1"), decideID)))
		w.must(create(full, rights("full")))
		w.must(create(full, rights("contacts:delete")))
		w.must(create(decide, rights("decide")))
		w.must(update(decide, decideID, admin.KeyInput{Name: ptr("still may")}))
		w.must(create(w.person("usr_1"), rights("decide")))
	})
}

func TestAKeyGivesNoMoreThanItHas(t *testing.T) {
	eachWorld(t, func(w *world) {
		until := w.clock.Now().Add(24 * time.Hour)
		in := rights("full")
		in.Limits, in.ExpiresAt = &access.Limits{PerMinute: 30, PerDay: 1000}, &until
		made, g := w.make(w.op, in)
		self := made.Key.ID
		otherID, _ := w.key("contacts:read") // 60 a minute, 10,000 a day, no expiry

		create := func(limits *access.Limits, expires *time.Time) error {
			k := rights("contacts:read")
			k.Name, k.Limits, k.ExpiresAt = ptr("child"), limits, expires
			_, err := w.desk.CreateKey(w.t.Context(), g, k)
			return err
		}
		update := func(id string, k admin.KeyInput) error {
			_, err := w.desk.UpdateKey(w.t.Context(), g, id, k)
			return err
		}
		for name, err := range map[string]error{
			"more a minute":        create(&access.Limits{PerMinute: 31, PerDay: 1000}, nil),
			"more a day":           create(&access.Limits{PerMinute: 30, PerDay: 1001}, nil),
			"no limit a minute":    create(&access.Limits{PerDay: 1000}, nil),
			"no limit":             create(&access.Limits{}, nil),
			"later":                create(nil, ptr(until.Add(time.Millisecond))),
			"never":                create(nil, &time.Time{}),
			"itself more":          update(self, admin.KeyInput{Limits: &access.Limits{PerMinute: 31, PerDay: 1000}}),
			"itself later":         update(self, admin.KeyInput{ExpiresAt: ptr(until.Add(time.Hour))}),
			"itself never":         update(self, admin.KeyInput{ExpiresAt: &time.Time{}}),
			"another more":         update(otherID, admin.KeyInput{Limits: &access.Limits{PerMinute: 60}}),
			"another never sooner": update(self, admin.KeyInput{Limits: &access.Limits{}}),
		} {
			if !problem.Is(err, problem.InsufficientScope) {
				w.t.Errorf("%s: got %v, want %s", name, err, problem.InsufficientScope)
			}
		}
		w.must(create(&access.Limits{PerMinute: 30, PerDay: 1000}, &until))
		w.must(create(&access.Limits{PerMinute: 1, PerDay: 1}, ptr(until.Add(-time.Hour))))
		w.must(update(otherID, admin.KeyInput{Name: ptr("renamed")})) // it had more before

		child, _ := w.make(g, rights("contacts:read"))
		if k := child.Key; k.Limits != (access.Limits{PerMinute: 30, PerDay: 1000}) || !k.ExpiresAt.Equal(until) {
			w.t.Errorf("by default: got %+v until %v, want the maker's", k.Limits, k.ExpiresAt)
		}

		// What the maker has today counts, not what it had when it asked.
		w.must(update(self, admin.KeyInput{Limits: &access.Limits{PerMinute: 20, PerDay: 1000}}))
		err := create(&access.Limits{PerMinute: 30, PerDay: 1000}, nil)
		w.denied(err, problem.InsufficientScope, "limit of 20 requests a minute")
	})
}

func TestOnlyAdminsManageKeys(t *testing.T) {
	eachWorld(t, func(w *world) {
		id, _ := w.key("contacts:read")
		_, scoped := w.key("contacts:delete company:delete users:delete")
		member := w.person("usr_m")
		member.Rights = scoped.Rights
		oauth := access.Grant{Principal: access.Principal{Kind: access.KindOAuth, ID: "ogr_1"}, Workspace: w.ws, Rights: access.FullRights}
		ctx := w.t.Context()
		for _, g := range []access.Grant{scoped, member, oauth, {Workspace: w.ws}} {
			for name, do := range map[string]func() error{
				"create":  func() error { _, err := w.desk.CreateKey(ctx, g, admin.KeyInput{Name: ptr("x")}); return err },
				"update":  func() error { _, err := w.desk.UpdateKey(ctx, g, id, admin.KeyInput{Name: ptr("x")}); return err },
				"key":     func() error { _, err := w.desk.Key(ctx, g, id); return err },
				"keys":    func() error { _, err := w.desk.Keys(ctx, g, "", 10); return err },
				"usage":   func() error { _, err := w.desk.Usage(ctx, g, id, time.Time{}); return err },
				"revoke":  func() error { _, err := w.desk.RevokeKey(ctx, g, id); return err },
				"active":  func() error { _, err := w.desk.ActivateKey(ctx, g, id); return err },
				"rotate":  func() error { _, err := w.desk.RotateKey(ctx, g, id, 0); return err },
				"delete":  func() error { return w.desk.DeleteKey(ctx, g, id) },
				"webhook": func() error { _, err := w.desk.Webhook(ctx, g, id); return err },
				"secret":  func() error { _, err := w.desk.RotateWebhook(ctx, g, id, 0); return err },
				"test":    func() error { _, err := w.desk.TestWebhook(ctx, g, id); return err },
				"resend":  func() error { _, err := w.desk.Resend(ctx, g, "msg_1"); return err },
				"company": func() error { return w.desk.UpdateWorkspace(ctx, g, w.ws) },
				"invite":  func() error { _, err := w.desk.AddUser(ctx, g, "a@example.com", "", "", access.Owner); return err },
				"remove":  func() error { return w.desk.RemoveUser(ctx, g, "a@example.com") },
				"own id":  func() error { _, err := w.desk.Key(ctx, g, g.Principal.ID); return err },
			} {
				if err := do(); !problem.Is(err, problem.InsufficientScope) {
					w.t.Errorf("%s %s: got %v, want %s", g.Principal.Kind, name, err, problem.InsufficientScope)
				}
			}
		}
		if got := w.events(id); got != "key.created" {
			w.t.Errorf("got the events %q, want only its making", got)
		}
	})
}

func TestKeysOfAnotherWorkspaceAreNotFound(t *testing.T) {
	eachWorld(t, func(w *world) {
		id, _ := w.key("contacts:read")
		other, err := w.desk.CreateWorkspace(w.t.Context(), "Two", "UTC")
		w.must(err)
		ctx := w.t.Context()
		_, full := w.make(admin.OperatorGrant(other), rights("decide"))
		for _, g := range []access.Grant{admin.OperatorGrant(other), full} {
			for _, id := range []string{id, "key_00000000000000000000000000", "key_\x00", "", "x"} {
				for name, do := range map[string]func() error{
					"update":  func() error { _, err := w.desk.UpdateKey(ctx, g, id, admin.KeyInput{Name: ptr("x")}); return err },
					"key":     func() error { _, err := w.desk.Key(ctx, g, id); return err },
					"usage":   func() error { _, err := w.desk.Usage(ctx, g, id, time.Time{}); return err },
					"revoke":  func() error { _, err := w.desk.RevokeKey(ctx, g, id); return err },
					"active":  func() error { _, err := w.desk.ActivateKey(ctx, g, id); return err },
					"rotate":  func() error { _, err := w.desk.RotateKey(ctx, g, id, 0); return err },
					"delete":  func() error { return w.desk.DeleteKey(ctx, g, id) },
					"webhook": func() error { _, err := w.desk.Webhook(ctx, g, id); return err },
					"secret":  func() error { _, err := w.desk.RotateWebhook(ctx, g, id, 0); return err },
					"test":    func() error { _, err := w.desk.TestWebhook(ctx, g, id); return err },
				} {
					if err := do(); !problem.Is(err, problem.NotFound) {
						w.t.Errorf("%s %s %q: got %v, want %s", g.Principal.Kind, name, id, err, problem.NotFound)
					}
				}
			}
			keys, err := w.desk.Keys(ctx, g, "", 10)
			w.must(err)
			if slices.ContainsFunc(keys, func(k access.Key) bool { return k.ID == id }) {
				w.t.Error("another workspace's key is listed")
			}
			w.denied(w.desk.UpdateWorkspace(ctx, g, w.ws), problem.NotFound, w.ws.ID)
		}
		if got := w.events(id); got != "key.created" {
			w.t.Errorf("got the events %q, want only its making", got)
		}
	})
}

func TestALifeOfAKey(t *testing.T) {
	eachWorld(t, func(w *world) {
		made, g := w.make(w.op, admin.KeyInput{Name: ptr(" Agent "), Scopes: &[]string{"contacts:read"}})
		id, ctx := made.Key.ID, w.t.Context()
		if made.Key.Name != "Agent" || made.Key.Limits != access.DefaultLimits || made.Key.Last4 != made.Secret.Last4() || g.Decide("contacts", access.Write) != access.Deny {
			w.t.Errorf("got %+v", made.Key)
		}
		w.clock.Advance(time.Minute)
		_, err := w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{Scopes: &[]string{"contacts:write-approval"}, Limits: &access.Limits{PerMinute: 5}})
		w.must(err)
		if g = w.allow(made.Secret); g.Decide("contacts", access.Write) != access.Queue || g.Limits != (access.Limits{PerMinute: 5}) {
			w.t.Errorf("the next request: got %s and %+v", g.Decide("contacts", access.Write), g.Limits)
		}
		_, err = w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{FullAccess: ptr(true)})
		w.must(err)
		if g = w.allow(made.Secret); !g.Rights.Full() {
			w.t.Error("the next request: got no full access")
		}
		_, err = w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{MayDecide: ptr(true)})
		w.must(err)
		k, err := w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{FullAccess: ptr(false), Scopes: &[]string{"contacts:write-approval"}})
		w.must(err)
		if k.Key.MayDecide || w.allow(made.Secret).MayDecide {
			w.t.Error("without full access it may still decide")
		}

		for range 2 {
			_, err = w.desk.RevokeKey(ctx, w.op, id)
			w.must(err)
			w.refused(made.Secret, "revoked")
		}
		keys, err := w.desk.Keys(ctx, w.op, "", 10)
		w.must(err)
		if len(keys) != 1 || keys[0].RevokedAt.IsZero() {
			w.t.Errorf("got %+v, want the revoked key in the list", keys)
		}
		for range 2 {
			_, err = w.desk.ActivateKey(ctx, w.op, id)
			w.must(err)
			w.allow(made.Secret)
		}

		rotated, err := w.desk.RotateKey(ctx, w.op, id, 2*time.Hour)
		w.must(err)
		if rotated.Key.ID != id || rotated.Secret == made.Secret || rotated.Key.Last4 != rotated.Secret.Last4() {
			w.t.Errorf("got %+v, want the same key with another secret", rotated.Key)
		}
		w.allow(made.Secret)
		w.allow(rotated.Secret)
		w.clock.Advance(2*time.Hour - time.Millisecond)
		w.allow(made.Secret)
		w.clock.Advance(time.Millisecond)
		w.refused(made.Secret, "replaced")
		at0, err := w.desk.RotateKey(ctx, w.op, id, 0)
		w.must(err)
		w.refused(rotated.Secret, "replaced")
		w.refused(made.Secret, "replaced")
		w.allow(at0.Secret)
		for _, overlap := range []time.Duration{-time.Second, admin.MaxOverlap + time.Second} {
			_, err = w.desk.RotateKey(ctx, w.op, id, overlap)
			w.denied(err, problem.Validation, "overlap")
		}
		// A later rotation with an overlap gives no longer life to older secrets.
		at1, err := w.desk.RotateKey(ctx, w.op, id, time.Hour)
		w.must(err)
		at2, err := w.desk.RotateKey(ctx, w.op, id, 100*time.Hour)
		w.must(err)
		w.clock.Advance(time.Hour)
		w.refused(at0.Secret, "replaced")
		w.allow(at1.Secret)
		w.allow(at2.Secret)

		w.s.Usage.Add(g, "get_contact", access.OutcomeOK)
		w.must(w.s.Usage.Flush(ctx))
		if counts, err := w.desk.Usage(ctx, w.op, id, time.Time{}); err != nil || len(counts) != 1 {
			w.t.Errorf("usage: got %v, %v, want one count", counts, err)
		}
		w.must(w.desk.DeleteKey(ctx, w.op, id))
		for _, s := range []access.Secret{made.Secret, rotated.Secret, at0.Secret, at1.Secret, at2.Secret} {
			w.refused(s, "not valid")
		}
		_, err = w.desk.Usage(ctx, w.op, id, time.Time{})
		w.denied(err, problem.NotFound, id)
		if counts, err := w.db.UsageHistory(ctx, w.ws.ID, id, time.Time{}); err != nil || len(counts) != 0 {
			w.t.Errorf("usage after the deletion: got %v, %v, want none", counts, err)
		}
		want := "key.created key.changed key.changed key.changed key.changed key.revoked key.activated key.rotated key.rotated key.rotated key.rotated key.deleted"
		if got := w.events(id); got != want {
			w.t.Errorf("got the events\n%s, want\n%s", got, want)
		}
	})
}

func TestWhoRotates(t *testing.T) {
	eachWorld(t, func(w *world) {
		topID, top := w.key("decide")
		child, childG := w.make(top, rights("full"))
		grandchild, _ := w.make(childG, rights("contacts:read"))
		otherID, _ := w.key("full")
		for _, tt := range []struct {
			name string
			g    access.Grant
			id   string
			ok   bool
		}{
			{"itself", top, topID, true}, {"its child", top, child.Key.ID, true}, {"its grandchild", top, grandchild.Key.ID, true},
			{"another", top, otherID, false}, {"its maker", childG, topID, false}, {"a person", w.person("usr_1"), otherID, true}, {"the operator", w.op, topID, true},
		} {
			_, err := w.desk.RotateKey(w.t.Context(), tt.g, tt.id, time.Hour)
			if tt.ok && err != nil || !tt.ok && !problem.Is(err, problem.InsufficientScope) {
				w.t.Errorf("%s: got %v, want it allowed: %t", tt.name, err, tt.ok)
			}
		}
		// Where only people decide, a key that could may still rotate itself.
		w.ws.Settings.PeopleOnly = true
		w.must(w.desk.UpdateWorkspace(w.t.Context(), w.op, w.ws))
		g, err := w.db.RequesterGrant(w.t.Context(), w.ws.ID, topID)
		w.must(err)
		_, err = w.desk.RotateKey(w.t.Context(), g, topID, 0)
		w.must(err)
	})
}

func TestChildrenGoWithTheirMaker(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		family := func() (ids []string, secrets []access.Secret) {
			in := rights("decide")
			in.Name = ptr("top")
			g := w.op
			for range 3 {
				made, next := w.make(g, in)
				if g.Principal.Kind == access.KindKey && made.Key.Parent != g.Principal.ID {
					w.t.Errorf("got the parent %q, want %s", made.Key.Parent, g.Principal.ID)
				}
				ids, secrets, g = append(ids, made.Key.ID), append(secrets, made.Secret), next
			}
			leaf, _ := w.make(g, rights("contacts:write-approval"))
			return append(ids, leaf.Key.ID), append(secrets, leaf.Secret)
		}

		ids, secrets := family()
		_, err := w.desk.RevokeKey(ctx, w.op, ids[1])
		w.must(err)
		w.allow(secrets[0])
		for _, s := range secrets[1:] {
			w.refused(s, "revoked")
		}
		_, err = w.desk.ActivateKey(ctx, w.op, ids[2])
		w.denied(err, problem.Conflict, ids[1])
		_, err = w.desk.ActivateKey(ctx, w.op, ids[1])
		w.must(err)
		w.allow(secrets[1])
		w.refused(secrets[2], "revoked") // each is activated by itself
		_, err = w.desk.ActivateKey(ctx, w.op, ids[2])
		w.must(err)
		_, err = w.desk.ActivateKey(ctx, w.op, ids[3])
		w.must(err)

		// What a key loses, those that it has made lose with it.
		_, err = w.desk.UpdateKey(ctx, w.op, ids[0], admin.KeyInput{MayDecide: ptr(false)})
		w.must(err)
		for _, s := range secrets[:3] {
			if g := w.allow(s); g.MayDecide || !g.Rights.Full() {
				w.t.Errorf("got may decide %t, full %t; want no decision, full access", g.MayDecide, g.Rights.Full())
			}
		}
		until := w.clock.Now().Add(time.Hour)
		_, err = w.desk.UpdateKey(ctx, w.op, ids[0], admin.KeyInput{ExpiresAt: &until})
		w.must(err)
		w.clock.Advance(time.Hour)
		for _, s := range secrets {
			w.refused(s, "expired")
		}
		_, err = w.desk.UpdateKey(ctx, w.op, ids[0], admin.KeyInput{ExpiresAt: &time.Time{}})
		w.must(err)
		w.allow(secrets[0])
		w.refused(secrets[1], "expired") // more is not inherited

		ids, secrets = family()
		_, err = w.desk.UpdateKey(ctx, w.op, ids[0], admin.KeyInput{FullAccess: ptr(false), Scopes: &[]string{"contacts:read"}})
		w.must(err)
		w.allow(secrets[0])
		for _, s := range secrets[1:] {
			w.refused(s, "revoked")
		}

		ids, secrets = family()
		a := w.ask(w.allow(secrets[3]), "Ada")
		w.must(w.desk.DeleteKey(ctx, w.op, ids[0]))
		for i, s := range secrets {
			w.refused(s, "not valid")
			if got := w.events(ids[i]); got != "key.created key.deleted" {
				w.t.Errorf("got the events %q of key %d", got, i)
			}
		}
		if got, err := w.db.Approval(ctx, w.ws.ID, a.ID); err != nil || got.Status != approvals.Withdrawn {
			w.t.Errorf("got %s, %v, want the request of a deleted key withdrawn", got.Status, err)
		}
	})
}

// A key that is revoked, deleted or demoted while it makes another does not
// leave that one behind.
func TestRevokingRacesWithMaking(t *testing.T) {
	for name, end := range map[string]func(w *world, id string) error{
		"revoke": func(w *world, id string) error { _, err := w.desk.RevokeKey(w.t.Context(), w.op, id); return err },
		"delete": func(w *world, id string) error { return w.desk.DeleteKey(w.t.Context(), w.op, id) },
		"demote": func(w *world, id string) error {
			_, err := w.desk.UpdateKey(w.t.Context(), w.op, id, admin.KeyInput{FullAccess: ptr(false)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachWorld(t, func(w *world) {
				for range 5 {
					id, g := w.key("full")
					_, mid := w.make(g, rights("full"))
					var mu sync.Mutex
					var secrets []access.Secret
					var wg sync.WaitGroup
					for range 4 {
						for _, maker := range []access.Grant{g, mid} {
							wg.Go(func() {
								in := rights("contacts:read")
								in.Name = ptr("child")
								made, err := w.desk.CreateKey(w.t.Context(), maker, in)
								if err == nil {
									mu.Lock()
									defer mu.Unlock()
									secrets = append(secrets, made.Secret)
								} else if !problem.Is(err, problem.InsufficientScope) {
									w.t.Error(err)
								}
							})
						}
					}
					wg.Go(func() {
						if err := end(w, id); err != nil {
							w.t.Error(err)
						}
					})
					wg.Wait()
					for _, s := range secrets {
						if _, err := w.s.Auth.Authenticate(w.t.Context(), string(s), ""); !problem.Is(err, problem.Unauthorized) {
							w.t.Fatalf("got %v, want the child refused with its maker", err)
						}
					}
				}
			})
		})
	}
}

func TestDeletingAKeyLetsDeliveriesFinish(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		in := rights("contacts:write-approval")
		in.WebhookURL = ptr("http://127.0.0.1:9999/")
		made, g := w.make(w.op, in)
		a := w.ask(g, "Ada")
		_, err := w.s.Gate.Reject(ctx, w.op, a.ID, "no")
		w.must(err)
		w.must(w.desk.DeleteKey(ctx, w.op, made.Key.ID))
		list, err := w.desk.Deliveries(ctx, w.op, webhook.Query{Limit: 10})
		w.must(err)
		if len(list) != 1 || list[0].State != "ready" {
			w.t.Errorf("got %+v, want the delivery on its way", list)
		}
		_, err = w.desk.Webhook(ctx, w.op, made.Key.ID)
		w.denied(err, problem.NotFound, made.Key.ID)
	})
}

// Who may not decide does not weaken a key that may, and does not get the
// secret that its webhooks are signed with.
func TestAKeyThatDecidesIsChangedOnlyByOneThatDecides(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		id, g := w.key("decide")
		_, err := w.desk.UpdateKey(ctx, g, id, admin.KeyInput{WebhookURL: ptr("http://127.0.0.1:9999/")})
		w.must(err)
		before := w.events(id)
		_, full := w.key("full")
		for name, do := range map[string]func() error{
			"rename": func() error { _, err := w.desk.UpdateKey(ctx, full, id, admin.KeyInput{Name: ptr("x")}); return err },
			"undo": func() error {
				_, err := w.desk.UpdateKey(ctx, full, id, admin.KeyInput{MayDecide: ptr(false)})
				return err
			},
			"limited": func() error {
				_, err := w.desk.UpdateKey(ctx, full, id, admin.KeyInput{FullAccess: ptr(false)})
				return err
			},
			"secret": func() error { _, err := w.desk.RotateWebhook(ctx, full, id, 0); return err },
		} {
			if err := do(); !problem.Is(err, problem.InsufficientScope) {
				w.t.Errorf("%s: got %v, want %s", name, err, problem.InsufficientScope)
			}
		}
		if got := w.events(id); got != before {
			w.t.Errorf("got the events %q, want %q", got, before)
		}
		_, other := w.key("decide")
		_, err = w.desk.RotateWebhook(ctx, other, id, 0)
		w.must(err)
		_, err = w.desk.UpdateKey(ctx, other, id, admin.KeyInput{MayDecide: ptr(false)})
		w.must(err)
	})
}

func TestManyScopesCostLittle(t *testing.T) {
	eachWorld(t, func(w *world) {
		made, _ := w.make(w.op, admin.KeyInput{Scopes: ptr(slices.Repeat([]string{"contacts:read", "deals:write"}, 5000))})
		if got := access.FormatScopes(made.Key.Scopes); len(made.Key.Scopes) != 2 || got != "contacts:read deals:write" {
			w.t.Errorf("got %d scopes, %q, want each once", len(made.Key.Scopes), got)
		}
		_, err := w.desk.CreateKey(w.t.Context(), w.op, admin.KeyInput{Name: ptr("x"), Scopes: ptr(slices.Repeat([]string{"x"}, 5000))})
		w.denied(err, problem.Validation, "")
		if n := len(problem.Of(err).Fields); n > 100 {
			w.t.Errorf("got %d faults told, want a bounded number", n)
		}
	})
}

func TestAllThatIsWrongIsTold(t *testing.T) {
	eachWorld(t, func(w *world) {
		in := admin.KeyInput{
			Name:          ptr("a\nb"),
			Scopes:        &[]string{"contacts:read", "contacts:send", "nothing:read", "x"},
			MayDecide:     ptr(true),
			Limits:        &access.Limits{PerMinute: -1, PerDay: 1e12},
			ExpiresAt:     ptr(w.clock.Now()),
			WebhookURL:    ptr("ftp://example.com"),
			WebhookEvents: &[]webhook.EventType{},
		}
		_, err := w.desk.CreateKey(w.t.Context(), w.op, in)
		w.denied(err, problem.Validation, "")
		var paths []string
		for _, f := range problem.Of(err).Fields {
			paths = append(paths, f.Path)
		}
		if got, want := strings.Join(paths, " "), "name scopes.1 scopes.2 scopes.3 may_decide limits.per_minute limits.per_day expires_at webhook_url"; got != want {
			w.t.Errorf("got the fields %q, want %q", got, want)
		}
		_, err = w.desk.CreateKey(w.t.Context(), w.op, admin.KeyInput{})
		w.denied(err, problem.MissingFields, "name")
		for _, name := range []string{"", "  ", strings.Repeat("é", 101), "a\x00", "\x1b[31m", "\xff"} {
			_, err = w.desk.CreateKey(w.t.Context(), w.op, admin.KeyInput{Name: &name})
			w.denied(err, problem.Validation, "")
		}
		in = rights("full")
		in.Name, in.Scopes = ptr("x"), &[]string{"contacts:read"}
		_, err = w.desk.CreateKey(w.t.Context(), w.op, in)
		w.denied(err, problem.Validation, "")
		_, err = w.desk.CreateKey(w.t.Context(), w.op, admin.KeyInput{Name: ptr("x"), ExpiresAt: ptr(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))})
		w.denied(err, problem.Validation, "")
		id, _ := w.key("contacts:read")
		_, err = w.desk.UpdateKey(w.t.Context(), w.op, id, admin.KeyInput{WebhookEvents: &[]webhook.EventType{webhook.ApprovalExecuted}})
		w.denied(err, problem.MissingFields, "webhook_url")
		keys, err := w.desk.Keys(w.t.Context(), w.op, "", 10)
		w.must(err)
		if len(keys) != 1 {
			w.t.Errorf("got %d keys, want only the good one", len(keys))
		}
	})
}

func TestWebhookOfAKey(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		id, g := w.key("contacts:write-approval")
		set := func(url string, events ...webhook.EventType) (admin.MadeKey, error) {
			in := admin.KeyInput{WebhookURL: &url}
			if events != nil {
				in.WebhookEvents = &events
			}
			return w.desk.UpdateKey(ctx, w.op, id, in)
		}
		for _, url := range []string{"http://example.com/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest", "gopher://127.0.0.1/",
			"https://2130706434.0.0.1/", "https://user:pw@127.0.0.1/", "not a url", "https://", "http://127.0.0.1:22/"} {
			_, err := set(url)
			w.denied(err, problem.Validation, "")
			if err != nil && (len(problem.Of(err).Fields) != 1 || problem.Of(err).Fields[0].Path != "webhook_url") {
				w.t.Errorf("%s: got the fields %v", url, problem.Of(err).Fields)
			}
		}
		_, err := set("http://127.0.0.1:9999/", "approval.nonsense")
		w.denied(err, problem.Validation, "approval.nonsense")
		_, err = w.desk.Webhook(ctx, w.op, id)
		w.denied(err, problem.NotFound, "")

		made, err := set("http://127.0.0.1:9999/a", webhook.ApprovalExecuted)
		w.must(err)
		if made.WebhookSecret == nil || made.Secret != "" {
			w.t.Error("got no new webhook secret, or a new key secret")
		}
		e, err := w.desk.Webhook(ctx, w.op, id)
		w.must(err)
		if e.URL != "http://127.0.0.1:9999/a" || len(e.Events) != 2 || e.Owner != id {
			w.t.Errorf("got %+v", e)
		}
		again, err := w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{Name: ptr("same webhook")})
		w.must(err)
		if again.WebhookSecret != nil {
			w.t.Error("got a new webhook secret for a new name")
		}
		secret, err := w.desk.RotateWebhook(ctx, w.op, id, time.Hour)
		w.must(err)
		if secret.Text() == made.WebhookSecret.Text() {
			w.t.Error("got the same secret after the rotation")
		}
		d, err := w.desk.TestWebhook(ctx, w.op, id)
		w.must(err)
		if _, err = w.desk.Resend(ctx, w.op, d.ID); !problem.Is(err, problem.Conflict) {
			w.t.Errorf("resend what is on its way: got %v, want %s", err, problem.Conflict)
		}
		own, err := w.desk.Deliveries(ctx, g, webhook.Query{Limit: 10})
		w.must(err)
		_, stranger := w.key("contacts:write-approval")
		none, err := w.desk.Deliveries(ctx, stranger, webhook.Query{Owner: id, Limit: 10})
		w.must(err)
		if len(own) != 1 || len(none) != 0 {
			w.t.Errorf("got %d own and %d of another, want 1 and 0", len(own), len(none))
		}
		for range 2 {
			_, err = w.desk.UpdateKey(ctx, w.op, id, admin.KeyInput{WebhookURL: ptr("")})
			w.must(err)
		}
		_, err = w.desk.TestWebhook(ctx, w.op, id)
		w.denied(err, problem.NotFound, "")
		want := "key.created webhook.set key.changed key.changed webhook.rotated webhook.tested webhook.removed key.changed key.changed"
		if got := w.events(id); got != want {
			w.t.Errorf("got the events\n%s, want\n%s", got, want)
		}
	})
}

func TestTheAuditLogHoldsNoSecret(t *testing.T) {
	eachWorld(t, func(w *world) {
		in := rights("decide")
		in.WebhookURL = ptr("http://127.0.0.1:9999/")
		made, _ := w.make(w.op, in)
		rotated, err := w.desk.RotateKey(w.t.Context(), w.op, made.Key.ID, time.Hour)
		w.must(err)
		_, err = w.desk.AddUser(w.t.Context(), w.op, "ada@example.com", "Ada", "$argon2id$hash", access.Owner)
		w.must(err)
		entries, err := w.db.AuditEntries(w.t.Context(), w.ws.ID, audit.Query{Limit: 100})
		w.must(err)
		text, err := json.Marshal(entries)
		w.must(err)
		for _, secret := range []string{string(made.Secret), made.Secret.Hash(), string(rotated.Secret), made.WebhookSecret.Text(), "argon2id"} {
			if strings.Contains(string(text), secret) {
				w.t.Errorf("the log holds %q", secret)
			}
		}
		if len(entries) < 5 {
			w.t.Errorf("got %d entries, want all that was done", len(entries))
		}
	})
}

func TestWorkspaceSettings(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		change := func(g access.Grant, fn func(*access.Workspace)) error {
			to := w.ws
			to.Settings.AlwaysAsk = slices.Clone(to.Settings.AlwaysAsk)
			fn(&to)
			err := w.desk.UpdateWorkspace(ctx, g, to)
			if err == nil {
				w.ws = to
			}
			return err
		}
		mark := func(resource, verb string) func(*access.Workspace) {
			return func(w *access.Workspace) {
				w.Settings.AlwaysAsk = append(w.Settings.AlwaysAsk, access.Mark{Resource: resource, Verb: verb})
			}
		}
		for name, fn := range map[string]func(*access.Workspace){
			"no name":         func(w *access.Workspace) { w.Name = "" },
			"plan":            func(w *access.Workspace) { w.Plan = "gold" },
			"time zone":       func(w *access.Workspace) { w.TimeZone = "Mars" },
			"local time":      func(w *access.Workspace) { w.TimeZone = "Local" },
			"short life":      func(w *access.Workspace) { w.Settings.ApprovalTTL = time.Minute },
			"long life":       func(w *access.Workspace) { w.Settings.ApprovalTTL = 31 * 24 * time.Hour },
			"script":          func(w *access.Workspace) { w.Settings.SupportURL = "javascript:alert(1)" },
			"mark of reading": mark("contacts", "read"), "unknown resource": mark("nothing", "write"), "unknown verb": mark("contacts", "burn"),
			"verb of another ladder": mark("contacts", "send"),
		} {
			if err := change(w.op, fn); !problem.Is(err, problem.Validation) {
				w.t.Errorf("%s: got %v, want %s", name, err, problem.Validation)
			}
		}
		w.must(change(w.person("usr_1"), mark("contacts", "delete")))
		w.must(change(w.person("usr_1"), func(w *access.Workspace) { w.Settings.PeopleOnly = true }))

		// The rules that bind keys are no key's to change.
		_, g := w.key("decide")
		for name, fn := range map[string]func(*access.Workspace){
			"people only": func(w *access.Workspace) { w.Settings.PeopleOnly = false },
			"always ask":  func(w *access.Workspace) { w.Settings.AlwaysAsk = nil },
			"life":        func(w *access.Workspace) { w.Settings.ApprovalTTL = time.Hour },
			"plan":        func(w *access.Workspace) { w.Plan = access.Free },
		} {
			if err := change(g, fn); !problem.Is(err, problem.InsufficientScope) {
				w.t.Errorf("key, %s: got %v, want %s", name, err, problem.InsufficientScope)
			}
		}
		w.must(change(g, func(w *access.Workspace) { w.Name, w.Settings.SupportURL = "Uno", "https://example.com/help" }))
		if got := w.events(w.ws.ID); got != "workspace.created workspace.changed workspace.changed workspace.changed" {
			w.t.Errorf("got the events %q", got)
		}
	})
}

func TestUsers(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		add := func(g access.Grant, email string, role access.Role) (access.User, error) {
			return w.desk.AddUser(ctx, g, email, "", "", role)
		}
		owner, err := w.desk.AddUser(ctx, w.op, "Owner@example.com", "Olga", "hash", access.Owner)
		w.must(err)
		for _, email := range []string{"", "x", "a@b@c", "Ada <ada@example.com>", "ada@example.com\n", "a\x00@example.com", "ada@"} {
			_, err := add(w.op, email, access.Member)
			w.denied(err, problem.Validation, "")
		}
		_, err = add(w.op, "ada@example.com", "king")
		w.denied(err, problem.Validation, "")

		// The last owner stays one.
		w.denied(w.desk.RemoveUser(ctx, w.op, "owner@example.com"), problem.Conflict, "last owner")
		for _, role := range []access.Role{access.Admin, access.Member} {
			_, err = add(w.op, "OWNER@example.com", role)
			w.denied(err, problem.Conflict, "last owner")
		}
		ada, err := add(w.person(owner.ID), "ada@example.com", access.Owner)
		w.must(err)

		// With the office go the keys.
		mine, _ := w.make(w.person(owner.ID), rights("full"))
		childs, _ := w.make(w.allow(mine.Secret), rights("contacts:read"))
		hers, _ := w.make(w.person(ada.ID), rights("full"))
		_, err = add(w.person(ada.ID), "owner@example.com", access.Admin)
		w.must(err)
		w.allow(mine.Secret)
		_, err = add(w.person(ada.ID), "owner@example.com", access.Member)
		w.must(err)
		w.refused(mine.Secret, "revoked")
		w.refused(childs.Secret, "revoked")
		w.allow(hers.Secret)
		_, err = w.desk.ActivateKey(ctx, w.person(ada.ID), mine.Key.ID)
		w.must(err)
		w.must(w.desk.RemoveUser(ctx, w.person(ada.ID), "owner@example.com"))
		w.refused(mine.Secret, "revoked")
		w.denied(w.desk.RemoveUser(ctx, w.op, "owner@example.com"), problem.NotFound, "not a member")
		if err := w.desk.RemoveUser(ctx, w.op, "nobody@example.com"); !problem.Is(err, problem.NotFound) {
			w.t.Errorf("got %v, want %s", err, problem.NotFound)
		}
		if got := w.events(owner.ID); got != "user.created user.changed user.changed user.removed" {
			w.t.Errorf("got the events %q", got)
		}
	})
}

// A user is one person in all workspaces, so no admin of one may do what would
// let them in to another as that person.
func TestUsersAreSharedByWorkspaces(t *testing.T) {
	eachWorld(t, func(w *world) {
		ctx := w.t.Context()
		two, err := w.desk.CreateWorkspace(ctx, "Two", "UTC")
		w.must(err)
		victim, err := w.desk.AddUser(ctx, admin.OperatorGrant(two), "victim@example.com", "Vic", "original", access.Owner)
		w.must(err)
		password := func() string {
			_, hash, err := w.db.UserByEmail(ctx, "victim@example.com")
			w.must(err)
			return hash
		}
		mallory, err := w.desk.AddUser(ctx, w.op, "mallory@example.com", "Mallory", "", access.Admin)
		w.must(err)
		attacker := w.person(mallory.ID)
		_, key := w.key("decide")

		// Taking them in neither changes nor tells their password.
		_, err = w.desk.AddUser(ctx, attacker, "victim@example.com", "Renamed", "", access.Member)
		w.must(err)
		_, err = w.desk.AddUser(ctx, w.op, "victim@example.com", "Renamed", "mine", access.Member)
		w.must(err)
		for _, g := range []access.Grant{attacker, key, {Workspace: w.ws}, {Principal: access.Principal{Kind: access.KindPerson}, Workspace: w.ws, Rights: access.FullRights}} {
			for _, email := range []string{"victim@example.com", "nobody@example.com"} {
				w.denied(w.desk.SetPassword(ctx, g, email, "mine"), problem.InsufficientScope, "")
			}
		}
		if got := password(); got != "original" {
			w.t.Errorf("got the password %q, want the original one", got)
		}
		// Nor can a trap be laid for who is yet to come.
		_, err = w.desk.AddUser(ctx, attacker, "future@example.com", "", "known", access.Member)
		w.denied(err, problem.InsufficientScope, "password")
		_, _, err = w.db.UserByEmail(ctx, "future@example.com")
		if !problem.Is(err, problem.NotFound) {
			w.t.Errorf("got %v, want no such user", err)
		}

		w.must(w.desk.SetPassword(ctx, w.person(victim.ID), "victim@example.com", "own"))
		if got := password(); got != "own" {
			w.t.Errorf("got %q, want the person's own", got)
		}
		w.must(w.desk.SetPassword(ctx, w.op, "victim@example.com", "reset"))
		if got := password(); got != "reset" {
			w.t.Errorf("got %q, want the operator's", got)
		}
		// A key makes no people: it could log in as one and decide for itself.
		_, err = w.desk.AddUser(ctx, key, "puppet@example.com", "", "", access.Owner)
		w.denied(err, problem.InsufficientScope, "person")
		w.denied(w.desk.RemoveUser(ctx, key, "victim@example.com"), problem.InsufficientScope, "person")
		if got := w.events(victim.ID); got != "user.created user.changed user.changed user.changed" {
			w.t.Errorf("got the events %q", got)
		}
	})
}
