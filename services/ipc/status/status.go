// Package status holds the states that the services publish over ipc: what
// "GET /state" of each one answers and what every show command renders. They
// are whole snapshots; standard library and configs/model only.
package status

import (
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
	Source     string       `json:"source"`         // "commit", "seed", "last good", "factory", "rollback", "older firmware"
	Author     string       `json:"author,omitempty"`
	Time       time.Time    `json:"time"`
	Problems   []Problem    `json:"problems,omitempty"` // what was found when it was loaded at boot
	Pair       string       `json:"pair,omitempty"`     // what is wrong between this box and its peer; empty: nothing
	// Pending is set while the running generation waits to be confirmed.
	Pending *Pending `json:"pending,omitempty"`
	// Reverted is set when the running generation is back because nobody
	// confirmed another one: what happened, for whoever comes to the box.
	Reverted string `json:"reverted,omitempty"`
}

// Pending is a generation that runs until Deadline unless somebody confirms it.
type Pending struct {
	Generation uint64    `json:"generation"`
	Back       uint64    `json:"back"`     // the generation that runs again otherwise
	Deadline   time.Time `json:"deadline"` // moves with the clock when that is set
	Author     string    `json:"author,omitempty"`
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
