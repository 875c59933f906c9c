package wire

import (
	"context"
	"testing"
	"testing/synctest"
)

type (
	outer struct{}
	mine  struct{}
	other struct{}
)

func TestRequestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, end := context.WithCancel(context.WithValue(context.Background(), outer{}, 1))
		c := &requestContext{parent: parent}

		c.Keep(mine{}, 2)
		if c.Value(outer{}) != 1 || c.Value(mine{}) != 2 || c.Value(other{}) != nil || c.Err() != nil {
			t.Error("values")
		}
		child, stop := context.WithCancel(c)
		defer stop()
		c.cancel()
		<-c.Done()
		<-child.Done()
		if c.Err() != context.Canceled || child.Err() != context.Canceled {
			t.Error(c.Err(), child.Err())
		}
		c.cancel() // again is harmless
		// Ended before anybody asked.
		quiet := &requestContext{parent: parent}
		quiet.cancel()
		<-quiet.Done()
		// Ended with the connection, asked before and after.
		before, after := &requestContext{parent: parent}, &requestContext{parent: parent}
		waiting := before.Done()
		end()
		<-waiting
		<-after.Done()
		if before.Err() != context.Canceled || after.Err() != context.Canceled {
			t.Error(before.Err(), after.Err())
		}
		late := &requestContext{parent: parent}
		if late.Err() == nil {
			t.Error("the connection is gone")
		}
		<-late.Done()
	})
}
