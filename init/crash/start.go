package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Mark is what a run of the box leaves on the data disk about itself.
type Mark struct {
	Boot    string    `json:"boot"` // the kernel's id of this run
	Started time.Time `json:"started"`
	Version string    `json:"version"`
	Slot    string    `json:"slot,omitempty"`
	Ended   string    `json:"ended,omitempty"` // "reboot, asked by …"; empty: it runs, or did not end in order
}

// ReadMark reads that of the run before; alive is when that run last touched it.
// known is false where there is none, or none that can be read.
func ReadMark(path string) (m Mark, alive time.Time, known bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, alive, false, nil
	}
	var st fs.FileInfo
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err == nil {
		st, err = os.Stat(path)
	}
	if err != nil {
		return Mark{}, alive, false, fmt.Errorf("mark of the last run: %w", err)
	}
	return m, st.ModTime(), true, nil
}

// Write keeps the mark, durably.
func (m Mark) Write(path string) error {
	b, err := json.Marshal(m)
	if err == nil {
		err = ipc.WriteDurable(path, b)
	}
	if err != nil {
		return fmt.Errorf("mark of this run: %w", err)
	}
	return nil
}

// Alive touches it: who looks after a power cut knows when the box was there last.
func Alive(path string) { os.Chtimes(path, time.Time{}, time.Now()) }

// Evidence is what is known of the end of the run before.
type Evidence struct {
	Known    bool // Last is the mark of the run before
	Last     Mark
	Alive    time.Time
	Crashes  []status.CrashReport // that pstore, or PID 1, left since
	Reset    bool                 // the hardware says that its watchdog reset the box
	Remember bool                 // what is written to /data is there at the next boot
}

// Judge tells how the box came to start.
func Judge(e Evidence) status.Start {
	s := status.Start{Alive: e.Alive}
	if n := len(e.Crashes); n > 0 {
		c := e.Crashes[n-1]
		s.Kind, s.Crash = status.StartPanic, c.Number
		switch c.Kind {
		case Watchdog:
			s.Kind, s.Why = status.StartWatchdog, "the watchdog ended the run before: "+c.Summary
		case Init:
			s.Why = "PID 1 ended: " + c.Summary
		case Oops:
			s.Why = "a fault of the kernel: " + c.Summary
		default:
			s.Why = "kernel panic: " + c.Summary
		}
		return s
	}
	switch {
	case e.Reset && e.Last.Ended == "": // who reboots in order may still be helped along by it
		s.Kind, s.Why = status.StartWatchdog, "the watchdog reset the box"
	case !e.Known && !e.Remember:
		s.Kind, s.Why = status.StartUnknown, "without a data disk nothing is known of the run before"
	case !e.Known:
		s.Kind, s.Why = status.StartFirst, "the first start with this data disk"
	case e.Last.Ended != "":
		s.Kind, s.Why = status.StartOrder, e.Last.Ended
	default:
		s.Kind, s.Why = status.StartCut, "the run before did not end in order: the power failed, or somebody reset the box"
	}
	if s.Kind == status.StartWatchdog || s.Kind == status.StartCut {
		if !e.Alive.IsZero() {
			s.Why += fmt.Sprintf("; it was alive at %s", e.Alive.UTC().Format("15:04 on 2 Jan 2006 UTC"))
		}
	}
	return s
}

// Unseen are the records that nobody who looks after the box has read, as alarms.
func Unseen(list []status.Crash) (out []string) {
	for _, c := range list {
		if c.Seen {
			continue
		}
		if len(out) == 3 {
			return append(out, "more crashes: \"show crash\"")
		}
		out = append(out, fmt.Sprintf("crash %d at %s: %s; \"show crash %d\"", c.Number, c.Time.UTC().Format("2006-01-02 15:04:05Z"), strings.TrimSpace(c.Kind+": "+c.Summary), c.Number))
	}
	return out
}

// Starved reports whether the last that a journal told of the watchdog is that it
// is not fed any more, and why.
func Starved(tail string) (why string, starved bool) {
	for line := range strings.Lines(tail) {
		if _, rest, ok := strings.Cut(line, "the watchdog is not fed any more"); ok {
			_, why, _ = strings.Cut(strings.TrimSpace(rest), ": ")
			starved = true
		} else if strings.Contains(line, "the watchdog is fed again") {
			why, starved = "", false
		}
	}
	return why, starved
}
