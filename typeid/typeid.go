// Package typeid makes and recognises the ids of everything that the program
// stores: TypeIDs, a prefix that names the kind of thing and a UUIDv7 (RFC
// 9562), as in con_01jz9q2n7yf3ktqw1v8h5m0xce.
package typeid

import (
	"fmt"

	"github.com/google/uuid"
)

// alphabet is Crockford's base32 in lower case, as the TypeID specification
// asks. Its byte order is the order of the digits, so ids sort by time.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// suffixLen is the number of base32 digits that hold 128 bits.
const suffixLen = 26

// digits tells which bytes belong to the alphabet.
var digits = func() (d [256]bool) {
	for i := range len(alphabet) {
		d[alphabet[i]] = true
	}
	return d
}()

// NewID returns a new id with the prefix. Ids that one process makes are in
// order of their making.
func NewID(prefix string) string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(fmt.Sprintf("make id: %v", err)) // the system has no randomness
	}
	return prefix + "_" + encode(id)
}

// encode writes the 128 bits as 26 digits of five bits. The first digit holds
// only three, so it is at most 7.
func encode(id uuid.UUID) string {
	var out [suffixLen]byte
	var acc uint
	bits := 0
	at := suffixLen - 1
	for i := len(id) - 1; i >= 0; i-- {
		acc |= uint(id[i]) << bits
		bits += 8
		for bits >= 5 {
			out[at] = alphabet[acc&31]
			at--
			acc >>= 5
			bits -= 5
		}
	}
	out[at] = alphabet[acc&31]
	return string(out[:])
}

// ValidID reports whether id has the form of an id with the prefix. Only the
// canonical form, in lower case, is valid, so equal ids have equal bytes.
func ValidID(prefix, id string) bool {
	n := len(prefix)
	if len(id) != n+1+suffixLen || id[:n] != prefix || id[n] != '_' || id[n+1] > '7' {
		return false
	}
	for i := n + 1; i < len(id); i++ {
		if !digits[id[i]] {
			return false
		}
	}
	return true
}
