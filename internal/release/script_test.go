package release

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheScriptComesFirst(t *testing.T) {
	const tag = `<script src="/s.js?a=1&amp;b=2"></script>`
	for _, c := range []struct{ page, before string }{
		{"<!doctype html><html lang=en><head><title>x</title></head>", "<!doctype html><html lang=en><head>"},
		{"<!DOCTYPE HTML>\n<HTML>\n<HEAD profile='a>b'>\n<script>first()</script>", "<!DOCTYPE HTML>\n<HTML>\n<HEAD profile='a>b'>"},
		{"<!-- <head> --><html><!-- > --><head>x", "<!-- <head> --><html><!-- > --><head>"},
		{"<!doctype html><title>x</title><script>first()</script>", "<!doctype html>"},
		{"<header>no head</header>", ""},
		{"plain <head>", "plain <head>"},
		{"<html><head", "<html>"},
		{"<!-- never ends <head>", ""},
		{"", ""},
	} {
		got := string(inject([]byte(c.page), "/s.js?a=1&b=2"))
		if want := c.before + tag + strings.TrimPrefix(c.page, c.before); got != want {
			t.Errorf("%q:\n%q, want\n%q", c.page, got, want)
		}
	}
}

func TestPagesOfAReleaseHaveTheScript(t *testing.T) {
	dir, site := t.TempDir(), Site{Dir: t.TempDir()}
	for name, text := range map[string]string{"index.html": "<head><p>", "a.js": "<head>"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	one, err := site.Add(t.Context(), dir, Meta{Script: "/s.js?d=1"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := site.Add(t.Context(), dir, Meta{Script: "/s.js?d=2"})
	if err != nil || one.ID == two.ID || one.Files["a.js"].Digest != two.Files["a.js"].Digest {
		t.Errorf("%v: %s and %s", err, one.ID, two.ID)
	}
	b, err := os.ReadFile(site.Path(one.ID, "index.html"))
	if want := `<head><script src="/s.js?d=1"></script><p>`; err != nil || string(b) != want || one.Files["index.html"].Size != int64(len(want)) {
		t.Errorf("%v: %q", err, b)
	}
}

func FuzzInject(f *testing.F) {
	f.Add([]byte("<!doctype html><html><head>"))
	f.Add([]byte("<!-- --><head a='>'"))
	f.Fuzz(func(t *testing.T, page []byte) {
		got := inject(page, "/s")
		tag := []byte(`<script src="/s"></script>`)
		i := bytes.Index(got, tag)
		if i < 0 || !bytes.Equal(append(bytes.Clone(got[:i]), got[i+len(tag):]...), page) && !bytes.Contains(page, tag) {
			t.Errorf("%q became %q", page, got)
		}
	})
}
