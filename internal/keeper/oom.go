package keeper

import (
	"os"
	"strconv"
	"strings"
)

// Whom the kernel ends first when memory is short: apps, then what serves all of them, and what holds everything last of
// all. A score counts as so many thousandths of the machine's memory.
const (
	// AppOOMScore is of what an app brings: tasks, functions, jobs.
	AppOOMScore = 200
	// houseOOMScore is the keeper's and the warden's: with them everything ends.
	houseOOMScore = -900
)

const ownOOMScore = "/proc/self/oom_score_adj"

// standLast has the kernel end this process after all others, where it may: raised is everybody's right, lowered root's.
func standLast() { _ = setOOMScore(houseOOMScore) }

func setOOMScore(n int) error { return os.WriteFile(ownOOMScore, []byte(strconv.Itoa(n)), 0) }

// withOOMScore has f fork children that have a score from the first moment on, so that what they start at once has it
// too. A score that may not be taken is left.
func withOOMScore(n int, f func() error) error {
	b, err := os.ReadFile(ownOOMScore)
	if err != nil {
		return f()
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || own == n || setOOMScore(n) != nil {
		return f()
	}
	defer setOOMScore(own)
	return f()
}
