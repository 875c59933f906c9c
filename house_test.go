package tenfold_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A floor says what the packages below a folder may import of ours, and why the rest is forbidden.
type floor struct {
	folder string   // "tier" holds tier/edge and all below it
	may    []string // folders; "." is the root package, "+" its own room: tier/edge for tier/edge/httpcache
	why    string
}

// The floors, ground to roof. The first that holds a package decides.
var floors = []floor{
	{"internal", []string{"internal"}, "ground parts know nothing of the house, so that any floor can stand on them"},
	{".", nil, "the nouns do nothing and depend on nothing, so that everybody can speak them"},
	{"manifest", []string{".", "manifest", "internal/lazy"}, "the language is pure: it turns text into an App, and knows of the ground nothing but how to be small in processes that read none"},
	{"plan", []string{"."}, "planning compares fingerprints and knows no tier"},
	{"tier", []string{".", "internal", "+"}, "no tier knows another: what one needs of another is handed over by the daemon"},
	{"learn", []string{".", "internal", "plan", "learn"}, "advice reads measurements and plans, never a tier"},
	{"export", []string{".", "internal"}, "exporters read App and Scale, never a tier's spec"},
	{"control", []string{".", "internal"}, "the API is the same whoever implements it"},
	{"console", []string{".", "internal", "control"}, "the console has no way to data beside control"},
	{"daemon", []string{".", "internal", "manifest", "plan", "tier", "learn", "export", "control", "console"}, "the daemon joins all below the commands"},
	{"cmd", []string{".", "internal", "manifest", "learn", "export", "control", "daemon"}, "commands speak through control, and start modes through daemon"},
	{"bench", []string{".", "internal", "manifest", "plan", "tier", "learn", "export", "control", "daemon", "+"}, "measurements use what they measure"},
	{"test", []string{".", "internal", "control"}, "scenarios see what a user sees"},
	{"examples", nil, "examples are users' projects"},
}

// pure packages decide and do nothing: no clock, randomness, file, process or socket.
var pure = []string{".", "manifest", "plan", "learn/capacity", "learn/sim", "export"}

var impure = []string{"os", "os/exec", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "syscall", "io/ioutil"}

const module = "tenfold"

type source struct {
	file   string // slash path below the root
	folder string
	ast    *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != "." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata" || name == "examples" || name == "bin" || name == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		out = append(out, source{p, path.Dir(p), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("found only %d files: is this the root?", len(out))
	}
	return out
}

func floorOf(folder string) (floor, bool) {
	for _, f := range floors {
		if folder == f.folder || f.folder != "." && strings.HasPrefix(folder, f.folder+"/") {
			return f, true
		}
	}
	return floor{}, false
}

func room(folder string) string {
	p := strings.SplitN(folder, "/", 3)
	return strings.Join(p[:min(2, len(p))], "/")
}

func TestImportsGoDownward(t *testing.T) {
	for _, s := range sources(t) {
		f, ok := floorOf(s.folder)
		if !ok {
			t.Errorf("%s: folder %s is on no floor: put it on one in house_test.go and ARCHITECTURE.md", s.file, s.folder)
			continue
		}
		for _, imp := range s.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if p != module && !strings.HasPrefix(p, module+"/") {
				if s.folder == "." && strings.Contains(strings.SplitN(p, "/", 2)[0], ".") && !strings.HasSuffix(s.file, "_test.go") {
					t.Errorf("%s imports %s: the root uses the standard library only", s.file, p)
				}
				continue
			}
			target := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
			if target == "" {
				target = "."
			}
			allowed := target == s.folder || slices.ContainsFunc(f.may, func(m string) bool {
				if m == "+" {
					return room(target) == room(s.folder)
				}
				return target == m || m != "." && strings.HasPrefix(target, m+"/")
			})
			if !allowed {
				t.Errorf("%s imports %s, which the floor of %s forbids: %s", s.file, p, f.folder, f.why)
			}
		}
	}
}

func TestPurePackagesTouchNothing(t *testing.T) {
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "Tick", "NewTimer", "NewTicker", "AfterFunc"}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") || !slices.ContainsFunc(pure, func(p string) bool {
			return s.folder == p || p != "." && strings.HasPrefix(s.folder, p+"/")
		}) {
			continue
		}
		for _, imp := range s.ast.Imports {
			if p, _ := strconv.Unquote(imp.Path.Value); slices.Contains(impure, p) {
				t.Errorf("%s imports %s: package %s is pure; take what you need as an argument", s.file, p, s.folder)
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
					t.Errorf("%s calls time.%s: package %s is pure; take the time as an argument", s.file, sel.Sel.Name, s.folder)
				}
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	doc, name := map[string]string{}, map[string]string{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		name[s.folder] = s.ast.Name.Name
		if s.ast.Doc != nil {
			doc[s.folder] += s.ast.Doc.Text()
		}
	}
	for folder, n := range name {
		want := "Package " + n + " "
		if n == "main" {
			want = ""
		}
		if d := doc[folder]; len(d) < 60 || !strings.HasPrefix(d, want) {
			t.Errorf("%s: the package comment should begin %q and tell a stranger what it is for (it is %q)", folder, want, d)
		}
	}
}

func TestExportedNamesHaveComments(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") || s.ast.Name.Name == "main" {
			continue
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !contractual(d.Name.Name) {
					t.Errorf("%s: %s has no comment", s.file, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: type %s has no comment", s.file, ts.Name.Name)
					}
				}
			}
		}
	}
}

// contractual names say by themselves what they do, because an interface of everybody's defines them.
func contractual(name string) bool {
	return slices.Contains([]string{
		"Name", "Run", "Desired", "Observe", "Apply", // tenfold.Tier
		"Error", "Unwrap", "String", "Close",
		"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText",
		"Len", "Less", "Swap", "Read", "Write", "ServeHTTP",
	}, name)
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	x := d.Recv.List[0].Type
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	if idx, ok := x.(*ast.IndexExpr); ok {
		x = idx.X
	}
	id, ok := x.(*ast.Ident)
	return ok && id.IsExported()
}

func TestTestsDoNotSleep(t *testing.T) {
	for _, s := range sources(t) {
		if !strings.HasSuffix(s.file, "_test.go") || s.file == "house_test.go" {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && !usesSynctest(s.ast) {
					t.Errorf("%s sleeps on the real clock: wait for a condition, or use testing/synctest", s.file)
				}
			}
			return true
		})
	}
}

func usesSynctest(f *ast.File) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
}

func TestArchitectureNamesEveryFolder(t *testing.T) {
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	text, seen := string(b), map[string]bool{}
	for _, s := range sources(t) {
		if seen[s.folder] || s.folder == "." {
			continue
		}
		seen[s.folder] = true
		if !strings.Contains(text, s.folder+"/") {
			t.Errorf("ARCHITECTURE.md does not name %s/", s.folder)
		}
	}
}
