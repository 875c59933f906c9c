package wire

import (
	"net/http"
	"testing"
)

func TestAltSvcIsSaidOnceAConnectionOverTLS(t *testing.T) {
	speaks(t, func(t *testing.T, secure, two bool) {
		hits := stored{}
		s := start(t, Config{
			Hits: hits, AltSvc: `h3=":443"; ma=86400`,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }),
		}, secure, two)
		hits[s.addr+"/hit"] = hello("stored")
		for _, first := range []string{"/hit", "/miss"} {
			s.client.CloseIdleConnections()
			for i, path := range []string{first, "/hit", "/miss"} {
				res, err := s.client.Get(s.url(path))
				body(t, res, err)
				want := ""
				if secure && i == 0 {
					want = `h3=":443"; ma=86400`
				}
				if got := res.Header.Get("Alt-Svc"); got != want {
					t.Errorf("answer %d, %s after %s: Alt-Svc %q, want %q", i, path, first, got, want)
				}
			}
		}
	})
}
