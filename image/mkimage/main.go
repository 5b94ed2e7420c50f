// Mkimage builds images of Ballast.
//
//	mkimage pin       move kernel.lock to the newest kernel that this machine's package sources offer
//	mkimage kernel    fetch the pinned kernel into the cache and print where it is
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"ballast/image/kernel"
)

// series is the long-term kernel that Ballast is built on.
const series = "6.12"

// lockFile is where "pin" writes, seen from the repository's root.
const lockFile = "image/kernel/kernel.lock"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want one of: pin, kernel")
	}
	switch args[0] {
	case "pin":
		return pin(ctx)
	case "kernel":
		dir, release, err := kernel.Tree(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s %s\n", release, dir)
		return nil
	}
	return fmt.Errorf("unknown command %q: want one of: pin, kernel", args[0])
}

func pin(ctx context.Context) error {
	old, err := kernel.Pinned()
	if err != nil {
		return err
	}
	l, err := kernel.Newest(ctx, series)
	if err != nil {
		return err
	}
	if l == old {
		fmt.Printf("%s %s is the newest build already\n", l.Package, l.Version)
		return nil
	}
	if _, err := os.Stat(lockFile); err != nil {
		return fmt.Errorf("%w: run this in the repository's root", err)
	}
	if err := os.WriteFile(lockFile, []byte(l.Text()), 0o644); err != nil {
		return err
	}
	fmt.Printf("%s: %s -> %s\n", lockFile, old.Version, l.Version)
	return nil
}
