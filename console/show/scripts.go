package show

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Scripts renders what trackers read through notify, and what else it ran.
func Scripts(st status.Notify, now time.Time) string {
	var b strings.Builder
	b.WriteString(applied(st.Applied))
	section := func(rows [][]string) {
		if len(rows) < 2 {
			return
		}
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		table(&b, "", rows)
	}
	rows := [][]string{{"Script", "State", "Last run", "Took", "Came of it"}}
	for _, r := range st.Scripts {
		state := "failed"
		switch {
		case r.Missing:
			state = "MISSING"
		case !r.Known:
			state = "unknown"
		case r.OK:
			state = "OK"
		}
		took := "-"
		if !r.Last.IsZero() {
			took = r.Took.Round(100 * time.Microsecond).String()
		}
		rows = append(rows, []string{printable.Line(r.Name), state, since(r.Last, now), took, printable.Line(r.Detail)})
	}
	section(rows)
	rows = [][]string{{"Track file", "Value", "Changed", "Remark"}}
	for _, f := range st.Files {
		rows = append(rows, []string{printable.Line(f.Name), strconv.Itoa(f.Value), since(f.Last, now), printable.Line(f.Detail)})
	}
	section(rows)
	rows = [][]string{{"Process", "State", "Count", "Changed", "Remark"}}
	for _, p := range st.Processes {
		state := "failed"
		if p.OK {
			state = "OK"
		}
		remark := printable.Line(p.Detail)
		if !p.Since.IsZero() {
			remark = strings.TrimPrefix(remark+"; a delay runs for "+Age(p.Since, now), "; ")
		}
		rows = append(rows, []string{printable.Line(p.Name), state, strconv.Itoa(p.Count), since(p.Last, now), remark})
	}
	section(rows)
	var lines []string
	if st.Startup != "" {
		lines = append(lines, "startup_script: "+printable.Line(st.Startup))
	}
	if st.MailSent+st.MailFailed > 0 {
		lines = append(lines, fmt.Sprintf("mail: %d sent, %d failed", st.MailSent, st.MailFailed))
	}
	if st.LastMailError != "" {
		lines = append(lines, "! last fault of mail: "+printable.Line(st.LastMailError))
	}
	if st.Dropped > 0 {
		lines = append(lines, fmt.Sprintf("! %d notify scripts found no room in their queue and did not run", st.Dropped))
	}
	if st.Missed > 0 {
		lines = append(lines, fmt.Sprintf("! %d transitions came faster than they could be read: nothing tells of them", st.Missed))
	}
	if len(lines) > 0 && b.Len() > 0 {
		b.WriteString("\n")
	}
	for _, l := range lines {
		wrapped(&b, "", strings.Fields(l))
	}
	if b.Len() == 0 {
		return "no vrrp_script, track_file, track_process or startup_script is configured\n"
	}
	return b.String()
}

// FIFOs renders the notify pipes.
func FIFOs(st status.Notify) string {
	if len(st.FIFOs) == 0 {
		return applied(st.Applied) + "no notify pipe is configured\n"
	}
	var b strings.Builder
	b.WriteString(applied(st.Applied))
	rows := [][]string{{"Pipe", "Written", "Waiting", "Dropped", "Reader"}}
	for _, f := range st.FIFOs {
		reader := printable.Line(f.Reader)
		switch {
		case f.Error != "":
			reader = "NO PIPE: " + printable.Line(f.Error)
		case reader == "":
			reader = "not ours"
		}
		rows = append(rows, []string{printable.Line(f.Path), strconv.FormatUint(f.Written, 10), strconv.Itoa(f.Waiting), strconv.FormatUint(f.Dropped, 10), reader})
	}
	table(&b, "", rows)
	return b.String()
}

// since is how long ago t was; "never" for none.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return Age(t, now) + " ago"
}
