package oauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/origin"
)

// The paths of the authorization server, below the issuer.
const (
	AuthorizePath  = "/oauth/authorize" // a page, which package web serves
	TokenPath      = "/oauth/token"
	RegisterPath   = "/oauth/register"
	RevokePath     = "/oauth/revoke"
	IntrospectPath = "/oauth/introspect"
	KeysPath       = "/oauth/jwks.json"
)

// How long things last.
const (
	CodeTTL       = time.Minute
	AccessTTL     = time.Hour
	RefreshTTL    = 90 * 24 * time.Hour // since the last refresh
	RefreshGrace  = time.Minute         // in which a spent refresh token gives a sibling
	UnusedClients = 30 * 24 * time.Hour // clients that registered themselves and have no grant
	Unconsented   = 24 * time.Hour      // of them those that nobody ever consented to
)

// MaxUnconsented is how many clients there may be that registered themselves
// and that nobody ever consented to. When there are more the oldest go: anybody
// may register, and none of it is to fill the disk.
const MaxUnconsented = 10_000

// maxSiblings is how many tokens a spent refresh token gives within its grace:
// more than a client has windows that refresh at once, and few enough that
// whoever has stolen it does not get as many as they like.
const maxSiblings = 10

// DefaultRate is wide, in requests a minute: many people may be behind one
// address, as behind that of a hosted client.
const DefaultRate = 600

// A Sealer encrypts what is secret at rest; [secret.Key] is one.
type Sealer interface {
	Seal(plain []byte, context string) (string, error)
	Open(sealed, context string) ([]byte, error)
}

// A Config is what a [Server] needs.
type Config struct {
	Store  Store // for reads
	InTx   func(ctx context.Context, fn func(tx Store) error) error
	Sealer Sealer

	Issuer string        // the base URL of this server, without a slash at the end
	Origin *origin.Guard // names of this server
	Now    func() time.Time

	RoleRights     func(access.Role) access.Rights
	CheckScopes    func([]access.Scope) error // reports scopes that the catalog does not have
	DefaultCeiling []access.Scope             // of a client that registered itself

	// Cut lowers scopes to what most allows: for each resource the position of
	// its ladder that gives the minimum of both.
	Cut func(scopes []access.Scope, most access.Rights) []access.Scope

	// Grace is how long a spent refresh token gives a sibling: zero means
	// [RefreshGrace], and less means not at all.
	Grace time.Duration

	// Rate is how many requests a minute one address may send of each kind: token
	// requests of each grant type, revocations, introspections. A client may send
	// a fifth of the token requests from there. Zero means [DefaultRate].
	Rate int

	// Address returns the address that a request is counted under. Nil means
	// that of the connection, which behind a proxy is the proxy's.
	Address func(*http.Request) string

	// Documents fetches client metadata documents, and keeps to public addresses.
	// CheckURL tells early of a URL that it would not fetch.
	Documents *http.Client
	CheckURL  func(ctx context.Context, url string) error
}

// ErrLoginFirst says that a client's metadata document has to be fetched, and
// that this is not done for somebody who is not logged in.
var ErrLoginFirst = errors.New("the client is not known yet; log in first")

// A Server is the authorization server. It is safe for concurrent use.
type Server struct {
	Config
	keys      keyring
	verified  verifiedTokens
	documents fetches

	byAddress  access.Throttle // token, revocation and introspection
	byClient   access.Throttle // token requests of one client from one address
	registrars access.Throttle // registrations

	// Fetches of metadata documents. Ids are easily made up, so a person has far
	// less than a host, whose documents others want too.
	people       access.Throttle
	peopleOnHost access.Throttle
	hosts        access.Throttle
	fetching     chan struct{} // holds one for each fetch that runs
}

// New returns a server, with a signing key if there is none yet.
func New(ctx context.Context, c Config) (*Server, error) {
	if c.Grace == 0 {
		c.Grace = RefreshGrace
	}
	if c.Address == nil {
		c.Address = connectionAddress
	}
	if c.Rate <= 0 {
		c.Rate = DefaultRate
	}
	byClient := max(1, c.Rate/5)
	s := &Server{
		Config:     c,
		byAddress:  access.Throttle{PerMinute: c.Rate, Burst: c.Rate, Now: c.Now},
		byClient:   access.Throttle{PerMinute: byClient, Burst: byClient, Now: c.Now},
		registrars: access.Throttle{PerMinute: 10, Burst: 30, Now: c.Now}, // each costs a row

		people:       access.Throttle{PerMinute: 20, Burst: 20, Now: c.Now},
		peopleOnHost: access.Throttle{PerMinute: 10, Burst: 10, Now: c.Now},
		hosts:        access.Throttle{PerMinute: 120, Burst: 120, Now: c.Now},
		fetching:     make(chan struct{}, maxFetches),
	}
	if err := s.RotateKeys(ctx); err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	return s, nil
}

func connectionAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// routes lists what [Server.Handler] serves.
func (s *Server) routes() map[string]http.Handler {
	as, oidc, resource := s.document(http.MethodGet, s.metadata), s.document(http.MethodGet, s.openIDMetadata), s.document(http.MethodGet, s.resourceMetadata)
	return map[string]http.Handler{
		// The path of the MCP endpoint stands behind the well-known part (RFC 8414
		// §3.1), or before it (OpenID Connect Discovery §4). It is not part of the
		// issuer here, but clients that know only the endpoint's URL look there.
		metadataPath:                      as,
		metadataPath + "/mcp":             as,
		metadataPath + "/mcp/{workspace}": as,
		openIDPath:                        oidc,
		openIDPath + "/mcp":               oidc,
		openIDPath + "/mcp/{workspace}":   oidc,
		"/mcp" + openIDPath:               oidc,
		"/mcp/{workspace}" + openIDPath:   oidc,
		resourcePath:                      resource,
		resourcePath + "/mcp":             resource,
		resourcePath + "/mcp/{workspace}": resource,
		KeysPath:                          s.document(http.MethodGet, s.keySet),

		TokenPath:      s.endpoint(s.serveToken),
		RegisterPath:   s.endpoint(s.serveRegister),
		RevokePath:     s.endpoint(s.serveRevoke),
		IntrospectPath: s.endpoint(s.serveIntrospect),
	}
}

// Handler serves what programs ask for: metadata of the authorization server
// and of the protected resources, keys, tokens, registration, revocation,
// introspection.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.Handle(pattern, h)
	}
	return mux
}

// Patterns are the [http.ServeMux] patterns that Handler answers.
func Patterns() []string {
	return slices.Sorted(maps.Keys(new(Server).routes()))
}

// text reports whether s can be stored: valid UTF-8 without NUL, which
// PostgreSQL does not take.
func text(s string) bool {
	return strings.ToValidUTF8(s, "") == s && !strings.Contains(s, "\x00")
}
