package main

import (
	"context"
	"fmt"

	"trustpager/access"
	"trustpager/server"
)

// pauseCmd refuses the requests of one credential, or of all.
type pauseCmd struct {
	Credential string `arg:"" optional:"" help:"Id of a key, a grant or a client; everything but people without it."`
	inWorkspace
}

// Run pauses.
func (c *pauseCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		if err := s.Desk.Pause(ctx, g, c.Credential); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.stdout, "Paused %s: from the next request on they are refused.\n", named(c.Credential))
		return err
	})
}

// resumeCmd ends a pause.
type resumeCmd struct {
	Credential string `arg:"" optional:"" help:"Id of what was paused; nothing for the pause of all."`
	inWorkspace
}

// Run resumes.
func (c *resumeCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		if err := s.Desk.Resume(ctx, g, c.Credential); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.stdout, "Resumed %s.\n", named(c.Credential))
		return err
	})
}

// named says what a credential of "" stands for.
func named(credential string) string {
	if credential == "" {
		return "all agents"
	}
	return printable(credential)
}
