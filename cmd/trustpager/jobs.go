package main

import (
	"fmt"

	"trustpager/audit"
)

type jobsCmd struct {
	Pause  jobsPauseCmd  `cmd:"" help:"Send nothing outside until told."`
	Resume jobsResumeCmd `cmd:"" help:"Send again."`
	Dead   jobsDeadCmd   `cmd:"" help:"List the jobs that have failed for good."`
}

type jobsPauseCmd struct{}

// Run pauses outgoing jobs.
func (jobsPauseCmd) Run(e *env) error {
	s, err := e.desk()
	if err != nil {
		return err
	}
	defer s.DB.Close()
	if err := s.DB.PauseJobs(e.ctx, e.now()); err != nil {
		return err
	}
	return e.auditAll(s.DB, audit.JobsPaused)
}

type jobsResumeCmd struct{}

// Run resumes outgoing jobs.
func (jobsResumeCmd) Run(e *env) error {
	s, err := e.desk()
	if err != nil {
		return err
	}
	defer s.DB.Close()
	if err := s.DB.ResumeJobs(e.ctx); err != nil {
		return err
	}
	return e.auditAll(s.DB, audit.JobsResumed)
}

type jobsDeadCmd struct{}

// Run lists dead jobs.
func (jobsDeadCmd) Run(e *env) error {
	s, err := e.desk()
	if err != nil {
		return err
	}
	defer s.DB.Close()
	dead, err := s.DB.DeadJobs(e.ctx, 100)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, j := range dead {
		rows = append(rows, []string{j.ID, j.Kind, fmt.Sprint(j.Attempts), stamp(j.RunAt), j.LastError})
	}
	return e.table("ID\tKIND\tATTEMPTS\tWHEN\tERROR", rows)
}
