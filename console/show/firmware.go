package show

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// eventsShown is how many upgrades of the past are listed.
const eventsShown = 10

// Firmware renders the slots, a trial, and what became of the last upgrades.
func Firmware(st status.Firmware, now time.Time) string {
	var b strings.Builder
	field := func(name, format string, args ...any) {
		wrapped(&b, fmt.Sprintf("%-10s ", name), strings.Fields(printable.Line(fmt.Sprintf(format, args...))))
	}
	field("Running", "%s, board %s, kernel %s", st.Running, cmp.Or(st.Running.Board, "unknown"), cmp.Or(st.Running.Kernel, "unknown"))
	for _, s := range st.Slots {
		text := s.State
		if s.Identity.Version != "" {
			text = fmt.Sprintf("%s, %s", s.Identity, s.State)
		}
		if s.Name == st.Slot {
			text += ", runs"
		}
		if s.Name == st.Next && st.Next != st.Slot {
			text += ", starts next"
		}
		if s.Error != "" {
			text += ": " + s.Error
		}
		field("Slot "+s.Name, "%s", text)
	}
	if st.Cannot != "" {
		field("Upgrade", "this box cannot: %s", st.Cannot)
	}
	if u := st.Upgrade; u != nil {
		field("Upgrade", "to %s by %s: %s, %d of %d MB", u.To, cmp.Or(u.By, "nobody known"), u.Step, u.Done/1e6, u.Total/1e6)
	}
	if t := st.Trial; t != nil {
		switch {
		case len(t.Missing) > 0:
			field("Trial", "rejected in %s unless it does its job; missing:", Age(now, t.Until))
			for _, m := range t.Missing {
				field("", "%s", m)
			}
		default:
			field("Trial", "nothing is missing; confirmed when that stays so for a moment")
		}
		field("", "\"confirm firmware\" keeps it, \"rollback firmware\" takes it back")
	}
	if st.Pair != nil {
		b.WriteString(FirmwarePair(*st.Pair, now))
	}
	if st.Trial == nil && st.Notice != "" && (st.Pair == nil || st.Pair.Done) {
		field("Notice", "%s", st.Notice)
	}
	for i, k := range st.Keys {
		name := "Keys"
		if i > 0 {
			name = ""
		}
		field(name, "%s", k)
	}
	if len(st.History) == 0 {
		return b.String()
	}
	b.WriteString("History\n")
	for _, e := range st.History[max(0, len(st.History)-eventsShown):] {
		verdict := cmp.Or(e.Verdict, "not decided")
		if e.Reason != "" {
			verdict += ": " + e.Reason
		}
		text := fmt.Sprintf("%s %s -> %s by %s: %s", e.Kind, cmp.Or(e.From.Version, "?"), cmp.Or(e.To.Version, "?"), cmp.Or(e.By, "?"), verdict)
		wrapped(&b, "  "+e.Time.Format("2006-01-02 15:04")+"  ", strings.Fields(printable.Line(text)))
	}
	return b.String()
}

// Bar shows how far a transfer is: a line that is drawn again and again on a
// terminal, else one that only grows, which reads well in a file too.
type Bar struct {
	Width int // of the terminal; 0: there is none
	Print func(text string)

	what  string
	begun time.Time
	drawn int // of the line that grows: tenths
}

// Draw shows a step.
func (b *Bar) Draw(what string, done, total int64, now time.Time) {
	if total <= 0 {
		return
	}
	step := phase(what)
	if step != b.what {
		b.End()
		b.what, b.begun, b.drawn = step, now, -1
	}
	percent := int(100 * min(done, total) / total)
	if b.Width > 0 {
		b.redraw(percent, done, total, now)
		return
	}
	if b.drawn < 0 {
		b.Print(fmt.Sprintf("%-8s", step))
		b.drawn = 0
	}
	for ; b.drawn < percent/10; b.drawn++ {
		b.Print(fmt.Sprintf(" %d%%", 10*(b.drawn+1)))
	}
}

// phase is what a step is called on a bar: all parts of a bundle are one.
func phase(what string) string {
	if what == "verify" {
		return "verify"
	}
	return "write"
}

func (b *Bar) redraw(percent int, done, total int64, now time.Time) {
	tail := fmt.Sprintf("%4d%% %d of %d MB", percent, done/1e6, total/1e6)
	if took := now.Sub(b.begun).Seconds(); took >= 1 {
		tail += fmt.Sprintf(", %.1f MB/s", float64(done)/1e6/took)
	}
	head := fmt.Sprintf("%-8s", b.what)
	room := min(40, b.Width-len(head)-len(tail)-4)
	if room < 5 {
		b.Print("\r" + head + tail + "  ")
		return
	}
	full := room * percent / 100
	b.Print("\r" + head + "[" + strings.Repeat("#", full) + strings.Repeat(" ", room-full) + "]" + tail + "  ")
}

// End ends the line.
func (b *Bar) End() {
	if b.what != "" {
		b.Print("\n")
		b.what = ""
	}
}
