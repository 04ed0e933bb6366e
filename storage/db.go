// Package storage keeps everything in SQLite or PostgreSQL, and is the only
// package that knows SQL.
//
// One [DB] type serves both engines with one text for each statement; what
// differs between them is the [dialect]. A method is one atomic domain step:
// its WHERE clause and the rows it affected decide races. The packages above
// declare the Store interfaces that they need, and [InTx] gives them a
// transaction as a value of that interface.
//
// SQLite has one writing connection, whose goroutine lets all transactions
// that wait share one commit (see writer), and a few reading ones. It is for
// one server process, with the command line beside it. Several nodes need
// PostgreSQL.
package storage

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/secret"
)

// A DB is an open database, or a transaction on one. It is safe for concurrent
// use; a transaction is not.
type DB struct {
	*shared
	q  queryer
	tx *txState // nil outside of transactions
}

// shared is what a DB and its transactions have in common.
type shared struct {
	dialect  *dialect
	pool     *sql.DB // SQLite: the readers
	quick    *sql.DB // PostgreSQL: of the meters, and of nothing else
	writer   *writer // SQLite only
	path     string  // SQLite: the file
	url      string  // PostgreSQL
	key      secret.Key
	auditKey []byte
	keyKnown atomic.Bool // the database's key was found to be this one

	now func() time.Time

	statements atomic.Int64

	keys        memory[keyVersions, access.Shown]
	delegations memory[delegationVersions, access.Delegation]

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	stop     context.CancelFunc // ends the background work
	done     sync.WaitGroup
}

// A queryer runs statements: a pool, a connection or a transaction.
type queryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// A counted queryer counts the statements that it is given.
type counted struct {
	queryer
	n *atomic.Int64
}

func (c counted) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	c.n.Add(1)
	return c.queryer.ExecContext(ctx, query, args...)
}

func (c counted) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	c.n.Add(1)
	return c.queryer.QueryContext(ctx, query, args...)
}

func (c counted) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	c.n.Add(1)
	return c.queryer.QueryRowContext(ctx, query, args...)
}

// Statements returns how many statements have been run since the database was
// opened, but for those that begin and end transactions.
func (db *DB) Statements() int64 { return db.statements.Load() }

// An uncancelled queryer goes on when the caller goes away, so that a
// transaction that has begun is not torn apart half-way.
type uncancelled struct{ queryer }

func (u uncancelled) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return u.queryer.ExecContext(context.WithoutCancel(ctx), query, args...)
}

func (u uncancelled) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return u.queryer.QueryContext(context.WithoutCancel(ctx), query, args...)
}

func (u uncancelled) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return u.queryer.QueryRowContext(context.WithoutCancel(ctx), query, args...)
}

// txState is what a transaction remembers until it ends.
type txState struct {
	entries []audit.Entry // to be chained last
	topics  []string      // to be told after the commit
	words   []indexing    // to be indexed before it
	changes []noted       // of records, that nobody has taken yet
	jobs    []jobs.Job    // enqueued so far
	points  int           // savepoints so far, for their names

	// told is what [DB.Subscriptions] has found, by workspace. It holds until the
	// transaction changes one.
	told  map[string][]approvals.Subscription
	heads map[string]head
}

// An indexing is a change of the full-text index that waits for the end of the
// transaction. FTS5 writes a segment of its index at every savepoint that
// follows a change, so changes one by one would cost a group of transactions a
// segment each.
type indexing struct {
	query string
	args  []any
}

// indexWords changes the full-text index when the transaction is about to
// commit.
func (db *DB) indexWords(query string, args ...any) {
	db.tx.words = append(db.tx.words, indexing{query, args})
}

// saveWords changes the full-text index as the transaction has asked.
func (db *DB) saveWords(ctx context.Context, q queryer, tx *txState) error {
	for _, w := range tx.words {
		if _, err := q.ExecContext(ctx, w.query, w.args...); err != nil {
			return fmt.Errorf("index words: %w", err)
		}
	}
	return nil
}

// Options say how a database is opened.
type Options struct {
	Key       secret.Key       // seals secrets and the audit log
	NoMigrate bool             // fail instead of migrating
	Now       func() time.Time // tells which keys have expired; time.Now if nil
}

// Open opens the database that url names, a file's path or a postgres:// URL,
// and brings its tables up to date.
func Open(ctx context.Context, url string, opts Options) (*DB, error) {
	s := &shared{key: opts.Key, auditKey: opts.Key.Derive("audit"), now: opts.Now, watchers: map[*watcher]struct{}{}}
	if s.now == nil {
		s.now = time.Now
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	db := &DB{shared: s}
	var err error
	if IsPostgres(url) {
		err = db.openPostgres(ctx, background, url, opts)
	} else {
		err = db.openSQLite(ctx, background, url, opts)
	}
	if err == nil {
		err = db.checkKey(ctx)
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	return db, nil
}

// ErrWrongKey says that the database was made with another secret key: its
// secrets cannot be opened with this one, and its audit log would break.
var ErrWrongKey = errors.New("the database was made with another secret key than this one")

// keyPrint is the setting that tells the secret key of the database, by what is
// derived from it.
const keyPrint = "secret_key"

// checkKey fails with [ErrWrongKey] unless the key is the one that the database
// was made with. A new database takes the key.
func (db *DB) checkKey(ctx context.Context) error {
	mine := fingerprint(db.key)
	theirs, err := db.setting(ctx, keyPrint)
	if err == nil && theirs == "" {
		err = db.inTx(ctx, func(tx *DB) error {
			if _, err := tx.q.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, keyPrint, mine); err != nil {
				return fmt.Errorf("note the secret key: %w", err)
			}
			theirs, err = tx.setting(ctx, keyPrint)
			return err
		})
	}
	if err == nil && theirs != mine {
		return ErrWrongKey
	}
	db.keyKnown.Store(err == nil)
	return err
}

// fingerprint tells the key from others, and nothing about it.
func fingerprint(k secret.Key) string { return hex.EncodeToString(k.Derive("fingerprint")) }

// baseURL is the setting that tells where people reach the server.
const baseURL = "base_url"

// SetBaseURL notes where people reach the server, for the command line beside
// it. It costs a read unless it has changed.
func (db *DB) SetBaseURL(ctx context.Context, url string) error {
	have, err := db.setting(ctx, baseURL)
	if err != nil || have == url {
		return err
	}
	return db.inTx(ctx, func(tx *DB) error { return tx.setSetting(ctx, baseURL, url) })
}

// BaseURL returns where people reach the server, "" if none has run yet.
func (db *DB) BaseURL(ctx context.Context) (string, error) { return db.setting(ctx, baseURL) }

// IsPostgres reports whether url names a PostgreSQL database.
func IsPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// Close waits for running transactions and closes the database.
func (db *DB) Close() error {
	db.stop()
	var errs []error
	if db.writer != nil {
		errs = append(errs, db.writer.close())
	}
	db.done.Wait()
	if db.pool != nil {
		errs = append(errs, db.pool.Close())
	}
	if db.quick != nil {
		errs = append(errs, db.quick.Close())
	}
	return errors.Join(errs...)
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	return db.q.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}

// Engine returns "sqlite" or "postgres".
func (db *DB) Engine() string { return db.dialect.name }

// InTx returns a function that calls fn with a store whose methods all run in
// one transaction, and commits if fn returns nil. S is the interface that the
// caller's package declares; it panics at start if *DB does not satisfy it.
//
// The context is looked at before fn starts and not after, so that a caller
// who goes away does not leave others' work half done. fn may run more than
// once if the database asks for it, so it has no effects outside of its store.
// A panic in fn rolls back and is returned as an error. If the connection is
// lost at the commit, the error is [problem.Unknown], and the caller must look
// at the state before trying again.
func InTx[S any](db *DB) func(ctx context.Context, fn func(tx S) error) error {
	_ = any(db).(S)
	return func(ctx context.Context, fn func(tx S) error) error {
		return db.inTx(ctx, func(tx *DB) error { return fn(any(tx).(S)) })
	}
}

// inTx runs fn in a transaction; within a transaction, in a savepoint of it.
func (db *DB) inTx(ctx context.Context, fn func(tx *DB) error) error {
	if db.tx != nil {
		return db.Savepoint(ctx, func() error { return fn(db) })
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if db.writer != nil {
		return db.writer.do(ctx, fn)
	}
	return db.postgresTx(ctx, fn)
}

// step runs fn in the transaction of db, or in one of its own. Store methods of
// several statements begin with it.
func (db *DB) step(ctx context.Context, fn func(tx *DB) error) error {
	if db.tx != nil {
		return fn(db)
	}
	return db.inTx(ctx, fn)
}

// Savepoint calls fn within the transaction and undoes what it did if it
// fails, leaving the transaction usable.
func (db *DB) Savepoint(ctx context.Context, fn func() error) error {
	tx := db.tx
	tx.points++
	name := fmt.Sprintf("s%d", tx.points)
	if _, err := db.q.ExecContext(ctx, "SAVEPOINT "+name); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	entries, topics, words, changes, enqueued := len(tx.entries), len(tx.topics), len(tx.words), len(tx.changes), len(tx.jobs)
	err := protect(fn)
	if err != nil && db.lost(err) {
		return &lostTxError{err}
	}
	if err != nil {
		tx.entries, tx.topics, tx.words = tx.entries[:entries], tx.topics[:topics], tx.words[:words]
		tx.changes, tx.jobs, tx.told = tx.changes[:min(changes, len(tx.changes))], tx.jobs[:enqueued], nil
		if _, rerr := db.q.ExecContext(ctx, "ROLLBACK TO SAVEPOINT "+name); rerr != nil {
			return &lostTxError{rerr}
		}
	}
	if _, rerr := db.q.ExecContext(ctx, "RELEASE SAVEPOINT "+name); rerr != nil {
		return &lostTxError{rerr}
	}
	tx.points--
	return err
}

// A lostTxError says that a transaction cannot go on: every member of it fails,
// and nothing of it was done. Its callers see [problem.Unavailable].
type lostTxError struct{ err error }

func (e *lostTxError) Error() string { return "transaction lost: " + e.err.Error() }

func (e *lostTxError) Unwrap() []error { return []error{e.err, errUnavailable} }

var errUnavailable = problem.Errorf(problem.Unavailable, "the database cannot do this now; nothing was done").
	WithFix("Send the request again in a few seconds. If it goes on, the operator should look at the database.")

// lost reports whether err is the database's own trouble.
func (db *DB) lost(err error) bool {
	_, lost := errors.AsType[*lostTxError](err)
	return lost || db.dialect.isFault(err)
}

// protect calls fn and returns its panic as an error.
func protect(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}

// unknown says that nobody can tell whether a commit happened.
func unknown(err error) error {
	return fmt.Errorf("commit: %w: %w", err, problem.Errorf(problem.Unknown, "the database was lost while it committed, so nobody can tell yet whether this was done").
		WithFix("Read the state before you try again. With an Idempotency-Key the same request can be repeated safely."))
}

// notify tells the watchers of topic, on every node, after the commit.
func (db *DB) notify(topic string) {
	db.tx.topics = append(db.tx.topics, topic)
}

// notifyOnce is notify for topics that one transaction may touch often.
func (db *DB) notifyOnce(topic string) {
	if !slices.Contains(db.tx.topics, topic) {
		db.notify(topic)
	}
}

// A watcher waits for topics.
type watcher struct {
	topic string
	ch    chan struct{}
}

// JobsTopic is told of jobs that are due soon.
const JobsTopic = "jobs"

// Watch returns a channel that receives after each commit, on any node, that
// touched the topic: [JobsTopic], [access.CallsTopic], [access.RightsTopic],
// [approvals.Topic], or
// the id of an approval that was decided. A topic that ends with a colon stands
// for all that begin with it: approvals.Topic("") for those of all workspaces.
// Several commits may become one receipt, and one may come without a change, so
// the receiver looks at the state. stop ends it.
func (db *DB) Watch(topic string) (changed <-chan struct{}, stop func()) {
	w := &watcher{topic, make(chan struct{}, 1)}
	db.mu.Lock()
	db.watchers[w] = struct{}{}
	db.mu.Unlock()
	return w.ch, func() {
		db.mu.Lock()
		delete(db.watchers, w)
		db.mu.Unlock()
	}
}

// tell wakes the watchers of the topic; "" wakes all.
func (s *shared) tell(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		if topic != "" && w.topic != topic && !(strings.HasSuffix(w.topic, ":") && strings.HasPrefix(topic, w.topic)) {
			continue
		}
		select {
		case w.ch <- struct{}{}:
		default: // it has not yet looked at the last one
		}
	}
}

// exists reports whether a regular file is at path.
func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0 || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// ms returns t as it is stored: unix milliseconds, 0 for the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// at is the inverse of ms.
func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// affected returns the number of rows that a statement changed.
func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// column returns the only column of the rows that a query finds.
func (db *DB) column(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	return found, rows.Err()
}
