package daemon

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/cacheinfo"
	"tenfold/internal/dbinfo"
	"tenfold/internal/engines"
	"tenfold/tier/cache"
	"tenfold/tier/edge/certs"
)

// Cache implements control.API.
func (h *house) Cache(ctx context.Context, id tenfold.ID) (cacheinfo.Cache, error) {
	return h.cache.Cache(ctx, id)
}

// CacheFailover implements control.API.
func (h *house) CacheFailover(ctx context.Context, id tenfold.ID) error {
	if err := h.audit(ctx, id.App, id.Env, "failover", id.Short(), "asked for"); err != nil {
		return err
	}
	return h.cache.Failover(ctx, id)
}

// CacheSwitchover implements control.API.
func (h *house) CacheSwitchover(ctx context.Context, id tenfold.ID, node int) error {
	if err := h.audit(ctx, id.App, id.Env, "switchover", id.Short(), "asked for"); err != nil {
		return err
	}
	return h.cache.Switchover(ctx, id, node)
}

// CacheRotate implements control.API.
func (h *house) CacheRotate(ctx context.Context, id tenfold.ID) (dbinfo.Rotation, error) {
	return h.rotate(ctx, id, h.cache.Rotate)
}

// CacheBackup implements control.API.
func (h *house) CacheBackup(ctx context.Context, id tenfold.ID) (cacheinfo.Backup, error) {
	return h.cache.Backup(ctx, id)
}

// CacheBackups implements control.API.
func (h *house) CacheBackups(ctx context.Context, id tenfold.ID) ([]cacheinfo.Backup, error) {
	return h.cache.Backups(ctx, id)
}

// CacheRestore implements control.API.
func (h *house) CacheRestore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	if err := h.audit(ctx, id.App, id.Env, "restore", id.Short(), "asked for, to "+to.Format(time.RFC3339)); err != nil {
		return tenfold.ID{}, err
	}
	return h.cache.Restore(ctx, id, to)
}

// cacheTool is the shell of the engine, with what it needs to log in.
func (h *house) cacheTool(ctx context.Context, id tenfold.ID, tool string) (control.Process, error) {
	env, err := fields(ctx, h.cache.Field, id, map[string]tenfold.Field{"REDIS_URL": tenfold.FieldURL, "REDIS_READ_URL": tenfold.FieldReadURL, "REDISCLI_AUTH": tenfold.FieldPassword, "VALKEYCLI_AUTH": tenfold.FieldPassword})
	if err != nil {
		return control.Process{}, err
	}
	if tool == "" {
		return control.Process{Env: env}, nil
	}
	e, err := engines.Cache(ctx, "", 0)
	if err != nil {
		return control.Process{}, tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("tenfold doctor --fix")
	}
	cli := e.Tool(e.Name + "-cli")
	if cli == "" {
		return control.Process{}, tenfold.Errorf(tenfold.CodeMissing, "%s-cli is not installed", e.Name).WithHint("apt-get install %s-tools", e.Name)
	}
	user, err := h.cache.Field(ctx, id, tenfold.FieldUser)
	if err != nil {
		return control.Process{}, err
	}
	host, err := h.cache.Field(ctx, id, tenfold.FieldHost)
	if err != nil {
		return control.Process{}, err
	}
	port, err := h.cache.Field(ctx, id, tenfold.FieldPort)
	if err != nil {
		return control.Process{}, err
	}
	argv := []string{cli, "-h", host, "-p", port, "--user", user}
	if h.cache.Secure(id) {
		ca, err := h.Authority(ctx)
		if err != nil {
			return control.Process{}, err
		}
		argv = append(argv, "--tls", "--cacert", ca.File)
	}
	return control.Process{Argv: argv, Env: env}, nil
}

// cacheCertificates gives the servers of caches what they show, signed by the house's authority. It is opened
// with the first that has TLS.
func cacheCertificates(l Layout) func() (cache.PEM, error) {
	open := sync.OnceValues(func() (*certs.Local, error) {
		return certs.OpenLocal(l.certificates(), append([]string{"localhost", "::1"}, cache.Hosts()...)...)
	})
	return func() (cache.PEM, error) {
		local, err := open()
		if err != nil {
			return cache.PEM{}, err
		}
		c, err := local.Certificate()
		if err != nil {
			return cache.PEM{}, err
		}
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			return cache.PEM{}, fmt.Errorf("write certificate of caches: %w", err)
		}
		out := cache.PEM{Authority: local.Root(), Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
		for _, der := range c.Certificate {
			out.Cert = append(out.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		return out, nil
	}
}
