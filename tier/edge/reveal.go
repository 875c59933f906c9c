package edge

import (
	"context"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/tier/edge/certs"
)

// reveal resolves the secrets that a spec's rules name, into what the door may know of them.
func (e *Edge) reveal(ctx context.Context, s spec) (spec, error) {
	if d := s.DNS; d != nil {
		value, err := e.cfg.Resolve(ctx, d.Secret)
		if err != nil {
			return s, err
		}
		if err := CheckDNS(*d, value); err != nil {
			return s, err
		}
	}
	if len(s.Auth) == 0 {
		return s, nil
	}
	s.Rules = slices.Clone(s.Rules)
	for i, r := range s.Rules {
		of, ok := s.Auth[r.Pattern]
		if !ok {
			continue
		}
		a := *r.Auth
		for _, k := range []struct {
			from *tenfold.Binding
			into func(string) error
		}{
			{of.Basic, func(v string) (err error) { a.Basic, err = readUsers(v); return }},
			{of.MTLS, func(v string) (err error) { a.MTLS, err = readAuthorities(v); return }},
			{of.Signed, func(v string) (err error) { a.Signed, err = readKeys(v); return }},
		} {
			if k.from == nil {
				continue
			}
			value, err := e.cfg.Resolve(ctx, *k.from)
			if err != nil {
				return s, err
			}
			if err := k.into(value); err != nil {
				return s, tenfold.Errorf(tenfold.CodeInvalid, "edge.routes.%s.auth: secret %s: %w", r.Pattern, k.from.From.Name, err).
					WithHint("set it anew: tenfold secrets set %s --app %s; then deploy", k.from.From.Name, k.from.From.App)
			}
		}
		s.Rules[i].Auth = &a
	}
	return s, nil
}

// CheckDNS says whether a secret's value has the form of a provider's credentials; whether they are good
// only the provider knows.
func CheckDNS(d tenfold.DNS, value string) error {
	if _, err := certs.BuiltinDNS.Open(certs.DNS{Provider: d.Provider, Credentials: value}); err != nil {
		name, app := d.Secret.From.Name, d.Secret.From.App
		return tenfold.Errorf(tenfold.CodeInvalid, "edge.tls.dns.%s: secret %s: %w", d.Provider, name, err).
			WithHint("docs/certificates.md says what it holds; set it anew: tenfold secrets set %s --app %s; then deploy", name, app)
	}
	return nil
}

// dns is what the door may know of a site's DNS: all of it, since it works without the daemon. Versions
// of secrets never change, so each is looked up once. One that cannot be
// read is empty, which the door says is a fault of the certificate: what is served does not wait for it.
// The caller holds e.turn.
func (e *Edge) dns(ctx context.Context, d *tenfold.DNS) *directory.DNS {
	if d == nil {
		return nil
	}
	value, ok := e.credentials[d.Secret]
	if !ok {
		value, _ = e.cfg.Resolve(ctx, d.Secret)
	}
	return &directory.DNS{Provider: d.Provider, Credentials: value, Version: d.Secret.Version, Wildcards: d.Wildcards}
}

// contactOf is the contact of the house: the one it has, while any app says it, since another is another
// account with the authority; else the first by the app's name.
func contactOf(now string, of map[tenfold.ID]string) string {
	ids := slices.SortedFunc(maps.Keys(of), func(a, b tenfold.ID) int { return strings.Compare(a.String(), b.String()) })
	for _, id := range ids {
		if of[id] == now {
			return now
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return of[ids[0]]
}

// readUsers reads lines of user:password. A password that is a bcrypt hash already is taken as it is,
// any other is hashed. Empty lines and those that begin with # say nothing.
func readUsers(text string) (map[string]string, error) {
	users := map[string]string{}
	for n, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, password, ok := strings.Cut(line, ":")
		if !ok || user == "" || password == "" {
			return nil, fmt.Errorf("line %d is not user:password", n+1)
		}
		if _, err := bcrypt.Cost([]byte(password)); err != nil {
			if strings.HasPrefix(password, "$") || strings.HasPrefix(password, "{") {
				return nil, fmt.Errorf("line %d has a hash other than bcrypt: make it by htpasswd -B", n+1)
			}
			hash, err := HashPassword(password)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
			password = hash
		}
		users[user] = password
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("it has no line user:password")
	}
	return users, nil
}

// HashPassword makes what the door compares with, of at most 72 bytes, which is all that bcrypt reads.
func HashPassword(password string) (string, error) {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	return string(h), err
}

// readAuthorities checks that there are certificates, and keeps nothing else: a private key that was
// put in by mistake does not reach the door.
func readAuthorities(text string) (string, error) {
	var out strings.Builder
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" {
			pem.Encode(&out, &pem.Block{Type: b.Type, Bytes: b.Bytes})
		}
	}
	if _, err := newGuard(&directory.Auth{MTLS: out.String()}); err != nil || out.Len() == 0 {
		return "", fmt.Errorf("it has no certificate of an authority in PEM")
	}
	return out.String(), nil
}

// readKeys reads public keys in PEM, each after a line with its id.
func readKeys(text string) (map[string]string, error) {
	keys := map[string]string{}
	for rest := []byte(text); ; {
		at := strings.Index(string(rest), "-----BEGIN")
		if at < 0 {
			break
		}
		lines := strings.Fields(string(rest[:at]))
		b, left := pem.Decode(rest)
		if b == nil {
			// Without a word of the text: it may be another secret's, put here by mistake.
			return nil, fmt.Errorf("what begins on line %d is not PEM: each key is a line with its id, and below it -----BEGIN PUBLIC KEY----- on a line of its own", 1+strings.Count(text[:len(text)-len(rest)+at], "\n"))
		}
		if len(lines) != 1 || strings.TrimSuffix(lines[0], ":") == "" {
			return nil, fmt.Errorf("before each key stands a line with its id, and nothing else")
		}
		id := strings.TrimSuffix(lines[0], ":")
		one := string(pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: b.Bytes}))
		if _, err := parsePublicKey(one); err != nil {
			return nil, fmt.Errorf("key %s: %w", id, err)
		}
		if _, twice := keys[id]; twice {
			return nil, fmt.Errorf("key %s stands twice", id)
		}
		keys[id], rest = one, left
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("it has no public key in PEM")
	}
	return keys, nil
}
