package pgwire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestMessages(t *testing.T) {
	e := Error{Severity: "ERROR", Code: "57P03", Message: "no server", Detail: "d", Hint: "wait"}
	b := AppendReady(AppendError(nil, &e), 'T')
	typ, size, ok, err := Header(b)
	if typ != 'E' || !ok || err != nil {
		t.Fatal(typ, ok, err)
	}
	if got := ParseError(b[HeaderSize:size]); got != e {
		t.Errorf("%+v", got)
	}
	if !bytes.Equal(b[size:], []byte{'Z', 0, 0, 0, 5, 'T'}) {
		t.Errorf("%q", b[size:])
	}
	row, err := Row([]byte{0, 3, 0, 0, 0, 1, 't', 255, 255, 255, 255, 0, 0, 0, 0})
	if err != nil || len(row) != 3 || string(row[0]) != "t" || row[1] != nil || row[2] == nil {
		t.Error(row, err)
	}
}

func TestStartupPackets(t *testing.T) {
	b := AppendStartup(nil, Param{"user", "u"}, Param{"options", `-c a=1 --b-c=2\ 3 -cd=4`})
	s, size, err := ParseStartup(b)
	if err != nil || size != len(b) || s.Get("user") != "u" || s.Minor != 0 {
		t.Fatal(s, err)
	}
	if got, ok := Settings(s.Get("options")); !ok || len(got) != 3 || got[0] != (Param{"a", "1"}) || got[1] != (Param{"b_c", "2 3"}) || got[2] != (Param{"d", "4"}) {
		t.Error(got, ok)
	}
	if _, ok := Settings("-x"); ok {
		t.Error("taken")
	}
	newer := bytes.Replace(AppendStartup(nil, Param{"_pq_.x", "1"}, Param{"user", "u"}), []byte{0, 3, 0, 0}, []byte{0, 3, 0, 9}, 1)
	if s, _, err = ParseStartup(newer); err != nil {
		t.Fatal(err)
	}
	if minor, tell := s.Negotiate(); minor != 2 || !tell || len(s.Options) != 1 {
		t.Error(minor, tell, s)
	}
	for n := range b {
		if _, size, err := ParseStartup(b[:n]); size != 0 || err != nil {
			t.Fatal(n, size, err)
		}
	}
	c, _, err := ParseStartup(AppendCancel(nil, 7, []byte("0123456789abcdef0123456789abcdef")))
	if err != nil || c.Kind != StartupCancel || c.PID != 7 || len(c.Secret) != 32 {
		t.Error(c, err)
	}
	if _, _, err := ParseStartup([]byte("GET / HTTP/1.1\r\n")); !errors.Is(err, ErrStartup) {
		t.Error(err)
	}
	if _, _, err := ParseStartup([]byte{0, 0, 0, 8, 0, 2, 0, 0}); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

// login runs both sides against each other; change may alter what is said.
func login(client, server string, change func(step int, s string) string) error {
	keys := NewKeys(server)
	var l Login
	var x Exchange
	say := func(step int, s string) string {
		if change != nil {
			return change(step, s)
		}
		return s
	}
	first, err := x.Begin(keys, []byte(say(0, string(l.Begin()))))
	if err != nil {
		return err
	}
	proof, err := l.Continue([]byte(say(1, first)), func(salt []byte, n int) *Keys { return DeriveKeys(client, salt, n) })
	if err != nil {
		return err
	}
	final, err := x.Finish([]byte(say(2, string(proof))))
	if err != nil {
		return err
	}
	return l.Finish([]byte(say(3, final)))
}

func TestSCRAM(t *testing.T) {
	if err := login("pässword", "pässword", nil); err != nil {
		t.Error(err)
	}
	if err := login("wrong", "right", nil); !errors.Is(err, ErrPassword) {
		t.Error(err)
	}
	for step, change := range []func(string) string{
		func(s string) string { return strings.Replace(s, "n,,", "p=tls-unique,,", 1) },
		func(s string) string { return strings.Replace(s, "r=", "r=x", 1) },
		func(s string) string { return strings.Replace(s, "c=biws", "c=eSws", 1) },
		func(string) string { return "v=AAAA" },
	} {
		if err := login("p", "p", func(at int, s string) string {
			if at == step {
				return change(s)
			}
			return s
		}); err == nil {
			t.Errorf("step %d: taken", step)
		}
	}
	// A server that asks for too much work is refused.
	if err := login("p", "p", func(at int, s string) string {
		if at == 1 {
			return strings.Replace(s, "i=4096", "i=999999999", 1)
		}
		return s
	}); !errors.Is(err, ErrSCRAM) {
		t.Error(err)
	}
}

func FuzzSCRAM(f *testing.F) {
	keys := DeriveKeys("p", []byte("salt"), 1)
	f.Add([]byte("SCRAM-SHA-256\x00\x00\x00\x00\x08n,,n=,r=abc"), []byte("c=biws,r=abc,p=AAAA"), []byte("r=abc,s=c2FsdA==,i=1"))
	f.Fuzz(func(t *testing.T, begin, finish, first []byte) {
		var x Exchange
		if _, err := x.Begin(keys, begin); err == nil {
			if _, err := x.Finish(finish); err == nil {
				t.Error("a proof was guessed")
			}
		}
		l := Login{}
		l.Begin()
		if _, err := l.Continue(first, func([]byte, int) *Keys { return keys }); err == nil {
			t.Error("another's nonce was taken")
		}
	})
}

func FuzzFraming(f *testing.F) {
	f.Add(AppendStartup(nil, Param{"user", "u"}))
	f.Add(AppendCancel(nil, 1, []byte("abcd")))
	f.Add(AppendError(nil, &Error{Severity: "FATAL", Code: "57P01", Message: "m"}))
	f.Add([]byte{'D', 0, 0, 0, 11, 0, 1, 0, 0, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, size, err := ParseStartup(b); err == nil && size > 0 {
			if size > len(b) || size > MaxStartup {
				t.Error(size)
			}
			Settings(s.Get("options"))
			s.Negotiate()
		}
		_, size, ok, err := Header(b)
		if err != nil || !ok {
			return
		}
		if size < HeaderSize {
			t.Fatal(size)
		}
		if size <= len(b) {
			ParseError(b[HeaderSize:size])
			if cols, err := Row(b[HeaderSize:size]); err == nil {
				for _, c := range cols {
					if len(c) > size {
						t.Error(len(c))
					}
				}
			}
		}
	})
}
