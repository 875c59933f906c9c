package wire

import (
	"encoding/binary"
	"time"
)

// Frame types, flags, settings and error codes of RFC 9113, sections 6 and 7.
const (
	frameData         = 0
	frameHeaders      = 1
	framePriority     = 2
	frameReset        = 3
	frameSettings     = 4
	framePush         = 5
	framePing         = 6
	frameGoAway       = 7
	frameWindow       = 8
	frameContinuation = 9

	flagEndStream  = 1
	flagAck        = 1
	flagEndHeaders = 4
	flagPadded     = 8
	flagPriority   = 32

	settingTableSize         = 1
	settingPush              = 2
	settingStreams           = 3
	settingWindow            = 4
	settingFrame             = 5
	settingHeaderList        = 6
	settingConnect           = 8
	defaultWindow            = 65535
	maxWindow                = 1<<31 - 1
	frameLimit               = 16384 // of what we take, and of what we send
	frameHead                = 9
	streamWindow             = 256 << 10 // what a stream may send before the handler reads
	connWindow               = 1 << 20   // what all streams of a connection may
	maxBlock                 = 64 << 10  // of one HPACK block, in all its frames
	maxContinuation          = 16        // frames of one block
	unsentLimit              = 256 << 10 // of answers to control frames before the reader waits
	batch                    = 64 << 10  // what is written at once
	drainCookie       uint64 = 0x74656e666f6c6421
)

type code uint32

const (
	codeNone        code = 0
	codeProtocol    code = 1
	codeInternal    code = 2
	codeFlow        code = 3
	codeClosed      code = 5
	codeSize        code = 6
	codeRefused     code = 7
	codeCancel      code = 8
	codeCompression code = 9
	codeCalm        code = 11
)

// connError ends the connection with GOAWAY.
type connError struct {
	code code
	why  string
}

func (e *connError) Error() string { return "http/2 connection: " + e.why }

// streamError ends a stream with RST_STREAM.
type streamError struct {
	id   uint32
	code code
}

func (e streamError) Error() string { return "http/2 stream error" }

func appendFrameHead(dst []byte, length int, kind, flags byte, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendUint32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

func appendSetting(dst []byte, id uint16, v uint32) []byte {
	return appendUint32(append(dst, byte(id>>8), byte(id)), v)
}

// appendBlock writes a header block in as many frames as it needs.
func appendBlock(dst []byte, id uint32, block []byte, flags byte) []byte {
	kind := byte(frameHeaders)
	for {
		n := min(len(block), frameLimit)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		dst = append(appendFrameHead(dst, n, kind, flags, id), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return dst
		}
		kind, flags = frameContinuation, 0
	}
}

// unpad takes the padding of a DATA or HEADERS frame away.
func unpad(flags byte, p []byte) ([]byte, *connError) {
	if flags&flagPadded == 0 {
		return p, nil
	}
	if len(p) == 0 {
		return nil, &connError{codeSize, "a padded frame without a pad length"}
	}
	n := int(p[0])
	if n >= len(p) {
		return nil, &connError{codeProtocol, "more padding than frame"}
	}
	return p[1 : len(p)-n], nil
}

// bucket is an allowance that refills with time: what floods a connection with frames that cost us
// more than them runs out of it.
type bucket struct {
	left float64
	last time.Time
}

// take spends n of an allowance of at most burst that grows by rate a second.
func (b *bucket) take(n, burst, rate float64, now time.Time) bool {
	if b.last.IsZero() {
		b.left = burst
	} else {
		b.left = min(burst, b.left+rate*now.Sub(b.last).Seconds())
	}
	b.last = now
	b.left -= n
	return b.left >= 0
}
