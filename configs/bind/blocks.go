package bind

import (
	"maps"
	"path"
	"slices"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// garpGroup binds garp_group.
func (b *binder) garpGroup(n *syntax.Node) {
	var g model.GARPGroup
	one := false
	add := func(l *syntax.Node, arg int, name string) {
		if !b.ifname(l, arg, name) {
			return
		}
		if b.garpOf[name] {
			b.warn(l.ArgPos(arg), "leave it in one garp_group", "interface %s is in a garp_group already; the first one counts", name)
			return
		}
		b.garpOf[name] = true
		g.Interfaces = append(g.Interfaces, name)
	}
	b.each("garp_group", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "garp_interval":
			g.GARPInterval = duration(l)
		case "gna_interval":
			g.GNAInterval = duration(l)
		case "interface":
			if len(g.Interfaces) > 0 {
				b.warn(l.Pos, "write interfaces { IF … } for more than one", "garp_group: interface %s comes after other interfaces and is ignored, as in keepalived", quote(l.Arg(0)))
				return
			}
			one = true
			add(l, 0, l.Arg(0))
		case "interfaces":
			if one {
				b.warn(l.Pos, "write all of them into interfaces { IF … }", "garp_group: interfaces does not go with interface; the block is ignored, as in keepalived")
				return
			}
			for _, line := range l.Children {
				b.used(line)
				for i, w := range line.Words {
					add(line, i-1, w.Text)
				}
			}
		}
	}, nil)
	switch {
	case len(g.Interfaces) == 0:
		b.warn(n.Pos, "add interface IF", "the garp_group names no interface and does nothing")
	case g.GARPInterval == 0 && g.GNAInterval == 0:
		b.warn(n.Pos, "add garp_interval SECONDS", "the garp_group has no interval and does nothing")
	default:
		b.cfg.GARPGroups = append(b.cfg.GARPGroups, g)
	}
}

// trackGroup binds track_group. Its members are looked at when all instances
// are known.
func (b *binder) trackGroup(n *syntax.Node) {
	g := model.TrackGroup{Name: n.Arg(0)}
	if _, twice := b.places["track_group/"+g.Name]; twice {
		b.warn(n.Pos, "rename one of them", "track_group %s is defined twice; this one is ignored, as keepalived does", quote(g.Name))
		return
	}
	b.places["track_group/"+g.Name] = n.Pos
	b.each("track_group", n.Children, func(_ *schema.Keyword, l *syntax.Node) {
		for _, line := range l.Children {
			b.used(line)
			for i, w := range line.Words {
				if slices.Contains(g.Instances, w.Text) {
					continue
				}
				b.places["track_group/"+g.Name+"/"+w.Text] = line.ArgPos(i - 1)
				g.Instances = append(g.Instances, w.Text)
			}
		}
	}, nil)
	if len(g.Instances) == 0 {
		b.warn(n.Pos, "add group { INSTANCE … }", "track_group %s has no members and is ignored", quote(g.Name))
		return
	}
	b.cfg.TrackGroups = append(b.cfg.TrackGroups, g)
}

// finishTrackGroups drops members that are no instance.
func (b *binder) finishTrackGroups() {
	index := map[string]bool{}
	for _, in := range b.cfg.Instances {
		index[in.Name] = true
	}
	var out []model.TrackGroup
	for _, g := range b.cfg.TrackGroups {
		g.Instances = slices.DeleteFunc(g.Instances, func(name string) bool {
			if index[name] {
				return false
			}
			fix := b.meant(name, func() []string { return slices.Sorted(maps.Keys(index)) }, "define it, or delete it from the group")
			b.warn(b.places["track_group/"+g.Name+"/"+name], fix, "track_group %s: there is no vrrp_instance %s; it is left out, as keepalived does", quote(g.Name), quote(name))
			return true
		})
		if len(g.Instances) > 0 {
			out = append(out, g)
		}
	}
	b.cfg.TrackGroups = out
}

// linkDelays binds interface_up_down_delays: IF DOWN [UP], a line each.
func (b *binder) linkDelays(n *syntax.Node) {
	for _, l := range n.Children {
		b.used(l)
		d := model.LinkDelay{Interface: l.Name()}
		if !b.ifname(l, -1, d.Interface) {
			continue
		}
		if l.Arg(0) == "" {
			b.fail(l.Pos, "write INTERFACE DOWN [UP], seconds", "interface_up_down_delays: %s has no delay", d.Interface)
			continue
		}
		delay := schema.Arg{Max: 255}
		var err error
		if d.Down, err = delay.Timer(l.Arg(0)); err != nil {
			b.fail(l.ArgPos(0), "write INTERFACE DOWN [UP], seconds", "interface_up_down_delays: %v", err)
			continue
		}
		if l.Arg(1) != "" {
			if d.Up, err = delay.Timer(l.Arg(1)); err != nil {
				b.fail(l.ArgPos(1), "write INTERFACE DOWN [UP], seconds", "interface_up_down_delays: %v", err)
				continue
			}
		}
		if slices.ContainsFunc(b.cfg.LinkDelays, func(o model.LinkDelay) bool { return o.Interface == d.Interface }) {
			b.warn(l.Pos, "delete one of them", "interface_up_down_delays: %s is listed twice; the first line counts", d.Interface)
			continue
		}
		b.places["link_delay/"+d.Interface] = l.Pos
		b.cfg.LinkDelays = append(b.cfg.LinkDelays, d)
	}
}

// ssl binds the SSL block.
func (b *binder) ssl(n *syntax.Node) {
	s := &b.cfg.SSL
	b.each("SSL", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		file := func(to *string) {
			if !path.IsAbs(l.Arg(0)) {
				b.fail(l.ArgPos(0), "write the whole path", "SSL: %s %s is no absolute path", k.Name, quote(l.Arg(0)))
				return
			}
			*to = l.Arg(0)
		}
		switch k.Name {
		case "password":
			s.Password = l.Arg(0)
		case "ca":
			file(&s.CA)
			b.places["ssl/ca"] = l.Pos
		case "certificate":
			file(&s.Certificate)
		case "key":
			file(&s.Key)
		}
	}, nil)
	if (s.Certificate == "") != (s.Key == "") {
		b.fail(n.Pos, "write certificate FILE and key FILE", "SSL: a certificate and its key go together")
	}
}
