package compute

import (
	"context"

	"tenfold"
)

// Process says with which variables and in which folder a process of a service's serving version
// runs. The variables hold secrets.
func (c *Compute) Process(ctx context.Context, service tenfold.ID) (env []string, dir string, err error) {
	u, err := c.command(ctx, service, nil, nil)
	return u.Env, u.Dir, err
}
