// Package show renders the states of the services as text for an operator: at
// most 80 columns where the data allow it, sorted, with ages instead of dates.
// Everything is a pure function of the state and of the time now.
package show

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ballast/configs/model"
	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Width is the number of columns that the output is laid out for.
const Width = 80

// Age prints how long ago t was, in at most six columns: "12s", "3m05s",
// "4h12m", "6d03h", "312d"; "-" for the zero time.
func Age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	if d < 0 {
		d = 0 // another clock set this time, or ours was stepped back
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d < 100*24*time.Hour:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// table lays rows out in columns two blanks apart. The last column is not
// padded; where it would go beyond Width it is folded under itself.
func table(b *strings.Builder, indent string, rows [][]string) {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i >= len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, r := range rows {
		line := indent
		for i, cell := range r[:max(0, len(r)-1)] {
			line += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
		}
		if len(r) == 0 || utf8.RuneCountInString(line+r[len(r)-1]) <= Width {
			if len(r) > 0 {
				line += r[len(r)-1]
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			continue
		}
		wrapped(b, line, strings.Fields(r[len(r)-1]))
	}
}

// wrapped writes words with a label before the first line, folded at Width.
func wrapped(b *strings.Builder, label string, words []string) {
	line := label
	for i, w := range words {
		if i > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > Width {
			b.WriteString(line + "\n")
			line = strings.Repeat(" ", utf8.RuneCountInString(label))
		} else if i > 0 {
			line += " "
		}
		line += w
	}
	b.WriteString(line + "\n")
}

// Problems renders the findings of a check, errors first, then its sum.
func Problems(ps []model.Problem) string {
	if len(ps) == 0 {
		return "no faults found\n"
	}
	var b strings.Builder
	count := map[model.Severity]int{}
	for _, p := range ps {
		count[p.Severity]++
		b.WriteString(printable.Line(p.String()) + "\n")
	}
	var sum []string
	for _, s := range []struct {
		sev       model.Severity
		one, many string
	}{{model.Error, "error", "errors"}, {model.Warning, "warning", "warnings"}, {model.Note, "note", "notes"}} {
		switch n := count[s.sev]; {
		case n == 1:
			sum = append(sum, "1 "+s.one)
		case n > 1:
			sum = append(sum, strconv.Itoa(n)+" "+s.many)
		}
	}
	b.WriteString(strings.Join(sum, ", ") + "\n")
	return b.String()
}

// applied tells when a service is behind or unhappy with the configuration.
func applied(a status.Applied) string {
	if a.Error == "" {
		return ""
	}
	return "! configuration not applied in full: " + printable.Line(a.Error) + "\n"
}

// Log renders log lines, oldest first.
func Log(lines []status.LogLine) string {
	var b strings.Builder
	for _, l := range lines {
		mark := ""
		switch {
		case l.Priority <= 3:
			mark = "error: "
		case l.Priority == 4:
			mark = "warning: "
		}
		fmt.Fprintf(&b, "%s %-7s %s%s\n", l.Time.UTC().Format("Jan _2 15:04:05.000"), printable.Line(l.Service), mark, printable.Line(l.Text))
	}
	if len(lines) == 0 {
		return "nothing logged\n"
	}
	return b.String()
}

// History renders the generations of the configuration, newest first.
func History(gens []status.Generation, now time.Time) string {
	rows := [][]string{{"", "Gen", "Age", "Source", "Author", "Comment"}}
	for _, g := range gens {
		mark := ""
		if g.Running {
			mark = "*"
		}
		source := printable.Line(g.Source)
		if g.Pending {
			source += ", not confirmed"
		}
		rows = append(rows, []string{mark, strconv.FormatUint(g.Generation, 10), Age(g.Time, now), source, printable.Line(g.Author), printable.Line(g.Comment)})
	}
	var b strings.Builder
	table(&b, "", rows)
	return b.String()
}

// Files renders the script files kept with the configuration.
func Files(files []status.File) string {
	if len(files) == 0 {
		return "no files\n"
	}
	slices.SortFunc(files, func(a, b status.File) int { return strings.Compare(a.Path, b.Path) })
	rows := [][]string{{"Mode", "Size", "Path"}}
	for _, f := range files {
		rows = append(rows, []string{fmt.Sprintf("%04o", f.Mode), strconv.Itoa(f.Size), printable.Line(f.Path)})
	}
	var b strings.Builder
	table(&b, "", rows)
	return b.String()
}

// Version renders what runs on the box.
func Version(in status.Init, c status.Conf, now time.Time) string {
	var b strings.Builder
	rows := [][]string{
		{"Ballast", printable.Line(in.Version)},
		{"Kernel", printable.Line(in.Kernel)},
		{"Board", printable.Line(in.Board)},
		{"Up", Age(in.Started, now)},
		{"Watchdog", printable.Line(in.Watchdog)},
	}
	if in.Start.Why != "" {
		rows = append(rows, []string{"Last start", printable.Line(in.Start.Why)})
	}
	if in.MemTotal > 0 {
		rows = append(rows, []string{"Memory", bytesText(in.MemTotal-in.MemFree) + " used of " + bytesText(in.MemTotal)})
	}
	if in.Stateless {
		rows = append(rows, []string{"Data disk", "none: commits do not outlive a reboot"})
	}
	if c.Generation > 0 {
		by := ""
		if c.Author != "" {
			by = " by " + printable.Line(c.Author)
		}
		rows = append(rows, []string{"Configuration", fmt.Sprintf("generation %d, %s%s, %s ago", c.Generation, c.Source, by, Age(c.Time, now))})
	}
	switch {
	case c.Pending != nil:
		rows = append(rows, []string{"Not confirmed", fmt.Sprintf("generation %d runs again in %s", c.Pending.Back, Age(now, c.Pending.Deadline))})
	case c.Reverted != "":
		rows = append(rows, []string{"Rolled back", printable.Line(c.Reverted)})
	}
	table(&b, "", rows)
	if len(c.Problems) > 0 {
		b.WriteString("\nFound when the configuration was loaded at boot:\n" + Problems(c.Problems))
	}
	return b.String()
}

// Processes renders the service processes.
func Processes(in status.Init, now time.Time) string {
	rows := [][]string{{"Service", "PID", "State", "For", "Restarts", "RSS", "PSS", "CPU", "Last exit"}}
	for _, p := range in.Services {
		pid, rss, pss, cpu := "-", "-", "-", "-"
		if p.PID != 0 {
			pid, rss, pss, cpu = strconv.Itoa(p.PID), bytesText(p.RSS), bytesText(p.PSS), p.CPU.Round(10*time.Millisecond).String()
		}
		rows = append(rows, []string{printable.Line(p.Name), pid, p.State, Age(p.Since, now), strconv.Itoa(p.Restarts), rss, pss, cpu, printable.Line(p.LastExit)})
	}
	var b strings.Builder
	table(&b, "", rows)
	return b.String()
}

// Interfaces renders links with their addresses.
func Interfaces(n status.Net) string {
	var b strings.Builder
	b.WriteString(applied(n.Applied))
	rows := [][]string{{"Interface", "State", "Speed", "MTU", "MAC", "Rx", "Tx", "Errors"}}
	links := slices.Clone(n.Links)
	slices.SortFunc(links, func(a, b status.Link) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range links {
		speed := "-"
		if l.Speed > 0 {
			speed = strconv.Itoa(l.Speed)
		}
		rows = append(rows, []string{printable.Line(l.Name), linkState(l), speed, strconv.Itoa(l.MTU), l.MAC, bytesText(l.RxBytes), bytesText(l.TxBytes),
			strconv.FormatUint(l.RxErrors+l.TxErrors+l.RxDropped+l.TxDropped, 10)})
	}
	table(&b, "", rows)
	rows = rows[:0]
	for _, l := range links {
		for i, a := range l.Addresses {
			name := printable.Line(l.Name)
			if i > 0 {
				name = ""
			}
			rows = append(rows, []string{name, a.Prefix.String(), a.Origin})
		}
	}
	if len(rows) > 0 {
		b.WriteString("\n")
		table(&b, "", append([][]string{{"Interface", "Address", "From"}}, rows...))
	}
	for i, v := range n.NoAccept {
		if i == 0 {
			b.WriteString("\nThe box does not answer for itself on (no_accept):\n")
		}
		fmt.Fprintf(&b, "  %s, %d packets dropped\n", v.Addr, v.Packets)
	}
	return b.String()
}

func linkState(l status.Link) string {
	switch {
	case !l.Up:
		return "off"
	case !l.Carrier:
		return "no carrier"
	case l.Master != "":
		return "up in " + printable.Line(l.Master)
	}
	return "up"
}

// Routes renders the main table.
func Routes(n status.Net) string {
	rows := [][]string{{"Destination", "Via", "Interface", "Source", "Metric", "From"}}
	for _, r := range n.Routes {
		via, src := "-", "-"
		if r.Via.IsValid() {
			via = r.Via.String()
		}
		if r.Src.IsValid() {
			src = r.Src.String()
		}
		dst := r.Dst.String()
		if r.Dst.IsValid() && r.Dst.Bits() == 0 {
			dst = "default"
		}
		rows = append(rows, []string{dst, via, printable.Line(r.Interface), src, strconv.FormatUint(uint64(r.Metric), 10), r.Origin})
	}
	var b strings.Builder
	table(&b, "", rows)
	for _, m := range n.Missing {
		group := ""
		if m.Group != "" {
			group = " (track_group " + printable.Line(m.Group) + ")"
		}
		b.WriteString("! missing" + group + ": " + printable.Line(m.What) + "\n")
	}
	return b.String()
}

// Marks renders the mark rules with their counters.
func Marks(n status.Net) string {
	if len(n.Marks) == 0 {
		return "no marks\n"
	}
	rows := [][]string{{"Mark", "Rule", "Packets", "Bytes"}}
	for _, m := range n.Marks {
		rows = append(rows, []string{strconv.FormatUint(uint64(m.Mark), 10), printable.Line(m.Rule), strconv.FormatUint(m.Packets, 10), strconv.FormatUint(m.Bytes, 10)})
	}
	var b strings.Builder
	table(&b, "", rows)
	return b.String()
}

// Firewall renders the input filter with its counters.
func Firewall(n status.Net) string {
	if n.Firewall == nil {
		return "the filter is not set yet\n"
	}
	rows := [][]string{{"Rule", "Does", "Packets", "Bytes"}}
	for _, r := range n.Firewall.Rules {
		rows = append(rows, []string{printable.Line(r.Rule), r.Does, strconv.FormatUint(r.Packets, 10), strconv.FormatUint(r.Bytes, 10)})
	}
	var b strings.Builder
	table(&b, "", rows)
	b.WriteString("\nThe first rule that fits counts. What IPVS balances does not come here.\n")
	return b.String()
}

// bytesText prints a size with three digits or so: "812", "14.2K", "3.1G".
func bytesText(v uint64) string {
	f, unit := float64(v), ""
	for _, u := range []string{"K", "M", "G", "T", "P"} {
		if f < 1000 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "" {
		return strconv.FormatUint(v, 10)
	}
	if f >= 100 {
		return fmt.Sprintf("%.0f%s", f, unit)
	}
	return fmt.Sprintf("%.1f%s", f, unit)
}
