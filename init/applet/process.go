package applet

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepalivedName is how our vrrp process looks to a script.
const keepalivedName = "keepalived"

// process is one process as ps sees it.
type process struct {
	pid, ppid int
	uid       uint32
	comm      string
	args      []string // empty: a kernel thread, or a zombie
	state     byte
	ticks     uint64 // user and system time, in 1/100 s
	start     uint64 // after boot, in 1/100 s
	vsize     uint64 // bytes
	rss       int64  // pages
}

// processes reads /proc. Our vrrp process goes by the name of keepalived while
// keepalived would be running, and is left out while it would not.
func processes() []process {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var out []process
	for _, dir := range names {
		p, ok := readProcess(dir)
		if !ok {
			continue
		}
		if isVRRP(p.args) {
			p.comm = keepalivedName
			p.args = []string{"/usr/sbin/" + keepalivedName, "--dont-fork"}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b process) int { return a.pid - b.pid })
	if slices.ContainsFunc(out, func(p process) bool { return p.comm == keepalivedName }) {
		if active, known := keepalivedActive(); known && !active {
			out = slices.DeleteFunc(out, func(p process) bool { return p.comm == keepalivedName })
		}
	}
	return out
}

// isVRRP knows the command line that init gives the vrrp service: "ballast run
// vrrp".
func isVRRP(args []string) bool {
	return len(args) == 3 && path.Base(args[0]) == "ballast" && args[2] == "vrrp"
}

func readProcess(dir string) (process, bool) {
	var p process
	pid, err := strconv.Atoi(path.Base(dir))
	if err != nil {
		return p, false
	}
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false // it ended
	}
	// The name is in parentheses and may hold anything, also parentheses.
	i, j := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if i < 0 || j < i {
		return p, false
	}
	f := strings.Fields(string(b[j+1:]))
	if len(f) < 22 {
		return p, false
	}
	p.pid, p.comm, p.state = pid, string(b[i+1:j]), f[0][0]
	p.ppid, _ = strconv.Atoi(f[1])
	ut, _ := strconv.ParseUint(f[11], 10, 64)
	st, _ := strconv.ParseUint(f[12], 10, 64)
	p.ticks = ut + st
	p.start, _ = strconv.ParseUint(f[19], 10, 64)
	p.vsize, _ = strconv.ParseUint(f[20], 10, 64)
	p.rss, _ = strconv.ParseInt(f[21], 10, 64)
	if b, err := os.ReadFile(dir + "/cmdline"); err == nil && len(b) > 0 {
		p.args = strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	}
	var st2 unix.Stat_t
	if unix.Stat(dir, &st2) == nil {
		p.uid = st2.Uid
	}
	return p, true
}

// is reports whether the process is called that: by its name, by the file that
// it runs, or, for a script, by the script's file.
func (p *process) is(name string) bool {
	if strings.Contains(name, "/") {
		return len(p.args) > 0 && p.args[0] == name
	}
	if p.comm == name || len(name) > 15 && p.comm == name[:15] {
		return true
	}
	if len(p.args) > 0 && path.Base(strings.TrimSuffix(p.args[0], ":")) == name {
		return true
	}
	return false
}

func (p *process) line() string {
	if len(p.args) == 0 {
		return "[" + p.comm + "]"
	}
	return strings.Join(p.args, " ")
}

// signalOf reads "9", "KILL", "SIGKILL".
func signalOf(s string) (syscall.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return syscall.Signal(n), n >= 0 && n <= 64
	}
	s = strings.ToUpper(s)
	if s == "EXIT" {
		return 0, true
	}
	n := unix.SignalNum("SIG" + strings.TrimPrefix(s, "SIG"))
	return n, n != 0
}

// send signals a process. A signal that ends our vrrp makes this director
// resign instead; vrrp itself goes on, and so does what supervises it.
func (e *env) send(p *process, sig syscall.Signal) error {
	if p.comm == keepalivedName {
		switch sig {
		case syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL, syscall.SIGQUIT:
			return resign(e.name)
		}
		return nil // 0: it is there; HUP: a configuration is committed, not reloaded
	}
	err := unix.Kill(p.pid, sig)
	if sig == 0 && err == unix.EPERM {
		return nil // it is there, and that was the question
	}
	return err
}

// killall: "killall [-0|-SIG|-s SIG] [-eqvwIi] NAME…"; code 1 when a name has
// no process.
func killall(e *env, args []string) int {
	sig, quiet := syscall.SIGTERM, false
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		a := args[0]
		args = args[1:]
		switch a {
		case "--":
		case "-q", "--quiet":
			quiet = true
			continue
		case "-e", "-v", "-w", "-I", "-i", "-g", "-r", "--exact", "--verbose", "--wait":
			continue
		case "-s", "--signal":
			if len(args) == 0 {
				return e.fail(1, "%s: want a signal", a)
			}
			a, args = "-"+args[0], args[1:]
			fallthrough
		default:
			s, ok := signalOf(strings.TrimPrefix(strings.TrimPrefix(a, "--signal="), "-"))
			if !ok {
				return e.fail(1, "%s: unknown signal", a)
			}
			sig = s
			continue
		}
		break
	}
	if len(args) == 0 {
		return e.fail(1, "want the name of a process")
	}
	code := 0
	all := processes()
	for _, name := range args {
		found := false
		for i := range all {
			p := &all[i]
			if p.pid == os.Getpid() || !p.is(name) {
				continue
			}
			if err := e.send(p, sig); err != nil {
				fmt.Fprintf(e.stderr, "%s(%d): %v\n", name, p.pid, err)
				continue
			}
			found = true
		}
		if !found {
			code = 1
			if !quiet {
				fmt.Fprintf(e.stderr, "%s: no process found\n", name)
			}
		}
	}
	return code
}

// pidof prints the numbers, newest first, on one line.
func pidof(e *env, args []string) int {
	var pids []string
	one, quiet := false, false
	var names []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-s":
			one = true
		case a == "-q":
			quiet = true
		case a == "-o":
			i++
		case strings.HasPrefix(a, "-"):
		default:
			names = append(names, a)
		}
	}
	all := processes()
	slices.Reverse(all)
	for i := range all {
		p := &all[i]
		if p.pid != os.Getpid() && slices.ContainsFunc(names, p.is) {
			pids = append(pids, strconv.Itoa(p.pid))
		}
	}
	if len(pids) == 0 {
		return 1
	}
	if one {
		pids = pids[:1]
	}
	if !quiet {
		e.outf("%s\n", strings.Join(pids, " "))
	}
	return 0
}

// pgrep is pgrep and pkill: "pgrep [-fxclav] [-SIG] PATTERN".
func pgrep(e *env, args []string) int {
	sig := syscall.SIGTERM
	var full, exact, count, long, invert bool
	pattern := ""
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-u" || a == "-U" || a == "-P" || a == "-g" || a == "-s" || a == "-t" || a == "-d":
			i++
		case len(a) > 1 && a[0] == '-':
			if s, ok := signalOf(a[1:]); ok && e.name == "pkill" {
				sig = s
				continue
			}
			for _, c := range a[1:] {
				switch c {
				case 'f':
					full = true
				case 'x':
					exact = true
				case 'c':
					count = true
				case 'l', 'a':
					long = true
				case 'v':
					invert = true
				}
			}
		default:
			pattern = a
		}
	}
	if pattern == "" {
		return e.fail(2, "want a pattern")
	}
	if exact {
		pattern = "^(?:" + pattern + ")$"
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return e.fail(2, "%v", err)
	}
	n := 0
	all := processes()
	for i := range all {
		p := &all[i]
		text := p.comm
		if full {
			text = p.line()
		}
		if p.pid == os.Getpid() || re.MatchString(text) == invert {
			continue
		}
		if e.name == "pkill" {
			if err := e.send(p, sig); err != nil {
				e.fail(0, "killing pid %d failed: %v", p.pid, err)
				continue
			}
		} else if !count {
			if long {
				e.outf("%d %s\n", p.pid, text)
			} else {
				e.outf("%d\n", p.pid)
			}
		}
		n++
	}
	if count {
		e.outf("%d\n", n)
	}
	if n == 0 {
		return 1
	}
	return 0
}

// kill is "kill [-SIG|-s SIG] PID…".
func kill(e *env, args []string) int {
	sig := syscall.SIGTERM
	var pids []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-s" || a == "-n":
			i++
			if i < len(args) {
				a = "-" + args[i]
			}
			fallthrough
		case strings.HasPrefix(a, "-") && len(pids) == 0 && a != "--":
			s, ok := signalOf(a[1:])
			if !ok {
				return e.fail(1, "%s: unknown signal", a)
			}
			sig = s
		case a == "--":
		default:
			pids = append(pids, a)
		}
	}
	if len(pids) == 0 {
		return e.fail(2, "want the number of a process")
	}
	code := 0
	all := processes()
	for _, a := range pids {
		n, err := strconv.Atoi(a)
		if err != nil {
			code = e.fail(1, "%s: want the number of a process", a)
			continue
		}
		p := process{pid: n}
		if i := slices.IndexFunc(all, func(p process) bool { return p.pid == n }); i >= 0 {
			p = all[i]
		}
		if err := e.send(&p, sig); err != nil {
			code = e.fail(1, "(%d) - %v", n, err)
		}
	}
	return code
}
