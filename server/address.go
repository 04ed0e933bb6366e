package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// proxies are the networks of reverse proxies whose word counts.
type proxies []netip.Prefix

// address returns the address that a request came from: of the connection, or,
// if that is a trusted proxy's, the last one of X-Forwarded-For that is not.
// What a client writes there itself stands before that, and is not looked at.
// Of an IPv6 address it is the network, which is what one subscriber has.
func (p proxies) address(r *http.Request) string {
	from := p.from(r)
	addr, err := netip.ParseAddr(from)
	if err != nil || addr.Unmap().Is4() {
		return from
	}
	network, err := addr.WithZone("").Prefix(64)
	if err != nil {
		return from
	}
	return network.String()
}

func (p proxies) from(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if !p.trusts(host) {
		return host
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if hop = strings.TrimSpace(hop); hop == "" {
			break
		}
		if _, err := netip.ParseAddr(hop); err != nil {
			break
		}
		if host = hop; !p.trusts(hop) {
			break
		}
	}
	return host
}

func (p proxies) trusts(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(addr.Unmap()) })
}
