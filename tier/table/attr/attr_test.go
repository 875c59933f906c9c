package attr

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"0", "0"}, {"-0", "0"}, {"0e125", "0"}, {"000", "0"}, {"-.0", "0"},
		{"1", "1"}, {"+3", "3"}, {"-7.1234", "-7.1234"}, {".123", "0.123"}, {"5.", "5"}, {"0001.230", "1.23"},
		{"1e+5", "100000"}, {"-17e5", "-1700000"}, {"-17.4E37", "-174" + strings.Repeat("0", 36)}, {"1E-5", "0.00001"},
		{"1e125", "1" + strings.Repeat("0", 125)}, {"1e-130", "0." + strings.Repeat("0", 129) + "1"},
		{"123456789012345678901234567890123456780", "123456789012345678901234567890123456780"},
		{"", "! The parameter cannot be converted to a numeric value: "},
		{"b", "! The parameter cannot be converted to a numeric value: b"},
		{" 1", "! The parameter cannot be converted to a numeric value:  1"},
		{"NaN", "! The parameter cannot be converted to a numeric value: NaN"},
		{"1e", "! The parameter cannot be converted to a numeric value: 1e"},
		{".", "! The parameter cannot be converted to a numeric value: ."},
		{"1_0", "! The parameter cannot be converted to a numeric value: 1_0"},
		{"123456789012345678901234567890123456789", "! Attempting to store more than 38 significant digits in a Number"},
		{"-1.23456789012345678901234567890123456789", "! Attempting to store more than 38 significant digits in a Number"},
		{"1e126", "! Number overflow. Attempting to store a number with magnitude larger than supported range"},
		{"-11e125", "! Number overflow. Attempting to store a number with magnitude larger than supported range"},
		{"1e99999999999", "! Number overflow. Attempting to store a number with magnitude larger than supported range"},
		{"1e9223372036854775808", "! The parameter cannot be converted to a numeric value: 1e9223372036854775808"},
		{"0e126", "! Number overflow. Attempting to store a number with magnitude larger than supported range"},
		{"0e-131", "! Number underflow. Attempting to store a number with magnitude smaller than supported range"},
		{"0.9e-130", "! Number underflow. Attempting to store a number with magnitude smaller than supported range"},
	} {
		got, err := Number(c.in)
		if err != nil {
			got = "! " + err.Error()
		}
		if got != c.want {
			t.Errorf("Number(%q): %q, want %q", c.in, got, c.want)
		}
		if again, err := Number(got); err == nil && again != got {
			t.Errorf("Number(%q): %q the second time", got, again)
		}
	}
}

func TestSums(t *testing.T) {
	for _, c := range []struct{ a, sign, b, want string }{
		{"1", "+", "2", "3"}, {"1", "-", "2", "-1"}, {"0.1", "+", "0.2", "0.3"}, {"1.5", "-", "1.5", "0"},
		{"1", "+", "10000000000000000000000", "10000000000000000000001"},
		{"10000000000000000000000", "-", "1", "9999999999999999999999"},
		{"0", "-", "0.5", "-0.5"},
		{"999999999999999999", "+", "1", "1000000000000000000"},
		{"9" + strings.Repeat("0", 125), "+", "9" + strings.Repeat("0", 125), "! " + tooLarge},
		{"1" + strings.Repeat("0", 50), "+", "1", "! " + tooLarge},
		{"1" + strings.Repeat("0", 125), "+", "-1" + strings.Repeat("0", 125), "0"},
	} {
		sum := Add
		if c.sign == "-" {
			sum = Sub
		}
		got, err := sum(c.a, c.b)
		if err != nil {
			got = "! " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s %s %s = %s, want %s", c.a, c.sign, c.b, got, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	const class = "com.amazonaws.dynamodb.v20120810.AttributeValue"
	deep := strings.Repeat(`{"L":[`, MaxDepth) + `{"N":"x"}` + strings.Repeat(`]}`, MaxDepth)
	empty := strings.Repeat(`{"L":[`, MaxDepth) + strings.Repeat(`]}`, MaxDepth)
	for _, c := range []struct{ in, want string }{
		{`{}`, emptyValue},
		{`{"X":"a"}`, emptyValue},
		{`{"S":null}`, emptyValue},
		{`{"S":"a","N":null}`, ""},
		{`{"S":"a","S":"b"}`, ""},
		{`{"S":"a","B":"Yg=="}`, severalKinds},
		{`{"S":"","N":""}`, "The parameter cannot be converted to a numeric value: "},
		{`{"NS":["1","b"]}`, "The parameter cannot be converted to a numeric value: b"},
		{`{"NS":["1","1.0"]}`, "One or more parameter values were invalid: Input collection contains duplicates."},
		{`{"NULL":false}`, "One or more parameter values were invalid: Null attribute value types must have the value of true"},
		{`{"NULL":"no"}`, "One or more parameter values were invalid: Null attribute value types must have the value of true"},
		{`{"SS":[]}`, "One or more parameter values were invalid: An string set  may not be empty"},
		{`{"NS":[]}`, "One or more parameter values were invalid: An number set  may not be empty"},
		{`{"BS":[]}`, "One or more parameter values were invalid: Binary sets should not be empty"},
		{`{"SS":["b","a","b"]}`, `One or more parameter values were invalid: Input collection ["a", "b", "b"] contains duplicates.`},
		{`{"BS":["/w==","AA==","AA=="]}`, `One or more parameter values were invalid: Input collection ["AA==","/w==","AA=="]of type BS contains duplicates.`},
		{`{"M":{"a":{"L":[{}]}}}`, emptyValue},
		{deep, tooDeep},
		{deep[6 : len(deep)-2], "The parameter cannot be converted to a numeric value: x"},
		{empty, ""},
		{`{"L":[{"N":"x"},` + deep + `]}`, "The parameter cannot be converted to a numeric value: x"},

		{``, "!"}, {`{`, "!"}, {`{"S":"a"`, "!"}, {`{"S":"a"}}`, "!"}, {`{"S":"a",}`, "!"}, {"{\"S\":\"a\x01\"}", "!"},
		{`23`, "!Unexpected value type in payload"},
		{`"a"`, "!Unexpected value type in payload"},
		{`[]`, "!Unrecognized collection type class " + class},
		{`{"S":true}`, "!TRUE_VALUE cannot be converted to String"},
		{`{"N":false}`, "!FALSE_VALUE cannot be converted to String"},
		{`{"S":-2147483648}`, "!NUMBER_VALUE cannot be converted to String"},
		{`{"S":34.56}`, "!DECIMAL_VALUE cannot be converted to String"},
		{`{"S":[]}`, "!Unrecognized collection type class java.lang.String"},
		{`{"S":{}}`, "!Start of structure or map found where not expected"},
		{`{"BOOL":"23"}`, "!Unexpected token received from parser"},
		{`{"BOOL":23}`, "!NUMBER_VALUE cannot be converted to Boolean"},
		{`{"BOOL":[]}`, "!Unrecognized collection type class java.lang.Boolean"},
		{`{"BOOL":{}}`, "!Start of structure or map found where not expected"},
		{`{"B":true}`, "!only base-64-encoded strings are convertible to bytes"},
		{`{"B":[]}`, "!Unrecognized collection type class java.nio.ByteBuffer"},
		{`{"B":{}}`, "!Start of structure or map found where not expected"},
		{`{"B":"23456"}`, "!Base64 encoded length is expected a multiple of 4 bytes but found: 5"},
		{`{"B":"=+/="}`, "!Invalid last non-pad Base64 character dectected"},
		{`{"B":"+/+="}`, "!Invalid last non-pad Base64 character dectected"},
		{`{"SS":"a"}`, "!Unexpected field type"},
		{`{"SS":{}}`, "!Start of structure or map found where not expected"},
		{`{"SS":[1]}`, "!NUMBER_VALUE cannot be converted to String"},
		{`{"L":[1]}`, "!Unexpected value type in payload"},
		{`{"L":[[]]}`, "!Unrecognized collection type class " + class},
		{`{"M":1}`, "!Unexpected field type"},
		{`{"M":[]}`, "!Unrecognized collection type java.util.Map<java.lang.String, " + class + ">"},
		{`{"M":{"a":{"N":"x"},"b":{"S":1}}}`, "!NUMBER_VALUE cannot be converted to String"},
	} {
		_, err := ParseValue([]byte(c.in))
		got := ""
		if err != nil {
			e := err.(*Error)
			got = e.Message
			if e.Serialization {
				got = "!" + got
			}
		}
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.in, got, c.want)
		}
	}
	_, err := ParseItem([]byte(`{"a":{"S":"a"},"b":{"M":{"c":{"N":"x"}}},"d":{}}`))
	if e, ok := err.(*Error); !ok || e.Attribute != "b" {
		t.Errorf("the attribute that is bad: %v", err)
	}
}

func TestOlderWords(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"N":""}`, "The parameter cannot be converted to a numeric value"},
		{`{"N":"abc"}`, ""},
		{`{"N":"1e126"}`, ""},
		{`{"N":"1e-131"}`, ""},
		{`{"N":"1e2147483647"}`, tooSmall},
		{`{"N":"1e99999999999"}`, "The parameter cannot be converted to a numeric value: 1e99999999999"},
		{`{"N":"1e-2147483648"}`, "The parameter cannot be converted to a numeric value: 1e-2147483648"},
		{`{"N":"123456789012345678901234567890123456789"}`, ""},
		{`{"SS":["b","a","b"]}`, "One or more parameter values were invalid: Input collection [b, a, b] contains duplicates."},
		{`{"BS":["/w==","AA==","AA=="]}`, "One or more parameter values were invalid: Input collection [/w==, AA==, AA==]of type BS contains duplicates."},
		{`{"NS":["2","1","2"]}`, "Input collection contains duplicates"},
	} {
		_, err := ParseValue([]byte(c.in))
		if e, ok := err.(*Error); !ok || e.Older != c.want {
			t.Errorf("%s: %q, want %q", c.in, e.Older, c.want)
		}
	}
}

const everything = `{"b":{"B":"AAEC/w=="},"bool":{"BOOL":true},"bs":{"BS":["YQ==","Yg=="]},"empty":{"S":""},` +
	`"l":{"L":[{"S":"a\"\\\n\u0001é"},{"L":[]},{"NULL":true}]},"m":{"M":{"x":{"M":{}},"y":{"BOOL":false}}},` +
	`"n":{"N":"-12.5"},"ns":{"NS":["1","2"]},"ss":{"SS":["a","b"]}}`

func TestRoundTrips(t *testing.T) {
	item, err := ParseItem([]byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(item.AppendJSON(nil)); got != everything {
		t.Errorf("JSON\n got %s\nwant %s", got, everything)
	}
	bin := item.AppendBinary(nil)
	back, err := ParseBinary(bin)
	if err != nil || !back.Equal(item) {
		t.Errorf("binary: %v %v", back, err)
	}
	out, err := BinaryToJSON(nil, bin)
	if err != nil || string(out) != everything {
		t.Errorf("binary to JSON: %s %v", out, err)
	}
	clone := item.Clone()
	clone["b"].Bytes[0] = 9
	clone["m"].Map["z"] = String("new")
	clone["l"].List[0] = String("new")
	if got := string(item.AppendJSON(nil)); got != everything {
		t.Errorf("a clone shares: %s", got)
	}
	for i := range bin { // what is cut or flipped is an error or another item, never a panic
		ParseBinary(bin[:i])
		BinaryToJSON(nil, bin[:i])
		flipped := slices.Clone(bin)
		flipped[i] ^= 0xFF
		ParseBinary(flipped)
		BinaryToJSON(nil, flipped)
	}
}

func TestStrings(t *testing.T) {
	for _, in := range []string{`"\ud83d\ude00"`, `"\ud83d"`, `"\ud83dx"`, `"\ude00\ud83d"`, `"\u00e9\/\b\f\n\r\t"`, `"é"`, "\"\xff\""} {
		var want string
		if err := json.Unmarshal([]byte(in), &want); err != nil {
			t.Fatal(err)
		}
		v, err := ParseValue([]byte(`{"S":` + in + `}`))
		if err != nil || v.Text != want {
			t.Errorf("%s: %q %v, want %q", in, v.Text, err, want)
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int
	}{
		{`{"S":"aé"}`, 3}, {`{"B":"AAEC/w=="}`, 4}, {`{"BOOL":true}`, 1}, {`{"NULL":true}`, 1}, {`{"SS":["a","bc"]}`, 3},
		{`{"N":"0"}`, 1}, {`{"N":"1"}`, 2}, {`{"N":"10"}`, 2}, {`{"N":"12"}`, 2}, {`{"N":"1.2"}`, 3}, {`{"N":"-1"}`, 3}, {`{"N":"123"}`, 3},
		{`{"N":"3.14159"}`, 5}, {`{"N":"123456"}`, 4}, {`{"N":"1e125"}`, 2}, {`{"N":"0.001"}`, 2}, {`{"N":"0042.1200"}`, 3},
		{`{"L":[]}`, 3}, {`{"L":[{"S":"a"}]}`, 5}, {`{"M":{"ab":{"S":"a"}}}`, 7},
	} {
		v, err := ParseValue([]byte(c.in))
		if err != nil || v.Size() != c.want {
			t.Errorf("%s: %d %v, want %d", c.in, v.Size(), err, c.want)
		}
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"SS":["a","b"]}`, `{"SS":["b","a"]}`, true}, {`{"SS":["a","b"]}`, `{"SS":["a","c"]}`, false},
		{`{"N":"1.0"}`, `{"N":"1"}`, true}, {`{"N":"1"}`, `{"S":"1"}`, false},
		{`{"L":[{"N":"1"}]}`, `{"L":[{"N":"1e0"}]}`, true}, {`{"L":[{"N":"1"}]}`, `{"L":[]}`, false},
		{`{"M":{"a":{"S":"x"}}}`, `{"M":{"b":{"S":"x"}}}`, false}, {`{"NULL":true}`, `{"NULL":true}`, true},
		{`{"BOOL":true}`, `{"BOOL":false}`, false}, {`{"NS":["1","2"]}`, `{"NS":["2.0","1"]}`, true},
	} {
		a, errA := ParseValue([]byte(c.a))
		b, errB := ParseValue([]byte(c.b))
		if errA != nil || errB != nil || a.Equal(b) != c.want || b.Equal(a) != c.want {
			t.Errorf("%s = %s: %v %v %v", c.a, c.b, a.Equal(b), errA, errB)
		}
	}
}

// keys are values in their order.
func keys() [][]Value {
	number := func(in ...string) (out []Value) {
		for _, s := range in {
			n, err := Number(s)
			if err != nil {
				panic(err)
			}
			out = append(out, Value{Kind: N, Text: n})
		}
		return out
	}
	bin := func(in ...string) (out []Value) {
		for _, s := range in {
			out = append(out, Value{Kind: B, Bytes: []byte(s)})
		}
		return out
	}
	text := func(in ...string) (out []Value) {
		for _, s := range in {
			out = append(out, String(s))
		}
		return out
	}
	return [][]Value{
		number("-9.9e125", "-1e125", "-12345.6", "-100", "-99.1", "-99", "-10", "-2", "-1.5", "-1", "-0.5", "-1e-130",
			"0", "1e-130", "0.5", "1", "1.00001", "1.5", "2", "9", "10", "10.1", "11", "99", "100", "12345.6", "1e38", "9.9e125"),
		bin("", "\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\x01", "a", "a\x00", "a\x00b", "ab", "\xff", "\xff\x00"),
		text("", "\x00", "a", "a\x00", "a\x00b", "a\x01", "ab", "b", "é", "日"),
	}
}

func TestKeys(t *testing.T) {
	for _, list := range keys() {
		for i, v := range list {
			k := AppendKey(nil, v)
			got, rest, err := ReadKey(append(k, "rest"...), v.Kind)
			if err != nil || !got.Equal(v) || string(rest) != "rest" {
				t.Errorf("%v: %v %q %v", v, got, rest, err)
			}
			for j, w := range list {
				want := i - j
				order, ok := Compare(v, w)
				if !ok || sign(order) != sign(want) {
					t.Errorf("compare %v %v: %d", v, w, order)
				}
				// what follows a key never decides between different ones
				a, b := append(AppendKey(nil, v), 0xFF), append(AppendKey(nil, w), 0x00)
				if i != j && sign(bytes.Compare(a, b)) != sign(want) {
					t.Errorf("keys %v %v: %x %x", v, w, a, b)
				}
			}
		}
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

func FuzzKey(f *testing.F) {
	for _, list := range keys() {
		for _, v := range list {
			f.Add(AppendKey(nil, v))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range []Kind{S, N, B, L} {
			v, rest, err := ReadKey(b, k)
			if err == nil && !bytes.Equal(append(AppendKey(nil, v), rest...), b) {
				t.Errorf("%x as %v is %v, which is %x", b, k, v, AppendKey(nil, v))
			}
		}
	})
}

func FuzzNumber(f *testing.F) {
	f.Add("1.5", "-2e-7")
	f.Add("1e125", "1e-130")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, errX := Number(a)
		y, errY := Number(b)
		if errX != nil || errY != nil {
			return
		}
		if again, err := Number(x); err != nil || again != x {
			t.Errorf("%q: %q, then %q %v", a, x, again, err)
		}
		v, w := Value{Kind: N, Text: x}, Value{Kind: N, Text: y}
		order, _ := Compare(v, w)
		if k := bytes.Compare(AppendKey(nil, v), AppendKey(nil, w)); sign(k) != sign(order) {
			t.Errorf("%s and %s: %d, keys %d", x, y, order, k)
		}
		total, err := Add(x, y)
		if err != nil {
			return
		}
		if back, err := Sub(total, y); err == nil && back != x {
			t.Errorf("%s + %s = %s, less %s = %s", x, y, total, y, back)
		}
	})
}

// FuzzItem holds the reader against encoding/json, and each form of an item against the others.
func FuzzItem(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte(`{"a":{"S":"x"},"a":{"N":"1e3"}} `))
	f.Add([]byte(`{"a":{"L":[{"M":{"\ud83d\ude00":{"NULL":"yes"}}}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		item, err := ParseItem(raw)
		if err != nil {
			if e := err.(*Error); !e.Serialization || e.Message != "" || bytes.Count(raw, []byte("[")) > 100 || bytes.Count(raw, []byte("{")) > 100 {
				return
			}
			if json.Valid(raw) {
				t.Errorf("refused as no JSON: %s", raw)
			}
			return
		}
		var plain map[string]json.RawMessage
		if err := json.Unmarshal(raw, &plain); err != nil {
			t.Fatalf("taken: %s, %v", raw, err)
		}
		for _, name := range slices.Sorted(maps.Keys(plain)) {
			if _, ok := item[name]; !ok {
				t.Errorf("%q is lost: %s", name, raw)
			}
		}
		text := item.AppendJSON(nil)
		back, err := ParseItem(text)
		if err != nil || !back.Equal(item) || !json.Valid(text) {
			t.Fatalf("%s\nis %s\n%v", raw, text, err)
		}
		bin := item.AppendBinary(nil)
		stored, err := ParseBinary(bin)
		if err != nil || !stored.Equal(item) {
			t.Fatalf("%s from disk: %v %v", text, stored, err)
		}
		if out, err := BinaryToJSON(nil, bin); err != nil || !bytes.Equal(out, text) {
			t.Fatalf("%s from disk as JSON: %s %v", text, out, err)
		}
		if stored.Size() != item.Size() {
			t.Errorf("sizes: %d %d", stored.Size(), item.Size())
		}
	})
}

func FuzzBinary(f *testing.F) {
	item, _ := ParseItem([]byte(everything))
	f.Add(item.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		item, err := ParseBinary(b)
		_, jsonErr := BinaryToJSON(nil, b)
		if (err == nil) != (jsonErr == nil) {
			t.Errorf("%x: %v, as JSON: %v", b, err, jsonErr)
		}
		if err == nil {
			if _, err := ParseBinary(item.AppendBinary(nil)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestBigSets(t *testing.T) {
	var a, b Value
	a.Kind, b.Kind = NS, NS
	for i := range 1000 {
		a.List = append(a.List, Value{Kind: N, Text: strconv.Itoa(i)})
	}
	b.List = slices.Clone(a.List)
	rand.Shuffle(len(b.List), func(i, j int) { b.List[i], b.List[j] = b.List[j], b.List[i] })
	if !a.Equal(b) || hasDuplicates(b.List) {
		t.Error("the same set, in another order")
	}
	b.List[500].Text = "1000"
	if a.Equal(b) {
		t.Error("another set")
	}
	b.List[500] = b.List[0]
	if !hasDuplicates(b.List) {
		t.Error("an element twice")
	}
}

// thousand is an item of about 1 KB with ten attributes, as benchmarks of table stores have it.
func thousand() Item {
	item := Item{}
	for i := range 10 {
		item["field"+strconv.Itoa(i)] = String(strings.Repeat("x", 100))
	}
	return item
}

func BenchmarkParseItem(b *testing.B) {
	raw := thousand().AppendJSON(nil)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseItem(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendBinary(b *testing.B) {
	item := thousand()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = item.AppendBinary(buf[:0])
	}
}

func BenchmarkParseBinary(b *testing.B) {
	bin := thousand().AppendBinary(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseBinary(bin); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBinaryToJSON(b *testing.B) {
	bin := thousand().AppendBinary(nil)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = BinaryToJSON(buf[:0], bin)
	}
}
