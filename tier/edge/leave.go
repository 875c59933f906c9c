package edge

import (
	"context"
	"fmt"
	"net"
	"net/http"
)

// Leave has the door at a socket (DoorConfig.Own) take no more connections, and returns when the last of
// those that it has is gone.
func Leave(ctx context.Context, socket string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://door/leave", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("have a door leave: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("have a door leave: %s", res.Status)
	}
	return nil
}
