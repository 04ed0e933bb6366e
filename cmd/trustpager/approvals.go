package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/server"
	"trustpager/strictjson"
)

type approvalsCmd struct {
	List    approvalsListCmd    `cmd:"" help:"List approvals, newest first."`
	Show    approvalsShowCmd    `cmd:"" help:"Show one approval with all that is known of it."`
	Approve approvalsApproveCmd `cmd:"" help:"Approve, and run the action."`
	Reject  approvalsRejectCmd  `cmd:"" help:"Reject with a reason, which the agent is told."`
	Retry   approvalsRetryCmd   `cmd:"" help:"Run an approved action again whose execution failed."`
	Dismiss approvalsDismissCmd `cmd:"" help:"Let a failed execution be."`
}

type approvalsListCmd struct {
	Status string `help:"pending, approved, rejected, expired, withdrawn or all." enum:"pending,approved,rejected,expired,withdrawn,all" default:"pending"`
	Limit  int    `help:"How many at most." default:"50"`
	inWorkspace
	asJSON
}

// Run lists approvals.
func (c *approvalsListCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		q := approvals.Query{Limit: c.Limit}
		if c.Status != "all" {
			q.Status = approvals.Status(c.Status)
		}
		list, err := s.Gate.List(ctx, g, q)
		if err != nil {
			return err
		}
		if c.JSON {
			views := make([]approvals.View, len(list))
			for i, a := range list {
				views[i] = s.Gate.View(a)
			}
			return e.printJSON(views)
		}
		var rows [][]string
		for _, a := range list {
			rows = append(rows, []string{a.ID, string(a.Status), string(a.Execution), a.By.Name, a.Action, a.Title, stamp(a.CreatedAt), stamp(a.ExpiresAt)})
		}
		return e.table("ID\tSTATUS\tEXECUTION\tASKED BY\tACTION\tABOUT\tASKED\tEXPIRES", rows)
	})
}

type approvalsShowCmd struct {
	ID string `arg:"" help:"Id of the approval."`
	inWorkspace
	asJSON
}

// Run shows an approval.
func (c *approvalsShowCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		a, err := s.Gate.Approval(ctx, g, c.ID)
		if err != nil {
			return err
		}
		return e.printApproval(s, a, c.JSON)
	})
}

// printApproval prints the facts of an approval first, and the agent's words
// last and as such.
func (e *env) printApproval(s *server.Server, a approvals.Approval, inJSON bool) error {
	v := s.Gate.View(a)
	if inJSON {
		return e.printJSON(v)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
		}
	}
	row("approval", v.ID)
	row("status", string(v.Status))
	if v.Status == approvals.Approved {
		row("execution", string(v.Execution))
	}
	row("action", v.Action)
	row("target", v.TargetID)
	row("about", v.Title)
	row("asked by", v.RequestedBy.Name+" ("+v.RequestedBy.ID+")")
	row("asked", stamp(v.CreatedAt))
	if v.Asked > 1 {
		row("asked times", fmt.Sprint(v.Asked))
	}
	row("expires", stamp(v.ExpiresAt))
	if v.DecidedBy != nil {
		row("decided by", v.DecidedBy.Name)
		row("decided", stamp(v.DecidedAt))
		row("because", v.DecisionReason)
	}
	if v.Error != nil {
		row("error", v.Error.Error())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		json json.RawMessage
	}{{"What was asked", v.Input}, {"What ran instead", v.Edited}, {"Result", v.Result}} {
		if part.json == nil {
			continue
		}
		pretty, err := json.MarshalIndent(part.json, "  ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "\n%s:\n  %s\n", part.name, printableLines(string(pretty)))
	}
	if v.Reason != "" {
		fmt.Fprintf(e.stdout, "\nThe agent says (not verified):\n  %s\n", printable(v.Reason))
	}
	return nil
}

type approvalsApproveCmd struct {
	ID     string `arg:"" help:"Id of the approval."`
	Edited string `help:"JSON object to run instead of what was asked."`
	inWorkspace
	asJSON
}

// Run approves.
func (c *approvalsApproveCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		var edited json.RawMessage
		if c.Edited != "" {
			edited = json.RawMessage(c.Edited)
			if err := strictjson.Check(edited); err != nil {
				return err
			}
		}
		a, err := s.Gate.Approve(ctx, g, c.ID, approvals.Seen{Edited: edited})
		if err != nil {
			return err
		}
		return e.printApproval(s, a, c.JSON)
	})
}

type approvalsRejectCmd struct {
	ID     string `arg:"" help:"Id of the approval."`
	Reason string `help:"Why; the agent is told." required:""`
	inWorkspace
	asJSON
}

// Run rejects.
func (c *approvalsRejectCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		a, err := s.Gate.Reject(ctx, g, c.ID, c.Reason)
		if err != nil {
			return err
		}
		return e.printApproval(s, a, c.JSON)
	})
}

type approvalsRetryCmd struct {
	ID string `arg:"" help:"Id of the approval."`
	inWorkspace
	asJSON
}

// Run runs a failed execution again.
func (c *approvalsRetryCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		a, err := s.Gate.Retry(ctx, g, c.ID)
		if err != nil {
			return err
		}
		return e.printApproval(s, a, c.JSON)
	})
}

type approvalsDismissCmd struct {
	ID string `arg:"" help:"Id of the approval."`
	inWorkspace
	asJSON
}

// Run lets a failed execution be.
func (c *approvalsDismissCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		a, err := s.Gate.Dismiss(ctx, g, c.ID)
		if err != nil {
			return err
		}
		return e.printApproval(s, a, c.JSON)
	})
}
