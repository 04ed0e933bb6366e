package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/server"
)

type workspaceCmd struct {
	List   workspaceListCmd   `cmd:"" help:"List the workspaces."`
	Create workspaceCreateCmd `cmd:"" help:"Make a workspace, on the Pro plan."`
	Plan   workspacePlanCmd   `cmd:"" help:"Change the plan: free or pro."`
	Set    workspaceSetCmd    `cmd:"" help:"Change the name, the time zone and the settings of approvals."`
}

type workspaceListCmd struct {
	asJSON
}

// Run lists the workspaces.
func (c *workspaceListCmd) Run(e *env) error {
	s, err := e.desk()
	if err != nil {
		return err
	}
	defer s.DB.Close()
	all, err := s.DB.Workspaces(e.ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.printJSON(all)
	}
	var rows [][]string
	for _, w := range all {
		rows = append(rows, []string{w.ID, w.Name, string(w.Plan), w.TimeZone})
	}
	return e.table("ID\tNAME\tPLAN\tTIME ZONE", rows)
}

type workspaceCreateCmd struct {
	Name     string `arg:"" help:"What people call it."`
	TimeZone string `help:"IANA time zone." default:"UTC"`
	asJSON
}

// Run makes a workspace; also the database, if it is not there yet.
func (c *workspaceCreateCmd) Run(e *env) error {
	s, err := e.open(true, server.Config{})
	if err != nil {
		return err
	}
	defer s.DB.Close()
	w, err := s.Desk.CreateWorkspace(e.ctx, c.Name, c.TimeZone)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.printJSON(w)
	}
	_, err = fmt.Fprintf(e.stdout, "Made the workspace %s (%s). Next: trustpager key create --name agent --preset recommended --workspace %s\n", printable(w.Name), w.ID, w.ID)
	return err
}

type workspacePlanCmd struct {
	ID   string `arg:"" help:"Id or name of the workspace."`
	Plan string `arg:"" enum:"free,pro" help:"free or pro."`
}

// Run changes the plan.
func (c *workspacePlanCmd) Run(e *env) error {
	return e.with(c.ID, func(ctx context.Context, s *server.Server, g access.Grant) error {
		w := g.Workspace
		w.Plan = access.Plan(c.Plan)
		return s.Desk.UpdateWorkspace(ctx, g, w)
	})
}

type workspaceSetCmd struct {
	ID          string         `arg:"" help:"Id or name of the workspace."`
	Name        *string        `help:"What people call it."`
	TimeZone    *string        `help:"IANA time zone."`
	ApprovalTTL *time.Duration `help:"How long an approval stays open, 1h to 720h."`
	PeopleOnly  *bool          `help:"Keys never decide approvals." negatable:""`
	FourEyes    *bool          `help:"Two people have to approve." negatable:""`
	SupportURL  *string        `help:"Where users ask for higher limits."`
	SendsPerDay *int64         `help:"How many messages each key or app may send a day, 0 to 10000."`
	AlwaysAsk   []string       `help:"Verb of a resource that always waits for approval, as contacts:delete." placeholder:"RESOURCE:VERB"`
	NeverMind   []string       `help:"Takes such a mark away." placeholder:"RESOURCE:VERB"`

	SelfRegistration *bool    `help:"OAuth clients that registered themselves may be connected." negatable:""`
	ClientHosts      []string `help:"Hosts that such clients may be of, as claude.ai,cursor.com; empty for any." sep:","`
}

// Run changes the settings that are given.
func (c *workspaceSetCmd) Run(e *env) error {
	return e.with(c.ID, func(ctx context.Context, s *server.Server, g access.Grant) error {
		w := g.Workspace
		set(&w.Name, c.Name)
		set(&w.TimeZone, c.TimeZone)
		set(&w.Settings.ApprovalTTL, c.ApprovalTTL)
		set(&w.Settings.PeopleOnly, c.PeopleOnly)
		set(&w.Settings.FourEyes, c.FourEyes)
		set(&w.Settings.SupportURL, c.SupportURL)
		if c.SendsPerDay != nil {
			w.Settings.SendsPerDay = c.SendsPerDay
		}
		if c.SelfRegistration != nil {
			w.Settings.NoSelfRegistration = !*c.SelfRegistration
		}
		if c.ClientHosts != nil {
			w.Settings.ClientHosts = slices.DeleteFunc(c.ClientHosts, func(h string) bool { return h == "" })
		}
		for _, text := range append(c.AlwaysAsk, c.NeverMind...) {
			resource, verb, _ := strings.Cut(text, ":")
			w.Settings.AlwaysAsk = without(w.Settings.AlwaysAsk, access.Mark{Resource: resource, Verb: verb})
		}
		for _, text := range c.AlwaysAsk {
			resource, verb, _ := strings.Cut(text, ":")
			w.Settings.AlwaysAsk = append(w.Settings.AlwaysAsk, access.Mark{Resource: resource, Verb: verb})
		}
		return s.Desk.UpdateWorkspace(ctx, g, w)
	})
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func without(marks []access.Mark, m access.Mark) []access.Mark {
	var kept []access.Mark
	for _, k := range marks {
		if k != m {
			kept = append(kept, k)
		}
	}
	return kept
}
