package gitserver

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"tenfold/internal/atomicfile"
)

// Key is a public key that may push over SSH.
type Key struct {
	Name        string    `json:"name"`        // who it is: given, or the key's comment
	Fingerprint string    `json:"fingerprint"` // SHA256:…
	Line        string    `json:"line"`        // as in authorized_keys, without options and comment
	Added       time.Time `json:"added"`
}

// Keys are the public keys of a Server, on disk. They may be used by many at once.
type Keys struct {
	file string

	mu   sync.Mutex
	keys []Key // by age
}

// ErrNoKey means that there is no key of that name or fingerprint.
var ErrNoKey = errors.New("no such key")

func openKeys(file string) (*Keys, error) {
	k := &Keys{file: file}
	if err := atomicfile.ReadJSON(file, &k.keys); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	return k, nil
}

// Add takes a line of a .pub file or of authorized_keys. Its options are refused: here they would mean
// nothing. name may be "": the key's comment then. A key that is known already gets the new name.
func (k *Keys) Add(name, line string) (Key, error) {
	pub, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return Key{}, fmt.Errorf("add key: %w: give the content of a .pub file", err)
	case len(options) > 0:
		return Key{}, fmt.Errorf("add key: its options (%s) are not honoured: give the key alone", strings.Join(options, ","))
	case strings.TrimSpace(string(rest)) != "":
		return Key{}, errors.New("add key: more than one key: add them one after the other")
	}
	if t := pub.Type(); t == "ssh-dss" || strings.Contains(t, "-cert-") {
		return Key{}, fmt.Errorf("add key: keys of type %s are not taken: make one of type ed25519", t)
	}
	if name == "" {
		name = comment
	}
	if name = strings.TrimSpace(name); name == "" || len(name) > 100 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Key{}, fmt.Errorf("add key: a name of 1 to 100 characters is needed, not %q", name)
	}
	key := Key{Name: name, Fingerprint: ssh.FingerprintSHA256(pub), Line: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))), Added: time.Now().UTC()}
	k.mu.Lock()
	defer k.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(k.keys), func(o Key) bool { return o.Fingerprint == key.Fingerprint })
	if err := k.save(append(next, key)); err != nil {
		return Key{}, fmt.Errorf("add key: %w", err)
	}
	return key, nil
}

// List returns the keys, oldest first.
func (k *Keys) List() []Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.keys)
}

// Remove takes away the key of a fingerprint, or all of a name; connections that it opened end with
// their next command. ErrNoKey when there is none.
func (k *Keys) Remove(which string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(k.keys), func(o Key) bool { return o.Fingerprint == which || o.Name == which })
	if len(next) == len(k.keys) {
		return fmt.Errorf("remove key %q: %w", which, ErrNoKey)
	}
	if err := k.save(next); err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	return nil
}

// who is the name of a key, false for one that is not known.
func (k *Keys) who(fingerprint string) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.keys, func(o Key) bool { return o.Fingerprint == fingerprint })
	if i < 0 {
		return "", false
	}
	return k.keys[i].Name, true
}

func (k *Keys) save(next []Key) error {
	if err := atomicfile.WriteJSON(k.file, next, 0o600); err != nil {
		return err
	}
	k.keys = next
	return nil
}
