// Package format is the command "ballast fmt": it lays out configuration files
// on any Linux machine.
package format

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ballast/configs"
	layout "ballast/configs/format"
)

// Exit codes.
const (
	Done   = 0
	Differ = 1 // -d found a file that is not laid out
	Cannot = 2 // a file cannot be read or written
)

// maxText bounds a file, in bytes.
const maxText = 16 << 20

const usage = `usage: ballast fmt [-w] [-d] [FILE…]

Lays out configurations: one indentation, one blank between words, comments
and meaning kept. Without FILE, or with -, it reads standard input.

  -w   write the result to the file
  -d   print what would change; exit status 1 when something would

Exit status: 0 done, 1 with -d: something would change, 2 a file cannot be read or written.
`

type options struct {
	write, diff bool
	files       []string
}

var errHelp = errors.New("help")

func parse(args []string) (options, error) {
	var o options
	words := false // behind --
	for _, a := range args {
		switch {
		case words || len(a) < 2 || a[0] != '-':
			o.files = append(o.files, a)
		case a == "--":
			words = true
		case a == "-h" || a == "--help" || a == "-help":
			return o, errHelp
		case strings.Trim(a[1:], "wd") == "":
			o.write = o.write || strings.Contains(a, "w")
			o.diff = o.diff || strings.Contains(a, "d")
		default:
			return o, fmt.Errorf("unknown option %s", a)
		}
	}
	if len(o.files) == 0 {
		o.files = []string{"-"}
	}
	for _, f := range o.files {
		if o.write && f == "-" {
			return o, errors.New("-w needs a file: standard input has none to write to")
		}
	}
	return o, nil
}

// Main runs the command with the words behind "fmt" and gives the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if errors.Is(err, errHelp) {
		io.WriteString(stdout, usage)
		return Done
	}
	if err != nil {
		fmt.Fprintf(stderr, "ballast fmt: %v\n%s", err, usage)
		return Cannot
	}
	code := Done
	for _, f := range o.files {
		differs, err := o.one(f, stdin, stdout)
		if err != nil {
			fmt.Fprintf(stderr, "ballast fmt: %v\n", err)
			code = Cannot
		}
		if differs && o.diff && code == Done {
			code = Differ
		}
	}
	return code
}

func (o *options) one(name string, stdin io.Reader, stdout io.Writer) (differs bool, err error) {
	text, mode, err := read(name, stdin)
	if err != nil {
		return false, err
	}
	after := layout.Format(text)
	differs = after != text
	if o.diff && differs {
		if _, err := fmt.Fprintf(stdout, "--- %s\n+++ %s, laid out\n%s", name, name, hunks(text, after)); err != nil {
			return differs, err
		}
	}
	switch {
	case o.write && differs:
		return differs, write(name, after, mode)
	case !o.write && !o.diff:
		_, err = io.WriteString(stdout, after)
	}
	return differs, err
}

// hunks is the difference without the lines that name its sides.
func hunks(a, b string) string {
	d := configs.Diff(a, b)
	if i := strings.Index(d, "@@"); i > 0 {
		d = d[i:]
	}
	return strings.TrimSuffix(d, "\n") + "\n"
}

func read(name string, stdin io.Reader) (text string, mode os.FileMode, err error) {
	in := stdin
	if name == "-" {
		name = "<stdin>"
	} else {
		// A named pipe must not make us wait.
		f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return "", 0, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return "", 0, err
		}
		if !st.Mode().IsRegular() {
			return "", 0, fmt.Errorf("%s is no regular file", name)
		}
		in, mode = f, st.Mode().Perm()
	}
	b, err := io.ReadAll(io.LimitReader(in, maxText+1))
	if err == nil && len(b) > maxText {
		err = fmt.Errorf("%s is larger than %d MB, too large for a configuration", name, maxText>>20)
	}
	return string(b), mode, err
}

// write replaces a file as a whole: whoever reads it meanwhile, and a machine
// that loses power, has the old text or the new one. A link stays a link.
func write(name, text string, mode os.FileMode) (err error) {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".fmt-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	var st syscall.Stat_t
	if syscall.Stat(path, &st) == nil {
		// Only root can give a file away; for anybody else it is theirs already,
		// or not to be replaced.
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			f.Close()
			return err
		}
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
