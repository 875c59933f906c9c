// Package lazy has expressions compiled when they are first used: every process of the house has all packages
// of the binary, and uses few of their expressions. Begin at Regexp.
package lazy

import (
	"regexp"
	"sync"
)

// Expr is a regular expression that is compiled when it is first asked something. What it has not is had by Get.
type Expr struct{ get func() *regexp.Regexp }

// Regexp is regexp.MustCompile, later: a mistake in the expression panics at its first use, so each has a test.
func Regexp(expr string) *Expr {
	return &Expr{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })}
}

// Get is the expression, compiled.
func (e *Expr) Get() *regexp.Regexp { return e.get() }

// MatchString is regexp.Regexp's.
func (e *Expr) MatchString(s string) bool { return e.get().MatchString(s) }

// Match is regexp.Regexp's.
func (e *Expr) Match(b []byte) bool { return e.get().Match(b) }

// FindString is regexp.Regexp's.
func (e *Expr) FindString(s string) string { return e.get().FindString(s) }

// FindStringSubmatch is regexp.Regexp's.
func (e *Expr) FindStringSubmatch(s string) []string { return e.get().FindStringSubmatch(s) }

// FindAllStringSubmatch is regexp.Regexp's.
func (e *Expr) FindAllStringSubmatch(s string, n int) [][]string {
	return e.get().FindAllStringSubmatch(s, n)
}

// ReplaceAllString is regexp.Regexp's.
func (e *Expr) ReplaceAllString(s, by string) string { return e.get().ReplaceAllString(s, by) }
