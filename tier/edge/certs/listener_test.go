package certs

import (
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"
)

func TestLocalRenewsAtHalfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := OpenLocal(t.TempDir(), "localhost", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		first, err := l.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(l.Root())
		for _, name := range []string{"localhost", "127.0.0.1"} {
			if _, err := first.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: time.Now()}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if again, _ := l.Certificate(); again != first {
			t.Error("another at once")
		}
		time.Sleep(leafLife/2 + time.Hour)
		if next, err := l.Certificate(); err != nil || next == first {
			t.Error("the same after half its life", err)
		}
	})
	if _, err := OpenLocal(t.TempDir(), "shop.example.com"); err == nil {
		t.Error("a public name was taken")
	}
}
