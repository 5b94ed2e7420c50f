package ipvsnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

// Attributes of a service (IPVS_SVC_ATTR_*).
const (
	svcAF        = 1
	svcProtocol  = 2
	svcAddr      = 3
	svcPort      = 4
	svcMark      = 5
	svcScheduler = 6
	svcFlags     = 7
	svcTimeout   = 8
	svcNetmask   = 9
	svcPE        = 11
	svcStats64   = 12
)

// Attributes of a destination (IPVS_DEST_ATTR_*).
const (
	dstAddr       = 1
	dstPort       = 2
	dstForward    = 3
	dstWeight     = 4
	dstUThreshold = 5
	dstLThreshold = 6
	dstActive     = 7
	dstInactive   = 8
	dstPersistent = 9
	dstAF         = 11
	dstStats64    = 12
	dstTunType    = 13
	dstTunPort    = 14
	dstTunFlags   = 15
)

// Attributes of a sync daemon (IPVS_DAEMON_ATTR_*).
const (
	dmnState     = 1
	dmnInterface = 2
	dmnID        = 3
	dmnMaxLen    = 4
	dmnGroup     = 5
	dmnGroup6    = 6
	dmnPort      = 7
	dmnTTL       = 8
)

// typeMask takes the NESTED and NET_BYTEORDER bits off an attribute type.
const typeMask = 0x3fff

var errTruncated = errors.New("attribute leaves its message")

// attrs hands each attribute of b to f: its type without flags and its payload.
func attrs(b []byte, f func(t uint16, d []byte) error) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return errTruncated
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return errTruncated
		}
		t := binary.NativeEndian.Uint16(b[2:]) & typeMask
		if err := f(t, b[4:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

func badLen(t uint16, d []byte) error {
	return fmt.Errorf("attribute %d has %d bytes", t, len(d))
}

func u8(t uint16, d []byte, p *uint8) error {
	if len(d) != 1 {
		return badLen(t, d)
	}
	*p = d[0]
	return nil
}

func u16(t uint16, d []byte, p *uint16) error {
	if len(d) != 2 {
		return badLen(t, d)
	}
	*p = binary.NativeEndian.Uint16(d)
	return nil
}

func be16(t uint16, d []byte, p *uint16) error {
	if len(d) != 2 {
		return badLen(t, d)
	}
	*p = binary.BigEndian.Uint16(d)
	return nil
}

func u32(t uint16, d []byte, p *uint32) error {
	if len(d) != 4 {
		return badLen(t, d)
	}
	*p = binary.NativeEndian.Uint32(d)
	return nil
}

// known holds one copy of the names that come in every message of a dump.
var known = func() map[string]string {
	m := map[string]string{}
	for _, s := range []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos", "none", "sip"} {
		m[s] = s
	}
	return m
}()

func name(t uint16, d []byte, p *string) error {
	s, _, _ := bytes.Cut(d, []byte{0})
	if len(d) == 0 || len(s) > nameMax {
		return badLen(t, d)
	}
	if k, ok := known[string(s)]; ok {
		*p = k
	} else {
		*p = string(s)
	}
	return nil
}

// address reads union nf_inet_addr: 16 bytes, of which IPv4 uses 4.
func address(af uint16, b []byte) (netip.Addr, error) {
	switch {
	case af == unix.AF_INET && (len(b) == 4 || len(b) == 16):
		return netip.AddrFrom4([4]byte(b[:4])), nil
	case af == unix.AF_INET6 && len(b) == 16:
		return netip.AddrFrom16([16]byte(b)), nil
	}
	return netip.Addr{}, fmt.Errorf("address of family %d with %d bytes", af, len(b))
}

func decodeStats(b []byte, s *Stats) error {
	to := [...]*uint64{1: &s.Conns, &s.InPackets, &s.OutPackets, &s.InBytes, &s.OutBytes,
		&s.CPS, &s.InPPS, &s.OutPPS, &s.InBPS, &s.OutBPS}
	return attrs(b, func(t uint16, d []byte) error {
		if t == 0 || int(t) >= len(to) {
			return nil // padding
		}
		if len(d) != 8 {
			return badLen(t, d)
		}
		*to[t] = binary.NativeEndian.Uint64(d)
		return nil
	})
}

// body returns the payload of the one attribute want of a reply, after its
// generic netlink header.
func body(b []byte, want uint16) ([]byte, error) {
	if len(b) < genlHeader {
		return nil, errors.New("reply is shorter than its header")
	}
	var out []byte
	err := attrs(b[genlHeader:], func(t uint16, d []byte) error {
		if t == want && out == nil {
			out = d
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if out == nil {
		return nil, fmt.Errorf("reply lacks attribute %d", want)
	}
	return out, nil
}

// decodeService reads one reply to GET_SERVICE.
func decodeService(b []byte) (ServiceState, error) {
	var s ServiceState
	b, err := body(b, attrService)
	if err != nil {
		return s, fmt.Errorf("ipvs: service: %w", err)
	}
	var af, proto uint16
	var addr, mask, flags []byte
	var haveID, havePort bool
	err = attrs(b, func(t uint16, d []byte) error {
		switch t {
		case svcAF:
			return u16(t, d, &af)
		case svcProtocol:
			return u16(t, d, &proto)
		case svcAddr:
			addr, haveID = d, true
		case svcPort:
			havePort = true
			return be16(t, d, &s.ID.Port)
		case svcMark:
			haveID = true
			return u32(t, d, &s.ID.Mark)
		case svcScheduler:
			return name(t, d, &s.Scheduler)
		case svcFlags:
			if len(d) != 8 {
				return badLen(t, d)
			}
			flags = d
		case svcTimeout:
			return u32(t, d, &s.Timeout)
		case svcNetmask:
			if len(d) != 4 {
				return badLen(t, d)
			}
			mask = d
		case svcPE:
			return name(t, d, &s.PE)
		case svcStats64:
			return decodeStats(d, &s.Stats)
		}
		return nil
	})
	switch {
	case err != nil:
	case af != unix.AF_INET && af != unix.AF_INET6:
		err = fmt.Errorf("address family %d", af)
	case !haveID || flags == nil || mask == nil:
		err = errors.New("reply lacks its address, flags or netmask")
	case s.ID.Mark != 0:
		s.ID = model.ServiceID{Mark: s.ID.Mark, IPv6: af == unix.AF_INET6}
	case proto > 255 || addr == nil || !havePort:
		err = fmt.Errorf("protocol %d, port present %v", proto, havePort)
	default:
		s.ID.Protocol = model.Protocol(proto)
		s.ID.Addr, err = address(af, addr)
	}
	if err != nil {
		return ServiceState{}, fmt.Errorf("ipvs: service: %w", err)
	}
	s.Flags = binary.NativeEndian.Uint32(flags) & flagsManaged
	switch {
	case s.Flags&FlagPersistent == 0:
		s.Timeout, s.Netmask = 0, 0 // no meaning without persistence
	case af == unix.AF_INET:
		s.Netmask = binary.BigEndian.Uint32(mask)
	default:
		s.Netmask = binary.NativeEndian.Uint32(mask)
	}
	return s, nil
}

// decodeDest reads one reply to GET_DEST.
func decodeDest(b []byte) (DestState, error) {
	var s DestState
	b, err := body(b, attrDest)
	if err != nil {
		return s, fmt.Errorf("ipvs: destination: %w", err)
	}
	var af uint16
	var fwd, weight uint32
	var addr []byte
	var have int
	err = attrs(b, func(t uint16, d []byte) error {
		switch t {
		case dstAddr:
			addr = d
		case dstPort:
			have++
			return be16(t, d, &s.Port)
		case dstForward:
			have++
			return u32(t, d, &fwd)
		case dstWeight:
			have++
			return u32(t, d, &weight)
		case dstUThreshold:
			return u32(t, d, &s.UThreshold)
		case dstLThreshold:
			return u32(t, d, &s.LThreshold)
		case dstActive:
			return u32(t, d, &s.Active)
		case dstInactive:
			return u32(t, d, &s.Inactive)
		case dstPersistent:
			return u32(t, d, &s.Persistent)
		case dstAF:
			return u16(t, d, &af)
		case dstStats64:
			return decodeStats(d, &s.Stats)
		case dstTunType:
			return u8(t, d, &s.TunnelType)
		case dstTunPort:
			return be16(t, d, &s.TunnelPort)
		case dstTunFlags:
			return u16(t, d, &s.TunnelFlags)
		}
		return nil
	})
	if err == nil && have < 3 {
		err = errors.New("reply lacks its port, forwarding method or weight")
	}
	if err == nil && int32(weight) < 0 {
		err = fmt.Errorf("weight %d", int32(weight))
	}
	if err == nil {
		s.Addr, err = address(af, addr)
	}
	if err != nil {
		return DestState{}, fmt.Errorf("ipvs: destination: %w", err)
	}
	s.Forward, s.Weight = uint8(fwd&7), int32(weight)
	if s.Forward != ForwardTUN {
		s.TunnelType, s.TunnelPort, s.TunnelFlags = 0, 0, 0 // no meaning without a tunnel
	}
	return s, nil
}

// decodeDaemon reads one reply to GET_DAEMON.
func decodeDaemon(b []byte) (Daemon, error) {
	var s Daemon
	b, err := body(b, attrDaemon)
	if err != nil {
		return s, fmt.Errorf("ipvs: sync daemon: %w", err)
	}
	err = attrs(b, func(t uint16, d []byte) (err error) {
		switch t {
		case dmnState:
			return u32(t, d, (*uint32)(&s.Role))
		case dmnInterface:
			return name(t, d, &s.Interface)
		case dmnID:
			return u32(t, d, &s.ID)
		case dmnMaxLen:
			return u16(t, d, &s.MaxLen)
		case dmnGroup:
			if len(d) != 4 {
				return badLen(t, d)
			}
			s.Group = netip.AddrFrom4([4]byte(d))
		case dmnGroup6:
			if len(d) != 16 {
				return badLen(t, d)
			}
			s.Group = netip.AddrFrom16([16]byte(d))
		case dmnPort:
			return u16(t, d, &s.Port)
		case dmnTTL:
			return u8(t, d, &s.TTL)
		}
		return nil
	})
	if err == nil && s.Role != Master && s.Role != Backup {
		err = fmt.Errorf("role %d", s.Role)
	}
	if err != nil {
		return Daemon{}, fmt.Errorf("ipvs: sync daemon: %w", err)
	}
	return s, nil
}

// decodeTimeouts reads the reply to GET_CONFIG.
func decodeTimeouts(b []byte) (Timeouts, error) {
	var s Timeouts
	if len(b) < genlHeader {
		return s, errors.New("ipvs: timeouts: reply is shorter than its header")
	}
	err := attrs(b[genlHeader:], func(t uint16, d []byte) error {
		switch t {
		case attrTimeoutTCP:
			return u32(t, d, &s.TCP)
		case attrTimeoutTCPFin:
			return u32(t, d, &s.TCPFin)
		case attrTimeoutUDP:
			return u32(t, d, &s.UDP)
		}
		return nil
	})
	if err != nil {
		return Timeouts{}, fmt.Errorf("ipvs: timeouts: %w", err)
	}
	return s, nil
}

// decodeInfo reads the reply to GET_INFO.
func decodeInfo(b []byte) (Info, error) {
	var s Info
	if len(b) < genlHeader {
		return s, errors.New("ipvs: info: reply is shorter than its header")
	}
	err := attrs(b[genlHeader:], func(t uint16, d []byte) error {
		switch t {
		case 1:
			var v uint32
			if err := u32(t, d, &v); err != nil {
				return err
			}
			s.Version, s.VersionKnown = [3]uint8{uint8(v >> 16), uint8(v >> 8), uint8(v)}, true
		case 2:
			return u32(t, d, &s.ConnTabSize)
		}
		return nil
	})
	if err != nil {
		return Info{}, fmt.Errorf("ipvs: info: %w", err)
	}
	return s, nil
}
