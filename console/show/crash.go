package show

import (
	"fmt"
	"strings"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Crashes lists the records of crashes, newest first, and how the box came to start.
func Crashes(list []status.Crash, start status.Start) string {
	var b strings.Builder
	if start.Why != "" {
		wrapped(&b, "Last start  ", strings.Fields(printable.Line(start.Why)))
	}
	if len(list) == 0 {
		b.WriteString("no crash is recorded\n")
		return b.String()
	}
	rows := [][]string{{"Crash", "When", "Kind", "Firmware", "Seen", "What"}}
	for _, c := range list {
		seen := "no"
		if c.Seen {
			seen = "yes"
		}
		rows = append(rows, []string{fmt.Sprint(c.Number), c.Time.UTC().Format("2006-01-02 15:04:05Z"), printable.Line(c.Kind), firmware(c), seen, printable.Line(c.Summary)})
	}
	b.WriteByte('\n')
	table(&b, "", rows)
	return b.String()
}

func firmware(c status.Crash) string {
	v := printable.Line(c.Version)
	if c.Slot != "" {
		v += " (" + printable.Line(c.Slot) + ")"
	}
	if v == "" {
		return "-"
	}
	return v
}

// Crash renders one record with its texts.
func Crash(r status.CrashReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Crash %d, %s\n", r.Number, r.Time.UTC().Format("2006-01-02 15:04:05Z"))
	fmt.Fprintf(&b, "  Kind      %s\n  Firmware  %s\n", printable.Line(r.Kind), firmware(r.Crash))
	wrapped(&b, "  What      ", strings.Fields(printable.Line(r.Summary)))
	if len(r.Parts) == 0 {
		b.WriteString("  nothing else is left of it\n")
	}
	for _, p := range r.Parts {
		fmt.Fprintf(&b, "\n--- %s\n", printable.Line(p.Name))
		for line := range strings.Lines(p.Text) {
			b.WriteString(printable.Line(strings.TrimRight(line, "\r\n")) + "\n")
		}
	}
	return b.String()
}
