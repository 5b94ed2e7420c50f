package net

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/url"
	"os"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/services/firewall"
	"ballast/services/ipc/support"
)

// ethStats is ETH_SS_STATS, the set of a card's counters.
const ethStats = 1

// supportFiles are what of the kernel everybody may read, and a question about
// a director may need.
var supportFiles = []string{
	"/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/cpuinfo", "/proc/meminfo", "/proc/vmstat", "/proc/buddyinfo", "/proc/zoneinfo", "/proc/stat", "/proc/interrupts", "/proc/softirqs",
	"/proc/modules", "/proc/mounts", "/proc/partitions", "/proc/diskstats", "/proc/iomem", "/proc/pressure/*", "/proc/schedstat",
	"/proc/net/dev", "/proc/net/snmp", "/proc/net/snmp6", "/proc/net/netstat", "/proc/net/softnet_stat", "/proc/net/sockstat", "/proc/net/sockstat6", "/proc/net/udp", "/proc/net/udp6",
	"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/raw", "/proc/net/packet", "/proc/net/ptype", "/proc/net/igmp", "/proc/net/igmp6", "/proc/net/dev_mcast", "/proc/net/arp", "/proc/net/protocols",
	"/proc/net/stat/*", "/proc/net/bonding/*", "/proc/net/ip_vs_stats", "/proc/net/ip_vs_stats_percpu",
}

// supportValues are sysctls and what /sys tells of the hardware.
var supportValues = map[string][]string{
	"sysctl-net.txt": {"/proc/sys/net/core/*", "/proc/sys/net/ipv4/*", "/proc/sys/net/ipv4/vs/*", "/proc/sys/net/ipv4/neigh/default/*", "/proc/sys/net/ipv4/conf/*/*", "/proc/sys/net/ipv6/conf/*/*",
		"/proc/sys/net/ipv6/*", "/proc/sys/net/netfilter/*", "/proc/sys/net/unix/*"},
	"sysctl-kernel.txt": {"/proc/sys/kernel/*", "/proc/sys/vm/*", "/proc/sys/fs/*"},
	"hardware/machine.txt": {"/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name", "/sys/class/dmi/id/product_version", "/sys/class/dmi/id/board_*", "/sys/class/dmi/id/bios_*",
		"/sys/devices/system/clocksource/clocksource0/*", "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/vulnerabilities/*", "/sys/devices/system/cpu/cpu0/cpufreq/*", "/sys/class/watchdog/*/*", "/sys/kernel/security/lockdown"},
	"hardware/pci.txt": {"/sys/bus/pci/devices/*/vendor", "/sys/bus/pci/devices/*/device", "/sys/bus/pci/devices/*/class", "/sys/bus/pci/devices/*/subsystem_*", "/sys/bus/pci/devices/*/driver",
		"/sys/bus/pci/devices/*/current_link_*", "/sys/bus/pci/devices/*/numa_node", "/sys/bus/pci/devices/*/aer_dev_*"},
	"hardware/disks.txt":   {"/sys/block/*/size", "/sys/block/*/device/model", "/sys/block/*/device/vendor", "/sys/block/*/device/state", "/sys/block/*/ro", "/sys/block/*/stat"},
	"hardware/sensors.txt": {"/sys/class/hwmon/*/name", "/sys/class/hwmon/*/*_input", "/sys/class/hwmon/*/*_alarm", "/sys/class/thermal/*/temp"},
	"links-sysfs.txt": {"/sys/class/net/*/device", "/sys/class/net/*/device/driver", "/sys/class/net/*/speed", "/sys/class/net/*/duplex", "/sys/class/net/*/carrier_changes", "/sys/class/net/*/flags",
		"/sys/class/net/*/queues/*/rps_cpus", "/sys/class/net/*/queues/*/byte_queue_limits/limit"},
}

// cmdLine is the kernel's command line without the word that lets its holder
// fetch a configuration over the network (docs/netboot.md).
func cmdLine(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		if u, ok := strings.CutPrefix(w, "ballast.source="); ok {
			host := ""
			if p, err := url.Parse(u); err == nil {
				host = p.Host
			}
			words[i] = "ballast.source=//" + host + "/********"
		}
	}
	return strings.Join(words, " ") + "\n"
}

// support tells of the machine and of the tables that net owns.
func (s *service) support(_ context.Context, w *support.Writer) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // the other one is the main loop's
	if err != nil {
		w.Add("links.txt", "", err)
	} else {
		defer h.Close()
		supportTables(h, w)
	}
	text, err := firewall.Describe()
	w.Add("nftables.txt", text, err)
	w.Files(supportFiles...)
	if b, err := os.ReadFile("/proc/cmdline"); err == nil {
		w.Add("proc/cmdline", cmdLine(string(b)), nil)
	}
	for _, name := range []string{"sysctl-net.txt", "sysctl-kernel.txt", "links-sysfs.txt", "hardware/machine.txt", "hardware/pci.txt", "hardware/disks.txt", "hardware/sensors.txt"} {
		w.Values(name, supportValues[name]...)
	}
}

func supportTables(h *netlink.Handle, w *support.Writer) {
	links, err := h.LinkList()
	names := map[int]string{}
	type link struct {
		Type   string
		Attrs  *netlink.LinkAttrs
		Detail netlink.Link `json:",omitempty"`
	}
	var all []link
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		all = append(all, link{l.Type(), l.Attrs(), l})
	}
	w.Add("links.json", all, err)
	dev := func(i int) string {
		if n, ok := names[i]; ok {
			return n
		}
		return fmt.Sprintf("#%d", i)
	}
	table := func(part string, fill func(b *strings.Builder) error) {
		var b strings.Builder
		err := fill(&b)
		w.Add(part, b.String(), err)
	}
	table("addresses.txt", func(b *strings.Builder) error {
		list, err := h.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range list {
			fmt.Fprintf(b, "%s %s scope %d flags %#x valid %d preferred %d\n", dev(a.LinkIndex), a.IPNet, a.Scope, a.Flags, a.ValidLft, a.PreferedLft)
		}
		return err
	})
	table("routes.txt", func(b *strings.Builder) error {
		list, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		for _, r := range list {
			fmt.Fprintf(b, "dev %s %s\n", dev(r.LinkIndex), r)
		}
		return err
	})
	table("rules.txt", func(b *strings.Builder) error {
		list, err := h.RuleList(netlink.FAMILY_ALL)
		for _, r := range list {
			fmt.Fprintf(b, "%s fwmark %#x table %d\n", r, r.Mark, r.Table)
		}
		return err
	})
	table("neighbours.txt", func(b *strings.Builder) error {
		list, err := h.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range list {
			fmt.Fprintf(b, "%s %s %s state %#x flags %#x\n", dev(n.LinkIndex), n.IP, n.HardwareAddr, n.State, n.Flags)
		}
		return err
	})
	table("qdiscs.txt", func(b *strings.Builder) error {
		for _, l := range links {
			list, err := h.QdiscList(l)
			if err != nil {
				return err
			}
			for _, q := range list {
				fmt.Fprintf(b, "%s %s %s\n", l.Attrs().Name, q.Type(), q.Attrs())
			}
		}
		return nil
	})
	table("ethtool.txt", func(b *strings.Builder) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, l := range links {
			ethtool(fd, l.Attrs().Name, b)
		}
		return nil
	})
}

// ethtool tells of a card's driver and of its counters; a link that is no card
// has none.
func ethtool(fd int, name string, b *strings.Builder) {
	if d, err := unix.IoctlGetEthtoolDrvinfo(fd, name); err == nil {
		fmt.Fprintf(b, "%s: driver %s %s, firmware %s, bus %s\n", name, unix.ByteSliceToString(d.Driver[:]), unix.ByteSliceToString(d.Version[:]), unix.ByteSliceToString(d.Fw_version[:]), unix.ByteSliceToString(d.Bus_info[:]))
	}
	// struct ethtool_sset_info with one set.
	info := make([]byte, 20)
	binary.NativeEndian.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	binary.NativeEndian.PutUint64(info[8:], 1<<ethStats)
	if ethtoolCall(fd, name, info) != nil || binary.NativeEndian.Uint64(info[8:]) == 0 {
		return
	}
	n := int(binary.NativeEndian.Uint32(info[16:]))
	const most, width = 4096, 32 // ETH_GSTRING_LEN
	if n == 0 || n > most {
		return
	}
	texts, values := make([]byte, 12+n*width), make([]byte, 8+n*8)
	binary.NativeEndian.PutUint32(texts, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(texts[4:], ethStats)
	binary.NativeEndian.PutUint32(values, unix.ETHTOOL_GSTATS)
	for _, q := range [][]byte{texts, values} {
		at := 4
		if &q[0] == &texts[0] {
			at = 8
		}
		binary.NativeEndian.PutUint32(q[at:], uint32(n))
		if ethtoolCall(fd, name, q) != nil {
			return
		}
	}
	for i := range n {
		if v := binary.NativeEndian.Uint64(values[8+i*8:]); v != 0 {
			fmt.Fprintf(b, "%s: %s %d\n", name, unix.ByteSliceToString(texts[12+i*width:12+(i+1)*width]), v)
		}
	}
}

// ethtoolCall is ioctl(SIOCETHTOOL) with a struct ifreq that points to data.
func ethtoolCall(fd int, name string, data []byte) error {
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.data = unsafe.Pointer(&data[0])
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
		return e
	}
	return nil
}
