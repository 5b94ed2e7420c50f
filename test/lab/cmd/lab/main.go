// Lab boots a pair of directors from the image with a client and real servers,
// shows the traffic, and lets its user break things.
//
//	lab                       the lab's own configuration
//	lab -config FILE          the user's keepalived.conf, unchanged, on director-a;
//	                          director-b gets the same file in the other role
//	lab -config FILE -peer FILE
//	lab -install              install what the lab needs, and nothing else
//	lab -install -tests       and what the tests need
//	lab -plan -config FILE    only print how the lab would be laid out
//
// Without a terminal it prints a line a second instead of the view.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

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
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("lab", flag.ContinueOnError)
	config := fs.String("config", "", "keepalived.conf of director-a")
	peer := fs.String("peer", "", "keepalived.conf of director-b; derived from -config when not given")
	image := fs.String("image", lab.DefaultImage, "folder with vmlinuz and initramfs.zst")
	capture := fs.String("capture", "", "write each segment's packets to a pcap file in this folder")
	onlyInstall := fs.Bool("install", false, "install what the lab needs and end")
	tests := fs.Bool("tests", false, "with -install: also what the tests need")
	onlyPlan := fs.Bool("plan", false, "print how the lab would be laid out and end")
	plain := fs.Bool("plain", false, "a line a second even on a terminal")
	rate := fs.Int("rate", 20, "requests a second to each service")
	length := fs.Duration("for", 0, "end after this time; 0: when told to")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || *rate < 1 || *rate > 1000 {
		return errors.New("no further arguments, and -rate from 1 to 1000; see -help")
	}
	if *onlyInstall {
		if *tests {
			return install(ctx, testTools...)
		}
		return install(ctx)
	}
	o := lab.Options{Name: "default.conf", Config: lab.DefaultConfig, Image: *image, Log: func(s string) { fmt.Println(s) }}
	if *config != "" {
		b, err := os.ReadFile(*config)
		if err != nil {
			return err
		}
		o.Name, o.Config = filepath.Base(*config), b
	}
	if *peer != "" {
		b, err := os.ReadFile(*peer)
		if err != nil {
			return err
		}
		o.Peer = b
	}
	p, err := lab.Layout(o)
	if err != nil {
		return err
	}
	fmt.Print(p)
	if *onlyPlan {
		return nil
	}
	if must, _ := missing(look); len(must) > 0 {
		if err := install(ctx); err != nil {
			return err
		}
	}
	l, err := lab.Start(ctx, o)
	if err != nil {
		return told(ctx, err)
	}
	defer l.Close()
	if *capture != "" {
		stop, err := captureAll(l, *capture)
		if err != nil {
			return err
		}
		defer stop()
	}
	fmt.Println("\nThe consoles, from another terminal:")
	for _, d := range l.Directors {
		fmt.Printf("  %s\n    %s\n    %s   (Ctrl-] leaves)\n", d.Name(), d.SSHCommand(), d.SerialCommand())
	}
	fmt.Println()
	s, err := newState(l, time.Second/time.Duration(*rate))
	if err != nil {
		return err
	}
	defer s.close()
	if *length > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	if !*plain && term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
		err = watch(ctx, s)
	} else {
		err = printLines(ctx, s, os.Stdout)
	}
	return told(ctx, err)
}

// told turns the error of a lab that its user ended into none.
func told(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func captureAll(l *lab.Lab, dir string) (stop func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var stops []func() error
	for _, s := range l.Switches {
		f, err := s.Capture(filepath.Join(dir, s.Name+".pcap"))
		if err != nil {
			return nil, err
		}
		stops = append(stops, f)
	}
	return func() {
		for _, f := range stops {
			if err := f(); err != nil {
				fmt.Fprintln(os.Stderr, "lab:", err)
			}
		}
	}, nil
}

func printLines(ctx context.Context, s *state, w *os.File) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			fmt.Fprintln(w, s.snapshot().line())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
