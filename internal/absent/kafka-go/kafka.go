// Package kafka stands in for github.com/segmentio/kafka-go, of which versitygw's event sender is never made:
// see docs/adr/0013-versitygw.md. Nothing of it works.
package kafka

import (
	"context"
	"errors"
	"time"
)

// Writer writes nothing.
type Writer struct{}

// WriterConfig has the fields that versitygw sets.
type WriterConfig struct {
	Brokers      []string
	Topic        string
	Balancer     *LeastBytes
	BatchTimeout time.Duration
}

// LeastBytes is no balancer.
type LeastBytes struct{}

// Message is what would be written.
type Message struct{ Key, Value []byte }

var errAbsent = errors.New("Tenfold is built without Kafka: have bucket events sent by the manifest's `events`")

// NewWriter makes a Writer that refuses.
func NewWriter(WriterConfig) *Writer { return &Writer{} }

// WriteMessages refuses.
func (*Writer) WriteMessages(context.Context, ...Message) error { return errAbsent }

// Close does nothing.
func (*Writer) Close() error { return nil }
