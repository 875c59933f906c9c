package event

import (
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	after := time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ text, zone, want string }{
		{"rate(5 minutes)", "", "2026-03-27T12:05:00Z"},
		{"at(2026-12-24T08:00:00)", "Europe/Rome", "2026-12-24T07:00:00Z"},
		{"at(2020-12-24T08:00:00)", "", ""},
		{"cron(0 8 * * ? *)", "", "2026-03-28T08:00:00Z"},
		{"cron(0/15 * * * ? *)", "", "2026-03-27T12:15:00Z"},
		{"cron(30 2 29 3 ? 2026)", "Europe/Rome", ""}, // the clocks skip it
		{"cron(0 8 L * ? *)", "", "2026-03-31T08:00:00Z"},
		{"cron(0 8 LW 5 ? *)", "", "2026-05-29T08:00:00Z"},
		{"cron(0 8 28W 3 ? *)", "", "2027-03-29T08:00:00Z"},
		{"cron(0 8 ? * MON#2 *)", "", "2026-04-13T08:00:00Z"},
		{"cron(0 8 ? * 6L *)", "", "2026-04-24T08:00:00Z"},
		{"cron(0 8 ? * FRI-MON *)", "", "2026-03-28T08:00:00Z"},
		{"cron(0 8 29 2 ? *)", "", "2028-02-29T08:00:00Z"},
		{"cron(0 8 30 2 ? *)", "", ""},
		{"cron(0 8 1 1 ? 2030)", "", "2030-01-01T08:00:00Z"},
		{"0 2 * * *", "Europe/Rome", "2026-03-28T01:00:00Z"},
	} {
		x, err := newTimer(c.text, c.zone, after.UnixMilli())
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got := ""
		if n := x.next(after); !n.IsZero() {
			got = n.UTC().Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.text, got, c.want)
		}
	}
	for _, text := range []string{"", "rate(1 minutes)", "rate(0 minutes)", "rate(5 minute)", "cron(0 8 * * * *)", "cron(0 8 ? * ? *)", "cron(60 8 * * ? *)", "cron(0 8 * * ?)", "at(soon)", "cron(0 8 5-1 * ? *)", "* * *"} {
		if _, err := newTimer(text, "", 0); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func FuzzTimer(f *testing.F) {
	f.Add("cron(0 8 LW * ? *)", "Europe/Rome")
	f.Add("rate(5 minutes)", "")
	f.Add("0 2 * * *", "UTC")
	f.Fuzz(func(t *testing.T, text, zone string) {
		x, err := newTimer(text, zone, 0)
		if err != nil {
			return
		}
		after := time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC)
		if n := x.next(after); !n.IsZero() && !n.After(after) {
			t.Errorf("%s is not after %s", n, after)
		}
		x.due(after, after.Add(time.Hour))
	})
}
