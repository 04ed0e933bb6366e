package oauth

import (
	"context"
	"errors"
	"net/http"

	"trustpager/audit"
	"trustpager/problem"
)

// shown reads a request about a token, and authenticates the client.
func (s *Server) shown(w http.ResponseWriter, r *http.Request, endpoint string) (Client, identity, string, error) {
	form, err := readForm(w, r)
	if err != nil {
		return Client{}, identity{}, "", err
	}
	who, err := identify(r, form)
	if err != nil {
		return Client{}, who, "", err
	}
	if err := throttle(&s.byAddress, endpoint+" "+s.Address(r)); err != nil {
		return Client{}, who, "", err
	}
	client, err := s.authenticate(r.Context(), who)
	if err != nil {
		return Client{}, who, "", err
	}
	if !form.Has("token") {
		return Client{}, who, "", refuse(codeInvalidRequest, "The parameter token is missing")
	}
	return client, who, form.Get("token"), nil
}

// serveRevoke ends the family of a token (RFC 7009). For a token that is not
// known, or is another client's, the answer is the same: nothing is left to do
// for the one that asks.
func (s *Server) serveRevoke(w http.ResponseWriter, r *http.Request) error {
	client, _, token, err := s.shown(w, r, "revoke")
	if err != nil {
		return err
	}
	c, err := s.read(r.Context(), token)
	if err != nil && !errors.Is(err, errNotOurs) {
		return err
	}
	err = s.InTx(r.Context(), func(tx Store) error {
		x := &exchange{Server: s, tx: tx, client: client, now: s.Now()}
		found, err := x.familyOf(r.Context(), token, c)
		if err != nil || !found {
			return err
		}
		err = tx.RevokeFamily(r.Context(), x.family.Workspace, x.family.ID, x.now)
		if problem.Is(err, problem.NotFound) {
			return nil // its client was removed this moment
		}
		if err != nil {
			return err
		}
		return x.auditAs(r.Context(), audit.TokenRevoked, x.principal(), map[string]any{"client": client.ID, "grant": x.family.Grant})
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

// familyOf looks for the family of the client's token, which is an access token
// if it has claims, and reports whether it is in force.
func (x *exchange) familyOf(ctx context.Context, token string, c *claims) (bool, error) {
	var err error
	if c != nil {
		x.family, err = x.tx.Family(ctx, c.Workspace, c.Family)
	} else {
		_, x.family, err = x.tx.RefreshToken(ctx, hash(token))
	}
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	return err == nil && x.family.Client == x.client.ID && x.family.RevokedAt.IsZero(), err
}

// An introspection says what a token is at the moment (RFC 7662 §2.2).
type introspection struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	Client    string `json:"client_id,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	ExpiresAt int64  `json:"exp,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	ID        string `json:"jti,omitempty"`
}

// serveIntrospect tells a client about its own tokens (RFC 7662). A public one
// is not told, since anybody could ask in its name.
func (s *Server) serveIntrospect(w http.ResponseWriter, r *http.Request) error {
	client, who, token, err := s.shown(w, r, "introspect")
	if err != nil {
		return err
	}
	if client.Public() {
		return refuseClient(who.basic, "Only a client with a secret may ask")
	}
	ctx := r.Context()
	c, err := s.read(ctx, token)
	if err != nil && !errors.Is(err, errNotOurs) {
		return err
	}
	var found introspection
	if c != nil {
		found, err = s.introspectAccess(ctx, &client, c)
	} else {
		found, err = s.introspectRefresh(ctx, &client, token)
	}
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, found)
}

func (s *Server) introspectAccess(ctx context.Context, client *Client, c *claims) (introspection, error) {
	if c.Client != client.ID || !s.Now().Before(c.expiry()) {
		return introspection{}, nil
	}
	if active, err := s.active(ctx, c); !active {
		return introspection{}, err
	}
	return introspection{Active: true, Scope: c.Scope, Client: c.Client, TokenType: "Bearer", ExpiresAt: c.ExpiresAt,
		IssuedAt: c.IssuedAt, Subject: c.Subject, Audience: c.Audience, Issuer: c.Issuer, ID: c.ID}, nil
}

func (s *Server) introspectRefresh(ctx context.Context, client *Client, token string) (introspection, error) {
	t, f, err := s.Store.RefreshToken(ctx, hash(token))
	if problem.Is(err, problem.NotFound) {
		return introspection{}, nil
	}
	if err != nil {
		return introspection{}, err
	}
	if f.Client != client.ID || !t.SpentAt.IsZero() || !s.Now().Before(t.ExpiresAt) {
		return introspection{}, nil
	}
	x := &exchange{Server: s, client: *client, now: s.Now(), family: f}
	c := x.claims(f.Scope)
	if active, err := s.active(ctx, c); !active {
		return introspection{}, err
	}
	return introspection{Active: true, Scope: f.Scope, Client: f.Client, TokenType: "refresh_token", ExpiresAt: t.ExpiresAt.Unix(),
		IssuedAt: t.CreatedAt.Unix(), Subject: c.Subject, Audience: f.Resource, Issuer: s.Issuer}, nil
}

// active reports whether what a token stands for is in force.
func (s *Server) active(ctx context.Context, c *claims) (bool, error) {
	_, err := s.delegation(ctx, s.Store, c)
	if problem.Is(err, problem.Unauthorized) {
		return false, nil
	}
	return err == nil, err
}
