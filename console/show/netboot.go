package show

import (
	"fmt"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Netboot renders what boots from this box.
func Netboot(st status.Netboot, now time.Time) string {
	var b strings.Builder
	f := st.Firmware
	switch {
	case len(st.Boxes) == 0:
		b.WriteString("no box is served: write a netboot block, or give \"netboot serve MAC as NAME\"\n")
		return b.String()
	case f.Version == "":
		fmt.Fprintf(&b, "Firmware     NONE: %s\n", printable.Line(f.Error))
	default:
		fmt.Fprintf(&b, "Firmware     %s for %s, %s, from %s\n", printable.Line(f.Version), printable.Line(f.Board), size(f.Size), f.Source)
		if f.Error != "" {
			fmt.Fprintf(&b, "             %s\n", printable.Line(f.Error))
		}
	}
	for _, x := range st.Boxes {
		b.WriteString("\n" + NetbootBox(x, now))
	}
	return b.String()
}

func size(n int64) string {
	if n < 100_000 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// NetbootBox renders one box that is served.
func NetbootBox(x status.NetbootBox, now time.Time) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("Box", "%s, %s", printable.Line(x.Name), x.MAC)
	if x.Error != "" {
		line("Served", "NO: %s", printable.Line(x.Error))
	} else {
		line("Served", "on %s by %s, %s", printable.Line(x.Interface), x.Server, dhcpOf(x))
	}
	switch {
	case x.Until.IsZero():
		line("For", "as long as the configuration says so")
	case now.Before(x.Until):
		line("For", "%s more, asked by %s", Age(now, x.Until), orDash(x.By))
	default:
		line("For", "no more")
	}
	if x.PublicKey != "" {
		line("Host key", "%s", x.HostKey)
		if !x.PeerKeyHere {
			// To be pasted: it is not folded.
			fmt.Fprintf(&b, "! the peer block here has another key: commit this line for this box, or both stand alone\n    key \"%s %s\"\n", x.PublicKey, printable.Line(x.Name))
		}
	}
	if x.Given > 0 {
		line("Has", "generation %d, for %s", x.Given, Age(x.GivenAt, now))
	}
	if t := x.Transfer; t != nil {
		percent := int64(100)
		if t.Size > 0 {
			percent = 100 * t.Sent / t.Size
		}
		line("Now", "%s by %s: %d%% of %s", printable.Line(t.File), t.By, percent, size(t.Size))
	}
	if len(x.Events) > 0 {
		var rows [][]string
		for _, e := range x.Events {
			rows = append(rows, []string{e.Time.Format("15:04:05"), printable.Line(e.Text)})
		}
		table(&b, "    ", rows)
	}
	return b.String()
}

func dhcpOf(x status.NetbootBox) string {
	switch {
	case x.DHCP == "server":
		return fmt.Sprintf("gets the address %s from this box", x.Address)
	case x.DHCP == "proxy" && x.Other.IsValid():
		return fmt.Sprintf("beside the DHCP server %s", x.Other)
	case x.DHCP == "proxy":
		return "beside another DHCP server"
	}
	return fmt.Sprintf("address %s, unless there is another DHCP server", x.Address)
}
