package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"trustpager/problem"
)

// The bounds of streams.
const (
	streamBeat = 20 * time.Second // how often a sign of life is sent, and the credential looked at again
	mostOpen   = 32               // streams of one credential on one node
)

// A stream is an answer that stays open: server-sent events, each of which is one
// JSON-RPC message. It ends with its client, with the server, or when what it is
// about is over.
type stream struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	ctx   context.Context
	close func()
}

// open begins a stream as the answer to r, of which nothing is sent before its
// first event or beat. It fails with [problem.RateLimited] if the credential has as
// many as it may.
func (s *Server) open(w http.ResponseWriter, r *http.Request, c *call) (*stream, error) {
	id := c.grant.Principal.ID
	if !s.enter(id) {
		return nil, problem.Errorf(problem.RateLimited, "this credential has %d streams open, which is the most there may be", mostOpen).
			WithFix("Close one, or ask without waiting: get_approval and tasks/get answer at once.")
	}
	// The rest of the body, of up to a megabyte, is not kept for as long as the stream.
	c.message = message{id: bytes.Clone(c.id), method: c.method}
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.closing, cancel)
	out := &stream{w: w, rc: http.NewResponseController(w), ctx: ctx, close: func() {
		stop()
		cancel()
		s.leave(id)
	}}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold it back
	w.WriteHeader(http.StatusOK)
	return out, nil
}

// enter counts one more stream of the credential, unless it has as many as it may.
func (s *Server) enter(credential string) bool {
	s.streamsMu.Lock()
	defer s.streamsMu.Unlock()
	if s.streams[credential] >= mostOpen {
		return false
	}
	s.streams[credential]++
	return true
}

func (s *Server) leave(credential string) {
	s.streamsMu.Lock()
	defer s.streamsMu.Unlock()
	if s.streams[credential]--; s.streams[credential] == 0 {
		delete(s.streams, credential)
	}
}

// event sends one message, and reports whether the client is still there.
func (o *stream) event(message []byte) bool {
	return o.send(append(append([]byte("event: message\ndata: "), message...), "\n\n"...))
}

// beat sends a sign of life.
func (o *stream) beat() bool { return o.send([]byte(": \n\n")) }

func (o *stream) send(b []byte) bool {
	// The server's timeout is for answers that come at once.
	o.rc.SetWriteDeadline(time.Now().Add(2 * streamBeat))
	_, err := o.w.Write(b)
	return err == nil && o.rc.Flush() == nil
}

// fail tells the client why the stream ends, and returns true.
func (o *stream) fail(id json.RawMessage, err error) bool {
	o.event(refusalOf(o.ctx, id, err))
	return true
}
