package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trustpager/problem"
)

// A Guard keeps requests to addresses that others chose away from the inside
// of the network: from everything but public unicast addresses.
//
// [Guard.CheckURL] tells a person early. What protects is [Guard.Client]: it
// looks at the address of each connection as it is made, so a name that
// resolves to something else by then gains nothing.
//
// The zero Guard allows public addresses only.
type Guard struct {
	// Allow holds what the operator allows besides, as by --allow-webhook-net.
	Allow []netip.Prefix

	// Lookup resolves a host name. Nil means the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// special lists the ranges that no server on the public internet has: the IANA
// special-purpose registries for IPv4 and IPv6, and what else is reserved or
// leads back inside. The predicates of [netip.Addr] know less than half.
var special = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "a \"this network\""},        // RFC 791 §3.2; Linux takes 0.0.0.0 for loopback
	{netip.MustParsePrefix("10.0.0.0/8"), "a private"},                // RFC 1918
	{netip.MustParsePrefix("100.64.0.0/10"), "a carrier's shared"},    // RFC 6598
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback"},              // RFC 1122 §3.2.1.3
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's internal"}, // Azure's host, public only by its looks
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local"},         // RFC 3927; the metadata of most clouds
	{netip.MustParsePrefix("172.16.0.0/12"), "a private"},             // RFC 1918
	{netip.MustParsePrefix("192.0.0.0/24"), "a protocol"},             // RFC 6890 §2.1
	{netip.MustParsePrefix("192.0.2.0/24"), "a documentation"},        // RFC 5737
	{netip.MustParsePrefix("192.31.196.0/24"), "an AS112"},            // RFC 7535
	{netip.MustParsePrefix("192.52.193.0/24"), "a multicast tunnel"},  // RFC 7450
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},         // RFC 7526
	{netip.MustParsePrefix("192.168.0.0/16"), "a private"},            // RFC 1918
	{netip.MustParsePrefix("192.175.48.0/24"), "an AS112"},            // RFC 7534
	{netip.MustParsePrefix("198.18.0.0/15"), "a benchmarking"},        // RFC 2544
	{netip.MustParsePrefix("198.51.100.0/24"), "a documentation"},     // RFC 5737
	{netip.MustParsePrefix("203.0.113.0/24"), "a documentation"},      // RFC 5737
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast"},             // RFC 1112 §4
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved"},              // RFC 1112 §4
	{netip.MustParsePrefix("255.255.255.255/32"), "a broadcast"},      // RFC 8190; also in 240.0.0.0/4
	{netip.MustParsePrefix("::/128"), "the unspecified"},              // RFC 4291 §2.5.2
	{netip.MustParsePrefix("::1/128"), "a loopback"},                  // RFC 4291 §2.5.3
	{netip.MustParsePrefix("::/96"), "an IPv4-compatible"},            // RFC 4291 §2.5.5.1
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "an IPv4-translated"},  // RFC 2765 §2.1; mapped ones are unmapped first
	{nat64, "a NAT64"}, // RFC 6052; holds any IPv4 address
	{netip.MustParsePrefix("64:ff9b:1::/48"), "a NAT64"},        // RFC 8215
	{netip.MustParsePrefix("100::/64"), "a discard-only"},       // RFC 6666
	{netip.MustParsePrefix("100:0:0:1::/64"), "a dummy"},        // RFC 9780
	{netip.MustParsePrefix("2001::/32"), "a Teredo"},            // RFC 4380; holds IPv4 addresses
	{netip.MustParsePrefix("2001::/23"), "a protocol"},          // RFC 2928: also benchmarking, ORCHID …
	{netip.MustParsePrefix("2001:db8::/32"), "a documentation"}, // RFC 3849
	{netip.MustParsePrefix("2002::/16"), "a 6to4"},              // RFC 3056; holds any IPv4 address
	{netip.MustParsePrefix("2620:4f:8000::/48"), "an AS112"},    // RFC 7534
	{netip.MustParsePrefix("3ffe::/16"), "a 6bone"},             // RFC 3701
	{netip.MustParsePrefix("3fff::/20"), "a documentation"},     // RFC 9637
	{netip.MustParsePrefix("5f00::/16"), "a segment routing"},   // RFC 9602
	{netip.MustParsePrefix("fc00::/7"), "a private"},            // RFC 4193
	{netip.MustParsePrefix("fe80::/10"), "a link-local"},        // RFC 4291 §2.5.6
	{netip.MustParsePrefix("fec0::/10"), "a site-local"},        // RFC 3879
	{netip.MustParsePrefix("ff00::/8"), "a multicast"},          // RFC 4291 §2.7
}

var (
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	unicast = netip.MustParsePrefix("2000::/3") // all that IANA has given out of IPv6
)

// Check returns an error unless addr may be reached. The error names the kind
// of the address and not the address, so that who asks learns nothing about
// the inside.
func (g *Guard) Check(addr netip.Addr) error {
	if !addr.IsValid() || addr.Zone() != "" {
		return errors.New("it is not a public address")
	}
	addr = addr.Unmap()
	if g.allowed(addr) {
		return nil
	}
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return fmt.Errorf("it is %s address, which is not public", s.name)
		}
	}
	if addr.Is6() && !unicast.Contains(addr) {
		return errors.New("it is a reserved address, which is not public")
	}
	return nil
}

// allowed reports whether the operator allows addr. Where the operator allows
// NAT64, that is a way to public IPv4 addresses, not to others.
func (g *Guard) allowed(addr netip.Addr) bool {
	for _, p := range g.Allow {
		if !p.Contains(addr) {
			continue
		}
		if nat64.Contains(addr) {
			b := addr.As16()
			return g.Check(netip.AddrFrom4([4]byte(b[12:]))) == nil
		}
		return true
	}
	return false
}

// check is Check for a connection; a plain one, without TLS, may only go where
// the operator allows it.
func (g *Guard) check(addr netip.Addr, plain bool) error {
	if plain && !g.allowed(addr.WithZone("").Unmap()) {
		return errors.New("it may be reached by https only")
	}
	return g.Check(addr)
}

func checkPort(port string) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || n < 1024 && n != 80 && n != 443 {
		return fmt.Errorf("port %.10q is not one that web servers use: 443, 80 or above 1023", port)
	}
	return nil
}

// CheckURL returns a [problem.Validation] unless raw is a URL that may be
// requested: https (http where the operator allows the network), no user name,
// no fragment, a name that resolves to allowed addresses only, or such an
// address in its usual form. It asks the resolver, so it has no place in a
// transaction.
func (g *Guard) CheckURL(ctx context.Context, raw string) error {
	u, err := g.form(raw)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := g.resolve(ctx, u.Hostname(), u.Scheme == "http"); err != nil {
		return badForm("%v", err)
	}
	return nil
}

// CheckForm is CheckURL without asking the resolver: a name may still resolve to
// what is refused.
func (g *Guard) CheckForm(raw string) error {
	_, err := g.form(raw)
	return err
}

func badForm(format string, args ...any) error {
	return problem.Errorf(problem.Validation, "the URL cannot be used: "+format, args...).
		WithFix("Give the https:// URL of a server on the public internet. For one inside your network, ask the operator to start the server with --allow-webhook-net.")
}

// form parses the URL, and refuses what can be told to be wrong with it by itself.
func (g *Guard) form(raw string) (*url.URL, error) {
	if len(raw) > 2000 {
		return nil, badForm("it is longer than 2000 bytes")
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return nil, badForm("it holds a character that URLs cannot hold; names in other scripts are written as xn--…")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, badForm("it is malformed")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, badForm("its scheme is not https")
	case u.User != nil:
		return nil, badForm("it holds a user name or password")
	case strings.Contains(raw, "#"):
		return nil, badForm("it holds a fragment")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, badForm("it names no host")
	case strings.HasSuffix(u.Host, ":"):
		return nil, badForm("its port is empty")
	}
	if p := u.Port(); p != "" {
		if err := checkPort(p); err != nil {
			return nil, badForm("%v", err)
		}
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		if err := g.check(addr, u.Scheme == "http"); err != nil {
			return nil, badForm("the address of %.100q is refused: %v", host, err)
		}
	} else if err := checkName(host); err != nil {
		return nil, badForm("%v", err)
	}
	return u, nil
}

// CheckHost returns an error unless host is a host name, or an address in its
// usual form that may be reached. It does not ask the resolver: what a name
// leads to is looked at when it is reached.
func (g *Guard) CheckHost(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.Check(addr)
	}
	return checkName(host)
}

// checkName refuses what is no host name, and what some resolvers would take
// for an address in an unusual form, such as 127.1, 0x7f.1 or 2130706433: a
// last label that is a number (WHATWG URL, "ends in a number").
func checkName(host string) error {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || len(host) > 253 || l[0] == '-' || l[len(l)-1] == '-' ||
			strings.Trim(l, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return fmt.Errorf("%.100q is no host name", host)
		}
	}
	last := strings.ToLower(labels[len(labels)-1])
	hex, isHex := strings.CutPrefix(last, "0x")
	if strings.Trim(last, "0123456789") == "" || isHex && strings.Trim(hex, "0123456789abcdef") == "" {
		return fmt.Errorf("%.100q is no host name, and no address in its usual form", host)
	}
	return nil
}

// resolve returns the addresses of host. It fails unless all of them are
// allowed: a name with both kinds is up to something.
func (g *Guard) resolve(ctx context.Context, host string, plain bool) ([]netip.Addr, error) {
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a}
	} else {
		lookup := g.Lookup
		if lookup == nil {
			lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
				return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			}
		}
		addrs, err = lookup(ctx, host)
		if err != nil || len(addrs) == 0 {
			return nil, fmt.Errorf("the host %.100q cannot be found", host)
		}
	}
	for i, a := range addrs {
		if err := g.check(a, plain); err != nil {
			return nil, fmt.Errorf("the address of %.100q is refused: %w", host, err)
		}
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// dial connects to the address, having checked what it resolves to just now.
func (g *Guard) dial(ctx context.Context, address string, plain bool) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if err := checkPort(port); err != nil {
		return nil, err
	}
	addrs, err := g.resolve(ctx, host, plain)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{
		Timeout: 5 * time.Second, // of each address
		// The address once more, as the kernel is going to use it.
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return g.check(ap.Addr(), plain)
		},
	}
	var errs []error
	for _, a := range addrs[:min(len(addrs), 4)] {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), port))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Client returns a client whose connections all pass g. It follows no
// redirects and returns them as they are, uses no proxy, keeps no cookies and
// no connections, and asks for no compression. A request takes at most
// timeout, its response's body included; how much of the body is read is for
// the caller to bound.
func (g *Guard) Client(timeout time.Duration) *http.Client {
	transport := func(plain bool) *http.Transport {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		return &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return g.dial(ctx, address, plain)
			},
			Protocols:              protocols,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 16 << 10,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		}
	}
	return &http.Client{
		Timeout:   timeout,
		Transport: schemes{"https": transport(false), "http": transport(true)},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// schemes sends a request by the transport of its scheme.
type schemes map[string]*http.Transport

func (s schemes) RoundTrip(r *http.Request) (*http.Response, error) {
	t, ok := s[r.URL.Scheme]
	if !ok {
		return nil, fmt.Errorf("scheme %.20q is neither https nor http", r.URL.Scheme)
	}
	return t.RoundTrip(r)
}

// ParseNets reads prefixes such as 10.1.0.0/16 that are separated by commas or
// spaces; an address alone is a prefix of one.
func ParseNets(text string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, f := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(f)
		if a, aerr := netip.ParseAddr(f); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is no network, as in 10.1.0.0/16", f)
		}
		nets = append(nets, p.Masked())
	}
	return slices.Compact(nets), nil
}
