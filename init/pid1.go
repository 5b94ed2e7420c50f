package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/board"
	"ballast/init/boot"
	"ballast/init/crash"
	"ballast/init/journal"
	"ballast/init/kmod"
	"ballast/init/power"
	"ballast/init/supervise"
	"ballast/init/vip"
	"ballast/init/watchdog"
	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/netboot"
)

// boardFile names the board that the image was built for.
const boardFile = "/etc/ballast/board"

// machine is everything that PID 1 holds.
type machine struct {
	started       time.Time
	board         board.Board
	cmdline       boot.CmdLine
	console       *journal.Console
	journal       *journal.Journal
	phases        *boot.Phases
	loader        *kmod.Loader
	disk          *boot.BootDisk // nil: the box did not boot from a slot, or its disk is gone
	data          boot.Data
	seed          bool
	cgroup        string
	sup           *supervise.Supervisor
	ssh           *net.TCPListener
	ask           chan power.Request
	changed       chan struct{} // has a token when the state is to be published
	lastClosed    string        // modalias of the last device whose driver could not be loaded
	modulesClosed bool

	source     string     // folder of the server that this firmware was loaded from, if it was; guarded by mu
	taking     sync.Mutex // held by what follows
	taken      string     // disk that the firmware service has
	takenTimer *time.Timer

	cannot   string     // why the box cannot change its firmware
	sticking sync.Mutex // held while a stick is read

	tail      *crash.Tail
	mark      crash.Mark           // of this run; set before the services start
	reset     *status.FactoryReset // what was done at this boot; nil: nothing
	committed chan uint64          // holds the generation whose identity is to be kept

	mu       sync.Mutex
	crashes  *crash.Store // nil: none can be kept
	start    status.Start
	dog      *watchdog.Device // nil: none is armed
	dogState string
	serving  bool      // the services were started
	stopping time.Time // zero: not yet
	buttons  map[string]bool
}

// pid1 boots and then waits for the end. It never returns. A panic here is a
// kernel panic, and the kernel is told to start anew after that.
func pid1() {
	power.Hold()
	runtime.GOMAXPROCS(min(4, runtime.NumCPU())) // see service.procs
	ctx := context.Background()
	m := &machine{
		started: time.Now(), console: journal.NewConsole(journal.Notice, os.Stderr),
		ask: make(chan power.Request, 4), changed: make(chan struct{}, 1), buttons: map[string]bool{},
		committed: make(chan uint64, 1),
	}
	m.tail = crash.NewTail()
	m.journal = journal.New(func(l status.LogLine) {
		m.console.Show(l)
		m.tail.Add(l)
	})
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
	go m.guardTrial(ctx)
	run("board", func() (what string, err error) {
		name, _ := os.ReadFile(boardFile)
		m.board, err = board.Get(strings.TrimSpace(string(name)))
		m.console.Open(m.board.Consoles...)
		return m.board.Name, err
	})
	run("watchdog", func() (string, error) { return m.earlyWatchdog(ctx) })
	run("crash records", m.keepRecords)
	run("settings", func() (string, error) {
		if err := power.Signals(ctx, m.ask); err != nil {
			m.journal.Print(journal.Warning, "%v", err)
		}
		raiseLimits()
		return "", boot.Sysctls()
	})
	run("random numbers", func() (string, error) { return "", boot.Entropy() })
	run("modules", func() (string, error) { return m.modules(ctx) })
	if len(m.board.NICs) > 0 {
		run("NICs", func() (string, error) { return boot.NICs(m.board.NICs) })
	}
	if m.dog == nil || m.dog.Soft() {
		run("watchdog of the hardware", m.lateWatchdog)
	}
	run("boot disk", m.bootDisk)
	run("firmware", m.firmwareDisk)
	run("data", m.mountData)
	run("factory reset", m.factoryReset)
	run("last start", m.lastStart)
	go m.stayAlive(ctx)
	run("network", func() (string, error) { return m.netboot(ctx) })
	run("identity", m.identity)
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
	run("write protection", func() (string, error) { return "", errors.Join(boot.WriteProtect(), boot.Lockdown()) })
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
	if m.loader == nil {
		return "", errors.New("none can be loaded: the phase before said why")
	}
	// Listen before looking: a device that comes in between is seen.
	if err := boot.Uevents(ctx, func(u boot.Uevent) { m.device(ctx, u) }); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
	begin := time.Now()
	for _, err := range m.loader.Coldplug("/sys") {
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

// bootDisk finds the disk that the box booted from, and makes or grows the
// partition of the data on it.
func (m *machine) bootDisk() (string, error) {
	if m.loader != nil && m.loader.Load("efivarfs") == nil { // what follows reads it, in later phases too
		if err := boot.MountEFIVars(); err != nil {
			m.journal.Print(journal.Warning, "%v", err)
		}
		m.cmdline = m.cmdline.FromStub(boot.EFIVars)
	}
	d, err := boot.FindBootDisk(m.cmdline)
	if errors.Is(err, boot.ErrNoSlot) {
		return "none: it did not boot from a slot", nil
	}
	if err != nil {
		return "", err
	}
	m.disk = &d
	words, err := m.cmdline.FromState(d)
	if err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
	if words != m.cmdline {
		m.cmdline = words
		go m.guardTrial(context.Background()) // if it is one: nobody could tell before
	}
	what := fmt.Sprintf("%s, slot %s", d.Device, d.Slot)
	if boot.SecureBoot(boot.EFIVars) {
		what += ", by Secure Boot"
	}
	note, err := d.Fit()
	if note != "" {
		what += "; " + note
	}
	if err != nil {
		// The partition may be there all the same: the next phase sees.
		m.journal.Print(journal.Error, "%v", err)
	}
	return what, nil
}

// device handles a device that has come.
func (m *machine) device(ctx context.Context, u boot.Uevent) {
	if u.Action != "add" {
		return
	}
	if u.Modalias != "" {
		if err := m.loader.Device(u.Modalias); errors.Is(err, kmod.ErrClosed) && u.Modalias == m.lastClosed {
			// Several devices of one kind: said once.
		} else if err != nil {
			m.lastClosed = u.Modalias
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

func (m *machine) startServices(ctx context.Context) error {
	reaper := supervise.NewReaper()
	data := boot.DataDir
	env := []string{}
	if m.seed {
		env = append(env, conf.EnvSeed+"="+boot.SeedDir)
	}
	if id := ownIdentity(); id.Build > 0 {
		env = append(env, fmt.Sprintf("%s=%s %d", conf.EnvFirmware, id.Version, id.Build))
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
			Memory: s.memory * mib, Weight: s.weight, OOM: s.oom, Env: s.environ(runtime.NumCPU()), StopTimeout: s.stopTime(), Optional: s.optional,
			Packets: s.packets, Idle: s.idle,
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
		case "firmware":
			spec.Env = append(slices.Clone(spec.Env), m.firmwareEnv()...)
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
	if m.disk != nil {
		m.sup.Wake("firmware") // to hold a trial, or to see what became of one
	}
	m.mu.Lock()
	m.serving = true
	m.mu.Unlock()
	go m.followConf(ctx)
	return nil
}

// consoleFiles are the SSH listener, the serial lines and the screen.
func (m *machine) consoleFiles() (map[string]*os.File, error) {
	files := map[string]*os.File{}
	if m.ssh != nil {
		f, err := m.ssh.File()
		if err != nil {
			return files, fmt.Errorf("SSH listener: %w", err)
		}
		files["ssh"] = f
	}
	var errs []error
	n := 0
	for _, l := range journal.Lines(m.board.Consoles) {
		key := "screen"
		if !l.Screen {
			if key = "serial"; n > 0 {
				key = fmt.Sprintf("serial%d", n+1)
			}
			n++
		} else if files[key] != nil {
			continue
		}
		f, err := os.OpenFile(filepath.Join("/dev", l.Terminal), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil { // one of several: the others are as good
			errs = append(errs, fmt.Errorf("console: %w", err))
			continue
		}
		files[key] = f
	}
	return files, errors.Join(errs...)
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
		m.closeModules()
		if m.sup.WaitReady(ctx) != nil {
			return
		}
	}
	// What the boot needed and the years after it do not goes back to the kernel,
	// once the services have settled too.
	debug.SetGCPercent(50)
	time.AfterFunc(settled, func() {
		debug.FreeOSMemory()
		pages, err := openPages()
		if err == nil {
			err = pages.alone()
		}
		if err := errors.Join(err, shed()); err != nil {
			m.journal.Print(journal.Warning, "resident pages of the program: %v", err)
		}
	})
	go m.keepIdentity(ctx) // the keys are there now
	go m.tellOfReset(ctx)
	up := journal.Uptime()
	m.phases.Add(status.Phase{Name: "ready", Start: up})
	m.console.SetLevel(journal.Warning)
	m.journal.Print(journal.Notice, "ready: %d services, %.3f s after the kernel started", mandatory(), up.Seconds())
	m.touch()
	m.closeModules()
}

// followConf calls the box what its configuration calls it: net, which applies
// the rest of the configuration's system block, may not. And it runs the
// services that not every configuration needs.
func (m *machine) followConf(ctx context.Context) {
	follow.New(ipc.DefaultDir.Client("conf"), follow.Head).Run(ctx, func(u follow.Update) {
		defer m.noteCommit(u)
		snmp := u.Conf.Config.Global.SNMP
		m.sup.Want("snmp", len(snmp.Listen)+len(snmp.TrapSinks) > 0)
		want := u.Conf.Config.System.HostName
		have, _ := os.Hostname()
		if netboot.Serves(u.Conf.Config, cmp.Or(want, have)) {
			m.sup.Wake("netboot")
		}
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
