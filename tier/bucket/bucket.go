// Package bucket is buckets of objects as S3 has them, on a folder of this machine.
//
// The engine is versitygw, one for all accounts of the house, each of which sees its own buckets. In front of
// it this package lets clients in by their keys, keeps what a manifest names, tells of what was made and
// removed, and removes what is not to be kept. Begin at Open and Store.ServeHTTP.
package bucket

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"crypto/rand"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"

	"tenfold"
	"tenfold/internal/awsapi"
	"tenfold/internal/sigv4"
)

// Config is what a Store stands on.
type Config struct {
	// Dir is the store's folder, absolute.
	Dir string
	// Socket is the path of a unix socket for an account: the engine listens there, for this process alone.
	Socket func(account string) string
	// Keys finds an access key.
	Keys func(access string) (awsapi.Key, bool)
	// Deliver hands an event to its target; nil: buckets have no events.
	Deliver func(ctx context.Context, account string, to tenfold.ID, e Event) error
	Log     *slog.Logger

	suite *suite // nil, but in the conformance test
}

// suite is how the engine is told apart from the house: its own users, and what else its own tests want.
type suite struct {
	root    awsapi.Key
	users   auth.IAMService
	flat    bool // no versions
	options []s3api.Option
}

// Wanted is a bucket as a manifest says it.
type Wanted struct {
	ID       tenfold.ID
	Name     string
	Versions bool
	CORS     []string // origins
	Body     int64    // the most that a request may bring; 0: what S3 takes
	Keep     []Keep
	Events   []Rule

	account, name string
}

// Keep says how long objects stay whose keys begin with Prefix and end with Suffix.
type Keep struct {
	Prefix, Suffix string
	For            time.Duration
}

// Store is all buckets of a house. Its methods may be called from many goroutines at once.
type Store struct {
	cfg    Config
	log    *slog.Logger
	quiet  *log.Logger
	engine *posix.Posix
	// attributes are what the engine keeps beside objects: in the file system, or in files where that has none.
	attributes meta.MetadataStorer
	root       awsapi.Key // signs nothing; the engine wants one
	signed     sigv4.Verifier
	owners     owners
	use        usage
	outbox     *outbox

	keeping sync.Mutex // one Want or Remove at a time
	mu      sync.Mutex
	doors   map[string]*door              // by account; under mu
	wants   map[string]map[string]*Wanted // by account and name; under mu
}

// Open opens the folder. It serves nothing before Want names an account.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" || cfg.Socket == nil || cfg.Keys == nil {
		return nil, errors.New("open buckets: Dir, Socket and Keys are required")
	}
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	engine, attributes, err := openEngine(cfg.Dir, cfg.suite == nil || !cfg.suite.flat)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: cfg.Log, quiet: log.New(os.Stderr, "", 0), engine: engine, attributes: attributes, doors: map[string]*door{}, wants: map[string]map[string]*Wanted{}}
	s.root = awsapi.Key{Access: "root" + rand.Text(), Secret: rand.Text()}
	if cfg.suite != nil {
		s.root = cfg.suite.root
	}
	s.signed = sigv4.Verifier{Raw: true, Keys: func(access string) (string, bool) {
		k, ok := cfg.Keys(access)
		return k.Secret, ok
	}}
	if s.outbox, err = openOutbox(filepath.Join(cfg.Dir, "events"), cfg.Deliver, s.log); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) doorOf(account string) *door {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doors[account]
}

// wanted is a bucket that a manifest names, or nil.
func (s *Store) wanted(account, name string) *Wanted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wants[account][name]
}

func (s *Store) wantedID(id tenfold.ID) (*Wanted, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, all := range s.wants {
		for _, w := range all {
			if w.ID == id {
				return w, true
			}
		}
	}
	return nil, false
}

// only is the account that alone has a bucket of a name, among those that manifests name.
func (s *Store) only(bucket string) (account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, all := range s.wants {
		if all[bucket] != nil {
			if account != "" {
				return ""
			}
			account = id
		}
	}
	return account
}

// Want has the buckets of an account as they are to be, and leaves others as they are. The errors are by name.
func (s *Store) Want(ctx context.Context, account string, wants []Wanted) map[string]error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	errs := map[string]error{}
	d, err := s.serve(account)
	if err != nil {
		for _, w := range wants {
			errs[w.Name] = err
		}
		return errs
	}
	all := map[string]*Wanted{}
	for i := range wants {
		w := &wants[i]
		w.account, w.name = account, w.Name
		if err := d.account.keep(ctx, w); err != nil {
			errs[w.Name] = fmt.Errorf("bucket %s: %w", w.Name, err)
			continue
		}
		all[w.Name] = w
	}
	s.mu.Lock()
	s.wants[account] = all
	s.mu.Unlock()
	return errs
}

// serve is the account's door, opened if it is not.
func (s *Store) serve(account string) (*door, error) {
	if d := s.doorOf(account); d != nil {
		return d, nil
	}
	d, err := s.openDoor(account)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doors[account] = d
	return d, nil
}

// keep makes a bucket, and has of it what the manifest says.
func (a *account) keep(ctx context.Context, w *Wanted) error {
	if a.owners.of(a, w.Name) == "" {
		acl, err := json.Marshal(auth.ACL{Owner: a.id})
		if err != nil {
			return err
		}
		in := &s3.CreateBucketInput{Bucket: &w.Name, CreateBucketConfiguration: &types.CreateBucketConfiguration{}, ObjectOwnership: types.ObjectOwnershipBucketOwnerEnforced}
		if err := a.CreateBucket(ctx, in, acl); err != nil {
			return err
		}
	}
	is, err := a.GetBucketVersioning(ctx, w.Name)
	if err != nil {
		return err
	}
	on := is.Status != nil && *is.Status == types.BucketVersioningStatusEnabled
	if on != w.Versions {
		want := types.BucketVersioningStatusEnabled
		if !w.Versions {
			want = types.BucketVersioningStatusSuspended
		}
		if err := a.PutBucketVersioning(ctx, w.Name, want); err != nil {
			return err
		}
	}
	return a.share(ctx, w)
}

// share has pages of the origins that a manifest names read and write, as far as they sign. A bucket without
// origins in the manifest keeps what a client said, and loses what an earlier manifest did.
func (a *account) share(ctx context.Context, w *Wanted) error {
	is, err := a.GetBucketCors(ctx, w.Name)
	if err != nil {
		is = nil // there is none
	}
	if len(w.CORS) == 0 {
		if bytes.Contains(is, []byte("<ID>"+corsID+"</ID>")) {
			return a.DeleteBucketCors(ctx, w.Name)
		}
		return nil
	}
	want := cors(w.CORS)
	if bytes.Equal(is, want) {
		return nil
	}
	return a.PutBucketCors(ctx, w.Name, want)
}

// Remove deletes a bucket with all that is in it. One that is not there is no error.
func (s *Store) Remove(_ context.Context, account, name string) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if s.wanted(account, name) != nil {
		return tenfold.Errorf(tenfold.CodeConflict, "bucket %s is in a manifest", name).WithHint("take it out and deploy")
	}
	d, err := s.serve(account)
	if err != nil {
		return err
	}
	a := d.account
	for _, below := range []string{"versions", "attributes", "buckets"} { // the bucket itself last: it is what names the rest
		if err := os.RemoveAll(filepath.Join(s.cfg.Dir, below, a.name(name))); err != nil {
			return fmt.Errorf("remove bucket %s: %w", name, err)
		}
	}
	a.owners.forget(a, name)
	return syncDir(a.root)
}

// Run sweeps, counts and delivers events, until ctx ends; then it closes the store.
func (s *Store) Run(ctx context.Context, ready func()) error {
	ready()
	var wg sync.WaitGroup
	wg.Go(func() { s.outbox.run(ctx) })
	wg.Go(func() { s.sweeping(ctx) })
	wg.Go(func() { s.counting(ctx) })
	wg.Wait()
	s.mu.Lock()
	doors := slices.Collect(maps.Values(s.doors))
	clear(s.doors)
	s.mu.Unlock()
	for _, d := range doors {
		d.close()
	}
	s.engine.Shutdown()
	return nil
}
