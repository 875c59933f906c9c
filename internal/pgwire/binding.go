package pgwire

import (
	"crypto"
	_ "crypto/sha256" // the hashes below
	_ "crypto/sha512"
	"crypto/x509"
)

// EndPoint is what a login is bound to by tls-server-end-point: the hash of the server's certificate by
// the function of its signature, SHA-256 in place of MD5 and SHA-1 (RFC 5929 §4.1).
func EndPoint(c *x509.Certificate) []byte {
	h := crypto.SHA256
	switch c.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h = crypto.SHA512
	}
	d := h.New()
	d.Write(c.Raw)
	return d.Sum(nil)
}
