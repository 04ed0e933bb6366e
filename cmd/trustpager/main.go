// Command trustpager opens a business workspace to people and their agents.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/secret"
	"trustpager/server"
	"trustpager/storage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, time.Now))
}

// cli is the command line.
type cli struct {
	Database      string `help:"SQLite file, or postgres:// URL. (default: trustpager.db, and trustpager-demo.db for the demo)" env:"TRUSTPAGER_DATABASE"`
	SecretKeyFile string `help:"File with the key that seals secrets and the audit log; made at first start. Nodes share it. (default: the database's name with .key, or trustpager.key with PostgreSQL)" type:"path" env:"TRUSTPAGER_SECRET_KEY_FILE"`
	Catalog       string `help:"YAML file that extends or replaces the default catalog." type:"existingfile" env:"TRUSTPAGER_CATALOG"`
	LogLevel      string `help:"debug, info, warn or error. (default: info, and warn in the demo)" enum:",debug,info,warn,error" default:"" env:"TRUSTPAGER_LOG_LEVEL"`

	Serve     serveCmd     `cmd:"" help:"Serve the API and MCP."`
	Demo      demoCmd      `cmd:"" help:"Serve a demo workspace, and print what to try."`
	Workspace workspaceCmd `cmd:"" help:"Manage workspaces."`
	User      userCmd      `cmd:"" help:"Manage the users of a workspace."`
	Key       keyCmd       `cmd:"" help:"Manage API keys."`
	Client    clientCmd    `cmd:"" help:"Register, list, edit and delete OAuth clients; list and revoke their grants."`
	Approvals approvalsCmd `cmd:"" help:"Look at approvals and decide them."`
	Pause     pauseCmd     `cmd:"" help:"Refuse the requests of one credential, or of all agents, until they are resumed."`
	Resume    resumeCmd    `cmd:"" help:"End a pause."`
	Audit     auditCmd     `cmd:"" help:"Look at the audit log and verify it."`
	Jobs      jobsCmd      `cmd:"" help:"Pause and resume outgoing jobs; look at dead ones."`
	Secret    secretCmd    `cmd:"" help:"Change the secret key of the server."`
	Backup    backupCmd    `cmd:"" help:"Write a backup of a SQLite database, while it is in use."`
	Restore   restoreCmd   `cmd:"" help:"Restore a backup to new files."`
	MCP       mcpCmd       `cmd:"" name:"mcp" help:"Connect an MCP client that only speaks stdio with a server."`
	Migrate   migrateCmd   `cmd:"" help:"Bring the tables of the database up to date."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// env is what a command works with.
type env struct {
	*cli
	ctx            context.Context
	stdout, stderr io.Writer
	now            func() time.Time
}

// run runs one command and returns its exit status: 0, 1 if it failed, 2 if
// the command line is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, now func() time.Time) int {
	var c cli
	exit := -1
	parser, err := kong.New(&c, kong.Name("trustpager"), kong.Description("A business workspace for people and their agents."),
		kong.Writers(stdout, stderr), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(code int) { exit = code }))
	if err != nil {
		fmt.Fprintln(stderr, "trustpager:", err)
		return 2
	}
	k, err := parser.Parse(args)
	if exit >= 0 {
		return exit // --help
	}
	if err != nil {
		fmt.Fprintf(stderr, "trustpager: %v\nSee: trustpager --help\n", err)
		return 2
	}
	if c.Database == "" {
		c.Database = "trustpager.db"
		if k.Command() == "demo" {
			c.Database = "trustpager-demo.db" // never among real data by accident
		}
	}
	level := slog.LevelInfo
	switch {
	case c.LogLevel != "":
		level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	case k.Command() == "demo":
		level = slog.LevelWarn // what to try next stays on the screen
	}
	slog.SetDefault(slog.New(server.LogHandler{Handler: slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level})}))
	if err := k.Run(&env{&c, ctx, stdout, stderr, now}); err != nil {
		tell(stderr, err)
		return 1
	}
	return 0
}

// tell prints an error with all that helps to mend it. Errors repeat what
// people and agents wrote, so it is made safe to look at.
func tell(w io.Writer, err error) { io.WriteString(w, printableLines(explain(err))) }

func explain(err error) string {
	var b strings.Builder
	e, ok := errors.AsType[*problem.Error](err)
	if !ok {
		return fmt.Sprintln("trustpager:", err)
	}
	fmt.Fprintln(&b, "trustpager:", e.Message)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "  %s: expected %s, got %s\n", f.Path, f.Expected, f.Got)
	}
	if e.Fix != "" {
		fmt.Fprintln(&b, e.Fix)
	}
	if e.Hint != "" {
		fmt.Fprintln(&b, e.Hint)
	}
	return b.String()
}

// keyFile returns where the secret key is.
func (c *cli) keyFile() string {
	switch {
	case c.SecretKeyFile != "":
		return c.SecretKeyFile
	case storage.IsPostgres(c.Database):
		return "trustpager.key"
	}
	return strings.TrimSuffix(c.Database, filepath.Ext(c.Database)) + ".key"
}

// loadCatalog returns the default catalog, extended by --catalog.
func (c *cli) loadCatalog() (*catalog.Catalog, error) {
	if c.Catalog == "" {
		return catalog.Load()
	}
	data, err := os.ReadFile(c.Catalog)
	if err != nil {
		return nil, err
	}
	return catalog.Load(catalog.Source{Name: c.Catalog, Data: data})
}

// open opens the database and the catalog, and puts the server together. With
// serving, a database that is not there is made, and records are indexed as the
// catalog says; the commands beside a server leave both to it.
func (e *env) open(serving bool, config server.Config) (*server.Server, error) {
	cat, err := e.loadCatalog()
	if err != nil {
		return nil, err
	}
	db, key, err := e.openDatabase(serving)
	if err != nil {
		return nil, err
	}
	known := config.BaseURL
	if known == "" {
		if config.BaseURL, err = db.BaseURL(e.ctx); err == nil && config.BaseURL == "" {
			config.BaseURL = "http://localhost" // no server has run yet
		}
	}
	config.Version, config.Now = version(), e.now
	var s *server.Server
	if err == nil {
		s, err = server.New(e.ctx, db, key, cat, config)
	}
	if err == nil && serving {
		err = db.Reindex(e.ctx, cat)
	}
	if err == nil && known != "" {
		err = db.SetBaseURL(e.ctx, known)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

// openDatabase opens the database with its secret key. Only a new database gets
// a new key.
func (e *env) openDatabase(create bool) (*storage.DB, secret.Key, error) {
	file := e.keyFile()
	_, err := os.Stat(file)
	newKey := errors.Is(err, fs.ErrNotExist)
	if !storage.IsPostgres(e.Database) {
		_, err := os.Stat(e.Database)
		missing := errors.Is(err, fs.ErrNotExist)
		if missing && !create {
			return nil, secret.Key{}, fmt.Errorf("there is no database %s: name one with --database, or make one with trustpager serve or demo", e.Database)
		}
		if !missing && newKey {
			return nil, secret.Key{}, wrongKey(e.Database, file)
		}
	}
	keys, err := secret.LoadKeys(file)
	if err != nil {
		return nil, secret.Key{}, err
	}
	var db *storage.DB
	var key secret.Key
	for _, key = range keys { // of two, the database has one: a rotation was interrupted
		if db, err = storage.Open(e.ctx, e.Database, storage.Options{Key: key, Now: e.now}); !errors.Is(err, storage.ErrWrongKey) {
			break
		}
	}
	if len(keys) > 1 && err == nil {
		slog.Warn("a rotation of the secret key was interrupted; finish it while no server runs, with: trustpager secret rotate", "file", file)
	}
	if errors.Is(err, storage.ErrWrongKey) {
		if newKey {
			os.Remove(file) // it opens nothing
		}
		err = wrongKey(e.Database, file)
	}
	return db, key, err
}

func wrongKey(database, file string) error {
	if u, err := url.Parse(database); err == nil {
		database = u.Redacted() // terminals and logs need no password
	}
	return fmt.Errorf("the secret key of the database %s is not in %s: name its file with --secret-key-file, or restore it from a backup", database, file)
}

// desk opens the database for a command that manages it.
func (e *env) desk() (*server.Server, error) { return e.open(false, server.Config{}) }

// in finds the workspace with the given id or name; without either, the only
// one there is. It returns what the operator may do there.
func in(ctx context.Context, s *server.Server, idOrName string) (access.Grant, error) {
	all, err := s.DB.Workspaces(ctx)
	if err != nil {
		return access.Grant{}, err
	}
	var found []access.Workspace
	for _, w := range all {
		if idOrName == "" || w.ID == idOrName || strings.EqualFold(w.Name, idOrName) {
			found = append(found, w)
		}
	}
	switch {
	case len(found) == 1:
		return admin.OperatorGrant(found[0]), nil
	case len(all) == 0:
		return access.Grant{}, errors.New("there is no workspace yet: make one with trustpager workspace create NAME")
	case len(found) == 0:
		return access.Grant{}, fmt.Errorf("there is no workspace %q: list them with trustpager workspace list", idOrName)
	}
	return access.Grant{}, errors.New("there are several workspaces: say which with --workspace ID")
}

// printJSON writes v as one line.
func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// version returns the version that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.stdout, "trustpager", version())
	return err
}

// stamp prints a time for people.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}
