package status

import (
	"net/netip"
	"time"
)

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
	Takeover     string        `json:"takeover,omitempty"`   // what made it master last: "master down timer", "heartbeat lost", "peer's link down", "handover", "priority 0", "preempt", "owner"
	FirstGARP    time.Duration `json:"firstGARP,omitempty"`  // from that decision to the first gratuitous ARP
	PreemptAt    time.Time     `json:"preemptAt,omitzero"`   // backup of a master with a lower priority: until then it lets that one go on
	PreemptFor   string        `json:"preemptFor,omitempty"` // why: PreemptForDelay, PreemptForSync
}

// What Evidence.PreemptFor may be.
const (
	PreemptForDelay = "preempt_delay"
	PreemptForSync  = "lvs_sync_daemon" // it is told of connections
)

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
