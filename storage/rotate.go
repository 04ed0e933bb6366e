package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/integrations"
	"trustpager/oauth"
	"trustpager/secret"
	"trustpager/webhook"
)

// ErrInUse says that other processes have the database open, so its secret key
// cannot be changed now: they would go on sealing with the old one.
var ErrInUse = errors.New("the database is in use by another process: stop all servers and commands on it first")

// A Rotation is the change of the secret key of a database.
type Rotation struct {
	Old, New secret.Key
	Now      func() time.Time

	// Prepare is called when nothing stands against the rotation any more, and
	// before anything is changed: it keeps the new key where it outlives a crash.
	Prepare func() error

	// BrokenLogs goes on although audit logs are not sound, which is then not to be
	// seen any more. The entries tell of it.
	BrokenLogs bool
}

// Rotated is what a rotation has done.
type Rotated struct {
	Sealed map[string]int // how many secrets of each kind were sealed anew
	Lost   []string       // where there are secrets that the old key does not open; they are left as they are
	Broken []string       // workspaces whose audit log is not sound
}

// A sealedColumn is a column whose values are sealed with the secret key. All of
// them are in sealedColumns.
type sealedColumn struct {
	what    string
	selects string // of an id, the sealed value, and what the place is made of
	update  string // of the value $2 of the row with the id $1
	place   func(id string, of []string) string
	inJSON  bool // the value is a string in JSON
}

// sealedColumns are all sealed values of the database.
var sealedColumns = []sealedColumn{
	{what: "webhook secrets", selects: `SELECT id, secret, workspace, owner FROM endpoints WHERE secret <> ''`,
		update: `UPDATE endpoints SET secret = $2 WHERE id = $1`, place: webhookPlace},
	{what: "webhook secrets", selects: `SELECT id, old_secret, workspace, owner FROM endpoints WHERE old_secret <> ''`,
		update: `UPDATE endpoints SET old_secret = $2 WHERE id = $1`, place: webhookPlace},
	{what: "OAuth signing keys", selects: `SELECT id, private, '', '' FROM oauth_signing_keys`,
		update: `UPDATE oauth_signing_keys SET private = $2 WHERE id = $1`, place: func(id string, _ []string) string { return oauth.KeyPlace(id) }},
	{what: "messages on their way", selects: `SELECT id, payload, '', '' FROM jobs WHERE kind = '` + integrations.MailKind + `'`,
		update: `UPDATE jobs SET payload = $2 WHERE id = $1`, place: func(id string, _ []string) string { return integrations.MessagePlace(id) }, inJSON: true},
	{what: "integrations", selects: `SELECT id, sealed, workspace, '' FROM integrations WHERE sealed <> ''`,
		update: `UPDATE integrations SET sealed = $2 WHERE id = $1`, place: func(id string, of []string) string { return integrations.AccountPlace(of[0], id) }},
	{what: "keys of audit logs", selects: `SELECT workspace || ' ' || CAST(seq AS TEXT), audit_key, workspace, CAST(seq AS TEXT) FROM audit_epochs`,
		update: `UPDATE audit_epochs SET audit_key = $2 WHERE workspace || ' ' || CAST(seq AS TEXT) = $1`, place: func(_ string, of []string) string { return epochPlace(of[0], of[1]) }},
}

func webhookPlace(_ string, of []string) string { return webhook.Place(of[0], of[1]) }

// sealedTables are the tables that hold them.
var sealedTables = []string{"endpoints", "oauth_signing_keys", "jobs", "integrations", "audit_epochs"}

// Rotate seals everything that the database keeps sealed with another key, in
// one transaction: the database has the old key before it and the new one after.
// It fails with [ErrInUse] while any other process has the database open, and
// nobody can open it meanwhile; and with [ErrWrongKey] if the old key is not the
// database's. The tables have to be up to date.
//
// The audit logs stay as they are: what they hold up to now keeps its seals,
// whose key is kept, sealed, and the next entry chains on with the new key.
func Rotate(ctx context.Context, url string, r Rotation) (Rotated, error) {
	db := &DB{shared: &shared{key: r.Old, auditKey: r.Old.Derive("audit"), now: r.Now, watchers: map[*watcher]struct{}{}}}
	open := db.openAloneSQLite
	if IsPostgres(url) {
		open = db.openAlonePostgres
	}
	done := Rotated{Sealed: map[string]int{}}
	err := open(ctx, url)
	if db.pool != nil {
		defer db.pool.Close()
	}
	if err == nil {
		err = db.rotate(ctx, r, &done)
	}
	if err != nil {
		return done, fmt.Errorf("rotate the secret key: %w", err)
	}
	return done, nil
}

func (db *DB) rotate(ctx context.Context, r Rotation, done *Rotated) error {
	theirs, err := db.setting(ctx, keyPrint)
	if err != nil {
		return err
	}
	if theirs != fingerprint(r.Old) {
		return ErrWrongKey
	}
	workspaces, err := db.Workspaces(ctx)
	if err != nil {
		return err
	}
	for _, w := range workspaces {
		if _, err := db.VerifyAudit(ctx, w.ID); err != nil {
			if !r.BrokenLogs {
				return fmt.Errorf("the audit log of %s is not sound, which could not be seen any more: %w", w.ID, err)
			}
			done.Broken = append(done.Broken, w.ID)
		}
	}
	if err := r.Prepare(); err != nil {
		return err
	}
	err = db.postgresTx(ctx, func(tx *DB) error { // on SQLite too: there is one connection, and nobody else
		if db.dialect == &postgresDialect { // the connection may be another one by now
			var alone bool
			if err := tx.q.QueryRowContext(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(keyLock)).Scan(&alone); err != nil || !alone {
				return errors.Join(err, ErrInUse)
			}
		}
		fresh := Rotated{Sealed: map[string]int{}, Broken: done.Broken} // it may run more than once
		for _, c := range sealedColumns {
			if err := tx.reseal(ctx, c, r, &fresh); err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
		}
		for _, w := range workspaces {
			if err := tx.nextEpoch(ctx, r, w); err != nil {
				return err
			}
		}
		if err := tx.setSetting(ctx, keyPrint, fingerprint(r.New)); err != nil {
			return err
		}
		*done = fresh
		// What follows, with the entries that tell of it, is sealed with the new key.
		next := *tx
		next.shared = &shared{dialect: db.dialect, key: r.New, auditKey: r.New.Derive("audit")}
		return next.tellRotation(ctx, r, *done, workspaces)
	})
	if err != nil {
		return err
	}
	return db.scrub(ctx)
}

// reseal seals the values of one column anew.
func (db *DB) reseal(ctx context.Context, c sealedColumn, r Rotation, done *Rotated) error {
	rows, err := db.q.QueryContext(ctx, c.selects)
	if err != nil {
		return err
	}
	defer rows.Close()
	type value struct{ id, place, sealed string }
	var all []value
	for rows.Next() {
		var v value
		of := make([]string, 2)
		if err := rows.Scan(&v.id, &v.sealed, &of[0], &of[1]); err != nil {
			return err
		}
		v.place = c.place(v.id, of)
		all = append(all, v)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, v := range all {
		if c.inJSON {
			var text string
			if json.Unmarshal([]byte(v.sealed), &text) == nil {
				v.sealed = text
			}
		}
		plain, err := r.Old.Open(v.sealed, v.place)
		if err != nil {
			done.Lost = append(done.Lost, c.what+" "+v.id)
			continue
		}
		sealed, err := r.New.Seal(plain, v.place)
		if err != nil {
			return err
		}
		if c.inJSON {
			encoded, err := json.Marshal(sealed)
			if err != nil {
				return err
			}
			sealed = string(encoded)
		}
		if n, err := affected(db.q.ExecContext(ctx, c.update, v.id, sealed)); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("%s: %d rows were changed", v.id, n))
		}
		done.Sealed[c.what]++
	}
	return nil
}

// nextEpoch ends the part of the workspace's log that is sealed with the old
// key, and keeps that key for who verifies it. The end of the log is sealed by
// the entry that follows.
func (db *DB) nextEpoch(ctx context.Context, r Rotation, w access.Workspace) error {
	var seq int64
	if err := db.q.QueryRowContext(ctx, `SELECT seq FROM audit_heads WHERE workspace = $1`, w.ID).Scan(&seq); err != nil {
		return fmt.Errorf("audit log of %s: %w", w.ID, err)
	}
	sealed, err := r.New.Seal(r.Old.Derive("audit"), epochPlace(w.ID, strconv.FormatInt(seq, 10)))
	if err != nil {
		return err
	}
	_, err = db.q.ExecContext(ctx, `INSERT INTO audit_epochs (workspace, seq, audit_key) VALUES ($1, $2, $3)`, w.ID, seq, sealed)
	return err
}

// tellRotation audits the rotation in each workspace, with the new key.
func (db *DB) tellRotation(ctx context.Context, r Rotation, done Rotated, workspaces []access.Workspace) error {
	broken := map[string]bool{}
	for _, id := range done.Broken {
		broken[id] = true
	}
	for _, w := range workspaces {
		e := audit.Entry{Workspace: w.ID, Time: r.Now().UTC().Truncate(time.Millisecond), Actor: access.Operator.Actor(), Event: audit.KeyFileRotated, Door: "cli"}
		if broken[w.ID] {
			e.Detail = json.RawMessage(`{"log_was_not_sound":true}`)
		}
		db.tx.entries = append(db.tx.entries, e)
	}
	if err := db.chain(ctx); err != nil {
		return err
	}
	db.tx.entries = nil
	err := db.saveHeads(ctx, db.q, db.tx.heads)
	clear(db.tx.heads)
	return err
}

// openAloneSQLite opens the file so that no other process can, nor has it open.
func (db *DB) openAloneSQLite(ctx context.Context, path string) error {
	db.dialect, db.path = &sqliteDialect, path
	if !exists(path) {
		return fmt.Errorf("there is no database %s", path)
	}
	// What is overwritten is wiped, or the old key could read it in the file.
	pool, err := sql.Open("sqlite", sqliteDSN(path, "_txlock=exclusive", "_pragma=synchronous(FULL)", "_pragma=secure_delete(1)"))
	if err != nil {
		return err
	}
	db.pool = pool
	pool.SetMaxOpenConns(1)
	pool.SetMaxIdleConns(1)
	db.q = counted{pool, &db.statements}
	// Only who is alone can leave the write-ahead log; then the exclusive mode
	// keeps the lock for as long as the connection lasts.
	var mode string
	if _, err := pool.ExecContext(ctx, `PRAGMA busy_timeout = 1000`); err != nil {
		return err
	}
	if err := pool.QueryRowContext(ctx, `PRAGMA journal_mode = DELETE`).Scan(&mode); isBusy(err) || err == nil && mode != "delete" {
		return ErrInUse
	} else if err != nil {
		return err
	}
	if err := pool.QueryRowContext(ctx, `PRAGMA locking_mode = EXCLUSIVE`).Scan(&mode); err != nil {
		return err
	}
	for _, step := range []string{`BEGIN EXCLUSIVE`, `COMMIT`} {
		if _, err := pool.ExecContext(ctx, step); isBusy(err) {
			return ErrInUse
		} else if err != nil {
			return err
		}
	}
	return nil
}

// openAlonePostgres connects to the database while no other connection has its
// secret key in use, and keeps others from it.
func (db *DB) openAlonePostgres(ctx context.Context, url string) error {
	db.dialect, db.url = &postgresDialect, url
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	cfg.RuntimeParams["application_name"] = "trustpager rotation"
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["lock_timeout"] = "10000"
	db.pool = stdlib.OpenDB(*cfg)
	db.pool.SetMaxOpenConns(1)
	db.pool.SetMaxIdleConns(1)
	db.q = counted{db.pool, &db.statements}
	for end := time.Now().Add(letGo); ; {
		var alone bool
		if err := db.pool.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(keyLock)).Scan(&alone); err != nil || alone {
			return err
		}
		if time.Now().After(end) {
			return ErrInUse
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// letGo is how long PostgreSQL may take to notice that a process has gone.
const letGo = 3 * time.Second

// scrub takes what was sealed with the old key out of the files of the database,
// as far as that can be done from here.
func (db *DB) scrub(ctx context.Context) error {
	if db.dialect == &sqliteDialect {
		return nil // see openAloneSQLite
	}
	for _, t := range sealedTables {
		if _, err := db.pool.ExecContext(ctx, "VACUUM FULL "+t); err != nil {
			return fmt.Errorf("the key is rotated, but the old values may still be in the files of the table %s: %w", t, err)
		}
	}
	return nil
}
