// Soak breaks a director pair at random for as long as it is told to, and ends
// with status 1 at the first thing that does not recover.
//
//	soak                    an hour, with a seed from the clock, which is printed
//	soak -duration 24h -seed 7
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"ballast/test/bench/soak"
	"ballast/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	image := fs.String("image", lab.DefaultImage, "folder with vmlinuz and initramfs.zst")
	duration := fs.Duration("duration", time.Hour, "how long")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults; the same one gives the same order")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || *duration <= 0 {
		return errors.New("soak: no further arguments, and a -duration above 0; see -help")
	}
	r, err := soak.Run(ctx, soak.Options{Duration: *duration, Seed: *seed, Image: *image, Log: func(s string) {
		fmt.Println(time.Now().Format("15:04:05"), s)
	}})
	fmt.Println(r)
	for name, n := range r.LastMemory {
		fmt.Printf("%-8s PSS %5.1f MiB at first, %5.1f MiB at last\n", name, float64(r.FirstMemory[name])/(1<<20), float64(n)/(1<<20))
	}
	return err
}
