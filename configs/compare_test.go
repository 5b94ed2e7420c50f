package configs

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
)

// facts are what one object of a dump says: a value for each name, and for a
// list its lines.
type facts map[string]string

// objects are all objects of a dump, by "VRRP Instance VI_1" and the like.
type objects map[string]facts

// readDump reads the text of a dump. Lines are indented by depth; an object
// starts with a line of one of the titles; its lists have a line that ends in
// ":", and deeper lines.
func readDump(text string, titles []string) objects {
	out := objects{}
	var f facts
	list := ""
	depth := 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		rest := strings.TrimLeft(line, " ")
		indent := len(line) - len(rest)
		if strings.HasPrefix(rest, "------<") {
			f, list = nil, ""
			continue
		}
		name, value, is := strings.Cut(rest, " = ")
		if is && slices.Contains(titles, name) {
			value, _, _ = strings.Cut(value, ", ")
			f, list = facts{}, ""
			out[name+" "+value] = f
			continue
		}
		switch {
		case f == nil:
		case list != "" && indent > depth:
			f[list] += rest + "\n"
		case strings.HasSuffix(rest, ":"):
			list, depth = rest[:strings.IndexAny(rest, ":(")], indent
			list = strings.TrimSpace(list)
			f[list] = ""
		case is:
			f[name], list = value, ""
		default:
			list = ""
			f[rest] = "yes"
		}
	}
	return out
}

func onOff(v bool, yes, no string) string {
	if v {
		return yes
	}
	return no
}

func secs(d time.Duration) string { return fmt.Sprint(d.Seconds()) }

func joined(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// weighed prints "NAME weight N [reverse]" as keepalived does for each kind.
func weighed(sep, name string, weight int, reverse bool) string {
	return fmt.Sprintf("%s%s weight %d%s", name, sep, weight, onOff(reverse, " reverse", ""))
}

// argv prints a command as a dump does, but for the folder of its program:
// keepalived resolves it on the machine that it runs on.
func argv(c model.Command) string {
	if c.Shell != "" {
		return c.Shell
	}
	out := ""
	for i, a := range c.Argv {
		if i == 0 {
			a = path.Base(a)
		}
		out += "'" + a + "' "
	}
	return strings.TrimSpace(out)
}

var scopeNames = map[uint8]string{0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}

func addressLine(a model.Address, in *model.Instance) string {
	s := a.Prefix.String()
	if a.Prefix.IsSingleIP() {
		s = a.Prefix.Addr().String()
	}
	if a.Broadcast.IsValid() {
		s += " brd " + a.Broadcast.String()
	}
	dev := a.Interface
	if in.VMAC != nil && dev == in.Interface {
		dev = in.VMAC.Name
	}
	s += " dev " + dev + " scope " + scopeNames[a.Scope]
	if a.Label != "" {
		s += " label " + a.Label
	}
	return s
}

func routeText(r model.Route) string {
	s := onOff(r.Append, "append ", "prepend ")
	if r.Type != "" {
		s = "add " + r.Type + " "
	}
	s += r.Dst.String()
	if r.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	if r.Via.IsValid() {
		s += " via " + onOff(r.Via.Is6(), "inet6 ", "inet ") + r.Via.String()
	}
	if r.Interface != "" {
		s += " dev " + r.Interface
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	s += fmt.Sprintf(" proto %d", 18)
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	s += onOff(r.OnLink, " onlink", "")
	for _, m := range r.Metrics {
		if m.Kind == 2 {
			s += fmt.Sprintf(" mtu %s%d", onOff(m.Lock, "lock ", ""), m.Value)
		}
	}
	for _, h := range r.NextHops {
		s += " nexthop via " + onOff(h.Via.Is6(), "inet6 ", "inet ") + h.Via.String() + " dev " + h.Interface
		if h.Weight > 1 {
			s += fmt.Sprintf(" weight %d", h.Weight)
		}
	}
	// keepalived does not track what names no interface.
	return s + onOff(r.NoTrack || r.Interface == "", " no_track", "")
}

func ruleText(r model.Rule) string {
	s := onOff(r.Not, "not ", "")
	if r.From.IsValid() {
		s += "from " + r.From.String() + " "
	}
	if r.To.IsValid() {
		if !r.From.IsValid() {
			s += "from all "
		}
		s += "to " + r.To.String() + " "
	}
	return s + fmt.Sprintf("priority %d tos 0x%x protocol 18 lookup %d", r.Preference, r.TOS, r.Table)
}

// ourVRRP is our model in the words of the dump.
func ourVRRP(c model.Config) objects {
	out := objects{}
	groupOf := map[string]string{}
	for _, g := range c.SyncGroups {
		f := facts{"VRRP member instances": joined(g.Instances), "Using smtp notification": onOff(g.SMTPAlert, "yes", "no")}
		notifyFacts(f, g.Notify)
		out["VRRP Sync Group "+g.Name] = f
		for _, m := range g.Instances {
			groupOf[m] = g.Name
		}
	}
	for i := range c.Instances {
		in := &c.Instances[i]
		f := facts{
			"VRRP Version": fmt.Sprint(in.Version), "Virtual Router ID": fmt.Sprint(in.VRID), "Priority": fmt.Sprint(in.Priority),
			"Interface": in.Interface, "Gratuitous ARP delay": secs(in.GARPMasterDelay), "Gratuitous ARP repeat": fmt.Sprint(in.GARPMasterRepeat),
			"Gratuitous ARP refresh": secs(in.GARPMasterRefresh), "Gratuitous ARP refresh repeat": fmt.Sprint(in.GARPMasterRefreshRepeat),
			"Gratuitous ARP lower priority delay": secs(in.GARPLowerPrioDelay), "Gratuitous ARP lower priority repeat": fmt.Sprint(in.GARPLowerPrioRepeat),
			"Down timer adverts":                              fmt.Sprint(in.DownTimerAdverts),
			"Send advert after receive lower priority advert": fmt.Sprint(!in.LowerPrioNoAdvert), "Send advert after receive higher priority advert": fmt.Sprint(in.HigherPrioSendAdvert),
			"Accept": onOff(in.NoAccept, "disabled", "enabled"), "Preempt": onOff(in.NoPreempt, "disabled", "enabled"), "Promote_secondaries": onOff(in.PromoteSecondaries, "enabled", "disabled"),
			"Using smtp notification": onOff(in.SMTPAlert, "yes", "no"), "Notify priority changes": fmt.Sprint(in.NotifyPriorityChanges),
			"Using src_ip": "", "Virtual IP": "", "Virtual IP Excluded": "", "Sync group": groupOf[in.Name],
		}
		f["Advert interval"] = secs(in.AdvertInt) + " sec"
		if in.Version == 3 {
			f["Advert interval"] = fmt.Sprintf("%d milli-sec", in.AdvertInt.Milliseconds())
		} else {
			f["Authentication type"] = "none"
			if in.AuthPass != nil {
				f["Authentication type"], f["Password"] = onOff(in.AuthAH, "IPSEC_AH", "SIMPLE_PASSWORD"), string(in.AuthPass)
			}
		}
		if in.PreemptDelay != 0 {
			f["Preempt delay"] = secs(in.PreemptDelay) + " secs"
		}
		if in.SrcIP.IsValid() {
			f["Using src_ip"] = in.SrcIP.String()
		}
		if in.VMAC != nil {
			f["Interface"] = in.VMAC.Name
			f["Use VMAC"] = in.VMAC.Name + onOff(in.VMAC.XmitBase, ", xmit_base", "")
		}
		if !in.Unicast && !in.IPv6 { // of IPv6 the dump does not say it
			f["Multicast address "+in.McastGroup.String()] = "yes"
		}
		if in.Strict {
			f["Enforcing strict VRRP compliance"] = "yes"
		}
		list := func(name string, lines []string) {
			if len(lines) > 0 {
				f[name] = joined(lines)
			}
		}
		var vips, excluded, peers, scripts, ifs, files, procs, sessions, routes, rules []string
		for _, a := range in.VIPs {
			vips = append(vips, addressLine(a, in))
		}
		for _, a := range in.ExcludedVIPs {
			excluded = append(excluded, addressLine(a, in))
		}
		for _, p := range in.Peers {
			lo, hi := max(p.MinTTL, 0), p.MaxTTL
			if hi < 0 {
				hi = 255
			}
			peers = append(peers, fmt.Sprintf("%s min_ttl %d max_ttl %d", p.Addr, lo, hi))
		}
		for _, t := range in.TrackScripts {
			scripts = append(scripts, weighed("", t.Script, t.Weight, t.Reverse))
		}
		for _, t := range in.TrackInterfaces {
			ifs = append(ifs, weighed("", t.Interface, t.Weight, t.Reverse))
		}
		for _, t := range in.TrackFiles {
			files = append(files, weighed(",", t.Name, t.Weight, t.Reverse))
		}
		for _, t := range in.TrackProcesses {
			procs = append(procs, weighed(",", t.Name, t.Weight, t.Reverse))
		}
		for _, t := range in.TrackBFD {
			sessions = append(sessions, weighed(":", t.Name, t.Weight, t.Reverse))
		}
		for _, r := range in.VirtualRoutes {
			routes = append(routes, routeText(r))
		}
		for _, r := range in.VirtualRules {
			rules = append(rules, ruleText(r))
		}
		list("Virtual IP", vips)
		list("Virtual IP Excluded", excluded)
		list("Unicast Peer", peers)
		list("Tracked scripts", scripts)
		list("Tracked interfaces", ifs)
		list("Tracked files", files)
		list("Tracked processes", procs)
		list("Tracked BFDs", sessions)
		list("Virtual Routes", routes)
		list("Virtual Rules", rules)
		notifyFacts(f, in.Notify)
		out["VRRP Instance "+in.Name] = f
	}
	for _, s := range c.Scripts {
		timeout := s.Timeout
		if timeout == s.Interval {
			timeout = 0 // the dump shows what is written
		}
		out["VRRP Script "+s.Name] = facts{"Command": argv(s.Command), "Interval": secs(s.Interval) + " sec", "Timeout": secs(timeout) + " sec",
			"Weight": fmt.Sprint(s.Weight) + onOff(s.Reverse, " reverse", ""), "Rise": fmt.Sprint(s.Rise), "Fall": fmt.Sprint(s.Fall)}
	}
	for _, x := range c.TrackFiles {
		out["Track file "+x.Name] = facts{"File": x.Path, "Weight": fmt.Sprint(x.Weight) + onOff(x.Reverse, " reverse", "")}
	}
	for _, p := range c.TrackProcesses {
		most := fmt.Sprint(p.QuorumMax)
		if p.QuorumMax < 0 {
			most = "4294967295"
		}
		out["VRRP Track process "+p.Name] = facts{"Process": p.Argv[0], "Min processes": fmt.Sprint(p.Quorum), "Max processes": most,
			"Weight": fmt.Sprint(p.Weight) + onOff(p.Reverse, " reverse", ""), "Terminate delay": fmt.Sprintf("%.6fs", p.TerminateDelay.Seconds()),
			"Fork delay": fmt.Sprintf("%.6fs", p.ForkDelay.Seconds()), "Full command": fmt.Sprint(p.FullCommand)}
	}
	for _, b := range c.BFD {
		hops := b.MaxHops
		if hops < 0 {
			hops = 255
		}
		out["BFD Instance "+b.Name] = facts{"Neighbor IP": b.Neighbor.String(), "Required min RX interval": fmt.Sprintf("%d us", b.MinRx.Microseconds()),
			"Desired min TX interval": fmt.Sprintf("%d us", b.MinTx.Microseconds()), "Desired idle TX interval": fmt.Sprintf("%d us", b.IdleTx.Microseconds()),
			"Detection multiplier": fmt.Sprint(b.Multiplier), "TTL": fmt.Sprint(b.TTL), "max_hops": fmt.Sprint(hops), "passive": fmt.Sprint(b.Passive)}
	}
	return out
}

func notifyFacts(f facts, n model.Notify) {
	for name, c := range map[string]model.Command{
		"Master state transition script": n.Master, "Backup state transition script": n.Backup, "Fault state transition script": n.Fault,
		"Stop state transition script": n.Stop, "Generic state transition script": n.Any,
	} {
		if !c.IsZero() {
			f[name] = argv(c)
		}
	}
}

var (
	uidGid  = regexp.MustCompile(`, uid:gid .*`)
	program = regexp.MustCompile(`^'[^']*/`)
)

// settle brings the words of a dump into the form of ourVRRP.
func settle(o objects) {
	for _, f := range o {
		for name, v := range f {
			switch {
			case strings.HasSuffix(name, "transition script"), name == "Command":
				v = program.ReplaceAllString(uidGid.ReplaceAllString(v, ""), "'")
			case name == "Interface":
				v, _, _ = strings.Cut(v, ",")
			case name == "Using src_ip":
				addr, from, _ := strings.Cut(v, " ")
				if v = addr; from != "(from configuration)" {
					v = ""
				}
			case name == "Virtual IP" || name == "Virtual IP Excluded":
				v = strings.ReplaceAll(strings.ReplaceAll(v, "@eth0", ""), " deprecated", "")
				v = strings.ReplaceAll(v, " preferred_lft forever", "")
			}
			f[name] = v
		}
		for name, v := range f {
			if rest, ok := strings.CutPrefix(name, "Use VMAC, i/f name "); ok { // the line has a = of its own
				rest, _, _ = strings.Cut(rest, ",")
				f["Use VMAC"] = rest + onOff(strings.Contains(v, "xmit_base = true"), ", xmit_base", "")
			}
		}
	}
}
