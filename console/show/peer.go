package show

import (
	"fmt"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Peer renders this box and the other one of its pair.
func Peer(st status.PairState, wire status.Peer, now time.Time) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	// To be pasted: it is not folded.
	fmt.Fprintf(&b, "This box, in the peer block of the other one:\n    key \"%s %s\"\n", printable.Line(wire.PublicKey), printable.Line(st.Own.Box))
	if !st.Configured {
		b.WriteString("no peer is configured: this box stands alone\n")
		return b.String()
	}
	name := printable.Line(st.Peer.Box)
	if name == "" {
		name = "not seen yet"
	}
	line("Peer", "%s at %s", name, st.Addr)
	switch {
	case wire.Error != "":
		line("Listening", "NO: %s", printable.Line(wire.Error))
	case wire.Listening == "":
		line("Listening", "NO: not yet")
	default:
		line("Listening", "%s", wire.Listening)
	}
	switch {
	case st.Reachable:
		line("Reachable", "yes, for %s", Age(st.Since, now))
	case st.Error == "":
		line("Reachable", "not tried yet")
	default:
		line("Reachable", "NO, for %s: it %s", Age(st.Since, now), printable.Line(st.Error))
	}
	switch {
	case st.Seen.IsZero():
		line("In step", "not known: it has not been seen since this box started")
	case st.Drift:
		line("In step", "NO: the boxes run different configurations; see \"show drift\"")
	case !st.Reachable:
		line("In step", "yes, when it was seen last %s ago", Age(st.Seen, now))
	default:
		line("In step", "yes")
	}
	if st.Updating != "" {
		line("Updating", "%s", printable.Line(st.Updating))
	}
	switch st.Doubt {
	case "":
	case "late":
		line("In doubt", "a commit of the peer whose outcome is not known here: it runs as soon as the peer answers and has kept it")
	default:
		line("In doubt", "a commit of the peer is under way")
	}
	rows := [][]string{{"Box", "Gen", "Age", "Source", "Author", "Content"}}
	for _, s := range []status.PairSide{st.Own, st.Peer} {
		if s.Content == "" {
			continue
		}
		rows = append(rows, []string{printable.Line(s.Box), fmt.Sprint(s.Generation), Age(s.Time, now), printable.Line(s.Source), orDash(s.Author), printable.Short(s.Content, 12)})
	}
	table(&b, "", rows)
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable.Line(s)
}

// Drift renders in what the configurations of a pair differ.
func Drift(d status.Drift, now time.Time) string {
	st := d.State
	var b strings.Builder
	switch {
	case !st.Configured:
		return "no peer is configured: this box stands alone\n"
	case st.Seen.IsZero():
		return fmt.Sprintf("not known: the peer has not been seen since this box started: it %s\n", printable.Line(st.Error))
	case !st.Drift && st.Reachable:
		return fmt.Sprintf("none: %s and %s run the same\n", printable.Line(st.Own.Box), printable.Line(st.Peer.Box))
	case !st.Drift:
		return fmt.Sprintf("none %s ago; since then the peer %s\n", Age(st.Seen, now), printable.Line(st.Error))
	}
	side := func(sign string, s status.PairSide) {
		fmt.Fprintf(&b, "%s %s  generation %d, %s by %s %s ago\n", sign, printable.Line(s.Box), s.Generation, printable.Line(s.Source), orDash(s.Author), Age(s.Time, now))
	}
	side("---", st.Peer)
	side("+++", st.Own)
	if !st.Reachable {
		fmt.Fprintf(&b, "what differs cannot be shown, the peer\n%s\n", printable.Line(st.Error))
	}
	for _, l := range strings.SplitAfter(d.Diff, "\n") {
		if !strings.HasPrefix(l, "--- ") && !strings.HasPrefix(l, "+++ ") {
			b.WriteString(l)
		}
	}
	for _, f := range d.Files {
		fmt.Fprintf(&b, "file %s\n", printable.Line(f))
	}
	b.WriteString("\"peer push\" makes both run what runs here, \"peer pull\" what runs there;\na commit heals it too\n")
	return b.String()
}
