package integrationstest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"trustpager/integrations"
)

// A peer is a server for HTTPS that fails as a test says.
type peer struct {
	*valve
	URL string // of the server, without a slash at the end

	t      testing.TB
	server *httptest.Server
}

// newPeer starts a peer. Requests that no Fault catches go to answer, with what
// was read of the body.
func newPeer(t testing.TB, p *peer, refuse func(w http.ResponseWriter, f Fault) bool, keep func(r *http.Request, body string) bool, answer func(w http.ResponseWriter, r *http.Request, body string)) {
	t.Helper()
	p.valve, p.t = newValve(t), t
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<20))
		if err != nil {
			return // the client has gone
		}
		body, fault := string(b), p.now()
		if fault == Hang || fault == Drop {
			if !keep(r, body) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if fault == Hang {
				p.hold(r.Context().Done())
			}
			panic(http.ErrAbortHandler)
		}
		switch fault {
		case Elsewhere:
			http.Redirect(w, r, p.URL+r.URL.Path, http.StatusFound)
			return
		case Endless:
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"pad":"`)
			for range 64 {
				if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
					return
				}
			}
			return
		case Garbage:
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "<html>captive portal</html>")
			return
		case CutOff:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"sid":"`)
			return
		}
		if fault != "" && refuse(w, fault) {
			return
		}
		answer(w, r, body)
	}))
	p.server.Config.ErrorLog = nil
	p.URL = p.server.URL
	t.Cleanup(func() { p.shut(); p.server.Close() })
}

// Network returns a network that reaches this machine and believes the peer.
func (p *peer) Network() integrations.Network {
	roots := newAuthority(p.t).Roots
	roots.AddCert(p.server.Certificate())
	return integrations.Network{Guard: Loopback(), Roots: roots, Timeout: 20 * time.Second}
}

// wrong says what a client did against the protocol.
func (p *peer) wrong(w http.ResponseWriter, format string, args ...any) {
	p.t.Errorf(format, args...)
	http.Error(w, "{}", http.StatusBadRequest)
}

// document answers with JSON.
func document(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, format, args...)
}
