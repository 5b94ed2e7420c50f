// Bench measures Ballast beside the keepalived of this machine, prints a table,
// and writes it to out/bench.txt and out/bench.json.
//
//	bench                     everything, five runs of each figure
//	bench -n 3                three runs
//	bench -quick              one run of two rows, and the sizes
//	bench -only program,size  some groups, see -help; heartbeat, death,
//	                          addresses and instances need root and no virtual machine
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ballast/test/bench"
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
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	image := fs.String("image", lab.DefaultImage, "folder with vmlinuz and initramfs.zst")
	binary := fs.String("binary", "out/ballast", "the static binary")
	out := fs.String("out", "out", "folder for bench.txt and bench.json")
	n := fs.Int("n", 5, "runs of each figure")
	quick := fs.Bool("quick", false, "one run of two rows, and the sizes")
	only := fs.String("only", "", "groups of rows, by commas: "+strings.Join(bench.Groups(), ", "))
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || *n < 1 || *n > 1000 {
		return errors.New("bench: no further arguments, and -n from 1 to 1000; see -help")
	}
	o := bench.Options{Image: *image, Binary: *binary, Runs: *n, Quick: *quick, Log: func(s string) {
		fmt.Println(time.Now().Format("15:04:05"), s)
	}}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
		for _, g := range o.Only {
			if !bench.IsGroup(g) {
				return fmt.Errorf("bench: there is no group %q: see -help", g)
			}
		}
	}
	r, err := bench.Run(ctx, o)
	if len(r.Rows) == 0 {
		return err
	}
	fmt.Println()
	return errors.Join(err, r.Text(os.Stdout), write(*out, r))
}

func write(dir string, r *bench.Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	txt, err := os.Create(filepath.Join(dir, "bench.txt"))
	if err != nil {
		return err
	}
	js, err := os.Create(filepath.Join(dir, "bench.json"))
	if err != nil {
		txt.Close()
		return err
	}
	return errors.Join(r.Text(txt), r.JSON(js), txt.Close(), js.Close())
}
