// Mkimage builds images of Ballast.
//
//	mkimage image     build an image: -board, -o
//	mkimage binary    build the one binary: -o
//	mkimage pin       move kernel.lock to the newest kernel that this machine's package sources offer
//	mkimage kernel    fetch the pinned kernel into the cache and print where it is
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"ballast/board"
	"ballast/image"
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
	const commands = "image, binary, pin, kernel"
	if len(args) == 0 {
		return fmt.Errorf("want one of: %s", commands)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	out := flags.String("o", "", "where to write")
	boardName := flags.String("board", "qemu", "the hardware: "+strings.Join(board.Names(), ", "))
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	version := image.Version(ctx, ".")
	switch args[0] {
	case "binary":
		if *out == "" {
			*out = "out/ballast"
		}
		return image.Binary(ctx, ".", *out, version)
	case "image":
		b, err := board.Get(*boardName)
		if err != nil {
			return err
		}
		if *out == "" {
			*out = "out/image/" + b.Name
		}
		return image.Build(ctx, image.Options{Board: b, Root: ".", Out: *out, Version: version, Applets: applets, Log: os.Stdout})
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
	return fmt.Errorf("unknown command %q: want one of: %s", args[0], commands)
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
