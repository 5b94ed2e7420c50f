package show

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// forwards are the forwarding methods as ipvsadm prints them.
var forwards = map[string]string{"NAT": "Masq", "DR": "Route", "TUN": "Tunnel", "LOCAL": "Local"}

// IPVS renders the IPVS table in the manner of "ipvsadm -Ln", with what health
// says of each real server in the last column.
func IPVS(st status.IPVS, h status.Health, now time.Time) string {
	var b strings.Builder
	b.WriteString(applied(st.Applied))
	b.WriteString("Prot LocalAddress:Port Scheduler Flags\n")
	fmt.Fprintf(&b, "  -> %-21s %-7s %-6s %-10s %-9s  %s\n", "RemoteAddress:Port", "Forward", "Weight", "ActiveConn", "InActConn", "Health")
	for _, s := range sorted(st.Services) {
		b.WriteString(service(s) + " " + printable.Line(s.Scheduler))
		if len(s.Flags) > 0 {
			b.WriteString(" (" + printable.Line(strings.Join(s.Flags, ",")) + ")")
		}
		if s.Persistence > 0 {
			fmt.Fprintf(&b, " persistent %d", int(s.Persistence.Seconds()))
			switch full := 32; {
			case s.ID.IPv6 || s.ID.Addr.Is6():
				full = 128
				fallthrough
			default:
				if s.Granularity > 0 && s.Granularity != full {
					fmt.Fprintf(&b, " mask /%d", s.Granularity)
				}
			}
		}
		if s.OnePacket {
			b.WriteString(" ops")
		}
		if s.VirtualServer == "" {
			b.WriteString(" (not in the configuration)")
		}
		b.WriteString("\n")
		for _, d := range dests(s) {
			fwd := forwards[d.Forward]
			if fwd == "" {
				fwd = printable.Line(d.Forward)
			}
			line := fmt.Sprintf("  -> %-21s %-7s %-6d %-10d %-9d  %s", addrPort(d.Addr, d.Port), fwd, d.Weight, d.Active, d.Inactive, verdict(s, d, h, now))
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	if n := len(st.Orders); n > 0 {
		fmt.Fprintf(&b, "! %d real servers are not as configured: \"show orders\"\n", n)
	}
	for _, d := range st.Daemons {
		fmt.Fprintf(&b, "%s sync daemon (mcast=%s, syncid=%d)\n", printable.Line(d.Role), printable.Line(d.Interface), d.ID)
	}
	return b.String()
}

// service prints "TCP  10.0.0.2:80" as ipvsadm does.
func service(s status.Service) string {
	if s.ID.Mark != 0 {
		text := "FWM  " + strconv.FormatUint(uint64(s.ID.Mark), 10)
		if s.ID.IPv6 {
			text += " IPv6"
		}
		return text
	}
	return fmt.Sprintf("%-4s %s", strings.ToUpper(s.ID.Protocol.String()), addrPort(s.ID.Addr, s.ID.Port))
}

func addrPort(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func sorted(list []status.Service) []status.Service {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b status.Service) int {
		if c := int64(a.ID.Mark) - int64(b.ID.Mark); c != 0 {
			return int(c)
		}
		if c := a.ID.Addr.Compare(b.ID.Addr); c != 0 {
			return c
		}
		if c := int(a.ID.Port) - int(b.ID.Port); c != 0 {
			return c
		}
		return int(a.ID.Protocol) - int(b.ID.Protocol)
	})
	return list
}

func dests(s status.Service) []status.Dest {
	list := slices.Clone(s.Dests)
	slices.SortStableFunc(list, func(a, b status.Dest) int {
		if c := a.Addr.Compare(b.Addr); c != 0 {
			return c
		}
		return int(a.Port) - int(b.Port)
	})
	return list
}

// verdict is what health says of a destination.
func verdict(s status.Service, d status.Dest, h status.Health, now time.Time) string {
	switch {
	case d.Sorry:
		return "sorry server"
	case d.Order != "":
		return "by order: " + d.Order
	case d.Draining:
		return "draining"
	}
	r, ok := realServer(s, d, h)
	switch {
	case !ok:
		return "-"
	case r.Alive && len(r.Checks) == 0:
		return "no check"
	case r.Alive:
		return "up " + Age(r.Since, now)
	}
	return "DOWN " + Age(r.Since, now)
}

// realServer finds the verdict on a destination. The port in the kernel is the
// service's own for DR and TUN, so the address alone decides when it is the
// only one.
func realServer(s status.Service, d status.Dest, h status.Health) (status.RealServerHealth, bool) {
	for _, v := range h.Servers {
		if v.Name != s.VirtualServer || v.Name == "" {
			continue
		}
		var same []status.RealServerHealth
		for _, r := range v.Real {
			if r.Addr != d.Addr {
				continue
			}
			if r.Port == d.Port {
				return r, true
			}
			same = append(same, r)
		}
		if len(same) == 1 {
			return same[0], true
		}
	}
	return status.RealServerHealth{}, false
}

// IPVSStats renders the counters in the manner of "ipvsadm -Ln --stats".
func IPVSStats(st status.IPVS) string {
	return counters(st, []string{"Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"}, func(s status.Stats) []uint64 {
		return []uint64{s.Conns, s.InPackets, s.OutPackets, s.InBytes, s.OutBytes}
	})
}

// IPVSRates renders the rates in the manner of "ipvsadm -Ln --rate".
func IPVSRates(st status.IPVS) string {
	return counters(st, []string{"CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"}, func(s status.Stats) []uint64 {
		return []uint64{s.CPS, s.InPPS, s.OutPPS, s.InBPS, s.OutBPS}
	})
}

func counters(st status.IPVS, heads []string, of func(status.Stats) []uint64) string {
	var b strings.Builder
	row := func(name string, cells []string) {
		line := fmt.Sprintf("%-33s", name)
		for _, c := range cells {
			line += fmt.Sprintf(" %8s", c)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	values := func(s status.Stats) (out []string) {
		for _, v := range of(s) {
			out = append(out, countText(v))
		}
		return out
	}
	row("Prot LocalAddress:Port", heads)
	row("  -> RemoteAddress:Port", nil)
	for _, s := range sorted(st.Services) {
		row(service(s), values(s.Stats))
		for _, d := range dests(s) {
			row("  -> "+addrPort(d.Addr, d.Port), values(d.Stats))
		}
	}
	return b.String()
}

// countText shortens as ipvsadm does: K, M, G and T of 1000 from eight digits on.
func countText(v uint64) string {
	switch {
	case v < 100_000_000:
		return strconv.FormatUint(v, 10)
	case v < 100_000_000_000:
		return strconv.FormatUint(v/1000, 10) + "K"
	case v < 100_000_000_000_000:
		return strconv.FormatUint(v/1_000_000, 10) + "M"
	}
	return strconv.FormatUint(v/1_000_000_000, 10) + "G"
}

// Connections renders the connection table in the manner of "ipvsadm -Lnc".
func Connections(conns []status.Conn) string {
	var b strings.Builder
	rows := [][]string{{"pro", "expire", "state", "source", "virtual", "destination"}}
	for _, c := range conns {
		e := int(c.Expires.Seconds())
		rows = append(rows, []string{printable.Line(c.Protocol), fmt.Sprintf("%02d:%02d", e/60, e%60), printable.Line(c.State), c.Client.String(), c.Virtual.String(), c.Dest.String()})
	}
	table(&b, "", rows)
	return b.String()
}

// Health renders the verdicts on virtual and real servers with their reasons.
// With a filter only virtual servers whose name, or real servers whose address
// holds it.
func Health(h status.Health, filter string, now time.Time) string {
	var b strings.Builder
	b.WriteString(applied(h.Applied))
	list := slices.Clone(h.Servers)
	slices.SortFunc(list, func(a, b status.VirtualServerHealth) int { return strings.Compare(a.Name, b.Name) })
	for _, v := range list {
		quorum := "quorum up"
		if !v.QuorumUp {
			quorum = "QUORUM LOST"
		}
		rows := [][]string{{"Real server", "State", "Since", "Check"}}
		for _, r := range v.Real {
			if filter != "" && !strings.Contains(v.Name, filter) && !strings.Contains(addrPort(r.Addr, r.Port), filter) {
				continue
			}
			state := "up"
			if !r.Alive {
				state = "DOWN"
			}
			if r.Disabled {
				state += ", out by order"
			}
			if r.Weight >= 0 {
				state += fmt.Sprintf(", weight %d", r.Weight)
			}
			row := []string{addrPort(r.Addr, r.Port), state, Age(r.Since, now)}
			if len(r.Checks) == 0 {
				rows = append(rows, append(row, "none configured"))
			}
			for i, c := range r.Checks {
				if i > 0 {
					row = []string{"", "", ""}
				}
				rows = append(rows, append(row, checkText(c, addrPort(r.Addr, r.Port))))
			}
		}
		if filter != "" && len(rows) == 1 {
			continue
		}
		fmt.Fprintf(&b, "%s  %s (weight %d, needs %d)\n", printable.Line(v.Name), quorum, v.Weight, v.Quorum)
		table(&b, "  ", rows)
	}
	if b.Len() == 0 {
		return "no real server is checked\n"
	}
	return b.String()
}

func checkText(c status.CheckHealth, self string) string {
	text := c.Kind
	if c.Target != "" && c.Target != self {
		text += " " + printable.Line(c.Target)
	}
	switch {
	case !c.Known:
		return text + ": no result yet"
	case c.Up:
		text += " ok"
	default:
		text += " failed"
	}
	if c.Took > 0 {
		text += " in " + c.Took.Round(100*time.Microsecond).String()
	}
	if c.Detail != "" {
		text += ": " + printable.Line(c.Detail)
	}
	if c.Up && c.Retries > 0 && c.Detail != "" {
		text += fmt.Sprintf(" (%d retries left)", c.Retries)
	}
	return text
}
