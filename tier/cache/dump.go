package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// dumpLimit is how long a server may say nothing while it makes a dump.
const dumpLimit = 2 * time.Minute

// errDump says that a server sent something else than a dump.
var errDump = errors.New("the server sends no dump")

// dump has a server send all its data as it is now, in the form of its files, as it does to a replica that
// begins. Nothing of it touches the server's disk.
func (c *Cache) dump(ctx context.Context, r record, n int, w io.Writer) error {
	var conn net.Conn
	var err error
	d := net.Dialer{Timeout: askLimit}
	at := net.JoinHostPort(ownHost(n), strconv.Itoa(r.Port))
	if c.speaksTLS(r, n) {
		cfg, err := c.clientTLS()
		if err != nil {
			return err
		}
		conn, err = (&tls.Dialer{NetDialer: &d, Config: cfg}).DialContext(ctx, "tcp", at)
		if err != nil {
			return fmt.Errorf("ask for a dump: %w", err)
		}
	} else if conn, err = d.DialContext(ctx, "tcp", at); err != nil {
		return fmt.Errorf("ask for a dump: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := bufio.NewReaderSize(patient{conn}, 64<<10)
	for _, ask := range []string{"AUTH " + admin + " " + r.Admin, "REPLCONF capa eof", "REPLCONF rdb-only 1"} {
		if _, err := io.WriteString(conn, ask+"\r\n"); err != nil {
			return fmt.Errorf("ask for a dump: %w", err)
		}
		line, err := readLine(in)
		if err != nil {
			return fmt.Errorf("ask for a dump: %w", err)
		}
		// A server that knows no "rdb-only" sends what comes after the dump too; we hang up then.
		if line != "+OK" && !strings.HasPrefix(ask, "REPLCONF rdb") {
			return fmt.Errorf("%w: %s", errDump, line)
		}
	}
	if _, err := io.WriteString(conn, "SYNC\r\n"); err != nil {
		return fmt.Errorf("ask for a dump: %w", err)
	}
	return readDump(in, w)
}

// patient gives each read its own limit of time.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	p.SetReadDeadline(time.Now().Add(dumpLimit))
	return p.Conn.Read(b)
}

// readLine reads one line of a bounded length.
func readLine(in *bufio.Reader) (string, error) {
	b, err := in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// markSize is how long the mark is that a dump of unknown length ends with.
const markSize = 40

// readDump copies what follows SYNC to w: empty lines while the server prepares, then "$<bytes>" and so many,
// or "$EOF:<mark>" and all until the mark comes again.
func readDump(in *bufio.Reader, w io.Writer) error {
	var head string
	for head == "" {
		line, err := readLine(in)
		if err != nil {
			return fmt.Errorf("read dump: %w", err)
		}
		head = line
	}
	mark, whole := strings.CutPrefix(head, "$EOF:")
	if !whole {
		size, err := strconv.ParseInt(strings.TrimPrefix(head, "$"), 10, 64)
		if err != nil || head[0] != '$' || size < 0 {
			return fmt.Errorf("%w: %.100q", errDump, head)
		}
		if _, err := io.CopyN(w, in, size); err != nil {
			return fmt.Errorf("read dump: %w", err)
		}
		return nil
	}
	if len(mark) != markSize {
		return fmt.Errorf("%w: its mark has %d bytes", errDump, len(mark))
	}
	// What could be the mark is held back until more has come.
	held := make([]byte, 0, 64<<10+markSize)
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		held = append(held, buf[:n]...)
		if i := bytes.Index(held, []byte(mark)); i >= 0 {
			_, err := w.Write(held[:i])
			return err
		}
		if err != nil {
			return fmt.Errorf("read dump: it ends without its mark: %w", err)
		}
		if keep := len(held) - markSize; keep > 0 {
			if _, err := w.Write(held[:keep]); err != nil {
				return err
			}
			held = append(held[:0], held[keep:]...)
		}
	}
}
