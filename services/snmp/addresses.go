package snmp

import (
	"net/netip"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// addrType is InetAddressType: ipv4(1), ipv6(2).
func addrType(a netip.Addr) value {
	if a.Is4() {
		return integer(1)
	}
	return integer(2)
}

func address(a netip.Addr) value { return octets(a.AsSlice()) }

func addresses(f *facts) table {
	type row struct {
		a              model.Address
		set, advertise bool
	}
	var rows []oid
	var list []row
	add := func(instance int, as []model.Address, set, advertise bool, from int) int {
		for _, a := range as {
			from++
			rows = append(rows, oid{uint32(instance), uint32(from)})
			list = append(list, row{a, set, advertise})
		}
		return from
	}
	add(0, f.conf.StaticAddrs, true, false, 0)
	for i, c := range f.conf.Instances {
		master := f.instance(c.Name).State == status.VRRPMaster
		n := add(i+1, c.VIPs, master, true, 0)
		add(i+1, c.ExcludedVIPs, master, false, n)
	}
	return table{mibVRRP.with(6, 1), []column{
		always(2, func(i int) value { return addrType(list[i].a.Prefix.Addr()) }),
		always(3, func(i int) value { return address(list[i].a.Prefix.Addr()) }),
		column{4, func(i int) (value, bool) { return address(list[i].a.Broadcast), list[i].a.Broadcast.IsValid() }},
		always(5, func(i int) value { return unsigned(uint64(list[i].a.Prefix.Bits())) }),
		always(6, func(i int) value { // InetScopeType: link-local(2), site-local(5), global(14)
			switch list[i].a.Scope {
			case 253:
				return integer(2)
			case 200:
				return integer(5)
			}
			return integer(14)
		}),
		always(7, func(i int) value { return integer(f.linkIndex(list[i].a.Interface)) }),
		always(8, func(i int) value { return text(list[i].a.Interface) }),
		column{9, func(i int) (value, bool) { return text(list[i].a.Label), list[i].a.Label != "" }},
		always(10, func(i int) value { return choice(list[i].set) }),
		always(11, func(i int) value { return choice(list[i].advertise) }),
	}, rows}
}
