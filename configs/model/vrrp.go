package model

import (
	"net/netip"
	"time"
)

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
