package daemon

import (
	"context"
	"errors"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/gitserver"
)

func gitKey(k gitserver.Key) control.GitKey {
	return control.GitKey{Name: k.Name, Fingerprint: k.Fingerprint, Added: k.Added}
}

// GitKeys implements control.API.
func (h *house) GitKeys(context.Context) ([]control.GitKey, error) {
	out := []control.GitKey{}
	for _, k := range h.git.Keys().List() {
		out = append(out, gitKey(k))
	}
	return out, nil
}

// AddGitKey implements control.API.
func (h *house) AddGitKey(ctx context.Context, name, line string) (control.GitKey, error) {
	k, err := h.git.Keys().Add(name, line)
	if err != nil {
		return control.GitKey{}, tenfold.Errorf(tenfold.CodeInvalid, "%w", err).WithHint("a line as in ~/.ssh/id_ed25519.pub: tenfold git keys add FILE")
	}
	return gitKey(k), h.audit(ctx, "", "", "add", "git key "+k.Fingerprint, "of "+k.Name)
}

// RemoveGitKey implements control.API.
func (h *house) RemoveGitKey(ctx context.Context, which string) error {
	err := h.git.Keys().Remove(which)
	if errors.Is(err, gitserver.ErrNoKey) {
		return tenfold.Errorf(tenfold.CodeNotFound, "no key %q", which).WithHint("list them: tenfold git keys list")
	}
	if err != nil {
		return err
	}
	return h.audit(ctx, "", "", "remove", "git key "+which, "asked for")
}
