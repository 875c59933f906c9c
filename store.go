package tenfold

import "time"

// Queue is a queue of messages, as SQS has it.
type Queue struct {
	Timeout time.Duration `json:"timeout"` // invisible while worked on
	Keep    time.Duration `json:"keep"`
	Delay   time.Duration `json:"delay,omitempty"`
	// Retries is how often a message is given out again before it goes to Dead, the name of another queue.
	Retries int   `json:"retries"`
	Dead    Name  `json:"dead,omitempty"` // "": none, it is given out until Keep ends
	FIFO    *FIFO `json:"fifo,omitempty"`
	Line    int   `json:"line,omitempty"`
}

// FIFO says how an ordered queue works.
type FIFO struct {
	Content bool `json:"content,omitempty"` // two messages of the same content within 5 minutes are one
	Group   bool `json:"group,omitempty"`   // deduplication and throughput are by message group
}
