package snmp

import (
	"net/netip"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// servers is the view on virtual and real servers: configuration, verdicts and
// kernel put side by side.
type servers struct {
	f     *facts
	list  []virtualServer
	reals []realServer
}

type virtualServer struct {
	c     *model.VirtualServer
	h     *status.VirtualServerHealth // nil: not known
	stats status.Stats
	up    int // real servers
}

type realServer struct {
	index   oid
	c       *model.RealServer
	sorry   bool
	weight  int
	alive   bool
	failed  int
	dest    status.Dest
	inhibit bool
}

func newServers(f *facts) *servers {
	s := &servers{f: f}
	verdicts := map[string]*status.VirtualServerHealth{}
	for i := range f.health.Servers {
		verdicts[f.health.Servers[i].Name] = &f.health.Servers[i]
	}
	kernel := map[string][]status.Service{}
	for _, k := range f.ipvs.Services {
		kernel[k.VirtualServer] = append(kernel[k.VirtualServer], k)
	}
	for i := range f.conf.VirtualServers {
		c := &f.conf.VirtualServers[i]
		v := virtualServer{c: c, h: verdicts[c.Name]}
		dests := map[netip.AddrPort]status.Dest{}
		for _, k := range kernel[c.Name] {
			add(&v.stats, k.Stats)
			for _, d := range k.Dests {
				key := netip.AddrPortFrom(d.Addr, d.Port)
				sum, had := dests[key]
				if !had {
					dests[key] = d
					continue
				}
				add(&sum.Stats, d.Stats) // one real server of a group
				sum.Active += d.Active
				sum.Inactive += d.Inactive
				sum.Persistent += d.Persistent
				dests[key] = sum
			}
		}
		for j := range c.Real {
			r := realServer{index: oid{uint32(i + 1), uint32(j + 1)}, c: &c.Real[j], alive: true, weight: c.Real[j].Weight, inhibit: c.Real[j].InhibitOnFailure}
			if v.h != nil {
				for _, h := range v.h.Real {
					if h.Addr != r.c.Addr || h.Port != r.c.ConfPort {
						continue
					}
					r.alive = h.Alive
					if h.Weight >= 0 {
						r.weight = h.Weight
					}
					for _, ch := range h.Checks {
						if ch.Known && !ch.Up {
							r.failed++
						}
					}
				}
			}
			if d, ok := dests[netip.AddrPortFrom(r.c.Addr, r.c.Port)]; ok {
				r.dest, r.weight = d, d.Weight
			}
			if r.alive {
				v.up++
			}
			s.reals = append(s.reals, r)
		}
		if c.Sorry != nil {
			r := realServer{index: oid{uint32(i + 1), uint32(len(c.Real) + 1)}, c: c.Sorry, sorry: true, weight: c.Sorry.Weight, inhibit: c.SorryInhibit}
			if d, ok := dests[netip.AddrPortFrom(c.Sorry.Addr, c.Sorry.Port)]; ok && d.Sorry {
				r.dest, r.alive = d, true
			}
			s.reals = append(s.reals, r)
		}
		s.list = append(s.list, v)
	}
	return s
}

func add(sum *status.Stats, s status.Stats) {
	sum.Conns += s.Conns
	sum.InPackets += s.InPackets
	sum.OutPackets += s.OutPackets
	sum.InBytes += s.InBytes
	sum.OutBytes += s.OutBytes
	sum.CPS += s.CPS
	sum.InPPS += s.InPPS
	sum.OutPPS += s.OutPPS
	sum.InBPS += s.InBPS
	sum.OutBPS += s.OutBPS
}

// schedulers are the numbers of virtualServerLoadBalancingAlgo.
var schedulers = map[string]int{"rr": 1, "wrr": 2, "lc": 3, "wlc": 4, "lblc": 5, "lblcr": 6, "dh": 7, "sh": 8, "sed": 9, "nq": 10, "fo": 11, "ovf": 12}

// kind of a virtual server: fwmark(1), ip(2), group(3).
func kindOf(c *model.VirtualServer) int {
	switch {
	case len(c.Services) == 0 || len(c.Services) > 1 || c.Name != c.Services[0].String():
		return 3
	case c.Services[0].Mark != 0:
		return 1
	}
	return 2
}

func groupName(c *model.VirtualServer) string {
	name := strings.TrimPrefix(c.Name, "[")
	if i := strings.LastIndex(name, "]"); i >= 0 {
		name = name[:i]
	}
	return name
}

func protocol(c *model.VirtualServer) value {
	if len(c.Services) > 0 && c.Services[0].Protocol == model.UDP {
		return integer(2)
	}
	return integer(1)
}

func (v *virtualServer) quorumUp() bool { return v.h == nil || v.h.QuorumUp }

func forward(f model.Forward) value { return integer(int(f) + 1) } // nat(1), dr(2), tun(3)

func (s *servers) virtual() table {
	v := s.list
	is := func(kind int) func(int) bool { return func(i int) bool { return kindOf(v[i].c) == kind } }
	when := func(num uint32, has func(int) bool, get func(int) value) column {
		return column{num, func(i int) (value, bool) {
			if !has(i) {
				return value{}, false
			}
			return get(i), true
		}}
	}
	ip, mark, group := is(2), is(1), is(3)
	persistent := func(i int) bool { return v[i].c.Persistence > 0 }
	v6 := func(i int) bool {
		return len(v[i].c.Services) > 0 && (v[i].c.Services[0].IPv6 || v[i].c.Services[0].Addr.Is6())
	}
	flag := func(name string) func(int) value {
		return func(i int) value { return choice(slices.Contains(v[i].c.SchedFlags, name)) }
	}
	columns := []column{
		always(2, func(i int) value { return integer(kindOf(v[i].c)) }),
		when(3, group, func(i int) value { return text(groupName(v[i].c)) }),
		when(4, mark, func(i int) value { return unsigned(uint64(v[i].c.Services[0].Mark)) }),
		when(5, ip, func(i int) value { return addrType(v[i].c.Services[0].Addr) }),
		when(6, ip, func(i int) value { return address(v[i].c.Services[0].Addr) }),
		when(7, ip, func(i int) value { return unsigned(uint64(v[i].c.Services[0].Port)) }),
		always(8, func(i int) value { return protocol(v[i].c) }),
		always(9, func(i int) value {
			if n, ok := schedulers[v[i].c.Scheduler]; ok {
				return integer(n)
			}
			return integer(99)
		}),
		always(10, func(i int) value { return forward(v[i].c.Forward) }),
		always(11, func(i int) value { return choice(v[i].up > 0) }),
		always(13, func(i int) value { return choice(persistent(i)) }),
		when(14, persistent, func(i int) value { return unsigned(uint64(v[i].c.Persistence.Seconds())) }),
		when(15, func(i int) bool { return persistent(i) && !v6(i) }, func(i int) value { return octets(mask(v[i].c.Granularity)) }),
		always(17, func(i int) value { return choice(v[i].c.HASuspend) }),
		always(18, func(i int) value { return choice(v[i].c.Alpha) }),
		always(19, func(i int) value { return choice(v[i].c.Omega) }),
		always(20, func(i int) value { return unsigned(uint64(len(v[i].c.Real))) }),
		always(21, func(i int) value { return unsigned(uint64(v[i].up)) }),
		always(22, func(i int) value { return unsigned(uint64(max(v[i].c.Quorum, 0))) }),
		always(23, func(i int) value { return choice(v[i].quorumUp()) }),
		commandColumn(24, func(i int) model.Command { return v[i].c.QuorumUp }),
		commandColumn(25, func(i int) model.Command { return v[i].c.QuorumDown }),
		always(26, func(i int) value { return unsigned(uint64(max(v[i].c.Hysteresis, 0))) }),
	}
	columns = append(columns, counters(27, func(i int) *status.Stats { return &v[i].stats })...)
	columns = append(columns, always(37, func(i int) value { return choice(v[i].c.OnePacket) }))
	columns = append(columns, counters64(38, func(i int) *status.Stats { return &v[i].stats })...)
	columns = append(columns,
		when(51, func(i int) bool { return persistent(i) && v6(i) }, func(i int) value { return unsigned(uint64(v[i].c.Granularity)) }),
		always(52, flag("hashed")), always(53, flag("sh-fallback")), always(54, flag("sh-port")), always(55, flag("flag-3")))
	return table{mibCheck.with(3, 1), columns, rowsOf(len(v))}
}

func mask(bits int) []byte {
	m := make([]byte, 4)
	for i := range min(bits, 32) {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// counters are the ten columns of connections, packets, bytes and rates from
// num on.
func counters(num uint32, of func(i int) *status.Stats) []column {
	return []column{
		always(num, func(i int) value { return unsigned(of(i).Conns) }),
		always(num+1, func(i int) value { return counter32(of(i).InPackets) }),
		always(num+2, func(i int) value { return counter32(of(i).OutPackets) }),
		always(num+3, func(i int) value { return counter64(of(i).InBytes) }),
		always(num+4, func(i int) value { return counter64(of(i).OutBytes) }),
		always(num+5, func(i int) value { return unsigned(of(i).CPS) }),
		always(num+6, func(i int) value { return unsigned(of(i).InPPS) }),
		always(num+7, func(i int) value { return unsigned(of(i).OutPPS) }),
		always(num+8, func(i int) value { return unsigned(of(i).InBPS) }),
		always(num+9, func(i int) value { return unsigned(of(i).OutBPS) }),
	}
}

// counters64 are the three wide counters and the five rates in halves from num on.
func counters64(num uint32, of func(i int) *status.Stats) []column {
	out := []column{
		always(num, func(i int) value { return counter64(of(i).Conns) }),
		always(num+1, func(i int) value { return counter64(of(i).InPackets) }),
		always(num+2, func(i int) value { return counter64(of(i).OutPackets) }),
	}
	for j, rate := range []func(*status.Stats) uint64{
		func(s *status.Stats) uint64 { return s.CPS }, func(s *status.Stats) uint64 { return s.InPPS }, func(s *status.Stats) uint64 { return s.OutPPS },
		func(s *status.Stats) uint64 { return s.InBPS }, func(s *status.Stats) uint64 { return s.OutBPS },
	} {
		at := num + 3 + uint32(2*j)
		out = append(out,
			always(at, func(i int) value { return unsigned(rate(of(i)) & 0xffffffff) }),
			always(at+1, func(i int) value { return unsigned(rate(of(i)) >> 32) }))
	}
	return out
}

func (s *servers) real() table {
	r := s.reals
	rows := make([]oid, len(r))
	for i := range r {
		rows[i] = r[i].index
	}
	columns := []column{
		always(2, func(i int) value { return choice(!r[i].sorry) }), // regular(1), sorry(2)
		always(3, func(i int) value { return addrType(r[i].c.Addr) }),
		always(4, func(i int) value { return address(r[i].c.Addr) }),
		always(5, func(i int) value { return unsigned(uint64(r[i].c.ConfPort)) }),
		always(6, func(i int) value { return choice(r[i].alive) }),
		always(7, func(i int) value { return integer(r[i].weight) }),
		always(8, func(i int) value { return unsigned(uint64(r[i].c.UThreshold)) }),
		always(9, func(i int) value { return unsigned(uint64(r[i].c.LThreshold)) }),
		always(10, func(i int) value { return choice(!r[i].inhibit) }), // remove(1), inhibit(2)
		commandColumn(11, func(i int) model.Command { return r[i].c.NotifyUp }),
		commandColumn(12, func(i int) model.Command { return r[i].c.NotifyDown }),
		always(13, func(i int) value { return unsigned(uint64(r[i].failed)) }),
		always(14, func(i int) value { return unsigned(r[i].dest.Stats.Conns) }),
		always(15, func(i int) value { return unsigned(uint64(r[i].dest.Active)) }),
		always(16, func(i int) value { return unsigned(uint64(r[i].dest.Inactive)) }),
		always(17, func(i int) value { return unsigned(uint64(r[i].dest.Persistent)) }),
	}
	of := func(i int) *status.Stats { return &r[i].dest.Stats }
	columns = append(columns, counters(17, of)[1:]...) // 18 to 26
	columns = append(columns, counters64(27, of)...)
	columns = append(columns, always(40, func(i int) value { return forward(r[i].c.Forward) }))
	return table{mibCheck.with(4, 1), columns, rows}
}
