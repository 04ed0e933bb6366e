package server

import (
	"context"
	"net/http"

	"trustpager/jobs"
)

// Purge does what the hourly job does.
func (s *Server) Purge(ctx context.Context) error { return s.purge(ctx, jobs.Job{}) }

// HTTP returns the server that Serve uses.
func (s *Server) HTTP() *http.Server { return s.http() }

// Outer is what stands around all that a server answers.
var Outer = outer
