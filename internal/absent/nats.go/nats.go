// Package nats stands in for github.com/nats-io/nats.go, of which versitygw's event sender is never made:
// see docs/adr/0013-versitygw.md. Nothing of it works.
package nats

import "errors"

// Conn is never connected.
type Conn struct{}

var errAbsent = errors.New("Tenfold is built without NATS: have bucket events sent by the manifest's `events`")

// Connect refuses.
func Connect(string) (*Conn, error) { return nil, errAbsent }

// Publish refuses.
func (*Conn) Publish(string, []byte) error { return errAbsent }

// Close does nothing.
func (*Conn) Close() {}
