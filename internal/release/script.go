package release

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"os"
	"path"
	"strings"
)

// mostPage is how much of a page may be read into memory to put a script into it.
const mostPage = 16 << 20

// open opens a file of a build. A page has the script put into it.
func open(file, script string) (io.ReadCloser, error) {
	f, err := os.Open(file)
	if err != nil || script == "" {
		return f, err
	}
	if ext := strings.ToLower(path.Ext(file)); ext != ".html" && ext != ".htm" {
		return f, nil
	}
	defer f.Close()
	page, err := io.ReadAll(io.LimitReader(f, mostPage+1))
	if err != nil {
		return nil, err
	}
	if len(page) > mostPage {
		return nil, fmt.Errorf("%s is a page of more than %d MB: no script can be put into it", path.Base(file), mostPage>>20)
	}
	return io.NopCloser(bytes.NewReader(inject(page, script))), nil
}

// inject puts a script into a page before anything else that runs: behind <head>, else behind <html> or
// the document type, else at the beginning. What only looks like a tag in a comment is none.
func inject(page []byte, script string) []byte {
	at := 0
	for i := 0; i < len(page); {
		open := bytes.IndexByte(page[i:], '<')
		if open < 0 {
			break
		}
		i += open
		rest := page[i:]
		if bytes.HasPrefix(rest, []byte("<!--")) {
			end := bytes.Index(rest[4:], []byte("-->"))
			if end < 0 {
				break
			}
			i += 4 + end + 3
			continue
		}
		name := tagName(rest)
		if name != "!doctype" && name != "html" && name != "head" {
			break // content: what follows is too late
		}
		end := tagEnd(rest)
		if end < 0 {
			break
		}
		i += end
		at = i
		if name == "head" {
			break
		}
	}
	tag := `<script src="` + html.EscapeString(script) + `"></script>`
	out := make([]byte, 0, len(page)+len(tag))
	return append(append(append(out, page[:at]...), tag...), page[at:]...)
}

// tagName is the name of the tag that begins b, in lower case.
func tagName(b []byte) string {
	end := 1
	for end < len(b) && end < 16 && (b[end] == '!' || 'a' <= b[end]|0x20 && b[end]|0x20 <= 'z') {
		end++
	}
	return strings.ToLower(string(b[1:end]))
}

// tagEnd is where the tag that begins b ends; -1 when it does not. A > in a quoted value ends nothing.
func tagEnd(b []byte) int {
	quote := byte(0)
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	return -1
}
