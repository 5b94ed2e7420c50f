package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/boot"
	"ballast/init/journal"
)

// modulesWord keeps the loading of modules open: for hardware that comes while
// the box runs.
const modulesWord = "ballast.modules"

// closeModules loads what may be asked for later, and has the kernel load nothing
// from then on: whoever gets in cannot bring code into it. It works beside the
// services, which have the processors first.
func (m *machine) closeModules() {
	if m.loader == nil || m.modulesClosed {
		return
	}
	if m.cmdline.Get(modulesWord) == "open" {
		m.journal.Print(journal.Notice, "modules: loading stays open, as %s=open says", modulesWord)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends, and its niceness with it
		unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
		m.modulesClosed = m.lockModules()
	}()
	<-done
}

func (m *machine) lockModules() bool {
	begin, before := time.Now(), m.loader.Loaded()
	for _, name := range m.loader.Named(m.board.Later) {
		if err := m.loader.Load(name); err != nil {
			m.journal.Print(journal.Info, "%v", err) // another processor's, another firmware's
		}
	}
	if err := m.loader.Close(); err != nil {
		m.journal.Print(journal.Error, "modules: loading stays open: %v", err)
		return false
	}
	freed, err := boot.Discard("/lib/modules") // nobody can use them any more
	if err != nil {
		m.journal.Print(journal.Warning, "modules: their files stay in memory: %v", err)
	}
	m.journal.Print(journal.Notice, "modules: %d more loaded in %v; closed, %d in all, %.1f MB of files let go", m.loader.Loaded()-before,
		time.Since(begin).Round(time.Millisecond), m.loader.Loaded(), float64(freed)/1e6)
	return true
}
