package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/oschwald/maxminddb-golang/v2"

	"tenfold"
	"tenfold/internal/atomicfile"
)

const (
	mostPage = 256 << 10 // bytes: a page travels in each revision and in the door's snapshot
	mostGeo  = 512 << 20
)

// readPages reads the files of the project that the front door answers with, and copies those it looks
// things up in to its folder: a rollback needs them as they were. With plan nothing is copied.
func readPages(app *tenfold.App, root, dir string, plan bool) error {
	for _, route := range slices.Sorted(maps.Keys(app.Rules)) {
		if p := app.Rules[route].Maintenance; p != nil {
			if err := readPage(p, root, "edge.routes."+string(route)+".maintenance"); err != nil {
				return err
			}
		}
	}
	for status, p := range app.Door.Errors {
		if err := readPage(&p, root, fmt.Sprintf("edge.errors.%d", status)); err != nil {
			return err
		}
		app.Door.Errors[status] = p
	}
	if app.Door.Geo != nil {
		return copyGeo(app.Door.Geo, root, filepath.Join(dir, "geo"), plan)
	}
	return nil
}

func readPage(p *tenfold.Page, root, key string) error {
	b, err := readWithin(root, p, key, mostPage, "make it smaller, for example by leaving pictures to a frontend")
	p.Body = string(b)
	return err
}

// readWithin reads a file below the project's folder, wherever links in it lead: os.Root lets none out.
func readWithin(root string, p *tenfold.Page, key string, most int64, smaller string) ([]byte, error) {
	place := func(err error) *tenfold.Error {
		return tenfold.Errorf(tenfold.CodeInvalid, "%s:%d: %s: %w", manifestName, p.Line, key, err)
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, place(err)
	}
	defer dir.Close()
	f, err := dir.Open(filepath.FromSlash(p.File))
	if err != nil {
		return nil, place(err).WithHint("the file's path is below the manifest's folder; is it there, and not ignored by Git?")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, place(err)
	case int64(len(b)) > most:
		return nil, place(fmt.Errorf("%s is larger than %d KiB", p.File, most>>10)).WithHint("%s", smaller)
	case len(b) == 0:
		return nil, place(fmt.Errorf("%s is empty", p.File)).WithHint("write something into it, or leave the line out")
	}
	return b, nil
}

func copyGeo(p *tenfold.Page, root, dir string, plan bool) error {
	b, err := readWithin(root, p, "edge.geo", mostGeo, "countries are enough: GeoLite2 Country has some MB")
	if err != nil {
		return err
	}
	db, err := maxminddb.OpenBytes(b)
	if err != nil {
		return tenfold.Errorf(tenfold.CodeInvalid, "%s:%d: edge.geo: %s is not a MaxMind file: %w", manifestName, p.Line, p.File, err).
			WithHint("take a file that ends in .mmdb: GeoLite2 Country, for example")
	}
	defer db.Close()
	sum := sha256.Sum256(b)
	p.Copy = filepath.Join(dir, hex.EncodeToString(sum[:12])+".mmdb")
	if _, err := os.Stat(p.Copy); err == nil || plan {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep %s: %w", p.File, err)
	}
	return atomicfile.Write(p.Copy, b, 0o600)
}
