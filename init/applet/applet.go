// Package applet holds the commands of the one binary that users' scripts
// call: a shell, and the commands by which scripts of keepalived boxes look for
// processes, act on services and send mail. They answer as they would on a box
// where nothing but keepalived is installed: there is no nginx to find or to
// start, and whoever stops keepalived makes this director resign.
//
// The binary is linked under their names in /bin; u-root's commands are in
// /bbin. What a script may ask of the director goes through notify's socket for
// scripts, never around it.
package applet

import (
	"fmt"
	"io"

	"ballast/init/applet/names"
)

// command is one applet. args are without the name.
type command func(env *env, args []string) int

// env is what a command works with.
type env struct {
	name   string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

func (e *env) outf(format string, args ...any) { fmt.Fprintf(e.stdout, format, args...) }

// fail prints "name: text" and returns the code.
func (e *env) fail(code int, format string, args ...any) int {
	fmt.Fprintf(e.stderr, e.name+": "+format+"\n", args...)
	return code
}

var commands map[string]command

// Names are the commands that the binary answers to, sorted.
var Names = names.All

func init() {
	commands = map[string]command{
		"sh": shell, "bash": shell, "ash": shell, "dash": shell,
		"killall": killall, "pidof": pidof, "pgrep": pgrep, "pkill": pgrep, "ps": ps, "kill": kill,
		"systemctl": systemctl, "service": service,
		"mail": sendMail, "mailx": sendMail, "logger": logger, "ping": ping, "ping6": ping, "curl": curl, "nc": nc, "cut": cut,
	}
}

// Main runs the command of that name. args do not hold the name. ok is false
// when there is no such command; nothing was done then.
func Main(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int, ok bool) {
	c := commands[name]
	if c == nil {
		return 0, false
	}
	return c(&env{name, stdin, stdout, stderr}, args), true
}
