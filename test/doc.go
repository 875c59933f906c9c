// Package test holds the scenarios: what a user sees, over the real binary, with real engines.
//
// They take minutes and have a build tag of their own: make scenarios.
package test
