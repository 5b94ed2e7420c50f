package model

import "net/netip"

// Pair is the other box of a pair, with which configurations are shared.
type Pair struct {
	Addr netip.Addr `json:",omitzero"`
	Key  string     `json:",omitzero"` // its public key, "ssh-ed25519 AAAA…" without a comment
	From netip.Addr `json:",omitzero"` // own address; invalid: any
	Port uint16     `json:",omitzero"` // TCP, default 1913
}
