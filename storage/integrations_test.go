package storage_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"trustpager/integrations"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

func mailbox(id, workspace string) integrations.Account {
	return integrations.Account{ID: id, Workspace: workspace, Kind: integrations.EmailKind, Name: "Sales", Sealed: "v1.sealed",
		Settings: integrations.Settings{Address: "sales@example.com", SMTPHost: "smtp.example.com", SMTPPort: 587, IMAPHost: "imap.example.com", Numbers: []string{"+491701234567"}},
		Active:   true, State: integrations.Working, StateText: "It works.", CheckedAt: now, Version: 1, CreatedAt: now, UpdatedAt: now}
}

func TestAccountComesBackAsItWasStored(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		workspace(t, db, "wsp_2")
		a := mailbox("int_1", "wsp_1")
		must(t, db.CreateAccount(ctx, a))
		must(t, db.CreateAccount(ctx, mailbox("int_3", "wsp_2")))
		twilio := integrations.Account{ID: "int_2", Workspace: "wsp_1", Kind: integrations.TwilioKind, Name: "Phone", Version: 1, CreatedAt: now, UpdatedAt: now}
		must(t, db.CreateAccount(ctx, twilio))
		same := func(what string, got, want any, err error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, %v; want %+v", what, got, err, want)
			}
		}
		got, err := db.Account(ctx, "wsp_1", "int_1", false)
		same("Account", got, a, err)
		got, err = db.AccountByID(ctx, "int_1")
		same("AccountByID", got, a, err)
		list, err := db.Accounts(ctx, "wsp_1", "")
		same("all", list, []integrations.Account{a, twilio}, err)
		list, err = db.Accounts(ctx, "wsp_1", integrations.TwilioKind)
		same("of Twilio", list, []integrations.Account{twilio}, err)
		list, err = db.ReadableAccounts(ctx)
		same("readable", list, []integrations.Account{a, mailbox("int_3", "wsp_2")}, err)

		// A cursor belongs to the version that it was read with.
		must(t, db.SetAccountCursor(ctx, "wsp_1", "int_1", 1, json.RawMessage(`{"uid":7}`)))
		must(t, db.SetAccountState(ctx, "wsp_1", "int_1", integrations.Failing, "wrong password", now.Add(time.Minute)))
		a.Name, a.Version, a.UpdatedAt, a.State, a.StateText, a.CheckedAt = "Support", 2, now.Add(time.Hour), integrations.Unchecked, "", time.Time{}
		must(t, db.UpdateAccount(ctx, a))
		a.Cursor = json.RawMessage(`{"uid":7}`)
		got, err = db.Account(ctx, "wsp_1", "int_1", false)
		same("updated", got, a, err)
		for what, err := range map[string]error{
			"an old cursor":   db.SetAccountCursor(ctx, "wsp_1", "int_1", 1, json.RawMessage(`{"uid":3}`)),
			"an old update":   db.UpdateAccount(ctx, a),
			"an old deletion": db.DeleteAccount(ctx, "wsp_1", "int_1", 1),
		} {
			if !problem.Is(err, problem.Conflict) {
				t.Errorf("%s: got %v, want a conflict", what, err)
			}
		}
		must(t, db.SetAccountCursor(ctx, "wsp_1", "int_1", 2, nil))
		a.Cursor, a.Active, a.Version = nil, false, 3
		must(t, db.UpdateAccount(ctx, a))
		list, err = db.ReadableAccounts(ctx)
		same("readable without the inactive", list, []integrations.Account{mailbox("int_3", "wsp_2")}, err)
		must(t, db.DeleteAccount(ctx, "wsp_1", "int_1", 3))
		for what, err := range map[string]error{
			"Account":         second(db.Account(ctx, "wsp_1", "int_1", true)),
			"AccountByID":     second(db.AccountByID(ctx, "int_1")),
			"SetAccountState": db.SetAccountState(ctx, "wsp_1", "int_1", integrations.Working, "", now),
		} {
			if !problem.Is(err, problem.NotFound) {
				t.Errorf("%s of a deleted one: got %v, want not found", what, err)
			}
		}
	})
}

func second[A any](_ A, err error) error { return err }

func TestOneAccountOfAPurposeIsTheDefault(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs, ctx := nodes(t, url), t.Context()
		db := dbs[0]
		workspace(t, db, "wsp_1")
		defaults := func() (ids []string) {
			all, err := db.Accounts(ctx, "wsp_1", "")
			must(t, err)
			for _, a := range all {
				if a.Default {
					ids = append(ids, a.ID)
				}
			}
			return ids
		}
		for _, id := range []string{"int_1", "int_2"} {
			a := mailbox(id, "wsp_1")
			a.Default = true
			must(t, db.CreateAccount(ctx, a))
		}
		for id, kind := range map[string]integrations.Kind{"int_3": integrations.OpenAIKind, "int_4": integrations.AnthropicKind} {
			model := mailbox(id, "wsp_1")
			model.Kind, model.Default = kind, id == "int_3"
			must(t, db.CreateAccount(ctx, model))
		}
		if got, want := defaults(), []string{"int_2", "int_3"}; !reflect.DeepEqual(got, want) {
			t.Errorf("defaults: got %v, want %v", got, want)
		}
		// Who still believes to be the default has to look again.
		a := mailbox("int_1", "wsp_1")
		a.Default, a.Version = true, 2
		if err := db.UpdateAccount(ctx, a); !problem.Is(err, problem.Conflict) {
			t.Errorf("update of who was the default: got %v, want a conflict", err)
		}
		race(8, func(i int) {
			id := []string{"int_1", "int_2"}[i%2]
			a, err := dbs[i%len(dbs)].Account(ctx, "wsp_1", id, false)
			if err == nil {
				a.Default = true
				a.Version++
				err = dbs[i%len(dbs)].UpdateAccount(ctx, a)
			}
			if err != nil && !problem.Is(err, problem.Conflict) {
				t.Errorf("becoming the default: %v", err)
			}
		})
		if got := defaults(); len(got) != 2 {
			t.Errorf("defaults after a race: got %v, want one of each purpose", got)
		}
	})
}
