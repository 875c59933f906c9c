package frontend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/release"
)

// releaseOf finds the release that a build came to, without its files, if it still lies on disk.
func (it *item) releaseOf(rec record, fingerprint string) (*release.Release, bool) {
	for _, m := range slices.Backward(rec.Releases) {
		if m.Fingerprint == fingerprint {
			r, err := it.f.site(it.id).Head(string(m.Release))
			return r, err == nil
		}
	}
	return nil, false
}

// whole says that what a release's server runs from is still there, too.
func (it *item) whole(g goal, r *release.Release) bool {
	if !g.Spec.Paired {
		return true
	}
	_, err := it.f.cfg.Builder.Find(r.Meta.Server)
	return err == nil
}

func (it *item) observe() (tenfold.Resource, bool, error) {
	rec := it.snapshot()
	o := tenfold.Resource{ID: it.id, State: tenfold.StatePending, Failed: rec.Failed, Reason: rec.Reason, Hint: rec.Hint}
	if rec.Gone || rec.Goal == nil {
		return o, false, nil
	}
	o.Goal, o.Needs = rec.Goal.Fingerprint, rec.Goal.Needs
	if it.id.Kind == tenfold.KindBuild {
		if r, ok := it.releaseOf(rec, o.Goal); ok && it.whole(*rec.Goal, r) {
			o.Serving, o.Note = o.Goal, "release "+short(r.ID)
		}
	} else {
		current, err := it.f.site(it.id).Current()
		if err != nil {
			return o, false, err
		}
		if current != "" {
			o.Serving, o.Note = rec.Serving, "release "+short(current)
			if r, err := it.f.site(it.id).Head(current); err == nil {
				o.Note += faults(r)
			}
		}
		if rec.Pin != "" {
			o.Reason = "a person went back to release " + short(string(rec.Pin)) + "; the next deploy ends that"
		}
	}
	switch {
	case rec.Stopped:
		o.State = tenfold.StateStopped
	case o.Serving == "" && o.Failed == o.Goal:
		o.State = tenfold.StateFailed
	case o.Serving == o.Goal || o.Failed == o.Goal:
		o.State = tenfold.StateReady
	}
	return o, true, nil
}

// pursueBuild makes the release of the goal, unless it is there.
func (it *item) pursueBuild(ctx context.Context) {
	it.mu.Lock()
	g := it.rec.Goal
	if g == nil || it.rec.Stopped || it.rec.Gone || it.rec.Failed == g.Fingerprint {
		it.mu.Unlock()
		return
	}
	if r, ok := it.releaseOf(it.rec, g.Fingerprint); ok && it.whole(*g, r) {
		it.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	it.cancel = cancel
	it.mu.Unlock()

	began := time.Now()
	key, r, err := it.make(ctx, g.Spec)

	it.mu.Lock()
	defer it.mu.Unlock()
	canceled := ctx.Err() != nil
	cancel()
	it.cancel = nil
	rec := it.rec
	if canceled || rec.Goal == nil || rec.Goal.Fingerprint != g.Fingerprint {
		return
	}
	if err != nil {
		rec.Failed = g.Fingerprint
		rec.Reason, rec.Hint = failure(err)
		first, _, _ := strings.Cut(rec.Reason, "\n")
		it.emit(tenfold.SeverityError, time.Since(began), first)
	} else {
		rec.Releases = append(slices.Clone(rec.Releases), made{g.Fingerprint, tenfold.ReleaseID(r.ID), key})
		rec.Releases = rec.Releases[max(0, len(rec.Releases)-50):]
		rec.Failed, rec.Reason, rec.Hint = "", "", ""
	}
	if err := it.save(rec); err != nil {
		it.emit(tenfold.SeverityWarning, 0, err.Error())
	}
}

// make builds and makes a release of the output.
func (it *item) make(ctx context.Context, s spec) (string, release.Release, error) {
	req := s.request(it.id)
	req.Log = filepath.Join(it.f.logDir(it.id), "build.log")
	var secrets []tenfold.Binding
	var values []string
	for _, b := range s.Bindings {
		v, err := it.f.cfg.Resolve(ctx, b)
		if err != nil {
			return "", release.Release{}, fmt.Errorf("look up %s: %w", b.Var, err)
		}
		req.Secret = append(req.Secret, b.Var+"="+v)
		if b.Field == tenfold.FieldValue || b.Field == tenfold.FieldPassword || b.Field == tenfold.FieldURL && b.From.Kind != tenfold.KindService {
			secrets, values = append(secrets, b), append(values, v)
		}
	}
	last := time.Now()
	req.Progress = func(text string) { last = time.Now(); it.emit(tenfold.SeverityProgress, 0, text) }
	req.Done = func(st build.Stage) {
		switch {
		case st.Name == "build": // told with the release
		case st.Note != "":
			it.emit(tenfold.SeverityInfo, st.Took, st.Note)
		case st.Name == "test":
			it.emit(tenfold.SeverityInfo, st.Took, "tested: "+st.Command)
		default:
			it.emit(tenfold.SeverityInfo, st.Took, "installed: "+st.Command)
		}
	}
	res, err := it.f.cfg.Builder.Build(ctx, req)
	if err != nil {
		return "", release.Release{}, err
	}
	if res.Cached {
		it.emit(tenfold.SeverityInfo, 0, "cached: built "+res.Made.Local().Format("2006-01-02 15:04:05"))
	}
	meta := release.Meta{Source: s.Source.Digest, Build: res.Key, Script: s.Script}
	roots := []release.Root{{Dir: res.Output}}
	if s.Paired {
		meta.Server = res.Key
		if err := checkServer(ctx, res, s, secrets, values); err != nil {
			return "", release.Release{}, err
		}
		roots = rootsOf(res, s.Build)
	} else if err := checkOutput(res, s); err != nil {
		return "", release.Release{}, err
	}
	if err := leak(ctx, roots, secrets, values); err != nil {
		return "", release.Release{}, err
	}
	meta.Rules = it.rules(roots, res.Dir)
	r, err := it.f.site(it.id).AddRoots(ctx, roots, meta)
	debug.FreeOSMemory() // coding the files took tens of megabytes, which nobody needs until the next release
	if err != nil {
		return "", r, err
	}
	it.emit(tenfold.SeverityInfo, time.Since(last), fmt.Sprintf("release %s built: %s, %s", short(r.ID), count(len(r.Files)), size(r.Size())))
	return res.Key, r, nil
}

// checkOutput asks that the output is a folder with files, and says what there is instead.
func checkOutput(res build.Result, s spec) error {
	out := s.Build.Output
	info, err := os.Stat(res.Output)
	if err == nil && info.IsDir() {
		if entries, err := os.ReadDir(res.Output); err == nil && len(entries) > 0 {
			return nil
		}
		return tenfold.Errorf(tenfold.CodeFailed, "the build left no file in %s", out).WithHint("name the folder that the build writes: build: {output: build}")
	}
	var have []string
	entries, _ := os.ReadDir(res.Dir)
	for _, e := range entries {
		if e.IsDir() && e.Name() != "node_modules" && !strings.HasPrefix(e.Name(), ".") {
			have = append(have, e.Name()+"/")
		}
	}
	there := "no folder"
	if len(have) > 0 {
		there = strings.Join(have[:min(len(have), 10)], " ")
	}
	return tenfold.Errorf(tenfold.CodeFailed, "the build made no folder %s: there is %s", out, there).WithHint("name the folder that the build writes: build: {output: build}")
}

// leak fails when a secret of the build stands in what visitors would get, however it is written.
func leak(ctx context.Context, roots []release.Root, bindings []tenfold.Binding, values []string) error {
	secrets := map[string]string{}
	for i, v := range values {
		secrets[bindings[i].Var] = v
	}
	found, err := release.FindSecrets(ctx, roots, secrets)
	if err != nil || len(found) == 0 {
		return err
	}
	l := found[0]
	return tenfold.Errorf(tenfold.CodeFailed, "the value of %s stands in %s (%s), where every visitor could read it", l.Name, l.File, l.As).
		WithHint("keep %s out of the bundle; what may be public goes under env, not uses", l.Name)
}

// failure is the reason and the hint that a failed build shows.
func failure(err error) (reason, hint string) {
	reason, hint = err.Error(), tenfold.HintOf(err)
	var stage *build.StageError
	var missing *build.MissingError
	switch {
	case errors.As(err, &stage):
		if d := stage.Detail(); d != "" {
			reason += "\n  " + strings.ReplaceAll(d, "\n", "\n  ")
		}
		hint = stage.Hint
	case errors.As(err, &missing):
		hint = missing.Hint
	case errors.Is(err, build.ErrChanged):
		hint = "deploy again, and leave the files alone until they are copied"
	case errors.Is(err, release.ErrEmpty):
		hint = "name the folder that the build writes: build: {output: build}"
	}
	return reason, hint
}

// pursueSwitch makes the goal's release the served one.
func (it *item) pursueSwitch(ctx context.Context) {
	if !it.gate(ctx) {
		return
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	rec, site := it.rec, it.f.site(it.id)
	current, err := site.Current()
	if err != nil {
		return
	}
	if rec.Gone || rec.Stopped || rec.Goal == nil {
		if current != "" && (rec.Gone || rec.Stopped) {
			_ = site.Clear() // seen again at the next look
		}
		return
	}
	buildID := it.id
	buildID.Kind = tenfold.KindBuild
	b := it.f.item(buildID)
	r, ok := b.releaseOf(b.snapshot(), rec.Goal.Spec.Made)
	if !ok {
		return // its build is made again first
	}
	want := r.ID
	if rec.Pin != "" {
		want = string(rec.Pin)
	}
	if current == want && rec.Serving == rec.Goal.Fingerprint {
		return
	}
	if rec.Failed == rec.Goal.Fingerprint || !rec.passed() {
		return
	}
	if rec.Pin == "" && r.Meta.Server != "" {
		if ok, _ := it.f.serves(it.id, r.Meta.Server); !ok {
			return // looked at again; should it never come, its own deployment fails
		}
	}
	if current != want {
		if err := site.Switch(want); err != nil {
			it.emit(tenfold.SeverityWarning, 0, err.Error())
			return
		}
	}
	rec.Serving = rec.Goal.Fingerprint
	if err := it.save(rec); err != nil {
		it.emit(tenfold.SeverityWarning, 0, err.Error())
		return
	}
	if current != "" && current != want {
		it.emit(tenfold.SeverityInfo, 0, "release "+short(want)+" serves")
	}
	it.expire(site, rec.Goal.Spec.Keep)
}

// expire removes releases that are too old to go back to.
func (it *item) expire(site release.Site, keep time.Duration) {
	if _, err := site.Collect(time.Now(), release.Policy{Keep: keep, Newest: keptReleases}); err != nil {
		it.emit(tenfold.SeverityWarning, 0, err.Error())
	}
}

func count(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%d KB", (n+512)>>10)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}
