package certs

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// A certificate of 90 days whose renewals fail, then succeed: looked at each hour of 120 days.
func TestOneFaultRaisesOneAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Alarm
		f := newFaults(func(a Alarm) { told = append(told, a) })
		life := 90 * 24 * time.Hour
		born := time.Now()
		s := CertStatus{Host: "shop.tenfold-shop.com", NotAfter: born.Add(life), Lifetime: life}
		expect := func(what string, want ...string) {
			t.Helper()
			var got []string
			for _, a := range told {
				c := a.Code
				if a.Cleared {
					c = "-" + c
				}
				got = append(got, c)
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("%s: alarms %v, want %v", what, got, want)
			}
			told = nil
		}
		pass := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Hour) {
				f.judge(time.Now(), []CertStatus{s})
			}
		}
		pass(60 * 24 * time.Hour)
		expect("young")
		fail := func(n int, typ string) {
			s.Failed, s.LastError = n, rfc8555.Problem{Type: rfc8555.ProblemTypeNamespace + typ, Detail: "no valid A records", Subproblems: []rfc8555.Subproblem{{Problem: rfc8555.Problem{Detail: "NXDOMAIN"}}}}
		}
		fail(1, "dns")
		pass(24 * time.Hour)
		expect("one failed renewal, weeks left")
		fail(3, "dns")
		pass(24 * time.Hour)
		if len(told) == 1 && (!strings.Contains(told[0].Cause, "NXDOMAIN") || !strings.Contains(told[0].Hint, "A or AAAA") || told[0].Severe || told[0].Since.IsZero()) {
			t.Errorf("alarm: %+v", told[0])
		}
		expect("three in a row", "certificate-renewal")
		fail(9, "connection")
		pass(10 * 24 * time.Hour)
		expect("still the same fault")
		pass(25 * 24 * time.Hour)
		expect("its end", "-certificate-renewal", "certificate-expired")
		s = CertStatus{Host: s.Host, NotAfter: time.Now().Add(life), Lifetime: life}
		pass(24 * time.Hour)
		expect("mended", "-certificate-expired")
		f.judge(time.Now(), nil)
		expect("removed")
	})
}

func TestARenewalThatNobodyTriesIsAFault(t *testing.T) {
	now := time.Now()
	s := CertStatus{Host: "a.tenfold-shop.com", NotAfter: now.Add(8 * 24 * time.Hour), Lifetime: 90 * 24 * time.Hour}
	if a := fault(now, s); a.Code != "certificate-renewal" || a.Cause == "" || a.Hint == "" {
		t.Errorf("fault: %+v", a)
	}
	if a := fault(now, CertStatus{Host: "a.tenfold-shop.com"}); a.Code != "" {
		t.Errorf("a first attempt under way is a fault: %+v", a)
	}
}

func TestHints(t *testing.T) {
	for typ, want := range map[string]string{
		"dns": "A or AAAA", "connection": "firewall", "unauthorized": "did not find", "caa": "CAA",
		"rateLimited": "wait", "rejectedIdentifier": "another name", "serverInternal": "tried again",
	} {
		if h := hintOf("x.com", rfc8555.Problem{Type: rfc8555.ProblemTypeNamespace + typ}); !strings.Contains(h, want) {
			t.Errorf("%s: %s", typ, h)
		}
	}
	if h := hintOf("nas", errors.Join(errConstraint)); !strings.Contains(h, "rename") {
		t.Error(h)
	}
}
