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
	Pair           *Pair           `json:",omitzero"` // the appliance's peer block; nil: this box stands alone
	Netboot        []NetbootBox    `json:",omitzero"` // boxes of the appliance's netboot block
	System         System          `json:",omitzero"` // the appliance's own blocks from here on
	Interfaces     []Interface     `json:",omitzero"`
	Bonds          []Bond          `json:",omitzero"`
	VLANs          []VLAN          `json:",omitzero"`
	Marks          []Mark          `json:",omitzero"`
	Firewall       Firewall        `json:",omitzero"`
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

// Tristate is a setting that may be unset, so that a default further up counts.
type Tristate uint8

// Tristate values.
const (
	Unset Tristate = iota
	Off
	On
)

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

// Notify holds the notify_* commands of an instance or a sync group.
type Notify struct {
	Master, Backup, Fault, Stop, Deleted, MasterRxLowerPri Command `json:",omitzero"`
	Any                                                    Command `json:",omitzero"` // "notify": gets INSTANCE|GROUP NAME STATE PRIO appended
	// TellDeleted: there is a notify_deleted line, with a command or without, so
	// that an instance that is gone is told as DELETED and not as FAULT.
	TellDeleted bool `json:",omitzero"`
}
