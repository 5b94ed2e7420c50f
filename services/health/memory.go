package health

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// memory keeps the verdicts across a crash of this process, so that its next
// run does not call dead servers alive (nor alpha servers dead) until it has
// probed them all again. After a reboot everything begins anew, as keepalived
// does at its start.
type memory struct {
	path string // empty: nowhere to keep it
	boot string
	log  *slog.Logger
	last time.Time
	due  time.Time // when what is new is written at the latest; zero: nothing is
	bad  bool      // the failure was logged
}

// The file is written at most every saveGap, and saveWait after the first thing
// that is new: those who wait for a verdict come first.
const (
	saveGap  = time.Second
	saveWait = 250 * time.Millisecond
)

// keep saves when it is time to.
func (m *memory) keep(w *world, now time.Time) {
	switch {
	case !w.news:
	case m.due.IsZero():
		if m.due = m.last.Add(saveGap); m.due.Before(now.Add(saveWait)) {
			m.due = now.Add(saveWait)
		}
	case !now.Before(m.due):
		m.save(w, now)
	}
}

// remembered is the file.
type remembered struct {
	Boot    string          `json:"boot"`
	Seq     uint64          `json:"seq"` // of the last transition
	Checks  map[string]bool `json:"checks"`
	Weights map[string]int  `json:"weights,omitempty"` // of dynamic scripts
	Adds    map[string]int  `json:"adds,omitempty"`    // of files
	// Up and Down are virtual servers, by name.
	Up   []string `json:"up,omitempty"`
	Down []string `json:"down,omitempty"`

	quorums map[string]bool // of Up and Down
}

func openMemory(dir string, log *slog.Logger) *memory {
	m := &memory{log: log}
	if dir != "" {
		m.path = filepath.Join(dir, "verdicts.json")
	}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		m.boot = strings.TrimSpace(string(b))
	}
	return m
}

// load returns what the run before knew, nil when that is nothing.
func (m *memory) load() *remembered {
	if m.path == "" {
		return nil
	}
	b, err := os.ReadFile(m.path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("verdicts of the run before: " + err.Error())
		}
		return nil
	}
	var r remembered
	if err := json.Unmarshal(b, &r); err != nil || r.Boot != m.boot || r.Boot == "" {
		return nil
	}
	r.quorums = make(map[string]bool, len(r.Up)+len(r.Down))
	for _, n := range r.Down {
		r.quorums[n] = false
	}
	for _, n := range r.Up {
		r.quorums[n] = true
	}
	return &r
}

// save writes what w knows. It is not synced to the disk: it need not survive
// the kernel.
func (m *memory) save(w *world, now time.Time) {
	w.news, m.due = false, time.Time{}
	if m.path == "" {
		return
	}
	m.last = now
	b, err := json.Marshal(w.remember(m.boot))
	if err == nil {
		if err = os.WriteFile(m.path+".new", b, 0o600); err == nil {
			err = os.Rename(m.path+".new", m.path)
		}
	}
	if err != nil && !m.bad {
		m.log.Warn("verdicts are not kept: " + err.Error())
	}
	m.bad = err != nil
}

func (w *world) remember(boot string) *remembered {
	r := &remembered{Boot: boot, Seq: w.seq, Checks: map[string]bool{}, Weights: map[string]int{}, Adds: map[string]int{}}
	for _, c := range w.checks {
		if !c.m.known {
			continue
		}
		id := hex.EncodeToString(c.ident[:])
		r.Checks[id] = c.m.up
		if c.weight >= 0 {
			r.Weights[id] = c.weight
		}
		if c.added {
			r.Adds[id] = c.adds
		}
	}
	for _, vs := range w.servers {
		if vs.q.up {
			r.Up = append(r.Up, vs.conf.Name)
		} else {
			r.Down = append(r.Down, vs.conf.Name)
		}
	}
	return r
}

// recall gives a new check what the run before knew about it. It has no
// retries: one failure more is enough.
func (r *remembered) recall(c *check) {
	if r == nil {
		return
	}
	id := hex.EncodeToString(c.ident[:])
	up, known := r.Checks[id]
	if !known {
		return
	}
	c.m.up, c.m.known = up, true
	if !up && c.m.http {
		c.m.failedURL = 0
	}
	if weight, ok := r.Weights[id]; ok {
		c.weight = weight
	}
	if adds, ok := r.Adds[id]; ok {
		c.adds, c.added = adds, true
	}
	c.detail = "as before the restart of health"
}
