package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"tenfold"
)

var update = flag.Bool("update", false, "rewrite what is expected")

// table runs f over the files of an archive and compares with the file of the same name and ".want".
func table(t *testing.T, name string, atLeast int, f func(t *testing.T, src []byte) string) {
	t.Helper()
	ar, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, out, n := map[string]string{}, &txtar.Archive{Comment: ar.Comment}, 0
	for _, file := range ar.Files {
		want[file.Name] = string(file.Data)
	}
	for _, file := range ar.Files {
		if strings.HasSuffix(file.Name, ".want") {
			continue
		}
		n++
		t.Run(file.Name, func(t *testing.T) {
			got := f(t, file.Data)
			out.Files = append(out.Files, file, txtar.File{Name: file.Name + ".want", Data: []byte(got)})
			if w := want[file.Name+".want"]; !*update && got != w {
				t.Errorf("got:\n%s\nwant:\n%s", got, w)
			}
		})
	}
	if n < atLeast {
		t.Errorf("%s has %d manifests, want %d at least", name, n, atLeast)
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadManifests(t *testing.T) {
	table(t, "testdata/bad.txtar", 70, func(t *testing.T, src []byte) string {
		_, err := Parse("tenfold.yaml", src)
		var es *Errors
		if !errors.As(err, &es) {
			t.Fatalf("error %v, want *Errors", err)
		}
		for _, p := range es.Problems {
			if p.Hint == "" || p.Line < 1 || p.Column < 1 {
				t.Errorf("a problem without hint or place: %+v", p)
			}
		}
		return err.Error() + "\n"
	})
}

func TestGoodManifests(t *testing.T) {
	table(t, "testdata/good.txtar", 4, func(t *testing.T, src []byte) string {
		m, err := Parse("tenfold.yaml", src)
		if err != nil {
			t.Fatal(err)
		}
		app, err := m.App("production")
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent(app, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		out := string(b) + "\n"
		for _, w := range m.Warnings {
			out += w.String() + "\n"
		}
		return out
	})
}

// TestHostileBytes holds what no table of text can: size, encoding, depth.
func TestHostileBytes(t *testing.T) {
	for name, c := range map[string]struct{ src, want string }{
		"10 MB":     {strings.Repeat("# x\n", 10<<18), "at most 1048576 are read"},
		"not UTF-8": {"app: shop\ndomain: caf\xe9.com\n", "tenfold.yaml:2:12: the file is not UTF-8: byte 0xe9 at offset 21"},
		"UTF-16":    {"\xff\xfea\x00:\x00", "tenfold.yaml:1:1: the file is not UTF-8: byte 0xff at offset 0"},
		"brackets":  {"a: " + strings.Repeat("[", 900_000), "nested deeper"},
		"zero byte": {"app: a\x00b\n", "tenfold.yaml:1:"},
	} {
		_, err := Parse("tenfold.yaml", []byte(c.src))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.200v, want %q", name, err, c.want)
		}
	}
}

func TestAppTakesTheFoldersName(t *testing.T) {
	m, err := Parse("tenfold.yaml", []byte("services: [api]\nenvironments: {staging: false, preview: {services: {api: {scale: 2}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	m.Folder = "My Shop 2"
	app, err := m.App("preview/fix-cart")
	if err != nil || app.Name != "my-shop-2" || app.Services["api"].Scale != (tenfold.Bounds{Min: 2, Max: 2}) {
		t.Errorf("app %q %+v, %v", app.Name, app.Services["api"].Scale, err)
	}
	if _, err := m.App("staging"); tenfold.CodeOf(err) != tenfold.CodeInvalid || tenfold.HintOf(err) == "" {
		t.Errorf("an environment that is false: %v", err)
	}
}

func TestTargetsOfBranches(t *testing.T) {
	parse := func(environments string) *Manifest {
		t.Helper()
		m, err := Parse("tenfold.yaml", []byte("services: [api]\nenvironments: {"+environments+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		environments, branch string
		pull                 bool
		want                 string
	}{
		{"", "main", false, "production"},
		{"", "master", false, "production"},
		{"", "topic", false, ""},
		{"", "topic", true, "preview/* 72h0m0s"},
		{"preview: false", "topic", true, ""},
		{"preview: {keep: 24h, auth: false}", "topic", true, "preview/* 24h0m0s open"},
		{"preview: {branch: feature/*}", "feature/a/b", false, "preview/* 72h0m0s"},
		{"preview: {branch: feature/*}", "feature/a", true, ""},
		{"preview: {branch: [feature/*, pull-requests]}", "x", true, "preview/* 72h0m0s"},
		{"staging: {branch: main}, production: {branch: release/*}", "main", false, "staging"},
		{"staging: {branch: main}, production: {branch: release/*}", "release/4", false, "production"},
		{"staging: {branch: main}", "main", false, "staging"},
		{"staging: {branch: '*'}", "main", false, "staging"},
		{"staging: {branch: develop}", "main", false, "production"},
		{"review: {branch: pull-requests}", "x", true, "review/* 72h0m0s"},
		{"staging: {branch: 'a*b*c'}", "aXbYbZc", false, "staging"},
		{"staging: {branch: 'a*b*c'}", "aXbYbZ", false, ""},
	} {
		got := ""
		for _, x := range parse(c.environments).Targets(c.branch, c.pull) {
			got += string(x.Env)
			if x.Preview {
				got += "/* " + x.Keep.String()
			}
			if x.Open {
				got += " open"
			}
		}
		if got != c.want {
			t.Errorf("%s, branch %s, pull request %t: %q, want %q", c.environments, c.branch, c.pull, got, c.want)
		}
	}
	app, err := parse(`preview: {domain: "*.preview.example.com"}`).App("preview/fix-cart")
	if err != nil || len(app.Domains) != 1 || app.Domains[0] != "fix-cart.preview.example.com" || app.Door.DNS != nil {
		t.Errorf("%v %v", app.Domains, err)
	}
	m, err := Parse("tenfold.yaml", []byte("services: [api]\nsecrets: [K]\nedge: {tls: {dns: {route53: K}}}\nenvironments: {preview: {domain: '*.preview.example.com', edge: {tls: {dns: {route53: false, ovh: K}}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // an App shares nothing with another
		app, err = m.App("preview/fix-cart")
		if d := app.Door.DNS; err != nil || d == nil || d.Provider != "ovh" || len(d.Wildcards) != 1 || d.Wildcards[0] != "*.preview.example.com" {
			t.Errorf("%+v %v", app.Door.DNS, err)
		}
	}
}

// FuzzParse: no input panics; what parses gives the same App twice; what does not says where.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/bad.txtar", "testdata/good.txtar"} {
		ar, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if !strings.HasSuffix(file.Name, ".want") {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := Parse("tenfold.yaml", src)
		if err != nil {
			var es *Errors
			if !errors.As(err, &es) || len(es.Problems) == 0 || len(es.Problems) > MaxProblems {
				t.Fatalf("error %T %v", err, err)
			}
			return
		}
		a, errA := m.App("production")
		b, errB := m.App("production")
		ja, _ := json.Marshal(a)
		jb, _ := json.Marshal(b)
		if errA == nil && (errB != nil || !bytes.Equal(ja, jb)) {
			t.Fatalf("two Apps of one manifest:\n%s\n%s", ja, jb)
		}
	})
}

// FuzzTypes reads any text as every type of the language.
func FuzzTypes(f *testing.F) {
	for _, s := range []string{"10s", "512mb", "1-20", "0 6 * * *", "cron(0 6 * * ? *)", "at(2026-12-24T08:00)", "POST host.com/a/:b/*", "node-22", "a b", "200-399"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := &reporter{text: newText("x", []byte(s))}
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: s, Line: 1, Column: 1}
		if d, ok := readDuration(r, n, "x"); ok && (d <= 0 || d > maxDuration) {
			t.Errorf("duration %q is %v", s, d)
		}
		if b, ok := readSize(r, n, "x"); ok && b <= 0 {
			t.Errorf("size %q is %d", s, b)
		}
		if route, ok := readRoute(r, n, "x"); ok {
			if _, _, p := route.Split(); !strings.HasPrefix(p, "/") {
				t.Errorf("route %q has the path %q", s, p)
			}
		}
		if c, ok := readSchedule(r, n, "x", time.UTC); ok && c.IsZero() {
			t.Errorf("schedule %q is nothing", s)
		}
		if p, ok := readPath(r, n, "x"); ok && (strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../")) {
			t.Errorf("path %q leads to %q", s, p)
		}
		readStatus(r, n, "x")
		readRuntime(r, n, "x")
		readHosts(r, n, "x")
	})
}
