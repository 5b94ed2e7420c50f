package show

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Audit renders what users did, oldest first. Lines are not folded: people
// search them.
func Audit(list []status.AuditEntry) string {
	if len(list) == 0 {
		return "nothing was done yet\n"
	}
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s %s from %s", e.Time.UTC().Format("2006-01-02 15:04:05"), printable.Line(e.User), printable.Line(e.Address))
		if e.Key != "" {
			fmt.Fprintf(&b, " (%s)", shortKey(e.Key))
		}
		fmt.Fprintf(&b, ": %s: %s\n", printable.Line(e.Command), printable.Line(e.Result))
	}
	return b.String()
}

// shortKey is enough of a fingerprint to tell keys of one user apart.
func shortKey(fingerprint string) string {
	return printable.Line(fingerprint[:min(len(fingerprint), len("SHA256:")+8)])
}

// Sessions renders who is on the box.
func Sessions(st status.Console, now time.Time) string {
	rows := [][]string{{"ID", "User", "Role", "Address", "Since", "Last", "Kind", "Key"}}
	for _, s := range st.Sessions {
		key := "-"
		if s.Key != "" {
			key = shortKey(s.Key)
		}
		rows = append(rows, []string{strconv.FormatUint(s.ID, 10), printable.Line(s.User), s.Role, printable.Line(s.Address),
			Age(s.Since, now), Age(s.Last, now), s.Kind, key})
	}
	var b strings.Builder
	table(&b, "", rows)
	return b.String()
}
