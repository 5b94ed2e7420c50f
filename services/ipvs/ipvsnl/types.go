// Package ipvsnl speaks to IPVS in the kernel over generic netlink (family
// "IPVS", version 1, include/uapi/linux/ip_vs.h) and reads its connection
// table from /proc/net/ip_vs_conn.
//
// Requests go out many to a send, each with its own acknowledgement, so that
// an error belongs to the one request that caused it. Replies are decoded
// strictly: an attribute that is too short, of a wrong length or that leaves
// its message is an error, never a zero value. All commands, reads too, need
// CAP_NET_ADMIN.
package ipvsnl

import (
	"cmp"
	"net/netip"

	"ballast/configs/model"
)

// Commands of the family (IPVS_CMD_*).
const (
	cmdNewService = 1 + iota
	cmdSetService
	cmdDelService
	cmdGetService
	cmdNewDest
	cmdSetDest
	cmdDelDest
	cmdGetDest
	cmdNewDaemon
	cmdDelDaemon
	cmdGetDaemon
	cmdSetConfig
	cmdGetConfig
	cmdSetInfo
	cmdGetInfo
)

// Top-level attributes (IPVS_CMD_ATTR_*).
const (
	attrService       = 1
	attrDest          = 2
	attrDaemon        = 3
	attrTimeoutTCP    = 4
	attrTimeoutTCPFin = 5
	attrTimeoutUDP    = 6
)

// Flags of a service (IP_VS_SVC_F_*). The kernel keeps a further one, HASHED,
// for itself: it is neither sent nor shown.
const (
	FlagPersistent uint32 = 0x01
	FlagOnePacket  uint32 = 0x04
	FlagSched1     uint32 = 0x08 // sh-fallback, mh-fallback
	FlagSched2     uint32 = 0x10 // sh-port, mh-port
	FlagSched3     uint32 = 0x20

	flagsManaged = FlagPersistent | FlagOnePacket | FlagSched1 | FlagSched2 | FlagSched3
)

// Forwarding methods as the kernel numbers them (IP_VS_CONN_F_FWD_MASK).
const (
	ForwardNAT    uint8 = 0
	ForwardLocal  uint8 = 1
	ForwardTUN    uint8 = 2
	ForwardDR     uint8 = 3
	ForwardBypass uint8 = 4
)

// Tunnel types and flags (IP_VS_CONN_F_TUNNEL_TYPE_*, IP_VS_TUNNEL_ENCAP_FLAG_*).
const (
	TunnelIPIP uint8 = 0
	TunnelGUE  uint8 = 1
	TunnelGRE  uint8 = 2

	TunnelCsum    uint16 = 1
	TunnelRemCsum uint16 = 2
)

// Service is one virtual service as it is configured in the kernel. Values
// are comparable: two services that behave alike are equal.
type Service struct {
	ID        model.ServiceID // canonical, see Canonical
	Scheduler string          // "rr", "wlc", …; "none" where the kernel has none
	Flags     uint32          // Flag*
	Timeout   uint32          // seconds of persistence; 0 without FlagPersistent
	// Netmask groups clients for persistence: a mask in host byte order for
	// IPv4, a prefix length for IPv6; 0 without FlagPersistent.
	Netmask uint32
	PE      string // persistence engine, "sip" or none
}

// Family is the address family of a service: true for IPv6.
func Family(id model.ServiceID) (ipv6 bool) {
	if id.Mark != 0 {
		return id.IPv6
	}
	return id.Addr.Is6()
}

// Canonical clears the fields of id that do not name a service, so that equal
// services have equal IDs: a mark service is its mark and family, another one
// its address, protocol and port.
func Canonical(id model.ServiceID) model.ServiceID {
	if id.Mark != 0 {
		return model.ServiceID{Mark: id.Mark, IPv6: id.IPv6}
	}
	return model.ServiceID{Addr: id.Addr.Unmap().WithZone(""), Port: id.Port, Protocol: id.Protocol}
}

// CompareID orders services: by address, port and protocol, mark services
// last.
func CompareID(a, b model.ServiceID) int {
	if c := cmp.Compare(a.Mark, b.Mark); c != 0 {
		return c
	}
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Port, b.Port); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Protocol, b.Protocol); c != 0 {
		return c
	}
	switch {
	case a.IPv6 == b.IPv6:
		return 0
	case b.IPv6:
		return -1
	}
	return 1
}

// Dest is one destination (real server) of a service as it is configured.
type Dest struct {
	Addr                   netip.Addr
	Port                   uint16
	Forward                uint8 // Forward*
	TunnelType             uint8 // Tunnel*, only with ForwardTUN
	TunnelPort             uint16
	TunnelFlags            uint16
	Weight                 int32 // 0..2^31-1; 0 takes no new connections
	UThreshold, LThreshold uint32
}

// CompareDest orders destinations by address and port, which name one within
// its service.
func CompareDest(a, b Dest) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return cmp.Compare(a.Port, b.Port)
}

// Stats are the kernel's 64-bit counters since the entry was made and its own
// estimates a second; bytes, not bits.
type Stats struct {
	Conns, InPackets, OutPackets, InBytes, OutBytes uint64
	CPS, InPPS, OutPPS, InBPS, OutBPS               uint64
}

// ServiceState is a service as the kernel reports it.
type ServiceState struct {
	Service
	Stats Stats
}

// DestState is a destination as the kernel reports it.
type DestState struct {
	Dest
	Active, Inactive, Persistent uint32 // connections, and persistence templates
	Stats                        Stats
}

// Role of a connection sync daemon (IP_VS_STATE_*).
type Role uint32

// Roles.
const (
	Master Role = 1 // sends connections
	Backup Role = 2 // receives them
)

func (r Role) String() string {
	switch r {
	case Master:
		return "master"
	case Backup:
		return "backup"
	}
	return "role?"
}

// Daemon is one connection sync daemon. The kernel runs at most one of each
// role and cannot change one: it has to be stopped and started.
type Daemon struct {
	Role      Role
	Interface string
	ID        uint32     // 0..255
	MaxLen    uint16     // bytes of payload; 0 in a request: the kernel's default
	Port      uint16     // 0 in a request: 8848
	TTL       uint8      // 0 in a request: 1
	Group     netip.Addr // invalid in a request: 224.0.0.81
}

// Timeouts are the connection timeouts, seconds. In a request 0 leaves the
// kernel's value.
type Timeouts struct{ TCP, TCPFin, UDP uint32 }

// Info tells about IPVS in this kernel.
type Info struct {
	Version      [3]uint8 // 1.2.1
	ConnTabSize  uint32   // buckets of the connection table
	VersionKnown bool
}
