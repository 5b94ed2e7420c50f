package model

import "net/netip"

// NetbootBox is one "box MAC { … }" of the netboot block: who boots from this box.
type NetbootBox struct {
	MAC       string     `json:",omitzero"` // lower case with colons
	Name      string     `json:",omitzero"` // whose @NAME lines are its own
	Interface string     `json:",omitzero"` // empty: the one in whose network Addr is
	Addr      netip.Addr `json:",omitzero"` // IPv4, while it boots; invalid: what the configuration gives to Name
	DHCP      DHCPMode   `json:",omitzero"`
}

// DHCPMode is who gives a box that boots its address.
type DHCPMode string

// DHCP modes.
const (
	DHCPAuto   DHCPMode = ""       // another server of the network, where there is one
	DHCPServer DHCPMode = "server" // this box
	DHCPProxy  DHCPMode = "proxy"  // another server; this box tells only what to boot
)

// Pair is the other box of a pair, with which configurations are shared.
type Pair struct {
	Addr netip.Addr `json:",omitzero"`
	Key  string     `json:",omitzero"` // its public key, "ssh-ed25519 AAAA…" without a comment
	From netip.Addr `json:",omitzero"` // own address; invalid: any
	Port uint16     `json:",omitzero"` // TCP, default 1913
}
