package queue_test

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// One tenant with a long backlog, whose messages take long, does not keep the others waiting; alone it is served as
// ever. It holds after a restart too.
func TestQuietGroupsGoFirst(t *testing.T) {
	c := &clock{}
	dir := t.TempDir()
	s, stop := open(t, dir, c)
	srv := httptest.NewServer(front(s))
	h := &harness{t, srv.URL, client(srv.URL, "ALL"), c, s}
	u := h.create("jobs", map[string]string{"VisibilityTimeout": "600"})
	for n := range 60 {
		h.send(u, fmt.Sprint("big", n), "big", "")
	}
	take := func(count int32) (all []types.Message) {
		t.Helper()
		for count > 0 {
			got := h.receive(u, min(10, count))
			all, count = append(all, got...), count-int32(len(got))
		}
		return all
	}
	flying := take(30)
	if *flying[0].Body != "big0" || *flying[29].Body != "big29" {
		t.Fatal(bodies(flying))
	}
	h.send(u, "small0", "small", "")
	h.send(u, "none", "", "")
	h.send(u, "other0", "other", "")
	if b := s.Backlogs(account)["jobs"]; b.NoisyGroups != 1 || b.QuietVisible != 2 || b.Visible != 33 {
		t.Errorf("%+v", b)
	}
	srv.Close()
	stop()
	s, stop = open(t, dir, c)
	defer func() { stop() }()
	srv = httptest.NewServer(front(s))
	defer func() { srv.Close() }()
	h.c, h.s = client(srv.URL, "ALL"), s
	if got := bodies(take(5)); got != "small0 none other0 big30 big31" {
		t.Error(got)
	}
	for n := range 12 {
		h.send(u, fmt.Sprint("small", n+1), "small", "")
	}
	// small becomes noisy itself, less than big.
	if got := bodies(take(12)); got != "small1 small2 small3 small4 small5 small6 small7 small8 small9 small10 small11 small12" {
		t.Error(got)
	}
	for _, m := range flying {
		h.delete(u, m)
	}
	h.send(u, "small13", "small", "")
	if got := bodies(take(2)); got != "big32 big33" {
		t.Error("big has less in flight than small now:", got)
	}
	// What is seen again is so in its place, and its last handle deletes it still.
	c.move(11 * time.Minute)
	again := take(1)
	if got := bodies(again); got != "big30" {
		t.Error(got)
	}
	c.move(11 * time.Minute)
	h.delete(u, again[0])
	if got := bodies(take(1)); got != "big31" {
		t.Error(got)
	}
}
