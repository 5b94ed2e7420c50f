// Package spaces is the part of the bench that needs no virtual machine: pairs
// of routers in network namespaces, ours as the processes of the box and
// keepalived's, on the same kind of switch, with the same clients and faults.
// It needs root and iproute2.
package spaces

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"ballast/test/probe"
)

// Net is two switches and three hosts: the boxes a and b are on both, the
// client c on the first. Host n has MAC 02::n and 192.168.200.n, on the second
// switch 10.9.0.n.
type Net struct {
	Dir  string
	name string
	undo []func()
}

var nets atomic.Int32

// New makes the namespaces. Close removes them, also after an error.
func New() (*Net, error) {
	n := &Net{name: fmt.Sprintf("bench%d-%d", os.Getpid(), nets.Add(1))}
	var err error
	if n.Dir, err = os.MkdirTemp("", "bench"); err != nil {
		return nil, fmt.Errorf("spaces: %w", err)
	}
	n.defers(func() { os.RemoveAll(n.Dir) })
	lines := map[string][]string{"sw": {
		"link add br0 type bridge mcast_snooping 0 forward_delay 0", "link set br0 up",
		"link add br1 type bridge mcast_snooping 0 forward_delay 0", "link set br1 up",
	}}
	for i, host := range []string{"a", "b", "c"} {
		for j, port := range []string{"p", "q"} {
			if host == "c" && j == 1 {
				continue
			}
			lines["sw"] = append(lines["sw"],
				fmt.Sprintf("link add %s%d type veth peer name eth%d address %s netns %s", port, i+1, j, mac(i, j), n.space(host)),
				fmt.Sprintf("link set %s%d master br%d up", port, i+1, j))
			lines[host] = append(lines[host],
				fmt.Sprintf("addr add %s/24 dev eth%d", []string{fmt.Sprintf("192.168.200.%d", i+1), fmt.Sprintf("10.9.0.%d", i+1)}[j], j),
				fmt.Sprintf("link set eth%d up", j))
		}
		lines[host] = append(lines[host], "link set lo up")
	}
	lines["c"] = append(lines["c"], "route add 10.77.0.0/16 dev eth0") // the virtual addresses are on the link
	for _, host := range []string{"sw", "a", "b", "c"} {
		if err := command("ip", "netns", "add", n.space(host)); err != nil {
			n.Close()
			return nil, fmt.Errorf("spaces: namespaces need root: %w", err)
		}
		n.defers(func() { command("ip", "netns", "del", n.space(host)) })
	}
	for _, host := range []string{"sw", "a", "b", "c"} {
		if err := n.ip(host, lines[host]...); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// MAC is that of a host on the first switch.
func (n *Net) MAC(host int) string { return mac(host, 0) }

func mac(host, link int) string { return fmt.Sprintf("02:00:00:00:%02x:%02x", link, host+1) }

// Close undoes everything, the last first.
func (n *Net) Close() {
	for i := len(n.undo) - 1; i >= 0; i-- {
		n.undo[i]()
	}
	n.undo = nil
}

func (n *Net) defers(fn func()) { n.undo = append(n.undo, fn) }

func (n *Net) space(host string) string { return n.name + "-" + host }

// ip runs lines of "ip" in a host's namespace, in one process.
func (n *Net) ip(host string, lines ...string) error {
	cmd := exec.Command("ip", "-n", n.space(host), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("spaces: ip in %s: %w: %s", host, err, bytes.TrimSpace(out))
	}
	return nil
}

func command(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// Power takes both links of a box away at the switches, or brings them back. Its
// own ends stay up: a dead box does not see that it is dead.
func (n *Net) Power(box int, on bool) error {
	if on {
		return n.ip("sw", fmt.Sprintf("link set p%d master br0", box+1), fmt.Sprintf("link set q%d master br1", box+1))
	}
	return n.ip("sw", fmt.Sprintf("link set p%d nomaster", box+1), fmt.Sprintf("link set q%d nomaster", box+1))
}

// Cable pulls a box's cable of the first switch, or plugs it in: the box sees
// its carrier go.
func (n *Net) Cable(box int, in bool) error {
	return n.ip("sw", fmt.Sprintf("link set p%d %s", box+1, map[bool]string{true: "up", false: "down"}[in]))
}

// Addresses are how many addresses under a prefix of text ("10.77.") a box has
// on its first link.
func (n *Net) Addresses(box int, prefix string) (int, error) {
	out, err := exec.Command("ip", "-n", n.space(hosts[box]), "-o", "-4", "addr", "show", "dev", "eth0").Output()
	if err != nil {
		return 0, fmt.Errorf("spaces: addresses of %s: %w", hosts[box], err)
	}
	return strings.Count(string(out), "inet "+prefix), nil
}

var hosts = []string{"a", "b", "c"}

// Echo answers every datagram to port 7 of both boxes, as real servers behind
// them would.
func (n *Net) Echo() error {
	for _, host := range hosts[:2] {
		stop, err := probe.Echo(n.space(host))
		if err != nil {
			return err
		}
		n.defers(stop)
	}
	return nil
}

// Client asks a virtual address on host c; it ends with the network.
func (n *Net) Client(vip netip.Addr) (*probe.Client, error) {
	c, stop, err := probe.Ask(n.space("c"), vip)
	if err == nil {
		n.defers(stop)
	}
	return c, err
}

// ARP asks from host c who has an address; it ends with the network.
func (n *Net) ARP() (*probe.ARP, error) {
	p, err := probe.NewARP(n.space("c"))
	if err == nil {
		n.defers(p.Close)
	}
	return p, err
}

func (n *Net) file(name string) string { return filepath.Join(n.Dir, name) }
