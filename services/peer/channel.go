package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"ballast/configs/printable"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// A message of conf is JSON from its first byte on. What is for another service
// of the other box begins with the byte below and the name of a channel; what
// that service answers begins with the same byte, and why there is no answer with
// another one. A box that knows no channels takes it for a message of conf, and
// answers as conf does: with a brace.
const (
	addressed = 0x02
	declined  = 0x15
)

// MaxChannel bounds a message of a channel: who has more to say sends pieces, and
// the next one when the last one is answered.
const MaxChannel = 2 << 20

// channels are the services that talk to their like on the other box, and who
// they are. The verb of each is "pair".
var channels = map[string]uint32{status.ChannelFirmware: ipc.UIDFirmware}

// errOld says that the other box knows no channels.
var errOld = errors.New("its firmware is too old for this: it answers the configuration's messages only; upgrade that box by itself")

// addressTo puts the name of a channel before a message.
func addressTo(channel string, message []byte) ([]byte, error) {
	if len(message) > MaxChannel {
		return nil, fmt.Errorf("a message of %d bytes is longer than %d", len(message), MaxChannel)
	}
	b := make([]byte, 0, len(channel)+2+len(message))
	b = append(b, addressed)
	b = append(b, channel...)
	return append(append(b, 0), message...), nil
}

// addressee is the channel of a message, and what is in it; "" for conf.
func addressee(b []byte) (channel string, message []byte) {
	if len(b) == 0 || b[0] != addressed {
		return "", b
	}
	name, message, _ := bytes.Cut(b[1:], []byte{0})
	return string(name), message
}

// unwrap reads what came back for a message of a channel.
func unwrap(b []byte) ([]byte, error) {
	switch {
	case len(b) > 0 && b[0] == addressed:
		return b[1:], nil
	case len(b) > 0 && b[0] == declined:
		return nil, errors.New(printable.Text(string(b[1:min(len(b), 1024)])))
	}
	return nil, errOld
}

// answer has the service for which a message is answer it. An error is one of
// conf, which has no other way to say that it is not there.
func (s *service) answer(ctx context.Context, in []byte) ([]byte, error) {
	var out status.PeerMessage
	channel, message := addressee(in)
	if channel == "" && len(in) > 0 && in[0] != addressed {
		err := s.conf.Call(ctx, "pair", json.RawMessage(in), &out)
		return out.Body, err
	}
	no := func(why string) ([]byte, error) { return append([]byte{declined}, why...), nil }
	client, known := s.others[channel]
	switch {
	case !known:
		return no("its firmware does not know what this is about: upgrade that box by itself")
	case len(message) > MaxChannel:
		return no("the message is too long")
	}
	if err := client.Call(ctx, "pair", json.RawMessage(message), &out); err != nil {
		var refused *ipc.Refused
		if errors.As(err, &refused) {
			return no(refused.Text)
		}
		return no("its " + channel + " service does not answer")
	}
	return append([]byte{addressed}, out.Body...), nil
}

// sendTo takes a message of a service to its like on the other box, and brings
// the answer. It goes to the box of the peer block and to no other.
func (s *service) sendTo(ctx context.Context, caller ipc.Peer, channel string, message []byte) (any, error) {
	uid, known := channels[channel]
	switch {
	case !known:
		return nil, fmt.Errorf("peer: send: there is no channel %q", channel)
	case caller.UID != uid && caller.UID != ipc.UIDRoot:
		return nil, fmt.Errorf("peer: send: channel %q is not for user %d", channel, caller.UID)
	}
	s.mu.Lock()
	p := s.pair
	s.mu.Unlock()
	if p == nil {
		return nil, errors.New("no peer is configured: see \"show peer\"")
	}
	b, err := addressTo(channel, message)
	if err != nil {
		return nil, err
	}
	out, err := s.calls.ask(ctx, status.PeerTarget{Addr: p.Addr, Port: p.Port, From: p.From, Key: p.Key}, b)
	if err == nil {
		out, err = unwrap(out)
	} else if errors.Is(err, errAbsent) {
		err = errOld
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s", p.Addr, plain(explain(err)))
	}
	return status.PeerMessage{Body: out}, nil
}
