package oauth

import (
	"context"
	"errors"

	"github.com/go-oauth2/oauth2/v4"
	liberrors "github.com/go-oauth2/oauth2/v4/errors"

	"trustpager/problem"
)

// clients shows the library the one client of an exchange.
type clients struct{ x *exchange }

// GetByID returns the exchange's client.
func (c clients) GetByID(_ context.Context, id string) (oauth2.ClientInfo, error) {
	if id != c.x.client.ID {
		return nil, liberrors.ErrInvalidClient
	}
	return clientInfo{&c.x.client}, nil
}

// clientInfo is a client as the library knows one.
type clientInfo struct{ c *Client }

func (i clientInfo) GetID() string     { return i.c.ID }
func (i clientInfo) GetSecret() string { return "" }
func (i clientInfo) GetDomain() string { return "" }
func (i clientInfo) IsPublic() bool    { return i.c.Public() }
func (i clientInfo) GetUserID() string { return "" }

// VerifyPassword reports true: the client was authenticated before the library
// was asked, which would compare secrets in the clear.
func (i clientInfo) VerifyPassword(string) bool { return true }

// codes makes authorization codes.
type codes struct{}

// Token returns a new code.
func (codes) Token(context.Context, *oauth2.GenerateBasic) (string, error) { return randomToken(), nil }

// accessTokens makes tokens for the family of an exchange.
type accessTokens struct{ x *exchange }

// Token returns an access token, and a refresh token if one is asked for.
func (a accessTokens) Token(_ context.Context, data *oauth2.GenerateBasic, refresh bool) (string, string, error) {
	access, err := a.x.accessToken(data.TokenInfo.GetScope())
	if err != nil || !refresh {
		return access, "", err
	}
	return access, newRefreshToken(), nil
}

// errNotStored says that the library asked for what it has no part in.
var errNotStored = errors.New("access tokens are not stored")

// tokens is the library's way to the store of an exchange.
type tokens struct{ x *exchange }

// Create stores a code, or the family of new tokens.
func (t tokens) Create(ctx context.Context, info oauth2.TokenInfo) error {
	if code := info.GetCode(); code != "" {
		return t.x.storeCode(ctx, code, info.GetRedirectURI(), info.GetCodeChallenge(), info.GetScope())
	}
	return t.x.storeTokens(ctx, info.GetRefresh())
}

// GetByCode returns a code that the client may exchange now. Codes that it may
// not are all the same to the library; for a used one the tokens that were
// issued for it end.
func (t tokens) GetByCode(ctx context.Context, code string) (oauth2.TokenInfo, error) {
	c, err := t.x.openCode(ctx, code)
	if errors.Is(err, errCode) {
		return nil, liberrors.ErrInvalidAuthorizeCode
	}
	if err != nil {
		return nil, err
	}
	return codeInfo(code, c), nil
}

// RemoveByCode marks the code as used. Of several redeemers one succeeds. The
// library compares the error with ==, so it is not wrapped.
func (t tokens) RemoveByCode(ctx context.Context, code string) error {
	err := t.x.tx.TakeCode(ctx, hash(code), t.x.family.ID, t.x.now)
	if problem.Is(err, problem.Conflict) {
		if _, err := t.x.openCode(ctx, code); err != nil && !errors.Is(err, errCode) {
			return err
		}
		return liberrors.ErrInvalidAuthorizeCode
	}
	if problem.Is(err, problem.NotFound) { // revoked this moment
		return liberrors.ErrInvalidAuthorizeCode
	}
	return err
}

// RemoveByAccess is not used: access tokens are not stored.
func (tokens) RemoveByAccess(context.Context, string) error { return errNotStored }

// RemoveByRefresh is not used: refresh tokens are spent by [exchange.refresh].
func (tokens) RemoveByRefresh(context.Context, string) error { return errNotStored }

// GetByAccess is not used: access tokens are not stored.
func (tokens) GetByAccess(context.Context, string) (oauth2.TokenInfo, error) {
	return nil, errNotStored
}

// GetByRefresh is not used: refresh tokens are read by [exchange.refresh].
func (tokens) GetByRefresh(context.Context, string) (oauth2.TokenInfo, error) {
	return nil, errNotStored
}
