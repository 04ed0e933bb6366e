package oauth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"trustpager/strictjson"
	"trustpager/typeid"
)

const (
	codeInvalidRedirectURI    = "invalid_redirect_uri"
	codeInvalidClientMetadata = "invalid_client_metadata"
)

// clientMetadata is what a client says about itself, at registration (RFC 7591
// §2) or in its metadata document. Members that are not here are ignored, and
// logos among them: fetching one would tell its host who logs in here.
type clientMetadata struct {
	RedirectURIs  []string `json:"redirect_uris"`
	AuthMethod    string   `json:"token_endpoint_auth_method"`
	GrantTypes    []string `json:"grant_types"`
	ResponseTypes []string `json:"response_types"`
	Name          string   `json:"client_name"`
	URI           string   `json:"client_uri"`
	Scope         string   `json:"scope"`
}

// parseMetadata reads client metadata into v.
func parseMetadata(body []byte, v any) error {
	if err := strictjson.Check(body); err != nil {
		return refuse(codeInvalidClientMetadata, "The body is not JSON that everybody reads the same way")
	}
	if err := json.Unmarshal(body, v); err != nil {
		wrong, _ := errors.AsType[*json.SemanticError](err)
		if wrong == nil {
			return refuse(codeInvalidClientMetadata, "The body is not a JSON object")
		}
		return refuse(codeInvalidClientMetadata, fmt.Sprintf("The member %s has a wrong type", wrong.JSONPointer))
	}
	return nil
}

// check completes and checks what a client says about itself.
func (m *clientMetadata) check() error {
	if len(m.RedirectURIs) == 0 {
		return refuse(codeInvalidRedirectURI, "The redirect_uris are missing")
	}
	if len(m.RedirectURIs) > maxRedirects {
		return refuse(codeInvalidRedirectURI, fmt.Sprintf("There are more than %d redirect_uris", maxRedirects))
	}
	sum := 0
	for i, uri := range m.RedirectURIs {
		if sum += len(uri); sum > maxRedirectSum {
			return refuse(codeInvalidRedirectURI, fmt.Sprintf("The redirect_uris are longer than %d bytes together", maxRedirectSum))
		}
		if err := CheckRedirectURI(uri); err != nil {
			return refuse(codeInvalidRedirectURI, fmt.Sprintf("The redirect URI number %d cannot be used: %v", i+1, err))
		}
	}
	if len(m.ResponseTypes) > 0 && !slices.Contains(m.ResponseTypes, "code") {
		return refuse(codeInvalidClientMetadata, "The response_types have to contain code")
	}
	if len(m.GrantTypes) == 0 {
		m.GrantTypes = []string{GrantCode, GrantRefresh}
	}
	// A server may register less than was asked for (RFC 7591 §3.2.1): of all
	// other grant types nothing, and never client_credentials, which is for
	// clients that an admin registers.
	asked := m.GrantTypes
	m.GrantTypes = nil
	for _, g := range []string{GrantCode, GrantRefresh} {
		if slices.Contains(asked, g) {
			m.GrantTypes = append(m.GrantTypes, g)
		}
	}
	if !slices.Contains(m.GrantTypes, GrantCode) {
		return refuse(codeInvalidClientMetadata, "The grant_types have to contain authorization_code; only an admin registers other clients")
	}
	if len(m.Scope) > maxScope || !validScopeText(m.Scope) {
		return refuse(codeInvalidClientMetadata, "The scope is too long, or not names separated by spaces")
	}
	m.Name, m.URI = ClientName(m.Name), clientURI(m.URI)
	return nil
}

// validScopeText reports whether s has the form of a scope (RFC 6749 §3.3).
func validScopeText(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return !strings.Contains(s, "  ")
}

// registration is the answer to one (RFC 7591 §3.2.1). SecretExpiresAt is there
// with a secret only, and then always.
type registration struct {
	ID              string   `json:"client_id"`
	IssuedAt        int64    `json:"client_id_issued_at"`
	Secret          string   `json:"client_secret,omitempty"`
	SecretExpiresAt *int64   `json:"client_secret_expires_at,omitempty"`
	Name            string   `json:"client_name"`
	URI             string   `json:"client_uri,omitempty"`
	RedirectURIs    []string `json:"redirect_uris"`
	AuthMethod      string   `json:"token_endpoint_auth_method"`
	GrantTypes      []string `json:"grant_types"`
	ResponseTypes   []string `json:"response_types"`
	Scope           string   `json:"scope,omitempty"`
}

// serveRegister lets a client register itself (RFC 7591). That gives it no
// rights: those come with a user's consent, within the ceiling of the workspace.
func (s *Server) serveRegister(w http.ResponseWriter, r *http.Request) error {
	if err := throttle(&s.registrars, s.Address(r)); err != nil {
		return err
	}
	body, err := readBody(w, r, "application/json")
	if err != nil {
		return err
	}
	var m clientMetadata
	if err := parseMetadata(body, &m); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	c := Client{ID: typeid.NewID("cli"), Origin: Dynamic, Name: m.Name, URI: m.URI, RedirectURIs: m.RedirectURIs,
		AuthMethod: m.AuthMethod, GrantTypes: m.GrantTypes, Scope: m.Scope, CreatedAt: s.Now()}
	out := registration{ID: c.ID, IssuedAt: c.CreatedAt.Unix(), Name: c.Name, URI: c.URI, RedirectURIs: c.RedirectURIs,
		GrantTypes: c.GrantTypes, ResponseTypes: []string{"code"}, Scope: c.Scope}
	switch m.AuthMethod {
	case "", AuthNone:
		// RFC 7591 §2 would have basic for "", but the clients that say nothing
		// are programs of users, which cannot keep a secret.
		c.AuthMethod = AuthNone
	case AuthBasic, AuthPost:
		secret := NewClientSecret()
		c.SecretHash = secret.Hash()
		out.Secret, out.SecretExpiresAt = string(secret), new(int64) // 0: it does not expire
	default:
		return refuse(codeInvalidClientMetadata, "The token_endpoint_auth_method has to be none, client_secret_basic or client_secret_post")
	}
	out.AuthMethod = c.AuthMethod
	if err := s.Store.CreateClient(r.Context(), c); err != nil {
		return err
	}
	slog.InfoContext(r.Context(), "OAuth client registered", "client", c.ID, "name", c.Name, "redirect_hosts", someHosts(c.RedirectURIs))
	return answer(w, http.StatusCreated, out)
}

// someHosts returns the first hosts that redirect URIs name, or the schemes of
// those that name none: what the log needs, and no more of what anybody may
// send.
func someHosts(uris []string) []string {
	const most, longest = 3, 100
	var hosts []string
	for _, uri := range uris {
		host := redirectHost(uri)
		if host == "" {
			scheme, _, _ := strings.Cut(uri, ":")
			host = scheme + ":"
		}
		if host = host[:min(len(host), longest)]; !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
		if len(hosts) == most {
			break
		}
	}
	return hosts
}
