package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/big"
	"strings"
)

// SecretPrefix begins the secret of every API key, so that scanners find
// leaked ones.
const SecretPrefix = "tp_live_"

const (
	base62      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomLen   = 43 // characters that 256 bits take in base 62
	checksumLen = 6  // characters that 32 bits take
)

// A Secret is the text of an API key. It is shown once and never stored.
type Secret string

// NewSecret returns a new secret: the prefix, 256 random bits in base 62, and
// a CRC-32 of both, so that typing errors are found without a database.
func NewSecret() Secret {
	var b [32]byte
	rand.Read(b[:]) // never fails
	body := SecretPrefix + encode62(new(big.Int).SetBytes(b[:]), randomLen)
	return Secret(body + checksum(body))
}

func encode62(n *big.Int, width int) string {
	out := make([]byte, width)
	mod, base := new(big.Int), big.NewInt(62)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, mod)
		out[i] = base62[mod.Int64()]
	}
	return string(out)
}

func checksum(body string) string {
	n := crc32.ChecksumIEEE([]byte(body))
	var out [checksumLen]byte
	for i := checksumLen - 1; i >= 0; i-- {
		out[i] = base62[n%62]
		n /= 62
	}
	return string(out[:])
}

// WellFormed reports whether s has the form and the checksum of a secret.
func (s Secret) WellFormed() bool {
	const length = len(SecretPrefix) + randomLen + checksumLen
	if len(s) != length || !strings.HasPrefix(string(s), SecretPrefix) {
		return false
	}
	body := string(s[:length-checksumLen])
	return checksum(body) == string(s[length-checksumLen:])
}

// Hash returns what is stored of s: its SHA-256 in hex. A slow hash would buy
// nothing, since s is random.
func (s Secret) Hash() string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// Last4 returns the last characters, by which people tell keys apart.
func (s Secret) Last4() string { return string(s[max(0, len(s)-4):]) }

// hidden stands for a secret wherever one is printed.
const hidden = "[secret]"

// Format prints [secret], whatever the verb: only a conversion to string shows
// a secret, so that none is shown by accident.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue keeps the secret out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText keeps the secret out of JSON that was not meant to show it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
