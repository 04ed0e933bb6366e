package main

import (
	"fmt"

	"trustpager/audit"
	"trustpager/server"
	"trustpager/storage"
)

type backupCmd struct {
	File string `arg:"" help:"File to write; it must not exist." type:"path"`
}

// Run writes a backup.
func (c *backupCmd) Run(e *env) error {
	// Not through the program's own tables: a backup is also what one makes
	// before a newer program changes them.
	if err := storage.Backup(e.ctx, e.Database, c.File, e.keyFile()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "Wrote %s. It holds the secret key: keep it as safe as the database.\n", c.File)
	return err
}

type restoreCmd struct {
	File string `arg:"" help:"Backup to read." type:"existingfile"`
}

// Run restores a backup, and pauses what would go outside.
func (c *restoreCmd) Run(e *env) error {
	if storage.IsPostgres(e.Database) {
		return storage.ErrNotSQLite
	}
	if err := storage.Restore(c.File, e.Database, e.keyFile()); err != nil {
		return err
	}
	db, _, err := e.openDatabase(false)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.PauseJobs(e.ctx, e.now()); err != nil {
		return err
	}
	if err := e.auditAll(db, audit.ServerRestored); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "Restored %s with %s. Outgoing jobs are paused, so that nothing is sent twice by accident;\nwhen the old server is off for good: trustpager jobs resume --database %s\n", e.Database, e.keyFile(), e.Database)
	return err
}

type migrateCmd struct{}

// Run migrates.
func (migrateCmd) Run(e *env) error {
	s, err := e.open(true, server.Config{})
	if err != nil {
		return err
	}
	defer s.DB.Close()
	_, err = fmt.Fprintln(e.stdout, "The tables are up to date.")
	return err
}
