package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xwebp "golang.org/x/image/webp"
)

// photo is a picture of four fields: red, green above; blue, white below.
func photo(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{255, 255, 255, 255}
			switch {
			case y < h/2 && x < w/2:
				c = color.RGBA{230, 10, 10, 255}
			case y < h/2:
				c = color.RGBA{10, 200, 10, 255}
			case x < w/2:
				c = color.RGBA{10, 10, 220, 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	return m
}

func jpegOf(t testing.TB, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, photo(w, h), &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// site is an app whose pictures are in a map, and that counts how often it is asked.
type site struct {
	mu    sync.Mutex
	files map[string][]byte
	head  http.Header
	asked atomic.Int64
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	s.mu.Lock()
	b, ok := s.files[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	for k, v := range s.head {
		w.Header()[k] = v
	}
	if r.Header.Get("Cookie") != "" {
		panic("a picture for all is asked for with one visitor's cookies")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func newHandler(t testing.TB, s *site, change func(*Config)) *Handler {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), App: s, Formats: []string{"webp"}}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func get(h http.Handler, target, accept string, more ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("Cookie", "session=1")
	for i := 0; i+1 < len(more); i += 2 {
		r.Header.Set(more[i], more[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func ask(u, rest string) string { return "/_next/image?url=" + url.QueryEscape(u) + "&" + rest }

// near says whether a pixel is about the colour that is expected there.
func near(c color.Color, r, g, b int) bool {
	cr, cg, cb, _ := c.RGBA()
	d := func(a uint32, b int) bool { return int(a>>8)-b < 30 && b-int(a>>8) < 30 }
	return d(cr, r) && d(cg, g) && d(cb, b)
}

func TestResizesIntoWhatTheBrowserTakes(t *testing.T) {
	s := &site{files: map[string][]byte{"/a.jpg": jpegOf(t, 1000, 500), "/a.png": pngOf(t, photo(1000, 500))}}
	h := newHandler(t, s, nil)
	for _, c := range []struct {
		url, rest, accept, mime string
		w, h                    int
	}{
		{"/a.jpg", "w=256&q=75", "image/avif,image/webp,*/*", "image/webp", 256, 128},
		{"/a.jpg", "w=640&q=75", "image/webp;q=0,*/*", "image/jpeg", 640, 320},
		{"/a.jpg", "w=640", "*/*", "image/jpeg", 640, 320},
		{"/a.png", "w=96&q=50", "image/png", "image/png", 96, 48},
		{"/a.png", "w=48&dpr=2", "image/png", "image/png", 96, 48},
		{"/a.png", "w=100&dpr=1.5", "image/png", "image/png", 256, 128},
		{"/a.jpg", "w=3840&q=75", "image/webp", "image/webp", 1000, 500},
	} {
		rec := get(h, ask(c.url, c.rest), c.accept)
		if rec.Code != 200 || rec.Header().Get("Content-Type") != c.mime || rec.Header().Get("Vary") != "Accept" || rec.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%+v: %d %v %s", c, rec.Code, rec.Header(), rec.Body)
			continue
		}
		var m image.Image
		var err error
		if c.mime == "image/webp" {
			m, err = xwebp.Decode(rec.Body)
		} else {
			m, _, err = image.Decode(rec.Body)
		}
		if err != nil || m.Bounds().Dx() != c.w || m.Bounds().Dy() != c.h {
			t.Errorf("%+v: %v, %v", c, m.Bounds(), err)
			continue
		}
		if !near(m.At(c.w/4, c.h/4), 230, 10, 10) || !near(m.At(c.w*3/4, c.h/4), 10, 200, 10) || !near(m.At(c.w/4, c.h*3/4), 10, 10, 220) {
			t.Errorf("%+v: other colours: %v", c, m.At(c.w/4, c.h/4))
		}
	}
	if rec := get(h, ask("/none.jpg", "w=640"), "*/*"); rec.Code != 404 || rec.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("no such picture: %d %v", rec.Code, rec.Header())
	}
}

func TestAVIFWhereItIsAskedFor(t *testing.T) {
	if raced || testing.Short() {
		t.Skip("the encoder is compiled first: seconds")
	}
	out, k, err := transform(jpegOf(t, 100, 50), 64, 60, "avif", 1e6)
	if err != nil || k != kindAVIF || sniff(out) != kindAVIF {
		t.Errorf("%s %q %v", k, out[:min(16, len(out))], err)
	}
}

func TestTransparencyIsKept(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 200, 100))
	for i := 0; i < len(m.Pix); i += 4 {
		copy(m.Pix[i:], []byte{200, 40, 40, 128})
	}
	for _, format := range []string{"webp", ""} {
		out, k, err := transform(pngOf(t, m), 50, 90, format, 1e6)
		if err != nil {
			t.Fatal(err)
		}
		var got image.Image
		if k == kindWebP {
			got, err = xwebp.Decode(bytes.NewReader(out))
		} else {
			got, err = png.Decode(bytes.NewReader(out))
		}
		if err != nil {
			t.Fatal(err)
		}
		c := color.NRGBAModel.Convert(got.At(20, 10)).(color.NRGBA)
		if c.A < 120 || c.A > 136 || c.R < 185 || c.R > 215 || c.G > 60 {
			t.Errorf("%s: %v", k, c)
		}
	}
}

// withOrientation puts EXIF's orientation into a JPEG.
func withOrientation(b []byte, turn byte, order binary.AppendByteOrder, mark string) []byte {
	tiff := order.AppendUint32(order.AppendUint16([]byte(mark), 42), 8)
	tiff = order.AppendUint16(tiff, 1)
	tiff = order.AppendUint32(order.AppendUint16(order.AppendUint16(tiff, 0x0112), 3), 1)
	tiff = order.AppendUint16(order.AppendUint16(tiff, uint16(turn)), 0)
	body := append([]byte("Exif\x00\x00"), tiff...)
	seg := append(binary.BigEndian.AppendUint16([]byte{0xff, 0xe1}, uint16(len(body)+2)), body...)
	return append(append(append([]byte{}, b[:2]...), seg...), b[2:]...)
}

func TestPhotosStandUpright(t *testing.T) {
	// Where red and green are to be found, of four corners clockwise from the upper left.
	for turn, want := range map[byte][2]int{1: {0, 1}, 2: {1, 0}, 3: {2, 3}, 4: {3, 2}, 5: {0, 3}, 6: {1, 2}, 7: {2, 1}, 8: {3, 0}} {
		for mark, order := range map[string]binary.AppendByteOrder{"MM": binary.BigEndian, "II": binary.LittleEndian} {
			out, _, err := transform(withOrientation(jpegOf(t, 200, 100), turn, order, mark), 50, 90, "", 1e6)
			if err != nil {
				t.Fatal(err)
			}
			m, err := jpeg.Decode(bytes.NewReader(out))
			if err != nil {
				t.Fatal(err)
			}
			w, h := m.Bounds().Dx(), m.Bounds().Dy()
			if wantH := map[bool]int{true: 100, false: 25}[turn >= 5]; w != 50 || h != wantH {
				t.Errorf("orientation %d: %d × %d", turn, w, h)
			}
			corners := [4]color.Color{m.At(w/5, h/5), m.At(w*4/5, h/5), m.At(w*4/5, h*4/5), m.At(w/5, h*4/5)}
			if !near(corners[want[0]], 230, 10, 10) || !near(corners[want[1]], 10, 200, 10) {
				t.Errorf("orientation %d: %v", turn, corners)
			}
		}
	}
}

func TestMovingPicturesAreLeftAlone(t *testing.T) {
	frame := func() *image.Paletted {
		return image.NewPaletted(image.Rect(0, 0, 100, 100), color.Palette{color.Black, color.White})
	}
	var moving, still bytes.Buffer
	if err := gif.EncodeAll(&moving, &gif.GIF{Image: []*image.Paletted{frame(), frame()}, Delay: []int{1, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := gif.Encode(&still, frame(), nil); err != nil {
		t.Fatal(err)
	}
	if out, k, err := transform(moving.Bytes(), 16, 75, "webp", 1e6); err != nil || k != kindGIF || !bytes.Equal(out, moving.Bytes()) {
		t.Errorf("moving: %s, %v", k, err)
	}
	if out, k, err := transform(still.Bytes(), 16, 75, "", 1e6); err != nil || k != kindPNG || len(out) == 0 {
		t.Errorf("still: %s, %v", k, err)
	}
}

// bomb is a PNG of a few bytes that claims to be large.
func bomb(w, h uint32) []byte {
	ihdr := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("IHDR"), w), h)
	ihdr = append(ihdr, 8, 6, 0, 0, 0)
	b := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n"), 13)
	b = binary.BigEndian.AppendUint32(append(b, ihdr...), crc32.ChecksumIEEE(ihdr))
	return append(b, 0, 0, 0, 0, 'I', 'D', 'A', 'T', 0, 0, 0, 0)
}

// webpBomb says in its head that it is small, and in its picture that it is large.
func webpBomb() []byte {
	vp8x := append([]byte("VP8X\x0a\x00\x00\x00"), 0, 0, 0, 0, 9, 0, 0, 9, 0, 0)
	vp8l := append([]byte("VP8L\x06\x00\x00\x00\x2f"), 0xff, 0xff, 0xff, 0x0f, 0)
	body := append(append([]byte("WEBP"), vp8x...), vp8l...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

func TestBombsAndWhatIsNoPicture(t *testing.T) {
	large := jpegOf(t, 300, 300)
	s := &site{files: map[string][]byte{
		"/bomb.png": bomb(60_000, 60_000), "/bomb.webp": webpBomb(), "/wide.png": bomb(1<<31-1, 1), "/large.jpg": large,
		"/x.svg": []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`), "/x.png": []byte(`<?xml version="1.0"?><svg/>`),
		"/cut.jpg": jpegOf(t, 100, 100)[:300], "/page.html": []byte("<html>"), "/empty.png": nil, "/heavy.png": make([]byte, 2<<20),
	}}
	h := newHandler(t, s, func(c *Config) { c.MostPixels, c.MostSource = 300*300-1, 1<<20 })
	for p, want := range map[string]int{
		"/bomb.png": 413, "/bomb.webp": 413, "/wide.png": 413, "/large.jpg": 413, "/x.svg": 400, "/x.png": 400, "/cut.jpg": 400, "/page.html": 400, "/empty.png": 400, "/heavy.png": 413,
	} {
		rec := get(h, ask(p, "w=640&q=75"), "image/webp")
		if rec.Code != want || rec.Header().Get("Cache-Control") != "no-store" || strings.Contains(rec.Body.String(), "script") {
			t.Errorf("%s: %d %s", p, rec.Code, rec.Body)
		}
	}
	files, _ := filepath.Glob(filepath.Join(h.cfg.Dir, "*", "*"))
	if len(files) != 0 {
		t.Errorf("kept: %v", files)
	}
}

func TestMadeOnceKeptAndRevalidated(t *testing.T) {
	s := &site{files: map[string][]byte{"/a.jpg": jpegOf(t, 400, 400)}, head: http.Header{"Etag": {`"one"`}, "Cache-Control": {"no-cache"}}}
	dir := t.TempDir()
	h := newHandler(t, s, func(c *Config) { c.Dir = dir })
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if rec := get(h, ask("/a.jpg", "w=64&q=75"), "image/webp"); rec.Code != 200 || rec.Header().Get("Cache-Control") != "public, max-age=0, must-revalidate" {
				t.Errorf("%d %v", rec.Code, rec.Header())
			}
		})
	}
	all.Wait()
	files := func() []string { f, _ := filepath.Glob(filepath.Join(dir, "*", "*")); return f }
	if len(files()) != 1 {
		t.Errorf("on disk: %v", files())
	}
	one := get(h, ask("/a.jpg", "w=64&q=75"), "image/webp")
	tag := one.Header().Get("ETag")
	if rec := get(h, ask("/a.jpg", "w=64&q=73"), "image/webp", "If-None-Match", tag); rec.Code != 304 || rec.Body.Len() != 0 {
		t.Errorf("unchanged: %d", rec.Code)
	}
	// Another start, the same disk.
	again := newHandler(t, s, func(c *Config) { c.Dir = dir })
	if rec := get(again, ask("/a.jpg", "w=64&q=75"), "image/webp"); rec.Header().Get("ETag") != tag || !bytes.Equal(rec.Body.Bytes(), one.Body.Bytes()) {
		t.Error("another picture after a restart")
	}
	// A result that a crash cut short is made again.
	f := files()[0]
	if err := os.Truncate(f, 50); err != nil {
		t.Fatal(err)
	}
	if rec := get(again, ask("/a.jpg", "w=64&q=75"), "image/webp"); rec.Code != 200 || !bytes.Equal(rec.Body.Bytes(), one.Body.Bytes()) {
		t.Errorf("from a broken file: %d", rec.Code)
	}
	// The app has a new picture under the name.
	s.mu.Lock()
	s.files["/a.jpg"] = jpegOf(t, 200, 400)
	s.mu.Unlock()
	s.head = http.Header{"Etag": {`"two"`}, "Cache-Control": {"public, max-age=31536000, immutable"}}
	rec := get(again, ask("/a.jpg", "w=64&q=75"), "image/webp")
	if rec.Header().Get("ETag") == tag || !strings.HasSuffix(rec.Header().Get("Cache-Control"), ", immutable") {
		t.Errorf("after a change: %v", rec.Header())
	}
	asked := s.asked.Load()
	if get(again, ask("/a.jpg", "w=64&q=75"), "image/webp"); s.asked.Load() != asked {
		t.Error("a picture that may be used for a year is asked for again")
	}
	s.head = http.Header{"Cache-Control": {"private"}}
	s.mu.Lock()
	s.files["/mine.jpg"] = jpegOf(t, 100, 100)
	s.mu.Unlock()
	before := len(files())
	if rec := get(again, ask("/mine.jpg", "w=64&q=75"), "image/webp"); rec.Code != 200 || rec.Header().Get("Cache-Control") != "private, no-store" || len(files()) != before {
		t.Errorf("a private picture: %d %v, %d files", rec.Code, rec.Header(), len(files()))
	}
}

func TestDiskIsBounded(t *testing.T) {
	s, err := openStore(t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	key := func(i int) string { return fmt.Sprintf("%064x", i) }
	for i := range 20 {
		s.put(key(i), kindPNG, make([]byte, 100))
		s.get(key(0))
	}
	s.put(key(99), kindPNG, make([]byte, 900))
	if _, _, ok := s.get(key(0)); !ok {
		t.Error("what is used most is gone")
	}
	if _, _, ok := s.get(key(1)); ok || s.size > 1000 || len(s.files) != 7 {
		t.Errorf("%d bytes in %d files", s.size, len(s.files))
	}
	smaller, err := openStore(s.dir, 300)
	if err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(s.dir, "*", "*")); len(files) != 2 || smaller.size > 300 {
		t.Errorf("after a restart with less room: %v", files)
	}
}

func TestOnlyNamedHostsAndPublicAddresses(t *testing.T) {
	picture := jpegOf(t, 100, 100)
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a private address was asked") }))
	defer inner.Close()
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/to-inner":
			http.Redirect(w, r, inner.URL+"/x.jpg", http.StatusFound)
		case "/to-name":
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
		case "/to-self":
			http.Redirect(w, r, "/to-self", http.StatusFound)
		case "/once":
			http.Redirect(w, r, "/a.jpg", http.StatusFound)
		case "/cut":
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(picture)
		default:
			_, _ = w.Write(picture)
		}
	}))
	defer outer.Close()
	host, innerHost := strings.TrimPrefix(outer.URL, "http://"), strings.TrimPrefix(inner.URL, "http://")
	// Both are named; of the two addresses only the outer one counts as public here.
	h := newHandler(t, &site{}, func(c *Config) { c.From = []string{host, innerHost, "*.example.com"} })
	h.dialable = func(ap netip.AddrPort) error {
		if ap.String() == host {
			return nil
		}
		return public(ap)
	}
	for u, want := range map[string]int{
		outer.URL + "/a.jpg": 200, outer.URL + "/once": 200, outer.URL + "/to-inner": 400, outer.URL + "/to-name": 400, outer.URL + "/to-self": 502, outer.URL + "/cut": 502,
		inner.URL + "/x.jpg": 400, "http://localhost:1/x": 400, "https://example.com/x.jpg": 400, "https://a.example.com.evil.org/x": 400, "http://u:p@" + host + "/a.jpg": 400,
		"//" + host + "/a.jpg": 400, `/\` + host + "/a.jpg": 400, "file:///etc/passwd": 400, "data:image/png;base64,AAAA": 400, "/_next/image?url=/a.jpg&w=64": 400, "/x/../_tenfold/image": 400,
	} {
		rec := get(h, ask(u, "w=64&q=75"), "image/webp")
		if rec.Code != want {
			t.Errorf("%s: %d, want %d: %s", u, rec.Code, want, rec.Body)
		}
		if cc := rec.Header().Get("Cache-Control"); want == 200 && !strings.HasPrefix(cc, "public, max-age=6") && !strings.HasPrefix(cc, "public, max-age=5") {
			t.Errorf("%s: %s", u, cc)
		}
	}
	for a, want := range map[string]bool{
		"127.0.0.1": false, "10.1.2.3": false, "192.168.0.1": false, "172.16.0.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "255.255.255.255": false,
		"224.0.0.1": false, "::1": false, "::": false, "fe80::1": false, "fd00::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::7f00:1": false,
		"192.0.0.1": false, "198.18.0.1": false, "ff02::1": false, "93.184.216.34": true, "2606:2800:220:1::1": true,
	} {
		if err := public(netip.AddrPortFrom(netip.MustParseAddr(a), 443)); (err == nil) != want {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, bad := range []string{"", "*", "*.com", "ftp://x.org", "a/b", "u@x.org"} {
		if _, err := New(Config{Dir: t.TempDir(), App: &site{}, From: []string{bad}}); err == nil {
			t.Errorf("host %q is taken", bad)
		}
	}
}

func TestTooManyAtOnceAreRefusedAndALeavingClientHarmsNobody(t *testing.T) {
	begun, goOn := make(chan bool, 8), make(chan bool)
	picture := jpegOf(t, 64, 64)
	app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- true
		<-goOn
		_, _ = w.Write(picture)
	})
	h, err := New(Config{Dir: t.TempDir(), App: app, AtOnce: 1, Queue: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	var both sync.WaitGroup
	first := httptest.NewRequest("GET", ask("/a.jpg", "w=64"), nil).WithContext(ctx)
	both.Go(func() { h.ServeHTTP(httptest.NewRecorder(), first) })
	<-begun
	follower := httptest.NewRecorder()
	both.Go(func() { h.ServeHTTP(follower, httptest.NewRequest("GET", ask("/a.jpg", "w=64"), nil)) })
	leave()
	close(goOn)
	both.Wait()
	// The follower joined, or came after all was done.
	if follower.Code != 200 {
		t.Errorf("the follower: %d %s", follower.Code, follower.Body)
	}
	h.slots <- struct{}{} // one is being made
	h.waiting.Add(2)      // and as many wait as may
	if rec := get(h, ask("/b.jpg", "w=96"), ""); rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
		t.Errorf("too many: %d %v", rec.Code, rec.Header())
	}
}

func TestShrinkKeepsTheMean(t *testing.T) {
	for _, size := range [][4]int{{100, 100, 33, 33}, {7, 5, 3, 2}, {1000, 3, 1, 1}, {640, 480, 639, 479}, {50, 2000, 16, 640}} {
		m := image.NewRGBA(image.Rect(0, 0, size[0], size[1]))
		for i := range m.Pix {
			m.Pix[i] = 200
		}
		out := shrink(m, size[2], size[3])
		for i, v := range out.Pix {
			if v < 199 || v > 201 {
				t.Errorf("%v: byte %d of an even picture is %d", size, i, v)
				break
			}
		}
	}
}
