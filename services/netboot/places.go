package netboot

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"strings"
)

// places are where the service finds things, so that a test has its own.
type places struct {
	hostName func() string
	links    func() []link
	arp      string // the kernel's neighbours
	disks    string // block devices that init gave
	cmdline  string
	image    string // files of the image
}

var onBox = places{hostName: hostName, links: kernelLinks, arp: "/proc/net/arp", disks: "/run/ballast-disk", cmdline: "/proc/cmdline",
	image: "/etc/ballast"}

func hostName() string {
	h, _ := os.Hostname() // none: the name of no box
	return h
}

// kernelLinks lists the IPv4 networks of this box.
func kernelLinks() (out []link) {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range list {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagBroadcast == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Is4() {
				out = append(out, link{i.Name, p})
			}
		}
	}
	return out
}

// neighbour is the MAC that the kernel knows for an address on an interface;
// empty: none.
func neighbour(table []byte, dev string, a netip.Addr) string {
	for line := range bytes.Lines(table) {
		// IP address, HW type, flags, HW address, mask, device
		f := strings.Fields(string(line))
		if len(f) == 6 && f[0] == a.String() && f[5] == dev && f[2] != "0x0" {
			return strings.ToLower(f[3])
		}
	}
	return ""
}
