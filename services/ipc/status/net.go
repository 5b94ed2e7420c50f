package status

import (
	"net/netip"
)

// Net is the state of net.
type Net struct {
	Applied
	Links       []Link       `json:"links"`
	Routes      []Route      `json:"routes"`
	Marks       []MarkCount  `json:"marks,omitempty"`
	NoAccept    []NoAccept   `json:"noAccept,omitempty"` // virtual addresses that the box itself does not answer on
	Missing     []Missing    `json:"missing,omitempty"`  // static addresses, routes and rules with a track_group that are not in the kernel
	Firewall    *Firewall    `json:"firewall,omitempty"` // nil: not known yet
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

// Firewall is what may reach the box itself, rule by rule: the first that fits
// a packet counts.
type Firewall struct {
	Default string         `json:"default"` // "accept", "drop"
	Rules   []FirewallRule `json:"rules"`
}

// FirewallRule is one rule with what it counted.
type FirewallRule struct {
	Rule    string `json:"rule"`
	Does    string `json:"does"` // "accept", "drop", "log"
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
