package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"trustpager/problem"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// channel is the one that nodes notify each other on.
const channel = "trustpager"

func (db *DB) openPostgres(ctx, background context.Context, url string, opts Options) error {
	db.dialect, db.url = &postgresDialect, url
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	set := func(name, value string) {
		if _, ok := cfg.RuntimeParams[name]; !ok {
			cfg.RuntimeParams[name] = value
		}
	}
	set("application_name", "trustpager")
	set("statement_timeout", "30000")                   // ms
	set("idle_in_transaction_session_timeout", "60000") // ms
	db.pool = stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(db.holdKey))
	db.pool.SetMaxOpenConns(16)
	db.pool.SetMaxIdleConns(16)
	db.pool.SetConnMaxIdleTime(5 * time.Minute)
	db.q = counted{db.pool, &db.statements}
	quick := cfg.Copy()
	quick.RuntimeParams["synchronous_commit"] = "off"
	db.openQuick(stdlib.OpenDB(*quick, stdlib.OptionAfterConnect(db.holdKey)))
	if err := migrate(ctx, db.dialect, db.pool, opts, func(int64) error { return nil }); err != nil {
		return err
	}
	listen := cfg.Copy()
	listen.RuntimeParams["statement_timeout"] = "0"
	db.done.Go(func() { db.listen(background, listen) })
	return nil
}

// keyLock is the advisory lock that keeps the secret key of the database as it
// is: each connection shares it, and a rotation has it alone.
const keyLock = 0x7472757374 // "trust"

// holdKey lets a connection be used only with the secret key that the database
// has: it cannot change before the connection ends.
func (db *DB) holdKey(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1)", int64(keyLock)); err != nil {
		return fmt.Errorf("wait for the secret key: %w", err)
	}
	if !db.keyKnown.Load() {
		return nil // checkKey looks at it, on such a connection
	}
	var theirs string
	if err := conn.QueryRow(ctx, "SELECT value FROM settings WHERE name = $1", keyPrint).Scan(&theirs); err != nil {
		return fmt.Errorf("look at the secret key: %w", err)
	}
	if theirs != fingerprint(db.key) {
		return ErrWrongKey
	}
	return nil
}

// errStale says that the pool gave a connection that the database had closed.
var errStale = errors.New("begin on a closed connection")

// postgresTx runs fn in a transaction of its own, and again if the database
// chose it as the victim of a deadlock.
func (db *DB) postgresTx(ctx context.Context, fn func(*DB) error) error {
	for try := 1; ; try++ {
		err := db.postgresTry(ctx, fn)
		e, ok := errors.AsType[*pgconn.PgError](err)
		if try == 5 || !(ok && (e.Code == "40001" || e.Code == "40P01") || errors.Is(err, errStale)) {
			return err
		}
		// The other one of the deadlock goes first: at once, this one would take
		// its locks again before the other has woken.
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * (5*time.Millisecond + rand.N(20*time.Millisecond))):
		}
	}
}

func (db *DB) postgresTry(ctx context.Context, fn func(*DB) error) error {
	// The caller may give up while waiting for a connection, and not after.
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("begin: %w: %w", err, problem.Errorf(problem.Unavailable, "the database does not answer; nothing was done").
			WithFix("Send the request again in a few seconds."))
	}
	defer conn.Close()
	ctx = context.WithoutCancel(ctx)
	sqlTx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return &lostTxError{fmt.Errorf("%w: %w", errStale, err)}
	}
	tx := &DB{shared: db.shared, q: uncancelled{counted{sqlTx, &db.statements}}, tx: &txState{heads: map[string]head{}}}
	err = protect(func() error {
		if err := fn(tx); err != nil {
			return err
		}
		for _, topic := range tx.tx.topics {
			if _, err := sqlTx.ExecContext(ctx, "SELECT pg_notify($1, $2)", channel, topic); err != nil {
				return fmt.Errorf("notify: %w", err)
			}
		}
		if err := db.saveWords(ctx, tx.q, tx.tx); err != nil {
			return err
		}
		// The chain's head is locked last, so that it is held only briefly.
		if err := tx.chain(ctx); err != nil {
			return err
		}
		return tx.saveHeads(ctx, sqlTx, tx.tx.heads)
	})
	if err != nil {
		// A connection that cannot roll back is gone, and the transaction with it.
		if rerr := sqlTx.Rollback(); rerr != nil || db.lost(err) {
			return &lostTxError{err}
		}
		return err
	}
	if err := sqlTx.Commit(); err != nil {
		if refused(err) {
			return fmt.Errorf("commit: %w", err)
		}
		return unknown(err)
	}
	return nil
}

// refused reports whether a failed commit is known to have done nothing: a
// statement before it had failed, or the database rolled it back. Other answers,
// such as that of a server that is being stopped, may come after the commit.
func refused(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return errors.Is(err, pgx.ErrTxCommitRollback) || ok && (e.Code[:2] == "23" || e.Code[:2] == "40")
}

// listen wakes this node's watchers of what any node has committed.
func (db *DB) listen(ctx context.Context, cfg *pgx.ConnConfig) {
	for wait := time.Second; ctx.Err() == nil; {
		err := func() error {
			conn, err := pgx.ConnectConfig(ctx, cfg)
			if err != nil {
				return err
			}
			defer conn.Close(context.Background())
			if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
				return err
			}
			wait = time.Second
			db.tell("") // something may have been missed
			for {
				n, err := conn.WaitForNotification(ctx)
				if err != nil {
					return err
				}
				db.tell(n.Payload)
			}
		}()
		if ctx.Err() != nil {
			return
		}
		slog.Warn("no notifications from the database; trying again", "err", err, "in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 30*time.Second)
	}
}

// postgresDialect is what is particular to PostgreSQL.
var postgresDialect = dialect{
	name:       "postgres",
	lockRow:    " FOR UPDATE",
	lockSolo:   " FOR NO KEY UPDATE",
	lockShared: " FOR SHARE",
	lockSkip:   " FOR UPDATE SKIP LOCKED",
	snapshot:   sql.LevelRepeatableRead,
	lockName:   `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`,
	isUnique: func(err error) bool {
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && e.Code == "23505"
	},
	isFault: func(err error) bool {
		e, ok := errors.AsType[*pgconn.PgError](err)
		if !ok {
			return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) || pgconn.SafeToRetry(err)
		}
		// Classes: lost connection, rollback by the database, out of resources,
		// stopped by the operator, the system's fault.
		return slices.Contains([]string{"08", "40", "53", "57", "58"}, e.Code[:2])
	},
	insertSearch: `INSERT INTO record_search (n, terms) VALUES ($1, array_to_tsvector(string_to_array($2, ' ')))`,
	updateSearch: `UPDATE record_search SET terms = array_to_tsvector(string_to_array($2, ' ')) WHERE n = $1`,
	deleteSearch: `DELETE FROM record_search WHERE n = $1`,
	matchSearch:  `r.n IN (SELECT n FROM record_search WHERE terms @@ CAST(%s AS tsquery))`,
	matchTerms:   tsqueryMatch,
}
