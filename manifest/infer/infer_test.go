package infer

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/tools/txtar"

	"tenfold"
	"tenfold/manifest"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

// TestInfer reads projects from testdata: the files, then want/tenfold.yaml, want/warnings and
// want/resolved, which is the App after Resolve. Every draft must parse.
func TestInfer(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d projects in testdata, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			fsys, want, keep := fstest.MapFS{}, map[string]string{}, []txtar.File{}
			for _, f := range ar.Files {
				if strings.HasPrefix(f.Name, "want/") {
					want[f.Name] = string(f.Data)
					continue
				}
				keep = append(keep, f)
				fsys[f.Name] = &fstest.MapFile{Data: f.Data}
			}
			got := run(t, fsys)
			for name, text := range got {
				if *update {
					keep = append(keep, txtar.File{Name: name, Data: []byte(text)})
				} else if want[name] != text {
					t.Errorf("%s:\n%s\nwant:\n%s", name, text, want[name])
				}
			}
			if *update {
				order := map[string]int{"want/tenfold.yaml": 1, "want/warnings": 2, "want/secrets": 3, "want/resolved": 4}
				slicesSort(keep, order)
				ar.Files = keep
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func run(t *testing.T, fsys fstest.MapFS) map[string]string {
	t.Helper()
	var text []byte
	got := map[string]string{}
	if f := fsys["tenfold.yaml"]; f != nil {
		text = f.Data
	} else {
		d, err := Infer(fsys, "My Shop")
		if err != nil {
			return map[string]string{"want/tenfold.yaml": err.Error() + "\n" + tenfold.HintOf(err) + "\n"}
		}
		text = []byte(d.Text)
		got["want/tenfold.yaml"] = d.Text
		if len(d.Warnings) > 0 {
			got["want/warnings"] = strings.Join(d.Warnings, "\n") + "\n"
		}
		if len(d.Secrets) > 0 {
			b, _ := json.MarshalIndent(d.Secrets, "", "  ")
			got["want/secrets"] = string(b) + "\n"
		}
	}
	m, err := manifest.Parse("tenfold.yaml", text)
	if err != nil {
		t.Fatalf("the draft does not parse:\n%v\n%s", err, text)
	}
	app, err := m.App("production")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Resolve(fsys, &app); err != nil {
		got["want/resolved"] = err.Error() + "\n" + tenfold.HintOf(err) + "\n"
		return got
	}
	var b strings.Builder
	show := func(kind string, name tenfold.Name, s tenfold.Source, build tenfold.Build) {
		b.WriteString(kind + " " + string(name) + "\n")
		for _, kv := range [][2]string{{"path", s.Path}, {"context", s.Context}, {"only", strings.Join(s.Only, " ")}, {"also", strings.Join(s.Also, " ")}, {"language", strings.TrimSpace(build.Language + " " + build.Version)}, {"install", build.Install.String()}, {"test", build.Test.String()}, {"build", build.Command.String()}, {"output", build.Output}} {
			if kv[1] != "" {
				b.WriteString("  " + kv[0] + ": " + kv[1] + "\n")
			}
		}
	}
	for _, n := range sorted(app.Frontends) {
		f := app.Frontends[n]
		show("frontend", n, f.Source, f.Build)
		b.WriteString("  fallback: " + f.Fallback + "\n")
		if f.Server != nil {
			b.WriteString("  server: " + f.Server.Command.String() + "\n  private: " + f.Build.Private + "\n")
			for _, a := range f.Build.Assets {
				b.WriteString("  assets: " + a.From + " -> /" + a.To + "\n")
			}
		}
	}
	for _, n := range sorted(app.Services) {
		s := app.Services[n]
		show("service", n, s.Source, s.Build)
		b.WriteString("  command: " + s.Command.String() + "\n")
	}
	got["want/resolved"] = b.String()
	return got
}

func sorted[V any](m map[tenfold.Name]V) []tenfold.Name { return slices.Sorted(maps.Keys(m)) }

func slicesSort(files []txtar.File, order map[string]int) {
	slices.SortStableFunc(files, func(a, b txtar.File) int { return order[a.Name] - order[b.Name] })
}
