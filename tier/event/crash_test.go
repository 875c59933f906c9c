package event_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"tenfold/internal/kv/crashtest"
	"tenfold/tier/event"
)

// TestMain is that process when it is asked to be: its targets are away, and it serves until it is killed.
func TestMain(m *testing.M) {
	dir := crashtest.Dir()
	if dir == "" {
		os.Exit(m.Run())
	}
	x := newTargets()
	x.refuse = func(string) error { return fmt.Errorf("away") }
	h := open(&testing.T{}, dir, x, nil)
	crashtest.Serve(front(h.Store))
}

// Whatever was acknowledged is delivered after kill -9, and what its archive keeps is there.
func TestCrashes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var acked sync.Map
	w := event.Wanted{Name: "shop", Archive: 24 * time.Hour, Rules: []event.WantedRule{{Name: "r", Pattern: `{"source":["shop"]}`, Retries: 185, Age: time.Hour, Targets: []event.WantedTarget{{Queue: "emails"}}}}}
	{
		h := open(t, dir, newTargets(), nil)
		if errs := h.Want(t.Context(), account, []event.Wanted{w}); len(errs) > 0 {
			t.Fatal(errs)
		}
		h.stop()
	}
	for round := range 10 {
		at, cmd := crashtest.Start(t, dir)
		c := client(at, "ALL")
		var wg sync.WaitGroup
		enough := make(chan struct{}, 1000)
		for p := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, p, i)
					out, err := c.PutEvents(context.Background(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{EventBusName: aws.String("shop"), Source: aws.String("shop"), DetailType: aws.String("x"), Detail: aws.String(`{"id":"` + id + `"}`)}}})
					if err != nil || out.FailedEntryCount > 0 {
						return
					}
					acked.Store(id, true)
					select {
					case enough <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 20 + round {
			<-enough
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		wg.Wait()
	}
	x := newTargets()
	h := open(t, dir, x, nil)
	defer h.stop()
	acked.Range(func(id, _ any) bool {
		for { // it comes, or the test times out
			if strings.Contains(fmt.Sprint(x.got("emails")), `{"id":"`+id.(string)+`"}`) {
				return true
			}
			<-x.news
		}
	})
	out := do(t, h.Store, "DescribeArchive", m{"ArchiveName": "shop-archive"})
	n := 0
	acked.Range(func(any, any) bool { n++; return true })
	if out["EventCount"].(float64) < float64(n) {
		t.Errorf("%v of %d events are archived", out["EventCount"], n)
	}
}
