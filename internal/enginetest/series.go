package enginetest

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"tenfold/internal/engines"
)

// Series finds VictoriaMetrics, for tests that start one through the tier.
func Series(t testing.TB) engines.Engine {
	t.Helper()
	e, err := engines.Series(t.Context())
	if err != nil {
		Lacking(t, err, "apt-get install victoria-metrics")
	}
	return e
}

// RemoteWrite is the body of a request of Prometheus' remote write, as its 1.0 has it: one value of one series, labels
// by name and value in turn. Content-Encoding is snappy, Content-Type application/x-protobuf.
func RemoteWrite(value float64, at time.Time, name string, labels ...string) []byte {
	var series []byte
	for pair := range slices.Chunk(append([]string{"__name__", name}, labels...), 2) {
		series = field(series, 1, append(field(nil, 1, []byte(pair[0])), field(nil, 2, []byte(pair[1]))...))
	}
	sample := double(nil, 1, value)
	sample = binary.AppendUvarint(append(sample, 2<<3), uint64(at.UnixMilli()))
	return snappy(field(nil, 1, field(series, 2, sample)))
}

// OTLP is the body of a request of OTLP's metrics, in protobuf: one value of a gauge with one attribute.
func OTLP(value float64, at time.Time, name, attribute, is string) []byte {
	point := field(nil, 7, append(field(nil, 1, []byte(attribute)), field(nil, 2, field(nil, 1, []byte(is)))...))
	point = fixed(point, 3, uint64(at.UnixNano()))
	point = double(point, 4, value)
	metric := append(field(nil, 1, []byte(name)), field(nil, 5, field(nil, 1, point))...)
	return field(nil, 1, field(nil, 2, field(nil, 2, metric)))
}

// field appends a length-delimited field of protobuf.
func field(b []byte, n int, value []byte) []byte {
	b = binary.AppendUvarint(b, uint64(n)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

func fixed(b []byte, n int, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.AppendUvarint(b, uint64(n)<<3|1), v)
}

func double(b []byte, n int, v float64) []byte { return fixed(b, n, math.Float64bits(v)) }

// snappy is the block format of Snappy, all of it literals.
func snappy(b []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(b)))
	for part := range slices.Chunk(b, 60) {
		out = append(append(out, byte(len(part)-1)<<2), part...)
	}
	return out
}
