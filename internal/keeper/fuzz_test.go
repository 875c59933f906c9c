package keeper

import (
	"bufio"
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0"))
	f.Add([]byte("7 (sh) "))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseStat(7, b); ok && p.pid != 7 {
			t.Fatal(p)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	b, _ := json.Marshal(state{Version: stateVersion, Units: []unitState{{Proc: &procState{PID: 1}}}})
	f.Add(b)
	f.Add([]byte(`{"version":99}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeState(b); err == nil && s.Version != stateVersion {
			t.Fatal(s)
		}
	})
}

func TestReadLineIsBounded(t *testing.T) {
	in := bufio.NewReader(bytes.NewReader(append(bytes.Repeat([]byte("x"), 100_000), "\nnext\n"...)))
	if l, err := readLine(in); err != nil || len(l) != 100_001 {
		t.Fatal(len(l), err)
	}
	if l, err := readLine(in); err != nil || string(l) != "next\n" {
		t.Fatal(string(l), err)
	}
	if _, err := readLine(bufio.NewReader(bytes.NewReader(make([]byte, maxRequest+1)))); err == nil {
		t.Fatal("no bound")
	}
}
