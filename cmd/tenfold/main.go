// Command tenfold carries a three-tier web app from its first user to its ten-millionth.
//
// It parses flags, prints and sets the exit status; everything it knows it asks the daemon through
// package control. The hidden command "house" starts the processes of a house. Begin at root.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The keeper forks only from the main thread (its children's death signals follow that thread),
	// so nothing here may move main off it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
