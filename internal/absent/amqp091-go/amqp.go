// Package amqp091 stands in for github.com/rabbitmq/amqp091-go, of which versitygw's event sender is never
// made: see docs/adr/0013-versitygw.md. Nothing of it works.
package amqp091

import (
	"errors"
	"time"
)

// Connection is never connected.
type Connection struct{}

// Channel is never open.
type Channel struct{}

// Publishing has the fields that versitygw sets.
type Publishing struct {
	Timestamp   time.Time
	ContentType string
	Body        []byte
	MessageId   string
}

var errAbsent = errors.New("Tenfold is built without RabbitMQ: have bucket events sent by the manifest's `events`")

// Dial refuses.
func Dial(string) (*Connection, error) { return nil, errAbsent }

// Channel refuses.
func (*Connection) Channel() (*Channel, error) { return nil, errAbsent }

// Close does nothing.
func (*Connection) Close() error { return nil }

// Publish refuses.
func (*Channel) Publish(string, string, bool, bool, Publishing) error { return errAbsent }

// Close does nothing.
func (*Channel) Close() error { return nil }
