package bind

import (
	"net/netip"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/configs/syntax"
)

// finishInstance resolves the defaults of an instance, in keepalived's order,
// and corrects what does not fit together.
func (b *binder) finishInstance(n *syntax.Node, r *raw) model.Instance {
	in, d := &r.Instance, &b.defaults
	at := func(what string) model.Pos {
		if p, ok := b.places["instance/"+in.Name+"/"+what]; ok {
			return p
		}
		return n.Pos
	}
	strict := pick(d.strict, r.strict)
	in.Strict = strict
	b.family(n, r)
	if in.Version == 0 {
		in.Version = d.version
		if in.IPv6 {
			in.Version = 3
		}
	} else if in.IPv6 && in.Version == 2 {
		b.warn(r.versionAt, "delete the line", "%s: IPv6 needs version 3, which is used", in.Name)
		in.Version = 3
	}

	if !r.prioritySet {
		in.Priority = 100
		if in.State == model.StateMaster && !r.brokenPriority {
			in.Priority = 255
			b.note(n.Pos, "write priority N", "%s has state MASTER and no priority: 255 is used, as keepalived does", in.Name)
		}
	}
	owner := in.Priority == 255
	if !r.stateSet {
		if owner {
			in.State = model.StateMaster
		}
	} else if strict && (in.State == model.StateMaster) != owner {
		b.warn(n.Pos, "write state BACKUP", "%s: strict mode starts as MASTER only with priority 255", in.Name)
		in.State = model.StateBackup
		if owner {
			in.State = model.StateMaster
		}
	}
	b.authentication(r)

	if in.VRID == 0 && !r.brokenVRID {
		b.fail(n.Pos, "add virtual_router_id N, 1…255 and the same on both boxes", "%s has no virtual_router_id", in.Name)
	}
	if _, given := b.places["instance/"+in.Name+"/interface"]; !given && !(in.Unicast && in.SrcIP.IsValid()) {
		b.fail(n.Pos, "add interface NAME", "%s has no interface", in.Name)
	}
	if strict && in.Unicast {
		b.fail(n.Pos, "delete vrrp_strict, or the unicast_peer block", "%s: strict mode does not allow unicast peers", in.Name)
	}
	if in.UnicastFaultNoPeer && !r.unicastBlock {
		b.note(n.Pos, "add unicast_peer { … }", "%s: unicast_fault_no_peer without peers: the instance stays in fault", in.Name)
	}

	if owner && in.NoPreempt {
		b.warn(at("nopreempt"), "delete nopreempt", "%s: nopreempt does not go with priority 255 and is ignored", in.Name)
		in.NoPreempt = false
	}
	if in.State == model.StateMaster {
		if in.NoPreempt {
			b.warn(at("nopreempt"), "write state BACKUP on both boxes", "%s: nopreempt has no effect with state MASTER", in.Name)
			in.NoPreempt = false
		}
		if in.PreemptDelay != 0 {
			b.warn(at("preempt_delay"), "write state BACKUP on both boxes", "%s: preempt_delay has no effect with state MASTER", in.Name)
			in.PreemptDelay = 0
		}
	}
	if in.PreemptDelay != 0 && (strict || in.NoPreempt) {
		b.warn(at("preempt_delay"), "delete preempt_delay", "%s: preempt_delay does not go with %s and is ignored", in.Name, either(strict, "strict mode", "nopreempt"))
		in.PreemptDelay = 0
	}

	if !r.accept && !in.NoAccept && strict {
		in.NoAccept = !owner
	} else if r.accept && strict && !owner && in.Version == 2 {
		b.warn(n.Pos, "delete accept", "%s: strict mode with version 2 does not allow accept", in.Name)
		in.NoAccept = true
	}
	if strict && in.NoAccept {
		b.note(n.Pos, "", "%s: under keepalived strict mode makes the box silent on its VIPs, for ping and for virtual servers; here virtual servers answer", in.Name)
	}

	in.DownTimerAdverts = d.downAdverts
	if r.downAdverts > 0 {
		in.DownTimerAdverts = r.downAdverts
	}
	if strict {
		in.DownTimerAdverts = 3
	}
	in.GARPMasterDelay = orDuration(r.garpDelay, d.garpDelay)
	in.GARPMasterRepeat = orInt(r.garpRepeat, d.garpRepeat)
	in.GARPMasterRefresh = orDuration(r.garpRefresh, d.garpRefresh)
	in.GARPMasterRefreshRepeat = orInt(r.refreshRepeat, d.garpRefreshRepeat)
	in.GARPLowerPrioDelay = orDuration(r.lowerDelay, d.lowerDelay)
	in.GARPLowerPrioRepeat = orInt(r.lowerRepeat, d.lowerRepeat)
	in.GARPInterval, in.GNAInterval = d.garpGap, d.gnaGap
	in.LowerPrioNoAdvert = pick(d.lowerNoAdvert, r.lowerNo)
	in.HigherPrioSendAdvert = pick(d.higherSend, r.higherSend)
	if strict {
		in.GARPLowerPrioDelay, in.GARPLowerPrioRepeat = 0, 0
		in.LowerPrioNoAdvert, in.HigherPrioSendAdvert = true, false
	}
	in.CheckUnicastSrc = pick(d.checkUnicast, r.checkUnicast)
	in.SkipCheckAdvAddr = pick(d.skipCheck, r.skip)
	in.ChecksumNoPseudo = pick(d.checksumNoPseudo, r.checksum)
	in.OwnerIgnoreAdverts = pick(d.ownerIgnore, r.ownerIgnore) || strict && r.ownerIgnore != model.Off
	in.NotifyPriorityChanges = pick(d.priorityChanges, r.changes)
	in.GARPExtra, in.GARPExtraAll = d.extra, d.extraAll
	if r.extra >= 0 {
		in.GARPExtra, in.GARPExtraAll = r.extra, r.extraAll
	}
	if in.GARPExtra == 0 {
		in.GARPExtraAll = false
	}
	in.SMTPAlert = pick(false, r.mail, b.cfg.Global.SMTPAlertVRRP, b.cfg.Global.SMTPAlert)
	if !in.SrcIP.IsValid() {
		in.TrackSrcIP = false
	}
	b.advertInt(in, at("advert_int"))
	b.finishVMAC(n, r)
	b.finishHMAC(r)
	b.vips(n, r)
	in.TrackInterfaces = slices.DeleteFunc(in.TrackInterfaces, func(t model.TrackInterface) bool {
		own := t.Interface == in.Interface && !in.DontTrackPrimary
		if own {
			b.note(b.places["track_interface/"+t.Interface], "delete the line", "%s: its own interface %s is tracked anyway; the line is ignored, as keepalived does", in.Name, t.Interface)
		}
		return own
	})
	if in.Priority == 255 && weighted(in) {
		b.note(n.Pos, "write a priority below 255", "%s: weights do not count with priority 255", in.Name)
	}
	return *in
}

// weighted says whether any tracker moves the priority.
func weighted(in *model.Instance) bool {
	return slices.ContainsFunc(in.TrackScripts, func(t model.TrackScript) bool { return t.Weight != 0 }) ||
		slices.ContainsFunc(in.TrackInterfaces, func(t model.TrackInterface) bool { return t.Weight != 0 }) ||
		slices.ContainsFunc(slices.Concat(in.TrackFiles, in.TrackProcesses, in.TrackBFD), func(t model.Track) bool { return t.Weight != 0 })
}

func either(c bool, yes, no string) string {
	if c {
		return yes
	}
	return no
}

func orDuration(v, def time.Duration) time.Duration {
	if v < 0 {
		return def
	}
	return v
}

func orInt(v, def int) int {
	if v < 0 {
		return def
	}
	return v
}

// family decides between IPv4 and IPv6: the first VIP says, then the source,
// then the first peer. What is of the other family is refused.
func (b *binder) family(n *syntax.Node, r *raw) {
	in := &r.Instance
	switch {
	case len(r.vips) > 0:
		in.IPv6 = r.vips[0].Prefix.Addr().Is6()
	case in.SrcIP.IsValid():
		in.IPv6 = in.SrcIP.Is6()
	case len(in.Peers) > 0:
		in.IPv6 = in.Peers[0].Addr.Is6()
	case in.McastGroup.IsValid():
		in.IPv6 = in.McastGroup.Is6()
	}
	name := either(in.IPv6, "IPv6", "IPv4")
	if in.SrcIP.IsValid() && in.SrcIP.Is6() != in.IPv6 {
		b.fail(b.places["instance/"+in.Name+"/src"], "", "%s is an %s instance, and its source address %s is not", in.Name, name, in.SrcIP)
		in.SrcIP = netip.Addr{}
	}
	in.Peers = slices.DeleteFunc(in.Peers, func(p model.Peer) bool {
		wrong := p.Addr.Is6() != in.IPv6
		if wrong {
			b.fail(n.Pos, "", "%s is an %s instance, and its peer %s is not", in.Name, name, p.Addr)
		}
		return wrong
	})
	// Without peers keepalived falls back to multicast, unless told not to.
	in.Unicast = len(in.Peers) > 0 || in.UnicastFaultNoPeer
	if in.McastGroup.IsValid() && in.McastGroup.Is6() != in.IPv6 {
		b.fail(lineOf(n, "mcast_dst_ip"), "", "%s is an %s instance, and its mcast_dst_ip %s is not", in.Name, name, in.McastGroup)
		in.McastGroup = netip.Addr{}
	}
	if !in.McastGroup.IsValid() {
		in.McastGroup = b.defaults.group4
		if in.IPv6 {
			in.McastGroup = b.defaults.group6
		}
	}
}

func (b *binder) authentication(r *raw) {
	in := &r.Instance
	if r.authAt.Line == 0 {
		return
	}
	switch {
	case r.authType == "" && r.pass == nil:
	case r.Strict:
		b.warn(r.authAt, "delete the authentication block", "%s: strict mode has no authentication; the block is ignored", in.Name)
	case in.Version == 3:
		b.warn(r.authAt, "delete the authentication block", "%s: VRRP version 3 has no authentication; the block is ignored", in.Name)
	case r.authType == "":
		b.warn(r.authAt, "add auth_type PASS", "%s: a password without auth_type is ignored", in.Name)
	case r.pass == nil:
		b.warn(r.authAt, "add auth_pass PASSWORD", "%s: auth_type without auth_pass is ignored", in.Name)
	case r.hmac != nil:
		b.fail(r.authAt, "leave one of the blocks", "%s: authentication and auth_hmac do not go together", in.Name)
	default:
		in.AuthPass, in.AuthAH = r.pass, r.authType == "AH"
	}
}

// advertInt rounds the interval to what the protocol can carry.
func (b *binder) advertInt(in *model.Instance, at model.Pos) {
	step, most := time.Second, 255*time.Second
	if in.Version == 3 {
		step, most = 10*time.Millisecond, 40950*time.Millisecond
	}
	v := in.AdvertInt
	switch {
	case v > most:
		v = most
	case v%step != 0:
		v = max((v+step/2)/step*step, step)
	}
	if v != in.AdvertInt {
		b.warn(at, "write "+seconds3(v)+" on both boxes", "%s: version %d cannot carry advert_int %s; %s s is used", in.Name, in.Version, seconds3(in.AdvertInt), seconds3(v))
		in.AdvertInt = v
	}
}

// vipLines are the lines of virtual_ipaddress, good or not.
func vipLines(n *syntax.Node) (out []*syntax.Node) {
	for _, l := range n.Children {
		if l.Name() == "virtual_ipaddress" {
			out = append(out, l.Children...)
		}
	}
	return out
}

// vips sorts the addresses out: family, duplicates, number.
func (b *binder) vips(n *syntax.Node, r *raw) {
	in := &r.Instance
	seen := map[netip.Addr]bool{}
	keep := func(list []placed, same bool) []model.Address {
		var out []model.Address
		for _, a := range list {
			addr := a.Prefix.Addr()
			if same && addr.Is6() != in.IPv6 {
				b.fail(a.at, "write it into virtual_ipaddress_excluded", "%s: %s is not of the family of the first address, and is not carried", in.Name, addr)
				continue
			}
			if seen[addr] {
				b.warn(a.at, "delete one of them", "%s: %s is listed twice; the second is ignored", in.Name, addr)
				continue
			}
			seen[addr] = true
			if a.Interface == "" {
				a.Interface = in.Interface
			}
			b.places["instance/"+in.Name+"/vip/"+addr.String()] = a.at
			out = append(out, a.Address)
		}
		return out
	}
	in.VIPs = keep(r.vips, true)
	in.ExcludedVIPs = keep(r.excluded, false)
	if len(in.VIPs) > 255 {
		b.warn(n.Pos, "move them to virtual_ipaddress_excluded", "%s has %d addresses; an advertisement carries 255, the rest is held but not advertised", in.Name, len(in.VIPs))
		in.ExcludedVIPs = append(slices.Clone(in.VIPs[255:]), in.ExcludedVIPs...)
		in.VIPs = in.VIPs[:255]
	}
	switch {
	case len(in.VIPs) > 0:
		if first := in.VIPs[0].Prefix.Addr(); in.IPv6 && !in.Unicast && !first.IsLinkLocalUnicast() {
			b.note(n.Pos, "", "%s: RFC 9568 wants a link-local address first in an IPv6 instance; %s is not", in.Name, first)
		}
	case r.noVIPs || len(r.vips) > 0 || len(vipLines(n)) > 0: // faulty lines have their errors
	case in.Version == 3 || in.Strict:
		b.fail(n.Pos, "add virtual_ipaddress { … }", "%s has no virtual addresses, and version 3 needs one", in.Name)
	default:
		b.warn(n.Pos, "add virtual_ipaddress { … }", "%s has no virtual addresses", in.Name)
	}
	for i := range in.VirtualRoutes {
		if in.VirtualRoutes[i].Interface == "" && in.VirtualRoutes[i].Via.IsValid() && in.VirtualRoutes[i].Via.IsLinkLocalUnicast() {
			in.VirtualRoutes[i].Interface = in.Interface
		}
	}
}
