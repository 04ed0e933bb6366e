package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/server"
	"trustpager/storage"
)

// with opens the database for fn, in the workspace that is named or the only
// one.
func (e *env) with(workspace string, fn func(ctx context.Context, s *server.Server, g access.Grant) error) error {
	s, err := e.desk()
	if err != nil {
		return err
	}
	defer s.DB.Close()
	g, err := in(e.ctx, s, workspace)
	if err != nil {
		return err
	}
	return fn(e.ctx, s, g)
}

// table prints rows with aligned columns. What people and agents wrote in them
// is made safe to look at.
func (e *env) table(header string, rows [][]string) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	for _, r := range rows {
		for i := range r {
			r[i] = printable(r[i])
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// inWorkspace is the flag of commands that work in one workspace.
type inWorkspace struct {
	Workspace string `help:"Id or name of the workspace, if there are several." env:"TRUSTPAGER_WORKSPACE"`
}

// asJSON is the flag of commands whose output scripts may want to read.
type asJSON struct {
	JSON bool `help:"Print JSON."`
}

// auditAll records in every workspace what the operator has done to the whole
// server.
func (e *env) auditAll(db *storage.DB, event audit.Event) error {
	all, err := db.Workspaces(e.ctx)
	if err != nil {
		return err
	}
	for _, w := range all {
		entry := audit.Entry{Workspace: w.ID, Time: e.now().UTC().Truncate(time.Millisecond), Actor: access.Operator.Actor(), Event: event, Door: "cli"}
		if err := db.Audit(e.ctx, entry); err != nil {
			return err
		}
	}
	return nil
}
