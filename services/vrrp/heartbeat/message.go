// Package heartbeat is what two boxes of a pair tell one another besides VRRP:
// that they are alive, and what each of them is for every virtual router that
// both have. It is pure: a codec, the state of the peer (Peer), and what
// follows for the own virtual routers (Agent). Sockets and clocks are the
// caller's.
package heartbeat

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"
	"slices"
	"time"
)

// Phase is what a box is for a virtual router.
type Phase uint8

// Phases, with the values that go over the wire.
const (
	Init Phase = iota
	Backup
	Master
	Fault
)

func (p Phase) String() string { return [...]string{"INIT", "BACKUP", "MASTER", "FAULT"}[p&3] }

// Key names a virtual router. Set is a digest of its virtual addresses: two
// boxes whose lists differ speak of different routers.
type Key struct {
	VRID uint8
	IPv6 bool
	Set  uint64
}

// NewKey makes the key of a virtual router.
func NewKey(vrid uint8, ipv6 bool, vips []netip.Addr) Key {
	list := slices.Clone(vips)
	slices.SortFunc(list, netip.Addr.Compare)
	h := sha256.New()
	for _, a := range list {
		b := a.As16()
		h.Write(b[:])
	}
	return Key{vrid, ipv6, binary.BigEndian.Uint64(h.Sum(nil))}
}

// Record is what a box says of one virtual router.
type Record struct {
	Key      Key
	Phase    Phase
	Priority uint8      // effective
	Source   netip.Addr // its advertisements come from here; invalid: it has none now
	Vacant   bool       // it was master last and gave that up for nobody in particular
	Asks     bool       // it is master and wants the peer to relieve it
	Answers  bool       // it is master, and all of its addresses are announced
}

// Message is one datagram.
type Message struct {
	Interval  time.Duration // between the sender's heartbeats
	Epoch     uint64        // of the sender's process
	Seq       uint64        // grows with every datagram of an epoch
	Challenge uint64        // to be echoed by who wants to be believed in a new epoch
	Echo      uint64        // the receiver's challenge, as the sender saw it last
	Table     uint32        // grows when the sender's list of routers changes
	Records   []Record      // some of them
}

// MaxRecords is how many records a datagram carries; it fits into any MTU. A
// box with more virtual routers speaks of them in turn.
const MaxRecords = 40

const (
	magic      = 0x424c4842 // "BLHB"
	version    = 1
	headerLen  = 48
	recordLen  = 28
	tagLen     = 16
	maxLen     = headerLen + MaxRecords*recordLen + tagLen
	intervalBy = 100 * time.Microsecond
)

// MaxLen is the length of the longest datagram.
const MaxLen = maxLen

// Faults of a datagram.
var (
	ErrFormat = errors.New("is no heartbeat of this version")
	ErrKey    = errors.New("has another key")
)

// Codec writes and reads datagrams under one key. It allocates nothing after
// its first use.
type Codec struct {
	mac hash.Hash
	sum [sha256.Size]byte
	to  [16]byte
}

// NewCodec makes a codec for a key.
func NewCodec(key []byte) *Codec { return &Codec{mac: hmac.New(sha256.New, key)} }

// tag authenticates a datagram together with the address that it is sent to,
// so that one copied to another path proves nothing there.
func (c *Codec) tag(b []byte, to netip.Addr) []byte {
	c.to = to.As16()
	c.mac.Reset()
	c.mac.Write(c.to[:])
	c.mac.Write(b)
	return c.mac.Sum(c.sum[:0])[:tagLen]
}

const (
	flagIPv6 = 1 << iota
	flagVacant
	flagAsks
	flagAnswers
)

// Append appends a datagram without its tag.
func (m *Message) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, version, uint8(len(m.Records)))
	b = binary.BigEndian.AppendUint16(b, uint16(min(m.Interval/intervalBy, 1<<16-1)))
	b = binary.BigEndian.AppendUint64(b, m.Epoch)
	b = binary.BigEndian.AppendUint64(b, m.Seq)
	b = binary.BigEndian.AppendUint64(b, m.Challenge)
	b = binary.BigEndian.AppendUint64(b, m.Echo)
	b = binary.BigEndian.AppendUint32(b, m.Table)
	b = append(b, 0, 0, 0, 0)
	for i := range m.Records {
		r := &m.Records[i]
		var flags uint8
		for bit, set := range [...]bool{r.Key.IPv6, r.Vacant, r.Asks, r.Answers} {
			if set {
				flags |= 1 << bit
			}
		}
		b = append(b, r.Key.VRID, flags, uint8(r.Phase), r.Priority)
		b = binary.BigEndian.AppendUint64(b, r.Key.Set)
		var src [16]byte
		if r.Source.IsValid() {
			src = r.Source.As16()
		}
		b = append(b, src[:]...)
	}
	return b
}

// Seal appends the tag for one destination.
func (c *Codec) Seal(b []byte, to netip.Addr) []byte { return append(b, c.tag(b, to)...) }

// Open checks a datagram that was sent to an address and reads it into m, whose
// records are reused.
func (c *Codec) Open(b []byte, to netip.Addr, m *Message) error {
	if len(b) < headerLen+tagLen || len(b) > maxLen || binary.BigEndian.Uint32(b) != magic || b[4] != version {
		return ErrFormat
	}
	body, tag := b[:len(b)-tagLen], b[len(b)-tagLen:]
	if !hmac.Equal(c.tag(body, to), tag) {
		return ErrKey
	}
	return m.decode(body)
}

func (m *Message) decode(b []byte) error {
	n := int(b[5])
	if n > MaxRecords || len(b) != headerLen+n*recordLen {
		return ErrFormat
	}
	m.Interval = time.Duration(binary.BigEndian.Uint16(b[6:])) * intervalBy
	m.Epoch, m.Seq = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	m.Challenge, m.Echo = binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])
	m.Table = binary.BigEndian.Uint32(b[40:])
	m.Records = m.Records[:0]
	for b = b[headerLen:]; len(b) > 0; b = b[recordLen:] {
		if b[2] > uint8(Fault) {
			return ErrFormat
		}
		r := Record{
			Key:   Key{b[0], b[1]&flagIPv6 != 0, binary.BigEndian.Uint64(b[4:])},
			Phase: Phase(b[2]), Priority: b[3],
			Vacant: b[1]&flagVacant != 0, Asks: b[1]&flagAsks != 0, Answers: b[1]&flagAnswers != 0,
		}
		if src := [16]byte(b[12:28]); src != [16]byte{} {
			r.Source = netip.AddrFrom16(src).Unmap()
		}
		m.Records = append(m.Records, r)
	}
	return nil
}
