package storage_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// marked is a catalog whose things have the given fields.
func marked(t testing.TB, fields string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load(catalog.Source{Name: "things.yaml", Data: []byte(`
resources:
  things:
    singular: thing
    prefix: thi
    group: Test
    title: "{name}"
    fields:
` + fields)})
	must(t, err)
	return c
}

func TestNewMarksIndexTheRecordsAnew(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		before := marked(t, `
      name: {type: string, required: true, filter: true, search: true}
      code: {type: string}
      note: {type: string}
`)
		after := marked(t, `
      name: {type: string, required: true}
      code: {type: string, unique: true, filter: true}
      note: {type: string, sort: true, search: true}
`)
		must(t, db.Reindex(ctx, before))
		n := 2*storage.ReindexBatch + 7
		must(t, storage.InTx[catalog.Store](db)(ctx, func(tx catalog.Store) error {
			for i := range n {
				body := fmt.Sprintf(`{"code":"C%d","name":"Thing %d"}`, i, i)
				if i%2 == 0 {
					body = fmt.Sprintf(`{"code":"C%d","name":"Thing %d","note":"note %d"}`, i, i, i)
				}
				r, entries, terms := record(t, before, "things", fmt.Sprintf("thi_%05d", i), body)
				if err := tx.InsertRecord(ctx, "wsp_1", r, entries, terms); err != nil {
					return err
				}
			}
			gone := catalog.Record{Resource: "relics", ID: "rel_1", Version: 1, Body: []byte(`{}`), CreatedAt: now, UpdatedAt: now}
			return tx.InsertRecord(ctx, "wsp_1", gone, []catalog.Entry{{Field: "f", Value: "v"}}, []string{"relic"})
		}))
		check := func(cat *catalog.Catalog) {
			t.Helper()
			must(t, db.Reindex(ctx, cat))
			if got, err := db.Setting(ctx, storage.IndexMarks); got != cat.MarksDigest() || err != nil {
				t.Errorf("the stored marks: got %q, %v; want the catalog's", got, err)
			}
			for _, i := range []int{0, 1, storage.ReindexBatch, n - 1} {
				id := fmt.Sprintf("thi_%05d", i)
				rec, err := db.Record(ctx, "wsp_1", "things", id, false)
				must(t, err)
				entries, _, err := cat.IndexOf("things", rec.Body)
				must(t, err)
				var want []string
				for _, e := range entries {
					want = append(want, e.Field+"="+e.Value+map[bool]string{true: "!"}[e.Unique])
				}
				slices.Sort(want)
				if got := entriesOf(t, db, id); got != strings.Join(want, " ") {
					t.Errorf("index of %s: got %q, want %q", id, got, want)
				}
			}
			if got := entriesOf(t, db, "rel_1"); got != "f=v" {
				t.Errorf("index of a resource that is gone: got %q, want it left alone", got)
			}
		}
		hits := func(term string) int {
			return len(pages(t, db, "wsp_1", "things", catalog.Query{Terms: []string{term}, Limit: 1000}))
		}
		check(after)
		if a, b := hits("thing"), hits("note"); a != 0 || b != n/2+1 {
			t.Errorf("hits for thing and note: got %d and %d, want 0 and %d", a, b, n/2+1)
		}
		if got := len(pages(t, db, "wsp_1", "things", catalog.Query{SortField: "note", Limit: 100})); got != n {
			t.Errorf("sorted by the new mark: got %d records, want %d with those that have no note", got, n)
		}
		// It can be undone, and is then taken up where a crash has left it.
		must(t, db.SetSetting(ctx, storage.IndexMarks, before.MarksDigest()+" 3"))
		must(t, db.Reindex(ctx, before))
		if got := hits("thing"); got != n-3 {
			t.Errorf("taken up after the third record: got %d hits, want %d", got, n-3)
		}
		check(after)
		check(before)
		// Updates and deletes find the index that was built.
		rec, err := db.Record(ctx, "wsp_1", "things", "thi_00000", false)
		must(t, err)
		must(t, db.DeleteRecord(ctx, "wsp_1", "things", rec.ID, 1))
		if got := entriesOf(t, db, rec.ID); got != "" {
			t.Errorf("index of a deleted record: got %q, want nothing", got)
		}
	})
}

func TestMarkThatTheRecordsContradictIsRefused(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		workspace(t, db, "wsp_2")
		free := marked(t, "      name: {type: string, required: true, filter: true}\n")
		unique := marked(t, "      name: {type: string, required: true, filter: true, unique: true}\n")
		must(t, db.Reindex(ctx, free))
		insert(t, db, free, "wsp_1", "things", "thi_1", `{"name":"Same"}`)
		insert(t, db, free, "wsp_2", "things", "thi_2", `{"name":"Same"}`)
		must(t, db.Reindex(ctx, unique)) // of different workspaces
		must(t, db.Reindex(ctx, free))
		insert(t, db, free, "wsp_1", "things", "thi_3", `{"name":"same"}`)
		err := db.Reindex(ctx, unique)
		if !problem.Is(err, problem.Conflict) || !strings.Contains(err.Error(), "name of things as unique, but thi_3") {
			t.Errorf("Reindex: got %v, want it to name the field and the record", err)
		}
		must(t, db.Reindex(ctx, free))
		if got := pages(t, db, "wsp_1", "things", catalog.Query{Filters: []catalog.Filter{{Field: "name", Op: catalog.Equal, Value: "same"}}, Limit: 9}); len(got) != 2 {
			t.Errorf("with the marks as they were: got %v, want both records", got)
		}
	})
}

func TestManyNodesIndexAnewOnce(t *testing.T) {
	url := storagetest.Postgres(t)
	dbs := nodes(t, url)
	ctx := t.Context()
	workspace(t, dbs[0], "wsp_1")
	cat := marked(t, "      name: {type: string, required: true, unique: true, sort: true}\n")
	must(t, storage.InTx[catalog.Store](dbs[0])(ctx, func(tx catalog.Store) error {
		var errs []error
		for i := range storage.ReindexBatch + 3 {
			r := catalog.Record{Resource: "things", ID: fmt.Sprint("thi_", i), Version: 1, Body: []byte(fmt.Sprintf(`{"name":"N%d"}`, i)), CreatedAt: now, UpdatedAt: now}
			errs = append(errs, tx.InsertRecord(ctx, "wsp_1", r, nil, nil))
		}
		return errors.Join(errs...)
	}))
	race(6, func(i int) {
		if err := dbs[i%len(dbs)].Reindex(ctx, cat); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	})
	if got := len(pages(t, dbs[0], "wsp_1", "things", catalog.Query{SortField: "name", Limit: 100})); got != storage.ReindexBatch+3 {
		t.Errorf("sorted: got %d records, want %d", got, storage.ReindexBatch+3)
	}
}
