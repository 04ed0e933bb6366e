package storage

import (
	"context"
	"database/sql"
	"runtime"
	"testing"
	"time"

	"trustpager/catalog"
)

// Raw runs a statement on the database past all rules, as somebody with its
// password or its file could.
func (db *DB) Raw(ctx context.Context, query string, args ...any) error {
	if db.writer == nil {
		_, err := db.pool.ExecContext(ctx, query, args...)
		return err
	}
	return db.writer.submit(&member{ctx: ctx, bare: true, done: make(chan struct{}), fn: func(tx *DB) error {
		_, err := tx.q.ExecContext(ctx, query, args...)
		return err
	}})
}

// Rows runs a query past all rules.
func (db *DB) Rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return db.pool.QueryContext(ctx, query, args...)
}

// ListQuery is the statement that ListRecords runs.
func (db *DB) ListQuery(workspace, resource string, q catalog.Query) (string, []any, error) {
	return db.listQuery(workspace, resource, q)
}

// Setting returns what the program has noted about the database.
func (db *DB) Setting(ctx context.Context, name string) (string, error) { return db.setting(ctx, name) }

// SetSetting notes something about the database.
func (db *DB) SetSetting(ctx context.Context, name, value string) error {
	return db.step(ctx, func(tx *DB) error { return tx.setSetting(ctx, name, value) })
}

// CutWriter closes SQLite's writing connection behind the writer's back.
func (db *DB) CutWriter(ctx context.Context) error {
	return db.writer.submit(&member{ctx: ctx, bare: true, done: make(chan struct{}), fn: func(*DB) error {
		return db.writer.q.conn.Close()
	}})
}

// IndexMarks is the name of the setting that tells how records are indexed.
const IndexMarks = indexMarks

// ReindexBatch is how many records are indexed anew in one transaction.
const ReindexBatch = reindexBatch

// Versions is the number of the last migration.
const Versions = 18

// WaitQueued waits until n transactions wait for SQLite's writer.
func (db *DB) WaitQueued(t testing.TB, n int) {
	for end := time.Now().Add(20 * time.Second); db.writer != nil && len(db.writer.work) < n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Errorf("%d transactions wait for the writer, want %d", len(db.writer.work), n)
			return
		}
	}
}

// CutNow closes SQLite's writing connection from within a transaction.
func (db *DB) CutNow() { db.writer.q.conn.Close() }

// Touch counts the version of a record up.
func (db *DB) Touch(ctx context.Context, workspace, resource, id string) error {
	_, err := db.q.ExecContext(ctx, `UPDATE records SET version = version + 1 WHERE workspace = $1 AND resource = $2 AND id = $3`, workspace, resource, id)
	return err
}

// PurgeLocked removes a client as PurgeClients does when it has locked it.
func (db *DB) PurgeLocked(ctx context.Context, id string, before time.Time) (gone bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		gone, err = tx.purgeClient(ctx, id, before)
		return err
	})
	return gone, err
}

// SealedTables are the tables that hold sealed values.
var SealedTables = sealedTables

// DropIdle closes the connections that nobody uses.
func (db *DB) DropIdle() {
	db.pool.SetMaxIdleConns(0)
	db.pool.SetMaxIdleConns(16)
}

// Pool and Quick are the connections of all else and of the meters.
func (db *DB) Pool() *sql.DB  { return db.pool }
func (db *DB) Quick() *sql.DB { return db.quick }
