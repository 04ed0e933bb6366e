package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-oauth2/oauth2/v4"
	liberrors "github.com/go-oauth2/oauth2/v4/errors"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
)

// This file and tokens.go are all that knows go-oauth2. Of its server only the
// steps between the HTTP handlers are used: its handlers redirect to unchecked
// URIs, and authenticate clients too late or not at all.

// A manager is the library's, except that a refresh is ours: the library's
// neither knows whose token it is, nor notices that one is used twice.
type manager struct {
	*manage.Manager
	x *exchange
}

// RefreshAccessToken exchanges a refresh token for new tokens.
func (m *manager) RefreshAccessToken(ctx context.Context, req *oauth2.TokenGenerateRequest) (oauth2.TokenInfo, error) {
	issued, err := m.x.refresh(ctx, req.Refresh, req.Scope)
	if err != nil {
		return nil, err
	}
	t := models.NewToken()
	t.SetClientID(req.ClientID)
	t.SetScope(issued.scope)
	t.SetAccess(issued.access)
	t.SetAccessExpiresIn(AccessTTL)
	t.SetRefresh(issued.refresh)
	return t, nil
}

// library returns the library's server for one exchange. It is cheap to make,
// and all that it stores joins the exchange's transaction.
func (x *exchange) library() *server.Server {
	m := manage.NewManager()
	m.SetAuthorizeCodeExp(CodeTTL)
	m.SetAuthorizeCodeTokenCfg(&manage.Config{
		AccessTokenExp: AccessTTL, RefreshTokenExp: RefreshTTL, IsGenerateRefresh: slices.Contains(x.client.GrantTypes, GrantRefresh),
	})
	m.SetClientTokenCfg(&manage.Config{AccessTokenExp: AccessTTL})
	m.MapClientStorage(clients{x})
	m.MapTokenStorage(tokens{x})
	m.MapAuthorizeGenerate(codes{})
	m.MapAccessGenerate(accessTokens{x})
	m.SetValidateURIHandler(func(_, uri string) error {
		if !matchRedirect(x.client.RedirectURIs, uri) {
			return liberrors.ErrInvalidRedirectURI
		}
		return nil
	})
	srv := server.NewServer(libraryConfig(), &manager{m, x})
	// The client is authenticated before the library is asked.
	srv.ClientInfoHandler = func(*http.Request) (string, string, error) { return x.client.ID, "", nil }
	srv.ClientAuthorizedHandler = func(_ string, grant oauth2.GrantType) (bool, error) {
		return slices.Contains(x.client.GrantTypes, grant.String()), nil
	}
	return srv
}

func libraryConfig() *server.Config {
	return &server.Config{
		TokenType:                   "Bearer",
		AllowedResponseTypes:        []oauth2.ResponseType{oauth2.Code},
		AllowedGrantTypes:           []oauth2.GrantType{oauth2.AuthorizationCode, oauth2.Refreshing, oauth2.ClientCredentials},
		AllowedCodeChallengeMethods: []oauth2.CodeChallengeMethod{oauth2.CodeChallengeS256},
		ForcePKCE:                   true,
	}
}

// token answers a token request whose client is authenticated and whose form is
// read. What the client may be told is a [*refusal].
func (x *exchange) token(ctx context.Context, r *http.Request) (map[string]any, error) {
	srv := x.library()
	grant, req, err := srv.ValidationTokenRequest(r)
	if err != nil {
		return nil, refusalOf(err)
	}
	info, err := srv.GetAccessToken(ctx, grant, req)
	if err != nil {
		return nil, refusalOf(err)
	}
	return srv.GetTokenData(info), nil
}

// authorize stores a code for the exchange's consent, and returns it.
func (x *exchange) authorize(ctx context.Context, redirectURI, challenge, scope string) (string, error) {
	info, err := x.library().GetAuthorizeToken(ctx, &server.AuthorizeRequest{
		ResponseType:        oauth2.Code,
		ClientID:            x.client.ID,
		RedirectURI:         redirectURI,
		Scope:               scope,
		UserID:              x.family.User,
		CodeChallenge:       challenge,
		CodeChallengeMethod: oauth2.CodeChallengeS256,
	})
	if err != nil {
		return "", refusalOf(err)
	}
	return info.GetCode(), nil
}

// checkAuthorization lets the library look at an authorization request that we
// have found good.
func checkAuthorization(query url.Values) error {
	srv := server.NewServer(libraryConfig(), nil)
	_, err := srv.ValidationAuthorizeRequest(&http.Request{Method: http.MethodGet, Form: query})
	return refusalOf(err)
}

// A refusalLine says how an error of the library is told.
type refusalLine struct {
	err         error
	code        string
	description string
}

// refusals has a line for each error that the library may return here. The
// library compares its own with ==, so what it is given wraps nothing.
var refusals = []refusalLine{
	{liberrors.ErrInvalidGrant, codeInvalidGrant, "The code or refresh token is not valid, expired, used, revoked, or not this client's, or the verifier is wrong"},
	{liberrors.ErrInvalidAuthorizeCode, codeInvalidGrant, "The code is not valid"},
	{liberrors.ErrInvalidRedirectURI, codeInvalidGrant, "The redirect_uri is not one of the client's"},
	{liberrors.ErrMissingCodeVerifier, codeInvalidGrant, "The code_verifier is missing"},
	{liberrors.ErrInvalidScope, codeInvalidScope, "The scope is not valid, or more than was granted"},
	{liberrors.ErrInvalidRequest, codeInvalidRequest, "A parameter is missing or not valid"},
	{liberrors.ErrUnauthorizedClient, codeUnauthorizedClient, "The client may not use this grant type"},
	{liberrors.ErrUnsupportedGrantType, codeUnsupportedGrantType, "The grant type is not offered"},
	{liberrors.ErrUnsupportedResponseType, codeInvalidRequest, "The response_type is missing"},
	{liberrors.ErrCodeChallengeRquired, codeInvalidRequest, "The code_challenge is missing"},
	{liberrors.ErrInvalidCodeChallengeLen, codeInvalidRequest, "The code_challenge has a wrong length"},
	{liberrors.ErrUnsupportedCodeChallengeMethod, codeInvalidRequest, "The code_challenge_method has to be S256"},
}

// refusalOf returns what the client is told of an error of the library. What is
// a refusal already stays, and so does what is a fault of the server.
func refusalOf(err error) error {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return refuse(r.code, r.description)
		}
	}
	return err
}

// codeInfo returns a stored code as the library knows one. The library measures
// a code's age by the machine's clock. We have measured it by ours, so the code
// shows as made just now.
func codeInfo(code string, c AuthorizationCode) oauth2.TokenInfo {
	t := models.NewToken()
	t.SetClientID(c.Client)
	t.SetUserID(c.User)
	t.SetRedirectURI(c.RedirectURI)
	t.SetScope(c.Scope)
	t.SetCode(code)
	t.SetCodeCreateAt(time.Now())
	t.SetCodeExpiresIn(CodeTTL)
	t.SetCodeChallenge(c.Challenge)
	t.SetCodeChallengeMethod(oauth2.CodeChallengeS256)
	return t
}
