// Node is the one program of a lab VM that is not a director: its init, the
// agent that takes orders from the lab process (package wire), the servers and
// the probes that it starts in network namespaces, and the kernel's modprobe.
//
//	node            as PID 1: mount, load modules, start the agent
//	node agent      the agent
//	node serve      one real server; its argument is a wire.Serve in JSON
//	node probe      a client; its argument is a wire.Probe in JSON
//	node get, ftp, ping   one question, see there
//	modprobe NAME   load a module by name or alias
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run() error {
	if filepath.Base(os.Args[0]) == "modprobe" {
		return modprobe(os.Args[1:])
	}
	if os.Getpid() == 1 {
		return initVM()
	}
	if len(os.Args) < 2 {
		return fmt.Errorf("want one of: agent, serve, probe")
	}
	switch os.Args[1] {
	case "agent":
		return agent()
	case "serve":
		return serve(os.Args[2:])
	case "probe":
		return probe(os.Args[2:])
	case "get":
		return get(os.Args[2:])
	case "ftp":
		return ftp(os.Args[2:])
	case "ping":
		return ping(os.Args[2:])
	}
	return fmt.Errorf("unknown command %q", os.Args[1])
}
