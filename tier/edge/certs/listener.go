package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// A Local gives listeners other than the door certificates of names of this machine, by the same root.
// Nothing of it runs; its methods may be called by many.
type Local struct {
	ca    *localCA
	names []string

	mu   sync.Mutex
	leaf *tls.Certificate // under mu
}

// OpenLocal opens the local root below dir, the Dir of a Config, or makes it. The certificates are of
// names: host names below localhost, and addresses of this machine or its LAN.
func OpenLocal(dir string, names ...string) (*Local, error) {
	ca, err := openLocalCA(filepath.Join(dir, "local"))
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if !ca.may(n) {
			return nil, fmt.Errorf("open local authority: it may not sign %s", n)
		}
	}
	return &Local{ca: ca, names: slices.Clone(names)}, nil
}

// Certificate is one with at least half its life of seven days before it: the same until it is not.
func (l *Local) Certificate() (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if c := l.leaf; c != nil && now.Add(leafLife/2).Before(c.Leaf.NotAfter) && now.After(c.Leaf.NotBefore) {
		return c, nil
	}
	c, err := l.ca.signAll(l.names, now, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", l.names[0], err)
	}
	l.leaf = c
	return c, nil
}

// Root is the root, in PEM: what clients verify by.
func (l *Local) Root() []byte { return slices.Clone(l.ca.pem) }
