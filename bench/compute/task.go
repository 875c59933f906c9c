package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
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
	boot, _ := time.ParseDuration(os.Getenv("BOOT"))
	takes, _ := time.ParseDuration(os.Getenv("TAKES"))
	slots, _ := strconv.Atoi(os.Getenv("SLOTS"))
	places := make(chan struct{}, max(1, slots))
	time.Sleep(boot)
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", greet)
	mux.HandleFunc("POST /offend/{what}", offend)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if mood == "sick" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if takes > 0 { // as the simulation has it: so many at once, each for so long, and who gives up leaves the queue
			select {
			case places <- struct{}{}:
			case <-r.Context().Done():
				return
			}
			time.Sleep(takes)
			<-places
		}
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

// greet switches to WebSocket and answers whatever it gets with a frame.
func greet(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	b := make([]byte, 1024)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		if _, err := io.WriteString(c, greeting); err != nil {
			return
		}
	}
}

// greeting is a frame of text.
const greeting = "\x81\x05hello"
