package model

import (
	"net/netip"
	"reflect"
	"time"
)

// Address is an address line.
type Address struct {
	Prefix        netip.Prefix `json:",omitzero"` // address with length; /32 or /128 when the line has none
	Interface     string       `json:",omitzero"` // dev; the instance's interface when the line has none
	Label         string       `json:",omitzero"`
	Broadcast     netip.Addr   `json:",omitzero"` // invalid: none
	Scope         uint8        `json:",omitzero"` // RT_SCOPE_*
	Peer          netip.Prefix `json:",omitzero"`
	NoTrack       bool         `json:",omitzero"`
	NoPrefixRoute bool         `json:",omitzero"`
	UseVMAC       bool         `json:",omitzero"` // on a virtual MAC of Interface
	Home          bool         `json:",omitzero"`
	MngTmpAddr    bool         `json:",omitzero"`
	AutoJoin      bool         `json:",omitzero"`
	// Preferred is the preferred lifetime; 0: forever, -1: deprecated from the start.
	Preferred  time.Duration `json:",omitzero"`
	TrackGroup string        `json:",omitzero"` // static addresses only
}

// Route is a route line. Only unicast and blackhole-like types.
type Route struct {
	Type      string       `json:",omitzero"` // "", "blackhole", "unreachable", "prohibit", "throw"
	Dst       netip.Prefix `json:",omitzero"` // 0.0.0.0/0 or ::/0 for default
	Via       netip.Addr   `json:",omitzero"` // invalid: on link
	Interface string       `json:",omitzero"` // empty: the kernel picks it by Via
	Src       netip.Addr   `json:",omitzero"`
	Table     uint32       `json:",omitzero"` // 0: main
	Metric    uint32       `json:",omitzero"`
	MTU       uint32       `json:",omitzero"`
	Scope     uint8        `json:",omitzero"`
	OnLink    bool         `json:",omitzero"`
	NoTrack   bool         `json:",omitzero"`

	NextHops   []NextHop `json:",omitzero"` // several gateways; Via and Interface are then unset
	TOS        uint8     `json:",omitzero"`
	Protocol   uint8     `json:",omitzero"` // 0: 18, keepalived's
	Metrics    []Metric  `json:",omitzero"` // of RTA_METRICS; the MTU is here only when it is locked
	Append     bool      `json:",omitzero"`
	TrackGroup string    `json:",omitzero"` // static routes only

	Realms         uint32 `json:",omitzero"` // FROM<<16 | TO; IPv4 only
	Pref           string `json:",omitzero"` // of a router: "low", "high"; "": medium; IPv6 only
	Congestion     string `json:",omitzero"` // congctl: the algorithm of our own TCP connections by this route
	CongestionLock bool   `json:",omitzero"`
}

// Equal reports whether both are one line.
func (r Route) Equal(o Route) bool { return reflect.DeepEqual(r, o) }

// NextHop is one gateway of a route with several.
type NextHop struct {
	Via       netip.Addr `json:",omitzero"`
	Interface string     `json:",omitzero"`
	Weight    int        `json:",omitzero"` // 1..256
	OnLink    bool       `json:",omitzero"`
}

// Metric is one number of RTA_METRICS, by its RTAX_* number.
type Metric struct {
	Kind  uint16 `json:",omitzero"`
	Value uint32 `json:",omitzero"`
	Lock  bool   `json:",omitzero"`
}

// Rule is a rule line.
type Rule struct {
	IPv6           bool         `json:",omitzero"`
	Not            bool         `json:",omitzero"`
	From, To       netip.Prefix `json:",omitzero"` // invalid: any
	Preference     uint32       `json:",omitzero"`
	Action         string       `json:",omitzero"` // "": Table is looked up; "goto", "nop", "unreachable", "prohibit", "blackhole"
	Table          uint32       `json:",omitzero"`
	Goto           uint32       `json:",omitzero"`
	Realms         uint32       `json:",omitzero"`
	Mark, MarkMask uint32       `json:",omitzero"` // mask 0: no mark is asked for
	TOS            uint8        `json:",omitzero"`
	IIF, OIF       string       `json:",omitzero"`
	UIDRange       bool         `json:",omitzero"`
	UIDFrom, UIDTo uint32       `json:",omitzero"`
	TunnelID       uint64       `json:",omitzero"`
	L3MDev         bool         `json:",omitzero"`
	IPProto        uint8        `json:",omitzero"` // 0: any
	SPort, DPort   PortRange    `json:",omitzero"` // zero: any
	Protocol       uint8        `json:",omitzero"` // 0: 18, keepalived's
	SuppressPrefix int          `json:",omitzero"` // suppress_prefixlength + 1; 0: not set
	SuppressGroup  int          `json:",omitzero"` // suppress_ifgroup + 1; 0: not set
	NoTrack        bool         `json:",omitzero"`
	TrackGroup     string       `json:",omitzero"` // static rules only
}

// System is the appliance's own "system" block.
type System struct {
	HostName string       `json:",omitzero"`
	Logins   []Login      `json:",omitzero"`
	DNS      []netip.Addr `json:",omitzero"`
	NTP      []string     `json:",omitzero"`
	Syslog   []string     `json:",omitzero"` // host:port
	// IdleTimeout closes a session of the console in which nobody types; 0: 30 min.
	IdleTimeout time.Duration `json:",omitzero"`
}

// Login is one console user.
type Login struct {
	Name string   `json:",omitzero"`
	Keys []string `json:",omitzero"` // authorized_keys lines
	Role string   `json:",omitzero"` // "admin", "operate", "view"
}

// Interface is the appliance's "interface NAME { … }" block. A name that the
// kernel does not know is given to the NIC that Match picks.
type Interface struct {
	Name      string         `json:",omitzero"`
	Match     Match          `json:",omitzero"`
	Addresses []netip.Prefix `json:",omitzero"`
	DHCP      bool           `json:",omitzero"`
	DHCP6     bool           `json:",omitzero"`
	MTU       int            `json:",omitzero"` // 0: leave
	Disabled  bool           `json:",omitzero"`
	Accept    RAMode         `json:",omitzero"` // IPv6 router advertisements
}

// RAMode says whether router advertisements are accepted.
type RAMode uint8

// RA modes: off unless asked for, a director's routes are its operator's.
const (
	RAOff RAMode = iota
	RAOn
)

// Match picks a NIC. The first field that is set counts.
type Match struct {
	MAC string `json:",omitzero"` // permanent or current address, lower case with colons
	PCI string `json:",omitzero"` // "0000:00:02.0"
}

// Bond is "bond NAME { … }".
type Bond struct {
	Name       string        `json:",omitzero"`
	Mode       string        `json:",omitzero"` // "active-backup", "802.3ad", "balance-rr", "balance-xor", "broadcast", "balance-tlb", "balance-alb"
	Members    []string      `json:",omitzero"`
	MIIMon     time.Duration `json:",omitzero"` // default 100 ms
	Primary    string        `json:",omitzero"`
	HashPolicy string        `json:",omitzero"` // xmit_hash_policy
	LACPRate   string        `json:",omitzero"`
}

// VLAN is "vlan NAME { link IF; id N }".
type VLAN struct {
	Name string `json:",omitzero"`
	Link string `json:",omitzero"`
	ID   int    `json:",omitzero"` // 1..4094
}

// Mark is "mark N { … }": packets that match get firewall mark N before IPVS
// looks at them.
type Mark struct {
	Mark  uint32     `json:",omitzero"`
	Rules []MarkRule `json:",omitzero"`
}

// MarkRule selects packets by destination.
type MarkRule struct {
	Protocol Protocol     `json:",omitzero"`
	Dst      netip.Prefix `json:",omitzero"`
	Ports    []PortRange  `json:",omitzero"` // empty: any
}

// PortRange is an inclusive range of ports.
type PortRange struct{ From, To uint16 }

// Firewall is the appliance's firewall block: what may reach the box itself.
// What its own services need by the rest of the configuration is allowed
// without it.
type Firewall struct {
	Accept bool            `json:",omitzero"` // what no rule is about is accepted; otherwise it is dropped
	Log    bool            `json:",omitzero"` // what is dropped goes into the kernel's log, a few lines a second
	SSH    []Whence        `json:",omitzero"` // who may come in by SSH; none: everybody
	Allow  []FirewallAllow `json:",omitzero"`
}

// Whence is where packets come from: any of the networks, by any of the
// interfaces. None: any.
type Whence struct {
	Sources    []netip.Prefix `json:",omitzero"`
	Interfaces []string       `json:",omitzero"`
}

// FirewallAllow is one allow line.
type FirewallAllow struct {
	From     Whence      `json:",omitzero"`
	Protocol uint8       `json:",omitzero"` // 0: any
	Ports    []PortRange `json:",omitzero"` // of tcp, udp and sctp; empty: any
}

// FirewallProtocols are the protocols that an allow line may name.
var FirewallProtocols = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmp6": 58, "gre": 47, "esp": 50, "ah": 51, "vrrp": 112, "any": 0}

// Admits says whether somebody is among those. An empty iface is one that is not
// known.
func (w Whence) Admits(source netip.Addr, iface string) bool {
	in := len(w.Sources) == 0
	for _, p := range w.Sources {
		in = in || p.Contains(source)
	}
	on := len(w.Interfaces) == 0 || iface == ""
	for _, i := range w.Interfaces {
		on = on || i == iface
	}
	return in && on
}

// AdmitsSSH says whether the filter lets somebody in by SSH.
func (f *Firewall) AdmitsSSH(source netip.Addr, iface string, port uint16) bool {
	if source.IsLoopback() || len(f.SSH) == 0 {
		return true
	}
	for _, w := range f.SSH {
		if w.Admits(source, iface) {
			return true
		}
	}
	for _, a := range f.Allow {
		there := len(a.Ports) == 0
		for _, p := range a.Ports {
			there = there || p.From <= port && port <= p.To
		}
		if (a.Protocol == 0 || a.Protocol == uint8(TCP)) && there && a.From.Admits(source, iface) {
			return true
		}
	}
	return false
}
