// Package model holds the typed configuration of a director: what
// configs/schema binds from keepalived.conf text and what every service reads.
// Values are plain and comparable with cmp; standard library only.
//
// Defaults are applied by the binder, so a service never fills in a default:
// the zero value of a field means zero, not "unset", unless its comment says
// otherwise. Durations are time.Duration; addresses are netip values; a list
// keeps the order of the file.
package model

import (
	"net/netip"
	"time"
)

// Config is one whole, checked configuration.
type Config struct {
	Global         Global
	Scripts        []Script        // vrrp_script, by name
	Instances      []Instance      // vrrp_instance
	SyncGroups     []SyncGroup     // vrrp_sync_group
	VirtualServers []VirtualServer // virtual_server, groups already expanded
	StaticAddrs    []Address       // static_ipaddress
	StaticRoutes   []Route         // static_routes, and the appliance's route lines
	System         System          // the appliance's own blocks from here on
	Interfaces     []Interface
	Bonds          []Bond
	VLANs          []VLAN
	Marks          []Mark
}

// Global is global_defs.
type Global struct {
	RouterID              string   // name in mail subjects; empty: the host name
	NotificationEmail     []string // recipients
	NotificationEmailFrom string   // empty: keepalived@host name
	SMTPServer            string   // host:port; empty: no mail is sent
	SMTPHELO              string   // empty: the host name
	SMTPConnectTimeout    time.Duration
	SMTPAlert             Tristate // default of every smtp_alert
	SMTPAlertVRRP         Tristate
	SMTPAlertChecker      Tristate
	NoEmailFaults         bool

	ScriptUser           string // user that scripts run as; empty: keepalived_script
	EnableScriptSecurity bool

	DynamicInterfaces bool
	StartupDelay      time.Duration // vrrp_startup_delay

	// LVS
	SyncDaemon *SyncDaemon // lvs_sync_daemon; nil: off
	Timeouts   Timeouts    // lvs_timeouts; zero fields leave the kernel's value
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
	Interface string
	Instance  string     // VRRP instance whose role picks master or backup; empty: both daemons always
	ID        uint8      // syncid 0..255; default the instance's VRID
	MaxLen    uint16     // sync_maxlen in bytes, 0: kernel's default
	Port      uint16     // UDP, 0: 8848
	TTL       uint8      // 0: kernel's default (1)
	Group     netip.Addr // multicast group; invalid: 224.0.0.81
}

// Timeouts are the IPVS connection timeouts (lvs_timeouts), whole seconds.
type Timeouts struct{ TCP, TCPFin, UDP time.Duration }

// Command is a script line: argv, split as keepalived splits it, and its user.
type Command struct {
	Argv []string
	User string // empty: Global.ScriptUser
	// Shell is set when the command must be handed to the shell as one line
	// (it uses shell words such as "[ -e x ] && exit 1" that keepalived's exec
	// would not run, or the "</dev/tcp" form).
	Shell string
}

// IsZero reports whether no command is configured.
func (c Command) IsZero() bool { return len(c.Argv) == 0 && c.Shell == "" }

// Script is vrrp_script.
type Script struct {
	Name     string
	Command  Command
	Interval time.Duration // default 1 s
	Timeout  time.Duration // default Interval
	Weight   int           // -253..253; 0: failure means FAULT
	Reverse  bool
	Rise     int // successes to be OK, >= 1
	Fall     int // failures to be KO, >= 1
	InitFail bool
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
	Name             string
	State            State
	Interface        string
	VRID             uint8
	Priority         uint8         // base priority 1..255
	Version          int           // 2 or 3
	AdvertInt        time.Duration // v2: whole seconds; v3: 10 ms steps, 10 ms..40.95 s
	NoPreempt        bool
	PreemptDelay     time.Duration
	DownTimerAdverts int // default 3

	IPv6             bool       // family of the instance (of its first VIP, or of its source)
	SrcIP            netip.Addr // mcast_src_ip or unicast_src_ip; invalid: primary address of Interface
	McastGroup       netip.Addr // 224.0.0.18 or ff02::12
	Unicast          bool       // unicast_peer present
	Peers            []Peer
	UnicastTTL       int // 0: not set (IPv4 255, IPv6 kernel default 64)
	TrackSrcIP       bool
	CheckUnicastSrc  bool
	SkipCheckAdvAddr bool
	Strict           bool

	AuthPass []byte // PASS: at most 8 bytes; nil: no authentication

	VIPs          []Address // advertised
	ExcludedVIPs  []Address // managed, not advertised
	VirtualRoutes []Route

	DontTrackPrimary bool
	TrackInterfaces  []TrackInterface
	TrackScripts     []TrackScript

	GARPMasterDelay         time.Duration // second burst, 0: none; default 5 s
	GARPMasterRepeat        int           // per burst; default 5
	GARPMasterRefresh       time.Duration // 0: off
	GARPMasterRefreshRepeat int
	GARPLowerPrioDelay      time.Duration
	GARPLowerPrioRepeat     int
	GARPInterval            time.Duration // gap between two gratuitous ARPs on one interface
	GNAInterval             time.Duration
	LowerPrioNoAdvert       bool
	HigherPrioSendAdvert    bool
	NoAccept                bool
	ChecksumNoPseudo        bool // v3_checksum_as_v2: v3 IPv4 checksum without the pseudo header

	Notify    Notify
	SMTPAlert bool
}

// Notify holds the notify_* commands of an instance or a sync group.
type Notify struct {
	Master, Backup, Fault, Stop, Deleted, MasterRxLowerPri Command
	Any                                                    Command // "notify": gets INSTANCE|GROUP NAME STATE PRIO appended
}

// Peer is one unicast_peer line. MinTTL and MaxTTL are -1 when not set.
type Peer struct {
	Addr           netip.Addr
	MinTTL, MaxTTL int
}

// TrackInterface is one line of track_interface.
type TrackInterface struct {
	Interface string
	Weight    int // 0: down means FAULT
	Reverse   bool
}

// TrackScript is one line of track_script; the weight is resolved already.
type TrackScript struct {
	Script  string
	Weight  int
	Reverse bool
}

// SyncGroup is vrrp_sync_group.
type SyncGroup struct {
	Name            string
	Instances       []string
	TrackInterfaces []TrackInterface
	TrackScripts    []TrackScript
	Notify          Notify
	SMTPAlert       bool
}

// Address is an address line.
type Address struct {
	Prefix        netip.Prefix // address with length; /32 or /128 when the line has none
	Interface     string       // dev; the instance's interface when the line has none
	Label         string
	Broadcast     netip.Addr // invalid: none
	Scope         uint8      // RT_SCOPE_*
	Peer          netip.Prefix
	NoTrack       bool
	NoPrefixRoute bool
}

// Route is a route line. Only unicast and blackhole-like types.
type Route struct {
	Type      string       // "", "blackhole", "unreachable", "prohibit", "throw"
	Dst       netip.Prefix // 0.0.0.0/0 or ::/0 for default
	Via       netip.Addr   // invalid: on link
	Interface string       // empty: the kernel picks it by Via
	Src       netip.Addr
	Table     uint32 // 0: main
	Metric    uint32
	MTU       uint32
	Scope     uint8
	OnLink    bool
	NoTrack   bool
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
	Type string // "ipip", "gue", "gre"
	Port uint16 // gue
	Csum string // "", "nocsum", "csum", "remcsum"
}

// ServiceID names one IPVS service. Exactly one of Mark and Addr is set.
type ServiceID struct {
	Addr     netip.Addr
	Port     uint16
	Protocol Protocol
	Mark     uint32
	IPv6     bool // family of a Mark service
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
	Name        string // as keepalived prints it; unique in the configuration
	Services    []ServiceID
	Scheduler   string   // ipvsadm name: rr, wrr, …
	SchedFlags  []string // flag-1 flag-2 flag-3 sh-port sh-fallback mh-port mh-fallback hashed
	OnePacket   bool     // ops
	Forward     Forward
	Tunnel      Tunnel
	Persistence time.Duration // 0: off
	// Granularity is the client prefix length of persistence: 0..32 or 1..128.
	Granularity       int
	PersistenceEngine string

	Quorum               int
	Hysteresis           int
	Alpha, Omega         bool
	HASuspend            bool
	QuorumUp, QuorumDown Command
	SMTPAlert            bool

	Sorry        *RealServer // sorry_server; nil: none
	SorryInhibit bool
	Real         []RealServer
}

// RealServer is real_server, or a sorry server (then it has no checks).
type RealServer struct {
	Addr netip.Addr
	Port uint16 // as programmed: for DR and TUN the service's port
	// ConfPort is the port as written in the file; it differs from Port where
	// DR or TUN cannot rewrite it, and is the default port of the checks.
	ConfPort               uint16
	Weight                 int
	Forward                Forward
	Tunnel                 Tunnel
	InhibitOnFailure       bool
	UThreshold, LThreshold uint32
	NotifyUp, NotifyDown   Command
	SMTPAlert              bool
	Checks                 []Check
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
)

// Check is one health check, inheritance already resolved
// (checker -> real server -> virtual server -> default).
type Check struct {
	Kind             CheckKind
	Addr             netip.Addr // connect_ip, default the real server
	Port             uint16     // connect_port, default RealServer.ConfPort
	BindAddr         netip.Addr // bindto; invalid: any
	BindPort         uint16
	BindInterface    string
	Mark             uint32
	ConnectTimeout   time.Duration // also of each later I/O step
	Retry            int
	DelayBeforeRetry time.Duration
	DelayLoop        time.Duration
	Warmup           time.Duration // first probe at random in 0..Warmup; -1 is not used: default is DelayLoop
	Alpha            bool

	// HTTP_GET, SSL_GET
	HTTPProtocol string // "1.0", "1.0C", "1.0c", "1.1"
	SNI          bool
	SNIName      string // server name to send; empty with SNI: none
	FastRecovery bool
	URLs         []URL

	// MISC_CHECK
	Command     Command
	MiscTimeout time.Duration
	Dynamic     bool
}

// URL is one url block of HTTP_GET or SSL_GET.
type URL struct {
	Path         string
	Digest       string // MD5 in lower-case hex; empty: not checked
	Status       []StatusRange
	VirtualHost  string // Host header; empty: address:port
	Regex        string // RE2 text; empty: not checked
	RegexNoMatch bool
}

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ From, To int }

// System is the appliance's own "system" block.
type System struct {
	HostName string
	Logins   []Login
	DNS      []netip.Addr
	NTP      []string
	Syslog   []string // host:port
}

// Login is one console user.
type Login struct {
	Name string
	Keys []string // authorized_keys lines
	Role string   // "admin", "operate", "view"
}

// Interface is the appliance's "interface NAME { … }" block. A name that the
// kernel does not know is given to the NIC that Match picks.
type Interface struct {
	Name      string
	Match     Match
	Addresses []netip.Prefix
	DHCP      bool
	DHCP6     bool
	MTU       int // 0: leave
	Disabled  bool
	Accept    RAMode // IPv6 router advertisements
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
	MAC string // permanent or current address, lower case with colons
	PCI string // "0000:00:02.0"
}

// Bond is "bond NAME { … }".
type Bond struct {
	Name       string
	Mode       string // "active-backup", "802.3ad", "balance-rr", "balance-xor", "broadcast", "balance-tlb", "balance-alb"
	Members    []string
	MIIMon     time.Duration // default 100 ms
	Primary    string
	HashPolicy string // xmit_hash_policy
	LACPRate   string
}

// VLAN is "vlan NAME { link IF; id N }".
type VLAN struct {
	Name string
	Link string
	ID   int // 1..4094
}

// Mark is "mark N { … }": packets that match get firewall mark N before IPVS
// looks at them.
type Mark struct {
	Mark  uint32
	Rules []MarkRule
}

// MarkRule selects packets by destination.
type MarkRule struct {
	Protocol Protocol
	Dst      netip.Prefix
	Ports    []PortRange // empty: any
}

// PortRange is an inclusive range of ports.
type PortRange struct{ From, To uint16 }
