// Package oauth is the authorization server of this server's own resources
// (OAuth 2.1, with the profile of the Model Context Protocol). People see its
// login and consent in package web; programs see what [Server.Handler] serves.
//
// A client is known by registration: an admin's, its own (RFC 7591), or the
// metadata document that its id is the URL of. What a user lets a client do in
// a workspace is a [Grant], which is read with every request: a token never
// gives more than the grant does at that moment.
//
// The protocol's library, go-oauth2, stays behind library.go and tokens.go.
package oauth

import (
	"context"
	"time"

	"trustpager/access"
	"trustpager/audit"
)

// An Origin says how a client became known.
type Origin string

// The origins.
const (
	Registered Origin = "registered" // by an admin, for one workspace
	Dynamic    Origin = "dynamic"    // by itself (RFC 7591)
	Metadata   Origin = "metadata"   // by the document at its id
)

// The methods by which a client authenticates at the token endpoint (RFC 7591
// §2). A client that has a secret may send it either way.
const (
	AuthNone  = "none"
	AuthBasic = "client_secret_basic"
	AuthPost  = "client_secret_post"
)

// The grant types that are offered (RFC 7591 §2).
const (
	GrantCode        = "authorization_code"
	GrantRefresh     = "refresh_token"
	GrantCredentials = "client_credentials"
)

// A Client is a program that asks for access (RFC 6749 §2).
type Client struct {
	ID           string // cli_…, or the https URL of its metadata document
	Workspace    string // of a registered client; "" for one that registered itself
	Origin       Origin
	Name         string
	URI          string // of a page about the client, "" if none; from the client itself
	RedirectURIs []string
	AuthMethod   string   // AuthNone, AuthBasic or AuthPost
	GrantTypes   []string // that it may use
	Scope        string   // that it registered, "" if none; only repeated to it

	SecretHash    string    // SHA-256 of the secret, hex; "" if it has none
	OldSecretHash string    // of the secret before the last rotation, "" if none
	OldUntil      time.Time // end of that one

	Document  Document         // of a client of origin Metadata
	Maker     access.Principal // who registered it; zero if it did so itself
	CreatedAt time.Time
}

// Parent returns the key that registered the client, "" if none did. A client
// that acts for itself ends with that key, and that key does not decide what
// it asks for.
func (c *Client) Parent() string {
	if c.Maker.Kind == access.KindKey {
		return c.Maker.ID
	}
	return ""
}

// Public reports whether the client has no secret.
func (c *Client) Public() bool { return c.AuthMethod == AuthNone }

// A Document is what was fetched of a client's metadata document.
type Document struct {
	Digest    string    // SHA-256 over redirect URIs, name and keys, hex
	FetchedAt time.Time // the last good copy
	FreshTill time.Time // until then it is not fetched again (RFC 9111)
	ETag      string
}

// A Policy is what the admins of a workspace decide about a client: its
// ceiling and its limits. There is one from the first consent on, or since the
// client was registered.
type Policy struct {
	Workspace string
	Client    string
	Ceiling   []access.Scope
	Limits    access.Limits // of each of its grants
	CreatedAt time.Time
}

// A Grant is a stored consent: what a user lets a client do in a workspace.
// With client credentials the user is "", and there are no scopes: the client's
// ceiling says it all.
type Grant struct {
	ID           string // grt_…: the credential
	Workspace    string
	Client       string
	ClientName   string
	User         string
	UserEmail    string
	UserName     string
	Scopes       []access.Scope
	ClientDigest string    // Document.Digest that was consented to
	CreatedAt    time.Time // the first consent
	ConsentedAt  time.Time // the last one
	LastUsedAt   time.Time
	LastUsedFor  string
	ExpiresAt    time.Time // of its last refresh token; zero if there is none
	RevokedAt    time.Time // zero while it is in force
}

// A ClientInWorkspace is a client as the admins of a workspace see it.
type ClientInWorkspace struct {
	Client     Client
	Policy     Policy
	Grants     int64     // in force, in the workspace
	LastUsedAt time.Time // of its grants in the workspace, zero if never
}

// A GrantQuery selects grants of a workspace. Empty fields do not restrict.
type GrantQuery struct {
	Client  string
	User    string
	InForce bool   // without those that are revoked
	Before  string // id of the last grant seen, "" to begin
	Limit   int
}

// An AuthorizationCode is exchanged for tokens once (RFC 6749 §4.1.2).
type AuthorizationCode struct {
	Hash        string // SHA-256 of the code, hex
	Workspace   string
	Client      string
	User        string
	Grant       string
	RedirectURI string
	Challenge   string // S256 (RFC 7636)
	Resource    string // RFC 8707
	Scope       string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	UsedAt      time.Time // zero while it can be exchanged
	Family      string    // that was issued for it, "" before
}

// A Family is all tokens that stem from one authorization. It ends as a whole.
type Family struct {
	ID        string // fam_…
	Workspace string
	Grant     string
	Client    string
	User      string
	Resource  string
	Scope     string // the original one, which refreshing never exceeds
	CreatedAt time.Time
	ExpiresAt time.Time // of its last token
	RevokedAt time.Time // zero while it is in force
}

// A RefreshToken is exchanged for new tokens (RFC 6749 §6).
type RefreshToken struct {
	Hash      string // SHA-256, hex
	Workspace string
	Family    string
	CreatedAt time.Time
	ExpiresAt time.Time
	SpentAt   time.Time // zero while it is current
}

// A SigningKey signs access tokens. The private part is sealed.
type SigningKey struct {
	ID        string // kid
	Private   string // sealed Ed25519 seed
	Public    []byte
	CreatedAt time.Time
	ActiveAt  time.Time // it signs from then on, until the next key does
	RetiredAt time.Time // it verifies until then; zero for the newest
}

// A Store keeps what the authorization server knows. Each method is one atomic
// step. All fail with [problem.NotFound] if what they name is not there.
type Store interface {
	// Client returns one client.
	Client(ctx context.Context, id string) (Client, error)
	CreateClient(ctx context.Context, c Client) error
	// SaveDocumentClient stores a client of origin Metadata, new or changed.
	SaveDocumentClient(ctx context.Context, c Client) error

	// EnsurePolicy stores p unless the workspace has a policy for the client,
	// and returns the one that holds.
	EnsurePolicy(ctx context.Context, p Policy) (Policy, error)
	Policy(ctx context.Context, workspace, client string) (Policy, error)

	// GrantOf returns the grant of a client and a user in the workspace, also a
	// revoked one.
	GrantOf(ctx context.Context, workspace, client, user string) (Grant, error)
	// LockConsent locks the client, and the grant that the user has of it in the
	// workspace, until the transaction ends: what is read after it stays as it is,
	// and nobody else stores a consent of the user meanwhile. That either is
	// there is not sure.
	LockConsent(ctx context.Context, workspace, client, user string) error
	// SaveGrant stores a consent: a new grant, or new scopes, digest and time of
	// consent for the one that client and user have in the workspace, which is in
	// force again. It returns the grant as it then is, under the id that it had.
	SaveGrant(ctx context.Context, g Grant) (Grant, error)

	CreateCode(ctx context.Context, c AuthorizationCode) error
	// Code returns the code of the given hash, also a used one.
	Code(ctx context.Context, hash string) (AuthorizationCode, error)
	// TakeCode marks the code as used for the family. It fails with
	// [problem.Conflict] if it was used, so that of several redeemers one wins.
	TakeCode(ctx context.Context, hash, family string, now time.Time) error

	CreateFamily(ctx context.Context, f Family) error
	Family(ctx context.Context, workspace, id string) (Family, error)
	// RevokeFamily ends the family's tokens. Doing it twice is fine.
	RevokeFamily(ctx context.Context, workspace, id string, now time.Time) error

	// CreateRefreshToken also moves the expiry of the token's family and grant, if
	// that is earlier.
	CreateRefreshToken(ctx context.Context, t RefreshToken) error
	// RefreshToken returns the token of the given hash with its family, both
	// locked until the transaction ends; also a spent one.
	RefreshToken(ctx context.Context, hash string) (RefreshToken, Family, error)
	// SpendRefreshToken marks the token as spent. It fails with
	// [problem.Conflict] if it was.
	SpendRefreshToken(ctx context.Context, hash string, now time.Time) error
	// CountSibling counts one more token that a spent one gives. It fails with
	// [problem.Conflict] if it gave as many as it may.
	CountSibling(ctx context.Context, hash string, most int) error
	// ProlongRefreshToken moves the expiry of a token that is not rotated, with
	// that of its family and grant.
	ProlongRefreshToken(ctx context.Context, hash string, until time.Time) error

	// Delegation returns what holds now for the tokens of a family, and whether
	// the family is in force. A family of a client that acts for itself is not, if
	// the key that registered the client is revoked or gone. It fails with
	// [problem.NotFound] if the family, its grant or its client is gone.
	Delegation(ctx context.Context, workspace, family string) (d access.Delegation, alive bool, err error)

	// SigningKeys returns all keys that still verify, oldest first.
	SigningKeys(ctx context.Context, now time.Time) ([]SigningKey, error)
	// AddSigningKey stores the successor of the key after, which is "" for the
	// first, and sets the time until which that one verifies. If it has a
	// successor already, nothing changes and the answer is false: of several
	// nodes one wins.
	AddSigningKey(ctx context.Context, k SigningKey, after string, retire time.Time) (bool, error)

	// Audit records e with the transaction.
	Audit(ctx context.Context, e audit.Entry) error
}
