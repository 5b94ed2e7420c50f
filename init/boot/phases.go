package boot

import (
	"slices"
	"sync"
	"time"

	"ballast/init/journal"
	"ballast/services/ipc/status"
)

// Phases runs the phases of the boot and remembers how they went.
type Phases struct {
	Journal *journal.Journal

	mu   sync.Mutex
	done []status.Phase
}

// Add remembers a phase.
func (p *Phases) Add(ph status.Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, ph)
}

// List returns the phases so far.
func (p *Phases) List() []status.Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.done)
}

// Run does one phase. A fault is logged and the boot goes on: a box that is up
// without one of its parts can be reached and mended.
func (p *Phases) Run(name string, do func() (what string, err error)) {
	start := journal.Uptime()
	what, err := do()
	took := journal.Uptime() - start
	ph := status.Phase{Name: name, Start: start, Took: took}
	if err != nil {
		ph.Error = err.Error()
		p.Journal.Print(journal.Error, "%s: %v (%v)", name, err, took.Round(time.Millisecond))
	} else if what != "" {
		p.Journal.Print(journal.Notice, "%s: %s (%v)", name, what, took.Round(time.Millisecond))
	} else {
		p.Journal.Print(journal.Notice, "%s (%v)", name, took.Round(time.Millisecond))
	}
	p.Add(ph)
}
