package vrrp

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/heartbeat"
	"ballast/services/vrrp/kernel"
	"ballast/services/vrrp/packet"
)

// router is one instance: its machine, and what surrounds it.
type router struct {
	s    *service
	cfg  model.Instance
	core core.Config // of the machine
	st   core.State

	timers [core.Timers]time.Duration // 0: off
	due    time.Duration              // the queue's: no timer is earlier
	slot   int                        // in the queue, from 1; 0: not in it
	number int                        // in the configuration
	fx     []core.Effect

	sock  *sock
	link  *kernel.Link // of cfg.Interface; nil: not there
	vlink *kernel.Link // of use_vmac or use_ipvlan; nil: not configured, or not there
	below *sock        // on a virtual MAC: the socket of link, which joined the group
	frame []byte       // on a virtual MAC: what goes out
	src   netip.Addr
	addrs []byte // the advertised addresses as they go into a packet
	mem   memory
	buf   []byte
	ipID  uint16

	stand    []int         // slots of its advertisements at the pacer, by destination
	key      heartbeat.Key // as the peer box knows it
	vacant   bool          // was master last and left with priority 0
	claiming bool          // master, its addresses are being set
	leaving  leaving       // a hand-over is under way
	pending  core.Event    // leaveYield: the advertisement to yield to
	rivals   [4]rival

	group     *group
	trust     bool // adopted: a script without a result does not count yet
	deafUntil time.Duration
	faults    []string
	trackers  []status.Tracker
	trouble   string // addresses that could not be set
	paths     paths
	burst     *burst        // announcements on their way; nil: none
	early     bool          // the first round of announcements is out already
	extraAt   time.Duration // when garp_extra_if announced last

	stats     status.VRRPStats
	evidence  evidence
	reason    string
	wish      string // grouped: why it asked its group to go master
	cause     string // grouped: what another member did
	since     time.Time
	lastLog   time.Duration
	lastEvent time.Duration // MASTER_RX_LOWER_PRI told
}

func newRouter(s *service, c *model.Instance) *router {
	r := &router{s: s, fx: make([]core.Effect, 0, 16), since: time.Now()}
	r.configure(c)
	return r
}

// configure takes over a configuration, without a word to the machine.
func (r *router) configure(c *model.Instance) {
	r.mem.settle(c, &r.cfg)
	r.cfg, r.key = *c, keyOf(c)
	r.addrs = r.addrs[:0:0]
	for i, v := range c.VIPs {
		if i == packet.MaxAddrs {
			break // the binder made them excluded ones already
		}
		r.addrs = packet.AppendAddr(r.addrs, v.Prefix.Addr())
	}
	if need := packet.IPv4HeaderLen + packet.AHLen + 16 + len(r.addrs) + packet.TrailerLen; cap(r.buf) < need {
		r.buf = make([]byte, 0, need)
	}
	r.core = r.coreConfig()
}

// coreConfig is what the machine needs of an instance.
func (r *router) coreConfig() core.Config {
	c := &r.cfg
	return core.Config{
		Version: c.Version, Addr: r.src, Priority: c.Priority, AdvertInt: max(c.AdvertInt, 10*time.Millisecond),
		DownAdverts: max(c.DownTimerAdverts, 1), NoPreempt: c.NoPreempt, PreemptDelay: c.PreemptDelay, Learn: r.s.learn,
		Unicast: c.Unicast, Grouped: r.group != nil,
		GARPDelay: c.GARPMasterDelay, GARPRepeat: c.GARPMasterRepeat,
		GARPRefresh: c.GARPMasterRefresh, GARPRefreshRepeat: max(c.GARPMasterRefreshRepeat, 1),
		GARPLowerPrioDelay: c.GARPLowerPrioDelay, GARPLowerPrioRepeat: c.GARPLowerPrioRepeat,
		LowerPrioNoAdvert: c.LowerPrioNoAdvert, HigherPrioSendAdvert: c.HigherPrioSendAdvert,
	}
}

// step lets the machine see an event and does what it says.
func (r *router) step(ev core.Event) {
	ev.At = r.s.now
	before, master, priority := r.st.Phase, r.st.MasterAddr, r.st.MasterPriority
	var why core.Reason
	r.st, r.fx, why = core.Step(r.st, ev, r.fx[:0])
	if !r.speaks() {
		r.s.stand.clear(r) // before anybody hears that we left
	}
	if before == core.Master && r.st.Phase == core.Fault && r.linkGone() && r.s.mate != nil {
		r.vacant = true
		r.s.mate.sayNow() // nobody reaches our addresses there: no need to remove them first
	}
	if before != core.Master && r.st.Phase == core.Master {
		r.tookOver(why)
	}
	if r.claiming = before != core.Master && r.st.Phase == core.Master; r.claiming && r.s.mate != nil {
		r.s.mate.sayNow() // the peer that is being relieved waits while the addresses are set
	}
	for _, e := range r.fx {
		switch e.Do {
		case core.SendAdvert:
			r.vacant = e.Priority == 0
			r.advertise(e.Priority)
		case core.SetTimer:
			r.timers[e.Timer] = e.At
			r.s.queue.sooner(r, e.At)
		case core.StopTimer:
			r.timers[e.Timer] = 0
		case core.AddVIPs:
			r.addVIPs()
		case core.RemoveVIPs:
			r.s.dropBurst(r)
			r.removeVIPs()
		case core.Announce:
			r.s.announce(r, e.N)
		case core.AnnounceSelf:
			r.s.announceSelf(r)
		case core.SawLowerPriority:
			r.sawLowerPriority(why)
		case core.AskGroup:
			r.group.core.Asked()
			r.s.restive = true
			r.wish = why.String()
			r.group.takeover = takeover(why.Code)
		}
	}
	r.claiming = false
	if master != r.st.MasterAddr || priority != r.st.MasterPriority {
		r.s.dirty = true
	}
	if before != r.st.Phase {
		r.s.queue.sooner(r, r.extraDue())
		r.changed(before, why)
	} else if why.Code != core.Nothing {
		r.remark(why)
	}
}

// changed tells of a new state.
func (r *router) changed(before core.Phase, why core.Reason) {
	switch {
	case r.st.Phase == core.Master:
		r.stats.BecomeMaster++
	case before == core.Master:
		r.stats.ReleaseMaster++
	}
	r.reason = why.String()
	switch why.Code {
	case core.FaultEntered:
		r.reason = strings.Join(r.faults, "; ")
	case core.GroupWentMaster, core.GroupWentBackup:
		r.reason = r.groupReason(why)
	}
	r.wish, r.cause = "", ""
	r.since = r.s.loop.Time(r.s.now)
	to := r.st.Phase.String()
	if why.Code == core.Stopped {
		to = status.VRRPStop
	}
	r.s.transition(status.Transition{
		Time: r.since, Object: r.cfg.Name, Kind: "instance",
		From: before.String(), To: to, Reason: r.reason, Priority: int(r.st.Effective),
	})
	r.s.log.info("%s: %s -> %s: %s", r.cfg.Name, strings.ToLower(before.String()), strings.ToLower(to), r.reason)
	if r.group != nil {
		r.group.member(r, why)
	}
}

// remark logs what changed no state, not more than once in ten seconds.
func (r *router) remark(why core.Reason) {
	if why.Code == core.PreemptWait || why.Code == core.PreemptLearn || why.Code == core.PreemptStop {
		r.s.dirty = true // "explain vrrp" tells of it
	}
	if r.lastLog != 0 && r.s.now-r.lastLog < 10*time.Second {
		return
	}
	r.lastLog = r.s.now
	text := why.String()
	if why.Code == core.LowerPriority && !r.cfg.LowerPrioNoAdvert {
		text += ", forcing new election"
	}
	r.s.log.info("%s: %s", r.cfg.Name, text)
	r.s.dirty = true
}

// sawLowerPriority is the event MASTER_RX_LOWER_PRI, at most one a second.
func (r *router) sawLowerPriority(why core.Reason) {
	if r.lastEvent != 0 && r.s.now-r.lastEvent < time.Second {
		return
	}
	r.lastEvent = r.s.now
	r.s.transition(status.Transition{
		Time: r.s.loop.Time(r.s.now), Object: r.cfg.Name, Kind: "instance",
		From: status.VRRPMaster, To: "MASTER_RX_LOWER_PRI", Reason: why.String(), Priority: int(r.st.Effective),
	})
}

// lateness counts own timers that fired too late to be trusted.
func (r *router) lateness(late time.Duration) {
	if late > r.st.MasterDown()/2 {
		r.stats.LateTimers++
		r.s.dirty = true
	}
	r.stats.MaxLate = max(r.stats.MaxLate, late)
}

// advertise sends one advertisement, to the group or to each peer.
func (r *router) advertise(priority uint8) {
	if r.sock == nil || !r.src.IsValid() {
		r.s.stand.clear(r)
		return
	}
	if r.ipID++; r.ipID == 0 {
		r.ipID = 1 // the kernel fills in a 0
	}
	if r.mem.ah != nil {
		r.mem.nextSeq(time.Now()) // one for all peers
	}
	if priority == 0 {
		r.stats.PriZeroSent++
	}
	r.stats.AdvertSent++
	if !r.cfg.Unicast {
		r.send(0, priority, r.cfg.McastGroup, 255)
		r.s.stand.trim(r, 1)
		return
	}
	hops := r.cfg.UnicastTTL
	if hops == 0 {
		hops = 255
		if r.cfg.IPv6 {
			hops = -1 // the kernel's default, as keepalived
		}
	}
	n := 0
	for i := range r.cfg.Peers {
		if r.cfg.Peers[i].Addr != r.src { // a file that both boxes share may list both
			r.send(n, priority, r.cfg.Peers[i].Addr, hops)
			n++
		}
	}
	r.s.stand.trim(r, n)
}

// send sends an advertisement to its n-th destination.
func (r *router) send(n int, priority uint8, dst netip.Addr, hops int) {
	a := packet.Advert{
		Version: uint8(r.cfg.Version), VRID: r.cfg.VRID, Priority: priority, IPv6: r.cfg.IPv6,
		AdvertInt: r.core.AdvertInt, Addrs: r.addrs, AuthType: authType(&r.cfg),
	}
	if a.AuthType == packet.AuthPass {
		a.Auth = r.mem.auth
	}
	b := r.buf[:0]
	switch {
	case r.cfg.IPv6:
	case r.mem.ah != nil:
		b = packet.AppendIPv4(b, packet.ProtocolAH, r.ipID, uint8(hops), r.src, dst, packet.AHLen+a.Len())
		b = packet.AppendAH(b, r.src, r.mem.seq)
	default:
		size := a.Len()
		if r.mem.hmac.signs() {
			size += packet.TrailerLen
		}
		b = packet.AppendIPv4(b, packet.Protocol, r.ipID, uint8(hops), r.src, dst, size)
	}
	start, sumDst := len(b), dst
	if r.mem.oldSum && r.cfg.Unicast && !r.cfg.IPv6 {
		sumDst = r.cfg.McastGroup
	}
	b = a.Append(b, r.src, sumDst, r.cfg.ChecksumNoPseudo)
	if r.mem.hmac.signs() {
		b = r.mem.hmac.append(b, start, &a, r.src, dst, time.Now())
	}
	if r.mem.ah != nil {
		r.mem.ah.Sign(b, r.cfg.Unicast)
	}
	r.buf = b
	if err := r.transmit(b, dst, hops); err != nil {
		r.stats.SendErr++
		r.s.log.limitedRouter(r, "advertisement to %s: %v", dst, err)
		return // the pacer tries again
	}
	r.s.stand.sent(r, n, b, dst, hops)
}

// bind finds the interface, the source address and the socket.
func (r *router) bind() (missing string) {
	c := &r.cfg
	r.link = nil
	if c.Interface != "" {
		r.link = r.s.links[c.Interface]
		if r.link == nil {
			r.s.detach(r)
			return fmt.Sprintf("interface %s is not there", c.Interface)
		}
	}
	if missing := r.bindVirtual(); missing != "" {
		r.s.detach(r)
		return missing
	}
	src, missing := r.source()
	r.src = src
	key := sockKey{ipv6: c.IPv6, ah: r.mem.ah != nil}
	name := ""
	if r.link != nil && (!c.Unicast || c.IPv6 && src.IsLinkLocalUnicast()) {
		key.index, name = r.link.Index, r.link.Name
	} else if !c.Unicast {
		r.s.detach(r)
		return "no interface is configured"
	}
	if err := r.s.attach(r, key, name); err != nil {
		r.s.detach(r)
		return err.Error()
	}
	return missing
}

// source is the address that advertisements come from: the configured one, or
// the first address of the interface that is not virtual; for IPv6 its
// link-local address.
func (r *router) source() (netip.Addr, string) {
	c := &r.cfg
	if c.SrcIP.IsValid() {
		for _, a := range r.s.addrs {
			if a.Prefix.Addr() != c.SrcIP {
				continue
			}
			if !a.Usable() {
				return c.SrcIP, fmt.Sprintf("source address %s has not passed duplicate address detection", c.SrcIP)
			}
			return c.SrcIP, ""
		}
		if c.TrackSrcIP || c.IPv6 {
			return c.SrcIP, fmt.Sprintf("source address %s is on no interface", c.SrcIP)
		}
		return c.SrcIP, "" // our own IPv4 header carries it, as keepalived's does
	}
	if r.link == nil {
		return netip.Addr{}, "neither interface nor unicast_src_ip is configured"
	}
	var second netip.Addr
	tentative := false
	for _, a := range r.s.addrs {
		addr := a.Prefix.Addr()
		if a.Index != r.link.Index || addr.Is4() == c.IPv6 || a.Proto == status.AddrProtoVIP || r.s.virtual(addr) {
			continue
		}
		if c.IPv6 && !addr.IsLinkLocalUnicast() {
			continue
		}
		if !a.Usable() {
			tentative = true
			continue
		}
		if !a.Secondary() {
			return addr, ""
		}
		if !second.IsValid() {
			second = addr
		}
	}
	switch {
	case second.IsValid():
		return second, ""
	case tentative:
		return netip.Addr{}, fmt.Sprintf("the link-local address of %s has not passed duplicate address detection", c.Interface)
	case c.IPv6:
		return netip.Addr{}, fmt.Sprintf("interface %s has no link-local IPv6 address", c.Interface)
	}
	return netip.Addr{}, fmt.Sprintf("interface %s has no IPv4 address", c.Interface)
}
