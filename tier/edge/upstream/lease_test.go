package upstream

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"tenfold/internal/directory"
)

// A canary has its share as long as its lease is renewed; then the others have all, until it is again.
func TestALeaseThatIsNotRenewedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(Policy{}, func(string) time.Duration { return time.Millisecond },
			Endpoint{ID: "old", Release: "1", Weight: 0.9}, Endpoint{ID: "new", Release: "2", Weight: 0.1, Leased: true})
		renew := func() { s.Renew(directory.Lease{Tasks: []string{"new", "old", "nobody's"}, Errors: 10}) }
		for range 3 {
			s.load(500, 8*time.Second, nil)
			if share := s.share("new"); share < 0.07 || share > 0.13 {
				t.Errorf("it gets %.3f", share)
			}
			renew()
		}
		time.Sleep(directory.LeaseFor)
		s.load(500, 2*time.Second, nil)
		if s.count["new"] > 0 || !s.Counts()[0].Lapsed {
			t.Errorf("%d requests without a lease", s.count["new"])
		}
		renew()
		s.load(500, 2*time.Second, nil)
		if s.count["new"] == 0 {
			t.Error("renewed, it gets nothing")
		}
		// With nobody else, a task without a lease is better than none.
		time.Sleep(directory.LeaseFor)
		s.Update([]Endpoint{{ID: "new", Release: "2", Weight: 0.1, Leased: true}}, "")
		s.load(100, time.Second, nil)
		if s.count["new"] == 0 {
			t.Error("alone, it gets nothing")
		}
		// One that needs none any more has none.
		s.Update([]Endpoint{{ID: "new", Release: "2", Weight: 1}}, "")
		if s.Counts()[0].Lapsed {
			t.Error("it still needs a lease")
		}
	})
}

// A canary that fails gets no more than it was allowed to, however long nobody looks.
func TestALeaseAllowsSoManyFailures(t *testing.T) {
	answer := func(status int) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(s.Close)
		return s
	}
	old, fresh := answer(200), answer(500)
	s := NewService(Config{Name: "api"})
	t.Cleanup(func() { s.Close() })
	s.Update([]Endpoint{
		{ID: "old", Addr: old.Listener.Addr().String(), Release: "1", Weight: 0.5},
		{ID: "new", Addr: fresh.Listener.Addr().String(), Release: "2", Weight: 0.5, Leased: true},
	}, "")
	send := func() (bad int) {
		for range 200 {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if w.Code != 200 {
				bad++
			}
		}
		return bad
	}
	if bad := send(); bad != firstErrors {
		t.Errorf("%d answers failed, it was allowed %d", bad, firstErrors)
	}
	s.Renew(directory.Lease{Tasks: []string{"new"}, Errors: 3})
	if bad := send(); bad != 3 {
		t.Errorf("%d answers failed, it was allowed 3", bad)
	}
	for _, c := range s.Counts() {
		want := [6]uint64{2: 400 - 13}
		if c.ID == "new" {
			want = [6]uint64{5: 13}
		}
		if fmt.Sprint(c.Class) != fmt.Sprint(want) {
			t.Errorf("%s counts %v, want %v", c.ID, c.Class, want)
		}
	}
}
