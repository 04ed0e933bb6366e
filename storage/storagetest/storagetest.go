// Package storagetest gives every package's tests real databases: a fresh
// SQLite file, and a fresh PostgreSQL database when the server's binaries are
// on the machine. It starts its own PostgreSQL cluster, throw-away and
// listening on a socket in a temporary directory only.
package storagetest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"trustpager/secret"
	"trustpager/storage"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that makes and drops databases
)

// Key is the secret key of the databases that [Each] opens.
var Key = secret.NewKey()

// Each runs test on a fresh SQLite file and on a fresh PostgreSQL database.
// Without PostgreSQL's binaries that half is skipped, or fails if
// TRUSTPAGER_TEST_REQUIRE=all.
func Each(t *testing.T, test func(t *testing.T, db *storage.DB)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) { test(t, Open(t, url)) })
}

// EachURL is [Each] for tests that open the database themselves, such as those
// with several processes.
func EachURL(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "test.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// Open opens the database that url names, and closes it with the test.
func Open(t testing.TB, url string) *storage.DB {
	t.Helper()
	return OpenAt(t, url, nil)
}

// OpenAt is [Open] with a clock, time.Now if nil.
func OpenAt(t testing.TB, url string, now func() time.Time) *storage.DB {
	t.Helper()
	db, err := storage.Open(t.Context(), url, storage.Options{Key: Key, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	return db
}

// Require skips the test because a tool is missing, or fails it if the
// environment says that nothing may be skipped.
func Require(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Skip(lacks(t, format, args...)) // a tool is missing, and TRUSTPAGER_TEST_REQUIRE does not forbid it
}

// Lacks is Require for a tool without which the rest of the test has its worth:
// the test goes on, and says what it does not check.
func Lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Log(lacks(t, format, args...))
}

func lacks(t testing.TB, format string, args ...any) string {
	t.Helper()
	message := "missing: " + fmt.Sprintf(format, args...)
	if os.Getenv("TRUSTPAGER_TEST_REQUIRE") == "all" {
		t.Fatal(message)
	}
	return message
}

var databases atomic.Int64

// Postgres returns the URL of a fresh PostgreSQL database with its tables, which
// is dropped with the test.
func Postgres(t testing.TB) string {
	t.Helper()
	c := cluster(t)
	templateOnce.Do(func() { templateErr = c.makeTemplate() })
	if templateErr != nil {
		t.Fatal(templateErr)
	}
	return c.create(t, template)
}

// EmptyPostgres returns the URL of a PostgreSQL database without tables, which
// is dropped with the test.
func EmptyPostgres(t testing.TB) string {
	t.Helper()
	c := cluster(t)
	return c.create(t, "template0 "+hostile)
}

// hostile is a locale in which text does not sort byte by byte, as that of many
// servers.
const hostile = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"

// template is the database that others are copied from, since that is faster
// than making the tables.
const template = "tables"

var (
	templateOnce sync.Once
	templateErr  error
)

func (c *Cluster) makeTemplate() error {
	if err := c.exec("CREATE DATABASE " + template + " TEMPLATE template0 " + hostile); err != nil {
		return err
	}
	db, err := storage.Open(context.Background(), c.url(template), storage.Options{Key: Key})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	// A copy takes the secret key of whoever opens it first, as a new one does.
	return c.execIn(template, "DELETE FROM settings WHERE name = 'secret_key'")
}

// create makes a database that is dropped with the test.
func (c *Cluster) create(t testing.TB, from string) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	if err := c.exec("CREATE DATABASE " + name + " TEMPLATE " + from); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Log(err) // the server goes with the process
		}
	})
	return c.url(name)
}

// SetClock sets the clock that the PostgreSQL database at the URL counts the
// limits of credentials by. It stands still.
func SetClock(t testing.TB, url string, now time.Time) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(fmt.Sprintf("CREATE OR REPLACE FUNCTION now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT to_timestamp(%d.%06d)'",
		now.Unix(), now.Nanosecond()/1000)); err != nil {
		t.Fatal(err)
	}
}

// exec runs one statement outside of the databases of tests.
func (c *Cluster) exec(query string) error { return c.execIn("postgres", query) }

func (c *Cluster) execIn(database, query string) error {
	admin, err := sql.Open("pgx", c.url(database))
	if err != nil {
		return err
	}
	defer admin.Close()
	if _, err := admin.Exec(query); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return nil
}

// A Cluster is a throw-away PostgreSQL server.
type Cluster struct {
	dir string
	bin string
	uid *syscall.Credential // who runs it, nil for the current user
}

var (
	shared     *Cluster
	sharedErr  error
	sharedOnce sync.Once
)

// cluster returns the one that all tests of the process share.
func cluster(t testing.TB) *Cluster {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		Require(t, "PostgreSQL server (%v); on Debian: apt-get install postgresql", err)
	}
	sharedOnce.Do(func() {
		// Speed before durability: nothing of it outlives the tests.
		shared, sharedErr = start(bin, "fsync=off", "synchronous_commit=off", "full_page_writes=off")
	})
	if sharedErr != nil {
		t.Fatal(sharedErr)
	}
	return shared
}

// Run runs the package's tests and stops what they have started. A package
// whose tests use PostgreSQL calls it from TestMain.
func Run(m *testing.M) int {
	code := m.Run()
	if shared != nil {
		shared.Stop()
	}
	return code
}

func (c *Cluster) url(database string) string {
	// The system's functions come last, so that SetClock can stand before now().
	q := url.Values{"host": {c.dir}, "user": {"postgres"}, "sslmode": {"disable"}, "options": {"-csearch_path=public,pg_catalog"}}
	return "postgres:///" + database + "?" + q.Encode()
}

// binaries returns the directory of PostgreSQL's newest server binaries.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(real), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", exec.ErrNotFound
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return major(a) - major(b) })
	return filepath.Dir(newest), nil
}

func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// start makes a cluster and starts its server. PostgreSQL refuses to run as
// root, so root starts it as the user "postgres" or "nobody".
func start(bin string, settings ...string) (*Cluster, error) {
	c := &Cluster{bin: bin}
	if os.Getuid() == 0 {
		for _, name := range []string{"postgres", "nobody"} {
			if u, err := user.Lookup(name); err == nil {
				uid, _ := strconv.Atoi(u.Uid)
				gid, _ := strconv.Atoi(u.Gid)
				c.uid = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
				break
			}
		}
		if c.uid == nil {
			return nil, fmt.Errorf("start PostgreSQL: root may not run it, and there is no user postgres or nobody")
		}
	}
	// Not t.TempDir: a socket's path must be short, and its parents open to the
	// other user.
	dir, err := os.MkdirTemp("", "tp-pg-")
	if err != nil {
		return nil, err
	}
	c.dir = dir
	if c.uid != nil {
		if err := os.Chown(dir, int(c.uid.Uid), int(c.uid.Gid)); err != nil {
			return nil, err
		}
	}
	if out, err := c.command("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	for _, s := range append(settings, "listen_addresses=''", "unix_socket_directories='"+dir+"'", "max_connections=300") {
		f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(f, strings.Replace(s, "=", " = ", 1))
		f.Close()
	}
	return c, c.Start()
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.uid}
	return cmd
}

// Start starts the server and waits until it answers.
func (c *Cluster) Start() error {
	log := filepath.Join(c.dir, "log")
	if out, err := c.command("pg_ctl", "-D", c.data(), "-l", log, "-w", "-t", "60", "start").CombinedOutput(); err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("start PostgreSQL: %w\n%s\n%s", err, out, text)
	}
	return nil
}

// Stop ends the server and removes its files.
func (c *Cluster) Stop() {
	c.command("pg_ctl", "-D", c.data(), "-m", "immediate", "-w", "stop").Run()
	os.RemoveAll(c.dir)
}

// A Clock is a settable time for tests. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at a fixed time.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)}
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock on by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
