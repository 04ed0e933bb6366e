package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/integrations"
	"trustpager/problem"
)

// Pages learn what has changed from a stream of server-sent events, at /events.
// Each event is a number that the page shows, so one that is lost is made good
// by the next. A stream ends after streamTime, and the browser opens another:
// so who may see what is found anew, and no stream outlives a session for long.

const (
	streamTime     = 5 * time.Minute
	streamBeat     = 20 * time.Second // the longest silence, so that proxies keep the connection
	streamPatience = 10 * time.Second // for a browser that does not read
	maxStreams     = 12               // of one person
)

// streams counts the open streams of each person. The zero value is ready.
type streams struct {
	mu   sync.Mutex
	open map[string]int
}

// enter counts one more stream, unless the person has too many.
func (s *streams) enter(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[user] >= maxStreams {
		return false
	}
	if s.open == nil {
		s.open = map[string]int{}
	}
	s.open[user]++
	return true
}

func (s *streams) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[user]--; s.open[user] <= 0 {
		delete(s.open, user)
	}
}

// Close ends the streams of events, which would hold up the server's shutdown.
func (p *Pages) Close() { p.close() }

// events streams what has changed in the person's workspace.
func (p *Pages) events(w http.ResponseWriter, r *http.Request) {
	r, me, err := p.visitor(r)
	if err == nil && me == nil {
		err = problem.Errorf(problem.Unauthorized, "nobody is logged in").WithFix("Log in first.")
	}
	var in room
	if err == nil {
		in, err = p.enter(*me, cmp.Or(r.URL.Query().Get(roomField), p.sessions.GetString(r.Context(), workspaceKey)))
	}
	switch {
	case err != nil && r.Context().Err() != nil:
		return // the page has gone
	case err != nil:
		problem.Write(w, r, err)
		return
	}
	if !p.streams.enter(me.User.ID) {
		problem.Write(w, r, problem.Errorf(problem.RateLimited, "more than %d pages are live already", maxStreams).WithFix("Close some of them."))
		return
	}
	defer p.streams.leave(me.User.ID)
	workspace := in.membership.Workspace.ID
	changed, stop := p.Gate.Watch(approvals.Topic(workspace))
	defer stop()
	calls, stop := p.Gate.Watch(access.CallsTopic(workspace))
	defer stop()
	var services <-chan struct{} // nil for members, whom they are not shown to
	if in.grant.IsAdmin() {
		services, stop = p.Gate.Watch(integrations.AccountTopic(workspace))
		defer stop()
	}
	ctx, cancel := context.WithTimeout(r.Context(), streamTime)
	defer cancel()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	s := stream{w, http.NewResponseController(w)}
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	if s.send(": live\nretry: 2000\n\n") != nil {
		return
	}
	if services != nil && s.event("integrations", struct{}{}) != nil { // what has changed since the page was made
		return
	}
	for err := p.tellApprovals(ctx, s, in); err == nil; {
		select {
		case <-ctx.Done():
			return
		case <-p.closed:
			return
		case <-changed:
			if err = p.belongs(ctx, in); err == nil {
				err = p.tellApprovals(ctx, s, in)
			}
		case <-calls:
			err = s.event("calls", struct{}{})
		case <-services:
			err = s.event("integrations", struct{}{})
		case <-beat.C:
			if err = p.belongs(ctx, in); err == nil {
				err = s.send(": beat\n\n")
			}
		}
	}
}

// errLeft ends the stream of somebody who does not belong to the workspace any
// more, or is less than they were.
var errLeft = errors.New("the person has left the workspace")

// belongs reports whether the person is in the workspace as they were when the
// stream began.
func (p *Pages) belongs(ctx context.Context, in room) error {
	me, err := p.Desk.Person(ctx, in.me.User.ID)
	if err != nil {
		return err
	}
	for _, m := range me.Memberships {
		if m.Workspace.ID == in.membership.Workspace.ID && m.Role == in.membership.Role {
			return nil
		}
	}
	return errLeft
}

// tellApprovals says how many approvals wait for the person.
func (p *Pages) tellApprovals(ctx context.Context, s stream, in room) error {
	n, err := p.Gate.Waiting(ctx, in.grant)
	if err != nil {
		if ctx.Err() == nil { // otherwise the page has gone
			problem.Report(ctx, err)
		}
		return err
	}
	return s.event("approvals", map[string]int{"waiting": n})
}

// A stream is what is sent to one page.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s stream) event(name string, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return s.send(fmt.Sprintf("event: %s\ndata: %s\n\n", name, b))
}

func (s stream) send(text string) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(streamPatience)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(s.w, text); err != nil {
		return err
	}
	return s.control.Flush()
}
