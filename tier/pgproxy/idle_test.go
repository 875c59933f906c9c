//go:build !race

package pgproxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"tenfold/internal/pgwire"
)

const idleVar = "TENFOLD_IDLE_CLIENTS"

// An idle client costs at most 8 KiB, one with TLS at most 32 KiB. The clients are another process's.
func TestIdleClientsStaySmall(t *testing.T) {
	if of := os.Getenv(idleVar); of != "" {
		beIdle(t, of)
		return
	}
	count := 500
	if n, err := strconv.Atoi(os.Getenv("TENFOLD_IDLE_COUNT")); err == nil {
		count = n
	}
	f, _ := secured(t)
	one[int](f, f.connect(), "select 1")
	for _, kind := range []struct {
		mode  string
		limit uint64
	}{{"plain", 8 << 10}, {"tls", 32 << 10}} {
		before, rss := held(), resident(t)
		cmd := exec.Command(os.Args[0], "-test.run", "TestIdleClientsStaySmall", "-test.timeout", "10m")
		cmd.Env = append(os.Environ(), idleVar+"="+kind.mode+" "+strconv.Itoa(count)+" "+f.addr)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if said, _ := bufio.NewReader(out).ReadString('\n'); said != "idle\n" {
			t.Fatalf("%s: %q", kind.mode, said)
		}
		each, grown := (held()-before)/uint64(count), (resident(t)-rss)/count
		t.Logf("%s: %d clients, %d bytes each; resident %d bytes each", kind.mode, f.state().Clients, each, grown)
		if each > kind.limit {
			t.Errorf("an idle client costs %d bytes, at most %d", each, kind.limit)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// held is what the process has in use, twice collected: stacks shrink with the first.
func held() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func resident(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(b))[1])
	return pages * os.Getpagesize()
}

// beIdle logs in many times, asks once, and holds on until its input ends.
func beIdle(t *testing.T, of string) {
	var mode, addr string
	var count int
	if _, err := fmt.Sscan(of, &mode, &count, &addr); err != nil {
		t.Fatal(err)
	}
	var keys *pgwire.Keys
	var conns []net.Conn
	for range count {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if mode == "tls" {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnPostgres}})
		}
		c.Write(pgwire.AppendStartup(nil, pgwire.Param{Name: "user", Value: "test"}, pgwire.Param{Name: "database", Value: "postgres"}))
		var login pgwire.Login
		var s session
		for asked := false; ; {
			typ, body, err := readMessage(c)
			if err != nil {
				t.Fatal(err)
			}
			if typ == 'Z' {
				if asked {
					break
				}
				asked = true
				c.Write(pgwire.AppendQuery(nil, "select 1"))
				continue
			}
			answer, err := s.take(&login, typ, body, func(salt []byte, n int) *pgwire.Keys {
				if !keys.Fits(salt, n) {
					keys = pgwire.DeriveKeys("secret", salt, n)
				}
				return keys
			})
			if err != nil {
				t.Fatal(err)
			}
			c.Write(answer)
		}
		conns = append(conns, c)
	}
	fmt.Println("idle")
	io.Copy(io.Discard, os.Stdin)
	for _, c := range conns {
		c.Close()
	}
}
