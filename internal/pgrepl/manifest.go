package pgrepl

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
)

// Manifest lists the files of a base backup.
type Manifest struct {
	Files []File
}

// File is one file as the server read it.
type File struct {
	Path     string
	Size     int64
	Checksum string
	// Algorithm is CRC32C, which is what Backup asks for by default, or SHA256; none for others.
	Algorithm string
}

// ParseManifest reads a backup_manifest and checks it against its own checksum.
func ParseManifest(b []byte) (Manifest, error) {
	var m struct {
		Files []struct {
			Path      string `json:"Path"`
			Encoded   string `json:"Encoded-Path"`
			Size      int64  `json:"Size"`
			Algorithm string `json:"Checksum-Algorithm"`
			Checksum  string `json:"Checksum"`
		} `json:"Files"`
		Sum string `json:"Manifest-Checksum"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("read backup manifest: %w", err)
	}
	// The checksum covers everything before the line that holds it.
	line := bytes.LastIndex(b, []byte(`"Manifest-Checksum"`))
	if line < 0 {
		return Manifest{}, fmt.Errorf("read backup manifest: it has no checksum")
	}
	if sum := sha256.Sum256(b[:line]); hex.EncodeToString(sum[:]) != m.Sum {
		return Manifest{}, fmt.Errorf("read backup manifest: its checksum does not match")
	}
	var out Manifest
	for _, f := range m.Files {
		if f.Path == "" {
			raw, err := hex.DecodeString(f.Encoded)
			if err != nil {
				return Manifest{}, fmt.Errorf("read backup manifest: path %q: %w", f.Encoded, err)
			}
			f.Path = string(raw)
		}
		out.Files = append(out.Files, File{Path: f.Path, Size: f.Size, Checksum: f.Checksum, Algorithm: f.Algorithm})
	}
	return out, nil
}

// sum hashes as an algorithm of the manifest does.
type sum struct {
	hash.Hash
	crc bool
}

func newSum() *sum { return &sum{Hash: crc32.New(crc32.MakeTable(crc32.Castagnoli)), crc: true} }

// text is the checksum as a manifest writes it: a CRC with its lowest byte first.
func (s *sum) text() string {
	b := s.Sum(nil)
	if s.crc {
		for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i]
		}
	}
	return hex.EncodeToString(b)
}
