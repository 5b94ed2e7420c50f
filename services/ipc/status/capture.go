package status

import (
	"net/netip"
	"time"
)

// CaptureRequest is the argument of the verb "capture", which streams packets
// until it has enough of them or its input ends.
type CaptureRequest struct {
	By          string        `json:"by"`
	Interface   string        `json:"interface"` // AnyInterface: all of them
	Filter      string        `json:"filter,omitempty"`
	Count       uint64        `json:"count,omitempty"` // 0: no end
	For         time.Duration `json:"for,omitempty"`   // 0: no end
	Snap        int           `json:"snap,omitempty"`  // bytes of each packet; 0: all
	Promiscuous bool          `json:"promiscuous,omitempty"`
	// Text asks for a line a packet, in place of a file of pcapng.
	Text bool `json:"text,omitempty"`
	// Client and Server are the ends of the session that asks, whose own packets
	// are left out; not valid: of none.
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
}

// AnyInterface stands for all interfaces.
const AnyInterface = "any"

// Capture is the state of capture: what is under way.
type Capture struct {
	Running []CaptureRun `json:"running"`
}

// CaptureRun is one of them.
type CaptureRun struct {
	By        string    `json:"by"`
	Interface string    `json:"interface"`
	Filter    string    `json:"filter,omitempty"`
	Since     time.Time `json:"since"`
}
