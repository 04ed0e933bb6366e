package storage_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

func TestSubscriptions(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		want := approvals.Subscription{ID: "whs_1", Workspace: "wsp_1", Version: 1, Description: "d", Active: true, Taker: "key_1", CreatedAt: now, UpdatedAt: now,
			Creator: access.Principal{Kind: access.KindOAuth, ID: "grt_1", Name: "App for Ada", User: "usr_1", Client: "cli_1"}}
		want.Endpoint = setEndpoint(t, db, "wh_1", "wsp_1", "whs_1", "https://a/", "s")
		must(t, db.CreateSubscription(ctx, want))
		if got, err := db.Subscription(ctx, "wsp_1", "whs_1", false); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Subscription: got %+v, %v; want %+v", got, err, want)
		}

		want.Version, want.Active, want.Taker, want.Creator = 2, false, "", access.Principal{Kind: access.KindKey, ID: "key_1"}
		want.Endpoint.URL, want.Endpoint.Events = "https://b/", []webhook.EventType{"contacts.*"}
		must(t, db.DisableEndpoint(ctx, "wsp_1", "wh_1", "gone", now))
		must(t, db.MoveEndpoint(ctx, "wsp_1", "whs_1", want.Endpoint.URL, want.Endpoint.Events))
		must(t, db.UpdateSubscription(ctx, want))
		if got, err := db.Subscriptions(ctx, "wsp_1"); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("Subscriptions: got %+v, %v; want %+v", got, err, want)
		}
		if err := db.UpdateSubscription(ctx, want); !problem.Is(err, problem.Conflict) {
			t.Errorf("the same version once more: got %v, want a conflict", err)
		}

		must(t, db.DeleteSubscription(ctx, "wsp_1", "whs_1"))
		if _, err := db.Subscription(ctx, "wsp_1", "whs_1", false); !problem.Is(err, problem.NotFound) {
			t.Errorf("a deleted one: got %v, want not found", err)
		}
	})
}

// A transaction looks for subscriptions once, sees those that it makes itself, and
// forgets those that are undone.
func TestTransactionRemembersSubscriptions(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		workspace(t, db, "wsp_1")
		setEndpoint(t, db, "wh_1", "wsp_1", "whs_1", "https://a/", "s")
		must(t, storage.InTx[adminStore](db)(t.Context(), func(tx adminStore) error {
			count := func(what string, want int, statements int64) {
				t.Helper()
				before := db.Statements()
				got, err := tx.Subscriptions(t.Context(), "wsp_1")
				if err != nil || len(got) != want || db.Statements()-before != statements {
					t.Errorf("%s: got %d, %v, with %d statements; want %d with %d", what, len(got), err, db.Statements()-before, want, statements)
				}
			}
			count("first", 0, 1)
			count("again", 0, 0)
			undone := errors.New("undone")
			err := tx.Savepoint(t.Context(), func() error {
				must(t, tx.CreateSubscription(t.Context(), approvals.Subscription{ID: "whs_1", Workspace: "wsp_1", Version: 1}))
				count("made", 1, 1)
				return undone
			})
			if !errors.Is(err, undone) {
				t.Errorf("savepoint: got %v", err)
			}
			count("undone", 0, 1)
			return nil
		}))
	})
}

type adminStore interface {
	approvals.Store
	CreateSubscription(ctx context.Context, s approvals.Subscription) error
}

// What is undone is no change, and changes are taken once.
func TestChangesAreForgottenWhenUndone(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		workspace(t, db, "wsp_1")
		note := func(tx approvals.Store, id string) {
			tx.NoteChange("wsp_1", catalog.Change{Op: catalog.OpCreate, Record: catalog.Record{ID: id}})
		}
		must(t, storage.InTx[approvals.Store](db)(t.Context(), func(tx approvals.Store) error {
			note(tx, "a")
			tx.Savepoint(t.Context(), func() error { note(tx, "b"); return errors.New("undone") })
			must(t, tx.Savepoint(t.Context(), func() error { note(tx, "c"); return nil }))
			var got []string
			for _, c := range tx.TakeChanges("wsp_1") {
				got = append(got, c.Record.ID)
			}
			if want := []string{"a", "c"}; !reflect.DeepEqual(got, want) {
				t.Errorf("TakeChanges: got %v, want %v", got, want)
			}
			// Taken within what is undone: the earlier ones do not come back.
			note(tx, "d")
			tx.Savepoint(t.Context(), func() error { tx.TakeChanges("wsp_1"); return errors.New("undone") })
			if got := tx.TakeChanges("wsp_1"); len(got) != 0 {
				t.Errorf("TakeChanges again: got %v, want none", got)
			}
			return nil
		}))
		note(db, "e")
		if got := db.TakeChanges("wsp_1"); got != nil {
			t.Errorf("outside of a transaction: got %v, want none", got)
		}
	})
}

func TestLastDeliveries(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		workspace(t, db, "wsp_1")
		for _, d := range []struct{ id, owner string }{{"msg_1", "whs_1"}, {"msg_2", "whs_1"}, {"msg_3", "whs_2"}, {"msg_4", "whs_3"}} {
			insertDelivery(t, db, webhook.Delivery{ID: d.id, Workspace: "wsp_1", Endpoint: "wh_1", Owner: d.owner, Event: webhook.Test, Body: []byte("{}")})
		}
		list, err := db.LastDeliveries(t.Context(), "wsp_1", []string{"whs_1", "whs_2", "whs_9"})
		got := map[string]string{}
		for _, d := range list {
			got[d.Owner] = d.ID
		}
		if want := map[string]string{"whs_1": "msg_2", "whs_2": "msg_3"}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("LastDeliveries: got %v, %v; want %v", got, err, want)
		}
		if got, err := db.LastDeliveries(t.Context(), "wsp_1", nil); err != nil || got != nil {
			t.Errorf("of nobody: got %v, %v", got, err)
		}
	})
}
