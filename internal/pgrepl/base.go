package pgrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Base is what a base backup says of itself.
type Base struct {
	Start, End LSN
	Timeline   uint32 // of Start
	// Manifest is the server's own list of files with their checksums (see ParseManifest).
	Manifest []byte
}

// Options of a base backup.
type Options struct {
	Label string
	// WAL puts into it the WAL from its start to its end: it can be started as it is. Without, whoever
	// uses it needs that from elsewhere.
	WAL bool
}

// Backup takes a base backup and writes the data directory to w as a tar archive. It begins with an
// immediate checkpoint. A database with tablespaces of its own is refused: they lie outside the data
// directory.
func Backup(ctx context.Context, conn *pgconn.PgConn, o Options, w io.Writer) (Base, error) {
	major, err := majorOf(conn)
	if err != nil {
		return Base{}, fmt.Errorf("base backup: %w", err)
	}
	quoted := "'" + strings.ReplaceAll(o.Label, "'", "''") + "'"
	command := "BASE_BACKUP (LABEL " + quoted + ", CHECKPOINT 'fast', WAIT 0, MANIFEST 'yes'" + map[bool]string{true: ", WAL"}[o.WAL] + ")"
	if major < 15 {
		command = "BASE_BACKUP LABEL " + quoted + " FAST NOWAIT MANIFEST 'yes'" + map[bool]string{true: " WAL"}[o.WAL]
	}
	conn.Frontend().Send(&pgproto3.Query{String: command})
	if err := conn.Frontend().Flush(); err != nil {
		return Base{}, fmt.Errorf("base backup: %w", err)
	}
	b := backup{w: w, old: major < 15}
	if err := receive(ctx, conn, b.take); err != nil {
		return Base{}, fmt.Errorf("base backup: %w", err)
	}
	if b.out.End == 0 || len(b.out.Manifest) == 0 {
		return Base{}, errors.New("base backup: the server ended it without its manifest")
	}
	return b.out, nil
}

// receive hands each message to take until the server is ready for the next command.
func receive(ctx context.Context, conn *pgconn.PgConn, take func(pgproto3.BackendMessage) error) error {
	for {
		m, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return nil
		default:
			if err := take(m); err != nil {
				return err
			}
		}
	}
}

// backup follows the answer of BASE_BACKUP: a row of where it begins, rows of tablespaces, the copies,
// a row of where it ends. To 14 each archive and the manifest are a copy of their own, later all are
// one, whose messages begin with a letter.
type backup struct {
	w    io.Writer
	old  bool
	sets int // row sets seen
	copy int // copies begun, of an old server
	into func([]byte) error
	out  Base
}

func (b *backup) take(m pgproto3.BackendMessage) (err error) {
	switch m := m.(type) {
	case *pgproto3.RowDescription:
		b.sets++
	case *pgproto3.DataRow:
		return b.row(m.Values)
	case *pgproto3.CopyOutResponse:
		if b.copy++; b.old {
			b.into = b.archive
			if b.copy > 1 {
				b.into = b.manifest
			}
		}
	case *pgproto3.CopyData:
		return b.data(m.Data)
	}
	return nil
}

func (b *backup) row(v [][]byte) (err error) {
	switch b.sets {
	case 1, 3:
		if len(v) < 2 {
			return fmt.Errorf("a row of %d columns says where it begins or ends", len(v))
		}
		at, err := ParseLSN(string(v[0]))
		if err != nil {
			return err
		}
		if b.sets == 3 {
			b.out.End = at
			return nil
		}
		tli, err := strconv.ParseUint(string(v[1]), 10, 32)
		b.out.Start, b.out.Timeline = at, uint32(tli)
		return err
	case 2:
		if len(v) > 0 && v[0] != nil {
			return fmt.Errorf("the database has a tablespace of its own (%s)", v[1])
		}
	}
	return nil
}

func (b *backup) archive(p []byte) error { _, err := b.w.Write(p); return err }

func (b *backup) manifest(p []byte) error {
	b.out.Manifest = append(b.out.Manifest, p...)
	return nil
}

func (b *backup) data(p []byte) error {
	if b.old {
		return b.into(p)
	}
	if len(p) == 0 {
		return errors.New("an empty message in the copy")
	}
	switch p[0] {
	case 'n':
		b.into = b.archive
	case 'm':
		b.into = b.manifest
	case 'd':
		if b.into == nil {
			return errors.New("data before the name of its archive")
		}
		return b.into(p[1:])
	case 'p': // progress
	default:
		return fmt.Errorf("a message %q in the copy", p[0])
	}
	return nil
}
