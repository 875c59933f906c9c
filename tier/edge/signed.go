package edge

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// CloudFront's signed URLs and signed cookies, with its canned and its custom policies, as the AWS
// documentation has them ("Serving private content with signed URLs and signed cookies"). Signatures
// are over SHA-1, by RSA (PKCS #1 v1.5) or ECDSA (ASN.1): that is what its signers make. SHA-1's
// weakness, collisions, helps nobody who cannot choose what is signed.

// The names of the parameters; of the cookies with "CloudFront-" before.
const (
	signedExpires   = "Expires"
	signedPolicy    = "Policy"
	signedSignature = "Signature"
	signedKey       = "Key-Pair-Id"
	signedCookie    = "CloudFront-"
	mostPolicy      = 8 << 10 // bytes
)

var signedNames = []string{signedExpires, signedPolicy, signedSignature, signedKey}

// policy is a custom policy.
type policy struct {
	Statement []struct {
		Resource  string
		Condition struct {
			DateLessThan    *epoch
			DateGreaterThan *epoch
			IPAddress       *struct {
				SourceIP string `json:"AWS:SourceIp"`
			} `json:"IpAddress"`
		}
	}
}

type epoch struct {
	Time int64 `json:"AWS:EpochTime"`
}

var errUnsigned = errors.New("it has no signature")

// checkSigned verifies a request and takes what it was signed with out of its URL and cookies, so that
// neither the service nor the cache sees it. Parameters win over cookies. secure says that the client
// asked over TLS: what it asked for, and what was signed, is an address of https then.
func checkSigned(keys map[string]crypto.PublicKey, r *http.Request, client string, secure bool, now time.Time) error {
	bare, params := splitSigned(r.URL.RawQuery)
	from := func(name string) string { return params[name] }
	if params[signedSignature] == "" {
		from = func(name string) string {
			c, err := r.Cookie(signedCookie + name)
			if err != nil {
				return ""
			}
			return c.Value
		}
		bare = r.URL.RawQuery
	}
	signature, id := from(signedSignature), from(signedKey)
	if signature == "" || id == "" {
		return errUnsigned
	}
	key, ok := keys[id]
	if !ok {
		return fmt.Errorf("no key %q is known", id)
	}
	sig, err := decodeSigned(signature)
	if err != nil {
		return errors.New("its signature is not well-formed")
	}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	asked := scheme + "://" + r.Host + r.URL.EscapedPath()
	if bare != "" {
		asked += "?" + bare
	}
	var text []byte
	if encoded := from(signedPolicy); encoded != "" {
		if text, err = decodeSigned(encoded); err != nil || len(text) > mostPolicy {
			return errors.New("its policy is not well-formed")
		}
	} else {
		expires, err := strconv.ParseInt(from(signedExpires), 10, 64)
		if err != nil {
			return errors.New("it says neither when it expires nor a policy")
		}
		text = cannedPolicy(asked, expires)
	}
	if err := verifySigned(key, text, sig); err != nil {
		return err
	}
	var p policy
	if err := json.Unmarshal(text, &p); err != nil || len(p.Statement) != 1 {
		return errors.New("its policy is not well-formed")
	}
	if err := p.allows(asked, client, now); err != nil {
		return err
	}
	r.URL.RawQuery = bare
	dropSignedCookies(r.Header)
	return nil
}

// cannedPolicy is the text that a signer makes when nobody gives a policy.
func cannedPolicy(resource string, expires int64) []byte {
	return []byte(`{"Statement":[{"Resource":"` + resource + `","Condition":{"DateLessThan":{"AWS:EpochTime":` + strconv.FormatInt(expires, 10) + `}}}]}`)
}

// allows says whether a policy's one statement covers a request.
func (p *policy) allows(asked, client string, now time.Time) error {
	s := p.Statement[0]
	switch c := s.Condition; {
	case c.DateLessThan == nil:
		return errors.New("its policy does not say when it ends")
	case now.Unix() >= c.DateLessThan.Time:
		return errors.New("it has expired")
	case c.DateGreaterThan != nil && now.Unix() <= c.DateGreaterThan.Time:
		return errors.New("it is not valid yet")
	case c.IPAddress != nil:
		a, ok := addrOf(client)
		in, err := parseNetwork(c.IPAddress.SourceIP)
		if !ok || err != nil || !in.Contains(a) {
			return errors.New("it is for another address")
		}
	}
	resource := s.Resource
	if resource == "" {
		resource = "*"
	}
	if !wild(resource, asked) {
		return errors.New("it is for another resource")
	}
	return nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// wild matches a resource of a policy, in which * stands for any characters and ? for one.
func wild(pattern, s string) bool {
	star, from := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, from = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i++
			j++
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// decodeSigned is CloudFront's base64: +, = and / are -, _ and ~.
func decodeSigned(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "=", "~", "/").Replace(s))
}

func verifySigned(key crypto.PublicKey, text, sig []byte) error {
	sum := sha1.Sum(text)
	switch k := key.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(k, crypto.SHA1, sum[:], sig) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(k, sum[:], sig) {
			return nil
		}
	}
	return errors.New("its signature does not fit")
}

// splitSigned takes the signers' parameters out of a query, and leaves the rest as it was written.
func splitSigned(query string) (bare string, params map[string]string) {
	params = map[string]string{}
	var rest []string
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		ours := false
		for _, n := range signedNames {
			if name == n {
				v, err := url.QueryUnescape(value)
				if _, twice := params[n]; err == nil && !twice {
					params[n] = v
				}
				ours = true
			}
		}
		if !ours && part != "" {
			rest = append(rest, part)
		}
	}
	return strings.Join(rest, "&"), params
}

func dropSignedCookies(h http.Header) {
	lines := h["Cookie"]
	if len(lines) == 0 {
		return
	}
	var kept []string
	for _, line := range lines {
		for c := range strings.SplitSeq(line, ";") {
			if c = strings.TrimSpace(c); c != "" && !strings.HasPrefix(c, signedCookie) {
				kept = append(kept, c)
			}
		}
	}
	h.Del("Cookie")
	if len(kept) > 0 {
		h.Set("Cookie", strings.Join(kept, "; "))
	}
}

// parsePublicKey reads a key in PEM that can verify signatures.
func parsePublicKey(text string) (crypto.PublicKey, error) {
	b, _ := pem.Decode([]byte(text))
	if b == nil {
		return nil, errors.New("it is not PEM")
	}
	if k, err := x509.ParsePKCS1PublicKey(b.Bytes); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, err
	}
	switch k.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return k, nil
	}
	return nil, errors.New("it is neither RSA nor ECDSA")
}
