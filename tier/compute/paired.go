package compute

import (
	"errors"

	"tenfold"
)

// Serves says whether the tasks of a frontend's server that run from a build answer as the door knows
// it. failed says why they never will: the deployment to them was given up.
func (c *Compute) Serves(frontend tenfold.ID, build string) (ok bool, failed string) {
	s, err := c.find(serverOf(frontend))
	if err != nil {
		return false, ""
	}
	r := s.snapshot()
	if r.Goal != nil && r.Failed == r.Goal.Fingerprint && r.Goal.Spec.Build == build {
		return false, r.Reason
	}
	for _, v := range []*version{r.Serving, r.Before} {
		if v == nil || v.Spec.Build != build || v == r.Serving && !s.heard(r) {
			continue
		}
		for _, t := range r.Tasks {
			if t.Version == v.Version && t.Phase == serving && !t.Down {
				return true, ""
			}
		}
	}
	return false, ""
}

// RunBuild goes over to the tasks of another build of a frontend's server, with everything else as it
// is, until the next deployment: how a frontend goes back to an earlier release.
func (c *Compute) RunBuild(frontend tenfold.ID, build string) error {
	if _, err := c.cfg.Builder.Find(build); err != nil {
		return tenfold.Errorf(tenfold.CodeNotFound, "the build of that release's server is gone: %w", err).
			WithHint("build it again by going back a whole deployment: tenfold rollback --app %s", frontend.App)
	}
	s, err := c.find(serverOf(frontend))
	if err != nil {
		return err
	}
	defer s.prod()
	var failed error
	err = s.change(func(r record) record {
		if r.Goal == nil || r.Goal.Spec.Build == build {
			return r
		}
		to := *r.Goal
		to.Spec.Build = build
		if to.Version, failed = to.Spec.version(); failed != nil {
			return r
		}
		r.Goal = &to
		if r.Failed == to.Fingerprint {
			r.Failed, r.Reason, r.Hint = "", "", ""
		}
		return r
	})
	return errors.Join(failed, err)
}

// serverOf is the service that is the server of a frontend: it has the same name.
func serverOf(frontend tenfold.ID) tenfold.ID {
	frontend.Kind = tenfold.KindService
	return frontend
}
