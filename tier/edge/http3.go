package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"tenfold/internal/atomicfile"
	"tenfold/tier/edge/quic"
)

// quicKeyFile holds the key of address tokens and stateless resets, which all doors of a house have
// in common: a client of one that is gone hears from the next.
const quicKeyFile = "quic.key"

// openQUIC makes the server of HTTP/3 when there are sockets for it, and returns what the answers of
// the other protocols say of it.
func (d *Door) openQUIC() (altSvc string, err error) {
	if len(d.cfg.QUIC) == 0 {
		return "", nil
	}
	key, err := quicKey(filepath.Join(d.cfg.Dir, quicKeyFile))
	if err != nil {
		return "", fmt.Errorf("open HTTP/3: %w", err)
	}
	d.http3, err = quic.New(quic.Config{Handler: d, TLS: d.keys.TLSConfig(), Log: d.cfg.Log, MaxHeader: maxHeader, TokenKey: key})
	if err != nil {
		return "", err
	}
	return quic.AltSvc(port(d.cfg.TLSListeners)), nil
}

func quicKey(path string) (key [32]byte, err error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == len(key) {
		return [32]byte(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	rand.Read(key[:])
	return key, atomicfile.Write(path, key[:], 0o600)
}

// serveQUIC serves HTTP/3 until drainQUIC or closeQUIC.
func (d *Door) serveQUIC(wg *sync.WaitGroup) {
	if d.http3 == nil {
		return
	}
	for _, u := range d.cfg.QUIC {
		s, err := quic.Share(u, filepath.Dir(d.cfg.Control))
		if err != nil {
			d.cfg.Log.Error("serve HTTP/3", "err", err)
			continue
		}
		d.sockets = append(d.sockets, s)
		wg.Go(func() {
			if err := d.http3.Serve(s); err != nil {
				d.cfg.Log.Error("serve HTTP/3", "err", err)
			}
		})
	}
}

// drainQUIC lets what is under way come to its end. New clients are the next door's from here on; where
// none comes they get no answer, and come by TCP.
func (d *Door) drainQUIC(limit context.Context) {
	limit, end := context.WithCancel(limit)
	var leaving sync.WaitGroup
	for _, s := range d.sockets {
		leaving.Go(func() { s.Leave(limit) })
	}
	d.http3.Drain(limit)
	end()
	leaving.Wait()
}

func (d *Door) closeQUIC() error {
	if d.http3 == nil {
		return nil
	}
	err := d.http3.Close()
	for _, s := range d.sockets {
		err = errors.Join(err, s.Close())
	}
	return err
}
