package wire

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that may break every rule.
type peer struct {
	t   testing.TB
	c   net.Conn
	fr  *http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
	in  chan http2.Frame
}

// newPeer greets a server and reads what it says.
func newPeer(t testing.TB, c net.Conn) *peer {
	p := (&peer{t: t, c: c, fr: http2.NewFramer(c, c), in: make(chan http2.Frame, 100_000)}).init()
	go func() {
		defer close(p.in)
		for {
			f, err := p.fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) { // the framer reuses frames
			case *http2.DataFrame:
				p.in <- &http2.DataFrame{FrameHeader: f.FrameHeader}
			case *http2.GoAwayFrame:
				g := *f
				p.in <- &g
			case *http2.HeadersFrame:
				p.in <- &http2.HeadersFrame{FrameHeader: f.FrameHeader}
			case *http2.RSTStreamFrame:
				r := *f
				p.in <- &r
			default:
				p.in <- &http2.UnknownFrame{FrameHeader: f.Header()}
			}
		}
	}()
	io.WriteString(c, preface)
	p.fr.WriteSettings()
	return p
}

func (p *peer) init() *peer {
	p.enc = hpack.NewEncoder(&p.buf)
	return p
}

func (p *peer) next() http2.Frame { return <-p.in }

func (p *peer) block(fields ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.buf.Bytes())
}

func (p *peer) get(path string, more ...string) []byte {
	return p.block(append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", path}, more...)...)
}

func (p *peer) request(id uint32, path string, more ...string) error {
	return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.get(path, more...), EndStream: true, EndHeaders: true})
}

// ends reads until GOAWAY and returns its code, or -1 when the connection just ends.
func (p *peer) ends() int {
	for f := range p.in {
		if g, ok := f.(*http2.GoAwayFrame); ok {
			return int(g.ErrCode)
		}
	}
	return -1
}

func dialPeer(t *testing.T, s *served) *peer {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return newPeer(t, c)
}

func TestFloods(t *testing.T) {
	const calm = int(http2.ErrCodeEnhanceYourCalm)
	for name, c := range map[string]struct {
		want int
		send func(p *peer, i uint32) error
	}{
		"rapid reset": {calm, func(p *peer, i uint32) error {
			p.request(2*i+1, "/")
			return p.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}},
		"settings":   {calm, func(p *peer, i uint32) error { return p.fr.WriteSettings() }},
		"pings":      {calm, func(p *peer, i uint32) error { return p.fr.WritePing(false, [8]byte{}) }},
		"priorities": {calm, func(p *peer, i uint32) error { return p.fr.WritePriority(2*i+1, http2.PriorityParam{}) }},
		"unknown":    {calm, func(p *peer, i uint32) error { return p.fr.WriteRawFrame(200, 0, 0, nil) }},
		"malformed": {calm, func(p *peer, i uint32) error {
			return p.request(2*i+1, "/", "Upper", "case")
		}},
		"empty data": {calm, func(p *peer, i uint32) error {
			if i == 0 {
				p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.get("/"), EndHeaders: true})
			}
			return p.fr.WriteData(1, false, nil)
		}},
		"continuation": {calm, func(p *peer, i uint32) error {
			if i == 0 {
				p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.get("/")})
			}
			return p.fr.WriteContinuation(1, false, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var running, most atomic.Int64
			s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				<-r.Context().Done()
			}), false, true)
			p := dialPeer(t, s)
			go func() {
				for i := range uint32(500_000) {
					if c.send(p, i) != nil {
						return
					}
				}
			}()
			if got := p.ends(); got != c.want && got != -1 { // a reset may overtake GOAWAY
				t.Errorf("ended with %v", http2.ErrCode(got))
			}
			until(t, "the connection to end", func() bool { return s.Conns() == 0 })
			if most.Load() > 600 {
				t.Errorf("%d handlers at once", most.Load())
			}
		})
	}
}

func TestHeaderListsTooLarge(t *testing.T) {
	s := start(t, handler(func(w http.ResponseWriter, r *http.Request) { t.Error("it reached the handler") }), false, true)
	p := dialPeer(t, s)
	var many []string
	for range 40 {
		many = append(many, "x-many", strings.Repeat("v", 1000))
	}
	block := p.get("/", many...) // small on the wire: each is a reference to the first
	p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
	for f := range p.in {
		if h, ok := f.(*http2.HeadersFrame); ok && h.StreamID == 1 {
			break
		}
		if _, ok := f.(*http2.GoAwayFrame); ok {
			t.Fatal("the connection ended")
		}
	}
	p.c.Close()
}

func TestMalformedRequestsReachNobody(t *testing.T) {
	s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good" {
			t.Errorf("%s %q reached the handler: %v", r.Method, r.RequestURI, r.Header)
		}
	}), false, true)
	p := dialPeer(t, s)
	id := uint32(1)
	for _, fields := range [][]string{
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", ":path", "/"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", ""},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "x"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/ HTTP/1.1\r\nX: y"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "http://b/"},
		{":method", "GET / HTTP/1.1\r\n", ":scheme", "http", ":authority", "a", ":path", "/"},
		{":method", "GET", ":scheme", "http", ":authority", "a\r\nX: y", ":path", "/"},
		{":method", "GET", ":scheme", "http", ":authority", "u@a", ":path", "/"},
		{":method", "GET", ":scheme", "http", ":path", "/"},
		{":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/"},
		{":method", "CONNECT", ":authority", "a:80"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "host", "b"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "x", "a\r\nb: c"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "x", "a\nb"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "x", "a\x00b"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "x", " a"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "x y", "a"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "x:", "a"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "", "a"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "transfer-encoding", "chunked"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "connection", "close"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "upgrade", "h2c"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "te", "gzip"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "content-length", "1"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "content-length", "0", "content-length", "0"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "content-length", "+0"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/%zz"},
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", ":protocol", "websocket"},
	} {
		p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndStream: true, EndHeaders: true})
		for f := range p.in {
			if r, ok := f.(*http2.RSTStreamFrame); ok && r.StreamID == id {
				break
			}
			if h := f.Header(); h.StreamID == id || h.Type == http2.FrameGoAway {
				t.Fatalf("%q: %v", fields, f)
			}
		}
		id += 2
	}
	p.request(id, "/good", "host", "a")
	for f := range p.in {
		if h, ok := f.(*http2.HeadersFrame); ok && h.StreamID == id {
			break
		}
	}
	p.c.Close()
}

// TestHitsOfManyStreams shares small windows between large stored bodies.
func TestHitsOfManyStreams(t *testing.T) {
	hits := stored{}
	s := start(t, Config{Hits: hits, Handler: http.NotFoundHandler()}, true, true)
	hits[s.addr+"/big"] = hello(strings.Repeat("b", 300_000))
	errs := make(chan error, 64)
	for range cap(errs) {
		go func() {
			res, err := s.client.Get(s.url("/big"))
			if err == nil {
				var b []byte
				if b, err = io.ReadAll(res.Body); err == nil && len(b) != 300_000 {
					err = io.ErrUnexpectedEOF
				}
				res.Body.Close()
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestExtendedConnect is RFC 8441: a conversation over a stream.
func TestExtendedConnect(t *testing.T) {
	cfg := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "CONNECT" || r.Header.Get(":protocol") != "websocket" || r.URL.Path != "/ws" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		http.NewResponseController(w).Flush()
		io.Copy(w, r.Body)
	})
	cfg.ExtendedConnect = true
	s := start(t, cfg, false, true)
	p := dialPeer(t, s)
	p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: p.block(":method", "CONNECT", ":scheme", "http", ":authority", "a", ":path", "/ws", ":protocol", "websocket")})
	p.fr.WriteData(1, false, []byte("hello"))
	p.fr.WriteData(1, true, nil)
	total := uint32(0)
	for f := range p.in {
		if d, ok := f.(*http2.DataFrame); ok {
			if total += d.Length; d.StreamEnded() {
				break
			}
		}
	}
	if total != 5 {
		t.Errorf("%d bytes came back", total)
	}
	p.c.Close()
}

// FuzzHTTP2 feeds a connection frames of any kind: it neither panics nor hangs.
func FuzzHTTP2(f *testing.F) {
	var buf bytes.Buffer
	fr := http2.NewFramer(&buf, nil)
	seed := func() {
		f.Add(bytes.Clone(buf.Bytes()))
		buf.Reset()
	}
	p := new(peer).init()
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.get("/hit"), EndStream: true, EndHeaders: true})
	fr.WriteWindowUpdate(1, 100)
	fr.WriteWindowUpdate(0, 100)
	seed()
	fr.WriteSettings()
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.get("/echo", "content-length", "5"), EndHeaders: true, PadLength: 3})
	fr.WriteDataPadded(1, false, []byte("hello"), make([]byte, 7))
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block("x-trailer", "v"), EndStream: true, EndHeaders: true})
	fr.WriteRSTStream(1, http2.ErrCodeCancel)
	seed()
	fr.WriteSettings()
	b := p.get("/hit", "cookie", "a=b")
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: b[:3]})
	fr.WriteContinuation(3, true, b[3:])
	fr.WritePing(false, [8]byte{1})
	fr.WritePriority(5, http2.PriorityParam{StreamDep: 3})
	fr.WriteGoAway(3, http2.ErrCodeNo, nil)
	fr.WriteSettingsAck()
	seed()
	srv, err := New(Config{
		Hits: stored{"a/hit": hello(strings.Repeat("x", 1000))},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, r.Body)
			w.Header().Set(http.TrailerPrefix+"X-T", r.Trailer.Get("X-Trailer"))
		}),
	})
	if err != nil {
		f.Fatal(err)
	}
	l := newPipes()
	go srv.Serve(l)
	f.Cleanup(func() { srv.Close() })
	f.Fuzz(func(t *testing.T, in []byte) {
		c := l.dial()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, c)
			done <- err
		}()
		io.WriteString(c, preface)
		c.Write(in)
		// What is whole is answered; an end of reading then ends the connection.
		var ping bytes.Buffer
		http2.NewFramer(&ping, nil).WriteRawFrame(http2.FramePing, 0, 1, nil) // on a stream: an error
		c.Write(ping.Bytes())
		c.Write(make([]byte, 9+255<<8)) // whatever was begun, it is not what follows
		select {
		case <-done:
		case <-time.After(100 * time.Millisecond):
			c.Close()
			<-done
		}
		c.Close()
		until(t, "the connection to end", func() bool { return srv.Conns() == 0 })
	})
}
