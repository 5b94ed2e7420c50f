// Package wire is the protocol between a lab process on the host and the agent
// inside a lab VM: one JSON object a line over a virtio-serial port. The host
// sends Requests with numbers of its own choice; the agent answers each with any
// number of Replies and ends it with one whose Done is set.
package wire

import (
	"net/netip"
	"time"
)

// Port is the name of the virtio-serial port that the agent opens.
const Port = "ballast.agent"

// Operations of a Request.
const (
	OpPing   = "ping"   // answers when the agent is there
	OpExec   = "exec"   // run Exec; replies carry its output, the last one its exit status
	OpStdin  = "stdin"  // Data (and then end of file, if EOF) for the exec numbered To
	OpSignal = "signal" // Signal for the exec numbered To
	OpPut    = "put"    // write Data to Path
	OpGet    = "get"    // the content of Path comes as Out
	OpNet    = "net"    // make the namespaces be Net; what was there before goes
	OpOff    = "off"    // power off
)

// Request is one line from the host.
type Request struct {
	ID     uint64 `json:"id"`
	Op     string `json:"op"`
	To     uint64 `json:"to,omitempty"`
	Exec   *Exec  `json:"exec,omitempty"`
	Data   []byte `json:"data,omitempty"`
	EOF    bool   `json:"eof,omitempty"`
	Signal int    `json:"signal,omitempty"`
	Path   string `json:"path,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	Net    *Net   `json:"net,omitempty"`
}

// Reply is one line from the agent.
type Reply struct {
	ID    uint64 `json:"id"`
	Out   []byte `json:"out,omitempty"`
	Err   bool   `json:"err,omitempty"` // Out is standard error
	Done  bool   `json:"done,omitempty"`
	Code  int    `json:"code,omitempty"`  // exit status; -1: killed or not started
	Error string `json:"error,omitempty"` // why Code is -1, or why another operation failed
}

// Exec is a program to run in the VM. Argv[0] "node" is the agent's own binary.
type Exec struct {
	Argv  []string `json:"argv"`
	Env   []string `json:"env,omitempty"` // beside the agent's own
	Dir   string   `json:"dir,omitempty"`
	Space string   `json:"space,omitempty"` // network namespace; empty: the VM's own
}

// Net is everything that the node VM holds on its segments.
type Net struct {
	Bridges []Bridge `json:"bridges"`
	Spaces  []Space  `json:"spaces"`
}

// Bridge joins the VM's NIC on a segment with the namespaces.
type Bridge struct {
	Name string `json:"name"`
	MAC  string `json:"mac"` // of the NIC that becomes its port; empty: no NIC
}

// Space is one machine of the lab: a network namespace.
type Space struct {
	Name     string            `json:"name"`
	Links    []Link            `json:"links"`
	Loopback []netip.Prefix    `json:"loopback,omitempty"` // addresses on lo, VIPs of LVS-DR
	Routes   []Route           `json:"routes,omitempty"`
	Sysctls  map[string]string `json:"sysctls,omitempty"` // "net/ipv4/conf/all/arp_ignore": "1"
}

// Link is one interface of a Space.
type Link struct {
	Name      string         `json:"name"`
	Kind      string         `json:"kind"`             // "veth" on Bridge, "ipip" or "sit"
	Bridge    string         `json:"bridge,omitempty"` // of a veth
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// Route is one route of a Space.
type Route struct {
	Dst  netip.Prefix `json:"dst"`
	Via  netip.Addr   `json:"via,omitzero"`
	Link string       `json:"link,omitempty"`
}

// Serve is the argument of "node serve": one real server.
type Serve struct {
	Name string `json:"name"`
	// TCP ports answer HTTP, TLS and lines, whichever the client begins with;
	// UDP ports echo what they get with the name behind it.
	TCP []uint16 `json:"tcp,omitempty"`
	UDP []uint16 `json:"udp,omitempty"`
	// Passive is the range that the line "PASV" picks a data port from.
	Passive [2]uint16 `json:"passive,omitzero"`
}

// ServeControl is one line on the standard input of "node serve".
type ServeControl struct {
	Status int           `json:"status,omitempty"` // HTTP status to answer from now on, 0: as it was
	Delay  time.Duration `json:"delay,omitempty"`  // before each HTTP answer; negative: none
}

// Probe is the argument of "node probe".
type Probe struct {
	Kind    string        `json:"kind"` // "http", "tcp" (a new connection each), "held" (connections that stay), "udp"
	Target  string        `json:"target"`
	Path    string        `json:"path,omitempty"`    // of HTTP, default "/"
	Every   time.Duration `json:"every"`             // between two requests
	Timeout time.Duration `json:"timeout,omitempty"` // of one request, default 1 s
	Conns   int           `json:"conns,omitempty"`   // of "held", default 1
	For     time.Duration `json:"for,omitempty"`     // 0: until it is told to stop
}

// Sample is one line on the standard output of "node probe": one request.
type Sample struct {
	At     time.Duration `json:"at"`   // when it was sent, since the probe began
	Took   time.Duration `json:"took"` // until the answer
	Server string        `json:"server,omitempty"`
	Error  string        `json:"error,omitempty"`
	Late   time.Duration `json:"late,omitempty"` // how late the timer fired: the jitter witness
	Conn   int           `json:"conn,omitempty"`
}
