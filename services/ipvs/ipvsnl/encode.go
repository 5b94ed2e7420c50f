package ipvsnl

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

const (
	nlmsgHeader = 16
	genlHeader  = 4
	version     = 1

	// schedNameMax, peNameMax and ifNameMax are the kernel's buffers less the
	// final NUL.
	nameMax = 15
)

// Verb says what a Request does.
type Verb uint8

// Verbs. Adding what exists and changing or deleting what does not are errors
// of the kernel (EEXIST, ENOENT, ESRCH).
const (
	AddService Verb = iota + 1
	EditService
	DelService
	AddDest
	EditDest
	DelDest
	StartDaemon
	StopDaemon
	SetTimeouts
)

// Request is one change. Service names the service for every verb on services
// and destinations.
type Request struct {
	Verb     Verb
	Service  Service
	Dest     Dest
	Daemon   Daemon
	Timeouts Timeouts
}

// buffer builds netlink messages one after the other.
type buffer struct{ b []byte }

func (m *buffer) raw(t uint16, d []byte) {
	// By hand: a large table has a million of them.
	at, n := len(m.b), 4+len(d)
	m.b = slices.Grow(m.b, n+3)[:at+(n+3)&^3]
	b := m.b[at:]
	binary.NativeEndian.PutUint16(b, uint16(n))
	binary.NativeEndian.PutUint16(b[2:], t)
	copy(b[4:], d)
	clear(b[n:])
}

func (m *buffer) u8(t uint16, v uint8) { m.raw(t, []byte{v}) }
func (m *buffer) u16(t, v uint16) {
	var d [2]byte
	binary.NativeEndian.PutUint16(d[:], v)
	m.raw(t, d[:])
}
func (m *buffer) be16(t, v uint16) { m.raw(t, []byte{byte(v >> 8), byte(v)}) }
func (m *buffer) u32(t uint16, v uint32) {
	var d [4]byte
	binary.NativeEndian.PutUint32(d[:], v)
	m.raw(t, d[:])
}
func (m *buffer) str(t uint16, s string) {
	var d [nameMax + 1]byte
	n := copy(d[:nameMax], s)
	m.raw(t, d[:n+1])
}

func (m *buffer) nest(t uint16) (mark int) {
	mark = len(m.b)
	m.b = append(m.b, 0, 0, 0, 0)
	binary.NativeEndian.PutUint16(m.b[mark+2:], t|unix.NLA_F_NESTED)
	return mark
}

func (m *buffer) unnest(mark int) {
	binary.NativeEndian.PutUint16(m.b[mark:], uint16(len(m.b)-mark))
}

// message begins a message; end fixes its length.
func (m *buffer) message(family, flags uint16, seq uint32, cmd uint8) (mark int) {
	mark = len(m.b)
	m.b = binary.NativeEndian.AppendUint32(m.b, 0)
	m.b = binary.NativeEndian.AppendUint16(m.b, family)
	m.b = binary.NativeEndian.AppendUint16(m.b, unix.NLM_F_REQUEST|flags)
	m.b = binary.NativeEndian.AppendUint32(m.b, seq)
	m.b = binary.NativeEndian.AppendUint32(m.b, 0) // port: the kernel fills in ours
	m.b = append(m.b, cmd, version, 0, 0)
	return mark
}

// acknowledge makes the kernel answer the message at mark in any case.
func (m *buffer) acknowledge(mark int) {
	f := m.b[mark+6:]
	binary.NativeEndian.PutUint16(f, binary.NativeEndian.Uint16(f)|unix.NLM_F_ACK)
}

func (m *buffer) end(mark int) {
	binary.NativeEndian.PutUint32(m.b[mark:], uint32(len(m.b)-mark))
}

// identity writes the attributes that name a service.
func (m *buffer) identity(id model.ServiceID) {
	if Family(id) {
		m.u16(svcAF, unix.AF_INET6)
	} else {
		m.u16(svcAF, unix.AF_INET)
	}
	if id.Mark != 0 {
		m.u32(svcMark, id.Mark)
		return
	}
	m.u16(svcProtocol, uint16(id.Protocol))
	m.raw(svcAddr, id.Addr.AsSlice())
	m.be16(svcPort, id.Port)
}

func (m *buffer) service(s *Service, full bool) {
	k := m.nest(attrService)
	m.identity(s.ID)
	if full {
		m.str(svcScheduler, s.Scheduler)
		if s.PE != "" {
			m.str(svcPE, s.PE)
		}
		var f [8]byte // struct ip_vs_flags: value, mask
		binary.NativeEndian.PutUint32(f[:], s.Flags&flagsManaged)
		binary.NativeEndian.PutUint32(f[4:], flagsManaged)
		m.raw(svcFlags, f[:])
		m.u32(svcTimeout, s.Timeout)
		m.raw(svcNetmask, netmask(s))
	}
	m.unnest(k)
}

// netmask is the wire form: a big-endian mask for IPv4, a prefix length in
// native order for IPv6, where the kernel refuses 0.
func netmask(s *Service) []byte {
	var d [4]byte
	v6 := Family(s.ID)
	switch {
	case s.Flags&FlagPersistent == 0 && v6:
		binary.NativeEndian.PutUint32(d[:], 128)
	case s.Flags&FlagPersistent == 0:
		binary.BigEndian.PutUint32(d[:], ^uint32(0))
	case v6:
		binary.NativeEndian.PutUint32(d[:], s.Netmask)
	default:
		binary.BigEndian.PutUint32(d[:], s.Netmask)
	}
	return d[:]
}

func (m *buffer) dest(d *Dest, full bool) {
	k := m.nest(attrDest)
	m.raw(dstAddr, d.Addr.AsSlice())
	m.be16(dstPort, d.Port)
	if d.Addr.Is6() {
		m.u16(dstAF, unix.AF_INET6)
	} else {
		m.u16(dstAF, unix.AF_INET)
	}
	if full {
		m.u32(dstForward, uint32(d.Forward))
		m.u32(dstWeight, uint32(d.Weight))
		m.u32(dstUThreshold, d.UThreshold)
		m.u32(dstLThreshold, d.LThreshold)
		if d.Forward == ForwardTUN {
			m.u8(dstTunType, d.TunnelType)
			m.be16(dstTunPort, d.TunnelPort)
			m.u16(dstTunFlags, d.TunnelFlags)
		}
	}
	m.unnest(k)
}

func (m *buffer) daemon(d *Daemon) {
	k := m.nest(attrDaemon)
	m.u32(dmnState, uint32(d.Role))
	m.str(dmnInterface, d.Interface)
	m.u32(dmnID, d.ID)
	if d.MaxLen != 0 {
		m.u16(dmnMaxLen, d.MaxLen)
	}
	switch {
	case d.Group.Is4():
		m.raw(dmnGroup, d.Group.AsSlice())
	case d.Group.Is6():
		m.raw(dmnGroup6, d.Group.AsSlice())
	}
	if d.Port != 0 {
		m.u16(dmnPort, d.Port)
	}
	if d.TTL != 0 {
		m.u8(dmnTTL, d.TTL)
	}
	m.unnest(k)
}

// request appends r as one message. The kernel answers it only if it refuses
// it, see acknowledge. What cannot be put on the wire is an error here.
func (m *buffer) request(family uint16, seq uint32, r *Request) error {
	if err := r.check(); err != nil {
		return err
	}
	cmd := [...]uint8{
		AddService: cmdNewService, EditService: cmdSetService, DelService: cmdDelService,
		AddDest: cmdNewDest, EditDest: cmdSetDest, DelDest: cmdDelDest,
		StartDaemon: cmdNewDaemon, StopDaemon: cmdDelDaemon, SetTimeouts: cmdSetConfig,
	}[r.Verb]
	k := m.message(family, 0, seq, cmd)
	switch r.Verb {
	case AddService, EditService:
		m.service(&r.Service, true)
	case DelService:
		m.service(&r.Service, false)
	case AddDest, EditDest:
		m.service(&r.Service, false)
		m.dest(&r.Dest, true)
	case DelDest:
		m.service(&r.Service, false)
		m.dest(&r.Dest, false)
	case StartDaemon, StopDaemon:
		m.daemon(&r.Daemon)
	case SetTimeouts:
		for _, v := range []struct {
			t uint16
			v uint32
		}{{attrTimeoutTCP, r.Timeouts.TCP}, {attrTimeoutTCPFin, r.Timeouts.TCPFin}, {attrTimeoutUDP, r.Timeouts.UDP}} {
			m.u32(v.t, v.v) // 0 leaves the kernel's value
		}
	}
	m.end(k)
	return nil
}

func (r *Request) check() error {
	if r.Verb < AddService || r.Verb > SetTimeouts {
		return fmt.Errorf("ipvs: no verb %d", r.Verb)
	}
	switch r.Verb {
	case StartDaemon, StopDaemon:
		if n := len(r.Daemon.Interface); n == 0 || n > nameMax {
			return fmt.Errorf("ipvs: sync daemon: interface name %q is not 1 to %d bytes long", r.Daemon.Interface, nameMax)
		}
		return nil
	case SetTimeouts:
		return nil
	}
	if r.Service.ID.Mark == 0 && !r.Service.ID.Addr.IsValid() {
		return fmt.Errorf("ipvs: a service without address and mark")
	}
	switch r.Verb {
	case AddService, EditService:
		if n := len(r.Service.Scheduler); n == 0 || n > nameMax {
			return fmt.Errorf("ipvs: scheduler name %q is not 1 to %d bytes long", r.Service.Scheduler, nameMax)
		}
		if len(r.Service.PE) > nameMax {
			return fmt.Errorf("ipvs: persistence engine name %q is longer than %d bytes", r.Service.PE, nameMax)
		}
	case AddDest, EditDest, DelDest:
		if !r.Dest.Addr.IsValid() {
			return fmt.Errorf("ipvs: a destination without address")
		}
		if r.Dest.Weight < 0 {
			return fmt.Errorf("ipvs: weight %d is negative", r.Dest.Weight)
		}
	}
	return nil
}
