package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/firewall"
	"ballast/services/ipvs/ipvsnl"
)

// Addresses of the link between the box and the stranger.
const (
	boxAddr, boxAddr6 = "198.51.100.1", "2001:db8:5::1"
	vip               = "198.51.100.100"
	peer              = "198.51.100.8" // whom the configuration names
	strangerAddr      = "198.51.100.9"
	strangerAddr6     = "2001:db8:5::9"
)

// stranger is a network namespace at the other end of the interface scan0.
type stranger struct{ box, own *os.File }

func netns() (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
}

func (s *stranger) enter(f *os.File) error { return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET) }

func newStranger() (s *stranger, err error) {
	s = &stranger{}
	if s.box, err = netns(); err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	if s.own, err = netns(); err != nil {
		return nil, err
	}
	if err := s.enter(s.box); err != nil {
		return nil, err
	}
	if err := await("a pair of links", func() bool { // its module is loaded for it
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "scan0"}, PeerName: "scan1"})
		return err == nil
	}); err != nil {
		return nil, err
	}
	l, err := netlink.LinkByName("scan1")
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetNsFd(l, int(s.own.Fd())); err != nil {
		return nil, err
	}
	if err := s.enter(s.own); err != nil {
		return nil, err
	}
	defer s.enter(s.box)
	if l, err = netlink.LinkByName("scan1"); err != nil {
		return nil, err
	}
	for _, a := range []string{strangerAddr + "/24", peer + "/24", strangerAddr6 + "/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return nil, err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, addr); err != nil {
			return nil, err
		}
	}
	return s, netlink.LinkSetUp(l)
}

// later tries what a commit may ask the kernel for, with modules closed.
func (s *stranger) later() {
	bond := netlink.NewLinkBond(netlink.LinkAttrs{Name: "tbond"})
	bond.Mode = netlink.BOND_MODE_802_3AD
	for _, l := range []netlink.Link{
		bond,
		&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "tvlan", ParentIndex: index("scan0")}, VlanId: 7},
		&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "tmacvlan", ParentIndex: index("scan0")}, Mode: netlink.MACVLAN_MODE_PRIVATE},
		&netlink.IPVlan{LinkAttrs: netlink.LinkAttrs{Name: "tipvlan", ParentIndex: index("eth0")}, Mode: netlink.IPVLAN_MODE_L2},
		&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "tdummy"}},
	} {
		err := netlink.LinkAdd(l)
		say("later "+l.Type(), "%s", verdict(err))
		if err == nil {
			netlink.LinkDel(l)
		}
	}
	c, err := ipvsnl.Dial()
	if err != nil {
		say("later ipvs", "%v", err)
		return
	}
	defer c.Close()
	for i, sched := range strings.Fields("rr wrr lc wlc lblc sh mh dh fo ovf lblcr sed nq twos") {
		id := model.ServiceID{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), Port: 80, Protocol: model.TCP}
		svc := ipvsnl.Service{ID: id, Scheduler: sched}
		if sched == "rr" {
			svc.PE, svc.Flags, svc.Timeout, svc.Netmask = "sip", ipvsnl.FlagPersistent, 300, 0xffffffff
			svc.ID.Protocol = model.UDP
		}
		errs, err := c.Do([]ipvsnl.Request{{Verb: ipvsnl.AddService, Service: svc}}, nil)
		say("later scheduler "+sched, "%s", verdict(errors.Join(append(errs, err)...)))
	}
	// In the stranger's network: the box has its own.
	if err = s.enter(s.own); err != nil {
		say("later firewall with log", "%v", err)
		return
	}
	defer s.enter(s.box)
	t, err := firewall.Open()
	if err == nil {
		defer t.Apply(firewall.Ruleset{})
		_, _, err = t.Apply(firewall.Filter(firewall.Ruleset{}, &model.Config{Firewall: model.Firewall{Log: true, SSH: []model.Whence{{Interfaces: []string{"eth0"}}}}}, func(n string) string { return n }))
	}
	say("later firewall with log", "%s", verdict(err))
}

func index(name string) int {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0
	}
	return l.Attrs().Index
}

func hexAddr(s string) string {
	a, p, _ := strings.Cut(s, ":")
	raw, _ := hex.DecodeString(a)
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, _ := netip.AddrFromSlice(raw)
	port, _ := hex.DecodeString(p)
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(port)).String()
}

// scan asks every port, TCP and UDP, IPv4 and IPv6, from the stranger's side,
// and says which answered what.
func (s *stranger) scan() error {
	if err := s.enter(s.own); err != nil {
		return err
	}
	for _, t := range []struct{ name, from, to string }{
		{"stranger", strangerAddr, boxAddr}, {"stranger, IPv6", strangerAddr6, boxAddr6}, {"stranger, VIP", strangerAddr, vip}, {"peer", peer, boxAddr},
	} {
		begin := time.Now()
		got, err := tcpScan(netip.MustParseAddr(t.from), netip.MustParseAddr(t.to))
		if err != nil {
			return fmt.Errorf("TCP, %s: %w", t.name, err)
		}
		say("TCP answers for "+t.name, "%s", text(got))
		say("took", "TCP, %s: %v", t.name, time.Since(begin).Round(time.Millisecond))
		if t.name == "peer" {
			break
		}
		begin = time.Now()
		if got, err = udpScan(netip.MustParseAddr(t.from), netip.MustParseAddr(t.to)); err != nil {
			return fmt.Errorf("UDP, %s: %w", t.name, err)
		}
		say("UDP answers for "+t.name, "%s", text(got))
		say("took", "UDP, %s: %v", t.name, time.Since(begin).Round(time.Millisecond))
	}
	return nil
}

func text(m map[uint16]string) string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%d %s", p, m[p]))
	}
	if len(out) > 20 {
		out = append(out[:20], fmt.Sprintf("and %d more", len(out)-20))
	}
	return strings.Join(out, ", ")
}

// pause lets what was sent arrive, and the answers too: nothing tells that none
// will come.
const pause = 300 * time.Millisecond

const sourcePort = 40000

// tcpScan sends a SYN to each port and listens for what comes back.
func tcpScan(from, to netip.Addr) (map[uint16]string, error) {
	network := "ip4:6"
	if to.Is6() {
		network = "ip6:6"
	}
	c, err := net.DialIP(network, &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetReadBuffer(8 << 20)
	got := map[uint16]string{}
	buf := make([]byte, 2048)
	drain := func(wait time.Duration) {
		c.SetReadDeadline(time.Now().Add(wait))
		for {
			n, _, err := c.ReadFromIP(buf) // without the header of IPv4
			if err != nil {
				return
			}
			b := buf[:n]
			if len(b) < 20 || binary.BigEndian.Uint16(b[2:]) != sourcePort {
				continue
			}
			what := fmt.Sprintf("flags %#x", b[13])
			switch {
			case b[13]&0x12 == 0x12:
				what = "open"
			case b[13]&4 != 0:
				what = "reset"
			}
			got[binary.BigEndian.Uint16(b)] = what
		}
	}
	for p := 1; p <= 65535; p++ {
		if _, err := c.Write(syn(from, to, uint16(p))); err != nil {
			return nil, fmt.Errorf("port %d: %w", p, err)
		}
		if p%1000 == 0 {
			drain(time.Millisecond)
		}
	}
	drain(pause)
	return got, nil
}

// syn is a TCP header with SYN (RFC 9293) and its checksum.
func syn(from, to netip.Addr, port uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, sourcePort)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint32(b[4:], 1)
	b[12], b[13] = 5<<4, 2
	binary.BigEndian.PutUint16(b[14:], 1024)
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, 0, 0, 20, 0, 0, 0, 6}, b)
	var sum uint32
	for i := 0; i < len(pseudo); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(pseudo[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}

// udpScan sends a datagram to each port. An answer, or the word of the kernel
// that nobody is there, says that the packet got through.
func udpScan(from, to netip.Addr) (map[uint16]string, error) {
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	address := func(a netip.Addr, p uint16) unix.Sockaddr {
		if a.Is6() {
			return &unix.SockaddrInet6{Addr: a.As16(), Port: int(p)}
		}
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(p)}
	}
	if err := unix.Bind(fd, address(from, 0)); err != nil {
		return nil, err
	}
	if to.Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	}
	if err != nil {
		return nil, err
	}
	got := map[uint16]string{}
	port := func(sa unix.Sockaddr) uint16 {
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return uint16(sa.Port)
		case *unix.SockaddrInet6:
			return uint16(sa.Port)
		}
		return 0
	}
	buf, oob := make([]byte, 2048), make([]byte, 512)
	drain := func() {
		for _, flags := range []int{0, unix.MSG_ERRQUEUE} {
			for {
				_, _, _, sa, err := unix.Recvmsg(fd, buf, oob, flags)
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				if err != nil {
					continue // the error of a packet before; the queue says which
				}
				got[port(sa)] = map[int]string{0: "answer", unix.MSG_ERRQUEUE: "refused"}[flags]
			}
		}
	}
	for p := 1; p <= 65535; p++ {
		for tries := 0; ; tries++ {
			err := unix.Sendto(fd, []byte("?"), 0, address(to, uint16(p)))
			if err == nil {
				break
			}
			drain()
			if tries > 1000 {
				return nil, fmt.Errorf("port %d: %w", p, err)
			}
		}
		if p%1000 == 0 {
			drain()
		}
	}
	time.Sleep(pause)
	drain()
	return got, nil
}
