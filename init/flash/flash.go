// Package flash is the command "ballast flash": it writes a director's disk on
// any Linux machine, from a disk image or from a signed bundle.
package flash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"ballast/image/disk"
)

// Exit codes.
const (
	Done   = 0
	Cannot = 1
	Usage  = 2
)

const usage = `usage: ballast flash [-yes] [-key FILE | -signer HASH] IMAGE|BUNDLE DISK

Writes a whole disk: boot loader for BIOS and UEFI machines, and the firmware in
both slots. Everything else on the disk is lost. IMAGE is disk.img or disk.img.zst,
BUNDLE is ballast-BOARD.bundle, DISK is /dev/sdX, or a file of the size that a
disk of a virtual machine is to have.

  -yes           do not ask
  -key FILE      keys of makers who are trusted: lines as "ed25519 BASE64 NAME", or
                 ed25519 keys in PEM, public or private
  -signer HASH   trust the key with this hash (SHA256:…)

Without -key and -signer a bundle must be signed with the key of this user
(~/.config/ballast/firmware.key), else with one that the director trusts on which this
runs; whose an image is is not checked: compare it with SHA256SUMS.

Exit status: 0 written and read back, 1 not, 2 wrong words.
`

type options struct {
	yes         bool
	key, signer string
	from, to    string
}

func parse(args []string) (options, error) {
	var o options
	var words []string
	for i := 0; i < len(args); i++ {
		value := func(to *string) error {
			if i++; i >= len(args) {
				return fmt.Errorf("%s: its value is missing", args[i-1])
			}
			*to = args[i]
			return nil
		}
		var err error
		switch a := args[i]; {
		case a == "-yes" || a == "--yes" || a == "-y":
			o.yes = true
		case a == "-key" || a == "--key":
			err = value(&o.key)
		case a == "-signer" || a == "--signer":
			err = value(&o.signer)
		case len(a) > 1 && a[0] == '-':
			err = fmt.Errorf("unknown option %s", a)
		default:
			words = append(words, a)
		}
		if err != nil {
			return o, err
		}
	}
	if len(words) != 2 || words[0] == "" || words[1] == "" {
		return o, errors.New("want an image or bundle, and a disk")
	}
	if o.key != "" && o.signer != "" {
		return o, errors.New("want -key or -signer, not both")
	}
	o.from, o.to = words[0], words[1]
	return o, nil
}

// Main runs the command with the words behind "flash" and gives the exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help") {
		io.WriteString(stdout, usage)
		return Done
	}
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "ballast flash: %v\n%s", err, usage)
		return Usage
	}
	if err := run(ctx, o, stdin, stdout); err != nil {
		fmt.Fprintln(stderr, "ballast flash:", err)
		return Cannot
	}
	return Done
}

func run(ctx context.Context, o options, stdin io.Reader, stdout io.Writer) error {
	src, err := open(o)
	if err != nil {
		return err
	}
	defer src.close()
	t, err := look("/sys", o.to)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n  to %s\n", src.what, t.describe())
	if err := t.check("/proc"); err != nil {
		return err
	}
	dev, err := t.open()
	if err != nil {
		return err
	}
	defer dev.Close()
	if !o.yes {
		if err := ask(t.name, stdin, stdout); err != nil {
			return err
		}
	}
	begin := time.Now()
	p := newProgress(stdout)
	err = disk.Write(stopping{dev, ctx}, src.parts, disk.Options{Both: true, Time: time.Now(), Progress: p.step})
	p.end()
	if err != nil {
		return fmt.Errorf("%w\n%s is not a director's disk now: flash it again, or another one", err, o.to)
	}
	if err := dev.Close(); err != nil {
		return err
	}
	t.reread()
	fmt.Fprintf(stdout, "%s: written and read back in %.0f s; it can be taken out\n", o.to, time.Since(begin).Seconds())
	return nil
}

// ask wants the name of the disk typed: a yes is given too quickly.
func ask(name string, stdin io.Reader, stdout io.Writer) error {
	fmt.Fprintf(stdout, "Everything on it is lost. Type %s to go on: ", name)
	line, err := bufio.NewReader(stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != name {
		fmt.Fprintln(stdout)
		return fmt.Errorf("nothing was written: the answer was not %s (-yes does not ask)", name)
	}
	return nil
}

// stopping is a disk that refuses to go on when the user has had enough.
type stopping struct {
	*os.File
	ctx context.Context
}

func (s stopping) WriteAt(b []byte, at int64) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, errors.New("interrupted")
	}
	return s.File.WriteAt(b, at)
}
