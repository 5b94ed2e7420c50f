package applet

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// maxScript bounds what is read as a script.
const maxScript = 4 << 20

// shell is sh and bash: "sh -c LINE [NAME ARG…]", "sh FILE ARG…", "sh" with the
// script on standard input. Both names take bash's language, which holds sh's.
func shell(e *env, args []string) int {
	var flags []string
	line, haveLine := "", false
options:
	for len(args) > 0 {
		a := args[0]
		switch {
		case a == "--" || a == "-":
			args = args[1:]
			break options
		case a == "-o" || a == "+o":
			if len(args) < 2 {
				return e.fail(2, "%s: want the name of an option", a)
			}
			flags = append(flags, a, args[1])
			args = args[2:]
		case strings.HasPrefix(a, "--"): // --login, --norc, --posix, …
			args = args[1:]
		case len(a) > 1 && (a[0] == '-' || a[0] == '+'):
			args = args[1:]
			for _, c := range a[1:] {
				switch c {
				case 'c':
					haveLine = true
				case 'l', 'i', 's', 'p', 'v', 'h', 'B', 'm', 'b': // no difference here
				default:
					flags = append(flags, string(a[0])+string(c))
				}
			}
		default:
			break options
		}
	}
	name := e.name
	var text io.Reader
	switch {
	case haveLine:
		if len(args) == 0 {
			return e.fail(2, "-c: want a command line")
		}
		line, args = args[0], args[1:]
		text = strings.NewReader(line)
		if len(args) > 0 {
			name, args = args[0], args[1:]
		}
	case len(args) > 0:
		name, args = args[0], args[1:]
		f, err := os.Open(name)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return e.fail(127, "%s: No such file or directory", name)
			}
			return e.fail(126, "%s: %v", name, errors.Unwrap(err))
		}
		defer f.Close()
		text = f
	default:
		text = e.stdin
	}
	return e.interpret(name, text, flags, args)
}

func (e *env) interpret(name string, text io.Reader, flags, args []string) (code int) {
	defer func() {
		// A script that the interpreter cannot cope with is a failing script.
		if p := recover(); p != nil {
			code = e.fail(2, "%s: the interpreter failed: %v", name, p)
		}
	}()
	b, err := io.ReadAll(io.LimitReader(text, maxScript+1))
	switch {
	case err != nil:
		return e.fail(126, "%s: %v", name, err)
	case len(b) > maxScript:
		return e.fail(126, "%s: longer than %d MiB", name, maxScript>>20)
	}
	// Files that were edited on Windows end their lines with CR LF.
	src := strings.ReplaceAll(string(b), "\r\n", "\n")
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(src), name)
	if err != nil {
		return e.fail(2, "%v", err)
	}
	r, err := interp.New(
		interp.StdIO(e.stdin, e.stdout, e.stderr),
		interp.ExecHandlers(e.execApplets),
		interp.OpenHandler(open),
		interp.Params(append(append(flags, "--"), args...)...),
	)
	if err != nil {
		return e.fail(2, "%v", err)
	}
	// SIGTERM keeps its default: a script whose time is up ends at once.
	err = r.Run(context.Background(), file)
	var status interp.ExitStatus
	switch {
	case errors.As(err, &status):
		return int(status)
	case err != nil:
		return e.fail(1, "%v", err)
	}
	return 0
}

// execApplets runs our own commands inside this process: a check script of ten
// commands then costs one process, not ten of this binary.
func (e *env) execApplets(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		name := args[0]
		for _, dir := range []string{"/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/"} {
			if n, ok := strings.CutPrefix(name, dir); ok && missing(name) {
				name = n // "/usr/bin/killall" of a Debian box is our killall
			}
		}
		switch name {
		case "sh", "bash", "ash", "dash":
			// A shell is a process of its own: its cd, exec and exit are not ours.
		default:
			if commands[name] == nil {
				break
			}
			hc := interp.HandlerCtx(ctx)
			code, _ := Main(name, args[1:], hc.Stdin, hc.Stdout, hc.Stderr)
			if code == 0 {
				return nil
			}
			return interp.ExitStatus(code)
		}
		return next(ctx, args)
	}
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

var openFile = interp.DefaultOpenHandler()

// open adds bash's /dev/tcp/HOST/PORT and /dev/udp/HOST/PORT, the favourite
// port check of scripts.
func open(ctx context.Context, path string, flag int, perm os.FileMode) (io.ReadWriteCloser, error) {
	for _, proto := range []string{"tcp", "udp"} {
		rest, ok := strings.CutPrefix(path, "/dev/"+proto+"/")
		if !ok {
			continue
		}
		host, port, ok := strings.Cut(rest, "/")
		if !ok {
			break
		}
		d := net.Dialer{Timeout: 30 * time.Second}
		return d.DialContext(ctx, proto, net.JoinHostPort(host, port))
	}
	return openFile(ctx, path, flag, perm)
}
