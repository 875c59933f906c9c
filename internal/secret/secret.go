// Package secret seals values with age (https://age-encryption.org/v1), so that a copy of the
// database alone tells nothing. The identity lies beside it in a file of mode 0600: back up both,
// and not to the same place. Begin at Load.
package secret

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"filippo.io/age"
)

// MaxSize bounds a value, in bytes: what fits an environment variable with room to spare.
const MaxSize = 64 << 10

// Key seals and opens values.
type Key struct{ identity *age.X25519Identity }

// Load reads the identity at path, or makes one there (mode 0600).
func Load(path string) (*Key, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return &Key{id}, nil
}

func create(path string) (*Key, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	_, err = f.WriteString(id.String() + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("write key %s: %w", path, err)
	}
	return &Key{id}, nil
}

// Seal encrypts a value of at most MaxSize bytes.
func (k *Key) Seal(value string) ([]byte, error) {
	if len(value) > MaxSize {
		return nil, fmt.Errorf("seal secret: %d bytes, at most %d fit", len(value), MaxSize)
	}
	if strings.ContainsRune(value, 0) {
		return nil, errors.New("seal secret: it holds a NUL byte, which no environment variable can carry")
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, k.identity.Recipient())
	if err != nil {
		return nil, fmt.Errorf("seal secret: %w", err)
	}
	_, err = io.WriteString(w, value)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("seal secret: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts what Seal made; a changed byte is an error.
func (k *Key) Open(sealed []byte) (string, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.identity)
	if err != nil {
		return "", fmt.Errorf("open secret: %w", err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("open secret: %w", err)
	}
	return string(b), nil
}

// Generate makes n random bytes, written in unpadded base64 for URLs.
func Generate(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}
