package storage

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// A dialect is what differs between the databases.
type dialect struct {
	name string

	// What ends a SELECT that locks its rows. SQLite needs none of it: a
	// transaction that writes is alone.
	lockRow    string // others can neither change nor lock them
	lockSolo   string // as lockRow, but others may still add rows that refer to them
	lockShared string // others can read them and share the lock, not change them
	lockSkip   string // as lockRow; rows that are locked are passed over

	lockName string // statement that locks a name, $1, until the transaction ends; "" if writers are alone

	snapshot sql.IsolationLevel // a read-only transaction that sees one state

	isUnique func(error) bool // reports whether err is a violated unique constraint
	isFault  func(error) bool // reports whether err is the database's own trouble, not the statement's

	// Full-text search over words that were cut and folded before.
	insertSearch, updateSearch, deleteSearch string                // $1 the record's number, $2 words separated by spaces
	matchSearch                              string                // condition on records r; %s stands for the parameter
	matchTerms                               func([]string) string // the parameter's value: each word begins some word
}

// lockOnly is lockRow for the rows of one table of a join.
func (d *dialect) lockOnly(table string) string {
	if d.lockRow == "" {
		return ""
	}
	return d.lockRow + " OF " + table
}

// fts5Match returns the FTS5 query that finds all words as prefixes.
func fts5Match(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteString(" AND ")
		}
		b.WriteString(`"` + strings.ReplaceAll(w, `"`, `""`) + `"*`)
	}
	return b.String()
}

// tsqueryMatch returns the tsquery that finds all words as prefixes.
func tsqueryMatch(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteString(" & ")
		}
		w = strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(w)
		b.WriteString(`'` + w + `':*`)
	}
	return b.String()
}

//go:embed migrations/*.sql
var migrations embed.FS

// engineFS is the migrations of one engine: the common ones, and of those that
// name an engine, as in 0002_records.sqlite.sql, only its own.
type engineFS struct {
	fs.FS
	engine string
}

func (f engineFS) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	var mine []fs.DirEntry
	for _, e := range all {
		if parts := strings.Split(e.Name(), "."); len(parts) == 3 && parts[1] != f.engine {
			continue
		}
		mine = append(mine, e)
	}
	return mine, err
}

// migrate brings the tables up to date. Before it changes anything it calls
// before with the version that they have.
func migrate(ctx context.Context, d *dialect, db *sql.DB, opts Options, before func(version int64) error) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	kind := goose.DialectSQLite3
	if d == &postgresDialect {
		kind = goose.DialectPostgres
		// One node migrates while the others wait, for a minute at most.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(kind, db, engineFS{dir, d.name}, options...)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	switch {
	case have == want:
		return nil
	case have > want:
		return fmt.Errorf("the database has version %d, newer than this program's %d: use the program that wrote it, or a later one", have, want)
	case opts.NoMigrate && have > 0:
		return fmt.Errorf("the database has version %d and needs %d: run trustpager migrate", have, want)
	}
	if err := before(have); err != nil {
		return fmt.Errorf("copy before migrating: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate from version %d: %w", have, err)
	}
	return nil
}
