package daemon

import (
	"cmp"
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold"
)

// Nothing bounds what a task writes but the disk, so that it is said before the disk is full, and whose files they are.
const (
	diskPace  = 10 * time.Second
	worthSaid = 64 << 20 // bytes of a service's files that are named
	mostNamed = 3
)

// disk raises an event when the disk that the house lies on is nearly full, another when it is about to be, and one when
// there is room again.
type disk struct{ h *house }

func (disk) Name() string { return "disk" }

func (d disk) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(diskPace)
	defer tick.Stop()
	level := room
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(d.h.layout.Dir, &st); err == nil {
			total, free := int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
			now := diskLevel(level, total, free)
			if e, ok := diskEvent(level, now, free, d.h.layout.Dir, func() string { return d.largest(ctx) }); ok {
				d.h.hub.emit(e)
			}
			level = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// How full a disk is.
const (
	room = iota
	nearlyFull
	full
)

// diskLevel is how full a disk is after it was at a level: with less than a tenth free, or less than 5 GB where that is
// less, it is nearly full, with a tenth of that, full. It has room again only when a tenth more than that is free.
func diskLevel(was int, total, free int64) int {
	least := min(total/10, 5<<30)
	if was > room {
		least += least / 10
	}
	switch {
	case free < least/10:
		return full
	case free < least:
		return nearlyFull
	}
	return room
}

// diskEvent is what is said when the level changes. A disk that comes from full to nearly full is not spoken of.
func diskEvent(was, now int, free int64, dir string, largest func() string) (tenfold.Event, bool) {
	switch {
	case now > was:
		e := tenfold.Event{Severity: tenfold.SeverityWarning, Text: "the disk is nearly full: " + bytesWord(free) + " are free; when none is, writes of databases and deploys fail",
			Detail: largest(), Hint: "make room around " + dir + ", or end what fills it: tenfold status"}
		if now == full {
			e.Severity = tenfold.SeverityError
		}
		return e, true
	case now == room && was > room:
		return tenfold.Event{Severity: tenfold.SeverityInfo, Text: "the disk has room again: " + bytesWord(free) + " are free"}, true
	}
	return tenfold.Event{}, false
}

// largest names the services whose tasks have written most.
func (d disk) largest(ctx context.Context) string {
	units, err := d.h.keeper.List(ctx, "task/")
	if err != nil {
		return ""
	}
	folders := map[string][]string{} // by service
	for _, u := range units {
		service := strings.TrimPrefix(filepath.Dir(u.Unit.ID), "task/")
		if u.Unit.Box == nil || folders[service] != nil {
			continue
		}
		folders[service] = append([]string{u.Unit.Box.Home}, u.Unit.Box.Write...)
	}
	return largestOf(ctx, folders)
}

func largestOf(ctx context.Context, folders map[string][]string) string {
	type one struct {
		name string
		size int64
	}
	var all []one
	for name, dirs := range folders {
		o := one{name: name}
		for _, dir := range dirs {
			o.size += sizeOf(ctx, dir)
		}
		if o.size >= worthSaid {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.name, b.name)) })
	var out []string
	for _, o := range all[:min(len(all), mostNamed)] {
		out = append(out, o.name+" has "+bytesWord(o.size))
	}
	return strings.Join(out, ", ")
}

// sizeOf is what a folder takes of its disk.
func sizeOf(ctx context.Context, dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went meanwhile
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				n += st.Blocks * 512
			}
		}
		return ctx.Err()
	})
	return n
}
