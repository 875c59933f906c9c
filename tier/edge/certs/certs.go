// Package certs gives the front door its certificates: those of public names by ACME (RFC 8555),
// those of *.localhost and LAN names from a certificate authority of this house.
//
// A Keyring is told which hosts there are. For public names it obtains certificates, keeps them in
// a folder and renews them while they are served: HTTP-01, TLS-ALPN-01 (RFC 8737), DNS-01 for
// wildcards, renewal when the authority suggests it (RFC 9773), OCSP stapling where a certificate
// names a responder. Nothing is asked of anybody for names that no public authority may certify;
// these get leaves of a few days, made in the handshake and signed by a root that may sign such
// names only. Trust puts that root into the stores of this machine.
//
// The package opens no port: the door serves HTTPHandler on port 80 and TLSConfig on 443. Begin at
// Config, New and Keyring.Run.
package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// LetsEncrypt is the ACME directory that is asked when Config.CA is empty.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// Config is what a Keyring needs.
type Config struct {
	// Dir holds keys, certificates and the locks between processes that share it; made with mode
	// 0700. Required.
	Dir string
	// CA is the ACME directory's address; empty: LetsEncrypt.
	CA string
	// CARoots are trusted when speaking to CA; nil: the system's.
	CARoots *x509.CertPool
	// HTTPPort and TLSPort are the ports of this machine on which HTTPHandler and TLSConfig are
	// served, reached from outside as 80 and 443. 0: that kind of challenge is not used. With both 0
	// only hosts of SetDNS can be proven, and nobody is asked for others.
	HTTPPort, TLSPort int
	// ListenHost is the address those ports are bound to; empty: all.
	ListenHost string
	// Resolvers are asked whether a record of DNS-01 is there, as host:port; none: its zone's servers.
	Resolvers []string
	// Alarm is told when a fault begins and, with Cleared, when it is mended; once each. It must
	// not block, nor call the Keyring. nil: only Faults and Status tell.
	Alarm func(Alarm)
	Log   *slog.Logger // nil: slog.Default

	checkEvery time.Duration // how often renewals are looked at; 10 min. Set by tests
	dnsWait    time.Duration // how long a DNS-01 record may take to be seen; 2 min; -1: not looked at
	providers  DNSProviders  // BuiltinDNS
}

// Keyring holds the certificates of the door. Its methods may be called at any time, by many.
type Keyring struct {
	cfg    Config
	local  *localCA
	faults *faults
	wake   chan struct{} // hosts have changed; room for one

	judging sync.Mutex // so that an older look at things never comes after a newer one

	mu      sync.Mutex
	hosts   []string // as SetHosts said, normalised, sorted
	email   string   // of the account; SetContact
	dns     map[string]DNS
	nextDNS map[string]DNS // nil: as dns
	opened  map[DNS]openedDNS
	clients map[string]*x509.CertPool
	acme    *acme         // while Run runs
	arrived chan struct{} // closed and replaced when a certificate has come or an attempt has failed
}

// New checks cfg, makes the folder and opens or makes the local root. It starts nothing.
func New(cfg Config) (*Keyring, error) {
	if cfg.Dir == "" {
		return nil, errors.New("make keyring: no folder")
	}
	if cfg.CA == "" {
		cfg.CA = LetsEncrypt
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.checkEvery == 0 {
		cfg.checkEvery = 10 * time.Minute
	}
	if cfg.providers == nil {
		cfg.providers = BuiltinDNS
	}
	local, err := openLocalCA(filepath.Join(cfg.Dir, "local"))
	if err != nil {
		return nil, fmt.Errorf("make keyring: %w", err)
	}
	return &Keyring{
		cfg: cfg, local: local, faults: newFaults(cfg.Alarm),
		wake: make(chan struct{}, 1), clients: map[string]*x509.CertPool{}, opened: map[DNS]openedDNS{}, arrived: make(chan struct{}),
	}, nil
}

// Root is the local root, in PEM: what Trust installs.
func (k *Keyring) Root() []byte { return slices.Clone(k.local.pem) }

// SetHosts says which hosts are served: exact names, or wildcards (*.example.com). Certificates of
// public names among them are obtained and kept; those of others are no longer renewed, but stay on
// disk.
func (k *Keyring) SetHosts(hosts []string) {
	var all []string
	for _, h := range hosts {
		if h = normal(h); h != "" {
			all = append(all, h)
		}
	}
	slices.Sort(all)
	k.mu.Lock()
	k.hosts = slices.Compact(all)
	k.takeDNS()
	k.mu.Unlock()
	k.look()
}

// SetContact says to which address the authority writes, with its account; "": none. Certificates that
// there are stay as they are.
func (k *Keyring) SetContact(email string) {
	k.mu.Lock()
	same := k.email == email
	k.email = email
	k.mu.Unlock()
	if !same {
		k.look()
	}
}

// look has Run see to what has changed.
func (k *Keyring) look() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// SetClientCAs says that the handshakes of host ask for a client's certificate, of one of cas; nil: it asks
// no more. None is believed by that, only its key is proven: whether a route needs one, and of whom, is the route's
// to judge (403). Who has another one, or one that expired, still gets what asks for none; a failed handshake would keep
// the whole host from them, without a word that they could read.
func (k *Keyring) SetClientCAs(host string, cas *x509.CertPool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if cas == nil {
		delete(k.clients, normal(host))
		return
	}
	k.clients[normal(host)] = cas
}

// HTTPHandler answers challenges of HTTP-01 (RFC 8555 §8.3) and leaves the rest to next. It is to be
// served on port 80.
func (k *Keyring) HTTPHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		a := k.acme
		k.mu.Unlock()
		if a == nil || !a.ways.Load().issuer.HandleHTTPChallenge(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// Run obtains and renews until ctx ends, and returns when what it started has ended. It calls ready
// once certificates that lie on disk are served; new ones are still to come then.
func (k *Keyring) Run(ctx context.Context, ready func()) error {
	a := k.begin()
	k.mu.Lock()
	if k.acme != nil {
		k.mu.Unlock()
		a.close()
		return errors.New("run keyring: it runs already")
	}
	k.acme = a
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.acme = nil
		k.mu.Unlock()
		a.close()
	}()
	a.load(ctx, k.public())
	ready()
	tick := time.NewTicker(min(time.Minute, k.cfg.checkEvery))
	defer tick.Stop()
	for {
		a.arrange()
		a.keep(ctx, k.public())
		k.judge(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-tick.C:
		}
	}
}

// public are the hosts for which an authority is asked. What a wildcard of theirs covers needs no
// certificate of its own: authorities count how many a domain gets in a week.
func (k *Keyring) public() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for _, h := range k.hosts {
		_, covered := slices.BinarySearch(k.hosts, wildcard(h))
		_, proven := k.dns[wildcard(h)]
		if Public(h) && !(covered && proven && h[0] != '*') {
			out = append(out, h)
		}
	}
	return out
}

// judge looks for faults.
func (k *Keyring) judge(now time.Time) {
	k.judging.Lock()
	defer k.judging.Unlock()
	k.mu.Lock()
	hosts, a := k.hosts, k.acme
	k.mu.Unlock()
	var all []CertStatus
	for _, h := range hosts {
		all = append(all, k.status(a, h))
	}
	k.faults.judge(now, all)
}

// announce tells handshakes that wait for a first certificate.
func (k *Keyring) announce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.arrived)
	k.arrived = make(chan struct{})
}
