package container

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Make pulls or builds an image and gives it its tag. What the engine tells of it is written to out.
func (e *Engine) Make(ctx context.Context, i Image, out io.Writer) error {
	if i.Ref != "" {
		return e.pull(ctx, i, out)
	}
	return e.build(ctx, i, out)
}

// Has says that the engine has an image.
func (e *Engine) Has(ctx context.Context, image string) (bool, error) {
	err := e.call(ctx, http.MethodGet, "/images/"+image+"/json", nil, nil)
	if refused(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// pull has the engine fetch a reference that it has not, and tags what it stands for: where the reference
// leads later does not change what runs. A reference that was not there before is taken away again, so
// that nothing but the tag holds the image.
func (e *Engine) pull(ctx context.Context, i Image, out io.Writer) error {
	had, err := e.Has(ctx, i.Ref)
	if err != nil {
		return err
	}
	if had {
		fmt.Fprintf(out, "%s is on this machine already\n", i.Ref)
		return e.tag(ctx, i.Ref, i.Tag)
	}
	name, version := splitRef(i.Ref)
	res, err := e.send(ctx, http.MethodPost, "/images/create?fromImage="+url.QueryEscape(name)+"&tag="+url.QueryEscape(version), nil, credentials(i.Ref))
	if err == nil {
		defer res.Body.Close()
		err = tell(res.Body, out)
	}
	if err != nil {
		return fmt.Errorf("pull %s: %w\n%s", i.Ref, err, pullHint(i.Ref, err))
	}
	if err := e.tag(ctx, i.Ref, i.Tag); err != nil {
		return err
	}
	return e.untag(ctx, i.Ref)
}

// pullHint says what helps against the commonest failures.
func pullHint(ref string, err error) string {
	text := strings.ToLower(err.Error())
	switch {
	case strings.Contains(text, "no such host"), strings.Contains(text, "dial tcp"), strings.Contains(text, "timeout"), strings.Contains(text, "connection refused"), strings.Contains(text, "network is unreachable"):
		return "hint: the machine does not reach " + registry(ref) + ": try again when it does, or load the image by hand: docker load"
	case strings.Contains(text, "manifest unknown"), strings.Contains(text, "manifest for"):
		return "hint: there is no such version: look which there are, and correct image"
	}
	return "hint: is the name right? A registry that asks who you are: docker login " + registry(ref) + ", as the user of the house"
}

func (e *Engine) tag(ctx context.Context, from, to string) error {
	repo, version := splitRef(to)
	err := e.call(ctx, http.MethodPost, "/images/"+from+"/tag?repo="+url.QueryEscape(repo)+"&tag="+url.QueryEscape(version), nil, nil)
	if err != nil {
		return fmt.Errorf("tag %s: %w", from, err)
	}
	return nil
}

// untag takes a name from an image; the last takes its layers, too, unless something runs from it.
func (e *Engine) untag(ctx context.Context, image string) error {
	err := e.call(ctx, http.MethodDelete, "/images/"+image, nil, nil)
	if refused(err, http.StatusNotFound, http.StatusConflict) {
		return nil
	}
	return err
}

// splitRef takes a reference apart into a name and a tag or digest; without one it is the tag latest.
func splitRef(ref string) (name, version string) {
	if name, digest, ok := strings.Cut(ref, "@"); ok {
		return name, digest
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, "latest"
}

// dockerHub is the registry of names that say none.
const dockerHub = "docker.io"

// registry is where a reference leads.
func registry(ref string) string {
	first, _, ok := strings.Cut(ref, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return dockerHub
	}
	return first
}

// credentials are what `docker login` or `podman login` wrote for the registry of a reference, as the header that engines
// want; none when it wrote none, or keeps them elsewhere.
func credentials(ref string) http.Header {
	home, _ := os.UserHomeDir()
	for _, path := range []string{
		os.Getenv("DOCKER_CONFIG") + "/config.json", filepath.Join(home, ".docker", "config.json"),
		os.Getenv("XDG_RUNTIME_DIR") + "/containers/auth.json", filepath.Join(home, ".config", "containers", "auth.json"),
	} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if h := credentialsIn(b, registry(ref)); h != nil {
			return h
		}
	}
	return nil
}

func credentialsIn(file []byte, registry string) http.Header {
	var c struct {
		Auths map[string]struct{ Auth, IdentityToken string }
	}
	if json.Unmarshal(file, &c) != nil {
		return nil
	}
	names := []string{registry, "https://" + registry, "https://" + registry + "/v1/"}
	if registry == dockerHub {
		names = append(names, "https://index.docker.io/v1/", "index.docker.io")
	}
	for _, n := range names {
		a, ok := c.Auths[n]
		if !ok {
			continue
		}
		plain, err := base64.StdEncoding.DecodeString(a.Auth)
		user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		if (err != nil || !ok) && a.IdentityToken == "" {
			continue
		}
		b, _ := json.Marshal(map[string]string{"username": user, "password": password, "identitytoken": a.IdentityToken, "serveraddress": n})
		return http.Header{"X-Registry-Auth": {base64.URLEncoding.EncodeToString(b)}}
	}
	return nil
}

// build has the engine build a folder by its Dockerfile. Docker does so with BuildKit, which today's
// Dockerfiles are written for; Podman with its own.
func (e *Engine) build(ctx context.Context, i Image, out io.Writer) error {
	info, err := e.Info(ctx)
	if err != nil {
		return err
	}
	q := url.Values{"t": {i.Tag}, "dockerfile": {filepath.ToSlash(i.Dockerfile)}, "rm": {"1"}, "forcerm": {"1"}}
	if info.Name == "Docker" {
		q.Set("version", "2")
	}
	packed, err := packContext(ctx, i.Dir, i.Dockerfile)
	if err != nil {
		return err
	}
	defer packed.Close()
	res, err := e.send(ctx, http.MethodPost, "/build?"+q.Encode(), packed, http.Header{"Content-Type": {"application/x-tar"}})
	if err != nil {
		return fmt.Errorf("build %s: %w", i.Dockerfile, err)
	}
	defer res.Body.Close()
	if err := tell(res.Body, out); err != nil {
		return fmt.Errorf("build %s: %w", i.Dockerfile, err)
	}
	ok, err := e.Has(ctx, i.Tag)
	if err == nil && !ok {
		err = fmt.Errorf("build %s: the engine ended without an image, and said no reason", i.Dockerfile)
	}
	return err
}

// message is a line of what an engine tells of a pull or a build.
type message struct {
	Stream string `json:"stream"` // output of a build
	Status string `json:"status"` // of a pull
	ID     string `json:"id"`     // of a layer, or what aux is
	Error  string `json:"error"`
	Detail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	RawAux json.RawMessage `json:"aux"`
}

// toldPace is how often the progress of a pull is told.
const toldPace = 5 * time.Second

// tell writes what an engine tells of a pull or a build, a line for each thing that happened, and
// returns what it ended with, if that is an error.
func tell(from io.Reader, out io.Writer) error {
	d := json.NewDecoder(from)
	p := progress{out: out, layers: map[string][2]int64{}, since: time.Now()}
	trace := tracer{out: out, named: map[string]bool{}}
	for {
		var m message
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return trace.failed
		} else if err != nil {
			return fmt.Errorf("read what the container engine tells: %w", err)
		}
		switch {
		case m.Error != "":
			return errors.New(strings.TrimSpace(m.Error))
		case m.ID == traceID:
			var b []byte
			if json.Unmarshal(m.RawAux, &b) == nil {
				trace.take(b)
			}
		case m.Stream != "":
			io.WriteString(out, m.Stream)
		case m.Status != "":
			p.take(m)
		}
	}
}

// progress sums up how a pull goes on.
type progress struct {
	out    io.Writer
	layers map[string][2]int64
	since  time.Time
}

func (p *progress) take(m message) {
	if m.Detail.Total == 0 {
		if m.ID != "" {
			fmt.Fprintf(p.out, "%s: %s\n", m.ID, m.Status)
		} else {
			fmt.Fprintln(p.out, m.Status)
		}
		return
	}
	if m.Status != "Downloading" {
		return
	}
	p.layers[m.ID] = [2]int64{m.Detail.Current, m.Detail.Total}
	if time.Since(p.since) < toldPace {
		return
	}
	p.since = time.Now()
	var have, all int64
	for _, l := range p.layers {
		have, all = have+l[0], all+l[1]
	}
	fmt.Fprintf(p.out, "%d of %d MB\n", have>>20, all>>20)
}
