package certs

import (
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"
)

// Full handshakes of TLS 1.3, client's work included: by the keyring, and by a configuration with
// nothing but a certificate.
func BenchmarkHandshake(b *testing.B) {
	k, err := New(Config{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	k.SetClientCAs("admin.localhost", k.pool())
	leaf, err := k.local.leaf("shop.localhost", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	plain := &tls.Config{Certificates: []tls.Certificate{*leaf}}
	for _, c := range []struct {
		name, host string
		conf       *tls.Config
	}{{"keyring", "shop.localhost", k.TLSConfig()}, {"asking", "admin.localhost", k.TLSConfig()}, {"plain", "shop.localhost", plain}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				near, far := net.Pipe()
				done := make(chan error, 1)
				go func() { done <- tls.Server(far, c.conf).Handshake() }()
				client := tls.Client(near, &tls.Config{ServerName: c.host, RootCAs: k.pool()})
				if err := client.Handshake(); err != nil {
					b.Fatal(err)
				}
				go client.Read(make([]byte, 1)) // takes the session ticket
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				near.Close()
				far.Close()
			}
		})
	}
}
