package wire

import (
	"encoding/binary"
	"io"
	"runtime"
)

// need sees to it that out has room to append to. Under c.mu.
func (c *conn2) need() {
	if c.out == nil {
		c.outBuf = getBuffer(bigBuffer)
		c.out = c.outBuf.b[:0]
	}
}

// flush writes what is queued, or leaves it to who is writing. It writes one batch and gives what
// is left to a goroutine, so that nobody is kept from their own work. Under c.mu, which it releases
// while it writes.
func (c *conn2) flush() {
	if c.uploads > 0 { // the client may be waiting for us to read before it reads
		c.flushAside()
		return
	}
	c.pump()
	if c.writing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.writing = true
	c.writeBatch()
	c.pump()
	if len(c.out) > 0 && c.err == nil {
		c.srv.running.Go(c.writeOn)
		return
	}
	c.writing = false
	c.room.Broadcast()
}

// flushAside is flush for who must never wait: another goroutine writes. Under c.mu.
func (c *conn2) flushAside() {
	c.pump()
	if !c.writing && len(c.out) > 0 && c.err == nil {
		c.writing = true
		c.srv.running.Go(c.writeOn)
	}
}

// flushSoon is flush for handlers: while others run that may finish in the same moment, it lets them
// go first, so that their answers leave in one write. Under c.mu.
func (c *conn2) flushSoon() {
	if c.running < 2 || c.writing {
		c.flush()
		return
	}
	c.pump()
	if len(c.out) == 0 || c.err != nil {
		return
	}
	c.writing = true
	c.srv.running.Go(func() {
		runtime.Gosched()
		c.writeOn()
	})
}

// flushAll writes all that is queued. Under c.mu.
func (c *conn2) flushAll() {
	for len(c.out) > 0 && c.err == nil {
		c.writeBatch()
	}
}

func (c *conn2) writeOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.pump()
		if len(c.out) == 0 || c.err != nil {
			break
		}
		c.writeBatch()
	}
	c.writing = false
	c.room.Broadcast()
}

// writeBatch writes out. Under c.mu, released meanwhile.
func (c *conn2) writeBatch() {
	b, buf := c.out, c.outBuf
	c.out, c.outBuf = nil, nil
	c.mu.Unlock()
	err := c.write(b)
	if buf.b = b; cap(b) >= buf.size {
		buf.free()
	}
	c.mu.Lock()
	if err != nil && c.err == nil {
		c.err = err
		c.out = nil
		for _, st := range c.streams {
			st.fail(err)
		}
		c.abort() // the reader must hear of it
	}
	c.room.Broadcast()
}

// queue puts a stream that has data and window in line. Under c.mu.
func (c *conn2) queue(st *stream) {
	if st.queued || len(st.pend) == 0 || st.sendWin <= 0 {
		return
	}
	st.queued, st.next = true, nil
	if c.last == nil {
		c.first = st
	} else {
		c.last.next = st
	}
	c.last = st
}

// pump frames the data of streams in line, a frame each in turn, until a batch is full or the
// connection's window is empty. Under c.mu.
func (c *conn2) pump() {
	for c.first != nil && c.sendWin > 0 && len(c.out) < batch && c.err == nil {
		st := c.first
		if c.first = st.next; c.first == nil {
			c.last = nil
		}
		st.queued = false
		n := min(int64(len(st.pend)), st.sendWin, c.sendWin, frameLimit)
		if n <= 0 || st.gone {
			continue
		}
		c.need()
		var flags byte
		whole := n == int64(len(st.pend))
		if whole && st.pendEnd {
			flags = flagEndStream
		}
		c.out = append(appendFrameHead(c.out, int(n), frameData, flags, st.id), st.pend[:n]...)
		st.pend = st.pend[n:]
		st.sendWin -= n
		st.sent += n
		c.sendWin -= n
		if !whole {
			c.queue(st)
			continue
		}
		st.pend = nil
		if st.pendEnd {
			c.localEnds(st)
		}
		st.wake()
	}
}

func (c *conn2) windowFrame(id uint32, p []byte) error {
	if len(p) != 4 {
		return &connError{codeSize, "WINDOW_UPDATE of a wrong length"}
	}
	by := int64(binary.BigEndian.Uint32(p) & maxWindow)
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		if by == 0 {
			return &connError{codeProtocol, "WINDOW_UPDATE by nothing"}
		}
		if c.sendWin += by; c.sendWin > maxWindow {
			return &connError{codeFlow, "the connection's window is too large"}
		}
		return nil
	}
	st := c.streams[id]
	if st == nil {
		if id > c.lastID {
			return &connError{codeProtocol, "WINDOW_UPDATE on an idle stream"}
		}
		return nil
	}
	if by == 0 {
		return streamError{id, codeProtocol}
	}
	if st.sendWin += by; st.sendWin > maxWindow {
		return streamError{id, codeFlow}
	}
	c.queue(st)
	return nil
}

func (c *conn2) dataFrame(flags byte, id uint32, p []byte) error {
	if id == 0 {
		return &connError{codeProtocol, "DATA without a stream"}
	}
	size := int64(len(p))
	p, ce := unpad(flags, p)
	if ce != nil {
		return ce
	}
	end := flags&flagEndStream != 0
	if len(p) == 0 && !end {
		if err := c.spend(4); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recvLeft -= size; c.recvLeft < 0 {
		return &connError{codeFlow, "more DATA than the connection's window"}
	}
	st := c.streams[id]
	switch {
	case st == nil:
		c.refund(size)
		if id > c.lastID {
			return &connError{codeProtocol, "DATA on an idle stream"}
		}
		if _, ours := c.closed(id); ours {
			return nil
		}
		return streamError{id, codeClosed}
	case st.remoteEnded:
		c.refund(size)
		return streamError{id, codeClosed}
	}
	st.recvLeft -= size
	if st.recvLeft < 0 {
		c.refund(size)
		return streamError{id, codeFlow}
	}
	st.got += int64(len(p))
	if st.declared >= 0 && st.got > st.declared {
		c.refund(size)
		return streamError{id, codeProtocol}
	}
	if st.bodyClosed {
		c.refund(size)
	} else {
		st.take(p)
		if pad := size - int64(len(p)); pad > 0 {
			c.refund(pad)
			st.refund(pad)
		}
	}
	if end {
		return c.bodyEnds(st)
	}
	st.wake()
	return nil
}

// bodyEnds notes that the client has sent all of a stream. Under c.mu.
func (c *conn2) bodyEnds(st *stream) error {
	if st.declared >= 0 && st.got != st.declared {
		return streamError{st.id, codeProtocol}
	}
	st.remoteEnded = true
	c.uploads--
	st.bodyErr = io.EOF
	st.wake()
	if st.localEnded {
		c.closeStream(st, false)
	}
	return nil
}

// refund gives the connection's window back. Under c.mu.
func (c *conn2) refund(n int64) {
	if c.recvOwed += n; c.recvOwed < connWindow/4 {
		return
	}
	c.need()
	c.out = appendUint32(appendFrameHead(c.out, 4, frameWindow, 0, 0), uint32(c.recvOwed))
	c.recvLeft += c.recvOwed
	c.recvOwed = 0
}

func (c *conn2) resetFrame(id uint32, p []byte) error {
	switch {
	case id == 0:
		return &connError{codeProtocol, "RST_STREAM without a stream"}
	case len(p) != 4:
		return &connError{codeSize, "RST_STREAM of a wrong length"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	if st == nil {
		if id > c.lastID {
			return &connError{codeProtocol, "RST_STREAM on an idle stream"}
		}
		return c.spend(1)
	}
	c.closeStream(st, false)
	return c.spend(4) // CVE-2023-44487: opening and resetting costs us a request each
}

// resetStream answers a stream error.
func (c *conn2) resetStream(e streamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.streams[e.id]; st != nil {
		c.abandon(st, e.code)
	} else {
		c.need()
		c.out = appendUint32(appendFrameHead(c.out, 4, frameReset, 0, e.id), uint32(e.code))
		if e.id <= c.lastID {
			if known, _ := c.closed(e.id); !known {
				c.remember(e.id, true)
			}
		}
	}
	return c.spend(4)
}

// abandon resets a stream. Under c.mu.
func (c *conn2) abandon(st *stream, why code) {
	if st.gone {
		return
	}
	c.need()
	c.out = appendUint32(appendFrameHead(c.out, 4, frameReset, 0, st.id), uint32(why))
	c.closeStream(st, true)
}

// localEnds notes that we have sent all of a stream. Under c.mu.
func (c *conn2) localEnds(st *stream) {
	st.localEnded = true
	if st.remoteEnded {
		c.closeStream(st, false)
	}
}

// closeStream forgets a stream, and ends its handler's context. Under c.mu.
func (c *conn2) closeStream(st *stream, ours bool) {
	if st.gone {
		return
	}
	st.gone = true
	delete(c.streams, st.id)
	c.remember(st.id, ours)
	if !st.remoteEnded {
		c.uploads--
	}
	if !st.localEnded || !st.remoteEnded {
		st.fail(errStreamClosed)
	}
	st.wake()
	c.leave()
}

// remember notes that a stream is closed; ours: by our reset, so that what is still under way is
// ignored. Under c.mu.
func (c *conn2) remember(id uint32, ours bool) {
	if ours {
		id |= 1 << 31
	}
	c.recent[c.ordinal%len(c.recent)] = id
	c.ordinal++
}

// closed says whether a stream was among the last closed, and whether we reset it. Under c.mu.
func (c *conn2) closed(id uint32) (known, ours bool) {
	for _, r := range c.recent {
		if r&maxWindow == id {
			return true, r>>31 == 1
		}
	}
	return false, false
}
