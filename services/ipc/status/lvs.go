package status

import (
	"net/netip"
	"time"

	"ballast/configs/model"
)

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
	Orders      []Order      `json:"orders,omitempty"`   // of the operator, in force, sorted
	Asleep      []Order      `json:"asleep,omitempty"`   // those about real servers that are not in the configuration now
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
