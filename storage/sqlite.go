package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"trustpager/problem"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// openSQLite opens the file at path, creating it readable by its owner only.
func (db *DB) openSQLite(ctx, background context.Context, path string, opts Options) error {
	db.dialect, db.path = &sqliteDialect, path
	unlock, err := lockMigration(path)
	if err != nil {
		return err
	}
	defer unlock()
	existed := exists(path)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	write, err := sql.Open("sqlite", sqliteDSN(path, "_txlock=immediate", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)"))
	if err != nil {
		return err
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, db.dialect, write, opts, func(version int64) error {
		if !existed {
			return nil
		}
		// A file as it was before, in case the new version must be undone.
		before := fmt.Sprintf("%s.before-%04d", path, version)
		if exists(before) {
			return nil
		}
		return copyInto(ctx, write, before)
	}); err != nil {
		write.Close()
		return err
	}
	w := &writer{db: db, pool: write, work: make(chan *member, 1024), closing: make(chan struct{}), closed: make(chan struct{})}
	if err := w.connect(ctx); err != nil {
		write.Close()
		return err
	}
	version, err := w.dataVersion(ctx)
	if err != nil {
		w.disconnect()
		write.Close()
		return err
	}
	db.writer = w
	go w.run()

	// Readers see only committed data and cannot write.
	db.pool, err = sql.Open("sqlite", sqliteDSN(path, "_pragma=query_only(1)"))
	if err != nil {
		return err
	}
	n := max(2, runtime.NumCPU())
	db.pool.SetMaxOpenConns(n)
	db.pool.SetMaxIdleConns(n)
	db.q = counted{&preparedPool{pool: db.pool}, &db.statements}

	db.done.Go(func() { db.watchOthers(background, version) })
	return nil
}

func sqliteDSN(path string, more ...string) string {
	q := "_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_pragma=cache_size(-32000)&_pragma=temp_store(MEMORY)"
	for _, m := range more {
		q = m + "&" + q
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: q}).String()
}

// watchOthers looks once a second whether another process, such as the command
// line, has changed the file since it had the version, and wakes all watchers
// if so.
func (db *DB) watchOthers(ctx context.Context, version int64) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := version
		err := db.writer.submit(&member{ctx: ctx, bare: true, done: make(chan struct{}), fn: func(*DB) (err error) {
			now, err = db.writer.dataVersion(ctx)
			return err
		}})
		if err == nil && now != version {
			version = now
			db.tell("")
		}
	}
}

// A writer is the goroutine that owns SQLite's only writing connection. With
// synchronous(FULL) a commit costs an fsync, so it lets the transactions that
// wait share one: it runs each in a savepoint of its own, commits once, and
// only then answers any of them.
type writer struct {
	db   *DB
	pool *sql.DB
	q    *preparedConn // nil while there is no connection
	work chan *member

	closeOnce sync.Once
	closing   chan struct{}
	closed    chan struct{}
}

// A member is one transaction of a group.
type member struct {
	ctx  context.Context // looked at before it starts, and not after
	fn   func(*DB) error
	bare bool // it only reads, and needs no transaction
	err  error
	tx   *txState
	done chan struct{}
}

// maxGroup bounds how many transactions share a commit, and so how long the
// first one of them waits.
const maxGroup = 256

var errLocked = problem.Errorf(problem.Unavailable, "the database cannot be written to now; nothing was done").
	WithFix("Send the request again in a few seconds. If it goes on, the operator should look at the disk, and for other processes that hold the file.")

var errClosed = problem.Errorf(problem.Unavailable, "the server is shutting down; nothing was done").
	WithFix("Send the request again in a few seconds.")

func (w *writer) do(ctx context.Context, fn func(*DB) error) error {
	return w.submit(&member{ctx: ctx, fn: fn, done: make(chan struct{})})
}

func (w *writer) submit(m *member) error {
	select {
	case <-w.closing:
		return errClosed
	default:
	}
	select {
	case w.work <- m:
	case <-w.closing:
		return errClosed
	}
	select {
	case <-m.done:
		return m.err
	case <-w.closed:
		select {
		case <-m.done:
			return m.err
		default:
			return errClosed
		}
	}
}

// dataVersion returns a number that changes when another process commits. Only
// the writer's goroutine calls it.
func (w *writer) dataVersion(ctx context.Context) (version int64, err error) {
	err = w.q.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version)
	return version, err
}

// connect takes the connection, and opens it anew if it was lost.
func (w *writer) connect(ctx context.Context) error {
	if w.q != nil {
		return nil
	}
	conn, err := w.pool.Conn(ctx)
	if err != nil {
		return err
	}
	w.q = &preparedConn{conn: conn, stmts: map[string]*sql.Stmt{}}
	return nil
}

// disconnect closes the connection, and so undoes what it has not committed.
// After a fault nobody can be sure of the state that it is in.
func (w *writer) disconnect() {
	if w.q == nil {
		return
	}
	for _, s := range w.q.stmts {
		s.Close()
	}
	w.q.conn.Raw(func(any) error { return driver.ErrBadConn }) // not back into the pool
	w.q.conn.Close()
	w.q = nil
}

func (w *writer) close() error {
	w.closeOnce.Do(func() { close(w.closing) })
	<-w.closed
	w.disconnect()
	return w.pool.Close()
}

func (w *writer) run() {
	defer close(w.closed)
	for {
		select {
		case m := <-w.work:
			w.group(m)
		case <-w.closing:
			for { // what has been accepted is still done
				select {
				case m := <-w.work:
					w.group(m)
				default:
					return
				}
			}
		}
	}
}

// group runs first and whatever else waits in one transaction, and answers them.
func (w *writer) group(first *member) {
	ctx := context.Background()
	var members []*member
	err := w.connect(ctx)
	if err == nil && first.bare {
		first.err = w.one(ctx, first)
		close(first.done)
		return
	}
	if err == nil {
		err = w.begin(ctx)
	}
	if err != nil {
		// Those who wait are told now, and do not each wait for the lock in turn.
		for m := first; m != nil && len(members) < maxGroup; m = w.next() {
			members = append(members, m)
		}
		w.fail(members, fmt.Errorf("begin: %w: %w", err, errLocked))
		return
	}
	heads := map[string]head{}
	for m := first; m != nil && len(members) < maxGroup; m = w.next() {
		members = append(members, m)
		if m.err = m.ctx.Err(); m.err != nil {
			continue
		}
		m.tx = &txState{heads: heads}
		m.err = w.one(ctx, m)
		if lost, ok := errors.AsType[*lostTxError](m.err); ok {
			w.fail(members, lost)
			return
		}
	}
	if err := w.finish(ctx, members, heads); err != nil {
		w.fail(members, &lostTxError{err})
		return
	}
	if _, err := w.q.ExecContext(ctx, "COMMIT"); err != nil {
		w.fail(members, unknown(err))
		return
	}
	for _, m := range members {
		if m.err == nil && m.tx != nil {
			for _, topic := range m.tx.topics {
				w.db.tell(topic)
			}
		}
		close(m.done)
	}
}

// finish writes what is written once for the whole group.
func (w *writer) finish(ctx context.Context, members []*member, heads map[string]head) error {
	for _, m := range members {
		if m.err == nil && m.tx != nil {
			if err := w.db.saveWords(ctx, w.q, m.tx); err != nil {
				return err
			}
		}
	}
	return w.db.saveHeads(ctx, w.q, heads)
}

// begin begins a transaction, on another connection if this one cannot: it may
// be gone, or in a state that a lost transaction has left.
func (w *writer) begin(ctx context.Context) error {
	_, err := w.q.ExecContext(ctx, "BEGIN IMMEDIATE")
	if err == nil || isBusy(err) {
		return err
	}
	w.disconnect()
	if err := w.connect(ctx); err != nil {
		return err
	}
	_, err = w.q.ExecContext(ctx, "BEGIN IMMEDIATE")
	return err
}

// isBusy reports whether another process has the file locked: then another
// connection would wait as long again.
func isBusy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// fail undoes the transaction of the members, and gives them all the error.
func (w *writer) fail(members []*member, err error) {
	w.disconnect()
	for _, m := range members {
		m.err = err
		close(m.done)
	}
}

// next returns a member that waits already, or nil. Before it says that none
// does it lets those run who are just about to ask: on a busy server that
// doubles how many share a commit, on an idle one it costs nothing.
func (w *writer) next() *member {
	for range 2 {
		select {
		case m := <-w.work:
			return m
		default:
			runtime.Gosched()
		}
	}
	return nil
}

// one runs a member in its savepoint. An error is the member's own unless it
// is a lostTxError.
func (w *writer) one(ctx context.Context, m *member) error {
	tx := &DB{shared: w.db.shared, q: counted{w.q, &w.db.statements}, tx: m.tx}
	if m.bare {
		return protect(func() error { return m.fn(tx) })
	}
	if _, err := w.q.ExecContext(ctx, "SAVEPOINT m"); err != nil {
		return &lostTxError{err}
	}
	err := protect(func() error {
		if err := m.fn(tx); err != nil {
			return err
		}
		return tx.chain(ctx)
	})
	if err != nil {
		if w.db.lost(err) {
			return &lostTxError{err}
		}
		if _, rerr := w.q.ExecContext(ctx, "ROLLBACK TO SAVEPOINT m"); rerr != nil {
			return &lostTxError{rerr}
		}
	}
	if _, rerr := w.q.ExecContext(ctx, "RELEASE SAVEPOINT m"); rerr != nil {
		return &lostTxError{rerr}
	}
	return err
}

// maxStatements bounds how many statements are kept prepared. The texts of
// lists are assembled from fragments, so there are many, but few are hot.
const maxStatements = 512

// A preparedConn runs statements on one connection, each prepared once. It is
// used by one goroutine. It is not bound to the caller's context: SQLite undoes
// the whole transaction, with all its members, when a statement is interrupted.
type preparedConn struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func (p *preparedConn) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := p.stmts[query]; ok {
		return s, nil
	}
	s, err := p.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if len(p.stmts) >= maxStatements {
		for q, old := range p.stmts { // any one will do
			old.Close()
			delete(p.stmts, q)
			break
		}
	}
	p.stmts[query] = s
	return s, nil
}

func (p *preparedConn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	ctx = context.WithoutCancel(ctx)
	s, err := p.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

func (p *preparedConn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ctx = context.WithoutCancel(ctx)
	s, err := p.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

func (p *preparedConn) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	ctx = context.WithoutCancel(ctx)
	s, err := p.stmt(ctx, query)
	if err != nil {
		return p.conn.QueryRowContext(ctx, query, args...) // carries the error to Scan
	}
	return s.QueryRowContext(ctx, args...)
}

// A preparedPool runs statements on a pool of readers, each prepared once a
// connection. Reads are short and bounded by LIMIT, so they are not bound to
// the caller's context: watching a context costs a goroutine for each query.
type preparedPool struct {
	pool  *sql.DB
	stmts sync.Map // text → *sql.Stmt
	n     atomic.Int64
}

func (p *preparedPool) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := p.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	if p.n.Load() >= maxStatements {
		return nil, nil
	}
	s, err := p.pool.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if other, loaded := p.stmts.LoadOrStore(query, s); loaded {
		s.Close()
		return other.(*sql.Stmt), nil
	}
	p.n.Add(1)
	return s, nil
}

func (p *preparedPool) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	return nil, errors.New("a write outside of a transaction")
}

func (p *preparedPool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ctx = context.WithoutCancel(ctx)
	s, err := p.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return p.pool.QueryContext(ctx, query, args...)
	}
	return s.QueryContext(ctx, args...)
}

func (p *preparedPool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	ctx = context.WithoutCancel(ctx)
	s, err := p.stmt(ctx, query)
	if err != nil || s == nil {
		return p.pool.QueryRowContext(ctx, query, args...)
	}
	return s.QueryRowContext(ctx, args...)
}

// sqliteDialect is what is particular to SQLite.
var sqliteDialect = dialect{
	name: "sqlite",
	isUnique: func(err error) bool {
		e, ok := errors.AsType[*sqlite.Error](err)
		return ok && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
	},
	isFault: func(err error) bool {
		e, ok := errors.AsType[*sqlite.Error](err)
		if !ok {
			return errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn)
		}
		switch e.Code() & 0xff { // the primary result code
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
			sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB:
			return true
		}
		return false
	},
	insertSearch: `INSERT INTO record_search (rowid, terms) VALUES ($1, $2)`,
	updateSearch: `UPDATE record_search SET terms = $2 WHERE rowid = $1`,
	deleteSearch: `DELETE FROM record_search WHERE rowid = $1`,
	matchSearch:  `r.n IN (SELECT rowid FROM record_search WHERE record_search MATCH %s)`,
	matchTerms:   fts5Match,
}
