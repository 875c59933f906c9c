package container

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// traceID marks the messages that hold what BuildKit tells: moby.buildkit.v1.StatusResponse in protobuf,
// https://github.com/moby/buildkit/blob/master/api/services/control/control.proto
const traceID = "moby.buildkit.trace"

// The fields of a StatusResponse that are read, and of what is in it.
const (
	fieldVertexes, fieldLogs                       = 1, 3
	vertexDigest, vertexName, vertexCached         = 1, 3, 4
	vertexStarted, vertexCompleted, vertexErrorMsg = 5, 6, 7
	logMessage                                     = 4
)

// tracer writes what BuildKit tells: a line for each step, what it printed, and how it failed.
type tracer struct {
	out    io.Writer
	named  map[string]bool // steps that were told, by digest and how
	failed error           // of the first step that failed
}

// take reads one StatusResponse; what is none is passed over.
func (t *tracer) take(b []byte) {
	fields(b, func(n protowire.Number, v []byte, _ uint64) {
		switch n {
		case fieldVertexes:
			t.vertex(v)
		case fieldLogs:
			fields(v, func(n protowire.Number, v []byte, _ uint64) {
				if n == logMessage {
					t.out.Write(v)
				}
			})
		}
	})
}

func (t *tracer) vertex(b []byte) {
	var digest, name, failed string
	var started, completed, cached bool
	fields(b, func(n protowire.Number, v []byte, x uint64) {
		switch n {
		case vertexDigest:
			digest = string(v)
		case vertexName:
			name = string(v)
		case vertexErrorMsg:
			failed = string(v)
		case vertexStarted:
			started = true
		case vertexCompleted:
			completed = true
		case vertexCached:
			cached = x != 0
		}
	})
	say := func(how, line string) {
		if key := digest + how; !t.named[key] {
			t.named[key] = true
			fmt.Fprintln(t.out, line)
		}
	}
	switch {
	case failed != "":
		say("failed", name+": "+failed)
		if t.failed == nil {
			t.failed = errors.New(name + ": " + failed)
		}
	case cached && completed:
		say("begun", name+" (cached)")
	case started:
		say("begun", name)
	}
}

// fields calls f for each field of a message: v of those with a length, x of numbers. It ends at what
// is no message.
func fields(b []byte, f func(n protowire.Number, v []byte, x uint64)) {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return
		}
		b = b[size:]
		switch typ {
		case protowire.BytesType:
			v, size := protowire.ConsumeBytes(b)
			if size < 0 {
				return
			}
			f(n, v, 0)
			b = b[size:]
		case protowire.VarintType:
			x, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return
			}
			f(n, nil, x)
			b = b[size:]
		default:
			size := protowire.ConsumeFieldValue(n, typ, b)
			if size < 0 {
				return
			}
			b = b[size:]
		}
	}
}
