package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
)

// offences are the ways in which a task takes what it can get of its machine, each for as long as its process lives.
var offences = map[string]func() error{
	"eat": func() error {
		for range 512 { // 4 GB
			held = append(held, bytes.Repeat([]byte{1}, 8<<20))
		}
		select {}
	},
	"fork": func() error {
		for refused := 0; refused < 1000; {
			if exec.Command("sleep", "120").Start() != nil {
				refused++
			}
		}
		select {}
	},
	"spin": func() error {
		for range 4 {
			if err := exec.Command("sh", "-c", "while :; do :; done").Start(); err != nil {
				return err
			}
		}
		select {}
	},
	"flood": func() error {
		line := bytes.Repeat([]byte("what nobody wants to read\n"), 1000)
		for {
			if _, err := os.Stdout.Write(line); err != nil {
				return err
			}
		}
	},
	"fill": func() error {
		f, err := os.CreateTemp(".", "filled")
		if err != nil {
			return err
		}
		os.Remove(f.Name()) // what is written goes with the process
		for at := int64(0); ; at = (at + 1) % 2048 {
			if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 1<<20), at<<20); err != nil {
				return err
			}
		}
	},
	"leak": func() error {
		for {
			f, err := os.Open(os.Args[0])
			if err != nil {
				return err
			}
			open = append(open, f)
		}
	},
}

var (
	held [][]byte
	open []*os.File
)

// offend begins an offence and answers at once. "end" ends them all, with the process.
func offend(w http.ResponseWriter, r *http.Request) {
	what := r.PathValue("what")
	if what == "end" {
		os.Exit(0)
	}
	f, ok := offences[what]
	if !ok {
		http.NotFound(w, r)
		return
	}
	go func() {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, what, err)
		}
	}()
}
