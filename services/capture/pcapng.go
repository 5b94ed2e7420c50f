package capture

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// Types of links as files of packets have them (tcpdump.org/linktypes.html).
const (
	linkEthernet = 1
	linkSLL2     = 276
)

// pcapng writes a file of packets: a section, a description of each interface
// when its first packet comes, packets, and at the end what was dropped
// (draft-ietf-opsawg-pcapng).
type pcapng struct {
	buf   []byte
	snap  uint32
	link  uint16
	known map[int32]uint32
	name  func(index int32) string
	count []uint64 // packets, by interface
	start time.Time
	note  string // the filter
}

// option appends one: a code, a length, a value padded to four bytes.
func option(b []byte, code uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// block appends one around a body.
func (p *pcapng) block(kind uint32, body []byte) {
	n := uint32(12 + len(body))
	p.buf = binary.LittleEndian.AppendUint32(p.buf, kind)
	p.buf = binary.LittleEndian.AppendUint32(p.buf, n)
	p.buf = append(p.buf, body...)
	p.buf = binary.LittleEndian.AppendUint32(p.buf, n)
}

const endOfOptions = 0

func (p *pcapng) begin(program string, start time.Time) {
	p.known, p.start = map[int32]uint32{}, start
	b := binary.LittleEndian.AppendUint32(nil, 0x1a2b3c4d)
	b = binary.LittleEndian.AppendUint16(b, 1) // version 1.0
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint64(b, ^uint64(0)) // length of the section: not known
	b = option(b, 4, []byte(program))
	p.block(0x0a0d0d0a, option(b, endOfOptions, nil))
}

// iface is the number of an interface in the file.
func (p *pcapng) iface(index int32) uint32 {
	if n, ok := p.known[index]; ok {
		return n
	}
	b := binary.LittleEndian.AppendUint16(nil, p.link)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint32(b, p.snap)
	b = option(b, 2, []byte(p.name(index)))
	b = option(b, 9, []byte{9}) // times are nanoseconds
	if p.note != "" {
		b = option(b, 11, append([]byte{0}, p.note...))
	}
	p.block(1, option(b, endOfOptions, nil))
	n := uint32(len(p.count))
	p.known[index] = n
	p.count = append(p.count, 0)
	return n
}

func stamp(b []byte, t time.Time) []byte {
	n := uint64(t.UnixNano())
	b = binary.LittleEndian.AppendUint32(b, uint32(n>>32))
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

// packet appends one.
func (p *pcapng) packet(f *frame) {
	n := p.iface(f.index)
	p.count[n]++
	var head [20]byte
	first, data, length := head[:0], f.data, f.length
	switch {
	case p.link == linkSLL2:
		first = head[:20]
		binary.BigEndian.PutUint16(first, f.protocol)
		binary.BigEndian.PutUint32(first[4:], uint32(f.index))
		binary.BigEndian.PutUint16(first[8:], f.kind)
		first[10], first[11] = f.way, byte(len(f.sender))
		copy(first[12:], f.sender)
	case f.tpid != 0 && len(data) >= 12:
		// The tag goes back to where the kernel took it from.
		first = append(append(first, data[:12]...), byte(f.tpid>>8), byte(f.tpid), byte(f.tag>>8), byte(f.tag))
		data, length = data[12:], length-12
	}
	size := len(first) + len(data)
	b := make([]byte, 0, 48+size)
	b = binary.LittleEndian.AppendUint32(b, n)
	b = stamp(b, f.time)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(first)+length))
	b = append(append(b, first...), data...)
	b = append(b, make([]byte, -size&3)...)
	way := uint32(1) // in
	if f.way == unix.PACKET_OUTGOING {
		way = 2
	}
	b = option(b, 2, binary.LittleEndian.AppendUint32(nil, way))
	p.block(6, option(b, endOfOptions, nil))
}

// end appends the counters: the kernel counts what it dropped once for all.
func (p *pcapng) end(t time.Time, dropped uint64) {
	for n, count := range p.count {
		b := binary.LittleEndian.AppendUint32(nil, uint32(n))
		b = stamp(b, t)
		b = option(b, 2, stamp(nil, p.start))
		b = option(b, 3, stamp(nil, t))
		if n == 0 {
			b = option(b, 5, binary.LittleEndian.AppendUint64(nil, dropped))
		}
		b = option(b, 8, binary.LittleEndian.AppendUint64(nil, count))
		p.block(5, option(b, endOfOptions, nil))
	}
}
