package verdicts

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"ballast/services/ipc/status"
)

// The verdicts on ten thousand virtual servers travel packed: JSON would be most
// of the work of a large commit. Both ends are always the same program. Of each
// virtual server: its name, flags, how many real servers it has; of each of
// those: address, port, flags, and the weight where a check gives one. Numbers
// are varints, texts have their length before them.

// Flags.
const (
	flagQuorum  = 1 // of a virtual server
	flagAlive   = 1 // of a real server
	flagSettled = 2
	flagWeight  = 4 // a weight follows
	flagZone    = 8 // the zone of the address follows
)

// pack appends the verdict on v, without the detail.
func pack(out []byte, v *status.VirtualServerHealth) []byte {
	out = appendText(out, v.Name)
	flags := byte(0)
	if v.QuorumUp {
		flags = flagQuorum
	}
	out = binary.AppendUvarint(append(out, flags), uint64(len(v.Real)))
	for i := range v.Real {
		r := &v.Real[i]
		addr := r.Addr.Unmap()
		switch {
		case addr.Is4():
			a := addr.As4()
			out = append(append(out, 4), a[:]...)
		case addr.Is6():
			a := addr.As16()
			out = append(append(out, 16), a[:]...)
		default:
			out = append(out, 0)
		}
		flags := byte(0)
		if r.Alive {
			flags |= flagAlive
		}
		if settled(r) {
			flags |= flagSettled
		}
		if r.Weight >= 0 {
			flags |= flagWeight
		}
		if addr.Zone() != "" {
			flags |= flagZone
		}
		out = append(binary.AppendUvarint(out, uint64(r.Port)), flags)
		if flags&flagWeight != 0 {
			out = binary.AppendUvarint(out, uint64(r.Weight))
		}
		if flags&flagZone != 0 {
			out = appendText(out, addr.Zone())
		}
	}
	return out
}

func appendText(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

var errPacked = errors.New("the answer is cut short or not ours")

// input is what is unpacked. After an error everything reads as zero.
type input struct {
	b   []byte
	err error
}

func (in *input) take(n uint64) []byte {
	if n > uint64(len(in.b)) {
		in.b, in.err = nil, errPacked
		return nil
	}
	b := in.b[:n]
	in.b = in.b[n:]
	return b
}

func (in *input) number() uint64 {
	v, n := binary.Uvarint(in.b)
	if n <= 0 {
		in.b, in.err = nil, errPacked
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *input) byte() byte {
	if b := in.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (in *input) addr() netip.Addr {
	switch n := in.byte(); n {
	case 0:
		return netip.Addr{}
	case 4:
		if b := in.take(4); b != nil {
			return netip.AddrFrom4([4]byte(b))
		}
	case 16:
		if b := in.take(16); b != nil {
			return netip.AddrFrom16([16]byte(b))
		}
	default:
		in.b, in.err = nil, errPacked
	}
	return netip.Addr{}
}

// unpack reads so many virtual servers, which are all that b holds.
func unpack(b []byte, count int) ([]Server, error) {
	// The least of a virtual server is 3 bytes, of a real server 3.
	if count < 0 || count > len(b)/3 {
		return nil, errPacked
	}
	in := &input{b: b}
	out := make([]Server, count)
	var room []Real // one piece of memory for many
	for i := range out {
		v := &out[i]
		v.Name = string(in.take(in.number()))
		v.QuorumUp = in.byte()&flagQuorum != 0
		n := in.number()
		if n > uint64(len(in.b))/3 {
			return nil, errPacked
		}
		if uint64(len(room)) < n {
			room = make([]Real, max(int(n), min(64, 1+len(in.b)/3)))
		}
		v.Real, room = room[:n:n], room[n:]
		for j := range v.Real {
			r := &v.Real[j]
			r.Addr = in.addr()
			port := in.number()
			r.Port = uint16(port)
			flags := in.byte()
			r.Alive, r.Settled, r.Weight = flags&flagAlive != 0, flags&flagSettled != 0, -1
			if flags&flagWeight != 0 {
				w := in.number()
				if w > 1<<31-1 {
					return nil, errPacked
				}
				r.Weight = int(w)
			}
			if flags&flagZone != 0 {
				r.Addr = r.Addr.WithZone(string(in.take(in.number())))
			}
			if port > 1<<16-1 || flags >= 2*flagZone {
				return nil, errPacked
			}
		}
		if in.err != nil {
			return nil, in.err
		}
	}
	if len(in.b) > 0 {
		return nil, errPacked
	}
	return out, nil
}
