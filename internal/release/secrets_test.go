package release

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
)

const token = `s3cr3t/"key"+&=ümläut`

func TestFindSecretsInEveryWriting(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("const k = '" + token + "'"))
	_ = z.Close()
	var brotlied bytes.Buffer
	bw := brotli.NewWriter(&brotlied)
	_, _ = bw.Write([]byte("const k = '" + token + "'"))
	_ = bw.Close()
	files := map[string]string{
		"app.js.br": brotlied.String(),
		"plain.js":  "x=" + token, "b64.txt": base64.StdEncoding.EncodeToString([]byte(token)),
		"inner1.txt": base64.URLEncoding.EncodeToString([]byte("u:" + token + "@host")),
		"inner2.txt": base64.StdEncoding.EncodeToString([]byte("a" + token + "zz")),
		"query.html": "?k=" + url.QueryEscape(token), "path.html": "/" + url.PathEscape(token),
		"lower.html": lowerEscapes(url.QueryEscape(token)), "data.json": `{"k":"s3cr3t/\"key\"+\u0026=ümläut"}`,
		"page.html": `s3cr3t/&#34;key&#34;+&amp;=ümläut`, "app.js.gz": packed.String(),
		"far.bin": strings.Repeat("x", 256<<10-5) + token,
		".env":    "KEY=" + token, "node_modules/x/x.js": token, // not released
		"clean.js": "nothing of it: s3cr3t", "empty": "",
	}
	leaks, err := FindSecrets(t.Context(), []Root{{Dir: output(t, files)}}, map[string]string{"KEY": token, "PORT": "5432"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range leaks {
		got[l.File] = l.As
		if strings.Contains(l.String(), token) || l.Name != "KEY" {
			t.Errorf("reported as %q", l)
		}
	}
	for name := range files {
		if want := name != "clean.js" && name != "empty" && name != ".env" && name != "node_modules/x/x.js"; (got[name] != "") != want {
			t.Errorf("%s: found as %q, want found %v", name, got[name], want)
		}
	}
	if leaks, err := FindSecrets(t.Context(), []Root{{Dir: output(t, map[string]string{"a/" + "hunter2hunter2.js": "x"})}}, map[string]string{"P": "hunter2hunter2"}); len(leaks) != 1 || err != nil {
		t.Errorf("in a name: %v, %v", leaks, err)
	}
	if leaks, err := FindSecrets(t.Context(), []Root{{Dir: t.TempDir() + "/none"}}, map[string]string{"P": "hunter2hunter2"}); err == nil {
		t.Errorf("a folder that is not there: %v", leaks)
	}
}

func TestFindSecretsBehindALinkThatIsReleased(t *testing.T) {
	dir := output(t, map[string]string{"index.html": "x", ".hidden/env.txt": "KEY=" + token})
	if err := os.Symlink(".hidden", filepath.Join(dir, "shown")); err != nil {
		t.Fatal(err)
	}
	leaks, err := FindSecrets(t.Context(), []Root{{Dir: dir}}, map[string]string{"KEY": token})
	if len(leaks) != 1 || leaks[0].File != "shown/env.txt" || err != nil {
		t.Errorf("%v, %v", leaks, err)
	}
}

func FuzzFindSecretsInBase64(f *testing.F) {
	f.Add("before", "a value of some length", "after")
	f.Add("", "12345678", "")
	f.Fuzz(func(t *testing.T, before, value, after string) {
		if len(value) < ShortestSecret {
			return
		}
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			found := map[string]string{}
			if err := search(strings.NewReader(enc.EncodeToString([]byte(before+value+after))), formsOf(map[string]string{"V": value}), found); err != nil || found["V"] == "" {
				t.Errorf("%q in %q is not found: %v", value, before+value+after, err)
			}
		}
	})
}
