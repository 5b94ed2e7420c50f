// Soak breaks a director pair at random for as long as it is told to, and ends
// with status 1 at the first thing that does not recover.
//
//	soak                    an hour, with a seed from the clock, which is printed
//	soak -duration 24h -seed 7
//	soak -run kill -duration 10m   processes of the master are killed under client traffic, and nobody may notice
//	soak -run vrrp-hogs -duration 10m   VRRP at 10 ms beside processes that want the whole machine,
//	                                    with keepalived in the same minutes; root, no QEMU.
//	                                    -freeze 1s stops our master at random, -collect has it
//	                                    collect garbage without end, -alone takes its pacer away
//
// With -report FILE it may run detached: setsid -f soak -run vrrp-hogs -report FILE.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ballast/test/bench/hogs"
	"ballast/test/bench/soak"
	"ballast/test/lab"
)

func main() {
	if hogs.Child() {
		return
	}
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
	what := fs.String("run", "pair", "pair: faults of a pair in QEMU; kill: processes of its master are killed; vrrp-hogs: VRRP under load in network namespaces")
	processes := fs.Int("hogs", 4, "vrrp-hogs: processes that burn a processor")
	readers := fs.Int("readers", 1, "vrrp-hogs: processes that ask each of our routers for its state all the time")
	advert := fs.Duration("advert", 10*time.Millisecond, "vrrp-hogs: interval of advertisements")
	alone := fs.Bool("alone", false, "vrrp-hogs: our routers run without their pacer")
	collect := fs.Bool("collect", false, "vrrp-hogs: our routers collect garbage without end, on 16 processors of the runtime")
	freeze := fs.Duration("freeze", 0, "vrrp-hogs: our master is stopped for up to that long, about once a second")
	report := fs.String("report", "", "file that all that is said is appended to, for a run that nobody watches")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults; the same one gives the same order")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || *duration <= 0 {
		return errors.New("soak: no further arguments, and a -duration above 0; see -help")
	}
	out := io.Writer(os.Stdout)
	if *report != "" {
		f, err := os.OpenFile(*report, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		out = io.MultiWriter(f, os.Stdout) // the file first: the terminal may be gone
	}
	say := func(s string) { fmt.Fprintln(out, time.Now().Format("15:04:05"), s) }
	switch *what {
	case "pair", "kill":
	case "vrrp-hogs":
		say("begin: " + strings.Join(args, " "))
		r, err := hogs.Run(ctx, hogs.Options{
			Duration: *duration, Hogs: *processes, Advert: *advert, Readers: *readers, Alone: *alone, Collect: *collect, Freeze: *freeze, Log: say,
		})
		if err == nil {
			fmt.Fprintln(out, r)
			err = r.Problem()
		}
		if err != nil {
			say(err.Error())
		}
		return err
	default:
		return fmt.Errorf("soak: -run %s: it is pair, kill or vrrp-hogs", *what)
	}
	do := soak.Run
	if *what == "kill" {
		do = soak.Kill
	}
	r, err := do(ctx, soak.Options{Duration: *duration, Seed: *seed, Image: *image, Log: say})
	fmt.Fprintln(out, r)
	for name, n := range r.LastMemory {
		fmt.Fprintf(out, "%-8s PSS %5.1f MiB at first, %5.1f MiB at last\n", name, float64(r.FirstMemory[name])/(1<<20), float64(n)/(1<<20))
	}
	return err
}
