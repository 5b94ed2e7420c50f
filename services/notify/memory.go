package notify

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// memory is what was acted on already. It outlives a restart of this process,
// so that no script runs twice for one transition and none is lost, but not a
// reboot: then everything begins anew.
type memory struct {
	log   *slog.Logger
	paths []string // the first that can be written is used
	boot  string

	vrrp, health *mark // nil: nothing was seen yet
	scripts      map[string]verdict
	config       uint64 // generation last applied
	started      bool   // startup_script ran, files were initialised
	warned       bool
}

// verdict is what a vrrp_script came to.
type verdict struct {
	Command string `json:"command"` // hash of what was run
	OK      bool   `json:"ok"`
}

type memoryFile struct {
	Boot   string `json:"boot"`
	VRRP   *mark  `json:"vrrp,omitempty"`
	Health *mark  `json:"health,omitempty"`

	Scripts map[string]verdict `json:"scripts,omitempty"`

	Config  uint64 `json:"config,omitempty"`
	Started bool   `json:"started,omitempty"`
}

func openMemory(env *ipc.Env) *memory {
	m := &memory{log: env.Log}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		m.boot = strings.TrimSpace(string(b))
	}
	// Memory first: this is written at each transition.
	if env.Run != "" {
		m.paths = append(m.paths, filepath.Join(env.Run, "seen"))
	}
	if env.Data != "" {
		m.paths = append(m.paths, filepath.Join(env.Data, "notify.seen"))
	}
	for _, p := range m.paths {
		var f memoryFile
		b, err := os.ReadFile(p)
		if err != nil || json.Unmarshal(b, &f) != nil || f.Boot != m.boot {
			continue
		}
		m.vrrp, m.health, m.scripts, m.config, m.started = f.VRRP, f.Health, f.Scripts, f.Config, f.Started
		break
	}
	return m
}

func advance(old *mark, ring []status.Transition, fresh bool) (*mark, bool) {
	if len(ring) == 0 {
		if fresh {
			return &mark{}, true
		}
		return old, false
	}
	n := markOf(ring[len(ring)-1])
	if old != nil && *old == n {
		return old, false
	}
	return &n, true
}

func (m *memory) setVRRP(ring []status.Transition, fresh bool) {
	if n, changed := advance(m.vrrp, ring, fresh); changed {
		m.vrrp = n
		m.save()
	}
}

func (m *memory) setHealth(ring []status.Transition, fresh bool) {
	if n, changed := advance(m.health, ring, fresh); changed {
		m.health = n
		m.save()
	}
}

// setScripts keeps the verdicts of scripts, so that after a restart of this
// process fall failures are still needed where fall were needed before.
func (m *memory) setScripts(v map[string]verdict) {
	if !maps.Equal(m.scripts, v) {
		m.scripts = v
		m.save()
	}
}

// setConfig remembers the configuration, and that the box was started up.
func (m *memory) setConfig(gen uint64) {
	if m.config != gen || !m.started {
		m.config, m.started = gen, true
		m.save()
	}
}

func (m *memory) save() {
	b, err := json.Marshal(memoryFile{m.boot, m.vrrp, m.health, m.scripts, m.config, m.started})
	if err != nil {
		return
	}
	var errs []error
	for _, p := range m.paths {
		tmp := p + ".new"
		err := os.WriteFile(tmp, b, 0o600)
		if err == nil {
			err = os.Rename(tmp, p)
		}
		if err == nil {
			return
		}
		errs = append(errs, err)
	}
	if !m.warned {
		m.warned = true
		m.log.Warn("what was acted on is kept in memory only: " + errors.Join(errs...).Error())
	}
}
