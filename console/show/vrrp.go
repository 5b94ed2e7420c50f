package show

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// VRRP renders the virtual routers: one row each, why it is what it is, and
// its addresses. With a name it renders that one in detail; ok is false when
// there is none of that name.
func VRRP(st status.VRRP, name string, now time.Time) (text string, ok bool) {
	var b strings.Builder
	b.WriteString(applied(st.Applied))
	if st.Resigned {
		by := ""
		if st.ResignedBy != "" {
			by = " by " + printable.Line(st.ResignedBy)
		}
		if st.Maintenance {
			b.WriteString("! maintenance" + by + ": held as backup until \"maintenance off\", also over a reboot\n")
		} else {
			b.WriteString("! resigned" + by + ": held as backup until \"resume\"\n")
		}
	}
	list := slices.Clone(st.Instances)
	slices.SortFunc(list, func(a, b status.VRRPInstance) int { return strings.Compare(a.Name, b.Name) })
	if name != "" {
		i := slices.IndexFunc(list, func(v status.VRRPInstance) bool { return v.Name == name })
		if i < 0 {
			return "", false
		}
		instance(&b, list[i], now)
		return b.String(), true
	}
	if len(list) == 0 {
		b.WriteString("no vrrp_instance is configured\n")
		return b.String(), true
	}
	rows := [][]string{{"Instance", "State", "Since", "Prio", "Master", "Last advert", "Interface", "VRID"}}
	for _, v := range list {
		rows = append(rows, []string{printable.Line(v.Name), v.State, Age(v.Since, now), priority(v), master(v), lastAdvert(v, now), printable.Line(v.Interface), strconv.Itoa(int(v.VRID))})
	}
	var t strings.Builder
	table(&t, "", rows)
	lines := strings.SplitAfter(t.String(), "\n")
	b.WriteString(lines[0])
	for i, v := range list {
		b.WriteString(lines[i+1])
		if v.Reason != "" {
			wrapped(&b, "  ", strings.Fields(printable.Line(v.Reason)))
		}
		for _, f := range v.Faults {
			wrapped(&b, "  fault: ", strings.Fields(printable.Line(f)))
		}
		if len(v.VIPs) > 0 {
			wrapped(&b, "  ", vips(v))
		}
	}
	if h := st.Heartbeat; h != nil && !h.Up {
		fmt.Fprintf(&b, "! no heartbeat of the peer for %s: \"show heartbeat\"\n", Age(h.Since, now))
	}
	if len(st.Groups) > 0 {
		b.WriteString("\n")
		rows = [][]string{{"Sync group", "State", "Since", "Instances"}}
		groups := slices.Clone(st.Groups)
		slices.SortFunc(groups, func(a, b status.VRRPGroup) int { return strings.Compare(a.Name, b.Name) })
		for _, g := range groups {
			rows = append(rows, []string{printable.Line(g.Name), g.State, Age(g.Since, now), printable.Line(strings.Join(g.Instances, " "))})
		}
		table(&b, "", rows)
	}
	return b.String(), true
}

func priority(v status.VRRPInstance) string {
	if v.Effective != v.Priority {
		return fmt.Sprintf("%d (%d)", v.Effective, v.Priority)
	}
	return strconv.Itoa(v.Priority)
}

func master(v status.VRRPInstance) string {
	switch {
	case v.State == status.VRRPMaster:
		return "this box"
	case v.MasterAddr.IsValid():
		return v.MasterAddr.String()
	}
	return "-"
}

func lastAdvert(v status.VRRPInstance, now time.Time) string {
	if v.LastAdvert.IsZero() {
		return "none"
	}
	return Age(v.LastAdvert, now) + " ago"
}

func vips(v status.VRRPInstance) []string {
	var out []string
	for _, p := range v.VIPs {
		out = append(out, p.String())
	}
	return out
}

// instance renders one virtual router in detail.
func instance(b *strings.Builder, v status.VRRPInstance, now time.Time) {
	family := "IPv4"
	if v.IPv6 {
		family = "IPv6"
	}
	m := master(v)
	if v.MasterPriority > 0 {
		m += fmt.Sprintf(", priority %d", v.MasterPriority)
	}
	rows := [][]string{
		{"Instance", printable.Line(v.Name)},
		{"State", v.State + " for " + Age(v.Since, now)},
		{"Why", printable.Line(v.Reason)},
		{"Router", fmt.Sprintf("VRID %d on %s, VRRPv%d, %s", v.VRID, printable.Line(v.Interface), v.Version, family)},
		{"Priority", fmt.Sprintf("%d, effective %d", v.Priority, v.Effective)},
		{"Master", m},
		{"Last advertisement", lastAdvert(v, now)},
		{"Intervals", fmt.Sprintf("advertisement %v, master down %v", v.AdvertInt, v.MasterDown.Round(time.Millisecond))},
	}
	for i, p := range v.VIPs {
		label := ""
		if i == 0 {
			label = "Addresses"
		}
		rows = append(rows, []string{label, p.String()})
	}
	for _, f := range v.Faults {
		rows = append(rows, []string{"Fault", printable.Line(f)})
	}
	if v.VMAC != "" {
		rows = append(rows, []string{"Virtual MAC", "on " + printable.Line(v.VMAC)})
	}
	for _, t := range v.Trackers {
		up := "up"
		if !t.Up {
			up = "DOWN"
		}
		text := fmt.Sprintf("%s %s %s", t.Kind, printable.Line(t.Name), up)
		if t.Weight != 0 {
			text += fmt.Sprintf(", weight %d", t.Weight)
		}
		if t.Detail != "" {
			text += ": " + printable.Line(t.Detail)
		}
		rows = append(rows, []string{"Tracks", text})
	}
	s := v.Stats
	rows = append(rows,
		[]string{"Advertisements", fmt.Sprintf("%d received, %d sent", s.AdvertRcvd, s.AdvertSent)},
		[]string{"Became master", fmt.Sprintf("%d times, released %d times", s.BecomeMaster, s.ReleaseMaster)},
		[]string{"Priority 0", fmt.Sprintf("%d received, %d sent", s.PriZeroRcvd, s.PriZeroSent)},
		[]string{"Late timers", fmt.Sprintf("%d, at most %v late", s.LateTimers, s.MaxLate)})
	var bad []string
	for _, e := range []struct {
		name string
		n    uint64
	}{{"length", s.PacketLenErr}, {"checksum", s.ChecksumErr}, {"interval", s.AdvertIntervalErr}, {"TTL", s.IPTTLErr},
		{"version", s.VersionErr}, {"type", s.InvalidTypeRcvd}, {"addresses", s.AddrListErr}, {"authentication type", s.InvalidAuthtype + s.AuthtypeMismatch},
		{"authentication", s.AuthFailure}, {"sending", s.SendErr}} {
		if e.n > 0 {
			bad = append(bad, fmt.Sprintf("%d %s", e.n, e.name))
		}
	}
	if bad != nil {
		rows = append(rows, []string{"Errors", strings.Join(bad, ", ")})
	}
	table(b, "", rows)
}
