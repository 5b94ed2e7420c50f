package net

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

// Kernel is the edge to one network namespace: it dumps and it applies single
// ops; it decides nothing. It is not safe for use by several goroutines.
type Kernel struct {
	h  *netlink.Handle
	hw map[int]hardware // by ifindex: does not change while the index lives
}

type hardware struct{ pci, driver string }

// OpenKernel opens the namespace of the calling thread.
func OpenKernel() (*Kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("net: open rtnetlink: %w", err)
	}
	if err := h.SetSocketTimeout(10 * time.Second); err != nil {
		h.Close()
		return nil, fmt.Errorf("net: rtnetlink timeout: %w", err)
	}
	return &Kernel{h: h, hw: map[int]hardware{}}, nil
}

// Close releases the sockets.
func (k *Kernel) Close() { k.h.Close() }

// Dump reads links, addresses and routes.
func (k *Kernel) Dump() (Facts, error) {
	f := Facts{Now: time.Now()}
	var raw []netlink.Link
	if err := retry(func() (err error) { raw, err = k.h.LinkList(); return }); err != nil {
		return f, fmt.Errorf("net: dump links: %w", err)
	}
	names := make(map[int]string, len(raw))
	for _, l := range raw {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range raw {
		f.Links = append(f.Links, k.link(l, names))
	}
	for i := range k.hw {
		if names[i] == "" {
			delete(k.hw, i)
		}
	}
	if err := retry(func() (err error) { f.Addrs, err = k.addrs(names, f.Now); return }); err != nil {
		return f, fmt.Errorf("net: dump addresses: %w", err)
	}
	if err := retry(func() (err error) { f.Routes, err = k.routes(names); return }); err != nil {
		return f, fmt.Errorf("net: dump routes: %w", err)
	}
	if err := retry(func() (err error) { f.Rules, err = k.rules(); return }); err != nil {
		return f, fmt.Errorf("net: dump rules: %w", err)
	}
	return f, nil
}

// retry repeats a dump that a change cut in two (NLM_F_DUMP_INTR).
func retry(fn func() error) error {
	var err error
	for range 5 {
		if err = fn(); !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return err
}

func (k *Kernel) link(l netlink.Link, names map[int]string) Link {
	a := l.Attrs()
	out := Link{
		Index: a.Index, Name: a.Name, AltNames: a.AltNames, Alias: a.Alias, Kind: l.Type(),
		MAC: a.HardwareAddr.String(), PermMAC: a.PermHWAddr.String(), MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Master: names[a.MasterIndex],
	}
	if a.RawFlags&unix.IFF_LOOPBACK != 0 {
		out.Kind = "loopback"
	}
	switch l := l.(type) {
	case *netlink.Vlan:
		out.Parent, out.VLANID = names[a.ParentIndex], l.VlanId
	case *netlink.Bond:
		out.Bond = BondOptions{Mode: l.Mode.String(), MIIMon: time.Duration(l.Miimon) * time.Millisecond,
			HashPolicy: l.XmitHashPolicy.String()}
		if l.Primary > 0 {
			out.Bond.Primary = names[l.Primary]
		}
		if l.Mode == netlink.BOND_MODE_802_3AD {
			out.Bond.LACPRate = l.LacpRate.String()
		}
	}
	hw, ok := k.hw[a.Index]
	if !ok {
		hw = readHardware(a.Name)
		k.hw[a.Index] = hw
	}
	out.PCI, out.Driver = hw.pci, hw.driver
	if out.Carrier && out.Kind != "loopback" {
		out.Speed = readSpeed(a.Name)
	}
	if s := a.Statistics; s != nil {
		out.RxBytes, out.TxBytes, out.RxPackets, out.TxPackets = s.RxBytes, s.TxBytes, s.RxPackets, s.TxPackets
		out.RxErrors, out.TxErrors, out.RxDropped, out.TxDropped = s.RxErrors, s.TxErrors, s.RxDropped, s.TxDropped
	}
	return out
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// readHardware finds the PCI function and the driver of a NIC in sysfs. A virtio
// NIC is a child of its PCI function, so the path is walked from the end.
func readHardware(name string) hardware {
	dev := filepath.Join("/sys/class/net", name, "device")
	var hw hardware
	if p, err := filepath.EvalSymlinks(dev); err == nil {
		for p != "/" && p != "." && hw.pci == "" {
			if base := filepath.Base(p); pciAddress.MatchString(base) {
				hw.pci = base
			}
			p = filepath.Dir(p)
		}
	}
	if p, err := os.Readlink(filepath.Join(dev, "driver")); err == nil {
		hw.driver = filepath.Base(p)
	}
	return hw
}

func readSpeed(name string) int {
	b, err := os.ReadFile(filepath.Join("/sys/class/net", name, "speed"))
	if err != nil {
		return 0 // the driver has no such notion
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return max(n, 0)
}

func (k *Kernel) addrs(names map[int]string, now time.Time) ([]Addr, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil {
		return nil, err
	}
	out := make([]Addr, 0, len(msgs))
	for _, m := range msgs {
		a, index, err := unmarshalAddr(m, now)
		if err != nil {
			return nil, err
		}
		if a.Link = names[index]; a.Link == "" {
			continue // of a link that came after the dump of links
		}
		if a.Label == a.Link {
			a.Label = ""
		}
		out = append(out, a)
	}
	return out, nil
}

// Route types by number (linux/rtnetlink.h).
var routeTypes = map[int]string{
	unix.RTN_UNICAST: "", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

func routeType(name string) int {
	for n, s := range routeTypes {
		if s == name {
			return n
		}
	}
	return unix.RTN_UNICAST
}

// routes are those of every table except the kernel's local one.
func (k *Kernel) routes(names map[int]string) ([]Route, error) {
	var out []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := k.h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			typ, known := routeTypes[r.Type]
			if !known || r.Table == unix.RT_TABLE_LOCAL {
				continue
			}
			n := Route{Proto: uint8(r.Protocol), Route: model.Route{
				Type: typ, Interface: names[r.LinkIndex], Table: uint32(r.Table), Metric: uint32(r.Priority),
				TOS: uint8(r.Tos), NextHops: nextHops(r, names, family == netlink.FAMILY_V4), Scope: uint8(r.Scope), OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0,
			}}
			n.MTU, n.Metrics = metrics(r)
			n.Realms, n.Congestion = uint32(r.Realm), r.Congctl
			n.Via = gatewayOf(r.Gw, r.Via, family == netlink.FAMILY_V4)
			if n.Src, _ = netip.AddrFromSlice(r.Src); family == netlink.FAMILY_V4 {
				n.Src = n.Src.Unmap()
			}
			n.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if family == netlink.FAMILY_V6 {
				n.Dst, n.Scope = netip.PrefixFrom(netip.IPv6Unspecified(), 0), 0
			}
			if r.Dst != nil {
				ip, _ := netip.AddrFromSlice(r.Dst.IP)
				if family == netlink.FAMILY_V4 {
					ip = ip.Unmap()
				}
				ones, _ := r.Dst.Mask.Size()
				n.Dst = netip.PrefixFrom(ip, ones)
			}
			if typ != "" {
				n.Interface, n.NextHops = "", nil // IPv6 shows lo there
			}
			out = append(out, n)
		}
	}
	return out, nil
}
