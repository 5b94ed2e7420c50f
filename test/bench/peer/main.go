// Peer is what a VM with keepalived in it does beside the lab's node program:
// its network, keepalived itself, and the figures of its processes. It stands
// for the few lines of a boot script and costs the VM as little.
//
//	rc boot     set the network up as /etc/peer.json says and become keepalived
//	rc start    become keepalived
//	rc stop     SIGTERM to keepalived's first process, then wait for its end
//	rc memory   print the Memory of keepalived's processes in JSON
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/test/bench/peer/box"
)

// keepalived is where the image has it.
const keepalived = "/bin/keepalived"

// pidFile is where keepalived writes its first process.
const pidFile = "/run/keepalived.pid"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rc:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("want one of: boot, start, stop, memory")
	}
	switch args[0] {
	case "boot":
		if err := network(); err != nil {
			return err
		}
		return start()
	case "start":
		return start()
	case "stop":
		return stop()
	case "memory":
		m, err := memory()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(m)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func network() error {
	b, err := os.ReadFile(box.File)
	if err != nil {
		return err
	}
	var c box.Config
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("%s: %w", box.File, err)
	}
	if err := unix.Sethostname([]byte(c.HostName)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	for name, value := range c.Sysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	for _, n := range c.NICs {
		l := linkWith(links, n.MAC)
		if l == nil {
			return fmt.Errorf("no NIC has the address %s", n.MAC)
		}
		for _, p := range n.Addresses {
			if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("address %s: %w", p, err)
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("link %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

func linkWith(links []netlink.Link, mac string) netlink.Link {
	for _, l := range links {
		if strings.EqualFold(l.Attrs().HardwareAddr.String(), mac) {
			return l
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// start becomes keepalived, in the foreground and with its log going nowhere,
// which is the least work for it. It is in a process group and session of its
// own, as under a service manager.
func start() error {
	unix.Setsid() // fails for the leader of a group, which is fine
	return fmt.Errorf("%s: %w", keepalived, unix.Exec(keepalived, []string{"keepalived", "--dont-fork", "--use-file", box.Conf}, os.Environ()))
}

// stop signals one process only, as a service manager does with keepalived's
// own unit (KillMode=process).
func stop() error {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%s: %w", pidFile, err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	for range 1000 {
		if left, err := processes(); err != nil || len(left) == 0 {
			return err
		}
		time.Sleep(20 * time.Millisecond) // not our children: nobody tells us
	}
	return errors.New("keepalived does not end")
}

// processes are the pids of keepalived's processes.
func processes() ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil || !strings.HasPrefix(string(b), "keepalived") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(n)))
		if err != nil {
			continue
		}
		if st, err := os.ReadFile(filepath.Join(filepath.Dir(n), "stat")); err == nil {
			if i := bytes.LastIndexByte(st, ')'); i >= 0 && i+2 < len(st) && st[i+2] == 'Z' {
				continue // has ended, and waits for PID 1
			}
		}
		out = append(out, pid)
	}
	return out, nil
}

func memory() (box.Memory, error) {
	var m box.Memory
	pids, err := processes()
	if err != nil {
		return m, err
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, err
		}
		m.Processes++
		for line := range strings.Lines(string(b)) {
			var name string
			var kb uint64
			if n, _ := fmt.Sscanf(line, "%s %d kB", &name, &kb); n != 2 {
				continue
			}
			switch name {
			case "Rss:":
				m.RSS += kb << 10
			case "Pss:":
				m.PSS += kb << 10
			}
		}
	}
	return m, nil
}
