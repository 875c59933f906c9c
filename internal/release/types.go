package release

import (
	"net/http"
	"path"
	"strings"

	"tenfold/internal/lazy"
)

// types are named here, not asked of the machine's MIME tables, so that a site is served alike everywhere.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".json": "application/json",
	".map": "application/json", ".webmanifest": "application/manifest+json", ".xml": "text/xml; charset=utf-8",
	".txt": "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
	".webp": "image/webp", ".avif": "image/avif", ".ico": "image/x-icon", ".bmp": "image/bmp",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".eot": "application/vnd.ms-fontobject",
	".wasm": "application/wasm", ".pdf": "application/pdf", ".zip": "application/zip", ".gz": "application/gzip",
	".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".wav": "audio/wav", ".m4a": "audio/mp4",
	".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime",
	".rss": "application/rss+xml", ".atom": "application/atom+xml", ".ics": "text/calendar; charset=utf-8",
}

// contentType goes by the name, and by the first bytes when the name says nothing.
func contentType(name string, head []byte) string {
	if t, ok := types[strings.ToLower(path.Ext(name))]; ok {
		return t
	}
	return http.DetectContentType(head)
}

var (
	// index.3f2a9c1b.js, main-3f2a9c1b4d5e.css: hexadecimal, anywhere
	hexPart = lazy.Regexp(`[.-][0-9a-f]{8,64}\.`)
	// index-BX3k2f9a.js: base64url of Vite, Rollup, esbuild
	b64Part = lazy.Regexp(`[.-][A-Za-z0-9_-]{8}\.[a-z0-9.]+$`)
	// chunk-JKQ3ZB7A.js: base32 of esbuild
	b32Part = lazy.Regexp(`[.-][A-Z2-7]{8}\.[a-z0-9.]+$`)
)

// Hashed says that a file's name carries a hash of its content, by the habits of the bundlers: then
// another content has another name. A wrong yes would freeze a file in browsers, so it asks for proof:
// a hexadecimal part, or a mixed part of eight in the folders that bundlers keep for such files.
func Hashed(name string) bool {
	name = strings.TrimPrefix(name, "/")
	base := path.Base(name)
	if strings.HasSuffix(base, ".html") {
		return false
	}
	if strings.HasPrefix(name, "_next/static/") || strings.HasPrefix(name, "_app/immutable/") || strings.HasPrefix(name, "_nuxt/") && !strings.HasPrefix(name, "_nuxt/builds/") {
		return true
	}
	if m := hexPart.FindString(base); m != "" && digits(m) {
		return true
	}
	if m := b32Part.FindString(base); m != "" && digits(m) {
		return true
	}
	bundled := strings.HasPrefix(name, "assets/") || strings.HasPrefix(name, "_astro/") || strings.HasPrefix(name, "build/") ||
		strings.Contains(name, "/assets/") || strings.Contains(name, "/_astro/") || strings.Contains(name, "static/js/") || strings.Contains(name, "static/css/")
	m := b64Part.FindString(base)
	return bundled && m != "" && mixed(m[1:9])
}

// digits tells a hash from a word such as ".deadbeef." or ".accede.": all but one hexadecimal hash of
// eight in thirty thousand have a digit.
func digits(s string) bool { return strings.ContainsAny(s, "0123456789") }

// mixed tells a hash from a word: an upper case letter after the first, or a digit among letters that
// is not at the end alone ("version2").
func mixed(s string) bool {
	upper := strings.IndexFunc(s[1:], func(r rune) bool { return r >= 'A' && r <= 'Z' }) >= 0
	return upper || strings.ContainsAny(s[:len(s)-1], "0123456789") && strings.IndexFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' }) >= 0
}
