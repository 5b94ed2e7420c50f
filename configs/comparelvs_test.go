package configs

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"ballast/configs/model"
)

// once gives an object of that name, numbered where there is one already.
func (o objects) once(name string) facts {
	unique := name
	for n := 2; o[unique] != nil; n++ {
		unique = fmt.Sprintf("%s, number %d", name, n)
	}
	o[unique] = facts{}
	return o[unique]
}

var (
	serverTitle = regexp.MustCompile(`^VS (VIP|FWMARK|GROUP) = `)
	realTitle   = regexp.MustCompile(`^RIP = (.*), RPORT = (\d+), `)
	title       = regexp.MustCompile(`^------< (.*) >------$`)
)

// readCheckDump reads the dump of keepalived's checker: virtual servers, their
// real servers, and checks, by "VS 192.0.2.1:80", "VS … RS …" and "CHECK … -> …".
func readCheckDump(text string) objects {
	out := objects{}
	var f facts
	section, server, before := "", "", ""
	for line := range strings.Lines(text) {
		rest := strings.TrimSpace(line)
		indent := len(strings.TrimRight(line, "\n")) - len(strings.TrimLeft(strings.TrimRight(line, "\n"), " "))
		if m := title.FindStringSubmatch(rest); m != nil {
			section, f, before = m[1], nil, ""
			continue
		}
		switch section {
		case "Virtual server":
			if f == nil && serverTitle.MatchString(rest) {
				_, name, _ := strings.Cut(rest, " = ")
				server = strings.ReplaceAll(name, ", VPORT = ", " ")
				f = out.once("VS " + server)
				continue
			}
		case "Real server":
			if m := realTitle.FindStringSubmatch(rest); m != nil {
				f = out.once("VS " + server + " RS " + m[1] + " " + m[2])
				continue
			}
		case "Health checkers":
			if indent == 1 && strings.Contains(rest, " -> ") {
				f = out.once("CHECK " + rest)
				continue
			}
		default:
			f = nil
		}
		if f == nil {
			continue
		}
		// What is deeper belongs to the line above.
		deep := indent > 3
		name, value, is := strings.Cut(rest, " = ")
		switch {
		case deep && strings.HasPrefix(before, "Checked url"):
			f["urls"] += "; " + rest
		case deep && strings.HasPrefix(before, "sorry"):
			f["sorry "+strings.ReplaceAll(name, " is", "")] = value
			if !is {
				f["sorry server"] += "; " + rest
			}
		case deep && strings.HasPrefix(before, "Tracked"):
			f[before] = strings.TrimPrefix(f[before], "yes") + rest + "\n"
		case is && strings.HasPrefix(name, "Checked url"):
			f["urls"] += "\n" + value
		case is && name == "default forwarding method":
			f["forwarding method"] = value
		case is && value != "disabled":
			f[name] = value
		case !is:
			if k, v, ok := strings.Cut(rest, " is "); ok {
				f[k] = v
			} else {
				f[rest] = "yes"
			}
		}
		if !deep {
			before = rest
		}
	}
	for name, f := range out {
		if check, ok := strings.CutPrefix(name, "CHECK ["); ok {
			inheritHost(f, out, check)
		}
		for name, v := range f {
			if strings.HasSuffix(name, "notify script") || name == "script" || strings.HasPrefix(name, "Script") {
				f[name] = program.ReplaceAllString(uidGid.ReplaceAllString(v, ""), "'")
			}
		}
	}
	return out
}

// inheritHost gives the urls of a check the virtualhost of the virtual server,
// as our model has it resolved already.
func inheritHost(f facts, o objects, check string) {
	addr, rest, _ := strings.Cut(check, "]:")
	_, port, _ := strings.Cut(strings.Fields(rest)[0], ":")
	host := o["VS "+addr+" "+port]["VirtualHost"]
	if host == "" || f["urls"] == "" {
		return
	}
	urls := strings.Split(f["urls"], "\n")
	for i, u := range urls {
		if i > 0 && !strings.Contains(u, "; Virtual host = ") {
			u, regex, _ := strings.Cut(u, "; Regex = ")
			urls[i] = u + "; Virtual host = " + host + onOff(regex != "", "; Regex = "+regex, "")
		}
	}
	f["urls"] = strings.Join(urls, "\n")
}

func forwardText(m model.Forward, t model.Tunnel) string {
	if m != model.TUN {
		return m.String()
	}
	s := "TUN, type = " + strings.ToUpper(t.Type)
	if t.Type == "gue" {
		s += fmt.Sprintf(", port = %d", t.Port)
	}
	if t.Type != "ipip" && t.Csum == "" {
		return s + ", no checksum"
	}
	return s + map[string]string{"nocsum": ", no checksum", "csum": ", checksum", "remcsum": ", remote checksum"}[t.Csum]
}

// granularityText is a granularity as the dump shows it: a netmask for IPv4.
func granularityText(v *model.VirtualServer) string {
	id := v.Services[0]
	six := id.IPv6 || id.Addr.Is6()
	switch {
	case v.Persistence == 0, six && v.Granularity == 128, !six && v.Granularity == 32:
		return ""
	case six:
		return fmt.Sprint(v.Granularity)
	}
	return net.IP(net.CIDRMask(v.Granularity, 32)).String()
}

func micros(us int64) string { return fmt.Sprintf("%d us", us) }

func float(s float64) string { return fmt.Sprintf("%.6f", s) }

// addrPort is "[address]:port".
func addrPort(a netip.Addr, port uint16) string { return fmt.Sprintf("[%s]:%d", a, port) }

// ourLVS is our model in the words of the dump.
func ourLVS(c model.Config) objects {
	out := objects{}
	for i := range c.VirtualServers {
		v := &c.VirtualServers[i]
		id := v.Services[0]
		var server string
		protocol := strings.ToUpper(id.Protocol.String())
		group, isGroup := strings.CutPrefix(v.Name, "group ")
		switch {
		case isGroup, len(v.Services) > 1:
			server = "[" + strings.Trim(group, "[]:0123456789") + "]:0"
		case id.Mark != 0:
			server, protocol = fmt.Sprint(id.Mark), "none"
		default:
			server = fmt.Sprintf("%s %d", id.Addr, id.Port)
		}
		f := out.once("VS " + server)
		f["Address family"] = onOff(id.IPv6 || id.Addr.Is6(), "inet6", "inet")
		f["lvs_sched"], f["protocol"], f["forwarding method"] = v.Scheduler, protocol, forwardText(v.Forward, v.Tunnel)
		for _, flag := range []string{"Hashed", "flag-1", "flag-2", "flag-3", "sh-port", "sh-fallback", "mh-port", "mh-fallback"} {
			f[flag] = onOff(slices.Contains(v.SchedFlags, strings.ToLower(flag)), "enabled", "")
		}
		f["One packet scheduling"] = onOff(v.OnePacket, "enabled", "")
		f["persistence timeout"] = onOff(v.Persistence != 0, fmt.Sprint(int(v.Persistence.Seconds())), "")
		f["persistence granularity"] = granularityText(v)
		f["alpha"], f["omega"] = onOff(v.Alpha, "ON", "OFF"), onOff(v.Omega, "ON", "OFF")
		f["quorum"] = fmt.Sprintf("%d, hysteresis = %d", v.Quorum, v.Hysteresis)
		f["Using HA suspend"] = onOff(v.HASuspend, "yes", "")
		f["Using smtp notification"] = onOff(v.SMTPAlert, "yes", "no")
		f["Quorum up notify script"], f["Quorum down notify script"] = argv(v.QuorumUp), argv(v.QuorumDown)
		f["sorry server"], f["sorry forwarding method"], f["sorry Inhibit on failure"] = "", "", ""
		if s := v.Sorry; s != nil {
			f["sorry server"] = fmt.Sprintf("[%s]:%s:%d", s.Addr, id.Protocol, s.ConfPort)
			f["sorry forwarding method"] = forwardText(s.Forward, s.Tunnel)
			f["sorry server"] += "; Inhibit on failure is " + onOff(v.SorryInhibit, "ON", "OFF")
			delete(f, "sorry Inhibit on failure")
		}
		for j := range v.Real {
			ourReal(out, v, &v.Real[j], server)
		}
	}
	return out
}

func ourReal(out objects, v *model.VirtualServer, r *model.RealServer, server string) {
	id := v.Services[0]
	port := r.Port
	f := out.once(fmt.Sprintf("VS %s RS %s %d", server, r.Addr, port))
	f["forwarding method"] = forwardText(r.Forward, r.Tunnel)
	f["connection limit range"] = fmt.Sprintf("%d -> %d", r.LThreshold, r.UThreshold)
	f["Inhibit on failure"] = onOff(r.InhibitOnFailure, "ON", "OFF")
	f["Using smtp notification"] = onOff(r.SMTPAlert, "yes", "no")
	f["initial weight"] = fmt.Sprint(r.Weight)
	f["RS up notify script"], f["RS down notify script"] = argv(r.NotifyUp), argv(r.NotifyDown)
	f["Tracked Files"], f["Tracked BFDs"] = "", ""

	protocol := id.Protocol.String()
	from := fmt.Sprintf("[%s]:%s:%d", id.Addr, protocol, id.Port)
	switch {
	case strings.HasPrefix(server, "["):
		from = server
	case id.Mark != 0:
		from, protocol = fmt.Sprintf("FWM %d", id.Mark), "none"
	}
	for i := range r.Checks {
		k := &r.Checks[i]
		switch k.Kind {
		case model.BFDCheck:
			f["Tracked BFDs"] += k.Name + "\n"
		case model.FileCheck:
			f["Tracked Files"] += weighed(",", k.Name, k.Weight, k.Reverse) + "\n"
		}
		ourCheck(out.once(fmt.Sprintf("CHECK %s -> [%s]:%s:%d", from, r.Addr, protocol, port)), k)
	}
}

func ourCheck(f facts, k *model.Check) {
	f["Keepalive method"] = string(k.Kind)
	if k.Kind == model.FileCheck {
		return
	}
	f["Alpha"] = onOff(k.Alpha, "yes", "no")
	if k.Kind == model.BFDCheck {
		f["Name"], f["Alpha"] = k.Name, onOff(k.Alpha, "ON", "OFF")
		return
	}
	f["Delay loop"], f["Warmup"] = micros(k.DelayLoop.Microseconds()), micros(k.Warmup.Microseconds())
	f["Retries"] = fmt.Sprint(k.Retry)
	if k.Retry > 0 {
		f["Delay before retry"] = micros(k.DelayBeforeRetry.Microseconds())
	}
	f["Log all failures"] = onOff(k.LogAllFailures, "yes", "no")
	if k.Kind == model.MiscCheck {
		f["dynamic"] = onOff(k.Dynamic, "YES", "NO")
		return
	}
	if k.Kind != model.PingCheck { // which has no port
		f["Dest"] = addrPort(k.Addr, k.Port)
	}
	f["Timeout"], f["Bind i/f"] = float(k.ConnectTimeout.Seconds()), k.BindInterface
	f["Bind to"] = onOff(k.BindAddr.IsValid(), addrPort(k.BindAddr, k.BindPort), "")
	f["Mark"] = onOff(k.Mark != 0, fmt.Sprint(k.Mark), "")
	switch k.Kind {
	case model.HTTPGet, model.SSLGet:
		f["Keepalive method"] += ", http protocol " + k.HTTPProtocol
		f["Enable SNI set"] = onOff(k.SNI, "yes", "")
		f["Fast recovery set"] = onOff(k.FastRecovery, "yes", "")
		for _, u := range k.URLs {
			f["urls"] += "\n" + urlText(u)
		}
	case model.SMTPCheck:
		f["helo"] = k.HELO
	case model.DNSCheck:
		f["Type"], f["Name"] = k.DNSType, k.DNSName
	case model.UDPCheck:
		f["Require reply"] = onOff(k.RequireReply, "yes", "no")
		f["Payload specified"] = onOff(k.Payload != nil, "yes", "no")
	}
}

func urlText(u model.URL) string {
	s := u.Path
	if u.Digest != "" {
		s += "; digest = " + u.Digest
	}
	if len(u.Status) > 0 {
		s += "; HTTP Status Code(s)"
	}
	for _, r := range u.Status {
		s += fmt.Sprintf("; %d", r.From)
		if r.To != r.From {
			s += fmt.Sprintf("-%d", r.To)
		}
	}
	if u.VirtualHost != "" {
		s += "; Virtual host = " + u.VirtualHost
	}
	if u.Regex != "" {
		s += fmt.Sprintf("; Regex = %q", u.Regex)
		s += onOff(u.RegexNoMatch, "; Regex no match", "")
		if u.RegexMin != 0 || u.RegexMax != 0 {
			s += fmt.Sprintf("; Regex min offset = %d", u.RegexMin) + onOff(u.RegexMax != 0, fmt.Sprintf(", max_offset = %d", u.RegexMax-1), "")
		}
		s += "; Regex options:; Regex ref count = 1"
	}
	return s
}
