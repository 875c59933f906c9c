package release

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// Codings are the content codings (RFC 9110 §8.4.1) in which a release holds its files too, beside the
// files as they are: made once, when their content is first released. Each lies beside the blob, as
// <digest>.<coding>.
var Codings = []string{"br", "zstd", "gzip"}

// Bounds of what is coded, in bytes. A larger file would hold up the release, a smaller one gains nothing.
const (
	leastCoded = 512
	mostCoded  = 16 << 20
	// Brotli's best level takes seconds for a megabyte; up to this many bytes it is worth them.
	bestCoded = 512 << 10
)

// Compressible says that files of a content type become smaller by coding.
func Compressible(t string) bool {
	return strings.HasPrefix(t, "text/") || strings.Contains(t, "json") || strings.Contains(t, "xml") || strings.Contains(t, "javascript") ||
		strings.Contains(t, "wasm") || t == "font/ttf" || t == "font/otf" || t == "application/vnd.ms-fontobject"
}

// Coded is where the coded form of a file lies.
func (s Site) Coded(digest, coding string) string { return s.blobPath(digest) + "." + coding }

// code makes the coded forms of a blob that are not there yet, and lists those that are worth it.
func (s Site) code(f File) (map[string]int64, error) {
	if !Compressible(f.Type) || f.Size < leastCoded || f.Size > mostCoded {
		return nil, nil
	}
	var raw []byte
	out := map[string]int64{}
	for _, coding := range Codings {
		to := s.Coded(f.Digest, coding)
		if info, err := os.Stat(to); err == nil {
			out[coding] = info.Size()
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if raw == nil {
			var err error
			if raw, err = os.ReadFile(s.blobPath(f.Digest)); err != nil {
				return nil, err
			}
		}
		coded, err := encode(raw, coding)
		if err != nil {
			return nil, fmt.Errorf("code in %s: %w", coding, err)
		}
		if len(coded) > len(raw)-len(raw)/20 {
			continue
		}
		tmp := filepath.Join(s.Dir, "blobs", ".new-"+rand.Text())
		if err := os.WriteFile(tmp, coded, 0o644); err != nil {
			os.Remove(tmp)
			return nil, err
		}
		if err := os.Rename(tmp, to); err != nil {
			os.Remove(tmp)
			return nil, err
		}
		out[coding] = int64(len(coded))
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

func encode(raw []byte, coding string) ([]byte, error) {
	var b bytes.Buffer
	switch coding {
	case "br":
		level := brotli.BestCompression
		if len(raw) > bestCoded {
			level = 6
		}
		w := brotli.NewWriterLevel(&b, level)
		if _, err := w.Write(raw); err != nil {
			return nil, err
		}
		err := w.Close()
		return b.Bytes(), err
	case "zstd":
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
		if err != nil {
			return nil, err
		}
		return w.EncodeAll(raw, nil), w.Close()
	}
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(raw); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}
