package pgproxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/enginetest"
	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

// authority makes a root, as a file for clients, and certificates of 127.0.0.1 signed by it.
func authority(t testing.TB) (root string, leaf func() *tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return root, func() *tls.Certificate {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "pool"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		der, err := x509.CreateCertificate(rand.Reader, c, of, own.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own, Leaf: parsed}
	}
}

// secured is a pool that offers TLS.
func secured(t testing.TB, change ...func(*pooldir.Database)) (f *fixture, root string) {
	root, leaf := authority(t)
	c := leaf()
	u, err := url.Parse(enginetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	return made(t, u.Host, Config{Certificate: func() (*tls.Certificate, error) { return c, nil }}, change...), root
}

func (f *fixture) try(url string) (*pgx.Conn, error) {
	c, err := pgx.Connect(context.Background(), url)
	if err == nil {
		f.t.Cleanup(func() { c.Close(context.Background()) })
	}
	return c, err
}

func TestTLS(t *testing.T) {
	f, root := secured(t)
	f.exec(f.connect(), "create table big (s text)")
	for _, mode := range []string{"disable", "prefer", "require", "verify-ca", "verify-full", "verify-full&sslnegotiation=direct", "verify-full&channel_binding=require", "verify-full&channel_binding=disable", "verify-full&sslnegotiation=direct&channel_binding=require"} {
		url := "postgresql://test:secret@" + f.addr + "/postgres?sslmode=" + mode
		if strings.HasPrefix(mode, "verify") {
			url += "&sslrootcert=" + root
		}
		c, err := f.try(url)
		if err != nil {
			t.Errorf("%s: %v", mode, err)
			continue
		}
		if _, is := c.PgConn().Conn().(*tls.Conn); is != (mode != "disable") {
			t.Errorf("%s: TLS is %v", mode, is)
		}
		// More than a record, and more than the socket takes at once, both ways.
		long := strings.Repeat("0123456789abcdef", 40_000)
		if got := one[string](f, c, "select $1::text || repeat('x', 1000000)", long); len(got) != len(long)+1000000 || got[:len(long)] != long {
			t.Errorf("%s: %d bytes of %d came back", mode, len(got), len(long)+1000000)
		}
		if _, err := c.CopyFrom(context.Background(), pgx.Identifier{"big"}, []string{"s"}, pgx.CopyFromRows([][]any{{long}, {long}})); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		for i := range 100 {
			if n := one[int](f, c, "select $1::int", i); n != i {
				t.Fatal(n, i)
			}
		}
	}
	// Two other roots, and the right one.
	other, _ := authority(t)
	if _, err := f.try("postgresql://test:secret@" + f.addr + "/postgres?sslmode=verify-ca&sslrootcert=" + other); err == nil {
		t.Error("a client trusts another authority's certificate")
	}
	if _, err := f.try("postgresql://test:wrong@" + f.addr + "/postgres?sslmode=require"); !isCode(err, "28P01") {
		t.Error(err)
	}
}

func isCode(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

// Many clients at once, each with its own answers, cancelled queries and clients that are cut off.
func TestTLSUnderLoad(t *testing.T) {
	f, root := secured(t)
	url := "postgresql://test:secret@" + f.addr + "/postgres?sslmode=verify-full&sslrootcert=" + root
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			for i := range 4 {
				c, err := pgx.Connect(context.Background(), url)
				if err != nil {
					t.Error(err)
					return
				}
				want := fmt.Sprintf("%d.%d", n, i)
				var got string
				if err := c.QueryRow(context.Background(), "select $1::text || repeat(' ', $2)", want, i*1000).Scan(&got); err != nil || strings.TrimSpace(got) != want {
					t.Errorf("%s: %q %v", want, got, err)
				}
				if i%3 == 0 {
					c.PgConn().Conn().(*tls.Conn).NetConn().Close()
				}
				c.Close(context.Background())
			}
		})
	}
	all.Wait()
	c, err := f.try(url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, "select pg_sleep(30)"); err == nil {
		t.Error("was not cancelled")
	}
}

// libpq is what most clients are. 15 speaks no direct TLS.
func TestTLSOfLibpq(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("no psql")
	}
	f, root := secured(t)
	ask := func(conn string) (string, error) {
		out, err := exec.Command(psql, "-XAtc", "select 41 + 1", "postgresql://"+conn).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	at := "@" + f.addr + "/postgres?sslmode="
	for _, mode := range []string{"disable", "require", "verify-ca&sslrootcert=" + root, "verify-full&channel_binding=require&sslrootcert=" + root} {
		if out, err := ask("test:secret" + at + mode); err != nil || out != "42" {
			t.Errorf("%s: %s %v", mode, out, err)
		}
	}
	token := NewToken(f.db.ID, f.db.Users[0], time.Now().Add(time.Minute))
	if out, err := ask("test+token:" + token + at + "verify-full&sslrootcert=" + root); err != nil || out != "42" {
		t.Errorf("token: %s %v", out, err)
	}
	f.put(func(db *pooldir.Database) { db.MD5 = true })
	if out, err := ask("test:secret" + at + "require"); err != nil || out != "42" {
		t.Errorf("md5: %s %v", out, err)
	}
	if out, err := ask("test:wrong" + at + "disable"); err == nil {
		t.Errorf("md5: %s", out)
	}
}

func TestTokens(t *testing.T) {
	f, root := secured(t)
	u := f.db.Users[0]
	later := time.Now().Add(time.Minute)
	good := NewToken(f.db.ID, u, later)
	login := func(user, token string) string {
		return "postgresql://" + user + ":" + token + "@" + f.addr + "/postgres?sslmode=verify-full&sslrootcert=" + root
	}
	c, err := f.try(login("test+token", good))
	if err != nil {
		t.Fatal(err)
	}
	if user := one[string](f, c, "select current_user::text"); user != "test" {
		t.Error(user)
	}
	if _, err := f.try(strings.Replace(login("test+token", good), "verify-full", "disable", 1)); err != nil {
		t.Error("on loopback:", err)
	}
	for what, token := range map[string]string{
		"of another database": NewToken("shop/production/database/other", u, later),
		"of another user":     NewToken(f.db.ID, pooldir.User{Name: "else", Password: u.Password}, later),
		"by another key":      NewToken(f.db.ID, pooldir.User{Name: "test", Password: "other"}, later),
		"that is over":        NewToken(f.db.ID, u, time.Now().Add(-time.Second)),
		"that was changed":    good[:20] + "A" + good[21:],
		"that is the secret":  u.Password,
		"that is empty":       "x",
	} {
		if _, err := f.try(login("test+token", token)); !isCode(err, "28P01") {
			t.Errorf("a token %s: %v", what, err)
		}
	}
	if _, err := f.try(login("nobody+token", good)); !isCode(err, "28P01") {
		t.Error(err)
	}
	if _, err := f.try(login("test", good)); !isCode(err, "28P01") {
		t.Error("a token as a password:", err)
	}
	// A new password ends it.
	f.put(func(db *pooldir.Database) { db.Users = []pooldir.User{{Name: "test", Password: "new"}} })
	if _, err := f.try(login("test+token", good)); !isCode(err, "28P01") {
		t.Error(err)
	}
}

// A client that thinks that the server cannot bind, where it can, was lied to by somebody in between.
func TestDowngradedBindingIsRefused(t *testing.T) {
	keys := pgwire.NewKeys("p")
	begin := func(x *pgwire.Exchange, mechanism, msg string) error {
		_, err := x.Begin(keys, append(append([]byte(mechanism), 0, 0, 0, 0, byte(len(msg))), msg...))
		return err
	}
	bound := &pgwire.Exchange{Binding: []byte("hash")}
	if err := begin(bound, pgwire.Mechanism, "y,,n=,r=abc"); err == nil {
		t.Error("y over TLS was taken")
	}
	if err := begin(bound, pgwire.MechanismPlus, "n,,n=,r=abc"); err == nil {
		t.Error("PLUS without binding was taken")
	}
	if err := begin(bound, pgwire.MechanismPlus, "p=tls-unique,,n=,r=abc"); err == nil {
		t.Error("tls-unique was taken")
	}
	if err := begin(bound, pgwire.MechanismPlus, "p=tls-server-end-point,,n=,r=abc"); err != nil {
		t.Error(err)
	}
	if err := begin(&pgwire.Exchange{}, pgwire.MechanismPlus, "p=tls-server-end-point,,n=,r=abc"); err == nil {
		t.Error("PLUS without TLS was taken")
	}
	if err := begin(&pgwire.Exchange{}, pgwire.Mechanism, "y,,n=,r=abc"); err != nil {
		t.Error(err)
	}
}

// What is no PostgreSQL, and handshakes that never end, cost nothing but their connection.
func TestTLSOfOthers(t *testing.T) {
	f, _ := secured(t)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for what, conf := range map[string]*tls.Config{"no protocol": {}, "another": {NextProtos: []string{"h2"}}} {
		conf.InsecureSkipVerify = true
		c := tls.Client(dial(), conf)
		err := c.Handshake()
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	half := dial()
	half.Write([]byte{0x16, 3, 1, 0, 200, 1})
	injected := dial()
	injected.Write(append([]byte{0, 0, 0, 8, 4, 210, 22, 47}, "startup in plain"...))
	if _, err := io.ReadAll(injected); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	if n := one[int](f, f.connect(), "select 1"); n != 1 {
		t.Error(n)
	}
	f.stop() // with the half one open: it must not wait for it
}

func TestLimits(t *testing.T) {
	f := begin(t, func(db *pooldir.Database) { db.ServiceLimit, db.Users[0].Limit = 2, 5 })
	as := func(app string) error {
		_, err := f.try(f.dsn() + "&application_name=" + app)
		return err
	}
	for _, app := range []string{"api", "job", "api"} {
		if err := as(app); err != nil {
			t.Fatal(err)
		}
	}
	if err := as("api"); !isCode(err, "53300") || !strings.Contains(err.Error(), `application "api"`) {
		t.Error(err)
	}
	one := []string{"job", "web"}
	for _, app := range one {
		if err := as(app); err != nil {
			t.Fatal(err)
		}
	}
	if err := as("else"); !isCode(err, "53300") || !strings.Contains(err.Error(), `user "test"`) {
		t.Error(err)
	}
	if _, err := f.try(strings.Replace(f.dsn(), "secret", "wrong", 1)); !isCode(err, "28P01") {
		t.Error("a wrong password is told more:", err)
	}
}

// One service that floods the pool does not make the others wait behind all of its clients.
func TestOneServiceDoesNotStarveTheOthers(t *testing.T) {
	f := begin(t, func(db *pooldir.Database) { db.Pool = 1 })
	open := func(app string) *pgx.Conn {
		c, err := f.try(f.dsn() + "&application_name=" + app)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	holder := open("holder")
	f.exec(holder, "create table came (at serial, app text)")
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ask := func(app string) {
		c := open(app)
		all.Go(func() {
			if _, err := c.Exec(t.Context(), "insert into came (app) values ($1)", app); err != nil {
				t.Error(err)
			}
		})
	}
	waiting := func(n int) {
		for f.state().Waiting < n { // each look asks the loop
		}
	}
	for n := range 12 {
		ask("flood")
		waiting(n + 1)
	}
	ask("quiet")
	waiting(13)
	tx.Rollback(t.Context())
	all.Wait()
	// A statement may take two turns: it is prepared first.
	if at := one[int](f, holder, "select at from came where app = 'quiet'"); at > 3 {
		t.Errorf("it was answered as number %d of 13", at)
	}
}
