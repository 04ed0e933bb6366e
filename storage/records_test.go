package storage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// entriesOf returns the rows of the index of one record, as text.
func entriesOf(t testing.TB, db *storage.DB, id string) string {
	t.Helper()
	rows, err := db.Rows(t.Context(), `SELECT field, value, is_unique FROM record_index WHERE id = $1 ORDER BY field`, id)
	must(t, err)
	defer rows.Close()
	var all []string
	for rows.Next() {
		var field, value string
		var unique bool
		must(t, rows.Scan(&field, &value, &unique))
		all = append(all, fmt.Sprintf("%s=%s", field, value)+map[bool]string{true: "!"}[unique])
	}
	must(t, rows.Err())
	return strings.Join(all, " ")
}

func TestRecordIndexFollowsTheRecord(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		entry := func(field, value string, unique bool) catalog.Entry {
			return catalog.Entry{Field: field, Value: value, Unique: unique}
		}
		r := catalog.Record{Resource: "things", ID: "thi_1", Version: 1, Body: []byte(`{"sku":"A"}`), CreatedAt: now, UpdatedAt: now}
		must(t, db.InsertRecord(ctx, "wsp_1", r, []catalog.Entry{entry("name", "a", false), entry("sku", "x", true), entry("city", "", false)}, []string{"alpha", "beta"}))
		if got, want := entriesOf(t, db, "thi_1"), "city= name=a sku=x!"; got != want {
			t.Errorf("index: got %q, want %q", got, want)
		}
		find := func(term string) int {
			t.Helper()
			recs, _, err := db.ListRecords(ctx, "wsp_1", "things", catalog.Query{Terms: []string{term}, Limit: 10})
			must(t, err)
			return len(recs)
		}
		later := now.Add(time.Minute)
		r.Version, r.Body, r.UpdatedAt = 2, []byte(`{"sku":"B"}`), later
		must(t, db.UpdateRecord(ctx, "wsp_1", r, []catalog.Entry{entry("sku", "y", true), entry("name", "a", false), entry("zip", "1", false)}, []string{"beta", "gamma"}))
		if got, want := entriesOf(t, db, "thi_1"), "name=a sku=y! zip=1"; got != want {
			t.Errorf("index after an update: got %q, want %q", got, want)
		}
		if a, b, c := find("alpha"), find("bet"), find("gamma"); a != 0 || b != 1 || c != 1 {
			t.Errorf("words after an update: got %d, %d, %d hits; want 0, 1, 1", a, b, c)
		}
		got, err := db.Record(ctx, "wsp_1", "things", "thi_1", false)
		if err != nil || got.Version != 2 || string(got.Body) != `{"sku":"B"}` || !got.CreatedAt.Equal(now) || !got.UpdatedAt.Equal(later) || got.Resource != "things" {
			t.Errorf("Record: got %+v, %v", got, err)
		}
		if err := db.UpdateRecord(ctx, "wsp_1", r, nil, nil); !problem.Is(err, problem.Conflict) {
			t.Errorf("UpdateRecord with an old version: got %v, want a conflict", err)
		}
		if err := db.DeleteRecord(ctx, "wsp_1", "things", "thi_1", 1); !problem.Is(err, problem.Conflict) {
			t.Errorf("DeleteRecord with an old version: got %v, want a conflict", err)
		}

		other := catalog.Record{Resource: "things", ID: "thi_2", Version: 1, Body: []byte(`{"code":"z","sku":"B"}`), CreatedAt: now, UpdatedAt: now}
		err = db.InsertRecord(ctx, "wsp_1", other, []catalog.Entry{entry("sku", "y", true), entry("code", "z", true)}, nil)
		if p := problem.Of(err); p.Kind != problem.Conflict || len(p.Fields) != 1 || p.Fields[0].Path != "sku" || p.Fields[0].Got != `"B"` {
			t.Errorf("InsertRecord of a taken value: got %+v, want a conflict that names sku", p)
		}
		if _, err := db.Record(ctx, "wsp_1", "things", "thi_2", false); !problem.Is(err, problem.NotFound) {
			t.Errorf("the refused record: got %v, want none", err)
		}
		must(t, db.InsertRecord(ctx, "wsp_1", other, []catalog.Entry{entry("sku", "w", true), entry("city", "", false)}, nil))
		other.Version = 2
		err = db.UpdateRecord(ctx, "wsp_1", other, []catalog.Entry{entry("sku", "y", true)}, nil)
		if p := problem.Of(err); p.Kind != problem.Conflict || len(p.Fields) != 1 {
			t.Errorf("UpdateRecord to a taken value: got %+v, want a conflict that names sku", p)
		}
		if got, want := entriesOf(t, db, "thi_2"), "city= sku=w!"; got != want {
			t.Errorf("index after a refused update: got %q, want %q", got, want)
		}
		must(t, db.DeleteRecord(ctx, "wsp_1", "things", "thi_1", 2))
		if got := entriesOf(t, db, "thi_1"); got != "" || find("beta") != 0 {
			t.Errorf("index of a deleted record: got %q and %d hits, want nothing", got, find("beta"))
		}
		must(t, db.UpdateRecord(ctx, "wsp_1", other, []catalog.Entry{entry("sku", "y", true)}, nil))
	})
}

func TestOfManyThatWantAUniqueValueOneGetsIt(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		dbs := nodes(t, url)
		workspace(t, dbs[0], "wsp_1")
		won := make([]bool, 20)
		race(20, func(i int) {
			r := catalog.Record{Resource: "things", ID: fmt.Sprint("thi_", i), Version: 1, Body: []byte(`{"sku":"A"}`), CreatedAt: now, UpdatedAt: now}
			err := dbs[i%len(dbs)].InsertRecord(t.Context(), "wsp_1", r, []catalog.Entry{{Field: "sku", Value: "a", Unique: true}}, nil)
			won[i] = err == nil
			if p := problem.Of(err); err != nil && (p.Kind != problem.Conflict || len(p.Fields) != 1) {
				t.Errorf("InsertRecord: got %v, want a conflict that names sku", err)
			}
		})
		if n := len(slices.DeleteFunc(won, func(w bool) bool { return !w })); n != 1 {
			t.Errorf("%d got the value, want 1", n)
		}
	})
}

func TestWhatAReferenceHasFoundIsNotDeleted(t *testing.T) {
	db := storagetest.Open(t, storagetest.Postgres(t))
	ctx := t.Context()
	workspace(t, db, "wsp_1")
	must(t, db.CreateUser(ctx, access.User{ID: "usr_1", Email: "a@example.com", CreatedAt: now}, ""))
	must(t, db.CreateUser(ctx, access.User{ID: "usr_2", Email: "b@example.com", CreatedAt: now}, ""))
	must(t, db.SetMember(ctx, "wsp_1", "usr_1", access.Owner, now))
	must(t, db.SetMember(ctx, "wsp_1", "usr_2", access.Member, now))
	cat := defaultCatalog(t)
	insert(t, db, cat, "wsp_1", "contacts", "con_1", `{"first_name":"Ada"}`)
	refs := []catalog.Ref{{Field: "contact_id", Resource: "contacts", ID: "con_1"}, {Field: "owner_id", Resource: "users", ID: "usr_2"},
		{Field: "contact_id", Resource: "contacts", ID: "con_none"}}
	deleted, removed := make(chan error, 1), make(chan error, 1)
	err := storage.InTx[catalog.Store](db)(ctx, func(tx catalog.Store) error {
		missing, err := tx.MissingRefs(ctx, "wsp_1", refs)
		if err != nil || len(missing) != 1 || missing[0].ID != "con_none" {
			t.Errorf("MissingRefs: got %v, %v; want con_none", missing, err)
		}
		go func() {
			deleted <- storage.InTx[catalog.Store](db)(ctx, func(tx catalog.Store) error {
				if _, err := tx.Record(ctx, "wsp_1", "contacts", "con_1", true); err != nil {
					return err
				}
				found, err := tx.Referrers(ctx, "wsp_1", "con_1", []catalog.Ref{{Resource: "deals", Field: "contact_id"}, {Resource: "tasks", Field: "contact_id"}})
				if err != nil {
					return err
				}
				if len(found) != 1 || found[0] != (catalog.Referrer{Resource: "deals", Field: "contact_id", Count: 1}) {
					t.Errorf("Referrers: got %v, want the deal", found)
				}
				return tx.DeleteRecord(ctx, "wsp_1", "contacts", "con_1", 1)
			})
		}()
		go func() { removed <- db.RemoveMember(ctx, "wsp_1", "usr_2") }()
		waitForLocks(t, db, 2)
		r, entries, terms := record(t, cat, "deals", "dea_1", `{"contact_id":"con_1","owner_id":"usr_2","title":"Big"}`)
		return tx.InsertRecord(ctx, "wsp_1", r, entries, terms)
	})
	must(t, err)
	must(t, <-deleted)
	must(t, <-removed)
}

// waitForLocks waits until n connections to the database wait for a lock.
func waitForLocks(t *testing.T, db *storage.DB, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		rows, err := db.Rows(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		must(t, err)
		var got int
		for rows.Next() {
			must(t, rows.Scan(&got))
		}
		rows.Close()
		if got >= n {
			return
		}
	}
	t.Errorf("fewer than %d connections wait for a lock", n)
}

func TestPagesShowEveryRecordOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		cat := defaultCatalog(t)
		var n int
		rapid.Check(t, func(rt *rapid.T) {
			n++
			ws := fmt.Sprint("wsp_", n)
			workspace(t, db, ws)
			type made struct {
				id, city, name string
				updated        int
			}
			var all []made
			must(t, storage.InTx[catalog.Store](db)(ctx, func(tx catalog.Store) error {
				for i := range rapid.IntRange(0, 25).Draw(rt, "records") {
					m := made{fmt.Sprintf("con_%03d", i), rapid.SampledFrom([]string{"", "Aachen", "aachen", "Öl", "~", "zz", "Z"}).Draw(rt, "city"),
						rapid.SampledFrom([]string{"Ada", "Bob"}).Draw(rt, "name"), rapid.IntRange(0, 3).Draw(rt, "updated")}
					body := fmt.Sprintf(`{"city":%q,"first_name":%q}`, m.city, m.name)
					if m.city == "" {
						body = fmt.Sprintf(`{"first_name":%q}`, m.name)
					}
					r, entries, terms := record(t, cat, "contacts", m.id, body)
					r.UpdatedAt = now.Add(time.Duration(m.updated) * time.Second)
					if err := tx.InsertRecord(ctx, ws, r, entries, terms); err != nil {
						return err
					}
					all = append(all, m)
				}
				return nil
			}))
			for _, field := range []string{"", "updated_at", "city", "first_name"} {
				for _, filter := range []string{"", "first_name", "city"} {
					for _, desc := range []bool{false, true} {
						q := catalog.Query{SortField: field, Desc: desc, Limit: rapid.IntRange(1, 7).Draw(rt, "limit")}
						want := slices.Clone(all)
						switch filter {
						case "first_name":
							q.Filters = []catalog.Filter{{Field: "first_name", Op: catalog.Equal, Value: "ada"}}
							want = slices.DeleteFunc(want, func(m made) bool { return m.name != "Ada" })
						case "city": // no city is before none
							q.Filters = []catalog.Filter{{Field: "city", Op: catalog.Before, Value: "zz"}}
							want = slices.DeleteFunc(want, func(m made) bool { return m.city == "" || fold(m.city) >= "zz" })
						}
						slices.SortFunc(want, func(a, b made) int {
							var c int
							switch field {
							case "updated_at":
								c = a.updated - b.updated
							case "city":
								c = strings.Compare(fold(a.city), fold(b.city))
							case "first_name":
								c = strings.Compare(fold(a.name), fold(b.name))
							}
							if c == 0 {
								c = strings.Compare(a.id, b.id)
							}
							if desc {
								c = -c
							}
							return c
						})
						var ids []string
						for _, m := range want {
							ids = append(ids, m.id)
						}
						if got := pages(t, db, ws, "contacts", q); !slices.Equal(got, ids) {
							t.Errorf("sorted by %q, descending %t, filtered by %q, %d a page: got %v, want %v", field, desc, filter, q.Limit, got, ids)
						}
					}
				}
			}
		})
	})
}

// fold is the index key of a city.
func fold(s string) string { return (&catalog.Field{Type: catalog.TypeString}).IndexKey(s) }

// pages returns the ids of all records that the query finds, page by page.
func pages(t testing.TB, db *storage.DB, workspace, resource string, q catalog.Query) []string {
	t.Helper()
	var ids []string
	for {
		recs, values, err := db.ListRecords(t.Context(), workspace, resource, q)
		must(t, err)
		for _, r := range recs {
			ids = append(ids, r.ID)
		}
		if len(recs) < q.Limit {
			return ids
		}
		q.AfterID, q.AfterValue = recs[len(recs)-1].ID, values[len(values)-1]
	}
}

// awkward are texts that mean something to a database, or look alike.
var awkward = []string{
	`Ada Lovelace`, `O'Brien`, `"quoted"`, `back\slash`, `per%cent under_score`, `a & b | !c <-> d`, `'; DROP TABLE records; --`, `") OR 1=1 --`,
	`NEAR(a b) AND NOT c*`, `col:umn ^caret {brace} (paren)`, `$1 $2 ?1`, `Straße STRASSE`, `Crème Brûlée`, `İstanbul ıstanbul`, `東京駅`, `서울시`, `ไทย`,
	`emoji 😀 word`, "zero\u200bwidth", `a.b@c.example`, `+49 30 123`, `ﬁne`, `tab	new
line`, `:*`, `''`, `\`, `%`, `NULL`, `{"json":[1]}`, `..`, `*`,
}

func TestAwkwardTextsAreFoundOnBothEngines(t *testing.T) {
	cat := defaultCatalog(t)
	found := map[string]map[string]string{} // query → engine → ids
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		workspace(t, db, "wsp_1")
		for i, s := range awkward {
			body := fmt.Sprintf(`{"city":%s,"first_name":%s}`, quote(s), quote(s))
			insert(t, db, cat, "wsp_1", "contacts", fmt.Sprintf("con_%02d", i), body)
			r, err := db.Record(ctx, "wsp_1", "contacts", fmt.Sprintf("con_%02d", i), false)
			if err != nil || string(r.Body) != body {
				t.Errorf("%q: stored as %s, %v", s, r.Body, err)
			}
			recs, _, err := db.ListRecords(ctx, "wsp_1", "contacts", catalog.Query{Filters: []catalog.Filter{{Field: "city", Op: catalog.Equal, Value: fold(s)}}, Limit: 100})
			if err != nil || !slices.ContainsFunc(recs, func(r catalog.Record) bool { return string(r.Body) == body }) {
				t.Errorf("filter by %q: got %d records, %v; want it among them", s, len(recs), err)
			}
			// As ids and values that a caller may send.
			if _, err := db.Record(ctx, s, s, s, false); !problem.Is(err, problem.NotFound) {
				t.Errorf("Record(%q): got %v, want %s", s, err, problem.NotFound)
			}
			for _, field := range []string{"", "city"} {
				if _, _, err := db.ListRecords(ctx, "wsp_1", "contacts", catalog.Query{SortField: field, AfterID: s, AfterValue: s, Limit: 3}); err != nil {
					t.Errorf("a page after %q: %v", s, err)
				}
			}
			if _, err := db.Key(ctx, "wsp_1", s, false); !problem.Is(err, problem.NotFound) {
				t.Errorf("Key(%q): got %v, want %s", s, err, problem.NotFound)
			}
		}
		for _, s := range awkward {
			queries := [][]string{catalog.Terms(s), {s}} // and words that no catalog cuts
			for _, w := range catalog.Terms(s) {
				for i := range w {
					if i > 0 {
						queries = append(queries, []string{w[:i]})
					}
				}
			}
			for n, words := range queries {
				if len(words) == 0 || n == 1 && db.Engine() == "sqlite" && strings.Trim(s, `:*'\%. "()&|!<>-`) == "" {
					continue
				}
				recs, _, err := db.ListRecords(ctx, "wsp_1", "contacts", catalog.Query{Terms: words, Limit: 100})
				if err != nil {
					t.Errorf("search for %q: %v", words, err)
					continue
				}
				if n == 1 {
					continue // it must not fail; the engines may cut it differently
				}
				var ids []string
				for _, r := range recs {
					ids = append(ids, r.ID)
				}
				q := strings.Join(words, " ")
				if found[q] == nil {
					found[q] = map[string]string{}
				}
				found[q][db.Engine()] = strings.Join(ids, " ")
				if n == 0 && len(ids) == 0 {
					t.Errorf("search for %q: got nothing, want the record with these words", words)
				}
			}
		}
	})
	for q, by := range found {
		if lite, pg := by["sqlite"], by["postgres"]; len(by) == 2 && lite != pg {
			t.Errorf("search for %q: SQLite finds %s, PostgreSQL %s", q, lite, pg)
		}
	}
	if len(found) < 100 {
		t.Errorf("%d searches were compared, want more than 100", len(found))
	}
}

func quote(s string) string {
	b := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s)
	return `"` + b + `"`
}

// explain returns how the engine would run the statement.
func explain(t *testing.T, db *storage.DB, query string, args []any) string {
	t.Helper()
	prefix := "EXPLAIN "
	if db.Engine() == "sqlite" {
		prefix = "EXPLAIN QUERY PLAN "
	}
	rows, err := db.Rows(t.Context(), prefix+query, args...)
	must(t, err)
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused any
		var line string
		if db.Engine() == "sqlite" {
			must(t, rows.Scan(&id, &parent, &unused, &line))
		} else {
			must(t, rows.Scan(&line))
		}
		plan = append(plan, line)
	}
	must(t, rows.Err())
	return strings.Join(plan, "\n")
}

func TestListsAreDrivenByAnIndex(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		cat := defaultCatalog(t)
		for _, ws := range []string{"wsp_1", "wsp_2"} {
			workspace(t, db, ws)
			must(t, storage.InTx[catalog.Store](db)(ctx, func(tx catalog.Store) error {
				for i := range 3000 {
					r, entries, terms := record(t, cat, "contacts", fmt.Sprintf("con_%05d", i),
						fmt.Sprintf(`{"city":"C%d","country":"DE","first_name":"Ada%d","last_name":"L%d"}`, i%40, i, i%7))
					r.UpdatedAt = now.Add(time.Duration(i) * time.Millisecond)
					if err := tx.InsertRecord(ctx, ws, r, entries, terms); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		must(t, db.Raw(ctx, "ANALYZE"))
		equal := func(field, value string) catalog.Filter {
			return catalog.Filter{Field: field, Op: catalog.Equal, Value: value}
		}
		for name, q := range map[string]catalog.Query{
			"default order":                {Desc: true},
			"default order, later page":    {Desc: true, AfterID: "con_02000", AfterValue: "1"},
			"sorted":                       {SortField: "city"},
			"sorted, later page":           {SortField: "city", AfterID: "con_00100", AfterValue: "c3"},
			"sorted backwards, later page": {SortField: "city", Desc: true, AfterID: "con_00100", AfterValue: "c3"},
			"by updated_at":                {SortField: "updated_at", Desc: true},
			"by updated_at, later page":    {SortField: "updated_at", Desc: true, AfterID: "con_00100", AfterValue: fmt.Sprint(now.UnixMilli() + 500)},
			"filtered":                     {Desc: true, Filters: []catalog.Filter{equal("country", "de")}},
			"filtered, later page":         {Desc: true, Filters: []catalog.Filter{equal("country", "de")}, AfterID: "con_02000"},
			"filtered twice":               {Desc: true, Filters: []catalog.Filter{equal("country", "de"), equal("last_name", "l3")}},
			"filtered and sorted":          {SortField: "city", Filters: []catalog.Filter{equal("country", "de")}},
			"range of the sort field":      {SortField: "city", Filters: []catalog.Filter{{Field: "city", Op: catalog.After, Value: "c2"}}},
		} {
			q.Limit = 20
			query, args, err := db.ListQuery("wsp_1", "contacts", q)
			must(t, err)
			plan := explain(t, db, query, args)
			for _, bad := range []string{"SCAN", "TEMP B-TREE", "Seq Scan", "Sort  (", "Bitmap Heap Scan", "Hash"} {
				if strings.Contains(plan, bad) && !(name == "filtered twice" && db.Engine() == "postgres" && bad != "Seq Scan") {
					t.Errorf("%s: the plan has %q:\n%s\n%s", name, bad, query, plan)
				}
			}
			recs, _, err := db.ListRecords(ctx, "wsp_1", "contacts", q)
			if err != nil || len(recs) != 20 {
				t.Errorf("%s: got %d records, %v; want 20", name, len(recs), err)
			}
		}
		plan := explain(t, db, `SELECT r.body FROM records r WHERE r.workspace = $1 AND r.resource = $2 AND r.id = $3`, []any{"wsp_1", "contacts", "con_00001"})
		if !strings.Contains(plan, "records_id") {
			t.Errorf("get by id does not use its index:\n%s", plan)
		}
	})
}

func TestSumByField(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		workspace(t, db, "wsp_1")
		cat := defaultCatalog(t)
		for i, body := range []string{`{"pipeline_id":"pip_1","stage":"New","title":"a","value":5}`, `{"pipeline_id":"pip_1","stage":"New","title":"b"}`,
			`{"pipeline_id":"pip_1","stage":"Won","title":"c","value":9007199254740991}`, `{"pipeline_id":"pip_2","stage":"New","title":"d","value":1}`} {
			insert(t, db, cat, "wsp_1", "deals", fmt.Sprint("dea_", i), body)
		}
		got, err := db.SumByField(t.Context(), "wsp_1", "deals", "pipeline_id", "pip_1", "stage", "value")
		slices.SortFunc(got, func(a, b catalog.Sum) int { return strings.Compare(a.Value, b.Value) })
		want := []catalog.Sum{{Value: "New", Count: 2, Total: 5}, {Value: "Won", Count: 1, Total: 9007199254740991}}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("SumByField: got %v, %v; want %v", got, err, want)
		}
	})
}

// wanted keeps the compiler honest about what the catalog asks of the store.
var _ interface {
	catalog.Store
	Reindex(ctx context.Context, cat *catalog.Catalog) error
} = (*storage.DB)(nil)
