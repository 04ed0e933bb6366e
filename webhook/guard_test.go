package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"code.dny.dev/ssrf"

	"trustpager/problem"
	"trustpager/webhook"
)

// names is a resolver. Each lookup of a name takes its next group of
// addresses; the last one stays.
type names map[string][][]netip.Addr

func (n names) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	groups := n[host]
	if len(groups) == 0 {
		return nil, errors.New("no such host")
	}
	if len(groups) > 1 {
		n[host] = groups[1:]
	}
	return groups[0], nil
}

// corpus calls test with each URL of the file, and with its host's addresses.
func corpus(t *testing.T, test func(url string, n names)) (size int) {
	text, err := os.ReadFile("testdata/ssrf.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		url, rest, _ := strings.Cut(line, " ")
		_, host, _ := strings.Cut(url, "://")
		host, _, _ = strings.Cut(host, "/")
		host, _, _ = strings.Cut(host, ":")
		n := names{}
		for group := range strings.SplitSeq(rest, "/") {
			var addrs []netip.Addr
			for _, a := range strings.Fields(group) {
				addrs = append(addrs, netip.MustParseAddr(a))
			}
			if addrs != nil {
				n[host] = append(n[host], addrs)
			}
		}
		test(url, n)
		size++
	}
	return size
}

func TestCorpusIsRefusedWhenSaved(t *testing.T) {
	size := corpus(t, func(url string, n names) {
		g := webhook.Guard{Lookup: n.lookup}
		if strings.Contains(url, "rebind") { // innocent at first
			if err := g.CheckURL(t.Context(), url); err != nil {
				t.Errorf("CheckURL(%q) = %v, want nil at first", url, err)
			}
		}
		err := g.CheckURL(t.Context(), url)
		if !problem.Is(err, problem.Validation) {
			t.Errorf("CheckURL(%q) = %v, want a validation error", url, err)
		}
	})
	if size < 200 {
		t.Errorf("the corpus has %d URLs, want at least 200", size)
	}
}

// Without the resolver every URL is refused that names no host, or an address.
func TestCorpusIsRefusedByItsForm(t *testing.T) {
	refused := 0
	corpus(t, func(url string, n names) {
		if (&webhook.Guard{}).CheckForm(url) != nil {
			refused++
			return
		}
		if len(n) == 0 && !strings.Contains(url, "none.example") { // a name that resolves to nothing
			t.Errorf("CheckForm(%q) = nil, and there is no name that could be resolved", url)
		}
	})
	if refused < 100 {
		t.Errorf("%d URLs are refused, want most", refused)
	}
	if err := (&webhook.Guard{}).CheckForm("https://hooks.example.com/a?b=c"); err != nil {
		t.Errorf("a good one: got %v", err)
	}
}

// TestCorpusIsNeverReached requests every URL without checking it before. A
// connection would show as a dial that the guard let through to the kernel.
func TestCorpusIsNeverReached(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("reached") }))
	defer server.Close()
	reached := 0
	corpus(t, func(url string, n names) {
		g := webhook.Guard{Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			if strings.HasPrefix(host, "rebind") || len(n[host]) > 0 && !public(n[host][0]) {
				if len(n[host]) > 1 {
					n[host] = n[host][1:]
				}
				return n.lookup(ctx, host)
			}
			// The system's resolver may take odd spellings for loopback.
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}}
		req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader("{}"))
		if err != nil {
			return
		}
		c := g.Client(time.Second)
		resp, err := c.Do(req)
		if err == nil {
			resp.Body.Close()
			reached++
			t.Errorf("%q was reached", url)
		} else if _, dialled := errors.AsType[*net.OpError](err); dialled {
			t.Errorf("%q was dialled: %v", url, err)
		}
	})
	if reached > 0 {
		t.Errorf("%d URLs reached, want 0", reached)
	}
}

func public(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if (&webhook.Guard{}).Check(a) != nil {
			return false
		}
	}
	return true
}

func TestGuardAllowsPublicServers(t *testing.T) {
	n := names{"example.com": {{netip.MustParseAddr("93.184.215.14"), netip.MustParseAddr("2606:2800:21f:cb07:6820:80da:af6b:8b2c")}}}
	g := webhook.Guard{Lookup: n.lookup}
	for _, url := range []string{
		"https://example.com", "https://example.com/", "https://example.com:443/hook?token=x", "https://EXAMPLE.com:8443/",
		"https://93.184.215.14/", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/", "https://8.8.8.8:65535/a%20b",
	} {
		if strings.Contains(url, "EXAMPLE") {
			n["EXAMPLE.com"] = n["example.com"]
		}
		if err := g.CheckURL(t.Context(), url); err != nil {
			t.Errorf("CheckURL(%q) = %v, want nil", url, err)
		}
	}
}

func TestOperatorAllowsNetworks(t *testing.T) {
	nets, err := webhook.ParseNets("127.0.0.0/8, 10.1.2.3 64:ff9b::/96")
	if err != nil {
		t.Fatal(err)
	}
	g := webhook.Guard{Allow: nets}
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "::ffff:127.0.0.1": true, "10.1.2.3": true, "10.1.2.4": false, "::1": false,
		"8.8.8.8":             true,
		"64:ff9b::8.8.8.8":    true,  // NAT64 to a public server
		"64:ff9b::10.9.9.9":   false, // and not to the inside
		"64:ff9b::10.1.2.3":   true,
		"64:ff9b:1::8.8.8.8":  false,
		"fe80::1":             false,
		"2002:7f00:1::":       false,
		"::127.0.0.1":         false,
		"169.254.169.254":     false,
		"64:ff9b::169.254.1.": false,
	} {
		a, err := netip.ParseAddr(addr)
		if got := err == nil && g.Check(a) == nil; got != want {
			t.Errorf("Check(%s) allows: %v, want %v", addr, got, want)
		}
	}
	for url, want := range map[string]bool{
		"http://127.0.0.1:8080/": true, "https://127.0.0.1/": true, "http://10.1.2.3/": true,
		"http://8.8.8.8/": false, "http://10.1.2.4/": false, "http://127.1/": false,
		"http://[64:ff9b::8.8.8.8]/": true,
	} {
		if err := g.CheckURL(t.Context(), url); (err == nil) != want {
			t.Errorf("CheckURL(%q) = %v, want allowed: %v", url, err, want)
		}
	}
	for _, bad := range []string{"10.0.0.0/33", "example.com", "::ffff:10.0.0.0/104", "fe80::1%lo"} {
		if _, err := webhook.ParseNets(bad); err == nil {
			t.Errorf("ParseNets(%q) succeeded", bad)
		}
	}
}

func TestPlainHTTPIsNotReboundToPublicAddresses(t *testing.T) {
	n := names{"inside.example": {{netip.MustParseAddr("127.0.0.1")}, {netip.MustParseAddr("93.184.215.14")}}}
	g := webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Lookup: n.lookup}
	if err := g.CheckURL(t.Context(), "http://inside.example/"); err != nil {
		t.Fatal(err)
	}
	_, err := g.Client(time.Second).Get("http://inside.example/")
	if err == nil || !strings.Contains(err.Error(), "https only") {
		t.Errorf("Get = %v, want a refusal", err)
	}
}

func TestClientBoundsWhatServersDo(t *testing.T) {
	var hits atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		http.Redirect(w, r, "/target", http.StatusFound)
	})
	mux.HandleFunc("/target", func(_ http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if len(r.Cookies()) > 0 {
			t.Error("the client kept a cookie")
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:9")
	g := webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	c := g.Client(5 * time.Second)
	resp, err := c.Get(server.URL + "/redirect")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound || hits.Load() != 0 {
		t.Errorf("status %d with %d hits of the target, want 302 and none", resp.StatusCode, hits.Load())
	}
	if resp, err = c.Get(server.URL + "/target"); err != nil || hits.Load() != 1 {
		t.Errorf("Get = %v, %d hits; want one", err, hits.Load())
	} else {
		resp.Body.Close()
	}
	if _, err := c.Get(server.URL + "/headers"); err == nil {
		t.Error("a header of 1 MiB was taken")
	}
}

// FuzzGuard holds the guard to what an independent list refuses, and to all
// spellings of an IPv4 address being one.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "8.8.8.8", "100.64.0.1", "::1", "2606:4700::1111", "64:ff9b::7f00:1", "2001:db8::1", "fe80::1"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	other := ssrf.New(ssrf.WithAnyPort())
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b[:len(b)/4*4])
		if !ok {
			return
		}
		g := &webhook.Guard{}
		err := g.Check(addr)
		addr4 := addr.Unmap()
		if err == nil {
			network := "tcp6"
			if addr4.Is4() {
				network = "tcp4"
			}
			if oerr := other.Safe(network, netip.AddrPortFrom(addr4, 443).String(), nil); oerr != nil {
				t.Errorf("Check(%v) allows what another list refuses: %v", addr, oerr)
			}
			if addr4.IsPrivate() || addr4.IsLoopback() || addr4.IsMulticast() || addr4.IsLinkLocalUnicast() || addr4.IsUnspecified() {
				t.Errorf("Check(%v) allows an inside address", addr)
			}
		} else if strings.Contains(err.Error(), addr.String()) && len(addr.String()) > 3 {
			t.Errorf("the error tells the address: %v", err)
		}
		if !addr4.Is4() {
			return
		}
		v4 := addr4.AsSlice()
		mapped := netip.AddrFrom16(addr4.As16())
		if got := g.Check(mapped); (got == nil) != (err == nil) {
			t.Errorf("Check(%v) = %v, but Check(%v) = %v", addr4, err, mapped, got)
		}
		for _, prefix := range []string{"64:ff9b::", "64:ff9b:1::", "::", "::ffff:0:0:0"} {
			p := netip.MustParseAddr(prefix).As16()
			copy(p[12:], v4)
			if a := netip.AddrFrom16(p); g.Check(a) == nil {
				t.Errorf("Check(%v) allows an IPv4 address in disguise", a)
			}
		}
		p := netip.MustParseAddr("2002::1").As16()
		copy(p[2:], v4)
		if a := netip.AddrFrom16(p); g.Check(a) == nil {
			t.Errorf("Check(%v) allows an IPv4 address in disguise", a)
		}
		// Where the operator allows NAT64, it leads where IPv4 may go.
		through := &webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96")}}
		p = netip.MustParseAddr("64:ff9b::").As16()
		copy(p[12:], v4)
		if got := through.Check(netip.AddrFrom16(p)); (got == nil) != (err == nil) {
			t.Errorf("through NAT64, Check(%v) = %v, want as without: %v", addr4, got, err)
		}
	})
}

// FuzzCheckURL asserts that what is saved is what is dialled: a URL that passes
// names a host that the standard library reads the same way.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"https://example.com/", "https://127.1/", "https://[::1]:443/", "https://a@b/", "http://x/#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var asked string
		g := &webhook.Guard{Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			asked = host
			return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
		}}
		if g.CheckURL(t.Context(), raw) != nil {
			return
		}
		req, err := http.NewRequest("POST", raw, bytes.NewReader(nil))
		if err != nil {
			t.Fatalf("passed, but is no request: %v", err)
		}
		if asked != "" && req.URL.Hostname() != asked {
			t.Errorf("checked %q, would dial %q", asked, req.URL.Hostname())
		}
		if req.URL.Scheme != "https" || req.URL.User != nil || req.URL.Fragment != "" || net.ParseIP(asked) != nil {
			t.Errorf("passed: %q", raw)
		}
	})
}
