package pgproxy

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
)

// BenchmarkRoundTrip is what the loop itself takes for a query and its answer, the kernel's part included.
func BenchmarkRoundTrip(b *testing.B) {
	p := unopened(b)
	simple := pgwire.AppendQuery(nil, "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;")
	named := append(pgwire.Append(nil, 'B', "\x00P0\x00\x00\x00\x00\x01\x00\x00\x00\x044711\x00\x00"), pgwire.Append(pgwire.Append(nil, 'E', "\x00\x00\x00\x00\x00"), 'S')...)
	row := pgwire.AppendRow(nil, "123456")
	answer := pgwire.AppendReady(pgwire.Append(append(pgwire.AppendColumns(nil, "abalance"), row...), 'C', "SELECT 1\x00"), 'I')
	bound := pgwire.AppendReady(pgwire.Append(append([]byte("2\x00\x00\x00\x04"), row...), 'C', "SELECT 1\x00"), 'I')
	for _, x := range []struct {
		name      string
		ask, told []byte
	}{{"simple", simple, answer}, {"prepared", named, bound}} {
		b.Run(x.name, func(b *testing.B) {
			l, c, s, app, engine := bare(b, p)
			buf := make([]byte, readSize)
			turn := func(ask, told []byte) {
				unix.Write(app, ask)
				l.readClient(c, &heard{})
				unix.Read(engine, buf)
				unix.Write(engine, told)
				l.serverEvent(s, unix.EPOLLIN, &heard{})
				if n, _ := unix.Read(app, buf); n == 0 {
					b.Fatal("no answer")
				}
			}
			prepare := pgwire.Append(pgwire.Append(nil, 'P', "P0\x00SELECT abalance FROM pgbench_accounts WHERE aid = $1;\x00\x00\x00"), 'S')
			turn(prepare, pgwire.AppendReady([]byte("1\x00\x00\x00\x04"), 'I'))
			b.ReportAllocs()
			for b.Loop() {
				l.now = time.Now()
				turn(x.ask, x.told)
			}
		})
	}
}
