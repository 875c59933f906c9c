package control

import (
	"context"

	"tenfold"
)

// Watch shows each event of a deployment's environment, in order, until wait says what became of it; all that led
// there was shown then. wait's error is given as it is; that an event could not be shown changes no outcome.
func Watch(ctx context.Context, api API, d Deployed, wait func() (Revision, error), show func(tenfold.Event) error) (Revision, error) {
	events, stop := context.WithCancel(ctx)
	defer stop()
	last := d.After
	each := func(e tenfold.Event) error {
		last = e.Seq
		return show(e)
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		api.Events(events, EventQuery{Env: d.Env, After: d.After, Follow: true}, each)
	}()
	rev, err := wait()
	stop()
	<-shown
	if err == nil {
		// What was stored with the decision, or was still on its way here.
		_ = api.Events(ctx, EventQuery{Env: d.Env, After: last}, each)
	}
	return rev, err
}
