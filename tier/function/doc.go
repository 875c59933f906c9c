// Package function runs functions: code that is called with an event and answers, as AWS Lambda runs it.
//
// It has two halves. The Tier (tier.go) lives in the daemon: it keeps goals, and says by a Snapshot what is
// to be served. The Invoker (invoker.go) is a process of its own: it starts execution environments, hands
// events to them (package runtimeapi) and answers who calls: the Invoke API of AWS' SDKs (api.go), the front
// door (gateway.go, package event) and the asynchronous queue (async.go). An environment is a unit of the
// keeper that runs an unmodified handler of Lambda. Begin at Invoker.Invoke, then function.acquire.
package function
