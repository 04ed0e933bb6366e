package access

import (
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/alexedwards/argon2id"
)

// passwordParams are what OWASP recommends for Argon2id where memory is to be
// spared: 19 MiB, two passes.
var passwordParams = &argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// HashPassword returns what is stored of a person's password: an Argon2id hash
// (RFC 9106) with its salt and parameters. It takes some 20 ms and 19 MiB.
func HashPassword(password string) (string, error) {
	hash, err := argon2id.CreateHash(password, passwordParams)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

// nobodysPassword is the hash that the password of an account without one is
// checked against, so that it takes as long as any other.
var nobodysPassword = sync.OnceValues(func() (string, error) { return HashPassword(rand.Text()) })

// CheckPassword reports whether hash is that of the password. An empty hash is
// of none, and takes as long. It costs as much as [HashPassword].
func CheckPassword(hash, password string) (bool, error) {
	none := hash == ""
	if none {
		var err error
		if hash, err = nobodysPassword(); err != nil {
			return false, err
		}
	}
	right, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, fmt.Errorf("check password: %w", err)
	}
	return right && !none, nil
}
