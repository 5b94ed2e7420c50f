package applet

import (
	"context"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// maxMail bounds the body of a message that a script pipes into mail.
const maxMail = 1 << 20

// director is the socket by which scripts reach the director.
func director() *ipc.Client {
	dir := os.Getenv("BALLAST_SCRIPT")
	if dir == "" {
		dir = "@ballast"
	}
	return ipc.Dir(dir).Client("script")
}

// callTime bounds every question to the director: scripts have timeouts of a
// second.
const callTime = 3 * time.Second

func call(verb string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	return director().Call(ctx, verb, in, out)
}

// keepalivedActive asks whether keepalived would be running. known is false
// when nobody answers.
func keepalivedActive() (active, known bool) {
	var k status.Keepalived
	if err := call("keepalived", nil, &k); err != nil {
		return false, false
	}
	return k.Active, true
}

func resign(by string) error { return call("resign", status.Resign{By: by}, nil) }

// systemctl knows one unit, keepalived: stop makes this director resign, start
// lets it take part again. Any other unit is answered as systemd answers for
// one that is not installed.
func systemctl(e *env, args []string) int {
	var words []string
	quiet, now := false, false
	for _, a := range args {
		switch {
		case a == "-q" || a == "--quiet":
			quiet = true
		case a == "--now":
			now = true
		case strings.HasPrefix(a, "-"):
		default:
			words = append(words, a)
		}
	}
	if len(words) == 0 {
		return e.fail(1, "want a command and a unit, as in: systemctl stop keepalived")
	}
	verb, units := words[0], words[1:]
	switch verb {
	case "daemon-reload", "daemon-reexec", "reset-failed":
		return 0
	}
	if len(units) == 0 {
		return e.fail(1, "%s: want the name of a unit", verb)
	}
	code := 0
	for _, u := range units {
		if c := e.unit(verb, strings.TrimSuffix(u, ".service"), quiet, now); c != 0 {
			code = c
		}
	}
	return code
}

func (e *env) unit(verb, unit string, quiet, now bool) int {
	say := func(s string) {
		if !quiet {
			e.outf("%s\n", s)
		}
	}
	if unit == keepalivedName {
		active, known := keepalivedActive()
		if !known {
			return e.fail(1, "the director does not answer")
		}
		switch verb {
		case "is-active", "status", "show", "is-failed":
			return unitState(verb, active, say)
		case "is-enabled":
			say("enabled")
			return 0
		case "stop", "kill":
			return e.done(resign(e.name + " " + verb))
		case "start":
			return e.done(call("resume", nil, nil))
		case "restart", "try-restart", "condrestart":
			if err := resign(e.name + " " + verb); err != nil {
				return e.done(err)
			}
			return e.done(call("resume", nil, nil))
		case "reload", "force-reload", "reload-or-restart", "unmask", "mask":
			return 0 // the configuration is committed, not reloaded
		case "enable":
			if now {
				return e.done(call("resume", nil, nil))
			}
			return 0
		case "disable":
			if now {
				return e.done(resign(e.name + " disable --now"))
			}
			return 0
		}
		return e.fail(1, "Unknown command verb %s.", verb)
	}
	switch verb {
	case "is-active":
		say("inactive")
		return 3
	case "is-failed":
		say("inactive")
		return 1
	case "status":
		return e.notFound(4, "Unit %s.service could not be found.", unit)
	case "stop", "kill":
		return e.notFound(5, "Failed to stop %s.service: Unit %s.service not loaded.", unit, unit)
	case "is-enabled":
		return e.notFound(1, "Failed to get unit file state for %s.service: No such file or directory", unit)
	case "enable", "disable", "mask", "unmask":
		return e.notFound(1, "Failed to %s unit: Unit file %s.service does not exist.", verb, unit)
	case "start", "restart", "reload", "try-restart", "reload-or-restart", "force-reload", "condrestart":
		return e.notFound(5, "Failed to %s %s.service: Unit %s.service not found.", verb, unit, unit)
	}
	return e.fail(1, "Unknown command verb %s.", verb)
}

func unitState(verb string, active bool, say func(string)) int {
	word, code := "active", 0
	if !active {
		word, code = "inactive", 3
	}
	switch verb {
	case "status":
		say("* keepalived.service - Keepalive Daemon (LVS and VRRP), by ballast")
		say("     Active: " + word)
	case "show":
		say("ActiveState=" + word)
		return 0
	case "is-failed":
		say(word)
		return 1
	default:
		say(word)
	}
	return code
}

// notFound prints without the name of the command, as systemctl does.
func (e *env) notFound(code int, format string, args ...any) int {
	name := e.name
	e.name = ""
	defer func() { e.name = name }()
	io.WriteString(e.stderr, sprintLine(format, args...))
	return code
}

func (e *env) done(err error) int {
	if err != nil {
		return e.fail(1, "%v", err)
	}
	return 0
}

// service is "service UNIT VERB".
func service(e *env, args []string) int {
	var words []string
	for _, a := range args {
		if a == "--status-all" {
			if active, _ := keepalivedActive(); active {
				e.outf(" [ + ]  keepalived\n")
			} else {
				e.outf(" [ - ]  keepalived\n")
			}
			return 0
		}
		words = append(words, a)
	}
	if len(words) < 2 {
		return e.fail(1, "want a unit and a command, as in: service keepalived stop")
	}
	return e.unit(words[1], path.Base(words[0]), false, false)
}

// sendMail is "mail -s SUBJECT ADDRESS…" with the text on standard input. The
// message goes through the smtp_server of the configuration, and is queued: the
// code says whether it was taken, not whether it arrived.
func sendMail(e *env, args []string) int {
	var m status.Mail
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-s" && i+1 < len(args):
			i++
			m.Subject = args[i]
		case strings.HasPrefix(a, "-s") && len(a) > 2:
			m.Subject = a[2:]
		case a == "-r" || a == "-a" || a == "-A" || a == "-S" || a == "-q":
			i++
		case a == "-c" || a == "-b":
			if i++; i < len(args) {
				m.To = append(m.To, strings.Split(args[i], ",")...)
			}
		case a == "--":
		case strings.HasPrefix(a, "-"):
		default:
			for to := range strings.SplitSeq(a, ",") {
				if to = strings.TrimSpace(to); to != "" {
					m.To = append(m.To, to)
				}
			}
		}
	}
	b, err := io.ReadAll(io.LimitReader(e.stdin, maxMail))
	if err != nil {
		return e.fail(1, "standard input: %v", err)
	}
	m.Body = strings.TrimRight(string(b), "\n")
	return e.done(call("mail", m, nil))
}

// logger writes to standard error, which ends up in the log of the script.
func logger(e *env, args []string) int {
	tag := "root"
	if u := os.Getenv("LOGNAME"); u != "" {
		tag = u
	}
	var words []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-t" && i+1 < len(args):
			i++
			tag = args[i]
		case a == "-p" || a == "-f" || a == "-n" || a == "-P" || a == "-u":
			i++
		case a == "--":
			words = append(words, args[i+1:]...)
			i = len(args)
		case strings.HasPrefix(a, "-") && len(words) == 0:
		default:
			words = append(words, a)
		}
	}
	text := strings.Join(words, " ")
	if len(words) == 0 {
		b, err := io.ReadAll(io.LimitReader(e.stdin, maxMail))
		if err != nil {
			return e.fail(1, "standard input: %v", err)
		}
		text = strings.TrimRight(string(b), "\n")
	}
	for line := range strings.SplitSeq(text, "\n") {
		io.WriteString(e.stderr, tag+": "+line+"\n")
	}
	return 0
}
