// Package model holds the typed configuration of a director: what
// configs/schema binds from keepalived.conf text and what every service reads.
// Values are plain and comparable with cmp; standard library only.
//
// Defaults are applied by the binder, so a service never fills in a default:
// the zero value of a field means zero, not "unset", unless its comment says
// otherwise. Durations are time.Duration; addresses are netip values; a list
// keeps the order of the file. Fields travel between processes as JSON, where
// a field with its zero value is left out: of a table with 10,000 real servers
// two thirds are zeros.
package model

import (
	"net/netip"
	"reflect"
	"time"
)

// Config is one whole, checked configuration.
type Config struct {
	Global         Global          `json:",omitzero"`
	Scripts        []Script        `json:",omitzero"` // vrrp_script, by name
	Instances      []Instance      `json:",omitzero"` // vrrp_instance
	SyncGroups     []SyncGroup     `json:",omitzero"` // vrrp_sync_group
	VirtualServers []VirtualServer `json:",omitzero"` // virtual_server, groups already expanded
	StaticAddrs    []Address       `json:",omitzero"` // static_ipaddress
	StaticRoutes   []Route         `json:",omitzero"` // static_routes, and the appliance's route lines
	StaticRules    []Rule          `json:",omitzero"` // static_rules
	TrackFiles     []TrackFile     `json:",omitzero"` // track_file, by name
	TrackProcesses []TrackProcess  `json:",omitzero"` // vrrp_track_process, by name
	BFD            []BFD           `json:",omitzero"` // bfd_instance, by name
	GARPGroups     []GARPGroup     `json:",omitzero"` // garp_group
	TrackGroups    []TrackGroup    `json:",omitzero"` // track_group
	LinkDelays     []LinkDelay     `json:",omitzero"` // interface_up_down_delays
	SSL            SSL             `json:",omitzero"` // client certificate of SSL_GET
	Heartbeat      *Heartbeat      `json:",omitzero"` // the appliance's heartbeat block; nil: off
	System         System          `json:",omitzero"` // the appliance's own blocks from here on
	Interfaces     []Interface     `json:",omitzero"`
	Bonds          []Bond          `json:",omitzero"`
	VLANs          []VLAN          `json:",omitzero"`
	Marks          []Mark          `json:",omitzero"`
}

// Global is global_defs.
type Global struct {
	RouterID              string        `json:",omitzero"` // name in mail subjects; empty: the host name
	NotificationEmail     []string      `json:",omitzero"` // recipients
	NotificationEmailFrom string        `json:",omitzero"` // empty: keepalived@host name
	SMTPServer            string        `json:",omitzero"` // host:port; empty: no mail is sent
	SMTPHELO              string        `json:",omitzero"` // empty: the host name
	SMTPConnectTimeout    time.Duration `json:",omitzero"`
	SMTPAlert             Tristate      `json:",omitzero"` // default of every smtp_alert
	SMTPAlertVRRP         Tristate      `json:",omitzero"`
	SMTPAlertChecker      Tristate      `json:",omitzero"`
	NoEmailFaults         bool          `json:",omitzero"`
	NoCheckerEmails       bool          `json:",omitzero"`
	SMTPTLS               string        `json:",omitzero"` // "": never, "starttls": required, "tls": from the first byte
	SMTPNoVerify          bool          `json:",omitzero"` // the mail server's certificate is not verified
	SMTPUser              string        `json:",omitzero"` // AUTH; empty: none
	SMTPPassword          string        `json:",omitzero"` // secret; only sent over TLS

	ScriptUser           string `json:",omitzero"` // user that scripts run as; empty: keepalived_script
	EnableScriptSecurity bool   `json:",omitzero"`

	StartupScript, ShutdownScript               Command       `json:",omitzero"`
	StartupScriptTimeout, ShutdownScriptTimeout time.Duration `json:",omitzero"` // default 10 s
	NotifyFIFO, VRRPFIFO, LVSFIFO               FIFO          `json:",omitzero"`
	FIFOStatesOnReload                          bool          `json:",omitzero"` // fifo_write_vrrp_states_on_reload
	CheckerLogAllFailures                       bool          `json:",omitzero"`
	RSInitNotifies                              bool          `json:",omitzero"`

	DynamicInterfaces bool          `json:",omitzero"`
	StartupDelay      time.Duration `json:",omitzero"` // vrrp_startup_delay
	DelayAfterBoot    time.Duration `json:",omitzero"` // vrrp_delay_after_boot; the longer of the two counts
	LogUnknownVRIDs   bool          `json:",omitzero"`
	DisableLocalIGMP  bool          `json:",omitzero"`
	VMACAddrPrefix    string        `json:",omitzero"` // vmac_addr_prefix: how names of virtual MACs for addresses of other interfaces begin; default vmac_prefix

	SNMP SNMP `json:",omitzero"`

	// LVS
	SyncDaemon *SyncDaemon `json:",omitzero"` // lvs_sync_daemon; nil: off
	Timeouts   Timeouts    `json:",omitzero"` // lvs_timeouts; zero fields leave the kernel's value
}

// FIFO is a notify_fifo line and its reader. Path empty: none.
type FIFO struct {
	Path        string  `json:",omitzero"`
	User, Group string  `json:",omitzero"` // owner of the pipe; empty: who writes it
	Script      Command `json:",omitzero"` // reader; the path is appended to its argv
}

// SNMP is what the enable_snmp_* lines and the appliance's snmp block ask for.
type SNMP struct {
	VRRP, Checker, RFCv2, RFCv3, Traps bool `json:",omitzero"` // enable_snmp_vrrp, …; enable_snmp_keepalived is the first two
	// Listen is where the agent answers by itself; none: it does not.
	Listen    []netip.AddrPort `json:",omitzero"`
	Community string           `json:",omitzero"` // secret; read only
	TrapSinks []netip.AddrPort `json:",omitzero"`
	Clients   []netip.Prefix   `json:",omitzero"` // who may ask; none: everybody who knows the community

	ServiceAge, ServerAge time.Duration `json:",omitzero"` // snmp_vs_stats_update_interval and its like; default 5 s
}

// Heartbeat is the private heartbeat between two boxes of this kind. VRRP on
// the wire stays as it is.
type Heartbeat struct {
	Paths      []HeartbeatPath `json:",omitzero"`
	Key        []byte          `json:",omitzero"` // secret, 16..64 bytes
	Interval   time.Duration   `json:",omitzero"` // 5 ms..1 s, default 10 ms
	Multiplier int             `json:",omitzero"` // missed heartbeats until the peer is lost, 2..20, default 3
	Port       uint16          `json:",omitzero"` // UDP, default 1912
}

// HeartbeatPath is one peer line: an address of the other box.
type HeartbeatPath struct {
	Peer      netip.Addr `json:",omitzero"`
	From      netip.Addr `json:",omitzero"` // invalid: the kernel picks it
	Interface string     `json:",omitzero"` // bound to it; empty: by route
}

// Tristate is a setting that may be unset, so that a default further up counts.
type Tristate uint8

// Tristate values.
const (
	Unset Tristate = iota
	Off
	On
)

// SyncDaemon is lvs_sync_daemon: IPVS connection synchronisation in the kernel.
type SyncDaemon struct {
	Interface string     `json:",omitzero"`
	Instance  string     `json:",omitzero"` // VRRP instance whose role picks master or backup; empty: both daemons always
	ID        uint8      `json:",omitzero"` // syncid 0..255; default the instance's VRID
	MaxLen    uint16     `json:",omitzero"` // sync_maxlen in bytes, 0: kernel's default
	Port      uint16     `json:",omitzero"` // UDP, 0: 8848
	TTL       uint8      `json:",omitzero"` // 0: kernel's default (1)
	Group     netip.Addr `json:",omitzero"` // multicast group; invalid: 224.0.0.81
}

// Timeouts are the IPVS connection timeouts (lvs_timeouts), whole seconds.
type Timeouts struct{ TCP, TCPFin, UDP time.Duration }

// Command is a script line: argv, split as keepalived splits it, and its user.
type Command struct {
	Argv []string `json:",omitzero"`
	User string   `json:",omitzero"` // empty: Global.ScriptUser
	// Shell is set when the command must be handed to the shell as one line
	// (it uses shell words such as "[ -e x ] && exit 1" that keepalived's exec
	// would not run, or the "</dev/tcp" form).
	Shell string `json:",omitzero"`
}

// IsZero reports whether no command is configured.
func (c Command) IsZero() bool { return len(c.Argv) == 0 && c.Shell == "" }

// Script is vrrp_script.
type Script struct {
	Name     string        `json:",omitzero"`
	Command  Command       `json:",omitzero"`
	Interval time.Duration `json:",omitzero"` // default 1 s
	Timeout  time.Duration `json:",omitzero"` // default Interval
	Weight   int           `json:",omitzero"` // -253..253; 0: failure means FAULT
	Reverse  bool          `json:",omitzero"`
	Rise     int           `json:",omitzero"` // successes to be OK, >= 1
	Fall     int           `json:",omitzero"` // failures to be KO, >= 1
	InitFail bool          `json:",omitzero"`
}

// State is the configured start state; only a hint.
type State uint8

// States of a vrrp_instance line.
const (
	StateBackup State = iota
	StateMaster
)

// Instance is vrrp_instance with every default applied.
type Instance struct {
	Name             string        `json:",omitzero"`
	State            State         `json:",omitzero"`
	Interface        string        `json:",omitzero"`
	VRID             uint8         `json:",omitzero"`
	Priority         uint8         `json:",omitzero"` // base priority 1..255
	Version          int           `json:",omitzero"` // 2 or 3
	AdvertInt        time.Duration `json:",omitzero"` // v2: whole seconds; v3: 10 ms steps, 10 ms..40.95 s
	NoPreempt        bool          `json:",omitzero"`
	PreemptDelay     time.Duration `json:",omitzero"`
	DownTimerAdverts int           `json:",omitzero"` // default 3

	IPv6             bool       `json:",omitzero"` // family of the instance (of its first VIP, or of its source)
	SrcIP            netip.Addr `json:",omitzero"` // mcast_src_ip or unicast_src_ip; invalid: primary address of Interface
	McastGroup       netip.Addr `json:",omitzero"` // 224.0.0.18 or ff02::12
	Unicast          bool       `json:",omitzero"` // unicast_peer present
	Peers            []Peer     `json:",omitzero"`
	UnicastTTL       int        `json:",omitzero"` // 0: not set (IPv4 255, IPv6 kernel default 64)
	TrackSrcIP       bool       `json:",omitzero"`
	CheckUnicastSrc  bool       `json:",omitzero"`
	SkipCheckAdvAddr bool       `json:",omitzero"`
	Strict           bool       `json:",omitzero"`

	VRF                string `json:",omitzero"`
	UnicastFaultNoPeer bool   `json:",omitzero"`
	OldUnicastChecksum string `json:",omitzero"` // "": tried and remembered, "on": sent and expected, "never"
	OwnerIgnoreAdverts bool   `json:",omitzero"`

	AuthPass []byte    `json:",omitzero"` // PASS: at most 8 bytes; nil: no authentication
	AuthAH   bool      `json:",omitzero"` // AuthPass is the key of auth_type AH, at most 8 bytes
	AuthHMAC *AuthHMAC `json:",omitzero"`

	VIPs          []Address `json:",omitzero"` // advertised
	ExcludedVIPs  []Address `json:",omitzero"` // managed, not advertised
	VirtualRoutes []Route   `json:",omitzero"`
	VirtualRules  []Rule    `json:",omitzero"`
	VMAC          *VMAC     `json:",omitzero"` // use_vmac or use_ipvlan; nil: the interface itself
	// VMACAddr puts VIPs of other interfaces on virtual MACs too (use_vmac_addr).
	VMACAddr           bool `json:",omitzero"`
	PromoteSecondaries bool `json:",omitzero"`

	DontTrackPrimary bool             `json:",omitzero"`
	TrackInterfaces  []TrackInterface `json:",omitzero"`
	TrackScripts     []TrackScript    `json:",omitzero"`
	TrackFiles       []Track          `json:",omitzero"`
	TrackProcesses   []Track          `json:",omitzero"`
	TrackBFD         []Track          `json:",omitzero"`

	GARPExtra    time.Duration `json:",omitzero"` // garp_extra_if; 0: off
	GARPExtraAll bool          `json:",omitzero"` // on all interfaces, not only those of virtual MACs

	NotifyPriorityChanges bool `json:",omitzero"`

	GARPMasterDelay         time.Duration `json:",omitzero"` // second burst, 0: none; default 5 s
	GARPMasterRepeat        int           `json:",omitzero"` // per burst; default 5
	GARPMasterRefresh       time.Duration `json:",omitzero"` // 0: off
	GARPMasterRefreshRepeat int           `json:",omitzero"`
	GARPLowerPrioDelay      time.Duration `json:",omitzero"`
	GARPLowerPrioRepeat     int           `json:",omitzero"`
	GARPInterval            time.Duration `json:",omitzero"` // gap between two gratuitous ARPs on one interface
	GNAInterval             time.Duration `json:",omitzero"`
	LowerPrioNoAdvert       bool          `json:",omitzero"`
	HigherPrioSendAdvert    bool          `json:",omitzero"`
	NoAccept                bool          `json:",omitzero"`
	ChecksumNoPseudo        bool          `json:",omitzero"` // v3_checksum_as_v2: v3 IPv4 checksum without the pseudo header

	Notify    Notify `json:",omitzero"`
	SMTPAlert bool   `json:",omitzero"`
}

// VMAC is use_vmac or use_ipvlan.
type VMAC struct {
	Name     string       `json:",omitzero"` // of the new interface, at most 15 bytes
	MAC      string       `json:",omitzero"` // lower case with colons; with IPVLAN empty
	IPVLAN   bool         `json:",omitzero"`
	Mode     string       `json:",omitzero"` // of ipvlan: "bridge", "private", "vepa"
	Addr     netip.Prefix `json:",omitzero"` // source address of an ipvlan
	XmitBase bool         `json:",omitzero"` // advertise from the interface below
	Group    uint32       `json:",omitzero"` // link group
}

// AuthHMAC is keepalived's auth_hmac, as of release 2.4.2.
type AuthHMAC struct {
	Keys       []HMACKey     `json:",omitzero"`
	Active     uint8         `json:",omitzero"` // id of the key that signs
	TimeWindow time.Duration `json:",omitzero"`
	Monotonic  bool          `json:",omitzero"` // anti_replay monotonic
	Mode       string        `json:",omitzero"` // "enforce", "permissive", "receive-only"
}

// HMACKey is one key of auth_hmac; a secret.
type HMACKey struct {
	ID  uint8  `json:",omitzero"`
	Key []byte `json:",omitzero"` // 32..64 bytes
}

// Track is one line of track_file, track_process or track_bfd; the weight is
// resolved already.
type Track struct {
	Name    string `json:",omitzero"`
	Weight  int    `json:",omitzero"` // -254..254
	Reverse bool   `json:",omitzero"`
}

// TrackFile is track_file: a whole number in a file.
type TrackFile struct {
	Name      string `json:",omitzero"`
	Path      string `json:",omitzero"`
	Weight    int    `json:",omitzero"` // default 1
	Reverse   bool   `json:",omitzero"`
	Init      bool   `json:",omitzero"` // create the file at start
	InitValue int    `json:",omitzero"`
	Overwrite bool   `json:",omitzero"`
}

// TrackProcess is vrrp_track_process.
type TrackProcess struct {
	Name           string        `json:",omitzero"`
	Argv           []string      `json:",omitzero"`
	Match          string        `json:",omitzero"` // of the arguments: "": exact where there are any, "initial", "partial"
	FullCommand    bool          `json:",omitzero"`
	Weight         int           `json:",omitzero"`
	Reverse        bool          `json:",omitzero"`
	Quorum         int           `json:",omitzero"` // least number of processes, default 1
	QuorumMax      int           `json:",omitzero"` // most; -1: no limit
	ForkDelay      time.Duration `json:",omitzero"`
	TerminateDelay time.Duration `json:",omitzero"`
}

// BFD is bfd_instance.
type BFD struct {
	Name       string        `json:",omitzero"`
	Neighbor   netip.Addr    `json:",omitzero"`
	Source     netip.Addr    `json:",omitzero"` // invalid: any
	MinRx      time.Duration `json:",omitzero"` // default 10 ms
	MinTx      time.Duration `json:",omitzero"` // default 10 ms
	IdleTx     time.Duration `json:",omitzero"` // default 1 s
	Multiplier int           `json:",omitzero"` // 1..255, default 5
	Passive    bool          `json:",omitzero"`
	TTL        int           `json:",omitzero"` // also the hop limit; 255 for IPv4, 64 for IPv6
	MaxHops    int           `json:",omitzero"` // how much TTL may be lost; -1: not checked
	Multihop   bool          `json:",omitzero"` // UDP 4784
	Weight     int           `json:",omitzero"`
	Reverse    bool          `json:",omitzero"`
	VRRP       bool          `json:",omitzero"` // events go to VRRP
	Checker    bool          `json:",omitzero"` // events go to BFD_CHECK
}

// GARPGroup is garp_group: pacing that the interfaces share.
type GARPGroup struct {
	GARPInterval, GNAInterval time.Duration `json:",omitzero"`
	Interfaces                []string      `json:",omitzero"`
}

// TrackGroup is track_group.
type TrackGroup struct {
	Name      string   `json:",omitzero"`
	Instances []string `json:",omitzero"`
}

// LinkDelay is one line of interface_up_down_delays.
type LinkDelay struct {
	Interface string        `json:",omitzero"`
	Down, Up  time.Duration `json:",omitzero"`
}

// SSL is the client certificate of SSL_GET; the values are paths.
type SSL struct {
	Password    string `json:",omitzero"` // secret
	CA          string `json:",omitzero"`
	Certificate string `json:",omitzero"`
	Key         string `json:",omitzero"`
}

// Notify holds the notify_* commands of an instance or a sync group.
type Notify struct {
	Master, Backup, Fault, Stop, Deleted, MasterRxLowerPri Command `json:",omitzero"`
	Any                                                    Command `json:",omitzero"` // "notify": gets INSTANCE|GROUP NAME STATE PRIO appended
	// TellDeleted: there is a notify_deleted line, with a command or without, so
	// that an instance that is gone is told as DELETED and not as FAULT.
	TellDeleted bool `json:",omitzero"`
}

// Peer is one unicast_peer line. MinTTL and MaxTTL are -1 when not set.
type Peer struct {
	Addr           netip.Addr `json:",omitzero"`
	MinTTL, MaxTTL int        `json:",omitzero"`
}

// TrackInterface is one line of track_interface.
type TrackInterface struct {
	Interface string `json:",omitzero"`
	Weight    int    `json:",omitzero"` // -253..253; 0: down means FAULT
	Reverse   bool   `json:",omitzero"`
}

// TrackScript is one line of track_script; the weight is resolved already.
type TrackScript struct {
	Script  string `json:",omitzero"`
	Weight  int    `json:",omitzero"`
	Reverse bool   `json:",omitzero"`
}

// SyncGroup is vrrp_sync_group.
type SyncGroup struct {
	Name            string           `json:",omitzero"`
	Instances       []string         `json:",omitzero"`
	TrackInterfaces []TrackInterface `json:",omitzero"`
	TrackScripts    []TrackScript    `json:",omitzero"`
	TrackFiles      []Track          `json:",omitzero"`
	TrackProcesses  []Track          `json:",omitzero"`
	TrackBFD        []Track          `json:",omitzero"`
	Notify          Notify           `json:",omitzero"`
	SMTPAlert       bool             `json:",omitzero"`

	NotifyPriorityChanges bool `json:",omitzero"`
}

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

// Protocol of a virtual server: an IP protocol number.
type Protocol uint8

// Protocols of virtual_server.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case 0:
		return "none"
	}
	return "proto?"
}

// Forward is the forwarding method.
type Forward uint8

// Forwarding methods of lb_kind.
const (
	NAT Forward = iota
	DR
	TUN
)

func (f Forward) String() string { return [...]string{"NAT", "DR", "TUN"}[f] }

// Tunnel is the encapsulation of TUN.
type Tunnel struct {
	Type string `json:",omitzero"` // "ipip", "gue", "gre"
	Port uint16 `json:",omitzero"` // gue
	Csum string `json:",omitzero"` // "", "nocsum", "csum", "remcsum"
}

// ServiceID names one IPVS service. Exactly one of Mark and Addr is set.
type ServiceID struct {
	Addr     netip.Addr `json:",omitzero"`
	Port     uint16     `json:",omitzero"`
	Protocol Protocol   `json:",omitzero"`
	Mark     uint32     `json:",omitzero"`
	IPv6     bool       `json:",omitzero"` // family of a Mark service
}

// String prints as keepalived does: "[10.0.0.1]:tcp:80", "FWM 7".
func (s ServiceID) String() string {
	if s.Mark != 0 {
		return "FWM " + utoa(uint64(s.Mark))
	}
	return "[" + s.Addr.String() + "]:" + s.Protocol.String() + ":" + utoa(uint64(s.Port))
}

func utoa(v uint64) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + v%10)
		if v /= 10; v == 0 {
			return string(b[i:])
		}
	}
}

// VirtualServer is virtual_server. A group was expanded by the binder: Services
// then has several entries that share the real servers and their health.
type VirtualServer struct {
	Name        string        `json:",omitzero"` // as keepalived prints it; unique in the configuration
	Services    []ServiceID   `json:",omitzero"`
	Scheduler   string        `json:",omitzero"` // ipvsadm name: rr, wrr, …
	SchedFlags  []string      `json:",omitzero"` // flag-1 flag-2 flag-3 sh-port sh-fallback mh-port mh-fallback hashed
	OnePacket   bool          `json:",omitzero"` // ops
	Forward     Forward       `json:",omitzero"`
	Tunnel      Tunnel        `json:",omitzero"`
	Persistence time.Duration `json:",omitzero"` // 0: off
	SNMPName    string        `json:",omitzero"`
	// Granularity is the client prefix length of persistence: 0..32 or 1..128.
	Granularity       int    `json:",omitzero"`
	PersistenceEngine string `json:",omitzero"`

	Quorum               int     `json:",omitzero"`
	Hysteresis           int     `json:",omitzero"`
	Alpha, Omega         bool    `json:",omitzero"`
	HASuspend            bool    `json:",omitzero"`
	QuorumUp, QuorumDown Command `json:",omitzero"`
	SMTPAlert            bool    `json:",omitzero"`

	Sorry        *RealServer  `json:",omitzero"` // sorry_server; nil: none
	SorryInhibit bool         `json:",omitzero"`
	Real         []RealServer `json:",omitzero"`
}

// RealServer is real_server, or a sorry server (then it has no checks).
type RealServer struct {
	Addr netip.Addr `json:",omitzero"`
	Port uint16     `json:",omitzero"` // as programmed: for DR and TUN the service's port
	// ConfPort is the port as written in the file; it differs from Port where
	// DR or TUN cannot rewrite it, and is the default port of the checks.
	ConfPort               uint16  `json:",omitzero"`
	Weight                 int     `json:",omitzero"`
	Forward                Forward `json:",omitzero"`
	Tunnel                 Tunnel  `json:",omitzero"`
	InhibitOnFailure       bool    `json:",omitzero"`
	UThreshold, LThreshold uint32  `json:",omitzero"`
	NotifyUp, NotifyDown   Command `json:",omitzero"`
	SNMPName               string  `json:",omitzero"`
	SMTPAlert              bool    `json:",omitzero"`
	Checks                 []Check `json:",omitzero"`
}

// CheckKind is the type of a health check.
type CheckKind string

// Kinds of checks.
const (
	TCPCheck  CheckKind = "TCP_CHECK"
	HTTPGet   CheckKind = "HTTP_GET"
	SSLGet    CheckKind = "SSL_GET"
	MiscCheck CheckKind = "MISC_CHECK"
	PingCheck CheckKind = "PING_CHECK"
	UDPCheck  CheckKind = "UDP_CHECK"
	SMTPCheck CheckKind = "SMTP_CHECK"
	DNSCheck  CheckKind = "DNS_CHECK"
	BFDCheck  CheckKind = "BFD_CHECK"
	FileCheck CheckKind = "FILE_CHECK"
)

// Check is one health check, inheritance already resolved
// (checker -> real server -> virtual server -> default).
type Check struct {
	Kind             CheckKind     `json:",omitzero"`
	Addr             netip.Addr    `json:",omitzero"` // connect_ip, default the real server
	Port             uint16        `json:",omitzero"` // connect_port, default RealServer.ConfPort
	BindAddr         netip.Addr    `json:",omitzero"` // bindto; invalid: any
	BindPort         uint16        `json:",omitzero"`
	BindInterface    string        `json:",omitzero"`
	Mark             uint32        `json:",omitzero"`
	ConnectTimeout   time.Duration `json:",omitzero"` // also of each later I/O step
	Retry            int           `json:",omitzero"`
	DelayBeforeRetry time.Duration `json:",omitzero"`
	DelayLoop        time.Duration `json:",omitzero"`
	Warmup           time.Duration `json:",omitzero"` // first probe at random in 0..Warmup; -1 is not used: default is DelayLoop
	Alpha            bool          `json:",omitzero"`
	LogAllFailures   bool          `json:",omitzero"`

	// ThroughVIP sends the probe to the virtual server's address by way of the
	// real server, as IPVS sends a client's request in DR and TUN, so that a
	// server that does not hold the VIP fails. Our own keyword through_vip.
	ThroughVIP bool `json:",omitzero"`

	// TCP_CHECK
	HalfOpen bool `json:",omitzero"` // own keyword half_open: a SYN, and a RST when it is answered

	// HTTP_GET, SSL_GET
	HTTPProtocol string `json:",omitzero"` // "1.0", "1.0C", "1.0c", "1.1"
	SNI          bool   `json:",omitzero"`
	SNIName      string `json:",omitzero"` // server name to send; empty with SNI: none
	FastRecovery bool   `json:",omitzero"`
	URLs         []URL  `json:",omitzero"`
	TLSCompliant bool   `json:",omitzero"` // close_notify is sent
	TLSVerify    bool   `json:",omitzero"` // own keyword tls_verify: the certificate must be valid for the name sent
	HTTP2        bool   `json:",omitzero"` // http_protocol 2: by ALPN over TLS, else with prior knowledge

	// SMTP_CHECK
	HELO string `json:",omitzero"`

	// DNS_CHECK
	DNSType string `json:",omitzero"` // upper case, default SOA
	DNSName string `json:",omitzero"` // default "."

	// UDP_CHECK
	Payload      []byte `json:",omitzero"` // nil: random
	RequireReply bool   `json:",omitzero"`
	Reply        []byte `json:",omitzero"` // what it must begin with
	ReplyMask    []byte `json:",omitzero"` // as long as Reply; a bit that is 0 is any
	MinReply     int    `json:",omitzero"`
	MaxReply     int    `json:",omitzero"` // default 255

	// BFD_CHECK, FILE_CHECK: the bfd_instance or track_file
	Name    string `json:",omitzero"`
	Weight  int    `json:",omitzero"` // FILE_CHECK, default the file's
	Reverse bool   `json:",omitzero"`

	// MISC_CHECK
	Command     Command       `json:",omitzero"`
	MiscTimeout time.Duration `json:",omitzero"`
	Dynamic     bool          `json:",omitzero"`
}

// URL is one url block of HTTP_GET or SSL_GET.
type URL struct {
	Path         string        `json:",omitzero"`
	Digest       string        `json:",omitzero"` // MD5 in lower-case hex; empty: not checked
	Status       []StatusRange `json:",omitzero"`
	VirtualHost  string        `json:",omitzero"` // Host header; empty: address:port
	Regex        string        `json:",omitzero"` // RE2 text; empty: not checked
	RegexNoMatch bool          `json:",omitzero"`
	RegexMin     int           `json:",omitzero"` // where the search starts, bytes
	RegexMax     int           `json:",omitzero"` // where a match starts at the latest, plus 1; 0: anywhere
	TLSCompliant bool          `json:",omitzero"`
	Headers      []Header      `json:",omitzero"` // own keyword header NAME VALUE: sent
	Expect       []Header      `json:",omitzero"` // own keyword expect_header NAME [VALUE]: must be in the answer; a value is a part of it
}

// Header is one header field of HTTP.
type Header struct{ Name, Value string }

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ From, To int }

// System is the appliance's own "system" block.
type System struct {
	HostName string       `json:",omitzero"`
	Logins   []Login      `json:",omitzero"`
	DNS      []netip.Addr `json:",omitzero"`
	NTP      []string     `json:",omitzero"`
	Syslog   []string     `json:",omitzero"` // host:port
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
