package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Limits are what a unit's processes may take together. Zero: no limit, or what every unit has.
type Limits struct {
	Memory int64   `json:"memory,omitempty"` // bytes; beyond it the kernel kills
	High   int64   `json:"high,omitempty"`   // bytes; beyond it memory is taken back first, and allocations wait
	CPU    float64 `json:"cpu,omitempty"`    // cores
	Weight float64 `json:"weight,omitempty"` // share of the cores while others want them too, 1 is what every unit has
	PIDs   int     `json:"pids,omitempty"`   // processes and threads

	bound int // processes and threads while PIDs says nothing: a unit's PIDs
}

// none says that nothing was asked for.
func (l Limits) none() bool { l.bound = 0; return l == Limits{} }

// limits of a unit from its start, until Limit says others.
func (u Unit) limits() Limits { return Limits{Memory: u.Memory, CPU: u.CPU, bound: u.bound()} }

// boxPIDs bounds the processes and threads of a unit with a box that says nothing itself: a fork bomb ends there, and a
// virtual machine with a thousand threads does not.
const boxPIDs = 4096

func (u Unit) bound() int {
	if u.PIDs == 0 && u.Box != nil {
		return boxPIDs
	}
	return u.PIDs
}

// Limit sets what a unit may take from now on, through restarts too; fields that are zero are lifted.
// unenforced says which of them do not hold here, and why; "" when all do. It is no error.
func (c *Client) Limit(ctx context.Context, id string, l Limits) (unenforced string, err error) {
	s, err := c.one(ctx, request{Op: "limit", ID: id, Limits: &l})
	return s.Unenforced, err
}

// limit is the command.
func (k *Keeper) limit(id string, l Limits) (Status, error) {
	h, ok := k.get(id)
	if !ok {
		return Status{}, fmt.Errorf("limit unit: no unit %s", id)
	}
	h.limiting.Lock()
	defer h.limiting.Unlock()
	k.mu.Lock()
	h.status.Limits = &l
	l.bound = h.unit.bound()
	p, pid := h.proc, h.status.PID
	k.mu.Unlock()
	if p == nil || pid == 0 || p.group == nil { // its next process begins with them
		k.mu.Lock()
		defer k.mu.Unlock()
		return h.status, nil
	}
	unenforced := k.groups.limit(p.group, groupName(k.house, id), l)
	if err := k.gather(h, p, pid); err != nil && unenforced == "" && !l.none() {
		unenforced = err.Error()
	}
	k.update(h, func(s *Status) { s.Unenforced = unenforced })
	k.mu.Lock()
	defer k.mu.Unlock()
	return h.status, nil
}

// gather moves a unit's whole tree into its group's folders, of which some may be new. What is forked meanwhile is
// born where its parent is; the second look finds what was under way.
func (k *Keeper) gather(h *held, p *proc, pid int) error {
	for range 2 {
		tree := append([]int{pid}, family{}.look(k.house, h.unit.ID, p)...)
		for _, dir := range p.group.folders() {
			for _, pid := range tree {
				if err := put(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
					return err
				}
			}
		}
	}
	return nil
}

// limit sets limits on a group, whose folders are made where there are none yet. unenforced says which do not hold.
func (g *groups) limit(m *group, name string, l Limits) (unenforced string) {
	g.once.Do(g.find)
	var missing []string
	for _, x := range []struct {
		what string
		want bool // else it is lifted, where it was set
		do   func(dir string, two bool) error
	}{
		{what: "memory", want: l.Memory > 0 || l.High > 0, do: func(dir string, two bool) error { return setMemory(dir, two, l) }},
		{what: "cpu", want: l.CPU > 0 || l.Weight > 0, do: func(dir string, two bool) error { return setCPU(dir, two, l) }},
		{what: "pids", want: cmp.Or(l.PIDs, l.bound) > 0, do: func(dir string, two bool) error {
			return put(dir, "pids.max", orMax(int64(cmp.Or(l.PIDs, l.bound)), "max"))
		}},
	} {
		dir, two, err := g.folder(m, x.what, name, x.want)
		if err == nil && dir != "" {
			err = x.do(dir, two)
		}
		if err == nil && dir != "" && x.want {
			m.holds(x.what, two)
		}
		if err != nil && x.want && (x.what != "pids" || l.PIDs > 0) {
			missing = append(missing, x.what+": "+err.Error())
		}
	}
	return strings.Join(missing, "; ")
}

// folder is the group's in the hierarchy of a controller. It is made when it is wanted, and "" when it is not and is not
// there.
func (g *groups) folder(m *group, controller, name string, want bool) (dir string, two bool, err error) {
	base := controller
	if two = g.two[controller]; two {
		base = ""
	}
	if !want {
		dir = filepath.Join(g.bases[base], name)
		if _, err := os.Stat(dir); err != nil || g.bases[base] == "" {
			return "", two, nil
		}
		return dir, two, nil
	}
	dir, err = m.in(g.bases, base, name)
	if err == nil && controller == "memory" {
		m.mu.Lock()
		m.memory = dir
		m.mu.Unlock()
	}
	return dir, two, err
}

// orMax is a number, or a word for none.
func orMax(n int64, none string) string {
	if n <= 0 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

func setMemory(dir string, two bool, l Limits) error {
	if two {
		put(dir, "memory.swap.max", map[bool]string{true: "0", false: "max"}[l.Memory > 0]) // no such file without swap accounting
		return errors.Join(put(dir, "memory.high", orMax(l.High, "max")), put(dir, "memory.max", orMax(l.Memory, "max")))
	}
	limit := orMax(l.Memory, "-1")
	// With swap accounting the one limit may not pass the other: whichever way it moves, one of the orders does.
	put(dir, "memory.memsw.limit_in_bytes", limit)
	err := put(dir, "memory.limit_in_bytes", limit)
	put(dir, "memory.memsw.limit_in_bytes", limit)
	return errors.Join(err, put(dir, "memory.soft_limit_in_bytes", orMax(l.High, "-1")))
}

// period of the kernel's accounts of CPU, in microseconds.
const period = 100_000

func setCPU(dir string, two bool, l Limits) error {
	quota := int64(0)
	if l.CPU > 0 {
		quota = max(1000, int64(l.CPU*period))
	}
	weight := l.Weight
	if weight <= 0 {
		weight = 1
	}
	if two {
		return errors.Join(put(dir, "cpu.max", orMax(quota, "max")+" "+strconv.Itoa(period)),
			put(dir, "cpu.weight", strconv.Itoa(int(math.Round(min(max(100*weight, 1), 10000))))))
	}
	return errors.Join(put(dir, "cpu.cfs_period_us", strconv.Itoa(period)), put(dir, "cpu.cfs_quota_us", orMax(quota, "-1")),
		put(dir, "cpu.shares", strconv.Itoa(int(math.Round(min(max(1024*weight, 2), 262144))))))
}
