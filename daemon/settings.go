package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"tenfold/internal/atomicfile"
)

// DefaultListen is the front door's address when nobody says.
const DefaultListen = "127.0.0.1:8080"

// Settings are the house's own, kept in house.json.
type Settings struct {
	// Listen is the front door's address.
	Listen string `json:"listen"`
	// TLS is the front door's address for TLS; empty: none. ACME is the directory of the authority that
	// certifies public names; empty: Let's Encrypt.
	TLS  string `json:"tls,omitempty"`
	ACME string `json:"acme,omitempty"`
	// SSH is the address of the git remote over SSH; empty: over HTTP alone.
	SSH string `json:"ssh,omitempty"`
	// Linger is how long connections may stay with the door of an earlier version; 0: an hour.
	Linger time.Duration `json:"linger,omitempty"`
	// Control is a TCP address for the control API, behind the token; empty: unix socket only.
	Control string `json:"control,omitempty"`
}

// LoadSettings reads the settings of a data directory, defaults where there are none.
func LoadSettings(l Layout) (Settings, error) {
	s := Settings{Listen: DefaultListen}
	b, err := os.ReadFile(l.Config())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	return s, nil
}

// Save writes the settings; a running daemon reads them at its next start.
func (s Settings) Save(l Layout) error {
	if err := l.prepare(); err != nil {
		return fmt.Errorf("save settings: %w", err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save settings: %w", err)
	}
	return atomicfile.Write(l.Config(), append(b, '\n'), 0o644)
}
