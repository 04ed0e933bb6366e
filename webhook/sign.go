package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a delivery (Standard Webhooks).
const (
	HeaderID        = "webhook-id"        // stable over retries
	HeaderTimestamp = "webhook-timestamp" // of this attempt, unix seconds
	HeaderSignature = "webhook-signature" // one or more, separated by spaces
)

// tolerance is how far the timestamp of a delivery may be from the receiver's
// clock.
const tolerance = 5 * time.Minute

const (
	secretPrefix = "whsec_"
	secretSize   = 32
)

// A Secret is the key that deliveries to one endpoint are signed with. It does
// not show itself in logs or formatted text; Text does that once.
type Secret []byte

// NewSecret returns a new random secret.
func NewSecret() Secret {
	s := make(Secret, secretSize)
	rand.Read(s) // never fails
	return s
}

// ParseSecret reads a secret as [Secret.Text] shows it.
func ParseSecret(text string) (Secret, error) {
	b64, ok := strings.CutPrefix(text, secretPrefix)
	s, err := base64.StdEncoding.Strict().DecodeString(b64)
	if !ok || err != nil || len(s) < 24 || len(s) > 64 { // as the specification asks
		return nil, errors.New("a webhook secret is whsec_ and 24 to 64 bytes in base64")
	}
	return s, nil
}

// Text returns the secret as it is shown to its owner: whsec_ and base64. It is
// "" for no secret.
func (s Secret) Text() string {
	if s == nil {
		return ""
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(s)
}

// Format prints a placeholder for every verb.
func (Secret) Format(f fmt.State, _ rune) { f.Write([]byte(secretPrefix + "…")) }

// LogValue keeps the secret out of logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(secretPrefix + "…") }

// MarshalText keeps the secret out of JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(secretPrefix + "…"), nil }

// Sign returns the signature of one attempt, "v1," and the base64 of the
// HMAC-SHA256 over id, time and body.
func Sign(secret Secret, id string, at time.Time, body []byte) string {
	return "v1," + base64.StdEncoding.EncodeToString(mac(secret, id, at, body))
}

func mac(secret Secret, id string, at time.Time, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%s.%d.", id, at.Unix())
	h.Write(body)
	return h.Sum(nil)
}

// Verify reports whether one of the signatures, which are separated by spaces,
// is that of the secret. It says nothing about the time; see [VerifyRequest].
func Verify(secret Secret, id string, at time.Time, body []byte, signatures string) bool {
	if len(secret) == 0 {
		return false
	}
	want := mac(secret, id, at, body)
	ok := false
	for _, s := range strings.Split(signatures, " ") {
		b64, v1 := strings.CutPrefix(s, "v1,")
		got, err := base64.StdEncoding.DecodeString(b64)
		ok = v1 && err == nil && hmac.Equal(got, want) || ok
	}
	return ok
}

// VerifyRequest checks a delivery as its receiver should: the signature, and
// that its time is within five minutes of now.
func VerifyRequest(secret Secret, h http.Header, body []byte, now time.Time) error {
	seconds, err := strconv.ParseInt(h.Get(HeaderTimestamp), 10, 64)
	if err != nil || h.Get(HeaderID) == "" {
		return errors.New("verify webhook: the headers webhook-id and webhook-timestamp are missing or malformed")
	}
	at := time.Unix(seconds, 0)
	if d := now.Sub(at); d > tolerance || d < -tolerance {
		return errors.New("verify webhook: its time is more than five minutes from now")
	}
	if !Verify(secret, h.Get(HeaderID), at, body, h.Get(HeaderSignature)) {
		return errors.New("verify webhook: no signature is that of the secret")
	}
	return nil
}
