package container

import (
	"context"
	"net/http"
	"strings"
)

// Prune takes its tag from every image of this house whose build kept does not name, and gives the disk
// back that only those had. One that something runs from stays until the next time.
func (d Driver) Prune(ctx context.Context, kept func(key string) bool) error {
	e, err := Find(ctx)
	if err != nil {
		return nil // without an engine there is nothing to forget
	}
	var images []struct{ RepoTags []string }
	if err := e.call(ctx, http.MethodGet, "/images/json", nil, &images); err != nil {
		return err
	}
	for _, i := range images {
		for _, tag := range i.RepoTags {
			key, ours := strings.CutPrefix(tag, d.repository()+":")
			if !ours || kept(key) {
				continue
			}
			if err := e.untag(ctx, tag); err != nil {
				return err
			}
		}
	}
	return nil
}
