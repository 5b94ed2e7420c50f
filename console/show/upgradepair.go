package show

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// pairPhases are the phases of an upgrade of a pair, in their order, and what
// they are about; box 0 is the first that reboots.
var pairPhases = []struct {
	name, text string
	box        int
}{
	{"yield", "%s gives up what it is master of", 0},
	{"first trial", "%s boots the new firmware", 0},
	{"first ready", "%s gets ready to take over", 0},
	{"switchover", "%s takes over", 0},
	{"second trial", "%s boots the new firmware", 1},
	{"settle", "both boxes find their places", -1},
	{"done", "done: both boxes run it", -1},
}

// FirmwarePair renders how far an upgrade of both boxes of a pair is.
func FirmwarePair(st status.FirmwarePair, now time.Time) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		wrapped(&b, fmt.Sprintf("%-10s ", name), strings.Fields(printable.Line(fmt.Sprintf(format, args...))))
	}
	line("Pair", "upgrade to %s by %s, %s ago: %s first, then %s", st.To, st.By, Age(st.Began, now), st.Boxes[0], st.Boxes[1])
	for i, p := range pairPhases {
		at, ok := st.Times[p.name]
		if !ok {
			continue
		}
		text := p.text
		if p.box >= 0 {
			text = fmt.Sprintf(p.text, st.Boxes[p.box])
		}
		took := ""
		if end := pairNext(st, i); !end.IsZero() {
			took = fmt.Sprintf(" (%s)", end.Sub(at).Round(time.Second))
		} else if st.Goes {
			took = fmt.Sprintf(", for %s", Age(at, now))
		}
		line("", "%s %s%s", at.Format("15:04:05"), text, took)
	}
	switch {
	case st.Stopped != "":
		line("", "STOPPED while %s: %s", st.Doing, st.Stopped)
		line("", "%s", st.Sequel)
	case st.Silent != "":
		line("", "%s", st.Silent)
	case st.Waiting != "":
		line("", "waits: %s", st.Waiting)
	}
	return b.String()
}

// pairNext is when phase i, which has begun, ended; zero: it has not.
func pairNext(st status.FirmwarePair, i int) time.Time {
	at := st.Times[pairPhases[i].name]
	for _, p := range pairPhases[i+1:] {
		if t, ok := st.Times[p.name]; ok && !t.Before(at) {
			return t
		}
	}
	return time.Time{}
}

// PairBar shows how far both boxes have written a bundle: a line that is drawn
// again and again on a terminal, else one that only grows.
type PairBar struct {
	Width int // of the terminal; 0: there is none
	Print func(text string)

	boxes []pairBox
	drawn int // tenths of the line that grows
	open  bool
}

type pairBox struct {
	name     string
	step     string
	percent  int
	verified bool
}

// Draw shows how far a box is.
func (b *PairBar) Draw(p status.FirmwarePairProgress) {
	if p.Total <= 0 {
		return
	}
	name := printable.Line(p.Box)
	i := slices.IndexFunc(b.boxes, func(x pairBox) bool { return x.name == name })
	if i < 0 {
		i = len(b.boxes)
		b.boxes = append(b.boxes, pairBox{name: name})
	}
	x := &b.boxes[i]
	x.step, x.percent = phase(p.Step), int(100*min(p.Done, p.Total)/p.Total)
	x.verified = x.verified || x.step == "verify"
	if b.Width > 0 {
		b.redraw()
		return
	}
	// The slower box counts.
	least := 100
	for _, x := range b.boxes {
		if !x.verified {
			least = min(least, x.percent)
		}
	}
	for ; b.drawn < least/10; b.drawn++ {
		if b.drawn == 0 {
			b.Print("write   ")
			b.open = true
		}
		b.Print(fmt.Sprintf(" %d%%", 10*(b.drawn+1)))
	}
}

func (b *PairBar) redraw() {
	var parts []string
	room := (b.Width - 2) / max(len(b.boxes), 1)
	for _, x := range b.boxes {
		head, tail := x.name+" "+x.step+" ", fmt.Sprintf(" %3d%%", x.percent)
		if n := min(30, room-len(head)-len(tail)-4); n >= 5 {
			full := n * x.percent / 100
			tail = "[" + strings.Repeat("#", full) + strings.Repeat(" ", n-full) + "]" + tail
		}
		parts = append(parts, head+tail)
	}
	text := strings.Join(parts, "  ")
	b.Print("\r" + text + "  ")
	b.open = true
}

// End ends the line.
func (b *PairBar) End() {
	if b.open {
		b.Print("\n")
		b.open = false
	}
}
