// Package cacheinfo is what is told of a cache, as plain data: the caches' tier fills it in, control hands it
// on. Nothing here does anything. Begin at Cache.
package cacheinfo

import "time"

// Cache is a cache with the servers that hold it.
type Cache struct {
	Version string `json:"version"` // "Redis 7.0.15"
	Size    int64  `json:"size"`    // bytes, of each server
	Evict   string `json:"evict"`
	Epoch   uint64 `json:"epoch"` // counts primaries
	TLS     bool   `json:"tls"`
	// Readers are the addresses for reads; none: reads go where writes go.
	Readers []string `json:"readers,omitempty"`
	Nodes   []Node   `json:"nodes"`
}

// Node is one server.
type Node struct {
	N     int    `json:"n"`
	PID   int    `json:"pid,omitempty"`
	Role  string `json:"role"`  // "primary", "reader"
	State string `json:"state"` // "serving", "following", "copying", "loading", "away", "leaving"
	// Lag is how many bytes a reader is behind; -1: not known.
	Lag    int64    `json:"lag"`
	Memory int64    `json:"memory"` // bytes of data and what holds it
	Addr   []string `json:"addr"`   // where clients reach it
}

// Backup is all data of a cache at a time, that it can be restored to.
type Backup struct {
	Name      string    `json:"name"`
	Begun     time.Time `json:"begun,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Bytes     int64     `json:"bytes"`
	Encrypted bool      `json:"encrypted,omitempty"`
	Fault     string    `json:"fault,omitempty"` // why it cannot be used
}

// Use is what one server was seen to do.
type Use struct {
	Node    int                `json:"node"`
	Role    string             `json:"role"`
	Metrics map[string]float64 `json:"metrics"` // by ElastiCache's names
	Calls   map[string]Calls   `json:"calls"`   // by ElastiCache's families of commands
}

// Calls are commands, and the time that they took.
type Calls struct {
	Calls   float64 `json:"calls"`
	Seconds float64 `json:"seconds"`
}

// Top is what a primary does now.
type Top struct {
	EngineCPU float64            `json:"engineCPU"` // of one processor, in percent
	Metrics   map[string]float64 `json:"metrics"`
	Commands  []Command          `json:"commands"` // by the time that they take
	Slow      []Slow             `json:"slow"`     // the slowest of late
}

// Command is one command of a server.
type Command struct {
	Name   string        `json:"name"`
	Rate   float64       `json:"rate"`  // a second, now
	Busy   float64       `json:"busy"`  // percent of a processor, now
	Calls  float64       `json:"calls"` // since the server started, as all below
	Mean   time.Duration `json:"mean"`
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`
	Failed float64       `json:"failed"`
	Total  time.Duration `json:"total"`
}

// Slow is an entry of a slow log, without the values that it had.
type Slow struct {
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"`
	Command string        `json:"command"`
	Key     string        `json:"key,omitempty"`
	Words   int           `json:"words"`
}

// Keys is what a sample of keys says.
type Keys struct {
	Keys      int64 `json:"keys"` // that there are
	Sampled   int   `json:"sampled"`
	Frequency bool  `json:"frequency"` // the policy counts how often keys are touched; else when
	Big       []Key `json:"big"`
	Hot       []Key `json:"hot"`
	// Worth is what sizes would hit; none: Why says why nobody knows.
	Worth []Worth `json:"worth,omitempty"`
	Why   string  `json:"why,omitempty"`
}

// Key is one of the sample.
type Key struct {
	Name      string        `json:"name"`
	Type      string        `json:"type"`
	Bytes     int64         `json:"bytes"`
	Idle      time.Duration `json:"idle"`      // since it was touched
	Frequency int64         `json:"frequency"` // the engine's logarithmic count
}

// Worth is what a size would hit.
type Worth struct {
	Bytes int64   `json:"bytes"`
	Hit   float64 `json:"hit"`
}
