package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// acmeTLS is the protocol of TLS-ALPN-01 (RFC 8737 §6.2).
const acmeTLS = "acme-tls/1"

// firstWait is how long a handshake waits for the first certificate of its host.
const firstWait = 8 * time.Second

// suites12 are those of TLS 1.2 with forward secrecy and authenticated encryption; TLS 1.3 has no others.
var suites12 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// TLSConfig is the configuration of the door's TLS listeners, also for QUIC: TLS 1.2 and 1.3, h2
// and http/1.1, challenges of TLS-ALPN-01, sessions of TLS 1.3 resumed by tickets whose keys
// crypto/tls renews each day. Clients that know TLS 1.2 only get no tickets: there, whoever finds a
// ticket's key within the week that it is kept reads all that was sent in the sessions of that week.
// Make one and share it: each has ticket keys of its own.
func (k *Keyring) TLSConfig() *tls.Config {
	base := &tls.Config{
		MinVersion:       tls.VersionTLS12,
		CipherSuites:     suites12,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384},
		NextProtos:       []string{"h2", "http/1.1", acmeTLS},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := k.certificate(hello)
			if errors.Is(err, errUnserved) {
				return nil, nil // which crypto/tls answers with the alert unrecognized_name
			}
			return c, err
		},
	}
	type asking struct {
		cas  *x509.CertPool
		conf *tls.Config
	}
	var made sync.Map // of asking, by host
	old := base.Clone()
	old.SessionTicketsDisabled = true
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		host := normal(hello.ServerName)
		cas := k.clientCAs(host)
		if cas == nil || isChallenge(hello) { // an authority has no certificate to show
			if !slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
				return old, nil
			}
			return nil, nil
		}
		if a, ok := made.Load(host); ok && a.(asking).cas == cas {
			return a.(asking).conf, nil
		}
		c := base.Clone()
		c.GetConfigForClient = nil
		c.ClientAuth = tls.RequestClientCert
		c.ClientCAs = cas
		// A ticket would carry what was shown to one host to another, and
		// would keep a browser that showed no certificate once from being asked again.
		c.SessionTicketsDisabled = true
		made.Store(host, asking{cas, c})
		return c, nil
	}
	return base
}

var errUnserved = errors.New("not a host of this door")

func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeTLS
}

// clientCAs are those of host, or nil.
func (k *Keyring) clientCAs(host string) *x509.CertPool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.clients) == 0 {
		return nil
	}
	return k.clients[normal(host)]
}

// certificate chooses for a handshake: a public certificate, or a local leaf.
func (k *Keyring) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	a := k.acme
	k.mu.Unlock()
	name := normal(hello.ServerName)
	if isChallenge(hello) {
		if a == nil {
			return nil, errors.New("no challenge is under way")
		}
		return a.ways.Load().ports.GetCertificate(hello)
	}
	if name == "" {
		name = k.unnamed(hello)
	}
	if !wellFormed(name) {
		return nil, errUnserved
	}
	if c := a.find(name); c != nil {
		return &c.Certificate, nil
	}
	if !Public(name) {
		if !k.local.may(name) && !k.serves(name) {
			return nil, errUnserved
		}
		return k.local.leaf(name, time.Now())
	}
	return k.first(hello.Context(), name)
}

// unnamed is the name to answer for when a client sends none: the address it connected to when that
// is one of the LAN, else the first public host.
func (k *Keyring) unnamed(hello *tls.ClientHelloInfo) string {
	if hello.Conn != nil {
		if host, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String()); err == nil && k.local.may(normal(host)) {
			return normal(host)
		}
	}
	if all := k.public(); len(all) > 0 {
		return all[0]
	}
	return "localhost"
}

// serves says whether SetHosts named host, or a wildcard that covers it.
func (k *Keyring) serves(host string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.servesLocked(host)
}

func (k *Keyring) servesLocked(host string) bool {
	for _, h := range []string{host, wildcard(host)} {
		if _, ok := slices.BinarySearch(k.hosts, h); ok {
			return true
		}
	}
	return false
}

// first waits for a certificate that is on its way: of a host just added, whose visitor would
// otherwise see an error for the seconds that it takes.
func (k *Keyring) first(ctx context.Context, host string) (*tls.Certificate, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	limit := time.NewTimer(firstWait)
	defer limit.Stop()
	for {
		k.mu.Lock()
		a, served, arrived := k.acme, k.servesLocked(host), k.arrived
		k.mu.Unlock()
		if !served {
			return nil, errUnserved
		}
		if c := a.find(host); c != nil {
			return &c.Certificate, nil
		}
		t := a.tryOf(host)
		if w := a.tryOf(wildcard(host)); w.going || t.failed == 0 && !t.going {
			t = w
		}
		if t.failed > 0 || a == nil {
			return nil, fmt.Errorf("host %s has no certificate yet: %w", host, errors.Join(t.err))
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit.C:
			return nil, fmt.Errorf("host %s has no certificate yet", host)
		}
	}
}

// Misdirected says whether a request for authority must not be answered on this connection (421,
// RFC 9110 §15.5.20): its handshake was for another host, and either the certificate shown then does
// not cover authority, or authority asks its clients for certificates, which this handshake did not
// on its behalf. A connection without TLS, or whose client named no host, is never misdirected,
// unless authority asks for certificates.
func (k *Keyring) Misdirected(state *tls.ConnectionState, authority string) bool {
	if state == nil {
		return false
	}
	if rest, ok := strings.CutPrefix(authority, state.ServerName); ok && state.ServerName != "" && (rest == "" || rest[0] == ':') {
		return false // as nearly always
	}
	host, sni := normal(authority), normal(state.ServerName)
	if host == sni {
		return false
	}
	if k.clientCAs(host) != nil {
		return true
	}
	if sni == "" {
		return false
	}
	k.mu.Lock()
	a := k.acme
	k.mu.Unlock()
	if c := a.find(sni); c != nil {
		return c.Leaf.VerifyHostname(host) != nil
	}
	return true // a local leaf covers one name
}
