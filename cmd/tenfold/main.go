// Command tenfold carries a three-tier web app from its first user to its ten-millionth.
//
// It parses flags, prints and sets the exit status; everything it knows it asks the daemon through
// package control. The hidden command "house" starts the processes of a house. Begin at root.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// The keeper and the warden fork only from the main thread: death signals of their children follow it.
// An init function runs there, and locking in one keeps main there too.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "house" {
		runtime.LockOSThread()
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
