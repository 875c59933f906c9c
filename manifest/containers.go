package manifest

import "strings"

// What runs in a container: an image by its name, or one that a Dockerfile says how to build.

func imageKey() key {
	return key{name: "image", form: fText, off: true, deflt: "none", doc: "Container image that runs, in place of path and build: ghcr.io/shop/search:4. Needs Docker or Podman. docs/containers.md."}
}

func dockerfileKey() key {
	return key{name: "dockerfile", form: fText, deflt: "none", doc: "Dockerfile of the image that is built and runs, below the entry's folder, in place of command. Needs Docker or Podman. docs/containers.md."}
}

// image reads the image of a service; "" without one.
func (b *builder) image(t *tree) string {
	f, ok := value(t, "image")
	if !ok {
		return ""
	}
	ref := f.node.Value
	if !IsImage(ref) {
		b.reporter.at(f.node, "write name:tag, with its registry if that is not Docker's: ghcr.io/shop/search:4", "%s: %q is not the name of an image", f.path, cut(ref, 80))
		return ""
	}
	for _, other := range []string{"path", "runtime", "build", "test"} {
		if o, ok := value(t, other); ok {
			b.reporter.at(o.place(), "keep one: image runs what is built elsewhere, build: {dockerfile: Dockerfile} builds an image here", "%s: an image has no %s", f.path, other)
		}
	}
	return ref
}

// dockerfile reads with what an image is built; f is the entry's build.
func (b *builder) dockerfile(t, f *tree) string {
	d, ok := value(f, "dockerfile")
	if !ok {
		return ""
	}
	for _, other := range []string{"command", "size"} {
		if o, ok := value(f, other); ok {
			b.reporter.at(o.place(), "remove it; the Dockerfile says how", "%s: an engine that builds by a Dockerfile knows no %s", d.path, other)
		}
	}
	if o, ok := value(t, "runtime"); ok {
		b.reporter.at(o.place(), "remove it; the Dockerfile says FROM what", "%s: an image has its own runtime", d.path)
	}
	return b.path(f, "dockerfile")
}

// IsImage says that a text is a reference to an image: name, name:tag or name@digest.
func IsImage(s string) bool {
	if s == "" || len(s) > 255 || strings.Contains(s, "//") {
		return false
	}
	name, tag := s, ""
	if i := strings.IndexByte(s, '@'); i >= 0 {
		name, tag = s[:i], s[i+1:]
		if !strings.HasPrefix(tag, "sha256:") {
			return false
		}
	}
	for i, c := range []byte(name + strings.TrimPrefix(tag, "sha256:")) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-/:", rune(c))) {
			return false
		}
	}
	return !strings.HasSuffix(name, "/") && !strings.HasSuffix(name, ":")
}
