package edge

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"net/http/httptest"
	"strings"
	"testing"

	"tenfold"
	"tenfold/internal/directory"
)

func picture(t *testing.T, wide, high int) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, wide, high))
	for x := range wide {
		for y := range high {
			m.Set(x, y, color.RGBA{uint8(x), uint8(y), 99, 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPicturesOfTheSiteAreMadeToFit(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{"/secret/*": {Auth: &tenfold.Auth{Basic: secret("USERS")}}}, map[string]string{"USERS": "a:b"}, func(a *tenfold.App) {
		a.Frontends["web"] = tenfold.Frontend{Routes: []tenfold.Route{"/*"}, Images: &tenfold.Images{Widths: []int{64, 128}}}
	})
	h.release(t, map[string]string{"index.html": "x", "photo.png": picture(t, 200, 100), "secret/photo.png": picture(t, 200, 100)})
	get := func(target string, header ...string) (int, string, string, string) {
		t.Helper()
		res, body := h.ask(t, "GET", target, "", header...)
		return res.StatusCode, res.Header.Get("Content-Type"), res.Header.Get("Cache-Control"), body
	}
	for _, path := range []string{"/_tenfold/image", "/_next/image"} {
		code, kind, _, body := get(path+"?url=%2Fphoto.png&w=64&q=75", "Accept", "image/webp,*/*")
		if code != 200 || kind != "image/webp" || len(body) == 0 || len(body) > 5000 {
			t.Errorf("%s: %d %s, %d bytes", path, code, kind, len(body))
		}
	}
	if code, kind, _, _ := get("/_tenfold/image?url=/photo.png&w=128", "Accept", "image/png"); code != 200 || kind != "image/png" {
		t.Errorf("without WebP: %d %s", code, kind)
	}
	for target, want := range map[string]int{
		"?url=/photo.png&w=65": 400, "?url=https://example.com/x.png&w=64": 400, "?url=/none.png&w=64": 404, "?url=/index.html&w=64": 400,
		"?url=/_tenfold/image%3Furl%3D/photo.png%26w%3D64&w=64": 400,
	} {
		if code, _, _, body := get("/_tenfold/image" + target); code != want && !(want == 400 && code >= 400 && code < 500) {
			t.Errorf("%s: %d %s, want %d", target, code, body, want)
		}
	}
	// What is behind a password stays there, even for one who knows it: the result would be for all.
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth("a", "b")
	for _, header := range [][]string{nil, {"Authorization", r.Header.Get("Authorization")}} {
		if code, _, _, _ := get("/_tenfold/image?url=/secret/photo.png&w=64", header...); code < 400 {
			t.Errorf("a picture behind a password: %d", code)
		}
	}
	// A preview's password is the whole site's: who knows it sees its pictures, and no other cache keeps them.
	hash, _ := HashPassword("pass")
	s := h.Edge.snapshot(t.Context())
	s.Version, s.Sites[0].Password = 1<<40, hash
	if err := h.door.apply(s); err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("x", "pass")
	if code, _, _, _ := get("/_tenfold/image?url=/photo.png&w=64"); code != 401 {
		t.Errorf("a preview's picture without the password: %d", code)
	}
	if code, _, cache, _ := get("/_tenfold/image?url=/photo.png&w=64", "Authorization", r.Header.Get("Authorization")); code != 200 || !strings.HasPrefix(cache, "private") {
		t.Errorf("a preview's picture with the password: %d, %s", code, cache)
	}
}

func TestPicturesCanBeTurnedOff(t *testing.T) {
	h := ruled(t, nil, nil, func(a *tenfold.App) {
		a.Frontends["web"] = tenfold.Frontend{Routes: []tenfold.Route{"/*"}, Images: &tenfold.Images{Off: true}}
	})
	h.release(t, map[string]string{"index.html": "x", "photo.png": picture(t, 200, 100)})
	if res, _ := h.ask(t, "GET", "/_tenfold/image?url=/photo.png&w=64", ""); res.StatusCode != 404 {
		t.Errorf("images: false: %d", res.StatusCode)
	}
	if x, err := h.Explain(context.Background(), directory.Question{Method: "GET", URL: "http://shop.localhost/_tenfold/image?url=/photo.png"}); err != nil || !strings.HasPrefix(x.Answer, "404") {
		t.Errorf("%v %v", x, err)
	}
}
