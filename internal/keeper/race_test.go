//go:build race

package keeper_test

const race = true
