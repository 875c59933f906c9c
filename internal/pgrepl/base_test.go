package pgrepl

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/enginetest"
)

func TestACloneIsWholeAndAFlippedByteIsNamed(t *testing.T) {
	dsn := enginetest.Postgres(t)
	c, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if err := c.Exec(t.Context(), "create table t as select g n, repeat('x', 100) from generate_series(1, 20000) g").Close(); err != nil {
		t.Fatal(err)
	}
	r, err := pgconn.Connect(t.Context(), dsn+"&replication=true")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	dir := filepath.Join(t.TempDir(), "data")
	b, err := Clone(t.Context(), r, Options{Label: "a 'label'"}, dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b.End < b.Start || b.Timeline != 1 {
		t.Errorf("%+v", b)
	}
	label, err := os.ReadFile(filepath.Join(dir, "backup_label"))
	if err != nil || !strings.Contains(string(label), "a 'label'") {
		t.Fatalf("%q %v", label, err)
	}

	// The same again, as one stream: what is flipped in it is told by name.
	var tape bytes.Buffer
	if b, err = Backup(t.Context(), r, Options{Label: "again"}, &tape); err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(tape.Bytes(), bytes.Repeat([]byte("x"), 100))
	tape.Bytes()[i] ^= 1
	files, err := Unpack(&tape, filepath.Join(t.TempDir(), "flipped"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(b.Manifest, files); err == nil || !strings.Contains(err.Error(), "the checksum of base/") {
		t.Fatal(err)
	}
	b.Manifest[bytes.Index(b.Manifest, []byte("base/"))] ^= 1
	if _, err := ParseManifest(b.Manifest); err == nil {
		t.Fatal("a changed manifest passes")
	}
}

func TestPositionsAreRead(t *testing.T) {
	for s, want := range map[string]string{"0/0": "000000010000000000000000", "16/B374D848": "0000000100000016000000B3", "FFFFFFFF/FF000000": "00000001FFFFFFFF000000FF"} {
		l, err := ParseLSN(s)
		if err != nil || l.String() != s || l.Segment(1, 16<<20) != want {
			t.Errorf("%s: %s %s %v", s, l, l.Segment(1, 16<<20), err)
		}
	}
	for _, s := range []string{"", "1", "x/1", "1/1FFFFFFFF", "-1/0"} {
		if _, err := ParseLSN(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
