package release

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
)

// ShortestSecret is the length in bytes below which FindSecrets does not look for a value: shorter
// ones ("true", "5432") stand in every bundle by chance.
const ShortestSecret = 8

// Leak is a secret's value that stands in a file of a build's output.
type Leak struct {
	Name string // the key under which the value was given
	File string // slash path in the release
	As   string // how it is written there: "plain", "base64", "URL-encoded", "hex", "JSON", "HTML"
}

// String never holds the value.
func (l Leak) String() string {
	return fmt.Sprintf("the value of %s stands in %s (%s)", l.Name, l.File, l.As)
}

// form is one way in which a value can be written.
type form struct {
	name, as string
	text     []byte
}

// FindSecrets looks for secrets' values (name to value) in all files that AddRoots would release,
// and in the names of those files: as they are, in base64 (either alphabet, at any offset of a longer
// text), URL-encoded, in hexadecimal, and escaped for JSON or HTML; also within files compressed with
// gzip or, by the suffix .br, Brotli. A value in one file is reported once, in order of file and name.
// Values shorter than ShortestSecret are not looked for. What a bundler computes from a value (a part
// of it, a hash) is not found.
func FindSecrets(ctx context.Context, roots []Root, values map[string]string) ([]Leak, error) {
	forms := formsOf(values)
	if len(forms) == 0 {
		return nil, nil
	}
	var leaks []Leak
	err := walk(ctx, roots, func(path, name string) error {
		found := map[string]string{}
		match(forms, []byte(name), found)
		if err := searchFile(path, name, forms, found); err != nil {
			return fmt.Errorf("search %s: %w", name, err)
		}
		for secret, as := range found {
			leaks = append(leaks, Leak{Name: secret, File: name, As: as})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find secrets: %w", err)
	}
	slices.SortFunc(leaks, func(a, b Leak) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return leaks, nil
}

// formsOf lists every way of writing the values, the plain one first. The same text twice is one form.
func formsOf(values map[string]string) []form {
	var out []form
	for name, v := range values {
		if len(v) < ShortestSecret {
			continue
		}
		seen := map[string]bool{}
		put := func(as, text string) {
			if len(text) >= ShortestSecret && !seen[text] {
				seen[text] = true
				out = append(out, form{name, as, []byte(text)})
			}
		}
		put("plain", v)
		put("URL-encoded", url.QueryEscape(v))
		put("URL-encoded", url.PathEscape(v))
		put("URL-encoded", strings.ReplaceAll(url.QueryEscape(v), "+", "%20"))
		put("URL-encoded", lowerEscapes(url.QueryEscape(v)))
		put("URL-encoded", lowerEscapes(url.PathEscape(v)))
		put("hex", hex.EncodeToString([]byte(v)))
		put("hex", strings.ToUpper(hex.EncodeToString([]byte(v))))
		put("JSON", jsonText(v, true))
		put("JSON", jsonText(v, false))
		put("HTML", html.EscapeString(v))
		for shift := range 3 {
			put("base64", base64At(base64.RawStdEncoding, v, shift))
			put("base64", base64At(base64.RawURLEncoding, v, shift))
		}
	}
	return out
}

// base64At is the part of v's base64 that does not depend on what stands around it, when v begins
// shift bytes after a boundary of three.
func base64At(enc *base64.Encoding, v string, shift int) string {
	all := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + v))
	return all[(8*shift+5)/6 : 8*(shift+len(v))/6]
}

// lowerEscapes writes %2F as %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

func jsonText(v string, escapeHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(escapeHTML)
	if e.Encode(v) != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}

func match(forms []form, in []byte, found map[string]string) {
	for _, f := range forms {
		if _, done := found[f.name]; !done && bytes.Contains(in, f.text) {
			found[f.name] = f.as
		}
	}
}

// mostUnpacked bounds, in bytes, what is read out of one compressed file.
const mostUnpacked = 256 << 20

func searchFile(path, name string, forms []form, found map[string]string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := search(f, forms, found); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var unpacked io.Reader
	if strings.HasSuffix(name, ".br") {
		unpacked = brotli.NewReader(f)
	} else if unpacked, err = gzip.NewReader(f); err != nil {
		return nil // not gzip
	}
	// A file that only looks compressed, or is cut short, was searched as it is: no reason to fail.
	_ = search(io.LimitReader(unpacked, mostUnpacked), forms, found)
	return nil
}

// search reads through r in pieces that overlap by the longest form.
func search(r io.Reader, forms []form, found map[string]string) error {
	overlap := 0
	for _, f := range forms {
		overlap = max(overlap, len(f.text)-1)
	}
	buf := make([]byte, overlap+256<<10)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		match(forms, buf[:kept+n], found)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(buf, buf[kept+n-overlap:kept+n])
	}
}
