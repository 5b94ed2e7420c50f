// Package box is what the bench and the program in a keepalived VM agree on.
package box

import "net/netip"

// Where the VM has its configuration and keepalived's.
const (
	File = "/etc/peer.json"
	Conf = "/etc/keepalived/keepalived.conf"
)

// Config is the network of the VM.
type Config struct {
	HostName string            `json:"hostName"`
	NICs     []NIC             `json:"nics"`
	Sysctls  map[string]string `json:"sysctls"` // "net/ipv4/ip_forward": "1"
}

// NIC is one network card.
type NIC struct {
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`
}

// Memory is what keepalived's processes hold, in bytes.
type Memory struct {
	Processes int    `json:"processes"`
	RSS       uint64 `json:"rss"`
	PSS       uint64 `json:"pss"`
}
