// Package datagram holds the probes that are one packet there and at most one
// back: DNS queries and free UDP payloads. It is pure: what to send comes out,
// what arrived goes in, and time is the caller's.
package datagram

import (
	"crypto/rand"
	"fmt"
	"time"

	"ballast/configs/model"
)

// Verdict is what a datagram says.
type Verdict uint8

// Verdicts. Ignore goes on waiting: the datagram is no answer to this probe.
const (
	Ignore Verdict = iota
	Pass
	Fail
)

// Exchange is one probe. It is used once.
type Exchange interface {
	// Payload is what to send.
	Payload() []byte
	// Judge looks at a datagram that came from the server.
	Judge(reply []byte) (Verdict, string)
	// Silence is the verdict when nothing came in time.
	Silence(after time.Duration) (ok bool, reason string)
}

// randomPayload is the size of a payload that nobody has written.
const randomPayload = 32

// udp sends a payload. Without require_reply only an ICMP error is a failure,
// and that comes to the caller as an error of its socket.
type udp struct {
	spec    *model.Check
	payload []byte
}

// UDP is a UDP_CHECK.
func UDP(c *model.Check) Exchange {
	u := &udp{spec: c, payload: c.Payload}
	if u.payload == nil {
		u.payload = make([]byte, randomPayload)
		rand.Read(u.payload)
	}
	return u
}

func (u *udp) Payload() []byte { return u.payload }

func (u *udp) Judge(reply []byte) (Verdict, string) {
	c := u.spec
	if !c.RequireReply {
		return Pass, fmt.Sprintf("reply of %d bytes", len(reply))
	}
	switch {
	case len(reply) < c.MinReply:
		return Fail, fmt.Sprintf("reply of %d bytes, want at least %d", len(reply), c.MinReply)
	case len(reply) > c.MaxReply:
		return Fail, fmt.Sprintf("reply of more than %d bytes", c.MaxReply)
	case len(reply) < len(c.Reply):
		return Fail, fmt.Sprintf("reply of %d bytes, want %d that are given", len(reply), len(c.Reply))
	}
	for i, want := range c.Reply {
		mask := byte(0xff)
		if i < len(c.ReplyMask) {
			mask = c.ReplyMask[i]
		}
		if (reply[i]^want)&mask != 0 {
			return Fail, fmt.Sprintf("byte %d of the reply is %#02x, want %#02x", i, reply[i], want)
		}
	}
	return Pass, fmt.Sprintf("reply of %d bytes", len(reply))
}

func (u *udp) Silence(after time.Duration) (bool, string) {
	if u.spec.RequireReply {
		return false, fmt.Sprintf("no reply within %s", after)
	}
	return true, fmt.Sprintf("nothing refused within %s", after)
}

// ReplyRoom is how large a reply must fit into the caller's buffer, so that
// one that is too long is seen to be.
func ReplyRoom(c *model.Check) int {
	if c.Kind == model.UDPCheck {
		return max(c.MaxReply+1, len(c.Reply), 1)
	}
	return maxMessage
}
