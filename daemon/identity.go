package daemon

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/awsapi"
	"tenfold/internal/pooldir"
	"tenfold/internal/secret"
)

// awsAccount is the account in RDS' names.
const awsAccount = "000000000000"

// loadAccess reads what services' keys are derived from, or makes it.
func loadAccess(l Layout) ([]byte, error) {
	b, err := os.ReadFile(l.Access())
	if err == nil && len(strings.TrimSpace(string(b))) >= 32 {
		return []byte(strings.TrimSpace(string(b))), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read access key: %w", err)
	}
	b = []byte(secret.Generate(32))
	return b, atomicfile.Write(l.Access(), append(slices.Clone(b), '\n'), 0o600)
}

// accessKey is what a service signs its calls with: the same for its life, and nowhere stored.
func (h *house) accessKey(id tenfold.ID) pooldir.Key {
	derive := func(what string, n int) []byte {
		b, err := hkdf.Key(sha256.New, h.access, []byte(id.String()), what, n)
		if err != nil {
			panic(err) // a length that does not exist
		}
		return b
	}
	return pooldir.Key{
		ID:      "AKTF" + base32.StdEncoding.EncodeToString(derive("access key", 10)),
		Secret:  base64.StdEncoding.EncodeToString(derive("secret access key", 30)),
		Service: string(id.Name),
	}
}

// doorPass is what the front door shows a function's process: who knows it is the door, or this daemon.
func (h *house) doorPass(function tenfold.ID) string {
	b, err := hkdf.Key(sha256.New, h.access, []byte(function.String()), "front door", 30)
	if err != nil {
		panic(err) // a length that does not exist
	}
	return base64.StdEncoding.EncodeToString(b)
}

// identityField gives one fact of what a service is known by.
func (h *house) identityField(ctx context.Context, id tenfold.ID, f tenfold.Field) (string, error) {
	switch f {
	case tenfold.FieldName:
		return string(id.Name), nil
	case tenfold.FieldRegion:
		return awsapi.Region, nil
	case tenfold.FieldKeyID:
		return h.accessKey(id).ID, nil
	case tenfold.FieldKeySecret:
		h.pools.introduce(ctx, id) // before its first call
		h.data.Introduce(ctx)
		h.files.Introduce(ctx)
		return h.accessKey(id).Secret, nil
	}
	return "", fmt.Errorf("an identity has no %s", f)
}

// databaseField gives one fact of a database: what its tier knows, and what it is called in AWS' protocols.
func (h *house) databaseField(ctx context.Context, id tenfold.ID, f tenfold.Field) (string, error) {
	switch f {
	case tenfold.FieldARN:
		return clusterARN(id), nil
	case tenfold.FieldSecretARN:
		return secretARN(id), nil
	case tenfold.FieldAPI:
		port, err := h.postgres.Field(ctx, id, tenfold.FieldPort)
		return "http://127.0.0.1:" + port, err
	}
	return h.postgres.Field(ctx, id, f)
}

// inARN is a resource's name among all of the house.
func inARN(id tenfold.ID) string {
	return strings.ReplaceAll(string(id.App)+"-"+string(id.Env)+"-"+string(id.Name), "/", "-")
}

func clusterARN(id tenfold.ID) string {
	return "arn:aws:rds:" + awsapi.Region + ":" + awsAccount + ":cluster:" + inARN(id)
}

func secretARN(id tenfold.ID) string {
	return "arn:aws:secretsmanager:" + awsapi.Region + ":" + awsAccount + ":secret:" + inARN(id)
}

// dataAPI says who may ask a database over HTTP: the services and functions that use it, in the revision that serves and
// in the one that is to.
func (h *house) dataAPI(d pooldir.Database) *pooldir.API {
	id, err := tenfold.ParseID(d.ID)
	if err != nil {
		h.log.Error("look up who uses a database", "database", d.ID, "err", err)
	}
	api := &pooldir.API{Resource: clusterARN(id), Secret: secretARN(id), Database: d.Name, Keys: []pooldir.Key{}, Peers: map[string]int{}}
	for _, x := range h.postgres.Pool() {
		if other, err := tenfold.ParseID(x.ID); err == nil && x.API != nil && other.App == id.App && other.Env == id.Env && other != id && x.Port != 0 {
			api.Peers[clusterARN(other)] = x.Port
		}
	}
	ctx := context.Background()
	envs, err := h.store.Environments(ctx)
	if err != nil {
		h.log.Error("look up who uses a database", "database", d.ID, "err", err)
	}
	for _, e := range envs {
		if e.App != string(id.App) || e.Env != string(id.Env) {
			continue
		}
		for _, revision := range []int64{e.Goal, e.Serving} {
			if revision == 0 {
				continue
			}
			app, err := h.app(ctx, e.App, e.Env, revision)
			if err != nil {
				h.log.Error("look up who uses a database", "database", d.ID, "err", err)
				continue
			}
			for _, name := range append(holders(app, id, tenfold.FieldARN), functionHolders(app, id, tenfold.FieldARN)...) {
				if k := h.accessKey(app.ID(tenfold.KindIdentity, name)); !slices.Contains(api.Keys, k) {
					api.Keys = append(api.Keys, k)
				}
			}
		}
	}
	return api
}

// introduce tells the pools of an environment now who may ask them. One that does not answer is told when
// it does.
func (p *pools) introduce(ctx context.Context, of tenfold.ID) {
	p.mu.Lock()
	lines := map[string]*poolLine{}
	for key, line := range p.running {
		if id, err := tenfold.ParseID(key); err == nil && id.App == of.App && id.Env == of.Env {
			lines[key] = line
		}
	}
	p.mu.Unlock()
	for key, line := range lines {
		if s := p.directory(key); len(s.Databases) > 0 && s.Databases[0].API != nil {
			if rep, err := line.remote.Put(ctx, s); err == nil {
				p.take(rep)
			}
		}
	}
}

// holdersOfKeys calls f for each service and function, in the revisions that serve and then in those that are
// to, whose lines are those of the manifest. A revision that cannot be read is logged and left
// out: the others' keys are still good.
func (h *house) holdersOfKeys(ctx context.Context, f func(app tenfold.App, of tenfold.ID, line int, bs []tenfold.Binding)) error {
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return err
	}
	for _, e := range envs {
		for _, revision := range []int64{e.Serving, e.Goal} {
			if revision == 0 {
				continue
			}
			app, err := h.app(ctx, e.App, e.Env, revision)
			if err != nil {
				if ctx.Err() != nil {
					return err
				}
				h.log.Error("look up who has keys", "app", e.App, "env", e.Env, "revision", revision, "err", err)
				continue
			}
			for n, s := range app.Services {
				f(app, app.ID(tenfold.KindService, n), s.Line, s.Bindings)
			}
			for n, x := range app.Functions {
				f(app, app.ID(tenfold.KindFunction, n), x.Line, x.Bindings)
			}
			for n, x := range app.Frontends {
				if x.Server != nil {
					f(app, app.ID(tenfold.KindService, n), x.Line, x.Server.Bindings)
				}
			}
		}
	}
	return nil
}
