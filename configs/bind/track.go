package bind

import (
	"maps"
	"path"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// tracker is what an instance or a FILE_CHECK needs to know of the block that
// it names: vrrp_script, track_file, vrrp_track_process or bfd_instance.
type tracker struct {
	pos     model.Pos
	weight  int
	reverse bool
	vrrp    bool // its events go to VRRP
	checker bool // and to checks
}

// kind is one kind of tracker.
type kind struct {
	block string  // that defines it
	what  string  // for messages
	limit float64 // of the weight on a line that names it
}

// The kinds. A weight of 254 alone can put an instance into fault, so scripts
// and sessions end at 253.
var (
	scripts   = kind{"vrrp_script", "script", 253}
	files     = kind{"track_file", "file", 254}
	processes = kind{"vrrp_track_process", "process", 254}
	sessions  = kind{"bfd_instance", "BFD session", 253}
)

// define notes a tracker; false when the name is taken.
func (b *binder) define(k kind, n *syntax.Node) bool {
	name := n.Arg(0)
	if b.trackers[k.block] == nil {
		b.trackers[k.block] = map[string]*tracker{}
	}
	if b.trackers[k.block][name] != nil {
		b.warn(n.Pos, "rename one of them", "%s %s is defined twice; this one is ignored", k.block, quote(name))
		return false
	}
	b.trackers[k.block][name] = &tracker{pos: n.Pos, vrrp: true, checker: true}
	return true
}

// forget drops a tracker that cannot be used.
func (b *binder) forget(k kind, name string) { delete(b.trackers[k.block], name) }

// weigh reads "weight N [reverse]" of a tracker's own block.
func weigh(l *syntax.Node, weight *int, reverse *bool) {
	*weight, *reverse = number(l), l.Arg(1) == "reverse"
}

// script binds vrrp_script.
func (b *binder) script(n *syntax.Node) {
	s := model.Script{Name: n.Arg(0), Interval: time.Second, Rise: 1, Fall: 1}
	if !b.define(scripts, n) {
		return
	}
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
			weigh(l, &s.Weight, &s.Reverse)
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
		b.forget(scripts, s.Name)
		return
	}
	t := b.trackers[scripts.block][s.Name]
	t.weight, t.reverse = s.Weight, s.Reverse
	b.cfg.Scripts = append(b.cfg.Scripts, s)
}

// trackFile binds track_file.
func (b *binder) trackFile(n *syntax.Node) {
	f := model.TrackFile{Name: n.Arg(0), Weight: 1}
	if !b.define(files, n) {
		return
	}
	b.each("track_file", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "file":
			f.Path = l.Arg(0)
			if !path.IsAbs(f.Path) {
				b.fail(l.ArgPos(0), "write the whole path", "track_file %s: %s is no absolute path", quote(f.Name), quote(f.Path))
			}
		case "weight":
			weigh(l, &f.Weight, &f.Reverse)
		case "init_file":
			f.Init = true
			for i, w := range l.Args() {
				if w.Text == "overwrite" {
					f.Overwrite = true
					continue
				}
				v, err := (schema.Arg{Min: -1 << 31, Max: 1<<31 - 1}).Int(w.Text)
				if err != nil {
					b.fail(l.ArgPos(i), "write init_file [VALUE] [overwrite]", "init_file: %v", err)
					continue
				}
				f.InitValue = int(v)
				if v < -254 || v > 254 {
					b.warn(l.ArgPos(i), "write a value of -254…254", "init_file: %d moves any priority beyond its bounds", v)
				}
			}
		}
	}, nil)
	if f.Path == "" {
		if !has(n, "file") {
			b.fail(n.Pos, `add file "PATH"`, "track_file %s names no file", quote(f.Name))
		}
		b.forget(files, f.Name)
		return
	}
	t := b.trackers[files.block][f.Name]
	t.weight, t.reverse = f.Weight, f.Reverse
	b.cfg.TrackFiles = append(b.cfg.TrackFiles, f)
}

// trackProcess binds vrrp_track_process.
func (b *binder) trackProcess(n *syntax.Node) {
	p := model.TrackProcess{Name: n.Arg(0), Quorum: 1, QuorumMax: -1}
	if !b.define(processes, n) {
		return
	}
	b.places["process/"+p.Name] = n.Pos
	b.each("vrrp_track_process", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "process":
			if argv, ok := b.argv(l); ok {
				p.Argv = argv
			}
		case "param_match":
			p.Match = l.Arg(0)
		case "weight":
			weigh(l, &p.Weight, &p.Reverse)
		case "quorum":
			p.Quorum = number(l)
		case "quorum_max":
			p.QuorumMax = number(l)
		case "fork_delay":
			p.ForkDelay = duration(l)
		case "terminate_delay":
			p.TerminateDelay = duration(l)
		case "delay":
			p.ForkDelay, p.TerminateDelay = duration(l), duration(l)
		case "full_command":
			p.FullCommand = true
		}
	}, nil)
	if len(p.Argv) == 0 {
		if !has(n, "process") {
			b.fail(n.Pos, "add process NAME", "vrrp_track_process %s names no process", quote(p.Name))
		}
		b.forget(processes, p.Name)
		return
	}
	if p.QuorumMax == 0 && !has(n, "quorum") {
		p.Quorum = 0 // "none may run": a quorum of 1 could never be reached
	}
	if p.QuorumMax >= 0 && p.QuorumMax < p.Quorum {
		b.fail(lineOf(n, "quorum_max"), "write quorum_max "+itoa(p.Quorum)+" or more", "vrrp_track_process %s: quorum_max %d is below quorum %d, so it could never be good", quote(p.Name), p.QuorumMax, p.Quorum)
	}
	if p.Match != "" && len(p.Argv) == 1 {
		// A match of arguments with none given: any process of the name.
		b.note(lineOf(n, "param_match"), "add arguments to process", "vrrp_track_process %s: param_match without arguments takes every process of the name", quote(p.Name))
	}
	t := b.trackers[processes.block][p.Name]
	t.weight, t.reverse = p.Weight, p.Reverse
	b.cfg.TrackProcesses = append(b.cfg.TrackProcesses, p)
}

// bfdName is the longest name of a session, bytes.
const bfdName = 31

// bfd binds bfd_instance.
func (b *binder) bfd(n *syntax.Node) {
	s := model.BFD{
		Name: n.Arg(0), MinRx: 10 * time.Millisecond, MinTx: 10 * time.Millisecond, IdleTx: time.Second, Multiplier: 5,
	}
	if len(s.Name) > bfdName {
		b.fail(n.ArgPos(0), "shorten it", "bfd_instance %s: a name has %d characters at most", quote(s.Name), bfdName)
	}
	if !b.define(sessions, n) {
		return
	}
	b.places["bfd/"+s.Name] = n.Pos
	hops := 0
	millis := func(l *syntax.Node) time.Duration {
		d := duration(l) / 1000
		if d > 10*time.Second {
			b.warn(l.ArgPos(0), "the unit is milliseconds", "bfd_instance %s: %s %s ms is more than 10 s", quote(s.Name), l.Name(), l.Arg(0))
		}
		return d
	}
	b.each("bfd_instance", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "neighbor_ip":
			s.Neighbor, _ = schema.Addr(l.Arg(0))
		case "source_ip":
			s.Source, _ = schema.Addr(l.Arg(0))
		case "min_rx":
			s.MinRx = millis(l)
		case "min_tx":
			s.MinTx = millis(l)
		case "idle_tx":
			s.IdleTx = millis(l)
		case "multiplier":
			s.Multiplier = number(l)
		case "passive":
			s.Passive = true
		case "ttl", "hoplimit":
			s.TTL = number(l)
		case "max_hops":
			hops = number(l)
		case "multihop":
			s.Multihop = truth(l)
		case "weight":
			weigh(l, &s.Weight, &s.Reverse)
		case "vrrp":
			s.VRRP = true
		case "checker":
			s.Checker = true
		}
	}, nil)
	if !s.VRRP && !s.Checker {
		s.VRRP, s.Checker = true, true
	}
	switch {
	case !s.Neighbor.IsValid():
		if !has(n, "neighbor_ip", "neighbour_ip") {
			b.fail(n.Pos, "add neighbor_ip ADDRESS", "bfd_instance %s has no neighbor_ip", quote(s.Name))
		}
		b.forget(sessions, s.Name)
		return
	case s.Source.IsValid() && s.Source.Is6() != s.Neighbor.Is6():
		b.fail(lineOf(n, "source_ip"), "", "bfd_instance %s: source_ip %s and neighbor_ip %s are of different families", quote(s.Name), s.Source, s.Neighbor)
		b.forget(sessions, s.Name)
		return
	}
	for _, o := range b.cfg.BFD {
		if o.Neighbor == s.Neighbor && o.Source == s.Source {
			b.fail(n.Pos, "leave one of them", "bfd_instance %s and %s have the same neighbour %s", quote(s.Name), quote(o.Name), s.Neighbor)
		}
	}
	if s.TTL == 0 {
		if s.TTL = 255; s.Neighbor.Is6() {
			s.TTL = 64
			if !s.Multihop {
				b.note(n.Pos, "write hoplimit 255 on both sides", "bfd_instance %s: packets go out with hop limit 64, as keepalived sends them; a neighbour that keeps to RFC 5881 drops what has not 255", quote(s.Name))
			}
		}
	}
	if hops > s.TTL {
		if hops != 255 { // 255 is the way to say: not checked
			b.warn(lineOf(n, "max_hops"), "write max_hops "+itoa(s.TTL)+" or less", "bfd_instance %s: max_hops %d is more than the TTL %d, which is used", quote(s.Name), hops, s.TTL)
		}
		hops = s.TTL
	}
	if s.MaxHops = hops; hops == 255 {
		s.MaxHops = -1
	}
	t := b.trackers[sessions.block][s.Name]
	t.weight, t.reverse, t.vrrp, t.checker = s.Weight, s.Reverse, s.VRRP, s.Checker
	b.cfg.BFD = append(b.cfg.BFD, s)
}

// trackLine reads "NAME [weight N [reverse|noreverse]]". weight and reverse
// come in as the tracker's own.
func (b *binder) trackLine(n *syntax.Node, limit float64, weight int, reverse bool) (int, bool, bool) {
	args := n.Args()
	for i := 0; i < len(args); i++ {
		switch args[i].Text {
		case "weight":
			v, err := schema.Arg{Min: -limit, Max: limit}.Int(n.Arg(i + 1))
			if err != nil {
				b.fail(n.ArgPos(i+1), "write NAME weight N, with N of "+itoa(-int(limit))+"…"+itoa(int(limit)), "weight: %v", err)
				return 0, false, false
			}
			weight = int(v)
			i++
		case "reverse":
			reverse = true
		case "noreverse":
			reverse = false
		default:
			b.warn(n.ArgPos(i), "write one name a line: NAME [weight N [reverse]]", "unknown word %s, ignored", quote(args[i].Text))
		}
	}
	return weight, reverse, true
}

func (b *binder) trackInterfaces(l *syntax.Node) []model.TrackInterface {
	var out []model.TrackInterface
	seen := map[string]bool{}
	for _, line := range l.Children {
		b.used(line)
		w, rev, ok := b.trackLine(line, 254, 0, false) // ±254 is an old form that keepalived still takes
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

// tracks reads a block of lines that name trackers of one kind.
func (b *binder) tracks(k kind, l *syntax.Node) []model.Track {
	var out []model.Track
	seen := map[string]bool{}
	for _, line := range l.Children {
		name := line.Name()
		t := b.tracker(k, line, name)
		if t == nil {
			b.trackLine(line, k.limit, 0, false)
			b.use(line, Unknown, "")
			continue
		}
		w, rev, ok := b.trackLine(line, k.limit, t.weight, t.reverse)
		if !ok {
			b.use(line, Unknown, "")
			continue
		}
		b.used(line)
		if b.above(k, line, name, t) {
			b.mapped(line, "tracked, though it is defined below")
		}
		if !t.vrrp {
			b.warn(line.Pos, "add vrrp to bfd_instance "+name, "bfd_instance %s tells checks only; it is not tracked, as in keepalived", quote(name))
			continue
		}
		if seen[name] {
			b.warn(line.Pos, "delete one of them", "%s %s is tracked twice", k.what, name)
			continue
		}
		seen[name] = true
		out = append(out, model.Track{Name: name, Weight: w, Reverse: rev})
	}
	return out
}

// tracker finds what a line names; nil, and a warning, when there is none.
func (b *binder) tracker(k kind, line *syntax.Node, name string) *tracker {
	known := b.trackers[k.block]
	if t := known[name]; t != nil {
		return t
	}
	fix := b.meant(name, func() []string { return slices.Sorted(maps.Keys(known)) }, "define it with "+k.block+" "+name+" { … }")
	b.warn(line.Pos, fix, "there is no %s %s; it is not tracked, as in keepalived", k.block, quote(name))
	return nil
}

// above notes a name that is used above its definition, where keepalived does
// not know it yet.
func (b *binder) above(k kind, line *syntax.Node, name string, t *tracker) bool {
	if t.pos.File != line.Pos.File || t.pos.Line <= line.Pos.Line {
		return false
	}
	b.note(line.Pos, "move "+k.block+" "+name+" above", "%s %s is defined below (line %d): keepalived would not track it, here it counts", k.block, quote(name), t.pos.Line)
	return true
}

func scriptTracks(in []model.Track) (out []model.TrackScript) {
	for _, t := range in {
		out = append(out, model.TrackScript{Script: t.Name, Weight: t.Weight, Reverse: t.Reverse})
	}
	return out
}
