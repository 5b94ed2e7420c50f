package status

import (
	"net/netip"
	"time"
)

// Peer is the state of peer, the wire to the other box of a pair.
type Peer struct {
	PublicKey string    `json:"publicKey"`           // of this box, for the peer block of the other one
	Listening string    `json:"listening,omitempty"` // address and port; empty: no peer is configured
	Error     string    `json:"error,omitempty"`     // why it does not listen
	Inbound   int       `json:"inbound"`             // connections of the other box that are open
	Strangers uint64    `json:"strangers"`           // connections that were closed before or in the handshake
	LastHeard time.Time `json:"lastHeard,omitzero"`  // a message of the other box
}

// ChannelFirmware is the channel on which the firmware services of both boxes talk.
const ChannelFirmware = "firmware"

// PeerTarget is the box that conf wants to talk to. The body of the verb "send"
// of peer is it in JSON, a zero byte, and the message. With a channel it is the
// box of the peer block, whatever else is said, and the service of that name there.
type PeerTarget struct {
	Addr netip.Addr `json:"addr"`
	Port uint16     `json:"port"`
	From netip.Addr `json:"from,omitzero"`
	Key  string     `json:"key"` // as model.Pair.Key

	Channel string `json:"channel,omitempty"`
}

// PeerMessage is the answer of "send" of peer, and of "pair" of conf and of the
// service of a channel.
type PeerMessage struct {
	Body []byte `json:"body"`
}

// PairSide is what runs on one box of a pair.
type PairSide struct {
	Box        string    `json:"box,omitempty"`
	Generation uint64    `json:"generation,omitempty"`
	Content    string    `json:"content,omitempty"` // hash of the text and the script files
	Source     string    `json:"source,omitempty"`
	Author     string    `json:"author,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	Time       time.Time `json:"time,omitzero"`
}

// PairState is the answer of "peer-state".
type PairState struct {
	Configured bool       `json:"configured"`
	Addr       netip.Addr `json:"addr,omitzero"`
	Reachable  bool       `json:"reachable"`
	Error      string     `json:"error,omitempty"` // why it is not
	Since      time.Time  `json:"since,omitzero"`  // that it is reachable, or is not
	Own        PairSide   `json:"own"`
	Peer       PairSide   `json:"peer"`               // as it was seen last
	Seen       time.Time  `json:"seen,omitzero"`      // zero: not since this box started
	Drift      bool       `json:"drift"`              // both ran different configurations when they last spoke
	Updating   string     `json:"updating,omitempty"` // why both cannot commit: their firmwares speak different releases
	Doubt      string     `json:"doubt,omitempty"`    // a commit whose outcome this box does not know: "prepared", "applied", "late"
}

// Drift is the answer of "peer-drift".
type Drift struct {
	State PairState `json:"state"`
	Diff  string    `json:"diff,omitempty"`  // from the peer's text to this box's, without secrets
	Files []string  `json:"files,omitempty"` // script files that differ, with how
}

// PairChange is the argument of "peer-push" and "peer-pull".
type PairChange struct {
	Author string `json:"author,omitempty"`
	Force  bool   `json:"force,omitempty"` // as Candidate.Force
	// From is the box to pull from when none is configured; As is then the host
	// name by which this box finds its own lines.
	From PeerTarget `json:"from,omitzero"`
	As   string     `json:"as,omitempty"`
}
