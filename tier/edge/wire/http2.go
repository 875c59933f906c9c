package wire

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// conn2 is one HTTP/2 connection. One goroutine reads and answers what Hits finds; handlers run in
// goroutines of their own. Whoever has something to send puts it into out under mu and flushes:
// the first writes, the others leave it to the writer. So what many streams say at once leaves in
// one write, and no goroutine has to be woken for it.
type conn2 struct {
	*link

	// Owned by the reading goroutine.
	in      *buffer
	r, w    int
	dec     *hpack.Decoder
	req     Request
	list    headerList
	stored  Hit // room for Hits
	block   pendingBlock
	abuse   bucket
	pings   bucket
	now     time.Time
	settled bool // the client's first SETTINGS has come
	framed  bool // a whole frame was read since the last wait

	mu        sync.Mutex // guards what follows, and the streams
	room      sync.Cond  // out was written
	out       []byte
	outBuf    *buffer
	writing   bool
	err       error // of writing: the connection is dead
	streams   map[uint32]*stream
	running   int // handlers, those of reset streams included
	lastID    uint32
	recent    [32]uint32 // streams closed last, by ordinal; reset by us: with the top bit
	ordinal   int
	sendWin   int64
	peerInit  int64
	first     *stream // queue of streams that have data and window
	last      *stream
	recvLeft  int64
	recvOwed  int64
	uploads   int // streams whose body is under way
	goingAway int // 1: said that we will; 2: said with which stream we end
	saidAt    int64
	heard     bool // the client acknowledged a PING that came after
	closeNow  bool
}

// serve2 runs an HTTP/2 connection to its end; rest was read already.
func serve2(l *link, rest []byte) {
	c := &conn2{link: l, streams: map[uint32]*stream{}, sendWin: defaultWindow, peerInit: defaultWindow, recvLeft: connWindow}
	c.room.L = &c.mu
	c.req = Request{Major: 2, Secure: l.tls != nil, Remote: l.remote, TLS: l.tls}
	c.dec = hpack.NewDecoder(4096, c.field)
	c.dec.SetMaxStringLength(l.srv.cfg.MaxHeader)
	c.in = getBuffer(frameBuffer)
	c.w = copy(c.in.b, rest)
	l.two.Store(c)
	err := c.serve()
	c.mu.Lock()
	var ce *connError
	if errors.As(err, &ce) {
		if l.srv.cfg.Refused != nil {
			l.srv.cfg.Refused(l.remote, 400, ce.why)
		}
		c.goAway(c.lastID, ce.code, ce.why)
	} else if errors.Is(err, errSlow) || c.closeNow {
		c.goAway(c.lastID, codeNone, "")
	}
	for c.writing && c.err == nil {
		c.room.Wait()
	}
	c.flushAll()
	if c.err == nil {
		c.err = errors.New("the connection is closed")
	}
	for _, st := range c.streams {
		c.closeStream(st, false)
	}
	linger := ce != nil || c.closeNow
	c.mu.Unlock()
	if c.in != nil {
		c.in.free()
	}
	c.two.Store(nil)
	c.end(linger)
}

// serve reads frames until the connection ends.
func (c *conn2) serve() error {
	c.mu.Lock()
	c.greet()
	c.mu.Unlock()
	if err := c.readPreface(); err != nil {
		return err
	}
	if c.srv.draining.Load() {
		c.drain()
	}
	for {
		c.now = time.Now()
		for c.w-c.r >= frameHead {
			h := c.in.b[c.r : c.r+frameHead]
			n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
			if n > frameLimit {
				return &connError{codeSize, "a frame is too long"}
			}
			if c.w-c.r < frameHead+n {
				break
			}
			p := c.in.b[c.r+frameHead : c.r+frameHead+n]
			c.r += frameHead + n
			c.framed = true
			err := c.frame(h[3], h[4], binary.BigEndian.Uint32(h[5:])&maxWindow, p)
			if se, ok := err.(streamError); ok {
				err = c.resetStream(se)
			}
			if err != nil {
				return err
			}
		}
		if err := c.settle(); err != nil {
			return err
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// greet queues our SETTINGS and the connection's window.
func (c *conn2) greet() {
	c.need()
	n := 4
	if c.srv.cfg.ExtendedConnect {
		n++
	}
	o := appendFrameHead(c.out, 6*n, frameSettings, 0, 0)
	o = appendSetting(o, settingStreams, uint32(c.srv.cfg.MaxStreams))
	o = appendSetting(o, settingWindow, streamWindow)
	o = appendSetting(o, settingHeaderList, uint32(c.srv.cfg.MaxHeader))
	o = appendSetting(o, settingFrame, frameLimit)
	if c.srv.cfg.ExtendedConnect {
		o = appendSetting(o, settingConnect, 1)
	}
	o = appendFrameHead(o, 4, frameWindow, 0, 0)
	c.out = appendUint32(o, connWindow-defaultWindow)
	c.flush()
}

func (c *conn2) readPreface() error {
	c.enter(phaseHead, time.Now())
	for c.w < len(preface) {
		n, err := c.read(c.in.b[c.w:])
		if n == 0 && err != nil && !errors.Is(err, errNudged) {
			return err
		}
		c.w += n
		if k := min(c.w, len(preface)); string(c.in.b[:k]) != preface[:k] {
			return &connError{codeProtocol, "no preface"}
		}
	}
	c.r = len(preface)
	return nil
}

// settle sends what the frames just read gave to send, and waits when the client does not take it.
func (c *conn2) settle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	for len(c.out) > unsentLimit && c.err == nil {
		c.room.Wait()
	}
	if c.closeNow || c.finished() {
		c.closeNow = true
		return errSlow
	}
	return c.err
}

// finished says that a drain has nothing more to wait for. Under c.mu.
func (c *conn2) finished() bool {
	return c.goingAway == 2 && len(c.streams) == 0 && c.running == 0
}

// fill reads more. A connection without streams that stays silent gives its buffer back.
func (c *conn2) fill() error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if len(c.in.b)-c.w < frameHead+frameLimit {
		c.w = copy(c.in.b, c.in.b[c.r:c.w])
		c.r = 0
	}
	c.mu.Lock()
	busy := len(c.streams) > 0 || c.running > 0
	c.mu.Unlock()
	phase := phaseIdle
	switch {
	case c.w > 0 || c.block.open:
		phase = phaseHead
	case busy:
		phase = phaseBusy
	}
	if phase != phaseHead || c.framed || c.phase.Load()&7 != phaseHead {
		c.enter(phase, c.now)
	}
	c.framed = false
	c.held.Store(phase == phaseIdle)
	n, err := c.read(c.in.b[c.w:])
	c.w += n
	if n > 0 || err == nil {
		return nil
	}
	if !errors.Is(err, errNudged) {
		return err
	}
	if c.w > 0 || phase != phaseIdle {
		return nil
	}
	c.in.free()
	c.in = nil
	var first [1]byte
	for errors.Is(err, errNudged) {
		n, err = c.read(first[:])
	}
	c.in = getBuffer(frameBuffer)
	c.in.b[0] = first[0]
	c.w = n
	if n == 0 {
		return err
	}
	return nil
}

// frame handles one frame (RFC 9113, section 6).
func (c *conn2) frame(kind, flags byte, id uint32, p []byte) error {
	if c.block.open && (kind != frameContinuation || id != c.block.id) {
		return &connError{codeProtocol, "a header block is interrupted"}
	}
	if !c.settled {
		if kind != frameSettings || flags&flagAck != 0 {
			return &connError{codeProtocol, "the first frame is not SETTINGS"}
		}
		c.settled = true
	}
	switch kind {
	case frameHeaders:
		return c.headersFrame(flags, id, p)
	case frameData:
		return c.dataFrame(flags, id, p)
	case frameWindow:
		return c.windowFrame(id, p)
	case frameContinuation:
		return c.continuationFrame(flags, id, p)
	case framePriority:
		switch {
		case id == 0:
			return &connError{codeProtocol, "PRIORITY without a stream"}
		case len(p) != 5:
			return streamError{id, codeSize}
		case binary.BigEndian.Uint32(p)&maxWindow == id:
			return streamError{id, codeProtocol}
		}
		return c.spend(1)
	case frameReset:
		return c.resetFrame(id, p)
	case frameSettings:
		return c.settingsFrame(flags, id, p)
	case framePing:
		return c.pingFrame(flags, id, p)
	case framePush:
		return &connError{codeProtocol, "PUSH_PROMISE from a client"}
	case frameGoAway:
		if id != 0 {
			return &connError{codeProtocol, "GOAWAY on a stream"}
		}
		if len(p) < 8 {
			return &connError{codeSize, "a short GOAWAY"}
		}
		return nil // streams under way are still answered
	}
	return c.spend(1)
}

// spend holds frames that are cheap to send and cost us something to an allowance: 2,000 at once,
// 200 a second.
func (c *conn2) spend(n float64) error {
	if !c.abuse.take(n, 2000, 200, c.now) {
		return &connError{codeCalm, "too many control frames or resets"}
	}
	return nil
}

func (c *conn2) settingsFrame(flags byte, id uint32, p []byte) error {
	switch {
	case id != 0:
		return &connError{codeProtocol, "SETTINGS on a stream"}
	case flags&flagAck != 0:
		if len(p) != 0 {
			return &connError{codeSize, "SETTINGS: an acknowledgement with a payload"}
		}
		return nil
	case len(p)%6 != 0:
		return &connError{codeSize, "SETTINGS of an odd length"}
	}
	if err := c.spend(10); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; len(p) > 0; p = p[6:] {
		v := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case settingPush:
			if v > 1 {
				return &connError{codeProtocol, "SETTINGS_ENABLE_PUSH is neither 0 nor 1"}
			}
		case settingWindow:
			if v > maxWindow {
				return &connError{codeFlow, "SETTINGS_INITIAL_WINDOW_SIZE is too large"}
			}
			if err := c.shift(int64(v) - c.peerInit); err != nil {
				return err
			}
			c.peerInit = int64(v)
		case settingFrame:
			if v < 16384 || v > 1<<24-1 {
				return &connError{codeProtocol, "SETTINGS_MAX_FRAME_SIZE is out of bounds"}
			}
		}
	}
	c.need()
	c.out = appendFrameHead(c.out, 0, frameSettings, flagAck, 0)
	return nil
}

// shift changes the windows of all streams (RFC 9113, section 6.9.2). Under c.mu.
func (c *conn2) shift(by int64) error {
	for _, st := range c.streams {
		if st.sendWin += by; st.sendWin > maxWindow {
			return &connError{codeFlow, "a window is too large"}
		}
		c.queue(st)
	}
	return nil
}

func (c *conn2) pingFrame(flags byte, id uint32, p []byte) error {
	switch {
	case id != 0:
		return &connError{codeProtocol, "PING on a stream"}
	case len(p) != 8:
		return &connError{codeSize, "PING of a wrong length"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if flags&flagAck != 0 {
		if c.goingAway == 1 && binary.BigEndian.Uint64(p) == drainCookie {
			c.heard = true
		}
		return nil
	}
	// gRPC measures with them for each round trip, so many are good.
	if !c.pings.take(1, 20_000, 20_000, c.now) {
		return &connError{codeCalm, "too many PINGs"}
	}
	c.need()
	c.out = append(appendFrameHead(c.out, 8, framePing, flagAck, 0), p...)
	return nil
}

// drain says that the connection will go away; half a second after that, when the client has heard
// it, or after a second, depart says which stream was the last. Requests that were under way
// meanwhile are answered: a client may acknowledge on one thread what another has not noticed.
func (c *conn2) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goingAway > 0 {
		return
	}
	c.goingAway, c.saidAt = 1, time.Now().UnixMilli()
	c.need()
	c.goAway(maxWindow, codeNone, "")
	c.out = appendFrameHead(c.out, 8, framePing, 0, 0)
	c.out = binary.BigEndian.AppendUint64(c.out, drainCookie)
	c.flushAside()
}

// depart sends the last GOAWAY. Under c.mu.
func (c *conn2) depart() {
	c.goingAway = 2
	c.goAway(c.lastID, codeNone, "")
	c.flushAside()
	c.leave()
}

// leave wakes the reader of a connection whose drain has nothing more to wait for. Under c.mu.
func (c *conn2) leave() {
	if c.finished() {
		c.closeNow = true
		c.interrupt()
	}
}

// goAway queues a GOAWAY. Under c.mu.
func (c *conn2) goAway(last uint32, why code, debug string) {
	c.need()
	c.out = appendFrameHead(c.out, 8+len(debug), frameGoAway, 0, 0)
	c.out = appendUint32(c.out, last)
	c.out = appendUint32(c.out, uint32(why))
	c.out = append(c.out, debug...)
}

// sweep holds streams to their limits.
func (c *conn2) sweep(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := now - c.saidAt; c.goingAway == 1 && (d > 1000 || c.heard && d > 500) {
		c.depart()
	}
	stall, rate := c.srv.cfg.WriteTimeout.Milliseconds(), c.srv.cfg.BodyRate
	for _, st := range c.streams {
		switch {
		case len(st.pend) == 0:
			st.stalled = 0
		case st.stalled == 0, st.stalledAt != st.sent:
			st.stalled, st.stalledAt = now, st.sent
		case now-st.stalled > stall:
			c.abandon(st, codeCancel)
			continue
		}
		// A stream without a declared length may be a conversation, which may be silent.
		if st.declared > 0 && !st.remoteEnded && st.pace.tooSlow(now, rate) {
			st.fail(errSlow)
			c.abandon(st, codeCancel)
		}
	}
	c.flushAside()
}
