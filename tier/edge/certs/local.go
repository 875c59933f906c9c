package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tenfold/internal/atomicfile"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	leafLife = 7 * 24 * time.Hour
	backdate = time.Hour // for clients whose clocks are behind
	// leavesMax bounds the leaves in memory: names of *.localhost are the client's to choose.
	leavesMax = 1024
)

// localNets are the networks whose addresses the local root may sign.
var localNets = []string{
	"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
	"::1/128", "fc00::/7", "fe80::/10",
}

// localCA signs names of this machine and its LAN. Its root is constrained to them (RFC 5280
// §4.2.1.10), so that a stolen key is no danger to whoever trusts the root for anything else.
// Leaves live in memory only: they are cheap to make, and nothing of them is worth stealing.
type localCA struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// openLocalCA reads dir's root.pem (certificate and key, mode 0600), or makes it, and writes root.crt
// beside it, the certificate alone. Of several processes that make one at the same time the first
// wins: the file comes to be by a hard link, whole.
func openLocalCA(dir string) (*localCA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open local authority: %w", err)
	}
	name := filepath.Join(dir, "root.pem")
	both, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if both, err = makeRoot(time.Now()); err == nil {
			both, err = keepFirst(name, both)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open local authority: %w", err)
	}
	ca, err := parseRoot(both)
	if err != nil {
		return nil, fmt.Errorf("open local authority: read %s: %w (remove it, and a new one is made; then trust that one)", name, err)
	}
	if err := atomicfile.Write(filepath.Join(dir, "root.crt"), ca.pem, 0o644); err != nil {
		return nil, fmt.Errorf("open local authority: %w", err)
	}
	return ca, nil
}

// keepFirst writes data to name if there is no such file, and returns what is there now.
func keepFirst(name string, data []byte) ([]byte, error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".root-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(name)
}

func makeRoot(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	t := &x509.Certificate{
		SerialNumber: serial(),
		// The name of the machine, so that a person finds the right one in a list of roots.
		Subject:               pkix.Name{Organization: []string{"Tenfold local authority"}, CommonName: "Tenfold " + host + " " + now.Format(time.DateOnly)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,

		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         localDomains,
	}
	for _, n := range localNets {
		_, p, _ := net.ParseCIDR(n)
		t.PermittedIPRanges = append(t.PermittedIPRanges, p)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...), nil
}

func parseRoot(both []byte) (*localCA, error) {
	pair, err := tls.X509KeyPair(both, both)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("not an authority")
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("it expired on %s", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &localCA{
		cert: pair.Leaf, key: key, leaves: map[string]*tls.Certificate{},
		pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw}),
	}, nil
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// may says whether the root's constraints let it sign name.
func (ca *localCA) may(name string) bool {
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return belowLocal(name)
	}
	for _, n := range localNets {
		if netip.MustParsePrefix(n).Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}

// leaf is a certificate of name, which is well formed and normal, with at least half its life before it.
func (ca *localCA) leaf(name string, now time.Time) (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if c := ca.leaves[name]; c != nil && now.Add(leafLife/2).Before(c.Leaf.NotAfter) && now.After(c.Leaf.NotBefore) {
		return c, nil
	}
	c, err := ca.sign(name, now, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", name, err)
	}
	if len(ca.leaves) >= leavesMax {
		for n := range ca.leaves { // any one: the next handshake of its name makes another
			delete(ca.leaves, n)
			break
		}
	}
	ca.leaves[name] = c
	return c, nil
}

func (ca *localCA) sign(name string, now time.Time, usage x509.ExtKeyUsage) (*tls.Certificate, error) {
	return ca.signAll([]string{name}, now, usage)
}

// signAll makes a certificate of several names.
func (ca *localCA) signAll(names []string, now time.Time, usage x509.ExtKeyUsage) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: []string{"Tenfold local"}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
	if t.NotAfter.After(ca.cert.NotAfter) {
		t.NotAfter = ca.cert.NotAfter
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key, Leaf: parsed}, nil
}
