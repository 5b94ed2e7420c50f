package bind

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// sync is a sync group until all instances are known.
type sync struct {
	model.SyncGroup
	pos     model.Pos
	at      map[string]model.Pos // members
	weights bool
}

// members notes a sync group's setting that the instances need to know early.
func (b *binder) members(n *syntax.Node) {
	for _, l := range n.Children {
		if l.Name() == "sync_group_tracking_weight" {
			b.weighted[n.Arg(0)] = true
		}
	}
}

func (b *binder) syncGroup(n *syntax.Node) {
	s := sync{pos: n.Pos, at: map[string]model.Pos{}, weights: b.weighted[n.Arg(0)]}
	s.Name = n.Arg(0)
	if _, twice := b.places["group/"+s.Name]; twice {
		b.warn(n.Pos, "rename one of them", "vrrp_sync_group %s is defined twice; this one is ignored", quote(s.Name))
		return
	}
	b.places["group/"+s.Name] = n.Pos
	mail, changes := model.Unset, model.Unset
	member := func(name string, pos model.Pos) {
		if _, twice := s.at[name]; twice {
			return
		}
		s.at[name] = pos
		s.Instances = append(s.Instances, name)
	}
	b.each("vrrp_sync_group", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "group":
			for _, line := range l.Children {
				b.used(line)
				for i, w := range line.Words {
					member(w.Text, line.ArgPos(i-1))
				}
			}
		case "track_interface":
			s.TrackInterfaces = append(s.TrackInterfaces, b.trackInterfaces(l)...)
		case "track_script":
			s.TrackScripts = append(s.TrackScripts, scriptTracks(b.tracks(scripts, l))...)
		case "track_file":
			s.TrackFiles = append(s.TrackFiles, b.tracks(files, l)...)
		case "track_process":
			s.TrackProcesses = append(s.TrackProcesses, b.tracks(processes, l)...)
		case "track_bfd":
			s.TrackBFD = append(s.TrackBFD, b.tracks(sessions, l)...)
		case "notify_priority_changes":
			changes = tristate(l)
		case "smtp_alert":
			mail = tristate(l)
		case "notify_master":
			b.notify(&s.Notify, l, "group/"+s.Name)
		}
	}, func(l *syntax.Node) bool {
		// Very old files list the members without the inner group { }.
		if !b.instance[l.Name()] || len(l.Words) > 1 || l.Block {
			return false
		}
		b.use(l, Mapped, "read as a member of the group")
		b.warn(l.Pos, "write group { "+l.Name()+" }", "sync group %s: %s stands outside group { }; it is taken as a member", s.Name, l.Name())
		member(l.Name(), l.Pos)
		return true
	})
	s.SMTPAlert = pick(false, mail, b.cfg.Global.SMTPAlertVRRP, b.cfg.Global.SMTPAlert)
	s.NotifyPriorityChanges = pick(b.defaults.priorityChanges, changes)
	b.syncs = append(b.syncs, s)
}

// finishSync checks the members of the groups, now that all are known.
func (b *binder) finishSync() {
	index := map[string]int{}
	for i, in := range b.cfg.Instances {
		index[in.Name] = i
	}
	taken := map[string]string{}
	for _, s := range b.syncs {
		s.Instances = slices.DeleteFunc(s.Instances, func(name string) bool {
			if _, known := index[name]; !known {
				fix := b.meant(name, func() []string { return slices.Sorted(maps.Keys(index)) }, "define it, or delete it from the group")
				b.warn(s.at[name], fix, "sync group %s: there is no vrrp_instance %s; it is left out, as keepalived does", s.Name, quote(name))
				return true
			}
			if other := taken[name]; other != "" {
				b.warn(s.at[name], "", "%s is in sync group %s already; it is left out of %s", name, other, s.Name)
				return true
			}
			taken[name] = s.Name
			return false
		})
		switch len(s.Instances) {
		case 0:
			b.warn(s.pos, "add group { INSTANCE … }", "sync group %s has no members and is ignored", s.Name)
			continue
		case 1:
			b.note(s.pos, "", "sync group %s has one member only", s.Name)
		}
		for _, name := range s.Instances {
			if !s.weights {
				b.unweight(&b.cfg.Instances[index[name]], s.Name)
			}
		}
		b.cfg.SyncGroups = append(b.cfg.SyncGroups, s.SyncGroup)
	}
}

// unweight drops the weighted trackers of a group's member: a group changes
// state as one, so a member cannot have a priority of its own.
func (b *binder) unweight(in *model.Instance, group string) {
	drop := func(weight int, what, name string) bool {
		if weight != 0 {
			b.warn(b.places["instance/"+in.Name], "delete the weight, or add sync_group_tracking_weight to the group",
				"%s: %s %s has a weight and does not count, since sync group %s holds the instance", in.Name, what, name, group)
		}
		return weight != 0
	}
	in.TrackScripts = slices.DeleteFunc(in.TrackScripts, func(t model.TrackScript) bool { return drop(t.Weight, "script", t.Script) })
	in.TrackFiles = slices.DeleteFunc(in.TrackFiles, func(t model.Track) bool { return drop(t.Weight, "file", t.Name) })
	in.TrackProcesses = slices.DeleteFunc(in.TrackProcesses, func(t model.Track) bool { return drop(t.Weight, "process", t.Name) })
	in.TrackBFD = slices.DeleteFunc(in.TrackBFD, func(t model.Track) bool { return drop(t.Weight, "BFD session", t.Name) })
	in.TrackInterfaces = slices.DeleteFunc(in.TrackInterfaces, func(t model.TrackInterface) bool { return drop(t.Weight, "interface", t.Interface) })
}

// seconds3 prints a duration as the language writes it.
func seconds3(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
