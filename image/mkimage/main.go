// Mkimage builds images of Ballast.
//
//	mkimage image     build an image: -board, -o, -key, -trust, -sign
//	mkimage binary    build the one binary: -o
//	mkimage pin       move kernel.lock to the newest kernel that this machine's package sources offer
//	mkimage packages  move packages.lock to the newest builds that they offer of its packages
//	mkimage secureboot-keys  make an owner's keys for UEFI Secure Boot: -o
//	mkimage kernel    fetch the pinned kernel into the cache and print where it is
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"ballast/board"
	"ballast/image"
	"ballast/image/kernel"
	"ballast/image/packages"
	"ballast/image/secureboot"
)

// series is the long-term kernel that Ballast is built on.
const series = "6.12"

// lockFile is where "pin" writes, seen from the repository's root.
const lockFile = "image/kernel/kernel.lock"

// packagesFile is where "packages" writes.
const packagesFile = "image/packages/packages.lock"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	const commands = "image, binary, pin, packages, secureboot-keys, kernel"
	if len(args) == 0 {
		return fmt.Errorf("want one of: %s", commands)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	out := flags.String("o", "", "where to write")
	boardName := flags.String("board", "qemu", "the hardware: "+strings.Join(board.Names(), ", "))
	keyFiles := flags.String("key", "", "files with the ed25519 keys that sign the bundle, with commas between them; the first is made when it is not there (default ~/.config/ballast/firmware.key)")
	trustFile := flags.String("trust", "", "file with further public keys whose bundles the firmware takes, one a line as: ed25519 BASE64 NAME")
	signDir := flags.String("sign", "", "folder with db.key and db.crt of the machines' owner, which sign what UEFI starts (Secure Boot)")
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
		o := image.Options{Board: b, Root: ".", Out: *out, Version: version, Applets: applets, Log: os.Stdout, Release: true}
		if o.Build, err = image.BuildTime(ctx, "."); err != nil {
			return err
		}
		if o.Keys, err = image.SigningKeys(*keyFiles, os.Stdout); err != nil {
			return err
		}
		if *trustFile != "" {
			if o.Trust, err = os.ReadFile(*trustFile); err != nil {
				return err
			}
		}
		if *signDir != "" {
			s, err := secureboot.Load(*signDir)
			if err != nil {
				return err
			}
			o.Sign = &s
		}
		return image.Build(ctx, o)
	case "secureboot-keys":
		return makeKeys(*out)
	case "pin":
		return pin(ctx)
	case "packages":
		return pinPackages(ctx)
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

// makeKeys makes the owner's keys and says what to do with them.
func makeKeys(dir string) error {
	if dir == "" {
		return fmt.Errorf("secureboot-keys: want -o FOLDER, one that nobody else reads")
	}
	if err := secureboot.MakeKeys(dir, time.Now()); err != nil {
		return err
	}
	fmt.Printf(`%[1]s: made PK, KEK and db.

1. Keep a copy of the folder where nobody else reads it. Whoever has db.key makes
   firmware that your machines start; who has PK.key says whom they trust.
2. Build signed firmware:  make image BOARD=… SIGN=%[1]s
3. In the setup of each machine (docs/security.md has the steps):
   Secure Boot -> Custom mode -> clear the keys (setup mode), then enrol from a
   FAT stick, in this order: db.auth, KEK.auth, PK.auth  (or the .cer files where
   the setup asks for certificates), and turn Secure Boot on.
4. The machine now starts nothing but what db.key signed: no other system, and no
   boot ROM of a card that Microsoft signed. noPK.auth takes PK out again.
`, dir)
	return nil
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

// pinPackages moves packages.lock, and fetches what it names.
func pinPackages(ctx context.Context) error {
	text, err := os.ReadFile(packagesFile)
	if err != nil {
		return fmt.Errorf("%w: run this in the repository's root", err)
	}
	old, err := packages.ParseLock(string(text))
	if err != nil {
		return err
	}
	newest := map[string]packages.Package{}
	for _, o := range old {
		p, err := packages.Newest(ctx, o.Name, o.Component)
		if err != nil {
			return err
		}
		newest[p.Name] = p
		if p.Version != o.Version {
			fmt.Printf("%s: %s %s -> %s\n", packagesFile, o.Name, o.Version, p.Version)
		}
	}
	after := packages.Repin(string(text), newest)
	if after == string(text) {
		fmt.Println(packagesFile, "names the newest builds already")
		return nil
	}
	return os.WriteFile(packagesFile, []byte(after), 0o644)
}
