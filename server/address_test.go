package server

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestAddress(t *testing.T) {
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"no proxy", "203.0.113.7:1234", nil, "203.0.113.7"},
		{"a client that makes itself another", "203.0.113.7:1234", []string{"198.51.100.1"}, "203.0.113.7"},
		{"one proxy", "10.1.2.3:80", []string{"198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.1.2.3:80", []string{"198.51.100.1, 10.9.9.9"}, "198.51.100.1"},
		{"two headers", "10.1.2.3:80", []string{"203.0.113.9", "198.51.100.1"}, "198.51.100.1"},
		{"a forged first hop", "10.1.2.3:80", []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1"},
		{"rubbish", "10.1.2.3:80", []string{"rubbish"}, "10.1.2.3"},
		{"none from a proxy", "10.1.2.3:80", nil, "10.1.2.3"},
		{"IPv6", "[::1]:80", []string{"2001:db8::1"}, "2001:db8::/64"},
		{"IPv6, another of the same subscriber's", "[2001:db8::aa:1]:80", nil, "2001:db8::/64"},
		{"IPv6 with a zone", "[fe80::1%eth0]:80", nil, "fe80::/64"},
		{"a mapped address", "[::ffff:10.0.0.1]:80", []string{"198.51.100.1"}, "198.51.100.1"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := trusted.address(r); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}
