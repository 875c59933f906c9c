package keeper

import "context"

// Units is the part of a Client that tiers use to run processes; a fake may stand in for it.
type Units interface {
	// List returns every unit whose ID starts with prefix, in order of ID.
	List(ctx context.Context, prefix string) ([]Status, error)
	// Start starts u, or returns the status of the unit that has its ID already, whatever its phase.
	Start(ctx context.Context, u Unit) (Status, error)
	// Stop ends the unit's whole tree and returns when no descendant lives (Exited). Unknown: nil.
	Stop(ctx context.Context, id string) error
	// Signal sends sig to the unit's first process.
	Signal(ctx context.Context, id string, sig int) error
	// Remove stops the unit if it runs and forgets it with its exit status. Unknown: nil.
	Remove(ctx context.Context, id string) error
	// Wait returns when the unit is Exited.
	Wait(ctx context.Context, id string) (Status, error)
}
