package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
)

// acme is certmagic at work, from Run's beginning to its end. Certmagic renews what is in its cache
// by itself; acme brings certificates there, one goroutine for each host that has none yet.
type acme struct {
	k     *Keyring
	cache *certmagic.Cache
	ways  atomic.Pointer[ways]

	running sync.WaitGroup // obtain
	mu      sync.Mutex
	keeping map[string]keeping
	tries   map[string]try
	asking  map[string]bool // hosts for which an authority is being asked, by obtain or by certmagic
	quiet   chan struct{}   // something left asking; room for one
}

// try is what is known of the last attempt to get a host's certificate.
type try struct {
	failed int // attempts in a row
	since  time.Time
	err    error
	going  bool // an attempt is under way
}

// ways are how names are proven, with one contact.
type ways struct {
	email string
	ports *certmagic.Config // HTTP-01, TLS-ALPN-01
	plain *certmagic.Config // names by DNS-01
	wild  *certmagic.Config // wildcards by DNS-01
	// issuer is that of ports.
	issuer *certmagic.ACMEIssuer
}

// keeping is somebody who is after a host's certificate, or has got it.
type keeping struct {
	cancel context.CancelFunc
	by     DNS // zero: by ports
}

func (k *Keyring) begin() *acme {
	a := &acme{k: k, keeping: map[string]keeping{}, tries: map[string]try{}, asking: map[string]bool{}, quiet: make(chan struct{}, 1)}
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(c certmagic.Certificate) (*certmagic.Config, error) {
			if len(c.Names) > 0 {
				if conf, _, err := a.configOf(c.Names[0]); err == nil {
					return conf, nil
				}
			}
			return a.ways.Load().ports, nil
		},
		RenewCheckInterval: k.cfg.checkEvery,
		Logger:             zapTo(k.cfg.Log),
	})
	a.arrange()
	return a
}

// arrange makes the ways anew when the contact has changed. What is under way goes on by the old.
func (a *acme) arrange() {
	k := a.k
	k.mu.Lock()
	email := k.email
	k.mu.Unlock()
	if w := a.ways.Load(); w != nil && w.email == email {
		return
	}
	log := zapTo(k.cfg.Log)
	make1 := func(solver acmez.Solver) (*certmagic.Config, *certmagic.ACMEIssuer) {
		c := certmagic.New(a.cache, certmagic.Config{
			Storage: &certmagic.FileStorage{Path: k.cfg.Dir},
			OnEvent: a.event,
			// One event is for each handshake, and dear to make.
			ShouldEmitFunc: func(event string) bool { return event != "tls_get_certificate" },
			Logger:         log,
		})
		issuer := certmagic.NewACMEIssuer(c, certmagic.ACMEIssuer{
			CA: k.cfg.CA, Email: email, TrustedRoots: k.cfg.CARoots, Agreed: true, Logger: log,
			ListenHost: k.cfg.ListenHost, AltHTTPPort: k.cfg.HTTPPort, AltTLSALPNPort: k.cfg.TLSPort,
			DisableHTTPChallenge: k.cfg.HTTPPort == 0, DisableTLSALPNChallenge: k.cfg.TLSPort == 0,
			DNS01Solver: solver,
		})
		c.Issuers = []certmagic.Issuer{issuer}
		return c, issuer
	}
	w := &ways{email: email}
	w.ports, w.issuer = make1(nil)
	w.plain, _ = make1(&dnsSolver{k: k, shown: map[string]DNSProvider{}})
	w.wild, _ = make1(&dnsSolver{k: k, wild: true, shown: map[string]DNSProvider{}})
	a.ways.Store(w)
}

// close ends what acme and certmagic started.
func (a *acme) close() {
	a.mu.Lock()
	for _, g := range a.keeping {
		g.cancel()
	}
	a.mu.Unlock()
	a.running.Wait()
	a.cache.Stop() // cancels renewals, but does not wait for them
	limit := time.NewTimer(5 * time.Second)
	defer limit.Stop()
	for {
		a.mu.Lock()
		n := len(a.asking)
		a.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-a.quiet:
		case <-limit.C:
			a.k.cfg.Log.Warn("a renewal does not end")
			return
		}
	}
}

// asked is under a.mu.
func (a *acme) asked(host string) {
	delete(a.asking, host)
	select {
	case a.quiet <- struct{}{}:
	default:
	}
}

// event hears of attempts and arrivals. Attempts end with cert_obtained or cert_failed.
func (a *acme) event(ctx context.Context, event string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	a.mu.Lock()
	t := a.tries[host]
	switch event {
	case "cert_obtaining":
		a.asking[host] = true
		t.going = true
	case "cert_obtained":
		a.asked(host)
		t = try{}
	case "cert_failed":
		a.asked(host)
		err, _ := data["error"].(error)
		if ctx.Err() != nil || errors.Is(err, context.Canceled) { // the host or the door is going: no failure
			a.mu.Unlock()
			return nil
		}
		t = try{failed: t.failed + 1, since: t.since, err: err}
		if t.failed == 1 {
			t.since = time.Now()
		}
	case "cached_managed_cert":
		a.mu.Unlock()
		a.k.announce()
		return nil
	default:
		a.mu.Unlock()
		return nil
	}
	a.tries[host] = t
	a.mu.Unlock()
	if event == "cert_failed" {
		a.k.announce()
		a.k.judge(time.Now())
	}
	return nil
}

// configOf is how host can be proven, and by whom if by DNS-01: wildcards, and without a port that an
// authority could ask all names. An error says why it can be proven in no way.
func (a *acme) configOf(host string) (*certmagic.Config, DNS, error) {
	w, wild := a.ways.Load(), strings.HasPrefix(host, "*.")
	if !wild && (a.k.cfg.HTTPPort > 0 || a.k.cfg.TLSPort > 0) {
		return w.ports, DNS{}, nil
	}
	p, err := a.k.open(host)
	switch {
	case err != nil:
		return nil, DNS{}, err
	case p == nil && wild:
		return nil, DNS{}, errNoDNS
	case p == nil:
		return nil, DNS{}, errNoChallenge
	}
	by := DNS{}
	if d, ok := p.(discreet); ok {
		by = d.of
	}
	if wild {
		return w.wild, by, nil
	}
	return w.plain, by, nil
}

// load brings what lies on disk into memory.
func (a *acme) load(ctx context.Context, hosts []string) {
	for _, h := range hosts {
		if c := a.stored(h); c != nil {
			if _, err := c.CacheManagedCertificate(ctx, h); err != nil && !errors.Is(err, fs.ErrNotExist) {
				a.k.cfg.Log.Warn("load certificate", "host", h, "err", err)
			}
		}
	}
}

// stored is a configuration by which host's certificate is found on disk, whether or not it can be
// proven now.
func (a *acme) stored(host string) *certmagic.Config {
	if c, _, err := a.configOf(host); err == nil {
		return c
	}
	return a.ways.Load().ports
}

// keep sees to it that each of hosts has a certificate or somebody who is after one, and that
// nobody is after any other.
func (a *acme) keep(ctx context.Context, hosts []string) {
	want := map[string]bool{}
	for _, h := range hosts {
		want[h] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for h := range a.tries { // those without a DNS provider are in no keeping
		if !want[h] {
			delete(a.tries, h)
		}
	}
	for h, g := range a.keeping {
		if !want[h] {
			g.cancel()
			delete(a.keeping, h)
			a.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: h}})
		}
	}
	for h := range maps.Keys(want) {
		c, by, err := a.configOf(h)
		g, had := a.keeping[h]
		if had && (err != nil || g.by != by) { // what failed by the old credentials is tried by the new at once
			g.cancel()
			delete(a.keeping, h)
			had = false
		}
		t := a.tries[h]
		switch {
		case err != nil:
			if t.failed == 0 || t.err == nil || t.err.Error() != err.Error() {
				a.tries[h] = try{failed: hopeless, since: time.Now(), err: err}
			}
		case !had:
			ctx, cancel := context.WithCancel(ctx)
			a.keeping[h] = keeping{cancel, by}
			t.going = true
			a.tries[h] = t
			a.running.Go(func() { a.obtain(ctx, c, h) })
		}
	}
}

// hopeless is how many failures it counts for that a host can be proven in no way: as many as make a
// fault of one whose certificate is still good.
const hopeless = 3

var (
	errNoDNS       = errors.New("a wildcard needs the DNS-01 challenge, and no DNS provider is configured for it")
	errNoChallenge = errors.New("an authority asks at ports 80 and 443, of which none is served here, and no DNS provider is configured")
)

// obtain ends when host's certificate is in the cache and not due, from where certmagic renews it.
// Certmagic retries for 30 days; then obtain begins anew.
func (a *acme) obtain(ctx context.Context, c *certmagic.Config, host string) {
	for ctx.Err() == nil {
		err := a.bring(ctx, c, host)
		if err == nil {
			a.settle(host, nil)
			return
		}
		if ctx.Err() != nil {
			return
		}
		a.settle(host, err)
		a.k.cfg.Log.Warn("obtain certificate", "host", host, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Minute):
		}
	}
}

// settle notes how bring ended: errors of storage raise no event of certmagic.
func (a *acme) settle(host string, err error) {
	a.mu.Lock()
	a.asked(host)
	t := a.tries[host]
	t.going = false
	if err == nil {
		t = try{} // had it failed here, another process with the same folder has mended it
	} else if t.failed == 0 {
		t = try{failed: 1, since: time.Now(), err: err}
	}
	a.tries[host] = t
	a.mu.Unlock()
	a.k.announce()
	a.k.judge(time.Now())
}

// bring puts host's certificate into the cache, from disk or from the authority. One that is due is
// served and given to certmagic's renewal at once, whose turn would come minutes later. Despite its
// name ObtainCertAsync waits; it retries, and asks no questions on the terminal.
func (a *acme) bring(ctx context.Context, c *certmagic.Config, host string) error {
	cert, err := c.CacheManagedCertificate(ctx, host)
	if errors.Is(err, fs.ErrNotExist) {
		if err := c.ObtainCertAsync(ctx, host); err != nil {
			return err
		}
		_, err = c.CacheManagedCertificate(ctx, host)
	} else if err == nil && cert.NeedsRenewal(c) {
		err = a.cache.RenewManagedCertificates(ctx)
	}
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	return nil
}

// find is the certificate in memory that is served for host; nil: none.
func (a *acme) find(host string) *certmagic.Certificate {
	if a == nil {
		return nil
	}
	var best *certmagic.Certificate
	for _, c := range a.cache.AllMatchingCertificates(host) {
		if c.Leaf == nil {
			continue // a challenge's
		}
		if best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = &c
		}
	}
	return best
}

func (a *acme) tryOf(host string) try {
	if a == nil {
		return try{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tries[host]
}

// renewalInfo is when certmagic means to renew by the authority's suggestion (ARI), read from what
// it keeps beside the certificate; zero without one.
func (a *acme) renewalInfo(c *certmagic.Certificate) time.Time {
	if len(c.Names) == 0 {
		return time.Time{}
	}
	conf := a.stored(c.Names[0])
	key := certmagic.StorageKeys.SiteMeta(conf.Issuers[0].IssuerKey(), c.Names[0])
	raw, err := conf.Storage.Load(context.Background(), key)
	if err != nil {
		return time.Time{}
	}
	var meta struct {
		Data struct {
			Info struct {
				Selected time.Time `json:"_selectedTime"`
			} `json:"renewal_info"`
		} `json:"issuer_data"`
	}
	if json.Unmarshal(raw, &meta) != nil {
		return time.Time{}
	}
	return meta.Data.Info.Selected
}
