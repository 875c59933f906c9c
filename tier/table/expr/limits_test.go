package expr

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tenfold/tier/table/attr"
)

func TestArgs(t *testing.T) {
	for _, c := range []struct {
		args *Args
		want string
	}{
		{nil, ""},
		{&Args{Names: map[string]string{}}, "ExpressionAttributeNames must not be empty"},
		{&Args{Values: attr.Item{}}, "ExpressionAttributeValues must not be empty"},
		{&Args{Names: map[string]string{"a": "b"}}, `ExpressionAttributeNames contains invalid key: Syntax error; key: "a"`},
		{&Args{Names: map[string]string{"#": "b"}}, `ExpressionAttributeNames contains invalid key: Syntax error; key: "#"`},
		{&Args{Values: attr.Item{":a-b": attr.String("x")}}, `ExpressionAttributeValues contains invalid key: Syntax error; key: ":a-b"`},
		{&Args{Names: map[string]string{"#a_1": "b"}, Values: attr.Item{":1": attr.String("x")}}, ""},
	} {
		if got := words(c.args.Check()); got != c.want {
			t.Errorf("%v: %s", c.args, got)
		}
	}

	a := &Args{Names: map[string]string{"#a": "x", "#b": "x", "#c": "x"}, Values: attr.Item{":a": attr.String("x"), ":b": attr.String("x")}}
	if _, err := ParseCondition("FilterExpression", "#a = :b", a); err != nil {
		t.Fatal(err)
	}
	if got := words(a.Unused()); got != "Value provided in ExpressionAttributeNames unused in expressions: keys: {#b, #c}" {
		t.Error(got)
	}
	if _, err := ParseProjection("#b.#c", a); err != nil {
		t.Fatal(err)
	}
	if got := words(a.Unused()); got != "Value provided in ExpressionAttributeValues unused in expressions: keys: {:a}" {
		t.Error(got)
	}
	if _, err := ParseUpdate("SET k = :a", a); err != nil || a.Unused() != nil {
		t.Error(err, a.Unused())
	}
	if _, err := ParseCondition("ConditionExpression", "#a = :b", nil); err == nil {
		t.Error("no names at all")
	}
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestLimits(t *testing.T) {
	a := &Args{Values: attr.Item{":v": attr.String("x")}}
	chain := strings.TrimSuffix(strings.Repeat("a<:v and ", 301), " and ")
	in := strings.TrimSuffix(strings.Repeat(":v,", 100), ",")
	for _, c := range []struct{ text, want string }{
		{"", "The expression can not be empty;"},
		{" \t", "The expression can not be empty;"},
		{strings.Repeat("a", 4097), "Expression size has exceeded the maximum allowed size;"},
		{strings.Repeat("x", 4091) + " = :v", ""},
		{chain, "The expression contains too many operators; operator count: 301"},
		{chain[len("a<:v and "):], ""},
		{"a in (" + in + ")", "The IN operator is provided with too many operands; number of operands: 101"},
		{"a in (" + in[3:] + ")", ""},
		{"a" + strings.Repeat(".b", 32) + " = :v", "The document path has too many nesting elements; nesting levels: 33"},
		{"a" + strings.Repeat(".b", 31) + " = :v", ""},
	} {
		want := c.want
		if want != "" {
			want = "Invalid FilterExpression: " + want
		}
		if _, err := ParseCondition("FilterExpression", c.text, a); words(err) != want {
			t.Errorf("%.40s…: %v, want %s", c.text, err, want)
		}
	}
	_, err := ParseUpdate(strings.Repeat("a", 4100), nil)
	if e, ok := err.(*Error); !ok || e.Older != "Invalid UpdateExpression: Expression size has exceeded the maximum allowed size; expression size: 4100" {
		t.Error(err)
	}
}

func TestReserved(t *testing.T) {
	list := reservedWords()
	if len(list) != 573 || !slices.IsSorted(list) {
		t.Error(len(list), slices.IsSorted(list))
	}
	for word, want := range map[string]bool{"abort": true, "Zone": true, "name": true, "pk": false, "names": true, "": false, "current_timestamp_x": false} {
		if reserved(word) != want {
			t.Errorf("%s: %v", word, !want)
		}
	}
	for _, word := range list {
		if len(word) > longestReserved {
			t.Error(word)
		}
	}
}

// Deep parentheses are read in time that grows with their number, and without end of the stack.
func TestDeep(t *testing.T) {
	a := &Args{Values: attr.Item{":v": attr.String("x")}}
	for _, text := range []string{
		strings.Repeat("(", 2000) + "a = :v" + strings.Repeat(")", 2000),
		strings.Repeat("(", 4000),
		strings.Repeat("NOT ", 1000) + "a = :v",
		strings.Repeat("size(", 800),
	} {
		if _, err := ParseCondition("ConditionExpression", text, a); err == nil && text[0] == '(' {
			t.Errorf("%.20s was taken", text)
		}
		if _, err := ParseUpdate("SET a = "+text, a); err == nil {
			t.Errorf("%.20s was taken", text)
		}
	}
}

func TestNames(t *testing.T) {
	a := &Args{Names: map[string]string{"#a": "q"}, Values: attr.Item{":v": attr.String("x")}}
	c, err := ParseCondition("FilterExpression", "b.c = :v and size(#a[1]) > z or contains(b, :v)", a)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Names(), c.Paths()); got != "[b q z] [[b, c] [q, [1]] [z] [b]]" {
		t.Error(got)
	}
	u, err := ParseUpdate("SET b.c = :v, a = :v REMOVE b.d", a)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(u.Touches(), u.OnlyRemoves()); got != "[a b] false" {
		t.Error(got)
	}
	if u, err = ParseUpdate("REMOVE b.d DELETE k :v", &Args{Values: attr.Item{":v": {Kind: attr.SS, List: []attr.Value{attr.String("x")}}}}); err != nil || !u.OnlyRemoves() {
		t.Error(err)
	}
	if after, _, err := u.Apply(nil); err != nil || len(after) != 0 {
		t.Error(after, err)
	}
	var none *Update
	if none.OnlyRemoves() || none.Touches() != nil {
		t.Error("no update makes an item")
	}
	p, err := ParseProjection("b.c, a, b.d", nil)
	if err != nil || fmt.Sprint(p.Names()) != "[b a]" {
		t.Error(p.Names(), err)
	}
	var nothing *Condition
	if ok, err := nothing.Holds(nil); !ok || err != nil || nothing.Names() != nil {
		t.Error("no condition holds always")
	}
}

// An update must not make what reading would refuse.
func TestTooDeep(t *testing.T) {
	deep := attr.String("leaf")
	for range 31 {
		deep = attr.Value{Kind: attr.M, Map: attr.Item{"n": deep}}
	}
	a := &Args{Values: attr.Item{":v": deep}}
	for text, want := range map[string]bool{"SET a = :v": true, "SET m.x = :v": false} {
		u, err := ParseUpdate(text, a)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = u.Apply(attr.Item{"m": {Kind: attr.M, Map: attr.Item{}}})
		if (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzExpressions(f *testing.F) {
	values, err := attr.ParseItem([]byte(`{":s":{"S":"x"},":n":{"N":"1"},":l":{"L":[{"N":"1"}]},":ss":{"SS":["x"]},":m":{"M":{"b":{"S":"y"}}}}`))
	if err != nil {
		f.Fatal(err)
	}
	item, err := attr.ParseItem([]byte(`{"a":{"M":{"b":{"S":"x"},"c":{"L":[{"N":"1"},{"M":{}}]}}},"s":{"S":"xyz"},"n":{"N":"5"},"ss":{"SS":["x","y"]},"l":{"L":[]}}`))
	if err != nil {
		f.Fatal(err)
	}
	before := string(item.AppendJSON(nil))
	names := map[string]string{"#a": "a", "#n": "n"}
	for _, text := range []string{
		"a.b = :s AND NOT (size(s) > :n OR contains(#a.c, :n))", "n BETWEEN :n AND :n", "s IN (:s, :n)", "a.c[1].x, s",
		"SET a.c[1].x = list_append(l, :l), n = n + :n REMOVE s ADD ss :ss", "DELETE ss :ss", "((a)) = :s", "a = :s AND begins_with(b, :s)",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := func() *Args { return &Args{Names: names, Values: values} }
		if c, err := ParseCondition("ConditionExpression", text, args()); err == nil {
			c.Holds(item)
			c.Names()
		}
		if k, err := ParseKeyCondition(text, args()); err == nil {
			for _, term := range k.Terms {
				term.Holds(item["s"])
			}
		}
		if p, err := ParseProjection(text, args()); err == nil {
			p.Apply(item)
		}
		u, err := ParseUpdate(text, args())
		if err != nil {
			return
		}
		after, updated, err := u.Apply(item)
		if got := string(item.AppendJSON(nil)); got != before {
			t.Fatalf("%s changed the item:\n%s", text, got)
		}
		if err != nil {
			return
		}
		updated.Apply(after)
		if _, err := attr.ParseItem(after.AppendJSON(nil)); err != nil {
			t.Errorf("%s makes what cannot be read: %v", text, err)
		}
	})
}

func FuzzLegacy(f *testing.F) {
	f.Add(`{"a":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"x"}]}}`)
	f.Add(`{"a":{"Value":{"N":"1"},"Exists":true,"Action":"ADD"}}`)
	item := attr.Item{"a": attr.String("x")}
	f.Fuzz(func(t *testing.T, text string) {
		for _, param := range []string{"Expected", "QueryFilter"} {
			if c, err := LegacyCondition(param, []byte(text), "OR"); err == nil {
				c.Holds(item)
			}
		}
		LegacyKeyConditions([]byte(text))
		if u, err := LegacyUpdate([]byte(text)); err == nil {
			u.Apply(item)
		}
	})
}

func BenchmarkCondition(b *testing.B) {
	item := attr.Item{"pk": attr.String("p"), "version": {Kind: attr.N, Text: "7"}}
	a := &Args{Names: map[string]string{"#v": "version"}, Values: attr.Item{":v": {Kind: attr.N, Text: "7"}}}
	b.ReportAllocs()
	for b.Loop() {
		c, err := ParseCondition("ConditionExpression", "attribute_exists(pk) AND #v = :v", a)
		if err != nil {
			b.Fatal(err)
		}
		if ok, _ := c.Holds(item); !ok {
			b.Fatal("no")
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	item := attr.Item{"pk": attr.String("p"), "version": {Kind: attr.N, Text: "7"}}
	a := &Args{Names: map[string]string{"#v": "version"}, Values: attr.Item{":v": {Kind: attr.N, Text: "1"}}}
	b.ReportAllocs()
	for b.Loop() {
		u, err := ParseUpdate("SET #v = #v + :v, x = :v", a)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := u.Apply(item); err != nil {
			b.Fatal(err)
		}
	}
}
