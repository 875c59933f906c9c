//go:build race

package scaling

// raced: the detector makes millions of virtual requests slow, and there is no race to find in them.
const raced = true
