package upstream

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What a request starts ends with it, however it ends: an early answer, a client that goes away in the
// middle of an upload, a hedge, a tunnel that is cut.
func TestNothingOutlivesItsRequest(t *testing.T) {
	before := runtime.NumGoroutine()
	func() {
		early := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/early":
				w.Header().Set("Connection", "close")
				w.WriteHeader(413)
			case "/slow":
				<-time.After(20 * time.Millisecond)
			default:
				io.Copy(io.Discard, r.Body)
			}
		}))
		defer early.Close()
		s := NewService(Config{Name: "api", Policy: Policy{Hedge: Hedge{After: time.Millisecond}, Retry: Retry{Least: 1000}}})
		second := endpointAt(early.Listener.Addr())
		second.ID = "second"
		s.Update([]Endpoint{endpointAt(early.Listener.Addr()), second}, "")
		srv := httptest.NewUnstartedServer(s)
		srv.Config.ErrorLog = quiet
		srv.Start()
		defer srv.Close()
		defer s.Close()
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		for range 5 {
			for _, path := range []string{"/early", "/slow", "/"} {
				for _, method := range []string{"GET", "POST"} {
					var body io.Reader
					if method == "POST" {
						body = strings.NewReader(strings.Repeat("x", 300_000))
					}
					req, _ := http.NewRequest(method, srv.URL+path, body)
					if res, err := tr.RoundTrip(req); err == nil {
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
				}
			}
			c, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nhello")
			eventually(t, "in flight", func() bool { return s.Counts()[0].InFlight+s.Counts()[1].InFlight > 0 })
			c.Close()
		}
		eventually(t, "nothing in flight", func() bool { return s.Counts()[0].InFlight+s.Counts()[1].InFlight == 0 })
	}()
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}
