package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"tenfold/internal/measure"
)

const (
	conns      = 32
	warmUp     = 10 * time.Second
	partitions = 500
	perKey     = 20
	variants   = 512
)

const dynamo = "DynamoDB_20120810."

func (b *bench) ours(variable string) (party, error) {
	u, err := url.Parse(b.env[variable])
	if err != nil || u.Host == "" {
		return party{}, fmt.Errorf("%s is %q", variable, b.env[variable])
	}
	return party{u.Host, aws.Credentials{AccessKeyID: b.env["AWS_ACCESS_KEY_ID"], SecretAccessKey: b.env["AWS_SECRET_ACCESS_KEY"]}, b.store()}, nil
}

// peer starts a program of PATH on a port of its own; nil when there is none.
func (b *bench) peer(name string, args func(port string) []string) (*exec.Cmd, string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "no %s in PATH: its figures have no peer\n", name)
		return nil, "", nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	at := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(at)
	cmd := exec.CommandContext(b.ctx, path, args(port)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	measure.Favour(cmd.Process.Pid)
	for range 200 {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			return cmd, at, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, "", errors.Join(fmt.Errorf("%s does not listen", name), cmd.Process.Kill())
}

func end(cmd *exec.Cmd) {
	if cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// once sends one request.
func (p party) once(target, body string) ([]byte, error) {
	r, err := p.request("dynamodb", dynamo+target, body)
	if err != nil {
		return nil, err
	}
	c, err := p.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	status, answer, err := c.ask(r)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", target, status, answer)
	}
	return answer, err
}

func itemOf(id, n int) string {
	return fmt.Sprintf(`{"id":{"S":"user-%d"},"n":{"N":"%d"},"name":{"S":"%s"},"mail":{"S":"user-%d@example.com"},"age":{"N":"%d"},"tags":{"SS":["a","b","c"]}}`, id, n, strings.Repeat("x", 120), id, n%90)
}

func keyOf(id, n int) string { return fmt.Sprintf(`{"id":{"S":"user-%d"},"n":{"N":"%d"}}`, id, n) }

// operations are bodies of requests, at random among a table's partitions.
func operations(table string, ids int) map[string]func() string {
	id, n := func() int { return rand.IntN(ids) }, func() int { return rand.IntN(perKey) }
	return map[string]func() string{
		"PutItem": func() string { return fmt.Sprintf(`{"TableName":"%s","Item":%s}`, table, itemOf(id(), n())) },
		"GetItem": func() string { return fmt.Sprintf(`{"TableName":"%s","Key":%s}`, table, keyOf(id(), n())) },
		"Query": func() string {
			return fmt.Sprintf(`{"TableName":"%s","KeyConditionExpression":"id = :i AND n >= :n","ExpressionAttributeValues":{":i":{"S":"user-%d"},":n":{"N":"%d"}},"Limit":10}`, table, id(), n()/2)
		},
		"UpdateItem": func() string {
			return fmt.Sprintf(`{"TableName":"%s","Key":%s,"UpdateExpression":"SET age = :a, mail = :m ADD visits :one","ExpressionAttributeValues":{":a":{"N":"%d"},":m":{"S":"new@example.com"},":one":{"N":"1"}}}`, table, keyOf(id(), n()), n())
		},
		"TransactWriteItems": func() string {
			var parts []string
			first := id()
			for i := range 4 {
				parts = append(parts, fmt.Sprintf(`{"Put":{"TableName":"%s","Item":%s}}`, table, itemOf((first+i*7)%ids, n())))
			}
			return `{"TransactItems":[` + strings.Join(parts, ",") + `]}`
		},
	}
}

func (p party) signed(target string, body func() string) ([][]byte, error) {
	out := make([][]byte, variants)
	var err error
	for i := range out {
		if out[i], err = p.request("dynamodb", dynamo+target, body()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fill puts items in, 25 a request, over 16 connections.
func (p party) fill(table string, ids int) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	const workers = 16
	for w := range workers {
		wg.Go(func() {
			c, err := p.dial()
			if err == nil {
				defer c.Close()
				var puts []string
				send := func() error {
					if len(puts) == 0 {
						return nil
					}
					r, err := p.request("dynamodb", dynamo+"BatchWriteItem", fmt.Sprintf(`{"RequestItems":{"%s":[%s]}}`, table, strings.Join(puts, ",")))
					if err != nil {
						return err
					}
					puts = puts[:0]
					status, body, err := c.ask(r)
					if err == nil && (status != http.StatusOK || !strings.Contains(string(body), `"UnprocessedItems":{}`)) {
						err = fmt.Errorf("fill: %d %.300s", status, body)
					}
					return err
				}
				for id := w; id < ids && err == nil; id += workers {
					for n := range perKey {
						if puts = append(puts, `{"PutRequest":{"Item":`+itemOf(id, n)+`}}`); len(puts) == 25 {
							if err = send(); err != nil {
								break
							}
						}
					}
				}
				err = errors.Join(err, send())
			}
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

func (b *bench) tables() error {
	us, err := b.ours("AWS_ENDPOINT_URL_DYNAMODB")
	if err != nil {
		return err
	}
	cmd, at, err := b.peer("dynalite", func(port string) []string {
		return []string{"--port", port, "--path", filepath.Join(b.dir, "leveldb"), "--createTableMs", "0"}
	})
	if err != nil {
		return err
	}
	defer end(cmd)
	peer := party{at: at, key: aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}}
	if cmd != nil {
		peer.pid = cmd.Process.Pid
		if _, err := peer.once("CreateTable", `{"TableName":"bench","BillingMode":"PAY_PER_REQUEST","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"},{"AttributeName":"n","AttributeType":"N"}],"KeySchema":[{"AttributeName":"id","KeyType":"HASH"},{"AttributeName":"n","KeyType":"RANGE"}]}`); err != nil {
			return err
		}
		time.Sleep(time.Second)
		if err := peer.fill("bench", partitions); err != nil {
			return err
		}
	}
	if err := us.fill("bench", partitions); err != nil {
		return err
	}
	// The first seconds of a new database are those in which its log's files and its tables of memory come to their
	// sizes: both sides write for a while before anything is measured.
	warm := operations("bench", partitions)["PutItem"]
	var first [2][][]byte
	for i, p := range []party{us, peer} {
		if first[i], err = p.signed("PutItem", warm); err != nil {
			return err
		}
	}
	if _, err := inTurn(conns, warmUp, 0, [2]party{us, peer}, first); err != nil {
		return err
	}
	asked := map[string]measure.Bound{"PutItem": measure.AtLeast(2.5), "GetItem": measure.AtLeast(2), "Query": measure.AtLeast(3), "UpdateItem": measure.AtLeast(2)}
	ops := operations("bench", partitions)
	for _, name := range []string{"PutItem", "GetItem", "Query", "UpdateItem"} {
		f := measure.Figure{Name: name + ", 32 clients", Unit: "op/s", Asked: asked[name]}
		time := measure.Figure{Name: name + ", 32 clients, CPU", Unit: "µs/op", Asked: measure.AtMost(1)}
		mine, err := us.signed(name, ops[name])
		if err != nil {
			return err
		}
		theirs, err := peer.signed(name, ops[name])
		if err != nil {
			return err
		}
		for round := range b.rounds {
			n, err := inTurn(conns, b.each, round, [2]party{us, peer}, [2][][]byte{mine, theirs})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			f.Ours, time.Ours = append(f.Ours, n[0].rate), append(time.Ours, n[0].cpu)
			if cmd != nil {
				f.Peer, time.Peer = append(f.Peer, n[1].rate), append(time.Peer, n[1].cpu)
			}
			b.report.Noise()
		}
		b.report.Add(f)
		b.report.Add(time)
	}
	f := measure.Figure{Name: "TransactWriteItems of 4, 32 clients", Unit: "op/s", Asked: measure.AtLeast(0)}
	mine, err := us.signed("TransactWriteItems", ops["TransactWriteItems"])
	if err != nil {
		return err
	}
	for range b.rounds {
		n, err := us.load(conns, b.each, mine)
		if err != nil {
			return err
		}
		f.Ours = append(f.Ours, n.rate)
	}
	b.report.Add(f)
	f = measure.Figure{Name: "PutItem, 64 clients to one", Unit: "op/s", Asked: measure.AtLeast(5)}
	if mine, err = us.signed("PutItem", ops["PutItem"]); err != nil {
		return err
	}
	for range b.rounds {
		many, err := us.load(64, b.each, mine)
		if err != nil {
			return err
		}
		one, err := us.load(1, b.each, mine)
		if err != nil {
			return err
		}
		f.Ours, f.Peer = append(f.Ours, many.rate), append(f.Peer, one.rate)
	}
	b.report.Add(f)
	mem := measure.Figure{Name: "memory after", Unit: "MB", Asked: measure.AtMost(0.5)}
	n, err := measure.PSS(b.store())
	if err != nil {
		return err
	}
	mem.Ours = []float64{float64(n) / 1e6}
	if cmd != nil {
		if n, err = measure.PSS(cmd.Process.Pid); err != nil {
			return err
		}
		mem.Peer = []float64{float64(n) / 1e6}
	}
	b.report.Add(mem)
	return nil
}

// large does the same on a table of ten million items as on one of ten thousand, and kills its process.
func (b *bench) large() error {
	us, err := b.ours("AWS_ENDPOINT_URL_DYNAMODB")
	if err != nil {
		return err
	}
	if err := us.fill("bench", partitions); err != nil {
		return err
	}
	begun := time.Now()
	ids := b.items / perKey
	if err := us.fill("large", ids); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d items in %s\n", ids*perKey, time.Since(begun).Round(time.Second))
	b.prefer()
	time.Sleep(20 * time.Second) // what the fill left to be merged is no load of users
	small, big := operations("bench", partitions), operations("large", ids)
	for _, name := range []string{"PutItem", "GetItem", "Query", "UpdateItem"} {
		f := measure.Figure{Name: name + ": " + strconv.Itoa(b.items) + " items to 10000", Unit: "op/s", Asked: measure.AtLeast(1 / 1.5)}
		x, err := us.signed(name, big[name])
		if err != nil {
			return err
		}
		y, err := us.signed(name, small[name])
		if err != nil {
			return err
		}
		for round := range b.rounds {
			n, err := inTurn(conns, b.each, round, [2]party{us, us}, [2][][]byte{x, y})
			if err != nil {
				return err
			}
			f.Ours, f.Peer = append(f.Ours, n[0].rate), append(f.Peer, n[1].rate)
		}
		b.report.Add(f)
	}
	f := measure.Figure{Name: "start after kill -9", Unit: "s", Asked: measure.AtMost(2)}
	body := fmt.Sprintf(`{"TableName":"large","Key":%s}`, keyOf(1, 1))
	for range b.rounds {
		pid := b.store()
		if pid == 0 {
			return errors.New("the stores' process is not found")
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		begun := time.Now()
		go func() { // as what it replaces was
			for b.favour && time.Since(begun) < time.Minute {
				if now := b.store(); now != 0 && now != pid {
					measure.Favour(now)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		for {
			if _, err := us.once("GetItem", body); err == nil {
				break
			} else if time.Since(begun) > time.Minute {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
		f.Ours = append(f.Ours, time.Since(begun).Seconds())
		time.Sleep(11 * time.Second) // one that died lately is started again later and later
	}
	b.report.Add(f)
	return nil
}
