package access

import (
	"fmt"

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
