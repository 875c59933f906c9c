//go:build race

package image

// raced says that the race detector watches, under which compiling the AVIF encoder takes half a minute.
const raced = true
