package cache

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
)

var someMark = strings.Repeat("0123456789", 4)

func TestDumpsAreReadInBothForms(t *testing.T) {
	big := strings.Repeat("x", 200<<10)
	for what, x := range map[string]struct{ in, want string }{
		"of known length":    {"\n\n$5\r\nhello", "hello"},
		"with what follows":  {"$5\r\nhello*1\r\n$4\r\nPING\r\n", "hello"},
		"up to its mark":     {"\n$EOF:" + someMark + "\r\nhello" + someMark, "hello"},
		"large":              {"$EOF:" + someMark + "\r\n" + big + someMark, big},
		"a mark, then more":  {"$EOF:" + someMark + "\r\nhello" + someMark + "*1\r\n", "hello"},
		"what looks like it": {"$EOF:" + someMark + "\r\n" + someMark[:39] + "x" + someMark, someMark[:39] + "x"},
	} {
		for _, slow := range []bool{false, true} {
			r := bufio.NewReader(strings.NewReader(x.in))
			if slow && len(x.in) < 1000 {
				r = bufio.NewReader(iotest.OneByteReader(strings.NewReader(x.in)))
			}
			var out bytes.Buffer
			if err := readDump(r, &out); err != nil || out.String() != x.want {
				t.Errorf("%s: %d bytes, %v", what, out.Len(), err)
			}
		}
	}
	for _, bad := range []string{"", "\n", "-NOPERM no\r\n", "$-1\r\n", "$9\r\nhello", "$EOF:short\r\nhello", "$EOF:" + someMark + "\r\nhello", strings.Repeat("y", 8<<10)} {
		var out bytes.Buffer
		if err := readDump(bufio.NewReader(strings.NewReader(bad)), &out); err == nil {
			t.Errorf("%.20q is taken for a dump", bad)
		}
	}
}

func FuzzReadDump(f *testing.F) {
	f.Add([]byte("$5\r\nhello"))
	f.Add([]byte("\n$EOF:" + someMark + "\r\nhello" + someMark))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if readDump(bufio.NewReader(bytes.NewReader(in)), &out) == nil && out.Len() > len(in) {
			t.Fatal("more came out than went in")
		}
	})
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte("# Server\r\nredis_version:7.0.15\r\nrole:master\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for name := range parseInfo(in) {
			if strings.Contains(name, ":") {
				t.Fatal(name)
			}
		}
	})
}
