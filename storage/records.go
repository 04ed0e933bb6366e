package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"trustpager/catalog"
	"trustpager/problem"
)

const recordColumns = `r.id, r.version, r.body, r.created, r.updated`

// Record returns one record. It fails with [problem.NotFound].
func (db *DB) Record(ctx context.Context, workspace, resource, id string, forUpdate bool) (catalog.Record, error) {
	query := `SELECT ` + recordColumns + ` FROM records r WHERE r.workspace = $1 AND r.resource = $2 AND r.id = $3`
	if forUpdate {
		query += db.dialect.lockRow
	}
	rec, err := scanRecord(db.q.QueryRowContext(ctx, query, workspace, resource, id))
	if errors.Is(err, sql.ErrNoRows) {
		return rec, problem.Errorf(problem.NotFound, "there is nothing in %s with the id %q", resource, id).
			WithFix("List %s to find the right id.", resource)
	}
	rec.Resource = resource
	return rec, err
}

// Records returns those of the records that there are.
func (db *DB) Records(ctx context.Context, workspace, resource string, ids []string) ([]catalog.Record, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	args := []any{workspace, resource}
	for _, id := range ids {
		args = append(args, id)
	}
	rows, err := db.q.QueryContext(ctx, `SELECT `+recordColumns+` FROM records r WHERE r.workspace = $1 AND r.resource = $2
		AND r.id IN (`+parameters(3, len(ids))+`)`, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", resource, err)
	}
	defer rows.Close()
	var found []catalog.Record
	for rows.Next() {
		rec, err := scanRecord(rows)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", resource, err)
		}
		rec.Resource = resource
		found = append(found, rec)
	}
	return found, rows.Err()
}

type scanner interface{ Scan(...any) error }

func scanRecord(row scanner, more ...any) (catalog.Record, error) {
	var r catalog.Record
	var created, updated int64
	err := row.Scan(append([]any{&r.ID, &r.Version, (*[]byte)(&r.Body), &created, &updated}, more...)...)
	r.CreatedAt, r.UpdatedAt = at(created), at(updated)
	return r, err
}

// ListRecords returns one page. A record without a value for the sort field
// sorts as the empty one.
func (db *DB) ListRecords(ctx context.Context, workspace, resource string, q catalog.Query) ([]catalog.Record, []string, error) {
	query, args, err := db.listQuery(workspace, resource, q)
	if err != nil {
		return nil, nil, err
	}
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", resource, err)
	}
	defer rows.Close()
	recs := make([]catalog.Record, 0, q.Limit)
	values := make([]string, 0, q.Limit)
	for rows.Next() {
		var v string
		rec, err := scanRecord(rows, &v)
		if err != nil {
			return nil, nil, fmt.Errorf("list %s: %w", resource, err)
		}
		rec.Resource = resource
		recs, values = append(recs, rec), append(values, v)
	}
	return recs, values, rows.Err()
}

// listQuery puts the statement of ListRecords together from fixed fragments; all
// values are parameters.
//
// One index leads, in the order of the list, so that a page costs what it shows
// and not what there is: the sort field's, or that of the first field which is to
// equal something, or the records' own. The CROSS JOIN makes SQLite keep to that.
func (db *DB) listQuery(workspace, resource string, q catalog.Query) (string, []any, error) {
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	w, res := arg(workspace), arg(resource)
	entry := func(as, field string) string {
		return as + `.workspace = ` + w + ` AND ` + as + `.resource = ` + res + ` AND ` + as + `.field = ` + arg(field)
	}
	const join = `record_index s CROSS JOIN records r WHERE r.workspace = s.workspace AND r.resource = s.resource AND r.id = s.id AND `
	filters := slices.Clone(q.Filters)
	var from, value, id string
	var order []string
	switch q.SortField {
	case "", "created_at":
		i := slices.IndexFunc(filters, func(f catalog.Filter) bool { return f.Op == catalog.Equal })
		from, id = `records r WHERE r.workspace = `+w+` AND r.resource = `+res, "r.id"
		if i >= 0 {
			from, id = join+entry("s", filters[i].Field)+` AND s.value = `+arg(filters[i].Value), "s.id"
			filters = slices.Delete(filters, i, i+1)
		}
		value, order = "CAST(r.created AS TEXT)", []string{id}
	case "updated_at":
		from, id = `records r WHERE r.workspace = `+w+` AND r.resource = `+res, "r.id"
		value, order = "CAST(r.updated AS TEXT)", []string{"r.updated", id}
	default:
		from, id = join+entry("s", q.SortField), "s.id"
		value, order = "s.value", []string{"s.value", id}
	}
	var b strings.Builder
	b.WriteString(`SELECT ` + recordColumns + `, ` + value + ` FROM ` + from)
	for _, f := range filters {
		if f.Field == q.SortField { // the index that leads has the value
			b.WriteString(compare("s", f.Op, arg(f.Value)))
			continue
		}
		match := entry("i", f.Field) + compare("i", f.Op, arg(f.Value))
		if f.Op == catalog.Equal { // one look at the index for each record
			b.WriteString(` AND EXISTS (SELECT 1 FROM record_index i WHERE ` + match + ` AND i.id = ` + id + `)`)
			continue
		}
		b.WriteString(` AND ` + id + ` IN (SELECT i.id FROM record_index i WHERE ` + match + `)`)
	}
	if !q.CreatedAfter.IsZero() {
		b.WriteString(` AND r.created >= ` + arg(ms(q.CreatedAfter)))
	}
	if !q.CreatedBefore.IsZero() {
		b.WriteString(` AND r.created < ` + arg(ms(q.CreatedBefore)))
	}
	if len(q.Terms) > 0 {
		b.WriteString(` AND ` + fmt.Sprintf(db.dialect.matchSearch, arg(db.dialect.matchTerms(q.Terms))))
	}
	dir, beyond := "", " > "
	if q.Desc {
		dir, beyond = " DESC", " < "
	}
	if q.AfterID != "" {
		switch order[0] {
		case id:
			b.WriteString(` AND ` + id + beyond + arg(q.AfterID))
		case "r.updated":
			n, err := strconv.ParseInt(q.AfterValue, 10, 64)
			if err != nil {
				return "", nil, problem.Errorf(problem.Validation, "the cursor is damaged").WithFix("Start again without a cursor.")
			}
			b.WriteString(` AND (r.updated, r.id)` + beyond + `(` + arg(n) + `, ` + arg(q.AfterID) + `)`)
		default:
			b.WriteString(` AND (s.value, s.id)` + beyond + `(` + arg(q.AfterValue) + `, ` + arg(q.AfterID) + `)`)
		}
	}
	b.WriteString(` ORDER BY ` + strings.Join(order, dir+", ") + dir + ` LIMIT ` + arg(q.Limit))
	return b.String(), args, nil
}

// compare returns the condition that an index row has a value as the filter
// says. No value is before nothing, so a record without one is not found.
func compare(as string, op catalog.FilterOp, value string) string {
	switch op {
	case catalog.After:
		return ` AND ` + as + `.value >= ` + value
	case catalog.Before:
		return ` AND ` + as + `.value < ` + value + ` AND ` + as + `.value > ''`
	}
	return ` AND ` + as + `.value = ` + value
}

// MissingRefs returns those of refs that point at nothing. What it finds cannot
// be removed before the transaction ends.
func (db *DB) MissingRefs(ctx context.Context, workspace string, refs []catalog.Ref) ([]catalog.Ref, error) {
	var missing []catalog.Ref
	for _, r := range refs {
		query := `SELECT 1 FROM records WHERE workspace = $1 AND resource = $2 AND id = $3`
		args := []any{workspace, r.Resource, r.ID}
		if r.Resource == "users" {
			query, args = `SELECT 1 FROM members WHERE workspace = $1 AND user_id = $2`, []any{workspace, r.ID}
		}
		if db.tx != nil {
			query += db.dialect.lockShared
		}
		var one int
		err := db.q.QueryRowContext(ctx, query, args...).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			missing = append(missing, r)
		} else if err != nil {
			return nil, fmt.Errorf("look up %s %s: %w", r.Resource, r.ID, err)
		}
	}
	return missing, nil
}

// Referrers says how many records point at id from each of the given fields.
func (db *DB) Referrers(ctx context.Context, workspace, id string, from []catalog.Ref) ([]catalog.Referrer, error) {
	var found []catalog.Referrer
	for _, f := range from {
		var n int64
		if err := db.q.QueryRowContext(ctx, `
			SELECT COUNT(*) FROM record_index
			WHERE workspace = $1 AND resource = $2 AND field = $3 AND value = $4`,
			workspace, f.Resource, f.Field, id).Scan(&n); err != nil {
			return nil, fmt.Errorf("count referrers of %s: %w", id, err)
		}
		if n > 0 {
			found = append(found, catalog.Referrer{Resource: f.Resource, Field: f.Field, Count: n})
		}
	}
	return found, nil
}

// stored is an index entry as the record keeps it, so that the rows of an
// index can be found again without an index of their own.
type stored [2]string // field, value

func encodeEntries(entries []catalog.Entry) string {
	all := make([]stored, len(entries))
	for i, e := range entries {
		all[i] = stored{e.Field, e.Value}
	}
	b, _ := json.Marshal(all) // cannot fail: only strings
	return string(b)
}

// InsertRecord adds a record. It fails with [problem.Conflict] if a unique
// value is taken.
func (db *DB) InsertRecord(ctx context.Context, workspace string, r catalog.Record, entries []catalog.Entry, terms []string) error {
	return db.step(ctx, func(tx *DB) error {
		var n int64
		var subscribed bool
		if err := tx.q.QueryRowContext(ctx, `
			INSERT INTO records (workspace, resource, id, version, body, entries, created, updated)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING n, `+anySubscription,
			workspace, r.Resource, r.ID, r.Version, string(r.Body), encodeEntries(entries), ms(r.CreatedAt), ms(r.UpdatedAt)).Scan(&n, &subscribed); err != nil {
			return fmt.Errorf("insert into %s: %w", r.Resource, err)
		}
		tx.noteSubscribed(workspace, subscribed)
		if err := tx.insertEntries(ctx, workspace, r, entries); err != nil {
			return err
		}
		tx.indexWords(tx.dialect.insertSearch, n, strings.Join(terms, " "))
		return nil
	})
}

// insertEntries writes the rows of the index, all in one statement.
func (db *DB) insertEntries(ctx context.Context, workspace string, r catalog.Record, entries []catalog.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	args := make([]any, 0, 3+3*len(entries))
	args = append(args, workspace, r.Resource, r.ID)
	for _, e := range entries {
		args = append(args, e.Field, e.Value, e.Unique)
	}
	if err := db.checkUnique(ctx, workspace, r, entries); err != nil {
		return err
	}
	_, err := db.q.ExecContext(ctx, insertEntriesQuery(len(entries)), args...)
	if err == nil {
		return nil
	}
	if db.dialect.isUnique(err) { // somebody else was faster: any of them may be taken
		return taken(r, slices.DeleteFunc(slices.Clone(entries), func(e catalog.Entry) bool { return !e.Unique }))
	}
	return fmt.Errorf("index fields of %s: %w", r.ID, err)
}

// checkUnique says which unique values are taken already. The unique index
// decides about those that are being taken at the same time.
func (db *DB) checkUnique(ctx context.Context, workspace string, r catalog.Record, entries []catalog.Entry) error {
	var not []catalog.Entry
	for _, e := range entries {
		if !e.Unique {
			continue
		}
		var one int
		err := db.q.QueryRowContext(ctx, `SELECT 1 FROM record_index
			WHERE workspace = $1 AND resource = $2 AND field = $3 AND value = $4 AND is_unique AND id <> $5`,
			workspace, r.Resource, e.Field, e.Value, r.ID).Scan(&one)
		if err == nil {
			not = append(not, e)
		} else if !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("look for %s: %w", e.Field, err)
		}
	}
	if not != nil {
		return taken(r, not)
	}
	return nil
}

// taken says that another record has the values.
func taken(r catalog.Record, entries []catalog.Entry) error {
	var sent map[string]json.RawMessage
	json.Unmarshal(r.Body, &sent) // the catalog made it
	e := problem.Errorf(problem.Conflict, "a value that must be unique is taken already").
		WithFix("Choose another value, or update the one that has it.")
	for _, u := range entries {
		e.Fields = append(e.Fields, problem.Field{Path: u.Field, Expected: "a value that no other of the " + r.Resource + " has", Got: fmt.Sprintf("%.100s", sent[u.Field])})
	}
	return e
}

// insertEntriesQuery returns the statement that inserts n rows. There are as
// many texts as numbers of indexed fields.
func insertEntriesQuery(n int) string {
	var b strings.Builder
	b.WriteString(`INSERT INTO record_index (workspace, resource, id, field, value, is_unique) VALUES `)
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		p := 4 + 3*i
		b.WriteString("($1, $2, $3, $" + strconv.Itoa(p) + ", $" + strconv.Itoa(p+1) + ", $" + strconv.Itoa(p+2) + ")")
	}
	return b.String()
}

// UpdateRecord replaces the record's body if its stored version is one less
// than r's. It fails with [problem.Conflict] otherwise, and as InsertRecord
// does.
func (db *DB) UpdateRecord(ctx context.Context, workspace string, r catalog.Record, entries []catalog.Entry, terms []string) error {
	return db.step(ctx, func(tx *DB) error {
		var n int64
		var old string
		var subscribed bool
		err := tx.q.QueryRowContext(ctx, `SELECT n, entries, `+anySubscription+` FROM records
			WHERE workspace = $1 AND resource = $2 AND id = $3 AND version = $4`+tx.dialect.lockRow,
			workspace, r.Resource, r.ID, r.Version-1).Scan(&n, &old, &subscribed)
		if errors.Is(err, sql.ErrNoRows) {
			return changed(r.ID)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", r.ID, err)
		}
		tx.noteSubscribed(workspace, subscribed)
		if _, err := tx.q.ExecContext(ctx, `UPDATE records SET version = $2, body = $3, entries = $4, updated = $5 WHERE n = $1`,
			n, r.Version, string(r.Body), encodeEntries(entries), ms(r.UpdatedAt)); err != nil {
			return fmt.Errorf("update %s: %w", r.ID, err)
		}
		var have []stored
		if err := json.Unmarshal([]byte(old), &have); err != nil {
			return fmt.Errorf("index of %s: %w", r.ID, err)
		}
		var add []catalog.Entry
		for _, e := range entries {
			if !slices.Contains(have, stored{e.Field, e.Value}) {
				add = append(add, e)
			}
		}
		gone := slices.DeleteFunc(have, func(s stored) bool {
			return slices.ContainsFunc(entries, func(e catalog.Entry) bool { return s == stored{e.Field, e.Value} })
		})
		if err := tx.deleteEntries(ctx, workspace, r.Resource, r.ID, gone); err != nil {
			return err
		}
		if err := tx.insertEntries(ctx, workspace, r, add); err != nil {
			return err
		}
		tx.indexWords(tx.dialect.updateSearch, n, strings.Join(terms, " "))
		return nil
	})
}

func changed(id string) error {
	return problem.Errorf(problem.Conflict, "%s was changed or deleted meanwhile", id).
		WithFix("Read it again, and send the change once more if it still applies.")
}

func (db *DB) deleteEntries(ctx context.Context, workspace, resource, id string, entries []stored) error {
	for _, e := range entries {
		if _, err := db.q.ExecContext(ctx, `DELETE FROM record_index
			WHERE workspace = $1 AND resource = $2 AND field = $3 AND value = $4 AND id = $5`,
			workspace, resource, e[0], e[1], id); err != nil {
			return fmt.Errorf("unindex %s: %w", id, err)
		}
	}
	return nil
}

// DeleteRecord removes the record if its stored version is version, and fails
// with [problem.Conflict] otherwise.
func (db *DB) DeleteRecord(ctx context.Context, workspace, resource, id string, version int64) error {
	return db.step(ctx, func(tx *DB) error {
		var n int64
		var old string
		var subscribed bool
		err := tx.q.QueryRowContext(ctx, `DELETE FROM records
			WHERE workspace = $1 AND resource = $2 AND id = $3 AND version = $4 RETURNING n, entries, `+anySubscription,
			workspace, resource, id, version).Scan(&n, &old, &subscribed)
		if errors.Is(err, sql.ErrNoRows) {
			return changed(id)
		}
		if err != nil {
			return fmt.Errorf("delete %s: %w", id, err)
		}
		tx.noteSubscribed(workspace, subscribed)
		var have []stored
		if err := json.Unmarshal([]byte(old), &have); err != nil {
			return fmt.Errorf("index of %s: %w", id, err)
		}
		if err := tx.deleteEntries(ctx, workspace, resource, id, have); err != nil {
			return err
		}
		tx.indexWords(tx.dialect.deleteSearch, n)
		return nil
	})
}

// A noted change waits to be taken.
type noted struct {
	workspace string
	change    catalog.Change
}

// NoteChange notes a change of a record in the transaction; see [catalog.Store].
func (db *DB) NoteChange(workspace string, c catalog.Change) {
	if db.tx != nil {
		db.tx.changes = append(db.tx.changes, noted{workspace, c})
	}
}

// TakeChanges returns the changes of records in the transaction that nobody has
// taken; see [approvals.Store].
func (db *DB) TakeChanges(workspace string) []catalog.Change {
	if db.tx == nil || len(db.tx.changes) == 0 {
		return nil
	}
	var taken []catalog.Change
	var rest []noted
	for _, n := range db.tx.changes {
		if n.workspace == workspace {
			taken = append(taken, n.change)
		} else {
			rest = append(rest, n)
		}
	}
	db.tx.changes = rest
	return taken
}

// SumByField counts the records whose field by refers to id, and adds up their
// integer member sum, for each value of the member of.
func (db *DB) SumByField(ctx context.Context, workspace, resource, by, id, of, sum string) ([]catalog.Sum, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT r.body FROM record_index i
		JOIN records r ON r.workspace = i.workspace AND r.resource = i.resource AND r.id = i.id
		WHERE i.workspace = $1 AND i.resource = $2 AND i.field = $3 AND i.value = $4`, workspace, resource, by, id)
	if err != nil {
		return nil, fmt.Errorf("sum %s: %w", resource, err)
	}
	defer rows.Close()
	var sums []catalog.Sum
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err != nil {
			return nil, fmt.Errorf("sum %s: %w", resource, err)
		}
		var value string
		var total int64
		if raw, ok := members[of]; ok {
			if err := json.Unmarshal(raw, &value); err != nil {
				return nil, fmt.Errorf("sum %s by %s: %w", resource, of, err)
			}
		}
		if raw, ok := members[sum]; ok {
			if err := json.Unmarshal(raw, &total); err != nil {
				return nil, fmt.Errorf("sum %s of %s: %w", sum, resource, err)
			}
		}
		i := slices.IndexFunc(sums, func(s catalog.Sum) bool { return s.Value == value })
		if i < 0 {
			sums, i = append(sums, catalog.Sum{Value: value}), len(sums)
		}
		sums[i].Count++
		sums[i].Total += total
	}
	return sums, rows.Err()
}
