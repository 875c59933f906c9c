package container

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fake is an engine that keeps the contract and runs nothing: what a container does is a function.
type fake struct {
	socket string
	info   string // the answer to /version; "" when nobody is to ask
	libpod string // what Podman says with every answer
	// does is what a container's program does; it returns its status.
	does func(c *fakeContainer) int
	// warnings of a creation, and the refusal of a start.
	warnings []string
	refuse   string
	// registry are references that can be pulled.
	registry []string
	built    func(query url.Values, context io.Reader) string // answers a build

	mu         sync.Mutex
	containers map[string]*fakeContainer
	images     map[string]bool
	auth       string
	n          int
	changed    *sync.Cond
}

type fakeContainer struct {
	id, name string
	config   config
	running  bool
	ended    bool
	code     int
	oom      bool
	stopped  chan struct{} // closed when it is asked to stop
	grace    string
	out      io.Writer // what it says: frames
	in       io.Reader
}

func (c *fakeContainer) say(to byte, text string) {
	head := [8]byte{0: to}
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	c.out.Write(append(head[:], text...))
}

func newFake(t *testing.T) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "tfc") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		socket: filepath.Join(dir, "engine.sock"), containers: map[string]*fakeContainer{}, images: map[string]bool{"app:1": true},
		info: `{"Version":"20.10.24","Components":[{"Name":"Engine","Version":"20.10.24"},{"Name":"docker-init","Version":"0.19.0"}]}`,
		does: func(*fakeContainer) int { return 0 },
	}
	f.changed = sync.NewCond(&f.mu)
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f.handler()}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done; os.RemoveAll(dir) })
	t.Setenv("DOCKER_HOST", "unix://"+f.socket)
	return f
}

func (f *fake) engine() *Engine { return &Engine{Socket: f.socket} }

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": fmt.Sprintf(format, args...)})
}

func (f *fake) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /_ping", func(w http.ResponseWriter, _ *http.Request) {
		if f.libpod != "" {
			w.Header().Set(libpod, f.libpod)
		}
		io.WriteString(w, "OK")
	})
	m.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, f.info) })
	m.HandleFunc("POST /containers/create", f.create)
	m.HandleFunc("POST /containers/{id}/attach", f.attach)
	m.HandleFunc("POST /containers/{id}/start", f.start)
	m.HandleFunc("POST /containers/{id}/stop", f.stop)
	m.HandleFunc("POST /containers/{id}/wait", f.wait)
	m.HandleFunc("GET /containers/json", f.list)
	m.HandleFunc("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		c := f.find(r.PathValue("id"))
		if c == nil {
			refuse(w, http.StatusNotFound, "No such container")
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"State": map[string]any{"Running": c.running, "OOMKilled": c.oom, "ExitCode": c.code, "Pid": 4242}})
	})
	m.HandleFunc("DELETE /containers/{id}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		c := f.find(r.PathValue("id"))
		if c == nil {
			refuse(w, http.StatusNotFound, "No such container")
			return
		}
		delete(f.containers, c.id)
		if !c.ended {
			c.ended, c.running, c.code = true, false, 137
			f.changed.Broadcast()
		}
		w.WriteHeader(http.StatusNoContent)
	})
	m.HandleFunc("POST /images/create", f.pull)
	m.HandleFunc("POST /build", f.build)
	m.HandleFunc("GET /images/json", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		var out []map[string]any
		for name := range f.images {
			out = append(out, map[string]any{"RepoTags": []string{name}})
		}
		json.NewEncoder(w).Encode(out)
	})
	m.HandleFunc("/images/", f.image)
	return m
}

// find is called with mu held.
func (f *fake) find(id string) *fakeContainer {
	for _, c := range f.containers {
		if c.id == id || c.name == id {
			return c
		}
	}
	return nil
}

func (f *fake) create(w http.ResponseWriter, r *http.Request) {
	c := &fakeContainer{name: r.URL.Query().Get("name"), stopped: make(chan struct{})}
	if err := json.NewDecoder(r.Body).Decode(&c.config); err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.images[c.config.Image] {
		refuse(w, http.StatusNotFound, "No such image: %s", c.config.Image)
		return
	}
	if f.find(c.name) != nil {
		refuse(w, http.StatusConflict, "the name %s is in use", c.name)
		return
	}
	f.n++
	c.id = "id" + strconv.Itoa(f.n)
	f.containers[c.id] = c
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]any{"Id": c.id, "Warnings": f.warnings})
}

func (f *fake) attach(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	c := f.find(r.PathValue("id"))
	f.mu.Unlock()
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	f.mu.Lock()
	defer f.mu.Unlock()
	c.out, c.in = conn, rw
	for !c.ended {
		f.changed.Wait()
	}
}

func (f *fake) start(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.find(r.PathValue("id"))
	if f.refuse != "" {
		refuse(w, http.StatusInternalServerError, "%s", f.refuse)
		return
	}
	c.running = true
	go func() {
		code := f.does(c)
		f.mu.Lock()
		defer f.mu.Unlock()
		if !c.ended {
			c.ended, c.running, c.code = true, false, code
			f.changed.Broadcast()
		}
	}()
	w.WriteHeader(http.StatusNoContent)
}

func (f *fake) stop(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.find(r.PathValue("id"))
	c.grace = r.URL.Query().Get("t")
	close(c.stopped)
	for !c.ended {
		f.changed.Wait()
	}
	w.WriteHeader(http.StatusNoContent)
}

func (f *fake) wait(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.find(r.PathValue("id"))
	if c == nil {
		refuse(w, http.StatusNotFound, "No such container")
		return
	}
	for !c.ended {
		f.changed.Wait()
	}
	json.NewEncoder(w).Encode(map[string]int{"StatusCode": c.code})
}

func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	var want map[string][]string
	json.Unmarshal([]byte(r.URL.Query().Get("filters")), &want)
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []listed{}
	for _, c := range f.containers {
		if !slices.ContainsFunc(want["label"], func(l string) bool { k, v, _ := strings.Cut(l, "="); return c.config.Labels[k] != v }) {
			out = append(out, listed{c.id, c.config.Labels})
		}
	}
	json.NewEncoder(w).Encode(out)
}

func (f *fake) pull(w http.ResponseWriter, r *http.Request) {
	ref := r.URL.Query().Get("fromImage") + ":" + r.URL.Query().Get("tag")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.auth = r.Header.Get("X-Registry-Auth")
	if !slices.Contains(f.registry, ref) {
		refuse(w, http.StatusNotFound, "pull access denied for %s", ref)
		return
	}
	f.images[ref] = true
	io.WriteString(w, `{"status":"Pulling from library"}`+"\n"+`{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a"}`+"\n"+`{"status":"Pull complete","id":"a"}`)
}

func (f *fake) build(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, f.built(r.URL.Query(), r.Body))
}

// image answers what is asked of one image, whose name may hold slashes.
func (f *fake) image(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := strings.TrimPrefix(r.URL.Path, "/images/")
	name := strings.TrimSuffix(strings.TrimSuffix(rest, "/json"), "/tag")
	if !f.images[name] {
		refuse(w, http.StatusNotFound, "No such image: %s", name)
		return
	}
	switch {
	case r.Method == http.MethodDelete:
		delete(f.images, name)
	case strings.HasSuffix(rest, "/tag"):
		f.images[r.URL.Query().Get("repo")+":"+r.URL.Query().Get("tag")] = true
		w.WriteHeader(http.StatusCreated)
	default:
		io.WriteString(w, "{}")
	}
}
