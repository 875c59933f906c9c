package daemon

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/build"
	"tenfold/internal/isolate"
	"tenfold/internal/keeper"
)

// isolationVar says what becomes of processes of which a limit cannot be enforced, where the manifest does not: the
// system service sets it to strict.
const isolationVar = "TENFOLD_ISOLATION"

func strict() bool { return os.Getenv(isolationVar) == tenfold.IsolationStrict }

// boxUser is the user of what is named: the same for the house's life, and of no use to guess, since nobody outside
// knows the key. Two names have the same with a chance of one in 268 million.
func boxUser(key []byte, what string) int {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("user of " + what))
	return isolate.FirstUser + int(binary.BigEndian.Uint64(mac.Sum(nil))%isolate.Users)
}

// box shuts the processes of a service in: it has its build, a home, and no other file of the house.
func (h *house) box(id tenfold.ID, b build.Result) (*isolate.Box, error) { return h.boxBeside(id, b) }

// boxBeside does so for one that may read further folders.
func (h *house) boxBeside(id tenfold.ID, b build.Result, read ...string) (*isolate.Box, error) {
	// A build may be of several environments: whoever runs from it is of its group.
	group := boxUser(h.access, "build "+b.Key)
	if err := isolate.Give(b.Tree, group); err != nil {
		return nil, err
	}
	homes := h.layout.Tier("homes")
	if err := os.MkdirAll(homes, 0o711); err != nil {
		return nil, fmt.Errorf("make the homes of services: %w", err)
	}
	hide := []string{h.layout.Dir}
	if home, err := os.UserHomeDir(); err == nil {
		hide = append(hide, filepath.Join(home, ".ssh"), filepath.Join(home, ".gnupg"))
	}
	return &isolate.Box{
		User: boxUser(h.access, id.String()), Groups: []int{group}, Home: filepath.Join(homes, strings.ReplaceAll(id.String(), "/", "~")),
		Hide: hide, Read: append(read, b.Bin...), Write: []string{b.Tree},
	}, nil
}

func rungsOf(rungs []isolate.Rung) []control.Rung {
	var out []control.Rung
	for _, r := range rungs {
		out = append(out, control.Rung(r))
	}
	return out
}

// rungFixes say what gives a machine a rung.
var rungFixes = map[string]string{
	"cgroup":               "run as the system service (make package), which has Delegate=yes",
	keeper.RungFreezer:     "run the system service (make package) on Linux 5.2 or later with cgroup version 2",
	isolate.RungUser:       "run the house as root",
	isolate.RungNamespaces: "run the house as root",
	isolate.RungLandlock:   "Linux 5.19 or later, with landlock among the lsm= that it boots with",
}

// checkLadder says which rungs there are to shut tasks and functions in: of the house when it is up, else of a house that
// this user would start.
func checkLadder(ctx context.Context, l Layout) []Check {
	var rungs []isolate.Rung
	k, err := keeper.Dial(ctx, l.Socket("keeper"))
	if err == nil {
		rungs, err = k.Ladder(ctx)
	}
	if err != nil || len(rungs) == 0 {
		rungs = keeper.Ladder()
	}
	var out []Check
	for _, r := range append(rungs, keeper.Freezer()) {
		c := Check{Name: "isolation: " + r.Name, OK: r.OK, Optional: true, Found: r.Found}
		if !r.OK {
			c.Fix = rungFixes[r.Name]
		}
		out = append(out, c)
	}
	return out
}
