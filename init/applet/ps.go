package applet

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ps knows what scripts use: "-C NAME", "-ef", "-e", "-A", "aux", "ax",
// "-p PID", "-o FIELD,…", "--no-header(s)". There is one terminal at most, so all
// processes are shown unless -C or -p picks some. With -C or -p the code is 1 when
// nothing was found.
func ps(e *env, args []string) int {
	var names, pids, fields []string
	header, userFormat, full := true, false, false
	value := func(i *int, a string, n int) string {
		if len(a) > n {
			return a[n:]
		}
		if *i++; *i < len(args) {
			return args[*i]
		}
		return ""
	}
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--no-header" || a == "--no-headers" || a == "--no-heading" || a == "--no-headings":
			header = false
		case strings.HasPrefix(a, "--"):
		case strings.HasPrefix(a, "-C"):
			names = append(names, strings.Split(value(&i, a, 2), ",")...)
		case strings.HasPrefix(a, "-p") || strings.HasPrefix(a, "-q"):
			pids = append(pids, strings.Split(value(&i, a, 2), ",")...)
		case strings.HasPrefix(a, "-o"):
			fields = append(fields, strings.Split(value(&i, a, 2), ",")...)
		default:
			dash := strings.HasPrefix(a, "-")
			for k, c := range strings.TrimPrefix(a, "-") {
				switch c {
				case 'f':
					full = dash
				case 'u':
					userFormat = true
				case 'h':
					header = dash && header
				case 'o':
					rest := strings.TrimPrefix(a, "-")[k+1:]
					if rest == "" {
						if i++; i < len(args) {
							rest = args[i]
						}
					}
					fields = append(fields, strings.Split(rest, ",")...)
				}
				if c == 'o' {
					break
				}
			}
		}
	}
	var rows []process
	every := processes()
	for i := range every {
		p := &every[i]
		if len(names)+len(pids) > 0 && !slices.ContainsFunc(names, p.is) && !slices.Contains(pids, strconv.Itoa(p.pid)) {
			continue
		}
		rows = append(rows, *p)
	}
	switch {
	case len(fields) > 0:
		e.psFields(rows, fields, header)
	case userFormat:
		e.psUser(rows, header)
	default:
		e.psPlain(rows, header, full)
	}
	if len(rows) == 0 {
		return 1
	}
	return 0
}

func cpuTime(ticks uint64) string {
	s := ticks / 100
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

func (e *env) psPlain(rows []process, header, full bool) {
	if full {
		if header {
			e.outf("UID          PID    PPID  C STIME TTY          TIME CMD\n")
		}
		for i := range rows {
			p := &rows[i]
			e.outf("%-8s %7d %7d  0 %5s ?        %s %s\n", userName(p.uid), p.pid, p.ppid, startedAt(p), cpuTime(p.ticks), p.line())
		}
		return
	}
	if header {
		e.outf("    PID TTY          TIME CMD\n")
	}
	for i := range rows {
		e.outf("%7d ?        %s %s\n", rows[i].pid, cpuTime(rows[i].ticks), rows[i].comm)
	}
}

func (e *env) psUser(rows []process, header bool) {
	if header {
		e.outf("USER         PID %%CPU %%MEM    VSZ   RSS TTY      STAT START   TIME COMMAND\n")
	}
	for i := range rows {
		p := &rows[i]
		e.outf("%-8s %7d  0.0  0.0 %6d %5d ?        %-4c %5s %3d:%02d %s\n", userName(p.uid), p.pid,
			p.vsize>>10, p.rss*int64(os.Getpagesize())>>10, p.state, startedAt(p), p.ticks/6000, p.ticks/100%60, p.line())
	}
}

// psFields prints "-o pid,comm" and "-o pid=": a name that ends in = has no
// header.
func (e *env) psFields(rows []process, fields []string, header bool) {
	var head []string
	some := false
	for i, f := range fields {
		name, title, own := strings.Cut(f, "=")
		fields[i] = name
		if !own {
			title = strings.ToUpper(name)
		}
		some = some || title != ""
		head = append(head, title)
	}
	if header && some {
		e.outf("%s\n", strings.Join(head, " "))
	}
	for i := range rows {
		p := &rows[i]
		var out []string
		for _, f := range fields {
			s := "-"
			switch f {
			case "pid":
				s = strconv.Itoa(p.pid)
			case "ppid":
				s = strconv.Itoa(p.ppid)
			case "comm", "ucmd", "ucomm":
				s = p.comm
			case "args", "cmd", "command":
				s = p.line()
			case "user", "uname", "euser":
				s = userName(p.uid)
			case "uid", "euid":
				s = strconv.FormatUint(uint64(p.uid), 10)
			case "stat", "state", "s":
				s = string(p.state)
			case "rss", "rssize":
				s = strconv.FormatInt(p.rss*int64(os.Getpagesize())>>10, 10)
			case "vsz", "vsize":
				s = strconv.FormatUint(p.vsize>>10, 10)
			case "time", "cputime":
				s = cpuTime(p.ticks)
			case "etimes":
				s = strconv.FormatInt(int64(time.Since(startTime(p)).Seconds()), 10)
			}
			out = append(out, s)
		}
		e.outf("%s\n", strings.Join(out, " "))
	}
}

func startTime(p *process) time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(ts.Nano()) + time.Duration(p.start)*10*time.Millisecond)
}

func startedAt(p *process) string {
	t := startTime(p)
	if time.Since(t) > 24*time.Hour {
		return t.Format("Jan02")
	}
	return t.Format("15:04")
}

// userName looks into /etc/passwd, without what os/user would link in.
func userName(uid uint32) string {
	b, err := os.ReadFile("/etc/passwd")
	if err == nil {
		want := strconv.FormatUint(uint64(uid), 10)
		for line := range strings.SplitSeq(string(b), "\n") {
			if f := strings.Split(line, ":"); len(f) > 2 && f[2] == want {
				return f[0]
			}
		}
	}
	return strconv.FormatUint(uint64(uid), 10)
}
