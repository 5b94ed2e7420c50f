// Package status holds the states that the services publish over ipc: what
// "GET /state" of each one answers and what every show command renders. They
// are whole snapshots; standard library and configs/model only.
package status

import (
	"net/netip"
	"time"

	"ballast/configs/model"
)

// Address protocol tags (IFA_PROTO) and route protocols (RTA_PROTOCOL) tell who
// put an address or a route into the kernel, so that each writer removes only
// its own after a restart.
const (
	AddrProtoNet   = 0xb0 // static and DHCP addresses, by net
	AddrProtoVIP   = 0xb1 // virtual addresses, by vrrp
	AddrProtoLink  = 0xb2 // addresses of virtual interfaces that stay in every role, by vrrp
	RouteProtoNet  = 0xb0
	RouteProtoVRRP = 18 // keepalived's number in iproute2's rt_protos
)

// Applied says how far a service has got with the configuration. Every
// service's state embeds it; conf waits for it at commit.
type Applied struct {
	Config uint64 `json:"config"`          // generation of the configuration last applied
	Error  string `json:"error,omitempty"` // why it could not be applied in full
}

// Conf is the state of conf: the running configuration.
type Conf struct {
	Generation uint64       `json:"generation"` // grows with each commit and rollback
	Config     model.Config `json:"config"`
	Text       string       `json:"text,omitempty"` // as committed; secrets included, so conf strips it for readers other than console
	Source     string       `json:"source"`         // "commit", "seed", "last good", "factory", "rollback"
	Author     string       `json:"author,omitempty"`
	Time       time.Time    `json:"time"`
	Problems   []Problem    `json:"problems,omitempty"` // what was found when it was loaded at boot
}

// Problem is one finding in a configuration text.
type Problem = model.Problem

// Transition is one change of state, kept in a ring by its service. Seq grows
// by one; a reader that remembers the last one it acted on misses none as long
// as it is less than a ring behind.
type Transition struct {
	Seq    uint64    `json:"seq"`
	Time   time.Time `json:"time"`
	Object string    `json:"object"` // "VI_1", "[10.0.0.2]:tcp:80", "[10.0.0.5]:tcp:80 of [10.0.0.2]:tcp:80"
	Kind   string    `json:"kind"`   // "instance", "group", "virtual server", "real server", "link", KindPriority, …
	From   string    `json:"from"`
	// To is the new state. Of an instance it may also be "MASTER_RX_LOWER_PRI",
	// which changes no state, and "DELETED" when a commit took it away.
	To       string `json:"to"`
	Reason   string `json:"reason"`
	Priority int    `json:"priority,omitempty"` // of an instance at that time
}

// KindPriority is the kind of a Transition that tells of an instance's new
// effective priority (notify_priority_changes, which vrrp has looked at). From
// is the state, which stays; To is one of the words below, as keepalived's
// pipes have it; Priority is the new one. Scripts and mail do not hear of it.
const (
	KindPriority   = "priority"
	MasterPriority = "MASTER_PRIORITY"
	BackupPriority = "BACKUP_PRIORITY"
)

// RingSize is how many transitions a service keeps.
const RingSize = 512

// VRRP is the state of vrrp.
type VRRP struct {
	Applied
	Instances   []VRRPInstance `json:"instances"`
	Groups      []VRRPGroup    `json:"groups,omitempty"`
	Transitions []Transition   `json:"transitions,omitempty"`
	Resigned    bool           `json:"resigned"` // held as backup by the operator
	ResignedBy  string         `json:"resignedBy,omitempty"`
	Maintenance bool           `json:"maintenance,omitempty"` // resigned, also over a reboot
	BFD         []BFDSession   `json:"bfd,omitempty"`
	Heartbeat   *Heartbeat     `json:"heartbeat,omitempty"` // nil: not configured
	Timers      Lateness       `json:"timers"`
	StandIn     StandIn        `json:"standIn"`
}

// StandIn is the pacer, which sends the advertisements of a vrrp process that
// stands still. Figures are since the pacer started.
type StandIn struct {
	Connected bool          `json:"connected"`
	RealTime  bool          `json:"realTime"`
	Watched   int           `json:"watched"` // advertisements that it would send in vrrp's place, one a destination
	Adverts   uint64        `json:"adverts"` // that it has sent
	Failed    uint64        `json:"failed,omitempty"`
	Late      time.Duration `json:"late"`    // longest that vrrp was overdue when one was sent
	OwnLate   time.Duration `json:"ownLate"` // worst lateness of its own timer
}

// Lateness is how late the timers of the vrrp process fired since it started.
type Lateness struct {
	Count    uint64        `json:"count"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	P999     time.Duration `json:"p999"`
	Max      time.Duration `json:"max"`
	RealTime bool          `json:"realTime"` // the loop runs at real-time priority
}

// BFDSession is one BFD session now (RFC 5880).
type BFDSession struct {
	Name       string        `json:"name"`
	Neighbor   netip.Addr    `json:"neighbor"`
	State      string        `json:"state"` // "AdminDown", "Down", "Init", "Up"
	Diagnostic string        `json:"diagnostic,omitempty"`
	Remote     string        `json:"remote,omitempty"` // the neighbour's state
	Since      time.Time     `json:"since"`
	Interval   time.Duration `json:"interval"` // between the packets that we send
	Detect     time.Duration `json:"detect"`   // detection time
	Sent       uint64        `json:"sent"`
	Received   uint64        `json:"received"`
	VRRP       bool          `json:"vrrp"`
	Checker    bool          `json:"checker"`
}

// Heartbeat is the private heartbeat to the peer.
type Heartbeat struct {
	Up      bool              `json:"up"` // heard on at least one path
	Peer    string            `json:"peer,omitempty"`
	Since   time.Time         `json:"since"`
	Detect  time.Duration     `json:"detect"`
	Paths   []HeartbeatPath   `json:"paths"`
	Routers []HeartbeatRouter `json:"routers,omitempty"` // virtual routers that both boxes have
}

// HeartbeatPath is one path to the peer.
type HeartbeatPath struct {
	Peer      netip.Addr `json:"peer"`
	Interface string     `json:"interface,omitempty"`
	Up        bool       `json:"up"`
	Since     time.Time  `json:"since"`
	Last      time.Time  `json:"last"` // last heartbeat heard
	Sent      uint64     `json:"sent"`
	Received  uint64     `json:"received"`
	Rejected  uint64     `json:"rejected"` // wrong key, replayed or malformed
}

// HeartbeatRouter is what the peer says of a virtual router that we have too.
type HeartbeatRouter struct {
	Instance string `json:"instance"`
	State    string `json:"state"`
	Priority int    `json:"priority"` // effective
}

// VRRP states as keepalived names them.
const (
	VRRPInit   = "INIT"
	VRRPBackup = "BACKUP"
	VRRPMaster = "MASTER"
	VRRPFault  = "FAULT"
	VRRPStop   = "STOP"
)

// VRRPInstance is one virtual router now.
type VRRPInstance struct {
	Name           string         `json:"name"`
	State          string         `json:"state"`
	Since          time.Time      `json:"since"`
	Reason         string         `json:"reason"`
	Interface      string         `json:"interface"`
	VRID           uint8          `json:"vrid"`
	Version        int            `json:"version"`
	IPv6           bool           `json:"ipv6,omitempty"`
	Priority       int            `json:"priority"`  // base
	Effective      int            `json:"effective"` // after trackers
	AdvertInt      time.Duration  `json:"advertInt"`
	MasterDown     time.Duration  `json:"masterDown"` // current master-down interval
	MasterAddr     netip.Addr     `json:"masterAddr"` // who advertises, also when it is us
	MasterPriority int            `json:"masterPriority"`
	LastAdvert     time.Time      `json:"lastAdvert"` // last accepted advertisement of another router
	VIPs           []netip.Prefix `json:"vips"`
	Faults         []string       `json:"faults,omitempty"` // what holds it in FAULT
	VMAC           string         `json:"vmac,omitempty"`   // interface of the virtual MAC
	Evidence       Evidence       `json:"evidence"`
	Trackers       []Tracker      `json:"trackers,omitempty"`
	Stats          VRRPStats      `json:"stats"`
}

// Evidence is what explains the state of a virtual router: what was heard last.
type Evidence struct {
	From         netip.Addr    `json:"from,omitzero"` // last accepted advertisement of another router
	Priority     int           `json:"priority,omitempty"`
	Interval     time.Duration `json:"interval,omitempty"`
	At           time.Time     `json:"at,omitzero"`
	Rejected     string        `json:"rejected,omitempty"` // why the last one that did not count did not
	RejectedFrom netip.Addr    `json:"rejectedFrom,omitzero"`
	RejectedAt   time.Time     `json:"rejectedAt,omitzero"`
	Takeover     string        `json:"takeover,omitempty"`  // what made it master last: "master down timer", "heartbeat lost", "peer's link down", "handover", "priority 0", "preempt", "owner"
	FirstGARP    time.Duration `json:"firstGARP,omitempty"` // from that decision to the first gratuitous ARP
}

// Tracker is one tracked interface, script, file, process or BFD session.
type Tracker struct {
	Kind   string `json:"kind"` // "interface", "script", "file", "process", "bfd"
	Name   string `json:"name"`
	Up     bool   `json:"up"`
	Weight int    `json:"weight"`
	Detail string `json:"detail,omitempty"` // "exit 1", "timeout", "no carrier"
}

// VRRPGroup is one sync group now.
type VRRPGroup struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Instances []string  `json:"instances"`
}

// VRRPStats are counters since the instance started, named as keepalived's JSON.
type VRRPStats struct {
	AdvertRcvd        uint64        `json:"advert_rcvd"`
	AdvertSent        uint64        `json:"advert_sent"`
	BecomeMaster      uint64        `json:"become_master"`
	ReleaseMaster     uint64        `json:"release_master"`
	PacketLenErr      uint64        `json:"packet_len_err"`
	ChecksumErr       uint64        `json:"checksum_err"`
	AdvertIntervalErr uint64        `json:"advert_interval_err"`
	IPTTLErr          uint64        `json:"ip_ttl_err"`
	VersionErr        uint64        `json:"version_err"`
	InvalidTypeRcvd   uint64        `json:"invalid_type_rcvd"`
	AddrListErr       uint64        `json:"addr_list_err"`
	InvalidAuthtype   uint64        `json:"invalid_authtype"`
	AuthtypeMismatch  uint64        `json:"authtype_mismatch"`
	AuthFailure       uint64        `json:"auth_failure"`
	PriZeroRcvd       uint64        `json:"pri_zero_rcvd"`
	PriZeroSent       uint64        `json:"pri_zero_sent"`
	SendErr           uint64        `json:"send_err"`
	LateTimers        uint64        `json:"late_timers"`
	MaxLate           time.Duration `json:"max_late"`
}

// Health is the state of health: verdicts, never what to do about them in IPVS.
type Health struct {
	Applied
	Servers     []VirtualServerHealth `json:"servers"`
	Probes      uint64                `json:"probes"` // done since start
	Transitions []Transition          `json:"transitions,omitempty"`
}

// VirtualServerHealth is one virtual server's quorum and real servers.
type VirtualServerHealth struct {
	Name     string             `json:"name"` // model.VirtualServer.Name
	QuorumUp bool               `json:"quorumUp"`
	Weight   int                `json:"weight"` // sum of the weights of live real servers
	Quorum   int                `json:"quorum"`
	Real     []RealServerHealth `json:"real"`
}

// RealServerHealth is the verdict on one real server.
type RealServerHealth struct {
	Addr  netip.Addr `json:"addr"`
	Port  uint16     `json:"port"` // model.RealServer.ConfPort
	Alive bool       `json:"alive"`
	// Disabled is set while the operator has taken it out (IPVS.Orders): it
	// does not count for the quorum.
	Disabled bool `json:"disabled,omitempty"`
	// Weight replaces the configured weight when it is not negative (misc_dynamic).
	Weight int           `json:"weight"`
	Since  time.Time     `json:"since"`
	Checks []CheckHealth `json:"checks,omitempty"`
}

// CheckHealth is one check of a real server.
type CheckHealth struct {
	Kind    string        `json:"kind"`
	Target  string        `json:"target"` // "10.0.0.5:80"
	Up      bool          `json:"up"`
	Known   bool          `json:"known"` // at least one probe is done
	Last    time.Time     `json:"last"`
	Took    time.Duration `json:"took"`
	Retries int           `json:"retries"` // left before it is down
	Detail  string        `json:"detail"`  // "connection refused", "status 503, want 200"
	// Failed is the last probe that failed, also when the check is up again.
	Failed       time.Time `json:"failed,omitzero"`
	FailedDetail string    `json:"failedDetail,omitempty"`
	Answer       string    `json:"answer,omitempty"` // first bytes of the last failed answer, printable, at most 120
	Shared       int       `json:"shared,omitempty"` // how many checks of the configuration this one probe serves, when several
}

// IPVS is the state of ipvs: what the kernel holds and what was done to it.
type IPVS struct {
	Applied
	Services    []Service    `json:"services"`
	Daemons     []Daemon     `json:"daemons,omitempty"`
	Passes      uint64       `json:"passes"`  // reconcile passes
	Ops         uint64       `json:"ops"`     // operations sent since start
	Repairs     uint64       `json:"repairs"` // operations that undid somebody else's change
	LastPass    time.Time    `json:"lastPass"`
	LastOps     []string     `json:"lastOps,omitempty"` // the last pass that changed something, printed
	LastRepair  time.Time    `json:"lastRepair,omitzero"`
	Repaired    []string     `json:"repaired,omitempty"` // what the last repair undid, printed
	Orders      []Order      `json:"orders,omitempty"`   // of the operator, sorted
	Transitions []Transition `json:"transitions,omitempty"`
}

// Order is what the operator told about a real server. It outlives commits and
// reboots until "enable" takes it back or the server leaves the configuration.
type Order struct {
	VirtualServer string     `json:"virtualServer"` // model.VirtualServer.Name
	Addr          netip.Addr `json:"addr"`
	Port          uint16     `json:"port"`   // model.RealServer.ConfPort
	Action        string     `json:"action"` // OrderDrain, OrderDisable, OrderWeight
	Weight        int        `json:"weight,omitempty"`
	By            string     `json:"by,omitempty"`
	Since         time.Time  `json:"since"`
}

// Actions of an Order.
const (
	OrderDrain   = "drain"   // weight 0: connections stay; persistent clients leave with their next one (net sets expire_quiescent_template)
	OrderDisable = "disable" // out of the table: connections end
	OrderWeight  = "weight"  // another weight than the configured one
	OrderEnable  = "enable"  // as configured again; takes an order back
)

// Service is one IPVS service in the kernel.
type Service struct {
	ID            model.ServiceID `json:"id"`
	VirtualServer string          `json:"virtualServer"` // model.VirtualServer.Name, empty: not ours
	Scheduler     string          `json:"scheduler"`
	Flags         []string        `json:"flags,omitempty"`
	Persistence   time.Duration   `json:"persistence,omitempty"`
	Granularity   int             `json:"granularity,omitempty"`
	OnePacket     bool            `json:"onePacket,omitempty"`
	Stats         Stats           `json:"stats"`
	Dests         []Dest          `json:"dests"`
}

// Dest is one destination of a service in the kernel.
type Dest struct {
	Addr                   netip.Addr `json:"addr"`
	Port                   uint16     `json:"port"`
	Forward                string     `json:"forward"` // "NAT", "DR", "TUN", "LOCAL"
	Weight                 int        `json:"weight"`
	Sorry                  bool       `json:"sorry,omitempty"`
	Draining               bool       `json:"draining,omitempty"` // weight 0 until its connections end
	Order                  string     `json:"order,omitempty"`    // action of the operator's order
	Tunnel                 string     `json:"tunnel,omitempty"`   // "ipip", "gue 6080 csum", "gre"
	UThreshold, LThreshold uint32
	Active                 uint32 `json:"active"` // connections
	Inactive               uint32 `json:"inactive"`
	Persistent             uint32 `json:"persistent"`
	Stats                  Stats  `json:"stats"`
}

// Stats are the kernel's 64-bit counters and its own rate estimates (a second).
type Stats struct {
	Conns      uint64 `json:"conns"`
	InPackets  uint64 `json:"inPackets"`
	OutPackets uint64 `json:"outPackets"`
	InBytes    uint64 `json:"inBytes"`
	OutBytes   uint64 `json:"outBytes"`
	CPS        uint64 `json:"cps"`
	InPPS      uint64 `json:"inPPS"`
	OutPPS     uint64 `json:"outPPS"`
	InBPS      uint64 `json:"inBPS"`
	OutBPS     uint64 `json:"outBPS"`
}

// Daemon is one connection sync daemon in the kernel.
type Daemon struct {
	Role      string `json:"role"` // "master", "backup"
	Interface string `json:"interface"`
	ID        uint8  `json:"id"`
}

// Conn is one line of the IPVS connection table (verb "connections").
type Conn struct {
	Protocol string         `json:"protocol"`
	Client   netip.AddrPort `json:"client"`
	Virtual  netip.AddrPort `json:"virtual"`
	Dest     netip.AddrPort `json:"dest"`
	State    string         `json:"state"`
	Expires  time.Duration  `json:"expires"`
}

// Net is the state of net.
type Net struct {
	Applied
	Links       []Link       `json:"links"`
	Routes      []Route      `json:"routes"`
	Marks       []MarkCount  `json:"marks,omitempty"`
	NoAccept    []NoAccept   `json:"noAccept,omitempty"` // virtual addresses that the box itself does not answer on
	Missing     []Missing    `json:"missing,omitempty"`  // static addresses, routes and rules with a track_group that are not in the kernel
	DNS         []netip.Addr `json:"dns,omitempty"`
	Transitions []Transition `json:"transitions,omitempty"`
}

// Link is one network interface.
type Link struct {
	Index                                                                            int           `json:"index"`
	Name                                                                             string        `json:"name"`
	AltNames                                                                         []string      `json:"altNames,omitempty"`
	Kind                                                                             string        `json:"kind"` // "device", "bond", "vlan", "loopback", …
	MAC                                                                              string        `json:"mac"`
	PermMAC                                                                          string        `json:"permMAC,omitempty"`
	PCI                                                                              string        `json:"pci,omitempty"`
	Driver                                                                           string        `json:"driver,omitempty"`
	MTU                                                                              int           `json:"mtu"`
	Up                                                                               bool          `json:"up"` // administratively
	Carrier                                                                          bool          `json:"carrier"`
	Master                                                                           string        `json:"master,omitempty"`
	Speed                                                                            int           `json:"speed,omitempty"` // Mbit/s
	Addresses                                                                        []LinkAddress `json:"addresses"`
	RxBytes, TxBytes, RxPackets, TxPackets, RxErrors, TxErrors, RxDropped, TxDropped uint64
	Configured                                                                       bool `json:"configured"` // an interface block names it
}

// LinkAddress is one address of a link and where it comes from.
type LinkAddress struct {
	Prefix netip.Prefix `json:"prefix"`
	Origin string       `json:"origin"` // "static", "dhcp", "vip", "kernel", "other"
}

// Route is one route of the main table.
type Route struct {
	Dst       netip.Prefix `json:"dst"`
	Via       netip.Addr   `json:"via"`
	Interface string       `json:"interface"`
	Src       netip.Addr   `json:"src"`
	Metric    uint32       `json:"metric,omitempty"`
	Origin    string       `json:"origin"`
}

// NoAccept is one virtual address of no_accept, with what was dropped for it.
type NoAccept struct {
	Addr    netip.Addr `json:"addr"`
	Packets uint64     `json:"packets"`
	Bytes   uint64     `json:"bytes"`
}

// Missing is one static address, route or rule that somebody took away and that
// could not be set again.
type Missing struct {
	Group string `json:"group"` // its track_group
	What  string `json:"what"`  // "route 10.9.0.0/16: network is unreachable"
}

// MarkCount is one mark rule with its packet counter.
type MarkCount struct {
	Mark    uint32 `json:"mark"`
	Rule    string `json:"rule"` // "tcp 192.168.100.111 8000-10000"
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Notify is the state of notify: script runs and mail.
type Notify struct {
	Applied
	Scripts       []ScriptResult  `json:"scripts"`
	Runs          uint64          `json:"runs"`
	Dropped       uint64          `json:"dropped,omitempty"` // notify scripts that found no room in their queue
	Missed        uint64          `json:"missed,omitempty"`  // transitions that were gone from their ring before they were read
	Startup       string          `json:"startup,omitempty"` // startup_script: "running", then what came of it
	MailSent      uint64          `json:"mailSent"`
	MailFailed    uint64          `json:"mailFailed"`
	LastMailError string          `json:"lastMailError,omitempty"`
	Files         []FileResult    `json:"files,omitempty"`
	Processes     []ProcessResult `json:"processes,omitempty"`
	FIFOs         []FIFOState     `json:"fifos,omitempty"`
	Transitions   []Transition    `json:"transitions,omitempty"`
}

// FileResult is what a track_file holds. A file that is missing or holds no
// number counts as 0, as keepalived has it.
type FileResult struct {
	Name   string    `json:"name"`
	Value  int       `json:"value"`
	Last   time.Time `json:"last"` // when it changed
	Detail string    `json:"detail,omitempty"`
}

// ProcessResult is the outcome of one vrrp_track_process.
type ProcessResult struct {
	Name  string    `json:"name"`
	OK    bool      `json:"ok"` // between quorum and quorum_max, after the delays
	Count int       `json:"count"`
	Last  time.Time `json:"last"`
	// Since is when the count left OK behind and a delay runs; OK is as before.
	Since  time.Time `json:"since,omitzero"`
	Detail string    `json:"detail,omitempty"`
}

// FIFOState is one notify pipe.
type FIFOState struct {
	Path    string `json:"path"`
	Written uint64 `json:"written"`           // lines
	Dropped uint64 `json:"dropped"`           // lines that found no reader and no room
	Waiting int    `json:"waiting,omitempty"` // lines that wait for the reader
	Error   string `json:"error,omitempty"`   // why there is no such pipe
	Reader  string `json:"reader,omitempty"`  // state of the reader that we started
}

// ScriptResult is the outcome of one vrrp_script. Counting rise and fall is
// done by notify; vrrp only adds weights.
type ScriptResult struct {
	Name    string        `json:"name"`
	Known   bool          `json:"known"` // false: no result yet, instances are held
	OK      bool          `json:"ok"`
	Missing bool          `json:"missing,omitempty"` // the file is not there or cannot run: trackers of it are dropped
	Last    time.Time     `json:"last"`
	Took    time.Duration `json:"took"`
	Exit    int           `json:"exit"`
	Detail  string        `json:"detail"` // "exit 1", "timeout after 2s, killed", and the tail of what it printed
}

// Init is the state of init.
type Init struct {
	Version           string    `json:"version"`
	Kernel            string    `json:"kernel"`
	Board             string    `json:"board"`
	Started           time.Time `json:"started"`
	Phases            []Phase   `json:"phases"`
	Services          []Process `json:"services"`
	Watchdog          string    `json:"watchdog"`           // "i6300esb, fed" or why it is not
	Stateless         bool      `json:"stateless"`          // no data disk: nothing outlives a reboot
	Stopping          bool      `json:"stopping,omitempty"` // the box is on its way down
	MemTotal, MemFree uint64    `json:",omitempty"`
}

// Phase is one phase of the boot.
type Phase struct {
	Name  string        `json:"name"`
	Start time.Duration `json:"start"` // since the kernel started
	Took  time.Duration `json:"took"`
	Error string        `json:"error,omitempty"`
}

// Process is one supervised service.
type Process struct {
	Name         string        `json:"name"`
	PID          int           `json:"pid"`
	State        string        `json:"state"` // "starting", "ready", "backoff", "stopped"
	Since        time.Time     `json:"since"`
	Restarts     int           `json:"restarts"`
	LastExit     string        `json:"lastExit,omitempty"`
	RSS          uint64        `json:"rss"` // bytes
	PSS          uint64        `json:"pss"`
	CPU          time.Duration `json:"cpu"`
	LastProgress time.Time     `json:"lastProgress"`
}

// LogLine is one line of a service's log (init's verb "log").
type LogLine struct {
	Time     time.Time `json:"time"`
	Service  string    `json:"service"`
	Priority int       `json:"priority"` // RFC 5424 severity
	Text     string    `json:"text"`
}
