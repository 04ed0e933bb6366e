package storage_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Run(m)) }

// now is the time of the tests.
var now = jobsNow

// must fails the test at once if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// workspace makes a workspace with the id.
func workspace(t testing.TB, db *storage.DB, id string) access.Workspace {
	t.Helper()
	w := access.Workspace{ID: id, Name: id, Plan: access.Pro, TimeZone: "UTC", CreatedAt: now,
		Settings: access.Settings{ApprovalTTL: access.DefaultApprovalTTL}}
	must(t, db.CreateWorkspace(t.Context(), w))
	return w
}

// key makes an API key of the workspace, and returns it with its secret.
func key(t testing.TB, db *storage.DB, workspace, id string) (access.Key, access.Secret) {
	t.Helper()
	s := access.NewSecret()
	k := access.Key{ID: id, Workspace: workspace, Name: id, Last4: s.Last4(), Scopes: []access.Scope{{Resource: "contacts", Rung: "write"}},
		CreatedBy: access.Operator, CreatedAt: now}
	must(t, db.CreateKey(t.Context(), k, s.Hash()))
	return k, s
}

// approval returns a pending approval of the credential, as the gate makes it.
func approval(workspace, credential string) approvals.Approval {
	id := typeid.NewID("apr")
	return approvals.Approval{ID: id, Workspace: workspace, Status: approvals.Pending, Execution: approvals.NotExecuted,
		Action: "create_contact", Resource: "contacts", Verb: access.Write, Input: []byte(`{"first_name":"Ada"}`),
		Request: approvals.Request{Door: "rest", Method: "POST", Path: "/v1/contacts", Body: []byte(`{"first_name": "Ada"}`)},
		By:      access.Principal{Kind: access.KindKey, ID: credential, Name: credential}, Decider: access.DeciderAdmin, Asked: 1,
		DedupeKey: id, Digest: "d", CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
}

// ask stores an approval.
func ask(t testing.TB, db *storage.DB, a approvals.Approval) approvals.Approval {
	t.Helper()
	a, _, err := db.CreateApproval(t.Context(), a, now.Add(-approvals.SameAsk), 1000)
	must(t, err)
	return a
}

// record returns a record with the body and the index that the default catalog
// gives it.
func record(t testing.TB, cat *catalog.Catalog, resource, id, body string) (catalog.Record, []catalog.Entry, []string) {
	t.Helper()
	entries, terms, err := cat.IndexOf(resource, []byte(body))
	must(t, err)
	return catalog.Record{Resource: resource, ID: id, Version: 1, Body: []byte(body), CreatedAt: now, UpdatedAt: now}, entries, terms
}

// insert stores a record as the default catalog indexes it.
func insert(t testing.TB, db *storage.DB, cat *catalog.Catalog, workspace, resource, id, body string) catalog.Record {
	t.Helper()
	r, entries, terms := record(t, cat, resource, id, body)
	must(t, db.InsertRecord(t.Context(), workspace, r, entries, terms))
	return r
}

func defaultCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	must(t, err)
	return c
}

// tables lists the tables of the program.
var tables = []string{"workspaces", "users", "members", "keys", "key_secrets", "key_usage", "idempotency_keys", "records", "record_index",
	"record_search", "approvals", "jobs", "jobs_paused", "endpoints", "deliveries", "audit_entries", "audit_heads", "settings",
	"oauth_clients", "oauth_policies", "oauth_grants", "oauth_codes", "oauth_families", "oauth_refresh_tokens", "oauth_signing_keys", "sessions", "reset_links", "integrations", "audit_epochs", "tallies", "invitations", "subscriptions", "tasks"}

// dump returns all rows of all tables, each as a line of text, sorted. With a
// workspace it leaves out the rows that do not name it.
func dump(t testing.TB, db *storage.DB, workspace string) string {
	t.Helper()
	var lines []string
	for _, table := range tables {
		query := `SELECT * FROM ` + table
		if table == "record_search" { // SQLite's is an index without content
			query = `SELECT r.workspace, s.rowid FROM record_search s JOIN records r ON r.n = s.rowid`
			if db.Engine() == "postgres" {
				query = `SELECT r.workspace, s.n, s.terms::text FROM record_search s JOIN records r ON r.n = s.n`
			}
		}
		rows, err := db.Rows(context.WithoutCancel(t.Context()), query)
		must(t, err)
		names, err := rows.Columns()
		must(t, err)
		of := slices.Index(names, "workspace")
		if table == "workspaces" {
			of = slices.Index(names, "id")
		}
		for rows.Next() {
			values := make([]any, len(names))
			for i := range values {
				values[i] = new(any)
			}
			must(t, rows.Scan(values...))
			var b strings.Builder
			b.WriteString(table)
			for i, v := range values {
				v := *v.(*any)
				if s, ok := v.([]byte); ok {
					v = string(s)
				}
				fmt.Fprintf(&b, " %s=%v", names[i], v)
			}
			if workspace == "" || of < 0 || fmt.Sprint(*values[of].(*any)) == workspace {
				lines = append(lines, b.String())
			}
		}
		must(t, rows.Err())
		rows.Close()
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
