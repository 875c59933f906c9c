// Package depot keeps objects that nobody may lose: compressed, sealed with age when there is a key, and
// checked when they are read. Where they lie is a Place: a directory here, something else elsewhere. An
// object is there whole or not at all. Begin at Depot.
package depot

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"tenfold/internal/atomicfile"
)

// Place stores objects by name: words joined by "/".
type Place interface {
	// Put stores what r yields, whole or not at all, durable when it returns.
	Put(ctx context.Context, name string, r io.Reader) error
	// Get opens an object; errors.Is(err, fs.ErrNotExist) when there is none.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// List names the objects that begin with prefix, in order.
	List(ctx context.Context, prefix string) ([]string, error)
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, name string) error
	String() string
}

// Dir is a Place in a directory, which is made at the first Put (mode 0700).
type Dir string

func (d Dir) String() string { return string(d) }

// temporary begins the name of what is not whole yet.
const temporary = ".part-"

// Put implements Place.
func (d Dir) Put(ctx context.Context, name string, r io.Reader) (err error) {
	path := filepath.Join(string(d), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, ctx.Err()); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		if err = os.Rename(f.Name(), path); err == nil {
			err = atomicfile.SyncDir(filepath.Dir(path))
		}
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("store %s: %w", name, err)
	}
	return nil
}

// Get implements Place.
func (d Dir) Get(_ context.Context, name string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(name)))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return f, nil
}

// List implements Place.
func (d Dir) List(_ context.Context, prefix string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(string(d), func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), temporary) {
			return err
		}
		rel, err := filepath.Rel(string(d), p)
		if name := filepath.ToSlash(rel); err == nil && strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
		return err
	})
	slices.Sort(out)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return out, nil
}

// Delete implements Place.
func (d Dir) Delete(_ context.Context, name string) error {
	path := filepath.Join(string(d), filepath.FromSlash(name))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	os.Remove(filepath.Dir(path)) // an empty folder says nothing
	return nil
}

// Depot is a Place with what is done to objects on their way: compression, and sealing with a key.
type Depot struct {
	Place Place
	// Key seals objects, as age does with a passphrase: "age -d" opens them with it. An age identity
	// ("AGE-SECRET-KEY-1…") seals to its own recipient. Empty: nothing is sealed.
	Key string
	// Old are keys that objects may be sealed with from before Key.
	Old []string
}

// ErrNotYet is that a Place is about to be there: who asks again soon need tell nobody.
var ErrNotYet = errors.New("not there yet")

// Below is the Place below a root, which is a folder or "s3://endpoint/bucket/prefix".
func Below(root, below string) (Place, error) {
	if strings.Contains(root, "://") {
		return OpenS3(strings.TrimSuffix(root, "/") + "/" + below)
	}
	return Dir(filepath.Join(root, filepath.FromSlash(below))), nil
}

// Open is the depot in a Place. key looks up a version of the key that it is sealed with, 0 for the one in force;
// nil: it is not sealed.
func Open(place Place, key func(version int64) (string, error)) (Depot, error) {
	d := Depot{Place: place}
	if key == nil {
		return d, nil
	}
	var err error
	if d.Key, err = key(0); err != nil {
		return d, fmt.Errorf("look up the key of backups: %w", err)
	}
	for v := int64(1); v < 100; v++ { // what was sealed before the secret changed
		old, err := key(v)
		if err != nil {
			break
		}
		if old != d.Key {
			d.Old = append(d.Old, old)
		}
	}
	return d, nil
}

// PutJSON stores a value as JSON.
func (d Depot) PutJSON(ctx context.Context, name string, v any) error {
	return d.Put(ctx, name, func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
}

// GetJSON reads a value that PutJSON stored, of a megabyte at most.
func (d Depot) GetJSON(ctx context.Context, name string, v any) error {
	return d.Get(ctx, name, func(r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err != nil {
			return err
		}
		return json.Unmarshal(b, v)
	})
}

// suffixes of stored objects.
const compressed, sealed = ".zst", ".age"

// scryptWork is low: the key is a secret of many random bits, not a word that somebody thought of.
const scryptWork = 12

// Name is an object's name as stored.
func (d Depot) Name(name string) string {
	if d.Key != "" {
		return name + compressed + sealed
	}
	return name + compressed
}

// Put stores what write writes.
func (d Depot) Put(ctx context.Context, name string, write func(io.Writer) error) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends with the pipe, which Put below reads to its end or closes
		err := d.seal(w, write)
		w.CloseWithError(err)
		done <- err
	}()
	err := d.Place.Put(ctx, d.Name(name), r)
	r.CloseWithError(err)
	if werr := <-done; err == nil {
		return werr
	}
	return err // what write failed with is in it
}

func (d Depot) seal(w io.Writer, write func(io.Writer) error) error {
	out := io.WriteCloser(nopCloser{w})
	if d.Key != "" {
		to, err := d.recipient()
		if err != nil {
			return err
		}
		if out, err = age.Encrypt(w, to); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
	}
	if err := compress(out, write); err != nil {
		return err // without the last chunk: what was sealed so far opens as cut off
	}
	return out.Close()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Get hands an object to read. A byte that changed is an error which names the object.
func (d Depot) Get(ctx context.Context, name string, read func(io.Reader) error) error {
	stored := d.Name(name)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, err := d.Place.Get(ctx, stored)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	if d.Key != "" {
		ids, err := d.identities()
		if err != nil {
			return err
		}
		if in, err = age.Decrypt(in, ids...); err != nil {
			return fmt.Errorf("open %s: %w", stored, err)
		}
	}
	z, end, err := opened(in)
	if err != nil {
		return fmt.Errorf("open %s: %w", stored, err)
	}
	defer func() { // nobody reads f any more when it returns
		cancel()
		f.Close()
		end()
	}()
	err = read(z)
	if err == nil {
		_, err = io.Copy(io.Discard, z) // to the checksum at the end
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", stored, err)
	}
	return nil
}

// opened decompresses what compress wrote, and what was stored before there was that: one frame.
func opened(in io.Reader) (z io.Reader, end func(), err error) {
	b := bufio.NewReaderSize(in, 256<<10)
	head, err := b.Peek(4)
	if len(head) == 4 {
		switch binary.LittleEndian.Uint32(head) {
		case frameMagic, endMagic:
			d, err := decompress(b)
			if err != nil {
				return nil, nil, err
			}
			return d, d.end, nil
		}
	}
	if err != nil {
		return nil, nil, cut(err)
	}
	old, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(2))
	if err != nil {
		return nil, nil, err
	}
	return old, old.Close, nil
}

func (d Depot) recipient() (age.Recipient, error) {
	if strings.HasPrefix(d.Key, "AGE-SECRET-KEY-1") {
		id, err := age.ParseX25519Identity(d.Key)
		if err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		return id.Recipient(), nil
	}
	r, err := age.NewScryptRecipient(d.Key)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	r.SetWorkFactor(scryptWork)
	return r, nil
}

func (d Depot) identities() ([]age.Identity, error) {
	var out []age.Identity
	for _, key := range append([]string{d.Key}, d.Old...) {
		var id age.Identity
		var err error
		if strings.HasPrefix(key, "AGE-SECRET-KEY-1") {
			id, err = age.ParseX25519Identity(key)
		} else {
			id, err = age.NewScryptIdentity(key)
		}
		if err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		out = append(out, id)
	}
	return out, nil
}
