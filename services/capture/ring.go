package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The kernel puts packets into a ring of blocks that both sides have in memory
// (packet_mmap, TPACKET_V3). It hands a block over when it is full, or when
// its time is over. What finds no room is dropped and counted: that is what
// bounds the memory of a capture whose reader is slow.
const (
	blockSize = 512 << 10 // a packet is at most 256 KiB here
	blocks    = 8
	retire    = 40 // ms
)

// frame is one packet as the kernel gives it. Its data is gone with the next
// block.
type frame struct {
	time     time.Time
	data     []byte
	length   int // on the wire
	tag      uint16
	tpid     uint16 // 0: no VLAN tag was taken off
	index    int32
	kind     uint16 // of the link, ARPHRD_…
	way      uint8  // PACKET_OUTGOING and so on
	protocol uint16
	sender   []byte
}

// ring is one socket with its ring.
type ring struct {
	fd   int
	mem  []byte
	next int
}

// open makes a socket that takes what passes the program, on one interface, or
// on all for index 0. Cooked packets come without the header of their link.
func open(index int, cooked, promiscuous bool, program []bpf.RawInstruction) (_ *ring, err error) {
	kind := unix.SOCK_RAW
	if cooked {
		kind = unix.SOCK_DGRAM
	}
	// Protocol 0: nothing comes in before the filter stands.
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	r := &ring{fd: fd}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return nil, fmt.Errorf("filter: the kernel refuses it: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("packet ring: %w", err)
	}
	req := unix.TpacketReq3{Block_size: blockSize, Block_nr: blocks, Frame_size: blockSize, Frame_nr: blocks, Retire_blk_tov: retire}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("packet ring of %d KiB: %w", blockSize*blocks>>10, err)
	}
	if r.mem, err = unix.Mmap(fd, 0, blockSize*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("packet ring: %w", err)
	}
	all := bits.ReverseBytes16(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		return nil, fmt.Errorf("bind the packet socket: %w", err)
	}
	if promiscuous {
		m := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return nil, fmt.Errorf("promiscuous: %w", err)
		}
	}
	return r, nil
}

func (r *ring) close() {
	if r.mem != nil {
		unix.Munmap(r.mem)
	}
	unix.Close(r.fd)
}

// wait returns when a block is there, or after d.
func (r *ring) wait(d time.Duration) error {
	if r.ready() {
		return nil
	}
	p := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN | unix.POLLERR}}
	_, err := unix.Poll(p, int(d.Milliseconds()))
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("wait for packets: %w", err)
	case p[0].Revents&unix.POLLERR != 0:
		n, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && n != 0 {
			err = unix.Errno(n)
		}
		if err != nil {
			return fmt.Errorf("packets: %w", err)
		}
	}
	return nil
}

// block is the one that comes next.
func (r *ring) block() []byte { return r.mem[r.next*blockSize : (r.next+1)*blockSize] }

func statusOf(b []byte) *uint32 {
	return &(*unix.TpacketHdrV1)(unsafe.Pointer(&b[unsafe.Offsetof(unix.TpacketBlockDesc{}.Hdr)])).Block_status
}

func (r *ring) ready() bool { return atomic.LoadUint32(statusOf(r.block()))&unix.TP_STATUS_USER != 0 }

// read hands all packets of the next block to f, until it returns false, and
// gives the block back. It reports whether there was one.
func (r *ring) read(f func(*frame) bool) bool {
	if !r.ready() {
		return false
	}
	b := r.block()
	h := (*unix.TpacketHdrV1)(unsafe.Pointer(&b[unsafe.Offsetof(unix.TpacketBlockDesc{}.Hdr)]))
	at := int(h.Offset_to_first_pkt)
	for range h.Num_pkts {
		fr, next, ok := frameAt(b, at)
		if !ok || !f(fr) {
			break
		}
		if next == 0 {
			break
		}
		at += next
	}
	atomic.StoreUint32(statusOf(b), unix.TP_STATUS_KERNEL)
	runtime.KeepAlive(r)
	r.next = (r.next + 1) % blocks
	return true
}

// hdrSize is that of a packet's header in a block; the address of its sender is behind.
const hdrSize = (unix.SizeofTpacket3Hdr + unix.TPACKET_ALIGNMENT - 1) / unix.TPACKET_ALIGNMENT * unix.TPACKET_ALIGNMENT

// frameAt reads the packet at an offset of a block.
func frameAt(b []byte, at int) (_ *frame, next int, ok bool) {
	if at < 0 || at+hdrSize+unix.SizeofSockaddrLinklayer > len(b) {
		return nil, 0, false
	}
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[at]))
	start, n := at+int(h.Mac), int(h.Snaplen)
	if start+n > len(b) {
		return nil, 0, false
	}
	sa := b[at+hdrSize:]
	f := &frame{
		time: time.Unix(int64(h.Sec), int64(h.Nsec)), data: b[start : start+n : start+n], length: int(h.Len),
		protocol: binary.BigEndian.Uint16(sa[2:]), index: int32(binary.NativeEndian.Uint32(sa[4:])),
		kind: binary.NativeEndian.Uint16(sa[8:]), way: sa[10], sender: sa[12 : 12+min(int(sa[11]), 8)],
	}
	if h.Status&unix.TP_STATUS_VLAN_VALID != 0 {
		f.tag, f.tpid = uint16(h.Hv1.Vlan_tci), unix.ETH_P_8021Q
		if h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			f.tpid = h.Hv1.Vlan_tpid
		}
	}
	return f, int(h.Next_offset), true
}

// drops is how many packets found no room since it was last asked.
func (r *ring) drops() uint64 {
	s, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return uint64(s.Drops)
}
