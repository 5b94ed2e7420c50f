package notify

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// process is one process as the kernel shows it.
type process struct {
	pid  int
	comm string
	args []byte // /proc/PID/cmdline: each argument with a NUL behind it
}

// commMax is how much of a name the kernel keeps (TASK_COMM_LEN - 1).
const commMax = 15

// needsArgs reports whether the command line counts, and not only the name.
func needsArgs(t *model.TrackProcess) bool {
	return t.FullCommand || t.Match != "" || len(t.Argv) > 1
}

// matches reports whether a process is one that t counts, by keepalived's
// rules: by name, or by command line when parameters are asked for.
func matches(t *model.TrackProcess, p *process) bool {
	if len(t.Argv) == 0 {
		return false
	}
	if !needsArgs(t) {
		want := t.Argv[0]
		return p.comm == want[:min(len(want), commMax)]
	}
	name, args, ok := bytes.Cut(p.args, []byte{0})
	if !ok || string(name) != t.Argv[0] {
		return false
	}
	want := []byte(strings.Join(t.Argv[1:], "\x00") + "\x00")
	if len(t.Argv) == 1 {
		// full_command alone asks for no parameters, and so does a match without any.
		return true
	}
	switch t.Match {
	case "partial": // the first ones, whole
		return bytes.HasPrefix(args, want)
	case "initial": // the last one may be longer
		return bytes.HasPrefix(args, want[:len(want)-1])
	}
	return bytes.Equal(args, want)
}

// tracked is the state of one vrrp_track_process. Pure: the clock is handed in.
type tracked struct {
	conf  model.TrackProcess
	known bool
	ok    bool
	count int
	since time.Time // when want became another than ok; zero: it is not
	due   time.Time // when that counts
	last  time.Time
}

// inRange reports whether so many processes are right.
func inRange(t *model.TrackProcess, n int) bool {
	return n >= t.Quorum && (t.QuorumMax < 0 || n <= t.QuorumMax)
}

func wantedRange(t *model.TrackProcess) string {
	if t.QuorumMax < 0 {
		return "at least " + strconv.Itoa(t.Quorum)
	}
	return strconv.Itoa(t.Quorum) + " to " + strconv.Itoa(t.QuorumMax)
}

// observe takes a count and reports whether the verdict or the count is
// another one. The first count needs no delay; later ones wait fork_delay when
// processes came, terminate_delay when they went.
func (t *tracked) observe(n int, now time.Time) (news bool) {
	want := inRange(&t.conf, n)
	grew, changed := n > t.count, n != t.count
	t.count = n
	switch {
	case !t.known:
		t.known, t.ok, t.last = true, want, now
		return true
	case want == t.ok:
		news = !t.since.IsZero()
		t.since, t.due = time.Time{}, time.Time{}
		return news || changed
	case t.since.IsZero():
		delay := t.conf.TerminateDelay
		if grew {
			delay = t.conf.ForkDelay
		}
		t.since, t.due = now, now.Add(delay)
	}
	if now.Before(t.due) {
		return changed || t.since.Equal(now)
	}
	t.ok, t.last = want, now
	t.since, t.due = time.Time{}, time.Time{}
	return true
}

func (t *tracked) result() status.ProcessResult {
	r := status.ProcessResult{Name: t.conf.Name, OK: t.ok, Count: t.count, Last: t.last, Since: t.since}
	if !t.since.IsZero() {
		r.Detail = "counts from " + t.due.Format("15:04:05.000") + " on"
	}
	return r
}

// parseStat reads /proc/PID/stat: the name, the parent, and whether it is dead
// already. A name may hold spaces and parentheses.
func parseStat(b []byte) (comm string, parent int, dead, ok bool) {
	i, j := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if i < 0 || j < i {
		return "", 0, false, false
	}
	f := bytes.Fields(b[j+1:])
	if len(f) < 2 || len(f[0]) != 1 {
		return "", 0, false, false
	}
	for _, c := range f[1] {
		if c < '0' || c > '9' || parent > 1<<30 {
			return "", 0, false, false
		}
		parent = parent*10 + int(c-'0')
	}
	return string(b[i+1 : j]), parent, slices.Contains([]byte("ZXx"), f[0][0]), true
}
