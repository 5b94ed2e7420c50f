package kernel

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"ballast/services/vrrp/packet"
)

// Neighbours asks by ARP or neighbour solicitation whether an address on a
// link answers, and hears nothing but answers: the rest of the link's ARP and
// ICMPv6 is dropped in the kernel.
type Neighbours struct {
	fd    int
	ipv6  bool
	index int
	buf   [256]byte
	oob   [64]byte
}

// OpenNeighbours opens a socket on an interface.
func OpenNeighbours(index int, name string, ipv6 bool) (*Neighbours, error) {
	n := &Neighbours{ipv6: ipv6, index: index}
	var err error
	if ipv6 {
		n.fd, err = openAdvertised(name)
	} else {
		n.fd, err = openReplies(index)
	}
	if err != nil {
		return nil, fmt.Errorf("ask neighbours on %s: %w", name, err)
	}
	return n, nil
}

// openReplies hears ARP replies.
func openReplies(index int) (int, error) {
	// Without a protocol it hears nothing until the filter is in place.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 20}, // the operation
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 2, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 256},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	if err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: packet.EtherARP>>8 | packet.EtherARP&0xff<<8, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openAdvertised hears neighbour advertisements.
func openAdvertised(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return -1, err
	}
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[packet.NeighbourAdvertisement/32] &^= 1 << (packet.NeighbourAdvertisement % 32)
	o := opts{fd: fd}
	o.do("filter", unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f))
	o.do("bind", unix.BindToDevice(fd, name))
	o.set("multicast hops", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255) // RFC 4861 section 7.1.1
	o.set("multicast loop", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0)
	o.set("hop limit", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	if o.err != nil {
		unix.Close(fd)
		return -1, o.err
	}
	return fd, nil
}

// Close closes the socket.
func (n *Neighbours) Close() error { return unix.Close(n.fd) }

// FD is the descriptor, for Loop.
func (n *Neighbours) FD() int { return n.fd }

// Ask asks everybody on the link for an address, with our own MAC and address.
func (n *Neighbours) Ask(addr netip.Addr, mac packet.MAC, own netip.Addr) error {
	if n.ipv6 {
		b := packet.AppendNS(n.buf[:0], mac, addr)
		return unix.Sendto(n.fd, b, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: packet.SolicitedNode(addr), ZoneId: uint32(n.index)})
	}
	b := packet.AppendARPRequest(n.buf[:0], mac, own, addr)
	to := unix.SockaddrLinklayer{Protocol: packet.EtherARP>>8 | packet.EtherARP&0xff<<8, Ifindex: n.index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	return unix.Sendto(n.fd, b, unix.MSG_DONTWAIT, &to)
}

// answerMax bounds what one Answer passes over: a flood of what is no answer
// must not keep the caller.
const answerMax = 64

// Answer takes the next address that answered; invalid: there is none.
func (n *Neighbours) Answer() netip.Addr {
	for range answerMax {
		if !n.ipv6 {
			k, _, err := unix.Recvfrom(n.fd, n.buf[:], unix.MSG_DONTWAIT)
			if err != nil {
				return netip.Addr{}
			}
			if a, ok := packet.ARPReply(n.buf[:k]); ok {
				return a
			}
			continue
		}
		k, o, _, _, err := unix.Recvmsg(n.fd, n.buf[:], n.oob[:], unix.MSG_DONTWAIT)
		if err != nil {
			return netip.Addr{}
		}
		var r Received
		r.TTL = -1
		control(&r, n.oob[:o], 0)
		if r.TTL != 255 {
			continue // it came through a router: not a word of this link (RFC 4861 section 7.1.2)
		}
		if a, ok := packet.AdvertisedNeighbour(n.buf[:k]); ok {
			return a
		}
	}
	return netip.Addr{}
}
