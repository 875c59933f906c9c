//go:build scenario

package pgproxy

import "testing"

func TestNoAnswerOf100000IsOlderThanPromised(t *testing.T) { oracle(t, 100_000) }
