package snmp

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"ballast/services/ipc/status"
)

func system(f *facts) table {
	return scalars(mibSystem,
		always(1, func(int) value { return text("Ballast " + f.version + " LVS director") }),
		always(2, func(int) value { return object(keepalived) }),
		always(3, func(int) value { return ticks(uint64(f.now.Sub(f.start) / (10 * time.Millisecond))) }),
		always(4, func(int) value { return text("") }),
		always(5, func(int) value { return text(f.host) }),
		always(6, func(int) value { return text("") }),
		always(7, func(int) value { return integer(4) })) // internet layer
}

func interfaceCount(f *facts) table {
	return scalars(mibIf, always(1, func(int) value { return integer(len(f.net.Links)) }))
}

func linksByIndex(f *facts) ([]status.Link, []oid) {
	list := slices.Clone(f.net.Links)
	slices.SortFunc(list, func(a, b status.Link) int { return cmp.Compare(a.Index, b.Index) })
	rows := make([]oid, len(list))
	for i, l := range list {
		rows[i] = oid{uint32(l.Index)}
	}
	return list, rows
}

func interfaces(f *facts) table {
	l, rows := linksByIndex(f)
	up := func(b bool) value { return choice(b) }
	return table{mibIf.with(2, 1), []column{
		always(1, func(i int) value { return integer(l[i].Index) }),
		always(2, func(i int) value { return text(l[i].Name) }),
		always(3, func(i int) value {
			switch l[i].Kind {
			case "loopback":
				return integer(24)
			case "vlan":
				return integer(135)
			case "bond":
				return integer(161)
			}
			return integer(6)
		}),
		always(4, func(i int) value { return integer(l[i].MTU) }),
		always(5, func(i int) value { return unsigned(uint64(max(l[i].Speed, 0)) * 1_000_000) }),
		always(6, func(i int) value { return octets(macOf(l[i].MAC)) }),
		always(7, func(i int) value { return up(l[i].Up) }),
		always(8, func(i int) value { return up(l[i].Up && l[i].Carrier) }),
		always(10, func(i int) value { return counter32(l[i].RxBytes) }),
		always(11, func(i int) value { return counter32(l[i].RxPackets) }),
		always(13, func(i int) value { return counter32(l[i].RxDropped) }),
		always(14, func(i int) value { return counter32(l[i].RxErrors) }),
		always(16, func(i int) value { return counter32(l[i].TxBytes) }),
		always(17, func(i int) value { return counter32(l[i].TxPackets) }),
		always(19, func(i int) value { return counter32(l[i].TxDropped) }),
		always(20, func(i int) value { return counter32(l[i].TxErrors) }),
	}, rows}
}

func interfacesX(f *facts) table {
	l, rows := linksByIndex(f)
	return table{mibIfX, []column{
		always(1, func(i int) value { return text(l[i].Name) }),
		always(6, func(i int) value { return counter64(l[i].RxBytes) }),
		always(7, func(i int) value { return counter64(l[i].RxPackets) }),
		always(10, func(i int) value { return counter64(l[i].TxBytes) }),
		always(11, func(i int) value { return counter64(l[i].TxPackets) }),
		always(15, func(i int) value { return unsigned(uint64(max(l[i].Speed, 0))) }),
	}, rows}
}

func macOf(s string) []byte {
	var out []byte
	for _, part := range strings.Split(s, ":") {
		if len(part) != 2 {
			return nil
		}
		hi, lo := strings.IndexByte("0123456789abcdef", part[0]), strings.IndexByte("0123456789abcdef", part[1])
		if hi < 0 || lo < 0 {
			return nil
		}
		out = append(out, byte(hi<<4|lo))
	}
	return out
}

func (f *facts) linkIndex(name string) int {
	for _, l := range f.net.Links {
		if l.Name == name {
			return l.Index
		}
	}
	return 0
}
