// Package bridge lets MCP clients that only speak stdio reach a server over
// HTTP: what they write on a line is posted to the server, and what it answers
// is written on a line.
//
//	client ── a line of JSON-RPC ──▶ bridge ── POST, bearer ──▶ server /mcp
//	client ◀─ a line of JSON-RPC ─── bridge ◀─ JSON, or events ─ server
//
// Messages are forwarded without being understood more than HTTP needs: id and
// method, and what goes into headers. A request always gets an answer, if need
// be an error that says what to do; only what the client has cancelled gets none.
package bridge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxMessage = 1 << 20  // bytes of a message, as the server has it
	maxLine    = 16 << 20 // bytes of a line that is looked at for its id
	maxAnswer  = 16 << 20 // bytes of an answer or event

	maxPosts   = 32   // requests to the server at a time
	maxWaiting = 1024 // messages that wait for their turn; then no more are read

	answerTime = 2 * time.Minute // until an answer that is no stream has come; wait_for_approval takes up to 50 s
)

// A Bridge connects one client with one server.
type Bridge struct {
	url, key string
	client   *http.Client
	log      *slog.Logger

	out   io.Writer
	write sync.Mutex
	fail  context.CancelCauseFunc // the client does not read any more

	version atomic.Pointer[string] // of the protocol, as initialize has agreed on
	posts   chan struct{}          // taken by requests to the server

	mu     sync.Mutex
	flying map[string]*flight // requests of the client without an answer, by id
	ending bool               // the client sends no more
}

// A flight is a message on its way to the server. A request lands when it has
// its answer.
type flight struct {
	message
	cancel context.CancelCauseFunc
}

var (
	errCancelled = errors.New("cancelled by the client")
	errSlow      = errors.New("the server has not answered in time")
)

// New returns a bridge to the server at the URL, with or without /mcp at its
// end, that shows the key. What is no message goes to the log.
func New(serverURL, key, userAgent string, log *slog.Logger) (*Bridge, error) {
	u, err := url.Parse(serverURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("the URL %q is not one of a server: expected one such as https://pager.example.com/mcp", serverURL)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/mcp"
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		log.Warn("the key goes over the network unencrypted; use https", "url", u.Redacted())
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) || key == "" {
		return nil, errors.New("the key is not one: expected a text such as tp_live_…, without spaces")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.IdleConnTimeout = time.Minute // before the server closes it
	transport.MaxIdleConnsPerHost = maxPosts
	return &Bridge{url: u.String(), key: key, log: log, posts: make(chan struct{}, maxPosts), flying: map[string]*flight{},
		client: &http.Client{Transport: agent{transport, userAgent}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// An agent names the program in each request.
type agent struct {
	next http.RoundTripper
	name string
}

func (a agent) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("User-Agent", a.name)
	return a.next.RoundTrip(r)
}

// Run forwards what comes in until it ends, waits for the answers in flight and
// returns nil. It returns at once when ctx is done, with nil, and when out cannot
// be written any more, with the error.
func (b *Bridge) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	ended := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	b.out, b.fail = out, fail
	read := make(chan error, 1)
	go func() { read <- b.read(ctx, in) }() // a blocked read ends with the process
	select {
	case err := <-read:
		return err
	case <-ctx.Done():
		if ended.Err() != nil {
			return nil
		}
		return context.Cause(ctx)
	}
}

// read forwards each line, and returns when all are answered.
func (b *Bridge) read(ctx context.Context, in io.Reader) error {
	var tasks sync.WaitGroup
	waiting := make(chan struct{}, maxWaiting)
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, size, err := readLine(lines)
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if size <= maxLine {
				size = len(line)
			}
			if task := b.take(ctx, line, size); task != nil {
				waiting <- struct{}{}
				tasks.Go(func() {
					defer func() { <-waiting }()
					task()
				})
			}
		}
		if err == nil {
			continue
		}
		b.end()
		tasks.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("read: %w", err)
		}
		return nil
	}
}

// readLine returns the next line and its size. Of one that is too long it keeps
// no more than maxLine.
func readLine(r *bufio.Reader) (line []byte, size int, err error) {
	for {
		part, err := r.ReadSlice('\n')
		size += len(part)
		if len(line) < maxLine {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, size, err
		}
	}
}

// end stops what would go on for as long as the client listens.
func (b *Bridge) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending = true
	for _, f := range b.flying {
		if f.method == methodListen {
			f.cancel(errCancelled)
		}
	}
}

// take returns what is to be done about a line, nil if nothing.
func (b *Bridge) take(ctx context.Context, line []byte, size int) func() {
	m, err := parse(line)
	switch {
	case size > maxMessage && err == nil && !m.asks():
		b.log.Warn("a message is too large for the server, and nobody waits for its answer", "method", m.method, "bytes", size)
		return nil
	case size > maxMessage:
		b.answerError(m.id, codeInvalidRequest, fmt.Sprintf("the message has %d bytes, and the server takes %d at most: send less at a time", size, maxMessage), nil)
		return nil
	case err != nil:
		code := codeInvalidRequest
		if !json.Valid(line) {
			code = codeParse
		}
		b.answerError(m.id, code, err.Error(), nil)
		return nil
	case m.method == methodCancelled:
		b.mu.Lock()
		defer b.mu.Unlock()
		if f := b.flying[string(m.cancels)]; f != nil {
			f.cancel(errCancelled)
		}
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	f := &flight{m, cancel}
	if m.asks() {
		b.mu.Lock()
		if _, taken := b.flying[string(m.id)]; taken {
			b.mu.Unlock()
			cancel(nil)
			b.answerError(m.id, codeInvalidRequest, "the id "+string(m.id)+" belongs to a request that has no answer yet: use another", nil)
			return nil
		}
		b.flying[string(m.id)] = f
		if b.ending && m.method == methodListen {
			cancel(errCancelled)
		}
		b.mu.Unlock()
	}
	return func() {
		defer cancel(nil)
		defer b.land(f)
		select {
		case b.posts <- struct{}{}:
			defer func() { <-b.posts }()
		case <-ctx.Done():
			return
		}
		b.post(ctx, f, line)
	}
}

// land frees the id, before the answer is written: then the client may use it
// again.
func (b *Bridge) land(f *flight) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flying[string(f.id)] == f {
		delete(b.flying, string(f.id))
	}
}

// post sends a message to the server and writes its answers.
func (b *Bridge) post(ctx context.Context, m *flight, body []byte) {
	answered, err := b.exchange(ctx, m, body)
	if err == nil && !answered && m.asks() {
		err = &fault{code: codeInternal, message: "the server has ended its answer before it was whole. " + look}
	}
	if err == nil || ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow) {
		return // answered, or nobody waits for it
	}
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = &fault{code: codeInternal, message: b.explain(context.Cause(ctx), err)}
	}
	if !m.asks() {
		b.log.Warn("the server has not taken a message", "method", m.method, "err", f.message)
		return
	}
	b.land(m)
	b.answerError(m.id, f.code, f.message, f.data)
}

// look is what to do when nobody knows whether something was done.
const look = "It may have been done or not: read the state before you try again."

// explain says what to do when there was no answer.
func (b *Bridge) explain(cause, err error) string {
	if errors.Is(cause, errSlow) {
		return fmt.Sprintf("the server at %s has not answered for %s. ", b.url, answerTime) + look
	}
	reason := err
	if e, ok := errors.AsType[*url.Error](err); ok {
		reason = e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return fmt.Sprintf("the server at %s cannot be reached (%v); nothing was done. Check that it runs and that the URL is right, then try again.", b.url, reason)
	}
	return fmt.Sprintf("the connection to the server at %s failed (%v). ", b.url, reason) + look
}

// exchange posts the message and writes what is answered. It reports whether the
// request has been answered.
func (b *Bridge) exchange(ctx context.Context, m *flight, body []byte) (answered bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	m.headers(r.Header, b.version.Load())
	r.Header.Set("Authorization", "Bearer "+b.key)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	slow := time.AfterFunc(answerTime, func() { m.cancel(errSlow) })
	defer slow.Stop()
	res, err := b.client.Do(r)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode == http.StatusOK && kind == "text/event-stream" {
		slow.Stop() // it may stay open
		return b.stream(m, res.Body)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return false, err
	}
	if len(answer) > maxAnswer {
		return false, &fault{code: codeInternal, message: fmt.Sprintf("the server's answer has more than %d bytes. Ask for less at a time.", maxAnswer)}
	}
	got, err := parse(answer)
	if err == nil && got.answers(m.message) { // whatever the status: it is meant for the client
		b.agree(m.message, got)
		b.land(m)
		return true, b.put(answer)
	}
	if res.StatusCode < 300 {
		if m.asks() {
			return false, &fault{code: codeInternal, message: fmt.Sprintf("the server at %s has answered %s without an answer to the request. Is it the address of TrustPager's MCP endpoint, such as https://pager.example.com/mcp?", b.url, res.Status)}
		}
		return false, nil
	}
	return false, b.refusal(res, got)
}

// stream writes the messages of an event stream.
func (b *Bridge) stream(m *flight, body io.Reader) (answered bool, err error) {
	err = events(body, func(data []byte) error {
		got, err := parse(data)
		if err != nil {
			b.log.Warn("the server has sent what is no message", "err", err)
			return nil
		}
		if got.answers(m.message) {
			answered = true
			b.agree(m.message, got)
			b.land(m)
		}
		return b.put(data)
	})
	if answered {
		return true, nil // what comes after the answer does not matter
	}
	return false, err
}

// agree remembers the protocol version that an answer to initialize names.
func (b *Bridge) agree(m, answer message) {
	if m.method != "initialize" {
		return
	}
	var result struct {
		ProtocolVersion string `json:"protocolVersion"`
	}
	if json.Unmarshal(answer.result, &result) == nil && result.ProtocolVersion != "" {
		b.version.Store(&result.ProtocolVersion)
	}
}

// put writes a message on a line.
func (b *Bridge) put(message []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, message); err != nil {
		return err
	}
	line.WriteByte('\n')
	b.write.Lock()
	defer b.write.Unlock()
	if _, err := b.out.Write(line.Bytes()); err != nil {
		b.fail(fmt.Errorf("write: %w", err))
	}
	return nil
}

// answerError writes an error as the answer to the request with the id.
func (b *Bridge) answerError(id json.RawMessage, code int, message string, data json.RawMessage) {
	if id == nil {
		id = json.RawMessage("null")
	}
	type rpcError struct {
		Code    int             `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data,omitempty"`
	}
	answer, err := json.Marshal(struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpcError        `json:"error"`
	}{"2.0", id, rpcError{code, message, data}})
	if err == nil {
		err = b.put(answer)
	}
	if err != nil {
		b.log.Error("an error could not be told", "err", err) // id and data were parsed before
	}
}
