// Package origin says under which names the server answers, and to web pages of
// which origins.
//
// Requests under other names are refused, so that no other name can be made to
// point here (DNS rebinding), and so are those of pages that are not allowed.
// Browsers are told what the allowed pages may do.
package origin

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"trustpager/problem"
)

// A Guard is the names and origins of a server. It is safe for concurrent use.
type Guard struct {
	hosts   []string // names, without ports
	allowed []string // origins, as in https://app.example.com
	base    string   // URL
}

// New returns a guard for the names of the base URL and of this machine, and
// for pages of the base URL, with further ones.
func New(baseURL string, hosts, origins []string) (*Guard, error) {
	base, err := url.Parse(baseURL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || strings.TrimSuffix(baseURL, "/") != base.Scheme+"://"+base.Host {
		// A path is not possible: the well-known URLs that clients look at are at
		// the root.
		return nil, fmt.Errorf("the base URL %q is not of the form https://host, without a path", baseURL)
	}
	return &Guard{
		hosts:   append([]string{base.Hostname(), "localhost", "127.0.0.1", "::1"}, hosts...),
		allowed: append([]string{base.Scheme + "://" + base.Host}, origins...),
		base:    strings.TrimSuffix(baseURL, "/"),
	}, nil
}

// CORS says what pages of other origins may do with a door.
type CORS struct {
	Methods string // of requests, as in "GET, POST"
	Headers string // of requests
	Expose  string // headers of answers
}

// Check looks at the Host and the Origin of r, and tells browsers what c says.
// It fails with [problem.Forbidden]. A preflight, which has no credential, is
// answered and reported as done.
func (g *Guard) Check(w http.ResponseWriter, r *http.Request, c CORS) (done bool, err error) {
	if err := g.CheckHost(r); err != nil {
		return false, err
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false, nil
	}
	if !g.isOrigin(origin, r.Host) {
		return false, problem.Errorf(problem.Forbidden, "web pages of %.100q may not call this server", origin).
			WithFix("Ask the operator to allow the origin.")
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", c.Expose)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false, nil
	}
	h.Set("Access-Control-Allow-Methods", c.Methods)
	h.Set("Access-Control-Allow-Headers", c.Headers)
	h.Set("Access-Control-Max-Age", "7200") // seconds
	w.WriteHeader(http.StatusNoContent)
	return true, nil
}

// CheckHost refuses a request under a name that is not this server's. It fails
// with [problem.Forbidden]. It is for doors without a credential that browsers
// send along, where any page may call.
func (g *Guard) CheckHost(r *http.Request) error {
	if g.isHost(r.Host) {
		return nil
	}
	return problem.Errorf(problem.Forbidden, "this server is not called %.100q", r.Host).
		WithFix("Use %s; the operator can allow further host names.", g.base)
}

// isHost reports whether host, with or without a port, is a name of this
// server. Ports do not matter here, and a proxy may change them.
func (g *Guard) isHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	return slices.ContainsFunc(g.hosts, func(name string) bool { return strings.EqualFold(name, host) })
}

// isOrigin reports whether pages of the origin may call; those of this very
// server may.
func (g *Guard) isOrigin(origin, host string) bool {
	scheme, own, _ := strings.Cut(strings.ToLower(origin), "://")
	return (scheme == "http" || scheme == "https") && strings.EqualFold(own, host) || slices.ContainsFunc(g.allowed, func(a string) bool { return strings.EqualFold(a, origin) })
}
