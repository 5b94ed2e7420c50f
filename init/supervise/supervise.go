// Package supervise runs the services of a director, each as a process of its
// own, with no more rights than it needs, and starts again what ends.
//
// The sockets of all services exist before the first one starts and outlive
// each of them: who connects while a service is away waits a moment and is
// never refused.
package supervise

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/journal"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Config is what all services share.
type Config struct {
	Exe     string                // what is executed
	Args    func(string) []string // argv for a service
	Dir     ipc.Dir
	Data    string // parent of the services' own folders; empty: none
	Run     string // parent of their own folders in memory; empty: none
	Cgroup  string // parent of the services' cgroups; empty: none
	GID     uint32 // group that may use the sockets
	Env     []string
	Journal *journal.Journal
	Reaper  *Reaper
	Changed func() // called after each change of a service's state; must not block
}

// States of a service, as status.Process has them.
const (
	Starting = "starting"
	Ready    = "ready"
	Backoff  = "backoff"
	Stopped  = "stopped"
	Idle     = "idle" // does not run, and is started when somebody wants something
)

// stable is how long a service must have run for its next restart to count as
// the first one.
const stable = 10 * time.Second

// Supervisor runs services. Make it with New.
type Supervisor struct {
	cfg Config

	mu       sync.Mutex
	services []*service
	changed  chan struct{} // closed at the next change of a state
}

// service is one of them. The fields below mu belong to the lock of the
// supervisor.
type service struct {
	sup     *Supervisor
	spec    Spec
	listen  *os.File
	knock   *knock        // of a service on demand
	wake    chan struct{} // has a token when it is to start though nobody connects
	data    string        // its own folder; empty: none
	own     string        // its own folder in memory; empty: none
	cgroup  cgroup        // of everything that it runs
	home    cgroup        // where the process itself is: that, or a part of it
	scripts cgroup        // where it starts others; empty: none of their own
	stop    chan struct{} // closed: end and stay away
	ended   chan struct{} // closed: run has returned, or was never called

	wanted   bool // it is to run
	final    bool // it is never to run again
	pid      int
	state    string
	since    time.Time
	started  time.Time // of this process
	first    time.Time // of the first process
	progress time.Time
	restarts int
	lastExit string
}

// New makes the sockets' folder and returns a supervisor without services.
func New(cfg Config) (*Supervisor, error) {
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	dir := string(cfg.Dir)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("supervise: %w", err)
	}
	if err := chown(dir, 0, cfg.GID, 0o750); err != nil {
		return nil, err
	}
	return &Supervisor{cfg: cfg, changed: make(chan struct{})}, nil
}

func chown(name string, uid, gid uint32, mode os.FileMode) error {
	if err := os.Chown(name, int(uid), int(gid)); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	if err := os.Chmod(name, mode); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	return nil
}

// Listen makes the socket of a service: root's, usable by the group.
func (s *Supervisor) Listen(name string) (*net.UnixListener, error) {
	return s.listen("unix", name)
}

func (s *Supervisor) listen(network, name string) (*net.UnixListener, error) {
	p := s.cfg.Dir.Path(name)
	os.Remove(p) // of a run before this one
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: p, Net: network})
	if err != nil {
		return nil, fmt.Errorf("supervise: socket of %s: %w", name, err)
	}
	l.SetUnlinkOnClose(false)
	if err := chown(p, 0, s.cfg.GID, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Add makes everything that a service needs before its first start. All
// services are added before the first one is started.
func (s *Supervisor) Add(spec Spec) error {
	network := "unix"
	if spec.Packets {
		network = "unixpacket"
	}
	l, err := s.listen(network, spec.Name)
	if err != nil {
		return err
	}
	f, err := l.File() // the same open socket; it stays ours
	var k *knock
	if err == nil && spec.Idle > 0 {
		k, err = newKnock(l)
	}
	l.Close()
	if err != nil {
		return fmt.Errorf("supervise: socket of %s: %w", spec.Name, err)
	}
	v := &service{
		sup: s, spec: spec, listen: f, knock: k, wake: make(chan struct{}, 1), state: Stopped, since: time.Now(),
		stop: make(chan struct{}), ended: make(chan struct{}), wanted: !spec.Optional,
	}
	if spec.Optional {
		close(v.stop)
		close(v.ended)
	}
	if s.cfg.Cgroup != "" {
		if v.cgroup, err = newCgroup(s.cfg.Cgroup, spec.Name, spec.Memory, spec.Weight); err != nil {
			// Without its limits is better than not at all.
			s.cfg.Journal.Print(journal.Error, "%v", err)
		}
		v.home = v.cgroup
		if spec.Scripts != nil && v.cgroup != "" {
			if v.home, v.scripts, err = v.cgroup.split(spec.UID, *spec.Scripts); err != nil {
				s.cfg.Journal.Print(journal.Error, "%s: %v", spec.Name, err)
			}
		}
	}
	if s.cfg.Run != "" {
		v.own = filepath.Join(s.cfg.Run, spec.Name)
		if err := folder(v.own, spec.UID, spec.GID, 0o755); err != nil {
			s.cfg.Journal.Print(journal.Error, "%s has no folder of its own: %v", spec.Name, err)
			v.own = ""
		}
	}
	if s.cfg.Data != "" {
		v.data = filepath.Join(s.cfg.Data, spec.Name)
		if err := folder(v.data, spec.UID, spec.GID, 0o700); err != nil {
			// A disk that is full or read-only costs what is kept, not the service.
			s.cfg.Journal.Print(journal.Error, "%s keeps its files in memory, they are gone at a reboot: %v", spec.Name, err)
			v.data = ""
			if v.own != "" {
				v.data = filepath.Join(v.own, "data")
				if err := folder(v.data, spec.UID, spec.GID, 0o700); err != nil {
					s.cfg.Journal.Print(journal.Error, "%s keeps nothing at all: %v", spec.Name, err)
					v.data = ""
				}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services = append(s.services, v)
	return nil
}

// folder makes a service's own folder. It writes nothing when all is as it
// should be: a disk that is read-only still has what it has.
func folder(d string, uid, gid uint32, mode os.FileMode) error {
	st, err := os.Lstat(d)
	if err == nil && st.IsDir() && st.Mode().Perm() == mode {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid == uid && sys.Gid == gid {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(d), 0o755); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	if err := os.MkdirAll(d, 0o700); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	return chown(d, uid, gid, mode)
}

// Start starts all services but the optional ones in the order in which they
// were added, without waiting for any.
func (s *Supervisor) Start() {
	s.mu.Lock()
	all := slices.Clone(s.services)
	s.mu.Unlock()
	for _, v := range all {
		if v.spec.Optional {
			continue
		}
		started := make(chan struct{})
		go v.run(started)
		<-started
	}
}

// Want starts or stops an optional service; it waits until a stopped one has
// ended. It is not for use by two goroutines. A service that does not exist or
// is not optional is left alone, and so is one that Stop has ended.
func (s *Supervisor) Want(name string, on bool) {
	v := s.find(name)
	if v == nil || !v.spec.Optional {
		return
	}
	s.mu.Lock()
	if v.wanted == on || v.final {
		s.mu.Unlock()
		return
	}
	v.wanted = on
	if on {
		v.stop, v.ended = make(chan struct{}), make(chan struct{})
		go v.run(nil)
	} else {
		close(v.stop)
	}
	ended := v.ended
	s.mu.Unlock()
	if !on {
		<-ended
	}
}

func (s *Supervisor) find(name string) *service {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.services {
		if v.spec.Name == name {
			return v
		}
	}
	return nil
}

// Signal sends a signal to a service.
func (s *Supervisor) Signal(name string, sig unix.Signal) error {
	v := s.find(name)
	if v == nil {
		return fmt.Errorf("there is no service %q", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.pid == 0 {
		return fmt.Errorf("%s is not running (%s)", name, v.state)
	}
	if err := unix.Kill(v.pid, sig); err != nil {
		return fmt.Errorf("%s: signal %s: %w", name, unix.SignalName(sig), err)
	}
	return nil
}

// Stop ends services for good, side by side, and waits until they have ended,
// which takes at most the longest of their StopTimeouts and a second. A service
// that does not exist is not an error.
func (s *Supervisor) Stop(names ...string) {
	var waits []<-chan struct{}
	for _, n := range names {
		v := s.find(n)
		if v == nil {
			continue
		}
		s.mu.Lock()
		if !v.final {
			v.final = true
			if v.wanted {
				close(v.stop)
			}
		}
		waits = append(waits, v.ended)
		s.mu.Unlock()
	}
	for _, ended := range waits {
		<-ended
	}
}

// Names returns the services in the order in which they were added.
func (s *Supervisor) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, v := range s.services {
		out = append(out, v.spec.Name)
	}
	return out
}

// WaitReady returns when all services are ready, or idle, or with the names of those
// that are not when ctx ends.
func (s *Supervisor) WaitReady(ctx context.Context) (missing []string) {
	for {
		missing = nil
		s.mu.Lock()
		for _, v := range s.services {
			if v.wanted && v.state != Ready && v.state != Idle {
				missing = append(missing, v.spec.Name)
			}
		}
		changed := s.changed
		s.mu.Unlock()
		if missing == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return missing
		}
	}
}

// State tells of all services, in the order in which they were added.
func (s *Supervisor) State() []status.Process {
	out := s.Brief()
	for i := range out {
		out[i].RSS, out[i].PSS, out[i].CPU = Figures(out[i].PID)
	}
	return out
}

// Brief is State without figures, which the kernel has to add up page by page.
func (s *Supervisor) Brief() []status.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]status.Process, 0, len(s.services))
	for _, v := range s.services {
		out = append(out, status.Process{
			Name: v.spec.Name, PID: v.pid, State: v.state, Since: v.since,
			Restarts: v.restarts, LastExit: v.lastExit, LastProgress: v.progress,
		})
	}
	return out
}

// Life is what the watchdog wants to know of a service.
type Life struct {
	Ready    bool
	Progress time.Time // last sign of life while ready
	First    time.Time // when it was first started
}

// Life tells of one service; false: there is no such service.
func (s *Supervisor) Life(name string) (Life, bool) {
	v := s.find(name)
	if v == nil {
		return Life{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Life{v.state == Ready, v.progress, v.first}, true
}

// set changes a service under the lock and tells.
func (v *service) set(change func()) {
	v.sup.mu.Lock()
	before := v.state
	change()
	if v.state != before {
		v.since = time.Now()
	}
	close(v.sup.changed)
	v.sup.changed = make(chan struct{})
	v.sup.mu.Unlock()
	v.sup.cfg.Changed()
}
