package oauth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	keyLife  = 90 * 24 * time.Hour // after which a signing key gets a successor
	keyAhead = 24 * time.Hour      // in which the successor is published before it signs
	keySlack = time.Hour           // for nodes that still sign with the one before: clocks, and keysFresh
)

const (
	keysFresh = 5 * time.Minute  // how long the keys that were read serve
	keysAgain = 10 * time.Second // between two readings for unknown keys, so that garbage costs no queries
)

// KeyPlace is the context that the private half of a signing key is sealed for.
func KeyPlace(id string) string { return "oauth signing key " + id }

// A signer is a signing key, opened.
type signer struct {
	SigningKey
	private ed25519.PrivateKey
}

// verifies reports whether tokens that the key signed are still accepted.
func (k *signer) verifies(now time.Time) bool {
	return k.RetiredAt.IsZero() || now.Before(k.RetiredAt)
}

// A keyring holds the signing keys as they were last read.
type keyring struct {
	mu     sync.Mutex
	keys   []signer // oldest first
	readAt time.Time
}

// load reads the keys. The caller holds the lock.
func (s *Server) load(ctx context.Context) error {
	now := s.Now()
	stored, err := s.Store.SigningKeys(ctx, now)
	if err != nil {
		return err
	}
	keys := make([]signer, len(stored))
	for i, k := range stored {
		seed, err := s.Sealer.Open(k.Private, KeyPlace(k.ID))
		if err != nil {
			return fmt.Errorf("signing key %s: %w", k.ID, err)
		}
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("signing key %s: its seed has %d bytes", k.ID, len(seed))
		}
		keys[i] = signer{k, ed25519.NewKeyFromSeed(seed)}
	}
	s.keys.keys, s.keys.readAt = keys, now
	return nil
}

// current returns the keys, read again if that was longer ago than fresh. The
// caller must not change them.
func (s *Server) current(ctx context.Context, fresh time.Duration) ([]signer, error) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	age := s.Now().Sub(s.keys.readAt)
	if len(s.keys.keys) > 0 && age >= 0 && age < fresh {
		return s.keys.keys, nil
	}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	return s.keys.keys, nil
}

// signer returns the key that signs now.
func (s *Server) signer(ctx context.Context) (signer, error) {
	keys, err := s.current(ctx, keysFresh)
	if err != nil {
		return signer{}, err
	}
	if len(keys) == 0 {
		return signer{}, errors.New("there is no signing key")
	}
	// The clock of the node that made the first key may be ahead of this one.
	best := keys[0]
	for _, k := range keys[1:] {
		if !s.Now().Before(k.ActiveAt) {
			best = k
		}
	}
	return best, nil
}

// verifier returns the public key of the given id, if what it signed is still
// accepted. For an unknown id it looks whether another node has made it.
func (s *Server) verifier(ctx context.Context, id string) (ed25519.PublicKey, error) {
	for _, fresh := range []time.Duration{keysFresh, keysAgain} {
		keys, err := s.current(ctx, fresh)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if k.ID == id && k.verifies(s.Now()) {
				return ed25519.PublicKey(k.Public), nil
			}
		}
	}
	return nil, errUnknownKey
}

var errUnknownKey = errors.New("the token is signed with no key of this server")

// RotateKeys makes a new signing key when the newest is due for it. It is
// called about once an hour.
//
// The successor is published a day before it signs, so that whoever keeps the
// key set has it by then; the one before verifies until the last token that it
// may have signed is over.
func (s *Server) RotateKeys(ctx context.Context) error {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return err
	}
	now := s.Now()
	k, after := SigningKey{CreatedAt: now, ActiveAt: now}, ""
	if n := len(s.keys.keys); n > 0 {
		newest := s.keys.keys[n-1]
		if now.Before(newest.ActiveAt.Add(keyLife - keyAhead)) {
			return nil
		}
		after, k.ActiveAt = newest.ID, now.Add(keyAhead)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	k.ID, k.Public = rand.Text(), public
	if k.Private, err = s.Sealer.Seal(private.Seed(), KeyPlace(k.ID)); err != nil {
		return err
	}
	// Whether this node's key has won or another's, the keys are read again.
	if _, err := s.Store.AddSigningKey(ctx, k, after, k.ActiveAt.Add(AccessTTL+keySlack)); err != nil {
		return err
	}
	return s.load(ctx)
}

// keySet answers with the public keys (RFC 7517, RFC 8037).
func (s *Server) keySet(r *http.Request) (any, error) {
	keys, err := s.current(r.Context(), keysFresh)
	if err != nil {
		return nil, err
	}
	type jwk struct {
		KeyType   string `json:"kty"`
		Curve     string `json:"crv"`
		X         string `json:"x"`
		ID        string `json:"kid"`
		Use       string `json:"use"`
		Algorithm string `json:"alg"`
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, k := range keys {
		if k.verifies(s.Now()) {
			set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", base64.RawURLEncoding.EncodeToString(k.Public), k.ID, "sig", "EdDSA"})
		}
	}
	return set, nil
}
