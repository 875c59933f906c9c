package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/awsapi"
	"tenfold/internal/depot"
	"tenfold/tier/bucket"
	"tenfold/tier/data"
	"tenfold/tier/function"
	"tenfold/tier/function/source"
)

// filesListener is the keeper's name for the listener of the buckets' process.
const filesListener = "files"

// RunFiles is the process of buckets: it alone has their folder open.
func RunFiles(ctx context.Context, dir string) error {
	return runCompanion(ctx, dir, filesListener, func(l Layout, log *slog.Logger) (companionWork, error) {
		queues, err := companionAddress(l.Tier(dataListener))
		if err != nil {
			return companionWork{}, err
		}
		var s *data.Server
		to := bucketTargets{askStores(data.NewRemote(l.Socket(dataListener))), function.NewRemote(l.Socket(invokeListener)), queues}
		folder := l.Tier(filesListener)
		files, err := bucket.Open(bucket.Config{Dir: folder, Log: log, Deliver: to.deliver,
			Socket: func(account string) string { return l.Socket("files-" + account) },
			Keys:   func(access string) (awsapi.Key, bool) { return s.Key(access) }})
		if err != nil {
			return companionWork{}, err
		}
		s = data.NewServer(map[tenfold.Kind]data.Store{tenfold.KindBucket: bucketStore{files}}, nil, func() error { return roomIn(folder) }, log)
		return companionWork{public: s.Gate(files), private: s.ControlHandler(), run: files.Run}, nil
	})
}

// roomLeast is the free space, in bytes, below which a bucket's disk is said to be full.
const roomLeast = 16 << 20

// roomIn says that there is no room left in a folder.
func roomIn(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if free := st.Bavail * uint64(st.Bsize); free < roomLeast {
		return fmt.Errorf("the disk of %s is full: %s free", filepath.Base(dir), bytesWord(int64(free)))
	}
	return nil
}

// bucketStore is the store of buckets as the tier has it.
type bucketStore struct{ *bucket.Store }

// Keep implements data.Store.
func (s bucketStore) Keep(ctx context.Context, account string, wants []data.Want) map[string]error {
	var all []bucket.Wanted
	for _, w := range wants {
		all = append(all, wantedBucket(w))
	}
	return s.Want(ctx, account, all)
}

// wantedBucket is a bucket of a manifest in the words of its store.
func wantedBucket(w data.Want) bucket.Wanted {
	x := bucket.Wanted{ID: w.ID, Name: w.Name, Versions: w.Bucket.Versions, CORS: w.Bucket.CORS, Body: w.Bucket.Body}
	for _, pattern := range slices.Sorted(maps.Keys(w.Bucket.Keep)) {
		prefix, suffix, _ := strings.Cut(pattern, "*")
		x.Keep = append(x.Keep, bucket.Keep{Prefix: prefix, Suffix: suffix, For: w.Bucket.Keep[pattern]})
	}
	for _, n := range slices.Sorted(maps.Keys(w.Bucket.Events)) {
		e := w.Bucket.Events[n]
		x.Events = append(x.Events, bucket.Rule{Name: string(n), Created: e.Created, Removed: e.Removed, Prefix: e.Prefix, Suffix: e.Suffix, To: e.To})
	}
	return x
}

// Facts implements data.Store.
func (s bucketStore) Facts(account string) map[string]data.Outcome {
	out := map[string]data.Outcome{}
	for name, u := range s.Uses(account) {
		note := "empty"
		if u.Objects > 0 {
			note = fmt.Sprintf("%d objects, %s", u.Objects, bytesWord(u.Bytes))
		}
		raw, err := json.Marshal(u)
		if err != nil {
			continue
		}
		out[name] = data.Outcome{Note: note, Facts: raw}
	}
	return out
}

// bucketTargets are those that events of buckets go to, in other processes.
type bucketTargets struct {
	ask       source.Ask
	functions *function.Remote
	queues    string // address of the stores' process
}

func (t bucketTargets) deliver(ctx context.Context, account string, to tenfold.ID, e bucket.Event) error {
	switch to.Kind {
	case tenfold.KindQueue:
		body, err := json.Marshal(e.Notification())
		if err != nil {
			return err
		}
		return t.ask(ctx, account, "sqs", "SendMessage", map[string]string{"QueueUrl": data.QueueURL(t.queues, account, string(to.Name)), "MessageBody": string(body)}, &struct{}{})
	case tenfold.KindFunction:
		body, err := json.Marshal(e.Notification())
		if err != nil {
			return err
		}
		a, err := t.functions.Invoke(ctx, function.Call{Function: to, ID: e.Once, Payload: body, Async: true})
		if err == nil && a.Throttled != "" {
			err = fmt.Errorf("call %s: %s", to.Short(), a.Throttled)
		}
		return err
	case tenfold.KindBus:
		return t.publish(ctx, account, to, e)
	}
	return fmt.Errorf("a %s takes no events of buckets", to.Kind)
}

// publish puts an event on a bus.
func (t bucketTargets) publish(ctx context.Context, account string, to tenfold.ID, e bucket.Event) error {
	kind, detail := e.Detail()
	body, err := json.Marshal(detail)
	if err != nil {
		return err
	}
	type entry struct {
		Source, DetailType, Detail, EventBusName string
		Resources                                []string
	}
	var out struct {
		Entries []struct{ ErrorCode, ErrorMessage string }
	}
	in := map[string]any{"Entries": []entry{{"aws.s3", kind, string(body), string(to.Name), []string{"arn:aws:s3:::" + e.Bucket}}}}
	if err := t.ask(ctx, account, "events", "PutEvents", in, &out); err != nil {
		return err
	}
	for _, x := range out.Entries {
		if x.ErrorCode != "" {
			return fmt.Errorf("put an event on %s: %s: %s", to.Short(), x.ErrorCode, x.ErrorMessage)
		}
	}
	return nil
}

// ownerKey is the key of the owner of an environment: the command line's.
func (h *house) ownerKey(app tenfold.AppName, env tenfold.Environment) awsapi.Key {
	k := h.accessKey(tenfold.ID{App: app, Env: env, Kind: tenfold.KindIdentity, Name: "$owner"}) // no service is called so
	return awsapi.Key{Access: k.ID, Secret: k.Secret, Caller: awsapi.Caller{Account: account(app, env), Of: awsapi.Owner, Uses: map[string][]string{"s3": {awsapi.Every}}}}
}

// backupBucket is a bucket of a manifest that backups of the same environment go to. They are written by the owner's
// key, so no service has to use it.
func (h *house) backupBucket(_ context.Context, id tenfold.ID) (depot.Bucket, error) {
	if o, ok := h.files.Is(id); !ok || o.Failed != "" {
		err := tenfold.Errorf(tenfold.CodeUnavailable, "%s, which backups go to: %w", id.Short(), depot.ErrNotYet)
		return depot.Bucket{}, err.WithHint("tenfold status says what it waits for; backups go on by themselves")
	}
	k := h.ownerKey(id.App, id.Env)
	return depot.Bucket{Address: h.filesProcess.addr, Region: awsapi.Region, Name: data.AWSName(id, nil), Access: k.Access, Secret: k.Secret}, nil
}

// fileKeys are those of services and functions, and of the owners of environments.
func (h *house) fileKeys(ctx context.Context) ([]awsapi.Key, error) {
	keys, err := h.storeKeys(ctx)
	if err != nil {
		return nil, err
	}
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range envs {
		keys = append(keys, h.ownerKey(tenfold.AppName(e.App), tenfold.Environment(e.Env)))
	}
	return keys, nil
}

// BucketAccess implements control.API.
func (h *house) BucketAccess(ctx context.Context, e control.Env) (control.BucketAccess, error) {
	env, err := h.environment(ctx, e)
	if err != nil {
		return control.BucketAccess{}, err
	}
	if !h.files.Holds() {
		return control.BucketAccess{}, tenfold.Errorf(tenfold.CodeNotFound, "no app of this house has a bucket").WithHint("add one to the manifest: buckets: [uploads]")
	}
	k := h.ownerKey(e.App, e.Env)
	out := control.BucketAccess{Endpoint: "http://" + h.filesProcess.addr, Region: awsapi.Region, AccessKey: k.Access, SecretKey: k.Secret, Public: map[tenfold.Name]string{}, Named: []tenfold.Name{}}
	app, err := h.app(ctx, env.App, env.Env, cmp.Or(env.Goal, env.Serving))
	if err != nil {
		return out, err
	}
	urls := h.urls(app)
	for n, b := range app.Buckets {
		out.Named = append(out.Named, n)
		if len(b.Routes) > 0 && len(urls) > 0 {
			out.Public[n] = urls[0]
		}
	}
	slices.Sort(out.Named)
	return out, nil
}

// bucketMetrics writes buckets' figures in Prometheus' text format, under CloudWatch's names.
func bucketMetrics(use map[string]data.Outcome, b *strings.Builder) {
	all := map[tenfold.ID]bucket.Use{}
	for key, o := range use {
		var x bucket.Use
		if id, err := tenfold.ParseID(key); err == nil && id.Kind == tenfold.KindBucket && json.Unmarshal(o.Facts, &x) == nil {
			all[id] = x
		}
	}
	each := byResource(b, all)
	each("bucket_number_of_objects", "gauge", func(x bucket.Use) float64 { return float64(x.Objects) })
	each("bucket_size_bytes", "gauge", func(x bucket.Use) float64 { return float64(x.Bytes) })
	each("bucket_changes_total", "counter", func(x bucket.Use) float64 { return float64(x.Changes) })
	each("bucket_events_waiting", "gauge", func(x bucket.Use) float64 { return float64(x.Waiting) })
}
