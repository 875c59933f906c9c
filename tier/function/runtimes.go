package function

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"tenfold/internal/atomicfile"
)

// bootstraps run handlers of languages whose own runtime clients have to be compiled or fetched.
//
//go:embed bootstrap/node.mjs bootstrap/python.py
var bootstraps embed.FS

// bootstrap gives the command that runs handlers of a language; nil for those that are programs by
// themselves. dir is where the bootstraps are written: by content, so that one that runs is not changed.
func bootstrap(dir, language string) ([]string, error) {
	var name, program string
	switch language {
	case "node":
		name, program = "node.mjs", "node"
	case "python":
		name, program = "python.py", "python3"
	default:
		return nil, nil
	}
	b, err := bootstraps.ReadFile("bootstrap/" + name)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	path := filepath.Join(dir, hex.EncodeToString(sum[:6])+"-"+name)
	if _, err := os.Stat(path); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("write the runtime of %s: %w", language, err)
		}
		if err := atomicfile.Write(path, b, 0o644); err != nil {
			return nil, fmt.Errorf("write the runtime of %s: %w", language, err)
		}
	}
	return []string{program, path}, nil
}
