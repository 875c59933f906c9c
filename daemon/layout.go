// Package daemon wires the tiers into processes and runs the loop. It decides nothing itself: what
// to do comes from package plan, how from the tiers, what is asked from package control.
//
// One binary has several modes, one wiring function each: Warden and Keeper (keep.go), Door
// (door.go) and the daemon (Run in run.go). The loop that pursues revisions is in loop.go, what the
// control API answers in the api_*.go files. Begin at Run.
package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// maxSocketPath is what fits a unix socket address on Linux, in bytes.
const maxSocketPath = 104

// Layout says where things lie in a data directory.
type Layout struct{ Dir string }

// Database is the store of cross-tier facts.
func (l Layout) Database() string { return filepath.Join(l.Dir, "house.db") }

// Key is the age identity that opens secrets.
func (l Layout) Key() string { return filepath.Join(l.Dir, "secrets.key") }

// Token lets callers in over TCP.
func (l Layout) Token() string { return filepath.Join(l.Dir, "token") }

// Access is what the keys are derived from by which services sign calls to what speaks AWS' protocols.
func (l Layout) Access() string { return filepath.Join(l.Dir, "access.key") }

// Config is the house's own settings.
func (l Layout) Config() string { return filepath.Join(l.Dir, "house.json") }

// Tier is the folder of one tier.
func (l Layout) Tier(name string) string { return filepath.Join(l.Dir, name) }

// certificates is the folder of the door's certificates, and of the authority of local names.
func (l Layout) certificates() string { return filepath.Join(l.Tier("edge"), "certs") }

// Sources holds the projects whose files were uploaded, a folder each.
func (l Layout) Sources() string { return filepath.Join(l.Dir, "sources") }

// Log is the file that takes the output of one of the house's own processes.
func (l Layout) Log(process string) string { return filepath.Join(l.Dir, "log", process+".log") }

// Socket is the path of a unix socket. A data directory with a path too long for one has its
// sockets below the temporary directory, in a folder named by the directory's hash.
func (l Layout) Socket(name string) string {
	path := filepath.Join(l.Dir, name+".sock")
	if len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(l.Dir))
	return filepath.Join(os.TempDir(), "tenfold-"+hex.EncodeToString(sum[:6]), name+".sock")
}

// prepare makes the folders.
func (l Layout) prepare() error {
	// Readable by others: an engine that runs as another user must reach its own folder below.
	// What is private has its own mode.
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(l.Dir, "log"), 0o750); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Dir(l.Socket("x")), 0o755)
}

// DefaultData is where a house lives when nobody says: /var/lib/tenfold for root, otherwise below
// the user's XDG data home.
func DefaultData() string {
	if d := os.Getenv("TENFOLD_DATA"); d != "" {
		return d
	}
	if os.Getuid() == 0 {
		return "/var/lib/tenfold"
	}
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "tenfold")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "share", "tenfold")
}
