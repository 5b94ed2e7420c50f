// Ballast is the firmware of an LVS director, all of it in one static binary:
// PID 1, and each service that PID 1 starts.
//
//	ballast                as PID 1: boot and supervise
//	ballast run NAME       one service; init starts it so
//	ballast check FILE     check a configuration on any Linux machine
//	ballast fmt FILE       lay a configuration out
//	ballast flash X DISK   write a director's disk on any Linux machine
//	ballast bundle …       look at a firmware bundle, or check it
//	ballast version        what this is
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"ballast/init/bundle"
	"ballast/init/jail"
	"ballast/init/kmod"
	"ballast/init/netseed"
)

// version is set by the build.
var version = "dev"

func main() { os.Exit(dispatch(os.Args)) }

// dispatch does what the binary is called for and returns the exit status.
func dispatch(args []string) int {
	name := "ballast"
	if len(args) > 0 {
		name = filepath.Base(args[0])
	}
	switch {
	case os.Getpid() == 1:
		pid1()
		return 1 // never: PID 1 does not end
	case name == "modprobe":
		return modprobe(args[1:])
	case isApplet(name):
		return runApplet(name, args)
	}
	if len(args) < 2 {
		usage(os.Stderr)
		return 2
	}
	switch verb := args[1]; {
	case verb == "run" && len(args) == 3:
		return runService(args[2])
	case verb == "netseed" && len(args) == 2:
		if err := jail.Apply(jail.Policy{}); err != nil {
			fmt.Fprintln(os.Stderr, "<3>"+err.Error()) // it goes on: a box that comes up is better
		}
		return netseed.Main()
	case verb == "check":
		return runCheck(args[2:])
	case verb == "fmt":
		return runFormat(args[2:])
	case verb == "flash":
		return runFlash(args[2:])
	case verb == "bundle":
		return bundle.Main(args[2:], os.Stdin, os.Stdout, os.Stderr)
	case verb == "version", verb == "--version":
		fmt.Printf("ballast %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	case verb == "help", verb == "--help", verb == "-h":
		usage(os.Stdout)
		return 0
	case isApplet(verb):
		return runApplet(verb, args[1:])
	}
	fmt.Fprintf(os.Stderr, "ballast: unknown command %q\n", strings.Join(args[1:], " "))
	usage(os.Stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, `usage:
  ballast check FILE    check a keepalived.conf: exit status 0 clean, 1 notes, 2 cannot run
  ballast fmt FILE      lay a configuration out; -w writes the file, -d shows what would change
  ballast flash FILE DISK
                        write a director's disk from disk.img or a signed bundle
  ballast bundle        look at a firmware bundle: verify FILE [KEY], inspect FILE
  ballast version       show the version
  ballast help          show this

On a director it is /init; "ballast run SERVICE" is how init starts a service.
`)
}

// modprobe is what the kernel calls when it wants a module: "modprobe -q -- NAME".
func modprobe(args []string) int {
	cmdline, _ := os.ReadFile("/proc/cmdline")
	l, err := kmod.Open(string(cmdline))
	if err != nil {
		fmt.Fprintln(os.Stderr, "modprobe:", err)
		return 1
	}
	code := 0
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			continue
		}
		if err := l.Load(a); err != nil {
			fmt.Fprintln(os.Stderr, "modprobe:", err)
			code = 1
		}
	}
	return code
}
