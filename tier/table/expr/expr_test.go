package expr

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"tenfold/tier/table/attr"
)

var update = flag.Bool("update", false, "rewrite what is expected")

// The files of testdata hold names, values, an item, and cases: an expression, and indented below it what
// comes of it. "! " begins a refusal. Their names say what kind of expression they hold.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runFile(t, file) })
	}
}

// scene is what the cases of a file share.
type scene struct {
	kind   string
	names  map[string]string
	values attr.Item
	item   attr.Item
}

func runFile(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := scene{kind: strings.TrimSuffix(filepath.Base(file), ".txt")}
	for i := range ar.Files {
		f := &ar.Files[i]
		switch f.Name {
		case "names":
			err = json.Unmarshal(f.Data, &s.names)
		case "values":
			s.values, err = attr.ParseItem(f.Data)
		case "item":
			s.item, err = attr.ParseItem(f.Data)
		default:
			f.Data = s.run(t, f.Data)
		}
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs cases and gives them back with what came of them.
func (s scene) run(t *testing.T, cases []byte) []byte {
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(string(cases), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		fmt.Fprintln(&out, lines[i])
		if lines[i] == "" || lines[i][0] == '\t' {
			continue
		}
		before := string(s.item.AppendJSON(nil))
		got := s.result(lines[i])
		want := ""
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "\t") {
			i++
			want = lines[i][1:]
		}
		if got != want && !*update {
			t.Errorf("%s\n got %s\nwant %s", lines[i-1], got, want)
		}
		if after := string(s.item.AppendJSON(nil)); after != before {
			t.Fatalf("%s changed the item:\n%s", lines[i], after)
		}
		fmt.Fprintln(&out, "\t"+got)
	}
	return []byte(out.String())
}

func (s scene) result(line string) string {
	a := &Args{Names: s.names, Values: s.values}
	var got string
	var err error
	switch s.kind {
	case "condition":
		var c *Condition
		if c, err = ParseCondition("ConditionExpression", line, a); err == nil {
			var ok bool
			ok, err = c.Holds(s.item)
			got = fmt.Sprint(ok)
		}
	case "projection":
		var p *Projection
		if p, err = ParseProjection(line, a); err == nil {
			got = string(p.Apply(s.item).AppendJSON(nil))
		}
	case "update":
		var u *Update
		if u, err = ParseUpdate(line, a); err == nil {
			got, err = s.applied(u)
		}
	case "key":
		var k *KeyCondition
		if k, err = ParseKeyCondition(line, a); err == nil {
			got = k.text()
		}
	default:
		got, err = s.legacy(line)
	}
	if err != nil {
		return "! " + err.Error()
	}
	return got
}

// applied is what an update changed: UPDATED_OLD -> UPDATED_NEW.
func (s scene) applied(u *Update) (string, error) {
	after, updated, err := u.Apply(s.item)
	if err != nil {
		return "", err
	}
	return string(updated.Apply(s.item).AppendJSON(nil)) + " -> " + string(changed(s.item, after).AppendJSON(nil)), nil
}

// changed are the attributes that are not what they were; one that is gone is NULL.
func changed(before, after attr.Item) attr.Item {
	out := attr.Item{}
	for name, v := range after {
		if w, ok := before[name]; !ok || !v.Equal(w) {
			out[name] = v
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			out[name] = attr.Value{Kind: attr.Null}
		}
	}
	return out
}

func (k *KeyCondition) text() string {
	var out []string
	for _, t := range k.Terms {
		values := ""
		for _, v := range t.Values {
			values += " " + string(v.AppendJSON(nil))
		}
		out = append(out, t.Name+" "+t.Op+values)
	}
	return strings.Join(out, "; ")
}

// legacy runs a line of the form: parameter [AND|OR] {…}.
func (s scene) legacy(line string) (string, error) {
	param, rest, _ := strings.Cut(line, " ")
	operator, raw := "", rest
	if !strings.HasPrefix(rest, "{") {
		operator, raw, _ = strings.Cut(rest, " ")
	}
	switch param {
	case "AttributeUpdates":
		u, err := LegacyUpdate(json.RawMessage(raw))
		if err != nil {
			return "", err
		}
		return s.applied(u)
	case "KeyConditions":
		k, err := LegacyKeyConditions(json.RawMessage(raw))
		if err != nil {
			return "", err
		}
		return k.text(), nil
	}
	c, err := LegacyCondition(param, json.RawMessage(raw), operator)
	if err != nil {
		return "", err
	}
	ok, err := c.Holds(s.item)
	return fmt.Sprint(ok), err
}
