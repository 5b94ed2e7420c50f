package main

import (
	"context"
	"os"
	"os/signal"
	"slices"

	"ballast/init/applet"
	"ballast/init/check"
	"ballast/init/flash"
	"ballast/init/format"
)

// isApplet reports whether the binary answers to a name of a small program that
// scripts expect.
func isApplet(name string) bool { return slices.Contains(applet.Names, name) }

func runApplet(name string, args []string) int {
	code, ok := applet.Main(name, args[1:], os.Stdin, os.Stdout, os.Stderr)
	if !ok {
		return 127 // "command not found", as shells have it
	}
	return code
}

func runCheck(args []string) int { return check.Main(args, os.Stdin, os.Stdout, os.Stderr) }

func runFormat(args []string) int { return format.Main(args, os.Stdin, os.Stdout, os.Stderr) }

func runFlash(args []string) int {
	// A second Ctrl-C ends it at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)
	return flash.Main(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}
