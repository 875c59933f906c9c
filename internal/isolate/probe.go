package isolate

import "fmt"

// Probe says which rungs this machine has for this process's children, in order.
func Probe() []Rung {
	var out []Rung
	say := func(name, holds string, err error) {
		r := Rung{Name: name, OK: err == nil, Found: holds}
		if err != nil {
			r.Found = err.Error()
		}
		out = append(out, r)
	}
	say(RungUser, "each service and function has one", userWorks())
	say(RungBounds, "on every machine", nil)
	say(RungNamespaces, "mounts, IPC", namespacesWork())
	abi, err := landlockABI()
	say(RungLandlock, landlockSays(abi), err)
	_, err = filter()
	if err == nil {
		err = seccompWorks()
	}
	say(RungSeccomp, fmt.Sprintf("%d calls refused", len(refused)), err)
	return out
}
