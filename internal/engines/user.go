package engines

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// RunAs is the user that engines run as: they refuse to be root. Both ids are 0 when this process
// is not root (engines then run as its user). As root it is "postgres", else "tenfold", else "nobody".
func RunAs() (uid, gid int) {
	if os.Getuid() != 0 {
		return 0, 0
	}
	for _, name := range []string{"postgres", "tenfold", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid > 0 {
			return uid, gid
		}
	}
	return 65534, 65534
}

// Blocked is the first folder, from dir upward, that lets no other user through, "" when there is
// none: an engine that runs as another user needs to pass all of them.
func Blocked(dir string) (string, error) {
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return "", err
		}
		if info.Mode()&0o001 == 0 {
			return d, nil
		}
		if d == "/" || d == "." {
			return "", nil
		}
	}
}
