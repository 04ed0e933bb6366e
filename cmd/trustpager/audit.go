package main

import (
	"context"
	"fmt"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/server"
)

type auditCmd struct {
	List   auditListCmd   `cmd:"" help:"List the audit log, newest first."`
	Verify auditVerifyCmd `cmd:"" help:"Check the chain of the audit log."`
}

type auditListCmd struct {
	Limit int `help:"How many at most." default:"50"`
	inWorkspace
	asJSON
}

// Run lists the log.
func (c *auditListCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		entries, err := s.DB.AuditEntries(ctx, g.Workspace.ID, audit.Query{Limit: c.Limit})
		if err != nil {
			return err
		}
		if c.JSON {
			return e.printJSON(entries)
		}
		var rows [][]string
		for _, a := range entries {
			rows = append(rows, []string{fmt.Sprint(a.Seq), stamp(a.Time), string(a.Event), a.Actor.Name, a.Action, a.Target, a.Outcome})
		}
		return e.table("NO\tTIME\tEVENT\tWHO\tACTION\tTARGET\tOUTCOME", rows)
	})
}

type auditVerifyCmd struct {
	inWorkspace
}

// Run checks the chain.
func (c *auditVerifyCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		n, err := s.DB.VerifyAudit(ctx, g.Workspace.ID)
		if err != nil {
			return fmt.Errorf("the audit log is sound up to entry %d only: %w", n, err)
		}
		_, err = fmt.Fprintf(e.stdout, "All %d entries are as they were written.\n", n)
		return err
	})
}
