package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/printable"
	"ballast/init/boot"
	"ballast/init/journal"
	"ballast/init/power"
	"ballast/init/supervise"
	"ballast/init/watchdog"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// touch has the state published anew; it never blocks.
func (m *machine) touch() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// liveState is published instead of a status.Init: it is filled in when
// somebody asks, so that a box that nobody looks at reads no figures.
type liveState struct{ m *machine }

// MarshalJSON makes the status.Init of this moment.
func (l liveState) MarshalJSON() ([]byte, error) { return json.Marshal(l.m.state()) }

// Summary is what those want who look often: whether the services are there,
// and what a user is told at his login.
func (l liveState) Summary() any {
	l.m.mu.Lock()
	stopping := !l.m.stopping.IsZero()
	l.m.mu.Unlock()
	return status.InitNews{Stopping: stopping, Services: l.m.sup.Brief(), Alarms: l.m.alarms()}
}

func (m *machine) state() status.Init {
	s := status.Init{
		Version: version, Board: m.board.Name, Started: m.started, Stateless: m.data.Stateless,
		Phases: m.phases.List(), Services: append([]status.Process{m.self()}, m.sup.State()...),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		s.MemTotal, s.MemFree = uint64(si.Totalram)*uint64(si.Unit), memAvailable()
	}
	m.mu.Lock()
	s.Watchdog, s.Stopping, s.Start = m.dogState, !m.stopping.IsZero(), m.start
	m.mu.Unlock()
	s.Alarms = m.alarms()
	return s
}

// self is init's own row among the processes.
func (m *machine) self() status.Process {
	p := status.Process{Name: "init", PID: 1, State: supervise.Ready, Since: m.started, LastProgress: time.Now()}
	p.RSS, p.PSS, p.CPU = supervise.Figures(1)
	return p
}

// refresh is how often the state is published when nothing happens, for the
// figures in it.
const refresh = 5 * time.Second

// serve answers on init's own socket.
func (m *machine) serve(ctx context.Context, l net.Listener) {
	srv := ipc.NewServer("init")
	srv.Publish(liveState{m})
	srv.Handle("log", m.verbLog, ipc.GroupView, ipc.UIDNotify)
	srv.Handle("crash", m.verbCrash, ipc.GroupView)
	srv.Handle("factory-reset", m.verbFactoryReset, ipc.GroupAdmin)
	srv.Handle("restart", m.verbRestart, ipc.GroupOperate)
	srv.Handle("reboot", m.verbPower(power.Reboot), ipc.GroupAdmin, ipc.UIDFirmware)
	srv.Handle("disks", m.verbDisks, ipc.GroupAdmin)
	srv.Handle("disk-take", m.verbDiskTake, ipc.UIDFirmware)
	srv.Handle("disk-give", m.verbDiskGive, ipc.UIDFirmware)
	srv.HandleStream("stick", m.verbStick, ipc.UIDFirmware)
	srv.Handle("poweroff", m.verbPower(power.PowerOff), ipc.GroupAdmin)
	go func() {
		t := time.NewTicker(refresh)
		defer t.Stop()
		for {
			select {
			case <-m.changed:
			case <-t.C:
			case <-ctx.Done():
				return
			}
			srv.Publish(liveState{m})
		}
	}()
	if err := srv.Serve(ctx, l); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
}

func (m *machine) verbLog(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.LogQuery
	if err := unmarshal(body, &q); err != nil {
		return nil, err
	}
	return m.journal.Lines(q)
}

func (m *machine) verbRestart(_ context.Context, p ipc.Peer, body json.RawMessage) (any, error) {
	var r status.Restart
	if err := unmarshal(body, &r); err != nil {
		return nil, err
	}
	sig := unix.Signal(r.Signal)
	if sig == 0 {
		sig = unix.SIGTERM
	}
	if sig < 0 || sig > 31 {
		return nil, fmt.Errorf("signal %d: want 1 to 31, or 0 for SIGTERM", r.Signal)
	}
	switch sig {
	case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		// Only vrrp, net and ipvs are missed when they stand still.
		return nil, fmt.Errorf("signal %d (%s) does not restart %s, it leaves it standing: send 9 (SIGKILL) or none", r.Signal, unix.SignalName(sig), r.Service)
	}
	m.journal.Print(journal.Notice, "%s is sent %s, asked by user %d", r.Service, unix.SignalName(sig), p.UID)
	return nil, m.sup.Signal(r.Service, sig)
}

func (m *machine) verbPower(a power.Action) ipc.VerbFunc {
	return func(_ context.Context, p ipc.Peer, body json.RawMessage) (any, error) {
		var who status.Power
		if err := unmarshal(body, &who); err != nil {
			return nil, err
		}
		if who.By == "" {
			who.By = fmt.Sprintf("user %d", p.UID)
		}
		select {
		case m.ask <- power.Request{Action: a, By: printable.Line(who.By)}:
			return nil, nil
		default:
			return nil, fmt.Errorf("%s: others asked before, and it is under way", a)
		}
	}
}

func unmarshal(body json.RawMessage, v any) error {
	if len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("argument: %w", err)
	}
	return nil
}

// bootTime is how long the phases before the services may take: longer than a
// disk that no longer answers holds them up (the kernel gives it 30 s, a few times).
const bootTime = 5 * time.Minute

// health is what the watchdog asks.
func (m *machine) health(now time.Time) string {
	m.mu.Lock()
	stopping, serving := m.stopping, m.serving
	m.mu.Unlock()
	if !stopping.IsZero() {
		// The services are meant to be silent now; a shutdown that hangs is not.
		if now.Sub(stopping) < shutdownTime {
			return ""
		}
		return "the shutdown hangs"
	}
	if !serving {
		if now.Sub(m.started) < bootTime {
			return ""
		}
		return "the boot hangs"
	}
	var signs []watchdog.Sign
	for _, s := range services {
		if !s.watched {
			continue
		}
		l, _ := m.sup.Life(s.name)
		signs = append(signs, watchdog.Sign{Name: s.name, Ready: l.Ready, Progress: l.Progress, First: l.First})
	}
	return watchdog.Judge(now, signs)
}

func (m *machine) starved(why string) {
	m.mu.Lock()
	d := m.dog
	switch {
	case d == nil:
	case why == "":
		m.dogState = d.Identity + ", fed"
	default:
		m.dogState = d.Identity + ", not fed: " + why
	}
	m.mu.Unlock()
	m.touch()
	if why == "" {
		m.journal.Print(journal.Notice, "the watchdog is fed again")
		return
	}
	text := "there is no watchdog that would reset the box now: " + why
	if d != nil {
		text = fmt.Sprintf("the watchdog is not fed any more and resets the box in %v: %s", d.Timeout, why)
	}
	m.journal.Print(journal.Error, "%s", text)
	journal.ToKernel(journal.Error, text)
}

// shutdownTime bounds everything that shutdown does.
const shutdownTime = 32 * time.Second

// shutdown ends the box in order; it returns only when the kernel refuses.
func (m *machine) shutdown(r power.Request) {
	m.mu.Lock()
	m.stopping = time.Now()
	m.mu.Unlock()
	m.journal.Print(journal.Notice, "%s, asked by %s", r.Action, r.By)
	journal.ToKernel(journal.Notice, fmt.Sprintf("%s, asked by %s", r.Action, r.By))
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.stopServices()
	}()
	select {
	case <-done:
	case <-time.After(shutdownTime - 3*time.Second):
		m.journal.Print(journal.Error, "services did not end in time; going on without them")
	}
	power.EndAll(100 * time.Millisecond)
	m.endMark(fmt.Sprintf("%s, asked by %s", r.Action, r.By))
	m.leaveData()
	if err := boot.UnmountData(); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
	m.mu.Lock()
	dog := m.dog
	m.mu.Unlock()
	if r.Action == power.PowerOff && dog != nil {
		if err := dog.Disarm(); err != nil {
			m.journal.Print(journal.Warning, "%v", err)
		}
	}
	m.journal.Print(journal.Notice, "%s", r.Action)
	m.console.Drain(time.Second)
	if err := power.Now(r.Action); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
}

func (m *machine) stopServices() {
	if m.sup == nil {
		return
	}
	for _, names := range stopOrder {
		m.sup.Stop(names...)
	}
	m.sup.Stop(m.sup.Names()...) // what the order forgot
}
