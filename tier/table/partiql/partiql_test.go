package partiql

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

// The files of testdata hold parameters, an item, and statements; indented below each stands what it was read
// as and what comes of it for the item. "! " begins a refusal. The tables have the keys pk and sk.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var s scene
			for i := range ar.Files {
				f := &ar.Files[i]
				switch f.Name {
				case "parameters":
					var raw []json.RawMessage
					if err := json.Unmarshal(f.Data, &raw); err != nil {
						t.Fatal(err)
					}
					for _, r := range raw {
						v, err := attr.ParseValue(r)
						if err != nil {
							t.Fatal(err)
						}
						s.parameters = append(s.parameters, v)
					}
				case "item":
					if s.item, err = attr.ParseItem(f.Data); err != nil {
						t.Fatal(err)
					}
				default:
					f.Data = s.run(t, f.Data)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

type scene struct {
	parameters []attr.Value
	item       attr.Item
}

func (s scene) run(t *testing.T, cases []byte) []byte {
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(string(cases), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		statement := lines[i]
		fmt.Fprintln(&out, statement)
		if statement == "" || statement[0] == '\t' {
			continue
		}
		got := s.result(strings.ReplaceAll(statement, "⏎", "\n"))
		want := ""
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "\t") {
			i++
			want = lines[i][1:]
		}
		if got != want && !*update {
			t.Errorf("%s\n got %s\nwant %s", statement, got, want)
		}
		fmt.Fprintln(&out, "\t"+got)
	}
	return []byte(out.String())
}

func (s scene) result(text string) string {
	st, err := Parse(text, s.parameters[:min(strings.Count(text, "?"), len(s.parameters))])
	if err != nil {
		return "! " + err.Error()
	}
	out := string(st.Verb) + " " + st.Table
	if st.Exists {
		out = "EXISTS " + out
	}
	if st.Index != "" {
		out += "." + st.Index
	}
	switch st.Verb {
	case Insert:
		return out + " " + string(st.Item.AppendJSON(nil))
	case Select:
		out += s.read(st)
	default:
		key, rest, ok := st.Key("pk", "sk")
		if !ok {
			return out + " ! " + NoKey
		}
		holds, _ := rest.Holds(s.item)
		out += fmt.Sprintf(" of %s if %v", key.AppendJSON(nil), holds)
		if st.Update != nil {
			after, updated, err := st.Update.Apply(s.item)
			if err != nil {
				return out + " ! " + err.Error()
			}
			out += fmt.Sprintf(": %s -> %s", updated.Apply(s.item).AppendJSON(nil), updated.Apply(after).AppendJSON(nil))
		}
	}
	if st.Returning != "" {
		out += " returning " + st.Returning
	}
	return out
}

func (s scene) read(st *Statement) string {
	out := ""
	ranges, scan, err := st.Ranges("pk", "sk")
	switch {
	case err != nil:
		return " ! " + err.Error()
	case scan:
		out += " scan"
	}
	for i, r := range ranges {
		if i > 0 {
			out += " and"
		}
		out += " " + string(r.Hash.AppendJSON(nil))
		if r.Sort != nil {
			out += " " + r.Sort.Op
			for _, v := range r.Sort.Values {
				out += " " + string(v.AppendJSON(nil))
			}
		}
	}
	for _, o := range st.OrderBy {
		out += fmt.Sprintf(" by %s %v", o.Name, o.Descending)
	}
	if holds, _ := st.Where.Holds(s.item); holds {
		return out + " -> " + string(st.Project(s.item).AppendJSON(nil))
	}
	return out + " -> nothing"
}

func TestNames(t *testing.T) {
	s, err := Parse(`SELECT a, b.c, b.d, l[1] FROM t`, nil)
	if err != nil || fmt.Sprint(s.Names()) != "[a b l]" {
		t.Error(s, err)
	}
	if s, err = Parse(`SELECT * FROM t`, nil); err != nil || s.Names() != nil {
		t.Error(s, err)
	}
}

// A key of one attribute, and what is left of a condition.
func TestKey(t *testing.T) {
	s, err := Parse(`DELETE FROM t WHERE (pk = 'a' AND x = 1) AND pk = 'b'`, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, rest, ok := s.Key("pk")
	if !ok || string(key.AppendJSON(nil)) != `{"pk":{"S":"a"}}` || fmt.Sprint(rest.Names()) != "[pk x]" {
		t.Error(key, rest.Names(), ok)
	}
	if s, err = Parse(`DELETE FROM t WHERE 'a' = pk`, nil); err != nil {
		t.Fatal(err)
	}
	if _, rest, ok = s.Key("pk"); !ok || rest != nil {
		t.Error(rest, ok)
	}
	for _, text := range []string{`DELETE FROM t`, `DELETE FROM t WHERE pk = 'a' OR x = 1`, `DELETE FROM t WHERE pk > 'a'`, `DELETE FROM t WHERE pk.x = 'a'`} {
		if s, err = Parse(text, nil); err != nil {
			t.Fatal(text, err)
		}
		if _, _, ok = s.Key("pk"); ok {
			t.Error(text)
		}
	}
}

func FuzzStatements(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range ar.Files {
			for line := range strings.Lines(string(part.Data)) {
				f.Add(strings.TrimSpace(line))
			}
		}
	}
	item, err := attr.ParseItem([]byte(`{"pk":{"S":"a"},"sk":{"S":"b"},"n":{"N":"1"},"m":{"M":{"x":{"L":[{"N":"1"}]}}},"ss":{"SS":["a"]}}`))
	if err != nil {
		f.Fatal(err)
	}
	before := string(item.AppendJSON(nil))
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text, []attr.Value{attr.String("a")})
		if err != nil {
			s, err = Parse(text, nil)
		}
		if err != nil {
			return
		}
		s.Where.Holds(item)
		s.Key("pk", "sk")
		s.Project(item)
		ranges, _, _ := s.Ranges("pk", "sk")
		for i, r := range ranges {
			for _, q := range ranges[:i] {
				if q.Hash.Equal(r.Hash) && (q.Sort == nil || r.Sort == nil) {
					t.Errorf("%s: read twice: %v", text, ranges)
				}
			}
		}
		if s.Update != nil {
			s.Update.Apply(item)
		}
		if got := string(item.AppendJSON(nil)); got != before {
			t.Errorf("%s changed the item: %s", text, got)
		}
	})
}
