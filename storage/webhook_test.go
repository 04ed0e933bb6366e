package storage_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

func setEndpoint(t *testing.T, db *storage.DB, id, workspace, owner, url, secret string) webhook.Endpoint {
	t.Helper()
	e, err := db.SetEndpoint(t.Context(), webhook.Endpoint{ID: id, Workspace: workspace, Owner: owner, URL: url,
		Events: []webhook.EventType{webhook.ApprovalRejected}, Secret: secret, OldSecretUntil: jobsNow.Add(time.Hour), CreatedAt: jobsNow})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func insertDelivery(t *testing.T, db *storage.DB, d webhook.Delivery) {
	t.Helper()
	if d.CreatedAt.IsZero() {
		d.CreatedAt = jobsNow
	}
	if d.State == "" {
		d.State = jobs.Ready
	}
	if err := db.InsertDelivery(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func TestSetEndpointKeepsTheOldSecretForTheSameURL(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		for i, tt := range []struct {
			url, secret, oldSecret string
			until                  time.Time
		}{
			{"https://a/", "s1", "", time.Time{}},
			{"https://a/", "s2", "s1", jobsNow.Add(time.Hour)},
			{"https://b/", "s3", "", time.Time{}},
		} {
			e := setEndpoint(t, db, fmt.Sprint("wh_", i), "wsp_1", "key_1", tt.url, tt.secret)
			if e.ID != "wh_0" || e.URL != tt.url || e.Secret != tt.secret || e.OldSecret != tt.oldSecret || !e.OldSecretUntil.Equal(tt.until) {
				t.Errorf("SetEndpoint = %+v, want %+v with the first id", e, tt)
			}
			if got, err := db.EndpointOf(t.Context(), "wsp_1", "key_1"); err != nil || got.Secret != tt.secret {
				t.Errorf("EndpointOf = %+v, %v", got, err)
			}
		}
		e, err := db.RotateEndpoint(t.Context(), "wsp_1", "key_1", "s4", jobsNow.Add(time.Minute))
		if err != nil || e.Secret != "s4" || e.OldSecret != "s3" || !e.OldSecretUntil.Equal(jobsNow.Add(time.Minute)) {
			t.Errorf("RotateEndpoint = %+v, %v", e, err)
		}
	})
}

func TestWebhooksOfAnotherWorkspaceAreNotThere(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		mine := setEndpoint(t, db, "wh_1", "wsp_1", "key_1", "https://a/", "s")
		insertDelivery(t, db, webhook.Delivery{ID: "msg_1", Workspace: "wsp_1", Endpoint: "wh_1", Owner: "key_1", Event: webhook.Test, Body: []byte("{}")})
		notFound := func(what string, err error) {
			t.Helper()
			if !problem.Is(err, problem.NotFound) {
				t.Errorf("%s in another workspace = %v, want not found", what, err)
			}
		}
		_, err := db.Endpoint(ctx, "wsp_2", "wh_1")
		notFound("Endpoint", err)
		_, err = db.EndpointOf(ctx, "wsp_2", "key_1")
		notFound("EndpointOf", err)
		_, err = db.RotateEndpoint(ctx, "wsp_2", "key_1", "x", jobsNow)
		notFound("RotateEndpoint", err)
		notFound("DisableEndpoint", db.DisableEndpoint(ctx, "wsp_2", "wh_1", "x", jobsNow))
		notFound("EnableEndpoint", db.EnableEndpoint(ctx, "wsp_2", "wh_1"))
		notFound("RemoveEndpoint", db.RemoveEndpoint(ctx, "wsp_2", "key_1"))
		_, err = db.Delivery(ctx, "wsp_2", "msg_1")
		notFound("Delivery", err)
		_, err = db.ReviveDelivery(ctx, "wsp_2", "msg_1", jobsNow)
		notFound("ReviveDelivery", err)
		for what, err := range map[string]error{
			"RetireEndpoint": db.RetireEndpoint(ctx, "wsp_2", "key_1", jobsNow),
			"RecordAttempt":  db.RecordAttempt(ctx, "wsp_2", "msg_1", webhook.Attempt{At: jobsNow}),
			"PutOffDelivery": db.PutOffDelivery(ctx, "wsp_2", "msg_1", jobsNow.Add(time.Hour)),
			"BuryDelivery":   db.BuryDelivery(ctx, "wsp_2", "msg_1", "x"),
		} {
			if err != nil {
				t.Errorf("%s = %v", what, err)
			}
		}
		if list, err := db.Deliveries(ctx, "wsp_2", webhook.Query{Limit: 10}); len(list) != 0 || err != nil {
			t.Errorf("Deliveries = %d, %v; want none", len(list), err)
		}
		if got, err := db.EndpointOf(ctx, "wsp_1", "key_1"); err != nil || fmt.Sprint(got) != fmt.Sprint(mine) {
			t.Errorf("the endpoint is now %+v, %v; want %+v", got, err, mine)
		}
		if got, err := db.Delivery(ctx, "wsp_1", "msg_1"); err != nil || got.State != jobs.Ready || got.Attempts != 0 || !got.NextAt.IsZero() {
			t.Errorf("the delivery is now %+v, %v; want it unchanged", got, err)
		}
	})
}

func TestDeliveriesAreListedInPages(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		for i := range 25 {
			d := webhook.Delivery{ID: fmt.Sprintf("msg_%02d", i), Workspace: "wsp_1", Endpoint: "wh_1", Owner: "key_1", Event: webhook.ApprovalRejected,
				Approval: fmt.Sprint("apr_", i), Body: []byte(`{"n":1}`)}
			if i%2 == 1 {
				d.Owner, d.Endpoint, d.State = "key_2", "wh_2", jobs.Dead
			}
			insertDelivery(t, db, d)
		}
		count := func(q webhook.Query) (ids []string) {
			q.Limit = 10
			for {
				page, err := db.Deliveries(ctx, "wsp_1", q)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range page {
					if len(ids) > 0 && d.ID >= ids[len(ids)-1] {
						t.Errorf("%s comes after %s, want newest first", d.ID, ids[len(ids)-1])
					}
					if d.Body != nil {
						t.Error("a list carries bodies")
					}
					ids = append(ids, d.ID)
					q.Before = d.ID
				}
				if len(page) < q.Limit {
					return ids
				}
			}
		}
		for _, tt := range []struct {
			q    webhook.Query
			want int
		}{
			{webhook.Query{}, 25}, {webhook.Query{Owner: "key_2"}, 12}, {webhook.Query{Endpoint: "wh_1"}, 13},
			{webhook.Query{State: jobs.Dead}, 12}, {webhook.Query{Approval: "apr_7"}, 1}, {webhook.Query{Owner: "key_1", State: jobs.Dead}, 0},
		} {
			if got := len(count(tt.q)); got != tt.want {
				t.Errorf("%+v lists %d deliveries, want %d", tt.q, got, tt.want)
			}
		}
	})
}

func TestAttemptsAreRecordedWhileReady(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		body := []byte("{\"\u20ac\":\"\u2028 \U0001F600\"}")
		insertDelivery(t, db, webhook.Delivery{ID: "msg_1", Workspace: "wsp_1", Endpoint: "wh_1", Owner: "key_1", Event: webhook.Test, Body: body})
		check := func(state jobs.State, attempts, status int, lastError string, delivered time.Time) {
			t.Helper()
			d, err := db.Delivery(ctx, "wsp_1", "msg_1")
			if err != nil || d.State != state || d.Attempts != attempts || d.LastStatus != status || d.LastError != lastError || !d.DeliveredAt.Equal(delivered) {
				t.Errorf("delivery = %+v, %v; want %s after %d attempts, %d, %q, delivered %v", d, err, state, attempts, status, lastError, delivered)
			}
			if !bytes.Equal(d.Body, body) {
				t.Errorf("body = %q, want %q", d.Body, body)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(db.RecordAttempt(ctx, "wsp_1", "msg_1", webhook.Attempt{At: jobsNow, URL: "https://a/", Status: 500, Error: "answered 500"}))
		check(jobs.Ready, 1, 500, "answered 500", time.Time{})
		if _, err := db.ReviveDelivery(ctx, "wsp_1", "msg_1", jobsNow); !problem.Is(err, problem.Conflict) {
			t.Errorf("ReviveDelivery of a ready one = %v, want a conflict", err)
		}
		must(db.RecordAttempt(ctx, "wsp_1", "msg_1", webhook.Attempt{At: jobsNow, URL: "https://a/", Status: 200}))
		check(webhook.Done, 2, 200, "", jobsNow)
		must(db.RecordAttempt(ctx, "wsp_1", "msg_1", webhook.Attempt{At: jobsNow, Error: "late"})) // by a worker that lost its lease
		must(db.BuryDelivery(ctx, "wsp_1", "msg_1", "late"))
		check(webhook.Done, 2, 200, "", jobsNow)

		if d, err := db.ReviveDelivery(ctx, "wsp_1", "msg_1", jobsNow.Add(time.Hour)); err != nil || d.State != jobs.Ready || !d.NextAt.Equal(jobsNow.Add(time.Hour)) {
			t.Errorf("ReviveDelivery = %+v, %v", d, err)
		}
		must(db.RecordAttempt(ctx, "wsp_1", "msg_1", webhook.Attempt{At: jobsNow.Add(time.Hour), Error: "no answer"}))
		must(db.BuryDelivery(ctx, "wsp_1", "msg_1", ""))
		check(jobs.Dead, 3, 0, "no answer", jobsNow) // it was delivered once
	})
}

func TestPurgeDeliveries(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		for i, owner := range []string{"key_1", "key_2", "key_3"} {
			setEndpoint(t, db, fmt.Sprint("wh_", i+1), "wsp_1", owner, "https://a/", "s")
		}
		old := jobsNow.Add(-31 * 24 * time.Hour)
		for i, d := range []webhook.Delivery{
			{Endpoint: "wh_1", State: webhook.Done, CreatedAt: old},
			{Endpoint: "wh_2", State: jobs.Dead, CreatedAt: old},
			{Endpoint: "wh_2", State: jobs.Dead},
			{Endpoint: "wh_3", State: jobs.Ready, CreatedAt: old}, // of a server that was paused
			{Endpoint: "wh_1", State: webhook.Done},
		} {
			d.ID, d.Workspace, d.Event = fmt.Sprint("msg_", i), fmt.Sprint("wsp_", 1+i/4), webhook.Test
			insertDelivery(t, db, d)
		}
		for _, owner := range []string{"key_1", "key_2"} {
			if err := db.RetireEndpoint(ctx, "wsp_1", owner, jobsNow); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := db.PurgeDeliveries(ctx, jobsNow.Add(-30*24*time.Hour)); n != 2 || err != nil {
			t.Errorf("PurgeDeliveries = %d, %v; want 2", n, err)
		}
		for id, want := range map[string]bool{"wh_1": false, "wh_2": true, "wh_3": true} {
			if _, err := db.Endpoint(ctx, "wsp_1", id); (err == nil) != want {
				t.Errorf("endpoint %s is there: %v, want %v", id, err == nil, want)
			}
		}
		if list, err := db.Deliveries(ctx, "wsp_1", webhook.Query{Limit: 10}); len(list) != 2 || err != nil {
			t.Errorf("%d deliveries are left, %v; want 2", len(list), err)
		}
	})
}
