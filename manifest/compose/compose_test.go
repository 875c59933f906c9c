package compose

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"tenfold"
	"tenfold/manifest"
)

var update = flag.Bool("update", false, "rewrite testdata/full.want")

func TestImportTellsWhatIsNotCarried(t *testing.T) {
	text, notes, err := Import(os.DirFS("testdata"), "full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.Write(text)
	b.WriteString("---\n")
	for _, n := range notes {
		b.WriteString(n.String() + "\n")
	}
	if *update {
		if err := os.WriteFile("testdata/full.want", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/full.want")
	if err != nil || !bytes.Equal(want, b.Bytes()) {
		t.Errorf("%v, got:\n%s", err, b.Bytes())
	}
}

// TestEveryFieldIsTranslatedOrNoted holds the promise of the package: a key that compose has and
// that means nothing here is listed with its line.
func TestEveryFieldIsTranslatedOrNoted(t *testing.T) {
	for _, key := range []string{"cap_add", "privileged", "network_mode", "user", "entrypoint", "working_dir", "labels", "profiles", "extends", "tmpfs", "devices", "x-unknown"} {
		src := "services:\n  api:\n    build: .\n    " + key + ": x\n"
		_, notes, err := Import(fstest.MapFS{"c.yaml": {Data: []byte(src)}}, "c.yaml")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, n := range notes {
			found = found || n.Line == 4 && n.Field == "services.api."+key
		}
		if !found {
			t.Errorf("%s: no note with its line: %v", key, notes)
		}
	}
}

func TestImportRefusesWhatIsNoComposeFile(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x]\n"
	for i, prev := 1, "a0"; i < 9; i++ {
		name := "a" + string(rune('0'+i))
		bomb += name + ": &" + name + " [" + strings.TrimSuffix(strings.Repeat("*"+prev+", ", 9), ", ") + "]\n"
		prev = name
	}
	for name, src := range map[string]string{
		"empty": "", "list": "[a]", "no services": "volumes: {}\n", "broken": "services: [", "bomb": bomb + "services: {api: {build: .}}\n",
		"loop": "services: &s\n  api: {build: ., x: *s}\n", "long": strings.Repeat("# x\n", manifest.MaxSize/2),
	} {
		_, _, err := Import(fstest.MapFS{"c.yaml": {Data: []byte(src)}}, "c.yaml")
		if tenfold.CodeOf(err) != tenfold.CodeInvalid || tenfold.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCompose(f *testing.F) {
	b, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("services: {a: {build: ., environment: [A=b]}}"))
	f.Add([]byte("services: &a {b: *a, <<: [*a]}"))
	f.Fuzz(func(t *testing.T, src []byte) {
		text, notes, err := Import(fstest.MapFS{"c.yaml": {Data: src}}, "c.yaml")
		if err != nil {
			return
		}
		if _, err := manifest.Parse("tenfold.yaml", text); err != nil {
			t.Fatalf("imported text does not parse: %v\n%s", err, text)
		}
		for _, n := range notes {
			if n.Line < 1 || n.Field == "" {
				t.Fatalf("a note without place: %+v", n)
			}
		}
	})
}
