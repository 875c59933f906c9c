package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// writeCertificate makes the peers' certificate: ECDSA P-256, as ours are, with its key in one file.
func writeCertificate(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: private})
	return os.WriteFile(file, b.Bytes(), 0o600)
}

// writeStatic lays out for nginx the files that the tasks answer with.
func writeStatic(dir string) error {
	body := bytes.Repeat([]byte("0123456789abcdef"), large/16)
	return errors.Join(
		os.MkdirAll(filepath.Join(dir, "h"), 0o755),
		os.WriteFile(filepath.Join(dir, "h", "1k"), body[:small], 0o644),
		os.WriteFile(filepath.Join(dir, "h", "64k"), body, 0o644),
	)
}

// writeRelease lays out the frontend of release n: a page that names n and its two parts, each named
// by the hash of what it holds, so that a client can tell a whole release from a mixed one.
func writeRelease(dir string, n int) error {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "assets"), 0o755)); err != nil {
		return err
	}
	page := fmt.Sprintf("<!doctype html><title>release %d</title>\n", n)
	for _, part := range []string{"js", "css"} {
		text := fmt.Appendf(nil, "/* %s of release %d */\n", part, n)
		name := fmt.Sprintf("app.%s.%s", fmt.Sprintf("%x", sha256.Sum256(text))[:16], part)
		if err := os.WriteFile(filepath.Join(dir, "assets", name), text, 0o644); err != nil {
			return err
		}
		page += fmt.Sprintf("<link href=/assets/%s>\n", name)
	}
	page += fmt.Sprintf("<p>this was release %d</p>\n", n)
	return os.WriteFile(filepath.Join(dir, "index.html"), []byte(page), 0o644)
}
