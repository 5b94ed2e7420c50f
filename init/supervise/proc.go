package supervise

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// Figures reads what /proc tells of a process: resident and proportional set
// size in bytes, and the processor time used. Zeros when it has ended.
func Figures(pid int) (rss, pss uint64, cpu time.Duration) {
	if pid <= 0 {
		return 0, 0, 0
	}
	dir := "/proc/" + itoa(pid) + "/"
	b, _ := os.ReadFile(dir + "smaps_rollup")
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		kb, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "Rss:":
			rss = kb << 10
		case "Pss:":
			pss = kb << 10
		}
	}
	b, _ = os.ReadFile(dir + "stat")
	// The name in parentheses may hold spaces; what counts comes behind it.
	if i := bytes.LastIndexByte(b, ')'); i >= 0 {
		if f := strings.Fields(string(b[i+1:])); len(f) > 12 {
			u, _ := strconv.ParseInt(f[11], 10, 64)
			s, _ := strconv.ParseInt(f[12], 10, 64)
			cpu = time.Duration(u+s) * (time.Second / 100) // USER_HZ
		}
	}
	return rss, pss, cpu
}
