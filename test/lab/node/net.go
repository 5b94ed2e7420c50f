package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"ballast/test/lab/wire"
)

// setNet removes the namespaces and bridges of the previous call and makes new
// ones.
func (s *server) setNet(n wire.Net) error {
	s.netMu.Lock()
	defer s.netMu.Unlock()
	s.procs.Range(func(_, v any) bool { // programs in the namespaces end with them
		p := v.(*process)
		<-p.started
		if p.cmd != nil {
			p.cmd.Process.Kill()
		}
		return true
	})
	for name := range s.spaces {
		if err := netns.DeleteNamed(name); err != nil {
			return fmt.Errorf("remove namespace %s: %w", name, err)
		}
		delete(s.spaces, name)
	}
	links, err := linkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		switch l.(type) {
		case *netlink.Bridge, *netlink.Veth:
			netlink.LinkDel(l) // the second end of a pair is gone already
		}
	}
	for _, b := range n.Bridges {
		if err := makeBridge(b); err != nil {
			return fmt.Errorf("bridge %s: %w", b.Name, err)
		}
	}
	for i, sp := range n.Spaces {
		if err := makeSpace(sp); err != nil {
			return fmt.Errorf("namespace %s: %w", sp.Name, err)
		}
		s.spaces[sp.Name] = true
		for j, l := range sp.Links {
			if l.Kind != "veth" {
				continue
			}
			if err := joinBridge(fmt.Sprintf("v%d.%d", i, j), sp.Name, l); err != nil {
				return fmt.Errorf("namespace %s: link %s: %w", sp.Name, l.Name, err)
			}
		}
		if err := inSpace(sp.Name, func() error { return fillSpace(sp) }); err != nil {
			return fmt.Errorf("namespace %s: %w", sp.Name, err)
		}
	}
	return nil
}

// linkList lists the links. A link that comes or goes meanwhile makes the
// kernel say that the list may be inconsistent, and then it has to be asked again.
func linkList() ([]netlink.Link, error) {
	for range 10 {
		l, err := netlink.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return l, err
		}
	}
	return netlink.LinkList()
}

func makeBridge(b wire.Bridge) error {
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: b.Name}, MulticastSnooping: &off}
	if err := netlink.LinkAdd(br); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return err
	}
	if b.MAC == "" {
		return nil
	}
	links, err := linkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Type() == "device" && strings.EqualFold(l.Attrs().HardwareAddr.String(), b.MAC) {
			if err := netlink.LinkSetMaster(l, br); err != nil {
				return err
			}
			return netlink.LinkSetUp(l)
		}
	}
	return fmt.Errorf("no NIC has the address %s", b.MAC)
}

// makeSpace makes a named network namespace and comes back to the one it
// was called in.
func makeSpace(sp wire.Space) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // see inSpace
		ns, err := netns.NewNamed(sp.Name)
		if err == nil {
			ns.Close()
		}
		done <- err
	}()
	return <-done
}

// joinBridge makes a veth pair with one end on the bridge and the other, with
// its name and address, in the namespace.
func joinBridge(outer, space string, l wire.Link) error {
	br, err := netlink.LinkByName(l.Bridge)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromName(space)
	if err != nil {
		return err
	}
	defer ns.Close()
	v := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: outer, MasterIndex: br.Attrs().Index},
		PeerName:  l.Name, PeerNamespace: netlink.NsFd(ns),
	}
	if l.MAC != "" {
		if v.PeerHardwareAddr, err = net.ParseMAC(l.MAC); err != nil {
			return err
		}
	}
	if err := netlink.LinkAdd(v); err != nil {
		return err
	}
	return netlink.LinkSetUp(v)
}

// fillSpace runs inside the namespace.
func fillSpace(sp wire.Space) error {
	// Duplicate address detection would keep an IPv6 address from use for a
	// second, and the lab has no duplicates but those that it means.
	where := []string{"all", "default"}
	for _, l := range sp.Links { // those that exist have their own
		where = append(where, l.Name)
	}
	for _, w := range where {
		os.WriteFile("/proc/sys/net/ipv6/conf/"+w+"/accept_dad", []byte("0"), 0)
	}
	for _, l := range sp.Links {
		if err := fillLink(l); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
	}
	if err := fillLink(wire.Link{Name: "lo", Addresses: sp.Loopback}); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	for name, value := range sp.Sysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	for _, r := range sp.Routes {
		if err := addRoute(r); err != nil {
			return fmt.Errorf("route %s: %w", r.Dst, err)
		}
	}
	return nil
}

func fillLink(l wire.Link) error {
	switch l.Kind {
	case "ipip", "sit":
		// Loading the module makes tunl0 (sit0), which takes packets from any
		// source: just what a real server of LVS-TUN wants.
		name := map[string]string{"ipip": "tunl0", "sit": "sit0"}[l.Kind]
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetName(dev, l.Name); err != nil {
			return err
		}
	}
	dev, err := netlink.LinkByName(l.Name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(dev); err != nil {
		return err
	}
	for _, p := range l.Addresses {
		if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	return nil
}

func addRoute(r wire.Route) error {
	n := &netlink.Route{Dst: ipNet(r.Dst)}
	if r.Via.IsValid() {
		n.Gw = r.Via.AsSlice()
	}
	if r.Link != "" {
		dev, err := netlink.LinkByName(r.Link)
		if err != nil {
			return err
		}
		n.LinkIndex = dev.Attrs().Index
		if !r.Via.IsValid() {
			n.Scope = netlink.SCOPE_LINK
		} else {
			n.SetFlag(netlink.FLAG_ONLINK)
		}
	}
	return netlink.RouteReplace(n)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
