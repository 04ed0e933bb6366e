//go:build unix

package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockMigration waits until no other process migrates a SQLite file in the same
// directory, and keeps others waiting until unlock is called. SQLite itself has
// no lock that spans migrations. The lock is on the directory: closing a file
// of the database would drop SQLite's own locks on it.
func lockMigration(path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", filepath.Dir(path), err)
	}
	return func() { dir.Close() }, nil // closing unlocks
}
