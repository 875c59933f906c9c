package tenfold

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// AppName names an app: kebab-case, unique in a house.
type AppName string

// Environment names a place where an app runs, for example "production".
type Environment string

// Name is what the user called a thing; unique within an app across kinds.
type Name string

// Revision counts the Apps of one environment, from 1; 0 means none.
type Revision int64

// TaskID names a running copy of a service, unique in a house and never reused.
type TaskID string

// ReleaseID names a frontend build by its content: 12 hexadecimal digits or more.
type ReleaseID string

// DeploymentID counts the deployments of one service, from 1.
type DeploymentID int64

// Kind says which tier owns a resource.
type Kind string

// The kinds. KindSecret and KindIdentity have no tier: they stand only in bindings. An identity is what a
// service is known by where calls are signed as AWS has it; it has the service's name.
const (
	KindBuild    Kind = "build"
	KindFrontend Kind = "frontend"
	KindService  Kind = "service"
	KindJob      Kind = "job"
	KindDatabase Kind = "database"
	KindCache    Kind = "cache"
	KindQueue    Kind = "queue"
	KindTable    Kind = "table"
	KindBus      Kind = "bus"
	KindBucket   Kind = "bucket"
	KindSeries   Kind = "series"
	KindFunction Kind = "function"
	KindEdge     Kind = "edge"
	KindSecret   Kind = "secret"
	KindIdentity Kind = "identity"
)

// HoldsData says whether removing a resource of this kind would lose what users stored.
// The loop never removes such a resource; a person does, by name.
func (k Kind) HoldsData() bool {
	return k == KindDatabase || k == KindCache || k == KindQueue || k == KindTable || k == KindBus || k == KindBucket || k == KindSeries
}

// ID identifies a resource in a house.
type ID struct {
	App  AppName     `json:"app"`
	Env  Environment `json:"env"`
	Kind Kind        `json:"kind"`
	Name Name        `json:"name"`
}

// String is the path form, "shop/production/service/api", safe as a file path when the parts are.
func (id ID) String() string {
	return string(id.App) + "/" + string(id.Env) + "/" + string(id.Kind) + "/" + string(id.Name)
}

// Short is what people read: "service api".
func (id ID) Short() string { return string(id.Kind) + " " + string(id.Name) }

// ParseID reads what String wrote. An environment may have a slash in its name ("preview/fix-cart").
func ParseID(s string) (ID, error) {
	p := strings.Split(s, "/")
	n := len(p)
	if n < 4 || n > 5 || slices.Contains(p, "") {
		return ID{}, fmt.Errorf("parse resource id %q: want app/environment/kind/name", s)
	}
	return ID{App: AppName(p[0]), Env: Environment(strings.Join(p[1:n-2], "/")), Kind: Kind(p[n-2]), Name: Name(p[n-1])}, nil
}

// Compare orders IDs by app, environment, kind, name.
func (id ID) Compare(o ID) int { return strings.Compare(id.String(), o.String()) }

// State is what a tier says of a resource.
type State string

// The states of a resource.
const (
	StatePending State = "pending" // on its way to Goal
	StateReady   State = "ready"   // Serving is what users get
	StateStopped State = "stopped" // kept, not running
	StateFailed  State = "failed"  // the last goal failed and nothing serves
)

// Resource is a thing that the user named: as wanted (Spec, Fingerprint, Needs) or as a tier
// observed it (State and below). A tier fills the half that it speaks of.
type Resource struct {
	ID ID `json:"id"`
	// Spec is private to the tier that made it; plain data, without secrets.
	Spec any `json:"spec,omitempty"`
	// Fingerprint covers Spec and Needs (see Fingerprint). The planner compares nothing else.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Needs must serve before this is started, and goes after it when both go.
	Needs []ID `json:"needs,omitempty"`

	State State `json:"state,omitempty"`
	// Goal is the fingerprint last applied, Serving the one that works now, Failed the last that
	// was given up on. A failed goal is not tried again until something else was applied.
	Goal    string `json:"goal,omitempty"`
	Serving string `json:"serving,omitempty"`
	Failed  string `json:"failed,omitempty"`
	// Reason says why the resource is in its state: a sentence, several lines when Failed.
	Reason string `json:"reason,omitempty"`
	// Hint is what to do about a failure.
	Hint string `json:"hint,omitempty"`
	// Endpoint is where it is reached: "127.0.0.1:5432", empty when nowhere.
	Endpoint string `json:"endpoint,omitempty"`
	// Note is one line on how it is now, for status: "3 tasks", "release 7c1e02".
	Note string `json:"note,omitempty"`
}

// FingerprintOf hashes a spec and the needs of its resource: 16 hexadecimal digits of SHA-256
// over their JSON. Fields that do not change what runs must be tagged `json:"-"` by the tier.
func FingerprintOf(spec any, needs []ID) (string, error) {
	b, err := json.Marshal(struct {
		Spec  any
		Needs []ID
	}{spec, needs})
	if err != nil {
		return "", fmt.Errorf("fingerprint spec: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}

// Verb is what a Step does.
type Verb string

// The verbs.
const (
	VerbStart  Verb = "start"
	VerbUpdate Verb = "update"
	VerbStop   Verb = "stop"   // keep what it holds, run nothing
	VerbRemove Verb = "remove" // forget it; never planned for what holds data
)

// Step is one planned change to one resource.
type Step struct {
	Verb Verb     `json:"verb"`
	Want Resource `json:"want"`
	// Reason is printed word for word by deploy, console and audit log.
	Reason string `json:"reason"`
}

// String is "start service api: not running".
func (s Step) String() string { return string(s.Verb) + " " + s.Want.ID.Short() + ": " + s.Reason }

// Scale holds the bounds that people or advice set beside the manifest, by service.
type Scale map[Name]Bounds

// Bounds limit a count of tasks; Min <= Max.
type Bounds struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// A Service is anything that runs. Run calls ready once it can serve, blocks until ctx is done,
// and returns only when every goroutine, child process and listener it started is gone.
// Units of the keeper are not its children: they stay.
type Service interface {
	Name() string
	Run(ctx context.Context, ready func()) error
}

// A Tier owns every resource of one or more kinds: it alone creates and removes them.
type Tier interface {
	Service
	// Desired lists what the app wants of this tier. Pure: it reads no clock, file or world.
	Desired(App, Scale) ([]Resource, error)
	// Observe asks the world, not memory. It returns every resource of the tier in the house.
	Observe(context.Context) ([]Resource, error)
	// Apply stores the goal and returns; Run pursues it. Applying the same step twice is harmless.
	Apply(context.Context, Step) error
}
