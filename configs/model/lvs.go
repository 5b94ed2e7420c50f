package model

import (
	"net/netip"
	"time"
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

// SSL is the client certificate of SSL_GET; the values are paths.
type SSL struct {
	Password    string `json:",omitzero"` // secret
	CA          string `json:",omitzero"`
	Certificate string `json:",omitzero"`
	Key         string `json:",omitzero"`
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
