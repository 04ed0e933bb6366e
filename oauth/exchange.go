package oauth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/typeid"
)

// An exchange is one use of the library within one transaction: a grant of any
// type for tokens, or a consent for a code.
type exchange struct {
	*Server
	tx       Store
	client   Client
	key      signer
	now      time.Time
	basic    bool   // the client authenticated by HTTP Basic
	resource string // that the request names, "" if it names none

	family Family // that the tokens belong to; of a consent, what its tokens will be
}

// randomToken returns 256 random bits in base64url.
func randomToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// newRefreshToken returns a new refresh token. The prefix lets scanners find
// leaked ones.
func newRefreshToken() string { return RefreshTokenPrefix + randomToken() }

// RefreshTokenPrefix begins every refresh token.
const RefreshTokenPrefix = "tprt_"

// serveToken is the token endpoint (RFC 6749 §3.2).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	who, err := identify(r, form)
	if err != nil {
		return err
	}
	grant := form.Get("grant_type")
	if !slices.Contains([]string{GrantCode, GrantRefresh, GrantCredentials}, grant) && grant != "" {
		grant = "other" // so that made-up names have no limits of their own
	}
	// Each grant type and client has a limit of its own, so that one that fails
	// in a loop does not keep others from refreshing. Ids are counted by their
	// hash, since a made-up one may be long.
	address := s.Address(r)
	if err := throttle(&s.byAddress, "token "+grant+" "+address); err != nil {
		return err
	}
	if err := throttle(&s.byClient, grant+" "+address+" "+hash(who.id)); err != nil {
		return err
	}
	client, err := s.authenticate(r.Context(), who)
	if err != nil {
		return err
	}
	if err := checkGrantType(&client, form); err != nil {
		return err
	}
	issued, err := s.issue(r, client, who.basic, form)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, issued)
}

// checkGrantType checks that the client may use the grant type, and that the
// form has what it needs.
func checkGrantType(c *Client, form url.Values) error {
	grant := form.Get("grant_type")
	needs := map[string][]string{
		GrantCode:        {"code", "code_verifier"},
		GrantRefresh:     {"refresh_token"},
		GrantCredentials: {},
	}
	params, offered := needs[grant]
	switch {
	case grant == "":
		return refuse(codeInvalidRequest, "The grant_type is missing")
	case !offered:
		return refuse(codeUnsupportedGrantType, "The grant_type has to be authorization_code, refresh_token or client_credentials")
	case !slices.Contains(c.GrantTypes, grant):
		return refuse(codeUnauthorizedClient, "The client is not registered for this grant type")
	case grant == GrantCredentials && (c.Origin != Registered || c.Public() || c.Workspace == ""):
		return refuse(codeUnauthorizedClient, "Only a client that an admin registered may act for itself")
	}
	for _, name := range params {
		if !form.Has(name) {
			return refuse(codeInvalidRequest, "The parameter "+name+" is missing")
		}
	}
	return nil
}

// issue answers a token request in one transaction. A refusal commits what it
// has done: a code that was tried is used up, and a family whose token came back
// has ended.
func (s *Server) issue(r *http.Request, client Client, basic bool, form url.Values) (map[string]any, error) {
	resource := ""
	if named := form.Get("resource"); named != "" {
		var ok bool
		if resource, _, ok = s.resource(named); !ok {
			return nil, refuse(codeInvalidTarget, "The resource is none of this server")
		}
	}
	key, err := s.signer(r.Context())
	if err != nil {
		return nil, err
	}
	var issued map[string]any
	var refused error
	err = s.InTx(r.Context(), func(tx Store) error {
		x := &exchange{Server: s, tx: tx, client: client, key: key, now: s.Now(), basic: basic, resource: resource}
		var err error
		issued, refused = nil, nil
		issued, err = x.exchange(r, form)
		if _, ok := errors.AsType[*refusal](err); ok {
			refused, err = err, nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return issued, refused
}

// exchange prepares what the library does not know, and lets it go on.
func (x *exchange) exchange(r *http.Request, form url.Values) (map[string]any, error) {
	ctx := r.Context()
	own := *r // the transaction may be tried again
	own.Form = url.Values{}
	for name, values := range form {
		own.Form[name] = values
	}
	own.PostForm = own.Form
	switch form.Get("grant_type") {
	case GrantCode:
		// The library wants the redirect URI, which OAuth 2.1 §4.1.3 has no more:
		// PKCE does its work. If it is named it must be that of the request.
		c, err := x.tx.Code(ctx, hash(form.Get("code")))
		if problem.Is(err, problem.NotFound) {
			return nil, refuse(codeInvalidGrant, "The code is not valid")
		}
		if err != nil {
			return nil, err
		}
		if !form.Has("redirect_uri") {
			own.Form.Set("redirect_uri", c.RedirectURI)
		}
	case GrantCredentials:
		if err := x.credentials(ctx, form.Get("scope")); err != nil {
			return nil, err
		}
		own.Form.Set("scope", x.family.Scope)
	}
	return x.token(ctx, &own)
}

// errCode says that a code cannot be exchanged.
var errCode = errors.New("the code cannot be exchanged")

// openCode returns the code if the client may exchange it now, and prepares the
// family of its tokens; otherwise it fails with [errCode]. For a used code of
// the client it ends what was issued (RFC 6749 §4.1.2): either the client or
// somebody else has it from where it should not be.
func (x *exchange) openCode(ctx context.Context, code string) (AuthorizationCode, error) {
	c, err := x.tx.Code(ctx, hash(code))
	switch {
	case problem.Is(err, problem.NotFound):
		return c, errCode
	case err != nil:
		return c, err
	case c.Client != x.client.ID:
		return c, errCode
	case !c.UsedAt.IsZero():
		if err := x.endReused(ctx, c.Workspace, c.Family, "authorization_code"); err != nil {
			return c, err
		}
		return c, errCode
	case !x.now.Before(c.ExpiresAt):
		return c, errCode
	case x.resource != "" && x.resource != c.Resource:
		return c, refuse(codeInvalidTarget, "The code is for another resource")
	}
	x.family = Family{ID: typeid.NewID("fam"), Workspace: c.Workspace, Grant: c.Grant, Client: c.Client, User: c.User,
		Resource: c.Resource, Scope: c.Scope, CreatedAt: x.now, ExpiresAt: x.now.Add(AccessTTL)}
	return c, nil
}

// storeCode stores a code for the family that x describes.
func (x *exchange) storeCode(ctx context.Context, code, redirectURI, challenge, scope string) error {
	f := x.family
	return x.tx.CreateCode(ctx, AuthorizationCode{
		Hash: hash(code), Workspace: f.Workspace, Client: f.Client, User: f.User, Grant: f.Grant,
		RedirectURI: redirectURI, Challenge: challenge, Resource: f.Resource, Scope: scope,
		CreatedAt: x.now, ExpiresAt: x.now.Add(CodeTTL),
	})
}

// storeTokens stores a new family with its refresh token, which may be "". If
// the grant is not in force any more it refuses, and nothing is stored.
func (x *exchange) storeTokens(ctx context.Context, refresh string) error {
	err := x.tx.CreateFamily(ctx, x.family)
	if problem.Is(err, problem.NotFound) {
		return refuse(codeInvalidGrant, "The access was revoked in the meantime")
	}
	if err != nil {
		return err
	}
	d, err := x.inForce(ctx)
	if _, refused := errors.AsType[*refusal](err); refused {
		return errors.Join(x.tx.RevokeFamily(ctx, x.family.Workspace, x.family.ID, x.now), err)
	}
	if err != nil {
		return err
	}
	if err := x.storeRefresh(ctx, refresh); err != nil {
		return err
	}
	return x.audit(ctx, audit.TokenIssued, d, x.family.Scope)
}

func (x *exchange) storeRefresh(ctx context.Context, refresh string) error {
	if refresh == "" {
		return nil
	}
	return x.tx.CreateRefreshToken(ctx, RefreshToken{Hash: hash(refresh), Workspace: x.family.Workspace, Family: x.family.ID,
		CreatedAt: x.now, ExpiresAt: x.now.Add(RefreshTTL)})
}

// inForce returns what holds now for the family. It refuses if nothing does.
func (x *exchange) inForce(ctx context.Context) (access.Delegation, error) {
	d, err := x.delegation(ctx, x.tx, x.claims(x.family.Scope))
	if problem.Is(err, problem.Unauthorized) {
		code := codeInvalidGrant
		if x.family.User == "" {
			code = codeUnauthorizedClient
		}
		return d, refuse(code, problem.Of(err).Message)
	}
	return d, err
}

// claims returns those of a new access token of the family.
func (x *exchange) claims(scope string) *claims {
	f := x.family
	sub := f.User
	if sub == "" {
		sub = f.Client
	}
	return &claims{Issuer: x.Issuer, Audience: f.Resource, Subject: sub, Client: f.Client, Scope: scope, ID: typeid.NewID("tok"),
		IssuedAt: x.now.Unix(), ExpiresAt: x.now.Add(AccessTTL).Unix(), Grant: f.Grant, Family: f.ID, Workspace: f.Workspace}
}

// accessToken returns a new access token of the family.
func (x *exchange) accessToken(scope string) (string, error) { return x.key.sign(x.claims(scope)) }

// credentials prepares a family for a client that acts for itself (RFC 6749
// §4.4): what it may do is its ceiling, which an admin set.
func (x *exchange) credentials(ctx context.Context, scope string) error {
	resource, workspace, ok := x.Server.resource(x.resource)
	if !ok || workspace != "" && workspace != x.client.Workspace {
		return refuse(codeInvalidTarget, "The client is of another workspace than the resource")
	}
	set, err := x.scopes(scope)
	if err != nil {
		return refuse(codeInvalidScope, fmt.Sprintf("The scope is not valid: %v", err))
	}
	set.offline = false // the secret is as good as a refresh token (RFC 6749 §4.4.3)
	g, err := x.tx.GrantOf(ctx, x.client.Workspace, x.client.ID, "")
	switch {
	case problem.Is(err, problem.NotFound):
		g, err = x.tx.SaveGrant(ctx, Grant{ID: typeid.NewID("grt"), Workspace: x.client.Workspace, Client: x.client.ID,
			ClientName: x.client.Name, CreatedAt: x.now, ConsentedAt: x.now})
		if problem.Is(err, problem.NotFound) {
			return refuseClient(x.basic, "The client was removed in the meantime")
		}
		if err != nil {
			return err
		}
	case err != nil:
		return err
	case !g.RevokedAt.IsZero():
		return refuse(codeUnauthorizedClient, "The client's access to the workspace is revoked; with a new secret it is given back")
	}
	x.family = Family{ID: typeid.NewID("fam"), Workspace: g.Workspace, Grant: g.ID, Client: x.client.ID,
		Resource: resource, Scope: set.String(), CreatedAt: x.now, ExpiresAt: x.now.Add(AccessTTL)}
	return nil
}

// An issuance is what a refresh gives.
type issuance struct{ access, refresh, scope string }

// refresh exchanges a refresh token (RFC 6749 §6, OAuth 2.1 §4.3). That of a
// public client is spent, and comes back as a new one; whoever shows it again
// later has it from where it should not be, so the family ends. Several windows
// of one client refresh at once, so for a while a spent token gives a sibling.
func (x *exchange) refresh(ctx context.Context, token, scope string) (issuance, error) {
	stored, family, err := x.tx.RefreshToken(ctx, hash(token))
	if problem.Is(err, problem.NotFound) || err == nil && family.Client != x.client.ID {
		return issuance{}, refuse(codeInvalidGrant, "The refresh token is not valid")
	}
	if err != nil {
		return issuance{}, err
	}
	x.family = family
	if x.pastGrace(stored.SpentAt) {
		return issuance{}, x.reused(ctx)
	}
	switch {
	case !family.RevokedAt.IsZero():
		return issuance{}, refuse(codeInvalidGrant, "The refresh token is revoked")
	case !x.now.Before(stored.ExpiresAt):
		return issuance{}, refuse(codeInvalidGrant, "The refresh token is expired")
	case x.resource != "" && x.resource != family.Resource:
		return issuance{}, refuse(codeInvalidTarget, "The refresh token is for another resource")
	}
	d, err := x.inForce(ctx)
	if err != nil {
		return issuance{}, err
	}
	narrowed, err := x.narrow(family.Scope, scope)
	if err != nil {
		return issuance{}, refuse(codeInvalidScope, fmt.Sprintf("The scope is not valid: %v", err))
	}
	next, err := x.rotate(ctx, token, stored)
	if err != nil {
		return issuance{}, err
	}
	signed, err := x.accessToken(narrowed)
	if err != nil {
		return issuance{}, err
	}
	return issuance{access: signed, refresh: next, scope: narrowed}, x.audit(ctx, audit.TokenRefreshed, d, narrowed)
}

// rotate spends the token and returns the one that follows. A client that
// authenticates keeps its token: nobody else can use it.
func (x *exchange) rotate(ctx context.Context, token string, stored RefreshToken) (string, error) {
	if !x.client.Public() {
		return token, x.tx.ProlongRefreshToken(ctx, stored.Hash, x.now.Add(RefreshTTL))
	}
	spent := !stored.SpentAt.IsZero()
	if !spent {
		err := x.tx.SpendRefreshToken(ctx, stored.Hash, x.now)
		if spent = problem.Is(err, problem.Conflict); err != nil && !spent {
			return "", err
		}
		if spent && x.pastGrace(x.now) {
			return "", x.reused(ctx)
		}
	}
	if spent {
		// Too many are no proof of a theft, so the family goes on.
		err := x.tx.CountSibling(ctx, stored.Hash, maxSiblings)
		if problem.Is(err, problem.Conflict) {
			return "", refuse(codeInvalidGrant, "The refresh token was used too often; use the one that it gave")
		}
		if err != nil {
			return "", err
		}
	}
	next := newRefreshToken()
	return next, x.storeRefresh(ctx, next)
}

// pastGrace reports whether a token that was spent then gives no sibling.
func (x *exchange) pastGrace(spent time.Time) bool {
	return !spent.IsZero() && !x.now.Before(spent.Add(x.Grace))
}

// reused ends the family of a spent token that came back.
func (x *exchange) reused(ctx context.Context) error {
	if err := x.endReused(ctx, x.family.Workspace, x.family.ID, "refresh_token"); err != nil {
		return err
	}
	return refuse(codeInvalidGrant, "The refresh token was used before, so the access has ended; connect again")
}

// endReused ends a family because a code or token came back.
func (x *exchange) endReused(ctx context.Context, workspace, family, what string) error {
	f, err := x.tx.Family(ctx, workspace, family)
	if problem.Is(err, problem.NotFound) || err == nil && !f.RevokedAt.IsZero() {
		return nil // nothing was issued, or it has ended
	}
	if err != nil {
		return err
	}
	err = x.tx.RevokeFamily(ctx, workspace, family, x.now)
	if problem.Is(err, problem.NotFound) {
		return nil // its client was removed this moment
	}
	if err != nil {
		return err
	}
	x.family = f
	return x.auditAs(ctx, audit.TokenReused, x.principal(), map[string]any{"client": f.Client, "grant": f.Grant, "what": what})
}

// principal returns the credential as it is known without its delegation, which
// may be gone.
func (x *exchange) principal() access.Principal {
	return access.Principal{Kind: access.KindOAuth, ID: x.family.Grant, Name: x.client.Name, User: x.family.User, Client: x.client.ID}
}

// audit records what happened to the family's tokens.
func (x *exchange) audit(ctx context.Context, event audit.Event, d access.Delegation, scope string) error {
	by := d.Grant(nil, x.RoleRights).Principal
	return x.auditAs(ctx, event, by, map[string]any{"client": x.family.Client, "grant": x.family.Grant, "resource": x.family.Resource, "scope": scope})
}

func (x *exchange) auditAs(ctx context.Context, event audit.Event, by access.Principal, detail map[string]any) error {
	return record(ctx, x.tx, x.now, "oauth", event, by, x.family.Workspace, x.family.ID, detail)
}

// record writes one entry to the workspace's log.
func record(ctx context.Context, tx Store, now time.Time, door string, event audit.Event, by access.Principal, workspace, target string, detail map[string]any) error {
	d, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("audit %s: %w", event, err)
	}
	return tx.Audit(ctx, audit.Entry{Workspace: workspace, Time: now, Actor: by.Actor(), Event: event, Target: target,
		Door: door, Request: access.RequestID(ctx), Detail: d})
}
