package gitserver

import (
	"os/exec"
	"syscall"
	"time"
)

// grace is how long git has to clean up after itself before it is killed.
const grace = 3 * time.Second

// ownGroup puts a command and all that it starts into a process group, which its context's end asks to
// end, and after grace kills.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = grace
}

// killGroup ends what a command may have left behind.
func killGroup(c *exec.Cmd) {
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	}
}
