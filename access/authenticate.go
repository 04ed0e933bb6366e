package access

import (
	"context"
	"strings"
	"time"

	"trustpager/problem"
)

// A Shown is what the store knows of a secret that was shown.
type Shown struct {
	Key        Key
	Superseded time.Time // end of the overlap after a rotation; zero for the current secret
	Workspace  Workspace
}

// A CredentialStore finds credentials.
type CredentialStore interface {
	// KeyBySecret returns the key that has a secret of the given hash. It fails
	// with [problem.NotFound].
	KeyBySecret(ctx context.Context, hash string) (Shown, error)
}

// A TokenVerifier returns what an access token allows at a resource, the URL of
// a door, at this moment. It fails with [problem.Unauthorized].
type TokenVerifier func(ctx context.Context, token, resource string) (Grant, error)

// An Authenticator finds the grant that a credential stands for. It is safe
// for concurrent use.
type Authenticator struct {
	Store  CredentialStore
	Tokens TokenVerifier // of access tokens; nil if there are none
	Now    func() time.Time
}

// Authenticate returns the grant of a bearer credential at a resource: an API
// key, which is good for all, or an access token, which is good for one. It
// fails with [problem.Unauthorized], and with [problem.PlanRequired] if the
// workspace's plan has no API access, and with [problem.Paused]. Only for a secret that is, or was, a real
// one does the error say what is wrong with it.
func (a *Authenticator) Authenticate(ctx context.Context, bearer, resource string) (Grant, error) {
	if a.Tokens != nil && strings.Count(bearer, ".") == 2 { // a JWT; keys have no dots
		return a.Tokens(ctx, bearer, resource)
	}
	s := Secret(bearer)
	if !s.WellFormed() {
		return Grant{}, refuseKey()
	}
	shown, err := a.Store.KeyBySecret(ctx, s.Hash())
	if problem.Is(err, problem.NotFound) {
		return Grant{}, refuseKey()
	}
	if err != nil {
		return Grant{}, err
	}
	k, now := shown.Key, a.Now()
	switch {
	case !k.RevokedAt.IsZero():
		return Grant{}, problem.Errorf(problem.Unauthorized, "the API key %q is revoked", k.Name).
			WithFix("Ask an admin of the workspace to activate it, or use another key.")
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return Grant{}, problem.Errorf(problem.Unauthorized, "the API key %q expired at %s", k.Name, k.ExpiresAt.Format(time.RFC3339)).
			WithFix("Ask an admin of the workspace for a later expiry, or for another key.")
	case !shown.Superseded.IsZero() && !now.Before(shown.Superseded):
		return Grant{}, problem.Errorf(problem.Unauthorized, "this secret of the API key %q was replaced when the key was rotated", k.Name).
			WithFix("Use the secret that was shown at the rotation; it ends in …%s.", k.Last4)
	case shown.Workspace.Plan != Pro:
		return Grant{}, shown.Workspace.NoAPI()
	}
	g := k.Grant(shown.Workspace)
	if p, paused := g.Paused(); paused {
		return Grant{}, p.Refusal()
	}
	return g, nil
}

// SlowBody is how long a request's body may take after its credential was looked
// at. Of one that takes longer the credential is looked at again: whoever holds a
// request open must not act after a pause or a revocation.
const SlowBody = time.Second

// NoAPI is the error of a workspace whose plan has no API access.
func (w Workspace) NoAPI() error {
	return problem.Errorf(problem.PlanRequired, "API access needs the Pro plan, and the workspace %q is on %s", w.Name, w.Plan).
		WithFix("Ask the operator of the server to change the plan: trustpager workspace plan %s pro", w.ID)
}

func refuseKey() error {
	return problem.Errorf(problem.Unauthorized, "the API key is not valid").
		WithFix("Send a current key as the header \"Authorization: Bearer %s…\"; check that it was copied whole.", SecretPrefix)
}

// Grant returns what the key may do in its workspace.
func (k Key) Grant(w Workspace) Grant {
	g := Grant{
		Principal: Principal{Kind: KindKey, ID: k.ID, Name: k.Name, User: k.CreatedBy.User},
		Workspace: w,
		Limits:    k.Limits,
		Parent:    k.Parent,
		Key:       &k,
	}
	if k.FullAccess {
		g.Rights, g.MayDecide = FullRights, k.MayDecide && !w.Settings.PeopleOnly
	} else {
		g.Rights = RightsOf(k.Scopes)
	}
	return g
}

// BearerToken returns the credential of an Authorization header (RFC 6750
// §2.1; the scheme's case does not matter). It fails with
// [problem.Unauthorized] if there is none.
func BearerToken(header string) (string, error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	switch {
	case header == "":
		return "", problem.Errorf(problem.Unauthorized, "the request has no credential").
			WithFix("Send an API key as the header \"Authorization: Bearer %s…\".", SecretPrefix)
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		return "", problem.Errorf(problem.Unauthorized, "the Authorization header is not of the form \"Bearer KEY\"").
			WithFix("Send an API key as the header \"Authorization: Bearer %s…\".", SecretPrefix)
	}
	return token, nil
}
