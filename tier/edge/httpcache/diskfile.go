package httpcache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// A content file is
//
//	16 bytes  "tenfold-cache-1\n"
//	 4 bytes  length of the head, big-endian like all numbers here
//	 8 bytes  length of the body
//	 4 bytes  CRC-32C of the head
//	 4 bytes  CRC-32C of the body
//	          head: content, as JSON
//	          body
const (
	contentMagic = "tenfold-cache-1\n"
	contentFixed = len(contentMagic) + 20
)

// writeContent writes an entry to path, whole or not at all, and returns its size.
func writeContent(path string, e *entry) (int64, error) {
	head, err := json.Marshal(content{e.key, e.release, e.tags, e.vary, e.status, e.header, e.got, e.age0, e.lifetime, e.rules})
	if err != nil {
		return 0, fmt.Errorf("encode cache file: %w", err)
	}
	b := make([]byte, 0, contentFixed+len(head))
	b = append(b, contentMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)))
	b = binary.BigEndian.AppendUint64(b, uint64(len(e.body)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(head, castagnoli))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(e.body, castagnoli))
	b = append(b, head...)
	aside := path + ".new"
	f, err := os.OpenFile(aside, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			f, err = os.OpenFile(aside, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("create cache file: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		_, err = f.Write(e.body)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		os.Remove(aside)
		return 0, fmt.Errorf("write cache file: %w", err)
	}
	return int64(len(b) + len(e.body)), nil
}

// readContent reads the entry of a key from its file, and fails for a file that is torn, of another key or
// of another format.
func readContent(path, key string) (*entry, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read cache file: %w", err)
	}
	e, err := decodeContent(b)
	if err != nil {
		return nil, fmt.Errorf("read cache file %s: %w", path, err)
	}
	if e.key != key {
		return nil, fmt.Errorf("read cache file %s: it is of another key", path)
	}
	return e, nil
}

func decodeContent(b []byte) (*entry, error) {
	if len(b) < contentFixed || string(b[:len(contentMagic)]) != contentMagic {
		return nil, errors.New("not a cache file")
	}
	p := b[len(contentMagic):]
	headLen, bodyLen := uint64(binary.BigEndian.Uint32(p)), binary.BigEndian.Uint64(p[4:])
	headSum, bodySum := binary.BigEndian.Uint32(p[12:]), binary.BigEndian.Uint32(p[16:])
	rest := b[contentFixed:]
	if headLen > uint64(len(rest)) || bodyLen != uint64(len(rest))-headLen {
		return nil, errors.New("it is torn")
	}
	head, body := rest[:headLen], rest[headLen:]
	if crc32.Checksum(head, castagnoli) != headSum || crc32.Checksum(body, castagnoli) != bodySum {
		return nil, errors.New("its checksum is wrong")
	}
	var c content
	if err := json.Unmarshal(head, &c); err != nil {
		return nil, fmt.Errorf("decode head: %w", err)
	}
	if c.Header == nil || c.Status < 200 || c.Status > 999 {
		return nil, errors.New("decode head: no response")
	}
	e := &entry{key: c.Key, release: c.Release, tags: c.Tags, vary: c.Vary, status: c.Status, header: c.Header, body: body,
		got: c.Got, age0: c.Age, lifetime: c.Lifetime, rules: c.Rules, fromDisk: true}
	e.finish()
	return e, nil
}
