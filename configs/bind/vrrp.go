package bind

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// script binds vrrp_script.
func (b *binder) script(n *syntax.Node) {
	s := model.Script{Name: n.Arg(0), Interval: time.Second, Rise: 1, Fall: 1}
	if _, twice := b.scripts[s.Name]; twice {
		b.warn(n.Pos, "rename one of them", "vrrp_script %s is defined twice; this one is ignored", quote(s.Name))
		return
	}
	b.scripts[s.Name] = n.Pos
	b.each("vrrp_script", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "script":
			s.Command = b.command(l, true)
			b.places["script/"+s.Name] = l.Pos
		case "interval":
			s.Interval = duration(l)
		case "timeout":
			s.Timeout = duration(l)
		case "weight":
			s.Weight = number(l)
			s.Reverse = l.Arg(1) == "reverse"
		case "rise":
			s.Rise = number(l)
		case "raise":
			s.Rise = number(l)
			b.mapped(l, "read as rise")
			b.note(l.Pos, "write rise", "raise is read as rise; keepalived ignores it")
		case "fall":
			s.Fall = number(l)
		case "user":
			s.Command.User = b.user(l, l.Arg(0))
		case "init_fail":
			s.InitFail = true
		}
	}, nil)
	if s.Timeout == 0 {
		s.Timeout = s.Interval
	}
	if s.Command.IsZero() {
		b.fail(n.Pos, `add script "COMMAND"`, "vrrp_script %s has no command", quote(s.Name))
		delete(b.scripts, s.Name)
		return
	}
	b.scriptAt[s.Name] = len(b.cfg.Scripts)
	b.cfg.Scripts = append(b.cfg.Scripts, s)
}

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
	mail                                                      model.Tristate
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
	r := raw{garpDelay: -1, garpRefresh: -1, lowerDelay: -1, garpRepeat: -1, refreshRepeat: -1, lowerRepeat: -1, downAdverts: -1, peer: map[netip.Addr]bool{}}
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
	if in, ok := b.finishInstance(n, &r); ok {
		b.cfg.Instances = append(b.cfg.Instances, in)
	}
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
		b.each("auth_hmac", l.Children, func(*schema.Keyword, *syntax.Node) {}, nil)
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
	case "accept":
		r.accept, r.NoAccept = true, false
	case "no_accept":
		r.NoAccept = true
	case "dont_track_primary":
		r.DontTrackPrimary = true
	case "track_interface":
		r.TrackInterfaces = append(r.TrackInterfaces, b.trackInterfaces(l, 253)...)
	case "track_script":
		r.TrackScripts = append(r.TrackScripts, b.trackScripts(l)...)
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
		c = &to.Deleted
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
	b.use(n, Works, "")
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

// trackLine reads "NAME [weight N [reverse|noreverse]]".
func (b *binder) trackLine(n *syntax.Node, limit float64) (weight int, reverse, set, ok bool) {
	args := n.Args()
	for i := 0; i < len(args); i++ {
		switch args[i].Text {
		case "weight":
			v, err := schema.Arg{Min: -limit, Max: limit}.Int(n.Arg(i + 1))
			if err != nil {
				b.fail(n.ArgPos(i+1), "write NAME weight N, with N of "+itoa(-int(limit))+"…"+itoa(int(limit)), "weight: %v", err)
				return 0, false, false, false
			}
			weight, set = int(v), true
			i++
		case "reverse":
			reverse = true
		case "noreverse":
			reverse = false
		default:
			b.warn(n.ArgPos(i), "write one name a line: NAME [weight N [reverse]]", "unknown word %s, ignored", quote(args[i].Text))
		}
	}
	return weight, reverse, set, true
}

func (b *binder) trackInterfaces(l *syntax.Node, limit float64) []model.TrackInterface {
	var out []model.TrackInterface
	seen := map[string]bool{}
	for _, line := range l.Children {
		b.use(line, Works, "")
		w, rev, _, ok := b.trackLine(line, limit+1) // ±254 is an old form that keepalived still takes
		if !ok || !b.ifname(line, -1, line.Name()) {
			continue
		}
		if seen[line.Name()] {
			b.warn(line.Pos, "delete one of them", "interface %s is tracked twice", line.Name())
			continue
		}
		seen[line.Name()] = true
		b.places["track_interface/"+line.Name()] = line.Pos
		out = append(out, model.TrackInterface{Interface: line.Name(), Weight: max(-253, min(253, w)), Reverse: rev})
	}
	return out
}

func (b *binder) trackScripts(l *syntax.Node) []model.TrackScript {
	var out []model.TrackScript
	seen := map[string]bool{}
	for _, line := range l.Children {
		name := line.Name()
		w, rev, set, ok := b.trackLine(line, 253)
		if !ok {
			b.use(line, Unknown, "")
			continue
		}
		at, known := b.scripts[name]
		if !known {
			b.use(line, Unknown, "")
			fix := b.meant(name, func() []string { return slices.Sorted(maps.Keys(b.scripts)) }, "define it with vrrp_script "+name+" { … }")
			b.warn(line.Pos, fix, "there is no vrrp_script %s; it is not tracked, as in keepalived", quote(name))
			continue
		}
		b.use(line, Works, "")
		if at.File == line.Pos.File && at.Line > line.Pos.Line {
			b.note(line.Pos, "move vrrp_script "+name+" above", "vrrp_script %s is defined below (line %d): keepalived would not track it, here it counts", quote(name), at.Line)
			b.mapped(line, "tracked, though it is defined below")
		}
		if seen[name] {
			b.warn(line.Pos, "delete one of them", "script %s is tracked twice", name)
			continue
		}
		seen[name] = true
		if !set {
			s := &b.cfg.Scripts[b.scriptAt[name]]
			w, rev = s.Weight, s.Reverse != rev
		}
		out = append(out, model.TrackScript{Script: name, Weight: w, Reverse: rev})
	}
	return out
}
