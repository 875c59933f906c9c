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
