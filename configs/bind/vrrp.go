package bind

import (
	"net/netip"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// raw is what an instance block says, before the defaults.
type raw struct {
	model.Instance
	prioritySet, stateSet, accept                             bool
	authType                                                  string
	authAt                                                    model.Pos
	pass                                                      []byte
	noVIPs, unicastBlock                                      bool
	garpDelay, garpRefresh, lowerDelay                        time.Duration // -1: not set
	garpRepeat, refreshRepeat, lowerRepeat, downAdverts       int           // -1: not set
	lowerNo, higherSend, checkUnicast, skip, strict, checksum model.Tristate
	mail, ownerIgnore, changes                                model.Tristate
	extra                                                     time.Duration // garp_extra_if; -1: not set
	extraAll                                                  bool
	vmacAt, xmitBase                                          model.Pos // of the lines; nowhere: not set
	hmac                                                      *syntax.Node
	vips, excluded                                            []placed
	peer                                                      map[netip.Addr]bool
	brokenVRID, brokenPriority                                bool
	versionAt                                                 model.Pos
}

type placed struct {
	model.Address
	at model.Pos
}

// vrrpInstance binds vrrp_instance.
func (b *binder) vrrpInstance(n *syntax.Node) {
	name := n.Arg(0)
	if _, twice := b.places["instance/"+name]; twice {
		b.warn(n.Pos, "rename one of them", "vrrp_instance %s is defined twice; this one is ignored, as keepalived does", quote(name))
		return
	}
	b.places["instance/"+name] = n.Pos
	r := raw{garpDelay: -1, garpRefresh: -1, lowerDelay: -1, garpRepeat: -1, refreshRepeat: -1, lowerRepeat: -1, downAdverts: -1, extra: -1, peer: map[netip.Addr]bool{}}
	r.Name = name
	r.AdvertInt = time.Second
	for _, l := range n.Children { // a wrong value must not count as a missing one
		switch l.Name() {
		case "virtual_router_id":
			r.brokenVRID = true
		case "priority":
			r.brokenPriority = true
		}
	}
	b.each("vrrp_instance", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		if !b.instanceLine(&r, k, l) {
			b.instanceMore(&r, k, l)
		}
	}, nil)
	// An instance with a fault is kept: the rest of the text is judged as if it
	// were there, and nothing with an error is ever applied.
	b.cfg.Instances = append(b.cfg.Instances, b.finishInstance(n, &r))
}

// instanceLine does the lines about identity and transport.
func (b *binder) instanceLine(r *raw, k *schema.Keyword, l *syntax.Node) bool {
	path := "instance/" + r.Name + "/"
	switch k.Name {
	case "state":
		r.stateSet = true
		r.State = model.StateBackup
		if l.Arg(0) == "MASTER" {
			r.State = model.StateMaster
		}
	case "interface":
		if b.ifname(l, 0, l.Arg(0)) {
			r.Interface = l.Arg(0)
		}
		b.places[path+"interface"] = l.ArgPos(0)
	case "virtual_router_id":
		r.VRID = uint8(number(l))
		b.places[path+"vrid"] = l.Pos
	case "priority":
		r.Priority, r.prioritySet = uint8(number(l)), true
	case "advert_int":
		r.AdvertInt = duration(l)
		b.places[path+"advert_int"] = l.Pos
	case "version":
		r.Version = number(l)
		r.versionAt = l.Pos
	case "preempt":
		r.NoPreempt = false
	case "nopreempt":
		r.NoPreempt = true
		b.places[path+"nopreempt"] = l.Pos
	case "preempt_delay":
		r.PreemptDelay = duration(l)
		b.places[path+"preempt_delay"] = l.Pos
	case "down_timer_adverts":
		r.downAdverts = number(l)
	case "mcast_src_ip", "unicast_src_ip":
		r.SrcIP, _ = schema.Addr(l.Arg(0))
		b.places[path+"src"] = l.ArgPos(0)
	case "mcast_dst_ip":
		r.McastGroup, _ = schema.Addr(l.Arg(0))
		if !r.McastGroup.IsMulticast() {
			b.fail(l.ArgPos(0), "write an address of 224.0.0.0/4 or ff00::/8", "%s is no multicast address", l.Arg(0))
			r.McastGroup = netip.Addr{}
		}
	case "track_src_ip":
		r.TrackSrcIP = true
	case "unicast_peer":
		r.unicastBlock = true
		for _, line := range l.Children {
			b.peers(r, line)
		}
	case "unicast_ttl":
		r.UnicastTTL = number(l)
	case "check_unicast_src":
		r.checkUnicast = tristate(l)
	case "skip_check_adv_addr":
		r.skip = model.On // keepalived turns it on whatever the value says
		if !truth(l) {
			b.note(l.Pos, "delete the line", "skip_check_adv_addr is on whatever the value says, as in keepalived")
		}
	case "authentication":
		r.authAt = l.Pos
		b.each("authentication", l.Children, func(k *schema.Keyword, l *syntax.Node) {
			if k.Name == "auth_type" {
				r.authType = l.Arg(0)
				r.authAt = l.Pos
				return
			}
			r.pass = []byte(l.Arg(0))
			if len(r.pass) > 8 {
				r.pass = r.pass[:8]
				b.note(l.ArgPos(0), "", "the password of %s is cut to its first 8 characters, which is all that VRRP carries", r.Name)
			}
		}, nil)
	case "auth_hmac":
		r.hmac = l
		b.authHMAC(r, l)
	case "unicast_fault_no_peer":
		r.UnicastFaultNoPeer = true
	case "old_unicast_checksum":
		if r.OldUnicastChecksum = l.Arg(0); r.OldUnicastChecksum == "" {
			r.OldUnicastChecksum = "on"
		}
	case "strict_mode":
		r.strict = tristate(l)
	default:
		return false
	}
	return true
}

// instanceMore does the lines about addresses, trackers, ARP and notices.
func (b *binder) instanceMore(r *raw, k *schema.Keyword, l *syntax.Node) {
	switch k.Name {
	case "virtual_ipaddress":
		for _, line := range l.Children {
			if a, ok := b.address(line, ""); ok {
				r.vips = append(r.vips, placed{a, line.Pos})
			}
		}
	case "virtual_ipaddress_excluded":
		for _, line := range l.Children {
			if a, ok := b.address(line, ""); ok {
				r.excluded = append(r.excluded, placed{a, line.Pos})
			}
		}
	case "no_virtual_ipaddress":
		r.noVIPs = true
	case "virtual_routes":
		for _, line := range l.Children {
			if route, ok := b.route(line.Words, line); ok {
				if route.Interface == "" && !route.NoTrack && route.Type == "" {
					b.note(line.Pos, "add dev INTERFACE", "the route to %s names no interface, so its loss is not noticed", route.Dst)
				}
				r.VirtualRoutes = append(r.VirtualRoutes, route)
			}
		}
	case "virtual_rules":
		for _, line := range l.Children {
			if rule, ok := b.rule(line); ok {
				r.VirtualRules = append(r.VirtualRules, rule)
			}
		}
	case "use_vmac", "use_ipvlan":
		b.vmac(r, l)
	case "use_vmac_addr":
		r.VMACAddr = true
	case "vmac_xmit_base":
		r.xmitBase = l.Pos
	case "promote_secondaries":
		r.PromoteSecondaries = true
	case "accept":
		r.accept, r.NoAccept = true, false
	case "no_accept":
		r.NoAccept = true
	case "dont_track_primary":
		r.DontTrackPrimary = true
	case "track_interface":
		r.TrackInterfaces = append(r.TrackInterfaces, b.trackInterfaces(l)...)
	case "track_script":
		r.TrackScripts = append(r.TrackScripts, scriptTracks(b.tracks(scripts, l))...)
	case "track_file":
		r.TrackFiles = append(r.TrackFiles, b.tracks(files, l)...)
	case "track_process":
		r.TrackProcesses = append(r.TrackProcesses, b.tracks(processes, l)...)
	case "track_bfd":
		r.TrackBFD = append(r.TrackBFD, b.tracks(sessions, l)...)
	case "lvs_sync_daemon_interface":
		if b.cfg.Global.SyncDaemon == nil {
			b.cfg.Global.SyncDaemon = &model.SyncDaemon{Interface: l.Arg(0), Instance: r.Name}
			b.defaults.syncPos = l.Pos
		}
		b.note(l.Pos, "write lvs_sync_daemon "+l.Arg(0)+" "+r.Name+" into global_defs", "lvs_sync_daemon_interface is the old form")
		b.mapped(l, "read as lvs_sync_daemon of global_defs")
	case "garp_master_delay":
		r.garpDelay = seconds(l)
	case "garp_master_repeat":
		r.garpRepeat = max(number(l), 1)
	case "garp_master_refresh":
		r.garpRefresh = seconds(l)
	case "garp_master_refresh_repeat":
		r.refreshRepeat = max(number(l), 1)
	case "garp_lower_prio_delay":
		r.lowerDelay = seconds(l)
	case "garp_lower_prio_repeat":
		r.lowerRepeat = number(l)
	case "lower_prio_no_advert":
		r.lowerNo = tristate(l)
	case "higher_prio_send_advert":
		r.higherSend = tristate(l)
	case "v3_checksum_as_v2":
		r.checksum = tristate(l)
	case "garp_extra_if":
		if all, d, ok := b.extraIf(l, 0); ok {
			r.extraAll, r.extra = all, d
		}
	case "owner_ignore_adverts":
		r.ownerIgnore = tristate(l)
	case "notify_priority_changes":
		r.changes = tristate(l)
	case "smtp_alert":
		r.mail = tristate(l)
	default:
		b.notify(&r.Notify, l, "instance/"+r.Name)
	}
}

// notify does the notify_* lines of an instance or a group.
func (b *binder) notify(to *model.Notify, l *syntax.Node, path string) {
	var c *model.Command
	switch l.Name() {
	case "notify_master":
		c = &to.Master
	case "notify_backup":
		c = &to.Backup
	case "notify_fault":
		c = &to.Fault
	case "notify_stop":
		c = &to.Stop
	case "notify_deleted":
		c, to.TellDeleted = &to.Deleted, true
	case "notify_master_rx_lower_pri":
		c = &to.MasterRxLowerPri
	case "notify":
		c = &to.Any
	}
	if c == nil || len(l.Words) < 2 {
		return
	}
	*c = b.command(l, false)
	if !c.IsZero() {
		b.places[path+"/"+l.Name()] = l.Pos
	}
}

// peers reads one line of unicast_peer: addresses, each with its TTL bounds.
func (b *binder) peers(r *raw, n *syntax.Node) {
	b.used(n)
	last := -1
	for i := 0; i < len(n.Words); i++ {
		w := n.Words[i].Text
		at := n.ArgPos(i - 1)
		if w == "min_ttl" || w == "max_ttl" {
			value := n.Arg(i)
			v, err := schema.Arg{Max: 255}.Int(value)
			if err != nil || last < 0 {
				b.fail(at, "write ADDRESS [min_ttl N] [max_ttl N]", "%s needs a number of 0…255 behind an address", w)
				return
			}
			if w == "min_ttl" {
				r.Peers[last].MinTTL = int(v)
			} else {
				r.Peers[last].MaxTTL = int(v)
			}
			if r.checkUnicast == model.Unset {
				r.checkUnicast = model.On
			}
			i++
			continue
		}
		a, err := schema.Addr(w)
		if err != nil {
			b.fail(at, "", "unicast_peer: %v", err)
			continue
		}
		if r.peer[a] {
			b.warn(at, "delete one of them", "peer %s is listed twice", a)
			continue
		}
		r.peer[a] = true
		r.Peers = append(r.Peers, model.Peer{Addr: a, MinTTL: -1, MaxTTL: -1})
		last = len(r.Peers) - 1
	}
}
