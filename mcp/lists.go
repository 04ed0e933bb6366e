package mcp

import (
	"bytes"
	"iter"
	"net/http"
	"strconv"
	"sync"

	"trustpager/problem"
)

// splice answers a list: mcp-go's answer with what the caller may see in place
// of the empty list: the server that is asked has nothing. The entries are
// encoded already. Every list has one page.
func (s *Server) splice(w http.ResponseWriter, r *http.Request, c *call, body []byte, member string, entries iter.Seq[[]byte]) error {
	if c.cursor {
		return problem.Errorf(problem.Validation, "there is no such cursor: the list of %s has one page", member).
			WithFix("Leave cursor out.")
	}
	rec := &recorder{header: w.Header(), status: http.StatusOK}
	s.rest.of(c).ServeHTTP(rec, forward(r, body))
	answer := rec.body.Bytes()
	before, after, ok := bytes.Cut(answer, []byte(`"`+member+`":[]`))
	if !ok { // an error, or a notification
		w.WriteHeader(rec.status)
		w.Write(answer) // fails only if the client has gone
		return nil
	}
	out := lists.Get().(*bytes.Buffer)
	defer lists.Put(out)
	out.Reset()
	out.Write(before)
	out.WriteString(`"` + member + `":`)
	separator := byte('[')
	for b := range entries {
		out.WriteByte(separator)
		out.Write(b)
		separator = ','
	}
	if separator == '[' {
		out.WriteByte('[')
	}
	out.WriteByte(']')
	out.Write(after)
	w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	w.WriteHeader(rec.status)
	w.Write(out.Bytes())
	return nil
}

// lists holds the buffers of [Server.splice].
var lists = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// A recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
