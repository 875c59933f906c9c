package compute

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tenfold"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFollowing(t *testing.T) {
	rome := "Europe/Rome"
	for _, c := range []struct {
		name     string
		s        tenfold.Schedule
		from, to string
	}{
		{"utc", tenfold.Schedule{Cron: "0 6 * * *"}, "2026-11-26T05:59:59Z", "2026-11-26T06:00:00Z"},
		{"not now again", tenfold.Schedule{Cron: "0 6 * * *"}, "2026-11-26T06:00:00Z", "2026-11-27T06:00:00Z"},
		{"zone", tenfold.Schedule{Cron: "0 6 * * *", Timezone: rome}, "2026-11-26T00:00:00Z", "2026-11-26T05:00:00Z"},
		{"weekdays", tenfold.Schedule{Cron: "0 8 * * 1-5"}, "2026-11-27T09:00:00Z", "2026-11-30T08:00:00Z"},
		{"last of month", tenfold.Schedule{Cron: "0 0 31 * *"}, "2026-08-31T00:00:00Z", "2026-10-31T00:00:00Z"},
		{"hour that summer time skips", tenfold.Schedule{Cron: "30 2 * * *", Timezone: rome}, "2026-03-28T22:00:00Z", "2026-03-29T01:00:00Z"},
		{"after that hour", tenfold.Schedule{Cron: "30 2 * * *", Timezone: rome}, "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		{"hourly over the skip", tenfold.Schedule{Cron: "0 * * * *", Timezone: rome}, "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"},
		{"hour that comes twice", tenfold.Schedule{Cron: "30 2 * * *", Timezone: rome}, "2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z"},
		{"and not again", tenfold.Schedule{Cron: "30 2 * * *", Timezone: rome}, "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"at", tenfold.Schedule{At: at(t, "2026-12-24T08:00:00Z")}, "2026-11-26T00:00:00Z", "2026-12-24T08:00:00Z"},
		{"rate", tenfold.Schedule{Rate: 5 * time.Minute}, "2026-11-26T00:07:00Z", "2026-11-26T00:10:00Z"},
	} {
		got, err := following(c.s, at(t, "2026-11-26T00:00:00Z"), at(t, c.from))
		if err != nil || !got.Equal(at(t, c.to)) {
			t.Errorf("%s: got %s, %v; want %s", c.name, got.UTC().Format(time.RFC3339), err, c.to)
		}
	}
	if got, err := following(tenfold.Schedule{At: at(t, "2020-01-01T00:00:00Z")}, time.Time{}, at(t, "2026-01-01T00:00:00Z")); err != nil || !got.IsZero() {
		t.Errorf("a moment that passed comes again at %s, %v", got, err)
	}
}

func TestMissedRuns(t *testing.T) {
	began := at(t, "2026-11-26T00:00:00Z")
	daily := tenfold.Schedule{Cron: "0 6 * * *"}
	for _, c := range []struct {
		name, missed, last, now string
		s                       tenfold.Schedule
		tick                    string
		run                     bool
	}{
		{"on time", "skip", "2026-11-26T00:00:00Z", "2026-11-26T06:00:01Z", daily, "2026-11-26T06:00:00Z", true},
		{"once for three days", "once", "2026-11-26T06:00:00Z", "2026-11-29T12:00:00Z", daily, "2026-11-29T06:00:00Z", true},
		{"none for three days", "skip", "2026-11-26T06:00:00Z", "2026-11-29T12:00:00Z", daily, "2026-11-29T06:00:00Z", false},
		{"once for many of a rate", "once", "2026-11-26T00:00:00Z", "2026-11-26T01:00:30Z", tenfold.Schedule{Rate: time.Minute}, "2026-11-26T01:00:00Z", true},
	} {
		tick, run, err := due(jobSpec{Schedule: c.s, Missed: c.missed}, began, at(t, c.last), at(t, c.now))
		if err != nil || run != c.run || !tick.Equal(at(t, c.tick)) {
			t.Errorf("%s: %s %v %v, want %s %v", c.name, tick, run, err, c.tick, c.run)
		}
	}
	if tick, run, err := due(jobSpec{Schedule: daily}, began, began, at(t, "2026-11-26T05:00:00Z")); run || err != nil || !tick.IsZero() {
		t.Errorf("too early: %s %v %v", tick, run, err)
	}
}

func TestWhereListening(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"index.js": "const app = 1\napp.get('/3000')\n\napp.listen(3000)\n", "node_modules/x.js": "listen(4000)"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if place, say, ok := whereListening(dir, 3000); !ok || place != "index.js:4" || say != "app.listen(process.env.PORT || 3000)" {
		t.Errorf("got %q %q %v", place, say, ok)
	}
	if place, _, ok := whereListening(dir, 4000); ok {
		t.Errorf("found %q in a dependency", place)
	}
}

// TestFingerprintsAreStable: an upgrade of Tenfold must restart nobody. If this fails, the spec of
// existing services changed meaning: add new fields with omitempty instead.
func TestFingerprintsAreStable(t *testing.T) {
	app := tenfold.App{
		Name: "shop", Env: "production",
		Services: map[tenfold.Name]tenfold.Workload{"api": {
			Source: tenfold.Source{Root: "/a", Context: ".", Path: "api", Digest: "d"}, Build: tenfold.Build{Language: "node", Install: tenfold.Command{Shell: "npm ci"}},
			Command: tenfold.Command{Shell: "npm start"}, Routes: []tenfold.Route{"/*"}, Scale: tenfold.Bounds{Min: 1, Max: 1},
		}},
		Jobs: map[tenfold.Name]tenfold.Job{"seed": {Service: "api", Command: tenfold.Command{Shell: "x"}}},
	}
	rs, err := (&Compute{}).Desired(app, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[tenfold.Kind]string{tenfold.KindBuild: "dcc1ad1c6b001ca1", tenfold.KindService: "f8850bf2fffcf85a", tenfold.KindJob: "12d06f043af82aba"}
	for _, r := range rs {
		if r.Fingerprint != want[r.ID.Kind] {
			t.Errorf("%s has fingerprint %s, had %s", r.ID.Kind, r.Fingerprint, want[r.ID.Kind])
		}
	}
	// With a frontend that has a server; bounds set by hand.
	page := tenfold.Workload{Command: tenfold.Command{Shell: "node server"}, Uses: []tenfold.ID{app.ID(tenfold.KindDatabase, "db")}, Line: 7}
	paired := tenfold.App{Name: app.Name, Env: app.Env, Services: app.Services, Frontends: map[tenfold.Name]tenfold.Frontend{"web": {Server: &page}}}
	c := &Compute{cfg: Config{FrontendBuild: func(tenfold.App, tenfold.Name) string { return "key" }}}
	both, err := c.Desired(paired, tenfold.Scale{"web": {Min: 2, Max: 4}})
	if err != nil {
		t.Fatal(err)
	}
	names := map[tenfold.Name]string{"api": "92854211a07612f7", "web": "3db035357b9f29ed"}
	for _, r := range both {
		if r.ID.Kind == tenfold.KindService && r.Fingerprint != names[r.ID.Name] {
			t.Errorf("%s has fingerprint %s, had %s", r.ID.Short(), r.Fingerprint, names[r.ID.Name])
		}
	}
	w := app.Services["api"]
	w.Source.Root, w.Line = "/b", 12
	app.Services["api"] = w
	again, err := (&Compute{}).Desired(app, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rs {
		if rs[i].Fingerprint != again[i].Fingerprint {
			t.Errorf("%s changes with the place of the project or a line of the manifest", rs[i].ID.Short())
		}
	}
}

func FuzzParseTCP(f *testing.F) {
	f.Add([]byte("  sl  local_address rem_address   st\n   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1\n"))
	f.Add([]byte("   0: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range parseTCP(b) {
			if !s.addr.IsValid() {
				t.Errorf("an address that is none from %q", b)
			}
		}
	})
}
