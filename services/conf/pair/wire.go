package pair

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"slices"
	"time"
	"unicode/utf8"

	"ballast/configs/printable"
	"ballast/configs/store"
)

// Kind is what a message asks for.
type Kind string

// Kinds of messages. Every one is answered by an Answer.
const (
	Hello   Kind = "hello"   // who are you, and what runs
	Prepare Kind = "prepare" // the text is the payload
	Blob    Kind = "blob"    // one script file, the payload, before its prepare
	Apply   Kind = "apply"
	Word    Kind = "word"    // Verdict on Txn
	AskWord Kind = "outcome" // what became of Txn
	Fetch   Kind = "fetch"   // the text that runs comes as the payload
	Content Kind = "content" // the content of file Sum comes as the payload
	Confirm Kind = "confirm" // keep what was committed for a while only
)

// Release is that of the protocol. Boxes of different releases still say hello, so
// that both know what the other one runs while a pair is upgraded, and answer each
// other; all else is refused until they are of one release. What is new in a
// message without being new in its meaning needs no other release in an Answer or
// in a hello: what is not known there is passed over.
const Release = 1

// Bounds of what comes from the other box.
const (
	MaxHead  = 4 << 20 // of the part that is JSON
	MaxFrame = MaxHead + 1 + store.MaxText
	maxName  = 512
)

// sources are those of a commit of the pair. Others mean something on a box:
// what is of the factory is made anew when a NIC comes.
var sources = []string{"commit", "rollback", "push"}

// Message is what one box sends to the other.
type Message struct {
	Release int           `json:"release"`
	Kind    Kind          `json:"kind"`
	Txn     Txn           `json:"txn,omitempty"`
	Verdict Verdict       `json:"verdict,omitempty"`
	Box     string        `json:"box,omitempty"`  // host name of the sender
	Sees    string        `json:"sees,omitempty"` // content that the sender believes to run on the receiver
	Author  string        `json:"author,omitempty"`
	Comment string        `json:"comment,omitempty"`
	Source  string        `json:"source,omitempty"`
	Force   bool          `json:"force,omitempty"`
	Confirm time.Duration `json:"confirm,omitempty"` // roll back unless confirmed
	// Own are the addresses that the sender has for itself: no other box may.
	Own   []netip.Addr    `json:"own,omitempty"`
	Files []store.FileRef `json:"files,omitempty"`
	Sum   string          `json:"sum,omitempty"`

	Payload []byte `json:"-"`
}

// Answer is what comes back.
type Answer struct {
	Refused string          `json:"refused,omitempty"` // why not
	Verdict Verdict         `json:"verdict,omitempty"`
	Own     []netip.Addr    `json:"own,omitempty"`     // as Message.Own
	Missing []string        `json:"missing,omitempty"` // sums of files that must come first
	Warning []string        `json:"warning,omitempty"`
	State   State           `json:"state,omitzero"`
	Files   []store.FileRef `json:"files,omitempty"`

	Payload []byte `json:"-"`
}

// State is what a box tells of itself.
type State struct {
	Box        string    `json:"box,omitempty"`
	Generation uint64    `json:"generation,omitempty"`
	Content    string    `json:"content,omitempty"` // hash of text and files that run
	Source     string    `json:"source,omitempty"`
	Author     string    `json:"author,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	Time       time.Time `json:"time,omitzero"`
	Phase      Phase     `json:"phase,omitempty"`
	Pending    bool      `json:"pending,omitempty"` // it waits to be confirmed
	Release    int       `json:"release,omitempty"` // of the protocol that it speaks
	Paired     bool      `json:"paired,omitempty"`  // its running configuration names the box that asks
}

// Encode makes a frame's body of a message.
func (m Message) Encode() ([]byte, error) {
	m.Release = Release
	return encode(m, m.Payload)
}

// Encode makes a frame's body of an answer.
func (a Answer) Encode() ([]byte, error) { return encode(a, a.Payload) }

func encode(head any, payload []byte) ([]byte, error) {
	b, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxHead || len(b)+1+len(payload) > MaxFrame {
		return nil, fmt.Errorf("the message is larger than %d bytes", MaxFrame)
	}
	return append(append(b, 0), payload...), nil
}

// parts are the head of a message, in JSON, and its payload.
func parts(b []byte) (head, payload []byte, err error) {
	if len(b) > MaxFrame {
		return nil, nil, errors.New("the message is too long")
	}
	head, payload, ok := bytes.Cut(b, []byte{0})
	if !ok || len(head) > MaxHead {
		return nil, nil, errors.New("the message has no proper head")
	}
	return head, payload, nil
}

// decode reads head; strict: and nothing that it does not know.
func decode(b []byte, head any, strict bool) (payload []byte, err error) {
	text, payload, err := parts(b)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(head); err != nil {
		return nil, errors.New("the message cannot be read: does the other box run another release?")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the message has something behind its head")
	}
	return payload, nil
}

// DecodeMessage reads what the other box sent.
func DecodeMessage(b []byte) (m Message, err error) {
	text, _, err := parts(b)
	if err != nil {
		return Message{}, err
	}
	// A box of another release says so before anything else of it is read.
	var first struct {
		Release int  `json:"release"`
		Kind    Kind `json:"kind"`
	}
	if err := json.Unmarshal(text, &first); err == nil && first.Release != Release && first.Kind != Hello {
		return Message{}, fmt.Errorf("the other box speaks release %d of the protocol, this one %d: commit when both run the same firmware", first.Release, Release)
	}
	if m.Payload, err = decode(b, &m, first.Kind != Hello); err != nil {
		return Message{}, err
	}
	if err := m.check(); err != nil {
		return Message{}, err
	}
	// What is stored, logged and shown.
	for _, s := range []*string{&m.Box, &m.Author, &m.Comment} {
		*s = printable.Escaped(*s)
	}
	return m, nil
}

// DecodeAnswer reads what the other box answered.
func DecodeAnswer(b []byte) (a Answer, err error) {
	if a.Payload, err = decode(b, &a, false); err != nil {
		return Answer{}, err
	}
	if err := checkFiles(a.Files); err != nil {
		return Answer{}, err
	}
	if a.Verdict > Superseded || a.State.Phase > Late || len(a.Missing) > store.MaxFiles || len(a.Warning) > 100 || len(a.Own) > 4096 {
		return Answer{}, errors.New("the answer has a number that means nothing")
	}
	for _, s := range a.Missing {
		if !validSum(s) {
			return Answer{}, errors.New("the answer asks for a file that cannot be")
		}
	}
	if err := names(a.State.Box, a.State.Content, a.State.Source, a.State.Author, a.State.Comment); err != nil {
		return Answer{}, err
	}
	if a.State.Content != "" && !validSum(a.State.Content) {
		return Answer{}, errors.New("the answer names a content that cannot be")
	}
	// What reaches a terminal.
	a.Refused = printable.Text(clip(a.Refused, 64<<10))
	for i := range a.Warning {
		a.Warning[i] = printable.Text(clip(a.Warning[i], maxName*8))
	}
	for _, s := range []*string{&a.State.Box, &a.State.Source, &a.State.Author, &a.State.Comment} {
		*s = printable.Escaped(*s)
	}
	return a, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

func names(list ...string) error {
	for _, s := range list {
		if len(s) > maxName || !utf8.ValidString(s) {
			return errors.New("the message has a name that is too long")
		}
	}
	return nil
}

func validSum(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && hex.EncodeToString(b) == s
}

func (m *Message) check() error {
	if m.Release != Release && m.Kind != Hello {
		return fmt.Errorf("the message is of release %d of the protocol", m.Release)
	}
	if err := names(m.Box, m.Sees, m.Author, m.Comment, m.Source); err != nil {
		return err
	}
	if m.Verdict > Superseded || len(m.Own) > 4096 || m.Confirm < 0 || m.Confirm > 24*time.Hour {
		return errors.New("the message has a number that means nothing")
	}
	if err := checkFiles(m.Files); err != nil {
		return err
	}
	if m.Sum != "" && !validSum(m.Sum) {
		return errors.New("the message names a file that cannot be")
	}
	needsTxn, needsSum := false, false
	switch m.Kind {
	case Hello, Fetch:
	case Prepare, Apply, Word, AskWord, Confirm:
		needsTxn = true
	case Blob, Content:
		needsSum = true
	default:
		return errors.New("the message asks for something that is not known here")
	}
	switch {
	case needsTxn && !m.Txn.Valid():
		return errors.New("the message names no commit")
	case needsSum && m.Sum == "":
		return errors.New("the message names no file")
	case m.Kind == Blob && len(m.Payload) > store.MaxFile:
		return errors.New("the file is too large")
	case m.Kind == Prepare && !slices.Contains(sources, m.Source):
		return errors.New("the message tells of no commit that a user asked for")
	case m.Kind == Prepare && (len(m.Payload) > store.MaxText || !utf8.Valid(m.Payload)):
		return errors.New("the text is too long, or not UTF-8")
	case m.Kind != Blob && m.Kind != Prepare && len(m.Payload) > 0:
		return errors.New("the message has more than it may have")
	}
	return nil
}

func checkFiles(files []store.FileRef) error {
	if len(files) > store.MaxFiles {
		return errors.New("there are too many files")
	}
	total, last := 0, ""
	for _, f := range files {
		total += f.Size
		if !validSum(f.Sum) || f.Size < 0 || f.Size > store.MaxFile || f.Mode&^0o777 != 0 || len(f.Path) > maxName || f.Path != path.Clean(f.Path) || f.Path <= last {
			return errors.New("the list of files is not what it must be")
		}
		last = f.Path
	}
	if total > store.MaxFilesTotal {
		return errors.New("the files are too large together")
	}
	return nil
}
