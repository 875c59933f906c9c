package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tenfold/internal/isolate"
)

// Units that wait for long may stand still: no processor, no timer, no wakeup, and their memory may be paged out. That
// is the freezer of cgroup version 2, which has no controller: it works beside version 1, too. Version 1's own freezer
// is not used: what it holds cannot be killed before it is let go, so that whoever cleans up after a keeper's death
// would have to know of it.

// freezeFile stops the processes of a group, together.
const freezeFile = "cgroup.freeze"

var errNoFreezer = errors.New("no cgroup of version 2 can be written here")

// Freeze has all processes of a unit stand still until thaw is called or the unit is stopped. They notice nothing but
// that time has passed. It is an error where the machine has no freezer. A call of somebody waits for thaw: it does
// without the keeper, whose user this process is.
func (c *Client) Freeze(ctx context.Context, id string) (thaw func() error, err error) {
	a, err := c.call(ctx, request{Op: "freeze", ID: id})
	if err != nil {
		return nil, err
	}
	return func() error { return put(a.Addr, freezeFile, "0") }, nil
}

// freeze is the command. It gives the group's folder.
func (k *Keeper) freeze(id string) (string, error) {
	h, ok := k.get(id)
	if !ok {
		return "", fmt.Errorf("freeze unit: no unit %s", id)
	}
	k.mu.Lock()
	p := h.proc
	k.mu.Unlock()
	if p == nil {
		return "", fmt.Errorf("freeze unit: %s does not run", id)
	}
	dirs := p.group.freezable()
	if len(dirs) == 0 {
		return "", errNoFreezer
	}
	select {
	case <-h.stop:
		return "", fmt.Errorf("freeze unit: %s is to end", id)
	default:
	}
	return dirs[0], put(dirs[0], freezeFile, "1")
}

// freezable are the group's folders of version 2: of a unit there is one.
func (m *group) freezable() (out []string) {
	if m == nil {
		return nil
	}
	for _, dir := range m.folders() {
		if _, err := os.Stat(filepath.Join(dir, freezeFile)); err == nil {
			out = append(out, dir)
		}
	}
	return out
}

// thaw lets the group's processes go on.
func (m *group) thaw() {
	for _, dir := range m.freezable() {
		_ = put(dir, freezeFile, "0") // gone meanwhile
	}
}

// RungFreezer is whether units can stand still: it shuts nothing in, so it is none of Ladder's.
const RungFreezer = "freezer"

// Freezer says whether units of a keeper that runs as this process does can stand still. It changes nothing, so it looks
// for the file in groups that there are.
func Freezer() isolate.Rung {
	g := &groups{}
	g.look()
	r := isolate.Rung{Name: RungFreezer, Found: errNoFreezer.Error()}
	base, ok := g.bases[""]
	if !ok {
		return r
	}
	files, _ := filepath.Glob(filepath.Join(base, "*", freezeFile))
	if _, err := os.Stat(filepath.Join(base, freezeFile)); err == nil || len(files) > 0 {
		r.OK, r.Found = true, "idle functions stand still"
	}
	return r
}
