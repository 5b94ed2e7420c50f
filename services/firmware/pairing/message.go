package pairing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"ballast/configs/printable"
	"ballast/image/layout"
)

// Speaks is the newest form of messages that this firmware knows. While a pair is
// upgraded its boxes run different firmwares: what a box does not know of a
// message or a report it passes over, and a kind or an order that it does not know
// it refuses by name.
const Speaks = 1

// Kind is what a message asks for. Every one is answered by an Answer.
type Kind string

// Kinds of messages.
const (
	KindLook  Kind = "look"  // how are you; with the record, from the box that drives
	KindOrder Kind = "order" // do something, for the reasons of the last look
	KindDrive Kind = "drive" // both slots are written: take over
	KindLoad  Kind = "load"  // a bundle comes, in pieces
	KindPiece Kind = "piece" // the next one is the payload
	KindEnd   Kind = "end"   // it was the last one
	KindDrop  Kind = "drop"  // no more comes
	KindAsk   Kind = "ask"   // a user on this box wants to continue or to abort
)

// Bounds of messages.
const (
	MaxHead  = 512 << 10
	MaxPiece = 512 << 10
	maxText  = 4 << 10
)

// Message is what one box says to the other.
type Message struct {
	Speaks  int     `json:"speaks"`
	Kind    Kind    `json:"kind"`
	Record  *Record `json:"record,omitempty"`
	Waiting string  `json:"waiting,omitempty"` // what the box that drives waits for
	Order   Order   `json:"order,omitempty"`
	Ticket  string  `json:"ticket,omitempty"`
	Load    string  `json:"load,omitempty"` // names the transfer
	Offset  int64   `json:"offset,omitempty"`
	Older   bool    `json:"older,omitempty"` // an older firmware is wanted
	By      string  `json:"by,omitempty"`
	Ask     string  `json:"ask,omitempty"` // "continue", "abort"

	Payload []byte `json:"-"`
}

// Answer is what comes back.
type Answer struct {
	Speaks  int              `json:"speaks"`
	Refused string           `json:"refused,omitempty"`
	Late    bool             `json:"late,omitempty"` // as ErrLate: no refusal
	Report  *Report          `json:"report,omitempty"`
	Loaded  *layout.Identity `json:"loaded,omitempty"` // what the transfer brought
	Step    string           `json:"step,omitempty"`   // of the transfer
	Done    int64            `json:"done,omitempty"`   // bytes that are written
	Total   int64            `json:"total,omitempty"`
}

// Encode makes the bytes of a message.
func (m Message) Encode() ([]byte, error) {
	m.Speaks = Speaks
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxHead || len(m.Payload) > MaxPiece {
		return nil, fmt.Errorf("a message of %d and %d bytes is too long", len(b), len(m.Payload))
	}
	return append(append(b, 0), m.Payload...), nil
}

// DecodeMessage reads what the other box says.
func DecodeMessage(b []byte) (m Message, err error) {
	head, payload, ok := bytes.Cut(b, []byte{0})
	if !ok || len(head) > MaxHead || len(payload) > MaxPiece {
		return Message{}, errors.New("the message has no proper form")
	}
	if err := json.Unmarshal(head, &m); err != nil {
		return Message{}, errors.New("the message cannot be read")
	}
	m.Payload = payload
	if m.Offset < 0 {
		return Message{}, errors.New("the message has a number that means nothing")
	}
	m.Waiting, m.By, m.Load = text(m.Waiting), text(m.By), text(m.Load)
	m.Record.clean()
	return m, nil
}

// Encode makes the bytes of an answer.
func (a Answer) Encode() ([]byte, error) {
	a.Speaks = Speaks
	b, err := json.Marshal(a)
	if err == nil && len(b) > MaxHead {
		err = fmt.Errorf("an answer of %d bytes is too long", len(b))
	}
	return b, err
}

// DecodeAnswer reads what the other box answers.
func DecodeAnswer(b []byte) (a Answer, err error) {
	if len(b) > MaxHead {
		return a, errors.New("the answer is too long")
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return Answer{}, errors.New("the answer cannot be read")
	}
	a.Refused, a.Step = text(a.Refused), text(a.Step)
	if r := a.Report; r != nil {
		r.Box, r.Boot, r.Missing, r.Verdict, r.Cannot, r.Resigned = text(r.Box), text(r.Boot), text(r.Missing), text(r.Verdict), text(r.Cannot), text(r.Resigned)
		for _, i := range []*layout.Identity{&r.Running, &r.Loaded} {
			*i = cleanIdentity(*i)
		}
		for i := range r.Unsound {
			r.Unsound[i] = text(r.Unsound[i])
		}
		for i := range r.Instances {
			x := &r.Instances[i]
			x.Name, x.State, x.Fault = text(x.Name), text(x.State), text(x.Fault)
		}
	}
	if a.Loaded != nil {
		*a.Loaded = cleanIdentity(*a.Loaded)
	}
	return a, nil
}

// text is what of the other box's words may be kept, and reach a terminal.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return printable.Line(s)
}

func cleanIdentity(i layout.Identity) layout.Identity {
	i.Version, i.Board, i.Kernel = text(i.Version), text(i.Board), text(i.Kernel)
	return i
}

func (r *Record) clean() {
	if r == nil {
		return
	}
	r.ID, r.By, r.Stopped, r.Phase = text(r.ID), text(r.By), text(r.Stopped), Phase(text(string(r.Phase)))
	r.To = cleanIdentity(r.To)
	for i := range r.Boxes {
		r.Boxes[i], r.Boots[i], r.From[i] = text(r.Boxes[i]), text(r.Boots[i]), cleanIdentity(r.From[i])
	}
	for i := range r.Names {
		r.Names[i] = text(r.Names[i])
	}
}
