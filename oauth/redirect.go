package oauth

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	maxRedirects   = 20
	maxRedirectURI = 2000
	maxRedirectSum = 8 << 10 // bytes of all that a client registers itself
)

// loopbackHosts are the hosts of a program on the user's own machine.
var loopbackHosts = []string{"localhost", "127.0.0.1", "[::1]"}

// unsafeSchemes are those that a browser or the system acts on by itself, so no
// native app owns them (RFC 8252 §7.1).
var unsafeSchemes = map[string]bool{
	"javascript": true, "data": true, "vbscript": true, "livescript": true, "mocha": true, "jscript": true,
	"file": true, "filesystem": true, "blob": true, "about": true, "view-source": true, "jar": true,
	"resource": true, "res": true, "mhtml": true, "mk": true, "its": true, "hcp": true, "shell": true,
	"chrome": true, "chrome-extension": true, "moz-extension": true, "edge": true, "opera": true, "brave": true,
	"intent": true, "android-app": true, "content": true, "ms-appx": true, "ms-appx-web": true,
	"ftp": true, "ftps": true, "sftp": true, "tftp": true, "ws": true, "wss": true, "gopher": true,
	"mailto": true, "tel": true, "sms": true, "callto": true, "news": true, "nntp": true, "irc": true, "ircs": true,
	"ssh": true, "telnet": true, "rlogin": true, "ldap": true, "ldaps": true, "smb": true, "nfs": true, "dict": true,
	"rtsp": true, "rtmp": true, "magnet": true, "feed": true, "search-ms": true, "search": true,
	"urn": true, "cid": true, "mid": true, "acap": true, "imap": true, "pop": true, "git": true, "svn": true,
	"wyciwyg": true, "x-javascript": true, "behavior": true, "webcal": true, "app": true,
}

// CheckRedirectURI says why a client may not register the redirect URI: it must
// be an https URL, an http URL of the user's own machine, or have the
// private-use scheme of a native app (RFC 8252 §7).
func CheckRedirectURI(uri string) error {
	if uri == "" || len(uri) > maxRedirectURI {
		return fmt.Errorf("it has to be 1 to %d bytes long", maxRedirectURI)
	}
	for _, c := range []byte(uri) {
		// What browsers drop, repair or read as something else.
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}*", c) >= 0 {
			return errors.New("it holds a character that URIs cannot hold, or a wildcard")
		}
	}
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || !validScheme(scheme) {
		return errors.New("it does not begin with a scheme in lower case, as in https://")
	}
	if strings.Contains(uri, "#") {
		return errors.New("it holds a fragment (RFC 6749 section 3.1.2)")
	}
	if !strings.HasPrefix(rest, "/") {
		return errors.New("nothing but a path may follow the scheme")
	}
	u, err := url.Parse(uri)
	if err != nil {
		return errors.New("it is malformed")
	}
	if err := checkPath(u, rest); err != nil {
		return err
	}
	authority, hasAuthority := strings.CutPrefix(rest, "//")
	if i := strings.IndexAny(authority, "/?"); i >= 0 {
		authority = authority[:i]
	}
	if strings.Contains(authority, "@") || u.User != nil {
		return errors.New("it holds a user name")
	}
	switch {
	case scheme == "https":
		if !hasAuthority {
			return errors.New("it names no host")
		}
		return checkAuthority(authority)
	case scheme == "http":
		if _, _, ok := cutLoopback(uri); !ok {
			return errors.New("http is only for localhost, 127.0.0.1 and [::1]; use https")
		}
		return nil
	case unsafeSchemes[scheme], strings.HasPrefix(scheme, "ms-"), strings.HasPrefix(scheme, "web+"): // any web page may claim the last
		return fmt.Errorf("the scheme %s is not one of an app", scheme)
	case hasAuthority && authority == "" || rest == "/":
		return errors.New("it names nothing behind the scheme")
	}
	return nil
}

// validScheme reports whether s is a scheme as in RFC 3986 §3.1, in lower case.
func validScheme(s string) bool {
	if len(s) < 2 || len(s) > 60 || s[0] < 'a' || s[0] > 'z' {
		return false // one letter is a drive
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// checkPath refuses what browsers and servers do not read the same way.
func checkPath(u *url.URL, rest string) error {
	for i := 0; i < len(rest); i++ {
		if rest[i] != '%' {
			continue
		}
		n, err := strconv.ParseUint(rest[i+1:min(i+3, len(rest))], 16, 8)
		if err != nil || i+3 > len(rest) {
			return errors.New("a percent sign is not followed by two digits")
		}
		if n < 0x20 || n == 0x7f {
			return errors.New("it holds a control character")
		}
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return errors.New("its path holds a dot segment")
		}
	}
	return nil
}

// checkAuthority checks the host and the port of an https URI.
func checkAuthority(authority string) error {
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
		if !validPort(port) {
			return errors.New("its port is not a number from 1 to 65535")
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !a.Is6() || a.Zone() != "" || !strings.HasSuffix(host, "]") {
			return errors.New("its host is not a valid address")
		}
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return nil
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return errors.New("its host is not a host name in lower case")
		}
	}
	// A last label that is a number makes browsers read the name as an address.
	last := labels[len(labels)-1]
	if hex, ok := strings.CutPrefix(last, "0x"); strings.Trim(last, "0123456789") == "" || ok && strings.Trim(hex, "0123456789abcdef") == "" {
		return errors.New("its host is neither a name nor an address in its usual form")
	}
	return nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && port[0] != '0' && port[0] != '+'
}

// matchRedirect reports whether the redirect URI of a request is one that the
// client registered: the same string. Programs on the user's own machine take
// the port that is free (RFC 8252 §7.3), and some of them add or drop the slash
// of an empty path.
func matchRedirect(registered []string, uri string) bool {
	if CheckRedirectURI(uri) != nil {
		return false
	}
	host, rest, loopback := cutLoopback(uri)
	for _, r := range registered {
		if r == uri {
			return true
		}
		if h, p, ok := cutLoopback(r); loopback && ok && h == host && barePath(p) == barePath(rest) {
			return true
		}
	}
	return false
}

// cutLoopback cuts an http URI of the user's own machine into its host and what
// follows the port.
func cutLoopback(uri string) (host, rest string, ok bool) {
	after, ok := strings.CutPrefix(uri, "http://")
	if !ok {
		return "", "", false
	}
	for _, host := range loopbackHosts {
		rest, ok := strings.CutPrefix(after, host)
		if !ok {
			continue
		}
		if port, ok := strings.CutPrefix(rest, ":"); ok {
			end := strings.IndexAny(port, "/?")
			if end < 0 {
				end = len(port)
			}
			if !validPort(port[:end]) {
				return "", "", false
			}
			rest = port[end:]
		}
		if rest == "" || rest[0] == '/' || rest[0] == '?' {
			return host, rest, true
		}
	}
	return "", "", false
}

func barePath(rest string) string {
	if rest == "" {
		return "/"
	}
	return rest
}

// redirectHost returns the host that a redirect URI leads to, "" if none: what
// stands there in the URI of an app is a name that the app has chosen.
func redirectHost(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// location appends the parameters to the redirect URI, whose own bytes stay as
// they are (RFC 6749 §3.1.2).
func location(redirectURI string, params url.Values) string {
	sep := "?"
	if strings.Contains(redirectURI, "?") {
		sep = "&"
		if strings.HasSuffix(redirectURI, "?") || strings.HasSuffix(redirectURI, "&") {
			sep = ""
		}
	}
	return redirectURI + sep + params.Encode()
}
