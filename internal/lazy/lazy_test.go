package lazy

import "testing"

func TestRegexp(t *testing.T) {
	e := Regexp(`(a+)b`)
	if !e.MatchString("aab") || !e.Match([]byte("ab")) || e.FindString("xaab") != "aab" || e.FindStringSubmatch("aab")[1] != "aa" || len(e.FindAllStringSubmatch("abab", -1)) != 2 || e.ReplaceAllString("ab", "c") != "c" || e.Get().NumSubexp() != 1 {
		t.Error("another expression")
	}
	defer func() {
		if recover() == nil {
			t.Error("a mistake went by")
		}
	}()
	Regexp(`(`).MatchString("") // not before it is used
}
