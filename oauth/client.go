package oauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"trustpager/problem"
)

// maxClientID bounds a client id, which may be a URL.
const maxClientID = 2000

// A ClientSecret is the secret of a client. It is shown once and never stored.
type ClientSecret string

// ClientSecretPrefix begins the secret of every client, so that scanners find
// leaked ones.
const ClientSecretPrefix = "tpcs_"

// NewClientSecret returns a new secret: the prefix and 260 random bits.
func NewClientSecret() ClientSecret {
	return ClientSecret(ClientSecretPrefix + rand.Text() + rand.Text())
}

// Hash returns what is stored of s: its SHA-256 in hex. A slow hash would buy
// nothing, since s is random.
func (s ClientSecret) Hash() string { return hash(string(s)) }

// hidden stands for a secret wherever one is printed.
const hidden = "[secret]"

// Format prints [secret], whatever the verb: only a conversion to string shows
// a secret.
func (s ClientSecret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue keeps the secret out of logs.
func (s ClientSecret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText keeps the secret out of JSON that was not meant to show it.
func (s ClientSecret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// hash returns the SHA-256 of a secret in hex, as it is stored.
func hash(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

// maxName is how long a client's name may be, in characters.
const maxName = 100

// ClientName returns a client's name as it is kept and shown: in composed form,
// without control, formatting and bidirectional characters, on one line, and
// not too long. Clients choose their names themselves.
func ClientName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.Is(unicode.C, r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, norm.NFC.String(strings.ToValidUTF8(name, "")))
	name = strings.Join(strings.Fields(name), " ")
	if runes := []rune(name); len(runes) > maxName {
		name = strings.TrimSpace(string(runes[:maxName]))
	}
	if name == "" {
		return "Unnamed client"
	}
	return name
}

// clientURI returns the page of a client if it can be linked to, otherwise "".
func clientURI(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(raw) > maxRedirectURI {
		return ""
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return raw
}

// matches reports whether the secret is the client's, or the one before within
// its overlap. It takes the same time wherever they differ.
func (s *Server) matches(c *Client, secret string) bool {
	h := []byte(hash(secret))
	current := subtle.ConstantTimeCompare(h, []byte(c.SecretHash)) == 1
	old := subtle.ConstantTimeCompare(h, []byte(c.OldSecretHash)) == 1 && s.Now().Before(c.OldUntil)
	return current || old
}

// An identity is what a request says about its client (RFC 6749 §2.3).
type identity struct {
	id, secret string
	basic      bool
}

// identify reads who the client says it is: from the header, form-decoded, or
// from the body. Other schemes than Basic say nothing about a client.
func identify(r *http.Request, form url.Values) (identity, error) {
	who := identity{id: form.Get("client_id"), secret: form.Get("client_secret")}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return who, nil
	}
	user, password, ok := r.BasicAuth()
	id, err1 := url.QueryUnescape(user)
	secret, err2 := url.QueryUnescape(password)
	switch {
	case !ok || err1 != nil || err2 != nil || !text(id):
		return identity{basic: true}, refuseClient(true, "The Authorization header is not of the form Basic, with id and secret form-encoded")
	case who.secret != "":
		return identity{basic: true}, refuse(codeInvalidRequest, "The client authenticates in the header and in the body; use one of them")
	case who.id != "" && who.id != id:
		return identity{basic: true}, refuse(codeInvalidRequest, "The client_id in the body is not the one in the header")
	}
	return identity{id: id, secret: secret, basic: true}, nil
}

// authenticate returns the client of a request. A client that has a secret must
// send it, either way; one that has none must not. A client that is not known,
// perhaps any more, is refused like one with a wrong secret, so that it
// registers anew.
func (s *Server) authenticate(ctx context.Context, who identity) (Client, error) {
	if who.id == "" || len(who.id) > maxClientID {
		return Client{}, refuseClient(who.basic, "The client_id is missing")
	}
	c, err := s.Store.Client(ctx, who.id)
	if problem.Is(err, problem.NotFound) {
		return Client{}, refuseClient(who.basic, "The client is not known here; register it again")
	}
	if err != nil {
		return Client{}, err
	}
	if c.Public() {
		if who.secret != "" {
			return Client{}, refuseClient(who.basic, "The client is public and has no secret; send none")
		}
		return c, nil
	}
	if who.secret == "" || !s.matches(&c, who.secret) {
		return Client{}, refuseClient(who.basic, "The client secret is missing or wrong")
	}
	return c, nil
}
