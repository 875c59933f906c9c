package edge

import (
	"bytes"
	"image"
	_ "image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenfold"
	"tenfold/internal/release"
)

func breakFile(t *testing.T, name string) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Remove(name)
	if err := os.WriteFile(name, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A release that is tried out answers as it will, in all that it has: nothing comes from what users have.
func TestWhatIsTriedOutAnswersAsItWill(t *testing.T) {
	h := open(t)
	app := tenfold.App{
		Name: "shop", Env: "production",
		Frontends: map[tenfold.Name]tenfold.Frontend{"web": {Routes: []tenfold.Route{"/*"}, Fallback: "index.html", Images: &tenfold.Images{Widths: []int{64}, Formats: []string{}}}},
	}
	h.route(t, "shop", func(a *tenfold.App) { a.Services, a.Frontends = nil, app.Frontends })
	h.release(t, map[string]string{"index.html": "users'", "photo.png": picture(t, 200, 100)})
	next := h.releaseOf(t, map[string]string{"index.html": "the next", "photo.png": picture(t, 200, 200), "new.png": picture(t, 200, 300)}, release.Meta{})
	ask := func(base, method, path string) (*http.Response, string) {
		t.Helper()
		if base == "" {
			return h.ask(t, method, path, "", "Accept", "text/html")
		}
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	high := func(base, of string) int {
		t.Helper()
		res, body := ask(base, "GET", "/_tenfold/image?url="+of+"&w=64")
		if res.StatusCode != 200 {
			return -res.StatusCode
		}
		c, _, err := image.DecodeConfig(bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		return c.Height
	}
	if n := high("", "/photo.png"); n != 32 {
		t.Errorf("users' picture is %d high", n)
	}
	base, end, err := h.Candidate(t.Context(), app, "web", next.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, body := ask(base, "GET", "/"); body != "the next" {
		t.Errorf("its page: %s", body)
	}
	if res, body := ask(base, "POST", "/"); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %s", res.StatusCode, body)
	}
	if res, body := ask(base, "GET", "/none.js"); res.StatusCode != 404 || res.Header.Get("Cache-Control") != "no-store" || strings.Contains(body, "<") {
		t.Errorf("a script that it has not: %d %v %s", res.StatusCode, res.Header, body)
	}
	for of, want := range map[string]int{"/photo.png": 64, "/new.png": 96, "/none.png": -400, "/_tenfold/image%3Furl%3D%2Fphoto.png%26w%3D64": -400} {
		if n := high(base, of); n != want {
			t.Errorf("its picture %s: %d, want %d high", of, n, want)
		}
	}
	if n := high("", "/photo.png"); n != 32 {
		t.Errorf("users' picture is %d high by now", n)
	}
	made := func() int {
		all, err := os.ReadDir(filepath.Join(h.cfg.Dir, "pictures"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := made(); n != 2 {
		t.Errorf("pictures lie in %d folders", n)
	}
	end()
	if n := made(); n != 1 {
		t.Errorf("what was made for it stays: %d folders", n)
	}
	broken := h.releaseOf(t, map[string]string{"index.html": "broken"}, release.Meta{})
	breakFile(t, filepath.Join(h.cfg.SiteDir(shop), "releases", broken.ID, "release.json"))
	base, end, err = h.Candidate(t.Context(), app, "web", broken.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if res, body := ask(base, "GET", "/"); res.StatusCode != 500 || !strings.Contains(body, "cannot be read") {
		t.Errorf("a release that cannot be read: %d %s", res.StatusCode, body)
	}
}
