// Package secret holds the one key of an installation, which seals the secrets
// that the database keeps: whoever has only the database, or only a backup of
// it without the key, has none of them.
package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// keySize is the size of a key in its file.
const keySize = 32

// version begins every sealed text, so that another cipher can follow.
const version = "v1."

// redacted is how a key shows itself.
const redacted = "[secret key]"

// A Key seals and opens secrets. It never shows itself in logs or formatted
// text. The zero Key seals and opens nothing.
type Key struct{ b [keySize]byte }

// NewKey returns a new random key.
func NewKey() Key {
	var k Key
	rand.Read(k.b[:]) // never fails
	return k
}

// LoadKeys reads the keys in the file at path: one, or two while a rotation is
// on its way, the new one first. If there is no such file it makes a new key
// there, which only the file's owner can read.
//
// A new file appears complete or not at all, and of several processes that
// start at once, one makes the key and all use it. LoadKeys fails if the file
// is not exactly a key or two, or if others than its owner may read or write it:
// a key that cannot be trusted is a question for the operator.
func LoadKeys(path string) ([]Key, error) {
	keys, err := readKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createKey(path); err == nil {
			keys, err = readKeys(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load secret key: %w", err)
	}
	return keys, nil
}

func readKeys(path string) ([]Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	} else if mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be used by others than its owner (mode %#o): run chmod 600 on it, and replace the key if others have read it", path, mode.Perm())
	}
	if n := info.Size(); n != keySize && n != 2*keySize {
		return nil, fmt.Errorf("%s has %d bytes, a key has %d: it is no key, or a damaged one; restore it from the backup", path, n, keySize)
	}
	keys := make([]Key, info.Size()/keySize)
	for i := range keys {
		if _, err := f.ReadAt(keys[i].b[:], int64(i)*keySize); err != nil {
			return nil, err
		}
		if keys[i] == (Key{}) {
			return nil, fmt.Errorf("%s holds only zeros, which is no key; restore it from the backup", path)
		}
	}
	return keys, nil
}

// ReplaceKeys puts other keys into the file at path, which has to be there: one,
// or two while a rotation is on its way, the new one first. The file holds the
// old keys or the new ones at any time, also after a power cut.
func ReplaceKeys(path string, keys ...Key) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("replace secret key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("replace secret key: %s is not a regular file; name the file itself", path)
	}
	temp, err := writeKeys(path, keys...)
	if err != nil {
		return fmt.Errorf("replace secret key: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return fmt.Errorf("replace secret key: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// writeKeys writes the keys into a file beside path, and returns its name.
func writeKeys(path string, keys ...Key) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600, O_EXCL
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		if err == nil {
			_, err = f.Write(k.b[:])
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// syncDir makes the names in the directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// createKey makes a key file at path, unless another process has just done so.
// It writes beside the path and then links, so that nobody sees half a key,
// not even after a power cut.
func createKey(path string) error {
	temp, err := writeKeys(path, NewKey())
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Seal encrypts plain with AES-256-GCM. The result is printable text. Only the
// same key with the same context opens it; the context says where the secret
// belongs, as in "webhook wh_…", so that a sealed text moved to another row of
// the database does not open there.
func (k Key) Seal(plain []byte, context string) (string, error) {
	aead, err := k.aead()
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return version + base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, plain, []byte(context))), nil
}

// Open decrypts what [Key.Seal] returned for the same context.
func (k Key) Open(sealed, context string) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, fmt.Errorf("open sealed secret: %w", err)
	}
	text, ok := strings.CutPrefix(sealed, version)
	if !ok {
		return nil, errors.New("open sealed secret: it is in no known format")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("open sealed secret: it is damaged")
	}
	plain, err := aead.Open(nil, nil, b, []byte(context))
	if err != nil {
		return nil, errors.New("open sealed secret: it was sealed with another key or for another place, or it is damaged")
	}
	return plain, nil
}

// aead returns the cipher. It writes a random nonce before each text.
func (k Key) aead() (cipher.AEAD, error) {
	if k == (Key{}) {
		return nil, errors.New("there is no key")
	}
	block, err := aes.NewCipher(k.Derive("seal"))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Derive returns 32 bytes that depend on the key and the purpose, by
// HKDF-SHA256 (RFC 5869). They tell nothing about the key or about what is
// derived for other purposes.
func (k Key) Derive(purpose string) []byte {
	b, err := hkdf.Key(sha256.New, k.b[:], nil, "trustpager "+purpose, sha256.Size)
	if err != nil {
		panic(err) // only a length beyond 255 hashes fails
	}
	return b
}

// Format prints a placeholder for every verb.
func (Key) Format(s fmt.State, _ rune) { s.Write([]byte(redacted)) }

// LogValue keeps the key out of logs.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the key out of JSON.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
