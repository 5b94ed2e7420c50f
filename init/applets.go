package main

import (
	"fmt"
	"os"
)

// Small programs that scripts expect, and the check of a configuration, live
// in packages of their own.

func isApplet(string) bool { return false }

func runApplet(name string, args []string) int { return 127 }

func runCheck(args []string) int {
	fmt.Fprintln(os.Stderr, "ballast: check is not built in")
	return 2
}
