package web

import (
	"net"
	"net/url"
	"regexp"
	"strings"

	"trustpager/oauth"
)

// policy returns the Content-Security-Policy of a page. Browsers apply
// form-action also to where a form's answer redirects to, so a page whose form
// may end at a client names that in forms.
func policy(forms []string) string {
	return "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action " +
		strings.Join(append([]string{"'self'"}, forms...), " ") + "; frame-ancestors 'none'; base-uri 'none'"
}

var cspHost = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?$`)

// formSources returns the CSP sources that let a form's answer redirect to the
// URI; none if no client may have it.
func formSources(redirectURI string) []string {
	u, err := url.Parse(redirectURI)
	if err != nil || oauth.CheckRedirectURI(redirectURI) != nil {
		return nil
	}
	if u.Scheme == "http" && cspHost.MatchString(u.Host) {
		return []string{"http://" + strings.ToLower(u.Host)}
	}
	// Of an app, of a host that CSP cannot name, such as [::1], or of a web page,
	// which may redirect on to another:
	// browsers hold the whole chain against form-action.
	return []string{u.Scheme + ":"}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// A destination is where the browser goes after consent, as people are told.
type destination struct {
	Host   string // of a web page
	Local  string // of a program on this computer
	Scheme string // that an app answers to
}

func destinationOf(redirectURI string) destination {
	u, err := url.Parse(redirectURI)
	switch {
	case err != nil:
		return destination{Host: redirectURI}
	case u.Scheme != "https" && u.Scheme != "http": // its host is only a name within the app
		if u.Host != "" {
			return destination{Scheme: u.Scheme + "://"}
		}
		return destination{Scheme: u.Scheme + ":"}
	case isLoopback(u.Hostname()):
		return destination{Local: u.Host}
	}
	return destination{Host: u.Host}
}
