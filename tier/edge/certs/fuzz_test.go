package certs

import (
	"crypto/tls"
	"log/slog"
	"testing"
)

// Whatever name a client sends, it gets a certificate that covers that name, or none.
func FuzzServerName(f *testing.F) {
	k, err := New(Config{Dir: f.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	k.SetHosts([]string{"nas", "*.apps.local"})
	for _, s := range []string{"shop.localhost", "", "nas", "*.localhost", "a\x00b.localhost", "xn--bcher-kva.localhost", "[::1]:1", "127.0.0.1", "fe80::1%eth0", "a..localhost", ".localhost", "LOCALHOST.", "8.8.8.8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c, err := k.certificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || normal(name) == "" {
			return
		}
		if err := c.Leaf.VerifyHostname(normal(name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	})
}
