package storage

import (
	"archive/tar"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// The files in a backup.
const (
	backupDatabase = "trustpager.db"
	backupKey      = "secret.key"
)

// keyFileSizes are those of a secret key file: with one key, or with two while a
// rotation is on its way.
var keyFileSizes = []int64{32, 64}

// ErrNotSQLite says that backups are for SQLite; PostgreSQL has tools of its
// own for that.
var ErrNotSQLite = errors.New("backup and restore are for SQLite; back up PostgreSQL with pg_dump, and the secret key file with it")

// vacuumInto writes a consistent copy of the database, while it is in use.
func vacuumInto(ctx context.Context, db *sql.DB, path string) error {
	// SQLite writes into an empty file, and this one is nobody else's to read.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	defer f.Close()
	if _, err := db.ExecContext(ctx, `VACUUM INTO $1`, path); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return f.Sync() // SQLite leaves that to the caller
}

// copyInto is vacuumInto for a copy that is whole or not there at all.
func copyInto(ctx context.Context, db *sql.DB, path string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".copy-")
	if err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	defer os.RemoveAll(dir)
	whole := filepath.Join(dir, backupDatabase)
	if err := vacuumInto(ctx, db, whole); err != nil {
		return err
	}
	if err := os.Rename(whole, path); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in the directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Backup writes a tar archive to path with a consistent copy of the database,
// which may be in use, and with the secret key from keyFile. It does not
// overwrite a file.
func Backup(ctx context.Context, database, path, keyFile string) (err error) {
	if IsPostgres(database) {
		return ErrNotSQLite
	}
	if !exists(database) {
		return fmt.Errorf("backup: there is no database %s", database)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".backup-")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, backupDatabase)
	pool, err := sql.Open("sqlite", sqliteDSN(database))
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer pool.Close()
	if err := vacuumInto(ctx, pool, copied); err != nil {
		return err
	}
	partial := filepath.Join(dir, "archive")
	if err := writeArchive(partial, copied, key); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	// Under its name only when it is whole; Link refuses an existing file.
	if err := os.Link(partial, path); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func writeArchive(path, database string, key []byte) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := os.Open(database)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	w := tar.NewWriter(out)
	if err := w.WriteHeader(&tar.Header{Name: backupKey, Mode: 0o600, Size: int64(len(key)), ModTime: info.ModTime()}); err != nil {
		return err
	}
	if _, err := w.Write(key); err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: backupDatabase, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return err
	}
	if _, err := io.Copy(w, in); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Sync()
}

// Restore writes the database and the secret key of the archive at path to new
// files. It overwrites nothing, and leaves nothing behind if it fails.
func Restore(path, database, keyFile string) error {
	for _, f := range []string{database, database + "-wal", database + "-shm", keyFile} {
		if _, err := os.Lstat(f); err == nil {
			return fmt.Errorf("restore: %s exists already: move it away first", f)
		}
	}
	in, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer in.Close()
	// Both are extracted beside their places, so that a restore that is cut off
	// leaves nothing that looks like a database.
	targets := map[string]string{backupDatabase: database, backupKey: keyFile}
	names := []string{backupKey, backupDatabase}
	dirs := map[string]string{}
	for _, name := range names {
		dir, err := os.MkdirTemp(filepath.Dir(targets[name]), ".restore-")
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		defer os.RemoveAll(dir)
		dirs[name] = dir
	}
	found := map[string]bool{}
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("restore: %s is not a backup of this program: %w", path, err)
		}
		if targets[h.Name] == "" || found[h.Name] || h.Typeflag != tar.TypeReg || h.Name == backupKey && !slices.Contains(keyFileSizes, h.Size) {
			return fmt.Errorf("restore: %s is not a backup of this program: it holds %q", path, h.Name)
		}
		found[h.Name] = true
		if err := extract(filepath.Join(dirs[h.Name], h.Name), r); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	for _, name := range names {
		if !found[name] {
			return fmt.Errorf("restore: %s is not whole: %s is missing", path, name)
		}
	}
	for i, name := range names {
		// Link refuses an existing file.
		if err := os.Link(filepath.Join(dirs[name], name), targets[name]); err != nil {
			if i > 0 {
				os.Remove(targets[names[0]])
			}
			return fmt.Errorf("restore: %w", err)
		}
	}
	return errors.Join(syncDir(filepath.Dir(database)), syncDir(filepath.Dir(keyFile)))
}

func extract(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Sync()
}
