package pgrepl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"tenfold/internal/lazy"
)

// System is what a server says of itself.
type System struct {
	ID       string
	Timeline uint32
	At       LSN    // flushed
	Segment  uint64 // size of a WAL file, in bytes
}

// Identify asks a server who and where it is.
func Identify(ctx context.Context, conn *pgconn.PgConn) (System, error) {
	row, err := one(ctx, conn, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return System{}, err
	}
	tli, err := strconv.ParseUint(row[1], 10, 32)
	if err != nil {
		return System{}, fmt.Errorf("identify server: timeline %q: %w", row[1], err)
	}
	at, err := ParseLSN(row[2])
	if err != nil {
		return System{}, err
	}
	size, err := one(ctx, conn, "SHOW wal_segment_size", 1)
	if err != nil {
		return System{}, err
	}
	bytes, err := parseSize(size[0])
	return System{ID: row[0], Timeline: uint32(tli), At: at, Segment: bytes}, err
}

var sizeText = lazy.Regexp(`^(\d+)(MB|GB)$`)

func parseSize(s string) (uint64, error) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("identify server: wal_segment_size %q", s)
	}
	n, err := strconv.ParseUint(m[1], 10, 32)
	return n << map[string]uint{"MB": 20, "GB": 30}[m[2]], err
}

// one runs a command that answers with one row of so many columns or more.
func one(ctx context.Context, conn *pgconn.PgConn, command string, columns int) ([]string, error) {
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.ToLower(strings.Fields(command)[0]), err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < columns {
		return nil, fmt.Errorf("%s: the server answers with no row", strings.ToLower(strings.Fields(command)[0]))
	}
	var out []string
	for _, v := range results[0].Rows[0] {
		out = append(out, string(v))
	}
	return out, nil
}

// History is the history file of a timeline: its name and text.
func History(ctx context.Context, conn *pgconn.PgConn, timeline uint32) (name, text string, err error) {
	row, err := one(ctx, conn, "TIMELINE_HISTORY "+strconv.FormatUint(uint64(timeline), 10), 2)
	if err != nil {
		return "", "", err
	}
	return row[0], row[1], nil
}

// Fork is where a timeline was left for the next.
type Fork struct {
	Timeline uint32
	At       LSN
}

// ParseHistory reads a history file: the timelines before its own, oldest first.
func ParseHistory(text string) ([]Fork, error) {
	var out []Fork
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		tli, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read timeline history: %q: %w", line, err)
		}
		at, err := ParseLSN(f[1])
		if err != nil {
			return nil, fmt.Errorf("read timeline history: %w", err)
		}
		out = append(out, Fork{uint32(tli), at})
	}
	return out, nil
}

// Sink takes WAL.
type Sink interface {
	// Write takes what stands at a position; each begins where the last ended.
	Write(at LSN, p []byte) error
	// Safe is the position up to which the server may forget, called every second. It may take its time.
	Safe() (LSN, error)
	// CaughtUp is told when everything that the server had has been written, with the server's time.
	CaughtUp(at time.Time)
}

// statusPace is how often the server is told what is safe.
const statusPace = time.Second

// Stream hands the WAL of a timeline from a position on to s until ctx ends, the connection does, or
// the timeline: then ended is true and the next begins at its fork (see History). The slot keeps WAL
// until s says that it is safe.
func Stream(ctx context.Context, conn *pgconn.PgConn, slot string, timeline uint32, from LSN, s Sink) (ended bool, err error) {
	conn.Frontend().Send(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION SLOT %s PHYSICAL %s TIMELINE %d", slot, from, timeline)})
	if err := conn.Frontend().Flush(); err != nil {
		return false, fmt.Errorf("stream WAL: %w", err)
	}
	f := follower{conn: conn, at: from, safe: s.Safe}
	f.write = func(at, end LSN, p []byte) (LSN, error) {
		if at != f.at {
			return 0, fmt.Errorf("WAL of %s where %s was expected", at, f.at)
		}
		return at + LSN(len(p)), s.Write(at, p)
	}
	f.alive = func(at LSN, when time.Time) {
		if at <= f.at {
			s.CaughtUp(when)
		}
	}
	ended, err = f.run(ctx)
	if err != nil && ctx.Err() == nil {
		return false, fmt.Errorf("stream WAL: %w", err)
	}
	return ended, ctx.Err()
}

// follower reads a stream and answers it.
type follower struct {
	conn *pgconn.PgConn
	at   LSN // up to which all was taken
	told time.Time

	// write takes what stands from at on, of what the server has up to end, and says up to where all was taken now;
	// 0: no farther.
	write func(at, end LSN, p []byte) (LSN, error)
	safe  func() (LSN, error)
	// alive is told of a sign of life, of a server that has sent what it has up to at.
	alive func(at LSN, when time.Time)
}

func (f *follower) run(ctx context.Context) (bool, error) {
	for {
		if time.Since(f.told) >= statusPace {
			if err := f.tell(); err != nil {
				return false, err
			}
		}
		limit, cancel := context.WithDeadline(ctx, f.told.Add(statusPace))
		m, err := f.conn.ReceiveMessage(limit)
		cancel()
		if err != nil {
			if pgconn.Timeout(err) && ctx.Err() == nil {
				continue
			}
			return false, err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return false, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyData:
			if err := f.take(m.Data); err != nil {
				return false, err
			}
		case *pgproto3.CopyDone:
			if err := f.tell(); err != nil {
				return false, err
			}
			f.conn.Frontend().Send(&pgproto3.CopyDone{})
			if err := f.conn.Frontend().Flush(); err != nil {
				return false, err
			}
			return true, receive(ctx, f.conn, func(pgproto3.BackendMessage) error { return nil })
		case *pgproto3.ReadyForQuery: // nothing was left on this timeline
			return true, nil
		}
	}
}

// take reads one message of the stream: WAL, or a sign of life.
func (f *follower) take(p []byte) error {
	if len(p) == 0 {
		return errors.New("an empty message")
	}
	switch p[0] {
	case 'w':
		if len(p) < 25 {
			return errors.New("a message of WAL that is cut off")
		}
		at, end := LSN(binary.BigEndian.Uint64(p[1:])), LSN(binary.BigEndian.Uint64(p[9:]))
		next, err := f.write(at, end, p[25:])
		if err != nil {
			return err
		}
		if f.at = max(f.at, next); f.at >= end {
			f.alive(end, serverTime(p[17:]))
		}
	case 'k':
		if len(p) < 18 {
			return errors.New("a sign of life that is cut off")
		}
		f.alive(LSN(binary.BigEndian.Uint64(p[1:])), serverTime(p[9:]))
		if p[17] == 1 {
			return f.tell()
		}
	}
	return nil
}

// epoch is when PostgreSQL's time begins, which counts microseconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func serverTime(p []byte) time.Time { return serverMoment(binary.BigEndian.Uint64(p)) }

// tell says what is safe.
func (f *follower) tell() error {
	safe, err := f.safe()
	if err != nil {
		return err
	}
	f.told = time.Now()
	b := make([]byte, 34)
	b[0] = 'r'
	binary.BigEndian.PutUint64(b[1:], uint64(f.at))
	binary.BigEndian.PutUint64(b[9:], uint64(safe))
	binary.BigEndian.PutUint64(b[17:], uint64(safe))
	binary.BigEndian.PutUint64(b[25:], uint64(f.told.Sub(epoch).Microseconds()))
	b[33] = 1 // answer: how else would a quiet server say that there was nothing until now?
	f.conn.Frontend().Send(&pgproto3.CopyData{Data: b})
	return f.conn.Frontend().Flush()
}
