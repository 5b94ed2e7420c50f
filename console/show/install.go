package show

import (
	"strings"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Disks renders what could be installed on.
func Disks(list []status.InstallTarget) string {
	var b strings.Builder
	rows := [][]string{}
	for _, t := range list {
		what := t.About
		if t.Refuse != "" {
			what = "NO: " + t.Refuse
		}
		rows = append(rows, []string{printable.Line(t.Disk), printable.Line(what)})
	}
	if len(rows) == 0 {
		return "    none\n"
	}
	table(&b, "    ", rows)
	return b.String()
}
