package oauth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"trustpager/access"
	"trustpager/problem"
)

// tokenType is the media type of access tokens (RFC 9068 §2.1).
const tokenType = "at+jwt"

// maxToken bounds what is taken for an access token at all.
const maxToken = 8 << 10

// claims are those of an access token (RFC 9068 §2.2). The last three are
// private: they name what is read with every request.
type claims struct {
	Issuer    string `json:"iss"`
	Audience  string `json:"aud"` // one resource, never a list
	Subject   string `json:"sub"` // the user, or the client that acts for itself
	Client    string `json:"client_id"`
	Scope     string `json:"scope,omitempty"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`
	Grant     string `json:"grant"`
	Family    string `json:"family"`
	Workspace string `json:"workspace"`
}

// The methods by which the JWT library would check claims. It does not: they
// are checked against the resource that was asked for, and by our clock.

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (c *claims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return jwt.ClaimStrings{c.Audience}, nil }

// user returns the user that the client acts for, "" if it acts for itself.
func (c *claims) user() string {
	if c.Subject == c.Client {
		return ""
	}
	return c.Subject
}

func (c *claims) expiry() time.Time { return time.Unix(c.ExpiresAt, 0).UTC() }

func (c *claims) token() *access.Token {
	return &access.Token{ID: c.ID, Grant: c.Grant, Family: c.Family, Client: c.Client, User: c.user(),
		Workspace: c.Workspace, Scope: c.Scope, ExpiresAt: c.expiry()}
}

// sign returns the claims as a signed token.
func (k *signer) sign(c *claims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	t.Header["typ"], t.Header["kid"] = tokenType, k.ID
	return t.SignedString(k.private)
}

var errNotOurs = errors.New("not an access token of this server")

var parser = jwt.NewParser(
	jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
	jwt.WithStrictDecoding(),
	jwt.WithoutClaimsValidation(),
)

// read returns the claims of a token that this server signed as an access
// token, whatever its resource, also of an expired one. Otherwise it fails with
// [errNotOurs].
func (s *Server) read(ctx context.Context, token string) (*claims, error) {
	if len(token) > maxToken {
		return nil, errNotOurs
	}
	sum := sha256.Sum256([]byte(token))
	now := s.Now()
	if c, ok := s.verified.get(sum, now); ok {
		return c, nil
	}
	var broken error // of the server, not of the token
	c := new(claims)
	_, err := parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
		// What is critical (RFC 7515 §4.1.11) would have to be understood.
		if _, critical := t.Header["crit"]; critical || t.Header["typ"] != tokenType {
			return nil, errNotOurs
		}
		id, _ := t.Header["kid"].(string)
		var public ed25519.PublicKey
		public, err := s.verifier(ctx, id)
		if err != nil && !errors.Is(err, errUnknownKey) {
			broken = err
		}
		return public, err
	})
	if broken != nil {
		return nil, broken
	}
	if err != nil || c.Issuer != s.Issuer {
		return nil, errNotOurs
	}
	s.verified.put(sum, c, now)
	return c, nil
}

// Verify returns what an access token allows at a resource at this moment: the
// minimum of token, live grant, client ceiling and role. It fails with
// [problem.Unauthorized], and with [problem.PlanRequired] if the workspace's
// plan has no API access, and with [problem.Paused]. Only for a token that this server signed does the
// error say what is wrong with it.
func (s *Server) Verify(ctx context.Context, token, resource string) (access.Grant, error) {
	c, err := s.read(ctx, token)
	switch {
	case errors.Is(err, errNotOurs):
		return access.Grant{}, problem.Errorf(problem.Unauthorized, "the access token is not valid").
			WithFix("Get an access token for %s from the authorization server %s.", resource, s.Issuer)
	case err != nil:
		return access.Grant{}, err
	case c.Audience != resource:
		return access.Grant{}, problem.Errorf(problem.Unauthorized, "the access token is for another resource, %s", c.Audience).
			WithFix("Ask for a token with the resource %s.", resource)
	case !s.Now().Before(c.expiry()):
		return access.Grant{}, problem.Errorf(problem.Unauthorized, "the access token expired at %s", c.expiry().Format(time.RFC3339)).
			WithFix("Get a new one with the refresh token, or connect the client again.")
	}
	d, err := s.delegation(ctx, s.Store, c)
	if err != nil {
		return access.Grant{}, err
	}
	if d.Workspace.Plan != access.Pro {
		return access.Grant{}, d.Workspace.NoAPI()
	}
	g := d.Grant(c.token(), s.RoleRights)
	if p, paused := g.Paused(); paused {
		return access.Grant{}, p.Refusal()
	}
	return g, nil
}

// delegation returns what holds now for a token of the given claims. It fails
// with [problem.Unauthorized] if nothing does any more.
func (s *Server) delegation(ctx context.Context, store Store, c *claims) (access.Delegation, error) {
	d, alive, err := store.Delegation(ctx, c.Workspace, c.Family)
	switch {
	case err != nil && !problem.Is(err, problem.NotFound):
		return d, err
	case err != nil || !alive || !d.RevokedAt.IsZero() || d.ID != c.Grant || d.Client != c.Client || d.User.ID != c.user():
		return d, problem.Errorf(problem.Unauthorized, "the access that the token stood for is revoked").
			WithFix("Connect the client again, if that is wanted.")
	case d.User.ID != "" && d.User.Role == "":
		return d, problem.Errorf(problem.Unauthorized, "the user whom the token stood for is no longer in the workspace").
			WithFix("Ask an admin of the workspace for an invitation, or connect the client as another user.")
	}
	return d, nil
}

// maxVerified bounds how many verified tokens are remembered.
const maxVerified = 20_000

// verifiedTokens remembers the claims of tokens whose signature was found good,
// by the SHA-256 of the token, since a signature costs more than the look-up of
// the rights, which is made every time.
type verifiedTokens struct {
	mu sync.Mutex
	m  map[[sha256.Size]byte]*claims
}

func (v *verifiedTokens) get(sum [sha256.Size]byte, now time.Time) (*claims, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, ok := v.m[sum]
	return c, ok && now.Before(c.expiry())
}

func (v *verifiedTokens) put(sum [sha256.Size]byte, c *claims, now time.Time) {
	if !now.Before(c.expiry()) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.m) >= maxVerified {
		for k, old := range v.m {
			if !now.Before(old.expiry()) {
				delete(v.m, k)
			}
		}
	}
	if v.m == nil || len(v.m) >= maxVerified {
		v.m = map[[sha256.Size]byte]*claims{}
	}
	v.m[sum] = c
}
