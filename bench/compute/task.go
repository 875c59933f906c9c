package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// task is a service: it answers with its version and fails a share of the requests, in percent, or is
// broken from the start.
func task(args []string) {
	version, mood := args[0], args[1]
	fails, _ := strconv.Atoi(mood)
	if mood == "crash" {
		fmt.Fprintln(os.Stderr, "panic: it cannot start")
		os.Exit(3)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if mood == "sick" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Version", version)
		if rand.IntN(100) < fails {
			http.Error(w, "out of luck", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, version)
	})
	s := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go s.ListenAndServe()
	<-ctx.Done()
	s.Shutdown(context.Background())
}
