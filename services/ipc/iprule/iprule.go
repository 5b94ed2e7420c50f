// Package iprule puts policy rules into the form of rtnetlink and reads them
// back: net owns the static ones, vrrp those of masters.
package iprule

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

// Actions and flags of policy rules (linux/fib_rules.h).
var ruleActions = map[string]uint8{
	"": unix.FR_ACT_TO_TBL, "goto": unix.FR_ACT_GOTO, "nop": unix.FR_ACT_NOP, "blackhole": unix.FR_ACT_BLACKHOLE,
	"unreachable": unix.FR_ACT_UNREACHABLE, "prohibit": unix.FR_ACT_PROHIBIT,
}

const fibRuleInvert = 2 // FIB_RULE_INVERT

// Marshal is the payload of RTM_NEWRULE or RTM_DELRULE: struct fib_rule_hdr and
// attributes. The protocol says who put the rule there.
func Marshal(r model.Rule, proto uint8) []byte {
	b := make([]byte, unix.SizeofRtMsg) // struct fib_rule_hdr is laid out alike
	b[0] = unix.AF_INET
	if r.IPv6 {
		b[0] = unix.AF_INET6
	}
	b[3], b[7] = r.TOS, ruleActions[r.Action]
	if r.Not {
		binary.NativeEndian.PutUint32(b[8:], fibRuleInvert)
	}
	ae := netlink.NewAttributeEncoder()
	if r.From.IsValid() {
		b[2] = uint8(r.From.Bits())
		ae.Bytes(unix.FRA_SRC, r.From.Masked().Addr().AsSlice())
	}
	if r.To.IsValid() {
		b[1] = uint8(r.To.Bits())
		ae.Bytes(unix.FRA_DST, r.To.Masked().Addr().AsSlice())
	}
	if r.Action == "" && !r.L3MDev {
		table := r.Table
		if table == 0 {
			table = unix.RT_TABLE_MAIN
		}
		if table < 256 {
			b[4] = uint8(table)
		}
		ae.Uint32(unix.FRA_TABLE, table)
	}
	ae.Uint32(unix.FRA_PRIORITY, r.Preference)
	ae.Uint8(unix.FRA_PROTOCOL, proto)
	number := func(typ uint16, v uint32) {
		if v != 0 {
			ae.Uint32(typ, v)
		}
	}
	if r.Action == "goto" {
		ae.Uint32(unix.FRA_GOTO, r.Goto)
	}
	number(unix.FRA_FLOW, r.Realms)
	if r.MarkMask != 0 {
		ae.Uint32(unix.FRA_FWMARK, r.Mark&r.MarkMask) // the kernel does not mask it
		ae.Uint32(unix.FRA_FWMASK, r.MarkMask)
	}
	if r.IIF != "" {
		ae.String(unix.FRA_IIFNAME, r.IIF)
	}
	if r.OIF != "" {
		ae.String(unix.FRA_OIFNAME, r.OIF)
	}
	if r.UIDRange {
		ae.Bytes(unix.FRA_UID_RANGE, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, r.UIDFrom), r.UIDTo))
	}
	if r.TunnelID != 0 {
		ae.Bytes(unix.FRA_TUN_ID, binary.BigEndian.AppendUint64(nil, r.TunnelID))
	}
	if r.L3MDev {
		ae.Uint8(unix.FRA_L3MDEV, 1)
	}
	if r.IPProto != 0 {
		ae.Uint8(unix.FRA_IP_PROTO, r.IPProto)
	}
	ports := func(typ uint16, p model.PortRange) {
		if p != (model.PortRange{}) {
			ae.Bytes(typ, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, p.From), max(p.To, p.From)))
		}
	}
	ports(unix.FRA_SPORT_RANGE, r.SPort)
	ports(unix.FRA_DPORT_RANGE, r.DPort)
	if r.SuppressPrefix > 0 {
		ae.Uint32(unix.FRA_SUPPRESS_PREFIXLEN, uint32(r.SuppressPrefix-1))
	}
	if r.SuppressGroup > 0 {
		ae.Uint32(unix.FRA_SUPPRESS_IFGROUP, uint32(r.SuppressGroup-1))
	}
	attrs, err := ae.Encode()
	if err != nil {
		attrs = nil // only values too long for netlink; the kernel refuses the rest
	}
	return append(b, attrs...)
}

// Text names a rule for messages: "32 from 10.0.0.0/8 lookup 100".
func Text(r model.Rule) string {
	text := fmt.Sprint(r.Preference)
	if r.Not {
		text += " not"
	}
	if r.From.IsValid() {
		text += " from " + r.From.String()
	}
	if r.To.IsValid() {
		text += " to " + r.To.String()
	}
	if r.MarkMask != 0 {
		text += fmt.Sprintf(" fwmark %#x/%#x", r.Mark, r.MarkMask)
	}
	if r.IIF != "" {
		text += " iif " + r.IIF
	}
	if r.OIF != "" {
		text += " oif " + r.OIF
	}
	switch {
	case r.L3MDev:
		return text + " l3mdev"
	case r.Action == "goto":
		return text + fmt.Sprintf(" goto %d", r.Goto)
	case r.Action != "":
		return text + " " + r.Action
	}
	return text + fmt.Sprintf(" lookup %d", r.Table)
}

// Normal is a rule as Parse gives it back, for comparison.
func Normal(r model.Rule) model.Rule {
	r.NoTrack, r.TrackGroup, r.Protocol = false, "", 0
	if r.From.IsValid() {
		r.From = r.From.Masked()
	}
	if r.To.IsValid() {
		r.To = r.To.Masked()
	}
	if r.Action == "" && r.Table == 0 && !r.L3MDev {
		r.Table = unix.RT_TABLE_MAIN
	}
	if r.MarkMask == 0 {
		r.Mark = 0
	}
	if r.MarkMask != 0 {
		r.Mark &= r.MarkMask
	}
	for _, p := range []*model.PortRange{&r.SPort, &r.DPort} {
		p.To = max(p.To, p.From)
	}
	// From or to "any" is no condition.
	if r.From.IsValid() && r.From.Bits() == 0 {
		r.From = netip.Prefix{}
	}
	if r.To.IsValid() && r.To.Bits() == 0 {
		r.To = netip.Prefix{}
	}
	return r
}

// Parse reads a rule of a dump; false: it is none that the configuration could
// ask for.
func Parse(b []byte) (r model.Rule, proto uint8, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return r, 0, false
	}
	r.IPv6, r.TOS, r.Table = b[0] == unix.AF_INET6, b[3], uint32(b[4])
	r.Not = binary.NativeEndian.Uint32(b[8:])&fibRuleInvert != 0
	known := false
	for name, n := range ruleActions {
		if n == b[7] {
			r.Action, known = name, true
		}
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofRtMsg:])
	if err != nil || !known {
		return r, 0, false
	}
	prefix := func(bits byte) netip.Prefix {
		a, valid := netip.AddrFromSlice(ad.Bytes())
		if !valid || int(bits) > a.BitLen() {
			known = false
			return netip.Prefix{}
		}
		return netip.PrefixFrom(a, int(bits))
	}
	for ad.Next() {
		v := ad.Bytes()
		switch ad.Type() {
		case unix.FRA_SRC:
			r.From = prefix(b[2])
		case unix.FRA_DST:
			r.To = prefix(b[1])
		case unix.FRA_TABLE:
			r.Table = ad.Uint32()
		case unix.FRA_PRIORITY:
			r.Preference = ad.Uint32()
		case unix.FRA_PROTOCOL:
			proto = ad.Uint8()
		case unix.FRA_GOTO:
			r.Goto = ad.Uint32()
		case unix.FRA_FLOW:
			r.Realms = ad.Uint32()
		case unix.FRA_FWMARK:
			r.Mark = ad.Uint32()
		case unix.FRA_FWMASK:
			r.MarkMask = ad.Uint32()
		case unix.FRA_IIFNAME:
			r.IIF = ad.String()
		case unix.FRA_OIFNAME:
			r.OIF = ad.String()
		case unix.FRA_UID_RANGE:
			if len(v) == 8 {
				r.UIDRange, r.UIDFrom, r.UIDTo = true, binary.NativeEndian.Uint32(v), binary.NativeEndian.Uint32(v[4:])
			}
		case unix.FRA_TUN_ID:
			if len(v) == 8 {
				r.TunnelID = binary.BigEndian.Uint64(v)
			}
		case unix.FRA_L3MDEV:
			r.L3MDev = ad.Uint8() != 0
		case unix.FRA_IP_PROTO:
			r.IPProto = ad.Uint8()
		case unix.FRA_SPORT_RANGE, unix.FRA_DPORT_RANGE:
			if len(v) != 4 {
				continue
			}
			p := model.PortRange{From: binary.NativeEndian.Uint16(v), To: binary.NativeEndian.Uint16(v[2:])}
			if ad.Type() == unix.FRA_SPORT_RANGE {
				r.SPort = p
			} else {
				r.DPort = p
			}
		case unix.FRA_SUPPRESS_PREFIXLEN:
			r.SuppressPrefix = int(int32(ad.Uint32())) + 1 // -1: not set
		case unix.FRA_SUPPRESS_IFGROUP:
			r.SuppressGroup = int(int32(ad.Uint32())) + 1
		}
	}
	if r.Action != "" || r.L3MDev {
		r.Table = 0
	}
	return r, proto, known && ad.Err() == nil
}
