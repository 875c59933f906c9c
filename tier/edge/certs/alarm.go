package certs

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// Alarm is a fault of one host's certificate, or its end.
type Alarm struct {
	Host  string
	Code  string // certificate-missing, certificate-renewal, certificate-expired, certificate-constraint
	Title string // one line
	Cause string // what went wrong, as the authority or the machine says
	Hint  string // what to do
	Since time.Time
	// Severe is set when visitors see errors.
	Severe bool
	// Cleared is set when the fault is mended; the other fields are those of the fault.
	Cleared bool
}

// CertStatus is what there is to know of one host's certificate.
type CertStatus struct {
	Host     string
	Issuer   string // "" while there is none; of local names, "Tenfold local authority"
	Local    bool   // signed by the local root, on demand
	NotAfter time.Time
	Lifetime time.Duration // from NotBefore to NotAfter
	Renewal  time.Time     // when it is due, as the authority suggests or at two thirds of its life
	// LastError is why the last attempt to get or renew it failed; nil after one that did not. Failed
	// counts attempts that failed in a row, since FailedSince.
	LastError   error
	Failed      int
	FailedSince time.Time
}

// Status tells of each host of SetHosts, in alphabetical order.
func (k *Keyring) Status() []CertStatus {
	k.mu.Lock()
	hosts, a := k.hosts, k.acme
	k.mu.Unlock()
	var out []CertStatus
	for _, h := range hosts {
		out = append(out, k.status(a, h))
	}
	return out
}

// Faults are what is wrong with the hosts' certificates now, in alphabetical order of the hosts: the
// alarms that have been raised and are not cleared.
func (k *Keyring) Faults() []Alarm {
	k.faults.mu.Lock()
	defer k.faults.mu.Unlock()
	return slices.SortedFunc(maps.Values(k.faults.open), func(a, b Alarm) int { return strings.Compare(a.Host, b.Host) })
}

var errConstraint = errors.New("the local authority may sign names below .localhost, .local, .internal, .lan and .home.arpa, and addresses of private networks, only")

func (k *Keyring) status(a *acme, host string) CertStatus {
	if !Public(host) {
		s := CertStatus{Host: host, Local: true, Issuer: k.local.cert.Subject.Organization[0], NotAfter: k.local.cert.NotAfter, Lifetime: rootLife, Renewal: k.local.cert.NotAfter}
		if !k.local.may(strings.TrimPrefix(host, "*.")) {
			s.LastError, s.Failed = errConstraint, 1
		}
		return s
	}
	t := a.tryOf(host)
	if t.failed == 0 && host[0] != '*' {
		t = a.tryOf(wildcard(host)) // which covers host, if it is asked for
	}
	s := CertStatus{Host: host, LastError: t.err, Failed: t.failed, FailedSince: t.since}
	if c := a.find(host); c != nil {
		s.NotAfter = c.Leaf.NotAfter
		s.Lifetime = c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
		s.Renewal = c.Leaf.NotBefore.Add(s.Lifetime * 2 / 3)
		if info := a.renewalInfo(c); !info.IsZero() {
			s.Renewal = info
		}
		s.Issuer = c.Leaf.Issuer.CommonName
		if len(c.Leaf.Issuer.Organization) > 0 {
			s.Issuer = c.Leaf.Issuer.Organization[0] + " " + s.Issuer
		}
	}
	return s
}

// faults remembers which alarms have been raised, so that each is raised once.
type faults struct {
	tell func(Alarm)

	mu   sync.Mutex
	open map[string]Alarm // by host
}

func newFaults(tell func(Alarm)) *faults {
	if tell == nil {
		tell = func(Alarm) {}
	}
	return &faults{tell: tell, open: map[string]Alarm{}}
}

// judge raises what is new, clears what is mended, and keeps silent of the rest.
func (f *faults) judge(now time.Time, all []CertStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := map[string]bool{}
	for _, s := range all {
		seen[s.Host] = true
		is := fault(now, s)
		was, had := f.open[s.Host]
		if is.Code == was.Code {
			continue
		}
		if had {
			f.clear(was)
		}
		if is.Code != "" {
			is.Since = now
			f.open[s.Host] = is
			f.tell(is)
		}
	}
	for h, was := range f.open {
		if !seen[h] { // no longer served, so no longer at fault
			f.clear(was)
		}
	}
}

func (f *faults) clear(a Alarm) {
	delete(f.open, a.Host)
	a.Cleared = true
	f.tell(a)
}

// fault is what is wrong with a certificate. A single renewal that fails is nothing yet: weeks are
// left, and authorities have bad hours. Three in a row are, and so is a failure with less than a
// fifth of the life left, by when two renewals should have been.
func fault(now time.Time, s CertStatus) Alarm {
	a := Alarm{Host: s.Host, Cause: "no attempt to renew it has been made", Hint: hintOf(s.Host, s.LastError)}
	if s.LastError != nil {
		a.Cause = cause(s.LastError)
	} else if s.Local {
		a.Cause = "the root of the local authority is at the end of its life"
		a.Hint = "remove local/root.pem in the folder of certificates and start again: another root is made, to be trusted anew by tenfold trust"
	}
	left := s.NotAfter.Sub(now)
	switch {
	case errors.Is(s.LastError, errConstraint):
		a.Code, a.Title = "certificate-constraint", fmt.Sprintf("browsers will not accept the certificate of %s", s.Host)
	case s.NotAfter.IsZero() && s.Failed > 0:
		a.Code, a.Title, a.Severe = "certificate-missing", fmt.Sprintf("%s has no certificate", s.Host), true
	case s.NotAfter.IsZero():
		return Alarm{}
	case left <= 0:
		a.Code, a.Title, a.Severe = "certificate-expired", fmt.Sprintf("the certificate of %s has expired", s.Host), true
	case s.Failed >= 3 || s.Failed > 0 && left < s.Lifetime/5 || left < s.Lifetime/10:
		a.Code, a.Title = "certificate-renewal", fmt.Sprintf("the certificate of %s is not renewed; it expires on %s", s.Host, s.NotAfter.UTC().Format(time.DateTime+" UTC"))
	default:
		return Alarm{}
	}
	return a
}

// cause is the authority's own words where there are some; subproblems say more than their problem.
func cause(err error) string {
	var p rfc8555.Problem
	var dnsErr *errProvider
	if errors.As(err, &dnsErr) {
		return dnsErr.Error()
	}
	if !errors.As(err, &p) {
		return err.Error()
	}
	out := p.Detail
	for _, s := range p.Subproblems {
		out += "; " + s.Identifier.Value + ": " + s.Detail
	}
	if out == "" {
		out = p.Type
	}
	return out
}

// hintOf says what to do about err (the types are of RFC 8555 §6.7).
func hintOf(host string, err error) string {
	var p rfc8555.Problem
	var netErr net.Error
	var urlErr *url.Error
	var dnsErr *errProvider
	switch {
	case err == nil:
		return "look at the log of the door for the authority's answers"
	case errors.Is(err, errConstraint):
		return "rename the host to one below .localhost, .local, .internal, .lan or .home.arpa, or to a public name"
	case errors.Is(err, errNoDNS):
		return "name a provider in edge.tls.dns, or list the hosts without a wildcard"
	case errors.Is(err, errNoChallenge):
		return "listen on ports 80 and 443, or name a provider in edge.tls.dns"
	case errors.As(err, &dnsErr):
		return fmt.Sprintf("see that the secret of edge.tls.dns.%s has credentials for the zone of %s (docs/certificates.md): tenfold secrets set, then deploy", dnsErr.name, strings.TrimPrefix(host, "*."))
	case errors.As(err, &p):
		switch strings.TrimPrefix(p.Type, rfc8555.ProblemTypeNamespace) {
		case "dns":
			return fmt.Sprintf("let an A or AAAA record of %s name this machine's public address", host)
		case "connection", "tls":
			return fmt.Sprintf("ports 80 and 443 of the address that %s has in the DNS must reach this machine from the internet: see firewall and port forwarding", host)
		case "unauthorized", "incorrectResponse":
			return fmt.Sprintf("the authority did not find this machine at %s: its A and AAAA records must name this machine and no other, and ports 80 and 443 must reach it through firewalls", host)
		case "caa":
			return fmt.Sprintf("a CAA record of %s or a parent forbids this authority: add one for it, or remove the record", host)
		case "rateLimited":
			return "wait: the authority issues so many certificates a week, and the attempt is repeated by itself; use a staging directory for tests"
		case "rejectedIdentifier":
			return fmt.Sprintf("the authority never certifies %s: use another name, or another authority", host)
		}
	case errors.As(err, &urlErr), errors.As(err, &netErr):
		return "the authority must be reachable from this machine: see its DNS resolver, outgoing firewall and clock"
	}
	return "it is tried again by itself; the log of the door has the details"
}
