// Package statsd stands in for github.com/DataDog/datadog-go/v5/statsd, of which versitygw's publisher is
// never made: see docs/adr/0013-versitygw.md. Nothing of it works.
package statsd

import "errors"

// Client counts nothing.
type Client struct{}

// Option changes nothing.
type Option struct{}

// New refuses.
func New(string, ...Option) (*Client, error) {
	return nil, errors.New("Tenfold is built without DogStatsD: see tenfold metrics")
}

// WithMaxMessagesPerPayload is no option.
func WithMaxMessagesPerPayload(int) Option { return Option{} }

// WithNamespace is no option.
func WithNamespace(string) Option { return Option{} }

// WithTags is no option.
func WithTags([]string) Option { return Option{} }

// Close does nothing.
func (*Client) Close() error { return nil }

// Count does nothing.
func (*Client) Count(string, int64, []string, float64) error { return nil }
