package show

import (
	"fmt"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Journal renders transitions, oldest first. Lines are not folded: people
// search them.
func Journal(list []status.Entry) string {
	if len(list) == 0 {
		return "nothing happened yet\n"
	}
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s %-7s %s\n", e.Time.UTC().Format("Jan _2 15:04:05.000"), printable.Line(e.Service), transition(e.Transition))
	}
	return b.String()
}

func transition(t status.Transition) string {
	text := printable.Line(t.Object) + ": "
	if t.From != "" {
		text += printable.Line(t.From) + " -> "
	}
	text += printable.Line(t.To)
	if t.Reason != "" {
		text += ": " + printable.Line(t.Reason)
	}
	return text
}

// lately renders the newest transitions of one object under a heading.
func lately(b *strings.Builder, list []status.Entry, now time.Time) {
	if len(list) == 0 {
		return
	}
	b.WriteString("\n  Last changes\n")
	for _, e := range list[max(0, len(list)-10):] {
		text := printable.Line(e.To)
		if e.From != "" {
			text = printable.Line(e.From) + " -> " + text
		}
		if e.Reason != "" {
			text += ": " + printable.Line(e.Reason)
		}
		label := fmt.Sprintf("    %-11s ", Age(e.Time, now)+" ago")
		wrapped(b, label, strings.Fields(text))
	}
}
