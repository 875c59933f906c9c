package cache

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/keeper/keepertest"
)

func TestMain(m *testing.M) { keepertest.Main(m, nil) }

var id = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindCache, Name: "cache"}

// fixture is a tier with real servers, held by a real keeper.
type fixture struct {
	*Cache
	house *keepertest.House
	cfg   Config

	mu     sync.Mutex
	events []tenfold.Event
}

func begin(t *testing.T) *fixture {
	t.Helper()
	if _, err := engines.Cache(t.Context(), "", 0); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no engine to test with: %v (apt-get install redis-server)", err)
	}
	f := &fixture{house: keepertest.Start(t)}
	f.cfg = Config{Dir: filepath.Join(f.house.Dir, "cache"), Units: f.house, Emit: func(e tenfold.Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.events = append(f.events, e)
	}}
	return f
}

// open runs the tier, as a daemon that starts; what it returns ends it.
func (f *fixture) open(t *testing.T) (stop func()) {
	t.Helper()
	var err error
	if f.Cache, err = New(f.cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, func() {}) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func (f *fixture) apply(t *testing.T, verb tenfold.Verb, d tenfold.Cache) {
	t.Helper()
	want, err := f.Desired(tenfold.App{Name: "shop", Env: "production", Caches: map[tenfold.Name]tenfold.Cache{"cache": d}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(t.Context(), tenfold.Step{Verb: verb, Want: want[0]}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) start(t *testing.T, d tenfold.Cache) {
	t.Helper()
	if d.Size == 0 {
		d.Size = 8 << 20
	}
	if d.Evict == "" {
		d.Evict = "allkeys-lru"
	}
	f.apply(t, tenfold.VerbStart, d)
}

func (f *fixture) await(t *testing.T, what string, ok func(tenfold.Resource) bool) tenfold.Resource {
	t.Helper()
	var last []tenfold.Resource
	for begun := time.Now(); time.Since(begun) < 30*time.Second; <-time.After(10 * time.Millisecond) {
		if last, _ = f.Observe(t.Context()); len(last) == 1 && ok(last[0]) {
			return last[0]
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Fatalf("not %s: %+v\n%+v", what, last, f.events)
	return tenfold.Resource{}
}

func ready(r tenfold.Resource) bool { return r.State == tenfold.StateReady }

// settled waits until so many readers follow and serve.
func (f *fixture) settled(t *testing.T, readers int) {
	t.Helper()
	f.await(t, "settled", func(r tenfold.Resource) bool {
		x, _ := f.get(id.String())
		f.Cache.mu.Lock()
		v := f.seen[id.String()]
		f.Cache.mu.Unlock()
		up := 0
		for _, n := range x.staying() {
			if s := v.Nodes[n.N]; s.LinkUp && !s.Syncing && sameHosts(s.Bind, x.assign(x.Spec, v)[n.N]) {
				up++
			}
		}
		p := v.Nodes[x.Primary]
		return ready(r) && up == readers && len(x.readers()) == readers && sameHosts(p.Bind, x.assign(x.Spec, v)[x.Primary])
	})
}

func (f *fixture) said(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if strings.Contains(e.Text, text) {
			return true
		}
	}
	return false
}

// connect speaks to the cache as a service does.
func (f *fixture) connect(field tenfold.Field, by tenfold.Name) (redis.Conn, error) {
	raw, err := f.FieldFor(context.Background(), id, field, by)
	if err != nil {
		return nil, err
	}
	return dialURL(raw)
}

func dialURL(raw string) (redis.Conn, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	pw, _ := u.User.Password()
	return redis.Dial("tcp", u.Host, redis.DialUsername(u.User.Username()), redis.DialPassword(pw), redis.DialUseTLS(u.Scheme == "rediss"),
		redis.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}), redis.DialConnectTimeout(time.Second), redis.DialReadTimeout(time.Second))
}

// ask is one command over a connection of its own.
func (f *fixture) ask(field tenfold.Field, by tenfold.Name, command string, args ...any) (string, error) {
	c, err := f.connect(field, by)
	if err != nil {
		return "", err
	}
	defer c.Close()
	out, err := redis.String(c.Do(command, args...))
	if errors.Is(err, redis.ErrNil) {
		return "", nil
	}
	return out, err
}

func (f *fixture) must(t *testing.T, field tenfold.Field, command string, args ...any) string {
	t.Helper()
	out, err := f.ask(field, "", command, args...)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out
}

// eventually waits for an answer.
func (f *fixture) eventually(t *testing.T, field tenfold.Field, want, command string, args ...any) {
	t.Helper()
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		got, err := f.ask(field, "", command, args...)
		if err == nil && got == want {
			return
		}
		if time.Since(begun) > 20*time.Second {
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Fatalf("%s: %q %v, want %q\n%+v", command, got, err, want, f.events)
		}
	}
}

func (f *fixture) pid(t *testing.T, n int) int {
	t.Helper()
	all, err := f.status(t.Context(), id.String())
	if err != nil || all[n].PID == 0 {
		t.Fatal(n, err, all)
	}
	return all[n].PID
}

func (f *fixture) signal(t *testing.T, n int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(f.pid(t, n), s); err != nil {
		t.Fatal(err)
	}
}

// config is a setting of one server.
func (f *fixture) config(t *testing.T, r record, n int, name string) string {
	t.Helper()
	out, err := redis.Strings(f.do(t.Context(), r, n, askLimit, "CONFIG", "GET", name))
	if err != nil || len(out) != 2 {
		t.Fatal(name, out, err)
	}
	return out[1]
}

// certificate gives the tier a certificate that signs itself.
func certificate(t *testing.T, f *fixture) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, x, x, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p := PEM{Cert: cert, Authority: cert, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})}
	f.cfg.Certificate = func() (PEM, error) { return p, nil }
}
