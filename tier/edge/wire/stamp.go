package wire

import (
	"net/http"
	"sync/atomic"
	"time"
)

// stamp is the Date of one second, as both protocols send it.
type stamp struct {
	unix  int64
	text  string // IMF-fixdate
	line  []byte // HTTP/1.1 field line with CRLF
	field []byte // HPACK
}

// dates makes one stamp a second, whoever asks first: no goroutine ticks.
type dates struct{ last atomic.Pointer[stamp] }

func (d *dates) at(now time.Time) *stamp {
	unix := now.Unix()
	if s := d.last.Load(); s != nil && s.unix == unix {
		return s
	}
	s := &stamp{unix: unix, text: now.UTC().Format(http.TimeFormat)}
	s.line = []byte("Date: " + s.text + "\r\n")
	s.field = appendIndexed(nil, nameDate, s.text)
	d.last.Store(s)
	return s
}

// age is the value of a hit's Age field at a second of Unix time.
func (h *Hit) age(unix int64) int64 { return max(0, unix-h.Born) }
