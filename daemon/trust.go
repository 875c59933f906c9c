package daemon

import (
	"context"

	"tenfold/tier/edge/certs"
)

// Trust puts the house's own authority (PEM) into the certificate stores of this machine and its
// user's browsers, or takes it out again, and tells what became of each store.
func Trust(ctx context.Context, root []byte, remove bool) ([]certs.Outcome, error) {
	if remove {
		return certs.Stores{}.Untrust(ctx, root)
	}
	return certs.Stores{}.Trust(ctx, root)
}
