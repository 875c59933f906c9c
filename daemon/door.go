package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"tenfold/internal/container"
	"tenfold/internal/lean"
	"tenfold/tier/edge"
)

// RunDoor is the front door's process. Its listeners were opened by the keeper and are passed on as
// descriptors from 3, as systemd does it.
func RunDoor(ctx context.Context, data, version string) error {
	// Stored responses have no pointer to follow, and hits leave nothing to collect: collecting twice as often costs
	// little time, and an idle TLS connection has a tenth less memory.
	debug.SetGCPercent(50)
	l, _, err := ground(data)
	if err != nil {
		return err
	}
	settings, err := LoadSettings(l)
	if err != nil {
		return err
	}
	var plain, secure []net.Listener
	var packets []*net.UDPConn
	if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
		for i, name := range strings.Split(names, ":") {
			f := os.NewFile(uintptr(3+i), name)
			if name == doorQUIC {
				p, err := net.FilePacketConn(f)
				if err != nil {
					return fmt.Errorf("take over socket %s: %w", name, err)
				}
				f.Close()
				packets = append(packets, p.(*net.UDPConn))
				continue
			}
			nl, err := net.FileListener(f)
			if err != nil {
				return fmt.Errorf("take over listener %s: %w", name, err)
			}
			f.Close()
			if name == doorTLS {
				secure = append(secure, nl)
			} else {
				plain = append(plain, nl)
			}
		}
	}
	if err := os.MkdirAll(l.Tier("edge"), 0o700); err != nil {
		return fmt.Errorf("start door: %w", err)
	}
	d, err := edge.NewDoor(edge.DoorConfig{Dir: l.Tier("edge"), Control: doorSocket(l, cmp.Or(os.Getenv(doorName), version)), Listeners: plain, TLSListeners: secure, QUIC: packets,
		Certificates: l.certificates(), ACME: settings.ACME, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	return d.Run(ctx, func() {})
}

// doorName is the variable that tells a door its name: its version and turn.
const doorName = "TENFOLD_DOOR"

// doorSocket is where one door is told what it is to know, also after another has taken over.
func doorSocket(l Layout, name string) string {
	sum := sha256.Sum256([]byte(name))
	return l.Socket("door-" + hex.EncodeToString(sum[:4]))
}

// Modes are the house's processes by name.
func Modes(version string) map[Mode]func(ctx context.Context, data string) error {
	return map[Mode]func(context.Context, string) error{
		ModeWarden:    RunWarden,
		ModeKeeper:    RunKeeper,
		ModeDoor:      settling(func(ctx context.Context, data string) error { return RunDoor(ctx, data, version) }),
		ModePool:      settling(RunPool),
		ModeInvoke:    settling(RunInvoke),
		ModeData:      settling(RunData),
		ModeFiles:     settling(RunFiles),
		ModeSeries:    settling(RunSeries),
		ModeContainer: settling(func(ctx context.Context, _ string) error { return container.Main(ctx) }),
		ModeDaemon:    func(ctx context.Context, data string) error { return Run(ctx, data, version) },
	}
}

// settling has a process give back what only its start needed.
func settling(run func(context.Context, string) error) func(context.Context, string) error {
	return func(ctx context.Context, data string) error {
		defer time.AfterFunc(lean.Settled, lean.Shed).Stop()
		return run(ctx, data)
	}
}
