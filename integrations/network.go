package integrations

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"trustpager/webhook"
)

// A Network is how the clients of this package reach the outside. What they are
// told to reach was written by others, so each connection passes the Guard as
// it is made, whatever the name resolved to before. The zero Network reaches
// public addresses only, with the roots of the system. It may be used
// concurrently.
type Network struct {
	Guard   *webhook.Guard // nil means the zero Guard
	Roots   *x509.CertPool // whom to believe about certificates; nil means the system's
	Timeout time.Duration  // of one exchange as a whole; 0 means 30 seconds, and 2 minutes for a [Model]
}

func (n Network) guard() *webhook.Guard {
	if n.Guard == nil {
		return new(webhook.Guard)
	}
	return n.Guard
}

// tls returns how to speak TLS with the host.
func (n Network) tls(host string) *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: n.Roots, MinVersion: tls.VersionTLS12}
}

// timeout returns how long one exchange may take.
func (n Network) timeout() time.Duration { return cmp.Or(n.Timeout, defaultTimeout) }

// dial connects to the host. It fails unless all addresses of the host are
// allowed: a name with both kinds is up to something. The connection is cut
// when ctx ends.
func (n Network) dial(ctx context.Context, host string, port int, check func(netip.Addr) error) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("%d is no port", port)
	}
	addrs, err := n.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if err := check(a); err != nil {
			return nil, fmt.Errorf("the address of %.100q is refused: %w", host, err)
		}
	}
	d := net.Dialer{
		Timeout: 10 * time.Second, // of each address
		// The address once more, as the kernel is going to use it.
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return check(ap.Addr())
		},
	}
	var errs []error
	for _, a := range addrs[:min(len(addrs), 4)] {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.Unmap().String(), strconv.Itoa(port)))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// resolve returns the addresses of the host.
func (n Network) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	lookup := n.guard().Lookup
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	addrs, err := lookup(ctx, host)
	if err != nil || len(addrs) == 0 {
		return nil, fmt.Errorf("the host %.100q cannot be found", host)
	}
	return addrs, nil
}

// connect connects to the host for a protocol that is no HTTP, in plain text or
// with TLS from the first byte. What is read and written fails once ctx has
// ended; closing the connection lets go of ctx.
func (n Network) connect(ctx context.Context, host string, port int, implicit bool) (net.Conn, error) {
	c, err := n.dial(ctx, host, port, n.guard().Check)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	bound := &boundConn{Conn: c}
	bound.stop = context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	if !implicit {
		return bound, nil
	}
	encrypted := tls.Client(bound, n.tls(host))
	if err := encrypted.HandshakeContext(ctx); err != nil {
		bound.Close()
		return nil, err
	}
	return encrypted, nil
}

// A boundConn is a connection that ends with a context, whatever deadlines the
// library of the protocol sets for its single steps.
type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) SetDeadline(time.Time) error      { return nil }
func (c *boundConn) SetReadDeadline(time.Time) error  { return nil }
func (c *boundConn) SetWriteDeadline(time.Time) error { return nil }

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// checkPlain is the check of an address for HTTP without TLS, which goes only
// where the operator allows it.
func (n Network) checkPlain(addr netip.Addr) error {
	g := n.guard()
	plain := addr.WithZone("").Unmap()
	if !slices.ContainsFunc(g.Allow, func(p netip.Prefix) bool { return p.Contains(plain) }) {
		return errors.New("it may be reached by https only")
	}
	return g.Check(addr)
}

// transport returns the way of HTTP requests to the outside: over HTTP/1.1 and
// connections that pass the Guard and are not kept, by no proxy.
func (n Network) transport(check func(netip.Addr) error) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			p, err := strconv.Atoi(port)
			if err != nil {
				return nil, fmt.Errorf("%.10q is no port", port)
			}
			return n.dial(ctx, host, p, check)
		},
		TLSClientConfig:        &tls.Config{RootCAs: n.Roots, MinVersion: tls.VersionTLS12},
		Protocols:              protocols,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 32 << 10,
		DisableKeepAlives:      true,
		DisableCompression:     true,
	}
}

// maxAnswer is how many bytes of a peer's answer are read.
const maxAnswer = 1 << 20

// An exchange is one HTTP request to an API and its answer. It is a
// [http.RoundTripper] that returns every answer but 2xx as a [Failure], and is
// used for one request only.
type exchange struct {
	network Network
	tried   string   // as errors tell it
	secrets []string // that errors must not hold
	effect  bool     // whether the request does something that cannot be repeated blindly
	explain func(status int, body []byte) (code, message string)
	final   func(status int, code string) bool // reports what is refused for good besides the usual; may be nil

	sent atomic.Bool // whether the whole request may have been sent
}

// client returns the HTTP client that makes the exchange.
func (x *exchange) client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		Transport:     x,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// RoundTrip sends the request.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	check := x.network.guard().Check
	switch r.URL.Scheme {
	case "https":
	case "http":
		check = x.network.checkPlain
	default:
		return nil, x.failure(fmt.Errorf("scheme %.20q is neither https nor http", r.URL.Scheme))
	}
	r = r.Clone(r.Context())
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &watched{ReadCloser: r.Body, left: r.ContentLength, sent: &x.sent}
		r.GetBody = nil // no second try by the transport
	}
	answer, err := x.network.transport(check).RoundTrip(r)
	if err != nil {
		return nil, x.failure(err)
	}
	if answer.StatusCode/100 != 2 {
		defer answer.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // what of it arrives
		return nil, x.refusal(answer, body)
	}
	answer.Body = &bounded{ReadCloser: answer.Body, left: maxAnswer, fail: func(err error) error { return x.failure(err) }}
	return answer, nil
}

// failure returns err as a [Failure]. Without an answer nobody knows what
// became of a request that had been sent as a whole.
func (x *exchange) failure(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	outcome := Temporary
	if x.sent.Load() {
		outcome = Unknown
	}
	return failure(outcome, x.tried, err, x.secrets...)
}

// refusal returns what an answer other than 2xx means.
func (x *exchange) refusal(answer *http.Response, body []byte) *Failure {
	status := answer.StatusCode
	code, message := x.explain(status, body)
	outcome := Temporary
	switch {
	case x.final != nil && x.final(status, code):
		outcome = Refused
	case status == http.StatusUnauthorized, status == http.StatusRequestTimeout, status == http.StatusTooManyRequests:
	case status/100 == 4:
		outcome = Refused
	case status/100 == 5 && status != http.StatusServiceUnavailable && x.effect:
		outcome = Unknown // it broke somewhere on the way
	case status/100 == 3:
		message = "it leads elsewhere, which is not followed"
	}
	text := fmt.Sprintf("%d %s", status, http.StatusText(status))
	if message = strings.TrimSpace(message); message != "" {
		text += ": " + message
	}
	if code != "" {
		text += " (" + code + ")"
	}
	f := failure(outcome, x.tried, errors.New(text), x.secrets...)
	f.Code, f.RetryAfter = clean(errors.New(cmp.Or(code, strconv.Itoa(status))), x.secrets...).Error(), retryAfter(answer.Header)
	return f
}

// retryAfter reads how long to wait (RFC 9110 §10.2.3), up to a day. A date is
// taken relative to the Date of the same answer, so the peer's clock counts.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	var wait time.Duration
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		wait = time.Duration(s) * time.Second
	} else if until, err := http.ParseTime(text); err == nil {
		if now, err := http.ParseTime(h.Get("Date")); err == nil {
			wait = until.Sub(now)
		}
	}
	return max(0, min(wait, 24*time.Hour))
}

// A watched body notes when its last byte has been taken, and so may be on its
// way.
type watched struct {
	io.ReadCloser
	left int64 // bytes; negative if unknown
	sent *atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.left -= int64(n)
	if w.left == 0 || err == io.EOF {
		w.sent.Store(true)
	}
	return n, err
}

// errTooLong says that a peer's answer is longer than anybody needs.
var errTooLong = errors.New("the answer is too long")

// A bounded body fails once it has given left bytes and there are more.
type bounded struct {
	io.ReadCloser
	left int64
	fail func(error) error
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		if n, err := b.ReadCloser.Read(one[:]); n == 0 {
			return 0, b.failed(err)
		}
		return 0, b.failed(errTooLong)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, b.failed(err)
}

func (b *bounded) failed(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return b.fail(err)
}

// endpoint returns the URL of a path of an API. The base is what an admin wrote.
func endpoint(base, path string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("the base URL is not of the form https://host/path")
	}
	return strings.TrimRight(base, "/") + path, nil
}

// roundTrip makes the exchange and returns the body of its answer.
func (x *exchange) roundTrip(r *http.Request) ([]byte, error) {
	answer, err := x.client(x.network.timeout()).Do(r)
	if err != nil {
		return nil, x.failure(err)
	}
	defer answer.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(answer.Body); err != nil {
		return nil, x.failure(err)
	}
	return body.Bytes(), nil
}
