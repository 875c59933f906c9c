package bucket

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3err"

	"tenfold/internal/awsapi"
)

// bigPart is the most that S3 takes in one request.
const bigPart = 5 << 30

// openEngine opens the folder, or makes it.
func openEngine(dir string, keepsVersions bool) (*posix.Posix, meta.MetadataStorer, error) {
	root, versions, aside := filepath.Join(dir, "buckets"), filepath.Join(dir, "versions"), filepath.Join(dir, "attributes")
	for _, d := range []string{root, versions} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, nil, err
		}
	}
	var attributes meta.MetadataStorer = meta.XattrMeta{}
	opts := posix.PosixOpts{CopyObjectThreshold: bigPart}
	if keepsVersions {
		opts.VersioningDir = versions
	}
	opts.SetNewDirPerm(0o700)
	opts.SetNewFilePerm(0o600)
	// What a folder began with stays: attributes of the one kind are not found by the other.
	_, err := os.Stat(aside)
	if err == nil || (meta.XattrMeta{}).Test(root) != nil {
		if err := os.MkdirAll(aside, 0o700); err != nil {
			return nil, nil, err
		}
		side, err := meta.NewSideCar(aside)
		if err != nil {
			return nil, nil, err
		}
		attributes, opts.SideCarDir = side, aside
	}
	quiet, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer quiet.Close()
	out := os.Stdout
	os.Stdout = quiet // the engine greets
	defer func() { os.Stdout = out }()
	p, err := posix.New(root, attributes, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("open buckets in %s: %w", root, err)
	}
	return p, attributes, nil
}

// door is the engine's HTTP side for one account, on a unix socket.
type door struct {
	account *account
	socket  string
	server  *s3api.S3ApiServer
	client  *http.Transport
	done    chan struct{} // closed when it listens no more
}

// openDoor has an account served.
func (s *Store) openDoor(id string) (*door, error) {
	a := &account{Posix: s.engine, root: filepath.Join(s.cfg.Dir, "buckets"), id: id, owners: &s.owners}
	a.named = func(bucket string) bool { return s.wanted(id, bucket) != nil }
	a.sees = func(access, bucket, owner string) bool {
		k, ok := s.cfg.Keys(access)
		return ok && (k.May(service, bucket) || owner == access)
	}
	a.denied = func(access, bucket string) error {
		k, ok := s.cfg.Keys(access)
		switch {
		case access == s.root.Access || ok && bucket == "" && len(k.Uses[service]) > 0 || ok && bucket != "" && s.uses(k, bucket):
			return nil
		case !ok:
			return s3err.GetInvalidAccessKeyIdErr(access)
		}
		return denial(awsapi.Denied(k.Caller, service+":*", "arn:aws:s3:::"+bucket, bucket).Message)
	}
	d := &door{account: a, socket: s.cfg.Socket(id), done: make(chan struct{})}
	os.Remove(d.socket) // of a process that died
	listening := make(chan error, 1)
	opts := []s3api.Option{s3api.WithQuiet(), s3api.WithKeepAlive(), s3api.WithMpMaxParts(10_000), s3api.WithConcurrencyLimiter(4096, 4096),
		s3api.WithSocketPerm(0o600), s3api.WithOnListen(func() { listening <- nil })}
	var err error
	var iam auth.IAMService = keyring{s.cfg.Keys, id}
	if x := s.cfg.suite; x != nil {
		iam, opts = x.users, append(opts, x.options...)
		a.sees = func(access, bucket, owner string) bool {
			u, err := x.users.GetUserAccount(access)
			return err == nil && !a.named(bucket) && (u.Role == auth.RoleAdmin || access == owner)
		}
	}
	d.server, err = s3api.New(a, middlewares.RootUserConfig{Access: s.root.Access, Secret: s.root.Secret}, awsapi.Region, iam, nil, nil, nil, nil, opts...)
	if err != nil {
		return nil, fmt.Errorf("serve account %s: %w", id, err)
	}
	go func() {
		defer close(d.done)
		if err := d.server.ServeMultiPort([]string{d.socket}); err != nil {
			select {
			case listening <- err:
			default:
				s.log.Error("buckets are served no more", "account", id, "err", err)
			}
		}
	}()
	if err := <-listening; err != nil {
		return nil, fmt.Errorf("serve account %s: %w", id, err)
	}
	d.client = transport(d.socket)
	return d, nil
}

// close ends it when what was begun is answered.
func (d *door) close() {
	d.server.ShutDown()
	<-d.done
	d.client.CloseIdleConnections()
	os.Remove(d.socket)
}

// keyring is what the engine knows of the keys of an account. Each may do all there: who may do what is looked
// at before a request comes to the engine.
type keyring struct {
	keys    func(access string) (awsapi.Key, bool)
	account string
}

// GetUserAccount implements auth.IAMService.
func (k keyring) GetUserAccount(access string) (auth.Account, error) {
	key, ok := k.keys(access)
	if !ok || key.Account != k.account {
		return auth.Account{}, auth.ErrNoSuchUser
	}
	return auth.Account{Access: key.Access, Secret: key.Secret, Role: auth.RoleAdmin}, nil
}

// ResolveAccounts implements auth.IAMService.
func (k keyring) ResolveAccounts(all []string) (missing []string, err error) {
	missing = []string{}
	for _, x := range all {
		if _, err := k.GetUserAccount(x); err != nil {
			missing = append(missing, x)
		}
	}
	return missing, nil
}

var errManifest = s3err.GetAPIError(s3err.ErrAdminMethodNotSupported)

// CreateAccount implements auth.IAMService: keys are the manifest's.
func (keyring) CreateAccount(auth.Account) error { return errManifest }

// UpdateUserAccount implements auth.IAMService.
func (keyring) UpdateUserAccount(string, auth.MutableProps) error { return errManifest }

// DeleteUserAccount implements auth.IAMService.
func (keyring) DeleteUserAccount(string) error { return errManifest }

// ListUserAccounts implements auth.IAMService.
func (keyring) ListUserAccounts() ([]auth.Account, error) { return nil, errManifest }

// Shutdown implements auth.IAMService.
func (keyring) Shutdown() error { return nil }

// owners remembers who made which bucket.
type owners struct {
	mu sync.Mutex
	by map[string]string // by the engine's name; under mu
}

func (o *owners) of(a *account, bucket string) string {
	name := a.name(bucket)
	o.mu.Lock()
	owner, ok := o.by[name]
	o.mu.Unlock()
	if ok {
		return owner
	}
	if owner = a.ownerOf(bucket); owner == "" {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = map[string]string{}
	}
	o.by[name] = owner
	return owner
}

func (o *owners) forget(a *account, bucket string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.by, a.name(bucket))
}

// denial is AccessDenied in the engine's type, which is what it answers.
func denial(message string) error {
	return s3err.APIError{Code: "AccessDenied", Description: message, HTTPStatusCode: http.StatusForbidden}
}

// full says in S3's words that there is no room; all else is as it was.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return s3err.GetAPIError(s3err.ErrNoSpaceLeftOnDevice)
	}
	return err
}
