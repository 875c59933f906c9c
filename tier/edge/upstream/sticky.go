package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// cookieName is the cookie that keeps a client at a task of this service.
func (s *Service) cookieName() string { return "tenfold_task_" + cookieSafe(s.name) }

func cookieSafe(name string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x80 && token[c] {
			return c
		}
		return '_'
	}, name)
}

// mark names a task to its clients without telling them its id.
func (s *Service) mark(id string) string {
	sum := sha256.Sum256([]byte(s.name + "\x00" + id))
	return hex.EncodeToString(sum[:8])
}

// sticks gives the task that a client's cookie names, when it takes requests.
func (s *Service) sticks(p *Policy, r *http.Request) *endpoint {
	if p.Sticky <= 0 {
		return nil
	}
	c, err := r.Cookie(s.cookieName())
	if err != nil {
		return nil
	}
	for _, r := range s.set.Load().releases {
		for _, e := range r.tasks {
			if s.mark(e.id) == c.Value {
				return e
			}
		}
	}
	return nil
}

// stick gives the client a cookie that names the task which answered, unless it has that one.
func (s *Service) stick(p *Policy, w http.ResponseWriter, r *http.Request, id string) {
	if p.Sticky <= 0 {
		return
	}
	name, value := s.cookieName(), s.mark(id)
	if c, err := r.Cookie(name); err == nil && c.Value == value {
		return
	}
	cookie := name + "=" + value + "; Path=/; Max-Age=" + strconv.Itoa(int(p.Sticky.Seconds())) + "; HttpOnly; SameSite=Lax"
	if r.TLS != nil {
		cookie += "; Secure"
	}
	w.Header().Add("Set-Cookie", cookie)
}
