// Package ipvs owns the IPVS table of a director: its services and
// destinations, the connection sync daemons and the connection timeouts. It
// is the only writer of them.
//
// Compile turns a configuration into a Plan, Desired turns plan, beliefs about
// real servers and VRRP roles into a Table, Diff compares that with what the
// kernel holds and gives ordered operations. All three are pure. A reconciler
// runs them over what changed, trusting what it last read of the rest; a sweep
// reads the whole table again and again, a slice at a time, and so finds what
// somebody else did to it. The table is never flushed, and nothing is deleted
// to be added again where an edit will do.
package ipvs

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// Plan is what a configuration says about IPVS, in the kernel's terms. It is
// never changed once it is made: the next one shares with it what is the same.
type Plan struct {
	Virtual  []*Virtual // in the order of the file
	Daemon   *Daemon
	Timeouts ipvsnl.Timeouts // 0: leave

	names  map[string]int             // places in Virtual
	owners map[model.ServiceID]string // names of virtual servers
	err    error                      // what of the configuration the kernel would refuse
}

// Virtual is one virtual server.
type Virtual struct {
	Name     string
	Services []ipvsnl.Service // of one group: they share the real servers
	Quorum   int64
	Real     []Real
	Sorry    *Real
	// SorryInhibit keeps the sorry server at weight 0 while it is not needed.
	SorryInhibit bool

	conf *model.VirtualServer // that it was made of
}

// Real is one real server, or a sorry server.
type Real struct {
	Dest     ipvsnl.Dest // with the configured weight
	ConfPort uint16      // the port that health names it by
	Alpha    bool        // absent until a check succeeded
	Inhibit  bool        // weight 0 instead of removal when down
	Checked  bool        // has health checks
	Dynamic  bool        // a check sets its weight (misc_dynamic)
}

// Daemon is lvs_sync_daemon.
type Daemon struct {
	ipvsnl.Daemon        // Role is left open
	Instance      string // empty: both roles at all times
}

// Compile translates a configuration. Errors name everything that the kernel
// would refuse; the plan then lacks those objects and is usable.
func Compile(c *model.Config) (*Plan, error) {
	p := compile(nil, c, listed(c))
	return p, p.err
}

// listed is the list of virtual servers that package follow gives with a
// configuration.
func listed(c *model.Config) []*model.VirtualServer {
	list := make([]*model.VirtualServer, len(c.VirtualServers))
	for i := range list {
		list[i] = &c.VirtualServers[i]
	}
	return list
}

// Next is Compile for a configuration that came out of that of p, with its
// virtual servers as list: one that is the very same in memory is as it was.
func (p *Plan) Next(c *model.Config, list []*model.VirtualServer) *Plan {
	if p == nil || p.err != nil {
		return compile(nil, c, list) // who is at fault may be another one now
	}
	return compile(p, c, list)
}

// same returns the virtual server that vs was translated to before, nil: it is
// another one now. It is expected at i.
func (p *Plan) same(i int, vs *model.VirtualServer) *Virtual {
	if p == nil {
		return nil
	}
	if i < len(p.Virtual) && p.Virtual[i].conf == vs {
		return p.Virtual[i]
	}
	if i = p.place(i, vs.Name); i >= 0 && p.Virtual[i].conf == vs {
		return p.Virtual[i]
	}
	return nil
}

// like reports whether two virtual servers are the same services.
func (v *Virtual) like(w *Virtual) bool {
	return v == w || v.Name == w.Name && slices.EqualFunc(v.Services, w.Services, func(a, b ipvsnl.Service) bool { return a.ID == b.ID })
}

func compile(old *Plan, c *model.Config, list []*model.VirtualServer) *Plan {
	p := &Plan{Virtual: make([]*Virtual, 0, len(list))}
	var errs []error
	fail := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }

	for _, vs := range list {
		if len(vs.Real) == 0 && vs.Sorry == nil {
			continue // as keepalived: a service that nobody can serve is left out
		}
		v := old.same(len(p.Virtual), vs)
		if v == nil {
			var err error
			if v, err = virtual(vs); err != nil {
				errs = append(errs, err)
			}
		}
		if len(v.Services) > 0 {
			p.Virtual = append(p.Virtual, v)
		}
	}
	if old != nil && slices.EqualFunc(p.Virtual, old.Virtual, (*Virtual).like) {
		p.names, p.owners = old.names, old.owners
	} else if err := p.index(); err != nil {
		errs = append(errs, err)
	}
	p.rest(c, fail)
	p.err = errors.Join(errs...)
	return p
}

// index finds out who owns which service, and takes those away that belong to
// a virtual server before.
func (p *Plan) index() error {
	n := len(p.Virtual)
	p.names, p.owners = make(map[string]int, n), make(map[model.ServiceID]string, n)
	list := p.Virtual
	p.Virtual = make([]*Virtual, 0, n)
	var errs []error
	for _, v := range list {
		for j := 0; j < len(v.Services); j++ {
			s := &v.Services[j]
			other, dup := p.owners[s.ID]
			if !dup {
				p.owners[s.ID] = v.Name
				continue
			}
			errs = append(errs, fmt.Errorf("virtual server %s: service %s belongs to virtual server %s already; remove one of them", v.Name, s.ID, other))
			less := *v // v may be in use in the plan before
			less.Services = slices.Delete(slices.Clone(v.Services), j, j+1)
			v = &less
			j--
		}
		if len(v.Services) == 0 {
			continue
		}
		p.names[v.Name] = len(p.Virtual)
		p.Virtual = append(p.Virtual, v)
	}
	return errors.Join(errs...)
}

// rest translates what is no virtual server.
func (p *Plan) rest(c *model.Config, fail func(string, ...any)) {
	if d := c.Global.SyncDaemon; d != nil {
		p.Daemon = &Daemon{Instance: d.Instance, Daemon: ipvsnl.Daemon{
			Interface: d.Interface, ID: uint32(d.ID), MaxLen: d.MaxLen, Port: d.Port, TTL: d.TTL, Group: d.Group,
		}}
		if n := len(d.Interface); n == 0 || n > 15 {
			fail("lvs_sync_daemon: interface name %q is not 1 to 15 bytes long", d.Interface)
			p.Daemon = nil
		}
	}
	for _, t := range []struct {
		name string
		from time.Duration
		to   *uint32
	}{
		{"tcp", c.Global.Timeouts.TCP, &p.Timeouts.TCP},
		{"tcpfin", c.Global.Timeouts.TCPFin, &p.Timeouts.TCPFin},
		{"udp", c.Global.Timeouts.UDP, &p.Timeouts.UDP},
	} {
		s := t.from / time.Second
		if s < 0 || s > math.MaxInt32/1000 { // the kernel counts in jiffies, at most 1,000 a second
			fail("lvs_timeouts: %s %s is out of range 1 s to %d s", t.name, t.from, math.MaxInt32/1000)
			continue
		}
		*t.to = uint32(s)
	}
}

// virtual translates one virtual server. It lacks what the error names.
func virtual(vs *model.VirtualServer) (*Virtual, error) {
	var errs []error
	v := &Virtual{Name: vs.Name, Quorum: int64(vs.Quorum), SorryInhibit: vs.SorryInhibit, conf: vs,
		Services: make([]ipvsnl.Service, 0, len(vs.Services)), Real: make([]Real, 0, len(vs.Real))}
	for _, id := range vs.Services {
		s, err := service(vs, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("virtual server %s: %w", vs.Name, err))
			continue
		}
		v.Services = append(v.Services, s)
	}
	if len(v.Services) == 0 {
		return v, errors.Join(errs...)
	}
	for j := range vs.Real {
		r, err := real(v, &vs.Real[j])
		if err != nil {
			errs = append(errs, fmt.Errorf("virtual server %s: real server %s port %d: %w", vs.Name, vs.Real[j].Addr, vs.Real[j].Port, err))
			continue
		}
		v.Real = append(v.Real, r)
	}
	v.Real = firstOnes(v.Real)
	if vs.Sorry != nil {
		r, err := real(v, vs.Sorry)
		if err != nil {
			errs = append(errs, fmt.Errorf("virtual server %s: sorry server %s port %d: %w", vs.Name, vs.Sorry.Addr, vs.Sorry.Port, err))
		} else {
			v.Sorry = &r
		}
	}
	return v, errors.Join(errs...)
}

// firstOnes drops real servers whose address and port came before: the first
// of two counts, as in keepalived, which only warns.
func firstOnes(rs []Real) []Real {
	sorted := slices.IsSortedFunc(rs, func(a, b Real) int { return ipvsnl.CompareDest(a.Dest, b.Dest) })
	if sorted {
		return slices.CompactFunc(rs, func(a, b Real) bool { return key(a.Dest) == key(b.Dest) })
	}
	seen := make(map[netip.AddrPort]bool, len(rs))
	return slices.DeleteFunc(rs, func(r Real) bool {
		k := key(r.Dest)
		was := seen[k]
		seen[k] = true
		return was
	})
}

// service translates one service of vs.
func service(vs *model.VirtualServer, id model.ServiceID) (ipvsnl.Service, error) {
	id = ipvsnl.Canonical(id)
	s := ipvsnl.Service{ID: id, Scheduler: vs.Scheduler, PE: vs.PersistenceEngine}
	if id.Mark == 0 {
		if !id.Addr.IsValid() {
			return s, errors.New("neither address nor mark")
		}
		if id.Protocol != model.TCP && id.Protocol != model.UDP && id.Protocol != model.SCTP {
			return s, fmt.Errorf("service %s: protocol %d is none of TCP, UDP, SCTP", id, id.Protocol)
		}
	}
	if n := len(s.Scheduler); n == 0 || n > 15 {
		return s, fmt.Errorf("service %s: scheduler %q", id, s.Scheduler)
	}
	if len(s.PE) > 15 {
		return s, fmt.Errorf("service %s: persistence engine %q", id, s.PE)
	}
	for _, f := range vs.SchedFlags {
		switch f {
		case "flag-1", "sh-fallback", "mh-fallback":
			s.Flags |= ipvsnl.FlagSched1
		case "flag-2", "sh-port", "mh-port":
			s.Flags |= ipvsnl.FlagSched2
		case "flag-3":
			s.Flags |= ipvsnl.FlagSched3
		case "hashed": // the kernel's own mark: it sets it itself
		default:
			return s, fmt.Errorf("service %s: scheduler flag %q", id, f)
		}
	}
	if vs.OnePacket {
		s.Flags |= ipvsnl.FlagOnePacket
	}
	if vs.Persistence > 0 {
		s.Flags |= ipvsnl.FlagPersistent
		s.Timeout = uint32(min((vs.Persistence+time.Second-1)/time.Second, math.MaxInt32/1000))
		switch v6 := ipvsnl.Family(id); {
		case v6 && (vs.Granularity < 1 || vs.Granularity > 128):
			// A group of both families has one granularity: what cannot be is the whole address.
			s.Netmask = 128
		case v6:
			s.Netmask = uint32(vs.Granularity)
		case vs.Granularity < 0 || vs.Granularity > 32:
			s.Netmask = math.MaxUint32
		default:
			s.Netmask = mask4(vs.Granularity)
		}
	}
	return s, nil
}

// mask4 is the IPv4 mask of n leading ones, 0..32.
func mask4(n int) uint32 { return ^uint32(math.MaxUint32 >> n) }

// prefix4 is the length of an IPv4 mask, -1 if it is not a prefix.
func prefix4(m uint32) int {
	n := bits.LeadingZeros32(^m)
	if m != mask4(n) {
		return -1
	}
	return n
}

// real translates one real server of v.
func real(v *Virtual, r *model.RealServer) (Real, error) {
	out := Real{
		ConfPort: r.ConfPort,
		Inhibit:  r.InhibitOnFailure,
		Checked:  len(r.Checks) > 0,
		Dest: ipvsnl.Dest{
			Addr: r.Addr.Unmap().WithZone(""), Port: r.Port, Weight: int32(r.Weight),
			UThreshold: r.UThreshold, LThreshold: r.LThreshold,
		},
	}
	for i := range r.Checks {
		out.Alpha = out.Alpha || r.Checks[i].Alpha
		out.Dynamic = out.Dynamic || r.Checks[i].Dynamic
	}
	switch {
	case !r.Addr.IsValid():
		return out, errors.New("no address")
	case r.Weight < 0 || r.Weight > math.MaxInt32:
		return out, fmt.Errorf("weight %d is out of range 0 to %d", r.Weight, math.MaxInt32)
	case r.LThreshold > r.UThreshold && r.UThreshold != 0, r.LThreshold != 0 && r.UThreshold == 0:
		return out, fmt.Errorf("lthreshold %d is more than uthreshold %d", r.LThreshold, r.UThreshold)
	}
	switch r.Forward {
	case model.NAT:
		out.Dest.Forward = ipvsnl.ForwardNAT
	case model.DR:
		out.Dest.Forward = ipvsnl.ForwardDR
	case model.TUN:
		out.Dest.Forward = ipvsnl.ForwardTUN
		if err := tunnel(&out.Dest, r.Tunnel); err != nil {
			return out, err
		}
	default:
		return out, fmt.Errorf("forwarding method %d", r.Forward)
	}
	for i := range v.Services {
		if id := v.Services[i].ID; ipvsnl.Family(id) != out.Dest.Addr.Is6() && r.Forward != model.TUN {
			return out, fmt.Errorf("its address family differs from that of service %s, which only lb_kind TUN allows", id)
		}
	}
	return out, nil
}

func tunnel(d *ipvsnl.Dest, t model.Tunnel) error {
	switch t.Type {
	case "", "ipip":
		if t.Csum == "csum" || t.Csum == "remcsum" {
			return fmt.Errorf("tunnel type ipip has no %s", t.Csum)
		}
		return nil
	case "gue":
		d.TunnelType, d.TunnelPort = ipvsnl.TunnelGUE, t.Port
		if t.Port == 0 {
			return errors.New("tunnel type gue needs a port")
		}
	case "gre":
		d.TunnelType = ipvsnl.TunnelGRE
		if t.Csum == "remcsum" {
			return errors.New("tunnel type gre has no remcsum")
		}
	default:
		return fmt.Errorf("tunnel type %q is none of ipip, gue, gre", t.Type)
	}
	switch t.Csum {
	case "", "nocsum":
	case "csum":
		d.TunnelFlags = ipvsnl.TunnelCsum
	case "remcsum":
		d.TunnelFlags = ipvsnl.TunnelRemCsum
	default:
		return fmt.Errorf("tunnel checksum %q is none of nocsum, csum, remcsum", t.Csum)
	}
	return nil
}

// key names a destination within its service.
func key(d ipvsnl.Dest) netip.AddrPort { return netip.AddrPortFrom(d.Addr, d.Port) }

func compareKey(a, b netip.AddrPort) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Port(), b.Port())
}

// sortEntries puts a table into canonical order.
func sortEntries(es []*Entry) {
	if !slices.IsSortedFunc(es, compareEntries) {
		slices.SortFunc(es, compareEntries)
	}
}

func compareEntries(a, b *Entry) int { return ipvsnl.CompareID(a.ID, b.ID) }
