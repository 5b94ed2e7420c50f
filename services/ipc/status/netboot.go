package status

import (
	"net/netip"
	"time"
)

// Netboot is the state of netboot, which gives firmware and configuration to
// boxes that boot over the network.
type Netboot struct {
	Applied
	Firmware NetbootFirmware `json:"firmware"`
	Boxes    []NetbootBox    `json:"boxes,omitempty"` // by name
}

// NetbootFirmware is what this box has to give.
type NetbootFirmware struct {
	Source  string `json:"source,omitempty"` // where it lies, for people
	Version string `json:"version,omitempty"`
	Board   string `json:"board,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Bundle  bool   `json:"bundle"`          // whole and signed, so that it can be installed from here
	Error   string `json:"error,omitempty"` // why there is none, or less than all
}

// NetbootBox is one box that is served.
type NetbootBox struct {
	MAC         string           `json:"mac"`
	Name        string           `json:"name"`
	Interface   string           `json:"interface,omitempty"`
	Server      netip.Addr       `json:"server,omitzero"`  // own address
	Address     netip.Addr       `json:"address,omitzero"` // of the box while it boots, from this one
	DHCP        string           `json:"dhcp,omitempty"`   // "server" or "proxy"; empty: not known yet
	Other       netip.Addr       `json:"other,omitzero"`   // the DHCP server beside which this one is a proxy
	By          string           `json:"by,omitempty"`     // who asked for it; empty: the configuration
	Until       time.Time        `json:"until,omitzero"`   // zero: as long as the configuration says so
	PublicKey   string           `json:"publicKey,omitempty"`
	HostKey     string           `json:"hostKey,omitempty"` // fingerprint
	PeerKeyHere bool             `json:"peerKeyHere"`       // the peer block here has that key
	Given       uint64           `json:"given,omitempty"`   // generation of the configuration that it got last
	GivenAt     time.Time        `json:"givenAt,omitzero"`
	Transfer    *NetbootTransfer `json:"transfer,omitempty"` // under way
	Events      []NetbootEvent   `json:"events,omitempty"`   // newest last
	Error       string           `json:"error,omitempty"`    // why it cannot be served
}

// NetbootTransfer is a file on its way to a box.
type NetbootTransfer struct {
	File string `json:"file"`
	By   string `json:"by"` // "TFTP", "HTTP"
	Sent int64  `json:"sent"`
	Size int64  `json:"size"`
}

// NetbootEvent is something that a box did, or that was done for it.
type NetbootEvent struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// NetbootServe is the argument of "serve" of netboot.
type NetbootServe struct {
	MAC       string        `json:"mac"`
	Name      string        `json:"name"`
	Interface string        `json:"interface,omitempty"`
	Address   netip.Addr    `json:"address,omitzero"`
	DHCP      string        `json:"dhcp,omitempty"` // as in the configuration; empty: auto
	For       time.Duration `json:"for"`
	By        string        `json:"by"`
}

// NetbootStop is the argument of "stop" of netboot: a MAC or a name; empty: all
// that were asked for by hand.
type NetbootStop struct {
	Box string `json:"box,omitempty"`
}

// NetbootAllow is the argument of "netboot-may" of conf: netboot may have the
// configuration of a box for a while.
type NetbootAllow struct {
	Name string        `json:"name"`
	For  time.Duration `json:"for"`
}

// NetbootQuery is the argument of "netboot-seed" of conf.
type NetbootQuery struct {
	Name  string `json:"name"`
	Whole bool   `json:"whole,omitempty"` // with text and files; else addresses only
}

// NetbootContent is its answer.
type NetbootContent struct {
	Server     string           `json:"server"` // name of this box
	Generation uint64           `json:"generation"`
	Addresses  []NetbootAddress `json:"addresses,omitempty"` // that the configuration gives to the box
	Text       string           `json:"text,omitempty"`      // whole, with secrets
	Files      []File           `json:"files,omitempty"`
}

// NetbootAddress is one address of a box.
type NetbootAddress struct {
	Interface string       `json:"interface"`
	Prefix    netip.Prefix `json:"prefix"`
}
