package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"trustpager/secret"
	"trustpager/storage"
)

type secretCmd struct {
	Rotate secretRotateCmd `cmd:"" help:"Make a new secret key and seal everything with it. No server may run meanwhile."`
}

type secretRotateCmd struct {
	DespiteBrokenLog bool `help:"Go on although an audit log is not sound, which is then not to be seen any more."`
}

// Run rotates the secret key, or finishes a rotation that was interrupted: the
// file holds both keys from before the database changes until after it.
func (c *secretRotateCmd) Run(e *env) error {
	file := e.keyFile()
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return wrongKey(e.Database, file) // a new key is none to rotate
	}
	db, old, err := e.openDatabase(false)
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	keys, err := secret.LoadKeys(file)
	if err != nil {
		return err
	}
	if len(keys) > 1 && keys[0] == old {
		if err := secret.ReplaceKeys(file, old); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.stdout, "The rotation that was interrupted is finished: %s holds the new key only.\n", file)
		return err
	}
	next := secret.NewKey()
	done, err := storage.Rotate(e.ctx, e.Database, storage.Rotation{Old: old, New: next, Now: e.now, BrokenLogs: c.DespiteBrokenLog,
		Prepare: func() error { return secret.ReplaceKeys(file, next, old) }})
	if err != nil {
		return err
	}
	if err := secret.ReplaceKeys(file, next); err != nil {
		return fmt.Errorf("the database has the new key, but %s still holds the old one too; run the command again: %w", file, err)
	}
	fmt.Fprintf(e.stdout, "The secret key is changed. %s holds the new one; bring it to every node.\n", file)
	for _, what := range slices.Sorted(maps.Keys(done.Sealed)) {
		fmt.Fprintf(e.stdout, "  sealed anew: %d %s\n", done.Sealed[what], what)
	}
	for _, what := range done.Lost {
		fmt.Fprintf(e.stdout, "  left as it was, the old key does not open it: %s\n", printable(what))
	}
	for _, id := range done.Broken {
		fmt.Fprintf(e.stdout, "  its audit log was not sound: %s\n", id)
	}
	_, err = fmt.Fprintln(e.stdout, "Earlier backups hold the old key: make a new one, and destroy those. If the old key was in wrong hands,\nchange the secrets themselves too: see docs/operator.md.")
	return err
}
