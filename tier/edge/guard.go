package edge

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"tenfold/internal/directory"
	"tenfold/tier/edge/limit"
)

// guard is who may pass along a route (tenfold.Auth), made ready. All of it must hold.
type guard struct {
	off         bool
	allow, deny []netip.Prefix
	basic       map[string]string // user to bcrypt hash; nil: not asked
	signed      map[string]crypto.PublicKey
	mtls        *x509.CertPool
}

func newGuard(a *directory.Auth) (*guard, error) {
	if a == nil {
		return nil, nil
	}
	g := &guard{off: a.Off, basic: a.Basic}
	var err error
	if g.allow, err = prefixes(a.Allow); err != nil {
		return nil, err
	}
	if g.deny, err = prefixes(a.Deny); err != nil {
		return nil, err
	}
	if a.Signed != nil {
		g.signed = map[string]crypto.PublicKey{}
		for id, text := range a.Signed {
			if g.signed[id], err = parsePublicKey(text); err != nil {
				return nil, fmt.Errorf("key %s: %w", id, err)
			}
		}
	}
	if a.MTLS != "" {
		g.mtls = x509.NewCertPool()
		if !g.mtls.AppendCertsFromPEM([]byte(a.MTLS)) {
			return nil, errors.New("no certificate among the authorities of client certificates")
		}
	}
	return g, nil
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// addressed says whether a client's address may pass.
func (g *guard) addressed(client string) bool {
	if len(g.allow)+len(g.deny) == 0 {
		return true
	}
	a, ok := addrOf(client)
	return ok && !within(g.deny, a) && (len(g.allow) == 0 || within(g.allow, a))
}

// whyNot says why a client's address may not pass, without the port that it happened to have.
func (g *guard) whyNot(client string) string {
	a, ok := addrOf(client)
	switch {
	case !ok:
		return "the client's address is not known"
	case within(g.deny, a):
		return a.String() + " is among the addresses of edge.routes.*.auth.deny"
	}
	return a.String() + " is none of the addresses of edge.routes.*.auth.allow"
}

// denial is why a request may not pass.
type denial struct {
	page
	retry time.Duration
	realm string // asks for a password
	html  string // a page of the app's own that it is not there for a while
}

func (d *denial) show(w http.ResponseWriter, r *http.Request) {
	if d.realm != "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="`+d.realm+`", charset="UTF-8"`) // RFC 7617
	}
	if d.retry > 0 {
		retryAfter(w, d.retry)
	}
	if d.html != "" && strings.Contains(r.Header.Get("Accept"), "text/html") {
		maintenance(w, d.html)
		return
	}
	d.page.show(w, r)
}

func denied(status int, title, why string) *denial {
	return &denial{page: page{status, title, why, ""}}
}

// check asks all that a guard asks. A request that passes is changed so that the service does not get
// what was meant for the door.
func (d *Door) check(g *guard, q *routed, r *http.Request) *denial {
	if g == nil || g.off {
		return nil
	}
	if !g.addressed(q.client) {
		return denied(http.StatusForbidden, "not allowed from here", g.whyNot(q.client))
	}
	if g.mtls != nil {
		if no := certified(g.mtls, r); no != nil {
			return no
		}
	}
	if g.signed != nil {
		if err := checkSigned(g.signed, r, q.client, q.secure, time.Now()); err != nil {
			return denied(http.StatusForbidden, "this address is not signed, or no longer", err.Error())
		}
	}
	if g.basic != nil {
		return d.passwords.check(g.basic, q, r)
	}
	return nil
}

// certified asks for a client certificate of a route's own authorities. Services are told of it by the
// names that ALB uses.
func certified(cas *x509.CertPool, r *http.Request) *denial {
	for _, name := range []string{"Subject", "Issuer", "Serial-Number", "Leaf", "Validity"} {
		r.Header.Del("X-Amzn-Mtls-Clientcert-" + name)
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return denied(http.StatusForbidden, "a client certificate is needed", "none was sent")
	}
	leaf, between := r.TLS.PeerCertificates[0], x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: cas, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return denied(http.StatusForbidden, "another client certificate is needed", err.Error())
	}
	h := r.Header
	h.Set("X-Amzn-Mtls-Clientcert-Subject", printable(leaf.Subject.String()))
	h.Set("X-Amzn-Mtls-Clientcert-Issuer", printable(leaf.Issuer.String()))
	h.Set("X-Amzn-Mtls-Clientcert-Serial-Number", fmt.Sprintf("%X", leaf.SerialNumber))
	return nil
}

// printable is a name as a field can hold it.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return '?'
		}
		return c
	}, s)
}

// passwords checks Basic credentials (RFC 7617). A bcrypt comparison costs tens of milliseconds, so
// what was right once is remembered, by a keyed hash, and who guesses is slowed down.
type passwords struct {
	key     [32]byte
	guesses *limit.Rates
	turn    chan struct{} // as many comparisons at once as it holds

	mu    sync.Mutex
	known map[[32]byte]struct{}
}

const (
	mostKnown = 4096
	// A comparison is worth about 50 ms of a processor; a crowd must not have them all.
	compareAtOnce = 2
)

func newPasswords() *passwords {
	p := &passwords{guesses: limit.NewRates(limit.Rate{Requests: 30, Per: time.Minute, Burst: 10}), turn: make(chan struct{}, compareAtOnce), known: map[[32]byte]struct{}{}}
	rand.Read(p.key[:])
	return p
}

// nobody is what a user who does not exist is compared with, so that it takes as long.
var nobody = sync.OnceValue(func() []byte {
	h, _ := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	return h
})

func (p *passwords) check(users map[string]string, q *routed, r *http.Request) *denial {
	ask := denied(http.StatusUnauthorized, "a password is needed", "none was sent")
	ask.realm = q.site.App
	user, password, ok := r.BasicAuth()
	if !ok {
		return ask
	}
	ask.detail = "the one that was sent is wrong"
	hash, exists := users[user]
	if only, any := users[""]; any && !exists { // one password, whatever the name
		hash, exists = only, true
	}
	mac := hmac.New(sha256.New, p.key[:])
	fmt.Fprintf(mac, "%d %s%d %s%s", len(hash), hash, len(user), user, password)
	id := [32]byte(mac.Sum(nil))
	p.mu.Lock()
	_, known := p.known[id]
	p.mu.Unlock()
	if !known {
		if !q.told {
			if a := p.guesses.Take(limit.ClientKey(q.client)); !a.OK {
				no := denied(http.StatusTooManyRequests, "too many passwords were tried", "")
				no.retry = a.Retry
				return no
			}
		}
		select {
		case p.turn <- struct{}{}:
		case <-r.Context().Done():
			return ask
		}
		compare := []byte(hash)
		if !exists {
			compare = nobody()
		}
		wrong := bcrypt.CompareHashAndPassword(compare, []byte(password)) != nil
		<-p.turn
		if wrong || !exists {
			return ask
		}
		if !q.told {
			p.remember(id)
		}
	}
	r.Header.Del("Authorization") // it was for the door
	return nil
}

// remember spares the next comparison.
func (p *passwords) remember(id [32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= mostKnown {
		clear(p.known)
	}
	p.known[id] = struct{}{}
}
