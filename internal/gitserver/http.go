package gitserver

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// ServeHTTP speaks smart HTTP (gitprotocol-http(5)) below /<app>.git/: info/refs, git-receive-pack and
// git-upload-pack, with Basic authentication for each. The "dumb" protocol is refused. The server that
// calls it needs no limits of time of its own for these paths: they are set here, by MostTime.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	h.Set("X-Content-Type-Options", "nosniff")
	name, rest, ok := splitPath(r.URL.Path)
	if !ok {
		http.Error(w, "no such repository: the address is /<app>.git", http.StatusNotFound)
		return
	}
	user, password, given := r.BasicAuth()
	who, known := "", false
	if given && s.cfg.Auth != nil {
		who, known = s.cfg.Auth(r.Context(), name, user, password)
	}
	if !known {
		h.Set("WWW-Authenticate", `Basic realm="tenfold", charset="UTF-8"`)
		http.Error(w, "a token is needed: give it as the password", http.StatusUnauthorized)
		return
	}
	service, advertise := strings.TrimPrefix(rest, "git-"), false
	want := http.MethodPost
	if rest == "info/refs" {
		service, advertise, want = strings.TrimPrefix(r.URL.Query().Get("service"), "git-"), true, http.MethodGet
	} else if rest != "git-receive-pack" && rest != "git-upload-pack" {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	if r.Method != want {
		h.Set("Allow", want)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if service != "receive-pack" && service != "upload-pack" {
		http.Error(w, "this server speaks git's smart protocol only", http.StatusForbidden)
		return
	}
	repo, err := s.repo(r.Context(), name, who)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	s.serveService(w, r, served{name, repo, who, service, advertise})
}

type served struct {
	name, repo, who, service string
	advertise                bool
}

func (s *Server) serveService(w http.ResponseWriter, r *http.Request, of served) {
	h := w.Header()
	protocol := r.Header.Get("Git-Protocol")
	control := http.NewResponseController(w)
	if of.advertise {
		h.Set("Content-Type", "application/x-git-"+of.service+"-advertisement")
		if !strings.Contains(protocol, "version=2") || of.service == "receive-pack" {
			line := "# service=git-" + of.service + "\n"
			fmt.Fprintf(w, "%04x%s0000", len(line)+4, line)
		}
		st := streams{in: strings.NewReader(""), out: w, err: io.Discard, end: func(error) {}}
		s.command(r.Context(), of.name, of.repo, of.who, of.service, protocol, []string{"--stateless-rpc", "--advertise-refs"}, st)
		return
	}
	if r.Header.Get("Content-Type") != "application/x-git-"+of.service+"-request" {
		http.Error(w, "not a request of git", http.StatusUnsupportedMediaType)
		return
	}
	// A push may take longer to send and to answer than a page. Not every ResponseWriter has limits.
	until := time.Now().Add(s.cfg.MostTime + time.Minute)
	_ = control.SetReadDeadline(until)
	_ = control.SetWriteDeadline(until)
	body := io.Reader(http.MaxBytesReader(w, r.Body, s.cfg.MostPack+1<<20))
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, "the request cannot be unpacked", http.StatusBadRequest)
			return
		}
		// What unpacks to more than a pack may have ends early, and git says that it is cut short.
		body = io.LimitReader(z, s.cfg.MostPack+1<<20)
	}
	in := &drained{r: body}
	h.Set("Content-Type", "application/x-git-"+of.service+"-result")
	s.command(r.Context(), of.name, of.repo, of.who, of.service, protocol, []string{"--stateless-rpc"}, streams{
		in: in, out: &flusher{w, control}, err: io.Discard,
		end: func(error) {
			if !in.ended.Load() {
				_ = control.SetReadDeadline(time.Now())
			}
		},
	})
}

// drained knows whether all was read.
type drained struct {
	r     io.Reader
	ended atomic.Bool
}

func (d *drained) Read(b []byte) (int, error) {
	n, err := d.r.Read(b)
	if err != nil {
		d.ended.Store(true)
	}
	return n, err
}

// splitPath takes /<app>.git/<rest> apart.
func splitPath(path string) (name, rest string, ok bool) {
	name, rest, ok = strings.Cut(strings.TrimPrefix(path, "/"), ".git/")
	return name, rest, ok && appForm.MatchString(name)
}

// flusher sends each piece at once, so that progress is seen while it is made.
type flusher struct {
	w       io.Writer
	control *http.ResponseController
}

func (f *flusher) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		if ferr := f.control.Flush(); ferr != nil && !errors.Is(ferr, http.ErrNotSupported) {
			err = ferr
		}
	}
	return n, err
}
