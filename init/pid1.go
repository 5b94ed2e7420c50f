package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/board"
	"ballast/init/boot"
	"ballast/init/journal"
	"ballast/init/kmod"
	"ballast/init/power"
	"ballast/init/supervise"
	"ballast/init/vip"
	"ballast/init/watchdog"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// boardFile names the board that the image was built for.
const boardFile = "/etc/ballast/board"

// machine is everything that PID 1 holds.
type machine struct {
	started time.Time
	board   board.Board
	cmdline boot.CmdLine
	console *journal.Console
	journal *journal.Journal
	phases  *boot.Phases
	loader  *kmod.Loader
	data    boot.Data
	seed    bool
	cgroup  string
	sup     *supervise.Supervisor
	ssh     *net.TCPListener
	ask     chan power.Request
	changed chan struct{} // has a token when the state is to be published

	mu       sync.Mutex
	dog      *watchdog.Device
	dogState string
	serving  bool      // the services were started
	stopping time.Time // zero: not yet
	buttons  map[string]bool
}

// pid1 boots and then waits for the end. It never returns. A panic here is a
// kernel panic, and the kernel is told to start anew after that.
func pid1() {
	power.Hold()
	ctx := context.Background()
	m := &machine{
		started: time.Now(), console: journal.NewConsole(journal.Notice, os.Stderr),
		ask: make(chan power.Request, 4), changed: make(chan struct{}, 1), buttons: map[string]bool{},
	}
	m.journal = journal.New(m.console.Show)
	m.phases = &boot.Phases{Journal: m.journal}
	m.journal.Print(journal.Notice, "Ballast %s, init is up %.3f s after the kernel started", version, journal.Uptime().Seconds())
	m.boot(ctx)
	for r := range m.ask {
		m.shutdown(r)
	}
}

func (m *machine) boot(ctx context.Context) {
	run := m.phases.Run
	run("mounts", func() (string, error) {
		err := boot.Mounts()
		m.console.Open()
		m.cmdline = boot.ReadCmdLine()
		return "", err
	})
	run("board", func() (what string, err error) {
		name, _ := os.ReadFile(boardFile)
		m.board, err = board.Get(strings.TrimSpace(string(name)))
		return m.board.Name, err
	})
	run("settings", func() (string, error) {
		if err := power.Signals(ctx, m.ask); err != nil {
			m.journal.Print(journal.Warning, "%v", err)
		}
		raiseLimits()
		return "", boot.Sysctls()
	})
	run("random numbers", func() (string, error) { return "", boot.Entropy() })
	run("modules", func() (string, error) { return m.modules(ctx) })
	run("watchdog", func() (string, error) { return m.openWatchdog("/dev/watchdog0") })
	if m.dog != nil {
		// Now, not with the services: a dying disk can hold up the next phase for
		// longer than the hardware waits, and a box that boots again and again is of no use.
		go watchdog.Feeder{Device: m.dog, Interval: 2 * time.Second, Health: m.health, Starved: m.starved}.Run(ctx)
	}
	run("data", func() (string, error) {
		var err error
		d := m.board.Data
		if m.cmdline.Get("ballast.data") == "none" {
			d = board.Data{}
		}
		m.data, err = boot.MountData(d)
		if m.data.Warning != "" {
			m.journal.Print(journal.Warning, "%s", m.data.Warning)
		}
		return m.data.Note, err
	})
	run("first configuration", func() (string, error) {
		what, faults, err := boot.FirstConfiguration(m.cmdline)
		for _, f := range faults {
			m.journal.Print(journal.Warning, "%v", f)
		}
		if what == "" {
			what = "neither asked for nor brought"
		}
		return what, err
	})
	run("seed", func() (what string, err error) {
		m.seed, err = boot.Seed(boot.SeedDir, ipc.UIDConf, ipc.GroupBallast)
		if what = "none"; m.seed {
			what = "found"
		}
		if oerr := boot.OwnScriptDirs(ipc.UIDConf, ipc.GroupBallast); err == nil {
			err = oerr
		}
		return what, err
	})
	run("host name", func() (string, error) {
		name := boot.HostName(m.cmdline, boot.DataDir, boot.SeedDir)
		return name, boot.SetHostName(name, "")
	})
	run("cgroups", func() (what string, err error) {
		m.cgroup, err = boot.Cgroups()
		return "", err
	})
	run("services", func() (string, error) { return fmt.Sprintf("%d", mandatory()), m.startServices(ctx) })
	go m.awaitReady(ctx)
}

// raiseLimits lets init's children have what some of them need; the others
// give it up.
func raiseLimits() {
	for which, n := range map[int]uint64{unix.RLIMIT_NOFILE: 1 << 20, unix.RLIMIT_RTPRIO: 99, unix.RLIMIT_NICE: 40, unix.RLIMIT_MEMLOCK: unix.RLIM_INFINITY} {
		unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n})
	}
}

func (m *machine) modules(ctx context.Context) (string, error) {
	var err error
	if m.loader, err = kmod.Open(string(m.cmdline)); err != nil {
		return "", err
	}
	m.loader.Trace = func(name string, took time.Duration) {
		m.journal.Print(journal.Info, "module %s took %v", name, took.Round(100*time.Microsecond))
	}
	// Listen before looking: a device that comes in between is seen.
	if err := boot.Uevents(ctx, func(u boot.Uevent) { m.device(ctx, u) }); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
	begin := time.Now()
	for _, err := range m.loader.Coldplug("/sys/devices") {
		m.journal.Print(journal.Warning, "%v", err)
	}
	m.journal.Print(journal.Info, "drivers of the devices took %v", time.Since(begin).Round(time.Millisecond))
	for _, name := range m.board.Load {
		if err := m.loader.Load(name); err != nil {
			m.journal.Print(journal.Error, "%v", err)
		}
	}
	m.openButtons(ctx)
	return fmt.Sprintf("%d loaded", m.loader.Loaded()), nil
}

// device handles a device that has come.
func (m *machine) device(ctx context.Context, u boot.Uevent) {
	if u.Action != "add" {
		return
	}
	if u.Modalias != "" {
		if err := m.loader.Device(u.Modalias); err != nil {
			m.journal.Print(journal.Warning, "%s: %v", u.Path, err)
		}
	}
	if u.Subsystem == "input" {
		m.openButtons(ctx)
	}
}

// openButtons listens to every power button that nobody listens to yet.
func (m *machine) openButtons(ctx context.Context) {
	for _, name := range power.Buttons("/sys/class/input") {
		m.mu.Lock()
		known := m.buttons[name]
		m.buttons[name] = true
		m.mu.Unlock()
		if known {
			continue
		}
		go func() {
			if err := power.Button(ctx, name, m.ask); err != nil {
				m.journal.Print(journal.Warning, "%v", err)
			}
			m.mu.Lock()
			delete(m.buttons, name)
			m.mu.Unlock()
		}()
	}
}

func (m *machine) openWatchdog(dev string) (string, error) {
	if m.cmdline.Get("ballast.watchdog") == "off" {
		m.dogState = "off: ballast.watchdog=off on the kernel's command line"
		return m.dogState, nil
	}
	for _, driver := range m.board.Watchdogs {
		if _, err := os.Stat(dev); err == nil {
			break // its device was found with the others
		}
		if m.loader == nil {
			break // no modules for this kernel: the phase before said so
		}
		if err := m.loader.Load(driver); err != nil {
			m.journal.Print(journal.Warning, "%v", err)
		}
	}
	d, err := watchdog.Open(dev, m.board.WatchdogTimeout)
	if err != nil {
		m.dogState = "none: " + err.Error()
		return "", err
	}
	m.dog = d
	m.dogState = d.Identity + ", fed"
	return fmt.Sprintf("%s, %v", d.Identity, d.Timeout), d.Feed()
}

func (m *machine) startServices(ctx context.Context) error {
	reaper := supervise.NewReaper()
	data := boot.DataDir
	env := []string{}
	if m.seed {
		env = append(env, "BALLAST_SEED="+boot.SeedDir)
	}
	var err error
	m.sup, err = supervise.New(supervise.Config{
		Exe: "/proc/self/exe", Args: func(n string) []string { return []string{"ballast", "run", n} },
		Dir: ipc.DefaultDir, Data: data, Run: boot.RunDir, Cgroup: m.cgroup, GID: ipc.GroupBallast, Env: env,
		Journal: m.journal, Reaper: reaper, Changed: m.touch,
	})
	if err != nil {
		return err
	}
	own, err := m.sup.Listen("init")
	if err != nil {
		return err
	}
	for _, s := range services {
		spec := supervise.Spec{
			Name: s.name, UID: s.uid, GID: ipc.GroupBallast, Caps: s.caps,
			Memory: s.memory * mib, Weight: s.weight, OOM: s.oom, Env: environment, StopTimeout: s.stopTime(), Optional: s.optional,
			Packets: s.packets,
		}
		if s.watched || s.hangs {
			spec.Hang = 2 * watchdog.Silence
		}
		if s.fast {
			spec.MaxBackoff = time.Second
		}
		switch s.name {
		case "vrrp":
			spec.LostAfter, spec.Lost = 3*time.Second, m.dropVIPs
		case "notify":
			spec.Scripts = &supervise.Scripts{Memory: scriptMemory * mib, PIDs: scriptPIDs}
		case "console":
			if l, err := net.Listen("tcp", ":22"); err == nil {
				m.ssh = l.(*net.TCPListener)
			} else {
				m.journal.Print(journal.Error, "SSH: %v", err)
			}
			spec.Files = m.consoleFiles
		}
		if err := m.sup.Add(spec); err != nil {
			m.journal.Print(journal.Error, "%v", err)
		}
	}
	go m.serve(ctx, own)
	m.sup.Start()
	m.mu.Lock()
	m.serving = true
	m.mu.Unlock()
	go m.followConf(ctx)
	return nil
}

// consoleFiles are the SSH listener and the serial lines.
func (m *machine) consoleFiles() (map[string]*os.File, error) {
	files := map[string]*os.File{}
	if m.ssh != nil {
		f, err := m.ssh.File()
		if err != nil {
			return files, fmt.Errorf("SSH listener: %w", err)
		}
		files["ssh"] = f
	}
	n := 0
	for _, name := range journal.Active() {
		if strings.HasPrefix(name, "tty") && !strings.HasPrefix(name, "ttyS") && !strings.HasPrefix(name, "ttyA") {
			continue // a screen
		}
		f, err := os.OpenFile(filepath.Join("/dev", name), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			return files, fmt.Errorf("serial line: %w", err)
		}
		n++
		key := "serial"
		if n > 1 {
			key = fmt.Sprintf("serial%d", n)
		}
		files[key] = f
	}
	return files, nil
}

// dropVIPs is for the case that vrrp cannot come back.
func (m *machine) dropVIPs() {
	n, err := vip.Drop()
	m.journal.Print(journal.Error, "took %d virtual addresses down: vrrp is not there to answer for them", n)
	if err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
}

// awaitReady tells when the box does its job.
func (m *machine) awaitReady(ctx context.Context) {
	if m.sup == nil {
		return
	}
	short, stop := context.WithTimeout(ctx, time.Minute)
	missing := m.sup.WaitReady(short)
	stop()
	if missing != nil {
		m.journal.Print(journal.Error, "not ready after a minute: %s", strings.Join(missing, ", "))
		if m.sup.WaitReady(ctx) != nil {
			return
		}
	}
	// What the boot needed and the years after it do not goes back to the kernel,
	// once the services have settled too.
	debug.SetGCPercent(50)
	time.AfterFunc(settled, func() {
		debug.FreeOSMemory()
		if err := shed(); err != nil {
			m.journal.Print(journal.Warning, "resident pages of the program: %v", err)
		}
	})
	up := journal.Uptime()
	m.phases.Add(status.Phase{Name: "ready", Start: up})
	m.console.SetLevel(journal.Warning)
	m.journal.Print(journal.Notice, "ready: %d services, %.3f s after the kernel started", mandatory(), up.Seconds())
	m.touch()
}

// followConf calls the box what its configuration calls it: net, which applies
// the rest of the configuration's system block, may not. And it runs the
// services that not every configuration needs.
func (m *machine) followConf(ctx context.Context) {
	follow.New(ipc.DefaultDir.Client("conf"), follow.Head).Run(ctx, func(u follow.Update) {
		snmp := u.Conf.Config.Global.SNMP
		m.sup.Want("snmp", len(snmp.Listen)+len(snmp.TrapSinks) > 0)
		want := u.Conf.Config.System.HostName
		have, _ := os.Hostname()
		if want == "" || want == have {
			return
		}
		keep := boot.DataDir
		if m.data.Stateless {
			keep = ""
		}
		if err := boot.SetHostName(want, keep); err != nil {
			m.journal.Print(journal.Error, "%v", err)
			return
		}
		m.journal.Print(journal.Notice, "host name: %s -> %s", have, want)
	})
}
