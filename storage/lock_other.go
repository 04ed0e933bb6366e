//go:build !unix

package storage

// lockMigration does nothing here: only one process at a time may make or
// migrate the tables of a SQLite file.
func lockMigration(string) (unlock func(), err error) { return func() {}, nil }
