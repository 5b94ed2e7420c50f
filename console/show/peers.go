package show

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Heartbeat renders the private heartbeat: its paths, and what the peer says of
// the virtual routers that both boxes have.
func Heartbeat(st status.VRRP, now time.Time) string {
	h := st.Heartbeat
	if h == nil {
		return "no heartbeat is configured: a dead master is found by VRRP's own timers\n"
	}
	var b strings.Builder
	word := "UP"
	if !h.Up {
		word = "DOWN"
	}
	fmt.Fprintf(&b, "peer %s for %s; silence of %v means that it is lost\n", word, Age(h.Since, now), h.Detect.Round(100*time.Microsecond))
	rows := [][]string{{"Path", "Interface", "State", "For", "Last heard", "Sent", "Received", "Rejected"}}
	for _, p := range h.Paths {
		state := "up"
		if !p.Up {
			state = "DOWN"
		}
		dev := printable.Line(p.Interface)
		if dev == "" {
			dev = "-"
		}
		rows = append(rows, []string{p.Peer.String(), dev, state, Age(p.Since, now), since(p.Last, now),
			strconv.FormatUint(p.Sent, 10), strconv.FormatUint(p.Received, 10), strconv.FormatUint(p.Rejected, 10)})
	}
	table(&b, "", rows)
	if h.Up && len(h.Routers) > 0 {
		b.WriteString("\n")
		rows = [][]string{{"Instance", "At the peer", "Priority"}}
		for _, r := range h.Routers {
			rows = append(rows, []string{printable.Line(r.Instance), printable.Line(r.State), strconv.Itoa(r.Priority)})
		}
		table(&b, "", rows)
	}
	return b.String()
}

// BFD renders the BFD sessions.
func BFD(st status.VRRP, now time.Time) string {
	if len(st.BFD) == 0 {
		return "no bfd_instance is configured\n"
	}
	rows := [][]string{{"Session", "Neighbor", "State", "For", "Interval", "Detect", "Sent", "Received"}}
	for _, s := range st.BFD {
		rows = append(rows, []string{printable.Line(s.Name), s.Neighbor.String(), printable.Line(s.State), Age(s.Since, now), s.Interval.String(), s.Detect.String(),
			strconv.FormatUint(s.Sent, 10), strconv.FormatUint(s.Received, 10)})
	}
	var t strings.Builder
	table(&t, "", rows)
	lines := strings.SplitAfter(t.String(), "\n")
	b := lines[0]
	for i, s := range st.BFD {
		b += lines[i+1]
		if s.Diagnostic != "" && s.State != "Up" {
			b += "  " + printable.Line(s.Diagnostic) + "\n"
		}
	}
	return b
}

// Timers renders how late the timers of the vrrp process were, and what the
// pacer did about it.
func Timers(l status.Lateness, p status.StandIn) string { return ownTimers(l) + standIn(p) }

func standIn(p status.StandIn) string {
	if !p.Connected {
		return "no stand-in: the pacer is away\n"
	}
	how := "at real-time priority"
	if !p.RealTime {
		how = "WITHOUT real-time priority"
	}
	b := fmt.Sprintf("the pacer stands in for %d advertisements, %s\nit sent %d, with vrrp at most %v overdue; own timer late by at most %v\n",
		p.Watched, how, p.Adverts, p.Late.Round(time.Microsecond), p.OwnLate.Round(time.Microsecond))
	if p.Failed > 0 {
		b += fmt.Sprintf("the kernel refused to send %d\n", p.Failed)
	}
	return b
}

func ownTimers(l status.Lateness) string {
	if l.Count == 0 {
		return "no timer fired yet\n"
	}
	how := "at real-time priority"
	if !l.RealTime {
		how = "WITHOUT real-time priority"
	}
	return fmt.Sprintf("%d timers of the vrrp process fired, %s\nlate by: half %v, 99 %% %v, 99.9 %% %v, at most %v\n",
		l.Count, how, l.P50, l.P99, l.P999, l.Max)
}
