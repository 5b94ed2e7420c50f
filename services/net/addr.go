package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO (linux/if_addr.h, kernel 5.18): who put an address
// there. The netlink library neither sends nor reads it, so the address messages
// are coded here.
const ifaProto = 11

// ifaFlags is IFA_FLAGS, the 32-bit form of the header's flags.
const ifaFlags = 8

// forever is the lifetime of an address that does not expire.
const forever = 0xffffffff

// maxLife is the longest lifetime given to a leased address: one that never
// expires would look like a static one after a restart.
const maxLife = forever - 1

// marshalAddr returns the payload of RTM_NEWADDR or RTM_DELADDR: struct
// ifaddrmsg and attributes.
func marshalAddr(a Addr, index int, now time.Time) []byte {
	ip := a.Prefix.Addr()
	family := byte(unix.AF_INET)
	if ip.Is6() {
		family = unix.AF_INET6
	}
	b := []byte{family, byte(a.Prefix.Bits()), 0, a.Scope}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	remote := ip // IFA_ADDRESS is the peer where there is one
	if a.Peer.IsValid() {
		remote = a.Peer.Addr()
		b[1] = byte(a.Peer.Bits())
	}
	b = appendAttr(b, unix.IFA_LOCAL, ip.AsSlice())
	b = appendAttr(b, unix.IFA_ADDRESS, remote.AsSlice())
	if a.Broadcast.Is4() && ip.Is4() {
		b = appendAttr(b, unix.IFA_BROADCAST, a.Broadcast.AsSlice())
	}
	if ip.Is4() {
		label := a.Label
		if label == "" {
			label = a.Link
		}
		b = appendAttr(b, unix.IFA_LABEL, append([]byte(label), 0))
	}
	var flags uint32
	if a.NoPrefixRoute {
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	b = appendAttr(b, ifaFlags, binary.NativeEndian.AppendUint32(nil, flags))
	b = appendAttr(b, ifaProto, []byte{a.Proto})
	if !a.Expires.IsZero() {
		left := min(max(int64(a.Expires.Sub(now).Round(time.Second)/time.Second), 1), maxLife)
		ci := binary.NativeEndian.AppendUint32(nil, uint32(left)) // preferred
		ci = binary.NativeEndian.AppendUint32(ci, uint32(left))   // valid
		b = appendAttr(b, unix.IFA_CACHEINFO, append(ci, make([]byte, 8)...))
	}
	return b
}

func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

var errShort = errors.New("message cut short")

// unmarshalAddr decodes the payload of RTM_NEWADDR. The link's name is the
// caller's to fill in.
func unmarshalAddr(b []byte, now time.Time) (a Addr, index int, err error) {
	if len(b) < 8 {
		return a, 0, fmt.Errorf("address: %w", errShort)
	}
	family, bits := b[0], int(b[1])
	flags := uint32(b[2])
	a.Scope = b[3]
	index = int(binary.NativeEndian.Uint32(b[4:]))
	var local, remote, brd netip.Addr
	for b = b[8:]; len(b) >= 4; {
		n := int(binary.NativeEndian.Uint16(b))
		typ := binary.NativeEndian.Uint16(b[2:]) & 0x3fff // less NLA_F_NESTED and NLA_F_NET_BYTEORDER
		if n < 4 || n > len(b) {
			return a, index, fmt.Errorf("address: attribute %d: %w", typ, errShort)
		}
		v := b[4:n]
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			remote, _ = netip.AddrFromSlice(v)
		case unix.IFA_BROADCAST:
			brd, _ = netip.AddrFromSlice(v)
		case unix.IFA_LABEL:
			if i := len(v) - 1; i >= 0 && v[i] == 0 {
				v = v[:i]
			}
			a.Label = string(v)
		case ifaFlags:
			if len(v) == 4 {
				flags = binary.NativeEndian.Uint32(v)
			}
		case ifaProto:
			if len(v) == 1 {
				a.Proto = v[0]
			}
		case unix.IFA_CACHEINFO:
			if len(v) >= 8 {
				if valid := binary.NativeEndian.Uint32(v[4:]); valid != forever {
					a.Expires = now.Add(time.Duration(valid) * time.Second)
				}
			}
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	if !local.IsValid() {
		local = remote // IPv6 without a peer sends IFA_ADDRESS alone
	}
	if !local.IsValid() || local.Is4() != (family == unix.AF_INET) || bits > local.BitLen() {
		return a, index, fmt.Errorf("address: family %d with a local address %s/%d", family, local, bits)
	}
	a.Prefix = netip.PrefixFrom(local, bits)
	if remote.IsValid() && remote != local && remote.Is4() == local.Is4() {
		a.Peer = netip.PrefixFrom(remote, bits)
		// Ours is written with its own length; the kernel keeps one length, the peer's.
		a.Prefix = netip.PrefixFrom(local, local.BitLen())
	}
	a.Broadcast = brd
	a.NoPrefixRoute = flags&unix.IFA_F_NOPREFIXROUTE != 0
	return a, index, nil
}
