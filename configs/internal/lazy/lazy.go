// Package lazy makes what most processes of a box never need when it is first
// asked for: one binary is all of them, and what a package makes when the
// program starts is in the memory of each.
package lazy

import (
	"regexp"
	"sync"
)

// Regexp compiles an expression when it is first used.
func Regexp(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
