package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// load is what a load generator saw of one server.
type load struct {
	answers float64 // in all
	rate    float64 // answers a second
	bad     float64 // no answer, or not 2xx
	p99     float64 // ms; 0 where it is not measured
}

// connections that every load keeps.
const connections = 64

// wrk loads a URL over HTTP/1.1, each connection with one request after the other.
func wrk(ctx context.Context, url string, d time.Duration, extra ...string) (load, error) {
	args := append([]string{"-t1", "-c" + strconv.Itoa(connections), "-d" + seconds(d)}, extra...)
	out, err := onLoad(ctx, "wrk", append(args, url)...)
	if err != nil {
		return load{}, err
	}
	return readWrk(out)
}

// h2load loads a URL over HTTP/2 with that many streams a connection.
func h2load(ctx context.Context, url string, d time.Duration, streams int) (load, error) {
	out, err := onLoad(ctx, "h2load", "-t1", "-c"+strconv.Itoa(connections), "-m"+strconv.Itoa(streams), "-D"+strings.TrimSuffix(seconds(d), "s"), url)
	if err != nil {
		return load{}, err
	}
	return readH2load(out)
}

func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(d.Round(time.Second)/time.Second))) + "s"
}

// onLoad runs a command on the load's processor.
func onLoad(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "taskset", append([]string{"-c", strconv.Itoa(loadCPU), name}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", name, err, out)
	}
	return string(out), nil
}

var (
	wrkAnswers  = regexp.MustCompile(`(?m)^\s*(\d+) requests in `)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec:\s*([\d.]+)`)
	wrkStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkSocket   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	h2Rate      = regexp.MustCompile(`(?m)^finished in [^,]+, ([\d.]+) req/s`)
	h2Answers   = regexp.MustCompile(`(?m)^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
	h2Succeeded = regexp.MustCompile(`(\d+) failed, (\d+) errored, (\d+) timeout`)
)

// readWrk reads what wrk prints.
func readWrk(out string) (load, error) {
	answers, rate := numbers(wrkAnswers, out), numbers(wrkRate, out)
	if len(answers) == 0 || len(rate) == 0 {
		return load{}, errors.New("read wrk: unknown form: " + out)
	}
	return load{answers: answers[0], rate: rate[0], bad: sum(numbers(wrkStatus, out)) + sum(numbers(wrkSocket, out))}, nil
}

// readH2load reads what h2load prints.
func readH2load(out string) (load, error) {
	rate, answers := numbers(h2Rate, out), numbers(h2Answers, out)
	if len(rate) == 0 || len(answers) == 0 {
		return load{}, errors.New("read h2load: unknown form: " + out)
	}
	return load{answers: answers[0], rate: rate[0], bad: sum(answers[1:]) + sum(numbers(h2Succeeded, out))}, nil
}

// numbers are the groups of the first match.
func numbers(re *regexp.Regexp, s string) []float64 {
	m := re.FindStringSubmatch(s)
	if m == nil {
		return nil
	}
	var out []float64
	for _, g := range m[1:] {
		v, _ := strconv.ParseFloat(g, 64)
		out = append(out, v)
	}
	return out
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}
