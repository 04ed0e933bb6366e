package oauth

import (
	"context"
	"maps"

	"github.com/golang-jwt/jwt/v5"
)

// What tests reach of the inside.
var (
	MatchRedirect = matchRedirect
	RedirectHost  = redirectHost
	Location      = location
	Refusals      = refusals
)

// Narrow applies the rule of refresh scopes.
func (s *Server) Narrow(original, asked string) (string, error) { return s.narrow(original, asked) }

// Sign signs any claims under any header with the current key.
func (s *Server) Sign(ctx context.Context, header, claims map[string]any) (string, error) {
	k, err := s.signer(ctx)
	if err != nil {
		return "", err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims(claims))
	t.Header["typ"], t.Header["kid"] = tokenType, k.ID
	maps.Copy(t.Header, header)
	return t.SignedString(k.private)
}

// Claims returns the claims of a token without looking at its signature.
func Claims(token string) map[string]any {
	c := jwt.MapClaims{}
	jwt.NewParser().ParseUnverified(token, c)
	return c
}

// PublicKey returns the current key's id and public part.
func (s *Server) PublicKey(ctx context.Context) (string, []byte) {
	k, err := s.signer(ctx)
	if err != nil {
		panic(err)
	}
	return k.ID, k.Public
}

// StartFetch waits for one of the fetches of metadata documents.
func StartFetch(ctx context.Context, s *Server) error { return s.startFetch(ctx) }

// FetchServer returns a server that can do nothing but wait for fetches, all of
// which run.
func FetchServer() *Server {
	s := &Server{fetching: make(chan struct{}, maxFetches)}
	for range maxFetches {
		s.fetching <- struct{}{}
	}
	return s
}

// EndFetch ends one of the fetches.
func EndFetch(s *Server) { <-s.fetching }

// ErrBusy says that a document was not fetched because of our own limits.
var ErrBusy = errBusy

// Err returns the library's error of a line of the table.
func (r refusalLine) Err() error { return r.err }

// Code returns the code of a line of the table.
func (r refusalLine) Code() string { return r.code }

// RefusalOf returns what a client is told of an error.
var RefusalOf = refusalOf
