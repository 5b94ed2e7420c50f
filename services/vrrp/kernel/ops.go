package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NewAddr is an address to be set.
type NewAddr struct {
	Index         int
	Prefix        netip.Prefix
	Peer          netip.Prefix // invalid: none
	Broadcast     netip.Addr   // invalid: none
	Label         string
	Scope         uint8
	Proto         uint8 // IFA_PROTO
	NoPrefixRoute bool
	Home          bool
	MngTmpAddr    bool
	AutoJoin      bool
	// Preferred is the preferred lifetime; 0: forever, -1: deprecated from the
	// start.
	Preferred time.Duration
	Metric    uint32 // of the route to its subnet; 0: the kernel's
}

// ifaRTPriority is IFA_RT_PRIORITY of linux/if_addr.h.
const ifaRTPriority = 9

// Op is one change, made by SetAddr and its like and done by Batch.
type Op struct {
	what string // for errors
	msg  netlink.Message
	ok   unix.Errno // this error means that nothing was to be done
}

func (o Op) String() string { return o.what }

// batchSize is how many changes go out in one send: their acknowledgements
// must fit into the socket's receive buffer.
const batchSize = 100

// maxErrors is how many failures of one batch are told.
const maxErrors = 20

// Batch does all ops, several a send, and goes on after a failure. What was
// so already is no error.
func (r *Rtnl) Batch(ops []Op) error {
	var errs []error
	msgs := make([]netlink.Message, 0, min(len(ops), batchSize))
	for len(ops) > 0 {
		n := min(len(ops), batchSize)
		msgs = msgs[:0]
		for _, o := range ops[:n] {
			msgs = append(msgs, o.msg)
		}
		if _, err := r.c.SendMessages(msgs); err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s and %d more: %w", ops[0].what, len(ops)-1, err), r.dial())...)
		}
		for _, o := range ops[:n] {
			_, err := r.c.Receive()
			if err == nil || errors.Is(err, o.ok) {
				continue
			}
			if errors.Is(err, unix.ENOBUFS) { // acknowledgements are lost, nobody knows which
				return errors.Join(append(errs, fmt.Errorf("%s or one after it: %w", o.what, unix.ENOBUFS), r.dial())...)
			}
			if len(errs) < maxErrors {
				errs = append(errs, fmt.Errorf("%s: %w", o.what, errno(err)))
			}
		}
		ops = ops[n:]
		if r.Between != nil {
			r.Between()
		}
	}
	return errors.Join(errs...)
}

// errno strips netlink's wrapping: the operation is named by the Op.
func errno(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// SetAddr adds an address. An IPv6 one skips duplicate address detection: the
// former master may hold it still for a moment, and it must work at once. As
// with keepalived a /128 is deprecated, so that it is nobody's source.
func SetAddr(a NewAddr) Op {
	ae := netlink.NewAttributeEncoder()
	addr := a.Prefix.Addr()
	bits, far := a.Prefix.Bits(), addr
	if a.Peer.IsValid() {
		bits, far = a.Peer.Bits(), a.Peer.Addr()
	}
	ae.Bytes(unix.IFA_LOCAL, addr.AsSlice())
	ae.Bytes(unix.IFA_ADDRESS, far.AsSlice())
	var flags uint32
	if a.NoPrefixRoute {
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	if addr.Is4() {
		if a.Broadcast.IsValid() {
			ae.Bytes(unix.IFA_BROADCAST, a.Broadcast.AsSlice())
		}
		if a.Label != "" {
			ae.String(unix.IFA_LABEL, a.Label)
		}
	} else {
		flags |= unix.IFA_F_NODAD
	}
	for flag, on := range map[uint32]bool{
		unix.IFA_F_HOMEADDRESS: a.Home, unix.IFA_F_MANAGETEMPADDR: a.MngTmpAddr, unix.IFA_F_MCAUTOJOIN: a.AutoJoin,
	} {
		if on {
			flags |= flag
		}
	}
	if a.Preferred != 0 {
		const forever = ^uint32(0)
		ci := make([]byte, 16) // preferred, valid, created, updated
		left := max(a.Preferred, 0) / time.Second
		binary.NativeEndian.PutUint32(ci, uint32(min(left, time.Duration(forever))))
		binary.NativeEndian.PutUint32(ci[4:], forever)
		ae.Bytes(unix.IFA_CACHEINFO, ci)
	}
	if a.Metric != 0 {
		ae.Uint32(ifaRTPriority, a.Metric)
	}
	if flags != 0 {
		ae.Uint32(unix.IFA_FLAGS, flags)
	}
	ae.Uint8(ifaProto, a.Proto)
	return Op{
		what: fmt.Sprintf("add %s", a.Prefix),
		msg:  addrMsg(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, addr, bits, a.Scope, a.Index, ae),
		ok:   unix.EEXIST,
	}
}

// UnsetAddr removes an address.
func UnsetAddr(a NewAddr) Op {
	ae := netlink.NewAttributeEncoder()
	addr, bits, far := a.Prefix.Addr(), a.Prefix.Bits(), a.Prefix.Addr()
	if a.Peer.IsValid() {
		bits, far = a.Peer.Bits(), a.Peer.Addr()
	}
	ae.Bytes(unix.IFA_LOCAL, addr.AsSlice())
	ae.Bytes(unix.IFA_ADDRESS, far.AsSlice())
	return Op{
		what: fmt.Sprintf("remove %s", a.Prefix),
		msg:  addrMsg(unix.RTM_DELADDR, 0, addr, bits, 0, a.Index, ae),
		ok:   unix.EADDRNOTAVAIL,
	}
}

func addrMsg(typ uint16, flags netlink.HeaderFlags, addr netip.Addr, bits int, scope uint8, index int, ae *netlink.AttributeEncoder) netlink.Message {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1], b[3] = family(addr), uint8(bits), scope
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return message(typ, flags, b, ae)
}

func message(typ uint16, flags netlink.HeaderFlags, b []byte, ae *netlink.AttributeEncoder) netlink.Message {
	attrs, err := ae.Encode()
	if err != nil {
		attrs = nil // only values too long for netlink; the kernel refuses the rest
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(b, attrs...),
	}
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
