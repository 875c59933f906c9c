package edge

import (
	"context"
	"fmt"
	"net/http"

	"tenfold/internal/unixhttp"
)

// Leave has the door at a socket (DoorConfig.Control) take no more connections, and returns when the last of
// those that it has is gone.
func Leave(ctx context.Context, socket string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://door/leave", nil)
	if err != nil {
		return err
	}
	res, err := unixhttp.Once(socket).Do(r)
	if err != nil {
		return fmt.Errorf("have a door leave: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("have a door leave: %s", res.Status)
	}
	return nil
}
