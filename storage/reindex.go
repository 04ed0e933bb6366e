package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"trustpager/catalog"
	"trustpager/problem"
)

// indexMarks is the setting that tells how the records are indexed: the digest
// of the catalog's marks, and while they are being indexed anew also the number
// of the last record that is done.
const indexMarks = "index_marks"

// reindexBatch is how many records are indexed anew in one transaction.
const reindexBatch = 500

// reindexLock is the name of PostgreSQL's advisory lock on indexing anew.
const reindexLock = 0x7470_696e_6465_78 // "tpindex"

// Reindex indexes all records anew if the catalog's marks are not those that
// they are indexed by. It is called at each start. Records of resources that the
// catalog does not have stay as they are. What a crash leaves undone is done at
// the next start. It fails with [problem.Conflict] if a field is now unique and
// two records have the same value.
//
// Records that another node with another catalog writes meanwhile are indexed by
// that node's marks: all nodes should be given the new catalog together.
func (db *DB) Reindex(ctx context.Context, cat *catalog.Catalog) error {
	want := cat.MarksDigest()
	have, err := db.setting(ctx, indexMarks)
	if err != nil || have == want {
		return err
	}
	unlock, err := db.lockReindex(ctx)
	if err != nil {
		return fmt.Errorf("index records anew: %w", err)
	}
	defer unlock()
	if have, err = db.setting(ctx, indexMarks); err != nil || have == want {
		return err // another node has done it
	}
	total := 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var n int
		err := db.inTx(ctx, func(tx *DB) (err error) {
			n, err = tx.reindexBatch(ctx, cat, want)
			return err
		})
		if err != nil {
			return fmt.Errorf("index records anew: %w", err)
		}
		if total += n; n < reindexBatch {
			if total > 0 {
				slog.InfoContext(ctx, "indexed all records anew, as the catalog's marks have changed", "records", total)
			}
			return nil
		}
	}
}

// reindexBatch indexes the next records anew, and returns how many.
func (db *DB) reindexBatch(ctx context.Context, cat *catalog.Catalog, digest string) (int, error) {
	marks, err := db.setting(ctx, indexMarks)
	if err != nil {
		return 0, err
	}
	last := int64(-1 << 63)
	if done, ok := strings.CutPrefix(marks, digest+" "); ok {
		if last, err = strconv.ParseInt(done, 10, 64); err != nil {
			return 0, fmt.Errorf("setting %s: %w", indexMarks, err)
		}
	}
	rows, err := db.q.QueryContext(ctx, `SELECT n, workspace, resource, id, body, entries FROM records
		WHERE n > $1 ORDER BY n LIMIT $2`+db.dialect.lockRow, last, reindexBatch)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var batch []indexed
	for rows.Next() {
		var r indexed
		if err := rows.Scan(&r.n, &r.workspace, &r.rec.Resource, &r.rec.ID, (*[]byte)(&r.rec.Body), &r.entries); err != nil {
			return 0, err
		}
		batch = append(batch, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	for _, r := range batch {
		last = r.n
		if err := db.reindex(ctx, cat, r); err != nil {
			return 0, err
		}
	}
	if len(batch) == reindexBatch {
		digest += " " + strconv.FormatInt(last, 10)
	}
	return len(batch), db.setSetting(ctx, indexMarks, digest)
}

// indexed is a record with where its index is.
type indexed struct {
	n         int64
	workspace string
	rec       catalog.Record
	entries   string
}

// reindex indexes one record anew.
func (db *DB) reindex(ctx context.Context, cat *catalog.Catalog, r indexed) error {
	res, ok := cat.Resource(r.rec.Resource)
	if !ok || !res.Keeps {
		return nil
	}
	entries, terms, err := cat.IndexOf(r.rec.Resource, r.rec.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", r.rec.ID, err)
	}
	var have []stored
	if err := json.Unmarshal([]byte(r.entries), &have); err != nil {
		return fmt.Errorf("index of %s: %w", r.rec.ID, err)
	}
	if err := db.deleteEntries(ctx, r.workspace, r.rec.Resource, r.rec.ID, have); err != nil {
		return err
	}
	if err := db.insertEntries(ctx, r.workspace, r.rec, entries); err != nil {
		if e, ok := errors.AsType[*problem.Error](err); ok && e.Kind == problem.Conflict {
			return problem.Errorf(problem.Conflict, "the catalog marks %s of %s as unique, but %s has a value that another record has", e.Fields[0].Path, r.rec.Resource, r.rec.ID).
				WithFix("Start with the catalog as it was, make the values different, and then change the mark.")
		}
		return err
	}
	if _, err := db.q.ExecContext(ctx, `UPDATE records SET entries = $2 WHERE n = $1`, r.n, encodeEntries(entries)); err != nil {
		return fmt.Errorf("index fields of %s: %w", r.rec.ID, err)
	}
	if _, err := db.q.ExecContext(ctx, db.dialect.updateSearch, r.n, strings.Join(terms, " ")); err != nil {
		return fmt.Errorf("index words of %s: %w", r.rec.ID, err)
	}
	return nil
}

// lockReindex keeps other nodes from indexing anew until unlock is called. SQLite
// is for one server process, and needs no lock.
func (db *DB) lockReindex(ctx context.Context) (unlock func(), err error) {
	if db.writer != nil {
		return func() {}, nil
	}
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	unlock = func() {
		// The lock ends with the connection, which is used for nothing else.
		conn.Raw(func(any) error { return driver.ErrBadConn })
		conn.Close()
	}
	for _, q := range []string{"SET statement_timeout = 0", "SELECT pg_advisory_lock(" + strconv.Itoa(reindexLock) + ")"} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// setting returns what is noted under the name, "" if nothing is.
func (db *DB) setting(ctx context.Context, name string) (string, error) {
	var value string
	err := db.q.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the setting %s: %w", name, err)
	}
	return value, nil
}

func (db *DB) setSetting(ctx context.Context, name, value string) error {
	if _, err := db.q.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value); err != nil {
		return fmt.Errorf("store the setting %s: %w", name, err)
	}
	return nil
}
