package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tenfold/internal/measure"
)

const sendConns = 64

func (b *bench) queues() error {
	us, err := b.ours("AWS_ENDPOINT_URL_SQS")
	if err != nil {
		return err
	}
	conf := filepath.Join(b.dir, "nats.conf")
	if err := os.WriteFile(conf, []byte("jetstream { store_dir: \""+filepath.Join(b.dir, "jetstream")+"\", sync_interval: always }\n"), 0o644); err != nil {
		return err
	}
	cmd, at, err := b.peer("nats-server", func(port string) []string { return []string{"-a", "127.0.0.1", "-p", port, "-c", conf} })
	if err != nil {
		return err
	}
	defer end(cmd)
	body := strings.Repeat("x", 200)
	one, err := us.request("sqs", "AmazonSQS.SendMessage", fmt.Sprintf(`{"QueueUrl":%q,"MessageBody":%q}`, b.env["JOBS_QUEUE_URL"], body))
	if err != nil {
		return err
	}
	f := measure.Figure{Name: "SendMessage, 64 clients", Unit: "op/s", Asked: measure.AtLeast(5)}
	for range b.rounds {
		n, err := us.load(sendConns, b.each, [][]byte{one})
		if err != nil {
			return err
		}
		f.Ours = append(f.Ours, n.rate)
		if cmd != nil {
			n, err := publish(at, sendConns, b.each, body)
			if err != nil {
				return fmt.Errorf("nats-server: %w", err)
			}
			f.Peer = append(f.Peer, n)
		}
	}
	b.report.Add(f)
	purge, err := us.request("sqs", "AmazonSQS.PurgeQueue", fmt.Sprintf(`{"QueueUrl":%q}`, b.env["JOBS_QUEUE_URL"]))
	if err != nil {
		return err
	}
	c, err := us.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if status, out, err := c.ask(purge); err != nil || status != http.StatusOK {
		return fmt.Errorf("purge: %d %s %w", status, out, err)
	}
	return b.backlog(us, body)
}

// publish sends messages to a stream, each when the last is on disk, in NATS' own protocol.
func publish(at string, conns int, d time.Duration, body string) (float64, error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, conns)
	begun := time.Now()
	for i := range conns {
		wg.Go(func() {
			errs[i] = func() error {
				c, err := net.Dial("tcp", at)
				if err != nil {
					return err
				}
				defer c.Close()
				r := bufio.NewReader(c)
				answer := func() (string, error) {
					for {
						line, err := r.ReadString('\n')
						switch {
						case err != nil:
							return "", err
						case strings.HasPrefix(line, "PING"):
							if _, err := c.Write([]byte("PONG\r\n")); err != nil {
								return "", err
							}
						case strings.HasPrefix(line, "MSG"):
							return r.ReadString('\n')
						case strings.HasPrefix(line, "-ERR"):
							return "", fmt.Errorf("%s", line)
						}
					}
				}
				inbox := fmt.Sprintf("_INBOX.%d", i)
				fmt.Fprintf(c, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB %s 1\r\n", inbox)
				stream := `{"name":"JOBS","subjects":["jobs"],"storage":"file","retention":"workqueue"}`
				fmt.Fprintf(c, "PUB $JS.API.STREAM.CREATE.JOBS %s %d\r\n%s\r\n", inbox, len(stream), stream)
				if _, err := answer(); err != nil {
					return err
				}
				pub := fmt.Appendf(nil, "PUB jobs %s %d\r\n%s\r\n", inbox, len(body), body)
				for time.Since(begun) < d {
					if _, err := c.Write(pub); err != nil {
						return err
					}
					a, err := answer()
					if err != nil {
						return err
					}
					if !strings.Contains(a, `"seq"`) {
						return fmt.Errorf("%s", a)
					}
					n.Add(1)
				}
				return nil
			}()
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(n.Load()) / time.Since(begun).Seconds(), nil
}

// backlog lets a million messages wait, then takes them out, ten at a time.
func (b *bench) backlog(us party, body string) error {
	queue := b.env["JOBS_QUEUE_URL"]
	var entries []string
	for i := range 10 {
		entries = append(entries, fmt.Sprintf(`{"Id":"%d","MessageBody":%q}`, i, body))
	}
	ten, err := us.request("sqs", "AmazonSQS.SendMessageBatch", fmt.Sprintf(`{"QueueUrl":%q,"Entries":[%s]}`, queue, strings.Join(entries, ",")))
	if err != nil {
		return err
	}
	each := func(workers int, do func(c *conn) (more bool, err error)) error {
		var wg sync.WaitGroup
		errs := make([]error, workers)
		for i := range workers {
			wg.Go(func() {
				c, err := us.dial()
				for more := true; err == nil && more; {
					more, err = do(c)
				}
				errs[i] = err
			})
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	before, err := measure.PSS(b.store())
	if err != nil {
		return err
	}
	var sent atomic.Int64
	if err := each(16, func(c *conn) (bool, error) {
		if sent.Add(10) > int64(b.messages) {
			return false, nil
		}
		status, out, err := c.ask(ten)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %.300s", status, out)
		}
		return true, err
	}); err != nil {
		return err
	}
	full, err := measure.PSS(b.store())
	if err != nil {
		return err
	}
	receive, err := us.request("sqs", "AmazonSQS.ReceiveMessage", fmt.Sprintf(`{"QueueUrl":%q,"MaxNumberOfMessages":10}`, queue))
	if err != nil {
		return err
	}
	var taken, empty atomic.Int64
	var mu sync.Mutex
	var tenths []time.Time
	tenths = append(tenths, time.Now())
	if err := each(16, func(c *conn) (bool, error) {
		status, out, err := c.ask(receive)
		if err != nil || status != http.StatusOK {
			return false, fmt.Errorf("%d %.300s %w", status, out, err)
		}
		var got struct {
			Messages []struct{ ReceiptHandle string }
		}
		if err := json.Unmarshal(out, &got); err != nil {
			return false, err
		}
		if len(got.Messages) == 0 {
			return empty.Add(1) < 16 && taken.Load() < int64(b.messages), nil
		}
		var es []string
		for i, m := range got.Messages {
			es = append(es, fmt.Sprintf(`{"Id":"%d","ReceiptHandle":%q}`, i, m.ReceiptHandle))
		}
		r, err := us.request("sqs", "AmazonSQS.DeleteMessageBatch", fmt.Sprintf(`{"QueueUrl":%q,"Entries":[%s]}`, queue, strings.Join(es, ",")))
		if err != nil {
			return false, err
		}
		if status, out, err = c.ask(r); err != nil || status != http.StatusOK {
			return false, fmt.Errorf("%d %.300s %w", status, out, err)
		}
		n := taken.Add(int64(len(es)))
		mu.Lock()
		for n >= int64(len(tenths)*b.messages/10) && len(tenths) <= 10 {
			tenths = append(tenths, time.Now())
		}
		mu.Unlock()
		return n < int64(b.messages), nil
	}); err != nil {
		return err
	}
	after, err := measure.PSS(b.store())
	if err != nil {
		return err
	}
	if len(tenths) < 11 {
		return fmt.Errorf("of %d messages %d came back", b.messages, taken.Load())
	}
	rate := func(i int) float64 { return float64(b.messages) / 10 / tenths[i+1].Sub(tenths[i]).Seconds() }
	b.report.Add(measure.Figure{Name: "a backlog drains: last tenth to first", Unit: "msg/s", Ours: []float64{rate(9)}, Peer: []float64{rate(0)}, Asked: measure.AtLeast(0.8)})
	b.report.Add(measure.Figure{Name: "memory with the backlog, over before", Unit: "MB", Ours: []float64{float64(full) / 1e6}, Peer: []float64{float64(before) / 1e6}, Asked: measure.AtLeast(0)})
	b.report.Add(measure.Figure{Name: "memory after the drain", Unit: "MB", Ours: []float64{float64(after) / 1e6}, Peer: []float64{float64(before) / 1e6}, Asked: measure.AtLeast(0)})
	return nil
}
